//! How often the broker has refused a row, and when that is enough. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Lane, Plan};
use crate::clock::Mono;
use crate::ids::Seq;

/// Errors, or requests for less, after which a row is parked or a bundle is sent event by event.
pub(super) const MAX_ERRORS: u8 = 3;

/// Requests for less, each after the broker had taken another row of the lane, after which a row is parked.
const MAX_REQUESTS: u8 = 10;

/// A row at which it asks for less for so long, while it takes rows of other lanes, is parked too.
const MAX_ASKING: Duration = Duration::from_hours(1);

/// Wait before a refused row is tried again.
pub(super) const REFUSED_RETRY: Duration = Duration::from_secs(5);

/// Longest wait between two tries of a row at which the broker asks for less, though it takes others.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
struct Count {
    errors: u8,
    requests: u8,
    /// What the broker had taken of the lane at the last request.
    taken: Option<u64>,
    /// When the first request came, and what the broker had taken in all by then.
    begun: Option<(Mono, u64)>,
}

/// What the broker has taken, and when that was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Publications of the lane.
    pub(super) of_lane: u64,
    /// All of them.
    pub(super) in_all: u64,
    /// Now.
    pub(super) now: Mono,
}

/// The refusals of rows that are not settled, by their first event: as few as lanes look ahead.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Seq, Count>);

impl Refusals {
    /// One more answer with an error that may pass. Gives how many that are.
    pub(super) fn error(&mut self, first: Seq) -> u8 {
        let count = self.0.entry(first).or_default();
        count.errors = count.errors.saturating_add(1);
        count.errors
    }

    /// The broker asks for less at this row. Gives how long the row waits, or `None` if that was enough: a request tells
    /// something of the row if the broker has taken another one of its lane since the one before.
    pub(super) fn request(&mut self, first: Seq, taken: Taken) -> Option<Duration> {
        let count = self.0.entry(first).or_default();
        if count.taken.replace(taken.of_lane) != Some(taken.of_lane) {
            count.requests = count.requests.saturating_add(1);
        }
        let (begun, before) = *count.begun.get_or_insert((taken.now, taken.in_all));
        let is_asked_for_long = taken.now.since(begun) >= MAX_ASKING && taken.in_all > before;
        (count.requests < MAX_REQUESTS && !is_asked_for_long).then(|| wait_after(count.requests))
    }

    /// The row is settled, or goes in another form.
    pub(super) fn forget(&mut self, first: Seq) {
        self.0.remove(&first);
    }
}

/// How long a row waits after so many requests for less that tell something of it: its lane goes on meanwhile.
fn wait_after(requests: u8) -> Duration {
    let doubled = requests.checked_sub(2).map(|times| Duration::from_secs(1).saturating_mul(1 << times.min(6)));
    doubled.unwrap_or_default().min(LONGEST_WAIT)
}

impl Plan {
    /// The broker asks for less: the row waits, and with it its lane and those behind. Where it takes everything else, the
    /// row is what it does not take.
    pub(super) fn hold_back(&mut self, lane: Lane, (first, last): (Seq, Seq), code: u8, now: Mono) {
        self.pauses.begin(lane, now);
        self.status.reason = Some(format!("the broker asks for less (0x{code:02x})"));
        if first != last {
            // It may be too much at once.
            if self.refusals.error(first) >= MAX_ERRORS {
                self.split(lane, first, last);
            } else {
                self.lane_mut(lane).send_again(first, now);
            }
            return;
        }
        let taken = Taken { of_lane: self.pauses.taken(lane), in_all: self.status.sent, now };
        if let Some(wait) = self.refusals.request(first, taken) {
            self.lane_mut(lane).send_again(first, now + wait);
        } else {
            let reason = format!("the broker asks for less at this row (0x{code:02x}), and takes others");
            self.park(lane, first, reason);
        }
    }

    /// An error that may pass: some more tries, then the row is parked.
    pub(super) fn refused(&mut self, lane: Lane, seq: Seq, code: u8, now: Mono) {
        if self.refusals.error(seq) >= MAX_ERRORS {
            self.park(lane, seq, format!("the broker has refused the row {MAX_ERRORS} times (0x{code:02x})"));
        } else {
            self.lane_mut(lane).send_again(seq, now + REFUSED_RETRY);
        }
    }
}
