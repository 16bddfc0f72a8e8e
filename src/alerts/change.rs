//! Changes of one rule of one patient that people make while the bridge runs: checked as an override of the rule file
//! is, put over it, and taken away when their time is over.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alerts::file::{Draft, MAX_OVERRIDES, MAX_WORDS_BYTES, Reader};
use crate::alerts::rule::{Condition, Decision, EffectiveLimit, LimitSource, Override, Rule, RuleSet, millis};
use crate::clock::Wall;
use crate::command::{LimitOperation, LimitWish};
use crate::event::{LimitAction, LimitChange, LimitKind};
use crate::ids::{PatientId, RuleId};

/// Longest ALARM OFF that a person can ask for at once: it is looked at again each day.
pub(super) const MAX_OFF: Duration = Duration::from_hours(24);
/// Longest time for limits that a person sets while the bridge runs. What is to last longer belongs into the rule file.
pub(super) const MAX_CHANGED: Duration = Duration::from_hours(30 * 24);

/// How long a change of this kind holds at most.
pub(super) const fn longest(kind: LimitKind) -> Duration {
    match kind {
        LimitKind::Off => MAX_OFF,
        LimitKind::Limits => MAX_CHANGED,
    }
}

/// Which change: there is at most one of a kind for a rule of a patient.
pub(super) type ChangeKey = (PatientId, RuleId, LimitKind);

/// A change that holds no more, what became of it, and why.
pub(super) type Over = (LimitChange, LimitAction, String);

/// The key of a change.
pub(super) fn key_of(change: &LimitChange) -> ChangeKey {
    (change.patient.clone(), change.rule.clone(), change.kind)
}

impl RuleSet {
    /// The changes in force at runtime.
    pub fn changes(&self) -> impl Iterator<Item = &LimitChange> {
        self.overrides.values().flatten().filter_map(|one| one.change.as_ref())
    }

    /// The set with what a person wants, and what that is.
    ///
    /// # Errors
    /// Every problem of the wish at once, in words.
    pub(super) fn wished(
        &self,
        wish: &LimitWish,
        by: &str,
        now: Wall,
    ) -> Result<(Self, LimitChange, LimitAction), Vec<String>> {
        let mut problems = Vec::new();
        let reason = wish.reason.trim();
        if reason.is_empty() || reason.len() > MAX_WORDS_BYTES {
            problems.push(format!("`reason` is 1 to {MAX_WORDS_BYTES} bytes"));
        }
        let (kind, action, written) = match &wish.operation {
            LimitOperation::Set { lines, expires } => {
                (LimitKind::Limits, LimitAction::Set, Some((lines.as_str(), expires)))
            }
            LimitOperation::Disable { until } => (LimitKind::Off, LimitAction::Disabled, Some(("", until))),
            LimitOperation::Clear => (LimitKind::Limits, LimitAction::Cleared, None),
            LimitOperation::Enable => (LimitKind::Off, LimitAction::Enabled, None),
        };
        let Some(rule) = self.rules.iter().find(|rule| rule.id == wish.rule) else {
            problems.push(format!("`{}` is no rule", wish.rule));
            return Err(problems);
        };
        let Some((lines, expires)) = written else {
            let key = (wish.patient.clone(), wish.rule.clone(), kind);
            let Some(change) = self.changes().find(|change| key_of(change) == key).cloned() else {
                problems.push(self.nothing_to_end(wish, kind, now));
                return Err(problems);
            };
            return if problems.is_empty() { Ok((self.without(&key), change, action)) } else { Err(problems) };
        };
        let member = if kind == LimitKind::Off { "until" } else { "expires" };
        let until = Wall::parse(expires);
        match until {
            None => problems.push(format!("`{member}` is a time such as 2027-01-23T08:00:00Z")),
            Some(until) if until <= now => problems.push(format!("`{member}` is over already: it is {now}")),
            Some(until) => {
                let left = u64::try_from(until.0.saturating_sub(now.0)).unwrap_or(u64::MAX);
                if Duration::from_millis(left) > longest(kind) {
                    problems.push(match kind {
                    LimitKind::Off => format!("`{member}` is at most 24 h from now, {now}: switch it off again then"),
                    LimitKind::Limits => format!(
                        "`{member}` is at most 30 days from now, {now}: set them again then, or write them into the rule file"
                    ),
                });
                }
            }
        }
        let change = LimitChange {
            patient: wish.patient.clone(),
            rule: rule.id.clone(),
            kind,
            lines: lines.to_owned(),
            reason: reason.to_owned(),
            by: by.to_owned(),
            // What else is wrong is told as well, so a moment stands in for one that is missing.
            expires: until.filter(|until| *until > now).unwrap_or(Wall(now.0.saturating_add(1))),
            set: Some(now),
            beside: self.file_override(&wish.patient, &rule.id).map(fingerprint),
        };
        match self.with(&change, now) {
            Ok(set) if problems.is_empty() => Ok((set, change, action)),
            Ok(_) => Err(problems),
            Err(more) => {
                problems.extend(more);
                Err(problems)
            }
        }
    }

