//! What clients may send, as types: the contract is made of them, and a test holds the reader to them.
//!
//! [`crate::server::message`] reads by hand, because it takes members at the top and under `data`, the names of older
//! clients, and answers what it cannot read in words. A new message is a type here and a line in [`REQUESTS`].

#![expect(dead_code, reason = "only the schemas of these types are made; the reader reads by hand")]

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use crate::event::{NotificationKind, Priority};
use crate::ids::{Epoch, PatientId, RuleId, Seq, SourceId};
use crate::vitals::{Breathing, Consciousness};
use crate::wire::shape::{Kind, UserId, Uuid};

/// A message of a client: its members, and the types of frame that answer it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    /// Its `type` and its members.
    pub(super) members: Kind,
    /// What answers it; nothing, where nothing does.
    pub(super) answers: &'static [&'static str],
}

const fn request<M: JsonSchema>(name: &'static str, answers: &'static [&'static str]) -> Request {
    Request { members: Kind::of::<M>(name), answers }
}

/// Every message that is taken.
pub(super) const REQUESTS: &[Request] = &[
    request::<Authenticate>("authenticate", &["authenticated", "auth_error", "error"]),
    request::<Authenticate>("refresh", &["authenticated", "auth_error", "error"]),
    request::<Subscribe>("subscribe", &["subscribed", "error"]),
    request::<Unsubscribe>("unsubscribe", &["unsubscribed", "error"]),
    request::<AlertReceipt>("alert_receipt", &["error"]),
    request::<Ack>("ack", &["error"]),
    request::<CommandMembers>("command", &["result", "error"]),
    request::<SetPreferences>("set_preferences", &["result", "error"]),
    request::<GetPreferences>("get_preferences", &["result", "error"]),
    request::<Ping>("ping", &["pong"]),
    request::<Heartbeat>("heartbeat", &[]),
    request::<Heartbeat>("pong", &[]),
];

/// Signs in, or goes on with a newer token of the same user.
#[derive(Debug, Serialize, JsonSchema)]
struct Authenticate {
    /// A JSON Web Token.
    token: String,
}

/// Listens. Without channels: to what the address is for.
#[derive(Debug, Serialize, JsonSchema)]
struct Subscribe {
    /// Channels, with `+` and `#`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    channels: Option<Vec<String>>,
    /// One channel, or one of the names that older clients use.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription: Option<String>,
    /// The last event that the client has.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Since>,
    /// How readings come.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<DeliveryMode>,
    /// The client shows alerts to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    annunciator: Option<bool>,
}

/// The last event that a client has.
#[derive(Debug, Serialize, JsonSchema)]
struct Since {
    epoch: Epoch,
    seq: Seq,
}

/// How readings come.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DeliveryMode {
    /// Each of them.
    All,
    /// The newest of each stream.
    Latest,
}

/// Stops listening.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Unsubscribe {
    Channels {
        /// As they were subscribed to.
        #[schemars(length(min = 1, max = 128))]
        channels: Vec<String>,
    },
    Named {
        /// As it was subscribed to.
        subscription: String,
    },
}

/// Alerts have come, or are shown to people.
#[derive(Debug, Serialize, JsonSchema)]
struct AlertReceipt {
    state: ReceiptState,
    /// Which, each with its newest event that the client has.
    #[schemars(length(min = 1, max = 256))]
    alerts: Vec<AlertSeen>,
    /// The run that numbered these events; left out: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
}

/// How far alerts have come.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ReceiptState {
    /// The client has them.
    Delivered,
    /// A person can read them.
    Shown,
}

/// An alert that a client has.
#[derive(Debug, Serialize, JsonSchema)]
struct AlertSeen {
    #[schemars(with = "Uuid")]
    alert_id: String,
    seq: Seq,
}

/// The client has these messages for people.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Ack {
    These {
        /// Their ids.
        #[schemars(with = "Vec<Uuid>", length(min = 1, max = 128))]
        ids: Vec<String>,
    },
    Through {
        /// One's own notifications.
        channel: String,
        /// Everything up to this one.
        seq: Seq,
    },
}

/// Chooses what to be told of.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum SetPreferences {
    Plain(Mute),
    Nested { preferences: Mute },
}

