//! The links to sensors over BlueZ: the only file that knows btleplug.
//!
//! A *generation* is a thread with a tokio runtime and a D-Bus connection of its own, for all sensors of the daemon.
//! btleplug's D-Bus layer can panic inside a task, leaks a match rule when it does, and never notices that bluetoothd or
//! the bus has died; ending a generation gives all of that back, and whatever goes wrong in one ends nothing but it. What
//! is done when is decided elsewhere: a generation carries out [`Task`]s and tells how they went.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use btleplug::api::{Central, CharPropFlags, Manager as _, Peripheral as _, WriteType};
use btleplug::platform::{Adapter, Manager, Peripheral};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};
use uuid::Uuid;

use super::echo::Echoes;
use super::leaks::{self, THREAD};
use super::policy::{BleLimits, Ended, Failure, FailureKind, Obstacle, SensorKey};
use super::sensor::{BATTERY_LEVEL, CURRENT_TIME, Characteristic, DATE_TIME, RECORD_ACCESS, SensorKind};
use super::wires::{Subscription, Wires, bluetooth_uuid};
use crate::bluez::BleAddress;
use crate::clock::{Clock, Stamp};
use crate::decode::gatt::date_time::CurrentTime;

/// Tasks that may wait for a generation; it takes them at once.
const TASKS_QUEUED: usize = 64;
/// Answers that may wait for the policy; it takes them at once.
const WORDS_QUEUED: usize = 64;
/// Devices that one generation listens to, each for a match rule of the 512 that a bus allows a client.
const MOST_EARS: usize = 128;
/// What the bus answers once a client has used up a limit, such as that of match rules. btleplug gives the text of an
/// error and drops its name, `org.freedesktop.DBus.Error.LimitsExceeded`.
const LIMITS_EXCEEDED: &[&str] = &["LimitsExceeded", "more match rules", "max_match_rules"];
/// What BlueZ and the bus answer about a device that BlueZ has forgotten. `UnknownMethod` is said of a method on no object.
const GONE: &[&str] = &["UnknownObject", "UnknownMethod", "doesn't exist", "does not exist", "Does Not Exist"];
/// What BlueZ answers if an attribute is given only to who has been paired with (Core 5.4, vol. 3 part F, 3.4.1.1:
/// insufficient authentication 0x05, authorization 0x08, encryption key size 0x0C, encryption 0x0F), or by names.
const WANTS_A_BOND: &[&str] =
    &["ATT error: 0x05", "ATT error: 0x08", "ATT error: 0x0c", "ATT error: 0x0f", "NotAuthorized", "Not paired"];
/// Readable by most sensors, and so a sign of life where BlueZ keeps the battery for itself: names in the Device
/// Information Service (Bluetooth Assigned Numbers, 3.8.1).
const DEVICE_INFORMATION: &[u16] = &[0x2A29, 0x2A24, 0x2A26, 0x2A25];

/// What an optional characteristic may take of the time for a subscription: the measurement does not wait for it.
const OPTIONAL_SHARE: u32 = 3;

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
    /// One notification or indication of a byte stream.
    Bytes {
        /// The next bytes.
        bytes: Vec<u8>,
        /// When they arrived.
        received: Stamp,
    },
    /// The measurement's field of an advertisement.
    Advertised {
        /// Without its number.
        bytes: Vec<u8>,
        /// When it was heard.
        received: Stamp,
    },
    /// How a [`Task::Send`] went.
    Sent(Result<(), String>),
    /// The answer to a [`Task::ReadClock`] of a sensor that does not tell its time.
    NoTime,
    /// The answer to a [`Task::SetClock`] that the sensor has taken.
    TimeTaken {
        /// When it said so.
        received: Stamp,
    },
}

