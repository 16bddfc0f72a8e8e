//! The alert engine: takes what happened, in the order of time, and answers with the alerts that changed.

mod changes;

use self::changes::End;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::alerts::BridgeCondition;
use crate::alerts::change::ChangeKey;
use crate::alerts::episode::AlertIds;
pub use crate::alerts::episode::CommandRefused;
use crate::alerts::rule::{Condition, Rule, RuleSet};
use crate::alerts::score::Standing;
use crate::alerts::subject::Subject;
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{AlertChange, AlertEvent, EndReason, LimitsEvent, SourceEvent};
use crate::ids::{AlertId, DeviceId, PatientId, RuleId};
use crate::vitals::{EarlyWarning, Metric, Mode, Reading, Vital};

/// Most patients that are watched. One more is not, and the alert `alert_limit` says so.
pub const MAX_PATIENTS: usize = 256;
/// Most devices of all patients together; one that people share counts for each of them. One more is not watched, and the
/// alert `alert_limit` says so.
pub const MAX_DEVICES: usize = 1024;
/// So many of those that are not watched are named until there is room again.
const MAX_LEFT_OUT: usize = 64;
/// Longest name of a person in a command, in bytes. A longer one is refused.
pub const MAX_BY_BYTES: usize = 128;
/// Most moments handled in one call. The rest is due at once again, so that a fault could never hang the caller.
const MAX_MOMENTS: usize = 100_000;

/// What a person asks of one alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertCommand {
    /// I know. Ends a latched alert.
    Acknowledge {
        /// Which.
        alert: AlertId,
        /// Who.
        by: String,
    },
    /// Silence its sound for a while.
    PauseAudio {
        /// Which.
        alert: AlertId,
        /// Who.
        by: String,
        /// How long; at most what the rule allows, which is at most 120 s.
        seconds: u64,
    },
    /// Put a latched alert away.
    Reset {
        /// Which.
        alert: AlertId,
        /// Who.
        by: String,
    },
}

/// The engine. Every timer runs on `now.mono`; `now.wall` is only written down, except for the dates of the rule file.
#[derive(Debug, Clone)]
pub struct Engine {
    rules: RuleSet,
    /// The rules of everybody without overrides.
    common: Arc<Vec<Rule>>,
    /// The wall time in which no rule changes by its date; `None` before the first call.
    unchanged: Option<(Wall, Wall)>,
    ids: AlertIds,
    bridge: Subject,
    patients: BTreeMap<PatientId, Subject>,
    /// Whose each device is: one patient's, or of one that several people share those whom it measures.
    owners: BTreeMap<DeviceId, BTreeSet<PatientId>>,
    /// Devices that several people share. What one of them measures, and what becomes of the link, takes it from nobody.
    shared: BTreeSet<DeviceId>,
    last: Stamp,
    /// Events of due time that a refused command could not return; the next call does.
    held: Vec<AlertEvent>,
    /// When each change that a person made ends.
    ends: BTreeMap<ChangeKey, End>,
    /// The first of them on either clock; kept because it is asked far more often than it changes.
    first_end: (Option<Mono>, Option<Wall>),
    /// Dates of the rule file are counted from here on the monotonic clock, once the wall clock is known to be set.
    set_at: Option<Stamp>,
    /// Up to this date everybody has been told which overrides of the rule file have ended.
    told: Option<Wall>,
    /// What became of such changes since it was last asked.
    limit_news: Vec<LimitsEvent>,
    /// Who is not watched, for want of room: a patient, and the device that measures it, if it is not a score.
    left_out: BTreeSet<(PatientId, Option<DeviceId>)>,
    /// Those of them that nobody was told of yet.
    left_out_news: Vec<(PatientId, Option<DeviceId>)>,
}

impl Engine {
    /// An engine that knows nobody yet. `seed` fixes the random bits of the alerts' identities.
    pub fn new(rules: RuleSet, seed: u64) -> Self {
        let common = Arc::new(rules.effective(None, Wall(i64::MIN)));
        let mut bridge = Subject::new(None, Arc::clone(&common));
        bridge.condition(BridgeCondition::AlertLimit, false);
        Self {
            rules,
            common,
            unchanged: None,
            ids: AlertIds::new(seed),
            bridge,
            patients: BTreeMap::new(),
            owners: BTreeMap::new(),
            shared: BTreeSet::new(),
            last: Stamp::default(),
            held: Vec::new(),
            ends: BTreeMap::new(),
            first_end: (None, None),
            set_at: None,
            told: None,
            limit_news: Vec::new(),
            left_out: BTreeSet::new(),
            left_out_news: Vec::new(),
        }
    }

