//! The demo ward: eight simulated patients in two wards, their instruments, and what those send.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::event::LinkState;
use crate::ids::{DeviceId, PatientId, WardId};
use crate::vitals::{Absent, Decimal, Metric, Pressure, Status, Value, Vital};

use super::oximeters::{CONTEC_HZ, Contec, NONIN_HZ, Nonin, Sensed};
use super::physiology::{Baseline, Body, STEP, whole};
use super::script::{Happening, Script};
use super::strap;
use super::waves::{Block, Waves};

/// Number of patients.
pub const BEDS: usize = 8;
/// Steps of the model in a second.
const STEPS_A_SECOND: u64 = 10;
/// A ward that was not stepped for longer (a suspended machine) leaves the time out instead of making it up.
const MAX_CATCH_UP: Duration = Duration::from_secs(10);
/// Between two cuff measurements, in seconds.
const CUFF_EVERY_S: u64 = 240;
/// Between two temperatures, in seconds.
const TEMPERATURE_EVERY_S: u64 = 60;
/// Between two battery readings, in seconds.
const BATTERY_EVERY_S: u64 = 60;
/// The first of each comes soon, one bed after the other, this many seconds apart.
const STAGGER_S: u64 = 3;
/// Charge of a strap's battery while it is nearly empty, in percent.
const LOW_CHARGE: i32 = 8;
/// Charge of the first strap's battery; each next one has a little less.
const FULL_CHARGE: i32 = 97;

/// What a bed has. Each is one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Instrument {
    /// SpO2, pulse rate and perfusion index.
    Oximeter,
    /// Heart rate and beat intervals.
    Strap,
    /// Respiratory rate.
    BreathMonitor,
    /// Blood pressure.
    Cuff,
    /// Temperature.
    Thermometer,
}

impl Instrument {
    /// Every instrument of a bed.
    pub const ALL: [Self; 5] = [Self::Oximeter, Self::Strap, Self::BreathMonitor, Self::Cuff, Self::Thermometer];
}

/// A bed with its patient, as the rest of the bridge knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoBed {
    /// Place in the list of beds, from 0.
    pub index: usize,
    /// The patient.
    pub patient: PatientId,
    /// A made-up name.
    pub name: &'static str,
    /// The ward.
    pub ward: WardId,
    /// The bed's label.
    pub bed: String,
}

impl DemoBed {
    /// The device of one kind at this bed.
    pub fn device(&self, instrument: Instrument) -> DeviceId {
        let number = self.index + 1;
        match (instrument, self.line()) {
            (Instrument::Oximeter, Some(Line::Contec)) => id(&format!("cms50d-{number}")),
            (Instrument::Oximeter, Some(Line::Nonin)) => id(&format!("nonin-{number}")),
            (Instrument::Oximeter, None) => id(&format!("oximeter-{number}")),
            (Instrument::Strap, _) => id(&format!("strap-{number}")),
            (Instrument::BreathMonitor, _) => id(&format!("breath-{number}")),
            (Instrument::Cuff, _) => id(&format!("cuff-{number}")),
            (Instrument::Thermometer, _) => id(&format!("thermometer-{number}")),
        }
    }

    /// The oximeter that is emulated byte for byte at this bed, if one is.
    pub const fn line(&self) -> Option<Line> {
        match self.index {
            0 => Some(Line::Contec),
            1 => Some(Line::Nonin),
            _ => None,
        }
    }
}

/// An oximeter that is emulated byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Line {
    /// Contec CMS50D+, protocol V7.0, at the first bed.
    Contec,
    /// Nonin OEM III, data format 2, at the second bed.
    Nonin,
}

impl Line {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Contec, Self::Nonin];

    /// The profile that decodes it.
    pub const fn profile(self) -> &'static str {
        match self {
            Self::Contec => "contec-v7",
            Self::Nonin => "nonin-df2",
        }
    }

    /// The bed it is at.
    pub const fn bed(self) -> usize {
        match self {
            Self::Contec => 0,
            Self::Nonin => 1,
        }
    }
}

