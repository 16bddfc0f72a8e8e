//! Rows that the broker did not take: remembered over restarts, so that people can look at them and send them again.

use rusqlite::{Connection, Transaction, params};

use super::codec::{row_id, seq_of};
use super::reader::Reader;
use super::{SeqRange, StoreError};
use crate::clock::Wall;
use crate::ids::Seq;

/// Parked rows that are remembered; of one more the oldest is forgotten. The row itself stays in the log as others do.
pub const MAX_PARKED: usize = 10_000;

/// Moves that may wait for the next group; the oldest is forgotten with a line in the log.
const MAX_WAITING: usize = 4096;

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
    /// Rows that will never be remembered: there were too many changes.
    dropped: u64,
}

impl Parkings {
    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn push(&mut self, change: Parking) {
        if self.changes.len() >= MAX_WAITING {
            // A row that is not remembered stays in the log; one that went again and is remembered would be told for ever.
            let oldest = self.changes.iter().position(Parking::is_parked);
            let was_parked = self.changes.remove(oldest.unwrap_or(0)).is_parked();
            self.dropped = self.dropped.saturating_add(u64::from(was_parked));
            tracing::warn!("the disk does not keep up: a parked row is not remembered");
        }
        self.changes.push(change);
    }

    /// Rows that waited to be parked by these changes.
    fn count(&self) -> u64 {
        let parked = self.changes.iter().filter(|change| change.is_parked());
        u64::try_from(parked.count()).unwrap_or(u64::MAX).saturating_add(self.dropped)
    }

    /// Puts these before what has come meanwhile.
    pub(super) fn put_before(&mut self, before: Self) {
        let after = std::mem::replace(self, before);
        self.dropped = self.dropped.saturating_add(after.dropped);
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
                    .execute(params![row_id(*seq), lane, at.0, reason])?,
                Parking::TakenUp(SeqRange { first, last }) => transaction
                    .prepare_cached("DELETE FROM parked WHERE seq BETWEEN ?1 AND ?2")?
                    .execute([row_id(*first), row_id(*last)])?,
            };
        }
        let most = i64::try_from(MAX_PARKED).unwrap_or(i64::MAX);
        let sql = "DELETE FROM parked WHERE id <= (SELECT id FROM parked ORDER BY id DESC LIMIT 1 OFFSET ?1)";
        transaction.prepare_cached(sql)?.execute([most])?;
        Ok(())
    }
}

/// How many rows are parked.
pub(super) fn count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM parked", [], |row| row.get(0)).map(|count| seq_of(count).0)
}

/// Forgets those that are no longer in the log: nobody can send them again.
pub(super) fn forget_gone(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM parked WHERE NOT EXISTS (SELECT 1 FROM reading WHERE reading.seq = parked.seq)
        AND NOT EXISTS (SELECT 1 FROM event WHERE event.seq = parked.seq)";
    transaction.prepare_cached(sql)?.execute([]).map(drop)
}

impl Reader {
    /// How many rows are parked.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn count_parked(&self) -> Result<u64, StoreError> {
        self.look_up(|transaction| count(transaction)).await
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
    fn of_too_many_changes_the_oldest_parked_rows_are_neither_remembered_nor_counted() {
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
        let mut again = Parkings::default();
        again.put_before(changes);
        assert!(count.store(most - 1, &again));
        assert_eq!(count.total(), most - 1);
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
        let oldest: i64 = transaction.query_row("SELECT min(seq) FROM parked", [], |row| row.get(0)).unwrap();
        assert_eq!((oldest, count(&transaction).unwrap()), (1001, most));
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

    #[test]
    fn what_has_left_the_log_is_parked_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = schema::connect_writer(&path).unwrap();
        schema::migrate(&mut connection, &path, schema::MIGRATIONS).unwrap();
        connection
            .execute_batch("INSERT INTO event (seq, kind, mono, wall, body) VALUES (2, 'system', 0, 0, '{}');")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        let mut changes = Parkings::default();
        for seq in [1, 2] {
            changes.push(Parking::Parked(row(seq)));
        }
        changes.store(&transaction).unwrap();
        forget_gone(&transaction).unwrap();
        let left: i64 =
            transaction.query_row("SELECT group_concat(seq) + 0 FROM parked", [], |row| row.get(0)).unwrap();
        assert_eq!((left, count(&transaction).unwrap()), (2, 1));
    }
}
