//! Sign-in codes: a short-lived secret in a link, exchanged once for a token.

use std::io;
use std::path::{Path, PathBuf};

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
use crate::secret::Secret;
use crate::server::auth::Role;

/// How long a code can be used.
pub const CODE_LIFE_MS: i64 = 10 * 60 * 1000;

/// Random bytes in a code: too many to guess.
const CODE_BYTES: usize = 16;

/// Files of codes in the state directory begin so; each has the digest of its code in its name, so that a code that is made while
/// another is used up touches no file of it.
const FILE_START: &str = "sign-in-";

/// Codes that one user may have at a time; another ends the oldest. A panel that starts again and again ends nobody else's.
const MAX_CODES_OF_USER: usize = 4;

/// Codes of all users at a time; another ends the oldest.
const MAX_CODES: usize = 64;

/// What is stored of a code, beside its digest: never the code itself.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    expires_ms: i64,
    role: Role,
    user: String,
}

/// Who a code signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// The user.
    pub user: String,
    /// The role.
    pub role: Role,
}

/// Where codes are checked.
#[derive(Debug, Clone)]
pub enum Codes {
    /// One code for all of a demo, from the same machine only.
    Demo(Secret),
    /// Codes of `vitalbridge token code`, one use each, in this state directory.
    Directory(PathBuf),
}

/// A new random code, as lower-case hexadecimal.
///
/// # Errors
/// The system has no random numbers to give.
pub fn random_code() -> io::Result<Secret> {
    Ok(Secret::new(hex(&random_bytes::<CODE_BYTES>()?)))
}

/// Random bytes from the operating system.
///
/// # Errors
/// The system has none to give.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a code that a daemon with this state directory takes once, within ten minutes.
///
/// # Errors
/// The directory cannot be read or written.
pub fn new_code(state: &Path, user: &str, role: Role, now: Wall) -> io::Result<Secret> {
    let code = random_code()?;
    let expires_ms = now.0.saturating_add(CODE_LIFE_MS);
    make_room(state, user, now)?;
    let stored = Stored { expires_ms, role, user: user.to_owned() };
    let text = serde_json::to_string(&stored).map_err(io::Error::other)?;
    write_private(&file_of(state, code.expose()), &text)?;
    Ok(code)
}

fn file_of(state: &Path, code: &str) -> PathBuf {
    state.join(format!("{FILE_START}{}.json", sha256(code)))
}

/// Takes away codes that are over, and the oldest of those that are too many beside another one of this user.
fn make_room(state: &Path, user: &str, now: Wall) -> io::Result<()> {
    let mut alive: Vec<(Stored, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(state)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Not those with another ending, which are being written.
        if !(name.starts_with(FILE_START) && path.extension().is_some_and(|ending| ending == "json")) {
            continue;
        }
        let read = std::fs::read_to_string(&path).ok();
        match read.and_then(|text| serde_json::from_str::<Stored>(&text).ok()) {
            // A time that is further away than any code's was written before the clock was set back.
            Some(stored) if (now.0..=now.0.saturating_add(CODE_LIFE_MS)).contains(&stored.expires_ms) => {
                alive.push((stored, path));
            }
            _ => remove(&path)?,
        }
    }
    alive.sort_by_key(|(stored, _)| std::cmp::Reverse(stored.expires_ms));
    let (mut all, mut of_user) = (0_usize, 0_usize);
    for (stored, path) in alive {
        let is_theirs = stored.user == user;
        // One more is about to be made.
        if all.saturating_add(1) >= MAX_CODES || (is_theirs && of_user.saturating_add(1) >= MAX_CODES_OF_USER) {
            remove(&path)?;
            continue;
        }
        all = all.saturating_add(1);
        of_user = of_user.saturating_add(usize::from(is_theirs));
    }
    Ok(())
}

/// A file that somebody else has used up meanwhile is gone as well.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file that only its owner can read, through a new name, so that no half file is ever seen. What root writes
/// belongs to the owner of the directory: the daemon, which has to read it.
///
/// # Errors
/// Those of the file system.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Gone, or what an interrupted run left.
        _ => {}
    }
    // Always a new file, never through a link: the directory may belong to somebody with fewer rights than ours.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    if rustix::process::geteuid().is_root() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = std::fs::metadata(parent)?;
        fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

