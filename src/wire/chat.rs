//! The JSON of the rooms of the care team: messages, cleared rooms, and what is of the moment.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;

use super::shape::{Kind, Timestamp, UserId, Uuid};
use super::{Push, enveloped, user_id};
use crate::clock::Wall;
use crate::event::{ChatEvent, ChatMessage, Event, EventBody};
use crate::ids::{Epoch, PatientId, Seq};

/// The `type` of a message for clients that have joined by `join_session`.
const OLDER_MESSAGE: &str = "message_received";

/// What somebody wrote in a room. The first three members are those of older clients.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ChatMessageData")]
pub(super) struct MessageData<'a> {
    message: &'a str,
    sender: &'a str,
    conversation_id: &'a str,
    /// The room, as older clients name it.
    session_id: &'a str,
    #[schemars(with = "Uuid")]
    message_id: String,
    #[schemars(with = "UserId")]
    user_id: Json,
}

impl<'a> MessageData<'a> {
    fn new(chat: &'a ChatMessage) -> Self {
        Self {
            message: &chat.message,
            sender: &chat.sender,
            conversation_id: &chat.room,
            session_id: &chat.room,
            message_id: chat.id.to_string(),
            user_id: user_id(&chat.sender),
        }
    }
}

/// What was written in a room before is shown no more.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConversationClearedData")]
pub(super) struct ClearedData<'a> {
    conversation_id: &'a str,
    /// The room, as older clients name it.
    session_id: &'a str,
    /// Who cleared it.
    #[schemars(with = "UserId")]
    user_id: Json,
    /// To nobody; else not to this user.
    everybody: bool,
}

/// `data` of a message or of a cleared room.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ChatData<'a> {
    Message(MessageData<'a>),
    Cleared(ClearedData<'a>),
}

impl<'a> ChatData<'a> {
    pub(super) fn new(chat: &'a ChatEvent) -> Self {
        match chat {
            ChatEvent::Message(chat) => Self::Message(MessageData::new(chat)),
            ChatEvent::Cleared(chat) => Self::Cleared(ClearedData {
                conversation_id: &chat.cleared,
                session_id: &chat.cleared,
                user_id: user_id(&chat.by),
                everybody: chat.everybody,
            }),
        }
    }
}

/// The text of a message for a client that has joined by `join_session`: the push, under the name such clients know.
///
/// # Errors
/// As [`super::push`].
pub fn chat_received(event: &Event) -> Result<String, serde_json::Error> {
    enveloped(event, OLDER_MESSAGE, None, false)
}

/// A message as a page of a conversation has it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ConversationLine")]
pub struct Line<'a> {
    #[serde(flatten)]
    message: MessageData<'a>,
    #[schemars(with = "Timestamp")]
    timestamp: String,
    seq: Seq,
    epoch: &'a Epoch,
}

impl<'a> Line<'a> {
    /// `None` of what is no message.
    pub fn of(event: &'a Event) -> Option<Self> {
        let EventBody::Chat(ChatEvent::Message(message)) = &event.body else { return None };
        let (message, timestamp) = (MessageData::new(message), event.at.wall.to_string());
        Some(Self { message, timestamp, seq: event.seq, epoch: &event.epoch })
    }
}

/// `data` of what is of the moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MomentData {
    /// Of `presence`.
    Presence(PresenceData),
    /// Of `typing`.
    Typing(TypingData),
    /// Of `conversation_read`.
    Read(ReadData),
    /// Of `activity`.
    Activity(ActivityData),
}

/// Somebody came into a room, or left it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PresenceData {
    /// The room.
    pub conversation_id: String,
    /// The room, as older clients name it.
    pub session_id: String,
    /// Who.
    #[schemars(with = "UserId")]
    pub user_id: Json,
    /// `online` or `offline`.
    #[schemars(extend("enum" = ["online", "offline"]))]
    pub status: &'static str,
    /// Who is there now, as far as a list reaches.
    #[schemars(with = "Vec<UserId>")]
    pub members: Vec<Json>,
    /// How many are there now.
    pub member_count: usize,
}

/// Somebody types in a room, or has stopped to.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TypingData {
    /// The room.
    pub conversation_id: String,
    /// The room, as older clients name it.
    pub session_id: String,
    /// Who.
    #[schemars(with = "UserId")]
    pub user_id: Json,
    /// The same as text.
    pub sender: String,
    /// Types.
    pub is_typing: bool,
}

/// The user has read a room up to an event, on some client.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReadData {
    /// The room.
    pub conversation_id: String,
    /// The room, as older clients name it.
    pub session_id: String,
    /// Who.
    #[schemars(with = "UserId")]
    pub user_id: Json,
    /// The event.
    pub through: Seq,
}

/// Who looks at a patient.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ActivityData {
    /// Whom.
    pub patient_id: PatientId,
    /// These, as far as a list reaches.
    #[schemars(with = "Vec<UserId>")]
    pub viewers: Vec<Json>,
    /// How many.
    pub viewer_count: usize,
}

/// The envelope of what is of the moment.
#[derive(Serialize, JsonSchema)]
struct MomentFrame<'a, D> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a D,
    #[schemars(with = "Timestamp")]
    timestamp: String,
    correlation_id: &'a str,
    channel: &'a str,
}

/// What clients alone are sent, beside numbered events: what is of the moment, and messages under the name that clients
/// know who have joined by `join_session`.
pub const MOMENTS: &[Kind] = &[
    Kind::of::<Push<'static, MessageData<'static>>>(OLDER_MESSAGE),
    Kind::of::<MomentFrame<'static, PresenceData>>("presence"),
    Kind::of::<MomentFrame<'static, PresenceData>>("session_update"),
    Kind::of::<MomentFrame<'static, TypingData>>("typing"),
    Kind::of::<MomentFrame<'static, TypingData>>("typing_indicator"),
    Kind::of::<MomentFrame<'static, ReadData>>("conversation_read"),
    Kind::of::<MomentFrame<'static, ActivityData>>("activity"),
];

/// The text of what is of the moment: the envelope and its channel, but no number, because it is no event.
///
/// # Errors
/// Those of serialising `data`.
pub fn moment(
    kind: &str,
    data: &MomentData,
    channel: &str,
    correlation_id: &str,
    at: Wall,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&MomentFrame { kind, data, timestamp: at.to_string(), correlation_id, channel })
}
