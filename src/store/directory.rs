//! The state directory: made private, proved writable, and held by one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock, statvfs};
use rustix::io::Errno;
use tokio::sync::Notify;
use tracing::warn;

use super::StoreError;
use super::inspect::{self, Holder};
use super::look::Owner;
use crate::clock::Stamp;

/// Name of the file whose lock says that a daemon is using the directory.
pub(super) const LOCK_FILE: &str = "lock";
/// Name of the database file.
pub(super) const DATABASE_FILE: &str = "vitals.db";
/// Name of the file that says the database met damage while it was in use.
pub(super) const SUSPICION_FILE: &str = "vitals.db.suspect";
/// Name of the database that takes the place of a damaged one, while it is being filled.
const REPLACEMENT_FILE: &str = "vitals.db.salvage";
/// What the names of damaged databases that were moved aside begin with.
const ASIDE: &str = "vitals.db.corrupt-";
/// Name of a file that only takes room: a start on a full disk gives it up, and SQLite has what it needs to open the
/// database.
const RESERVE_FILE: &str = "reserve";
/// Twice what SQLite's shared memory (32 KiB) and the rows of a start take.
const RESERVE_BYTES: usize = 256 << 10;
/// It is taken where it is at most this part of what is free: on a disk that is nearly full the log comes first.
const RESERVE_PART: u64 = 16;
/// A process number has at most 10 digits; whatever else stands in the lock file is not read.
const MAX_PID_BYTES: u64 = 16;
/// The default budget is at most this: 512 MiB hold about five months of one reading a second.
pub(super) const DEFAULT_BUDGET: u64 = 512 << 20;

/// The directory: while this process owns it, or for looking into it. The lock goes with the last of its holders.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Counts the databases that took the place of a damaged one in this run: who reads opens the file again.
    replaced: AtomicU64,
    /// Calls the writer, because somebody has met damage.
    suspected: Notify,
    /// Keeps the lock. The file itself stays: removing it would let two daemons lock two files of one name. `None`: this
    /// process only looks, and another one may work there.
    lock: Option<File>,
}

