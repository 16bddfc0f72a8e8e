//! Glucose Measurement Context (0x2A34) of the Glucose Service 1.0.1: what belongs to a record of 0x2A18.

use super::{GattError, Reader, Report};
use crate::profile::ble::Quirk;
use crate::vitals::{Absent, Decimal};

/// The fields of a packet, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlucoseContext {
    /// The number of the stored record that it belongs to.
    pub sequence: u16,
    /// Carbohydrate: which, and how much in kg.
    pub carbohydrate: Option<(u8, Result<Decimal, Absent>)>,
    /// Meal.
    pub meal: Option<u8>,
    /// Who tested, and the state of health; nibbles.
    pub tester: Option<(u8, u8)>,
    /// Exercise: seconds (0xFFFF: that or more) and intensity in %.
    pub exercise: Option<(u16, u8)>,
    /// Medication: which, and how much in kg or L.
    pub medication: Option<(u8, Result<Decimal, Absent>)>,
    /// True: the medication is in L.
    pub is_litre: bool,
    /// `HbA1c` in %.
    pub hba1c: Option<Result<Decimal, Absent>>,
    /// Flags of the second byte; all are reserved.
    pub extended_flags: Option<u8>,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
}

/// The meal that the specification reserves and that `CareSens` meters write for a ketone.
const KETONE_MEAL: u8 = 6;

/// Reads a packet.
pub fn parse(payload: &[u8]) -> Result<GlucoseContext, GattError> {
    let mut reader = Reader::new("glucose context", payload);
    let flags = reader.u8("flags")?;
    let sequence = reader.u16("sequence number")?;
    // GLS 1.0.1, 3.2.1: the order of the fields is that of the flags, with the extended flags first.
    let extended_flags = reader.when(flags & 0x80 != 0, |reader| reader.u8("extended flags"))?;
    let carbohydrate =
        reader.when(flags & 0x01 != 0, |reader| Ok((reader.u8("carbohydrate id")?, reader.sfloat("carbohydrate")?)))?;
    let meal = reader.when(flags & 0x02 != 0, |reader| reader.u8("meal"))?;
    let tester = reader.when(flags & 0x04 != 0, |reader| reader.u8("tester and health"))?;
    let exercise = reader
        .when(flags & 0x08 != 0, |reader| Ok((reader.u16("exercise duration")?, reader.u8("exercise intensity")?)))?;
    let medication =
        reader.when(flags & 0x10 != 0, |reader| Ok((reader.u8("medication id")?, reader.sfloat("medication")?)))?;
    let hba1c = reader.when(flags & 0x40 != 0, |reader| reader.sfloat("HbA1c"))?;
    Ok(GlucoseContext {
        sequence,
        carbohydrate,
        meal,
        tester: tester.map(|byte| (byte & 0x0F, byte >> 4)),
        exercise,
        medication,
        is_litre: flags & 0x20 != 0,
        hba1c,
        extended_flags,
        trailing_bytes: reader.left(),
    })
}

/// The name of a number from 1; `None`: reserved.
fn name(names: &[&'static str], number: u8) -> Option<&'static str> {
    usize::from(number).checked_sub(1).and_then(|index| names.get(index)).copied()
}

impl GlucoseContext {
    const CARBOHYDRATES: &[&str] = &["breakfast", "lunch", "dinner", "snack", "drink", "supper", "brunch"];
    const MEALS: &[&str] = &["preprandial", "postprandial", "fasting", "casual", "bedtime"];
    const TESTERS: &[&str] = &["self", "health_care_professional", "lab_test"];
    const HEALTH: &[&str] =
        &["minor_health_issues", "major_health_issues", "during_menses", "under_stress", "no_health_issues"];
    const MEDICATIONS: &[&str] = &[
        "rapid_acting_insulin",
        "short_acting_insulin",
        "intermediate_acting_insulin",
        "long_acting_insulin",
        "pre_mixed_insulin",
    ];

    /// Details only. With the quirk of meters that write a ketone as a meal, an event `ketone` says that the record of
    /// the same number is no glucose.
    pub fn report(&self, quirks: &[Quirk]) -> Report {
        let mut report = Report {
            record: Some(self.sequence),
            rfu_bits: self.extended_flags.unwrap_or(0).count_ones(),
            trailing_bytes: self.trailing_bytes,
            ..Report::default()
        };
        if let Some((which, kg)) = self.carbohydrate {
            report.detail("carbohydrate", name(Self::CARBOHYDRATES, which));
            report.detail("carbohydrate_kg", kg);
        }
        if let Some(meal) = self.meal {
            report.detail("meal", name(Self::MEALS, meal));
            report.detail("meal_number", meal);
            if meal == KETONE_MEAL && quirks.contains(&Quirk::KetoneAsMeal) {
                report.event("ketone");
            }
        }
        if let Some((tester, health)) = self.tester {
            report.detail("tester", name(Self::TESTERS, tester));
            report.detail("health", name(Self::HEALTH, health));
        }
        if let Some((seconds, intensity)) = self.exercise {
            report.detail("exercise_s", (seconds != u16::MAX).then_some(seconds));
            report.detail("exercise_intensity_pct", intensity);
        }
        if let Some((which, amount)) = self.medication {
            report.detail("medication", name(Self::MEDICATIONS, which));
            report.detail(if self.is_litre { "medication_l" } else { "medication_kg" }, amount);
        }
        report.detail_if("hba1c_pct", self.hba1c);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;

    fn report(payload: &str, quirks: &[Quirk]) -> Report {
        parse(&hex::bytes(payload).unwrap()).unwrap().report(quirks)
    }

    #[test]
    fn every_field_is_told_in_its_order() {
        let found = report("ff 0700 01 02 06e0 03 15 1027 32 01 08b0 41f0", &[]);
        assert_eq!((found.record, found.rfu_bits, found.trailing_bytes), (Some(7), 1, 0));
        assert_eq!(
            serde_json::to_string(&found.details).unwrap(),
            concat!(
                r#"{"carbohydrate":"lunch","carbohydrate_kg":0.06,"exercise_intensity_pct":50,"exercise_s":10000,"#,
                r#""hba1c_pct":6.5,"health":"minor_health_issues","meal":"fasting","meal_number":3,"#,
                r#""medication":"rapid_acting_insulin","medication_l":0.00008,"tester":null}"#
            )
        );
    }

    #[test]
    fn a_ketone_is_told_only_of_the_meters_that_write_it_so() {
        assert!(report("02040006", &[]).decoded.is_empty());
        let found = report("02040006", &[Quirk::KetoneAsMeal]);
        assert_eq!(found.decoded, [Decoded::Event { name: "ketone".into() }]);
        assert_eq!(found.details["meal"], super::super::Detail::Unknown);
    }
}
