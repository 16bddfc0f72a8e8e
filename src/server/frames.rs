//! What the server says beside events: each frame's `data` as a type, from which both the text and the contract are made.
//!
//! A new frame is a type here and a line in [`FRAMES`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use crate::alerts::delivery::DeliveryState;
use crate::event::Preferences;
use crate::ids::{BridgeId, Epoch, Seq, SiteId};
use crate::outbox::GapStream;
use crate::server::auth::Role;
use crate::server::history;
use crate::wire::shape::{Kind, Timestamp, UserId, Uuid};
use crate::wire::{self, Snapshot};

/// `data` of one type of frame.
pub trait Frame: Serialize {
    /// The `type` of the frame.
    const TYPE: &'static str;
}

macro_rules! frames {
    ($($data:ty = $name:literal,)+) => {
        $(impl Frame for $data {
            const TYPE: &'static str = $name;
        })+

        /// Every frame that is not an event.
        pub const FRAMES: &[Kind] = &[$(wire::frame_of::<$data>($name),)+];
    };
}

frames! {
    WelcomeData<'_> = "welcome",
    AuthenticatedData = "authenticated",
    AuthErrorData = "auth_error",
    TokenExpiringData = "token_expiring",
    SubscribedData<'_> = "subscribed",
    UnsubscribedData<'_> = "unsubscribed",
    Snapshot<'_> = "snapshot",
    StreamsData<'_> = "streams",
    GapData<'_> = "gap",
    history::Page = "history",
    CompleteData = "complete",
    ConversationData<'_> = "conversation_history",
    HeartbeatData<'_> = "heartbeat",
    PongData = "pong",
    ResultData<'_> = "result",
    ErrorData = "error",
    AlertSystemData<'_> = "alert_system",
    ClosingData = "closing",
}

/// The first frame of a connection: who speaks, and how.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WelcomeData<'a> {
    /// `vitalbridge`.
    pub server: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The subprotocol of this connection.
    pub protocol: &'static str,
    /// The number of this connection, for management and the log.
    pub connection_id: &'a str,
    /// Which bridge.
    pub bridge_id: &'a BridgeId,
    /// Where it stands.
    pub site: &'a SiteId,
    /// This run of the daemon.
    pub epoch: &'a Epoch,
    /// A `heartbeat` comes this often.
    pub heartbeat_ms: u64,
    /// The server's monotonic clock.
    pub mono_ms: u64,
}

/// A token was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AuthenticatedData {
    /// Whose it is.
    #[schemars(with = "UserId")]
    pub user_id: Json,
    /// What the user is.
    pub role: Role,
    /// When the token ends.
    #[schemars(with = "Timestamp")]
    pub expires_at: String,
}

/// A token was refused; the connection is closed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AuthErrorData {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The same token may be taken later.
    pub retryable: bool,
}

/// The token ends soon: refresh it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TokenExpiringData {
    /// When.
    #[schemars(with = "Timestamp")]
    pub expires_at: String,
}

/// The answer to `subscribe`. What was missed, then a `snapshot`, then the present follow.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubscribedData<'a> {
    /// The channels of the request.
    pub channels: Vec<&'a str>,
    /// Everything since `since` comes.
    pub recovered: bool,
    /// The first event that can come.
    pub first_seq: Seq,
    /// The last event before the present.
    pub last_seq: Seq,
    /// This run of the daemon.
    pub epoch: &'a Epoch,
    /// Ranges of events that are gone, first and last of each.
    pub lost: &'a [(Seq, Seq)],
    /// The rooms that were joined.
    pub rooms: BTreeMap<&'a str, RoomData>,
    /// Of a client that acknowledges: the newest event of each alerts' channel that the user's clients have. Else null.
    pub cursors: Option<&'a BTreeMap<String, Seq>>,
}

/// A room of the care team.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RoomData {
    /// Who is there, as far as a list reaches.
    #[schemars(with = "Vec<UserId>")]
    pub members: Vec<Json>,
    /// How many are there.
    pub member_count: usize,
    /// Up to where this user has read; null where that is not known.
    pub read_through: Option<Seq>,
}

/// The answer to `unsubscribe`, or channels that a newer token does not allow.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnsubscribedData<'a> {
    /// Which.
    pub channels: Vec<&'a str>,
    /// These are lost of subscriptions that stay: the newer token does not allow them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrowed: Option<bool>,
}

/// Streams and their numbers in `vitals.v1.compact`: what readings of them have in common. A number is never given twice in
/// a run of the daemon.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StreamsData<'a> {
    /// The run that these numbers, and every compact reading, belong to.
    pub epoch: &'a Epoch,
    /// The moment from which compact readings count milliseconds.
    #[schemars(with = "Timestamp")]
    pub base: String,
    /// The streams that are new to this client.
    pub streams: Vec<StreamData>,
}

