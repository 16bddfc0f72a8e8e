//! Hostile requests and frames, one table: what each comes to, and that another client's stream did not stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use vitalbridge::vitals::Metric;

use super::{Came, Dashboard, HOST, Server, UserRole, patients};
use crate::client_frames;
use crate::dashboard::MESSAGE_LIMIT;

/// What an attack comes to.
enum Expected {
    /// An HTTP answer with this status, and then the end of the connection.
    Status(u16),
    /// As many HTTP answers as this on the connection, and then its end.
    Answers(usize),
    /// The server closes with this code, and says so before in a `closing`.
    Closed(u16),
    /// The connection ends: what came was no WebSocket.
    Failed,
    /// An `error` with this code; the session goes on.
    Error(&'static str),
}

use Expected::{Answers, Closed, Error, Failed, Status};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MORE: u8 = 0x0;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// Masked with zeroes, which leave the payload as it is.
const KEY: [u8; 4] = [0; 4];

fn header(first: u8, length: u64) -> Vec<u8> {
    client_frames::header(first, length, KEY)
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    client_frames::frame(first, payload, KEY)
}

/// A connection on which any bytes can be sent.
struct Raw {
    stream: DuplexStream,
    read: Vec<u8>,
}

impl Raw {
    /// Opens a WebSocket and signs in with the upgrade.
    async fn signed_in(server: &Server, user: &str, extra: &str) -> (Self, String) {
        let mut claims = server.claims(UserRole::Nurse);
        claims.sub = user.to_owned();
        let token = server.token(&claims);
        let mut raw = Self { stream: server.stream(), read: Vec::new() };
        let request = upgrade(HOST, &format!("authorization: Bearer {token}\r\n{extra}"));
        raw.stream.write_all(request.as_bytes()).await.unwrap();
        let head = raw.head().await;
        (raw, head)
    }

    /// The answer to the upgrade.
    async fn head(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more().await, "no answer to the upgrade");
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        head.to_lowercase()
    }

    /// Reads on; false at the end.
    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(MESSAGE_LIMIT, self.stream.read(&mut bytes)).await;
        let count = read.expect("an answer in time").unwrap_or(0);
        self.read.extend(&bytes[..count]);
        count > 0
    }

    /// The next frame of the server, which are never masked nor fragmented.
    async fn next(&mut self) -> Came {
        loop {
            if let [first, length, rest @ ..] = &self.read[..] {
                let (skip, length) = match (length, rest) {
                    (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                    (127, [_, _, _, _, a, b, c, d, ..]) => {
                        (10, usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap())
                    }
                    (length @ 0..126, _) => (2, usize::from(*length)),
                    _ => (usize::MAX, 0),
                };
                if let Some(payload) = self.read.get(skip..).and_then(|rest| rest.get(..length)) {
                    let (first, payload) = (*first, payload.to_vec());
                    self.read.drain(..skip + length);
                    match first & 0x0F {
                        TEXT => return Came::Message(serde_json::from_slice(&payload).unwrap()),
                        CLOSE => return Came::Closed(u16::from_be_bytes([payload[0], payload[1]])),
                        _ => continue,
                    }
                }
            }
            if !self.more().await {
                return Came::Broken;
            }
        }
    }

    /// Sends what the server may stop reading at any moment.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(MESSAGE_LIMIT, self.stream.write_all(bytes)).await;
    }
}

/// A request to become a WebSocket.
fn upgrade(host: &str, extra: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{extra}\r\n"
    )
}

fn post(extra: &str, body: &str) -> String {
    format!("POST /api/v1/sign-in HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n{extra}\r\n{body}")
}

