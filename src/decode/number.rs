//! Reads one raw number or text out of a frame or a line, as a profile's source says.

use std::fmt::Write as _;

use regex::CaptureLocations;

use super::ieee11073;
use crate::profile::model::{NumberKind, Pairs, Piece, Source, Term, Text, TextSource};
use crate::vitals::{Absent, Decimal};

/// What a message is read from. Handed on by reference: a copy is four words at every flag and field.
pub(super) enum Input<'i> {
    /// The bytes of a frame, or the slots of a superframe.
    Bytes(&'i [u8]),
    /// A line, the places of its groups, and how its pairs are written.
    Line { text: &'i str, groups: &'i CaptureLocations, pairs: Option<&'i Pairs> },
}

/// A number as it is written, before sentinels, scale and gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
    /// A whole number: as its bits are, and with its sign.
    Integer { bits: i64, signed: i64 },
    /// A number with decimal places, or from a float.
    Decimal(Decimal),
    /// The device says that there is none.
    Absent(Absent),
    /// The frame is too short for it, or the line has no such key.
    Missing,
}

impl<'i> Input<'i> {
    fn bytes(&self, at: usize, width: usize) -> Option<&'i [u8]> {
        match self {
            Self::Bytes(bytes) => bytes.get(at..at.checked_add(width)?),
            Self::Line { .. } => None,
        }
    }

    pub(super) fn group(&self, group: usize) -> Option<&'i str> {
        match self {
            Self::Line { text, groups, .. } => groups.get(group).and_then(|(start, end)| text.get(start..end)),
            Self::Bytes(_) => None,
        }
    }

    fn key(&self, key: &str) -> Option<&'i str> {
        let Self::Line { text, pairs: Some(pairs), .. } = *self else {
            return None;
        };
        let value = text.split(pairs.separator.as_str()).find_map(|pair| {
            pair.trim_start().strip_prefix(key).and_then(|rest| rest.strip_prefix(pairs.assign.as_str()))
        })?;
        Some(value.trim_end_matches(|c: char| c.is_ascii_whitespace() || pairs.strip.contains(c)))
    }
}

/// Reads the raw number of a source.
pub(super) fn extract(source: &Source, input: &Input<'_>) -> Raw {
    match source {
        Source::Number { at, kind, bytes, mask } => match input.bytes(*at, *bytes) {
            Some(written) => number(*kind, written, *mask),
            None => Raw::Missing,
        },
        Source::Bits(pieces) => bits(pieces, input).map_or(Raw::Missing, integer),
        Source::Sum(terms) => sum(terms, input),
        Source::Key { key, radix } => input.key(key).map_or(Raw::Missing, |text| from_text(text, *radix)),
        Source::Group { group, radix } => input.group(*group).map_or(Raw::Missing, |text| from_text(text, *radix)),
    }
}

const fn integer(number: i64) -> Raw {
    Raw::Integer { bits: number, signed: number }
}

fn number(kind: NumberKind, written: &[u8], mask: Option<u32>) -> Raw {
    let add = |number: u32, byte: &u8| (number << 8) | u32::from(*byte);
    let bits = match (kind, written) {
        (NumberKind::U8, [byte]) => u32::from(*byte),
        (NumberKind::Bcd, _) => return bcd(written),
        (NumberKind::Sfloat, [low, high]) => return float(ieee11073::sfloat(u16::from_le_bytes([*low, *high]))),
        (NumberKind::Float, [a, b, c, d]) => return float(ieee11073::float(u32::from_le_bytes([*a, *b, *c, *d]))),
        (NumberKind::U16le | NumberKind::I16le | NumberKind::U24le | NumberKind::U32le | NumberKind::I32le, _) => {
            written.iter().rev().fold(0, add)
        }
        _ => written.iter().fold(0, add),
    };
    let bits = i64::from(mask.map_or(bits, |mask| bits & mask));
    let signed = match kind.signed_bits() {
        0 => bits,
        width if bits >> (width - 1) & 1 == 1 => bits - (1 << width),
        _ => bits,
    };
    Raw::Integer { bits, signed }
}

/// One sample of a wave.
pub(super) fn sample(kind: NumberKind, written: &[u8], mask: Option<u32>) -> i32 {
    match number(kind, written, mask) {
        Raw::Integer { signed, .. } => i32::try_from(signed).unwrap_or(i32::MAX),
        Raw::Decimal(_) | Raw::Absent(_) | Raw::Missing => 0,
    }
}

fn float(value: Result<Decimal, Absent>) -> Raw {
    value.map_or_else(Raw::Absent, Raw::Decimal)
}

