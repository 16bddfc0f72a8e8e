//! How long readings wait for somebody to set the clock, and which. Pure.
//!
//! Only the time with a connection counts: a time server is where the broker is, and without a network there is neither.

use std::time::Duration;

use crate::clock::Mono;
use crate::ids::Seq;

/// A time server that can be reached answers within a minute.
pub const DEFAULT_CLOCK_HOLD: Duration = Duration::from_mins(2);

/// The wait of one run of the uplink.
#[derive(Debug)]
pub(super) struct ClockHold {
    /// Readings from this one on wait; `None`: none does.
    from: Option<Seq>,
    /// How much longer, without what has passed since `since`.
    left: Duration,
    /// Since when it counts.
    since: Option<Mono>,
}

impl ClockHold {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { from: None, left: limit, since: None }
    }

    /// Nobody has set the clock since the event `first`. False: that is known and was waited for.
    pub(super) fn begin(&mut self, first: Seq, is_connected: bool, now: Mono) -> bool {
        if self.left.is_zero() {
            return false;
        }
        self.from = Some(first);
        self.since = self.since.or(is_connected.then_some(now));
        true
    }

    /// It is over, for good. True if anything has waited.
    pub(super) const fn end(&mut self) -> bool {
        self.since = None;
        if self.from.take().is_some() {
            self.left = Duration::ZERO;
            return true;
        }
        false
    }

    pub(super) fn on_connected(&mut self, now: Mono) {
        self.since = self.from.map(|_| now);
    }

    pub(super) fn on_disconnected(&mut self, now: Mono) {
        self.left = self.left(now);
        self.since = None;
    }

    fn left(&self, now: Mono) -> Duration {
        self.left.saturating_sub(self.since.map_or(Duration::ZERO, |since| now.since(since)))
    }

    /// When it is over, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.from.and(self.since).map(|since| since + self.left)
    }

    /// The last reading that need not wait, up to `durable`.
    pub(super) fn readable(&self, durable: Seq) -> Seq {
        self.from.map_or(durable, |first| durable.min(Seq(first.0.saturating_sub(1))))
    }

    /// For how many seconds more readings wait; `None`: they do not.
    pub(super) fn seconds(&self, now: Mono) -> Option<u64> {
        self.from.map(|_| self.left(now).as_secs())
    }
}
