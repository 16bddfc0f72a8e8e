//! The topics at a broker as channels of the `AsyncAPI` document.

use serde_json::{Map, Value as Json, json};

use super::asyncapi::message;
use crate::wire;
use crate::wire::shape::title;

/// The `{kind}` of a topic is the `type` of its messages, but for these.
const OTHER_TOPICS: [(&str, &str); 1] = [(wire::RESULT, "cmd_result")];

/// What is about a device, and has its id at the end of the topic.
const OF_DEVICES: [&str; 4] = ["health_update", "alert", "device_status", "record"];

/// What the broker keeps.
const RETAINED: [&str; 3] = ["status", "birth", PRESENT];

/// An alert that stands, kept on a topic of its own.
const PRESENT: &str = "alert_present";

/// Commands, where the configuration takes any.
const COMMANDS: &str = "cmd";

/// A topic: its kind, and the schema of what stands on it.
struct Topic {
    kind: &'static str,
    message: String,
}

fn topics() -> Vec<Topic> {
    let pushed = wire::PUSHES.iter().map(|kind| Topic { kind: kind.name, message: title(kind.name) });
    let present = Topic { kind: PRESENT, message: title("alert") };
    let others = wire::UPLOADS.iter().chain(wire::NEWS).chain(wire::ANSWERS).map(|kind| Topic {
        kind: OTHER_TOPICS.iter().find(|(name, _)| *name == kind.name).map_or(kind.name, |(_, topic)| topic),
        message: format!("Mqtt{}", title(kind.name)),
    });
    pushed.chain([present]).chain(others).collect()
}

fn channel(kind: &str, message: &str) -> Json {
    let has_device = OF_DEVICES.contains(&kind) || kind == PRESENT;
    let mut parameters = json!({
        "site": {"description": "`site` of the configuration"}, "bridge": {"description": "`bridge` of the configuration"},
    });
    if let Some(members) = parameters.as_object_mut().filter(|_| has_device) {
        let about = "the device, or what makes the topic of an alert its own; left out with the `/` before it where there is none";
        members.insert("device".to_owned(), json!({"description": about}));
    }
    json!({
        "address": format!("vitals/v1/{{site}}/{{bridge}}/{kind}{}", if has_device { "/{device}" } else { "" }),
        "parameters": parameters,
        "servers": [{"$ref": "#/servers/broker"}, {"$ref": "#/servers/broker_tls"}],
        "messages": {message: {"$ref": format!("#/components/messages/{message}")}},
    })
}

/// The channels, by `mqtt_` and their kind.
pub(super) fn channels() -> Map<String, Json> {
    let mut all: Map<String, Json> =
        topics().iter().map(|it| (format!("mqtt_{}", it.kind), channel(it.kind, &it.message))).collect();
    all.insert(format!("mqtt_{COMMANDS}"), channel(COMMANDS, "MqttCommand"));
    all
}

/// What the bridge does with them.
pub(super) fn operations() -> Map<String, Json> {
    let reference = |kind: &str| json!({"$ref": format!("#/channels/mqtt_{kind}")});
    let within = |kind: &str, message: &str| json!([{"$ref": format!("#/channels/mqtt_{kind}/messages/{message}")}]);
    let publish = |it: &Topic| {
        let retain = RETAINED.contains(&it.kind);
        let operation = json!({
            "action": "send", "channel": reference(it.kind), "messages": within(it.kind, &it.message),
            "bindings": {"mqtt": {"qos": 1, "retain": retain, "bindingVersion": "0.2.0"}},
        });
        (format!("mqtt_{}_publish", it.kind), operation)
    };
    let mut all: Map<String, Json> = topics().iter().map(publish).collect();
    let take = json!({
        "action": "receive", "channel": reference(COMMANDS), "messages": within(COMMANDS, "MqttCommand"),
        "summary": "Only the commands that `mqtt.commands` lists.",
        "reply": {"channel": reference("cmd_result"), "messages": within("cmd_result", "MqttResult")},
    });
    all.insert(format!("mqtt_{COMMANDS}_take"), take);
    all
}

/// The messages that only the broker is sent, and the commands that come by it.
pub(super) fn messages(schema: &Json) -> Map<String, Json> {
    let others = topics().into_iter().map(|it| it.message).filter(|name| name.starts_with("Mqtt"));
    let mut all: Map<String, Json> = others.map(|name| (name.clone(), message(&name, schema))).collect();
    let text = |about: &str| json!({"type": "string", "description": about});
    let command = json!({
        "name": "MqttCommand", "title": "MqttCommand", "contentType": "application/json",
        "summary": "A command of a person behind the broker; its further members are those of CommandRequest.",
        "payload": {
            "type": "object", "required": ["name", "by"],
            "properties": {
                "name": text("which command"), "by": text("the person"),
                "correlation_id": text("the sender's name for it: under the same name it is done once, for 24 h"),
            },
        },
    });
    all.insert("MqttCommand".to_owned(), command);
    all
}

/// A broker as the configuration names it.
pub(super) fn server(protocol: &str) -> Json {
    let port = if protocol == "mqtt" { 1883 } else { 8883 };
    json!({
        "host": format!("broker.example:{port}"), "protocol": protocol, "protocolVersion": "5",
        "description": "The broker of `mqtt.url`, by MQTT 5 or 3.1.1, QoS 1; also over `ws` and `wss`. The account is the \
            configuration's.",
    })
}
