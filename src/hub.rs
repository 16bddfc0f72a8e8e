//! Who listens to what: joins a listener to the stream of events without a gap or a duplicate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::channel::{Pattern, notifications_of};
use crate::clock::Mono;
use crate::event::{EventBody, LimitKind};
use crate::filter::{Filter, Share};
use crate::ids::{AlertId, DeviceId, PatientId, RuleId, Seq, SourceId, WardId};
use crate::metrics::Metrics;
use crate::notifier::Letter;
use crate::outbox::{Delivery, Outbox, Published, PublishedWave, Put, SelfCheck};
use crate::rooms::{Audience, Moment, RoomsNow};
use crate::signal_times::SignalTimes;
use crate::vitals::Metric;

/// Recent events kept in memory: the seconds that are not on disk yet, and quick reconnects.
pub const RING_EVENTS: usize = 8192;

/// Most streams (patient, device, metric) whose latest reading is kept for snapshots; more are not snapshotted.
pub const MAX_STREAMS: usize = 10_000;

/// Most listeners at once; the server's own limit is lower.
pub const MAX_LISTENERS: usize = 2048;

/// Readings and waves of this time go out to each listener in one write. The first after a pause does not wait, and
/// alerts never do. An eye does not see it: a number changes once a second.
pub const TICK: Duration = Duration::from_millis(40);

/// How the pattern of somebody who wants waves begins; see [`crate::waveform::WAVEFORM`].
const WAVEFORM_LEVEL: &str = "waveform/";

/// Whoever listens to one of these is told that alerting works.
const CHECKED: [&str; 3] = ["alerts/+", "ward/+/alerts/+", "system"];

/// A listener's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerId(u64);

impl ListenerId {
    /// The number, which no other listener of this run has.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What a listener may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Everything,
    /// Only what these patterns choose.
    Only(Vec<Pattern>),
}

impl Scope {
    /// True if an event on these routes may be seen.
    pub fn allows(&self, routes: &[String]) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(patterns) => chooses(patterns, routes),
        }
    }

    /// True if what is published on this channel alone may be seen.
    pub fn allows_channel(&self, channel: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(channel)),
        }
    }

    /// True if some channel of this pattern may be seen.
    pub fn overlaps(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(patterns) => patterns.iter().any(|allowed| allowed.overlaps(pattern)),
        }
    }

    /// True if something of this patient may be seen, on the patient's own channels or on those of the ward.
    pub fn sees_patient(&self, patient: &PatientId, ward: Option<&WardId>) -> bool {
        let own = format!("patient/{patient}/+");
        let of_ward = ward.map(|ward| format!("ward/{ward}/{own}"));
        let mut channels = [Some(own), of_ward].into_iter().flatten();
        channels.any(|channels| channels.parse().is_ok_and(|pattern| self.overlaps(&pattern)))
    }
}

fn chooses(patterns: &[Pattern], routes: &[String]) -> bool {
    routes.iter().any(|route| patterns.iter().any(|pattern| pattern.matches(route)))
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The name of the user's role.
    pub role: &'static str,
}

/// A wish to listen, or to listen to more.
#[derive(Debug, Clone)]
pub struct Join {
    /// An earlier listener that wants more; `None` for a new one.
    pub listener: Option<ListenerId>,
    /// Who listens; nobody's notifications reach a listener of nobody.
    pub user: Option<User>,
    /// Channels to add. One that the listener has already gets the filter and the delivery of this join.
    pub patterns: Vec<Pattern>,
    /// What is wanted of the events on them; `None`: all.
    pub filter: Option<Arc<Filter>>,
    /// What the listener may see.
    pub scope: Scope,
    /// How it wants the readings on them.
    pub delivery: Delivery,
    /// The last event it has, if it wants what came since.
    pub since: Option<Seq>,
    /// It acknowledges what comes on alerts' channels, and wants to know how far its user has come.
    pub acks: bool,
}