/// What a generation is to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Connect and wait for the services. What the device sends meanwhile goes to `deliver`: BlueZ renews the subscriptions
    /// of a device that it knows as soon as the link stands, a cuff then sends at once, and may have ended the link before
    /// its services are known.
    Connect { key: SensorKey, address: BleAddress, to: Subscription, deliver: mpsc::Sender<Delivery> },
    /// Discover, listen and subscribe; hand everything to `deliver`.
    Subscribe { key: SensorKey, to: Subscription, deliver: mpsc::Sender<Delivery> },
    /// Read the battery, or anything else.
    ReadBattery(SensorKey),
    /// Read the sensor's clock, if it has one, and hand it to `deliver` like a notification.
    ReadClock { key: SensorKey, deliver: mpsc::Sender<Delivery>, is_optional: bool, is_bonded: bool },
    /// Set the sensor's clock, if it has one; answered by [`Delivery::TimeTaken`] if it is set.
    SetClock { key: SensorKey, time: CurrentTime, deliver: mpsc::Sender<Delivery> },
    /// Write, where the sensor has such a characteristic.
    Write(SensorKey, Characteristic, Vec<u8>),
    /// Write the next bytes to a byte stream; answered by [`Delivery::Sent`].
    Send { key: SensorKey, wires: Arc<Wires>, bytes: Vec<u8>, deliver: mpsc::Sender<Delivery> },
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
    /// A device can be listened to, and is now to be connected by this task.
    Heard(Task, BleAddress, Box<Ear>, Notifications),
    /// A link stands.
    Linked(SensorKey, BleAddress),
    /// A word for the policy.
    Word(Word),
    /// A limit of the bus is used up.
    Exhausted(String),
}

/// A device that is listened to, from its first connect to the end of the generation.
///
/// dbus-daemon takes two match rules that differ only in `path_namespace` for the same, and takes back the newest of
/// them when asked for any: ending to listen to one device would make it deaf for another. So nothing is ended, and the
/// only rule that comes and goes is the one that btleplug makes inside a connect, of which there is one at a time: it
/// is the newest when it goes.
#[derive(Clone)]
struct Ear {
    peripheral: Peripheral,
    echoes: Echoes,
    /// Who gets what the device sends now.
    listening: watch::Sender<Option<Arc<Listening>>>,
    /// Its clock is given only to who has been paired with.
    is_clock_protected: Arc<AtomicBool>,
}

impl Ear {
    /// What an episodic device sends before this link's own subscription is of one that BlueZ has renewed.
    fn listen_early(&self, to: &Subscription, deliver: mpsc::Sender<Delivery>) {
        if to.is_episodic() {
            let (wanted, is_stream) = (to.characteristics(), matches!(to, Subscription::Stream(_)));
            let is_announced = AtomicBool::new(true);
            let listening = Listening { wanted, is_stream, deliver, is_announced, is_episodic: true };
            self.listening.send_replace(Some(Arc::new(listening)));
        }
    }

    /// The link has ended or is given up. The last words of an episodic device may still be on their way, and are a
    /// measurement; those of any other would make a link that has gone look live.
    fn rest(&self) {
        self.listening.send_if_modified(|listening| listening.take_if(|listening| !listening.is_episodic).is_some());
    }
}

/// A subscription.
#[derive(Debug)]
struct Listening {
    wanted: Vec<Uuid>,
    /// All of it is one stream of bytes.
    is_stream: bool,
    deliver: mpsc::Sender<Delivery>,
    is_announced: AtomicBool,
    is_episodic: bool,
}

impl Listening {
    /// Tells the source that a subscription begins, before the first payload and once.
    async fn announce(&self) {
        if !self.is_announced.swap(true, Ordering::Relaxed) {
            // A source that has gone needs no news.
            let _ = self.deliver.send(Delivery::Subscribed).await;
        }
    }
}

/// One sensor's link, inside a generation.
struct Linked {
    /// Ends everything that goes on with it.
    cancel: CancellationToken,
    /// Once it is connected.
    address: Option<BleAddress>,
}

/// What a generation knows of its devices.
#[derive(Default)]
struct Known {
    links: BTreeMap<SensorKey, Linked>,
    /// At most [`MOST_EARS`].
    ears: BTreeMap<BleAddress, Ear>,
}

impl Known {
    fn ear(&self, key: SensorKey) -> Option<Ear> {
        self.ears.get(&self.links.get(&key)?.address?).cloned()
    }

