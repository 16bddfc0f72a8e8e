//! From a stream of bytes to at most one reading a second of each metric, and to the state of the link. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::decode::decimate::Decimator;
use crate::decode::{Decoded, DecodedVital, Decoder, FrameCounters, IdentityCounters, WaveSamples};
use crate::event::LinkState;
use crate::profile::Profile;
use crate::profile::model::Rule;
use crate::vitals::{Metric, Status, Value, Vital};

use super::output::Observation;

/// What a sensor says about itself is reported until it has not been said for so long: it flickers with every beat.
const STATUS_HOLD: Duration = Duration::from_secs(5);
/// Without a checksum a status counts once it has lasted for so long: a damaged frame sets any of them.
const STATUS_SETTLES: Duration = Duration::from_millis(250);
/// Behind an 8-bit checksum a vital waits for so long at least, unless another frame confirms it before.
const CONFIRMED_AFTER: Duration = Duration::from_millis(100);
/// Devices that send no more often than this are not thinned, and so not delayed.
const SLOW_HZ: f64 = 1.5;
/// No frame has a pause of this length in it, also not behind a network.
const FRAME_PAUSE: Duration = Duration::from_secs(2);
/// Blocks of samples that are kept for whoever pushed the bytes; one read of a port brings no more.
const MAX_WAVES: usize = 1024;

/// How a device's vitals become one a second.
#[derive(Debug)]
enum Thinning {
    /// It sends no more anyway.
    Slow,
    /// Damage would have been noticed: the newest of the second.
    Newest(BTreeMap<(Metric, Option<u32>), (DecodedVital, Stamp)>),
    /// Damage is not noticed: the median of the second.
    Median(Decimator),
}

/// A vital behind an 8-bit checksum that waits for what comes after its frame.
///
/// Where a byte was lost, the frame takes in the first byte of the next one instead, and one time in 256 its sum fits. What
/// gives it away is that the rest of the next frame belongs to none.
#[derive(Debug)]
struct Unconfirmed {
    vital: DecodedVital,
    /// The number of its frame.
    frame: u64,
    received: Stamp,
}

/// An observation, and when its bytes came: that may be a while before it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// What came.
    pub observation: Observation,
    /// When.
    pub received: Stamp,
}

/// One device's stream of bytes since its port was opened.
#[derive(Debug)]
pub struct Stream {
    decoder: Decoder,
    decoded: Vec<Decoded>,
    thinning: Thinning,
    /// The checksum is so short that a frame has to be confirmed by what follows it.
    confirms: bool,
    /// What is pushed is a notification, of which no byte is ever lost alone: a frame within one needs no confirmation.
    are_notifications: bool,
    /// At most the vitals of one frame.
    unconfirmed: Vec<Unconfirmed>,
    silence: Duration,
    /// When bytes came last, good or not; before the first, when the port was opened.
    pushed: Stamp,
    status_settles: Duration,
    /// When the last data came; before the first, when the port was opened.
    heard: Mono,
    /// Data has come.
    spoke: bool,
    /// For each metric, what the device may say about itself that withholds it. The battery does without a sensor.
    withholding: BTreeMap<Metric, BTreeSet<Status>>,
    /// What the sensor says about itself now, and since when.
    status: BTreeMap<Status, Mono>,
    /// When it last said each thing.
    said: BTreeMap<Status, Mono>,
    serial_number: Option<String>,
    counters_taken: FrameCounters,
    waves: Vec<WaveSamples>,
}

