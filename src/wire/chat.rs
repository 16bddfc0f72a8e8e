//! The JSON of the rooms of the care team: messages, cleared rooms, and what is of the moment.

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{enveloped, user_id};
use crate::clock::Wall;
use crate::event::{ChatEvent, ChatMessage, Event};

/// `data` of a message or of a cleared room. The first three members of a message are those of older clients, which
/// name a room `conversation_id` or `session_id`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ChatData<'a> {
    Message {
        message: &'a str,
        sender: &'a str,
        conversation_id: &'a str,
        session_id: &'a str,
        message_id: String,
        user_id: Json,
    },
    Cleared {
        conversation_id: &'a str,
        session_id: &'a str,
        user_id: Json,
        everybody: bool,
    },
}

impl<'a> ChatData<'a> {
    pub(super) fn new(chat: &'a ChatEvent) -> Self {
        match chat {
            ChatEvent::Message(chat) => Self::message(chat),
            ChatEvent::Cleared(chat) => Self::Cleared {
                conversation_id: &chat.cleared,
                session_id: &chat.cleared,
                user_id: user_id(&chat.by),
                everybody: chat.everybody,
            },
        }
    }

    fn message(chat: &'a ChatMessage) -> Self {
        Self::Message {
            message: &chat.message,
            sender: &chat.sender,
            conversation_id: &chat.room,
            session_id: &chat.room,
            message_id: chat.id.to_string(),
            user_id: user_id(&chat.sender),
        }
    }
}

/// The text of a message for a client that has joined by `join_session`: the push, under the name such clients know.
///
/// # Errors
/// As [`super::push`].
pub fn chat_received(event: &Event) -> Result<String, serde_json::Error> {
    enveloped(event, "message_received", None, false)
}

/// A message as a page of a conversation has it.
pub fn line(event: &Event, chat: &ChatMessage) -> Json {
    json!({
        "message": chat.message, "sender": chat.sender, "conversation_id": chat.room, "session_id": chat.room,
        "message_id": chat.id, "user_id": user_id(&chat.sender), "timestamp": event.at.wall.to_string(),
        "seq": event.seq, "epoch": event.epoch,
    })
}

/// The text of what is of the moment: the envelope and its channel, but no number, because it is no event.
///
/// # Errors
/// Those of serialising `data`.
pub fn moment(
    kind: &str,
    data: &Json,
    channel: &str,
    correlation_id: &str,
    at: Wall,
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Frame<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        data: &'a Json,
        timestamp: String,
        correlation_id: &'a str,
        channel: &'a str,
    }
    serde_json::to_string(&Frame { kind, data, timestamp: at.to_string(), correlation_id, channel })
}
