//! The contract's documents: current, whole, and strict enough to notice a frame that breaks them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value as Json, json};
use vitalbridge::server::contract::DOCUMENTS;

use crate::bridge::program;
use crate::frames;

fn written(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(file: &str) -> Json {
    serde_json::from_str(&written(file)).unwrap()
}

#[test]
fn the_documents_are_those_that_the_types_make() {
    for document in DOCUMENTS {
        let (made, found) = ((document.text)(), written(document.file));
        let is_current = match serde_json::from_str::<Json>(&made) {
            // The order of members says nothing.
            Ok(made) => serde_json::from_str::<Json>(&found).is_ok_and(|found| found == made),
            Err(_) => made == found,
        };
        assert!(is_current, "docs/schema/{} is old: run `cargo run -- contract --out docs/schema`", document.file);
    }
}

#[test]
fn the_command_writes_the_documents_and_prints_the_schema() {
    let dir = tempfile::tempdir().unwrap();
    let out = program().args(["contract", "--out", dir.path().to_str().unwrap()]).output().unwrap();
    assert!(out.status.success());
    for document in DOCUMENTS {
        assert_eq!(std::fs::read_to_string(dir.path().join(document.file)).unwrap(), (document.text)());
    }
    let printed = program().arg("contract").output().unwrap().stdout;
    assert_eq!(String::from_utf8(printed).unwrap(), (DOCUMENTS[0].text)());
}

/// Every `$ref` under a value.
fn references(json: &Json, into: &mut BTreeSet<String>) {
    match json {
        Json::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Json::as_str) {
                into.insert(reference.to_owned());
            }
            members.values().for_each(|value| references(value, into));
        }
        Json::Array(items) => items.iter().for_each(|value| references(value, into)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_one() {
    for file in ["vitals.v1.json", "asyncapi.json"] {
        let (document, mut all) = (json(file), BTreeSet::new());
        references(&document, &mut all);
        assert!(all.len() > 50, "{file}: {}", all.len());
        for reference in all {
            let place = reference.strip_prefix('#').unwrap_or_else(|| panic!("{file}: {reference} is elsewhere"));
            assert!(document.pointer(place).is_some(), "{file}: {reference} leads nowhere");
        }
    }
    let schema = json("vitals.v1.json");
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).unwrap();
    let asyncapi = json("asyncapi.json");
    for (name, schema) in asyncapi["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft7::meta::is_valid(schema), "{name} is no schema of draft 07");
    }
}

/// The rules of `AsyncAPI` 3.0.0 about the parts that the document has.
#[test]
fn the_asyncapi_document_keeps_the_rules_of_asyncapi() {
    let document = json("asyncapi.json");
    let keys = |value: &Json| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let allowed = ["asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"];
    assert!(keys(&document).iter().all(|key| allowed.contains(&key.as_str())));
    assert_eq!(document["asyncapi"], "3.0.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"] == env!("CARGO_PKG_VERSION"));
    for server in document["servers"].as_object().unwrap().values() {
        assert!(server["host"].is_string());
        assert!(matches!(server["protocol"].as_str(), Some("ws" | "wss" | "mqtt" | "mqtts")), "{server}");
        for security in server.get("security").and_then(Json::as_array).into_iter().flatten() {
            let scheme = document.pointer(&security["$ref"].as_str().unwrap()[1..]).unwrap();
            assert!(matches!(scheme["type"].as_str(), Some("http" | "httpApiKey")), "{scheme}");
        }
    }
    let messages = keys(&document["components"]["messages"]);
    let channels = document["channels"].as_object().unwrap();
    assert!(
        ["ws", "ws_combined", "ws_health", "ws_notifications", "ws_chat", "api_ws"]
            .iter()
            .all(|name| channels.contains_key(*name))
    );
    let mut used = BTreeSet::new();
    for (name, channel) in channels {
        let address = channel["address"].as_str().unwrap();
        if name.starts_with("mqtt_") {
            assert!(["vitals/v1/{site}/{bridge}/", "homeassistant/"].iter().any(|it| address.starts_with(it)));
            let places: BTreeSet<String> =
                address.split('{').skip(1).map(|it| it.split('}').next().unwrap().to_owned()).collect();
            assert_eq!(keys(&channel["parameters"]), places, "{name}");
        } else {
            assert!(address.starts_with('/'));
            let own = |message: &String| !message.starts_with("Mqtt");
            assert_eq!(keys(&channel["messages"]), messages.iter().filter(|it| own(it)).cloned().collect(), "{name}");
        }
        used.extend(keys(&channel["messages"]));
        for server in channel["servers"].as_array().unwrap() {
            let protocol = &document.pointer(&server["$ref"].as_str().unwrap()[1..]).unwrap()["protocol"];
            assert_eq!(protocol.as_str().unwrap().starts_with("mqtt"), name.starts_with("mqtt_"), "{name}");
        }
    }
    assert_eq!(used, messages, "each message stands on a channel");
    // Each topic of the documentation is a channel, and each channel is there.
    let page = include_str!("../../docs/mqtt.md").split("\n## ").find(|part| part.starts_with("Topics")).unwrap();
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').collect();
        (format!("mqtt_{}", words(cells[1])[0]), words(cells[3]).into_iter().collect::<BTreeSet<_>>())
    };
    let told: BTreeMap<_, _> = page.lines().filter(|line| line.starts_with("| `")).map(row).collect();
    let topics = channels.iter().filter(|(name, _)| name.starts_with("mqtt_"));
    assert_eq!(told, topics.map(|(name, channel)| (name.clone(), keys(&channel["messages"]))).collect());
    let mut answered = 0;
    for (name, operation) in document["operations"].as_object().unwrap() {
        assert!(matches!(operation["action"].as_str(), Some("send" | "receive")), "{name}");
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        let reply = operation.get("reply").map(|reply| {
            answered += 1;
            let of = if name == "mqtt_cmd_take" {
                json!({"$ref": "#/channels/mqtt_cmd_result"})
            } else {
                operation["channel"].clone()
            };
            assert_eq!(reply["channel"], of, "{name}");
            (of["$ref"].as_str().unwrap().to_owned(), reply["messages"].as_array().unwrap())
        });
        let asked = [(channel.to_owned(), operation["messages"].as_array().unwrap())];
        for (channel, messages) in asked.into_iter().chain(reply) {
            for message in messages {
                // The messages of an operation are among those of its channel, and are referred to there.
                let reference = message["$ref"].as_str().unwrap();
                assert!(reference.starts_with(&format!("{channel}/messages/")), "{name}: {reference}");
            }
        }
    }
    assert!(answered >= 6 * 8, "{answered}");
    let identifier = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    for part in ["messages", "schemas", "securitySchemes"] {
        assert!(keys(&document["components"][part]).iter().all(identifier), "{part}");
    }
}

