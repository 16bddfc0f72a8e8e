//! A real Mosquitto for tests: on a port of its own, killed and started again at will, remembering its sessions.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bridge::now;

/// It must listen within this time.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Two looks at whether it listens are this far apart.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running broker.
pub(crate) struct Broker {
    config: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    /// Starts one whose files lie in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_on(folder, free_port())
    }

    /// The same on a port that was chosen before.
    pub(crate) fn start_on(folder: &Path, port: u16) -> Self {
        // Everything is written at each change, so that a killed broker knows its subscriber's session again.
        let memory = format!(
            "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n",
            folder.join("mosquitto").display()
        );
        Self::start_with(folder, port, &memory)
    }

    /// Starts one that writes nothing to the disk.
    pub(crate) fn without_memory(folder: &Path) -> Self {
        Self::start_with(folder, free_port(), "persistence false\n")
    }

    fn start_with(folder: &Path, port: u16, memory: &str) -> Self {
        let data = folder.join("mosquitto");
        std::fs::create_dir_all(&data).unwrap();
        let config = folder.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\nuser root\nmax_queued_messages 0\n{memory}"
        );
        std::fs::write(&config, text).unwrap();
        let mut broker = Self { config, port, process: None };
        broker.restart();
        broker
    }

    /// Where it listens on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        let mut command = Command::new("/usr/sbin/mosquitto");
        command.arg("-c").arg(&self.config).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("mosquitto is installed by tests/run"));
        let deadline = now() + START_LIMIT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(now() < deadline, "mosquitto does not listen on {}", self.port);
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nothing listens on. It is none of those that the system gives to whoever asks for any (Linux: from 32768 on),
/// so that nobody takes it while a broker that was killed is away.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(15_000..32_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
