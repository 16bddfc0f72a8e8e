//! What the program exits with, through the binary: systemd and scripts go by these numbers; and what it tells the journal.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::bridge::{Bridge, eventually, program};

/// A folder that every user may look into, with a configuration.
fn configured(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("vitalbridge.toml");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

fn good(listen: &str) -> String {
    format!("[server]\nlisten = '{listen}'\n[store]\ndir = 'state'\n")
}

fn output(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// The program with the rights of nobody in particular.
fn as_nobody() -> Command {
    let own = program();
    if !rustix::process::geteuid().is_root() {
        return own;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(own.get_program());
    command.env_remove("VITALBRIDGE_LOG").env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    command
}

#[test]
fn each_exit_code_is_given_for_its_reason_and_the_reason_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (dir, file) = configured(&good(&taken.local_addr().unwrap().to_string()));
    let (_broken_dir, broken) = configured("[server]\nlisten = 5\n");
    let with = |command: &str, file: &Path| {
        let mut all = program();
        all.args([command, "--config", file.to_str().unwrap()]);
        all
    };
    assert_eq!(output(with("check", &file)).0, Some(0));
    let (code, said) = output(with("fly", &file));
    assert!(code == Some(64) && said.contains("unrecognized subcommand"), "{code:?} {said}");
    let (code, said) = output(with("run", &file));
    assert!(code == Some(70) && said.contains("another program has this port"), "{code:?} {said}");
    for command in ["check", "run"] {
        let (code, said) = output(with(command, &broken));
        assert!(code == Some(78) && said.contains("line 2"), "{command}: {code:?} {said}");
    }
    drop(dir);
}

#[test]
fn who_may_not_take_a_port_is_told_so_with_77_and_what_to_do() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let Some(port) = first.trim().parse::<u16>().unwrap().checked_sub(1).filter(|port| *port > 0) else {
        // Some containers give every port to everybody.
        return;
    };
    let (dir, file) = configured(&good(&format!("127.0.0.1:{port}")));
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&state, Some(65534), Some(65534)).unwrap();
    }
    let mut command = as_nobody();
    command.args(["run", "--config", file.to_str().unwrap()]);
    let (code, said) = output(command);
    assert_eq!(code, Some(77), "{said}");
    for told in [&format!("cannot listen on 127.0.0.1:{port}")[..], "use one above", "low-port.conf"] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn who_may_not_use_the_state_directory_is_told_so_with_77() {
    let (dir, file) = configured(&good("127.0.0.1:0"));
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mode = if rustix::process::geteuid().is_root() { 0o700 } else { 0 };
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
    for arguments in [&["run"][..], &["token", "issue"]] {
        let mut command = as_nobody();
        command.args(arguments).args(["--config", file.to_str().unwrap()]);
        let (code, said) = output(command);
        assert_eq!(code, Some(77), "{arguments:?}: {said}");
        assert!(said.contains(state.to_str().unwrap()) && said.contains("ermission denied"), "{arguments:?}: {said}");
    }
    // To look is no failure: what cannot be seen is a finding, with what to do.
    let mut command = as_nobody();
    let found = command.args(["doctor", "--json", "--config", file.to_str().unwrap()]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let denied =
        |one: &&serde_json::Value| one["advice"].as_str().is_some_and(|advice| advice.contains("run this with sudo"));
    assert!(report["findings"].as_array().unwrap().iter().any(|one| denied(&one)), "{report:#}");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// Runs the program where /etc/vitalbridge is a folder that may not be looked into, as a user without rights.
fn shut_out(arguments: &[&str], input: &str) -> Output {
    let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    // Root without capabilities is a user as any other.
    let script = format!(
        "mount -t tmpfs none /etc && mkdir -m 0 /etc/vitalbridge && \
         exec setpriv --inh-caps=-all --bounding-set=-all '{}' {}",
        program().get_program().to_str().unwrap(),
        words.join(" ")
    );
    let mut command = Command::new("unshare");
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    command.args([namespaces, "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // What is not read by the program is not needed by it.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn who_may_not_look_into_the_directory_of_profiles_has_the_built_in_ones_and_is_told() {
    let (dir, file) = configured(&good("127.0.0.1:0"));
    let own = dir.path().join("mine.toml");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/devices/nonin-df8.toml"), &own).unwrap();
    for (arguments, shown) in [
        (&["profile", "list"][..], "contec-v7"),
        (&["profile", "show", "contec-v7"], "contec-v7"),
        (&["profile", "check", own.to_str().unwrap()], "mine.toml"),
        (&["decode", "--profile", "contec-v7"], ""),
    ] {
        let output = shut_out(arguments, "");
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains(shown), "{arguments:?}: {said}{told}");
        assert!(told.contains("/etc/vitalbridge/devices: this user may not look into it"), "{arguments:?}: {told}");
    }
    // The daemon would be without the profiles that its sources name.
    for command in ["check", "run"] {
        let output = shut_out(&[command, "--config", file.to_str().unwrap()], "");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{command}: {told}");
        assert!(told.contains("cannot read the directory of profiles /etc/vitalbridge/devices"), "{command}: {told}");
    }
}

/// The fields of an entry in the journal's own form: `NAME=value`, or `NAME`, a length of 8 bytes and the value.
fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            found.insert(name.to_owned(), value.to_owned());
        } else {
            let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
            found.insert(line, String::from_utf8_lossy(&bytes[8..8 + length]).into_owned());
            bytes = &bytes[8 + length + 1..];
        }
    }
    found
}

