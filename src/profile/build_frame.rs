//! Checks `[frame]` and `[superframe]`.

use std::collections::BTreeMap;

use toml::Spanned;

use super::build::{Context, build_checksum};
use super::checksum::ChecksumKind;
use super::model::{
    Delimited, Escape, Escaped, Framing, InnerLines, Length, Packet, Predicate, Rule, Superframe, Unpack,
};
use super::schema::{EscapeDoc, FrameDoc, FrameKindDoc, LengthByDoc, PredicateDoc, SuperframeDoc};

/// No frame of any supported protocol is longer, in bytes on the line.
pub const MAX_FRAME: usize = 4096;
/// Good frames in a row that a profile may ask for.
const MAX_LOCK: usize = 20;
/// Slots of one superframe.
const MAX_SLOTS: usize = 256;
/// Longest notification (`ATT_MTU` 517 less its header).
const MAX_PAYLOAD: usize = 514;

/// How long the content of a frame can be.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) min: usize,
    pub(super) max: usize,
}

pub(super) fn framing(doc: Option<&Spanned<FrameDoc>>, is_gatt: bool, context: &mut Context<'_>) -> Option<Framing> {
    let Some(spanned) = doc else {
        if !is_gatt {
            context.problem(&(0..0), "a serial profile needs [frame]");
            return None;
        }
        context.extent = Extent { min: 1, max: MAX_PAYLOAD };
        return Some(Framing {
            rule: Rule::Payload { min: 1, sync: Vec::new() },
            checksum: None,
            lock: 1,
            max: MAX_PAYLOAD,
        });
    };
    let doc = spanned.get_ref();
    check_keys(doc, context);
    let checksum = doc.checksum.as_ref().map(|checksum| {
        if checksum.get_ref().kind == ChecksumKind::None {
            context.problem(&checksum.span(), "a frame without a checksum has no `checksum` at all");
        }
        build_checksum(checksum.get_ref())
    });
    let (rule, max) = match doc.kind.get_ref() {
        FrameKindDoc::Packet => packet(doc, spanned, context)?,
        FrameKindDoc::Delimited => delimited(doc, spanned, context)?,
        FrameKindDoc::Line => line(doc, spanned, context)?,
        FrameKindDoc::Payload => payload(doc, context),
    };
    if max > MAX_FRAME {
        context.problem(&spanned.span(), format!("a frame of {max} bytes is longer than {MAX_FRAME}"));
    }
    let is_packet = *doc.kind.get_ref() == FrameKindDoc::Packet;
    let lock = lock(doc, is_packet && checksum.is_none(), spanned, context);
    Some(Framing { rule, checksum, lock, max })
}

fn lock(doc: &FrameDoc, is_unchecked: bool, spanned: &Spanned<FrameDoc>, context: &mut Context<'_>) -> usize {
    match &doc.lock {
        Some(lock) if !(1..=MAX_LOCK).contains(lock.get_ref()) => {
            context.problem(&lock.span(), format!("lock {} must be 1 to {MAX_LOCK}", lock.get_ref()));
            1
        }
        Some(lock) if is_unchecked && *lock.get_ref() < 2 => {
            context.problem(&lock.span(), "packets without a checksum need lock = 2 or more");
            2
        }
        Some(lock) => *lock.get_ref(),
        None if is_unchecked => {
            let message = "packets without a checksum need `lock`, the good packets in a row before one counts";
            context.problem(&spanned.span(), message);
            2
        }
        None => 1,
    }
}

/// Keys that mean nothing for this kind are mistakes.
fn check_keys(doc: &FrameDoc, context: &mut Context<'_>) {
    use FrameKindDoc::{Delimited, Line, Packet, Payload};
    let kind = *doc.kind.get_ref();
    let given = [
        ("length", doc.length.as_ref().map(Spanned::span), &[Packet][..]),
        ("length_from", doc.length_from.as_ref().map(Spanned::span), &[Packet]),
        ("length_by", doc.length_by.as_ref().map(Spanned::span), &[Packet]),
        ("magic", doc.magic.as_ref().map(Spanned::span), &[Packet]),
        ("sync", doc.sync.first().map(Spanned::span), &[Packet, Payload]),
        ("rest", doc.rest.as_ref().map(Spanned::span), &[Packet]),
        ("unpack", doc.unpack.as_ref().map(Spanned::span), &[Packet]),
        ("start", doc.start.as_ref().map(Spanned::span), &[Delimited]),
        ("end", doc.end.as_ref().map(Spanned::span), &[Delimited, Line]),
        ("escape", doc.escape.as_ref().map(Spanned::span), &[Delimited]),
        ("opaque", doc.opaque.as_ref().map(Spanned::span), &[Delimited]),
        ("lines", doc.lines.as_ref().map(Spanned::span), &[Delimited]),
        ("min", doc.min.as_ref().map(Spanned::span), &[Delimited, Payload]),
        ("max", doc.max.as_ref().map(Spanned::span), &[Delimited, Line, Payload]),
    ];
    for (key, span, kinds) in given {
        if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
            context.problem(&span, format!("`{key}` means nothing in a frame of kind {kind:?}").to_lowercase());
        }
    }
}

