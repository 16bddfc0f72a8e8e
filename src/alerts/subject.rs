//! One patient (or the bridge itself): what its devices say, and every rule's episode over it.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use crate::alerts::BridgeCondition;
use crate::alerts::episode::{AlertIds, Episode, Open, Outcome, Sight, Stage, Terms};
use crate::alerts::file::MAX_SILENCE;
use crate::alerts::judge::{Judge, Truth};
use crate::alerts::rule::{Condition, Level, Quantity, Rule};
use crate::alerts::score::{self, Standing};
use crate::alerts::silence::{DEFAULT_SILENCE, silences};
use crate::alerts::wording;
use crate::clock::{Mono, Stamp};
use crate::event::{AlertChange, AlertEvent, AlertKind, EndReason, LinkState, Presence, Priority, SourceEvent};
use crate::ids::{AlertId, DeviceId, PatientId, RuleId};
use crate::vitals::{Decimal, Metric, Mode, Quality, Reading, Rhythm, Status, Value};

pub(super) use look::View;
use look::compound;

/// A rule's condition on one thing: the patient, a metric or a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    rule: usize,
    metric: Option<Metric>,
    device: Option<DeviceId>,
}

/// The newest number of one quality.
#[derive(Debug, Clone)]
struct Sample {
    /// Counts up, so that a judge sees each sample once.
    number: u64,
    value: Decimal,
    mode: Mode,
    at: Mono,
}

/// One quantity from one device.
#[derive(Debug, Clone, Default)]
struct Channel {
    /// Quality of the newest reading; `None` if it had no number.
    newest: Option<Quality>,
    samples: BTreeMap<Quality, Sample>,
}

impl Channel {
    /// The newest sample of the qualities that count.
    fn sample(&self, quality: &[Quality]) -> Option<&Sample> {
        quality.iter().filter_map(|quality| self.samples.get(quality)).max_by_key(|sample| sample.number)
    }
}

/// Who delivers a metric, and since when it is expected.
#[derive(Debug, Clone)]
struct Origin {
    since: Mono,
    devices: BTreeSet<DeviceId>,
}

/// One device of the patient.
#[derive(Debug, Clone)]
struct Device {
    since: Mono,
    /// `None` until the source has spoken.
    link: Option<LinkState>,
    down_since: Option<Mono>,
    status: BTreeSet<Status>,
    /// It measures now and then: nothing is missed between its measurements.
    is_spot: bool,
    mode: Mode,
}

/// What people read about an alert.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The device behind it.
    pub(super) device: Option<DeviceId>,
    /// The metric behind it.
    pub(super) metric: Option<Metric>,
    /// The value behind it.
    pub(super) value: Option<Value>,
    /// The limit in words.
    pub(super) limit: String,
    /// The whole in words.
    pub(super) message: String,
    /// Real, demo or test.
    pub(super) mode: Mode,
}

/// One rule's episode and what it has seen.
#[derive(Debug, Clone, Default)]
struct Track {
    episode: Episode,
    judge: Judge,
    seen: Option<(Quantity, DeviceId, u64)>,
    /// What the rule sees was old when it was first judged by it, as after a change of limits: it starts nothing.
    is_late: bool,
    facts: Option<Facts>,
    change: Option<AlertChange>,
    ended: Option<(Box<Open>, EndReason)>,
}

impl Track {
    /// Notes what a step changed; an update never hides a change that says more.
    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Changed(AlertChange::Update) => self.change = self.change.or(Some(AlertChange::Update)),
            Outcome::Changed(change) => self.change = Some(change),
            Outcome::Ended(open, reason) => {
                self.change = None;
                self.ended = Some((open, reason));
            }
        }
    }

    /// Forgets what it has seen: the next look judges anew.
    fn forget(&mut self) {
        (self.judge, self.seen, self.is_late) = (Judge::default(), None, false);
    }

    fn event(&self, who: Option<&PatientId>, rule: &Rule, open: &Open, change: AlertChange) -> AlertEvent {
        let facts = self.facts.clone().unwrap_or_else(|| wording::facts_without_view(rule));
        let (audio, visual) = open.signals();
        AlertEvent {
            alert: open.id,
            change,
            patient: who.cloned(),
            device: facts.device,
            rule: rule.id.clone(),
            kind: rule.kind,
            priority: open.priority,
            metric: facts.metric,
            value: facts.value,
            limit: facts.limit,
            message: wording::with_presence(&facts.message, open.presence, change),
            presence: open.presence,
            audio,
            visual,
            onset: open.onset,
            announced: open.announced,
            paused_until: open.paused_until,
            hidden_by: open.hidden_by,
            recurrence: open.recurrence,
            by: open.by.clone(),
            end_reason: None,
            escalated: open.escalated,
            mode: facts.mode,
        }
    }
}

