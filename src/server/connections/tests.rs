//! The registry without sockets: states, orders, those who have gone, and the members that older clients read.

use std::net::Ipv4Addr;

use serde_json::{Value as Json, json};

use super::*;
use crate::outbox::Load;
use crate::server::auth::Role;

/// `GET /ws/connection/{connection_id}/health` of older servers, word for word.
const OLDER: &str = r#"{"connection_id":"uuid","health":{"state":"authenticated","user_id":1,"connected_at":"2024-01-01T00:00:00Z","last_activity":"2024-01-01T00:05:00Z","retry_count":0,"recovery_attempts":0,"subscriptions":["health_updates","notifications"],"is_healthy":true}}"#;

fn registry() -> Connections {
    Connections::new(Clock::System, Arc::new(Metrics::default()))
}

fn open(connections: &Connections, id: &str) -> Visit {
    connections.open(id.to_owned(), Some(Ipv4Addr::LOCALHOST.into()), Some("ward\u{7}-display/1")).unwrap()
}

fn health() -> Health {
    Health {
        state: State::Authenticated,
        user: Some("1".to_owned()),
        role: Some(Role::Nurse),
        connected_at: "2024-01-01T00:00:00Z".to_owned(),
        last_activity: "2024-01-01T00:05:00Z".to_owned(),
        retry_count: 0,
        recovery_attempts: 0,
        channels: ["patient/+/+", "patient/P-1/spo2", "notifications/+"].map(str::to_owned).to_vec(),
        is_healthy: true,
        rtt: Some(Duration::from_micros(1500)),
        load: Load { parcels: 3, bytes: 900, conflated: 7, is_overrun: false },
        acked_seq: Some(1042),
        client: Some("ward-display/1".to_owned()),
        address: Some("192.0.2.7".to_owned()),
        messages_received: 5,
        messages_sent: 6,
        end: None,
    }
}

