//! From the content of a frame to the bytes on the line: the sum, 7-bit packing, marks and escapes.

use super::Misfit;
use crate::profile::Profile;
use crate::profile::model::{Delimited, Escape, Escaped, Length, Packet, Rule, Unpack};

/// Puts the sum in and wraps the content; refuses what would not be found as a frame of these messages again.
pub(super) fn finish(profile: &Profile, messages: &[usize], mut content: Vec<u8>) -> Result<Vec<u8>, Misfit> {
    let framing = profile.framing();
    let is_packed = matches!(&framing.rule, Rule::Packet(Packet { unpack: Some(_), .. }));
    let mut line = if is_packed { pack(profile, &content) } else { Vec::new() };
    let summed = if is_packed { &mut line } else { &mut content };
    if let Some(checksum) = &framing.checksum
        && !checksum.write(summed)
    {
        return Err(Misfit::new("the frame is too short for its sum"));
    }
    let when = messages.iter().filter_map(|index| profile.messages().get(*index)).flat_map(|message| &message.when);
    if let Some(predicate) = when.into_iter().find(|predicate| !predicate.holds(&content)) {
        return Err(Misfit(format!("byte {} would make it another message", predicate.at)));
    }
    let line = match &framing.rule {
        Rule::Packet(rule) => {
            let line = if is_packed { line } else { content };
            check_packet(rule, &line)?;
            line
        }
        Rule::Delimited(rule) => delimit(rule, &content)?,
        Rule::Line { .. } | Rule::Payload { .. } => content,
    };
    if line.len() > framing.max {
        return Err(Misfit(format!("the frame has {} bytes, at most {}", line.len(), framing.max)));
    }
    Ok(line)
}

/// A line with its end.
pub(super) fn end_line(profile: &Profile, text: String) -> Vec<u8> {
    let mut line = text.into_bytes();
    if let Rule::Line { end } = &profile.framing().rule {
        line.extend(end.first().into_iter().flatten());
    }
    line
}

/// The bits of byte `at` that framing leaves to the content, as the highest number they hold.
pub(super) fn free_bits(profile: &Profile, at: usize) -> i32 {
    match &profile.framing().rule {
        Rule::Packet(Packet { rest: Some(rest), unpack: None, .. }) if at >= rest.at => i32::from(!rest.mask),
        _ => i32::MAX,
    }
}

/// Bit 7 of the bytes from `from` on goes into the byte for it, and the marks of the framing take its place.
fn pack(profile: &Profile, content: &[u8]) -> Vec<u8> {
    let Rule::Packet(Packet { rest, unpack: Some(Unpack { high_bits_at, from }), .. }) = &profile.framing().rule else {
        return content.to_vec();
    };
    let mark = |at: usize, byte: u8| match rest {
        Some(rest) if at >= rest.at => (byte & !rest.mask) | rest.value,
        _ => byte,
    };
    let mut high_bits = content.get(*high_bits_at).copied().unwrap_or(0);
    let mut packed: Vec<u8> = content.to_vec();
    for (bit, byte) in packed.iter_mut().skip(*from).take(8).enumerate() {
        high_bits = (high_bits & !(1 << bit)) | (*byte >> 7) << bit;
        *byte &= 0x7F;
    }
    if let Some(byte) = packed.get_mut(*high_bits_at) {
        *byte = high_bits;
    }
    packed.iter().enumerate().map(|(at, byte)| mark(at, *byte)).collect()
}

fn check_packet(rule: &Packet, line: &[u8]) -> Result<(), Misfit> {
    if let Some(predicate) = rule.sync.iter().find(|predicate| !predicate.holds(line)) {
        return Err(Misfit(format!("byte {} would break the framing", predicate.at)));
    }
    if let Some(rest) = &rule.rest
        && let Some(place) = line.iter().skip(rest.at).position(|byte| !rest.fits(*byte))
    {
        return Err(Misfit(format!("byte {} would break the framing", rest.at + place)));
    }
    let is_long = match &rule.length {
        Length::Fixed(length) => *length == line.len(),
        // It stands in the pattern, and no field is where it is.
        Length::Field { .. } => true,
        Length::ByType { at, lengths } => {
            let kind = line.get(*at).copied().unwrap_or(0);
            lengths.get(usize::from(kind)).is_some_and(|length| usize::from(*length) == line.len())
        }
    };
    if is_long { Ok(()) } else { Err(Misfit::new("its length would break the framing")) }
}

fn delimit(rule: &Delimited, content: &[u8]) -> Result<Vec<u8>, Misfit> {
    if content.len() < rule.min {
        return Err(Misfit::new("it is too short for the framing"));
    }
    let mut line = rule.start.clone();
    for (at, byte) in content.iter().enumerate() {
        let rest = content.get(at..).unwrap_or(&[]);
        let is_mark = at >= rule.opaque && (rest.starts_with(&rule.end) || rest.starts_with(&rule.start));
        match &rule.escape {
            Some(escape) if is_mark || *byte == escape.byte => {
                let escaped = escape_byte(escape, *byte)
                    .ok_or_else(|| Misfit(format!("the byte {byte:#04X} cannot be escaped")))?;
                line.extend([escape.byte, escaped]);
            }
            None if is_mark => return Err(Misfit(format!("byte {at} would end or begin the frame"))),
            _ => line.push(*byte),
        }
    }
    line.extend(&rule.end);
    Ok(line)
}

/// The byte that stands for `byte` after the escape; `None`: there is none.
fn escape_byte(escape: &Escape, byte: u8) -> Option<u8> {
    let escaped = match &escape.escaped {
        Escaped::Xor(mask) => byte ^ mask,
        Escaped::Or(mask) => {
            if byte & mask != *mask {
                return None;
            }
            byte & !mask
        }
        Escaped::Replace(table) => *table.iter().find(|(_, plain)| **plain == byte)?.0,
    };
    (escape.abort != Some(escaped)).then_some(escaped)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn marks_and_escapes_inside_are_escaped() {
        let rule = |escaped, abort| Delimited {
            start: vec![0x7E],
            end: vec![0x7E],
            escape: Some(Escape { byte: 0x7D, escaped, abort }),
            opaque: 0,
            min: 1,
            lines: None,
        };
        for (escaped, expected) in [
            (Escaped::Xor(0x20), vec![0x7E, 1, 0x7D, 0x5E, 0x7D, 0x5D, 0x7E]),
            (Escaped::Or(0x20), vec![0x7E, 1, 0x7D, 0x5E, 0x7D, 0x5D, 0x7E]),
            (Escaped::Replace(BTreeMap::from([(1, 0x7E), (2, 0x7D)])), vec![0x7E, 1, 0x7D, 1, 0x7D, 2, 0x7E]),
        ] {
            assert_eq!(delimit(&rule(escaped, None), &[1, 0x7E, 0x7D]).unwrap(), expected);
        }
        assert!(delimit(&rule(Escaped::Xor(0x20), Some(0x5E)), &[0x7E]).is_err());
        assert!(delimit(&rule(Escaped::Replace(BTreeMap::new()), None), &[0x7E]).is_err());
        assert!(delimit(&Delimited { escape: None, ..rule(Escaped::Or(0), None) }, &[1, 0x7E]).is_err());
    }
}
