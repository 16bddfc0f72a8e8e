//! The quick look at a packet: on a healthy line nearly every place that is looked at is a whole good packet.
//!
//! It only ever says yes. What it does not recognise at once, damaged, unfinished or merely unusual, is left to the
//! framer's own check, which alone decides what is skipped and counted.

use crate::profile::checksum::{Checksum, ChecksumKind, Encoding};
use crate::profile::model::{Framing, Length, NumberKind, Packet, Predicate, Rule, Unpack};

/// Bytes that are looked at as one word.
pub(super) const HEAD: usize = 8;

/// The even bytes of a word: what is left has room to add without a carry into the neighbour.
const EVEN_BYTES: u64 = 0x00FF_00FF_00FF_00FF;
/// What four sums of 16 bits are multiplied by, so that the highest 16 bits of the product are the sum of all.
const SUM_OF_FOUR: u64 = 0x0001_0001_0001_0001;

/// A packet rule in the form that is quick to check.
#[derive(Debug)]
pub(super) struct QuickCheck {
    /// The bits of the first [`HEAD`] bytes that every packet has, least significant byte first.
    mask: u64,
    value: u64,
    length: QuickLength,
    rest: Option<Rest>,
    sum: Option<Sum>,
    /// How the content is packed.
    pub(super) unpack: Option<Unpack>,
}

#[derive(Debug)]
enum QuickLength {
    Fixed(usize),
    /// One byte that says it.
    Byte {
        at: usize,
        add: i64,
        min: usize,
        max: usize,
    },
    ByType {
        at: usize,
        lengths: Box<[u16; 256]>,
    },
}

/// What every byte from `at` on has in common; the word repeats it for eight bytes.
#[derive(Debug)]
struct Rest {
    predicate: Predicate,
    mask: u64,
    value: u64,
}

/// A sum of one byte over `from..length - before_end`, written `at_end` bytes before the end.
#[derive(Debug)]
struct Sum {
    from: usize,
    before_end: usize,
    at_end: usize,
    /// For each end of what is covered, up to the end of the head: the bytes of the head that are.
    heads: [u64; HEAD + 1],
    /// What makes the written byte of the sum: exclusive or with the first, then the second is added.
    finish: (u8, u8),
}

/// The first bytes as one word, least significant byte first. Where there are fewer, the others are 0.
#[inline]
pub(super) fn head_of(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or_else(|| padded_head_of(bytes), |head| u64::from_le_bytes(*head))
}

#[cold]
fn padded_head_of(bytes: &[u8]) -> u64 {
    let mut head = [0; HEAD];
    head.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(head)
}

impl QuickCheck {
    /// `None` if packets of this framing have no quick form.
    pub(super) fn new(framing: &Framing) -> Option<Self> {
        let Rule::Packet(Packet { sync, length, rest, unpack }) = &framing.rule else { return None };
        let (mut mask, mut value) = ([0; HEAD], [0; HEAD]);
        for predicate in sync {
            let (mask, value) = (mask.get_mut(predicate.at)?, value.get_mut(predicate.at)?);
            // Two predicates on one byte may contradict each other, which no mask can say.
            if *mask != 0 || predicate.value & !predicate.mask != 0 {
                return None;
            }
            (*mask, *value) = (predicate.mask, predicate.value);
        }
        let length = match length {
            Length::Fixed(length) => QuickLength::Fixed(*length),
            Length::Field { at, kind: NumberKind::U8, add, min, max } => {
                QuickLength::Byte { at: *at, add: *add, min: *min, max: *max }
            }
            Length::Field { .. } => return None,
            Length::ByType { at, lengths } => QuickLength::ByType { at: *at, lengths: lengths.clone() },
        };
        let rest = rest.map(|predicate| Rest {
            predicate,
            mask: u64::from_le_bytes([predicate.mask; HEAD]),
            value: u64::from_le_bytes([predicate.value; HEAD]),
        });
        let sum = match &framing.checksum {
            Some(checksum) => Some(Sum::new(checksum)?),
            None => None,
        };
        Some(Self {
            mask: u64::from_le_bytes(mask),
            value: u64::from_le_bytes(value),
            length,
            rest,
            sum,
            unpack: *unpack,
        })
    }

