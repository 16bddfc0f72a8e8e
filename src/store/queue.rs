//! What waits for the disk: a bounded queue that is filled without waiting and emptied a group at a time.
//!
//! A channel would hand over event by event and wake the writer for the first reading of each group. Here a reading
//! costs one short lock and wakes nobody: the writer comes by itself once a group is due, and is called only for what
//! must not wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::handle::Refused;
use super::survey::Rows;
use super::unstored::Unstored;
use super::writer::MAX_BATCH;

use crate::event::{Event, EventBody, SystemEvent, SystemKind};
use crate::ids::Seq;

/// Events that may wait for the disk: 27 minutes of ten readings a second.
pub const QUEUE: usize = 16_384;
/// Places of [`QUEUE`] that only alerts, limits and the word of a loss take: nothing that somebody can ask for at will.
pub const RESERVED_FOR_ALERTS: usize = 1024;
/// Places beside [`RESERVED_FOR_ALERTS`] that readings never take, so that what people do fits when readings no longer do.
pub const RESERVED_FOR_PEOPLE: usize = 1024;
/// Free places outside [`RESERVED_FOR_ALERTS`] without which a command is not begun: more than the events of one.
pub const PLACES_A_COMMAND: usize = 256;

/// The queue between those who have events and the one who writes them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Tells the writer that a group is complete: by what is no reading, or by its size.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// At most [`QUEUE`].
    events: VecDeque<Arc<Event>>,
    /// How many were taken before the first of these.
    taken: u64,
    /// Events that go to the disk together or not at all, by how many came before the first and up to the last; without
    /// an end: more of them may come. Oldest first, and no more than the events that wait.
    groups: VecDeque<(u64, Option<u64>)>,
    /// While the disk fails: what is told all the same.
    unstored: Option<Unstored>,
    is_closed: bool,
}

impl Queue {
    /// Held for a push or for moving one batch of pointers, never across an `.await`.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event at the end, if its kind may take the place.
    pub(super) fn push(&self, event: Arc<Event>) -> Result<(), Refused> {
        let is_reading = is_reading(&event);
        let room = match &event.body {
            EventBody::Alert(_)
            | EventBody::Limits(_)
            | EventBody::System(SystemEvent { kind: SystemKind::EventsLost, .. }) => QUEUE,
            _ if is_reading => QUEUE - RESERVED_FOR_ALERTS - RESERVED_FOR_PEOPLE,
            _ => QUEUE - RESERVED_FOR_ALERTS,
        };
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return Err(Refused::Stopped);
        }
        if let Some(unstored) = &mut waiting.unstored {
            unstored.add(&event);
        }
        if waiting.events.len() >= room {
            return Err(Refused::Full);
        }
        waiting.events.push_back(event);
        let is_complete = !is_reading || waiting.events.len() >= MAX_BATCH;
        drop(waiting);
        if is_complete {
            self.hurry.notify_one();
        }
        Ok(())
    }

    /// The disk fails: `batch`, which was taken, what waits behind it and what comes from now on can be told.
    pub(super) fn begin_telling(&self, batch: &[Arc<Event>]) {
        let mut waiting = self.waiting();
        if waiting.unstored.is_none() {
            let mut unstored = Unstored::default();
            batch.iter().chain(&waiting.events).for_each(|event| unstored.add(event));
            waiting.unstored = Some(unstored);
        }
    }

    /// The disk works again: everything is told from the log.
    pub(super) fn end_telling(&self) {
        self.waiting().unstored = None;
    }

    /// While the disk fails: the first events after `after` that are not on it, at most `limit`.
    pub(super) fn unstored(&self, rows: Rows, after: Seq, limit: usize) -> Vec<Arc<Event>> {
        let waiting = self.waiting();
        waiting.unstored.as_ref().map_or_else(Vec::new, |unstored| unstored.after(rows, after, limit))
    }

    /// What comes from here on until [`Queue::end_group`] goes to the disk together or not at all. A command has few
    /// events, fewer than [`PLACES_A_COMMAND`].
    pub(super) fn begin_group(&self) {
        let mut waiting = self.waiting();
        let begin = waiting.given();
        waiting.groups.push_back((begin, None));
    }

    /// The group is complete.
    pub(super) fn end_group(&self) {
        let mut waiting = self.waiting();
        let end = waiting.given();
        match waiting.groups.pop_back() {
            Some((begin, None)) if begin < end => waiting.groups.push_back((begin, Some(end))),
            // Nothing came.
            Some((_, None)) | None => {}
            Some(ended) => waiting.groups.push_back(ended),
        }
        drop(waiting);
        self.hurry.notify_one();
    }

    /// Moves the oldest events to the end of `batch`, until that holds [`MAX_BATCH`] and no part of a group; returns how
    /// many were moved.
    pub(super) fn take_into(&self, batch: &mut Vec<Arc<Event>>) -> usize {
        let mut waiting = self.waiting();
        let moved = waiting.whole(MAX_BATCH.saturating_sub(batch.len()).min(waiting.events.len()));
        batch.extend(waiting.events.drain(..moved));
        waiting.taken += u64::try_from(moved).unwrap_or(u64::MAX);
        let taken = waiting.taken;
        waiting.groups.retain(|(_, end)| end.is_none_or(|end| end > taken));
        moved
    }

    /// Returns once a group has become complete since the last call; also when it was complete before.
    pub(super) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Calls the writer, for instance because it left a complete group behind.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Takes no more events; those that wait stay.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
    }

    /// Whether a command fits with all its events.
    pub(super) fn takes_a_command(&self) -> Result<(), Refused> {
        let waiting = self.waiting();
        if waiting.is_closed {
            Err(Refused::Stopped)
        } else if waiting.events.len() + PLACES_A_COMMAND > QUEUE - RESERVED_FOR_ALERTS {
            Err(Refused::Full)
        } else {
            Ok(())
        }
    }

    /// Whether every kind of event fits, and many of it.
    pub(super) fn is_at_ease(&self) -> bool {
        let waiting = self.waiting();
        !waiting.is_closed && waiting.events.len() <= QUEUE / 2
    }

    /// Events that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting().events.len()
    }
}