impl Stream {
    /// The stream of a port that was opened at `now`.
    pub fn new(profile: &Arc<Profile>, now: Stamp) -> Self {
        let thinning = match (profile.nominal_hz() <= SLOW_HZ, profile.has_checksum()) {
            (true, _) => Thinning::Slow,
            (false, true) => Thinning::Newest(BTreeMap::new()),
            (false, false) => Thinning::Median(Decimator::new(profile.nominal_hz())),
        };
        Self {
            decoder: Decoder::new(Arc::clone(profile)),
            decoded: Vec::new(),
            status_settles: if matches!(thinning, Thinning::Median(_)) { STATUS_SETTLES } else { Duration::ZERO },
            thinning,
            // A frame between two marks cannot swallow the beginning of the next, and a superframe counts its frames.
            confirms: matches!(profile.framing().rule, Rule::Packet(_))
                && profile.superframe().is_none()
                && profile.framing().checksum.as_ref().is_some_and(|checksum| checksum.kind.width() == 1),
            are_notifications: false,
            unconfirmed: Vec::new(),
            silence: profile.link().silence,
            pushed: now,
            heard: now.mono,
            spoke: false,
            withholding: {
                let mut withholding = profile.withholding();
                withholding.remove(&Metric::Battery);
                withholding
            },
            status: BTreeMap::new(),
            said: BTreeMap::new(),
            serial_number: None,
            counters_taken: FrameCounters::default(),
            waves: Vec::new(),
        }
    }

    /// The stream of the notifications of a link that was made at `now`: each is to be pushed as a whole.
    pub fn of_notifications(profile: &Arc<Profile>, now: Stamp) -> Self {
        Self { are_notifications: true, ..Self::new(profile, now) }
    }

    /// Takes bytes; what must not wait for the end of the second (a cuff's measurement, beats) is returned.
    pub fn push(&mut self, bytes: &[u8], now: Stamp) -> Vec<Arrived> {
        let mut at_once = Vec::new();
        let paused = now.mono.since(self.pushed.mono);
        if paused >= FRAME_PAUSE {
            self.take_idle(now, &mut at_once);
        }
        self.pushed = now;
        let mut decoded = std::mem::take(&mut self.decoded);
        // What was not told before a silence is no news after it, and no sign that the device is alive.
        if paused >= self.silence {
            self.decoder.pause(&mut decoded);
            decoded.clear();
            self.unconfirmed.clear();
            at_once.clear();
        }
        // Byte by byte, to see what comes right after a frame: monitors send a few kilobytes a second.
        for (place, piece) in bytes.chunks(if self.confirms { 1 } else { bytes.len().max(1) }).enumerate() {
            let skipped = self.decoder.counters().skipped_bytes;
            // A frame that ends here began with the bytes that waited for its end: in this notification, or before it.
            let is_whole = self.are_notifications && self.decoder.waiting() <= place;
            self.decoder.push_at(piece, now, &mut decoded);
            let counted = self.decoder.counters();
            if counted.skipped_bytes > skipped {
                self.unconfirmed.retain(|waiting| waiting.frame != counted.frames);
            }
            self.confirm(|waiting| waiting.frame != counted.frames, &mut at_once);
            self.take(&mut decoded, now, is_whole, &mut at_once);
        }
        self.decoded = decoded;
        self.withhold(at_once, now)
    }

    /// The device may be talked to from now on.
    pub fn begin(&mut self, now: Stamp) {
        self.decoder.begin(now);
    }

    /// The device is told that nobody listens any more.
    pub fn end(&mut self) {
        self.decoder.end();
    }

    /// Does what a driver has to do now; what it tells with that is returned as by [`Stream::push`].
    pub fn on_time(&mut self, now: Stamp) -> Vec<Arrived> {
        let mut decoded = std::mem::take(&mut self.decoded);
        self.decoder.on_time(now, &mut decoded);
        let mut at_once = Vec::new();
        self.take(&mut decoded, now, false, &mut at_once);
        self.decoded = decoded;
        self.withhold(at_once, now)
    }