#[tokio::test]
async fn under_systemd_the_journal_gets_fields_and_standard_error_gets_nothing() {
    let (dir, file) = configured(&good("127.0.0.1:0"));
    let journal = dir.path().join("systemd/journal");
    std::fs::create_dir_all(&journal).unwrap();
    let socket = UnixDatagram::bind(journal.join("socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    // In a mount namespace of its own the journal's socket is ours.
    let script = format!(
        "mount -t tmpfs none /run && mkdir /run/systemd && mount --bind '{}' /run/systemd && exec '{}' run --config '{}'",
        dir.path().join("systemd").display(),
        program().get_program().to_str().unwrap(),
        file.display()
    );
    let mut command = Command::new("unshare");
    let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    command.args([namespaces, "sh", "-c", &script]).env("JOURNAL_STREAM", "8:1").env_remove("NOTIFY_SOCKET");
    let errors = dir.path().join("errors");
    command.env_remove("VITALBRIDGE_LOG").stderr(std::fs::File::create(&errors).unwrap());
    let bridge = Bridge::start_command_with_its_errors(command);
    let mut entries: Vec<BTreeMap<String, String>> = Vec::new();
    let started = eventually("the start in the journal", Duration::from_secs(20), || {
        let mut bytes = vec![0; 65536];
        while let Ok(length) = socket.recv(&mut bytes) {
            entries.push(fields(&bytes[..length]));
        }
        entries
            .iter()
            .find(|entry| entry.get("MESSAGE").is_some_and(|message| message.starts_with("started ")))
            .cloned()
    });
    let started = started.await;
    // `journalctl -u vitalbridge` prints this and nothing else.
    let sentence = format!("started address={} bridge=vitalbridge ", bridge.address);
    assert!(started["MESSAGE"].starts_with(&sentence), "{started:?}");
    assert_eq!(started["SYSLOG_IDENTIFIER"], "vitalbridge");
    assert_eq!(started["PRIORITY"], "5", "tracing's info is the journal's notice: {started:?}");
    assert_eq!((started["F_BRIDGE"].as_str(), started["F_PATIENTS"].as_str()), ("vitalbridge", "0"), "{started:?}");
    assert_eq!(started["F_ADDRESS"], bridge.address);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(std::fs::read_to_string(&errors).unwrap(), "", "each line would be in the journal twice");
}

#[test]
fn a_configuration_that_may_not_be_read_is_a_missing_right_and_is_tried_again() {
    let (_dir, file) = configured(&good("127.0.0.1:0"));
    // As a file of root that somebody has copied there.
    let mode = if rustix::process::geteuid().is_root() { 0o600 } else { 0 };
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    for arguments in [&["run"][..], &["check"], &["token", "issue"]] {
        let mut command = as_nobody();
        command.args(arguments).args(["--config", file.to_str().unwrap()]);
        let (code, said) = output(command);
        assert_eq!(code, Some(77), "{arguments:?}: {said}");
        assert!(said.contains("ermission denied"), "{arguments:?}: {said}");
    }
    // One that is not there is wrong, whoever asks.
    let mut command = as_nobody();
    command.args(["run", "--config", "/nonexistent/vitalbridge.toml"]);
    assert_eq!(output(command).0, Some(78));
}

#[test]
fn a_database_of_a_newer_version_is_refused_by_check_as_by_run_and_no_start_is_tried_again() {
    let (dir, file) = configured(&good("127.0.0.1:0"));
    let with = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).args(["--config", file.to_str().unwrap()]);
        output(command)
    };
    assert_eq!(with(&["check"]).0, Some(0), "a store that is not there can be made");
    assert_eq!(Bridge::start(&["run", "--config", file.to_str().unwrap()]).stop(), Some(0));
    assert_eq!(with(&["check"]).0, Some(0));
    let database = rusqlite::Connection::open(dir.path().join("state/vitals.db")).unwrap();
    database.pragma_update(None, "user_version", 999).unwrap();
    drop(database);
    for arguments in [&["check"][..], &["check", "--json"], &["run"]] {
        let (code, said) = with(arguments);
        assert_eq!(code, Some(78), "{arguments:?}: {said}");
        assert!(said.contains("written by a newer vitalbridge (schema 999"), "{arguments:?}: {said}");
    }
}
