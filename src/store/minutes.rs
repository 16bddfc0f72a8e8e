//! What stays of readings when they go: of each minute and number the least, the greatest, the mean, first and last.
//!
//! A reading is either in `reading` or in a minute: it becomes a part of one in the transaction that deletes it. By then
//! a day has usually passed, so that the clock has been set and what came late has come.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::codec::{self, BadRow, Stream, row_id, seq_of};
use super::reader::{epoch_of, epochs, find_stream};
use super::{Reader, StoreError, StreamInfo};
use crate::clock::Wall;
use crate::ids::Seq;
use crate::summary::{At, Series, Summaries, Summary};
use crate::timeline::{ClockState, Timeline};
use crate::vitals::{Absent, Decimal, Metric, Mode, Quality};

const MINUTE_MS: i64 = 60_000;
/// How long minutes are kept: the longest time that is asked for is a month.
const KEPT_MINUTES: i64 = 30 * 24 * 60;
/// Minutes that go at once.
const MINUTES_AT_ONCE: i64 = 60;
/// Rows that one request looks at: half a second on a small machine.
pub(super) const MAX_ROWS: i64 = 500_000;

const COLUMNS: &str = "minute, series, count, questionable, late, sum, places, least_at, least, least_exponent, \
    greatest_at, greatest, greatest_exponent, first_at, first, first_exponent, last_at, last, last_exponent, absent, \
    absent_at, absent_last";

/// What the readings up to `last` come to, by minute. Those of which nobody knows when they were measured are left out.
///
/// Nothing is changed: this is done before they are deleted, and [`keep`] after it, when there is room.
pub(super) fn of_readings(
    transaction: &Transaction<'_>,
    timeline: &Timeline,
    last: Seq,
) -> rusqlite::Result<Summaries> {
    let mut found = Summaries::new(MINUTE_MS);
    let mut streams: HashMap<i64, Stream> = HashMap::new();
    let runs = match epochs(transaction) {
        Ok(runs) => runs,
        Err(BadRow::Sqlite(error)) => return Err(error),
        Err(BadRow::Content(what)) => {
            tracing::error!(what, "readings leave no minutes: the runs of the daemon cannot be read");
            return Ok(found);
        }
    };
    let mut statement = transaction.prepare_cached(codec::SELECT_READINGS)?;
    let mut rows = statement.query(params![0, i64::MAX, row_id(last)])?;
    while let Some(row) = rows.next()? {
        let seq = seq_of(row.get(0)?);
        let at = codec::stamp(row.get(2)?, row.get(3)?);
        if timeline.placed(seq, at).is_some_and(|placed| placed.state == ClockState::Unsynchronised) {
            continue;
        }
        let event = epoch_of(&runs, seq)
            .and_then(|epoch| codec::reading_row(row, epoch, |id| find_stream(transaction, &mut streams, id)));
        match event {
            Ok(event) => found.take(timeline.rebased(event)),
            Err(BadRow::Sqlite(error)) => return Err(error),
            // What is damaged cannot stay for ever because of it.
            Err(BadRow::Content(what)) => tracing::error!(seq = seq.0, what, "a reading leaves no minute"),
        }
    }
    Ok(found)
}

/// Keeps what readings come to that are deleted in the same transaction.
pub(super) fn keep(transaction: &Transaction<'_>, found: Summaries) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO minute_series (patient, device, metric, mode) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut find = transaction.prepare_cached(
        "SELECT id FROM minute_series WHERE patient = ?1 AND device = ?2 AND metric = ?3 AND mode = ?4",
    )?;
    let mut read =
        transaction.prepare_cached(&format!("SELECT {COLUMNS} FROM minute WHERE minute = ?1 AND series = ?2"))?;
    let places = vec!["?"; COLUMNS.split(',').count()].join(", ");
    let mut write =
        transaction.prepare_cached(&format!("INSERT OR REPLACE INTO minute ({COLUMNS}) VALUES ({places})"))?;
    for (from, series, found) in found.into_rows() {
        let names = params![series.patient.as_deref().unwrap_or(""), series.device, series.metric, series.mode];
        insert.execute(names)?;
        let id: i64 = find.query_row(names, |row| row.get(0))?;
        let minute = from / MINUTE_MS;
        let mut summary = read.query_row([minute, id], summary_row).optional()?.unwrap_or_default();
        summary.join(found);
        let [least, greatest, first, last] = [summary.min, summary.max, summary.first, summary.last].map(columns);
        let (absent_at, absent_last) = summary.newest_absent.unzip();
        write.execute(params![
            minute,
            id,
            i64::try_from(summary.count).unwrap_or(i64::MAX),
            i64::try_from(summary.questionable).unwrap_or(i64::MAX),
            summary.has_late,
            summary.sum,
            summary.places,
            least.0,
            least.1,
            least.2,
            greatest.0,
            greatest.1,
            greatest.2,
            first.0,
            first.1,
            first.2,
            last.0,
            last.1,
            last.2,
            absent_text(&summary.absent),
            absent_at,
            absent_last,
        ])?;
    }
    Ok(())
}

