//! Where a listener goes on that was away: across runs of the daemon, and with every lost range named.

use rusqlite::{OptionalExtension, Transaction, params};

use super::SeqRange;
use super::codec::{row_id, seq_of};
use crate::ids::Seq;

/// Most lost ranges that are told apart. Beyond that the last one runs to the last loss, so that a listener counts some
/// events as lost that it still gets, and never the other way round.
pub const MAX_LOST_RANGES: usize = 64;

/// Where a listener goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumePoint {
    /// After `after`.
    After {
        /// The last event that it has and that still counts. What it saw of an older run beyond that was never stored;
        /// those numbers come again, as others.
        after: Seq,
        /// Numbers after `after` that were stored, or given, and are gone.
        lost: Vec<SeqRange>,
    },
    /// Its run is not known here: it needs a snapshot.
    Unknown,
}

/// Where a listener goes on that last saw `seq` of the run `epoch`.
pub(super) fn find(transaction: &Transaction<'_>, epoch: &str, seq: Seq) -> rusqlite::Result<ResumePoint> {
    let found: Option<i64> =
        transaction.query_row("SELECT id FROM epoch WHERE name = ?1", [epoch], |row| row.get(0)).optional()?;
    let Some(id) = found else {
        return Ok(ResumePoint::Unknown);
    };
    let next_run: Option<i64> =
        transaction.query_row("SELECT min(first_seq) FROM epoch WHERE id > ?1", [id], |row| row.get(0))?;
    let after = next_run.map_or(seq, |first| seq.min(Seq(seq_of(first).0.saturating_sub(1))));
    let lost = lost(transaction, after, Seq(u64::MAX))?;
    Ok(ResumePoint::After { after, lost })
}

/// Which of the numbers after `after` and up to `last` were given and are not in the log.
///
/// Readings go from the front only, so every number before the oldest reading that no event has is lost. After it only
/// the noted holes are.
pub(super) fn lost(transaction: &Transaction<'_>, after: Seq, last: Seq) -> rusqlite::Result<Vec<SeqRange>> {
    let mut lost = Losses { ranges: Vec::new(), after, last };
    let oldest_reading: Option<i64> = transaction.query_row("SELECT min(seq) FROM reading", [], |row| row.get(0))?;
    let newest_event: Option<i64> = transaction.query_row("SELECT max(seq) FROM event", [], |row| row.get(0))?;
    // Where no reading is left, the events tell how far the numbering has come.
    let front = oldest_reading.or(newest_event.map(|newest| newest.saturating_add(1))).unwrap_or(0);

    let mut statement = transaction.prepare_cached("SELECT seq FROM event WHERE seq > ?1 AND seq < ?2 ORDER BY seq")?;
    let mut rows = statement.query(params![row_id(after), front])?;
    let mut expected = row_id(after.next());
    while let Some(row) = rows.next()? {
        let kept: i64 = row.get(0)?;
        lost.add(expected, kept.saturating_sub(1));
        expected = kept.saturating_add(1);
    }
    lost.add(expected, front.saturating_sub(1));

    let mut statement =
        transaction.prepare_cached("SELECT first, last FROM hole WHERE last > ?1 AND last >= ?2 ORDER BY first")?;
    let mut rows = statement.query(params![row_id(after), front])?;
    while let Some(row) = rows.next()? {
        let first: i64 = row.get(0)?;
        lost.add(first.max(front), row.get(1)?);
    }
    Ok(lost.ranges)
}

/// Lost ranges inside the numbers that were asked for.
struct Losses {
    ranges: Vec<SeqRange>,
    after: Seq,
    last: Seq,
}

impl Losses {
    /// Adds `first..=last`, in rising order; nothing if `last` is before `first`.
    fn add(&mut self, first: i64, last: i64) {
        let first = seq_of(first).max(self.after.next());
        let last = seq_of(last).min(self.last);
        if first > last {
            return;
        }
        let is_full = self.ranges.len() >= MAX_LOST_RANGES;
        match self.ranges.last_mut() {
            Some(range) if is_full || range.last.next() >= first => range.last = last,
            _ => self.ranges.push(SeqRange { first, last }),
        }
    }
}
