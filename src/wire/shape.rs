//! What the contract says about messages beside their Rust types: which kinds there are, and how plain texts look.

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Value as Json, json};

/// A kind of message.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its `type`.
    pub name: &'static str,
    /// Makes the schema of the whole message, but for the value of `type`.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Kind {
    /// Messages of this type whose whole form is `M`.
    pub const fn of<M: JsonSchema>(name: &'static str) -> Self {
        Self { name, schema: M::json_schema }
    }
}

/// Any event that a client may read in a history.
#[derive(Debug)]
pub enum AnyEvent {}

impl JsonSchema for AnyEvent {
    fn schema_name() -> Cow<'static, str> {
        "AnyEvent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Messages for people have a way of their own.
        let kinds = super::PUSHES.iter().filter(|kind| kind.name != "notification");
        json_schema!({"description": "An event as it was pushed.", "anyOf": references(kinds)})
    }
}

/// Any event that the broker is sent.
#[derive(Debug)]
pub enum AnyUpload {}

impl JsonSchema for AnyUpload {
    fn schema_name() -> Cow<'static, str> {
        "AnyUpload".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let inbox = json!({"$ref": "#/$defs/MqttInbox"});
        let forms = references(super::PUSHES.iter()).into_iter().chain([inbox]);
        // One that nobody can tell from another bridge's would be no upload.
        let forms: Vec<Json> = forms.map(|form| json!({"allOf": [form, {"required": ["bridge"]}]})).collect();
        json_schema!({"description": "An event as the broker gets it alone.", "anyOf": forms})
    }
}

fn references<'k>(kinds: impl Iterator<Item = &'k Kind>) -> Vec<Json> {
    kinds.map(|kind| json!({"$ref": format!("#/$defs/{}", title(kind.name))})).collect()
}

/// The schema's name of a `type`: `health_update` is `HealthUpdate`.
pub fn title(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    };
    name.split('_').map(word).collect()
}

/// A text that is a moment: UTC with milliseconds.
#[derive(Debug)]
pub enum Timestamp {}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A moment, in UTC with milliseconds.",
            "type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        })
    }
}

/// A user: a number where the token's subject is all digits, as older clients expect it, else text.
#[derive(Debug)]
pub enum UserId {}

impl JsonSchema for UserId {
    fn schema_name() -> Cow<'static, str> {
        "UserId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A user: a number where the token's subject is all digits, else text.",
            "type": ["integer", "string"], "minimum": 0,
        })
    }
}

/// The id of an alert or of a message for people.
#[derive(Debug)]
pub enum Uuid {}

impl JsonSchema for Uuid {
    fn schema_name() -> Cow<'static, str> {
        "Uuid".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The id of an alert or of a message for people.",
            "type": "string", "format": "uuid",
            "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        })
    }
}
