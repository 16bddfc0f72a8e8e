//! Fewer numbers for a long time: buckets and points, of readings and of the minutes that are kept when readings go.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::query::{BadQuery, Given};
use super::readings::Choice;
use super::{Answer, unread};
use crate::clock::Wall;
use crate::ids::Seq;
use crate::server::openapi::forms;
use crate::server::routes::Site;
use crate::store::{Reader, Scan};
use crate::summary::{At, Series, Summaries, Summary, floor};
use crate::vitals::Decimal;

/// Most buckets of a page, over all streams.
const MAX_BUCKETS: i64 = 20_000;

/// Numbers of one stream at most: systolic, diastolic and mean.
const PARTS: i64 = 3;

/// Points of a bucket at most: its least, its greatest, its newest absent value.
const POINTS_A_BUCKET: i64 = 3;

const MINUTE_MS: i64 = 60_000;

/// How often a page is read again because readings became minutes meanwhile. They go in ranges of 2048.
const TRIES: usize = 4;

/// How wide the buckets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// So many ms.
    Every(i64),
    /// As wide as it takes for at most so many points of each stream.
    Points(usize),
}

/// What one number of one stream did in one span of time. Values that the device calls wrong count as absent.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct ShownBucket {
    /// Whose; `null` for a device that was not assigned.
    patient_id: Option<String>,
    /// The device.
    device_id: String,
    /// The metric; of a pressure `blood_pressure.systolic`, `.diastolic`, `.mean`.
    metric: String,
    /// `real`, `demo` or `test`.
    mode: &'static str,
    /// The first moment of the bucket.
    #[schemars(extend("format" = "date-time"))]
    from: String,
    /// Valid values.
    count: u64,
    /// Those of `count` that the device doubts.
    questionable: u64,
    /// The least; `null` if there was no valid value.
    #[schemars(with = "Option<f64>")]
    min: Option<Decimal>,
    /// The greatest.
    #[schemars(with = "Option<f64>")]
    max: Option<Decimal>,
    /// The mean, with one more decimal place than the values; `null` for a score.
    mean: Option<f64>,
    /// The first by time of measurement.
    #[schemars(with = "Option<f64>")]
    first: Option<Decimal>,
    /// The last by time of measurement.
    #[schemars(with = "Option<f64>")]
    last: Option<Decimal>,
    /// How many values were absent, by reason.
    absent: BTreeMap<Cow<'static, str>, u64>,
}

/// Buckets, by time.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct BucketPage {
    /// How wide each is.
    every_ms: i64,
    /// Those in which something was measured.
    buckets: Vec<ShownBucket>,
    /// Readings of which nobody knows when they were measured; they are in no bucket.
    undated: u64,
    /// The `cursor` of the page after; `null` at the end.
    #[schemars(with = "Option<forms::Time>")]
    next: Option<String>,
}

/// A value that stands for its neighbours.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct Point {
    /// Whose; `null` for a device that was not assigned.
    patient_id: Option<String>,
    /// The device.
    device_id: String,
    /// The metric; of a pressure `blood_pressure.systolic`, `.diastolic`, `.mean`.
    metric: String,
    /// `real`, `demo` or `test`.
    mode: &'static str,
    /// When it was measured.
    #[schemars(extend("format" = "date-time"))]
    timestamp: String,
    /// The number; `null` if it is absent.
    #[schemars(with = "Option<f64>")]
    value: Option<Decimal>,
    /// Why there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<Cow<'static, str>>,
    /// There only if true: a value of its span was kept somewhere and told more than a minute after it was measured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
    /// There only where the readings themselves are not kept any more: for so many ms there is no more than this.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(with = "Option<i64>")]
    span_ms: i64,
}

/// The least and the greatest value of each span of time, and that something was absent in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::server) struct PointPage {
    /// How wide each span is.
    every_ms: i64,
    /// By time.
    points: Vec<Point>,
    /// Readings of which nobody knows when they were measured; they are no points.
    undated: u64,
    /// The `cursor` of the page after; `null` at the end.
    #[schemars(with = "Option<forms::Time>")]
    next: Option<String>,
}

