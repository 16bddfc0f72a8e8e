//! From bytes to vitals, status, waves and events: total, so that any bytes give a value or a count, never a panic.
//!
//! [`Decoder`] follows a [`Profile`]; [`gatt`] knows the characteristics that the Bluetooth SIG has standardised.

pub mod decimate;
mod fields;
mod frame;
pub mod gatt;
pub mod ieee11073;
mod number;
mod packet;
mod plan;
pub mod self_test;
mod superframe;
mod waves;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::profile::Profile;
use crate::profile::model::Rule;
use crate::vitals::{Quality, Status, Vital};

pub use frame::FrameCounters;
pub use waves::WaveSamples;

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

/// What a decoder found.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// A vital; absent with its reason where the device has no value.
    Vital(DecodedVital),
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

/// Decodes the bytes of one device by its profile.
#[derive(Debug)]
pub struct Decoder {
    profile: Arc<Profile>,
    plan: Plan,
    framer: Framer,
    interpreter: Interpreter,
    /// The content of the last packet of [`Decoder::drain_packets`], where packets are packed.
    unpacked: Vec<u8>,
}

impl Decoder {
    /// A decoder at the beginning of a stream, which may begin in the middle of a frame.
    pub fn new(profile: Arc<Profile>) -> Self {
        let framer = Framer::new(profile.framing());
        let plan = Plan::new(&profile);
        let interpreter = Interpreter::new(&profile, &plan);
        let unpacked = Vec::with_capacity(profile.framing().max);
        Self { profile, plan, framer, interpreter, unpacked }
    }

    /// The profile it follows.
    pub const fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Takes bytes as they arrive, in pieces of any size, and adds what they say to `out`. Where the profile has a
    /// frame a notification (`[gatt]` without `[frame]`), `bytes` is one notification.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
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
        while let Some(found) = self.framer.next_at_end(self.profile.framing()) {
            self.take(found, out);
        }
        while self.framer.skip_one() {
            self.drain(out);
        }
        if self.framer.is_lost() {
            self.interpreter.gap(out);
        }
        self.interpreter.finish(&self.profile, &self.plan, out);
    }

    /// The stream has paused for so long that what came before and what comes next do not belong together: a superframe
    /// that waits for its last or its next frame is dropped, lest it is taken for a new one. What the device said about
    /// itself still counts, and so does the beginning of a frame.
    pub fn pause(&mut self, out: &mut Vec<Decoded>) {
        self.interpreter.gap(out);
    }

    /// What was counted since the decoder was made.
    pub const fn counters(&self) -> FrameCounters {
        self.framer.counters()
    }

    /// The link was opened again: nothing that was said before counts. The counters go on.
    pub fn reset(&mut self) {
        self.framer.reset();
        self.interpreter.reset();
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
