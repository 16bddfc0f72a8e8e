//! Polling only what has something: a waker of its own for one thing among several that a task waits for.
//!
//! A task that waits for many things polls all of them whenever one wakes it. Of a session's things one wakes it some
//! dozen times a second and the others hardly ever; asking those each time costs more than what it is woken for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Knows whether its thing has woken the task since it was polled last.
#[derive(Debug)]
pub struct Nudge {
    shared: Arc<Shared>,
    /// The shared part as the waker that the thing gets.
    waker: Waker,
    /// The task's own, as the shared part has it.
    task: Waker,
}

#[derive(Debug)]
struct Shared {
    has_something: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_something.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}

impl Default for Nudge {
    fn default() -> Self {
        let shared = Shared { has_something: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) };
        let shared = Arc::new(shared);
        Self { waker: Waker::from(Arc::clone(&shared)), shared, task: Waker::noop().clone() }
    }
}

impl Nudge {
    /// Polls the thing if it has woken the task, if it was ready the last time, or if [`Nudge::renew`] says so.
    ///
    /// It has to be the same thing each time, and nobody else may poll it.
    pub fn poll<T>(&mut self, cx: &Context<'_>, thing: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if !self.task.will_wake(cx.waker()) {
            self.task.clone_from(cx.waker());
            self.shared.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
            self.renew();
        }
        // Taken before the poll: what comes during it is for the next one.
        if !self.shared.has_something.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let polled = thing(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            self.renew();
        }
        polled
    }

    /// The thing is another one now: it is polled in any case.
    pub fn renew(&self) {
        self.shared.has_something.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_thing_is_polled_once_and_then_when_it_woke_or_was_ready_or_is_another_one() {
        let woken = Arc::new(Woken::default());
        let task = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&task);
        let mut nudge = Nudge::default();
        let mut waker = None;
        let mut pending = |nudge: &mut Nudge, cx: &Context<'_>| {
            let mut polls = 0;
            let polled = nudge.poll(cx, |inner| {
                waker = Some(inner.waker().clone());
                polls += 1;
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
            (polls, waker.clone())
        };
        assert_eq!(pending(&mut nudge, &cx).0, 1, "the first time");
        assert_eq!(pending(&mut nudge, &cx).0, 0, "it has nothing");
        let (_, inner) = pending(&mut nudge, &cx);
        inner.unwrap().wake();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "the task is woken too");
        assert_eq!((pending(&mut nudge, &cx).0, pending(&mut nudge, &cx).0), (1, 0), "once a wake");
        nudge.renew();
        assert_eq!((pending(&mut nudge, &cx).0, pending(&mut nudge, &cx).0), (1, 0), "another thing");
        nudge.renew();
        assert!(nudge.poll(&cx, |_| Poll::Ready(())).is_ready());
        assert!(nudge.poll(&cx, |_| Poll::Ready(())).is_ready(), "who was ready is asked again");
        nudge.renew();
        // A wake that comes while it is polled is not lost.
        let polled = nudge.poll(&cx, |inner| {
            inner.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!(pending(&mut nudge, &cx).0, 1);

        let other = Arc::new(Woken::default());
        let task = Waker::from(Arc::clone(&other));
        let (polls, inner) = pending(&mut nudge, &Context::from_waker(&task));
        assert_eq!(polls, 1, "in another task it is asked once more");
        inner.unwrap().wake();
        assert_eq!((woken.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)), (2, 1));
    }
}
