//! HTTP for Bluetooth devices: list, scan, pair, remove. Each change is in the audit trail with who asked for it.

use std::time::Duration;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::ble_job::{Desk, Order, Scribe, Terms, answer_to};
use super::object::Object;
use super::peer;
use super::routes::{Site, acting, failure, signed_in};
use crate::bluez::{BleAddress, Bluez, BluezError, Cause, Device, Named, Record};
use crate::event::AuditAction;
use crate::profile::Models;
use crate::server::auth::{Operation, Rights};

/// The channel whose rights decide: a token for some patients only has none on it.
const CHANNEL: &str = "devices";
/// Listening at most so long, in seconds.
const MAX_SECONDS: u64 = 600;
/// Listening so long for a scan, if the request does not say.
const SCAN_SECONDS: u64 = 15;
/// Listening so long for a device to pair with, if the request does not say.
const FIND_SECONDS: u64 = 30;

#[derive(Debug, Clone)]
struct Api {
    site: Site,
    desk: Desk,
}

/// The routes below `/api/v1/ble`.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/ble", get(radio))
        .route("/api/v1/ble/devices", get(devices))
        .route("/api/v1/ble/devices/{address}", delete(remove))
        .route("/api/v1/ble/scan", post(scan))
        .route("/api/v1/ble/pair", post(pair))
        .route("/api/v1/ble/job", get(job).delete(cancel))
        .route("/api/v1/ble/job/answer", post(answer))
        .with_state(Api { site, desk: Desk::default() })
}

/// Who asks, if he may.
fn may(api: &Api, headers: &HeaderMap, operation: Operation) -> Result<Rights, Box<Response>> {
    allowed(signed_in(&api.site, headers)?, operation)
}

/// Who asks to have something done, if he may.
fn may_act(api: &Api, headers: &HeaderMap) -> Result<Rights, Box<Response>> {
    allowed(acting(&api.site, headers)?, Operation::Command)
}

fn allowed(rights: Rights, operation: Operation) -> Result<Rights, Box<Response>> {
    if rights.scope(operation).allows(&[CHANNEL.to_owned()]) {
        return Ok(rights);
    }
    let advice =
        "this takes the right `cmd` on `devices` (`sub` to look): a clinician or admin who is not limited to patients";
    Err(Box::new(failure(StatusCode::FORBIDDEN, "forbidden", advice)))
}

fn failed(error: &BluezError) -> Response {
    let (status, code) = match error.cause {
        Cause::UnknownObject | Cause::NotHeard(..) => (StatusCode::NOT_FOUND, "unknown_device"),
        Cause::InProgress | Cause::AlreadyExists | Cause::Ambiguous(_) => (StatusCode::CONFLICT, "conflict"),
        Cause::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "bluetooth_timeout"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "bluetooth_unavailable"),
    };
    failure(status, code, &error.to_string())
}

/// The radio and each configured sensor: last seen, signal, battery, attempts, reason.
async fn radio(State(api): State<Api>, headers: HeaderMap) -> Response {
    match may(&api, &headers, Operation::Subscribe) {
        Ok(_) => axum::Json(api.site.air.borrow().clone()).into_response(),
        Err(refused) => *refused,
    }
}

