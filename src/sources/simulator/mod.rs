//! The simulator: a demo ward of eight patients, two of whom wear oximeters that are emulated byte for byte.

pub mod oximeters;
pub mod physiology;
pub mod pty;
pub mod script;
pub mod strap;
pub mod ward;
pub mod waves;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::{Mono, Stamp};
use crate::decode::{Decoded, WaveSamples, gatt};
use crate::event::LinkState;
use crate::profile::{self, Profile};
use crate::vitals::Mode;

use super::output::{Observation, SourceOutput};
use super::serial::{SerialConfig, SerialPort};
use super::stream::{Arrived, Stream};
use super::{Memory, RESEND_EVERY, SourceConfig, SourceError, SourceKind};
use pty::EmulatedPort;
use ward::{DemoBed, Instrument, Line, Sent, Ward};

/// The ward is moved on this often.
const TICK: Duration = Duration::from_millis(100);

/// Which ward is simulated, and how its emulated oximeters are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatorConfig {
    /// The same seed gives the same ward.
    pub seed: u64,
    /// How the emulated oximeters are reached.
    pub links: Links,
}

/// How the emulated oximeters are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Links {
    /// Through pseudo terminals behind links in this folder, by sources of their own that read serial ports.
    Pty {
        /// The folder. Made if it is not there.
        folder: PathBuf,
    },
    /// The simulator decodes the bytes itself; nothing but time and the pipeline is needed.
    Direct,
}

impl Links {
    /// Pseudo terminals behind links in `<state>/demo`.
    pub fn pty_in(state_folder: &Path) -> Self {
        Self::Pty { folder: state_folder.join("demo") }
    }
}

/// The sources of a demo: the simulator, and with [`Links::Pty`] one for each of its serial ports.
///
/// # Errors
/// The profile of an emulated oximeter is missing or wrong: a defect of the build.
pub fn demo_sources(config: &SimulatorConfig) -> Result<Vec<SourceConfig>, SourceError> {
    let mut sources = vec![SourceConfig {
        id: ward::id("demo"),
        patient: None,
        device: ward::id("demo"),
        mode: Mode::Demo,
        kind: SourceKind::Simulator(config.clone()),
    }];
    let Links::Pty { folder } = &config.links else {
        return Ok(sources);
    };
    for bed in ward::beds() {
        let Some(line) = bed.line() else {
            continue;
        };
        let device = bed.device(Instrument::Oximeter);
        let port = SerialPort::Path(folder.join(device.as_str()));
        let serial = SerialConfig::new(port, profile_of(line)?);
        sources.push(SourceConfig {
            id: ward::id(&format!("demo-{device}")),
            patient: Some(bed.patient),
            device,
            mode: Mode::Demo,
            kind: SourceKind::Serial(serial),
        });
    }
    Ok(sources)
}

fn profile_of(line: Line) -> Result<Arc<Profile>, SourceError> {
    let id = line.profile();
    let wrong = |reason: String| SourceError::Profile { profile: id.to_owned(), reason };
    match profile::built_in(id) {
        Some(Ok(profile)) => Ok(profile),
        Some(Err(problems)) => Err(wrong(problems.to_string())),
        None => Err(wrong("there is no such profile".to_owned())),
    }
}

/// Runs the ward until the daemon stops.
pub(super) async fn run(
    config: &SimulatorConfig,
    output: &SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    let mut ward = Ward::new(config.seed);
    let mut stage = Stage::new(config, output)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    memory.was_live = true;
    loop {
        tokio::select! {
            biased;
            // The daemon stops.
            () = stop.cancelled() => return stage.close().await,
            // A tenth of a second is over.
            _ = tick.tick() => {}
        }
        let now = output.now();
        stage.listen(&mut ward, now);
        for sent in ward.step(now) {
            stage.hand_on(sent, now).await?;
        }
        stage.each_second(now).await?;
    }
}

/// The outer end of an emulated oximeter's line.
enum LineEnd {
    /// A pseudo terminal, which a source of its own reads.
    Pty(EmulatedPort),
    /// Read here. `None`: the cable is out.
    Direct { profile: Arc<Profile>, output: Box<SourceOutput>, reader: Option<Box<Reader>> },
}

/// What reads an emulated oximeter whose cable is in, without a port.
struct Reader {
    stream: Stream,
    /// What the host has still to send.
    to_send: Vec<u8>,
    keep_alive_at: Option<Mono>,
    second_at: Mono,
}

/// Everything around the ward.
struct Stage {
    outputs: BTreeMap<(usize, Instrument), SourceOutput>,
    lines: BTreeMap<Line, LineEnd>,
}

impl Stage {
    fn new(config: &SimulatorConfig, output: &SourceOutput) -> Result<Self, SourceError> {
        let (mut outputs, mut lines) = (BTreeMap::new(), BTreeMap::new());
        for bed in ward::beds() {
            for instrument in Instrument::ALL {
                let device = output.for_device(Some(bed.patient.clone()), bed.device(instrument));
                match (bed.line(), instrument) {
                    (Some(line), Instrument::Oximeter) => {
                        lines.insert(line, LineEnd::new(config, &bed, line, device)?);
                    }
                    _ => {
                        outputs.insert((bed.index, instrument), device);
                    }
                }
            }
        }
        Ok(Self { outputs, lines })
    }

    /// Gives the emulated oximeters what their hosts have sent, and sends the replies.
    fn listen(&mut self, ward: &mut Ward, now: Stamp) {
        for (line, end) in &mut self.lines {
            match end {
                LineEnd::Pty(port) => {
                    let commands = port.received();
                    if !commands.is_empty() {
                        let replies = ward.command(*line, &commands, now);
                        port.send(&replies);
                    }
                }
                LineEnd::Direct { profile, reader: Some(reader), .. } => {
                    let commands = reader.commands(profile, now);
                    let replies = ward.command(*line, &commands, now);
                    reader.stream.push(&replies, now);
                }
                LineEnd::Direct { reader: None, .. } => {}
            }
        }
    }

