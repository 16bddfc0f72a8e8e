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
            "\n",
            r#"{"payload":"2A37","name":"Heart Rate Measurement","details":{},"rfu_bits":0,"trailing_bytes":0,"raw":"103b5304"}"#,
            "\n"
        )
    );
}

/// The lines of a payload.
fn lines_of(line: &[&str]) -> Vec<serde_json::Value> {
    let (out, notes, error) = run(line, &[]);
    assert_eq!((notes.as_str(), error), ("", None), "{line:?}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_failed_measurement_is_an_event_with_what_it_is_blamed_on() {
    let lines = lines_of(&["decode", "--characteristic", "2A35", "--hex", "1aff07ff07ff07e807060f11111b010200"]);
    assert_eq!(
        lines[0].to_string(),
        concat!(
            r#"{"absent":"not_a_number","causes":["cuff_too_loose"],"device_time":"2024-06-15T17:17:27","#,
            r#""event":"measurement_failed","metric":"blood_pressure"}"#
        )
    );
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["user"], &lines[1]["status"][0]), (&1.into(), &"cuff_too_loose".into()));
    let control = lines_of(&["decode", "--characteristic", "0x2a18", "--hex", "020100e407030e17170070b01a"]);
    assert_eq!(
        (control.len(), &control[0]["event"], &control[1]["record"]),
        (2, &"control_solution".into(), &1.into())
    );
}

#[test]
fn a_whole_uuid_and_the_quirks_of_a_model_are_understood() {
    let pulse = |line: &[&str]| lines_of(line)[1].to_string();
    let uuid = "00002a35-0000-1000-8000-00805f9b34fb";
    // The flags of another model of the family, by which it is not known.
    let hex = "14710049000000004101 0004";
    let plain = pulse(&["decode", "--characteristic", uuid, "--hex", hex]);
    assert!(plain.contains(r#""quality":"implausible""#) && plain.contains(r#""value":2560000"#), "{plain}");
    let by_model = pulse(&["decode", "--characteristic", uuid, "--profile", "beurer-bm85", "--hex", hex]);
    assert!(by_model.contains(r#""quality":"questionable""#) && by_model.contains(r#""value":65"#), "{by_model}");
    let own = "0aad7ea0-0d60-11e2-8e3c-0002a5d5c51b";
    let lines =
        lines_of(&["decode", "--characteristic", own, "--profile", "nonin-3230", "--hex", "0a151e05320007620048"]);
    assert_eq!((&lines[0]["metric"], &lines[0]["value"]), (&"spo2".into(), &98.into()));
}

#[test]
fn advertisements_and_records_are_decoded_too() {
    let scale = lines_of(&["decode", "--service-data", "181D", "--hex", "229e43e507040b101301"]);
    assert_eq!((&scale[0]["metric"], &scale[0]["device_time"]), (&"weight".into(), &"2021-04-11T16:19:01".into()));
    let strap = lines_of(&["decode", "--manufacturer-data", "006B", "--hex", "3b1b5452"]);
    assert_eq!((&strap[0]["metric"], &strap[0]["value"]), (&"heart_rate".into(), &82.into()));
    let cuff = lines_of(&["decode", "--record", "omron-le", "--hex", "6558541a331ade1800004c00ba00"]);
    assert_eq!((&cuff[0]["components"]["systolic"], &cuff[0]["quality"]), (&126.into(), &"historic".into()));
}

#[test]
fn payloads_are_read_one_a_line_and_a_bad_one_does_not_stop_the_others() {
    let input = b"# a strap\n103b5304\n\n00\nzz\n16 4d 16 03\n";
    let (out, notes, error) = run(&["decode", "--characteristic", "2A37"], input);
    assert_eq!(out.lines().filter(|line| line.contains(r#""metric":"heart_rate""#)).count(), 2);
    assert_eq!(
        notes,
        "line 4: heart rate packet has 1 byte, needs 2: heart rate at byte 1 is cut\nline 5: `z` is not a hexadecimal digit\n"
    );
    assert_eq!(error.as_deref(), Some("2 of 4 payloads could not be decoded"));
    let long = run(&["decode", "--characteristic", "2A37"], &[b'0'; 4096]).2.unwrap();
    assert_eq!(long, "line 1 is longer than 2048 bytes, which no payload is");
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
            &["decode", "--characteristic", "2A00", "--hex", "00"],
            "characteristic `2A00` is not known; known are 2A08 Date Time, 2A0F Local Time Information, 2A18 Glucose",
        ),
        (
            &["decode", "--characteristic", "0aad7ea0-0d60-11e2-8e3c-0002a5d5c51b", "--hex", "00"],
            "is a maker's own: name the model by --profile nonin-3230",
        ),
        (
            &[
                "decode",
                "--characteristic",
                "0aad7ea0-0d60-11e2-8e3c-0002a5d5c51b",
                "--profile",
                "nonin-3230",
                "--hex",
                "00",
            ],
            "there is no whole frame of profile nonin-3230 in 1 bytes",
        ),
        (
            &["decode", "--record", "omron", "--hex", "00"],
            "record `omron` is not known; known are microlife (Microlife",
        ),
        (&["decode", "--service-data", "FE95", "--hex", "00"], "service data of 0xFE95 is not known"),
        (&["decode", "--manufacturer-data", "polar", "--hex", "00"], "`polar` is no number of 16 bits such as 181D"),
        (&["decode", "--record", "omron-le", "--profile", "contec-v7", "--hex", "00"], "cannot be used with"),
        (
            &["decode", "--record", "tempsitter", "--hex", "aa0611003e0d0063"],
            "Temp Sitter packet has the checksum 0x0063, must have 0x0062",
        ),
        (&["decode", "--characteristic", "2A37", "--hex", "00"], "heart rate packet has 1 byte, needs 2"),
        (&["decode", "--hex", "00"], "required"),
        (&["decode", "--characteristic", "2A37"], "there is no payload: give one with --hex"),
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