/// One patient's, or the bridge's, state of alerting.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    patient: Option<PatientId>,
    rules: Arc<Vec<Rule>>,
    /// For each continuous metric the rule that watches its silence, and how long that may be.
    silence: BTreeMap<Metric, (Option<usize>, Duration)>,
    channels: BTreeMap<(Quantity, DeviceId), Channel>,
    origins: BTreeMap<Metric, Origin>,
    devices: BTreeMap<DeviceId, Device>,
    conditions: BTreeMap<BridgeCondition, bool>,
    undelivered: BTreeMap<AlertId, Priority>,
    score: Option<Standing>,
    tracks: BTreeMap<Key, Track>,
    samples: u64,
    /// When a value or a link becomes too old.
    wake: Option<Mono>,
    /// The next moment at which time alone changes something; kept because it is asked far more often than it changes.
    due: Option<Mono>,
}

impl Subject {
    /// Nothing known yet.
    pub(super) fn new(patient: Option<PatientId>, rules: Arc<Vec<Rule>>) -> Self {
        let silence = silences(&rules);
        Self {
            patient,
            rules,
            silence,
            channels: BTreeMap::new(),
            origins: BTreeMap::new(),
            devices: BTreeMap::new(),
            conditions: BTreeMap::new(),
            undelivered: BTreeMap::new(),
            score: None,
            tracks: BTreeMap::new(),
            samples: 0,
            wake: None,
            due: None,
        }
    }