    async fn hand_on(&mut self, sent: Sent, now: Stamp) -> Result<(), SourceError> {
        match sent {
            Sent::Bytes { line, bytes } => match self.lines.get_mut(&line) {
                Some(LineEnd::Pty(port)) => port.send(&bytes),
                Some(LineEnd::Direct { output, reader: Some(reader), .. }) => {
                    for Arrived { observation, received } in reader.stream.push(&bytes, now) {
                        output.reading(observation, received).await?;
                    }
                    for wave in reader.stream.take_waves() {
                        output.wave(wave, now);
                    }
                }
                Some(LineEnd::Direct { reader: None, .. }) | None => {}
            },
            Sent::Cable { line, plugged } => {
                if let Some(end) = self.lines.get_mut(&line) {
                    end.plug(plugged, now).await?;
                }
            }
            Sent::HeartRate { bed, payload } => {
                if let Some(output) = self.outputs.get(&(bed, Instrument::Strap)) {
                    for observation in heart_rate(&payload) {
                        output.reading(observation, now).await?;
                    }
                }
            }
            Sent::Vital { bed, instrument, vital } => {
                if let Some(output) = self.outputs.get(&(bed, instrument)) {
                    output.reading(Observation::of(vital), now).await?;
                }
            }
            Sent::Wave { bed, instrument, block } => {
                if let Some(output) = self.outputs.get_mut(&(bed, instrument)) {
                    output.wave(samples(block), now);
                }
            }
            Sent::Link { bed, instrument, state, status } => {
                if let Some(output) = self.outputs.get_mut(&(bed, instrument)) {
                    output.link(state, &status.into_iter().collect(), None).await?;
                }
            }
        }
        Ok(())
    }

    async fn each_second(&mut self, now: Stamp) -> Result<(), SourceError> {
        for end in self.lines.values_mut() {
            if let LineEnd::Direct { output, reader: Some(reader), .. } = end
                && now.mono >= reader.second_at
            {
                reader.second_at = reader.second_at + RESEND_EVERY;
                for Arrived { observation, received } in reader.stream.second(now) {
                    output.reading(observation, received).await?;
                }
                let (state, status) = reader.stream.link(now);
                output.link(state, &status, None).await?;
            }
        }
        Ok(())
    }

    /// Every device is closed on purpose.
    async fn close(mut self) -> Result<(), SourceError> {
        for output in self.outputs.values_mut() {
            output.state(LinkState::Closed).await?;
        }
        for end in self.lines.values_mut() {
            if let LineEnd::Direct { output, .. } = end {
                output.state(LinkState::Closed).await?;
            }
        }
        Ok(())
    }
}

impl LineEnd {
    fn new(config: &SimulatorConfig, bed: &DemoBed, line: Line, output: SourceOutput) -> Result<Self, SourceError> {
        Ok(match &config.links {
            Links::Pty { folder } => {
                Self::Pty(EmulatedPort::new(folder.join(bed.device(Instrument::Oximeter).as_str())))
            }
            Links::Direct => Self::Direct { profile: profile_of(line)?, output: Box::new(output), reader: None },
        })
    }

    async fn plug(&mut self, plugged: bool, now: Stamp) -> Result<(), SourceError> {
        match self {
            Self::Pty(port) if plugged => port.plug()?,
            Self::Pty(port) => port.unplug(),
            Self::Direct { profile, output, reader } if plugged => {
                *reader = Some(Box::new(Reader::new(profile, now)));
                output.state(LinkState::Waiting).await?;
            }
            Self::Direct { output, reader, .. } => {
                *reader = None;
                output.link(LinkState::Lost, &BTreeSet::new(), Some("the cable was pulled out")).await?;
            }
        }
        Ok(())
    }
}

impl Reader {
    fn new(profile: &Arc<Profile>, now: Stamp) -> Self {
        let link = profile.link();
        Self {
            stream: Stream::new(profile, now),
            to_send: link.init.iter().flat_map(|step| step.send.iter().copied()).collect(),
            keep_alive_at: link.keep_alive.as_ref().map(|repeat| now.mono + repeat.every),
            second_at: now.mono + RESEND_EVERY,
        }
    }

    /// What the host sends in this tick.
    fn commands(&mut self, profile: &Profile, now: Stamp) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.to_send);
        if let (Some(at), Some(repeat)) = (&mut self.keep_alive_at, &profile.link().keep_alive)
            && now.mono >= *at
        {
            *at = now.mono + repeat.every;
            bytes.extend_from_slice(&repeat.send);
        }
        bytes
    }
}

/// A block of a simulated wave as decoders give it.
fn samples(block: waves::Block) -> WaveSamples {
    let waves::Block { name, hz, samples, after_gap } = block;
    WaveSamples { name: Arc::from(name), hz: f64::from(hz), baseline: 0, samples, saturated: 0, after_gap }
}

/// The vitals of one notification of a strap, through the decoder that real straps have.
fn heart_rate(payload: &[u8]) -> Vec<Observation> {
    match gatt::decode(gatt::HEART_RATE_MEASUREMENT, payload) {
        Ok(report) => {
            let vitals = report.decoded.into_iter().filter_map(|found| match found {
                Decoded::Vital(vital) => Some(Observation::from(vital)),
                _ => None,
            });
            vitals.collect()
        }
        Err(error) => {
            tracing::warn!(%error, "a simulated strap sent what the decoder refuses");
            Vec::new()
        }
    }
}
