//! `/api/v1/devices`: each source and its device, with the state it is in.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::Given;
use super::{Answer, Viewer, answered, forbidden, unknown};
use crate::event::EventBody;
use crate::ids::{DeviceId, PatientId};
use crate::server::openapi::forms;
use crate::server::routes::Site;
use crate::wire;

pub(super) fn router(site: Site) -> Router {
    Router::new().route("/api/v1/devices", get(all)).route("/api/v1/devices/{id}", get(one)).with_state(site)
}

/// The sources and their devices.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct DevicesNow {
    /// By source.
    #[schemars(with = "Vec<forms::StateOfDevice>")]
    devices: Vec<Box<RawValue>>,
}

/// A device as each of its sources has it.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct DeviceNow {
    /// The device.
    device_id: String,
    /// Its state at each source that reads it.
    #[schemars(with = "Vec<forms::StateOfDevice>")]
    sources: Vec<Box<RawValue>>,
}

async fn all(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let list = async {
        let viewer = Viewer::of(&site, &headers)?;
        let mut given = Given::of(&uri, &["patient"])?;
        let patient: Option<PatientId> = given.parsed("patient", "the id of a patient")?;
        if let Some(patient) = &patient {
            viewer.patient(patient)?;
        }
        let present = viewer.present(&site).await?;
        let wanted = present.iter().map(|it| it.event.as_ref());
        let wanted = wanted.filter(|event| patient.is_none() || event.patient() == patient.as_ref());
        Ok(Json(DevicesNow { devices: wanted.filter_map(wire::device).collect() }))
    };
    answered(list.await)
}

async fn one(State(site): State<Site>, headers: HeaderMap, Path(device): Path<String>) -> Response {
    let find = async || -> Answer<_> {
        let viewer = Viewer::of(&site, &headers)?;
        let present = viewer.present(&site).await?;
        let is_meant = |body: &EventBody| matches!(body, EventBody::Source(source) if source.device.as_str() == device);
        let meant = present.iter().filter(|it| is_meant(&it.event.body));
        let sources: Vec<Box<RawValue>> = meant.filter_map(|it| wire::device(&it.event)).collect();
        if !sources.is_empty() {
            return Ok(Json(DeviceNow { device_id: device.clone(), sources }));
        }
        // Who may see the device is told that there is none; who may not, is not told either way.
        let channel =
            device.parse::<DeviceId>().map_or("device/-/status".to_owned(), |id| format!("device/{id}/status"));
        let may_know = channel.parse().is_ok_and(|pattern| viewer.scope.overlaps(&pattern));
        Err(if may_know { unknown("unknown_device", "no source reads a device of this name") } else { forbidden() })
    };
    answered(find().await)
}
