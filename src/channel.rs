//! Channels and the patterns that choose among them: `patient/P-1/spo2`, `alerts/+`, `ward/a/#`.

use std::fmt;
use std::str::FromStr;

use crate::event::{Event, EventBody};
use crate::ids::{MAX_ID_BYTES, WardId};
use crate::named::named_enum;

named_enum! {
    /// What can be allowed on a channel.
    Operation {
        /// Listen.
        Subscribe = "sub",
        /// Read what was.
        History = "hst",
        /// Write messages.
        Publish = "pub",
        /// Acknowledge, pause and reset alerts.
        Acknowledge = "ack",
        /// Change limits and devices.
        Command = "cmd",
    }
}

/// Longest pattern, in bytes: the longest channel has two identifiers and a metric.
pub const MAX_PATTERN_BYTES: usize = 200;

/// Chooses channels. `+` stands for one level, a final `#` for any number of levels, also none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(String);

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Empty, or longer than [`MAX_PATTERN_BYTES`].
    #[error("a channel has 1 to {MAX_PATTERN_BYTES} bytes")]
    Length,
    /// Empty levels, `#` before the end, or other characters than an identifier's.
    #[error("a channel is levels of A-Z a-z 0-9 _ - joined by `/`; `+` is one level, a final `#` is the rest")]
    Form,
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(BadPattern::Length);
        }
        let plain = |level: &str| {
            !level.is_empty() && level.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let is_rest = level == "#" && levels.peek().is_none();
            if !(is_rest || level == "+" || plain(level)) {
                return Err(BadPattern::Form);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it chooses this channel.
    pub fn matches(&self, channel: &str) -> bool {
        let mut levels = channel.split('/');
        for wanted in self.0.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// True if some channel could be chosen by both, so that subscribing to one with leave for the other makes sense.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (Some(a), Some(b)) if a == "+" || b == "+" || a == b => {}
                _ => return false,
            }
        }
    }
}

/// The channel of a user's own notifications. Characters that no channel has are replaced; who gets a notification goes
/// by the user's whole name and never by the channel, so two users with one channel do not see each other's.
pub fn notifications_of(user: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let level: String = user.chars().take(MAX_ID_BYTES).map(|it| if plain(it) { it } else { '_' }).collect();
    format!("notifications/{level}")
}

/// Every channel on which an event can be found: its own, then those of the people and places it concerns.
///
/// The first is the one it is published under; a listener that matches several gets the event once.
///
/// A notification is on its users' own channels alone. What becomes of one is on none: it tells who was sent what, and
/// is for the store and the broker.
pub fn routes(event: &Event, ward: Option<&WardId>) -> Vec<String> {
    match &event.body {
        EventBody::Notification(notification) => {
            return notification.users.iter().map(|user| notifications_of(user)).collect();
        }
        EventBody::Inbox(_) => return Vec::new(),
        _ => {}
    }
    let mut routes = vec![crate::wire::channel_of(&event.body)];
    if let EventBody::Source(source) = &event.body
        && let Some(patient) = &source.patient
    {
        routes.push(format!("patient/{patient}/device_status"));
    }
    if let EventBody::Limits(limits) = &event.body {
        routes.push(format!("patient/{}/limits", limits.change.patient));
    }
    if let (Some(ward), Some(_)) = (ward, event.patient()) {
        let inner: Vec<String> = routes.iter().map(|route| format!("ward/{ward}/{route}")).collect();
        routes.extend(inner);
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_chooses_by_level() {
        for (pattern, channel, expected) in [
            ("patient/P-1/spo2", "patient/P-1/spo2", true),
            ("patient/P-1/spo2", "patient/P-2/spo2", false),
            ("patient/+/+", "patient/P-1/spo2", true),
            ("patient/+", "patient/P-1/spo2", false),
            ("patient/+/+", "patient/P-1", false),
            ("patient/P-1/#", "patient/P-1/spo2", true),
            ("patient/P-1/#", "patient/P-1", true),
            ("#", "system", true),
            ("alerts/+", "alerts/P-1", true),
            ("patient/P-1/#", "patient/P-10/spo2", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(channel), expected, "{pattern} {channel}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "/", "a//b", "a/", "#/a", "a+/b", "a b", "a/\u{e4}", &"a".repeat(MAX_PATTERN_BYTES + 1)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap_is_mutual() {
        for (a, b, expected) in [
            ("patient/+/spo2", "patient/P-1/#", true),
            ("patient/P-1/#", "patient/P-2/#", false),
            ("alerts/+", "patient/#", false),
            ("#", "system", true),
            ("a/b", "a/b/c", false),
        ] {
            let (a, b): (Pattern, Pattern) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (expected, expected), "{a} {b}");
        }
    }
}
