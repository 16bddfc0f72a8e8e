//! The patient at an emulated device: the physiology model as vitals, beats and samples of waves.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::encode::Say;
use crate::profile::Profile;
use crate::profile::model::Part;
use crate::sources::simulator::physiology::{Baseline, Body, STEP, Strain, whole};
use crate::vitals::{Decimal, Metric};

/// A calm adult.
const CALM: Baseline = Baseline {
    heart_rate: 72.0,
    respiratory_rate: 14.0,
    spo2: 97.0,
    systolic: 122.0,
    diastolic: 78.0,
    temperature: 36.8,
    perfusion: 3.0,
};
/// The model's first beats are cut off; half a minute later nothing is left of that.
const WARM_UP_STEPS: usize = 300;
/// Height of a wave in a converter of 32 bits, which no signal fills.
const MAX_SPAN: f64 = 60_000.0;
/// After a longer pause than this the patient has slept: the model does not make up for it.
const LONGEST_CATCH_UP: u32 = 100;

/// Vitals by what they are, a pressure by its parts.
pub(super) type Vitals = BTreeMap<(Metric, Option<Part>), Say>;

/// One patient.
#[derive(Debug, Clone)]
pub(super) struct Patient {
    body: Body,
    /// The beginning of the model's next step, and how much of it (0..1) has been looked at.
    step_from: Mono,
    part: f64,
    seen: Mono,
    beats: u64,
}

impl Patient {
    pub(super) fn new(seed: u64, now: Mono) -> Self {
        let mut body = Body::new(CALM, seed);
        for _ in 0..WARM_UP_STEPS {
            body.step(Strain::NONE);
        }
        body.take_beats();
        Self { body, step_from: now, part: 0.0, seen: now, beats: 0 }
    }

    /// Lets the time pass up to `at`.
    pub(super) fn advance(&mut self, at: Mono) {
        if at.since(self.step_from) > STEP * LONGEST_CATCH_UP {
            self.step_from = at;
        }
        if at <= self.seen {
            return;
        }
        self.seen = at;
        while at.since(self.step_from) >= STEP {
            self.look_until(1.0);
            self.body.step(Strain::NONE);
            self.body.take_beats();
            (self.step_from, self.part) = (self.step_from + STEP, 0.0);
        }
        self.look_until(at.since(self.step_from).as_secs_f64() / STEP.as_secs_f64());
    }

    fn look_until(&mut self, part: f64) {
        self.beats += u64::from(self.body.beats_within(self.part, part));
        self.part = part;
    }

    /// Heart beats so far.
    pub(super) const fn beats(&self) -> u64 {
        self.beats
    }

    /// What a device measures at this patient now. Metrics that the model does not have are left out.
    pub(super) fn vitals(&self, profile: &Profile) -> Vitals {
        let fields = profile.messages().iter().flat_map(|message| &message.fields);
        let value = |metric, part| self.value(metric, part).map(|value| ((metric, part), Say::Value(value)));
        fields.filter_map(|field| value(field.metric, field.part)).collect()
    }

    fn value(&self, metric: Metric, part: Option<Part>) -> Option<Decimal> {
        let integer = |value: f64| Some(Decimal::integer(whole(value)));
        let pressure = self.body.pressure();
        match (metric, part) {
            (Metric::HeartRate | Metric::PulseRate, _) => integer(self.body.heart_rate()),
            (Metric::Spo2, _) => integer(self.body.spo2()),
            (Metric::RespiratoryRate, _) => integer(self.body.respiratory_rate()),
            (Metric::Temperature, _) => Some(Decimal::tenths(whole(self.body.temperature() * 10.0))),
            (Metric::PerfusionIndex, _) => Decimal::new(whole(self.body.perfusion() * 100.0).into(), -2),
            (Metric::BloodPressure | Metric::ArterialPressure, Some(Part::Systolic)) => integer(pressure.systolic),
            (Metric::BloodPressure | Metric::ArterialPressure, Some(Part::Diastolic)) => integer(pressure.diastolic),
            (Metric::BloodPressure | Metric::ArterialPressure, Some(Part::Mean)) => integer(pressure.mean),
            _ => None,
        }
    }

    /// A sample of a wave now. Its name says which signal it is; a name that says nothing is a pulse wave.
    pub(super) fn sample(&self, name: &str, baseline: i32, (low, high): (i32, i32)) -> i32 {
        let (low_end, high_end) = (f64::from(low), f64::from(high));
        let span = (high_end - low_end).min(MAX_SPAN);
        let name = name.to_ascii_lowercase();
        let sample = if name.starts_with("ecg") {
            // Around zero signal; where that is the end of the range, around its middle.
            let zero = if baseline > low && baseline < high { f64::from(baseline) } else { low_end + span / 2.0 };
            zero + self.body.ecg_wave(self.part) * span * 0.4
        } else if name.starts_with("resp") {
            low_end.max(high_end - span) + self.body.breath_wave(self.part) * span * 0.8
        } else {
            low_end.max(0.0) + self.body.pulse_wave(self.part) * span * 0.8
        };
        whole(sample).clamp(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::built_in;

    #[test]
    fn a_calm_patient_beats_about_72_times_a_minute_and_stays_in_range() {
        let mut patient = Patient::new(5, Mono(0));
        let mut lowest_ecg = i32::MAX;
        let mut highest_ecg = i32::MIN;
        for tick in 0..6000_u64 {
            patient.advance(Mono::from_millis(tick * 10));
            let ecg = patient.sample("ecg_II", 128, (1, 249));
            (lowest_ecg, highest_ecg) = (lowest_ecg.min(ecg), highest_ecg.max(ecg));
            assert!((0..=127).contains(&patient.sample("pleth", 0, (0, 127))));
        }
        assert!((66..=78).contains(&patient.beats()), "{}", patient.beats());
        assert!(lowest_ecg < 128 && highest_ecg > 180, "{lowest_ecg} {highest_ecg}");
        let vitals = patient.vitals(&built_in("berry-pm6750").unwrap().unwrap());
        assert_eq!(vitals.len(), 8, "{vitals:?}");
    }

    #[test]
    fn a_machine_that_slept_does_not_make_up_for_it() {
        let mut patient = Patient::new(5, Mono(0));
        patient.advance(Mono::from_millis(3_600_000));
        assert!(patient.beats() < 2);
    }
}
