//! Warns of bits that two parts of one message read: mostly a mask that was forgotten, sometimes meant.

use std::collections::BTreeMap;
use std::ops::Range;

use super::build::Context;
use super::build_message::{bits_of, first_bit};
use super::model::{Message, Predicate, Source, Test, Text, TextSource, Wave};
use super::schema::MessageDoc;

/// A byte, slot, key or group, and a bit of it.
type Bit = (String, usize);

/// Something in a message that reads bits.
struct Claim {
    /// What it is called in a warning.
    name: String,
    span: Range<usize>,
    bits: Vec<Bit>,
    /// For a status: where, mask and value. Statuses may be the values of one number.
    test: Option<(String, u32, u32)>,
    is_field: bool,
}

/// Adds a warning for each pair of claims with a bit in common, at the later one. Two vitals are no warning but a
/// problem, which has been found before.
pub(super) fn warn(doc: &MessageDoc, message: &Message, context: &mut Context<'_>) {
    let claims = claims(doc, message);
    let mut readers: BTreeMap<&Bit, Vec<usize>> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        for bit in &claim.bits {
            readers.entry(bit).or_default().push(index);
        }
    }
    let mut told: Vec<(usize, usize)> = Vec::new();
    for (bit, readers) in readers {
        for (place, later) in readers.iter().enumerate() {
            for earlier in readers.iter().take(place) {
                let (Some(first), Some(second)) = (claims.get(*earlier), claims.get(*later)) else { continue };
                if told.contains(&(*earlier, *later)) || !is_odd(first, second) {
                    continue;
                }
                told.push((*earlier, *later));
                let (place, number) = bit;
                let text = format!("{} reads bit {number} of {place}, as {} does", second.name, first.name);
                context.warning(&second.span, text);
            }
        }
    }
}

fn is_odd(first: &Claim, second: &Claim) -> bool {
    let of_frame = |claim: &Claim| claim.bits.first().is_some_and(|(place, _)| place.starts_with("byte"));
    if first.is_field && second.is_field {
        return !of_frame(first);
    }
    match (&first.test, &second.test) {
        (Some((place, mask, value)), Some((other_place, other_mask, other_value))) => {
            !(place == other_place && mask == other_mask && value != other_value)
        }
        _ => true,
    }
}

fn claims(doc: &MessageDoc, message: &Message) -> Vec<Claim> {
    let mut claims = Vec::new();
    let flags = message.flags.iter().filter_map(|flag| Some((flag, doc.status.get(&flag.name)?)));
    for (flag, spanned) in flags {
        claims.push(tested(format!("status `{}`", flag.name), spanned.span(), &flag.test));
    }
    if let (Some(test), Some(spanned)) = (&message.historic, &doc.historic) {
        claims.push(tested("`historic`".to_owned(), spanned.span(), test));
    }
    for state in &message.states {
        let spanned = doc.state.iter().find(|spanned| *spanned.get_ref().name.get_ref() == state.name);
        let span = spanned.map_or(0..0, toml::Spanned::span);
        claims.push(plain(format!("state `{}`", state.name), span, bits_from(&state.source)));
    }
    // A message with a broken field has other problems than warnings.
    if message.fields.len() == doc.field.len() {
        for (field, spanned) in message.fields.iter().zip(&doc.field) {
            let claim = plain(format!("the field {}", field.metric), spanned.span(), bits_from(&field.source));
            claims.push(Claim { is_field: true, ..claim });
        }
    }
    if message.waves.len() == doc.wave.len() {
        for (wave, spanned) in message.waves.iter().zip(&doc.wave) {
            let name = wave.names.first().map_or("", |(name, _)| name);
            claims.push(plain(format!("the wave {name}"), spanned.span(), wave_bits(wave)));
        }
    }
    for (name, text, spanned) in [
        ("serial_number", &message.serial_number, &doc.serial_number),
        ("device_time", &message.device_time, &doc.device_time),
    ] {
        if let (Some(text), Some(spanned)) = (text, spanned) {
            claims.push(plain(format!("`{name}`"), spanned.span(), text_bits(text)));
        }
    }
    claims
}

const fn plain(name: String, span: Range<usize>, bits: Vec<Bit>) -> Claim {
    Claim { name, span, bits, test: None, is_field: false }
}

fn tested(name: String, span: Range<usize>, test: &Test) -> Claim {
    let (place, mask, value) = match test {
        Test::Byte(Predicate { at, mask, value }) => (format!("byte {at}"), u32::from(*mask), u32::from(*value)),
        Test::Number { source, mask, value } => (place_of(source), *mask, *value),
        Test::Word { group, word } => (format!("the word {word} of group {group}"), 1, 1),
        // It asks whether there is anything, not what.
        Test::Present { .. } => (String::new(), 0, 0),
    };
    let bits = (0..32).filter(|bit| mask >> bit & 1 == 1).map(|bit| (place.clone(), bit)).collect();
    Claim { test: Some((place, mask, value)), ..plain(name, span, bits) }
}

fn place_of(source: &Source) -> String {
    match source {
        Source::Key { key, .. } => format!("the key {key}"),
        Source::Group { group, .. } => format!("group {group}"),
        Source::Number { at, .. } => format!("byte {at}"),
        Source::Bits(_) | Source::Sum(_) => String::new(),
    }
}

fn byte_bit(bit: usize) -> Bit {
    (format!("byte {}", bit / 8), bit % 8)
}

fn bits_in(at: usize, length: usize) -> Range<usize> {
    first_bit(at)..first_bit(at.saturating_add(length))
}

fn bits_from(source: &Source) -> Vec<Bit> {
    match source {
        Source::Key { .. } | Source::Group { .. } => (0..32).map(|bit| (place_of(source), bit)).collect(),
        _ => bits_of(source).into_iter().map(byte_bit).collect(),
    }
}

fn wave_bits(wave: &Wave) -> Vec<Bit> {
    let width = wave.kind.width();
    let mask = wave.mask.filter(|_| width == 1).unwrap_or(u32::MAX);
    let length = width.saturating_mul(wave.count).saturating_mul(wave.names.len());
    bits_in(wave.at, length).filter(|bit| mask >> (bit % 8) & 1 == 1).map(byte_bit).collect()
}

fn text_bits(text: &Text) -> Vec<Bit> {
    match &text.source {
        TextSource::Ascii { at, length } | TextSource::Bcd { at, length } | TextSource::Clock { at, length } => {
            bits_in(*at, *length).map(byte_bit).collect()
        }
        // A text of a line may well be shown and read.
        TextSource::Group(_) | TextSource::Key(_) => Vec::new(),
    }
}
