//! A seeded model of one patient: heart, breathing, oxygen, pressure and temperature that move together.
//!
//! It is for demonstrations and tests, not for medicine. What it keeps true: the heart speeds up while breathing in
//! (respiratory sinus arrhythmia); when breathing fails, the lungs' oxygen runs down first, the finger shows it some
//! twenty to forty seconds later, and the heart answers the lack of oxygen; pressure follows the heart.

use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::time::Duration;

/// The model moves in steps of this length.
pub const STEP: Duration = Duration::from_millis(100);
/// [`STEP`] in seconds.
const STEP_S: f64 = 0.1;

/// From the lungs to the finger, in steps: twelve seconds.
const CIRCULATION_STEPS: usize = 120;
/// How long an oximeter averages, in seconds.
const OXIMETER_AVERAGE_S: f64 = 4.0;
/// Oxygen pressure of blood that returns to lungs that do not breathe, in mmHg.
const VENOUS_PO2: f64 = 40.0;
/// How fast the lungs run empty, in seconds.
const LUNG_EMPTYING_S: f64 = 15.0;
/// How fast the lungs fill again, in seconds.
const LUNG_FILLING_S: f64 = 6.0;
/// How fast the heart answers, in seconds.
const HEART_ANSWER_S: f64 = 8.0;
/// Rise of the heart rate for each percent of saturation below [`HYPOXIA_FROM`], in 1/min.
const HYPOXIA_RISE: f64 = 2.2;
/// Saturation below which the heart speeds up, in percent.
const HYPOXIA_FROM: f64 = 95.0;
/// How far breathing moves the heart rate, in 1/min.
const SINUS_ARRHYTHMIA: f64 = 3.0;
/// Beats kept until somebody takes them; the oldest go first.
const MAX_BEATS: usize = 32;
/// Beats over which a strap averages the heart rate.
const AVERAGED_BEATS: usize = 5;

/// How a patient is while nothing happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baseline {
    /// 1/min.
    pub heart_rate: f64,
    /// 1/min.
    pub respiratory_rate: f64,
    /// Percent.
    pub spo2: f64,
    /// mmHg.
    pub systolic: f64,
    /// mmHg.
    pub diastolic: f64,
    /// °C.
    pub temperature: f64,
    /// Strength of the pulse at the finger, percent.
    pub perfusion: f64,
}

/// What happens to the patient during a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strain {
    /// How much of the usual breath reaches the lungs: 1 all of it, 0 none.
    pub ventilation: f64,
    /// How much faster the heart wants to beat, in 1/min.
    pub heart_rate_rise: f64,
}

impl Strain {
    /// Nothing happens.
    pub const NONE: Self = Self { ventilation: 1.0, heart_rate_rise: 0.0 };
}

/// One cuff measurement, in mmHg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CuffPressure {
    /// The highest pressure in a beat.
    pub systolic: f64,
    /// The lowest pressure in a beat.
    pub diastolic: f64,
    /// The mean over a beat.
    pub mean: f64,
}

/// A random walk that is pulled back to zero (Ornstein-Uhlenbeck), so that values drift and never leave.
#[derive(Debug, Clone)]
struct Drift {
    value: f64,
    pull: f64,
    kick: f64,
}

impl Drift {
    /// `spread` is the standard deviation it settles to, `memory_s` how long it remembers.
    fn new(spread: f64, memory_s: f64, random: &mut fastrand::Rng) -> Self {
        let pull = STEP_S / memory_s;
        Self { value: spread * bell(random), pull, kick: spread * (2.0 * pull).sqrt() }
    }

    fn step(&mut self, random: &mut fastrand::Rng) {
        self.value += self.kick * bell(random) - self.pull * self.value;
    }
}

/// A number with mean 0 and standard deviation 1, never beyond ±3.5: the sum of four uniform ones.
fn bell(random: &mut fastrand::Rng) -> f64 {
    let sum: f64 = (0..4).map(|_| random.f64()).sum();
    (sum - 2.0) * 3.0_f64.sqrt()
}

/// Saturation in percent at an oxygen pressure in mmHg (Severinghaus 1979).
fn saturation(po2: f64) -> f64 {
    100.0 / (23_400.0 / (po2.powi(3) + 150.0 * po2) + 1.0)
}

