//! What changes at BlueZ: the daemon, its adapters, its devices.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

use futures_util::StreamExt;
use uuid::Uuid;
use zbus::message::{Message, Type};
use zbus::{MessageStream, OwnedObjectPath};

use super::client::Bluez;
use super::error::{BluezError, Cause};
use super::object::{
    Adapter, Device, Interfaces, Peer, Properties, adapter_name, manufacturer_data, service_data, value,
};
use super::{ADAPTER1, BATTERY1, BLUEZ, BUS, DEVICE1, OBJECT_MANAGER, PROPERTIES};

/// Signals that wait to be read; when they are more, the bus keeps the rest.
const SIGNALS_QUEUED: usize = 1024;
/// More adapters than this are not told apart from noise.
const MAX_ADAPTERS: usize = 16;

/// The match rules: five of the 512 that a bus usually allows a client. Narrow, so that measurements of sensors, which
/// are `PropertiesChanged` too, do not come here.
fn rules() -> [String; 5] {
    let changed = |interface| {
        format!("type='signal',sender='{BLUEZ}',interface='{PROPERTIES}',member='PropertiesChanged',arg0='{interface}'")
    };
    [
        format!("type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{BLUEZ}'"),
        format!("type='signal',sender='{BLUEZ}',interface='{OBJECT_MANAGER}'"),
        changed(ADAPTER1),
        changed(DEVICE1),
        changed(BATTERY1),
    ]
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BluezEvent {
    /// bluetoothd has gone, or does not run at the start: all its adapters, devices, scans and subscriptions are gone.
    DaemonGone,
    /// bluetoothd runs (again). Its adapters follow.
    DaemonBack,
    /// An adapter is there: plugged in, or seen for the first time.
    AdapterAdded(Adapter),
    /// An adapter was pulled out.
    AdapterRemoved {
        /// Its name.
        name: String,
    },
    /// An adapter was switched.
    Powered {
        /// Its name.
        adapter: String,
        /// Whether it is on.
        on: bool,
    },
    /// Something was heard for the first time.
    DeviceAdded(Box<Device>),
    /// BlueZ has forgotten a device: somebody removed it, or it was not heard for half a minute.
    DeviceRemoved(Peer),
    /// A link was made or ended.
    Connected {
        /// With whom.
        peer: Peer,
        /// Whether it stands.
        on: bool,
    },
    /// A bond was made or lost.
    Bonded {
        /// With whom.
        peer: Peer,
        /// Whether there is one.
        on: bool,
    },
    /// A device advertises.
    Heard {
        /// Who.
        peer: Peer,
        /// Signal strength in dBm.
        rssi: i16,
    },
    /// What a device tells everybody, without a connection.
    Advertised {
        /// Who.
        peer: Peer,
        /// By the company's number.
        manufacturer_data: BTreeMap<u16, Vec<u8>>,
        /// By service.
        service_data: BTreeMap<Uuid, Vec<u8>>,
    },
    /// The charge of a device's battery.
    Battery {
        /// Whose.
        peer: Peer,
        /// In percent.
        percent: u8,
    },
}

/// A running watch; ends with it. Who lets it wait long delays only itself.
#[derive(Debug)]
pub struct Watch {
    bluez: Bluez,
    signals: MessageStream,
    /// The watching connection: kept, because a stream does not keep it.
    _connection: Bluez,
    /// Adapters that were told of, and whether they are on.
    adapters: BTreeMap<String, bool>,
    /// The adapters have to be asked for.
    is_stale: bool,
    ready: VecDeque<BluezEvent>,
}

impl Watch {
    pub(super) async fn start(bluez: &Bluez) -> Result<Self, BluezError> {
        let connection = bluez.another().await?;
        let mut signals = MessageStream::from(connection.connection());
        signals.set_max_queued(NonZeroUsize::new(SIGNALS_QUEUED).unwrap_or(NonZeroUsize::MIN));
        for rule in rules() {
            connection.ask_bus::<_, ()>("watching BlueZ", "AddMatch", &rule).await?;
        }
        let runs = connection.daemon_runs().await?;
        let first = if runs { BluezEvent::DaemonBack } else { BluezEvent::DaemonGone };
        Ok(Self {
            bluez: bluez.clone(),
            signals,
            _connection: connection,
            adapters: BTreeMap::new(),
            is_stale: runs,
            ready: VecDeque::from([first]),
        })
    }

    /// The next change. The first is [`BluezEvent::DaemonBack`] or [`BluezEvent::DaemonGone`], then come the adapters
    /// that are there. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// [`Cause::NoBus`]: the bus has died, and with it this watch. Anything else: the adapters could not be asked for,
    /// and are asked for again by the next call.
    pub async fn next(&mut self) -> Result<BluezEvent, BluezError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.is_stale {
                self.refresh().await?;
                continue;
            }
            let Some(message) = self.signals.next().await else {
                return Err(BluezError::new("watching BlueZ", Cause::NoBus("the connection was closed".to_owned())));
            };
            let message = message.map_err(|error| BluezError::from_bus("watching BlueZ", &error))?;
            self.take(&message);
        }
    }

    /// Asks for the adapters, on the other connection: on this one, signals that nobody reads would hold up the answer.
    async fn refresh(&mut self) -> Result<(), BluezError> {
        let adapters = match self.bluez.adapters().await {
            // It has gone again, and a signal says so.
            Err(BluezError { cause: Cause::ServiceUnknown, .. }) => vec![],
            answer => answer?,
        };
        self.is_stale = false;
        for adapter in adapters {
            self.add(adapter);
        }
        Ok(())
    }

    fn add(&mut self, adapter: Adapter) {
        let Some(was_on) = self.adapters.get(&adapter.name) else {
            if self.adapters.len() < MAX_ADAPTERS {
                self.adapters.insert(adapter.name.clone(), adapter.powered);
                self.ready.push_back(BluezEvent::AdapterAdded(adapter));
            }
            return;
        };
        if *was_on != adapter.powered {
            self.switched(&adapter.name, adapter.powered);
        }
    }

    fn switched(&mut self, name: &str, on: bool) {
        // An adapter that was not told of yet is told of with its state.
        if let Some(known) = self.adapters.get_mut(name) {
            *known = on;
            self.ready.push_back(BluezEvent::Powered { adapter: name.to_owned(), on });
        }
    }

    fn take(&mut self, message: &Message) {
        let header = message.header();
        if message.message_type() != Type::Signal {
            return;
        }
        let member = header.member().map(zbus::names::MemberName::as_str).unwrap_or_default();
        let path = header.path().map(zbus::ObjectPath::as_str).unwrap_or_default();
        let body = message.body();
        // A signal of another shape than BlueZ's documents say tells us nothing.
        match member {
            "NameOwnerChanged" => body.deserialize().map(|change| self.owner_changed(&change)),
            "InterfacesAdded" => body.deserialize().map(|added| self.interfaces_added(&added)),
            "InterfacesRemoved" => body.deserialize().map(|removed| self.interfaces_removed(&removed)),
            "PropertiesChanged" => body.deserialize().map(|changed| self.properties_changed(path, &changed)),
            _ => Ok(()),
        }
        .unwrap_or_else(|error| tracing::debug!(member, path, %error, "unreadable signal of BlueZ"));
    }

    fn owner_changed(&mut self, (_, old, new): &(String, String, String)) {
        if !old.is_empty() {
            self.adapters.clear();
            self.is_stale = false;
            self.ready.push_back(BluezEvent::DaemonGone);
        }
        if !new.is_empty() {
            self.is_stale = true;
            self.ready.push_back(BluezEvent::DaemonBack);
        }
    }

    fn interfaces_added(&mut self, (path, interfaces): &(OwnedObjectPath, Interfaces)) {
        if let Some(adapter) = Adapter::from_object(path, interfaces) {
            self.add(adapter);
        } else if let Some(device) = Device::from_object(path, interfaces) {
            self.ready.push_back(BluezEvent::DeviceAdded(Box::new(device)));
        } else if let (Some(battery), Some(peer)) = (interfaces.get(BATTERY1), Peer::from_path(path)) {
            self.battery(peer, battery);
        }
    }

    fn interfaces_removed(&mut self, (path, interfaces): &(OwnedObjectPath, Vec<String>)) {
        let is = |name: &str| interfaces.iter().any(|interface| interface == name);
        if let (true, Some(name)) = (is(ADAPTER1), adapter_name(path)) {
            self.adapters.remove(name);
            self.ready.push_back(BluezEvent::AdapterRemoved { name: name.to_owned() });
        } else if let (true, Some(peer)) = (is(DEVICE1), Peer::from_path(path)) {
            self.ready.push_back(BluezEvent::DeviceRemoved(peer));
        }
    }

    fn properties_changed(&mut self, path: &str, (interface, changed, _): &(String, Properties, Vec<String>)) {
        if interface == ADAPTER1
            && let (Some(name), Some(on)) = (adapter_name(path), value(changed, "Powered"))
        {
            self.switched(name, on);
        }
        let Some(peer) = Peer::from_path(path) else { return };
        if interface == BATTERY1 {
            return self.battery(peer, changed);
        }
        if let Some(on) = value(changed, "Connected") {
            self.ready.push_back(BluezEvent::Connected { peer: peer.clone(), on });
        }
        // Before BlueZ 5.65 there is no `Bonded`; `Paired` says the same there.
        if let Some(on) = value(changed, "Bonded").or_else(|| value(changed, "Paired")) {
            self.ready.push_back(BluezEvent::Bonded { peer: peer.clone(), on });
        }
        let (manufacturer_data, service_data) = (manufacturer_data(changed), service_data(changed));
        if !manufacturer_data.is_empty() || !service_data.is_empty() {
            self.ready.push_back(BluezEvent::Advertised { peer: peer.clone(), manufacturer_data, service_data });
        }
        if let Some(rssi) = value(changed, "RSSI") {
            self.ready.push_back(BluezEvent::Heard { peer, rssi });
        }
    }

    fn battery(&mut self, peer: Peer, battery: &Properties) {
        if let Some(percent) = value(battery, "Percentage") {
            self.ready.push_back(BluezEvent::Battery { peer, percent });
        }
    }
}
