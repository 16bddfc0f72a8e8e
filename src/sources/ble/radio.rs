//! Heart-rate straps over Bluetooth Low Energy: the only file that knows btleplug.
//!
//! [`run`] lives on the daemon's runtime and owns what is told: readings and the state of the link. The radio side lives
//! in a *generation*: a thread with a tokio runtime and a D-Bus connection of its own, for one connection to the strap.
//! btleplug's D-Bus layer can panic inside a task, leaks a match rule with nearly every connect, and never notices that
//! bluetoothd or the bus has died; ending a generation gives all of that back, and whatever goes wrong in one ends
//! nothing but it.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use btleplug::api::{Central, CentralEvent, CentralState, Manager as _, Peripheral as _, ScanFilter};
use btleplug::platform::{Adapter, Manager, Peripheral, PeripheralId};
use futures_util::{Stream, StreamExt};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::super::{Memory, SourceError};
use crate::clock::{Clock, Mono, Stamp};
use crate::decode::gatt::{self, HEART_RATE_MEASUREMENT};
use crate::decode::{Decoded, DecodedVital};
use crate::event::LinkState;
use crate::sources::output::{Observation, SourceCounters, SourceOutput};
use crate::vitals::Status;

/// Heart Rate service (Bluetooth Assigned Numbers, 3.4.2).
const HEART_RATE_SERVICE: Uuid = bluetooth_uuid(0x180D);

/// The first step, of which both sides speak.
const REACHING_THE_BUS: &str = "reaching the D-Bus system bus";
/// Measurements on their way out of a generation. A strap sends one or two a second; while the pipeline takes none, the
/// generation waits, and libdbus keeps the rest.
const MEASUREMENTS_IN_FLIGHT: usize = 64;
/// What a generation may take beyond its own `disconnect` limit to end after it was told to.
const ENDING_GRACE: Duration = Duration::from_secs(2);

/// One connection attempt at a time: controllers that are asked for two at once drop both (the Raspberry Pi's own one
/// needs a reset then). There is one adapter, so one permit for the process.
static CONNECTING: Semaphore = Semaphore::const_new(1);

/// A 16-bit UUID in its long form (Core 5.4, vol. 3 part B, 2.5.1).
const fn bluetooth_uuid(short: u16) -> Uuid {
    #[expect(clippy::as_conversions, reason = "From is not const; widening cannot lose anything")]
    Uuid::from_u128(((short as u128) << 96) | 0x0000_0000_0000_1000_8000_0080_5f9b_34fb)
}

/// A device address such as `C0:FF:EE:00:00:01`, most significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BleAddress([u8; 6]);

/// Why a text is not a [`BleAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Bluetooth address such as C0:FF:EE:00:00:01")]
pub struct BadBleAddress(pub String);

impl FromStr for BleAddress {
    type Err = BadBleAddress;

    fn from_str(text: &str) -> Result<Self, BadBleAddress> {
        let bad = || BadBleAddress(text.chars().take(32).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for BleAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

/// How the strap is told from all other devices in the air.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// By its address.
    Address(BleAddress),
    /// By its advertised name, in full.
    Name(String),
}

impl Wanted {
    fn is_met_by(&self, address: BleAddress, name: Option<&str>) -> bool {
        match self {
            Self::Address(wanted) => *wanted == address,
            Self::Name(wanted) => name == Some(wanted),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

/// How long each step may take. BlueZ and btleplug have limits too, but longer ones, and without cleaning up after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BleLimits {
    /// One question to BlueZ.
    pub call: Duration,
    /// One stretch of scanning. It is renewed for ever: a scan dies silently with bluetoothd.
    pub scan: Duration,
    /// `Connect`, until the services are resolved.
    pub connect: Duration,
    /// Each of the steps from there to the first measurement: discovering, watching, subscribing.
    pub subscribe: Duration,
    /// `Disconnect`. BlueZ itself takes 2.5 s for it.
    pub disconnect: Duration,
    /// No readable measurement for so long: the link is dead, whatever BlueZ says.
    pub silence: Duration,
}

impl Default for BleLimits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            scan: Duration::from_secs(30),
            connect: Duration::from_secs(20),
            subscribe: Duration::from_secs(10),
            disconnect: Duration::from_secs(5),
            silence: Duration::from_secs(8),
        }
    }
}

/// One strap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BleConfig {
    /// How it is recognised.
    pub wanted: Wanted,
    /// How long each step may take.
    pub limits: BleLimits,
}

