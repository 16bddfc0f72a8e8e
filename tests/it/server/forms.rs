//! The other forms of messages over a connection: what is agreed, CBOR both ways, readings in short, and the schema.

use serde_json::{Value as Json, json};
use vitalbridge::server::auth::Role as UserRole;
use vitalbridge::server::contract::DOCUMENTS;
use vitalbridge::server::form::cbor;
use vitalbridge::vitals::Metric;

use super::{HOST, Server, patients};
use crate::dashboard::{Came, Dashboard};
use crate::frames;

async fn speaking(server: &Server, protocols: &str) -> Dashboard {
    server.dashboard(&[("Sec-WebSocket-Protocol", protocols)]).await.unwrap()
}

/// The next message in CBOR as its JSON.
async fn next(dashboard: &mut Dashboard) -> Json {
    match dashboard.read().await {
        Came::Binary(bytes) => {
            let message = serde_json::from_str(&cbor::to_json(&bytes).unwrap()).unwrap();
            frames::check(&message);
            message
        }
        other => panic!("expected CBOR, got {other:?}"),
    }
}

async fn next_of(dashboard: &mut Dashboard, kind: &str) -> Json {
    loop {
        let message = next(dashboard).await;
        if message["type"] == kind {
            return message;
        }
    }
}

/// The next message but heartbeats, which may come at any time.
async fn next_but_heartbeats(dashboard: &mut Dashboard) -> Json {
    loop {
        let message = dashboard.next().await;
        if message["type"] != "heartbeat" {
            return message;
        }
    }
}

#[tokio::test]
async fn the_subprotocol_that_the_client_names_first_is_agreed() {
    let server = Server::start();
    let upgrade = |protocols: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocols}\r\n"
        )
    };
    for (offered, agreed) in [
        ("vitals.v1.json", Some("vitals.v1.json")),
        ("vitals.v1.cbor", Some("vitals.v1.cbor")),
        ("vitals.v1.compact, vitals.v1.json", Some("vitals.v1.compact")),
        ("mqtt, vitals.v1.json, vitals.v1.cbor", Some("vitals.v1.json")),
        ("", None),
    ] {
        let header = if offered.is_empty() { String::new() } else { format!("sec-websocket-protocol: {offered}\r\n") };
        let mut stream = server.stream();
        let answer = super::head_of(&mut stream, &upgrade(&header)).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{offered}: {answer}");
        let told = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(told, agreed, "{offered}");
    }
    let refused = server.dashboard(&[("Sec-WebSocket-Protocol", "mqtt")]).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_client_of_cbor_says_and_hears_everything_in_cbor() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let token = server.token(&server.claims(UserRole::Nurse));
    let mut dashboard = speaking(&server, "vitals.v1.cbor").await;
    let welcome = next(&mut dashboard).await;
    assert_eq!((&welcome["type"], &welcome["data"]["protocol"]), (&json!("welcome"), &json!("vitals.v1.cbor")));
    let say = async |dashboard: &mut Dashboard, message: Json| {
        dashboard.say_binary(&cbor::from_json(&message.to_string()).unwrap()).await;
    };
    say(&mut dashboard, json!({"type": "authenticate", "token": token})).await;
    assert_eq!(next(&mut dashboard).await["type"], "authenticated");
    say(&mut dashboard, json!({"type": "subscribe", "channels": ["patient/+/+"], "id": 7})).await;
    assert_eq!(next(&mut dashboard).await["correlation_id"], "7");
    assert_eq!(next(&mut dashboard).await["type"], "snapshot");
    server.reading(&patient, Metric::Spo2, 97).await;
    let update = next_of(&mut dashboard, "health_update").await;
    assert_eq!((&update["data"]["value"], &update["data"]["patient_id"]), (&json!(97), &json!(patient)));
    dashboard.say_binary(&[0xFF, 1, 2]).await;
    let error = next_of(&mut dashboard, "error").await;
    assert!(error["data"]["message"].as_str().unwrap().contains("not CBOR"), "{error}");
    // JSON text is taken too.
    dashboard.say(&json!({"type": "ping", "id": "p"})).await;
    assert_eq!(next_of(&mut dashboard, "pong").await["correlation_id"], "p");
}

#[tokio::test]
async fn a_client_of_the_compact_form_is_told_the_number_of_a_stream_before_its_readings() {
    let server = Server::start();
    let all = patients(&server);
    server.reading(&all[0], Metric::Spo2, 97).await;
    let mut plain = server.signed_in(&server.claims(UserRole::Viewer)).await;
    let subscribe = json!({"type": "subscribe", "channels": ["patient/+/spo2"], "delivery": "all"});
    plain.say(&subscribe).await;
    plain.next_of("snapshot").await;

    let token = server.token(&server.claims(UserRole::Viewer));
    let mut compact = speaking(&server, &format!("vitals.v1.compact, bearer.{token}")).await;
    assert_eq!(compact.next_of("welcome").await["data"]["protocol"], "vitals.v1.compact");
    compact.say(&subscribe).await;
    compact.next_of("subscribed").await;
    let streams = next_but_heartbeats(&mut compact).await;
    assert_eq!(streams["type"], "streams");
    let known = &streams["data"]["streams"];
    assert_eq!(known.as_array().unwrap().len(), 1);
    assert_eq!(known[0]["channel"], format!("patient/{}/spo2", all[0]));
    assert_eq!((&known[0]["data"]["metric"], &known[0]["data"]["mode"]), (&json!("spo2"), &json!("demo")));
    assert_eq!(next_but_heartbeats(&mut compact).await["type"], "snapshot");

    server.reading(&all[0], Metric::Spo2, 96).await;
    let long = plain.next_of("health_update").await;
    let short = next_but_heartbeats(&mut compact).await;
    assert_eq!((&short[0], &short[1], &short[2]), (&long["seq"], &known[0]["stream"], &json!(96)), "{short}");

    // A stream that is new is told when its first reading comes, and only once.
    server.reading(&all[1], Metric::Spo2, 95).await;
    server.reading(&all[1], Metric::Spo2, 94).await;
    let told = next_but_heartbeats(&mut compact).await;
    assert_eq!(told["data"]["streams"][0]["channel"], format!("patient/{}/spo2", all[1]));
    for value in [95, 94] {
        let short = next_but_heartbeats(&mut compact).await;
        assert_eq!((&short[1], &short[2]), (&told["data"]["streams"][0]["stream"], &json!(value)));
    }

    // What was missed comes in short too.
    let mut back = speaking(&server, &format!("vitals.v1.compact, bearer.{token}")).await;
    back.next_of("authenticated").await;
    let mut resume = subscribe.clone();
    resume["since"] = json!({"epoch": streams["data"]["epoch"], "seq": long["seq"]});
    back.say(&resume).await;
    assert_eq!(back.next_of("subscribed").await["data"]["recovered"], true);
    assert_eq!(next_but_heartbeats(&mut back).await["type"], "streams");
    for value in [95, 94] {
        assert_eq!(next_but_heartbeats(&mut back).await[2], value);
    }
}

#[tokio::test]
async fn the_schema_is_served_to_anybody() {
    let server = Server::start();
    let answer =
        server.http(&format!("GET /ws/schema.json HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("application/json"), "{answer:.300}");
    let body: Json = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, serde_json::from_str::<Json>(&(DOCUMENTS[0].text)()).unwrap());
}
