//! Checks `[[message]]`: predicates, patterns, flags, states, fields and waves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use regex::Regex;
use toml::Spanned;

use super::WaveInfo;
use super::build::Context;
use super::build_frame::predicate;
use super::model::{
    Field, Flag, Framing, Happening, Message, NumberKind, On, Only, Pairs, Piece, Predicate, Rule, Source, State,
    StateValue, Term, Test, Text, TextSource, Unless, Wave,
};
use super::schema::{FieldDoc, MessageDoc, OnDoc, OneOrMany, SourceDoc, StateDoc, StatusDoc, TextDoc, WaveDoc};
use crate::vitals::{Absent, Decimal, Metric};

/// Messages of one profile.
const MAX_MESSAGES: usize = 64;
/// Size to which a pattern may compile, in bytes; patterns of a line need a small part of it.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What the parts of one message may refer to.
struct Scope<'m> {
    on: On,
    pattern: Option<&'m Regex>,
    has_pairs: bool,
    /// Bytes (or slots) that the message can have.
    length: usize,
}

pub(super) fn messages(
    docs: &[Spanned<MessageDoc>],
    has_superframe: bool,
    framing: Option<&Framing>,
    context: &mut Context<'_>,
) -> Vec<Message> {
    if docs.is_empty() || docs.len() > MAX_MESSAGES {
        context.problem(&(0..0), format!("a profile needs 1 to {MAX_MESSAGES} [[message]]"));
    }
    let names = |doc: &Spanned<MessageDoc>| doc.get_ref().id.get_ref().clone();
    for (index, doc) in docs.iter().enumerate() {
        if docs.iter().take(index).any(|earlier| names(earlier) == names(doc)) {
            context.problem(&doc.get_ref().id.span(), format!("message `{}` is there twice", names(doc)));
        }
    }
    // Gates may refer to flags and states of any message: these come first.
    let mut messages: Vec<(On, Message)> = Vec::new();
    for doc in docs {
        let message = head(doc, has_superframe, framing, context);
        messages.push((message.on, message));
    }
    docs.iter().zip(messages).map(|(doc, (on, message))| body(doc.get_ref(), on, message, context)).collect()
}

fn scope<'m>(on: On, message: &'m Message, context: &Context<'_>) -> Scope<'m> {
    let length = match on {
        On::Frame => context.extent.max,
        On::Superframe => context.slots,
        On::Line => 0,
    };
    Scope { on, pattern: message.pattern.as_ref(), has_pairs: message.pairs.is_some(), length }
}

fn head(
    spanned: &Spanned<MessageDoc>,
    has_superframe: bool,
    framing: Option<&Framing>,
    context: &mut Context<'_>,
) -> Message {
    let doc = spanned.get_ref();
    let on = what_it_is_read_from(doc, has_superframe, framing, spanned, context);
    let pattern = doc.pattern.as_ref().and_then(|text| pattern(text, context));
    if (on == On::Line) != doc.pattern.is_some() {
        context.problem(&spanned.span(), "a message on lines, and no other, needs `match`");
    }
    if on != On::Frame && !doc.when.is_empty() {
        context.problem(&spanned.span(), "`when` is for messages on frames");
    }
    let mut message = Message {
        id: doc.id.get_ref().clone(),
        on,
        when: doc.when.iter().map(|item| predicate(item, context)).collect(),
        pattern,
        pairs: doc.pairs.as_ref().map(|pairs| Pairs {
            separator: pairs.sep.clone(),
            assign: pairs.assign.clone(),
            strip: pairs.strip.clone(),
        }),
        spot: doc.spot,
        historic: None,
        event: doc.event.as_ref().map(happening),
        serial_number: None,
        device_time: None,
        flags: Vec::new(),
        states: Vec::new(),
        fields: Vec::new(),
        waves: Vec::new(),
    };
    let scope = scope(on, &message, context);
    let flags = doc.status.iter().map(|(name, flag)| build_flag(name, flag, &scope, context)).collect();
    let states = doc.state.iter().filter_map(|state| build_state(state, &scope, context)).collect();
    let test = |doc: &Spanned<StatusDoc>| flag_test(doc.get_ref(), &scope, &doc.span(), context);
    let historic = doc.historic.as_ref().and_then(test);
    (message.flags, message.states, message.historic) = (flags, states, historic);
    message
}

