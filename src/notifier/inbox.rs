//! One person's inbox: what waits, what finds no room, and what the person's clients have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{MAX_PEOPLE, Notifier, SavedPerson};
use crate::channel::Pattern;
use crate::clock::{Stamp, Wall};
use crate::event::{Dropped, EventBody, InboxChange, Listens, Notification, NotificationKind, Preferences, Priority};
use crate::ids::{AlertId, Seq};
use crate::vitals::Mode;

/// Most messages that wait for one user. One more drops the oldest of the lowest priority, and the user is told how
/// many were dropped.
pub const MAX_WAITING: usize = 100;

/// The channels that a token covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sees {
    /// All of them.
    Everything,
    /// Those that one of these chooses.
    Only(Vec<Pattern>),
}

impl Default for Sees {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Sees {
    fn covers(&self, routes: &[String]) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(patterns) => routes.iter().any(|route| patterns.iter().any(|pattern| pattern.matches(route))),
        }
    }

    pub(super) fn to_texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Everything => None,
            Self::Only(patterns) => Some(patterns.iter().map(ToString::to_string).collect()),
        }
    }

    fn from_texts(texts: Option<&Vec<String>>) -> Self {
        texts.map_or(Self::Everything, |texts| Self::Only(texts.iter().filter_map(|text| text.parse().ok()).collect()))
    }
}

/// A user.
#[derive(Debug, Default)]
pub(super) struct Person {
    /// As what the user last listened; `None`: never.
    pub(super) listens: Option<Listens>,
    /// What the last token covered.
    pub(super) last: Sees,
    /// What the tokens in use cover, each by its listener.
    pub(super) live: BTreeMap<u64, Sees>,
    pub(super) preferences: Preferences,
    /// Oldest first; at most [`MAX_WAITING`].
    pub(super) waiting: Vec<Uuid>,
    pub(super) untold: Option<Dropped>,
    /// The user's client was given the message about what was dropped: more of it needs another one.
    pub(super) is_telling: bool,
}

impl Person {
    pub(super) fn restored(saved: SavedPerson) -> Self {
        let SavedPerson { listens, preferences, untold } = saved;
        let last = listens.as_ref().map_or_else(Sees::default, |listens| Sees::from_texts(listens.sees.as_ref()));
        Self { listens, last, preferences, untold, ..Self::default() }
    }

    pub(super) fn to_saved(&self) -> SavedPerson {
        let (preferences, untold) = (self.preferences.clone(), self.untold.clone());
        SavedPerson { listens: self.listens.clone(), preferences, untold }
    }

    pub(super) fn sees(&self, routes: &[String]) -> bool {
        let mut live = self.live.values().peekable();
        if live.peek().is_some() { live.any(|sees| sees.covers(routes)) } else { self.last.covers(routes) }
    }

    pub(super) fn has_role(&self, roles: &[String]) -> bool {
        self.listens.as_ref().is_some_and(|listens| roles.contains(&listens.role))
    }

    /// True if nothing of the user would be missed.
    fn is_blank(&self) -> bool {
        self.listens.is_none() && self.waiting.is_empty() && self.untold.is_none() && self.preferences.mute.is_empty()
    }
}

/// A message, and in how many inboxes it waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) notification: Arc<Notification>,
    /// Its event.
    pub(super) seq: Seq,
    pub(super) inboxes: usize,
}

/// A message that waited, as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The message.
    pub notification: Arc<Notification>,
    /// For a message about an alert: whether that alert still stands.
    pub alert_stands: Option<bool>,
    /// The event of the message itself; zero for one that only this inbox has.
    pub published: Seq,
    /// The event of its being handed over; `None` if it is to come with the events that the client missed.
    pub seq: Option<Seq>,
}

