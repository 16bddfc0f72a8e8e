//! `/api/v1/alerts`: those of now, what became of all of them, and the life of one.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::Given;
use super::readings::after;
use super::{Answer, Viewer, answered, forbidden, unknown, unread};
use crate::event::Event;
use crate::ids::{AlertId, PatientId, Seq};
use crate::server::openapi::forms;
use crate::server::routes::Site;
use crate::wire;

/// Rows of a page where the request does not say.
const PAGE: usize = 100;

/// Most rows of a page.
pub(in crate::server) const MAX_PAGE: usize = 1000;

pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/alerts", get(present))
        .route("/api/v1/alerts/history", get(history))
        .route("/api/v1/alerts/{id}", get(one))
        .with_state(site)
}

/// The alerts that stand.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct AlertsNow {
    /// Each as its latest change left it.
    #[schemars(with = "Vec<forms::AlertState>")]
    alerts: Vec<Box<RawValue>>,
}

/// A page of what became of alerts, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct AlertPage {
    /// Each change as it was pushed.
    #[schemars(with = "Vec<forms::Alert>")]
    rows: Vec<Box<RawValue>>,
    /// The `cursor` of the page after, which is older; `null` at the end.
    next: Option<String>,
}

/// One alert.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct AlertLife {
    /// As its latest change left it.
    #[schemars(with = "forms::AlertState")]
    alert: Box<RawValue>,
    /// Every change since it began, as it was pushed, oldest first.
    #[schemars(with = "Vec<forms::Alert>")]
    life: Vec<Box<RawValue>>,
}

/// The patient that a request names, or `None`, which means everybody.
fn patient_of(viewer: &Viewer, given: &mut Given) -> Answer<Option<PatientId>> {
    let patient: Option<PatientId> = given.parsed("patient", "the id of a patient")?;
    if let Some(patient) = &patient {
        if !viewer.sees_alerts_of(patient) {
            return Err(forbidden());
        }
        if !viewer.shared.patients.iter().any(|known| known.id == *patient) {
            return Err(unknown("unknown_patient", "there is no patient of this name"));
        }
    }
    Ok(patient)
}

async fn present(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let answer = async {
        let viewer = Viewer::of(&site, &headers)?;
        let patient = patient_of(&viewer, &mut Given::of(&uri, &["patient"])?)?;
        let present = viewer.present(&site).await?;
        let wanted = present.iter().map(|it| it.event.as_ref());
        let wanted = wanted.filter(|event| patient.is_none() || event.patient() == patient.as_ref());
        Ok(Json(AlertsNow { alerts: wanted.filter_map(wire::alert).collect() }))
    };
    answered(answer.await)
}

async fn history(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let answer = async {
        let viewer = Viewer::of(&site, &headers)?;
        let mut given = Given::of(&uri, &["patient", "from", "to", "limit", "cursor"])?;
        let patient = patient_of(&viewer, &mut given)?;
        let (from, to) = (given.time("from")?, given.time("to")?);
        let limit = given.number("limit", MAX_PAGE)?.unwrap_or(PAGE);
        let before = match given.cursor("cursor")? {
            Some((epoch, seq)) => after(&site, &epoch, seq).await?,
            None => Seq(u64::MAX),
        };
        let wants = move |event: &Event| {
            patient.as_ref().is_none_or(|patient| event.patient() == Some(patient))
                && from.is_none_or(|from| from <= event.at.wall)
                && to.is_none_or(|to| event.at.wall < to)
                && viewer.sees(event)
        };
        let found = site.gate.reader.alerts(before, limit, wants).await;
        let (events, scanned) = found.map_err(|error| unread(&error))?;
        let next = scanned.next.map(|(epoch, seq)| format!("{epoch}:{seq}"));
        Ok(Json(AlertPage { rows: events.iter().filter_map(written).collect(), next }))
    };
    answered(answer.await)
}

async fn one(State(site): State<Site>, headers: HeaderMap, Path(alert): Path<String>) -> Response {
    // One that may not be seen is as one that does not exist.
    let none = || unknown("unknown_alert", "there is no alert of this id, or none that your token shows");
    let answer = async || -> Answer<_> {
        let viewer = Viewer::of(&site, &headers)?;
        let id = alert.parse().map(AlertId).map_err(|_| none())?;
        let mut life = site.gate.reader.alert_life(id).await.map_err(|error| unread(&error))?;
        // A change that is not on disk yet.
        let present = viewer.present(&site).await?;
        let newest = life.last().map_or(Seq::ZERO, |event| event.seq);
        let of_it = |event: &Event| matches!(&event.body, crate::event::EventBody::Alert(it) if it.alert == id);
        let newer = present.iter().filter(|it| it.event.seq > newest && of_it(&it.event));
        life.extend(newer.map(|it| it.event.as_ref().clone()));
        let Some(last) = life.last().filter(|last| viewer.sees(last)) else { return Err(none()) };
        let alert = wire::alert(last).ok_or_else(none)?;
        Ok(Json(AlertLife { alert, life: life.iter().filter_map(written).collect() }))
    };
    answered(answer().await)
}

/// A change as it was pushed.
fn written(event: &Event) -> Option<Box<RawValue>> {
    RawValue::from_string(wire::push(event).ok()?).ok()
}
