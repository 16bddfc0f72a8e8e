//! The address of a Bluetooth device.

use std::fmt;
use std::str::FromStr;

/// A device address such as `C0:FF:EE:00:00:01`, most significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BleAddress([u8; 6]);

/// Why a text is not a [`BleAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Bluetooth address such as C0:FF:EE:00:00:01")]
pub struct BadBleAddress(pub String);

impl BleAddress {
    /// From its bytes, most significant first.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The text with `separator` between the bytes: BlueZ's object paths have `_`.
    pub(super) fn with(self, separator: char) -> String {
        let bytes: Vec<String> = self.0.iter().map(|byte| format!("{byte:02X}")).collect();
        bytes.join(separator.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn parse(text: &str, separator: char) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl FromStr for BleAddress {
    type Err = BadBleAddress;

    fn from_str(text: &str) -> Result<Self, BadBleAddress> {
        Self::parse(text, ':').ok_or_else(|| BadBleAddress(text.chars().take(32).collect()))
    }
}

impl fmt::Display for BleAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with(':'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_six_bytes_in_hexadecimal_or_is_refused() {
        let address: BleAddress = "c0:ff:EE:00:00:01".parse().unwrap();
        assert_eq!(address, BleAddress::new([0xC0, 0xFF, 0xEE, 0x00, 0x00, 0x01]));
        assert_eq!(address.to_string(), "C0:FF:EE:00:00:01");
        for bad in ["", "Polar H10", "C0:FF:EE:00:00", "C0:FF:EE:00:00:01:02", "C0_FF_EE_00_00_01", "+0:FF:EE:00:00:01"]
        {
            assert_eq!(bad.parse::<BleAddress>(), Err(BadBleAddress(bad.to_owned())));
        }
    }
}
