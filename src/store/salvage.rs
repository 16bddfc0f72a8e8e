//! What happens to a damaged database: it is moved aside, and every row that can still be read goes into a new one.

use std::path::PathBuf;

use rusqlite::types::Value;
use rusqlite::{Connection, Statement, Transaction, params_from_iter};
use tracing::warn;

use super::codec::seq_of;
use super::directory::Directory;
use super::ledger::Ledger;
use super::{SeqRange, StoreError, schema};
use crate::clock::Stamp;

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

/// The tables in the order in which they are copied, each with its columns; the first is the row number where `seq` or
/// `id` is one, and the row number is copied with it.
const TABLES: [(&str, &str); 20] = [
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
    ("parked", "id, seq, lane, wall, reason"),
];

/// Moves the database aside and opens a new one with what can be read of the old.
pub(super) fn replace(
    directory: &Directory,
    problem: &StoreError,
    now: Stamp,
) -> Result<(Ledger, SalvageReport), StoreError> {
    let path = directory.database();
    let moved_to = directory.move_aside(now, KEPT)?;
    warn!(%problem, moved_to = %moved_to.display(), "the database is damaged; a new one begins with what can be read");
    directory.create_database()?;
    directory.suspicion().settle()?;
    let mut ledger = Ledger::open(&path, &directory.suspicion())?;
    let failed = StoreError::sqlite(&path, "cannot copy into it what was saved");
    let mut report = SalvageReport { problem: problem.to_string(), moved_to, readings: 0, events: 0, lost: Vec::new() };
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
    complete(&transaction, &mut report).map_err(&failed)?;
    transaction.commit().map_err(failed)?;
    Ok((ledger, report))
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
fn complete(new: &Transaction<'_>, report: &mut SalvageReport) -> rusqlite::Result<()> {
    let orphans = new.execute("DELETE FROM reading WHERE stream NOT IN (SELECT id FROM stream)", [])?;
    report.readings = report.readings.saturating_sub(u64::try_from(orphans).unwrap_or(0));
    new.execute("DELETE FROM alert_open WHERE NOT json_valid(body)", [])?;
    new.execute("DELETE FROM limit_change WHERE NOT json_valid(body)", [])?;
    new.execute("DELETE FROM hole", [])?;
    let mut first = None;
    let mut newest = None;
    {
        let mut statement = new.prepare("SELECT seq FROM reading UNION ALL SELECT seq FROM event ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            first = first.or(Some(seq));
            add_hole(new, report, newest, seq)?;
            newest = Some(seq);
        }
    }
    // A cursor that is ahead of what was saved keeps its place: the numbering goes on after it.
    let ahead: Option<i64> = new.query_row("SELECT max(seq) FROM cursor", [], |row| row.get(0))?;
    if let Some(ahead) = ahead {
        add_hole(new, report, newest, ahead.saturating_add(1))?;
    }
    new.execute(
        "INSERT INTO epoch (id, name, boot, first_seq, started_mono, started_wall)
            SELECT ifnull((SELECT min(id) FROM epoch), 1) - 1, 'salvaged-' || hex(randomblob(4)), '', ?1, 0, 0
            WHERE ?1 < ifnull((SELECT min(first_seq) FROM epoch), ?1 + 1)",
        [first],
    )?;
    Ok(())
}

/// Notes the numbers between two rows as a hole, if there are any.
fn add_hole(
    new: &Transaction<'_>,
    report: &mut SalvageReport,
    before: Option<i64>,
    after: i64,
) -> rusqlite::Result<()> {
    let Some(first) = before.map(|before| before.saturating_add(1)) else {
        return Ok(());
    };
    let last = after.saturating_sub(1);
    if first > last {
        return Ok(());
    }
    new.execute("INSERT INTO hole (first, last) VALUES (?1, ?2)", [first, last])?;
    let is_full = report.lost.len() >= MAX_LOST;
    match report.lost.last_mut() {
        Some(range) if is_full => range.last = seq_of(last),
        _ => report.lost.push(SeqRange { first: seq_of(first), last: seq_of(last) }),
    }
    Ok(())
}
