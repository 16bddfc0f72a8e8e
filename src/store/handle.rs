//! The side of the store that everybody may hold: puts events into the queue and never waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::SeqRange;
use super::parked::{ParkedCount, ParkedRow, Parking, Parkings};
use super::queue::Queue;
use super::survey::Rows;
use crate::clock::Stamp;
use crate::event::Event;
use crate::ids::Seq;
use crate::timeline::{ClockEpoch, MAX_EPOCHS, Timeline};

/// Questions whether the writer is alive that may wait; each comes from a task that waits for the answer.
const PINGS: usize = 8;

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The disk has not kept up.
    #[error("the store's queue is full")]
    Full,
    /// The writer has ended.
    #[error("the store has stopped")]
    Stopped,
}

/// Whether events reach the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// They do.
    Ok,
    /// They wait in memory; the writer tries again by itself.
    Degraded {
        /// What the disk said.
        reason: String,
        /// The time of the oldest event that waits.
        since: Stamp,
    },
}

/// What readers of the log want to have remembered: it goes to the disk with the next group.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// The newest place of each lane. As many as there are lanes.
    pub(super) cursors: BTreeMap<String, Seq>,
    /// Rows that were parked or taken up again, in this order.
    pub(super) parking: Parkings,
    /// Orders to send a range again that were carried out. As many as there may be orders.
    pub(super) resent: Vec<Seq>,
}

impl Moves {
    pub(super) fn is_empty(&self) -> bool {
        self.cursors.is_empty() && self.parking.is_empty() && self.resent.is_empty()
    }
}

/// Moves that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Moved {
    moves: Mutex<Moves>,
    /// The cursors that were taken and are on their way to the disk. Locked after `moves`.
    storing: Mutex<BTreeMap<String, Seq>>,
    /// Clock epochs that were begun; the writer takes them at least once a second.
    clocks: Mutex<Vec<ClockEpoch>>,
}

