//! Body Composition Measurement (0x2A9C) and Body Composition Feature (0x2A9B) of the Body Composition Service 1.0.

use super::date_time::DateTime;
use super::plausible::judge;
use super::report::{Detail, names_of};
use super::weight::{UNSUCCESSFUL, height_m, mass, mass_kg};
use super::{GattError, Reader, Report};
use crate::vitals::{Absent, Decimal, Metric, Quality};

/// The fields of a packet, as sent. Masses are 0.005 kg or 0.01 lb each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyComposition {
    /// True: lb and inch, false: kg and m.
    pub is_imperial: bool,
    /// Body fat, 0.1 % each; 0xFFFF: the measurement was unsuccessful.
    pub fat: u16,
    /// The device's local time.
    pub device_time: Option<DateTime>,
    /// The user's number at the scale; 255: unknown.
    pub user: Option<u8>,
    /// Energy that the body needs at rest, kJ a day.
    pub basal_metabolism_kj: Option<u16>,
    /// Muscle, 0.1 % each.
    pub muscle_percentage: Option<u16>,
    /// Muscle mass.
    pub muscle_mass: Option<u16>,
    /// Mass without the fat.
    pub fat_free_mass: Option<u16>,
    /// Mass without fat and bone.
    pub soft_lean_mass: Option<u16>,
    /// Mass of the water.
    pub water_mass: Option<u16>,
    /// Electrical impedance, 0.1 Ω each.
    pub impedance: Option<u16>,
    /// Body weight.
    pub weight: Option<u16>,
    /// Height, 0.001 m or 0.1 inch each.
    pub height: Option<u16>,
    /// True: the measurement goes on in another packet with the same time and user.
    pub is_multi_packet: bool,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u16,
}

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<BodyComposition, GattError> {
    let mut reader = Reader::new("body composition", payload);
    let flags = reader.u16("flags")?;
    let fat = reader.u16("body fat percentage")?;
    // BCS 1.0, 3.2.1: the order of the fields is that of the flags.
    let device_time = reader.when(flags & 0x0002 != 0, DateTime::read)?;
    let user = reader.when(flags & 0x0004 != 0, |reader| reader.u8("user"))?;
    let mut field = |bit: u32, name| reader.when(flags >> bit & 1 == 1, |reader| reader.u16(name));
    Ok(BodyComposition {
        is_imperial: flags & 0x0001 != 0,
        fat,
        device_time,
        user,
        basal_metabolism_kj: field(3, "basal metabolism")?,
        muscle_percentage: field(4, "muscle percentage")?,
        muscle_mass: field(5, "muscle mass")?,
        fat_free_mass: field(6, "fat free mass")?,
        soft_lean_mass: field(7, "soft lean mass")?,
        water_mass: field(8, "body water mass")?,
        impedance: field(9, "impedance")?,
        weight: field(10, "weight")?,
        height: field(11, "height")?,
        is_multi_packet: flags & 0x1000 != 0,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xE000,
    })
}

fn tenths(raw: u16) -> Decimal {
    Decimal::tenths(i32::from(raw))
}

impl BodyComposition {
    /// Fat, masses, weight and height; all in kg and m. What has no code of its own (muscle, impedance, metabolism) is
    /// a detail. A 0 was not measured: scales send it where somebody stood on them in socks.
    pub fn report(&self) -> Report {
        let mut report =
            Report { rfu_bits: self.rfu_flags.count_ones(), trailing_bytes: self.trailing_bytes, ..Report::default() };
        report.set_user(self.user);
        report.set_time(self.device_time);
        if self.fat == UNSUCCESSFUL {
            report.failed(Metric::BodyFat, Absent::NotANumber, []);
        } else {
            report.vital(judge(Metric::BodyFat, Ok(tenths(self.fat)), Quality::Valid), None);
        }
        for (metric, raw) in [
            (Metric::FatFreeMass, self.fat_free_mass),
            (Metric::SoftLeanMass, self.soft_lean_mass),
            (Metric::BodyWater, self.water_mass),
            (Metric::Weight, self.weight),
        ] {
            if let Some(raw) = raw {
                report.vital(judge(metric, mass_kg(raw, self.is_imperial), Quality::Valid), None);
            }
        }
        if let Some(raw) = self.height {
            report.vital(judge(Metric::Height, height_m(raw, self.is_imperial), Quality::Valid), None);
        }
        self.add_details(&mut report);
        report
    }

