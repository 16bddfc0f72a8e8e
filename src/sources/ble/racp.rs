//! Fetching the stored records of a glucose meter (Record Access Control Point, GLS 1.0, 3.4): a pure machine.
//!
//! A meter sends nothing by itself: it is asked for its records, sends each as a measurement, and says when it is done.
//! It is asked from the newest known record on, that one included: if it does not come with the time that it had, the
//! meter counts anew, or its clock or memory was reset, and it is asked for all. Nothing is deleted unless the
//! configuration says so, and then only what is on disk.

use std::time::Duration;

use super::sensor::RECORD_ACCESS;
use crate::clock::{Mono, Stamp};
use crate::record::RecordKey;

/// After so long without a record or an answer, the meter has stopped.
const SILENCE: Duration = Duration::from_secs(30);

// GLS 1.0, 3.4.1: op codes.
const REPORT: u8 = 1;
const DELETE: u8 = 2;
const RESPONSE: u8 = 6;
// Operators.
const ALL: u8 = 1;
const AT_MOST: u8 = 2;
const AT_LEAST: u8 = 3;
/// The filter type of a sequence number.
const BY_SEQUENCE: u8 = 1;
// Values of a response.
const SUCCESS: u8 = 1;
const NO_RECORDS: u8 = 6;
/// Answers of a meter that knows no such filter: operator, operand, or the operator with these records.
const FILTER_REFUSED: [u8; 3] = [3, 4, 9];

/// A meter that has counted so far is asked for everything, as it may begin at 0 again.
const NEAR_THE_END: u16 = u16::MAX - 2000;

/// What the source is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this to the control point.
    Write(Vec<u8>),
    /// Make sure that these records are on disk, and say so by [`Fetch::on_committed`].
    Commit(Vec<RecordKey>),
    /// Write down that everything up to this number is on disk.
    Taken(u16),
    /// Write down that everything up to this number was deleted from the meter.
    Deleted(u16),
    /// The meter may go; `Err` with words if it has not given everything.
    Done(Result<(), String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// Records come; whether they were asked for from a number on, and whether the known one with that number came.
    Reporting {
        filtered: bool,
        is_the_same: bool,
    },
    Committing,
    Deleting,
}

const ALL_OF_IT: State = State::Reporting { filtered: false, is_the_same: false };

/// The fetching of one meter, over many visits.
#[derive(Debug)]
pub(super) struct Fetch {
    /// Whether the meter's records are deleted once they are kept.
    delete: bool,
    /// Everything up to this number is on disk.
    kept: Option<u16>,
    /// The records of this visit, known ones too.
    visit: Vec<RecordKey>,
    /// The newest number of this visit.
    newest: Option<u16>,
    /// Whether a record of this visit could not be read: it stays in the meter, and the others with it. What is kept is
    /// not raised past it either, so that it comes at the next visit again, and the next run knows of it too.
    is_malformed: bool,
    state: State,
    since: Mono,
}

impl Fetch {
    /// For a meter of which everything up to `kept` was taken in earlier runs.
    pub(super) const fn new(delete: bool, kept: Option<u16>) -> Self {
        Self { delete, kept, visit: Vec::new(), newest: None, is_malformed: false, state: State::Idle, since: Mono(0) }
    }

    /// The meter is subscribed to: it is asked for what is new.
    pub(super) fn on_subscribed(&mut self, now: Stamp) -> Step {
        (self.newest, self.is_malformed) = (None, false);
        self.visit.clear();
        match self.kept.filter(|kept| *kept < NEAR_THE_END) {
            Some(from) => {
                let [low, high] = from.to_le_bytes();
                let reporting = State::Reporting { filtered: true, is_the_same: false };
                self.ask(vec![REPORT, AT_LEAST, BY_SEQUENCE, low, high], reporting, now)
            }
            None => self.ask(vec![REPORT, ALL], ALL_OF_IT, now),
        }
    }

    /// A record has come, and was taken; `is_known` if it had come before.
    pub(super) fn on_record(&mut self, number: Option<u16>, key: Option<RecordKey>, is_known: bool) {
        self.newest = self.newest.max(number);
        self.visit.extend(key);
        if let State::Reporting { filtered: true, is_the_same } = &mut self.state {
            *is_the_same |= is_known && number.is_some() && number == self.kept;
        }
    }

    fn ask(&mut self, request: Vec<u8>, state: State, now: Stamp) -> Step {
        (self.state, self.since) = (state, now.mono);
        Step::Write(request)
    }

    /// A record has come that cannot be read.
    pub(super) const fn on_malformed(&mut self) {
        self.is_malformed = true;
    }

