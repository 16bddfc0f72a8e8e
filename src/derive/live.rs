//! What is computed from the readings of the present: the early warning score of each patient for whom it is switched
//! on, a heart rate where a device gives only intervals, and the variability of the heart rate.
//!
//! Nothing of the past counts: a reading that a device kept and handed over later changes no present score. What is
//! missing is missing, and said so with a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Mono, Stamp, Wall};
use crate::derive::heart::{Heart, derived};
use crate::derive::live_score::{LiveScore, Manner};
use crate::event::{LinkState, ObservationEvent, SourceEvent};
use crate::ids::{DeviceId, PatientId};
use crate::vitals::{Metric, Mode, Quality, Reading, Spo2Scale, Vital};

pub use crate::derive::heart::VARIABILITY_EVERY;
pub use crate::derive::live_score::{CONTINUOUS_LIFE, ENTRY_LIFE, REFRESH, SPOT_LIFE};

/// Most devices whose beats are watched. Of one more nothing is computed.
pub const MAX_HEARTS: usize = 256;

/// The device of what the bridge computes from several devices.
const OWN_DEVICE: &str = "vitalbridge";

/// How the score of a patient is computed. That there is one says that the patient is at least 16 and not pregnant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News2Settings {
    /// Which column of SpO2 holds.
    pub scale: Spo2Scale,
    /// Who prescribed scale 2, and why.
    pub decision: Option<(String, String)>,
}

impl Default for News2Settings {
    fn default() -> Self {
        Self { scale: Spo2Scale::One, decision: None }
    }
}

/// Everything that is computed live.
#[derive(Debug, Default)]
pub struct Derivation {
    scores: BTreeMap<PatientId, LiveScore>,
    hearts: BTreeMap<(PatientId, DeviceId), Heart>,
    /// How devices measure, as far as that is known.
    manners: BTreeMap<DeviceId, Manner>,
    /// Nothing is due before. Kept because it is asked far more often than it changes; it may be too early, because a
    /// reading that puts something off looks at its own patient alone.
    due: Option<Mono>,
    /// The time of day at which the first entry of a person ends.
    ends: Option<Wall>,
}

impl Derivation {
    /// The score of this patient is computed from now on; it is published by the next [`Derivation::on_deadline`].
    pub fn score(&mut self, patient: PatientId, mode: Mode, settings: &News2Settings) {
        self.scores.insert(patient, LiveScore::new(settings.scale, mode));
        self.look_ahead();
    }

    /// True if the score of this patient is computed.
    pub fn has_score(&self, patient: &PatientId) -> bool {
        self.scores.contains_key(patient)
    }

    /// A device measures now and then: what it measured counts for hours.
    pub fn expect_spot(&mut self, device: DeviceId) {
        self.manners.insert(device, Manner::Spot);
    }

    /// A device measures all the time, temperatures too: what it measured counts while it goes on.
    pub fn expect_continuous(&mut self, device: DeviceId) {
        self.manners.insert(device, Manner::Continuous);
    }

    /// Takes a reading; one that is late, or of nobody, counts for nothing.
    pub fn on_reading(&mut self, reading: &Reading, now: Stamp) -> Vec<Reading> {
        let Some(patient) = reading.patient.as_ref().filter(|_| !reading.is_derived() && !reading.is_late(now)) else {
            return Vec::new();
        };
        let mut found: Vec<Reading> = self.beat(patient, reading, now).into_iter().collect();
        let manner = self.manners.get(&reading.device).copied().unwrap_or(Manner::Unsaid);
        let mut due = None;
        if let Some(score) = self.scores.get_mut(patient) {
            for input in std::iter::once(reading).chain(&found) {
                score.take(input, manner, now);
            }
            let news = news(patient, score, now);
            found.extend(news);
            due = score.due();
        }
        if matches!(reading.vital, Vital::RrIntervals(_) | Vital::Scalar { metric: Metric::HeartRate, .. }) {
            let heart = self.hearts.get(&(patient.clone(), reading.device.clone()));
            due = due.into_iter().chain(heart.map(Heart::due)).min();
        }
        self.due = self.due.into_iter().chain(due).min();
        found
    }

