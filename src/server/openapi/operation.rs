//! One operation of the document: what it takes, what it gives, and how it refuses.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::forms::Failure;
use crate::notifier::MAX_KEY;

/// What every answer may be: the token, the host and origin, the time and the number of connections.
const ALWAYS: [u16; 4] = [403, 408, 421, 503];

/// A schema that is made with the others of the document.
type Form = fn(&mut SchemaGenerator) -> Schema;

/// A parameter.
#[derive(Debug)]
struct Parameter {
    name: &'static str,
    place: &'static str,
    is_required: bool,
    schema: Json,
    text: &'static str,
}

/// What a response carries.
#[derive(Debug)]
enum Content {
    /// JSON of this form.
    Form(Form),
    /// Something else, by media type.
    Text(&'static [&'static str]),
    /// Nothing.
    Nothing,
}

/// A method of a path.
#[derive(Debug)]
pub(in crate::server) struct Operation {
    /// In lower case.
    pub(super) method: &'static str,
    /// With its parameters in braces.
    pub(super) path: &'static str,
    summary: &'static str,
    /// Other ways to be let in than a token alone.
    security: Option<Json>,
    parameters: Vec<Parameter>,
    takes: Option<(Form, bool)>,
    responses: BTreeMap<u16, (&'static str, Content)>,
}

/// Begins an operation.
pub(super) fn operation(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    let mut operation = Operation {
        method,
        path,
        summary,
        security: None,
        parameters: Vec::new(),
        takes: None,
        responses: BTreeMap::new(),
    };
    for name in path.split('/').filter_map(|level| level.strip_prefix('{')?.strip_suffix('}')) {
        let schema = json!({"type": "string"});
        operation.parameters.push(Parameter { name, place: "path", is_required: true, schema, text: "" });
    }
    operation.refuses(&ALWAYS).refuses(&[401]).refuses(if path.contains('{') { &[400, 404] } else { &[] })
}

fn form_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    /// Nobody has to sign in.
    pub(super) fn open(mut self) -> Self {
        self.security = Some(json!([]));
        self.responses.remove(&401);
        self
    }

    /// A ticket lets in too.
    pub(super) fn by_ticket(mut self) -> Self {
        self.security = Some(json!([{"bearer": []}, {"ticket": []}]));
        self
    }

    /// Who is let in may also sign in later: by the first message.
    pub(super) fn signs_in_later(mut self) -> Self {
        self.security = Some(json!([{}, {"bearer": []}, {"ticket": []}]));
        self
    }

    /// Says more of a parameter of the path.
    pub(super) fn path(mut self, name: &str, schema: &Json) -> Self {
        let named = self.parameters.iter_mut().filter(|it| it.place == "path" && it.name == name);
        named.for_each(|it| it.schema = schema.clone());
        self
    }

    /// Takes a parameter of the query that may be left out.
    pub(super) fn query(mut self, name: &'static str, schema: Json, text: &'static str) -> Self {
        self.parameters.push(Parameter { name, place: "query", is_required: false, schema, text });
        self.refuses(&[400])
    }

    /// Takes a header that may be left out.
    pub(super) fn header(self, name: &'static str, text: &'static str) -> Self {
        self.header_of(name, json!({"type": "string"}), text)
    }

    fn header_of(mut self, name: &'static str, schema: Json, text: &'static str) -> Self {
        self.parameters.push(Parameter { name, place: "header", is_required: false, schema, text });
        self.refuses(&[400])
    }

    /// Is done once however often it is sent under one name.
    pub(super) fn once(self) -> Self {
        let schema = json!({"type": "string", "maxLength": MAX_KEY});
        let text = "the sender's name for this request: under the same name it is done once, for 24 h";
        self.header_of("Idempotency-Key", schema, text)
    }

