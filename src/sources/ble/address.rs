//! How a Bluetooth device is told from all others in the air: by its address, or by its whole name.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A device address such as `C0:FF:EE:00:00:01`, most significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BleAddress(pub [u8; 6]);

/// Why a text is not a [`BleAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Bluetooth address such as C0:FF:EE:00:00:01")]
pub struct BadBleAddress(pub String);

impl FromStr for BleAddress {
    type Err = BadBleAddress;

    fn from_str(text: &str) -> Result<Self, BadBleAddress> {
        let bad = || BadBleAddress(text.chars().take(32).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for BleAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02X}")?;
        }
        Ok(())
    }
}

impl Serialize for BleAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a sensor is told from all other devices in the air.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// By its address.
    Address(BleAddress),
    /// By its advertised name, in full.
    Name(String),
}

impl Wanted {
    /// Whether a device with this address and name is the one.
    pub fn is_met_by(&self, address: BleAddress, name: Option<&str>) -> bool {
        match self {
            Self::Address(wanted) => *wanted == address,
            Self::Name(wanted) => name == Some(wanted),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => write!(f, "`{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_six_bytes_in_hexadecimal_or_is_refused() {
        let address: BleAddress = "c0:ff:EE:00:00:01".parse().unwrap();
        assert_eq!(address, BleAddress([0xC0, 0xFF, 0xEE, 0x00, 0x00, 0x01]));
        assert_eq!(address.to_string(), "C0:FF:EE:00:00:01");
        for bad in ["", "Polar H10", "C0:FF:EE:00:00", "C0:FF:EE:00:00:01:02", "C0-FF-EE-00-00-01", "+0:FF:EE:00:00:01"]
        {
            assert_eq!(bad.parse::<BleAddress>(), Err(BadBleAddress(bad.to_owned())));
        }
    }

    #[test]
    fn a_sensor_is_told_by_its_address_or_by_its_whole_name() {
        let (ours, other) = (BleAddress([1, 2, 3, 4, 5, 6]), BleAddress([1, 2, 3, 4, 5, 7]));
        let by_name = Wanted::Name("Strap 1".to_owned());
        for (wanted, address, name, met) in [
            (&Wanted::Address(ours), ours, None, true),
            (&Wanted::Address(ours), other, Some("Strap 1"), false),
            (&by_name, other, Some("Strap 1"), true),
            (&by_name, other, Some("Strap 12"), false),
            (&by_name, other, None, false),
        ] {
            assert_eq!(wanted.is_met_by(address, name), met, "{wanted} {address} {name:?}");
        }
    }
}