fn body(doc: &MessageDoc, on: On, mut message: Message, context: &mut Context<'_>) -> Message {
    let scope = scope(on, &message, context);
    let fields: Vec<Field> = doc.field.iter().filter_map(|field| build_field(field, &scope, context)).collect();
    let waves = doc.wave.iter().filter_map(|wave| build_wave(wave, &scope, context)).collect();
    let serial_number = doc.serial_number.as_ref().and_then(|text| build_text(text, &scope, context));
    let device_time = doc.device_time.as_ref().and_then(|text| build_text(text, &scope, context));
    check_doubles(doc, &fields, context);
    (message.fields, message.waves) = (fields, waves);
    (message.serial_number, message.device_time) = (serial_number, device_time);
    message
}

/// One metric (or part of a pressure) once a message, and no bit in two metrics.
fn check_doubles(doc: &MessageDoc, fields: &[Field], context: &mut Context<'_>) {
    for (index, field) in fields.iter().enumerate() {
        let Some(span) = doc.field.get(index).map(Spanned::span) else { continue };
        for earlier in fields.iter().take(index) {
            if (earlier.metric, earlier.part, earlier.mdc) == (field.metric, field.part, field.mdc) {
                context.problem(&span, format!("{} is there twice in this message", field.metric));
            } else if bits_of(&earlier.source).iter().any(|bit| bits_of(&field.source).contains(bit)) {
                let message = format!("{} overlaps the bits of {}", field.metric, earlier.metric);
                context.problem(&span, message);
            }
        }
    }
}

/// The bits of a frame that a number is made of, as `byte * 8 + bit`.
fn bits_of(source: &Source) -> Vec<usize> {
    match source {
        Source::Number { at, kind, bytes, mask } => {
            let width = if *kind == NumberKind::Bcd { *bytes } else { kind.width() };
            let one_byte_mask = mask.filter(|_| width == 1).unwrap_or(u32::MAX);
            let inside = |bit: &usize| u32::try_from(*bit).is_ok_and(|bit| bit > 31 || one_byte_mask >> bit & 1 == 1);
            (0..width * 8).filter(inside).map(|bit| at * 8 + bit).collect()
        }
        Source::Bits(pieces) => pieces.iter().flat_map(piece_bits).collect(),
        Source::Sum(terms) => {
            terms.iter().flat_map(|term| (0..term.kind.width() * 8).map(|bit| term.at * 8 + bit)).collect()
        }
        Source::Key { .. } | Source::Group { .. } => Vec::new(),
    }
}

fn piece_bits(piece: &Piece) -> impl Iterator<Item = usize> + use<> {
    let first = piece.at * 8 + usize::try_from(piece.bit).unwrap_or(0);
    first..first + usize::try_from(piece.width).unwrap_or(0)
}

fn what_it_is_read_from(
    doc: &MessageDoc,
    has_superframe: bool,
    framing: Option<&Framing>,
    spanned: &Spanned<MessageDoc>,
    context: &mut Context<'_>,
) -> On {
    let (frames_are_lines, has_lines) = match framing.map(|framing| &framing.rule) {
        Some(Rule::Line { .. }) => (true, true),
        Some(Rule::Delimited(delimited)) => (false, delimited.lines.is_some()),
        _ => (false, false),
    };
    let default = if frames_are_lines { OnDoc::Line } else { OnDoc::Frame };
    let on = doc.on.as_ref().map_or(default, |on| *on.get_ref());
    let fits = match on {
        OnDoc::Frame => !frames_are_lines,
        OnDoc::Superframe => has_superframe,
        OnDoc::Line => has_lines,
    };
    if !fits && framing.is_some() {
        context.problem(&spanned.span(), format!("this profile has no {on:?} to read a message from").to_lowercase());
    }
    match on {
        OnDoc::Frame => On::Frame,
        OnDoc::Superframe => On::Superframe,
        OnDoc::Line => On::Line,
    }
}

fn pattern(text: &Spanned<String>, context: &mut Context<'_>) -> Option<Regex> {
    if !text.get_ref().starts_with('^') {
        context.problem(&text.span(), "a pattern begins with ^, so that it fits a line from its start");
    }
    match regex::RegexBuilder::new(text.get_ref()).size_limit(MAX_PATTERN_BYTES).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let reason = error.to_string().lines().last().unwrap_or("").to_owned();
            context.problem(&text.span(), format!("the pattern cannot be read: {reason}"));
            None
        }
    }
}