#[test]
fn a_frame_that_breaks_the_contract_is_noticed() {
    let envelope = |kind: &str, data: Json| json!({"type": kind, "data": data, "timestamp": "2026-11-20T22:00:00.123Z", "correlation_id": "c"});
    let good = envelope("gap", json!({"from": 1, "to": 3, "skipped": 2, "epoch": "e", "streams": []}));
    assert_eq!(frames::problems(&good), Vec::<String>::new());
    let with = |pointer: &str, value: Json| {
        let mut frame = good.clone();
        let (place, name) = pointer.rsplit_once('/').unwrap();
        let object = frame.pointer_mut(place).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            object.remove(name)
        } else {
            object.insert(name.to_owned(), value)
        };
        frame
    };
    for (frame, expected) in [
        (with("/type", json!("fly")), "no message `Fly`"),
        (with("/type", json!(null)), "no message `Nothing`"),
        (with("/timestamp", json!(null)), "\"timestamp\" is a required"),
        (with("/timestamp", json!("yesterday")), "/timestamp"),
        (with("/data/skipped", json!(null)), "\"skipped\" is a required"),
        (with("/data/skipped", json!("2")), "/data/skipped"),
        (with("/data/skipped", json!(-1)), "/data/skipped"),
        (with("/data/more", json!(1)), "('more' was unexpected)"),
        (with("/more", json!(1)), "('more' was unexpected)"),
        (envelope("error", json!({"code": "x", "message": "m", "retryable": false, "scope": "world"})), "/data/scope"),
        (envelope("result", json!({"ok": true, "code": "x", "message": "m"})), "/data"),
        (json!([1, 2, true, 3, 4]), "/2"),
        (json!([1, 2, 72, 3]), "less than 5 items"),
        (json!([1, 2, 72, 3, 4, {"quality": "valid"}, 6]), ""),
        (json!([1, 2, "asleep", 3, 4]), "/2"),
    ] {
        let problems = frames::problems(&frame).join("; ");
        assert!(!problems.is_empty() && problems.contains(expected), "{frame}: {problems}");
    }
    assert_eq!(frames::problems(&json!([1, 2, 72.0, 3, 4])), Vec::<String>::new());
    assert_eq!(frames::problems(&json!([1, 2, "sensor_off", 3, -4, {"quality": "valid"}])), Vec::<String>::new());
}

