//! HTTP for administrators: who is connected and how each connection fares, and orders to close, to come back and to
//! stay away.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::bounds::ServerLimits;
use super::connections::{Health, State as ConnectionState, Subject, Totals, Which};
use super::message::MAX_RECEIPTS;
use super::object::Object;
use super::peer;
use super::routes::{Site, acting, failure, pipeline_answers, signed_in};
use super::session::{MAX_ERRORS, MAX_REPLAY, MAX_SUBSCRIPTIONS, PING_EVERY, PONG_DEADLINE};
use super::trail::{MAX_ROWS_WAITING, Row};
use crate::channel::Operation;
use crate::event::AuditAction;
use crate::outbox::{LOSSLESS_LANE, READING_LANE, WAVE_LANE};
use crate::server::auth::{Rights, Role};
use crate::server::close::Close;
use crate::wire;

/// The word under which a token's capabilities allow this, for an admin.
const CHANNEL: &str = "management";

/// Longest id of a connection or user in an address, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Who is refused while nobody is let in asks again after this many seconds.
const DRAIN_RETRY_SECONDS: u16 = 5;

/// The routes of management.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/ws/status", get(status))
        .route("/ws/connections", get(connections))
        .route("/ws/connection/{id}", delete(close))
        .route("/ws/connection/{id}/health", get(health))
        .route("/ws/users", get(users))
        .route("/ws/user/{id}/reconnect", post(reconnect))
        .route("/ws/user/{id}/disconnect", post(disconnect))
        .route("/ws/channels", get(channels))
        .route("/ws/drain", post(drain))
        .with_state(site)
}

type Named = Result<Path<String>, PathRejection>;

/// The answer to whoever wants to come in while nobody is let in.
pub(super) fn draining() -> Response {
    let reason = "this bridge sends its connections away; come back later";
    let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, "draining", reason);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(DRAIN_RETRY_SECONDS));
    response
}

/// Writes down that a sign-in code was taken.
pub(super) fn code_taken(site: &Site, user: &str, role: Role) {
    let row = Row::done(AuditAction::SignIn, "code".to_owned(), Some(role.to_string()));
    site.gate.connections.write(Some(user), peer::address(), row);
}

/// Writes down that a sign-in code was refused.
pub(super) fn code_refused(site: &Site, reason: &str) {
    let row = Row::refused(AuditAction::SignIn, "code".to_owned(), format!("code: {reason}"));
    site.gate.connections.write(None, peer::address(), row);
}

fn allowed(rights: Rights, operation: Operation) -> Result<Rights, Rights> {
    let is_allowed = rights.role == Role::Admin && rights.scope(operation).allows(&[CHANNEL.to_owned()]);
    if is_allowed { Ok(rights) } else { Err(rights) }
}

fn forbidden() -> Response {
    let reason = "this is for the role admin, with the right `sub` (to look) or `cmd` (to act) on `management`";
    failure(StatusCode::FORBIDDEN, "permission_denied", reason)
}

/// Whether this request may look.
fn may_look(site: &Site, headers: &HeaderMap) -> Result<(), Box<Response>> {
    allowed(signed_in(site, headers)?, Operation::Subscribe).map(drop).map_err(|_| Box::new(forbidden()))
}

/// Who wants to act, if he may; whoever may not has a row in the audit trail.
fn may_act(site: &Site, headers: &HeaderMap, action: AuditAction, object: &str) -> Result<Rights, Box<Response>> {
    allowed(acting(site, headers)?, Operation::Command).map_err(|rights| {
        let row = Row::refused(action, object.to_owned(), "not an admin with `cmd` on `management`".to_owned());
        site.gate.connections.write(Some(&rights.user), peer::address(), row);
        Box::new(forbidden())
    })
}

fn write_down(site: &Site, rights: &Rights, action: AuditAction, object: &str, reason: Option<String>) {
    site.gate.connections.write(Some(&rights.user), peer::address(), Row::done(action, object.to_owned(), reason));
}

fn bad_name() -> Response {
    failure(StatusCode::BAD_REQUEST, "validation", "an id has 1 to 256 bytes of UTF-8 without control characters")
}

