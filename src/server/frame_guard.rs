//! How large a client's messages may be and in how many frames, judged by the frame headers while they come in: before
//! anything of a frame is kept.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Header bytes of a frame at most: two, eight of length, four of mask (RFC 6455, 5.2).
const MAX_HEADER: usize = 14;

/// What messages may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameBounds {
    /// Bytes of a message, over all its frames.
    pub bytes: usize,
    /// Frames of a message.
    pub fragments: usize,
}

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A frame, or the frames of a message together, are larger than allowed.
    #[error("a message is larger than allowed")]
    TooBig,
    /// A message comes in more frames than allowed.
    #[error("a message has more frames than allowed")]
    TooManyFragments,
}

/// Follows frames through a stream of bytes.
#[derive(Debug, Default)]
struct Headers {
    /// The header that is coming in.
    header: [u8; MAX_HEADER],
    /// How much of it is there.
    have: usize,
    /// Payload of the frame that is still to come.
    left: u64,
    /// Frames of the message so far.
    fragments: usize,
    /// Payload of the message so far, as its headers claim it.
    bytes: u64,
}

impl Headers {
    /// How many bytes the header has in all, as far as it can be told by now.
    fn needed(&self) -> usize {
        let [_, second, ..] = self.header;
        if self.have < 2 {
            return 2;
        }
        let length = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// How many bytes can be read without reading into the next frame.
    fn wanted(&self) -> usize {
        if self.left > 0 {
            return usize::try_from(self.left).unwrap_or(usize::MAX);
        }
        self.needed().saturating_sub(self.have)
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// A frame that is not allowed, and how many of these bytes were before its header.
    fn take(&mut self, mut bytes: &[u8], bounds: FrameBounds) -> Result<(), (usize, Violation)> {
        let total = bytes.len();
        let mut good = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u64::try_from(here).unwrap_or(self.left);
                bytes = bytes.get(here..).unwrap_or_default();
                good = total - bytes.len();
                continue;
            }
            let (Some((byte, rest)), Some(place)) = (bytes.split_first(), self.header.get_mut(self.have)) else {
                break;
            };
            *place = *byte;
            self.have += 1;
            bytes = rest;
            if self.have == self.needed() {
                self.judge(bounds).map_err(|violation| (good, violation))?;
                self.have = 0;
                if self.left == 0 {
                    good = total - bytes.len();
                }
            }
        }
        Ok(())
    }

    /// A header is complete.
    fn judge(&mut self, bounds: FrameBounds) -> Result<(), Violation> {
        let [first, second, rest @ ..] = self.header;
        let number = |bytes: usize| rest.iter().take(bytes).fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let length = match second & 0x7F {
            126 => number(2),
            127 => number(8),
            short => u64::from(short),
        };
        self.left = length;
        let most = u64::try_from(bounds.bytes).unwrap_or(u64::MAX);
        // RFC 6455, 5.2: opcodes from 8 on are control frames, which may stand between the fragments of a message.
        if first & 0x08 != 0 {
            return if length > most { Err(Violation::TooBig) } else { Ok(()) };
        }
        self.bytes = self.bytes.saturating_add(length);
        self.fragments += 1;
        if self.bytes > most {
            return Err(Violation::TooBig);
        }
        if self.fragments > bounds.fragments {
            return Err(Violation::TooManyFragments);
        }
        if first & 0x80 != 0 {
            (self.bytes, self.fragments) = (0, 0);
        }
        Ok(())
    }
}

/// A stream of frames that ends with an error where a message is not allowed. What stood before that message is read.
#[derive(Debug)]
pub struct FrameGuard<S> {
    stream: S,
    bounds: FrameBounds,
    /// The bounds may change with the next message: nothing beyond the frame that is coming in is read ahead.
    is_careful: bool,
    headers: Headers,
    violation: Option<Violation>,
}

impl<S> FrameGuard<S> {
    /// Reads frame by frame, so that [`FrameGuard::admit`] holds from the next one on.
    pub fn careful(stream: S, bounds: FrameBounds) -> Self {
        Self { stream, bounds, is_careful: true, headers: Headers::default(), violation: None }
    }

    /// Other bounds from the next message on, and nothing that would change them again.
    pub fn admit(&mut self, bounds: FrameBounds) {
        self.bounds = bounds;
        self.is_careful = false;
    }

    /// Why reading has ended, if it has.
    pub fn violation(&self) -> Option<Violation> {
        self.violation
    }