/// Why a strap is not heard, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum BleError {
    /// A step was refused.
    #[error("{doing}: {cause}")]
    Failed {
        /// The step.
        doing: &'static str,
        /// What BlueZ, the bus or the system says.
        cause: String,
    },
    /// A step was not answered.
    #[error("{doing}: no answer within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The step.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// BlueZ runs and has no adapter: none is plugged in, or its driver is missing.
    #[error("no Bluetooth adapter")]
    NoAdapter,
    /// Somebody switched the adapter off while the link stood.
    #[error("the Bluetooth adapter was switched off")]
    SwitchedOff,
    /// The strap is out of range, not worn (most sleep then), or connected to something else.
    #[error("{wanted} was not seen in {} s of scanning", limit.as_secs_f32())]
    NotSeen {
        /// What was looked for.
        wanted: Wanted,
        /// For how long.
        limit: Duration,
    },
    /// The strap went out of range or ended the link.
    #[error("the strap dropped the link")]
    LinkDropped,
    /// Another kind of device has this address or name.
    #[error("the device has no heart-rate measurement (service 0x180D, characteristic 0x2A37)")]
    NoHeartRate,
    /// The link stands and carries nothing.
    #[error("no readable measurement for {} s{malformed}", limit.as_secs_f32())]
    Silent {
        /// For how long.
        limit: Duration,
        /// What came instead.
        malformed: Malformed,
    },
    /// btleplug closed a stream, which it does not do while its connection to the bus stands.
    #[error("events of BlueZ ended")]
    EventsEnded,
    /// A defect in this file or in btleplug.
    #[error("the Bluetooth thread panicked: {0}")]
    Panicked(String),
}

/// Payloads that could not be decoded since the last one that could.
#[derive(Debug, Default)]
pub struct Malformed {
    /// How many.
    pub count: u64,
    /// What is wrong with the last one.
    pub last: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 { Ok(()) } else { write!(f, ", {} malformed ones: {}", self.count, self.last) }
    }
}

/// What a generation tells the source.
#[derive(Debug)]
enum Progress {
    /// The bus has taken the connection.
    OnTheBus,
    /// The strap is connected and subscribed to.
    Subscribed,
    /// One notification of [`HEART_RATE_MEASUREMENT`].
    Measurement { payload: Vec<u8>, received: Stamp },
}

/// Reads one strap until `stop`, or until something goes wrong with the strap, the radio, bluetoothd or the bus.
///
/// A strap that is merely absent is waited for here: the scan goes on without a pause.
pub(in crate::sources) async fn run(
    config: &BleConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    // Only at first: a strap that is lost stays lost until it can be heard again.
    if output.link_state().is_none() {
        output.state(LinkState::Opening).await?;
    }
    loop {
        match one_generation(config, output, memory, stop).await {
            Err(SourceError::Ble(error @ BleError::NotSeen { .. })) => {
                output.link(LinkState::Lost, &BTreeSet::new(), Some(&error.to_string())).await?;
            }
            ended => return ended,
        }
    }
}

/// What a generation must show next, and since when it has been waited for.
enum Awaited {
    /// That it reaches the bus. libdbus blocks its thread meanwhile, for ever on a bus that takes connections and says
    /// nothing.
    Bus(Mono),
    /// Nothing: the generation itself limits what it is doing.
    Nothing,
    /// A measurement.
    Measurement(Mono),
}

impl Awaited {
    /// Returns when it has been waited for too long.
    async fn overdue(&self, limits: BleLimits, now: Stamp) {
        let (since, limit) = match self {
            Self::Bus(since) => (since, limits.call),
            Self::Nothing => return std::future::pending().await,
            Self::Measurement(since) => (since, limits.silence),
        };
        tokio::time::sleep(limit.saturating_sub(now.mono.since(*since))).await;
    }
}

