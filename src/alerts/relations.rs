//! What rules of one file say about each other: inhibition, limits beyond limits, members of compounds.

use std::collections::{BTreeMap, BTreeSet};

use crate::alerts::file::{Draft, Reader};
use crate::alerts::rule::{Condition, Level, Limit, Rule, RuleSet, resolve};
use crate::alerts::written::RawFile;
use crate::clock::Wall;
use crate::event::{AlertKind, Priority};
use crate::ids::{PatientId, RuleId};
use crate::vitals::Metric;

/// The lowest limit of SpO2 that a rule of priority high may have, in %.
const DESATURATION_FLOOR: i32 = 60;

impl Reader<'_> {
    /// Checks what rules say about each other, and turns every `inhibits` into `inhibited_by`.
    pub(super) fn relate(&mut self, drafts: &mut [Draft]) {
        let known: BTreeMap<RuleId, usize> =
            drafts.iter().enumerate().map(|(index, draft)| (draft.rule.id.clone(), index)).collect();
        let mut hides: Vec<(RuleId, RuleId, usize)> = Vec::new();
        for draft in drafts.iter() {
            let own = &draft.rule.id;
            let by = draft.rule.inhibited_by.iter().map(|other| (other.clone(), own.clone(), draft.line));
            let of = draft.inhibits.iter().map(|other| (own.clone(), other.clone(), draft.line));
            hides.extend(by.chain(of));
            let others = draft.rule.condition.members().iter().chain(beyond_rules(&draft.rule));
            for other in others.chain(&draft.rule.inhibited_by).chain(&draft.inhibits) {
                if !known.contains_key(other) {
                    self.problems.add_at_line(draft.line, format!("rule `{own}` names `{other}`, which is no rule"));
                }
            }
        }
        for draft in drafts.iter() {
            self.check_members(draft, drafts, &known);
            self.check_beyond(draft, drafts, &known);
        }
        if let Some(name) = cycle(&hides) {
            let line = hides.iter().filter(|hide| hide.1 == name).map(|hide| hide.2).max().unwrap_or(0);
            self.problems.add_at_line(line, format!("rule `{name}` inhibits itself through other rules"));
        }
        for (inhibitor, inhibited, line) in hides {
            let (Some(above), Some(below)) = (known.get(&inhibitor), known.get(&inhibited)) else {
                continue;
            };
            let (Some(above), Some(below)) = (drafts.get(*above), drafts.get(*below)) else {
                continue;
            };
            let line = [line, above.line, below.line].into_iter().find(|line| *line > 0).unwrap_or(0);
            if above.rule.kind == AlertKind::Technical {
                self.problems.add_at_line(line, format!("`{inhibitor}` is technical and hides nothing"));
            } else if above.rule.priority <= below.rule.priority || below.rule.kind == AlertKind::Technical {
                let message =
                    format!("`{inhibitor}` is not of higher priority than `{inhibited}` and cannot inhibit it");
                self.problems.add_at_line(line, message);
            }
            if let Some(below) = drafts.iter_mut().find(|draft| draft.rule.id == inhibited)
                && !below.rule.inhibited_by.contains(&inhibitor)
            {
                below.rule.inhibited_by.push(inhibitor);
            }
        }
    }

    /// A compound is made of rules that judge values themselves.
    fn check_members(&mut self, draft: &Draft, drafts: &[Draft], known: &BTreeMap<RuleId, usize>) {
        for member in draft.rule.condition.members() {
            let Some(other) = known.get(member).and_then(|index| drafts.get(*index)) else {
                continue;
            };
            let judges_values = matches!(other.rule.condition, Condition::Limits { .. } | Condition::Trend { .. });
            if !judges_values || other.rule.is_per_device() {
                let message = format!("`{member}` is no rule about a patient's values and cannot be part of another");
                self.problems.add_at_line(draft.line, message);
            }
        }
    }

    /// A limit beyond another is beyond a number, of the same metric.
    fn check_beyond(&mut self, draft: &Draft, drafts: &[Draft], known: &BTreeMap<RuleId, usize>) {
        for low_side in [true, false] {
            let Some(Limit::Beyond { rule, .. }) = draft.rule.condition.bound(low_side).map(|bound| &bound.limit)
            else {
                continue;
            };
            let Some(other) = known.get(rule).and_then(|index| drafts.get(*index)) else {
                continue;
            };
            let is_number = other.rule.condition.bound(low_side).is_some_and(|b| matches!(b.limit, Limit::Fixed(_)));
            if !is_number || other.rule.sources != draft.rule.sources {
                let side = if low_side { "low" } else { "high" };
                let message = format!("`{rule}` has no {side} limit in numbers on the same metric");
                self.problems.add_at_line(draft.line, message);
            }
        }
    }

    /// Resolves every limit, for nobody and for each patient with overrides, and checks that the more urgent of two
    /// related limits lies further out, inside the metric's range, with its clear level outside.
    pub(super) fn check_orders(&mut self, set: &RuleSet, file: &RawFile, drafts: &[Draft]) {
        let mut plain = set.rules.clone();
        resolve(&mut plain);
        let line = |id: &RuleId| drafts.iter().find(|draft| draft.rule.id == *id).map_or(0, |draft| draft.line);
        self.check_order(&plain, "", &|rule| line(&rule.id));
        for (patient, changes) in &set.overrides {
            let raw = file.patient.iter().find(|(name, _)| name.get_ref() == patient.as_str());
            let lines: Vec<usize> = raw
                .iter()
                .flat_map(|(_, raw)| raw.rule.keys())
                .filter(|id| changes.iter().any(|change| change.rule.as_str() == id.get_ref()))
                .map(|id| self.line(id))
                .collect();
            let first = lines.into_iter().min().unwrap_or(0);
            self.check_patient(set, patient, Wall(i64::MIN), first);
        }
    }

    /// Checks the limits of one patient as they are from a moment on.
    pub(super) fn check_patient(&mut self, set: &RuleSet, patient: &PatientId, from: Wall, line: usize) {
        // Overrides end one by one, and each time another mixture of limits is in force.
        let changes = set.overrides.get(patient).into_iter().flatten();
        let ends = changes.filter_map(|change| change.decision.expires).filter(|end| *end > from);
        for moment in std::iter::once(from).chain(ends) {
            let rules = set.effective(Some(patient), moment);
            self.check_order(&rules, &format!(" for {patient}"), &|_| line);
        }
    }

    /// The last limit before nothing alarms any more stays where it can alarm.
    fn check_outermost(&mut self, rule: &Rule, whom: &str, line: usize) {
        let floor = rule.sources.first().and_then(|source| lowest_high(source.metric));
        let (Some(floor), Some(bound)) =
            (floor.filter(|_| rule.priority == Priority::High), rule.condition.bound(true))
        else {
            return;
        };
        let level = bound.edge.level();
        if level < floor {
            let message = format!(
                "the limit {level} of `{}`{whom} is below {floor}, the lowest of priority high: raise it, or switch the rule \
                 off with an end (`rule.disable`)",
                rule.id
            );
            self.problems.add_at_line(line, message);
        }
    }

    fn check_order(&mut self, rules: &[Rule], whom: &str, line: &dyn Fn(&Rule) -> usize) {
        for rule in rules {
            self.check_outermost(rule, whom, line(rule));
            let bounds = [true, false].into_iter().filter_map(|side| rule.condition.bound(side));
            for bound in bounds.filter(|bound| matches!(bound.limit, Limit::Beyond { .. })) {
                let Some(source) = rule.sources.first() else {
                    continue;
                };
                let (lowest, highest) = source.metric.info().range;
                let level = bound.edge.level();
                if !(Level::whole(lowest)..=Level::whole(highest)).contains(&level) {
                    let message = format!("the limit {level} of `{}`{whom} is outside {lowest} to {highest}", rule.id);
                    self.problems.add_at_line(line(rule), message);
                }
                if bound.edge.overlaps(bound.clear) {
                    let message = format!("the clear level of `{}`{whom} lies inside its limit {level}", rule.id);
                    self.problems.add_at_line(line(rule), message);
                }
            }
            for (other, low_side) in related(rule, rules) {
                let (Some(outer), Some(inner)) = (rule.condition.bound(low_side), other.condition.bound(low_side))
                else {
                    continue;
                };
                let (outer, inner) = (outer.edge.level(), inner.edge.level());
                let is_beyond = if low_side { outer < inner } else { outer > inner };
                if !is_beyond {
                    let side = if low_side { "below" } else { "above" };
                    let message = format!(
                        "the limit {outer} of `{}`{whom} is not {side} the limit {inner} of `{}`",
                        rule.id, other.id
                    );
                    self.problems.add_at_line(line(rule).max(line(other)), message);
                }
            }
        }
    }
}

