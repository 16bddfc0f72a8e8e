//! The compiled form of a profile's messages: what has to be looked at in each frame, and nothing else.
//!
//! The model says what a profile means and the interpreter follows it. The plan only tells when the interpreter can
//! be spared: which messages a byte leaves possible, which bytes must change before a flag or a state can, and which
//! raw numbers are values as they are. Everything else goes the long way.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::profile::Profile;
use crate::profile::model::{
    Field, Flag, Happening, Message, NumberKind, On, Piece, Predicate, Source, Superframe, Test, Wave,
};
use crate::vitals::{Decimal, Metric, Value};

use super::packet::{HEAD, QuickCheck};

/// What a decoder follows, made once.
#[derive(Debug)]
pub(super) struct Plan {
    /// The quick look at a packet, where the framing has one.
    pub(super) packet: Option<QuickCheck>,
    /// How superframes are collected.
    pub(super) superframe: Option<Superframe>,
    /// Messages of superframes, in the profile's order.
    pub(super) on_superframe: Vec<MessagePlan>,
    /// What is latched until a superframe is whole: the number of each flag, and what happens when it begins to be set.
    pub(super) latches: Vec<(usize, Option<Happening>)>,
    /// The watches whose flags must be read again when the latches are emptied.
    pub(super) latched: Vec<usize>,
    /// How many messages are remembered to see changes.
    pub(super) watches: usize,
    /// How many fields have gates.
    pub(super) gates: usize,
    /// The only message of frames, where every frame is one and has nothing to read each time but samples of bytes.
    pub(super) stream: Option<MessagePlan>,
    /// Messages of frames, in the profile's order.
    frame: Vec<MessagePlan>,
    /// The byte that most messages are known by.
    known_by: usize,
    /// For each value of that byte, and last for a frame without it: the messages of `frame` that are possible.
    by_value: Vec<Arc<[MessagePlan]>>,
}

/// What one message is read by.
#[derive(Debug, Clone)]
pub(super) struct MessagePlan {
    /// Its number in the profile.
    pub(super) index: usize,
    /// What else must hold, beside the byte by which it was found.
    pub(super) when: Vec<Predicate>,
    /// The bytes that its flags and states are read from.
    pub(super) watch: Watch,
    /// True if it has more than numbers that stand by themselves: an event, a serial number, a pressure, a spot
    /// measurement, a time. All of its vitals are read the long way then where a number is not enough.
    pub(super) has_more: bool,
    /// Its vitals, where each is a number by itself.
    pub(super) fields: Vec<FieldPlan>,
    /// Its waves.
    pub(super) waves: Vec<WavePlan>,
}

/// The bytes that the flags and states of a message are read from. Where they are as they were, so are these.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    /// Its number among all.
    pub(super) index: usize,
    /// The bits of the first word that mean anything.
    pub(super) mask: u64,
    /// So many bytes a frame must have, lest the first word holds what is not of it. No frame has enough where not all
    /// is in the first word: then everything is read anew each time.
    pub(super) reach: usize,
}

/// Stands for watched bits that have not been read yet. No [`Watch`] has this mask.
pub(super) const NEVER_SEEN: u64 = u64::MAX;

/// One number that is a value as it is, if nothing withholds it and it is one of `sure`.
#[derive(Debug, Clone)]
pub(super) struct FieldPlan {
    /// Its number in the message.
    pub(super) index: usize,
    /// Its number among all that have gates.
    pub(super) gate: usize,
    /// Where the raw number is.
    pub(super) raw: RawPlan,
    /// Lowest and highest raw number that is no sentinel, not 0 and inside all bounds; none if the first is higher.
    pub(super) sure: (i64, i64),
    /// The mantissa of one unit of the raw number, and the exponent.
    pub(super) unit: (i64, i8),
    /// What it is.
    pub(super) metric: Metric,
    /// Another code than the metric's own.
    pub(super) mdc: Option<u32>,
}

/// Where a raw number is.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawPlan {
    /// One byte.
    Byte { at: usize, mask: u8 },
    /// Two bytes, least significant first.
    Little { at: usize, mask: u16 },
    /// Two bytes, most significant first.
    Big { at: usize, mask: u16 },
    /// Pieces of two bytes.
    Pieces([Piece; 2]),
    /// Elsewhere: the long way.
    Other,
}

