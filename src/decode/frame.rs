//! The resynchronising framer: finds frames in a stream of bytes that may begin anywhere and lose or gain bytes.
//!
//! On any violation exactly one byte is dropped and the search goes on with the next, so that a damaged length or sum
//! never swallows the good frames behind it. A length is trusted only inside the bounds of the profile.

use super::packet::QuickCheck;
use crate::profile::Profile;
use crate::profile::model::{Delimited, Escaped, Framing, Length, NumberKind, Packet, Rule, Unpack};

/// What was counted since the decoder was made. Never reset: differences are for whoever shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameCounters {
    /// Good frames (or lines that fit a message, or notifications).
    pub frames: u64,
    /// Places that looked like a frame and had a wrong checksum.
    pub bad_checksum: u64,
    /// Bytes that belong to no good frame.
    pub skipped_bytes: u64,
    /// Times that bytes had to be skipped before the next good frame.
    pub resyncs: u64,
}

/// What the bytes at the start of the buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// More bytes are needed to tell.
    Incomplete,
    /// No frame begins here; so many bytes can be dropped (one, but for lines).
    Broken { drop: usize, bad_checksum: bool },
    /// So many bytes that mean nothing and are no fault.
    Blank(usize),
    /// A frame of this many bytes.
    Frame(usize),
}

const BROKEN: Verdict = Verdict::Broken { drop: 1, bad_checksum: false };

/// A frame in the framer's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// True if bytes were skipped since the frame before.
    pub(crate) after_gap: bool,
    start: usize,
    end: usize,
}

/// Whether the places of frames are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Nothing has come yet.
    Start,
    /// The last bytes were a good frame.
    Locked,
    /// Bytes had to be skipped.
    Lost,
}

/// Finds frames. Bounded: it never holds more than `lock` longest frames and one push of [`Framer::room`].
#[derive(Debug)]
pub(crate) struct Framer {
    buffer: Vec<u8>,
    start: usize,
    capacity: usize,
    /// Content of the last frame of a profile that changes it: unescaped or unpacked.
    plain: Vec<u8>,
    sync: Sync,
    /// True while the rest of a line is skipped whose beginning was.
    is_inside_line: bool,
    /// True once anything was skipped since the start or the last reset.
    was_broken: bool,
    counters: FrameCounters,
}

/// Packets that are looked for before the first of them is read.
pub(super) const BATCH: usize = 64;

/// Bytes taken at a time, beside what has to be kept.
const CHUNK: usize = 4096;

impl Framer {
    pub(crate) fn new(framing: &Framing) -> Self {
        let capacity = framing.max.saturating_mul(framing.lock).saturating_add(CHUNK);
        Self {
            buffer: Vec::with_capacity(capacity),
            start: 0,
            capacity,
            plain: Vec::with_capacity(framing.max),
            sync: Sync::Start,
            is_inside_line: false,
            was_broken: false,
            counters: FrameCounters::default(),
        }
    }

    pub(crate) const fn counters(&self) -> FrameCounters {
        self.counters
    }

    pub(crate) fn reset(&mut self) {
        self.buffer.clear();
        self.start = 0;
        self.sync = Sync::Start;
        self.is_inside_line = false;
        self.was_broken = false;
    }

