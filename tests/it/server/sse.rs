//! Server-sent events: the same frames as over the WebSocket, and the same place to go on from.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::io::DuplexStream;
use vitalbridge::clock::Clock;
use vitalbridge::server::auth::Capability;
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::jwt::Claims;
use vitalbridge::tasks::Role;
use vitalbridge::vitals::Metric;

use super::{Dashboard, HOST, Server, UserRole, patients};
use crate::bridge::now;
use crate::dashboard::MESSAGE_LIMIT;

/// An event as it came.
#[derive(Debug)]
struct Sent {
    id: Option<String>,
    retry: Option<u64>,
    data: Json,
}

/// A client of `/sse`.
struct Listening {
    body: Incoming,
    text: String,
}

impl Listening {
    /// Connects; a refusal is its status and its body.
    async fn open(
        server: &Server,
        claims: Option<&Claims>,
        query: &str,
        last: Option<&str>,
    ) -> Result<Self, (u16, Json)> {
        Self::over(server, server.stream(), claims, query, last).await
    }

    /// As [`Listening::open`], over this stream.
    async fn over(
        server: &Server,
        stream: DuplexStream,
        claims: Option<&Claims>,
        query: &str,
        last: Option<&str>,
    ) -> Result<Self, (u16, Json)> {
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        server.site.tasks.spawn("client", Role::Helper, async move {
            let _ = connection.await;
            Ok(())
        });
        let mut request = hyper::Request::get(format!("/sse{query}")).header("host", HOST);
        if let Some(claims) = claims {
            request = request.header("authorization", format!("Bearer {}", server.token(claims)));
        }
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        if status != 200 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            return Err((status, serde_json::from_slice(&body).unwrap()));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        // The connection lives as long as its body.
        std::mem::forget(sender);
        Ok(Self { body: response.into_body(), text: String::new() })
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let line = |name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                let sent = Sent {
                    id: line("id: "),
                    retry: line("retry: ").map(|ms| ms.parse().unwrap()),
                    data: serde_json::from_str(&line("data: ").unwrap()).unwrap(),
                };
                self.text = rest.to_owned();
                return Some(sent);
            }
            let frame = tokio::time::timeout(MESSAGE_LIMIT, self.body.frame()).await.expect("no event came");
            let frame = frame?.ok()?;
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    /// What comes until one of this type has come.
    async fn until(&mut self, kind: &str) -> Vec<Sent> {
        let mut sent = Vec::new();
        loop {
            sent.push(self.next().await.unwrap_or_else(|| panic!("it ended before a {kind}: {sent:?}")));
            if sent.last().unwrap().data["type"] == kind {
                return sent;
            }
        }
    }
}

/// The numbers of the readings among events.
fn readings(sent: &[Sent]) -> Vec<u64> {
    let is_wanted = |it: &&Sent| it.data["type"] == "health_update" && it.data["data"]["metric"] == "heart_rate";
    let readings = sent.iter().filter(is_wanted);
    readings.map(|it| it.data["seq"].as_u64().unwrap()).collect()
}

fn channels(patient: &str) -> String {
    format!("?channels=patient/{patient}/%2B&delivery=all")
}

