//! Rows that the broker did not take: remembered over restarts, so that people can look at them and send them again.
//!
//! None of them goes by age, and none is forgotten without a word: of too many the older ones are remembered as a range, and
//! those that leave the log for want of space are told. What is remembered of them stands until they are asked for again.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::codec::{row_id, seq_of};
use super::reader::Reader;
use super::{SeqRange, StoreError};
use crate::clock::Wall;
use crate::ids::Seq;

/// Parked rows that are remembered one by one, with the reason; of more the older ones are remembered as a range.
pub const MAX_PARKED: usize = 10_000;

/// Moves that may wait for the next group; of more the oldest parked rows are remembered as a range.
const MAX_WAITING: usize = 4096;

/// The older ones, in the table of ranges: they are in the log.
const OLDER: &str = "older";

/// Those that have left the log.
const GONE: &str = "gone";

/// A row that the broker did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    /// Which.
    pub seq: Seq,
    /// On which way.
    pub lane: String,
    /// When it was given up.
    pub at: Wall,
    /// Why, in words.
    pub reason: String,
}

/// Parked rows of which only the range is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkedRange {
    /// The range around them.
    pub range: SeqRange,
    /// How many they are, at most.
    pub rows: u64,
    /// They have left the log for want of space: nobody can send them again.
    pub is_gone: bool,
}

/// How many rows are parked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParkedCount {
    /// On disk.
    stored: u64,
    /// On their way there.
    pending: u64,
}

impl ParkedCount {
    /// Of a store that has so many.
    pub(super) const fn of(stored: u64) -> Self {
        Self { stored, pending: 0 }
    }

    /// One more that is not on disk yet.
    pub(super) const fn add(&mut self) {
        self.pending = self.pending.saturating_add(1);
    }

    /// So many are on disk now; among them those of `changes`, which waited. True if that changes anything.
    pub(super) fn store(&mut self, stored: u64, changes: &Parkings) -> bool {
        let before = *self;
        (self.stored, self.pending) = (stored, self.pending.saturating_sub(changes.count()));
        *self != before
    }

    /// All of them.
    pub const fn total(self) -> u64 {
        self.stored.saturating_add(self.pending)
    }
}

/// A change of what is parked.
#[derive(Debug, Clone)]
pub(super) enum Parking {
    /// One row more.
    Parked(ParkedRow),
    /// So many rows more, of which only the range is remembered.
    Older(SeqRange, u64),
    /// These go again.
    TakenUp(SeqRange),
}

impl Parking {
    const fn is_parked(&self) -> bool {
        matches!(self, Self::Parked(_))
    }
}

/// Changes that are not stored yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Parkings {
    changes: Vec<Parking>,
}

impl Parkings {
    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn push(&mut self, change: Parking) {
        while self.changes.len() >= MAX_WAITING {
            self.join_oldest();
        }
        self.changes.push(change);
    }

    /// Makes room: the oldest parked row joins a range, or becomes one where nothing is before it but what people asked for.
    fn join_oldest(&mut self) {
        let Some(place) = self.changes.iter().position(Parking::is_parked) else {
            // Nothing but what people asked for, who wait for that.
            self.changes.remove(0);
            return;
        };
        let Parking::Parked(row) = self.changes.remove(place) else { return };
        match place.checked_sub(1).and_then(|before| self.changes.get_mut(before)) {
            Some(Parking::Older(range, rows)) => {
                (range.first, range.last) = (range.first.min(row.seq), range.last.max(row.seq));
                *rows = rows.saturating_add(1);
            }
            _ => self.changes.insert(place, Parking::Older(SeqRange { first: row.seq, last: row.seq }, 1)),
        }
    }

    /// Rows that waited to be parked by these changes.
    fn count(&self) -> u64 {
        let rows = self.changes.iter().map(|change| match change {
            Parking::Parked(_) => 1,
            Parking::Older(_, rows) => *rows,
            Parking::TakenUp(_) => 0,
        });
        rows.fold(0, u64::saturating_add)
    }

    /// Puts these before what has come meanwhile.
    pub(super) fn put_before(&mut self, before: Self) {
        let after = std::mem::replace(self, before);
        for change in after.changes {
            self.push(change);
        }
    }

    /// Stores the changes as a part of `transaction`.
    pub(super) fn store(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        for change in &self.changes {
            match change {
                Parking::Parked(ParkedRow { seq, lane, at, reason }) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO parked (seq, lane, wall, reason) VALUES (?1, ?2, ?3, ?4)")?
                    .execute(params![row_id(*seq), lane, at.0, reason])
                    .map(drop)?,
                Parking::Older(range, rows) => widen(transaction, OLDER, *range, *rows)?,
                Parking::TakenUp(range) => take_up(transaction, *range)?,
            }
        }
        let most = i64::try_from(MAX_PARKED).unwrap_or(i64::MAX);
        let surplus: Option<i64> = transaction
            .prepare_cached("SELECT id FROM parked ORDER BY id DESC LIMIT 1 OFFSET ?1")?
            .query_row([most], |row| row.get(0))
            .optional()?;
        if let Some((range, rows)) = surplus.map(|last| take_out(transaction, "id <= ?1", last)).transpose()?.flatten()
        {
            widen(transaction, OLDER, range, rows)?;
        }
        Ok(())
    }
}

