//! The rooms of the care team as they are at this moment: who is there, who types, who looks at whom. Pure.
//!
//! A room is the channel `chat/{room}`; it needs no making. Nothing of this is stored or forwarded: a restart begins with
//! empty rooms, and who comes back is there again. The pipeline owns the [`Rooms`], feeds them with what listeners of
//! the hub do, and tells the [`Moment`]s that they return.

mod moment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

pub use self::moment::{Audience, Moment, MomentKind};
use crate::channel::Pattern;
use crate::clock::{Mono, Stamp, Wall};
use crate::ids::{MAX_ID_BYTES, PatientId, Seq};

/// Who loses the last connection stays in a room for so long: a reconnect does not flicker.
pub const PRESENCE_GRACE: Duration = Duration::from_secs(5);

/// Somebody types until this long after the last word of it.
pub const TYPING_LIFE: Duration = Duration::from_secs(5);

/// Most people who type at once; one more is not shown.
pub const MAX_TYPING: usize = 1024;

/// Most rooms of users in which it is known up to where they have read; one more forgets the oldest place.
pub const MAX_READ_MARKS: usize = 4096;

/// Most users that a list of members names; the count says how many there are.
pub const MAX_LISTED: usize = 64;

/// Most messages that are remembered by their identity, so that one that is sent again is the same one. One more
/// forgets the oldest.
pub const MAX_REMEMBERED: usize = 10_000;

/// A message that is sent again within this time, in ms, is the same one.
pub const SAME_MESSAGE_MS: i64 = 24 * 3600 * 1000;

/// The channel of a room.
pub fn channel_of(room: &str) -> String {
    format!("chat/{room}")
}

/// True if a room can have this name: that of an identifier, such as a UUID.
pub fn is_room(name: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The room that a pattern names. `None`: it names none, or chooses among many.
pub fn room_of(pattern: &Pattern) -> Option<&str> {
    pattern.as_str().strip_prefix("chat/").filter(|room| is_room(room))
}

/// Who is in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The first [`MAX_LISTED`] users, sorted.
    pub users: Vec<String>,
    /// How many there are.
    pub count: usize,
}

/// What somebody is told who comes into rooms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomsNow {
    /// Who is there, and up to which event the user has read.
    pub members: BTreeMap<String, (Members, Option<Seq>)>,
    /// The newest message of any room, so that a page of history is not read before it is on disk.
    pub newest: Seq,
}

/// Whether a message was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// No.
    Never,
    /// By this event, within [`SAME_MESSAGE_MS`]: it is the same message.
    Lately(Seq),
    /// Before that: it is another message with the same words.
    LongAgo,
}

/// The identity of what `by` writes into a room under a name of his own: the same words under the same name are the
/// same message. The words count as well, because some clients number their messages anew on each page.
pub fn id_of(by: &str, name: &str, room: &str, text: &str) -> Uuid {
    // The lengths keep apart what would join to the same text.
    let whole = format!("{}:{by}:{}:{name}:{room}:{text}", by.len(), name.len());
    let digest = ring::digest::digest(&ring::digest::SHA256, whole.as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, digit)| *byte = *digit);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// One connection of a user.
#[derive(Debug)]
struct Connection {
    user: String,
    rooms: BTreeSet<String>,
    looks_at: Option<PatientId>,
}

/// All rooms.
#[derive(Debug, Default)]
pub struct Rooms {
    /// As many as the hub has listeners.
    connections: BTreeMap<u64, Connection>,
    /// Rooms, their users, and how many connections of each have joined. As many as connections have joined, and those
    /// that were lost within [`PRESENCE_GRACE`].
    members: BTreeMap<String, BTreeMap<String, usize>>,
    /// Room and user whose last connection was lost, and when the user leaves.
    leaving: BTreeMap<(String, String), Mono>,
    /// Room and user, and until when.
    typing: BTreeMap<(String, String), Mono>,
    /// User and room.
    read: BTreeMap<(String, String), Seq>,
    /// Messages by their identity, and their events.
    sent: BTreeMap<Uuid, (Seq, Wall)>,
    by_age: BTreeMap<Seq, Uuid>,
    newest: Seq,
}

