//! Wishes to send a range of the log to the broker again: who may have it, which range, and the row of the audit trail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::{Pipeline, Refusal};
use crate::clock::Stamp;
use crate::command::ResendWish;
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult};
use crate::hub::Scope;
use crate::ids::{Epoch, Seq};
use crate::store::SeqRange;
use crate::vitals::Mode;

/// Ranges that may wait for the uplink to take them. One more is refused as `busy`.
pub const MAX_ORDERED: usize = 8;

/// The channel on which somebody has to be allowed to command what is about the bridge as a whole.
const CHANNEL: &str = "management";

/// Ranges on their way from the pipeline to the uplink, which may be started anew meanwhile. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ResendQueue {
    ranges: Arc<Mutex<VecDeque<SeqRange>>>,
    news: Arc<Notify>,
}

impl ResendQueue {
    /// Puts a range into the queue; `false`: it is full.
    pub fn push(&self, range: SeqRange) -> bool {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        if ranges.len() >= MAX_ORDERED {
            return false;
        }
        ranges.push_back(range);
        drop(ranges);
        self.news.notify_one();
        true
    }

    /// Takes the oldest range out.
    pub fn take(&self) -> Option<SeqRange> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Returns when there may be something to take.
    pub async fn pushed(&self) {
        self.news.notified().await;
    }
}

/// What the pipeline must know to have ranges sent again.
#[derive(Debug, Clone)]
pub struct Resending {
    /// Where they go.
    pub queue: ResendQueue,
    /// The runs of the daemon whose numbers may be in the log, with their first numbers, oldest first; this one is the last.
    pub runs: Vec<(Epoch, Seq)>,
}

impl Resending {
    /// The numbers that a run has given, if `next` is the next number of this run.
    fn numbers_of(&self, epoch: &Epoch, next: Seq) -> Option<SeqRange> {
        let place = self.runs.iter().position(|(known, _)| known == epoch)?;
        let (_, first) = self.runs.get(place)?;
        let after = self.runs.get(place.saturating_add(1)).map_or(next, |(_, first)| *first);
        Some(SeqRange { first: *first, last: Seq(after.0.saturating_sub(1)) })
    }
}

fn refuse<T>(code: &'static str, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, reason: reason.into() })
}

impl Pipeline {
    /// From now on ranges of the log can be asked for again.
    pub fn resend_by(&mut self, resending: Resending) {
        self.resending = Some(resending);
    }

    pub(super) fn on_resend(
        &mut self,
        wish: &ResendWish,
        by: Actor,
        scope: &Scope,
        now: Stamp,
    ) -> Result<Seq, Refusal> {
        let mut audit = AuditEvent {
            by: by.user,
            address: by.address,
            action: AuditAction::UplinkResend,
            object: wish.describe(),
            patient: None,
            device: None,
            source: None,
            result: AuditResult::Done,
            reason: None,
            mode: Mode::Real,
        };
        let done = self.order_again(wish, scope);
        if let Err(refusal) = &done {
            (audit.result, audit.reason) = (AuditResult::Refused, Some(refusal.reason.clone()));
        }
        let seq = self.publish_audit(audit, now);
        done.map(|()| seq)
    }

    fn order_again(&self, wish: &ResendWish, scope: &Scope) -> Result<(), Refusal> {
        if !scope.allows(&[CHANNEL.to_owned()]) {
            return refuse("permission_denied", "this is for the role admin, with the right `cmd` on `management`");
        }
        let Some(resending) = &self.resending else {
            return refuse("refused", "no broker is configured, so nothing was sent that could be sent again");
        };
        let Some(given) = resending.numbers_of(&wish.epoch, self.next) else {
            return refuse(
                "unknown_epoch",
                "there is no run of this name in the log; `vitalbridge buffer ls` lists them",
            );
        };
        if wish.first < given.first || wish.last > given.last {
            let range = format!("the run {} has the numbers {} to {}", wish.epoch, given.first, given.last);
            return refuse("validation", range);
        }
        if resending.queue.push(SeqRange { first: wish.first, last: wish.last }) {
            Ok(())
        } else {
            refuse("busy", "enough ranges wait to be sent again; ask later")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_the_numbers_up_to_the_next_one() {
        let epoch = |name: &str| -> Epoch { name.parse().unwrap() };
        let runs = [("a", 1), ("b", 10), ("none", 20), ("c", 20)];
        let runs = runs.into_iter().map(|(name, first)| (epoch(name), Seq(first))).collect();
        let resending = Resending { queue: ResendQueue::default(), runs };
        let numbers =
            |name: &str| resending.numbers_of(&epoch(name), Seq(31)).map(|range| (range.first.0, range.last.0));
        assert_eq!(numbers("a"), Some((1, 9)));
        assert_eq!(numbers("b"), Some((10, 19)));
        assert_eq!(numbers("none"), Some((20, 19)), "it stored nothing");
        assert_eq!(numbers("c"), Some((20, 30)));
        assert_eq!(numbers("d"), None);
    }

    #[test]
    fn the_queue_has_an_end() {
        let queue = ResendQueue::default();
        let range = |first| SeqRange { first: Seq(first), last: Seq(first) };
        assert!((1..=8).all(|first| queue.push(range(first))));
        assert!(!queue.push(range(9)));
        assert_eq!(queue.take(), Some(range(1)));
        assert!(queue.push(range(9)));
    }
}