impl Codes {
    /// Whom a code signs in. A code of a state directory is used up by this.
    ///
    /// # Errors
    /// A text for the person: wrong, used or too late; or the state directory cannot be read.
    pub fn redeem(&self, code: &str, from_this_machine: bool, now: Wall) -> Result<SignedIn, String> {
        const REFUSED: &str = "this code is wrong, used or too old: make a new one with `vitalbridge token code`";
        match self {
            Self::Demo(_) if !from_this_machine => {
                Err("the demo's code works on the machine it runs on only: use `vitalbridge token issue`".to_owned())
            }
            Self::Demo(ours) => {
                let same = sha256(code) == sha256(ours.expose());
                same.then(|| SignedIn { user: "demo".to_owned(), role: Role::Nurse })
                    .ok_or_else(|| "this is not the code of this demo: take the link it printed".to_owned())
            }
            Self::Directory(state) => {
                let path = file_of(state, code);
                let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => REFUSED.to_owned(),
                    _ => format!("the daemon cannot read {}: {error}", path.display()),
                })?;
                let stored: Stored = serde_json::from_str(&text).map_err(|_| REFUSED.to_owned())?;
                // Of two who bring the same code one takes the file away.
                std::fs::remove_file(&path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => REFUSED.to_owned(),
                    _ => format!("{} cannot be used up: {error}", path.display()),
                })?;
                if now.0 > stored.expires_ms {
                    return Err(REFUSED.to_owned());
                }
                Ok(SignedIn { user: stored.user, role: stored.role })
            }
        }
    }
}

/// Digests are compared, not codes: how far a guess matches a digest says nothing about the code.
fn sha256(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_000_000);

    #[test]
    fn a_code_works_once_and_not_too_late() {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::Directory(dir.path().to_owned());
        assert!(codes.redeem("anything", true, NOW).is_err());

        let code = new_code(dir.path(), "lena", Role::Nurse, NOW).unwrap();
        assert!(codes.redeem("wrong", true, NOW).is_err());
        let signed_in = SignedIn { user: "lena".into(), role: Role::Nurse };
        assert_eq!(codes.redeem(code.expose(), false, NOW), Ok(signed_in));
        assert!(codes.redeem(code.expose(), true, NOW).is_err());

        let code = new_code(dir.path(), "lena", Role::Nurse, NOW).unwrap();
        assert!(codes.redeem(code.expose(), true, Wall(NOW.0 + CODE_LIFE_MS + 1)).is_err());
    }

    #[test]
    fn a_panel_that_asks_again_and_again_ends_nobody_elses_code() {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::Directory(dir.path().to_owned());
        let made = |user: &str, at: i64| new_code(dir.path(), user, Role::Nurse, Wall(NOW.0 + at)).unwrap();
        let nurse = made("lena", 0);
        let panel: Vec<Secret> = (0..300).map(|second| made("kiosk", 1000 * second)).collect();
        let is_taken = |code: &Secret| codes.redeem(code.expose(), true, Wall(NOW.0 + 300_000)).is_ok();
        assert!(is_taken(&nurse), "the nurse's code was ended by the panel's");
        let taken: Vec<usize> = (0..panel.len()).filter(|place| is_taken(&panel[*place])).collect();
        assert_eq!(taken, [296, 297, 298, 299], "the newest of a user");
        // Many users are bounded too, and what is over is taken away.
        for user in 0..100 {
            made(&format!("user-{user}"), 300_000 + user);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), MAX_CODES);
        made("late", 2 * CODE_LIFE_MS);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_the_daemon_cannot_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::Directory(dir.path().to_owned());
        let nothing_there = codes.redeem("c0de", true, NOW).unwrap_err();
        assert!(nothing_there.contains("wrong, used or too old"), "{nothing_there}");
        // Also root cannot read a directory as a file.
        std::fs::create_dir(file_of(dir.path(), "c0de")).unwrap();
        let unreadable = codes.redeem("c0de", true, NOW).unwrap_err();
        assert!(unreadable.contains("cannot read") && unreadable.contains(FILE_START), "{unreadable}");
    }

    #[test]
    fn a_private_file_belongs_to_the_owner_of_its_directory() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let dir = tempfile::tempdir().unwrap();
        // Only root can give the directory away; for anybody else owner and group are their own.
        let given = chown(dir.path(), Some(4711), Some(4712)).is_ok();
        assert_eq!(given, rustix::process::geteuid().is_root());
        let path = dir.path().join("token.secret");
        write_private(&path, "secret").unwrap();
        let (directory, file) = (std::fs::metadata(dir.path()).unwrap(), std::fs::metadata(&path).unwrap());
        assert_eq!((file.uid(), file.gid()), (directory.uid(), directory.gid()));
    }

    #[test]
    fn a_private_file_is_not_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("token.secret"), dir.path().join("victim"));
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, path.with_extension("new")).unwrap();
        write_private(&path, "secret").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
    }

    #[test]
    fn the_demo_code_is_for_this_machine() {
        let codes = Codes::Demo(Secret::new("c0de"));
        assert!(codes.redeem("c0de", true, NOW).is_ok() && codes.redeem("c0de", true, NOW).is_ok());
        assert!(codes.redeem("c0de", false, NOW).is_err());
        assert!(codes.redeem("", true, NOW).is_err());
    }

    #[test]
    fn the_file_is_private_and_holds_no_code() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let code = new_code(dir.path(), "lena", Role::Nurse, NOW).unwrap();
        let path = file_of(dir.path(), code.expose());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains(code.expose()));
    }
}
