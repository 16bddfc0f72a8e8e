//! The engine's side of limits that people change: in force at once, over at their end, and every end is told.

use std::time::Duration;

use super::{Engine, MAX_BY_BYTES};
use crate::alerts::change::{ChangeKey, key_of, longest};
use crate::alerts::rule::{EffectiveLimit, RuleSet};
use crate::clock::{Mono, Stamp, Wall};
use crate::command::LimitWish;
use crate::event::{AlertEvent, AuditEvent, LimitAction, LimitChange, LimitKind, LimitsEvent};
use crate::ids::PatientId;
use crate::signal_times::SignalTimes;

/// When a change is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// On the monotonic clock: no step of the wall clock in a run prolongs or shortens what a person said in it.
    at: Mono,
    /// By the wall clock as well: it was taken back from an earlier run, and nobody knows yet whether the clock was right.
    by_wall: Option<Wall>,
}

impl Engine {
    /// Says when the last run ended, so that overrides of the rule file that have ended since are told of. Comes first.
    pub const fn last_run_ended(&mut self, at: Wall) {
        self.told = Some(at);
    }

    /// Takes back the changes of an earlier run. Those that hold no more are told with the others by
    /// [`Engine::take_limit_news`]. Comes before [`Engine::restore`].
    pub fn take_back_changes(&mut self, changes: Vec<LimitChange>, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        let (over, changes) = changes.into_iter().partition(|change: &LimitChange| change.expires <= now.wall);
        self.adopt(self.rules.clone(), changes, now);
        for change in over {
            let before = in_words(&change);
            self.tell_end(change, LimitAction::Expired, "its time is over".to_owned(), before, now);
        }
        let stand: Vec<LimitChange> = self.rules.changes().cloned().collect();
        for change in stand {
            let after = self.rules.summary(&change.patient, &change.rule, self.date(now));
            let (by, reason, before) = (change.by.clone(), change.reason.clone(), after.clone());
            self.limit_news.push(LimitsEvent { change, action: LimitAction::Stands, by, reason, before, after });
        }
        self.unchanged = None;
        self.refresh_rules(&mut events, now);
        events
    }

    /// The wall clock is known to be right from here on: dates are counted from it on the monotonic clock, and what was
    /// counted by a wrong clock before may end earlier.
    pub(super) fn clock_is_set(&mut self, now: Stamp) {
        if self.set_at.is_some() {
            return;
        }
        self.set_at = Some(now);
        let real: Vec<(ChangeKey, Mono)> =
            self.rules.changes().map(|change| (key_of(change), end_of(change, now))).collect();
        for (key, end) in real {
            self.ends.entry(key).and_modify(|known| *known = End { at: known.at.min(end), by_wall: None });
        }
        self.note_ends();
    }

    /// The date by which overrides of the rule file end: counted on the monotonic clock once the wall clock was known to be
    /// right; until then nobody knows better than the wall clock.
    pub(super) fn date(&self, now: Stamp) -> Wall {
        self.set_at.map_or(now.wall, |set| {
            let passed = i64::try_from(now.mono.since(set.mono).as_millis()).unwrap_or(i64::MAX);
            Wall(set.wall.0.saturating_add(passed))
        })
    }

    fn note_ends(&mut self) {
        let ends = || self.ends.values();
        self.first_end = (ends().map(|end| end.at).min(), ends().filter_map(|end| end.by_wall).min());
    }

    /// Does what a person wants of one rule of one patient: it holds at once, and what it is now is the newest of
    /// [`Engine::take_limit_news`].
    ///
    /// # Errors
    /// Every problem at once, in words. What only the passing of time has changed is then returned by the next call.
    pub fn change_limits(&mut self, wish: &LimitWish, by: &str, now: Stamp) -> Result<Vec<AlertEvent>, Vec<String>> {
        let (now, mut events) = self.advance(now);
        let wished = if by.trim().is_empty() || by.len() > MAX_BY_BYTES {
            Err(vec![format!("a command needs the name of the person, of 1 to {MAX_BY_BYTES} bytes")])
        } else {
            self.rules.wished(wish, by, now.wall)
        };
        let (rules, change, action) = match wished {
            Ok(wished) => wished,
            Err(problems) => {
                self.held = events;
                return Err(problems);
            }
        };
        let date = self.date(now);
        let before = self.rules.summary(&change.patient, &change.rule, date);
        self.rules = rules;
        let after = self.rules.summary(&change.patient, &change.rule, date);
        self.ends.remove(&key_of(&change));
        if action.is_in_force() {
            self.ends.insert(key_of(&change), End { at: end_of(&change, now), by_wall: None });
        }
        self.note_ends();
        let (by, reason) = (by.to_owned(), wish.reason.trim().to_owned());
        self.limit_news.push(LimitsEvent { change, action, by, reason, before, after });
        self.unchanged = None;
        self.refresh_rules(&mut events, now);
        Ok(events)
    }