    /// Bytes that wait for the rest of a frame.
    pub(crate) const fn waiting(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Takes as many bytes as there is room for and gives back the rest.
    pub(crate) fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if self.start > 0 {
            let kept = self.buffer.len().saturating_sub(self.start);
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(kept);
            self.start = 0;
        }
        let room = self.capacity.saturating_sub(self.buffer.len());
        let (taken, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(taken);
        rest
    }

    /// The next good frame, or `None` if more bytes are needed.
    #[inline]
    pub(crate) fn next(&mut self, framing: &Framing) -> Option<Found> {
        loop {
            let waiting = self.buffer.get(self.start..).unwrap_or(&[]);
            let verdict = if self.sync == Sync::Locked || framing.lock <= 1 {
                check(framing, waiting, &mut self.plain)
            } else {
                check_run(framing, waiting, &mut self.plain)
            };
            match verdict {
                Verdict::Incomplete => return None,
                Verdict::Broken { drop, bad_checksum } => {
                    // A line that is too long is skipped with the rest of it, which could look like a line.
                    self.is_inside_line = drop > 1 && drop == framing.max;
                    self.skip(drop, bad_checksum);
                }
                Verdict::Blank(length) => {
                    self.start = self.start.saturating_add(length);
                    self.is_inside_line = false;
                }
                Verdict::Frame(length) if std::mem::take(&mut self.is_inside_line) => {
                    let line = waiting.get(..length).map_or(0, |line| line_content(framing, line).len());
                    self.skip(line, false);
                }
                Verdict::Frame(length) => return Some(self.accept(length)),
            }
        }
    }

    /// The bytes that wait, and where the good packets that they begin with end, if the places of packets are known.
    /// Whatever else comes is left to [`Framer::next`].
    pub(super) fn packets<'f, 'e>(
        &'f self,
        quick: &QuickCheck,
        ends: &'e mut [usize; BATCH],
    ) -> (&'f [u8], &'e [usize]) {
        let waiting = self.buffer.get(self.start..).filter(|_| self.sync == Sync::Locked).unwrap_or(&[]);
        let count = quick.packets(waiting, ends);
        (waiting, ends.get(..count).unwrap_or(&[]))
    }

    /// Counts so many packets of [`Framer::packets`], the last of which ended there.
    pub(super) fn took(&mut self, packets: usize, end: usize) {
        self.start = self.start.saturating_add(end);
        self.counters.frames += u64::try_from(packets).unwrap_or(0);
    }

    #[inline]
    fn accept(&mut self, length: usize) -> Found {
        let (start, end) = (self.start, self.start.saturating_add(length));
        self.start = end;
        self.counters.frames += 1;
        let before = std::mem::replace(&mut self.sync, Sync::Locked);
        Found { after_gap: before == Sync::Lost, start, end }
    }

    fn skip(&mut self, count: usize, bad_checksum: bool) {
        self.start = self.start.saturating_add(count).min(self.buffer.len());
        self.counters.skipped_bytes += u64::try_from(count).unwrap_or(0);
        self.counters.bad_checksum += u64::from(bad_checksum);
        if self.sync != Sync::Lost {
            self.counters.resyncs += 1;
        }
        (self.sync, self.was_broken) = (Sync::Lost, true);
    }

    /// A line that no message of the profile knows is no frame after all.
    pub(crate) fn refuse(&mut self, framing: &Framing, found: Found) {
        self.counters.frames = self.counters.frames.saturating_sub(1);
        let length = self.content(framing, found).len();
        self.counters.skipped_bytes += u64::try_from(length).unwrap_or(0);
        if !found.after_gap {
            self.counters.resyncs += 1;
        }
        (self.sync, self.was_broken) = (Sync::Lost, true);
    }

    /// The content of a frame: what is between the marks, unescaped and unpacked.
    #[inline]
    pub(crate) fn content<'f>(&'f mut self, framing: &Framing, found: Found) -> &'f [u8] {
        let frame = self.buffer.get(found.start..found.end).unwrap_or(&[]);
        match &framing.rule {
            Rule::Packet(Packet { unpack: Some(packing), .. }) => {
                unpack(*packing, frame, &mut self.plain);
                &self.plain
            }
            // Checking the frame that was found last has left its content there.
            Rule::Delimited(rule) => {
                let _ = unescape(rule, frame, &mut self.plain);
                &self.plain
            }
            Rule::Line { .. } => line_content(framing, frame),
            Rule::Packet(_) | Rule::Payload { .. } => frame,
        }
    }

    /// At the end of a recording: a last run of good frames that ends exactly with the bytes counts although it is
    /// shorter than the lock, if nothing at all was skipped before it.
    pub(crate) fn next_at_end(&mut self, framing: &Framing) -> Option<Found> {
        if self.was_broken {
            return None;
        }
        let mut rest = self.buffer.get(self.start..).unwrap_or(&[]);
        let mut first = None;
        while !rest.is_empty() {
            let Verdict::Frame(length) = check(framing, rest, &mut self.plain) else {
                return None;
            };
            first = first.or(Some(length));
            rest = rest.get(length..).unwrap_or(&[]);
        }
        first.map(|length| self.accept(length))
    }

    /// True if bytes were skipped after the last good frame.
    pub(crate) fn is_lost(&self) -> bool {
        self.sync == Sync::Lost
    }

    /// Drops the first byte of what waits, because nothing will follow that could complete it.
    pub(crate) fn skip_one(&mut self) -> bool {
        let is_waiting = self.start < self.buffer.len();
        if is_waiting {
            self.skip(1, false);
        }
        is_waiting
    }
}