    /// Takes what a source says: whatever comes over a link that was lost does not follow what came before.
    pub fn on_source(&mut self, source: &SourceEvent) {
        if let Some(patient) = &source.patient
            && source.link != LinkState::Live
            && let Some(heart) = self.hearts.get_mut(&(patient.clone(), source.device.clone()))
        {
            heart.gap();
        }
    }

    /// Takes what a person entered about a patient: the whole of what holds now.
    pub fn on_observation(&mut self, observation: &ObservationEvent, now: Stamp) -> Vec<Reading> {
        let Some(score) = self.scores.get_mut(&observation.patient) else { return Vec::new() };
        score.observe(observation, now);
        let found = news(&observation.patient, score, now);
        self.look_ahead();
        found.into_iter().collect()
    }

    /// When [`Derivation::on_deadline`] must be called next.
    pub const fn next_deadline(&self) -> Option<Mono> {
        self.due
    }

    /// Does what is due by now.
    pub fn on_deadline(&mut self, now: Stamp) -> Vec<Reading> {
        let has_ended = self.ends.is_some_and(|end| end <= now.wall);
        if !has_ended && self.due.is_none_or(|due| now.mono < due) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for ((patient, device), heart) in &mut self.hearts {
            for vital in heart.on_deadline(now) {
                found.extend(heart.reading(patient, device, vital, now));
            }
        }
        self.hearts.retain(|_, heart| !heart.is_over(now.mono));
        // A rate that is lost is no input any more.
        let mut changed = BTreeSet::new();
        for lost in &found {
            if let Some(patient) = &lost.patient
                && let Some(score) = self.scores.get_mut(patient)
            {
                score.take(lost, Manner::Continuous, now);
                changed.insert(patient.clone());
            }
        }
        for (patient, score) in &mut self.scores {
            if changed.contains(patient) || score.is_due(now) {
                found.extend(news(patient, score, now));
            }
        }
        self.look_ahead();
        found
    }

    /// The heart rate of a device that gives only intervals.
    fn beat(&mut self, patient: &PatientId, reading: &Reading, now: Stamp) -> Option<Reading> {
        let key = (patient.clone(), reading.device.clone());
        match &reading.vital {
            Vital::RrIntervals(intervals) => {
                if self.hearts.len() >= MAX_HEARTS && !self.hearts.contains_key(&key) {
                    return None;
                }
                let heart = self.hearts.entry(key).or_insert_with(|| Heart::new(reading.mode, now));
                if !matches!(reading.quality, Quality::Valid | Quality::Validated) {
                    heart.gap();
                    return None;
                }
                let at = reading.received.mono.min(now.mono);
                let vital = heart.take(intervals, reading.mode, at, now)?;
                heart.reading(patient, &reading.device, vital, now)
            }
            Vital::Scalar { metric: Metric::HeartRate, .. } => {
                if let Some(heart) = self.hearts.get_mut(&key) {
                    heart.has_rate();
                }
                None
            }
            _ => None,
        }
    }

    /// Finds out when something is due, by looking at everybody.
    fn look_ahead(&mut self) {
        let hearts = self.hearts.values().map(Heart::due);
        self.due = self.scores.values().filter_map(LiveScore::due).chain(hearts).min();
        self.ends = self.scores.values().filter_map(LiveScore::ends).min();
    }
}

