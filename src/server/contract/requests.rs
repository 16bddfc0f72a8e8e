//! What clients may send, as types: the contract is made of them, and a test holds the reader to them.
//!
//! [`crate::server::message`] reads by hand, because it takes members at the top and under `data`, the names of older
//! clients, and answers what it cannot read in words. A new message is a type here and a line in [`REQUESTS`].

#![expect(dead_code, reason = "only the schemas of these types are made; the reader reads by hand")]

use schemars::JsonSchema;
use schemars::generate::SchemaGenerator;
use serde::Serialize;
use serde_json::Value as Json;

use crate::event::{AlertKind, NotificationKind, Priority};
use crate::ids::{Epoch, PatientId, RuleId, Seq, SourceId};
use crate::vitals::{Breathing, Consciousness, Metric, Mode, Quality};
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
    request::<History>("history", &["history", "error"]),
    request::<AlertReceipt>("alert_receipt", &["error"]),
    request::<Ack>("ack", &["error"]),
    request::<CommandMembers>("command", &["result", "error"]),
    request::<SetPreferences>("set_preferences", &["result", "error"]),
    request::<GetPreferences>("get_preferences", &["result", "error"]),
    request::<Ping>("ping", &["pong"]),
    request::<Heartbeat>("heartbeat", &[]),
    request::<Heartbeat>("pong", &[]),
    request::<JoinRoom>("join_room", &["subscribed", "error"]),
    request::<JoinRoom>("join_session", &["subscribed", "session_update", "error"]),
    request::<LeaveRoom>("leave_room", &["unsubscribed", "error"]),
    request::<LeaveRoom>("leave_session", &["unsubscribed", "error"]),
    request::<Write>("message", &["complete", "error"]),
    request::<Write>("send_message", &["complete", "error"]),
    request::<Types>("typing", &["error"]),
    request::<Types>("user_typing", &["error"]),
    request::<ClearConversation>("clear_conversation", &["complete", "error"]),
    request::<GetConversation>("get_conversation_history", &["conversation_history", "error"]),
    request::<MarkRead>("mark_read", &["error"]),
    request::<LooksAt>("activity", &["error"]),
];

/// The `type` and the schema of the members of a command.
pub(super) fn command(generator: &mut SchemaGenerator) -> (&'static str, Json) {
    ("command", CommandMembers::json_schema(generator).to_value())
}

/// Signs in, or goes on with a newer token of the same user.
#[derive(Debug, Serialize, JsonSchema)]
struct Authenticate {
    /// A JSON Web Token.
    token: String,
    /// What the client calls itself, for those who manage connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
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
    delivery: Option<Delivery>,
    /// What is wanted of the events on these channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Filter>,
    /// The client acknowledges what comes on alerts' channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    acks: Option<bool>,
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

/// How readings come.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Delivery {
    Name(DeliveryMode),
    Members(DeliveryMembers),
}

/// How readings come, with what belongs to it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
enum DeliveryMembers {
    /// Each of them.
    All,
    /// The newest of each stream.
    Latest,
    /// As `latest`, and no more of each stream than this.
    Sampled {
        /// At most so many readings of a stream a second.
        #[schemars(range(min = 0.2, max = 100))]
        max_rate_hz: f64,
        /// Smaller changes are not sent, in the metric's unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0))]
        deadband: Option<f64>,
    },
}

/// Tags of events, each with one value or with a list of them.
#[derive(Debug, Serialize, JsonSchema)]
struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<Metric>")]
    metric: Option<OneOrMore<Metric>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<TagText>")]
    device_id: Option<OneOrMore<TagText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<TagText>")]
    patient_id: Option<OneOrMore<TagText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<TagText>")]
    ward: Option<OneOrMore<TagText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<TagText>")]
    source_id: Option<OneOrMore<TagText>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<Quality>")]
    quality: Option<OneOrMore<Quality>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<Priority>")]
    priority: Option<OneOrMore<Priority>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<AlertKind>")]
    kind: Option<OneOrMore<AlertKind>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OneOrMore<Mode>")]
    mode: Option<OneOrMore<Mode>>,
}

/// A value, or any of several.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OneOrMore{T}")]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    AnyOf(#[schemars(length(min = 1, max = 64))] Vec<T>),
}

