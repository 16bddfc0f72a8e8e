//! The server over in-memory streams: who gets what, and what becomes of those who send rubbish.

mod capacity;
mod chat;
mod conformance;
mod conversations;
mod delivering;
mod echo;
mod exports;
mod forms;
mod hostile;
mod limits;
mod manage;
mod minutes;
mod monitoring;
mod older_clients;
mod openapi;
mod rest;
mod signal_times;
mod slow;
mod sse;
mod stalled;
mod system;
mod token_security;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::{Engine, RuleSet};
use vitalbridge::clock::{Clock, Stamp};
use vitalbridge::config::{Config, Place};
use vitalbridge::event::SourceMessage;
use vitalbridge::hub::{RING_EVENTS, TICK};
use vitalbridge::ids::Epoch;
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::Notifier;
use vitalbridge::pipeline::{CONTROL_QUEUE, Control, Parts, Pipeline, SOURCE_QUEUE};
use vitalbridge::profile::Models;
use vitalbridge::secret::Secret;
use vitalbridge::server::accept;
use vitalbridge::server::auth::{Capability, Role as UserRole};
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::codes::Codes;
use vitalbridge::server::connections::Connections;
use vitalbridge::server::form::compact::Streams;
use vitalbridge::server::hosts::Hosts;
use vitalbridge::server::jwt::{Claims, TokenKey};
use vitalbridge::server::rate::Users;
use vitalbridge::server::routes::{Site, router};
use vitalbridge::server::seats::Seats;
use vitalbridge::server::session::Shared;
use vitalbridge::server::socket::Gate;
use vitalbridge::server::tokens::Access;
use vitalbridge::sources::ble::{Air, AirSettings};
use vitalbridge::store::{self, KeptChanges, StoreOptions};
use vitalbridge::tasks::{Role, Tasks};
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};

use crate::dashboard::{Came, Dashboard, Headers};

const HOST: &str = "127.0.0.1";

