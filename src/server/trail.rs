//! Rows of the audit trail about connections: who signed in, asked for what and left. They never make a session wait.
//!
//! A client that comes back every second, or is refused every millisecond, must not fill the disk: of one user, action and
//! address so many rows stand alone, and the others are one row a minute with their number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Mono};
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult};
use crate::metrics::Metrics;
use crate::pipeline::Control;
use crate::server::rate::{ALL_REFUSED_ROWS, Bucket, REFUSED_ROWS, ROWS};
use crate::vitals::Mode;

/// Rows that wait for the pipeline. One more is counted, and a row says how many were.
pub(super) const MAX_ROWS_WAITING: usize = 2048;

/// Users, actions and addresses that are counted at once; one more writes down the one that is due first.
const MAX_COUNTED: usize = 1024;

/// How long rows that do not stand alone are counted.
const SPAN: Duration = Duration::from_mins(1);

/// Rows that are handed to the pipeline between two looks at what has come.
const ROWS_AT_ONCE: usize = 64;

/// The object of the row that says how many are missing.
const LOST: &str = "rows about connections";

/// A row before it has an author.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) action: AuditAction,
    pub(super) object: String,
    pub(super) result: AuditResult,
    pub(super) reason: Option<String>,
}

impl Row {
    /// What was done.
    pub(super) const fn done(action: AuditAction, object: String, reason: Option<String>) -> Self {
        Self { action, object, result: AuditResult::Done, reason }
    }

    /// What was refused.
    pub(super) const fn refused(action: AuditAction, object: String, reason: String) -> Self {
        Self { action, object, result: AuditResult::Refused, reason: Some(reason) }
    }

    fn by(self, Actor { user, address }: Actor) -> AuditEvent {
        let Self { action, object, result, reason } = self;
        let (patient, device, source, mode) = (None, None, None, Mode::Real);
        AuditEvent { by: user, address, action, object, patient, device, source, result, reason, mode }
    }
}

/// Whose rows are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    by: String,
    action: AuditAction,
    is_refused: bool,
    address: Option<String>,
}

#[derive(Debug, Default)]
struct Counted {
    bucket: Bucket,
    /// When the row with their number is written, if there are any.
    due: Mono,
    /// Rows that did not stand alone, and the last of them.
    folded: u64,
    last: Option<AuditEvent>,
}

impl Counted {
    /// The row of those that did not stand alone.
    fn summary(&mut self) -> Option<AuditEvent> {
        let last = self.last.take()?;
        let count = std::mem::take(&mut self.folded);
        let reason = last.reason.clone().unwrap_or_default();
        Some(AuditEvent { reason: Some(format!("{reason}; {count} times within a minute")), ..last })
    }
}

/// Which rows stand alone. Pure.
#[derive(Debug, Default)]
struct Folding {
    /// At most [`MAX_COUNTED`].
    counted: BTreeMap<Key, Counted>,
    /// Refused rows of everybody.
    refused: Bucket,
}

impl Folding {
    /// The rows to write now for a row that was to be written.
    fn fold(&mut self, row: AuditEvent, now: Mono) -> Vec<AuditEvent> {
        let is_refused = row.result == AuditResult::Refused;
        let mut key = Key { by: row.by.clone(), action: row.action, is_refused, address: row.address.clone() };
        let is_known = self.counted.contains_key(&key);
        // Addresses can be had by the million: beyond a number of rows a minute, strangers are counted together.
        if is_refused && !is_known && self.refused.take(ALL_REFUSED_ROWS, now).is_err() {
            key = Key { by: AuditEvent::UNKNOWN.to_owned(), address: None, ..key };
        }
        let mut rows = self.make_room(&key, now);
        let is_of_all = key.address.is_none() && row.address.is_some();
        let counted = self.counted.entry(key).or_default();
        let allowance = if is_refused { REFUSED_ROWS } else { ROWS };
        if !is_of_all && counted.bucket.take(allowance, now).is_ok() {
            rows.push(row);
            return rows;
        }
        if counted.folded == 0 {
            counted.due = now + SPAN;
        }
        counted.folded = counted.folded.saturating_add(1);
        counted.last = Some(row);
        rows
    }

    /// Forgets what need not be known any more, and writes down what must not be forgotten.
    fn make_room(&mut self, key: &Key, now: Mono) -> Vec<AuditEvent> {
        if self.counted.len() < MAX_COUNTED || self.counted.contains_key(key) {
            return Vec::new();
        }
        self.counted.retain(|_, counted| counted.last.is_some() || !counted.bucket.is_whole(now));
        if self.counted.len() < MAX_COUNTED {
            return Vec::new();
        }
        let when = |counted: &Counted| counted.last.as_ref().map_or(Mono(0), |_| counted.due);
        let first = self.counted.iter().min_by_key(|(_, counted)| when(counted)).map(|(key, _)| key.clone());
        let first = first.and_then(|first| self.counted.remove(&first));
        first.and_then(|mut counted| counted.summary()).into_iter().collect()
    }

