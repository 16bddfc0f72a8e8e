//! What goes and when: acknowledged rows by age, then by space the oldest minutes, readings, other events, alerts last.
//!
//! A row that the broker did not take was not delivered, whatever the cursors say: it does not go by age.
//!
//! Readings only ever go from the front, in ranges without a break, so the oldest reading left tells what has gone:
//! every number before it that no other event has. Other events go by age only in front of that reading.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::codec::{RECORD, row_id, seq_of, stamp};
use super::schema::PAGE_BYTES;
use super::{SeqRange, StoreOptions, minutes, parked, times};
use crate::clock::{Mono, Stamp};
use crate::ids::Seq;
use crate::timeline::{ClockEpoch, ClockState, Timeline};

/// Readings that go at once: about 20 pages, so that the pages rewritten around them cost little a row.
const READINGS_AT_ONCE: i64 = 2048;
/// Other events that go at once.
const EVENTS_AT_ONCE: i64 = 256;
/// Steps of making room in one commit; the rest follows with the next.
const STEPS: usize = 4;
/// How often ages are looked at, by the time of the events.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// SQLite itself refuses to grow beyond the budget by more than this.
const HEADROOM_BYTES: u64 = 1 << 20;
/// Free pages that stay in the file for new rows (4 MiB).
const FREE_PAGES: i64 = 1024;
/// Pages given back to the file system at once.
const VACUUM_PAGES: i64 = 256;

/// Decides what is deleted.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    max_bytes: u64,
    retention: Duration,
    event_retention: Duration,
    holding_lanes: Vec<String>,
    /// The first number given since this machine booted: from here on ages are measured by `Mono`.
    boot_first: Seq,
    /// What is known of clocks: which time of day the stored times of earlier boots are now.
    timeline: Timeline,
    /// When the ages were looked at and nothing was left to do.
    looked: Option<Mono>,
    /// Whether the transaction at work found nothing more to do about ages.
    done: bool,
    /// Whether the transaction at work may have deleted anything.
    has_deleted: bool,
    /// Up to which number the transaction at work has dropped rows for want of space.
    dropped_through: Option<Seq>,
}

impl Keeper {
    /// Sets the limits of space and age.
    pub(super) fn limit(&mut self, max_bytes: u64, options: &StoreOptions) {
        self.max_bytes = max_bytes;
        self.retention = options.retention;
        self.event_retention = options.event_retention;
        self.holding_lanes.clone_from(&options.holding_lanes);
    }

    /// Raises the limit of space; true if this is more.
    pub(super) fn grow(&mut self, max_bytes: u64) -> bool {
        let is_more = max_bytes > self.max_bytes;
        self.max_bytes = self.max_bytes.max(max_bytes);
        is_more
    }

    /// Makes SQLite refuse to grow far beyond the budget, whatever happens here.
    pub(super) fn limit_pages(&self, connection: &Connection) -> rusqlite::Result<()> {
        let pages = i64::try_from(self.max_bytes.saturating_add(HEADROOM_BYTES) / PAGE_BYTES).unwrap_or(i64::MAX);
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    }

    /// Tells the first number given since this machine booted.
    pub(super) fn booted_at(&mut self, first: Seq) {
        self.boot_first = first;
    }

    /// Tells all that is known of clocks.
    pub(super) fn know(&mut self, timeline: Timeline) {
        self.timeline = timeline;
    }

    /// Tells more of it.
    pub(super) fn learn(&mut self, epochs: &[ClockEpoch]) {
        for epoch in epochs {
            self.timeline.add(epoch.clone());
        }
    }

