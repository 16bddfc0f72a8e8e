//! `/api/v1/openapi.json`: every HTTP route of this server, with the forms of what it takes and gives.
//!
//! The forms are made from the Rust types. A route stands in `list`, and a test compares that list with the router.

pub(super) mod forms;
mod list;
mod managed;
mod operation;

use std::sync::OnceLock;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::routes::Site;

/// `GET /api/v1/openapi.json`: the same for everybody, and no secret.
pub(super) fn router(site: Site) -> Router {
    let answer = async || ([(CONTENT_TYPE, "application/json")], text());
    Router::new().route("/api/v1/openapi.json", get(answer)).with_state(site)
}

/// The document, made once.
fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| document().to_string())
}

/// The document.
fn document() -> Json {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Json> = Map::new();
    for operation in list::operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), operation.to_json(&mut generator));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "vitalbridge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Vital signs of a ward: patients, devices, readings, alerts. Errors are {code, message}.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "of /api/v1/ws-ticket, once"},
            },
        },
    })
}
