//! Glucose Measurement (0x2A18) and Glucose Feature (0x2A51) of the Glucose Service 1.0.1.

use super::date_time::DateTime;
use super::plausible::judge;
use super::report::{Detail, names_of};
use super::{GattError, Reader, Report, units};
use crate::vitals::{Absent, Decimal, MDC_GLUCOSE_ISF, Metric, Quality, Status};

/// A concentration with what was measured and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concentration {
    /// True: mol/L, false: kg/L.
    pub is_molar: bool,
    /// In that unit, as sent.
    pub value: Result<Decimal, Absent>,
    /// What was measured, see [`sample`].
    pub sample: u8,
    /// Where: 1 finger, 2 alternate site, 3 ear lobe, 4 control solution, 15 not known.
    pub location: u8,
}

/// The fields of a packet, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glucose {
    /// The number of the stored record.
    pub sequence: u16,
    /// What the meter's clock said, without the offset by which its user has moved it.
    pub base_time: DateTime,
    /// Minutes from the base time to the time that the user sees.
    pub offset_min: Option<i16>,
    /// The measurement, if one was made.
    pub concentration: Option<Concentration>,
    /// Sensor status bits.
    pub status: Option<u16>,
    /// True: the record goes on in a packet of 0x2A34.
    pub context_follows: bool,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// GLS 1.0.1, 3.1.1: the name of a sample and its code (ISO/IEEE 11073-10417, table 2).
pub const fn sample(number: u8) -> Option<(&'static str, u32)> {
    match number {
        1 => Some(("capillary_whole_blood", 160_184)),
        2 => Some(("capillary_plasma", 160_188)),
        3 => Some(("venous_whole_blood", 160_192)),
        4 => Some(("venous_plasma", 160_196)),
        5 => Some(("arterial_whole_blood", 160_200)),
        6 => Some(("arterial_plasma", 160_204)),
        7 => Some(("undetermined_whole_blood", 160_364)),
        8 => Some(("undetermined_plasma", 160_368)),
        9 => Some(("interstitial_fluid", MDC_GLUCOSE_ISF)),
        CONTROL_SOLUTION => Some(("control_solution", 160_208)),
        _ => None,
    }
}

/// The sample that is no patient's.
const CONTROL_SOLUTION: u8 = 10;
/// The location that is no patient's.
const CONTROL_SOLUTION_LOCATION: u8 = 4;

const fn location(number: u8) -> Option<&'static str> {
    match number {
        1 => Some("finger"),
        2 => Some("alternate_site"),
        3 => Some("ear_lobe"),
        CONTROL_SOLUTION_LOCATION => Some("control_solution"),
        _ => None,
    }
}

/// GLS 1.0.1, 3.1.1: the sensor status.
const STATUS: &[(u32, &str)] = &[
    (0, "device_battery_low"),
    (1, "sensor_malfunction"),
    (2, "sample_size_insufficient"),
    (3, "strip_insertion_error"),
    (4, "strip_type_incorrect"),
    (5, "result_too_high"),
    (6, "result_too_low"),
    (7, "temperature_too_high"),
    (8, "temperature_too_low"),
    (9, "strip_pulled_too_soon"),
    (10, "general_device_fault"),
    (11, "time_fault"),
];

const RESULT_TOO_HIGH: u16 = 1 << 5;
const RESULT_TOO_LOW: u16 = 1 << 6;
const TIME_FAULT: u16 = 1 << 11;
/// Bits 1 to 4 and 7 to 10: whatever number comes with them is wrong.
const FAULTS: u16 = 0x079E;

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<Glucose, GattError> {
    let mut reader = Reader::new("glucose", payload);
    let flags = reader.u8("flags")?;
    let sequence = reader.u16("sequence number")?;
    let base_time = DateTime::read(&mut reader)?;
    // GLS 1.0.1, 3.1.1: the order is offset, concentration with type and location, status.
    let offset_min = reader.when(flags & 0x01 != 0, |reader| reader.i16("time offset"))?;
    let concentration = reader.when(flags & 0x02 != 0, |reader| {
        let value = reader.sfloat("concentration")?;
        let site = reader.u8("type and sample location")?;
        Ok(Concentration { is_molar: flags & 0x04 != 0, value, sample: site & 0x0F, location: site >> 4 })
    })?;
    let status = reader.when(flags & 0x08 != 0, |reader| reader.u16("sensor status"))?;
    Ok(Glucose {
        sequence,
        base_time,
        offset_min,
        concentration,
        status,
        context_follows: flags & 0x10 != 0,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xE0,
    })
}

