//! The configuration: every problem and warning of it, broken profiles, and sources that will measure nothing.

use std::path::Path;

use crate::config::{Config, ConfigError, Devices};
use crate::doctor::account::Account;
use crate::doctor::{Area, Finding};
use crate::document::Problem;
use crate::sources::SourceKind;

const AREA: Area = Area::Configuration;

/// The file, the folder of profiles or the rules, where the daemon's user may not read them though who asks may.
pub(super) fn denied(file: &Path, config: Option<&Config>, account: &Account) -> Vec<Finding> {
    let rules = config.and_then(|config| config.rules_file.as_deref());
    let files = std::iter::once(file).chain(rules);
    let of_file = |file: &Path| {
        let refusal = account.kept_from(file)?;
        let message = format!(
            "the daemon's user {} may not read {}: {} has the mode {:o}",
            account.name,
            file.display(),
            refusal.path.display(),
            refusal.mode
        );
        let advice = format!("{}, then `sudo systemctl restart vitalbridge`", refusal.cure(account));
        Some(Finding::error(AREA, "denied", message, advice))
    };
    files.filter_map(of_file).collect()
}

pub(super) fn judge(loaded: &Result<Config, ConfigError>, devices: &Devices) -> Vec<Finding> {
    let mut findings = Vec::new();
    let warning = |one: &Problem| {
        let advice = "if it is not meant so, change that line; `sudo vitalbridge check` shows what is then in force";
        Finding::warning(AREA, "doubtful", one.to_string(), advice)
    };
    let credential = |one: &Problem| {
        let advice = "start the service, `sudo systemctl start vitalbridge`, and run this again";
        Finding::warning(AREA, "credential", one.to_string(), advice)
    };
    match loaded {
        Err(ConfigError::Unreadable { file, error }) => {
            let advice = match error.kind() {
                std::io::ErrorKind::NotFound => {
                    "write it (the package brings an example in /usr/share/doc/vitalbridge), or name yours with --config"
                }
                std::io::ErrorKind::PermissionDenied => "run this with sudo, or as the user of the daemon",
                _ => "see that it is a text file on a disk that can be read",
            };
            findings.push(Finding::error(
                AREA,
                "unreadable",
                format!("cannot read {}: {error}", file.display()),
                advice,
            ));
        }
        Err(ConfigError::Problems { file, problems, warnings }) => {
            let advice = format!(
                "correct {} and run `sudo vitalbridge check`; the daemon does not start with it (exit code 78)",
                file.display()
            );
            let found = problems.as_slice().iter();
            findings.extend(found.map(|one| Finding::error(AREA, "wrong", one.to_string(), advice.clone())));
            findings.extend(warnings.as_slice().iter().map(warning));
        }
        Ok(config) => {
            let away = config.credentials_away.as_slice();
            findings.extend(away.iter().map(credential));
            findings.extend(config.warnings.as_slice().iter().filter(|one| !away.contains(one)).map(warning));
            findings.extend(sources(config));
        }
    }
    findings.extend(devices.problems().into_iter().map(|problem| {
        let advice =
            "correct it (`sudo vitalbridge profile check FILE`); sources that name it measure nothing until then";
        Finding::error(AREA, "profile", problem, advice)
    }));
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, "right", "no problem was found"));
    }
    findings
}

fn sources(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.sources.is_empty() {
        let advice = "add a [[source]]: `sudo vitalbridge scan` prints the lines of Bluetooth sensors, docs/devices.md has those of \
                      monitors";
        findings.push(Finding::warning(AREA, "no_source", "there is no source: nothing is measured", advice));
    }
    for source in &config.sources {
        if let SourceKind::Unusable { reason } = &source.kind {
            let advice = "correct its lines and restart the daemon; the other sources work meanwhile";
            let message = format!("the source {} measures nothing: {reason}", source.id);
            findings.push(Finding::error(AREA, "source", message, advice));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    /// What a file with this text, if there is one, and its directory of profiles are found to be.
    fn found(text: Option<&str>, profile: Option<&str>) -> Vec<Finding> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        if let Some(profile) = profile {
            std::fs::create_dir(dir.path().join("devices")).unwrap();
            std::fs::write(dir.path().join("devices/mine.toml"), profile).unwrap();
        }
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let (loaded, devices) = Config::look(&file, &Place::default());
        judge(&loaded, &devices)
    }

    #[test]
    fn each_finding_of_a_configuration_says_what_to_do() {
        let good = "[profiles]\ndir = \"devices\"\n[[patient]]\nid = \"P-1\"\n[[source]]\nid = \"s\"\nkind = \"ble\"\n\
                    address = \"C0:FF:EE:00:00:01\"\npatient = \"P-1\"\n";
        let secret = "[auth]\nsecret_file = \"credential:token.secret\"\n";
        let unusable = good
            .replace("kind = \"ble\"", "kind = \"serial\"\nport = \"tcp://a:1\"\nprofile = \"mine\"")
            .replace("address = \"C0:FF:EE:00:00:01\"\n", "");
        let whole = crate::profile::built_in_text("nonin-df8").unwrap().replace("id = \"nonin-df8\"", "id = \"mine\"");
        for (text, profile, check, words, advice) in [
            (None, None, "unreadable", "cannot read", "--config"),
            (Some("[server]\nlisten = 5\n"), None, "wrong", "line 2", "vitalbridge check"),
            (Some("[server]\nlisten = \"0.0.0.0:8080\"\n"), None, "doubtful", "there is no TLS", "change that line"),
            (Some(""), None, "no_source", "nothing is measured", "vitalbridge scan"),
            (Some(secret), None, "credential", "has not been looked at", "systemctl start vitalbridge"),
            (Some(good), Some("schema = 1\n"), "profile", "mine.toml", "vitalbridge profile check"),
            (Some(&unusable), Some("schema = 1\n"), "source", "the source s measures nothing", "restart the daemon"),
            (Some(good), Some(&whole), "right", "no problem", ""),
        ] {
            let all = found(text, profile);
            let one = all.iter().find(|one| one.check == check).unwrap_or_else(|| panic!("{check}: {all:?}"));
            assert!(one.message.contains(words), "{check}: {one:?}");
            assert!(one.advice.as_deref().unwrap_or_default().contains(advice), "{check}: {one:?}");
        }
        assert_eq!(found(Some(good), Some(&whole)).len(), 1, "a good one has no other finding");
    }

    #[test]
    fn what_root_reads_and_the_daemon_may_not_is_an_error_with_its_cure() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("vitalbridge.toml");
        std::fs::write(&file, "").unwrap();
        let account = Account::named("vitalbridge", &[]);
        for (mode, count) in [(0o600, 1), (0o644, 0)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = denied(&file, None, &account);
            assert_eq!(found.len(), count, "{mode:o}: {found:?}");
            for one in found {
                assert_eq!((one.check, one.level), ("denied", crate::doctor::Level::Error));
                assert!(
                    one.message.contains("vitalbridge may not read") && one.message.contains("mode 600"),
                    "{one:?}"
                );
                assert!(one.advice.unwrap().contains("`sudo chmod 640 "), "what to do");
            }
        }
    }

    #[test]
    fn who_may_not_read_it_is_told_to_use_sudo() {
        let error = std::io::ErrorKind::PermissionDenied.into();
        let refused = Err(ConfigError::Unreadable { file: Path::new("/etc/x").to_owned(), error });
        let found = judge(&refused, &Devices::default());
        assert!(found[0].advice.as_ref().unwrap().contains("sudo"), "{found:?}");
    }
}
