//! Clients in the field: what they send, byte for byte, and what they are sent, member by member, over real sockets.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use vitalbridge::clock::Wall;
use vitalbridge::event::SourceMessage;
use vitalbridge::server::accept;
use vitalbridge::server::auth::Role as UserRole;
use vitalbridge::server::session::HEARTBEAT;
use vitalbridge::tasks::Role;
use vitalbridge::vitals::{Decimal, Mode, Pressure, Quality, Reading, Taken, Value, Vital};

use super::{Server, patients};
use crate::dashboard::Dashboard;

/// A server that listens at this address.
async fn listening() -> (Server, String) {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    server.site.tasks.spawn("acceptor", Role::Helper, accept::accept(listener, server.door(None)));
    (server, address)
}

/// Holds a frame against the documented one: each documented member is there under its name, in its place, with its type,
/// and with its value where that is no example of a time or an identity.
fn is_as_documented(frame: &Json, documented: &str) {
    fn compare(frame: &Json, documented: &Json, path: &str) {
        match documented {
            Json::Object(members) => {
                for (name, documented) in members {
                    let path = format!("{path}.{name}");
                    compare(frame.get(name).unwrap_or_else(|| panic!("{path} is missing: {frame}")), documented, &path);
                }
            }
            Json::String(text) if Wall::parse(text).is_some() => {
                let found = frame.as_str().and_then(Wall::parse);
                assert!(found.is_some(), "{path} is no time: {frame}");
            }
            Json::String(text) if text == "uuid" => {
                let found = frame.as_str().and_then(|text| text.parse::<uuid::Uuid>().ok());
                assert!(found.is_some(), "{path} is no uuid: {frame}");
            }
            Json::String(text) if text == "text" => assert!(frame.is_string(), "{path} is no text: {frame}"),
            other => assert_eq!(frame, other, "{path}"),
        }
    }
    compare(frame, &serde_json::from_str(documented).unwrap(), "");
}

