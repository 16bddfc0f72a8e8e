//! From what age a continuous number is old, and from what age it is none: what the silence rules say of each patient.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alerts::rule::{Condition, Rule, RuleSet, millis};
use crate::clock::Wall;
use crate::ids::PatientId;
use crate::signal_times::{OwnTimes, SignalTimes};
use crate::vitals::{Metric, Rhythm};

/// From what age a value is gone where no rule says it.
pub(super) const DEFAULT_SILENCE: Duration = Duration::from_secs(10);

/// For each continuous metric its silence rule (one that names it before one that names none) and its longest silence.
pub(super) fn silences(rules: &[Rule]) -> BTreeMap<Metric, (Option<usize>, Duration)> {
    let continuous = Metric::ALL.iter().filter(|metric| metric.info().rhythm == Rhythm::Continuous);
    continuous
        .map(|metric| {
            let candidates = rules.iter().enumerate().filter_map(|(index, rule)| {
                let Condition::NoValid(longest) = rule.condition else {
                    return None;
                };
                let names_it = rule.sources.iter().any(|source| source.metric == *metric);
                let applies = rule.off.is_none() && (names_it || rule.sources.is_empty());
                applies.then_some((names_it, index, longest))
            });
            // The first of those that name it, else the first of the others.
            let best = candidates.min_by_key(|(names_it, index, _)| (!names_it, *index));
            (*metric, best.map_or((None, DEFAULT_SILENCE), |(_, index, longest)| (Some(index), longest)))
        })
        .collect()
}

/// The two ages of each continuous metric, in ms.
fn ages(rules: &[Rule]) -> BTreeMap<Metric, (u64, u64)> {
    let aged = |(metric, (rule, longest)): (Metric, (Option<usize>, Duration))| {
        let stale = rule.and_then(|rule| rules.get(rule)).map_or(longest / 2, |rule| rule.stale_after);
        (metric, (millis(stale.min(longest)), millis(longest)))
    };
    silences(rules).into_iter().map(aged).collect()
}

impl RuleSet {
    /// When the numbers of these patients turn grey and when they are gone, in a running engine.
    pub(super) fn signal_times<'a>(&self, patients: impl Iterator<Item = &'a PatientId>, date: Wall) -> SignalTimes {
        let common = ages(&self.in_run(None, date));
        let of_patient = |patient: &'a PatientId| {
            let own = self.has_overrides(patient).then(|| ages(&self.in_run(Some(patient), date)));
            let mut groups: BTreeMap<(u64, u64), Vec<Metric>> = BTreeMap::new();
            for (metric, times) in own.as_ref().unwrap_or(&common) {
                groups.entry(*times).or_default().push(*metric);
            }
            (patient, groups)
        };
        let all: Vec<_> = patients.map(of_patient).collect();
        let times = || all.iter().flat_map(|(_, groups)| groups.keys()).chain(common.values());
        let default = SignalTimes::default();
        let stale_after_ms = times().map(|(stale, _)| *stale).min().unwrap_or(default.stale_after_ms);
        let lost_after_ms = times().map(|(_, lost)| *lost).min().unwrap_or(default.lost_after_ms);
        let others = all.into_iter().flat_map(|(patient, groups)| {
            let other = groups.into_iter().filter(|(times, _)| *times != (stale_after_ms, lost_after_ms));
            other.map(|((stale_after_ms, lost_after_ms), metrics)| OwnTimes {
                patient_id: patient.clone(),
                metrics,
                stale_after_ms,
                lost_after_ms,
            })
        });
        SignalTimes { stale_after_ms, lost_after_ms, others: others.collect() }
    }
}