    /// All that is known of clocks.
    pub(super) const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Deletes what must go, as a part of `transaction`. Returns where rows went that were not acknowledged.
    ///
    /// The newest row of all always stays: it keeps the numbering.
    pub(super) fn make_room(
        &mut self,
        transaction: &Transaction<'_>,
        newest: Seq,
        cursors: &BTreeMap<String, Seq>,
        now: Option<Stamp>,
    ) -> rusqlite::Result<Option<SeqRange>> {
        let acknowledged = self.acknowledged(newest, cursors);
        (self.done, self.has_deleted, self.dropped_through) = (false, false, None);
        if let Some(now) = now {
            let is_due = self.looked.is_none_or(|looked| now.mono.since(looked) >= LOOK_EVERY);
            if is_due {
                self.has_deleted = true;
                self.done = self.drop_expired(transaction, newest, acknowledged, now)?;
                minutes::forget(transaction, &self.timeline, now.wall)?;
                give_back(transaction)?;
            }
        }
        let mut dropped: Option<SeqRange> = None;
        for _ in 0..STEPS {
            if used_bytes(transaction)? <= self.max_bytes {
                break;
            }
            self.has_deleted = true;
            if minutes::drop_oldest(transaction)? {
                continue;
            }
            let Some(gone) = drop_oldest(transaction, &self.timeline, newest)? else {
                break;
            };
            self.dropped_through = self.dropped_through.max(Some(gone.last));
            if gone.last > acknowledged {
                let first = dropped.map_or(gone.first.max(acknowledged.next()), |range| range.first.min(gone.first));
                let last = dropped.map_or(gone.last, |range| range.last.max(gone.last));
                dropped = Some(SeqRange { first, last });
            }
        }
        Ok(dropped)
    }

    /// Whether making room may have deleted anything.
    pub(super) const fn has_deleted(&self) -> bool {
        self.has_deleted
    }

    /// Up to which number making room has dropped rows for want of space.
    pub(super) const fn dropped_through(&self) -> Option<Seq> {
        self.dropped_through
    }

    /// Tells that the transaction in which room was made is committed.
    pub(super) fn made_room(&mut self, now: Option<Stamp>) {
        if self.done {
            self.looked = now.map(|now| now.mono);
        }
    }

    /// The last number that every holding lane has passed.
    fn acknowledged(&self, newest: Seq, cursors: &BTreeMap<String, Seq>) -> Seq {
        let places = self.holding_lanes.iter().map(|lane| cursors.get(lane).copied().unwrap_or(Seq::ZERO));
        places.min().unwrap_or(newest)
    }

    /// Deletes acknowledged rows that are too old; true if none is left that could go now.
    fn drop_expired(
        &self,
        transaction: &Transaction<'_>,
        newest: Seq,
        acknowledged: Seq,
        now: Stamp,
    ) -> rusqlite::Result<bool> {
        let mut bound = newest.min(acknowledged.next());
        if !self.holding_lanes.is_empty() {
            bound = parked::first_held(transaction)?.map_or(bound, |first| first.min(bound));
        }
        for _ in 0..STEPS {
            let Some(last) = self.last_of_expired(transaction, bound, now)? else {
                return self.drop_expired_events(transaction, bound, now);
            };
            delete_readings(transaction, &self.timeline, last, bound)?;
        }
        Ok(false)
    }

    /// The last of the oldest [`READINGS_AT_ONCE`] before `bound`, if it is too old.
    ///
    /// The oldest of all is asked first: reading so many rows costs as much as storing some hundred.
    fn last_of_expired(&self, transaction: &Transaction<'_>, bound: Seq, now: Stamp) -> rusqlite::Result<Option<Seq>> {
        let mut found = None;
        let mut statement = transaction
            .prepare_cached("SELECT seq, mono, wall FROM reading WHERE seq < ?1 ORDER BY seq LIMIT 1 OFFSET ?2")?;
        for offset in [0, READINGS_AT_ONCE - 1] {
            found = statement
                .query_row(params![row_id(bound), offset], |row| {
                    Ok((seq_of(row.get(0)?), stamp(row.get(1)?, row.get(2)?)))
                })
                .optional()?
                .filter(|(seq, at)| self.is_older(*seq, *at, now, self.retention));
            if found.is_none() {
                break;
            }
        }
        Ok(found.map(|(last, _)| last))
    }

