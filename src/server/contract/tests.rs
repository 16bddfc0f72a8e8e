//! The types of clients' messages and the reader that takes them say the same.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::frames::found;
use super::requests::REQUESTS;
use crate::command::{Command, Members, NAMES};
use crate::server::message::{Message, Unreadable};
use crate::wire::shape::title;

const ID: &str = "01928374-0000-7000-8000-000000000000";

/// The schema's opinion of a message, with its objects closed.
fn problems(message: &Json) -> Vec<String> {
    let kind = message["type"].as_str().unwrap_or_default();
    found(&format!("{}Request", title(kind)), message)
}

/// One message of every kind and form; each is also tried with its members under `data`.
fn good() -> Vec<Json> {
    let command = |name: &str, rest: Json| {
        let mut message = json!({"type": "command", "name": name});
        message.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        message
    };
    vec![
        json!({"type": "authenticate", "token": "a.b.c"}),
        json!({"type": "refresh", "token": "a.b.c"}),
        json!({"type": "subscribe"}),
        json!({"type": "subscribe", "subscription": "health_updates"}),
        json!({"type": "authenticate", "token": "a.b.c", "client": "tablet 5"}),
        json!({"type": "subscribe", "channels": ["alerts/+"], "delivery": {"mode": "latest"}, "acks": true}),
        json!({"type": "subscribe", "channels": ["ward/icu/#"], "delivery": {"mode": "sampled", "max_rate_hz": 2,
            "deadband": 1.5}, "filter": {"metric": ["spo2", "heart_rate"], "quality": "valid", "patient_id": "P-1",
            "priority": "high", "kind": ["technical"], "mode": "real", "ward": "icu", "device_id": ["d"], "source_id": "s"}}),
        json!({"type": "history", "channels": ["patient/+/+"], "from": 5, "to": "2026-11-21T08:00:00Z", "limit": 10}),
        json!({"type": "history", "subscription": "health_updates", "before": 90}),
        json!({"type": "history", "patient_id": "P-1", "metric": "spo2", "from": "2026-11-21T08:00:00Z"}),
        json!({"type": "join_room", "conversation_id": "r", "since": {"epoch": "k3f9", "seq": 7}}),
        json!({"type": "join_session", "session_id": 5}),
        json!({"type": "leave_room", "conversation_id": "conversation:r"}),
        json!({"type": "leave_session", "session_id": "r"}),
        json!({"type": "message", "conversation_id": "r", "message": "Hello"}),
        json!({"type": "send_message", "session_id": "r", "message": "Hello"}),
        json!({"type": "typing", "conversation_id": "r"}),
        json!({"type": "user_typing", "session_id": "r", "is_typing": false}),
        json!({"type": "clear_conversation", "conversation_id": "r", "everybody": true}),
        json!({"type": "get_conversation_history", "conversation_id": "r", "before": 90, "limit": 100}),
        json!({"type": "mark_read", "conversation_id": "r", "seq": 90}),
        json!({"type": "activity", "patient_id": "P-1"}),
        json!({"type": "activity"}),
        json!({"type": "subscribe", "channels": ["patient/+/+", "alerts/+"], "delivery": "all", "annunciator": true,
            "since": {"epoch": "k3f9", "seq": 7}}),
        json!({"type": "unsubscribe", "channels": ["alerts/+"]}),
        json!({"type": "unsubscribe", "subscription": "chat"}),
        json!({"type": "alert_receipt", "state": "shown", "epoch": "k3f9", "alerts": [{"alert_id": ID, "seq": 7}]}),
        json!({"type": "alert_receipt", "state": "delivered", "alerts": [{"alert_id": ID, "seq": 7}]}),
        json!({"type": "ack", "ids": [ID]}),
        json!({"type": "ack", "channel": "notifications/7", "seq": 9}),
        json!({"type": "ack", "channel": "alerts/+", "seq": 9, "epoch": "k3f9"}),
        json!({"type": "set_preferences", "mute": ["system"]}),
        json!({"type": "set_preferences", "preferences": {"mute": []}}),
        json!({"type": "get_preferences"}),
        json!({"type": "ping"}),
        json!({"type": "heartbeat"}),
        json!({"type": "pong"}),
        command("alert.acknowledge", json!({"alert_id": ID, "expected_seq": 7})),
        command("alert.pause_audio", json!({"alert_id": ID, "seconds": 120})),
        command("alert.reset", json!({"alert_id": ID})),
        command(
            "limits.set",
            json!({"patient_id": "P-1", "rule": "spo2_low", "below": 86.5, "expires": "8h", "reason": "r"}),
        ),
        command(
            "limits.set",
            json!({"patient_id": "P-1", "rule": "spo2_low", "when": {"below": 86}, "delay": "20s",
            "expires": "8h", "reason": "r"}),
        ),
        command("limits.clear", json!({"patient_id": "P-1", "rule": "spo2_low"})),
        command("rule.disable", json!({"patient_id": "P-1", "rule": "spo2_low", "until": "1h", "reason": "r"})),
        command("rule.enable", json!({"patient_id": "P-1", "rule": "spo2_low"})),
        command("observation.set", json!({"patient_id": "P-1", "oxygen": "air", "consciousness": "unknown"})),
        command("device.confirm", json!({"source_id": "port", "serial_number": "5"})),
        command("device.command", json!({"source_id": "port", "command": "nibp_start"})),
        command("notification.send", json!({"kind": "system", "users": [7, "lena"], "title": "t", "message": "m"})),
        command(
            "notification.send",
            json!({"kind": "medication_reminder", "roles": ["nurse"], "patient": "P-1",
            "title": "t", "message": "m", "priority": "low", "at": "2026-11-21T08:00:00Z"}),
        ),
        command("notification.withdraw", json!({"notification_id": ID})),
        command("preferences.set", json!({"mute": ["health_alert"]})),
        command("uplink.resend", json!({"epoch": "k3f9", "first_seq": 1042, "last_seq": 1091})),
    ]
}