#[tokio::test]
async fn it_sends_the_frames_of_the_websocket() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.claims(UserRole::Viewer);
    let mut dashboard = server.signed_in(&claims).await;
    let channel = format!("patient/{patient}/+");
    dashboard.say(&json!({"type": "subscribe", "channels": [channel], "delivery": "all"})).await;
    dashboard.next_of("snapshot").await;
    let mut listening = Listening::open(&server, Some(&claims), &channels(&patient), None).await.ok().unwrap();
    let greeting = listening.until("snapshot").await;
    let kinds: Vec<&str> = greeting.iter().map(|it| it.data["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["welcome", "authenticated", "subscribed", "snapshot"]);
    assert!(greeting[0].retry.is_some());
    for value in 60..65 {
        server.reading(&patient, Metric::HeartRate, value).await;
        let frame = dashboard.next_of("health_update").await;
        let sent = listening.until("health_update").await.pop().unwrap();
        assert_eq!(sent.data, frame);
        assert_eq!(sent.id.unwrap(), format!("{}:{}", frame["epoch"].as_str().unwrap(), frame["seq"]));
    }
    let heartbeat = listening.until("heartbeat").await.pop().unwrap();
    assert!(heartbeat.id.is_none() && heartbeat.data["data"]["ages"][format!("patient/{patient}/heart_rate")].is_u64());
}

#[tokio::test]
async fn it_goes_on_after_the_last_event_however_often_it_is_cut() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.claims(UserRole::Viewer);
    let (mut last, mut found): (Option<String>, Vec<u64>) = (None, Vec::new());
    let mut expected = Vec::new();
    for round in 0..20_i32 {
        let mut listening =
            Listening::open(&server, Some(&claims), &channels(&patient), last.as_deref()).await.ok().unwrap();
        if round > 0 {
            let missed = listening.until("snapshot").await;
            let subscribed = missed.iter().find(|it| it.data["type"] == "subscribed").unwrap();
            assert_eq!(subscribed.data["data"]["recovered"], true, "{subscribed:?}");
            found.extend(readings(&missed));
            last = missed.iter().rev().find_map(|it| it.id.clone()).or(last);
        } else {
            last = listening.until("snapshot").await.pop().unwrap().id;
        }
        // Some come while it listens, of which it takes a part; some come when nobody does.
        for n in 0..7 {
            server.reading(&patient, Metric::HeartRate, 60 + n).await;
        }
        for _ in 0..round % 8 {
            let sent = listening.until("health_update").await;
            found.extend(readings(&sent));
            last = sent.iter().rev().find_map(|it| it.id.clone()).or(last);
        }
        drop(listening);
        expected.push(server.settled().await);
    }
    let mut listening =
        Listening::open(&server, Some(&claims), &channels(&patient), last.as_deref()).await.ok().unwrap();
    found.extend(readings(&listening.until("snapshot").await));
    let stored = server.get(&format!("/api/v1/readings?patient={patient}&metric=heart_rate")).await;
    let stored: Vec<u64> = stored["rows"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect();
    assert_eq!((found.len(), &found), (140, &stored), "no gap and no duplicate");
}

#[tokio::test]
async fn who_may_not_listen_is_refused_with_a_status() {
    let server = Server::start();
    let (own, foreign) = (patients(&server)[0].clone(), patients(&server)[1].clone());
    let viewer = server.claims(UserRole::Viewer);
    let mut limited = server.claims(UserRole::Viewer);
    limited.caps = Some(vec![Capability::of_patient(&own.parse().unwrap(), UserRole::Viewer)]);
    let many = vec!["a"; 129].join(",");
    for (claims, query, last, status, code) in [
        (None, String::new(), None, 401, "invalid_token"),
        (None, "?ticket=none".to_owned(), None, 401, "invalid_token"),
        (Some(&limited), channels(&foreign), None, 403, "permission_denied"),
        (Some(&viewer), "?channels=a//b".to_owned(), None, 400, "validation"),
        (Some(&viewer), format!("?channels=waveform/{own}/%2B"), None, 400, "validation"),
        (Some(&viewer), "?delivery=some".to_owned(), None, 400, "validation"),
        (Some(&viewer), "?bearer=x".to_owned(), None, 400, "validation"),
        (Some(&viewer), format!("?channels={many}"), None, 400, "too_many_subscriptions"),
        (Some(&viewer), String::new(), Some("rubbish"), 400, "validation"),
    ] {
        let refused = Listening::open(&server, claims, &query, last).await.err().unwrap();
        assert_eq!((refused.0, refused.1["code"].as_str().unwrap()), (status, code), "{query}: {}", refused.1);
    }
    let mut own = Listening::open(&server, Some(&limited), &channels(&own), Some("")).await.ok().unwrap();
    own.until("snapshot").await;
}

#[tokio::test]
async fn the_end_of_the_daemon_and_of_the_token_are_told_and_end_it() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.claims(UserRole::Viewer);
    let mut listening = Listening::open(&server, Some(&claims), &channels(&patient), None).await.ok().unwrap();
    listening.until("snapshot").await;
    // It is over, but for the grace of 25 s, in which a WebSocket could bring a new one.
    let mut short = server.claims(UserRole::Viewer);
    short.exp = server.clock.now().wall.as_secs() - 3;
    let mut ending = Listening::open(&server, Some(&short), &channels(&patient), None).await.ok().unwrap();
    let closing = ending.until("token_expiring").await.pop().unwrap();
    assert_eq!(closing.data["type"], "token_expiring");
    server.sessions.cancel();
    let closing = listening.until("closing").await.pop().unwrap();
    assert_eq!(closing.data["data"]["reason"], "server_shutdown");
    assert!(closing.id.is_none());
    assert!(listening.next().await.is_none(), "nothing follows");
}

