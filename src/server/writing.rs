//! The stream under a WebSocket: what goes out waits here as shared frames and leaves in one write, and what comes in is
//! looked at strictly before the library sees it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::outbox::Frame;
use crate::server::strict::{FrameBounds, Strict, Violation};

/// Bytes that are read at once; a longer message gets its room when its header has come. The library's default of 128 KiB
/// costs twenty times the memory of a connection, and 4 KiB would be half of all that one has.
const READ_BUFFER: usize = 256;

/// Bytes of one write: what the kernel keeps unsent (`TCP_NOTSENT_LOWAT`). It takes no more at once, and after a partial
/// write the socket is ready only when the client has acknowledged, which it may put off for 40 ms.
const BYTES_A_WRITE: usize = 4096;

/// Pieces of one write.
const PIECES: usize = 64;

/// What the library may add while nothing is taken: a client that pings and does not read gets no more answers.
const LIBRARYS_SHARE: usize = 1024;

/// Room for frames that a connection keeps while it has none.
const KEPT_ROOM: usize = 2;

/// A WebSocket of a server over an upgraded stream, which takes what `strict` takes and messages of at most `max_message`
/// bytes, also once other bounds are admitted.
pub async fn websocket<S>(stream: S, strict: Strict, max_message: usize) -> WebSocketStream<Writing<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What the library itself writes (pongs, the answer to a close) is taken at once.
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(LIBRARYS_SHARE)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    WebSocketStream::from_raw_socket(Writing::new(stream, strict), Role::Server, Some(config)).await
}

/// Tells a client what it did wrong, and hears it out: a reset would take the reason away. A peer that does not end is for
/// the caller's deadline.
///
/// # Errors
/// The stream's.
pub async fn refuse<S>(socket: &mut WebSocketStream<Writing<S>>, violation: Violation) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let writing = socket.get_mut();
    writing.push(Frame::close(violation.code(), ""));
    writing.shutdown().await?;
    let mut rest = [0; 512];
    while writing.stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Sends the answer to a client's close (RFC 6455, 5.5.1), which the library has ready.
pub async fn answer_close<S>(socket: &mut WebSocketStream<Writing<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(_)) = socket.next().await {}
    let writing = socket.get_mut();
    // The library has written it, and this stream keeps it until it is drained. The client may have gone.
    let _ = poll_fn(|cx| writing.poll_drain(cx)).await;
}

/// The stream with what waits to be written. Its frames are never torn apart: the library's own go behind them.
#[derive(Debug)]
pub struct Writing<S> {
    stream: S,
    waiting: VecDeque<Bytes>,
    strict: Strict,
    violation: Option<Violation>,
}

impl<S> Writing<S> {
    const fn new(stream: S, strict: Strict) -> Self {
        Self { stream, waiting: VecDeque::new(), strict, violation: None }
    }

    /// Takes other messages from the next one on.
    pub const fn admit(&mut self, bounds: FrameBounds) {
        self.strict.admit(bounds);
    }

    /// The stream itself, to read from.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Puts a frame behind those that wait; [`Writing::poll_drain`] writes them.
    pub fn push(&mut self, frame: Frame) {
        self.waiting.push_back(frame.into_bytes());
    }

    /// What the client did wrong; reading ended there.
    pub const fn violation(&self) -> Option<Violation> {
        self.violation
    }
}