/// The value of a tag.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(transparent)]
struct TagText(#[schemars(length(min = 1, max = 64))] String);

/// Asks what was on some channels: by `channels`, `subscription`, or `patient_id` with or without `metric`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum History {
    Channels {
        /// Channels, with `+` and `#`.
        #[schemars(length(min = 1, max = 128))]
        channels: Vec<String>,
        #[serde(flatten)]
        within: HistoryWithin,
    },
    Named {
        /// One channel, or one of the names that older clients use.
        subscription: String,
        #[serde(flatten)]
        within: HistoryWithin,
    },
    Patient {
        /// Whose readings.
        patient_id: PatientId,
        /// Of what; of everything if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        metric: Option<Metric>,
        #[serde(flatten)]
        within: HistoryWithin,
    },
}

/// Which part of what was.
#[derive(Debug, Serialize, JsonSchema)]
struct HistoryWithin {
    /// From here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Place>,
    /// Up to here.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Place>,
    /// Before this event: the `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Seq>,
    /// At most so many events; 100 if left out, and never more than 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

/// An event, or a time of publishing; both included.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Place {
    Event(Seq),
    Time(#[schemars(extend("format" = "date-time"))] String),
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

/// The client has these messages for people, or everything of a channel.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Ack {
    These {
        /// Their ids.
        #[schemars(with = "Vec<Uuid>", length(min = 1, max = 128))]
        ids: Vec<String>,
    },
    Through {
        /// One's own notifications, or alerts.
        channel: String,
        /// Everything up to this one.
        seq: Seq,
        /// The run that numbered it; left out: this one.
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<Epoch>,
    },
}

/// A room: 1 to 64 of A-Z a-z 0-9 _ -, also behind `conversation:`, or a number as some clients count.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum RoomName {
    Text(#[schemars(regex(pattern = r"^(conversation:)?[A-Za-z0-9_-]{1,64}$"))] String),
    Number(u64),
}

/// A message about a room, which has one of two names. Further ones are taken too: docs/chat.md.
macro_rules! in_room {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $member:ident: $form:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, JsonSchema)]
        #[serde(untagged)]
        enum $name {
            Conversation { conversation_id: RoomName, $($(#[$about])* $member: $form,)* },
            /// The room as older clients name it.
            Session { session_id: RoomName, $($(#[$about])* $member: $form,)* },
        }
    };
}

in_room!(
    /// Listens to a room and is there. A name of an older system (`clinic_1`, `doctor_7`) means its channels too.
    JoinRoom {
        /// The last event that the client has.
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<Since>,
    }
);
in_room!(
    /// Leaves a room.
    LeaveRoom {}
);
in_room!(
    /// Writes in a room. Its `correlation_id` is its name for ever: what is sent twice under it is one message.
    Write {
        #[schemars(length(min = 1, max = 4000), regex(pattern = r"\S"))]
        message: String,
    }
);
in_room!(
    /// The user types in a room, or has stopped to.
    Types {
        /// True if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        is_typing: Option<bool>,
    }
);
in_room!(
    /// What was written in a room before is shown no more.
    ClearConversation {
        /// To nobody; false if left out: not to this user.
        #[serde(skip_serializing_if = "Option::is_none")]
        everybody: Option<bool>,
    }
);
in_room!(
    /// Asks for a page of what was written in a room.
    GetConversation {
        /// Before this event: the `next` of the page before.
        #[serde(skip_serializing_if = "Option::is_none")]
        before: Option<Seq>,
        /// At most so many messages; 50 if left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 100))]
        limit: Option<u64>,
    }
);
in_room!(
    /// The user has read a room up to an event.
    MarkRead {
        /// The event.
        seq: Seq,
    }
);

/// The client shows this patient; without one: nobody.
#[derive(Debug, Serialize, JsonSchema)]
struct LooksAt {
    #[serde(skip_serializing_if = "Option::is_none")]
    patient_id: Option<PatientId>,
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
    /// Sends a range of the log to the broker once more: at most 1,000,000 numbers of one run. For administrators.
    #[serde(rename = "uplink.resend")]
    Resend {
        epoch: Epoch,
        #[schemars(with = "u64", range(min = 1))]
        first_seq: Seq,
        #[schemars(with = "u64", range(min = 1))]
        last_seq: Seq,
    },
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
