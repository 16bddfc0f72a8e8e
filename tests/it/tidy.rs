//! The house rules that a compiler does not know: layers, one owner a library, words, and documents that stay true.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules, lowest first. A module uses only modules that stand before it.
#[rustfmt::skip] // A line a few names, whatever their length.
const ORDER: &[&str] = &[
    // Layer 0: words of the field.
    "named", "clock", "ids", "secret", "backoff", "vitals", "record", "event", "patient",
    "timeline", // Layer 1: pure.
    "document", "derive", "signal_times", "wire", "waveform", "channel", "command", "filter", "profile", "decode", "encode",
    "alerts", "notifier", "summary", "rooms", // Layer 2: services for tasks.
    "metrics", "host", "timedate", "systemd", "logging", "tasks", "fallback",
    "bluez", // Layer 3: edges in and down.
    "sources", "emulator", "store", // Layer 4: the heart.
    "outbox", "hub", "desk", "pipeline", // Layer 5: edges out.
    "server", "uplink", // Layer 6: the composition root and the commands.
    "config", "doctor", "daemon", "support", "cli",
];

/// The last pure module: up to it no tokio, no files, no sockets. `clock` alone reads the time.
const LAST_PURE: &str = "rooms";

/// A library and the only place that knows it.
const OWNERS: &[(&str, &str)] = &[
    ("btleplug", "src/sources/ble/radio.rs"),
    ("zbus", "src/bluez/"),
    ("zbus", "src/timedate.rs"),
    ("rumqttc", "src/uplink/mqtt/"),
    ("rumqttc_v4", "src/uplink/mqtt/v4.rs"),
    ("rusqlite", "src/store/"),
    ("tokio_serial", "src/sources/"),
    ("jsonwebtoken", "src/server/jwt.rs"),
    ("sd_notify", "src/systemd.rs"),
    ("rcgen", "src/server/tls.rs"),
    ("socket2", "src/server/accept.rs"),
];

/// Names that say nothing about a file's job.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "base", "types", "misc", "core"];

/// More code than this, unit tests aside, is more than one job.
const MAX_LINES: usize = 900;

/// More tests than this in one file are not found again.
const MAX_TEST_LINES: usize = 1500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `folder`, with its path from the root and its text.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(folder), &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect()
}

/// The top-level module of a file; `None` for lib.rs and main.rs.
fn module_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then_some(name)
}

/// Lines outside comments and outside the unit tests at the end of a file.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let until = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..until].lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The modules that a line names by `crate::`.
fn uses(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, _) in line.match_indices("crate::") {
        let rest = &line[start + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split([',', '}']).map(str::trim).collect(),
            None => vec![rest],
        };
        for name in names {
            let end =
                name.find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())).unwrap_or(name.len());
            if end > 0 {
                found.push(name[..end].to_owned());
            }
        }
    }
    found
}

/// Every use of a module that does not stand before the user, as `file: user uses used`.
fn violations(files: &[(String, String)]) -> Vec<String> {
    let place: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(place, name)| (*name, place)).collect();
    let mut found = Vec::new();
    for (path, text) in files {
        let Some(user) = module_of(path) else { continue };
        let Some(user_place) = place.get(user) else {
            found.push(format!("{path}: `{user}` stands in no layer"));
            continue;
        };
        for used in code(text).flat_map(uses) {
            match place.get(used.as_str()) {
                Some(used_place) if used_place < user_place || used == user => {}
                Some(_) => found.push(format!("{path}: {user} uses {used}")),
                None => found.push(format!("{path}: {user} uses {used}, which stands in no layer")),
            }
        }
    }
    found
}

#[test]
fn a_module_uses_only_what_stands_before_it() {
    assert_eq!(violations(&rust_files("src")), Vec::<String>::new());
}

#[test]
fn the_layer_check_can_fail() {
    let file = |path: &str, text: &str| vec![(path.to_owned(), text.to_owned())];
    assert_eq!(violations(&file("src/hub.rs", "use crate::pipeline::Control;")), ["src/hub.rs: hub uses pipeline"]);
    assert_eq!(
        violations(&file("src/store/a.rs", "let x = crate::server::run();")),
        ["src/store/a.rs: store uses server"]
    );
    assert_eq!(violations(&file("src/new.rs", "")), ["src/new.rs: `new` stands in no layer"]);
    assert_eq!(violations(&file("src/hub.rs", "use crate::{event::Event, daemon};")), ["src/hub.rs: hub uses daemon"]);
}