pub(super) fn predicate(doc: &Spanned<PredicateDoc>, context: &mut Context<'_>) -> Predicate {
    let found = plain_predicate(doc.get_ref());
    if found.value & !found.mask != 0 {
        let message = format!("value 0x{:02X} has bits outside mask 0x{:02X}", found.value, found.mask);
        context.problem(&doc.span(), message);
    }
    found
}

fn plain_predicate(doc: &PredicateDoc) -> Predicate {
    Predicate { at: doc.at, mask: doc.mask.unwrap_or(0xFF), value: doc.value }
}

fn packet(doc: &FrameDoc, spanned: &Spanned<FrameDoc>, context: &mut Context<'_>) -> Option<(Rule, usize)> {
    let magic = doc.magic.as_ref().map(|magic| context.hex(magic)).unwrap_or_default();
    let mut sync: Vec<Predicate> =
        magic.iter().enumerate().map(|(at, value)| Predicate { at, mask: 0xFF, value: *value }).collect();
    for item in &doc.sync {
        sync.push(predicate(item, context));
    }
    sync.sort_by_key(|item| item.at);
    let (length, extent) = length(doc, spanned, context)?;
    context.extent = extent;
    if sync.is_empty() && doc.magic.is_none() && !matches!(length, Length::ByType { .. }) {
        context.problem(&spanned.span(), "a packet needs `magic`, `sync` or `length_by` to be found by");
    }
    for item in &doc.sync {
        if item.get_ref().at >= extent.min {
            context.problem(&item.span(), format!("byte {} is not in every packet", item.get_ref().at));
        }
    }
    let rest = doc.rest.as_ref().map(|rest| {
        let rest = rest.get_ref();
        Predicate { at: rest.from, mask: rest.mask, value: rest.value }
    });
    let unpack = doc.unpack.as_ref().map(|unpack| {
        let found = Unpack { high_bits_at: unpack.get_ref().high_bits_at, from: unpack.get_ref().from };
        // One byte carries the high bits of at most eight others.
        if found.high_bits_at >= found.from || extent.max > found.from.saturating_add(8) {
            let message = "unpack: the byte of high bits comes first and serves at most 8 bytes after it";
            context.problem(&unpack.span(), message);
        }
        found
    });
    Some((Rule::Packet(Packet { sync, length, rest, unpack }), extent.max))
}

fn length(doc: &FrameDoc, spanned: &Spanned<FrameDoc>, context: &mut Context<'_>) -> Option<(Length, Extent)> {
    match (&doc.length, &doc.length_from, &doc.length_by) {
        (Some(length), None, None) => {
            let length = *length.get_ref();
            Some((Length::Fixed(length), Extent { min: length, max: length }))
        }
        (None, Some(from), None) => {
            let (span, from) = (from.span(), from.get_ref());
            if from.min > from.max || from.min < from.at.saturating_add(from.kind.width()) || from.min == 0 {
                let message = format!("length_from: min {} must hold the length itself and be at most max", from.min);
                context.problem(&span, message);
            }
            let length = Length::Field { at: from.at, kind: from.kind, add: from.add, min: from.min, max: from.max };
            Some((length, Extent { min: from.min, max: from.max }))
        }
        (None, None, Some(by)) => length_by(by, context),
        _ => {
            context.problem(&spanned.span(), "a packet needs exactly one of `length`, `length_from`, `length_by`");
            None
        }
    }
}

fn length_by(by: &Spanned<LengthByDoc>, context: &mut Context<'_>) -> Option<(Length, Extent)> {
    let mut lengths = Box::new([0_u16; 256]);
    let mut extent = Extent { min: usize::MAX, max: 0 };
    for (key, length) in &by.get_ref().lengths {
        let slot = parse_byte(key).and_then(|byte| lengths.get_mut(usize::from(byte)));
        let (Some(slot), Ok(short), true) = (slot, u16::try_from(*length), *length > by.get_ref().at) else {
            context.problem(&by.span(), format!("length_by: `{key} = {length}` is not a type byte and its length"));
            continue;
        };
        *slot = short;
        extent = Extent { min: extent.min.min(*length), max: extent.max.max(*length) };
    }
    if extent.max == 0 {
        context.problem(&by.span(), "length_by has no lengths");
        return None;
    }
    Some((Length::ByType { at: by.get_ref().at, lengths }, extent))
}