    /// A payload of one of the meter's characteristics; its records are told by [`Fetch::on_record`] before.
    pub(super) fn on_payload(&mut self, uuid: u16, payload: &[u8], now: Stamp) -> Option<Step> {
        if self.state != State::Idle {
            self.since = now.mono;
        }
        if uuid != RECORD_ACCESS.uuid {
            return None;
        }
        let [RESPONSE, _, request, value, ..] = payload else { return None };
        match (self.state, *request, *value) {
            // The record that it must still have has not come: what it counts now is another memory.
            (State::Reporting { filtered: true, is_the_same: false }, REPORT, SUCCESS | NO_RECORDS) => {
                Some(self.ask(vec![REPORT, ALL], ALL_OF_IT, now))
            }
            (State::Reporting { .. }, REPORT, SUCCESS | NO_RECORDS) => {
                self.state = State::Committing;
                Some(Step::Commit(std::mem::take(&mut self.visit)))
            }
            (State::Reporting { filtered: true, .. }, REPORT, value) if FILTER_REFUSED.contains(&value) => {
                Some(self.ask(vec![REPORT, ALL], ALL_OF_IT, now))
            }
            (State::Reporting { .. }, REPORT, value) => {
                Some(self.end(Err(format!("the meter refuses to send its records (answer {value})"))))
            }
            (State::Deleting, DELETE, SUCCESS | NO_RECORDS) => {
                let deleted = self.kept.take().unwrap_or_default();
                self.state = State::Idle;
                Some(Step::Deleted(deleted))
            }
            (State::Deleting, DELETE, value) => {
                Some(self.end(Err(format!("the meter did not delete its records (answer {value})"))))
            }
            _ => None,
        }
    }

    /// Whether the records of this visit are on disk.
    pub(super) fn on_committed(&mut self, is_on_disk: bool, now: Stamp) -> Step {
        if self.state != State::Committing {
            return self.end(Ok(()));
        }
        if !is_on_disk {
            return self.end(Err("the records are not on disk yet; they stay in the meter".to_owned()));
        }
        match self.newest {
            // Everything that it has was asked for, or what follows what was kept.
            Some(newest) if self.kept != Some(newest) && !self.is_malformed => {
                self.kept = Some(newest);
                Step::Taken(newest)
            }
            _ => self.on_written_down(now),
        }
    }

    /// What was taken is written down; or what was deleted.
    pub(super) fn on_written_down(&mut self, now: Stamp) -> Step {
        match self.newest.filter(|_| self.delete && !self.is_malformed && self.state == State::Committing) {
            Some(newest) => {
                let [low, high] = newest.to_le_bytes();
                self.ask(vec![DELETE, AT_MOST, BY_SEQUENCE, low, high], State::Deleting, now)
            }
            None => self.end(Ok(())),
        }
    }

    fn end(&mut self, result: Result<(), String>) -> Step {
        self.state = State::Idle;
        Step::Done(result)
    }

    /// When the meter has been silent for too long.
    pub(super) fn deadline(&self) -> Option<Mono> {
        matches!(self.state, State::Reporting { .. } | State::Deleting).then(|| self.since + SILENCE)
    }

    /// The meter has been silent for too long.
    pub(super) fn on_deadline(&mut self) -> Step {
        self.end(Err(format!("the meter stopped in the middle of its records for {} s", SILENCE.as_secs())))
    }

    /// The link has gone.
    pub(super) const fn on_link_lost(&mut self) {
        self.state = State::Idle;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    const CONTROL: u16 = 0x2A52;

    fn at(seconds: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(seconds * 1000), wall: Wall(0) }
    }

    fn key(number: u16) -> RecordKey {
        RecordKey(number.to_string())
    }

    fn new(fetch: &mut Fetch, number: u16) {
        fetch.on_record(Some(number), Some(key(number)), false);
    }

    fn known(fetch: &mut Fetch, number: u16) {
        fetch.on_record(Some(number), Some(key(number)), true);
    }

    fn all() -> Step {
        Step::Write(vec![1, 1])
    }

