//! The accept loop: one deadline for TLS, header and upgrade together, a place for each connection, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};

use crate::metrics::Metrics;
pub use crate::server::bounds::{HANDSHAKE_DEADLINE, MAX_CONNECTIONS};
use crate::server::routes::failure;
use crate::server::seats::{Seat, Seats};
use crate::tasks::{Role, Tasks};

/// A request, its body included, is answered by then.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// A client that takes nothing of its answer for so long is left alone.
pub const WRITE_STALL: Duration = Duration::from_secs(10);

/// Largest header of a request; one more is answered with 431.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// After a failed accept (out of file descriptors) the loop waits this long instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long a refused client is given to read its refusal.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);

/// Sent data that nobody acknowledges for so long ends a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// So much may wait unsent in the kernel: what waits here can still be replaced by something newer.
const NOTSENT_LOWAT: u32 = 4096;

/// So much may wait encrypted, for the same reason: a record of TLS.
const TLS_BUFFER: usize = 16 * 1024;

/// What is read and dropped of a refused client's request: with it unread, the system would throw the refusal away.
const MAX_DROPPED_BYTES: usize = 64 * 1024;

/// What a client is told for which there is no room to be heard: as every error, `code` and `message`.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
    content-type: application/json\r\ncache-control: no-store\r\ncontent-length: 108\r\n\r\n\
    {\"code\":\"over_capacity\",\"message\":\"this bridge has as many connections as it may have, or your address has\"}";

/// What connections are let in to.
#[derive(Debug, Clone)]
pub struct Door {
    /// What is served.
    pub router: Router,
    /// Where connections run.
    pub tasks: Tasks,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who may be here.
    pub seats: Arc<Seats>,
    /// With TLS: its settings, which change on reload.
    pub tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    /// No new guests, and those that are here finish.
    pub stop: CancellationToken,
}

/// Accepts until told to stop.
///
/// # Errors
/// None today; a vital task returns a result.
pub async fn accept(listener: TcpListener, door: Door) -> anyhow::Result<()> {
    loop {
        let accepted = tokio::select! {
            biased;
            // No new guests after closing time.
            () = door.stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = tune(&stream) {
            debug!(%error, "a connection keeps the options of the system");
        }
        let Some(seat) = door.seats.enter(peer.ip()) else {
            door.metrics.connections_refused_total.add_one();
            // Without a handshake nobody could read the refusal.
            if door.tls.is_none() {
                door.tasks.spawn(format!("refusal {peer}"), Role::Helper, refuse(stream));
            }
            continue;
        };
        let inside = door.clone();
        door.tasks.spawn_bare(format!("connection {peer}"), Role::Helper, async move {
            let times = Times::of(&inside);
            if has_begun(&stream, &inside, times).await {
                receive_by(stream, peer, inside, Some(seat), times).await;
            }
            Ok(())
        });
    }
}

/// The options of an accepted socket: no waiting for more to send, an end for who does not acknowledge, and little that
/// waits in the kernel.
fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> anyhow::Result<()> {
    let told = async {
        stream.write_all(REFUSAL).await?;
        stream.shutdown().await?;
        let (mut rubbish, mut dropped) = ([0; 1024], 0);
        while dropped < MAX_DROPPED_BYTES {
            match stream.read(&mut rubbish).await? {
                0 => break,
                count => dropped += count,
            }
        }
        io::Result::Ok(())
    };
    // Who hangs up before reading the refusal has lost nothing.
    let told = tokio::time::timeout(REFUSAL_DEADLINE, told).await;
    debug!(complete = matches!(told, Ok(Ok(()))), "a connection was refused");
    Ok(())
}

/// Serves one connection, with TLS if the door has it; any stream, so that tests need no socket.
pub async fn receive<S>(stream: S, peer: SocketAddr, door: Door, seat: Option<Seat>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let times = Times::of(&door);
    receive_by(stream, peer, door, seat, times).await;
}

/// Waits for the first byte, within the deadline: who has said nothing yet costs no buffer.
async fn has_begun(stream: &TcpStream, door: &Door, times: Times) -> bool {
    tokio::select! {
        biased;
        () = door.stop.cancelled() => false,
        ready = tokio::time::timeout_at(times.deadline, stream.readable()) => {
            if ready.is_err() {
                debug!("a connection brought nothing in time");
                if door.tls.is_some() {
                    door.metrics.handshakes_late_total.add_one();
                }
            }
            // What is wrong with the stream is found by who reads it.
            ready.is_ok()
        }
    }
}

async fn receive_by<S>(stream: S, peer: SocketAddr, door: Door, seat: Option<Seat>, times: Times)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Each way is a box: one that is not gone must not cost its room, and both have a thousand times a moment of it.
    match door.tls.clone() {
        None => Box::pin(serve_by(stream, peer, door.router, door.stop, seat, times)).await,
        Some(tls) => Box::pin(receive_encrypted(stream, peer, door, &tls, seat, times)).await,
    }
}

async fn receive_encrypted<S>(
    stream: S,
    peer: SocketAddr,
    door: Door,
    tls: &watch::Receiver<Arc<rustls::ServerConfig>>,
    seat: Option<Seat>,
    times: Times,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
    let limited = acceptor.accept_with(stream, |connection| connection.set_buffer_limit(Some(TLS_BUFFER)));
    let encrypted = tokio::select! {
        biased;
        // Nobody who is still shaking hands holds up the end.
        () = door.stop.cancelled() => return,
        shaken = tokio::time::timeout_at(times.deadline, limited) => match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                door.metrics.tls_failed_total.add_one();
                debug!(%error, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                door.metrics.handshakes_late_total.add_one();
                return;
            }
        },
    };
    serve_by(encrypted, peer, door.router, door.stop, seat, times).await;
}

