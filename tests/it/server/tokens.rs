//! The life of a token: tickets and addresses instead of it, its end, a newer one, and its revocation.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vitalbridge::clock::Clock;
use vitalbridge::server::auth::Capability;
use vitalbridge::server::jwt::Claims;
use vitalbridge::server::tickets::TICKET_LIFE;
use vitalbridge::vitals::Metric;

use vitalbridge::server::bounds::{CloseCodes, ServerLimits};

use super::{Came, Dashboard, HOST, Server, UserRole, patients};
use crate::bridge::now;

/// A socket of a revoked token is closed within this time.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

impl Server {
    /// A POST with a token: the status and the answer.
    pub(super) async fn post(&self, claims: &Claims, path: &str, body: &Json) -> (String, Json) {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.token(claims),
            body.len()
        );
        let answer = self.http(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str(body).unwrap())
    }

    pub(super) async fn ticket(&self, claims: &Claims) -> String {
        let (status, answer) = self.post(claims, "/api/v1/ws-ticket", &json!({})).await;
        assert_eq!((status.as_str(), &answer["expires_in"]), ("200", &json!(30)), "{answer}");
        answer["ticket"].as_str().unwrap().to_owned()
    }

    async fn at(&self, query: &str) -> Result<Dashboard, String> {
        Dashboard::over(self.stream(), HOST, &format!("/ws?{query}"), &[]).await
    }

    pub(super) fn named(&self, role: UserRole, user: &str, jti: &str) -> Claims {
        Claims { sub: user.into(), jti: Some(jti.into()), ..self.claims(role) }
    }

    async fn by_name(&self, claims: &Claims) -> Dashboard {
        let bearer = format!("Bearer {}", self.token(claims));
        let mut dashboard = self.dashboard(&[("Authorization", &bearer)]).await.unwrap();
        assert_eq!(dashboard.next_of("authenticated").await["data"]["user_id"], claims.sub.as_str());
        dashboard
    }
}

