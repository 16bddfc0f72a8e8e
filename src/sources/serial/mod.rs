//! A monitor at a serial port, or at a TCP port that carries one: what is configured, and one session after the other.

mod place;
mod port;
mod session;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::event::LinkState;
use crate::profile::Profile;
use crate::profile::model::LineSettings;

use super::output::{SourceCounters, SourceOutput};
use super::{Memory, SourceError};

pub use place::{BadPort, SerialPort};

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
}

impl SerialConfig {
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
    /// The serial number that the device told first.
    serial_number: Option<String>,
}
/// Reads the monitor until the daemon stops or the port is lost.
pub(super) async fn run(
    config: &SerialConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    let candidates = config.candidates()?;
    loop {
        // A lost port stays reported as lost, with its reason, until it is open again.
        if !matches!(output.link_state(), Some(LinkState::Lost | LinkState::Waiting)) {
            output.state(LinkState::Opening).await?;
        }
        let place = memory.port.candidate % candidates.len().max(1);
        let settings = candidates.get(place).copied().flatten();
        let port = port::open(config, settings).await?;
        SourceCounters::add(&output.counters().opened, 1);
        output.state(LinkState::Waiting).await?;
        let probing = candidates.len() > 1 && !memory.port.candidate_fits;
        match Session::new(config, port, output, memory, probing).run(stop).await? {
            Ended::Stopped => return Ok(()),
            Ended::NothingHeard => memory.port.candidate = place + 1,
        }
    }
}
