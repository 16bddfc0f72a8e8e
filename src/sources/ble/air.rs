//! The radio that all Bluetooth sources of a daemon share: the one task that runs the connection policy.
//!
//! It feeds the policy with what the two ways to BlueZ and the sources tell, and carries out what the policy orders.
//! Links are made through btleplug in a [`Generation`]; scanning, ending links, forgetting devices and switching the
//! adapter go through [`crate::bluez`], because btleplug cannot, or does it by switching the adapter on against whoever
//! switched it off.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::client::{Client, CommitWish, Report};
use super::leaks;
use super::policy::{
    Advert, BleLimits, Ended, Input, Known, Obstacle, Order, Policy, SensorKey, SensorPhase, SensorState, WantedSensor,
};
use super::power::{self, Note};
use super::radio::{Delivery, Generation, Task, Word};
use super::side::{Side, SideEvent};
use super::status::{AirStatus, SensorStatus};
use super::unattended::Unattended;
use super::wanted::Wanted;
use super::wires::Subscription;
use crate::bluez::{Adapter, BleAddress, Bluez, BluezError, BluezEvent, BluezLimits, Cause, Device, Peer, Transport};
use crate::clock::Clock;
use crate::ids::{DeviceId, SourceId};
use crate::timeline::Timeline;

/// Sources that may wait to be registered; each waits for the answer.
const REGISTRATIONS_QUEUED: usize = 16;
/// Reports of sources that may wait. One more says nothing that the next one will not say again.
const REPORTS_QUEUED: usize = 256;
/// Payloads on their way to one source. While the pipeline takes none, the link's reader waits.
pub(super) const DELIVERIES_QUEUED: usize = 64;
/// States on their way to one source; what does not fit is told as soon as it does, newest only.
const NEWS_QUEUED: usize = 16;
/// Names of devices that are remembered, to recognise them by their next advertisement.
const MAX_NAMES: usize = 1024;
/// Names are asked for at most this often.
const BETWEEN_NAMES: Duration = Duration::from_secs(3);
/// What the end of all links, or of a power cycle, may take when the daemon stops. BlueZ finishes links when we have gone,
/// and the next run a power cycle.
const STOP_LIMIT: Duration = Duration::from_millis(1800);
/// More leaked match rules than this, and the generation is renewed as soon as no link has to be made again for it.
const LEAKED_IN_QUIET: u64 = 4;
/// More than this, and it is renewed at once: the bus allows a client 512.
const MOST_LEAKED: u64 = 400;

/// Which adapter is used, and how long things may take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AirSettings {
    /// `hci0`; `None`: the first one.
    pub adapter: Option<String>,
    /// Limits.
    pub limits: BleLimits,
}

/// What the daemon around the radio does for it.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Takes the wishes of sources to be told when their records are on disk.
    pub commits: Option<mpsc::Sender<CommitWish>>,
    /// Where it is written down which sensors were bonded, so that no later run makes a lost bond again.
    pub bonds_file: Option<PathBuf>,
    /// Where it is written down that this program has switched the adapter off, for the moment until it is on again.
    pub power_file: Option<PathBuf>,
    /// Where systemd tells that the clock was set; `None`: nobody can tell, and no sensor's clock is set by it.
    pub time_sync: Option<&'static Path>,
    /// What the daemon knows of the clock; where it knows nothing, `time_sync` tells.
    pub timeline: Option<watch::Receiver<Arc<Timeline>>>,
}

/// The handle to the radio. Clones share it. It does nothing until [`Air::run`] runs.
#[derive(Debug, Clone)]
pub struct Air {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: AirSettings,
    registrations: mpsc::Sender<Registration>,
    /// Taken by who runs it.
    inbox: Mutex<Option<mpsc::Receiver<Registration>>>,
    status: watch::Sender<AirStatus>,
}

/// A source that wants a sensor.
#[derive(Debug)]
struct Registration {
    wanted: WantedSensor,
    subscription: Subscription,
    source: SourceId,
    device: DeviceId,
    deliver: mpsc::Sender<Delivery>,
    news: mpsc::Sender<SensorState>,
    answer: oneshot::Sender<Registered>,
}