    /// The rows of what is over.
    fn due(&mut self, now: Mono) -> Vec<AuditEvent> {
        let over = self.counted.values_mut().filter(|counted| counted.last.is_some() && counted.due <= now);
        over.filter_map(Counted::summary).collect()
    }

    fn next_due(&self) -> Option<Mono> {
        self.counted.values().filter(|counted| counted.last.is_some()).map(|counted| counted.due).min()
    }

    /// The rows of everything that is counted.
    fn finish(&mut self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.counted).into_values().filter_map(|mut counted| counted.summary()).collect()
    }
}

#[derive(Debug, Default)]
struct Waiting {
    folding: Folding,
    /// At most [`MAX_ROWS_WAITING`].
    rows: VecDeque<AuditEvent>,
    /// Rows for which there was no room.
    lost: u64,
    /// The daemon ends; nothing is written any more.
    is_over: bool,
}

impl Waiting {
    fn push(&mut self, rows: Vec<AuditEvent>, metrics: &Metrics) {
        for row in rows {
            if self.rows.len() < MAX_ROWS_WAITING {
                self.rows.push_back(row);
            } else {
                self.lost = self.lost.saturating_add(1);
                metrics.audit_rows_lost_total.add_one();
            }
        }
    }

    fn say_what_is_lost(&mut self) {
        if self.lost > 0 && self.rows.len() < MAX_ROWS_WAITING {
            let reason = format!("{} rows could not be written", std::mem::take(&mut self.lost));
            let result = AuditResult::Failed;
            let row = Row { action: AuditAction::Connect, object: LOST.to_owned(), result, reason: Some(reason) };
            self.rows.push_back(row.by(AuditEvent::BRIDGE.to_owned().into()));
        }
    }
}

/// Where rows about connections wait for the pipeline.
#[derive(Debug, Clone)]
pub(super) struct Trail {
    /// Held for a look-up, never across an `.await`.
    waiting: Arc<Mutex<Waiting>>,
    filled: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Trail {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { waiting: Arc::default(), filled: Arc::default(), metrics }
    }

    /// Writes a row, or counts it; never waits.
    pub(super) fn write(&self, by: Actor, row: Row, now: Mono) {
        let mut waiting = self.lock();
        if waiting.is_over {
            return;
        }
        let rows = waiting.folding.fold(row.by(by), now);
        waiting.push(rows, &self.metrics);
        drop(waiting);
        self.filled.notify_one();
    }

    /// How many rows wait.
    pub(super) fn len(&self) -> usize {
        self.lock().rows.len()
    }

