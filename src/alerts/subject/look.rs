//! What a rule sees at one moment: a value young enough, a silence, a link, a flag, or other rules.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Key, Sample, Subject};
use crate::alerts::judge::{Judge, Truth};
use crate::alerts::rule::{Condition, Edge, Quantity, Rule};
use crate::alerts::score;
use crate::clock::Stamp;
use crate::ids::{DeviceId, RuleId};
use crate::vitals::{Decimal, LATE_AFTER, Mode, Status};

/// What a rule sees at one moment.
#[derive(Debug, Clone)]
pub(in crate::alerts) struct View {
    /// Whether the condition holds.
    pub(in crate::alerts) truth: Truth,
    /// No further delay.
    pub(super) at_once: bool,
    /// The newest reading has no number that counts.
    pub(super) gap: bool,
    /// The quantity that was compared.
    pub(in crate::alerts) quantity: Option<Quantity>,
    /// The value that was compared.
    pub(in crate::alerts) value: Option<Decimal>,
    /// The bound it crosses.
    pub(in crate::alerts) edge: Option<Edge>,
    /// The flag that stands for the condition.
    pub(in crate::alerts) flag: Option<Status>,
    /// The device behind it.
    pub(in crate::alerts) device: Option<DeviceId>,
    /// Real, demo or test.
    pub(in crate::alerts) mode: Mode,
}

impl View {
    /// A view without a value.
    pub(in crate::alerts) const fn plain(truth: Truth) -> Self {
        Self {
            truth,
            at_once: false,
            gap: false,
            quantity: None,
            value: None,
            edge: None,
            flag: None,
            device: None,
            mode: Mode::Real,
        }
    }
}

impl Subject {
    /// What one rule sees on one thing.
    pub(super) fn look(&mut self, rule: &Rule, key: &Key, now: Stamp) -> View {
        match &rule.condition {
            Condition::Limits { .. } if rule.is_about_score() => score::look(rule, self.score.as_ref()),
            Condition::Limits { flags, .. } => {
                let view = self.look_at_values(rule, key, now);
                self.with_flags(view, flags, rule, key)
            }
            Condition::Trend { .. } => self.look_at_values(rule, key, now),
            Condition::NoValid(longest) => self.look_at_silence(rule, key, *longest, now),
            Condition::LinkDown(longest) => self.look_at_link(key, *longest, now),
            Condition::Bridge(condition) => View::plain(match self.conditions.get(condition) {
                Some(true) => Truth::True,
                Some(false) => Truth::Clear,
                None => Truth::Unknown,
            }),
            Condition::AllOf(_) | Condition::AnyOf(_) => View::plain(Truth::Unknown),
        }
    }

    /// A value of `source` that is young enough, with its device. While the device that delivered last goes on, the
    /// others wait: two devices would take turns and start every timer anew. Of spot values the newest counts.
    fn available(&self, rule: &Rule, key: &Key, source: Quantity, now: Stamp) -> Option<(DeviceId, Sample, bool)> {
        let silence = self.silence_of(source.metric);
        let is_spot = rule.keeps_values();
        let last = self.tracks.get(key).and_then(|track| track.seen.as_ref());
        let of_source = self.channels.iter().filter(|((quantity, device), _)| {
            *quantity == source && key.device.as_ref().is_none_or(|only| only == device)
        });
        let fresh = of_source.filter_map(|((_, device), channel)| {
            let sample = channel.sample(&rule.quality)?;
            let is_gap = !channel.newest.is_some_and(|quality| rule.quality.contains(&quality));
            let is_fresh = is_spot || now.mono.since(sample.at) < silence;
            let goes_on = !is_spot && last.is_some_and(|last| last.0 == source && last.1 == *device);
            is_fresh.then_some((goes_on, sample, device, is_gap))
        });
        let (_, sample, device, is_gap) = fresh.max_by_key(|(goes_on, sample, ..)| (*goes_on, sample.number))?;
        Some((device.clone(), sample.clone(), is_gap))
    }

    /// The first source that has a value young enough, as the rule's judge sees it.
    fn look_at_values(&mut self, rule: &Rule, key: &Key, now: Stamp) -> View {
        let available = rule.sources.iter().find_map(|source| {
            let (device, sample, is_gap) = self.available(rule, key, *source, now)?;
            Some((*source, device, sample, is_gap))
        });
        let Some((source, device, sample, gap)) = available else {
            return View::plain(Truth::Unknown);
        };
        let silence = self.silence_of(source.metric);
        if !rule.keeps_values() {
            self.wake_at(sample.at + silence, now);
        }
        let Some(track) = self.tracks.get_mut(key) else {
            return View::plain(Truth::Unknown);
        };
        let seen = (source, device, sample.number);
        if track.seen.as_ref() != Some(&seen) {
            let is_same = track.seen.as_ref().is_some_and(|before| (before.0, &before.1) == (seen.0, &seen.1));
            if !is_same && !rule.keeps_values() {
                track.judge = Judge::default();
            }
            track.judge.push(rule, sample.value, silence, sample.at);
            track.seen = Some(seen.clone());
            track.is_late = now.mono.since(sample.at) > LATE_AFTER;
        }
        let Some(verdict) = track.judge.verdict() else {
            return View::plain(Truth::Unknown);
        };
        View {
            truth: verdict.truth,
            at_once: verdict.at_once,
            gap,
            quantity: Some(source),
            value: Some(verdict.value),
            edge: verdict.edge,
            flag: None,
            device: Some(seen.1),
            mode: sample.mode,
        }
    }

