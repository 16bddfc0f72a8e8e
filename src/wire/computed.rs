//! The JSON of what the bridge computes from several readings: an early warning score and a variability.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ids::DeviceId;
use crate::vitals::{
    Decimal, EarlyWarning, Finding, Metric, Parameter, Risk, ScoreInput, Spo2Scale, Variability, Vital,
};

/// The members that only a computed reading has.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(super) struct Computed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    news2: Option<EarlyWarningData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variability: Option<Spread>,
}

impl<'a> Computed<'a> {
    /// Those of a vital.
    pub(super) fn of(vital: &'a Vital) -> Self {
        match vital {
            Vital::News2(score) => Self { news2: Some(EarlyWarningData::new(score)), variability: None },
            Vital::Variability(found) => Self { news2: None, variability: Some(Spread::new(found)) },
            _ => Self::default(),
        }
    }
}

/// The metrics from which a reading was computed.
pub(super) fn sources(vital: &Vital) -> Vec<Metric> {
    match vital {
        Vital::News2(score) => score.inputs.iter().filter_map(|input| input.metric).collect(),
        _ => vec![Metric::RrInterval],
    }
}

/// An early warning score and what it is made of.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct EarlyWarningData<'a> {
    score_min: u8,
    score_max: u8,
    complete: bool,
    /// The risk, if what is missing cannot change it.
    band: Option<Risk>,
    band_min: Risk,
    single_3: bool,
    spo2_scale: u8,
    missing: &'a [Parameter],
    inputs: Vec<Input<'a>>,
}

impl<'a> EarlyWarningData<'a> {
    fn new(score: &'a EarlyWarning) -> Self {
        Self {
            score_min: score.score_min,
            score_max: score.score_max,
            complete: score.is_complete(),
            band: score.risk(),
            band_min: score.risk_min(),
            single_3: score.single_min >= 3,
            spo2_scale: match score.scale {
                Spo2Scale::One => 1,
                Spo2Scale::Two => 2,
            },
            missing: &score.missing,
            inputs: score.inputs.iter().map(Input::new).collect(),
        }
    }
}

/// A number as it was measured, or the word that a person entered.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
enum Shown {
    Number(Decimal),
    Word(#[schemars(extend("enum" = ["air", "oxygen", "A", "C", "V", "P", "U"]))] &'static str),
}

/// One known parameter of a score.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Input<'a> {
    parameter: Parameter,
    value: Shown,
    points: u8,
    age_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<Metric>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DeviceId>")]
    device_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
}

impl<'a> Input<'a> {
    fn new(input: &'a ScoreInput) -> Self {
        Self {
            parameter: input.parameter,
            value: match input.value {
                Finding::Number(number) => Shown::Number(number),
                Finding::Breathing(breathing) => Shown::Word(breathing.name()),
                Finding::Consciousness(level) => Shown::Word(level.name()),
            },
            points: input.points,
            age_ms: input.age_ms,
            metric: input.metric,
            device_id: input.device.as_ref().map(crate::ids::DeviceId::as_str),
            by: input.by.as_deref(),
        }
    }
}

/// The spread of the times between beats.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Spread {
    sdnn: Decimal,
    rmssd: Decimal,
    pnn50: Decimal,
    n: u32,
    rejected: u32,
}

impl Spread {
    const fn new(found: &Variability) -> Self {
        Self { sdnn: found.sdnn, rmssd: found.rmssd, pnn50: found.pnn50, n: found.n, rejected: found.rejected }
    }
}
