//! A fake `org.bluez` on a private D-Bus: one adapter, some heart-rate straps, and the faults of real ones.
//!
//! It speaks as bluetoothd 5.66 and 5.82 do: `Connect` is answered before the services are resolved, a link that drops
//! is one signal with both `Connected` and `ServicesResolved` false, a daemon that dies sends nothing at all, and a link
//! outlives the daemon in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use zbus::message::{Header, Message, Type};
use zbus::{Connection, MessageStream, ObjectPath, Variant};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const ADAPTER: &str = "/org/bluez/hci0";
const ADAPTER1: &str = "org.bluez.Adapter1";
const DEVICE1: &str = "org.bluez.Device1";
const SERVICE1: &str = "org.bluez.GattService1";
const CHARACTERISTIC1: &str = "org.bluez.GattCharacteristic1";
const DESCRIPTOR1: &str = "org.bluez.GattDescriptor1";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Signals that one client may ask for. btleplug needs 4 for a strap and forgets to give some back; Debian's limit of 512
/// lasts for days then, so the tests have a smaller one.
const MATCH_RULES: u32 = 6;
/// One turn of the fake; everything that takes time there takes whole turns.
const TURN: Duration = Duration::from_millis(10);
/// A strap advertises every 5 turns.
const ADVERTISING_TURNS: u64 = 5;
/// A strap sends a measurement every 5 turns: twenty a second instead of one, so that tests are short.
const BEAT_TURNS: u64 = 5;
/// Services are resolved so many turns after the link stands.
const RESOLVING_TURNS: u64 = 3;

type Dictionary = BTreeMap<&'static str, Variant<'static>>;
type Interfaces = BTreeMap<&'static str, Dictionary>;
type Order = Box<dyn FnOnce(&mut World) + Send>;

/// A private message bus, with its socket in a folder of its own.
pub(crate) struct Bus {
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bus {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        let mut bus = Self::absent();
        bus.run().await;
        bus
    }

    /// A bus that does not run (yet).
    pub(crate) fn absent() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), daemon: None }
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("bus")
    }

    /// The value for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Runs the daemon, until it accepts connections.
    pub(crate) async fn run(&mut self) {
        let config = self.folder.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow user='*'/><allow own='*'/><allow send_type='method_call'/><allow send_type='signal'/>\
             <allow send_requested_reply='true' send_type='method_return'/>\
             <allow send_requested_reply='true' send_type='error'/><allow receive_type='method_call'/>\
             <allow receive_type='signal'/><allow receive_type='method_return'/><allow receive_type='error'/>\
             </policy><limit name='max_match_rules_per_connection'>{MATCH_RULES}</limit></busconfig>",
            self.address()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dbus-daemon runs (Debian: apt install dbus)");
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("dbus-daemon says its address");
        assert!(ready.unwrap().is_some(), "dbus-daemon ended at once");
        self.daemon = Some(daemon);
    }

    /// Kills the daemon: every connection breaks, nobody is told.
    pub(crate) async fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().await.unwrap();
        std::fs::remove_file(self.socket()).unwrap();
    }
}

/// What happens to a `Connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConnect {
    /// The link stands and the services get resolved.
    Succeeds,
    /// No answer, until `Disconnect` cancels it; a second `Connect` meanwhile is refused.
    NeverAnswers,
    /// The link stands, the services never get resolved.
    NeverResolves,
    /// The link stands and drops before the services are resolved.
    DropsAtOnce,
    /// The radio gives up.
    Fails,
}