#[derive(Debug)]
struct Registered {
    key: SensorKey,
    reports: mpsc::Sender<(SensorKey, Report)>,
    commits: Option<mpsc::Sender<CommitWish>>,
    time_sync: Option<&'static Path>,
    timeline: Option<watch::Receiver<Arc<Timeline>>>,
}

impl Air {
    /// A radio that nobody runs yet.
    pub fn new(settings: AirSettings) -> Self {
        let (registrations, inbox) = mpsc::channel(REGISTRATIONS_QUEUED);
        let inbox = Mutex::new(Some(inbox));
        let status = watch::Sender::new(AirStatus::default());
        Self { shared: Arc::new(Shared { settings, registrations, inbox, status }) }
    }

    /// The adapter that is used, if one is named.
    pub fn adapter(&self) -> Option<&str> {
        self.shared.settings.adapter.as_deref()
    }

    /// What it and its sensors are doing.
    pub fn status(&self) -> watch::Receiver<AirStatus> {
        self.shared.status.subscribe()
    }

    /// Wants a sensor, for as long as the client lives. Waits until the radio runs; `None`: it has ended.
    pub(super) async fn want(
        &self,
        wanted: WantedSensor,
        subscription: Subscription,
        source: SourceId,
        device: DeviceId,
    ) -> Option<Client> {
        let (deliver, deliveries) = mpsc::channel(DELIVERIES_QUEUED);
        let (tell, news) = mpsc::channel(NEWS_QUEUED);
        let (answer, answered) = oneshot::channel();
        let registration = Registration { wanted, subscription, source, device, deliver, news: tell, answer };
        self.shared.registrations.send(registration).await.ok()?;
        let Registered { key, reports, commits, time_sync, timeline } = answered.await.ok()?;
        Some(Client { key, deliveries, news, reports, commits, time_sync, timeline })
    }

    /// Runs the radio until `stop`; then ends all links and lets go of all sources.
    ///
    /// # Errors
    /// Nothing that can be done inside this process has helped: it is to be started anew.
    pub async fn run(self, clock: Clock, surroundings: Surroundings, stop: CancellationToken) -> anyhow::Result<()> {
        let inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(inbox) = inbox else { anyhow::bail!("the Bluetooth radio runs already") };
        let mut hasher = DefaultHasher::new();
        clock.now().hash(&mut hasher);
        let seed = hasher.finish();
        let (reports_in, reports) = mpsc::channel(REPORTS_QUEUED);
        let limits = self.shared.settings.limits;
        let side_limits = BluezLimits { call: limits.call, disconnect: limits.disconnect, ..BluezLimits::default() };
        let note = Note::new(surroundings.power_file);
        let driver = Driver {
            policy: Policy::new(&limits, seed, clock.now()),
            settings: self.shared.settings.clone(),
            status: self.shared.clone(),
            clock,
            commits: surroundings.commits,
            time_sync: surroundings.time_sync,
            timeline: surroundings.timeline,
            reports_in,
            sensors: BTreeMap::new(),
            generation: None,
            leaked_before: 0,
            bluez: None,
            no_bus: None,
            daemon_runs: false,
            adapters: BTreeMap::new(),
            adapter: None,
            names: BTreeMap::new(),
            names_asked: None,
            jobs: FuturesUnordered::new(),
            switching: None,
            left_off: note.read().await,
            note,
            unattended: Unattended::new(surroundings.bonds_file).await,
            inputs: VecDeque::new(),
        };
        driver.run(Side::new(side_limits, seed), inbox, reports, stop).await
    }
}

/// A source and its sensor.
struct Sensor {
    wanted: Wanted,
    subscription: Subscription,
    source: SourceId,
    device: DeviceId,
    deliver: mpsc::Sender<Delivery>,
    news: mpsc::Sender<SensorState>,
    told: Option<SensorState>,
}

/// What a question to BlueZ has brought.
enum Answer {
    Inputs(Vec<Input>),
    /// The devices that BlueZ knows by this adapter; after the start of a generation, with the adapter's power.
    Devices(String, Vec<Device>, Option<bool>),
}

type Job = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An adapter that is plugged in.
struct Plugged {
    /// Its own address, which stays when it is plugged in elsewhere.
    address: String,
    is_on: bool,
}

