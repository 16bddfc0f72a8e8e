//! A monitor at a serial port, or at a TCP port that carries one: opens it, talks as the profile says, decodes what comes.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_serial::{ClearBuffer, DataBits, ErrorKind, FlowControl, SerialPort as _, SerialStream, StopBits};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::clock::{Mono, Stamp};
use crate::event::LinkState;
use crate::profile::Profile;
use crate::profile::model::{Dtr, Flow, LineSettings, Parity, Repeat, Step};

use super::output::{Observation, SourceCounters, SourceOutput};
use super::stream::Stream;
use super::{Memory, RESEND_EVERY, SourceError};

/// Bytes taken from the port at once.
const READ_BUFFER: usize = 4096;
/// A device that does not take what is sent for so long has gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a TCP connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent TCP connection is given up after this: a serial server that restarted never says so.
const TCP_SILENCE: Duration = Duration::from_secs(30);
/// A silent device is greeted again this often: it may have been switched off and on behind its adapter.
const GREET_AGAIN: Duration = Duration::from_secs(5);
/// How long each of several line settings is listened to.
const PROBE: Duration = Duration::from_secs(2);
/// Bytes among which an answer is looked for.
const REPLY_WINDOW: usize = 512;

/// Where the monitor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialPort {
    /// A port of this machine, best by its stable name under `/dev/serial/by-id`.
    Path(PathBuf),
    /// A serial server (ser2net and its like), raw TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Why a text is not the place of a serial port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port: write a path such as /dev/serial/by-id/..., or tcp://host:port")]
pub struct BadPort(String);

impl FromStr for SerialPort {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort(text.to_owned());
        if let Some(server) = text.strip_prefix("tcp://") {
            let (host, port) = server.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            return if host.is_empty() || port == 0 {
                Err(bad())
            } else {
                Ok(Self::Tcp { host: host.to_owned(), port })
            };
        }
        if text.starts_with('/') { Ok(Self::Path(PathBuf::from(text))) } else { Err(bad()) }
    }
}

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

/// A port that is open.
type Port = Either<SerialStream, TcpStream>;

/// Why a session ended without an error.
enum Ended {
    /// The daemon stops.
    Stopped,
    /// These line settings carried no frame; the next ones are to be tried.
    NothingHeard,
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
        let port = open(config, settings).await?;
        SourceCounters::add(&output.counters().opened, 1);
        output.state(LinkState::Waiting).await?;
        let probing = candidates.len() > 1 && !memory.port.candidate_fits;
        match Session::new(config, port, output, memory, probing).run(stop).await? {
            Ended::Stopped => return Ok(()),
            Ended::NothingHeard => memory.port.candidate = place + 1,
        }
    }
}

/// Opens the port for this process alone and throws away what was received before.
async fn open(config: &SerialConfig, settings: Option<LineSettings>) -> Result<Port, SourceError> {
    let port = || config.port.to_string();
    match (&config.port, settings) {
        (SerialPort::Tcp { host, port: number }, _) => {
            let connect = TcpStream::connect((host.as_str(), *number));
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| SourceError::Open { port: port(), reason: error.to_string() })?;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(port = %config.port, %error, "short commands may be delayed");
            }
            Ok(Either::Right(stream))
        }
        (SerialPort::Path(path), Some(settings)) => {
            let mut builder = tokio_serial::new(path.to_string_lossy(), settings.baud)
                .data_bits(if settings.data_bits == 7 { DataBits::Seven } else { DataBits::Eight })
                .parity(match settings.parity {
                    Parity::None => tokio_serial::Parity::None,
                    Parity::Odd => tokio_serial::Parity::Odd,
                    Parity::Even => tokio_serial::Parity::Even,
                })
                .stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One })
                // Never XON/XOFF: it eats the data bytes 0x11 and 0x13.
                .flow_control(match config.profile.serial().map(|serial| serial.flow) {
                    Some(Flow::Rtscts) => FlowControl::Hardware,
                    Some(Flow::None) | None => FlowControl::None,
                });
            if let Some(dtr) = config.profile.serial().and_then(|serial| serial.dtr) {
                builder = builder.dtr_on_open(dtr == Dtr::On);
            }
            let stream = SerialStream::open(&builder).map_err(|error| match error.kind {
                // Another process holds TIOCEXCL (EBUSY) or the lock on the file.
                ErrorKind::NoDevice => SourceError::InUse { port: port() },
                _ => SourceError::Open { port: port(), reason: error.to_string() },
            })?;
            if let Err(error) = stream.clear(ClearBuffer::Input) {
                tracing::debug!(port = %config.port, %error, "what was received before cannot be thrown away");
            }
            Ok(Either::Left(stream))
        }
        (SerialPort::Path(_), None) => Err(SourceError::NoSerialLine { profile: config.profile.id().to_owned() }),
    }
}

