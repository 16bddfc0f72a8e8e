//! Tokens that are not taken any more: by their own name (`jti`), or all that a user had. A file of the state directory,
//! so that it outlives the daemon and the command line can write it too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
use crate::event::Actor;
use crate::server::auth::Rights;
use crate::server::codes::write_private;
use crate::server::jwt::{LEEWAY_SECONDS, MAX_TOKEN_SECONDS};

/// Revocations that are remembered at once; one more is refused. Each is forgotten after [`KEPT_SECONDS`].
pub const MAX_REVOCATIONS: usize = 10_000;

/// No token lives longer, so no revocation has to.
pub const KEPT_SECONDS: i64 = MAX_TOKEN_SECONDS + 2 * LEEWAY_SECONDS;

/// Longest `jti` or user in bytes: a whole token has 4 KiB.
pub const MAX_NAME_BYTES: usize = 1024;

/// The file in the state directory.
const FILE: &str = "revoked.json";

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The token of this name.
    Jti(String),
    /// Every token of this user that was issued until then.
    User(String),
    /// Every token that was issued until then: the file was damaged, and nobody knows what stood in it.
    Everybody,
}

impl Whose {
    /// For people and the audit trail.
    pub fn describe(&self) -> String {
        match self {
            Self::Jti(jti) => format!("jti {jti}"),
            Self::User(user) => format!("user {user}"),
            Self::Everybody => "everybody".to_owned(),
        }
    }
}

/// One revocation as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What is revoked.
    pub whose: Whose,
    /// When, in seconds since 1970.
    pub at: i64,
    /// Who did it.
    pub by: String,
    /// From where, if over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The audit trail has it.
    pub is_audited: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    revocations: Vec<Revocation>,
}

/// What is revoked now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    tokens: BTreeMap<String, i64>,
    users: BTreeMap<String, i64>,
    everybody: Option<i64>,
}

impl Revocations {
    fn of(kept: &[Revocation]) -> Self {
        let mut revoked = Self::default();
        for Revocation { whose, at, .. } in kept {
            match whose {
                Whose::Jti(jti) => _ = revoked.tokens.insert(jti.clone(), *at),
                Whose::User(user) => {
                    let newest = revoked.users.entry(user.clone()).or_insert(*at);
                    *newest = (*newest).max(*at);
                }
                Whose::Everybody => revoked.everybody = revoked.everybody.max(Some(*at)),
            }
        }
        revoked
    }

    /// True if these rights come from a token that was revoked.
    pub fn forbid(&self, rights: &Rights) -> bool {
        if rights.jti.as_ref().is_some_and(|jti| self.tokens.contains_key(jti)) {
            return true;
        }
        // Another clock may run before ours by the leeway. Whose token does not say when it was issued had it before.
        let leeway = if rights.is_foreign { LEEWAY_SECONDS } else { 0 };
        let until = [self.users.get(&rights.user).copied(), self.everybody].into_iter().flatten().max();
        until.is_some_and(|until| rights.issued.is_none_or(|issued| issued <= until.saturating_add(leeway)))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.users.len() + usize::from(self.everybody.is_some())
    }

    /// True if nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why something was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum NotRevoked {
    /// No name, or a longer one than any token can have.
    #[error("what is revoked has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// [`MAX_REVOCATIONS`] are remembered.
    #[error(
        "{MAX_REVOCATIONS} revocations are remembered already, and each for a day: make a new token secret instead"
    )]
    TooMany,
    /// The file system.
    #[error("cannot keep it: {0}")]
    Io(#[from] io::Error),
}

/// Tells one content of the file from the next: it is never written in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u64, u64, i64, i64);

/// The file. Whoever writes it holds a lock on its directory, so that the daemon and the command line do not lose what
/// the other has written.
#[derive(Debug, Clone)]
pub struct RevocationFile {
    state: PathBuf,
}

impl RevocationFile {
    /// The one of this state directory.
    pub const fn new(state: PathBuf) -> Self {
        Self { state }
    }

    fn path(&self) -> PathBuf {
        self.state.join(FILE)
    }