/// Reads an identifier that this file made.
pub(super) fn id<T: FromStr<Err: Display>>(text: &str) -> T {
    match text.parse() {
        Ok(id) => id,
        #[expect(clippy::panic, reason = "the texts are letters, digits and hyphens; a test makes every one")]
        Err(error) => panic!("{error}"),
    }
}

/// The beds of the demo, in order.
pub fn beds() -> Vec<DemoBed> {
    const NAMES: [&str; BEDS] = [
        "Ada Winter",
        "Bruno Falk",
        "Clara Moos",
        "David Ohm",
        "Elif Sander",
        "Franz Lenz",
        "Greta Holm",
        "Hugo Brandt",
    ];
    let make = |(index, name): (usize, &'static str)| {
        let (ward, letter, number) =
            if index < BEDS / 2 { ("ward-a", 'A', index + 1) } else { ("ward-b", 'B', index + 1 - BEDS / 2) };
        DemoBed {
            index,
            patient: id(&format!("P-{:04}", index + 1)),
            name,
            ward: id(ward),
            bed: format!("{letter}{number}"),
        }
    };
    NAMES.into_iter().enumerate().map(make).collect()
}

/// How the patient in each bed is at rest.
const BASELINES: [Baseline; BEDS] = [
    baseline(74.0, 15.0, 97.0, (124.0, 79.0), 36.8, 3.5),
    baseline(68.0, 14.0, 96.0, (131.0, 82.0), 36.6, 2.8),
    baseline(76.0, 16.0, 97.5, (118.0, 74.0), 37.1, 4.2),
    baseline(62.0, 13.0, 98.0, (112.0, 70.0), 36.5, 5.0),
    baseline(81.0, 17.0, 96.5, (136.0, 85.0), 37.3, 2.2),
    baseline(70.0, 15.0, 96.5, (127.0, 80.0), 36.9, 3.1),
    baseline(65.0, 14.0, 97.5, (121.0, 76.0), 36.7, 3.9),
    baseline(78.0, 16.0, 97.0, (115.0, 72.0), 36.4, 4.6),
];

const fn baseline(
    heart_rate: f64,
    respiratory_rate: f64,
    spo2: f64,
    (systolic, diastolic): (f64, f64),
    temperature: f64,
    perfusion: f64,
) -> Baseline {
    Baseline { heart_rate, respiratory_rate, spo2, systolic, diastolic, temperature, perfusion }
}

/// Something that left an instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Bytes on the line of an emulated oximeter.
    Bytes {
        /// Which oximeter.
        line: Line,
        /// What it sent.
        bytes: Vec<u8>,
    },
    /// The cable of an emulated oximeter was put in or pulled out.
    Cable {
        /// Which oximeter.
        line: Line,
        /// In.
        plugged: bool,
    },
    /// A strap's notification of the Heart Rate Measurement characteristic.
    HeartRate {
        /// The bed, from 0.
        bed: usize,
        /// The characteristic's value.
        payload: Vec<u8>,
    },
    /// A vital that needs no decoding.
    Vital {
        /// The bed, from 0.
        bed: usize,
        /// Which of its instruments.
        instrument: Instrument,
        /// What it measured.
        vital: Vital,
    },
    /// Samples of a wave that need no decoding.
    Wave {
        /// The bed, from 0.
        bed: usize,
        /// Which of its instruments.
        instrument: Instrument,
        /// The samples.
        block: Block,
    },
    /// The link to an instrument without a line changed its state.
    Link {
        /// The bed, from 0.
        bed: usize,
        /// Which of its instruments.
        instrument: Instrument,
        /// The state.
        state: LinkState,
        /// What the instrument says about itself.
        status: Option<Status>,
    },
}

/// One bed at work.
#[derive(Debug, Clone)]
struct Bed {
    index: usize,
    body: Body,
    waves: Waves,
    /// How the oximeter's link and the strap's were last reported.
    oximeter: Option<(LinkState, Option<Status>)>,
    strap: Option<(LinkState, Option<Status>)>,
}

/// The whole ward. Pure: the same seed and the same steps give the same bytes.
#[derive(Debug, Clone)]
pub struct Ward {
    beds: Vec<Bed>,
    contec: Contec,
    nonin: Nonin,
    contec_plugged: Option<bool>,
    nonin_plugged: Option<bool>,
    script: Script,
    started: Option<Mono>,
    steps: u64,
}

