//! The tables, and how an older database becomes a current one: forward only, in one transaction.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;

/// Bytes of one page: the block of SD cards and of ext4.
pub(super) const PAGE_BYTES: u64 = 4096;
/// How long a statement waits for a lock, for example of a person's `sqlite3` or of a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// `page_size` and `auto_vacuum` take effect only before the first table and before WAL, so they come first.
///
/// A small log (64 pages) is written over and over in the same blocks: 754 instead of 1,112 bytes a reading at the
/// block device. `synchronous=FULL` syncs the log at each commit: without it a power cut loses what was confirmed.
const WRITER_PRAGMAS: &str = "
    PRAGMA page_size = 4096;
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 64;
    PRAGMA journal_size_limit = 1048576;
    PRAGMA cell_size_check = ON;
    PRAGMA trusted_schema = OFF;
";

/// One script a version. `user_version` counts those that have run. A released script never changes.
///
/// `seq` is one numbering over `reading` and `event`. Neither has an epoch: the epochs cut the numbering into
/// consecutive pieces, so the epoch of a row is the last one that begins at or before it. `reading` has no other index:
/// one on device and time costs 3.3 times the bytes written. `reading_block` finds a time by blocks instead.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    -- One run of the daemon. ended_* stay NULL if it was killed.
    CREATE TABLE epoch (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        boot TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        started_mono INTEGER NOT NULL,
        started_wall INTEGER NOT NULL,
        ended_mono INTEGER,
        ended_wall INTEGER
    ) STRICT;

    -- What many readings share. patient is '' for nobody, mdc -1 for the metric's own code.
    CREATE TABLE stream (
        id INTEGER PRIMARY KEY,
        patient TEXT NOT NULL,
        device TEXT NOT NULL,
        source TEXT NOT NULL,
        metric TEXT NOT NULL,
        mdc INTEGER NOT NULL,
        mode TEXT NOT NULL,
        quality TEXT NOT NULL,
        time_source TEXT NOT NULL,
        UNIQUE (patient, device, source, metric, mdc, mode, quality, time_source)
    ) STRICT;

    -- mono: ns since boot; wall: ms since 1970; received_*: how much earlier the bytes arrived (ns, ms);
    -- taken_ms: how much earlier than its arrival it was measured, NULL if nobody knows.
    -- The value is mantissa * 10^exponent or the reason in absent. parts: see the codec.
    CREATE TABLE reading (
        seq INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        mono INTEGER NOT NULL,
        wall INTEGER NOT NULL,
        received_ns INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        taken_ms INTEGER,
        uncertainty_ms INTEGER NOT NULL,
        device_time TEXT,
        mantissa INTEGER,
        exponent INTEGER,
        absent TEXT,
        parts TEXT
    ) STRICT;

    CREATE TABLE event (
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        mono INTEGER NOT NULL,
        wall INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;

    -- Numbers that were given and never stored: the queue was full, or the file was damaged.
    CREATE TABLE hole (
        first INTEGER PRIMARY KEY,
        last INTEGER NOT NULL
    ) STRICT;

    -- The latest state of each alert that has not ended.
    CREATE TABLE alert_open (
        alert TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;

    -- How far each reader of the log has come.
    CREATE TABLE cursor (
        lane TEXT PRIMARY KEY,
        seq INTEGER NOT NULL
    ) STRICT;
",
    "
    -- The serial number to which the device of a source is bound, and one that it told later and that nobody has
    -- confirmed. Kept although the event that says so is dropped one day.
    CREATE TABLE device_identity (
        source TEXT PRIMARY KEY,
        device TEXT NOT NULL,
        serial_number TEXT,
        doubted TEXT
    ) STRICT;
",
    "
    -- Records of sensors that are stored, by what names them; a device that sends one again is told so by this. Kept
    -- although the record itself is dropped one day, and bounded by the number of records a device.
    CREATE TABLE known_record (
        id INTEGER PRIMARY KEY,
        device TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (device, name)
    ) STRICT;

    -- All records of a device's memory up to this number have been taken.
    CREATE TABLE record_mark (
        device TEXT PRIMARY KEY,
        through INTEGER NOT NULL
    ) STRICT;

    -- What people changed of the limits of patients while the bridge runs, as long as it holds.
    CREATE TABLE limit_change (
        patient TEXT NOT NULL,
        rule TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (patient, rule, kind)
    ) STRICT;

    -- Users for whom messages wait: as what they last listened, what they want, what was dropped and not told yet.
    -- JSON each, NULL where there is none.
    CREATE TABLE inbox_person (
        user TEXT PRIMARY KEY,
        listens TEXT,
        preferences TEXT,
        untold TEXT
    ) STRICT;

    -- Messages that wait for somebody, and for whom. seq: the event that brought the message.
    CREATE TABLE inbox_message (
        id TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE inbox_waiting (
        id TEXT NOT NULL,
        user TEXT NOT NULL,
        UNIQUE (id, user)
    ) STRICT;

    -- Messages that wait for their time.
    CREATE TABLE inbox_scheduled (
        id TEXT PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT;

    -- The priority at which people were last told of an alert that stands.
    CREATE TABLE inbox_notified (
        alert TEXT PRIMARY KEY,
        priority TEXT NOT NULL
    ) STRICT;

    -- What people have sent, when, and the event: a request that is repeated is answered and not sent again.
    CREATE TABLE inbox_sent (
        id TEXT PRIMARY KEY,
        wall INTEGER NOT NULL,
        seq INTEGER NOT NULL
    ) STRICT;
",
    "
    -- The messages of each room of the care team by their events; id is the message's own, so that one that is sent
    -- again is known.
    CREATE TABLE chat_line (
        seq INTEGER PRIMARY KEY,
        room TEXT NOT NULL,
        id TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE INDEX chat_room ON chat_line (room, seq);
    CREATE TRIGGER chat_gone AFTER DELETE ON event WHEN OLD.kind = 'chat'
        BEGIN DELETE FROM chat_line WHERE seq = OLD.seq; END;

    -- Up to which event a room is not shown any more: to one user, or to everybody where user is ''.
    CREATE TABLE chat_cleared (
        room TEXT NOT NULL,
        user TEXT NOT NULL,
        seq INTEGER NOT NULL,
        UNIQUE (room, user)
    ) STRICT;
",
    "
    -- What people have asked for under a name of their own: a digest of the command, when, and the last event of what was
    -- done; NULL: it was begun. A request that is repeated is answered and not done again.
    CREATE TABLE request (
        id TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        wall INTEGER NOT NULL,
        seq INTEGER
    ) STRICT;
    INSERT INTO request (id, digest, wall, seq) SELECT id, '', wall, seq FROM inbox_sent;
    DROP TABLE inbox_sent;
",
    "
    -- The first and the last time of measurement (ms since 1970) among the readings of each 1024 numbers, once all of them
    -- are given. It finds a span of time, late readings among it, for one page more in a thousand events: 8 bytes written a
    -- reading, log and file together.
    CREATE TABLE reading_block (
        block INTEGER PRIMARY KEY,
        earliest INTEGER NOT NULL,
        latest INTEGER NOT NULL
    ) STRICT;

    -- The life of one alert. Only alerts pay for it. A row that salvage brought and that is no JSON has no place in it.
    CREATE INDEX alert_life ON event (CASE WHEN json_valid(body) THEN body ->> '$.alert' END) WHERE kind = 'alert';
",
    "
    -- Spans in which time of day was time since boot and offset_ms. first_seq: the first event in it; the next one ends it.
    -- state: what is known of the clock; uncertainty_ms: how far its time of day may be off, NULL if nobody knows. Rows
    -- keep the times with which they were stored; these say what they are read as.
    CREATE TABLE clock_epoch (
        first_seq INTEGER PRIMARY KEY,
        boot TEXT NOT NULL,
        since_mono INTEGER NOT NULL,
        offset_ms INTEGER NOT NULL,
        uncertainty_ms INTEGER,
        state TEXT NOT NULL
    ) STRICT;
",
    "
    -- Rows that the broker did not take, in the order in which they were given up, and why. wall: when (ms since 1970).
    CREATE TABLE parked (
        id INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL UNIQUE,
        lane TEXT NOT NULL,
        wall INTEGER NOT NULL,
        reason TEXT NOT NULL
    ) STRICT;
",
    "
    -- Ranges of the log that are to be sent to the broker again, each by the number of the row of the audit trail that
    -- accepted it. They stood among the cursors before.
    CREATE TABLE resend_order (
        seq INTEGER PRIMARY KEY,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL
    ) STRICT;
    INSERT INTO resend_order (seq, first, last)
        SELECT substr(one.lane, 8, 1) + 1, one.seq, other.seq FROM cursor AS one
            JOIN cursor AS other ON other.lane = replace(one.lane, '.first', '.last')
            WHERE one.lane GLOB 'resend.[0-9].first' AND one.seq > 0 AND one.seq <= other.seq;
    DELETE FROM cursor WHERE lane GLOB 'resend.[0-9].*';
",
    "
    -- What stays of readings when they go: a minute of one number (its first minute since 1970). *_at: when, in ms since
    -- 1970. sum and places make the mean; absent: how often, by reason; absent_last: the reason of the newest.
    CREATE TABLE minute_series (
        id INTEGER PRIMARY KEY,
        patient TEXT NOT NULL,
        device TEXT NOT NULL,
        metric TEXT NOT NULL,
        mode TEXT NOT NULL,
        UNIQUE (patient, device, metric, mode)
    ) STRICT;
    CREATE TABLE minute (
        minute INTEGER NOT NULL,
        series INTEGER NOT NULL,
        count INTEGER NOT NULL,
        questionable INTEGER NOT NULL,
        late INTEGER NOT NULL,
        sum REAL NOT NULL,
        places INTEGER NOT NULL,
        least_at INTEGER,
        least INTEGER,
        least_exponent INTEGER,
        greatest_at INTEGER,
        greatest INTEGER,
        greatest_exponent INTEGER,
        first_at INTEGER,
        first INTEGER,
        first_exponent INTEGER,
        last_at INTEGER,
        last INTEGER,
        last_exponent INTEGER,
        absent TEXT,
        absent_at INTEGER,
        absent_last TEXT,
        PRIMARY KEY (minute, series)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- Parked rows that are not in that list any more: each kind as the range around them, and how many they are at most.
    -- 'older': so many came after them that only this is remembered. 'gone': they have left the log, and that was told.
    CREATE TABLE parked_range (
        kind TEXT PRIMARY KEY,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        rows INTEGER NOT NULL
    ) STRICT;
",
    "
    -- The rows of the audit trail, which are few among the events. Nothing else pays for it.
    CREATE INDEX audit_trail ON event (seq) WHERE kind = 'audit';
",
];

/// Opens the one connection that writes.
pub(super) fn connect_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(WRITER_PRAGMAS)?;
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;")?;
    Ok(connection)
}

/// Opens a connection that only reads, on a disk that may take no writes at all. A database that is not there yet is an empty
/// one in memory.
pub(super) fn connect_frozen(path: &Path) -> Result<Connection, StoreError> {
    let failed = StoreError::sqlite(path, "cannot open it for reading");
    if std::fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        let mut empty = Connection::open_in_memory().map_err(failed)?;
        migrate(&mut empty, path, MIGRATIONS)?;
        return Ok(empty);
    }
    let version = |connection: Connection| -> rusqlite::Result<(Connection, u32)> {
        let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok((connection, found))
    };
    let opened = connect_reader(path).and_then(version).or_else(|error| {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // Without a log there is nothing beside the file, and the index of the log, which cannot be made, is not needed.
        match std::fs::metadata(Path::new(&log)) {
            Ok(found) if found.len() > 0 => Err(error),
            _ => connect_immutable(path).and_then(version),
        }
    });
    let (connection, found) = opened.map_err(failed)?;
    let known = MIGRATIONS.len();
    match usize::try_from(found).unwrap_or(usize::MAX).cmp(&known) {
        std::cmp::Ordering::Less => Err(StoreError::Older { path: path.to_owned(), found, known }),
        std::cmp::Ordering::Greater => Err(StoreError::Newer { path: path.to_owned(), found, known }),
        std::cmp::Ordering::Equal => Ok(connection),
    }
}

/// Opens a file that nobody changes while this connection is open.
fn connect_immutable(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for character in path.to_string_lossy().chars() {
        match character {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            plain => uri.push(plain),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// Brings the tables to the last of `migrations`, all of it or nothing.
pub(super) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path, "cannot prepare its tables");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&failed)?;
    let done = usize::try_from(found).unwrap_or(usize::MAX);
    let Some(pending) = migrations.get(done..) else {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: migrations.len() });
    };
    if pending.is_empty() {
        return Ok(());
    }
    for script in pending {
        transaction.execute_batch(script).map_err(&failed)?;
    }
    let version = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    transaction.pragma_update(None, "user_version", version).map_err(&failed)?;
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, std::path::PathBuf, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let connection = connect_writer(&path).unwrap();
        (folder, path, connection)
    }

    fn version(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_file_has_the_form_that_was_measured() {
        let (_folder, path, mut connection) = database();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        for (pragma, expected) in [
            ("page_size", "4096"),
            ("auto_vacuum", "2"),
            ("journal_mode", "wal"),
            ("synchronous", "2"),
            ("wal_autocheckpoint", "64"),
            ("journal_size_limit", "1048576"),
        ] {
            let found: rusqlite::types::Value = connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap();
            let found = match found {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{pragma}: {other:?}"),
            };
            assert_eq!(found, expected, "{pragma}");
        }
        let indices: Vec<String> = connection
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name IN ('reading', 'event')")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        // One that each reading pays for would cost 3.3 times the bytes.
        assert_eq!(indices, ["alert_life", "audit_trail"]);
    }

    #[test]
    fn an_older_database_runs_only_the_scripts_it_lacks_and_keeps_its_rows() {
        let (_folder, path, mut connection) = database();
        migrate(&mut connection, &path, &["CREATE TABLE one (a INTEGER) STRICT; INSERT INTO one VALUES (7);"]).unwrap();
        assert_eq!(version(&connection), 1);
        let both = ["this script must not run again", "ALTER TABLE one ADD COLUMN b INTEGER NOT NULL DEFAULT 8;"];
        migrate(&mut connection, &path, &both).unwrap();
        assert_eq!(version(&connection), 2);
        let row: (i64, i64) =
            connection.query_row("SELECT a, b FROM one", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (7, 8));
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let (_folder, path, mut connection) = database();
        migrate(&mut connection, &path, &["CREATE TABLE one (a INTEGER) STRICT;"]).unwrap();
        let scripts = ["", "CREATE TABLE two (a INTEGER) STRICT;", "no SQL at all"];
        assert!(migrate(&mut connection, &path, &scripts).is_err());
        assert_eq!(version(&connection), 1);
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'two'", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 0);
    }

    #[test]
    fn what_cannot_be_written_is_read_without_anything_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a%20b?c#d.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect_writer(&path).unwrap();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        connection.execute("INSERT INTO cursor (lane, seq) VALUES ('alerts', 7)", []).unwrap();
        let seq = |connection: &Connection| -> i64 {
            connection.query_row("SELECT seq FROM cursor", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(seq(&connect_frozen(&path).unwrap()), 7);
        // Closing it leaves the one file.
        drop(connection);
        assert_eq!(seq(&connect_immutable(&path).unwrap()), 7);
        let older = folder.path().join("older.db");
        std::fs::File::create(&older).unwrap();
        let count = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM epoch", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&connect_frozen(&older).unwrap()), 0, "nothing was stored yet");
        let mut connection = connect_writer(&older).unwrap();
        migrate(&mut connection, &older, &["CREATE TABLE one (a INTEGER) STRICT;"]).unwrap();
        assert!(matches!(connect_frozen(&older), Err(StoreError::Older { found: 1, .. })));
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused_by_name() {
        let (_folder, path, mut connection) = database();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection, &path, MIGRATIONS).unwrap_err().to_string();
        assert!(error.contains("99") && error.contains(&path.display().to_string()), "{error}");
    }
}