    /// Says that several people share a device, each under a number of their own: from now on it belongs to each of them
    /// whom it measures, and is never taken from one because of another. Comes before [`Engine::restore`].
    pub fn share(&mut self, device: &DeviceId) {
        self.shared.insert(device.clone());
    }

    /// Takes back the present alerts of an earlier run, the latest event of each: they stay as stored, with presence
    /// unknown until a valid reading. An alert that no rule makes any more ends.
    ///
    /// Report every bridge condition, and every source, once after this: what is not reported stays unknown.
    pub fn restore(&mut self, open: Vec<AlertEvent>, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        for event in open.into_iter().filter(AlertEvent::is_present) {
            let has_place = match (&event.patient, &event.device) {
                (Some(patient), Some(device)) => self.assign(device, patient, &mut events, now),
                _ => true,
            };
            let taken = has_place && self.subject(event.patient.as_ref(), now).is_some_and(|s| s.restore(&event, now));
            if !taken {
                events.push(Self::ended(event, EndReason::Disabled));
            }
        }
        self.settle_all(&mut events, now);
        events
    }

    /// The end of an alert of an earlier run that is not taken back.
    pub fn ended(open: AlertEvent, reason: EndReason) -> AlertEvent {
        let (audio, visual) = crate::alerts::wording::quiet();
        let (change, end_reason) = (AlertChange::End, Some(reason));
        AlertEvent { change, end_reason, audio, visual, hidden_by: None, paused_until: None, ..open }
    }

    /// Takes a reading. One that is historic, late, or of nobody is not evaluated.
    pub fn on_reading(&mut self, reading: &Reading, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        let Some(patient) = &reading.patient else {
            return events;
        };
        if reading.is_late(now) {
            return events;
        }
        if let Vital::News2(score) = &reading.vital {
            self.take_score(patient, score, reading.mode, &mut events, now);
            return events;
        }
        if self.assign(&reading.device, patient, &mut events, now)
            && let Some(subject) = self.subject(Some(patient), now)
        {
            subject.take(reading, now);
            self.settle(Some(patient), &mut events, now);
        }
        events
    }

    /// A score comes from no device that could be assigned; it is the patient's own.
    fn take_score(
        &mut self,
        patient: &PatientId,
        score: &EarlyWarning,
        mode: Mode,
        events: &mut Vec<AlertEvent>,
        now: Stamp,
    ) {
        let Some(subject) = self.subject(Some(patient), now) else {
            self.leave_out(patient, None);
            return self.settle(None, events, now);
        };
        subject.take_score(Standing::new(score, mode));
        self.settle(Some(patient), events, now);
    }

    /// Says that no early warning score is computed for a patient: alerts about one, of an earlier run, end.
    pub fn without_score(&mut self, patient: &PatientId, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        if let Some(subject) = self.patients.get_mut(patient) {
            subject.end_score();
            self.settle(Some(patient), &mut events, now);
        }
        events
    }

    /// Takes what a source says about a device. Without a patient the device is nobody's, unless several people share
    /// it: its link says nothing about whose it is.
    pub fn on_source(&mut self, source: &SourceEvent, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        let Some(patient) = &source.patient else {
            if !self.shared.contains(&source.device) {
                self.unassign(&source.device, &mut events, now);
            }
            return events;
        };
        if self.assign(&source.device, patient, &mut events, now)
            && let Some(subject) = self.subject(Some(patient), now)
        {
            subject.link(source, now);
            self.settle(Some(patient), &mut events, now);
        }
        events
    }

