//! What many values of one number come to in a span of time: how many, the least, the greatest, the mean, the first and
//! last. Made of valid values alone; what was absent is counted beside them.
//!
//! Two summaries of one span join to the one that all their values would have made: the store keeps a minute when its
//! readings go, and the server makes wider ones of both.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::event::{Event, EventBody};
use crate::vitals::{Absent, Decimal, Metric, Quality, Reading, Value, Vital, rr_millis};

/// What is told this much later than it was measured was kept somewhere meanwhile, in ms (docs/alerts.md, "Late").
const LATE_MS: i64 = 60_000;

/// A value and when it was measured, in ms since 1970.
pub type At<T> = (i64, T);

/// What a summary is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Whose; `None` for a device that was not assigned.
    pub patient: Option<String>,
    /// The device.
    pub device: String,
    /// The metric; of a pressure `blood_pressure.systolic`, `.diastolic`, `.mean`.
    pub metric: String,
    /// `real`, `demo` or `test`.
    pub mode: &'static str,
}

impl Series {
    /// The name of the metric without that of a part of a pressure.
    pub fn metric_name(&self) -> &str {
        self.metric.split_once('.').map_or(&*self.metric, |(metric, _)| metric)
    }
}

/// The values of one series in one span. Values that the device calls wrong count as absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Valid values.
    pub count: u64,
    /// Those of `count` that the device doubts.
    pub questionable: u64,
    /// The sum of the valid values.
    pub sum: f64,
    /// The smallest exponent among the values: how many decimal places they have.
    pub places: i8,
    /// The least.
    pub min: Option<At<Decimal>>,
    /// The greatest.
    pub max: Option<At<Decimal>>,
    /// The first by time of measurement.
    pub first: Option<At<Decimal>>,
    /// The last by time of measurement.
    pub last: Option<At<Decimal>>,
    /// How many values were absent, by reason.
    pub absent: BTreeMap<Cow<'static, str>, u64>,
    /// The reason of the newest absent value.
    pub newest_absent: Option<At<Cow<'static, str>>>,
    /// A value was kept somewhere and told more than a minute after it was measured.
    pub has_late: bool,
    /// How wide the widest summary is that was joined to this one, in ms; 0: all of it is of readings.
    pub joined_ms: i64,
}

impl Summary {
    fn add(&mut self, at: i64, number: Decimal, is_doubted: bool) {
        let one = Self {
            count: 1,
            questionable: u64::from(is_doubted),
            sum: number.to_f64(),
            places: number.exponent(),
            min: Some((at, number)),
            max: Some((at, number)),
            first: Some((at, number)),
            last: Some((at, number)),
            ..Self::default()
        };
        self.join(one);
    }

    fn add_absent(&mut self, at: i64, reason: &'static str) {
        let (absent, newest_absent) = ([(reason.into(), 1)].into(), Some((at, reason.into())));
        self.join(Self { absent, newest_absent, ..Self::default() });
    }

    /// Takes the values of another span of the same series.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        self.questionable += other.questionable;
        self.sum += other.sum;
        self.places = self.places.min(other.places);
        // Of equal ones the first, so that it does not matter in which parts they come.
        pick(&mut self.min, other.min, |new, old| new.1.compare(old.1).then(new.0.cmp(&old.0)).is_lt());
        pick(&mut self.max, other.max, |new, old| new.1.compare(old.1).then(old.0.cmp(&new.0)).is_gt());
        // What came late may have been measured first.
        pick(&mut self.first, other.first, |new, old| new.0 < old.0);
        pick(&mut self.last, other.last, |new, old| new.0 >= old.0);
        pick(&mut self.newest_absent, other.newest_absent, |new, old| new.0 >= old.0);
        for (reason, count) in other.absent {
            *self.absent.entry(reason).or_default() += count;
        }
        self.has_late |= other.has_late;
        self.joined_ms = self.joined_ms.max(other.joined_ms);
    }

    /// The mean, with one more decimal place than the values; `None` for a score, and where there is no value.
    pub fn mean(&self, series: &Series) -> Option<f64> {
        if self.count == 0 || series.metric == Metric::News2.name() {
            return None;
        }
        let unit = 10_f64.powi(1 - i32::from(self.places));
        let count = u32::try_from(self.count).map_or(f64::INFINITY, f64::from);
        Some((self.sum / count * unit).round() / unit)
    }
}

