//! The links to sensors over BlueZ: the only file that knows btleplug.
//!
//! A *generation* is a thread with a tokio runtime and a D-Bus connection of its own, for all sensors of the daemon.
//! btleplug's D-Bus layer can panic inside a task, leaks a match rule when it does, and never notices that bluetoothd or
//! the bus has died; ending a generation gives all of that back, and whatever goes wrong in one ends nothing but it. What
//! is done when is decided elsewhere: a generation carries out [`Task`]s and tells how they went.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use btleplug::api::{Central, Manager as _, Peripheral as _, WriteType};
use btleplug::platform::{Adapter, Manager, Peripheral};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};
use uuid::Uuid;

use super::echo::Echoes;
use super::leaks::{self, THREAD};
use super::policy::{BleLimits, Ended, Failure, FailureKind, Obstacle, SensorKey};
use super::sensor::{BATTERY_LEVEL, Characteristic, SensorKind};
use crate::bluez::BleAddress;
use crate::clock::{Clock, Stamp};

/// Tasks that may wait for a generation; it takes them at once.
const TASKS_QUEUED: usize = 64;
/// Answers that may wait for the policy; it takes them at once.
const WORDS_QUEUED: usize = 64;
/// What the bus answers once a client has used up a limit, such as that of match rules. btleplug gives the text of an
/// error and drops its name, `org.freedesktop.DBus.Error.LimitsExceeded`.
const LIMITS_EXCEEDED: &[&str] = &["LimitsExceeded", "more match rules", "max_match_rules"];
/// What BlueZ and the bus answer about a device that BlueZ has forgotten. `UnknownMethod` is said of a method on no object.
const GONE: &[&str] = &["UnknownObject", "UnknownMethod", "doesn't exist", "does not exist", "Does Not Exist"];
/// Readable by most sensors, and so a sign of life where BlueZ keeps the battery for itself: names in the Device
/// Information Service (Bluetooth Assigned Numbers, 3.8.1).
const DEVICE_INFORMATION: &[u16] = &[0x2A29, 0x2A24, 0x2A26, 0x2A25];

/// A 16-bit UUID in its long form (Core 5.4, vol. 3 part B, 2.5.1).
const fn bluetooth_uuid(short: u16) -> Uuid {
    #[expect(clippy::as_conversions, reason = "From is not const; widening cannot lose anything")]
    Uuid::from_u128(((short as u128) << 96) | 0x0000_0000_0000_1000_8000_0080_5f9b_34fb)
}

/// The 16 bits of a UUID that is a short one.
fn short_uuid(uuid: Uuid) -> Option<u16> {
    let short = u16::try_from(uuid.as_u128() >> 96).ok()?;
    (bluetooth_uuid(short) == uuid).then_some(short)
}

/// What a sensor sends, on its way to its source.
#[derive(Debug)]
pub(super) enum Delivery {
    /// From here on, what comes belongs to a new subscription.
    Subscribed,
    /// One notification or indication.
    Payload {
        /// 16-bit number of the characteristic.
        uuid: u16,
        /// The payload.
        bytes: Vec<u8>,
        /// When it arrived.
        received: Stamp,
    },
}

/// What a generation is to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Connect and wait for the services.
    Connect(SensorKey, BleAddress),
    /// Discover, listen and subscribe; hand everything to `deliver`.
    Subscribe { key: SensorKey, kind: SensorKind, deliver: mpsc::Sender<Delivery> },
    /// Read the battery, or anything else.
    ReadBattery(SensorKey),
    /// Write, where the sensor has such a characteristic.
    Write(SensorKey, Characteristic, Vec<u8>),
    /// Drop whatever is going on with this sensor.
    Release(SensorKey),
}

/// What a generation tells.
#[derive(Debug)]
pub(super) enum Word {
    /// It has found the adapter.
    Up,
    /// The answer to [`Task::Connect`].
    Connected(SensorKey, Result<(), Failure>),
    /// The answer to [`Task::Subscribe`].
    Subscribed(SensorKey, Result<(), Failure>),
    /// The answer to [`Task::ReadBattery`].
    BatteryRead(SensorKey, Result<Option<u8>, String>),
}