    /// What became of changes of limits since this was last asked, in the order of time.
    pub fn take_limit_news(&mut self) -> Vec<LimitsEvent> {
        std::mem::take(&mut self.limit_news)
    }

    /// The limits in force for a patient, the most urgent physiological first, each with who set it.
    pub fn limits(&self, patient: &PatientId, now: Stamp) -> Vec<EffectiveLimit> {
        self.rules.limits_in_run(patient, self.date(now))
    }

    /// When continuous numbers of these patients turn grey, and when they are no longer shown.
    pub fn signal_times<'a>(&self, patients: impl Iterator<Item = &'a PatientId>, now: Stamp) -> SignalTimes {
        self.rules.signal_times(patients, self.date(now))
    }

    /// Puts changes over a rule file and says which of them hold no more.
    pub(super) fn adopt(&mut self, rules: RuleSet, changes: Vec<LimitChange>, now: Stamp) {
        let (rules, over) = rules.adopt(changes, self.date(now));
        self.rules = rules;
        for (change, action, reason) in over {
            self.ends.remove(&key_of(&change));
            let before = in_words(&change);
            self.tell_end(change, action, reason, before, now);
        }
        let is_set = self.set_at.is_some();
        for change in self.rules.changes() {
            let by_wall = (!is_set).then_some(change.expires);
            self.ends.entry(key_of(change)).or_insert_with(|| End { at: end_of(change, now), by_wall });
        }
        self.note_ends();
    }

    /// Takes away the changes whose time is over.
    pub(super) fn end_changes(&mut self, now: Stamp) {
        let (mono, wall) = self.first_end;
        if mono.is_none_or(|end| now.mono < end) && wall.is_none_or(|end| now.wall < end) {
            return;
        }
        let has_ended = |end: &End| end.at <= now.mono || end.by_wall.is_some_and(|end| end <= now.wall);
        let is_over = |change: &&LimitChange| self.ends.get(&key_of(change)).is_some_and(has_ended);
        let over: Vec<LimitChange> = self.rules.changes().filter(is_over).cloned().collect();
        for change in over {
            let before = self.rules.summary(&change.patient, &change.rule, self.date(now));
            self.rules.remove(&key_of(&change));
            self.ends.remove(&key_of(&change));
            self.unchanged = None;
            self.tell_end(change, LimitAction::Expired, "its time is over".to_owned(), before, now);
        }
        self.note_ends();
    }

    /// Says which overrides of the rule file have come to their end since this was last said, in an earlier run perhaps.
    pub(super) fn tell_file_overrides(&mut self, now: Stamp) {
        let date = self.date(now);
        let told = self.told.unwrap_or(date);
        for change in self.rules.file_overrides_over(told, date) {
            let before = self.rules.summary(&change.patient, &change.rule, Wall(change.expires.0.saturating_sub(1)));
            self.tell_end(change, LimitAction::Expired, "its time is over".to_owned(), before, now);
        }
        self.told = Some(told.max(date));
    }

    fn tell_end(&mut self, change: LimitChange, action: LimitAction, reason: String, before: String, now: Stamp) {
        let after = self.rules.summary(&change.patient, &change.rule, self.date(now));
        let by = AuditEvent::BRIDGE.to_owned();
        self.limit_news.push(LimitsEvent { change, action, by, reason, before, after });
    }
}

/// A change that was not taken over.
fn in_words(change: &LimitChange) -> String {
    match change.kind {
        LimitKind::Off => format!("ALARM OFF until {}", change.expires),
        LimitKind::Limits => change.lines.trim().replace('\n', ", "),
    }
}

/// When a change that holds now is over on the monotonic clock; a clock that is far behind makes it no longer than a person
/// may ask for.
fn end_of(change: &LimitChange, now: Stamp) -> Mono {
    let left = change.expires.0.saturating_sub(now.wall.0);
    now.mono + Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(longest(change.kind))
}
