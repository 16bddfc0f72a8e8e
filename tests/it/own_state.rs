//! What a real bridge tells of itself: how full its disk is, how large its log, and whether it has a broker and reaches it.
#![cfg(test)]

use std::time::Duration;

use serde_json::Value as Json;

use crate::backlog::get;
use crate::bridge::{Bridge, eventually};
use crate::ward::Ward;

const LIMIT: Duration = Duration::from_mins(1);

/// The answer once it is as wanted.
async fn told(ward: &Ward, bridge: &Bridge, role: &str, is_wanted: impl Fn(&Json) -> bool) -> Json {
    let token = ward.token(role, &["--role", role]);
    let look = || {
        let answer: Json = serde_json::from_str(&get(&bridge.address, &token, "/api/v1/system")).unwrap();
        is_wanted(&answer).then_some(answer)
    };
    eventually("the bridge tells of itself", LIMIT, look).await
}

#[tokio::test]
async fn a_bridge_without_a_broker_tells_its_disk_and_its_log() {
    let ward = Ward::new();
    let bridge = ward.start();
    let answer = told(&ward, &bridge, "viewer", |answer| answer["storage"]["disk"].is_object()).await;
    let disk = &answer["storage"]["disk"];
    let bytes = |name: &str| disk[name].as_u64().unwrap();
    assert!(bytes("used_bytes") > 0 && bytes("available_bytes") > 0 && bytes("used_percent") <= 100, "{answer}");
    let log = &answer["storage"]["log"];
    assert!(log["used_bytes"].as_u64().unwrap() < log["max_bytes"].as_u64().unwrap(), "{answer}");
    assert_eq!(log["full_in_seconds"], Json::Null, "a run of seconds says nothing of how fast it grows: {answer}");
    assert_eq!(answer["uplink"], Json::Null, "none is configured: {answer}");
    bridge.kill();
}

#[tokio::test]
async fn a_broker_that_is_configured_and_was_never_reached_is_told_from_none() {
    let ward = Ward::new();
    // A port on which nobody listens: it was bound a moment ago and is free again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    ward.configure(&format!("[mqtt]\nbroker = \"mqtt://127.0.0.1:{port}\"\n"));
    let bridge = ward.start();
    let answer = told(&ward, &bridge, "admin", |answer| answer["uplink"]["reason"].is_string()).await;
    assert_eq!((&answer["uplink"]["connected"], &answer["uplink"]["since"]), (&Json::Bool(false), &Json::Null));
    let viewed = told(&ward, &bridge, "viewer", |answer| answer["uplink"].is_object()).await;
    assert_eq!(viewed["uplink"]["reason"], Json::Null, "{viewed}");
    bridge.kill();
}