/// A running generation. Dropping it tells it to end.
#[derive(Debug)]
pub(super) struct Generation {
    tasks: mpsc::Sender<Task>,
    words: mpsc::Receiver<Word>,
    result: oneshot::Receiver<Ended>,
    runtime: Arc<OnceLock<tokio::runtime::Handle>>,
    /// Cancelled by being dropped.
    _stop: DropGuard,
}

impl Generation {
    /// Starts a thread with a runtime and a D-Bus connection of its own.
    pub(super) fn start(adapter: String, limits: &BleLimits, clock: Clock) -> Result<Self, Ended> {
        leaks::count();
        let (tasks, inbox) = mpsc::channel(TASKS_QUEUED);
        let (outbox, words) = mpsc::channel(WORDS_QUEUED);
        let (ended, result) = oneshot::channel();
        let stop = CancellationToken::new();
        let runtime = Arc::new(OnceLock::new());
        let told = Arc::clone(&runtime);
        let side = Side { adapter, limits: *limits, clock, words: outbox, stop: stop.clone() };
        std::thread::Builder::new()
            .name(THREAD.to_owned())
            // Nobody asks any more how it ended if it was told to.
            .spawn(move || drop(ended.send(on_own_runtime(&told, side.run(inbox)))))
            .map_err(|error| failed(format!("starting the Bluetooth thread: {error}")))?;
        Ok(Self { tasks, words, result, runtime, _stop: stop.drop_guard() })
    }

    /// Gives it something to do. What a generation that is about to end does not take is answered by its end.
    pub(super) fn order(&self, task: Task) {
        if let Err(error) = self.tasks.try_send(task) {
            warn!(%error, "the Bluetooth thread takes no orders");
        }
    }

    /// Tasks that live in it: its own one, the D-Bus connection, and whatever btleplug leaves behind.
    pub(super) fn tasks(&self) -> usize {
        self.runtime.get().map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }

    /// What it tells next, or how it ended. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<Word, Ended> {
        match self.words.recv().await {
            Some(word) => Ok(word),
            None => Err((&mut self.result).await.unwrap_or_else(|_| failed("it left no result".to_owned()))),
        }
    }
}

fn failed(words: String) -> Ended {
    Ended { obstacle: Obstacle::Failed, words }
}

/// Runs `work` on a new runtime and gives back everything that btleplug left there before it returns.
fn on_own_runtime(
    told: &OnceLock<tokio::runtime::Handle>,
    work: impl Future<Output = Ended> + Send + 'static,
) -> Ended {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("starting the Bluetooth runtime: {error}")),
    };
    // Asked for how many tasks live in it.
    told.get_or_init(|| runtime.handle().clone());
    // As a task, so that a panic is caught and everything is dropped inside the runtime: streams of btleplug start
    // a task when they are dropped.
    let result = runtime.block_on(runtime.spawn(work));
    result.unwrap_or_else(|error| failed(format!("the Bluetooth thread panicked: {error}")))
}

type Work = Pin<Box<dyn Future<Output = Option<Done>> + Send>>;

/// The end of something that a generation did.
enum Done {
    /// A link stands.
    Linked(SensorKey, Box<Peripheral>),
    /// A word for the policy.
    Word(Word),
    /// A limit of the bus is used up.
    Exhausted(String),
}

/// One sensor's link, inside a generation.
struct Linked {
    /// Ends everything that goes on with it.
    cancel: CancellationToken,
    /// Once it is connected.
    peripheral: Option<Peripheral>,
    echoes: Echoes,
}

/// The side of a generation that talks to BlueZ.
struct Side {
    adapter: String,
    limits: BleLimits,
    clock: Clock,
    words: mpsc::Sender<Word>,
    stop: CancellationToken,
}

