//! A sensor in the air: what it advertises, what it offers once connected, and how it pairs.

use std::collections::BTreeMap;

use zbus::message::Message;

use super::own::Own;
use super::pairing::Pairs;
use super::{ADAPTER, BEAT_TURNS, CHARACTERISTIC1, DESCRIPTOR1, Dictionary, OnConnect, SERVICE1, object_path, uuid};

/// What is in its advertisements beside its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Advert {
    /// 16-bit services.
    pub(crate) services: Vec<u16>,
    /// Data by company identifier.
    pub(crate) manufacturer_data: Vec<(u16, Vec<u8>)>,
    /// Data by 16-bit service.
    pub(crate) service_data: Vec<(u16, Vec<u8>)>,
    /// Transmission power in dBm.
    pub(crate) tx_power: Option<i16>,
}

/// One of its characteristics.
#[derive(Debug, Clone)]
pub(crate) struct Characteristic {
    /// 16-bit UUID.
    pub(crate) uuid: u16,
    /// As BlueZ writes them: `read`, `notify`, `indicate`, `write`.
    pub(crate) flags: &'static [&'static str],
    /// What a read gives.
    pub(crate) value: Vec<u8>,
    /// Whether it is given only over an encrypted link.
    pub(crate) is_encrypted: bool,
    /// Whether it refuses to be subscribed to.
    pub(crate) is_refusing: bool,
    /// What it sends after a subscription, one a beat, once.
    pub(crate) stored: Vec<Vec<u8>>,
}

impl Characteristic {
    /// One with these flags and nothing in it.
    pub(crate) const fn new(uuid: u16, flags: &'static [&'static str]) -> Self {
        Self { uuid, flags, value: vec![], is_encrypted: false, is_refusing: false, stored: vec![] }
    }

    /// The same with a value to read.
    pub(crate) fn reading(mut self, value: &[u8]) -> Self {
        self.value = value.to_vec();
        self
    }

    /// The same, sending these once after a subscription.
    pub(crate) fn storing(mut self, stored: &[&[u8]]) -> Self {
        self.stored = stored.iter().map(|payload| payload.to_vec()).collect();
        self
    }

    /// The same, refusing to be subscribed to.
    pub(crate) const fn refusing(mut self) -> Self {
        self.is_refusing = true;
        self
    }

    /// The same, only over an encrypted link.
    pub(crate) const fn encrypted(mut self) -> Self {
        self.is_encrypted = true;
        self
    }
}

/// A service: its 16-bit UUID and its characteristics.
pub(crate) type Service = (u16, Vec<Characteristic>);

/// A strap or another sensor in the air.
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
    /// What its first characteristic that notifies or indicates sends again and again; `None`: nothing.
    pub(crate) measurement: Option<Vec<u8>>,
    /// Whether it offers the heart-rate service, unless `services` says what it offers.
    pub(crate) has_heart_rate: bool,
    /// Whether the link stands.
    pub(crate) connected: bool,
    /// What it advertises.
    pub(crate) advert: Advert,
    /// How strong it is heard, in dBm.
    pub(crate) rssi: i16,
    /// What it offers instead of one service of heart rate.
    pub(crate) services: Vec<Service>,
    /// The charge that BlueZ reads from it by itself, once connected.
    pub(crate) battery: Option<u8>,
    /// How it pairs.
    pub(crate) pairs: Pairs,
    /// Whether BlueZ keeps keys for it.
    pub(crate) bonded: bool,
    /// Whether BlueZ was told to trust it.
    pub(crate) trusted: bool,
    /// Whether it ends the link after it has sent what it stored.
    pub(crate) ends_link: bool,
    /// It sends a measurement every so many turns.
    pub(crate) beat_turns: u64,
    /// Measurements that it has sent by itself to somebody who had subscribed.
    pub(crate) sent: u64,
    /// What was written to it: 16-bit UUID and payload.
    pub(crate) writes: Vec<(u16, Vec<u8>)>,
    /// What it does by a protocol of its maker's.
    pub(crate) own: Own,
    pub(super) resolved: bool,
    pub(super) known: bool,
    pub(super) heard: bool,
    /// The D-Bus names of the clients that have subscribed, by the path of the characteristic.
    pub(super) notifying: BTreeMap<String, String>,
    /// The same of the last link, which BlueZ renews by itself for a sensor that it has a bond with.
    pub(super) renewed: BTreeMap<String, String>,
    /// What is still to be sent, by the path of the characteristic.
    pub(super) to_send: Vec<(String, Vec<u8>)>,
    pub(super) resolve_at: Option<u64>,
    pub(super) drop_at: Option<u64>,
    pub(super) pending: Option<Message>,
}

