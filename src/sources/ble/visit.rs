//! What of a visit may be of now, by when it was measured. Pure.
//!
//! A sensor comes with what it has measured last, and meeting it may take minutes: that must alarm all the same. What it has
//! kept beside must not.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Stamp, Wall};
use crate::sources::device_clock::{Mapped, UNSET_MS};
use crate::vitals::{LATE_AFTER, Quality};

/// The newest measurement alarms if it was made no longer ago: so long may a sensor take to be heard and connected.
pub(super) const NEWEST_LATE_AFTER: Duration = Duration::from_mins(15);
/// The same in ms.
pub(super) const LATE_MS: i64 = 15 * 60_000;
/// So much older than another one in the sensor's time, and it was kept until now.
pub(super) const KEPT_MS: i64 = 60_000;
/// No local time is further behind UTC, in minutes.
const FARTHEST_BEHIND_UTC: i16 = -12 * 60;

/// When the newest measurement of each kind was made that a device has handed over, in ms since boot.
#[derive(Debug)]
pub(super) struct Visits<K> {
    newest: BTreeMap<K, i64>,
}

impl<K> Default for Visits<K> {
    fn default() -> Self {
        Self { newest: BTreeMap::new() }
    }
}

impl<K: Ord> Visits<K> {
    /// Whether what came at `received` and was made then is not of now. In doubt it is: the uncertainty counts for it.
    pub(super) fn is_of_the_past(&mut self, kind: K, made: &Mapped, received: Stamp) -> bool {
        let ago = i64::try_from(made.before.as_millis()).unwrap_or(i64::MAX);
        let at = i64::try_from(received.mono.as_millis()).unwrap_or(i64::MAX).saturating_sub(ago);
        let newest = self.newest.entry(kind).or_insert(at);
        let is_kept = newest.saturating_sub(at) > KEPT_MS;
        *newest = at.max(*newest);
        let limit = if is_kept { LATE_AFTER } else { NEWEST_LATE_AFTER };
        made.before.saturating_sub(Duration::from_millis(made.uncertainty_ms.into())) > limit
    }
}

/// Whether a device that measures now and then must have kept what it measured at this time by its clock, wherever it may
/// stand if `offset` is not known, the minutes by which its local time is ahead of UTC. A clock that was never set tells
/// nothing.
pub(super) fn is_long_ago(said: &str, offset: Option<i16>, received: Stamp) -> bool {
    let Some(said) = Wall::parse(&format!("{said}Z")).or_else(|| Wall::parse(&format!("{said}:00Z"))) else {
        return false;
    };
    let offset = offset.unwrap_or(FARTHEST_BEHIND_UTC);
    let local = received.wall.0.saturating_add(i64::from(offset) * 60_000);
    (LATE_MS + 1..=UNSET_MS).contains(&local.saturating_sub(said.0))
}

/// A late number says so, unless it is worth nothing anyway.
pub(super) const fn historic(quality: Quality) -> Quality {
    match quality {
        Quality::NotAvailable | Quality::Invalid | Quality::Implausible => quality,
        _ => Quality::Historic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

    /// Boot was on 2026-11-21 at 00:00.
    fn at(ms: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(ms), wall: Wall(1_795_219_200_000) }
    }

    fn made(before_s: u64, uncertainty_ms: u32) -> Mapped {
        Mapped { wall: Wall(0), before: Duration::from_secs(before_s), uncertainty_ms }
    }

    #[test]
    fn the_newest_alarms_for_15_minutes_and_what_was_passed_by_for_one() {
        const HOUR: u64 = 3_600_000;
        for (what, measurements, expected) in [
            ("right as it connects", &[(HOUR, 600, 1000)][..], &[false][..]),
            ("by the uncertainty perhaps not", &[(HOUR, 930, 30_000)], &[false]),
            ("longer ago", &[(HOUR, 931, 30_000)], &[true]),
            ("oldest first", &[(HOUR, 700, 0), (HOUR + 3000, 300, 0)], &[false, false]),
            ("newest first, after pauses", &[(HOUR, 2, 0), (HOUR + 3000, 300, 0)], &[false, true]),
            ("within the minute", &[(HOUR, 2, 0), (HOUR + 3000, 60, 0)], &[false, false]),
            ("perhaps within the minute", &[(HOUR, 2, 0), (HOUR + 5000, 70, 10_000)], &[false, false]),
            ("passed by at an earlier visit", &[(HOUR, 2, 0), (HOUR + 300_000, 600, 0)], &[false, true]),
        ] {
            let mut visits = Visits::default();
            let found: Vec<bool> = measurements
                .iter()
                .map(|(ms, before_s, uncertainty)| visits.is_of_the_past(0, &made(*before_s, *uncertainty), at(*ms)))
                .collect();
            assert_eq!(found, expected, "{what}");
        }
        let mut visits = Visits::default();
        assert!(!visits.is_of_the_past("one user", &made(0, 0), at(HOUR)));
        assert!(!visits.is_of_the_past("another", &made(300, 0), at(HOUR)), "whom nobody has passed by");
    }

    #[test]
    fn what_no_place_on_earth_calls_now_is_long_ago_unless_the_clock_was_never_set() {
        // Received on 2026-11-21 at 00:00 UTC.
        for (said, offset, expected) in [
            ("2026-11-20T11:44", None, true),
            ("2026-11-20T11:45", None, false),
            ("2026-11-20T11:44:59", None, true),
            ("2026-11-21T14:00", None, false),
            ("2027-11-21T14:00", None, false),
            ("2026-11-21T00:44", Some(60), true),
            ("2026-11-21T00:45", Some(60), false),
            ("2025-11-24T19:18", None, true),
            ("2000-01-01T00:05", None, false),
            ("2000-01-01T00:05", Some(60), false),
            ("at noon", None, false),
        ] {
            assert_eq!(is_long_ago(said, offset, at(0)), expected, "{said} {offset:?}");
        }
    }
}
