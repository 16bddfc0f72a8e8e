//! What `birth` says of a bridge, as it stands in the message.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use crate::timeline::ClockState;

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
    pub devices: Option<Json>,
    /// The limits in force of each patient; null if they are unknown or did not fit.
    pub thresholds: Option<Json>,
    /// What did not fit into a packet of the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<&'static str>>,
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
