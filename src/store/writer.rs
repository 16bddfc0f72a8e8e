//! The task that writes: gathers readings into groups, lets nothing else wait, and outlasts a disk that fails.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::directory::Directory;
use super::handle::{Ends, Moves, StoreHealth};
use super::ledger::{Committed, Ledger};
use super::queue::is_reading;
use super::{DroppedRows, SalvageReport, SeqRange, StoreError};
use crate::clock::{Mono, Stamp};
use crate::event::Event;

/// Most events in one transaction.
pub const MAX_BATCH: usize = 1024;
/// How long a disk that failed is left alone.
pub const RETRY_EVERY: Duration = Duration::from_secs(10);
/// A database is checked or replaced at once only if that was not done within this time before: a disk that spoils
/// whatever is written must not keep everybody busy.
const REPAIR_SPAN: Duration = Duration::from_mins(1);

/// The room of the disk is looked at this often: a disk that was full at the start gives a small budget, and no reserve.
const LOOK_AT_ROOM_EVERY: Duration = Duration::from_mins(1);

/// Writes events to the database until it is told to stop.
#[derive(Debug)]
pub struct Writer {
    directory: Arc<Directory>,
    /// Locked by one blocking thread at a time, never across an `.await`.
    ledger: Arc<Mutex<Ledger>>,
    ends: Ends,
    dropped: mpsc::Sender<DroppedRows>,
    /// A range that waits for room in `dropped`.
    unreported: Option<DroppedRows>,
    group_commit: Duration,
    /// Nobody has configured a budget: it follows the disk, upwards only.
    grows: bool,
    /// When the room of the disk was looked at last.
    looked: Option<Mono>,
    /// Events taken from the queue and not stored yet.
    batch: Vec<Arc<Event>>,
    /// The time of the newest event; the start until there is one.
    latest: Stamp,
    state: State,
    /// What is wrong with the database, until it is replaced.
    damage: Option<StoreError>,
    /// When the database was checked last because somebody met damage.
    checked: Option<Mono>,
    /// When it was replaced last.
    replaced: Option<Mono>,
    /// The last try to replace it was in vain: the next one waits.
    replacing_failed: bool,
    salvages: mpsc::Sender<SalvageReport>,
}

/// Whether the disk takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Healthy,
    /// The last commit failed: nothing more is taken from the queue, and the next try comes with the timer.
    Failing,
}

/// What woke the writer.
enum Wake {
    Ping,
    Timer,
    /// A group is complete.
    Hurry,
    /// Somebody has met damage.
    Suspicion,
    /// The daemon ends, or every handle is gone.
    End,
}

impl Writer {
    pub(super) fn new(
        directory: Arc<Directory>,
        ledger: Ledger,
        ends: Ends,
        (dropped, salvages): (mpsc::Sender<DroppedRows>, mpsc::Sender<SalvageReport>),
        (group_commit, grows): (Duration, bool),
        now: Stamp,
    ) -> Self {
        Self {
            directory,
            ledger: Arc::new(Mutex::new(ledger)),
            ends,
            dropped,
            unreported: None,
            group_commit,
            grows,
            looked: None,
            batch: Vec::with_capacity(MAX_BATCH),
            latest: now,
            state: State::Healthy,
            damage: None,
            checked: None,
            replaced: None,
            replacing_failed: false,
            salvages,
        }
    }

    /// The disk failed already when the store was opened.
    pub(super) fn begin_failing(mut self, error: &StoreError) -> Self {
        self.degrade(error);
        self
    }

