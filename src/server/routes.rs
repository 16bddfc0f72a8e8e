//! HTTP: the dashboard's files, sign-in, health, metrics and the upgrade to WebSocket.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::Timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{debug, warn};

use crate::clock::Wall;
use crate::pipeline::Control;
use crate::profile::Models;
use crate::server::accept::{HANDSHAKE_DEADLINE, Slot, UpgradeBy};
use crate::server::auth::Rights;
use crate::server::codes::{Codes, hex, random_bytes};
use crate::server::connections::Visit;
use crate::server::form::Form;
use crate::server::hosts::Hosts;
use crate::server::jwt::Claims;
use crate::server::object::Object;
use crate::server::seats::Waiting;
use crate::server::session::Manner;
use crate::server::socket::{self, Gate};
use crate::server::tokens::{self, Comer};
use crate::server::{
    accept, admission, audit, ble, commands, contract, limits, manage, notifications, openapi, pages, peer, plain,
    rest, rooms, sse, start_page, strict,
};
use crate::sources::ble::AirStatus;
use crate::tasks::{Role as TaskRole, Tasks};

/// How long a token lives that a sign-in code gives, in seconds: one long shift.
const SIGN_IN_SECONDS: i64 = 12 * 3600;

/// The pipeline answers within this time, or the bridge is not ready.
const READY_DEADLINE: Duration = Duration::from_secs(2);

/// Largest body of a request.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// What the routes need.
#[derive(Debug, Clone)]
pub struct Site {
    /// For sessions, which share it.
    pub gate: Arc<Gate>,
    /// Where sign-in codes are checked.
    pub codes: Codes,
    /// Names under which this server is addressed.
    pub hosts: Arc<Hosts>,
    /// Where sessions run.
    pub tasks: Tasks,
    /// What the Bluetooth radio and its sensors are doing.
    pub air: watch::Receiver<AirStatus>,
    /// The Bluetooth models that are known.
    pub models: Models,
}

/// A file of the dashboard, in the binary.
pub(super) struct Asset {
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    pub(super) body: &'static str,
}

const ASSETS: &[Asset] = &[
    Asset { path: "/style.css", kind: "text/css; charset=utf-8", body: include_str!("dashboard/style.css") },
    Asset { path: "/app.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/app.js") },
    Asset { path: "/ward.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/ward.js") },
    Asset { path: "/alarm.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/alarm.js") },
    Asset { path: "/bedside.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/bedside.js") },
    Asset { path: "/dom.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/dom.js") },
    Asset { path: "/number.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/number.js") },
    Asset { path: "/waves.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/waves.js") },
    Asset { path: "/bedside.css", kind: "text/css; charset=utf-8", body: include_str!("dashboard/bedside.css") },
    Asset { path: "/sound.js", kind: "text/javascript; charset=utf-8", body: include_str!("dashboard/sound.js") },
    Asset { path: "/icon.svg", kind: "image/svg+xml", body: include_str!("dashboard/icon.svg") },
    Asset {
        path: "/vitalbridge.js",
        kind: "text/javascript; charset=utf-8",
        body: include_str!("dashboard/vitalbridge.js"),
    },
];

/// Paths of the WebSocket and what a `subscribe` without channels means there.
pub(super) const SOCKETS: &[(&str, &[&str])] = &[
    ("/ws", &["patient/+/+", "alerts/+", "notifications/+", "system"]),
    ("/ws/combined", &["patient/+/+", "alerts/+", "notifications/+", "chat/+"]),
    ("/ws/health", &["patient/+/+", "alerts/+"]),
    ("/ws/notifications", &["notifications/+"]),
    ("/ws/chat", &["chat/+"]),
    ("/api/ws", &["patient/+/+", "alerts/+"]),
];

