//! `vitalbridge alerts test`: rules tried on recordings with every trap that real ones have.

use std::process::{Output, Stdio};

use serde_json::Value as Json;

use crate::bridge::program;

/// Zeros, empty and broken cells, missing minutes and times that do not rise.
const TRAPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/numerics_traps.csv");

fn run(arguments: &[&str]) -> Output {
    program().args(["alerts", "test"]).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(arguments: &[&str]) -> Json {
    let output = run(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The row of a rule, and of a metric for a no-signal rule.
fn row<'j>(report: &'j Json, rule: &str, metric: Option<&str>) -> &'j Json {
    let rows = report["rules"].as_array().unwrap();
    let found = rows.iter().find(|row| row["rule"] == rule && row["metric"].as_str() == metric);
    found.unwrap_or_else(|| panic!("no row of {rule} {metric:?} in {report:#}"))
}

/// A file that goes with its folder.
fn file(name: &str, content: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

/// A recording of one saturation a second.
fn saturations(seconds: u32, at: impl Fn(u32) -> &'static str) -> String {
    let rows = (0..seconds).map(|second| format!("{second},{}\n", at(second)));
    std::iter::once("t_s,SpO2\n".to_owned()).chain(rows).collect()
}

/// (start, end, message) of each alert of a rule.
fn alerts(report: &Json, rule: &str) -> Vec<(f64, f64, String)> {
    let of_rule = report["alerts"].as_array().unwrap().iter().filter(|alert| alert["rule"] == rule);
    of_rule
        .map(|alert| {
            let number = |key: &str| alert[key].as_f64().unwrap();
            (number("start_s"), number("end_s"), alert["message"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn zeros_and_empty_cells_never_alarm_as_values_and_each_run_of_them_is_one_no_signal() {
    let report = json(&["--replay", TRAPS, "--compare", "--list"]);
    let counts = |row: &Json| {
        [&row["alerts"], &row["raw_limits"]["alerts"], &row["raw_limits_and_zeros"]["alerts"]]
            .map(|count| count.as_u64().unwrap())
    };
    // The one at 88 %, and with zeros as numbers also four of the five runs: one holds no number at all.
    assert_eq!(counts(row(&report, "spo2_low", None)), [1, 1, 5]);
    assert_eq!(counts(row(&report, "spo2_desat", None)), [0, 0, 4]);
    assert_eq!(counts(row(&report, "diastolic", None)), [0, 0, 1]);
    assert_eq!(counts(row(&report, "heart_rate_low", None)), [0, 0, 2]);
    for (metric, runs) in [("spo2", 5), ("pulse_rate", 4), ("heart_rate", 2), ("respiratory_rate", 1)] {
        assert_eq!(row(&report, "no_signal", Some(metric))["alerts"], runs, "{metric}");
    }
    assert_eq!(row(&report, "temperature", None)["tried"], "no_values");
    assert_eq!(row(&report, "device_lost", None)["tried"], "not_recorded");
    // The row of minute 9 holds until minute 10: 15 s of delay, then 5 s to be sure that it is over.
    let low = "SpO2 88.0 %, below 90 %".to_owned();
    assert_eq!(alerts(&report, "spo2_low"), [(555.0, 605.0, low)]);
    // Minute 10 holds over the minutes that are missing.
    let high = row(&report, "heart_rate_high", None);
    assert_eq!((high["first_s"].as_f64(), high["total_s"].as_f64()), (Some(610.0), Some(895.0)));
    assert_eq!(report["longest_row_s"].as_f64(), Some(900.0));
    // Each silence is told 10 s after the last value was sent, but the first, which has no value before it.
    let silences: Vec<f64> = report["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|alert| alert["rule"] == "no_signal" && alert["metric"] == "spo2")
        .map(|alert| alert["start_s"].as_f64().unwrap())
        .collect();
    assert_eq!(silences, [10.0, 249.0, 429.0, 1509.0, 1629.0]);
}

#[test]
fn what_is_broken_in_a_recording_is_named_with_its_place_and_the_rest_is_tried() {
    let output = run(&["--replay", TRAPS]);
    assert_eq!(output.status.code(), Some(0));
    let told: Vec<String> = text(&output.stderr).lines().map(|line| line.replace(TRAPS, "FILE")).collect();
    assert_eq!(
        told,
        [
            "FILE: line 10, column SpO2: `9 5` is not a decimal number such as 36.4",
            "FILE: line 12: the time 8 is not later than that of the row before",
            "FILE: line 13: the time 6 is not later than that of the row before",
        ]
    );
    let shown = text(&output.stdout);
    assert!(shown.contains("15 rows, 00:00:00 to 00:28:01 (28 min 01 s)"), "{shown}");
    assert!(shown.contains("columns that nobody knows: Remark"), "{shown}");
    assert!(
        shown.contains("not tried, no value in the recording: news2_high, news2_medium, news2_single, temperature"),
        "{shown}"
    );
    let problems = json(&["--replay", TRAPS])["problems"].clone();
    assert_eq!(problems.as_array().unwrap().len(), 3, "{problems}");
    assert_eq!((&problems[0]["line"], &problems[0]["column"]), (&10.into(), &"SpO2".into()));

    for (csv, words) in [
        ("time,HR\n0,72\n", "`minute` or `t_s`"),
        ("t_s,HR\n", "no row can be played"),
        ("t_s,HR\nnoon,72\n", "line 2: `noon` is not a time"),
        ("t_s,HR\n0,72\n1e12,72\n", "more than 366 days"),
    ] {
        let (_dir, path) = file("r.csv", csv);
        let output = run(&["--replay", &path]);
        assert_eq!(output.status.code(), Some(64), "{csv}");
        assert!(text(&output.stderr).contains(words), "{csv}: {}", text(&output.stderr));
    }
    assert_eq!(run(&["--replay", "/nonexistent.csv"]).status.code(), Some(64));
}

#[test]
fn every_problem_of_a_rule_file_is_told_at_once_with_its_line_and_exits_with_78() {
    let broken = "[[rule]]\nid = \"a\"\nkind = \"physiological\"\npriority = \"medium\"\nmetric = \"spo3\"\nwhen = { below = 90 }\n\
        [[rule]]\nid = \"b\"\nkind = \"technical\"\npriority = \"urgent\"\nwhen = { no_valid_for = \"10s\" }\n";
    let (_dir, rules) = file("rules.toml", broken);
    let output = run(&["--rules", &rules, "--replay", TRAPS]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    for words in ["rules.toml:5: `spo3` is not a metric", "rules.toml:10: unknown variant `urgent`"] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(run(&["--rules", "/nonexistent.toml", "--replay", TRAPS]).status.code(), Some(78));
}

#[test]
fn a_rule_file_and_the_overrides_of_a_patient_are_what_is_tried() {
    let rules = "[[rule]]\nid = \"spo2_low\"\nmetric = \"spo2\"\nkind = \"physiological\"\npriority = \"medium\"\n\
        when = { below = 96 }\ndelay = \"5s\"\n\
        [patient.\"P-0001\".rule.spo2_low]\nwhen = { below = 80 }\nreason = \"COPD\"\nby = \"clinician-7\"\n\
        expires = \"2999-01-01T00:00:00Z\"\n";
    let (_dir, rules) = file("rules.toml", rules);
    for (patient, first, limit) in [
        (&[][..], Some(365.0), "below 96 %"),
        (&["--patient", "P-0001"], None, "below 80 %"),
        (&["--patient", "P-2"], Some(365.0), "below 96 %"),
    ] {
        let report = json(&[&["--rules", &rules, "--replay", TRAPS], patient].concat());
        let low = row(&report, "spo2_low", None);
        assert_eq!((low["first_s"].as_f64(), low["limit"].as_str()), (first, Some(limit)), "{patient:?}");
    }
}

#[test]
fn each_alarm_of_a_latched_alert_counts_and_what_lasts_to_the_end_is_open() {
    // Two falls below 80 %, and one that the recording cuts off; the high alert latches and nobody resets it.
    let csv = saturations(100, |second| if matches!(second, 10..20 | 50..60 | 90..) { "75" } else { "97" });
    let (_dir, path) = file("falls.csv", &csv);
    let report = json(&["--replay", &path, "--list"]);
    let desat: Vec<_> = alerts(&report, "spo2_desat").into_iter().map(|(start, end, _)| (start, end)).collect();
    assert_eq!(desat, [(10.0, 25.0), (50.0, 65.0), (90.0, 100.0)]);
    let open: Vec<&Json> = report["alerts"].as_array().unwrap().iter().filter(|alert| alert["open"] == true).collect();
    assert_eq!(open.len(), 1, "{open:?}");
    let desat = row(&report, "spo2_desat", None);
    assert_eq!((desat["total_s"].as_f64(), desat["longest_s"].as_f64()), (Some(40.0), Some(15.0)));
    assert_eq!(desat["share"].as_f64(), Some(0.4));
    // Ten seconds below 90 % are a near miss of a rule that waits for 15 s, and inhibited besides.
    assert_eq!(row(&report, "spo2_low", None)["alerts"], 0);
    let listed = text(&run(&["--replay", &path, "--list"]).stdout);
    let words: Vec<&str> = listed.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(words.join(" "), "00:01:30 00:01:40+ 10 s high spo2_desat SpO2 75 %, below 80 %", "{listed}");
}

#[test]
fn raw_limits_have_no_delay_no_hysteresis_and_no_inhibition() {
    // 97 %, then to and fro about the limit, then long enough far below it for every rule.
    let csv = saturations(100, |second| match second {
        20..40 if second % 2 == 0 => "89",
        20..40 => "90",
        40..70 => "75",
        _ => "97",
    });
    let (_dir, path) = file("flapping.csv", &csv);
    let report = json(&["--replay", &path, "--compare"]);
    let (low, desat) = (row(&report, "spo2_low", None), row(&report, "spo2_desat", None));
    let counts = |row: &Json| (row["alerts"].as_u64(), row["raw_limits"]["alerts"].as_u64());
    assert_eq!((counts(low), counts(desat)), ((Some(0), Some(11)), (Some(1), Some(1))));
    // Each dip is over before the delay; the long one is inhibited at once.
    assert_eq!(low["near_misses"], 10);
    // Ten dips of a second and one of thirty, each over at once; the rule itself waits 5 s before it is.
    assert_eq!(
        (low["raw_limits"]["total_s"].as_f64(), low["raw_limits"]["first_s"].as_f64()),
        (Some(40.0), Some(20.0))
    );
    assert_eq!((desat["raw_limits"]["total_s"].as_f64(), desat["total_s"].as_f64()), (Some(30.0), Some(35.0)));
}

#[test]
fn data_that_is_lost_during_an_alert_is_counted_apart() {
    let csv = saturations(120, |second| match second {
        10..40 => "85",
        40..80 => "0",
        _ => "97",
    });
    let (_dir, path) = file("lost.csv", &csv);
    let report = json(&["--replay", &path, "--list"]);
    let low = row(&report, "spo2_low", None);
    // From 25 s until the value is back at 80 s and has held for 5 s; unknown from 10 s after the last value at 39 s.
    assert_eq!((low["alerts"].as_u64(), low["total_s"].as_f64()), (Some(1), Some(60.0)));
    assert_eq!(low["without_data_s"].as_f64(), Some(31.0));
    // It too waits for 5 s before it is over.
    assert_eq!(row(&report, "no_signal", Some("spo2"))["total_s"].as_f64(), Some(36.0));
}
