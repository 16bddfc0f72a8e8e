//! `/api/v1/system`: the bridge itself, as everybody may know it who may read the channel `system`.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;

use super::query::Given;
use super::{Answer, Viewer, answered, forbidden};
use crate::server::auth::Role;
use crate::server::routes::Site;
use crate::wire::{StorageNow, UplinkNow, shape};

/// The channel whose readers may know this.
const CHANNEL: &str = "system";

pub(super) fn router(site: Site) -> Router {
    Router::new().route("/api/v1/system", get(now)).with_state(site)
}

/// The bridge as it is now. There is nothing of a patient in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct SystemNow {
    /// The version of the program.
    version: &'static str,
    /// The name of this run.
    epoch: String,
    /// The time of the bridge.
    #[schemars(with = "shape::Timestamp")]
    timestamp: String,
    /// For how many seconds this run has lasted, by a clock that nobody sets.
    uptime_seconds: u64,
    /// The disk and the log; null: not looked at yet.
    storage: Option<StorageNow>,
    /// The connection to the broker; null: none is configured. Its `reason` names addresses, and is null for all but admins.
    uplink: Option<UplinkNow>,
}

async fn now(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let find = || -> Answer<_> {
        let viewer = Viewer::of(&site, &headers)?;
        Given::of(&uri, &[])?;
        if !viewer.scope.allows_channel(CHANNEL) {
            return Err(forbidden());
        }
        let gate = &site.gate;
        let mut uplink = gate.metrics.uplink.borrow().clone();
        if let Some(uplink) = uplink.as_mut().filter(|_| viewer.rights.role != Role::Admin) {
            uplink.reason = None;
        }
        Ok(Json(SystemNow {
            version: env!("CARGO_PKG_VERSION"),
            epoch: viewer.shared.epoch.to_string(),
            timestamp: gate.clock.now().wall.to_string(),
            uptime_seconds: gate.connections.totals().uptime.as_secs(),
            storage: gate.metrics.storage.borrow().clone(),
            uplink,
        }))
    };
    answered(find())
}