impl Side {
    async fn run(self, mut tasks: mpsc::Receiver<Task>) -> Ended {
        let stop = self.stop.clone();
        let adapter = match stop.run_until_cancelled(self.find()).await {
            Some(Ok(adapter)) => adapter,
            Some(Err(ended)) => return ended,
            None => return failed("stopped".to_owned()),
        };
        self.say(Word::Up).await;
        let mut links: BTreeMap<SensorKey, Linked> = BTreeMap::new();
        let mut running: FuturesUnordered<Work> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                // Nobody wants anything any more.
                () = stop.cancelled() => return failed("stopped".to_owned()),
                // Releases come before what they release.
                task = tasks.recv() => match task {
                    Some(task) => self.begin(task, &adapter, &mut links, &running),
                    None => return failed("stopped".to_owned()),
                },
                Some(done) = running.next() => match done {
                    Some(Done::Linked(key, peripheral)) => {
                        if let Some(linked) = links.get_mut(&key) {
                            linked.peripheral = Some(*peripheral);
                            self.say(Word::Connected(key, Ok(()))).await;
                        }
                    }
                    Some(Done::Word(word)) => self.say(word).await,
                    Some(Done::Exhausted(words)) => return failed(words),
                    None => {}
                },
            }
        }
    }

    async fn find(&self) -> Result<Adapter, Ended> {
        let call = self.limits.call;
        let no_bus = |words| Ended { obstacle: Obstacle::NoBus, words };
        let manager = bounded("reaching the D-Bus system bus", call, Manager::new()).await.map_err(no_bus)?;
        let adapters = bounded("asking BlueZ for its adapters", call, manager.adapters()).await.map_err(failed)?;
        for adapter in adapters {
            let info = bounded("asking for an adapter's name", call, adapter.adapter_info()).await.map_err(failed)?;
            // btleplug says `hci0 (usb:v1D6Bp0246d0542)`.
            if info.split(' ').next() == Some(self.adapter.as_str()) {
                return Ok(adapter);
            }
        }
        Err(Ended { obstacle: Obstacle::NoAdapter, words: format!("no Bluetooth adapter {}", self.adapter) })
    }

    /// Starts to carry out a task.
    fn begin(
        &self,
        task: Task,
        adapter: &Adapter,
        links: &mut BTreeMap<SensorKey, Linked>,
        running: &FuturesUnordered<Work>,
    ) {
        let (key, work): (SensorKey, Work) = match task {
            Task::Release(key) => {
                if let Some(linked) = links.remove(&key) {
                    linked.cancel.cancel();
                }
                return;
            }
            Task::Connect(key, address) => {
                let fresh = Linked { cancel: CancellationToken::new(), peripheral: None, echoes: Echoes::default() };
                if let Some(old) = links.insert(key, fresh) {
                    old.cancel.cancel();
                }
                (key, Box::pin(connect(key, adapter.clone(), address, Box::new(self.limits))))
            }
            Task::Subscribe { key, kind, deliver } => {
                let Some((peripheral, echoes)) = linked(links, key) else { return };
                let listener = Listener {
                    key,
                    peripheral,
                    kind,
                    echoes,
                    deliver,
                    words: self.words.clone(),
                    clock: self.clock.clone(),
                };
                (key, Box::pin(listener.run(self.limits.subscribe)))
            }
            Task::ReadBattery(key) => {
                let Some((peripheral, echoes)) = linked(links, key) else { return };
                (key, Box::pin(read_sign_of_life(key, peripheral, echoes, self.limits.read, self.clock.clone())))
            }
            Task::Write(key, characteristic, bytes) => {
                let Some((peripheral, _)) = linked(links, key) else { return };
                (key, Box::pin(write(peripheral, characteristic, bytes, self.limits.read)))
            }
        };
        let Some(cancel) = links.get(&key).map(|linked| linked.cancel.clone()) else { return };
        running.push(Box::pin(async move { cancel.run_until_cancelled(work).await.flatten() }));
    }

    async fn say(&self, word: Word) {
        if self.words.send(word).await.is_err() {
            // The policy has let go of this generation, and `stop` is about to say so.
            self.stop.cancelled().await;
        }
    }
}

fn linked(links: &BTreeMap<SensorKey, Linked>, key: SensorKey) -> Option<(Peripheral, Echoes)> {
    let linked = links.get(&key)?;
    Some((linked.peripheral.clone()?, linked.echoes.clone()))
}

