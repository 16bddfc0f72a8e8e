//! How much is in the log, how fast it grows, and how long the room for it lasts.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};

use super::codec::{row_id, seq_of};
use super::reader::Reader;
use super::schema::PAGE_BYTES;
use super::{MIN_BYTES, SeqRange, StoreError};
use crate::clock::{Mono, Stamp, Wall};
use crate::ids::Seq;

/// What was written in this time says how fast the log grows.
const LATELY: Duration = Duration::from_hours(1);

/// A run that is younger than this says nothing of how fast the log grows: its start writes more than what follows.
const SHORTEST: Duration = Duration::from_mins(1);

/// What the files beside the database take: the write-ahead log and its index.
const BESIDE_BYTES: u64 = 2 << 20;

/// Rows that are counted, of the two tables that share one numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Readings.
    Readings,
    /// Everything else.
    Others,
    /// Of that what is urgent ([`EventBody::is_urgent`](crate::event::EventBody::is_urgent)).
    Urgent,
    /// Of that what is not.
    Unhurried,
}

impl Rows {
    const fn table(self) -> &'static str {
        match self {
            Self::Readings => "reading",
            Self::Others | Self::Urgent | Self::Unhurried => "event",
        }
    }

    const fn condition(self) -> &'static str {
        match self {
            Self::Readings | Self::Others => "TRUE",
            Self::Urgent => "kind IN ('alert', 'limits', 'system')",
            Self::Unhurried => "kind NOT IN ('alert', 'limits', 'system')",
        }
    }
}

/// Rows of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// How many.
    pub rows: u64,
    /// The first and the last of them; `None`: there is none.
    pub range: Option<SeqRange>,
    /// When the first and the last of them were published.
    pub times: Option<(Wall, Wall)>,
}

impl Counted {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let range = match (self.range, other.range) {
            (Some(one), Some(two)) => Some(SeqRange { first: one.first.min(two.first), last: one.last.max(two.last) }),
            (one, two) => one.or(two),
        };
        let times = match (self.times, other.times) {
            (Some(one), Some(two)) => Some((one.0.min(two.0), one.1.max(two.1))),
            (one, two) => one.or(two),
        };
        Self { rows: self.rows.saturating_add(other.rows), range, times }
    }
}

/// The room that the log has, and how long it lasts if nothing is confirmed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the database that hold something.
    pub used_bytes: u64,
    /// Most bytes that the database may use.
    pub max_bytes: u64,
    /// Bytes that are free on its disk.
    pub disk_free_bytes: u64,
    /// Bytes that one row takes on average; `None`: there is none.
    pub bytes_a_row: Option<u64>,
    /// Rows that were written lately.
    pub rows_lately: u64,
    /// In this time; `None`: this run of the daemon is too young to say.
    pub lately: Option<Duration>,
    /// Bytes that can be written before rows are lost that nobody has confirmed.
    pub free_bytes: u64,
    /// How long that lasts at the pace of lately. `None`: unknown, because nothing was written lately or the run is young.
    pub left: Option<Duration>,
}

/// What the database says of itself.
#[derive(Debug, Clone, Copy)]
struct Measured {
    used_bytes: u64,
    /// Pages of the file that hold nothing.
    spare_bytes: u64,
    bytes_a_row: Option<u64>,
    waiting_rows: u64,
    rows_lately: u64,
    lately: Option<Duration>,
}

impl Reader {
    /// The rows after `after` and up to `through`.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn count(&self, rows: Rows, after: Seq, through: Seq) -> Result<Counted, StoreError> {
        self.look_up(move |transaction| count(transaction, rows, after, through)).await
    }

    /// The room of a store with this budget, if every row after `held_after` has to be kept. `now`: of the run that goes on;
    /// without it the pace is that of the end of the last run.
    ///
    /// # Errors
    /// SQLite or the file system failed.
    pub async fn room(&self, max_bytes: Option<u64>, held_after: Seq, now: Option<Stamp>) -> Result<Room, StoreError> {
        self.search(move |side| {
            let max_bytes = max_bytes.map_or_else(|| side.directory.default_budget(), Ok)?.max(MIN_BYTES);
            let disk_free_bytes = side.directory.free_bytes()?;
            let measured = side.in_transaction(|path, transaction| {
                measure(transaction, held_after, now).map_err(StoreError::sqlite(path, "cannot look into it"))
            })?;
            Ok(measured.room(max_bytes, disk_free_bytes))
        })
        .await
    }

    /// The noted holes that end after `after`, oldest first, at most `limit`: numbers that were given and never stored.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn holes(&self, after: Seq, limit: usize) -> Result<Vec<SeqRange>, StoreError> {
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        self.look_up(move |transaction| {
            let sql = "SELECT first, last FROM hole WHERE last > ?1 ORDER BY first LIMIT ?2";
            let mut statement = transaction.prepare_cached(sql)?;
            let found = statement.query_map(params![row_id(after), most], |row| {
                Ok(SeqRange { first: seq_of(row.get(0)?), last: seq_of(row.get(1)?) })
            })?;
            found.collect()
        })
        .await
    }
}