/// One time that the port is open.
struct Session<'a> {
    config: &'a SerialConfig,
    output: &'a mut SourceOutput,
    memory: &'a mut Memory,
    port: Port,
    stream: Stream,
    /// True while it is only listened whether these line settings fit: nothing is sent.
    probing: bool,
    opened: Mono,
    /// What is sent again and again, and when next.
    repeats: Vec<(Mono, &'a Repeat)>,
    /// The device has to be told to start.
    greet_due: bool,
    /// When a silent device is greeted again.
    greet_at: Option<Mono>,
    /// The end of what was received, while an answer is looked for.
    tail: Vec<u8>,
}

/// What happened at an open port.
enum Happened {
    Stop,
    Second,
    SendDue,
    Read(io::Result<usize>),
}

impl Drop for Session<'_> {
    /// Closing a port waits for what is still to be sent, with RTS/CTS for up to 30 s: it is thrown away instead.
    fn drop(&mut self) {
        if let Either::Left(port) = &self.port
            && let Err(error) = port.clear(ClearBuffer::Output)
        {
            tracing::trace!(port = %self.config.port, %error, "what was to be sent cannot be thrown away");
        }
    }
}

impl<'a> Session<'a> {
    fn new(
        config: &'a SerialConfig,
        port: Port,
        output: &'a mut SourceOutput,
        memory: &'a mut Memory,
        probing: bool,
    ) -> Self {
        let now = output.now();
        Self {
            config,
            port,
            stream: Stream::new(&config.profile, now),
            output,
            memory,
            probing,
            opened: now.mono,
            repeats: Vec::new(),
            greet_due: !probing,
            greet_at: None,
            tail: Vec::new(),
        }
    }

    async fn run(mut self, stop: &CancellationToken) -> Result<Ended, SourceError> {
        let mut buffer = vec![0; READ_BUFFER];
        let mut seconds = tokio::time::interval(RESEND_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        seconds.tick().await;
        loop {
            if std::mem::take(&mut self.greet_due) {
                self.greet().await?;
            }
            let send_in = self.next_send().map(|at| at.since(self.output.now().mono));
            let happened = tokio::select! {
                biased;
                // The daemon stops.
                () = stop.cancelled() => Happened::Stop,
                // A second is over. Before reading, so that a flood of bytes cannot hold it up.
                _ = seconds.tick() => Happened::Second,
                // The device waits for a keep-alive or a poll.
                () = tokio::time::sleep(send_in.unwrap_or(Duration::MAX)), if send_in.is_some() => Happened::SendDue,
                // Bytes came, or the port has gone.
                read = self.port.read(&mut buffer) => Happened::Read(read),
            };
            match happened {
                Happened::Stop => {
                    self.say_goodbye().await;
                    return Ok(Ended::Stopped);
                }
                Happened::Second => {
                    if self.second().await? {
                        return Ok(Ended::NothingHeard);
                    }
                }
                Happened::SendDue => self.send_due().await?,
                Happened::Read(read) => self.take(read, &buffer).await?,
            }
        }
    }

    /// Sends what makes the device start, and begins to count until the next keep-alive.
    async fn greet(&mut self) -> Result<(), SourceError> {
        let config = self.config;
        let link = config.profile.link();
        self.send_steps(&link.init).await?;
        let now = self.output.now().mono;
        self.repeats = link.keep_alive.iter().chain(&link.poll).map(|repeat| (now + repeat.every, repeat)).collect();
        self.greet_at = (!link.init.is_empty()).then(|| now + GREET_AGAIN.max(link.silence));
        Ok(())
    }

    async fn send_steps(&mut self, steps: &[Step]) -> Result<(), SourceError> {
        let gap = self.config.profile.link().gap;
        for step in steps {
            self.tail.clear();
            self.write(&step.send).await?;
            if let Some(reply) = &step.reply
                && !self.hears(reply, step.within).await?
            {
                tracing::warn!(port = %self.config.port, expected = ?reply, "the device gave no answer");
            }
            tokio::time::sleep(gap).await;
        }
        Ok(())
    }

    /// Reads until these bytes have come, at most for `within`.
    async fn hears(&mut self, reply: &[u8], within: Duration) -> Result<bool, SourceError> {
        let until = self.output.now().mono + within;
        let mut buffer = vec![0; READ_BUFFER];
        while !self.tail.windows(reply.len().max(1)).any(|window| window == reply) {
            let left = until.since(self.output.now().mono);
            let Ok(read) = tokio::time::timeout(left, self.port.read(&mut buffer)).await else {
                return Ok(false);
            };
            self.take(read, &buffer).await?;
        }
        Ok(true)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let write = tokio::time::timeout(WRITE_TIMEOUT, self.port.write_all(bytes)).await;
        let lost = |reason: String| SourceError::Lost { port: self.config.port.to_string(), reason };
        match write {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(error.to_string())),
            Err(_) => Err(lost(format!("it takes no bytes for {} s", WRITE_TIMEOUT.as_secs()))),
        }
    }