/// What a refused step means.
fn outcome(key: SensorKey, words: String, word: fn(SensorKey, Result<(), Failure>) -> Word) -> Done {
    if LIMITS_EXCEEDED.iter().any(|limit| words.contains(limit)) {
        return Done::Exhausted(words);
    }
    let kind = if GONE.iter().any(|gone| words.contains(gone)) { FailureKind::Vanished } else { FailureKind::Ordinary };
    Done::Word(word(key, Err(Failure { kind, words })))
}

async fn connect(key: SensorKey, adapter: Adapter, address: BleAddress, limits: Box<BleLimits>) -> Option<Done> {
    let result = async {
        let known = bounded("asking BlueZ for its devices", limits.call, adapter.peripherals()).await?;
        let is_it = |device: &Peripheral| BleAddress::new(device.address().into_inner()) == address;
        let Some(peripheral) = known.into_iter().find(is_it) else {
            return Err(format!("connecting to the sensor: {address} does not exist for BlueZ any more"));
        };
        debug!(sensor = %address, "connecting");
        // The policy has a deadline of its own, which is the shorter one.
        bounded("connecting to the sensor", limits.connect + limits.disconnect, peripheral.connect()).await?;
        Ok(peripheral)
    };
    Some(match result.await {
        Ok(peripheral) => Done::Linked(key, Box::new(peripheral)),
        Err(words) => outcome(key, words, Word::Connected),
    })
}

type Notifications = Pin<Box<dyn Stream<Item = btleplug::api::ValueNotification> + Send>>;

/// Subscribes to one sensor and passes on what it sends.
struct Listener {
    key: SensorKey,
    peripheral: Peripheral,
    kind: SensorKind,
    echoes: Echoes,
    deliver: mpsc::Sender<Delivery>,
    words: mpsc::Sender<Word>,
    clock: Clock,
}

impl Listener {
    /// Returns when the subscription has failed, the stream has ended or nobody listens; it is cancelled with the link.
    async fn run(self, limit: Duration) -> Option<Done> {
        let (mut notifications, wanted) = match self.subscribe(limit).await {
            Ok(subscribed) => subscribed,
            Err(done) => return Some(done),
        };
        self.deliver.send(Delivery::Subscribed).await.ok()?;
        self.words.send(Word::Subscribed(self.key, Ok(()))).await.ok()?;
        while let Some(notification) = notifications.next().await {
            let received = self.clock.now();
            let Some(uuid) = short_uuid(notification.uuid).filter(|uuid| wanted.contains(uuid)) else { continue };
            // BlueZ tells the answer to a read as if it had been sent.
            if self.echoes.is_echo(uuid, &notification.value, received.mono) {
                continue;
            }
            let payload = Delivery::Payload { uuid, bytes: notification.value, received };
            // While the source takes none, this waits, and libdbus keeps the rest.
            self.deliver.send(payload).await.ok()?;
        }
        None
    }

    async fn subscribe(&self, limit: Duration) -> Result<(Notifications, Vec<u16>), Done> {
        let failed = |words| outcome(self.key, words, Word::Subscribed);
        bounded("discovering services", limit, self.peripheral.discover_services()).await.map_err(failed)?;
        let offered = self.peripheral.characteristics();
        let find = |wanted: Characteristic| {
            let (service, uuid) = (bluetooth_uuid(wanted.service), bluetooth_uuid(wanted.uuid));
            offered.iter().find(|found| found.service_uuid == service && found.uuid == uuid)
        };
        if !self.kind.needs().iter().any(|needed| find(*needed).is_some()) {
            let all = self
                .kind
                .needs()
                .iter()
                .map(|c| format!("service 0x{:04X}, characteristic 0x{:04X}", c.service, c.uuid));
            let all = all.collect::<Vec<_>>().join(", or ");
            let words = format!("the device has no {} ({all})", self.kind.words());
            let failure = Failure { kind: FailureKind::WrongDevice, words };
            return Err(Done::Word(Word::Subscribed(self.key, Err(failure))));
        }
        // Before subscribing, so that not even the first one is missed: stored records come at once.
        let notifications =
            bounded("watching for measurements", limit, self.peripheral.notifications()).await.map_err(failed)?;
        let mut wanted = vec![];
        for characteristic in self.kind.characteristics() {
            let Some(found) = find(*characteristic) else { continue };
            bounded("subscribing", limit, self.peripheral.subscribe(found)).await.map_err(failed)?;
            wanted.push(characteristic.uuid);
        }
        Ok((notifications, wanted))
    }
}