    /// Finds the good packets that `bytes` begin with, one right behind the other, at most as many as `ends` has room
    /// for, and writes where each ends. Gives how many there are; the next bytes are no packet, or only the whole check
    /// can tell.
    #[inline(never)]
    pub(super) fn packets(&self, bytes: &[u8], ends: &mut [usize]) -> usize {
        match &self.length {
            QuickLength::Fixed(length) => self.packets_of(bytes, ends, |_| Some(*length)),
            QuickLength::Byte { at, add, min, max } => self.packets_of(bytes, ends, |bytes| {
                let length = usize::try_from(i64::from(*bytes.get(*at)?).checked_add(*add)?).ok()?;
                (*min..=*max).contains(&length).then_some(length)
            }),
            QuickLength::ByType { at, lengths } => self.packets_of(bytes, ends, |bytes| {
                let length = usize::from(*lengths.get(usize::from(*bytes.get(*at)?))?);
                (length > 0).then_some(length)
            }),
        }
    }

    #[inline]
    fn packets_of(&self, bytes: &[u8], ends: &mut [usize], length_of: impl Fn(&[u8]) -> Option<usize>) -> usize {
        let (mut rest, mut end) = (bytes, 0);
        let mut count = 0;
        for place in ends {
            let Some(head) = rest.first_chunk::<HEAD>().map(|head| u64::from_le_bytes(*head)) else { break };
            if head & self.mask != self.value {
                break;
            }
            let Some((packet, following)) = length_of(rest).and_then(|length| rest.split_at_checked(length)) else {
                break;
            };
            if self.rest.as_ref().is_some_and(|rest| !rest.holds(packet))
                || self.sum.as_ref().is_some_and(|sum| !sum.holds(head, packet))
            {
                break;
            }
            rest = following;
            end += packet.len();
            *place = end;
            count += 1;
        }
        count
    }
}

impl Rest {
    #[inline]
    fn holds(&self, packet: &[u8]) -> bool {
        let (words, bytes) = packet.get(self.predicate.at..).unwrap_or(&[]).as_chunks::<HEAD>();
        words.iter().all(|word| u64::from_le_bytes(*word) & self.mask == self.value)
            && bytes.iter().all(|byte| self.predicate.fits(*byte))
    }
}

impl Sum {
    fn new(checksum: &Checksum) -> Option<Self> {
        let is_byte = checksum.encoding == Encoding::Raw && checksum.absent_below == 0;
        let before_end = |place: i32| usize::try_from(place.checked_neg()?).ok().filter(|back| *back > 0);
        let from = usize::try_from(checksum.from).ok().filter(|from| *from <= HEAD)?;
        let finish = match checksum.kind {
            ChecksumKind::Sum8 => (0, 0),
            ChecksumKind::Sum8Inverted => (0xFF, 0),
            ChecksumKind::Sum8Negated => (0xFF, 1),
            _ => return None,
        };
        let heads = std::array::from_fn(|to| {
            let covered: [u8; HEAD] = std::array::from_fn(|at| if (from..to).contains(&at) { 0xFF } else { 0 });
            u64::from_le_bytes(covered)
        });
        let (before_end, at_end) = (before_end(checksum.to)?, before_end(checksum.at)?);
        is_byte.then_some(Self { from, before_end, at_end, heads, finish })
    }

    /// `head` is the first word of `packet`, with bytes behind it where the packet is shorter.
    #[inline]
    fn holds(&self, head: u64, packet: &[u8]) -> bool {
        let (Some(to), Some(at)) = (packet.len().checked_sub(self.before_end), packet.len().checked_sub(self.at_end))
        else {
            return false;
        };
        let (Some(written), Some(mask)) = (packet.get(at), self.heads.get(to.min(HEAD))) else { return false };
        let covered = head & mask;
        let in_pairs = (covered & EVEN_BYTES) + ((covered >> 8) & EVEN_BYTES);
        let [.., in_head, _] = in_pairs.wrapping_mul(SUM_OF_FOUR).to_le_bytes();
        let after = packet.get(HEAD..to).unwrap_or(&[]);
        let sum = after.iter().fold(in_head, |sum, byte| sum.wrapping_add(*byte));
        (sum ^ self.finish.0).wrapping_add(self.finish.1) == *written && self.from <= to
    }
}
