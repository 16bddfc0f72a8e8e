//! Half-open and dripping connections: in TLS, in the header, in the body, idle, and reading nothing. In virtual time.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, WriteHalf};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::Clock;
use vitalbridge::server::accept::{self, Door, REQUEST_DEADLINE, WRITE_STALL};
use vitalbridge::server::bounds::{CloseCodes, HANDSHAKE_DEADLINE, ServerLimits};
use vitalbridge::server::routes::router;
use vitalbridge::server::tls::{self, Identity, TlsConfig};
use vitalbridge::tasks::Role;

use super::{HOST, Server};

/// A byte comes this often.
const DRIP: Duration = Duration::from_millis(400);

/// How exactly ends are told: a drip, and what the runtime needs.
const ABOUT: Duration = Duration::from_millis(500);

impl Server {
    /// What connections are let in to, over TLS if there is any.
    pub(super) fn door(&self, tls: Option<Arc<rustls::ServerConfig>>) -> Door {
        Door {
            router: router(self.site.clone()),
            tasks: self.site.tasks.clone(),
            metrics: Arc::clone(&self.site.gate.metrics),
            seats: Arc::clone(&self.site.gate.seats),
            tls: tls.map(|tls| watch::Sender::new(tls).subscribe()),
            stop: CancellationToken::new(),
        }
    }

    /// A connection through the door; the buffer between has this size.
    pub(super) fn through(&self, door: Door, address: [u8; 4], buffer: usize) -> Option<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let seat = door.seats.enter(address.into())?;
        self.site.tasks.spawn("connection", Role::Helper, async move {
            accept::receive(theirs, (address, 50_000).into(), door, Some(seat)).await;
            Ok(())
        });
        Some(ours)
    }
}

fn in_virtual_time() -> (Server, Clock) {
    let clock = Clock::tokio(Clock::System.now());
    (Server::with(ServerLimits::default(), CloseCodes::Own, clock.clone()), clock)
}