/// Replaces what is there by `new` where nothing is there, or where `is_better` says so.
fn pick<T>(kept: &mut Option<T>, new: Option<T>, is_better: impl FnOnce(&T, &T) -> bool) {
    if let Some(new) = new
        && kept.as_ref().is_none_or(|old| is_better(&new, old))
    {
        *kept = Some(new);
    }
}

/// Summaries by span of time and series.
#[derive(Debug)]
pub struct Summaries {
    every_ms: i64,
    /// By the first ms of the span.
    by_time: BTreeMap<(i64, Series), Summary>,
    undated: u64,
}

impl Summaries {
    /// Of spans that are `every_ms` wide.
    pub const fn new(every_ms: i64) -> Self {
        Self { every_ms, by_time: BTreeMap::new(), undated: 0 }
    }

    /// How wide each span is, in ms.
    pub const fn every_ms(&self) -> i64 {
        self.every_ms
    }

    /// Readings of which nobody knows when they were measured; they are in no summary.
    pub const fn undated(&self) -> u64 {
        self.undated
    }

    /// Takes a reading; no other event.
    #[expect(clippy::needless_pass_by_value, reason = "a search gives its events away")]
    pub fn take(&mut self, event: Event) {
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

    /// Takes what values of a narrower span that begins at `at` come to.
    pub fn join(&mut self, at: i64, series: Series, summary: Summary) {
        self.by_time.entry((floor(at, self.every_ms), series)).or_default().join(summary);
    }

    /// Each by the first ms of its span, by time.
    pub fn into_rows(self) -> impl Iterator<Item = (i64, Series, Summary)> {
        self.by_time.into_iter().map(|((from, series), summary)| (from, series, summary))
    }

    fn add(&mut self, reading: &Reading, at: i64, metric: String, value: Value) {
        let patient = reading.patient.as_ref().map(ToString::to_string);
        let series = Series { patient, device: reading.device.to_string(), metric, mode: reading.mode.name() };
        let summary = self.by_time.entry((floor(at, self.every_ms), series)).or_default();
        let is_late = reading.received.wall.0.saturating_sub(at) > LATE_MS;
        summary.has_late |= reading.quality == Quality::Historic || is_late;
        match (value, reading.quality) {
            (Value::Absent(reason), _) => summary.add_absent(at, Absent::name(reason)),
            (
                Value::Valid(_),
                wrong @ (Quality::Invalid | Quality::Overflow | Quality::Underflow | Quality::Calibrating),
            ) => summary.add_absent(at, wrong.name()),
            (Value::Valid(number), quality) => summary.add(at, number, quality == Quality::Questionable),
        }
    }
}

/// The first ms of the span of a moment.
pub const fn floor(ms: i64, every: i64) -> i64 {
    ms.saturating_sub(ms.rem_euclid(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series {
        Series { patient: None, device: "d".into(), metric: "heart_rate".into(), mode: "real" }
    }

    /// One value after the other: every seventh is absent, one of each pair of times comes late.
    fn fill(summary: &mut Summary, numbers: impl Iterator<Item = i32>) {
        for n in numbers {
            let at = i64::from(n ^ 1) * 1000;
            match n % 7 {
                0 => summary.add_absent(at, if n % 2 == 0 { "lead_off" } else { "no_signal" }),
                _ => summary.add(at, Decimal::tenths(700 + (n * 37) % 101), n % 5 == 0),
            }
        }
    }

    #[test]
    fn the_parts_of_a_span_join_to_what_the_whole_comes_to() {
        let mut whole = Summary::default();
        fill(&mut whole, 0..200);
        for cut in [1, 7, 60, 199] {
            let (mut one, mut other) = (Summary::default(), Summary::default());
            fill(&mut one, 0..cut);
            fill(&mut other, cut..200);
            one.join(other);
            assert!((one.sum - whole.sum).abs() < 1e-6);
            assert_eq!(Summary { sum: whole.sum, ..one }, whole, "{cut}");
        }
        assert_eq!((whole.count, whole.absent.values().sum::<u64>()), (171, 29));
        assert_eq!(whole.first.map(|(at, _)| at), Some(0), "1 was measured at 0");
        assert_eq!(whole.last.map(|(at, _)| at), Some(199_000));
        assert_eq!(whole.mean(&series()).map(|mean| format!("{mean}")), Some(format!("{:.2}", whole.sum / 171.0)));
    }

    #[test]
    fn a_score_has_no_mean() {
        let mut summary = Summary::default();
        summary.add(0, Decimal::integer(3), false);
        assert!(summary.mean(&series()).is_some());
        assert_eq!(summary.mean(&Series { metric: "news2".into(), ..series() }), None);
    }
}
