//! Looks at a store from outside, whether a daemon works in it or not: who that is, whether the database is sound, how
//! large it is and how long the room lasts. Nothing is claimed, locked or changed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use rustix::fs::{major, minor, statvfs};

use super::codec::{row_id, seq_of};
use super::directory::{DATABASE_FILE, DEFAULT_BUDGET, LOCK_FILE, SUSPICION_FILE};
use super::schema::{MIGRATIONS, PAGE_BYTES};
use super::{MIN_BYTES, StoreError, StoreOptions};
use crate::clock::{Mono, Wall};
use crate::ids::Seq;

/// How long a statement waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// So many numbers of the newest run say how fast the log grows.
const LATELY: u64 = 20_000;

/// A shorter time says nothing about how fast it grows: a start writes more than what follows.
const SHORTEST: Duration = Duration::from_mins(1);

/// Who works in a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// No daemon does.
    Nobody,
    /// This process.
    Process(u32),
}

/// What SQLite's own check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Soundness {
    /// Nothing is wrong.
    Sound,
    /// The first finding.
    Damaged(String),
    /// The check did not end in time.
    Unchecked,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Whether the file is sound.
    pub soundness: Soundness,
    /// A run of the daemon met damage, and no start has checked the file since.
    pub is_suspect: bool,
    /// Damaged databases of earlier that lie beside it.
    pub put_aside: Vec<PathBuf>,
    /// Numbers from the oldest to the newest event.
    pub rows: u64,
    /// Runs of the daemon that are remembered.
    pub runs: u64,
    /// Numbers that a reader which holds rows back has not passed.
    pub unacknowledged: u64,
    /// Bytes of the pages that hold something.
    pub used_bytes: u64,
    /// Most bytes that the database may use.
    pub budget_bytes: u64,
    /// Whole hours until the budget is full of rows that nobody has confirmed, at the pace of the last run. `None`: that
    /// run stored too little to tell.
    pub hours_left: Option<u64>,
}

/// Who works in the state directory, by the kernel's list of locks: to try the lock could stop a daemon that starts.
///
/// # Errors
/// The lock's file or the list cannot be read.
pub fn holder(dir: &Path) -> io::Result<Holder> {
    let lock = match std::fs::metadata(dir.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        found => found?,
    };
    let locks = std::fs::read_to_string("/proc/locks")?;
    let device = (major(lock.dev()), minor(lock.dev()));
    let found = locks.lines().find_map(|line| lock_owner(line, device, lock.ino()));
    Ok(found.map_or(Holder::Nobody, Holder::Process))
}

/// The process of a line such as `1: FLOCK  ADVISORY  WRITE 812 b3:02:1234 0 EOF` (`proc_locks(5)`), if it is about this file.
fn lock_owner(line: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    let (kind, _, _, pid, file) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let mut parts = file.split(':');
    let (major, minor, found) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let is_it = kind == "FLOCK" && found.parse() == Ok(inode) && number(major).zip(number(minor)) == Some(device);
    is_it.then(|| pid.parse().ok())?
}

/// Looks at the store in `dir`. The check of the file ends after `limit`; `None`: there is no database yet.
///
/// # Errors
/// It is there and cannot be read, or is of a newer version.
pub async fn inspect(dir: &Path, options: &StoreOptions, limit: Duration) -> Result<Option<Inspection>, StoreError> {
    let (dir, options) = (dir.to_owned(), options.clone());
    let looking = tokio::task::spawn_blocking(move || look(&dir, &options));
    let Some((mut found, connection)) = looking.await?? else { return Ok(None) };
    let interrupt = connection.get_interrupt_handle();
    let mut checking = tokio::task::spawn_blocking(move || check(&connection));
    found.soundness = if let Ok(checked) = tokio::time::timeout(limit, &mut checking).await {
        checked?
    } else {
        interrupt.interrupt();
        checking.await?
    };
    Ok(Some(found))
}

/// The time of the newest event; `None`: there is none.
///
/// # Errors
/// The database is there and cannot be read.
pub fn newest_time(dir: &Path) -> Result<Option<Wall>, StoreError> {
    let path = dir.join(DATABASE_FILE);
    let Some(connection) = open(&path)? else { return Ok(None) };
    let newest = newest_up_to(&connection, Seq(u64::MAX)).map_err(StoreError::sqlite(&path, "cannot read events"))?;
    Ok(newest.map(|(_, _, wall)| wall))
}

