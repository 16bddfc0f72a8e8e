//! What people send to people: now or at a time of day, once for each request, and who may.

use uuid::Uuid;

use super::{Notifier, id_of};
use crate::channel::notifications_of;
use crate::clock::{Stamp, Wall};
use crate::command::NewNotification;
use crate::event::{EventBody, InboxChange, Notification, NotificationKind, Reminder};
use crate::vitals::Mode;

/// Most messages that wait for their time.
pub const MAX_SCHEDULED: usize = 1000;

/// A reminder of a medicine or an appointment is of no use after this time, in ms, unless it says otherwise.
pub const REMINDER_LIFE_MS: i64 = 24 * 3600 * 1000;

/// Why a message is not sent: a code of docs/protocol.md and a reason for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotSent {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub reason: &'static str,
}

impl NotSent {
    pub(super) const fn new(code: &'static str, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// A message that is sent or scheduled under this identity once these are published.
#[derive(Debug)]
pub struct Sent {
    /// Its identity.
    pub id: Uuid,
    /// What to publish.
    pub events: Vec<EventBody>,
}

impl Notifier {
    /// Takes a message on. `may`: whether the sender may publish on one of these channels.
    ///
    /// # Errors
    /// The sender may not, the patient is not known, nobody would get it, or too many wait for their time.
    pub fn send(
        &mut self,
        new: NewNotification,
        by: &str,
        may: impl Fn(&[String]) -> bool,
        now: Stamp,
    ) -> Result<Sent, NotSent> {
        self.admit(&new, may)?;
        let NewNotification { kind, users, roles, patient, title, message, priority, at, expires, correlation_id } =
            new;
        let id = match &correlation_id {
            Some(name) => id_of(by, name),
            None => self.new_id(now),
        };
        let at_once = at.is_none_or(|at| at <= now.wall);
        let at = at.unwrap_or(now.wall);
        let life = matches!(kind, NotificationKind::MedicationReminder | NotificationKind::AppointmentReminder);
        let expires = expires.or_else(|| life.then(|| Wall(at.0.saturating_add(REMINDER_LIFE_MS))));
        if expires.is_some_and(|expires| expires <= now.wall) {
            return Err(NotSent::new("expired", "this message has expired already; see `at` and `expires`"));
        }
        let mode =
            patient.as_ref().and_then(|patient| self.patients.get(patient)).map_or(Mode::Real, |known| known.mode);
        let by = by.to_owned();
        let reminder = Reminder { id, kind, patient, users, roles, title, message, priority, at, expires, by, mode };
        if !at_once {
            if self.scheduled.len() >= MAX_SCHEDULED {
                return Err(NotSent::new("busy", "1000 messages wait for their time already; take some back"));
            }
            self.scheduled.insert(id, reminder.clone());
            return Ok(Sent { id, events: vec![EventBody::Inbox(InboxChange::Scheduled { reminder })] });
        }
        let notification = self.due(reminder, now);
        if notification.users.is_empty() {
            let reason = "nobody known has this role or sees this patient, or they have muted this kind of message";
            return Err(NotSent::new("unknown_user", reason));
        }
        Ok(Sent { id, events: self.hold(notification, now) })
    }

    /// Takes a message for later back.
    ///
    /// # Errors
    /// There is none of this identity, or the person may not.
    pub fn withdraw(&mut self, id: Uuid, by: &str, may: impl Fn(&[String]) -> bool) -> Result<Vec<EventBody>, NotSent> {
        const UNKNOWN: NotSent = NotSent::new("unknown_notification", "no message of this id waits for its time");
        let reminder = self.scheduled.get(&id).ok_or(UNKNOWN)?;
        // Who may not send on these channels does not learn what waits there, but for what is one's own.
        if reminder.by != by && !self.may_send(reminder.patient.as_ref(), &reminder.users, &reminder.roles, may) {
            return Err(UNKNOWN);
        }
        self.scheduled.remove(&id);
        Ok(vec![EventBody::Inbox(InboxChange::Withdrawn { id })])
    }

    /// Sends what is due by the time of day: a clock that is set forward makes it due, one that is set back makes it
    /// wait, and what was sent is not sent again.
    pub(super) fn send_due(&mut self, now: Stamp) -> Vec<EventBody> {
        let due: Vec<Uuid> =
            self.scheduled.values().filter(|reminder| reminder.at <= now.wall).map(|reminder| reminder.id).collect();
        let mut out = Vec::new();
        for reminder in due.iter().filter_map(|id| self.scheduled.remove(id)).collect::<Vec<_>>() {
            if reminder.expires.is_some_and(|expires| expires <= now.wall) {
                out.push(EventBody::Inbox(InboxChange::Withdrawn { id: reminder.id }));
                let reason = "it expired while the bridge was off, or its clock was wrong";
                out.extend(self.tell_sender(&reminder, reason, now));
                continue;
            }
            let notification = self.due(reminder.clone(), now);
            let reached = !notification.users.is_empty();
            // Also one for nobody is in the log: it was due, and this is what became of it.
            out.extend(self.hold(notification, now));
            if !reached {
                out.extend(self.tell_sender(&reminder, "nobody known is concerned, or they muted its kind", now));
            }
        }
        out
    }

    /// A message that reached nobody is told to who sent it.
    fn tell_sender(&mut self, reminder: &Reminder, reason: &str, now: Stamp) -> Vec<EventBody> {
        let notification = Notification {
            id: self.new_id(now),
            kind: NotificationKind::System,
            patient: reminder.patient.clone(),
            users: vec![reminder.by.clone()],
            alert: None,
            title: "Message Not Sent".to_owned(),
            message: format!("\"{}\" for {} reached nobody: {reason}", reminder.title, reminder.at),
            priority: reminder.priority,
            created: now.wall,
            expires: None,
            by: None,
            mode: reminder.mode,
        };
        self.hold(notification, now)
    }

    /// The message that a reminder is now, for those whom it concerns now.
    fn due(&self, reminder: Reminder, now: Stamp) -> Notification {
        let Reminder { id, kind, patient, users, roles, title, message, priority, expires, by, mode, .. } = reminder;
        let mut people = users;
        if !roles.is_empty() || people.is_empty() {
            let sees = match &patient {
                Some(patient) => self.who_sees(Some(patient)),
                None => self.people.keys().cloned().collect(),
            };
            let called =
                |user: &String| roles.is_empty() || self.people.get(user).is_some_and(|it| it.has_role(&roles));
            for user in sees.into_iter().filter(called) {
                if !people.contains(&user) {
                    people.push(user);
                }
            }
        }
        self.without_muted(&mut people, kind, priority);
        let title = match mode {
            Mode::Real => title,
            Mode::Demo => format!("DEMO: {title}"),
            Mode::Test => format!("TEST: {title}"),
        };
        let (alert, created, by) = (None, now.wall, Some(by));
        Notification { id, kind, patient, users: people, alert, title, message, priority, created, expires, by, mode }
    }

    fn admit(&self, new: &NewNotification, may: impl Fn(&[String]) -> bool) -> Result<(), NotSent> {
        if !self.may_send(new.patient.as_ref(), &new.users, &new.roles, may) {
            let reason = "this takes the right `pub` on the patient's alerts, or without a patient on the notifications \
                 of each user: a nurse who is not limited to patients";
            return Err(NotSent::new("permission_denied", reason));
        }
        if new.patient.as_ref().is_some_and(|patient| !self.patients.contains_key(patient)) {
            return Err(NotSent::new("unknown_patient", "there is no patient of this id"));
        }
        Ok(())
    }

    /// About a patient: who may publish on the patient's alerts. Else: who may on the notifications of each user.
    fn may_send(
        &self,
        patient: Option<&crate::ids::PatientId>,
        users: &[String],
        roles: &[String],
        may: impl Fn(&[String]) -> bool,
    ) -> bool {
        if patient.is_some() {
            return may(&self.alert_routes(patient));
        }
        let all = (!roles.is_empty()).then(|| "notifications/all".to_owned());
        users.iter().map(|user| notifications_of(user)).chain(all).all(|channel| may(&[channel]))
    }
}