    /// True if there is nothing to watch and nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty()
            && self.origins.is_empty()
            && self.score.is_none()
            && self.tracks.values().all(|track| track.episode.open().is_none())
    }

    /// The next moment at which time alone changes something.
    pub(super) const fn due(&self) -> Option<Mono> {
        self.due
    }

    fn next_due(&self) -> Option<Mono> {
        let episodes = self.tracks.iter().filter_map(|(key, track)| {
            let rule = self.rules.get(key.rule).filter(|rule| rule.off.is_none())?;
            track.episode.due(&terms(rule))
        });
        episodes.chain(self.wake).min()
    }

    /// Where a rule stands, in the words of the table of transitions.
    #[cfg(test)]
    pub(super) fn stage(&self, rule: &str) -> &'static str {
        let tracks = self.tracks.iter().filter_map(|(key, track)| Some((self.rules.get(key.rule)?, track)));
        let stages = tracks.filter(|(own, _)| own.id.as_str() == rule).map(|(own, track)| match &own.off {
            Some(_) => "switched off",
            None => track.episode.stage_name(),
        });
        stages.max_by_key(|stage| *stage != "idle").unwrap_or("idle")
    }

    /// Every present alert, as it was last published.
    pub(super) fn present(&self) -> impl Iterator<Item = AlertEvent> {
        self.tracks.iter().filter_map(|(key, track)| {
            let (open, rule) = (track.episode.open()?, self.rules.get(key.rule)?);
            Some(track.event(self.patient.as_ref(), rule, open, AlertChange::Update))
        })
    }

    /// How often each rule's condition went away before its delay was over.
    pub(super) fn near_misses(&self) -> impl Iterator<Item = (&RuleId, u64)> {
        self.tracks
            .iter()
            .filter_map(|(key, track)| Some((&self.rules.get(key.rule)?.id, track.episode.near_misses)))
            .filter(|(_, count)| *count > 0)
    }

    fn device(&mut self, id: &DeviceId, mode: Mode, now: Stamp) -> &mut Device {
        let new =
            || Device { since: now.mono, link: None, down_since: None, status: BTreeSet::new(), is_spot: false, mode };
        let device = self.devices.entry(id.clone()).or_insert_with(new);
        device.mode = mode;
        device
    }

    /// A device is to deliver a metric.
    pub(super) fn expect(&mut self, device: &DeviceId, metric: Metric, mode: Mode, now: Stamp) {
        let is_first = !self.delivers(device).any(|known| known.info().rhythm != Rhythm::Status);
        let first_seen = self.device(device, mode, now).since;
        let since = if is_first { first_seen } else { now.mono };
        let origin = self.origins.entry(metric).or_insert_with(|| Origin { since, devices: BTreeSet::new() });
        origin.devices.insert(device.clone());
    }

    /// A device measures now and then.
    pub(super) fn expect_spot(&mut self, device: &DeviceId, mode: Mode, now: Stamp) {
        self.device(device, mode, now).is_spot = true;
    }

    fn is_spot(&self, device: &DeviceId) -> bool {
        self.devices.get(device).is_some_and(|device| device.is_spot)
    }

    fn delivers(&self, device: &DeviceId) -> impl Iterator<Item = Metric> {
        self.origins.iter().filter(|(_, origin)| origin.devices.contains(device)).map(|(metric, _)| *metric)
    }

    /// True if nothing but status has come from a device and nothing is expected.
    fn is_undelivered(&self, device: &DeviceId) -> bool {
        !self.is_spot(device) && !self.delivers(device).any(|metric| metric.info().rhythm != Rhythm::Status)
    }

    /// True if the link of this device matters all the time: it delivers continuously, or nobody knows yet.
    fn is_watched(&self, device: &DeviceId) -> bool {
        let is_continuous = |metric: Metric| matches!(metric.info().rhythm, Rhythm::Continuous | Rhythm::Beats);
        !self.is_spot(device) && (self.is_undelivered(device) || self.delivers(device).any(is_continuous))
    }

    /// Takes a live reading of this patient.
    pub(super) fn take(&mut self, reading: &Reading, now: Stamp) {
        self.expect(&reading.device, reading.vital.metric(), reading.mode, now);
        let at = reading.received.mono.min(now.mono);
        for (quantity, value) in Quantity::in_vital(&reading.vital) {
            self.samples += 1;
            let channel = self.channels.entry((quantity, reading.device.clone())).or_default();
            channel.newest = value.valid().map(|_| reading.quality);
            if let Some(value) = value.valid() {
                let sample = Sample { number: self.samples, value, mode: reading.mode, at };
                channel.samples.insert(reading.quality, sample);
            }
        }
    }

    /// Up to which age a value is judged. Bounded here too: no rule can make an old value live.
    fn silence_of(&self, metric: Metric) -> Duration {
        self.silence.get(&metric).map_or(DEFAULT_SILENCE, |(_, time)| *time).min(MAX_SILENCE)
    }

    /// Takes what a source says about a device of this patient.
    pub(super) fn link(&mut self, source: &SourceEvent, now: Stamp) {
        let is_down = matches!(source.link, LinkState::Closed | LinkState::Opening | LinkState::Lost);
        let device = self.device(&source.device, source.mode, now);
        device.link = Some(source.link);
        device.status.clone_from(&source.status);
        device.down_since = is_down.then(|| device.down_since.unwrap_or(now.mono));
    }

    /// Takes what the bridge says about itself.
    pub(super) fn condition(&mut self, condition: BridgeCondition, present: bool) {
        self.conditions.insert(condition, present);
    }

    /// Takes the alerts that nobody has shown in time.
    pub(super) fn undelivered(&mut self, alerts: BTreeMap<AlertId, Priority>) {
        self.conditions.insert(BridgeCondition::AlertUndelivered, !alerts.is_empty());
        if self.undelivered == alerts {
            return;
        }
        self.undelivered = alerts;
        // The alert names what it stands for, so that changes with it.
        let about = Condition::Bridge(BridgeCondition::AlertUndelivered);
        let rules = Arc::clone(&self.rules);
        let is_about = |key: &Key| rules.get(key.rule).is_some_and(|rule| rule.condition == about);
        for (_, track) in self.tracks.iter_mut().filter(|(key, track)| is_about(key) && track.episode.open().is_some())
        {
            track.note(Outcome::Changed(AlertChange::Update));
        }
    }

    /// Takes the newest early warning score.
    pub(super) const fn take_score(&mut self, standing: Standing) {
        self.score = Some(standing);
    }

    /// No score is computed for this patient.
    pub(super) fn end_score(&mut self) {
        self.score = None;
        let is_about = |key: &&Key| self.rules.get(key.rule).is_some_and(Rule::is_about_score);
        let gone: Vec<Key> = self.tracks.keys().filter(is_about).cloned().collect();
        self.end(&gone, EndReason::Disabled);
    }

    /// A device is no longer this patient's: whatever only it delivered is over.
    pub(super) fn unassign(&mut self, device: &DeviceId) {
        self.devices.remove(device);
        self.channels.retain(|(_, owner), _| owner != device);
        for origin in self.origins.values_mut() {
            origin.devices.remove(device);
        }
        self.origins.retain(|_, origin| !origin.devices.is_empty());
        let rules = Arc::clone(&self.rules);
        let gone: Vec<Key> = self
            .tracks
            .keys()
            .filter(|key| {
                key.device.as_ref() == Some(device)
                    || key.metric.is_some_and(|metric| !self.origins.contains_key(&metric))
                    || rules
                        .get(key.rule)
                        .is_some_and(|rule| key.device.is_none() && !rule.is_about_score() && self.lost_sources(rule))
            })
            .cloned()
            .collect();
        self.end(&gone, EndReason::Unassigned);
    }

    /// True if a rule looks at metrics and no device delivers any of them any more.
    fn lost_sources(&self, rule: &Rule) -> bool {
        if rule.is_about_score() {
            return self.score.is_none();
        }
        let members = rule.condition.members();
        let parts = self.rules.iter().filter(|other| members.contains(&other.id));
        let mut sources = rule.sources.iter().chain(parts.flat_map(|part| &part.sources)).peekable();
        let has_any = sources.peek().is_some();
        let flags = matches!(&rule.condition, Condition::Limits { flags, .. } if !flags.is_empty());
        let is_score = |source: &Quantity| source.metric == Metric::News2 && self.score.is_some();
        let delivered = sources.any(|source| self.origins.contains_key(&source.metric) || is_score(source));
        if has_any { !delivered } else { flags && self.devices.is_empty() }
    }

    /// The patient is gone.
    pub(super) fn end_all(&mut self, reason: EndReason) -> Vec<AlertEvent> {
        let keys: Vec<Key> = self.tracks.keys().cloned().collect();
        self.end(&keys, reason);
        self.collect()
    }

    fn end(&mut self, keys: &[Key], reason: EndReason) {
        for key in keys {
            if let Some(track) = self.tracks.get_mut(key) {
                let outcome = track.episode.end(reason);
                track.note(outcome);
                track.forget();
            }
        }
    }

    /// Runs a person's command on the alert with this id; `None` if it is not here.
    pub(super) fn command<E>(
        &mut self,
        alert: AlertId,
        run: impl FnOnce(&mut Episode, &Terms) -> Result<Outcome, E>,
    ) -> Option<Result<(), E>> {
        let rules = Arc::clone(&self.rules);
        let is_it = |track: &Track| track.episode.open().is_some_and(|open| open.id == alert);
        let (key, track) = self.tracks.iter_mut().find(|(_, track)| is_it(track))?;
        let rule = rules.get(key.rule)?;
        Some(run(&mut track.episode, &terms(rule)).map(|outcome| track.note(outcome)))
    }

    /// Takes back an alert of an earlier run; false if no rule or another alert stands in its place.
    pub(super) fn restore(&mut self, event: &AlertEvent, now: Stamp) -> bool {
        let Some((index, rule)) = self.rules.iter().enumerate().find(|(_, rule)| rule.id == event.rule) else {
            return false;
        };
        let is_silence = matches!(rule.condition, Condition::NoValid(_));
        let key = Key {
            rule: index,
            metric: event.metric.filter(|_| is_silence),
            device: event.device.clone().filter(|_| rule.is_per_device() || (is_silence && event.metric.is_none())),
        };
        if self.tracks.get(&key).is_some_and(|track| track.episode.open().is_some()) {
            return false;
        }
        let track = Track {
            episode: Episode::restored(event, &terms(rule), now),
            facts: Some(wording::restored(event)),
            ..Track::default()
        };
        let is_changed = track.episode.open().is_some_and(|open| open.presence != event.presence);
        let track = Track { change: is_changed.then_some(AlertChange::Update), ..track };
        self.tracks.insert(key, track);
        match (&event.device, event.metric) {
            (Some(device), Some(metric)) => self.expect(device, metric, event.mode, now),
            (Some(device), None) => _ = self.device(device, event.mode, now),
            _ => {}
        }
        true
    }

    /// Changes the rules. An alert whose rule is gone, or has become another kind of rule, ends.
    pub(super) fn set_rules(&mut self, rules: &Arc<Vec<Rule>>) -> Vec<AlertEvent> {
        let old = std::mem::replace(&mut self.rules, Arc::clone(rules));
        self.silence = silences(rules);
        let places: BTreeMap<&RuleId, usize> =
            rules.iter().enumerate().map(|(index, rule)| (&rule.id, index)).collect();
        let mut events = Vec::new();
        for (key, mut track) in std::mem::take(&mut self.tracks) {
            let Some(before) = old.get(key.rule) else {
                continue;
            };
            let place = places.get(&before.id).and_then(|place| Some((*place, rules.get(*place)?)));
            let is_same_kind = |rule: &Rule| {
                discriminant(&rule.condition) == discriminant(&before.condition)
                    && rule.is_per_device() == before.is_per_device()
            };
            let Some((place, rule)) = place.filter(|(_, rule)| is_same_kind(rule)) else {
                let outcome = track.episode.end(EndReason::Disabled);
                track.note(outcome);
                events.extend(ended(&mut track, self.patient.as_ref(), before));
                continue;
            };
            if rule != before {
                track.forget();
            }
            self.tracks.insert(Key { rule: place, ..key }, track);
        }
        events
    }

    /// The wall clock was set forward by so many ms, or back.
    pub(super) fn move_times(&mut self, by_ms: i64) {
        self.tracks.values_mut().for_each(|track| track.episode.move_times(by_ms));
    }

    /// Looks at everything once and moves every episode; returns what changed.
    pub(super) fn settle(&mut self, ids: &mut AlertIds, now: Stamp) -> Vec<AlertEvent> {
        self.wake = None;
        let rules = Arc::clone(&self.rules);
        let wanted = self.wanted(&rules);
        self.tracks.retain(|key, track| {
            let is_idle = matches!(track.episode.stage, Stage::Idle) && track.ended.is_none();
            wanted.contains(key) || !is_idle
        });
        for key in wanted {
            self.tracks.entry(key).or_default();
        }
        let keys: Vec<Key> = self.tracks.keys().cloned().collect();
        let mut views: BTreeMap<Key, View> = BTreeMap::new();
        for key in &keys {
            if let Some(rule) = rules.get(key.rule)
                && rule.condition.members().is_empty()
            {
                let view = self.look(rule, key, now);
                views.insert(key.clone(), view);
            }
        }
        for key in &keys {
            if let Some(rule) = rules.get(key.rule)
                && !rule.condition.members().is_empty()
            {
                let view = compound(rule, &rules, &views);
                views.insert(key.clone(), view);
            }
        }
        for key in &keys {
            if let (Some(rule), Some(view)) = (rules.get(key.rule), views.get(key)) {
                self.step(rule, key, view, &views, ids, now);
            }
        }
        self.hide(&rules);
        self.due = self.next_due();
        self.collect()
    }

    /// Every rule on everything it has to be judged on.
    fn wanted(&self, rules: &[Rule]) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        let mut generic_seen = false;
        for (index, rule) in rules.iter().enumerate() {
            let key = |metric, device| Key { rule: index, metric, device };
            if self.patient.is_none() {
                if matches!(rule.condition, Condition::Bridge(_)) {
                    keys.insert(key(None, None));
                }
                continue;
            }
            match &rule.condition {
                Condition::Bridge(_) => {}
                Condition::NoValid(_) => {
                    let own = |metric: &&Metric| self.silence.get(metric).is_some_and(|(rule, _)| *rule == Some(index));
                    let is_missed = |origin: &Origin| origin.devices.iter().any(|device| !self.is_spot(device));
                    let missed = self.origins.iter().filter(|(_, origin)| is_missed(origin)).map(|(metric, _)| metric);
                    keys.extend(missed.filter(own).map(|metric| key(Some(*metric), None)));
                    if rule.sources.is_empty() && rule.off.is_none() && !generic_seen {
                        generic_seen = true;
                        let silent = self.devices.keys().filter(|device| self.is_undelivered(device));
                        keys.extend(silent.map(|device| key(None, Some(device.clone()))));
                    }
                }
                Condition::LinkDown(_) => {
                    let watched = self.devices.keys().filter(|device| self.is_watched(device));
                    keys.extend(watched.map(|device| key(None, Some(device.clone()))));
                }
                _ if rule.is_per_device() => {
                    keys.extend(self.devices.keys().map(|device| key(None, Some(device.clone()))));
                }
                _ if !self.lost_sources(rule) => _ = keys.insert(key(None, None)),
                _ => {}
            }
        }
        keys
    }

    fn wake_at(&mut self, at: Mono, now: Stamp) {
        if at > now.mono {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }

    /// Moves one episode.
    fn step(
        &mut self,
        rule: &Rule,
        key: &Key,
        view: &View,
        views: &BTreeMap<Key, View>,
        ids: &mut AlertIds,
        now: Stamp,
    ) {
        let crossed = view.value.zip(view.edge).map(|(value, edge)| (Level::of(value), edge));
        let sight = Sight {
            truth: view.truth,
            at_once: view.at_once,
            gap: view.gap,
            inhibited: self.inhibitor(rule).is_some(),
            crossed,
            priority: self.priority(rule, key),
        };
        let undelivered = match rule.condition {
            Condition::Bridge(BridgeCondition::AlertUndelivered) => self.undelivered.keys().copied().collect(),
            _ => Vec::new(),
        };
        let Some(track) = self.tracks.get_mut(key) else {
            return;
        };
        let starts_nothing = track.is_late && !track.episode.open().is_some_and(Open::is_live);
        let truth = if starts_nothing && view.truth == Truth::True { Truth::Unknown } else { view.truth };
        let sight = Sight { truth, ..sight };
        let outcome = if rule.off.is_some() {
            track.episode.end(EndReason::Disabled)
        } else {
            track.episode.step(&sight, &terms(rule), ids, now)
        };
        track.note(outcome);
        if track.change.is_some() && view.truth == Truth::True {
            let members = rule.condition.members();
            let parts: Vec<(&Rule, &View)> = views
                .iter()
                .filter_map(|(key, view)| Some((self.rules.get(key.rule)?, view)))
                .filter(|(part, view)| members.contains(&part.id) && view.truth == Truth::True)
                .collect();
            let mut facts = wording::facts(rule, key.metric, view, &parts, &undelivered);
            facts.mode = parts.first().map_or(view.mode, |(_, part)| part.mode);
            track.facts = Some(facts);
        }
    }

    /// The alert that inhibits a rule at present.
    fn inhibitor(&self, rule: &Rule) -> Option<AlertId> {
        if rule.inhibited_by.is_empty() {
            return None;
        }
        let live = self.tracks.iter().filter_map(|(key, track)| {
            let open = track.episode.open().filter(|open| open.is_live())?;
            Some((self.rules.get(key.rule)?, open))
        });
        live.filter(|(other, _)| rule.inhibited_by.contains(&other.id)).map(|(_, open)| open.id).next()
    }

    /// How urgent a rule is now: a silence takes the priority of the alerts it leaves unknown.
    fn priority(&self, rule: &Rule, key: &Key) -> Priority {
        if matches!(rule.condition, Condition::Bridge(BridgeCondition::AlertUndelivered)) {
            return self.undelivered.values().copied().max().unwrap_or(rule.priority).max(rule.priority);
        }
        let (Condition::NoValid(_), Some(metric)) = (&rule.condition, key.metric) else {
            return rule.priority;
        };
        let hidden = self.tracks.iter().filter_map(|(key, track)| {
            let open = track.episode.open().filter(|open| open.is_live() && open.presence == Presence::Unknown)?;
            let other = self.rules.get(key.rule)?;
            let is_about =
                other.kind == AlertKind::Physiological && self.sources(other).any(|source| source.metric == metric);
            is_about.then_some(open.priority)
        });
        hidden.chain([rule.priority]).max().unwrap_or(rule.priority)
    }

    /// What a rule, or the members of a compound, look at; of a score, what it is computed from.
    fn sources<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = &'a Quantity> {
        let members = rule.condition.members();
        let parts = self.rules.iter().filter(|other| members.contains(&other.id));
        let own = |rule: &'a Rule| if rule.is_about_score() { &score::INPUTS[..] } else { &rule.sources };
        own(rule).iter().chain(parts.flat_map(own))
    }

    /// Settles which alert stands for which: an inhibitor, or the silence that leaves a condition unknown.
    fn hide(&mut self, rules: &[Rule]) {
        let mut changes: Vec<(Key, Option<AlertId>)> = Vec::new();
        for (key, track) in &self.tracks {
            let (Some(open), Some(rule)) = (track.episode.open(), rules.get(key.rule)) else {
                continue;
            };
            let is_lost = open.presence == Presence::Unknown && rule.kind == AlertKind::Physiological;
            let by = match () {
                () if !open.is_live() => None,
                () => self.inhibitor(rule).or_else(|| is_lost.then(|| self.silence_alert(rule)).flatten()),
            };
            if open.hidden_by != by {
                changes.push((key.clone(), by));
            }
        }
        for (key, by) in changes {
            if let Some(track) = self.tracks.get_mut(&key)
                && track.episode.hide(by)
            {
                track.note(Outcome::Changed(AlertChange::Update));
            }
        }
    }

    /// The live no-signal alert about a rule's metrics.
    fn silence_alert(&self, rule: &Rule) -> Option<AlertId> {
        self.sources(rule).find_map(|source| {
            let (key, track) = self.tracks.iter().find(|(key, track)| {
                key.metric == Some(source.metric) && track.episode.open().is_some_and(Open::is_live)
            })?;
            let is_silence = matches!(self.rules.get(key.rule)?.condition, Condition::NoValid(_));
            is_silence.then_some(track.episode.open()?.id)
        })
    }

    /// Takes out what changed: what alarms first, what ended last.
    fn collect(&mut self) -> Vec<AlertEvent> {
        let rules = Arc::clone(&self.rules);
        let who = self.patient.clone();
        let (mut urgent, mut other, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (key, track) in &mut self.tracks {
            let Some(rule) = rules.get(key.rule) else {
                continue;
            };
            over.extend(ended(track, who.as_ref(), rule));
            let (Some(change), Some(open)) = (track.change.take(), track.episode.open()) else {
                continue;
            };
            let event = track.event(who.as_ref(), rule, open, change);
            match change {
                AlertChange::Start | AlertChange::Recur | AlertChange::Escalate | AlertChange::Resume => {
                    urgent.push(event);
                }
                _ => other.push(event),
            }
        }
        urgent.extend(other);
        urgent.extend(over);
        urgent
    }
}

/// The event of an alert that has ended, if one has.
fn ended(track: &mut Track, who: Option<&PatientId>, rule: &Rule) -> Option<AlertEvent> {
    let (open, reason) = track.ended.take()?;
    let mut event = track.event(who, rule, &open, AlertChange::End);
    event.end_reason = Some(reason);
    (event.audio, event.visual) = wording::quiet();
    event.paused_until = None;
    event.hidden_by = None;
    Some(event)
}

const fn terms(rule: &Rule) -> Terms {
    Terms { times: rule.times, latching: rule.latching }
}
