//! The `data` of a `result`: the answer to a command, over WebSocket and the broker alike.

use std::borrow::Cow;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Serialize, Serializer};

use crate::event::{Preferences, Priority};
use crate::ids::Seq;

macro_rules! always {
    ($(#[$doc:meta])* $name:ident = $value:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bool($value)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"const": $value})
            }
        }
    };
}

always!(
    /// `true`.
    Yes = true
);
always!(
    /// `false`.
    No = false
);

/// It was done.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DoneData")]
pub struct Done {
    /// True.
    pub ok: Yes,
    /// The number of the event that it made.
    pub seq: Seq,
    /// That event is on disk.
    pub durable: bool,
}

/// It was not done.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RefusedData")]
pub struct Refused<'a> {
    /// False.
    pub ok: No,
    /// For programs.
    pub code: &'a str,
    /// For people.
    pub message: Cow<'a, str>,
}

/// What a user is told of.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PreferencesData")]
pub struct ChosenPreferences<'a> {
    /// True.
    pub ok: Yes,
    /// What is muted.
    pub preferences: &'a Preferences,
    /// What never is.
    pub never_muted: [Priority; 1],
}

/// The answer to a command over the broker.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "CommandResultData")]
pub enum CommandResult<'a> {
    /// It was done.
    Done(Done),
    /// It was not done.
    Refused(Refused<'a>),
}
