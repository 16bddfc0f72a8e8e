//! The database: whether it is sound, and for how many hours it can take what does not reach the broker.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::doctor::{Area, Finding, Patient};
use crate::store::{self, Inspection, Soundness, StoreError};

/// Fewer hours than this are not a weekend: somebody should know.
const FEW_HOURS: u64 = 24;

/// Fewer hours than this are about to be lost.
const LAST_HOURS: u64 = 1;

/// What an inspection gave, and what the configuration wants.
#[derive(Debug)]
struct Facts {
    /// `None`: there is no database yet.
    inspected: Result<Option<Inspection>, StoreError>,
    has_broker: bool,
    /// How long readings shall be kept, in hours.
    retention_hours: u64,
}

pub(super) async fn check(patient: &Patient<'_>, limit: Duration) -> Vec<Finding> {
    let options = patient.config.map(crate::config::Config::store_options).unwrap_or_default();
    let facts = Facts {
        inspected: store::inspect(&patient.state_dir, &options, limit).await,
        has_broker: patient.config.is_some_and(|config| config.broker.is_some()),
        retention_hours: options.retention.as_secs() / 3600,
    };
    judge(&facts, &patient.state_dir)
}

/// Nobody can say whether a daemon uses the state directory.
pub(super) fn cannot_tell(state_dir: &Path, error: &io::Error) -> Finding {
    Finding::warning(
        Area::Store,
        "user_unknown",
        format!("nobody can tell whether a daemon uses {}: {error}", state_dir.display()),
        "run this with sudo, or as the user of the daemon",
    )
}

fn judge(facts: &Facts, state_dir: &Path) -> Vec<Finding> {
    match &facts.inspected {
        Ok(None) => vec![
            Finding::skipped(Area::Store, "absent", "there is no database yet: the first start makes it"),
            Finding::skipped(Area::Buffer, "absent", "there is no database yet"),
        ],
        Err(error) => {
            let reason = "the database cannot be looked into";
            vec![of_error(error), Finding::skipped(Area::Buffer, "unknown", reason)]
        }
        Ok(Some(found)) => {
            let mut findings = of_database(found, state_dir);
            findings.push(buffer(found, facts));
            findings
        }
    }
}

