//! One patient's early warning score while measurements come and grow old.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Mono, Stamp, Wall};
use crate::derive::news2::{self, Inputs};
use crate::event::{Entered, ObservationEvent};
use crate::ids::DeviceId;
use crate::vitals::{
    Breathing, Consciousness, Decimal, EarlyWarning, Finding, MDC_PULSE_RATE_CUFF, Metric, Mode, Parameter, Quality,
    Reading, ScoreInput, Spo2Scale, Value, Vital,
};

/// How long a continuous measurement counts. A gap of some seconds (a cough, a cuff on the same arm) is no news about a
/// patient; after a minute nobody knows the present.
pub const CONTINUOUS_LIFE: Duration = Duration::from_mins(1);

/// How long a single measurement counts: of a pressure by cuff, of a device for spot checks such as a thermometer. The
/// score's own chart asks for the next set of measurements after 4 to 6 hours at a total of 1 to 4.
pub const SPOT_LIFE: Duration = Duration::from_hours(6);

/// How long what a person entered counts: a shift. The score's chart asks for a look at every patient twice a day.
pub const ENTRY_LIFE: Duration = Duration::from_hours(12);

/// While inputs change and their points do not, the score is published so often, so that it shows what it rests on.
pub const REFRESH: Duration = Duration::from_mins(1);

/// How a device measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Now and then, whatever it measures.
    Spot,
    /// All the time, whatever it measures.
    Continuous,
    /// Nobody has said: a recording, or the simulator. What it measures tells.
    Unsaid,
}

/// The newest measurement that counts for a parameter.
#[derive(Debug, Clone)]
struct Slot {
    value: Decimal,
    at: Mono,
    life: Duration,
    /// 0: a single measurement. Above: how much better this kind of continuous measurement is than others.
    rank: u8,
    metric: Metric,
    device: DeviceId,
}

impl Slot {
    /// While one device goes on, others of the same kind wait for it: two that differ would take turns. A continuous
    /// measurement is never replaced by a single one while it lives. Of single ones the newest counts.
    fn gives_way_to(&self, new: &Self) -> bool {
        new.rank > self.rank || new.rank == self.rank && (new.rank == 0 || new.device == self.device)
    }
}

/// What makes a score another one: points, not the numbers behind them.
type Gist = (u8, u8, u8, u8, Vec<(Parameter, u8)>, Vec<Parameter>);

/// One patient's score.
#[derive(Debug)]
pub(super) struct LiveScore {
    scale: Spo2Scale,
    /// Of the patient's readings.
    pub(super) mode: Mode,
    slots: BTreeMap<Parameter, Slot>,
    oxygen: Option<Entered<Breathing>>,
    consciousness: Option<Entered<Consciousness>>,
    shown: Option<(Gist, Mono)>,
    /// An input is newer than what was shown.
    is_touched: bool,
}

impl LiveScore {
    pub(super) const fn new(scale: Spo2Scale, mode: Mode) -> Self {
        Self { scale, mode, slots: BTreeMap::new(), oxygen: None, consciousness: None, shown: None, is_touched: false }
    }

    /// Takes a live reading of this patient.
    pub(super) fn take(&mut self, reading: &Reading, manner: Manner, now: Stamp) {
        if let Some((parameter, Value::Absent(_), _)) = measured(reading) {
            return self.lost(parameter, reading);
        }
        if !matches!(reading.quality, Quality::Valid | Quality::Validated) {
            return;
        }
        let Some((parameter, Value::Valid(value), rank)) = measured(reading) else { return };
        let rank = match (manner, reading.vital.metric()) {
            (Manner::Spot, _) => 0,
            // A probe that stays in place, not a thermometer.
            (Manner::Continuous, Metric::Temperature) => 1,
            _ => rank,
        };
        let life = if rank == 0 { SPOT_LIFE } else { CONTINUOUS_LIFE };
        let waited = reading.taken.wall.map_or(0, |taken| reading.received.wall.0.saturating_sub(taken.0));
        let at = reading.received.mono.min(now.mono) - Duration::from_millis(u64::try_from(waited).unwrap_or(0));
        let slot = Slot { value, at, life, rank, metric: reading.vital.metric(), device: reading.device.clone() };
        self.forget(now);
        if self.slots.get(&parameter).is_none_or(|known| known.gives_way_to(&slot)) {
            self.slots.insert(parameter, slot);
            self.mode = reading.mode;
            self.is_touched = true;
        }
    }

    /// A device that measures all the time says that it has no value: what it had is no present one. A single measurement
    /// stands all the same.
    fn lost(&mut self, parameter: Parameter, reading: &Reading) {
        let metric = reading.vital.metric();
        let is_its = |slot: &Slot| slot.rank > 0 && slot.device == reading.device && slot.metric == metric;
        if self.slots.get(&parameter).is_some_and(is_its) {
            self.slots.remove(&parameter);
            self.is_touched = true;
        }
    }

    /// Takes what a person entered: the whole of what holds now.
    pub(super) fn observe(&mut self, observation: &ObservationEvent, now: Stamp) {
        self.oxygen.clone_from(&observation.oxygen);
        self.consciousness.clone_from(&observation.consciousness);
        self.forget(now);
        self.is_touched = true;
    }

