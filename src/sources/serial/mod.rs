//! A monitor at a serial port, or at a TCP port that carries one: what is configured, and one session after the other.

pub mod console;
mod identity;
mod line_errors;
pub(super) mod orders;
mod place;
mod port;
mod session;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::clock::Mono;
use crate::event::LinkState;
use crate::profile::Profile;
use crate::profile::model::LineSettings;

use super::output::{SourceCounters, SourceOutput};
use super::{Memory, SourceError, next_order};

pub use identity::Bound;
pub use place::{BadPort, STABLE_NAMES, SerialPort, is_number_of_the_moment, stable_names};

use identity::Guard;
use session::{Ended, Session};

/// A monitor at a port.
#[derive(Debug, Clone)]
pub struct SerialConfig {
    /// Where it is.
    pub port: SerialPort,
    /// How it speaks.
    pub profile: Arc<Profile>,
    /// Its line settings, if they are not to be found out among those of the profile. Unused over TCP.
    pub settings: Option<LineSettings>,
    /// The serial number that the device must tell, if it tells one. Without it, the first one heard is expected from
    /// then on.
    pub serial_number: Option<String>,
    /// Commands of the profile that actuate and may be sent all the same, when a person asks for them.
    pub allow_commands: BTreeSet<String>,
}

impl SerialConfig {
    /// A monitor about which no more is known than its port and its profile.
    pub const fn new(port: SerialPort, profile: Arc<Profile>) -> Self {
        Self { port, profile, settings: None, serial_number: None, allow_commands: BTreeSet::new() }
    }

    /// The line settings that are tried in turn. `None` stands for a TCP connection, which has none.
    fn candidates(&self) -> Result<Vec<Option<LineSettings>>, SourceError> {
        if matches!(self.port, SerialPort::Tcp { .. }) {
            return Ok(vec![None]);
        }
        let serial = self.profile.serial();
        let serial = serial.ok_or_else(|| SourceError::NoSerialLine { profile: self.profile.id().to_owned() })?;
        match self.settings {
            Some(settings) => Ok(vec![Some(settings)]),
            None => Ok(serial.settings.iter().copied().map(Some).collect()),
        }
    }
}

/// What the source remembers of a port from one start to the next.
#[derive(Debug, Default)]
pub(super) struct PortMemory {
    /// Which of the candidates was used last.
    candidate: usize,
    /// That candidate has carried good frames.
    candidate_fits: bool,
    /// Since when it is listened at one candidate after the other without success.
    quiet_since: Option<Mono>,
    /// Which device it is.
    guard: Option<Guard>,
}
impl PortMemory {
    /// What is remembered at the start of the daemon.
    pub(super) fn new(config: &SerialConfig, bound: Bound) -> Self {
        let profile = &config.profile;
        let is_asked = profile.driver().is_some() || !profile.link().init.is_empty();
        let guard = Guard::new(config.serial_number.clone(), bound, profile.has_checksum(), is_asked);
        Self { guard: Some(guard), ..Self::default() }
    }

    /// True while another device than the bound one has answered and nobody has confirmed one.
    pub(super) fn is_doubted(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::is_doubted)
    }
}

/// Reads the monitor until the daemon stops or the port is lost.
pub(super) async fn run(
    config: &SerialConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    let candidates = config.candidates()?;
    memory.port.quiet_since = None;
    let mut is_first = true;
    loop {
        // The next line settings are no news. A lost port stays reported as lost, with its reason, until it is open again.
        if is_first && !matches!(output.link_state(), Some(LinkState::Lost | LinkState::Waiting)) {
            output.state(LinkState::Opening).await?;
        }
        let place = memory.port.candidate % candidates.len().max(1);
        let settings = candidates.get(place).copied().flatten();
        let port = open(config, settings, output, memory).await?;
        SourceCounters::add(&output.counters().opened, 1);
        if std::mem::take(&mut is_first) {
            output.state(LinkState::Waiting).await?;
        }
        let probing = candidates.len() > 1 && !memory.port.candidate_fits;
        match Session::new(config, port, output, memory, probing).run(stop).await? {
            Ended::Stopped => return Ok(()),
            Ended::NothingHeard => memory.port.candidate = place + 1,
        }
    }
}

/// Opens the port; orders that come meanwhile are not kept waiting.
async fn open(
    config: &SerialConfig,
    settings: Option<LineSettings>,
    output: &mut SourceOutput,
    memory: &mut Memory,
) -> Result<port::Port, SourceError> {
    let mut opening = pin!(port::open(config, settings));
    loop {
        tokio::select! {
            biased;
            // It is open, or cannot be.
            port = &mut opening => return port,
            // A person wants something meanwhile.
            order = next_order(&mut memory.orders) => orders::obey_while_closed(order, &mut memory.port, output).await?,
        }
    }
}
