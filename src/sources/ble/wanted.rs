//! How a Bluetooth device is told from all others in the air: by its address, or by its whole name.

use std::fmt;

use crate::bluez::BleAddress;

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
    fn a_sensor_is_told_by_its_address_or_by_its_whole_name() {
        let (ours, other) = (BleAddress::new([1, 2, 3, 4, 5, 6]), BleAddress::new([1, 2, 3, 4, 5, 7]));
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
