//! The stored log: every event on disk before anybody forgets it, read again by whoever was away.
//!
//! One task writes ([`Writer`]), any number of tasks read ([`Reader`]), and [`StoreHandle`] puts events into the writer's
//! bounded queue without ever waiting. The log is the only queue there is: the uplink and a dashboard that resumes are
//! cursors over it.
//!
//! SQLite runs only inside `spawn_blocking`, which also holds tokio's paused time still while a disk is working.

mod chat;
mod clock_epochs;
mod codec;
mod directory;
mod fault;
mod handle;
mod inbox;
mod inspect;
mod ledger;
mod look;
#[cfg(test)]
mod mended;
mod minutes;
mod orders;
mod parked;
mod past;
mod proof;
mod queue;
mod reader;
mod records;
mod redated;
mod resume;
mod retention;
mod salvage;
mod schema;
mod search;
mod survey;
mod times;
mod unstored;
mod writer;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::mpsc;
use tracing::warn;

use crate::clock::{Stamp, Wall};
use crate::event::{AlertEvent, LimitChange, ObservationEvent};
use crate::ids::{DeviceId, Epoch, Seq, SourceId};
use crate::notifier::Saved;
use crate::record::KnownRecords;

pub use chat::{MAX_CLEARED, PageWanted};
pub use fault::Fault;
pub use handle::{Refused, StoreHandle, StoreHealth};
pub use inspect::{Holder, Inspection, Soundness, holder, inspect, newest_time, refuse_newer};
pub use look::{Look, Owner, look};
pub use orders::ResendOrder;
pub use parked::{MAX_PARKED, ParkedCount, ParkedRange, ParkedRow};
pub use proof::{Proof, ProvenPage, ProvenRow};
pub use queue::{PLACES_A_COMMAND, QUEUE, RESERVED_FOR_ALERTS, RESERVED_FOR_PEOPLE};
pub use reader::{EpochInfo, MAX_READ, Reader};
pub use resume::{MAX_LOST_RANGES, ResumePoint};
pub use salvage::SalvageReport;
pub use search::{MAX_SCANNED, Scan, Scanned, StreamInfo};
pub use survey::{Counted, Room, Rows};
pub use writer::{MAX_BATCH, RETRY_EVERY, Writer};

use directory::Directory;
use ledger::Ledger;

/// Shortest and longest wait for a group of readings.
pub const GROUP_COMMIT_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// The smallest budget; a smaller one is raised to it. The empty tables take about 200 KiB of it.
pub const MIN_BYTES: u64 = 512 << 10;
/// Reports of dropped ranges that may wait to be taken. Later ones are joined to the last.
const DROPPED_QUEUE: usize = 16;
/// Reports of damaged databases that may wait to be taken; further ones are only in the log.
const SALVAGES: usize = 8;

/// How the store behaves.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long a reading may wait for others before they are committed together; kept within
    /// [`GROUP_COMMIT_BOUNDS`]. Other events never wait.
    pub group_commit: Duration,
    /// How long acknowledged readings are kept.
    pub retention: Duration,
    /// How long acknowledged events other than readings are kept.
    pub event_retention: Duration,
    /// Most bytes the database may use; beyond it the oldest readings go. `None`: a tenth of the free space, at most
    /// 512 MiB.
    pub max_bytes: Option<u64>,
    /// The cursors that hold rows back: a row is acknowledged when all of these have passed it. One that was never set
    /// stands before the first row. Without any, every row counts as acknowledged.
    pub holding_lanes: Vec<String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            group_commit: Duration::from_secs(1),
            retention: DAY,
            event_retention: DAY * 30,
            max_bytes: None,
            holding_lanes: Vec::new(),
        }
    }
}

/// Numbers `first`..=`last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqRange {
    /// The first.
    pub first: Seq,
    /// The last; not before `first`.
    pub last: Seq,
}

/// Rows that were dropped for want of space and that the backend does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedRows {
    /// The first of them.
    pub first: Seq,
    /// The last of them.
    pub last: Seq,
    /// Zero: it had not confirmed any of the range. Else so many of the range, at most: those that the broker had not taken.
    pub parked: u64,
}