    /// Takes JSON of this form.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.takes = Some((form_of::<T>, true));
        self.refuses(&[400])
    }

    /// Takes JSON of this form, or nothing.
    pub(super) fn may_take<T: JsonSchema>(mut self) -> Self {
        self.takes = Some((form_of::<T>, false));
        self.refuses(&[400, 413])
    }

    /// Gives JSON of this form.
    pub(super) fn gives<T: JsonSchema>(mut self, status: u16, text: &'static str) -> Self {
        self.responses.insert(status, (text, Content::Form(form_of::<T>)));
        self
    }

    /// Gives one of these media types.
    pub(super) fn gives_text(mut self, status: u16, kinds: &'static [&'static str], text: &'static str) -> Self {
        self.responses.insert(status, (text, Content::Text(kinds)));
        self
    }

    /// Gives no content.
    pub(super) fn gives_nothing(mut self, status: u16, text: &'static str) -> Self {
        self.responses.insert(status, (text, Content::Nothing));
        self
    }

    /// Refuses with these.
    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            self.responses.entry(*status).or_insert((refusal(*status), Content::Form(form_of::<Failure>)));
        }
        self
    }

    /// Carries out what a person wants: counted, and refused as `POST /api/v1/commands` refuses.
    pub(super) fn commands(self) -> Self {
        self.acts().refuses(&[400, 404, 409, 504])
    }

    /// Counts as something that the user does.
    pub(super) fn acts(self) -> Self {
        self.refuses(&[429])
    }

    /// Counts as something that the user reads.
    pub(super) fn reads(self) -> Self {
        self.refuses(&[429])
    }

    /// The operation as the document has it.
    pub(super) fn to_json(&self, generator: &mut SchemaGenerator) -> Json {
        let parameters: Vec<Json> = self
            .parameters
            .iter()
            .map(|it| json!({"name": it.name, "in": it.place, "required": it.is_required, "schema": it.schema, "description": it.text}))
            .collect();
        let mut responses = Map::new();
        for (status, (text, content)) in &self.responses {
            let content = match content {
                Content::Form(form) => json!({"application/json": {"schema": form(generator)}}),
                Content::Text(kinds) => {
                    let kinds = kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "string"}})));
                    Json::Object(kinds.collect())
                }
                Content::Nothing => json!({}),
            };
            let mut response = json!({"description": text, "content": content});
            if matches!(*status, 429 | 503)
                && let Some(members) = response.as_object_mut()
            {
                let seconds = json!({"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}});
                members.insert("headers".to_owned(), seconds);
            }
            responses.insert(status.to_string(), response);
        }
        let mut operation = json!({
            "summary": self.summary, "operationId": self.id(), "parameters": parameters, "responses": responses,
        });
        if let Some(members) = operation.as_object_mut() {
            if let Some((form, is_required)) = self.takes {
                let body =
                    json!({"required": is_required, "content": {"application/json": {"schema": form(generator)}}});
                members.insert("requestBody".to_owned(), body);
            }
            if let Some(security) = &self.security {
                members.insert("security".to_owned(), security.clone());
            }
        }
        operation
    }

    /// A name for generated clients: `get_patients_id_limits`.
    fn id(&self) -> String {
        let path = self.path.trim_start_matches("/api/v1");
        let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        std::iter::once(self.method).chain(words).collect::<Vec<_>>().join("_")
    }
}

/// What a status means everywhere.
const fn refusal(status: u16) -> &'static str {
    match status {
        400 => "the request cannot be read, or a member of it is wrong",
        401 => "no token, or not a valid one",
        403 => "the token does not allow it, whether it exists or not; or the page's origin is foreign",
        404 => "it does not exist",
        408 => "the request did not come in time",
        409 => "refused as things stand",
        413 => "the request is too large",
        421 => "the server was addressed by a foreign name",
        426 => "this address speaks WebSocket",
        429 => "too many requests of this user",
        503 => "it cannot be done now; the bridge drains, or has no room",
        504 => "it was not done in time",
        _ => "refused",
    }
}