/// Follows one generation to its end, decoding what it hears and watching for silence. `Ok` only after `stop`.
async fn one_generation(
    config: &BleConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    let limits = config.limits;
    let mut generation = Generation::start(config, output)?;
    let mut malformed = Malformed::default();
    let mut awaited = Awaited::Bus(output.now().mono);
    loop {
        tokio::select! {
            biased;
            // Shutting down comes before anything that is still on its way.
            () = stop.cancelled() => {
                generation.end(limits).await;
                return Ok(());
            }
            progress = generation.progress.recv() => match progress {
                // Only this function ends a generation without an error, and it has not.
                None => return Err(generation.result().await.err().unwrap_or(BleError::EventsEnded).into()),
                Some(Progress::OnTheBus) => awaited = Awaited::Nothing,
                Some(Progress::Subscribed) => {
                    SourceCounters::add(&output.counters().opened, 1);
                    awaited = Awaited::Measurement(output.now().mono);
                    output.state(LinkState::Waiting).await?;
                }
                Some(Progress::Measurement { payload, received }) => match take(&payload, received, output).await? {
                    Ok(()) => {
                        memory.was_live = true;
                        malformed = Malformed::default();
                        // The time now: after a pause of the pipeline the last measurements are old, the strap is not.
                        awaited = Awaited::Measurement(output.now().mono);
                    }
                    Err(problem) => malformed = Malformed { count: malformed.count + 1, last: problem },
                },
            },
            () = awaited.overdue(limits, output.now()) => match awaited {
                // Nothing readable for too long: BlueZ may show a link for ever that carries nothing.
                Awaited::Measurement(_) => {
                    let error = BleError::Silent { limit: limits.silence, malformed };
                    output.link(LinkState::Silent, &BTreeSet::new(), Some(&error.to_string())).await?;
                    generation.end(limits).await;
                    return Err(error.into());
                }
                // Its thread cannot be ended while it is blocked; a new one would only block as well.
                Awaited::Bus(_) | Awaited::Nothing => {
                    let error = BleError::TimedOut { doing: REACHING_THE_BUS, limit: limits.call };
                    output.link(LinkState::Lost, &BTreeSet::new(), Some(&error.to_string())).await?;
                    awaited = Awaited::Nothing;
                }
            },
        }
    }
}

/// Decodes one measurement and hands on what is in it. `Err` with words if it cannot be decoded.
async fn take(payload: &[u8], received: Stamp, output: &mut SourceOutput) -> Result<Result<(), String>, SourceError> {
    let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    SourceCounters::add(&output.counters().reads, 1);
    SourceCounters::add(&output.counters().bytes, length);
    let decoded = match gatt::decode(HEART_RATE_MEASUREMENT, payload) {
        Ok(decoded) => decoded,
        Err(error) => {
            SourceCounters::add(&output.counters().rubbish_bytes, length);
            debug!(device = %output.device(), %error, "malformed heart-rate measurement");
            return Ok(Err(error.to_string()));
        }
    };
    let mut status = BTreeSet::new();
    let mut vitals = vec![];
    for part in decoded {
        match part {
            Decoded::Vital(vital) => vitals.push(vital),
            Decoded::Status(said) => status.extend(said),
            _ => {}
        }
    }
    let state = if status.contains(&Status::SensorOff) { LinkState::SensorOff } else { LinkState::Live };
    output.link(state, &status, None).await?;
    for DecodedVital { vital, mdc, quality, device_time } in vitals {
        output.reading(Observation { vital, mdc, quality, device_time }, received).await?;
    }
    Ok(Ok(()))
}

/// One run of the radio side. Dropping it tells it to end.
struct Generation {
    progress: mpsc::Receiver<Progress>,
    result: oneshot::Receiver<Result<(), BleError>>,
    _stop: DropGuard,
}

