//! A source's side of the radio: what its sensor sends, and what the source tells of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::policy::{SensorKey, SensorState};
use super::radio::Delivery;
use super::sensor::Characteristic;
use crate::decode::gatt::date_time::CurrentTime;
use crate::host;
use crate::ids::DeviceId;
use crate::record::RecordKey;
use crate::timeline::{ClockState, Timeline};

/// A source's wish to be told when all that it has handed on is on disk.
#[derive(Debug)]
pub struct CommitWish {
    /// Its device.
    pub device: DeviceId,
    /// Records of the device that must be among it.
    pub records: Vec<RecordKey>,
    /// Told when it is so, with those of the records that are not among it and never will be; dropped if nobody can tell.
    pub granted: oneshot::Sender<Vec<RecordKey>>,
}

/// What a source reports.
#[derive(Debug)]
pub(super) enum Report {
    /// It has understood what came.
    Understood {
        /// It did not know it already.
        is_new: bool,
    },
    /// All records are taken and on disk; or why they are not.
    Finished(Result<(), String>),
    /// Read the sensor's clock; what it says comes like a notification, or [`Delivery::NoTime`].
    ReadClock {
        /// Nothing is amiss if it has none.
        is_optional: bool,
    },
    /// Set the sensor's clock.
    SetClock(CurrentTime),
    /// Write this to the sensor.
    Write(Characteristic, Vec<u8>),
    /// Write the next bytes to its byte stream.
    Send(Vec<u8>),
}

/// A source's side of the radio.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) key: SensorKey,
    /// What the sensor sends.
    pub(super) deliveries: mpsc::Receiver<Delivery>,
    /// What is being done about the sensor.
    pub(super) news: mpsc::Receiver<SensorState>,
    pub(super) reports: mpsc::Sender<(SensorKey, Report)>,
    pub(super) commits: Option<mpsc::Sender<CommitWish>>,
    /// Where systemd tells that the clock was set.
    pub(super) time_sync: Option<&'static Path>,
    /// What the daemon knows of it.
    pub(super) timeline: Option<watch::Receiver<Arc<Timeline>>>,
}

impl Client {
    /// Tells the policy. A sign of life that does not fit is followed by another one.
    pub(super) fn understood(&self, is_new: bool) {
        let _ = self.reports.try_send((self.key, Report::Understood { is_new }));
    }

    /// Whether this machine's clock was set since boot; false where nobody can tell.
    pub(super) async fn is_clock_set(&self) -> bool {
        let known = self.timeline.as_ref().and_then(|known| known.borrow().current().map(|epoch| epoch.state));
        if let Some(synced) = known.and_then(ClockState::synced) {
            return synced;
        }
        let Some(directory) = self.time_sync else { return false };
        // A file of systemd's, in memory; the question may block all the same.
        let looked = tokio::task::spawn_blocking(move || host::is_clock_unsynchronised(directory));
        matches!(looked.await, Ok(Some(false)))
    }

    /// Tells the policy what it must not miss.
    pub(super) async fn report(&self, report: Report) {
        // A radio that has gone takes no reports, and needs none.
        let _ = self.reports.send((self.key, report)).await;
    }

    /// Waits until all that this source has handed on is on disk, and gives those of these records of the device that are
    /// not; `None` if that is not known in time. Without a store behind it there is nothing to wait for.
    pub(super) fn committed(
        &self,
        device: &DeviceId,
        records: Vec<RecordKey>,
        limit: Duration,
    ) -> Option<impl Future<Output = Option<Vec<RecordKey>>> + Send + Sync + use<>> {
        let commits = self.commits.clone().filter(|commits| !commits.is_closed())?;
        let (grant, granted) = oneshot::channel();
        let wish = CommitWish { device: device.clone(), records, granted: grant };
        let asked = async move {
            commits.send(wish).await.ok()?;
            granted.await.ok()
        };
        Some(async move { tokio::time::timeout(limit, asked).await.ok().flatten() })
    }
}