#[tokio::test]
async fn a_ticket_opens_one_connection_with_the_rights_of_its_token() {
    let server = Server::start();
    let all = patients(&server);
    let mut claims = server.named(UserRole::Nurse, "lena", "a");
    claims.caps = Some(vec![Capability::of_patient(&all[0].parse().unwrap(), UserRole::Nurse)]);
    let ticket = server.ticket(&claims).await;
    let mut dashboard = server.at(&format!("ticket={ticket}")).await.unwrap();
    let authenticated = dashboard.next_of("authenticated").await;
    assert_eq!((&authenticated["data"]["user_id"], &authenticated["data"]["role"]), (&json!("lena"), &json!("nurse")));
    dashboard.say(&json!({"type": "subscribe", "channels": [format!("alerts/{}", all[1])]})).await;
    assert_eq!(dashboard.next_of("error").await["data"]["code"], "permission_denied");
    let expected = vitalbridge::clock::Wall(claims.exp * 1000).to_string();
    assert_eq!(authenticated["data"]["expires_at"], expected, "it ends with its token");

    for (what, query) in [
        ("used twice", format!("ticket={ticket}")),
        ("of another bridge", format!("ticket={}", Server::start().ticket(&claims).await)),
        ("none", "ticket=".to_owned()),
        ("cut off", format!("ticket={}", &server.ticket(&claims).await[1..])),
        ("a token", format!("ticket={}", server.token(&claims))),
    ] {
        let refused = server.at(&query).await.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(refused.contains("401"), "{what}: {refused}");
    }
    // Who sends a token has no use for a ticket, which stays unused.
    let kept = server.ticket(&claims).await;
    let bearer = format!("Bearer {}", server.token(&server.named(UserRole::Viewer, "otto", "b")));
    let path = format!("/ws?ticket={kept}");
    let mut other = Dashboard::over(server.stream(), HOST, &path, &[("Authorization", &bearer)]).await.unwrap();
    assert_eq!(other.next_of("authenticated").await["data"]["user_id"], "otto");
    // A connection of one user does not become another's.
    let mut dashboard = server.at(&format!("ticket={kept}")).await.unwrap();
    dashboard.next_of("authenticated").await;
    dashboard
        .say(&json!({"type": "refresh", "token": server.token(&server.named(UserRole::Admin, "otto", "b"))}))
        .await;
    assert_eq!(dashboard.next_of("closing").await["data"]["reason"], "token_changed_subject");
    assert_eq!(dashboard.read().await, Came::Closed(4102));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_over_after_thirty_seconds_and_with_its_token() {
    let mut server = Server::start();
    server.clock = Clock::tokio(Clock::System.now());
    Arc::make_mut(&mut server.site.gate).clock = server.clock.clone();
    let claims = server.claims(UserRole::Viewer);
    let ticket = server.ticket(&claims).await;
    tokio::time::advance(TICKET_LIFE).await;
    assert!(server.at(&format!("ticket={ticket}")).await.err().unwrap().contains("401"));
    let short = Claims { exp: server.clock.now().wall.as_secs() + 5, ..claims };
    let ticket = server.ticket(&short).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(server.at(&format!("ticket={ticket}")).await.err().unwrap().contains("401"));
}

#[tokio::test]
async fn a_token_in_an_address_is_refused_unless_the_configuration_allows_it() {
    let mut server = Server::start();
    let good = format!("token={}", server.token(&server.claims(UserRole::Viewer)));
    assert!(server.at(&good).await.err().unwrap().contains("401"));

    Arc::make_mut(&mut server.site.gate).access.in_query = true;
    assert_eq!(server.at(&good).await.unwrap().next_of("authenticated").await["data"]["user_id"], 7);
    assert!(server.at("token=bad").await.err().unwrap().contains("401"));
    // A ticket comes before it, also a bad one.
    assert!(server.at(&format!("{good}&ticket=none")).await.err().unwrap().contains("401"));

    let mut server = Server::with(ServerLimits::default(), CloseCodes::Standard, Clock::System);
    Arc::make_mut(&mut server.site.gate).access.in_query = true;
    let good = format!("token={}", server.token(&server.claims(UserRole::Viewer)));
    assert_eq!(server.at("token=bad").await.unwrap().read().await, Came::Closed(1008));
    assert_eq!(server.at(&good).await.unwrap().next_of("authenticated").await["data"]["user_id"], 7);
    assert!(server.at("ticket=bad").await.err().unwrap().contains("401"), "only a bad token is told by a close code");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_is_told_and_a_newer_one_goes_on_also_in_the_grace() {
    let mut server = Server::start();
    server.clock = Clock::tokio(Clock::System.now());
    Arc::make_mut(&mut server.site.gate).clock = server.clock.clone();
    let start = server.clock.now().wall.as_secs();
    let short = Claims { exp: start + 100, ..server.claims(UserRole::Viewer) };
    let ends = vitalbridge::clock::Wall(short.exp * 1000).to_string();
    let longer = Claims { exp: start + 500, ..server.claims(UserRole::Viewer) };
    let mut renewed = server.signed_in(&short).await;
    let mut forgotten = server.signed_in(&short).await;
    let since = || server.clock.now().wall.0 - start * 1000;
    // Both read all the time, so that pings are answered.
    let renewing = async {
        renewed.next_of("token_expiring").await;
        // 20 s after the end: inside the grace.
        while since() < 120_000 {
            renewed.next().await;
        }
        renewed.say(&json!({"type": "refresh", "token": server.token(&longer), "id": "r"})).await;
        let authenticated = renewed.next_of("authenticated").await;
        assert_eq!(authenticated["correlation_id"], "r");
        assert_eq!(authenticated["data"]["expires_at"], vitalbridge::clock::Wall(longer.exp * 1000).to_string());
    };
    let forgetting = async {
        // Deadlines of a session are kept to within a second, not to the next heartbeat.
        assert_eq!(forgotten.next_of("token_expiring").await["data"]["expires_at"], ends);
        assert!((40_000..41_000).contains(&since()), "{}", since());
        let closing = forgotten.next_of("closing").await;
        assert_eq!(
            (&closing["data"]["reason"], &closing["data"]["reconnect"]),
            (&json!("token_expired"), &json!(true))
        );
        assert_eq!(forgotten.read().await, Came::Closed(4101));
        assert!((125_000..126_000).contains(&since()), "{}", since());
    };
    tokio::join!(renewing, forgetting);
    // What was renewed lives on, and the expired token itself renews nothing.
    renewed.say(&json!({"type": "ping", "id": "p"})).await;
    assert_eq!(renewed.next_of("pong").await["correlation_id"], "p");
    renewed.say(&json!({"type": "refresh", "token": server.token(&short)})).await;
    assert!(renewed.next_of("auth_error").await["data"]["message"].as_str().unwrap().contains("expired"));
    assert_eq!(renewed.next_of("closing").await["data"]["reason"], "invalid_token");
}

#[tokio::test]
async fn what_a_newer_token_takes_away_is_told_also_of_a_subscription_that_stays() {
    let server = Server::start();
    let all = patients(&server);
    let mut dashboard = server.signed_in(&server.claims(UserRole::Nurse)).await;
    let exact = format!("alerts/{}", all[1]);
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+", "chat/c-1", exact]})).await;
    dashboard.next_of("snapshot").await;
    server.reading(&all[1], Metric::Spo2, 97).await;
    dashboard.next_of("health_update").await;

    let mut claims = server.claims(UserRole::Nurse);
    claims.caps = Some(vec![Capability::of_patient(&all[0].parse().unwrap(), UserRole::Nurse)]);
    dashboard.say(&json!({"type": "refresh", "token": server.token(&claims)})).await;
    dashboard.next_of("authenticated").await;
    assert_eq!(dashboard.next().await["data"]["channels"], json!(["chat/c-1", exact]));
    let narrowed = dashboard.next().await;
    assert_eq!((&narrowed["type"], &narrowed["data"]["narrowed"]), (&json!("unsubscribed"), &json!(true)));
    let lost: Vec<Json> = all[1..].iter().map(|patient| json!(format!("patient/{patient}/#"))).collect();
    assert_eq!(narrowed["data"]["channels"], json!(lost));

    // Neither readings nor their age, nor another subscribe.
    dashboard.say(&json!({"type": "subscribe", "channels": [exact]})).await;
    assert_eq!(dashboard.next_of("error").await["data"]["code"], "permission_denied");
    server.reading(&all[1], Metric::Spo2, 91).await;
    server.reading(&all[0], Metric::Spo2, 92).await;
    assert_eq!(dashboard.next_of("health_update").await["data"]["value"], 92);
    let heartbeat = dashboard.next_of("heartbeat").await;
    let ages = heartbeat["data"]["ages"].as_object().unwrap();
    let ours = format!("patient/{}/", all[0]);
    assert!(!ages.is_empty() && ages.keys().all(|channel| channel.starts_with(&ours)), "{ages:?}");
}

#[tokio::test]
async fn a_revoked_token_and_every_token_of_a_revoked_user_is_out_within_a_second() {
    let server = Server::start();
    let admin = server.named(UserRole::Admin, "admin", "root");
    let (lena, otto) = (server.named(UserRole::Nurse, "lena", "a"), server.named(UserRole::Nurse, "otto", "b"));
    let second = server.named(UserRole::Nurse, "lena", "c");
    let mut by_jti = server.by_name(&lena).await;
    let mut other_token = server.by_name(&second).await;
    let mut stranger = server.by_name(&otto).await;
    let ticket = server.ticket(&lena).await;

    let path = "/api/v1/tokens/revoke";
    for (claims, body, status) in [
        (&otto, json!({"user": "lena"}), "403"),
        (&admin, json!({}), "400"),
        (&admin, json!({"user": "lena", "jti": "a"}), "400"),
        (&admin, json!({"user": ""}), "400"),
        (&admin, json!({"jti": "x".repeat(2000)}), "400"),
    ] {
        assert_eq!(server.post(claims, path, &body).await.0, status, "{body:.60}");
    }
    let begin = now();
    let (status, answer) = server.post(&admin, path, &json!({"jti": "a"})).await;
    assert_eq!((status.as_str(), &answer["ok"]), ("200", &json!(true)), "{answer}");
    let closing = by_jti.next_of("closing").await;
    assert_eq!((&closing["data"]["reason"], &closing["data"]["code"]), (&json!("token_revoked"), &json!(4103)));
    assert_eq!(by_jti.read().await, Came::Closed(4103));
    assert!(now().since(begin) < REVOKED_WITHIN, "{:?}", now().since(begin));

    // Neither by a header, nor by the ticket that it had got, nor as a newer token.
    let bearer = format!("Bearer {}", server.token(&lena));
    assert!(server.dashboard(&[("Authorization", &bearer)]).await.err().unwrap().contains("401"));
    assert!(server.at(&format!("ticket={ticket}")).await.err().unwrap().contains("401"));
    other_token.say(&json!({"type": "ping"})).await;
    other_token.next_of("pong").await;
    other_token.say(&json!({"type": "refresh", "token": server.token(&lena)})).await;
    assert_eq!(other_token.next_of("auth_error").await["data"]["code"], "token_revoked");
    assert_eq!(other_token.next_of("closing").await["data"]["reason"], "token_revoked");
    assert_eq!(other_token.read().await, Came::Closed(4103));

    let mut again = server.by_name(&second).await;
    assert_eq!(server.post(&admin, path, &json!({"user": "lena"})).await.0, "200");
    assert_eq!(again.next_of("closing").await["data"]["reason"], "token_revoked");
    let later = Claims { iat: second.iat.map(|iat| iat + 3), ..server.named(UserRole::Nurse, "lena", "d") };
    server.by_name(&later).await;
    stranger.say(&json!({"type": "ping"})).await;
    stranger.next_of("pong").await;
    // Rows are read from the disk, where they come a moment later.
    let limit = now() + Duration::from_secs(10);
    loop {
        let rows: Vec<String> = server.audit().await.into_iter().filter(|row| row.contains("token_revoke")).collect();
        if rows == ["admin token_revoke user lena done", "admin token_revoke jti a done"] {
            return;
        }
        assert!(now() < limit, "{rows:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_out_too() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let claims = server.named(UserRole::Nurse, "lena", "a");
    // A pipe that holds a few messages only, and whose other end reads nothing after the upgrade.
    let (mut ours, theirs) = tokio::io::duplex(2048);
    server.serve(theirs, "127.0.0.1:50000");
    let request = format!(
        "GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        server.token(&claims)
    );
    ours.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    ours.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    // A masked text frame with the mask 0 (RFC 6455, 5.3).
    let subscribe = br#"{"type":"subscribe","channels":["alerts/+","patient/+/+"],"delivery":"all"}"#;
    let mut frame = vec![0x81, 0x80 | u8::try_from(subscribe.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(subscribe);
    ours.write_all(&frame).await.unwrap();
    for value in 0..100 {
        server.reading(&patient, Metric::Spo2, 60 + value % 40).await;
    }
    let admin = server.named(UserRole::Admin, "admin", "root");
    let connections = || server.site.gate.metrics.connections.get();
    let limit = now() + Duration::from_secs(10);
    while connections() != 1 {
        assert!(now() < limit, "no connection");
        tokio::task::yield_now().await;
    }
    let begin = now();
    assert_eq!(server.post(&admin, "/api/v1/tokens/revoke", &json!({"user": "lena"})).await.0, "200");
    while connections() != 0 {
        assert!(now().since(begin) < Duration::from_secs(2), "it is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