impl Generation {
    /// Starts a thread with a runtime and a D-Bus connection of its own.
    fn start(config: &BleConfig, output: &SourceOutput) -> Result<Self, BleError> {
        let (measurements, progress) = mpsc::channel(MEASUREMENTS_IN_FLIGHT);
        let (ended, result) = oneshot::channel();
        let stop = CancellationToken::new();
        let radio = Radio {
            wanted: config.wanted.clone(),
            limits: config.limits,
            clock: output.clock().clone(),
            progress: measurements,
            stop: stop.clone(),
        };
        std::thread::Builder::new()
            .name(format!("ble-{}", output.device()))
            // Nobody asks any more how it ended if the source has been dropped.
            .spawn(move || drop(ended.send(on_own_runtime(radio.run()))))
            .map_err(|error| BleError::Failed { doing: "starting the Bluetooth thread", cause: error.to_string() })?;
        Ok(Self { progress, result, _stop: stop.drop_guard() })
    }

    /// How it ended, once `progress` is closed.
    async fn result(self) -> Result<(), BleError> {
        self.result.await.unwrap_or_else(|_| Err(BleError::Panicked("it left no result".to_owned())))
    }

    /// Tells it to end and waits for that, which includes a `Disconnect`; but not longer than its limits allow.
    async fn end(self, limits: BleLimits) {
        let Self { progress, result, _stop: stop } = self;
        drop(progress);
        drop(stop);
        if tokio::time::timeout(limits.disconnect + ENDING_GRACE, result).await.is_err() {
            warn!("the Bluetooth thread does not end; it is left behind");
        }
    }
}

/// Runs `work` on a new runtime and gives back everything that btleplug left there before it returns.
fn on_own_runtime(work: impl Future<Output = Result<(), BleError>> + Send + 'static) -> Result<(), BleError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| BleError::Failed { doing: "starting the Bluetooth runtime", cause: error.to_string() })?;
    // As a task, so that a panic is caught and everything is dropped inside the runtime: streams of btleplug start
    // a task when they are dropped.
    let result = runtime.block_on(runtime.spawn(work));
    result.unwrap_or_else(|error| Err(BleError::Panicked(error.to_string())))
}

type Events = Pin<Box<dyn Stream<Item = CentralEvent> + Send>>;

/// The side that talks to BlueZ: scan, connect, subscribe, listen, disconnect, once.
struct Radio {
    wanted: Wanted,
    limits: BleLimits,
    clock: Clock,
    progress: mpsc::Sender<Progress>,
    stop: CancellationToken,
}

impl Radio {
    /// `Ok` only if it was told to stop.
    async fn run(self) -> Result<(), BleError> {
        let stop = self.stop.clone();
        let Some(found) = stop.run_until_cancelled(self.find()).await else {
            return Ok(());
        };
        let (strap, mut events) = found?;
        let Some(permit) = stop.run_until_cancelled(CONNECTING.acquire()).await else {
            return Ok(());
        };
        // The semaphore is never closed.
        let mut connecting = permit.ok();
        let listened = stop.run_until_cancelled(self.listen(&strap, &mut events, &mut connecting)).await;
        // After a failed connect too, and before anybody else connects: BlueZ's own Connect would stay pending, and
        // every later one be refused. If the strap dropped the link there is nothing to do, and BlueZ says so.
        self.disconnect(&strap).await;
        listened.unwrap_or(Ok(()))
    }

    /// Scans until the strap is heard.
    async fn find(&self) -> Result<(Peripheral, Events), BleError> {
        let call = self.limits.call;
        let manager = bounded(REACHING_THE_BUS, call, Manager::new()).await?;
        self.pass_on(Progress::OnTheBus).await;
        let adapter = self.adapter(&manager).await?;
        let mut events = bounded("watching BlueZ", call, adapter.events()).await?;
        self.release(&adapter).await?;
        // This also powers an adapter that is off, as it is after a restart of an older bluetoothd.
        match bounded("starting to scan", call, adapter.start_scan(ScanFilter::default())).await {
            Err(BleError::Failed { cause, .. }) if cause.contains("already in progress") => {
                debug!("another part of this program scans already");
            }
            result => result?,
        }
        let seen = tokio::time::timeout(self.limits.scan, self.sighting(&adapter, &mut events)).await;
        let not_seen = BleError::NotSeen { wanted: self.wanted.clone(), limit: self.limits.scan };
        let strap = seen.unwrap_or(Err(not_seen))?;
        // Controllers that scan and connect at once are slow at both, and the Raspberry Pi's own one may reset.
        if let Err(error) = bounded("stopping the scan", call, adapter.stop_scan()).await {
            debug!(%error, "the scan goes on beside the connection");
        }
        Ok((strap, events))
    }

