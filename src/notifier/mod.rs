//! Messages for people: whom each concerns, what waits for whom, who does not want it, and what is sent later.
//!
//! The pipeline owns the [`Notifier`], publishes the events that it returns in their order, and the store keeps what they
//! change; [`Saved`] brings it back. A message waits for each of its users until one of the user's clients has it:
//! delivery while somebody listens and delivery after an absence are the same thing.

mod acked;
mod inbox;
mod requests;
mod saved;
mod sending;
#[cfg(test)]
mod tests;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

pub use self::acked::{Acked, MAX_ACKED};
pub use self::inbox::{Letter, MAX_WAITING, Sees};
pub use self::requests::{KEPT_REQUESTS_MS, Kept, MAX_KEY, MAX_REQUESTS, Repeated, Request, Requests, id_of};
pub use self::saved::{Saved, SavedPerson};
pub use self::sending::{MAX_SCHEDULED, NotSent, REMINDER_LIFE_MS, Sent};
use crate::clock::{Mono, Stamp};
use crate::command::MAX_USER_BYTES;
use crate::event::{
    AlertChange, AlertEvent, EventBody, InboxChange, Listens, Notification, NotificationKind, Preferences, Priority,
    Reminder,
};
use crate::ids::{AlertId, PatientId, Seq};
use crate::patient::Patient;
use inbox::{Held, Person};

/// Most users for whom messages wait. Beyond that who has been away longest is forgotten, and the log says so.
pub const MAX_PEOPLE: usize = 256;

/// Somebody signed in who has been away for less than this is not written down again, in ms.
const SEEN_AGAIN_MS: i64 = 24 * 3600 * 1000;

/// The inboxes of all users, and what is sent later.
#[derive(Debug)]
pub struct Notifier {
    patients: BTreeMap<PatientId, Patient>,
    people: BTreeMap<String, Person>,
    /// Who listens on which listener of the hub.
    listening: BTreeMap<u64, String>,
    /// What waits for somebody.
    messages: BTreeMap<Uuid, Held>,
    scheduled: BTreeMap<Uuid, Reminder>,
    /// The priority at which people were last told of an alert that stands.
    notified: BTreeMap<AlertId, Priority>,
    /// Alerts that alarmed again while another one hid them: people are told when they come out.
    to_tell: BTreeSet<AlertId>,
    /// What people have asked for, so that a repeated request is answered and not done again.
    pub requests: Requests,
    /// How far users have acknowledged alerts' channels.
    pub acked: Acked,
    looked: Mono,
    random: fastrand::Rng,
}

impl Notifier {
    /// With what the last run knew. `seed` fixes the random bits of identities.
    pub fn new(patients: &[Patient], saved: Saved, seed: u64) -> Self {
        let mut notifier = Self {
            patients: patients.iter().map(|patient| (patient.id.clone(), patient.clone())).collect(),
            people: BTreeMap::new(),
            listening: BTreeMap::new(),
            messages: BTreeMap::new(),
            scheduled: BTreeMap::new(),
            notified: saved.notified,
            to_tell: BTreeSet::new(),
            requests: Requests::new(saved.requests),
            acked: saved.acked,
            looked: Mono(0),
            random: fastrand::Rng::with_seed(seed),
        };
        for (user, person) in saved.people {
            notifier.people.insert(user, Person::restored(person));
        }
        for (notification, seq) in saved.messages {
            let users = saved.waiting.get(&notification.id).cloned().unwrap_or_default();
            if users.is_empty() {
                continue;
            }
            let inboxes = users.len();
            for user in users {
                notifier.people.entry(user).or_default().waiting.push(notification.id);
            }
            let held = Held { notification: Arc::new(notification), seq, inboxes };
            notifier.messages.insert(held.notification.id, held);
        }
        notifier.scheduled = saved.scheduled.into_iter().map(|reminder| (reminder.id, reminder)).collect();
        notifier
    }

    /// What the store has to have after the events so far, but for requests.
    pub fn to_saved(&self) -> Saved {
        let mut saved = Saved { notified: self.notified.clone(), ..Saved::default() };
        for (user, person) in &self.people {
            saved.people.insert(user.clone(), person.to_saved());
            for id in &person.waiting {
                saved.waiting.entry(*id).or_default().push(user.clone());
            }
        }
        saved.messages = self.messages.values().map(|held| ((*held.notification).clone(), held.seq)).collect();
        saved.messages.sort_by_key(|(_, seq)| *seq);
        saved.scheduled = self.scheduled.values().cloned().collect();
        saved
    }

    /// An alert changed. People are told once when it begins to show, and again whenever it alarms again (it has come
    /// back, or has become worse than what somebody acknowledged) or its priority has risen; what else changes about it is
    /// on the alert itself. Nothing of priority info asks for attention, and an alert that
    /// another one hides is told when it comes out.
    pub fn on_alert(&mut self, alert: &AlertEvent, now: Stamp) -> Vec<EventBody> {
        let known = self.notified.get(&alert.alert).copied().unwrap_or(Priority::Info);
        if !alert.is_present() {
            self.notified.remove(&alert.alert);
            self.to_tell.remove(&alert.alert);
            return Vec::new();
        }
        match alert.change {
            AlertChange::Recur | AlertChange::Escalate if alert.priority > Priority::Info => {
                self.to_tell.insert(alert.alert);
            }
            AlertChange::Acknowledge => _ = self.to_tell.remove(&alert.alert),
            _ => {}
        }
        if alert.hidden_by.is_some() {
            return Vec::new();
        }
        let again = self.to_tell.remove(&alert.alert);
        if alert.priority <= known && !again {
            return Vec::new();
        }
        let mut users = self.who_sees(alert.patient.as_ref());
        self.without_muted(&mut users, NotificationKind::HealthAlert, alert.priority);
        self.tell_of(alert, users, now)
    }

