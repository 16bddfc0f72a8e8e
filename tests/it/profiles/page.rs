//! docs/profiles.md and docs/devices.md stay true: every snippet is read, the worked example runs, the table is counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value as Json;
use vitalbridge::decode::self_test;
use vitalbridge::profile::{Profile, built_in, built_in_ids};

/// What a snippet stands in, by the second word of its fence. The first message has no number, so that snippets can add
/// any.
const CONTEXTS: &[(&str, &str)] = &[
    (
        "driver",
        r#"schema = 1
id = "context"
name = "Context"
kind = "multi_parameter"
nominal_hz = 1
[serial]
settings = ["9600 8N1"]
[driver]
name = "medibus"
"#,
    ),
    (
        "packet",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 50
[serial]
settings = ["9600 8N1"]
[frame]
kind = "packet"
magic = "55 AA"
length_from = { at = 2, add = 2, min = 6, max = 20 }
checksum = { kind = "sum8-inverted", from = 2, to = -1, at = -1 }
[[message]]
id = "context"
[[test]]
"#,
    ),
    (
        "field",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 50
[serial]
settings = ["9600 8N1"]
[frame]
kind = "packet"
magic = "55 AA"
length = 20
lock = 2
[[message]]
id = "context"
[message.status]
sensor_alarm = { at = 2, bit = 0, maps = "sensor_off" }
[[message.state]]
name = "nibp_state"
at = 3
values = { 0 = "finished" }
[[test]]
"#,
    ),
    (
        "seven_bit",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 50
[serial]
settings = ["9600 8N1"]
[[message]]
id = "context"
[[test]]
"#,
    ),
    (
        "delimited",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 50
[serial]
settings = ["9600 8N1"]
[[message]]
id = "context"
[[test]]
"#,
    ),
    (
        "line",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 1
[serial]
settings = ["9600 8N1"]
[frame]
kind = "line"
end = ["\n"]
max = 80
[[message]]
id = "context"
match = '^X'
[[test]]
"#,
    ),
    (
        "gatt",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 1
tried_on_hardware = false
[ble]
match = [{ service = "1822" }]
stream = { service = "1822", notify = "2A5E" }
[[message]]
id = "context"
[[test]]
"#,
    ),
    (
        "superframe",
        r#"schema = 1
id = "context"
name = "Context"
kind = "pulse_oximeter"
nominal_hz = 75
[serial]
settings = ["9600 8N1"]
[frame]
kind = "packet"
length = 5
sync = [{ at = 0, value = 1 }]
checksum = { kind = "sum8" }
[superframe]
frames = 25
first = { at = 1, mask = 1, value = 1 }
slot_at = 3
[[message]]
id = "context"
on = "frame"
[[test]]
"#,
    ),
];

/// What every profile needs at its end; a snippet with a test takes the place of its own case.
const TESTS: &str = r#"[[test]]
name = "valid"
case = "valid"
text = "x"
beats = 1
[[test]]
name = "off"
case = "sensor_off"
text = "x"
expect = [{ spo2 = "sensor_off" }]
[[test]]
name = "corrupted"
case = "corrupted"
text = "x"
skipped_bytes = 1
"#;

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The TOML blocks of a page: the line they begin at, their context, their text.
fn snippets(page: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut inside: Option<(usize, String, String)> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (&mut inside, line.strip_prefix("```")) {
            (None, Some(fence)) if fence.starts_with("toml") => {
                let context = fence.strip_prefix("toml").unwrap().trim().to_owned();
                inside = Some((number + 1, context, String::new()));
            }
            (Some(_), Some(_)) => found.extend(inside.take()),
            (Some((_, _, text)), None) => text.extend([line, "\n"]),
            _ => {}
        }
    }
    found
}

/// The text in parts: what stands before the first header, and each table from its header on.
fn parts(text: &str) -> Vec<(String, String)> {
    let mut parts = vec![(String::new(), String::new())];
    for line in text.lines() {
        if line.starts_with('[') {
            let header = line.split(']').next().unwrap().to_owned();
            parts.push((header, String::new()));
        }
        let (_, text) = parts.last_mut().unwrap();
        text.extend([line, "\n"]);
    }
    parts
}

/// The context with the snippet's tables instead of its own. A snippet with a whole message replaces the context's; one
/// with parts of a message adds them to it.
fn in_context(context: &str, snippet: &str) -> String {
    let new = parts(snippet);
    let has = |header: &str| new.iter().any(|(other, text)| other == header && !text.trim().is_empty());
    let is_of_message = |header: &str| header.starts_with("[message") || header.starts_with("[[message");
    let tables = |wanted: &dyn Fn(&str) -> bool| {
        new.iter().filter(|(header, _)| wanted(header)).map(|(_, text)| text.as_str()).collect::<String>()
    };
    let mut text = String::new();
    if has("") {
        text += &tables(&str::is_empty);
    }
    let is_whole_message = has("[[message");
    for (header, old) in parts(context) {
        if header == "[[test" {
            continue;
        }
        let is_replaced = if is_of_message(&header) { is_whole_message || has(&header) } else { has(&header) };
        if !is_replaced {
            text += &old;
        }
    }
    text += &tables(&|header: &str| !header.is_empty() && !is_of_message(header) && header != "[[test");
    text += &tables(&is_of_message);
    text + TESTS + &tables(&|header: &str| header == "[[test")
}

