//! Characteristics that the Bluetooth SIG has standardised.

pub mod blood_pressure;
pub mod heart_rate;

use super::Decoded;

/// Heart Rate Measurement.
pub const HEART_RATE_MEASUREMENT: u16 = 0x2A37;
/// Blood Pressure Measurement.
pub const BLOOD_PRESSURE_MEASUREMENT: u16 = 0x2A35;

/// Characteristics that [`decode`] knows.
pub const KNOWN: &[u16] = &[BLOOD_PRESSURE_MEASUREMENT, HEART_RATE_MEASUREMENT];

/// Why a payload cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GattError {
    /// A field that the flags declare is missing or cut.
    #[error("{what} packet has {has} byte{}, needs {needs}", if *.has == 1 { "" } else { "s" })]
    Short {
        /// Which packet.
        what: &'static str,
        /// Its bytes.
        has: usize,
        /// The bytes that its flags declare.
        needs: usize,
    },
    /// No decoder for it.
    #[error("characteristic 0x{0:04X} is not known")]
    UnknownCharacteristic(u16),
}

/// What one notification or indication of a characteristic says. A status set is given whenever the device reports
/// one, changed or not.
pub fn decode(characteristic: u16, payload: &[u8]) -> Result<Vec<Decoded>, GattError> {
    match characteristic {
        HEART_RATE_MEASUREMENT => heart_rate::parse(payload).map(|packet| packet.decoded()),
        BLOOD_PRESSURE_MEASUREMENT => blood_pressure::parse(payload).map(|packet| packet.decoded()),
        other => Err(GattError::UnknownCharacteristic(other)),
    }
}

/// Reads fields one after the other; reading beyond the end remembers what would have been needed.
pub(super) struct Reader<'p> {
    what: &'static str,
    payload: &'p [u8],
    at: usize,
}

impl<'p> Reader<'p> {
    pub(super) const fn new(what: &'static str, payload: &'p [u8]) -> Self {
        Self { what, payload, at: 0 }
    }

    /// Refuses a payload that is shorter than what its flags declare.
    pub(super) const fn need(&self, needs: usize) -> Result<(), GattError> {
        let has = self.payload.len();
        if has < needs { Err(GattError::Short { what: self.what, has, needs }) } else { Ok(()) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, GattError> {
        self.need(self.at + 1)?;
        let byte = self.payload.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, GattError> {
        self.need(self.at + 2)?;
        Ok(u16::from_le_bytes([self.u8()?, self.u8()?]))
    }

    pub(super) const fn left(&self) -> usize {
        self.payload.len().saturating_sub(self.at)
    }
}
