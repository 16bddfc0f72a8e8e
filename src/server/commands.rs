//! HTTP for what a person wants done: the same commands as over the WebSocket, answered once they are on disk.

use axum::Router;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value as Json, json};

use super::routes::{Site, failure, signed_in};
use crate::command::{Command, Members};
use crate::ids::Seq;
use crate::pipeline::{self, Refusal};
use crate::server::auth::Rights;
use crate::server::session::DURABLE_DEADLINE;

/// `POST /api/v1/commands`.
pub(super) fn router(site: Site) -> Router {
    Router::new().route("/api/v1/commands", post(command)).with_state(site)
}

async fn command(
    State(site): State<Site>,
    headers: HeaderMap,
    request: Result<axum::Json<Json>, JsonRejection>,
) -> Response {
    let rights = match signed_in(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(json)) = request else {
        let advice = "send {\"name\": \"alert.acknowledge\", \"alert_id\": \"...\"} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    match Command::read(Members(&json)) {
        Ok(command) => carry_out(&site, &rights, command).await,
        Err(bad) => failure(StatusCode::BAD_REQUEST, "validation", &bad.to_string()),
    }
}

/// Has a command carried out, and answers with the number of its event and whether that is on disk.
pub(super) async fn carry_out(site: &Site, rights: &Rights, command: Command) -> Response {
    let scope = rights.scope(command.needs());
    match pipeline::carry_out(&site.gate.control, command, rights.user.clone(), scope).await {
        Ok(seq) => {
            let durable = is_durable(site, seq).await;
            axum::Json(json!({"ok": true, "seq": seq, "durable": durable})).into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The answer to somebody whose command was not carried out.
pub(super) fn refused(refusal: &Refusal) -> Response {
    failure(status_of(refusal.code), refusal.code, &refusal.reason)
}

/// Waits for an event to be on disk, for a limited time.
pub(super) async fn is_durable(site: &Site, seq: Seq) -> bool {
    let mut durable = site.gate.durable.clone();
    let waiting = durable.wait_for(|newest| *newest >= seq);
    matches!(tokio::time::timeout(DURABLE_DEADLINE, waiting).await, Ok(Ok(_)))
}

/// The status of a refusal; docs/protocol.md lists the codes.
fn status_of(code: &str) -> StatusCode {
    match code {
        "validation" => StatusCode::BAD_REQUEST,
        "permission_denied" => StatusCode::FORBIDDEN,
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "unknown" => StatusCode::GATEWAY_TIMEOUT,
        unknown if unknown.starts_with("unknown_") => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    }
}