    /// Hands rows to the pipeline until told to stop, or the pipeline has ended.
    pub(super) async fn hand_over(self, control: mpsc::Sender<Control>, clock: Clock, stop: CancellationToken) {
        loop {
            let (rows, next_due) = self.take(clock.now().mono);
            let more = rows.len() == ROWS_AT_ONCE;
            for row in rows {
                if control.send(Control::Audit(row)).await.is_err() {
                    return;
                }
            }
            if more {
                continue;
            }
            let wait = next_due.map_or(SPAN, |due| due.since(clock.now().mono));
            tokio::select! {
                biased;
                // What is left is taken by whoever ends the daemon.
                () = stop.cancelled() => return,
                () = self.filled.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn take(&self, now: Mono) -> (Vec<AuditEvent>, Option<Mono>) {
        let mut waiting = self.lock();
        let due = waiting.folding.due(now);
        waiting.push(due, &self.metrics);
        waiting.say_what_is_lost();
        let count = waiting.rows.len().min(ROWS_AT_ONCE);
        (waiting.rows.drain(..count).collect(), waiting.folding.next_due())
    }

    /// Everything that has not been handed over; nothing is taken any more.
    pub(super) fn finish(&self) -> Vec<AuditEvent> {
        let mut waiting = self.lock();
        waiting.is_over = true;
        let rest = waiting.folding.finish();
        waiting.push(rest, &self.metrics);
        waiting.say_what_is_lost();
        waiting.rows.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(1_000_000 + seconds * 1000)
    }

    fn row(by: &str, address: &str, action: AuditAction, result: AuditResult) -> AuditEvent {
        let row = Row { action, object: "c".to_owned(), result, reason: Some("wrong signature".to_owned()) };
        row.by(Actor { user: by.to_owned(), address: Some(address.to_owned()) })
    }

    fn refused(address: &str) -> AuditEvent {
        row(AuditEvent::UNKNOWN, address, AuditAction::SignIn, AuditResult::Refused)
    }

    fn reasons(rows: &[AuditEvent]) -> Vec<&str> {
        rows.iter().filter_map(|row| row.reason.as_deref()).collect()
    }

    #[test]
    fn what_one_address_is_refused_is_ten_rows_and_then_one_a_minute_with_its_number() {
        let mut folding = Folding::default();
        let singly: usize = (0..1000).map(|_| folding.fold(refused("10.0.0.9"), at(0)).len()).sum();
        assert_eq!(singly, 10);
        assert_eq!(folding.fold(refused("10.0.0.8"), at(1)).len(), 1, "another address has its own");
        assert!(folding.due(at(59)).is_empty());
        assert_eq!(folding.next_due(), Some(at(60)));
        assert_eq!(reasons(&folding.due(at(60))), ["wrong signature; 990 times within a minute"]);
        assert!(folding.due(at(600)).is_empty());
        // An hour of it at ten a second is about two rows a minute.
        let rows: usize = (0..36_000)
            .map(|tenth| {
                folding.fold(refused("10.0.0.9"), at(1000 + tenth / 10)).len()
                    + folding.due(at(1000 + tenth / 10)).len()
            })
            .sum();
        assert!((60..=140).contains(&rows), "{rows}");
    }

    #[test]
    fn a_million_addresses_are_refused_in_a_bounded_number_of_rows() {
        let mut folding = Folding::default();
        let singly: usize = (0..100_000).map(|number| folding.fold(refused(&format!("a{number}")), at(0)).len()).sum();
        assert_eq!(singly, 100);
        assert!(folding.counted.len() <= MAX_COUNTED);
        let rows = folding.due(at(60));
        assert_eq!(reasons(&rows), ["wrong signature; 99900 times within a minute"]);
    }

    #[test]
    fn a_client_that_comes_and_goes_all_day_has_a_bounded_number_of_rows() {
        let mut folding = Folding::default();
        let row = |second: u64| row("lena", &format!("10.0.0.{}", second % 2), AuditAction::Connect, AuditResult::Done);
        let singly: usize = (0..60).map(|second| folding.fold(row(second), at(0)).len()).sum();
        assert_eq!(singly, 60, "a ward that starts is not summed up");
        let day: usize = (60..86_400)
            .map(|second| folding.fold(row(second), at(second)).len() + folding.due(at(second)).len())
            .sum();
        // For each of the two addresses one row each ten seconds, and one a minute for the others.
        assert!((2 * 8640..=2 * (8640 + 1440 + 60)).contains(&day), "{day}");
    }

    #[test]
    fn nothing_is_forgotten_without_its_row() {
        let mut folding = Folding::default();
        let connect = |user: &str| row(user, "10.0.0.1", AuditAction::Connect, AuditResult::Done);
        for _ in 0..62 {
            folding.fold(connect("first"), at(0));
        }
        let rows: Vec<AuditEvent> =
            (0..2 * MAX_COUNTED).flat_map(|number| folding.fold(connect(&number.to_string()), at(1))).collect();
        assert_eq!(rows.len(), 2 * MAX_COUNTED, "each of them stands alone");
        assert!(folding.counted.len() <= MAX_COUNTED);
        assert_eq!(reasons(&folding.finish()), ["wrong signature; 2 times within a minute"]);
    }

    #[test]
    fn rows_that_find_no_room_are_counted_and_said() {
        let metrics = Arc::new(Metrics::default());
        let trail = Trail::new(Arc::clone(&metrics));
        for number in 0..MAX_ROWS_WAITING + 3 {
            let by = Actor { user: number.to_string(), address: None };
            trail.write(by, Row::done(AuditAction::Connect, "c".to_owned(), None), at(0));
        }
        assert_eq!((trail.len(), metrics.audit_rows_lost_total.get()), (MAX_ROWS_WAITING, 3));
        assert_eq!(trail.take(at(1)).0.len(), ROWS_AT_ONCE);
        let rest = trail.finish();
        assert_eq!(rest.last().and_then(|row| row.reason.as_deref()), Some("3 rows could not be written"));
        trail.write(AuditEvent::UNKNOWN.to_owned().into(), Row::done(AuditAction::Connect, String::new(), None), at(2));
        assert_eq!(trail.len(), 0, "the daemon ends");
    }
}
