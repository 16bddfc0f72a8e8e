//! What the stored cursors leave to be sent, for whoever looks at a store from outside. Pure.

use std::collections::BTreeMap;

use super::pieces::{Pieces, others, urgent};
use crate::event::{Event, EventBody};
use crate::ids::Seq;

/// Where the lanes stand in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What is urgent waits after this one.
    pub urgent: Seq,
    /// What is neither urgent nor a reading waits after this one.
    pub others: Seq,
    /// Readings wait after the first and up to the second of each, oldest first: they waited at the last connection.
    pub backlog: Vec<(Seq, Seq)>,
    /// Readings wait after this one.
    pub live: Seq,
}

impl Waiting {
    /// What a run of the uplink would find with these cursors, in a log that ends with `newest`.
    pub fn of(cursors: &BTreeMap<String, Seq>, newest: Seq) -> Self {
        let (pieces, live) = Pieces::restore(cursors, newest);
        let (urgent, others) = (urgent(cursors).min(newest), others(cursors).min(newest));
        Self { urgent, others, backlog: pieces.ranges().collect(), live }
    }

    /// Everything up to here is settled, readings and others.
    pub fn settled(&self) -> Seq {
        self.backlog.first().map_or(self.live, |(after, _)| *after).min(self.urgent).min(self.others)
    }

    /// Whether the readings of a range, which lies on one side of each border, wait.
    pub fn has_reading(&self, seq: Seq) -> bool {
        seq > self.live || self.backlog.iter().any(|(after, through)| seq > *after && seq <= *through)
    }

    /// Whether this event waits.
    pub fn has(&self, event: &Event) -> bool {
        match &event.body {
            EventBody::Reading(_) => self.has_reading(event.seq),
            body => event.seq > if body.is_urgent() { self.urgent } else { self.others },
        }
    }

    /// The first numbers at which something begins or ends to wait.
    pub fn borders(&self) -> impl Iterator<Item = Seq> {
        let pieces = self.backlog.iter().flat_map(|(after, through)| [after.next(), through.next()]);
        [self.urgent.next(), self.others.next(), self.live.next()].into_iter().chain(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(pairs: &[(&str, u64)]) -> BTreeMap<String, Seq> {
        pairs.iter().map(|(lane, seq)| ((*lane).to_owned(), Seq(*seq))).collect()
    }

    #[test]
    fn what_waits_is_what_the_cursors_leave() {
        let none = Waiting::of(&BTreeMap::new(), Seq(9));
        assert_eq!(none, Waiting { urgent: Seq(0), others: Seq(0), backlog: vec![], live: Seq(0) });
        let names = [("urgent", 45), ("others", 40), ("readings", 10), ("sent.0.after", 20), ("sent.0.through", 30)];
        let some = Waiting::of(&cursors(&names), Seq(50));
        let backlog = vec![(Seq(10), Seq(20))];
        assert_eq!(some, Waiting { urgent: Seq(45), others: Seq(40), backlog, live: Seq(30) });
        assert_eq!(some.settled(), Seq(10));
        let waits: Vec<u64> = (1..=50).filter(|seq| some.has_reading(Seq(*seq))).collect();
        assert_eq!(waits, (11..=20).chain(31..=50).collect::<Vec<u64>>());
        assert_eq!(some.borders().collect::<Vec<_>>(), [46, 41, 31, 11, 21].map(Seq));
    }

    #[test]
    fn a_store_that_had_one_cursor_for_all_but_readings_goes_on_there() {
        let places = |pairs: &[(&str, u64)]| {
            let waiting = Waiting::of(&cursors(pairs), Seq(50));
            (waiting.urgent.0, waiting.others.0)
        };
        assert_eq!(places(&[("alerts", 40)]), (40, 40));
        assert_eq!(places(&[("alerts", 40), ("urgent", 48), ("others", 44)]), (48, 44));
        // Damage may take any of them: what is not known to be sent is sent again.
        assert_eq!(places(&[("alerts", 40), ("urgent", 48)]), (48, 40));
        assert_eq!(places(&[("urgent", 48)]), (48, 0));
        assert_eq!(places(&[("others", 44)]), (0, 44));
    }
}