/// Answers with the buckets or points of a page. Each bucket is complete, and on one page only.
pub(super) async fn page(site: &Site, choice: Choice, mut given: Given, width: Width) -> Answer<Response> {
    if given.text("limit").is_some() {
        return Err(BadQuery::value("limit", "does not go with `every` and `max_points`").into());
    }
    let cursor = given.time("cursor")?;
    let Some(start) = choice.from else {
        return Err(BadQuery::value("from", "is missing: `every` and `max_points` need it").into());
    };
    let end = choice.to.unwrap_or(site.gate.clock.now().wall);
    if start >= end {
        return Err(BadQuery::value("from", "is not before `to`, which is now where it is missing").into());
    }
    let every = match width {
        Width::Every(every) => every,
        Width::Points(points) => {
            let buckets = i64::try_from(points).unwrap_or(i64::MAX) / POINTS_A_BUCKET;
            if buckets < 2 || choice.to.is_none() {
                let problem = "is at least 6, and needs `from` and `to`";
                return Err(BadQuery::value("max_points", problem).into());
            }
            // One bucket less: the range need not begin where a bucket does.
            let span = end.0.saturating_sub(start.0);
            let every = (span / (buckets - 1) + 1).max(1);
            // Of whole minutes, so that each minute of readings that have gone lies in one.
            if every > MINUTE_MS { floor(every.saturating_add(MINUTE_MS - 1), MINUTE_MS) } else { every }
        }
    };
    let (start, end) = (floor(start.0, every), floor(end.0.saturating_sub(1), every).saturating_add(every));
    let start = cursor.map_or(start, |cursor| start.max(floor(cursor.0, every)));
    let (start, page_end, is_last) = bounds(site, &choice, (start, end), every).await?;
    let Some(found) = gathered(&site.gate.reader, &choice, (start, page_end), every).await? else {
        return Err(too_wide(width));
    };
    let next = (!is_last).then(|| Wall(page_end).to_string());
    Ok(match width {
        Width::Every(_) => Json(shown(found, next)).into_response(),
        Width::Points(_) => Json(points(found, next)).into_response(),
    })
}

/// Minutes and readings of a span. `None`: there are more readings in it than one request looks at.
///
/// A reading is in one of both. Those that go from here to there between the two looks would be in neither, so it is done
/// again then.
async fn gathered(reader: &Reader, choice: &Choice, (from, to): (i64, i64), every: i64) -> Answer<Option<Summaries>> {
    let scan = Scan { from: Wall(from), to: Wall(to), after: Seq::ZERO, through: Seq(u64::MAX), limit: usize::MAX };
    let mut tries = 1..=TRIES;
    loop {
        let (of_minutes, of_readings) = (choice.clone(), choice.clone());
        let wants = move |stream: &_| of_minutes.wants(stream);
        let found = reader.minutes((scan.from, scan.to), wants, Summaries::new(every)).await;
        let (found, oldest) = found.map_err(|error| unread(&error))?;
        let wants = move |stream: &_| of_readings.wants(stream);
        let found = reader.scan(scan, wants, found, Summaries::take).await;
        let (found, scanned) = found.map_err(|error| unread(&error))?;
        if scanned.next.is_some() {
            return Ok(None);
        }
        let is_settled = reader.oldest_reading().await.map_err(|error| unread(&error))? == oldest;
        if is_settled || tries.next().is_none() {
            return Ok(Some(found));
        }
    }
}

fn too_wide(width: Width) -> Box<Response> {
    let problem = "asks for more readings in one bucket than one request looks at; make buckets narrower";
    let name = match width {
        Width::Every(_) => "every",
        Width::Points(_) => "max_points",
    };
    BadQuery::value(name, problem).into()
}