fn of_error(error: &StoreError) -> Finding {
    let is_denied = |error: &StoreError| match error {
        StoreError::Directory { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    };
    if error.is_damage() {
        return damaged(&error.to_string());
    }
    match error {
        StoreError::Newer { .. } => Finding::error(
            Area::Store,
            "newer",
            error.to_string(),
            "install the newer version again; or move the database away, and the daemon begins a new one",
        ),
        _ if is_denied(error) => Finding::warning(
            Area::Store,
            "denied",
            error.to_string(),
            "run this with sudo, or as the user of the daemon",
        ),
        _ => Finding::error(
            Area::Store,
            "unreadable",
            error.to_string(),
            "see `sudo dmesg` for errors of the SD card, and `sudo vitalbridge doctor` as root; replace the card if it has errors",
        ),
    }
}

fn damaged(what: &str) -> Finding {
    Finding::error(
        Area::Store,
        "damaged",
        format!("the database is damaged: {what}"),
        "`sudo systemctl restart vitalbridge`: the start saves what can be read into a new database and keeps the old one beside it; \
         then look for the cause with `sudo dmesg`, and replace the SD card",
    )
}

fn of_database(found: &Inspection, state_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let size = found.used_bytes / (1024 * 1024);
    findings.push(match &found.soundness {
        Soundness::Damaged(what) => damaged(what),
        Soundness::Sound if found.is_suspect => Finding::warning(
            Area::Store,
            "suspect",
            "a run of the daemon met damage, and none is found now",
            "`sudo systemctl restart vitalbridge`: the start checks the database and settles it; watch `sudo dmesg` for errors of the card",
        ),
        Soundness::Sound => {
            let (rows, runs) = (found.rows, found.runs);
            Finding::ok(Area::Store, "sound", format!("the database is sound: {rows} events, {runs} runs, {size} MiB"))
        }
        Soundness::Unchecked => Finding::warning(
            Area::Store,
            "unchecked",
            format!("the check of the database ({size} MiB) did not end in time"),
            "run this again when less is going on; a card that is this slow should be replaced",
        ),
    });
    if !found.put_aside.is_empty() {
        let names: Vec<String> = found.put_aside.iter().map(|path| path.display().to_string()).collect();
        findings.push(Finding::warning(
            Area::Store,
            "put_aside",
            format!("damaged databases were put aside: {}", names.join(", ")),
            format!(
                "what could be read of them was saved; look for the cause with `sudo dmesg`, and remove them with \
                 `sudo sh -c 'rm {}/vitals.db.corrupt-*'` once it is known",
                state_dir.display()
            ),
        ));
    }
    findings
}

fn buffer(found: &Inspection, facts: &Facts) -> Finding {
    let waiting = found.unacknowledged;
    let Some(hours) = found.hours_left else {
        return Finding::skipped(
            Area::Buffer,
            "pace_unknown",
            format!("the last run stored too little to say how long the buffer lasts; {waiting} events wait"),
        );
    };
    let room = "allow more with `store.max_mib` if the disk has room";
    if !facts.has_broker {
        if hours < facts.retention_hours {
            let message = format!(
                "at this pace the database holds {hours} h of readings, and {} h shall be kept",
                facts.retention_hours
            );
            return Finding::warning(
                Area::Buffer,
                "short_of_retention",
                message,
                format!("{room}, or set fewer `store.retention_hours`"),
            );
        }
        return Finding::ok(
            Area::Buffer,
            "enough",
            format!("there is no broker; the database holds {hours} h at this pace"),
        );
    }
    let message = format!("{waiting} events wait for the broker; at this pace there is room for {hours} h more");
    let advice = format!("bring the broker back (see what is said about it here); {room}");
    if hours < LAST_HOURS {
        return Finding::error(
            Area::Buffer,
            "nearly_full",
            format!("{message}, then the oldest readings are lost"),
            advice,
        );
    }
    if hours < FEW_HOURS {
        return Finding::warning(Area::Buffer, "few_hours", message, advice);
    }
    Finding::ok(Area::Buffer, "enough", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn inspection() -> Inspection {
        Inspection {
            soundness: Soundness::Sound,
            is_suspect: false,
            put_aside: Vec::new(),
            rows: 1000,
            runs: 2,
            unacknowledged: 10,
            used_bytes: 3 << 20,
            budget_bytes: 512 << 20,
            hours_left: Some(100),
        }
    }

    fn facts(inspected: Result<Option<Inspection>, StoreError>) -> Facts {
        Facts { inspected, has_broker: true, retention_hours: 24 }
    }

    fn found(facts: &Facts, area: Area) -> Finding {
        judge(facts, Path::new("/state")).into_iter().rfind(|finding| finding.area == area).unwrap()
    }

    #[test]
    fn each_finding_about_the_database_says_what_to_do() {
        let with = |change: fn(&mut Inspection)| {
            let mut inspection = inspection();
            change(&mut inspection);
            Ok(Some(inspection))
        };
        let directory = |kind: io::ErrorKind| {
            Err(StoreError::Directory { path: "/state".into(), doing: "cannot open it", source: kind.into() })
        };
        let newer = Err(StoreError::Newer { path: "/state/vitals.db".into(), found: 99, known: 6 });
        let broken = Err(StoreError::Damaged { path: "/state/vitals.db".into(), finding: "page 7".to_owned() });
        for (inspected, check, level, advice) in [
            (with(|_| {}), "sound", Level::Ok, ""),
            (
                with(|one| one.soundness = Soundness::Damaged("page 7".to_owned())),
                "damaged",
                Level::Error,
                "replace the SD card",
            ),
            (with(|one| one.soundness = Soundness::Unchecked), "unchecked", Level::Warning, "run this again"),
            (with(|one| one.is_suspect = true), "suspect", Level::Warning, "systemctl restart vitalbridge"),
            (
                with(|one| one.put_aside = vec!["/state/vitals.db.corrupt-1".into()]),
                "put_aside",
                Level::Warning,
                "`sudo sh -c 'rm /state/vitals.db.corrupt-*'`",
            ),
            (broken, "damaged", Level::Error, "saves what can be read"),
            (newer, "newer", Level::Error, "install the newer version"),
            (directory(io::ErrorKind::PermissionDenied), "denied", Level::Warning, "sudo"),
            (directory(io::ErrorKind::Other), "unreadable", Level::Error, "dmesg"),
            (Ok(None), "absent", Level::Skipped, ""),
        ] {
            let one = found(&facts(inspected), Area::Store);
            assert_eq!((one.check, one.level), (check, level), "{one:?}");
            assert!(one.advice.as_deref().unwrap_or_default().contains(advice), "{one:?}");
        }
        let one = cannot_tell(Path::new("/state"), &io::ErrorKind::PermissionDenied.into());
        assert_eq!((one.check, one.level), ("user_unknown", Level::Warning));
        assert!(one.advice.unwrap().contains("sudo"));
        let broken = Err(StoreError::Damaged { path: "/state/vitals.db".into(), finding: "page 7".to_owned() });
        let one = found(&facts(broken), Area::Buffer);
        assert_eq!((one.check, one.level), ("unknown", Level::Skipped));
    }

    #[test]
    fn each_finding_about_the_buffer_says_what_to_do() {
        for (hours, has_broker, check, level, advice) in [
            (Some(24), true, "enough", Level::Ok, ""),
            (Some(23), true, "few_hours", Level::Warning, "bring the broker back"),
            (Some(0), true, "nearly_full", Level::Error, "store.max_mib"),
            (Some(23), false, "short_of_retention", Level::Warning, "store.retention_hours"),
            (Some(24), false, "enough", Level::Ok, ""),
            (None, true, "pace_unknown", Level::Skipped, ""),
        ] {
            let inspected = Ok(Some(Inspection { hours_left: hours, ..inspection() }));
            let one = found(&Facts { has_broker, ..facts(inspected) }, Area::Buffer);
            assert_eq!((one.check, one.level), (check, level), "{hours:?}");
            assert!(one.advice.as_deref().unwrap_or_default().contains(advice), "{one:?}");
        }
        assert_eq!(found(&facts(Ok(None)), Area::Buffer).level, Level::Skipped);
    }
}
