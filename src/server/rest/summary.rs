//! Fewer numbers for a long time: buckets and points, made of valid values alone. What was absent is counted beside them.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::query::{BadQuery, Given};
use super::readings::Choice;
use super::{Answer, unread};
use crate::clock::Wall;
use crate::event::{Event, EventBody};
use crate::ids::Seq;
use crate::server::openapi::forms;
use crate::server::routes::Site;
use crate::store::Scan;
use crate::vitals::{Absent, Decimal, Metric, Quality, Reading, Value, Vital, rr_millis};

/// Most buckets of a page, over all streams.
const MAX_BUCKETS: i64 = 20_000;

/// Numbers of one stream at most: systolic, diastolic and mean.
const PARTS: i64 = 3;

/// Points of a bucket at most: its least, its greatest, its newest absent value.
const POINTS_A_BUCKET: i64 = 3;

/// What is told this much later than it was measured was kept somewhere meanwhile, in ms (docs/alerts.md, "Late").
const LATE_MS: i64 = 60_000;

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
    absent: BTreeMap<&'static str, u64>,
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
    absent: Option<&'static str>,
    /// There only if true: a value of its span was kept somewhere and told more than a minute after it was measured.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    late: bool,
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
            (span / (buckets - 1) + 1).max(1)
        }
    };
    let (start, end) = (floor(start.0, every), floor(end.0.saturating_sub(1), every).saturating_add(every));
    let start = cursor.map_or(start, |cursor| start.max(floor(cursor.0, every)));
    let (start, page_end, is_last) = bounds(site, &choice, (start, end), every).await?;
    let scan =
        Scan { from: Wall(start), to: Wall(page_end), after: Seq::ZERO, through: Seq(u64::MAX), limit: usize::MAX };
    let wants = move |stream: &_| choice.wants(stream);
    let found = site.gate.reader.scan(scan, wants, Buckets::new(every), Buckets::take).await;
    let (buckets, scanned) = found.map_err(|error| unread(&error))?;
    if scanned.next.is_some() {
        return Err(too_wide(width));
    }
    let next = (!is_last).then(|| Wall(page_end).to_string());
    Ok(match width {
        Width::Every(_) => Json(buckets.shown(next)).into_response(),
        Width::Points(_) => Json(buckets.points(next)).into_response(),
    })
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

/// The first ms of the bucket of a moment.
const fn floor(ms: i64, every: i64) -> i64 {
    ms.saturating_sub(ms.rem_euclid(every))
}