/// Takes rows out of the list; the range around them, and how many they were.
fn take_out(transaction: &Transaction<'_>, which: &str, bound: i64) -> rusqlite::Result<Option<(SeqRange, u64)>> {
    let sql = format!("SELECT min(seq), max(seq), count(*) FROM parked WHERE {which}");
    let (first, last, rows): (Option<i64>, Option<i64>, i64) =
        transaction.prepare_cached(&sql)?.query_row([bound], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let Some((first, last)) = first.zip(last) else { return Ok(None) };
    transaction.prepare_cached(&format!("DELETE FROM parked WHERE {which}"))?.execute([bound])?;
    Ok(Some((SeqRange { first: seq_of(first), last: seq_of(last) }, seq_of(rows).0)))
}

/// More rows of which only the range is remembered.
fn widen(transaction: &Transaction<'_>, kind: &str, range: SeqRange, rows: u64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO parked_range (kind, first, last, rows) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
        first = min(first, excluded.first), last = max(last, excluded.last), rows = rows + excluded.rows";
    let row = params![kind, row_id(range.first), row_id(range.last), rows.cast_signed()];
    transaction.prepare_cached(sql)?.execute(row).map(drop)
}

/// Stores what is left of a range; `None`: nothing is. There are not more rows than numbers.
fn narrow(transaction: &Transaction<'_>, kind: &str, left: Option<SeqRange>) -> rusqlite::Result<()> {
    match left {
        None => transaction.prepare_cached("DELETE FROM parked_range WHERE kind = ?1")?.execute([kind]).map(drop),
        Some(SeqRange { first, last }) => transaction
            .prepare_cached(
                "UPDATE parked_range SET first = ?2, last = ?3, rows = min(rows, ?3 - ?2 + 1) WHERE kind = ?1",
            )?
            .execute(params![kind, row_id(first), row_id(last)])
            .map(drop),
    }
}

/// These go again: nothing of them is remembered. Out of the middle of a range nothing can be taken.
fn take_up(transaction: &Transaction<'_>, taken: SeqRange) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM parked WHERE seq BETWEEN ?1 AND ?2")?
        .execute([row_id(taken.first), row_id(taken.last)])?;
    for kind in [OLDER, GONE] {
        let Some((SeqRange { first, last }, _)) = range_of(transaction, kind)? else { continue };
        if taken.last < first || taken.first > last {
            continue;
        }
        match (taken.first <= first, taken.last >= last) {
            (true, true) => narrow(transaction, kind, None)?,
            (true, false) => narrow(transaction, kind, Some(SeqRange { first: taken.last.next(), last }))?,
            (false, true) => {
                let before = Seq(taken.first.0.saturating_sub(1));
                narrow(transaction, kind, Some(SeqRange { first, last: before }))?;
            }
            (false, false) => {}
        }
    }
    Ok(())
}

fn range_of(transaction: &Transaction<'_>, kind: &str) -> rusqlite::Result<Option<(SeqRange, u64)>> {
    transaction
        .prepare_cached("SELECT first, last, rows FROM parked_range WHERE kind = ?1")?
        .query_row([kind], |row| {
            let range = SeqRange { first: seq_of(row.get(0)?), last: seq_of(row.get(1)?) };
            Ok((range, seq_of(row.get(2)?).0))
        })
        .optional()
}

/// How many rows are parked.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT (SELECT count(*) FROM parked) + (SELECT ifnull(sum(rows), 0) FROM parked_range)";
    connection.query_row(sql, [], |row| row.get(0)).map(|count| seq_of(count).0)
}

/// The first parked row that may be in the log: it and what comes after it does not go by age.
pub(super) fn first_held(transaction: &Transaction<'_>) -> rusqlite::Result<Option<Seq>> {
    let sql = "SELECT min(first) FROM (
        SELECT min(seq) AS first FROM parked UNION ALL SELECT first FROM parked_range WHERE kind = 'older')";
    let first: Option<i64> = transaction.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(first.map(seq_of))
}

