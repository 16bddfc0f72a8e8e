//! Blood Pressure Measurement (0x2A35), Intermediate Cuff Pressure (0x2A36) and Blood Pressure Feature (0x2A49) of the
//! Blood Pressure Service 1.1.1.

use super::date_time::DateTime;
use super::plausible::{Judged, is_plausible, judge};
use super::report::{Detail, names_of, statuses_of};
use super::{GattError, Reader, Report, units};
use crate::profile::ble::Quirk;
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
    /// The device's local time.
    pub device_time: Option<DateTime>,
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
/// first and a user without its flag. By the standard these flags mean 18 bytes.
const BM85: (u8, usize) = (0x56, 19);

/// BLS 1.1.1, 3.1.1.6: bits of the measurement status; bits 3 and 4 are the range of the pulse.
const STATUS: &[(u32, Status)] =
    &[(0, Status::BodyMovement), (1, Status::CuffTooLoose), (2, Status::IrregularPulse), (5, Status::ImproperPosition)];

/// BLS 1.1.1, 3.3: bits of the feature characteristic.
const FEATURES: &[(u32, &str)] = &[
    (0, "body_movement_detection"),
    (1, "cuff_fit_detection"),
    (2, "irregular_pulse_detection"),
    (3, "pulse_rate_range_detection"),
    (4, "measurement_position_detection"),
    (5, "multiple_bond"),
    (6, "e2e_crc"),
    (7, "user_data_service"),
    (8, "user_facing_time"),
];

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<BloodPressure, GattError> {
    parse_with(payload, &[])
}

