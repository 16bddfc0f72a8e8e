//! What the bridge computes from several measurements, as it is published: an early warning score, and the variability
//! of the heart rate.

use serde::{Deserialize, Serialize};

use super::{Absent, Decimal, Metric, Value};
use crate::ids::DeviceId;
use crate::named::named_enum;

named_enum! {
    /// One of the seven parameters of the National Early Warning Score 2.
    Parameter {
        /// Breaths a minute.
        Respiration = "respiratory_rate",
        /// Oxygen saturation.
        Spo2 = "spo2",
        /// Air or oxygen.
        Oxygen = "oxygen",
        /// Systolic pressure.
        Systolic = "systolic",
        /// Pulse.
        Pulse = "pulse",
        /// Level of consciousness.
        Consciousness = "consciousness",
        /// Temperature.
        Temperature = "temperature",
    }
}

named_enum! {
    /// Level of consciousness (ACVPU).
    Consciousness {
        /// Alert.
        Alert = "A",
        /// New confusion.
        Confusion = "C",
        /// Responds to voice.
        Voice = "V",
        /// Responds to pain.
        Pain = "P",
        /// Unresponsive.
        Unresponsive = "U",
    }
}

named_enum! {
    /// What a patient breathes.
    Breathing {
        /// Air.
        Air = "air",
        /// Air with oxygen added.
        Oxygen = "oxygen",
    }
}

named_enum! {
    /// Which column of SpO2 holds for a patient.
    Spo2Scale {
        /// For everybody else.
        One = "1",
        /// For confirmed hypercapnic respiratory failure, prescribed by a clinician: target 88 to 92 %.
        Two = "2",
    }
}

named_enum! {
    /// The clinical risk.
    Risk {
        /// 0 to 4.
        Low = "low",
        /// 0 to 4 with a 3 in one parameter: urgent review.
        LowMedium = "low-medium",
        /// 5 or 6.
        Medium = "medium",
        /// 7 and more.
        High = "high",
    }
}

impl Risk {
    /// The risk of a total whose highest single parameter has `single` points.
    pub const fn of(total: u8, single: u8) -> Self {
        match (total, single) {
            (7.., _) => Self::High,
            (5..=6, _) => Self::Medium,
            (_, 3..) => Self::LowMedium,
            _ => Self::Low,
        }
    }
}

/// What is known of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// A measurement, in the unit of its metric.
    Number(#[serde(serialize_with = "super::as_text")] Decimal),
    /// What a person saw being breathed.
    Breathing(Breathing),
    /// What a person found.
    Consciousness(Consciousness),
}

/// One known parameter of a score, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ScoreInput {
    /// Which.
    pub parameter: Parameter,
    /// What is known.
    pub value: Finding,
    /// Its points; those that are certain, where oxygen decides about SpO2 and is unknown.
    pub points: u8,
    /// How old it was when the score was computed.
    pub age_ms: u64,
    /// The metric that was measured; none of what a person entered.
    pub metric: Option<Metric>,
    /// The device that measured it; none of what a person entered.
    pub device: Option<DeviceId>,
    /// Who entered it.
    pub by: Option<String>,
}

/// The National Early Warning Score 2 of a patient at one moment: a range, as long as anything is missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EarlyWarning {
    /// What the known inputs make certain.
    pub score_min: u8,
    /// What it could be.
    pub score_max: u8,
    /// The highest points of one parameter, for certain.
    pub single_min: u8,
    /// The highest points that one parameter could have.
    pub single_max: u8,
    /// Which column of SpO2 counted.
    pub scale: Spo2Scale,
    /// What is known.
    pub inputs: Vec<ScoreInput>,
    /// What is not.
    pub missing: Vec<Parameter>,
}

impl EarlyWarning {
    /// True if nothing is missing: `score_min` is the score.
    pub const fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The score, if it is known.
    pub fn value(&self) -> Value {
        if self.is_complete() {
            Value::Valid(Decimal::integer(i32::from(self.score_min)))
        } else {
            Value::Absent(Absent::InputsMissing)
        }
    }

    /// The least risk there is.
    pub const fn risk_min(&self) -> Risk {
        Risk::of(self.score_min, self.single_min)
    }

    /// The risk, if what is missing cannot change it. A low one is never certain while something is missing.
    pub fn risk(&self) -> Option<Risk> {
        let most = Risk::of(self.score_max, self.single_max);
        (self.risk_min() == most).then_some(most)
    }
}

/// Variability of the heart rate over five minutes (Task Force of ESC and NASPE, 1996).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Variability {
    /// Intervals that were kept.
    pub n: u32,
    /// Intervals that were artefacts.
    pub rejected: u32,
    /// Standard deviation of the intervals (n - 1), in ms.
    #[serde(serialize_with = "super::as_text")]
    pub sdnn: Decimal,
    /// Root mean square of successive differences, in ms.
    #[serde(serialize_with = "super::as_text")]
    pub rmssd: Decimal,
    /// Differences of more than 50 ms, in % of all.
    #[serde(serialize_with = "super::as_text")]
    pub pnn50: Decimal,
}
