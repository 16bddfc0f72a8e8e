//! Datex-Ohmeda records: frames between flags (M1017617, 2), their header and subrecords (8005313, 2.2), and requests.

use super::super::tally::Tally;

const FLAG: u8 = 0x7E;
const CONTROL: u8 = 0x7D;
/// The bit that is cleared in a byte after [`CONTROL`].
const CLEARED: u8 = 0x20;
/// Bytes of a header.
pub(super) const HEADER: usize = 40;
/// Largest record (8005313, 2.2), with its sum.
const MAX_CONTENT: usize = HEADER + 1450 + 1;
/// Subrecords of one record.
const MAX_SUBRECORDS: usize = 8;
/// The type that ends the list of subrecords.
pub(super) const END_OF_LIST: u8 = 0xFF;

/// Number at a place, least significant byte first.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn i16_at(bytes: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Finds what is between two flags. Every flag may end one frame and begin the next, so that a damaged flag costs no
/// more than the frame it belongs to.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    /// A flag has come.
    is_open: bool,
    content: Vec<u8>,
    is_escaped: bool,
    is_broken: bool,
    /// Bytes on the line since the last flag.
    raw: usize,
}

impl Deframer {
    /// Takes one byte; the content of a frame whose sum is right, without the sum, and its length on the line.
    pub(super) fn take(&mut self, byte: u8, tally: &mut Tally) -> Option<(Vec<u8>, usize)> {
        if byte == FLAG {
            return self.end(tally);
        }
        if !self.is_open {
            tally.skip(1);
            return None;
        }
        self.raw = self.raw.saturating_add(1);
        match (std::mem::take(&mut self.is_escaped), byte) {
            (false, CONTROL) => self.is_escaped = true,
            (false, byte) => self.keep(byte),
            // Nothing but the flag and the control byte itself is escaped.
            (true, byte) if matches!(byte | CLEARED, FLAG | CONTROL) && byte & CLEARED == 0 => {
                self.keep(byte | CLEARED);
            }
            (true, _) => self.is_broken = true,
        }
        None
    }

    fn keep(&mut self, byte: u8) {
        if self.content.len() < MAX_CONTENT {
            self.content.push(byte);
        } else {
            self.is_broken = true;
        }
    }

    fn end(&mut self, tally: &mut Tally) -> Option<(Vec<u8>, usize)> {
        let is_broken = std::mem::take(&mut self.is_broken) | std::mem::take(&mut self.is_escaped);
        let mut content = std::mem::take(&mut self.content);
        let raw = std::mem::take(&mut self.raw);
        self.is_open = true;
        if raw == 0 {
            return None;
        }
        let sum = content.pop();
        let computed = content.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if is_broken || sum != Some(computed) {
            tally.damaged(raw);
            return None;
        }
        Some((content, raw))
    }

    /// Forgets a frame that is not over.
    pub(super) fn give_up(&mut self, tally: &mut Tally) {
        tally.skip(self.raw);
        *self = Self::default();
    }
}

/// What a record is about (8005313, table 2-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Main {
    Numbers,
    Waves,
    Alarms,
}

impl Main {
    const fn number(self) -> u16 {
        match self {
            Self::Numbers => 0,
            Self::Waves => 1,
            Self::Alarms => 4,
        }
    }
}

/// A record whose header fits its length.
#[derive(Debug)]
pub(super) struct Record<'r> {
    /// `None`: a kind that this driver does not ask for.
    pub(super) main: Option<Main>,
    /// Type and bytes of each subrecord.
    pub(super) subrecords: Vec<(u8, &'r [u8])>,
}

impl<'r> Record<'r> {
    pub(super) fn parse(bytes: &'r [u8]) -> Option<Self> {
        let length = usize::try_from(i16_at(bytes, 0)?).ok()?;
        let (header, data) = bytes.split_at_checked(HEADER)?;
        if length != bytes.len() {
            return None;
        }
        let number = u16_at(header, 14)?;
        let main = [Main::Numbers, Main::Waves, Main::Alarms].into_iter().find(|main| main.number() == number);
        let mut places = Vec::new();
        for descriptor in header.get(16..)?.chunks_exact(3).take(MAX_SUBRECORDS) {
            let kind = *descriptor.get(2)?;
            if kind == END_OF_LIST {
                break;
            }
            let offset = usize::try_from(i16_at(descriptor, 0)?).ok().filter(|offset| *offset <= data.len())?;
            places.push((kind, offset));
        }
        let end_of = |offset: usize| {
            let next = places.iter().map(|(_, other)| *other).filter(|other| *other > offset).min();
            next.unwrap_or(data.len())
        };
        let subrecords: Option<Vec<(u8, &[u8])>> =
            places.iter().map(|(kind, offset)| Some((*kind, data.get(*offset..end_of(*offset))?))).collect();
        Some(Self { main, subrecords: subrecords? })
    }
}

/// A request on the line: one subrecord of type 0.
pub(super) fn request(main: Main, body: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEADER];
    let length = u16::try_from(HEADER + body.len()).unwrap_or(0).to_le_bytes();
    for (at, value) in [(0, length), (14, main.number().to_le_bytes())] {
        if let Some(field) = record.get_mut(at..at + 2) {
            field.copy_from_slice(&value);
        }
    }
    // The second descriptor ends the list.
    if let Some(kind) = record.get_mut(16 + 3 + 2) {
        *kind = END_OF_LIST;
    }
    record.extend_from_slice(body);
    framed(&record)
}

/// Flags, escapes and sum around a record.
fn framed(record: &[u8]) -> Vec<u8> {
    let sum = record.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let mut line = vec![FLAG];
    for byte in record.iter().chain([&sum]) {
        if matches!(*byte, FLAG | CONTROL) {
            line.extend([CONTROL, byte & !CLEARED]);
        } else {
            line.push(*byte);
        }
    }
    line.push(FLAG);
    line
}
