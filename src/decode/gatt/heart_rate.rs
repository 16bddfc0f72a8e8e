//! Heart Rate Measurement (0x2A37) of the Heart Rate Service 1.0.

use std::collections::BTreeSet;

use super::{GattError, Reader};
use crate::decode::{Decoded, DecodedVital};
use crate::vitals::{Absent, Decimal, Metric, Quality, Status, Value, Vital};

/// Beat intervals that a heart can have, in 1/1024 s: 300 to 2000 ms.
const PLAUSIBLE_RR: std::ops::RangeInclusive<u16> = 308..=2048;

/// The fields of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartRate {
    /// Beats a minute, as sent.
    pub heart_rate: u16,
    /// Skin contact; `None`: the sensor cannot tell.
    pub contact: Option<bool>,
    /// Energy expended since the last reset, in kJ; 0xFFFF: that or more.
    pub energy_kj: Option<u16>,
    /// Beat intervals, oldest first, in 1/1024 s.
    pub rr_1024: Vec<u16>,
    /// Bytes after the last whole field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<HeartRate, GattError> {
    let mut reader = Reader::new("heart rate", payload);
    reader.need(2)?;
    let flags = reader.u8()?;
    // HRS 1.0, 3.1.1.1: bit 0 chooses UINT8 or UINT16.
    let heart_rate = if flags & 0x01 == 0 { u16::from(reader.u8()?) } else { reader.u16()? };
    // Bit 1 says something only if bit 2 is set.
    let contact = (flags & 0x04 != 0).then_some(flags & 0x02 != 0);
    let energy_kj = if flags & 0x08 == 0 { None } else { Some(reader.u16()?) };
    let mut rr_1024 = Vec::new();
    if flags & 0x10 != 0 {
        while reader.left() >= 2 {
            rr_1024.push(reader.u16()?);
        }
    }
    Ok(HeartRate { heart_rate, contact, energy_kj, rr_1024, trailing_bytes: reader.left(), rfu_flags: flags & 0xE0 })
}

impl HeartRate {
    /// Status, heart rate, beat intervals.
    ///
    /// Straps go on sending a number without skin contact (`04 54` is 84 bpm): it is withheld. Some (Wahoo TICKR)
    /// deny contact while they see beats: with beat intervals in the same packet the number stays, as questionable.
    pub fn decoded(&self) -> Vec<Decoded> {
        let mut out = Vec::with_capacity(3);
        let is_off = self.contact == Some(false) && self.rr_1024.is_empty();
        if self.contact.is_some() {
            out.push(Decoded::Status(is_off.then_some(Status::SensorOff).into_iter().collect::<BTreeSet<_>>()));
        }
        let value = if is_off {
            Value::Absent(Absent::SensorOff)
        } else {
            Value::reported(Metric::HeartRate, Decimal::integer(i32::from(self.heart_rate)))
        };
        let quality = match (value, self.contact) {
            (Value::Absent(_), _) => Quality::NotAvailable,
            (Value::Valid(_), Some(false)) => Quality::Questionable,
            (Value::Valid(_), _) => Quality::Valid,
        };
        out.push(vital(Vital::scalar(Metric::HeartRate, value), quality));
        if !self.rr_1024.is_empty() {
            let is_plausible = self.rr_1024.iter().all(|interval| PLAUSIBLE_RR.contains(interval));
            let quality = match self.contact {
                _ if !is_plausible => Quality::Implausible,
                Some(false) => Quality::Questionable,
                _ => Quality::Valid,
            };
            out.push(vital(Vital::RrIntervals(self.rr_1024.clone()), quality));
        }
        out
    }
}

const fn vital(vital: Vital, quality: Quality) -> Decoded {
    Decoded::Vital(DecodedVital { vital, mdc: None, quality, device_time: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::gatt::decode;

    fn readings(payload: &[u8]) -> Vec<(Value, Quality)> {
        let vital = |decoded: Decoded| match decoded {
            Decoded::Vital(vital) => Some((vital.vital.leading(), vital.quality)),
            _ => None,
        };
        decode(0x2A37, payload).unwrap().into_iter().filter_map(vital).collect()
    }

    #[test]
    fn a_number_without_skin_contact_is_withheld() {
        assert_eq!(readings(&[0x04, 84]), [(Value::Absent(Absent::SensorOff), Quality::NotAvailable)]);
        assert_eq!(readings(&[0x06, 84]), [(Value::Valid(Decimal::integer(84)), Quality::Valid)]);
        // Bit 1 without bit 2 says nothing.
        assert_eq!(readings(&[0x02, 84]), [(Value::Valid(Decimal::integer(84)), Quality::Valid)]);
        let status = |payload: &[u8]| decode(0x2A37, payload).unwrap().first().cloned();
        assert_eq!(status(&[0x04, 84]), Some(Decoded::Status([Status::SensorOff].into())));
        assert_eq!(status(&[0x06, 84]), Some(Decoded::Status(BTreeSet::new())));
    }

    #[test]
    fn beats_seen_without_contact_leave_the_number_questionable() {
        let found = readings(&[0x14, 84, 0x00, 0x03]);
        assert_eq!(found[0], (Value::Valid(Decimal::integer(84)), Quality::Questionable));
        assert_eq!(found[1].1, Quality::Questionable);
    }

    #[test]
    fn impossible_intervals_and_rates_are_marked() {
        assert_eq!(readings(&[0x10, 60, 0xFF, 0xFF])[1].1, Quality::Implausible);
        assert_eq!(readings(&[0x10, 60, 0x00, 0x00])[1].1, Quality::Implausible);
        assert_eq!(readings(&[0x01, 0x7F, 0x7F])[0].0, Value::Absent(Absent::OutOfRange));
        assert_eq!(readings(&[0x00, 0])[0].0, Value::Absent(Absent::ZeroReported));
    }

    #[test]
    fn a_short_packet_says_how_short() {
        let error = |payload: &[u8]| decode(0x2A37, payload).unwrap_err().to_string();
        assert_eq!(error(&[0]), "heart rate packet has 1 byte, needs 2");
        assert_eq!(error(&[]), "heart rate packet has 0 bytes, needs 2");
        assert_eq!(error(&[0x01, 80]), "heart rate packet has 2 bytes, needs 3");
        assert_eq!(error(&[0x08, 80, 1]), "heart rate packet has 3 bytes, needs 4");
        assert_eq!(decode(0x2A00, &[]).unwrap_err().to_string(), "characteristic 0x2A00 is not known");
    }
}
