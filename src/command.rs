//! What a person wants done: the commands that WebSocket, HTTP and the broker take alike, read from their JSON.
//!
//! A command is read here, allowed by what [`Command::needs`], and carried out by the pipeline, which knows who gave it
//! and where that person may.

mod limits;
mod notify;
mod resend;

use std::borrow::Cow;

use serde_json::Value as Json;

pub use self::notify::{MAX_NAMED, MAX_USER_BYTES, NewNotification, ROLES};
use crate::channel::Operation;
use crate::event::{OrderKind, Preferences};
use crate::ids::{AlertId, PatientId, Seq, SourceId};
use crate::vitals::{Breathing, Consciousness};

pub use self::resend::{MAX_RESEND, ResendWish};
pub use limits::{LimitOperation, LimitWish, MAX_LINES_BYTES};

/// Longest audio pause (IEC 60601-1-8 leaves it to the maker; docs/alerts.md says 120 s).
pub const MAX_AUDIO_PAUSE_S: u64 = 120;

/// The names of the commands that can be allowed over the broker.
pub const NAMES: [&str; 10] = [
    "alert.acknowledge",
    "alert.pause_audio",
    "alert.reset",
    "limits.set",
    "limits.clear",
    "rule.disable",
    "rule.enable",
    "device.confirm",
    "device.command",
    "uplink.resend",
];

/// The names of all commands, as an error lists them.
const KNOWN: &str = "is alert.acknowledge, alert.pause_audio, alert.reset, limits.set, limits.clear, rule.disable, \
     rule.enable, observation.set, device.confirm, device.command, notification.send, notification.withdraw, \
     preferences.set or uplink.resend";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Do something about an alert.
    Alert {
        /// Which.
        alert: AlertId,
        /// What.
        operation: AlertOperation,
        /// The newest event of the alert that the person saw. Always there to acknowledge: nobody has seen an alarm whose
        /// last event he cannot name.
        expected_seq: Option<Seq>,
    },
    /// Enter what no sensor sees of a patient.
    Observe {
        /// Whose.
        patient: PatientId,
        /// What is breathed.
        oxygen: Entry<Breathing>,
        /// The level of consciousness.
        consciousness: Entry<Consciousness>,
    },
    /// Do something about the device of a source.
    Device {
        /// Which source.
        source: SourceId,
        /// What.
        kind: OrderKind,
    },
    /// Change one rule of one patient.
    Limits(LimitWish),
    /// Send a message to people, now or later.
    Notify(Box<NewNotification>),
    /// Take a message for later back.
    Withdraw(uuid::Uuid),
    /// Choose what to be told of.
    Prefer(Preferences),
    /// Send a range of the log to the broker once more.
    Resend(ResendWish),
}

/// What a person says about one thing that can be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<T> {
    /// Nothing: it stays as it is.
    Unsaid,
    /// It is not known any more.
    Unknown,
    /// This is it.
    Is(T),
}

/// Operations on one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertOperation {
    /// A person has seen it.
    Acknowledge,
    /// Silence it for some seconds.
    PauseAudio {
        /// At most [`MAX_AUDIO_PAUSE_S`].
        seconds: u64,
    },
    /// End a latched one.
    Reset,
}

/// A member of a message that is missing or of another form. What the client sent is never echoed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` {problem}")]
pub struct BadMember {
    /// Which.
    pub member: &'static str,
    /// What is wrong.
    pub problem: Cow<'static, str>,
}

impl BadMember {
    /// A member with what is wrong about it.
    pub const fn new(member: &'static str, problem: &'static str) -> Self {
        Self { member, problem: Cow::Borrowed(problem) }
    }
}

/// A message's members, which stand at the top or under `data`.
#[derive(Debug, Clone, Copy)]
pub struct Members<'a>(pub &'a Json);

impl<'a> Members<'a> {
    /// A member. `null` counts as missing.
    pub fn get(self, name: &str) -> Option<&'a Json> {
        let top = self.0.get(name);
        top.or_else(|| self.0.get("data").and_then(|data| data.get(name))).filter(|value| !value.is_null())
    }

    /// A member that is text.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(Json::as_str)
    }

    /// The person's own name for a message: text, or a whole number as some clients count.
    pub fn correlation_id(self) -> Option<String> {
        let id = self.get("correlation_id").or_else(|| self.get("id"))?;
        let number = || id.as_u64().map(|number| number.to_string());
        id.as_str().map(str::to_owned).or_else(number)
    }

    /// A member that has to be there as text.
    ///
    /// # Errors
    /// It is missing, or not text.
    pub fn required(self, name: &'static str) -> Result<&'a str, BadMember> {
        self.text(name).ok_or(BadMember::new(name, "is missing"))
    }
}

