//! The token secret's strength, and who can read secrets and private keys. Their texts never leave this file.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::{Broker, Config};
use crate::doctor::account::{Account, Refusal};
use crate::doctor::{Area, Finding, Patient, blocking};
use crate::secret::Secret;
use crate::server::jwt::TokenKey;
use crate::server::tls::Identity;
use crate::systemd;
use crate::uplink::access::Password;

/// A random secret of 32 letters has about 24 different ones, one of hexadecimal digits 14.
const LEAST_DIFFERENT: usize = 10;

/// Longest secret that is looked at, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// How good the token secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Strength {
    /// Made at the first start.
    Absent,
    /// A credential, and the service does not run.
    Away,
    Unreadable {
        reason: String,
        is_denied: bool,
    },
    /// Too short, or no secret, in words.
    Refused(String),
    /// Long enough, and of few different letters.
    Monotonous,
    Good,
}

/// A file that only the daemon should read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guarded {
    what: &'static str,
    path: PathBuf,
    /// Its owner, group and permissions; `None`: it is not there or cannot be looked at, which is said elsewhere, or it is a
    /// credential: systemd hands those over with an access list, which shows as the mode of a group.
    mode: Option<(u32, u32, u32)>,
    /// What keeps the daemon's user from it.
    refusal: Option<Refusal>,
}

impl Guarded {
    /// Whether somebody else than the daemon and root can read it: its own group, which is the daemon's alone, is nobody else.
    fn is_open_to_others(&self, account: &Account) -> Option<u32> {
        let (_, gid, mode) = self.mode?;
        let own = if gid == account.gid || gid == 0 { 0o040 } else { 0 };
        (mode & 0o077 & !own != 0).then_some(mode)
    }
}

#[derive(Debug)]
struct Facts {
    secret_file: PathBuf,
    is_credential: bool,
    /// `None`: this bridge issues no tokens.
    strength: Option<Strength>,
    files: Vec<Guarded>,
    account: Account,
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = patient.config else {
        return vec![Finding::skipped(Area::Secrets, "unused", "the configuration, which names the files, has errors")];
    };
    let (secret_file, issues) = (config.secret_file.clone(), !config.server.tokens.only_trusted);
    let (guarded, account) = (secret_files(config), patient.account.clone());
    let facts = blocking(move || {
        let is_credential = systemd::is_credential(&secret_file);
        let strength = issues.then(|| {
            if is_credential && systemd::credentials_are_away() { Strength::Away } else { strength_of(&secret_file) }
        });
        let mode = |path: &Path| {
            let found = (!systemd::is_credential(path)).then(|| fs::metadata(path).ok()).flatten();
            found.map(|found| (found.uid(), found.gid(), found.mode() & 0o777))
        };
        let guard = |(what, path): (_, PathBuf)| {
            let refusal = (!systemd::is_credential(&path)).then(|| account.kept_from(&path)).flatten();
            Guarded { what, mode: mode(&path), refusal, path }
        };
        let files = guarded.into_iter().map(guard).collect();
        Facts { secret_file, is_credential, strength, files, account }
    });
    judge(&facts.await)
}

/// Every file of the configuration that has to stay secret.
pub fn secret_files(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut files = vec![("the token secret", config.secret_file.clone())];
    files.extend(config.broker.iter().flat_map(broker_files));
    if let Some(Identity::Files { key, .. }) = config.server.tls.as_ref().map(|tls| &tls.identity) {
        files.push(("the server's key", key.clone()));
    }
    files
}

/// Those among them that prove this bridge to its broker.
pub(super) fn broker_files(broker: &Broker) -> Vec<(&'static str, PathBuf)> {
    let mut files = Vec::new();
    match &broker.access.password {
        Some(Password::File(file)) => files.push(("the broker's password", file.clone())),
        Some(Password::Made(maker)) => files.push(("the key of the broker's tokens", maker.key_file.clone())),
        None => {}
    }
    files.extend(broker.access.tls.identity.iter().map(|(_, key)| ("the key of the broker's client", key.clone())));
    files
}

fn strength_of(file: &Path) -> Strength {
    let unreadable = |error: io::Error| Strength::Unreadable {
        is_denied: error.kind() == io::ErrorKind::PermissionDenied,
        reason: error.to_string(),
    };
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Strength::Absent,
        Err(error) => return unreadable(error),
        Ok(found) if found.len() > MAX_BYTES => return Strength::Refused("it is longer than any secret".to_owned()),
        Ok(_) => {}
    }
    match fs::read_to_string(file) {
        Ok(text) => judged(&Secret::new(text.trim_end())),
        Err(error) => unreadable(error),
    }
}