/// Puts a packet into `plain`, with bit 7 of each byte where it belongs.
#[inline]
pub(super) fn unpack(packing: Unpack, packet: &[u8], plain: &mut Vec<u8>) {
    plain.clear();
    plain.extend_from_slice(packet);
    let high_bits = packet.get(packing.high_bits_at).copied().unwrap_or(0);
    let packed = plain.get_mut(packing.from..).unwrap_or(&mut []);
    for (bit, byte) in packed.iter_mut().take(8).enumerate() {
        *byte = (*byte & 0x7F) | (((high_bits >> bit) & 1) << 7);
    }
}

/// A line without its end.
fn line_content<'l>(framing: &Framing, line: &'l [u8]) -> &'l [u8] {
    match &framing.rule {
        Rule::Line { end } => end.iter().find_map(|end| line.strip_suffix(end.as_slice())).unwrap_or(line),
        _ => line,
    }
}

/// Without a checksum a frame counts only if the next ones are good too.
fn check_run(framing: &Framing, bytes: &[u8], plain: &mut Vec<u8>) -> Verdict {
    let first = check(framing, bytes, plain);
    let Verdict::Frame(length) = first else {
        return first;
    };
    let mut rest = bytes.get(length..).unwrap_or(&[]);
    for _ in 1..framing.lock {
        match check(framing, rest, plain) {
            Verdict::Frame(length) | Verdict::Blank(length) => rest = rest.get(length..).unwrap_or(&[]),
            Verdict::Incomplete => return Verdict::Incomplete,
            Verdict::Broken { .. } => return BROKEN,
        }
    }
    first
}

#[inline]
fn check(framing: &Framing, bytes: &[u8], plain: &mut Vec<u8>) -> Verdict {
    if bytes.is_empty() {
        return Verdict::Incomplete;
    }
    match &framing.rule {
        Rule::Packet(rule) => check_packet(framing, rule, bytes),
        Rule::Delimited(rule) => check_delimited(framing, rule, bytes, plain),
        Rule::Line { end } => check_line(framing, end, bytes),
        // Notifications have bounds of their own and never pass through the buffer.
        Rule::Payload { .. } => BROKEN,
    }
}

#[inline]
fn check_packet(framing: &Framing, rule: &Packet, bytes: &[u8]) -> Verdict {
    for predicate in &rule.sync {
        match bytes.get(predicate.at) {
            Some(byte) if !predicate.fits(*byte) => return BROKEN,
            Some(_) => {}
            None => break,
        }
    }
    let length = match &rule.length {
        Length::Fixed(length) => *length,
        Length::Field { at, kind, add, min, max } => {
            let Some(written) = length_field(bytes, *at, *kind) else {
                return Verdict::Incomplete;
            };
            match usize::try_from(i64::from(written).saturating_add(*add)) {
                Ok(length) if (*min..=*max).contains(&length) => length,
                _ => return BROKEN,
            }
        }
        Length::ByType { at, lengths } => {
            let Some(kind) = bytes.get(*at) else {
                return Verdict::Incomplete;
            };
            match lengths.get(usize::from(*kind)).copied() {
                Some(length) if length > 0 => usize::from(length),
                _ => return BROKEN,
            }
        }
    };
    if let Some(rest) = &rule.rest {
        let following = bytes.get(rest.at..bytes.len().min(length)).unwrap_or(&[]);
        if !following.iter().all(|byte| rest.fits(*byte)) {
            return BROKEN;
        }
    }
    let Some(frame) = bytes.get(..length) else {
        return Verdict::Incomplete;
    };
    match &framing.checksum {
        Some(checksum) if !checksum.holds(frame) => Verdict::Broken { drop: 1, bad_checksum: true },
        _ => Verdict::Frame(length),
    }
}

fn length_field(bytes: &[u8], at: usize, kind: NumberKind) -> Option<u32> {
    let written = bytes.get(at..at.checked_add(kind.width())?)?;
    let add = |number: u32, byte: &u8| (number << 8) | u32::from(*byte);
    Some(match kind {
        NumberKind::U16le | NumberKind::U24le | NumberKind::U32le => written.iter().rev().fold(0, add),
        _ => written.iter().fold(0, add),
    })
}