    /// Why there is nothing to clear or to switch on.
    fn nothing_to_end(&self, wish: &LimitWish, kind: LimitKind, now: Wall) -> String {
        let rules = self.in_run(Some(&wish.patient), now);
        let rule = rules.iter().find(|rule| rule.id == wish.rule);
        let is_off = rule.is_some_and(|rule| rule.off.is_some());
        match kind {
            LimitKind::Off if is_off => format!("`{}` is switched off by the rule file: change it there", wish.rule),
            LimitKind::Off => format!("`{}` is not switched off for {}", wish.rule, wish.patient),
            LimitKind::Limits => format!("nobody has set limits of `{}` for {}", wish.rule, wish.patient),
        }
    }

    /// The set with a change, in place of an earlier one of the same kind.
    ///
    /// # Errors
    /// Every problem of the change, in words.
    fn with(&self, change: &LimitChange, now: Wall) -> Result<Self, Vec<String>> {
        let Some(rule) = self.rules.iter().find(|rule| rule.id == change.rule) else {
            return Err(vec![format!("`{}` is no rule", change.rule)]);
        };
        let mut set = self.without(&key_of(change));
        set.overrides.entry(change.patient.clone()).or_default().push(override_of(change, rule)?);
        let count = set.overrides.values().flatten().count();
        if count > MAX_OVERRIDES {
            return Err(vec![format!("{count} overrides are more than {MAX_OVERRIDES}: clear some first")]);
        }
        let mut reader = Reader::new("", LimitSource::File);
        reader.check_patient(&set, &change.patient, now, 0);
        let problems: Vec<String> = reader.problems.as_slice().iter().map(|problem| problem.message.clone()).collect();
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    /// The set without a change.
    fn without(&self, key: &ChangeKey) -> Self {
        let mut set = self.clone();
        set.remove(key);
        set
    }

    /// Takes a change out.
    pub(super) fn remove(&mut self, key: &ChangeKey) {
        if let Some(changes) = self.overrides.get_mut(&key.0) {
            changes.retain(|one| one.change.as_ref().is_none_or(|change| key_of(change) != *key));
            if changes.is_empty() {
                self.overrides.remove(&key.0);
            }
        }
    }

    /// Takes over the changes of an earlier run, or of before the rule file was read again; and those that hold no more,
    /// each with the reason. Patient by patient, so that the work grows with the number of changes and not with its square.
    pub(super) fn adopt(self, changes: Vec<LimitChange>, now: Wall) -> (Self, Vec<Over>) {
        let (mut set, mut over) = (self, Vec::new());
        let mut room = MAX_OVERRIDES.saturating_sub(set.overrides.values().flatten().count());
        let mut by_patient: BTreeMap<PatientId, Vec<LimitChange>> = BTreeMap::new();
        for change in changes {
            let beside = set.file_override(&change.patient, &change.rule).filter(|one| one.decision.in_force(now));
            if beside.is_some_and(|one| Some(fingerprint(one)) != change.beside) {
                let reason = "the rule file has a later override of the same rule".to_owned();
                over.push((change, LimitAction::Replaced, reason));
            } else if room == 0 {
                let reason = format!("with those of the rule file there are more than {MAX_OVERRIDES} overrides");
                over.push((change, LimitAction::Unfit, reason));
            } else {
                room -= 1;
                by_patient.entry(change.patient.clone()).or_default().push(change);
            }
        }
        for (patient, changes) in by_patient {
            // What holds for others says nothing about this patient.
            let own = set.overrides.remove(&patient).into_iter().map(|own| (patient.clone(), own)).collect();
            let alone = Self { rules: set.rules.clone(), overrides: own, lines: BTreeMap::new() };
            let mut taken = match alone.with_all(&patient, &changes, now) {
                Some(taken) => taken,
                None => alone.one_by_one(changes, now, &mut over),
            };
            set.overrides.append(&mut taken.overrides);
        }
        (set, over)
    }

    /// The set with all these changes of a patient; `None` if one of them does not fit.
    fn with_all(&self, patient: &PatientId, changes: &[LimitChange], now: Wall) -> Option<Self> {
        let mut set = self.clone();
        for change in changes {
            let rule = self.rules.iter().find(|rule| rule.id == change.rule)?;
            set.remove(&key_of(change));
            set.overrides.entry(patient.clone()).or_default().push(override_of(change, rule).ok()?);
        }
        let mut reader = Reader::new("", LimitSource::File);
        reader.check_patient(&set, patient, now, 0);
        reader.problems.is_empty().then_some(set)
    }

    /// The set with those changes that fit beside the ones before them.
    fn one_by_one(self, changes: Vec<LimitChange>, now: Wall, over: &mut Vec<Over>) -> Self {
        let mut set = self;
        for change in changes {
            match set.with(&change, now) {
                Ok(with) => set = with,
                Err(problems) => {
                    let reason = format!("it no longer fits the rules: {}", problems.join("; "));
                    over.push((change, LimitAction::Unfit, reason));
                }
            }
        }
        set
    }

    /// The overrides of the rule file whose time ended after a moment and until `now`, as changes.
    pub(super) fn file_overrides_over(&self, after: Wall, now: Wall) -> Vec<LimitChange> {
        let own = self.overrides.iter().flat_map(|(patient, ones)| ones.iter().map(move |one| (patient, one)));
        let over = own.filter_map(|(patient, one)| {
            let expires = one.decision.expires.filter(|expires| after < *expires && *expires <= now)?;
            one.change.is_none().then(|| LimitChange {
                patient: patient.clone(),
                rule: one.rule.clone(),
                kind: if one.off { LimitKind::Off } else { LimitKind::Limits },
                lines: String::new(),
                reason: one.decision.reason.clone(),
                by: one.decision.by.clone(),
                expires,
                set: None,
                beside: None,
            })
        });
        over.collect()
    }

    /// What one rule of one patient says at a moment of a run, in words.
    pub(super) fn summary(&self, patient: &PatientId, rule: &RuleId, at: Wall) -> String {
        let limits = self.limits_in_run(patient, at);
        limits.iter().find(|limit| limit.rule == *rule).map_or_else(String::new, EffectiveLimit::summary)
    }

    fn file_override(&self, patient: &PatientId, rule: &RuleId) -> Option<&Override> {
        self.overrides.get(patient)?.iter().find(|one| one.rule == *rule && one.change.is_none())
    }
}

/// A change as an override, checked as one of the rule file.
fn override_of(change: &LimitChange, rule: &Rule) -> Result<Override, Vec<String>> {
    if matches!(rule.condition, Condition::Bridge(_)) {
        return Err(vec![format!("`{}` is about the bridge, not about a patient", rule.id)]);
    }
    let LimitChange { patient, rule: id, .. } = change;
    if change.kind == LimitKind::Off {
        let decision = Decision { reason: change.reason.clone(), by: change.by.clone(), expires: Some(change.expires) };
        let change = Some(change.clone());
        let (rule, times) = (id.clone(), rule.times);
        return Ok(Override { rule, line: 0, condition: None, times, off: true, decision, change });
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let text = format!(
        "[patient.{}.rule.{}]\nreason = {}\nby = {}\nexpires = {}\n{}",
        quoted(patient.as_str()),
        quoted(id.as_str()),
        quoted(&change.reason),
        quoted(&change.by),
        quoted(&change.expires.to_string()),
        change.lines
    );
    let mut reader = Reader::new(&text, LimitSource::File);
    let file = reader.file();
    let draft = Draft { rule: rule.clone(), inhibits: Vec::new(), line: 0 };
    let found = file.map(|file| reader.overrides(&file, &[draft])).and_then(|mut all| all.remove(patient)?.pop());
    let member = |line: usize| text.lines().nth(line.saturating_sub(1)).and_then(|line| line.split(" =").next());
    let in_words = |problem: &crate::document::Problem| match member(problem.line).filter(|key| !key.starts_with('[')) {
        Some(key) => format!("`{key}`: {}", problem.message),
        None => problem.message.clone(),
    };
    let problems: Vec<String> = reader.problems.as_slice().iter().map(in_words).collect();
    match found {
        Some(one) if problems.is_empty() => Ok(Override { line: 0, change: Some(change.clone()), ..one }),
        _ if problems.is_empty() => Err(vec!["it changes nothing".to_owned()]),
        _ => Err(problems),
    }
}

/// What an override of the rule file says, so that a later one is told from the same one read again.
fn fingerprint(one: &Override) -> String {
    let bound = |low_side| {
        let bound = one.condition.as_ref().and_then(|condition| condition.bound(low_side));
        bound.map_or_else(String::new, |bound| format!("{} {}", bound.edge.text(""), bound.clear.text("")))
    };
    let expires = one.decision.expires.map_or_else(String::new, |expires| expires.to_string());
    let (delay, clear_delay) = (millis(one.times.delay), millis(one.times.clear_delay));
    let Decision { reason, by, .. } = &one.decision;
    format!("{}|{}|{delay}|{clear_delay}|{}|{reason}|{by}|{expires}", bound(true), bound(false), one.off)
}