fn happening(name: &Spanned<String>) -> Happening {
    match name.get_ref().as_str() {
        "beat" => Happening::Beat,
        other => Happening::Named(Arc::from(other)),
    }
}

fn group(name: &str, scope: &Scope<'_>, span: &Range<usize>, context: &mut Context<'_>) -> Option<usize> {
    let found = scope.pattern?.capture_names().position(|group| group == Some(name));
    if found.is_none() {
        context.problem(span, format!("the pattern of this message has no group `{name}`"));
    }
    found
}

fn source(doc: &SourceDoc, scope: &Scope<'_>, span: &Range<usize>, context: &mut Context<'_>) -> Option<Source> {
    let ways = [doc.at.is_some(), !doc.bits.is_empty(), !doc.sum.is_empty(), doc.key.is_some(), doc.group.is_some()];
    if ways.iter().filter(|way| **way).count() != 1 {
        context.problem(span, "exactly one of `at`, `bits`, `sum`, `key`, `group` says where the number is");
        return None;
    }
    let is_text = doc.key.is_some() || doc.group.is_some();
    if is_text != (scope.on == On::Line) {
        context.problem(span, "`key` and `group` are for lines, `at`, `bits` and `sum` for frames");
        return None;
    }
    if (doc.mask.is_some() || doc.kind.is_some()) && doc.at.is_none() {
        context.problem(span, "`type` and `mask` belong to `at`");
    }
    let radix = doc.radix.unwrap_or(10);
    if !matches!(radix, 2 | 8 | 10 | 16) || (doc.radix.is_some() && !is_text) {
        context.problem(span, "radix is 2, 8, 10 or 16, and only for text");
    }
    if let Some(key) = &doc.key {
        if !scope.has_pairs {
            context.problem(span, "`key` needs `pairs` in this message");
        }
        return Some(Source::Key { key: key.clone(), radix });
    }
    if let Some(name) = &doc.group {
        return Some(Source::Group { group: group(name, scope, span, context)?, radix });
    }
    if let Some(at) = doc.at {
        return number(doc, at, scope, span, context);
    }
    if !doc.bits.is_empty() {
        return bits(doc, scope, span, context);
    }
    let mut terms = Vec::new();
    for term in &doc.sum {
        inside(term.at, term.kind.width(), scope, span, context);
        terms.push(Term { at: term.at, kind: term.kind, scale: term.scale.unwrap_or(Decimal::integer(1)) });
    }
    if terms.iter().any(|term| matches!(term.kind, NumberKind::Bcd | NumberKind::Sfloat | NumberKind::Float)) {
        context.problem(span, "a sum is made of integers");
    }
    Some(Source::Sum(terms))
}

fn number(
    doc: &SourceDoc,
    at: usize,
    scope: &Scope<'_>,
    span: &Range<usize>,
    context: &mut Context<'_>,
) -> Option<Source> {
    let kind = doc.kind.unwrap_or_default();
    let is_bcd = kind == NumberKind::Bcd;
    let bytes = doc.bytes.unwrap_or_else(|| kind.width());
    if (doc.bytes.is_some() && !is_bcd) || !(1..=4).contains(&bytes) {
        context.problem(span, "`bytes` is for BCD, 1 to 4");
        return None;
    }
    inside(at, bytes, scope, span, context);
    let widest = u32::MAX.checked_shr(32_u32.saturating_sub(u32::try_from(bytes * 8).unwrap_or(32))).unwrap_or(0);
    if doc.mask.is_some_and(|mask| mask == 0 || mask & !widest != 0) {
        context.problem(span, format!("the mask must have bits, and only within {bytes} bytes"));
    }
    Some(Source::Number { at, kind, bytes, mask: doc.mask })
}

fn bits(doc: &SourceDoc, scope: &Scope<'_>, span: &Range<usize>, context: &mut Context<'_>) -> Option<Source> {
    let pieces: Vec<Piece> =
        doc.bits.iter().map(|piece| Piece { at: piece.at, bit: piece.bit, width: piece.width }).collect();
    for piece in &pieces {
        inside(piece.at, 1, scope, span, context);
        if piece.width == 0 || piece.bit > 7 || piece.width > 8 - piece.bit {
            context.problem(span, format!("bits {} of byte {} do not lie in one byte", piece.bit, piece.at));
            return None;
        }
    }
    if pieces.iter().map(|piece| piece.width).sum::<u32>() > 32 {
        context.problem(span, "a number has at most 32 bits");
        return None;
    }
    let mut seen = Vec::new();
    for bit in pieces.iter().flat_map(piece_bits) {
        if seen.contains(&bit) {
            context.problem(span, format!("bit {} of byte {} is used twice", bit % 8, bit / 8));
        }
        seen.push(bit);
    }
    Some(Source::Bits(pieces))
}

