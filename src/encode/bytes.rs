//! Writes numbers, bits, sums and texts into the bytes of a frame; every bit beside them stays as it was.

use super::choice::Put;
use super::{Misfit, amount};
use crate::profile::model::{Field, NumberKind, Piece, Source, Term, Test, TextSource};
use crate::vitals::{Absent, Decimal};

fn too_short(at: usize) -> Misfit {
    Misfit(format!("the frame has no byte {at}"))
}

fn byte_at(bytes: &mut [u8], at: usize) -> Result<&mut u8, Misfit> {
    bytes.get_mut(at).ok_or_else(|| too_short(at))
}

const fn is_little(kind: NumberKind) -> bool {
    matches!(
        kind,
        NumberKind::U16le
            | NumberKind::I16le
            | NumberKind::U24le
            | NumberKind::U32le
            | NumberKind::I32le
            | NumberKind::Sfloat
            | NumberKind::Float
    )
}

/// Writes a whole number, of which only the bits under `mask` are the frame's own.
pub(super) fn put_number(
    bytes: &mut [u8],
    at: usize,
    kind: NumberKind,
    width: usize,
    mask: Option<u32>,
    number: i64,
) -> Result<(), Misfit> {
    if kind == NumberKind::Bcd {
        let digits = format!("{number:0digits$}", digits = width * 2);
        return put_digits(bytes, at, width, &digits);
    }
    let bits = u32::try_from(width * 8).unwrap_or(64);
    let (low, high) = match kind.signed_bits() {
        0 => (0, (1_i64 << bits) - 1),
        signed => (-(1_i64 << (signed - 1)), (1_i64 << (signed - 1)) - 1),
    };
    // The low bits of two's complement.
    let written = u32::try_from(number & ((1_i64 << bits) - 1)).unwrap_or(u32::MAX);
    let mask = mask.unwrap_or(u32::MAX);
    if !(low..=high).contains(&number) || written & !mask & u32::MAX.checked_shr(32 - bits).unwrap_or(0) != 0 {
        return Err(Misfit(format!("{number} does not fit into {bits} bits under the mask {mask:#X}")));
    }
    for place in 0..width {
        let byte = byte_at(bytes, at + place)?;
        let shift = 8 * if is_little(kind) { place } else { width - 1 - place };
        let part = |number: u32| u8::try_from(number >> shift & 0xFF).unwrap_or(0);
        *byte = (*byte & !part(mask)) | part(written & mask);
    }
    Ok(())
}

fn put_digits(bytes: &mut [u8], at: usize, width: usize, digits: &str) -> Result<(), Misfit> {
    let values: Vec<u8> =
        digits.chars().filter_map(|digit| digit.to_digit(10).and_then(|value| u8::try_from(value).ok())).collect();
    if values.len() != digits.len() || values.len() != width * 2 {
        return Err(Misfit(format!("`{digits}` is not {} decimal digits", width * 2)));
    }
    for (place, pair) in values.chunks_exact(2).enumerate() {
        *byte_at(bytes, at + place)? = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    }
    Ok(())
}

fn put_bits(bytes: &mut [u8], pieces: &[Piece], number: i64) -> Result<(), Misfit> {
    let width: u32 = pieces.iter().map(|piece| piece.width).sum();
    if !(0..1_i64 << width).contains(&number) {
        return Err(Misfit(format!("{number} does not fit into {width} bits")));
    }
    let mut rest = number;
    for piece in pieces.iter().rev() {
        let mask = (1_i64 << piece.width) - 1;
        let part = u8::try_from((rest & mask) << piece.bit).unwrap_or(0);
        let place = u8::try_from(mask << piece.bit & 0xFF).unwrap_or(0);
        let byte = byte_at(bytes, piece.at)?;
        *byte = (*byte & !place) | part;
        rest >>= piece.width;
    }
    Ok(())
}

