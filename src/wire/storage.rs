//! What the bridge says of its disk and of the room of its log, to who asks it.

use schemars::JsonSchema;
use serde::Serialize;

use super::shape;

/// The disk of the state directory, and the log on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct StorageNow {
    /// When it was looked at: once a minute.
    #[schemars(with = "shape::Timestamp")]
    pub at: String,
    /// The file system of the state directory; null: it cannot be asked.
    pub disk: Option<DiskNow>,
    /// The log of events; null: it cannot be asked.
    pub log: Option<LogNow>,
}

/// A file system, as `df` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DiskNow {
    /// Bytes that hold something.
    pub used_bytes: u64,
    /// Bytes that the bridge can still write.
    pub available_bytes: u64,
    /// Used of both together, in percent, rounded up.
    pub used_percent: u8,
}

/// The log of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogNow {
    /// Bytes of it that hold something.
    pub used_bytes: u64,
    /// Most bytes that it may use.
    pub max_bytes: u64,
    /// In how many seconds it is full, at the pace of lately: from then on the oldest readings make room for new ones; 0: they
    /// do already. Null: unknown, as in the first minute of a run.
    pub full_in_seconds: Option<u64>,
}