impl Rooms {
    /// A connection listens to these patterns as well. Who names a room is in it from now on; a pattern that chooses
    /// among many makes nobody a member.
    pub fn on_joined(&mut self, listener: u64, user: &str, patterns: &[Pattern], now: Stamp) -> Vec<Moment> {
        let connection = self.connections.entry(listener).or_insert_with(|| Connection {
            user: user.to_owned(),
            rooms: BTreeSet::new(),
            looks_at: None,
        });
        let mut out = Vec::new();
        for room in patterns.iter().filter_map(room_of) {
            if !connection.rooms.insert(room.to_owned()) {
                continue;
            }
            let members = self.members.entry(room.to_owned()).or_default();
            let is_new = !members.contains_key(user);
            *members.entry(user.to_owned()).or_default() += 1;
            self.leaving.remove(&(room.to_owned(), user.to_owned()));
            if is_new {
                let moment = moment::presence(room, user, true, &listed(members), now);
                out.push(Moment { answered: Some(listener), ..moment });
            }
        }
        out
    }

    /// A connection does not listen to these patterns any more. This is said, so it holds at once.
    pub fn on_unsubscribed(&mut self, listener: u64, patterns: &[Pattern], now: Stamp) -> Vec<Moment> {
        let Some(connection) = self.connections.get_mut(&listener) else { return Vec::new() };
        let user = connection.user.clone();
        let left: Vec<&str> =
            patterns.iter().filter_map(room_of).filter(|room| connection.rooms.remove(*room)).collect();
        let mut out = Vec::new();
        for room in left {
            if self.loses(room, &user) == Some(0) {
                out.extend(self.remove(room, &user, now));
            }
        }
        out
    }

    /// A connection has gone. Its user stays for [`PRESENCE_GRACE`].
    pub fn on_left(&mut self, listener: u64, now: Stamp) -> Vec<Moment> {
        let Some(Connection { user, rooms, looks_at }) = self.connections.remove(&listener) else { return Vec::new() };
        for room in rooms {
            if self.loses(&room, &user) == Some(0) {
                self.leaving.insert((room, user.clone()), now.mono + PRESENCE_GRACE);
            }
        }
        looks_at.map(|patient| self.activity(&patient, &user, now)).into_iter().collect()
    }

    /// Somebody types, or has stopped to.
    pub fn on_typing(&mut self, room: &str, user: &str, is_typing: bool, now: Stamp) -> Vec<Moment> {
        let key = (room.to_owned(), user.to_owned());
        if !is_typing {
            return self.stops_typing(room, user, now).into_iter().collect();
        }
        if self.typing.len() >= MAX_TYPING && !self.typing.contains_key(&key) {
            return Vec::new();
        }
        self.typing.insert(key, now.mono + TYPING_LIFE);
        vec![moment::typing(room, user, true, now)]
    }

