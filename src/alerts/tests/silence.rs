//! From what age numbers are old and gone: the silence rule of each patient and metric, and the moment at which it alarms.

use super::{Bench, check_with, patient, rules};
use crate::alerts::RuleSet;
use crate::ids::PatientId;
use crate::signal_times::{OwnTimes, SignalTimes};
use crate::vitals::Metric;

/// A rule of its own for SpO2, and one patient whose sensors may be silent for longer.
const RULES: &str = r#"
    [[rule]]
    id = "spo2_silent"
    kind = "technical"
    priority = "low"
    metric = "spo2"
    when = { no_valid_for = "6s" }
    stale_after = "4s"

    [patient."P-0001".rule.no_signal]
    when = { no_valid_for = "30s" }
    reason = "sends every 20 s"
    by = "clinician-7"
    expires = "2027-11-21T00:01:00Z"
"#;

fn times_of(rules: RuleSet, patients: &[PatientId]) -> SignalTimes {
    let bench = Bench::new(rules);
    bench.engine.signal_times(patients.iter(), bench.now)
}

/// The two ages of a metric, as somebody reads them who was told this.
fn ages(times: &SignalTimes, patient: &PatientId, metric: Metric) -> (u64, u64) {
    let own = times.others.iter().find(|own| own.patient_id == *patient && own.metrics.contains(&metric));
    let usual = (times.stale_after_ms, times.lost_after_ms);
    own.map_or(usual, |OwnTimes { stale_after_ms, lost_after_ms, .. }| (*stale_after_ms, *lost_after_ms))
}

#[test]
fn with_the_built_in_rules_everybody_has_the_same_times() {
    for patients in [&[][..], &[patient(), "P-0002".parse().unwrap()]] {
        assert_eq!(times_of(RuleSet::built_in(), patients), SignalTimes::default());
    }
}

#[test]
fn each_patient_and_metric_has_the_times_of_its_own_rule() {
    let (own, other) = (patient(), "P-0002".parse().unwrap());
    let times = times_of(rules(RULES), &[own.clone(), other]);
    let other = "P-0002".parse().unwrap();
    for (patient, metric, expected) in [
        (&own, Metric::Spo2, (4000, 6000)),
        (&own, Metric::HeartRate, (5000, 30_000)),
        (&own, Metric::RespiratoryRate, (5000, 30_000)),
        (&other, Metric::Spo2, (4000, 6000)),
        (&other, Metric::HeartRate, (5000, 10_000)),
    ] {
        assert_eq!(ages(&times, patient, metric), expected, "{patient} {metric:?} of {times:?}");
    }
    assert_eq!((times.stale_after_ms, times.lost_after_ms), (4000, 6000), "who knows only these is never too late");
}

#[test]
fn a_number_is_gone_at_the_moment_its_alert_starts() {
    check_with(rules(RULES), "0 spo2 97\n60 end", &["6 start spo2_silent true on"]);
    check_with(rules(RULES), "0 heart_rate 70\n60 end", &["30 start no_signal true on"]);
}

#[test]
fn what_is_switched_off_leaves_the_times_that_data_is_lost_by() {
    let off = RULES.replace("when = { no_valid_for = \"30s\" }", "enabled = false");
    assert_eq!(ages(&times_of(rules(&off), &[patient()]), &patient(), Metric::HeartRate), (5000, 10_000));
}
