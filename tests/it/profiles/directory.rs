//! A directory of profiles beside the built-in ones: `check`, `run`, `decode` and `profile` with it.

use std::process::{Output, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::bridge::{Bridge, program, token};
use crate::dashboard::Dashboard;
use crate::oximeter::Oximeter;

const SHOWN: &str = include_str!("../../../devices/nonin-df8.toml");

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A profile of ours, one that replaces a built-in one, a broken one, and a configuration that uses some of them.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.dir.path().join("devices")).unwrap();
        site.write("devices/acme-ox1.toml", &SHOWN.replace("id = \"nonin-df8\"", "id = \"acme-ox1\""));
        site.write("devices/nonin-df8.toml", &SHOWN.replace("name = \"Nonin", "name = \"OUR Nonin"));
        site
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Two mistakes, at lines 3 and 7, and one more file whose syntax is broken.
    fn with_broken(self) -> Self {
        let broken = SHOWN
            .replace("id = \"nonin-df8\"", "id = \"acme-bad\"")
            .replace("nominal_hz = 1", "nominal_hz = -1")
            .replace("9600 8N1", "9600 8X1");
        self.write("devices/acme-bad.toml", &broken);
        self.write("devices/acme-worse.toml", "schema = 1\nid = \n");
        self
    }

    fn config(&self, sources: &[(&str, &str)]) -> String {
        let on_ports: Vec<_> = sources.iter().map(|(id, profile)| (*id, format!("/dev/{id}"), *profile)).collect();
        self.config_on(&on_ports)
    }

    fn config_on(&self, sources: &[(&str, String, &str)]) -> String {
        let mut text = String::from("[profiles]\ndir = \"devices\"\n");
        for (id, port, profile) in sources {
            let source = format!("id = \"{id}\"\nkind = \"serial\"\nport = \"{port}\"\nprofile = \"{profile}\"\n");
            text = text + "[[source]]\n" + &source;
        }
        self.write("vitalbridge.toml", &text);
        self.path("vitalbridge.toml")
    }
}

