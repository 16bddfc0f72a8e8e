//! The stream to the broker, the same for each version of MQTT: TCP, TLS and WebSocket, and what a failure of them means.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use rumqttc::NetworkOptions;
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use super::parting::Packets;
use crate::clock::Wall;
use crate::host;
use crate::uplink::access::{Access, BrokerAddress};

/// Largest message of a WebSocket from the broker: several packets of MQTT may share one.
const MAX_FRAME_BYTES: usize = 1024 * 1024;

/// Most that goes into one message of a WebSocket to the broker.
const MAX_SENT_FRAME_BYTES: usize = 64 * 1024;

/// MQTT 3.1.1, 6: the name of the subprotocol.
const SUBPROTOCOL: &str = "mqtt";

/// Anything that MQTT can go over.
pub(super) trait Carrier: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Carrier for T {}

/// Why there is no stream, where the error of the operating system does not say it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// This machine's clock is not set.
    #[error("{0}")]
    Clock(String),
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// Where to and how.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) broker: BrokerAddress,
    pub(super) access: Access,
    /// When the attempt began.
    pub(super) now: Wall,
    /// It was known then that nobody had set this machine's clock.
    pub(super) is_unset: bool,
    /// The broker's first packet refused this version of MQTT. The client of MQTT 5 cannot read that answer in the form of
    /// MQTT 3.1.1, which is two bytes short of one of MQTT 5.
    pub(super) refuses_version: AtomicBool,
    /// Something of MQTT has come from the broker.
    pub(super) has_spoken: AtomicBool,
    /// The reason code of the broker's DISCONNECT; 0: there is none.
    pub(super) parting: AtomicU8,
}

impl Target {
    /// True if this machine knows that its clock has not been set.
    pub(super) fn clock_is_unset(&self) -> bool {
        self.is_unset || self.access.timesync.as_deref().and_then(host::is_clock_unsynchronised) == Some(true)
    }

    /// A certificate is not valid yet: the clock, unless that is known to be right.
    fn not_yet_valid(&self) -> Failure {
        let now = self.now;
        if self.clock_is_unset() {
            return Failure::Clock(format!(
                "this machine's clock is not set: it says {now}, before the broker's certificate begins; waiting for the clock \
                 to be synchronised"
            ));
        }
        Failure::Other(format!(
            "the broker's certificate is not valid yet, and this machine's clock says {now}: check both"
        ))
    }

    /// The connection stood, and broke before TLS did: what a broker does that expects something else at this port.
    fn handshake_failure(&self, error: &io::Error) -> Failure {
        let (port, advice) = (self.broker.port, self.certificate_advice());
        Failure::Other(format!(
            "the broker breaks off TLS at port {port} ({error}): check mqtt.broker, it may not speak TLS there; {advice}"
        ))
    }

    /// True if TLS stood and the broker has ended it without a word of MQTT. The alert that says why may get lost with the
    /// connection.
    pub(super) fn is_silent(&self) -> bool {
        self.broker.transport.is_encrypted() && !self.has_spoken.load(Ordering::Relaxed)
    }

    /// What such an end is most often about.
    pub(super) const fn certificate_advice(&self) -> &'static str {
        if self.access.tls.identity.is_none() {
            "perhaps it wants a certificate of the bridge: set mqtt.tls.certificate and mqtt.tls.key"
        } else {
            "perhaps it refuses the bridge's certificate: check mqtt.tls.certificate and its authority"
        }
    }

    fn tls_failure(&self, error: &rustls::Error) -> Failure {
        let words = match error {
            rustls::Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                return self.not_yet_valid();
            }
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                format!("the broker's certificate has ended; this machine's clock says {}: renew it there", self.now)
            }
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "the broker's certificate is signed by nobody who is trusted here: name its authority in mqtt.tls.ca_file"
                    .to_owned()
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {
                let name = self.access.tls.server_name.as_deref().unwrap_or(&self.broker.host);
                format!("the broker's certificate is not for `{name}`: set mqtt.tls.server_name to a name that stands in it")
            }
            rustls::Error::InvalidMessage(_) => {
                format!("what answers at port {} does not speak TLS: check mqtt.broker", self.broker.port)
            }
            other => alert_words(other).unwrap_or_else(|| format!("no TLS with the broker: {other}")),
        };
        Failure::Other(words)
    }
}

/// The broker has ended TLS because of our certificate, or because there is none. With TLS 1.3 that comes only after the
/// handshake.
fn alert_words(error: &rustls::Error) -> Option<String> {
    use AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = error else { return None };
    Some(match alert {
        Alert::CertificateRequired | Alert::HandshakeFailure => format!(
            "the broker wants a certificate of the bridge ({alert:?}): set mqtt.tls.certificate and mqtt.tls.key"
        ),
        Alert::BadCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::AccessDenied
        | Alert::DecryptError
        | Alert::UnknownCA => {
            format!(
                "the broker refuses the bridge's certificate ({alert:?}): check mqtt.tls.certificate and its authority"
            )
        }
        other => format!("the broker has ended TLS: {other:?}"),
    })
}