/// The task.
struct Driver {
    policy: Policy,
    settings: AirSettings,
    status: Arc<Shared>,
    clock: Clock,
    commits: Option<mpsc::Sender<CommitWish>>,
    time_sync: Option<&'static Path>,
    timeline: Option<watch::Receiver<Arc<Timeline>>>,
    reports_in: mpsc::Sender<(SensorKey, Report)>,
    sensors: BTreeMap<SensorKey, Sensor>,
    generation: Option<Generation>,
    /// Match rules leaked before this generation began.
    leaked_before: u64,
    bluez: Option<Bluez>,
    /// Why the bus cannot be reached.
    no_bus: Option<String>,
    daemon_runs: bool,
    /// The adapters by their names.
    adapters: BTreeMap<String, Plugged>,
    /// The one in use.
    adapter: Option<String>,
    /// Names of devices that were heard.
    names: BTreeMap<BleAddress, String>,
    names_asked: Option<crate::clock::Mono>,
    jobs: FuturesUnordered<Job>,
    /// The adapter is being switched. Carried through to its end, also when the daemon stops.
    switching: Option<Job>,
    /// What is written down about it.
    note: Note,
    /// The adapter that an earlier run has switched off and not on again.
    left_off: Option<String>,
    /// Answers sensors that want to be paired.
    unattended: Unattended,
    inputs: VecDeque<Input>,
}

