//! A fake `org.bluez` on a private D-Bus: one adapter, straps and other sensors, and the faults of real ones.
//!
//! It speaks as bluetoothd 5.66 and 5.82 do: `Connect` is answered before the services are resolved, a link that drops
//! is one signal with both `Connected` and `ServicesResolved` false, a daemon that dies sends nothing at all, and a link
//! outlives the daemon in the kernel.

mod own;
mod pairing;
pub(crate) mod sensor;

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

use self::pairing::{AGENT_MANAGER, Ongoing, RegisteredAgent};

pub(crate) use self::own::Own;
pub(crate) use self::pairing::Pairs;
pub(crate) use self::sensor::{Advert, Strap};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const ADAPTER: &str = "/org/bluez/hci0";
const ADAPTER1: &str = "org.bluez.Adapter1";
const DEVICE1: &str = "org.bluez.Device1";
const SERVICE1: &str = "org.bluez.GattService1";
const CHARACTERISTIC1: &str = "org.bluez.GattCharacteristic1";
const DESCRIPTOR1: &str = "org.bluez.GattDescriptor1";
const BATTERY1: &str = "org.bluez.Battery1";
const AGENT_MANAGER1: &str = "org.bluez.AgentManager1";
const AGENT1: &str = "org.bluez.Agent1";
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
    /// Whether clients may not send to `org.bluez`, as users outside the group `bluetooth`.
    pub(crate) denies_bluez: bool,
    /// Signals that one client may ask for.
    pub(crate) match_rules: u32,
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
        Self { folder: tempfile::tempdir().unwrap(), daemon: None, denies_bluez: false, match_rules: MATCH_RULES }
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
        let denial = if self.denies_bluez { "<deny send_destination='org.bluez'/>" } else { "" };
        let text = format!(
            "<busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth><policy context='default'>\
             <allow user='*'/><allow own='*'/><allow send_type='method_call'/><allow send_type='signal'/>\
             <allow send_requested_reply='true' send_type='method_return'/>\
             <allow send_requested_reply='true' send_type='error'/><allow receive_type='method_call'/>\
             <allow receive_type='signal'/><allow receive_type='method_return'/><allow receive_type='error'/>\
             {denial}</policy><limit name='max_match_rules_per_connection'>{}</limit></busconfig>",
            self.address(),
            self.match_rules
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

    /// From now on, one client may ask for so many signals.
    pub(crate) async fn allow_match_rules(&self, rules: u32) {
        let file = self.folder.path().join("bus.conf");
        let (before, after) = (format!("per_connection'>{}<", self.match_rules), format!("per_connection'>{rules}<"));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace(&before, &after)).unwrap();
        let connection = zbus::connection::Builder::address(self.address().as_str()).build().await.unwrap();
        let bus_name = Some("org.freedesktop.DBus");
        connection.call_method(bus_name, "/org/freedesktop/DBus", bus_name, "ReloadConfig", &()).await.unwrap();
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
    /// BlueZ is busy with an earlier one.
    InProgress,
}