/// Opens it for reading; `None`: it is not there. A database without a log beside it is in use by nobody, and is read
/// as the file it is: SQLite would want to write one.
fn open(path: &Path) -> Result<Option<Connection>, StoreError> {
    let failed = |source| StoreError::Directory { path: path.to_owned(), doing: "cannot read it", source };
    match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => drop(opened.map_err(failed)?),
    }
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let unused = if Path::new(&log).exists() { "" } else { "?immutable=1" };
    // The characters that mean something in an URI.
    let name: String = path.to_string_lossy().chars().fold(String::new(), |mut name, c| {
        match c {
            '%' => name.push_str("%25"),
            '?' => name.push_str("%3f"),
            '#' => name.push_str("%23"),
            c => name.push(c),
        }
        name
    });
    let name = std::path::absolute(&name).map_err(failed)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connect = || {
        let connection = Connection::open_with_flags(format!("file://{}{unused}", name.display()), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF;")?;
        Ok(connection)
    };
    connect().map(Some).map_err(StoreError::sqlite(path, "cannot open it for reading"))
}

/// Whether this version can use the database, as far as its number says; one that is not there can be made. Blocks.
///
/// # Errors
/// [`StoreError::Newer`]; or the database cannot be read.
pub fn refuse_newer(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(DATABASE_FILE);
    let Some(connection) = open(&path)? else { return Ok(()) };
    known_version(&connection, path).map(drop)
}

/// The number of its schema.
fn known_version(connection: &Connection, path: PathBuf) -> Result<u32, StoreError> {
    let read = connection.pragma_query_value(None, "user_version", |row| row.get(0));
    let found: u32 = read.map_err(StoreError::sqlite(&path, "cannot look into it"))?;
    let known = MIGRATIONS.len();
    if usize::try_from(found).unwrap_or(usize::MAX) > known {
        Err(StoreError::Newer { path, found, known })
    } else {
        Ok(found)
    }
}

fn look(dir: &Path, options: &StoreOptions) -> Result<Option<(Inspection, Connection)>, StoreError> {
    let path = dir.join(DATABASE_FILE);
    let Some(connection) = open(&path)? else { return Ok(None) };
    let failed = StoreError::sqlite(&path, "cannot look into it");
    let found = known_version(&connection, path.clone())?;
    let used_bytes = used_bytes(&connection).map_err(&failed)?;
    let mut inspection = Inspection {
        soundness: Soundness::Unchecked,
        is_suspect: dir.join(SUSPICION_FILE).exists(),
        put_aside: put_aside(dir),
        rows: 0,
        runs: 0,
        unacknowledged: 0,
        used_bytes,
        budget_bytes: budget(dir, options, used_bytes)?,
        hours_left: None,
    };
    // Made by nobody yet: an empty file, as it is in the first moment of the first start.
    if found > 0 {
        measure(&connection, options, &mut inspection).map_err(&failed)?;
    }
    Ok(Some((inspection, connection)))
}

