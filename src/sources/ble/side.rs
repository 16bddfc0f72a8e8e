//! The second way to BlueZ: reaches it, watches it, and reaches it again after the bus has died.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::bluez::{Bluez, BluezError, BluezEvent, BluezLimits, Cause, Watch};

/// Shortest and longest pause before the bus is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What happens on this side.
#[derive(Debug)]
pub(super) enum SideEvent {
    /// BlueZ can be asked; what it says of itself follows.
    Reached(Bluez),
    /// The bus cannot be reached, or has died. It is tried again.
    Lost(String),
    /// Something changed.
    Told(BluezEvent),
}

type Reaching = Pin<Box<dyn Future<Output = Result<(Bluez, Watch), BluezError>> + Send>>;

enum State {
    Pausing(Pin<Box<tokio::time::Sleep>>),
    Reaching(Reaching),
    Watching(Box<Watch>),
}

/// The side channel.
pub(super) struct Side {
    limits: BluezLimits,
    pause: Backoff,
    state: State,
}

async fn reach(limits: BluezLimits) -> Result<(Bluez, Watch), BluezError> {
    let bluez = Bluez::connect_to(None, limits).await?;
    let watch = bluez.watch().await?;
    Ok((bluez, watch))
}

impl Side {
    /// Not connected yet; `seed` fixes the jitter of its pauses.
    pub(super) fn new(limits: BluezLimits, seed: u64) -> Self {
        Self { limits, pause: Backoff::new(PAUSE.0, PAUSE.1, seed), state: State::Reaching(Box::pin(reach(limits))) }
    }

    /// What happens next. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> SideEvent {
        loop {
            match &mut self.state {
                State::Pausing(pause) => {
                    pause.await;
                    self.state = State::Reaching(Box::pin(reach(self.limits)));
                }
                State::Reaching(reaching) => match reaching.await {
                    Ok((bluez, watch)) => {
                        self.pause.reset();
                        self.state = State::Watching(Box::new(watch));
                        return SideEvent::Reached(bluez);
                    }
                    Err(error) => return self.lost(&error),
                },
                State::Watching(watch) => match watch.next().await {
                    Ok(event) => return SideEvent::Told(event),
                    Err(error @ BluezError { cause: Cause::NoBus(_), .. }) => return self.lost(&error),
                    Err(error) => {
                        // The adapters could not be asked for; the watch asks again.
                        tracing::debug!(%error, "BlueZ does not answer");
                        tokio::time::sleep(PAUSE.0).await;
                    }
                },
            }
        }
    }

    fn lost(&mut self, error: &BluezError) -> SideEvent {
        self.state = State::Pausing(Box::pin(tokio::time::sleep(self.pause.next_delay())));
        SideEvent::Lost(error.to_string())
    }
}