/// One wave, or interleaved waves.
#[derive(Debug, Clone)]
pub(super) enum WavePlan {
    /// One byte: a sample of the wave of this number.
    Byte { at: usize, mask: u8, index: usize },
    /// One sample of each wave, in bytes that follow each other, as the waves' numbers do.
    Bytes { at: usize, mask: u8, first: usize, count: usize },
    /// The number of any other in its message.
    Other(usize),
}

impl RawPlan {
    fn new(source: &Source) -> Self {
        match source {
            Source::Number { at, kind, mask, .. } => {
                let mask = mask.unwrap_or(u32::MAX);
                let low = |bits: u32| u16::try_from(mask & bits).unwrap_or(u16::MAX);
                match kind {
                    NumberKind::U8 => Self::Byte { at: *at, mask: u8::try_from(mask & 0xFF).unwrap_or(u8::MAX) },
                    NumberKind::U16le => Self::Little { at: *at, mask: low(0xFFFF) },
                    NumberKind::U16be => Self::Big { at: *at, mask: low(0xFFFF) },
                    _ => Self::Other,
                }
            }
            Source::Bits(pieces) => match pieces.as_slice() {
                [high, low] if high.width + low.width < 16 => Self::Pieces([*high, *low]),
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }

    /// The raw number; `None` if it is not there or has to be read the long way.
    #[inline]
    pub(super) fn read(self, bytes: &[u8]) -> Option<i64> {
        match self {
            Self::Byte { at, mask } => bytes.get(at).map(|byte| i64::from(byte & mask)),
            Self::Little { at, mask } => {
                let written = bytes.get(at..)?.first_chunk()?;
                Some(i64::from(u16::from_le_bytes(*written) & mask))
            }
            Self::Big { at, mask } => {
                let written = bytes.get(at..)?.first_chunk()?;
                Some(i64::from(u16::from_be_bytes(*written) & mask))
            }
            Self::Pieces(pieces) => pieces.iter().try_fold(0, |number, piece| {
                let shifted = i64::from(*bytes.get(piece.at)?) >> piece.bit;
                Some((number << piece.width) | (shifted & ((1 << piece.width) - 1)))
            }),
            Self::Other => None,
        }
    }
}

impl WavePlan {
    fn new(index: usize, wave: &Wave) -> Self {
        let first = wave.names.first().map_or(0, |(_, first)| *first);
        let follows = wave.names.iter().enumerate().all(|(lead, (_, index))| *index == first + lead);
        let mask = u8::try_from(wave.mask.unwrap_or(u32::MAX) & 0xFF).unwrap_or(u8::MAX);
        match wave.names.len() {
            _ if wave.kind != NumberKind::U8 || wave.count != 1 || !follows => Self::Other(index),
            1 => Self::Byte { at: wave.at, mask, index: first },
            count => Self::Bytes { at: wave.at, mask, first, count },
        }
    }
}

/// The bytes of a frame that a number is made of, with the bits that count; `None` if it is not in a frame.
fn bytes_of(source: &Source) -> Option<Vec<(usize, u8)>> {
    match source {
        Source::Number { at, bytes, .. } => Some((*at..at.checked_add(*bytes)?).map(|at| (at, u8::MAX)).collect()),
        Source::Bits(pieces) => {
            let bits = |width: u32, bit: u32| u8::try_from((((1_u32 << width) - 1) << bit) & 0xFF).unwrap_or(u8::MAX);
            Some(pieces.iter().map(|piece| (piece.at, bits(piece.width, piece.bit))).collect())
        }
        Source::Sum(terms) => {
            let bytes = |at: usize, kind: NumberKind| (at..at.saturating_add(kind.width())).map(|at| (at, u8::MAX));
            Some(terms.iter().flat_map(|term| bytes(term.at, term.kind)).collect())
        }
        Source::Key { .. } | Source::Group { .. } => None,
    }
}

fn bytes_of_flag(flag: &Flag) -> Option<Vec<(usize, u8)>> {
    match &flag.test {
        Test::Byte(predicate) => Some(vec![(predicate.at, predicate.mask)]),
        Test::Number { source, .. } => bytes_of(source),
        Test::Word { .. } | Test::Present { .. } => None,
    }
}

impl FieldPlan {
    fn new(index: usize, gate: usize, field: &Field) -> Self {
        let unit = field.scale.map_or((1, 0), |scale| (scale.mantissa(), scale.exponent()));
        let sure = sure_numbers(field, unit);
        let has_sentinel = field.invalid.iter().any(|sentinel| (sure.0..=sure.1).contains(sentinel));
        let is_direct = field.offset.is_none() && !has_sentinel;
        Self {
            index,
            gate,
            raw: RawPlan::new(&field.source),
            sure: if is_direct { sure } else { NOTHING_SURE },
            unit,
            metric: field.metric,
            mdc: field.mdc,
        }
    }

    /// The value of a raw number that needs no further look.
    #[inline]
    pub(super) fn sure_value(&self, bytes: &[u8]) -> Option<Value> {
        let raw = self.raw.read(bytes).filter(|raw| (self.sure.0..=self.sure.1).contains(raw))?;
        Decimal::new(raw.checked_mul(self.unit.0)?, self.unit.1).map(Value::Valid)
    }
}

/// No raw number is inside these.
const NOTHING_SURE: (i64, i64) = (1, 0);
/// Highest raw number that a [`RawPlan`] reads.
const HIGHEST_RAW: i64 = 0xFFFF;

/// Lowest and highest raw number, from 1, that is inside the bounds of the metric and of the profile once it is scaled.
fn sure_numbers(field: &Field, (mantissa, exponent): (i64, i8)) -> (i64, i64) {
    if mantissa <= 0 {
        return NOTHING_SURE;
    }
    let (lowest, highest) = field.metric.info().range;
    let (lowest, highest) = (Decimal::integer(lowest), Decimal::integer(highest));
    let (from, to) = field.range.unwrap_or((lowest, highest));
    let number = |raw: i64| raw.checked_mul(mantissa).and_then(|mantissa| Decimal::new(mantissa, exponent));
    let reaches = |raw| number(raw).is_none_or(|number| number.compare(lowest).is_ge() && number.compare(from).is_ge());
    let exceeds = |raw| number(raw).is_none_or(|number| number.compare(highest).is_gt() || number.compare(to).is_gt());
    (first(reaches), first(exceeds) - 1)
}

/// The first raw number for which this holds, as it does for all that are higher.
fn first(holds: impl Fn(i64) -> bool) -> i64 {
    let (mut low, mut high) = (1, HIGHEST_RAW + 1);
    while low < high {
        let middle = i64::midpoint(low, high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

impl Watch {
    fn new(index: usize, message: &Message) -> Self {
        let states = message.states.iter().map(|state| bytes_of(&state.source));
        let (mut mask, mut reach, mut is_whole) = ([0; HEAD], 0, true);
        for bytes in message.flags.iter().map(bytes_of_flag).chain(states) {
            is_whole &= bytes.is_some();
            for (at, bits) in bytes.into_iter().flatten() {
                reach = reach.max(at + 1);
                match mask.get_mut(at) {
                    Some(mask) => *mask |= bits,
                    None => is_whole = false,
                }
            }
        }
        let mask = u64::from_le_bytes(mask);
        Self { index, mask, reach: if is_whole && mask != NEVER_SEEN { reach } else { usize::MAX } }
    }
}

impl MessagePlan {
    /// Adds to `gates` what it needs of them.
    fn new(index: usize, message: &Message, watches: usize, gates: &mut usize) -> Self {
        let is_plain = !message.spot
            && message.historic.is_none()
            && message.device_time.is_none()
            && message.fields.iter().all(|field| field.part.is_none());
        let planned = if is_plain { message.fields.as_slice() } else { &[] };
        let fields = planned.iter().enumerate().map(|(at, field)| FieldPlan::new(at, *gates + at, field)).collect();
        *gates += planned.len();
        Self {
            index,
            when: message.when.clone(),
            watch: Watch::new(watches, message),
            has_more: message.event.is_some() || message.serial_number.is_some() || !is_plain,
            fields,
            waves: message.waves.iter().enumerate().map(|(index, wave)| WavePlan::new(index, wave)).collect(),
        }
    }

    /// What is left to do once the byte at `known_by` has been looked at.
    fn without(&self, known_by: usize) -> Self {
        let mut plan = self.clone();
        plan.when.retain(|predicate| predicate.at != known_by);
        plan
    }

    fn is_stream(&self) -> bool {
        self.when.is_empty()
            && !self.has_more
            && self.fields.is_empty()
            && matches!(self.waves.as_slice(), [WavePlan::Byte { .. }])
    }

    /// True if nothing comes of this message, whatever it says.
    fn is_idle(&self) -> bool {
        self.watch.reach == 0 && !self.has_more && self.fields.is_empty() && self.waves.is_empty()
    }
}

impl Plan {
    pub(super) fn new(profile: &Profile) -> Self {
        let (mut watches, mut gates) = (0, 0);
        let (mut frame, mut on_superframe) = (Vec::new(), Vec::new());
        for (index, message) in profile.messages().iter().enumerate() {
            let list = match message.on {
                On::Frame => &mut frame,
                On::Superframe => &mut on_superframe,
                On::Line => continue,
            };
            let plan = MessagePlan::new(index, message, watches, &mut gates);
            if !plan.is_idle() {
                list.push(plan);
                watches += 1;
            }
        }
        let known_by = most_known_by(&frame);
        let by_value = by_value(&frame, known_by);
        let latches = profile.messages().iter().flat_map(|message| &message.flags).filter(|flag| flag.latched);
        let has_latch = |plan: &&MessagePlan| {
            profile.messages().get(plan.index).is_some_and(|message| message.flags.iter().any(|flag| flag.latched))
        };
        let latched = frame.iter().filter(has_latch).map(|plan| plan.watch.index).collect();
        Self {
            packet: QuickCheck::new(profile.framing()),
            superframe: profile.superframe().cloned(),
            latches: latches.map(|flag| (flag.index, flag.event.clone())).collect(),
            latched,
            on_superframe,
            watches,
            gates,
            stream: match frame.as_slice() {
                [only] if only.is_stream() => Some(only.clone()),
                _ => None,
            },
            frame,
            known_by,
            by_value,
        }
    }

    /// Each field with gates: the number of its gates, of its message and of the field in it.
    pub(super) fn gated_fields(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let messages = self.frame.iter().chain(&self.on_superframe);
        messages.flat_map(|message| message.fields.iter().map(|field| (field.gate, message.index, field.index)))
    }

    /// The messages that a frame is, in the profile's order, if the rest of their `when` holds too.
    #[inline]
    pub(super) fn messages(&self, frame: &[u8]) -> &[MessagePlan] {
        let value = frame.get(self.known_by).map_or(NO_BYTE, |byte| usize::from(*byte));
        self.by_value.get(value).map_or(&[], |messages| messages)
    }
}

/// Stands for the value of a byte that a frame is too short for.
const NO_BYTE: usize = 256;

/// The byte that most messages have a predicate on, or the first.
fn most_known_by(frame: &[MessagePlan]) -> usize {
    let places = || frame.iter().flat_map(|message| &message.when).map(|predicate| predicate.at);
    places().max_by_key(|at| places().filter(|other| other == at).count()).unwrap_or(0)
}

/// For each value of the byte `known_by`, and for its absence, the messages that are possible. Values that leave the
/// same messages share them.
fn by_value(frame: &[MessagePlan], known_by: usize) -> Vec<Arc<[MessagePlan]>> {
    let mut shared: BTreeMap<Vec<usize>, Arc<[MessagePlan]>> = BTreeMap::new();
    let possible = |value: usize| {
        let fits = |predicate: &Predicate| {
            predicate.at != known_by || u8::try_from(value).is_ok_and(|byte| predicate.fits(byte))
        };
        let possible = || frame.iter().filter(|message| message.when.iter().all(fits));
        let messages = || possible().map(|message| message.without(known_by)).collect();
        Arc::clone(shared.entry(possible().map(|message| message.index).collect()).or_insert_with(messages))
    };
    (0..=NO_BYTE).map(possible).collect()
}