fn judged(secret: &Secret) -> Strength {
    if let Err(weak) = TokenKey::new(secret, "doctor", "doctor") {
        return Strength::Refused(weak.to_string());
    }
    let different: BTreeSet<char> = secret.expose().chars().collect();
    if different.len() < LEAST_DIFFERENT { Strength::Monotonous } else { Strength::Good }
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let file = facts.secret_file.display();
    let way = if facts.is_credential {
        "as the head of /usr/share/doc/vitalbridge/examples/credentials.conf says".to_owned()
    } else {
        format!("`sudo rm {file}`")
    };
    let anew = format!(
        "make a new one: {way}, and `sudo systemctl restart vitalbridge`; everybody signs in again, programs need new tokens"
    );
    let mut findings = Vec::new();
    findings.push(match &facts.strength {
        None => Finding::skipped(Area::Secrets, "none", "this bridge issues no tokens of its own"),
        Some(Strength::Absent) => Finding::skipped(Area::Secrets, "absent", "the first start makes the token secret"),
        Some(Strength::Away) => {
            let reason = "the token secret is a credential, which is there while the service runs";
            Finding::skipped(Area::Secrets, "credential", reason)
        }
        Some(Strength::Unreadable { reason, is_denied: true }) => Finding::warning(
            Area::Secrets,
            "unreadable",
            format!("the token secret {file} cannot be read: {reason}"),
            "run this with sudo, or as the user of the daemon",
        ),
        Some(Strength::Unreadable { reason, .. }) => Finding::error(
            Area::Secrets,
            "damaged",
            format!("the token secret {file} cannot be read: {reason}"),
            anew.clone(),
        ),
        Some(Strength::Refused(reason)) => {
            Finding::error(Area::Secrets, "weak", format!("the token secret {file}: {reason}"), anew.clone())
        }
        Some(Strength::Monotonous) => Finding::warning(
            Area::Secrets,
            "monotonous",
            format!("the token secret {file} has fewer than {LEAST_DIFFERENT} different letters: it can be guessed"),
            anew.clone(),
        ),
        Some(Strength::Good) => Finding::ok(Area::Secrets, "good", "the token secret is long and random enough"),
    });
    findings.extend(facts.files.iter().filter_map(|file| {
        let mode = file.is_open_to_others(&facts.account)?;
        let path = file.path.display();
        let is_its_own = file.mode.is_some_and(|(uid, ..)| uid == facts.account.uid);
        // A file of root with 600 could not be read by the daemon any more.
        let closed = if is_its_own {
            format!("`sudo chmod 600 {path}`")
        } else {
            format!("`sudo chown root:{} {path}` and `sudo chmod 640 {path}`", facts.account.own_group())
        };
        Some(Finding::warning(
            Area::Secrets,
            "open",
            format!("other users of this machine can read {}, {path} (mode {mode:o})", file.what),
            format!("{closed}; renew it if others have seen it"),
        ))
    }));
    findings.extend(facts.files.iter().filter_map(|file| {
        let refusal = file.refusal.as_ref()?;
        let (user, closed) = (&facts.account.name, refusal.path.display());
        Some(Finding::error(
            Area::Secrets,
            "denied",
            format!(
                "the daemon's user {user} may not read {}, {}: {closed} has the mode {:o}",
                file.what,
                file.path.display(),
                refusal.mode
            ),
            format!("{}, then `sudo systemctl restart vitalbridge`", refusal.cure(&facts.account)),
        ))
    }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;
    use crate::doctor::Level;

    fn facts(strength: Option<Strength>) -> Facts {
        let account = Account::named("vitalbridge", &[]);
        Facts { secret_file: "/state/token.secret".into(), is_credential: false, strength, files: Vec::new(), account }
    }

    #[test]
    fn each_finding_about_secrets_says_what_to_do() {
        let unreadable = |is_denied| Strength::Unreadable { reason: "no".to_owned(), is_denied };
        for (strength, check, level, advice) in [
            (None, "none", Level::Skipped, ""),
            (Some(Strength::Absent), "absent", Level::Skipped, ""),
            (Some(Strength::Away), "credential", Level::Skipped, ""),
            (Some(unreadable(true)), "unreadable", Level::Warning, "sudo"),
            (Some(unreadable(false)), "damaged", Level::Error, "rm /state/token.secret"),
            (Some(Strength::Refused("it is too short".to_owned())), "weak", Level::Error, "rm /state/token.secret"),
            (Some(Strength::Monotonous), "monotonous", Level::Warning, "rm /state/token.secret"),
            (Some(Strength::Good), "good", Level::Ok, ""),
        ] {
            let found = judge(&facts(strength.clone()));
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].check, found[0].level), (check, level), "{strength:?}");
            assert!(found[0].advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
        let of_systemd = judge(&Facts { is_credential: true, ..facts(Some(Strength::Monotonous)) });
        let advice = of_systemd[0].advice.as_ref().unwrap();
        assert!(advice.contains("credentials.conf") && !advice.contains("rm "), "{advice}");
    }

    #[test]
    fn who_else_can_read_a_secret_is_told_from_the_daemon_which_keeps_its_right() {
        // The user of tests is 999 and its own group 64999, which has no name; 50 is a group of others.
        let (own, group, others) = (999, 64_999, 50);
        for (uid, gid, mode, cure) in [
            (own, group, 0o600, ""),
            (own, group, 0o400, ""),
            // As the package has its own configuration.
            (0, group, 0o640, ""),
            (0, 0, 0o640, ""),
            (own, others, 0o640, "`sudo chmod 600 /k`"),
            (own, group, 0o604, "`sudo chmod 600 /k`"),
            (0, group, 0o644, "`sudo chmod 640 /k`"),
            (0, others, 0o640, "`sudo chown root:64999 /k` and `sudo chmod 640 /k`"),
        ] {
            let files = vec![Guarded {
                what: "the server's key",
                path: "/k".into(),
                mode: Some((uid, gid, mode)),
                refusal: None,
            }];
            let found = judge(&Facts { files, ..facts(Some(Strength::Good)) });
            let open: Vec<_> = found.iter().filter(|one| one.check == "open").collect();
            assert_eq!(open.len(), usize::from(!cure.is_empty()), "{uid} {gid} {mode:o}");
            for one in open {
                assert!(one.level == Level::Warning && one.advice.as_ref().unwrap().contains(cure), "{one:?}");
            }
        }
        let refusal = Refusal { path: "/etc/private".into(), is_folder: true, is_its_own: false, mode: 0o700 };
        let file = Guarded {
            what: "the broker's password",
            path: "/etc/private/p".into(),
            mode: None,
            refusal: Some(refusal),
        };
        let found = judge(&Facts { files: vec![file], ..facts(Some(Strength::Good)) });
        assert_eq!((found[1].check, found[1].level), ("denied", Level::Error));
        assert!(found[1].message.contains("/etc/private has the mode 700"), "{found:?}");
        assert!(found[1].advice.as_ref().unwrap().contains("`sudo chmod 750 /etc/private`"), "{found:?}");
    }

    #[tokio::test]
    async fn without_a_configuration_no_secret_is_looked_for() {
        let found = check(&Patient::without_configuration()).await;
        assert_eq!((found[0].check, found[0].level, found.len()), ("unused", Level::Skipped, 1));
    }

    #[test]
    fn a_secret_is_judged_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token.secret");
        assert_eq!(strength_of(&file), Strength::Absent);
        let good = "a6f0c1d29b8e4753a6f0c1d29b8e47531";
        for (text, expected) in [
            (good, "Good"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Monotonous"),
            ("hunter2", "Refused"),
            ("-----BEGIN PRIVATE KEY----- abcdefghijklmnopqrstuvw", "Refused"),
        ] {
            fs::write(&file, format!("{text}\n")).unwrap();
            let found = strength_of(&file);
            assert!(format!("{found:?}").starts_with(expected), "{text}: {found:?}");
            let shown = format!("{:?}", judge(&facts(Some(found))));
            assert!(!shown.contains(text), "{shown}");
        }
        fs::write(&file, [0xFF, 0xFE]).unwrap();
        assert!(matches!(strength_of(&file), Strength::Unreadable { is_denied: false, .. }));
    }

    #[test]
    fn every_secret_file_of_a_configuration_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("password"), "a password of the broker").unwrap();
        let text = "[mqtt]\nbroker = \"mqtt://b\"\nusername = \"u\"\npassword_file = \"password\"\n";
        let config = Config::parse(text, dir.path(), &Place::default()).unwrap();
        let found = secret_files(&config);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&("the broker's password", dir.path().join("password"))), "{found:?}");
    }
}