/// What a bucket is about, after its time: patient, device, metric and part, mode.
type Key = (Option<String>, String, String, &'static str);

/// Values by bucket and stream.
#[derive(Debug)]
struct Buckets {
    every: i64,
    by_time: BTreeMap<(i64, Key), Bucket>,
    undated: u64,
}

/// A value and when it was measured.
type At<T> = (i64, T);

#[derive(Debug, Default)]
struct Bucket {
    count: u64,
    questionable: u64,
    sum: f64,
    /// The smallest exponent among the values: how many decimal places they have.
    places: i8,
    is_score: bool,
    min: Option<At<Decimal>>,
    max: Option<At<Decimal>>,
    first: Option<At<Decimal>>,
    last: Option<At<Decimal>>,
    absent: BTreeMap<&'static str, u64>,
    newest_absent: Option<At<&'static str>>,
    has_late: bool,
}

impl Buckets {
    const fn new(every: i64) -> Self {
        Self { every, by_time: BTreeMap::new(), undated: 0 }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a search gives its events away")]
    fn take(&mut self, event: Event) {
        let EventBody::Reading(reading) = &event.body else { return };
        let Some(taken) = reading.taken.wall else {
            self.undated += 1;
            return;
        };
        let metric = reading.vital.metric();
        match &reading.vital {
            Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => {
                for (part, value) in
                    [("systolic", pressure.systolic), ("diastolic", pressure.diastolic), ("mean", pressure.mean)]
                {
                    self.add(reading, taken.0, format!("{metric}.{part}"), value);
                }
            }
            Vital::RrIntervals(beats) if !beats.is_empty() => {
                for interval in beats.iter().filter_map(|raw| rr_millis(*raw)) {
                    self.add(reading, taken.0, metric.to_string(), Value::Valid(interval));
                }
            }
            vital => self.add(reading, taken.0, metric.to_string(), vital.leading()),
        }
    }

    fn add(&mut self, reading: &Reading, at: i64, metric: String, value: Value) {
        let patient = reading.patient.as_ref().map(ToString::to_string);
        let key = (patient, reading.device.to_string(), metric, reading.mode.name());
        let bucket = self.by_time.entry((floor(at, self.every), key)).or_default();
        bucket.is_score = reading.vital.metric() == Metric::News2;
        bucket.has_late |= reading.quality == Quality::Historic || reading.received.wall.0.saturating_sub(at) > LATE_MS;
        match (value, reading.quality) {
            (Value::Absent(reason), _) => bucket.add_absent(at, Absent::name(reason)),
            (
                Value::Valid(_),
                wrong @ (Quality::Invalid | Quality::Overflow | Quality::Underflow | Quality::Calibrating),
            ) => bucket.add_absent(at, wrong.name()),
            (Value::Valid(number), quality) => bucket.add(at, number, quality == Quality::Questionable),
        }
    }

    fn shown(self, next: Option<String>) -> BucketPage {
        let buckets = self.by_time.into_iter().map(|((from, key), bucket)| bucket.shown(from, key)).collect();
        BucketPage { every_ms: self.every, buckets, undated: self.undated, next }
    }

    fn points(self, next: Option<String>) -> PointPage {
        let mut points: Vec<At<Point>> = Vec::new();
        for ((_, key), bucket) in self.by_time {
            let (min, max) = (bucket.min, bucket.max.filter(|max| is_other(bucket.min, *max)));
            for (at, number) in [min, max].into_iter().flatten() {
                points.push((at, point(&key, at, Some(number), None, bucket.has_late)));
            }
            if let Some((at, reason)) = bucket.newest_absent {
                points.push((at, point(&key, at, None, Some(reason), false)));
            }
        }
        points.sort_by_key(|(at, _)| *at);
        let points = points.into_iter().map(|(_, point)| point).collect();
        PointPage { every_ms: self.every, points, undated: self.undated, next }
    }
}

/// True if the greatest is not the very value that is the least: one reading may have several at one time.
fn is_other(min: Option<At<Decimal>>, max: At<Decimal>) -> bool {
    min.is_none_or(|(at, number)| at != max.0 || number.compare(max.1).is_ne())
}

fn point(
    (patient, device, metric, mode): &Key,
    at: i64,
    value: Option<Decimal>,
    absent: Option<&'static str>,
    late: bool,
) -> Point {
    Point {
        patient_id: patient.clone(),
        device_id: device.clone(),
        metric: metric.clone(),
        mode,
        timestamp: Wall(at).to_string(),
        value,
        absent,
        late,
    }
}

impl Bucket {
    fn add(&mut self, at: i64, number: Decimal, is_doubted: bool) {
        self.count += 1;
        self.questionable += u64::from(is_doubted);
        self.sum += number.to_f64();
        self.places = self.places.min(number.exponent());
        if self.min.is_none_or(|(_, min)| number.compare(min).is_lt()) {
            self.min = Some((at, number));
        }
        if self.max.is_none_or(|(_, max)| number.compare(max).is_gt()) {
            self.max = Some((at, number));
        }
        // What came late may have been measured first.
        if self.first.is_none_or(|(first, _)| at < first) {
            self.first = Some((at, number));
        }
        if self.last.is_none_or(|(last, _)| at >= last) {
            self.last = Some((at, number));
        }
    }

    fn add_absent(&mut self, at: i64, reason: &'static str) {
        *self.absent.entry(reason).or_default() += 1;
        if self.newest_absent.is_none_or(|(newest, _)| at >= newest) {
            self.newest_absent = Some((at, reason));
        }
    }

    fn mean(&self) -> Option<f64> {
        if self.count == 0 || self.is_score {
            return None;
        }
        let unit = 10_f64.powi(1 - i32::from(self.places));
        let count = u32::try_from(self.count).map_or(f64::INFINITY, f64::from);
        Some((self.sum / count * unit).round() / unit)
    }

    fn shown(self, from: i64, (patient_id, device_id, metric, mode): Key) -> ShownBucket {
        let mean = self.mean();
        let number = |at: Option<At<Decimal>>| at.map(|(_, number)| number);
        ShownBucket {
            patient_id,
            device_id,
            metric,
            mode,
            from: Wall(from).to_string(),
            count: self.count,
            questionable: self.questionable,
            min: number(self.min),
            max: number(self.max),
            mean,
            first: number(self.first),
            last: number(self.last),
            absent: self.absent,
        }
    }
}
