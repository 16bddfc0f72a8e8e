//! Ranges of the log that are sent again, one after the other: an order is over when its range has been sent.

use tracing::info;

use super::plan::Plan;
use crate::ids::Seq;
use crate::pipeline::ResendQueue;
use crate::store::{ResendOrder, StoreHandle};

/// What is being sent again.
#[derive(Debug, Default)]
pub(super) struct Resend {
    under_way: Option<ResendOrder>,
}

impl Resend {
    /// Finishes the order under way, and has the plan take the next one that is on disk up to `durable`. The store and the
    /// queue remember an order until then, so that it also outlives this uplink and this run.
    pub(super) fn turn(&mut self, plan: &mut Plan, queue: &ResendQueue, handle: &StoreHandle, durable: Seq) {
        while !plan.is_resending() {
            if let Some(ResendOrder { seq, range }) = self.under_way.take() {
                info!(first = %range.first, last = %range.last, "a range was sent again");
                handle.resent(seq);
                queue.finish(seq);
            }
            let Some(order) = queue.first().filter(|order| order.seq <= durable) else { return };
            info!(first = %order.range.first, last = %order.range.last, "a range goes to the broker again");
            self.under_way = Some(order);
            // One that names no range, which nobody can have accepted, is over with the next turn of this loop.
            plan.resend(order.range.first, order.range.last);
        }
    }
}