#[test]
fn the_pure_layers_do_not_touch_the_world() {
    let last = ORDER.iter().position(|name| *name == LAST_PURE).unwrap();
    let worldly = ["tokio", "std::fs", "std::net", "std::thread", "std::process", "std::env", "rustix", "getrandom"];
    for (path, text) in rust_files("src") {
        let pure = module_of(&path).is_some_and(|module| ORDER[..=last].contains(&module) && module != "clock");
        for line in code(&text).filter(|_| pure) {
            for word in worldly {
                assert!(!line.contains(word), "{path} is pure and must not know {word}: {line}");
            }
        }
    }
}

#[test]
fn a_library_has_one_owner() {
    for (path, text) in rust_files("src") {
        for (library, owner) in OWNERS {
            let named = code(&text).any(|line| line.contains(&format!("{library}::")));
            let may = OWNERS.iter().any(|(known, owner)| known == library && path.starts_with(owner));
            assert!(!named || may, "{path} knows {library}; only {owner} may");
        }
    }
}

#[test]
fn every_file_says_its_job_and_has_one() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in rust_files(folder) {
            assert!(text.starts_with("//! "), "{path} does not open with a sentence that says its job");
            let is_test = folder == "tests" || path.ends_with("/tests.rs");
            let own = if is_test { &text } else { text.split("#[cfg(test)]\nmod tests").next().unwrap() };
            let most = if is_test { MAX_TEST_LINES } else { MAX_LINES };
            assert!(own.lines().count() <= most, "{path} has more than {most} lines");
            let name = Path::new(&path).file_stem().unwrap().to_str().unwrap();
            assert!(!EMPTY_NAMES.contains(&name), "{path}: a name that says nothing");
        }
    }
}

#[test]
fn main_stays_small() {
    let (_, text) = rust_files("src").into_iter().find(|(path, _)| path == "src/main.rs").unwrap();
    assert!(text.lines().count() < 60);
}

#[test]
fn the_architecture_names_every_module_and_every_queue() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for module in ORDER {
        let named = architecture.contains(&format!("`{module}`")) || architecture.contains(&format!("`{module}/`"));
        assert!(named, "ARCHITECTURE.md does not name the module {module}");
    }
    // The table of queues names each bound by its constant; a constant that has gone is a stale row.
    let all: String = rust_files("src").into_iter().map(|(_, text)| text).collect();
    let table = architecture.split("## Queues").nth(1).expect("a section Queues");
    let table = table.split("\n## ").next().unwrap();
    let constants = table.split('`').filter(|part| {
        part.len() > 3 && part.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
    });
    let mut count = 0;
    for constant in constants {
        count += 1;
        assert!(
            all.contains(&format!("const {constant}:")),
            "the bound {constant} of ARCHITECTURE.md is not in the code"
        );
    }
    assert!(count >= 8, "the table of queues has only {count} bounds");
}

#[test]
fn each_fuzz_target_has_its_command_in_contributing() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let (package, page) = (read("fuzz/Cargo.toml"), read("CONTRIBUTING.md"));
    let targets: Vec<&str> =
        package.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(targets.len() >= 4, "{targets:?}");
    for target in targets {
        assert!(
            page.contains(&format!("fuzz run -s none {target} ")),
            "CONTRIBUTING.md does not say how to run {target}"
        );
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    fn documents(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name == "docs" || name == "decisions") {
                documents(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                out.push(path);
            }
        }
    }
    let mut all = Vec::new();
    documents(&root(), &mut all);
    assert!(all.len() > 5);
    for document in all {
        let text = fs::read_to_string(&document).unwrap();
        for (start, _) in text.match_indices("](") {
            let target = text[start + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(document.parent().unwrap().join(file).exists(), "{}: {target} leads nowhere", document.display());
        }
    }
}
