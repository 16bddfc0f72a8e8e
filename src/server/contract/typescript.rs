//! TypeScript types from the JSON Schema: as much of the language of schemas as ours has.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value as Json;

/// The declarations of every named schema.
pub(super) fn declarations(schema: &Json) -> String {
    let mut text = "// The messages of vitalbridge, made from their JSON Schema by `vitalbridge contract`: see docs/contract.md.\n\
        // Further members may come in every object.\n"
        .to_owned();
    for (name, schema) in sorted(schema.get("$defs")) {
        text.push('\n');
        comment(&mut text, schema, "");
        let is_plain = schema.get("properties").is_some() && schema.get("anyOf").is_none();
        // Writing to a String cannot fail.
        let _ = if is_plain {
            writeln!(text, "export interface {name} {}", type_of(schema, ""))
        } else {
            writeln!(text, "export type {name} = {};", type_of(schema, ""))
        };
    }
    text
}

/// The members of an object, in the order of their names.
fn sorted(object: Option<&Json>) -> BTreeMap<&String, &Json> {
    object.and_then(Json::as_object).into_iter().flatten().collect()
}

fn comment(text: &mut String, schema: &Json, indent: &str) {
    if let Some(about) = schema.get("description").and_then(Json::as_str) {
        let _ = writeln!(text, "{indent}/** {} */", about.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

/// The type of a schema, whose further lines are indented.
fn type_of(schema: &Json, indent: &str) -> String {
    let list = |key: &str| schema.get(key).and_then(Json::as_array);
    if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
        return name.rsplit('/').next().unwrap_or(name).to_owned();
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = list("enum") {
        return values.iter().map(Json::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(parts) = list("anyOf").or_else(|| list("oneOf")) {
        let union = parts.iter().map(|part| type_of(part, indent)).collect::<Vec<_>>().join(" | ");
        return if schema.get("properties").is_some() {
            format!("{} & ({union})", object(schema, indent))
        } else {
            union
        };
    }
    if let Some(parts) = list("allOf") {
        // What only demands a member says nothing about types.
        let parts = parts.iter().filter(|part| part.get("$ref").is_some() || part.get("type").is_some());
        return parts.map(|part| type_of(part, indent)).collect::<Vec<_>>().join(" & ");
    }
    match schema.get("type") {
        Some(Json::Array(types)) => {
            let one = |kind: &Json| plain(kind.as_str().unwrap_or_default(), schema, indent);
            types.iter().map(one).collect::<Vec<_>>().join(" | ")
        }
        Some(Json::String(kind)) => plain(kind, schema, indent),
        _ => "unknown".to_owned(),
    }
}

fn plain(kind: &str, schema: &Json, indent: &str) -> String {
    match kind {
        "integer" | "number" => "number".to_owned(),
        "string" | "boolean" | "null" => kind.to_owned(),
        "array" => array(schema, indent),
        "object" => object(schema, indent),
        _ => "unknown".to_owned(),
    }
}

fn array(schema: &Json, indent: &str) -> String {
    let Some(items) = schema.get("prefixItems").and_then(Json::as_array) else {
        let item = schema.get("items").map_or_else(|| "unknown".to_owned(), |item| type_of(item, indent));
        return if item.contains(' ') { format!("({item})[]") } else { format!("{item}[]") };
    };
    let least = schema.get("minItems").and_then(Json::as_u64).and_then(|least| usize::try_from(least).ok());
    let item = |(place, item): (usize, &Json)| {
        let is_needed = least.is_none_or(|least| place < least);
        let kind = type_of(item, indent);
        if is_needed { kind } else { format!("({kind})?") }
    };
    format!("[{}]", items.iter().enumerate().map(item).collect::<Vec<_>>().join(", "))
}

fn object(schema: &Json, indent: &str) -> String {
    let members = sorted(schema.get("properties"));
    if members.is_empty() {
        let rest = schema.get("additionalProperties").filter(|rest| rest.is_object());
        let rest = rest.map_or_else(|| "unknown".to_owned(), |rest| type_of(rest, indent));
        // Not `Record`: that is a message of ours.
        return format!("{{ [name: string]: {rest} }}");
    }
    let required = schema.get("required").and_then(Json::as_array);
    let inner = format!("{indent}  ");
    let mut text = "{\n".to_owned();
    for (name, member) in members {
        comment(&mut text, member, &inner);
        let mark = if required.is_some_and(|list| list.iter().any(|known| known == name)) { "" } else { "?" };
        let _ = writeln!(text, "{inner}{name}{mark}: {};", type_of(member, &inner));
    }
    let _ = write!(text, "{indent}}}");
    text
}
