//! How a session listens: subscribe, resume after what the client has, snapshot, live events.

use std::sync::Arc;

use super::chatting::rooms_told;
use super::{Action, Located, MAX_REPLAY, MAX_SUBSCRIPTIONS, PONG_DEADLINE, Pending, Replaying, Session};
use crate::channel::{Pattern, routes};
use crate::clock::Stamp;
use crate::command::BadMember;
use crate::event::{Event, EventBody, LimitsEvent};
use crate::filter::{Filter, Share};
use crate::hub::{Join, Joined, User};
use crate::ids::{Epoch, Seq};
use crate::outbox::{Delivery, Parcel, Published};
use crate::server::close::Close;
use crate::server::frames::{GapData, GapStreamData, SubscribedData, UnsubscribedData};
use crate::server::message::Unreadable;
use crate::wire;

impl Session {
    /// It was found where a resume goes on.
    pub fn on_located(&mut self, located: Located) -> Vec<Action> {
        let Some(pending) = self.pending.as_mut() else {
            return Vec::new();
        };
        let (patterns, filter, delivery) = (pending.patterns.clone(), pending.filter.clone(), pending.delivery);
        let since = located.after.unwrap_or(Seq(u64::MAX));
        pending.located = Some(located);
        vec![self.join_action(patterns, (filter, delivery), Some(since))]
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
        // Few, and for long.
        self.patterns.reserve_exact(pending.patterns.len());
        for pattern in &pending.patterns {
            if !self.patterns.contains(pattern) {
                self.patterns.push(pattern.clone());
            }
            match &pending.filter {
                Some(filter) => self.filters.insert(pattern.clone(), Arc::clone(filter)),
                None => self.filters.remove(pattern),
            };
        }
        let located = pending.located.as_ref();
        let resume = located.and_then(|located| located.after.map(|after| (after, &located.lost)));
        // Nobody has seen what has not happened: such a client is told the present.
        let resume = resume.filter(|(after, _)| *after <= joined.through);
        let floor = Seq(joined.through.0.saturating_sub(MAX_REPLAY));
        // Who does not resume and acknowledges gets the alerts that he has not acknowledged.
        let unacked = self.unacked(&joined, &pending.patterns, located.is_some());
        let owed = unacked.as_ref().and_then(|cursors| cursors.values().min().copied());
        let after = resume.map_or(joined.through, |(after, _)| after.max(floor));
        let capped = resume.is_some_and(|(after, _)| after < floor);
        let lost = resume.map_or(&[][..], |(_, lost)| lost);
        // What memory holds comes, whether the disk has it or not.
        let in_memory = joined.recent_from;
        let clipped = |(first, last): &(Seq, Seq)| (*first, (*last).min(Seq(in_memory.0.saturating_sub(1))));
        let lost: Vec<(Seq, Seq)> = lost.iter().map(clipped).filter(|(first, last)| first <= last).collect();
        let common = Arc::clone(&self.shared);
        let data = SubscribedData {
            channels: pending.patterns.iter().map(Pattern::as_str).collect(),
            recovered: resume.is_some() && !capped && lost.is_empty(),
            first_seq: after.next(),
            last_seq: joined.through,
            epoch: &common.epoch,
            lost: &lost,
            rooms: rooms_told(&joined.rooms),
            cursors: self.acking.is_on().then_some(&joined.acked),
        };
        self.say(&mut out, &data, Some(&pending.correlation_id), now);
        self.acking.on_joined(&joined);
        self.on_rooms(&joined.rooms, &mut out, now);
        let Joined { latest, recent, recent_from, letters, through, signal_times, .. } = joined;
        let (patterns, told) = (pending.patterns, Vec::new());
        let filter = pending.filter;
        let after = owed.map_or(after, |owed| owed.max(floor));
        let expected = after.next();
        let in_disk = Seq(recent_from.0.saturating_sub(1));
        let from_disk = ((resume.is_some() || owed.is_some()) && expected <= in_disk).then_some(in_disk);
        self.replaying = Some(Box::new(Replaying {
            patterns,
            filter,
            unacked,
            recent,
            latest,
            letters,
            signal_times,
            through,
            expected,
            from_disk,
            lost,
            told,
        }));
        if let Some(through) = from_disk {
            let readings = owed.is_none();
            out.push(Action::Replay { after, through, readings });
        } else {
            self.finish_replay(&mut out, now);
        }
        out
    }

