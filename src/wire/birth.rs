//! What `birth` says of a bridge, as it stands in the message.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::Priority;
use crate::ids::{DeviceId, PatientId, RuleId, SourceId};
use crate::timeline::ClockState;
use crate::vitals::Decimal;

/// The `data` of `birth`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BirthData {
    /// The version of the bridge.
    pub version: &'static str,
    /// The schema of its messages.
    pub schema: &'static str,
    /// The SHA-256 of its configuration.
    pub config_hash: Option<String>,
    /// Its clock.
    pub clock: BirthClock,
    /// Its sources; null if they did not fit.
    pub devices: Option<Vec<KnownDevice>>,
    /// The limits in force of each patient; null if they are unknown or did not fit.
    pub thresholds: Option<Thresholds>,
    /// What did not fit into a packet of the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<&'static str>>,
}

/// A source as a backend sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KnownDevice {
    /// Its name.
    pub source_id: SourceId,
    /// The device at the other end.
    pub device_id: DeviceId,
    /// Whose readings these are, if they are somebody's.
    pub patient_id: Option<PatientId>,
    /// How it is reached.
    #[schemars(extend("enum" = ["ble", "serial", "simulator", "replay", "unusable"]))]
    pub kind: &'static str,
    /// Which profile reads it, if one does.
    pub profile: Option<String>,
    /// Real, demo or test.
    #[schemars(extend("enum" = ["real", "demo", "test"]))]
    pub mode: &'static str,
}

/// The limits in force of each patient.
pub type Thresholds = BTreeMap<PatientId, Vec<Threshold>>;

/// One limit in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Threshold {
    /// The rule.
    pub rule: RuleId,
    /// How urgent.
    pub priority: Priority,
    /// What it looks at (`spo2`, `blood_pressure.systolic`). Empty: every continuous metric, or no metric.
    pub metrics: Vec<String>,
    /// Unit of the limits.
    pub unit: &'static str,
    /// The low limit.
    pub low: Option<Decimal>,
    /// The high limit.
    pub high: Option<Decimal>,
    /// How long it must hold.
    pub delay_ms: u64,
    /// It is switched off for now.
    pub alarm_off: bool,
    /// All of it in words.
    pub summary: String,
}

/// The clock of a bridge.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BirthClock {
    /// Whether it is set; null if nobody knows.
    pub synchronised: Option<bool>,
    /// The same, and from where.
    pub state: ClockState,
    /// Who says so; null if nobody does.
    #[schemars(extend("enum" = ["operating_system", "hardware_clock", "configuration", null]))]
    pub source: Option<&'static str>,
    /// How far it may be off; null if nobody knows.
    pub uncertainty_ms: Option<u32>,
    /// How monotonic time becomes wall time.
    pub epoch: ClockEpoch,
}

/// How the monotonic time of one boot becomes wall time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ClockEpoch {
    /// The boot.
    pub boot: String,
    /// Wall time less monotonic time, in ms.
    pub offset_ms: i64,
}
