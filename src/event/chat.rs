//! What happens in the rooms of the care team and is kept: messages, and the clearing of a room.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Something in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ChatEvent {
    /// Somebody wrote.
    Message(ChatMessage),
    /// Somebody cleared it.
    Cleared(ChatCleared),
}

/// A message of the care team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// Its identity: the same whenever the sender sends it again under the same name.
    #[serde(default)]
    pub id: Uuid,
    /// The room.
    pub room: String,
    /// Who wrote it.
    pub sender: String,
    /// The text, as it was written.
    pub message: String,
}

/// A room is empty from here on: what was written before is not shown any more. The log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatCleared {
    /// The room.
    pub cleared: String,
    /// Who did it.
    pub by: String,
    /// For everybody; else for `by` alone.
    pub everybody: bool,
}

impl ChatEvent {
    /// The room.
    pub fn room(&self) -> &str {
        match self {
            Self::Message(message) => &message.room,
            Self::Cleared(cleared) => &cleared.cleared,
        }
    }

    /// True if this user is told of it, as far as the room is open to him: what somebody clears for himself is his own.
    pub fn concerns(&self, user: &str) -> bool {
        match self {
            Self::Message(_) => true,
            Self::Cleared(cleared) => cleared.everybody || cleared.by == user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_row_comes_back_as_what_it_was() {
        let message = ChatMessage { id: Uuid::from_u128(1), room: "r".into(), sender: "s".into(), message: "m".into() };
        let cleared = ChatCleared { cleared: "r".into(), by: "s".into(), everybody: false };
        for event in [ChatEvent::Message(message), ChatEvent::Cleared(cleared)] {
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<ChatEvent>(&text).unwrap(), event, "{text}");
        }
        let older = serde_json::from_str(r#"{"room":"r","sender":"s","message":"m"}"#).unwrap();
        assert!(matches!(older, ChatEvent::Message(ChatMessage { id, .. }) if id.is_nil()));
    }

    #[test]
    fn what_somebody_clears_for_himself_concerns_nobody_else() {
        let cleared = |everybody| ChatEvent::Cleared(ChatCleared { cleared: "r".into(), by: "lena".into(), everybody });
        for (everybody, user, expected) in
            [(false, "lena", true), (false, "otto", false), (true, "lena", true), (true, "otto", true)]
        {
            assert_eq!(cleared(everybody).concerns(user), expected, "{everybody} {user}");
        }
    }
}
