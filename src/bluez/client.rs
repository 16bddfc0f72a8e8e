//! Asking BlueZ and ordering it about, each call with a deadline of its own.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::time::Duration;

use tracing::debug;
use zbus::message::Message;
use zbus::{Connection, DynamicType, OwnedObjectPath, Variant};

use super::agent::{Agent, AgentRole, Capability};
use super::error::{BluezError, Cause};
use super::object::{Adapter, Device, Interfaces, Peer, adapter_path, object_path};
use super::watch::Watch;
use super::{ADAPTER1, BLUEZ, BUS, DEVICE1, OBJECT_MANAGER, PROPERTIES};

/// How long each step may take. BlueZ and D-Bus have limits too, but longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BluezLimits {
    /// One question, and reaching the bus.
    pub call: Duration,
    /// Switching an adapter: a slow controller resets meanwhile.
    pub power: Duration,
    /// `Disconnect`; BlueZ itself takes 2.5 s for it. Also `RemoveDevice`, which disconnects first.
    pub disconnect: Duration,
    /// A pairing from the connect to the last key, with a person who reads a number and types it. BlueZ waits 60 s for
    /// an agent, the kernel 30 s for the peer (Core 5.4, vol. 3 part H, 3.4).
    pub pair: Duration,
}

impl Default for BluezLimits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            power: Duration::from_secs(10),
            disconnect: Duration::from_secs(5),
            pair: Duration::from_secs(75),
        }
    }
}

/// What a scan listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Low energy only: no inquiry for classic devices, which takes the radio away for seconds.
    LowEnergy,
    /// Whatever the adapter can.
    Any,
}

/// A connection to BlueZ. Clones share it.
#[derive(Debug, Clone)]
pub struct Bluez {
    connection: Connection,
    /// `None`: the system bus.
    address: Option<String>,
    limits: BluezLimits,
}

impl Bluez {
    /// Connects to the system bus, or to `DBUS_SYSTEM_BUS_ADDRESS` if that is set. bluetoothd need not run yet.
    ///
    /// # Errors
    /// There is no bus, or it does not answer.
    pub async fn connect() -> Result<Self, BluezError> {
        Self::open(None, BluezLimits::default()).await
    }

    /// The same with other limits, or on another bus.
    ///
    /// # Errors
    /// There is no bus, or it does not answer.
    pub async fn connect_to(address: Option<&str>, limits: BluezLimits) -> Result<Self, BluezError> {
        Self::open(address.map(ToOwned::to_owned), limits).await
    }

    async fn open(address: Option<String>, limits: BluezLimits) -> Result<Self, BluezError> {
        let builder = match &address {
            Some(address) => zbus::connection::Builder::address(address.as_str()),
            None => zbus::connection::Builder::system(),
        };
        let doing = "reaching the D-Bus system bus";
        let connection = match tokio::time::timeout(limits.call, builder.build()).await {
            Ok(built) => built.map_err(|error| BluezError::from_bus(doing, &error))?,
            Err(_) => return Err(BluezError::new(doing, Cause::Timeout(limits.call))),
        };
        Ok(Self { connection, address, limits })
    }

    /// The same on a connection of its own: who does not read his messages in time then blocks nobody else.
    pub(super) async fn another(&self) -> Result<Self, BluezError> {
        Self::open(self.address.clone(), self.limits).await
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The limits.
    pub const fn limits(&self) -> BluezLimits {
        self.limits
    }

    /// Watches the daemon, its adapters and devices, on a connection of its own.
    ///
    /// # Errors
    /// The bus is gone, or has no more match rules for us.
    pub async fn watch(&self) -> Result<Watch, BluezError> {
        Watch::start(self).await
    }

    /// Registers a pairing agent, on a connection of its own.
    ///
    /// # Errors
    /// The bus is gone, bluetoothd does not run, or does not let this user.
    pub async fn agent(&self, capability: Capability, role: AgentRole) -> Result<Agent, BluezError> {
        Agent::register(self, capability, role).await
    }

    /// Whether somebody owns `org.bluez`. Does not start bluetoothd.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn daemon_runs(&self) -> Result<bool, BluezError> {
        self.ask_bus("asking whether bluetoothd runs", "NameHasOwner", &BLUEZ).await
    }

