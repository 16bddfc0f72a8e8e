//! The pipeline's side of messages for people: who listens to them, and what people send, take back and choose.

use super::{LONGEST_TURN, Pipeline, Refusal};
use crate::clock::Stamp;
use crate::command::Command;
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult, EventBody, InboxChange, NotificationKind};
use crate::hub::{Join, Joined, ListenerId, Scope};
use crate::ids::{PatientId, Seq};
use crate::notifier::{NotSent, Sees, Sent};
use crate::vitals::Mode;

impl Pipeline {
    /// Lets somebody listen; who begins to hear his notifications is given those that wait.
    pub(super) fn join(&mut self, join: Join, now: Stamp) -> Option<Joined> {
        let heard = join.listener.is_some_and(|listener| self.hub.hears_own(listener));
        let (user, scope, since) = (join.user.clone(), join.scope.clone(), join.since);
        let patterns = join.patterns.clone();
        let acked = user.as_ref().filter(|_| join.acks).map(|user| self.notifier.acked.of(&user.name));
        let mut joined = self.hub.join(Join { since: since.or(self.since_acked(&join)), ..join })?;
        joined.acked = acked.unwrap_or_default();
        joined.signal_times = self.engine.signal_times(self.patients.keys(), now);
        if let Some(user) = &user {
            let moments = self.rooms.on_joined(joined.listener.number(), &user.name, &patterns, now);
            self.tell(moments);
            joined.rooms = self.rooms.now(&patterns, &user.name);
        }
        if let Some(user) = user
            && self.hub.hears_own(joined.listener)
        {
            let sees = match scope {
                Scope::Everything => Sees::Everything,
                Scope::Only(patterns) => Sees::Only(patterns),
            };
            if !heard {
                let hub = &self.hub;
                let stands = |alert| hub.alert(alert).is_some();
                joined.letters = self.notifier.waiting(&user.name, &sees, stands, now.wall);
                for letter in &mut joined.letters {
                    // What lies behind the last event that the client has comes with the others that it missed.
                    if since.is_none_or(|since| letter.published <= since) {
                        let (user, id) = (user.name.clone(), letter.notification.id);
                        letter.seq = Some(self.publish(EventBody::Inbox(InboxChange::HandedOver { user, id }), now));
                    }
                }
            }
            let changes = self.notifier.on_listening(joined.listener.number(), &user.name, user.role, sees, now);
            self.publish_all(changes, now);
        }
        Some(joined)
    }

    /// Somebody has gone.
    pub(super) fn leave(&mut self, listener: ListenerId, now: Stamp) {
        self.hub.leave(listener);
        self.notifier.on_left(listener.number());
        let moments = self.rooms.on_left(listener.number(), now);
        self.tell(moments);
    }

    /// Carries out a command about messages, with its row in the audit trail; the answer is the number of that row.
    pub(super) fn on_message_command(
        &mut self,
        command: Command,
        by: &Actor,
        scope: &Scope,
        now: Stamp,
    ) -> Result<Seq, Refusal> {
        let may = |routes: &[String]| scope.allows(routes);
        let (mut audit, done) = match command {
            Command::Notify(new) => {
                let audit = row(by, AuditAction::NotificationSend, new.patient.clone());
                match self.notifier.send(*new, &by.user, may, now) {
                    Ok(Sent { id, events }) => {
                        self.publish_all(events, now);
                        return Ok(self.publish(EventBody::Audit(AuditEvent { object: id.to_string(), ..audit }), now));
                    }
                    Err(refused) => (audit, Err(refused)),
                }
            }
            Command::Withdraw(id) => {
                let object = id.to_string();
                let audit = AuditEvent { object, ..row(by, AuditAction::NotificationWithdraw, None) };
                (audit, self.notifier.withdraw(id, &by.user, may))
            }
            Command::Prefer(preferences) => {
                let muted: Vec<&str> = preferences.mute.iter().copied().map(NotificationKind::name).collect();
                let audit = AuditEvent { object: muted.join(","), ..row(by, AuditAction::PreferencesSet, None) };
                (audit, self.notifier.prefer(&by.user, preferences))
            }
            Command::Alert { .. }
            | Command::Device { .. }
            | Command::Limits(_)
            | Command::Observe { .. }
            | Command::Resend(_) => {
                return Err(Refusal { code: "validation", reason: "this is no command about messages".to_owned() });
            }
        };
        match done {
            Ok(changes) => {
                self.publish_all(changes, now);
                Ok(self.publish(EventBody::Audit(audit), now))
            }
            Err(NotSent { code, reason }) => {
                (audit.result, audit.reason) = (AuditResult::Refused, Some(reason.to_owned()));
                self.publish_audit(audit, now);
                Err(Refusal { code, reason: reason.to_owned() })
            }
        }
    }

    /// Sends what is due by the time of day, looked at once a second: a clock may be set at any moment.
    pub(super) fn send_what_is_due(&mut self, now: Stamp) {
        if now.mono.since(self.looked) >= LONGEST_TURN {
            self.looked = now.mono;
            let messages = self.notifier.on_time(now);
            self.publish_all(messages, now);
        }
    }

    /// Publishes events in their order.
    pub(super) fn publish_all(&mut self, bodies: Vec<EventBody>, now: Stamp) {
        for body in bodies {
            self.publish(body, now);
        }
    }
}

/// A row of the audit trail for what was done.
pub(super) fn row(by: &Actor, action: AuditAction, patient: Option<PatientId>) -> AuditEvent {
    AuditEvent {
        by: by.user.clone(),
        address: by.address.clone(),
        action,
        object: String::new(),
        patient,
        device: None,
        source: None,
        result: AuditResult::Done,
        reason: None,
        mode: Mode::Real,
    }
}