    /// Events of a replay, from disk.
    pub fn on_replay(&mut self, events: &[Event], now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let is_owed = self.replaying.as_ref().is_some_and(|replaying| replaying.unacked.is_some());
        for event in events {
            if !is_owed {
                self.tell_what_has_gone(event.seq, &mut out, now);
            }
            if let EventBody::Notification(notification) = &event.body
                && !is_owed
            {
                self.tell_again(notification, (&event.epoch, event.seq), &mut out, now);
                continue;
            }
            if !self.concerns(event) {
                continue;
            }
            let Some(replaying) = &self.replaying else { return out };
            let routes = routes(event, self.shared.ward_of(event));
            let withheld = match replaying.share(event, &routes) {
                Share::Nothing => continue,
                Share::WithoutNumber => event.withheld(),
                Share::Whole => None,
            };
            let event = withheld.as_ref().unwrap_or(event);
            if self.scope.allows(&routes)
                && let Some(text) = self.in_older_form(event).or_else(|| wire::push(event).ok())
            {
                self.acking.on_sent(event, &routes, || text.clone().into(), now);
                if is_owed {
                    self.send_again(text.as_bytes(), &mut out);
                } else {
                    self.sent += 1;
                    self.write_event(event, text, &mut out, now);
                }
            }
        }
        out
    }

    /// The store may drop rows while they are replayed: what is missing before an event, and was not told as lost, is said.
    fn tell_what_has_gone(&mut self, seq: Seq, out: &mut Vec<Action>, now: Stamp) {
        let Some(replaying) = &mut self.replaying else { return };
        let mut from = std::mem::replace(&mut replaying.expected, seq.next());
        let mut gone = Vec::new();
        for (first, last) in &replaying.lost {
            if from < *first && from < seq {
                gone.push((from, Seq(first.0.min(seq.0) - 1)));
            }
            from = from.max(last.next());
        }
        if from < seq {
            gone.push((from, Seq(seq.0 - 1)));
        }
        for (from, to) in gone {
            let (skipped, streams) = (to.0 - from.0 + 1, Vec::new());
            let common = Arc::clone(&self.shared);
            self.say(out, &GapData { from, to, skipped, epoch: &common.epoch, streams }, None, now);
        }
    }

    /// The replay from disk is complete.
    pub fn on_replayed(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        self.pong_due = self.pong_due.map(|_| now.mono + PONG_DEADLINE);
        self.acking.on_replayed(now);
        let end = self.replaying.as_ref().filter(|replaying| replaying.unacked.is_none());
        if let Some(through) = end.and_then(|replaying| replaying.from_disk) {
            // Neither on disk nor in memory: said, not hidden.
            self.tell_what_has_gone(through.next(), &mut out, now);
        }
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
                    // Rights may have been narrowed while it waited, or channels left.
                    if self.narrowings == 0 || self.hears(&published.routes) {
                        self.push(published, &mut out, now);
                        self.overtake(published);
                    }
                }
                Parcel::Check(check) => self.tell_check(check, &mut out, now),
                Parcel::Moment(moment) => self.tell_moment(moment, &mut out),
                Parcel::Wave(wave) => {
                    if self.hears(std::slice::from_ref(&wave.channel)) {
                        out.push(Action::SendBinary(wave.message.clone()));
                    }
                }
                Parcel::Gap { from, to, skipped, streams } => {
                    let seen = streams.iter().filter(|it| self.hears(&it.last.routes));
                    let streams = seen.map(GapStreamData::of).collect();
                    let common = Arc::clone(&self.shared);
                    let (from, to, skipped) = (*from, *to, *skipped);
                    self.say(&mut out, &GapData { from, to, skipped, epoch: &common.epoch, streams }, None, now);
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
        (filter, delivery): (Option<Arc<Filter>>, Option<Delivery>),
        since: Option<(Epoch, Seq)>,
        correlation_id: Option<String>,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let id = correlation_id.as_deref();
        let denied: Vec<&str> = patterns.iter().filter(|p| !self.may_hear(p)).map(Pattern::as_str).collect();
        if !denied.is_empty() {
            let refusal = Unreadable::Denied { channels: denied.join(", ") };
            self.write_down(&patterns, since.as_ref(), Some(&refusal));
            return self.wrong(out, &refusal, id, now);
        }
        if since.is_some() && self.listener.is_some() {
            let place = BadMember::new("since", "belongs to the first subscribe of a connection");
            return self.wrong(out, &Unreadable::Member(place), id, now);
        }
        if self.patterns.len() + patterns.len() > MAX_SUBSCRIPTIONS {
            self.write_down(&patterns, since.as_ref(), Some(&Unreadable::TooManySubscriptions));
            return self.wrong(out, &Unreadable::TooManySubscriptions, id, now);
        }
        self.write_down(&patterns, since.as_ref(), None);
        // Who resumes wants each event; who only watches wants the newest.
        let default = if since.is_some() { Delivery::All } else { self.delivery };
        let delivery = delivery.unwrap_or(default);
        self.delivery = delivery;
        // The socket carries out actions in order and reads on only then, so no other subscribe waits.
        self.pending = Some(Box::new(Pending {
            correlation_id: correlation_id.unwrap_or_default(),
            patterns: patterns.clone(),
            filter: filter.clone(),
            delivery,
            located: None,
        }));
        match since {
            Some((epoch, seq)) => out.push(Action::Locate(epoch, seq)),
            None => out.push(self.join_action(patterns, (filter, delivery), None)),
        }
    }