impl Concentration {
    /// In mg/dL (from kg/L) or mmol/L (from mol/L): a shift of the decimal point, without any rounding.
    pub fn usual(&self) -> Result<Decimal, Absent> {
        units::shifted(self.value, if self.is_molar { 3 } else { 5 })
    }

    /// In mg/dL.
    pub fn mg_dl(&self) -> Result<Decimal, Absent> {
        if self.is_molar { units::mg_dl_from_mmol_l(self.usual()) } else { self.usual() }
    }

    const fn is_control(&self) -> bool {
        self.sample == CONTROL_SOLUTION || self.location == CONTROL_SOLUTION_LOCATION
    }
}

impl Glucose {
    /// The glucose with the code of its sample. A record without a number is a failed measurement, and one of control
    /// solution is nobody's: an event.
    pub fn report(&self) -> Report {
        let bits = self.status.unwrap_or(0);
        let rfu_bits = self.rfu_flags.count_ones() + (bits & 0xF000).count_ones();
        let mut report =
            Report { record: Some(self.sequence), rfu_bits, trailing_bytes: self.trailing_bytes, ..Report::default() };
        self.add_time(&mut report);
        self.add_details(&mut report);
        if self.status.is_some() {
            report.status(self.statuses());
        }
        match self.concentration {
            Some(concentration) if concentration.is_control() => report.event("control_solution"),
            Some(concentration) if concentration.value.is_ok() => {
                let mdc = sample(concentration.sample).map(|(_, mdc)| mdc);
                let judged = judge(Metric::Glucose, concentration.mg_dl(), self.quality());
                report.vital(judged, mdc.filter(|mdc| *mdc != Metric::Glucose.info().mdc));
            }
            Some(concentration) => self.add_failure(&mut report, concentration.value.err()),
            None if bits & (FAULTS | RESULT_TOO_HIGH | RESULT_TOO_LOW) != 0 => self.add_failure(&mut report, None),
            None => {}
        }
        report
    }

    /// The time that the user of the meter sees, which is what the meter says; the base time beside it. Meters with a
    /// time fault do not know either.
    fn add_time(&self, report: &mut Report) {
        // GLS 1.0.1, 3.1.1: 0x7FFF is an overrun and 0x8000 an underrun of the offset.
        let offset = self.offset_min.filter(|offset| !matches!(offset, &i16::MAX | &i16::MIN));
        let shown = match offset {
            Some(offset) => self.base_time.plus_minutes(offset).or(Some(self.base_time)),
            None => Some(self.base_time),
        };
        report.set_time(shown.filter(|_| self.status.unwrap_or(0) & TIME_FAULT == 0));
        report.detail("base_time", self.base_time.said());
        if self.offset_min.is_some() {
            report.detail("time_offset_min", offset);
        }
    }

    fn add_details(&self, report: &mut Report) {
        report.detail("context_follows", self.context_follows);
        if let Some(concentration) = &self.concentration {
            let name = if concentration.is_molar { "glucose_mmol_l" } else { "glucose_mg_dl" };
            report.detail(name, concentration.usual());
            report.detail("sample_type", sample(concentration.sample).map(|(name, _)| name));
            report.detail("sample_location", location(concentration.location));
        }
        if let Some(bits) = self.status {
            report.detail("sensor_status", Detail::Names(names_of(bits.into(), STATUS)));
        }
    }

    fn add_failure(&self, report: &mut Report, sent: Option<Absent>) {
        let bits = self.status.unwrap_or(0);
        let told = match bits & (RESULT_TOO_HIGH | RESULT_TOO_LOW) {
            RESULT_TOO_HIGH => Absent::OverRange,
            RESULT_TOO_LOW => Absent::UnderRange,
            _ => Absent::MeasurementFailed,
        };
        report.failed(Metric::Glucose, sent.unwrap_or(told), names_of(bits.into(), STATUS));
    }

    fn statuses(&self) -> impl Iterator<Item = Status> {
        let bits = self.status.unwrap_or(0);
        // Sensor malfunction and general device fault; battery low.
        let broken = (bits & 0x0402 != 0).then_some(Status::SensorFault);
        broken.into_iter().chain((bits & 0x0001 != 0).then_some(Status::LowBattery))
    }

    const fn quality(&self) -> Quality {
        let bits = match self.status {
            Some(bits) => bits,
            None => 0,
        };
        if bits & FAULTS != 0 {
            Quality::Invalid
        } else if bits & RESULT_TOO_HIGH != 0 {
            Quality::Overflow
        } else if bits & RESULT_TOO_LOW != 0 {
            Quality::Underflow
        } else {
            Quality::Valid
        }
    }
}