fn check_delimited(framing: &Framing, rule: &Delimited, bytes: &[u8], plain: &mut Vec<u8>) -> Verdict {
    match unescape(rule, bytes.get(..framing.max).unwrap_or(bytes), plain) {
        Unescaped::Broken => BROKEN,
        Unescaped::Incomplete if bytes.len() >= framing.max => BROKEN,
        Unescaped::Incomplete => Verdict::Incomplete,
        Unescaped::Whole(_) if plain.len() < rule.min => BROKEN,
        Unescaped::Whole(length) => match &framing.checksum {
            Some(checksum) if !checksum.holds(plain) => Verdict::Broken { drop: 1, bad_checksum: true },
            _ => Verdict::Frame(length),
        },
    }
}

enum Unescaped {
    Incomplete,
    Broken,
    /// A frame of this many bytes on the line.
    Whole(usize),
}

/// Puts what is between the marks into `plain`, escapes resolved.
fn unescape(rule: &Delimited, bytes: &[u8], plain: &mut Vec<u8>) -> Unescaped {
    plain.clear();
    let compared = bytes.len().min(rule.start.len());
    if bytes.get(..compared) != rule.start.get(..compared) {
        return Unescaped::Broken;
    }
    let mut at = rule.start.len();
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let is_opaque = plain.len() < rule.opaque;
        if !is_opaque && rest.starts_with(&rule.end) {
            return Unescaped::Whole(at + rule.end.len());
        }
        let is_new_start = rule.start != rule.end && rest.starts_with(&rule.start);
        if !is_opaque && is_new_start {
            return Unescaped::Broken;
        }
        match (&rule.escape, rest) {
            (Some(escape), [first, next, ..]) if *first == escape.byte => {
                if escape.abort == Some(*next) {
                    return Unescaped::Broken;
                }
                let byte = match &escape.escaped {
                    Escaped::Xor(mask) => next ^ mask,
                    Escaped::Or(mask) => next | mask,
                    Escaped::Replace(table) => match table.get(next) {
                        Some(byte) => *byte,
                        None => return Unescaped::Broken,
                    },
                };
                plain.push(byte);
                at += 2;
            }
            (Some(escape), [first]) if *first == escape.byte => return Unescaped::Incomplete,
            (_, [first, ..]) => {
                plain.push(*first);
                at += 1;
            }
            (_, []) => return Unescaped::Incomplete,
        }
    }
    Unescaped::Incomplete
}

/// A line of text up to its end. A byte that is no text spoils the whole line: what is left of it could be read as
/// another, shorter line.
fn check_line(framing: &Framing, ends: &[Vec<u8>], bytes: &[u8]) -> Verdict {
    let window = bytes.get(..framing.max).unwrap_or(bytes);
    let mut is_text = true;
    for at in 0..window.len() {
        let rest = window.get(at..).unwrap_or(&[]);
        if let Some(end) = ends.iter().find(|end| rest.starts_with(end)) {
            let length = at + end.len();
            return match (at, is_text) {
                // A blank line, or the LF of a CR LF whose CR has been taken already.
                (0, _) => Verdict::Blank(length),
                (_, true) => Verdict::Frame(length),
                // Its end remains and is blank, so that CR LF counts alike whether or not its halves arrive together.
                (_, false) => Verdict::Broken { drop: at, bad_checksum: false },
            };
        }
        is_text &= rest.first().is_some_and(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    }
    if window.len() < framing.max {
        Verdict::Incomplete
    } else {
        Verdict::Broken { drop: window.len(), bad_checksum: false }
    }
}

/// True if a notification is a frame of this profile.
pub(crate) fn payload_fits(framing: &Framing, bytes: &[u8], counters: &mut FrameCounters) -> bool {
    let Rule::Payload { min, sync } = &framing.rule else {
        return false;
    };
    let is_shaped = (*min..=framing.max).contains(&bytes.len()) && sync.iter().all(|predicate| predicate.holds(bytes));
    let has_sum = framing.checksum.as_ref().is_none_or(|checksum| checksum.holds(bytes));
    counters.bad_checksum += u64::from(is_shaped && !has_sum);
    if is_shaped && has_sum {
        counters.frames += 1;
        return true;
    }
    counters.skipped_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    counters.resyncs += 1;
    false
}

impl Framer {
    /// Counts a notification, which is a frame by itself.
    pub(crate) fn take_payload(&mut self, profile: &Profile, bytes: &[u8]) -> bool {
        payload_fits(profile.framing(), bytes, &mut self.counters)
    }
}