/// A strap in the air.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "BlueZ has a boolean property for each, and they vary freely")]
pub(crate) struct Strap {
    /// Its address as text.
    pub(crate) address: &'static str,
    /// Its advertised name.
    pub(crate) name: &'static str,
    /// Whether it can be heard.
    pub(crate) in_range: bool,
    /// What happens to the next `Connect`s; afterwards they succeed.
    pub(crate) on_connect: Vec<OnConnect>,
    /// The heart-rate measurement (0x2A37) that it sends again and again; `None`: none.
    pub(crate) measurement: Option<Vec<u8>>,
    /// Whether it offers the heart-rate service.
    pub(crate) has_heart_rate: bool,
    /// Whether the link stands.
    pub(crate) connected: bool,
    resolved: bool,
    known: bool,
    heard: bool,
    /// The D-Bus name of the client that has subscribed.
    notifying: Option<String>,
    resolve_at: Option<u64>,
    drop_at: Option<u64>,
    pending: Option<Message>,
}

impl Strap {
    /// A strap in range that sends 60 bpm and one interval of 1000/1024 s.
    pub(crate) const fn new(address: &'static str, name: &'static str) -> Self {
        Self {
            address,
            name,
            in_range: true,
            on_connect: vec![],
            measurement: None,
            has_heart_rate: true,
            connected: false,
            resolved: false,
            known: false,
            heard: false,
            notifying: None,
            resolve_at: None,
            drop_at: None,
            pending: None,
        }
    }

    /// The same, sending this.
    pub(crate) fn sending(mut self, measurement: &[u8]) -> Self {
        self.measurement = Some(measurement.to_vec());
        self
    }

    /// BlueZ knows it from before.
    pub(crate) const fn remembered(&mut self) {
        self.known = true;
    }

    fn path(&self) -> String {
        format!("{ADAPTER}/dev_{}", self.address.replace(':', "_"))
    }

    fn properties(&self) -> Dictionary {
        let mut properties = Dictionary::from([
            ("Address", self.address.into()),
            ("AddressType", "random".into()),
            ("Name", self.name.into()),
            ("Alias", self.name.into()),
            ("Paired", false.into()),
            ("Connected", self.connected.into()),
            ("ServicesResolved", self.resolved.into()),
            ("Trusted", false.into()),
            ("Blocked", false.into()),
            ("LegacyPairing", false.into()),
            ("UUIDs", vec![uuid(0x180D)].into()),
            ("Adapter", object_path(ADAPTER).into()),
        ]);
        if self.heard {
            properties.insert("RSSI", (-55_i16).into());
        }
        properties
    }

    /// The objects below it: service, characteristic, descriptor.
    fn gatt(&self) -> Vec<(String, &'static str, Dictionary)> {
        if !self.resolved {
            return vec![];
        }
        let (service, characteristic) = if self.has_heart_rate { (0x180D, 0x2A37) } else { (0x180F, 0x2A19) };
        let service_path = format!("{}/service0010", self.path());
        let characteristic_path = format!("{service_path}/char0011");
        let service = Dictionary::from([
            ("UUID", uuid(service).into()),
            ("Device", object_path(&self.path()).into()),
            ("Primary", true.into()),
        ]);
        let characteristic = Dictionary::from([
            ("UUID", uuid(characteristic).into()),
            ("Service", object_path(&service_path).into()),
            ("Value", Vec::<u8>::new().into()),
            ("Flags", vec!["notify".to_owned()].into()),
            ("Notifying", self.notifying.is_some().into()),
        ]);
        let descriptor = Dictionary::from([("UUID", uuid(0x2902).into())]);
        vec![
            (service_path, SERVICE1, service),
            (characteristic_path.clone(), CHARACTERISTIC1, characteristic),
            (format!("{characteristic_path}/desc0013"), DESCRIPTOR1, descriptor),
        ]
    }
}

/// What the fake knows. Tests change it through [`FakeBluez::change`].
pub(crate) struct World {
    /// The straps.
    pub(crate) straps: Vec<Strap>,
    /// Whether an adapter is plugged in.
    pub(crate) has_adapter: bool,
    /// Every call, in order: `Connect /org/bluez/hci0/dev_...`.
    pub(crate) calls: Vec<String>,
    /// How often a `Connect` came while another one was not finished: some controllers drop both.
    pub(crate) collisions: usize,
    powered: bool,
    /// The D-Bus names of the clients that scan.
    scanning: BTreeSet<String>,
    turn: u64,
    outgoing: Vec<Message>,
}