/// What the fake knows. Tests change it through [`FakeBluez::change`].
#[expect(clippy::struct_excessive_bools, reason = "each is a state of the machine or a fault, and they vary freely")]
pub(crate) struct World {
    /// The straps.
    pub(crate) straps: Vec<Strap>,
    /// Whether an adapter is plugged in.
    pub(crate) has_adapter: bool,
    /// Every call, in order: `Connect /org/bluez/hci0/dev_...`.
    pub(crate) calls: Vec<String>,
    /// How often a `Connect` came while another one was not finished: some controllers drop both.
    pub(crate) collisions: usize,
    /// Whether rfkill keeps the adapter from being switched on.
    pub(crate) rfkill: bool,
    /// Whether the adapter is on; change it by [`World::power`].
    pub(crate) powered: bool,
    /// The agents, in the order in which they came.
    pub(crate) agents: Vec<RegisteredAgent>,
    /// The filters of the scans so far: their transports.
    pub(crate) transports: Vec<String>,
    /// Whether each of them asked for advertisements that say the same as the last one.
    pub(crate) duplicates: Vec<bool>,
    /// Whether agents are refused, as by a policy of the bus that does not let this user.
    pub(crate) refuses_agents: bool,
    /// A slow bus: each answer is late by so many turns.
    pub(crate) late_turns: u64,
    /// Answers that wait for their turn.
    late: Vec<(u64, Message)>,
    /// The programs whose agent is the default one; the last one counts.
    default_agents: Vec<String>,
    pairing: Option<Ongoing>,
    /// The D-Bus names of the clients that scan.
    scanning: BTreeSet<String>,
    pub(crate) turn: u64,
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
            rfkill: false,
            powered: true,
            agents: vec![],
            transports: vec![],
            duplicates: vec![],
            refuses_agents: false,
            late_turns: 0,
            late: vec![],
            default_agents: vec![],
            pairing: None,
            scanning: BTreeSet::new(),
            turn: 0,
            outgoing: vec![],
        }
    }

    /// The strap with this address.
    pub(crate) fn strap(&mut self, address: &str) -> &mut Strap {
        self.straps.iter_mut().find(|strap| strap.address == address).unwrap()
    }

    /// Whether BlueZ hears it now.
    pub(crate) fn is_heard(&mut self, address: &str) -> bool {
        self.strap(address).heard
    }

    /// Whether BlueZ knows its charge now.
    pub(crate) fn has_battery(&mut self, address: &str) -> bool {
        let strap = self.strap(address);
        strap.resolved && strap.battery.is_some()
    }

    /// Whether somebody scans.
    pub(crate) fn is_scanning(&self) -> bool {
        !self.scanning.is_empty()
    }

    /// Whether no pairing goes on.
    pub(crate) fn is_unpaired(&self) -> bool {
        self.pairing.is_none()
    }

    /// How often this was called, over all objects.
    pub(crate) fn count(&self, member: &str) -> usize {
        self.calls.iter().filter(|call| call.split(' ').next() == Some(member)).count()
    }

    /// The peer goes out of reach: the link drops.
    pub(crate) fn drop_link(&mut self, address: &str) {
        let strap = self.strap(address);
        let had_battery = strap.battery.is_some() && strap.resolved;
        strap.unlink();
        let path = strap.path();
        let changed = Dictionary::from([("ServicesResolved", false.into()), ("Connected", false.into())]);
        self.changed(&path, DEVICE1, changed);
        if had_battery {
            self.removed(&path, &[BATTERY1]);
        }
        // None may be going on.
        let _ = self.cancel_pairing(&path);
    }

    /// The strap sends this once, by its first characteristic that sends.
    pub(crate) fn notify(&mut self, address: &str, payload: &[u8]) {
        self.notify_by(address, None, payload);
    }

    /// The sensor sends this once, by the characteristic with this UUID.
    pub(crate) fn notify_by(&mut self, address: &str, uuid: Option<u16>, payload: &[u8]) {
        let path = self.strap(address).sender(uuid).unwrap();
        self.send_value(&path, payload);
    }

    fn send_value(&mut self, path: &str, payload: &[u8]) {
        self.changed(path, CHARACTERISTIC1, Dictionary::from([("Value", payload.to_vec().into())]));
    }

    /// Switches the adapter. Off ends every link and every scan.
    pub(crate) fn power(&mut self, on: bool) {
        if self.powered == on {
            return;
        }
        if !on {
            self.drop_all_links();
            self.scanning.clear();
            self.forget_signal_strength();
        }
        self.powered = on;
        self.changed(ADAPTER, ADAPTER1, Dictionary::from([("Powered", on.into())]));
    }

    /// Pulls the adapter out: every object goes, after it has said that it is off.
    pub(crate) fn unplug(&mut self) {
        self.power(false);
        let objects: Vec<(String, Vec<&str>)> =
            self.objects().into_iter().map(|(path, interfaces)| (path, interfaces.into_keys().collect())).collect();
        for (path, interfaces) in objects.into_iter().rev().filter(|(path, _)| path.starts_with(ADAPTER)) {
            self.removed(&path, &interfaces);
        }
        self.has_adapter = false;
        self.straps.iter_mut().for_each(|strap| strap.known = strap.bonded);
    }

    /// Plugs the adapter in again; it comes up as it is configured, on.
    pub(crate) fn plug_in(&mut self) {
        (self.has_adapter, self.powered) = (true, true);
        let body = (object_path(ADAPTER), Interfaces::from([(ADAPTER1, self.adapter_properties())]));
        self.outgoing.push(signal("/", OBJECT_MANAGER, "InterfacesAdded", &body));
    }

    fn drop_all_links(&mut self) {
        let linked: Vec<&str> = self.straps.iter().filter(|strap| strap.connected).map(|strap| strap.address).collect();
        for address in linked {
            self.drop_link(address);
        }
    }

    fn removed(&mut self, path: &str, interfaces: &[&str]) {
        let body = (object_path(path), interfaces.to_vec());
        self.outgoing.push(signal("/", OBJECT_MANAGER, "InterfacesRemoved", &body));
    }

    /// The links as the kernel keeps them when bluetoothd is killed.
    pub(crate) fn after_a_crash(mut self) -> Self {
        for strap in &mut self.straps {
            let connected = strap.connected;
            strap.unlink();
            strap.renewed.clear();
            (strap.connected, strap.heard, strap.pending) = (connected, false, None);
            strap.known = strap.connected || strap.bonded;
        }
        self.scanning.clear();
        self.agents.clear();
        self.default_agents.clear();
        self.pairing = None;
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
        let mut objects =
            BTreeMap::from([(AGENT_MANAGER.to_owned(), Interfaces::from([(AGENT_MANAGER1, Dictionary::new())]))]);
        if !self.has_adapter {
            return objects;
        }
        objects.insert(ADAPTER.to_owned(), Interfaces::from([(ADAPTER1, self.adapter_properties())]));
        for strap in self.straps.iter().filter(|strap| strap.known) {
            let mut interfaces = Interfaces::from([(DEVICE1, strap.properties())]);
            if let Some(battery) = strap.battery.filter(|_| strap.resolved) {
                interfaces.insert(BATTERY1, Dictionary::from([("Percentage", battery.into())]));
            }
            objects.insert(strap.path(), interfaces);
            for attribute in strap.gatt() {
                objects.insert(attribute.path, Interfaces::from([(attribute.interface, attribute.properties)]));
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
            "Set" => self.set(message, &path),
            "RegisterAgent" | "UnregisterAgent" | "RequestDefaultAgent" => self.agent_call(message, &member),
            "RemoveDevice" => self.remove_device(message),
            "Pair" => self.pair(message, &path),
            "CancelPairing" => self.cancel_pairing(&path).and_then(|()| reply(&header, &())),
            "SetDiscoveryFilter" => {
                let body = message.body();
                let filter: BTreeMap<String, Variant<'_>> = body.deserialize().unwrap();
                self.transports.extend(filter.get("Transport").and_then(|value| String::try_from(value).ok()));
                self.duplicates
                    .push(filter.get("DuplicateData").is_some_and(|value| bool::try_from(value) == Ok(true)));
                reply(&header, &())
            }
            "StartDiscovery" | "StopDiscovery" => self.discovery(&header, member == "StartDiscovery"),
            "Connect" => self.connect(message, &path),
            "Disconnect" => self.disconnect(&header, &path),
            "StartNotify" => {
                let strap = self.strap_at(&path);
                if strap.characteristics().iter().any(|(found, wanted)| *found == path && wanted.is_refusing) {
                    return Err(("org.bluez.Error.Failed", "Operation failed with ATT error: 0x80"));
                }
                let is_open = |(found, characteristic): &(String, sensor::Characteristic)| {
                    *found == path && !characteristic.is_encrypted
                };
                if strap.bonded || strap.characteristics().iter().any(is_open) {
                    self.start_notify(message, &path)
                } else {
                    self.pair_for(message, &path)
                }
            }
            "StopNotify" => {
                let strap = self.strap_at(&path);
                strap.notifying.remove(&path);
                strap.renewed.remove(&path);
                reply(&header, &())
            }
            "ReadValue" => self.read_value(&header, &path),
            "WriteValue" => self.write_value(message, &path),
            _ => Err(("org.freedesktop.DBus.Error.UnknownMethod", "Method does not exist")),
        }
    }

    fn start_notify(&mut self, message: &Message, path: &str) -> Reply {
        let header = message.header();
        let strap = self.strap_at(path);
        strap.notifying.insert(path.to_owned(), header.sender().unwrap().to_string());
        let characteristics = strap.characteristics();
        let stored = characteristics.into_iter().find(|(found, _)| found == path).map(|(_, found)| found.stored);
        strap.to_send.extend(stored.into_iter().flatten().map(|payload| (path.to_owned(), payload)));
        reply(&header, &())
    }

    /// A read, which BlueZ echoes as a change of the value.
    fn read_value(&mut self, header: &Header<'_>, path: &str) -> Reply {
        let characteristics = self.strap_at(path).characteristics();
        let value = characteristics.into_iter().find(|(found, _)| found == path).map(|(_, found)| found.value).unwrap();
        self.send_value(path, &value);
        reply(header, &value)
    }

    fn write_value(&mut self, message: &Message, path: &str) -> Reply {
        let body = message.body();
        let (value, options): (Vec<u8>, BTreeMap<String, Variant<'_>>) = body.deserialize().unwrap();
        let is_command = options.get("type").and_then(|how| String::try_from(how).ok()).as_deref() == Some("command");
        let turn = self.turn;
        let strap = self.strap_at(path);
        let found = strap.characteristics().into_iter().find(|(found, _)| found == path).map(|(_, found)| found);
        let characteristic = found.unwrap();
        if !characteristic.flags.contains(if is_command { &"write-without-response" } else { &"write" }) {
            return Err(("org.bluez.Error.NotSupported", "Operation is not supported"));
        }
        if strap.own.refuses_writes {
            return Err(("org.bluez.Error.NotPermitted", "Write not permitted"));
        }
        strap.own.commands += usize::from(is_command);
        strap.own.on_write(&value, turn);
        strap.writes.push((characteristic.uuid, value));
        reply(&message.header(), &())
    }

    fn remove_device(&mut self, message: &Message) -> Reply {
        let path: zbus::OwnedObjectPath = message.body().deserialize().unwrap();
        let known = |strap: &&mut Strap| strap.known && strap.path() == path.as_str();
        let strap = self.straps.iter_mut().find(known).ok_or(("org.bluez.Error.DoesNotExist", "Does Not Exist"))?;
        let (address, connected) = (strap.address, strap.connected);
        if connected {
            self.drop_link(address);
        }
        let strap = self.strap(address);
        (strap.known, strap.bonded, strap.trusted, strap.heard) = (false, false, false, false);
        self.removed(path.as_str(), &[DEVICE1]);
        reply(&message.header(), &())
    }

    fn strap_at(&mut self, path: &str) -> &mut Strap {
        self.straps.iter_mut().find(|strap| path.starts_with(&strap.path())).unwrap()
    }

    fn discovery(&mut self, header: &Header<'_>, start: bool) -> Reply {
        let client = header.sender().unwrap().to_string();
        if start && !self.powered {
            return Err(("org.bluez.Error.NotReady", "Resource Not Ready"));
        }
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
        if outcome == OnConnect::InProgress {
            return Err(("org.bluez.Error.InProgress", "Operation already in progress"));
        }
        if outcome == OnConnect::Fails {
            return Err(("org.bluez.Error.Failed", "le-connection-abort-by-local"));
        }
        if !strap.connected {
            self.link(path);
            let strap = self.strap_at(path);
            match outcome {
                OnConnect::NeverResolves => strap.resolve_at = None,
                OnConnect::DropsAtOnce => {
                    (strap.resolve_at, strap.drop_at) = (None, Some(turn + RESOLVING_TURNS));
                }
                _ => {}
            }
        }
        reply(&message.header(), &())
    }

    /// The link stands from now on; the services are resolved later.
    fn link(&mut self, path: &str) {
        let resolve_at = self.turn + RESOLVING_TURNS;
        let strap = self.strap_at(path);
        if !strap.connected {
            (strap.connected, strap.resolve_at) = (true, Some(resolve_at));
            // As seen with bluetoothd 5.82: before the services are resolved, and a cuff sends at once.
            if strap.bonded && !strap.renewed.is_empty() {
                strap.notifying = std::mem::take(&mut strap.renewed);
                strap.resolve_at = Some(resolve_at + 3 * strap.beat_turns);
                for (found, characteristic) in strap.characteristics() {
                    if strap.notifying.contains_key(&found) {
                        strap.to_send.extend(characteristic.stored.into_iter().map(|payload| (found.clone(), payload)));
                    }
                }
            }
            self.changed(path, DEVICE1, Dictionary::from([("Connected", true.into())]));
        }
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
            strap.notifying.retain(|_, client| client != name);
            strap.renewed.retain(|_, client| client != name);
        }
        self.agents_left(name);
    }

    /// One turn of everything that takes time.
    fn turn(&mut self) {
        self.turn += 1;
        self.send_what_is_due();
        for index in 0..self.straps.len() {
            self.advertise(index);
            self.resolve(index);
            self.beat(index);
        }
        self.turn_pairing();
    }

    fn advertise(&mut self, index: usize) {
        let strap = &mut self.straps[index];
        let listens = self.has_adapter && self.powered && !self.scanning.is_empty();
        let audible = strap.in_range && !strap.connected && listens;
        if !audible || !self.turn.is_multiple_of(ADVERTISING_TURNS) {
            return;
        }
        strap.heard = true;
        let path = strap.path();
        let mut heard = strap.advertised();
        heard.insert("RSSI", strap.rssi.into());
        if std::mem::replace(&mut strap.known, true) {
            self.changed(&path, DEVICE1, heard);
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
            let battery = strap.battery;
            self.changed(&path, DEVICE1, Dictionary::from([("ServicesResolved", true.into())]));
            if let Some(battery) = battery {
                let properties = Dictionary::from([("Percentage", battery.into())]);
                let body = (object_path(&path), Interfaces::from([(BATTERY1, properties)]));
                self.outgoing.push(signal("/", OBJECT_MANAGER, "InterfacesAdded", &body));
            }
        } else if strap.drop_at.take_if(|at| *at <= self.turn).is_some() {
            self.drop_link(address);
        }
    }

    fn beat(&mut self, index: usize) {
        let turn = self.turn;
        let strap = &mut self.straps[index];
        if !turn.is_multiple_of(strap.own.beat_turns.unwrap_or(strap.beat_turns)) || !strap.connected {
            return;
        }
        let (address, ends_link) = (strap.address, strap.ends_link);
        if !strap.to_send.is_empty() {
            let (path, payload) = strap.to_send.remove(0);
            strap.sent += 1;
            self.send_value(&path, &payload);
        } else if ends_link && !strap.notifying.is_empty() {
            // All was sent: a cuff ends the link by itself.
            self.drop_link(address);
        } else if let (Some(payload), Some(path)) = (strap.measurement.clone(), strap.sender(None))
            && strap.notifying.contains_key(&path)
        {
            self.strap(address).sent += 1;
            self.notify(address, &payload);
        } else if let Some(path) = strap.sender(None).filter(|path| strap.notifying.contains_key(path))
            && let Some(payload) = strap.own.next(turn)
        {
            self.send_value(&path, &payload);
        }
    }

    /// BlueZ loses the keys of this sensor, as when its storage is wiped.
    pub(crate) fn lose_bond(&mut self, address: &str) {
        let strap = self.strap(address);
        strap.bonded = false;
        let path = strap.path();
        let changed = Dictionary::from([("Paired", false.into()), ("Bonded", false.into())]);
        self.changed(&path, DEVICE1, changed);
    }

    fn send_reply(&mut self, call: &Message, answer: Reply) {
        match answer {
            Ok(Some(reply)) => self.late.push((self.turn + self.late_turns, reply)),
            Ok(None) => {}
            Err((name, text)) => {
                let error = Message::error(&call.header(), name).build(&text).unwrap();
                self.late.push((self.turn + self.late_turns, error));
            }
        }
        self.send_what_is_due();
    }

    /// Sends the answers whose turn has come.
    fn send_what_is_due(&mut self) {
        let turn = self.turn;
        self.outgoing.extend(self.late.extract_if(.., |(due, _)| *due <= turn).map(|(_, message)| message));
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
    match message.message_type() {
        Type::MethodCall => {
            let answer = world.call(message);
            world.send_reply(message, answer);
        }
        Type::MethodReturn | Type::Error => world.answered(message),
        Type::Signal => {}
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
