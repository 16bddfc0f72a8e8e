//! The package without building it: what it is made of, its manual pages and completions, the configuration that it brings, and
//! secrets that systemd hands over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::bridge::{Bridge, program};

#[expect(dead_code, reason = "its `main` belongs to the example that the package is built with")]
#[path = "../../packaging/manual.rs"]
mod manual;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn check(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vitalbridge.toml");
    fs::write(&file, text).unwrap();
    let mut command = program();
    command.args(["check", "--json", "--config"]).arg(&file).stdin(Stdio::null());
    command.env_remove("CREDENTIALS_DIRECTORY").output().unwrap()
}

#[test]
fn the_configuration_of_the_package_is_taken_without_a_warning_and_has_nobody_in_it() {
    let output = check(&read("packaging/vitalbridge.toml"));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(
        (&report["warnings"], &report["patients"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{report}"
    );
    let config: toml::Table = toml::from_str(&read("packaging/vitalbridge.toml")).unwrap();
    assert_eq!(config["server"]["listen"].as_str(), Some("127.0.0.1:8080"), "this machine alone");
    assert!(!config.contains_key("source"));
}

#[test]
fn each_line_that_the_configuration_of_the_package_offers_can_be_taken() {
    let offered: String = read("packaging/vitalbridge.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(code) if !code.is_empty() && !code.starts_with(' ') => format!("{code}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(offered.lines().filter(|line| line.starts_with("[[source]]")).count() == 2, "{offered}");
    // The files of others, such as the certificate, are not on this machine; nothing else may be wrong.
    let report: serde_json::Value = serde_json::from_slice(&check(&offered).stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    for problem in problems {
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("cannot read") || message.contains("cannot be read"), "{message}");
    }
    assert_eq!(problems.len(), 4, "the token secret, the certificate, its key, the password: {report}");
}

/// Every file below `folder` with its text.
fn made() -> (tempfile::TempDir, Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    manual::write(dir.path()).unwrap();
    let pages = fs::read_dir(dir.path().join("man1")).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
    });
    let pages = pages.collect();
    (dir, pages)
}

/// Each command below this one, with its words from the first.
fn commands(command: &clap::Command, words: &str, out: &mut Vec<(String, clap::Command)>) {
    out.push((words.to_owned(), command.clone()));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        commands(below, &format!("{words} {}", below.get_name()), out);
    }
}

#[test]
fn each_command_has_a_manual_page_with_each_of_its_options_and_the_shells_complete_them() {
    let mut all = Vec::new();
    commands(&vitalbridge::cli::command(), "vitalbridge", &mut all);
    assert!(all.len() > 15, "{}", all.len());
    let (dir, pages) = made();
    assert_eq!(pages.len(), all.len());
    let shell = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let (bash, zsh, fish) = (shell("vitalbridge.bash"), shell("_vitalbridge"), shell("vitalbridge.fish"));
    for (words, command) in all {
        let name = format!("{}.1", words.replace(' ', "-"));
        let (_, page) = pages.iter().find(|(file, _)| *file == name).unwrap_or_else(|| panic!("no page {name}"));
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            let shown = format!("\\-\\-{}", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "{name} does not show --{option}");
            for (shell, text) in [("bash", &bash), ("zsh", &zsh)] {
                assert!(text.contains(&format!("--{option}")), "{shell} does not complete --{option}");
            }
            assert!(fish.contains(&format!("-l {option}")), "fish does not complete --{option}");
        }
    }
    let (_, page) = pages.iter().find(|(file, _)| file == "vitalbridge.1").unwrap();
    for code in ["64", "69", "70", "77", "78"] {
        assert!(page.contains(&format!("\\fB{code}\\fR")), "vitalbridge.1 does not tell exit code {code}");
    }
}

#[test]
fn the_package_has_each_file_that_it_names_and_the_version_of_the_program() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().unwrap();
    let mut installed = Vec::new();
    for asset in assets {
        let (source, to) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        installed.push(to);
        // What is below target is made when the package is built.
        let (begin, end) = source.split_once('*').unwrap_or((source, ""));
        let (folder, begin) = begin.rsplit_once('/').unwrap();
        assert!(
            source.starts_with("target/")
                || fs::read_dir(root(folder)).unwrap().any(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    if source.contains('*') { name.starts_with(begin) && name.ends_with(end) } else { name == begin }
                }),
            "{source} is not there"
        );
    }
    for wanted in ["usr/lib/systemd/system/", "usr/lib/sysusers.d/vitalbridge.conf", "usr/lib/udev/rules.d/"] {
        assert!(installed.contains(&wanted), "{wanted}");
    }
    let changelog = read("packaging/deb/changelog");
    let expected = format!("vitalbridge ({}-{}) ", env!("CARGO_PKG_VERSION"), package["revision"].as_str().unwrap());
    assert!(changelog.starts_with(&expected), "packaging/deb/changelog does not begin with {expected}");
}

#[test]
fn the_package_scripts_are_sound_shell_and_only_a_purge_takes_data_away() {
    for name in ["preinst", "postinst", "prerm", "postrm"] {
        let path = root("packaging/deb").join(name);
        let checked = std::process::Command::new("sh").arg("-n").arg(&path).status().unwrap();
        assert!(checked.success(), "{name}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{name}");
        let before_purge = text.split("= purge ]").next().unwrap();
        assert!(!before_purge.contains("rm -"), "{name} removes something before a purge");
    }
    assert!(read("packaging/deb/postrm").contains("rm -rf /var/lib/vitalbridge /etc/vitalbridge\n"));
}