fn inside(at: usize, width: usize, scope: &Scope<'_>, span: &Range<usize>, context: &mut Context<'_>) {
    if at.saturating_add(width) > scope.length {
        let (what, length) = (if scope.on == On::Superframe { "slots" } else { "bytes" }, scope.length);
        context.problem(span, format!("place {at} with {width} is outside the {length} {what} of the message"));
    }
}

fn build_text(doc: &Spanned<TextDoc>, scope: &Scope<'_>, context: &mut Context<'_>) -> Option<Text> {
    let (span, doc) = (doc.span(), doc.get_ref());
    let source = match (&doc.group, &doc.key, doc.at, doc.length) {
        (Some(name), None, None, None) => TextSource::Group(group(name, scope, &span, context)?),
        (None, Some(key), None, None) if scope.has_pairs => TextSource::Key(key.clone()),
        (None, None, Some(at), Some(length)) => {
            inside(at, length, scope, &span, context);
            if doc.bcd { TextSource::Bcd { at, length } } else { TextSource::Ascii { at, length } }
        }
        _ => {
            context.problem(&span, "a text needs `group`, or `key` (with `pairs`), or `at` and `length`");
            return None;
        }
    };
    Some(Text { source, invalid: doc.invalid.clone() })
}

fn build_flag(name: &str, spanned: &Spanned<StatusDoc>, scope: &Scope<'_>, context: &mut Context<'_>) -> Flag {
    let (span, doc) = (spanned.span(), spanned.get_ref());
    let maps = doc.maps.as_ref().and_then(|maps| context.status(&maps.span(), maps.get_ref()));
    if doc.maps.is_none() && doc.event.is_none() {
        context.problem(&span, format!("status `{name}` needs `maps` or `event`"));
    }
    if context.flags.iter().any(|(earlier, _)| earlier == name) {
        context.problem(&span, format!("status `{name}` is there twice in this profile"));
    }
    if doc.latch.is_some() && (scope.on != On::Frame || context.slots == 0) {
        context.problem(&span, "`latch` needs a message on frames and a [superframe]");
    }
    let index = context.flags.len();
    context.flags.push((name.to_owned(), maps));
    let nothing = Test::Byte(Predicate { at: usize::MAX, mask: 0, value: 0 });
    Flag {
        name: name.to_owned(),
        index,
        test: flag_test(doc, scope, &span, context).unwrap_or(nothing),
        maps,
        event: doc.event.as_ref().map(happening),
        latched: doc.latch.is_some(),
    }
}

fn flag_test(doc: &StatusDoc, scope: &Scope<'_>, span: &Range<usize>, context: &mut Context<'_>) -> Option<Test> {
    if let (Some(name), Some(word)) = (&doc.group, &doc.word) {
        return Some(Test::Word { group: group(name, scope, span, context)?, word: word.clone() });
    }
    if let (Some(name), None, None, None) = (&doc.group, doc.bit, doc.mask, &doc.word) {
        return Some(Test::Present { group: group(name, scope, span, context)? });
    }
    let (mask, value) = match (doc.bit, doc.mask, doc.value) {
        (Some(bit @ 0..=31), None, None) => (1 << bit, 1 << bit),
        (Some(bit @ 0..=31), None, Some(value @ 0..=1)) => (1 << bit, value << bit),
        (None, Some(mask), Some(value)) if mask != 0 && value & !mask == 0 => (mask, value),
        (None, Some(mask), None) if mask != 0 => (mask, mask),
        _ => {
            context.problem(span, "a status needs `bit`, or `mask` and a `value` inside it, or a `word` of a group");
            return None;
        }
    };
    if let (Some(at), Ok(byte_mask), Ok(byte_value)) = (doc.at, u8::try_from(mask), u8::try_from(value)) {
        inside(at, 1, scope, span, context);
        if scope.on == On::Line {
            context.problem(span, "`at` is for frames");
        }
        return Some(Test::Byte(Predicate { at, mask: byte_mask, value: byte_value }));
    }
    let number = SourceDoc { key: doc.key.clone(), group: doc.group.clone(), radix: doc.radix, ..SourceDoc::default() };
    if doc.at.is_some() {
        context.problem(span, "a status bit of a frame is in one byte");
        return None;
    }
    Some(Test::Number { source: source(&number, scope, span, context)?, mask, value })
}