    /// Which content the file has; `None`: there is none.
    pub fn version(&self) -> Option<Version> {
        let found = std::fs::metadata(self.path()).ok()?;
        Some(Version(found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    }

    /// What is revoked. A file that cannot be read revokes everything that was issued until now, and is put aside.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, now: Wall) -> io::Result<Revocations> {
        let lock = self.lock()?;
        let kept = self.kept(now)?;
        drop(lock);
        Ok(Revocations::of(&kept))
    }

    /// Revokes.
    ///
    /// # Errors
    /// There is no room, or the file cannot be written; nothing is revoked then.
    pub fn revoke(&self, whose: Whose, by: impl Into<Actor>, now: Wall) -> Result<Revocations, NotRevoked> {
        let Actor { user, address } = by.into();
        let (Whose::Jti(name) | Whose::User(name)) = &whose else { return Err(NotRevoked::Name) };
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(NotRevoked::Name);
        }
        let lock = self.lock()?;
        let mut kept = self.kept(now)?;
        kept.retain(|known| known.whose != whose || !known.is_audited);
        if kept.len() >= MAX_REVOCATIONS {
            return Err(NotRevoked::TooMany);
        }
        kept.push(Revocation { whose, at: now.as_secs(), by: user, address, is_audited: false });
        self.write(&kept)?;
        drop(lock);
        Ok(Revocations::of(&kept))
    }

    /// What is revoked, and of that what the audit trail does not have yet.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn unaudited(&self, now: Wall) -> io::Result<(Vec<Revocation>, Revocations)> {
        let lock = self.lock()?;
        let kept = self.kept(now)?;
        drop(lock);
        let revoked = Revocations::of(&kept);
        Ok((kept.into_iter().filter(|known| !known.is_audited).collect(), revoked))
    }

    /// The audit trail has these on disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn set_audited(&self, rows: &[Revocation], now: Wall) -> io::Result<()> {
        let lock = self.lock()?;
        let mut kept = self.kept(now)?;
        for known in kept.iter_mut().filter(|known| rows.contains(known)) {
            known.is_audited = true;
        }
        self.write(&kept)?;
        drop(lock);
        Ok(())
    }

    /// Held until it is dropped. The directory itself is locked, because its owner and root can both open it.
    fn lock(&self) -> io::Result<File> {
        let directory = File::open(&self.state)?;
        flock(&directory, FlockOperation::LockExclusive)?;
        Ok(directory)
    }

    /// What the file has and is not yet to be forgotten; under the lock.
    fn kept(&self, now: Wall) -> io::Result<Vec<Revocation>> {
        let text = match std::fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(error),
        };
        let Ok(Kept { mut revocations }) = serde_json::from_str(&text) else {
            std::fs::rename(self.path(), self.state.join("revoked.damaged"))?;
            let by = crate::event::AuditEvent::BRIDGE.to_owned();
            let kept =
                vec![Revocation { whose: Whose::Everybody, at: now.as_secs(), by, address: None, is_audited: false }];
            self.write(&kept)?;
            return Ok(kept);
        };
        // A clock that is set back forgets nothing too early.
        revocations.retain(|known| now.as_secs() <= known.at.saturating_add(KEPT_SECONDS));
        Ok(revocations)
    }

    fn write(&self, kept: &[Revocation]) -> io::Result<()> {
        let text = serde_json::to_string(&Kept { revocations: kept.to_vec() }).map_err(io::Error::other)?;
        write_private(&self.path(), &text)
    }
}