/// Splits a number of the smallest steps among the parts of a sum, the largest part first.
fn put_sum(bytes: &mut [u8], terms: &[Term], step: Decimal, steps: i64) -> Result<(), Misfit> {
    let mut terms: Vec<&Term> = terms.iter().collect();
    terms.sort_by(|left, right| right.scale.compare(left.scale));
    let mut rest = steps;
    for term in terms {
        let places = u32::try_from(i32::from(term.scale.exponent()) - i32::from(step.exponent())).unwrap_or(0);
        let unit = term.scale.mantissa().saturating_mul(10_i64.saturating_pow(places)) / step.mantissa().max(1);
        let part = rest.checked_div(unit).unwrap_or(0);
        put_number(bytes, term.at, term.kind, term.kind.width(), None, part)?;
        rest -= part.saturating_mul(unit);
    }
    if rest == 0 { Ok(()) } else { Err(Misfit::new("it is no sum of the parts that the profile has")) }
}

/// The special values of IEEE 11073 floats, with `bits` bits of mantissa.
fn special_float(reason: Absent, bits: u32) -> Option<i64> {
    let highest = (1_i64 << (bits - 1)) - 1;
    Some(match reason {
        Absent::NotANumber => highest,
        Absent::NotAtThisResolution => highest + 1,
        Absent::OverRange => highest - 1,
        Absent::UnderRange => highest + 3,
        Absent::Reserved => highest + 2,
        _ => return None,
    })
}

/// Bits of mantissa of a float type; `None`: not a float.
pub(super) const fn mantissa_bits(kind: NumberKind) -> Option<u32> {
    match kind {
        NumberKind::Sfloat => Some(12),
        NumberKind::Float => Some(24),
        _ => None,
    }
}

/// True if a source can say this reason by a special value of its own.
pub(super) fn has_special(source: &Source, reason: Absent) -> bool {
    matches!(source, Source::Number { kind, .. }
        if mantissa_bits(*kind).is_some_and(|bits| special_float(reason, bits).is_some()))
}

fn put_float(bytes: &mut [u8], at: usize, kind: NumberKind, bits: u32, value: Decimal) -> Result<(), Misfit> {
    let lowest = if kind == NumberKind::Sfloat { -8 } else { -9 };
    let (mut mantissa, mut exponent) = (value.mantissa(), i64::from(value.exponent()));
    // The five highest and lowest are special values.
    let most = (1_i64 << (bits - 1)) - 3;
    while mantissa.abs() > most || exponent < lowest {
        mantissa = mantissa / 10 + mantissa % 10 / 5;
        exponent += 1;
    }
    let width = kind.width();
    let exponent_bits = 8 * u32::try_from(width).unwrap_or(4) - bits;
    if exponent >= 1 << (exponent_bits - 1) {
        return Err(Misfit(format!("{value} is too large")));
    }
    let written = (exponent & ((1 << exponent_bits) - 1)) << bits | mantissa & ((1 << bits) - 1);
    put_number(bytes, at, kind, width, None, written)
}

/// Writes the raw number of a source that is made of bytes.
fn put_raw(bytes: &mut [u8], source: &Source, number: i64) -> Result<(), Misfit> {
    match source {
        Source::Number { at, kind, bytes: width, mask } => put_number(bytes, *at, *kind, *width, *mask, number),
        Source::Bits(pieces) => put_bits(bytes, pieces, number),
        Source::Sum(terms) => {
            let step = amount::step_of(source);
            let places = u32::try_from(-i32::from(step.exponent())).unwrap_or(0);
            let steps = number.saturating_mul(10_i64.saturating_pow(places)) / step.mantissa().max(1);
            put_sum(bytes, terms, step, steps)
        }
        Source::Key { .. } | Source::Group { .. } => Err(Misfit::new("it is read from text, not from bytes")),
    }
}

/// Writes the number of a state.
pub(super) fn put_state(bytes: &mut [u8], source: &Source, number: i64) -> Result<(), Misfit> {
    put_raw(bytes, source, number)
}

