//! Commands about messages for people: send one now or later, take one back, choose what to be told of.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{BadMember, Command, Members};
use crate::clock::Wall;
use crate::event::{NotificationKind, Preferences, Priority};
use crate::ids::PatientId;

/// Most users that a message names.
pub const MAX_NAMED: usize = 64;

/// Longest name of a user for whom messages wait, in bytes.
pub const MAX_USER_BYTES: usize = 128;

/// Longest title, in characters.
const MAX_TITLE: usize = 200;

/// Longest text, in characters.
const MAX_MESSAGE: usize = 2000;

/// The roles that tokens have, by their names.
pub const ROLES: [&str; 5] = ["viewer", "nurse", "clinician", "admin", "service"];

/// A message that a person wants sent to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNotification {
    /// What kind; never [`NotificationKind::HealthAlert`], which the bridge alone makes.
    pub kind: NotificationKind,
    /// These users.
    pub users: Vec<String>,
    /// Everybody known with one of these roles.
    pub roles: Vec<String>,
    /// The patient it is about; without users and roles it is for everybody known who may see this patient's alerts.
    pub patient: Option<PatientId>,
    /// The headline.
    pub title: String,
    /// The text.
    pub message: String,
    /// How urgent.
    pub priority: Priority,
    /// When; `None`: now.
    pub at: Option<Wall>,
    /// It is of no use any more after this.
    pub expires: Option<Wall>,
    /// The sender's name for it: sent again under the same name it is the same message.
    pub correlation_id: Option<String>,
}

pub(super) fn send(members: Members<'_>) -> Result<Command, BadMember> {
    const AUDIENCE: &str = "is missing: say for whom by `users`, `roles` or `patient`";
    let (users, roles) = (users(members)?, roles(members)?);
    let patient = match members.get("patient").or_else(|| members.get("patient_id")) {
        None => None,
        Some(text) => {
            let patient = text.as_str().and_then(|text| text.parse().ok());
            Some(patient.ok_or(BadMember::new("patient", "is not the id of a patient"))?)
        }
    };
    if users.is_empty() && roles.is_empty() && patient.is_none() {
        return Err(BadMember::new("users", AUDIENCE));
    }
    let kind = members.text("kind").or_else(|| members.text("notification_type"));
    let kind = kind.and_then(NotificationKind::from_name).filter(|kind| *kind != NotificationKind::HealthAlert);
    let priority = members.get("priority").map_or(Some(Priority::Medium), |text| Priority::from_name(text.as_str()?));
    let (at, expires) = (time(members, "at")?, time(members, "expires")?);
    if at.zip(expires).is_some_and(|(at, expires)| expires <= at) {
        return Err(BadMember::new("expires", "is not after `at`"));
    }
    Ok(Command::Notify(Box::new(NewNotification {
        kind: kind.ok_or(BadMember::new("kind", "is medication_reminder, appointment_reminder or system"))?,
        users,
        roles,
        patient,
        title: text(members, "title", MAX_TITLE, "has 1 to 200 characters")?,
        message: text(members, "message", MAX_MESSAGE, "has 1 to 2000 characters")?,
        priority: priority.ok_or(BadMember::new("priority", "is info, low, medium or high"))?,
        at,
        expires,
        correlation_id: correlation_id(members)?,
    })))
}

pub(super) fn withdraw(members: Members<'_>) -> Result<Command, BadMember> {
    let id = members.text("notification_id").and_then(|text| text.parse().ok());
    Ok(Command::Withdraw(id.ok_or(BadMember::new("notification_id", "is not the id of a message"))?))
}

/// Reads `mute`, at the top, under `data` or under `preferences`.
pub(super) fn prefer(members: Members<'_>) -> Result<Command, BadMember> {
    const KINDS: &str = "has a member that is not health_alert, medication_reminder, appointment_reminder or system";
    const HIGH: &str = "cannot hold `high`: what has priority high always comes; mute kinds";
    let members = members.get("preferences").map_or(members, Members);
    let list = members.get("mute").and_then(Json::as_array).ok_or(BadMember::new("mute", "is not a list of kinds"))?;
    let mut mute = BTreeSet::new();
    for kind in list {
        let name = kind.as_str().unwrap_or("");
        if name == Priority::High.name() {
            return Err(BadMember::new("mute", HIGH));
        }
        mute.insert(NotificationKind::from_name(name).ok_or(BadMember::new("mute", KINDS))?);
    }
    Ok(Command::Prefer(Preferences { mute }))
}

fn text(members: Members<'_>, name: &'static str, most: usize, problem: &'static str) -> Result<String, BadMember> {
    let text = members.required(name)?.trim();
    let fits = !text.is_empty() && text.chars().count() <= most;
    fits.then(|| text.to_owned()).ok_or(BadMember::new(name, problem))
}

fn time(members: Members<'_>, name: &'static str) -> Result<Option<Wall>, BadMember> {
    let Some(text) = members.get(name) else { return Ok(None) };
    let wall = text.as_str().and_then(Wall::parse);
    wall.map(Some).ok_or(BadMember::new(name, "is not a time such as 2026-11-21T08:00:00Z"))
}

