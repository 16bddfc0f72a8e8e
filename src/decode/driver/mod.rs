//! Drivers: protocols that are conversations. A driver takes bytes and the time, and gives vitals and bytes to send.

mod alarms;
mod datex_dri;
mod medibus;
mod tally;

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::waves::Block;
use super::{Decoded, FrameCounters, IdentityCounters};
use crate::clock::Stamp;
use crate::profile::driver::{DriverKind, DriverSettings};
use crate::vitals::{Decimal, Metric};

/// Bytes that wait to be sent at most. A driver that has more to say than its line takes starts anew.
const MAX_OUTGOING: usize = 4096;

/// One device's conversation. Total: any bytes at any time give values or counts, never a panic.
///
/// A driver says nothing before [`Driver::begin`]; until then it reads what comes, as it reads a recording.
pub(super) trait Driver: Debug + Send + Sync {
    /// Takes bytes as they arrive, in pieces of any size. `now` is `None` for a recording.
    fn push(&mut self, bytes: &[u8], now: Option<Stamp>, out: &mut Vec<Decoded>);

    /// The end of a recording: what is whole is told, the rest is counted.
    fn finish(&mut self, out: &mut Vec<Decoded>);

    /// The stream has paused: samples before and after it do not belong together.
    fn pause(&mut self, out: &mut Vec<Decoded>);

    /// The link was opened again: nothing that was said before counts, and nothing is said until the next `begin`.
    fn reset(&mut self);

    /// What was counted since the driver was made.
    fn counters(&self) -> FrameCounters;

    /// How often the device has said who it is since the driver was made; never, where its protocol has no word for it.
    fn identity(&self) -> IdentityCounters {
        IdentityCounters::default()
    }

    /// The device may be talked to from now on.
    fn begin(&mut self, now: Stamp);

    /// The device is told that nobody listens any more.
    fn end(&mut self);

    /// Does what is due.
    fn on_time(&mut self, now: Stamp, out: &mut Vec<Decoded>);

    /// When [`Driver::on_time`] has something to do next.
    fn next_deadline(&self) -> Option<crate::clock::Mono>;

    /// What is to be sent now.
    fn take_outgoing(&mut self) -> Vec<u8>;
}

/// The driver that a profile names.
pub(super) fn of(settings: &DriverSettings) -> Box<dyn Driver> {
    match settings.kind {
        DriverKind::Medibus => Box::new(medibus::Medibus::new(settings)),
        DriverKind::DatexDri => Box::new(datex_dri::DatexDri::new(settings)),
    }
}

/// The metrics that a driver can give.
pub(super) fn metrics(kind: DriverKind) -> BTreeSet<Metric> {
    match kind {
        DriverKind::Medibus => medibus::metrics(),
        DriverKind::DatexDri => datex_dri::metrics(),
    }
}

/// Of those, what every such device gives all the time, so that its absence is a fault from the beginning. What depends
/// on its options and modules is missed only after it has been there.
pub(super) fn expected(kind: DriverKind) -> BTreeSet<Metric> {
    match kind {
        DriverKind::Medibus => BTreeSet::from([Metric::RespiratoryRate, Metric::MinuteVolume]),
        DriverKind::DatexDri => BTreeSet::new(),
    }
}

/// Ends the blocks of all waves: samples were lost.
fn gap<'b>(blocks: impl Iterator<Item = &'b mut Block>, out: &mut Vec<Decoded>) {
    out.extend(blocks.filter_map(Block::gap).map(Decoded::Wave));
}

/// The same number without zeros at its end: the device sends 97.00 because its field has hundredths, not because it
/// measures them.
fn trimmed(number: Decimal) -> Decimal {
    let (mut mantissa, mut exponent) = (number.mantissa(), number.exponent());
    while exponent < 0 && mantissa % 10 == 0 {
        (mantissa, exponent) = (mantissa / 10, exponent + 1);
    }
    Decimal::new(mantissa, exponent).unwrap_or(number)
}

/// `number * factor / 10^places`, rounded to nearest with `decimals` decimal places.
fn converted(number: Decimal, factor: i64, places: i8, decimals: i8) -> Option<Decimal> {
    let exponent = i32::from(number.exponent()) - i32::from(places);
    let exact = i128::from(number.mantissa()) * i128::from(factor);
    let shift = exponent + i32::from(decimals);
    let scaled = match u32::try_from(shift.abs()).ok().and_then(|steps| 10_i128.checked_pow(steps))? {
        power if shift >= 0 => exact.checked_mul(power)?,
        power => (exact + exact.signum() * (power / 2)) / power,
    };
    Decimal::new(i64::try_from(scaled).ok()?, -decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_the_field_and_not_of_the_measurement_are_dropped() {
        for (mantissa, exponent, text) in [(9700, -2, "97"), (3652, -2, "36.52"), (3650, -2, "36.5"), (0, -2, "0")] {
            assert_eq!(trimmed(Decimal::new(mantissa, exponent).unwrap()).to_string(), text);
        }
        assert_eq!(trimmed(Decimal::new(30, 0).unwrap()).to_string(), "30");
    }

    #[test]
    fn a_conversion_rounds_to_nearest_away_from_zero() {
        let number = |text: &str| text.parse::<Decimal>().unwrap();
        // 1 mbar is 1.019716 cmH2O, 1 kPa is 7.500617 mmHg.
        for (from, factor, to) in [("20", 1_019_716, "20.4"), ("-5", 1_019_716, "-5.1"), ("5.0", 7_500_617, "37.5")] {
            assert_eq!(converted(number(from), factor, 6, 1).unwrap().to_string(), to);
        }
        assert_eq!(converted(number("0.45"), 1000, 0, 0).unwrap().to_string(), "450");
        assert_eq!(converted(Decimal::new(1_000_000_000, 9).unwrap(), i64::MAX, 0, 9), None);
    }
}
