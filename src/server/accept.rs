//! The accept loop: one deadline for a request's header, a limit on connections, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::tasks::{Role, Tasks};

/// Connections at once, sessions included; more are answered with 503.
pub const MAX_CONNECTIONS: usize = 1000;

/// A request's header must be complete by then.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// A request, its body included, is answered by then.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// After a failed accept (out of file descriptors) the loop waits this long instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A peer that does not acknowledge what was sent is given up after this time.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that may wait unsent in the kernel: what waits here can still be replaced by something newer.
const NOTSENT_LOWAT: u32 = 4096;

/// How long a refused client is given to read its refusal.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);

const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Accepts until told to stop.
///
/// # Errors
/// None today; a vital task returns a result.
pub async fn accept(
    listener: TcpListener,
    router: Router,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            // No new guests after closing time.
            () = stop.cancelled() => return Ok(()),
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
            debug!(%error, "a connection keeps the system's options");
        }
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            metrics.connections_refused_total.add_one();
            tasks.spawn(format!("refusal {peer}"), Role::Helper, refuse(stream));
            continue;
        };
        let (router, stop) = (router.clone(), stop.clone());
        tasks.spawn(format!("connection {peer}"), Role::Helper, async move {
            serve(stream, peer, router, stop, Some(slot)).await;
            Ok(())
        });
    }
}

/// The options of an accepted socket: no waiting for more to send, an end for who does not acknowledge, and little that
/// waits in the kernel.
fn tune(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)
}

async fn refuse(mut stream: tokio::net::TcpStream) -> anyhow::Result<()> {
    // Who hangs up before reading the refusal has lost nothing.
    let written: Result<io::Result<()>, _> = tokio::time::timeout(REFUSAL_DEADLINE, stream.write_all(REFUSAL)).await;
    debug!(complete = matches!(written, Ok(Ok(()))), "a connection was refused");
    Ok(())
}

/// Holds a connection's slot until its WebSocket ends too.
#[derive(Debug, Clone)]
pub struct Slot(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

/// Serves HTTP/1.1 on one stream; any stream, so that tests need no socket.
pub async fn serve<S>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
    slot: Option<OwnedSemaphorePermit>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slot = slot.map(|permit| Slot(Arc::new(permit)));
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(slot) = &slot {
            request.extensions_mut().insert(slot.clone());
        }
        let answer = router.clone().call(request);
        async move {
            // An upgrade answers at once; a body that does not come must not hold a place for ever.
            match tokio::time::timeout(REQUEST_DEADLINE, answer).await {
                Ok(answer) => answer,
                Err(_) => Ok(StatusCode::REQUEST_TIMEOUT.into_response()),
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let end = tokio::select! {
        // An answer under way is finished, then the connection closes.
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        end = connection.as_mut() => end,
    };
    if let Err(error) = end {
        debug!(%error, "a connection ended with an error");
    }
}