/// A server with a pipeline and a store, and no socket.
struct Server {
    site: Site,
    key: TokenKey,
    readings: mpsc::Sender<SourceMessage>,
    clock: Clock,
    sessions: CancellationToken,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::with(ServerLimits::default(), CloseCodes::Own, Clock::System)
    }

    /// With other limits, and for paused time with tokio's clock, which the sessions read then.
    fn with(limits: ServerLimits, close_codes: CloseCodes, session_clock: Clock) -> Self {
        let options = StoreOptions { group_commit: Duration::from_millis(100), ..StoreOptions::default() };
        Self::arranged((Clock::System, session_clock), &options, limits, close_codes, TICK)
    }

    fn start_with(clock: Clock, options: &StoreOptions) -> Self {
        // Each reading is written by itself.
        let (limits, tick) = (ServerLimits::default(), Duration::ZERO);
        Self::arranged((clock.clone(), clock), options, limits, CloseCodes::Own, tick)
    }

    fn arranged(
        (clock, session_clock): (Clock, Clock),
        options: &StoreOptions,
        limits: ServerLimits,
        close_codes: CloseCodes,
        tick: Duration,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { listen: None, state_dir: Some(dir.path().to_owned()) };
        let config = Config::demo(1, &place).unwrap();
        let epoch = Epoch::from_bits(1);
        let opened = store::open(dir.path(), options, epoch.clone(), "boot", clock.now()).unwrap();
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let (readings, source_queue) = mpsc::channel(SOURCE_QUEUE);
        let metrics = Arc::new(Metrics::default());
        let durable = opened.handle.durable();
        let (mut pipeline, reader, writer) = pipeline_of(&config, opened, &metrics, &clock);
        pipeline.write_every(tick);
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("pipeline", Role::Vital, pipeline.run(source_queue, control_queue));
        tasks.spawn("store", Role::Vital, async move { Ok(writer.run(CancellationToken::new()).await?) });
        let key = TokenKey::new(&Secret::new("s".repeat(32)), "vitalbridge", "vitalbridge").unwrap();
        let sessions = CancellationToken::new();
        let access = Access::new(dir.path().to_owned(), false, clock.now().wall).unwrap();
        let watching = access.clone().watch(control.clone(), durable.clone(), clock.clone(), CancellationToken::new());
        tasks.spawn("revocations", Role::Helper, async move {
            watching.await;
            Ok(())
        });
        let shared = shared_of(config, epoch, limits, close_codes);
        let gate = Gate {
            shared: Arc::new(shared),
            control,
            reader,
            durable,
            key: watch::Sender::new(key.clone()).subscribe(),
            access,
            clock: session_clock,
            connections: Connections::new(clock.clone(), Arc::clone(&metrics)),
            metrics,
            seats: Seats::new(limits),
            stop: sessions.clone(),
        };
        let trail = gate.connections.clone().keep_trail(gate.control.clone(), CancellationToken::new());
        tasks.spawn("audit rows of connections", Role::Helper, trail);
        let codes = Codes::Demo(Secret::new("c0de"));
        let air = Air::new(AirSettings::default()).status();
        let site = Site {
            gate: Arc::new(gate),
            codes,
            hosts: Arc::new(Hosts::default()),
            tasks,
            air,
            models: Models::built_in(),
        };
        Self { site, key, readings, clock, sessions, dir }
    }

    /// A stream whose other end is served.
    fn stream(&self) -> DuplexStream {
        self.stream_from("127.0.0.1:50000")
    }

    fn stream_from(&self, peer: &str) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        self.serve(theirs, peer);
        ours
    }

    /// A stream with room for so many bytes that were not read yet.
    fn stream_of(&self, bytes: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(bytes);
        self.serve(theirs, "127.0.0.1:50000");
        ours
    }

    fn serve(&self, stream: DuplexStream, peer: &str) {
        let peer: SocketAddr = peer.parse().unwrap();
        let (router, stop) = (router(self.site.clone()), CancellationToken::new());
        self.site.tasks.spawn("connection", Role::Helper, async move {
            accept::serve(stream, peer, router, stop, None).await;
            Ok(())
        });
    }

    async fn dashboard(&self, headers: Headers<'_>) -> Result<Dashboard, String> {
        Dashboard::over(self.stream(), HOST, "/ws", headers).await
    }

    fn claims(&self, role: UserRole) -> Claims {
        let now = self.clock.now().wall.as_secs();
        Claims { sub: "7".into(), role, caps: None, jti: None, iat: Some(now), nbf: None, exp: now + 3600 }
    }

    fn token(&self, claims: &Claims) -> String {
        self.key.issue(claims).unwrap().expose().to_owned()
    }

    async fn signed_in(&self, claims: &Claims) -> Dashboard {
        let mut dashboard = self.dashboard(&[]).await.unwrap();
        assert_eq!(dashboard.next().await["type"], "welcome");
        dashboard.say(&json!({"type": "authenticate", "token": self.token(claims)})).await;
        let authenticated = dashboard.next().await;
        assert_eq!(authenticated["type"], "authenticated");
        assert_eq!(authenticated["data"]["user_id"], 7, "a subject of digits is a number");
        dashboard
    }

    async fn reading(&self, patient: &str, metric: Metric, value: i32) {
        let reading = demo_reading(patient, metric, value, self.clock.now());
        self.readings.send(SourceMessage::Reading(reading)).await.unwrap();
    }

    /// One HTTP request as text, and the answer as text.
    async fn http(&self, request: &str) -> String {
        let mut stream = self.stream();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The pipeline of a demonstration over a store that has just been opened.
fn pipeline_of(
    config: &Config,
    opened: store::Opened,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> (Pipeline, store::Reader, store::Writer) {
    let pipeline = Pipeline::new(Parts {
        epoch: opened.epoch,
        first: opened.first_seq,
        patients: config.patients.clone(),
        engine: Engine::new(RuleSet::built_in(), 1),
        expected: Vec::new(),
        open_alerts: Vec::new(),
        limit_changes: KeptChanges::default(),
        notifier: Notifier::new(&config.patients, opened.inboxes, 1),
        news2: config.news2.clone(),
        observations: opened.observations,
        store: opened.handle,
        metrics: Arc::clone(metrics),
        clock: clock.clone(),
    });
    (pipeline, opened.reader, opened.writer)
}

/// What all sessions of a demonstration have in common.
fn shared_of(config: Config, epoch: Epoch, limits: ServerLimits, close_codes: CloseCodes) -> Shared {
    Shared {
        bridge: config.bridge,
        site: config.site,
        epoch,
        patients: config.patients,
        users: Users::new(limits.messages, limits.reads),
        limits,
        close_codes,
        streams: Streams::default(),
    }
}

fn demo_reading(patient: &str, metric: Metric, value: i32, now: Stamp) -> Reading {
    Reading {
        patient: Some(patient.parse().unwrap()),
        device: "d".parse().unwrap(),
        source: "s".parse().unwrap(),
        vital: Vital::scalar(metric, Value::Valid(Decimal::integer(value))),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Demo,
        taken: Taken::on_arrival(now),
        received: now,
    }
}

/// The head of the answer to a request, on a stream that goes on.
async fn head_of(stream: &mut DuplexStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn patients(server: &Server) -> Vec<String> {
    server.site.gate.shared.patients.iter().map(|patient| patient.id.to_string()).collect()
}

#[tokio::test]
async fn a_token_comes_by_message_header_or_subprotocol() {
    let server = Server::start();
    let token = server.token(&server.claims(UserRole::Viewer));
    server.signed_in(&server.claims(UserRole::Viewer)).await;
    let bearer = format!("Bearer {token}");
    let protocols = format!("vitals.v1.json, bearer.{token}");
    for headers in [[("Authorization", bearer.as_str())], [("Sec-WebSocket-Protocol", protocols.as_str())]] {
        let mut dashboard = server.dashboard(&headers).await.unwrap();
        assert_eq!(dashboard.next().await["type"], "welcome");
        assert_eq!(dashboard.next().await["type"], "authenticated");
    }
}

#[tokio::test]
async fn a_wrong_expired_or_foreign_token_gets_nothing() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut expired = server.claims(UserRole::Admin);
    (expired.iat, expired.exp) = (Some(expired.exp - 8000), expired.exp - 7000);
    let foreign = TokenKey::new(&Secret::new("f".repeat(32)), "vitalbridge", "vitalbridge").unwrap();
    let foreign = foreign.issue(&server.claims(UserRole::Admin)).unwrap().expose().to_owned();
    for token in ["rubbish".to_owned(), server.token(&expired), foreign] {
        let bearer = format!("Bearer {token}");
        assert!(server.dashboard(&[("Authorization", &bearer)]).await.is_err());
        let protocol = format!("bearer.{token}");
        assert!(server.dashboard(&[("Sec-WebSocket-Protocol", &protocol)]).await.is_err());

        let mut dashboard = server.dashboard(&[]).await.unwrap();
        assert_eq!(dashboard.next().await["type"], "welcome");
        dashboard.say(&json!({"type": "authenticate", "token": token})).await;
        dashboard.say(&json!({"type": "subscribe", "channels": ["#"]})).await;
        server.reading(&patient, Metric::Spo2, 97).await;
        let mut kinds = Vec::new();
        let end = loop {
            match dashboard.read().await {
                Came::Message(message) => kinds.push(message["type"].as_str().unwrap().to_owned()),
                end => break end,
            }
        };
        assert_eq!(kinds, ["auth_error", "closing"]);
        assert_eq!(end, Came::Closed(4001));
    }
}

#[tokio::test]
async fn a_subscription_begins_with_the_snapshot_and_goes_on_with_what_changes() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    server.reading(&patient, Metric::Spo2, 97).await;
    let mut dashboard = server.signed_in(&server.claims(UserRole::Viewer)).await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+", "alerts/+"], "id": "s"})).await;
    let subscribed = dashboard.next().await;
    assert_eq!((&subscribed["type"], &subscribed["correlation_id"]), (&json!("subscribed"), &json!("s")));
    let snapshot = dashboard.next().await;
    assert_eq!(snapshot["type"], "snapshot");
    assert_eq!(snapshot["data"]["mode"], "demo");
    assert_eq!(snapshot["data"]["patients"].as_array().unwrap().len(), 8);
    let reading = &snapshot["data"]["readings"][0];
    assert_eq!((&reading["metric"], &reading["value"]), (&json!("spo2"), &json!(97)));
    assert!(reading["age_ms"].is_u64() && reading["seq"].is_u64(), "{reading}");

    server.reading(&patient, Metric::Spo2, 96).await;
    let update = dashboard.next_of("health_update").await;
    assert_eq!(update["data"]["value"], 96);
    assert_eq!(update["channel"], format!("patient/{patient}/spo2"));
    assert!(update["seq"].as_u64() > reading["seq"].as_u64());
}

#[tokio::test]
async fn a_token_for_one_patient_shows_no_other() {
    let server = Server::start();
    let all = patients(&server);
    let mut claims = server.claims(UserRole::Nurse);
    claims.caps = Some(vec![Capability::of_patient(&all[0].parse().unwrap(), UserRole::Nurse)]);
    let mut dashboard = server.signed_in(&claims).await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
    assert_eq!(dashboard.next().await["type"], "subscribed");
    let snapshot = dashboard.next().await;
    assert_eq!(snapshot["data"]["patients"].as_array().unwrap().len(), 1);
    server.reading(&all[1], Metric::Spo2, 91).await;
    server.reading(&all[0], Metric::Spo2, 92).await;
    assert_eq!(dashboard.next_of("health_update").await["data"]["value"], 92);

    dashboard.say(&json!({"type": "subscribe", "channels": [format!("patient/{}/+", all[1])]})).await;
    assert_eq!(dashboard.next_of("error").await["data"]["code"], "permission_denied");
}

#[tokio::test]
async fn a_resume_brings_what_was_missed_once() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.claims(UserRole::Viewer);
    let subscribe = json!({"type": "subscribe", "channels": ["patient/+/spo2"]});
    let mut first = server.signed_in(&claims).await;
    first.say(&subscribe).await;
    first.next_of("snapshot").await;
    server.reading(&patient, Metric::Spo2, 90).await;
    let seen = first.next_of("health_update").await;
    drop(first);
    for value in 91..=99 {
        server.reading(&patient, Metric::Spo2, value).await;
    }

    let mut second = server.signed_in(&claims).await;
    let mut resume = subscribe.clone();
    resume["since"] = json!({"epoch": seen["epoch"], "seq": seen["seq"]});
    second.say(&resume).await;
    let subscribed = second.next().await;
    assert_eq!(subscribed["data"]["recovered"], true, "{subscribed}");
    for value in 91..=99 {
        assert_eq!(second.next_of("health_update").await["data"]["value"], value);
    }
    assert_eq!(second.next().await["type"], "snapshot");

    let mut stranger = server.signed_in(&claims).await;
    resume["since"] = json!({"epoch": "nobody", "seq": 3});
    stranger.say(&resume).await;
    assert_eq!(stranger.next().await["data"]["recovered"], false);
    assert_eq!(stranger.next().await["type"], "snapshot");
}