/// Everything that BlueZ keeps, and what is near while somebody scans.
async fn devices(State(api): State<Api>, headers: HeaderMap) -> Response {
    if let Err(refused) = may(&api, &headers, Operation::Subscribe) {
        return *refused;
    }
    let listed = async { Bluez::connect().await?.devices(None).await };
    match listed.await {
        Ok(devices) => {
            let records: Vec<_> = devices.iter().map(|device| Record::of(device, &api.site.models)).collect();
            axum::Json(json!({"devices": records})).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn remove(State(api): State<Api>, headers: HeaderMap, Path(address): Path<String>) -> Response {
    let rights = match may_act(&api, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(address) = address.parse::<BleAddress>() else {
        return failure(StatusCode::BAD_REQUEST, "format", "name a device by its address, such as C0:FF:EE:00:00:01");
    };
    match forget(address, &api.site.models).await {
        Ok(removed) if removed.is_empty() => {
            failure(StatusCode::NOT_FOUND, "unknown_device", "BlueZ does not know this device")
        }
        Ok(removed) => {
            info!(user = %rights.user, role = %rights.role, %address, "a Bluetooth device was removed over the API");
            scribe(&api, &rights).write(AuditAction::BluetoothRemove, address.to_string(), None).await;
            axum::Json(json!({"removed": removed})).into_response()
        }
        Err(error) => {
            let reason = Some(error.to_string());
            scribe(&api, &rights).write(AuditAction::BluetoothRemove, address.to_string(), reason).await;
            failed(&error)
        }
    }
}

fn scribe(api: &Api, rights: &Rights) -> Scribe {
    Scribe { by: peer::actor(rights), control: api.site.gate.control.clone() }
}

/// Removes it from every adapter that knows it.
async fn forget(address: BleAddress, models: &Models) -> Result<Vec<Record>, BluezError> {
    let bluez = Bluez::connect().await?;
    let fits = |device: &Device| device.address == address || device.peer.address == address;
    let mut removed = vec![];
    for device in bluez.devices(None).await?.into_iter().filter(fits) {
        bluez.remove(&device.peer).await?;
        removed.push(Record::of(&device, models));
    }
    Ok(removed)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScanRequest {
    seconds: Option<u64>,
    adapter: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairRequest {
    /// Address or name.
    device: String,
    seconds: Option<u64>,
    adapter: Option<String>,
}

type Body<T> = Result<axum::Json<Object<T>>, JsonRejection>;

async fn scan(State(api): State<Api>, headers: HeaderMap, request: Body<ScanRequest>) -> Response {
    let rights = match may_act(&api, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(Object(ScanRequest { seconds, adapter }))) = request else {
        return failure(StatusCode::BAD_REQUEST, "format", "send {} or {\"seconds\": 15} as application/json");
    };
    let listening = Duration::from_secs(seconds.unwrap_or(SCAN_SECONDS).clamp(1, MAX_SECONDS));
    start(&api, &rights, Order::Scan, Terms { listening, adapter, models: api.site.models.clone() })
}

async fn pair(State(api): State<Api>, headers: HeaderMap, request: Body<PairRequest>) -> Response {
    let rights = match may_act(&api, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(Object(PairRequest { device, seconds, adapter }))) = request else {
        let advice = "send {\"device\": \"C0:FF:EE:00:00:0A\"} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    let named = device.parse::<BleAddress>().map_or(Named::Name(device), Named::Address);
    let listening = Duration::from_secs(seconds.unwrap_or(FIND_SECONDS).clamp(1, MAX_SECONDS));
    start(&api, &rights, Order::Pair(named), Terms { listening, adapter, models: api.site.models.clone() })
}

fn start(api: &Api, rights: &Rights, order: Order, terms: Terms) -> Response {
    let stop = api.site.gate.stop.child_token();
    let Some(view) = api.desk.start(order.clone(), terms, &api.site.tasks, scribe(api, rights), stop) else {
        let advice = "a scan or a pairing goes on; wait for it, or end it with DELETE /api/v1/ble/job";
        return failure(StatusCode::CONFLICT, "busy", advice);
    };
    match order {
        Order::Scan => {
            info!(user = %rights.user, role = %rights.role, "a Bluetooth scan was started over the API");
        }
        Order::Pair(device) => {
            info!(user = %rights.user, role = %rights.role, %device, "a Bluetooth pairing was started over the API");
        }
    }
    (StatusCode::ACCEPTED, axum::Json(view)).into_response()
}

fn no_job() -> Response {
    failure(StatusCode::NOT_FOUND, "no_job", "neither a scan nor a pairing was started")
}

async fn job(State(api): State<Api>, headers: HeaderMap) -> Response {
    if let Err(refused) = may(&api, &headers, Operation::Command) {
        return *refused;
    }
    api.desk.current().map_or_else(no_job, |current| axum::Json(current.view()).into_response())
}

async fn cancel(State(api): State<Api>, headers: HeaderMap) -> Response {
    let rights = match may(&api, &headers, Operation::Command) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Some(current) = api.desk.current() else { return no_job() };
    current.stop.cancel();
    info!(user = %rights.user, role = %rights.role, "a Bluetooth job was cancelled over the API");
    (StatusCode::ACCEPTED, axum::Json(current.view())).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerRequest {
    accept: Option<bool>,
    passkey: Option<String>,
}

async fn answer(State(api): State<Api>, headers: HeaderMap, request: Body<AnswerRequest>) -> Response {
    let rights = match may(&api, &headers, Operation::Command) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(Object(AnswerRequest { accept, passkey }))) = request else {
        let advice = "send {\"passkey\": \"004711\"} or {\"accept\": true} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    let Some(current) = api.desk.current() else { return no_job() };
    let answer = match answer_to(current.view().prompt.as_ref(), accept, passkey.as_deref()) {
        Ok(answer) => answer,
        Err(advice) => return failure(StatusCode::CONFLICT, "no_answer", advice),
    };
    if !current.answer(answer) {
        return failure(StatusCode::CONFLICT, "no_answer", "nothing is asked (any more)");
    }
    info!(user = %rights.user, role = %rights.role, "a Bluetooth pairing was answered over the API");
    (StatusCode::ACCEPTED, axum::Json(current.view())).into_response()
}
