//! Alerting: rules about readings, links and the bridge, and the life of each alert they make.
//!
//! Pure: [`Engine`] is fed with what happened and when, and answers with the alerts that changed. `docs/alerts.md` is
//! the specification: the table of transitions, the rule file and the default set.

mod change;
pub mod delivery;
mod engine;
mod episode;
pub mod escalation;
mod file;
mod judge;
mod relations;
mod rule;
#[cfg(test)]
mod sample;
mod score;
mod silence;
mod subject;
#[cfg(test)]
mod tests;
pub mod trial;
mod wording;
mod written;

pub use engine::{AlertCommand, CommandRefused, Engine, MAX_BY_BYTES, MAX_DEVICES, MAX_PATIENTS};
pub use file::{MAX_FILE_BYTES, MAX_OVERRIDES, MAX_RULES};
pub(crate) use rule::metric_label;
pub use rule::{Decision, EffectiveLimit, LimitSource, RuleSet};
pub(crate) use written::Time;

use crate::named::named_enum;

named_enum! {
    /// What can be wrong with the bridge itself; a technical rule makes an alert of each.
    BridgeCondition {
        /// Readings cannot be written to the disk; they are kept in memory for a while.
        StorageDegraded = "storage_degraded",
        /// The database was damaged and has been replaced by one with what could be read of it.
        StorageSalvaged = "storage_salvaged",
        /// More than nine tenths of the disk are used.
        DiskFull = "disk_full",
        /// The backend cannot be reached.
        UplinkDown = "uplink_down",
        /// The backend refuses data.
        UplinkRejected = "uplink_rejected",
        /// The backend cannot be reached, and the room for what waits for it ends soon.
        BufferLow = "buffer_low",
        /// The clock has not been synchronised since boot.
        ClockUnsynchronised = "clock_unsynchronised",
        /// The configuration was refused.
        ConfigurationError = "configuration_error",
        /// No annunciator has shown an alert in time.
        AlertUndelivered = "alert_undelivered",
        /// The local fallback for undelivered alerts did not work.
        FallbackFailed = "fallback_failed",
        /// More patients or devices than the engine watches.
        AlertLimit = "alert_limit",
    }
}

impl BridgeCondition {
    /// What a nurse should read.
    pub const fn text(self) -> &'static str {
        match self {
            Self::StorageDegraded => "Readings are not being recorded on disk",
            Self::StorageSalvaged => "The record of readings was damaged: what could be read of it is kept",
            Self::DiskFull => "Disk more than 90 % full",
            Self::UplinkDown => "Backend not reachable",
            Self::UplinkRejected => "Backend refuses data",
            Self::BufferLow => "Room for data that waits for the backend ends soon",
            Self::ClockUnsynchronised => "Clock not synchronised",
            Self::ConfigurationError => "Configuration error",
            Self::AlertUndelivered => "Alert not shown anywhere",
            Self::FallbackFailed => "The local alarm for alerts that nobody sees does not work",
            Self::AlertLimit => "Too many patients or devices: some are not watched",
        }
    }
}