/// Reads a packet of a model with quirks.
pub fn parse_with(payload: &[u8], quirks: &[Quirk]) -> Result<BloodPressure, GattError> {
    let mut reader = Reader::new("blood pressure", payload);
    let flags = reader.u8("flags")?;
    let is_bm85 = (flags, payload.len()) == BM85;
    let is_big_endian = is_bm85 || quirks.contains(&Quirk::PulseAndStatusBigEndian);
    let has_user = is_bm85 || flags & 0x08 != 0 || quirks.contains(&Quirk::UserWithoutFlag);
    let systolic = reader.sfloat("systolic pressure")?;
    let diastolic = reader.sfloat("diastolic pressure")?;
    let mean = reader.sfloat("mean pressure")?;
    // BLS 1.1.1, 3.1.1.1: the order is time, pulse, user, status.
    let device_time = reader.when(flags & 0x02 != 0, DateTime::read)?;
    let pulse = reader.when(flags & 0x04 != 0, |reader| {
        if is_big_endian {
            return reader.sfloat_big_endian("pulse rate");
        }
        reader.sfloat("pulse rate")
    })?;
    let user = reader.when(has_user, |reader| reader.u8("user"))?;
    let status = reader.when(flags & 0x10 != 0, |reader| reader.u16("measurement status"))?;
    let status = if is_big_endian { status.map(u16::swap_bytes) } else { status };
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

impl BloodPressure {
    /// Status, pressure, pulse. A measurement whose pressures are all special values has failed.
    pub fn report(&self) -> Report {
        let (mut report, doubted) = self.begin();
        let has_failed = self.systolic.is_err() && self.diastolic.is_err() && self.mean.is_err();
        if has_failed {
            let causes = names_of(self.status.unwrap_or(0).into(), CAUSES);
            report.failed(Metric::BloodPressure, self.systolic.err().unwrap_or(Absent::NotANumber), causes);
        } else {
            let pressure = Pressure {
                systolic: self.part(self.systolic),
                diastolic: self.part(self.diastolic),
                mean: self.part(self.mean),
            };
            let quality = match pressure.systolic {
                // Also where only one of the others is: what is left of such a measurement is no number to rely on.
                _ if !is_pressure_plausible(&pressure) => Quality::Implausible,
                Value::Absent(_) => Quality::NotAvailable,
                Value::Valid(_) => doubted,
            };
            report.composite(Vital::BloodPressure(pressure), quality, None);
        }
        self.add_pulse(&mut report, doubted);
        if self.is_kpa {
            for (name, sent) in
                [("systolic_kpa", self.systolic), ("diastolic_kpa", self.diastolic), ("mean_kpa", self.mean)]
            {
                report.detail(name, sent);
            }
        }
        report
    }

    /// BLS 1.1.1, 3.2: only the first pressure means something, and it is that of the cuff while it measures.
    pub fn report_intermediate(&self) -> Report {
        let (mut report, _) = self.begin();
        report.vital(judge(Metric::CuffPressure, self.in_mmhg(self.systolic), Quality::Valid), None);
        self.add_pulse(&mut report, Quality::Ongoing);
        if self.is_kpa {
            report.detail("cuff_pressure_kpa", self.systolic);
        }
        report
    }

    /// What both characteristics say, and how far the device trusts its measurement.
    fn begin(&self) -> (Report, Quality) {
        // BLS 1.1.1, 3.1.1.6: bits 6 to 15 of the status are reserved.
        let rfu_status = self.status.unwrap_or(0) & 0xFFC0;
        let mut report = Report {
            rfu_bits: self.rfu_flags.count_ones() + rfu_status.count_ones(),
            trailing_bytes: self.trailing_bytes,
            ..Report::default()
        };
        report.set_user(self.user);
        report.set_time(self.device_time);
        let mut doubted = Quality::Valid;
        if let Some(bits) = self.status {
            let statuses = statuses_of(bits.into(), STATUS);
            if !statuses.is_empty() {
                doubted = Quality::Questionable;
            }
            report.status(statuses);
            let range = match bits >> 3 & 3 {
                0 => "within",
                1 => "above",
                2 => "below",
                _ => "reserved",
            };
            report.detail("pulse_rate_range", range);
        }
        (report, doubted)
    }

    fn add_pulse(&self, report: &mut Report, doubted: Quality) {
        if let Some(pulse) = self.pulse {
            report.vital(judge(Metric::PulseRate, pulse, doubted), Some(MDC_PULSE_RATE_CUFF));
        }
    }

    fn in_mmhg(&self, sent: Result<Decimal, Absent>) -> Result<Decimal, Absent> {
        if self.is_kpa { units::mmhg_from_kpa(sent) } else { sent }
    }

    fn part(&self, sent: Result<Decimal, Absent>) -> Value {
        let Judged { value, .. } = judge(Metric::BloodPressure, self.in_mmhg(sent), Quality::Valid);
        value
    }
}

/// What a failed measurement is blamed on.
const CAUSES: &[(u32, &str)] =
    &[(0, "body_movement"), (1, "cuff_too_loose"), (2, "irregular_pulse"), (5, "improper_position")];

/// Pressures that a living patient can have: systolic 20 to 300, diastolic 10 to 200 and below the systolic, mean inside
/// the metric's bounds.
fn is_pressure_plausible(pressure: &Pressure) -> bool {
    let inside = |value: Value, low, high| {
        value.valid().is_none_or(|number| {
            number.compare(Decimal::integer(low)).is_ge() && number.compare(Decimal::integer(high)).is_le()
        })
    };
    let is_below = match (pressure.diastolic.valid(), pressure.systolic.valid()) {
        (Some(diastolic), Some(systolic)) => diastolic.compare(systolic).is_lt(),
        _ => true,
    };
    let is_mean_plausible = pressure.mean.valid().is_none_or(|mean| is_plausible(Metric::BloodPressure, mean));
    inside(pressure.systolic, 20, 300) && inside(pressure.diastolic, 10, 200) && is_below && is_mean_plausible
}

/// A value of Blood Pressure Feature (0x2A49).
pub(super) fn report_feature(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("blood pressure feature", payload);
    let bits = reader.u16("features")?;
    let rfu_bits = (bits & 0xFE00).count_ones();
    let mut report = Report { rfu_bits, trailing_bytes: reader.left(), ..Report::default() };
    report.detail("features", Detail::Names(names_of(bits.into(), FEATURES)));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::gatt::decode;
    use crate::decode::{Decoded, DecodedVital};
    use crate::profile::hex;

    fn vitals(payload: &str) -> Vec<DecodedVital> {
        let vital = |decoded: Decoded| match decoded {
            Decoded::Vital(vital) => Some(vital),
            _ => None,
        };
        decode(0x2A35, &hex::bytes(payload).unwrap()).unwrap().decoded.into_iter().filter_map(vital).collect()
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
    fn a_failed_measurement_is_an_event_with_its_causes_and_no_number() {
        let report = |payload: &str| decode(0x2A35, &hex::bytes(payload).unwrap()).unwrap();
        let failed = |payload: &str| match report(payload).decoded.pop() {
            Some(Decoded::MeasurementFailed(failed)) => failed,
            other => panic!("{other:?}"),
        };
        assert_eq!(report("00ff07ff07ff07").decoded.len(), 1);
        let plain = failed("00ff07ff07ff07");
        assert_eq!((plain.metric, plain.reason, plain.causes), (Metric::BloodPressure, Absent::NotANumber, vec![]));
        let told = failed("12ff07ff070008e807060f11111b2300");
        assert_eq!(told.causes, ["body_movement", "cuff_too_loose", "improper_position"]);
        assert_eq!(told.device_time.as_deref(), Some("2024-06-15T17:17:27"));
        let shown = told.vital();
        assert_eq!(
            (shown.vital.leading(), shown.quality),
            (Value::Absent(Absent::MeasurementFailed), Quality::NotAvailable)
        );
    }

    #[test]
    fn the_cuff_has_a_pressure_while_it_measures() {
        let report = |payload: &str| decode(0x2A36, &hex::bytes(payload).unwrap()).unwrap();
        let Some(Decoded::Vital(cuff)) = report("006400ff07ff07").decoded.pop() else { panic!() };
        assert_eq!((cuff.vital.metric(), shown(cuff.vital.leading())), (Metric::CuffPressure, "100".to_owned()));
        let in_kpa = report("156ff0000000003c001200");
        assert_eq!(serde_json::to_value(&in_kpa.details["cuff_pressure_kpa"]).unwrap().to_string(), "11.1");
        let Some(Decoded::Vital(cuff)) = in_kpa.decoded.get(1) else { panic!("{in_kpa:?}") };
        assert_eq!(shown(cuff.vital.leading()), "83.3");
        assert!(matches!(in_kpa.decoded.as_slice(), [Decoded::Status(_), _, Decoded::Vital(_)]));
    }

    #[test]
    fn a_model_that_writes_the_pulse_big_endian_is_read_by_its_quirks() {
        let quirks = [Quirk::PulseAndStatusBigEndian, Quirk::UserWithoutFlag];
        // Flags without a time, so that it is not known by its length.
        let packet = parse_with(&hex::bytes("1471004900000000410100 04").unwrap(), &quirks).unwrap();
        assert_eq!((packet.pulse, packet.user, packet.status), (Some(Ok(Decimal::integer(65))), Some(1), Some(4)));
    }

    #[test]
    fn a_pulse_that_is_no_number_is_none_in_either_byte_order() {
        let quirks = [Quirk::PulseAndStatusBigEndian, Quirk::UserWithoutFlag];
        for (pulse, absent) in [("07 FF", Absent::NotANumber), ("08 00", Absent::NotAtThisResolution)] {
            let payload = hex::bytes(&format!("14 71 00 49 00 00 00 {pulse} 01 00 04")).unwrap();
            assert_eq!(parse_with(&payload, &quirks).unwrap().pulse, Some(Err(absent)), "{pulse}");
        }
        // The whole packet by which the model is known.
        let pulse = &vitals("56710049000000ea07080b14380007ff010000")[1];
        assert_eq!(shown(pulse.vital.leading()), "not_a_number");
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
        assert_eq!(decode(0x2A35, &payload).unwrap().decoded[0], Decoded::Status(statuses.into()));
    }

    #[test]
    fn a_short_packet_says_how_short() {
        let error = decode(0x2A35, &[1, 2, 3, 4, 5, 6]).unwrap_err().to_string();
        assert_eq!(error, "blood pressure packet has 6 bytes, needs 7: mean pressure at byte 5 is cut");
        let error = decode(0x2A35, &[0x16, 2, 3, 4, 5, 6, 7, 8]).unwrap_err().to_string();
        assert_eq!(error, "blood pressure packet has 8 bytes, needs 14: date and time at byte 7 is cut");
    }
}