/// As much as the writer allows itself.
fn budget(dir: &Path, options: &StoreOptions, used_bytes: u64) -> Result<u64, StoreError> {
    if let Some(bytes) = options.max_bytes {
        return Ok(bytes.max(MIN_BYTES));
    }
    let failed = |source| StoreError::Directory { path: dir.to_owned(), doing: "cannot ask for its size", source };
    let space = statvfs(dir).map_err(|errno| failed(errno.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(used_bytes);
    Ok(DEFAULT_BUDGET.min(free / 10).max(MIN_BYTES))
}

fn put_aside(dir: &Path) -> Vec<PathBuf> {
    let prefix = format!("{DATABASE_FILE}.corrupt-");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_one = |name: &str| name.starts_with(&prefix) && !name.ends_with("-wal") && !name.ends_with("-shm");
    let mut found: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    Ok(u64::try_from(pages).unwrap_or(0).saturating_mul(PAGE_BYTES))
}

fn measure(connection: &Connection, options: &StoreOptions, found: &mut Inspection) -> rusqlite::Result<()> {
    let runs: i64 = connection.query_row("SELECT count(*) FROM epoch", [], |row| row.get(0))?;
    found.runs = u64::try_from(runs).unwrap_or(0);
    let sql = "SELECT ifnull((SELECT min(seq) FROM reading), (SELECT min(seq) FROM event))";
    let first: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    let Some((first, newest)) = first.zip(newest_up_to(connection, Seq(u64::MAX))?) else { return Ok(()) };
    let (first, (newest, newest_at, _)) = (seq_of(first), newest);
    let count = |after: Seq| newest.0.saturating_sub(after.0);
    found.rows = count(Seq(first.0.saturating_sub(1)));

    let mut statement = connection.prepare("SELECT lane, seq FROM cursor")?;
    let cursors: BTreeMap<String, Seq> =
        statement.query_map([], |row| Ok((row.get(0)?, seq_of(row.get(1)?))))?.collect::<rusqlite::Result<_>>()?;
    let places = options.holding_lanes.iter().map(|lane| cursors.get(lane).copied().unwrap_or(Seq::ZERO));
    let passed = places.min().unwrap_or(newest);
    found.unacknowledged = count(passed.max(Seq(first.0.saturating_sub(1))));

    // Monotonic times are comparable inside one run.
    let run: Option<i64> = connection
        .query_row("SELECT first_seq FROM epoch ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let from = run.map_or(first, seq_of).max(Seq(newest.0.saturating_sub(LATELY)));
    let Some(began) = first_from(connection, from)? else { return Ok(()) };
    let pace = Pace { rows: count(Seq(from.0.saturating_sub(1))), time: newest_at.since(began) };
    found.hours_left = pace.hours_left(found);
    Ok(())
}

/// How fast the log grew.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rows: u64,
    time: Duration,
}

impl Pace {
    fn hours_left(self, found: &Inspection) -> Option<u64> {
        if self.time < SHORTEST || found.rows == 0 || self.rows == 0 {
            return None;
        }
        let bytes_a_row = (found.used_bytes / found.rows).max(1);
        let free = found.budget_bytes.saturating_sub(found.unacknowledged.saturating_mul(bytes_a_row));
        let seconds =
            u128::from(free) * self.time.as_millis() / (u128::from(self.rows) * u128::from(bytes_a_row)) / 1000;
        u64::try_from(seconds / 3600).ok()
    }
}

/// The newest event up to a number.
fn newest_up_to(connection: &Connection, through: Seq) -> rusqlite::Result<Option<(Seq, Mono, Wall)>> {
    let sql = "SELECT seq, mono, wall FROM (
        SELECT * FROM (SELECT seq, mono, wall FROM reading WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
        UNION ALL SELECT * FROM (SELECT seq, mono, wall FROM event WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
    ) ORDER BY seq DESC LIMIT 1";
    let row = |row: &rusqlite::Row<'_>| {
        Ok((seq_of(row.get(0)?), Mono(row.get::<_, i64>(1)?.cast_unsigned()), Wall(row.get(2)?)))
    };
    connection.query_row(sql, params![row_id(through)], row).optional()
}

/// When the first event from a number on was published.
fn first_from(connection: &Connection, from: Seq) -> rusqlite::Result<Option<Mono>> {
    let sql = "SELECT mono FROM (
        SELECT * FROM (SELECT seq, mono FROM reading WHERE seq >= ?1 ORDER BY seq LIMIT 1)
        UNION ALL SELECT * FROM (SELECT seq, mono FROM event WHERE seq >= ?1 ORDER BY seq LIMIT 1)
    ) ORDER BY seq LIMIT 1";
    let found = connection.query_row(sql, params![row_id(from)], |row| row.get::<_, i64>(0)).optional()?;
    Ok(found.map(|mono| Mono(mono.cast_unsigned())))
}

/// SQLite's own check of the whole file but the order of indexes.
fn check(connection: &Connection) -> Soundness {
    match connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(word) if word == "ok" => Soundness::Sound,
        Ok(finding) => Soundness::Damaged(finding),
        Err(error) => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted | rusqlite::ErrorCode::DatabaseBusy) => Soundness::Unchecked,
            _ => Soundness::Damaged(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_lock_is_read_from_the_kernels_list() {
        for (line, expected) in [
            ("1: FLOCK  ADVISORY  WRITE 812 b3:02:1234 0 EOF", Some(812)),
            ("1: FLOCK  ADVISORY  WRITE 812 b3:02:1235 0 EOF", None),
            ("1: FLOCK  ADVISORY  WRITE 812 b3:03:1234 0 EOF", None),
            ("2: POSIX  ADVISORY  WRITE 812 b3:02:1234 0 EOF", None),
            ("2: -> FLOCK", None),
            ("", None),
        ] {
            assert_eq!(lock_owner(line, (0xb3, 2), 1234), expected, "{line}");
        }
    }

    #[test]
    fn hours_are_whole_and_what_waits_takes_room() {
        let found = Inspection {
            soundness: Soundness::Sound,
            is_suspect: false,
            put_aside: Vec::new(),
            rows: 100_000,
            runs: 1,
            unacknowledged: 0,
            used_bytes: 10_000_000,
            budget_bytes: 100_000_000,
            hours_left: None,
        };
        // 100 bytes a row, 36,000 rows an hour: 3.6 MB an hour.
        let pace = Pace { rows: 36_000, time: Duration::from_hours(1) };
        assert_eq!(pace.hours_left(&found), Some(27));
        assert_eq!(pace.hours_left(&Inspection { unacknowledged: 100_000, ..found.clone() }), Some(25));
        assert_eq!(pace.hours_left(&Inspection { unacknowledged: 2_000_000, ..found.clone() }), Some(0));
        assert_eq!(Pace { time: Duration::from_secs(59), ..pace }.hours_left(&found), None, "too short to tell");
        assert_eq!(pace.hours_left(&Inspection { rows: 0, ..found }), None);
    }
}
