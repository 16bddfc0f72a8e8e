//! HTTP for the rooms of the care team: who is there, and what was written.

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::routes::{Site, failure, reading};
use crate::channel::Operation;
use crate::ids::Seq;
use crate::pipeline;
use crate::rooms::{channel_of, is_room};
use crate::server::auth::Rights;
use crate::server::chat::{self, MAX_PAGE, PAGE};
use crate::server::session::conversation;
use crate::store::PageWanted;
use crate::wire;

/// `/api/v1/rooms/{room}/members` and `/messages`.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/rooms/{room}/members", get(members))
        .route("/api/v1/rooms/{room}/messages", get(messages))
        .with_state(site)
}

/// Whose request it is, if the token allows this in the room.
fn allowed(site: &Site, headers: &HeaderMap, room: &str, operation: Operation) -> Result<Rights, Box<Response>> {
    let rights = reading(site, headers)?;
    if !is_room(room) {
        let reason = "a room has 1 to 64 of A-Z a-z 0-9 _ -";
        return Err(Box::new(failure(StatusCode::BAD_REQUEST, "validation", reason)));
    }
    if !rights.scope(operation).allows_channel(&channel_of(room)) {
        let reason = "your token does not allow this in this room";
        return Err(Box::new(failure(StatusCode::FORBIDDEN, "permission_denied", reason)));
    }
    Ok(rights)
}

async fn members(State(site): State<Site>, headers: HeaderMap, Path(room): Path<String>) -> Response {
    if let Err(refused) = allowed(&site, &headers, &room, Operation::Subscribe) {
        return *refused;
    }
    match pipeline::members(&site.gate.control, room.clone()).await {
        Some(members) => {
            let users: Vec<Json> = members.users.iter().map(|user| wire::user_id(user)).collect();
            let answer = json!({"conversation_id": room, "members": users, "member_count": members.count});
            axum::Json(answer).into_response()
        }
        None => failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the bridge does not answer"),
    }
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Messages before this event: the `next` of the page before.
    before: Option<u64>,
    /// At most this many.
    limit: Option<usize>,
}

async fn messages(
    State(site): State<Site>,
    headers: HeaderMap,
    Path(room): Path<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    let rights = match allowed(&site, &headers, &room, Operation::History) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(Query(Wanted { before, limit })) = wanted else {
        return failure(StatusCode::BAD_REQUEST, "validation", "`before` and `limit` are numbers");
    };
    let (before, limit) = (before.map_or(Seq(u64::MAX), Seq), limit.unwrap_or(PAGE).clamp(1, MAX_PAGE));
    let wanted = PageWanted { room: room.clone(), user: rights.user, before, limit };
    match chat::page(&site.gate, wanted, Seq::ZERO).await {
        Some(page) => axum::Json(conversation(&room, &page.messages, page.next)).into_response(),
        None => failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the conversation cannot be read now"),
    }
}