fn build_state(spanned: &Spanned<StateDoc>, scope: &Scope<'_>, context: &mut Context<'_>) -> Option<State> {
    let (span, doc) = (spanned.span(), spanned.get_ref());
    let name = doc.name.get_ref().clone();
    if context.states.iter().any(|(earlier, _)| *earlier == name) {
        context.problem(&doc.name.span(), format!("state `{name}` is there twice in this profile"));
    }
    let source = source(&doc.source(), scope, &span, context);
    let values = state_values(doc, &span, context);
    for used in doc.maps.keys().chain(doc.reason.keys()).chain(&doc.quiet) {
        if !values.iter().any(|value| value.name == *used) {
            context.problem(&span, format!("state `{name}` has no value `{used}`"));
        }
    }
    let index = context.states.len();
    context.states.push((name.clone(), values.clone()));
    Some(State { name, index, source: source?, values })
}

fn state_values(doc: &StateDoc, span: &Range<usize>, context: &mut Context<'_>) -> Vec<StateValue> {
    let mut numbered: Vec<(Option<i64>, &String)> = Vec::new();
    for (key, value) in &doc.values {
        let number = key.strip_prefix("0x").map_or_else(|| key.parse().ok(), |hex| i64::from_str_radix(hex, 16).ok());
        match number {
            Some(number) => numbered.push((Some(number), value)),
            None => context.problem(span, format!("state value `{key}` is not a number")),
        }
    }
    // It comes last, so that it is found only where no number fits.
    numbered.extend(doc.other.as_ref().map(|name| (None, name)));
    let mut values = Vec::new();
    for (number, name) in numbered {
        let maps = doc.maps.get(name).and_then(|status| context.status(span, status));
        let reason = doc.reason.get(name).and_then(|reason| absent(reason, span, context));
        values.push(StateValue { number, name: name.clone(), maps, reason, quiet: doc.quiet.contains(name) });
    }
    values
}

pub(super) fn absent(name: &str, span: &Range<usize>, context: &mut Context<'_>) -> Option<Absent> {
    let reason = Absent::from_name(name);
    if reason.is_none() {
        let known = super::build::nearest(name, Absent::ALL.iter().map(|reason| reason.name()));
        context.problem(span, format!("`{name}` is not a reason of absence; the nearest is `{known}`"));
    }
    reason
}

fn metric(doc: &FieldDoc, context: &mut Context<'_>) -> Option<Metric> {
    let name = doc.metric.get_ref();
    let Some(metric) = Metric::from_name(name) else {
        let known = super::build::nearest(name, Metric::ALL.iter().map(|metric| metric.name()));
        context.problem(&doc.metric.span(), format!("`{name}` is not a metric; the nearest is `{known}`"));
        return None;
    };
    let is_pressure = matches!(metric, Metric::BloodPressure | Metric::ArterialPressure);
    if is_pressure != doc.part.is_some() {
        context.problem(&doc.metric.span(), "pressures, and no other metric, need `part`");
    }
    if metric == Metric::RrInterval {
        context.problem(&doc.metric.span(), "beat intervals cannot be read by a profile");
        return None;
    }
    if let Some(unit) = &doc.unit {
        let info = metric.info();
        if *unit.get_ref() != info.unit && *unit.get_ref() != info.ucum {
            let message = format!("{metric} is kept in {}; convert by `scale` and `offset`", info.unit);
            context.problem(&unit.span(), message);
        }
    }
    Some(metric)
}

