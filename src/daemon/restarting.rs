//! Runs the uplink, and runs it again if it ends by itself: by trouble with the store, or by a panic.

use std::fmt::Display;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::backoff::Backoff;
use crate::tasks::panic_text;

/// Returns when a run has ended in good order, or there is none at `stop`.
pub(super) async fn run_again<E, F>(mut run: impl FnMut() -> F, mut backoff: Backoff, stop: CancellationToken)
where
    E: Display,
    F: Future<Output = Result<(), E>>,
{
    while !stop.is_cancelled() {
        match AssertUnwindSafe(run()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error!(%error, "the uplink ended and is started again"),
            Err(panic) => {
                error!(reason = panic_text(panic.as_ref()), "a defect of the bridge: the uplink is started again");
            }
        }
        tokio::select! {
            biased;
            // Nothing is begun at the end.
            () = stop.cancelled() => {}
            // A store that fails is not asked without a pause.
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_uplink_that_failed_or_panicked_runs_again_and_one_that_was_stopped_does_not() {
        let backoff = || Backoff::new(Duration::from_secs(1), Duration::from_mins(1), 7);
        let mut runs = 0;
        let run = || {
            runs += 1;
            let number = runs;
            async move {
                match number {
                    1 => Err("the store does not answer"),
                    2 => panic!("index 3"),
                    _ => Ok(()),
                }
            }
        };
        run_again(run, backoff(), CancellationToken::new()).await;
        assert_eq!(runs, 3);

        let (stop, mut runs) = (CancellationToken::new(), 0);
        let run = || {
            runs += 1;
            stop.cancel();
            async { Err("too late") }
        };
        run_again(run, backoff(), stop.clone()).await;
        assert_eq!(runs, 1);
    }
}