    /// Tells these people of an alert, whatever else they were told of it and whatever they mute: an escalation asks for
    /// them by name or role, because nobody else has answered. Who does not see the patient's alerts is left out. Empty if that leaves nobody.
    pub fn call(&mut self, alert: &AlertEvent, users: &[String], roles: &[String], now: Stamp) -> Vec<EventBody> {
        let called = |user: &String, person: &Person| users.contains(user) || person.has_role(roles);
        let sees = self.who_sees(alert.patient.as_ref());
        let people = sees.into_iter().filter(|user| self.people.get(user).is_some_and(|person| called(user, person)));
        let people = people.collect();
        self.tell_of(alert, people, now)
    }

    fn tell_of(&mut self, alert: &AlertEvent, users: Vec<String>, now: Stamp) -> Vec<EventBody> {
        if users.is_empty() {
            return Vec::new();
        }
        self.notified.insert(alert.alert, alert.priority);
        let notification = Notification {
            id: self.new_id(now),
            kind: NotificationKind::HealthAlert,
            patient: alert.patient.clone(),
            users,
            alert: Some(alert.alert),
            title: wording::title(alert),
            message: wording::message(alert),
            priority: alert.priority,
            created: now.wall,
            expires: None,
            by: None,
            mode: alert.mode,
        };
        self.hold(notification, now)
    }

    /// Somebody listens to notifications on a listener of the hub. `None` of `sees`: everything.
    pub fn on_listening(&mut self, listener: u64, user: &str, role: &str, sees: Sees, now: Stamp) -> Vec<EventBody> {
        let mut out = Vec::new();
        if user.is_empty() || user.len() > MAX_USER_BYTES {
            return out;
        }
        self.make_room_for(user, &mut out);
        let listens = Listens { role: role.to_owned(), sees: sees.to_texts(), seen: now.wall };
        let person = self.people.entry(user.to_owned()).or_default();
        let is_news = person.listens.as_ref().is_none_or(|known| {
            known.role != listens.role
                || known.sees != listens.sees
                || now.wall.0.saturating_sub(known.seen.0).saturating_abs() >= SEEN_AGAIN_MS
        });
        person.live.insert(listener, sees.clone());
        person.last = sees;
        self.listening.insert(listener, user.to_owned());
        if is_news {
            person.listens = Some(listens.clone());
            out.push(EventBody::Inbox(InboxChange::Known { user: user.to_owned(), listens }));
        }
        out
    }

    /// A listener of the hub has gone, or does not want notifications any more.
    pub fn on_left(&mut self, listener: u64) {
        if let Some(user) = self.listening.remove(&listener)
            && let Some(person) = self.people.get_mut(&user)
        {
            person.live.remove(&listener);
        }
    }

    /// What a user has chosen.
    pub fn preferences(&self, user: &str) -> Preferences {
        self.people.get(user).map(|person| person.preferences.clone()).unwrap_or_default()
    }

    /// A user chooses what to be told of, from now on.
    ///
    /// # Errors
    /// The name of the user is too long for anything to be kept.
    pub fn prefer(&mut self, user: &str, preferences: Preferences) -> Result<Vec<EventBody>, NotSent> {
        if user.is_empty() || user.len() > MAX_USER_BYTES {
            return Err(NotSent::new("validation", "a user of this name has no inbox: names have 1 to 128 bytes"));
        }
        let mut out = Vec::new();
        self.make_room_for(user, &mut out);
        self.people.entry(user.to_owned()).or_default().preferences.clone_from(&preferences);
        out.push(EventBody::Inbox(InboxChange::Preferences { user: user.to_owned(), preferences }));
        Ok(out)
    }

    /// A message was published as this event.
    pub fn on_published(&mut self, id: Uuid, seq: Seq) {
        if let Some(held) = self.messages.get_mut(&id) {
            held.seq = seq;
        }
    }

    /// Time has passed: what is due is sent, and what nobody needs any more goes.
    pub fn on_time(&mut self, now: Stamp) -> Vec<EventBody> {
        let mut out = self.send_due(now);
        if now.mono.since(self.looked) >= EXPIRY_EVERY {
            self.looked = now.mono;
            self.drop_expired(now, &mut out);
        }
        out
    }

    /// Everybody whose token covers the alerts of this patient, or the bridge's own: of who listens by the tokens in
    /// use, of who does not by the last one.
    fn who_sees(&self, patient: Option<&PatientId>) -> Vec<String> {
        let routes = self.alert_routes(patient);
        let sees = |(_, person): &(&String, &Person)| person.listens.is_some() && person.sees(&routes);
        self.people.iter().filter(sees).map(|(user, _)| user.clone()).collect()
    }

    /// The channels on which a patient's alerts are found.
    fn alert_routes(&self, patient: Option<&PatientId>) -> Vec<String> {
        let Some(patient) = patient else { return vec!["alerts/bridge".to_owned()] };
        let mut routes = vec![format!("alerts/{patient}")];
        if let Some(known) = self.patients.get(patient) {
            routes.push(format!("ward/{}/alerts/{patient}", known.ward));
        }
        routes
    }

    fn without_muted(&self, users: &mut Vec<String>, kind: NotificationKind, priority: Priority) {
        users.retain(|user| self.people.get(user).is_none_or(|person| !person.preferences.mutes(kind, priority)));
    }

    /// A new identity that sorts by its time.
    pub fn new_id(&mut self, now: Stamp) -> Uuid {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        let millis = u64::try_from(now.wall.0).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// How often messages are looked through for those that have expired.
const EXPIRY_EVERY: std::time::Duration = std::time::Duration::from_mins(1);
