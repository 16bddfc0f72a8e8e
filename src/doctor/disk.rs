//! The file system of the state directory: writable, with room, and the daemon's own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::doctor::account::Account;
use crate::doctor::{Area, Finding, Patient, blocking};

/// Above this the daemon raises an alert, in percent of what is there for users; see [`crate::host`].
const FULL_ABOVE: u64 = 90;

/// Above this it will not be long.
const TIGHT_ABOVE: u64 = 80;

/// SQLite needs files of its own beside the database, the journal needs room too.
const LEAST_FREE: u64 = 200 * 1024 * 1024;

/// File systems of fewer files than this free take no new ones soon.
const LEAST_FILES: u64 = 100;

/// What the file system says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Space {
    /// Used, and available to users, in bytes.
    used: u64,
    available: u64,
    /// Files that can still be made; `None`: the file system has no such limit.
    files: Option<u64>,
    is_read_only: bool,
}

/// The state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Directory {
    /// Made at the first start.
    Absent,
    /// It is a file, or cannot be looked at.
    Unusable(String),
    There {
        uid: u32,
        gid: u32,
        mode: u32,
    },
}

#[derive(Debug)]
struct Facts<'a> {
    path: &'a Path,
    directory: Directory,
    space: Result<Space, String>,
    /// Files in it that the daemon may not use, such as those of a restore that root has made.
    foreign: Vec<String>,
    account: &'a Account,
}

/// Files of the state directory that are looked at; it holds a dozen.
const MAX_FILES: usize = 1000;

/// So many of them are named.
const MAX_NAMED: usize = 3;

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let path = patient.state_dir.clone();
    let account = patient.account.clone();
    let looked = blocking(move || (directory(&path), space(&path), foreign(&path, &account))).await;
    let (directory, space, foreign) = looked;
    judge(&Facts { path: &patient.state_dir, directory, space, foreign, account: &patient.account })
}

