//! The topics at a broker as channels of the `AsyncAPI` document, and the schemas of what stands on them without an envelope.

use schemars::generate::SchemaGenerator;
use serde_json::{Map, Value as Json, json};

use super::asyncapi::message;
use super::requests::command;
use super::{envelope, forms};
use crate::command::NAMES;
use crate::wire;
use crate::wire::shape::{Kind, title};

/// The `{kind}` of a topic is the `type` of its messages, but for these.
const OTHER_TOPICS: [(&str, &str); 1] = [(wire::RESULT, "cmd_result")];

/// What is about a device, and has its id at the end of the topic.
const OF_DEVICES: [&str; 4] = ["health_update", "alert", "device_status", "record"];

/// What the broker keeps.
const RETAINED: [&str; 4] = ["status", "birth", PRESENT, DISCOVERIES];

/// An alert that stands, kept on a topic of its own.
const PRESENT: &str = "alert_present";

/// Commands, where the configuration takes any.
const COMMANDS: &str = "cmd";

/// The message by which `vitalbridge doctor` tries the way to the broker.
const DOCTOR: &str = "doctor";

/// What Home Assistant is told.
const DISCOVERIES: &str = "discovery";

/// What Home Assistant tells of itself.
const STARTS: &str = "home_assistant";

/// The schema of a message without a byte.
pub(super) const EMPTY: &str = "MqttEmpty";

/// The schema of a document for Home Assistant.
const DISCOVERY: &str = "MqttDiscovery";

/// The schema of a command.
const COMMAND: &str = "MqttCommand";

/// The schema of what Home Assistant tells of itself.
pub(super) const HOME_ASSISTANT: &str = "MqttHomeAssistant";

/// A topic: its kind, and the schemas of what stands on it.
struct Topic {
    kind: &'static str,
    messages: Vec<String>,
}

/// Those that are published.
fn topics() -> Vec<Topic> {
    let topic = |kind: &'static str, messages: &[&str]| {
        let messages = messages.iter().map(|name| (*name).to_owned()).collect();
        Topic { kind, messages }
    };
    let pushed = wire::PUSHES.iter().map(|kind| topic(kind.name, &[&title(kind.name)]));
    let kept =
        [topic(PRESENT, &[&title("alert"), EMPTY]), topic(DISCOVERIES, &[DISCOVERY, EMPTY]), topic(DOCTOR, &[EMPTY])];
    let others = wire::UPLOADS.iter().chain(wire::NEWS).chain(wire::ANSWERS).map(|kind| {
        let other = OTHER_TOPICS.iter().find(|(name, _)| *name == kind.name);
        topic(other.map_or(kind.name, |(_, topic)| topic), &[&format!("Mqtt{}", title(kind.name))])
    });
    pushed.chain(others).chain(kept).collect()
}

/// Those that are listened to, each with the schema of its messages.
const HEARD: [(&str, &str); 2] = [(COMMANDS, COMMAND), (STARTS, HOME_ASSISTANT)];

