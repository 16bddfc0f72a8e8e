//! Commands about one rule of one patient, read from their JSON into the words of a rule file.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{BadMember, Command, Members};
use crate::ids::{PatientId, RuleId};

/// Longest limits of one command in the words of a rule file, in bytes. Longer ones are refused.
pub const MAX_LINES_BYTES: usize = 2048;

/// Deepest nesting inside `when`: a limit beyond another one's is an object in an object.
const MAX_DEPTH: usize = 4;

/// Limits that may stand beside the other members instead of in `when`.
const LEVELS: [&str; 4] = ["below", "at_most", "above", "at_least"];

/// The names of these commands.
pub(super) const NAMES: [&str; 4] = ["limits.set", "limits.clear", "rule.disable", "rule.enable"];

/// What a person wants of one rule of one patient. It is checked where the rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitWish {
    /// Whose.
    pub patient: PatientId,
    /// Which rule.
    pub rule: RuleId,
    /// What.
    pub operation: LimitOperation,
    /// Why, in the person's words; empty if nothing was said.
    pub reason: String,
}

/// What can be done with a rule of a patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitOperation {
    /// Other limits or delays for a while.
    Set {
        /// The keys of an override in a rule file, one in a line.
        lines: String,
        /// Until when, as it was written; empty if it is missing.
        expires: String,
    },
    /// Back to what the rule file says.
    Clear,
    /// ALARM OFF for a while.
    Disable {
        /// Until when, as it was written; empty if it is missing.
        until: String,
    },
    /// The end of ALARM OFF.
    Enable,
}

/// Reads the command with this name.
pub(super) fn read(name: &str, members: Members<'_>) -> Result<Command, BadMember> {
    let patient = members.required("patient_id")?.parse();
    let patient = patient.map_err(|_| BadMember::new("patient_id", "is not the id of a patient"))?;
    let rule = members.required("rule")?.parse().map_err(|_| BadMember::new("rule", "is not the id of a rule"))?;
    let written = |member| members.text(member).unwrap_or_default().to_owned();
    let operation = match name {
        "limits.set" => LimitOperation::Set { lines: lines(members)?, expires: written("expires") },
        "limits.clear" => LimitOperation::Clear,
        "rule.disable" => LimitOperation::Disable { until: written("until") },
        _ => LimitOperation::Enable,
    };
    Ok(Command::Limits(LimitWish { patient, rule, operation, reason: written("reason") }))
}

/// The lines of the override: `when`, `clear`, `delay` and `clear_delay`, as far as they are given.
fn lines(members: Members<'_>) -> Result<String, BadMember> {
    let mut lines = String::new();
    let mut line = |key: &'static str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{key} = {value}");
        if lines.len() > MAX_LINES_BYTES { Err(BadMember::new(key, "is too long")) } else { Ok(()) }
    };
    let levels: serde_json::Map<String, Json> =
        LEVELS.iter().filter_map(|name| Some(((*name).to_owned(), members.get(name)?.clone()))).collect();
    match (members.get("when"), levels.is_empty()) {
        (Some(_), false) => return Err(BadMember::new("when", "stands beside a limit that belongs into it")),
        (Some(when), true) => line("when", &toml(when, "when", 0)?)?,
        (None, false) => line("when", &toml(&Json::Object(levels), "when", 0)?)?,
        (None, true) => {}
    }
    for key in ["clear", "delay", "clear_delay"] {
        if let Some(value) = members.get(key) {
            line(key, &toml(value, key, 0)?)?;
        }
    }
    if lines.is_empty() {
        return Err(BadMember::new("when", "is missing: give `when`, `clear`, `delay` or `clear_delay`"));
    }
    Ok(lines)
}

/// A value in TOML. Text is escaped as in JSON, which TOML reads alike.
fn toml(value: &Json, member: &'static str, depth: usize) -> Result<String, BadMember> {
    if depth > MAX_DEPTH {
        return Err(BadMember::new(member, "is nested too deeply"));
    }
    Ok(match value {
        Json::Null => return Err(BadMember::new(member, "has a member without a value")),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => value.to_string(),
        Json::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| toml(item, member, depth + 1)).collect::<Result<_, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Json::Object(pairs) => {
            let pair = |(key, value): (&String, &Json)| {
                Ok(format!("{} = {}", Json::from(key.as_str()), toml(value, member, depth + 1)?))
            };
            let pairs: Vec<String> = pairs.iter().map(pair).collect::<Result<_, _>>()?;
            format!("{{ {} }}", pairs.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines_of(json: &Json) -> Result<String, String> {
        match Command::read(Members(json)).map_err(|bad| bad.to_string())? {
            Command::Limits(LimitWish { operation: LimitOperation::Set { lines, .. }, .. }) => Ok(lines),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn limits_are_read_into_the_words_of_a_rule_file() {
        let with = |rest: Json| {
            let mut json = json!({"name": "limits.set", "patient_id": "P-1", "rule": "spo2_low"});
            json.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            lines_of(&json)
        };
        for (rest, expected) in [
            (json!({"below": 86}), Ok("when = { \"below\" = 86 }\n")),
            (
                json!({"below": 86.5, "above": 200, "clear": {"at_least": 88}, "delay": "20s"}),
                Ok("when = { \"above\" = 200, \"below\" = 86.5 }\nclear = { \"at_least\" = 88 }\ndelay = \"20s\"\n"),
            ),
            (
                json!({"when": {"below_other": {"rule": "a\"b", "by": 5}}}),
                Ok("when = { \"below_other\" = { \"by\" = 5, \"rule\" = \"a\\\"b\" } }\n"),
            ),
            (json!({}), Err("`when` is missing")),
            (json!({"when": {"below": 1}, "above": 2}), Err("`when` stands beside a limit")),
            (json!({"when": {"below": null}}), Err("`when` has a member without a value")),
            (json!({"when": [[[[[[1]]]]]]}), Err("`when` is nested too deeply")),
            (json!({"delay": "x".repeat(MAX_LINES_BYTES)}), Err("`delay` is too long")),
        ] {
            match (with(rest.clone()), expected) {
                (Ok(lines), Ok(expected)) => assert_eq!(lines, expected, "{rest}"),
                (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{rest}: {error}"),
                (found, expected) => panic!("{rest}: {found:?}, wanted {expected:?}"),
            }
        }
    }

    #[test]
    fn each_command_about_a_rule_has_its_operation() {
        for (name, rest, expected) in [
            ("limits.clear", json!({}), LimitOperation::Clear),
            ("rule.disable", json!({"until": "x"}), LimitOperation::Disable { until: "x".into() }),
            ("rule.disable", json!({}), LimitOperation::Disable { until: String::new() }),
            ("rule.enable", json!({}), LimitOperation::Enable),
        ] {
            let mut json = json!({"name": name, "data": {"patient_id": "P-1", "rule": "spo2_low", "reason": "r"}});
            json.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            let wish = LimitWish {
                patient: "P-1".parse().unwrap(),
                rule: "spo2_low".parse().unwrap(),
                operation: expected,
                reason: "r".into(),
            };
            assert_eq!(Command::read(Members(&json)), Ok(Command::Limits(wish)), "{json}");
        }
        for (json, expected) in [
            (json!({"name": "limits.clear", "rule": "x"}), "`patient_id` is missing"),
            (json!({"name": "limits.clear", "patient_id": "a b", "rule": "x"}), "`patient_id` is not the id"),
            (json!({"name": "rule.enable", "patient_id": "a", "rule": "x/y"}), "`rule` is not the id"),
        ] {
            let error = Command::read(Members(&json)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
