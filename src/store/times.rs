//! Which blocks of numbers hold readings of a time: finds a span of time without an index that each reading pays for.

use rusqlite::{Transaction, params};

use super::codec::row_id;
use crate::clock::Wall;
use crate::ids::Seq;

/// Numbers in a block. A smaller one costs more writes, a larger one more rows that are read in vain.
pub(super) const BLOCK: i64 = 1024;

/// When a reading was measured, in ms since 1970; where nobody knows, when it arrived.
const MEASURED: &str = "wall - received_ms - ifnull(taken_ms, 0)";

/// The block of a number.
pub(super) fn block_of(seq: Seq) -> i64 {
    row_id(seq) / BLOCK
}

/// The first number of a block.
pub(super) fn first_of(block: i64) -> Seq {
    super::codec::seq_of(block.saturating_mul(BLOCK))
}

/// True if a block was completed between `before` and `newest`.
pub(super) fn is_beyond(newest: Seq, before: Seq) -> bool {
    block_of(newest) > block_of(before)
}

/// Notes the times of every block that is complete and was not noted yet: usually one, after a salvage all.
pub(super) fn note(transaction: &Transaction<'_>, newest: Seq) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT OR IGNORE INTO reading_block (block, earliest, latest)
         SELECT seq / {BLOCK}, min({MEASURED}), max({MEASURED}) FROM reading
         WHERE seq >= {BLOCK} * ifnull((SELECT max(block) + 1 FROM reading_block), 0) AND seq < ?1
         GROUP BY seq / {BLOCK}"
    );
    transaction.prepare_cached(&sql)?.execute([row_id(first_of(block_of(newest)))])?;
    Ok(())
}

/// Forgets the blocks of which no number is left after `last` was dropped.
pub(super) fn forget(transaction: &Transaction<'_>, last: Seq) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached("DELETE FROM reading_block WHERE block < ?1")?;
    statement.execute([block_of(last.next())])?;
    Ok(())
}

/// The blocks from `block` on that have readings measured in `from..to`, in rising order, at most `most`; and the first
/// block that is not noted, which may have some too.
pub(super) fn blocks(
    transaction: &Transaction<'_>,
    block: i64,
    (from, to): (Wall, Wall),
    most: i64,
) -> rusqlite::Result<(Vec<i64>, i64)> {
    let open: i64 =
        transaction.query_row("SELECT ifnull(max(block) + 1, 0) FROM reading_block", [], |row| row.get(0))?;
    let mut statement = transaction.prepare_cached(
        "SELECT block FROM reading_block WHERE block >= ?1 AND latest >= ?2 AND earliest < ?3 ORDER BY block LIMIT ?4",
    )?;
    let found = statement.query_map(params![block, from.0, to.0, most], |row| row.get(0))?;
    Ok((found.collect::<rusqlite::Result<_>>()?, open))
}

/// The latest time up to which no more than `most` blocks have readings measured since `from`, not after `to`.
pub(super) fn reach(transaction: &Transaction<'_>, (from, to): (Wall, Wall), most: i64) -> rusqlite::Result<Wall> {
    let mut statement = transaction.prepare_cached(
        "SELECT earliest FROM reading_block WHERE latest >= ?1 AND earliest < ?2 ORDER BY earliest LIMIT 1 OFFSET ?3",
    )?;
    let mut rows = statement.query(params![from.0, to.0, most])?;
    Ok(match rows.next()? {
        Some(row) => Wall(row.get(0)?),
        None => to,
    })
}

/// The first time since `from` at which something may have been measured, and the last; `None`: nothing was.
pub(super) fn extent(transaction: &Transaction<'_>, from: Wall) -> rusqlite::Result<Option<(Wall, Wall)>> {
    // The newest block is not noted yet, so its readings are looked at.
    let sql = format!(
        "SELECT min(earliest), max(latest) FROM (
             SELECT max(earliest, ?1) AS earliest, latest FROM reading_block WHERE latest >= ?1
             UNION ALL
             SELECT {MEASURED}, {MEASURED} FROM reading
             WHERE seq >= {BLOCK} * ifnull((SELECT max(block) + 1 FROM reading_block), 0) AND {MEASURED} >= ?1)"
    );
    let ends: (Option<i64>, Option<i64>) =
        transaction.prepare_cached(&sql)?.query_row([from.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ends.0.zip(ends.1).map(|(earliest, latest)| (Wall(earliest), Wall(latest))))
}
