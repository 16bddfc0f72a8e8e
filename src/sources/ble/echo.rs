//! Tells the echo of a read from a measurement: BlueZ announces the value that it has read as if the sensor had sent it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Mono;

/// An echo comes before the answer or right after it.
const LATE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Reads {
    /// Under way, and whether the echo has come already.
    pending: BTreeMap<u16, bool>,
    /// Answered, and not echoed yet: with what, and when. One for each characteristic that is read at all.
    answered: BTreeMap<u16, (Vec<u8>, Mono)>,
}

/// The reads of one link. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Echoes(Arc<Mutex<Reads>>);

/// A read that is under way.
#[derive(Debug)]
pub(super) struct Reading {
    echoes: Echoes,
    uuid: u16,
}

impl Echoes {
    fn with<T>(&self, look: impl FnOnce(&mut Reads) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A read of this characteristic begins.
    pub(super) fn reading(&self, uuid: u16) -> Reading {
        self.with(|reads| reads.pending.insert(uuid, false));
        Reading { echoes: self.clone(), uuid }
    }

    /// Whether a notification is only the echo of a read.
    pub(super) fn is_echo(&self, uuid: u16, value: &[u8], now: Mono) -> bool {
        self.with(|reads| {
            if let Some(has_come) = reads.pending.get_mut(&uuid) {
                *has_come = true;
                return true;
            }
            let is_echo =
                reads.answered.get(&uuid).is_some_and(|(answer, at)| answer == value && now.since(*at) < LATE);
            if is_echo {
                reads.answered.remove(&uuid);
            }
            is_echo
        })
    }
}

impl Reading {
    /// The read has ended, with this value if it has one.
    pub(super) fn done(self, value: Option<&Vec<u8>>, now: Mono) {
        let uuid = self.uuid;
        self.echoes.with(|reads| match value {
            Some(value) if reads.pending.get(&uuid) == Some(&false) => {
                reads.answered.insert(uuid, (value.clone(), now));
            }
            _ => drop(reads.answered.remove(&uuid)),
        });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.echoes.with(|reads| reads.pending.remove(&self.uuid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_read_is_no_measurement_before_its_answer_or_right_after() {
        let echoes = Echoes::default();
        let at = Mono::from_millis;
        let reading = echoes.reading(0x2A19);
        assert!(echoes.is_echo(0x2A19, &[80], at(0)), "the echo comes first");
        assert!(!echoes.is_echo(0x2A37, &[80], at(0)), "another characteristic");
        reading.done(Some(&vec![80]), at(10));
        assert!(!echoes.is_echo(0x2A19, &[80], at(20)), "it has come already");
        echoes.reading(0x2A19).done(Some(&vec![80]), at(15));
        assert!(!echoes.is_echo(0x2A19, &[79], at(20)), "another value was sent");
        assert!(echoes.is_echo(0x2A19, &[80], at(20)));
        assert!(!echoes.is_echo(0x2A19, &[80], at(30)), "the same again is a measurement");
        echoes.reading(0x2A19).done(Some(&vec![80]), at(100));
        assert!(!echoes.is_echo(0x2A19, &[80], at(1100)), "too late for an echo");
    }

    #[test]
    fn a_read_that_is_given_up_swallows_nothing() {
        let echoes = Echoes::default();
        drop(echoes.reading(0x2A19));
        assert!(!echoes.is_echo(0x2A19, &[80], Mono(0)));
    }
}