impl Ward {
    /// A ward in which the demo's script runs.
    pub fn new(seed: u64) -> Self {
        Self::with_script(seed, Script::demo())
    }

    /// A ward with another script.
    pub fn with_script(seed: u64, script: Script) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let bed = |(index, baseline): (usize, Baseline)| Bed {
            index,
            body: Body::new(baseline, random.u64(..)),
            waves: Waves::default(),
            oximeter: None,
            strap: None,
        };
        Self {
            beds: BASELINES.into_iter().enumerate().map(bed).collect(),
            contec: Contec::new(),
            nonin: Nonin::new(),
            contec_plugged: None,
            nonin_plugged: None,
            script,
            started: None,
            steps: 0,
        }
    }

    /// Gives bytes of the host to an emulated oximeter and returns its replies.
    pub fn command(&mut self, line: Line, bytes: &[u8], now: Stamp) -> Vec<u8> {
        match line {
            Line::Contec => self.contec.command(bytes, now.mono),
            // The module has no commands.
            Line::Nonin => Vec::new(),
        }
    }

    /// Everything that was sent since the last step, oldest first. The first step starts the ward.
    pub fn step(&mut self, now: Stamp) -> Vec<Sent> {
        let mut sent = Vec::new();
        let passed = now.mono.since(*self.started.get_or_insert(now.mono));
        let due = u64::try_from(passed.as_millis() / STEP.as_millis()).unwrap_or(u64::MAX);
        let behind = due.saturating_sub(self.steps);
        if Duration::from_millis(behind.saturating_mul(1000 / STEPS_A_SECOND)) > MAX_CATCH_UP {
            self.started = Some(now.mono - STEP * u32::try_from(self.steps).unwrap_or(u32::MAX));
            return sent;
        }
        for _ in 0..behind {
            self.one_step(now, &mut sent);
        }
        sent
    }

    fn one_step(&mut self, now: Stamp, sent: &mut Vec<Sent>) {
        let elapsed = Duration::from_millis(self.steps * 1000 / STEPS_A_SECOND);
        for bed in &mut self.beds {
            bed.body.step(self.script.strain(bed.index, elapsed));
        }
        for line in Line::ALL {
            self.run_line(line, elapsed, now, sent);
        }
        for bed in &mut self.beds {
            bed.send_waves(&self.script, elapsed, sent);
        }
        if self.steps.is_multiple_of(STEPS_A_SECOND) {
            let second = self.steps / STEPS_A_SECOND;
            for bed in &mut self.beds {
                bed.send(&self.script, second, elapsed, sent);
            }
        }
        self.steps += 1;
    }

    /// The frames of one emulated oximeter in this step.
    fn run_line(&mut self, line: Line, elapsed: Duration, now: Stamp, sent: &mut Vec<Sent>) {
        let Some(bed) = self.beds.get(line.bed()) else {
            return;
        };
        let plugged = !self.script.is_on(bed.index, Happening::OximeterUnplugged, elapsed);
        let known = match line {
            Line::Contec => &mut self.contec_plugged,
            Line::Nonin => &mut self.nonin_plugged,
        };
        if known.replace(plugged) != Some(plugged) {
            sent.push(Sent::Cable { line, plugged });
            // An oximeter on a USB cable has its power from it, and begins anew.
            match line {
                Line::Contec => self.contec = Contec::new(),
                Line::Nonin => self.nonin = Nonin::new(),
            }
        }
        if !plugged {
            return;
        }
        let on_finger = !self.script.is_on(bed.index, Happening::OximeterFallsOff, elapsed);
        let hz = match line {
            Line::Contec => CONTEC_HZ,
            Line::Nonin => NONIN_HZ,
        };
        // Frame n is due at n/hz seconds; a step is a tenth of a second.
        let due = |steps: u64| steps * u64::from(hz) / STEPS_A_SECOND;
        let count = u32::try_from(due(self.steps + 1) - due(self.steps)).unwrap_or(0);
        let mut bytes = Vec::new();
        for frame in 0..count {
            let sensed = sense(&bed.body, on_finger, f64::from(frame), f64::from(count));
            match line {
                Line::Contec => bytes.extend(self.contec.frame(sensed, now.mono).into_iter().flatten()),
                Line::Nonin => bytes.extend(self.nonin.frame(sensed)),
            }
        }
        if !bytes.is_empty() {
            sent.push(Sent::Bytes { line, bytes });
        }
    }
}