/// A byte in decimal or `0x` hex.
pub(super) fn parse_byte(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn delimited(doc: &FrameDoc, spanned: &Spanned<FrameDoc>, context: &mut Context<'_>) -> Option<(Rule, usize)> {
    let start = doc.start.as_ref().map(|start| context.hex(start)).unwrap_or_default();
    let end = match &doc.end {
        Some(end) => match end.get_ref().as_slice() {
            [one] => context.hex(&Spanned::new(end.span(), one.clone())),
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let Some(max) = doc.max.as_ref().map(|max| *max.get_ref()) else {
        context.problem(&spanned.span(), "a delimited frame needs `max`, its longest form in bytes");
        return None;
    };
    if start.is_empty() || end.is_empty() {
        // Hex that cannot be read has been told at its own place.
        if doc.start.is_none() || doc.end.as_ref().is_none_or(|end| end.get_ref().as_slice().len() != 1) {
            context.problem(&spanned.span(), "a delimited frame needs `start` and one `end`, in hex");
        }
        context.extent = Extent { min: max, max };
        return None;
    }
    let min = doc.min.as_ref().map_or(1, |min| *min.get_ref());
    let opaque = doc.opaque.as_ref().map_or(0, |opaque| *opaque.get_ref());
    if min.max(opaque).saturating_add(start.len() + end.len()) > max {
        context.problem(&spanned.span(), format!("max {max} is too short for start, `opaque` or `min`, and end"));
    }
    let escape = doc.escape.as_ref().and_then(|escape| build_escape(escape, context));
    let lines = doc.lines.as_ref().map(|lines| InnerLines {
        from: lines.get_ref().from,
        until: lines.get_ref().until,
        end: line_ends(lines.get_ref().end.as_slice()),
    });
    let content_max = max.saturating_sub(start.len() + end.len());
    context.extent = Extent { min: min.max(opaque), max: content_max };
    Some((Rule::Delimited(Delimited { start, end, escape, opaque, min, lines }), max))
}

fn build_escape(doc: &Spanned<EscapeDoc>, context: &mut Context<'_>) -> Option<Escape> {
    let (span, doc) = (doc.span(), doc.get_ref());
    let escaped = match (doc.xor, doc.or, &doc.replace) {
        (Some(xor), None, None) => Escaped::Xor(xor),
        (None, Some(or), None) => Escaped::Or(or),
        (None, None, Some(pairs)) => {
            let mut table = BTreeMap::new();
            for (key, value) in pairs {
                match parse_byte(key) {
                    Some(byte) => {
                        table.insert(byte, *value);
                    }
                    None => context.problem(&span, format!("escape: `{key}` is not a byte such as 0x05")),
                }
            }
            Escaped::Replace(table)
        }
        _ => {
            context.problem(&span, "an escape needs exactly one of `xor`, `or`, `replace`");
            return None;
        }
    };
    Some(Escape { byte: doc.byte, escaped, abort: doc.abort })
}

/// Longest first, so that CR LF is not taken for CR and an empty line.
fn line_ends(texts: &[String]) -> Vec<Vec<u8>> {
    let mut ends: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    ends.sort_by_key(|end| std::cmp::Reverse(end.len()));
    ends
}

fn line(doc: &FrameDoc, spanned: &Spanned<FrameDoc>, context: &mut Context<'_>) -> Option<(Rule, usize)> {
    let (Some(end), Some(max)) = (&doc.end, &doc.max) else {
        context.problem(&spanned.span(), "a line needs `end`, its line ends, and `max`, its longest form in bytes");
        return None;
    };
    let ends = line_ends(end.get_ref().as_slice());
    if ends.is_empty() || ends.iter().any(Vec::is_empty) {
        context.problem(&end.span(), "a line end has at least one character");
        return None;
    }
    let max = *max.get_ref();
    context.extent = Extent { min: 1, max };
    Some((Rule::Line { end: ends }, max))
}

fn payload(doc: &FrameDoc, context: &mut Context<'_>) -> (Rule, usize) {
    let min = doc.min.as_ref().map_or(1, |min| *min.get_ref());
    let max = doc.max.as_ref().map_or(MAX_PAYLOAD, |max| *max.get_ref());
    let sync = doc.sync.iter().map(|item| predicate(item, context)).collect();
    context.extent = Extent { min, max };
    (Rule::Payload { min, sync }, max)
}

pub(super) fn superframe(doc: &Spanned<SuperframeDoc>, context: &mut Context<'_>) -> Option<Superframe> {
    let (span, doc) = (doc.span(), doc.get_ref());
    if !(2..=MAX_SLOTS).contains(&doc.frames) {
        context.problem(&span, format!("a superframe of {} frames must have 2 to {MAX_SLOTS}", doc.frames));
        return None;
    }
    if doc.slot_at >= context.extent.min || doc.first.at >= context.extent.min {
        context.problem(&span, "the superframe's bytes must be in every frame");
    }
    context.slots = doc.frames;
    Some(Superframe { frames: doc.frames, first: plain_predicate(&doc.first), slot_at: doc.slot_at })
}
