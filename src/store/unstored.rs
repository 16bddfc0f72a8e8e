//! What can be told although the disk does not take it: the events since it began to fail, as many as there is room for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::queue::is_reading;
use super::survey::Rows;
use crate::event::Event;
use crate::ids::Seq;

/// Events other than readings that can be told: more than the store's queue keeps places for; of more the oldest go.
const MAX_OTHERS: usize = 4096;

/// Readings that can be told: only those of the present are, the others are sent from the log one day.
const MAX_READINGS: usize = 256;

/// The events that are not on disk, oldest first; also those for which the store's queue has no place any more.
#[derive(Debug, Default)]
pub(super) struct Unstored {
    others: VecDeque<Arc<Event>>,
    readings: VecDeque<Arc<Event>>,
}

impl Unstored {
    /// One more, with a higher number than those before.
    pub(super) fn add(&mut self, event: &Arc<Event>) {
        let (events, most) =
            if is_reading(event) { (&mut self.readings, MAX_READINGS) } else { (&mut self.others, MAX_OTHERS) };
        if events.len() >= most {
            events.pop_front();
        }
        events.push_back(Arc::clone(event));
    }

    /// The first events after `after`, at most `limit`.
    pub(super) fn after(&self, rows: Rows, after: Seq, limit: usize) -> Vec<Arc<Event>> {
        let events = if rows == Rows::Readings { &self.readings } else { &self.others };
        let is_wanted = |event: &&Arc<Event>| match rows {
            Rows::Readings | Rows::Others => true,
            Rows::Urgent => event.body.is_urgent(),
            Rows::Unhurried => !event.body.is_urgent(),
        };
        let first = events.partition_point(|event| event.seq <= after);
        events.range(first..).filter(is_wanted).take(limit).map(Arc::clone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::event::{EventBody, SystemEvent, SystemKind};
    use crate::record::RecordEvent;
    use crate::vitals::Mode;

    fn event(seq: u64, body: EventBody) -> Arc<Event> {
        Arc::new(Event { epoch: "e".parse().unwrap(), seq: Seq(seq), at: Stamp::default(), body })
    }

    fn other(seq: u64) -> Arc<Event> {
        let system = SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
        event(seq, EventBody::System(system))
    }

    fn record() -> RecordEvent {
        RecordEvent {
            source: "meter".parse().unwrap(),
            device: "meter-1".parse().unwrap(),
            patient: None,
            characteristic: 0x2A18,
            number: None,
            user: None,
            device_time: None,
            raw: "12".to_owned(),
            context: None,
            found: Vec::new(),
            readings: None,
            mode: Mode::Test,
        }
    }

    fn numbers(unstored: &Unstored, rows: Rows, after: u64, limit: usize) -> Vec<u64> {
        unstored.after(rows, Seq(after), limit).iter().map(|event| event.seq.0).collect()
    }

    #[test]
    fn of_too_many_the_newest_are_told_and_readings_push_nothing_else_out() {
        let mut unstored = Unstored::default();
        unstored.add(&other(1));
        for seq in 2..=1001 {
            unstored.add(&event(seq, EventBody::Record(record())));
        }
        assert_eq!(numbers(&unstored, Rows::Others, 0, 9), [1]);
        assert_eq!(numbers(&unstored, Rows::Readings, 0, 2), [746, 747]);
        assert_eq!(numbers(&unstored, Rows::Readings, 1000, 2), [1001]);
        for seq in 1002..=1002 + u64::try_from(MAX_OTHERS).unwrap() {
            unstored.add(&other(seq));
        }
        assert_eq!(numbers(&unstored, Rows::Others, 0, 1), [1003]);
    }
}