    /// A user has read a room up to an event; his other tabs are told. A place never goes back.
    pub fn on_read(&mut self, room: &str, user: &str, through: Seq, now: Stamp) -> Vec<Moment> {
        let key = (user.to_owned(), room.to_owned());
        if self.read.get(&key).is_some_and(|known| *known >= through) {
            return Vec::new();
        }
        if self.read.len() >= MAX_READ_MARKS && !self.read.contains_key(&key) {
            let oldest = self.read.iter().min_by_key(|(_, seq)| **seq).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.read.remove(&key));
        }
        self.read.insert(key, through);
        vec![moment::read(room, user, through, now)]
    }

    /// A connection shows this patient to its user from now on, or nobody.
    pub fn on_looks_at(&mut self, listener: u64, patient: Option<PatientId>, now: Stamp) -> Vec<Moment> {
        let Some(connection) = self.connections.get_mut(&listener) else { return Vec::new() };
        if connection.looks_at == patient {
            return Vec::new();
        }
        let user = connection.user.clone();
        let before = std::mem::replace(&mut connection.looks_at, patient.clone());
        before.into_iter().chain(patient).map(|patient| self.activity(&patient, &user, now)).collect()
    }

    /// A message was published: its sender does not type any more.
    pub fn on_message(&mut self, id: Uuid, room: &str, sender: &str, seq: Seq, now: Stamp) -> Vec<Moment> {
        self.remember(id, seq, now.wall);
        self.stops_typing(room, sender, now).into_iter().collect()
    }

    /// A message of this identity is known, also one of an earlier run.
    pub fn remember(&mut self, id: Uuid, seq: Seq, at: Wall) {
        self.newest = self.newest.max(seq);
        if let Some((before, _)) = self.sent.insert(id, (seq, at)) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(seq, id);
        if self.by_age.len() > MAX_REMEMBERED
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.sent.remove(&oldest);
        }
    }

    /// What is known of the message of this identity.
    pub fn sent(&self, id: Uuid, now: Wall) -> Sent {
        match self.sent.get(&id) {
            None => Sent::Never,
            Some((seq, at)) if now.0.saturating_sub(at.0) < SAME_MESSAGE_MS => Sent::Lately(*seq),
            Some(_) => Sent::LongAgo,
        }
    }

    /// When [`Rooms::on_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.leaving.values().chain(self.typing.values()).min().copied()
    }

    /// Time has passed: who was lost has gone, and who said nothing more does not type.
    pub fn on_deadline(&mut self, now: Stamp) -> Vec<Moment> {
        let is_due = |_: &(String, String), at: &mut Mono| *at <= now.mono;
        let mut out = Vec::new();
        for (room, user) in self.typing.extract_if(.., is_due).map(|(key, _)| key) {
            out.push(moment::typing(&room, &user, false, now));
        }
        for ((room, user), _) in self.leaving.extract_if(.., is_due).collect::<Vec<_>>() {
            out.extend(self.remove(&room, &user, now));
        }
        out
    }

    /// Who is in a room: everybody who has joined it by its name.
    pub fn members(&self, room: &str) -> Members {
        self.members.get(room).map(listed).unwrap_or_default()
    }

    /// Up to which event a user has read a room, as far as that is known.
    pub fn has_read(&self, room: &str, user: &str) -> Option<Seq> {
        self.read.get(&(user.to_owned(), room.to_owned())).copied()
    }

    /// What somebody is told who comes into these rooms.
    pub fn now(&self, patterns: &[Pattern], user: &str) -> RoomsNow {
        let rooms = patterns.iter().filter_map(room_of);
        let members = rooms.map(|room| (room.to_owned(), (self.members(room), self.has_read(room, user)))).collect();
        RoomsNow { members, newest: self.newest }
    }

    /// The connections of a user (`getUserSockets` of older systems): listeners of the hub.
    pub fn connections_of(&self, user: &str) -> Vec<u64> {
        let own = self.connections.iter().filter(|(_, connection)| connection.user == user);
        own.map(|(listener, _)| *listener).collect()
    }

    /// True while a user has a connection that listens to something, or lost the last one a moment ago
    /// (`isUserOnline`).
    pub fn is_online(&self, user: &str) -> bool {
        self.connections.values().any(|connection| connection.user == user)
            || self.members.values().any(|members| members.contains_key(user))
    }

    /// One connection of this user in the room less; the answer is how many are left.
    fn loses(&mut self, room: &str, user: &str) -> Option<usize> {
        let connections = self.members.get_mut(room)?.get_mut(user)?;
        *connections = connections.saturating_sub(1);
        Some(*connections)
    }

    /// A user is not in the room any more.
    fn remove(&mut self, room: &str, user: &str, now: Stamp) -> Vec<Moment> {
        let mut out: Vec<Moment> = self.stops_typing(room, user, now).into_iter().collect();
        self.leaving.remove(&(room.to_owned(), user.to_owned()));
        let Some(members) = self.members.get_mut(room) else { return out };
        if members.remove(user).is_some() {
            out.push(moment::presence(room, user, false, &listed(members), now));
        }
        if members.is_empty() {
            self.members.remove(room);
        }
        out
    }

    fn stops_typing(&mut self, room: &str, user: &str, now: Stamp) -> Option<Moment> {
        self.typing.remove(&(room.to_owned(), user.to_owned()))?;
        Some(moment::typing(room, user, false, now))
    }

    /// Who looks at a patient now, because of what `user` does.
    fn activity(&self, patient: &PatientId, user: &str, now: Stamp) -> Moment {
        let looking = self.connections.values().filter(|connection| connection.looks_at.as_ref() == Some(patient));
        let viewers: BTreeSet<&str> = looking.map(|connection| connection.user.as_str()).collect();
        moment::activity(patient, user, &viewers, now)
    }
}

fn listed(members: &BTreeMap<String, usize>) -> Members {
    Members { users: members.keys().take(MAX_LISTED).cloned().collect(), count: members.len() }
}