/// Where this page begins and ends, and whether it is the last: as far as one search and [`MAX_BUCKETS`] reach. Times at
/// both ends at which nothing was measured are passed over.
async fn bounds(site: &Site, choice: &Choice, (start, end): (i64, i64), every: i64) -> Answer<(i64, i64, bool)> {
    let reader = &site.gate.reader;
    let extent = reader.extent(Wall(start)).await.map_err(|error| unread(&error))?;
    let Some((earliest, latest)) = extent else { return Ok((start, start, true)) };
    let start = start.max(floor(earliest.0, every));
    let end = end.min(floor(latest.0, every).saturating_add(every));
    if start >= end {
        return Ok((start, start, true));
    }
    let wanted = choice.clone();
    let streams = reader.streams(move |stream| wanted.wants(stream)).await.map_err(|error| unread(&error))?;
    let streams = i64::try_from(streams.len()).unwrap_or(i64::MAX).max(1);
    let buckets = (MAX_BUCKETS / streams.saturating_mul(PARTS)).max(1);
    let by_buckets = start.saturating_add(buckets.saturating_mul(every));
    let reach = reader.reach(Wall(start), Wall(end)).await.map_err(|error| unread(&error))?;
    let by_rows = if reach.0 >= end { end } else { floor(reach.0, every).max(start.saturating_add(every)) };
    let page_end = end.min(by_buckets).min(by_rows);
    Ok((start, page_end, page_end >= end))
}

/// The buckets of a page.
fn shown(found: Summaries, next: Option<String>) -> BucketPage {
    let (every_ms, undated) = (found.every_ms(), found.undated());
    let buckets = found.into_rows().map(|(from, series, summary)| bucket(from, series, summary)).collect();
    BucketPage { every_ms, buckets, undated, next }
}

fn bucket(from: i64, series: Series, summary: Summary) -> ShownBucket {
    let mean = summary.mean(&series);
    let number = |at: Option<At<Decimal>>| at.map(|(_, number)| number);
    ShownBucket {
        patient_id: series.patient,
        device_id: series.device,
        metric: series.metric,
        mode: series.mode,
        from: Wall(from).to_string(),
        count: summary.count,
        questionable: summary.questionable,
        min: number(summary.min),
        max: number(summary.max),
        mean,
        first: number(summary.first),
        last: number(summary.last),
        absent: summary.absent,
    }
}

/// The points of a page.
fn points(found: Summaries, next: Option<String>) -> PointPage {
    let (every_ms, undated) = (found.every_ms(), found.undated());
    let mut points: Vec<At<Point>> = Vec::new();
    for (_, series, summary) in found.into_rows() {
        let (min, max) = (summary.min, summary.max.filter(|max| is_other(summary.min, *max)));
        for (at, number) in [min, max].into_iter().flatten() {
            let late = summary.has_late;
            points.push((at, Point { value: Some(number), late, ..point(&series, at, summary.joined_ms) }));
        }
        if let Some((at, reason)) = summary.newest_absent {
            points.push((at, Point { absent: Some(reason), ..point(&series, at, summary.joined_ms) }));
        }
    }
    points.sort_by_key(|(at, _)| *at);
    let points = points.into_iter().map(|(_, point)| point).collect();
    PointPage { every_ms, points, undated, next }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(ms: &i64) -> bool {
    *ms == 0
}

/// True if the greatest is not the very value that is the least: one reading may have several at one time.
fn is_other(min: Option<At<Decimal>>, max: At<Decimal>) -> bool {
    min.is_none_or(|(at, number)| at != max.0 || number.compare(max.1).is_ne())
}

fn point(series: &Series, at: i64, span_ms: i64) -> Point {
    Point {
        patient_id: series.patient.clone(),
        device_id: series.device.clone(),
        metric: series.metric.clone(),
        mode: series.mode,
        timestamp: Wall(at).to_string(),
        value: None,
        absent: None,
        late: false,
        span_ms,
    }
}
