//! What a client says in the rooms of the care team, with the names of older clients; and pages of a conversation.

use std::time::Duration;

use serde_json::Value as Json;
use tracing::warn;

use crate::channel::{BadPattern, Pattern, notifications_of};
use crate::command::{BadMember, MAX_USER_BYTES, Members};
use crate::event::Event;
use crate::ids::{Epoch, PatientId, Seq};
use crate::rooms::{channel_of, is_room};
use crate::server::message::{Fields, Unreadable, aliased as channels_of};
use crate::server::socket::Gate;
use crate::store::PageWanted;

/// Longest message, in characters.
pub const MAX_TEXT: usize = 4000;

/// Messages of a page where the request does not say.
pub const PAGE: usize = 50;

/// Most messages of a page.
pub const MAX_PAGE: usize = 100;

/// Most bytes of text in a page; beyond it the page ends early, and the next one goes on.
const MAX_PAGE_BYTES: usize = 256 * 1024;

/// A page waits this long for the newest messages to be on disk, and is then what the disk has.
const PAGE_PATIENCE: Duration = Duration::from_secs(1);

/// What a client wants in the rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatRequest {
    /// Be there.
    Join {
        /// The room's channel, or those of an alias.
        patterns: Vec<Pattern>,
        /// From the event after this one on.
        since: Option<(Epoch, Seq)>,
        /// By `join_session`: this client knows the names of form B.
        is_session: bool,
    },
    /// Be there no more.
    Leave {
        /// The room's channel, or those of an alias.
        patterns: Vec<Pattern>,
    },
    /// Write.
    Send {
        /// The room.
        room: String,
        /// The text.
        text: String,
        /// The client's name for it, whole.
        name: Option<String>,
    },
    /// The user types, or has stopped to.
    Typing {
        /// The room.
        room: String,
        /// Types.
        is_typing: bool,
    },
    /// Show what was written before no more.
    Clear {
        /// The room.
        room: String,
        /// To nobody; else not to this user.
        everybody: bool,
    },
    /// A page of what was written.
    History {
        /// The room.
        room: String,
        /// Before this event.
        before: Seq,
        /// At most so many.
        limit: usize,
    },
    /// The user has read up to this event.
    Read {
        /// The room.
        room: String,
        /// The event.
        through: Seq,
    },
    /// The client shows this patient, or nobody.
    Activity {
        /// Whom.
        patient: Option<PatientId>,
    },
}

impl ChatRequest {
    /// Reads a message of this type; `None`: it is none of the rooms'.
    ///
    /// # Errors
    /// The first member that is missing or of another form.
    pub fn read(kind: &str, members: Members<'_>) -> Result<Option<Self>, Unreadable> {
        Ok(Some(match kind {
            "join_room" | "join_session" => {
                let since = Fields(members).since()?;
                Self::Join { patterns: patterns(members)?, since, is_session: kind == "join_session" }
            }
            "leave_room" | "leave_session" => Self::Leave { patterns: patterns(members)? },
            "message" | "send_message" => {
                Self::Send { room: room(members)?, text: text(members)?, name: name(members)? }
            }
            "typing" | "user_typing" => Self::Typing { room: room(members)?, is_typing: is_typing(members)? },
            "clear_conversation" => Self::Clear { room: room(members)?, everybody: everybody(members)? },
            "get_conversation_history" => {
                Self::History { room: room(members)?, before: before(members)?, limit: limit(members)? }
            }
            "mark_read" => {
                let through = members.get("seq").and_then(Json::as_u64).map(Seq);
                let through = through.ok_or(BadMember::new("seq", "is not the number of an event"))?;
                Self::Read { room: room(members)?, through }
            }
            "activity" => Self::Activity { patient: patient(members)? },
            _ => return Ok(None),
        }))
    }

    /// The message type, for errors.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Join { .. } => "join_room",
            Self::Leave { .. } => "leave_room",
            Self::Send { .. } => "message",
            Self::Typing { .. } => "typing",
            Self::Clear { .. } => "clear_conversation",
            Self::History { .. } => "get_conversation_history",
            Self::Read { .. } => "mark_read",
            Self::Activity { .. } => "activity",
        }
    }

    /// True for what a client says while a person types and reads: it must not use up what the same person needs to
    /// acknowledge an alarm.
    pub const fn is_small_talk(&self) -> bool {
        matches!(self, Self::Typing { .. } | Self::Read { .. } | Self::Activity { .. })
    }
}

