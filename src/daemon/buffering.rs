//! How long the store takes what waits for the broker: measured once a minute, told to whoever wants to know.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::ids::Seq;
use crate::store::{Reader, Room, StoreError};
use crate::uplink::Waiting;

/// How often it is measured.
const MEASURE_EVERY: Duration = Duration::from_mins(1);

/// Measures as long as it is polled.
pub(super) async fn measure(
    reader: Reader,
    max_bytes: Option<u64>,
    clock: Clock,
    told: watch::Sender<Option<Duration>>,
) {
    let mut is_failing = false;
    loop {
        let left = match room(&reader, max_bytes, &clock).await {
            Ok(room) => {
                is_failing = false;
                room.left
            }
            Err(error) => {
                if !is_failing {
                    warn!(%error, "it is unknown how long the store takes what waits for the broker");
                }
                is_failing = true;
                None
            }
        };
        told.send_if_modified(|known| {
            let is_news = *known != left;
            *known = left;
            is_news
        });
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

/// The room of the store for what the broker has not confirmed.
async fn room(reader: &Reader, max_bytes: Option<u64>, clock: &Clock) -> Result<Room, StoreError> {
    let newest = reader.bounds().await?.map_or(Seq::ZERO, |bounds| bounds.last);
    let held = Waiting::of(&reader.cursors().await?, newest).settled();
    reader.room(max_bytes, held, Some(clock.now())).await
}

/// Whether the room ends soon while nobody takes what waits.
#[derive(Debug)]
pub(super) struct Watch {
    low: Option<Duration>,
    is_low: bool,
}

impl Watch {
    /// `low`: less than this is soon; `None`: never.
    pub(super) const fn new(low: Option<Duration>) -> Self {
        Self { low, is_low: false }
    }

    /// Whether it is so now; `None`: nobody knows.
    pub(super) fn look(&mut self, is_connected: bool, left: Option<Duration>) -> Option<bool> {
        let was_low = self.is_low;
        self.is_low = match (self.low.filter(|_| !is_connected), left) {
            (None, _) => false,
            (Some(_), None) => return None,
            // A pace that goes up and down a little must not make it come and go.
            (Some(low), Some(left)) => left < if was_low { low.saturating_add(low / 10) } else { low },
        };
        if self.is_low && !was_low {
            let hours = left.map_or(0, |left| left.as_secs() / 3600);
            warn!(hours, "the broker is away, and soon there is no room for more that waits for it");
        } else if was_low && !self.is_low {
            info!("there is room again for what waits for the broker");
        }
        Some(self.is_low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_low_only_without_the_broker_and_does_not_come_and_go() {
        let hours = |hours| Some(Duration::from_hours(hours));
        let mut watch = Watch::new(hours(20));
        for (is_connected, left, expected) in [
            (false, hours(21), Some(false)),
            (false, None, None),
            (false, hours(19), Some(true)),
            (false, hours(21), Some(true)),
            (false, None, None),
            (false, hours(23), Some(false)),
            (false, Some(Duration::ZERO), Some(true)),
            (true, Some(Duration::ZERO), Some(false)),
        ] {
            assert_eq!(watch.look(is_connected, left), expected, "{is_connected} {left:?}");
        }
        assert_eq!(Watch::new(None).look(false, Some(Duration::ZERO)), Some(false));
    }
}
