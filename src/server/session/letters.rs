//! Messages for people on their way to one client: whose they are, and when the client has them.
//!
//! A message counts as delivered once the client has answered a ping that was written behind it, or has acknowledged it:
//! a write alone proves nothing, and older clients acknowledge nothing, but every WebSocket answers pings in order.

use std::sync::Arc;

use uuid::Uuid;

use super::{Action, PONG_DEADLINE, Replaying, Session};
use crate::channel::{Pattern, notifications_of};
use crate::clock::Stamp;
use crate::event::{EventBody, Notification, Preferences};
use crate::ids::{Epoch, PatientId, Seq};
use crate::outbox::Published;
use crate::server::frames::ResultData;
use crate::wire::{self, ToUser};

/// A message that was written and that the client may not have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    id: Uuid,
    /// What its frame had as `seq`.
    seq: Seq,
}

impl Session {
    /// True if the session may ask for what this pattern chooses: what the token covers, and one's own notifications.
    pub(super) fn may_hear(&self, pattern: &Pattern) -> bool {
        if pattern.as_str().starts_with("notifications/") {
            return self.rights().is_some_and(|rights| pattern.matches(&notifications_of(&rights.user)));
        }
        self.scope.overlaps(pattern)
    }

    /// Writes a message that comes while it happens.
    pub(super) fn tell(&mut self, published: &Arc<Published>, out: &mut Vec<Action>, now: Stamp) {
        if let EventBody::Notification(notification) = &published.event.body
            && notification.patient.as_ref().is_none_or(|patient| self.sees_alerts_of(patient))
        {
            self.write(notification, (&published.event.epoch, published.event.seq), None, out, now);
        }
    }

    /// Writes a message among the events that the client missed.
    pub(super) fn tell_again(
        &mut self,
        notification: &Notification,
        name: (&Epoch, Seq),
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let is_ours = self.rights().is_some_and(|rights| notification.users.contains(&rights.user));
        let own = self.rights().map(|rights| notifications_of(&rights.user)).unwrap_or_default();
        let Some(replaying) = &mut self.replaying else { return };
        if !is_ours || !replaying.patterns.iter().any(|pattern| pattern.matches(&own)) {
            return;
        }
        replaying.told.push(notification.id);
        let is_late = notification.expires.is_some_and(|expires| expires <= now.wall);
        if !is_late && notification.patient.as_ref().is_none_or(|patient| self.sees_alerts_of(patient)) {
            self.write(notification, name, None, out, now);
        }
    }

    /// Writes the messages that waited, but for those that came with the missed events.
    pub(super) fn hand_over(&mut self, replaying: &Replaying, out: &mut Vec<Action>, now: Stamp) {
        for letter in replaying.letters.iter().filter(|letter| !replaying.told.contains(&letter.notification.id)) {
            // One that was to come with the missed events and is not in the log any more has the place of the join.
            let seq = letter.seq.unwrap_or(replaying.through);
            let epoch = self.shared.epoch.clone();
            self.write(&letter.notification, (&epoch, seq), letter.alert_stands, out, now);
        }
        self.ask_for_them(out, now);
    }

    fn write(
        &mut self,
        notification: &Notification,
        (epoch, seq): (&Epoch, Seq),
        alert_stands: Option<bool>,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let Some(user) = self.rights().map(|rights| rights.user.clone()) else { return };
        let channel = notifications_of(&user);
        let message = ToUser { notification, user: &user, channel: &channel, seq, epoch, alert_stands };
        if let Ok(text) = wire::to_user(message, now.wall) {
            self.sent += 1;
            self.written.push(Written { id: notification.id, seq });
            out.push(self.form.own(text));
        }
    }

    /// Writes a ping behind messages that the client may not have, unless one is under way already.
    pub(super) fn ask_for_them(&mut self, out: &mut Vec<Action>, now: Stamp) {
        // During a replay nothing is read, so nothing may be asked.
        if self.written.is_empty() || self.pong_due.is_some() || self.replaying.is_some() || self.is_closed() {
            return;
        }
        self.pinged_for.append(&mut self.written);
        self.pong_due = Some(now.mono + PONG_DEADLINE);
        out.push(Action::Ping);
    }

    /// The answer to a ping: the client has everything that was written before it.
    pub fn on_pong(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        // A pong that nobody asked for proves nothing.
        if self.pong_due.take().is_some() {
            let had = std::mem::take(&mut self.pinged_for);
            self.has(had, &mut out);
            self.ask_for_them(&mut out, now);
        }
        out
    }

    /// The client says that it has these messages, or everything on its notifications' channel up to a number.
    pub(super) fn on_ack(&mut self, ids: &[Uuid], through: Option<(Pattern, Seq)>, out: &mut Vec<Action>) {
        let own = self.rights().map(|rights| notifications_of(&rights.user)).unwrap_or_default();
        let through = through.filter(|(channel, _)| channel.matches(&own)).map(|(_, seq)| seq);
        let is_meant = |it: &mut Written| ids.contains(&it.id) || through.is_some_and(|seq| it.seq <= seq);
        let mut had: Vec<Written> = self.written.extract_if(.., is_meant).collect();
        had.extend(self.pinged_for.extract_if(.., is_meant));
        self.has(had, out);
    }

    fn has(&self, had: Vec<Written>, out: &mut Vec<Action>) {
        if let Some(rights) = self.rights()
            && !had.is_empty()
        {
            out.push(Action::Delivered(rights.user.clone(), had.into_iter().map(|it| it.id).collect()));
        }
    }

    /// True if the token covers the alerts of this patient.
    fn sees_alerts_of(&self, patient: &PatientId) -> bool {
        let own = format!("alerts/{patient}");
        let ward = self.shared.patients.iter().find(|known| known.id == *patient).map(|known| &known.ward);
        let of_ward = ward.map(|ward| format!("ward/{ward}/{own}"));
        self.scope.allows(&[Some(own), of_ward].into_iter().flatten().collect::<Vec<_>>())
    }

    /// What the user has chosen; `None`: the bridge is stopping.
    pub fn on_preferences(&mut self, correlation_id: &str, chosen: Option<&Preferences>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let data = match chosen {
            Some(preferences) => ResultData::preferences(preferences),
            None => ResultData::refused("unavailable", "the bridge is stopping"),
        };
        self.say(&mut out, &data, Some(correlation_id), now);
        out
    }
}