/// An id in an address.
fn named(path: Named) -> Result<String, Box<Response>> {
    match path {
        Ok(Path(name)) if (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains(char::is_control) => Ok(name),
        Ok(_) | Err(_) => Err(Box::new(bad_name())),
    }
}

fn unknown_connection() -> Response {
    let reason = "there is no connection of this id, or it has ended some time ago";
    failure(StatusCode::NOT_FOUND, "unknown_connection", reason)
}

/// `GET /ws/status` with the members of older clients first, in their order.
#[derive(Debug, Serialize)]
struct Status<'a> {
    #[serde(rename = "status")]
    word: &'static str,
    active_connections: usize,
    total_connections: u64,
    users_online: usize,
    subscriptions: BTreeMap<Subject, usize>,
    timestamp: String,
    /// Seconds.
    uptime: u64,
    epoch: &'a str,
    states: BTreeMap<ConnectionState, usize>,
    queues: Json,
    limits: Json,
    version: &'static str,
    /// `null`: no broker is configured.
    uplink: Option<wire::UplinkNow>,
}

impl<'a> Status<'a> {
    fn new(
        word: &'static str,
        total_connections: u64,
        totals: &Totals,
        timestamp: String,
        epoch: &'a str,
        limits: &ServerLimits,
    ) -> Self {
        let count = |subject: &Subject| totals.subjects.get(subject).copied().unwrap_or(0);
        let states = ConnectionState::ALL.iter().filter(|state| **state != ConnectionState::Disconnected);
        Self {
            word,
            active_connections: totals.open,
            total_connections,
            users_online: totals.users,
            subscriptions: Subject::ALL.iter().map(|subject| (*subject, count(subject))).collect(),
            timestamp,
            uptime: totals.uptime.as_secs(),
            epoch,
            states: states.map(|state| (*state, totals.states.get(state).copied().unwrap_or(0))).collect(),
            queues: json!({
                "waiting": totals.load.parcels, "bytes": totals.load.bytes, "longest": totals.longest,
                "conflated": totals.load.conflated, "unhealthy": totals.unhealthy,
                "audit_rows": totals.audit_rows_waiting,
            }),
            limits: limits_in_force(limits),
            version: env!("CARGO_PKG_VERSION"),
            uplink: None,
        }
    }
}

/// The limits of the server under the names that its clients see: those of `[server.limits]` and the fixed ones.
fn limits_in_force(limits: &ServerLimits) -> Json {
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let fixed = json!({
        "subscriptions": MAX_SUBSCRIPTIONS, "errors": MAX_ERRORS, "receipts": MAX_RECEIPTS, "replay": MAX_REPLAY,
        "ping_ms": millis(PING_EVERY), "pong_ms": millis(PONG_DEADLINE),
        "lossless_lane": LOSSLESS_LANE, "reading_lane": READING_LANE, "wave_lane": WAVE_LANE,
        "audit_rows": MAX_ROWS_WAITING,
    });
    let named = limits.named().into_iter().map(|(name, value)| (name.to_owned(), Json::from(value)));
    named.chain(fixed.as_object().cloned().into_iter().flatten()).collect()
}

async fn status(State(site): State<Site>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&site, &headers) {
        return *refused;
    }
    let gate = &site.gate;
    let word = match (gate.connections.is_draining(), pipeline_answers(&site).await) {
        (true, _) => "draining",
        (false, true) => "healthy",
        (false, false) => "degraded",
    };
    let (totals, timestamp) = (gate.connections.totals(), gate.clock.now().wall.to_string());
    let epoch = gate.shared.epoch.to_string();
    let total = gate.metrics.connections_total.get();
    let status = Status::new(word, total, &totals, timestamp, &epoch, &gate.shared.limits);
    axum::Json(Status { uplink: gate.metrics.uplink.borrow().clone(), ..status }).into_response()
}

/// One connection, as `GET /ws/connection/{id}/health` has it.
#[derive(Debug, Serialize)]
struct OfConnection<'a> {
    connection_id: &'a str,
    health: &'a Health,
}

