//! How often the broker has refused a row, and when that is enough. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::Seq;

/// Errors, or requests for less, after which a row is parked or a bundle is sent event by event.
pub(super) const MAX_ERRORS: u8 = 3;

/// Requests for less, each after the broker had taken another row of the lane, after which a row is parked.
pub(super) const MAX_REQUESTS: u8 = 10;

/// Longest wait between two tries of a row at which the broker asks for less, though it takes others.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
struct Count {
    errors: u8,
    requests: u8,
    /// What the broker had taken of the lane at the last request.
    taken: Option<u64>,
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

    /// The broker asks for less at this row; `taken` publications of its lane it has taken. Gives how many such requests
    /// tell something of this row, because the broker has taken another one since the one before.
    pub(super) fn request(&mut self, first: Seq, taken: u64) -> u8 {
        let count = self.0.entry(first).or_default();
        if count.taken.replace(taken) != Some(taken) {
            count.requests = count.requests.saturating_add(1);
        }
        count.requests
    }

    /// The row is settled, or goes in another form.
    pub(super) fn forget(&mut self, first: Seq) {
        self.0.remove(&first);
    }
}

/// How long a row waits after so many requests for less that tell something of it: its lane goes on meanwhile.
pub(super) fn wait_after(requests: u8) -> Duration {
    let doubled = requests.checked_sub(2).map(|times| Duration::from_secs(1).saturating_mul(1 << times.min(6)));
    doubled.unwrap_or_default().min(LONGEST_WAIT)
}
