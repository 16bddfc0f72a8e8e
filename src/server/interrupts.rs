//! What interrupts a session now and then: the daemon's end, a revocation, an order of an administrator or for the sake of
//! another session.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{SetOnce, watch};
use tokio_util::sync::CancellationToken;

use crate::server::close::Close;
use crate::server::nudge::Nudge;
use crate::server::orders::Orders;
use crate::server::revocation::Revocations;
use crate::server::seats::Order;

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The daemon ends.
    Stop,
    /// Something was revoked: perhaps the token of this session.
    Revoked,
    /// It has to close.
    Ordered(Close),
    /// Another session of the same user wants this place.
    Asked(Order),
}

/// Where most of it comes from.
#[derive(Debug)]
struct Above {
    stop: CancellationToken,
    revoked: watch::Receiver<Arc<Revocations>>,
    order: Arc<SetOnce<Close>>,
}

/// Gives its origin back with what came, so that the next wait can begin.
type Wait<Origin> = Pin<Box<dyn Future<Output = (Interrupt, Origin)> + Send>>;

/// The interrupts of one session.
pub struct Interrupts {
    nudge: Nudge,
    above: Wait<Above>,
    seat: Option<Wait<Arc<Orders<Order>>>>,
}

impl Interrupts {
    /// Of a session that has no place among those of a user yet.
    pub fn new(
        stop: CancellationToken,
        mut revoked: watch::Receiver<Arc<Revocations>>,
        order: Arc<SetOnce<Close>>,
    ) -> Self {
        // The token was looked at before this began to listen: what was revoked between is the first interrupt.
        revoked.mark_changed();
        let above = Box::pin(from_above(Above { stop, revoked, order }));
        Self { nudge: Nudge::default(), above, seat: None }
    }

    /// It has a place now, which others may want.
    pub fn on_seated(&mut self, orders: Arc<Orders<Order>>) {
        self.seat = Some(Box::pin(from_seat(orders)));
        self.nudge.renew();
    }

    /// The next one; nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Interrupt {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Interrupt> {
        let Self { nudge, above, seat } = self;
        nudge.poll(cx, |cx| {
            if let Poll::Ready((interrupt, origin)) = above.as_mut().poll(cx) {
                *above = Box::pin(from_above(origin));
                return Poll::Ready(interrupt);
            }
            let Some(wait) = seat else { return Poll::Pending };
            wait.as_mut().poll(cx).map(|(interrupt, origin)| {
                *wait = Box::pin(from_seat(origin));
                interrupt
            })
        })
    }
}

async fn from_above(mut above: Above) -> (Interrupt, Above) {
    let interrupt = tokio::select! {
        biased;
        () = above.stop.cancelled() => Interrupt::Stop,
        // Where nothing can be revoked any more the daemon is ending too.
        changed = above.revoked.changed() => if changed.is_ok() { Interrupt::Revoked } else { Interrupt::Stop },
        close = above.order.wait() => Interrupt::Ordered(*close),
    };
    (interrupt, above)
}

async fn from_seat(orders: Arc<Orders<Order>>) -> (Interrupt, Arc<Orders<Order>>) {
    let order = orders.next().await;
    (Interrupt::Asked(order), orders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_revoked_before_a_session_listens_is_looked_at_and_each_interrupt_comes_once() {
        let (stop, order) = (CancellationToken::new(), Arc::new(SetOnce::new()));
        let revoked = watch::Sender::new(Arc::new(Revocations::default()));
        revoked.send_replace(Arc::default());
        let mut interrupts = Interrupts::new(stop.clone(), revoked.subscribe(), Arc::clone(&order));
        assert_eq!(interrupts.next().await, Interrupt::Revoked);
        revoked.send_replace(Arc::default());
        assert_eq!(interrupts.next().await, Interrupt::Revoked);
        let seat = Arc::new(Orders::default());
        interrupts.on_seated(Arc::clone(&seat));
        let quiet = poll_fn(|cx| Poll::Ready(interrupts.poll(cx).is_pending())).await;
        assert!(quiet, "nothing has come");
        seat.give(Order::Answer);
        assert_eq!(interrupts.next().await, Interrupt::Asked(Order::Answer));
        seat.give(Order::Leave);
        assert_eq!(interrupts.next().await, Interrupt::Asked(Order::Leave));
        order.set(Close::ClosedByAdmin).unwrap();
        assert_eq!(interrupts.next().await, Interrupt::Ordered(Close::ClosedByAdmin));
        stop.cancel();
        assert_eq!(interrupts.next().await, Interrupt::Stop, "the daemon's end goes before all");
    }
}