/// The reply to a call, or the name and text of an error.
type Reply = Result<Option<Message>, (&'static str, &'static str)>;

impl World {
    /// An adapter and these straps.
    pub(crate) fn new(straps: Vec<Strap>) -> Self {
        Self {
            straps,
            has_adapter: true,
            calls: vec![],
            collisions: 0,
            powered: true,
            scanning: BTreeSet::new(),
            turn: 0,
            outgoing: vec![],
        }
    }

    /// The strap with this address.
    pub(crate) fn strap(&mut self, address: &str) -> &mut Strap {
        self.straps.iter_mut().find(|strap| strap.address == address).unwrap()
    }

    /// How often this was called, over all objects.
    pub(crate) fn count(&self, member: &str) -> usize {
        self.calls.iter().filter(|call| call.split(' ').next() == Some(member)).count()
    }

    /// The peer goes out of reach: the link drops.
    pub(crate) fn drop_link(&mut self, address: &str) {
        let strap = self.strap(address);
        (strap.connected, strap.resolved, strap.notifying) = (false, false, None);
        (strap.resolve_at, strap.drop_at) = (None, None);
        let path = strap.path();
        let changed = Dictionary::from([("ServicesResolved", false.into()), ("Connected", false.into())]);
        self.changed(&path, DEVICE1, changed);
    }

    /// The strap sends this once.
    pub(crate) fn notify(&mut self, address: &str, payload: &[u8]) {
        let path = format!("{}/service0010/char0011", self.strap(address).path());
        self.changed(&path, CHARACTERISTIC1, Dictionary::from([("Value", payload.to_vec().into())]));
    }

    /// The links as the kernel keeps them when bluetoothd is killed.
    pub(crate) fn after_a_crash(mut self) -> Self {
        for strap in &mut self.straps {
            (strap.resolved, strap.notifying, strap.heard) = (false, None, false);
            (strap.resolve_at, strap.drop_at, strap.pending) = (None, None, None);
            strap.known = strap.connected;
        }
        self.scanning.clear();
        self
    }

    fn adapter_properties(&self) -> Dictionary {
        Dictionary::from([
            ("Address", "00:AA:01:00:00:42".into()),
            ("AddressType", "public".into()),
            ("Name", "fake".into()),
            ("Alias", "fake".into()),
            ("Modalias", "usb:v1D6Bp0246d0542".into()),
            ("Powered", self.powered.into()),
            ("Discovering", (!self.scanning.is_empty()).into()),
        ])
    }

    fn objects(&self) -> BTreeMap<String, Interfaces> {
        let mut objects = BTreeMap::new();
        if !self.has_adapter {
            return objects;
        }
        objects.insert(ADAPTER.to_owned(), Interfaces::from([(ADAPTER1, self.adapter_properties())]));
        for strap in self.straps.iter().filter(|strap| strap.known) {
            objects.insert(strap.path(), Interfaces::from([(DEVICE1, strap.properties())]));
            for (path, interface, properties) in strap.gatt() {
                objects.insert(path, Interfaces::from([(interface, properties)]));
            }
        }
        objects
    }

    /// What libdbus clients read to walk from a device to its characteristics.
    fn introspect(&self, path: &str) -> String {
        let prefix = format!("{path}/");
        let objects = self.objects();
        let children: BTreeSet<&str> =
            objects.keys().filter_map(|path| path.strip_prefix(&prefix)?.split('/').next()).collect();
        let nodes: Vec<String> = children.iter().map(|child| format!("<node name=\"{child}\"/>")).collect();
        format!("<node>{}</node>", nodes.concat())
    }

