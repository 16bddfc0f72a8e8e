//! What people read about an alert in a notification.

use crate::alerts::metric_label;
use crate::event::{AlertEvent, AlertKind};
use crate::vitals::Mode;

/// `Blood Pressure Alert`: what older clients show as the headline. Demo and test are said first.
pub(super) fn title(alert: &AlertEvent) -> String {
    let label = match (alert.metric, alert.kind) {
        (Some(metric), _) => capitalised(metric_label(metric)),
        (None, AlertKind::Physiological) => "Health".to_owned(),
        (None, AlertKind::Technical) => "Technical".to_owned(),
    };
    match alert.mode {
        Mode::Real => format!("{label} Alert"),
        Mode::Demo => format!("DEMO: {label} Alert"),
        Mode::Test => format!("TEST: {label} Alert"),
    }
}

/// Whose alert, and what it says.
pub(super) fn message(alert: &AlertEvent) -> String {
    alert.patient.as_ref().map_or_else(|| alert.message.clone(), |patient| format!("{patient}: {}", alert.message))
}

/// `Heart rate` becomes `Heart Rate`; what has capitals of its own keeps them.
fn capitalised(label: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let has_own = word.chars().skip(1).any(char::is_uppercase);
        match letters.next() {
            Some(first) if !has_own => first.to_uppercase().chain(letters).collect(),
            _ => word.to_owned(),
        }
    };
    label.split(' ').map(word).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_becomes_a_headline() {
        for (label, expected) in
            [("Heart rate", "Heart Rate"), ("SpO2", "SpO2"), ("etCO2", "etCO2"), ("Blood pressure", "Blood Pressure")]
        {
            assert_eq!(capitalised(label), expected);
        }
    }
}