#[tokio::test]
async fn a_replay_to_a_slow_client_does_not_hold_up_the_end() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.claims(UserRole::Viewer);
    let mut first = server.signed_in(&claims).await;
    let mut resume = json!({"type": "subscribe", "channels": ["patient/+/spo2"]});
    first.say(&resume).await;
    first.next_of("snapshot").await;
    server.reading(&patient, Metric::Spo2, 96).await;
    let seen = first.next_of("health_update").await;
    drop(first);
    // More than memory holds.
    for _ in 0..RING_EVENTS + 3000 {
        server.reading(&patient, Metric::Spo2, 97).await;
    }
    server.settled().await;
    resume["since"] = json!({"epoch": seen["epoch"], "seq": seen["seq"]});
    let bearer = format!("Bearer {}", server.token(&claims));
    let headers = [("Authorization", bearer.as_str())];
    let mut slow = Dashboard::over(server.stream_of(8 * 1024), HOST, "/ws", &headers).await.unwrap();
    slow.say(&resume).await;
    slow.next_of("health_update").await;
    server.sessions.cancel();
    let mut came = 0;
    let end = loop {
        match slow.read().await {
            Came::Message(message) => came += usize::from(message["type"] == "health_update"),
            end => break end,
        }
    };
    assert_eq!(end, Came::Closed(4206));
    assert!(came < 2000, "{came} readings came first");
}