/// The answer to a [`Join`]: everything up to `through` is in here or on disk, everything after it in the outbox.
#[derive(Debug)]
pub struct Joined {
    /// The listener's number.
    pub listener: ListenerId,
    /// Where its events wait.
    pub outbox: Arc<Outbox>,
    /// The last event before the join.
    pub through: Seq,
    /// The latest reading of each stream, the latest state of each source and each present alert on the added
    /// channels.
    pub latest: Vec<Arc<Published>>,
    /// With `since`: the matching events after it that memory holds, oldest first.
    pub recent: Vec<Arc<Published>>,
    /// Memory holds every event from this one on; what lies before must come from disk.
    pub recent_from: Seq,
    /// Messages that wait for this user, if the listener did not hear the user's notifications before. The hub has none:
    /// its owner adds them.
    pub letters: Vec<Letter>,
    /// Who is in the rooms that were added by name. Of the hub's owner too.
    pub rooms: RoomsNow,
    /// How far the listener's user has acknowledged the alerts' channels, where it acknowledges at all. As `letters`.
    pub acked: BTreeMap<String, Seq>,
    /// When numbers are old and gone. As `letters`.
    pub signal_times: SignalTimes,
}

/// Channels that a listener wants, what of them, and how.
#[derive(Debug, Clone, PartialEq)]
struct Subscription {
    pattern: Pattern,
    filter: Option<Arc<Filter>>,
    delivery: Delivery,
}

impl Subscription {
    fn share(&self, published: &Published) -> Share {
        if !published.routes.iter().any(|route| self.pattern.matches(route)) {
            return Share::Nothing;
        }
        self.filter.as_ref().map_or(Share::Whole, |filter| filter.share(&published.event, &published.routes))
    }
}

/// How a listener wants an event, and what of it.
type Wanted = (Delivery, Share);

/// What goes to a listener: `None`, nothing.
fn cut(published: &Arc<Published>, wanted: Option<Wanted>) -> Option<Arc<Published>> {
    match wanted?.1 {
        Share::Nothing => None,
        Share::WithoutNumber => published.withheld(),
        Share::Whole => Some(Arc::clone(published)),
    }
}

#[derive(Debug)]
struct Listener {
    outbox: Arc<Outbox>,
    user: Option<User>,
    subscriptions: Vec<Subscription>,
    scope: Scope,
    /// The same number for all that are alike.
    kind: u64,
}

impl Listener {
    /// How the listener wants an event, if it does: of several subscriptions the one that gives it more.
    ///
    /// A notification is for its users only, whatever a token allows on channels.
    fn wants(&self, published: &Published) -> Option<Wanted> {
        if let EventBody::Notification(notification) = &published.event.body {
            let is_meant = self.user.as_ref().is_some_and(|user| notification.users.contains(&user.name));
            return (is_meant && self.hears_own()).then_some((Delivery::Latest, Share::Whole));
        }
        if let EventBody::Chat(chat) = &published.event.body
            && !self.user.as_ref().is_none_or(|user| chat.concerns(&user.name))
        {
            return None;
        }
        let mut wanted: Option<Wanted> = None;
        for subscription in &self.subscriptions {
            let (one, share) = (subscription.delivery, subscription.share(published));
            if share == Share::Nothing {
                continue;
            }
            wanted = Some(wanted.map_or((one, share), |(before, most)| (before.or(one), most.max(share))));
            if wanted == Some((Delivery::All, Share::Whole)) {
                break;
            }
        }
        wanted.filter(|_| self.scope.allows(&published.routes))
    }

    /// What is of the moment is for whoever listens; a person's own tabs also see it where they do not.
    fn wants_moment(&self, moment: &Moment) -> bool {
        let is_own = self.user.as_ref().is_some_and(|user| user.name == moment.by);
        let listens = moment.routes.iter().any(|route| self.subscriptions.iter().any(|it| it.pattern.matches(route)));
        let is_meant = match moment.audience {
            Audience::Listeners => listens,
            Audience::ListenersAndOwn => listens || is_own,
            Audience::Others => listens && !is_own,
            Audience::Own => is_own,
        };
        is_meant && self.scope.allows(&moment.routes)
    }