#[tokio::test]
async fn a_reader_that_stalls_holds_a_bounded_part_and_is_let_go() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.claims(UserRole::Viewer);
    let query = format!("?channels=patient/{patient}/%2B&delivery=latest");
    let mut stalled = Listening::open(&server, Some(&claims), &query, None).await.ok().unwrap();
    stalled.until("snapshot").await;
    let connections = server.site.gate.metrics.connections.get();
    // Far more than fits between the session and a client that does not read.
    for n in 0..20_000 {
        server.reading(&patient, Metric::HeartRate, 60 + n % 40).await;
    }
    server.settled().await;
    let sent = stalled.until("gap").await;
    assert!(readings(&sent).len() < 6000, "what waited was replaced: {}", readings(&sent).len());
    drop(stalled);
    let deadline = server.clock.now().mono + Duration::from_secs(20);
    while server.site.gate.metrics.connections.get() >= connections {
        assert!(server.clock.now().mono < deadline, "the session ends with its client");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_ticket_opens_one_stream_and_a_token_in_the_address_none() {
    let mut server = Server::start();
    let all = patients(&server);
    let mut claims = server.named(UserRole::Viewer, "lena", "a");
    claims.caps = Some(vec![Capability::of_patient(&all[0].parse().unwrap(), UserRole::Viewer)]);
    let ticket = server.ticket(&claims).await;
    // A look at the head uses nothing up.
    assert_eq!(server.request(None, "HEAD", &format!("/sse?ticket={ticket}")).await.status, 401);
    let query = format!("{}&ticket={ticket}", channels(&all[0]));
    let mut listening = Listening::open(&server, None, &query, None).await.ok().unwrap();
    let greeting = listening.until("snapshot").await;
    assert_eq!(greeting[1].data["data"]["user_id"], "lena");
    let refused = Listening::open(&server, None, &query, None).await.err().unwrap();
    assert_eq!((refused.0, &refused.1["code"]), (401, &json!("invalid_token")), "used twice");
    let again = Dashboard::over(server.stream(), HOST, &format!("/ws?ticket={ticket}"), &[]).await;
    assert!(again.err().unwrap().contains("401"), "not for a WebSocket either");
    // It gives no more than its token.
    let other = format!("{}&ticket={}", channels(&all[1]), server.ticket(&claims).await);
    assert_eq!(Listening::open(&server, None, &other, None).await.err().unwrap().0, 403);

    let with_token = format!("{}&token={}", channels(&all[0]), server.token(&claims));
    assert_eq!(Listening::open(&server, None, &with_token, None).await.err().unwrap().0, 401);
    Arc::make_mut(&mut server.site.gate).access.in_query = true;
    Listening::open(&server, None, &with_token, None).await.ok().unwrap().until("snapshot").await;

    // Where a WebSocket would be refused by a close frame, a stream is refused by its status.
    let mut server = Server::with(ServerLimits::default(), CloseCodes::Standard, Clock::System);
    Arc::make_mut(&mut server.site.gate).access.in_query = true;
    assert_eq!(Listening::open(&server, None, "?token=bad", None).await.err().unwrap().0, 401);
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_token_ends_after_its_grace() {
    let mut server = Server::start();
    server.clock = Clock::tokio(Clock::System.now());
    Arc::make_mut(&mut server.site.gate).clock = server.clock.clone();
    let start = server.clock.now().wall.as_secs();
    let claims = Claims { exp: start + 100, ..server.claims(UserRole::Viewer) };
    let query = format!("?ticket={}", server.ticket(&claims).await);
    let mut listening = Listening::open(&server, None, &query, None).await.ok().unwrap();
    let since = || server.clock.now().wall.0 - start * 1000;
    listening.until("token_expiring").await;
    assert!((40_000..41_000).contains(&since()), "{}", since());
    let closing = listening.until("closing").await.pop().unwrap();
    assert_eq!(closing.data["data"]["reason"], "token_expired");
    assert!((125_000..126_000).contains(&since()), "{}", since());
    assert!(listening.next().await.is_none(), "nothing follows");
}

#[tokio::test(start_paused = true)]
async fn a_stream_lives_as_long_as_its_token_though_its_client_says_nothing() {
    let mut server = Server::start();
    server.clock = Clock::tokio(Clock::System.now());
    Arc::make_mut(&mut server.site.gate).clock = server.clock.clone();
    let start = server.clock.now().wall.as_secs();
    // Longer than a WebSocket with subscriptions may be silent.
    let claims = Claims { exp: start + 5400, ..server.claims(UserRole::Viewer) };
    assert!(server.site.gate.shared.limits.idle_subscribed < Duration::from_mins(90));
    let query = format!("?ticket={}", server.ticket(&claims).await);
    let mut listening = Listening::open(&server, None, &query, None).await.ok().unwrap();
    let sent = listening.until("closing").await;
    assert_eq!(sent.last().unwrap().data["data"]["reason"], "token_expired");
    let lived = server.clock.now().wall.0 - start * 1000;
    assert!((5_425_000..5_426_000).contains(&lived), "{lived}");
    let heartbeats = sent.iter().filter(|it| it.data["type"] == "heartbeat").count();
    assert!((1080..1090).contains(&heartbeats), "{heartbeats}");
}

#[tokio::test]
async fn a_revocation_ends_streams_within_a_second_also_one_that_nobody_reads() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let (lena, admin) = (server.named(UserRole::Viewer, "lena", "a"), server.named(UserRole::Admin, "admin", "root"));
    let mut listening = Listening::open(&server, Some(&lena), &channels(&patient), None).await.ok().unwrap();
    listening.until("snapshot").await;
    let stalled = Listening::over(&server, server.stream_of(2048), Some(&lena), &channels(&patient), None).await;
    let stalled = stalled.ok().unwrap();
    for value in 0..200 {
        server.reading(&patient, Metric::HeartRate, 60 + value % 40).await;
    }
    server.settled().await;
    let connections = || server.site.gate.metrics.connections.get();
    assert_eq!(connections(), 2);
    let begin = now();
    assert_eq!(server.post(&admin, "/api/v1/tokens/revoke", &json!({"user": "lena"})).await.0, "200");
    let closing = listening.until("closing").await.pop().unwrap();
    assert_eq!(closing.data["data"]["reason"], "token_revoked");
    assert!(listening.next().await.is_none(), "nothing follows");
    let within = now().since(begin);
    assert!(within < Duration::from_secs(1), "{within:?}");
    while connections() > 0 {
        assert!(now().since(begin) < Duration::from_secs(2), "the session of one that does not read is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stalled);
    assert_eq!(Listening::open(&server, Some(&lena), "", None).await.err().unwrap().0, 401);
}

#[tokio::test]
async fn a_bridge_that_drains_ends_streams_and_opens_none() {
    let server = Server::start();
    let (viewer, admin) = (server.claims(UserRole::Viewer), server.named(UserRole::Admin, "admin", "root"));
    let mut listening = Listening::open(&server, Some(&viewer), "", None).await.ok().unwrap();
    listening.until("snapshot").await;
    assert_eq!(server.post(&admin, "/ws/drain", &json!({})).await.1["connections"], 1);
    let closing = listening.until("closing").await.pop().unwrap();
    assert_eq!(closing.data["data"]["reason"], "server_shutdown");
    assert!(listening.next().await.is_none(), "nothing follows");
    let refused = Listening::open(&server, Some(&viewer), "", None).await.err().unwrap();
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("draining")));
    assert_eq!(server.post(&admin, "/ws/drain", &json!({"drain": false})).await.0, "200");
    Listening::open(&server, Some(&viewer), "", None).await.ok().unwrap();
}

#[tokio::test]
async fn streams_count_among_the_connections_of_their_user() {
    let limits = ServerLimits { per_user: 2, ..ServerLimits::default() };
    let server = Server::with(limits, CloseCodes::Own, Clock::System);
    let claims = server.claims(UserRole::Viewer);
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut listening = Listening::open(&server, Some(&claims), "", None).await.ok().unwrap();
        listening.until("snapshot").await;
        inside.push(listening);
    }
    let refused = Listening::open(&server, Some(&claims), "", None).await.err().unwrap();
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("user_connection_limit")));
    let bearer = format!("Bearer {}", server.token(&claims));
    let mut dashboard = server.dashboard(&[("Authorization", &bearer)]).await.unwrap();
    assert_eq!(dashboard.next_of("closing").await["data"]["reason"], "user_connection_limit");
    Listening::open(&server, Some(&server.named(UserRole::Viewer, "lena", "a")), "", None).await.ok().unwrap();
    // Who leaves makes room.
    drop(inside.pop());
    let limit = now() + MESSAGE_LIMIT;
    while Listening::open(&server, Some(&claims), "", None).await.is_err() {
        assert!(now() < limit, "no room");
    }
}

#[tokio::test]
async fn its_head_is_told_without_a_stream_and_another_method_is_refused() {
    let server = Server::start();
    let bearer = format!("authorization: Bearer {}\r\n", server.token(&server.claims(UserRole::Viewer)));
    let ask = async |method: &str, query: &str, bearer: &str| {
        let line = format!("{method} /sse{query} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{bearer}\r\n");
        let answer = server.http(&line).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    };
    let (head, body) = ask("HEAD", "", &bearer).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    assert_eq!(body, "");
    for (query, bearer, status) in [("", "", "401"), ("?delivery=some", bearer.as_str(), "400")] {
        let (head, body) = ask("HEAD", query, bearer).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")) && body.is_empty(), "{head}");
    }
    assert_eq!(server.site.gate.metrics.connections_total.get(), 0, "no session was begun");
    for method in ["POST", "PUT", "DELETE"] {
        let (head, body) = ask(method, "", &bearer).await;
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get,head"), "{method}: {head}");
        let body: Json = serde_json::from_str(&body).unwrap();
        assert_eq!(body["code"], "method_not_allowed", "{method}");
    }
}
