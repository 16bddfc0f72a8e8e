//! How full the disk is and how long the log has room: looked at once a minute, for whoever asks the bridge.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::clock::Clock;
use crate::host;
use crate::ids::Seq;
use crate::metrics::Metrics;
use crate::store::Reader;
use crate::wire::{DiskNow, LogNow, StorageNow};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// What is looked at.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) state_dir: PathBuf,
    pub(super) reader: Reader,
    /// The budget of the log; `None`: the default.
    pub(super) max_bytes: Option<u64>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
}

impl Storing {
    /// Looks as long as it is polled.
    pub(super) async fn watch(self) {
        let mut is_failing = false;
        loop {
            let (disk, log) = (self.disk().await, self.log().await);
            is_failing = match (&disk, &log) {
                (Ok(_), Ok(_)) => false,
                (disk, log) => {
                    if !is_failing {
                        let (disk, log) = (disk.as_ref().err(), log.as_ref().err());
                        let path = self.state_dir.display();
                        warn!(%path, ?disk, ?log, "it is unknown how full the disk or the log is");
                    }
                    true
                }
            };
            let at = self.clock.now().wall.to_string();
            self.metrics.storage.send_replace(Some(StorageNow { at, disk: disk.ok(), log: log.ok() }));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn disk(&self) -> anyhow::Result<DiskNow> {
        let path = self.state_dir.clone();
        // A dead disk blocks, and must not block anybody else.
        let space = tokio::task::spawn_blocking(move || host::disk_space(&path)).await??;
        let (used_bytes, available_bytes) = (space.used_bytes, space.available_bytes);
        Ok(DiskNow { used_bytes, available_bytes, used_percent: space.used_percent() })
    }

    async fn log(&self) -> anyhow::Result<LogNow> {
        // As if every row had to be kept: then it lasts until the first one has to go.
        let room = self.reader.room(self.max_bytes, Seq::ZERO, Some(self.clock.now())).await?;
        let full_in_seconds = room.left.map(|left| left.as_secs());
        Ok(LogNow { used_bytes: room.used_bytes, max_bytes: room.max_bytes, full_in_seconds })
    }
}