    /// True if both want the same of everything that is not for a user: dashboards of one ward are alike.
    fn is_like(&self, other: &Self) -> bool {
        self.subscriptions == other.subscriptions && self.scope == other.scope
    }

    /// True if it listens to the notifications of its user.
    fn hears_own(&self) -> bool {
        let channel = self.user.as_ref().map(|user| notifications_of(&user.name));
        channel.is_some_and(|channel| self.subscriptions.iter().any(|it| it.pattern.matches(&channel)))
    }

    /// Waves come only to those who named them: `#` does not.
    fn wants_wave(&self, channel: &str) -> bool {
        let named = |it: &&Subscription| it.pattern.as_str().starts_with(WAVEFORM_LEVEL);
        self.subscriptions.iter().filter(named).any(|it| it.pattern.matches(channel))
            && self.scope.allows_channel(channel)
    }

    /// True if it wants fewer readings of some stream.
    fn samples(&self) -> bool {
        self.subscriptions.iter().any(|it| matches!(it.delivery, Delivery::Sampled(_)))
    }

    /// Tells the outbox what the subscriptions have become.
    fn on_resubscribed(&self) {
        let in_order = self.subscriptions.iter().any(|it| it.delivery == Delivery::All);
        self.outbox.resubscribed(in_order, |published| self.wants(published).is_some());
    }
}

/// Owned by the pipeline; nobody else puts anything in.
#[derive(Debug)]
pub struct Hub {
    listeners: BTreeMap<ListenerId, Listener>,
    last_listener: u64,
    last_kind: u64,
    ring: VecDeque<Arc<Published>>,
    through: Seq,
    streams: BTreeMap<(Option<PatientId>, DeviceId, Metric), Arc<Published>>,
    sources: BTreeMap<SourceId, Arc<Published>>,
    alerts: BTreeMap<AlertId, Arc<Published>>,
    /// What people changed of the limits, while it holds; the engine bounds how many.
    limits: BTreeMap<(PatientId, RuleId, LimitKind), Arc<Published>>,
    tick: Duration,
    last_tick: Mono,
    /// Something waits for the next tick.
    waits: bool,
    metrics: Arc<Metrics>,
}

impl Hub {
    /// `through`: the last event of the epochs before.
    pub fn new(through: Seq, metrics: Arc<Metrics>) -> Self {
        Self {
            listeners: BTreeMap::new(),
            last_listener: 0,
            last_kind: 0,
            ring: VecDeque::new(),
            through,
            streams: BTreeMap::new(),
            sources: BTreeMap::new(),
            alerts: BTreeMap::new(),
            limits: BTreeMap::new(),
            tick: TICK,
            last_tick: Mono(0),
            waits: false,
            metrics,
        }
    }

    /// Another time than [`TICK`]; none at all has each reading written by itself.
    pub fn set_tick(&mut self, tick: Duration) {
        self.tick = tick;
    }

    /// When [`Hub::on_tick`] has something to do.
    pub fn next_tick(&self) -> Option<Mono> {
        self.waits.then_some(self.last_tick + self.tick)
    }

    /// What waits goes out, if its time has come.
    pub fn on_tick(&mut self, now: Mono) {
        if self.next_tick().is_some_and(|due| due <= now) {
            (self.last_tick, self.waits) = (now, false);
            for listener in self.listeners.values() {
                listener.outbox.tick();
            }
        }
    }