    fn changed(&mut self, path: &str, interface: &str, properties: Dictionary) {
        let body = (interface, properties, Vec::<String>::new());
        self.outgoing.push(signal(path, PROPERTIES, "PropertiesChanged", &body));
    }

    /// Answers one method call. `Ok(None)`: no answer yet.
    fn call(&mut self, message: &Message) -> Reply {
        let header = message.header();
        let path = header.path().map(ToString::to_string).unwrap_or_default();
        let member = header.member().map(ToString::to_string).unwrap_or_default();
        self.calls.push(format!("{member} {path}"));
        if member == "Introspect" {
            return reply(&header, &self.introspect(&path));
        }
        if member == "GetManagedObjects" {
            let objects: BTreeMap<ObjectPath<'_>, Interfaces> =
                self.objects().into_iter().map(|(path, interfaces)| (object_path(&path), interfaces)).collect();
            return reply(&header, &objects);
        }
        let unknown = ("org.freedesktop.DBus.Error.UnknownObject", "Method on an object that does not exist");
        let objects = self.objects();
        let object = objects.get(&path).ok_or(unknown)?;
        match member.as_str() {
            "GetAll" => {
                let interface: String = message.body().deserialize().unwrap();
                reply(&header, object.get(interface.as_str()).ok_or(unknown)?)
            }
            "Get" => {
                let (interface, name): (String, String) = message.body().deserialize().unwrap();
                let value = object.get(interface.as_str()).and_then(|all| all.get(name.as_str())).ok_or(unknown)?;
                reply(&header, value)
            }
            "Set" => {
                self.powered = true;
                reply(&header, &())
            }
            "SetDiscoveryFilter" => reply(&header, &()),
            "StartDiscovery" | "StopDiscovery" => self.discovery(&header, member == "StartDiscovery"),
            "Connect" => self.connect(message, &path),
            "Disconnect" => self.disconnect(&header, &path),
            "StartNotify" => {
                self.strap_at(&path).notifying = header.sender().map(ToString::to_string);
                reply(&header, &())
            }
            _ => Err(("org.freedesktop.DBus.Error.UnknownMethod", "Method does not exist")),
        }
    }

    fn strap_at(&mut self, path: &str) -> &mut Strap {
        self.straps.iter_mut().find(|strap| path.starts_with(&strap.path())).unwrap()
    }

    fn discovery(&mut self, header: &Header<'_>, start: bool) -> Reply {
        let client = header.sender().unwrap().to_string();
        if start && !self.scanning.insert(client.clone()) {
            return Err(("org.bluez.Error.InProgress", "Operation already in progress"));
        }
        if !start && !self.scanning.remove(&client) {
            return Err(("org.bluez.Error.Failed", "No discovery started"));
        }
        self.forget_signal_strength();
        reply(header, &())
    }

    /// bluetoothd takes RSSI away from every device when the last discovery ends.
    fn forget_signal_strength(&mut self) {
        if self.scanning.is_empty() {
            self.straps.iter_mut().for_each(|strap| strap.heard = false);
        }
    }

    fn connect(&mut self, message: &Message, path: &str) -> Reply {
        let turn = self.turn;
        let is_connecting = |strap: &Strap| strap.pending.is_some() || strap.connected && !strap.resolved;
        self.collisions += usize::from(self.straps.iter().any(is_connecting));
        let strap = self.strap_at(path);
        if strap.pending.is_some() {
            return Err(("org.bluez.Error.InProgress", "Operation already in progress"));
        }
        let outcome = if strap.on_connect.is_empty() { OnConnect::Succeeds } else { strap.on_connect.remove(0) };
        if outcome == OnConnect::NeverAnswers || !strap.in_range {
            strap.pending = Some(message.clone());
            return Ok(None);
        }
        if outcome == OnConnect::Fails {
            return Err(("org.bluez.Error.Failed", "le-connection-abort-by-local"));
        }
        if !strap.connected {
            strap.connected = true;
            match outcome {
                OnConnect::NeverResolves => {}
                OnConnect::DropsAtOnce => strap.drop_at = Some(turn + RESOLVING_TURNS),
                _ => strap.resolve_at = Some(turn + RESOLVING_TURNS),
            }
            self.changed(path, DEVICE1, Dictionary::from([("Connected", true.into())]));
        }
        reply(&message.header(), &())
    }