/// The score, if there is news of it.
fn news(patient: &PatientId, score: &mut LiveScore, now: Stamp) -> Option<Reading> {
    let found = score.news(now)?;
    derived(patient, OWN_DEVICE.parse().ok()?, Vital::News2(Box::new(found)), score.mode, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::event::Entered;
    use crate::vitals::{
        Absent, Breathing, Consciousness, Decimal, EarlyWarning, MDC_PULSE_RATE_CUFF, Parameter, Pressure, Risk, Taken,
        TimeSource, Value,
    };

    const START: i64 = 1_795_219_200_000;

    fn at(millis: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(1_000_000 + millis), wall: Wall(START + i64::try_from(millis).unwrap()) }
    }

    fn patient() -> PatientId {
        "P-1".parse().unwrap()
    }

    fn scored(scale: Spo2Scale) -> Derivation {
        let mut derivation = Derivation::default();
        derivation.score(patient(), Mode::Test, &News2Settings { scale, decision: None });
        derivation
    }

    fn reading(device: &str, vital: Vital, now: Stamp) -> Reading {
        Reading {
            patient: Some(patient()),
            device: device.parse().unwrap(),
            source: "port".parse().unwrap(),
            vital,
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Test,
            taken: Taken::on_arrival(now),
            received: now,
        }
    }

    fn number(metric: Metric, text: &str) -> Vital {
        Vital::scalar(metric, Value::Valid(text.parse().unwrap()))
    }

    fn systolic(text: &str) -> Vital {
        let absent = Value::Absent(Absent::NotMeasured);
        Vital::BloodPressure(Pressure {
            systolic: Value::Valid(text.parse().unwrap()),
            diastolic: absent,
            mean: absent,
        })
    }

    fn entered(oxygen: Option<Breathing>, consciousness: Option<Consciousness>, now: Stamp) -> ObservationEvent {
        let until = Wall(now.wall.0 + i64::try_from(ENTRY_LIFE.as_millis()).unwrap());
        let until_mono = now.mono + ENTRY_LIFE;
        let by = "lena".to_owned();
        ObservationEvent {
            patient: patient(),
            oxygen: oxygen.map(|value| Entered { value, by: by.clone(), at: now.wall, until, until_mono }),
            consciousness: consciousness.map(|value| Entered {
                value,
                by: by.clone(),
                at: now.wall,
                until,
                until_mono,
            }),
            by,
            mode: Mode::Test,
        }
    }

    fn score_of(found: &[Reading]) -> Option<EarlyWarning> {
        found.iter().rev().find_map(|reading| match &reading.vital {
            Vital::News2(score) => Some(score.as_ref().clone()),
            _ => None,
        })
    }

    /// Everything that is published until then, at the moments the machine asks for.
    fn run_to(derivation: &mut Derivation, millis: u64) -> Vec<Reading> {
        let mut found = Vec::new();
        let mut stops = 0;
        while let Some(due) = derivation.next_deadline().filter(|due| *due <= at(millis).mono) {
            stops += 1;
            assert!(stops < 100_000, "the same deadline again and again: {due:?}");
            let behind = u64::try_from(due.since(at(0).mono).as_millis()).unwrap();
            found.extend(derivation.on_deadline(at(behind)));
        }
        found
    }

    /// One value of each sensor, in this order.
    const WELL: [(&str, &str); 5] = [("rr", "16"), ("spo2", "97"), ("sbp", "120"), ("hr", "70"), ("temp", "37.0")];

    fn vital(name: &str, text: &str) -> Vital {
        match name {
            "rr" => number(Metric::RespiratoryRate, text),
            "spo2" => number(Metric::Spo2, text),
            "sbp" => systolic(text),
            "hr" => number(Metric::HeartRate, text),
            "pr" => number(Metric::PulseRate, text),
            "temp" => number(Metric::Temperature, text),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_row_of_the_chart_scores_the_same_when_it_comes_as_readings() {
        let table = include_str!("../../tests/vectors/news2.csv");
        let mut rows = 0;
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            let [scale, o2, rr, spo2, sbp, hr, acvpu, temp, total, _points @ .., any3, band] = cells.as_slice() else {
                panic!("{row}")
            };
            let mut derivation = scored(Spo2Scale::from_name(scale).unwrap());
            assert_eq!(score_of(&derivation.on_deadline(at(0))).unwrap().missing.len(), 7);
            let oxygen = if *o2 == "1" { Breathing::Oxygen } else { Breathing::Air };
            let observation = entered(Some(oxygen), Consciousness::from_name(acvpu), at(1));
            let mut found = derivation.on_observation(&observation, at(1));
            for (name, text) in [("rr", rr), ("spo2", spo2), ("sbp", sbp), ("hr", hr), ("temp", temp)] {
                found.extend(derivation.on_reading(&reading(name, vital(name, text), at(2)), at(2)));
            }
            let score = score_of(&found).unwrap();
            assert!(score.is_complete(), "{row}: {score:?}");
            assert_eq!(score.value(), Value::Valid(total.parse().unwrap()), "{row}");
            assert_eq!(u8::from(score.single_min == 3).to_string(), *any3, "{row}");
            assert_eq!(score.risk().unwrap().name(), *band, "{row}");
            rows += 1;
        }
        assert_eq!(rows, 248);
    }

    #[test]
    fn sensors_alone_never_make_a_score_and_say_what_is_missing() {
        let mut derivation = scored(Spo2Scale::One);
        let mut found = derivation.on_deadline(at(0));
        for (name, text) in WELL {
            found.extend(derivation.on_reading(&reading(name, vital(name, text), at(1)), at(1)));
        }
        let score = score_of(&found).unwrap();
        assert_eq!((score.score_min, score.score_max, score.risk()), (0, 5, None));
        assert_eq!(score.value(), Value::Absent(Absent::InputsMissing));
        assert_eq!(score.missing, [Parameter::Consciousness, Parameter::Oxygen]);
        let last = found.last().unwrap();
        assert_eq!((last.mode, last.is_derived(), last.quality), (Mode::Test, true, Quality::NotAvailable));
    }

    #[test]
    fn an_input_is_missing_from_the_moment_at_which_it_is_too_old() {
        for (name, text, life) in [
            ("rr", "25", CONTINUOUS_LIFE),
            ("spo2", "90", CONTINUOUS_LIFE),
            ("hr", "135", CONTINUOUS_LIFE),
            ("sbp", "85", SPOT_LIFE),
            ("temp", "34.9", SPOT_LIFE),
        ] {
            let mut derivation = scored(Spo2Scale::One);
            derivation.on_deadline(at(0));
            let found = derivation.on_reading(&reading("d", vital(name, text), at(0)), at(0));
            assert_eq!(score_of(&found).unwrap().score_min, 3, "{name}");
            let life = u64::try_from(life.as_millis()).unwrap();
            let kept = run_to(&mut derivation, life - 1);
            assert!(score_of(&kept).is_none_or(|score| score.score_min == 3), "{name}");
            let lost = score_of(&run_to(&mut derivation, life)).unwrap();
            assert_eq!((lost.score_min, lost.score_max, lost.missing.len()), (0, 20, 7), "{name}");
        }
    }

    #[test]
    fn what_a_person_entered_counts_for_a_shift_and_no_longer() {
        let mut derivation = scored(Spo2Scale::One);
        derivation.on_deadline(at(0));
        let observation = entered(Some(Breathing::Oxygen), Some(Consciousness::Voice), at(0));
        assert_eq!(score_of(&derivation.on_observation(&observation, at(0))).unwrap().score_min, 5);
        let hours = |hours: u64| hours * 3_600_000;
        assert_eq!(run_to(&mut derivation, hours(12) - 1), []);
        assert_eq!(score_of(&run_to(&mut derivation, hours(12))).unwrap().missing.len(), 7);
        // After a restart what is left of the time counts; a clock that was set back does not make it longer.
        for (millis, expected) in [(hours(1), 5), (hours(12), 0), (hours(13), 0)] {
            let mut later = scored(Spo2Scale::One);
            assert_eq!(score_of(&later.on_observation(&observation, at(millis))).unwrap().score_min, expected);
        }
        let mut later = scored(Spo2Scale::One);
        let back = Stamp { mono: at(0).mono, wall: Wall(START - 1_000_000_000) };
        later.on_observation(&observation, back);
        assert_eq!(score_of(&run_to(&mut later, hours(12))).unwrap().missing.len(), 7);
    }

    #[test]
    fn an_entry_ends_by_the_clock_that_comes_to_its_end_first() {
        let hour = 3_600_000_u64;
        let observation = || entered(Some(Breathing::Oxygen), Some(Consciousness::Voice), at(0));
        for (what, mono_hours, wall_hours, expected) in [
            ("both go on", 11, 11, 5),
            ("the wall clock is set a day ahead", 1, 25, 0),
            ("the wall clock is set a day back", 12, -12, 0),
            ("and before that it stands", 11, -13, 5),
        ] {
            let mut derivation = scored(Spo2Scale::One);
            derivation.on_deadline(at(0));
            derivation.on_observation(&observation(), at(0));
            let now = Stamp { mono: at(mono_hours * hour).mono, wall: Wall(START + wall_hours * 3_600_000) };
            let found = score_of(&derivation.on_deadline(now));
            assert_eq!(found.map_or(5, |score| score.score_min), expected, "{what}");
        }
    }

    #[test]
    fn a_probe_that_is_off_is_missing_at_once_and_a_thermometer_is_not() {
        let absent = |metric| Vital::scalar(metric, Value::Absent(Absent::SensorOff));
        let no_pressure = || {
            let absent = Value::Absent(Absent::SensorOff);
            Vital::ArterialPressure(Pressure { systolic: absent, diastolic: absent, mean: absent })
        };
        let line = Vital::ArterialPressure(Pressure {
            systolic: Value::Valid("85".parse().unwrap()),
            diastolic: Value::Absent(Absent::NotMeasured),
            mean: Value::Absent(Absent::NotMeasured),
        });
        for (what, device, had, then, off, expected) in [
            ("probe", "monitor", vital("temp", "34.9"), 1, absent(Metric::Temperature), 0),
            ("thermometer", "ear", vital("temp", "34.9"), 1, absent(Metric::Temperature), 3),
            ("of a recording", "file", vital("temp", "34.9"), 1, absent(Metric::Temperature), 3),
            ("probe in silence", "monitor", vital("temp", "34.9"), 60_000, absent(Metric::Weight), 0),
            ("thermometer in silence", "ear", vital("temp", "34.9"), 60_000, absent(Metric::Weight), 3),
            ("oximeter", "monitor", vital("spo2", "90"), 1, absent(Metric::Spo2), 0),
            ("another metric", "monitor", vital("spo2", "90"), 1, absent(Metric::PulseRate), 3),
            ("arterial line", "monitor", line, 1, no_pressure(), 0),
            ("cuff", "monitor", systolic("85"), 1, no_pressure(), 3),
        ] {
            let mut derivation = scored(Spo2Scale::One);
            derivation.expect_continuous("monitor".parse().unwrap());
            derivation.expect_spot("ear".parse().unwrap());
            derivation.on_deadline(at(0));
            let mut found = derivation.on_reading(&reading(device, had, at(0)), at(0));
            found.extend(run_to(&mut derivation, then));
            found.extend(derivation.on_reading(&reading(device, off.clone(), at(then)), at(then)));
            assert_eq!(score_of(&found).unwrap().score_min, expected, "{what}");
            let another = derivation.on_reading(&reading("another", off, at(then)), at(then));
            assert_eq!(another, [], "{what}: what another device lacks is no news of this one");
        }
    }

    #[test]
    fn a_rate_that_is_lost_is_no_input_any_more() {
        let mut derivation = scored(Spo2Scale::One);
        let mut found = derivation.on_deadline(at(0));
        for second in 0..12 {
            found.extend(run_to(&mut derivation, second * 1000));
            found.extend(derivation.on_reading(&beats(&[410, 410], at(second * 1000)), at(second * 1000)));
        }
        assert_eq!(score_of(&found).unwrap().score_min, 3);
        let lost = run_to(&mut derivation, 22_000);
        assert_eq!(told(&lost).first().map(|(_, text)| text.as_str()), Some("heart_rate inputs_missing"));
        assert_eq!(score_of(&lost).unwrap().score_min, 0);
    }

    #[test]
    fn nothing_is_told_of_old_beats_while_what_comes_is_none() {
        let mut derivation = Derivation::default();
        let mut found = Vec::new();
        for second in 0..40 {
            found.extend(run_to(&mut derivation, second * 1000));
            let lengths: &[u16] = if second < 20 { &[1024] } else { &[100, 100] };
            found.extend(derivation.on_reading(&beats(lengths, at(second * 1000)), at(second * 1000)));
        }
        let told = told(&found);
        assert_eq!(told[11], (19, "heart_rate 60".to_owned()));
        assert_eq!(told[12..], [(26, "heart_rate inputs_missing".to_owned())]);
    }

    #[test]
    fn what_is_late_historic_doubted_absent_or_of_nobody_makes_no_live_score() {
        let fresh = || reading("d", vital("spo2", "85"), at(100_000));
        let taken = |wall| Taken { wall, source: TimeSource::DeviceSynced, ..Taken::on_arrival(at(0)) };
        let absent = Vital::scalar(Metric::Spo2, Value::Absent(Absent::SensorOff));
        for (what, late) in [
            ("late", Reading { taken: taken(Some(Wall(START + 39_999))), ..fresh() }),
            ("waited here", Reading { received: at(39_999), taken: Taken::on_arrival(at(39_999)), ..fresh() }),
            ("historic", Reading { quality: Quality::Historic, ..fresh() }),
            ("doubted", Reading { quality: Quality::Questionable, ..fresh() }),
            ("absent", Reading { vital: absent, ..fresh() }),
            ("of nobody", Reading { patient: None, ..fresh() }),
            ("of another", Reading { patient: Some("P-2".parse().unwrap()), ..fresh() }),
        ] {
            let mut derivation = scored(Spo2Scale::One);
            derivation.on_deadline(at(0));
            assert_eq!(derivation.on_reading(&late, at(100_000)), [], "{what}");
        }
        let mut derivation = scored(Spo2Scale::One);
        derivation.on_deadline(at(0));
        let found =
            derivation.on_reading(&Reading { taken: taken(Some(Wall(START + 70_000))), ..fresh() }, at(100_000));
        assert_eq!(score_of(&found).unwrap().inputs[0].age_ms, 30_000, "its age counts from when it was taken");
    }

    #[test]
    fn a_continuous_measurement_stands_before_single_ones_and_one_device_before_the_others() {
        let cuff = |text| Reading { mdc: Some(MDC_PULSE_RATE_CUFF), ..reading("cuff", vital("pr", text), at(0)) };
        let pulse = |readings: &[(Reading, u64)]| {
            let mut derivation = scored(Spo2Scale::One);
            derivation.expect_spot("finger".parse().unwrap());
            derivation.on_deadline(at(0));
            let mut found = Vec::new();
            for (reading, millis) in readings {
                let now = at(*millis);
                found.extend(run_to(&mut derivation, *millis));
                let reading = Reading { received: now, taken: Taken::on_arrival(now), ..reading.clone() };
                found.extend(derivation.on_reading(&reading, now));
            }
            score_of(&found).unwrap().score_min
        };
        let of = |device: &str, name, text| reading(device, vital(name, text), at(0));
        for (what, readings, expected) in [
            ("a cuff does not replace a strap", vec![(of("strap", "hr", "70"), 0), (cuff("135"), 1)], 0),
            ("a strap replaces a cuff", vec![(cuff("135"), 0), (of("strap", "hr", "70"), 1)], 0),
            ("a strap replaces an oximeter", vec![(of("ox", "pr", "135"), 0), (of("strap", "hr", "70"), 1)], 0),
            ("of two oximeters the first goes on", vec![(of("ox", "pr", "70"), 0), (of("ox-2", "pr", "135"), 1)], 0),
            ("until it is lost", vec![(of("ox", "pr", "70"), 0), (of("ox-2", "pr", "135"), 60_000)], 3),
            ("of single ones the newest counts", vec![(cuff("70"), 0), (of("finger", "pr", "135"), 1)], 3),
            (
                "a spot check counts for hours",
                vec![(of("finger", "pr", "135"), 0), (of("x", "rr", "16"), 3_600_000)],
                3,
            ),
            (
                "a lost strap leaves no old cuff",
                vec![(cuff("135"), 0), (of("s", "hr", "70"), 1), (of("x", "rr", "16"), 60_001)],
                0,
            ),
        ] {
            assert_eq!(pulse(&readings), expected, "{what}");
        }
    }

    #[test]
    fn the_score_is_published_when_its_points_change_and_once_a_minute_while_its_numbers_do() {
        let mut derivation = scored(Spo2Scale::One);
        let mut count = derivation.on_deadline(at(0)).len();
        for second in 0..180 {
            let now = at(second * 1000);
            count += run_to(&mut derivation, second * 1000).len();
            let text = if second % 2 == 0 { "70" } else { "71" };
            count += derivation.on_reading(&reading("strap", vital("hr", text), now), now).len();
        }
        // Nothing known, the first rate, after one minute and after two.
        assert_eq!(count, 4);
        let found = derivation.on_reading(&reading("strap", vital("hr", "91"), at(180_000)), at(180_000));
        assert_eq!(score_of(&found).map(|score| (score.score_min, score.risk_min())), Some((1, Risk::Low)));
    }

    fn beats(lengths: &[u16], now: Stamp) -> Reading {
        reading("strap", Vital::RrIntervals(lengths.to_vec()), now)
    }

    /// The text of each derived reading with its second.
    fn told(found: &[Reading]) -> Vec<(u64, String)> {
        let words = |reading: &Reading| match reading.vital.leading() {
            Value::Valid(number) => format!("{} {number}", reading.vital.metric()),
            Value::Absent(reason) => format!("{} {reason}", reading.vital.metric()),
        };
        found.iter().map(|reading| (reading.received.mono.since(at(0).mono).as_secs(), words(reading))).collect()
    }

    #[test]
    fn a_heart_rate_comes_from_intervals_only_where_the_device_gives_none() {
        for gives_rate in [false, true] {
            let mut derivation = Derivation::default();
            let mut found = Vec::new();
            for second in 0..20 {
                let now = at(second * 1000);
                found.extend(run_to(&mut derivation, second * 1000));
                found.extend(derivation.on_reading(&beats(&[1024], now), now));
                if gives_rate {
                    found.extend(derivation.on_reading(&reading("strap", vital("hr", "61"), now), now));
                }
            }
            if gives_rate {
                assert_eq!(told(&found), []);
                continue;
            }
            assert_eq!(told(&found)[0], (8, "heart_rate 60".to_owned()), "a device has 8 s to tell its own");
            assert_eq!(found.len(), 12, "{:?}", told(&found));
            assert!(
                found.iter().all(Reading::is_derived) && found.iter().all(|found| found.device.as_str() == "strap")
            );
            let lost = run_to(&mut derivation, 59_000);
            assert_eq!(told(&lost), [(26, "heart_rate inputs_missing".to_owned())], "said once");
        }
    }

    #[test]
    fn a_derived_rate_is_an_input_of_the_score() {
        let mut derivation = scored(Spo2Scale::One);
        let mut found = derivation.on_deadline(at(0));
        for second in 0..12 {
            found.extend(derivation.on_reading(&beats(&[410, 410], at(second * 1000)), at(second * 1000)));
        }
        let score = score_of(&found).unwrap();
        assert_eq!((score.score_min, score.inputs[0].metric), (3, Some(Metric::HeartRate)), "150 beats a minute");
    }

    #[test]
    fn the_recorded_heart_has_its_variability_after_five_minutes_and_none_before() {
        let table = include_str!("../../tests/vectors/rr_mitbih100.csv");
        let mut derivation = Derivation::default();
        let mut found = Vec::new();
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            let thousandths = |cell: &str| cell.parse::<Decimal>().unwrap().rounded(-3).unwrap();
            let end = u64::try_from(thousandths(cells[0])).unwrap();
            let raw = u16::try_from((thousandths(cells[1]) * 1024 + 500_000) / 1_000_000).unwrap();
            found.extend(run_to(&mut derivation, end));
            found.extend(derivation.on_reading(&beats(&[raw], at(end)), at(end)));
        }
        found.extend(run_to(&mut derivation, 302_000));
        let of_hrv = |reading: &&Reading| reading.vital.metric() == Metric::HeartRateVariability;
        let found: Vec<Reading> = found.iter().filter(of_hrv).cloned().collect();
        assert_eq!(told(&found)[0], (61, "heart_rate_variability inputs_missing".to_owned()));
        assert_eq!(found.len(), 2, "{:?}", told(&found));
        let Vital::Variability(variability) = &found[1].vital else { panic!("{found:?}") };
        let shown = [variability.sdnn, variability.rmssd, variability.pnn50].map(|number| number.to_string());
        // The strap's own resolution is 1/1024 s; the minute's end is not that of the recording.
        println!("{variability:?}");
        assert!(variability.n >= 350 && variability.rejected == 6, "{variability:?}");
        let near = |text: &str, expected: f64| (text.parse::<f64>().unwrap() - expected).abs() < 0.5;
        assert!(near(&shown[0], 27.457) && near(&shown[1], 27.689) && near(&shown[2], 3.621), "{shown:?}");
    }

    #[test]
    fn a_lost_link_makes_no_difference_between_beats() {
        let feed = |is_lost: bool| {
            let mut derivation = Derivation::default();
            let mut found = Vec::new();
            for second in 0..400_u64 {
                // 31 s are missing: an interval before and one after are no neighbours.
                let raw = if second < 200 { 1024 } else { 1090 };
                if second == 200 && is_lost {
                    derivation.on_source(&SourceEvent {
                        source: "port".parse().unwrap(),
                        device: "strap".parse().unwrap(),
                        patient: Some(patient()),
                        link: LinkState::Lost,
                        status: BTreeSet::new(),
                        reason: None,
                        mode: Mode::Test,
                    });
                }
                found.extend(run_to(&mut derivation, second * 1000));
                found.extend(derivation.on_reading(&beats(&[raw], at(second * 1000)), at(second * 1000)));
            }
            let hrv = found.iter().rev().find_map(|reading| match &reading.vital {
                Vital::Variability(variability) => Some(*variability),
                _ => None,
            });
            hrv.unwrap().pnn50.to_f64()
        };
        assert!(feed(false) > 0.2, "one large difference among three hundred");
        assert!(feed(true) < 0.01);
    }

    /// Random readings, gaps, entries and pauses: the machine's score is that of a plain look at what came.
    #[test]
    fn random_histories_never_count_what_is_old_and_never_invent() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut derivation = scored(Spo2Scale::One);
        let mut now = 0_u64;
        let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let mut shown = score_of(&derivation.on_deadline(at(0))).unwrap();
        for _ in 0..20_000 {
            now += if random.u8(..) < 4 { random.u64(0..30_000_000) } else { random.u64(0..20_000) };
            if let Some(score) = score_of(&run_to(&mut derivation, now)) {
                shown = score;
            }
            let (name, text) = WELL[random.usize(..WELL.len())];
            let found = match random.u8(0..10) {
                0 => {
                    let late = Reading { quality: Quality::Historic, ..reading("d", vital(name, text), at(now)) };
                    derivation.on_reading(&late, at(now))
                }
                1 => {
                    last.insert("o2", (now, 43_200_000));
                    last.insert("avpu", (now, 43_200_000));
                    let entered = entered(Some(Breathing::Air), Some(Consciousness::Alert), at(now));
                    derivation.on_observation(&entered, at(now))
                }
                _ => {
                    let life = if matches!(name, "sbp" | "temp") { 21_600_000 } else { 60_000 };
                    last.insert(name, (now, life));
                    derivation.on_reading(&reading("d", vital(name, text), at(now)), at(now))
                }
            };
            if let Some(score) = score_of(&found) {
                shown = score;
            }
            let known = last.values().filter(|(came, life)| now < came + life).count();
            assert_eq!(shown.inputs.len(), known, "at {now}: {shown:?}");
            assert_eq!(shown.inputs.len() + shown.missing.len(), 7);
            assert_eq!(shown.is_complete(), shown.score_min == shown.score_max && known == 7);
            assert_eq!(shown.score_min, 0, "nobody was ill");
        }
    }
}