    fn add_details(&self, report: &mut Report) {
        let measured = |raw: Option<u16>| raw.map(|raw| (raw != 0).then_some(raw));
        report.detail_if("basal_metabolism_kj", measured(self.basal_metabolism_kj));
        for (name, raw) in [("muscle_percentage", self.muscle_percentage), ("impedance_ohm", self.impedance)] {
            report.detail_if(name, measured(raw).map(|raw| raw.map(tenths)));
        }
        let unit = if self.is_imperial { "muscle_mass_lb" } else { "muscle_mass_kg" };
        report.detail_if(unit, measured(self.muscle_mass).map(|raw| raw.map(|raw| mass(raw, self.is_imperial))));
        report.detail("multi_packet", self.is_multi_packet);
    }
}

/// BCS 1.0, 3.1.1: what a scale supports; bits 11 to 17 are resolutions.
const FEATURES: &[(u32, &str)] = &[
    (0, "timestamp"),
    (1, "multiple_users"),
    (2, "basal_metabolism"),
    (3, "muscle_percentage"),
    (4, "muscle_mass"),
    (5, "fat_free_mass"),
    (6, "soft_lean_mass"),
    (7, "body_water_mass"),
    (8, "impedance"),
    (9, "weight"),
    (10, "height"),
];

/// A value of Body Composition Feature (0x2A9B).
pub(super) fn report_feature(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("body composition feature", payload);
    let bits = u32::from_le_bytes(reader.array("features")?);
    let rfu_bits = (bits & 0xFFFC_0000).count_ones();
    let mut report = Report { rfu_bits, trailing_bytes: reader.left(), ..Report::default() };
    report.detail("features", Detail::Names(names_of(bits, FEATURES)));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;
    use crate::vitals::Value;

    fn report(payload: &str) -> Report {
        parse(&hex::bytes(payload).unwrap()).unwrap().report()
    }

    fn vitals(payload: &str) -> Vec<(Metric, Value)> {
        let vital = |decoded: Decoded| match decoded {
            Decoded::Vital(vital) => Some((vital.vital.metric(), vital.vital.leading())),
            _ => None,
        };
        report(payload).decoded.into_iter().filter_map(vital).collect()
    }

    #[test]
    fn fat_and_masses_are_vitals_and_the_rest_are_details() {
        let number = |text: &str| Value::Valid(text.parse().unwrap());
        assert_eq!(
            vitals("9803c500a01b7c013c2f74205212"),
            [
                (Metric::BodyFat, number("19.7")),
                (Metric::SoftLeanMass, number("60.460")),
                (Metric::BodyWater, number("41.540"))
            ]
        );
        assert_eq!(
            serde_json::to_string(&report("9803c500a01b7c013c2f74205212").details).unwrap(),
            r#"{"basal_metabolism_kj":7072,"impedance_ohm":469.0,"multi_packet":false,"muscle_percentage":38.0}"#
        );
    }

    #[test]
    fn what_was_not_measured_is_not_zero() {
        let payload = "9803000096230000000000000000";
        assert!(vitals(payload).iter().all(|(_, value)| *value == Value::Absent(Absent::ZeroReported)));
        assert_eq!(report(payload).details["impedance_ohm"], Detail::Unknown);
        assert_eq!(report(payload).details["muscle_percentage"], Detail::Unknown);
    }

    #[test]
    fn an_unsuccessful_measurement_is_a_failure() {
        assert!(matches!(report("0000ffff").decoded.as_slice(), [Decoded::MeasurementFailed(_)]));
    }

    #[test]
    fn a_packet_with_everything_is_read_to_its_end() {
        let all = "fe1f c500 ea07050c123536 02 a01b 7c01 1000 2000 3c2f 7420 5212 783e 2607";
        let found = report(all);
        assert_eq!((found.trailing_bytes, found.rfu_bits, found.user), (0, 0, Some(2)));
        assert_eq!(vitals(all).len(), 6);
        assert_eq!(found.details["multi_packet"], Detail::Flag(true));
        assert_eq!(found.device_time.as_deref(), Some("2026-05-12T18:53:54"));
    }
}