/// Kinds of message that are not for this user. What has priority high always comes.
#[derive(Debug, Serialize, JsonSchema)]
struct Mute {
    mute: Vec<NotificationKind>,
}

/// Asks what one is told of.
#[derive(Debug, Serialize, JsonSchema)]
struct GetPreferences {}

/// Asks whether the server is there.
#[derive(Debug, Serialize, JsonSchema)]
struct Ping {}

/// Says that the client is there. It is not answered.
#[derive(Debug, Serialize, JsonSchema)]
struct Heartbeat {}

/// What a person wants done.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Command")]
#[serde(tag = "name")]
enum CommandMembers {
    /// A person has seen an alert.
    #[serde(rename = "alert.acknowledge")]
    Acknowledge {
        #[schemars(with = "Uuid")]
        alert_id: String,
        /// The newest event of the alert that the person saw.
        expected_seq: Seq,
    },
    /// Silences an alert for a while.
    #[serde(rename = "alert.pause_audio")]
    PauseAudio {
        #[schemars(with = "Uuid")]
        alert_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        expected_seq: Option<Seq>,
        /// 120 if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 120))]
        seconds: Option<u64>,
    },
    /// Puts a latched alert away.
    #[serde(rename = "alert.reset")]
    Reset {
        #[schemars(with = "Uuid")]
        alert_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        expected_seq: Option<Seq>,
    },
    /// Other limits or delays of a rule for a patient, for a while: see docs/alerts.md.
    #[serde(rename = "limits.set")]
    SetLimits {
        patient_id: PatientId,
        rule: RuleId,
        /// As in a rule file. The four limits may stand beside the other members instead.
        #[serde(skip_serializing_if = "Option::is_none")]
        when: Option<Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        below: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        at_most: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        above: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        at_least: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        clear: Option<Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        delay: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        clear_delay: Option<String>,
        /// Until when.
        expires: String,
        /// Why.
        reason: String,
    },
    /// Takes changed limits back.
    #[serde(rename = "limits.clear")]
    ClearLimits {
        patient_id: PatientId,
        rule: RuleId,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// ALARM OFF for a while.
    #[serde(rename = "rule.disable")]
    DisableRule {
        patient_id: PatientId,
        rule: RuleId,
        /// Until when.
        until: String,
        /// Why.
        reason: String,
    },
    /// The end of ALARM OFF.
    #[serde(rename = "rule.enable")]
    EnableRule {
        patient_id: PatientId,
        rule: RuleId,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What no sensor sees. At least one of the two has to be there.
    #[serde(rename = "observation.set")]
    Observe {
        patient_id: PatientId,
        #[serde(skip_serializing_if = "Option::is_none")]
        oxygen: Option<Entered<Breathing>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        consciousness: Option<Entered<Consciousness>>,
    },
    /// The monitor with this serial number is the right one for its bed.
    #[serde(rename = "device.confirm")]
    ConfirmDevice { source_id: SourceId, serial_number: String },
    /// A command of the monitor's profile.
    #[serde(rename = "device.command")]
    CommandDevice { source_id: SourceId, command: String },
    /// A message for people, now or later. By `users`, `roles` or `patient` it says for whom.
    #[serde(rename = "notification.send")]
    Send {
        kind: SentKind,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Vec<UserId>>", length(min = 1, max = 64))]
        users: Option<Vec<Json>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 5))]
        roles: Option<Vec<crate::server::auth::Role>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        patient: Option<PatientId>,
        #[schemars(length(min = 1))]
        title: String,
        #[schemars(length(min = 1))]
        message: String,
        /// `medium` if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<Priority>,
        /// When; now if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        at: Option<String>,
        /// It is of no use any more after this.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires: Option<String>,
    },
    /// Takes a message for later back.
    #[serde(rename = "notification.withdraw")]
    Withdraw {
        #[schemars(with = "Uuid")]
        notification_id: String,
    },
    /// Chooses what to be told of.
    #[serde(rename = "preferences.set")]
    Prefer { mute: Vec<NotificationKind> },
}

/// What a person entered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}OrUnknown")]
#[serde(untagged)]
enum Entered<T> {
    /// This.
    Is(T),
    /// It is taken back.
    Unknown(Unknown),
}

/// Takes an entry back.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    Unknown,
}

/// The kinds of message that a person may send.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SentKind {
    MedicationReminder,
    AppointmentReminder,
    System,
}