async fn read_sign_of_life(
    key: SensorKey,
    peripheral: Peripheral,
    echoes: Echoes,
    limit: Duration,
    clock: Clock,
) -> Option<Done> {
    let offered = peripheral.characteristics();
    let find = |short: u16| offered.iter().find(|found| found.uuid == bluetooth_uuid(short));
    let mut candidates = std::iter::once(BATTERY_LEVEL.uuid).chain(DEVICE_INFORMATION.iter().copied());
    let Some((uuid, characteristic)) = candidates.find_map(|uuid| Some((uuid, find(uuid)?))) else {
        let none = "it has nothing that can be read".to_owned();
        return Some(Done::Word(Word::BatteryRead(key, Err(none))));
    };
    let reading = echoes.reading(uuid);
    let result = bounded("reading the battery level", limit, peripheral.read(characteristic)).await;
    reading.done(result.as_ref().ok(), clock.now().mono);
    let level = result.map(|value| match value.first() {
        // BAS 1.1, 3.1: 0 to 100 percent, the rest is reserved.
        Some(level) if uuid == BATTERY_LEVEL.uuid && *level <= 100 => Some(*level),
        _ => None,
    });
    Some(Done::Word(Word::BatteryRead(key, level)))
}

/// What cannot be written is told in the log: a sensor without the characteristic is none the worse.
async fn write(peripheral: Peripheral, wanted: Characteristic, bytes: Vec<u8>, limit: Duration) -> Option<Done> {
    let offered = peripheral.characteristics();
    let uuid = bluetooth_uuid(wanted.uuid);
    let Some(found) = offered.iter().find(|found| found.uuid == uuid) else {
        debug!(characteristic = %uuid, "the sensor has nothing to write this to");
        return None;
    };
    if let Err(error) = bounded("writing", limit, peripheral.write(found, &bytes, WriteType::WithResponse)).await {
        warn!(characteristic = %uuid, %error, "the sensor did not take what was written");
    }
    None
}

/// One question to BlueZ, with a limit of ours: on a bus that has died, btleplug's own is 30 s.
async fn bounded<T>(
    doing: &'static str,
    limit: Duration,
    question: impl Future<Output = btleplug::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{doing}: {error}")),
        Err(_) => Err(format!("{doing}: no answer within {} s", limit.as_secs_f32())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_uuids_are_those_of_the_specification() {
        assert_eq!(bluetooth_uuid(0x180D).to_string(), "0000180d-0000-1000-8000-00805f9b34fb");
        assert_eq!(short_uuid(bluetooth_uuid(0x2A37)), Some(0x2A37));
        assert_eq!(short_uuid(Uuid::from_u128(7)), None);
    }

    #[test]
    fn a_panic_on_the_radio_side_is_an_error_like_any_other() {
        let ended = on_own_runtime(&OnceLock::new(), async { panic!("out of luck") });
        assert!(ended.words.contains("out of luck"), "{ended}");
        assert_eq!(ended.obstacle, Obstacle::Failed);
    }

    #[test]
    fn an_answer_that_names_a_limit_ends_the_generation_and_one_about_no_object_is_nobodys_failure() {
        let key = SensorKey(1);
        let of = |words: &str| outcome(key, words.to_owned(), Word::Connected);
        let limit = "connecting to the sensor: Connection \":1.4\" is not allowed to add more match rules (increase limits \
                     in configuration file if required; max_match_rules_per_connection=512)";
        assert!(matches!(of(limit), Done::Exhausted(_)));
        for (words, kind) in [
            (
                "Method \"Connect\" with signature \"\" on interface \"org.bluez.Device1\" doesn't exist",
                FailureKind::Vanished,
            ),
            ("le-connection-abort-by-local", FailureKind::Ordinary),
        ] {
            let Done::Word(Word::Connected(_, Err(failure))) = of(words) else { panic!("{words}") };
            assert_eq!(failure.kind, kind, "{words}");
        }
    }
}
