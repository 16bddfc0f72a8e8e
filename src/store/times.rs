//! Which blocks of numbers hold readings of a time: finds a span of time without an index that each reading pays for.

use rusqlite::{Transaction, params};

use super::codec::row_id;
use crate::clock::Wall;
use crate::ids::Seq;

/// Numbers in a block. A smaller one costs more writes, a larger one more rows that are read in vain.
pub(super) const BLOCK: i64 = 1024;

/// When a reading was measured, in ms since 1970; where nobody knows, when it arrived. The cast keeps the end of the range
/// where clocks are beyond all reason, as SQLite would otherwise make a REAL of it, which the table refuses.
const MEASURED: &str = "CAST(wall - received_ms - ifnull(taken_ms, 0) AS INTEGER)";

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

/// Blocks that are looked into for the first time since a moment; where more have earlier and later readings, that
/// moment itself is taken for it.
const LOOKED_INTO: i64 = 16;

/// The first time since `from` at which something may have been measured, and the last; `None`: nothing was.
pub(super) fn extent(transaction: &Transaction<'_>, from: Wall) -> rusqlite::Result<Option<(Wall, Wall)>> {
    // Blocks after `from` are known by their ends; in those about it, and in the newest one, readings are looked at.
    let sql = format!(
        "WITH about AS (SELECT block FROM reading_block WHERE latest >= ?1 AND earliest < ?1),
              looked_into (first, last) AS (
                  SELECT block * {BLOCK}, (block + 1) * {BLOCK} - 1 FROM about
                      WHERE (SELECT count(*) FROM about) <= {LOOKED_INTO}
                  UNION ALL SELECT ifnull(max(block) + 1, 0) * {BLOCK}, {last} FROM reading_block),
              found (earliest, latest) AS (
                  SELECT earliest, latest FROM reading_block WHERE earliest >= ?1
                  UNION ALL SELECT ?1, latest FROM reading_block
                      WHERE latest >= ?1 AND earliest < ?1 AND (SELECT count(*) FROM about) > {LOOKED_INTO}
                  UNION ALL SELECT {MEASURED}, {MEASURED} FROM looked_into CROSS JOIN reading
                      ON seq BETWEEN first AND last WHERE {MEASURED} >= ?1)
         SELECT min(earliest), max(latest) FROM found",
        last = i64::MAX
    );
    let ends: (Option<i64>, Option<i64>) =
        transaction.prepare_cached(&sql)?.query_row([from.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(ends.0.zip(ends.1).map(|(earliest, latest)| (Wall(earliest), Wall(latest))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::{MIGRATIONS, connect_writer, migrate};

    /// A database with readings measured at `at(seq)`, and the blocks up to `noted`.
    fn database(last: i64, noted: u64, at: impl Fn(i64) -> i64) -> (tempfile::TempDir, rusqlite::Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect_writer(&path).unwrap();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        let transaction = connection.transaction().unwrap();
        for seq in 1..=last {
            let sql =
                "INSERT INTO reading (seq, stream, mono, wall, received_ns, received_ms, taken_ms, uncertainty_ms,
                mantissa, exponent) VALUES (?1, 1, 0, ?2 + 9, 0, 2, 7, 0, 1, 0)";
            transaction.prepare_cached(sql).unwrap().execute([seq, at(seq)]).unwrap();
        }
        note(&transaction, Seq(noted)).unwrap();
        transaction.commit().unwrap();
        (folder, connection)
    }

    #[test]
    fn the_blocks_of_a_time_are_found_late_readings_among_them() {
        // One reading of block 2 was measured at the time of block 0.
        let (_folder, mut connection) = database(5000, 5000, |seq| if seq == 2100 { 500 } else { seq });
        let transaction = connection.transaction().unwrap();
        let found = |from, to, most| blocks(&transaction, 0, (Wall(from), Wall(to)), most).unwrap();
        assert_eq!(found(400, 600, 16), (vec![0, 2], 4));
        assert_eq!(found(3000, 3100, 16), (vec![2, 3], 4));
        assert_eq!(found(0, 9000, 2), (vec![0, 1], 4));
        assert_eq!(found(4500, 9000, 16), (vec![], 4), "the newest block is not noted: it is always looked at");
        let reach = |from, most| reach(&transaction, (Wall(from), Wall(9000)), most).unwrap();
        // By their earliest: block 0 at 1, block 2 at 500, block 1 at 1024, block 3 at 3072.
        assert_eq!(
            (reach(0, 1), reach(0, 2), reach(0, 3), reach(0, 4)),
            (Wall(500), Wall(1024), Wall(3072), Wall(9000))
        );
        let extent = |from| extent(&transaction, Wall(from)).unwrap();
        assert_eq!(extent(0), Some((Wall(1), Wall(5000))));
        assert_eq!(extent(3500), Some((Wall(3500), Wall(5000))));
        assert_eq!(extent(5001), None);
        forget(&transaction, Seq(2047)).unwrap();
        assert_eq!(found(0, 9000, 16), (vec![2, 3], 4));
    }

    #[test]
    fn a_time_at_which_nothing_was_measured_is_passed_over() {
        let (_folder, mut connection) = database(3000, 3000, |seq| if seq < 1500 { seq } else { seq + 1_000_000 });
        let transaction = connection.transaction().unwrap();
        assert_eq!(extent(&transaction, Wall(1500)).unwrap(), Some((Wall(1_001_500), Wall(1_003_000))));
    }
}
