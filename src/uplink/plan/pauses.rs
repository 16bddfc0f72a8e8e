//! Pauses that the broker asks for (0x91, 0x97): of the lane that it refused and of those behind it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Lane;
use crate::backoff::Backoff;
use crate::clock::Mono;

/// Longest pause of a lane.
const LONGEST: Duration = Duration::from_mins(1);

/// Longest pause of alerts: what the broker would not take now may be somebody's life.
const LONGEST_OF_ALERTS: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Pause {
    backoff: Backoff,
    until: Option<Mono>,
    /// Publications of the lane that the broker has taken.
    taken: u64,
}

/// The pause of each lane.
#[derive(Debug)]
pub(super) struct Pauses(BTreeMap<Lane, Pause>);

impl Pauses {
    /// Pauses grow from `shortest`; `seed` fixes their jitter.
    pub(super) fn new(shortest: Duration, seed: u64) -> Self {
        let pause = |(number, lane): (u64, Lane)| {
            let is_urgent = matches!(lane, Lane::Alerts | Lane::EarlierAlerts);
            let longest = if is_urgent { LONGEST_OF_ALERTS } else { LONGEST };
            let backoff = Backoff::new(shortest.min(longest), longest, seed.wrapping_add(number));
            (lane, Pause { backoff, until: None, taken: 0 })
        };
        Self((1..).zip(Lane::ALL.iter().copied()).map(pause).collect())
    }

    /// The broker asks for less in this lane. It does so for each of what is under way: that is one pause.
    pub(super) fn begin(&mut self, lane: Lane, now: Mono) {
        if let Some(pause) = self.0.get_mut(&lane).filter(|pause| pause.until.is_none_or(|until| now >= until)) {
            pause.until = Some(now + pause.backoff.next_delay());
        }
    }

    /// Neither this lane pauses nor one that goes before it: the broker is to have less, and that comes first.
    pub(super) fn is_over(&self, lane: Lane, now: Mono) -> bool {
        self.0.range(..=lane).all(|(_, pause)| pause.until.is_none_or(|until| now >= until))
    }

    /// The broker has taken something of this lane.
    pub(super) fn took(&mut self, lane: Lane) {
        if let Some(pause) = self.0.get_mut(&lane) {
            pause.backoff.reset();
            pause.taken = pause.taken.saturating_add(1);
        }
    }

    /// Publications of this lane that the broker has taken.
    pub(super) fn taken(&self, lane: Lane) -> u64 {
        self.0.get(&lane).map_or(0, |pause| pause.taken)
    }

    /// The connection has ended, and with it what the broker asked for.
    pub(super) fn end(&mut self) {
        self.0.values_mut().for_each(|pause| pause.until = None);
    }

    /// When pauses end.
    pub(super) fn times(&self) -> impl Iterator<Item = Mono> {
        self.0.values().filter_map(|pause| pause.until)
    }
}