async fn health(State(site): State<Site>, headers: HeaderMap, id: Named) -> Response {
    if let Err(refused) = may_look(&site, &headers) {
        return *refused;
    }
    let id = match named(id) {
        Ok(id) => id,
        Err(refused) => return *refused,
    };
    match site.gate.connections.health(&id) {
        Some(health) => axum::Json(OfConnection { connection_id: &id, health: &health }).into_response(),
        None => unknown_connection(),
    }
}

/// Which connections are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Those of this user.
    user: Option<String>,
    /// Those in this state.
    state: Option<ConnectionState>,
}

async fn connections(
    State(site): State<Site>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Response {
    if let Err(refused) = may_look(&site, &headers) {
        return *refused;
    }
    let Ok(Query(Wanted { user, state })) = wanted else {
        let reason = "`user` is a user, `state` connecting, connected, authenticated or error";
        return failure(StatusCode::BAD_REQUEST, "validation", reason);
    };
    let mut healths = site.gate.connections.healths(user.as_deref().map_or(Which::All, Which::User));
    healths.retain(|(_, health)| state.is_none_or(|state| health.state == state));
    let list: Vec<_> = healths.iter().map(|(id, health)| OfConnection { connection_id: id, health }).collect();
    axum::Json(json!({"connections": list, "total": list.len()})).into_response()
}

/// A user who is online.
#[derive(Debug, Serialize)]
struct OfUser {
    user_id: Json,
    connections: Vec<String>,
    roles: Vec<Role>,
    /// The first of the connections that are open.
    connected_at: String,
    last_activity: String,
    is_healthy: bool,
}

async fn users(State(site): State<Site>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&site, &headers) {
        return *refused;
    }
    let mut users: BTreeMap<String, OfUser> = BTreeMap::new();
    for (id, health) in site.gate.connections.healths(Which::All) {
        let Some(user) = health.user else { continue };
        let known = users.entry(user).or_insert_with_key(|user| OfUser {
            user_id: wire::user_id(user),
            connections: Vec::new(),
            roles: Vec::new(),
            connected_at: health.connected_at.clone(),
            last_activity: health.last_activity.clone(),
            is_healthy: true,
        });
        known.connections.push(id);
        known.roles.extend(health.role.filter(|role| !known.roles.contains(role)));
        // Times of this form have the order of their texts.
        known.connected_at = std::mem::take(&mut known.connected_at).min(health.connected_at);
        known.last_activity = std::mem::take(&mut known.last_activity).max(health.last_activity);
        known.is_healthy &= health.is_healthy;
    }
    let list: Vec<OfUser> = users.into_values().collect();
    axum::Json(json!({"users": list, "total": list.len()})).into_response()
}

async fn channels(State(site): State<Site>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&site, &headers) {
        return *refused;
    }
    let channels = site.gate.connections.channels();
    let list: Vec<Json> =
        channels.iter().map(|(channel, count)| json!({"channel": channel, "subscribers": count})).collect();
    axum::Json(json!({"channels": list, "total": list.len()})).into_response()
}

fn closing(close: Close) -> Json {
    json!({"ok": true, "code": close.code(), "reason": close.name()})
}

fn with(mut answer: Json, name: &str, value: Json) -> Response {
    if let Some(members) = answer.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
    axum::Json(answer).into_response()
}

async fn close(State(site): State<Site>, headers: HeaderMap, id: Named) -> Response {
    let id = match named(id) {
        Ok(id) => id,
        Err(refused) => return *refused,
    };
    let rights = match may_act(&site, &headers, AuditAction::ConnectionClose, &id) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    // One that has been told to go already is answered alike: it ends.
    let is_open = !site.gate.connections.healths(Which::Connection(&id)).is_empty();
    let closed = site.gate.connections.close(Which::Connection(&id), Close::ClosedByAdmin);
    if !is_open {
        return unknown_connection();
    }
    if !closed.is_empty() {
        write_down(&site, &rights, AuditAction::ConnectionClose, &id, None);
    }
    with(closing(Close::ClosedByAdmin), "connection_id", id.into())
}