/// All routes.
pub fn router(site: Site) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/sign-in", post(sign_in));
    let page: axum::body::Bytes = start_page::of(&site.gate.shared.patients).into();
    router = router.route("/", get(async move || ([(CONTENT_TYPE, "text/html; charset=utf-8")], page.clone())));
    for asset in ASSETS.iter().chain(pages::FILES) {
        router = router.route(asset.path, get(async || ([(CONTENT_TYPE, asset.kind)], asset.body)));
    }
    for (path, defaults) in SOCKETS {
        router = router.route(path, get(async |State(site), request| upgrade(&site, defaults, request)));
    }
    router
        .with_state(site.clone())
        .merge(ble::router(site.clone()))
        .merge(commands::router(site.clone()))
        .merge(limits::router(site.clone()))
        .merge(audit::router(site.clone()))
        .merge(manage::router(site.clone()))
        .merge(notifications::router(site.clone()))
        .merge(tokens::router(site.clone()))
        .merge(rooms::router(site.clone()))
        .merge(rest::router(site.clone()))
        .merge(openapi::router(site.clone()))
        .merge(sse::router(site.clone()))
        .merge(contract::router())
        .fallback(async || failure(StatusCode::NOT_FOUND, "not_found", "there is nothing here; the dashboard is at /"))
        .method_not_allowed_fallback(async || {
            failure(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this address takes another method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(site, guard))
}

/// Refuses foreign hosts and origins, and sets the headers that every answer has.
async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let mut refusal = refusal(&site.hosts, request.headers());
    if refusal.is_none() {
        // Also an admin's key may be new.
        tokens::learn_key(&site, request.headers(), request.uri()).await;
        refusal = admission::refusal(&site, &request);
    }
    let mut response = if let Some(refusal) = refusal {
        refusal
    } else {
        plain::refusals(peer::answering(peer::of(&request), next.run(request)).await)
    };
    let headers = response.headers_mut();
    let policy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    headers.entry("cache-control").or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refusal(hosts: &Hosts, headers: &HeaderMap) -> Option<Response> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(HOST).unwrap_or("");
    if !hosts.allows_host(host) {
        let advice = "add this name to server.allowed_hosts to use it";
        return Some(failure(StatusCode::MISDIRECTED_REQUEST, "unknown_host", advice));
    }
    let foreign = !text(ORIGIN).is_none_or(|origin| hosts.allows_origin(origin, host));
    let advice = "add this page's address to server.allowed_origins to use it";
    foreign.then(|| failure(StatusCode::FORBIDDEN, "foreign_origin", advice))
}

/// An error as every HTTP answer has it.
pub(super) fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(json!({"code": code, "message": message}))).into_response()
}

