//! A dashboard for tests: a WebSocket client over another library than the server's own.

use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload};
use http_body_util::Empty;
use hyper::Request;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::frames;

/// A message is awaited this long, also on a busy machine.
pub(crate) const MESSAGE_LIMIT: Duration = Duration::from_secs(20);

/// What came.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    /// A JSON message.
    Message(Json),
    /// A binary message.
    Binary(Vec<u8>),
    /// The server closed, with this code.
    Closed(u16),
    /// The connection broke.
    Broken,
}

/// A connected dashboard.
pub(crate) struct Dashboard {
    socket: FragmentCollector<TokioIo<Upgraded>>,
}

/// Headers of an upgrade beside the usual ones.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

impl Dashboard {
    /// Connects by TCP.
    pub(crate) async fn connect(address: &str, path: &str, headers: Headers<'_>) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        Self::over(stream, address, path, headers).await
    }

    /// Upgrades any stream.
    pub(crate) async fn over<S>(stream: S, host: &str, path: &str, headers: Headers<'_>) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut request = Request::get(format!("http://{host}{path}"))
            .header(HOST, host)
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header("Sec-WebSocket-Key", fastwebsockets::handshake::generate_key())
            .header("Sec-WebSocket-Version", "13");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let upgraded = fastwebsockets::handshake::client(&TokioExecutor::new(), request, stream).await;
        let (socket, _) = upgraded.map_err(|error| error.to_string())?;
        Ok(Self { socket: FragmentCollector::new(socket) })
    }

    /// Sends JSON.
    pub(crate) async fn say(&mut self, message: &Json) {
        self.say_text(&message.to_string()).await;
    }

    /// Sends any text.
    pub(crate) async fn say_text(&mut self, text: &str) {
        let frame = Frame::text(Payload::Borrowed(text.as_bytes()));
        // A server that has closed is noticed by the next read.
        let _ = self.socket.write_frame(frame).await;
    }

    /// Sends a binary message.
    pub(crate) async fn say_binary(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_frame(Frame::binary(Payload::Borrowed(bytes))).await;
    }

    /// Closes with this code, and waits for the answer.
    pub(crate) async fn leave(mut self, code: u16) {
        // A server that has closed is left all the same.
        let _ = self.socket.write_frame(Frame::close(code, b"")).await;
        while !matches!(self.read().await, Came::Closed(_) | Came::Broken) {}
    }

    /// What comes next.
    pub(crate) async fn read(&mut self) -> Came {
        loop {
            let read = tokio::time::timeout(MESSAGE_LIMIT, self.socket.read_frame()).await;
            let Ok(frame) = read.unwrap_or_else(|_| panic!("no message within {MESSAGE_LIMIT:?}")) else {
                return Came::Broken;
            };
            match frame.opcode {
                OpCode::Text => {
                    let message = serde_json::from_slice(&frame.payload).unwrap();
                    frames::check(&message);
                    return Came::Message(message);
                }
                OpCode::Binary => {
                    frames::check_binary(&frame.payload);
                    return Came::Binary(frame.payload.to_vec());
                }
                OpCode::Close => {
                    let code = frame.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    return Came::Closed(code);
                }
                _ => {}
            }
        }
    }

    /// The next message; anything else fails the test.
    pub(crate) async fn next(&mut self) -> Json {
        match self.read().await {
            Came::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The next message of a type; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Json {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }
}