/// The channels of a name that older systems have for a room: `clinic_{id}`, `doctor_{id}`, `conversation:{id}`.
/// `None`: it is no such name.
pub fn aliased(name: &str) -> Option<Result<Vec<Pattern>, BadPattern>> {
    let channels = if let Some(ward) = name.strip_prefix("clinic_") {
        // Everything of the clinic, and the room of those who work there.
        vec![format!("ward/{ward}/#"), channel_of(name)]
    } else if let Some(user) = name.strip_prefix("doctor_") {
        // What the doctor's own token covers; another one's notifications are refused, and so is the whole room.
        vec!["patient/+/+".to_owned(), "alerts/+".to_owned(), notifications_of(user), channel_of(name)]
    } else {
        vec![channel_of(name.strip_prefix("conversation:")?)]
    };
    Some(channels.iter().map(|channel| channel.parse()).collect())
}

/// The name of a room: text, or a number as some clients count.
fn named(members: Members<'_>) -> Result<String, BadMember> {
    const MISSING: BadMember = BadMember::new("conversation_id", "is missing (or `session_id`, `room_id`, `room`)");
    let names = ["conversation_id", "session_id", "room_id", "room"];
    let found = names.iter().find_map(|name| members.get(name)).ok_or(MISSING)?;
    let number = || found.as_u64().map(|number| number.to_string());
    found.as_str().map(str::to_owned).or_else(number).ok_or(MISSING)
}

fn room(members: Members<'_>) -> Result<String, BadMember> {
    let name = named(members)?;
    let room = name.strip_prefix("conversation:").unwrap_or(&name);
    let wrong = BadMember::new("conversation_id", "has 1 to 64 of A-Z a-z 0-9 _ -");
    is_room(room).then(|| room.to_owned()).ok_or(wrong)
}

/// The channels of a room that is joined or left.
fn patterns(members: Members<'_>) -> Result<Vec<Pattern>, Unreadable> {
    let name = named(members)?;
    let is_alias = name.starts_with("user:") || aliased(&name).is_some();
    if is_alias { channels_of(&name) } else { channels_of(&channel_of(&room(members)?)) }
}

fn text(members: Members<'_>) -> Result<String, BadMember> {
    let text = members.text("message").or_else(|| members.text("content")).or_else(|| members.text("text"));
    let text = text.ok_or(BadMember::new("message", "is missing"))?;
    let fits = !text.trim().is_empty() && text.chars().count() <= MAX_TEXT;
    fits.then(|| text.to_owned()).ok_or(BadMember::new("message", "has 1 to 4000 characters"))
}

/// A longer one than answers echo is refused, because two that differ at their ends must not become one message.
fn name(members: Members<'_>) -> Result<Option<String>, BadMember> {
    let Some(id) = members.get("correlation_id").or_else(|| members.get("id")) else { return Ok(None) };
    let number = || id.as_u64().map(|number| number.to_string());
    let id = id.as_str().map(str::to_owned).or_else(number).filter(|id| id.len() <= MAX_USER_BYTES);
    let id = id.ok_or(BadMember::new("correlation_id", "is not text of at most 128 bytes"))?;
    Ok((!id.is_empty()).then_some(id))
}

fn is_typing(members: Members<'_>) -> Result<bool, BadMember> {
    let said = members.get("is_typing").or_else(|| members.get("typing"));
    said.map_or(Some(true), Json::as_bool).ok_or(BadMember::new("is_typing", "is true or false"))
}

fn everybody(members: Members<'_>) -> Result<bool, BadMember> {
    let said = members.get("everybody");
    said.map_or(Some(false), Json::as_bool).ok_or(BadMember::new("everybody", "is true or false"))
}

fn before(members: Members<'_>) -> Result<Seq, BadMember> {
    let said = members.get("before");
    let before = said.map_or(Some(u64::MAX), Json::as_u64);
    before.map(Seq).ok_or(BadMember::new("before", "is the `next` of the page before"))
}

fn limit(members: Members<'_>) -> Result<usize, BadMember> {
    let said = members.get("limit").map_or(Some(PAGE), |limit| usize::try_from(limit.as_u64()?).ok());
    let limit = said.filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or(BadMember::new("limit", "is 1 to 100"))
}

fn patient(members: Members<'_>) -> Result<Option<PatientId>, BadMember> {
    let Some(said) = members.get("patient_id") else { return Ok(None) };
    let patient = said.as_str().and_then(|text| text.parse().ok());
    patient.map(Some).ok_or(BadMember::new("patient_id", "is not the id of a patient"))
}

/// A page of a conversation.
#[derive(Debug)]
pub struct Page {
    /// The messages, oldest first.
    pub messages: Vec<Event>,
    /// There may be older ones before this event.
    pub next: Option<Seq>,
}