/// The snippet, and once for each `# or: KEY = ..` the snippet with that line instead of the one above it.
fn alternatives(snippet: &str) -> Vec<String> {
    let lines: Vec<&str> = snippet.lines().collect();
    let mut all = vec![snippet.to_owned()];
    for (place, line) in lines.iter().enumerate() {
        let Some(other) = line.strip_prefix("# or: ") else { continue };
        let before = (0..place).rev().find(|earlier| !lines[*earlier].starts_with('#')).unwrap();
        let with = lines.iter().enumerate().map(|(at, line)| if at == before { other } else { line });
        all.push(with.collect::<Vec<_>>().join("\n") + "\n");
    }
    all
}

#[test]
fn every_snippet_of_the_page_is_right_in_its_place() {
    let page = page("profiles.md");
    let (mut count, mut variants) = (0, 0);
    for (line, context, snippet) in snippets(&page) {
        count += 1;
        if context == "complete" {
            continue;
        }
        let base = CONTEXTS.iter().find(|(name, _)| *name == context);
        let (_, base) = base.unwrap_or_else(|| panic!("docs/profiles.md:{line}: a snippet without a context"));
        for snippet in alternatives(&snippet) {
            variants += 1;
            let text = in_context(base, &snippet);
            if let Err(problems) = Profile::parse(&text) {
                panic!("docs/profiles.md:{line}:\n{problems}\nin\n{text}");
            }
        }
    }
    assert!(count >= 15 && variants >= count + 5, "{count} snippets, {variants} variants");
}

#[test]
fn the_snippet_check_can_fail() {
    let (_, base) = CONTEXTS.iter().find(|(name, _)| *name == "packet").unwrap();
    assert!(Profile::parse(&in_context(base, "[link]\nsilence = \"3s\"\n")).is_ok());
    for bad in ["[link]\nsilence = 3\n", "[link]\nsilent = \"3s\"\n", "[[message.field]]\nmetric = \"spo3\"\nat = 5\n"]
    {
        assert!(Profile::parse(&in_context(base, bad)).is_err(), "{bad}");
    }
}

#[test]
fn the_worked_example_passes_every_check() {
    let page = page("profiles.md");
    let complete: Vec<_> = snippets(&page).into_iter().filter(|(_, context, _)| context == "complete").collect();
    let [(line, _, text)] = complete.as_slice() else { panic!("one worked example, not {}", complete.len()) };
    let profile = Profile::parse(text).unwrap_or_else(|problems| panic!("docs/profiles.md:{line}:\n{problems}"));
    assert!(profile.warnings().is_empty(), "{}", profile.warnings());
    let failures = self_test::run(&Arc::new(profile));
    assert!(failures.is_empty(), "docs/profiles.md:{line}: {failures:#?}");
    // The commands that the page sends by hand are those of the profile.
    assert!(page.contains(r"printf '\xAA\x05\x01\x00\xB0'") && text.contains("AA 05 01 00 B0"));
}

/// How many vectors belong to a profile, and how many of them somebody captured.
fn vectors() -> BTreeMap<String, (usize, usize)> {
    let path = format!("{}/tests/vectors/serial.json", env!("CARGO_MANIFEST_DIR"));
    let file: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for vector in file["vectors"].as_array().unwrap() {
        // The 9560's commands stand with the format that they select.
        let protocol = match vector["id"].as_str().unwrap().strip_prefix("nonin-9560-setfmt-") {
            Some(format) => format!("nonin-df{format}"),
            None => vector["protocol"].as_str().unwrap().to_owned(),
        };
        let count = counts.entry(protocol).or_default();
        count.0 += 1;
        count.1 += usize::from(vector["kind"] == "real-capture");
    }
    counts
}

#[test]
fn the_table_of_devices_is_counted() {
    let vectors = vectors();
    let mut table = String::from(
        "| profile | devices | transport | source of its facts | tests | vectors | on hardware |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for id in built_in_ids() {
        let profile = built_in(id).unwrap().unwrap();
        let (all, captured) = vectors.get(id).copied().unwrap_or_default();
        let vectors = if captured == 0 { all.to_string() } else { format!("{all}, {captured} captured") };
        let (name, sources, tests) = (profile.name(), profile.sources().join("; "), profile.tests().len());
        let transport = match (profile.serial().is_some(), profile.ble().is_some()) {
            (true, true) => "serial, BLE",
            (true, false) => "serial",
            _ => "BLE",
        };
        let tried = if profile.is_tried_on_hardware() { "yes" } else { "no" };
        writeln!(table, "| `{id}` | {name} | {transport} | {sources} | {tests} | {vectors} | {tried} |").unwrap();
    }
    let page = page("devices.md");
    assert!(page.contains(&table), "docs/devices.md must hold this table:\n{table}");
}
