//! From bytes to vitals, status, waves and events: total, so that any bytes give a value or a count, never a panic.
//!
//! [`Decoder`] follows a [`Profile`]; [`gatt`] knows the characteristics that the Bluetooth SIG has standardised.

mod contents;
pub mod decimate;
mod driver;
mod fields;
mod frame;
pub mod gatt;
pub mod ieee11073;
mod number;
mod packet;
mod plan;
pub mod self_test;
mod superframe;
pub mod vendor;
mod waves;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::{Mono, Stamp};
use crate::profile::Profile;
use crate::profile::ble::Speaks;
use crate::profile::model::Rule;
use crate::vitals::{Absent, Metric, Pressure, Quality, Status, Value, Vital};

pub(crate) use contents::contents;
pub use frame::FrameCounters;
pub use waves::WaveSamples;

use driver::Driver;
use fields::Interpreter;
use frame::{BATCH, Found, Framer, unpack};
use plan::Plan;

/// A vital as a decoder found it, before anybody knows whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DecodedVital {
    /// What.
    pub vital: Vital,
    /// MDC code, where it differs from the metric's own.
    pub mdc: Option<u32>,
    /// How far to trust it.
    pub quality: Quality,
    /// What the device's own clock said, as it said it.
    pub device_time: Option<String>,
}

/// A measurement that somebody tried to take and that gave no number: an event, not a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedMeasurement {
    /// What was to be measured.
    pub metric: Metric,
    /// What the device sent in place of a number.
    pub reason: Absent,
    /// What the device blames, by the names of the specification.
    pub causes: Vec<&'static str>,
    /// What the device's own clock said, as it said it.
    pub device_time: Option<String>,
}

impl FailedMeasurement {
    /// The failure in the place of the value that it would have given, so that no older value is taken for it.
    pub fn vital(&self) -> DecodedVital {
        let value = Value::Absent(Absent::MeasurementFailed);
        let vital = if self.metric == Metric::BloodPressure {
            Vital::BloodPressure(Pressure { systolic: value, diastolic: value, mean: value })
        } else {
            Vital::scalar(self.metric, value)
        };
        DecodedVital { vital, mdc: None, quality: Quality::NotAvailable, device_time: self.device_time.clone() }
    }
}

/// What a decoder found.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// A vital; absent with its reason where the device has no value.
    Vital(DecodedVital),
    /// A measurement was tried and failed.
    MeasurementFailed(FailedMeasurement),
    /// The statuses that are set, when the set has changed. It begins empty.
    Status(BTreeSet<Status>),
    /// Samples of a wave.
    Wave(WaveSamples),
    /// A heart beat.
    Beat,
    /// The device's serial number, when it has changed.
    SerialNumber(String),
    /// Anything else that happened, by the profile's name for it.
    Event {
        /// The name.
        name: Arc<str>,
    },
}

/// How often a device has said who it is. [`Decoded::SerialNumber`] tells changes only; whether the number is still told
/// shows here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdentityCounters {
    /// Messages with a serial number, the same one or another.
    pub told: u64,
    /// Messages in whose place for the number there was none.
    pub missing: u64,
}

/// Decodes the bytes of one device by its profile.
#[derive(Debug)]
pub struct Decoder {
    profile: Arc<Profile>,
    plan: Plan,
    framer: Framer,
    interpreter: Interpreter,
    /// The content of the last packet of [`Decoder::drain_packets`], where packets are packed.
    unpacked: Vec<u8>,
    /// Reads the device instead of framer and interpreter, where the profile names a driver.
    driver: Option<Box<dyn Driver>>,
    /// What was counted of standard notifications, which have no framer.
    standard: FrameCounters,
}

impl Decoder {
    /// A decoder at the beginning of a stream, which may begin in the middle of a frame.
    pub fn new(profile: Arc<Profile>) -> Self {
        let framer = Framer::new(profile.framing());
        let plan = Plan::new(&profile);
        let interpreter = Interpreter::new(&profile, &plan);
        let unpacked = Vec::with_capacity(profile.framing().max);
        let driver = profile.driver().map(driver::of);
        Self { profile, plan, framer, interpreter, unpacked, driver, standard: FrameCounters::default() }
    }

    /// The profile it follows.
    pub const fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// How often the device has told its serial number since the decoder was made.
    pub fn identity(&self) -> IdentityCounters {
        self.driver.as_ref().map_or_else(|| self.interpreter.identity(), |driver| driver.identity())
    }

