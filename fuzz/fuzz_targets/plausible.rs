//! What holds for every number, whatever the bytes are.

use vitalbridge::vitals::{Value, Vital};

/// A number lies inside the bounds of its metric.
pub fn plausible(vital: &Vital) {
    let (low, high) = vital.metric().info().range;
    let inside = |value: Value| {
        if let Value::Valid(number) = value {
            let number = number.to_f64();
            assert!((f64::from(low)..=f64::from(high)).contains(&number), "{vital:?}");
        }
    };
    match vital {
        Vital::Scalar { value, .. } => inside(*value),
        Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => {
            [pressure.systolic, pressure.diastolic, pressure.mean].into_iter().for_each(inside);
        }
        _ => {}
    }
}