impl<S: AsyncWrite + Unpin> Writing<S> {
    /// Writes until nothing waits, as many frames at once as the stream takes.
    ///
    /// # Errors
    /// The stream's.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.waiting.front() {
            let stream = Pin::new(&mut self.stream);
            let written = if self.waiting.len() == 1 || first.len() >= BYTES_A_WRITE {
                ready!(stream.poll_write(cx, first.get(..BYTES_A_WRITE).unwrap_or(first)))?
            } else {
                let (mut pieces, mut count, mut room) = ([IoSlice::new(&[]); PIECES], 0, BYTES_A_WRITE);
                for (piece, bytes) in pieces.iter_mut().zip(&self.waiting) {
                    if room == 0 {
                        break;
                    }
                    let part = bytes.get(..room).unwrap_or(bytes);
                    *piece = IoSlice::new(part);
                    (count, room) = (count + 1, room - part.len());
                }
                ready!(stream.poll_write_vectored(cx, pieces.get(..count).unwrap_or(&[])))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.forget(written);
        }
        self.waiting.shrink_to(KEPT_ROOM);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn forget(&mut self, mut written: usize) {
        while let Some(first) = self.waiting.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.waiting.pop_front();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Writing<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(violation) = this.violation {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
        }
        let before = buf.filled().len();
        match this.strict.may_read() {
            None => ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?,
            Some(most) => {
                let mut piece = ReadBuf::new(buf.initialize_unfilled_to(most.min(buf.remaining())));
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
                let filled = piece.filled().len();
                buf.advance(filled);
            }
        }
        let read = buf.filled().get(before..).unwrap_or(&[]);
        if let Err((good, violation)) = this.strict.read(read) {
            this.violation = Some(violation);
            // What came before it is answered first.
            buf.set_filled(before + good);
            if good == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The library's own frames; each of its writes has whole ones.
impl<S: AsyncWrite + Unpin> AsyncWrite for Writing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= PIECES {
            ready!(self.poll_drain(cx))?;
        }
        self.waiting.push_back(Bytes::copy_from_slice(bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes so many bytes in all, and counts how often it is written to.
    #[derive(Debug, Default)]
    struct Socket {
        room: usize,
        taken: Vec<u8>,
        writes: usize,
    }

    impl AsyncRead for Socket {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            if self.room == 0 {
                return Poll::Pending;
            }
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(self.room).collect();
            self.writes += 1;
            self.room -= bytes.len();
            self.taken.extend(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn over(room: usize) -> Writing<Socket> {
        let strict = Strict::new(FrameBounds { bytes: 1000, fragments: 3 });
        Writing::new(Socket { room, ..Socket::default() }, strict)
    }

    #[test]
    fn all_that_waits_leaves_in_one_write_and_a_torn_frame_is_finished_before_another() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let frames: Vec<Frame> = (0..40).map(|number| Frame::text(&format!("message {number}"))).collect();
        let all: Vec<u8> = frames.iter().flat_map(|frame| frame.clone().into_bytes()).collect();
        let mut writing = over(10_000);
        writing.waiting.extend(frames.iter().cloned().map(Frame::into_bytes));
        assert!(writing.poll_drain(&mut cx).is_ready());
        assert_eq!((writing.stream.writes, &writing.stream.taken), (1, &all));
        assert!(writing.waiting.capacity() < 40, "room for a burst is not kept");

        let long = Frame::text(&"x".repeat(2 * BYTES_A_WRITE));
        for first in [&frames[..], &[]] {
            let mut writing = over(100_000);
            writing.waiting.extend(first.iter().chain([&long]).cloned().map(Frame::into_bytes));
            assert!(writing.poll_drain(&mut cx).is_ready());
            assert_eq!(writing.stream.writes, 3, "no write has more than the kernel keeps");
            assert!(writing.stream.taken.ends_with(&long.clone().into_bytes()));
        }

        for room in 0..all.len() {
            let mut writing = over(room);
            writing.waiting.extend(frames.iter().cloned().map(Frame::into_bytes));
            assert!(writing.poll_drain(&mut cx).is_pending());
            // The library answers a ping meanwhile.
            let pong = [0x8A, 1, b'!'];
            assert!(Pin::new(&mut writing).poll_write(&mut cx, &pong).is_ready());
            writing.stream.room = 10_000;
            assert!(writing.poll_drain(&mut cx).is_ready());
            assert_eq!(writing.stream.taken, [&all[..], &pong].concat(), "room for {room} at first");
        }
    }

    #[test]
    fn what_the_library_adds_is_bounded_while_nothing_is_taken() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut writing = over(0);
        let taken = (0..1000).take_while(|_| Pin::new(&mut writing).poll_write(&mut cx, &[0x8A, 0]).is_ready()).count();
        assert_eq!(taken, PIECES);
    }

    #[tokio::test]
    async fn what_stands_before_a_violation_is_read_and_a_careful_stream_reads_no_byte_of_the_next_frame() {
        let (ours, mut theirs) = tokio::io::duplex(100_000);
        let strict = Strict::careful(FrameBounds { bytes: 4, fragments: 1 });
        let mut writing = Writing::new(ours, strict);
        let frame = |length: u8| [&[0x82, 0x80 | length, 0, 0, 0, 0][..], &vec![7; usize::from(length)]].concat();
        theirs.write_all(&[frame(4), frame(9), frame(101)].concat()).await.unwrap();
        let mut first = vec![0; 10];
        writing.read_exact(&mut first).await.unwrap();
        assert_eq!(first, frame(4));
        writing.admit(FrameBounds { bytes: 100, fragments: 1 });
        let mut second = Vec::new();
        writing.read_to_end(&mut second).await.unwrap_err();
        assert_eq!(second, [&frame(9)[..], &[0x82]].concat(), "the other bounds hold from the next frame on");
        assert_eq!(writing.violation(), Some(Violation::TooBig));
    }
}