/// The state directory's file, for messages.
pub fn file_in(state: &Path) -> PathBuf {
    state.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::Role;
    use crate::server::jwt::Claims;

    const NOW: Wall = Wall(1_800_000_000_000);

    fn later(seconds: i64) -> Wall {
        Wall(NOW.0 + seconds * 1000)
    }

    fn rights(user: &str, jti: Option<&str>, iat: Option<i64>) -> Rights {
        let (role, exp, jti) = (Role::Nurse, NOW.as_secs() + 3600, jti.map(str::to_owned));
        Rights::from_claims(&Claims { sub: user.into(), role, caps: None, jti, iat, nbf: None, exp })
    }

    fn file() -> (tempfile::TempDir, RevocationFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = RevocationFile::new(dir.path().to_owned());
        (dir, file)
    }

    #[test]
    fn a_token_is_revoked_by_its_name_and_a_user_with_all_tokens_until_then() {
        let (_dir, file) = file();
        let now = NOW.as_secs();
        assert!(file.read(NOW).unwrap().is_empty());
        file.revoke(Whose::Jti("a".into()), "admin", NOW).unwrap();
        let revoked = file.revoke(Whose::User("lena".into()), "admin", NOW).unwrap();
        for (user, jti, iat, expected) in [
            ("otto", Some("a"), Some(now), true),
            ("otto", Some("a"), Some(now + 100), true),
            ("otto", Some("b"), Some(now), false),
            ("otto", None, None, false),
            ("lena", Some("b"), Some(now - 100), true),
            ("lena", None, Some(now), true),
            ("lena", None, None, true),
            ("lena", None, Some(now + 1), false),
        ] {
            assert_eq!(revoked.forbid(&rights(user, jti, iat)), expected, "{user} {jti:?} {iat:?}");
        }
        let foreign = |iat| {
            let mut rights = rights("lena", None, Some(iat));
            rights.is_foreign = true;
            rights
        };
        assert!(revoked.forbid(&foreign(now + LEEWAY_SECONDS)) && !revoked.forbid(&foreign(now + LEEWAY_SECONDS + 1)));
        let version = file.version();
        assert_eq!((file.read(NOW).unwrap(), file.version()), (revoked, version), "it is on disk");
    }

    #[test]
    fn a_revocation_is_forgotten_when_no_token_can_be_left() {
        let (_dir, file) = file();
        file.revoke(Whose::Jti("a".into()), "admin", NOW).unwrap();
        let last = later(MAX_TOKEN_SECONDS + 2 * LEEWAY_SECONDS);
        assert_eq!(file.read(last).unwrap().len(), 1);
        assert!(file.read(Wall(last.0 + 1000)).unwrap().is_empty());
    }

    #[test]
    fn what_the_audit_trail_has_on_disk_is_not_told_again() {
        let (_dir, file) = file();
        file.revoke(Whose::User("lena".into()), "command-line", NOW).unwrap();
        let (rows, revoked) = file.unaudited(NOW).unwrap();
        assert_eq!((rows.len(), rows[0].by.as_str(), revoked.len()), (1, "command-line", 1));
        file.revoke(Whose::Jti("a".into()), "admin", NOW).unwrap();
        file.set_audited(&rows, NOW).unwrap();
        let (rows, revoked) = file.unaudited(NOW).unwrap();
        assert_eq!((rows.len(), rows[0].by.as_str(), revoked.len()), (1, "admin", 2));
    }

    #[test]
    fn a_damaged_file_revokes_everybody_and_is_not_lost() {
        let (dir, file) = file();
        for damage in ["{\"revocations\":[{", "\u{0}"] {
            std::fs::write(file_in(dir.path()), damage).unwrap();
            let revoked = file.read(NOW).unwrap();
            assert!(revoked.forbid(&rights("anybody", None, Some(NOW.as_secs()))), "{damage}");
            assert!(!revoked.forbid(&rights("anybody", None, Some(NOW.as_secs() + 1))));
            assert_eq!(std::fs::read_to_string(dir.path().join("revoked.damaged")).unwrap(), damage);
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered_and_to_a_name() {
        let (_dir, file) = file();
        let full: Vec<Revocation> = (0..MAX_REVOCATIONS)
            .map(|number| Revocation {
                whose: Whose::Jti(number.to_string()),
                at: NOW.as_secs(),
                by: "admin".into(),
                address: None,
                is_audited: true,
            })
            .collect();
        file.write(&full).unwrap();
        let refused = file.revoke(Whose::Jti("x".into()), "admin", NOW).unwrap_err();
        assert!(matches!(refused, NotRevoked::TooMany));
        assert!(file.revoke(Whose::Jti("7".into()), "admin", NOW).is_ok(), "a known one needs no room");
        for name in [String::new(), "x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(matches!(file.revoke(Whose::User(name), "admin", NOW), Err(NotRevoked::Name)));
        }
    }
}
