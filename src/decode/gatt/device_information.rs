//! Device Information Service 1.1: names and numbers of a model (0x2A23 to 0x2A2A, 0x2A50).

use std::fmt::Write as _;

use super::report::hex_digits;
use super::{GattError, Reader, Report};
use crate::decode::Decoded;

/// Longest value of a characteristic (Bluetooth Core 5.4, Vol 3, Part F, 3.2.9), in bytes.
const MAX_VALUE_BYTES: usize = 512;

/// A text up to its first NUL, with which some devices fill the rest. Bytes that are no UTF-8, and control characters,
/// are written `\xNN`: nothing is lost, and nothing unprintable reaches a terminal or a page.
pub fn text(payload: &[u8]) -> String {
    let payload = payload.get(..MAX_VALUE_BYTES).unwrap_or(payload);
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    let mut out = String::with_capacity(end);
    for chunk in payload.get(..end).unwrap_or(&[]).utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                escape(character.to_string().as_bytes(), &mut out);
            } else {
                out.push(character);
            }
        }
        escape(chunk.invalid(), &mut out);
    }
    out
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(out, "\\x{byte:02X}");
    }
}

pub(super) fn report_manufacturer(payload: &[u8]) -> Report {
    named("manufacturer_name", payload)
}

pub(super) fn report_model(payload: &[u8]) -> Report {
    named("model_number", payload)
}

pub(super) fn report_serial(payload: &[u8]) -> Report {
    let mut report = named("serial_number", payload);
    let number = text(payload);
    if !number.is_empty() {
        report.decoded.push(Decoded::SerialNumber(number));
    }
    report
}

pub(super) fn report_firmware(payload: &[u8]) -> Report {
    named("firmware_revision", payload)
}

pub(super) fn report_hardware(payload: &[u8]) -> Report {
    named("hardware_revision", payload)
}

pub(super) fn report_software(payload: &[u8]) -> Report {
    named("software_revision", payload)
}

/// DIS 1.1, 3.8: bytes whose meaning another document defines.
pub(super) fn report_regulatory(payload: &[u8]) -> Report {
    let mut report = Report::default();
    report.detail("regulatory_certification", hex_digits(payload));
    report
}

fn named(name: &'static str, payload: &[u8]) -> Report {
    let mut report = Report::default();
    report.detail(name, text(payload));
    report
}

/// DIS 1.1, 3.7 (System ID, 0x2A23): 40 bits of the maker's own, then 24 bits of its OUI, least significant first.
pub(super) fn report_system_id(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("system id", payload);
    let mut own: [u8; 5] = reader.array("manufacturer identifier")?;
    let mut oui: [u8; 3] = reader.array("organizationally unique identifier")?;
    own.reverse();
    oui.reverse();
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.detail("manufacturer_identifier", hex_digits(&own));
    report.detail("oui", hex_digits(&oui));
    Ok(report)
}

/// DIS 1.1, 3.9 (`PnP` ID, 0x2A50): who gave the vendor's number, the vendor, the product, its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PnpId {
    /// 1 Bluetooth SIG, 2 USB forum.
    pub vendor_source: u8,
    /// The vendor.
    pub vendor: u16,
    /// The product.
    pub product: u16,
    /// Its version, `0xJJMN` for JJ.M.N.
    pub version: u16,
}

impl PnpId {
    /// Reads a value; also how many bytes follow it.
    pub fn parse(payload: &[u8]) -> Result<(Self, usize), GattError> {
        let mut reader = Reader::new("PnP id", payload);
        let found = Self {
            vendor_source: reader.u8("vendor id source")?,
            vendor: reader.u16("vendor id")?,
            product: reader.u16("product id")?,
            version: reader.u16("product version")?,
        };
        Ok((found, reader.left()))
    }
}

pub(super) fn report_pnp_id(payload: &[u8]) -> Result<Report, GattError> {
    let (found, trailing_bytes) = PnpId::parse(payload)?;
    let mut report = Report { trailing_bytes, ..Report::default() };
    let source = match found.vendor_source {
        1 => "bluetooth_sig",
        2 => "usb_forum",
        _ => "reserved",
    };
    report.detail("vendor_id_source", source);
    report.detail("vendor_id", format!("0x{:04X}", found.vendor));
    report.detail("product_id", format!("0x{:04X}", found.product));
    let [low, high] = found.version.to_le_bytes();
    report.detail("product_version", format!("{:x}.{}.{}", high, low >> 4, low & 15));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_at_its_first_nul_and_keeps_every_byte() {
        assert_eq!(text(b"Wahoo Fitness\0\0\0"), "Wahoo Fitness");
        assert_eq!(text("Dräger".as_bytes()), "Dräger");
        assert_eq!(text(b"A\xE4B"), "A\\xE4B");
        assert_eq!(text(b"A\xE2\x82"), "A\\xE2\\x82");
        assert_eq!(text(b"\x1B[31mred\n"), "\\x1B[31mred\\x0A");
        assert_eq!(text(b""), "");
        assert_eq!(text(&[b'a'; 600]).len(), MAX_VALUE_BYTES);
    }

    #[test]
    fn identifiers_are_told_as_they_are_written_in_lists() {
        let details = |report: Result<Report, GattError>| serde_json::to_string(&report.unwrap().details).unwrap();
        assert_eq!(
            details(report_pnp_id(&[1, 0x6B, 0x00, 0x02, 0x00, 0x34, 0x12])),
            r#"{"product_id":"0x0002","product_version":"12.3.4","vendor_id":"0x006B","vendor_id_source":"bluetooth_sig"}"#
        );
        let id = details(report_system_id(&[1, 2, 3, 4, 5, 0x22, 0x09, 0x00]));
        assert_eq!(id, r#"{"manufacturer_identifier":"0504030201","oui":"000922"}"#);
    }

    #[test]
    fn a_serial_number_names_the_device() {
        assert_eq!(report_serial(b"1587").decoded, [Decoded::SerialNumber("1587".to_owned())]);
        assert!(report_serial(b"\0\0").decoded.is_empty());
    }
}
