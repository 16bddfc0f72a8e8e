//! Wishes to send a range of the log to the broker again: who may have it, which range, and the row of the audit trail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Pipeline, Refusal};
use crate::clock::Stamp;
use crate::command::ResendWish;
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult};
use crate::hub::Scope;
use crate::ids::{Epoch, Seq};
use crate::store::{ResendOrder, SeqRange};
use crate::vitals::Mode;

/// Ranges that may be ordered and not be sent yet. One more is refused as `busy`.
pub const MAX_ORDERED: usize = 8;

/// The channel on which somebody has to be allowed to command what is about the bridge as a whole.
const CHANNEL: &str = "management";

/// The orders that were accepted and are not carried out, oldest first: the pipeline puts them in, and the uplink, which
/// may be started anew meanwhile, takes each out once it is done. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ResendQueue {
    orders: Arc<Mutex<VecDeque<ResendOrder>>>,
    news: Arc<Notify>,
}

impl ResendQueue {
    /// With what earlier runs have not carried out.
    pub fn new(orders: Vec<ResendOrder>) -> Self {
        Self { orders: Arc::new(Mutex::new(orders.into())), news: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ResendOrder>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more order may be accepted. Nobody but the one who asks may push, or the answer is worth nothing.
    pub fn has_room(&self) -> bool {
        self.lock().len() < MAX_ORDERED
    }

    /// Puts an order at the end.
    pub fn push(&self, order: ResendOrder) {
        self.lock().push_back(order);
        self.news.notify_one();
    }

    /// The oldest order.
    pub fn first(&self) -> Option<ResendOrder> {
        self.lock().front().copied()
    }

    /// Takes an order out that was carried out.
    pub fn finish(&self, seq: Seq) {
        self.lock().retain(|order| order.seq != seq);
    }

    /// Returns when there may be a new order.
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
        let queue = self.queue_for(wish, scope);
        if let Err(refusal) = &queue {
            (audit.result, audit.reason) = (AuditResult::Refused, Some(refusal.reason.clone()));
        }
        // The store keeps the order together with this row, and an answer waits for both.
        let seq = self.publish_audit(audit, now);
        queue?.push(ResendOrder { seq, range: SeqRange { first: wish.first, last: wish.last } });
        Ok(seq)
    }

    /// Where the order goes, if it may be accepted: there is room for it then.
    fn queue_for(&self, wish: &ResendWish, scope: &Scope) -> Result<ResendQueue, Refusal> {
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
        if resending.queue.has_room() {
            Ok(resending.queue.clone())
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
    fn an_order_has_its_place_until_it_is_carried_out() {
        let order = |seq| ResendOrder { seq: Seq(seq), range: SeqRange { first: Seq(1), last: Seq(2) } };
        let queue = ResendQueue::new(vec![order(1)]);
        for seq in 2..=8 {
            assert!(queue.has_room());
            queue.push(order(seq));
        }
        assert!(!queue.has_room());
        assert_eq!(queue.first(), Some(order(1)));
        assert!(!queue.has_room(), "whoever has taken it up has not finished it");
        queue.finish(Seq(1));
        assert_eq!((queue.first(), queue.has_room()), (Some(order(2)), true));
    }
}