    /// The first adapter in the order of their names.
    async fn adapter(&self, manager: &Manager) -> Result<Adapter, BleError> {
        let adapters = bounded("asking BlueZ for its adapters", self.limits.call, manager.adapters()).await?;
        let mut first: Option<(String, Adapter)> = None;
        for adapter in adapters {
            let name = bounded("asking for an adapter's name", self.limits.call, adapter.adapter_info()).await?;
            if first.as_ref().is_none_or(|(first, _)| name < *first) {
                first = Some((name, adapter));
            }
        }
        first.map(|(_, adapter)| adapter).ok_or(BleError::NoAdapter)
    }

    /// Ends a link to the strap that stands already: left by a crash of ours or of bluetoothd, whose new run knows of
    /// the link but never resolves its services. While it stands, the strap cannot be heard.
    async fn release(&self, adapter: &Adapter) -> Result<(), BleError> {
        let call = self.limits.call;
        for strap in bounded("asking BlueZ for its devices", call, adapter.peripherals()).await? {
            if self.is_wanted(&strap).await.is_some()
                && bounded("asking for the link", call, strap.is_connected()).await?
            {
                info!(strap = %self.wanted, "ending a link that was left behind");
                self.disconnect(&strap).await;
            }
        }
        Ok(())
    }

    /// The strap's properties, if this is the strap.
    async fn is_wanted(&self, device: &Peripheral) -> Option<btleplug::api::PeripheralProperties> {
        let address = BleAddress(device.address().into_inner());
        if matches!(self.wanted, Wanted::Address(_)) && !self.wanted.is_met_by(address, None) {
            return None;
        }
        // A device that BlueZ has just forgotten has no properties any more.
        let properties = bounded("asking for a device's name", self.limits.call, device.properties()).await;
        let properties = properties.ok().flatten()?;
        self.wanted.is_met_by(address, properties.local_name.as_deref()).then_some(properties)
    }

    /// Waits until the strap is heard now. BlueZ remembers devices that have left, but knows the signal strength only
    /// of those it hears.
    async fn sighting(&self, adapter: &Adapter, events: &mut Events) -> Result<Peripheral, BleError> {
        while let Some(event) = events.next().await {
            let (CentralEvent::DeviceDiscovered(id) | CentralEvent::RssiUpdate { id, .. }) = event else {
                continue;
            };
            let Ok(device) = adapter.peripheral(&id).await else {
                continue;
            };
            if self.is_wanted(&device).await.is_some_and(|properties| properties.rssi.is_some()) {
                return Ok(device);
            }
        }
        Err(BleError::EventsEnded)
    }

    /// Connects, gives `connecting` back, subscribes and passes measurements on; returns only when that has failed.
    async fn listen(
        &self,
        strap: &Peripheral,
        events: &mut Events,
        connecting: &mut Option<SemaphorePermit<'_>>,
    ) -> Result<(), BleError> {
        let id = strap.id();
        debug!(strap = %self.wanted, "connecting");
        tokio::select! {
            biased;
            // btleplug would go on waiting for services after the peer has dropped the link.
            error = link_end(&id, events) => return Err(error),
            connected = bounded("connecting to the strap", self.limits.connect, strap.connect()) => connected?,
        }
        *connecting = None;
        let mut measurements = self.subscribe(strap).await?;
        info!(strap = %self.wanted, "subscribed");
        self.pass_on(Progress::Subscribed).await;
        loop {
            tokio::select! {
                biased;
                // First, or a strap that is gone would be read out of the buffer before it is missed.
                error = link_end(&id, events) => return Err(error),
                measurement = measurements.next() => {
                    let payload = measurement.ok_or(BleError::EventsEnded)?;
                    self.pass_on(Progress::Measurement { payload, received: self.clock.now() }).await;
                }
            }
        }
    }

