//! `/api/v1/readings`: what was measured in a span of time, row by row or in buckets, and the latest of everything.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::query::{BadQuery, Given};
use super::summary::{self, Width};
use super::{Answer, Viewer, answered, unread};
use crate::clock::Wall;
use crate::event::{Event, EventBody};
use crate::ids::{DeviceId, Epoch, PatientId, Seq};
use crate::server::openapi::forms;
use crate::server::routes::Site;
use crate::signal_times::{OwnTimes, SignalTimes};
use crate::store::{ResumePoint, Scan, StreamInfo};
use crate::vitals::Metric;
use crate::wire;

/// Rows of a page where the request does not say.
const PAGE: usize = 1000;

/// Most rows of a page.
pub(in crate::server) const MAX_PAGE: usize = 5000;

/// Most points of one stream.
pub(in crate::server) const MAX_POINTS: usize = 10_000;

/// The parameters that choose readings.
const CHOICE: [&str; 5] = ["patient", "device", "metric", "from", "to"];

pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/readings", get(readings))
        .route("/api/v1/readings/latest", get(latest))
        .with_state(site)
}

/// A page of readings in the order in which they came.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct ReadingPage {
    /// Each as it was pushed.
    #[schemars(with = "Vec<forms::HealthUpdate>")]
    rows: Vec<Box<RawValue>>,
    /// The `cursor` of the page after; `null` at the end. What is stored later comes after it.
    next: Option<String>,
}

/// What `/api/v1/readings` answers.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "it describes the answers, which are made one by one")]
pub(in crate::server) enum ReadingsAnswer {
    /// Without `every` and `max_points`.
    Rows(ReadingPage),
    /// With `every`.
    Buckets(summary::BucketPage),
    /// With `max_points`.
    Points(summary::PointPage),
}

/// The latest reading of each stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct LatestReadings {
    /// With their age.
    #[schemars(with = "Vec<forms::LatestReading>")]
    readings: Vec<Box<RawValue>>,
    /// From this age on a continuous number is drawn as old, if `signal_times` does not say otherwise.
    stale_after_ms: u64,
    /// From this age on it is not shown any more.
    lost_after_ms: u64,
    /// The numbers that have other times, all of them longer.
    signal_times: Vec<OwnTimes>,
}

/// Which readings somebody wants, and may have.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    viewer: Viewer,
    patient: Option<PatientId>,
    device: Option<DeviceId>,
    metrics: Option<Vec<Metric>>,
    pub(super) from: Option<Wall>,
    pub(super) to: Option<Wall>,
}

impl Choice {
    /// Reads the parameters of a choice. A patient of whom nothing may be read is refused.
    pub(super) fn read(viewer: Viewer, given: &mut Given) -> Answer<Self> {
        let patient: Option<PatientId> = given.parsed("patient", "the id of a patient")?;
        if let Some(patient) = &patient {
            viewer.patient(patient)?;
        }
        let device = given.parsed("device", "the id of a device")?;
        let (metrics, from, to) = (given.metrics("metric")?, given.time("from")?, given.time("to")?);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(BadQuery::value("to", "is not after `from`").into());
        }
        Ok(Self { viewer, patient, device, metrics, from, to })
    }

    /// True for readings that are wanted and may be read.
    pub(super) fn wants(&self, stream: &StreamInfo) -> bool {
        self.patient.as_ref().is_none_or(|patient| stream.patient.as_ref() == Some(patient))
            && self.device.as_ref().is_none_or(|device| stream.device == *device)
            && self.metrics.as_ref().is_none_or(|metrics| metrics.contains(&stream.metric))
            && self.viewer.sees_stream(stream)
    }
}

async fn readings(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let answer = async {
        let viewer = Viewer::of(&site, &headers)?;
        let mut takes = CHOICE.to_vec();
        takes.extend(["limit", "cursor", "every", "max_points"]);
        let mut given = Given::of(&uri, &takes)?;
        let choice = Choice::read(viewer, &mut given)?;
        let (every, points) = (given.span("every")?, given.number("max_points", MAX_POINTS)?);
        match (every, points) {
            (None, None) => rows(&site, choice, given).await,
            (Some(_), Some(_)) => Err(BadQuery::value("max_points", "does not go with `every`").into()),
            (Some(every), None) => summary::page(&site, choice, given, Width::Every(every)).await,
            (None, Some(points)) => summary::page(&site, choice, given, Width::Points(points)).await,
        }
    };
    answered(answer.await)
}

async fn rows(site: &Site, choice: Choice, mut given: Given) -> Answer<Response> {
    let limit = given.number("limit", MAX_PAGE)?.unwrap_or(PAGE);
    let after = match given.cursor("cursor")? {
        Some((epoch, seq)) => after(site, &epoch, seq).await?,
        None => Seq::ZERO,
    };
    let (from, to) = (choice.from.unwrap_or(Wall(i64::MIN)), choice.to.unwrap_or(Wall(i64::MAX)));
    let scan = Scan { from, to, after, through: Seq(u64::MAX), limit };
    let found = site.gate.reader.scan(scan, move |stream| choice.wants(stream), Vec::new(), push).await;
    let (rows, scanned) = found.map_err(|error| unread(&error))?;
    let next = scanned.next.map(|(epoch, seq)| format!("{epoch}:{seq}"));
    Ok(Json(ReadingPage { rows, next }).into_response())
}

/// Where a page begins: after this number, or where that number's run ended before it.
pub(super) async fn after(site: &Site, epoch: &Epoch, seq: Seq) -> Answer<Seq> {
    match site.gate.reader.resume_point(epoch, seq).await {
        Ok(ResumePoint::After { after, .. }) => Ok(after),
        Ok(ResumePoint::Unknown) => {
            Err(BadQuery::value("cursor", "is of a run that this bridge does not know (any more)").into())
        }
        Err(error) => Err(unread(&error)),
    }
}

/// A row as it was pushed. Its text is made of plain data and cannot fail.
#[expect(clippy::needless_pass_by_value, reason = "a search gives its events away")]
fn push(rows: &mut Vec<Box<RawValue>>, event: Event) {
    rows.extend(wire::push(&event).ok().and_then(|text| RawValue::from_string(text).ok()));
}

async fn latest(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    let answer = async {
        let viewer = Viewer::of(&site, &headers)?;
        let mut given = Given::of(&uri, &["patient", "device", "metric"])?;
        let choice = Choice::read(viewer, &mut given)?;
        let present = choice.viewer.present(&site).await?;
        let now = site.gate.clock.now().mono;
        let is_wanted = |event: &Event| stream_of(event).is_some_and(|stream| choice.wants(&stream));
        let wanted = present.iter().map(Arc::as_ref).filter(|it| is_wanted(&it.event));
        let readings = wanted.filter_map(|it| wire::reading(&it.event, now)).collect();
        let SignalTimes { stale_after_ms, lost_after_ms, others } = Viewer::signal_times(&site).await?;
        let is_shown = |own: &OwnTimes| choice.viewer.sees_patient(&own.patient_id);
        let signal_times = others.into_iter().filter(is_shown).collect();
        Ok(Json(LatestReadings { readings, stale_after_ms, lost_after_ms, signal_times }))
    };
    answered(answer.await)
}

fn stream_of(event: &Event) -> Option<StreamInfo> {
    let EventBody::Reading(reading) = &event.body else { return None };
    Some(StreamInfo {
        patient: reading.patient.clone(),
        device: reading.device.clone(),
        metric: reading.vital.metric(),
        mode: reading.mode,
    })
}