/// Sends byte after byte, one a pause, for ever.
async fn drip(mut to: WriteHalf<impl AsyncRead + AsyncWrite>, bytes: Vec<u8>, pause: Duration) {
    for byte in bytes {
        if to.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
    std::future::pending::<()>().await;
}

/// How long the connection lasts while these bytes are sent at once and those drip; and what is answered.
async fn lasts(clock: &Clock, stream: DuplexStream, at_once: &str, dripping: &str) -> (Duration, String) {
    let begin = clock.now().mono;
    let (mut from, mut to) = tokio::io::split(stream);
    to.write_all(at_once.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::select! {
        // It ends or breaks; both are an end.
        _ = from.read_to_end(&mut answer) => {}
        () = drip(to, dripping.as_bytes().to_vec(), DRIP) => {}
    }
    (clock.now().mono.since(begin), String::from_utf8_lossy(&answer).into_owned())
}

#[track_caller]
fn about(what: &str, took: Duration, expected: Duration) {
    assert!(took + ABOUT >= expected && took <= expected + ABOUT, "{what}: {took:?} instead of {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drips_or_says_nothing_ends_at_the_deadline() {
    let (server, clock) = in_virtual_time();
    let header = format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\nx-long: {}", "a".repeat(10_000));
    let get = format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let post = format!(
        "POST /api/v1/sign-in HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
    );
    let unread = format!("POST /nothing HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 9999\r\n\r\n");
    let spaces = " ".repeat(9999);
    for (what, at_once, dripping, expected, status) in [
        ("nothing at all", "", "", HANDSHAKE_DEADLINE, ""),
        ("a byte of the header every 400 ms", "", header.as_str(), HANDSHAKE_DEADLINE, ""),
        ("a header that stops", &header, "", HANDSHAKE_DEADLINE, ""),
        ("idle after an answer", &get, "", HANDSHAKE_DEADLINE, "200"),
        ("a second header that drips", &get, &header, HANDSHAKE_DEADLINE, "200"),
        ("a byte of the body every 400 ms", &post, &spaces, REQUEST_DEADLINE, "408"),
        ("a body that does not come", &post, "", REQUEST_DEADLINE, "408"),
        ("a body that nobody reads", &unread, &spaces, Duration::ZERO, "404"),
    ] {
        let stream = server.through(server.door(None), [192, 0, 2, 1], 64 * 1024).unwrap();
        let (took, answer) = lasts(&clock, stream, at_once, dripping).await;
        about(what, took, expected);
        assert_eq!(answer.split(' ').nth(1).unwrap_or(""), status, "{what}: {answer}");
    }
    assert_eq!(server.site.gate.seats.occupied().connections, 0, "all have given their places back");
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_the_answer_is_left_alone() {
    let (server, clock) = in_virtual_time();
    let mut stream = server.through(server.door(None), [192, 0, 2, 1], 1024).unwrap();
    let begin = clock.now().mono;
    stream.write_all(format!("GET /app.js HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    while server.site.gate.seats.occupied().connections > 0 {
        assert!(clock.now().mono.since(begin) < WRITE_STALL * 3, "nobody ends it");
        tokio::time::sleep(DRIP).await;
    }
    about("an answer that is not read", clock.now().mono.since(begin), WRITE_STALL);
}

fn secured() -> (tempfile::TempDir, tls::Loaded, TlsConnector) {
    let dir = tempfile::tempdir().unwrap();
    let settings = TlsConfig { identity: Identity::SelfSigned { names: Vec::new() }, clients: None };
    let loaded = tls::load(&settings, dir.path(), Clock::System.now().wall).unwrap();
    let connector = crate::tls::connector(&dir.path().join(tls::CERTIFICATE_FILE), None);
    (dir, loaded, connector)
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_one_for_tls_and_header() {
    let (server, clock) = in_virtual_time();
    let (_dir, loaded, connector) = secured();
    let connect = || server.through(server.door(Some(Arc::clone(&loaded.server))), [192, 0, 2, 1], 64 * 1024).unwrap();

    // The beginning of a TLS 1.2 record that would be a handshake of 500 bytes.
    let hello = "\u{16}\u{3}\u{1}\u{1}\u{7f}";
    for (what, at_once, dripping) in
        [("no handshake", "", ""), ("half a handshake", hello, ""), ("a byte of it every 400 ms", "", hello)]
    {
        let (took, answer) = lasts(&clock, connect(), at_once, dripping).await;
        about(what, took, HANDSHAKE_DEADLINE);
        assert_eq!(answer, "", "{what}");
    }
    assert_eq!(server.site.gate.metrics.handshakes_late_total.get(), 3);

    // 4 s for the handshake; for the header there is 1 s left.
    let begin = clock.now().mono;
    let (ours, relay) = tokio::io::duplex(64 * 1024);
    let (mut from_client, mut to_client) = tokio::io::split(relay);
    let (mut from_server, mut to_server) = tokio::io::split(connect());
    let slowly = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        tokio::io::copy(&mut from_client, &mut to_server).await
    };
    let client = async {
        let stream = connector.connect("localhost".try_into().unwrap(), ours).await.unwrap();
        about("the handshake", clock.now().mono.since(begin), Duration::from_secs(4));
        let (mut from, to) = tokio::io::split(stream);
        let mut answer = Vec::new();
        tokio::select! {
            _ = from.read_to_end(&mut answer) => {}
            () = drip(to, b"GET /healthz HTTP/1.1\r\n".to_vec(), DRIP) => {}
        }
    };
    tokio::select! {
        () = client => {}
        _ = async { tokio::join!(slowly, tokio::io::copy(&mut from_server, &mut to_client)) } => {}
    }
    about("handshake and header together", clock.now().mono.since(begin), HANDSHAKE_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_no_tls_ends_at_once_and_a_good_one_is_served() {
    let (server, clock) = in_virtual_time();
    let (_dir, loaded, connector) = secured();
    let connect = || server.through(server.door(Some(Arc::clone(&loaded.server))), [192, 0, 2, 1], 64 * 1024).unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let (took, answer) = lasts(&clock, connect(), &request, "").await;
    about("HTTP on the port of https", took, Duration::ZERO);
    assert!(!answer.contains("HTTP"), "{answer}");
    assert_eq!(server.site.gate.metrics.tls_failed_total.get(), 1);

    let mut stream = connector.connect("localhost".try_into().unwrap(), connect()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The end may come without TLS's own goodbye.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
