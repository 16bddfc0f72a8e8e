//! What is of the moment: told to who listens now, and to nobody later.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{MAX_LISTED, Members, channel_of};
use crate::clock::{Stamp, Wall};
use crate::ids::{PatientId, Seq};
use crate::named::named_enum;
use crate::wire::{ActivityData, MomentData, PresenceData, ReadData, TypingData, user_id};

named_enum! {
    /// Kinds of what is of the moment, by the `type` of their frames.
    MomentKind {
        /// Somebody came into a room, or left it.
        Presence = "presence",
        /// Somebody types in a room, or has stopped to.
        Typing = "typing",
        /// A user has read a room up to an event.
        Read = "conversation_read",
        /// Who looks at a patient.
        Activity = "activity",
    }
}

/// Whom it concerns, as far as they may see its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Who listens to its channel.
    Listeners,
    /// These, and every connection of the user whom it is about.
    ListenersAndOwn,
    /// Who listens to its channel, but not the user whom it is about.
    Others,
    /// Every connection of the user whom it is about.
    Own,
}

/// Something of the moment. It has no number, is not stored and not forwarded.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// What.
    pub kind: MomentKind,
    /// The channels on which it can be found; the first is its own.
    pub routes: Vec<String>,
    /// Whom it is about.
    pub by: String,
    /// Whom it concerns.
    pub audience: Audience,
    /// The connection that is told in its answer instead.
    pub answered: Option<u64>,
    /// `data` of the frame.
    pub data: MomentData,
    /// When.
    pub at: Wall,
}

impl Moment {
    /// True if nobody who has this one misses the other. Presence and activity say who is there in all, so the newest
    /// says everything; typing and reading are about one user.
    pub fn replaces(&self, other: &Self) -> bool {
        let is_complete = matches!(self.kind, MomentKind::Presence | MomentKind::Activity);
        self.kind == other.kind && self.routes.first() == other.routes.first() && (is_complete || self.by == other.by)
    }
}

/// Users as older clients know them.
fn user_ids<'a>(users: impl IntoIterator<Item = &'a str>) -> Vec<Json> {
    users.into_iter().map(user_id).collect()
}

impl Moment {
    /// That somebody came into a room or left it, and who is there now.
    pub fn presence(room: &str, user: &str, is_online: bool, members: &Members, now: Stamp) -> Self {
        presence(room, user, is_online, members, now)
    }
}

pub(super) fn presence(room: &str, user: &str, is_online: bool, members: &Members, now: Stamp) -> Moment {
    Moment {
        kind: MomentKind::Presence,
        routes: vec![channel_of(room)],
        by: user.to_owned(),
        audience: Audience::ListenersAndOwn,
        answered: None,
        data: MomentData::Presence(PresenceData {
            conversation_id: room.to_owned(),
            session_id: room.to_owned(),
            user_id: user_id(user),
            status: if is_online { "online" } else { "offline" },
            members: user_ids(members.users.iter().map(String::as_str)),
            member_count: members.count,
        }),
        at: now.wall,
    }
}

pub(super) fn typing(room: &str, user: &str, is_typing: bool, now: Stamp) -> Moment {
    Moment {
        kind: MomentKind::Typing,
        routes: vec![channel_of(room)],
        by: user.to_owned(),
        audience: Audience::Others,
        answered: None,
        data: MomentData::Typing(TypingData {
            conversation_id: room.to_owned(),
            session_id: room.to_owned(),
            user_id: user_id(user),
            sender: user.to_owned(),
            is_typing,
        }),
        at: now.wall,
    }
}

pub(super) fn read(room: &str, user: &str, through: Seq, now: Stamp) -> Moment {
    Moment {
        kind: MomentKind::Read,
        routes: vec![channel_of(room)],
        by: user.to_owned(),
        audience: Audience::Own,
        answered: None,
        data: MomentData::Read(ReadData {
            conversation_id: room.to_owned(),
            session_id: room.to_owned(),
            user_id: user_id(user),
            through,
        }),
        at: now.wall,
    }
}

pub(super) fn activity(patient: &PatientId, user: &str, viewers: &BTreeSet<&str>, now: Stamp) -> Moment {
    Moment {
        kind: MomentKind::Activity,
        routes: vec![format!("patient/{patient}/activity")],
        by: user.to_owned(),
        audience: Audience::Listeners,
        answered: None,
        data: MomentData::Activity(ActivityData {
            patient_id: patient.clone(),
            viewers: user_ids(viewers.iter().copied().take(MAX_LISTED)),
            viewer_count: viewers.len(),
        }),
        at: now.wall,
    }
}