impl Notifier {
    /// Puts a message into the inboxes of its users, and publishes it.
    pub(super) fn hold(&mut self, notification: Notification, now: Stamp) -> Vec<EventBody> {
        let mut out = Vec::new();
        for user in &notification.users {
            self.make_room_for(user, &mut out);
        }
        let notification = Arc::new(notification);
        let known = Held { notification: Arc::clone(&notification), seq: Seq(u64::MAX), inboxes: 0 };
        self.messages.entry(notification.id).or_insert(known);
        // The message itself goes first: an event about a message comes after the message.
        out.push(EventBody::Notification((*notification).clone()));
        for user in &notification.users {
            let person = self.people.entry(user.clone()).or_default();
            if !person.waiting.contains(&notification.id) {
                person.waiting.push(notification.id);
                if let Some(held) = self.messages.get_mut(&notification.id) {
                    held.inboxes += 1;
                }
            }
        }
        // Only now: a message that finds no room in one inbox must not be forgotten before it is in the next.
        for user in &notification.users {
            if let Some(change) = self.drop_surplus(user, now) {
                out.push(EventBody::Inbox(change));
            }
        }
        if notification.users.is_empty() {
            self.messages.remove(&notification.id);
        }
        out
    }

    /// A message left one inbox; one that waits for nobody is forgotten.
    fn release(&mut self, id: Uuid) {
        if let Some(held) = self.messages.get_mut(&id) {
            held.inboxes = held.inboxes.saturating_sub(1);
            if held.inboxes == 0 {
                self.messages.remove(&id);
            }
        }
    }

    /// Takes out what one inbox cannot hold: of the lowest priority the oldest.
    fn drop_surplus(&mut self, user: &str, now: Stamp) -> Option<InboxChange> {
        let fresh = self.new_id(now);
        let person = self.people.get_mut(user)?;
        let mut ids = Vec::new();
        let mut high = 0;
        while person.waiting.len() > MAX_WAITING {
            let priority = |id: &Uuid| self.messages.get(id).map_or(Priority::Info, |held| held.notification.priority);
            // Of several least ones the first is the oldest.
            let (place, least) =
                person.waiting.iter().map(priority).enumerate().min_by_key(|(place, priority)| (*priority, *place))?;
            ids.push(person.waiting.remove(place));
            high += u32::from(least == Priority::High);
        }
        if ids.is_empty() {
            return None;
        }
        let before = person.untold.take().filter(|_| !person.is_telling);
        let before = before.unwrap_or(Dropped { id: fresh, count: 0, high: 0 });
        let count = before.count.saturating_add(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        let untold = Dropped { id: before.id, count, high: before.high.saturating_add(high) };
        person.untold = Some(untold.clone());
        person.is_telling = false;
        for id in &ids {
            self.release(*id);
        }
        Some(InboxChange::Dropped { user: user.to_owned(), ids, untold })
    }

    /// What waits for a user whose client begins to listen, oldest first, as far as this client's token covers it.
    ///
    /// It goes on waiting until [`Notifier::on_delivered`]. `stands`: whether an alert still does.
    pub fn waiting(&mut self, user: &str, sees: &Sees, stands: impl Fn(AlertId) -> bool, now: Wall) -> Vec<Letter> {
        let routes = |patient| self.alert_routes(Some(patient));
        let Some(person) = self.people.get(user) else { return Vec::new() };
        let mut letters = Vec::new();
        if let Some(untold) = &person.untold {
            let notification = Arc::new(dropped_notice(user, untold, now));
            letters.push(Letter { notification, alert_stands: None, published: Seq::ZERO, seq: None });
        }
        for Held { notification: message, seq, .. } in person.waiting.iter().filter_map(|id| self.messages.get(id)) {
            let is_covered = message.patient.as_ref().is_none_or(|patient| sees.covers(&routes(patient)));
            if is_covered && !has_expired(message, now) {
                let (notification, alert_stands) = (Arc::clone(message), message.alert.map(&stands));
                letters.push(Letter { notification, alert_stands, published: *seq, seq: None });
            }
        }
        if let Some(person) = self.people.get_mut(user) {
            person.is_telling = person.untold.is_some();
        }
        letters
    }

    /// A client of the user has these.
    pub fn on_delivered(&mut self, user: &str, ids: &[Uuid]) -> Vec<EventBody> {
        let Some(person) = self.people.get_mut(user) else { return Vec::new() };
        let (mut delivered, mut left): (Vec<Uuid>, Vec<Uuid>) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some(place) = person.waiting.iter().position(|waiting| waiting == id) {
                left.push(person.waiting.remove(place));
                delivered.push(*id);
            } else if person.untold.as_ref().is_some_and(|untold| untold.id == *id) {
                person.untold = None;
                person.is_telling = false;
                delivered.push(*id);
            }
        }
        if delivered.is_empty() {
            return Vec::new();
        }
        for id in left {
            self.release(id);
        }
        vec![EventBody::Inbox(InboxChange::Delivered { user: user.to_owned(), ids: delivered })]
    }

