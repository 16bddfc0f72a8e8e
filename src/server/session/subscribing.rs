//! How a session listens: subscribe, resume after what the client has, snapshot, live events.

use std::sync::Arc;

use super::{Action, Located, MAX_REPLAY, MAX_SUBSCRIPTIONS, PONG_DEADLINE, Pending, Replaying, Session};
use crate::channel::{Pattern, routes};
use crate::clock::Stamp;
use crate::command::BadMember;
use crate::event::{Event, EventBody, LimitsEvent};
use crate::hub::{Join, Joined, User};
use crate::ids::{Epoch, Seq};
use crate::outbox::{Delivery, Parcel, Published};
use crate::server::close::Close;
use crate::server::frames::{GapData, SubscribedData, UnsubscribedData};
use crate::server::message::Unreadable;
use crate::wire;

impl Session {
    /// It was found where a resume goes on.
    pub fn on_located(&mut self, located: Located) -> Vec<Action> {
        let Some(pending) = self.pending.as_mut() else {
            return Vec::new();
        };
        let (patterns, delivery) = (pending.patterns.clone(), pending.delivery);
        let since = located.after.unwrap_or(Seq(u64::MAX));
        pending.located = Some(located);
        vec![self.join_action(patterns, delivery, Some(since))]
    }

    /// The hub has answered. `None`: it has no room.
    pub fn on_joined(&mut self, joined: Option<Joined>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(pending) = self.pending.take() else {
            return out;
        };
        let Some(joined) = joined else {
            self.close(Close::OverCapacity, &mut out, now);
            return out;
        };
        self.listener = Some(joined.listener);
        if std::mem::take(&mut self.wants_to_annunciate) {
            out.push(Action::Annunciate(joined.listener));
        }
        for pattern in &pending.patterns {
            if !self.patterns.contains(pattern) {
                self.patterns.push(pattern.clone());
            }
        }
        let located = pending.located.as_ref();
        let resume = located.and_then(|located| located.after.map(|after| (after, &located.lost)));
        // Nobody has seen what has not happened: such a client is told the present.
        let resume = resume.filter(|(after, _)| *after <= joined.through);
        let floor = Seq(joined.through.0.saturating_sub(MAX_REPLAY));
        let after = resume.map_or(joined.through, |(after, _)| after.max(floor));
        let capped = resume.is_some_and(|(after, _)| after < floor);
        let lost = resume.map_or(&[][..], |(_, lost)| lost);
        let common = Arc::clone(&self.shared);
        let data = SubscribedData {
            channels: pending.patterns.iter().map(Pattern::as_str).collect(),
            recovered: resume.is_some() && !capped && lost.is_empty(),
            first_seq: after.next(),
            last_seq: joined.through,
            epoch: &common.epoch,
            lost,
        };
        self.say(&mut out, &data, Some(&pending.correlation_id), now);
        let Joined { latest, recent, recent_from, letters, through, .. } = joined;
        let (patterns, told) = (pending.patterns, Vec::new());
        self.replaying = Some(Replaying { patterns, recent, latest, letters, through, told });
        if resume.is_some() && after.next() < recent_from {
            out.push(Action::Replay { after, through: Seq(recent_from.0.saturating_sub(1)) });
        } else {
            self.finish_replay(&mut out, now);
        }
        out
    }

    /// Events of a replay, from disk.
    pub fn on_replay(&mut self, events: &[Event], now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        for event in events {
            if let EventBody::Notification(notification) = &event.body {
                self.tell_again(notification, (&event.epoch, event.seq), &mut out, now);
                continue;
            }
            let Some(replaying) = &self.replaying else { return out };
            let routes = routes(event, self.shared.ward_of(event));
            let wanted = routes.iter().any(|route| replaying.patterns.iter().any(|pattern| pattern.matches(route)));
            if wanted
                && self.scope.allows(&routes)
                && let Ok(text) = wire::push(event)
            {
                self.sent += 1;
                self.write_event(event, text, &mut out, now);
            }
        }
        out
    }

    /// The replay from disk is complete.
    pub fn on_replayed(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        self.pong_due = self.pong_due.map(|_| now.mono + PONG_DEADLINE);
        self.finish_replay(&mut out, now);
        out
    }

    /// Events and gaps from the outbox.
    pub fn on_parcels(&mut self, parcels: &[Parcel], now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        for parcel in parcels {
            match parcel {
                Parcel::Event(published) if matches!(published.event.body, EventBody::Notification(_)) => {
                    self.tell(published, &mut out, now);
                }
                Parcel::Event(published) => {
                    // Rights may have been narrowed while it waited.
                    if self.scope.allows(&published.routes) {
                        self.push(published, &mut out, now);
                        self.overtake(published);
                    }
                }
                Parcel::Check(check) => self.tell_check(check, &mut out, now),
                Parcel::Wave(wave) => {
                    if self.scope.allows_channel(&wave.channel) {
                        out.push(Action::SendBinary(wave.message.clone()));
                    }
                }
                Parcel::Gap { from, to, skipped } => {
                    self.say(&mut out, &GapData { from: *from, to: *to, skipped: *skipped }, None, now);
                }
            }
        }
        self.ask_for_them(&mut out, now);
        out
    }