    /// The moment at which time alone changes something.
    pub(super) fn due(&self) -> Option<Mono> {
        let Some((_, shown_at)) = &self.shown else { return Some(Mono::default()) };
        let slots = self.slots.values().map(|slot| slot.at + slot.life);
        let oxygen = self.oxygen.as_ref().map(|entry| entry.until_mono);
        let consciousness = self.consciousness.as_ref().map(|entry| entry.until_mono);
        let refresh = self.is_touched.then_some(*shown_at + REFRESH);
        slots.chain(oxygen).chain(consciousness).chain(refresh).min()
    }

    /// The time of day at which the first entry is forgotten, if the clock comes to it earlier than time passes.
    pub(super) fn ends(&self) -> Option<Wall> {
        let oxygen = self.oxygen.as_ref().map(|entry| entry.until);
        oxygen.into_iter().chain(self.consciousness.as_ref().map(|entry| entry.until)).min()
    }

    /// True if time alone, or the wall clock, has changed something.
    pub(super) fn is_due(&self, now: Stamp) -> bool {
        self.due().is_some_and(|due| due <= now.mono) || self.ends().is_some_and(|end| end <= now.wall)
    }

    /// The score, if it is another one than was last shown, or if what it rests on has to be shown anew.
    pub(super) fn news(&mut self, now: Stamp) -> Option<EarlyWarning> {
        self.forget(now);
        let score = self.score(now);
        let points = score.inputs.iter().map(|input| (input.parameter, input.points)).collect();
        let gist =
            (score.score_min, score.score_max, score.single_min, score.single_max, points, score.missing.clone());
        let is_news = self
            .shown
            .as_ref()
            .is_none_or(|(shown, at)| *shown != gist || self.is_touched && now.mono.since(*at) >= REFRESH);
        is_news.then(|| {
            self.shown = Some((gist, now.mono));
            self.is_touched = false;
            score
        })
    }

    /// What is too old is missing.
    fn forget(&mut self, now: Stamp) {
        self.slots.retain(|_, slot| now.mono < slot.at + slot.life);
        self.oxygen = self.oxygen.take().filter(|entry| entry.holds(now));
        self.consciousness = self.consciousness.take().filter(|entry| entry.holds(now));
    }

    fn score(&self, now: Stamp) -> EarlyWarning {
        let number = |parameter| self.slots.get(&parameter).map(|slot| slot.value);
        let known = news2::score(
            &Inputs {
                respiration: number(Parameter::Respiration),
                spo2: number(Parameter::Spo2),
                oxygen: self.oxygen.as_ref().map(|entry| entry.value == Breathing::Oxygen),
                systolic: number(Parameter::Systolic),
                pulse: number(Parameter::Pulse),
                consciousness: self.consciousness.as_ref().map(|entry| entry.value),
                temperature: number(Parameter::Temperature),
            },
            self.scale,
        );
        let inputs = known.points.iter().filter_map(|(parameter, points)| self.input(*parameter, *points, now));
        EarlyWarning {
            inputs: inputs.collect(),
            score_min: known.score_min,
            score_max: known.score_max,
            single_min: known.single_min,
            single_max: known.single_max,
            scale: self.scale,
            missing: known.missing,
        }
    }

    fn input(&self, parameter: Parameter, points: u8, now: Stamp) -> Option<ScoreInput> {
        let entered = |value, by: &str, until: Mono| ScoreInput {
            parameter,
            value,
            points,
            age_ms: u64::try_from(ENTRY_LIFE.saturating_sub(until.since(now.mono)).as_millis()).unwrap_or(0),
            metric: None,
            device: None,
            by: Some(by.to_owned()),
        };
        match parameter {
            Parameter::Oxygen => {
                self.oxygen.as_ref().map(|entry| entered(Finding::Breathing(entry.value), &entry.by, entry.until_mono))
            }
            Parameter::Consciousness => self
                .consciousness
                .as_ref()
                .map(|entry| entered(Finding::Consciousness(entry.value), &entry.by, entry.until_mono)),
            _ => self.slots.get(&parameter).map(|slot| ScoreInput {
                parameter,
                value: Finding::Number(slot.value),
                points,
                age_ms: u64::try_from(now.mono.since(slot.at).as_millis()).unwrap_or(u64::MAX),
                metric: Some(slot.metric),
                device: Some(slot.device.clone()),
                by: None,
            }),
        }
    }
}

/// The parameter that a reading says something about, and how good this way of measuring is; 0 for a single one.
fn measured(reading: &Reading) -> Option<(Parameter, Value, u8)> {
    match &reading.vital {
        Vital::BloodPressure(pressure) => Some((Parameter::Systolic, pressure.systolic, 0)),
        Vital::ArterialPressure(pressure) => Some((Parameter::Systolic, pressure.systolic, 1)),
        Vital::Scalar { metric, value } => {
            let (parameter, rank) = match metric {
                Metric::RespiratoryRate => (Parameter::Respiration, 1),
                Metric::Spo2 => (Parameter::Spo2, 1),
                // The heart's own rate before that of the pulse, as the rules about the heart rate have it.
                Metric::HeartRate => (Parameter::Pulse, 2),
                Metric::PulseRate if reading.mdc == Some(MDC_PULSE_RATE_CUFF) => (Parameter::Pulse, 0),
                Metric::PulseRate => (Parameter::Pulse, 1),
                Metric::Temperature => (Parameter::Temperature, 0),
                _ => return None,
            };
            Some((parameter, *value, rank))
        }
        _ => None,
    }
}
