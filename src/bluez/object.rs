//! BlueZ's objects as values: adapters and devices out of their D-Bus properties.

use std::collections::BTreeMap;
use std::fmt;

use uuid::Uuid;
use zbus::{ObjectPath, OwnedVariant, Variant};

use super::address::BleAddress;
use super::{ADAPTER1, BATTERY1, DEVICE1};

/// Where BlueZ keeps adapters.
const ROOT: &str = "/org/bluez/";

/// Properties of one interface.
pub(super) type Properties = BTreeMap<String, OwnedVariant>;
/// Interfaces of one object.
pub(super) type Interfaces = BTreeMap<String, Properties>;

/// A Bluetooth adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// As the kernel calls it: `hci0`.
    pub name: String,
    /// Its own address, as text.
    pub address: String,
    /// Whether it is on.
    pub powered: bool,
    /// Whether somebody scans with it.
    pub discovering: bool,
}

/// A device as BlueZ names it: by the adapter that heard it and the address under which it was first heard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The adapter: `hci0`.
    pub adapter: String,
    /// The address.
    pub address: BleAddress,
}

/// A device that BlueZ knows: it hears it, is connected to it, or remembers a bond.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of BlueZ, and they vary freely")]
pub struct Device {
    /// How to name it to BlueZ.
    pub peer: Peer,
    /// Its address; differs from that of `peer` once a bond has told the address behind a private one.
    pub address: BleAddress,
    /// Its advertised name. Whoever advertises chooses it.
    pub name: Option<String>,
    /// Whether it was paired with.
    pub paired: bool,
    /// Whether the keys are kept, so that the pairing outlives this connection.
    pub bonded: bool,
    /// Whether it may use services without being asked for.
    pub trusted: bool,
    /// Whether an operator has blocked it.
    pub blocked: bool,
    /// Whether a link stands.
    pub connected: bool,
    /// Whether its services are known.
    pub resolved: bool,
    /// Signal strength in dBm; only while it is heard.
    pub rssi: Option<i16>,
    /// Transmission power in dBm, as advertised.
    pub tx_power: Option<i16>,
    /// Charge of its battery in percent.
    pub battery: Option<u8>,
    /// Services, advertised or found.
    pub services: Vec<Uuid>,
    /// Advertised data by company identifier.
    pub manufacturer_data: BTreeMap<u16, Vec<u8>>,
    /// Advertised data by service.
    pub service_data: BTreeMap<Uuid, Vec<u8>>,
}

