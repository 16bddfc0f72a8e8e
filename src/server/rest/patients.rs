//! `/api/v1/patients`: who lies where, as far as the token shows it.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;

use super::query::Given;
use super::{Answer, Viewer, answered, forbidden, unknown};
use crate::ids::PatientId;
use crate::patient::Patient;
use crate::server::routes::Site;

pub(super) fn router(site: Site) -> Router {
    Router::new().route("/api/v1/patients", get(all)).route("/api/v1/patients/{id}", get(one)).with_state(site)
}

/// A patient.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct ShownPatient {
    /// The identifier in every message.
    id: String,
    /// What people read.
    name: String,
    /// The bed, as people name it.
    bed: String,
    /// The ward.
    ward: String,
    /// `real`, `demo` or `test`: the mode of all the patient's sources.
    mode: &'static str,
}

impl From<&Patient> for ShownPatient {
    fn from(patient: &Patient) -> Self {
        Self {
            id: patient.id.to_string(),
            name: patient.name.clone(),
            bed: patient.bed.clone(),
            ward: patient.ward.to_string(),
            mode: patient.mode.name(),
        }
    }
}

/// The patients of whom something may be read.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct Patients {
    /// In the order of the configuration.
    patients: Vec<ShownPatient>,
}

async fn all(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let list = || -> Answer<_> {
        let viewer = Viewer::of(&site, &headers)?;
        Given::of(&uri, &[])?;
        let seen = viewer.shared.patients.iter().filter(|patient| viewer.sees_patient(&patient.id));
        Ok(Json(Patients { patients: seen.map(ShownPatient::from).collect() }))
    };
    answered(list())
}

async fn one(State(site): State<Site>, headers: HeaderMap, Path(patient): Path<String>) -> Response {
    let find = || -> Answer<_> {
        let viewer = Viewer::of(&site, &headers)?;
        let Ok(id) = patient.parse::<PatientId>() else {
            // No patient has such a name; who may see everybody is told so.
            let sees_all = viewer.scope.allows_channel("patient/-/-");
            let none = || unknown("unknown_patient", "there is no patient of this name");
            return Err(if sees_all { none() } else { forbidden() });
        };
        viewer.patient(&id)?;
        let found = viewer.shared.patients.iter().find(|patient| patient.id == id);
        found.map(|patient| Json(ShownPatient::from(patient))).ok_or_else(forbidden)
    };
    answered(find())
}