/// What is remembered of a source's device from one run of the daemon to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// The device.
    pub device: DeviceId,
    /// The serial number to which it is bound.
    pub serial_number: Option<String>,
    /// Another serial number that it told, and that nobody has confirmed.
    pub doubted: Option<String>,
}

/// The changes of limits that people made and that held when the last run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptChanges {
    /// Those that can be read.
    pub changes: Vec<LimitChange>,
    /// Those that cannot, each as `rule of patient`.
    pub unreadable: Vec<String>,
    /// When the last run ended or wrote its last event, by the wall clock. `None`: there was none.
    pub last_run: Option<Wall>,
}

/// What a person entered about a patient in an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptObservation {
    /// What.
    pub event: ObservationEvent,
    /// The machine has not started anew since: its monotonic clock has gone on.
    pub is_of_this_boot: bool,
}

/// A store that was opened for one run of the daemon.
#[derive(Debug)]
pub struct Opened {
    /// The task that writes; nothing is stored until it runs.
    pub writer: Writer,
    /// Reads what is committed.
    pub reader: Reader,
    /// Puts events into the writer's queue.
    pub handle: StoreHandle,
    /// This run.
    pub epoch: Epoch,
    /// The number of this run's first event.
    pub first_seq: Seq,
    /// The latest state of each alert that had not ended when the last run did, oldest change first.
    pub open_alerts: Vec<AlertEvent>,
    /// The changes of limits that people made and that held when the last run ended.
    pub limit_changes: KeptChanges,
    /// What each source's device is bound to.
    pub identities: BTreeMap<SourceId, DeviceIdentity>,
    /// Which records of each device are stored.
    pub records: BTreeMap<DeviceId, KnownRecords>,
    /// What waits for people.
    pub inboxes: Saved,
    /// What people entered about patients, the latest of each, as far as it can still hold.
    pub observations: Vec<KeptObservation>,
    /// The newest messages of the care team by their identity, each with its event.
    pub messages: Vec<(uuid::Uuid, Seq, Wall)>,
    /// Ranges in which readings (or, last of all, events) were dropped for want of space before they were acknowledged.
    pub dropped: mpsc::Receiver<DroppedRows>,
    /// What was saved, if the last database was damaged.
    pub salvaged: Option<SalvageReport>,
    /// The same, and what is saved of each database that is found to be damaged while this run goes on.
    pub salvages: mpsc::Receiver<SalvageReport>,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory is missing, read-only or full.
    #[error("state directory {path}: {doing}: {source}")]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another daemon works in the state directory.
    #[error("state directory {path} is in use by another vitalbridge{}", owner.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other daemon's process, if it said so.
        owner: Option<u32>,
    },
    /// The database has tables of a later version.
    #[error(
        "{path} was written by a newer vitalbridge (schema {found}, this version knows {known}); install that version, or move the file away"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The last schema version this program knows.
        known: usize,
    },
    /// The database has tables of an earlier version, and was only to be looked at.
    #[error(
        "{path} was written by an older vitalbridge (schema {found}, this version knows {known}); start the daemon of this version once, which brings it up to date"
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The last schema version this program knows.
        known: usize,
    },
    /// SQLite failed.
    #[error("{path}: {doing}: {}", fault::words(source))]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// SQLite's own check found damage.
    #[error("{path} is damaged: {finding}")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first finding.
        finding: String,
    },
    /// A row of the database makes no event.
    #[error("{path}: row {seq} cannot be read: {what}")]
    Row {
        /// The database.
        path: PathBuf,
        /// The row's number.
        seq: Seq,
        /// What is wrong with it.
        what: String,
    },
    /// An event came with a number that was already given.
    #[error("event {seq} came after event {newest}")]
    OutOfOrder {
        /// The event's number.
        seq: Seq,
        /// The newest number in the log.
        newest: Seq,
    },
    /// An event cannot be written as text.
    #[error("event {seq} cannot be written: {source}")]
    Unwritable {
        /// The event's number.
        seq: Seq,
        /// What serde said.
        source: serde_json::Error,
    },
    /// The daemon stopped while the disk did not take the last events.
    #[error("{events} events were not stored before the end: {reason}")]
    LeftBehind {
        /// How many.
        events: usize,
        /// Why.
        reason: String,
    },
    /// A thread of the store ended before its work did.
    #[error("the store's thread ended: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl StoreError {
    /// Makes errors of SQLite while doing something with one file.
    fn sqlite(path: &Path, doing: &'static str) -> impl Fn(rusqlite::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Sqlite { path: path.clone(), doing, source }
    }

    /// Which fault of the disk or the database this is, if it is one.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Sqlite { source, .. } => Some(Fault::of(source)),
            Self::Damaged { .. } => Some(Fault::Corrupt),
            _ => None,
        }
    }

    /// True if the database itself is bad. Trying again is no use: it is salvaged by the [`Writer`], or by the next
    /// [`open`].
    pub fn is_damage(&self) -> bool {
        self.fault().is_some_and(Fault::is_damage)
    }

    /// True if the disk may work again later: full, failing, read-only, or locked by somebody.
    fn may_pass(&self) -> bool {
        match self {
            // The state directory itself, while a damaged database is replaced.
            Self::Directory { .. } => true,
            _ => self.fault().is_some_and(Fault::may_pass),
        }
    }

    /// True if a disk that takes no writes is the reason, which a store that begins outlasts as one that runs does. Files of
    /// somebody else are a mistake of the installation, and a lock is let go of soon.
    fn is_outlasted(&self) -> bool {
        match self {
            Self::Directory { source, .. } => {
                let is_broken = source.raw_os_error() == Some(Errno::IO.raw_os_error());
                is_broken
                    || matches!(
                        source.kind(),
                        ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                    )
            }
            _ => matches!(self.fault(), Some(Fault::Full | Fault::ReadOnly | Fault::InputOutput)),
        }
    }
}