impl Command {
    /// Reads `name` and the members that belong to it.
    ///
    /// # Errors
    /// The first member that is missing or of another form.
    pub fn read(members: Members<'_>) -> Result<Self, BadMember> {
        match members.text("name") {
            Some("device.confirm") => {
                let serial_number = members.required("serial_number")?.to_owned();
                device(members, OrderKind::Confirm { serial_number })
            }
            Some("device.command") => {
                let command = members.required("command")?.to_owned();
                device(members, OrderKind::Command { command })
            }
            Some("notification.send") => notify::send(members),
            Some("notification.withdraw") => notify::withdraw(members),
            Some("preferences.set") => notify::prefer(members),
            Some("uplink.resend") => resend::read(members),
            Some("observation.set") => observe(members),
            Some("alert.acknowledge") => alert(members, AlertOperation::Acknowledge),
            Some("alert.reset") => alert(members, AlertOperation::Reset),
            Some("alert.pause_audio") => {
                let seconds = members.get("seconds").map_or(Some(MAX_AUDIO_PAUSE_S), Json::as_u64);
                let seconds = seconds.filter(|seconds| (1..=MAX_AUDIO_PAUSE_S).contains(seconds));
                let seconds = seconds.ok_or(BadMember::new("seconds", "is 1 to 120"))?;
                alert(members, AlertOperation::PauseAudio { seconds })
            }
            Some(name) if limits::NAMES.contains(&name) => limits::read(name, members),
            _ => Err(BadMember::new("name", KNOWN)),
        }
    }

    /// Reads what somebody wants to be told of, for where that needs no `name`.
    ///
    /// # Errors
    /// `mute` is missing or of another form.
    pub fn read_preferences(members: Members<'_>) -> Result<Self, BadMember> {
        notify::prefer(members)
    }

    /// Reads a message for people, for where that needs no `name`.
    ///
    /// # Errors
    /// The first member that is missing or of another form.
    pub fn read_notification(members: Members<'_>) -> Result<Self, BadMember> {
        notify::send(members)
    }

    /// What somebody has to be allowed, on the channels that the command concerns.
    pub const fn needs(&self) -> Operation {
        match self {
            // Who sees the patients sees this; a nurse does both.
            Self::Alert { .. } | Self::Observe { .. } => Operation::Acknowledge,
            Self::Device { .. } | Self::Limits(_) | Self::Resend(_) => Operation::Command,
            Self::Notify(_) | Self::Withdraw(_) => Operation::Publish,
            // One's own; nobody is kept from it.
            Self::Prefer(_) => Operation::Subscribe,
        }
    }

    /// Whether it is about the bridge as a whole: such a command is for administrators.
    pub const fn is_about_the_bridge(&self) -> bool {
        matches!(self, Self::Resend(_))
    }
}

fn alert(members: Members<'_>, operation: AlertOperation) -> Result<Command, BadMember> {
    let alert = members.text("alert_id").and_then(|text| text.parse().ok()).map(AlertId);
    let alert = alert.ok_or(BadMember::new("alert_id", "is not the id of an alert"))?;
    let expected_seq = match members.get("expected_seq") {
        None if operation == AlertOperation::Acknowledge => {
            return Err(BadMember::new(
                "expected_seq",
                "is missing: the `seq` of the newest event of the alert that was seen",
            ));
        }
        None => None,
        Some(seq) => Some(Seq(seq.as_u64().ok_or(BadMember::new("expected_seq", "is not the number of an event"))?)),
    };
    Ok(Command::Alert { alert, operation, expected_seq })
}

/// The word by which an entry is taken back.
const UNKNOWN: &str = "unknown";

fn observe(members: Members<'_>) -> Result<Command, BadMember> {
    let patient = members.text("patient_id").and_then(|text| text.parse().ok());
    let patient = patient.ok_or(BadMember::new("patient_id", "is not the id of a patient"))?;
    let oxygen = entry(members, "oxygen", "is air, oxygen or unknown", Breathing::from_name)?;
    let consciousness = entry(members, "consciousness", "is A, C, V, P, U or unknown", Consciousness::from_name)?;
    if (oxygen, consciousness) == (Entry::Unsaid, Entry::Unsaid) {
        return Err(BadMember::new("oxygen", "or `consciousness` has to be there"));
    }
    Ok(Command::Observe { patient, oxygen, consciousness })
}