    /// Takes out what has expired.
    pub(super) fn drop_expired(&mut self, now: Stamp, out: &mut Vec<EventBody>) {
        let messages = self.messages.values().map(|held| &held.notification);
        let expired: BTreeSet<Uuid> =
            messages.filter(|message| has_expired(message, now.wall)).map(|message| message.id).collect();
        if expired.is_empty() {
            return;
        }
        for person in self.people.values_mut() {
            person.waiting.retain(|id| !expired.contains(id));
        }
        self.messages.retain(|id, _| !expired.contains(id));
        out.push(EventBody::Inbox(InboxChange::Expired { ids: expired.into_iter().collect() }));
    }

    /// Forgets somebody if a new user would be one too many: who has nothing that waits, or was away longest; who has
    /// something of priority high goes last.
    pub(super) fn make_room_for(&mut self, user: &str, out: &mut Vec<EventBody>) {
        if self.people.len() < MAX_PEOPLE || self.people.contains_key(user) {
            return;
        }
        let has_high = |person: &Person| {
            let high = |id: &Uuid| self.messages.get(id).is_some_and(|it| it.notification.priority == Priority::High);
            person.waiting.iter().any(high) || person.untold.as_ref().is_some_and(|untold| untold.high > 0)
        };
        let worth = |person: &Person| {
            let seen = person.listens.as_ref().map_or(Wall(i64::MIN), |listens| listens.seen);
            (!person.live.is_empty(), has_high(person), !person.is_blank(), seen)
        };
        let least = self.people.iter().min_by_key(|(_, person)| worth(person)).map(|(user, _)| user.clone());
        if let Some(user) = least {
            let waiting = self.people.remove(&user).map(|person| person.waiting).unwrap_or_default();
            for id in waiting {
                self.release(id);
            }
            self.listening.retain(|_, listening| *listening != user);
            out.push(EventBody::Inbox(InboxChange::Forgotten { user }));
        }
    }
}

fn has_expired(message: &Notification, now: Wall) -> bool {
    message.expires.is_some_and(|expires| expires <= now)
}

/// What a user is told about messages that found no room.
fn dropped_notice(user: &str, untold: &Dropped, now: Wall) -> Notification {
    let messages = if untold.count == 1 { "message was".to_owned() } else { "messages were".to_owned() };
    let high = if untold.high == 0 { String::new() } else { format!(", {} of them of high priority", untold.high) };
    Notification {
        id: untold.id,
        kind: NotificationKind::System,
        patient: None,
        users: vec![user.to_owned()],
        alert: None,
        title: "Messages Dropped".to_owned(),
        message: format!(
            "{} {messages} dropped{high}: no more than {MAX_WAITING} wait for you while you are away",
            untold.count
        ),
        priority: if untold.high > 0 { Priority::High } else { Priority::Low },
        created: now,
        expires: None,
        by: None,
        mode: Mode::Real,
    }
}
