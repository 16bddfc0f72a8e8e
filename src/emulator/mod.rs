//! An emulated device at a pseudo terminal or a TCP port: for tests, and for people without the hardware.
//!
//! [`machine`] decides what the device sends; [`run`] gives it a port and the time. The bytes come from the device's
//! own profile ([`crate::encode`]), so whatever reads the device reads the emulated one.

mod conversation;
pub mod faults;
pub mod machine;
mod patient;
pub mod scenario;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Mono};
use crate::encode::EncodeError;
use crate::profile::Profile;
use crate::sources::simulator::pty::{EmulatedPort, PtyError};
use machine::{Doing, Emulator, Totals};
use scenario::Scenario;

/// The device is moved on this often.
const TICK: Duration = Duration::from_millis(10);
/// Bytes that are read from a TCP connection at a time.
const READ_BUFFER: usize = 1024;
/// A host that takes no bytes for so long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the device is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// A pseudo terminal behind a link.
    Pty(PathBuf),
    /// A TCP address, as of a terminal server; one host at a time.
    Tcp(SocketAddr),
}

/// Why an emulated device ended.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// There is something else at the path of the link.
    #[error("{} is there already: choose another path, or remove it", .0.display())]
    Taken(PathBuf),
    /// The pseudo terminal.
    #[error(transparent)]
    Pty(#[from] PtyError),
    /// The address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        error: std::io::Error,
    },
    /// What is wanted cannot be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// The port at one moment.
enum Line {
    Pty(Box<EmulatedPort>),
    Tcp { listener: TcpListener, host: Option<TcpStream> },
}

/// Runs a device until `stop`; tells `on_ready` where it is reached, as the `port` of a configuration.
///
/// # Errors
/// The port cannot be made, or the profile cannot send what the patient or the scenario has.
pub async fn run(
    profile: &Arc<Profile>,
    port: &Port,
    scenario: Scenario,
    seed: u64,
    clock: &Clock,
    stop: &CancellationToken,
    on_ready: impl FnOnce(&str),
) -> Result<Totals, EmulatorError> {
    let mut emulator = Emulator::new(profile, scenario, seed, clock.now().mono)?;
    let (mut line, address) = Line::open(port).await?;
    on_ready(&address);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // While the cable is out: when it comes back.
    let mut lost_until: Option<Mono> = None;
    loop {
        tokio::select! {
            biased;
            // Ctrl-C.
            () = stop.cancelled() => return Ok(emulator.totals()),
            // A hundredth of a second is over.
            _ = tick.tick() => {}
        }
        let now = clock.now().mono;
        if lost_until.is_some_and(|until| now >= until) {
            lost_until = None;
            line.plug()?;
            emulator.plugged(now);
        }
        let is_open = lost_until.is_none() && line.is_open(&mut emulator, now).await;
        for doing in emulator.advance(is_open, now)? {
            match doing {
                Doing::Send(bytes) => line.send(&bytes).await,
                Doing::HangUp(pause) => {
                    line.unplug();
                    lost_until = Some(now + pause);
                }
            }
        }
    }
}

impl Line {
    /// Opens the port, and says how a configuration names it.
    async fn open(port: &Port) -> Result<(Self, String), EmulatorError> {
        match port {
            Port::Pty(link) => {
                if !is_free(link) {
                    return Err(EmulatorError::Taken(link.clone()));
                }
                let mut port = EmulatedPort::new(link.clone());
                port.plug()?;
                Ok((Self::Pty(Box::new(port)), link.display().to_string()))
            }
            Port::Tcp(address) => {
                let failed = |error| EmulatorError::Listen { address: *address, error };
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let found = listener.local_addr().map_err(failed)?;
                Ok((Self::Tcp { listener, host: None }, format!("tcp://{found}")))
            }
        }
    }

    /// True if a host has the port open. What it has sent goes to the device.
    async fn is_open(&mut self, emulator: &mut Emulator, now: Mono) -> bool {
        match self {
            Self::Pty(port) => {
                let commands = port.received();
                if !commands.is_empty() {
                    emulator.hear(&commands, now);
                }
                port.is_open()
            }
            Self::Tcp { listener, host } => {
                if host.is_none() {
                    *host = accept(listener).await;
                    if host.is_some() {
                        emulator.plugged(now);
                    }
                }
                if let Some(stream) = host {
                    match read(stream) {
                        Some(commands) => emulator.hear(&commands, now),
                        None => *host = None,
                    }
                }
                host.is_some()
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Pty(port) => port.send(bytes),
            Self::Tcp { host, .. } => {
                let Some(stream) = host else { return };
                let sent = tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(bytes)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    tracing::debug!("the host has gone, or takes no bytes");
                    *host = None;
                }
            }
        }
    }

    fn unplug(&mut self) {
        match self {
            Self::Pty(port) => port.unplug(),
            Self::Tcp { host, .. } => *host = None,
        }
    }

    fn plug(&mut self) -> Result<(), EmulatorError> {
        match self {
            Self::Pty(port) => Ok(port.plug()?),
            Self::Tcp { .. } => Ok(()),
        }
    }
}

/// True if a link can be made there: nothing is, or a link that leads nowhere any more.
fn is_free(link: &Path) -> bool {
    match link.symlink_metadata() {
        Ok(found) => found.is_symlink() && !link.exists(),
        Err(_) => true,
    }
}

/// A host that waits to be let in, if there is one.
async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    tokio::select! {
        biased;
        // Somebody is there.
        accepted = listener.accept() => match accepted {
            Ok((stream, _)) => {
                // Frames are small, and their time matters.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "small frames may come late");
                }
                Some(stream)
            }
            Err(error) => {
                tracing::warn!(%error, "a host could not connect");
                None
            }
        },
        // Nobody is.
        () = std::future::ready(()) => None,
    }
}

/// What a host has sent; `None`: it has gone.
fn read(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut buffer = vec![0; READ_BUFFER];
    match stream.try_read(&mut buffer) {
        Ok(0) => None,
        Ok(count) => {
            buffer.truncate(count);
            Some(buffer)
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(Vec::new()),
        Err(_) => None,
    }
}