impl Directory {
    /// Makes the directory (mode 0700) if it is missing, and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, StoreError> {
        let failed = |doing, source| StoreError::Directory { path: path.to_owned(), doing, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("cannot create it", error))?;
        let file_path = path.join(LOCK_FILE);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file_path)
            .or_else(|error| match error.kind() {
                // Whoever has used it before has left the file, which can be locked on a disk that takes no writes too.
                io::ErrorKind::ReadOnlyFilesystem => File::open(&file_path).map_err(|_| error),
                _ => Err(error),
            });
        let mut file = opened.map_err(|error| failed("cannot write to it", error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(StoreError::InUse { path: path.to_owned(), owner: read_pid(&mut file) });
            }
            Err(errno) => return Err(failed("cannot lock it", errno.into())),
        }
        let written = write_pid(&mut file).or_else(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if release_reserve(path)? => write_pid(&mut file),
            _ => Err(error),
        });
        if let Err(error) = written {
            // The lock tells who works here; the number only makes the refusal of another one plainer.
            warn!(%error, path = %file_path.display(), "cannot write the number of this process");
        }
        Ok(Self { lock: Some(file), ..Self::seen(path) })
    }

    /// Gives the reserve up if the disk is full; true if there is room now that was none before.
    pub(super) fn release_reserve(&self) -> Result<bool, StoreError> {
        if self.free_bytes()? >= u64::try_from(RESERVE_BYTES).unwrap_or(u64::MAX) {
            return Ok(false);
        }
        release_reserve(&self.path)
            .map_err(|error| failed_at(&self.path.join(RESERVE_FILE), "cannot remove it", error))
            .inspect(|released| {
                if *released {
                    warn!("the disk is full: the reserve of the state directory is given up, so that the store opens");
                }
            })
    }

    /// Takes the room for a start on a full disk, unless it is taken. Blocks.
    pub(super) fn make_reserve(&self) {
        let path = self.path.join(RESERVE_FILE);
        let bytes = u64::try_from(RESERVE_BYTES).unwrap_or(u64::MAX);
        // What a crash left of one is none.
        if std::fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
            return;
        }
        match self.free_bytes() {
            Ok(free) if free >= bytes.saturating_mul(RESERVE_PART) => {}
            Ok(_) => return,
            Err(error) => {
                warn!(%error, "there is no reserve for a start on a full disk");
                return;
            }
        }
        // Not zeros, which some file systems keep in no room at all.
        let made = create_private(&path).and_then(|()| {
            let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| {
                file.write_all(&vec![0xA5; RESERVE_BYTES])?;
                file.sync_all()
            });
            written.map_err(|error| failed_at(&path, "cannot write to it", error))
        });
        if let Err(error) = made {
            warn!(%error, "there is no reserve for a start on a full disk");
            // What was written of it takes room that the disk does not have.
            if let Err(error) = remove_if_there(&path) {
                warn!(%error, "half a reserve is left in the state directory");
            }
        }
    }

    /// The directory without owning it: nothing in it is changed.
    pub(super) fn seen(path: &Path) -> Self {
        Self { path: path.to_owned(), replaced: AtomicU64::new(0), suspected: Notify::new(), lock: None }
    }

    /// Whether this process owns it.
    pub(super) const fn is_claimed(&self) -> bool {
        self.lock.is_some()
    }

    /// Who works in it, if anybody does.
    pub(super) fn owner(&self) -> Option<Owner> {
        // Trying the lock would keep out a daemon that starts just then.
        match inspect::holder(&self.path) {
            Ok(Holder::Process(pid)) => Some(Owner { pid: Some(pid) }),
            Ok(Holder::Nobody) | Err(_) => None,
        }
    }

    /// Bytes of its file system that are free for this process.
    pub(super) fn free_bytes(&self) -> Result<u64, StoreError> {
        let failed =
            |source| StoreError::Directory { path: self.path.clone(), doing: "cannot ask for its free space", source };
        let space = statvfs(&self.path).map_err(|errno| failed(errno.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Where the database lies.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// Where damage of the database is noted for the next start.
    pub(super) fn suspicion(&self) -> Suspicion {
        Suspicion(self.path.join(SUSPICION_FILE))
    }

    /// Makes an empty database file that only its owner may read; SQLite gives its other files the same mode.
    pub(super) fn create_database(&self) -> Result<(), StoreError> {
        create_private(&self.database())
    }

    /// Somebody has met damage: it is noted for the next start, and the writer looks at the database.
    pub(super) fn suspect(&self) {
        self.suspected.notify_one();
        // A disk that takes no note now is looked at by the writer all the same.
        if let Err(error) = self.suspicion().note() {
            warn!(%error, "damage of the database cannot be noted for the next start");
        }
    }

    /// Returns once somebody has met damage since the last call.
    pub(super) async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// How many databases were replaced, or were opened anew for fear of damage, in this run.
    pub(super) fn generation(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// Makes all who read open the file again.
    pub(super) fn renew(&self) {
        self.replaced.fetch_add(1, Ordering::AcqRel);
    }

    /// An empty file for the database that will take the place of a damaged one. What an earlier try left is removed.
    pub(super) fn begin_replacement(&self) -> Result<PathBuf, StoreError> {
        self.drop_replacement()?;
        let path = self.path.join(REPLACEMENT_FILE);
        create_private(&path)?;
        Ok(path)
    }

    /// Removes a database that was not completed; it may be what fills the disk.
    pub(super) fn drop_replacement(&self) -> Result<(), StoreError> {
        let path = self.path.join(REPLACEMENT_FILE);
        for file in companions(&path).into_iter().chain([path]) {
            remove_if_there(&file).map_err(|error| failed_at(&file, "cannot remove it", error))?;
        }
        Ok(())
    }

    /// Puts the complete replacement in its place, if no database is there: also at a start after a crash between the two
    /// renames. The replacement of a database that is still there was not completed.
    pub(super) fn finish_replacement(&self) -> Result<(), StoreError> {
        let (from, to) = (self.path.join(REPLACEMENT_FILE), self.database());
        if to.exists() || !from.exists() {
            return self.drop_replacement();
        }
        // A log of the database that was moved aside would be taken for one of the new.
        if companions(&to).iter().any(|companion| companion.exists())
            && let Some(aside) = self.aside()?.pop()
        {
            self.move_companions(&self.path.join(aside))?;
        }
        for companion in companions(&to) {
            remove_if_there(&companion).map_err(|error| failed_at(&companion, "cannot remove it", error))?;
        }
        std::fs::rename(&from, &to).map_err(|error| failed_at(&from, "cannot move it into place", error))?;
        self.sync()
    }

    /// The names of damaged databases that were moved aside, oldest first.
    fn aside(&self) -> Result<Vec<String>, StoreError> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| failed_at(&self.path, "cannot list it", error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut older: Vec<String> = names
            .filter(|name| name.starts_with(ASIDE) && !name.ends_with("-wal") && !name.ends_with("-shm"))
            .collect();
        older.sort();
        Ok(older)
    }

    /// Moves the database and its companions to `vitals.db.corrupt-<ms since 1970>` and removes older ones but
    /// `kept` - 1. Returns where it lies now.
    pub(super) fn move_aside(&self, now: Stamp, kept: usize) -> Result<PathBuf, StoreError> {
        let failed = failed_at;
        let older = self.aside()?;
        let surplus = older.len().saturating_sub(kept.saturating_sub(1));
        for name in older.iter().take(surplus) {
            let path = self.path.join(name);
            std::fs::remove_file(&path).map_err(|error| failed(&path, "cannot remove it", error))?;
            for companion in companions(&path) {
                remove_if_there(&companion).map_err(|error| failed(&companion, "cannot remove it", error))?;
            }
        }
        let from = self.database();
        // The clock may have been set back since the last one: no older file is written over.
        let mut millis = now.wall.0;
        while self.path.join(format!("{ASIDE}{millis:013}")).exists() {
            millis = millis.saturating_add(1);
        }
        let to = self.path.join(format!("{ASIDE}{millis:013}"));
        // First the database: after a crash the complete replacement takes its place, and its companions follow it then.
        std::fs::rename(&from, &to).map_err(|error| failed(&from, "cannot move it aside", error))?;
        self.move_companions(&to)?;
        Ok(to)
    }

    /// Moves what belongs to the database that is `to` now.
    fn move_companions(&self, to: &Path) -> Result<(), StoreError> {
        for (from, to) in companions(&self.database()).into_iter().zip(companions(to)) {
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed_at(&from, "cannot move it aside", error));
                }
                _ => {}
            }
        }
        self.sync()
    }

    /// What was renamed is so after a power cut too.
    fn sync(&self) -> Result<(), StoreError> {
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed_at(&self.path, "cannot sync it", error))
    }

    /// The budget where none is configured: a tenth of what is free (what the database has already counts as free), or what
    /// the database has.
    pub(super) fn default_budget(&self) -> Result<u64, StoreError> {
        let failed =
            |source| StoreError::Directory { path: self.path.clone(), doing: "cannot ask for its size", source };
        let space = statvfs(&self.path).map_err(|errno| failed(errno.into()))?;
        let used = match std::fs::metadata(self.database()) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(failed(error)),
        };
        Ok(budget(space.f_bavail.saturating_mul(space.f_frsize), used))
    }
}

