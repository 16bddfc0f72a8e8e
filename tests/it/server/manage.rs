//! Management: who is connected, how each connection fares, orders to close, and the rows of the audit trail about it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vitalbridge::clock::Clock;
use vitalbridge::server::auth::Capability;
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::jwt::Claims;
use vitalbridge::vitals::Metric;

use super::{HOST, Server, UserRole, patients};
use crate::bridge::now;
use crate::dashboard::{Came, Dashboard, Headers};

/// What older servers answer, word for word.
const OLDER_STATUS: &str = r#"{"status":"healthy","active_connections":10,"total_connections":150,"users_online":8,"subscriptions":{"health_updates":5,"chat":3,"notifications":8},"timestamp":"2024-01-01T00:00:00Z"}"#;
const OLDER_HEALTH: &str = r#"{"connection_id":"uuid","health":{"state":"authenticated","user_id":1,"connected_at":"2024-01-01T00:00:00Z","last_activity":"2024-01-01T00:05:00Z","retry_count":0,"recovery_attempts":0,"subscriptions":["health_updates","notifications"],"is_healthy":true}}"#;

/// Things that happen in other tasks come to pass within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Every address of management: the method, the path, and the body.
const ADDRESSES: &[(&str, &str, &str)] = &[
    ("GET", "/ws/status", ""),
    ("GET", "/ws/connections", ""),
    ("GET", "/ws/connection/ID/health", ""),
    ("GET", "/ws/users", ""),
    ("GET", "/ws/channels", ""),
    ("DELETE", "/ws/connection/ID", ""),
    ("POST", "/ws/user/7/reconnect", ""),
    ("POST", "/ws/user/7/disconnect", ""),
    ("POST", "/ws/drain", ""),
];

/// A dashboard and the id of its connection.
struct Guest {
    dashboard: Dashboard,
    id: String,
}

impl Server {
    fn claims_of(&self, user: &str, role: UserRole) -> Claims {
        Claims { sub: user.to_owned(), ..self.claims(role) }
    }

