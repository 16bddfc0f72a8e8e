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

/// The file in the state directory that holds the digest of the code that was made last.
const FILE: &str = "sign-in.json";

/// What is stored of a code: never the code itself.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    sha256: String,
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

/// Makes a code that a daemon with this state directory takes once, within ten minutes. The previous one ends.
///
/// # Errors
/// The directory cannot be written.
pub fn new_code(state: &Path, user: &str, role: Role, now: Wall) -> io::Result<Secret> {
    let code = random_code()?;
    let expires_ms = now.0.saturating_add(CODE_LIFE_MS);
    let stored = Stored { sha256: sha256(code.expose()), expires_ms, role, user: user.to_owned() };
    let text = serde_json::to_string(&stored).map_err(io::Error::other)?;
    write_private(&state.join(FILE), &text)?;
    Ok(code)
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
                let path = state.join(FILE);
                let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => REFUSED.to_owned(),
                    _ => format!("the daemon cannot read {}: {error}", path.display()),
                })?;
                let stored: Stored = serde_json::from_str(&text).map_err(|_| REFUSED.to_owned())?;
                if stored.sha256 != sha256(code) || now.0 > stored.expires_ms {
                    return Err(REFUSED.to_owned());
                }
                std::fs::remove_file(&path)
                    .map_err(|error| format!("{} cannot be used up: {error}", path.display()))?;
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
    fn a_file_that_the_daemon_cannot_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::Directory(dir.path().to_owned());
        let nothing_there = codes.redeem("c0de", true, NOW).unwrap_err();
        assert!(nothing_there.contains("wrong, used or too old"), "{nothing_there}");
        // Also root cannot read a directory as a file.
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        let unreadable = codes.redeem("c0de", true, NOW).unwrap_err();
        assert!(unreadable.contains("cannot read") && unreadable.contains(FILE), "{unreadable}");
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
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!std::fs::read_to_string(&path).unwrap().contains(code.expose()));
    }
}
