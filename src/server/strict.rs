//! Reads the frames of a client as they come in, byte by byte, and finds the first byte that RFC 6455 or our own bounds of
//! a message forbid: before anything of a frame that is too large is kept.
//!
//! The library behind it looks at whole frames only: a text that is wrong at its first byte would be heard to its end.

/// What messages may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameBounds {
    /// Bytes of a message, over all its frames.
    pub bytes: usize,
    /// Frames of a message.
    pub fragments: usize,
}

/// What a client did wrong, and how RFC 6455, 7.4.1 calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// 5.2: no extension was agreed on.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// 5.2: 3 to 7 and 11 to 15.
    #[error("the opcode is reserved")]
    ReservedOpcode,
    /// 5.5: a control frame has at most 125 bytes and is never fragmented.
    #[error("a control frame is fragmented or longer than 125 bytes")]
    LargeControl,
    /// 5.1: a client masks.
    #[error("a frame of the client is not masked")]
    Unmasked,
    /// 5.2: the shortest form of the length is the only one, and its highest bit is zero.
    #[error("the length is not in its shortest form")]
    Length,
    /// 5.4: a continuation without a beginning, or a beginning before the end.
    #[error("a fragment is out of place")]
    Fragment,
    /// 5.5.1: a close has no payload, or a code and then text.
    #[error("the close frame has no such form")]
    Close,
    /// 8.1.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// Our own: a frame, or the frames of a message together, are larger than allowed.
    #[error("a message is larger than allowed")]
    TooBig,
    /// Our own: a message comes in more frames than allowed.
    #[error("a message has more frames than allowed")]
    TooManyFragments,
}

impl Violation {
    /// The status code of the close.
    pub const fn code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::TooBig | Self::TooManyFragments => 1009,
            _ => 1002,
        }
    }

    /// True where the message is right and only beyond what is taken here.
    pub const fn is_of_size(self) -> bool {
        matches!(self, Self::TooBig | Self::TooManyFragments)
    }
}

/// True for 16 bytes in base64 (4.2.1, item 5). The last character before the padding has four bits that mean nothing.
pub fn is_key(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.len() == 24 && text.strip_suffix(b"==").is_some_and(|letters| letters.iter().all(is_letter))
}

/// Longest payload of a control frame, in bytes.
const MAX_CONTROL: u64 = 125;

/// Header bytes of a frame at most: two, eight of length, four of mask (5.2).
const MAX_HEADER: usize = 14;

/// Bytes of the masking key.
const MASK: usize = 4;

