//! IEEE 11073-20601 SFLOAT and FLOAT: decimal floats of 16 and 32 bits, and their special values.

use crate::vitals::{Absent, Decimal};

/// 16 bits: a signed exponent in bits 15..12, a signed mantissa in bits 11..0 (GSS, medfloat16).
///
/// The special values exist with exponent 0 only. A number that no supported device can mean (beyond 10^9) is out
/// of range.
pub fn sfloat(bits: u16) -> Result<Decimal, Absent> {
    match bits {
        0x07FF => return Err(Absent::NotANumber),
        0x0800 => return Err(Absent::NotAtThisResolution),
        0x07FE => return Err(Absent::OverRange),
        0x0802 => return Err(Absent::UnderRange),
        0x0801 => return Err(Absent::Reserved),
        _ => {}
    }
    decimal(signed(u32::from(bits & 0x0FFF), 12), signed(u32::from(bits >> 12), 4))
}

/// 32 bits: a signed exponent in bits 31..24, a signed mantissa in bits 23..0 (GSS, medfloat32).
pub fn float(bits: u32) -> Result<Decimal, Absent> {
    match bits {
        0x007F_FFFF => return Err(Absent::NotANumber),
        0x0080_0000 => return Err(Absent::NotAtThisResolution),
        0x007F_FFFE => return Err(Absent::OverRange),
        0x0080_0002 => return Err(Absent::UnderRange),
        0x0080_0001 => return Err(Absent::Reserved),
        _ => {}
    }
    decimal(signed(bits & 0x00FF_FFFF, 24), signed(bits >> 24, 8))
}

/// Two's complement of `width` bits.
fn signed(bits: u32, width: u32) -> i64 {
    let bits = i64::from(bits);
    if bits >> (width - 1) & 1 == 1 { bits - (1 << width) } else { bits }
}

fn decimal(mantissa: i64, exponent: i64) -> Result<Decimal, Absent> {
    i8::try_from(exponent).ok().and_then(|exponent| Decimal::new(mantissa, exponent)).ok_or(Absent::OutOfRange)
}
