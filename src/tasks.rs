//! Named tasks: the only place that spawns. A vital task that ends stops the daemon; a panic is an end, not a crash.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, error, warn};

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The daemon cannot do its work without it: its end is a failure of the daemon, unless it was told to stop and did
    /// so without an error.
    Vital,
    /// One connection, one source: its end concerns nobody else.
    Helper,
}

/// Why the daemon has to stop by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the task `{task}` ended: {reason}")]
pub struct VitalEnded {
    /// The task's name.
    pub task: String,
    /// What it said at its end.
    pub reason: String,
}

/// Starts tasks and knows which of them run.
#[derive(Debug, Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stop: CancellationToken,
    running: Mutex<Running>,
    one_ended: Notify,
    failure: watch::Sender<Option<VitalEnded>>,
}

#[derive(Debug, Default)]
struct Running {
    last_id: u64,
    names: BTreeMap<u64, String>,
}

impl Tasks {
    /// `stop` is the token that tells all tasks to end; after it, a vital task that ends without an error is no failure.
    pub fn new(stop: CancellationToken) -> Self {
        let shared =
            Shared { stop, running: Mutex::default(), one_ended: Notify::new(), failure: watch::Sender::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// Starts a task.
    pub fn spawn<F>(&self, name: impl Into<String>, role: Role, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let name = name.into();
        // A task stands for itself: as a child it would keep the span of the one that started it.
        let span = tracing::info_span!(parent: None, "task", name);
        self.spawn_in(span, name, role, task);
    }

    /// Starts a task that adds nothing to what it logs: for those of which very many begin at once and end soon, because the
    /// room for the most spans that there ever were is kept.
    pub fn spawn_bare<F>(&self, name: impl Into<String>, role: Role, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.spawn_in(Span::none(), name.into(), role, task);
    }

    fn spawn_in<F>(&self, span: Span, name: String, role: Role, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let id = self.with_running(|running| {
            running.last_id += 1;
            running.names.insert(running.last_id, name.clone());
            running.last_id
        });
        let tasks = self.clone();
        // A future that moves another one into an await has room for it twice; a session is a thousand times one.
        let task = Box::pin(task);
        let watched = async move {
            let end = AssertUnwindSafe(task).catch_unwind().await;
            tasks.ended(id, &name, role, end);
        };
        #[expect(clippy::disallowed_methods, reason = "this file is where tasks are started")]
        drop(tokio::spawn(watched.instrument(span)));
    }

    /// Waits until a vital task has failed, or ended without having been told to.
    pub async fn failure(&self) -> VitalEnded {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(ended)) => ended,
            // The sender lives in `self`, so this wait cannot end without a value.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The first failure of a vital task so far, also one that came after the stop.
    pub fn failed(&self) -> Option<VitalEnded> {
        self.shared.failure.borrow().clone()
    }

    /// Waits for all tasks to end, at most for `grace`; gives the names of those that still run.
    pub async fn drain(&self, grace: Duration) -> Vec<String> {
        let all_ended = async {
            loop {
                let ended = self.shared.one_ended.notified();
                if self.with_running(|running| running.names.is_empty()) {
                    return;
                }
                ended.await;
            }
        };
        let in_time = tokio::time::timeout(grace, all_ended).await;
        in_time.map_or_else(|_| self.with_running(|running| running.names.values().cloned().collect()), |()| Vec::new())
    }

    /// How many tasks run.
    pub fn count(&self) -> usize {
        self.with_running(|running| running.names.len())
    }

    fn with_running<T>(&self, look: impl FnOnce(&mut Running) -> T) -> T {
        look(&mut self.shared.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ended(&self, id: u64, name: &str, role: Role, end: Result<anyhow::Result<()>, Box<dyn Any + Send>>) {
        let (reason, is_orderly, is_panic) = match end {
            Ok(Ok(())) => ("it returned".to_owned(), true, false),
            Ok(Err(error)) => (format!("{error:#}"), false, false),
            Err(panic) => (format!("it panicked: {}", panic_text(panic.as_ref())), false, true),
        };
        // An error after the stop is one all the same: the store may say there that it has lost something.
        if role == Role::Vital && !(is_orderly && self.shared.stop.is_cancelled()) {
            error!(task = name, reason, "a vital task ended");
            let ended = VitalEnded { task: name.to_owned(), reason };
            self.shared.failure.send_if_modified(|first| {
                let changed = first.is_none();
                first.get_or_insert(ended);
                changed
            });
        } else if is_panic {
            error!(task = name, reason, "a task ended");
        } else if is_orderly {
            debug!(task = name, reason, "task ended");
        } else {
            // One connection may fail at any client's will: nobody has to act.
            warn!(task = name, reason, "task ended with an error");
        }
        self.with_running(|running| running.names.remove(&id));
        self.shared.one_ended.notify_waiters();
    }
}

/// The message of a panic, as far as it is text.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_vital_end_is_the_failure() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("helper", Role::Helper, async { panic!("alone") });
        tasks.spawn("store", Role::Vital, async { anyhow::bail!("disk on fire") });
        let ended = tasks.failure().await;
        assert_eq!(ended.to_string(), "the task `store` ended: disk on fire");
    }

    #[tokio::test]
    async fn a_panic_of_a_vital_task_is_its_end() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("pipeline", Role::Vital, async { panic!("index {}", 3) });
        assert_eq!(tasks.failure().await.reason, "it panicked: index 3");
    }

    #[tokio::test]
    async fn a_vital_task_that_fails_after_the_stop_has_failed_and_one_that_returns_has_not() {
        for (failing, expected) in [
            (0, None),
            (1, Some("the task `store` ended: 3 events were not stored")),
            (2, Some("the task `store` ended: it panicked: index 3")),
        ] {
            let stop = CancellationToken::new();
            let tasks = Tasks::new(stop.clone());
            let stopped = stop.clone();
            tasks.spawn("store", Role::Vital, async move {
                stopped.cancelled().await;
                match failing {
                    0 => Ok(()),
                    1 => anyhow::bail!("3 events were not stored"),
                    index => panic!("index {}", index + 1),
                }
            });
            let refused = stop.clone();
            tasks.spawn("helper", Role::Helper, async move {
                refused.cancelled().await;
                anyhow::bail!("alone")
            });
            stop.cancel();
            assert!(tasks.drain(Duration::from_secs(5)).await.is_empty());
            assert_eq!(tasks.failed().map(|ended| ended.to_string()).as_deref(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn draining_names_what_does_not_end() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let stopped = stop.clone();
        tasks.spawn("polite", Role::Vital, async move {
            stopped.cancelled().await;
            Ok(())
        });
        tasks.spawn("stuck", Role::Helper, std::future::pending());
        stop.cancel();
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, ["stuck"]);
        assert_eq!(tasks.count(), 1);
    }
}
