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
use tracing::{Instrument, debug, error};

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The daemon cannot do its work without it: its end, other than after a stop, is a failure of the daemon.
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
    /// `stop` is the token that tells all tasks to end; after it, the end of a vital task is no failure.
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
        let id = self.with_running(|running| {
            running.last_id += 1;
            running.names.insert(running.last_id, name.clone());
            running.last_id
        });
        let tasks = self.clone();
        let span = tracing::info_span!("task", name);
        let watched = async move {
            let end = AssertUnwindSafe(task).catch_unwind().await;
            tasks.ended(id, &name, role, end);
        };
        #[expect(clippy::disallowed_methods, reason = "this file is where tasks are started")]
        drop(tokio::spawn(watched.instrument(span)));
    }

    /// Waits until a vital task has ended without having been told to.
    pub async fn failure(&self) -> VitalEnded {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(ended)) => ended,
            // The sender lives in `self`, so this wait cannot end without a value.
            Ok(None) | Err(_) => std::future::pending().await,
        }
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
        let reason = match end {
            Ok(Ok(())) => "it returned".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
        };
        if role == Role::Vital && !self.shared.stop.is_cancelled() {
            error!(task = name, reason, "a vital task ended");
            let ended = VitalEnded { task: name.to_owned(), reason };
            self.shared.failure.send_if_modified(|first| {
                let changed = first.is_none();
                first.get_or_insert(ended);
                changed
            });
        } else {
            debug!(task = name, reason, "task ended");
        }
        self.with_running(|running| running.names.remove(&id));
        self.shared.one_ended.notify_waiters();
    }
}

/// The message of a panic, as far as it is text.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
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
