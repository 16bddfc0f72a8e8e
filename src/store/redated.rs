//! Finds a span of time where stored times do not hold any more, because the clock was set after they were stored.
//!
//! The blocks of numbers keep the times with which readings were stored. Here they are read as what they are now: a block
//! that lies wholly in such numbers is moved, one at their edge is made wider, so that nothing is missed.

use std::ops::RangeInclusive;

use rusqlite::{Transaction, params};

use super::codec::{row_id, stamp};
use super::times;
use crate::clock::Wall;
use crate::timeline::{Correction, Timeline};

/// Inside one epoch drift moves a time less than this, in ms.
const LEEWAY_MS: i64 = 1000;

/// A step is noticed within so many blocks: those before the last one of an epoch may have readings of the next.
const EDGE_BLOCKS: i64 = 2;

/// A block with the earliest and the latest time of its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    number: i64,
    earliest: i64,
    latest: i64,
}

impl Block {
    /// With the times that hold now.
    fn redated(self, corrections: &[Correction]) -> Self {
        let mut moved = self;
        for correction in corrections {
            let numbers = times::block_of(correction.first)..=times::block_of(correction.last);
            if !numbers.contains(&self.number) {
                continue;
            }
            let by = correction.offset_ms.saturating_sub(correction.stored_offset_ms);
            let earliest = self.earliest.saturating_add(by).saturating_sub(LEEWAY_MS);
            let latest = self.latest.saturating_add(by).saturating_add(LEEWAY_MS);
            if is_inside(&numbers, self.number) {
                return Self { earliest, latest, ..self };
            }
            (moved.earliest, moved.latest) = (moved.earliest.min(earliest), moved.latest.max(latest));
        }
        moved
    }
}

fn is_inside(numbers: &RangeInclusive<i64>, block: i64) -> bool {
    *numbers.start() < block && block < numbers.end().saturating_sub(EDGE_BLOCKS)
}

fn all(transaction: &Transaction<'_>, from_block: i64, corrections: &[Correction]) -> rusqlite::Result<Vec<Block>> {
    let mut statement = transaction
        .prepare_cached("SELECT block, earliest, latest FROM reading_block WHERE block >= ?1 ORDER BY block")?;
    let rows = statement.query_map([from_block], |row| {
        Ok(Block { number: row.get(0)?, earliest: row.get(1)?, latest: row.get(2)? }.redated(corrections))
    })?;
    rows.collect()
}

/// As [`times::blocks`].
pub(super) fn blocks(
    transaction: &Transaction<'_>,
    timeline: &Timeline,
    block: i64,
    (from, to): (Wall, Wall),
    most: i64,
) -> rusqlite::Result<(Vec<i64>, i64)> {
    let corrections = timeline.corrections();
    if corrections.is_empty() {
        return times::blocks(transaction, block, (from, to), most);
    }
    let open = transaction.query_row("SELECT ifnull(max(block) + 1, 0) FROM reading_block", [], |row| row.get(0))?;
    let found = all(transaction, block, &corrections)?;
    let found = found.into_iter().filter(|block| block.latest >= from.0 && block.earliest < to.0);
    Ok((found.take(usize::try_from(most).unwrap_or(0)).map(|block| block.number).collect(), open))
}

/// As [`times::reach`].
pub(super) fn reach(
    transaction: &Transaction<'_>,
    timeline: &Timeline,
    (from, to): (Wall, Wall),
    most: i64,
) -> rusqlite::Result<Wall> {
    let corrections = timeline.corrections();
    if corrections.is_empty() {
        return times::reach(transaction, (from, to), most);
    }
    let found = all(transaction, 0, &corrections)?;
    let mut earliest: Vec<i64> = found
        .into_iter()
        .filter(|block| block.latest >= from.0 && block.earliest < to.0)
        .map(|block| block.earliest)
        .collect();
    earliest.sort_unstable();
    let place = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(earliest.get(place).copied().map_or(to, Wall))
}

/// As [`times::extent`].
pub(super) fn extent(
    transaction: &Transaction<'_>,
    timeline: &Timeline,
    from: Wall,
) -> rusqlite::Result<Option<(Wall, Wall)>> {
    let corrections = timeline.corrections();
    if corrections.is_empty() {
        return times::extent(transaction, from);
    }
    let blocks = all(transaction, 0, &corrections)?;
    let open = blocks.last().map_or(0, |block| block.number.saturating_add(1));
    let blocks = blocks.into_iter().filter(|block| block.latest >= from.0);
    let mut ends = blocks.map(|block| (block.earliest.max(from.0), block.latest)).collect::<Vec<_>>();
    let mut statement = transaction
        .prepare_cached("SELECT seq, mono, wall, received_ms, taken_ms FROM reading WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = statement.query(params![row_id(times::first_of(open))])?;
    while let Some(row) = rows.next()? {
        let (seq, at) = (super::codec::seq_of(row.get(0)?), stamp(row.get(1)?, row.get(2)?));
        let wall = timeline.placed(seq, at).map_or(at.wall, |placed| placed.wall);
        let measured = measured(wall, row.get(3)?, row.get(4)?);
        ends.push((measured, measured));
    }
    let ends = ends.into_iter().filter(|(_, latest)| *latest >= from.0);
    Ok(ends.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).map(|(one, other)| (Wall(one), Wall(other))))
}

/// When a reading was measured that was published at `wall`; where nobody knows, when it arrived.
pub(super) fn measured(wall: Wall, received_ms: i64, taken_ms: Option<i64>) -> i64 {
    wall.0.wrapping_sub(received_ms).wrapping_sub(taken_ms.unwrap_or(0))
}