/// An error of the stream in words, if it is one of those above.
pub(super) fn words(error: &io::Error) -> Option<String> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(alert_words)
}

/// Makes the stream. `address` is a host with its port.
pub(super) async fn connect(target: Arc<Target>, address: String, options: NetworkOptions) -> io::Result<Watched> {
    let tcp = rumqttc::default_socket_connect(address, options).await?;
    let stream: Box<dyn Carrier> =
        if target.broker.transport.is_encrypted() { Box::new(secure(&target, tcp).await?) } else { Box::new(tcp) };
    let stream =
        if target.broker.transport.is_web_socket() { Box::new(web_socket(&target, stream).await?) } else { stream };
    Ok(Watched { stream, target, first: [0; 4], seen: 0, packets: Packets::default() })
}

/// TLS over a connection.
pub(super) async fn secure<T: AsyncRead + AsyncWrite + Unpin>(target: &Target, tcp: T) -> io::Result<TlsStream<T>> {
    let files = target.access.tls.clone();
    // Files, and perhaps all the authorities of the system.
    let loaded = tokio::task::spawn_blocking(move || files.load()).await.map_err(io::Error::other)?;
    let wrong = |error: &dyn std::fmt::Display| io::Error::other(Failure::Other(error.to_string()));
    let config = loaded.map_err(|error| wrong(&error))?;
    let name = target.access.tls.name(&target.broker).map_err(|error| wrong(&error))?;
    let made = TlsConnector::from(config).connect(name, tcp).await;
    made.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(reason) => io::Error::other(target.tls_failure(reason)),
        None => io::Error::other(target.handshake_failure(&error)),
    })
}

async fn web_socket(target: &Target, stream: Box<dyn Carrier>) -> io::Result<Framed> {
    let failed = |words: String| io::Error::other(Failure::Other(words));
    let mut request = target
        .broker
        .to_string()
        .into_client_request()
        .map_err(|error| failed(format!("mqtt.broker is no address of a WebSocket: {error}")))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES));
    let made = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, _) = made.map_err(|error| match error {
        WebSocketError::Http(answer) => {
            let (status, path) = (answer.status(), &target.broker.path);
            failed(format!("the broker opens no WebSocket at `{path}`: {status}; check the path in mqtt.broker"))
        }
        other => failed(format!("the broker opens no WebSocket: {other}; check port and path in mqtt.broker")),
    })?;
    Ok(Framed { socket, rest: Bytes::new() })
}

/// MQTT in the messages of a WebSocket (MQTT 5.0, 6).
struct Framed {
    socket: WebSocketStream<Box<dyn Carrier>>,
    /// What of the last message has not been read.
    rest: Bytes,
}

impl AsyncRead for Framed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                // MQTT-6.0.0-1: binary only.
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::other(Failure::Other("the broker sends text".to_owned()))));
                }
                Some(Err(error)) => return Poll::Ready(Err(of_web_socket(error))),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.copy_to_bytes(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        ready!(socket.poll_ready(cx)).map_err(of_web_socket)?;
        let part = bytes.get(..bytes.len().min(MAX_SENT_FRAME_BYTES)).unwrap_or(bytes);
        let message = Message::Binary(Bytes::copy_from_slice(part));
        Pin::new(&mut self.socket).start_send(message).map_err(of_web_socket)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(of_web_socket)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(of_web_socket)
    }
}

fn of_web_socket(error: WebSocketError) -> io::Error {
    match error {
        WebSocketError::Io(error) => error,
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => io::ErrorKind::ConnectionAborted.into(),
        other => io::Error::other(Failure::Other(format!("the WebSocket breaks: {other}"))),
    }
}

/// A stream whose first packet from the broker is looked at, and its last.
pub(super) struct Watched {
    stream: Box<dyn Carrier>,
    target: Arc<Target>,
    first: [u8; 4],
    seen: usize,
    packets: Packets,
}

impl Watched {
    fn look(&mut self, bytes: &[u8]) {
        self.target.has_spoken.fetch_or(!bytes.is_empty(), Ordering::Relaxed);
        for (place, byte) in self.first.iter_mut().skip(self.seen).zip(bytes) {
            *place = *byte;
            self.seen = self.seen.saturating_add(1);
        }
        // CONNACK (0x20): in MQTT 3.1.1 (3.2.2.3) of two bytes with 0x01, in MQTT 5.0 (3.2.2.2) with 0x84.
        if matches!(self.first, [0x20, 2, _, 0x01] | [0x20, _, _, 0x84]) {
            self.target.refuses_version.store(true, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(new) = buffer.filled().get(before..) {
            if self.seen < self.first.len() {
                self.look(new);
            }
            if let Some(code) = self.packets.follow(new) {
                self.target.parting.store(code, Ordering::Relaxed);
            }
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
