//! HTTP for what a person wants done: the same commands as over the WebSocket, answered once they are on disk.

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value as Json, json};

use super::peer;
use super::routes::{Site, acting, failure};
use crate::command::{Command, Members};
use crate::pipeline::{self, Done, Refusal};
use crate::server::auth::Rights;
use crate::server::session::DURABLE_DEADLINE;

/// `POST /api/v1/commands`, and what a person sees of a patient at `POST /api/v1/patients/{id}/observations`.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/commands", post(command))
        .route("/api/v1/patients/{id}/observations", post(observe))
        .with_state(site)
}

async fn observe(
    State(site): State<Site>,
    Path(patient): Path<String>,
    headers: HeaderMap,
    request: Result<axum::Json<Json>, JsonRejection>,
) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(Json::Object(mut members))) = request else {
        let advice = "send {\"oxygen\": \"air\", \"consciousness\": \"A\"} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    members.insert("name".to_owned(), json!("observation.set"));
    members.insert("patient_id".to_owned(), json!(patient));
    let members = Json::Object(members);
    match Command::read(Members(&members)) {
        Ok(command) => carry_out_as_named(&site, &rights, command, (&headers, Members(&members))).await,
        Err(bad) => failure(StatusCode::BAD_REQUEST, "validation", &bad.to_string()),
    }
}

async fn command(
    State(site): State<Site>,
    headers: HeaderMap,
    request: Result<axum::Json<Json>, JsonRejection>,
) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(json)) = request else {
        let advice =
            "send {\"name\": \"alert.acknowledge\", \"alert_id\": \"...\", \"expected_seq\": 1042} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    match Command::read(Members(&json)) {
        Ok(command) => carry_out_as_named(&site, &rights, command, (&headers, Members(&json))).await,
        Err(bad) => failure(StatusCode::BAD_REQUEST, "validation", &bad.to_string()),
    }
}

/// The header that names a request, so that it is done once however often it is sent.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The person's own name for a command: of the header, or of the message. One that cannot be read is refused, because
/// without it the command would be done each time that it is sent.
pub(super) fn key_of(headers: &HeaderMap, members: Members<'_>) -> Result<Option<String>, Box<Response>> {
    let header = headers.get(IDEMPOTENCY_KEY).map(|key| key.to_str().map(str::to_owned)).transpose().map_err(|_| {
        let reason = "`Idempotency-Key` is not text of ASCII";
        Box::new(failure(StatusCode::BAD_REQUEST, "validation", reason))
    })?;
    let named = |key: Option<String>| key.filter(|key| !key.is_empty());
    Ok(named(header).or_else(|| named(members.correlation_id())))
}

/// Has a command carried out, once under the name that the request gives it, and answers with the number of its event
/// and whether that is on disk.
pub(super) async fn carry_out_as_named(
    site: &Site,
    rights: &Rights,
    command: Command,
    (headers, members): (&HeaderMap, Members<'_>),
) -> Response {
    let key = match key_of(headers, members) {
        Ok(key) => key,
        Err(refused) => return *refused,
    };
    let scope = rights.scope_of(&command);
    match pipeline::carry_out_once(&site.gate.control, command, peer::actor(rights), scope, key).await {
        Ok(done) => {
            let durable = is_durable(site, done).await;
            axum::Json(json!({"ok": true, "seq": done.seq, "durable": durable})).into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The answer to somebody whose command was not carried out.
pub(super) fn refused(refusal: &Refusal) -> Response {
    failure(status_of(refusal.code), refusal.code, &refusal.reason)
}

/// Waits for a command to be on disk, for a limited time.
pub(super) async fn is_durable(site: &Site, Done { seq, is_kept }: Done) -> bool {
    if !is_kept {
        return false;
    }
    let mut durable = site.gate.durable.clone();
    let waiting = durable.wait_for(|newest| *newest >= seq);
    matches!(tokio::time::timeout(DURABLE_DEADLINE, waiting).await, Ok(Ok(_)))
}

/// The status of a refusal; docs/protocol.md lists the codes.
fn status_of(code: &str) -> StatusCode {
    match code {
        "validation" => StatusCode::BAD_REQUEST,
        "permission_denied" => StatusCode::FORBIDDEN,
        "unavailable" | "store_full" => StatusCode::SERVICE_UNAVAILABLE,
        "unknown" => StatusCode::GATEWAY_TIMEOUT,
        unknown if unknown.starts_with("unknown_") => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    }
}