    /// Gives up whatever goes on with a sensor.
    fn release(&mut self, key: SensorKey) {
        if let Some(ear) = self.ear(key) {
            ear.rest();
        }
        if let Some(linked) = self.links.remove(&key) {
            linked.cancel.cancel();
        }
    }
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
        let mut known = Known::default();
        let mut running: FuturesUnordered<Work> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                // Nobody wants anything any more.
                () = stop.cancelled() => return failed("stopped".to_owned()),
                // Releases come before what they release.
                task = tasks.recv() => match task {
                    Some(task) => self.begin(task, &adapter, &mut known, &running),
                    None => return failed("stopped".to_owned()),
                },
                Some(done) = running.next() => match done {
                    Some(Done::Heard(task, address, ear, notifications)) => {
                        running.push(Box::pin(pass_on(notifications, (*ear).clone(), self.clock.clone())));
                        known.ears.insert(address, *ear);
                        self.begin(task, &adapter, &mut known, &running);
                        if known.ears.len() > MOST_EARS {
                            return failed(format!("renewed, because more than {MOST_EARS} devices were connected"));
                        }
                    }
                    Some(Done::Linked(key, address)) => {
                        if let Some(linked) = known.links.get_mut(&key) {
                            linked.address = Some(address);
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
    fn begin(&self, task: Task, adapter: &Adapter, known: &mut Known, running: &FuturesUnordered<Work>) {
        let (key, work): (SensorKey, Work) = match task {
            Task::Release(key) => return known.release(key),
            Task::Connect { key, address, to, deliver } => {
                known.release(key);
                known.links.insert(key, Linked { cancel: CancellationToken::new(), address: None });
                let limits = Box::new(self.limits);
                (
                    key,
                    if let Some(ear) = known.ears.get(&address) {
                        ear.listen_early(&to, deliver);
                        Box::pin(connect(key, ear.peripheral.clone(), address, limits))
                    } else {
                        let task = Task::Connect { key, address, to, deliver };
                        Box::pin(hear(key, task, adapter.clone(), address, limits))
                    },
                )
            }
            Task::Subscribe { key, to, deliver } => {
                let Some(ear) = known.ear(key) else { return };
                (key, Box::pin(subscribe(key, ear, to, deliver, self.limits.subscribe)))
            }
            Task::ReadBattery(key) => {
                let Some(ear) = known.ear(key) else { return };
                (key, Box::pin(read_sign_of_life(key, ear, self.limits.read, self.clock.clone())))
            }
            Task::ReadClock { key, deliver, is_optional, is_bonded } => {
                let Some(ear) = known.ear(key) else { return };
                let limit = self.limits.read;
                (key, Box::pin(read_clock(ear, deliver, is_optional, is_bonded, limit, self.clock.clone())))
            }
            Task::SetClock { key, time, deliver } => {
                let Some(ear) = known.ear(key) else { return };
                (key, Box::pin(set_clock(ear.peripheral, time, deliver, self.limits.read, self.clock.clone())))
            }
            Task::Write(key, characteristic, bytes) => {
                let Some(ear) = known.ear(key) else { return };
                let writing = write(ear.peripheral, characteristic.uuid, bytes, self.limits.read);
                (
                    key,
                    Box::pin(async {
                        writing.await;
                        None
                    }),
                )
            }
            Task::Send { key, wires, bytes, deliver } => {
                let Some(ear) = known.ear(key) else { return };
                (key, Box::pin(send(ear.peripheral, wires, bytes, deliver, self.limits.read)))
            }
        };
        let Some(cancel) = known.links.get(&key).map(|linked| linked.cancel.clone()) else { return };
        running.push(Box::pin(async move { cancel.run_until_cancelled(work).await.flatten() }));
    }

    async fn say(&self, word: Word) {
        if self.words.send(word).await.is_err() {
            // The policy has let go of this generation, and `stop` is about to say so.
            self.stop.cancelled().await;
        }
    }
}

/// What a refused step means.
fn outcome(key: SensorKey, words: String, word: fn(SensorKey, Result<(), Failure>) -> Word) -> Done {
    if LIMITS_EXCEEDED.iter().any(|limit| words.contains(limit)) {
        return Done::Exhausted(words);
    }
    let kind = if GONE.iter().any(|gone| words.contains(gone)) { FailureKind::Vanished } else { FailureKind::Ordinary };
    Done::Word(word(key, Err(Failure { kind, words })))
}

/// Finds a device and begins to listen to it, before it is connected for the first time.
async fn hear(
    key: SensorKey,
    task: Task,
    adapter: Adapter,
    address: BleAddress,
    limits: Box<BleLimits>,
) -> Option<Done> {
    let result = async {
        let known = bounded("asking BlueZ for its devices", limits.call, adapter.peripherals()).await?;
        let is_it = |device: &Peripheral| BleAddress::new(device.address().into_inner()) == address;
        let Some(peripheral) = known.into_iter().find(is_it) else {
            return Err(format!("connecting to the sensor: {address} does not exist for BlueZ any more"));
        };
        let notifications = bounded("watching for measurements", limits.call, peripheral.notifications()).await?;
        Ok((peripheral, notifications))
    };
    Some(match result.await {
        Ok((peripheral, notifications)) => {
            let ear = Ear {
                peripheral,
                echoes: Echoes::default(),
                listening: watch::Sender::new(None),
                is_clock_protected: Arc::default(),
            };
            Done::Heard(task, address, Box::new(ear), notifications)
        }
        Err(words) => outcome(key, words, Word::Connected),
    })
}

async fn connect(key: SensorKey, peripheral: Peripheral, address: BleAddress, limits: Box<BleLimits>) -> Option<Done> {
    debug!(sensor = %address, "connecting");
    // The policy has a deadline of its own, which is the shorter one.
    let limit = limits.connect + limits.disconnect;
    Some(match bounded("connecting to the sensor", limit, peripheral.connect()).await {
        Ok(()) => Done::Linked(key, address),
        Err(words) => outcome(key, words, Word::Connected),
    })
}

type Notifications = Pin<Box<dyn Stream<Item = btleplug::api::ValueNotification> + Send>>;

/// Passes on what a device sends to who listens, until the generation ends.
async fn pass_on(mut notifications: Notifications, ear: Ear, clock: Clock) -> Option<Done> {
    while let Some(notification) = notifications.next().await {
        let received = clock.now();
        let Some(listening) = ear.listening.borrow().clone() else { continue };
        if !listening.wanted.contains(&notification.uuid) {
            continue;
        }
        let (short, bytes) = (short_uuid(notification.uuid), notification.value);
        // BlueZ tells the answer to a read as if it had been sent.
        if short.is_some_and(|uuid| ear.echoes.is_echo(uuid, &bytes, received.mono)) {
            continue;
        }
        listening.announce().await;
        let payload = match short {
            Some(uuid) if !listening.is_stream => Delivery::Payload { uuid, bytes, received },
            _ => Delivery::Bytes { bytes, received },
        };
        // While the source takes none, this waits, and libdbus keeps the rest. One that has gone needs none.
        let _ = listening.deliver.send(payload).await;
    }
    Some(Done::Exhausted("the notifications of BlueZ ended".to_owned()))
}

/// What a person can do about it.
fn with_advice(words: String, address: BleAddress) -> String {
    if WANTS_A_BOND.iter().any(|answer| words.contains(answer)) {
        return format!("{words}: it has to be paired, `vitalbridge pair {address}`");
    }
    words
}

/// Discovers, and subscribes to what the sensor has of it.
async fn subscribe(
    key: SensorKey,
    ear: Ear,
    to: Subscription,
    deliver: mpsc::Sender<Delivery>,
    limit: Duration,
) -> Option<Done> {
    let address = BleAddress::new(ear.peripheral.address().into_inner());
    let failed = |words| Some(outcome(key, with_advice(words, address), Word::Subscribed));
    if let Err(words) = bounded("discovering services", limit, ear.peripheral.discover_services()).await {
        return failed(words);
    }
    let offered = ear.peripheral.characteristics();
    let found = match &to {
        Subscription::Standard { kind, tells_time } => standard(*kind, *tells_time, &offered),
        Subscription::Stream(wires) => stream(wires, &offered),
        Subscription::Heard(_) => Err("a device that only advertises has nothing to subscribe to".to_owned()),
    };
    let found = match found {
        Ok(found) => found,
        Err(words) => {
            let failure = Failure { kind: FailureKind::WrongDevice, words };
            return Some(Done::Word(Word::Subscribed(key, Err(failure))));
        }
    };
    let wanted = found.iter().map(|chosen| chosen.found.uuid).collect();
    let is_stream = matches!(to, Subscription::Stream(_));
    let (is_announced, is_episodic) = (AtomicBool::new(false), to.is_episodic());
    let listening = Arc::new(Listening { wanted, is_stream, deliver, is_announced, is_episodic });
    // Before subscribing, so that not even the first one is missed: stored records come at once.
    ear.listening.send_replace(Some(Arc::clone(&listening)));
    for Chosen { found, is_needed } in found {
        let limit = if is_needed { limit } else { limit / OPTIONAL_SHARE };
        match bounded("subscribing", limit, ear.peripheral.subscribe(found)).await {
            Ok(()) => {}
            Err(words) if is_needed || LIMITS_EXCEEDED.iter().any(|limit| words.contains(limit)) => {
                return failed(words);
            }
            Err(words) => {
                let characteristic = found.uuid;
                warn!(%address, %characteristic, reason = words, "the sensor delivers without this characteristic");
            }
        }
    }
    listening.announce().await;
    Some(Done::Word(Word::Subscribed(key, Ok(()))))
}

/// A characteristic as btleplug knows it.
type Found = btleplug::api::Characteristic;

fn find(offered: &BTreeSet<Found>, service: Uuid, uuid: Uuid) -> Option<&Found> {
    offered.iter().find(|found| found.service_uuid == service && found.uuid == uuid)
}

/// A characteristic that is to be subscribed to.
#[derive(Debug, Clone, Copy)]
struct Chosen<'o> {
    found: &'o Found,
    /// Without it there is no measurement.
    is_needed: bool,
}

/// What a sensor of this kind has of its characteristics, what is needed of it first; or what it lacks.
fn standard(kind: SensorKind, tells_time: bool, offered: &BTreeSet<Found>) -> Result<Vec<Chosen<'_>>, String> {
    let find = |wanted: &Characteristic| find(offered, bluetooth_uuid(wanted.service), bluetooth_uuid(wanted.uuid));
    if !kind.needs().iter().any(|needed| find(needed).is_some()) {
        let named = kind.needs().iter();
        let named = named.map(|one| format!("service 0x{:04X}, characteristic 0x{:04X}", one.service, one.uuid));
        return Err(format!("the device has no {} ({})", kind.words(), named.collect::<Vec<_>>().join(", or ")));
    }
    let time = tells_time.then_some(&CURRENT_TIME);
    let choose = |wanted: &Characteristic| {
        let is_needed = kind.needs().contains(wanted) || *wanted == RECORD_ACCESS;
        Some(Chosen { found: find(wanted)?, is_needed })
    };
    let mut chosen: Vec<Chosen<'_>> = kind.characteristics().iter().chain(time).filter_map(choose).collect();
    let sends = |found: &Found| found.properties.intersects(CharPropFlags::NOTIFY | CharPropFlags::INDICATE);
    chosen.retain(|chosen| chosen.is_needed || sends(chosen.found));
    chosen.sort_by_key(|chosen| !chosen.is_needed);
    Ok(chosen)
}

/// The characteristic whose notifications are the stream, if the other direction is there too where it is needed.
fn stream<'o>(wires: &Wires, offered: &'o BTreeSet<Found>) -> Result<Vec<Chosen<'o>>, String> {
    let needed = wires.write.filter(|_| wires.is_asked).into_iter().chain([wires.notify]);
    for uuid in needed {
        if find(offered, wires.service, uuid).is_none() {
            let (profile, service) = (&wires.profile, wires.service);
            return Err(format!(
                "the device is none of the profile {profile}: it has no service {service} with characteristic {uuid}"
            ));
        }
    }
    let found = find(offered, wires.service, wires.notify);
    Ok(found.into_iter().map(|found| Chosen { found, is_needed: true }).collect())
}