/// One object below a device.
pub(super) struct Attribute {
    pub(super) path: String,
    pub(super) interface: &'static str,
    pub(super) properties: Dictionary,
}

impl Strap {
    /// A strap in range that sends nothing yet.
    pub(crate) fn new(address: &'static str, name: &'static str) -> Self {
        Self {
            address,
            name,
            in_range: true,
            on_connect: vec![],
            measurement: None,
            has_heart_rate: true,
            connected: false,
            advert: Advert { services: vec![0x180D], ..Advert::default() },
            rssi: -56,
            services: vec![],
            battery: None,
            pairs: Pairs::JustWorks,
            bonded: false,
            trusted: false,
            ends_link: false,
            beat_turns: BEAT_TURNS,
            sent: 0,
            writes: vec![],
            own: Own::default(),
            resolved: false,
            known: false,
            heard: false,
            notifying: BTreeMap::new(),
            renewed: BTreeMap::new(),
            to_send: vec![],
            resolve_at: None,
            drop_at: None,
            pending: None,
        }
    }

    /// Another sensor, that offers and advertises these services.
    pub(crate) fn sensor(address: &'static str, name: &'static str, services: Vec<Service>) -> Self {
        let advert = Advert { services: services.iter().map(|(service, _)| *service).collect(), ..Advert::default() };
        Self { advert, services, ..Self::new(address, name) }
    }

    /// A blood-pressure cuff that has to be paired with and then sends these measurements (BLS 1.1.1: 2A35), with Battery
    /// (180F) and Device Information (180A).
    pub(crate) fn cuff(address: &'static str, name: &'static str, measurements: &[&[u8]]) -> Self {
        let measurement = Characteristic::new(0x2A35, &["indicate"]).encrypted().storing(measurements);
        let feature = Characteristic::new(0x2A49, &["read"]).reading(&[0, 0]);
        let battery = Characteristic::new(0x2A19, &["read", "notify"]).reading(&[95]);
        let maker = Characteristic::new(0x2A29, &["read"]).reading(b"A&D Medical\0");
        let services = vec![(0x1810, vec![measurement, feature]), (0x180F, vec![battery]), (0x180A, vec![maker])];
        let mut cuff = Self::sensor(address, name, services);
        (cuff.battery, cuff.ends_link, cuff.advert.services) = (Some(95), true, vec![0x1810]);
        cuff
    }

    /// A pulse oximeter (PLXS 1.0.1: 2A5F) that sends this again and again.
    pub(crate) fn oximeter(address: &'static str, name: &'static str, measurement: &[u8]) -> Self {
        let services = vec![(0x1822, vec![Characteristic::new(0x2A5F, &["notify"])])];
        Self::sensor(address, name, services).sending(measurement)
    }

    /// A thermometer (HTS 1.0: 2A1C) that sends this measurement once.
    pub(crate) fn thermometer(address: &'static str, name: &'static str, measurement: &[u8]) -> Self {
        let characteristic = Characteristic::new(0x2A1C, &["indicate"]).storing(&[measurement]);
        Self::sensor(address, name, vec![(0x1809, vec![characteristic])])
    }

    /// The same, sending this.
    pub(crate) fn sending(mut self, measurement: &[u8]) -> Self {
        self.measurement = Some(measurement.to_vec());
        self
    }

    /// The same, pairing so.
    pub(crate) const fn pairing(mut self, pairs: Pairs) -> Self {
        self.pairs = pairs;
        self
    }

    /// BlueZ knows it from before.
    pub(crate) const fn remembered(&mut self) {
        self.known = true;
    }

    pub(super) fn path(&self) -> String {
        format!("{ADAPTER}/dev_{}", self.address.replace(':', "_"))
    }

    pub(super) fn properties(&self) -> Dictionary {
        let mut uuids: Vec<String> = self.advert.services.iter().map(|service| self.uuid(*service)).collect();
        if self.resolved {
            uuids.extend(self.offered().iter().map(|(service, _)| self.uuid(*service)));
            uuids.sort();
            uuids.dedup();
        }
        let mut properties = Dictionary::from([
            ("Address", self.address.into()),
            ("AddressType", "random".into()),
            ("Alias", self.name.into()),
            ("Paired", self.bonded.into()),
            ("Bonded", self.bonded.into()),
            ("Connected", self.connected.into()),
            ("ServicesResolved", self.resolved.into()),
            ("Trusted", self.trusted.into()),
            ("Blocked", false.into()),
            ("LegacyPairing", false.into()),
            ("UUIDs", uuids.into()),
            ("Adapter", object_path(ADAPTER).into()),
        ]);
        if !self.name.is_empty() {
            properties.insert("Name", self.name.into());
        }
        if self.heard {
            properties.insert("RSSI", self.rssi.into());
        }
        if let Some(tx_power) = self.advert.tx_power {
            properties.insert("TxPower", tx_power.into());
        }
        properties.extend(self.advertised());
        properties
    }

