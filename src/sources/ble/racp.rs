//! Fetching the stored records of a glucose meter (Record Access Control Point, GLS 1.0, 3.4): a pure machine.
//!
//! A meter sends nothing by itself: it is asked for its records, sends each as a measurement, and says when it is done.
//! Nothing is deleted unless the configuration says so, and then only what is on disk.

use std::time::Duration;

use super::sensor::{GLUCOSE_MEASUREMENT, RECORD_ACCESS};
use crate::clock::{Mono, Stamp};

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

/// What the source is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this to the control point.
    Write(Vec<u8>),
    /// Make sure that all records are on disk, and say so by [`Fetch::on_committed`].
    Commit,
    /// The meter may go; `Err` with words if it has not given everything.
    Done(Result<(), String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// Records come; whether they were asked for from a number on.
    Reporting {
        filtered: bool,
    },
    Committing,
    Deleting,
}

/// The fetching of one meter, over many visits.
#[derive(Debug)]
pub(super) struct Fetch {
    /// Whether the meter's records are deleted once they are kept.
    delete: bool,
    /// The newest number that was kept. Not kept over a restart: the meter then sends all again, and who reads the log
    /// tells them by their number and time.
    kept: Option<u16>,
    /// The newest number of this visit.
    newest: Option<u16>,
    state: State,
    since: Mono,
}

impl Fetch {
    pub(super) const fn new(delete: bool) -> Self {
        Self { delete, kept: None, newest: None, state: State::Idle, since: Mono(0) }
    }

    /// The meter is subscribed to: it is asked for what is new.
    pub(super) fn on_subscribed(&mut self, now: Stamp) -> Step {
        self.newest = None;
        match self.kept.and_then(|kept| kept.checked_add(1)) {
            Some(from) => {
                let [low, high] = from.to_le_bytes();
                self.ask(vec![REPORT, AT_LEAST, BY_SEQUENCE, low, high], State::Reporting { filtered: true }, now)
            }
            None => self.ask(vec![REPORT, ALL], State::Reporting { filtered: false }, now),
        }
    }

    fn ask(&mut self, request: Vec<u8>, state: State, now: Stamp) -> Step {
        (self.state, self.since) = (state, now.mono);
        Step::Write(request)
    }

    /// A payload of one of the meter's characteristics.
    pub(super) fn on_payload(&mut self, uuid: u16, payload: &[u8], now: Stamp) -> Option<Step> {
        if self.state != State::Idle {
            self.since = now.mono;
        }
        if uuid == GLUCOSE_MEASUREMENT.uuid {
            // GLS 1.0, 3.1.1.2: the sequence number follows the flags.
            if let Some([low, high]) = payload.get(1..3) {
                self.newest = self.newest.max(Some(u16::from_le_bytes([*low, *high])));
            }
            return None;
        }
        if uuid != RECORD_ACCESS.uuid {
            return None;
        }
        let [RESPONSE, _, request, value, ..] = payload else { return None };
        match (self.state, *request, *value) {
            (State::Reporting { .. }, REPORT, SUCCESS | NO_RECORDS) => {
                self.state = State::Committing;
                Some(Step::Commit)
            }
            (State::Reporting { filtered: true }, REPORT, value) if FILTER_REFUSED.contains(&value) => {
                Some(self.ask(vec![REPORT, ALL], State::Reporting { filtered: false }, now))
            }
            (State::Reporting { .. }, REPORT, value) => {
                Some(self.end(Err(format!("the meter refuses to send its records (answer {value})"))))
            }
            (State::Deleting, DELETE, SUCCESS | NO_RECORDS) => {
                self.kept = None;
                Some(self.end(Ok(())))
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
        self.kept = self.newest.or(self.kept);
        match self.newest.filter(|_| self.delete) {
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

    const MEASUREMENT: u16 = 0x2A18;
    const CONTROL: u16 = 0x2A52;

    fn at(seconds: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(seconds * 1000), wall: Wall(0) }
    }

    fn record(number: u8) -> [u8; 3] {
        [0, number, 0]
    }

    #[test]
    fn all_records_are_asked_for_once_and_then_only_new_ones_and_nothing_is_deleted() {
        let mut fetch = Fetch::new(false);
        assert_eq!(fetch.on_subscribed(at(0)), Step::Write(vec![1, 1]));
        assert_eq!(fetch.on_payload(MEASUREMENT, &record(7), at(1)), None);
        assert_eq!(fetch.on_payload(MEASUREMENT, &record(8), at(2)), None);
        assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(3)), Some(Step::Commit));
        assert_eq!(fetch.on_committed(true, at(4)), Step::Done(Ok(())));
        assert_eq!(fetch.on_subscribed(at(100)), Step::Write(vec![1, 3, 1, 9, 0]));
        assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 1, 6], at(101)), Some(Step::Commit), "no new records");
        assert_eq!(fetch.on_committed(true, at(101)), Step::Done(Ok(())));
        assert_eq!(fetch.on_subscribed(at(200)), Step::Write(vec![1, 3, 1, 9, 0]));
    }

    #[test]
    fn a_meter_without_filters_is_asked_for_everything() {
        for refusal in FILTER_REFUSED {
            let mut fetch = Fetch { kept: Some(8), ..Fetch::new(false) };
            fetch.on_subscribed(at(0));
            let answer = fetch.on_payload(CONTROL, &[6, 0, 1, refusal], at(1));
            assert_eq!(answer, Some(Step::Write(vec![1, 1])));
            let refused = fetch.on_payload(CONTROL, &[6, 0, 1, refusal], at(2));
            assert!(matches!(refused, Some(Step::Done(Err(_)))), "{refused:?}");
        }
    }

    #[test]
    fn only_what_is_on_disk_is_deleted_and_only_if_that_is_wanted() {
        let mut fetch = Fetch::new(true);
        fetch.on_subscribed(at(0));
        fetch.on_payload(MEASUREMENT, &record(8), at(1));
        fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(2));
        assert!(matches!(fetch.on_committed(false, at(12)), Step::Done(Err(_))), "the disk did not follow");
        fetch.on_subscribed(at(20));
        fetch.on_payload(MEASUREMENT, &record(8), at(21));
        fetch.on_payload(CONTROL, &[6, 0, 1, 1], at(22));
        assert_eq!(fetch.on_committed(true, at(23)), Step::Write(vec![2, 2, 1, 8, 0]));
        assert_eq!(fetch.on_payload(CONTROL, &[6, 0, 2, 1], at(24)), Some(Step::Done(Ok(()))));
    }

    #[test]
    fn a_meter_that_stops_is_waited_for_30_s_after_its_last_record() {
        let mut fetch = Fetch::new(false);
        assert_eq!(fetch.deadline(), None);
        fetch.on_subscribed(at(0));
        fetch.on_payload(MEASUREMENT, &record(7), at(10));
        assert_eq!(fetch.deadline(), Some(at(40).mono));
        assert!(matches!(fetch.on_deadline(), Step::Done(Err(_))));
        assert_eq!(fetch.deadline(), None);
    }

    #[test]
    fn what_is_no_answer_changes_nothing() {
        let mut fetch = Fetch::new(true);
        fetch.on_subscribed(at(0));
        for payload in [&[][..], &[6], &[6, 0, 1], &[5, 0, 3, 0], &[6, 0, 2, 1]] {
            assert_eq!(fetch.on_payload(CONTROL, payload, at(1)), None, "{payload:?}");
        }
        assert_eq!(fetch.on_payload(MEASUREMENT, &[0], at(1)), None);
    }
}