impl Moved {
    fn lock(&self) -> std::sync::MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storing(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Seq>> {
        self.storing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all moves; [`Self::put_back`] follows once they are stored or cannot be.
    pub(super) fn take(&self) -> Moves {
        let mut waiting = self.lock();
        let moves = std::mem::take(&mut *waiting);
        self.storing().clone_from(&moves.cursors);
        moves
    }

    /// The cursors that are not known to be on the disk.
    fn unstored(&self) -> BTreeMap<String, Seq> {
        let waiting = self.lock();
        let mut all = self.storing().clone();
        all.extend(waiting.cursors.iter().map(|(lane, seq)| (lane.clone(), *seq)));
        all
    }

    pub(super) fn has_clocks(&self) -> bool {
        !self.clocks.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes all clock epochs.
    pub(super) fn take_clocks(&self) -> Vec<ClockEpoch> {
        std::mem::take(&mut *self.clocks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add_clock(&self, epoch: ClockEpoch) {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.push(epoch);
        let too_many = clocks.len().saturating_sub(MAX_EPOCHS);
        clocks.drain(..too_many);
    }

    /// Puts clock epochs back that could not be stored; of too many the oldest go.
    pub(super) fn put_clocks_back(&self, mut epochs: Vec<ClockEpoch>) {
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.append(&mut clocks);
        epochs.drain(..epochs.len().saturating_sub(MAX_EPOCHS));
        *clocks = epochs;
    }

    /// What was taken is stored, but for these, which are put back except where a newer one has come.
    pub(super) fn put_back(&self, before: Moves) {
        let mut moves = self.lock();
        self.storing().clear();
        for (lane, seq) in before.cursors {
            moves.cursors.entry(lane).or_insert(seq);
        }
        moves.parking.put_before(before.parking);
        moves.resent.extend(before.resent);
    }
}

/// Puts events into the writer's queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    queue: Arc<Queue>,
    pings: mpsc::Sender<oneshot::Sender<()>>,
    moved: Arc<Moved>,
    durable: watch::Receiver<Seq>,
    health: watch::Receiver<StoreHealth>,
    timeline: watch::Sender<Arc<Timeline>>,
    parked: watch::Sender<ParkedCount>,
}

/// The writer's ends of what [`StoreHandle`] holds.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) queue: Arc<Queue>,
    /// Ends with the last handle.
    pub(super) pings: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) moved: Arc<Moved>,
    pub(super) durable: watch::Sender<Seq>,
    pub(super) health: watch::Sender<StoreHealth>,
    pub(super) parked: watch::Sender<ParkedCount>,
}

/// A handle and the writer's ends; `durable` is the newest stored number, `timeline` what is known of clocks, `parked` how
/// many rows the broker did not take.
pub(super) fn pair(durable: Seq, timeline: Timeline, parked: u64) -> (StoreHandle, Ends) {
    let queue = Arc::new(Queue::default());
    let (pings_in, pings) = mpsc::channel(PINGS);
    let (durable, durable_out) = watch::channel(durable);
    let (health, health_out) = watch::channel(StoreHealth::Ok);
    let moved = Arc::new(Moved::default());
    let handle = StoreHandle {
        queue: Arc::clone(&queue),
        pings: pings_in,
        moved: Arc::clone(&moved),
        durable: durable_out,
        health: health_out,
        timeline: watch::Sender::new(Arc::new(timeline)),
        parked: watch::Sender::new(ParkedCount::of(parked)),
    };
    let parked = handle.parked.clone();
    (handle, Ends { queue, pings, moved, durable, health, parked })
}

impl StoreHandle {
    /// Queues an event; events must come in the order of their numbers.
    ///
    /// Never waits. An alert, limits and the word of a loss are refused when no place is left, other events when only
    /// [`RESERVED_FOR_ALERTS`](super::RESERVED_FOR_ALERTS) are, and a reading or a record already when
    /// [`RESERVED_FOR_PEOPLE`](super::RESERVED_FOR_PEOPLE) are beside them. The number of a refused event stays empty in
    /// the log and is reported as lost to those who resume.
    ///
    /// # Errors
    /// The queue is full for events of this kind, or the writer has ended.
    pub fn try_append(&self, event: Arc<Event>) -> Result<(), Refused> {
        self.queue.push(event)
    }

    /// What is appended until [`Self::end_group`] goes to the disk together or not at all.
    pub fn begin_group(&self) {
        self.queue.begin_group();
    }

    /// The group is complete.
    pub fn end_group(&self) {
        self.queue.end_group();
    }

    /// Whether the events of one more command would be taken. Nobody but the one who asks may append, or the answer is
    /// worth nothing.
    ///
    /// # Errors
    /// Fewer than [`PLACES_A_COMMAND`](super::PLACES_A_COMMAND) places are free for it, or the writer has ended.
    pub fn takes_a_command(&self) -> Result<(), Refused> {
        self.queue.takes_a_command()
    }

    /// True while no more than half of the queue waits: what was refused earlier can be written again.
    pub fn is_at_ease(&self) -> bool {
        self.queue.is_at_ease()
    }

    /// The newest number that would survive a power cut.
    pub fn durable(&self) -> watch::Receiver<Seq> {
        self.durable.clone()
    }

    /// Whether events reach the disk.
    pub fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    /// Events that wait in the queue, of [`QUEUE`](super::QUEUE).
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// While the disk fails: events after `after` that are not on it, oldest first, at most `limit`; nothing while it works.
    ///
    /// Records of sensors count as readings. Of readings the newest are there; of the others all, unless it is thousands, also
    /// those that were refused. Once the disk works again the log has them under the same numbers, but for those that were
    /// refused; a run that ends before takes their numbers with it: the next run's have another epoch.
    pub fn unstored(&self, rows: Rows, after: Seq, limit: usize) -> Vec<Arc<Event>> {
        self.queue.unstored(rows, after, limit)
    }

    /// Remembers how far each of these cursors has come; they are stored together.
    ///
    /// Stored with the next group; a crash before that only means that some of it is done again. A place beyond the newest
    /// stored event is kept in memory until that event is stored.
    pub fn set_cursors(&self, moved: Vec<(String, Seq)>) {
        self.moved.lock().cursors.extend(moved);
    }

    /// The cursors of [`Self::set_cursors`] that may not be on disk yet. Whoever wants to know where the cursors are asks
    /// this first and the disk then, and believes this where they differ.
    pub fn unstored_cursors(&self) -> BTreeMap<String, Seq> {
        self.moved.unstored()
    }

    /// Remembers that the broker does not take a row. The newest [`MAX_PARKED`](super::MAX_PARKED) are remembered
    /// one by one, the others as a range; none of them leaves the log by its age.
    pub fn park(&self, row: ParkedRow) {
        self.parked.send_modify(ParkedCount::add);
        self.moved.lock().parking.push(Parking::Parked(row));
    }

    /// How many rows are parked: by this run and by those before it.
    pub fn parked(&self) -> watch::Receiver<ParkedCount> {
        self.parked.subscribe()
    }

    /// Forgets the parked rows of a range: they are tried again.
    pub fn unpark(&self, range: SeqRange) {
        self.moved.lock().parking.push(Parking::TakenUp(range));
    }

    /// Forgets an order to send a range again: it was carried out.
    pub fn resent(&self, order: Seq) {
        self.moved.lock().resent.push(order);
    }

    /// What is known of clocks. Whoever reads the log sees it by this.
    pub fn timeline(&self) -> watch::Receiver<Arc<Timeline>> {
        self.timeline.subscribe()
    }

    /// A clock epoch begins with the event of its number, or one of the same number is known less exactly. Readers follow at
    /// once; it is on disk before the events that are appended after this call.
    pub fn begin_clock_epoch(&self, epoch: ClockEpoch) {
        self.moved.add_clock(epoch.clone());
        self.timeline.send_modify(|timeline| Arc::make_mut(timeline).add(epoch));
    }

    /// Returns when the writer has turned its loop since the call.
    pub async fn ping(&self) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        self.pings.send(answer).await.map_err(|_| Refused::Stopped)?;
        answered.await.map_err(|_| Refused::Stopped)
    }
}