#[test]
fn the_comparison_can_fail() {
    let fails = |frame: Json, documented: &'static str| {
        std::panic::catch_unwind(|| is_as_documented(&frame, documented)).is_err()
    };
    assert!(!fails(json!({"a": {"b": 1, "c": 2}}), r#"{"a":{"b":1}}"#));
    for (frame, documented) in [
        (json!({"b": 1}), r#"{"a":{"b":1}}"#),
        (json!({"a": {"b": "1"}}), r#"{"a":{"b":1}}"#),
        (json!({"a": {"b": 2}}), r#"{"a":{"b":1}}"#),
        (json!({"a": 5}), r#"{"a":"text"}"#),
        (json!({"a": "x"}), r#"{"a":"uuid"}"#),
        (json!({"a": 1_700_000_000}), r#"{"a":"2024-01-01T00:00:00Z"}"#),
    ] {
        assert!(fails(frame.clone(), documented), "{frame} {documented}");
    }
}

/// What is awaited comes within this time, however many heartbeats come meanwhile, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const ENVELOPE: &str = r#"{"type":"text","data":{},"timestamp":"2024-01-01T00:00:00Z","correlation_id":"text"}"#;

/// The next frame of a type; every frame on the way has the envelope.
async fn next_of(client: &mut Dashboard, kind: &str) -> Json {
    let found = async {
        loop {
            let frame = client.next().await;
            is_as_documented(&frame, ENVELOPE);
            if frame["type"] == kind {
                return frame;
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("no {kind} within {LIMIT:?}"))
}

fn token(server: &Server, user: &str) -> String {
    let mut claims = server.claims(UserRole::Nurse);
    claims.sub = user.to_owned();
    server.token(&claims)
}

/// A client of form A: the token is its first message, subscriptions go by their names.
async fn form_a(server: &Server, address: &str, path: &str, user: &str, subscriptions: &[&str]) -> Dashboard {
    let mut client = Dashboard::connect(address, path, &[]).await.unwrap();
    client.say_text(&format!(r#"{{"type":"authenticate","token":"{}"}}"#, token(server, user))).await;
    let authenticated = next_of(&mut client, "authenticated").await;
    let user_id = user.parse::<u64>().map_or_else(|_| json!(user), Json::from);
    assert_eq!(authenticated["data"]["user_id"], user_id);
    for subscription in subscriptions {
        client.say_text(&format!(r#"{{"type":"subscribe","subscription":"{subscription}"}}"#)).await;
        next_of(&mut client, "snapshot").await;
    }
    client
}

async fn blood_pressure(server: &Server, systolic: i32) {
    let now = server.clock.now();
    let number = |number| Value::Valid(Decimal::integer(number));
    let pressure = Pressure { systolic: number(systolic), diastolic: number(80), mean: number(93) };
    let reading = Reading {
        patient: Some(patients(server)[0].parse().unwrap()),
        device: "cuff".parse().unwrap(),
        source: "s".parse().unwrap(),
        vital: Vital::BloodPressure(pressure),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Demo,
        taken: Taken::on_arrival(now),
        received: now,
    };
    server.readings.send(SourceMessage::Reading(reading)).await.unwrap();
}

#[tokio::test]
async fn a_client_of_form_a_finds_every_member_of_a_health_update() {
    let (server, address) = listening().await;
    for path in ["/ws/health", "/ws/combined", "/ws"] {
        let mut client = form_a(&server, &address, path, "1", &["health_updates"]).await;
        blood_pressure(&server, 120).await;
        let update = next_of(&mut client, "health_update").await;
        is_as_documented(
            &update,
            r#"{"type":"health_update","data":{"metric":"blood_pressure","value":120,"unit":"mmHg","timestamp":"2024-01-01T00:00:00Z"}}"#,
        );
    }
}

#[tokio::test]
async fn a_client_of_form_a_finds_every_member_of_a_chat_message() {
    let (server, address) = listening().await;
    let room = uuid::Uuid::from_u128(7);
    for path in ["/ws/chat", "/ws/combined"] {
        let mut reading = form_a(&server, &address, path, "1", &["chat"]).await;
        let mut writing = form_a(&server, &address, path, "nurse", &["chat"]).await;
        let text = format!(r#"{{"type":"message","data":{{"message":"Hello","conversation_id":"{room}"}}}}"#);
        writing.say_text(&text).await;
        let documented =
            r#"{"type":"chat_message","data":{"message":"Hello","sender":"nurse","conversation_id":"uuid"}}"#;
        for client in [&mut reading, &mut writing] {
            let message = next_of(client, "chat_message").await;
            is_as_documented(&message, documented);
            assert_eq!(message["data"]["conversation_id"], room.to_string());
        }
        // And of one whose name is a number.
        reading.say_text(&text).await;
        let message = next_of(&mut writing, "chat_message").await;
        assert_eq!((&message["data"]["sender"], &message["data"]["user_id"]), (&json!("1"), &json!(1)), "{message}");
    }
}

#[tokio::test]
async fn a_client_of_form_a_finds_a_notification_where_it_looks_and_under_data() {
    let (server, address) = listening().await;
    let mut client = form_a(&server, &address, "/ws/notifications", "1", &["notifications"]).await;
    blood_pressure(&server, 230).await;
    let frame = next_of(&mut client, "notification").await;
    is_as_documented(
        &frame,
        r#"{"type":"notification","notification":{"id":"uuid","type":"health_alert","title":"text","message":"text","priority":"text","created_at":"2024-01-01T00:00:00Z"}}"#,
    );
    let payload = &frame["notification"];
    assert_eq!(payload, &frame["data"]);
    assert_eq!(payload["title"], "DEMO: Blood Pressure Alert");
    assert!(["low", "medium", "high"].contains(&payload["priority"].as_str().unwrap()), "{payload}");
    assert_eq!(payload["user_id"], 1);
}

#[tokio::test]
async fn a_client_of_form_a_hears_a_heartbeat_at_least_every_thirty_seconds() {
    assert!(HEARTBEAT <= Duration::from_secs(30));
    let (server, address) = listening().await;
    let mut client = form_a(&server, &address, "/ws/combined", "1", &["health_updates"]).await;
    let first = next_of(&mut client, "heartbeat").await;
    let second = next_of(&mut client, "heartbeat").await;
    let at = |frame: &Json| Wall::parse(frame["timestamp"].as_str().unwrap()).unwrap().0;
    assert!(at(&second) - at(&first) <= 30_000, "{first} {second}");
}

#[tokio::test]
async fn a_client_of_form_a_is_told_of_wrong_messages_by_an_error() {
    let (server, address) = listening().await;
    let mut client = form_a(&server, &address, "/ws/combined", "1", &["chat"]).await;
    for text in [
        r#"{"type":"message","data":{"message":"Hello"}}"#,
        r#"{"type":"nothing"}"#,
        "{",
        r#"{"type":"subscribe","subscription":"a b"}"#,
    ] {
        client.say_text(text).await;
        let error = next_of(&mut client, "error").await;
        is_as_documented(&error, r#"{"type":"error","data":{"code":"text","message":"text","retryable":false}}"#);
    }
    let mut stranger = Dashboard::connect(&address, "/ws/combined", &[]).await.unwrap();
    stranger.say_text(r#"{"type":"authenticate","token":"rubbish"}"#).await;
    let refused = next_of(&mut stranger, "auth_error").await;
    is_as_documented(&refused, r#"{"type":"auth_error","data":{"code":"invalid_token","message":"text"}}"#);
}

/// A client of form B, which knows the address and joins a session.
async fn form_b(server: &Server, address: &str, user: &str, session: &str) -> Dashboard {
    let bearer = format!("Bearer {}", token(server, user));
    let mut client = Dashboard::connect(address, "/api/ws", &[("Authorization", &bearer)]).await.unwrap();
    client.say_text(&format!(r#"{{"type":"join_session","data":{{"session_id":"{session}"}}}}"#)).await;
    let update = next_of(&mut client, "session_update").await;
    assert_eq!((&update["data"]["session_id"], &update["data"]["status"]), (&json!(session), &json!("online")));
    client
}

#[tokio::test]
async fn a_client_of_form_b_is_told_everything_under_the_names_it_knows() {
    let (server, address) = listening().await;
    let mut reading = form_b(&server, &address, "12", "s-1").await;
    let mut writing = form_b(&server, &address, "lena", "s-1").await;
    let joined = next_of(&mut reading, "session_update").await;
    is_as_documented(
        &joined,
        r#"{"type":"session_update","data":{"session_id":"s-1","user_id":"lena","status":"online","members":[12,"lena"]}}"#,
    );

    writing.say_text(r#"{"type":"user_typing","data":{"session_id":"s-1"}}"#).await;
    let typing = next_of(&mut reading, "typing_indicator").await;
    let documented = r#"{"type":"typing_indicator","data":{"session_id":"s-1","user_id":"lena","is_typing":true}}"#;
    is_as_documented(&typing, documented);

    writing.say_text(r#"{"type":"send_message","data":{"session_id":"s-1","message":"Hello"}}"#).await;
    let documented = r#"{"type":"message_received","data":{"session_id":"s-1","message":"Hello","sender":"lena","user_id":"lena","message_id":"uuid"}}"#;
    let (mut kinds, mut received) = (Vec::new(), Json::Null);
    while kinds.len() < 2 {
        let frame = reading.next().await;
        match frame["type"].as_str().unwrap() {
            "message_received" => received = frame.clone(),
            "typing_indicator" => assert_eq!(frame["data"]["is_typing"], false, "{frame}"),
            "chat_message" | "typing" | "presence" => panic!("a name that it does not know: {frame}"),
            _ => continue,
        }
        kinds.push(frame["type"].clone());
    }
    is_as_documented(&received, documented);
    is_as_documented(&next_of(&mut writing, "message_received").await, documented);

    writing.say_text(r#"{"type":"ping"}"#).await;
    next_of(&mut writing, "pong").await;
    writing.say_text(r#"{"type":"join_session","data":{}}"#).await;
    let error = next_of(&mut writing, "error").await;
    is_as_documented(&error, r#"{"type":"error","data":{"code":"validation","message":"text"}}"#);

    writing.say_text(r#"{"type":"leave_session","data":{"session_id":"s-1"}}"#).await;
    let left = next_of(&mut reading, "session_update").await;
    is_as_documented(
        &left,
        r#"{"type":"session_update","data":{"session_id":"s-1","user_id":"lena","status":"offline","members":[12]}}"#,
    );
}

#[tokio::test]
async fn a_client_of_form_b_that_comes_back_gets_what_it_missed_under_the_names_it_knows() {
    let (server, address) = listening().await;
    let mut writing = form_a(&server, &address, "/ws/chat", "lena", &["chat"]).await;
    let write = |text: &str| format!(r#"{{"type":"message","session_id":"s-1","message":"{text}"}}"#);
    writing.say_text(&write("one")).await;
    let seen = next_of(&mut writing, "chat_message").await;
    writing.say_text(&write("two")).await;
    next_of(&mut writing, "complete").await;

    let bearer = format!("Bearer {}", token(&server, "12"));
    let mut back = Dashboard::connect(&address, "/api/ws", &[("Authorization", &bearer)]).await.unwrap();
    let since = json!({"epoch": seen["epoch"], "seq": seen["seq"]});
    back.say(&json!({"type": "join_session", "data": {"session_id": "s-1"}, "since": since})).await;
    let missed = next_of(&mut back, "message_received").await;
    is_as_documented(&missed, r#"{"type":"message_received","data":{"session_id":"s-1","message":"two"}}"#);
    back.say(&json!({"type": "get_conversation_history", "session_id": "s-1"})).await;
    let page = next_of(&mut back, "conversation_history").await;
    let texts: Vec<&Json> = page["data"]["messages"].as_array().unwrap().iter().map(|line| &line["message"]).collect();
    assert_eq!(texts, [&json!("one"), &json!("two")]);
}