    /// Takes bytes as they arrive, in pieces of any size, and adds what they say to `out`. Where the profile has a
    /// frame a notification (`[ble]` without `[frame]`), `bytes` is one notification.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        self.take_bytes(bytes, None, out);
    }

    /// Takes bytes that arrive `now` from a device that may be talked to: a driver answers them.
    pub fn push_at(&mut self, bytes: &[u8], now: Stamp, out: &mut Vec<Decoded>) {
        self.take_bytes(bytes, Some(now), out);
    }

    fn take_bytes(&mut self, bytes: &[u8], now: Option<Stamp>, out: &mut Vec<Decoded>) {
        if let Some(driver) = &mut self.driver {
            return driver.push(bytes, now, out);
        }
        if self.profile.is_standard() {
            self.take_standard(bytes, out);
            return;
        }
        if matches!(self.profile.framing().rule, Rule::Payload { .. }) {
            if self.framer.take_payload(&self.profile, bytes) {
                self.interpreter.frame(&self.profile, &self.plan, bytes, out);
            }
            return;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.framer.fill(rest);
            self.drain(out);
        }
    }

    /// The end of a recording: counts what cannot become a frame any more, and hands over the last samples and the last
    /// superframe, which no other frame confirms, if it has all its frames and the recording ends with them.
    ///
    /// Without a checksum a last run of good frames that is shorter than the profile's lock still counts if it ends
    /// with the recording and nothing was skipped. A link that was lost is no such end: use [`Decoder::reset`].
    pub fn finish(&mut self, out: &mut Vec<Decoded>) {
        if let Some(driver) = &mut self.driver {
            return driver.finish(out);
        }
        while let Some(found) = self.framer.next_at_end(self.profile.framing()) {
            self.take(found, out);
        }
        self.idle(out);
        self.interpreter.finish(&self.profile, &self.plan, out);
    }

    /// Nothing more comes for now: what waits for the rest of a frame is no frame, though a whole one may stand inside it,
    /// behind a damaged length. That one is told now and not when the device speaks again.
    pub fn idle(&mut self, out: &mut Vec<Decoded>) {
        if self.driver.is_some() {
            return;
        }
        while self.framer.skip_one() {
            self.drain(out);
        }
        if self.framer.is_lost() {
            self.interpreter.gap(out);
        }
    }

    /// The stream has paused for so long that what came before and what comes next do not belong together: a superframe
    /// that waits for its last or its next frame is dropped, lest it is taken for a new one. What the device said about
    /// itself still counts, and so does the beginning of a frame.
    pub fn pause(&mut self, out: &mut Vec<Decoded>) {
        match &mut self.driver {
            Some(driver) => driver.pause(out),
            None => self.interpreter.gap(out),
        }
    }

    /// What was counted since the decoder was made.
    pub fn counters(&self) -> FrameCounters {
        if let Some(driver) = &self.driver {
            return driver.counters();
        }
        if self.profile.is_standard() { self.standard } else { self.framer.counters() }
    }

    /// Bytes at the end of what came that wait for the rest of their frame; 0 with a driver, which does not tell.
    pub const fn waiting(&self) -> usize {
        self.framer.waiting()
    }

    /// One notification of the standard characteristic that the profile names.
    fn take_standard(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        let report = match self.profile.ble().map(|ble| &ble.speaks) {
            Some(Speaks::Standard(sensor)) => gatt::decode_with(sensor.measurement(), bytes, self.profile.quirks()),
            Some(Speaks::Advertised(field)) => gatt::advert::decode(gatt::advert::Advertised::of(*field, bytes)),
            Some(Speaks::Stream(_)) | None => return,
        };
        if let Ok(report) = report {
            self.standard.frames += 1;
            out.extend(report.decoded);
        } else {
            self.standard.skipped_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
    }

    /// The link was opened again: nothing that was said before counts. The counters go on.
    pub fn reset(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.reset();
        }
        self.framer.reset();
        self.interpreter.reset();
    }

    /// The device may be talked to from now on. Without a driver nothing is said.
    pub fn begin(&mut self, now: Stamp) {
        if let Some(driver) = &mut self.driver {
            driver.begin(now);
        }
    }

    /// Nobody listens any more: what [`Decoder::take_outgoing`] then gives tells it the device.
    pub fn end(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.end();
        }
    }

    /// Does what is due: keeps the link alive, asks again, notices that the device has gone.
    pub fn on_time(&mut self, now: Stamp, out: &mut Vec<Decoded>) {
        if let Some(driver) = &mut self.driver {
            driver.on_time(now, out);
        }
    }

    /// When [`Decoder::on_time`] has something to do next.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.driver.as_ref().and_then(|driver| driver.next_deadline())
    }

    /// What is to be sent to the device now, in this order; nothing without a driver.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        self.driver.as_mut().map(|driver| driver.take_outgoing()).unwrap_or_default()
    }

    fn drain(&mut self, out: &mut Vec<Decoded>) {
        loop {
            self.drain_packets(out);
            match self.framer.next(self.profile.framing()) {
                Some(found) => self.take(found, out),
                None => return,
            }
        }
    }

    /// The packets with which nothing is wrong, as long as they follow each other.
    fn drain_packets(&mut self, out: &mut Vec<Decoded>) {
        let Some(quick) = &self.plan.packet else { return };
        let mut ends = [0; BATCH];
        loop {
            let (bytes, ends) = self.framer.packets(quick, &mut ends);
            match &quick.unpack {
                None => self.interpreter.packets(&self.profile, &self.plan, bytes, ends, out),
                Some(packing) => {
                    let mut start = 0;
                    for end in ends {
                        unpack(*packing, bytes.get(start..*end).unwrap_or(&[]), &mut self.unpacked);
                        let whole = [self.unpacked.len()];
                        self.interpreter.packets(&self.profile, &self.plan, &self.unpacked, &whole, out);
                        start = *end;
                    }
                }
            }
            let (count, end) = (ends.len(), ends.last().copied().unwrap_or(0));
            self.framer.took(count, end);
            if count < BATCH {
                return;
            }
        }
    }

    fn take(&mut self, found: Found, out: &mut Vec<Decoded>) {
        if found.after_gap {
            self.interpreter.gap(out);
        }
        let is_line = self.profile.is_text();
        let content = self.framer.content(self.profile.framing(), found);
        if !is_line {
            self.interpreter.frame(&self.profile, &self.plan, content, out);
        } else if !self.interpreter.line(&self.profile, content, out) {
            self.framer.refuse(self.profile.framing(), found);
        }
    }
}
