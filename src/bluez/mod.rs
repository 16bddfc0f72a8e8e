//! BlueZ over D-Bus: what btleplug cannot do. Watching the daemon and its adapters, switching an adapter, pairing,
//! trusting, forgetting.
//!
//! [`Bluez`] asks and orders, [`Watch`] tells what changes, [`Agent`] answers BlueZ when a peer wants to pair, and
//! [`Pairing`] is one pairing that somebody asked for. [`kind`] says what a device is by what it advertises. Nothing
//! here starts a task, retries, or decides when: that is for who calls. Each call has a deadline of its own.

pub mod kind;

mod address;
mod agent;
mod client;
mod error;
mod object;
mod pairing;
mod record;
mod search;
mod watch;

pub use address::{BadBleAddress, BleAddress};
pub use agent::{Agent, AgentRequest, AgentRole, Capability, Configured, Question, parse_passkey};
pub use client::{Bluez, BluezLimits, Transport};
pub use error::{BluezError, Cause};
pub use object::{Adapter, Device, Peer};
pub use pairing::{Pairing, Step};
pub use record::{Record, printable};
pub use search::{Named, Scan, find};
pub use watch::{BluezEvent, Watch};

/// The name of bluetoothd on the bus.
const BLUEZ: &str = "org.bluez";
const ADAPTER1: &str = "org.bluez.Adapter1";
const DEVICE1: &str = "org.bluez.Device1";
const BATTERY1: &str = "org.bluez.Battery1";
const AGENT_MANAGER1: &str = "org.bluez.AgentManager1";
const AGENT1: &str = "org.bluez.Agent1";
/// The bus itself.
const BUS: &str = "org.freedesktop.DBus";
const OBJECT_MANAGER: &str = "org.freedesktop.DBus.ObjectManager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