/// Ready while the pipeline turns; it is asked, not assumed.
async fn ready(State(site): State<Site>) -> Response {
    if site.gate.connections.is_draining() {
        return manage::draining();
    }
    if pipeline_answers(&site).await {
        return "ready\n".into_response();
    }
    failure(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the pipeline does not answer")
}

/// True if the pipeline has turned its loop just now.
pub(super) async fn pipeline_answers(site: &Site) -> bool {
    let (reply, answer) = oneshot::channel();
    let asked = async { site.gate.control.send(Control::Ping(reply)).await.is_ok() && answer.await.is_ok() };
    tokio::time::timeout(READY_DEADLINE, asked).await == Ok(true)
}

async fn metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    match signed_in(&site, &headers) {
        Ok(_) => {
            let mut text = site.gate.metrics.to_prometheus();
            text.push_str(&site.gate.connections.to_prometheus());
            text.push_str(&site.air.borrow().to_prometheus(site.gate.clock.now()));
            text.push_str(&site.gate.shared.limits.to_prometheus());
            ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
        }
        Err(response) => *response,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    code: String,
}

#[derive(Serialize)]
struct SignedIn {
    token: String,
    expires_at: String,
    user_id: String,
    role: &'static str,
}

async fn sign_in(
    State(site): State<Site>,
    peer: Option<axum::Extension<ConnectInfo<SocketAddr>>>,
    request: Result<axum::Json<Object<SignIn>>, JsonRejection>,
) -> Response {
    let Ok(axum::Json(Object(request))) = request else {
        return failure(StatusCode::BAD_REQUEST, "format", "send {\"code\": \"...\"} as application/json");
    };
    if !site.gate.key.borrow().issues() {
        let reason = "this bridge takes tokens of its trusted issuers alone: sign in there";
        return failure(StatusCode::FORBIDDEN, "not_issued", reason);
    }
    let now = site.gate.clock.now().wall;
    let from_this_machine = peer.is_some_and(|axum::Extension(ConnectInfo(peer))| peer.ip().is_loopback());
    let codes = site.codes.clone();
    // Codes of a state directory are files.
    let redeemed = tokio::task::spawn_blocking(move || codes.redeem(&request.code, from_this_machine, now)).await;
    let signed_in = match redeemed {
        Ok(Ok(signed_in)) => signed_in,
        Ok(Err(reason)) => {
            site.gate.metrics.sign_in_refused_total.add_one();
            warn!("a sign-in code was refused");
            manage::code_refused(&site, &reason);
            return failure(StatusCode::UNAUTHORIZED, "invalid_code", &reason);
        }
        Err(error) => return internal(&error),
    };
    let (iat, exp) = (now.as_secs(), now.as_secs() + SIGN_IN_SECONDS);
    let jti = random_bytes::<8>().map(|bytes| hex(&bytes)).ok();
    let role = signed_in.role;
    let claims = Claims { sub: signed_in.user, role, caps: None, jti, iat: Some(iat), nbf: None, exp };
    let issued = site.gate.key.borrow().issue(&claims);
    match issued {
        Ok(token) => {
            manage::code_taken(&site, &claims.sub, role);
            axum::Json(SignedIn {
                token: token.expose().to_owned(),
                expires_at: Wall(exp * 1000).to_string(),
                user_id: claims.sub,
                role: role.name(),
            })
            .into_response()
        }
        Err(error) => internal(&error),
    }
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> Response {
    warn!(%error, "a request failed");
    failure(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the bridge could not do this; its log says why")
}

pub(super) fn unauthorised(message: &str) -> Response {
    let mut response = failure(StatusCode::UNAUTHORIZED, "invalid_token", message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The token of a request, from its header or its subprotocols.
pub(super) fn token_of(headers: &HeaderMap) -> Option<&str> {
    bearer(headers).or_else(|| offer(headers).token)
}

/// Whose token the request has.
pub(super) fn signed_in(site: &Site, headers: &HeaderMap) -> Result<Rights, Box<Response>> {
    let Some(token) = bearer(headers) else {
        return Err(Box::new(unauthorised("send a token as `Authorization: Bearer`")));
    };
    check(site, token)
}

/// Whose token a request to do something has; it counts for that user like a message of the WebSocket.
pub(super) fn acting(site: &Site, headers: &HeaderMap) -> Result<Rights, Box<Response>> {
    let rights = signed_in(site, headers)?;
    let taken = site.gate.shared.users.take(&rights.user, site.gate.clock.now().mono);
    in_time(site, taken, "too many commands and messages of this user; see Retry-After").map(|()| rights)
}

/// Whose token a request has that reads what is stored or asks the pipeline; it counts for that user.
pub(super) fn reading(site: &Site, headers: &HeaderMap) -> Result<Rights, Box<Response>> {
    let rights = signed_in(site, headers)?;
    let taken = site.gate.shared.users.take_read(&rights.user, site.gate.clock.now().mono);
    in_time(site, taken, "this user reads too much at once; see Retry-After").map(|()| rights)
}

/// The refusal of what comes too soon.
fn in_time(site: &Site, taken: Result<(), Duration>, reason: &str) -> Result<(), Box<Response>> {
    taken.map_err(|wait| {
        site.gate.metrics.requests_limited_total.add_one();
        let mut response = failure(StatusCode::TOO_MANY_REQUESTS, "rate_limited", reason);
        // Whole seconds, rounded up.
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
        Box::new(response)
    })
}

pub(super) fn check(site: &Site, token: &str) -> Result<Rights, Box<Response>> {
    let now = site.gate.clock.now().wall;
    site.gate.check(token, now).map_err(|refused| {
        site.gate.metrics.sign_in_refused_total.add_one();
        warn!(reason = %refused, "a token was refused");
        site.gate.connections.token_refused(peer::address(), token, &refused.to_string());
        Box::new(unauthorised(&refused.to_string()))
    })
}

/// What the subprotocol header offers: the first form that we have, others that we do not; and a token.
pub(super) struct Offer<'a> {
    form: Option<Form>,
    others: bool,
    pub(super) token: Option<&'a str>,
}

pub(super) fn offer(headers: &HeaderMap) -> Offer<'_> {
    let mut offer = Offer { form: None, others: false, token: None };
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    for protocol in lists.flat_map(|list| list.split(',')).map(str::trim) {
        match protocol.strip_prefix("bearer.") {
            Some(token) => offer.token = Some(token),
            // The client names first what it likes best.
            None => match Form::of_protocol(protocol) {
                Some(form) => offer.form = offer.form.or(Some(form)),
                None => offer.others = true,
            },
        }
    }
    offer
}

/// Upgrades a request to a WebSocket and starts its session (RFC 6455, 4.2).
fn upgrade(site: &Site, defaults: &'static [&'static str], mut request: Request) -> Response {
    let headers = request.headers();
    let has = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .any(|list| list.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| strict::is_key(key.as_bytes()));
    let (Some(key), true, true) = (key, has(CONNECTION, "upgrade"), has(UPGRADE, "websocket")) else {
        return failure(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this address speaks WebSocket (RFC 6455)");
    };
    if !has(SEC_WEBSOCKET_VERSION, "13") {
        let mut response = failure(StatusCode::UPGRADE_REQUIRED, "upgrade_required", "this server speaks version 13");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let offer = offer(headers);
    if offer.others && offer.form.is_none() {
        let advice = "this server speaks vitals.v1.json, vitals.v1.cbor and vitals.v1.compact";
        return failure(StatusCode::BAD_REQUEST, "unsupported_protocol", advice);
    }
    let comer = match tokens::comer(site, bearer(headers).or(offer.token), request.uri()) {
        Ok(comer) => comer,
        Err(response) => return *response,
    };
    // Who has not signed in has few places.
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let waiting = match address
        .filter(|_| matches!(comer, Comer::Welcome(None)))
        .map(|address| site.gate.seats.wait_for_sign_in(address))
    {
        Some(None) => {
            site.gate.metrics.sessions_refused_total.add_one();
            return admission::full("too many connections of this address have not signed in");
        }
        Some(waiting) => waiting,
        None => None,
    };
    let connection_id = match random_bytes::<8>() {
        Ok(bytes) => hex(&bytes),
        Err(error) => return internal(&error),
    };
    let client = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
    let Some(visit) = site.gate.connections.open(connection_id.clone(), peer::address(), client) else {
        return manage::draining();
    };
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return internal(&"the WebSocket key has no answer");
    };
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let form = offer.form.unwrap_or_default();
    if offer.form.is_some() {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(form.protocol()));
    }
    let (gate, upgraded) = (Arc::clone(&site.gate), hyper::upgrade::on(&mut request));
    let slot = request.extensions().get::<Slot>().cloned();
    let by = request.extensions().get::<UpgradeBy>().copied();
    let by = by.map_or_else(|| accept::from_now(HANDSHAKE_DEADLINE), |UpgradeBy(by)| by);
    // In a box of its own: what the beginning needs is given back before the session waits.
    let upgraded = tokio::time::timeout_at(by, upgraded);
    let beginning = Box::pin(begin(upgraded, comer, gate, visit, waiting, Manner::new(defaults, form)));
    site.tasks.spawn(format!("session {connection_id}"), TaskRole::Helper, async move {
        if let Some(session) = beginning.await {
            session.await;
        }
        // The connection counts until its session ends.
        drop(slot);
        Ok(())
    });
    response
}

/// Waits for the upgrade: the session of who is welcome.
async fn begin(
    upgraded: Timeout<OnUpgrade>,
    comer: Comer,
    gate: Arc<Gate>,
    visit: Visit,
    waiting: Option<Waiting>,
    manner: Manner,
) -> Option<Pin<Box<impl Future<Output = ()> + Send>>> {
    match (upgraded.await, comer) {
        (Ok(Ok(stream)), Comer::Welcome(rights)) => {
            return Some(Box::pin(socket::run(TokioIo::new(stream), gate, visit, rights, waiting, manner)));
        }
        (Ok(Ok(stream)), Comer::Closed) => {
            visit.on_refused_before();
            tokens::close_refused(TokioIo::new(stream)).await;
        }
        (Ok(Err(error)), _) => debug!(%error, "the upgrade did not complete"),
        (Err(_), _) => debug!("the upgrade was not complete in time"),
    }
    None
}