#[tokio::test]
async fn rubbish_is_answered_ten_times_and_harms_nobody_else() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut good = server.signed_in(&server.claims(UserRole::Viewer)).await;
    good.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
    good.next_of("snapshot").await;

    let mut bad = server.signed_in(&server.claims(UserRole::Viewer)).await;
    for text in ["", "nonsense", "[]", "{}", r#"{"type":"fly"}"#, r#"{"type":5}"#, &"[".repeat(60_000), "\u{0}"] {
        bad.say_text(text).await;
        assert_eq!(bad.next().await["type"], "error", "{text:.20}");
    }
    bad.say_binary(&[0xFF; 100]).await;
    assert_eq!(bad.next().await["type"], "error");
    bad.say_text("again").await;
    assert_eq!(bad.next().await["type"], "error");
    assert_eq!(bad.next().await["data"]["reason"], "too_many_errors");
    assert_eq!(bad.read().await, Came::Closed(4005));

    let mut big = server.signed_in(&server.claims(UserRole::Viewer)).await;
    big.say_text(&"x".repeat(70_000)).await;
    assert_eq!(big.next().await["data"]["reason"], "message_too_big");

    server.reading(&patient, Metric::Spo2, 95).await;
    assert_eq!(good.next_of("health_update").await["data"]["value"], 95);
}