/// Requests that are hostile before they are a WebSocket.
fn requests() -> Vec<(&'static str, String, Expected)> {
    let get = |path: &str, extra: &str| format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{extra}\r\n");
    let code = r#"{"code":"wrong"}"#;
    let length = format!("content-length: {}\r\n", code.len());
    let chunked = format!("{:x}\r\n{code}\r\n0\r\n\r\n{}", code.len(), get("/metrics", ""));
    vec![
        ("a name that was rebound to our address", upgrade("evil.example", "connection: close\r\n"), Status(421)),
        ("no name at all", upgrade("", "connection: close\r\n"), Status(421)),
        ("a foreign page", upgrade(HOST, "origin: https://evil.example\r\nconnection: close\r\n"), Status(403)),
        ("a page without an origin of its own", upgrade(HOST, "origin: null\r\nconnection: close\r\n"), Status(403)),
        ("two lengths of one body", post(&format!("{length}content-length: 5\r\n"), code), Status(400)),
        ("a length that is no number", post("content-length: +16\r\n", code), Status(400)),
        // RFC 9112, 6.1: the request may be taken by its chunks, but the connection ends after it. What was smuggled behind
        // it is not answered.
        ("a length and chunks", post(&format!("{length}transfer-encoding: chunked\r\n"), &chunked), Answers(1)),
        ("chunks and a length", post(&format!("transfer-encoding: chunked\r\n{length}"), &chunked), Answers(1)),
        ("chunks that are not last", post("transfer-encoding: chunked, gzip\r\n", &chunked), Status(400)),
        ("a folded header", get("/healthz", "x-one: a\r\n b\r\n"), Status(400)),
        ("a space before the colon", get("/healthz", "x-one : a\r\n"), Status(400)),
        ("a NUL in a header", get("/healthz", "x-one: a\0b\r\n"), Status(400)),
        ("a header of 100 KiB", get("/healthz", &format!("x-one: {}\r\n", "a".repeat(100 << 10))), Status(431)),
        ("a thousand headers", get("/healthz", &"x: y\r\n".repeat(1000)), Status(431)),
        ("an address of 100 KiB", get(&format!("/{}", "a".repeat(100 << 10)), ""), Status(431)),
        ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\r\n\r\n".to_owned(), Status(400)),
        ("a body of 100 KiB", post("content-length: 102400\r\n", &" ".repeat(100 << 10)), Status(400)),
    ]
}

/// Frames of somebody who has signed in.
fn frames() -> Vec<(&'static str, Vec<u8>, Expected)> {
    let ping = frame(FIN | TEXT, br#"{"type":"get_preferences"}"#);
    let unmasked = [FIN | TEXT, 2, b'{', b'}'];
    let too_long = header(FIN | TEXT, u64::MAX >> 1);
    let halves = [frame(TEXT, &vec![b'x'; 40_000]), header(FIN | MORE, 40_000)].concat();
    vec![
        ("16 MiB that are claimed and never come", header(FIN | TEXT, 16 << 20), Closed(4010)),
        ("8 EiB that are claimed", too_long, Closed(4010)),
        ("two halves that are too large together", halves, Closed(4010)),
        ("fragments without an end", [frame(TEXT, b"{"), frame(MORE, b" ").repeat(100_000)].concat(), Closed(4010)),
        ("empty fragments without an end", [frame(TEXT, b""), frame(MORE, b"").repeat(100_000)].concat(), Closed(4010)),
        ("a flood of messages", ping.repeat(2000), Closed(4203)),
        ("a flood of pings", frame(FIN | PING, b"x").repeat(20_000), Closed(4203)),
        ("a flood of pongs that nobody asked for", frame(FIN | 0xA, b"").repeat(20_000), Closed(4203)),
        ("a flood of empty messages", frame(FIN | TEXT, b"").repeat(20_000), Closed(4005)),
        ("JSON 20,000 levels deep", frame(FIN | TEXT, "[".repeat(20_000).as_bytes()), Error("format")),
        ("JSON 17 levels deep", frame(FIN | TEXT, deep(17).as_bytes()), Error("format")),
        ("JSON 16 levels deep is read", frame(FIN | TEXT, deep(16).as_bytes()), Error("unknown_type")),
        ("binary rubbish", frame(FIN | 0x2, &[0xFF; 1000]), Error("format")),
        ("text that is no UTF-8", frame(FIN | TEXT, &[b'"', 0xC3, 0x28, b'"']), Failed),
        ("text that is cut inside a character", frame(FIN | TEXT, &[0xE2, 0x82]), Failed),
        ("a frame without a mask", unmasked.to_vec(), Failed),
        ("a compressed frame", frame(FIN | RSV1 | TEXT, b"{}"), Failed),
        ("the other reserved bits", frame(FIN | 0x30 | TEXT, b"{}"), Failed),
        ("a reserved kind of data", frame(FIN | 0x3, b"{}"), Failed),
        ("a reserved kind of control", frame(FIN | 0xB, b"{}"), Failed),
        ("a ping of 126 bytes", frame(FIN | PING, &[0; 126]), Failed),
        ("a ping in fragments", frame(PING, b"x"), Failed),
        ("the middle of nothing", frame(FIN | MORE, b"{}"), Failed),
        ("a message inside another one", [frame(TEXT, b"{"), frame(FIN | TEXT, b"}")].concat(), Failed),
        ("a close of one byte", frame(FIN | CLOSE, &[3]), Failed),
        ("HTTP where frames are expected", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), Failed),
    ]
}