    /// A dashboard of this user from this address, signed in by the header.
    async fn guest(&self, user: &str, role: UserRole, peer: &str, headers: Headers<'_>) -> Guest {
        let bearer = format!("Bearer {}", self.token(&self.claims_of(user, role)));
        let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("Authorization", bearer.as_str())]).collect();
        let mut dashboard = Dashboard::over(self.stream_from(peer), HOST, "/ws", &headers).await.unwrap();
        let welcome = dashboard.next().await;
        assert_eq!(dashboard.next().await["type"], "authenticated");
        Guest { dashboard, id: welcome["data"]["connection_id"].as_str().unwrap().to_owned() }
    }

    async fn look(&self, path: &str) -> Json {
        let (status, json) = self.ask(UserRole::Admin, "GET", path, "").await;
        assert_eq!(status, "200", "{path}: {json}");
        json
    }

    async fn health(&self, id: &str) -> Json {
        let json = self.look(&format!("/ws/connection/{id}/health")).await;
        assert_eq!(json["connection_id"], id);
        json["health"].clone()
    }

    /// Looks until what is seen is accepted.
    async fn until(&self, path: &str, accept: impl Fn(&Json) -> bool) -> Json {
        let deadline = now() + LIMIT;
        loop {
            let json = self.look(path).await;
            if accept(&json) {
                return json;
            }
            assert!(now() < deadline, "{path}: {json}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The rows of the audit trail with one of these actions, the oldest first, once there are so many.
    pub(super) async fn rows(&self, actions: &[&str], count: usize) -> Vec<Json> {
        let of = |page: &Json| -> Vec<Json> {
            let rows = page["rows"].as_array().unwrap().iter().map(|row| row["data"].clone());
            let mut rows: Vec<Json> =
                rows.filter(|row| actions.iter().any(|action| row["action"] == *action)).collect();
            rows.reverse();
            rows
        };
        of(&self.until("/api/v1/audit?limit=500", |page| of(page).len() >= count).await)
    }
}

/// `actual` has every member of `older`, of the same type and in the same place.
fn has_members(older: &Json, actual: &Json, path: &str) {
    match (older, actual) {
        (Json::Object(older), Json::Object(actual)) => {
            for (name, older) in older {
                let member = actual.get(name).unwrap_or_else(|| panic!("{path}.{name} is missing"));
                has_members(older, member, &format!("{path}.{name}"));
            }
        }
        (Json::Array(older), Json::Array(actual)) => {
            for member in actual {
                has_members(&older[0], member, &format!("{path}[]"));
            }
        }
        (older, actual) => {
            assert_eq!(std::mem::discriminant(older), std::mem::discriminant(actual), "{path}: {actual}");
        }
    }
}

/// The frame and the code with which the server closes.
async fn closing(dashboard: &mut Dashboard) -> (Json, u16) {
    let closing = dashboard.next_of("closing").await["data"].take();
    match dashboard.read().await {
        Came::Closed(code) => (closing, code),
        other => panic!("{other:?} after {closing}"),
    }
}

#[tokio::test]
async fn status_and_health_have_the_members_of_older_servers() {
    let server = Server::start();
    let mut lena = server.guest("7", UserRole::Nurse, "192.0.2.7:50001", &[("User-Agent", "Ward/1.0")]).await;
    let subscriptions = [json!({"subscription": "health_updates"}), json!({"subscription": "notifications"})];
    for mut subscribe in subscriptions {
        subscribe["type"] = json!("subscribe");
        lena.dashboard.say(&subscribe).await;
        lena.dashboard.next_of("snapshot").await;
    }
    let _second = server.guest("7", UserRole::Nurse, "192.0.2.8:50001", &[]).await;
    let mut quiet = server.dashboard(&[]).await.unwrap();
    assert_eq!(quiet.next().await["type"], "welcome");

    let status = server.look("/ws/status").await;
    has_members(&serde_json::from_str(OLDER_STATUS).unwrap(), &status, "status");
    assert_eq!((&status["status"], &status["users_online"]), (&json!("healthy"), &json!(1)), "{status}");
    assert_eq!((&status["active_connections"], &status["total_connections"]), (&json!(3), &json!(3)));
    let counts = &status["subscriptions"];
    assert_eq!(
        (&counts["health_updates"], &counts["notifications"], &counts["chat"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(status["states"], json!({"connecting": 0, "connected": 1, "authenticated": 2, "error": 0}), "{status}");
    assert_eq!(status["epoch"], server.site.gate.shared.epoch.to_string());
    assert_eq!(
        (&status["limits"]["connections"], &status["version"]),
        (&json!(1000), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert!(status["uptime"].is_u64() && status["queues"]["waiting"].is_u64(), "{status}");

    let of_lena = server.look(&format!("/ws/connection/{}/health", lena.id)).await;
    has_members(&serde_json::from_str(OLDER_HEALTH).unwrap(), &of_lena, "health");
    let health = &of_lena["health"];
    assert_eq!(
        (&health["state"], &health["user_id"]),
        (&json!("authenticated"), &json!(7)),
        "a number, as sub is all digits"
    );
    assert_eq!(health["subscriptions"], json!(["health_updates", "notifications", "alerts"]));
    assert_eq!(health["channels"], json!(["patient/+/+", "alerts/+", "notifications/+"]));
    assert_eq!((&health["address"], &health["client"]), (&json!("192.0.2.7"), &json!("Ward/1.0")));
    assert_eq!(
        (&health["is_healthy"], &health["messages_received"], &health["role"]),
        (&json!(true), &json!(2), &json!("nurse"))
    );
    for absent in ["rtt_ms", "acked_seq"] {
        assert_eq!(health[absent], Json::Null, "not known yet: {health}");
    }

    let metrics = server
        .http(&format!(
            "GET /metrics HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
            server.token(&server.claims(UserRole::Viewer))
        ))
        .await;
    for line in ["vitalbridge_users_online 1", "vitalbridge_connections_by_state{state=\"authenticated\"} 2"] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn only_an_admin_may_manage_and_what_cannot_be_is_said() {
    let server = Server::start();
    let guest = server.guest("7", UserRole::Viewer, "127.0.0.1:1", &[]).await;
    for (method, path, body) in ADDRESSES {
        let path = path.replace("ID", &guest.id);
        for role in [UserRole::Viewer, UserRole::Nurse, UserRole::Clinician, UserRole::Service] {
            let (status, json) = server.ask(role, method, &path, body).await;
            assert_eq!(
                (status.as_str(), &json["code"]),
                ("403", &json!("permission_denied")),
                "{role} {method} {path}"
            );
            assert!(json["message"].is_string());
        }
        let mut narrow = server.claims_of("boss", UserRole::Admin);
        let channels = vec!["patient/P-1/#".to_owned()];
        narrow.caps = Some(vec![Capability { channels, allow: UserRole::Admin.operations().to_vec() }]);
        for (token, expected) in [(server.token(&narrow), "403"), ("rubbish".to_owned(), "401")] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
                 content-length: 0\r\n\r\n"
            );
            let answer = server.http(&request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{method} {path}: {answer}");
        }
        let other = if *method == "GET" { "POST" } else { "GET" };
        assert_eq!(server.ask(UserRole::Admin, other, &path, "").await.0, "405", "{other} {path}");
    }
    assert_eq!(server.health(&guest.id).await["state"], "authenticated", "nothing of it was done");

    for (method, path, body, status, code) in [
        ("GET", "/ws/connection/none/health", "", "404", "unknown_connection"),
        ("GET", "/ws/connection/%ff/health", "", "400", "validation"),
        ("GET", "/ws/connection/a%0ab/health", "", "400", "validation"),
        ("DELETE", "/ws/connection/none", "", "404", "unknown_connection"),
        ("DELETE", "/ws/connection/%ff", "", "400", "validation"),
        ("POST", "/ws/user/nobody/reconnect", "", "404", "unknown_user"),
        ("POST", "/ws/user/nobody/disconnect", "", "404", "unknown_user"),
        ("POST", "/ws/user/%ff/disconnect", "", "400", "validation"),
        ("GET", "/ws/connections?state=happy", "", "400", "validation"),
        ("GET", "/ws/connections?sort=id", "", "400", "validation"),
        ("POST", "/ws/drain", r#"{"drain":"no"}"#, "400", "format"),
        ("POST", "/ws/drain", "drain", "400", "format"),
    ] {
        let (found, json) = server.ask(UserRole::Admin, method, path, body).await;
        assert_eq!((found.as_str(), &json["code"]), (status, &json!(code)), "{method} {path}: {json}");
    }
    let long = format!("/ws/connection/{}/health", "x".repeat(300));
    assert_eq!(server.ask(UserRole::Admin, "GET", &long, "").await.0, "400");
    assert!(!server.site.gate.connections.is_draining());
    // Each of four roles is told apart by its refused rows: they have one user here.
    let refused = server.rows(&["connection_close", "user_reconnect", "user_disconnect", "drain"], 16).await;
    assert!(refused.iter().all(|row| row["result"] == "refused" && row["address"] == "127.0.0.1"), "{refused:?}");
}

#[tokio::test]
async fn a_connection_is_closed_by_its_id_and_can_be_looked_at_afterwards() {
    let server = Server::start();
    let mut guest = server.guest("lena", UserRole::Nurse, "192.0.2.7:1", &[]).await;
    let other = server.guest("lena", UserRole::Nurse, "192.0.2.7:2", &[]).await;
    let path = format!("/ws/connection/{}", guest.id);
    let (status, answer) = server.ask(UserRole::Admin, "DELETE", &path, "").await;
    assert_eq!(status, "200");
    assert_eq!(answer, json!({"ok": true, "code": 4009, "reason": "closed_by_admin", "connection_id": guest.id}));
    let (frame, code) = closing(&mut guest.dashboard).await;
    assert_eq!((code, &frame["code"], &frame["reconnect"]), (4009, &json!(4009), &json!(false)), "{frame}");
    let gone = server.until(&format!("{path}/health"), |json| json["health"]["state"] == "disconnected").await;
    assert_eq!(gone["health"]["close"], json!({"code": 4009, "reason": "closed_by_admin"}));
    assert_eq!((&gone["health"]["user_id"], &gone["health"]["is_healthy"]), (&json!("lena"), &json!(false)));
    assert_eq!(server.ask(UserRole::Admin, "DELETE", &path, "").await.0, "404", "it has ended");
    assert_eq!(server.health(&other.id).await["state"], "authenticated");

    let rows = server.rows(&["connection_close", "close"], 2).await;
    let short = |row: &Json| ["by", "action", "object", "address"].map(|name| row[name].as_str().unwrap().to_owned());
    assert_eq!(short(&rows[0]), ["7", "connection_close", &guest.id, "127.0.0.1"]);
    assert_eq!(short(&rows[1]), ["lena", "close", &guest.id, "192.0.2.7"]);
    let reason = rows[1]["reason"].as_str().unwrap();
    assert!(reason.starts_with("4009 closed_by_admin after ") && reason.ends_with(" s"), "{reason}");
}

#[tokio::test]
async fn the_connections_of_a_user_are_sent_back_or_away_and_no_others() {
    let server = Server::start();
    let (mut first, mut second) = (
        server.guest("42", UserRole::Nurse, "192.0.2.1:1", &[]).await,
        server.guest("42", UserRole::Viewer, "192.0.2.2:1", &[]).await,
    );
    let other = server.guest("43", UserRole::Nurse, "192.0.2.3:1", &[]).await;
    let users = server.look("/ws/users").await;
    assert_eq!(users["total"], 2);
    let of_first = &users["users"][0];
    let ids: BTreeSet<&str> =
        of_first["connections"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!((&of_first["user_id"], ids), (&json!(42), BTreeSet::from([first.id.as_str(), second.id.as_str()])));
    let roles: BTreeSet<&str> =
        of_first["roles"].as_array().unwrap().iter().map(|role| role.as_str().unwrap()).collect();
    assert_eq!(roles, BTreeSet::from(["nurse", "viewer"]));

    let (status, answer) = server.ask(UserRole::Admin, "POST", "/ws/user/42/reconnect", "").await;
    assert_eq!((status.as_str(), &answer["user_id"], &answer["code"]), ("200", &json!(42), &json!(4207)), "{answer}");
    assert_eq!(answer["connections"].as_array().unwrap().len(), 2);
    for guest in [&mut first, &mut second] {
        let (frame, code) = closing(&mut guest.dashboard).await;
        assert_eq!((code, &frame["reason"], &frame["reconnect"]), (4207, &json!("force_reconnect"), &json!(true)));
        assert!(frame["retry_after_ms"].as_u64().unwrap() < 5000, "{frame}");
    }
    let mut third = server.guest("42", UserRole::Nurse, "192.0.2.1:1", &[]).await;
    let (status, answer) = server.ask(UserRole::Admin, "POST", "/ws/user/42/disconnect", "").await;
    assert_eq!((status.as_str(), &answer["code"], &answer["connections"]), ("200", &json!(4009), &json!([third.id])));
    let (frame, code) = closing(&mut third.dashboard).await;
    assert_eq!((code, &frame["reconnect"]), (4009, &json!(false)));
    assert_eq!(server.health(&other.id).await["state"], "authenticated");
    let rows = server.rows(&["user_reconnect", "user_disconnect"], 2).await;
    let texts: Vec<String> =
        rows.iter().map(|row| format!("{} {} {}", row["by"], row["object"], row["reason"])).collect();
    assert_eq!(texts, [r#""7" "42" "2 connections""#, r#""7" "42" "1 connections""#]);
}

#[tokio::test]
async fn a_drain_sends_all_away_over_some_time_and_lets_nobody_in_until_it_ends() {
    let limits = ServerLimits { per_user: 10, ..ServerLimits::default() };
    let server = Server::with(limits, CloseCodes::Own, Clock::System);
    let mut guests = Vec::new();
    for number in 0..6 {
        guests.push(server.guest("7", UserRole::Viewer, &format!("192.0.2.{number}:1"), &[]).await);
    }
    let (status, answer) = server.ask(UserRole::Admin, "POST", "/ws/drain", "").await;
    assert_eq!((status.as_str(), answer), ("200", json!({"ok": true, "draining": true, "connections": 6})));
    let mut pauses = BTreeSet::new();
    for guest in &mut guests {
        let (frame, code) = closing(&mut guest.dashboard).await;
        assert_eq!((code, &frame["reconnect"]), (4206, &json!(true)));
        pauses.insert(frame["retry_after_ms"].as_u64().unwrap());
    }
    assert!(pauses.len() > 1 && pauses.iter().all(|pause| *pause < 5000), "spread: {pauses:?}");

    let refused = server.dashboard(&[]).await.err().unwrap();
    assert!(refused.contains("503"), "{refused}");
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade, close\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    for request in [upgrade, format!("GET /readyz HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n")] {
        let answer = server.http(&request).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 503 ") && answer.contains("\r\nretry-after: 5\r\n"), "{answer}");
        assert!(answer.contains("\"draining\""), "{answer}");
    }
    assert_eq!(server.until("/ws/status", |json| json["active_connections"] == 0).await["status"], "draining");

    let (status, answer) = server.ask(UserRole::Admin, "POST", "/ws/drain", r#"{"drain": false}"#).await;
    assert_eq!((status.as_str(), answer), ("200", json!({"ok": true, "draining": false, "connections": 0})));
    server.guest("7", UserRole::Viewer, "192.0.2.1:1", &[]).await;
    assert_eq!(server.look("/ws/status").await["status"], "healthy");
    let rows = server.rows(&["drain"], 2).await;
    assert_eq!(rows.iter().map(|row| row["object"].as_str().unwrap()).collect::<Vec<_>>(), ["on", "off"]);
}

#[tokio::test]
async fn connections_and_channels_are_listed() {
    let server = Server::start();
    let mut lena = server.guest("42", UserRole::Nurse, "192.0.2.1:1", &[]).await;
    let mut otto = server.guest("otto", UserRole::Viewer, "192.0.2.2:1", &[]).await;
    for (guest, channels) in [(&mut lena, json!(["patient/+/+", "alerts/+"])), (&mut otto, json!(["alerts/+"]))] {
        guest.dashboard.say(&json!({"type": "subscribe", "channels": channels})).await;
        guest.dashboard.next_of("snapshot").await;
    }
    let mut quiet = server.dashboard(&[]).await.unwrap();
    let quiet_id = quiet.next().await["data"]["connection_id"].take();
    let subscribers = |channel: &str, count: u64| json!({"channel": channel, "subscribers": count});
    let channels = server.look("/ws/channels").await;
    assert_eq!(channels, json!({"channels": [subscribers("alerts/+", 2), subscribers("patient/+/+", 1)], "total": 2}));
    lena.dashboard.say(&json!({"type": "unsubscribe", "channels": ["alerts/+"]})).await;
    lena.dashboard.next_of("unsubscribed").await;
    server.until("/ws/channels", |json| json["channels"][0] == subscribers("alerts/+", 1)).await;

    for (query, expected) in [
        ("", vec![json!(lena.id), json!(otto.id), quiet_id.clone()]),
        ("?user=42", vec![json!(lena.id)]),
        ("?state=connected", vec![quiet_id]),
        ("?user=42&state=connected", vec![]),
        ("?user=nobody", vec![]),
    ] {
        let list = server.look(&format!("/ws/connections{query}")).await;
        let ids: BTreeSet<String> =
            list["connections"].as_array().unwrap().iter().map(|it| it["connection_id"].to_string()).collect();
        assert_eq!(ids, expected.iter().map(Json::to_string).collect(), "{query}");
        assert_eq!(list["total"], expected.len());
    }
    has_members(
        &serde_json::from_str(OLDER_HEALTH).unwrap(),
        &server.look("/ws/connections?user=42").await["connections"][0],
        "",
    );
}

#[tokio::test]
async fn a_client_that_is_lost_and_resumes_is_counted_and_one_that_leaves_is_not() {
    let server = Server::start();
    let client = json!({"type": "authenticate", "client": "Ward display 3",
                        "token": server.token(&server.claims_of("lena", UserRole::Viewer))});
    let come = async |client: &Json| {
        let mut dashboard =
            Dashboard::over(server.stream(), HOST, "/ws", &[("User-Agent", "a browser")]).await.unwrap();
        let id = dashboard.next().await["data"]["connection_id"].as_str().unwrap().to_owned();
        dashboard.say(client).await;
        assert_eq!(dashboard.next().await["type"], "authenticated");
        Guest { dashboard, id }
    };
    let counts =
        |health: &Json| (health["retry_count"].as_u64().unwrap(), health["recovery_attempts"].as_u64().unwrap());
    let gone = async |id: &str| {
        server.until(&format!("/ws/connection/{id}/health"), |json| json["health"]["state"] == "disconnected").await
    };
    let subscribe = json!({"type": "subscribe", "channels": ["patient/+/+"]});
    let first = come(&client).await;
    let health = server.health(&first.id).await;
    assert_eq!((counts(&health), &health["client"]), ((0, 0), &json!("Ward display 3")), "the client's own name");
    drop(first.dashboard);
    gone(&first.id).await;
    for round in 1..=3 {
        let mut guest = come(&client).await;
        assert_eq!(counts(&server.health(&guest.id).await), (round, round - 1));
        let mut resume = subscribe.clone();
        resume["since"] = json!({"epoch": server.site.gate.shared.epoch, "seq": 1});
        guest.dashboard.say(&resume).await;
        guest.dashboard.next_of("snapshot").await;
        assert_eq!(counts(&server.health(&guest.id).await), (round, round));
        drop(guest.dashboard);
        let end = gone(&guest.id).await;
        assert_eq!((end["health"]["close"]["code"].as_u64(), counts(&end["health"])), (Some(1006), (round, round)));
    }
    // Another program of the same user at the same address has its own history.
    let mut other = client.clone();
    other["client"] = json!("Ward display 4");
    assert_eq!(counts(&server.health(&come(&other).await.id).await), (0, 0));

    let last = come(&client).await;
    assert_eq!(counts(&server.health(&last.id).await), (4, 3));
    last.dashboard.leave(1001).await;
    assert_eq!(gone(&last.id).await["health"]["close"]["code"], 1001);
    assert_eq!(counts(&server.health(&come(&client).await.id).await), (0, 0), "it left in good order");
}

#[tokio::test]
async fn what_waits_what_is_skipped_and_how_long_a_ping_takes_can_be_seen() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut guest = server.guest("42", UserRole::Nurse, "192.0.2.1:1", &[]).await;
    guest.dashboard.say(&json!({"type": "subscribe", "channels": ["notifications/+"]})).await;
    guest.dashboard.next_of("snapshot").await;
    let body = json!({"kind": "system", "users": ["42"], "title": "t", "message": "m"}).to_string();
    assert_eq!(server.ask(UserRole::Clinician, "POST", "/ws/publish", &body).await.0, "201");
    let seq = guest.dashboard.next_of("notification").await["seq"].as_u64().unwrap();
    // A ping goes out behind the message, and the client answers while it reads.
    guest.dashboard.say(&json!({"type": "ack", "channel": "notifications/42", "seq": seq})).await;
    guest.dashboard.say(&json!({"type": "ping"})).await;
    guest.dashboard.next_of("pong").await;
    let path = format!("/ws/connection/{}/health", guest.id);
    let health = server.until(&path, |json| json["health"]["rtt_ms"].is_f64()).await["health"].clone();
    assert!(health["rtt_ms"].as_f64().unwrap() < 20_000.0 && health["acked_seq"] == seq, "{health}");
    assert_eq!((&health["queue_len"], &health["conflated"]), (&json!(0), &json!(0)));

    let mut stalled = server.guest("43", UserRole::Nurse, "192.0.2.2:1", &[]).await;
    stalled.dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
    stalled.dashboard.next_of("snapshot").await;
    let path = format!("/ws/connection/{}/health", stalled.id);
    let mut value = 0;
    let health = loop {
        for _ in 0..500 {
            value = 90 + (value + 1) % 9;
            server.reading(&patient, Metric::Spo2, value).await;
        }
        let health = server.look(&path).await["health"].clone();
        if health["conflated"].as_u64() > Some(0) && health["queue_len"].as_u64() > Some(0) {
            break health;
        }
        assert!(health["messages_sent"].as_u64() < Some(50_000), "{health}");
    };
    assert!(health["queue_bytes"].as_u64() > Some(100), "{health}");
    assert!(server.look("/ws/status").await["queues"]["conflated"].as_u64() > Some(0));
    // It takes nothing, so it cannot be told; it goes all the same.
    let begun = now();
    assert_eq!(server.ask(UserRole::Admin, "DELETE", &format!("/ws/connection/{}", stalled.id), "").await.0, "200");
    let end = server.until(&path, |json| json["health"]["state"] == "disconnected").await;
    assert_eq!(end["health"]["close"]["reason"], "closed_by_admin", "{end}");
    assert!(now().since(begun) < Duration::from_secs(9), "before its write would have been given up");
}

/// Each command that leaves a row when it is refused, with the action of that row.
fn commands(patient: &str) -> Vec<(&'static str, Json)> {
    let command = |name: &str, more: Json| {
        let mut command = json!({"type": "command", "name": name});
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        command
    };
    let id_of_none = "00000000-0000-0000-0000-000000000001";
    let later = "2099-01-01T00:00:00Z";
    vec![
        ("alert_acknowledge", command("alert.acknowledge", json!({"alert_id": id_of_none, "expected_seq": 1}))),
        ("alert_pause_audio", command("alert.pause_audio", json!({"alert_id": id_of_none, "seconds": 60}))),
        ("alert_reset", command("alert.reset", json!({"alert_id": id_of_none}))),
        ("observation_set", command("observation.set", json!({"patient_id": "P-none", "oxygen": "air"}))),
        (
            "limits_set",
            command(
                "limits.set",
                json!({"patient_id": patient, "rule": "spo2_low", "below": 86,
                       "clear": {"at_least": 87}, "delay": "20s", "reason": "r", "expires": later}),
            ),
        ),
        ("limits_clear", command("limits.clear", json!({"patient_id": patient, "rule": "spo2_low", "reason": "r"}))),
        (
            "rule_disable",
            command("rule.disable", json!({"patient_id": patient, "rule": "spo2_low", "reason": "r", "until": later})),
        ),
        ("rule_enable", command("rule.enable", json!({"patient_id": patient, "rule": "spo2_low", "reason": "r"}))),
        ("device_confirmed", command("device.confirm", json!({"source_id": "bed", "serial_number": "1"}))),
        ("device_command", command("device.command", json!({"source_id": "bed", "command": "nibp_start"}))),
        (
            "notification_send",
            command("notification.send", json!({"kind": "system", "users": ["9"], "title": "t", "message": "m"})),
        ),
        ("notification_withdraw", command("notification.withdraw", json!({"notification_id": id_of_none}))),
    ]
}

#[tokio::test]
async fn who_came_asked_was_refused_and_left_is_in_the_audit_trail_with_its_address() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut claims = server.claims_of("lena", UserRole::Nurse);
    claims.caps = Some(vec![Capability::of_patient(&patient.parse().unwrap(), UserRole::Nurse)]);
    let token = server.token(&claims);
    let bearer = format!("Bearer {token}");
    let mut dashboard = Dashboard::over(
        server.stream_from("[::ffff:192.0.2.7]:9"),
        HOST,
        "/ws",
        &[("Authorization", &bearer), ("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")],
    )
    .await
    .unwrap();
    let id = dashboard.next().await["data"]["connection_id"].as_str().unwrap().to_owned();
    dashboard.say(&json!({"type": "subscribe", "channels": [format!("patient/{patient}/+"), "system"]})).await;
    dashboard.next_of("snapshot").await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/P-none/+"]})).await;
    dashboard.next_of("error").await;
    let many: Vec<String> = (0..100).map(|number| format!("patient/P-none-{number}/+")).collect();
    dashboard.say(&json!({"type": "subscribe", "channels": many})).await;
    dashboard.next_of("error").await;
    let commands = commands(&patient);
    for (action, command) in &commands {
        dashboard.say(command).await;
        let result = loop {
            let message = dashboard.next().await;
            assert_ne!(message["type"], "error", "{action}: {message}");
            if message["type"] == "result" {
                break message;
            }
        };
        assert_eq!(result["data"]["ok"], false, "{action}: {result}");
    }
    dashboard.say(&json!({"type": "set_preferences", "data": {"mute": []}})).await;
    assert_eq!(dashboard.next_of("result").await["data"]["ok"], true);
    dashboard.leave(1000).await;

    let rows = server.rows(&["close"], 1).await;
    let reason = rows[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("1000 the other side closed after ") && reason.ends_with(" s"), "{reason}");
    let mut expected = vec![
        ("connect", id.as_str(), "done"),
        ("subscribe", "", "done"),
        ("subscribe", "patient/P-none/+", "refused"),
        ("subscribe", "", "refused"),
    ];
    expected.extend(commands.iter().map(|(action, _)| (*action, "", "refused")));
    expected.extend([("preferences_set", "", "done"), ("close", id.as_str(), "done")]);
    let actions: Vec<&str> = expected.iter().map(|(action, ..)| *action).collect();
    let mut rows = server.rows(&actions, expected.len()).await;
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (action, object, result) in expected {
        let found = rows.iter().position(|row| {
            row["action"] == action && row["result"] == result && (object.is_empty() || row["object"] == object)
        });
        let row = rows.remove(found.unwrap_or_else(|| panic!("{action} {object} {result}: {rows:#?}")));
        assert_eq!((&row["by"], &row["address"]), (&json!("lena"), &json!("192.0.2.7")), "{row}");
        assert!(
            row["object"].as_str().unwrap().len() < 300 && row["reason"].as_str().unwrap_or("").len() < 300,
            "{row}"
        );
        if action == "subscribe" && result == "done" {
            assert_eq!(row["object"], format!("patient/{patient}/+, system"));
        }
    }
}

#[tokio::test]
async fn a_connection_on_which_nobody_signs_in_is_in_the_audit_trail_with_its_address() {
    let limits = ServerLimits { auth: Duration::from_millis(200), ..ServerLimits::default() };
    let server = Server::with(limits, CloseCodes::Own, Clock::System);
    let mut silent = Dashboard::over(server.stream_from("192.0.2.9:1"), HOST, "/ws", &[]).await.unwrap();
    let id = silent.next().await["data"]["connection_id"].clone();
    assert_eq!(silent.next_of("closing").await["data"]["code"], 4008);
    let rows = server.rows(&["connect", "sign_in", "close"], 1).await;
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let row = &rows[0];
    assert_eq!(
        [&row["by"], &row["address"], &row["action"], &row["result"], &row["object"]],
        [&json!("unknown"), &json!("192.0.2.9"), &json!("connect"), &json!("refused"), &id]
    );
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.starts_with("nobody signed in: 4008 auth_timeout after "), "{reason}");
}

#[tokio::test]
async fn what_is_done_over_http_has_the_address_of_the_peer() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let path = format!("/api/v1/patients/{patient}/limits/spo2_low");
    let off =
        json!({"enabled": false, "until": super::limits::later(), "reason": "probe is being changed"}).to_string();
    assert_eq!(server.ask(UserRole::Clinician, "PUT", &path, &off).await.0, "200");
    assert_eq!(server.ask(UserRole::Nurse, "PUT", &path, &off).await.0, "403");
    let mute = json!({"mute": ["system"]}).to_string();
    assert_eq!(server.ask(UserRole::Nurse, "PUT", "/api/v1/users/me/preferences", &mute).await.0, "200");
    let rows = server.rows(&["rule_disable", "preferences_set"], 3).await;
    let short: Vec<_> = rows.iter().map(|row| (row["result"].as_str().unwrap(), row["address"].as_str())).collect();
    assert_eq!(short, [("done", Some("127.0.0.1")), ("refused", Some("127.0.0.1")), ("done", Some("127.0.0.1"))]);
}

#[tokio::test]
async fn who_is_refused_has_a_row_with_the_user_that_is_named_and_a_flood_has_few() {
    let server = Server::start();
    let mut expired = server.claims_of("lena", UserRole::Admin);
    (expired.iat, expired.exp) = (Some(expired.exp - 8000), expired.exp - 7000);
    let expired = server.token(&expired);
    let bearer = format!("Bearer {expired}");
    // In a header, in a message, as a code.
    let refused = Dashboard::over(server.stream_from("192.0.2.1:1"), HOST, "/ws", &[("Authorization", &bearer)]).await;
    assert!(refused.is_err());
    let mut by_message = Dashboard::over(server.stream_from("192.0.2.2:1"), HOST, "/ws", &[]).await.unwrap();
    by_message.say(&json!({"type": "authenticate", "token": expired})).await;
    by_message.next_of("auth_error").await;
    let sign_in = async |code: &str| {
        let body = json!({"code": code}).to_string();
        let request = format!(
            "POST /api/v1/sign-in HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        server.http(&request).await
    };
    assert!(sign_in("wrong").await.starts_with("HTTP/1.1 401"));
    let signed_in = sign_in("c0de").await;
    assert!(signed_in.starts_with("HTTP/1.1 200"), "{signed_in}");
    let given: Json = serde_json::from_str(signed_in.split_once("\r\n\r\n").unwrap().1).unwrap();

    let rows = server.rows(&["sign_in"], 4).await;
    let short =
        |row: &Json| ["by", "address", "object", "result", "reason"].map(|name| row[name].as_str().unwrap().to_owned());
    let user = given["user_id"].as_str().unwrap();
    assert_eq!(
        rows.iter().map(short).collect::<Vec<_>>(),
        [
            ["unknown", "192.0.2.1", "lena", "refused", "token: the token has expired"],
            ["unknown", "192.0.2.2", "lena", "refused", "token: the token has expired"],
            ["unknown", "127.0.0.1", "code", "refused", rows[2]["reason"].as_str().unwrap()],
            [user, "127.0.0.1", "code", "done", given["role"].as_str().unwrap()],
        ]
    );
    assert!(rows[2]["reason"].as_str().unwrap().starts_with("code: "), "{rows:?}");

    for _ in 0..200 {
        let refused =
            Dashboard::over(server.stream_from("192.0.2.66:1"), HOST, "/ws", &[("Authorization", "Bearer x")]).await;
        assert!(refused.is_err());
    }
    // A row of somebody else comes behind them all.
    server.guest("otto", UserRole::Viewer, "192.0.2.3:1", &[]).await;
    server.rows(&["connect"], 1).await;
    let flood = server.rows(&["sign_in"], 14).await;
    let flood = flood.iter().filter(|row| row["address"] == "192.0.2.66").count();
    assert!((10..=11).contains(&flood), "the others are counted: {flood}");

    // Whatever is stored: no token, no code, no signature.
    for secret in [expired.as_str(), expired.rsplit_once('.').unwrap().1, given["token"].as_str().unwrap(), "c0de"] {
        for file in std::fs::read_dir(server.dir.path()).unwrap() {
            let path = file.unwrap().path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|it| it == secret.as_bytes()), "{} has a secret", path.display());
        }
    }
}