    /// An event of the present that comes during a replay changes what the snapshot after the replay has to say.
    fn overtake(&mut self, published: &Arc<Published>) {
        let Some(replaying) = &mut self.replaying else { return };
        let same = |known: &Arc<Published>| match (&known.event.body, &published.event.body) {
            (EventBody::Alert(known), EventBody::Alert(new)) => known.alert == new.alert,
            (EventBody::Source(known), EventBody::Source(new)) => known.source == new.source,
            (EventBody::Limits(known), EventBody::Limits(new)) => {
                let key =
                    |event: &LimitsEvent| (event.change.rule.clone(), event.change.kind, event.change.set.is_some());
                known.change.patient == new.change.patient && key(known) == key(new)
            }
            _ => false,
        };
        replaying.latest.retain(|known| !same(known));
        match &published.event.body {
            EventBody::Alert(alert) if !alert.is_present() => {}
            EventBody::Limits(limits) if !limits.action.is_in_force() => {}
            EventBody::Alert(_) | EventBody::Source(_) | EventBody::Limits(_) => {
                replaying.latest.push(Arc::clone(published));
            }
            _ => {}
        }
    }

    pub(super) fn subscribe(
        &mut self,
        patterns: Vec<Pattern>,
        since: Option<(Epoch, Seq)>,
        delivery: Option<Delivery>,
        correlation_id: Option<String>,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let id = correlation_id.as_deref();
        let denied: Vec<&str> = patterns.iter().filter(|p| !self.may_hear(p)).map(Pattern::as_str).collect();
        if !denied.is_empty() {
            let refusal = Unreadable::Denied { channels: denied.join(", ") };
            return self.wrong(out, &refusal, id, now);
        }
        if since.is_some() && self.listener.is_some() {
            let place = BadMember::new("since", "belongs to the first subscribe of a connection");
            return self.wrong(out, &Unreadable::Member(place), id, now);
        }
        if self.patterns.len() + patterns.len() > MAX_SUBSCRIPTIONS {
            return self.wrong(out, &Unreadable::TooManySubscriptions, id, now);
        }
        // Who resumes wants each event; who only watches wants the newest.
        let default = if since.is_some() { Delivery::All } else { self.delivery };
        let delivery = delivery.unwrap_or(default);
        self.delivery = delivery;
        // The socket carries out actions in order and reads on only then, so no other subscribe waits.
        self.pending = Some(Pending {
            correlation_id: correlation_id.unwrap_or_default(),
            patterns: patterns.clone(),
            delivery,
            located: None,
        });
        match since {
            Some((epoch, seq)) => out.push(Action::Locate(epoch, seq)),
            None => out.push(self.join_action(patterns, delivery, None)),
        }
    }

    pub(super) fn join_action(&self, patterns: Vec<Pattern>, delivery: Delivery, since: Option<Seq>) -> Action {
        let user = self.rights().map(|rights| User { name: rights.user.clone(), role: rights.role.name() });
        Action::Join(Join { listener: self.listener, user, patterns, scope: self.scope.clone(), delivery, since })
    }

    pub(super) fn unsubscribe(&mut self, patterns: &[Pattern], id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        self.patterns.retain(|pattern| !patterns.contains(pattern));
        self.ages.retain(|channel, _| self.patterns.iter().any(|pattern| pattern.matches(channel)));
        if let Some(listener) = self.listener {
            out.push(Action::Unsubscribe(listener, patterns.to_vec()));
        }
        let channels: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        self.say(out, &UnsubscribedData { channels }, id, now);
    }

    fn push(&mut self, published: &Arc<Published>, out: &mut Vec<Action>, now: Stamp) {
        self.note_age(&published.event);
        self.sent += 1;
        self.write_shared(published, out, now);
    }

    fn note_age(&mut self, event: &Event) {
        if let EventBody::Reading(reading) = &event.body {
            self.ages.insert(wire::channel_of(&event.body), reading.received.mono);
        }
    }

    fn finish_replay(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let recent = self.replaying.as_mut().map(|replaying| std::mem::take(&mut replaying.recent));
        for published in recent.unwrap_or_default() {
            match &published.event.body {
                EventBody::Notification(it) => {
                    self.tell_again(it, (&published.event.epoch, published.event.seq), out, now);
                }
                _ => self.push(&published, out, now),
            }
        }
        let Some(replaying) = self.replaying.take() else {
            return;
        };
        for published in &replaying.latest {
            self.note_age(&published.event);
        }
        let shared = Arc::clone(&self.shared);
        let scope = self.scope.clone();
        let patients = shared.patients.iter().filter(|patient| scope.sees_patient(&patient.id));
        let latest = replaying.latest.iter().map(|published| published.event.as_ref());
        let snapshot = wire::Snapshot::new(patients, latest, shared.stale_and_lost_ms, now.mono);
        self.name_streams(&replaying.latest, out, now);
        self.say(out, &snapshot, None, now);
        self.hand_over(&replaying, out, now);
    }
}