#[tokio::test]
async fn foreign_pages_and_rebound_names_are_refused() {
    let server = Server::start();
    let request =
        |host: &str, extra: &str| format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{extra}\r\n");
    assert!(server.http(&request(HOST, "")).await.starts_with("HTTP/1.1 200"));
    assert!(server.http(&request("evil.example", "")).await.starts_with("HTTP/1.1 421"));
    let foreign = server.http(&request(HOST, "origin: https://evil.example\r\n")).await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let page = server.http(&request(HOST, "").replace("/healthz", "/")).await;
    assert!(page.contains("content-security-policy: default-src 'self'"), "{page:.600}");
    assert!(server.http(&request(HOST, "").replace("/healthz", "/metrics")).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_sign_in_code_gives_a_token_and_a_wrong_one_an_explanation() {
    let server = Server::start();
    let request = |body: &str| {
        format!(
            "POST /api/v1/sign-in HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = server.http(&request(r#"{"code":"c0de"}"#)).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let signed_in: serde_json::Value = serde_json::from_str(body).unwrap();
    let bearer = format!("Bearer {}", signed_in["token"].as_str().unwrap());
    assert!(server.dashboard(&[("Authorization", &bearer)]).await.is_ok());
    let refused = server.http(&request(r#"{"code":"wrong"}"#)).await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("invalid_code"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_sign_in_is_closed() {
    // The session reads the server's own clock, so this one runs on tokio's.
    let mut server = Server::start();
    Arc::make_mut(&mut server.site.gate).clock = Clock::tokio(Clock::System.now());
    let mut dashboard = server.dashboard(&[]).await.unwrap();
    assert_eq!(dashboard.next().await["type"], "welcome");
    assert_eq!(dashboard.next_of("closing").await["data"]["reason"], "auth_timeout");
    assert_eq!(dashboard.read().await, Came::Closed(4008));
}

#[tokio::test]
async fn at_the_end_every_session_is_told_when_to_come_back() {
    let server = Server::start();
    let mut dashboard = server.signed_in(&server.claims(UserRole::Viewer)).await;
    server.sessions.cancel();
    let closing = dashboard.next_of("closing").await;
    assert_eq!(closing["data"]["reconnect"], true);
    assert!(closing["data"]["retry_after_ms"].as_u64().unwrap() <= 5000);
    assert_eq!(dashboard.read().await, Came::Closed(4206));
}

#[tokio::test]
async fn an_acknowledgement_is_for_what_the_person_saw_and_is_on_disk_when_it_is_answered() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut nurse = server.signed_in(&server.claims(UserRole::Nurse)).await;
    nurse.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    nurse.next_of("snapshot").await;
    server.reading(&patient, Metric::Spo2, 70).await;
    let alert = nurse.next_of("alert").await;
    assert_eq!((&alert["data"]["rule"], &alert["data"]["priority"]), (&json!("spo2_desat"), &json!("high")), "{alert}");
    let seq = alert["seq"].as_u64().unwrap();
    let acknowledge = |expected: serde_json::Value| {
        let data =
            json!({"name": "alert.acknowledge", "alert_id": alert["data"]["alert_id"], "expected_seq": expected});
        json!({"type": "command", "data": data, "correlation_id": "ack"})
    };

    nurse.say(&acknowledge(json!(seq - 1))).await;
    assert_eq!(nurse.next_of("result").await["data"]["code"], "stale");
    nurse.say(&acknowledge(json!("now"))).await;
    assert_eq!(nurse.next_of("error").await["data"]["code"], "validation");

    let mut viewer = server.signed_in(&server.claims(UserRole::Viewer)).await;
    viewer.say(&acknowledge(json!(seq))).await;
    assert_eq!(viewer.next_of("result").await["data"]["code"], "permission_denied");

    nurse.say(&acknowledge(json!(seq))).await;
    let (mut result, mut change) = (None, None);
    while result.is_none() || change.is_none() {
        let message = nurse.next().await;
        match message["type"].as_str().unwrap() {
            "result" => result = Some(message),
            "alert" => change = Some(message),
            _ => {}
        }
    }
    let (result, change) = (result.unwrap(), change.unwrap());
    assert_eq!((&result["data"]["ok"], &result["data"]["durable"]), (&json!(true), &json!(true)), "{result}");
    assert_eq!((&change["data"]["change"], &change["data"]["by"]), (&json!("acknowledge"), &json!("7")), "{change}");
}

#[tokio::test]
async fn an_alert_does_not_wait_for_the_answer_to_a_command() {
    let mut server = Server::start();
    let patient = patients(&server)[0].clone();
    // From here on nobody answers commands.
    let (front, mut asked) = mpsc::channel(CONTROL_QUEUE);
    let pipeline = std::mem::replace(&mut Arc::make_mut(&mut server.site.gate).control, front);
    let (taken, mut was_taken) = mpsc::channel(1);
    server.site.tasks.spawn("a pipeline that answers no command", Role::Helper, async move {
        let mut unanswered = Vec::new();
        while let Some(control) = asked.recv().await {
            if matches!(control, Control::Command(_)) {
                unanswered.push(control);
                let _ = taken.send(()).await;
            } else if pipeline.send(control).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    let mut nurse = server.signed_in(&server.claims(UserRole::Nurse)).await;
    nurse.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    nurse.next_of("snapshot").await;
    let data =
        json!({"name": "alert.acknowledge", "alert_id": "00000000-0000-7000-8000-000000000000", "expected_seq": 1});
    nurse.say(&json!({"type": "command", "data": data, "correlation_id": "first"})).await;
    nurse.say(&json!({"type": "ping", "correlation_id": "second"})).await;
    was_taken.recv().await.unwrap();
    server.reading(&patient, Metric::Spo2, 70).await;
    let mut came = Vec::new();
    while came.len() < 3 {
        let message = nurse.next().await;
        match message["type"].as_str().unwrap() {
            "alert" => came.push("alert".to_owned()),
            _ if message["correlation_id"].is_string() => {
                came.push(message["correlation_id"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert_eq!(came, ["alert", "first", "second"], "the alert at once, and answers in their order");
}

#[tokio::test]
async fn a_token_for_a_ward_gets_the_patients_of_the_ward_in_the_snapshot() {
    let server = Server::start();
    let ward = server.site.gate.shared.patients[0].ward.to_string();
    let here = server.site.gate.shared.patients.iter().filter(|patient| patient.ward.to_string() == ward).count();
    let mut claims = server.claims(UserRole::Viewer);
    claims.caps = Some(vec![Capability {
        channels: vec![format!("ward/{ward}/#")],
        allow: UserRole::Viewer.operations().to_vec(),
    }]);
    let mut viewer = server.signed_in(&claims).await;
    viewer.say(&json!({"type": "subscribe", "channels": [format!("ward/{ward}/#")]})).await;
    let snapshot = viewer.next_of("snapshot").await;
    assert_eq!(snapshot["data"]["patients"].as_array().unwrap().len(), here, "{snapshot}");
}

#[tokio::test]
async fn a_command_over_http_is_the_same_and_is_on_disk_when_it_is_answered() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut watching = server.signed_in(&server.claims(UserRole::Viewer)).await;
    watching.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    watching.next_of("snapshot").await;
    server.reading(&patient, Metric::Spo2, 70).await;
    let alert = watching.next_of("alert").await;
    let (id, seq) = (&alert["data"]["alert_id"], alert["seq"].as_u64().unwrap());
    let acknowledge = json!({"name": "alert.acknowledge", "alert_id": id, "expected_seq": seq}).to_string();
    let stale = json!({"name": "alert.acknowledge", "alert_id": id, "expected_seq": seq - 1}).to_string();
    let (viewer, nurse) = (UserRole::Viewer, UserRole::Nurse);
    for (role, body, status, code) in [
        (None, acknowledge.as_str(), "401", json!("invalid_token")),
        (Some(viewer), &acknowledge, "403", json!("permission_denied")),
        (Some(nurse), "no json", "400", json!("format")),
        (Some(nurse), r#"{"name":"fly"}"#, "400", json!("validation")),
        (Some(nurse), r#"{"name":"device.command","source_id":"x","command":"y"}"#, "403", json!("permission_denied")),
        (Some(nurse), &stale, "409", json!("stale")),
        (Some(nurse), &acknowledge, "200", json!(null)),
    ] {
        let bearer = role.map(|role| format!("authorization: Bearer {}\r\n", server.token(&server.claims(role))));
        let request = format!(
            "POST /api/v1/commands HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             {}content-length: {}\r\n\r\n{body}",
            bearer.unwrap_or_default(),
            body.len()
        );
        let answer = server.http(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{role:?} {body}: {answer}");
        let answer: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(answer["code"], code, "{answer}");
        if status == "200" {
            assert_eq!((&answer["ok"], &answer["durable"]), (&json!(true), &json!(true)), "{answer}");
        }
    }
    assert_eq!(watching.next_of("alert").await["data"]["change"], "acknowledge");
}

#[tokio::test]
async fn what_a_person_sees_of_a_patient_is_entered_over_both_and_reaches_every_dashboard() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut watching = server.signed_in(&server.claims(UserRole::Viewer)).await;
    watching.say(&json!({"type": "subscribe", "channels": [format!("patient/{patient}/observation")]})).await;
    watching.next_of("snapshot").await;
    let mut nurse = server.signed_in(&server.claims(UserRole::Nurse)).await;
    let data = json!({"name": "observation.set", "patient_id": patient, "oxygen": "oxygen"});
    nurse.say(&json!({"type": "command", "data": data, "correlation_id": "o2"})).await;
    let result = nurse.next_of("result").await;
    assert_eq!((&result["data"]["ok"], &result["data"]["durable"]), (&json!(true), &json!(true)), "{result}");
    let seen = watching.next_of("observation").await;
    assert_eq!((&seen["data"]["oxygen"]["value"], &seen["data"]["by"]), (&json!("oxygen"), &json!("7")), "{seen}");

    for (role, id, body, status, code) in [
        (UserRole::Viewer, patient.as_str(), r#"{"consciousness":"A"}"#, "403", json!("permission_denied")),
        (UserRole::Nurse, &patient, r#"{"consciousness":"awake"}"#, "400", json!("validation")),
        (UserRole::Nurse, &patient, "[]", "400", json!("format")),
        (UserRole::Nurse, "P-none", r#"{"consciousness":"A"}"#, "404", json!("unknown_patient")),
        (UserRole::Nurse, &patient, r#"{"consciousness":"A","patient_id":"P-none"}"#, "200", json!(null)),
    ] {
        let request = format!(
            "POST /api/v1/patients/{id}/observations HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\
             content-type: application/json\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            server.token(&server.claims(role)),
            body.len()
        );
        let answer = server.http(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{role:?} {body}: {answer}");
        let answer: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(answer["code"], code, "{answer}");
    }
    let seen = watching.next_of("observation").await;
    assert_eq!(
        (&seen["data"]["oxygen"]["value"], &seen["data"]["consciousness"]["value"]),
        (&json!("oxygen"), &json!("A"))
    );
}

#[tokio::test]
async fn a_narrower_token_narrows_what_flows() {
    let server = Server::start();
    let all = patients(&server);
    let mut dashboard = server.signed_in(&server.claims(UserRole::Nurse)).await;
    let (ours, theirs) = (format!("patient/{}/+", all[0]), format!("patient/{}/+", all[1]));
    dashboard.say(&json!({"type": "subscribe", "channels": [ours, theirs]})).await;
    dashboard.next_of("snapshot").await;

    let mut claims = server.claims(UserRole::Nurse);
    claims.caps = Some(vec![Capability::of_patient(&all[0].parse().unwrap(), UserRole::Nurse)]);
    dashboard.say(&json!({"type": "refresh", "token": server.token(&claims)})).await;
    assert_eq!(dashboard.next_of("unsubscribed").await["data"]["channels"], json!([theirs]));
    // A second answer of the session shows that the hub has been told.
    dashboard.say(&json!({"type": "subscribe", "channels": [ours], "since": {"epoch": "e", "seq": 1}})).await;
    assert_eq!(dashboard.next_of("error").await["data"]["code"], "validation");
    server.reading(&all[1], Metric::Spo2, 91).await;
    server.reading(&all[0], Metric::Spo2, 92).await;
    assert_eq!(dashboard.next_of("health_update").await["data"]["value"], 92);
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_does_not_come_is_ended() {
    let server = Server::start();
    let begin = format!(
        "POST /api/v1/sign-in HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n"
    );
    let mut stream = server.stream();
    stream.write_all(begin.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // It closes: what may still come is no new request.
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["code"], "timeout");
    assert!(body["message"].is_string());
}

#[tokio::test]
async fn every_http_error_has_a_code_and_a_message() {
    let server = Server::start();
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\n", "404"),
        ("POST /healthz HTTP/1.1\r\n", "405"),
        ("POST /api/v1/sign-in HTTP/1.1\r\n", "400"),
        ("GET /ws HTTP/1.1\r\n", "426"),
    ] {
        let answer = server.http(&format!("{request}host: {HOST}\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body["code"].is_string() && body["message"].is_string(), "{request}: {body}");
    }
    let ready = server.http(&format!("GET /readyz HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n")).await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
}
