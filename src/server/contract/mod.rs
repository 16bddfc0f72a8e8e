//! The contract: what the server and its clients say to each other, made from the types that say it.
//!
//! One JSON Schema (2020-12) of all messages; the `AsyncAPI` document and the `TypeScript` types are made from that. Further
//! members may come in every object, so the contract closes none; the tests do.

mod asyncapi;
mod broker;
mod requests;
mod typescript;

#[cfg(test)]
#[path = "../../../tests/it/frames.rs"]
pub(crate) mod frames;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use axum::routing::get;
use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value as Json, json};

use self::requests::{REQUESTS, Request};
use crate::server::form::compact::CompactReading;
use crate::server::frames::FRAMES;
use crate::wire::shape::{Kind, title};
use crate::{waveform, wire};

/// A document of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Document {
    /// Its file in docs/schema.
    pub file: &'static str,
    /// Writes it.
    pub text: fn() -> String,
}

/// All of them.
pub const DOCUMENTS: [Document; 3] = [
    Document { file: "vitals.v1.json", text: || pretty(&schema()) },
    Document { file: "asyncapi.json", text: || pretty(&asyncapi::document(&schema())) },
    Document { file: "vitals.v1.d.ts", text: || typescript::declarations(&schema()) },
];

/// The routes: the schema needs no token, for it tells nothing of anybody.
pub(super) fn router() -> Router {
    static SCHEMA: LazyLock<String> = LazyLock::new(|| schema().to_string());
    Router::new()
        .route("/ws/schema.json", get(async || ([(CONTENT_TYPE, "application/json")], SCHEMA.as_str()).into_response()))
}

fn pretty(json: &Json) -> String {
    format!("{json:#}\n")
}

/// The JSON Schema of every message: `ServerMessage` is what a client may get in JSON text, `ClientMessage` what it may
/// send, `MqttMessage` what the broker gets, `MqttInput` what comes from it, `Waveform` the header of a binary message with samples.
pub fn schema() -> Json {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut made = Map::new();
    let mut server = Vec::new();
    for kind in wire::PUSHES.iter().chain(wire::MOMENTS).chain(FRAMES) {
        server.push(add(&mut made, &title(kind.name), message(*kind, &mut generator)));
    }
    made.insert("CompactReading".to_owned(), generator.subschema_for::<CompactReading>().to_value());
    server.push(reference("CompactReading"));
    let mut client = Vec::new();
    for Request { members, .. } in REQUESTS {
        let schema = taken(*members, &mut generator);
        client.push(add(&mut made, &format!("{}Request", title(members.name)), schema));
    }
    let mut broker = Vec::new();
    for kind in wire::PUSHES {
        broker.push(json!({"allOf": [reference(&title(kind.name)), {"required": ["bridge"]}]}));
    }
    for kind in wire::UPLOADS.iter().chain(wire::NEWS).chain(wire::ANSWERS) {
        let schema = message(*kind, &mut generator);
        broker.push(add(&mut made, &format!("Mqtt{}", title(kind.name)), schema));
    }
    for (name, schema) in broker::bare(&mut generator) {
        broker.push(add(&mut made, name, schema));
    }
    let inputs = broker::inputs(&mut generator).map(|(name, schema)| add(&mut made, name, schema)).to_vec();
    add(&mut made, "Waveform", message(waveform::HEADER, &mut generator));
    let any = |about: &str, of: Vec<Json>| json!({"description": about, "anyOf": of});
    made.insert("ServerMessage".to_owned(), any("What the server says in JSON text.", server));
    made.insert("ClientMessage".to_owned(), any("What a client may say.", client));
    made.insert("MqttMessage".to_owned(), any("What the broker gets.", broker));
    made.insert("MqttInput".to_owned(), any("What the bridge takes from the broker.", inputs));
    for (name, schema) in generator.take_definitions(true) {
        // A type that is referred to and stands for itself, such as `CompactReading`.
        let is_free = made.get(&name).is_none_or(|known| *known == reference(&name));
        debug_assert!(is_free, "the message {name} would hide a type: give the type's schema another name");
        if is_free {
            made.insert(name, schema);
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:vitalbridge:vitals.v1",
        "title": "vitals.v1",
        "description": "The messages of vitalbridge over WebSocket and MQTT. Further members may come in every object: \
            ignore what you do not know. `contentType` and framing are in docs/contract.md.",
        "anyOf": [reference("ServerMessage"), reference("ClientMessage"), reference("MqttMessage"),
            reference("MqttInput")],
        "$defs": made,
    })
}

