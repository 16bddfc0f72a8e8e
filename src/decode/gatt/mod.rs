//! Characteristics that the Bluetooth SIG has standardised, and what sensors advertise: bytes into a [`Report`].
//!
//! Reserved bits are ignored and counted, bytes after the last field are counted, and only a field that its flags declare
//! and that is cut is an error. A number that nobody has is kept and marked; a special value is a reason, not a number.

pub mod advert;
mod battery;
pub mod blood_pressure;
pub mod body_composition;
pub mod cgm;
pub mod date_time;
pub mod device_information;
pub mod glucose;
pub mod glucose_context;
pub mod heart_rate;
pub mod oximeter;
pub(super) mod plausible;
pub mod racp;
pub(super) mod reader;
pub(super) mod report;
pub mod thermometer;
mod units;
pub mod user_data;
pub mod weight;

use uuid::Uuid;

use crate::profile::ble::Quirk;

pub(super) use reader::Reader;
pub(crate) use report::hex_digits;
pub use report::{Detail, Details, Report};

/// Heart Rate Measurement.
pub const HEART_RATE_MEASUREMENT: u16 = 0x2A37;
/// Blood Pressure Measurement.
pub const BLOOD_PRESSURE_MEASUREMENT: u16 = 0x2A35;

/// Bluetooth Core 5.4, Vol 3, Part B, 2.5.1: the base to which a short form is added.
const BASE_UUID: u128 = 0x0000_0000_0000_1000_8000_0080_5F9B_34FB;

type Decode = fn(&[u8], &[Quirk]) -> Result<Report, GattError>;

/// A characteristic that [`decode`] knows.
#[derive(Debug, Clone, Copy)]
pub struct Characteristic {
    /// Its 16-bit UUID.
    pub uuid: u16,
    /// Its name in the assigned numbers.
    pub name: &'static str,
    decode: Decode,
}

const fn row(uuid: u16, name: &'static str, decode: Decode) -> Characteristic {
    Characteristic { uuid, name, decode }
}

/// Every characteristic that is known, by its number.
pub const CHARACTERISTICS: &[Characteristic] = &[
    row(0x2A08, "Date Time", |payload, _| date_time::report_date_time(payload)),
    row(0x2A0F, "Local Time Information", |payload, _| date_time::report_local_time(payload)),
    row(0x2A18, "Glucose Measurement", |payload, _| Ok(glucose::parse(payload)?.report())),
    row(0x2A19, "Battery Level", |payload, _| battery::report(payload)),
    row(0x2A1C, "Temperature Measurement", |payload, _| Ok(thermometer::parse(payload)?.report())),
    row(0x2A1D, "Temperature Type", |payload, _| thermometer::report_type(payload)),
    row(0x2A1E, "Intermediate Temperature", |payload, _| Ok(thermometer::parse(payload)?.report_intermediate())),
    row(0x2A21, "Measurement Interval", |payload, _| thermometer::report_interval(payload)),
    row(0x2A23, "System ID", |payload, _| device_information::report_system_id(payload)),
    row(0x2A24, "Model Number String", |payload, _| Ok(device_information::report_model(payload))),
    row(0x2A25, "Serial Number String", |payload, _| Ok(device_information::report_serial(payload))),
    row(0x2A26, "Firmware Revision String", |payload, _| Ok(device_information::report_firmware(payload))),
    row(0x2A27, "Hardware Revision String", |payload, _| Ok(device_information::report_hardware(payload))),
    row(0x2A28, "Software Revision String", |payload, _| Ok(device_information::report_software(payload))),
    row(0x2A29, "Manufacturer Name String", |payload, _| Ok(device_information::report_manufacturer(payload))),
    row(0x2A2A, "IEEE 11073-20601 Regulatory Certification Data List", |payload, _| {
        Ok(device_information::report_regulatory(payload))
    }),
    row(0x2A2B, "Current Time", |payload, _| date_time::report_current_time(payload)),
    row(0x2A34, "Glucose Measurement Context", |payload, quirks| Ok(glucose_context::parse(payload)?.report(quirks))),
    row(BLOOD_PRESSURE_MEASUREMENT, "Blood Pressure Measurement", |payload, quirks| {
        Ok(blood_pressure::parse_with(payload, quirks)?.report())
    }),
    row(0x2A36, "Intermediate Cuff Pressure", |payload, quirks| {
        Ok(blood_pressure::parse_with(payload, quirks)?.report_intermediate())
    }),
    row(HEART_RATE_MEASUREMENT, "Heart Rate Measurement", |payload, quirks| {
        Ok(heart_rate::parse_with(payload, quirks)?.report())
    }),
    row(0x2A38, "Body Sensor Location", |payload, _| heart_rate::report_location(payload)),
    row(0x2A49, "Blood Pressure Feature", |payload, _| blood_pressure::report_feature(payload)),
    row(0x2A50, "PnP ID", |payload, _| device_information::report_pnp_id(payload)),
    row(0x2A51, "Glucose Feature", |payload, _| glucose::report_feature(payload)),
    row(0x2A52, "Record Access Control Point", |payload, _| racp::report(payload)),
    row(0x2A5E, "PLX Spot-Check Measurement", |payload, _| Ok(oximeter::parse_spot(payload)?.report())),
    row(0x2A5F, "PLX Continuous Measurement", |payload, _| Ok(oximeter::parse_continuous(payload)?.report())),
    row(0x2A60, "PLX Features", |payload, _| oximeter::report_features(payload)),
    row(0x2A9A, "User Index", |payload, _| user_data::report_index(payload)),
    row(0x2A9B, "Body Composition Feature", |payload, _| body_composition::report_feature(payload)),
    row(0x2A9C, "Body Composition Measurement", |payload, _| Ok(body_composition::parse(payload)?.report())),
    row(0x2A9D, "Weight Measurement", |payload, _| Ok(weight::parse(payload)?.report())),
    row(0x2A9E, "Weight Scale Feature", |payload, _| weight::report_feature(payload)),
    row(0x2A9F, "User Control Point", |payload, _| user_data::report_response(payload)),
    row(0x2AA7, "CGM Measurement", |payload, _| cgm::report(payload)),
    row(0x2AAA, "CGM Session Start Time", |payload, _| cgm::report_start(payload)),
];