    /// When [`Stream::on_time`] has something to do next.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.decoder.next_deadline()
    }

    /// What is to be sent to the device now.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        self.decoder.take_outgoing()
    }

    /// True if the line settings carry good messages, though they may hold no data yet: a device that waits to be asked
    /// says no more than that it is there.
    pub fn is_understood(&self, now: Stamp) -> bool {
        self.is_live(now) || (self.decoder.profile().driver().is_some() && self.decoder.counters().frames > 0)
    }

    /// Takes what was decoded from bytes that came at `received`, `certain` if nothing of it needs to be confirmed.
    fn take(
        &mut self,
        decoded: &mut Vec<Decoded>,
        received: Stamp,
        certain: bool,
        at_once: &mut Vec<(DecodedVital, Stamp)>,
    ) {
        for found in decoded.drain(..) {
            match found {
                Decoded::Vital(vital) => {
                    self.hear(received);
                    if self.confirms && !certain {
                        let frame = self.decoder.counters().frames;
                        self.unconfirmed.push(Unconfirmed { vital, frame, received });
                    } else {
                        self.take_vital(vital, received, at_once);
                    }
                }
                Decoded::Wave(samples) => {
                    self.hear(received);
                    self.take_wave(samples);
                }
                Decoded::MeasurementFailed(failed) => {
                    self.hear(received);
                    self.take_vital(failed.vital(), received, at_once);
                }
                Decoded::Status(status) => self.take_status(&status, received),
                Decoded::SerialNumber(number) => self.serial_number = Some(number),
                Decoded::Beat | Decoded::Event { .. } => {}
            }
        }
    }

    /// Takes what the last bytes still say now that nothing follows them. They came a while ago: a link that has
    /// fallen silent since does not come back with them.
    fn take_idle(&mut self, now: Stamp, at_once: &mut Vec<(DecodedVital, Stamp)>) {
        let before = (self.heard, self.spoke);
        let is_silent = self.silent_for(now) >= self.silence;
        let mut decoded = std::mem::take(&mut self.decoded);
        self.decoder.idle(&mut decoded);
        self.take(&mut decoded, self.pushed, false, at_once);
        self.decoded = decoded;
        if is_silent {
            (self.heard, self.spoke) = before;
        }
        // Nothing will follow that could give it away.
        self.confirm(|_| true, at_once);
    }

    /// Hands on the vitals that are confirmed.
    fn confirm(&mut self, is_confirmed: impl Fn(&Unconfirmed) -> bool, at_once: &mut Vec<(DecodedVital, Stamp)>) {
        let confirmed: Vec<Unconfirmed> = self.unconfirmed.extract_if(.., |waiting| is_confirmed(waiting)).collect();
        for Unconfirmed { vital, received, .. } in confirmed {
            self.take_vital(vital, received, at_once);
        }
    }

    fn take_wave(&mut self, samples: WaveSamples) {
        if self.waves.len() < MAX_WAVES {
            self.waves.push(samples);
        }
    }

    /// The samples of waves that came with the last pushes. They are for [`super::output::SourceOutput::wave`].
    pub fn take_waves(&mut self) -> Vec<WaveSamples> {
        std::mem::take(&mut self.waves)
    }

    const fn hear(&mut self, received: Stamp) {
        self.heard = received.mono;
        self.spoke = true;
    }

    fn take_vital(&mut self, vital: DecodedVital, received: Stamp, at_once: &mut Vec<(DecodedVital, Stamp)>) {
        let is_measurement = matches!(vital.vital, Vital::BloodPressure(_) | Vital::RrIntervals(_));
        match &mut self.thinning {
            Thinning::Newest(newest) if !is_measurement => {
                newest.insert((vital.vital.metric(), vital.mdc), (vital, received));
            }
            Thinning::Median(decimator) => decimator.push(vital, received, at_once),
            Thinning::Slow | Thinning::Newest(_) => at_once.push((vital, received)),
        }
    }

    fn take_status(&mut self, status: &BTreeSet<Status>, now: Stamp) {
        for (ended, since) in self.status.extract_if(.., |known, _| !status.contains(known)) {
            if now.mono.since(since) >= self.status_settles {
                self.said.insert(ended, now.mono);
            }
        }
        for begun in status {
            self.status.entry(*begun).or_insert(now.mono);
        }
    }

    /// The end of a second: what it brought.
    pub fn second(&mut self, now: Stamp) -> Vec<Arrived> {
        let mut due = Vec::new();
        if now.mono.since(self.pushed.mono) >= FRAME_PAUSE {
            self.take_idle(now, &mut due);
        }
        // Nothing came after it, so that it did not swallow the beginning of anything.
        self.confirm(|waiting| now.mono.since(waiting.received.mono) >= CONFIRMED_AFTER, &mut due);
        match &mut self.thinning {
            Thinning::Slow => {}
            Thinning::Newest(newest) => due.extend(std::mem::take(newest).into_values()),
            Thinning::Median(decimator) => decimator.on_time(now, &mut due),
        }
        self.withhold(due, now)
    }

    /// The link has ended: nothing follows that could give the last frame away, so that what it said counts, such as the one
    /// measurement of a cuff. The numbers of the second that had begun go with the link.
    pub fn last(&mut self, now: Stamp) -> Vec<Arrived> {
        let mut at_once = Vec::new();
        self.take_idle(now, &mut at_once);
        self.withhold(at_once, now)
    }

    /// A number from the part of the second before its sensor came off is not given out after it: it is absent. What the
    /// device measures with another sensor goes on.
    fn withhold(&self, vitals: Vec<(DecodedVital, Stamp)>, now: Stamp) -> Vec<Arrived> {
        let off = self.off(now);
        let hand_out = |vital: DecodedVital| match vital.vital {
            Vital::Scalar { metric, value: Value::Valid(_) } => match self.withheld(metric, &off) {
                Some(why) => {
                    let vital_absent = Vital::scalar(metric, Value::Absent(why.into()));
                    Observation { mdc: vital.mdc, device_time: vital.device_time, ..Observation::of(vital_absent) }
                }
                None => Observation::from(vital),
            },
            _ => Observation::from(vital),
        };
        let arrived = vitals.into_iter().map(|(vital, received)| Arrived { observation: hand_out(vital), received });
        arrived.collect()
    }

    /// What says now that there is nothing to measure.
    fn off(&self, now: Stamp) -> BTreeSet<Status> {
        self.settled(now).filter(|status| is_off(*status)).collect()
    }

    /// Which of `off` withholds a metric.
    fn withheld(&self, metric: Metric, off: &BTreeSet<Status>) -> Option<Status> {
        self.withholding.get(&metric)?.intersection(off).next().copied()
    }

    /// True if a sensor is off without which the device measures nothing.
    fn is_all_off(&self, now: Stamp) -> bool {
        let off = self.off(now);
        !self.withholding.is_empty() && self.withholding.keys().all(|metric| self.withheld(*metric, &off).is_some())
    }

    /// What the sensor says about itself, as far as it is believed.
    fn settled(&self, now: Stamp) -> impl Iterator<Item = Status> {
        let settled = self.status.iter().filter(move |(_, since)| now.mono.since(**since) >= self.status_settles);
        settled.map(|(status, _)| *status)
    }

    /// True if data came no longer ago than the profile allows.
    pub fn is_live(&self, now: Stamp) -> bool {
        self.spoke && self.silent_for(now) < self.silence
    }

    /// Since when no data has come; at first, since the port was opened.
    pub fn silent_for(&self, now: Stamp) -> Duration {
        now.mono.since(self.heard)
    }

    /// The state of the link, and what the sensor says about itself. A monitor of which one sensor of several is off is
    /// live, with that status.
    pub fn link(&self, now: Stamp) -> (LinkState, BTreeSet<Status>) {
        if self.silent_for(now) >= self.silence {
            return (LinkState::Silent, BTreeSet::new());
        }
        if !self.spoke {
            return (LinkState::Waiting, BTreeSet::new());
        }
        let mut status: BTreeSet<Status> = self.settled(now).collect();
        let state = if self.is_all_off(now) { LinkState::SensorOff } else { LinkState::Live };
        let recently = self.said.iter().filter(|(_, at)| now.mono.since(**at) < STATUS_HOLD);
        status.extend(recently.map(|(status, _)| *status).filter(|status| !is_off(*status)));
        (state, status)
    }

    /// How often the device has told its serial number.
    pub fn identity(&self) -> IdentityCounters {
        self.decoder.identity()
    }

    /// The serial number that the device has told.
    pub fn serial_number(&self) -> Option<&str> {
        self.serial_number.as_deref()
    }

    /// What the framer has counted since the last call.
    pub fn take_counters(&mut self) -> FrameCounters {
        let (counted, before) = (self.decoder.counters(), self.counters_taken);
        self.counters_taken = counted;
        FrameCounters {
            // A frame that turned out to be none is taken back.
            frames: counted.frames.saturating_sub(before.frames),
            bad_checksum: counted.bad_checksum.saturating_sub(before.bad_checksum),
            skipped_bytes: counted.skipped_bytes.saturating_sub(before.skipped_bytes),
            resyncs: counted.resyncs.saturating_sub(before.resyncs),
        }
    }
}