/// What an oximeter sees in frame `frame` of `count` in this step.
fn sense(body: &Body, on_finger: bool, frame: f64, count: f64) -> Sensed {
    Sensed {
        on_finger,
        pulse_rate: u16::try_from(whole(body.heart_rate())).unwrap_or(0),
        spo2: u8::try_from(whole(body.spo2())).unwrap_or(0),
        wave: u8::try_from(whole(body.pulse_wave(frame / count) * 127.0)).unwrap_or(0),
        beat: body.beats_within(frame / count, (frame + 1.0) / count),
    }
}

impl Bed {
    /// What the instruments without a line send in this second.
    fn send(&mut self, script: &Script, second: u64, elapsed: Duration, sent: &mut Vec<Sent>) {
        let bed = self.index;
        if !Line::ALL.iter().any(|line| line.bed() == bed) {
            self.send_oximetry(script, elapsed, sent);
        }
        self.send_strap(script, second, elapsed, sent);
        let mut vital = |instrument, vital| sent.push(Sent::Vital { bed, instrument, vital });
        let breaths = Value::Valid(Decimal::integer(whole(self.body.respiratory_rate())));
        vital(Instrument::BreathMonitor, Vital::scalar(Metric::RespiratoryRate, breaths));
        if is_due(second, bed, CUFF_EVERY_S) {
            let pressure = self.body.pressure();
            let value = |mmhg: f64| Value::reported(Metric::BloodPressure, Decimal::integer(whole(mmhg)));
            let pressure = Pressure {
                systolic: value(pressure.systolic),
                diastolic: value(pressure.diastolic),
                mean: value(pressure.mean),
            };
            vital(Instrument::Cuff, Vital::BloodPressure(pressure));
        }
        if is_due(second, bed, TEMPERATURE_EVERY_S) {
            let degrees = Decimal::tenths(whole(self.body.temperature() * 10.0));
            let value = Value::reported(Metric::Temperature, degrees);
            vital(Instrument::Thermometer, Vital::scalar(Metric::Temperature, value));
        }
        if second == 0 {
            for instrument in [Instrument::BreathMonitor, Instrument::Cuff, Instrument::Thermometer] {
                sent.push(Sent::Link { bed, instrument, state: LinkState::Live, status: None });
            }
        }
    }

    /// The waves of this step, but for that of an oximeter with a line.
    fn send_waves(&mut self, script: &Script, elapsed: Duration, sent: &mut Vec<Sent>) {
        let bed = self.index;
        let is_on = |instrument| match instrument {
            Instrument::Strap => !script.is_on(bed, Happening::StrapFallsOff, elapsed),
            Instrument::Oximeter => {
                !Line::ALL.iter().any(|line| line.bed() == bed)
                    && !script.is_on(bed, Happening::OximeterFallsOff, elapsed)
                    && !script.is_on(bed, Happening::OximeterUnplugged, elapsed)
            }
            Instrument::BreathMonitor | Instrument::Cuff | Instrument::Thermometer => true,
        };
        self.waves.step(&self.body, is_on, |instrument, block| sent.push(Sent::Wave { bed, instrument, block }));
    }