async fn read_sign_of_life(key: SensorKey, ear: Ear, limit: Duration, clock: Clock) -> Option<Done> {
    let Ear { peripheral, echoes, .. } = ear;
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

/// The characteristic that is the sensor's clock: Current Time, or else the Date Time that some have in the service of
/// their measurement.
fn clock_of(offered: &BTreeSet<Found>) -> Option<(u16, &Found)> {
    let in_any = |uuid: u16| offered.iter().find(|found| found.uuid == bluetooth_uuid(uuid));
    [CURRENT_TIME.uuid, DATE_TIME].into_iter().find_map(|uuid| Some((uuid, in_any(uuid)?)))
}

/// What cannot be read is told in the log if somebody counts on it: the sensor is none the worse.
///
/// The question for a protected value makes BlueZ pair. So without a bond only Current Time in its own service is asked
/// for, and not again where that was protected; a Date Time that stands in a maker's place is not.
async fn read_clock(
    ear: Ear,
    deliver: mpsc::Sender<Delivery>,
    is_optional: bool,
    is_bonded: bool,
    limit: Duration,
    clock: Clock,
) -> Option<Done> {
    let offered = ear.peripheral.characteristics();
    let answer = match clock_of(&offered) {
        // What may only be written or is only told is not asked for: some sensors would want to be paired for it.
        Some((uuid, found))
            if found.properties.contains(CharPropFlags::READ) && may_be_read(found, &ear, is_bonded) =>
        {
            let reading = ear.echoes.reading(uuid);
            let result = bounded("reading", limit, ear.peripheral.read(found)).await;
            let received = clock.now();
            reading.done(result.as_ref().ok(), received.mono);
            if let Err(words) = &result
                && WANTS_A_BOND.iter().any(|answer| words.contains(answer))
            {
                ear.is_clock_protected.store(true, Ordering::Relaxed);
            }
            result.map(|bytes| Delivery::Payload { uuid, bytes, received })
        }
        _ => Err("it has no clock that can be read without pairing".to_owned()),
    };
    let answer = answer.unwrap_or_else(|reason| {
        if is_optional {
            debug!(reason, "the sensor does not tell its time");
        } else {
            warn!(reason, "the sensor could not be asked for its time");
        }
        Delivery::NoTime
    });
    // A source that has gone needs no answer.
    let _ = deliver.send(answer).await;
    None
}

fn may_be_read(found: &Found, ear: &Ear, is_bonded: bool) -> bool {
    let is_current_time =
        found.uuid == bluetooth_uuid(CURRENT_TIME.uuid) && found.service_uuid == bluetooth_uuid(CURRENT_TIME.service);
    is_bonded || (is_current_time && !ear.is_clock_protected.load(Ordering::Relaxed))
}

async fn set_clock(
    peripheral: Peripheral,
    time: CurrentTime,
    deliver: mpsc::Sender<Delivery>,
    limit: Duration,
    clock: Clock,
) -> Option<Done> {
    let offered = peripheral.characteristics();
    let Some((uuid, _)) = clock_of(&offered) else {
        warn!("the sensor has no clock that can be set: `set_clock` does nothing for it");
        return None;
    };
    let bytes = if uuid == DATE_TIME { time.time.encode().to_vec() } else { time.encode().to_vec() };
    if write(peripheral, uuid, bytes, limit).await {
        // A source that has gone needs no answer.
        let _ = deliver.send(Delivery::TimeTaken { received: clock.now() }).await;
    }
    None
}

/// What cannot be written is told in the log: a sensor without the characteristic is none the worse. True if the sensor has
/// taken it.
async fn write(peripheral: Peripheral, wanted: u16, bytes: Vec<u8>, limit: Duration) -> bool {
    let offered = peripheral.characteristics();
    let uuid = bluetooth_uuid(wanted);
    let Some(found) = offered.iter().find(|found| found.uuid == uuid) else {
        debug!(characteristic = %uuid, "the sensor has nothing to write this to");
        return false;
    };
    let written = bounded("writing", limit, peripheral.write(found, &bytes, WriteType::WithResponse)).await;
    if let Err(error) = &written {
        warn!(characteristic = %uuid, %error, "the sensor did not take what was written");
    }
    written.is_ok()
}

/// Writes the next bytes to a byte stream, and tells the source how that went.
async fn send(
    peripheral: Peripheral,
    wires: Arc<Wires>,
    bytes: Vec<u8>,
    deliver: mpsc::Sender<Delivery>,
    limit: Duration,
) -> Option<Done> {
    let offered = peripheral.characteristics();
    let found = wires.write.and_then(|uuid| find(&offered, wires.service, uuid));
    let result = match found {
        Some(found) => {
            // With a response where it is possible: then a refusal is told.
            let how = if found.properties.contains(CharPropFlags::WRITE) {
                WriteType::WithResponse
            } else {
                WriteType::WithoutResponse
            };
            bounded("writing to the sensor", limit, peripheral.write(found, &bytes, how)).await
        }
        None => Err("the sensor has nothing that can be written to".to_owned()),
    };
    // A source that has gone needs no answer.
    let _ = deliver.send(Delivery::Sent(result)).await;
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