/// A disk that others have filled is no reason to drop what is stored.
fn budget(free: u64, used: u64) -> u64 {
    DEFAULT_BUDGET.min((free.saturating_add(used) / 10).max(used))
}

/// True if it was there.
fn release_reserve(directory: &Path) -> io::Result<bool> {
    match std::fs::remove_file(directory.join(RESERVE_FILE)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn create_private(path: &Path) -> Result<(), StoreError> {
    let created = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop);
    created.map_err(|error| failed_at(path, "cannot create it", error))
}

fn failed_at(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
    StoreError::Directory { path: path.to_owned(), doing, source }
}

/// A file beside the database which says that the database must be checked before it is used again.
#[derive(Debug)]
pub(super) struct Suspicion(PathBuf);

impl Suspicion {
    /// True if the last run met damage.
    pub(super) fn exists(&self) -> bool {
        self.0.exists()
    }

    /// Notes that this run met damage.
    pub(super) fn note(&self) -> Result<(), StoreError> {
        File::create(&self.0).and_then(|file| file.sync_all()).map_err(|source| self.failed(source))
    }

    /// Of a database that nobody has reason to suspect.
    pub(super) fn none() -> Self {
        Self(PathBuf::new())
    }

    /// Takes the note away, after a check or a salvage.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        remove_if_there(&self.0).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Directory { path: self.0.clone(), doing: "cannot write to it", source }
    }
}