/// True for what means that there is nothing to measure.
const fn is_off(status: Status) -> bool {
    matches!(status, Status::SensorOff | Status::NoSensor)
}

impl From<DecodedVital> for Observation {
    fn from(decoded: DecodedVital) -> Self {
        let DecodedVital { vital, mdc, quality, device_time } = decoded;
        Self { vital, mdc, quality, device_time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::profile::built_in;
    use crate::sources::simulator::oximeters::{Contec, Nonin, Sensed};
    use crate::vitals::{Absent, Decimal};

    const FINGER: Sensed = Sensed { on_finger: true, pulse_rate: 72, spo2: 97, wave: 60, beat: false };
    const OFF: Sensed = Sensed { on_finger: false, ..FINGER };

    fn at(millis: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(millis), wall: Wall(0) }
    }

    /// A Contec that sends, and has found the pulse.
    fn contec() -> Contec {
        let mut contec = Contec::new();
        contec.command(&[0x7D, 0x81, 0xA1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80], at(0).mono);
        for _ in 0..200 {
            contec.frame(FINGER, at(0).mono);
        }
        contec
    }

    fn frame(contec: &mut Contec, sensed: Sensed) -> Vec<u8> {
        contec.frame(sensed, at(0).mono).unwrap().to_vec()
    }

    fn stream(profile: &str) -> Stream {
        Stream::new(&built_in(profile).unwrap().unwrap(), at(0))
    }

    fn spo2(arrived: &[Arrived]) -> Vec<Value> {
        let vitals = arrived.iter().map(|arrived| &arrived.observation.vital);
        vitals.filter(|vital| vital.metric() == Metric::Spo2).map(Vital::leading).collect()
    }

    /// When the bytes of each came, in milliseconds.
    fn received(arrived: &[Arrived]) -> Vec<Mono> {
        arrived.iter().map(|arrived| arrived.received.mono).collect()
    }

    #[test]
    fn a_link_waits_lives_and_falls_silent() {
        let (mut stream, mut nonin) = (stream("nonin-df2"), Nonin::new());
        assert_eq!(stream.link(at(1000)).0, LinkState::Waiting);
        assert_eq!(stream.link(at(2000)).0, LinkState::Silent, "nothing ever came");
        stream.push(b"garbage", at(2500));
        assert_eq!(stream.link(at(2500)).0, LinkState::Silent, "rubbish is no data");
        let skipped = |stream: &mut Stream| stream.take_counters().skipped_bytes;
        assert_eq!((skipped(&mut stream), skipped(&mut stream)), (7, 0));
        for _ in 0..25 {
            stream.push(&nonin.frame(FINGER), at(3000));
        }
        assert_eq!(stream.link(at(4999)).0, LinkState::Live);
        assert_eq!(stream.link(at(5000)).0, LinkState::Silent);
        stream.push(b"garbage", at(5000));
        assert_eq!(stream.link(at(5000)).0, LinkState::Silent, "rubbish is no data, nor are samples from before");
    }

    #[test]
    fn one_damaged_frame_neither_gives_a_number_nor_takes_the_sensor_off() {
        let (mut stream, mut contec) = (stream("contec-v7"), contec());
        let mut found = Vec::new();
        for index in 0..70 {
            let now = at(1000 + index * 1000 / 60);
            let mut bytes = frame(&mut contec, FINGER);
            if index == 30 {
                // Finger out (bit 7 of byte 2, which travels in byte 1), and a saturation of 33 %.
                bytes[1] |= 0x01;
                bytes[6] = 0xA1;
            }
            found.extend(stream.push(&bytes, now));
            // The profile believes two frames in a row at first.
            let expected = if index == 0 { LinkState::Waiting } else { LinkState::Live };
            assert_eq!(stream.link(now).0, expected, "frame {index}");
        }
        assert_eq!(spo2(&found), [Value::Valid(Decimal::integer(97))]);
    }

    #[test]
    fn a_number_from_before_the_sensor_came_off_is_not_given_out_after_it() {
        let (mut stream, mut contec) = (stream("contec-v7"), contec());
        let mut found = Vec::new();
        // The median of this second is the finger's: it is there for two thirds of it.
        for index in 0..130 {
            let now = at(1000 + index * 1000 / 60);
            let sensed = if index < 40 { FINGER } else { OFF };
            found.extend(stream.push(&frame(&mut contec, sensed), now));
        }
        assert_eq!(spo2(&found), [Value::Absent(Absent::SensorOff); 2]);
        assert_eq!(stream.link(at(3150)), (LinkState::SensorOff, stream.link(at(3150)).1));
        assert!(stream.link(at(3150)).1.contains(&Status::SensorOff));
    }

    #[test]
    fn a_sensor_that_is_off_takes_no_number_of_another_sensor_away() {
        let mut stream = stream("berry-pm6750");
        let told_at = |stream: &mut Stream, bytes: &[u8], millis: u64| -> BTreeMap<Metric, Value> {
            stream.push(bytes, at(millis));
            let told = stream.second(at(millis + 200));
            told.iter()
                .map(|arrived| (arrived.observation.vital.metric(), arrived.observation.vital.leading()))
                .collect()
        };
        let valid = |number| Value::Valid(Decimal::integer(number));
        let off = Value::Absent(Absent::SensorOff);
        let spo2_then_off = [
            [0x55, 0xAA, 0x06, 0x04, 0x00, 0x61, 0x48, 0x4C],
            // The finger is out, and its last numbers are still sent.
            [0x55, 0xAA, 0x06, 0x04, 0x02, 0x61, 0x48, 0x4A],
        ];
        let ecg = [0x55, 0xAA, 0x08, 0x02, 0x18, 0x58, 0x10, 0xCE, 0x0B, 0x9C];
        let bytes = [spo2_then_off.as_flattened(), &ecg].concat();
        let expected = [
            (Metric::Spo2, off),
            (Metric::PulseRate, off),
            (Metric::HeartRate, valid(88)),
            (Metric::RespiratoryRate, valid(16)),
        ];
        assert_eq!(told_at(&mut stream, &bytes, 1000), expected.into());
        assert_eq!(stream.link(at(1200)), (LinkState::Live, [Status::SensorOff].into()));
    }

    #[test]
    fn the_newest_of_a_second_is_handed_on_and_nothing_twice() {
        let (mut stream, mut nonin) = (stream("nonin-df2"), Nonin::new());
        for _ in 0..300 {
            nonin.frame(FINGER);
        }
        for percent in [95, 96, 97] {
            for _ in 0..25 {
                stream.push(&nonin.frame(Sensed { spo2: percent, ..FINGER }), at(1000));
            }
        }
        // A packet counts once the next one begins.
        stream.push(&nonin.frame(FINGER), at(1000));
        assert_eq!(spo2(&stream.second(at(1000))), [Value::Valid(Decimal::integer(97))]);
        assert_eq!(stream.second(at(2000)), []);
    }

    #[test]
    fn a_frame_that_swallowed_the_beginning_of_the_next_is_not_believed() {
        // 85 % is 55 in hexadecimal, with which the next frame begins: where that byte is lost, the sum fits for sure.
        let summed = [0x08, 0x04, 0x00, 0x55, 60, 0x00, 0x00];
        let sum = !summed.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let good = [&[0x55, 0xAA][..], &summed, &[sum]].concat();
        let mut stream = stream("berry-pm6750");
        stream.push(&good, at(1000));
        assert_eq!(spo2(&stream.second(at(1000))), [], "it waits for what follows");
        assert_eq!(spo2(&stream.second(at(1200))), [Value::Valid(Decimal::integer(85))], "nothing follows");
        let mut cut = good.clone();
        cut.remove(5);
        stream.take_counters();
        stream.push(&[cut, good].concat(), at(2000));
        assert_eq!(stream.take_counters().frames, 1, "the damaged frame looks like one, and says 60 %");
        assert_eq!(spo2(&stream.second(at(3000))), []);
    }

    #[test]
    fn what_a_damaged_length_holds_back_is_told_as_old_as_it_is_and_wakes_no_silent_link() {
        let mut stream = stream("berry-pm6750");
        // The length of a frame of 8 bytes became 18: it waits for bytes that do not come, with a good frame inside.
        let held = [0x55, 0xAA, 0x12, 0x04, 0x00, 0x5A, 0x48, 0x53, 0x55, 0xAA, 0x06, 0x04, 0x00, 0x61, 0x48, 0x4C];
        assert_eq!(spo2(&stream.push(&held, at(1000))), []);
        assert_eq!(spo2(&stream.second(at(2000))), []);
        let told = stream.second(at(3000));
        assert_eq!(spo2(&told), [Value::Valid(Decimal::integer(97))]);
        assert_eq!(received(&told), [at(1000).mono; 2]);
        assert_eq!(stream.link(at(3000)).0, LinkState::Silent, "opened 3 s ago, and nothing came for 2 s");
        for millis in [4000, 5000] {
            assert_eq!(stream.second(at(millis)), [], "at {millis}");
        }
        // Also where the next bytes come before the end of the second is noticed.
        stream.push(&held, at(5500));
        stream.push(&[0x55], at(7600));
        assert_eq!(received(&stream.second(at(7600))), [at(5500).mono; 2]);
        assert_eq!(spo2(&stream.push(&[0x55; 8], at(8000))), []);
        assert_eq!(spo2(&stream.second(at(8500))), []);
    }

    #[test]
    fn a_device_that_stops_in_a_frame_is_silent_when_its_silence_is_over() {
        let (mut stream, mut contec) = (stream("contec-v7"), contec());
        for _ in 0..50 {
            stream.push(&frame(&mut contec, FINGER), at(1000));
        }
        let half = frame(&mut contec, FINGER);
        stream.push(&half[..4], at(1000));
        let told: Vec<Arrived> = [2000, 3000, 4000].into_iter().flat_map(|millis| stream.second(at(millis))).collect();
        assert_eq!(spo2(&told), [Value::Valid(Decimal::integer(97))]);
        assert!(received(&told).iter().all(|mono| *mono == at(1000).mono), "{told:?}");
        assert_eq!(stream.link(at(2999)).0, LinkState::Live);
        assert_eq!(stream.link(at(3000)).0, LinkState::Silent);
    }

    #[test]
    fn a_median_is_as_old_as_the_sample_that_it_is() {
        let (mut stream, mut contec) = (stream("contec-v7"), contec());
        let mut told = Vec::new();
        for (spo2, millis) in [(97, 1000), (96, 1200), (90, 1400), (95, 1600), (95, 1700), (95, 2500)] {
            told.extend(stream.push(&frame(&mut contec, Sensed { spo2, ..FINGER }), at(millis)));
        }
        let of_spo2: Vec<&Arrived> =
            told.iter().filter(|arrived| arrived.observation.vital.metric() == Metric::Spo2).collect();
        let found: Vec<(Value, Mono)> =
            of_spo2.iter().map(|arrived| (arrived.observation.vital.leading(), arrived.received.mono)).collect();
        assert_eq!(found, [(Value::Valid(Decimal::integer(95)), at(1700).mono)]);
    }

    #[test]
    fn a_packet_from_before_a_silence_is_not_told_after_it() {
        // Before it a whole packet, after it the first frame of the next; or both together make up one packet.
        for (before, after) in [(25, 1), (10, 16)] {
            let (mut stream, mut nonin) = (stream("nonin-df2"), Nonin::new());
            for _ in 0..300 {
                nonin.frame(FINGER);
            }
            let mut told_after = |frames, millis| {
                for _ in 0..frames {
                    stream.push(&nonin.frame(FINGER), at(millis));
                }
                spo2(&stream.second(at(millis)))
            };
            assert_eq!(told_after(before, 1000), []);
            assert_eq!(told_after(after, 60_000), [], "{before} frames before");
            assert_eq!(told_after(25, 60_400), [Value::Valid(Decimal::integer(97))], "{before} frames before");
        }
    }

    /// A frame with 96 % and one with 95 %, of a profile with a checksum of 8 bits.
    const FRAMES: [[u8; 12]; 2] = [
        [0xAA, 0x55, 0x0F, 0x08, 0x01, 0x60, 0x3F, 0x00, 0x2D, 0x00, 0x38, 0x8C],
        [0xAA, 0x55, 0x0F, 0x08, 0x01, 0x5F, 0x47, 0x00, 0x81, 0x00, 0x18, 0x78],
    ];

    fn saturations(arrived: Vec<Arrived>) -> Vec<Decimal> {
        let vitals = arrived.into_iter().map(|arrived| arrived.observation.vital);
        let spo2 = vitals.filter(|vital| vital.metric() == Metric::Spo2);
        spo2.filter_map(|vital| vital.leading().valid()).collect()
    }

    #[test]
    fn a_frame_within_a_notification_counts_whatever_follows_and_one_that_was_split_is_confirmed() {
        let profile = built_in("viatom-pc60").unwrap().unwrap();
        let [first, second] = FRAMES;
        let (rubbish, split) = ([0x00; 4], [&first[7..], &[0x00; 4], &second[..]].concat());
        let both = [&rubbish[..], &first[..], &rubbish[..], &second[..], &rubbish[..]].concat();
        let (number_96, number_95) = (Decimal::integer(96), Decimal::integer(95));
        for (pushes, expected) in [
            (vec![&both[..]], vec![number_96, number_95]),
            (vec![&rubbish[..], &first, &rubbish, &second], vec![number_96, number_95]),
            // A notification may be lost between the two halves of the first one.
            (vec![&first[..7], &split], vec![number_95]),
        ] {
            let mut stream = Stream::of_notifications(&profile, at(0));
            let arrived = pushes.iter().flat_map(|push| stream.push(push, at(0))).collect();
            assert_eq!(saturations(arrived), expected, "{pushes:02X?}");
        }
        let mut serial = Stream::new(&profile, at(0));
        assert_eq!(saturations(serial.push(&both, at(0))), [], "a serial line may have lost a byte in each");
    }

    #[test]
    fn what_still_waits_for_confirmation_when_the_link_ends_counts() {
        let profile = built_in("viatom-pc60").unwrap().unwrap();
        let [first, second] = FRAMES;
        let mut stream = Stream::of_notifications(&profile, at(0));
        assert_eq!(saturations(stream.push(&first[..7], at(0))), []);
        assert_eq!(saturations(stream.push(&[&first[7..], &second[..5]].concat(), at(0))), []);
        let last = stream.last(at(10));
        assert!(last.iter().all(|arrived| arrived.received == at(0)), "{last:?}");
        assert_eq!(saturations(last), [Decimal::integer(96)]);
    }
}
