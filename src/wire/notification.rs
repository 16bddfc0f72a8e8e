//! The JSON of a message for people: the form that older clients show, with more members beside theirs.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use super::answer::{ChosenPreferences, Yes};
use super::dated::ClockNote;
use super::shape::{Timestamp, UserId, Uuid};
use crate::clock::Wall;
use crate::event::{Notification, NotificationKind, Preferences, Priority};
use crate::ids::{BridgeId, Epoch, PatientId, Seq};
use crate::vitals::Mode;

/// The payload. The first six members are those of older clients.
#[derive(Serialize, JsonSchema)]
pub(super) struct NotificationData<'a> {
    #[schemars(with = "Uuid")]
    id: String,
    #[serde(rename = "type")]
    kind: NotificationKind,
    title: &'a str,
    message: &'a str,
    priority: Priority,
    #[schemars(with = "Timestamp")]
    created_at: String,
    /// Whose message this is, where it is sent to one user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UserId>")]
    user_id: Option<Json>,
    /// For whom it is, where it is sent to a receiver of everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<&'a [String]>,
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    #[schemars(with = "Option<Uuid>")]
    alert_id: Option<String>,
    /// Whether that alert stands, where it is sent after a wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_stands: Option<bool>,
    #[schemars(with = "Option<Timestamp>")]
    expires_at: Option<String>,
    from: Option<&'a str>,
    mode: Mode,
}

impl<'a> NotificationData<'a> {
    /// For a receiver of everything.
    pub(super) fn of_all(notification: &'a Notification) -> Self {
        Self {
            id: notification.id.to_string(),
            kind: notification.kind,
            title: &notification.title,
            message: &notification.message,
            priority: notification.priority,
            created_at: notification.created.to_string(),
            user_id: None,
            users: Some(&notification.users),
            patient_id: notification.patient.as_ref().map(crate::ids::PatientId::as_str),
            alert_id: notification.alert.map(|alert| alert.to_string()),
            alert_stands: None,
            expires_at: notification.expires.map(|expires| expires.to_string()),
            from: notification.by.as_deref(),
            mode: notification.mode,
        }
    }
}

/// A message on its way to one client of one user.
#[derive(Debug, Clone, Copy)]
pub struct ToUser<'a> {
    /// The message.
    pub notification: &'a Notification,
    /// The user.
    pub user: &'a str,
    /// The user's channel.
    pub channel: &'a str,
    /// The number of its event if it comes while it happens, else the position of the client: a message that waited must
    /// not set back what the client remembers as its last event.
    pub seq: Seq,
    /// The run that `seq` belongs to.
    pub epoch: &'a Epoch,
    /// Whether the alert that it tells of still stands; `None` where it comes while it happens.
    pub alert_stands: Option<bool>,
}

/// The envelope of a message for people.
#[derive(Serialize, JsonSchema)]
pub(super) struct UserPush<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: &'a NotificationData<'a>,
    #[schemars(with = "Timestamp")]
    timestamp: String,
    correlation_id: &'a str,
    channel: &'a str,
    seq: Seq,
    epoch: &'a Epoch,
    /// Which bridge, where the receiver hears several.
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<&'a BridgeId>,
    /// It waited for the connection to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    historical: Option<bool>,
    /// Where the clock was not set by which it is dated.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<ClockNote>,
    /// Older clients look for the payload here.
    notification: &'a NotificationData<'a>,
}

/// The text of a message for receivers of everything.
pub(super) fn to_all(
    notification: &Notification,
    (channel, seq, epoch): (&str, Seq, &Epoch),
    (bridge, is_historical): (Option<&BridgeId>, bool),
    at: Wall,
) -> Result<String, serde_json::Error> {
    let data = NotificationData::of_all(notification);
    serde_json::to_string(&UserPush {
        kind: "notification",
        data: &data,
        timestamp: at.to_string(),
        correlation_id: &format!("{epoch}:{seq}"),
        channel,
        seq,
        epoch,
        bridge,
        historical: is_historical.then_some(true),
        clock: None,
        notification: &data,
    })
}

