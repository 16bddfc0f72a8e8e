//! A session's place at the hub while it is on its way there.

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::hub::{Join, Joined};
use crate::pipeline::Control;

/// Joins the hub. `None`: the pipeline has ended; `Some(None)`: the hub has no room.
pub(super) async fn join(control: mpsc::Sender<Control>, join: Join) -> Option<Option<Joined>> {
    let (reply, answer) = oneshot::channel();
    let mut place = Place { answer, control };
    place.control.send(Control::Join(join, reply)).await.ok()?;
    Some((&mut place.answer).await.ok().flatten())
}

/// A place of which the session does not know yet.
struct Place {
    answer: oneshot::Receiver<Option<Joined>>,
    control: mpsc::Sender<Control>,
}

impl Drop for Place {
    /// A session that ends meanwhile must not leave a listener behind: what comes later fails to be sent, and the pipeline
    /// sees to it.
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(Some(joined)) = self.answer.try_recv()
            && self.control.try_send(Control::Leave(joined.listener)).is_err()
        {
            warn!("a listener stays behind: the pipeline takes no more orders");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::{Hub, Scope};
    use crate::ids::Seq;
    use crate::outbox::Delivery;

    #[tokio::test]
    async fn a_session_that_ends_while_it_joins_leaves_no_listener_behind() {
        let wish = || Join {
            listener: None,
            user: None,
            patterns: Vec::new(),
            filter: None,
            scope: Scope::Everything,
            delivery: Delivery::Latest,
            since: None,
            acks: false,
        };
        let mut hub = Hub::new(Seq::ZERO, Arc::default());
        let (control, mut queue) = mpsc::channel(4);
        // It is gone when the answer comes, and when the answer has come already.
        for has_answer in [false, true] {
            let mut joining = Box::pin(join(control.clone(), wish()));
            assert!(futures_util::poll!(joining.as_mut()).is_pending());
            let Some(Control::Join(wish, reply)) = queue.recv().await else { panic!("no join") };
            if has_answer {
                let joined = hub.join(wish);
                let listener = joined.as_ref().map(|joined| joined.listener);
                assert!(reply.send(joined).is_ok());
                drop(joining);
                assert!(matches!(queue.try_recv(), Ok(Control::Leave(left)) if Some(left) == listener));
            } else {
                drop(joining);
                assert!(reply.send(hub.join(wish)).is_err(), "the pipeline sees to it");
                assert!(queue.try_recv().is_err());
            }
        }
        let mut joining = Box::pin(join(control.clone(), wish()));
        assert!(futures_util::poll!(joining.as_mut()).is_pending());
        let Some(Control::Join(wish, reply)) = queue.recv().await else { panic!("no join") };
        assert!(reply.send(hub.join(wish)).is_ok());
        assert!(joining.await.flatten().is_some());
        assert!(queue.try_recv().is_err(), "whose place is taken keeps it");
    }
}