/// Takes note of those that are no longer in the log, where everything up to `through` was dropped for want of space: the
/// range around them, and how many they are at most. Nobody can send them again, and so somebody has to be told.
pub(super) fn note_gone(
    transaction: &Transaction<'_>,
    through: Option<Seq>,
) -> rusqlite::Result<Option<(SeqRange, u64)>> {
    let newest = i64::MAX;
    let which = "seq <= ?1 AND NOT EXISTS (SELECT 1 FROM reading WHERE reading.seq = parked.seq)
        AND NOT EXISTS (SELECT 1 FROM event WHERE event.seq = parked.seq)";
    let mut gone = take_out(transaction, which, newest)?;
    let older = range_of(transaction, OLDER)?;
    if let (Some(through), Some((range, rows))) = (through, older)
        && range.first <= through
    {
        let last = range.last.min(through);
        let left = (last < range.last).then_some(SeqRange { first: last.next(), last: range.last });
        narrow(transaction, OLDER, left)?;
        let numbers = last.0.saturating_sub(range.first.0).saturating_add(1);
        let (with, more) = gone.unwrap_or((SeqRange { first: range.first, last }, 0));
        let around = SeqRange { first: with.first.min(range.first), last: with.last.max(last) };
        gone = Some((around, more.saturating_add(rows.min(numbers))));
    }
    if let Some((range, rows)) = gone {
        widen(transaction, GONE, range, rows)?;
    }
    Ok(gone)
}

