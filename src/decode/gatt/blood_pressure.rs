//! Blood Pressure Measurement (0x2A35) of the Blood Pressure Service 1.1.

use std::collections::BTreeSet;

use super::{GattError, Reader};
use crate::decode::ieee11073::sfloat;
use crate::decode::number::{rounded, times};
use crate::decode::{Decoded, DecodedVital};
use crate::vitals::{Absent, Decimal, MDC_PULSE_RATE_CUFF, Metric, Pressure, Quality, Status, Value, Vital};

/// The fields of a packet, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BloodPressure {
    /// True: kPa, false: mmHg.
    pub is_kpa: bool,
    /// Systolic (or, in 0x2A36, the pressure in the cuff).
    pub systolic: Result<Decimal, Absent>,
    /// Diastolic.
    pub diastolic: Result<Decimal, Absent>,
    /// Mean.
    pub mean: Result<Decimal, Absent>,
    /// The device's local time, `YYYY-MM-DDThh:mm:ss`; year 0, month 0 or day 0 are unknown.
    pub device_time: Option<String>,
    /// Pulse, in beats a minute.
    pub pulse: Option<Result<Decimal, Absent>>,
    /// The user's number at the device; 255: unknown.
    pub user: Option<u8>,
    /// Measurement status bits.
    pub status: Option<u16>,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// The flags and the length by which the Beurer BM85 is known, which writes pulse and status most significant byte
/// first and a user without its flag.
const BM85: (u8, usize) = (0x56, 19);

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<BloodPressure, GattError> {
    let mut reader = Reader::new("blood pressure", payload);
    let flags = payload.first().copied().unwrap_or(0);
    let optional = [(0x02, 7), (0x04, 2), (0x08, 1), (0x10, 2)];
    let declared: usize = optional.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, width)| width).sum();
    reader.need(7 + declared)?;
    let _ = reader.u8()?;
    let is_bm85 = (flags, payload.len()) == BM85;
    let (systolic, diastolic, mean) = (sfloat(reader.u16()?), sfloat(reader.u16()?), sfloat(reader.u16()?));
    // BLS 1.1.1, 3.1.1.1: the order is time, pulse, user, status.
    let device_time = if flags & 0x02 == 0 { None } else { Some(date_time(&mut reader)?) };
    let pulse = match (flags & 0x04, is_bm85) {
        (0, _) => None,
        (_, false) => Some(sfloat(reader.u16()?)),
        (_, true) => Some(Ok(Decimal::integer(i32::from(reader.u16()?.swap_bytes())))),
    };
    let user = if flags & 0x08 != 0 || is_bm85 { Some(reader.u8()?) } else { None };
    let status = match (flags & 0x10, is_bm85) {
        (0, _) => None,
        (_, false) => Some(reader.u16()?),
        (_, true) => Some(reader.u16()?.swap_bytes()),
    };
    Ok(BloodPressure {
        is_kpa: flags & 0x01 != 0,
        systolic,
        diastolic,
        mean,
        device_time,
        pulse,
        user,
        status,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xE0,
    })
}

/// Date Time (0x2A08): local time without a zone.
fn date_time(reader: &mut Reader<'_>) -> Result<String, GattError> {
    let (year, month, day) = (reader.u16()?, reader.u8()?, reader.u8()?);
    let (hour, minute, second) = (reader.u8()?, reader.u8()?, reader.u8()?);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"))
}

impl BloodPressure {
    /// Status, pressure, pulse. A measurement whose pressures are all special values has failed.
    pub fn decoded(&self) -> Vec<Decoded> {
        let mut out = Vec::with_capacity(3);
        let statuses = self.statuses();
        if self.status.is_some() {
            out.push(Decoded::Status(statuses.clone()));
        }
        let has_failed = self.systolic.is_err() && self.diastolic.is_err() && self.mean.is_err();
        let value = |sent: Result<Decimal, Absent>| match self.in_mmhg(sent) {
            _ if has_failed => Value::Absent(Absent::MeasurementFailed),
            Ok(number) => Value::reported(Metric::BloodPressure, number),
            Err(reason) => Value::Absent(reason),
        };
        let pressure =
            Pressure { systolic: value(self.systolic), diastolic: value(self.diastolic), mean: value(self.mean) };
        let quality = match pressure.systolic {
            Value::Absent(_) => Quality::NotAvailable,
            Value::Valid(_) if !is_plausible(&pressure) => Quality::Implausible,
            Value::Valid(_) if !statuses.is_empty() => Quality::Questionable,
            Value::Valid(_) => Quality::Valid,
        };
        let device_time = || self.device_time.clone();
        let vital = Vital::BloodPressure(pressure);
        out.push(Decoded::Vital(DecodedVital { vital, mdc: None, quality, device_time: device_time() }));
        if let Some(pulse) = self.pulse {
            let value = pulse.map_or_else(Value::Absent, |number| Value::reported(Metric::PulseRate, number));
            let quality = match value {
                Value::Absent(_) => Quality::NotAvailable,
                Value::Valid(_) if !statuses.is_empty() => Quality::Questionable,
                Value::Valid(_) => Quality::Valid,
            };
            let vital = Vital::scalar(Metric::PulseRate, value);
            let mdc = Some(MDC_PULSE_RATE_CUFF);
            out.push(Decoded::Vital(DecodedVital { vital, mdc, quality, device_time: device_time() }));
        }
        out
    }