    fn send_oximetry(&mut self, script: &Script, elapsed: Duration, sent: &mut Vec<Sent>) {
        let (bed, instrument) = (self.index, Instrument::Oximeter);
        let off = script.is_on(bed, Happening::OximeterFallsOff, elapsed);
        let unplugged = script.is_on(bed, Happening::OximeterUnplugged, elapsed);
        let (state, status) = match (unplugged, off) {
            (true, _) => (LinkState::Lost, None),
            (false, true) => (LinkState::SensorOff, Some(Status::SensorOff)),
            (false, false) => (LinkState::Live, None),
        };
        if self.oximeter.replace((state, status)) != Some((state, status)) {
            sent.push(Sent::Link { bed, instrument, state, status });
        }
        if unplugged {
            return;
        }
        let numbers = [
            (Metric::Spo2, Decimal::integer(whole(self.body.spo2()))),
            (Metric::PulseRate, Decimal::integer(whole(self.body.heart_rate()))),
            (Metric::PerfusionIndex, Decimal::tenths(whole(self.body.perfusion() * 10.0))),
        ];
        for (metric, number) in numbers {
            let value = if off { Value::Absent(Absent::SensorOff) } else { Value::reported(metric, number) };
            sent.push(Sent::Vital { bed, instrument, vital: Vital::scalar(metric, value) });
        }
    }

    fn send_strap(&mut self, script: &Script, second: u64, elapsed: Duration, sent: &mut Vec<Sent>) {
        let (bed, instrument) = (self.index, Instrument::Strap);
        let contact = !script.is_on(bed, Happening::StrapFallsOff, elapsed);
        let battery_low = script.is_on(bed, Happening::StrapBatteryLow, elapsed);
        let state = if contact { LinkState::Live } else { LinkState::SensorOff };
        let status = match (contact, battery_low) {
            (false, _) => Some(Status::SensorOff),
            (true, true) => Some(Status::LowBattery),
            (true, false) => None,
        };
        let changed = self.strap.replace((state, status)) != Some((state, status));
        if changed {
            sent.push(Sent::Link { bed, instrument, state, status });
        }
        let rate = u16::try_from(whole(self.body.heart_rate())).unwrap_or(0);
        let mut beats = self.body.take_beats();
        if !contact {
            // Without skin contact a strap finds no beats, but real ones go on sending their last rate.
            beats.clear();
        }
        sent.push(Sent::HeartRate { bed, payload: strap::payload(rate, contact, &beats) });
        if changed || is_due(second, bed, BATTERY_EVERY_S) {
            let hours = i32::try_from(second / 3600).unwrap_or(i32::MAX);
            let full = FULL_CHARGE - 4 * i32::try_from(bed).unwrap_or(0);
            let charge = if battery_low { LOW_CHARGE } else { full.saturating_sub(hours).max(LOW_CHARGE + 10) };
            let value = Value::Valid(Decimal::integer(charge));
            sent.push(Sent::Vital { bed, instrument, vital: Vital::scalar(Metric::Battery, value) });
        }
    }
}

