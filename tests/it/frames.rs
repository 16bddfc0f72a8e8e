//! Holds every frame that a test sees to the contract. Objects are closed here, though the contract lets members come: a
//! member that it does not name is a defect of this version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value as Json, json};

/// The bytes before CBOR; a wave cannot begin with them, for its header would be of 55769 bytes and begin with F7.
const SELF_DESCRIBED_CBOR: [u8; 3] = [0xD9, 0xD9, 0xF7];

/// A document of the contract as it is published.
fn written(file: &str) -> Json {
    let path = format!("{}/docs/schema/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The named schemas of the contract, closed.
static SCHEMAS: LazyLock<Map<String, Json>> = LazyLock::new(|| {
    let contract = written("vitals.v1.json");
    contract["$defs"].as_object().unwrap().iter().map(|(name, schema)| (name.clone(), closed(schema))).collect()
});

/// The schemas of what may stand on each kind of topic at a broker.
static AT_BROKER: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
    let document = written("asyncapi.json");
    let channels = document["channels"].as_object().unwrap().iter();
    let messages = |channel: &Json| channel["messages"].as_object().unwrap().keys().cloned().collect();
    channels.filter_map(|(name, channel)| Some((name.strip_prefix("mqtt_")?.to_owned(), messages(channel)))).collect()
});

/// What the contract does not allow about a message of the server; empty: nothing.
pub(crate) fn problems(message: &Json) -> Vec<String> {
    if message.is_array() {
        return found("CompactReading", message);
    }
    found(&title(message), message)
}

/// Fails the test if the server may not say this.
pub(crate) fn check(message: &Json) {
    let problems = problems(message);
    assert!(
        problems.is_empty(),
        "not in the contract (docs/contract.md says how to add it): {problems:#?}\n{message:#}"
    );
}

/// What the contract does not allow about a message at a broker, whoever published it; empty: nothing.
#[allow(dead_code, reason = "unit tests, which share this file, have no broker")]
pub(crate) fn problems_at_broker(topic: &str, text: &str) -> Vec<String> {
    let Some(kind) = kind_of(topic) else { return vec![format!("the contract has no topic `{topic}`")] };
    // What is no JSON is text: a message without a byte, and the words of Home Assistant.
    let message = serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
    let mut problems = Vec::new();
    for name in &AT_BROKER[kind] {
        let mut found = found(name, &message);
        // An event of nobody knows which bridge is none.
        if !name.starts_with("Mqtt") && !message["bridge"].is_string() {
            found.push("\"bridge\" is a required property".to_owned());
        }
        if found.is_empty() {
            return found;
        }
        problems.extend(found.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    problems
}

/// Fails the test if this may not stand on this topic at a broker.
#[allow(dead_code, reason = "unit tests, which share this file, have no broker")]
pub(crate) fn check_at_broker(topic: &str, text: &str) {
    let problems = problems_at_broker(topic, text);
    assert!(problems.is_empty(), "not in the contract: {problems:#?}\n{topic} {text}");
}

/// The kind of a topic of whatever template.
fn kind_of(topic: &str) -> Option<&'static str> {
    let known = |name: &str| AT_BROKER.get_key_value(name).map(|(name, _)| name.as_str());
    if topic.contains("/device/vitalbridge-") {
        return known("discovery").filter(|_| topic.ends_with("/config"));
    }
    if topic == "homeassistant/status" {
        return known("home_assistant");
    }
    // In a template without devices the id of an alert stands in the kind.
    let mut parts = topic.split(['/', '=', '&']);
    parts.find_map(|part| if part.starts_with("alert_present_") { known("alert_present") } else { known(part) })
}

/// Fails the test if the server may not send these bytes.
#[allow(dead_code, reason = "unit tests, which share this file, have no socket")]
pub(crate) fn check_binary(bytes: &[u8]) {
    if bytes.starts_with(&SELF_DESCRIBED_CBOR) {
        return;
    }
    let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let header: Json = serde_json::from_slice(&bytes[2..2 + length]).unwrap();
    let problems = found("Waveform", &header);
    assert!(problems.is_empty(), "not in the contract: {problems:#?}\n{header:#}");
}

/// The schema's name of a message: `health_update` is `HealthUpdate`.
fn title(message: &Json) -> String {
    let kind = message["type"].as_str().unwrap_or("nothing");
    kind.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

/// What a named schema says about a message.
pub(crate) fn found(name: &str, message: &Json) -> Vec<String> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    if !SCHEMAS.contains_key(name) {
        return vec![format!("there is no message `{name}`")];
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(validator(name))));
    drop(known);
    let problem = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(message).map(problem).collect()
}

fn validator(name: &str) -> Validator {
    let mut needed = BTreeSet::from([name.to_owned()]);
    let mut open = vec![name.to_owned()];
    while let Some(next) = open.pop() {
        let text = SCHEMAS[&next].to_string();
        for part in text.split("\"#/$defs/").skip(1) {
            let used = part.split('"').next().unwrap().to_owned();
            if needed.insert(used.clone()) {
                open.push(used);
            }
        }
    }
    let all: Map<String, Json> = needed.into_iter().map(|name| (name.clone(), SCHEMAS[&name].clone())).collect();
    let schema = json!({"$ref": format!("#/$defs/{name}"), "$defs": all});
    jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true).build(&schema).unwrap()
}

/// The schema with every object of named members closed.
fn closed(schema: &Json) -> Json {
    match schema {
        Json::Object(members) => {
            let mut members: Map<String, Json> =
                members.iter().map(|(name, value)| (name.clone(), closed(value))).collect();
            let is_named = members.get("properties").is_some_and(Json::is_object);
            if is_named && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            Json::Object(members)
        }
        Json::Array(items) => items.iter().map(closed).collect(),
        other => other.clone(),
    }
}