/// What earlier runs left behind, besides the log.
#[derive(Debug)]
struct Remembered {
    identities: BTreeMap<SourceId, DeviceIdentity>,
    records: BTreeMap<DeviceId, KnownRecords>,
    limit_changes: KeptChanges,
    inboxes: Saved,
    observations: Vec<KeptObservation>,
    messages: Vec<(uuid::Uuid, Seq, Wall)>,
}

/// A database in which a run has begun.
struct Begun {
    ledger: Ledger,
    first_seq: Seq,
    open_alerts: Vec<AlertEvent>,
    remembered: Remembered,
    salvaged: Option<SalvageReport>,
    /// The disk takes no writes: nothing of the run is in the database yet.
    fault: Option<StoreError>,
}

/// Opens the store in `dir` and begins a run of the daemon at the number after the newest stored one. Blocks.
///
/// A damaged database is moved aside and what can be read of it is copied into a new one; see [`SalvageReport`]. On a disk
/// that takes no writes but can be read the store begins as it goes on when a disk turns so while it runs: see
/// [`StoreHealth`].
///
/// # Errors
/// Somebody else has the directory, it is not ours, or the database cannot even be read.
pub fn open(dir: &Path, options: &StoreOptions, epoch: Epoch, boot_id: &str, now: Stamp) -> Result<Opened, StoreError> {
    let directory = Arc::new(Directory::claim(dir)?);
    let begun = match begin(&directory, options, &epoch, (boot_id, now)) {
        Err(error) if error.is_outlasted() => begin_late(&directory, options, &epoch, (boot_id, now), error)?,
        begun => begun?,
    };
    let Begun { ledger, first_seq, open_alerts, remembered, salvaged, fault } = begun;
    let (handle, ends) = handle::pair(Seq(first_seq.0.saturating_sub(1)), ledger.timeline()?, ledger.parked());
    let connect = if fault.is_some() { Reader::open_frozen } else { Reader::open };
    let reader = connect(&directory, &handle.timeline())?;
    let (report, dropped) = mpsc::channel(DROPPED_QUEUE);
    let (salvaged_in, salvages) = mpsc::channel(SALVAGES);
    if let Some(report) = &salvaged {
        // The queue is empty.
        let _taken = salvaged_in.try_send(report.clone());
    }
    let (shortest, longest) = GROUP_COMMIT_BOUNDS;
    let group_commit = options.group_commit.clamp(shortest, longest);
    let grows = options.max_bytes.is_none();
    let writer = Writer::new(directory, ledger, ends, (report, salvaged_in), (group_commit, grows), now);
    let writer = match &fault {
        Some(error) => writer.begin_failing(error),
        None => writer,
    };
    Ok(Opened {
        writer,
        reader,
        handle,
        epoch,
        first_seq,
        open_alerts,
        limit_changes: remembered.limit_changes,
        identities: remembered.identities,
        records: remembered.records,
        inboxes: remembered.inboxes,
        observations: remembered.observations,
        messages: remembered.messages,
        dropped,
        salvaged,
        salvages,
    })
}

