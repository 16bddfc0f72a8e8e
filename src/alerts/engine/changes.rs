//! The engine's side of limits that people change: in force at once, over at their end, and every end is told.

use std::time::Duration;

use super::{Engine, MAX_BY_BYTES};
use crate::alerts::change::key_of;
use crate::alerts::rule::{EffectiveLimit, RuleSet};
use crate::clock::{Mono, Stamp, Wall};
use crate::command::LimitWish;
use crate::event::{AlertEvent, AuditEvent, LimitAction, LimitChange, LimitKind, LimitsEvent};
use crate::ids::PatientId;

impl Engine {
    /// Takes back the changes of an earlier run. Those that hold no more are told with the others by
    /// [`Engine::take_limit_news`]. Comes before [`Engine::restore`].
    pub fn take_back_changes(&mut self, changes: Vec<LimitChange>, now: Stamp) -> Vec<AlertEvent> {
        let (now, mut events) = self.advance(now);
        self.adopt(self.rules.clone(), changes, now);
        let stand: Vec<LimitChange> = self.rules.changes().cloned().collect();
        for change in stand {
            let after = self.rules.summary(&change.patient, &change.rule, now.wall);
            let (by, reason, before) = (change.by.clone(), change.reason.clone(), after.clone());
            self.limit_news.push(LimitsEvent { change, action: LimitAction::Stands, by, reason, before, after });
        }
        self.refresh_rules(&mut events, now);
        events
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
        let before = self.rules.summary(&change.patient, &change.rule, now.wall);
        self.rules = rules;
        let after = self.rules.summary(&change.patient, &change.rule, now.wall);
        self.ends.remove(&key_of(&change));
        if action.is_in_force() {
            self.ends.insert(key_of(&change), end_of(&change, now));
        }
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
    pub fn limits(&self, patient: &PatientId, now: Wall) -> Vec<EffectiveLimit> {
        self.rules.limits(patient, now)
    }

    /// Puts changes over a rule file and says which of them hold no more.
    pub(super) fn adopt(&mut self, rules: RuleSet, changes: Vec<LimitChange>, now: Stamp) {
        let (rules, over) = rules.adopt(changes, now.wall);
        self.rules = rules;
        for (change, action, reason) in over {
            self.ends.remove(&key_of(&change));
            let before = match change.kind {
                LimitKind::Off => format!("ALARM OFF until {}", change.expires),
                LimitKind::Limits => change.lines.trim().replace('\n', ", "),
            };
            self.tell_end(change, action, reason, before, now.wall);
        }
        for change in self.rules.changes() {
            self.ends.entry(key_of(change)).or_insert_with(|| end_of(change, now));
        }
    }

    /// Takes away the changes whose time is over by either clock: a step back of the wall clock prolongs none.
    pub(super) fn end_changes(&mut self, now: Stamp) {
        if self.ends.is_empty() {
            return;
        }
        let is_over = |change: &&LimitChange| {
            change.expires <= now.wall || self.ends.get(&key_of(change)).is_some_and(|end| *end <= now.mono)
        };
        let over: Vec<LimitChange> = self.rules.changes().filter(is_over).cloned().collect();
        for change in over {
            let before = self.rules.summary(&change.patient, &change.rule, Wall(change.expires.0.saturating_sub(1)));
            self.rules = self.rules.without(&key_of(&change));
            self.ends.remove(&key_of(&change));
            self.unchanged = None;
            self.tell_end(change, LimitAction::Expired, "its time is over".to_owned(), before, now.wall);
        }
    }

    /// Says which overrides of the rule file have come to their end since a moment.
    pub(super) fn tell_file_overrides(&mut self, after: Wall, now: Stamp) {
        for change in self.rules.file_overrides_over(after, now.wall) {
            let before = self.rules.summary(&change.patient, &change.rule, Wall(change.expires.0.saturating_sub(1)));
            self.tell_end(change, LimitAction::Expired, "its time is over".to_owned(), before, now.wall);
        }
    }

    fn tell_end(&mut self, change: LimitChange, action: LimitAction, reason: String, before: String, now: Wall) {
        let after = self.rules.summary(&change.patient, &change.rule, now);
        let by = AuditEvent::BRIDGE.to_owned();
        self.limit_news.push(LimitsEvent { change, action, by, reason, before, after });
    }
}

/// When a change that holds now is over on the monotonic clock.
fn end_of(change: &LimitChange, now: Stamp) -> Mono {
    let left = change.expires.0.saturating_sub(now.wall.0);
    now.mono + Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
