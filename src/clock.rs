//! Time: the only file that reads a clock.
//!
//! A Raspberry Pi before model 5 has no clock battery, so wall time jumps when NTP arrives. Everything that is measured
//! (delays, staleness, heartbeats) uses [`Mono`]; [`Wall`] is only shown and stored.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

impl Mono {
    /// The time from `earlier` to this, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole milliseconds since boot.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// A point of time from whole milliseconds since boot.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since 1970-01-01 UTC, shown as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Wall(pub i64);

impl Wall {
    /// Whole seconds since 1970, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads `YYYY-MM-DDThh:mm:ss[.fraction]Z`; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_suffix('Z')?;
        let (date, time) = rest.split_once('T')?;
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let date = numbers::<3>(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers::<3>(time, ':', [2, 2, 2])?;
        let [year, month, day] = date;
        if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if !(1..=12).contains(&month) || day < 1 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        Some(Self((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + millis))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        if !(0..=9999).contains(&year) {
            return write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
        }
        // Each reading has some of these: the general way costs more than everything else of its message.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (number, digits) in [
            (year, 0..4),
            (month, 5..7),
            (day, 8..10),
            (hour, 11..13),
            (minute, 14..16),
            (second, 17..19),
            (milli, 20..23),
        ] {
            let mut rest = number;
            for digit in text.get_mut(digits).into_iter().flatten().rev() {
                *digit = b'0'.saturating_add(u8::try_from(rest % 10).unwrap_or_default());
                rest /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Splits `text` at `separator` into exactly `N` numbers with these digit counts.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut out = [0; N];
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Year, month and day of a count of days since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Years are taken to begin in March, so that the leap day is the last of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`]; days past a month's end run into the next month.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// One moment on both clocks: measure with `mono`, show `wall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Time since boot, for every duration.
    pub mono: Mono,
    /// Time of day, for people; may jump.
    pub wall: Wall,
}

/// Where a task gets the time from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's own clocks.
    System,
    /// The machine's time since boot, and a time of day that is so many ms ahead of the machine's: for trials of what a
    /// step does.
    Adjusted(Arc<AtomicI64>),
    /// tokio's clock, which a test can pause and move; `origin` is the moment at which this was made.
    Tokio {
        /// tokio's time when this clock was made.
        started: tokio::time::Instant,
        /// What this clock said then.
        origin: Stamp,
    },
}

impl Clock {
    /// A clock that follows tokio's (possibly paused) time and starts at `origin`.
    pub fn tokio(origin: Stamp) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this file is where clocks are read")]
        let started = tokio::time::Instant::now();
        Self::Tokio { started, origin }
    }

    /// The time now.
    pub fn now(&self) -> Stamp {
        match self {
            Self::System => Stamp { mono: boottime(), wall: realtime() },
            Self::Adjusted(ahead) => {
                let wall = realtime().0.saturating_add(ahead.load(Ordering::Relaxed));
                Stamp { mono: boottime(), wall: Wall(wall) }
            }
            Self::Tokio { started, origin } => {
                let passed = started.elapsed();
                let millis = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
                Stamp { mono: origin.mono + passed, wall: Wall(origin.wall.0.saturating_add(millis)) }
            }
        }
    }
}

fn boottime() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Mono(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn realtime() -> Wall {
    let time = clock_gettime(ClockId::Realtime);
    let (secs, nanos): (i64, i64) = (time.tv_sec, time.tv_nsec);
    Wall(secs.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_prints_and_reads_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_219_200_123, "2026-11-21T00:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(Wall(millis).to_string(), text);
            assert_eq!(Wall::parse(text), Some(Wall(millis)));
        }
        assert_eq!(Wall::parse("2026-11-21T00:00:00Z"), Some(Wall(1_795_219_200_000)));
        assert_eq!(Wall::parse("2026-11-21T00:00:00.5Z"), Some(Wall(1_795_219_200_500)));
        for bad in ["", "2026-11-21", "2026-02-30T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T00:00:00+01:00"] {
            assert_eq!(Wall::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_survives_a_round_trip() {
        for days in -150_000..150_000 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn a_duration_never_runs_backwards() {
        let (early, late) = (Mono::from_millis(5), Mono::from_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
