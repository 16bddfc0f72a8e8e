//! What happens to a damaged database: every row that can still be read goes into a new one, which takes its place.

use std::path::PathBuf;

use rusqlite::types::Value;
use rusqlite::{Connection, Statement, Transaction, params_from_iter};
use tracing::warn;

use super::codec::{row_id, seq_of};
use super::directory::{Directory, Suspicion};
use super::ledger::Ledger;
use super::{SeqRange, StoreError, schema};
use crate::clock::Stamp;
use crate::ids::Seq;

/// Damaged databases that are kept; they hold patients' data and take space.
const KEPT: usize = 2;
/// Lost ranges that are told apart in the report; the last one then runs to the last loss.
const MAX_LOST: usize = 64;
/// The widest jump over damage, as a power of two: more rows than any database has.
const MAX_JUMP: u32 = 40;

/// What was saved of a damaged database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageReport {
    /// What was wrong.
    pub problem: String,
    /// Where the damaged database lies now.
    pub moved_to: PathBuf,
    /// Readings that were saved.
    pub readings: u64,
    /// Other events that were saved.
    pub events: u64,
    /// Numbers between the first and the last that was saved which are lost.
    pub lost: Vec<SeqRange>,
}

impl SalvageReport {
    /// The same, with what was lost before and not told.
    pub(super) fn after(mut self, earlier: Vec<SeqRange>) -> Self {
        self.lost.extend(earlier);
        self.lost.sort_unstable_by_key(|range| range.first);
        if let Some(rest) = self.lost.get(MAX_LOST..)
            && let Some(last) = rest.iter().map(|range| range.last).max()
        {
            self.lost.truncate(MAX_LOST);
            if let Some(end) = self.lost.last_mut() {
                end.last = end.last.max(last);
            }
        }
        self
    }
}

/// The tables in the order in which they are copied, each with its columns; the first is the row number where `seq` or
/// `id` is one, and the row number is copied with it.
const TABLES: [(&str, &str); 25] = [
    ("epoch", "id, name, boot, first_seq, started_mono, started_wall, ended_mono, ended_wall"),
    ("stream", "id, patient, device, source, metric, mdc, mode, quality, time_source"),
    (
        "reading",
        "seq, stream, mono, wall, received_ns, received_ms, taken_ms, uncertainty_ms, device_time, mantissa, exponent, \
         absent, parts",
    ),
    ("event", "seq, kind, mono, wall, body"),
    ("hole", "first, last"),
    ("alert_open", "rowid, alert, seq, body"),
    ("cursor", "rowid, lane, seq"),
    ("device_identity", "rowid, source, device, serial_number, doubted"),
    ("known_record", "id, device, name"),
    ("record_mark", "rowid, device, through"),
    ("limit_change", "rowid, patient, rule, kind, body"),
    ("inbox_person", "rowid, user, listens, preferences, untold"),
    ("inbox_message", "rowid, id, seq, body"),
    ("inbox_waiting", "rowid, id, user"),
    ("inbox_scheduled", "rowid, id, body"),
    ("inbox_notified", "rowid, alert, priority"),
    ("request", "rowid, id, digest, wall, seq"),
    ("chat_line", "seq, room, id"),
    ("chat_cleared", "rowid, room, user, seq"),
    ("clock_epoch", "first_seq, boot, since_mono, offset_ms, uncertainty_ms, state"),
    ("parked", "id, seq, lane, wall, reason"),
    ("minute_series", "id, patient, device, metric, mode"),
    (
        "minute",
        "minute, series, count, questionable, late, sum, places, least_at, least, least_exponent, greatest_at, greatest, \
         greatest_exponent, first_at, first, first_exponent, last_at, last, last_exponent, absent, absent_at, absent_last",
    ),
    ("parked_range", "rowid, kind, first, last, rows"),
    ("resend_order", "seq, first, last"),
];

/// A new database with what could be read of a damaged one, which it replaces.
///
/// A crash at any moment leaves either the damaged one where it is, or the new one complete. Nobody may hold the damaged
/// one open for writing: closing it after the move would remove the new one's write-ahead log.
#[derive(Debug)]
pub(super) struct Replacement {
    report: SalvageReport,
    /// The damaged one is out of the way.
    is_moved: bool,
}