/// Why a payload cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GattError {
    /// A field that the flags declare is missing or cut.
    #[error("{what} packet has {has} byte{}, needs {needs}: {field} at byte {at} is cut", if *.has == 1 { "" } else { "s" })]
    Short {
        /// Which packet.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// Where the field begins, from 0.
        at: usize,
        /// The bytes of the packet.
        has: usize,
        /// The bytes that it has at least, with this field.
        needs: usize,
    },
    /// The checksum does not hold.
    #[error("{what} packet has the checksum 0x{found:04X}, must have 0x{computed:04X}")]
    Checksum {
        /// Which packet.
        what: &'static str,
        /// What it should be.
        computed: u16,
        /// What was sent.
        found: u16,
    },
    /// A byte that is always the same is another one.
    #[error("{what} packet has 0x{found:02X} for its {field}, must have 0x{expected:02X}")]
    Unexpected {
        /// Which packet.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// What it always is.
        expected: u8,
        /// What was sent.
        found: u8,
    },
    /// No decoder for it.
    #[error("characteristic 0x{0:04X} is not known")]
    UnknownCharacteristic(u16),
    /// No decoder for it.
    #[error("service data of 0x{0:04X} is not known")]
    UnknownServiceData(u16),
    /// No decoder for it.
    #[error("manufacturer data of company 0x{0:04X} is not known")]
    UnknownManufacturer(u16),
}

/// The characteristic of this number, if it is known.
pub fn characteristic(uuid: u16) -> Option<&'static Characteristic> {
    CHARACTERISTICS.iter().find(|known| known.uuid == uuid)
}

/// The 16-bit form of a UUID that has one.
pub fn short_form(uuid: Uuid) -> Option<u16> {
    let offset = uuid.as_u128().checked_sub(BASE_UUID)?;
    (offset & ((1 << 96) - 1) == 0).then(|| u16::try_from(offset >> 96).ok()).flatten()
}

/// What one notification, indication or read value of a characteristic says.
pub fn decode(characteristic: u16, payload: &[u8]) -> Result<Report, GattError> {
    decode_with(characteristic, payload, &[])
}

/// The same, of a model that departs from the specification.
pub fn decode_with(uuid: u16, payload: &[u8], quirks: &[Quirk]) -> Result<Report, GattError> {
    let known = characteristic(uuid).ok_or(GattError::UnknownCharacteristic(uuid))?;
    let mut report = (known.decode)(payload, quirks)?;
    report.raw = payload.to_vec();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characteristics_stand_in_the_order_of_their_numbers() {
        assert!(CHARACTERISTICS.is_sorted_by(|left, right| left.uuid < right.uuid));
    }

    #[test]
    fn a_long_uuid_has_a_short_form_only_on_the_base() {
        let short = |text: &str| short_form(text.parse().unwrap());
        assert_eq!(short("00002a37-0000-1000-8000-00805f9b34fb"), Some(0x2A37));
        assert_eq!(short("00012a37-0000-1000-8000-00805f9b34fb"), None);
        assert_eq!(short("00002a37-0000-1000-8000-00805f9b34fc"), None);
        assert_eq!(short("0aad7ea0-0d60-11e2-8e3c-0002a5d5c51b"), None);
    }

    #[test]
    fn the_payload_is_kept() {
        assert_eq!(decode(0x2A37, &[0x00, 60, 1]).unwrap().raw, [0x00, 60, 1]);
    }
}