impl Peer {
    /// From an object path such as `/org/bluez/hci0/dev_C0_FF_EE_00_00_01`; `None` for other objects.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        let (adapter, device) = path.strip_prefix(ROOT)?.split_once('/')?;
        let address = BleAddress::parse(device.strip_prefix("dev_")?, '_')?;
        Some(Self { adapter: adapter.to_owned(), address })
    }

    pub(super) fn path(&self) -> String {
        format!("{ROOT}{}/dev_{}", self.adapter, self.address.with('_'))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// The name of an adapter from its object path.
pub(super) fn adapter_name(path: &str) -> Option<&str> {
    path.strip_prefix(ROOT).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// The object path of an adapter. A name that cannot be part of a path makes one that BlueZ does not know.
pub(super) fn adapter_path(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{ROOT}{name}")
}

impl Adapter {
    pub(super) fn from_object(path: &str, interfaces: &Interfaces) -> Option<Self> {
        let properties = interfaces.get(ADAPTER1)?;
        Some(Self {
            name: adapter_name(path)?.to_owned(),
            address: text(properties, "Address").unwrap_or_default(),
            powered: flag(properties, "Powered"),
            discovering: flag(properties, "Discovering"),
        })
    }
}

impl Device {
    pub(super) fn from_object(path: &str, interfaces: &Interfaces) -> Option<Self> {
        let properties = interfaces.get(DEVICE1)?;
        let peer = Peer::from_path(path)?;
        let paired = flag(properties, "Paired");
        Some(Self {
            address: text(properties, "Address").and_then(|text| text.parse().ok()).unwrap_or(peer.address),
            name: text(properties, "Name"),
            paired,
            // BlueZ before 5.65 has no `Bonded`, and keeps the keys of all that are paired.
            bonded: value(properties, "Bonded").unwrap_or(paired),
            trusted: flag(properties, "Trusted"),
            blocked: flag(properties, "Blocked"),
            connected: flag(properties, "Connected"),
            resolved: flag(properties, "ServicesResolved"),
            rssi: value(properties, "RSSI"),
            tx_power: value(properties, "TxPower"),
            battery: interfaces.get(BATTERY1).and_then(|battery| value(battery, "Percentage")),
            services: services(properties),
            manufacturer_data: manufacturer_data(properties),
            service_data: service_data(properties),
            peer,
        })
    }
}

/// A property of a basic type.
pub(super) fn value<'v, T: TryFrom<&'v OwnedVariant>>(properties: &'v Properties, name: &str) -> Option<T> {
    T::try_from(properties.get(name)?).ok()
}

fn flag(properties: &Properties, name: &str) -> bool {
    value(properties, name).unwrap_or(false)
}

fn text(properties: &Properties, name: &str) -> Option<String> {
    value::<&str>(properties, name).map(ToOwned::to_owned)
}

fn uuid(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok()
}

fn services(properties: &Properties) -> Vec<Uuid> {
    let Some(Variant::Array(array)) = properties.get("UUIDs").map(|value| &**value) else { return vec![] };
    array.iter().filter_map(|value| uuid(<&str>::try_from(value).ok()?)).collect()
}

/// What a device advertises, by the company's number.
pub(super) fn manufacturer_data(properties: &Properties) -> BTreeMap<u16, Vec<u8>> {
    data(properties, "ManufacturerData", |key| u16::try_from(key).ok())
}

/// What a device advertises, by service.
pub(super) fn service_data(properties: &Properties) -> BTreeMap<Uuid, Vec<u8>> {
    data(properties, "ServiceData", |key| uuid(<&str>::try_from(key).ok()?))
}

/// A dictionary of byte arrays.
fn data<K: Ord>(properties: &Properties, name: &str, key: impl Fn(&Variant<'_>) -> Option<K>) -> BTreeMap<K, Vec<u8>> {
    let Some(Variant::Dict(dict)) = properties.get(name).map(|value| &**value) else { return BTreeMap::new() };
    let bytes = |value: &Variant<'_>| match value {
        Variant::Variant(inner) => byte_array(inner),
        other => byte_array(other),
    };
    dict.iter().filter_map(|(found, value)| Some((key(found)?, bytes(value)?))).collect()
}

fn byte_array(value: &Variant<'_>) -> Option<Vec<u8>> {
    let Variant::Array(array) = value else { return None };
    array.iter().map(|byte| u8::try_from(byte).ok()).collect()
}

/// A path for a call; an impossible one becomes the root, where BlueZ has no such method.
pub(super) fn object_path(path: &str) -> ObjectPath<'_> {
    ObjectPath::try_from(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_device_and_nothing_below_it() {
        let peer = Peer { adapter: "hci1".to_owned(), address: "C0:FF:EE:00:00:01".parse().unwrap() };
        assert_eq!(peer.path(), "/org/bluez/hci1/dev_C0_FF_EE_00_00_01");
        assert_eq!(Peer::from_path(&peer.path()), Some(peer));
        for other in ["/org/bluez/hci0", "/", "/org/bluez/hci0/dev_C0_FF_EE_00_00_01/service0010", "/org/bluez/hci0/x"]
        {
            assert_eq!(Peer::from_path(other), None, "{other}");
        }
    }

    #[test]
    fn an_adapter_is_one_step_below_the_root_and_its_name_cannot_leave_it() {
        assert_eq!(adapter_name("/org/bluez/hci0"), Some("hci0"));
        assert_eq!(adapter_name("/org/bluez"), None);
        assert_eq!(adapter_name("/org/bluez/hci0/dev_C0_FF_EE_00_00_01"), None);
        assert_eq!(adapter_path("../x y"), "/org/bluez/___x_y");
    }

    #[test]
    fn an_old_daemon_without_bonded_keeps_the_keys_of_what_is_paired() {
        let properties = |names: &[&str]| {
            let all = names.iter().map(|name| ((*name).to_owned(), OwnedVariant::from(true)));
            Interfaces::from([(DEVICE1.to_owned(), all.collect())])
        };
        let path = "/org/bluez/hci0/dev_C0_FF_EE_00_00_01";
        assert!(Device::from_object(path, &properties(&["Paired"])).unwrap().bonded);
        assert!(!Device::from_object(path, &properties(&["Trusted"])).unwrap().bonded);
        assert_eq!(Device::from_object(path, &Interfaces::new()), None);
    }
}
