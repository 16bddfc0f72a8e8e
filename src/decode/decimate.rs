//! Thins vitals to one a second: the median of a window, so that a single damaged frame never becomes a reading.

use std::time::Duration;

use super::DecodedVital;
use crate::clock::{Mono, Stamp};
use crate::vitals::{Absent, Metric, Value, Vital};

/// Length of a window.
pub const WINDOW: Duration = Duration::from_secs(1);
/// Samples kept of one window; the oldest is dropped for one more. The fastest known device sends 100 a second.
const MAX_SAMPLES: usize = 512;
/// Different metrics of one device; any more pass unthinned.
const MAX_WINDOWS: usize = 32;
/// Devices that send no more often than this are not thinned and so not delayed.
const SLOW_HZ: f64 = 1.5;

/// The samples of one metric since its window began.
#[derive(Debug)]
struct Window {
    metric: Metric,
    mdc: Option<u32>,
    /// When it ends; `None`: it begins with the next sample.
    ends: Option<Mono>,
    /// With the time at which each came.
    samples: Vec<(DecodedVital, Stamp)>,
}

/// Thins the vitals of one device.
#[derive(Debug)]
pub struct Decimator {
    is_slow: bool,
    windows: Vec<Window>,
}

impl Decimator {
    /// For a device that sends `nominal_hz` frames a second.
    pub fn new(nominal_hz: f64) -> Self {
        Self { is_slow: nominal_hz <= SLOW_HZ, windows: Vec::new() }
    }

    /// Takes a vital; what is due is added to `out`. Pressures and beat intervals, which are measurements of their
    /// own, and everything from slow devices pass at once. Each comes out with the time at which it came.
    pub fn push(&mut self, vital: DecodedVital, now: Stamp, out: &mut Vec<(DecodedVital, Stamp)>) {
        self.on_time(now, out);
        let Vital::Scalar { metric, .. } = vital.vital else {
            out.push((vital, now));
            return;
        };
        let mdc = vital.mdc;
        let known = self.windows.iter().position(|window| window.metric == metric && window.mdc == mdc);
        if self.is_slow || (known.is_none() && self.windows.len() >= MAX_WINDOWS) {
            out.push((vital, now));
            return;
        }
        if known.is_none() {
            self.windows.push(Window { metric, mdc, ends: None, samples: Vec::new() });
        }
        let place = known.unwrap_or(self.windows.len().saturating_sub(1));
        if let Some(window) = self.windows.get_mut(place) {
            window.ends.get_or_insert(now.mono + WINDOW);
            if window.samples.len() >= MAX_SAMPLES {
                window.samples.remove(0);
            }
            window.samples.push((vital, now));
        }
    }

    /// Adds the medians of the windows that have ended.
    pub fn on_time(&mut self, now: Stamp, out: &mut Vec<(DecodedVital, Stamp)>) {
        for window in &mut self.windows {
            if window.ends.is_some_and(|ends| ends <= now.mono) {
                window.ends = None;
                out.extend(median(&mut window.samples));
                window.samples.clear();
            }
        }
    }

    /// When [`Decimator::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.windows.iter().filter_map(|window| window.ends).min()
    }

    /// Forgets what has not been handed over: the link is gone, and its last second with it.
    pub fn reset(&mut self) {
        self.windows.clear();
    }
}

fn value_of((sample, _): &(DecodedVital, Stamp)) -> Value {
    sample.vital.leading()
}

/// The sample in the middle of the valid ones; where most are absent, the latest with the most frequent reason.
fn median(samples: &mut [(DecodedVital, Stamp)]) -> Option<(DecodedVital, Stamp)> {
    let absent = samples.iter().filter(|sample| value_of(sample).absent().is_some()).count();
    if absent * 2 > samples.len() {
        let reason = most_frequent(samples)?;
        return samples.iter().rev().find(|sample| value_of(sample).absent() == Some(reason)).cloned();
    }
    // Absent samples sort last; the lower of two middle ones is taken, so that the result was really measured.
    samples.sort_by(|left, right| match (value_of(left).valid(), value_of(right).valid()) {
        (Some(left), Some(right)) => left.compare(right),
        (left, right) => right.is_some().cmp(&left.is_some()),
    });
    let valid = samples.len().saturating_sub(absent);
    samples.get(valid.saturating_sub(1) / 2).cloned()
}