    /// The stream itself, for what is no frame.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameGuard<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(violation) = this.violation {
            return Poll::Ready(Err(io::Error::other(violation)));
        }
        let before = buffer.filled().len();
        let read = if this.is_careful {
            let most = this.headers.wanted().min(buffer.remaining());
            let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(most));
            let read = Pin::new(&mut this.stream).poll_read(context, &mut piece);
            let filled = piece.filled().len();
            buffer.advance(filled);
            read
        } else {
            Pin::new(&mut this.stream).poll_read(context, buffer)
        };
        if !matches!(read, Poll::Ready(Ok(()))) {
            return read;
        }
        let new = buffer.filled().get(before..).unwrap_or_default();
        if let Err((good, violation)) = this.headers.take(new, this.bounds) {
            this.violation = Some(violation);
            buffer.set_filled(before + good);
            if good == 0 {
                return Poll::Ready(Err(io::Error::other(violation)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameGuard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const BOUNDS: FrameBounds = FrameBounds { bytes: 1000, fragments: 3 };

    /// The first bytes of a masked frame.
    fn header(first: u8, length: u64) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(0x80 | 0x7E);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 0x7F);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes
    }

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = header(first, u64::try_from(length).unwrap());
        bytes.resize(bytes.len() + length, 0xAA);
        bytes
    }

    const TEXT: u8 = 0x81;
    const BEGIN: u8 = 0x01;
    const MORE: u8 = 0x00;
    const LAST: u8 = 0x80;
    const PING: u8 = 0x89;

    /// What becomes of frames: how many of their bytes are read, and why not more. Cut everywhere, it is the same.
    fn check(frames: &[Vec<u8>], read: usize, expected: Option<Violation>) {
        let bytes = frames.concat();
        let whole = Headers::default().take(&bytes, BOUNDS);
        assert_eq!(whole.err().map(|(_, violation)| violation), expected, "{frames:?}");
        assert_eq!(whole.err().map_or(bytes.len(), |(good, _)| good), read);
        for cut in 0..=bytes.len() {
            let mut headers = Headers::default();
            let (first, second) = bytes.split_at(cut);
            let end = headers.take(first, BOUNDS).and_then(|()| headers.take(second, BOUNDS));
            assert_eq!(end.err().map(|(_, violation)| violation), expected, "cut at {cut}");
        }
    }

    #[test]
    fn messages_inside_the_bounds_pass_and_the_first_beyond_them_does_not() {
        check(&[frame(TEXT, 1000), frame(TEXT, 0), frame(TEXT, 125), frame(TEXT, 126)], 1000 + 8 + 6 + 131 + 134, None);
        check(&[frame(TEXT, 5), header(TEXT, 1001)], 11, Some(Violation::TooBig));
        check(&[frame(TEXT, 5), header(TEXT, 16 << 20)], 11, Some(Violation::TooBig));
        check(&[header(TEXT, u64::MAX)], 0, Some(Violation::TooBig));
        check(&[header(PING, 16 << 20)], 0, Some(Violation::TooBig));
        // Together they are too large.
        check(&[frame(BEGIN, 600), frame(PING, 5), frame(LAST, 400), frame(TEXT, 9)], 608 + 11 + 408 + 15, None);
        check(&[frame(BEGIN, 600), frame(PING, 5), header(LAST, 401)], 608 + 11, Some(Violation::TooBig));
        // Three fragments are allowed, also empty ones, and pings between them are none.
        check(&[frame(BEGIN, 0), frame(MORE, 0), frame(PING, 0), frame(LAST, 1), frame(BEGIN, 0)], 6 * 4 + 7, None);
        check(
            &[frame(BEGIN, 0), frame(MORE, 0), frame(MORE, 0), frame(MORE, 0)],
            18,
            Some(Violation::TooManyFragments),
        );
    }

    #[tokio::test]
    async fn a_careful_guard_reads_no_byte_of_the_next_frame() {
        let (ours, mut theirs) = tokio::io::duplex(100_000);
        let mut guard = FrameGuard::careful(ours, FrameBounds { bytes: 100, fragments: 1 });
        let bytes = [frame(TEXT, 100), frame(TEXT, 900), header(TEXT, 1001)].concat();
        tokio::io::AsyncWriteExt::write_all(&mut theirs, &bytes).await.unwrap();
        let mut first = vec![0; 106];
        guard.read_exact(&mut first).await.unwrap();
        assert_eq!(first, frame(TEXT, 100));
        guard.admit(BOUNDS);
        let mut second = Vec::new();
        guard.read_to_end(&mut second).await.unwrap_err();
        assert_eq!(second, frame(TEXT, 900), "the other bounds hold from the next frame on");
        assert_eq!(guard.violation(), Some(Violation::TooBig));
    }
}