/// How many bytes of length follow the first two of a header.
const fn extended(second: u8) -> usize {
    match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

/// The frame that is being read.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// Its header: what has come of it.
    Header { bytes: [u8; MAX_HEADER], have: usize },
    /// Its payload.
    Payload { kind: Kind, mask: [u8; 4], at: u64, left: u64, is_last: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Close,
    Other,
}

/// The machine of one connection.
#[derive(Debug)]
pub struct Strict {
    part: Part,
    /// The message of which a fragment has come, and not the last.
    open: Option<Kind>,
    text: Utf8,
    reason: Utf8,
    is_closed: bool,
    bounds: FrameBounds,
    /// The bounds may change with the next message: nothing beyond the frame that is coming in is read ahead.
    is_careful: bool,
    /// Payload of the message so far, as its headers claim it, and its frames.
    bytes: u64,
    fragments: usize,
}

impl Strict {
    /// Takes messages inside these bounds.
    pub fn new(bounds: FrameBounds) -> Self {
        Self {
            part: Part::Header { bytes: [0; MAX_HEADER], have: 0 },
            open: None,
            text: Utf8::default(),
            reason: Utf8::default(),
            is_closed: false,
            bounds,
            is_careful: false,
            bytes: 0,
            fragments: 0,
        }
    }

    /// Is read frame by frame, so that [`Strict::admit`] holds from the next one on.
    pub fn careful(bounds: FrameBounds) -> Self {
        Self { is_careful: true, ..Self::new(bounds) }
    }

    /// Other bounds from the next message on, and nothing that would change them again.
    pub const fn admit(&mut self, bounds: FrameBounds) {
        self.bounds = bounds;
        self.is_careful = false;
    }

    /// How many bytes may be read now; `None`: as many as there are.
    pub fn may_read(&self) -> Option<usize> {
        self.is_careful.then(|| match &self.part {
            Part::Payload { left, .. } => usize::try_from(*left).unwrap_or(usize::MAX),
            Part::Header { have: have @ 0..2, .. } => 2 - have,
            Part::Header { bytes: [_, second, ..], have } => (2 + extended(*second) + MASK).saturating_sub(*have),
        })
    }

    /// Reads what has come. What stands before a violation is good: the number of those bytes comes with it.
    ///
    /// # Errors
    /// The first violation; nothing after it means anything.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), (usize, Violation)> {
        let mut rest = bytes;
        // RFC 6455, 5.5.1: nothing comes after a close.
        while let (false, [byte, after @ ..]) = (self.is_closed, rest) {
            if let Part::Payload { kind: Kind::Binary | Kind::Other, left, .. } = &mut self.part {
                // Nothing in it can be wrong.
                let here = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
                rest = rest.get(here..).unwrap_or_default();
                // A payload of this kind has no end that could be wrong.
                let _ = self.end_of_frame();
                continue;
            }
            self.take(*byte).map_err(|violation| (bytes.len() - rest.len(), violation))?;
            rest = after;
        }
        Ok(())
    }

    fn take(&mut self, byte: u8) -> Result<(), Violation> {
        match &mut self.part {
            Part::Header { bytes, have } => {
                if let Some(place) = bytes.get_mut(*have) {
                    *place = byte;
                }
                *have += 1;
                let (bytes, have) = (*bytes, *have);
                self.part = self.header(bytes, have)?;
                self.end_of_frame()
            }
            Part::Payload { kind, mask, at, left, .. } => {
                let key = mask.get(usize::try_from(*at % 4).unwrap_or(0)).copied().unwrap_or(0);
                let (kind, place, plain) = (*kind, *at, byte ^ key);
                *at += 1;
                *left -= 1;
                match kind {
                    Kind::Text => self.text.take(plain)?,
                    Kind::Close if place >= 2 => self.reason.take(plain)?,
                    Kind::Binary | Kind::Close | Kind::Other => {}
                }
                self.end_of_frame()
            }
        }
    }

    /// Looks at each byte of a header when it has come.
    fn header(&mut self, bytes: [u8; MAX_HEADER], have: usize) -> Result<Part, Violation> {
        let [first, second, ..] = bytes;
        let (is_last, opcode) = (first & 0x80 != 0, first & 0x0F);
        let is_control = opcode & 0x08 != 0;
        if have == 1 {
            if first & 0x70 != 0 {
                return Err(Violation::ReservedBit);
            }
            return match (opcode, self.open) {
                (3..=7 | 11..=15, _) => Err(Violation::ReservedOpcode),
                (8..=10, _) if !is_last => Err(Violation::LargeControl),
                (0, None) | (1 | 2, Some(_)) => Err(Violation::Fragment),
                _ => Ok(Part::Header { bytes, have }),
            };
        }
        let short = u64::from(second & 0x7F);
        if have == 2 {
            if second & 0x80 == 0 {
                return Err(Violation::Unmasked);
            }
            if is_control && short > MAX_CONTROL {
                return Err(Violation::LargeControl);
            }
            if opcode == 8 && short == 1 {
                return Err(Violation::Close);
            }
        }
        let extended = extended(second);
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if extended == 0 { short } else { number(bytes.get(2..2 + extended).unwrap_or(&[])) };
        let is_shortest = match extended {
            2 => length > MAX_CONTROL,
            8 => length > u64::from(u16::MAX) && length >> 63 == 0,
            _ => true,
        };
        if have == 2 + extended {
            if !is_shortest {
                return Err(Violation::Length);
            }
            if !is_control {
                self.count(length, is_last)?;
            }
        }
        let Some(&[a, b, c, d]) = bytes.get(2 + extended..6 + extended).filter(|_| have == 6 + extended) else {
            return Ok(Part::Header { bytes, have });
        };
        let kind = match (opcode, self.open) {
            (0, Some(open)) => open,
            (1, _) => Kind::Text,
            (2, _) => Kind::Binary,
            (8, _) => Kind::Close,
            _ => Kind::Other,
        };
        if !is_control {
            self.open = (!is_last).then_some(kind);
        }
        Ok(Part::Payload { kind, mask: [a, b, c, d], at: 0, left: length, is_last })
    }

    /// Counts a frame of a message; control frames, which may stand between them (5.4), have their own bound.
    fn count(&mut self, length: u64, is_last: bool) -> Result<(), Violation> {
        self.bytes = self.bytes.saturating_add(length);
        self.fragments += 1;
        if self.bytes > u64::try_from(self.bounds.bytes).unwrap_or(u64::MAX) {
            return Err(Violation::TooBig);
        }
        if self.fragments > self.bounds.fragments {
            return Err(Violation::TooManyFragments);
        }
        if is_last {
            (self.bytes, self.fragments) = (0, 0);
        }
        Ok(())
    }

    fn end_of_frame(&mut self) -> Result<(), Violation> {
        let Part::Payload { kind, left: 0, is_last, .. } = self.part else { return Ok(()) };
        self.part = Part::Header { bytes: [0; MAX_HEADER], have: 0 };
        match kind {
            Kind::Text if is_last => std::mem::take(&mut self.text).end(),
            Kind::Close => {
                self.is_closed = true;
                std::mem::take(&mut self.reason).end()
            }
            Kind::Text | Kind::Binary | Kind::Other => Ok(()),
        }
    }
}