#[test]
fn check_names_the_profiles_of_the_directory_and_what_they_replace() {
    let site = Site::new();
    let config = site.config(&[("s1", "acme-ox1"), ("s2", "nonin-df8")]);
    let output = run(&["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.contains(&format!("profile acme-ox1 ({})\n", site.path("devices/acme-ox1.toml"))), "{out}");
    let replaced = format!("profile nonin-df8 ({}), replaces the built-in one\n", site.path("devices/nonin-df8.toml"));
    assert!(out.contains(&replaced), "{out}");
}

#[test]
fn check_tells_every_broken_file_at_once_and_exits_with_78() {
    let site = Site::new().with_broken();
    // Nothing uses the broken ones; the configuration itself is right.
    let config = site.config(&[("s1", "acme-ox1")]);
    let output = run(&["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(78));
    let notes = text(&output.stderr);
    for expected in [
        format!("{}:5: nominal_hz -1 must be above 0", site.path("devices/acme-bad.toml")),
        format!("{}:9: `9600 8X1` is not a line setting", site.path("devices/acme-bad.toml")),
        format!("{}:2: ", site.path("devices/acme-worse.toml")),
    ] {
        assert!(notes.lines().any(|line| line.starts_with(&expected)), "{expected}\n{notes}");
    }
    // With a problem of the configuration beside them, all are told.
    let config = site.config(&[("s1", "acme-ox9")]);
    let notes = text(&run(&["check", "--config", &config]).stderr);
    assert!(notes.contains("there is no profile `acme-ox9`; near are acme-ox1"), "{notes}");
    assert!(notes.contains("acme-bad.toml:5: "), "{notes}");
    let json = run(&["check", "--json", "--config", &config]);
    assert_eq!(json.status.code(), Some(78));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert!(report["profiles"].as_array().unwrap().len() >= 3, "{report}");
    assert_eq!(report["replaced"][0]["id"], "nonin-df8");
}

#[test]
fn a_directory_that_is_not_there_is_a_problem_only_if_it_was_named() {
    let site = Site::new();
    site.write("vitalbridge.toml", "[profiles]\ndir = \"nowhere\"\n");
    let output = run(&["check", "--config", &site.path("vitalbridge.toml")]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("line 2: cannot read the directory of profiles"), "{}", text(&output.stderr));
    site.write("vitalbridge.toml", "");
    assert_eq!(run(&["check", "--config", &site.path("vitalbridge.toml")]).status.code(), Some(0));
}

#[test]
fn the_commands_for_profiles_look_into_the_directory() {
    let site = Site::new().with_broken();
    let devices = site.path("devices");
    let list = text(&run(&["profile", "list", "--devices", &devices]).stdout);
    assert!(list.contains("acme-ox1\n    Nonin 9560, WristOx2"), "{list}");
    assert!(list.contains("acme-bad\n    BROKEN"), "{list}");
    assert!(list.contains("nonin-df8.toml, replaces the built-in one\n"), "{list}");
    let json = run(&["profile", "list", "--json", "--devices", &devices]);
    let list: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let of = |id: &str| list.as_array().unwrap().iter().find(|row| row["id"] == id).unwrap().clone();
    assert_eq!((&of("nonin-df8")["replaces"], &of("acme-ox1")["replaces"]), (&true.into(), &false.into()));
    assert_eq!(of("acme-ox1")["metrics"], serde_json::json!(["pulse_rate", "spo2"]));
    assert_eq!(of("acme-bad")["problems"].as_array().unwrap().len(), 2);
    let shown = text(&run(&["profile", "show", "nonin-df8", "--devices", &devices]).stdout);
    assert!(shown.contains("OUR Nonin"), "{shown}");
    let decoded = run(&["decode", "--profile", "acme-ox1", "--devices", &devices, "--hex", "81 02 60 00 80 48 61 01"]);
    assert_eq!(text(&decoded.stdout).lines().count(), 4, "{}", text(&decoded.stderr));
    let refused = run(&["decode", "--profile", "acme-bad", "--devices", &devices, "--hex", "00"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused.stderr).contains("8X1"), "{}", text(&refused.stderr));
    let checked = run(&["profile", "check", "--devices", &devices]);
    assert_eq!(checked.status.code(), Some(78));
    assert!(text(&checked.stdout).contains("nonin-df2: ok ("), "{}", text(&checked.stdout));
    assert!(text(&checked.stderr).contains("acme-bad.toml:9: `9600 8X1`"), "{}", text(&checked.stderr));
    let all = vitalbridge::profile::built_in_ids().count() + 3;
    let counted = format!("2 of {all} profiles have problems");
    assert!(text(&checked.stderr).contains(&counted), "{}", text(&checked.stderr));
    let none = run(&["profile", "list", "--devices", "/nonexistent"]);
    assert_eq!(none.status.code(), Some(64));
    assert!(text(&none.stderr).contains("/nonexistent"), "{}", text(&none.stderr));
}

#[test]
fn a_path_is_shown_and_a_directory_leads_to_its_option() {
    let site = Site::new();
    site.write("odd.toml", SHOWN);
    let shown = run(&["profile", "show", &site.path("odd.toml")]);
    assert_eq!((shown.status.code(), text(&shown.stdout)), (Some(0), SHOWN.to_owned()), "{}", text(&shown.stderr));
    let missing = run(&["profile", "show", &site.path("nowhere.toml")]);
    assert_eq!(missing.status.code(), Some(64));
    assert!(text(&missing.stderr).contains("nowhere.toml"), "{}", text(&missing.stderr));
    site.write("large.toml", &"#".repeat(vitalbridge::profile::MAX_PROFILE_BYTES + 1));
    let large = run(&["profile", "show", &site.path("large.toml")]);
    assert_eq!((large.status.code(), large.stdout.len()), (Some(64), 0), "{}", text(&large.stderr));
    let devices = site.path("devices");
    let advice = format!("Is a directory: use --devices {devices}");
    let checked = run(&["profile", "check", &devices]);
    assert_eq!(checked.status.code(), Some(78));
    let named = ["profile", "show", &devices];
    let decoded = ["decode", "--profile", &devices, "--hex", "00"];
    for output in [checked, run(&named), run(&decoded)] {
        assert!(text(&output.stderr).contains(&advice), "{}", text(&output.stderr));
    }
}

#[test]
fn check_of_profiles_speaks_json_and_exits_with_78() {
    let site = Site::new().with_broken();
    let bad = site.path("devices/acme-bad.toml");
    let output = run(&["profile", "check", "--json", &site.path("devices/acme-ox1.toml"), &bad]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["profiles"][0]["ok"], true);
    assert_eq!(report["profiles"][0]["tests"], SHOWN.matches("[[test]]").count());
    assert_eq!(report["profiles"][1]["problems"][0]["line"], 5);
    let good = run(&["profile", "check", "nonin-df2"]);
    assert_eq!((good.status.code(), text(&good.stdout)), (Some(0), "nonin-df2: ok (5 tests)\n".to_owned()));
    let unknown = run(&["profile", "check", "nonin-df9"]);
    assert_eq!(unknown.status.code(), Some(64));
}

#[test]
fn a_warning_is_told_and_is_no_problem() {
    let site = Site::new();
    let battery = "low_battery = { at = 3, bit = 0, maps = \"low_battery\" }\n";
    let odd = SHOWN.replace(battery, &format!("{battery}odd = {{ at = 3, bit = 0, maps = \"low_battery\" }}\n"));
    site.write("odd.toml", &odd);
    let output = run(&["profile", "check", &site.path("odd.toml")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = odd.lines().position(|line| line.starts_with("odd =")).unwrap() + 1;
    let words = "warning: status `odd` reads bit 0 of byte 3, as status `low_battery` does";
    let expected = format!("odd.toml:{line}: {words}");
    assert!(text(&output.stderr).contains(&expected), "{}", text(&output.stderr));
}

#[test]
fn a_new_profile_is_written_once_and_leads_to_its_check() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acme-ox1.toml").display().to_string();
    let output = run(&["profile", "new", "--kind", "capnograph", "--frame", "line", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&format!("vitalbridge profile check {file}")), "{}", text(&output.stdout));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("id = \"acme-ox1\"") && written.contains("etco2"), "{written}");
    let checked = run(&["profile", "check", &file]);
    assert_eq!(checked.status.code(), Some(78));
    let marked = written.lines().filter(|line| line.contains("FILL:") && !line.starts_with('#')).count();
    assert_eq!(text(&checked.stderr).matches("still to be filled in").count(), marked);
    assert!(text(&output.stdout).contains(&format!(": {marked} places are marked")), "{}", text(&output.stdout));
    // Whatever is there already is somebody's work.
    std::fs::write(&file, "mine").unwrap();
    let again = run(&["profile", "new", &file]);
    assert_eq!(again.status.code(), Some(64));
    assert!(text(&again.stderr).contains("exists"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let misnamed = run(&["profile", "new", &dir.path().join("Acme.toml").display().to_string()]);
    assert!(text(&misnamed.stderr).contains("a-z 0-9 -; name another with --id"), "{}", text(&misnamed.stderr));
    let named = run(&["profile", "new", "--id", "acme", &dir.path().join("Acme.toml").display().to_string()]);
    assert_eq!(named.status.code(), Some(0), "{}", text(&named.stderr));
    let kind = run(&["profile", "new", "--kind", "toaster", &dir.path().join("t.toml").display().to_string()]);
    assert!(text(&kind.stderr).contains("pulse_oximeter, blood_pressure"), "{}", text(&kind.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_profile_stops_the_source_that_names_it_and_no_other() {
    let site = Site::new().with_broken();
    let ours = include_str!("../../../devices/nonin-df2.toml").replace("id = \"nonin-df2\"", "id = \"acme-ox2\"");
    site.write("devices/acme-ox2.toml", &ours);
    let oximeter = Oximeter::start(site.dir.path().join("ttyOX"));
    let port = oximeter.path().display().to_string();
    let config = site.config_on(&[("good", port, "acme-ox2"), ("bad", "/dev/ttyBAD".to_owned(), "acme-bad")]);
    let state = site.path("state");
    let bridge = Bridge::start(&["run", "--config", &config, "--listen", "127.0.0.1:0", "--state-dir", &state]);
    let bearer = format!("Bearer {}", token(&site.dir.path().join("state"), &[]));
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    dashboard.say(&json!({"type": "subscribe", "channels": ["#"], "delivery": "all"})).await;
    let (mut is_live, mut is_told) = (false, false);
    while !(is_live && is_told) {
        let message = dashboard.next().await;
        is_live |= message["data"]["device_id"] == "good" && message["data"]["value"].is_number();
        // Blamed are the file and the line, also for whoever looks at the page alone.
        is_told |= message.to_string().contains("acme-bad.toml:5: nominal_hz -1");
    }
    assert_eq!(bridge.stop(), Some(0));
}