impl Replacement {
    /// Makes it beside the damaged one. Rows after `through` are left out, where given: nobody has written them.
    pub(super) fn fill(directory: &Directory, problem: &StoreError, through: Option<Seq>) -> Result<Self, StoreError> {
        let filled = fill(directory, problem, through);
        if filled.is_err() {
            // The half of it takes room that the disk may not have.
            directory.drop_replacement()?;
        }
        Ok(Self { report: filled?, is_moved: false })
    }

    /// Moves the damaged one aside, and opens the new one in its place. After an error it goes on where it was.
    pub(super) fn finish(&mut self, directory: &Directory, now: Stamp) -> Result<Ledger, StoreError> {
        if !self.is_moved {
            self.report.moved_to = directory.move_aside(now, KEPT)?;
            self.is_moved = true;
            let SalvageReport { problem, moved_to, .. } = &self.report;
            let moved_to = moved_to.display();
            warn!(%problem, %moved_to, "the database is damaged; a new one begins with what could be read");
        }
        directory.finish_replacement()?;
        directory.suspicion().settle()?;
        Ledger::open(&directory.database(), &directory.suspicion())
    }

    /// What was saved.
    pub(super) fn into_report(self) -> SalvageReport {
        self.report
    }
}

/// Does all of it at once, for a database that cannot be opened.
pub(super) fn replace(
    directory: &Directory,
    problem: &StoreError,
    now: Stamp,
) -> Result<(Ledger, SalvageReport), StoreError> {
    let mut replacement = Replacement::fill(directory, problem, None)?;
    let ledger = replacement.finish(directory, now)?;
    Ok((ledger, replacement.into_report()))
}

/// Makes the new database beside the damaged one, complete and in one file.
fn fill(directory: &Directory, problem: &StoreError, through: Option<Seq>) -> Result<SalvageReport, StoreError> {
    let path = directory.begin_replacement()?;
    let mut ledger = Ledger::open(&path, &Suspicion::none())?;
    let failed = StoreError::sqlite(&path, "cannot copy into it what was saved");
    let (problem, moved_to) = (problem.to_string(), directory.database());
    let mut report = SalvageReport { problem, moved_to, readings: 0, events: 0, lost: Vec::new() };
    let transaction = ledger.connection().transaction().map_err(&failed)?;
    // An old file that cannot even be opened has nothing to give; the report says so by its zeros.
    if let Ok(old) = schema::connect_writer(&report.moved_to) {
        for (table, columns) in TABLES {
            let copied = copy(&old, &transaction, table, columns).map_err(&failed)?;
            match table {
                "reading" => report.readings = copied,
                "event" => report.events = copied,
                _ => {}
            }
        }
    }
    if let Some(through) = through {
        cut_off(&transaction, through, &mut report).map_err(&failed)?;
    }
    complete(&transaction, through, &mut report).map_err(&failed)?;
    transaction.commit().map_err(&failed)?;
    ledger.connection().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(failed)?;
    Ok(report)
}

/// Takes away rows that the damage made up: nobody has written them.
fn cut_off(new: &Transaction<'_>, through: Seq, report: &mut SalvageReport) -> rusqlite::Result<()> {
    let last = row_id(through);
    let gone = |count: usize| u64::try_from(count).unwrap_or(0);
    let readings = new.execute("DELETE FROM reading WHERE seq > ?1", [last])?;
    report.readings = report.readings.saturating_sub(gone(readings));
    let events = new.execute("DELETE FROM event WHERE seq > ?1", [last])?;
    report.events = report.events.saturating_sub(gone(events));
    new.execute("DELETE FROM alert_open WHERE seq > ?1", [last])?;
    new.execute("DELETE FROM chat_line WHERE seq > ?1", [last])?;
    new.execute("DELETE FROM resend_order WHERE seq > ?1", [last])?;
    new.execute("DELETE FROM epoch WHERE first_seq > ?1 + 1", [last])?;
    new.execute("UPDATE cursor SET seq = ?1 WHERE seq > ?1", [last])?;
    Ok(())
}

