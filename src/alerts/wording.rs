//! What people read about an alert.

use crate::alerts::BridgeCondition;
use crate::alerts::rule::{Condition, Rule, metric_label, span_text};
use crate::alerts::subject::{Facts, View};
use crate::event::{Activation, AlertChange, AlertEvent, Presence, Signal, SignalPresence};
use crate::ids::AlertId;
use crate::vitals::{Metric, Mode, Status, Value};

/// Behind a message whose data is missing.
const NO_DATA: &str = "; no data now";
/// Behind a message whose condition has gone.
const OVER: &str = "; over now";
/// An alert that stands for others names this many of them.
const MAX_LISTED: usize = 8;

/// Both signals of an alert that has ended.
pub(super) const fn quiet() -> (Signal, Signal) {
    let off = Signal { activation: Activation::On, presence: SignalPresence::Off };
    (off, off)
}

/// A message with what is known about its condition now.
pub(super) fn with_presence(message: &str, presence: Presence, change: AlertChange) -> String {
    match presence {
        Presence::Unknown if change != AlertChange::End => format!("{message}{NO_DATA}"),
        Presence::False => format!("{message}{OVER}"),
        _ => message.to_owned(),
    }
}

/// What was known about an alert of an earlier run.
pub(super) fn restored(event: &AlertEvent) -> Facts {
    let message = event.message.trim_end_matches(NO_DATA).trim_end_matches(OVER).to_owned();
    Facts {
        device: event.device.clone(),
        metric: event.metric,
        value: event.value,
        limit: event.limit.clone(),
        message,
        mode: event.mode,
    }
}

/// What a rule says by itself.
pub(super) fn facts_without_view(rule: &Rule) -> Facts {
    let metric = rule.sources.first().map(|source| source.metric);
    let label = rule.sources.first().map_or("", |source| source.label());
    let message = format!("{label} {}", rule.text()).trim().to_owned();
    Facts { device: None, metric, value: None, limit: rule.text(), message, mode: Mode::Real }
}

/// What a rule says about what it sees; `parts` are the members of a compound, `undelivered` the alerts it stands for.
pub(super) fn facts(
    rule: &Rule,
    metric: Option<Metric>,
    view: &View,
    parts: &[(&Rule, &View)],
    undelivered: &[AlertId],
) -> Facts {
    let limit = view.edge.map_or_else(|| rule.text(), |edge| edge.text(rule.unit()));
    let message = match &rule.condition {
        Condition::AllOf(_) | Condition::AnyOf(_) => {
            let parts = parts.iter().map(|(part, view)| message(part, None, view));
            parts.collect::<Vec<_>>().join("; ")
        }
        Condition::Bridge(BridgeCondition::AlertUndelivered) if !undelivered.is_empty() => {
            let listed: Vec<String> = undelivered.iter().take(MAX_LISTED).map(ToString::to_string).collect();
            let more = if undelivered.len() > MAX_LISTED { " and more" } else { "" };
            format!("{} not shown anywhere: {}{more}", count(undelivered.len()), listed.join(", "))
        }
        _ => message(rule, metric, view),
    };
    Facts {
        device: view.device.clone(),
        metric: metric.or_else(|| view.quantity.map(|quantity| quantity.metric)),
        value: view.value.map(Value::Valid),
        limit,
        message,
        mode: Mode::Real,
    }
}

fn count(alerts: usize) -> String {
    if alerts == 1 { "1 alert".to_owned() } else { format!("{alerts} alerts") }
}

fn message(rule: &Rule, metric: Option<Metric>, view: &View) -> String {
    let device = view.device.as_ref().map_or("device", |device| device.as_str());
    if view.flag == Some(Status::DeviceChanged) {
        return format!("Another monitor at {device}: its values are withheld until it is confirmed");
    }
    if let Some(flag) = view.flag {
        return format!("{device} reports {}", flag.name().replace('_', " "));
    }
    match (&rule.condition, metric) {
        (Condition::NoValid(time), Some(metric)) => {
            format!("No {} signal for {}", inside_a_sentence(metric_label(metric)), span_text(*time))
        }
        (Condition::NoValid(time), None) => format!("No signal from {device} for {}", span_text(*time)),
        (Condition::LinkDown(time), _) => format!("{device} not connected for {}", span_text(*time)),
        (Condition::Bridge(condition), _) => condition.text().to_owned(),
        _ => {
            let label = view.quantity.map_or("", |quantity| quantity.label());
            let limit = view.edge.map_or_else(|| rule.text(), |edge| edge.text(rule.unit()));
            match view.value {
                Some(value) => format!("{label} {value} {}, {limit}", rule.unit()),
                None => format!("{label} {limit}"),
            }
        }
    }
}

/// `Heart rate` becomes `heart rate`; a term that has its own capitals keeps them.
fn inside_a_sentence(label: &str) -> String {
    let rest_is_plain = label.chars().skip(1).all(|letter| !letter.is_uppercase());
    if rest_is_plain { label.to_lowercase() } else { label.to_owned() }
}