/// The files that SQLite keeps beside a database; they belong to it and move with it.
fn companions(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The process that holds the lock, if it wrote its number.
fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_a_tenth_of_the_disk_and_never_less_than_what_is_stored() {
        for (free, used, expected) in [
            (1 << 40, 0, DEFAULT_BUDGET),
            (1 << 30, 0, (1 << 30) / 10),
            (1 << 30, 1 << 20, ((1 << 30) + (1 << 20)) / 10),
            (0, 200 << 20, 200 << 20),
            (1 << 20, DEFAULT_BUDGET + 1, DEFAULT_BUDGET),
        ] {
            assert_eq!(budget(free, used), expected, "{free} free, {used} used");
        }
    }

    #[test]
    fn a_reserve_that_a_crash_has_left_half_is_made_whole() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::claim(folder.path()).unwrap();
        let reserve = folder.path().join(RESERVE_FILE);
        std::fs::write(&reserve, b"half").unwrap();
        directory.make_reserve();
        assert_eq!(std::fs::metadata(&reserve).unwrap().len(), u64::try_from(RESERVE_BYTES).unwrap());
        assert!(!directory.release_reserve().unwrap(), "this disk has room");
        assert!(reserve.exists());
    }

    #[test]
    fn after_a_crash_between_the_moves_the_log_of_the_old_database_does_not_meet_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::claim(folder.path()).unwrap();
        let aside = folder.path().join("vitals.db.corrupt-1795219200000");
        let wal = companions(&directory.database()).into_iter().next().unwrap();
        for (path, text) in [(&aside, "old"), (&wal, "log of the old"), (&folder.path().join(REPLACEMENT_FILE), "new")]
        {
            std::fs::write(path, text).unwrap();
        }
        directory.finish_replacement().unwrap();
        assert_eq!(std::fs::read_to_string(directory.database()).unwrap(), "new");
        assert!(!wal.exists(), "SQLite would play it into the new one");
        let kept = companions(&aside).into_iter().next().unwrap();
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "log of the old");
    }

    #[test]
    fn a_directory_is_claimed_once_and_the_refusal_names_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/deeper");
        let first = Directory::claim(&path).unwrap();
        let refusal = Directory::claim(&path).unwrap_err().to_string();
        assert!(refusal.contains(&path.display().to_string()), "{refusal}");
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
        drop(first);
        Directory::claim(&path).unwrap();
    }

    #[test]
    fn the_directory_and_the_database_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::claim(&folder.path().join("state")).unwrap();
        directory.create_database().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("state")), 0o700);
        assert_eq!(mode(&directory.database()), 0o600);
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Directory::claim(&file.path().join("state")).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}
