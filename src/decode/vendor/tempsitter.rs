//! Temp Sitter thermometer (sold as IRULU, Biolight; service FFE0, characteristic FFE1): `AA 06 11 00 lo hi 00 sum`, as
//! seen in captures that owners have published.

use super::{check_sum8, expect};
use crate::decode::gatt::plausible::judge;
use crate::decode::gatt::{GattError, Reader, Report};
use crate::vitals::{Absent, Decimal, Metric, Quality};

const WHAT: &str = "Temp Sitter";

/// The temperature, in 0.01 °C each.
pub fn parse(notification: &[u8]) -> Result<(u16, usize), GattError> {
    let mut reader = Reader::new(WHAT, notification);
    expect(WHAT, "first byte", 0xAA, reader.u8("first byte")?)?;
    expect(WHAT, "length", 0x06, reader.u8("length")?)?;
    let _: [u8; 2] = reader.array("kind")?;
    let raw = reader.u16("temperature")?;
    let _ = reader.u8("reserved byte")?;
    let covered = notification.get(1..reader.at()).unwrap_or(&[]);
    check_sum8(WHAT, covered, reader.u8("checksum")?)?;
    Ok((raw, reader.left()))
}

pub(super) fn report(notification: &[u8]) -> Result<Report, GattError> {
    let (raw, trailing_bytes) = parse(notification)?;
    let mut report = Report { trailing_bytes, ..Report::default() };
    let celsius = Decimal::new(i64::from(raw), -2).ok_or(Absent::OutOfRange);
    report.vital(judge(Metric::Temperature, celsius, Quality::Valid), None);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_notification_is_refused() {
        let good = [0xAA, 0x06, 0x11, 0x00, 0x3E, 0x0D, 0x00, 0x62];
        assert_eq!(parse(&good), Ok((3390, 0)));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(parse(&bad).is_err(), "byte {at}");
        }
        let error = parse(&[0xAB]).unwrap_err().to_string();
        assert_eq!(error, "Temp Sitter packet has 0xAB for its first byte, must have 0xAA");
    }
}
