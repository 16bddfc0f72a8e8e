//! `vitalbridge decode` and `vitalbridge profile`.

use std::io::Write;

use clap::Parser;
use vitalbridge::cli::{decode, profile};

#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    sub: Sub,
}

#[derive(clap::Subcommand)]
enum Sub {
    Decode(decode::Args),
    Profile(profile::Args),
}

/// Runs a command line; standard output, standard error, and the error.
fn run(line: &[&str], input: &[u8]) -> (String, String, Option<String>) {
    let command = match Command::try_parse_from(std::iter::once("vitalbridge").chain(line.iter().copied())) {
        Ok(command) => command,
        Err(error) => return (String::new(), String::new(), Some(error.to_string())),
    };
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let result = match command.sub {
        Sub::Decode(args) => decode::run(&args, &mut &*input, &mut out, &mut notes),
        Sub::Profile(args) => profile::run(&args, &mut out, &mut notes),
    };
    let error = result.err().map(|error| format!("{error:#}"));
    (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap(), error)
}

#[test]
fn bytes_given_as_hex_become_readings() {
    let line = ["decode", "--profile", "contec-v7", "--hex", "01 E0 85 B3 96 C1 E1 FF FF"];
    let (out, notes, error) = run(&line, &[]);
    assert_eq!(error, None);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert_eq!((&lines[0]["metric"], &lines[0]["value"]), (&"pulse_rate".into(), &65.into()));
    assert_eq!((&lines[1]["metric"], &lines[1]["value"]), (&"spo2".into(), &97.into()));
    assert_eq!(lines[2]["value"], serde_json::Value::Null);
    assert_eq!(lines[2]["absent"], "not_measured");
    assert_eq!(notes, "1 frames, 0 with a wrong checksum, 0 bytes skipped, 0 resyncs\n");
}

#[test]
fn a_characteristic_becomes_readings() {
    let (out, _, error) = run(&["decode", "--characteristic", "2A37", "--hex", "103b5304"], &[]);
    assert_eq!(error, None);
    assert_eq!(
        out,
        concat!(
            r#"{"metric":"heart_rate","value":59,"unit":"bpm","ucum":"/min","quality":"valid","mdc":147842,"loinc":"8867-4"}"#,
            "\n",
            r#"{"metric":"rr_interval","value":1081.1,"unit":"ms","ucum":"ms","quality":"valid","intervals":[1081.1],"mdc":147240}"#,
            "\n"
        )
    );
}

#[test]
fn a_file_and_standard_input_are_read_and_waves_are_shown_on_request() {
    let bytes = [0x01, 0xE0, 0x85, 0xB3, 0x96, 0xC1, 0xE1, 0xFF, 0xFF].repeat(30);
    let (from_input, _, error) = run(&["decode", "--profile", "contec-v7", "-"], &bytes);
    assert_eq!((from_input.lines().count(), error), (90, None));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let path = file.path().to_str().unwrap();
    let (from_file, _, error) = run(&["decode", "--profile", "contec-v7", path], &[]);
    assert_eq!((&from_file, error), (&from_input, None));
    let (with_waves, _, _) = run(&["decode", "--profile", "contec-v7", "--waves", path], &[]);
    let wave: serde_json::Value =
        serde_json::from_str(with_waves.lines().find(|line| line.contains("\"wave\"")).unwrap()).unwrap();
    assert_eq!((&wave["wave"], &wave["hz"]), (&"pleth".into(), &60.0.into()));
    assert_eq!(wave["samples"].as_array().unwrap().len(), 15);
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    for (line, expected) in [
        (
            &["decode", "--profile", "nonin-df9", "--hex", "00"][..],
            "there is no profile `nonin-df9`; the nearest are nonin-df",
        ),
        (&["decode", "--profile", "contec-v7", "--hex", "0"], "--hex: there are 1 hexadecimal digits"),
        (&["decode", "--profile", "contec-v7", "--hex", "0x"], "--hex: `x` is not a hexadecimal digit"),
        (&["decode", "--profile", "contec-v7", "/does/not/exist"], "open /does/not/exist: No such file"),
        (&["decode", "--profile", "/does/not/exist.toml", "--hex", "00"], "open /does/not/exist.toml: No such file"),
        (
            &["decode", "--characteristic", "2A38", "--hex", "00"],
            "characteristic `2A38` is not known; known are 2A35, 2A37",
        ),
        (&["decode", "--characteristic", "2A37", "--hex", "00"], "heart rate packet has 1 byte, needs 2"),
        (&["decode", "--hex", "00"], "required"),
        (&["decode", "--characteristic", "2A37"], "--hex"),
        (&["profile", "show", "nonin"], "there is no profile `nonin`; the nearest are nonin-df2"),
    ] {
        let error = run(line, &[]).2.unwrap_or_else(|| panic!("{line:?} is no mistake"));
        assert!(error.contains(expected), "{line:?}: {error}");
    }
}

#[test]
fn built_in_profiles_are_listed_shown_and_pass_their_check() {
    let (list, _, error) = run(&["profile", "list"], &[]);
    assert_eq!(error, None);
    assert!(list.contains("contec-v7\n") && list.contains("115200 8N1; pulse_rate, spo2, perfusion_index"), "{list}");
    let (text, _, _) = run(&["profile", "show", "nonin-df2"], &[]);
    assert!(text.starts_with("schema = 1\nid = \"nonin-df2\""), "{text}");
    let (out, notes, error) = run(&["profile", "check"], &[]);
    assert_eq!((error, notes.as_str()), (None, ""));
    assert!(out.contains("nonin-df2: ok (5 tests)\n"), "{out}");
}

#[test]
fn every_problem_of_a_profile_is_told_with_its_line() {
    let good = run(&["profile", "show", "nonin-df2"], &[]).0;
    let bad = good
        .replace("9600 8N1", "9600 9N1")
        .replace("at = 3, bit", "at = 3, bot")
        .replace("metric = \"spo2\"", "metric = \"spo3\"")
        .replace("bit = 0, width = 7", "bit = 0, width = 9")
        .replace("bit = 4, maps = \"signal_lost\"", "bit = 4, maps = \"signal_lots\"");
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(bad.as_bytes()).unwrap();
    let (out, notes, error) = run(&["profile", "check", file.path().to_str().unwrap()], &[]);
    assert_eq!((out.as_str(), error.as_deref()), ("", Some("1 of 1 profiles have problems")));
    for expected in [
        "`9600 9N1` is not a line setting",
        "`spo3` is not a metric; the nearest is `spo2`",
        "do not lie in one byte",
        "`signal_lots` is not a status; the nearest is `signal_lost`",
    ] {
        let line = notes.lines().find(|line| line.contains(expected)).unwrap_or_else(|| panic!("{expected}:\n{notes}"));
        let place = line.strip_prefix(file.path().to_str().unwrap()).unwrap().split(':').nth(1).unwrap();
        let blamed = bad.lines().nth(place.parse::<usize>().unwrap() - 1).unwrap();
        assert!(!blamed.trim().is_empty(), "{line} blames an empty line");
    }
}

#[test]
fn a_profile_whose_test_does_not_hold_is_refused() {
    let good = run(&["profile", "show", "nonin-df2"], &[]).0;
    let bad = good.replace("expect = [{ pulse_rate = 130, spo2 = 96 }]", "expect = [{ pulse_rate = 131, spo2 = 96 }]");
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(bad.as_bytes()).unwrap();
    let (_, notes, error) = run(&["profile", "check", file.path().to_str().unwrap()], &[]);
    assert!(error.is_some());
    assert!(notes.contains("pulse_rate must be 131, is 130"), "{notes}");
}
