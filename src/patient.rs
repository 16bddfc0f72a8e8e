//! Who lies where: what a dashboard shows beside a patient's numbers.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ids::{PatientId, WardId};
use crate::vitals::Mode;

/// A patient as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Patient {
    /// The identifier in every message.
    pub id: PatientId,
    /// What people read; the identifier where nothing else is configured.
    pub name: String,
    /// The bed, as people name it.
    pub bed: String,
    /// The ward.
    pub ward: WardId,
    /// Real, demo or test: the mode of all the patient's sources.
    pub mode: Mode,
}