    fn disconnect(&mut self, header: &Header<'_>, path: &str) -> Reply {
        let strap = self.strap_at(path);
        let address = strap.address;
        if let Some(pending) = strap.pending.take() {
            let refused = Message::error(&pending.header(), "org.bluez.Error.Failed");
            self.outgoing.push(refused.build(&"le-connection-abort-by-local").unwrap());
            return reply(header, &());
        }
        if !strap.connected {
            return Err(("org.bluez.Error.NotConnected", "Not Connected"));
        }
        self.drop_link(address);
        reply(header, &())
    }

    /// A client left the bus.
    fn client_left(&mut self, name: &str) {
        self.scanning.remove(name);
        self.forget_signal_strength();
        for strap in &mut self.straps {
            strap.notifying.take_if(|client| client == name);
        }
    }

    /// One turn of everything that takes time.
    fn turn(&mut self) {
        self.turn += 1;
        for index in 0..self.straps.len() {
            self.advertise(index);
            self.resolve(index);
            self.beat(index);
        }
    }

    fn advertise(&mut self, index: usize) {
        let strap = &mut self.straps[index];
        let audible = strap.in_range && !strap.connected && self.has_adapter && !self.scanning.is_empty();
        if !audible || !self.turn.is_multiple_of(ADVERTISING_TURNS) {
            return;
        }
        strap.heard = true;
        let path = strap.path();
        if std::mem::replace(&mut strap.known, true) {
            self.changed(&path, DEVICE1, Dictionary::from([("RSSI", (-56_i16).into())]));
        } else {
            let body = (object_path(&path), Interfaces::from([(DEVICE1, strap.properties())]));
            self.outgoing.push(signal("/", OBJECT_MANAGER, "InterfacesAdded", &body));
        }
    }

    fn resolve(&mut self, index: usize) {
        let strap = &mut self.straps[index];
        let (path, address) = (strap.path(), strap.address);
        if strap.resolve_at.take_if(|at| *at <= self.turn).is_some() {
            strap.resolved = true;
            self.changed(&path, DEVICE1, Dictionary::from([("ServicesResolved", true.into())]));
        } else if strap.drop_at.take_if(|at| *at <= self.turn).is_some() {
            self.drop_link(address);
        }
    }

    fn beat(&mut self, index: usize) {
        let strap = &self.straps[index];
        let subscribed = strap.connected && strap.notifying.is_some();
        if let Some(payload) = strap.measurement.clone()
            && subscribed
            && self.turn.is_multiple_of(BEAT_TURNS)
        {
            self.notify(strap.address, &payload);
        }
    }
}

/// The running fake.
pub(crate) struct FakeBluez {
    orders: mpsc::Sender<Order>,
    task: JoinSet<World>,
    connection: Connection,
}

impl FakeBluez {
    /// Appears on the bus as `org.bluez`.
    pub(crate) async fn start(bus: &Bus, world: World) -> Self {
        let address = bus.address();
        let connection = zbus::connection::Builder::address(address.as_str()).build().await.unwrap();
        let messages = MessageStream::from(&connection);
        let rule = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'";
        let bus_name = Some("org.freedesktop.DBus");
        connection.call_method(bus_name, "/", bus_name, "AddMatch", &rule).await.unwrap();
        let do_not_queue = 4_u32;
        connection.call_method(bus_name, "/", bus_name, "RequestName", &("org.bluez", do_not_queue)).await.unwrap();
        let (orders, inbox) = mpsc::channel(16);
        let mut task = JoinSet::new();
        task.spawn(serve(connection.clone(), messages, inbox, world));
        Self { orders, task, connection }
    }

