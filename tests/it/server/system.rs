//! `/api/v1/system`: what the bridge says of itself, and to whom.

use serde_json::{Value as Json, json};
use vitalbridge::server::auth::{Capability, Operation};
use vitalbridge::server::jwt::Claims;
use vitalbridge::wire::{DiskNow, LogNow, StorageNow, UplinkNow};

use super::{Server, UserRole};

const PATH: &str = "/api/v1/system";

async fn read(server: &Server, claims: &Claims) -> Json {
    let answer = server.request(Some(claims), "GET", PATH).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn the_bridge_tells_its_time_its_disk_and_its_broker_and_null_for_what_nobody_knows() {
    let server = Server::start();
    let viewer = server.claims(UserRole::Viewer);
    let first = read(&server, &viewer).await;
    assert_eq!((&first["storage"], &first["uplink"]), (&Json::Null, &Json::Null), "{first}");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["epoch"], server.site.gate.shared.epoch.to_string());
    assert!(first["uptime_seconds"].is_u64() && first["timestamp"].is_string(), "{first}");

    let metrics = &server.site.gate.metrics;
    let disk = Some(DiskNow { used_bytes: 30, available_bytes: 70, used_percent: 30 });
    let log = Some(LogNow { used_bytes: 5, max_bytes: 10, full_in_seconds: None });
    let at = "2026-11-21T08:00:00.000Z".to_owned();
    metrics.storage.send_replace(Some(StorageNow { at: at.clone(), disk, log }));
    metrics.uplink.send_replace(Some(UplinkNow { since: Some(at.clone()), ..UplinkNow::default() }));
    let then = read(&server, &viewer).await;
    let expected = json!({
        "at": at, "disk": {"used_bytes": 30, "available_bytes": 70, "used_percent": 30},
        "log": {"used_bytes": 5, "max_bytes": 10, "full_in_seconds": null},
    });
    assert_eq!(then["storage"], expected);
    assert_eq!((&then["uplink"]["connected"], &then["uplink"]["since"]), (&json!(false), &json!(at)));
}

#[tokio::test]
async fn only_who_may_read_the_channel_system_is_told_and_addresses_are_for_administrators() {
    let server = Server::start();
    let reason = Some("cannot reach 10.0.0.7:8883".to_owned());
    server.site.gate.metrics.uplink.send_replace(Some(UplinkNow { reason: reason.clone(), ..UplinkNow::default() }));
    for (role, expected) in [
        (UserRole::Viewer, None),
        (UserRole::Nurse, None),
        (UserRole::Clinician, None),
        (UserRole::Service, None),
        (UserRole::Admin, reason),
    ] {
        let told = read(&server, &server.claims(role)).await;
        assert_eq!(told["uplink"]["reason"], json!(expected), "{role}");
    }
    let patient = "P-0001".parse().unwrap();
    let of_patient = Capability::of_patient(&patient, UserRole::Nurse);
    let elsewhere = Capability { channels: vec!["patient/#".to_owned()], ..of_patient.clone() };
    let live_only = Capability { allow: vec![Operation::Subscribe], ..of_patient.clone() };
    for (capability, expected) in [(of_patient, 200), (elsewhere, 403), (live_only, 403)] {
        let claims = Claims { caps: Some(vec![capability.clone()]), ..server.claims(UserRole::Nurse) };
        assert_eq!(server.request(Some(&claims), "GET", PATH).await.status, expected, "{capability:?}");
    }
    assert_eq!(server.request(None, "GET", PATH).await.status, 401);
    let nurse = server.claims(UserRole::Nurse);
    assert_eq!(server.request(Some(&nurse), "GET", &format!("{PATH}?patient=P-0001")).await.status, 400);
}
