//! Places and their limits: connections, addresses, sessions before the sign-in and of a user, and what is told beyond them.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use vitalbridge::clock::Clock;
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::jwt::Claims;
use vitalbridge::tasks::Role;

use super::{Came, Dashboard, HOST, Server, UserRole};

fn limited(change: impl FnOnce(&mut ServerLimits)) -> Server {
    let mut limits = ServerLimits::default();
    change(&mut limits);
    Server::with(limits, CloseCodes::Own, Clock::System)
}

/// What a request on an open connection comes to: status line and headers.
async fn ask(stream: &mut DuplexStream, token: Option<&str>) -> String {
    let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {HOST}\r\n{bearer}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "no answer");
        answer.extend(&bytes[..count]);
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test]
async fn beyond_the_limit_everybody_is_told_when_to_come_back_and_admins_still_get_in() {
    let server = limited(|limits| (limits.connections, limits.admin_connections) = (2, 1));
    let connect = |last| server.through(server.door(None), [192, 0, 2, last], 64 * 1024).unwrap();
    let token = |role| server.token(&server.claims(role));
    let mut inside = [connect(1), connect(2)];
    for stream in &mut inside {
        assert!(ask(stream, None).await.starts_with("http/1.1 200"));
    }
    for outside in [None, Some("rubbish".to_owned()), Some(token(UserRole::Clinician))] {
        let answer = ask(&mut connect(3), outside.as_deref()).await;
        assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 5"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    let revoked = server.token(&Claims { jti: Some("gone".to_owned()), ..server.claims(UserRole::Admin) });
    let file = vitalbridge::server::revocation::RevocationFile::new(server.dir.path().to_owned());
    let whose = vitalbridge::server::revocation::Whose::Jti("gone".to_owned());
    file.revoke(whose, "7".to_owned(), server.clock.now().wall).unwrap();
    let mut revocations = server.site.gate.access.revocations();
    revocations.wait_for(|revoked| !revoked.is_empty()).await.unwrap();
    let answer = ask(&mut connect(3), Some(&revoked)).await;
    assert!(answer.starts_with("http/1.1 503"), "a revoked admin is none: {answer}");
    let admin = token(UserRole::Admin);
    let mut reserved = connect(4);
    assert!(ask(&mut reserved, Some(&admin)).await.starts_with("http/1.1 200"));
    assert!(ask(&mut connect(5), Some(&admin)).await.starts_with("http/1.1 503"), "one place is reserved");
    // An admin's WebSocket too, with the token in the subprotocol as browsers send it.
    drop(reserved);
    let protocol = format!("vitals.v1.json, bearer.{admin}");
    until(&server, |seats| seats.admins == 0).await;
    let mut socket = Dashboard::over(connect(4), HOST, "/ws", &[("Sec-WebSocket-Protocol", &protocol)]).await.unwrap();
    assert_eq!(socket.next().await["type"], "welcome");
    drop(inside);
    until(&server, |seats| seats.connections == 0).await;
    assert!(ask(&mut connect(3), None).await.starts_with("http/1.1 200"));
}

/// Waits until places are free again.
async fn until(server: &Server, there: impl Fn(vitalbridge::server::seats::Occupied) -> bool) {
    let free = || there(server.site.gate.seats.occupied()).then_some(());
    crate::bridge::eventually("places become free", Duration::from_secs(20), free).await;
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_and_of_sessions_before_the_sign_in() {
    let server = limited(|limits| (limits.per_address, limits.unauthenticated_per_address) = (3, 2));
    let connect = |last| server.through(server.door(None), [192, 0, 2, last], 64 * 1024).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(Dashboard::over(connect(1), HOST, "/ws", &[]).await.unwrap());
    }
    let refused = Dashboard::over(connect(1), HOST, "/ws", &[]).await.err().unwrap();
    assert!(refused.contains("503") || refused.contains("Invalid status"), "{refused}");
    let mut other = Dashboard::over(connect(2), HOST, "/ws", &[]).await.unwrap();
    assert_eq!(other.next().await["type"], "welcome", "another address has its own share");
    // Who signs in makes room for the next one before the sign-in, but is still a connection.
    let token = server.token(&server.claims(UserRole::Viewer));
    waiting[0].say(&json!({"type": "authenticate", "token": token})).await;
    waiting[0].next_of("authenticated").await;
    waiting.push(Dashboard::over(connect(1), HOST, "/ws", &[]).await.unwrap());
    assert!(ask(&mut connect(1), None).await.starts_with("http/1.1 503"), "the fourth of this address");
    assert!(ask(&mut connect(2), None).await.starts_with("http/1.1 200"));
    let admin = server.token(&server.claims(UserRole::Admin));
    assert!(ask(&mut connect(1), Some(&admin)).await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn before_the_sign_in_there_is_one_small_message() {
    let server = Server::start();
    let mut large = server.dashboard(&[]).await.unwrap();
    let token = server.token(&server.claims(UserRole::Viewer));
    let padding = " ".repeat(8192 - token.len());
    large.say(&json!({"type": "authenticate", "token": token, "padding": padding})).await;
    assert_eq!(large.next_of("closing").await["data"]["reason"], "message_too_big");
    assert_eq!(large.read().await, Came::Closed(4010));

    let mut chatty = server.dashboard(&[]).await.unwrap();
    chatty.say(&json!({"type": "ping"})).await;
    assert_eq!(chatty.next_of("error").await["data"]["code"], "not_authenticated");
    assert_eq!(chatty.next().await["data"]["reason"], "permission_denied");
    assert_eq!(chatty.read().await, Came::Closed(4003));

    // What is sent behind the sign-in has the larger limit already.
    let mut eager = server.dashboard(&[]).await.unwrap();
    eager.say(&json!({"type": "authenticate", "token": token})).await;
    eager.say(&json!({"type": "ping", "padding": " ".repeat(30_000)})).await;
    eager.next_of("authenticated").await;
    eager.next_of("pong").await;
}

#[tokio::test]
async fn standard_close_codes_are_those_of_the_rfc_and_closing_still_says_why() {
    let server = Server::with(ServerLimits::default(), CloseCodes::Standard, Clock::System);
    let mut big = server.signed_in(&server.claims(UserRole::Viewer)).await;
    big.say_text(&"x".repeat(70_000)).await;
    assert_eq!(big.next_of("closing").await["data"]["code"], 4010);
    assert_eq!(big.read().await, Came::Closed(1009));
    let mut stranger = server.dashboard(&[]).await.unwrap();
    stranger.say(&json!({"type": "authenticate", "token": "rubbish"})).await;
    assert_eq!(stranger.next_of("closing").await["data"]["reason"], "invalid_token");
    assert_eq!(stranger.read().await, Came::Closed(1008));
    let mut waiting = server.signed_in(&server.claims(UserRole::Viewer)).await;
    server.sessions.cancel();
    assert_eq!(waiting.next_of("closing").await["data"]["code"], 4206);
    assert_eq!(waiting.read().await, Came::Closed(1013));
}

#[tokio::test]
async fn the_limits_are_on_the_page_of_metrics() {
    let server = limited(|limits| limits.per_user = 9);
    let token = server.token(&server.claims(UserRole::Admin));
    let request =
        format!("GET /metrics HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n");
    let page = server.http(&request).await;
    assert!(page.contains("\nvitalbridge_limit{name=\"per_user\"} 9\n"), "{page}");
    assert!(page.contains("\nvitalbridge_limit{name=\"connections\"} 1000\n"), "{page}");
}

/// Sessions of one user in virtual time.
struct Ward {
    server: Server,
    claims: Claims,
}

impl Ward {
    fn open() -> Self {
        let clock = Clock::tokio(Clock::System.now());
        let server = Server::with(ServerLimits::default(), CloseCodes::Own, clock);
        let claims = server.claims(UserRole::Nurse);
        Self { server, claims }
    }

    async fn dashboard(&self) -> Dashboard {
        let bearer = format!("Bearer {}", self.server.token(&self.claims));
        self.server.dashboard(&[("Authorization", &bearer)]).await.unwrap()
    }

    async fn subscribed(&self) -> Dashboard {
        let mut dashboard = self.dashboard().await;
        dashboard.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
        dashboard.next_of("snapshot").await;
        dashboard
    }

    /// Reads on for ever, so that pings are answered; the close code comes out.
    fn keep_reading(&self, mut dashboard: Dashboard) -> tokio::sync::oneshot::Receiver<u16> {
        let (told, end) = tokio::sync::oneshot::channel();
        self.server.site.tasks.spawn("reader", Role::Helper, async move {
            loop {
                match dashboard.read().await {
                    Came::Closed(code) => {
                        // The test may not want to know.
                        let _ = told.send(code);
                        return Ok(());
                    }
                    Came::Broken => return Ok(()),
                    Came::Message(_) | Came::Binary(_) => {}
                }
            }
        });
        end
    }
}

#[tokio::test(start_paused = true)]
async fn the_sixth_session_of_a_user_is_refused_while_all_five_are_alive_and_listen() {
    let ward = Ward::open();
    for _ in 0..5 {
        ward.keep_reading(ward.subscribed().await);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let mut sixth = ward.dashboard().await;
    assert_eq!(sixth.next().await["type"], "welcome");
    let closing = sixth.next().await;
    assert_eq!((&closing["type"], &closing["data"]["reason"]), (&json!("closing"), &json!("user_connection_limit")));
    assert_eq!(sixth.read().await, Came::Closed(4006));
    // In a message it is the same.
    let mut by_message = ward.server.dashboard(&[]).await.unwrap();
    by_message.say(&json!({"type": "authenticate", "token": ward.server.token(&ward.claims)})).await;
    assert_eq!(by_message.next_of("closing").await["data"]["code"], 4006);
    assert_eq!(ward.server.site.gate.metrics.sessions_refused_total.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_makes_room_at_once() {
    let ward = Ward::open();
    let mut idle = ward.dashboard().await;
    assert_eq!(idle.next().await["type"], "welcome");
    let idle = ward.keep_reading(idle);
    for _ in 0..4 {
        ward.keep_reading(ward.subscribed().await);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut sixth = ward.dashboard().await;
    sixth.next_of("authenticated").await;
    assert_eq!(idle.await, Ok(4006));
    assert_eq!(ward.server.site.gate.metrics.sessions_evicted_total.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_display_whose_network_broke_gets_its_place_back_before_the_server_has_missed_it() {
    let ward = Ward::open();
    // Five displays of a ward lose their network: the server does not know, and nobody answers any more.
    let mut lost = Vec::new();
    for _ in 0..5 {
        lost.push(ward.subscribed().await);
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for _ in 0..5 {
        let mut back = ward.dashboard().await;
        back.next_of("authenticated").await;
        back.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
        back.next_of("snapshot").await;
        ward.keep_reading(back);
    }
    // The last of them may have been missed in the meantime.
    let evicted = ward.server.site.gate.metrics.sessions_evicted_total.get();
    assert!(evicted >= 3, "{evicted}");
    assert_eq!(ward.server.site.gate.metrics.sessions_refused_total.get(), 0);
}
