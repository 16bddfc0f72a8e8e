//! What the device itself says about alarms, modes and settings: told when it begins, changes and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decode::Decoded;
use crate::vitals::Status;

/// Longest text of a device that is told, in characters: that of a DRI alarm.
const MAX_TEXT: usize = 80;

fn event(name: String) -> Decoded {
    Decoded::Event { name: Arc::from(name) }
}

/// Texts that are on the device's screen as long as they are in its answer.
#[derive(Debug, Default)]
pub(super) struct Messages {
    shown: BTreeSet<String>,
}

impl Messages {
    /// Takes everything that is shown now; tells what has begun, and what has ended.
    pub(super) fn replace(&mut self, shown: BTreeSet<String>, out: &mut Vec<Decoded>) {
        out.extend(shown.difference(&self.shown).map(|text| event(text.clone())));
        out.extend(self.shown.difference(&shown).map(|text| event(format!("{text} ended"))));
        self.shown = shown;
    }

    pub(super) fn clear(&mut self) {
        self.shown.clear();
    }
}

/// Numbers that people set at the device.
#[derive(Debug, Default)]
pub(super) struct Settings {
    known: BTreeMap<String, String>,
}

impl Settings {
    /// Takes all settings of one kind; tells those that are new or have another value.
    pub(super) fn replace(&mut self, now: impl Iterator<Item = (String, String)>, out: &mut Vec<Decoded>) {
        for (name, value) in now {
            let is_known = self.known.get(&name).is_some_and(|known| *known == value);
            if !is_known {
                out.push(event(format!("{name} {value}")));
                self.known.insert(name, value);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

/// The statuses that were told last. They begin empty.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    told: BTreeSet<Status>,
}

impl Statuses {
    /// Sets those of `about` that are in `set`, and tells all if that changed any.
    pub(super) fn replace(&mut self, about: &[Status], set: &BTreeSet<Status>, out: &mut Vec<Decoded>) {
        let kept = self.told.iter().filter(|status| !about.contains(status));
        let now: BTreeSet<Status> = kept.chain(set).copied().collect();
        if now != self.told {
            out.push(Decoded::Status(now.clone()));
            self.told = now;
        }
    }
}

/// A device's text as it can be shown: one line of printable characters, without spaces around.
pub(super) fn text(bytes: &[u8]) -> String {
    let until = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let shown = bytes.get(..until).unwrap_or_default().iter().map(|byte| char::from(*byte));
    let shown: String = shown.map(|c| if c.is_control() { '?' } else { c }).take(MAX_TEXT).collect();
    shown.trim().to_owned()
}