fn most_frequent(samples: &[(DecodedVital, Stamp)]) -> Option<Absent> {
    let reasons = || samples.iter().filter_map(|sample| value_of(sample).absent());
    reasons().max_by_key(|reason| reasons().filter(|other| other == reason).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::vitals::{Decimal, Quality};

    fn at(millis: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(millis), wall: Wall(0) }
    }

    fn spo2(value: Result<i32, Absent>) -> DecodedVital {
        let value = value.map_or_else(Value::Absent, |number| Value::Valid(Decimal::integer(number)));
        let vital = Vital::scalar(Metric::Spo2, value);
        DecodedVital { vital, mdc: None, quality: Quality::Valid, device_time: None }
    }

    /// What comes out after one window with these samples.
    fn check(samples: &[Result<i32, Absent>]) -> Value {
        let mut decimator = Decimator::new(60.0);
        let mut out = Vec::new();
        for (sample, millis) in samples.iter().zip(1000..) {
            decimator.push(spo2(*sample), at(millis), &mut out);
        }
        assert!(out.is_empty(), "too early: {out:?}");
        assert_eq!(decimator.next_deadline(), Some(Mono::from_millis(2000)));
        decimator.on_time(at(1999), &mut out);
        assert!(out.is_empty(), "too early: {out:?}");
        decimator.on_time(at(2000), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(decimator.next_deadline(), None);
        out[0].0.vital.leading()
    }

    #[test]
    fn the_median_hides_a_damaged_frame_and_an_absent_majority_shows() {
        let off = Err(Absent::SensorOff);
        let lost = Err(Absent::SignalLost);
        for (samples, expected) in [
            (vec![Ok(97), Ok(1), Ok(98)], Ok(97)),
            (vec![Ok(97), Ok(98)], Ok(97)),
            (vec![Ok(97), off, Ok(98)], Ok(97)),
            (vec![Ok(97), off], Ok(97)),
            (vec![Ok(97), off, off], off),
            (vec![lost, off, off, Ok(97)], off),
            (vec![off], off),
        ] {
            let expected = expected.map_or_else(Value::Absent, |number| Value::Valid(Decimal::integer(number)));
            assert_eq!(check(&samples), expected, "{samples:?}");
        }
    }

    #[test]
    fn each_metric_has_a_window_of_its_own_that_begins_with_its_first_sample() {
        let mut decimator = Decimator::new(60.0);
        let mut out = Vec::new();
        decimator.push(spo2(Ok(97)), at(0), &mut out);
        let rate = Vital::scalar(Metric::PulseRate, Value::Valid(Decimal::integer(60)));
        decimator.push(DecodedVital { vital: rate, ..spo2(Ok(0)) }, at(500), &mut out);
        decimator.push(spo2(Ok(98)), at(1000), &mut out);
        assert_eq!(
            out.iter().map(|(sample, at)| (sample.vital.metric(), at.mono)).collect::<Vec<_>>(),
            [(Metric::Spo2, at(0).mono)]
        );
        decimator.on_time(at(1500), &mut out);
        assert_eq!(out.last().unwrap().0.vital.metric(), Metric::PulseRate);
        assert_eq!(decimator.next_deadline(), Some(Mono::from_millis(2000)));
    }

    #[test]
    fn a_slow_device_is_not_delayed() {
        let mut decimator = Decimator::new(1.0);
        let mut out = Vec::new();
        decimator.push(spo2(Ok(97)), at(0), &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn a_window_is_bounded() {
        let mut decimator = Decimator::new(100.0);
        let mut out = Vec::new();
        for _ in 0..MAX_SAMPLES * 3 {
            decimator.push(spo2(Ok(97)), at(0), &mut out);
        }
        assert_eq!(decimator.windows[0].samples.len(), MAX_SAMPLES);
    }
}