/// Users as text, or as the numbers that some of them are.
fn users(members: Members<'_>) -> Result<Vec<String>, BadMember> {
    let wrong = || BadMember::new("users", "is not a list of 1 to 64 users, each of 1 to 128 bytes");
    let Some(list) = members.get("users") else { return Ok(Vec::new()) };
    let list = list.as_array().filter(|list| (1..=MAX_NAMED).contains(&list.len())).ok_or_else(wrong)?;
    let mut users = Vec::new();
    for user in list {
        let number = || user.as_u64().map(|number| number.to_string());
        let user = user.as_str().map(str::to_owned).or_else(number);
        let user = user.filter(|user| (1..=MAX_USER_BYTES).contains(&user.len())).ok_or_else(wrong)?;
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok(users)
}

fn roles(members: Members<'_>) -> Result<Vec<String>, BadMember> {
    let wrong = || BadMember { member: "roles", problem: Cow::Owned(format!("is not a list of {}", ROLES.join(", "))) };
    let Some(list) = members.get("roles") else { return Ok(Vec::new()) };
    let list = list.as_array().filter(|list| (1..=ROLES.len()).contains(&list.len())).ok_or_else(wrong)?;
    let known = |role: &Json| role.as_str().filter(|role| ROLES.contains(role)).map(str::to_owned);
    list.iter().map(|role| known(role).ok_or_else(wrong)).collect()
}

/// Text, or a whole number as some clients count. A longer one than other answers echo is refused, because two that
/// differ at their ends must not become one message.
fn correlation_id(members: Members<'_>) -> Result<Option<String>, BadMember> {
    let Some(id) = members.get("correlation_id").or_else(|| members.get("id")) else { return Ok(None) };
    let number = || id.as_u64().map(|number| number.to_string());
    let id = id.as_str().map(str::to_owned).or_else(number).filter(|id| id.len() <= MAX_USER_BYTES);
    let id = id.ok_or(BadMember::new("correlation_id", "is not text of at most 128 bytes"))?;
    Ok((!id.is_empty()).then_some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: &Json) -> Result<Command, String> {
        Command::read(Members(json)).map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_message_is_read_with_what_it_may_leave_out() {
        let json = json!({"name": "notification.send", "kind": "medication_reminder", "users": [7, "lena", "7"],
            "title": " Metoprolol ", "message": "47.5 mg", "at": "2026-11-21T08:00:00Z", "correlation_id": 12});
        let Ok(Command::Notify(new)) = read(&json) else { panic!("{:?}", read(&json)) };
        assert_eq!((&new.users, new.title.as_str()), (&vec!["7".to_owned(), "lena".to_owned()], "Metoprolol"));
        assert_eq!((new.priority, new.correlation_id.as_deref()), (Priority::Medium, Some("12")));
        assert_eq!((new.at, new.expires), (Wall::parse("2026-11-21T08:00:00Z"), None));
    }

    #[test]
    fn a_message_that_cannot_be_sent_says_which_member_is_wrong() {
        let good = json!({"name": "notification.send", "kind": "system", "users": ["a"], "title": "t", "message": "m"});
        assert!(read(&good).is_ok());
        for (member, value, expected) in [
            ("kind", json!("health_alert"), "`kind` is medication_reminder"),
            ("kind", json!(null), "`kind` is medication_reminder"),
            ("users", json!(null), "`users` is missing: say for whom"),
            ("users", json!([]), "`users` is not a list"),
            ("users", json!(["x".repeat(MAX_USER_BYTES + 1)]), "`users` is not a list"),
            ("roles", json!(["chef"]), "`roles` is not a list of viewer, nurse"),
            ("patient", json!("a b"), "`patient` is not the id"),
            ("title", json!("  "), "`title` has 1 to 200"),
            ("message", json!("x".repeat(MAX_MESSAGE + 1)), "`message` has 1 to 2000"),
            ("priority", json!("urgent"), "`priority` is info"),
            ("priority", json!(3), "`priority` is info"),
            ("at", json!("tomorrow"), "`at` is not a time"),
            ("expires", json!(5), "`expires` is not a time"),
            ("patient", json!({}), "`patient` is not the id of a patient"),
            ("correlation_id", json!("x".repeat(MAX_USER_BYTES + 1)), "`correlation_id` is not text"),
        ] {
            let mut json = good.clone();
            json[member] = value;
            let error = read(&json).unwrap_err();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
        let mut json = good;
        (json["at"], json["expires"]) = (json!("2026-11-21T08:00:00Z"), json!("2026-11-21T08:00:00Z"));
        assert!(read(&json).unwrap_err().starts_with("`expires` is not after"));
    }

    #[test]
    fn kinds_can_be_muted_and_priority_high_cannot() {
        let prefer = |mute: Json| read(&json!({"name": "preferences.set", "preferences": {"mute": mute}}));
        let Ok(Command::Prefer(preferences)) = prefer(json!(["health_alert", "system"])) else { panic!() };
        assert!(preferences.mutes(NotificationKind::HealthAlert, Priority::Medium));
        assert!(!preferences.mutes(NotificationKind::HealthAlert, Priority::High));
        assert!(!preferences.mutes(NotificationKind::MedicationReminder, Priority::Low));
        for (mute, expected) in [
            (json!(["high"]), "cannot hold `high`"),
            (json!(["alarms"]), "not health_alert"),
            (json!([{"kind": "health_alert", "priority": "high"}]), "not health_alert"),
            (json!("all"), "not a list"),
        ] {
            assert!(prefer(mute.clone()).unwrap_err().contains(expected), "{mute}");
        }
    }
}