/// The text of a message for one user. Its `correlation_id` is the id of the notification.
///
/// # Errors
/// None for the types above; serde's signature has one.
pub fn to_user(message: ToUser<'_>, at: Wall) -> Result<String, serde_json::Error> {
    let ToUser { notification, user, channel, seq, epoch, alert_stands } = message;
    let data = NotificationData {
        user_id: Some(user_id(user)),
        users: None,
        alert_stands,
        ..NotificationData::of_all(notification)
    };
    let frame = UserPush {
        kind: "notification",
        data: &data,
        timestamp: at.to_string(),
        correlation_id: &data.id,
        channel,
        seq,
        epoch,
        bridge: None,
        historical: None,
        clock: None,
        notification: &data,
    };
    serde_json::to_string(&frame)
}

/// The answer to somebody who asks what he is told of, or chooses it. What can never be muted is said too.
pub fn preferences(preferences: &Preferences) -> ChosenPreferences<'_> {
    ChosenPreferences { ok: Yes, preferences, never_muted: [Priority::High] }
}

/// A user as older clients expect it: a number where the token's subject is all digits.
pub fn user_id(user: &str) -> Json {
    let is_number = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { user.parse::<u64>().ok() } else { None };
    number.map_or_else(|| Json::from(user), Json::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NotificationKind;
    use crate::vitals::Mode;

    fn notification() -> Notification {
        Notification {
            id: uuid::Uuid::from_u128(1),
            kind: NotificationKind::HealthAlert,
            patient: Some("P-1".parse().unwrap()),
            users: vec!["1".to_owned(), "lena".to_owned()],
            alert: None,
            title: "Blood Pressure Alert".to_owned(),
            message: "Your blood pressure is above normal range".to_owned(),
            priority: Priority::High,
            created: Wall::parse("2024-01-01T00:00:00Z").unwrap(),
            expires: None,
            by: None,
            mode: Mode::Real,
        }
    }

    fn text(user: &str) -> String {
        let (notification, epoch) = (notification(), "k3f9".parse().unwrap());
        let message = ToUser {
            notification: &notification,
            user,
            channel: "notifications/x",
            seq: Seq(7),
            epoch: &epoch,
            alert_stands: Some(false),
        };
        to_user(message, Wall(0)).unwrap()
    }

    #[test]
    fn older_clients_find_their_form_byte_for_byte() {
        let payload = concat!(
            r#"{"id":"00000000-0000-0000-0000-000000000001","type":"health_alert","title":"Blood Pressure Alert","#,
            r#""message":"Your blood pressure is above normal range","priority":"high","#,
            r#""created_at":"2024-01-01T00:00:00.000Z","#,
            r#""user_id":1,"patient_id":"P-1","alert_id":null,"alert_stands":false,"expires_at":null,"from":null,"#,
            r#""mode":"real"}"#
        );
        let expected = format!(
            concat!(
                r#"{{"type":"notification","data":{payload},"timestamp":"1970-01-01T00:00:00.000Z","#,
                r#""correlation_id":"00000000-0000-0000-0000-000000000001","channel":"notifications/x","#,
                r#""seq":7,"epoch":"k3f9","notification":{payload}}}"#
            ),
            payload = payload
        );
        assert_eq!(text("1"), expected);
    }

    #[test]
    fn every_member_of_the_older_form_is_there_with_its_type() {
        // As docs/protocol.md and the clients in the field have it.
        let older: Json = serde_json::from_str(
            r#"{"type":"notification","notification":{"id":"uuid","type":"health_alert","title":"Blood Pressure Alert",
                "message":"Your blood pressure is above normal range","priority":"high",
                "created_at":"2024-01-01T00:00:00Z"}}"#,
        )
        .unwrap();
        let ours: Json = serde_json::from_str(&text("lena")).unwrap();
        assert_eq!(ours["type"], older["type"]);
        for (name, value) in older["notification"].as_object().unwrap() {
            for place in ["notification", "data"] {
                let found = &ours[place][name];
                assert!(found.is_string() && value.is_string(), "{place}.{name}: {found}");
                assert!(matches!(name.as_str(), "id" | "created_at") || found == value, "{place}.{name}: {found}");
            }
        }
        for name in ["data", "timestamp", "correlation_id", "channel", "seq", "epoch"] {
            assert!(!ours[name].is_null(), "{name}");
        }
    }

    #[test]
    fn a_user_of_digits_is_a_number_and_any_other_is_text() {
        for (user, expected) in [("1", "1"), ("007", "7"), ("lena", "\"lena\""), ("+1", "\"+1\""), ("", "\"\"")] {
            assert_eq!(user_id(user).to_string(), expected, "{user}");
        }
    }
}