/// What is published without an envelope: the names of the schemas, and these.
pub(super) fn bare(generator: &mut SchemaGenerator) -> [(&'static str, Json); 2] {
    let discovery = Kind::of::<wire::Discovery>("");
    let empty = json!({
        "description": "A message without a byte, taken as text: what the broker keeps on the topic is gone. The \
            doctor's message is one too, and kept nowhere.",
        "type": "string", "maxLength": 0,
    });
    [(DISCOVERY, (discovery.schema)(generator).to_value()), (EMPTY, empty)]
}

/// What is taken from the broker: the names of the schemas, and these.
pub(super) fn inputs(generator: &mut SchemaGenerator) -> [(&'static str, Json); 2] {
    let home_assistant = json!({
        "description": "What Home Assistant says of itself on its own topic, as text without quotation marks. Other \
            words, and what the broker kept, are passed over.",
        "type": "string", "enum": ["online", "offline"],
    });
    [(COMMAND, commands(generator)), (HOME_ASSISTANT, home_assistant)]
}

/// A command as a client gives it, if it is one that can be allowed here, and the person.
fn commands(generator: &mut SchemaGenerator) -> Json {
    let by = json!({
        "description": "The person, of 1 to 100 bytes. In the audit trail it is `mqtt:` and this.",
        "type": "string", "maxLength": 100, "pattern": r"\S",
    });
    let (kind, members) = command(generator);
    let mut all = Vec::new();
    for mut form in forms(&members, generator) {
        let name = form.pointer("/properties/name/const").and_then(Json::as_str);
        if !name.is_some_and(|name| NAMES.contains(&name)) {
            continue;
        }
        if let Some(form) = form.as_object_mut() {
            form.insert("type".to_owned(), json!("object"));
            envelope(form, kind, &["by"]);
            if let Some(required) = form.get_mut("required").and_then(Json::as_array_mut) {
                // The topic says what it is.
                required.retain(|name| name != "type");
            }
            if let Some(members) = form.get_mut("properties").and_then(Json::as_object_mut) {
                members.insert("by".to_owned(), by.clone());
            }
        }
        all.push(form);
    }
    let about = "What a person behind the broker wants done. Of these only the commands that `mqtt.commands` lists; under the \
        same `correlation_id` of the same person it is done once, for 24 h.";
    json!({"description": about, "anyOf": all})
}

/// Where it stands, with the places of the default template and of the default prefix.
fn address(kind: &str) -> String {
    match kind {
        DISCOVERIES => "homeassistant/device/vitalbridge-{bridge}/{object}/config".to_owned(),
        STARTS => "homeassistant/status".to_owned(),
        _ if OF_DEVICES.contains(&kind) || kind == PRESENT => {
            format!("vitals/v1/{{site}}/{{bridge}}/{kind}/{{device}}")
        }
        _ => format!("vitals/v1/{{site}}/{{bridge}}/{kind}"),
    }
}

fn channel(kind: &str, messages: &[String]) -> Json {
    let address = address(kind);
    let about_device =
        "the device, or what makes the topic of an alert its own; left out with the `/` before it where there is none";
    let places = [
        ("site", "`site` of the configuration"),
        ("bridge", "`bridge` of the configuration"),
        ("device", about_device),
        ("object", "`bridge`, or the length of the patient's id, the patient and the device"),
    ];
    let places = places.iter().filter(|(place, _)| address.contains(&format!("{{{place}}}")));
    let parameters: Map<String, Json> =
        places.map(|(place, about)| ((*place).to_owned(), json!({"description": about}))).collect();
    let messages: Map<String, Json> =
        messages.iter().map(|name| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")}))).collect();
    json!({
        "address": address,
        "parameters": parameters,
        "servers": [{"$ref": "#/servers/broker"}, {"$ref": "#/servers/broker_tls"}],
        "messages": messages,
    })
}

/// The channels, by `mqtt_` and their kind.
pub(super) fn channels() -> Map<String, Json> {
    let heard = HEARD.map(|(kind, message)| Topic { kind, messages: vec![message.to_owned()] });
    let all = topics().into_iter().chain(heard);
    all.map(|it| (format!("mqtt_{}", it.kind), channel(it.kind, &it.messages))).collect()
}

/// What the bridge does with them.
pub(super) fn operations() -> Map<String, Json> {
    let reference = |kind: &str| json!({"$ref": format!("#/channels/mqtt_{kind}")});
    let within = |kind: &str, messages: &[String]| -> Vec<Json> {
        messages.iter().map(|name| json!({"$ref": format!("#/channels/mqtt_{kind}/messages/{name}")})).collect()
    };
    let publish = |it: &Topic| {
        let retain = RETAINED.contains(&it.kind);
        let operation = json!({
            "action": "send", "channel": reference(it.kind), "messages": within(it.kind, &it.messages),
            "bindings": {"mqtt": {"qos": 1, "retain": retain, "bindingVersion": "0.2.0"}},
        });
        (format!("mqtt_{}_publish", it.kind), operation)
    };
    let mut all: Map<String, Json> = topics().iter().map(publish).collect();
    for (kind, message) in HEARD {
        let mut take = json!({
            "action": "receive", "channel": reference(kind), "messages": within(kind, &[message.to_owned()]),
        });
        if let Some(take) = take.as_object_mut().filter(|_| kind == COMMANDS) {
            let messages = within("cmd_result", &["MqttResult".to_owned()]);
            take.insert("summary".to_owned(), json!("Only the commands that `mqtt.commands` lists."));
            take.insert("reply".to_owned(), json!({"channel": reference("cmd_result"), "messages": messages}));
        }
        all.insert(format!("mqtt_{kind}_take"), take);
    }
    all
}

/// The messages that only the broker is sent, and those that come by it.
pub(super) fn messages(schema: &Json) -> Map<String, Json> {
    let published = topics().into_iter().flat_map(|it| it.messages).filter(|name| name.starts_with("Mqtt"));
    let heard = HEARD.iter().map(|(_, message)| (*message).to_owned());
    published.chain(heard).map(|name| (name.clone(), message(&name, schema))).collect()
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