fn reference(name: &str) -> Json {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn add(made: &mut Map<String, Json>, name: &str, schema: Json) -> Json {
    made.insert(name.to_owned(), schema);
    reference(name)
}

/// The whole schema of a message of the server.
fn message(kind: Kind, generator: &mut SchemaGenerator) -> Json {
    let mut schema = (kind.schema)(generator);
    let about = about(&schema, generator);
    if let Some(members) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        members.insert("type".to_owned(), json!({"const": kind.name}));
    }
    if let Some(about) = about {
        schema.insert("description".to_owned(), about);
    }
    schema.to_value()
}

/// The description of a message is that of its `data`.
fn about(schema: &Schema, generator: &SchemaGenerator) -> Option<Json> {
    let data = schema.pointer("/properties/data/$ref")?.as_str()?.rsplit('/').next()?;
    generator.definitions().get(data)?.get("description").cloned()
}

/// The whole schema of a message of a client: its members stand at the top or under `data`.
fn taken(kind: Kind, generator: &mut SchemaGenerator) -> Json {
    let members = (kind.schema)(generator).to_value();
    let about = members.get("description").cloned();
    let forms = forms(&members, generator);
    let mut both = Vec::new();
    for form in &forms {
        let mut flat = form.clone();
        if let Some(flat) = flat.as_object_mut() {
            let name = flat.remove("description");
            flat.insert("type".to_owned(), json!("object"));
            envelope(flat, kind.name, &[]);
            if let Some(name) = name.filter(|_| forms.len() > 1) {
                flat.insert("description".to_owned(), name);
            }
        }
        both.push(flat);
    }
    let mut nested = Map::from_iter([("type".to_owned(), json!("object"))]);
    let data = if forms.len() == 1 { forms.first().cloned().unwrap_or_default() } else { json!({"anyOf": forms}) };
    nested.insert("properties".to_owned(), json!({"data": data}));
    envelope(&mut nested, kind.name, &["data"]);
    both.push(Json::Object(nested));
    let mut schema = json!({"anyOf": both});
    if let (Some(schema), Some(about)) = (schema.as_object_mut(), about) {
        schema.insert("description".to_owned(), about);
    }
    schema
}

/// The forms that the members of a message may have.
fn forms(members: &Json, generator: &SchemaGenerator) -> Vec<Json> {
    let many = members.get("anyOf").or_else(|| members.get("oneOf")).and_then(Json::as_array);
    let Some(many) = many else { return vec![members.clone()] };
    let resolve = |form: &Json| {
        let name = form.get("$ref").and_then(Json::as_str).and_then(|name| name.rsplit('/').next());
        name.and_then(|name| generator.definitions().get(name)).unwrap_or(form).clone()
    };
    many.iter().map(resolve).collect()
}

/// Adds what every message of a client has.
fn envelope(schema: &mut Map<String, Json>, kind: &str, also: &[&str]) {
    let name = "The client's name for it, echoed in the answer.";
    let members = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(members) = members.as_object_mut() {
        members.insert("type".to_owned(), json!({"const": kind}));
        for alias in ["correlation_id", "id"] {
            members.insert(alias.to_owned(), json!({"description": name, "type": ["string", "integer"]}));
        }
    }
    let required = schema.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        required.extend(["type"].iter().chain(also).map(|name| json!(name)));
    }
}