    /// Deletes expired events other than readings, before the oldest reading; always true.
    fn drop_expired_events(&self, transaction: &Transaction<'_>, bound: Seq, now: Stamp) -> rusqlite::Result<bool> {
        let oldest_reading: Option<i64> =
            transaction.query_row("SELECT min(seq) FROM reading", [], |row| row.get(0))?;
        let bound = row_id(bound).min(oldest_reading.unwrap_or(i64::MAX));
        let mut statement = transaction.prepare_cached(
            "SELECT seq, mono, wall FROM event WHERE seq < ?1 AND seq NOT IN (SELECT seq FROM alert_open) \
             ORDER BY seq LIMIT ?2",
        )?;
        let mut rows = statement.query(params![bound, EVENTS_AT_ONCE])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let seq = seq_of(row.get(0)?);
            if !self.is_older(seq, stamp(row.get(1)?, row.get(2)?), now, self.event_retention) {
                break;
            }
            last = Some(seq);
        }
        if let Some(last) = last {
            transaction.execute(
                "DELETE FROM event WHERE seq <= ?1 AND seq NOT IN (SELECT seq FROM alert_open)",
                [row_id(last)],
            )?;
        }
        Ok(true)
    }

    /// True if a row is older than `age`: by time since boot if it is of this boot, else by the times of day that hold now.
    ///
    /// Where nobody has ever set the clock of its boot, it is certain only that the row is older than this boot.
    fn is_older(&self, seq: Seq, at: Stamp, now: Stamp, age: Duration) -> bool {
        if seq >= self.boot_first {
            return now.mono.since(at.mono) > age;
        }
        let wall = match self.timeline.placed(seq, at) {
            Some(placed) if placed.state == ClockState::Unsynchronised => return now.mono.since(Mono::default()) > age,
            Some(placed) => placed.wall,
            None => at.wall,
        };
        let passed = u64::try_from(now.wall.0.saturating_sub(wall.0)).unwrap_or(0);
        Duration::from_millis(passed) > age
    }
}

/// Bytes of the pages that hold something.
fn used_bytes(transaction: &Transaction<'_>) -> rusqlite::Result<u64> {
    let pages: i64 = transaction.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
    let free: i64 = transaction.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(pages.saturating_sub(free)).unwrap_or(0).saturating_mul(PAGE_BYTES))
}

