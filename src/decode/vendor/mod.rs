//! Records of makers that are no characteristic of the Bluetooth SIG and do not fit a profile. Decoders only: nothing
//! connects to these devices.

pub mod microlife;
pub mod omron;
pub mod tempsitter;

use super::gatt::{GattError, Report};

/// A kind of record.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    decode: fn(&[u8]) -> Result<Report, GattError>,
}

/// Every kind of record that is known.
pub const RECORDS: &[Record] = &[
    Record {
        name: "microlife",
        about: "Microlife BP3GY1-2N: a frame of the FFF1 and FFF2 characteristics",
        decode: microlife::report,
    },
    Record {
        name: "omron-be",
        about: "Omron HEM-7600T: 14 bytes of the EEPROM",
        decode: |record| omron::report(record, omron::Layout::BigEndian),
    },
    Record {
        name: "omron-le",
        about: "Omron HEM-7142T2 and its like: 14 bytes of the EEPROM",
        decode: |record| omron::report(record, omron::Layout::LittleEndian),
    },
    Record { name: "tempsitter", about: "Temp Sitter thermometer: a notification of FFE1", decode: tempsitter::report },
];

impl Record {
    /// What the bytes of one record say.
    pub fn decode(&self, bytes: &[u8]) -> Result<Report, GattError> {
        let mut report = (self.decode)(bytes)?;
        report.raw = bytes.to_vec();
        Ok(report)
    }
}

/// Sum of the bytes, modulo 256; an error if it is not what was sent.
fn check_sum8(what: &'static str, covered: &[u8], sent: u8) -> Result<(), GattError> {
    let computed = covered.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if computed == sent {
        Ok(())
    } else {
        Err(GattError::Checksum { what, computed: computed.into(), found: sent.into() })
    }
}

/// A byte that is always the same.
fn expect(what: &'static str, field: &'static str, expected: u8, found: u8) -> Result<(), GattError> {
    if expected == found { Ok(()) } else { Err(GattError::Unexpected { what, field, expected, found }) }
}
