//! Server-sent events: the same frames as over the WebSocket, and the same place to go on from.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use vitalbridge::server::auth::Capability;
use vitalbridge::server::jwt::Claims;
use vitalbridge::tasks::Role;
use vitalbridge::vitals::Metric;

use super::{HOST, Server, UserRole, patients};
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
        let io = TokioIo::new(server.stream());
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
        (Some(&limited), channels(&foreign), None, 403, "permission_denied"),
        (Some(&viewer), "?channels=a//b".to_owned(), None, 400, "validation"),
        (Some(&viewer), format!("?channels=waveform/{own}/%2B"), None, 400, "validation"),
        (Some(&viewer), "?delivery=some".to_owned(), None, 400, "validation"),
        (Some(&viewer), "?token=x".to_owned(), None, 400, "validation"),
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