/// True in the seconds in which a bed measures what it measures only now and then.
fn is_due(second: u64, bed: usize, every_s: u64) -> bool {
    let first = STAGGER_S * (1 + u64::try_from(bed).unwrap_or(0));
    second >= first && (second - first).is_multiple_of(every_s)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::clock::Wall;

    use super::*;

    fn at(millis: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(5_000 + millis), wall: Wall(0) }
    }

    fn run(ward: &mut Ward, seconds: std::ops::Range<u64>) -> Vec<(u64, Sent)> {
        let tick = |ms| (ms, at(ms));
        (seconds.start * 10..seconds.end * 10)
            .map(|step| tick(step * 100))
            .flat_map(|(ms, now)| ward.step(now).into_iter().map(move |sent| (ms / 1000, sent)))
            .collect()
    }

    #[test]
    fn every_bed_has_a_patient_and_devices_of_its_own() {
        let beds = beds();
        let patients: BTreeSet<_> = beds.iter().map(|bed| bed.patient.clone()).collect();
        let devices: BTreeSet<_> =
            beds.iter().flat_map(|bed| Instrument::ALL.map(|instrument| bed.device(instrument))).collect();
        assert_eq!((patients.len(), devices.len()), (BEDS, BEDS * Instrument::ALL.len()));
        for line in Line::ALL {
            assert_eq!(beds[line.bed()].line(), Some(line));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_ward_and_another_seed_another() {
        let log = |seed| run(&mut Ward::new(seed), 0..120);
        assert_eq!(log(1), log(1));
        assert_ne!(log(1), log(2));
    }

    #[test]
    fn the_nonin_sends_75_frames_a_second_and_the_contec_60_once_it_is_asked() {
        let mut ward = Ward::with_script(3, Script::quiet());
        run(&mut ward, 0..1);
        ward.command(Line::Contec, &[0x7D, 0x81, 0xA1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80], at(1000));
        let sent = run(&mut ward, 1..9);
        let count = |wanted| -> usize {
            let bytes = sent.iter().map(|(_, sent)| match sent {
                Sent::Bytes { line, bytes } if *line == wanted => bytes.len(),
                _ => 0,
            });
            bytes.sum()
        };
        assert_eq!((count(Line::Nonin), count(Line::Contec)), (8 * 75 * 5, 8 * 60 * 9));
    }

    #[test]
    fn the_first_minutes_show_every_happening() {
        let mut ward = Ward::new(42);
        let sent = run(&mut ward, 0..600);
        let low_spo2 = |bed: usize| {
            sent.iter().any(|(_, sent)| {
                matches!(sent, Sent::Vital { bed: at, vital: Vital::Scalar { metric: Metric::Spo2, value }, .. }
                    if *at == bed && value.valid().is_some_and(|spo2| spo2.to_f64() < 85.0))
            })
        };
        assert!(low_spo2(5) && !low_spo2(7));
        let fast = |wanted: usize| {
            sent.iter()
                .any(|(_, sent)| matches!(sent, Sent::HeartRate { bed, payload } if *bed == wanted && payload[1] > 135))
        };
        assert!(fast(2) && !fast(7));
        let unplugged = Sent::Cable { line: Line::Contec, plugged: false };
        let plugged = Sent::Cable { line: Line::Contec, plugged: true };
        let cables: Vec<_> = sent.iter().filter(|(_, sent)| *sent == unplugged || *sent == plugged).collect();
        assert_eq!(cables.iter().map(|(second, _)| *second).collect::<Vec<_>>(), [0, 300, 325]);
        for (bed, instrument, state, status) in [
            (3, Instrument::Oximeter, LinkState::SensorOff, Status::SensorOff),
            (6, Instrument::Strap, LinkState::SensorOff, Status::SensorOff),
            (4, Instrument::Strap, LinkState::Live, Status::LowBattery),
        ] {
            let link = Sent::Link { bed, instrument, state, status: Some(status) };
            assert!(sent.iter().any(|(_, sent)| *sent == link), "{link:?}");
        }
    }

    #[test]
    fn a_sensor_that_is_off_has_no_number_and_an_unplugged_one_says_nothing() {
        const OFF: &[super::super::script::Scene] = &[
            super::super::script::Scene {
                bed: 3,
                what: Happening::OximeterFallsOff,
                from: Duration::from_secs(10),
                lasts: Duration::from_secs(5),
            },
            super::super::script::Scene {
                bed: 4,
                what: Happening::OximeterUnplugged,
                from: Duration::from_secs(10),
                lasts: Duration::from_secs(5),
            },
        ];
        let sent = run(&mut Ward::with_script(1, Script::of(OFF)), 0..20);
        let oximetry = |bed: usize, second: u64| -> Vec<Value> {
            let vitals = sent.iter().filter_map(|(at, sent)| match sent {
                Sent::Vital { bed: of, instrument: Instrument::Oximeter, vital } if *of == bed && *at == second => {
                    Some(vital.leading())
                }
                _ => None,
            });
            vitals.collect()
        };
        assert!(oximetry(3, 9).iter().all(|value| value.valid().is_some()));
        assert_eq!(oximetry(3, 12), [Value::Absent(Absent::SensorOff); 3]);
        assert_eq!(oximetry(4, 12), []);
        assert_eq!(oximetry(4, 16).len(), 3);
    }

    #[test]
    fn a_machine_that_slept_does_not_make_up_the_night() {
        let mut ward = Ward::new(1);
        run(&mut ward, 0..5);
        assert_eq!(ward.step(at(8 * 3_600_000)), []);
        assert!(ward.step(at(8 * 3_600_000 + 1000)).len() < 200);
        assert!(!ward.step(at(8 * 3_600_000 + 2000)).is_empty());
    }
}