    pub(super) fn join_action(
        &self,
        patterns: Vec<Pattern>,
        (filter, delivery): (Option<Arc<Filter>>, Delivery),
        since: Option<Seq>,
    ) -> Action {
        let user = self.rights().map(|rights| User { name: rights.user.clone(), role: rights.role.name() });
        let (listener, scope, acks) = (self.listener, self.scope.clone(), self.acking.is_on());
        Action::Join(Box::new(Join { listener, user, patterns, filter, scope, delivery, since, acks }))
    }

    pub(super) fn unsubscribe(&mut self, patterns: &[Pattern], id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        self.narrowings = self.narrowings.saturating_add(1);
        self.patterns.retain(|pattern| !patterns.contains(pattern));
        self.filters.retain(|pattern, _| !patterns.contains(pattern));
        self.forget_newest();
        self.forget_unheard(now);
        if let Some(listener) = self.listener {
            out.push(Action::Unsubscribe(listener, patterns.to_vec()));
        }
        let channels: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        self.say(out, &UnsubscribedData { channels, narrowed: None }, id, now);
    }

    /// True if the session listens to one of these channels of an event, and may.
    pub(super) fn hears(&self, routes: &[String]) -> bool {
        self.scope.allows(routes) && routes.iter().any(|route| self.patterns.iter().any(|it| it.matches(route)))
    }

    /// Says no more of the age of streams that the session does not listen to any more.
    pub(super) fn forget_newest(&mut self) {
        let mut newest = std::mem::take(&mut self.newest);
        newest.retain(|known| self.hears(&known.routes));
        self.newest = newest;
    }

    fn push(&mut self, published: &Arc<Published>, out: &mut Vec<Action>, now: Stamp) {
        self.note_age(published);
        self.acking.on_sent(&published.event, &published.routes, || published.text.payload(), now);
        self.sent += 1;
        match self.in_older_form(&published.event) {
            Some(text) => out.push(self.form.own(text)),
            None => self.write_shared(published, out, now),
        }
    }

    fn note_age(&mut self, published: &Arc<Published>) {
        if published.received().is_none() {
            return;
        }
        let place = self.newest.binary_search_by(|known| known.channel().cmp(published.channel()));
        match place.map(|at| self.newest.get_mut(at)) {
            Ok(Some(known)) => *known = Arc::clone(published),
            Ok(None) => {}
            Err(at) => self.newest.insert(at, Arc::clone(published)),
        }
    }

    fn finish_replay(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let is_owed = self.replaying.as_ref().is_some_and(|replaying| replaying.unacked.is_some());
        let recent = self.replaying.as_mut().map(|replaying| std::mem::take(&mut replaying.recent));
        for published in recent.unwrap_or_default() {
            // The hub has cut it to what this client gets.
            let wants = |it: &Replaying| it.share(&published.event, &published.routes) != Share::Nothing;
            if !self.replaying.as_deref().is_some_and(wants) {
                continue;
            }
            match &published.event.body {
                EventBody::Notification(it) => {
                    self.tell_again(it, (&published.event.epoch, published.event.seq), out, now);
                }
                _ if is_owed => {
                    self.acking.on_sent(&published.event, &published.routes, || published.text.payload(), now);
                    self.send_again(&published.text, out);
                }
                _ => self.push(&published, out, now),
            }
        }
        let Some(replaying) = self.replaying.take() else {
            return;
        };
        for published in &replaying.latest {
            self.note_age(published);
        }
        let shared = Arc::clone(&self.shared);
        let scope = self.scope.clone();
        let patients = shared.patients.iter().filter(|patient| scope.sees_patient(&patient.id, Some(&patient.ward)));
        let latest = replaying.latest.iter().map(|published| published.event.as_ref());
        let snapshot = wire::Snapshot::new(patients, latest, &replaying.signal_times, now.mono);
        self.name_streams(&replaying.latest, out, now);
        self.say(out, &snapshot, None, now);
        self.hand_over(&replaying, out, now);
    }
}

impl Replaying {
    /// What the client gets of a missed event: of what it subscribed to, or of a replay of what was not acknowledged of
    /// those.
    fn share(&self, event: &Event, routes: &[String]) -> Share {
        if let Some(unacked) = &self.unacked {
            let is_owed = |route| unacked.get(route).is_some_and(|acked| event.seq > *acked);
            if !(matches!(event.body, EventBody::Alert(_)) && routes.first().is_some_and(is_owed)) {
                return Share::Nothing;
            }
        }
        if matches!(event.body, EventBody::Notification(_)) {
            return Share::Whole;
        }
        if !routes.iter().any(|route| self.patterns.iter().any(|pattern| pattern.matches(route))) {
            return Share::Nothing;
        }
        self.filter.as_ref().map_or(Share::Whole, |filter| filter.share(event, routes))
    }
}