    #[test]
    fn all_records_are_asked_for_once_and_then_those_from_the_newest_known_one_on_and_nothing_is_deleted() {
        let mut fetch = Fetch::new(false, None);
        assert_eq!(fetch.on_subscribed(at(0)), all());
        new(&mut fetch, 7);
        new(&mut fetch, 8);
        assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(3)), Some(Step::Commit(vec![key(7), key(8)])));
        assert_eq!(fetch.on_committed(true, at(4)), Step::Taken(8));
        assert_eq!(fetch.on_written_down(at(4)), Step::Done(Ok(())));
        for visit in [100, 200] {
            assert_eq!(fetch.on_subscribed(at(visit)), Step::Write(vec![1, 3, 1, 8, 0]));
            known(&mut fetch, 8);
            assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(visit)), Some(Step::Commit(vec![key(8)])));
            assert_eq!(fetch.on_committed(true, at(visit)), Step::Done(Ok(())), "nothing new to write down");
        }
    }

    #[test]
    fn what_was_kept_in_an_earlier_run_is_not_asked_for_again() {
        let mut fetch = Fetch::new(false, Some(500));
        assert_eq!(fetch.on_subscribed(at(0)), Step::Write(vec![1, 3, 1, 0xF4, 1]));
        let mut fetch = Fetch::new(false, Some(65_000));
        assert_eq!(fetch.on_subscribed(at(0)), all(), "it may count from 0 again soon");
    }

    #[test]
    fn a_meter_that_was_reset_is_asked_for_everything() {
        // It counts anew and is not that far yet; it has come further, so another record has the number; its memory was
        // emptied and it counts on.
        for (numbers, answer) in [(&[][..], 6), (&[8, 9], 1), (&[9], 1)] {
            let mut fetch = Fetch::new(false, Some(8));
            fetch.on_subscribed(at(0));
            for number in numbers {
                new(&mut fetch, *number);
            }
            assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 1, answer], at(1)), Some(all()), "{numbers:?}");
            new(&mut fetch, 3);
            let answer = fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(2));
            assert!(matches!(answer, Some(Step::Commit(_))), "once only: {answer:?}");
        }
        let mut fetch = Fetch::new(false, Some(8));
        fetch.on_subscribed(at(0));
        fetch.on_payload(CONTROL, &[6, 0, 1, 6], at(1));
        new(&mut fetch, 3);
        fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(2));
        assert_eq!(fetch.on_committed(true, at(3)), Step::Taken(3), "its new numbers count from here on");
    }

    #[test]
    fn a_meter_without_filters_is_asked_for_everything() {
        for refusal in FILTER_REFUSED {
            let mut fetch = Fetch::new(false, Some(8));
            fetch.on_subscribed(at(0));
            let answer = fetch.on_payload(CONTROL, &[6, 0, 1, refusal], at(1));
            assert_eq!(answer, Some(all()));
            let refused = fetch.on_payload(CONTROL, &[6, 0, 1, refusal], at(2));
            assert!(matches!(refused, Some(Step::Done(Err(_)))), "{refused:?}");
        }
    }

    #[test]
    fn only_what_is_on_disk_is_deleted_and_only_if_that_is_wanted() {
        let mut fetch = Fetch::new(true, None);
        fetch.on_subscribed(at(0));
        new(&mut fetch, 8);
        fetch.on_malformed();
        fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(2));
        assert_eq!(fetch.on_committed(true, at(3)), Step::Done(Ok(())), "one record was not understood");
        assert_eq!(fetch.on_subscribed(at(5)), all(), "and is not left behind by the next visit");

        let mut fetch = Fetch::new(true, None);
        fetch.on_subscribed(at(10));
        new(&mut fetch, 8);
        fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(11));
        assert!(matches!(fetch.on_committed(false, at(12)), Step::Done(Err(_))), "the disk did not follow");
        assert_eq!(fetch.on_subscribed(at(20)), all(), "and nothing counts as kept");
        known(&mut fetch, 8);
        fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(22));
        assert_eq!(fetch.on_committed(true, at(23)), Step::Taken(8));
        assert_eq!(fetch.on_written_down(at(23)), Step::Write(vec![2, 2, 1, 8, 0]));
        assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 2, 1], at(24)), Some(Step::Deleted(8)));
        assert_eq!(fetch.on_written_down(at(24)), Step::Done(Ok(())));
        assert_eq!(fetch.on_subscribed(at(30)), all());
    }

    #[test]
    fn a_meter_that_stops_is_waited_for_30_s_after_its_last_record() {
        let mut fetch = Fetch::new(false, None);
        assert_eq!(fetch.deadline(), None);
        fetch.on_subscribed(at(0));
        fetch.on_payload(0x2A18, &[0, 7, 0], at(10));
        assert_eq!(fetch.deadline(), Some(at(40).mono));
        assert!(matches!(fetch.on_deadline(), Step::Done(Err(_))));
        assert_eq!(fetch.deadline(), None);
    }

    #[test]
    fn what_is_no_answer_changes_nothing() {
        let mut fetch = Fetch::new(true, None);
        fetch.on_subscribed(at(0));
        for payload in [&[][..], &[6], &[6, 0, 1], &[5, 0, 3, 0], &[6, 0, 2, 1]] {
            assert_eq!(fetch.on_payload(CONTROL, payload, at(1)), None, "{payload:?}");
        }
        assert_eq!(fetch.on_payload(0x2A18, &[0], at(1)), None);
    }
}