#[test]
fn health_has_the_bytes_that_older_clients_read_and_more_members_after_them() {
    let text = format!(r#"{{"connection_id":"uuid","health":{}}}"#, serde_json::to_string(&health()).unwrap());
    let (older, rest) = (OLDER.strip_suffix("}}").unwrap(), |text: &str| text[OLDER.len() - 2..].to_owned());
    assert!(text.starts_with(older), "{text}");
    let more = concat!(
        r#","rtt_ms":1.5,"queue_len":3,"queue_bytes":900,"conflated":7,"acked_seq":1042,"client":"ward-display/1","#,
        r#""role":"nurse","address":"192.0.2.7","channels":["patient/+/+","patient/P-1/spo2","notifications/+"],"#,
        r#""messages_received":5,"messages_sent":6}}"#
    );
    assert_eq!(rest(&text), more);
    let user = |user: Option<&str>| serde_json::to_value(Health { user: user.map(str::to_owned), ..health() }).unwrap();
    assert_eq!((&user(Some("7"))["user_id"], &user(Some("lena"))["user_id"]), (&json!(7), &json!("lena")));
    assert_eq!(user(None)["user_id"], Json::Null);
}

#[test]
fn channels_are_told_by_the_names_of_older_clients() {
    for (pattern, subject) in [
        ("patient/P-1/spo2", Subject::HealthUpdates),
        ("ward/icu/patient/+/+", Subject::HealthUpdates),
        ("ward/icu/alerts/+", Subject::Alerts),
        ("notifications/7", Subject::Notifications),
        ("chat/+", Subject::Chat),
        ("waveform/P-1/pleth", Subject::Waveforms),
        ("device/+/status", Subject::Devices),
        ("system", Subject::System),
        ("audit", Subject::Audit),
        ("ward/icu/#", Subject::Other),
        ("ward/icu", Subject::Other),
        ("#", Subject::Other),
        ("+/P-1", Subject::Other),
    ] {
        assert_eq!(Subject::of(pattern), subject, "{pattern}");
    }
}

#[test]
fn a_connection_goes_through_its_states_and_can_be_looked_at_when_it_has_gone() {
    let connections = registry();
    let state = |id: &str| connections.health(id).map(|health| health.state);
    let mut visit = open(&connections, "a");
    assert_eq!(state("a"), Some(State::Connecting));
    assert_eq!(connections.health("a").unwrap().client.as_deref(), Some("ward-display/1"), "one line of text");
    visit.begin();
    assert_eq!(state("a"), Some(State::Connected));
    visit.on_closing(Close::ClosedByAdmin);
    assert_eq!(state("a"), Some(State::Connected), "an order is no fault");
    visit.on_closing(Close::TooManyErrors);
    assert_eq!(state("a"), Some(State::Error));
    assert!(!connections.health("a").unwrap().is_healthy);
    assert_eq!(connections.totals().states.get(&State::Error), Some(&1));
    visit.on_end(Some(4005), "too_many_errors");
    drop(visit);
    assert_eq!(state("a"), Some(State::Disconnected));
    let gone = serde_json::to_value(connections.health("a").unwrap()).unwrap();
    assert_eq!(
        (&gone["close"], &gone["is_healthy"]),
        (&json!({"code": 4005, "reason": "too_many_errors"}), &json!(false))
    );
    assert!(gone["disconnected_at"].is_string());
    assert_eq!((connections.totals().open, state("b")), (0, None));
}

#[test]
fn those_who_have_gone_are_remembered_in_a_bounded_number_and_for_a_while() {
    let connections = registry();
    for number in 0..2 * MAX_GONE {
        drop(open(&connections, &number.to_string()));
    }
    assert_eq!(connections.inner.lock().gone.len(), MAX_GONE);
    assert!(connections.health(&(MAX_GONE - 1).to_string()).is_none());
    assert!(connections.health(&MAX_GONE.to_string()).is_some());
    for gone in &mut connections.inner.lock().gone {
        gone.at = gone.at - GONE_LIFE;
    }
    assert!(connections.health(&MAX_GONE.to_string()).is_none(), "too old");
    drop(open(&connections, "late"));
    assert_eq!(connections.inner.lock().gone.len(), 1);
}

/// The order that waits for a connection.
async fn ordered(visit: &Visit) -> Close {
    *visit.order().wait().await
}

#[tokio::test]
async fn an_order_reaches_its_connection_once_and_nobody_comes_in_while_all_are_sent_away() {
    let connections = registry();
    let (first, second) = (open(&connections, "a"), open(&connections, "b"));
    assert_eq!(connections.close(Which::Connection("a"), Close::ClosedByAdmin), ["a"]);
    assert_eq!(ordered(&first).await, Close::ClosedByAdmin);
    assert!(connections.close(Which::Connection("a"), Close::ForceReconnect).is_empty(), "it goes already");
    assert!(connections.close(Which::User("7"), Close::ForceReconnect).is_empty(), "nobody has signed in");

    assert_eq!(connections.drain(true), 1, "the other one goes already");
    assert_eq!((ordered(&first).await, ordered(&second).await), (Close::ClosedByAdmin, Close::ServerShutdown));
    assert!(connections.is_draining() && connections.open("c".to_owned(), None, None).is_none());
    assert_eq!((connections.drain(false), connections.is_draining()), (0, false));
    assert!(connections.open("c".to_owned(), None, None).is_some());
}

#[test]
fn the_numbers_for_prometheus_are_those_of_the_registry() {
    let connections = registry();
    let visits = [open(&connections, "a"), open(&connections, "b")];
    visits[0].begin();
    connections.drain(true);
    let text = connections.to_prometheus();
    for line in [
        "vitalbridge_connections_by_state{state=\"connecting\"} 1",
        "vitalbridge_connections_by_state{state=\"connected\"} 1",
        "vitalbridge_connections_by_state{state=\"authenticated\"} 0",
        "vitalbridge_users_online 0",
        "vitalbridge_connections_unhealthy 0",
        "vitalbridge_draining 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
    assert!(!text.contains("disconnected"));
}

#[test]
fn who_does_not_get_in_has_one_row_that_says_why() {
    let connections = registry();
    let mut silent = open(&connections, "silent");
    silent.on_end(Some(4008), "auth_timeout");
    drop(silent);
    let wrong = open(&connections, "wrong");
    wrong.on_refused("no token", "it is none");
    drop(wrong);
    let before = open(&connections, "before");
    connections.token_refused(None, "no token", "it is none");
    before.on_refused_before();
    drop(before);
    let full = open(&connections, "full");
    full.on_no_room("lena");
    drop(full);
    let still_open = open(&connections, "open");
    let rows: Vec<String> = connections
        .farewell()
        .iter()
        .map(|row| {
            format!("{} {} {} {} {}", row.by, row.action, row.object, row.result, row.reason.as_deref().unwrap())
        })
        .collect();
    assert_eq!(
        rows,
        [
            "unknown connect silent refused nobody signed in: 4008 auth_timeout after 0 s",
            "unknown sign_in  refused token: it is none",
            "unknown sign_in  refused token: it is none",
            "lena connect full refused user_connection_limit",
            "unknown connect open refused nobody signed in: 4206 server_shutdown after 0 s",
        ]
    );
    drop(still_open);

    let flooded = registry();
    for number in 0..100 {
        drop(open(&flooded, &number.to_string()));
    }
    let rows = flooded.farewell();
    assert_eq!(rows.len(), 11, "ten stand alone, and one has the number of the others");
    let last = rows.last().and_then(|row| row.reason.as_deref()).unwrap();
    assert!(last.ends_with("; 90 times within a minute"), "{last}");
}
