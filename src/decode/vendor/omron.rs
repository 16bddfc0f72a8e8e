//! Records of 14 bytes in the EEPROM of Omron cuffs (models with service ecbe3980-c9a2-11e1-b1bd-0002a5d5c51b or FE4A),
//! whose places two communities (omblepy, hass-omron) have found out.

use crate::decode::gatt::date_time::DateTime;
use crate::decode::gatt::plausible::judge;
use crate::decode::gatt::{GattError, Reader, Report};
use crate::vitals::{Absent, Decimal, MDC_PULSE_RATE_CUFF, Metric, Pressure, Quality, Value, Vital};

/// How a model writes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Systolic, diastolic, pulse, year; then bits, least significant byte first.
    LittleEndian,
    /// Diastolic, systolic, year, pulse; then bits, most significant byte first.
    BigEndian,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// mmHg.
    pub systolic: u16,
    /// mmHg.
    pub diastolic: u8,
    /// Beats a minute.
    pub pulse: u8,
    /// The cuff's local time.
    pub time: DateTime,
    /// Bits 14 and 15 beside the date: movement and irregular pulse, whichever is which on this model.
    pub doubts: u8,
}

/// Bytes of a record.
const RECORD_BYTES: usize = 14;
/// What is taken off a systolic pressure to make it fit a byte.
const SYSTOLIC_OFFSET: u16 = 25;
/// Year 0 of a record.
const FIRST_YEAR: u16 = 2000;

/// Reads a slot; `None` if it was never written.
pub fn parse(slot: &[u8], layout: Layout) -> Result<Option<Record>, GattError> {
    let mut reader = Reader::new("Omron record", slot);
    let bytes: [u8; RECORD_BYTES] = reader.array("record")?;
    if bytes.iter().all(|byte| *byte == 0xFF) || bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let mut reader = Reader::new("Omron record", slot);
    let numbers: [u8; 4] = reader.array("pressures, pulse and year")?;
    let (day, minute) = (reader.u16("day and hour")?, reader.u16("minute and second")?);
    Ok(Some(match layout {
        Layout::LittleEndian => little_endian(numbers, day, minute),
        Layout::BigEndian => big_endian(numbers, day.swap_bytes(), minute.swap_bytes()),
    }))
}

/// `width` bits from bit `from` on.
fn bits(word: u16, from: u32, width: u32) -> u8 {
    u8::try_from(word >> from & ((1 << width) - 1)).unwrap_or(u8::MAX)
}

fn little_endian([systolic, diastolic, pulse, year]: [u8; 4], day: u16, minute: u16) -> Record {
    Record {
        systolic: u16::from(systolic) + SYSTOLIC_OFFSET,
        diastolic,
        pulse,
        time: DateTime {
            year: FIRST_YEAR + u16::from(year),
            month: bits(day, 10, 4),
            day: bits(day, 5, 5),
            hour: bits(day, 0, 5),
            minute: bits(minute, 6, 6),
            second: bits(minute, 0, 6),
        },
        doubts: bits(day, 14, 2),
    }
}

fn big_endian([diastolic, systolic, year, pulse]: [u8; 4], day: u16, minute: u16) -> Record {
    Record {
        systolic: u16::from(systolic) + SYSTOLIC_OFFSET,
        ..little_endian([0, diastolic, pulse, year], day, minute)
    }
}

/// What a slot says. A record is a measurement of earlier; one with a doubt of the cuff is questionable before that.
pub(super) fn report(slot: &[u8], layout: Layout) -> Result<Report, GattError> {
    let mut report = Report { trailing_bytes: slot.len().saturating_sub(RECORD_BYTES), ..Report::default() };
    let Some(record) = parse(slot, layout)? else {
        report.detail("empty", true);
        return Ok(report);
    };
    report.set_time(Some(record.time));
    let said = if record.doubts == 0 { Quality::Historic } else { Quality::Questionable };
    report.detail("movement_or_irregular_pulse", record.doubts != 0);
    let sent = |number: u16| Ok(Decimal::integer(i32::from(number)));
    let systolic = judge(Metric::BloodPressure, sent(record.systolic), said);
    let diastolic = judge(Metric::BloodPressure, sent(record.diastolic.into()), said);
    let is_plausible = systolic.quality == said && record.systolic > record.diastolic.into();
    let quality = if is_plausible { diastolic.quality } else { Quality::Implausible };
    let mean = Value::Absent(Absent::NotMeasured);
    let pressure = Pressure { systolic: systolic.value, diastolic: diastolic.value, mean };
    report.composite(Vital::BloodPressure(pressure), quality, None);
    report.vital(judge(Metric::PulseRate, sent(record.pulse.into()), said), Some(MDC_PULSE_RATE_CUFF));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::hex;

    #[test]
    fn both_layouts_say_the_same_of_the_same_measurement() {
        let record = |text: &str, layout| parse(&hex::bytes(text).unwrap(), layout).unwrap().unwrap();
        let big = record("5b781a4819d71b42000014006996", Layout::BigEndian);
        assert_eq!((big.systolic, big.diastolic, big.pulse, big.doubts), (145, 91, 72, 0));
        assert_eq!(big.time.to_string(), "2026-06-14T23:45:02");
        assert_eq!(record("785b481ad719421b000014006996", Layout::LittleEndian), big);
    }

    #[test]
    fn the_last_second_of_a_year_and_the_doubts_of_the_cuff_are_read() {
        let slot = hex::bytes("6558541af7f3fa0e00000000000 0").unwrap();
        let record = parse(&slot, Layout::LittleEndian).unwrap().unwrap();
        assert_eq!((record.time.to_string().as_str(), record.doubts), ("2026-12-31T23:59:58", 3));
        let found = report(&slot, Layout::LittleEndian).unwrap();
        let [crate::decode::Decoded::Vital(pressure), _] = found.decoded.as_slice() else { panic!("{found:?}") };
        assert_eq!(pressure.quality, Quality::Questionable);
    }

    #[test]
    fn a_slot_that_was_never_written_is_no_measurement() {
        for empty in [[0; RECORD_BYTES], [0xFF; RECORD_BYTES]] {
            assert_eq!(parse(&empty, Layout::LittleEndian), Ok(None));
            assert!(report(&empty, Layout::BigEndian).unwrap().decoded.is_empty());
        }
        assert!(parse(&[0xFF; RECORD_BYTES - 1], Layout::LittleEndian).is_err());
    }
}