    /// Stores events until `stop` is cancelled or every handle is gone; then stores what still waits, notes the end of
    /// the run and empties the write-ahead log.
    ///
    /// # Errors
    /// An event out of order, or events that could not be stored before the end. A disk that is full or fails is no error:
    /// see [`StoreHealth`]. Nor is damage of the database: it is replaced by what can be read of it.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let runtime = Handle::current();
        match runtime.runtime_flavor() {
            // A thread of its own, which may block: a commit costs no change of threads, and holds up nobody.
            RuntimeFlavor::MultiThread => {
                tokio::task::spawn_blocking(move || runtime.block_on(self.turn(stop))).await?
            }
            // Everything runs on this thread, perhaps in paused time, which a thread that never ends would hold still.
            _ => self.turn(stop).await,
        }
    }

    async fn turn(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut timer = pin!(sleep(self.pause()));
        loop {
            match self.wait(&stop, timer.as_mut()).await {
                Wake::Ping => continue,
                Wake::End => {
                    // What is queued is still taken; nothing new is.
                    self.ends.queue.close();
                    return self.finish().await;
                }
                Wake::Suspicion => self.check().await?,
                Wake::Hurry => {
                    let taken = self.ends.queue.take_into(&mut self.batch);
                    if !self.is_complete(taken) {
                        continue;
                    }
                    self.commit().await?;
                }
                Wake::Timer => {
                    // A run that began on a disk that fails has nothing to try with yet.
                    if self.state == State::Healthy || self.batch.is_empty() {
                        self.ends.queue.take_into(&mut self.batch);
                    }
                    self.commit().await?;
                }
            }
            // What is still queued behind a full batch may be what must not wait.
            if self.ends.queue.len() > 0 {
                self.ends.queue.hurry();
            }
            timer.set(sleep(self.pause()));
        }
    }

    /// How long to wait before the next group, or the next try.
    fn pause(&self) -> Duration {
        if self.state == State::Healthy {
            self.group_commit
        } else if self.damage.is_some() && !self.replacing_failed && self.is_due(self.replaced) {
            Duration::ZERO
        } else {
            RETRY_EVERY
        }
    }

    /// True if this was not done lately, by the time of the events.
    fn is_due(&self, last: Option<Mono>) -> bool {
        last.is_none_or(|last| self.latest.mono.since(last) >= REPAIR_SPAN)
    }

    /// True if the batch, of which the last `taken` events are new, is to be stored now.
    fn is_complete(&self, taken: usize) -> bool {
        // A full batch is not looked through: that would touch each event once more before its commit.
        self.batch.len() >= MAX_BATCH || self.batch.iter().rev().take(taken).any(|event| !is_reading(event))
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, stop: &CancellationToken, timer: std::pin::Pin<&mut Sleep>) -> Wake {
        // While the disk fails events stay in the queue, which is what bounds them, until the next try.
        let takes_events = self.state == State::Healthy;
        tokio::select! {
            biased;
            // The watchdog's question: rare, and never behind a full queue.
            question = self.ends.pings.recv() => match question {
                Some(answer) => {
                    // Nobody waits for the answer any more if this fails.
                    let _ = answer.send(());
                    Wake::Ping
                }
                None => Wake::End,
            },
            // The daemon ends.
            () = stop.cancelled() => Wake::End,
            // A group is due, or the disk gets another chance. Readings and moved cursors wake nobody: they are found
            // when this comes round.
            () = timer => Wake::Timer,
            // A reader cannot read.
            () = self.directory.suspected(), if takes_events => Wake::Suspicion,
            // What is no reading has come, or a full batch.
            () = self.ends.queue.hurried(), if takes_events => Wake::Hurry,
        }
    }

    /// Stores the batch and the moved cursors, or keeps them if the disk fails in a way that may pass.
    async fn commit(&mut self) -> Result<(), StoreError> {
        if !self.replace().await? {
            return Ok(());
        }
        let moved = self.ends.moved.take();
        let unreported = self.unreported.take();
        self.report(unreported);
        if self.batch.is_empty() && moved.is_empty() && !self.ends.moved.has_clocks() {
            return Ok(());
        }
        if let Some(event) = self.batch.last() {
            self.latest = event.at;
        }
        let (moved, outcome) = self.on_disk(moved).await?;
        match outcome {
            Ok(committed) => {
                self.ends.moved.put_back(Moves { cursors: committed.ahead, ..Moves::default() });
                self.ends.parked.send_if_modified(|count| count.store(committed.parked, &moved.parking));
                self.report(committed.dropped.map(|SeqRange { first, last }| DroppedRows { first, last, parked: 0 }));
                self.report(committed.parked_gone);
                self.recover();
                self.ends.durable.send_if_modified(|durable| {
                    let is_news = *durable != committed.newest;
                    *durable = committed.newest;
                    is_news
                });
                self.batch.clear();
                Ok(())
            }
            Err(error) if error.may_pass() => {
                self.ends.moved.put_back(moved);
                self.degrade(&error);
                Ok(())
            }
            Err(error) if error.is_damage() => {
                self.ends.moved.put_back(moved);
                self.on_damage(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// From now on nothing is stored until the database is replaced.
    fn on_damage(&mut self, problem: StoreError) {
        if let Err(error) = self.directory.suspicion().note() {
            warn!(%error, "damage of the database cannot be noted for the next start");
        }
        self.degrade(&problem);
        self.damage = Some(problem);
    }

    /// Replaces a damaged database by one with what can be read of it; true if there is nothing left to do. Readings and
    /// alerts go on meanwhile, and what they bring waits in the queue.
    async fn replace(&mut self) -> Result<bool, StoreError> {
        let Some(problem) = self.damage.take() else { return Ok(true) };
        error!(error = %problem, "the database is damaged; it is replaced by one with what can be read of it");
        let (ledger, directory, now) = (Arc::clone(&self.ledger), Arc::clone(&self.directory), self.latest);
        let work = move || {
            let mended = ledger.lock().unwrap_or_else(PoisonError::into_inner).mend(&directory, &problem, now);
            (problem, mended)
        };
        let (problem, mended) = self.beside(work).await?;
        match mended {
            Ok(report) => {
                (self.replaced, self.replacing_failed) = (Some(self.latest.mono), false);
                self.recover();
                if let Err(unsent) = self.salvages.try_send(report) {
                    error!(report = ?unsent.into_inner(), "nobody takes the report of a damaged database");
                }
                Ok(true)
            }
            Err(error) if error.may_pass() || error.is_damage() => {
                warn!(%error, "the damaged database cannot be replaced yet");
                self.replacing_failed = true;
                self.degrade(&error);
                self.damage = Some(problem);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Somebody has met damage: looks through the whole database.
    async fn check(&mut self) -> Result<(), StoreError> {
        if !self.is_due(self.checked) {
            return Ok(());
        }
        self.checked = Some(self.latest.mono);
        let ledger = Arc::clone(&self.ledger);
        let work = move || ledger.lock().unwrap_or_else(PoisonError::into_inner).check();
        match self.beside(work).await? {
            Ok(()) => {
                warn!(
                    "somebody met damage in the database where a check finds none; it is opened anew by all who read"
                );
                self.directory.renew();
                Ok(())
            }
            Err(error) if error.is_damage() => {
                self.on_damage(error);
                Ok(())
            }
            Err(error) if error.may_pass() => {
                self.degrade(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Does work that takes long on another thread, and answers the watchdog meanwhile.
    async fn beside<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
        let mut working = tokio::task::spawn_blocking(work);
        loop {
            tokio::select! {
                biased;
                done = &mut working => return Ok(done?),
                Some(answer) = self.ends.pings.recv() => {
                    // Nobody waits for the answer any more if this fails.
                    let _ = answer.send(());
                }
            }
        }
    }

    /// Commits on a thread that may block, and gives the cursors back; the batch is in its place again.
    ///
    /// That thread itself tells what is durable, where nothing has to be told first (dropped rows, a disk that works
    /// again): whoever waits for it has one change of threads less to wait for.
    async fn on_disk(&mut self, moved: Moves) -> Result<(Moves, Result<Committed, StoreError>), StoreError> {
        let mut batch = std::mem::take(&mut self.batch);
        let ledger = Arc::clone(&self.ledger);
        let durable = self.ends.durable.clone();
        let marks = Arc::clone(&self.ends.moved);
        let is_retry = self.state == State::Failing;
        let looks_at_room = is_retry || self.is_room_due();
        if looks_at_room {
            self.looked = Some(self.latest.mono);
        }
        let grows = self.grows;
        let directory = Arc::clone(&self.directory);
        let work = move || {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let reopened =
                if is_retry { ledger.catch_up(&directory).and_then(|()| ledger.reopen()).map(Some) } else { Ok(None) };
            let outcome = reopened.and_then(|newest| {
                // A commit that reported an error may have reached the disk all the same.
                batch.retain(|event| newest.is_none_or(|newest| event.seq > newest));
                let clocks = marks.take_clocks();
                ledger.commit(&batch, &moved, &clocks).inspect_err(|_| marks.put_clocks_back(clocks))
            });
            if looks_at_room && outcome.is_ok() {
                directory.make_reserve();
                if grows {
                    grow(&mut ledger, &directory);
                }
            }
            if let Ok(committed) = &outcome
                && committed.dropped.is_none()
                && committed.parked_gone.is_none()
                && !is_retry
            {
                durable.send_replace(committed.newest);
            }
            (batch, moved, outcome)
        };
        let (batch, moved, outcome) = match Handle::current().runtime_flavor() {
            // This is the writer's own thread.
            RuntimeFlavor::MultiThread => work(),
            // Paused time stands still until the disk has answered.
            _ => tokio::task::spawn_blocking(work).await?,
        };
        self.batch = batch;
        Ok((moved, outcome))
    }

    fn is_room_due(&self) -> bool {
        self.looked.is_none_or(|last| self.latest.mono.since(last) >= LOOK_AT_ROOM_EVERY)
    }

    fn recover(&mut self) {
        if self.state == State::Failing {
            info!("events are stored again");
            self.state = State::Healthy;
            self.ends.queue.end_telling();
            self.ends.health.send_replace(StoreHealth::Ok);
        }
    }

    fn degrade(&mut self, error: &StoreError) {
        let reason = error.to_string();
        let is_known =
            matches!(&*self.ends.health.borrow(), StoreHealth::Degraded { reason: told, .. } if *told == reason);
        if !is_known {
            warn!(%error, "events cannot be stored and wait in memory");
        }
        self.state = State::Failing;
        self.ends.queue.begin_telling(&self.batch);
        let oldest = self.batch.first().map_or(self.latest, |event| event.at);
        self.ends.health.send_if_modified(|health| {
            let since = match health {
                StoreHealth::Degraded { since, .. } => *since,
                StoreHealth::Ok => oldest,
            };
            let news = StoreHealth::Degraded { reason, since };
            let is_news = *health != news;
            *health = news;
            is_news
        });
    }

    /// Hands a dropped range on, or joins it to the next one if nobody has taken the last ones.
    fn report(&mut self, rows: Option<DroppedRows>) {
        let Some(rows) = rows else { return };
        let joined = self.unreported.take().map_or(rows, |waiting| DroppedRows {
            first: waiting.first.min(rows.first),
            last: waiting.last.max(rows.last),
            // A range of which nothing was confirmed says more than a count.
            parked: if waiting.parked == 0 || rows.parked == 0 {
                0
            } else {
                waiting.parked.saturating_add(rows.parked)
            },
        });
        let DroppedRows { first, last, parked } = joined;
        warn!(%first, %last, parked, "rows that the backend does not have were dropped to make room");
        match self.dropped.try_send(joined) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(rows)) => self.unreported = Some(rows),
            Err(mpsc::error::TrySendError::Closed(_)) => error!("nobody takes reports of dropped rows"),
        }
    }

    /// Stores what is left, and ends the run. A disk that fails gets one more chance, and so does a damaged database.
    async fn finish(mut self) -> Result<(), StoreError> {
        loop {
            let was_sound = self.damage.is_none();
            self.commit().await?;
            if was_sound && self.damage.is_some() {
                continue;
            }
            if self.state == State::Failing {
                return Err(self.left_behind());
            }
            if self.ends.queue.take_into(&mut self.batch) == 0 {
                break;
            }
        }
        let Self { ledger, directory, latest, .. } = self;
        tokio::task::spawn_blocking(move || {
            let ended = ledger.lock().unwrap_or_else(PoisonError::into_inner).end_epoch(latest);
            // Closed here, because closing may write; and the directory is free only after that.
            drop((ledger, directory));
            ended
        })
        .await?
    }

    fn left_behind(self) -> StoreError {
        let events = self.batch.len().saturating_add(self.ends.queue.len());
        let reason = match &*self.ends.health.borrow() {
            StoreHealth::Degraded { reason, .. } => reason.clone(),
            StoreHealth::Ok => String::new(),
        };
        StoreError::LeftBehind { events, reason }
    }
}

/// Raises the budget to what the disk allows by now.
fn grow(ledger: &mut Ledger, directory: &Directory) {
    if let Err(error) = directory.default_budget().and_then(|budget| ledger.grow(budget)) {
        warn!(%error, "the budget of the store stays as it is");
    }
}