impl Reader {
    /// How many rows are parked.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn count_parked(&self) -> Result<u64, StoreError> {
        self.look_up(|transaction| count(transaction)).await
    }

    /// Those of which only the range is remembered: older ones, and those that have left the log.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn parked_ranges(&self) -> Result<Vec<ParkedRange>, StoreError> {
        self.look_up(|transaction| {
            let mut statement = transaction.prepare("SELECT first, last, rows, kind = 'gone' FROM parked_range")?;
            let rows = statement.query_map([], |row| {
                let range = SeqRange { first: seq_of(row.get(0)?), last: seq_of(row.get(1)?) };
                Ok(ParkedRange { range, rows: seq_of(row.get(2)?).0, is_gone: row.get(3)? })
            })?;
            rows.collect()
        })
        .await
    }

    /// The parked rows after `after` and up to `through` in the order of their numbers, at most `limit`.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn parked(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<ParkedRow>, StoreError> {
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        self.look_up(move |transaction| {
            let sql = "SELECT seq, lane, wall, reason FROM parked WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
            let mut statement = transaction.prepare_cached(sql)?;
            let rows = statement.query_map(params![row_id(after), row_id(through), most], |row| {
                Ok(ParkedRow {
                    seq: seq_of(row.get(0)?),
                    lane: row.get(1)?,
                    at: Wall(row.get(2)?),
                    reason: row.get(3)?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::{Mono, Stamp};
    use crate::event::{Event, EventBody, SystemEvent, SystemKind};
    use crate::store::{Opened, StoreOptions, open, schema};

    const NOW: Stamp = Stamp { mono: Mono::from_millis(60_000), wall: Wall(1_795_219_200_000) };

    fn opened(folder: &std::path::Path, run: u64) -> Opened {
        open(folder, &StoreOptions::default(), crate::ids::Epoch::from_bits(run), "boot", NOW).unwrap()
    }

    #[test]
    fn of_too_many_changes_the_oldest_parked_rows_are_remembered_as_a_range_and_counted() {
        let mut changes = Parkings::default();
        changes.push(Parking::TakenUp(SeqRange { first: Seq(1), last: Seq(2) }));
        let most = u64::try_from(MAX_WAITING).unwrap();
        let mut count = ParkedCount::of(0);
        for seq in 3..most + 8 {
            changes.push(Parking::Parked(row(seq)));
            count.add();
        }
        assert_eq!(changes.changes.len(), MAX_WAITING);
        assert!(matches!(changes.changes[0], Parking::TakenUp(_)), "what went again is still told");
        assert!(matches!(changes.changes[1], Parking::Older(SeqRange { first: Seq(3), last: Seq(9) }, 7)));
        let mut again = Parkings::default();
        again.put_before(changes);
        assert!(count.store(most + 5, &again));
        assert_eq!(count.total(), most + 5);
    }

    #[test]
    fn a_row_that_goes_again_while_the_disk_fails_is_not_parked_by_what_failed() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = empty(folder.path());
        let (mut failed, mut since) = (Parkings::default(), Parkings::default());
        failed.push(Parking::Parked(row(5)));
        since.push(Parking::TakenUp(SeqRange { first: Seq(5), last: Seq(5) }));
        since.push(Parking::Parked(row(6)));
        since.put_before(failed);
        let transaction = connection.transaction().unwrap();
        since.store(&transaction).unwrap();
        let left: i64 = transaction.query_row("SELECT sum(seq) FROM parked", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 6);
    }

    #[test]
    fn the_newest_parked_rows_are_remembered_and_not_more_than_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = empty(folder.path());
        let transaction = connection.transaction().unwrap();
        let most = u64::try_from(MAX_PARKED).unwrap();
        for begin in (1..=most + 1000).step_by(1000) {
            let mut changes = Parkings::default();
            (begin..begin + 1000).for_each(|seq| changes.push(Parking::Parked(row(seq))));
            changes.store(&transaction).unwrap();
        }
        let sql = "SELECT min(seq), count(*) FROM parked";
        let listed: (i64, i64) = transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(listed, (1001, i64::try_from(most).unwrap()));
        assert_eq!(count(&transaction).unwrap(), most + 1000, "older ones are counted");
    }

    fn empty(folder: &std::path::Path) -> Connection {
        let path = folder.join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = schema::connect_writer(&path).unwrap();
        schema::migrate(&mut connection, &path, schema::MIGRATIONS).unwrap();
        connection
    }

    fn row(seq: u64) -> ParkedRow {
        ParkedRow { seq: Seq(seq), lane: "alerts".to_owned(), at: NOW.wall, reason: "no".to_owned() }
    }

    #[tokio::test]
    async fn what_is_parked_is_counted_at_once_and_by_the_next_run_too() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { writer, handle, reader, epoch, .. } = opened(folder.path(), 1);
        assert_eq!(handle.parked().borrow().total(), 0);
        for seq in 1..=3 {
            let system = SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
            let body = EventBody::System(system);
            handle.try_append(Arc::new(Event { epoch: epoch.clone(), seq: Seq(seq), at: NOW, body })).unwrap();
            handle.park(row(seq));
        }
        assert_eq!(handle.parked().borrow().total(), 3, "before it is on disk");
        handle.unpark(SeqRange { first: Seq(3), last: Seq(3) });
        let stop = CancellationToken::new();
        stop.cancel();
        writer.run(stop).await.unwrap();
        assert_eq!(handle.parked().borrow().total(), 2);
        drop((handle, reader));
        assert_eq!(opened(folder.path(), 2).handle.parked().borrow().total(), 2);
    }

    fn database(folder: &std::path::Path) -> Connection {
        let path = folder.join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = schema::connect_writer(&path).unwrap();
        schema::migrate(&mut connection, &path, schema::MIGRATIONS).unwrap();
        connection
    }

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn what_has_left_the_log_is_told_once_and_counted_until_it_is_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        connection
            .execute_batch("INSERT INTO event (seq, kind, mono, wall, body) VALUES (2, 'system', 0, 0, '{}');")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        let mut changes = Parkings::default();
        for seq in [1, 2] {
            changes.push(Parking::Parked(row(seq)));
        }
        changes.store(&transaction).unwrap();
        assert_eq!(first_held(&transaction).unwrap(), Some(Seq(1)));
        assert_eq!(note_gone(&transaction, None).unwrap(), Some((range(1, 1), 1)));
        assert_eq!(note_gone(&transaction, None).unwrap(), None);
        assert_eq!(first_held(&transaction).unwrap(), Some(Seq(2)), "what has gone holds nothing up");
        assert_eq!(count(&transaction).unwrap(), 2);
        take_up(&transaction, range(1, 1)).unwrap();
        assert_eq!(count(&transaction).unwrap(), 1);
    }

    #[test]
    fn of_too_many_the_older_ones_are_held_and_counted_as_a_range() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = database(folder.path());
        let transaction = connection.transaction().unwrap();
        let most = u64::try_from(MAX_PARKED).unwrap();
        for seq in 1..=most + 5 {
            let mut one = Parkings::default();
            one.push(Parking::Parked(row(seq)));
            one.store(&transaction).unwrap();
        }
        assert_eq!(range_of(&transaction, OLDER).unwrap(), Some((range(1, 5), 5)));
        assert_eq!((count(&transaction).unwrap(), first_held(&transaction).unwrap()), (most + 5, Some(Seq(1))));
        // Their middle goes again, their end, then the front leaves the log.
        take_up(&transaction, range(2, 3)).unwrap();
        assert_eq!(range_of(&transaction, OLDER).unwrap(), Some((range(1, 5), 5)));
        take_up(&transaction, range(5, 9)).unwrap();
        assert_eq!(range_of(&transaction, OLDER).unwrap(), Some((range(1, 4), 4)));
        transaction.execute("DELETE FROM parked", []).unwrap();
        assert_eq!(note_gone(&transaction, Some(Seq(3))).unwrap(), Some((range(1, 3), 3)));
        assert_eq!(range_of(&transaction, OLDER).unwrap(), Some((range(4, 4), 1)));
        assert_eq!(note_gone(&transaction, Some(Seq(9))).unwrap(), Some((range(4, 4), 1)));
        assert_eq!((first_held(&transaction).unwrap(), count(&transaction).unwrap()), (None, 4));
        take_up(&transaction, range(1, 4)).unwrap();
        assert_eq!(count(&transaction).unwrap(), 0);
    }
}