fn foreign(path: &Path, account: &Account) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten().take(MAX_FILES);
    let may_not =
        |found: &fs::Metadata| found.is_file() && !account.may_write(found.uid(), found.gid(), found.mode() & 0o777);
    let mut found: Vec<String> = entries
        .filter(|entry| entry.metadata().is_ok_and(|found| may_not(&found)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

fn directory(path: &Path) -> Directory {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Directory::There { uid: found.uid(), gid: found.gid(), mode: found.mode() & 0o777 }
        }
        Ok(_) => Directory::Unusable("it is no directory".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Directory::Absent,
        Err(error) => Directory::Unusable(error.to_string()),
    }
}

/// Of the directory, or of the nearest one above it that is there.
fn space(path: &Path) -> Result<Space, String> {
    let there = path.ancestors().find(|path| path.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let found = statvfs(&there).map_err(|error| error.to_string())?;
    Ok(Space {
        used: found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
        files: (found.f_files > 0).then_some(found.f_favail),
        is_read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = of_directory(facts);
    match &facts.space {
        Ok(space) => findings.push(of_space(facts.path, space)),
        Err(reason) => findings.push(Finding::error(
            Area::Disk,
            "unknown",
            format!("the file system of {} does not say how full it is: {reason}", facts.path.display()),
            "see `sudo dmesg` for errors of the SD card; check it from another machine with `fsck`",
        )),
    }
    findings
}

fn of_directory(facts: &Facts<'_>) -> Vec<Finding> {
    let (path, user) = (facts.path.display(), &facts.account.name);
    match &facts.directory {
        Directory::Absent => {
            vec![Finding::skipped(
                Area::Disk,
                "no_directory",
                format!("{path} is not there yet: the first start makes it"),
            )]
        }
        Directory::Unusable(reason) => vec![Finding::error(
            Area::Disk,
            "directory",
            format!("the state directory {path} cannot be used: {reason}"),
            "run this with sudo; if the same is said then, move what is there away, or set `store.dir` of the configuration",
        )],
        Directory::There { uid, gid, mode } => {
            let mut found = Vec::new();
            if !facts.account.may_write(*uid, *gid, *mode) {
                found.push(Finding::error(
                    Area::Disk,
                    "denied",
                    format!("the daemon's user {user} may not write into {path}"),
                    format!("`sudo chown -R {user}: {path}`, then `sudo systemctl restart vitalbridge`"),
                ));
            }
            if !facts.foreign.is_empty() {
                let names = facts.foreign.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                found.push(Finding::error(
                    Area::Disk,
                    "foreign",
                    format!("{} files in {path} are not the daemon's to use, {user}'s: {names}", facts.foreign.len()),
                    format!("`sudo chown -R {user}: {path}`, then `sudo systemctl restart vitalbridge`"),
                ));
            }
            if mode & 0o077 != 0 {
                found.push(Finding::warning(
                    Area::Disk,
                    "open",
                    format!("other users of this machine can look into {path} (mode {mode:o})"),
                    format!("`sudo chmod 700 {path}`: it holds patients' readings and the token secret"),
                ));
            }
            found
        }
    }
}

fn of_space(path: &Path, space: &Space) -> Finding {
    let Space { used, available, files, is_read_only } = space;
    let path = path.display();
    let percent = used.saturating_mul(100).checked_div(used.saturating_add(*available)).unwrap_or(0);
    let free = available / (1024 * 1024);
    if *is_read_only {
        let advice = "the kernel does that after errors: see `sudo dmesg`; switch off, check the card with `fsck` on another machine, and \
                      replace it if there are errors again. Nothing is stored until then";
        return Finding::error(Area::Disk, "read_only", format!("the file system of {path} is read-only"), advice);
    }
    let room = "`sudo journalctl --vacuum-size=50M`, `sudo apt clean`, or a larger card; `store.max_mib` bounds what the bridge keeps";
    let total = used.saturating_add(*available);
    if used.saturating_mul(100) > total.saturating_mul(FULL_ABOVE) {
        let message = format!("the file system of {path} is full: {percent} % used, {free} MiB free");
        return Finding::error(Area::Disk, "full", message, format!("make room: {room}"));
    }
    if files.is_some_and(|files| files < LEAST_FILES) {
        let message = format!("the file system of {path} takes hardly any more files");
        return Finding::error(
            Area::Disk,
            "no_files",
            message,
            "`df -i` and `sudo du --inodes -d1 /` show where they are: remove some",
        );
    }
    if percent > TIGHT_ABOVE || *available < LEAST_FREE {
        let message = format!("the file system of {path} has little room: {percent} % used, {free} MiB free");
        return Finding::warning(Area::Disk, "tight", message, format!("make room soon: {room}"));
    }
    Finding::ok(Area::Disk, "room", format!("{path}: {percent} % used, {free} MiB free, writable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const MIB: u64 = 1024 * 1024;

    fn space_of(used: u64, available: u64) -> Space {
        Space { used: used * MIB, available: available * MIB, files: Some(100_000), is_read_only: false }
    }

    #[test]
    fn each_finding_about_the_disk_says_what_to_do() {
        let account = Account::named("vitalbridge", &[]);
        let there = |uid, mode| Directory::There { uid, gid: 0, mode };
        let (own, good) = (there(999, 0o700), space_of(1000, 9000));
        for (directory, space, check, level, advice) in [
            (own.clone(), Ok(good.clone()), "room", Level::Ok, ""),
            (own.clone(), Ok(space_of(9001, 999)), "full", Level::Error, "journalctl --vacuum-size"),
            (own.clone(), Ok(space_of(8100, 1900)), "tight", Level::Warning, "store.max_mib"),
            (own.clone(), Ok(space_of(100, 199)), "tight", Level::Warning, "apt clean"),
            (own.clone(), Ok(Space { files: Some(9), ..good.clone() }), "no_files", Level::Error, "df -i"),
            (own.clone(), Ok(Space { files: None, ..good.clone() }), "room", Level::Ok, ""),
            (own.clone(), Ok(Space { is_read_only: true, ..good.clone() }), "read_only", Level::Error, "fsck"),
            (own, Err("I/O error".to_owned()), "unknown", Level::Error, "fsck"),
            (Directory::Absent, Ok(good.clone()), "no_directory", Level::Skipped, ""),
            (
                Directory::Unusable("it is no directory".to_owned()),
                Ok(good.clone()),
                "directory",
                Level::Error,
                "store.dir",
            ),
            (there(0, 0o700), Ok(good.clone()), "denied", Level::Error, "chown -R vitalbridge:"),
            (there(999, 0o755), Ok(good), "open", Level::Warning, "chmod 700"),
        ] {
            let facts =
                Facts { path: Path::new("/var/lib/x"), directory, space, foreign: Vec::new(), account: &account };
            let found = judge(&facts);
            let one = found.iter().find(|one| one.check == check).unwrap_or_else(|| panic!("{check}: {found:?}"));
            assert_eq!(one.level, level, "{one:?}");
            assert!(one.message.contains("/var/lib/x"), "{one:?}");
            assert!(one.advice.as_deref().unwrap_or_default().contains(advice), "{one:?}");
        }
    }

    #[test]
    fn files_of_root_in_the_daemons_directory_are_found_with_who_shall_own_them() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["vitals.db", "token.secret", "lock", "machine"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("folder")).unwrap();
        let (owner, stranger) = (fs::metadata(dir.path()).unwrap().uid(), Account::named("vitalbridge", &[]));
        assert_eq!(foreign(dir.path(), &Account { uid: owner, ..stranger.clone() }), <[String; 0]>::default());
        let foreign = foreign(dir.path(), &stranger);
        assert_eq!(foreign, ["lock", "machine", "token.secret", "vitals.db"]);
        let there = Directory::There { uid: 999, gid: 0, mode: 0o700 };
        let facts =
            Facts { path: dir.path(), directory: there, space: Err(String::new()), foreign, account: &stranger };
        let found = judge(&facts);
        assert_eq!((found[0].check, found[0].level), ("foreign", Level::Error));
        assert!(found[0].message.contains("4 files in") && found[0].message.contains("lock, machine, token.secret"));
        assert!(found[0].advice.as_ref().unwrap().contains("sudo chown -R vitalbridge: "), "{found:?}");
    }

    #[test]
    fn a_directory_and_its_space_are_what_the_system_says() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(directory(dir.path()), Directory::There { mode: 0o750, .. }));
        assert_eq!(directory(&dir.path().join("nothing")), Directory::Absent);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(directory(&dir.path().join("file")), Directory::Unusable(_)));
        let found = space(&dir.path().join("not/there/yet")).unwrap();
        assert!(found.available > 0 && !found.is_read_only, "{found:?}");
    }
}