fn count(transaction: &Transaction<'_>, rows: Rows, after: Seq, through: Seq) -> rusqlite::Result<Counted> {
    let (table, condition) = (rows.table(), rows.condition());
    let range = params![row_id(after), row_id(through)];
    let sql = format!("SELECT count(*), min(seq), max(seq) FROM {table} WHERE {condition} AND seq > ?1 AND seq <= ?2");
    let (rows, first, last): (i64, Option<i64>, Option<i64>) =
        transaction.prepare_cached(&sql)?.query_row(range, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let Some((first, last)) = first.zip(last) else { return Ok(Counted::default()) };
    let sql = format!("SELECT wall FROM {table} WHERE seq = ?1");
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut at = |seq: i64| statement.query_row([seq], |row| row.get(0)).map(Wall);
    let times = Some((at(first)?, at(last)?));
    let rows = u64::try_from(rows).unwrap_or(0);
    Ok(Counted { rows, range: Some(SeqRange { first: seq_of(first), last: seq_of(last) }), times })
}

impl Measured {
    fn room(self, max_bytes: u64, disk_free_bytes: u64) -> Room {
        let Self { used_bytes, spare_bytes, bytes_a_row, waiting_rows, rows_lately, lately } = self;
        let waiting_bytes = waiting_rows.saturating_mul(bytes_a_row.unwrap_or(0));
        let on_disk = disk_free_bytes.saturating_add(spare_bytes).saturating_sub(BESIDE_BYTES);
        let free_bytes = if on_disk < max_bytes.saturating_sub(used_bytes) {
            // The disk is full before the budget is, and nothing goes to make room.
            on_disk
        } else {
            // What was confirmed goes first.
            max_bytes.saturating_sub(waiting_bytes)
        };
        let left = lately.zip(bytes_a_row).and_then(|(lately, bytes)| {
            let written = u128::from(rows_lately) * u128::from(bytes);
            let millis = (u128::from(free_bytes) * lately.as_millis()).checked_div(written)?;
            Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
        });
        Room { used_bytes, max_bytes, disk_free_bytes, bytes_a_row, rows_lately, lately, free_bytes, left }
    }
}

fn measure(transaction: &Transaction<'_>, held_after: Seq, now: Option<Stamp>) -> rusqlite::Result<Measured> {
    let number = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = |count: i64| u64::try_from(count).unwrap_or(0).saturating_mul(PAGE_BYTES);
    let (all, spare) = (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?);
    let used_bytes = pages(all.saturating_sub(spare));
    // Each table and index has a page before its first row.
    let empty = pages(number("SELECT count(*) FROM sqlite_schema WHERE rootpage > 0")?);
    let newest = newest_up_to(transaction, i64::MAX)?;
    // Numbers instead of rows: counting the rows would read the whole file. Events before the first reading are few.
    let first: Option<i64> = transaction.query_row(
        "SELECT ifnull((SELECT min(seq) FROM reading), (SELECT min(seq) FROM event))",
        [],
        |row| row.get(0),
    )?;
    let (rows, waiting_rows) = match (first, newest) {
        (Some(first), Some((newest, _))) => {
            let held = row_id(held_after).max(first.saturating_sub(1));
            let count = |after: i64| u64::try_from(newest.saturating_sub(after)).unwrap_or(0);
            (count(first.saturating_sub(1)), count(held))
        }
        _ => (0, 0),
    };
    let bytes_a_row = used_bytes.saturating_sub(empty).checked_div(rows).map(|bytes| bytes.max(1));
    let (rows_lately, lately) = pace(transaction, newest, now)?;
    Ok(Measured { used_bytes, spare_bytes: pages(spare), bytes_a_row, waiting_rows, rows_lately, lately })
}

/// Rows of the last [`LATELY`] of the last run, and the time that this was. Monotonic time does not jump when the clock is
/// set, and is comparable inside one run.
fn pace(
    transaction: &Transaction<'_>,
    newest: Option<(i64, Mono)>,
    now: Option<Stamp>,
) -> rusqlite::Result<(u64, Option<Duration>)> {
    let run: Option<(i64, i64)> = transaction
        .query_row("SELECT first_seq, started_mono FROM epoch ORDER BY id DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (Some((first, started)), Some((newest, last_at))) = (run, newest) else { return Ok((0, None)) };
    let until = now.map_or(last_at, |now| now.mono);
    let started = Mono(started.cast_unsigned());
    let lately = until.since(started).min(LATELY);
    if newest < first || lately < SHORTEST {
        return Ok((0, None));
    }
    let from = Mono(until.0.saturating_sub(u64::try_from(lately.as_nanos()).unwrap_or(u64::MAX)));
    // Everything up to `low` is before that time, nothing after `high`.
    let (mut low, mut high) = (first.saturating_sub(1), newest);
    while low < high {
        let middle = low + (high - low + 1) / 2;
        match newest_up_to(transaction, middle)?.filter(|(seq, _)| *seq >= first) {
            Some((_, at)) if at < from => low = middle,
            Some((seq, _)) => high = seq.saturating_sub(1),
            None => low = middle,
        }
    }
    Ok((u64::try_from(newest.saturating_sub(low)).unwrap_or(0), Some(lately)))
}

/// The newest row up to a number, and its time.
fn newest_up_to(transaction: &Transaction<'_>, seq: i64) -> rusqlite::Result<Option<(i64, Mono)>> {
    let sql = "SELECT seq, mono FROM (
        SELECT * FROM (SELECT seq, mono FROM reading WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
        UNION ALL SELECT * FROM (SELECT seq, mono FROM event WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
    ) ORDER BY seq DESC LIMIT 1";
    transaction
        .prepare_cached(sql)?
        .query_row([seq], |row| Ok((row.get(0)?, Mono(row.get::<_, i64>(1)?.cast_unsigned()))))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn measured() -> Measured {
        Measured {
            used_bytes: 60_000_000,
            spare_bytes: 0,
            bytes_a_row: Some(100),
            waiting_rows: 100_000,
            rows_lately: 36_000,
            lately: Some(HOUR),
        }
    }

    #[test]
    fn what_waits_takes_room_and_what_was_confirmed_does_not() {
        // 3.6 MB an hour; 10 MB of 100 MB wait.
        let room = measured().room(100_000_000, u64::MAX);
        assert_eq!((room.free_bytes, room.left), (90_000_000, Some(HOUR * 25)));
        let all_waits = Measured { waiting_rows: 2_000_000, ..measured() }.room(100_000_000, u64::MAX);
        assert_eq!((all_waits.free_bytes, all_waits.left), (0, Some(Duration::ZERO)));
    }

    #[test]
    fn a_disk_that_is_full_before_the_budget_is_what_counts() {
        let room = measured().room(100_000_000, BESIDE_BYTES + 7_200_000);
        assert_eq!(room.left, Some(HOUR * 2));
        let spare = Measured { spare_bytes: 3_600_000, ..measured() };
        assert_eq!(spare.room(100_000_000, BESIDE_BYTES + 7_200_000).left, Some(HOUR * 3));
        assert_eq!(measured().room(100_000_000, 0).left, Some(Duration::ZERO));
    }

    #[test]
    fn without_a_pace_the_time_is_unknown_and_not_infinite() {
        for unknown in [
            Measured { rows_lately: 0, ..measured() },
            Measured { lately: None, ..measured() },
            Measured { bytes_a_row: None, ..measured() },
        ] {
            assert_eq!(unknown.room(100_000_000, u64::MAX).left, None, "{unknown:?}");
        }
    }
}
