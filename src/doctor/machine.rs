//! Whether the state belongs to this machine: two bridges made from one SD card would send under one name.
//!
//! The daemon writes down on which machine it first ran. Numbers of machines are no one else's business (machine-id(5)),
//! so what is kept of them is a digest.

use std::fs;
use std::io;
use std::path::Path;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::doctor::{Area, Finding, Patient, blocking};
use crate::server::codes::{hex, write_private};

/// In the state directory.
const FILE: &str = "machine";

/// Of the installed system: another one after an installation, the same on a copied card.
const SYSTEM: &str = "/etc/machine-id";

/// Of the board: another one when a card is put into another machine.
const BOARD: &str = "/sys/firmware/devicetree/base/serial-number";

/// A machine by the digests of its numbers, as far as it has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Machine {
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    board: Option<String>,
}

/// What differs from the machine that the state belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The installed system is another one: the state was copied, or the system set up anew.
    System,
    /// The board is another one: the card was moved or copied.
    Board,
}

/// What stands in the state directory.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Nothing,
    Unreadable(String),
    Known(Machine),
}

fn this_machine() -> Machine {
    let digest_of = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        // The name of the purpose keeps the digest from being of use for another one.
        let of = |text: &str| hex(digest::digest(&digest::SHA256, format!("vitalbridge {text}").as_bytes()).as_ref());
        (!text.is_empty() && text != "uninitialized").then(|| of(text))
    };
    Machine { system: digest_of(SYSTEM), board: digest_of(BOARD) }
}

fn kept_in(state_dir: &Path) -> Kept {
    match fs::read_to_string(state_dir.join(FILE)) {
        Ok(text) => serde_json::from_str(&text).map_or_else(|error| Kept::Unreadable(error.to_string()), Kept::Known),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::Nothing,
        Err(error) => Kept::Unreadable(error.to_string()),
    }
}

/// Writes down at the first run on which machine it was; at later ones, tells what has changed since.
///
/// # Errors
/// What was written down cannot be read, or the state directory cannot be written.
pub fn remember(state_dir: &Path) -> io::Result<Option<Change>> {
    let now = this_machine();
    match kept_in(state_dir) {
        Kept::Known(before) => Ok(change(&before, &now)),
        Kept::Unreadable(reason) => Err(io::Error::other(reason)),
        Kept::Nothing => write_private(&state_dir.join(FILE), &serde_json::to_string(&now)?).map(|()| None),
    }
}

/// A number that either of the two lacks says nothing.
fn change(before: &Machine, now: &Machine) -> Option<Change> {
    let differs = |before: &Option<String>, now: &Option<String>| before.is_some() && now.is_some() && before != now;
    if differs(&before.board, &now.board) {
        Some(Change::Board)
    } else {
        differs(&before.system, &now.system).then_some(Change::System)
    }
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let dir = patient.state_dir.clone();
    let (kept, now) = blocking(move || (kept_in(&dir), this_machine())).await;
    vec![judge(&kept, &now, &patient.state_dir)]
}

fn judge(kept: &Kept, now: &Machine, state_dir: &Path) -> Finding {
    let file = state_dir.join(FILE);
    let advice = || {
        format!(
            "if this is a copy, stop it, give it a `bridge.id` of its own and an empty state directory; if the same bridge was moved, \
             remove {} and restart the daemon",
            file.display()
        )
    };
    match kept {
        Kept::Nothing => {
            Finding::skipped(Area::Machine, "unknown", "no run of the daemon has written down its machine yet")
        }
        Kept::Unreadable(reason) => Finding::warning(
            Area::Machine,
            "unreadable",
            format!("{} cannot be read: {reason}", file.display()),
            format!("run this with sudo; if it is damaged, remove {} and restart the daemon", file.display()),
        ),
        Kept::Known(before) => match change(before, now) {
            Some(Change::Board) => Finding::error(
                Area::Machine,
                "cloned",
                "the state belongs to another board: the SD card was moved or copied; two bridges of one name mix their patients",
                advice(),
            ),
            Some(Change::System) => Finding::error(
                Area::Machine,
                "copied",
                "the state belongs to another installation (the machine-id has changed): it was copied, or the system set up anew",
                advice(),
            ),
            None => Finding::ok(Area::Machine, "same", "the state belongs to this machine"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn machine(system: Option<&str>, board: Option<&str>) -> Machine {
        Machine { system: system.map(str::to_owned), board: board.map(str::to_owned) }
    }

    #[test]
    fn each_finding_about_the_machine_says_what_to_do() {
        let known = |system, board| Kept::Known(machine(system, board));
        let now = machine(Some("a"), Some("b"));
        for (kept, check, level, advice) in [
            (known(Some("a"), Some("b")), "same", Level::Ok, ""),
            (known(Some("a"), Some("c")), "cloned", Level::Error, "`bridge.id` of its own"),
            (known(Some("c"), Some("b")), "copied", Level::Error, "remove /state/machine"),
            (known(Some("c"), None), "copied", Level::Error, "empty state directory"),
            (known(None, None), "same", Level::Ok, ""),
            (Kept::Unreadable("rubbish".to_owned()), "unreadable", Level::Warning, "remove /state/machine"),
            (Kept::Nothing, "unknown", Level::Skipped, ""),
        ] {
            let found = judge(&kept, &now, Path::new("/state"));
            assert_eq!((found.check, found.level), (check, level), "{kept:?}");
            assert!(found.advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
    }

    #[test]
    fn the_machine_is_written_down_once_and_its_numbers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(kept_in(dir.path()), Kept::Nothing);
        assert_eq!(remember(dir.path()).unwrap(), None);
        assert_eq!(kept_in(dir.path()), Kept::Known(this_machine()));
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        for number in [SYSTEM, BOARD].map(|path| fs::read_to_string(path).unwrap_or_default()) {
            assert!(number.trim().is_empty() || !text.contains(number.trim()), "{text}");
        }
        let other = serde_json::to_string(&machine(Some("another"), None)).unwrap();
        fs::write(dir.path().join(FILE), &other).unwrap();
        let expected = this_machine().system.map(|_| Change::System);
        assert_eq!(remember(dir.path()).unwrap(), expected);
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), other, "what was written first stays");
        fs::write(dir.path().join(FILE), "rubbish").unwrap();
        assert!(remember(dir.path()).is_err());
    }
}
