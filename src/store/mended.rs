//! What a new database takes over from a damaged one, table by table, and when damage is looked for at all.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::directory::Directory;
use super::handle::Moves;
use super::ledger::Ledger;
use super::{SeqRange, StoreError, StoreOptions, salvage};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{Event, EventBody, SystemEvent, SystemKind};
use crate::ids::{Epoch, Seq};

const NOW: Stamp = Stamp { mono: Mono::from_millis(60_000), wall: Wall(1_795_219_200_000) };

/// A run with ten events and a cursor behind the ninth.
fn filled(folder: &Path) -> (Directory, Ledger) {
    let directory = Directory::claim(folder).unwrap();
    directory.create_database().unwrap();
    let mut ledger = Ledger::open(&directory.database(), &directory.suspicion()).unwrap();
    ledger.limit(64 << 20, &StoreOptions::default()).unwrap();
    let epoch: Epoch = "k3f9".parse().unwrap();
    ledger.begin_epoch(&epoch, "boot", NOW).unwrap();
    let system = || SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
    let event = |seq| Event { epoch: epoch.clone(), seq: Seq(seq), at: NOW, body: EventBody::System(system()) };
    let batch: Vec<Arc<Event>> = (1..=10).map(|seq| Arc::new(event(seq))).collect();
    let cursors = [("alerts".to_owned(), Seq(9))].into();
    ledger.commit(&batch, &Moves { cursors, ..Moves::default() }, &[]).unwrap();
    (directory, ledger)
}

fn problem(directory: &Directory) -> StoreError {
    StoreError::Damaged { path: directory.database(), finding: "a test says so".to_owned() }
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

/// The tables that hold what nothing else tells.
fn tables(connection: &Connection) -> Vec<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'
        AND name NOT IN ('hole', 'reading_block') ORDER BY name";
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn rows(connection: &Connection, table: &str) -> Vec<Vec<Value>> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
    let width = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..width).map(|column| row.get(column)).collect();
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

#[test]
fn every_row_of_every_table_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, mut ledger) = filled(folder.path());
    let names = tables(ledger.connection());
    assert!(names.len() >= 21, "{names:?}");
    for table in &names {
        let sql = format!("SELECT group_concat(iif(type = 'TEXT', '''{{}}''', '5')) FROM pragma_table_info('{table}')");
        let values: String = ledger.connection().query_row(&sql, [], |row| row.get(0)).unwrap();
        ledger.connection().execute(&format!("INSERT OR REPLACE INTO {table} VALUES ({values})"), []).unwrap();
    }
    let before: Vec<_> = names.iter().map(|table| (table.clone(), rows(ledger.connection(), table))).collect();
    drop(ledger);
    let (mut ledger, report) = salvage::replace(&directory, &problem(&directory), NOW).unwrap();
    assert_eq!((report.readings, report.events, report.lost), (1, 10, vec![]));
    for (table, rows_before) in before {
        assert!(!rows_before.is_empty(), "{table}");
        assert_eq!(rows(ledger.connection(), &table), rows_before, "{table}");
    }
}

#[test]
fn what_is_missing_in_the_middle_or_before_a_cursor_is_told_and_no_number_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, mut ledger) = filled(folder.path());
    let damage = "DELETE FROM event WHERE seq IN (4, 8, 9, 10);
        INSERT INTO reading (seq, stream, mono, wall, received_ns, received_ms, uncertainty_ms) VALUES (1, 99, 0, 0, 0, 0, 0);";
    ledger.connection().execute_batch(damage).unwrap();
    drop(ledger);
    let (mut ledger, report) = salvage::replace(&directory, &problem(&directory), NOW).unwrap();
    assert_eq!((report.readings, report.events), (0, 6), "a reading of nobody is none");
    // Of the tenth nobody knows any more.
    assert_eq!(report.lost, [range(4, 4), range(8, 9)]);
    assert_eq!(ledger.begin_epoch(&"k3fa".parse().unwrap(), "boot", NOW).unwrap(), Seq(10));
}

#[test]
fn what_damage_makes_up_beyond_the_last_number_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (directory, mut ledger) = filled(folder.path());
    let damage =
        "INSERT INTO cursor (lane, seq) VALUES ('ghost', 900); INSERT INTO resend_order VALUES (900, 1, 2), (7, 3, 4);
        INSERT INTO event (seq, kind, mono, wall, body) VALUES (900, 'system', 0, 0, '{}');";
    Connection::open(directory.database()).unwrap().execute_batch(damage).unwrap();
    let report = ledger.mend(&directory, &problem(&directory), NOW).unwrap();
    assert_eq!((report.events, report.lost), (10, vec![]));
    let number =
        |ledger: &mut Ledger, sql: &str| -> i64 { ledger.connection().query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(number(&mut ledger, "SELECT max(seq) FROM cursor"), 10);
    assert_eq!(number(&mut ledger, "SELECT sum(seq) FROM resend_order"), 7);
    assert_eq!(ledger.commit(&[], &Moves::default(), &[]).unwrap().newest, Seq(10));
}

/// Overwrites the page at which an empty table begins, which nothing but a check reads at a start.
fn damage(directory: &Directory, table: &str) {
    let path = directory.database();
    let connection = Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let page: i64 = connection.query_row(sql, [table], |row| row.get(0)).unwrap();
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(connection);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xFF; 4096], u64::try_from(page - 1).unwrap() * 4096).unwrap();
}

#[test]
fn a_database_is_looked_through_after_a_crash_and_where_damage_was_met_and_else_not() {
    for (has_crashed, is_suspect, is_found) in
        [(true, false, true), (false, true, true), (true, true, true), (false, false, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let (directory, mut ledger) = filled(folder.path());
        if !has_crashed {
            ledger.end_epoch(NOW).unwrap();
        }
        drop(ledger);
        if is_suspect {
            directory.suspicion().note().unwrap();
        }
        damage(&directory, "record_mark");
        let opened = Ledger::open(&directory.database(), &directory.suspicion());
        let found = opened.is_err_and(|error| error.is_damage());
        assert_eq!(found, is_found, "crashed: {has_crashed}, suspect: {is_suspect}");
    }
}