/// UTF-8 as it comes (RFC 3629, 4): which bytes may be next.
#[derive(Debug, Clone, Copy)]
struct Utf8 {
    /// How many bytes the character still needs.
    needs: u8,
    /// The range of the next one: after some first bytes it is narrower (overlong forms, surrogates, above U+10FFFF).
    lowest: u8,
    highest: u8,
}

impl Default for Utf8 {
    fn default() -> Self {
        Self { needs: 0, lowest: 0x80, highest: 0xBF }
    }
}

impl Utf8 {
    fn take(&mut self, byte: u8) -> Result<(), Violation> {
        if self.needs > 0 {
            if !(self.lowest..=self.highest).contains(&byte) {
                return Err(Violation::NotUtf8);
            }
            *self = Self { needs: self.needs - 1, ..Self::default() };
            return Ok(());
        }
        let (needs, lowest, highest) = match byte {
            0x00..=0x7F => return Ok(()),
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Err(Violation::NotUtf8),
        };
        *self = Self { needs, lowest, highest };
        Ok(())
    }

    const fn end(self) -> Result<(), Violation> {
        if self.needs == 0 { Ok(()) } else { Err(Violation::NotUtf8) }
    }
}

#[cfg(test)]
#[path = "../../tests/it/client_frames.rs"]
mod client_frames;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: FrameBounds = FrameBounds { bytes: 1000, fragments: 3 };

    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    const BEGIN: u8 = 0x02;
    const MORE: u8 = 0x00;
    const LAST: u8 = 0x80;
    const PING: u8 = 0x89;

    const KEY: [u8; 4] = [1, 2, 3, 4];

    fn header(first: u8, length: u64) -> Vec<u8> {
        client_frames::header(first, length, KEY)
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        client_frames::frame(first, payload, KEY)
    }

    fn filled(first: u8, length: usize) -> Vec<u8> {
        frame(first, &vec![b'x'; length])
    }

    #[test]
    fn every_text_is_judged_as_the_standard_library_does_wherever_it_is_cut() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let odd =
            [0x00, 0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5];
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..random.usize(0..6)).map(|_| *random.choice(odd.iter()).unwrap()).collect();
            let bytes = frame(TEXT, &text);
            let mut strict = Strict::new(BOUNDS);
            let cut = random.usize(0..=bytes.len());
            let judged = strict.read(&bytes[..cut]).and_then(|()| strict.read(&bytes[cut..]));
            assert_eq!(judged.is_ok(), std::str::from_utf8(&text).is_ok(), "{text:x?} cut at {cut}");
        }
    }

    #[test]
    fn a_wrong_byte_is_found_where_it_stands() {
        let mut long = vec![0x81, 0xFE, 0x01, 0x00, 0, 0, 0, 0];
        long.extend(b"good \xF4\x90 and much more");
        assert_eq!(Strict::new(BOUNDS).read(&long), Err((14, Violation::NotUtf8)), "before the frame is whole");
        let two = [frame(BINARY, b"ok"), frame(0xC1, b"")].concat();
        assert_eq!(Strict::new(BOUNDS).read(&two), Err((8, Violation::ReservedBit)), "what stands before it is good");
    }

    /// What becomes of frames: how many of their bytes are good, and why not more. Cut everywhere, it is the same.
    fn check(frames: &[Vec<u8>], expected: Result<(), (usize, Violation)>) {
        let bytes = frames.concat();
        for cut in 0..=bytes.len() {
            let mut strict = Strict::new(BOUNDS);
            let (first, second) = bytes.split_at(cut);
            let rest = |(good, violation)| (cut + good, violation);
            let judged = strict.read(first).and_then(|()| strict.read(second).map_err(rest));
            assert_eq!(judged, expected, "{frames:?} cut at {cut}");
        }
    }

    #[test]
    fn messages_inside_the_bounds_pass_and_the_length_that_goes_beyond_them_does_not() {
        for kind in [TEXT, BINARY] {
            check(&[filled(kind, 1000), filled(kind, 0), filled(kind, 125), filled(kind, 126)], Ok(()));
            // The last byte of the length says it: 2 of 4, 8 of 10.
            check(&[filled(kind, 5), header(kind, 1001)], Err((11 + 3, Violation::TooBig)));
            check(&[filled(kind, 5), header(kind, 16 << 20)], Err((11 + 9, Violation::TooBig)));
            check(&[header(kind, u64::MAX >> 1)], Err((9, Violation::TooBig)));
        }
        check(&[header(PING, 16 << 20)], Err((1, Violation::LargeControl)));
        // Together they are too large.
        check(&[filled(BEGIN, 600), filled(PING, 5), filled(LAST, 400), filled(BINARY, 9)], Ok(()));
        check(&[filled(BEGIN, 600), filled(PING, 5), header(LAST, 401)], Err((608 + 11 + 3, Violation::TooBig)));
        // Three fragments are allowed, also empty ones, and pings between them are none.
        let empty = [filled(BEGIN, 0), filled(MORE, 0), filled(PING, 0), filled(LAST, 1), filled(BEGIN, 0)];
        check(&empty, Ok(()));
        check(
            &[filled(BEGIN, 0), filled(MORE, 0), filled(MORE, 0), filled(MORE, 0)],
            Err((18 + 1, Violation::TooManyFragments)),
        );
    }

    #[test]
    fn a_careful_machine_lets_no_byte_of_the_next_frame_be_read() {
        let frames = [filled(TEXT, 100), filled(PING, 0), filled(BINARY, 90), filled(TEXT, 7)];
        let mut strict = Strict::careful(FrameBounds { bytes: 100, fragments: 1 });
        for frame in &frames {
            let mut rest = &frame[..];
            while !rest.is_empty() {
                let most = strict.may_read().unwrap();
                assert!((1..=rest.len()).contains(&most), "{most} of {}", rest.len());
                strict.read(&rest[..most]).unwrap();
                rest = &rest[most..];
            }
        }
        strict.admit(BOUNDS);
        assert_eq!(strict.may_read(), None);
        strict.read(&filled(TEXT, 900)).unwrap();
        let beyond = strict.read(&header(TEXT, 1001));
        assert_eq!(beyond, Err((3, Violation::TooBig)), "the other bounds hold from the next frame on");
    }

    #[test]
    fn the_machine_of_a_connection_is_small() {
        // A connection has 8 KiB in all; two machines in a row took 152 bytes.
        assert!(size_of::<Strict>() <= 104, "{}", size_of::<Strict>());
    }
}