impl Driver {
    async fn run(
        mut self,
        mut side: Side,
        mut inbox: mpsc::Receiver<Registration>,
        mut reports: mpsc::Receiver<(SensorKey, Report)>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let now = self.clock.now();
            let due = self.policy.next_deadline(now).map(|at| at.since(now.mono));
            tokio::select! {
                biased;
                // The daemon stops: links are ended, so that sensors may sleep.
                () = stop.cancelled() => break,
                // A source has come.
                Some(registration) = inbox.recv() => self.register(registration),
                // What happens to the daemon, the adapter and the devices.
                event = side.next() => self.on_side(event),
                // How orders went.
                word = next_word(&mut self.generation) => self.on_word(word),
                Some(answer) = self.jobs.next(), if !self.jobs.is_empty() => self.on_answer(answer),
                answer = next_switch(&mut self.switching) => {
                    self.switching = None;
                    self.on_answer(answer);
                }
                // Data.
                Some((key, report)) = reports.recv() => self.on_report(key, report),
                // Sensors that want to be paired.
                () = self.unattended.work() => {}
                // A deadline of the policy; a little later, because a timer may fire a little early.
                () = sleep(due) => self.inputs.push_back(Input::Tick),
            }
            self.forget_sources();
            self.turn()?;
        }
        self.shut_down().await;
        Ok(())
    }

    /// Feeds the policy until it has nothing more to say.
    fn turn(&mut self) -> anyhow::Result<()> {
        self.renew_before_the_limit();
        loop {
            let input = self.inputs.pop_front().unwrap_or(Input::Tick);
            let is_last = input == Input::Tick && self.inputs.is_empty();
            let orders = self.policy.on(input, self.clock.now());
            for order in orders {
                self.carry_out(order)?;
            }
            if is_last && self.inputs.is_empty() {
                break;
            }
        }
        self.publish();
        Ok(())
    }

    fn register(&mut self, registration: Registration) {
        let Registration { wanted, subscription, source, device, deliver, news, answer } = registration;
        let key = self.policy.add(wanted.clone(), self.clock.now());
        let wanted = wanted.wanted;
        self.sensors.insert(key, Sensor { wanted, subscription, source, device, deliver, news, told: None });
        let (reports, commits) = (self.reports_in.clone(), self.commits.clone());
        let (time_sync, timeline) = (self.time_sync, self.timeline.clone());
        let registered = Registered { key, reports, commits, time_sync, timeline };
        // Who has gone meanwhile is forgotten with the next turn.
        let _ = answer.send(registered);
        self.unattended.configure(self.sensors.values().map(|sensor| &sensor.wanted));
    }

    /// Lets go of sensors whose source has gone.
    fn forget_sources(&mut self) {
        let gone: Vec<SensorKey> =
            self.sensors.iter().filter(|(_, sensor)| sensor.deliver.is_closed()).map(|(key, _)| *key).collect();
        for key in gone {
            self.sensors.remove(&key);
            self.policy.remove(key);
            self.unattended.configure(self.sensors.values().map(|sensor| &sensor.wanted));
        }
    }

    // What is told.

    fn on_side(&mut self, event: SideEvent) {
        match event {
            SideEvent::Reached(bluez) => {
                (self.bluez, self.no_bus) = (Some(bluez), None);
                info!("BlueZ can be asked");
            }
            SideEvent::Lost(words) => {
                (self.bluez, self.daemon_runs, self.adapter) = (None, false, None);
                self.unattended.stop();
                self.adapters.clear();
                self.generation = None;
                self.no_bus = Some(words.clone());
                self.inputs.push_back(Input::Down(Ended { obstacle: Obstacle::NoBus, words }));
            }
            SideEvent::Told(event) => self.on_bluez(event),
        }
    }

    fn on_bluez(&mut self, event: BluezEvent) {
        match event {
            BluezEvent::DaemonGone => {
                (self.daemon_runs, self.adapter) = (false, None);
                self.unattended.stop();
                self.adapters.clear();
                self.inputs.push_back(Input::DaemonGone);
            }
            BluezEvent::DaemonBack => {
                self.daemon_runs = true;
                if let Some(bluez) = &self.bluez {
                    self.unattended.start(bluez.clone());
                }
            }
            BluezEvent::AdapterAdded(adapter) => {
                let Adapter { name, address, powered: is_on, .. } = adapter;
                self.adapters.insert(name, Plugged { address, is_on });
                self.choose_adapter();
            }
            BluezEvent::AdapterRemoved { name } => {
                self.adapters.remove(&name);
                if self.adapter.as_ref() == Some(&name) {
                    self.adapter = None;
                    self.inputs.push_back(Input::AdapterGone);
                    self.choose_adapter();
                }
            }
            BluezEvent::Powered { adapter, on } => {
                if self.adapter.as_ref() == Some(&adapter) {
                    self.inputs.push_back(Input::Powered(on));
                    self.forget_switching();
                }
                if let Some(plugged) = self.adapters.get_mut(&adapter) {
                    plugged.is_on = on;
                }
            }
            BluezEvent::DeviceAdded(device) => self.on_device(&device),
            BluezEvent::Heard { peer, rssi } => self.on_heard(&peer, rssi),
            BluezEvent::Advertised { peer, manufacturer_data, service_data } => {
                self.on_advertised(&peer, &manufacturer_data, &service_data);
            }
            about_one => self.on_peer(about_one),
        }
    }

    fn on_peer(&mut self, event: BluezEvent) {
        let (peer, input): (Peer, fn(SensorKey) -> Input) = match event {
            BluezEvent::Connected { peer, on: true } => (peer, Input::LinkUp),
            BluezEvent::Connected { peer, on: false } => (peer, Input::LinkDown),
            BluezEvent::Bonded { peer, on: true } => {
                if let Some(wanted) = self.wanted_of(peer.address) {
                    self.unattended.bonded(peer.address, wanted);
                }
                (peer, |key| Input::Bonded(key, true))
            }
            BluezEvent::Bonded { peer, on: false } => (peer, |key| Input::Bonded(key, false)),
            BluezEvent::Battery { peer, percent } => {
                if let Some(key) = self.key_of(&peer) {
                    self.inputs.push_back(Input::Battery(key, percent));
                }
                return;
            }
            _ => return,
        };
        if let Some(key) = self.key_of(&peer) {
            self.inputs.push_back(input(key));
        }
    }

    fn key_of(&self, peer: &Peer) -> Option<SensorKey> {
        (self.adapter.as_ref() == Some(&peer.adapter)).then(|| self.policy.at(peer.address)).flatten()
    }

    fn on_device(&mut self, device: &Device) {
        if self.adapter.as_ref() != Some(&device.peer.adapter) {
            return;
        }
        self.remember_name(device);
        if let Some(rssi) = device.rssi {
            self.on_heard(&device.peer, rssi);
            self.on_advertised(&device.peer, &device.manufacturer_data, &device.service_data);
        }
        self.remember_bond(device);
        if let Some(key) = self.policy.at(device.peer.address) {
            self.inputs.push_back(Input::Bonded(key, device.bonded));
            // What is new and connected was connected by the kernel for a bluetoothd that has died.
            if device.connected {
                self.inputs.push_back(Input::LinkFound(key));
            }
        }
    }

    fn remember_name(&mut self, device: &Device) {
        let Some(name) = &device.name else { return };
        if self.names.len() >= MAX_NAMES && !self.names.contains_key(&device.peer.address) {
            self.names.clear();
        }
        self.names.insert(device.peer.address, name.clone());
    }

    fn on_heard(&mut self, peer: &Peer, rssi: i16) {
        if self.adapter.as_ref() != Some(&peer.adapter) {
            return;
        }
        let name = self.names.get(&peer.address).cloned();
        if name.is_none() {
            self.ask_for_names();
        }
        self.inputs.push_back(Input::Advert(Advert { address: peer.address, name, rssi: Some(rssi) }));
    }

    /// Hands what a device tells everybody to the sources that only listen to it.
    fn on_advertised(
        &self,
        peer: &Peer,
        manufacturer_data: &BTreeMap<u16, Vec<u8>>,
        service_data: &BTreeMap<Uuid, Vec<u8>>,
    ) {
        if self.adapter.as_ref() != Some(&peer.adapter) {
            return;
        }
        let name = self.names.get(&peer.address).map(String::as_str);
        for sensor in self.sensors.values().filter(|sensor| sensor.wanted.is_met_by(peer.address, name)) {
            let Subscription::Heard(heard) = &sensor.subscription else { continue };
            if let Some(bytes) = heard.find(manufacturer_data, service_data) {
                let delivery = Delivery::Advertised { bytes: bytes.to_vec(), received: self.clock.now() };
                // It is repeated many times a second: one that finds no room comes again.
                let _ = sensor.deliver.try_send(delivery);
            }
        }
    }

    /// A name may come after the first advertisement, and BlueZ does not say so.
    fn ask_for_names(&mut self) {
        let now = self.clock.now().mono;
        let is_wanted = self.sensors.values().any(|sensor| matches!(sensor.wanted, Wanted::Name(_)));
        let is_early = self.names_asked.is_some_and(|asked| now.since(asked) < BETWEEN_NAMES);
        if !is_wanted || is_early {
            return;
        }
        self.names_asked = Some(now);
        self.ask_devices(None);
    }

    /// Asks for all devices of the adapter. With `powered`, for the start of a generation.
    fn ask_devices(&mut self, powered: Option<bool>) {
        let (Some(bluez), Some(adapter)) = (self.bluez.clone(), self.adapter.clone()) else { return };
        self.jobs.push(Box::pin(async move {
            match bluez.devices(Some(&adapter)).await {
                Ok(devices) => Answer::Devices(adapter, devices, powered),
                Err(error) if powered.is_some() => Answer::Inputs(vec![Input::Down(ended(&error))]),
                Err(_) => Answer::Inputs(vec![]),
            }
        }));
    }

    fn on_word(&mut self, word: Result<Word, Ended>) {
        match word {
            Ok(Word::Up) => {
                let plugged = self.adapter.as_ref().and_then(|name| self.adapters.get(name));
                let is_on = plugged.is_some_and(|plugged| plugged.is_on);
                if is_on {
                    self.forget_switching();
                }
                self.ask_devices(Some(is_on));
            }
            Ok(Word::Connected(key, result)) => self.inputs.push_back(Input::Connected(key, result)),
            Ok(Word::Subscribed(key, result)) => self.inputs.push_back(Input::Subscribed(key, result)),
            Ok(Word::BatteryRead(key, result)) => self.inputs.push_back(Input::BatteryRead(key, result)),
            Err(ended) => {
                warn!(%ended, "the Bluetooth thread ended and is started again");
                self.generation = None;
                self.inputs.push_back(Input::Down(ended));
            }
        }
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Inputs(inputs) => self.inputs.extend(inputs),
            // Asked of one that was unplugged since.
            Answer::Devices(adapter, ..) if self.adapter.as_ref() != Some(&adapter) => {}
            Answer::Devices(_, devices, powered) => {
                for device in &devices {
                    self.remember_name(device);
                    self.remember_bond(device);
                }
                if let Some(powered) = powered {
                    let known = devices.iter().map(known).collect();
                    self.inputs.push_back(Input::Up { powered, known });
                }
                for device in devices.iter().filter(|device| device.bonded) {
                    if let Some(key) =
                        self.policy.at(device.peer.address).or_else(|| self.wanted_at(device.peer.address))
                    {
                        self.inputs.push_back(Input::Bonded(key, true));
                    }
                }
            }
        }
    }

    fn remember_bond(&self, device: &Device) {
        if let Some(wanted) = self.wanted_of(device.peer.address).filter(|_| device.bonded) {
            self.unattended.bonded(device.peer.address, wanted);
            self.unattended.bonded(device.address, wanted);
        }
    }

    /// How the configured sensor at this address is recognised.
    fn wanted_of(&self, address: BleAddress) -> Option<&Wanted> {
        self.sensors.get(&self.wanted_at(address)?).map(|sensor| &sensor.wanted)
    }

    /// The configured sensor at this address, whose name is known if it has told one.
    fn wanted_at(&self, address: BleAddress) -> Option<SensorKey> {
        let name = self.names.get(&address).map(String::as_str);
        let is_it = |sensor: &Sensor| sensor.wanted.is_met_by(address, name);
        self.sensors.iter().find(|(_, sensor)| is_it(sensor)).map(|(key, _)| *key)
    }

    fn on_report(&mut self, key: SensorKey, report: Report) {
        match report {
            Report::Understood { is_new: true } => self.inputs.push_back(Input::Data(key)),
            Report::Understood { is_new: false } => self.inputs.push_back(Input::Again(key)),
            Report::Finished(result) => self.inputs.push_back(Input::Finished(key, result)),
            Report::ReadClock { is_optional } => {
                if let Some(sensor) = self.sensors.get(&key) {
                    let is_bonded = sensor.told.as_ref().is_some_and(|told| told.bonded);
                    let deliver = sensor.deliver.clone();
                    self.order(Task::ReadClock { key, deliver, is_optional, is_bonded });
                }
            }
            Report::SetClock(time) => {
                if let Some(sensor) = self.sensors.get(&key) {
                    self.order(Task::SetClock { key, time, deliver: sensor.deliver.clone() });
                }
            }
            Report::Write(characteristic, bytes) => self.order(Task::Write(key, characteristic, bytes)),
            Report::Send(bytes) => {
                if let Some(Sensor { subscription: Subscription::Stream(wires), deliver, .. }) = self.sensors.get(&key)
                {
                    let (wires, deliver) = (Arc::clone(wires), deliver.clone());
                    self.order(Task::Send { key, wires, bytes, deliver });
                }
            }
        }
    }

    fn choose_adapter(&mut self) {
        if self.adapter.is_some() {
            return;
        }
        let chosen = match &self.settings.adapter {
            Some(name) => self.adapters.contains_key(name).then(|| name.clone()),
            None => self.adapters.keys().next().cloned(),
        };
        if let Some(name) = chosen {
            info!(adapter = name, "using the Bluetooth adapter");
            let address = self.adapters.get(&name).map(|plugged| plugged.address.clone()).unwrap_or_default();
            let left_off = self.left_off.take_if(|left| *left == address).is_some();
            self.adapter = Some(name);
            self.inputs.push_back(Input::AdapterBack { address, left_off });
        }
    }

    /// What the adapter is, it is by somebody's wish, and no later run may change it for the sake of an old note.
    fn forget_switching(&mut self) {
        if self.switching.is_none() {
            let note = self.note.clone();
            self.jobs.push(Box::pin(async move {
                note.erase().await;
                Answer::Inputs(vec![])
            }));
        }
    }

    // What is ordered.

    fn carry_out(&mut self, order: Order) -> anyhow::Result<()> {
        debug!(?order, "bluetooth");
        match order {
            Order::NewGeneration => self.start_generation(),
            Order::EndGeneration => self.generation = None,
            Order::StartScan => self.job(|bluez, adapter| async move {
                let started = bluez.start_scan(&adapter, Transport::LowEnergy).await;
                let started =
                    started.or_else(|error| if error.cause == Cause::InProgress { Ok(()) } else { Err(error) });
                vec![Input::ScanStarted(started.map_err(|error| error.to_string()))]
            }),
            Order::StopScan => self.job(|bluez, adapter| async move {
                if let Err(error) = bluez.stop_scan(&adapter).await {
                    debug!(%error, "the scan goes on beside the connection");
                }
                vec![Input::ScanStopped]
            }),
            Order::Connect(key, address) => {
                if let Some(sensor) = self.sensors.get(&key) {
                    let (to, deliver) = (sensor.subscription.clone(), sensor.deliver.clone());
                    self.order(Task::Connect { key, address, to, deliver });
                }
            }
            Order::Subscribe(key) => {
                if let Some(sensor) = self.sensors.get(&key) {
                    let (to, deliver) = (sensor.subscription.clone(), sensor.deliver.clone());
                    self.order(Task::Subscribe { key, to, deliver });
                }
            }
            Order::ReadBattery(key) => self.order(Task::ReadBattery(key)),
            Order::Disconnect(key, address) => {
                // What goes on with it is given up; BlueZ then cancels a `Connect` of its own.
                self.order(Task::Release(key));
                self.job(move |bluez, adapter| async move {
                    let peer = Peer { adapter, address };
                    if let Err(error) = bluez.disconnect(&peer).await {
                        debug!(%address, %error, "no clean disconnect");
                    }
                    vec![Input::Disconnected(key)]
                });
            }
            Order::Remove(key, address) => self.remove(key, address),
            Order::PowerCycle => self.switch(power::cycle),
            Order::PowerOn => self.switch(power::switch_on),
            Order::Exit(words) => anyhow::bail!(words),
        }
        Ok(())
    }

    fn order(&self, task: Task) {
        if let Some(generation) = &self.generation {
            generation.order(task);
        }
    }

    /// Asks BlueZ something; the policy has a deadline for each answer.
    fn job<F>(&mut self, ask: impl FnOnce(Bluez, String) -> F)
    where
        F: Future<Output = Vec<Input>> + Send + 'static,
    {
        if let (Some(bluez), Some(adapter)) = (self.bluez.clone(), self.adapter.clone()) {
            let asked = ask(bluez, adapter);
            self.jobs.push(Box::pin(async move { Answer::Inputs(asked.await) }));
        }
    }

    /// Switches the adapter.
    fn switch<F>(&mut self, how: impl FnOnce(Bluez, String, Note) -> F)
    where
        F: Future<Output = Vec<Input>> + Send + 'static,
    {
        if let (Some(bluez), Some(adapter)) = (self.bluez.clone(), self.adapter.clone()) {
            let switched = how(bluez, adapter, self.note.clone());
            self.switching = Some(Box::pin(async move { Answer::Inputs(switched.await) }));
        }
    }

    fn remove(&mut self, key: SensorKey, address: BleAddress) {
        self.job(move |bluez, adapter| async move {
            let peer = Peer { adapter, address };
            // Asked for now: what is not known not to be bonded is kept.
            match bluez.is_bonded(&peer).await {
                Ok(false) => {
                    info!(%address, "BlueZ is made to forget a sensor that cannot be connected");
                    if let Err(error) = bluez.remove(&peer).await {
                        debug!(%address, %error, "it could not be removed");
                    }
                    vec![Input::Removed(key)]
                }
                Ok(true) => vec![Input::Bonded(key, true), Input::Removed(key)],
                Err(error) => {
                    debug!(%address, %error, "not removed");
                    vec![Input::Removed(key)]
                }
            }
        });
    }

    fn start_generation(&mut self) {
        let no_bus = || "the D-Bus system bus is being reached".to_owned();
        let ended = if self.bluez.is_none() {
            let obstacle = if self.no_bus.is_some() { Obstacle::NoBus } else { Obstacle::Starting };
            Ended { obstacle, words: self.no_bus.clone().unwrap_or_else(no_bus) }
        } else if !self.daemon_runs {
            let words = "bluetoothd does not run: `systemctl status bluetooth` says why".to_owned();
            Ended { obstacle: Obstacle::NoDaemon, words }
        } else if let Some(adapter) = self.adapter.clone() {
            self.leaked_before = leaks::leaked();
            match Generation::start(adapter, &self.settings.limits, self.clock.clone()) {
                Ok(generation) => {
                    self.generation = Some(generation);
                    return;
                }
                Err(ended) => ended,
            }
        } else {
            let words = match &self.settings.adapter {
                Some(name) => format!("no Bluetooth adapter {name}"),
                None => "no Bluetooth adapter".to_owned(),
            };
            Ended { obstacle: Obstacle::NoAdapter, words }
        };
        self.inputs.push_back(Input::Down(ended));
    }

    /// A generation that has left many match rules at the bus is replaced before the bus refuses the next one, at a
    /// moment when no link has to be made again for it, or else when there is no other choice.
    fn renew_before_the_limit(&mut self) {
        if self.generation.is_none() {
            return;
        }
        let leaked = leaks::leaked().saturating_sub(self.leaked_before);
        let now = self.clock.now();
        let is_quiet = || {
            let phases = self.policy.keys().filter_map(|key| self.policy.sensor(key, now)).map(|state| state.phase);
            phases.into_iter().all(|phase| matches!(phase, SensorPhase::Searching | SensorPhase::Heard))
        };
        if leaked > MOST_LEAKED || leaked > LEAKED_IN_QUIET && is_quiet() {
            info!(leaked, "the Bluetooth thread is renewed: it has left match rules at the bus");
            self.generation = None;
            let words = format!("renewed, because {leaked} match rules were left at the bus");
            self.inputs.push_back(Input::Down(Ended { obstacle: Obstacle::Failed, words }));
        }
    }

    // What is shown.

    fn publish(&mut self) {
        let now = self.clock.now();
        for (key, sensor) in &mut self.sensors {
            let Some(state) = self.policy.sensor(*key, now) else { continue };
            let is_same = sensor.told.as_ref().is_some_and(|told| {
                (told.phase, &told.reason, told.battery) == (state.phase, &state.reason, state.battery)
            });
            if !is_same {
                debug!(source = %sensor.source, phase = %state.phase, reason = state.reason, "bluetooth sensor");
            }
            // What does not fit is tried again with the next turn.
            if !is_same && sensor.news.try_send(state.clone()).is_ok() {
                sensor.told = Some(state);
            }
        }
        let sensors = self.sensors.iter().filter_map(|(key, sensor)| {
            let state = self.policy.sensor(*key, now)?;
            let (source, device) = (sensor.source.clone(), sensor.device.clone());
            let (kind, profile) = (sensor.subscription.kind(), sensor.subscription.profile().map(ToOwned::to_owned));
            Some(SensorStatus { source, device, sensor: kind, profile, state })
        });
        let status = AirStatus {
            adapter: self.adapter.clone(),
            radio: Some(self.policy.radio()),
            match_rules_leaked: leaks::leaked(),
            radio_tasks: self.generation.as_ref().map_or(0, Generation::tasks),
            sensors: sensors.collect(),
        };
        self.status.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
    }

    /// Ends all links, then lets go of the sources: what has arrived is still theirs.
    async fn shut_down(mut self) {
        let keys: Vec<SensorKey> = self.sensors.keys().copied().collect();
        self.jobs.clear();
        // An adapter that is off would stay so.
        self.jobs.extend(self.switching.take());
        for key in keys {
            self.policy.remove(key);
        }
        for order in self.policy.on(Input::Tick, self.clock.now()) {
            if matches!(order, Order::Disconnect(..)) && self.carry_out(order).is_err() {
                break;
            }
        }
        let ended = async { while self.jobs.next().await.is_some() {} };
        if tokio::time::timeout(STOP_LIMIT, ended).await.is_err() {
            debug!("BlueZ ends the links without us, and the next run a power cycle");
        }
    }
}

fn known(device: &Device) -> Known {
    let advert = Advert { address: device.peer.address, name: device.name.clone(), rssi: None };
    Known { advert, connected: device.connected }
}

fn ended(error: &BluezError) -> Ended {
    let obstacle = match error.cause {
        Cause::NoBus(_) => Obstacle::NoBus,
        Cause::ServiceUnknown => Obstacle::NoDaemon,
        Cause::NoAdapter(_) => Obstacle::NoAdapter,
        _ => Obstacle::Failed,
    };
    Ended { obstacle, words: error.to_string() }
}

async fn next_word(generation: &mut Option<Generation>) -> Result<Word, Ended> {
    match generation {
        Some(generation) => generation.next().await,
        None => std::future::pending().await,
    }
}

async fn next_switch(switching: &mut Option<Job>) -> Answer {
    match switching {
        Some(switching) => switching.await,
        None => std::future::pending().await,
    }
}

async fn sleep(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}