impl Waiting {
    /// How many events were ever put in.
    fn given(&self) -> u64 {
        self.taken + u64::try_from(self.events.len()).unwrap_or(u64::MAX)
    }

    /// The number of events nearest to this one that parts no group.
    fn whole(&self, count: usize) -> usize {
        let upto = self.taken + u64::try_from(count).unwrap_or(u64::MAX);
        let parted = self.groups.iter().find(|(begin, end)| *begin < upto && end.is_none_or(|end| upto < end));
        let upto = match parted {
            None => upto,
            Some((_, Some(end))) => *end,
            Some((begin, None)) => *begin,
        };
        usize::try_from(upto.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(self.events.len())
    }
}

/// True for what may wait for others: readings, and the records that follow them.
pub(super) fn is_reading(event: &Event) -> bool {
    matches!(event.body, EventBody::Reading(_) | EventBody::Record(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;

    fn push(queue: &Queue, count: usize) {
        for _ in 0..count {
            let system = SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
            let (epoch, at) = ("e".parse().unwrap(), Stamp::default());
            queue.push(Arc::new(Event { epoch, seq: Seq(1), at, body: EventBody::System(system) })).unwrap();
        }
    }

    #[test]
    fn a_group_is_never_parted() {
        let (queue, mut batch) = (Queue::default(), Vec::new());
        push(&queue, MAX_BATCH - 1);
        queue.begin_group();
        push(&queue, 2);
        assert_eq!(queue.take_into(&mut batch), MAX_BATCH - 1, "the group may grow");
        push(&queue, 1);
        queue.end_group();
        push(&queue, 5);
        // One more fits this batch, and the group goes with it.
        assert_eq!(queue.take_into(&mut batch), 3);
        assert_eq!(queue.take_into(&mut batch), 0, "the batch is full");
        batch.clear();
        assert_eq!(queue.take_into(&mut batch), 5);

        // An empty group holds nothing up, and the next one is as whole.
        queue.begin_group();
        queue.end_group();
        push(&queue, MAX_BATCH - 1);
        queue.begin_group();
        push(&queue, 9);
        queue.end_group();
        batch.clear();
        assert_eq!(queue.take_into(&mut batch), MAX_BATCH + 8);
        assert_eq!((queue.len(), queue.waiting().groups.len()), (0, 0));
    }
}
