//! Whether a patient can have a number: one that nobody has is kept and marked, never dropped, never trusted.

use crate::vitals::{Absent, Decimal, Metric, Quality, Value};

/// A number that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) struct Judged {
    pub(in crate::decode) metric: Metric,
    pub(in crate::decode) value: Value,
    pub(in crate::decode) quality: Quality,
}

/// Bounds that a living patient keeps, in the metric's unit. Wider than any alarm limit, narrower than what the number
/// could hold.
const fn bounds(metric: Metric) -> (i32, i32) {
    match metric {
        Metric::HeartRate | Metric::PulseRate => (20, 300),
        Metric::Weight => (1, 400),
        Metric::BodyFat => (1, 75),
        Metric::Bmi => (5, 150),
        Metric::FatFreeMass | Metric::SoftLeanMass | Metric::BodyWater => (1, 300),
        other => other.info().range,
    }
}

/// True if a living patient can have it.
pub(in crate::decode) fn is_plausible(metric: Metric, number: Decimal) -> bool {
    let (lowest, highest) = bounds(metric);
    number.compare(Decimal::integer(lowest)).is_ge() && number.compare(Decimal::integer(highest)).is_le()
}

/// A number as the device sent it, in the metric's unit, with what the device says of it. 0 is no measurement.
pub(in crate::decode) fn judge(metric: Metric, sent: Result<Decimal, Absent>, said: Quality) -> Judged {
    let (value, quality) = match sent {
        Err(reason) => (Value::Absent(reason), Quality::NotAvailable),
        Ok(number) if number.is_zero() => (Value::Absent(Absent::ZeroReported), Quality::NotAvailable),
        // What the device itself calls wrong stays wrong.
        Ok(number) if said != Quality::Invalid && !is_plausible(metric, number) => {
            (Value::Valid(number), Quality::Implausible)
        }
        Ok(number) => (Value::Valid(number), said),
    };
    Judged { metric, value, quality }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_implausible_number_is_kept_and_marked_and_zero_is_no_measurement() {
        let judged = |sent, said| {
            let judged = judge(Metric::Temperature, sent, said);
            (judged.value, judged.quality)
        };
        let (fever, oven) = (Decimal::tenths(391), Decimal::integer(180));
        assert_eq!(judged(Ok(fever), Quality::Valid), (Value::Valid(fever), Quality::Valid));
        assert_eq!(judged(Ok(fever), Quality::Questionable), (Value::Valid(fever), Quality::Questionable));
        assert_eq!(judged(Ok(oven), Quality::Questionable), (Value::Valid(oven), Quality::Implausible));
        assert_eq!(judged(Ok(oven), Quality::Invalid), (Value::Valid(oven), Quality::Invalid));
        for (sent, reason) in
            [(Ok(Decimal::tenths(0)), Absent::ZeroReported), (Err(Absent::NotANumber), Absent::NotANumber)]
        {
            assert_eq!(judged(sent, Quality::Valid), (Value::Absent(reason), Quality::NotAvailable));
        }
    }
}