fn bcd(written: &[u8]) -> Raw {
    let mut digits = written.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let number = digits.try_fold(0_i64, |number, digit| (digit < 10).then(|| number * 10 + i64::from(digit)));
    number.map_or(Raw::Absent(Absent::Reserved), integer)
}

fn bits(pieces: &[Piece], input: &Input<'_>) -> Option<i64> {
    let mut number = 0;
    for piece in pieces {
        let [byte] = input.bytes(piece.at, 1)? else { return None };
        let shifted = u32::from(*byte) >> piece.bit;
        number = (number << piece.width) | i64::from(shifted & ((1 << piece.width) - 1));
    }
    Some(number)
}

fn sum(terms: &[Term], input: &Input<'_>) -> Raw {
    let mut total = Decimal::integer(0);
    for term in terms {
        let Some(written) = input.bytes(term.at, term.kind.width()) else { return Raw::Missing };
        let Raw::Integer { signed, .. } = number(term.kind, written, None) else { return Raw::Missing };
        let part = Decimal::new(signed, 0).and_then(|raw| times(raw, term.scale));
        match part.and_then(|part| plus(total, part)) {
            Some(sum) => total = sum,
            None => return Raw::Absent(Absent::OutOfRange),
        }
    }
    Raw::Decimal(total)
}

/// A text without any digit is the device's way to say that there is no value (`---`, `--.-`).
fn from_text(text: &str, radix: u32) -> Raw {
    let text = text.trim();
    if !text.bytes().any(|byte| byte.is_ascii_hexdigit()) {
        return Raw::Absent(Absent::NotANumber);
    }
    if radix != 10 {
        return i64::from_str_radix(text, radix).map_or(Raw::Absent(Absent::Reserved), integer);
    }
    match text.strip_prefix('+').unwrap_or(text).parse::<Decimal>() {
        Ok(number) if number.exponent() == 0 => integer(number.mantissa()),
        Ok(number) => Raw::Decimal(number),
        Err(_) => Raw::Absent(Absent::Reserved),
    }
}

/// The product, rounded to what a [`Decimal`] holds; `None` if it is too large.
pub(super) fn times(left: Decimal, right: Decimal) -> Option<Decimal> {
    // Both mantissas are at most 10^9.
    fitted(left.mantissa().checked_mul(right.mantissa())?, i32::from(left.exponent()) + i32::from(right.exponent()))
}

/// The sum, rounded to what a [`Decimal`] holds; `None` if it is too large.
pub(super) fn plus(left: Decimal, right: Decimal) -> Option<Decimal> {
    let lowest = left.exponent().min(right.exponent());
    let aligned = |number: Decimal| {
        let steps = u32::try_from(i32::from(number.exponent()) - i32::from(lowest)).ok()?;
        number.mantissa().checked_mul(10_i64.checked_pow(steps)?)
    };
    fitted(aligned(left)?.checked_add(aligned(right)?)?, i32::from(lowest))
}

/// Drops decimal places until the number fits, rounding half away from zero.
fn fitted(mut mantissa: i64, mut exponent: i32) -> Option<Decimal> {
    loop {
        if let Some(number) = i8::try_from(exponent).ok().and_then(|exponent| Decimal::new(mantissa, exponent)) {
            return Some(number);
        }
        if exponent >= 0 {
            return None;
        }
        mantissa = (mantissa / 10).checked_add((mantissa % 10) / 5)?;
        exponent += 1;
    }
}

