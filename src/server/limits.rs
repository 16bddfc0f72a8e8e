//! HTTP for limits: what is in force for a patient and who set it, and the commands that change it under addresses of
//! their own.

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use super::commands::carry_out_as_named;
use super::routes::{Site, acting, failure, reading};
use crate::alerts::EffectiveLimit;
use crate::channel::Operation;
use crate::command::{Command, Members};
use crate::ids::PatientId;
use crate::pipeline::{COMMAND_DEADLINE, Control};
use crate::server::auth::Rights;

/// `/api/v1/patients/{id}/limits` and one rule below it.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/patients/{id}/limits", get(all))
        .route("/api/v1/patients/{id}/limits/{rule}", get(one).put(set).delete(clear))
        .with_state(site)
}

async fn all(State(site): State<Site>, headers: HeaderMap, Path(patient): Path<String>) -> Response {
    match limits(&site, &headers, &patient).await {
        Ok(limits) => {
            let limits: Vec<Json> = limits.iter().map(shown).collect();
            axum::Json(json!({"patient_id": patient, "limits": limits})).into_response()
        }
        Err(refused) => *refused,
    }
}

async fn one(State(site): State<Site>, headers: HeaderMap, Path(path): Path<(String, String)>) -> Response {
    let (patient, rule) = path;
    match limits(&site, &headers, &patient).await {
        Ok(limits) => match limits.iter().find(|limit| limit.rule.as_str() == rule) {
            Some(limit) => axum::Json(shown(limit)).into_response(),
            None => failure(StatusCode::NOT_FOUND, "unknown_rule", "there is no rule of this name"),
        },
        Err(refused) => *refused,
    }
}

/// A limit as `vitalbridge check --json` has it too.
fn shown(limit: &EffectiveLimit) -> Json {
    let mut json = json!(limit);
    if let Some(members) = json.as_object_mut() {
        members.insert("summary".to_owned(), limit.summary().into());
    }
    json
}

/// The limits of a patient whom the user may see.
async fn limits(site: &Site, headers: &HeaderMap, patient: &str) -> Result<Vec<EffectiveLimit>, Box<Response>> {
    let rights = reading(site, headers)?;
    let unknown = || Box::new(failure(StatusCode::NOT_FOUND, "unknown_patient", "there is no patient of this name"));
    let patient: PatientId = patient.parse().map_err(|_| unknown())?;
    if !sees(site, &rights, &patient) {
        let reason = "your role does not allow this for this patient";
        return Err(Box::new(failure(StatusCode::FORBIDDEN, "permission_denied", reason)));
    }
    let (reply, answer) = oneshot::channel();
    let asked = async {
        site.gate.control.send(Control::Limits(patient, reply)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(COMMAND_DEADLINE, asked).await {
        Ok(Some(Some(limits))) => Ok(limits),
        Ok(Some(None)) => Err(unknown()),
        Ok(None) | Err(_) => {
            let reason = "the bridge does not answer";
            Err(Box::new(failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason)))
        }
    }
}

fn sees(site: &Site, rights: &Rights, patient: &PatientId) -> bool {
    let own = [format!("alerts/{patient}"), format!("patient/{patient}/limits")];
    let known = site.gate.shared.patients.iter().find(|known| known.id == *patient);
    let inner = known.map(|known| own.clone().map(|route| format!("ward/{}/{route}", known.ward)));
    let routes: Vec<String> = own.into_iter().chain(inner.into_iter().flatten()).collect();
    rights.scope(Operation::Subscribe).allows(&routes)
}

/// `limits.set`; with `"enabled": false` `rule.disable` and with `true` `rule.enable`.
async fn set(
    State(site): State<Site>,
    headers: HeaderMap,
    Path(path): Path<(String, String)>,
    request: Result<axum::Json<Json>, JsonRejection>,
) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let Ok(axum::Json(Json::Object(mut members))) = request else {
        let advice = "send {\"below\": 86, \"reason\": \"...\", \"expires\": \"...\"} as application/json";
        return failure(StatusCode::BAD_REQUEST, "format", advice);
    };
    let name = match members.remove("enabled") {
        None => "limits.set",
        Some(Json::Bool(false)) => "rule.disable",
        Some(Json::Bool(true)) => "rule.enable",
        Some(_) => return failure(StatusCode::BAD_REQUEST, "validation", "`enabled` is true or false"),
    };
    change(&site, &headers, &rights, (name, path, members)).await
}

/// Why limits are taken back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    reason: String,
}

/// `limits.clear`, with the reason in the query: a body of DELETE does not reach every server.
async fn clear(
    State(site): State<Site>,
    headers: HeaderMap,
    Path(path): Path<(String, String)>,
    Query(why): Query<Why>,
) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let members = serde_json::Map::from_iter([("reason".to_owned(), why.reason.into())]);
    change(&site, &headers, &rights, ("limits.clear", path, members)).await
}

async fn change(
    site: &Site,
    headers: &HeaderMap,
    rights: &Rights,
    (name, (patient, rule), mut members): (&str, (String, String), serde_json::Map<String, Json>),
) -> Response {
    for (member, value) in [("name", name), ("patient_id", &patient), ("rule", &rule)] {
        members.insert(member.to_owned(), value.into());
    }
    let members = Json::Object(members);
    match Command::read(Members(&members)) {
        Ok(command) => carry_out_as_named(site, rights, command, (headers, Members(&members))).await,
        Err(bad) => failure(StatusCode::BAD_REQUEST, "validation", &bad.to_string()),
    }
}
