//! Undoes scale and offset: which whole number of a field's smallest steps stands for a value.

use super::Misfit;
use crate::profile::model::{Field, Source};
use crate::vitals::Decimal;

/// The smallest step of a number that is read from bytes.
pub(super) fn step_of(source: &Source) -> Decimal {
    match source {
        Source::Sum(terms) => terms
            .iter()
            .map(|term| term.scale)
            .min_by(|left, right| left.compare(*right))
            .unwrap_or_else(|| Decimal::integer(1)),
        _ => Decimal::integer(1),
    }
}

/// How many steps of `step` are written for `value`, rounded half away from zero.
pub(super) fn steps(field: &Field, value: Decimal, step: Decimal) -> Result<i64, Misfit> {
    let (low, high) = field.metric.info().range;
    let (low, high) = field.range.unwrap_or((Decimal::integer(low), Decimal::integer(high)));
    let is_measured_zero = value.is_zero() && field.zero_is_measured;
    if !is_measured_zero && (value.compare(low).is_lt() || value.compare(high).is_gt()) {
        return Err(Misfit(format!("{value} is outside {low} to {high}")));
    }
    let one = Decimal::integer(1);
    let steps = divided(value, field.offset, field.scale.unwrap_or(one), step)
        .ok_or_else(|| Misfit(format!("{value} has too many digits")))?;
    let raw = Decimal::new(steps.saturating_mul(step.mantissa()), step.exponent());
    let is_sentinel = |sentinel: &i64| {
        raw.zip(Decimal::new(*sentinel, 0)).is_some_and(|(raw, sentinel)| raw.compare(sentinel).is_eq())
    };
    if field.invalid.iter().any(is_sentinel) {
        return Err(Misfit(format!("{value} is written as {steps}, which means that there is no value")));
    }
    if steps == 0 && field.offset.is_none_or(Decimal::is_zero) && !field.zero_is_measured {
        return Err(Misfit(format!("{value} is written as 0, which means that there is no value")));
    }
    Ok(steps)
}

/// `(value - offset) / (scale * step)`, rounded half away from zero; `None` if it is no number or too large.
fn divided(value: Decimal, offset: Option<Decimal>, scale: Decimal, step: Decimal) -> Option<i64> {
    let offset = offset.unwrap_or_else(|| Decimal::integer(0));
    let lowest = value.exponent().min(offset.exponent());
    let aligned = |number: Decimal| {
        let places = u32::try_from(i32::from(number.exponent()) - i32::from(lowest)).ok()?;
        i128::from(number.mantissa()).checked_mul(10_i128.checked_pow(places)?)
    };
    let mut above = aligned(value)?.checked_sub(aligned(offset)?)?;
    let mut below = i128::from(scale.mantissa()) * i128::from(step.mantissa());
    let places = i32::from(lowest) - i32::from(scale.exponent()) - i32::from(step.exponent());
    let power = 10_i128.checked_pow(places.unsigned_abs())?;
    if places < 0 {
        below = below.checked_mul(power)?;
    } else {
        above = above.checked_mul(power)?;
    }
    let whole = above.checked_div(below)?;
    let rest = above.checked_rem(below)?;
    let up = i128::from(rest.checked_mul(2)?.unsigned_abs() >= below.unsigned_abs());
    let up = if (above < 0) == (below < 0) { up } else { -up };
    i64::try_from(whole + up).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_nearest_number_of_steps() {
        let decimal = |text: &str| -> Decimal { text.parse().unwrap() };
        for (value, offset, scale, step, expected) in [
            ("4.96", None, "0.01", "1", 496),
            ("36.84", None, "1", "0.1", 368),
            ("36.85", None, "1", "0.1", 369),
            ("-0.5", None, "1", "1", -1),
            ("98.6", Some("32"), "1.8", "1", 37),
            ("97", None, "1", "1", 97),
        ] {
            let found = divided(decimal(value), offset.map(decimal), decimal(scale), decimal(step));
            assert_eq!(found, Some(expected), "{value}");
        }
        assert_eq!(divided(decimal("1"), None, decimal("0"), decimal("1")), None);
    }
}
