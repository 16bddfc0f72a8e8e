//! JSON text to CBOR (RFC 8949) and back, without losing a digit.
//!
//! Every member, name and order of the JSON is kept. A number with a decimal point is a decimal fraction (tag 4), because
//! 37.0 is not 37 and a binary float has no such digits. What we write begins with the tag 55799 of self-described CBOR
//! (RFC 8949, 3.4.6), which tells it from the other binary messages of a connection, the waves.

use std::borrow::Cow;
use std::fmt;

use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::server::message::MAX_JSON_DEPTH;

/// Self-described CBOR: the bytes D9 D9 F7.
const SELF_DESCRIBED: Tag = Tag::new(55_799);

/// A decimal fraction: [exponent, mantissa] (RFC 8949, 3.4.4).
const DECIMAL: Tag = Tag::new(4);

/// Deepest nesting that is written; what the server says is far from it.
const MAX_DEPTH: usize = 32;

/// The members of an object in their order, each as it is written.
pub(super) struct Members<'a>(pub(super) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((Cow::Owned(name), value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// The CBOR of a JSON text; `None` if it is none, or nested deeper than anything that this server says.
pub fn from_json(text: &str) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::with_capacity(text.len()));
    encoder.tag(SELF_DESCRIBED).ok()?;
    write(serde_json::from_str(text).ok()?, 0, &mut encoder)?;
    Some(encoder.into_writer())
}

fn write(raw: &RawValue, depth: usize, to: &mut Encoder<Vec<u8>>) -> Option<()> {
    let text = raw.get();
    match text.bytes().next()? {
        _ if depth > MAX_DEPTH => return None,
        b'{' => {
            let Members(members) = serde_json::from_str(text).ok()?;
            to.map(u64::try_from(members.len()).ok()?).ok()?;
            for (name, value) in members {
                to.str(&name).ok()?;
                write(value, depth + 1, to)?;
            }
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            to.array(u64::try_from(items.len()).ok()?).ok()?;
            for item in items {
                write(item, depth + 1, to)?;
            }
        }
        b'"' => {
            to.str(&serde_json::from_str::<String>(text).ok()?).ok()?;
        }
        b't' | b'f' => {
            to.bool(text == "true").ok()?;
        }
        b'n' => {
            to.null().ok()?;
        }
        _ => number(text, to)?,
    }
    Some(())
}

fn number(text: &str, to: &mut Encoder<Vec<u8>>) -> Option<()> {
    if let Ok(whole) = text.parse::<u64>() {
        to.u64(whole).ok()?;
    } else if let Ok(whole) = text.parse::<i64>() {
        to.i64(whole).ok()?;
    } else if let Some((exponent, mantissa)) = decimal(text) {
        to.tag(DECIMAL).ok()?.array(2).ok()?.i64(exponent).ok()?.i64(mantissa).ok()?;
    } else {
        to.f64(text.parse().ok()?).ok()?;
    }
    Some(())
}

/// The exponent and the mantissa of a number as it is written; `None` if it has more digits than 64 bits.
fn decimal(text: &str) -> Option<(i64, i64)> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    Some((exponent.checked_sub(places)?, format!("{whole}{fraction}").parse().ok()?))
}

/// The JSON text of a message in CBOR; `None` if it is no CBOR, has anything but text, numbers, lists, maps with names,
/// booleans and null, is nested too deeply, or is followed by something else.
pub fn to_json(bytes: &[u8]) -> Option<String> {
    let mut decoder = Decoder::new(bytes);
    let mut text = String::new();
    read(&mut decoder, 0, &mut text)?;
    (decoder.position() == bytes.len()).then_some(text)
}

fn read(from: &mut Decoder<'_>, depth: usize, to: &mut String) -> Option<()> {
    use fmt::Write as _;
    if depth > MAX_JSON_DEPTH {
        return None;
    }
    match from.datatype().ok()? {
        Type::Bool => to.push_str(if from.bool().ok()? { "true" } else { "false" }),
        Type::Null | Type::Undefined => {
            from.skip().ok()?;
            to.push_str("null");
        }
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => {
            let whole = i128::from(from.int().ok()?);
            write!(to, "{whole}").ok()?;
        }
        kind @ (Type::F16 | Type::F32 | Type::F64) => {
            let number = if kind == Type::F16 { half(from)? } else { from.f64().ok()? };
            number.is_finite().then_some(())?;
            write!(to, "{number}").ok()?;
        }
        Type::String | Type::StringIndef => text_of(from, to)?,
        Type::Array | Type::ArrayIndef => {
            let count = from.array().ok()?;
            to.push('[');
            each(from, count, to, |from, to| read(from, depth + 1, to))?;
            to.push(']');
        }
        Type::Map | Type::MapIndef => {
            let count = from.map().ok()?;
            to.push('{');
            each(from, count, to, |from, to| {
                text_of(from, to)?;
                to.push(':');
                read(from, depth + 1, to)
            })?;
            to.push('}');
        }
        Type::Tag => match from.tag().ok()? {
            SELF_DESCRIBED if depth == 0 => read(from, depth + 1, to)?,
            DECIMAL => {
                (from.array().ok()? == Some(2)).then_some(())?;
                let (exponent, mantissa) = (from.i16().ok()?, from.i64().ok()?);
                write!(to, "{mantissa}e{exponent}").ok()?;
            }
            _ => return None,
        },
        _ => return None,
    }
    Some(())
}