    /// Its advertised data. With `DuplicateData` BlueZ tells it with each advertisement.
    pub(super) fn advertised(&self) -> Dictionary {
        let mut properties = Dictionary::new();
        let manufacturer: BTreeMap<u16, zbus::Variant<'static>> =
            self.advert.manufacturer_data.iter().map(|(company, data)| (*company, data.clone().into())).collect();
        if !manufacturer.is_empty() {
            properties.insert("ManufacturerData", manufacturer.into());
        }
        let service_data: BTreeMap<String, zbus::Variant<'static>> =
            self.advert.service_data.iter().map(|(service, data)| (uuid(*service), data.clone().into())).collect();
        if !service_data.is_empty() {
            properties.insert("ServiceData", service_data.into());
        }
        properties
    }

    fn offered(&self) -> Vec<Service> {
        if !self.services.is_empty() {
            return self.services.clone();
        }
        let (service, characteristic) = if self.has_heart_rate { (0x180D, 0x2A37) } else { (0x180F, 0x2A19) };
        vec![(service, vec![Characteristic::new(characteristic, &["notify"])])]
    }

    /// Its characteristics with their paths.
    pub(super) fn characteristics(&self) -> Vec<(String, Characteristic)> {
        let mut all = vec![];
        for (index, (_, characteristics)) in self.offered().into_iter().enumerate() {
            let service = format!("{}/service{:04x}", self.path(), 0x10 + 0x20 * index);
            for (place, characteristic) in characteristics.into_iter().enumerate() {
                all.push((format!("{service}/char{:04x}", 0x11 + 0x20 * index + 3 * place), characteristic));
            }
        }
        all
    }

    /// The characteristic with this 16-bit UUID; the first one that sends if `None`.
    pub(super) fn sender(&self, wanted: Option<u16>) -> Option<String> {
        let fits = |characteristic: &Characteristic| match wanted {
            Some(uuid) => characteristic.uuid == uuid,
            None => characteristic.flags.iter().any(|flag| matches!(*flag, "notify" | "indicate")),
        };
        self.characteristics().into_iter().find(|(_, characteristic)| fits(characteristic)).map(|(path, _)| path)
    }

    /// The objects below it: services, characteristics, descriptors.
    pub(super) fn gatt(&self) -> Vec<Attribute> {
        let mut all = vec![];
        if !self.resolved {
            return all;
        }
        for (index, (service, _)) in self.offered().into_iter().enumerate() {
            let path = format!("{}/service{:04x}", self.path(), 0x10 + 0x20 * index);
            let properties = Dictionary::from([
                ("UUID", self.uuid(service).into()),
                ("Device", object_path(&self.path()).into()),
                ("Primary", true.into()),
            ]);
            all.push(Attribute { path, interface: SERVICE1, properties });
        }
        for (path, characteristic) in self.characteristics() {
            let service = path.rsplit_once('/').unwrap().0;
            let flags: Vec<String> = characteristic.flags.iter().map(ToString::to_string).collect();
            let properties = Dictionary::from([
                ("UUID", self.uuid(characteristic.uuid).into()),
                ("Service", object_path(service).into()),
                ("Value", characteristic.value.into()),
                ("Flags", flags.into()),
                ("Notifying", self.notifying.contains_key(&path).into()),
            ]);
            let number = u16::from_str_radix(&path[path.len() - 4..], 16).unwrap() + 2;
            let descriptor = format!("{path}/desc{number:04x}");
            all.push(Attribute { path, interface: CHARACTERISTIC1, properties });
            if characteristic.flags.iter().any(|flag| matches!(*flag, "notify" | "indicate")) {
                let properties = Dictionary::from([("UUID", uuid(0x2902).into())]);
                all.push(Attribute { path: descriptor, interface: DESCRIPTOR1, properties });
            }
        }
        all
    }

    /// The link has gone, and everything with it.
    pub(super) fn unlink(&mut self) {
        (self.connected, self.resolved) = (false, false);
        (self.resolve_at, self.drop_at) = (None, None);
        self.renewed = std::mem::take(&mut self.notifying);
        self.renewed.retain(|_, _| self.bonded);
        self.to_send.clear();
        self.own.unlink();
    }
}