/// The message with its members under `data`, and with the client's name for it.
fn nested(message: &Json) -> Json {
    let mut data = message.as_object().unwrap().clone();
    let kind = data.remove("type");
    json!({"type": kind, "data": data, "id": 12})
}

#[test]
fn what_the_contract_lets_a_client_say_is_taken() {
    let mut seen = BTreeSet::new();
    let mut commands = BTreeSet::new();
    for message in good() {
        for message in [nested(&message), message] {
            assert_eq!(problems(&message), Vec::<String>::new(), "{message}");
            let read = Message::parse(&message.to_string());
            assert!(read.is_ok(), "{message}: {read:?}");
            seen.insert(message["type"].as_str().unwrap().to_owned());
            commands.extend(message["name"].as_str().map(str::to_owned));
        }
    }
    let all: BTreeSet<String> = REQUESTS.iter().map(|request| request.members.name.to_owned()).collect();
    assert_eq!(seen, all, "one of each");
    // What the reader knows stands in its answer to what it does not know.
    let listed = |text: &str| -> BTreeSet<String> {
        let list = text.replace(" or ", ", ").replace("known are ", "");
        list.split([',', ' ', ';']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let known = Unreadable::UnknownType.to_string();
    let known = listed(known.split_once("; ").unwrap().1);
    // `pong` is taken for a heartbeat, and those of older clients for the newer ones, without being named.
    let unnamed = ["pong", "join_session", "leave_session", "send_message", "user_typing"];
    assert_eq!(known, all.iter().filter(|name| !unnamed.contains(&name.as_str())).cloned().collect());
    let refusal = Message::parse(r#"{"type":"command","name":"fly"}"#).unwrap_err().0.to_string();
    assert_eq!(listed(refusal.split_once(" is ").unwrap().1), commands);
}

#[test]
fn a_command_by_the_broker_is_one_of_those_that_can_be_allowed_there_and_names_the_person() {
    let mut seen = BTreeSet::new();
    for mut command in good().into_iter().filter(|message| message["type"] == "command") {
        let name = command["name"].as_str().unwrap().to_owned();
        let members = command.as_object_mut().unwrap();
        members.remove("type");
        members.insert("by".to_owned(), json!("lena"));
        let problems = |command: &Json| found("MqttCommand", command);
        if !NAMES.contains(&name.as_str()) {
            assert!(!problems(&command).is_empty(), "{command}");
            continue;
        }
        assert_eq!(problems(&command), Vec::<String>::new(), "{command}");
        assert!(Command::read(Members(&command)).is_ok(), "{command}");
        for by in [json!(null), json!(""), json!(" "), json!(7), json!("x".repeat(101))] {
            let mut wrong = command.clone();
            wrong["by"] = by;
            assert!(!problems(&wrong).is_empty(), "{wrong}");
        }
        command.as_object_mut().unwrap().remove("by");
        assert!(!problems(&command).is_empty(), "{command}");
        seen.insert(name);
    }
    assert_eq!(seen, NAMES.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn what_the_reader_refuses_is_not_in_the_contract() {
    for (pointer, value) in [
        ("/token", json!(5)),
        ("/since/seq", json!("7")),
        ("/since/epoch", json!("a b")),
        ("/channels", json!([])),
        ("/channels", json!("alerts/+")),
        ("/channels/0", json!(5)),
        ("/delivery", json!("some")),
        ("/state", json!("seen")),
        ("/alerts", json!([])),
        ("/alerts/0/alert_id", json!("x")),
        ("/alerts/0/seq", json!(-1)),
        ("/ids/0", json!("x")),
        ("/mute/0", json!("high")),
        ("/preferences", json!(5)),
        ("/name", json!("fly")),
        ("/alert_id", json!("x")),
        ("/expected_seq", json!("7")),
        ("/seconds", json!(121)),
        ("/seconds", json!(0)),
        ("/patient_id", json!("a b")),
        ("/rule", json!("a b")),
        ("/oxygen", json!("water")),
        ("/consciousness", json!("a")),
        ("/serial_number", json!(5)),
        ("/source_id", json!("a/b")),
        ("/kind", json!("health_alert")),
        ("/users", json!([])),
        ("/roles/0", json!("chef")),
        ("/title", json!("")),
        ("/priority", json!("urgent")),
        ("/notification_id", json!("x")),
        ("/delivery/mode", json!("some")),
        ("/delivery/max_rate_hz", json!(0.1)),
        ("/delivery/deadband", json!(-1)),
        ("/filter/metric/0", json!("shoe_size")),
        ("/filter/metric", json!([])),
        ("/filter/quality", json!("fine")),
        ("/filter/patient_id", json!("")),
        ("/filter", json!("spo2")),
        ("/filter/metric", json!(null)),
        ("/from", json!("yesterday")),
        ("/to", json!(true)),
        ("/before", json!(-1)),
        ("/conversation_id", json!("a b")),
        ("/session_id", json!([])),
        ("/is_typing", json!("yes")),
        ("/everybody", json!(1)),
        ("/first_seq", json!(0)),
        ("/last_seq", json!("7")),
        ("/epoch", json!("a b")),
        ("/type", json!("fly")),
    ] {
        let mut tried = 0;
        for mut message in good() {
            let Some(place) = message.pointer_mut(pointer) else { continue };
            *place = value.clone();
            tried += 1;
            assert!(!problems(&message).is_empty(), "{message}");
            assert!(Message::parse(&message.to_string()).is_err(), "{message}");
        }
        assert!(tried > 0, "{pointer}");
    }
}
