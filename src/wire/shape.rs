//! What the contract says about messages beside their Rust types: which kinds there are, and how plain texts look.

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};

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