/// Reads a text into `out`; false if there is none.
pub(super) fn read_text(text: &Text, input: &Input<'_>, out: &mut String) -> bool {
    out.clear();
    match &text.source {
        TextSource::Group(group) => out.push_str(input.group(*group).unwrap_or("").trim()),
        TextSource::Key(key) => out.push_str(input.key(key).unwrap_or("").trim()),
        TextSource::Ascii { at, length } => {
            let written = input.bytes(*at, *length).unwrap_or(&[]);
            let printable = written.iter().take_while(|byte| (0x20..0x7F).contains(*byte));
            out.extend(printable.map(|byte| char::from(*byte)));
            out.truncate(out.trim_end().len());
        }
        TextSource::Clock { at, length } => {
            // As the device says it, be it no date; `2025-11-24T19:18`.
            for (byte, before) in input.bytes(*at, *length).unwrap_or(&[]).iter().zip(["20", "-", "-", "T", ":", ":"]) {
                // Writing to a String does not fail.
                let _ = write!(out, "{before}{byte:02}");
            }
        }
        TextSource::Bcd { at, length } => {
            let written = input.bytes(*at, *length).unwrap_or(&[]);
            let digits = written.iter().flat_map(|byte| [byte >> 4, byte & 15]);
            out.extend(digits.map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('?')));
        }
    }
    !out.is_empty() && !text.invalid.contains(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_of_every_type_are_read() {
        let bytes = [0x01, 0xFE, 0xFF, 0x80, 0x12, 0x34];
        let cases = [
            (0, NumberKind::U8, 1, 1, 1),
            (1, NumberKind::I8, 1, 0xFE, -2),
            (0, NumberKind::U16le, 2, 0xFE01, 0xFE01),
            (0, NumberKind::U16be, 2, 0x01FE, 0x01FE),
            (1, NumberKind::I16le, 2, 0xFFFE, -2),
            (1, NumberKind::I16be, 2, 0xFEFF, -257),
            (0, NumberKind::U24le, 3, 0x00FF_FE01, 0x00FF_FE01),
            (0, NumberKind::U24be, 3, 0x0001_FEFF, 0x0001_FEFF),
            (0, NumberKind::U32le, 4, 0x80FF_FE01, 0x80FF_FE01),
            (0, NumberKind::I32le, 4, 0x80FF_FE01, 0x80FF_FE01 - (1 << 32)),
            (0, NumberKind::U32be, 4, 0x01FE_FF80, 0x01FE_FF80),
            (4, NumberKind::Bcd, 2, 1234, 1234),
        ];
        for (at, kind, width, bits, signed) in cases {
            let source = Source::Number { at, kind, bytes: width, mask: None };
            assert_eq!(extract(&source, &Input::Bytes(&bytes)), Raw::Integer { bits, signed }, "{kind:?}");
        }
        let short = Source::Number { at: 5, kind: NumberKind::U16le, bytes: 2, mask: None };
        assert_eq!(extract(&short, &Input::Bytes(&bytes)), Raw::Missing);
        let no_digits = Source::Number { at: 1, kind: NumberKind::Bcd, bytes: 1, mask: None };
        assert_eq!(extract(&no_digits, &Input::Bytes(&bytes)), Raw::Absent(Absent::Reserved));
    }

    #[test]
    fn bit_pieces_are_joined_most_significant_first() {
        let source = Source::Bits(vec![Piece { at: 0, bit: 0, width: 2 }, Piece { at: 1, bit: 0, width: 7 }]);
        assert_eq!(extract(&source, &Input::Bytes(&[1, 2])), integer(130));
        assert_eq!(extract(&source, &Input::Bytes(&[3, 127])), integer(511));
        assert_eq!(extract(&source, &Input::Bytes(&[3])), Raw::Missing);
    }

    #[test]
    fn sums_keep_the_decimal_places_of_their_parts() {
        let term = |at, scale| Term { at, kind: NumberKind::U8, scale: decimal(scale) };
        let source = Source::Sum(vec![term(0, "1"), term(1, "0.1")]);
        assert_eq!(extract(&source, &Input::Bytes(&[36, 8])), Raw::Decimal(decimal("36.8")));
        assert_eq!(extract(&source, &Input::Bytes(&[37, 0])), Raw::Decimal(decimal("37.0")));
    }

    #[test]
    fn a_text_without_digits_is_no_value_and_a_spoilt_one_is_reserved() {
        assert_eq!(from_text("097", 10), integer(97));
        assert_eq!(from_text("04.96", 10), Raw::Decimal(decimal("4.96")));
        assert_eq!(from_text("-02", 10), integer(-2));
        assert_eq!(from_text("+2", 10), integer(2));
        assert_eq!(from_text("000820", 16), integer(0x820));
        for none in ["---", "--.-", "+--", "", " "] {
            assert_eq!(from_text(none, 10), Raw::Absent(Absent::NotANumber), "{none}");
        }
        for spoilt in ["9x7", "1-2", "1..2"] {
            assert_eq!(from_text(spoilt, 10), Raw::Absent(Absent::Reserved), "{spoilt}");
        }
    }

    #[test]
    fn products_and_sums_are_rounded_to_what_fits() {
        assert_eq!(times(decimal("496"), decimal("0.01")), Some(decimal("4.96")));
        assert_eq!(times(decimal("1000000000"), decimal("1000000000")), None);
        assert_eq!(times(decimal("12.3456789"), decimal("1.00000001")).unwrap().to_string(), "12.3456790");
        assert_eq!(plus(decimal("2.5"), decimal("-17.78")), Some(decimal("-15.28")));
    }
}