/// GLS 1.0.1, 3.3.1: what a meter supports.
const FEATURES: &[(u32, &str)] = &[
    (0, "low_battery_detection"),
    (1, "sensor_malfunction_detection"),
    (2, "sample_size_detection"),
    (3, "strip_insertion_error_detection"),
    (4, "strip_type_error_detection"),
    (5, "result_high_low_detection"),
    (6, "temperature_high_low_detection"),
    (7, "read_interrupt_detection"),
    (8, "general_device_fault"),
    (9, "time_fault"),
    (10, "multiple_bond"),
];

/// A value of Glucose Feature (0x2A51).
pub(super) fn report_feature(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("glucose feature", payload);
    let bits = reader.u16("features")?;
    let rfu_bits = (bits & 0xF800).count_ones();
    let mut report = Report { rfu_bits, trailing_bytes: reader.left(), ..Report::default() };
    report.detail("features", Detail::Names(names_of(bits.into(), FEATURES)));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoded, DecodedVital};
    use crate::profile::hex;

    fn report(payload: &str) -> Report {
        parse(&hex::bytes(payload).unwrap()).unwrap().report()
    }

    fn vital(payload: &str) -> DecodedVital {
        match report(payload).decoded.pop() {
            Some(Decoded::Vital(vital)) => vital,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_has_its_number_the_time_that_its_user_sees_and_the_code_of_its_sample() {
        let found = report("1b0400e407070e0b06055a0277b0f80000");
        assert_eq!((found.record, found.device_time.as_deref()), (Some(4), Some("2020-07-14T21:08:05")));
        let Some(Decoded::Vital(vital)) = found.decoded.last() else { panic!("{found:?}") };
        assert_eq!(vital.vital.leading().valid().unwrap().to_string(), "119");
        assert_eq!((vital.mdc, vital.quality), (Some(160_368), Quality::Valid));
        assert_eq!(
            serde_json::to_string(&found.details).unwrap(),
            concat!(
                r#"{"base_time":"2020-07-14T11:06:05","context_follows":true,"glucose_mg_dl":119,"#,
                r#""sample_location":null,"sample_type":"undetermined_plasma","sensor_status":[],"time_offset_min":602}"#
            )
        );
    }

    #[test]
    fn millimoles_become_milligrams_and_are_kept_beside_them() {
        let found = report("060500ea07080b0c000037c011");
        assert_eq!(serde_json::to_value(&found.details["glucose_mmol_l"]).unwrap().to_string(), "5.5");
        assert_eq!(vital("060500ea07080b0c000037c011").vital.leading().valid().unwrap().to_string(), "99");
    }

    #[test]
    fn numbers_that_nobody_has_are_marked() {
        for payload in ["030100e407030e1717000000ffff11", "1b0100e307021b0b0a1efbff1e00120000"] {
            assert_eq!(vital(payload).quality, Quality::Implausible, "{payload}");
        }
    }

    #[test]
    fn control_solution_is_no_reading() {
        for site in ["1a", "41"] {
            let found = report(&format!("0a0100e407030e17170070b0{site}0000"));
            let [Decoded::Status(_), Decoded::Event { name }] = found.decoded.as_slice() else { panic!("{found:?}") };
            assert_eq!(&**name, "control_solution");
        }
    }

    #[test]
    fn the_meter_says_what_it_thinks_of_its_number() {
        for (status, quality) in [
            ("0000", Quality::Valid),
            ("0100", Quality::Valid),
            ("2000", Quality::Overflow),
            ("4000", Quality::Underflow),
            ("0400", Quality::Invalid),
            ("0004", Quality::Invalid),
        ] {
            assert_eq!(vital(&format!("0a0100e407030e17170070b011{status}")).quality, quality, "{status}");
        }
        assert_eq!(vital("0a0100e407030e17170070b0110008").device_time, None);
    }

    #[test]
    fn a_record_without_a_number_has_failed() {
        let failed = |payload: &str| match report(payload).decoded.pop() {
            Some(Decoded::MeasurementFailed(failed)) => failed,
            other => panic!("{other:?}"),
        };
        assert_eq!(failed("0a0100e407030e171700ff07110002").causes, ["strip_pulled_too_soon"]);
        assert_eq!(failed("080100e407030e1717002000").reason, Absent::OverRange);
        assert_eq!(failed("020100e407030e171700fe0711").reason, Absent::OverRange);
        assert!(report("000100e407030e171700").decoded.is_empty());
    }

    #[test]
    fn an_offset_that_overran_is_unknown() {
        let found = report("010100e407030e171700ff7f");
        assert_eq!(found.device_time.as_deref(), Some("2020-03-14T23:23:00"));
        assert_eq!(found.details["time_offset_min"], Detail::Unknown);
    }
}
