//! HTTP for the audit trail: who did what, the newest first, page by page.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tracing::warn;

use super::routes::{Site, failure, reading};
use crate::channel::{Operation, routes};
use crate::event::Event;
use crate::hub::Scope;
use crate::ids::{PatientId, Seq};
use crate::wire;

/// Rows of a page where the request does not say.
const PAGE: usize = 100;

/// Most rows of a page.
const MAX_PAGE: usize = 500;

/// `GET /api/v1/audit`.
pub(super) fn router(site: Site) -> Router {
    Router::new().route("/api/v1/audit", get(page)).with_state(site)
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Rows before this number: the `next` of the page before.
    before: Option<u64>,
    /// At most this many.
    limit: Option<usize>,
    /// Rows about this patient alone.
    patient: Option<String>,
}

async fn page(State(site): State<Site>, headers: HeaderMap, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    let rights = match reading(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(Query(Wanted { before, limit, patient })) = wanted else {
        return failure(StatusCode::BAD_REQUEST, "validation", "`before` and `limit` are numbers, `patient` an id");
    };
    let Ok(patient) = patient.map(|text| text.parse::<PatientId>()).transpose() else {
        return failure(StatusCode::BAD_REQUEST, "validation", "`patient` is not the id of a patient");
    };
    let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let before = before.map_or(Seq(u64::MAX), Seq);
    let rows = match site.gate.reader.audit(before, limit).await {
        Ok(rows) => rows,
        Err(error) => {
            warn!(%error, "the audit trail cannot be read");
            return failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the audit trail cannot be read now");
        }
    };
    // A full page may have older rows behind it, also where this user may see none of it.
    let next = rows.last().filter(|_| rows.len() == limit).map(|last| last.seq);
    let scope = rights.scope(Operation::History);
    let wanted = |event: &&Event| patient.as_ref().is_none_or(|patient| event.patient() == Some(patient));
    let shown: Vec<Box<RawValue>> =
        rows.iter().filter(wanted).filter(|event| may_see(&site, &scope, event)).filter_map(written).collect();
    axum::Json(json!({"rows": shown, "next": next})).into_response()
}

fn may_see(site: &Site, scope: &Scope, event: &Event) -> bool {
    scope.allows(&routes(event, site.gate.shared.ward_of(event)))
}

/// A row as it is pushed.
fn written(event: &Event) -> Option<Box<RawValue>> {
    RawValue::from_string(wire::push(event).ok()?).ok()
}