fn entry<T>(
    members: Members<'_>,
    name: &'static str,
    problem: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Entry<T>, BadMember> {
    let Some(member) = members.get(name) else { return Ok(Entry::Unsaid) };
    match member.as_str() {
        Some(UNKNOWN) => Ok(Entry::Unknown),
        Some(word) => read(word).map(Entry::Is).ok_or(BadMember::new(name, problem)),
        None => Err(BadMember::new(name, problem)),
    }
}

fn device(members: Members<'_>, kind: OrderKind) -> Result<Command, BadMember> {
    let source = members.text("source_id").and_then(|text| text.parse().ok());
    let source = source.ok_or(BadMember::new("source_id", "is not the id of a source"))?;
    Ok(Command::Device { source, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_is_read_with_its_members_at_the_top_or_under_data() {
        let id = "01928374-0000-7000-8000-000000000000";
        let alert = AlertId(id.parse().unwrap());
        let pause = |seconds| AlertOperation::PauseAudio { seconds };
        for (json, expected) in [
            (
                json!({"name": "alert.acknowledge", "alert_id": id, "expected_seq": 7}),
                Command::Alert { alert, operation: AlertOperation::Acknowledge, expected_seq: Some(Seq(7)) },
            ),
            (
                json!({"data": {"name": "alert.pause_audio", "alert_id": id}}),
                Command::Alert { alert, operation: pause(120), expected_seq: None },
            ),
            (
                json!({"name": "device.command", "data": {"source_id": "port", "command": "nibp_start"}}),
                Command::Device {
                    source: "port".parse().unwrap(),
                    kind: OrderKind::Command { command: "nibp_start".to_owned() },
                },
            ),
            (
                json!({"name": "uplink.resend", "epoch": "k3f9", "first_seq": 1, "last_seq": MAX_RESEND}),
                Command::Resend(ResendWish { epoch: "k3f9".parse().unwrap(), first: Seq(1), last: Seq(MAX_RESEND) }),
            ),
            (
                json!({"name": "observation.set", "patient_id": "P-1", "oxygen": "oxygen", "consciousness": "unknown"}),
                Command::Observe {
                    patient: "P-1".parse().unwrap(),
                    oxygen: Entry::Is(Breathing::Oxygen),
                    consciousness: Entry::Unknown,
                },
            ),
        ] {
            assert_eq!(Command::read(Members(&json)), Ok(expected), "{json}");
        }
    }

    #[test]
    fn a_command_that_cannot_be_read_says_which_member_is_wrong() {
        let id = "01928374-0000-7000-8000-000000000000";
        for (json, expected) in [
            (json!({}), "`name` is alert.acknowledge"),
            (json!({"name": "fly"}), "`name` is alert.acknowledge"),
            (json!({"name": "alert.reset"}), "`alert_id` is not the id of an alert"),
            (json!({"name": "alert.pause_audio", "alert_id": id, "seconds": 121}), "`seconds` is 1 to 120"),
            (json!({"name": "alert.acknowledge", "alert_id": id, "expected_seq": "7"}), "`expected_seq` is not the"),
            (json!({"name": "alert.acknowledge", "alert_id": id}), "`expected_seq` is missing"),
            (json!({"name": "observation.set", "oxygen": "air"}), "`patient_id` is not the id"),
            (json!({"name": "observation.set", "patient_id": "P-1"}), "`oxygen` or `consciousness` has to be there"),
            (json!({"name": "observation.set", "patient_id": "P-1", "oxygen": true}), "`oxygen` is air, oxygen or"),
            (json!({"name": "observation.set", "patient_id": "P-1", "consciousness": "a"}), "`consciousness` is A, C"),
            (json!({"name": "device.confirm", "source_id": "port"}), "`serial_number` is missing"),
            (json!({"name": "device.command", "command": "x"}), "`source_id` is not the id of a source"),
            (json!({"name": "uplink.resend", "first_seq": 1, "last_seq": 2}), "`epoch` is missing"),
            (
                json!({"name": "uplink.resend", "epoch": "a b", "first_seq": 1, "last_seq": 2}),
                "`epoch` is not the name",
            ),
            (
                json!({"name": "uplink.resend", "epoch": "k3f9", "first_seq": 0, "last_seq": 2}),
                "`first_seq` is not the",
            ),
            (json!({"name": "uplink.resend", "epoch": "k3f9", "first_seq": 3, "last_seq": 2}), "`last_seq` is before"),
            (
                json!({"name": "uplink.resend", "epoch": "k3f9", "first_seq": 1, "last_seq": 1_000_001}),
                "`last_seq` is too far",
            ),
        ] {
            let error = Command::read(Members(&json)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