/// A stream.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StreamData {
    /// Its number.
    pub stream: u32,
    /// The channel of its readings.
    pub channel: String,
    /// Those members of a reading's `data` that all of them have, unless a reading says otherwise.
    #[schemars(with = "serde_json::Map<String, Json>")]
    pub data: Box<serde_json::value::RawValue>,
}

/// Readings were skipped because the client was slow, or are neither on disk nor in memory.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GapData<'a> {
    /// The first of them.
    pub from: Seq,
    /// The last of them; others may lie between that came.
    pub to: Seq,
    /// How many.
    pub skipped: u64,
    /// The run that numbered them.
    pub epoch: &'a Epoch,
    /// The same of each stream; of none where nobody knows what they were.
    pub streams: Vec<GapStreamData<'a>>,
}

/// What was skipped of one stream.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GapStreamData<'a> {
    /// Its channel.
    pub channel: &'a str,
    /// The first of them.
    pub from: Seq,
    /// The last of them.
    pub to: Seq,
    /// How many.
    pub skipped: u64,
}

impl<'a> GapStreamData<'a> {
    /// As the outbox counted it.
    pub fn of(stream: &'a GapStream) -> Self {
        let GapStream { from, last, skipped } = stream;
        Self { channel: last.channel(), from: *from, to: last.event.seq, skipped: *skipped }
    }
}

/// What was said in a room was taken, or the room was cleared.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CompleteData {
    /// True.
    pub ok: wire::Yes,
    /// The room.
    pub conversation_id: String,
    /// The room, as older clients name it.
    pub session_id: String,
    /// The message that it made; of what was cleared there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Uuid>")]
    pub message_id: Option<String>,
    /// The number of the event.
    pub seq: Seq,
    /// That event is on disk.
    pub durable: bool,
}

/// A page of a conversation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConversationData<'a> {
    /// The room.
    pub conversation_id: &'a str,
    /// The room, as older clients name it.
    pub session_id: &'a str,
    /// What was written, oldest first.
    pub messages: Vec<wire::Line<'a>>,
    /// Ask again with this as `before` for what is older; null: there is nothing older.
    pub next: Option<Seq>,
}

/// Comes whatever else flows: two missed, and the link is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HeartbeatData<'a> {
    /// The server's monotonic clock.
    pub mono_ms: u64,
    /// The newest event that is on disk.
    pub durable_through: Seq,
    /// This run of the daemon.
    pub epoch: &'a Epoch,
    /// Channels of readings, and how old the newest reading on each is, in ms.
    pub ages: BTreeMap<&'a str, u64>,
}

/// The answer to `ping`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PongData {
    /// The server's monotonic clock.
    pub mono_ms: u64,
}

/// The answer to a command or a question.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ResultData<'a> {
    /// It was done.
    Done(wire::Done),
    /// It was not done.
    Refused(wire::Refused<'a>),
    /// What a user is told of.
    Preferences(wire::ChosenPreferences<'a>),
}

impl<'a> ResultData<'a> {
    /// It was done.
    pub const fn done(seq: Seq, durable: bool) -> Self {
        Self::Done(wire::Done { ok: wire::Yes, seq, durable })
    }

    /// It was not done.
    pub fn refused(code: &'a str, message: impl Into<Cow<'a, str>>) -> Self {
        Self::Refused(wire::Refused { ok: wire::No, code, message: message.into() })
    }

    /// What a user is told of.
    pub fn preferences(preferences: &'a Preferences) -> Self {
        Self::Preferences(wire::preferences(preferences))
    }
}

/// A message could not be answered. What the client sent is never echoed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorData {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The same message may be taken later.
    pub retryable: bool,
    /// What it is about.
    #[schemars(extend("enum" = ["request", "subscription", "connection"]))]
    pub scope: &'static str,
}

/// Alerting works, and these alerts are present.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AlertSystemData<'a> {
    /// Rises by one.
    pub self_check: u64,
    /// It comes this often; two missed, and there are no alarms from this bridge.
    pub every_ms: u64,
    /// The newest event when it was made.
    pub through: Seq,
    /// This run of the daemon.
    pub epoch: &'a Epoch,
    /// The present alerts of your subscriptions.
    pub alerts: Vec<CheckedAlertData>,
    /// How many connections show alerts to people.
    pub annunciators: usize,
    /// How many alerts nobody has shown in time.
    pub undelivered: usize,
    /// What people have to read all the time.
    pub notice: Option<&'static str>,
}

/// A present alert.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckedAlertData {
    /// Which.
    #[schemars(with = "Uuid")]
    pub alert_id: String,
    /// Its newest event.
    pub seq: Seq,
    /// How far it has come; null where nothing is asked for.
    pub delivery: Option<DeliveryState>,
}

/// The connection is closed with this code after this frame.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ClosingData {
    /// The close code.
    #[schemars(range(min = 1000, max = 4999))]
    pub code: u16,
    /// Its name.
    pub reason: &'static str,
    /// The same client may come back, with a new token after 41xx.
    pub reconnect: bool,
    /// It should wait this long.
    pub retry_after_ms: u64,
}
