//! From what age a value of a continuous metric is gone, and which rule says so.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::alerts::rule::{Condition, Rule};
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