    /// 1 kPa is 7.50062 mmHg; the result keeps one decimal place, as the cuff's own resolution is 1 mmHg.
    fn in_mmhg(&self, sent: Result<Decimal, Absent>) -> Result<Decimal, Absent> {
        let factor = Decimal::new(750_062, -5);
        match (sent, factor) {
            (Ok(number), Some(factor)) if self.is_kpa => {
                times(number, factor).and_then(|number| rounded(number, -1)).ok_or(Absent::OutOfRange)
            }
            (sent, _) => sent,
        }
    }

    fn statuses(&self) -> BTreeSet<Status> {
        let bits = self.status.unwrap_or(0);
        // BLS 1.1.1, 3.1.1.1.6; bits 3 and 4 are the range of the pulse, which the number itself tells.
        [
            (0x01, Status::BodyMovement),
            (0x02, Status::CuffTooLoose),
            (0x04, Status::IrregularPulse),
            (0x20, Status::ImproperPosition),
        ]
        .into_iter()
        .filter_map(|(bit, status)| (bits & bit != 0).then_some(status))
        .collect()
    }
}

/// Pressures that a living patient can have: systolic 20 to 300, diastolic 10 to 200 and below the systolic.
fn is_plausible(pressure: &Pressure) -> bool {
    let inside = |value: Value, low, high| {
        value.valid().is_none_or(|number| {
            number.compare(Decimal::integer(low)).is_ge() && number.compare(Decimal::integer(high)).is_le()
        })
    };
    let is_below = match (pressure.diastolic.valid(), pressure.systolic.valid()) {
        (Some(diastolic), Some(systolic)) => diastolic.compare(systolic).is_lt(),
        _ => true,
    };
    inside(pressure.systolic, 20, 300) && inside(pressure.diastolic, 10, 200) && is_below
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::gatt::decode;
    use crate::profile::hex;

    fn vitals(payload: &str) -> Vec<DecodedVital> {
        let vital = |decoded: Decoded| match decoded {
            Decoded::Vital(vital) => Some(vital),
            _ => None,
        };
        decode(0x2A35, &hex::bytes(payload).unwrap()).unwrap().into_iter().filter_map(vital).collect()
    }

    fn shown(value: Value) -> String {
        value.valid().map_or_else(|| value.absent().unwrap().name().to_owned(), |number| number.to_string())
    }

    fn pressures(payload: &str) -> [String; 3] {
        match &vitals(payload)[0].vital {
            Vital::BloodPressure(pressure) => {
                [shown(pressure.systolic), shown(pressure.diastolic), shown(pressure.mean)]
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kilopascals_become_millimetres_with_one_place() {
        assert_eq!(pressures("15bdf00b009ff03c001200"), ["141.8", "82.5", "119.3"]);
    }

    #[test]
    fn a_failed_measurement_is_no_reading() {
        assert_eq!(pressures("00ff07ff07ff07"), ["measurement_failed"; 3]);
        assert_eq!(vitals("00ff07ff07ff07")[0].quality, Quality::NotAvailable);
    }

    #[test]
    fn a_missing_mean_leaves_the_others() {
        assert_eq!(pressures("def6f416f3ff07e4070114082b00b2f2018000"), ["127.0", "79.0", "not_a_number"]);
        assert_eq!(pressures("56710049000000ea07080b1438000041010000"), ["113", "73", "zero_reported"]);
    }

    #[test]
    fn the_pulse_has_the_code_of_a_cuff_and_the_time_of_the_device() {
        let found = vitals("167c0056006100e807060f11111b33000000");
        assert_eq!(found[1].mdc, Some(MDC_PULSE_RATE_CUFF));
        assert_eq!(shown(found[1].vital.leading()), "51");
        assert_eq!(found[1].device_time.as_deref(), Some("2024-06-15T17:17:27"));
    }

    #[test]
    fn doubts_of_the_device_and_impossible_pressures_mark_the_reading() {
        assert_eq!(vitals("167c0056006100e807060f11111b33000000")[0].quality, Quality::Valid);
        assert_eq!(vitals("167c0056006100e807060f11111b33002700")[0].quality, Quality::Questionable);
        assert_eq!(vitals("00bdf00b009ff0")[0].quality, Quality::Implausible);
        let statuses = [Status::CuffTooLoose, Status::IrregularPulse, Status::BodyMovement, Status::ImproperPosition];
        let payload = hex::bytes("167c0056006100e807060f11111b33002700").unwrap();
        assert_eq!(decode(0x2A35, &payload).unwrap()[0], Decoded::Status(statuses.into()));
    }

    #[test]
    fn a_short_packet_says_how_short() {
        let error = decode(0x2A35, &[1, 2, 3, 4, 5, 6]).unwrap_err().to_string();
        assert_eq!(error, "blood pressure packet has 6 bytes, needs 7");
        let error = decode(0x2A35, &[0x16, 2, 3, 4, 5, 6, 7, 8]).unwrap_err().to_string();
        assert_eq!(error, "blood pressure packet has 8 bytes, needs 18");
    }
}
