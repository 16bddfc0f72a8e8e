//! Rows that the broker did not take: remembered over restarts, so that people can look at them and send them again.

use rusqlite::{Transaction, params};

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

/// A change of what is parked.
#[derive(Debug, Clone)]
pub(super) enum Parking {
    /// One row more.
    Parked(ParkedRow),
    /// These go again.
    TakenUp(SeqRange),
}

/// Changes that are not stored yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Parkings(Vec<Parking>);

impl Parkings {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, change: Parking) {
        if self.0.len() >= MAX_WAITING {
            self.0.remove(0);
            tracing::warn!("the disk does not keep up: a parked row is not remembered");
        }
        self.0.push(change);
    }

    /// Puts these before what has come meanwhile.
    pub(super) fn put_before(&mut self, before: Self) {
        let after = std::mem::replace(&mut self.0, before.0);
        for change in after {
            self.push(change);
        }
    }

    /// Stores the changes as a part of `transaction`.
    pub(super) fn store(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        for change in &self.0 {
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

impl Reader {
    /// How many rows are parked.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn count_parked(&self) -> Result<u64, StoreError> {
        self.look_up(|transaction| {
            transaction.query_row("SELECT count(*) FROM parked", [], |row| row.get(0)).map(|count| seq_of(count).0)
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