    /// A flag of a connected device counts as the condition.
    fn with_flags(&self, view: View, flags: &[Status], rule: &Rule, key: &Key) -> View {
        if flags.is_empty() || view.truth == Truth::True {
            return view;
        }
        let mut connected = self.devices.iter().filter(|(id, device)| {
            key.device.as_ref().is_none_or(|only| only == *id) && device.link.is_some() && device.down_since.is_none()
        });
        let flagged = connected
            .clone()
            .find_map(|(id, device)| Some((id, device, flags.iter().find(|flag| device.status.contains(flag))?)));
        if let Some((id, device, flag)) = flagged {
            return View { flag: Some(*flag), device: Some(id.clone()), mode: device.mode, ..View::plain(Truth::True) };
        }
        let never_had_a_value = !self.channels.keys().any(|(quantity, device)| {
            rule.sources.contains(quantity) && key.device.as_ref().is_none_or(|only| only == device)
        });
        // An alert of an earlier run stands for a value that nobody has seen since: that no flag is up does not clear it.
        let stands_for_a_value = self.tracks.get(key).is_some_and(|track| {
            track.episode.open().is_some() && track.facts.as_ref().is_some_and(|facts| facts.metric.is_some())
        });
        let tells = never_had_a_value && !stands_for_a_value && connected.next().is_some();
        if tells { View { truth: Truth::Clear, ..view } } else { view }
    }

    fn look_at_silence(&mut self, rule: &Rule, key: &Key, longest: Duration, now: Stamp) -> View {
        let (since, heard, device) = match (key.metric, &key.device) {
            (Some(metric), _) => {
                let Some(origin) = self.origins.get(&metric) else {
                    return View::plain(Truth::Unknown);
                };
                let of_metric = self.channels.iter().filter(|((quantity, _), _)| quantity.metric == metric);
                let newest = of_metric
                    .filter_map(|((_, device), channel)| Some((channel.sample(&rule.quality)?.at, device)))
                    .max_by_key(|(at, _)| *at);
                let device = newest.map(|(_, device)| device).or_else(|| origin.devices.first()).cloned();
                (newest.map_or(origin.since, |(at, _)| at), newest.is_some(), device)
            }
            (None, Some(id)) => match self.devices.get(id) {
                Some(device) if self.is_undelivered(id) => (device.since, false, Some(id.clone())),
                // It delivers by now; its metrics are watched one by one.
                _ => return View::plain(Truth::Clear),
            },
            (None, None) => return View::plain(Truth::Unknown),
        };
        self.wake_at(since + longest, now);
        let truth = match (now.mono.since(since) >= longest, heard) {
            (true, _) => Truth::True,
            (false, true) => Truth::Clear,
            (false, false) => Truth::Unknown,
        };
        let mode = device.as_ref().and_then(|id| self.devices.get(id)).map_or(Mode::Real, |device| device.mode);
        View { device, mode, ..View::plain(truth) }
    }

    fn look_at_link(&mut self, key: &Key, longest: Duration, now: Stamp) -> View {
        let Some(id) = &key.device else {
            return View::plain(Truth::Unknown);
        };
        let Some(device) = self.devices.get(id) else {
            return View::plain(Truth::Unknown);
        };
        let (mode, down_since) = (device.mode, device.down_since);
        let truth = match (device.link, down_since) {
            (None, _) => Truth::Unknown,
            _ if !self.is_watched(id) => Truth::Clear,
            (Some(_), None) => Truth::Clear,
            (Some(_), Some(since)) if now.mono.since(since) >= longest => Truth::True,
            // Down, and not for long: an alert that stands is not over.
            (Some(_), Some(_)) => Truth::Between,
        };
        if let Some(since) = down_since {
            self.wake_at(since + longest, now);
        }
        View { device: Some(id.clone()), mode, ..View::plain(truth) }
    }
}

/// What the members of a compound rule make together.
pub(super) fn compound(rule: &Rule, rules: &[Rule], views: &BTreeMap<Key, View>) -> View {
    let of_member = |member: &RuleId| {
        let index = rules.iter().position(|other| other.id == *member)?;
        views.get(&Key { rule: index, metric: None, device: None })
    };
    let members = rule.condition.members();
    let truths = members.iter().map(|member| of_member(member).map_or(Truth::Unknown, |view| view.truth));
    let truth = match rule.condition {
        Condition::AllOf(_) => Truth::all(truths),
        _ => Truth::any(truths),
    };
    let gap = members.iter().filter_map(of_member).any(|view| view.gap);
    View { gap, ..View::plain(truth) }
}