    /// All adapters, by name.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn adapters(&self) -> Result<Vec<Adapter>, BluezError> {
        let objects = self.objects("asking BlueZ for its adapters").await?;
        Ok(objects.iter().filter_map(|(path, interfaces)| Adapter::from_object(path, interfaces)).collect())
    }

    /// The adapter with this name, or the first one.
    ///
    /// # Errors
    /// There is none; otherwise see [`Cause`].
    pub async fn adapter(&self, name: Option<&str>) -> Result<Adapter, BluezError> {
        let adapters = self.adapters().await?;
        let known: Vec<String> = adapters.iter().map(|adapter| adapter.name.clone()).collect();
        let found = adapters.into_iter().find(|adapter| name.is_none_or(|name| adapter.name == name));
        let of_that_name = match name {
            Some(name) if !known.is_empty() => format!(" `{name}`, there is {}", known.join(", ")),
            _ => String::new(),
        };
        found.ok_or_else(|| BluezError::new("looking for the Bluetooth adapter", Cause::NoAdapter(of_that_name)))
    }

    /// The same, which has to be on. It is never switched on here: an operator who has switched it off meant it.
    ///
    /// # Errors
    /// [`Cause::NotPowered`]; otherwise as [`Self::adapter`].
    pub async fn powered_adapter(&self, name: Option<&str>) -> Result<Adapter, BluezError> {
        let adapter = self.adapter(name).await?;
        if adapter.powered {
            return Ok(adapter);
        }
        Err(BluezError::new("looking for the Bluetooth adapter", Cause::NotPowered))
    }

    /// All devices of an adapter; of all adapters if none is named.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn devices(&self, adapter: Option<&str>) -> Result<Vec<Device>, BluezError> {
        let objects = self.objects("asking BlueZ for its devices").await?;
        let devices = objects.iter().filter_map(|(path, interfaces)| Device::from_object(path, interfaces));
        Ok(devices.filter(|device| adapter.is_none_or(|name| device.peer.adapter == name)).collect())
    }

    /// One device; `None` if BlueZ does not know it (any more).
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn device(&self, peer: &Peer) -> Result<Option<Device>, BluezError> {
        let devices = self.devices(Some(&peer.adapter)).await?;
        Ok(devices.into_iter().find(|device| device.peer == *peer))
    }

    /// Whether BlueZ keeps keys for it; false if it does not know it.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn is_bonded(&self, peer: &Peer) -> Result<bool, BluezError> {
        Ok(self.device(peer).await?.is_some_and(|device| device.bonded))
    }

    /// Switches an adapter. Never on against the operator: that is for who calls to know.
    ///
    /// # Errors
    /// [`Cause::Blocked`] if rfkill keeps it off; otherwise see [`Cause`].
    pub async fn set_powered(&self, adapter: &str, on: bool) -> Result<(), BluezError> {
        let doing = if on { "switching the adapter on" } else { "switching the adapter off" };
        let body = (ADAPTER1, "Powered", Variant::Bool(on));
        self.call(doing, self.limits.power, &adapter_path(adapter), PROPERTIES, "Set", &body).await.map(drop)
    }

    /// Ends the link, and a `Connect` that is still pending. No link is not an error.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn disconnect(&self, peer: &Peer) -> Result<(), BluezError> {
        let done = self.device_call("disconnecting", self.limits.disconnect, peer, "Disconnect").await;
        done.or_else(|error| if error.cause == Cause::NotConnected { Ok(()) } else { Err(error) })
    }

    /// Forgets the device, its bond included. A new bond takes somebody at the device.
    ///
    /// # Errors
    /// [`Cause::UnknownObject`] if BlueZ does not know it; otherwise see [`Cause`].
    pub async fn remove(&self, peer: &Peer) -> Result<(), BluezError> {
        let path = peer.path();
        let (adapter, body) = (adapter_path(&peer.adapter), object_path(&path));
        let limit = self.limits.disconnect;
        self.call("removing the device", limit, &adapter, ADAPTER1, "RemoveDevice", &body).await.map(drop)
    }

    /// Pairs. Who is asked is the agent of this connection; without one, the default agent of the system. After a
    /// pairing that was not answered in time, BlueZ is told to give it up.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn pair(&self, peer: &Peer) -> Result<(), BluezError> {
        let done = self.device_call("pairing", self.limits.pair, peer, "Pair").await;
        if let Err(BluezError { cause: Cause::Timeout(_), .. }) = done {
            self.give_up_pairing(peer).await;
        }
        done
    }

    /// As [`Self::cancel_pairing`] and [`Self::disconnect`], where nothing can be done about a failure.
    pub(super) async fn give_up_pairing(&self, peer: &Peer) {
        for given_up in [self.cancel_pairing(peer).await, self.disconnect(peer).await] {
            if let Err(error) = given_up {
                debug!(%peer, %error, "no clean end of a pairing");
            }
        }
    }

    /// Tells BlueZ to give a pairing up. None going on is not an error.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn cancel_pairing(&self, peer: &Peer) -> Result<(), BluezError> {
        let done = self.device_call("cancelling the pairing", self.limits.call, peer, "CancelPairing").await;
        done.or_else(|error| if error.cause == Cause::UnknownObject { Ok(()) } else { Err(error) })
    }

    /// Lets the device use services without an agent being asked.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn trust(&self, peer: &Peer) -> Result<(), BluezError> {
        let body = (DEVICE1, "Trusted", Variant::Bool(true));
        let doing = "marking the device as trusted";
        self.call(doing, self.limits.call, &peer.path(), PROPERTIES, "Set", &body).await.map(drop)
    }

    /// Starts to scan. It ends with [`Self::stop_scan`], or with this connection. Does not switch the adapter on.
    ///
    /// # Errors
    /// [`Cause::NotPowered`] if it is off; otherwise see [`Cause`].
    pub async fn start_scan(&self, adapter: &str, transport: Transport) -> Result<(), BluezError> {
        let (path, limit) = (adapter_path(adapter), self.limits.call);
        let transport = match transport {
            Transport::LowEnergy => "le",
            Transport::Any => "auto",
        };
        // With any filter BlueZ tells each advertisement by its signal strength, however little that has changed, so
        // that a sensor which returns is heard at once; without one, changes below 8 dB are kept back. Data in an
        // advertisement are told again only if that is asked for: a scale repeats its last weight.
        let filter = HashMap::from([("Transport", Variant::from(transport)), ("DuplicateData", Variant::Bool(true))]);
        self.call("choosing what to scan for", limit, &path, ADAPTER1, "SetDiscoveryFilter", &filter).await?;
        self.call("starting to scan", limit, &path, ADAPTER1, "StartDiscovery", &()).await.map(drop)
    }

    /// Stops the scan of this connection.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn stop_scan(&self, adapter: &str) -> Result<(), BluezError> {
        let (path, limit) = (adapter_path(adapter), self.limits.call);
        self.call("stopping the scan", limit, &path, ADAPTER1, "StopDiscovery", &()).await.map(drop)
    }

    async fn device_call(
        &self,
        doing: &'static str,
        limit: Duration,
        peer: &Peer,
        method: &'static str,
    ) -> Result<(), BluezError> {
        self.call(doing, limit, &peer.path(), DEVICE1, method, &()).await.map(drop)
    }

    /// All objects by their paths.
    async fn objects(&self, doing: &'static str) -> Result<BTreeMap<String, Interfaces>, BluezError> {
        let reply = self.call(doing, self.limits.call, "/", OBJECT_MANAGER, "GetManagedObjects", &()).await?;
        let objects: HashMap<OwnedObjectPath, Interfaces> =
            reply.body().deserialize().map_err(|error| BluezError::from_bus(doing, &error))?;
        Ok(objects.into_iter().map(|(path, interfaces)| (path.to_string(), interfaces)).collect())
    }

    /// A question to the bus itself.
    pub(super) async fn ask_bus<B, A>(
        &self,
        doing: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<A, BluezError>
    where
        B: serde::Serialize + DynamicType + Sync,
        A: for<'d> serde::Deserialize<'d> + zbus::Type,
    {
        let call = self.connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), method, body);
        let reply = bounded(doing, self.limits.call, call).await?;
        reply.body().deserialize().map_err(|error| BluezError::from_bus(doing, &error))
    }

    pub(super) async fn call<B: serde::Serialize + DynamicType + Sync>(
        &self,
        doing: &'static str,
        limit: Duration,
        path: &str,
        interface: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<Message, BluezError> {
        let call = self.connection.call_method(Some(BLUEZ), object_path(path), Some(interface), method, body);
        bounded(doing, limit, call).await
    }
}

async fn bounded<T>(
    doing: &'static str,
    limit: Duration,
    call: impl Future<Output = zbus::Result<T>>,
) -> Result<T, BluezError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| BluezError::from_bus(doing, &error)),
        Err(_) => Err(BluezError::new(doing, Cause::Timeout(limit))),
    }
}
