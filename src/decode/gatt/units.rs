//! Conversion into the one unit that a metric is kept in: exact decimal arithmetic, rounded once at the end.
//!
//! The result has as many decimal places as keep two neighbouring numbers of the device apart.

use crate::vitals::{Absent, Decimal};

type Sent = Result<Decimal, Absent>;

/// Decimal places.
fn places(number: Decimal) -> i32 {
    i32::from(number.exponent()).saturating_neg().max(0)
}

/// `mantissa * 10^exponent` with at most so many places, rounded half away from zero.
fn at_most(mantissa: i128, exponent: i32, places: i32) -> Sent {
    let surplus = (-exponent).saturating_sub(places).max(0);
    let divisor = u32::try_from(surplus).ok().and_then(|surplus| 10_i128.checked_pow(surplus));
    let rounded = divisor.map_or(0, |divisor| (mantissa + mantissa.signum() * (divisor / 2)) / divisor);
    let exponent = exponent.saturating_add(surplus);
    let number = i64::try_from(rounded).ok().zip(i8::try_from(exponent).ok());
    number.and_then(|(mantissa, exponent)| Decimal::new(mantissa, exponent)).ok_or(Absent::OutOfRange)
}

/// The number times `factor * 10^exponent`.
fn times(number: Decimal, factor: i64, exponent: i32, places: i32) -> Sent {
    let product = i128::from(number.mantissa()) * i128::from(factor);
    at_most(product, i32::from(number.exponent()) + exponent, places)
}

/// kPa to mmHg (1 mmHg = 133.322 Pa, so 1 kPa = 7.50062 mmHg), with at least one place: cuffs write 11.0 kPa as 11.
pub(in crate::decode) fn mmhg_from_kpa(sent: Sent) -> Sent {
    sent.and_then(|number| times(number, 750_062, -5, places(number).max(1)))
}

/// °F to °C.
pub(in crate::decode) fn celsius_from_fahrenheit(sent: Sent) -> Sent {
    let number = sent?;
    let places = places(number);
    let scale = 10_i128.checked_pow(u32::try_from(places).unwrap_or(0)).unwrap_or(1);
    let whole = u32::from(number.exponent().max(0).unsigned_abs());
    let mantissa = i128::from(number.mantissa()) * 10_i128.checked_pow(whole).unwrap_or(1);
    let fifths = (mantissa - 32 * scale) * 5;
    // To nearest: no multiple of 10 lies half-way between two multiples of 9.
    let wanted = (fifths * 10 + fifths.signum() * 4) / 9;
    at_most(wanted, -(places + 1), (places + 1).min(9))
}

/// lb to kg (1 lb = 0.45359237 kg, exactly).
pub(in crate::decode) fn kg_from_lb(sent: Sent) -> Sent {
    sent.and_then(|number| times(number, 45_359_237, -8, places(number) + 1))
}

/// inch to m (1 inch = 0.0254 m, exactly), to the millimetre.
pub(in crate::decode) fn metres_from_inches(sent: Sent) -> Sent {
    sent.and_then(|number| times(number, 254, -4, 3))
}

/// mmol/L of glucose to mg/dL (180.156 g/mol, so 1 mmol/L = 18.0156 mg/dL).
pub(in crate::decode) fn mg_dl_from_mmol_l(sent: Sent) -> Sent {
    sent.and_then(|number| times(number, 180_156, -4, (places(number) - 1).max(0)))
}

/// Moves the decimal point: `number * 10^steps`.
pub(in crate::decode) fn shifted(sent: Sent, steps: i8) -> Sent {
    let number = sent?;
    let exponent = number.exponent().checked_add(steps).ok_or(Absent::OutOfRange)?;
    Decimal::new(number.mantissa(), exponent).ok_or(Absent::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Convert = fn(Sent) -> Sent;

    fn shown(convert: Convert, text: &str) -> String {
        convert(Ok(text.parse().unwrap())).unwrap().to_string()
    }

    #[test]
    fn a_conversion_keeps_as_many_places_as_the_device_can_tell_apart() {
        let cases: [(Convert, &str, &str); 12] = [
            (mmhg_from_kpa, "18.9", "141.8"),
            (mmhg_from_kpa, "16", "120.0"),
            (celsius_from_fahrenheit, "98.6", "37.00"),
            (celsius_from_fahrenheit, "98.7", "37.06"),
            (celsius_from_fahrenheit, "32", "0.0"),
            (celsius_from_fahrenheit, "14", "-10.0"),
            (celsius_from_fahrenheit, "100", "37.8"),
            (kg_from_lb, "177.12", "80.340"),
            (metres_from_inches, "72.1", "1.831"),
            (mg_dl_from_mmol_l, "5.5", "99"),
            (mg_dl_from_mmol_l, "5.55", "100.0"),
            (mg_dl_from_mmol_l, "20", "360"),
        ];
        for (convert, sent, expected) in cases {
            assert_eq!(shown(convert, sent), expected, "{sent}");
        }
    }

    #[test]
    fn neighbouring_numbers_of_a_device_stay_apart() {
        let steps: [(Convert, i8); 4] =
            [(mmhg_from_kpa, -1), (celsius_from_fahrenheit, -1), (kg_from_lb, -2), (mg_dl_from_mmol_l, -1)];
        for (convert, exponent) in steps {
            let converted = |mantissa| convert(Ok(Decimal::new(mantissa, exponent).unwrap())).unwrap();
            for mantissa in 100..2000 {
                assert!(converted(mantissa).compare(converted(mantissa + 1)).is_lt(), "{mantissa}e{exponent}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none_and_what_is_too_large_is_out_of_range() {
        assert_eq!(kg_from_lb(Err(Absent::NotANumber)), Err(Absent::NotANumber));
        assert_eq!(shifted(Err(Absent::Reserved), 5), Err(Absent::Reserved));
        let huge = Ok(Decimal::new(1_000_000_000, 9).unwrap());
        for convert in [mmhg_from_kpa, celsius_from_fahrenheit, mg_dl_from_mmol_l] {
            assert_eq!(convert(huge), Err(Absent::OutOfRange));
        }
        assert_eq!(shifted(huge, 1), Err(Absent::OutOfRange));
    }
}