    /// Changes or reads the world, between two messages.
    pub(crate) async fn change<T: Send + 'static>(&self, order: impl FnOnce(&mut World) -> T + Send + 'static) -> T {
        let (answer, answered) = oneshot::channel();
        let order: Order = Box::new(move |world| drop(answer.send(order(world))));
        assert!(self.orders.send(order).await.is_ok(), "the fake runs");
        answered.await.unwrap()
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&mut World) -> bool + Clone + Send + 'static) {
        let seen = async {
            while !self.change(condition.clone()).await {
                tokio::time::sleep(TURN).await;
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            let calls = self.change(|world| world.calls.clone()).await;
            panic!("never saw: {what}; calls: {calls:#?}");
        }
    }

    /// How many clients the bus has, this one included.
    pub(crate) async fn clients(&self) -> usize {
        let bus_name = Some("org.freedesktop.DBus");
        let reply = self.connection.call_method(bus_name, "/", bus_name, "ListNames", &()).await.unwrap();
        let names: Vec<String> = reply.body().deserialize().unwrap();
        names.iter().filter(|name| name.starts_with(':')).count()
    }

    /// Dies as with SIGKILL: the name leaves the bus, no object says goodbye. Gives back what the kernel keeps.
    pub(crate) async fn kill(self) -> World {
        let connection = self.connection.clone();
        let world = self.abandon().await;
        connection.close().await.unwrap();
        world
    }

    /// Stops serving, on a bus that is dead already. Gives back what the kernel keeps.
    pub(crate) async fn abandon(self) -> World {
        let Self { orders, mut task, connection } = self;
        drop((orders, connection));
        task.join_next().await.unwrap().unwrap().after_a_crash()
    }
}

/// Serves until nobody can give orders any more.
async fn serve(
    connection: Connection,
    mut messages: MessageStream,
    mut orders: mpsc::Receiver<Order>,
    mut world: World,
) -> World {
    let mut turns = tokio::time::interval(TURN);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order(&mut world),
                None => return world,
            },
            Some(Ok(message)) = messages.next() => receive(&mut world, &message),
            _ = turns.tick() => world.turn(),
        }
        for message in world.outgoing.drain(..) {
            // A client that has left needs no answer; a bus that was killed takes none.
            let _ = connection.send(&message).await;
        }
    }
}

fn receive(world: &mut World, message: &Message) {
    let header = message.header();
    if message.message_type() == Type::Signal && header.member().is_some_and(|member| member == "NameOwnerChanged") {
        let (name, _, new): (String, String, String) = message.body().deserialize().unwrap();
        if new.is_empty() {
            world.client_left(&name);
        }
    }
    if message.message_type() != Type::MethodCall {
        return;
    }
    match world.call(message) {
        Ok(Some(reply)) => world.outgoing.push(reply),
        Ok(None) => {}
        Err((name, text)) => world.outgoing.push(Message::error(&header, name).build(&text).unwrap()),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every arm of a dispatch ends in a Reply")]
fn reply<B: serde::Serialize + zbus::DynamicType>(call: &Header<'_>, body: &B) -> Reply {
    Ok(Some(Message::method_return(call).build(body).unwrap()))
}

fn signal<B: serde::Serialize + zbus::DynamicType>(path: &str, interface: &str, member: &str, body: &B) -> Message {
    Message::signal(path, interface, member).build(body).unwrap()
}

fn object_path(path: &str) -> ObjectPath<'static> {
    ObjectPath::try_from(path.to_owned()).unwrap()
}

/// A 16-bit UUID in its long form.
fn uuid(short: u16) -> String {
    format!("0000{short:04x}-0000-1000-8000-00805f9b34fb")
}