    /// Says which metrics a device is to deliver, so that one that never comes alarms by its name, and a device that
    /// only measures now and then is not taken for a silent one.
    pub fn expect(
        &mut self,
        device: &DeviceId,
        patient: &PatientId,
        metrics: &[Metric],
        mode: Mode,
        now: Stamp,
    ) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        if self.assign(device, patient, &mut events, now)
            && let Some(subject) = self.subject(Some(patient), now)
        {
            // All at once: that the first is the device's first holds for each of them.
            for metric in metrics {
                subject.expect(device, *metric, mode, now);
            }
            self.settle(Some(patient), &mut events, now);
        }
        events
    }

    /// Says that a device measures now and then: neither its silence nor the loss of its link is missed, whatever it measures.
    pub fn expect_spot(&mut self, device: &DeviceId, patient: &PatientId, mode: Mode, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        if self.assign(device, patient, &mut events, now)
            && let Some(subject) = self.subject(Some(patient), now)
        {
            subject.expect_spot(device, mode, now);
            self.settle(Some(patient), &mut events, now);
        }
        events
    }

    /// Takes a fault of the bridge, or its end.
    pub fn on_condition(&mut self, condition: BridgeCondition, present: bool, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        if condition == BridgeCondition::ClockUnsynchronised && !present {
            self.clock_is_set(now);
            self.refresh_rules(&mut events, now);
        }
        self.bridge.condition(condition, present);
        self.settle(None, &mut events, now);
        events
    }

    /// Takes the alerts that no annunciator has shown in time; none: all are shown. The alert about them takes their
    /// highest priority and never stands for itself; one that has ended meanwhile does not count.
    pub fn on_undelivered(&mut self, alerts: &BTreeSet<AlertId>, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        let counted = self
            .present()
            .into_iter()
            .filter(|event| alerts.contains(&event.alert) && !self.is_about_delivery(&event.rule))
            .map(|event| (event.alert, event.priority))
            .collect();
        self.bridge.undelivered(counted);
        self.settle(None, &mut events, now);
        events
    }

    /// The wall clock was set forward by so many ms, or back: what was written down by it is as long ago as before. No timer
    /// runs on it.
    pub fn on_clock_moved(&mut self, by_ms: i64) {
        self.bridge.move_times(by_ms);
        self.patients.values_mut().for_each(|subject| subject.move_times(by_ms));
    }

    /// True of a rule that stands for alerts which nobody has shown.
    pub fn is_about_delivery(&self, rule: &RuleId) -> bool {
        self.is_about(BridgeCondition::AlertUndelivered, rule)
    }

    /// True of a rule that alarms on this condition of the bridge.
    pub fn is_about(&self, condition: BridgeCondition, rule: &RuleId) -> bool {
        let own = Condition::Bridge(condition);
        self.common.iter().any(|known| known.id == *rule && known.condition == own)
    }

    /// Writes down which routes of escalation an alert has taken; see [`AlertEvent::escalated`].
    pub fn on_escalated(&mut self, alert: AlertId, routes: u32, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        let subjects = std::iter::once((None, &mut self.bridge))
            .chain(self.patients.iter_mut().map(|(patient, subject)| (Some(patient.clone()), subject)));
        let mut whose = None;
        for (patient, subject) in subjects {
            let done = subject.command(alert, |episode, _| Ok::<_, CommandRefused>(episode.escalated(routes)));
            if done.is_some() {
                whose = Some(patient);
                break;
            }
        }
        if let Some(patient) = whose {
            self.settle(patient.as_ref(), &mut events, now);
        }
        events
    }

    /// Does what a person asks.
    ///
    /// # Errors
    /// The reason why it was refused. What only the passing of time has changed is then returned by the next call.
    pub fn on_command(&mut self, command: &AlertCommand, now: Stamp) -> Result<Vec<AlertEvent>, CommandRefused> {
        let (AlertCommand::Acknowledge { alert, by }
        | AlertCommand::PauseAudio { alert, by, .. }
        | AlertCommand::Reset { alert, by }) = command;
        if by.trim().is_empty() || by.len() > MAX_BY_BYTES {
            return Err(CommandRefused::NoName { longest: MAX_BY_BYTES });
        }
        let alert = *alert;
        let (now, mut events) = self.advance(now);
        match self.run(command, alert, now) {
            Ok(patient) => {
                self.settle(patient.as_ref(), &mut events, now);
                Ok(events)
            }
            Err(refused) => {
                self.held = events;
                Err(refused)
            }
        }
    }

    /// Runs a command on its alert and says whose alert it is.
    fn run(&mut self, command: &AlertCommand, alert: AlertId, now: Stamp) -> Result<Option<PatientId>, CommandRefused> {
        let subjects = std::iter::once((None, &mut self.bridge))
            .chain(self.patients.iter_mut().map(|(patient, subject)| (Some(patient), subject)));
        for (patient, subject) in subjects {
            let result = subject.command(alert, |episode, terms| match command {
                AlertCommand::Acknowledge { by, .. } => episode.acknowledge(by, terms, now),
                AlertCommand::PauseAudio { by, seconds, .. } => episode.pause(by, *seconds, terms, now),
                AlertCommand::Reset { by, .. } => episode.reset(by),
            });
            if let Some(result) = result {
                return result.map(|()| patient.cloned());
            }
        }
        Err(CommandRefused::NoSuchAlert(alert))
    }

    /// Does what is due by now.
    pub fn on_deadline(&mut self, now: Stamp) -> Vec<AlertEvent> {
        self.advance(now).1
    }

    /// When [`Engine::on_deadline`] must be called next. Dates of the rule file are mapped by the last call's clocks.
    pub fn next_deadline(&self) -> Option<Mono> {
        let date = self.unchanged.and_then(|(_, until)| {
            let millis = until.0.checked_sub(self.date(self.last).0).filter(|_| until != Wall(i64::MAX))?;
            Some(self.last.mono + Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
        });
        let held = (!self.held.is_empty()).then_some(self.last.mono);
        self.due().into_iter().chain(date).chain(held).chain(self.first_end.0).min()
    }

    /// Changes the rules: new limits hold at once, alerts of rules that are gone end. What people changed meanwhile stays
    /// over them as far as it fits.
    pub fn replace_rules(&mut self, rules: RuleSet, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        let changes = self.rules.changes().cloned().collect();
        self.adopt(rules, changes, now);
        self.unchanged = None;
        self.told = Some(self.date(now));
        self.refresh_rules(&mut events, now);
        events
    }

    /// All alerts that must be shown, the latest state of each.
    pub fn present(&self) -> Vec<AlertEvent> {
        self.bridge.present().chain(self.patients.values().flat_map(Subject::present)).collect()
    }

    /// A device does not measure this patient any more: what only it delivered is over.
    pub fn device_gone(&mut self, device: &DeviceId, patient: &PatientId, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        self.unassign_from(device, patient, &mut events, now);
        events
    }

    /// Forgets a patient: every alert about this patient ends.
    pub fn patient_gone(&mut self, patient: &PatientId, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        self.owners.retain(|_, owners| {
            owners.remove(patient);
            !owners.is_empty()
        });
        if let Some(mut subject) = self.patients.remove(patient) {
            events.extend(subject.end_all(EndReason::Unassigned));
            self.room_again(&mut events, now);
        }
        events
    }

    /// How often each rule's condition went away before its delay was over, for judging a limit or a delay.
    pub fn near_misses(&self) -> BTreeMap<RuleId, u64> {
        let mut counts = BTreeMap::new();
        for (rule, count) in self.patients.values().flat_map(Subject::near_misses) {
            *counts.entry(rule.clone()).or_insert(0) += count;
        }
        counts
    }

    /// Where a rule stands, in the words of the table of transitions.
    #[cfg(test)]
    pub(super) fn stage(&self, rule: &str) -> &'static str {
        let subjects = self.patients.values().chain(std::iter::once(&self.bridge));
        subjects.map(|subject| subject.stage(rule)).find(|stage| *stage != "idle").unwrap_or("idle")
    }

    /// The rules with what people changed.
    #[cfg(test)]
    pub(super) const fn rules_for_tests(&self) -> &RuleSet {
        &self.rules
    }

    fn due(&self) -> Option<Mono> {
        self.patients.values().chain(std::iter::once(&self.bridge)).filter_map(Subject::due).min()
    }

    /// A stamp whose monotonic part never runs backwards.
    fn monotonic(&mut self, now: Stamp) -> Stamp {
        self.last = Stamp { mono: now.mono.max(self.last.mono), wall: now.wall };
        self.last
    }

    /// Does what was due before or at `now`, each at its own moment and in the order of time.
    fn advance(&mut self, now: Stamp) -> (Stamp, Vec<AlertEvent>) {
        let now = self.monotonic(now);
        let mut events = std::mem::take(&mut self.held);
        self.refresh_rules(&mut events, now);
        for _ in 0..MAX_MOMENTS {
            let Some(due) = self.due().filter(|due| *due <= now.mono) else {
                break;
            };
            let moment = Stamp { mono: due, wall: now.wall };
            let whose = self.patients.iter().find(|(_, subject)| subject.due() == Some(due));
            let whose = whose.map(|(patient, _)| patient.clone());
            self.settle(whose.as_ref(), &mut events, moment);
        }
        (now, events)
    }

    /// Puts the rules of this moment in force if a date has passed, or if they were replaced.
    fn refresh_rules(&mut self, events: &mut Vec<AlertEvent>, now: Stamp) {
        self.end_changes(now);
        let date = self.date(now);
        if self.unchanged.is_some_and(|(from, until)| from <= date && date < until) {
            return;
        }
        self.tell_file_overrides(now);
        self.unchanged = Some(self.rules.unchanged_around(date));
        self.common = Arc::new(self.rules.in_run(None, date));
        events.extend(self.bridge.set_rules(&self.common));
        for (patient, subject) in &mut self.patients {
            let rules = rules_of(&self.rules, &self.common, patient, date);
            events.extend(subject.set_rules(&rules));
        }
        self.settle_all(events, now);
    }

    /// The state of one patient, made if there is room; `None` names the bridge.
    fn subject(&mut self, patient: Option<&PatientId>, now: Stamp) -> Option<&mut Subject> {
        let Some(patient) = patient else {
            return Some(&mut self.bridge);
        };
        if !self.patients.contains_key(patient) {
            if self.patients.len() >= MAX_PATIENTS {
                return None;
            }
            let rules = rules_of(&self.rules, &self.common, patient, self.date(now));
            self.patients.insert(patient.clone(), Subject::new(Some(patient.clone()), rules));
        }
        self.patients.get_mut(patient)
    }

    /// Makes a device this patient's, taking it from another unless they share it; false, and an alert, if there is no
    /// room.
    fn assign(&mut self, device: &DeviceId, patient: &PatientId, events: &mut Vec<AlertEvent>, now: Stamp) -> bool {
        match self.owners.get(device) {
            Some(owners) if owners.contains(patient) => return true,
            Some(_) if !self.shared.contains(device) => self.unassign(device, events, now),
            _ => {}
        }
        let assigned: usize = self.owners.values().map(BTreeSet::len).sum();
        if assigned >= MAX_DEVICES || self.subject(Some(patient), now).is_none() {
            self.leave_out(patient, Some(device));
            self.settle(None, events, now);
            return false;
        }
        self.owners.entry(device.clone()).or_default().insert(patient.clone());
        true
    }

    /// Takes a device from everybody.
    fn unassign(&mut self, device: &DeviceId, events: &mut Vec<AlertEvent>, now: Stamp) {
        for owner in self.owners.get(device).cloned().unwrap_or_default() {
            self.unassign_from(device, &owner, events, now);
        }
    }

    fn unassign_from(&mut self, device: &DeviceId, owner: &PatientId, events: &mut Vec<AlertEvent>, now: Stamp) {
        if !self.owners.get_mut(device).is_some_and(|owners| owners.remove(owner)) {
            return;
        }
        self.owners.retain(|_, owners| !owners.is_empty());
        if let Some(subject) = self.patients.get_mut(owner) {
            subject.unassign(device);
        }
        self.settle(Some(owner), events, now);
        if self.patients.get(owner).is_some_and(Subject::is_empty) {
            self.patients.remove(owner);
        }
        self.room_again(events, now);
    }

    /// There is no room for this patient, or this device of it.
    fn leave_out(&mut self, patient: &PatientId, device: Option<&DeviceId>) {
        self.bridge.condition(BridgeCondition::AlertLimit, true);
        if self.left_out.len() < MAX_LEFT_OUT && self.left_out.insert((patient.clone(), device.cloned())) {
            self.left_out_news.push((patient.clone(), device.cloned()));
        }
    }

    /// Who is not watched, each once until there was room: a patient, and the device that measures it.
    pub fn take_left_out(&mut self) -> Vec<(PatientId, Option<DeviceId>)> {
        std::mem::take(&mut self.left_out_news)
    }

    /// After something was forgotten there is room: what is still too many says so again with its next reading.
    fn room_again(&mut self, events: &mut Vec<AlertEvent>, now: Stamp) {
        self.bridge.condition(BridgeCondition::AlertLimit, false);
        self.left_out.clear();
        self.settle(None, events, now);
    }

    fn settle(&mut self, patient: Option<&PatientId>, events: &mut Vec<AlertEvent>, now: Stamp) {
        let subject = match patient {
            None => Some(&mut self.bridge),
            Some(patient) => self.patients.get_mut(patient),
        };
        if let Some(subject) = subject {
            events.extend(subject.settle(&mut self.ids, now));
        }
    }

    fn settle_all(&mut self, events: &mut Vec<AlertEvent>, now: Stamp) {
        for subject in std::iter::once(&mut self.bridge).chain(self.patients.values_mut()) {
            events.extend(subject.settle(&mut self.ids, now));
        }
    }
}

fn rules_of(set: &RuleSet, common: &Arc<Vec<Rule>>, patient: &PatientId, date: Wall) -> Arc<Vec<Rule>> {
    if set.has_overrides(patient) { Arc::new(set.in_run(Some(patient), date)) } else { Arc::clone(common) }
}