/// Copies what can be read of one table; returns how many rows.
///
/// Reads forward to the damage, jumps over it in doubling steps, reads back from the far side to the damage again, and
/// goes on from there.
fn copy(old: &Connection, new: &Transaction<'_>, table: &str, columns: &str) -> rusqlite::Result<u64> {
    let key = columns.split(',').next().unwrap_or("rowid");
    let places = vec!["?"; columns.split(',').count()].join(", ");
    let mut insert = new.prepare(&format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})"))?;
    let select = |order: &str| {
        old.prepare(&format!(
            "SELECT {columns} FROM {table} NOT INDEXED WHERE {key} > ?1 AND {key} < ?2 ORDER BY {key} {order}"
        ))
    };
    let (Ok(mut forward), Ok(mut backward)) = (select("ASC"), select("DESC")) else {
        return Ok(0);
    };
    let mut copied = 0;
    let mut place = i64::MIN;
    loop {
        let run = copy_run(&mut forward, &mut insert, place, i64::MAX)?;
        copied += run.rows;
        let (true, last) = (run.is_broken, run.last.unwrap_or(place)) else {
            return Ok(copied);
        };
        let Some(far) = jump(&mut forward, last.max(0)) else {
            return Ok(copied);
        };
        copied += copy_run(&mut backward, &mut insert, last, far)?.rows;
        place = far.saturating_sub(1);
    }
}

/// The first row that can be read again beyond the damage after `last`.
fn jump(forward: &mut Statement<'_>, last: i64) -> Option<i64> {
    (0..MAX_JUMP).find_map(|power| {
        let from = last.saturating_add(1_i64 << power);
        let mut rows = forward.query([from, i64::MAX]).ok()?;
        let row = rows.next().ok()??;
        row.get(0).ok()
    })
}

/// How far a run of rows could be read.
struct Run {
    rows: u64,
    last: Option<i64>,
    is_broken: bool,
}