    /// Tells the device that nobody listens any more. What cannot be sent any more does not matter.
    async fn say_goodbye(&mut self) {
        let config = self.config;
        if !self.probing
            && let Err(error) = self.send_steps(&config.profile.link().stop).await
        {
            tracing::debug!(port = %config.port, %error, "the device was not told to stop");
        }
    }

    fn next_send(&self) -> Option<Mono> {
        self.repeats.iter().map(|(at, _)| *at).min()
    }

    async fn send_due(&mut self) -> Result<(), SourceError> {
        let now = self.output.now().mono;
        let due: Vec<&'a Repeat> =
            self.repeats.iter().filter(|(at, _)| *at <= now).map(|(_, repeat)| *repeat).collect();
        for (at, repeat) in &mut self.repeats {
            if *at <= now {
                *at = now + repeat.every;
            }
        }
        for repeat in due {
            self.write(&repeat.send).await?;
        }
        Ok(())
    }

    /// Takes what a read gave. No bytes mean that the port has gone: a port that was hung up gives them for ever.
    async fn take(&mut self, read: io::Result<usize>, buffer: &[u8]) -> Result<(), SourceError> {
        SourceCounters::add(&self.output.counters().reads, 1);
        let lost = |reason: String| SourceError::Lost { port: self.config.port.to_string(), reason };
        // EIO, ENXIO and ENODEV: the adapter was pulled out.
        let count = read.map_err(|error| lost(error.to_string()))?;
        if count == 0 {
            return Err(lost("it was hung up".to_owned()));
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        self.remember_tail(bytes);
        let now = self.output.now();
        let counters = self.output.counters();
        SourceCounters::add(&counters.bytes, u64::try_from(count).unwrap_or(0));
        let at_once = self.stream.push(bytes, now);
        SourceCounters::add(&counters.rubbish_bytes, self.stream.take_rubbish());
        self.check_identity();
        if self.stream.is_live(now) && !self.memory.was_live {
            self.memory.was_live = true;
        }
        if self.probing && self.stream.is_live(now) {
            self.probing = false;
            self.memory.port.candidate_fits = true;
            self.greet_due = true;
        }
        let waves = self.stream.take_waves();
        if self.stranger().is_none() {
            for wave in waves {
                self.output.wave(wave, now);
            }
        }
        self.hand_on(at_once, now).await?;
        // The first good frame is told at once; every other change waits for the end of the second.
        if matches!(self.output.link_state(), Some(LinkState::Waiting | LinkState::Silent)) {
            self.report_link().await?;
        }
        Ok(())
    }

    fn remember_tail(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(REPLY_WINDOW);
        self.tail.drain(..surplus);
    }

    /// Pins the first serial number, if the configuration names none.
    fn check_identity(&mut self) {
        if self.config.serial_number.is_none()
            && self.memory.port.serial_number.is_none()
            && let Some(heard) = self.stream.serial_number()
        {
            self.memory.port.serial_number = Some(heard.to_owned());
        }
    }

    /// The serial number of a device that is not the expected one: its values could be those of another patient.
    fn stranger(&self) -> Option<String> {
        let expected = self.config.serial_number.as_ref().or(self.memory.port.serial_number.as_ref())?;
        let heard = self.stream.serial_number()?;
        (heard != expected).then(|| {
            format!(
                "the device says that its serial number is {heard}, expected is {expected}: its values are withheld"
            )
        })
    }

    async fn hand_on(&self, observations: Vec<Observation>, now: Stamp) -> Result<(), SourceError> {
        if self.stranger().is_some() {
            return Ok(());
        }
        for observation in observations {
            self.output.reading(observation, now).await?;
        }
        Ok(())
    }

    async fn report_link(&mut self) -> Result<(), SourceError> {
        if let Some(reason) = self.stranger() {
            return self.output.link(LinkState::Lost, &std::collections::BTreeSet::new(), Some(&reason)).await;
        }
        let (state, status) = self.stream.link(self.output.now());
        self.output.link(state, &status, None).await
    }

    /// The end of a second: hands on what it brought, and looks after a silent device. True: try other line settings.
    async fn second(&mut self) -> Result<bool, SourceError> {
        let now = self.output.now();
        let readings = self.stream.second(now);
        self.hand_on(readings, now).await?;
        self.report_link().await?;
        if self.probing {
            return Ok(now.mono.since(self.opened) >= PROBE);
        }
        let silent_for = self.stream.silent_for(now);
        if matches!(self.config.port, SerialPort::Tcp { .. }) && silent_for >= TCP_SILENCE {
            let reason = format!("nothing came for {} s", silent_for.as_secs());
            return Err(SourceError::Lost { port: self.config.port.to_string(), reason });
        }
        if self.greet_at.is_some_and(|at| at <= now.mono) {
            self.greet_at = Some(now.mono + GREET_AGAIN);
            self.greet_due = silent_for >= self.config.profile.link().silence;
        }
        Ok(false)
    }
}