/// The lowest level of a low limit of priority high, if its metric has one. An oximeter is not specified below 70 %, and
/// whoever has less than this needs somebody now, whatever is usual for the patient.
fn lowest_high(metric: Metric) -> Option<Level> {
    (metric == Metric::Spo2).then(|| Level::whole(DESATURATION_FLOOR))
}

/// The rules whose limit lies inside this one's: those it inhibits and the one it stands beyond, on the same metric.
fn related<'r>(rule: &'r Rule, rules: &'r [Rule]) -> impl Iterator<Item = (&'r Rule, bool)> {
    let beyond: BTreeSet<&RuleId> = beyond_rules(rule).collect();
    rules
        .iter()
        .filter(move |other| {
            other.sources == rule.sources && (other.inhibited_by.contains(&rule.id) || beyond.contains(&other.id))
        })
        .flat_map(|other| [(other, true), (other, false)])
}

/// The rules that this rule's limits stand beyond.
fn beyond_rules(rule: &Rule) -> impl Iterator<Item = &RuleId> {
    [true, false].into_iter().filter_map(|side| match &rule.condition.bound(side)?.limit {
        Limit::Beyond { rule, .. } => Some(rule),
        Limit::Fixed(_) => None,
    })
}

/// A rule that lies on a cycle of inhibition, if there is one.
fn cycle(hides: &[(RuleId, RuleId, usize)]) -> Option<RuleId> {
    let names: BTreeSet<&RuleId> = hides.iter().map(|hide| &hide.1).collect();
    names
        .into_iter()
        .find(|name| {
            let mut reached: BTreeSet<&RuleId> = BTreeSet::new();
            let mut open = vec![*name];
            while let Some(next) = open.pop() {
                for hide in hides.iter().filter(|hide| hide.0 == *next) {
                    if reached.insert(&hide.1) {
                        open.push(&hide.1);
                    }
                }
            }
            reached.contains(name)
        })
        .cloned()
}