    /// Gives an event to everybody who wants it. Never waits.
    pub fn publish(&mut self, published: &Arc<Published>) {
        self.through = published.event.seq;
        if self.ring.len() >= RING_EVENTS {
            self.ring.pop_front();
        }
        self.ring.push_back(Arc::clone(published));
        self.remember(published);
        self.release(published);
        self.waits = true;
        let is_for_users = matches!(published.event.body, EventBody::Notification(_) | EventBody::Chat(_));
        let mut last: Option<(&Listener, Option<Wanted>)> = None;
        let (mut is_alarmed, mut withheld) = (None, None);
        for listener in self.listeners.values() {
            let wants = match last {
                Some((last, wants)) if !is_for_users && last.kind == listener.kind => wants,
                _ => listener.wants(published),
            };
            last = Some((listener, wants));
            let Some((delivery, share)) = wants else { continue };
            // Looked up once, and only where somebody's sampling has to know.
            let is_alarmed = matches!(delivery, Delivery::Sampled(_))
                && *is_alarmed.get_or_insert_with(|| self.is_alarmed(&published.event.body));
            // Made once, and only where somebody wants none of its quality.
            let shown = match share {
                Share::Whole => Some(published),
                Share::WithoutNumber => withheld.get_or_insert_with(|| published.withheld()).as_ref(),
                Share::Nothing => None,
            };
            let Some(shown) = shown else { continue };
            match listener.outbox.put(shown, delivery, is_alarmed) {
                Put::Queued | Put::Held => {}
                Put::Conflated => self.metrics.listener_conflated_total.add_one(),
                Put::Overrun => self.metrics.listener_overrun_total.add_one(),
            }
        }
    }

    /// Puts others in the place of events that are kept, where `again` gives one. Nobody is told.
    pub fn replace(&mut self, again: impl Fn(&Arc<Published>) -> Option<Arc<Published>>) {
        let state = self.streams.values_mut().chain(self.sources.values_mut());
        let state = state.chain(self.alerts.values_mut()).chain(self.limits.values_mut());
        for known in self.ring.iter_mut().chain(state) {
            if let Some(other) = again(known) {
                *known = other;
            }
        }
    }

    /// True if an alert stands about the metric of this reading.
    fn is_alarmed(&self, body: &EventBody) -> bool {
        let EventBody::Reading(reading) = body else { return false };
        self.alerts.values().any(|published| match &published.event.body {
            EventBody::Alert(alert) => alert.patient == reading.patient && alert.metric == Some(reading.vital.metric()),
            _ => false,
        })
    }

    /// What sampling holds back of a metric goes out when an alert begins about it: the reading that made the alert is
    /// published before the alert.
    fn release(&self, published: &Published) {
        let EventBody::Alert(alert) = &published.event.body else { return };
        let Some(metric) = alert.metric.filter(|_| alert.is_present()) else { return };
        for listener in self.listeners.values().filter(|listener| listener.samples()) {
            listener.outbox.release(alert.patient.as_ref(), metric, published.event.at.mono);
        }
    }

    /// True if somebody watches this wave.
    pub fn watches_wave(&self, channel: &str) -> bool {
        self.listeners.values().any(|listener| listener.wants_wave(channel))
    }

    /// Gives samples to everybody who watches the wave. Never waits.
    pub fn publish_wave(&mut self, wave: &Arc<PublishedWave>) {
        self.waits = true;
        for listener in self.listeners.values().filter(|listener| listener.wants_wave(&wave.channel)) {
            if listener.outbox.put_wave(wave) == Put::Conflated {
                self.metrics.listener_waves_dropped_total.add_one();
            }
        }
    }

    /// Gives what is of the moment to everybody whom it concerns. Never waits.
    pub fn tell(&self, moment: &Arc<Moment>) {
        let wants = |(id, listener): &(&ListenerId, &Listener)| {
            moment.answered != Some(id.number()) && listener.wants_moment(moment)
        };
        for (_, listener) in self.listeners.iter().filter(wants) {
            listener.outbox.put_moment(moment);
        }
    }

