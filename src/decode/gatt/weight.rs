//! Weight Measurement (0x2A9D) and Weight Scale Feature (0x2A9E) of the Weight Scale Service 1.0.1.

use super::date_time::DateTime;
use super::plausible::judge;
use super::report::{Detail, names_of};
use super::{GattError, Reader, Report, units};
use crate::vitals::{Absent, Decimal, Metric, Quality};

/// The fields of a packet, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// True: lb and inch, false: kg and m.
    pub is_imperial: bool,
    /// 0.005 kg or 0.01 lb each; 0xFFFF: the measurement was unsuccessful.
    pub weight: u16,
    /// The device's local time.
    pub device_time: Option<DateTime>,
    /// The user's number at the scale; 255: unknown.
    pub user: Option<u8>,
    /// Body mass index, 0.1 kg/m² each, and height, 0.001 m or 0.1 inch each.
    pub bmi_and_height: Option<(u16, u16)>,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// WSS 1.0.1, 3.2.1: no measurement.
pub(super) const UNSUCCESSFUL: u16 = 0xFFFF;

/// A mass in the unit that was sent: kg with three places, or lb with two.
pub(super) fn mass(raw: u16, is_imperial: bool) -> Result<Decimal, Absent> {
    let (factor, exponent) = if is_imperial { (1, -2) } else { (5, -3) };
    Decimal::new(i64::from(raw) * factor, exponent).ok_or(Absent::OutOfRange)
}

/// A mass in kg.
pub(super) fn mass_kg(raw: u16, is_imperial: bool) -> Result<Decimal, Absent> {
    let sent = mass(raw, is_imperial);
    if is_imperial { units::kg_from_lb(sent) } else { sent }
}

/// A height in m, with three places.
pub(super) fn height_m(raw: u16, is_imperial: bool) -> Result<Decimal, Absent> {
    let exponent = if is_imperial { -1 } else { -3 };
    let sent = Decimal::new(i64::from(raw), exponent).ok_or(Absent::OutOfRange);
    if is_imperial { units::metres_from_inches(sent) } else { sent }
}

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<Weight, GattError> {
    let mut reader = Reader::new("weight", payload);
    let flags = reader.u8("flags")?;
    let weight = reader.u16("weight")?;
    // WSS 1.0.1, 3.2.1: the order is time, user, BMI and height.
    let device_time = reader.when(flags & 0x02 != 0, DateTime::read)?;
    let user = reader.when(flags & 0x04 != 0, |reader| reader.u8("user"))?;
    let bmi_and_height =
        reader.when(flags & 0x08 != 0, |reader| Ok((reader.u16("body mass index")?, reader.u16("height")?)))?;
    Ok(Weight {
        is_imperial: flags & 0x01 != 0,
        weight,
        device_time,
        user,
        bmi_and_height,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xF0,
    })
}

impl Weight {
    /// Weight, body mass index, height; all in kg and m.
    pub fn report(&self) -> Report {
        let mut report =
            Report { rfu_bits: self.rfu_flags.count_ones(), trailing_bytes: self.trailing_bytes, ..Report::default() };
        report.set_user(self.user);
        report.set_time(self.device_time);
        if self.weight == UNSUCCESSFUL {
            report.failed(Metric::Weight, Absent::NotANumber, []);
        } else {
            report.vital(judge(Metric::Weight, mass_kg(self.weight, self.is_imperial), Quality::Valid), None);
            if self.is_imperial {
                report.detail("weight_lb", mass(self.weight, true));
            }
        }
        if let Some((bmi, height)) = self.bmi_and_height {
            let bmi = Decimal::new(i64::from(bmi), -1).ok_or(Absent::OutOfRange);
            report.vital(judge(Metric::Bmi, bmi, Quality::Valid), None);
            report.vital(judge(Metric::Height, height_m(height, self.is_imperial), Quality::Valid), None);
        }
        report
    }
}

/// A value of Weight Scale Feature (0x2A9E): bits 3 to 6 and 7 to 9 are the resolutions.
pub(super) fn report_feature(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("weight scale feature", payload);
    let bits = u32::from_le_bytes(reader.array("features")?);
    let rfu_bits = (bits & 0xFFFF_FC00).count_ones();
    let mut report = Report { rfu_bits, trailing_bytes: reader.left(), ..Report::default() };
    let names = names_of(bits, &[(0, "timestamp"), (1, "multiple_users"), (2, "bmi")]);
    report.detail("features", Detail::Names(names));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;

    fn vitals(payload: &str) -> Vec<(Metric, String)> {
        let report = parse(&hex::bytes(payload).unwrap()).unwrap().report();
        let vital = |decoded: Decoded| match decoded {
            Decoded::Vital(vital) => (vital.vital.metric(), vital.vital.leading().valid().unwrap().to_string()),
            other => panic!("{other:?}"),
        };
        report.decoded.into_iter().map(vital).collect()
    }

    #[test]
    fn weight_index_and_height_are_told_in_kilograms_and_metres() {
        let metric = [(Metric::Weight, "79.960"), (Metric::Bmi, "23.8"), (Metric::Height, "1.830")];
        assert_eq!(vitals("0e783eea07050c12353601ee002607"), metric.map(|(metric, text)| (metric, text.to_owned())));
        // 177.12 lb and 72.0 inches.
        let imperial = [(Metric::Weight, "80.340"), (Metric::Bmi, "23.8"), (Metric::Height, "1.829")];
        assert_eq!(vitals("093045ee00d002"), imperial.map(|(metric, text)| (metric, text.to_owned())));
    }

    #[test]
    fn an_unsuccessful_measurement_is_a_failure() {
        let report = parse(&[0, 0xFF, 0xFF]).unwrap().report();
        let [Decoded::MeasurementFailed(failed)] = report.decoded.as_slice() else { panic!("{report:?}") };
        assert_eq!(failed.metric, Metric::Weight);
    }
}