    async fn subscribe(&self, strap: &Peripheral) -> Result<Measurements, BleError> {
        let limit = self.limits.subscribe;
        bounded("discovering services", limit, strap.discover_services()).await?;
        let measurement_uuid = bluetooth_uuid(HEART_RATE_MEASUREMENT);
        let is_measurement = |found: &btleplug::api::Characteristic| {
            found.service_uuid == HEART_RATE_SERVICE && found.uuid == measurement_uuid
        };
        let measurement = strap.characteristics().into_iter().find(is_measurement).ok_or(BleError::NoHeartRate)?;
        // Before subscribing, so that not even the first one is missed.
        let notifications = bounded("watching for measurements", limit, strap.notifications()).await?;
        bounded("subscribing", limit, strap.subscribe(&measurement)).await?;
        Ok(Box::pin(notifications.filter_map(move |notification| {
            std::future::ready((notification.uuid == measurement_uuid).then_some(notification.value))
        })))
    }

    async fn disconnect(&self, strap: &Peripheral) {
        if let Err(error) = bounded("disconnecting", self.limits.disconnect, strap.disconnect()).await {
            debug!(strap = %self.wanted, %error, "no clean disconnect");
        }
    }

    async fn pass_on(&self, progress: Progress) {
        if self.progress.send(progress).await.is_err() {
            // The source has let go of this generation, and `stop` is about to say so.
            self.stop.cancelled().await;
        }
    }
}

type Measurements = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;

/// Waits until BlueZ says that the link has ended, and says why.
async fn link_end(id: &PeripheralId, events: &mut Events) -> BleError {
    while let Some(event) = events.next().await {
        match event {
            CentralEvent::DeviceDisconnected(gone) if gone == *id => return BleError::LinkDropped,
            CentralEvent::StateUpdate(CentralState::PoweredOff) => return BleError::SwitchedOff,
            _ => {}
        }
    }
    BleError::EventsEnded
}

/// One question to BlueZ, with a limit of ours: on a bus that has died, btleplug's own is 30 s.
async fn bounded<T>(
    doing: &'static str,
    limit: Duration,
    question: impl Future<Output = btleplug::Result<T>>,
) -> Result<T, BleError> {
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BleError::Failed { doing, cause: error.to_string() }),
        Err(_) => Err(BleError::TimedOut { doing, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_six_bytes_in_hexadecimal_or_is_refused() {
        let address: BleAddress = "c0:ff:EE:00:00:01".parse().unwrap();
        assert_eq!(address, BleAddress([0xC0, 0xFF, 0xEE, 0x00, 0x00, 0x01]));
        assert_eq!(address.to_string(), "C0:FF:EE:00:00:01");
        for bad in ["", "Polar H10", "C0:FF:EE:00:00", "C0:FF:EE:00:00:01:02", "C0-FF-EE-00-00-01", "+0:FF:EE:00:00:01"]
        {
            assert_eq!(bad.parse::<BleAddress>(), Err(BadBleAddress(bad.to_owned())));
        }
    }

    #[test]
    fn a_strap_is_told_by_its_address_or_by_its_whole_name() {
        let (ours, other) = (BleAddress([1, 2, 3, 4, 5, 6]), BleAddress([1, 2, 3, 4, 5, 7]));
        let by_name = Wanted::Name("Strap 1".to_owned());
        for (wanted, address, name, met) in [
            (&Wanted::Address(ours), ours, None, true),
            (&Wanted::Address(ours), other, Some("Strap 1"), false),
            (&by_name, other, Some("Strap 1"), true),
            (&by_name, other, Some("Strap 12"), false),
            (&by_name, other, None, false),
        ] {
            assert_eq!(wanted.is_met_by(address, name), met, "{wanted} {address} {name:?}");
        }
    }

    #[test]
    fn short_uuids_are_those_of_the_specification() {
        assert_eq!(HEART_RATE_SERVICE.to_string(), "0000180d-0000-1000-8000-00805f9b34fb");
    }

    #[test]
    fn a_panic_on_the_radio_side_is_an_error_like_any_other() {
        let error = on_own_runtime(async { panic!("out of luck") }).unwrap_err();
        assert!(error.to_string().contains("out of luck"), "{error}");
        assert!(matches!(error, BleError::Panicked(_)));
        assert!(on_own_runtime(async { Ok(()) }).is_ok());
    }
}