    /// Gives a self-check to everybody who listens to alerts or to the bridge. Never waits.
    pub fn self_check(&self, check: &Arc<SelfCheck>) {
        let checked: Vec<Pattern> = CHECKED.iter().filter_map(|channel| channel.parse().ok()).collect();
        let wants = |pattern: &Pattern| checked.iter().any(|channel| channel.overlaps(pattern));
        for listener in
            self.listeners.values().filter(|listener| listener.subscriptions.iter().any(|it| wants(&it.pattern)))
        {
            listener.outbox.put_check(check);
        }
    }

    fn remember(&mut self, published: &Arc<Published>) {
        match &published.event.body {
            EventBody::Reading(reading) => {
                let stream = (reading.patient.clone(), reading.device.clone(), reading.vital.metric());
                // What a device had kept and hands over late must not hide a newer measurement.
                let is_hidden = |known: &Arc<Published>| match &known.event.body {
                    EventBody::Reading(known) => reading.is_older_than(known),
                    _ => false,
                };
                if self.streams.get(&stream).is_some_and(is_hidden) {
                    return;
                }
                if self.streams.len() < MAX_STREAMS || self.streams.contains_key(&stream) {
                    self.streams.insert(stream, Arc::clone(published));
                }
            }
            EventBody::Source(source) => {
                self.sources.insert(source.source.clone(), Arc::clone(published));
            }
            EventBody::Alert(alert) if alert.is_present() => {
                self.alerts.insert(alert.alert, Arc::clone(published));
            }
            EventBody::Alert(alert) => {
                self.alerts.remove(&alert.alert);
            }
            EventBody::Limits(limits) => {
                let change = &limits.change;
                let key = (change.patient.clone(), change.rule.clone(), change.kind);
                if limits.action.is_in_force() {
                    self.limits.insert(key, Arc::clone(published));
                } else if change.set.is_some() {
                    self.limits.remove(&key);
                }
            }
            EventBody::Record(_)
            | EventBody::Notification(_)
            | EventBody::Chat(_)
            | EventBody::System(_)
            | EventBody::Audit(_)
            | EventBody::Inbox(_)
            | EventBody::Observation(_) => {}
        }
    }

    /// The event that last changed a present alert.
    pub fn alert(&self, alert: AlertId) -> Option<&Arc<Published>> {
        self.alerts.get(&alert)
    }

    /// The event that last changed each present alert.
    pub fn alerts(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.alerts.values()
    }

    /// The latest reading of each stream, the latest state of each source, each present alert and each change of limits,
    /// as far as `scope` shows them.
    pub fn present(&self, scope: &Scope) -> Vec<Arc<Published>> {
        let state =
            self.streams.values().chain(self.sources.values()).chain(self.alerts.values()).chain(self.limits.values());
        state.filter(|published| scope.allows(&published.routes)).cloned().collect()
    }

    /// True while somebody listens under this number.
    pub fn has(&self, listener: ListenerId) -> bool {
        self.listeners.contains_key(&listener)
    }

