//! The `AsyncAPI` 3.0 document of the WebSocket and of the topics at a broker, from the JSON Schema.
//!
//! `AsyncAPI` knows JSON Schema in draft 07, which says lists of fixed length otherwise than 2020-12; all else of ours is
//! the same in both.

use serde_json::{Map, Value as Json, json};

use super::broker;
use super::requests::REQUESTS;
use crate::server::form::Form;
use crate::server::frames::FRAMES;
use crate::server::routes::SOCKETS;
use crate::wire;
use crate::wire::shape::title;

const ABOUT: &str = "Vital signs, alerts and messages for people from one bridge. Every text message is JSON in the envelope \
    {type, data, timestamp, correlation_id}; with the subprotocol vitals.v1.cbor the same stands in binary messages as CBOR, \
    with vitals.v1.compact readings are short lists. The channels that begin with mqtt are topics of the default template at the \
    broker of the bridge's configuration. docs/protocol.md, docs/mqtt.md and docs/contract.md say more.";

/// The document.
pub(super) fn document(schema: &Json) -> Json {
    let names: Vec<String> = wire::PUSHES
        .iter()
        .chain(wire::MOMENTS)
        .chain(FRAMES)
        .map(|kind| title(kind.name))
        .chain(["CompactReading".to_owned(), "Waveform".to_owned()])
        .collect();
    let taken: Vec<String> = REQUESTS.iter().map(|it| request(it.members.name)).collect();
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for (path, defaults) in SOCKETS {
        let id = path.trim_start_matches('/').replace('/', "_");
        channels.insert(id.clone(), channel(path, defaults, names.iter().chain(&taken)));
        operations.insert(
            format!("{id}_tell"),
            json!({
                "action": "send", "channel": {"$ref": format!("#/channels/{id}")},
                "summary": "What the bridge says.", "messages": within(&id, names.iter()),
            }),
        );
        for each in REQUESTS {
            let name = request(each.members.name);
            let mut operation = json!({
                "action": "receive", "channel": {"$ref": format!("#/channels/{id}")},
                "messages": within(&id, [&name].into_iter()),
            });
            let answers: Vec<String> = each.answers.iter().map(|answer| title(answer)).collect();
            if let Some(operation) = operation.as_object_mut().filter(|_| !answers.is_empty()) {
                let reply = json!({
                    "channel": {"$ref": format!("#/channels/{id}")}, "messages": within(&id, answers.iter()),
                });
                operation.insert("reply".to_owned(), reply);
            }
            operations.insert(format!("{id}_{}", each.members.name), operation);
        }
    }
    channels.extend(broker::channels());
    operations.extend(broker::operations());
    let schemas = schema.get("$defs").map(draft_07).unwrap_or_default();
    let mut messages: Map<String, Json> =
        names.iter().chain(&taken).map(|name| (name.clone(), message(name, schema))).collect();
    messages.extend(broker::messages(schema));
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:vitalbridge:vitals.v1",
        "info": {
            "title": "vitalbridge", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "bridge": server("ws"), "bridge_tls": server("wss"), "broker": broker::server("mqtt"),
            "broker_tls": broker::server("mqtts"),
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas, "securitySchemes": security_schemes()},
    })
}

fn request(name: &str) -> String {
    format!("{}Request", title(name))
}

fn server(protocol: &str) -> Json {
    let by = |name: &str| json!({"$ref": format!("#/components/securitySchemes/{name}")});
    json!({
        "host": "127.0.0.1:8080", "protocol": protocol, "protocolVersion": "13",
        "description": "Without any of these, the first message has to be `authenticate`.",
        "security": [by("bearer"), by("subprotocol"), by("ticket"), by("token")],
    })
}

fn security_schemes() -> Json {
    json!({
        "bearer": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Authorization: Bearer <jwt>",
        },
        "subprotocol": {
            "type": "httpApiKey", "in": "header", "name": "Sec-WebSocket-Protocol",
            "description": "A subprotocol `bearer.<jwt>` beside one of ours; it is never echoed.",
        },
        "ticket": {
            "type": "httpApiKey", "in": "query", "name": "ticket",
            "description": "What POST /api/v1/ws-ticket gives: for 30 s, once.",
        },
        "token": {
            "type": "httpApiKey", "in": "query", "name": "token",
            "description": "A token in the address, only where the configuration allows it.",
        },
    })
}

fn channel<'a>(path: &str, defaults: &[&str], names: impl Iterator<Item = &'a String>) -> Json {
    let reference = |name: &String| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
    let forms: Vec<&str> = Form::ALL.iter().map(|form| form.protocol()).collect();
    json!({
        "address": path,
        "servers": [{"$ref": "#/servers/bridge"}, {"$ref": "#/servers/bridge_tls"}],
        "summary": format!("A `subscribe` without channels means {}.", defaults.join(", ")),
        "messages": names.map(reference).collect::<Map<String, Json>>(),
        "bindings": {"ws": {
            "method": "GET",
            "headers": {"type": "object", "properties": {"Sec-WebSocket-Protocol": {"type": "string", "enum": forms}}},
            "bindingVersion": "0.1.0",
        }},
    })
}

fn within<'a>(channel: &str, names: impl Iterator<Item = &'a String>) -> Vec<Json> {
    names.map(|name| json!({"$ref": format!("#/channels/{channel}/messages/{name}")})).collect()
}

/// A message whose payload is the schema of this name.
pub(super) fn message(name: &str, schema: &Json) -> Json {
    let about = schema.get("$defs").and_then(|all| all.get(name)).and_then(|schema| schema.get("description"));
    let content = match name {
        "Waveform" => "application/octet-stream",
        broker::EMPTY | broker::HOME_ASSISTANT => "text/plain",
        _ => "application/json",
    };
    json!({
        "name": name, "title": name, "summary": about, "contentType": content,
        "payload": {"$ref": format!("#/components/schemas/{name}")},
    })
}

/// The same in draft 07, with references into the document.
fn draft_07(schema: &Json) -> Json {
    match schema {
        Json::Object(members) => {
            let is_tuple = members.contains_key("prefixItems");
            let rename = |(name, value): (&String, &Json)| {
                let name = match name.as_str() {
                    "prefixItems" => "items",
                    "items" if is_tuple => "additionalItems",
                    name => name,
                };
                (name.to_owned(), draft_07(value))
            };
            Json::Object(members.iter().map(rename).collect())
        }
        Json::Array(items) => items.iter().map(draft_07).collect(),
        Json::String(text) => Json::String(text.replace("#/$defs/", "#/components/schemas/")),
        other => other.clone(),
    }
}