/// The oxygen pressure in mmHg that gives a saturation in percent, by halving.
fn oxygen_pressure(percent: f64) -> f64 {
    let (mut low, mut high) = (10.0, 300.0);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if saturation(middle) < percent {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// One patient at one moment.
#[derive(Debug, Clone)]
pub struct Body {
    baseline: Baseline,
    random: fastrand::Rng,
    heart_drift: Drift,
    breath_drift: Drift,
    pressure_drift: Drift,
    temperature_drift: Drift,
    perfusion_drift: Drift,
    /// Oxygen pressure in the lungs, in mmHg, and the one that full breathing gives.
    lung_po2: f64,
    full_po2: f64,
    /// Saturation on its way from the lungs to the finger, oldest first.
    under_way: VecDeque<f64>,
    spo2: f64,
    /// Breaths so far, with a fraction.
    breath_phase: f64,
    breath_rate: f64,
    /// Part of the current heart beat that is over, 0..1, and how fast it goes, in beats a second.
    beat_phase: f64,
    beat_speed: f64,
    /// How much faster the heart beats than it would, in 1/min.
    drive: f64,
    /// Since the last beat, in seconds.
    since_beat: f64,
    beats: VecDeque<u16>,
    recent: VecDeque<f64>,
}

impl Body {
    /// A patient at rest. The same seed gives the same life.
    pub fn new(baseline: Baseline, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let full_po2 = oxygen_pressure(baseline.spo2);
        Self {
            baseline,
            heart_drift: Drift::new(1.5, 120.0, &mut random),
            breath_drift: Drift::new(0.8, 90.0, &mut random),
            pressure_drift: Drift::new(4.0, 300.0, &mut random),
            temperature_drift: Drift::new(0.1, 1800.0, &mut random),
            perfusion_drift: Drift::new(0.1, 60.0, &mut random),
            lung_po2: full_po2,
            full_po2,
            under_way: std::iter::repeat_n(baseline.spo2, CIRCULATION_STEPS).collect(),
            spo2: baseline.spo2,
            breath_phase: random.f64(),
            breath_rate: baseline.respiratory_rate,
            beat_phase: random.f64(),
            beat_speed: baseline.heart_rate / 60.0,
            drive: 0.0,
            since_beat: 0.0,
            beats: VecDeque::new(),
            recent: std::iter::repeat_n(60.0 / baseline.heart_rate, AVERAGED_BEATS).collect(),
            random,
        }
    }

    /// Lets [`STEP`] pass.
    pub fn step(&mut self, strain: Strain) {
        for drift in [
            &mut self.heart_drift,
            &mut self.breath_drift,
            &mut self.pressure_drift,
            &mut self.temperature_drift,
            &mut self.perfusion_drift,
        ] {
            drift.step(&mut self.random);
        }
        self.breathe(strain.ventilation);
        let arterial = saturation(self.lung_po2);
        self.carry_oxygen(arterial);
        let hypoxia = (HYPOXIA_FROM - arterial).clamp(0.0, 20.0) * HYPOXIA_RISE;
        self.drive += (strain.heart_rate_rise + hypoxia - self.drive) * STEP_S / HEART_ANSWER_S;
        self.beat();
    }

    fn breathe(&mut self, ventilation: f64) {
        // Failing breath is both slower and shallower: the square root is the share of the rate.
        let rate = (self.baseline.respiratory_rate + self.breath_drift.value) * ventilation.sqrt();
        self.breath_rate += (rate - self.breath_rate) * STEP_S / 3.0;
        self.breath_phase = (self.breath_phase + self.breath_rate / 60.0 * STEP_S).fract();
        let target = VENOUS_PO2 + ventilation * (self.full_po2 - VENOUS_PO2);
        let time = if target < self.lung_po2 { LUNG_EMPTYING_S } else { LUNG_FILLING_S };
        self.lung_po2 += (target - self.lung_po2) * STEP_S / time;
    }

    fn carry_oxygen(&mut self, arterial: f64) {
        self.under_way.push_back(arterial);
        if let Some(arrived) = self.under_way.pop_front() {
            self.spo2 += (arrived - self.spo2) * STEP_S / OXIMETER_AVERAGE_S;
        }
    }

    fn beat(&mut self) {
        let arrhythmia = SINUS_ARRHYTHMIA * (TAU * self.breath_phase).sin();
        let rate = self.baseline.heart_rate + self.heart_drift.value + self.drive + arrhythmia;
        self.beat_speed = rate.clamp(30.0, 220.0) / 60.0;
        let phase = self.beat_phase + self.beat_speed * STEP_S;
        if phase < 1.0 {
            self.beat_phase = phase;
            self.since_beat += STEP_S;
            return;
        }
        // At 220/min a beat takes 0.27 s: there is at most one in a step.
        self.beat_phase = phase - 1.0;
        let after = self.beat_phase / self.beat_speed;
        let interval = self.since_beat + STEP_S - after;
        self.since_beat = after;
        self.recent.push_back(interval);
        self.recent.pop_front();
        self.beats.push_back(u16::try_from(whole(interval * 1024.0)).unwrap_or(u16::MAX));
        if self.beats.len() > MAX_BEATS {
            self.beats.pop_front();
        }
    }

    /// Mean heart rate over the last beats, in 1/min.
    pub fn heart_rate(&self) -> f64 {
        let (sum, count) = self.recent.iter().fold((0.0, 0.0), |(sum, count), beat| (sum + beat, count + 1.0));
        60.0 * count / sum
    }

    /// Times between the beats since the last call, in 1/1024 s, oldest first; at most 32.
    pub fn take_beats(&mut self) -> Vec<u16> {
        self.beats.drain(..).collect()
    }

    /// Saturation at the finger, in percent.
    pub const fn spo2(&self) -> f64 {
        self.spo2
    }

    /// Breaths in a minute.
    pub const fn respiratory_rate(&self) -> f64 {
        self.breath_rate
    }

    /// What a cuff would measure now.
    pub fn pressure(&self) -> CuffPressure {
        let systolic = self.baseline.systolic + self.pressure_drift.value + 0.4 * self.drive;
        let diastolic = self.baseline.diastolic + 0.6 * self.pressure_drift.value + 0.2 * self.drive;
        CuffPressure { systolic, diastolic, mean: diastolic + (systolic - diastolic) / 3.0 }
    }

    /// Body temperature in °C.
    pub const fn temperature(&self) -> f64 {
        self.baseline.temperature + self.temperature_drift.value
    }

    /// Strength of the pulse at the finger, in percent.
    pub fn perfusion(&self) -> f64 {
        (self.baseline.perfusion * (1.0 + self.perfusion_drift.value)).clamp(0.2, 20.0)
    }

    /// Height of the pulse wave, 0..1, at a part (0..1) of the step that comes next.
    pub fn pulse_wave(&self, part: f64) -> f64 {
        let phase = (self.beat_phase + self.beat_speed * STEP_S * part).fract();
        let hump = |at: f64, width: f64| (-((phase - at) / width).powi(2)).exp();
        // The systolic peak and the smaller one behind the notch; breathing lifts the whole.
        let breath = 0.05 * (TAU * self.breath_phase).sin();
        (0.1 + 0.8 * hump(0.25, 0.12) + 0.3 * hump(0.55, 0.12) + breath).clamp(0.0, 1.0)
    }

    /// Height of the ECG, about -0.2..1, at a part (0..1) of the step that comes next: P, Q, R, S and T.
    pub fn ecg_wave(&self, part: f64) -> f64 {
        let phase = (self.beat_phase + self.beat_speed * STEP_S * part).fract();
        let hump = |at: f64, width: f64| (-((phase - at) / width).powi(2)).exp();
        0.12 * hump(0.84, 0.03) - 0.1 * hump(0.97, 0.01) + hump(0.0, 0.012) + hump(1.0, 0.012)
            - 0.2 * hump(0.035, 0.012)
            + 0.25 * hump(0.28, 0.05)
    }

    /// How full the lungs are, 0..1, at a part (0..1) of the step that comes next.
    pub fn breath_wave(&self, part: f64) -> f64 {
        let phase = self.breath_phase + self.breath_rate / 60.0 * STEP_S * part;
        0.5 + 0.5 * (TAU * phase).sin()
    }

    /// True if a beat begins within a part (`from`..`to`, 0..1) of the step that comes next.
    pub fn beats_within(&self, from: f64, to: f64) -> bool {
        let at = |part: f64| self.beat_phase + self.beat_speed * STEP_S * part;
        at(from) < 1.0 && at(to) >= 1.0
    }
}

/// The nearest whole number.
pub fn whole(value: f64) -> i32 {
    #[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "`as` saturates, NaN becomes 0")]
    let whole = value.round() as i32;
    whole
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::sources::simulator) const ADULT: Baseline = Baseline {
        heart_rate: 72.0,
        respiratory_rate: 15.0,
        spo2: 97.0,
        systolic: 122.0,
        diastolic: 78.0,
        temperature: 36.8,
        perfusion: 4.0,
    };
    const FAILING: Strain = Strain { ventilation: 0.12, heart_rate_rise: 0.0 };

    fn live(body: &mut Body, seconds: u32, strain: Strain) {
        for _ in 0..seconds * 10 {
            body.step(strain);
        }
    }

    #[test]
    fn a_patient_at_rest_stays_within_what_patients_have() {
        for seed in 0..20 {
            let mut body = Body::new(ADULT, seed);
            for second in 0..3600 {
                live(&mut body, 1, Strain::NONE);
                let pressure = body.pressure();
                let context = format!("seed {seed} second {second}: {body:?}");
                assert!((55.0..90.0).contains(&body.heart_rate()), "{context}");
                assert!((95.5..98.5).contains(&body.spo2()), "{context}");
                assert!((10.0..20.0).contains(&body.respiratory_rate()), "{context}");
                assert!((95.0..150.0).contains(&pressure.systolic), "{context}");
                assert!(pressure.diastolic < pressure.mean && pressure.mean < pressure.systolic, "{context}");
                assert!((36.2..37.4).contains(&body.temperature()), "{context}");
                assert!((0.0..=1.0).contains(&body.pulse_wave(0.5)), "{context}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_life_and_another_seed_another() {
        let life = |seed| {
            let mut body = Body::new(ADULT, seed);
            live(&mut body, 300, Strain::NONE);
            (body.take_beats(), body.spo2().to_bits(), body.temperature().to_bits())
        };
        assert_eq!(life(1), life(1));
        assert_ne!(life(1), life(2));
    }

    #[test]
    fn saturation_falls_twenty_to_forty_seconds_after_breathing_fails_and_the_heart_answers() {
        for seed in 0..20 {
            let mut body = Body::new(ADULT, seed);
            live(&mut body, 60, Strain::NONE);
            let heart_before = body.heart_rate();
            let mut fell_after = None;
            for second in 1..=100 {
                live(&mut body, 1, FAILING);
                if body.spo2() < 90.0 {
                    fell_after.get_or_insert(second);
                }
            }
            assert!((20..=40).contains(&fell_after.unwrap()), "seed {seed}: {fell_after:?}");
            assert!((80.0..84.0).contains(&body.spo2()), "seed {seed}: {}", body.spo2());
            assert!(body.heart_rate() > heart_before + 15.0, "seed {seed}: {heart_before} {}", body.heart_rate());
            assert!(body.respiratory_rate() < 8.0, "seed {seed}");
            live(&mut body, 60, Strain::NONE);
            assert!(body.spo2() > 95.0, "seed {seed}: {}", body.spo2());
        }
    }

    #[test]
    fn pressure_rises_with_a_racing_heart() {
        let mut body = Body::new(ADULT, 5);
        let before = body.pressure().systolic;
        live(&mut body, 60, Strain { ventilation: 1.0, heart_rate_rise: 70.0 });
        assert!(body.heart_rate() > 125.0, "{}", body.heart_rate());
        assert!(body.pressure().systolic > before + 10.0);
    }

    #[test]
    fn the_beats_add_up_to_the_time_that_passed_and_vary_with_the_breath() {
        let mut body = Body::new(ADULT, 3);
        live(&mut body, 5, Strain::NONE);
        body.take_beats();
        let (mut total, mut intervals) = (0_u32, Vec::new());
        for _ in 0..60 {
            live(&mut body, 1, Strain::NONE);
            intervals.extend(body.take_beats());
        }
        total += intervals.iter().map(|raw| u32::from(*raw)).sum::<u32>();
        assert!((59 * 1024..61 * 1024).contains(&total), "{total}");
        let spread = intervals.iter().max().unwrap() - intervals.iter().min().unwrap();
        assert!(spread > 40, "no sinus arrhythmia: {intervals:?}");
    }
}