/// An object so many levels deep.
fn deep(levels: usize) -> String {
    let inner = levels - 1;
    format!(r#"{{"type":"fly","data":{}{}}}"#, "[".repeat(inner), "]".repeat(inner))
}

/// The stream of somebody who has done nothing wrong; it goes on in a task of its own.
struct Neighbour {
    newest: Arc<AtomicI32>,
    patient: String,
    sent: i32,
}

impl Neighbour {
    async fn watch(server: &Server) -> Self {
        let patient = patients(server)[0].clone();
        let mut claims = server.claims(UserRole::Viewer);
        claims.sub = "8".into();
        let bearer = format!("Bearer {}", server.token(&claims));
        let mut dashboard = server.dashboard(&[("Authorization", &bearer)]).await.unwrap();
        dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"], "delivery": "all"})).await;
        dashboard.next_of("snapshot").await;
        let newest = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&newest);
        server.site.tasks.spawn("neighbour", vitalbridge::tasks::Role::Helper, follow(dashboard, seen));
        Self { newest, patient, sent: 40 }
    }

    /// One more reading comes.
    async fn still_sees(&mut self, server: &Server, after: &str) {
        self.sent = 40 + (self.sent + 1) % 60;
        server.reading(&self.patient, Metric::Spo2, self.sent).await;
        let what = format!("the stream of the neighbour after {after}");
        crate::bridge::eventually(&what, MESSAGE_LIMIT, || {
            (self.newest.load(Ordering::Relaxed) == self.sent).then_some(())
        })
        .await;
    }
}

async fn follow(mut dashboard: Dashboard, newest: Arc<AtomicI32>) -> anyhow::Result<()> {
    loop {
        match dashboard.read().await {
            Came::Message(message) if message["data"]["metric"] == "spo2" => {
                let value = message["data"]["value"].as_i64().and_then(|value| i32::try_from(value).ok());
                newest.store(value.unwrap_or(0), Ordering::Relaxed);
            }
            Came::Message(_) | Came::Binary(_) => {}
            Came::Closed(_) | Came::Broken => return Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_nobody_else_notices() {
    let server = Server::start();
    let mut neighbour = Neighbour::watch(&server).await;
    for (name, request, expected) in requests() {
        let mut stream = server.stream();
        // The server may answer and close before everything is sent.
        let _ = tokio::time::timeout(MESSAGE_LIMIT, stream.write_all(request.as_bytes())).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "{name}: the connection did not end");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match expected {
            Status(status) => assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}"),
            Answers(count) => assert_eq!(answer.matches("HTTP/1.1 ").count(), count, "{name}: {answer}"),
            _ => unreachable!("a request has an answer"),
        }
        assert!(!answer.contains("HTTP/1.1 101"), "{name}: {answer}");
        neighbour.still_sees(&server, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_end_their_own_connection_and_nobody_else_notices() {
    let server = Server::start();
    let mut neighbour = Neighbour::watch(&server).await;
    for (number, (name, bytes, expected)) in frames().into_iter().enumerate() {
        // Each by another user, so that one's floods do not answer for another's.
        let (mut raw, _) = Raw::signed_in(&server, &format!("attacker-{number}"), "").await;
        raw.send(&bytes).await;
        check(name, &mut raw, expected).await;
        neighbour.still_sees(&server, name).await;
    }
}

async fn check(name: &str, raw: &mut Raw, expected: Expected) {
    let mut messages: Vec<Json> = Vec::new();
    let end = loop {
        match raw.next().await {
            Came::Message(message) if message["type"] == "error" && matches!(expected, Error(_)) => {
                messages.push(message);
                break None;
            }
            Came::Message(message) => messages.push(message),
            end => break Some(end),
        }
    };
    let last = messages.last().unwrap_or_else(|| panic!("{name}: not even a welcome"));
    match expected {
        Closed(code) => {
            assert_eq!(end, Some(Came::Closed(code)), "{name}");
            assert_eq!((&last["type"], &last["data"]["code"]), (&json!("closing"), &json!(code)), "{name}: {last}");
        }
        // RFC 6455, 7.1.7: the connection fails, with or without a close frame.
        Failed => assert!(matches!(end, Some(Came::Broken | Came::Closed(1002 | 1007))), "{name}: {end:?}"),
        Error(code) => {
            assert_eq!(last["data"]["code"], code, "{name}: {last}");
            raw.send(&frame(FIN | TEXT, br#"{"type":"ping","id":"still here"}"#)).await;
            loop {
                let Came::Message(message) = raw.next().await else { panic!("{name}: the session ended") };
                if message["type"] == "pong" {
                    assert_eq!(message["correlation_id"], "still here");
                    break;
                }
            }
        }
        Status(_) | Answers(_) => unreachable!("frames have no status"),
    }
}

#[tokio::test]
async fn compression_is_not_agreed_to() {
    let server = Server::start();
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let (mut raw, head) = Raw::signed_in(&server, "7", offer).await;
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    raw.send(&frame(FIN | TEXT, br#"{"type":"ping"}"#)).await;
    for expected in ["welcome", "authenticated", "pong"] {
        let Came::Message(message) = raw.next().await else { panic!("no {expected}") };
        assert_eq!(message["type"], expected);
    }
}