/// Copies the rows between two places until they end or cannot be read. Errors are those of the new database.
fn copy_run(select: &mut Statement<'_>, insert: &mut Statement<'_>, after: i64, before: i64) -> rusqlite::Result<Run> {
    let mut run = Run { rows: 0, last: None, is_broken: true };
    let width = select.column_count();
    let Ok(mut rows) = select.query([after, before]) else {
        return Ok(run);
    };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => {
                run.is_broken = false;
                return Ok(run);
            }
            Err(_) => return Ok(run),
        };
        let Ok(columns) = (0..width).map(|column| row.get::<_, Value>(column)).collect::<Result<Vec<_>, _>>() else {
            return Ok(run);
        };
        if let Some(Value::Integer(key)) = columns.first() {
            run.last = Some(*key);
        }
        // A row that breaks a rule of its table is damaged too, and only this row is left out.
        match insert.execute(params_from_iter(columns)) {
            Ok(rows) => run.rows += u64::try_from(rows).unwrap_or(0),
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the copy consistent: readings without their stream go, rows without their run get one, gaps become holes.
fn complete(new: &Transaction<'_>, through: Option<Seq>, report: &mut SalvageReport) -> rusqlite::Result<()> {
    let orphans = new.execute("DELETE FROM reading WHERE stream NOT IN (SELECT id FROM stream)", [])?;
    report.readings = report.readings.saturating_sub(u64::try_from(orphans).unwrap_or(0));
    new.execute("DELETE FROM alert_open WHERE NOT json_valid(body)", [])?;
    new.execute("DELETE FROM limit_change WHERE NOT json_valid(body)", [])?;
    let known = known_holes(new)?;
    new.execute("DELETE FROM hole", [])?;
    // Before the oldest reading numbers are missing because their rows have gone by age.
    let oldest_reading: Option<i64> = new.query_row("SELECT min(seq) FROM reading", [], |row| row.get(0))?;
    let is_news = |first: i64, last: i64| {
        oldest_reading.is_none_or(|oldest| first > oldest)
            && !known.iter().any(|(begin, end)| *begin <= first && last <= *end)
    };
    let mut first = None;
    let mut newest = None;
    {
        let mut statement = new.prepare("SELECT seq FROM reading UNION ALL SELECT seq FROM event ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            first = first.or(Some(seq));
            add_hole(new, report, newest, seq, &is_news)?;
            newest = Some(seq);
        }
    }
    // A cursor that is ahead of what was saved keeps its place: the numbering goes on after it, and after what was given.
    let ahead: Option<i64> = new.query_row("SELECT max(seq) FROM cursor", [], |row| row.get(0))?;
    if let Some(ahead) = ahead.max(through.map(row_id)) {
        add_hole(new, report, newest.or(through.map(|_| 0)), ahead.saturating_add(1), &is_news)?;
    }
    new.execute(
        "INSERT INTO epoch (id, name, boot, first_seq, started_mono, started_wall)
            SELECT ifnull((SELECT min(id) FROM epoch), 1) - 1, 'salvaged-' || hex(randomblob(4)), '', ?1, 0, 0
            WHERE ?1 < ifnull((SELECT min(first_seq) FROM epoch), ?1 + 1)",
        [first],
    )?;
    Ok(())
}

/// Holes that were known before the damage, as far as they can be read.
fn known_holes(new: &Transaction<'_>) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut statement = new.prepare("SELECT first, last FROM hole ORDER BY first")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Notes the numbers between two rows as a hole, if there are any; and reports them as lost, if they were there before.
fn add_hole(
    new: &Transaction<'_>,
    report: &mut SalvageReport,
    before: Option<i64>,
    after: i64,
    is_news: &impl Fn(i64, i64) -> bool,
) -> rusqlite::Result<()> {
    let Some(first) = before.map(|before| before.saturating_add(1)) else {
        return Ok(());
    };
    let last = after.saturating_sub(1);
    if first > last {
        return Ok(());
    }
    new.execute("INSERT INTO hole (first, last) VALUES (?1, ?2)", [first, last])?;
    if !is_news(first, last) {
        return Ok(());
    }
    let is_full = report.lost.len() >= MAX_LOST;
    match report.lost.last_mut() {
        Some(range) if is_full => range.last = seq_of(last),
        _ => report.lost.push(SeqRange { first: seq_of(first), last: seq_of(last) }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::handle::Moves;
    use super::super::{StoreOptions, clock_epochs};
    use super::*;
    use crate::clock::{Mono, Wall};
    use crate::event::{AuditAction, AuditEvent, AuditResult, Event, EventBody, SystemEvent, SystemKind};
    use crate::timeline::{ClockEpoch, ClockState};
    use crate::vitals::Mode;

    const NOW: Stamp = Stamp { mono: Mono::from_millis(60_000), wall: Wall(1_795_219_200_000) };

    #[test]
    fn what_a_first_salvage_lost_is_told_by_the_second() {
        let lost = |ranges: &[(u64, u64)]| -> Vec<SeqRange> {
            ranges.iter().map(|(first, last)| SeqRange { first: Seq(*first), last: Seq(*last) }).collect()
        };
        let report = |ranges| SalvageReport {
            problem: "damage".to_owned(),
            moved_to: "aside".into(),
            readings: 0,
            events: 0,
            lost: lost(ranges),
        };
        assert_eq!(report(&[(300, 310)]).after(lost(&[(100, 240)])).lost, lost(&[(100, 240), (300, 310)]));
        assert_eq!(report(&[]).after(lost(&[(100, 240)])).lost, lost(&[(100, 240)]));
        let many: Vec<(u64, u64)> = (1..=70).map(|number| (number * 10, number * 10 + 1)).collect();
        let joined = report(&many).after(lost(&[(5, 6)])).lost;
        assert_eq!((joined.len(), joined[0], joined[MAX_LOST - 1].last), (MAX_LOST, lost(&[(5, 6)])[0], Seq(701)));
    }

    fn clock_epoch() -> ClockEpoch {
        let (since, offset_ms) = (NOW.mono, NOW.wall.0 - 60_000);
        let state = ClockState::Synchronised;
        ClockEpoch { first: Seq(1), boot: "boot".into(), since, offset_ms, uncertainty_ms: Some(100), state }
    }

    /// A run with ten events, cursors and a clock epoch on disk.
    fn filled(folder: &std::path::Path) -> (Directory, Ledger) {
        let directory = Directory::claim(folder).unwrap();
        directory.create_database().unwrap();
        let mut ledger = Ledger::open(&directory.database(), &directory.suspicion()).unwrap();
        ledger.limit(64 << 20, &StoreOptions::default()).unwrap();
        let epoch: crate::ids::Epoch = "k3f9".parse().unwrap();
        ledger.begin_epoch(&epoch, "boot", NOW).unwrap();
        let system = || SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
        let event = |seq| Event { epoch: epoch.clone(), seq: Seq(seq), at: NOW, body: EventBody::System(system()) };
        let batch: Vec<Arc<Event>> = (1..=10).map(|seq| Arc::new(event(seq))).collect();
        let cursors = [("alerts", 9), ("readings", 3), ("sent.0.after", 5), ("sent.0.through", 8)];
        let cursors = cursors.map(|(lane, seq)| (lane.to_owned(), Seq(seq))).into();
        ledger.commit(&batch, &Moves { cursors, ..Moves::default() }, &[clock_epoch()]).unwrap();
        (directory, ledger)
    }

    fn problem(directory: &Directory) -> StoreError {
        StoreError::Damaged { path: directory.database(), finding: "a test says so".to_owned() }
    }

    #[test]
    fn a_mend_that_failed_behind_its_middle_is_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, mut ledger) = filled(folder.path());
        // The note about the damage cannot be taken away, although the new database is in its place by then.
        let in_the_way = folder.path().join("vitals.db.suspect");
        std::fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            ledger.mend(&directory, &problem(&directory), NOW).unwrap_err();
        }
        std::fs::remove_dir(&in_the_way).unwrap();
        let report = ledger.mend(&directory, &problem(&directory), NOW).unwrap();
        assert_eq!((report.events, report.lost), (10, vec![]));
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let aside: Vec<PathBuf> = names
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("vitals.db.corrupt-"))
            .filter(|path| !path.to_str().unwrap().ends_with("-wal") && !path.to_str().unwrap().ends_with("-shm"))
            .collect();
        assert_eq!(aside, [report.moved_to], "the only one is the damaged one");
        let moves = Moves { cursors: [("alerts".to_owned(), Seq(10))].into(), ..Moves::default() };
        assert_eq!(ledger.commit(&[], &moves, &[]).unwrap().newest, Seq(10));
    }

    #[test]
    fn what_memory_knows_is_put_back_after_a_mend() {
        let folder = tempfile::tempdir().unwrap();
        let (directory, mut ledger) = filled(folder.path());
        let order = |seq, object: &str| {
            let audit = AuditEvent {
                by: "lena".to_owned(),
                address: None,
                action: AuditAction::UplinkResend,
                object: object.to_owned(),
                patient: None,
                device: None,
                source: None,
                result: AuditResult::Done,
                reason: None,
                mode: Mode::Real,
            };
            let epoch = "k3f9".parse().unwrap();
            Arc::new(Event { epoch, seq: Seq(seq), at: NOW, body: EventBody::Audit(audit) })
        };
        let orders = [order(11, "k3f9:1-4"), order(12, "k3f9:2-5"), order(13, "k3f9:3-6")];
        ledger.commit(&orders, &Moves::default(), &[]).unwrap();
        ledger.commit(&[], &Moves { resent: vec![Seq(12)], ..Moves::default() }, &[]).unwrap();
        let damage = Connection::open(directory.database()).unwrap();
        damage
            .execute_batch(
                "DELETE FROM clock_epoch; DELETE FROM cursor WHERE lane <> 'sent.0.through';
                 DELETE FROM resend_order WHERE seq <> 11;",
            )
            .unwrap();
        ledger.mend(&directory, &problem(&directory), NOW).unwrap();
        let sql = "SELECT group_concat(seq || ':' || first || '-' || last, ' ' ORDER BY seq) FROM resend_order";
        let left: String = ledger.connection().query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(left, "11:1-4 13:3-6", "what is to be sent again, and not what was");
        assert_eq!(clock_epochs::load(ledger.connection()).unwrap().epochs(), [clock_epoch()]);
        let sql = "SELECT group_concat(lane || ' ' || seq, ', ' ORDER BY lane) FROM cursor";
        let cursors: String = ledger.connection().query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(cursors, "alerts 9, readings 3, sent.0.after 5, sent.0.through 8");
    }
}