/// Gives pages back to the file system where many are free.
fn give_back(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let free: i64 = transaction.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free > FREE_PAGES {
        // Each step of this statement frees one page, so it has to be stepped to its end.
        let mut statement = transaction.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// Deletes readings up to `last`, the holes they had, and the records they were read from, if these are before `bound`.
/// Their minutes stay.
fn delete_readings(transaction: &Transaction<'_>, timeline: &Timeline, last: Seq, bound: Seq) -> rusqlite::Result<()> {
    let stays = minutes::of_readings(transaction, timeline, last)?;
    let oldest = "SELECT min(seq) FROM reading";
    let first: Option<i64> = transaction.query_row(oldest, [], |row| row.get(0))?;
    transaction.execute("DELETE FROM reading WHERE seq <= ?1", [row_id(last)])?;
    transaction.execute("DELETE FROM hole WHERE last <= ?1", [row_id(last)])?;
    times::forget(transaction, last)?;
    // A record follows its readings. Those before the first one went with the readings before it, so that not all events
    // have to be looked through for each few readings.
    let next: Option<i64> = transaction.query_row(oldest, [], |row| row.get(0))?;
    let next = next.unwrap_or_else(|| row_id(last.next())).min(row_id(bound));
    let between = params![first.unwrap_or(0), next, RECORD];
    transaction.execute("DELETE FROM event WHERE seq > ?1 AND seq < ?2 AND kind = ?3", between)?;
    minutes::keep(transaction, stays)
}

/// Deletes the oldest rows of the least worthy kind that is left: readings, other events, ended alerts.
fn drop_oldest(transaction: &Transaction<'_>, timeline: &Timeline, newest: Seq) -> rusqlite::Result<Option<SeqRange>> {
    let newest = row_id(newest);
    let readings = "SELECT min(seq), max(seq) FROM (SELECT seq FROM reading WHERE seq < ?1 ORDER BY seq LIMIT ?2)";
    if let Some(range) = range(transaction, readings, newest, READINGS_AT_ONCE)? {
        delete_readings(transaction, timeline, range.last, Seq(u64::MAX))?;
        return Ok(Some(range));
    }
    for kinds in ["kind <> 'alert'", "kind = 'alert' AND seq NOT IN (SELECT seq FROM alert_open)"] {
        let events = format!(
            "SELECT min(seq), max(seq) FROM (SELECT seq FROM event WHERE seq < ?1 AND {kinds} ORDER BY seq LIMIT ?2)"
        );
        if let Some(range) = range(transaction, &events, newest, EVENTS_AT_ONCE)? {
            transaction.execute(&format!("DELETE FROM event WHERE seq <= ?1 AND {kinds}"), [row_id(range.last)])?;
            return Ok(Some(range));
        }
    }
    Ok(None)
}

fn range(transaction: &Transaction<'_>, sql: &str, bound: i64, limit: i64) -> rusqlite::Result<Option<SeqRange>> {
    let ends: (Option<i64>, Option<i64>) =
        transaction.prepare_cached(sql)?.query_row(params![bound, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match ends {
        (Some(first), Some(last)) => Some(SeqRange { first: seq_of(first), last: seq_of(last) }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    const HOUR_MS: i64 = 3_600_000;
    const SET: i64 = 1_795_219_200_000;

    fn epoch(first: u64, boot: &str, since_s: u64, offset_ms: i64, state: ClockState) -> ClockEpoch {
        let (first, since) = (Seq(first), Mono::from_millis(since_s * 1000));
        ClockEpoch { first, boot: boot.into(), since, offset_ms, uncertainty_ms: None, state }
    }

    #[test]
    fn the_budget_grows_and_does_not_shrink() {
        let mut keeper = Keeper::default();
        keeper.limit(10 << 20, &StoreOptions::default());
        let connection = Connection::open_in_memory().unwrap();
        let pages = |keeper: &Keeper| -> i64 {
            keeper.limit_pages(&connection).unwrap();
            connection.query_row("PRAGMA max_page_count", [], |row| row.get(0)).unwrap()
        };
        let small = pages(&keeper);
        assert!(!keeper.grow(1 << 20));
        assert_eq!(pages(&keeper), small);
        assert!(keeper.grow(100 << 20));
        assert!(pages(&keeper) > small);
    }

    #[test]
    fn a_row_is_as_old_as_what_is_known_of_its_clock_says_now() {
        let (unset, set) = (ClockState::Unsynchronised, ClockState::Synchronised);
        let mut keeper = Keeper::default();
        keeper.booted_at(Seq(40));
        keeper.know(Timeline::new(vec![
            epoch(10, "a", 0, 0, unset),
            epoch(20, "a", 600, SET, set),
            epoch(30, "never set", 0, 0, unset),
            epoch(40, "now", 0, SET + HOUR_MS, set),
        ]));
        let stamp = |mono_s: u64, wall_ms: i64| Stamp { mono: Mono::from_millis(mono_s * 1000), wall: Wall(wall_ms) };
        // Ten minutes after the third boot, 70 minutes after the first.
        let now = stamp(600, SET + HOUR_MS + 600_000);
        let minutes = |count: u64| Duration::from_mins(count);
        for (seq, at, age, expected) in [
            (5, stamp(0, SET), minutes(71), false),
            (5, stamp(0, SET), minutes(69), true),
            // Stored as 1970, and dated since.
            (10, stamp(0, 0), minutes(71), false),
            (10, stamp(0, 0), minutes(69), true),
            (20, stamp(600, SET + 600_000), minutes(61), false),
            (20, stamp(600, SET + 600_000), minutes(59), true),
            // Nobody will ever know; it is older than this boot.
            (30, stamp(0, 0), minutes(11), false),
            (30, stamp(0, 0), minutes(9), true),
            (40, stamp(300, 0), minutes(6), false),
            (40, stamp(300, 0), minutes(4), true),
        ] {
            assert_eq!(keeper.is_older(Seq(seq), at, now, age), expected, "{seq} {age:?}");
        }
    }

    #[test]
    fn a_file_that_was_emptied_gives_its_pages_back_but_for_a_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = super::super::schema::connect_writer(&path).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE filler (page BLOB) STRICT;
                 INSERT INTO filler SELECT randomblob(4000) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n);
                 DELETE FROM filler;",
            )
            .unwrap();
        let free = |connection: &Connection| -> i64 {
            connection.pragma_query_value(None, "freelist_count", |row| row.get(0)).unwrap()
        };
        let before = free(&connection);
        assert!(before >= 1900, "{before}");
        for _ in 0..10 {
            let transaction = connection.transaction().unwrap();
            give_back(&transaction).unwrap();
            transaction.commit().unwrap();
        }
        let after = free(&connection);
        assert!((FREE_PAGES - VACUUM_PAGES..=FREE_PAGES).contains(&after), "{after}");
        drop(connection);
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes < 1100 * PAGE_BYTES, "{bytes}");
    }
}