/// Writes what is said about a vital.
pub(super) fn put_field(bytes: &mut [u8], field: &Field, put: Put) -> Result<(), Misfit> {
    let float = match &field.source {
        Source::Number { at, kind, .. } => mantissa_bits(*kind).map(|bits| (*at, *kind, bits)),
        _ => None,
    };
    match (put, float) {
        (Put::Keep, _) => Ok(()),
        (Put::Value(value), Some((at, kind, bits))) => put_float(bytes, at, kind, bits, value),
        (Put::Value(value), None) => {
            let step = amount::step_of(&field.source);
            let steps = amount::steps(field, value, step)?;
            match &field.source {
                Source::Sum(terms) => put_sum(bytes, terms, step, steps),
                source => put_raw(bytes, source, steps),
            }
        }
        (Put::Special(reason), Some((at, kind, bits))) => {
            let written = special_float(reason, bits).ok_or_else(|| Misfit(format!("a float cannot say {reason}")))?;
            put_number(bytes, at, kind, kind.width(), None, written)
        }
        (Put::Special(reason), None) => Err(Misfit(format!("its bytes have no special value for {reason}"))),
        (Put::Raw(number), _) => put_raw(bytes, &field.source, number),
        (Put::Dashes, _) => Err(Misfit::new("dashes are text, and it is read from bytes")),
    }
}

/// Reads a whole number back, to change some of its bits.
fn read_bits(bytes: &[u8], source: &Source) -> Option<u32> {
    match source {
        Source::Number { at, kind, bytes: width, .. } => {
            let written = bytes.get(*at..at.checked_add(*width)?)?;
            let add = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            Some(if is_little(*kind) { written.iter().rev().fold(0, add) } else { written.iter().fold(0, add) })
        }
        Source::Bits(pieces) => pieces.iter().try_fold(0_u32, |number, piece| {
            let part = u32::from(*bytes.get(piece.at)?) >> piece.bit & ((1 << piece.width) - 1);
            Some(number << piece.width | part)
        }),
        Source::Sum(_) | Source::Key { .. } | Source::Group { .. } => None,
    }
}

/// The number with the bits under `mask` as they are when a flag is set, or as little as possible otherwise.
pub(super) const fn with_flag(bits: u32, mask: u32, value: u32, is_set: bool) -> u32 {
    if is_set {
        bits & !mask | value
    } else if bits & mask == value {
        bits ^ (mask & mask.wrapping_neg())
    } else {
        bits
    }
}

/// Sets or clears a flag.
pub(super) fn put_flag(bytes: &mut [u8], test: &Test, is_set: bool) -> Result<(), Misfit> {
    match test {
        Test::Byte(predicate) => {
            let byte = byte_at(bytes, predicate.at)?;
            let bits = with_flag(u32::from(*byte), predicate.mask.into(), predicate.value.into(), is_set);
            *byte = u8::try_from(bits).unwrap_or(*byte);
            Ok(())
        }
        Test::Number { source, mask, value } => {
            let bits = read_bits(bytes, source).ok_or_else(|| Misfit::new("a flag's number is not in the frame"))?;
            let changed = i64::from(with_flag(bits, *mask, *value, is_set));
            match source {
                Source::Number { at, kind, bytes: width, .. } => {
                    // Its bits, whatever its sign.
                    let unsigned = if is_little(*kind) { NumberKind::U32le } else { NumberKind::U32be };
                    put_number(bytes, *at, unsigned, *width, None, changed)
                }
                source => put_raw(bytes, source, changed),
            }
        }
        Test::Word { .. } | Test::Present { .. } if !is_set => Ok(()),
        Test::Word { .. } | Test::Present { .. } => Err(Misfit::new("a flag of a line is not in a frame")),
    }
}