async fn reconnect(State(site): State<Site>, headers: HeaderMap, user: Named) -> Response {
    send_away(&site, &headers, user, (AuditAction::UserReconnect, Close::ForceReconnect))
}

async fn disconnect(State(site): State<Site>, headers: HeaderMap, user: Named) -> Response {
    send_away(&site, &headers, user, (AuditAction::UserDisconnect, Close::ClosedByAdmin))
}

/// Closes every connection of a user.
fn send_away(site: &Site, headers: &HeaderMap, user: Named, (action, close): (AuditAction, Close)) -> Response {
    let user = match named(user) {
        Ok(user) => user,
        Err(refused) => return *refused,
    };
    let rights = match may_act(site, headers, action, &user) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let closed = site.gate.connections.close(Which::User(&user), close);
    if closed.is_empty() {
        return failure(StatusCode::NOT_FOUND, "unknown_user", "this user has no connection");
    }
    write_down(site, &rights, action, &user, Some(format!("{} connections", closed.len())));
    let mut answer = closing(close);
    if let Some(members) = answer.as_object_mut() {
        members.insert("user_id".to_owned(), wire::user_id(&user));
    }
    with(answer, "connections", closed.into())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    #[serde(default = "yes")]
    drain: bool,
}

const fn yes() -> bool {
    true
}

/// Whether to drain; a request without a body asks for it.
fn wants_drain(body: &[u8]) -> Option<bool> {
    if body.trim_ascii().is_empty() {
        return Some(true);
    }
    serde_json::from_slice(body).ok().map(|Object(Drain { drain })| drain)
}

async fn drain(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted = wants_drain(&body);
    let object = if wanted == Some(false) { "off" } else { "on" };
    let rights = match may_act(&site, &headers, AuditAction::Drain, object) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Some(drain) = wanted else {
        let advice = "send {\"drain\": true} or {\"drain\": false}, or nothing, which means true";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    let closed = site.gate.connections.drain(drain);
    write_down(&site, &rights, AuditAction::Drain, object, Some(format!("{closed} connections")));
    axum::Json(json!({"ok": true, "draining": drain, "connections": closed})).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `GET /ws/status` of older servers, word for word.
    const OLDER: &str = r#"{"status":"healthy","active_connections":10,"total_connections":150,"users_online":8,"subscriptions":{"health_updates":5,"chat":3,"notifications":8},"timestamp":"2024-01-01T00:00:00Z"}"#;

    #[test]
    fn status_has_the_bytes_that_older_clients_read_and_more_members_beside_them() {
        let subjects =
            [(Subject::HealthUpdates, 5), (Subject::Chat, 3), (Subject::Notifications, 8), (Subject::Alerts, 4)];
        let totals = Totals { open: 10, users: 8, subjects: subjects.into(), ..Totals::default() };
        let status =
            Status::new("healthy", 150, &totals, "2024-01-01T00:00:00Z".to_owned(), "k3f9", &ServerLimits::default());
        let text = serde_json::to_string(&status).unwrap();
        // The list of subscriptions is longer than theirs, so the bytes come in two pieces.
        let (first, second) = OLDER.split_once("8},").unwrap();
        let (second, first) = (second.strip_suffix('}').unwrap(), format!("{first}8,\"alerts\":4,"));
        assert!(text.starts_with(&first), "{text}");
        assert!(
            text.contains(&format!("\"other\":0}},{second},\"uptime\":0,\"epoch\":\"k3f9\",\"states\":{{")),
            "{text}"
        );
        let json: Json = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["limits"]["connections"], &json["queues"]["waiting"]), (&json!(1000), &json!(0)));
    }

    #[test]
    fn a_drain_is_asked_for_with_and_without_a_body() {
        for (body, expected) in [
            ("", Some(true)),
            (" \n", Some(true)),
            ("{}", Some(true)),
            (r#"{"drain":true}"#, Some(true)),
            (r#"{"drain":false}"#, Some(false)),
            (r#"{"drain":"false"}"#, None),
            (r#"{"drian":false}"#, None),
            ("false", None),
            ("[false]", None),
            ("x", None),
        ] {
            assert_eq!(wants_drain(body.as_bytes()), expected, "{body}");
        }
    }
}
