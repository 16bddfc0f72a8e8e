//! What the stored cursors leave to be sent, for whoever looks at a store from outside. Pure.

use std::collections::BTreeMap;

use super::pieces::{ALERTS, Pieces};
use crate::ids::Seq;

/// Where the lanes stand in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What is no reading waits after this one.
    pub alerts: Seq,
    /// Readings wait after the first and up to the second of each, oldest first: they waited at the last connection.
    pub backlog: Vec<(Seq, Seq)>,
    /// Readings wait after this one.
    pub live: Seq,
}

impl Waiting {
    /// What a run of the uplink would find with these cursors, in a log that ends with `newest`.
    pub fn of(cursors: &BTreeMap<String, Seq>, newest: Seq) -> Self {
        let (pieces, live) = Pieces::restore(cursors, newest);
        let alerts = cursors.get(ALERTS).copied().unwrap_or(Seq::ZERO).min(newest);
        Self { alerts, backlog: pieces.ranges().collect(), live }
    }

    /// Everything up to here is settled, readings and others.
    pub fn settled(&self) -> Seq {
        self.backlog.first().map_or(self.live, |(after, _)| *after).min(self.alerts)
    }

    /// Whether the readings of a range, which lies on one side of each border, wait.
    pub fn has_reading(&self, seq: Seq) -> bool {
        seq > self.live || self.backlog.iter().any(|(after, through)| seq > *after && seq <= *through)
    }

    /// The first numbers at which something begins or ends to wait.
    pub fn borders(&self) -> impl Iterator<Item = Seq> {
        let pieces = self.backlog.iter().flat_map(|(after, through)| [after.next(), through.next()]);
        [self.alerts.next(), self.live.next()].into_iter().chain(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_what_the_cursors_leave() {
        let cursors = |pairs: &[(&str, u64)]| pairs.iter().map(|(lane, seq)| ((*lane).to_owned(), Seq(*seq))).collect();
        let none = Waiting::of(&BTreeMap::new(), Seq(9));
        assert_eq!(none, Waiting { alerts: Seq(0), backlog: vec![], live: Seq(0) });
        let stored = cursors(&[("alerts", 40), ("readings", 10), ("sent.0.after", 20), ("sent.0.through", 30)]);
        let some = Waiting::of(&stored, Seq(50));
        assert_eq!(some, Waiting { alerts: Seq(40), backlog: vec![(Seq(10), Seq(20))], live: Seq(30) });
        assert_eq!(some.settled(), Seq(10));
        let waits: Vec<u64> = (1..=50).filter(|seq| some.has_reading(Seq(*seq))).collect();
        assert_eq!(waits, (11..=20).chain(31..=50).collect::<Vec<u64>>());
        assert_eq!(some.borders().collect::<Vec<_>>(), [41, 31, 11, 21].map(Seq));
    }
}
