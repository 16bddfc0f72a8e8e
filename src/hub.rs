//! Who listens to what: joins a listener to the stream of events without a gap or a duplicate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::channel::{Pattern, notifications_of};
use crate::event::{EventBody, LimitKind};
use crate::ids::{AlertId, DeviceId, PatientId, RuleId, Seq, SourceId};
use crate::metrics::Metrics;
use crate::notifier::Letter;
use crate::outbox::{Delivery, Outbox, Published, PublishedWave, Put, SelfCheck};
use crate::vitals::Metric;

/// Recent events kept in memory: the seconds that are not on disk yet, and quick reconnects.
pub const RING_EVENTS: usize = 8192;

/// Most streams (patient, device, metric) whose latest reading is kept for snapshots; more are not snapshotted.
pub const MAX_STREAMS: usize = 10_000;

/// Most listeners at once; the server's own limit is lower.
pub const MAX_LISTENERS: usize = 2048;

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

    /// True if something of this patient may be seen.
    pub fn sees_patient(&self, patient: &PatientId) -> bool {
        format!("patient/{patient}/+").parse().is_ok_and(|pattern| self.overlaps(&pattern))
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
    /// Channels to add.
    pub patterns: Vec<Pattern>,
    /// What the listener may see.
    pub scope: Scope,
    /// How it wants readings.
    pub delivery: Delivery,
    /// The last event it has, if it wants what came since.
    pub since: Option<Seq>,
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
}

#[derive(Debug)]
struct Listener {
    outbox: Arc<Outbox>,
    user: Option<User>,
    patterns: Vec<Pattern>,
    scope: Scope,
    delivery: Delivery,
}

impl Listener {
    /// A notification is for its users only, whatever a token allows on channels.
    fn wants(&self, published: &Published) -> bool {
        match &published.event.body {
            EventBody::Notification(notification) => {
                self.hears_own() && self.user.as_ref().is_some_and(|user| notification.users.contains(&user.name))
            }
            _ => chooses(&self.patterns, &published.routes) && self.scope.allows(&published.routes),
        }
    }

    /// True if it listens to the notifications of its user.
    fn hears_own(&self) -> bool {
        let channel = self.user.as_ref().map(|user| notifications_of(&user.name));
        channel.is_some_and(|channel| self.patterns.iter().any(|pattern| pattern.matches(&channel)))
    }

    /// Waves come only to those who named them: `#` does not.
    fn wants_wave(&self, channel: &str) -> bool {
        let named = |pattern: &&Pattern| pattern.as_str().starts_with(WAVEFORM_LEVEL);
        self.patterns.iter().filter(named).any(|pattern| pattern.matches(channel)) && self.scope.allows_channel(channel)
    }
}

/// Owned by the pipeline; nobody else puts anything in.
#[derive(Debug)]
pub struct Hub {
    listeners: BTreeMap<ListenerId, Listener>,
    last_listener: u64,
    ring: VecDeque<Arc<Published>>,
    through: Seq,
    streams: BTreeMap<(Option<PatientId>, DeviceId, Metric), Arc<Published>>,
    sources: BTreeMap<SourceId, Arc<Published>>,
    alerts: BTreeMap<AlertId, Arc<Published>>,
    /// What people changed of the limits, while it holds; the engine bounds how many.
    limits: BTreeMap<(PatientId, RuleId, LimitKind), Arc<Published>>,
    metrics: Arc<Metrics>,
}

impl Hub {
    /// `through`: the last event of the epochs before.
    pub fn new(through: Seq, metrics: Arc<Metrics>) -> Self {
        Self {
            listeners: BTreeMap::new(),
            last_listener: 0,
            ring: VecDeque::new(),
            through,
            streams: BTreeMap::new(),
            sources: BTreeMap::new(),
            alerts: BTreeMap::new(),
            limits: BTreeMap::new(),
            metrics,
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
        for listener in self.listeners.values().filter(|listener| listener.wants(published)) {
            match listener.outbox.put(published, listener.delivery) {
                Put::Queued => {}
                Put::Conflated => self.metrics.listener_conflated_total.add_one(),
                Put::Overrun => self.metrics.listener_overrun_total.add_one(),
            }
        }
    }

    /// True if somebody watches this wave.
    pub fn watches_wave(&self, channel: &str) -> bool {
        self.listeners.values().any(|listener| listener.wants_wave(channel))
    }

    /// Gives samples to everybody who watches the wave. Never waits.
    pub fn publish_wave(&self, wave: &Arc<PublishedWave>) {
        for listener in self.listeners.values().filter(|listener| listener.wants_wave(&wave.channel)) {
            if listener.outbox.put_wave(wave) == Put::Conflated {
                self.metrics.listener_waves_dropped_total.add_one();
            }
        }
    }

    /// Gives a self-check to everybody who listens to alerts or to the bridge. Never waits.
    pub fn self_check(&self, check: &Arc<SelfCheck>) {
        let checked: Vec<Pattern> = CHECKED.iter().filter_map(|channel| channel.parse().ok()).collect();
        let wants = |pattern: &Pattern| checked.iter().any(|channel| channel.overlaps(pattern));
        for listener in self.listeners.values().filter(|listener| listener.patterns.iter().any(wants)) {
            listener.outbox.put_check(check);
        }
    }

    fn remember(&mut self, published: &Arc<Published>) {
        match &published.event.body {
            EventBody::Reading(reading) => {
                let stream = (reading.patient.clone(), reading.device.clone(), reading.vital.metric());
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
            patterns: Vec::new(),
            scope: join.scope.clone(),
            delivery: join.delivery,
        });
        listener.user = join.user;
        listener.scope = join.scope;
        listener.delivery = join.delivery;
        for pattern in &join.patterns {
            if !listener.patterns.contains(pattern) {
                listener.patterns.push(pattern.clone());
            }
        }
        let added = Listener {
            outbox: Arc::clone(&listener.outbox),
            user: listener.user.clone(),
            patterns: join.patterns,
            scope: listener.scope.clone(),
            delivery: listener.delivery,
        };
        let wanted = |published: &&Arc<Published>| added.wants(published);
        let state =
            self.streams.values().chain(self.sources.values()).chain(self.alerts.values()).chain(self.limits.values());
        let latest = state.filter(wanted).cloned().collect();
        let recent = match join.since {
            Some(since) => self.ring.iter().filter(|p| p.event.seq > since).filter(wanted).cloned().collect(),
            None => Vec::new(),
        };
        let recent_from = self.ring.front().map_or(self.through.next(), |first| first.event.seq);
        let outbox = Arc::clone(&listener.outbox);
        let letters = Vec::new();
        Some(Joined { listener: id, outbox, through: self.through, latest, recent, recent_from, letters })
    }

    /// True if this listener hears the notifications of its user.
    pub fn hears_own(&self, id: ListenerId) -> bool {
        self.listeners.get(&id).is_some_and(Listener::hears_own)
    }

    /// Takes channels from a listener.
    pub fn unsubscribe(&mut self, id: ListenerId, patterns: &[Pattern]) {
        if let Some(listener) = self.listeners.get_mut(&id) {
            listener.patterns.retain(|pattern| !patterns.contains(pattern));
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
