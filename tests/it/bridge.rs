//! A running bridge for tests: the real binary, what it prints, and its orderly or sudden end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use vitalbridge::clock::{Clock, Mono};

/// A bridge must say where it listens within this time, also on a busy machine.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(30);

/// The time by which tests wait.
pub(crate) fn now() -> Mono {
    Clock::System.now().mono
}

/// The binary under test; another one by `VITALBRIDGE_BIN`, such as a release build for figures.
pub(crate) fn program() -> Command {
    let other = std::env::var_os("VITALBRIDGE_BIN");
    let mut command = Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_vitalbridge").into()));
    command.env_remove("VITALBRIDGE_LOG").env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    command
}

/// A running daemon; killed when dropped.
pub(crate) struct Bridge {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    /// What it said at its start.
    pub(crate) start: Vec<String>,
}

impl Bridge {
    /// Starts `vitalbridge` with these arguments and waits until it says where it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(arguments);
        Self::start_command(command)
    }

    /// Starts any command that ends as the daemon.
    pub(crate) fn start_command(mut command: Command) -> Self {
        command.stderr(Stdio::inherit());
        Self::start_command_with_its_errors(command)
    }

    /// The same with the standard error that the command has.
    pub(crate) fn start_command_with_its_errors(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (lines_in, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The receiver goes away once the bridge has started.
                let _ = lines_in.send(line);
            }
        });
        let deadline = now() + START_LIMIT;
        let (mut address, mut start) = (None, Vec::new());
        while let Ok(line) = lines.recv_timeout(deadline.since(now())) {
            if let Some((scheme, rest)) = line.split_once("://")
                && matches!(scheme, "vitalbridge: listening on http" | "vitalbridge: listening on https")
            {
                address = Some(rest.to_owned());
            }
            start.push(line);
            let line = start.last().map_or("", String::as_str);
            // The line after these two is the last of a start.
            if line.contains("Ctrl-C") || line.contains("to sign in") {
                break;
            }
        }
        let address = address.unwrap_or_else(|| {
            let _ = child.kill();
            panic!("the bridge did not start within {START_LIMIT:?}: {command:?}")
        });
        Self { child, address, start }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and gives its exit code.
    pub(crate) fn stop(self) -> Option<i32> {
        signal(self.pid(), "TERM");
        self.exit_code()
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        let deadline = now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(now() < deadline, "the bridge did not end within 20 s");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A token of the daemon with this state directory.
pub(crate) fn token(state_dir: &Path, arguments: &[&str]) -> String {
    let output = program()
        .args(["token", "issue", "--state-dir", state_dir.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits until `condition` gives something, at most `limit`; says `what` it waited for.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + limit;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(now() < deadline, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
