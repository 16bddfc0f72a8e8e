//! Heart Rate Measurement (0x2A37) and Body Sensor Location (0x2A38) of the Heart Rate Service 1.0.

use super::plausible::{Judged, judge};
use super::{GattError, Reader, Report};
use crate::profile::ble::Quirk;
use crate::vitals::{Absent, Decimal, Metric, Quality, Status, Value, Vital};

/// Beat intervals that a heart can have, in 1/1024 s: 300 to 2000 ms.
const PLAUSIBLE_RR: std::ops::RangeInclusive<u16> = 308..=2048;

/// HRS 1.0, 3.3: the only value of the Heart Rate Control Point (0x2A39), which sets the energy to 0.
pub const RESET_ENERGY_EXPENDED: u8 = 0x01;

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
    parse_with(payload, &[])
}

/// Reads a packet of a model with quirks.
pub fn parse_with(payload: &[u8], quirks: &[Quirk]) -> Result<HeartRate, GattError> {
    let mut reader = Reader::new("heart rate", payload);
    let flags = reader.u8("flags")?;
    // HRS 1.0, 3.1.1.1: bit 0 chooses UINT8 or UINT16.
    let heart_rate = if flags & 0x01 == 0 { u16::from(reader.u8("heart rate")?) } else { reader.u16("heart rate")? };
    // Bit 1 says something only if bit 2 is set.
    let can_tell = flags & 0x04 != 0 && !quirks.contains(&Quirk::ContactUnreliable);
    let contact = can_tell.then_some(flags & 0x02 != 0);
    let energy_kj = reader.when(flags & 0x08 != 0, |reader| reader.u16("energy expended"))?;
    let mut rr_1024 = Vec::new();
    if flags & 0x10 != 0 {
        while reader.left() >= 2 {
            rr_1024.push(reader.u16("beat interval")?);
        }
    }
    Ok(HeartRate { heart_rate, contact, energy_kj, rr_1024, trailing_bytes: reader.left(), rfu_flags: flags & 0xE0 })
}

impl HeartRate {
    /// Status, heart rate, beat intervals.
    ///
    /// Straps go on sending a number without skin contact (`04 54` is 84 bpm): it is withheld. Some (Wahoo TICKR)
    /// deny contact while they see beats: with beat intervals in the same packet the number stays, as questionable.
    pub fn report(&self) -> Report {
        let mut report =
            Report { rfu_bits: self.rfu_flags.count_ones(), trailing_bytes: self.trailing_bytes, ..Report::default() };
        let is_off = self.contact == Some(false) && self.rr_1024.is_empty();
        if self.contact.is_some() {
            report.status(is_off.then_some(Status::SensorOff));
        }
        let doubted = if self.contact == Some(false) { Quality::Questionable } else { Quality::Valid };
        report.vital(self.heart_rate(is_off, doubted), None);
        if !self.rr_1024.is_empty() {
            let is_plausible = self.rr_1024.iter().all(|interval| PLAUSIBLE_RR.contains(interval));
            let quality = if is_plausible { doubted } else { Quality::Implausible };
            report.composite(Vital::RrIntervals(self.rr_1024.clone()), quality, None);
        }
        report.detail_if("energy_expended_kj", self.energy_kj);
        report
    }

    fn heart_rate(&self, is_off: bool, doubted: Quality) -> Judged {
        let (metric, number) = (Metric::HeartRate, Decimal::integer(i32::from(self.heart_rate)));
        if is_off {
            let value = Value::Absent(Absent::SensorOff);
            return Judged { metric, value, quality: Quality::NotAvailable };
        }
        judge(metric, Ok(number), doubted)
    }
}

/// HRS 1.0, 3.2: where on the body the sensor is meant to be worn.
pub(super) fn report_location(payload: &[u8]) -> Result<Report, GattError> {
    const LOCATIONS: [&str; 7] = ["other", "chest", "wrist", "finger", "hand", "ear_lobe", "foot"];
    let mut reader = Reader::new("body sensor location", payload);
    let number = reader.u8("location")?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.detail("body_sensor_location", LOCATIONS.get(usize::from(number)).copied());
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decode::Decoded;
    use crate::decode::gatt::decode;

    fn readings(payload: &[u8]) -> Vec<(Value, Quality)> {
        let vital = |decoded: Decoded| match decoded {
            Decoded::Vital(vital) => Some((vital.vital.leading(), vital.quality)),
            _ => None,
        };
        decode(0x2A37, payload).unwrap().decoded.into_iter().filter_map(vital).collect()
    }

    #[test]
    fn a_number_without_skin_contact_is_withheld() {
        assert_eq!(readings(&[0x04, 84]), [(Value::Absent(Absent::SensorOff), Quality::NotAvailable)]);
        assert_eq!(readings(&[0x06, 84]), [(Value::Valid(Decimal::integer(84)), Quality::Valid)]);
        // Bit 1 without bit 2 says nothing.
        assert_eq!(readings(&[0x02, 84]), [(Value::Valid(Decimal::integer(84)), Quality::Valid)]);
        let status = |payload: &[u8]| decode(0x2A37, payload).unwrap().decoded.first().cloned();
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
        let no_heart = Value::Valid(Decimal::integer(0x7F7F));
        assert_eq!(readings(&[0x01, 0x7F, 0x7F])[0], (no_heart, Quality::Implausible));
        assert_eq!(readings(&[0x00, 0])[0].0, Value::Absent(Absent::ZeroReported));
    }

    #[test]
    fn a_sensor_whose_contact_bit_is_wrong_is_not_asked_for_it() {
        let report = |quirks: &[Quirk]| parse_with(&[0x04, 84], quirks).unwrap().report();
        assert_eq!(report(&[]).decoded.len(), 2);
        let found = report(&[Quirk::ContactUnreliable]).decoded;
        let [Decoded::Vital(vital)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(vital.vital.leading(), Value::Valid(Decimal::integer(84)));
    }

    #[test]
    fn a_short_packet_says_how_short() {
        let error = |payload: &[u8]| decode(0x2A37, payload).unwrap_err().to_string();
        assert_eq!(error(&[0]), "heart rate packet has 1 byte, needs 2: heart rate at byte 1 is cut");
        assert_eq!(error(&[]), "heart rate packet has 0 bytes, needs 1: flags at byte 0 is cut");
        assert_eq!(error(&[0x01, 80]), "heart rate packet has 2 bytes, needs 3: heart rate at byte 1 is cut");
        assert_eq!(error(&[0x08, 80, 1]), "heart rate packet has 3 bytes, needs 4: energy expended at byte 2 is cut");
        assert_eq!(decode(0x2A00, &[]).unwrap_err().to_string(), "characteristic 0x2A00 is not known");
    }
}