/// A float of 16 bits (RFC 8949, appendix D), as the shortest form of 86.5 is; the reader of items knows only longer ones.
fn half(from: &mut Decoder<'_>) -> Option<f64> {
    let at = from.position();
    let bits = from.input().get(at + 1..at + 3)?.try_into().map(u16::from_be_bytes).ok()?;
    from.set_position(at + 3);
    let (exponent, fraction) = (i32::from((bits >> 10) & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 => return None,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    Some(if bits >> 15 == 0 { size } else { -size })
}

/// Reads the items of a list or map, whose number may be known, with commas between them.
fn each(
    from: &mut Decoder<'_>,
    count: Option<u64>,
    to: &mut String,
    mut item: impl FnMut(&mut Decoder<'_>, &mut String) -> Option<()>,
) -> Option<()> {
    let mut taken = 0;
    loop {
        match count {
            Some(count) if taken == count => return Some(()),
            None if from.datatype().ok()? == Type::Break => return from.skip().ok(),
            _ => {}
        }
        if taken > 0 {
            to.push(',');
        }
        // Ends with the bytes at the latest, whatever number was claimed.
        item(from, to)?;
        taken += 1;
    }
}

fn text_of(from: &mut Decoder<'_>, to: &mut String) -> Option<()> {
    let text: String = match from.datatype().ok()? {
        Type::String => from.str().ok()?.to_owned(),
        Type::StringIndef => from.str_iter().ok()?.collect::<Result<_, _>>().ok()?,
        _ => return None,
    };
    to.push_str(&serde_json::to_string(&text).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn cbor_is_that_of_the_standard() {
        // RFC 8949, appendix A, behind the tag of self-described CBOR.
        for (json, cbor) in [
            ("0", "00"),
            ("23", "17"),
            ("24", "1818"),
            ("1000000", "1a000f4240"),
            ("18446744073709551615", "1bffffffffffffffff"),
            ("-1", "20"),
            ("-1000", "3903e7"),
            ("true", "f5"),
            ("null", "f6"),
            (r#""IETF""#, "6449455446"),
            (r#""\u6c34""#, "63e6b0b4"),
            ("[1, [2, 3]]", "8201820203"),
            (r#"{"a": 1, "b": [2, 3]}"#, "a26161016162820203"),
            // 3.4.4: 273.15 is 27315 * 10^-2.
            ("273.15", "c48221196ab3"),
            ("37.0", "c48220190172"),
            ("-0.5", "c4822024"),
        ] {
            assert_eq!(from_json(json).unwrap(), bytes(&format!("d9d9f7{cbor}")), "{json}");
        }
    }

    #[test]
    fn what_a_client_writes_in_cbor_is_read_as_its_json() {
        for (cbor, json) in [
            ("a1647479706564ff", None),
            ("a164747970656470696e67", Some(r#"{"type":"ping"}"#)),
            ("d9d9f7a164747970656470696e67", Some(r#"{"type":"ping"}"#)),
            ("bf64747970656470696e67ff", Some(r#"{"type":"ping"}"#)),
            ("9f018202039f0405ffff", Some("[1,[2,3],[4,5]]")),
            ("7f657374726561646d696e67ff", Some("\"streaming\"")),
            ("f93e00", Some("1.5")),
            ("f9c400", Some("-4")),
            ("f90001", Some("5.960464477539063e-8")),
            ("fb3ff199999999999a", Some("1.1")),
            ("c48221196ab3", Some("273.15")),
            ("f97e00", None),
            ("f97c00", None),
            ("f93e", None),
            ("a10102", None),
            ("4401020304", None),
            ("9bffffffffffffffff00", None),
            ("c48201c24100", None),
            ("d9d9f7d9d9f700", None),
            ("0000", None),
            ("", None),
            ("ff", None),
            ("7b7fffffffffffffff61", None),
        ] {
            let expected = json.map(|json| serde_json::from_str::<Json>(json).unwrap());
            let found = to_json(&bytes(cbor)).map(|text| serde_json::from_str::<Json>(&text).unwrap());
            assert_eq!(found, expected, "{cbor}");
        }
        assert_eq!(to_json(&vec![0x81; 100_000]), None, "nested too deeply");
    }

    #[test]
    fn rubbish_is_never_more_than_refused() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
            if let Some(text) = to_json(&bytes) {
                let is_json = serde_json::from_str::<Json>(&text);
                // A decimal fraction may be beyond what a float holds, and is refused as JSON.
                assert!(is_json.is_ok() || text.contains('e'), "seed {seed}: {bytes:x?}: {text}");
            }
        }
    }
}