    /// Adds a listener, or channels to one. `None` if there are too many.
    pub fn join(&mut self, join: Join) -> Option<Joined> {
        let id = match join.listener {
            Some(id) if self.listeners.contains_key(&id) => id,
            _ if self.listeners.len() >= MAX_LISTENERS => return None,
            _ => {
                self.last_listener += 1;
                ListenerId(self.last_listener)
            }
        };
        let listener = self.listeners.entry(id).or_insert_with(|| Listener {
            outbox: Arc::default(),
            user: join.user.clone(),
            subscriptions: Vec::new(),
            scope: join.scope.clone(),
            kind: 0,
        });
        listener.user = join.user;
        listener.scope = join.scope;
        let subscribed = |pattern| Subscription { pattern, filter: join.filter.clone(), delivery: join.delivery };
        let subscriptions: Vec<Subscription> = join.patterns.into_iter().map(subscribed).collect();
        for subscription in &subscriptions {
            match listener.subscriptions.iter_mut().find(|known| known.pattern == subscription.pattern) {
                Some(known) => *known = subscription.clone(),
                None => listener.subscriptions.push(subscription.clone()),
            }
        }
        // It changes seldom, and there are many.
        listener.subscriptions.shrink_to_fit();
        listener.on_resubscribed();
        let added = Listener {
            outbox: Arc::clone(&listener.outbox),
            user: listener.user.clone(),
            subscriptions,
            scope: listener.scope.clone(),
            kind: 0,
        };
        let outbox = Arc::clone(&listener.outbox);
        self.find_alike(id);
        let wanted = |published: &Arc<Published>| cut(published, added.wants(published));
        let state =
            self.streams.values().chain(self.sources.values()).chain(self.alerts.values()).chain(self.limits.values());
        let latest = state.filter_map(wanted).collect();
        let recent = match join.since {
            Some(since) => self.ring.iter().filter(|p| p.event.seq > since).filter_map(wanted).collect(),
            None => Vec::new(),
        };
        let recent_from = self.ring.front().map_or(self.through.next(), |first| first.event.seq);
        let (letters, rooms, acked) = (Vec::new(), RoomsNow::default(), BTreeMap::new());
        let (through, signal_times) = (self.through, SignalTimes::default());
        Some(Joined { listener: id, outbox, through, latest, recent, recent_from, letters, rooms, acked, signal_times })
    }

    /// True if this listener hears the notifications of its user.
    pub fn hears_own(&self, id: ListenerId) -> bool {
        self.listeners.get(&id).is_some_and(Listener::hears_own)
    }

    /// Takes channels from a listener.
    pub fn unsubscribe(&mut self, id: ListenerId, patterns: &[Pattern]) {
        if let Some(listener) = self.listeners.get_mut(&id) {
            listener.subscriptions.retain(|it| !patterns.contains(&it.pattern));
            listener.on_resubscribed();
        }
        self.find_alike(id);
    }

    /// Gives a listener the number of those that are like it, so that it is found out once what they want of an event.
    fn find_alike(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get(&id) else { return };
        let same = self.listeners.iter().find(|(other, it)| **other != id && it.is_like(listener));
        let kind = same.map_or(self.last_kind + 1, |(_, it)| it.kind);
        self.last_kind = self.last_kind.max(kind);
        if let Some(listener) = self.listeners.get_mut(&id) {
            listener.kind = kind;
        }
    }

    /// Forgets a listener.
    pub fn leave(&mut self, id: ListenerId) {
        self.listeners.remove(&id);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Stamp, Wall};
    use crate::event::{Event, SystemEvent, SystemKind};
    use crate::outbox::{Forms, Frame};

    #[test]
    fn what_comes_within_a_tick_goes_out_together_and_the_first_after_a_pause_at_once() {
        let mut hub = Hub::new(Seq::ZERO, Arc::default());
        let at = |millis: u64| Mono::from_millis(10_000 + millis);
        assert_eq!(hub.next_tick(), None, "nothing waits");
        let publish = |hub: &mut Hub, millis| {
            let body = SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
            let at = Stamp { mono: at(millis), wall: Wall(0) };
            let event = Event { epoch: "e".parse().unwrap(), seq: Seq(1), at, body: EventBody::System(body) };
            hub.publish(&Arc::new(Published {
                event: Arc::new(event),
                routes: vec![],
                text: Frame::text(""),
                forms: Forms::default(),
            }));
        };
        publish(&mut hub, 0);
        assert!(hub.next_tick().unwrap() <= at(0), "the first does not wait");
        hub.on_tick(at(0));
        assert_eq!(hub.next_tick(), None);
        for millis in [1, 20, 39] {
            publish(&mut hub, millis);
            assert_eq!(hub.next_tick(), Some(at(0) + TICK));
            hub.on_tick(at(millis));
            assert!(hub.next_tick().is_some(), "too early");
        }
        hub.on_tick(at(40));
        assert_eq!(hub.next_tick(), None);
    }
}
