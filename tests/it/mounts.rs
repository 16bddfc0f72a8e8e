//! Tests that mount something: where this process may do so, else as root of a user namespace of their own.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Says that a test runs in a namespace in which it may mount.
const INSIDE: &str = "VITALBRIDGE_TEST_MAY_MOUNT";

/// The file in which `tests/run` looks for the names of tests that this machine does not allow.
const SKIPPED: &str = "VITALBRIDGE_TEST_SKIPPED";

fn may_mount(unshare: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args([unshare, "mount", "-t", "tmpfs", "vitalbridge-test"]).arg(folder.path());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// True if the test `name` may go on here. False: it has been run as root of a namespace, and has passed there; or nobody may
/// mount on this machine, which `tests/run` tells in its last lines.
pub(crate) fn are_allowed_here(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() || may_mount("-m") {
        return true;
    }
    if may_mount("-rm") {
        let mut again = Command::new("unshare");
        again.arg("-rm").arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
        let status = again.env(INSIDE, "1").status().unwrap();
        assert!(status.success(), "{name} in a user namespace: {status}");
        return false;
    }
    let words = format!("SKIPPED: {name}: this machine lets nobody but root mount, and has no user namespaces");
    println!("{words}");
    if let Some(file) = std::env::var_os(SKIPPED) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{words}").unwrap();
    }
    false
}