fn build_field(spanned: &Spanned<FieldDoc>, scope: &Scope<'_>, context: &mut Context<'_>) -> Option<Field> {
    let (span, doc) = (spanned.span(), spanned.get_ref());
    let metric = metric(doc, context);
    let source = source(&doc.source(), scope, &span, context);
    if let Some(range) = &doc.range {
        let [low, high] = range.get_ref();
        if low.compare(*high).is_gt() {
            context.problem(&range.span(), format!("range {low} to {high} is empty"));
        }
    }
    if let Some(clause) = doc.zero_is_measured.as_ref().filter(|clause| clause.get_ref().trim().is_empty()) {
        context.problem(&clause.span(), "zero_is_measured cites the clause that makes 0 a measurement");
    }
    let mut unless = Vec::new();
    for name in &doc.unless {
        let found = context.flags.iter().position(|(flag, _)| flag == name.get_ref());
        match found.and_then(|index| context.flags.get(index).map(|(_, maps)| (index, *maps))) {
            Some((flag, Some(status))) => unless.push(Unless { flag, reason: Absent::from(status) }),
            Some((_, None)) => {
                let message = format!("status `{}` withholds a value and so needs `maps`", name.get_ref());
                context.problem(&name.span(), message);
            }
            None => context.problem(&name.span(), format!("there is no status `{}`", name.get_ref())),
        }
    }
    let only = only(&doc.only, &span, context);
    let range = doc.range.as_ref().map(|range| {
        let [low, high] = *range.get_ref();
        (low, high)
    });
    Some(Field {
        metric: metric?,
        part: doc.part,
        mdc: doc.mdc,
        source: source?,
        invalid: doc.invalid.clone(),
        scale: doc.scale,
        offset: doc.offset,
        range,
        zero_is_measured: doc.zero_is_measured.is_some(),
        unless,
        only,
        optional: doc.optional,
    })
}

fn only(docs: &BTreeMap<String, OneOrMany>, span: &Range<usize>, context: &mut Context<'_>) -> Vec<Only> {
    let mut gates = Vec::new();
    for (name, wanted) in docs {
        let Some(state) = context.states.iter().position(|(state, _)| state == name) else {
            context.problem(span, format!("there is no state `{name}`"));
            continue;
        };
        let values: Vec<String> = context
            .states
            .get(state)
            .map_or_else(Vec::new, |(_, values)| values.iter().map(|value| value.name.clone()).collect());
        let mut allowed = Vec::new();
        for value in wanted.as_slice() {
            allowed.extend(values.iter().enumerate().filter(|(_, name)| *name == value).map(|(index, _)| index));
            if !values.contains(value) {
                context.problem(span, format!("state `{name}` has no value `{value}`"));
            }
        }
        gates.push(Only { state, allowed });
    }
    gates
}

fn build_wave(spanned: &Spanned<WaveDoc>, scope: &Scope<'_>, context: &mut Context<'_>) -> Option<Wave> {
    let (span, doc) = (spanned.span(), spanned.get_ref());
    if scope.on != On::Frame {
        context.problem(&span, "waves are read from frames");
        return None;
    }
    let names = doc.name.as_slice();
    let is_integer = !matches!(doc.kind, NumberKind::Bcd | NumberKind::Sfloat | NumberKind::Float);
    if !is_integer || doc.count == 0 || names.is_empty() {
        context.problem(&span, "a wave has a name, a `count` of at least 1 and samples of an integer type");
        return None;
    }
    inside(doc.at, doc.kind.width().saturating_mul(doc.count).saturating_mul(names.len()), scope, &span, context);
    let per_frame = u32::try_from(doc.count).unwrap_or(u32::MAX);
    let hz = doc.hz.unwrap_or(context.nominal_hz * f64::from(per_frame));
    if !(hz > 0.0 && hz <= 10_000.0) {
        context.problem(&span, format!("a wave of {hz} samples a second must have above 0 and at most 10000"));
    }
    let saturated = doc.saturated.map(|[low, high]| (low, high));
    let mut numbered = Vec::new();
    for name in names {
        let is_name = !name.is_empty()
            && name.len() <= crate::ids::MAX_ID_BYTES
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name || context.waves.iter().any(|earlier| *earlier.name == **name) {
            context.problem(&span, format!("wave `{name}` is there twice, or is not made of letters, digits and _"));
        }
        let shared: Arc<str> = Arc::from(name.as_str());
        numbered.push((Arc::clone(&shared), context.waves.len()));
        context.waves.push(WaveInfo { name: shared, hz, baseline: doc.baseline, saturated });
    }
    Some(Wave {
        names: numbered,
        at: doc.at,
        kind: doc.kind,
        mask: doc.mask,
        count: doc.count,
        hz,
        baseline: doc.baseline,
        saturated,
    })
}