#[test]
fn a_message_at_the_broker_that_breaks_the_contract_or_stands_on_another_topic_is_noticed() {
    let at = |kind: &str| format!("vitals/v1/icu/b1/{kind}");
    let status = |data: Json| json!({"type": "status", "data": data, "timestamp": "2026-11-20T22:00:00.123Z", "site": "icu", "bridge": "b1", "epoch": "e"});
    let (online, will) = (json!({"state": "online", "reason": null, "buffer_seconds_left": null}), "connection_lost");
    let lost = |bridge: Json| {
        json!({"type": "system", "data": {"kind": "events_lost", "message": "m", "first": 1, "last": 2},
               "timestamp": "2026-11-20T22:00:00.123Z", "correlation_id": "e:3", "channel": "system", "seq": 3, "epoch": "e",
               "bridge": bridge})
    };
    let bundle = |event: Json| {
        json!({"type": "batch", "historical": true, "bridge": "b1", "first_seq": 3, "last_seq": 3,
               "timestamp": "2026-11-20T22:00:00.123Z", "data": [event]})
    };
    let component = json!({"platform": "binary_sensor", "unique_id": "u", "name": "Connection", "device_class": "connectivity",
                           "entity_category": "diagnostic", "state_topic": "t", "value_template": "v"});
    let document = |component: Json| {
        json!({"device": {"identifiers": ["i"], "name": "n", "manufacturer": "vitalbridge", "sw_version": "1"},
               "origin": {"name": "vitalbridge", "sw_version": "1"}, "qos": 1, "components": {"status": component}})
    };
    let without = |mut object: Json, name: &str| {
        object.as_object_mut().unwrap().remove(name);
        object
    };
    let discovery = "homeassistant/device/vitalbridge-b1/bridge/config";
    for (topic, text, expected) in [
        (at("status"), status(online.clone()).to_string(), ""),
        (at("status"), status(json!({"state": "offline", "reason": will})).to_string(), ""),
        (at("status"), status(json!({"state": "offline", "reason": "tired"})).to_string(), "/data/reason"),
        (at("status"), String::new(), "MqttStatus"),
        (at("birth"), status(online).to_string(), "MqttBirth: /type"),
        (at("system"), lost(json!("b1")).to_string(), ""),
        ("vitals/b1/system".to_owned(), lost(json!("b1")).to_string(), ""),
        ("devices/b1/messages/events/kind=system".to_owned(), lost(json!("b1")).to_string(), ""),
        (at("system"), lost(json!(null)).to_string(), "\"bridge\" is a required"),
        (at("audit"), lost(json!("b1")).to_string(), "Audit: /type"),
        (at("flight"), lost(json!("b1")).to_string(), "no topic"),
        (at("batch"), bundle(lost(json!("b1"))).to_string(), ""),
        (at("batch"), bundle(without(lost(json!("b1")), "bridge")).to_string(), "/data/0"),
        (at("alert_present/a1"), String::new(), ""),
        ("vitals/b1/alert_present_a1".to_owned(), String::new(), ""),
        (at("alert_present/a1"), lost(json!("b1")).to_string(), "Alert: /type"),
        (at("alert/strap"), String::new(), "Alert"),
        (at("doctor"), String::new(), ""),
        (at("doctor"), "{}".to_owned(), "MqttEmpty"),
        (discovery.to_owned(), document(component.clone()).to_string(), ""),
        (discovery.to_owned(), String::new(), ""),
        (discovery.to_owned(), document(without(component.clone(), "unique_id")).to_string(), "MqttDiscovery"),
        (discovery.to_owned(), document(without(component, "platform")).to_string(), "MqttDiscovery"),
        ("homeassistant/device/vitalbridge-b1/bridge".to_owned(), String::new(), "no topic"),
        ("homeassistant/status".to_owned(), "online".to_owned(), ""),
        ("homeassistant/status".to_owned(), "asleep".to_owned(), "MqttHomeAssistant"),
    ] {
        let problems = frames::problems_at_broker(&topic, &text).join("; ");
        assert_eq!(problems.is_empty(), expected.is_empty(), "{topic} {text}: {problems}");
        assert!(problems.contains(expected), "{topic} {text}: {problems}");
    }
}

#[test]
fn the_examples_of_the_documentation_are_messages_of_the_contract() {
    let mut seen = BTreeSet::new();
    for example in include_str!("../../docs/mqtt.md").split("```json\n").skip(1) {
        let text = example.split("```").next().unwrap();
        // Some are cut short, with dots.
        let Ok(message) = serde_json::from_str::<Json>(text) else { continue };
        let topic = if message.get("components").is_some() {
            "homeassistant/device/vitalbridge-b1/6-P-0001-strap-1/config".to_owned()
        } else {
            format!("vitals/v1/icu/b1/{}", message["type"].as_str().unwrap_or("cmd"))
        };
        let problems = frames::problems_at_broker(&topic, text);
        assert_eq!(problems, Vec::<String>::new(), "{text}");
        seen.insert(topic.rsplit('/').next().unwrap().to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["cmd", "config", "health_update", "status"]);
}