/// Holds a connection's place until its WebSocket ends too.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Seat>);

impl Slot {
    /// See [`Seat::is_undecided`].
    pub fn is_undecided(&self) -> bool {
        self.0.is_undecided()
    }

    /// See [`Seat::settle`].
    pub fn settle(&self, is_admin: bool) -> bool {
        self.0.settle(is_admin)
    }
}

/// By when an upgrade has to be complete.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeBy(pub Instant);

/// A moment of the runtime's clock, by which its timers go.
pub(super) fn from_now(span: Duration) -> Instant {
    tokio::time::sleep(span).deadline()
}

/// When the first request has to be there, and how long each later one may take to come.
#[derive(Debug, Clone, Copy)]
struct Times {
    deadline: Instant,
    handshake: Duration,
}

impl Times {
    /// Of a connection that has just come.
    fn of(door: &Door) -> Self {
        let handshake = door.seats.limits().handshake;
        Self { deadline: from_now(handshake), handshake }
    }
}

/// Serves HTTP/1.1 on one stream, with the usual deadlines.
pub async fn serve<S>(stream: S, peer: SocketAddr, router: Router, stop: CancellationToken, seat: Option<Seat>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let times = Times { deadline: from_now(HANDSHAKE_DEADLINE), handshake: HANDSHAKE_DEADLINE };
    serve_by(stream, peer, router, stop, seat, times).await;
}

async fn serve_by<S>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
    seat: Option<Seat>,
    times: Times,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slot = seat.map(|seat| Slot(Arc::new(seat)));
    // Cancelled once the first header is complete.
    let begun = CancellationToken::new();
    let service = {
        let begun = begun.clone();
        service_fn(move |mut request: hyper::Request<Incoming>| {
            let by = if begun.is_cancelled() { from_now(times.handshake) } else { times.deadline };
            begun.cancel();
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(UpgradeBy(by));
            if let Some(slot) = &slot {
                request.extensions_mut().insert(slot.clone());
            }
            let answer = router.clone().call(request);
            async move {
                // An upgrade answers at once; a body that does not come must not hold a place for ever.
                match tokio::time::timeout(REQUEST_DEADLINE, answer).await {
                    Ok(answer) => answer,
                    Err(_) => Ok(late()),
                }
            }
        })
    };
    // In one place from the beginning: a future that is moved once has room for it twice.
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            // Of each request, and so also of one that never comes: an idle connection ends after this time.
            .header_read_timeout(times.handshake)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(Unstalled::new(stream)), service)
            .with_upgrades()
    );
    let end = tokio::select! {
        biased;
        // An answer under way is finished, then the connection closes.
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(REQUEST_DEADLINE, connection).await {
                Ok(end) => end,
                Err(_) => return,
            }
        }
        end = connection.as_mut() => end,
        // hyper's own timer began after the TLS handshake.
        () = overdue(&begun, times.deadline) => {
            debug!("a connection brought no request in time");
            return;
        }
    };
    if let Err(error) = end {
        debug!(%error, "a connection ended with an error");
    }
}

/// The answer to a request that did not come in time; what may still come of it is not waited for.
fn late() -> Response {
    let mut response = failure(StatusCode::REQUEST_TIMEOUT, "timeout", "the request did not come in time");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Comes at the deadline, unless the first request has.
async fn overdue(begun: &CancellationToken, deadline: Instant) {
    if begun.run_until_cancelled(tokio::time::sleep_until(deadline)).await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// A stream whose writes fail once nothing has been taken of them for [`WRITE_STALL`].
#[derive(Debug)]
pub struct Unstalled<S> {
    stream: S,
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    /// A stream that has not stalled.
    pub const fn new(stream: S) -> Self {
        Self { stream, stall: None }
    }

    /// What a write came to, or the end of patience.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_STALL)));
        stall.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closed = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(closed, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_accepted_socket_has_its_options() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        tune(&stream).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(20)));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 4096);
    }

    #[tokio::test]
    async fn who_is_refused_unheard_is_told_as_everybody_else() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let (refused, answer) = tokio::join!(refuse(server), async {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            client.shutdown().await.unwrap();
            String::from_utf8(answer).unwrap()
        });
        refused.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nretry-after: 5\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}: {}", body.len());
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["code"], "over_capacity");
        assert!(json["message"].is_string());
    }
}