/// Opens the database, or replaces it if it is damaged, and begins the run in it.
fn begin(
    directory: &Directory,
    options: &StoreOptions,
    epoch: &Epoch,
    (boot_id, now): (&str, Stamp),
) -> Result<Begun, StoreError> {
    directory.finish_replacement()?;
    directory.create_database()?;
    let max_bytes = budget(directory, options)?;
    let path = directory.database();
    let begin_in = |mut ledger: Ledger, salvaged: Option<SalvageReport>| -> Result<Begun, StoreError> {
        ledger.limit(max_bytes, options)?;
        let open_alerts = ledger.open_alerts()?;
        let remembered = remembered(&ledger, boot_id, now)?;
        let first_seq = ledger.begin_epoch(epoch, boot_id, now)?;
        Ok(Begun { ledger, first_seq, open_alerts, remembered, salvaged, fault: None })
    };
    let try_open = || Ledger::open(&path, &directory.suspicion()).and_then(|ledger| begin_in(ledger, None));
    let sound = match try_open() {
        // The disk was full before this start; the writer outlasts that, once it is there.
        Err(error) if error.may_pass() && directory.release_reserve()? => try_open(),
        other => other,
    };
    match sound {
        Ok(begun) => {
            directory.make_reserve();
            Ok(begun)
        }
        Err(error) if error.is_damage() => {
            let (ledger, report) = salvage::replace(directory, &error, now)?;
            begin_in(ledger, Some(report))
        }
        Err(error) => Err(error),
    }
}

/// Begins the run beside a database that can only be read; `fault`: why.
fn begin_late(
    directory: &Directory,
    options: &StoreOptions,
    epoch: &Epoch,
    (boot_id, now): (&str, Stamp),
    fault: StoreError,
) -> Result<Begun, StoreError> {
    let path = directory.database();
    let looking = || -> Result<_, StoreError> {
        let mut ledger = Ledger::look_at(&path)?;
        ledger.limit(budget(directory, options)?, options)?;
        let (open_alerts, remembered) = (ledger.open_alerts()?, remembered(&ledger, boot_id, now)?);
        let first_seq = ledger.begin_late(epoch, boot_id, now);
        Ok((ledger, first_seq, open_alerts, remembered))
    };
    match looking() {
        Ok((ledger, first_seq, open_alerts, remembered)) => {
            Ok(Begun { ledger, first_seq, open_alerts, remembered, salvaged: None, fault: Some(fault) })
        }
        Err(error) => {
            warn!(%error, "what is stored cannot be read either");
            Err(fault)
        }
    }
}

fn budget(directory: &Directory, options: &StoreOptions) -> Result<u64, StoreError> {
    Ok(options.max_bytes.map_or_else(|| directory.default_budget(), Ok)?.max(MIN_BYTES))
}

/// Reads what earlier runs left behind.
fn remembered(ledger: &Ledger, boot_id: &str, now: Stamp) -> Result<Remembered, StoreError> {
    Ok(Remembered {
        identities: ledger.identities()?,
        records: ledger.known_records()?,
        limit_changes: ledger.limit_changes()?,
        inboxes: ledger.inboxes()?,
        observations: ledger.observations(boot_id, now)?,
        messages: ledger.messages()?,
    })
}