/// The JSON Web Token that `token issue` prints for this configuration and these credentials.
fn token_of(config: &Path, credentials: Option<&Path>) -> Output {
    let mut command = program();
    command.args(["token", "issue", "--config"]).arg(config).env_remove("CREDENTIALS_DIRECTORY");
    if let Some(credentials) = credentials {
        command.env("CREDENTIALS_DIRECTORY", credentials);
    }
    command.output().unwrap()
}

#[test]
fn the_token_secret_can_be_a_credential_of_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let (config, credentials) = (dir.path().join("vitalbridge.toml"), dir.path().join("credentials"));
    let text =
        "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[auth]\nsecret_file = 'credential:token.secret'\n";
    fs::write(&config, text).unwrap();
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("token.secret"), "0123456789abcdef0123456789abcdef\n").unwrap();

    let mut command = program();
    command.args(["run", "--config"]).arg(&config).env("CREDENTIALS_DIRECTORY", &credentials);
    let bridge = Bridge::start_command(command);
    let asked = |token: &[u8]| {
        let token = String::from_utf8(token.to_vec()).unwrap();
        let mut stream = std::net::TcpStream::connect(&bridge.address).unwrap();
        let request = format!(
            "GET /api/v1/patients HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            bridge.address,
            token.trim()
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    };
    let issued = token_of(&config, Some(&credentials));
    assert_eq!(asked(&issued.stdout), "HTTP/1.1 200 OK");
    assert!(!dir.path().join("state/token.secret").exists(), "no second secret is made");

    // Another secret signs nothing that this bridge takes.
    fs::write(credentials.join("token.secret"), "another secret, which is 32 bytes long\n").unwrap();
    assert_eq!(asked(&token_of(&config, Some(&credentials)).stdout), "HTTP/1.1 401 Unauthorized");
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn a_credential_that_is_not_there_is_told_with_its_line_and_never_made() {
    let dir = tempfile::tempdir().unwrap();
    let (config, credentials) = (dir.path().join("vitalbridge.toml"), dir.path().join("credentials"));
    fs::write(&config, "[auth]\nsecret_file = 'credential:token.secret'\n").unwrap();
    fs::create_dir(&credentials).unwrap();
    for place in [Some(credentials.as_path()), None] {
        let output = token_of(&config, place);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{told}");
        assert!(told.contains("line 2: ") && told.contains("LoadCredential=token.secret:FILE"), "{told}");
    }
    assert!(!credentials.join("token.secret").exists());
}

/// What docs/install.md and docs/operations.md tell a person to type and `tests/package/steps` does not run, with why.
const RUN_BY_NOBODY: &[(&str, &str)] = &[
    ("ssh ", "from another machine"),
    ("sudo apt update && sudo apt full-upgrade", "the network's packages"),
    ("sudo apt install bluez unattended-upgrades", "the network's packages"),
    ("sudo apt install ./vitalbridge_", "the same by apt-get without a question; the file has another name"),
    ("timedatectl ", "needs systemd"),
    ("bluetoothctl list ", "needs a radio"),
    ("sudo vitalbridge scan ", "needs a radio"),
    ("ls /dev/serial/by-id/ ", "needs an adapter"),
    ("sudoedit ", "asks a person"),
    ("journalctl ", "needs systemd"),
    ("sudo vitalbridge doctor ", "run there with another exit code: much is missing in a chroot"),
];

#[test]
fn each_command_of_the_books_is_run_as_it_stands_by_the_trial_of_the_package_or_named_here() {
    let steps = read("tests/package/steps");
    let mut excepted = std::collections::BTreeSet::new();
    let mut found = 0;
    for book in ["docs/install.md", "docs/operations.md"] {
        let text = read(book);
        for block in text.split("```sh\n").skip(1) {
            for line in block.split("```").next().unwrap().lines() {
                found += 1;
                let exception = RUN_BY_NOBODY.iter().find(|(begin, _)| line.starts_with(begin));
                excepted.extend(exception.map(|(begin, _)| *begin));
                assert!(
                    exception.is_some() || steps.lines().any(|step| step == line),
                    "{book}: nobody runs `{line}`: put it into tests/package/steps"
                );
            }
        }
    }
    assert!(found > 30, "{found}");
    assert_eq!(excepted.len(), RUN_BY_NOBODY.len(), "an exception for a line that is gone: {excepted:?}");
}

#[test]
fn each_alert_has_a_row_in_the_book_of_operations() {
    let book = read("docs/operations.md");
    let rules: toml::Table = toml::from_str(&read("src/alerts/default_rules.toml")).unwrap();
    let rules: Vec<&str> = rules["rule"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert!(rules.len() > 20, "{rules:?}");
    let conditions = vitalbridge::alerts::BridgeCondition::ALL.iter().map(|condition| condition.name());
    for id in rules.into_iter().chain(conditions) {
        let row = book
            .lines()
            .find(|line| line.starts_with("| ") && line.split(" | ").next().unwrap().contains(&format!("`{id}`")));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for the alert {id}"));
        assert!(row.split(" | ").nth(2).is_some_and(|todo| todo.len() > 20), "{id}: nothing to do in {row}");
    }
}
