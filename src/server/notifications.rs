//! HTTP for messages to people: send one now or later, take one back, and what a user is told of.

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::codes::{hex, random_bytes};
use super::commands::{is_durable, key_of, refused};
use super::peer;
use super::routes::{Site, acting, failure, internal, reading};
use crate::command::{BadMember, Command, Members};
use crate::notifier::id_of;
use crate::pipeline;
use crate::server::auth::Rights;
use crate::wire;

type Body = Result<axum::Json<Json>, JsonRejection>;

/// The routes, the one of older servers among them.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/notifications", post(send))
        .route("/ws/publish", post(send))
        .route("/api/v1/notifications/{id}", delete(withdraw))
        .route("/api/v1/users/me/preferences", get(preferences).put(prefer))
        .with_state(site)
}

/// Sends a message; it is answered with its id once it is on disk.
async fn send(State(site): State<Site>, headers: HeaderMap, body: Body) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(json)) = body else {
        let advice = "send {\"kind\": \"medication_reminder\", \"users\": [\"7\"], \"title\": \"...\", \
             \"message\": \"...\"} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    let mut new = match Command::read_notification(Members(&json)) {
        Ok(Command::Notify(new)) => new,
        Ok(_) => return failure(StatusCode::BAD_REQUEST, "validation", "this is no message for people"),
        Err(bad) => return invalid(&bad),
    };
    // The name decides the id, so a request without one gets one here.
    let name = match key_of(&headers, Members(&json)) {
        Ok(Some(name)) => name,
        Err(refused) => return *refused,
        Ok(None) => match random_bytes::<16>() {
            Ok(bytes) => hex(&bytes),
            Err(error) => return internal(&error),
        },
    };
    let id = id_of(&rights.user, &name);
    new.correlation_id = Some(name);
    carry_out(&site, &rights, (Command::Notify(new), None), StatusCode::CREATED, &json!({"id": id})).await
}

async fn withdraw(State(site): State<Site>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(id) = id.parse::<Uuid>() else {
        return failure(StatusCode::BAD_REQUEST, "validation", "this is not the id of a message");
    };
    match key_of(&headers, Members(&Json::Null)) {
        Ok(key) => carry_out(&site, &rights, (Command::Withdraw(id), key), StatusCode::OK, &json!({"id": id})).await,
        Err(refused) => *refused,
    }
}

async fn preferences(State(site): State<Site>, headers: HeaderMap) -> Response {
    let rights = match reading(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    match pipeline::preferences(&site.gate.control, rights.user).await {
        Some(preferences) => axum::Json(wire::preferences(&preferences)).into_response(),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the bridge is stopping"),
    }
}

async fn prefer(State(site): State<Site>, headers: HeaderMap, body: Body) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(json)) = body else {
        let advice = "send {\"mute\": [\"appointment_reminder\"]} as application/json; [] mutes nothing";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    match Command::read_preferences(Members(&json)) {
        Ok(Command::Prefer(preferences)) => {
            let more = json!(wire::preferences(&preferences));
            match key_of(&headers, Members(&json)) {
                Ok(key) => carry_out(&site, &rights, (Command::Prefer(preferences), key), StatusCode::OK, &more).await,
                Err(refused) => *refused,
            }
        }
        Ok(_) => failure(StatusCode::BAD_REQUEST, "validation", "these are no preferences"),
        Err(bad) => invalid(&bad),
    }
}

/// Has a command carried out; the answer has the members of `more` beside its own.
async fn carry_out(
    site: &Site,
    rights: &Rights,
    (command, key): (Command, Option<String>),
    done: StatusCode,
    more: &Json,
) -> Response {
    let scope = rights.scope(command.needs());
    match pipeline::carry_out_once(&site.gate.control, command, peer::actor(rights), scope, key).await {
        Ok(taken) => {
            let mut answer = json!({"ok": true, "seq": taken.seq, "durable": is_durable(site, taken).await});
            if let (Some(answer), Some(more)) = (answer.as_object_mut(), more.as_object()) {
                answer.extend(more.clone());
            }
            (done, axum::Json(answer)).into_response()
        }
        Err(refusal) => refused(&refusal),
    }
}

fn invalid(bad: &BadMember) -> Response {
    failure(StatusCode::BAD_REQUEST, "validation", &bad.to_string())
}
