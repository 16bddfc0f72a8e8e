//! From a stream of bytes to at most one reading a second of each metric, and to the state of the link. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::decode::decimate::Decimator;
use crate::decode::{Decoded, DecodedVital, Decoder, WaveSamples};
use crate::event::LinkState;
use crate::profile::Profile;
use crate::vitals::{Metric, Status, Value, Vital};

use super::output::Observation;

/// What a sensor says about itself is reported until it has not been said for so long: it flickers with every beat.
const STATUS_HOLD: Duration = Duration::from_secs(5);
/// Without a checksum a status counts once it has lasted for so long: a damaged frame sets any of them.
const STATUS_SETTLES: Duration = Duration::from_millis(250);
/// Devices that send no more often than this are not thinned, and so not delayed.
const SLOW_HZ: f64 = 1.5;
/// Blocks of samples that are kept for whoever pushed the bytes; one read of a port brings no more.
const MAX_WAVES: usize = 1024;

/// How a device's vitals become one a second.
#[derive(Debug)]
enum Thinning {
    /// It sends no more anyway.
    Slow,
    /// Damage would have been noticed: the newest of the second.
    Newest(BTreeMap<(Metric, Option<u32>), DecodedVital>),
    /// Damage is not noticed: the median of the second.
    Median(Decimator),
}

/// One device's stream of bytes since its port was opened.
#[derive(Debug)]
pub struct Stream {
    decoder: Decoder,
    decoded: Vec<Decoded>,
    thinning: Thinning,
    silence: Duration,
    /// When bytes came last, good or not; before the first, when the port was opened.
    pushed: Mono,
    status_settles: Duration,
    /// When the last data came; before the first, when the port was opened.
    heard: Mono,
    /// Data has come.
    spoke: bool,
    /// What the sensor says about itself now, and since when.
    status: BTreeMap<Status, Mono>,
    /// When it last said each thing.
    said: BTreeMap<Status, Mono>,
    serial_number: Option<String>,
    rubbish_taken: u64,
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
            silence: profile.link().silence,
            pushed: now.mono,
            heard: now.mono,
            spoke: false,
            status: BTreeMap::new(),
            said: BTreeMap::new(),
            serial_number: None,
            rubbish_taken: 0,
            waves: Vec::new(),
        }
    }

    /// Takes bytes; what must not wait for the end of the second (a cuff's measurement, beats) is returned.
    pub fn push(&mut self, bytes: &[u8], now: Stamp) -> Vec<Observation> {
        let mut decoded = std::mem::take(&mut self.decoded);
        // What was not told before a silence is no news after it, and no sign that the device is alive.
        if now.mono.since(std::mem::replace(&mut self.pushed, now.mono)) >= self.silence {
            self.decoder.pause(&mut decoded);
            decoded.clear();
        }
        self.decoder.push(bytes, &mut decoded);
        let mut at_once = Vec::new();
        for found in decoded.drain(..) {
            match found {
                Decoded::Vital(vital) => {
                    self.hear(now);
                    self.take_vital(vital, now, &mut at_once);
                }
                Decoded::Wave(samples) => {
                    self.hear(now);
                    self.take_wave(samples);
                }
                Decoded::Status(status) => self.take_status(&status, now),
                Decoded::SerialNumber(number) => self.serial_number = Some(number),
                Decoded::Beat | Decoded::Event { .. } => {}
            }
        }
        self.decoded = decoded;
        self.withhold(at_once, now)
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

    const fn hear(&mut self, now: Stamp) {
        self.heard = now.mono;
        self.spoke = true;
    }

    fn take_vital(&mut self, vital: DecodedVital, now: Stamp, at_once: &mut Vec<DecodedVital>) {
        let is_measurement = matches!(vital.vital, Vital::BloodPressure(_) | Vital::RrIntervals(_));
        match &mut self.thinning {
            Thinning::Newest(newest) if !is_measurement => {
                newest.insert((vital.vital.metric(), vital.mdc), vital);
            }
            Thinning::Median(decimator) => decimator.push(vital, now, at_once),
            Thinning::Slow | Thinning::Newest(_) => at_once.push(vital),
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
    pub fn second(&mut self, now: Stamp) -> Vec<Observation> {
        let mut due = Vec::new();
        match &mut self.thinning {
            Thinning::Slow => {}
            Thinning::Newest(newest) => due.extend(std::mem::take(newest).into_values()),
            Thinning::Median(decimator) => decimator.on_time(now, &mut due),
        }
        self.withhold(due, now)
    }

    /// A number from the part of the second before the sensor came off is not given out after it: it is absent.
    fn withhold(&self, vitals: Vec<DecodedVital>, now: Stamp) -> Vec<Observation> {
        let off = self.settled(now).find(|status| is_off(*status));
        let hand_out = |vital: DecodedVital| match (off, &vital.vital) {
            (Some(off), Vital::Scalar { metric, value: Value::Valid(_) }) if *metric != Metric::Battery => {
                let vital_absent = Vital::scalar(*metric, Value::Absent(off.into()));
                Observation { mdc: vital.mdc, device_time: vital.device_time, ..Observation::of(vital_absent) }
            }
            _ => Observation::from(vital),
        };
        vitals.into_iter().map(hand_out).collect()
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

    /// The state of the link, and what the sensor says about itself.
    pub fn link(&self, now: Stamp) -> (LinkState, BTreeSet<Status>) {
        if self.silent_for(now) >= self.silence {
            return (LinkState::Silent, BTreeSet::new());
        }
        if !self.spoke {
            return (LinkState::Waiting, BTreeSet::new());
        }
        let mut status: BTreeSet<Status> = self.settled(now).collect();
        let state = if status.iter().copied().any(is_off) { LinkState::SensorOff } else { LinkState::Live };
        let recently = self.said.iter().filter(|(_, at)| now.mono.since(**at) < STATUS_HOLD);
        status.extend(recently.map(|(status, _)| *status).filter(|status| !is_off(*status)));
        (state, status)
    }

    /// The serial number that the device has told.
    pub fn serial_number(&self) -> Option<&str> {
        self.serial_number.as_deref()
    }

    /// Bytes that belonged to no valid frame, since the last call.
    pub fn take_rubbish(&mut self) -> u64 {
        let skipped = self.decoder.counters().skipped_bytes;
        let fresh = skipped.saturating_sub(self.rubbish_taken);
        self.rubbish_taken = skipped;
        fresh
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

    fn spo2(observations: &[Observation]) -> Vec<Value> {
        let of = observations.iter().filter(|observation| observation.vital.metric() == Metric::Spo2);
        of.map(|observation| observation.vital.leading()).collect()
    }

    #[test]
    fn a_link_waits_lives_and_falls_silent() {
        let (mut stream, mut nonin) = (stream("nonin-df2"), Nonin::new());
        assert_eq!(stream.link(at(1000)).0, LinkState::Waiting);
        assert_eq!(stream.link(at(2000)).0, LinkState::Silent, "nothing ever came");
        stream.push(b"garbage", at(2500));
        assert_eq!(stream.link(at(2500)).0, LinkState::Silent, "rubbish is no data");
        assert_eq!((stream.take_rubbish(), stream.take_rubbish()), (7, 0));
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
}