/// Deletes minutes that are older than [`KEPT_MINUTES`], some at once. Not while nobody knows what time it is.
pub(super) fn forget(transaction: &Transaction<'_>, timeline: &Timeline, now: Wall) -> rusqlite::Result<()> {
    if timeline.current().is_none_or(|epoch| epoch.state == ClockState::Unsynchronised) {
        return Ok(());
    }
    delete(transaction, now.0.div_euclid(MINUTE_MS).saturating_sub(KEPT_MINUTES))?;
    Ok(())
}

/// Deletes the oldest minutes for want of space; false if there are none.
pub(super) fn drop_oldest(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    delete(transaction, i64::MAX)
}

/// Deletes the oldest minutes before `bound`, at most [`MINUTES_AT_ONCE`]; false if there are none.
fn delete(transaction: &Transaction<'_>, bound: i64) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM minute WHERE minute < ?1 AND minute < (SELECT min(minute) + ?2 FROM minute)";
    let gone = transaction.prepare_cached(sql)?.execute([bound, MINUTES_AT_ONCE])?;
    Ok(gone > 0)
}

/// The first minute that ends after `from` and the last, each by its first ms.
pub(super) fn extent(transaction: &Transaction<'_>, from: Wall) -> rusqlite::Result<Option<(Wall, Wall)>> {
    let sql = "SELECT min(minute), max(minute) FROM minute WHERE minute >= ?1";
    let ends: (Option<i64>, Option<i64>) = transaction
        .prepare_cached(sql)?
        .query_row([from.0.div_euclid(MINUTE_MS)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let time = |minute: i64| Wall(minute.saturating_mul(MINUTE_MS));
    Ok(ends.0.zip(ends.1).map(|(first, last)| (time(first), time(last))))
}

/// The latest time up to which there are no more than `most` minutes since `from`, not after `to`.
pub(super) fn reach(transaction: &Transaction<'_>, (from, to): (Wall, Wall), most: i64) -> rusqlite::Result<Wall> {
    let sql = "SELECT minute FROM minute WHERE minute >= ?1 AND minute < ?2 ORDER BY minute LIMIT 1 OFFSET ?3";
    let beyond: Option<i64> = transaction
        .prepare_cached(sql)?
        .query_row(params![from.0.div_euclid(MINUTE_MS), ceil(to), most], |row| row.get(0))
        .optional()?;
    Ok(beyond.map_or(to, |minute| Wall(minute.saturating_mul(MINUTE_MS)).min(to)))
}

/// The first minute that does not begin before `at`.
const fn ceil(at: Wall) -> i64 {
    at.0.saturating_add(MINUTE_MS - 1).div_euclid(MINUTE_MS)
}

impl Reader {
    /// Gives `found` the minutes that begin in `from..to` of the series that `chooses` wants; also the number of the
    /// oldest reading, as the minutes have what was before it.
    ///
    /// # Errors
    /// SQLite failed, or a row makes no minute.
    pub async fn minutes<F>(
        &self,
        (from, to): (Wall, Wall),
        chooses: F,
        mut found: Summaries,
    ) -> Result<(Summaries, Seq), StoreError>
    where
        F: Fn(&StreamInfo) -> bool + Send + 'static,
    {
        self.search(move |side| {
            side.in_transaction(|path, transaction| {
                let oldest = gather(transaction, (ceil(from), ceil(to)), chooses, &mut found)
                    .map_err(|bad| bad.at(path, Seq::ZERO))?;
                Ok((found, oldest))
            })
        })
        .await
    }

    /// The number of the oldest reading; [`Seq::ZERO`] if there is none.
    pub async fn oldest_reading(&self) -> Result<Seq, StoreError> {
        self.search(|side| {
            side.in_transaction(|path, transaction| {
                oldest_reading(transaction).map_err(StoreError::sqlite(path, "cannot read events"))
            })
        })
        .await
    }
}

fn oldest_reading(transaction: &Transaction<'_>) -> rusqlite::Result<Seq> {
    let oldest: Option<i64> =
        transaction.prepare_cached("SELECT min(seq) FROM reading")?.query_row([], |row| row.get(0))?;
    Ok(oldest.map_or(Seq::ZERO, seq_of))
}

fn gather(
    transaction: &Transaction<'_>,
    (from, to): (i64, i64),
    chooses: impl Fn(&StreamInfo) -> bool,
    found: &mut Summaries,
) -> Result<Seq, BadRow> {
    let series = wanted(transaction, chooses)?;
    let sql = format!("SELECT {COLUMNS} FROM minute WHERE minute >= ?1 AND minute < ?2");
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query([from, to])?;
    while let Some(row) = rows.next()? {
        if let Some(series) = series.get(&row.get(1)?) {
            let at = row.get::<_, i64>(0)?.saturating_mul(MINUTE_MS);
            found.join(at, series.clone(), summary_row(row)?);
        }
    }
    Ok(oldest_reading(transaction)?)
}

/// The series that `chooses` wants, by their numbers.
fn wanted(
    transaction: &Transaction<'_>,
    chooses: impl Fn(&StreamInfo) -> bool,
) -> Result<HashMap<i64, Series>, BadRow> {
    let mut statement = transaction.prepare_cached("SELECT id, patient, device, metric, mode FROM minute_series")?;
    let mut rows = statement.query([])?;
    let mut found = HashMap::new();
    while let Some(row) = rows.next()? {
        let (patient, device): (String, String) = (row.get(1)?, row.get(2)?);
        let mode = codec::named(&row.get::<_, String>(4)?, Mode::from_name)?;
        let patient = (!patient.is_empty()).then_some(patient);
        let series = Series { patient, device, metric: row.get(3)?, mode: mode.name() };
        let info = StreamInfo {
            patient: series.patient.clone().map(codec::identifier).transpose()?,
            device: codec::identifier(series.device.clone())?,
            metric: codec::named(series.metric_name(), Metric::from_name)?,
            mode,
        };
        if chooses(&info) {
            found.insert(row.get(0)?, series);
        }
    }
    Ok(found)
}

type Columns = (Option<i64>, Option<i64>, Option<i8>);

fn columns(value: Option<At<Decimal>>) -> Columns {
    value.map_or((None, None, None), |(at, number)| (Some(at), Some(number.mantissa()), Some(number.exponent())))
}

fn summary_row(row: &Row<'_>) -> rusqlite::Result<Summary> {
    let value = |column: usize| -> rusqlite::Result<Option<At<Decimal>>> {
        let (at, mantissa, exponent): Columns = (row.get(column)?, row.get(column + 1)?, row.get(column + 2)?);
        Ok(at.zip(mantissa.zip(exponent).and_then(|(mantissa, exponent)| Decimal::new(mantissa, exponent))))
    };
    let (absent_at, absent_last): (Option<i64>, Option<String>) = (row.get(20)?, row.get(21)?);
    let absent: Option<String> = row.get(19)?;
    Ok(Summary {
        count: row.get::<_, i64>(2)?.unsigned_abs(),
        questionable: row.get::<_, i64>(3)?.unsigned_abs(),
        has_late: row.get(4)?,
        sum: row.get(5)?,
        places: row.get(6)?,
        min: value(7)?,
        max: value(10)?,
        first: value(13)?,
        last: value(16)?,
        absent: absent.as_deref().map(absent_of).unwrap_or_default(),
        newest_absent: absent_at.zip(absent_last.map(|name| reason(&name))),
        joined_ms: MINUTE_MS,
    })
}

/// `lead_off 12 no_signal 3`.
fn absent_text(absent: &BTreeMap<Cow<'static, str>, u64>) -> Option<String> {
    let words: Vec<String> = absent.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn absent_of(text: &str) -> BTreeMap<Cow<'static, str>, u64> {
    let mut words = text.split(' ');
    let mut found = BTreeMap::new();
    while let (Some(name), Some(count)) = (words.next(), words.next()) {
        found.insert(reason(name), count.parse().unwrap_or(0));
    }
    found
}

/// A reason by its name, without a copy of it where it is known.
fn reason(name: &str) -> Cow<'static, str> {
    let known = Absent::from_name(name).map(Absent::name).or_else(|| Quality::from_name(name).map(Quality::name));
    known.map_or_else(|| name.to_owned().into(), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;
    use crate::store::schema::{MIGRATIONS, connect_writer, migrate};
    use crate::timeline::ClockEpoch;

    const DAY: i64 = 24 * 60;

    fn series(device: &str) -> Series {
        Series { patient: None, device: device.into(), metric: "spo2".into(), mode: "real" }
    }

    /// A database with a minute of two devices at each of `minutes`.
    fn database(minutes: impl Iterator<Item = i64>) -> (tempfile::TempDir, rusqlite::Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect_writer(&path).unwrap();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        let transaction = connection.transaction().unwrap();
        let mut found = Summaries::new(MINUTE_MS);
        for minute in minutes {
            for device in ["a", "b"] {
                found.join(minute * MINUTE_MS, series(device), Summary { count: 1, ..Summary::default() });
            }
        }
        keep(&transaction, found).unwrap();
        transaction.commit().unwrap();
        (folder, connection)
    }

    fn count(transaction: &Transaction<'_>) -> i64 {
        transaction.query_row("SELECT count(*) FROM minute", [], |row| row.get(0)).unwrap()
    }

    fn timeline(state: ClockState) -> Timeline {
        let epoch = ClockEpoch {
            first: Seq(1),
            boot: "boot".into(),
            since: Mono::default(),
            offset_ms: 0,
            uncertainty_ms: None,
            state,
        };
        Timeline::new(vec![epoch])
    }

    #[test]
    fn minutes_go_after_thirty_days_by_a_clock_that_was_set() {
        let (_folder, mut connection) = database((0..50).map(|day| day * DAY));
        let transaction = connection.transaction().unwrap();
        let now = Wall(49 * DAY * MINUTE_MS);
        for _ in 0..100 {
            forget(&transaction, &timeline(ClockState::Unsynchronised), now).unwrap();
        }
        assert_eq!(count(&transaction), 100, "nobody knows what time it is");
        for _ in 0..100 {
            forget(&transaction, &timeline(ClockState::Synchronised), now).unwrap();
        }
        assert_eq!(count(&transaction), 2 * 31);
    }

    #[test]
    fn a_minute_that_comes_in_parts_is_one_and_is_read_as_it_was_written() {
        let (_folder, mut connection) = database(std::iter::empty());
        let transaction = connection.transaction().unwrap();
        let at = |ms, tenths| Some((ms, Decimal::tenths(tenths)));
        let one = Summary {
            count: 3,
            questionable: 1,
            sum: 289.5,
            places: -1,
            min: at(10_000, 960),
            max: at(20_000, 970),
            first: at(10_000, 960),
            last: at(30_000, 965),
            absent: [("lead_off".into(), 2), ("invalid".into(), 1)].into(),
            newest_absent: Some((25_000, "invalid".into())),
            has_late: false,
            joined_ms: 0,
        };
        let other = Summary { count: 1, sum: 99.0, max: at(40_000, 990), has_late: true, ..Summary::default() };
        for part in [one.clone(), other.clone()] {
            let mut found = Summaries::new(MINUTE_MS);
            found.join(0, series("a"), part);
            keep(&transaction, found).unwrap();
        }
        let mut found = Summaries::new(MINUTE_MS);
        gather(&transaction, (0, 1), |stream| stream.device.as_str() == "a", &mut found).unwrap();
        let mut whole = one;
        whole.join(other);
        whole.joined_ms = MINUTE_MS;
        assert_eq!(found.into_rows().collect::<Vec<_>>(), [(0, series("a"), whole)]);
        let mut none = Summaries::new(MINUTE_MS);
        gather(&transaction, (0, 1), |stream| stream.device.as_str() == "b", &mut none).unwrap();
        assert_eq!(none.into_rows().count(), 0);
    }

    #[test]
    fn one_request_reaches_so_far_as_it_can_read() {
        let (_folder, mut connection) = database(10..20);
        let transaction = connection.transaction().unwrap();
        let time = |minute: i64| Wall(minute * MINUTE_MS);
        assert_eq!(extent(&transaction, time(0)).unwrap(), Some((time(10), time(19))));
        assert_eq!(extent(&transaction, time(15)).unwrap(), Some((time(15), time(19))));
        assert_eq!(extent(&transaction, time(20)).unwrap(), None);
        assert_eq!(
            reach(&transaction, (time(0), time(30)), 7).unwrap(),
            time(13),
            "three minutes of two devices, and one"
        );
        assert_eq!(reach(&transaction, (time(0), time(12)), 7).unwrap(), time(12));
        assert!(drop_oldest(&transaction).unwrap());
        assert_eq!(count(&transaction), 0, "an hour goes at once");
        assert!(!drop_oldest(&transaction).unwrap());
    }
}