/// Writes a text, filled up with spaces.
pub(super) fn put_text(bytes: &mut [u8], source: &TextSource, text: &str) -> Result<(), Misfit> {
    match source {
        TextSource::Ascii { at, length } => {
            if text.len() > *length || !text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
                return Err(Misfit(format!("`{text}` is not up to {length} ASCII characters")));
            }
            let padded = text.bytes().chain(std::iter::repeat(b' ')).take(*length);
            for (place, byte) in padded.enumerate() {
                *byte_at(bytes, at + place)? = byte;
            }
            Ok(())
        }
        TextSource::Bcd { at, length } => put_digits(bytes, *at, *length, text),
        TextSource::Clock { .. } => Err(Misfit::new("the device's clock is not set by a text")),
        TextSource::Group(_) | TextSource::Key(_) => Err(Misfit::new("a text of a line is not in a frame")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_type_are_written_and_nothing_beside_them() {
        for (kind, width, mask, number, expected) in [
            (NumberKind::U8, 1, None, 200, [0xFF, 200, 0xFF, 0xFF, 0xFF]),
            (NumberKind::U8, 1, Some(0x7F), 5, [0xFF, 0x85, 0xFF, 0xFF, 0xFF]),
            (NumberKind::I8, 1, None, -2, [0xFF, 0xFE, 0xFF, 0xFF, 0xFF]),
            (NumberKind::U16le, 2, None, 0x1234, [0xFF, 0x34, 0x12, 0xFF, 0xFF]),
            (NumberKind::I16be, 2, None, -257, [0xFF, 0xFE, 0xFF, 0xFF, 0xFF]),
            (NumberKind::U24be, 3, None, 0x01_0203, [0xFF, 1, 2, 3, 0xFF]),
            (NumberKind::I32le, 4, None, -2, [0xFF, 0xFE, 0xFF, 0xFF, 0xFF]),
            (NumberKind::Bcd, 2, None, 1234, [0xFF, 0x12, 0x34, 0xFF, 0xFF]),
        ] {
            let mut bytes = [0xFF; 5];
            put_number(&mut bytes, 1, kind, width, mask, number).unwrap();
            assert_eq!(bytes, expected, "{kind:?} {number}");
        }
        for (kind, width, mask, number) in [
            (NumberKind::U8, 1, None, 256),
            (NumberKind::U8, 1, Some(0x7F), 128),
            (NumberKind::U8, 1, None, -1),
            (NumberKind::I8, 1, None, 128),
            (NumberKind::Bcd, 1, None, 100),
        ] {
            assert!(put_number(&mut [0; 5], 0, kind, width, mask, number).is_err(), "{kind:?} {number}");
        }
    }

    #[test]
    fn floats_round_to_their_mantissa_and_have_special_values() {
        let source = Source::Number { at: 0, kind: NumberKind::Sfloat, bytes: 2, mask: None };
        assert!(has_special(&source, Absent::NotANumber) && !has_special(&source, Absent::SensorOff));
        let mut bytes = [0; 2];
        for (value, expected) in [("36.4", 0xF16C), ("-1", 0x0FFF), ("2046", 0x10CD)] {
            put_float(&mut bytes, 0, NumberKind::Sfloat, 12, value.parse().unwrap()).unwrap();
            assert_eq!(u16::from_le_bytes(bytes), expected, "{value}");
        }
        assert_eq!(special_float(Absent::NotANumber, 12), Some(0x7FF));
        assert_eq!(special_float(Absent::UnderRange, 24), Some(0x0080_0002));
    }

    #[test]
    fn a_flag_is_set_and_cleared_with_no_other_bit() {
        assert_eq!(with_flag(0b1010, 0b0100, 0b0100, true), 0b1110);
        assert_eq!(with_flag(0b1110, 0b0100, 0b0100, false), 0b1010);
        assert_eq!(with_flag(0b1010, 0b0110, 0b0010, false), 0b1000);
        assert_eq!(with_flag(0b1010, 0b0110, 0b0000, true), 0b1000);
    }
}