/// Reads a page once everything up to `through` is on disk; `None` if it cannot be read.
pub(super) async fn page(gate: &Gate, wanted: PageWanted, through: Seq) -> Option<Page> {
    let mut durable = gate.durable.clone();
    // A disk that is behind gives what it has.
    let _ = tokio::time::timeout(PAGE_PATIENCE, durable.wait_for(|newest| *newest >= through)).await;
    let limit = wanted.limit;
    let mut messages = match gate.reader.conversation(wanted).await {
        Ok(messages) => messages,
        Err(error) => {
            warn!(%error, "a conversation cannot be read");
            return None;
        }
    };
    let found = messages.len();
    let mut bytes = 0;
    let fits = messages.iter().take_while(|event| {
        bytes += crate::wire::push(event).map_or(0, |text| text.len());
        bytes <= MAX_PAGE_BYTES
    });
    let kept = fits.count();
    messages.truncate(kept.max(1));
    let next = messages.last().filter(|_| found == limit || kept < found).map(|oldest| oldest.seq);
    messages.reverse();
    Some(Page { messages, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: &Json) -> Result<ChatRequest, String> {
        let kind = json["type"].as_str().unwrap();
        ChatRequest::read(kind, Members(json)).map(Option::unwrap).map_err(|error| error.to_string())
    }

    #[test]
    fn a_message_is_read_under_every_name_that_clients_have() {
        let (room, text) = ("r-1".to_owned(), " a\nb ".to_owned());
        let expected = |name: Option<&str>| ChatRequest::Send {
            room: room.clone(),
            text: text.clone(),
            name: name.map(str::to_owned),
        };
        for (json, name) in [
            (json!({"type": "message", "message": text, "conversation_id": room}), None),
            (json!({"type": "message", "data": {"message": text, "conversation_id": room}, "id": 7}), Some("7")),
            (json!({"type": "send_message", "room": room, "content": text, "correlation_id": "c"}), Some("c")),
            (json!({"type": "send_message", "data": {"session_id": room, "text": text}, "id": ""}), None),
            (json!({"type": "message", "message": text, "room_id": "conversation:r-1"}), None),
        ] {
            assert_eq!(read(&json), Ok(expected(name)), "{json}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_which_member_is_wrong() {
        let long = "x".repeat(MAX_TEXT + 1);
        for (json, expected) in [
            (json!({"type": "message", "message": "m"}), "`conversation_id` is missing"),
            (json!({"type": "message", "conversation_id": "a/b", "message": "m"}), "`conversation_id` has 1 to 64"),
            (json!({"type": "message", "conversation_id": "+", "message": "m"}), "`conversation_id` has 1 to 64"),
            (json!({"type": "message", "conversation_id": ["a"], "message": "m"}), "`conversation_id` is missing"),
            (json!({"type": "message", "conversation_id": "a"}), "`message` is missing"),
            (json!({"type": "message", "conversation_id": "a", "message": " \n"}), "`message` has 1 to 4000"),
            (json!({"type": "message", "conversation_id": "a", "message": long}), "`message` has 1 to 4000"),
            (
                json!({"type": "message", "conversation_id": "a", "message": "m", "id": "x".repeat(129)}),
                "`correlation_id` is not text of at most",
            ),
            (json!({"type": "typing", "conversation_id": "a", "is_typing": "yes"}), "`is_typing` is true"),
            (json!({"type": "clear_conversation", "conversation_id": "a", "everybody": 1}), "`everybody` is"),
            (json!({"type": "get_conversation_history", "conversation_id": "a", "limit": 0}), "`limit` is 1 to 100"),
            (json!({"type": "get_conversation_history", "conversation_id": "a", "limit": 101}), "`limit` is 1"),
            (json!({"type": "get_conversation_history", "conversation_id": "a", "before": -1}), "`before` is"),
            (json!({"type": "mark_read", "conversation_id": "a"}), "`seq` is not"),
            (json!({"type": "activity", "patient_id": "a b"}), "`patient_id` is not"),
            (json!({"type": "join_room", "room": "a b"}), "`conversation_id` has 1 to 64"),
        ] {
            let error = read(&json).unwrap_err();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }

    #[test]
    fn rooms_of_other_systems_are_channels_here() {
        for (name, expected) in [
            ("ward-1", &["chat/ward-1"][..]),
            ("conversation:0193a", &["chat/0193a"]),
            ("user:7", &["notifications/7"]),
            ("clinic_icu", &["ward/icu/#", "chat/clinic_icu"]),
            ("doctor_7", &["patient/+/+", "alerts/+", "notifications/7", "chat/doctor_7"]),
        ] {
            let Ok(ChatRequest::Join { patterns, .. }) = read(&json!({"type": "join_room", "room": name})) else {
                panic!("{name}");
            };
            assert_eq!(patterns.iter().map(Pattern::as_str).collect::<Vec<_>>(), expected, "{name}");
        }
    }
}
