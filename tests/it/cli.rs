//! The commands as a person or a script meets them: what they say, and what they exit with.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::bridge::{Bridge, eventually, program, token};

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn root(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Writes a configuration and runs a command on it.
fn with_config(command: &str, text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vitalbridge.toml");
    std::fs::write(&file, text).unwrap();
    run(&[command, "--config", file.to_str().unwrap()])
}

const BROKEN: &str = r#"[bridge]
id = "a bridge"
colour = "red"
[server]
listen = "here"
[mqtt]
broker = "http://broker"
password_file = "/nonexistent/password"
[[patient]]
id = "P-1"
[[patient]]
id = "P-1"
[[source]]
id = "s1"
kind = "serial"
port = "ttyUSB0"
profile = "contec-v8"
patient = "P-9"
[[source]]
id = "s2"
kind = "telepathy"
[[source]]
id = "s3"
kind = "replay"
speed = 0
"#;

#[test]
fn every_problem_of_a_configuration_is_reported_at_once_with_its_line() {
    for command in ["check", "run"] {
        let output = with_config(command, BROKEN);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let text = stderr(&output);
        for (line, words) in [
            (2, "`a bridge` is not an identifier"),
            (3, "unknown field `colour`"),
            (5, "`here` is not an address"),
            (7, "is not the address of a broker"),
            (8, "cannot read the password file"),
            (12, "the patient `P-1` is there twice"),
            (18, "no [[patient]] with the id `P-9`"),
            (21, "`telepathy` is not a kind of source"),
            (24, "needs `file`"),
            (25, "speed is 0"),
        ] {
            let found = text.lines().any(|found| found.starts_with(&format!("line {line}: ")) && found.contains(words));
            assert!(found, "{command}: line {line}, {words}, in:\n{text}");
        }
    }
    // What hangs on the unknown patient is said once that is right.
    let text = stderr(&with_config("check", &BROKEN.replace("P-9", "P-1")));
    assert!(text.contains("line 16: `ttyUSB0` is not a port"), "{text}");
    assert!(text.contains("line 17: there is no profile `contec-v8`; near are contec-v7"), "{text}");
}

#[test]
fn two_sources_share_neither_a_device_nor_a_strap() {
    let text = r#"
[[source]]
id = "s1"
kind = "replay"
file = "a.csv"
device = "ox-1"
[[source]]
id = "s2"
kind = "replay"
file = "b.csv"
device = "ox-1"
[[source]]
id = "ox-1"
kind = "replay"
file = "c.csv"
[[source]]
id = "strap-1"
kind = "ble"
address = "A0:9E:1A:00:00:0B"
[[source]]
id = "strap-2"
kind = "ble"
address = "a0:9e:1a:00:00:0b"
[[source]]
id = "strap-3"
kind = "ble"
name = "Polar H10"
[[source]]
id = "strap-4"
kind = "ble"
name = "Polar H10"
"#;
    let output = with_config("check", text);
    assert_eq!(output.status.code(), Some(78));
    let found = stderr(&output);
    let expected = [
        "line 11: the device `ox-1` belongs to the source `s1` already",
        "line 13: the device `ox-1` belongs to the source `s1` already",
        "line 23: the strap A0:9E:1A:00:00:0B belongs to the source `strap-1` already",
        "line 31: the strap `Polar H10` belongs to the source `strap-3` already",
    ];
    assert_eq!(found.lines().skip(1).collect::<Vec<_>>(), expected, "{found}");
}

#[test]
fn an_override_for_a_patient_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rules = std::fs::read_to_string(root("docs/examples/rules.toml")).unwrap();
    std::fs::write(dir.path().join("rules.toml"), rules.replace("P-0001", "P-0010")).unwrap();
    let file = dir.path().join("vitalbridge.toml");
    let text = "[alerts]\nrules = 'rules.toml'\n[[patient]]\nid = 'P-0001'\n";
    std::fs::write(&file, text).unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78), "{}", stdout(&output));
    let found = stderr(&output);
    let place = found.lines().find(|line| line.starts_with("line 2: ")).unwrap_or_else(|| panic!("{found}"));
    assert!(place.contains("rules.toml, line 3: ") && place.contains("no [[patient]] with the id `P-0010`"), "{found}");

    std::fs::write(&file, text.replace("P-0001", "P-0010")).unwrap();
    assert_eq!(run(&["check", "--config", file.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn check_speaks_json_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, BROKEN).unwrap();
    let output = run(&["check", "--json", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ok"], false);
    assert!(report["problems"].as_array().unwrap().len() >= 10, "{report}");
    assert_eq!(report["problems"][0]["line"], 2);
}

#[test]
fn the_example_of_the_documents_is_right_and_its_limits_are_explained() {
    let output = run(&["check", "--config", &root("docs/examples/vitalbridge.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("no problem found"), "{text}");
    let rules = std::fs::read_to_string(root("docs/examples/rules.toml")).unwrap();
    let line = rules.lines().position(|line| line.ends_with("rule.spo2_low]")).unwrap() + 1;
    let place = format!("rules.toml:{line}, by clinician-7 until 20");
    let own = text.lines().find(|text| text.contains("spo2_low: spo2 below 86 % for 15 s, medium [override, "));
    assert!(own.is_some_and(|own| own.contains(&place)), "{place}: {text}");
    assert!(text.contains("spo2_low: spo2 below 90 % for 15 s, medium [default set]"), "{text}");

    let example = root("docs/examples/vitalbridge.toml");
    let one = run(&["check", "--json", "--patient", "P-0001", "--config", &example]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&one)).unwrap();
    assert_eq!(report["patients"].as_array().unwrap().len(), 1, "{report}");
    let limits = report["patients"][0]["limits"].as_array().unwrap();
    let low = limits.iter().find(|limit| limit["rule"] == "spo2_low").unwrap();
    assert_eq!((&low["source"], low["line"].as_u64()), (&"override".into(), u64::try_from(line).ok()), "{low}");
    assert_eq!(low["summary"], "below 86 % for 15 s");
    let nobody = run(&["check", "--patient", "P-9999", "--config", &example]);
    assert_eq!(nobody.status.code(), Some(78));
    assert!(stderr(&nobody).contains("has no patient P-9999"), "{}", stderr(&nobody));
}

#[test]
fn wrong_calls_exit_with_64_and_say_what_to_do() {
    for (arguments, words) in [
        (&["fly"][..], "unrecognized subcommand"),
        (&["token", "issue", "--for", "25h"], "1s to 24h"),
        (&["token", "issue", "--role", "king"], "viewer, nurse"),
        (&["decode", "--profile", "contec-v8", "--hex", "00"], "contec-v7"),
        (&["decode", "--profile", "contec-v7", "--hex", "0"], "hex"),
        (&["decode", "--profile", "contec-v7", "/nonexistent"], "/nonexistent"),
        (&["replay", "/nonexistent.csv"], "/nonexistent.csv"),
        (&["replay", "x.csv", "--speed", "0"], "0.01 to 86400"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("r.csv");
    std::fs::write(&recording, "time,HR\n0,72\n").unwrap();
    let output = run(&["replay", recording.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("`minute` or `t_s`"), "{}", stderr(&output));
    assert_eq!(run(&["check", "--config", "/nonexistent.toml"]).status.code(), Some(78));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn every_command_has_a_help_with_an_example() {
    for command in
        ["demo", "run", "check", "token", "decode", "profile", "replay", "emulate", "doctor", "support-bundle"]
    {
        let text = stdout(&run(&[command, "--help"]));
        assert!(text.contains("Example"), "{command}: {text}");
    }
    let text = stdout(&run(&["alerts", "test", "--help"]));
    assert!(text.contains("Example"), "{text}");
}

#[test]
fn the_readings_of_the_documents_decode() {
    let documents = ["README.md", "docs/gatt.md"].map(|name| std::fs::read_to_string(root(name)).unwrap()).concat();
    let mut count = 0;
    let commands = documents.lines().filter(|line| line.starts_with("vitalbridge decode ") && line.contains("--hex "));
    for line in commands {
        let arguments: Vec<String> = split(line.strip_prefix("vitalbridge ").unwrap());
        let output = program().args(&arguments).output().unwrap();
        assert!(output.status.success(), "{line}: {}", stderr(&output));
        for reading in stdout(&output).lines() {
            let reading: serde_json::Value = serde_json::from_str(reading).unwrap();
            // A payload ends with what it says beside its readings.
            if reading.get("payload").is_some() {
                continue;
            }
            assert!(reading["metric"].is_string() && reading.get("value").is_some(), "{reading}");
            count += 1;
        }
    }
    assert!(count >= 10, "the documents show {count} readings");
}

#[test]
fn a_profile_of_ones_own_is_named_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root("devices/nonin-df2.toml")).unwrap();
    std::fs::write(dir.path().join("mine.toml"), text.replace("id = \"nonin-df2\"", "id = \"mine\"")).unwrap();
    let file = dir.path().join("vitalbridge.toml");
    let config = |profile: &str| {
        std::fs::write(
            &file,
            format!("[[source]]\nid = 's'\nkind = 'serial'\nport = '/dev/x'\nprofile = '{profile}'\n"),
        )
        .unwrap();
        run(&["check", "--config", file.to_str().unwrap()])
    };
    let good = config("mine.toml");
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    let untrue = text.replace("pulse_rate = 130, spo2 = 96", "pulse_rate = 131, spo2 = 96");
    std::fs::write(dir.path().join("untrue.toml"), untrue).unwrap();
    let refused = stderr(&config("untrue.toml"));
    assert!(refused.contains("the profile untrue.toml, line") && refused.contains("must be 131, is 130"), "{refused}");
    let missing = config("other.toml");
    assert!(stderr(&missing).contains("line 5: cannot read the profile"), "{}", stderr(&missing));
    std::fs::write(dir.path().join("mine.toml"), "schema = 1\ncolour = 1\n").unwrap();
    let broken = stderr(&config("mine.toml"));
    assert!(broken.contains("line 5: the profile mine.toml, line 2: unknown field `colour`"), "{broken}");
}

/// Words of a command line, with double quotes.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}

#[test]
fn every_vitalbridge_command_of_the_documents_exists() {
    let mut seen = 0;
    for document in [
        "README.md",
        "docs/alerts.md",
        "docs/ble.md",
        "docs/config.md",
        "docs/gatt.md",
        "docs/profiles.md",
        "docs/protocol.md",
        "docs/mqtt.md",
    ] {
        let text = std::fs::read_to_string(root(document)).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("vitalbridge ")) {
            let command = line.split_whitespace().next().unwrap();
            let output = run(&[command, "--help"]);
            assert!(output.status.success(), "{document}: there is no `vitalbridge {command}`");
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} commands are shown");
}

fn demo_arguments<'a>(listen: &'a str, state: &'a Path) -> [&'a str; 5] {
    ["demo", "--listen", listen, "--state-dir", state.to_str().unwrap()]
}

#[tokio::test]
async fn a_port_in_use_and_a_state_directory_in_use_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start(&demo_arguments("127.0.0.1:0", dir.path()));
    let other = tempfile::tempdir().unwrap();
    let output = run(&demo_arguments(&bridge.address, other.path()));
    assert_eq!(output.status.code(), Some(70));
    assert!(stderr(&output).contains("another program has this port"), "{}", stderr(&output));

    let output = run(&demo_arguments("127.0.0.1:0", dir.path()));
    assert_eq!(output.status.code(), Some(70));
    let text = stderr(&output);
    assert!(text.contains("in use by another vitalbridge") && text.contains(&bridge.pid().to_string()), "{text}");
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn ctrl_c_ends_a_demo_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let bridge = Bridge::start(&demo_arguments("127.0.0.1:0", dir.path()));
    let database = dir.path().join("vitals.db-wal");
    eventually("something in the log", Duration::from_secs(20), || {
        std::fs::metadata(&database).ok().filter(|file| file.len() > 0)
    })
    .await;
    crate::bridge::signal(bridge.pid(), "INT");
    assert_eq!(bridge.exit_code(), Some(0));
    // A checkpointed database has nothing left beside it.
    assert!(std::fs::metadata(&database).map_or(0, |file| file.len()) == 0);
}

#[test]
fn a_token_of_the_command_line_is_private_to_its_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let issued = token(dir.path(), &["--role", "viewer", "--for", "1h"]);
    assert_eq!(issued.split('.').count(), 3);
    let mode = std::fs::metadata(dir.path().join("token.secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_sign_in_link_leads_to_where_the_daemon_listens() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "a secret of more than thirty-two bytes").unwrap();
    let file = dir.path().join("vitalbridge.toml");
    for (listen, given, link) in [
        ("192.0.2.7:8081", "", "http://192.0.2.7:8081/#code="),
        ("0.0.0.0:8081", "", "http://127.0.0.1:8081/#code="),
        ("[::]:8081", "", "http://[::1]:8081/#code="),
        ("0.0.0.0:8081", "127.0.0.1:9999", "http://127.0.0.1:9999/#code="),
        ("127.0.0.1:0", "", ""),
    ] {
        let text = format!("[server]\nlisten = '{listen}'\n[store]\ndir = '.'\n[auth]\nsecret_file = 'secret'\n");
        std::fs::write(&file, text).unwrap();
        let mut arguments = vec!["token", "code", "--config", file.to_str().unwrap()];
        if !given.is_empty() {
            arguments.extend(["--listen", given]);
        }
        let output = run(&arguments);
        let text = stdout(&output);
        let code = text.lines().next().and_then(|line| line.strip_prefix(link));
        let is_code = code.is_some_and(|code| code.len() == 32 && code.chars().all(|c| c.is_ascii_hexdigit()));
        assert!(is_code, "{listen} {given}: {text}{}", stderr(&output));
        assert_eq!(text.contains("free port"), link.is_empty(), "{text}");
    }
}

#[test]
fn what_root_makes_for_the_daemon_belongs_to_the_daemon() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    // Anybody but root owns both anyway.
    let _ = chown(dir.path(), Some(4711), Some(4712));
    let _secret = token(dir.path(), &[]);
    let output = run(&["token", "code", "--state-dir", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    let made: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is_made = |begin: &str| made.iter().any(|path| path.file_name().unwrap().to_str().unwrap().starts_with(begin));
    assert!(is_made("token.secret") && is_made("sign-in-"), "{made:?}");
    for path in made {
        assert_eq!(owner(&path), owner(dir.path()), "{}", path.display());
    }
}
