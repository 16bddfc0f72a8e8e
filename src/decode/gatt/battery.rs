//! Battery Level (0x2A19) of the Battery Service 1.0.

use super::plausible::Judged;
use super::{GattError, Reader, Report};
use crate::vitals::{Absent, Decimal, Metric, Quality, Value};

/// A value of Battery Level, in %. BAS 1.0, 3.1.1: 0 is an empty battery, and more than 100 is reserved.
pub(super) fn report(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("battery level", payload);
    let level = reader.u8("battery level")?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    let (value, quality) = match level {
        0..=100 => (Value::Valid(Decimal::integer(i32::from(level))), Quality::Valid),
        _ => (Value::Absent(Absent::Reserved), Quality::NotAvailable),
    };
    report.vital(Judged { metric: Metric::Battery, value, quality }, None);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;

    #[test]
    fn an_empty_battery_is_a_measurement_and_more_than_full_is_none() {
        let level = |byte| match report(&[byte]).unwrap().decoded.pop() {
            Some(Decoded::Vital(vital)) => vital.vital.leading(),
            other => panic!("{other:?}"),
        };
        assert_eq!(level(0), Value::Valid(Decimal::integer(0)));
        assert_eq!(level(100), Value::Valid(Decimal::integer(100)));
        assert_eq!(level(101), Value::Absent(Absent::Reserved));
    }
}
