//! From what age a continuous number is drawn as old, and from what age it is none, as the silence rules have it for each patient.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ids::PatientId;
use crate::vitals::Metric;

/// When continuous numbers turn grey, and when they are no longer shown, which is when their silence rule alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalTimes {
    /// The shortest of all, in ms: of every number that `others` does not name.
    pub stale_after_ms: u64,
    /// The same for the age from which there is no number.
    pub lost_after_ms: u64,
    /// Numbers that have other times.
    pub others: Vec<OwnTimes>,
}

/// Without a rule that says it.
impl Default for SignalTimes {
    fn default() -> Self {
        Self { stale_after_ms: 5000, lost_after_ms: 10_000, others: Vec::new() }
    }
}

/// Times of some numbers of one patient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SignalTimes")]
pub struct OwnTimes {
    /// Whose.
    pub patient_id: PatientId,
    /// Which.
    pub metrics: Vec<Metric>,
    /// From this age on they are drawn as old, in ms.
    pub stale_after_ms: u64,
    /// From this age on they are not shown any more, in ms.
    pub lost_after_ms: u64,
}
