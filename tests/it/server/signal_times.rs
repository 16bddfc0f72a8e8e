//! From what age a number is old and gone travels with the numbers, for each patient and metric as its rule has it now.

use serde_json::{Value as Json, json};
use vitalbridge::server::auth::Capability;
use vitalbridge::server::jwt::Claims;
use vitalbridge::vitals::Metric;

use super::{Server, UserRole, limits::later, patients};

async fn snapshot(server: &Server, claims: &Claims) -> Json {
    let mut dashboard = server.signed_in(claims).await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
    dashboard.next_of("snapshot").await["data"].clone()
}

/// The ages of a metric, as a dashboard reads them out of a snapshot or of the latest readings.
fn ages(told: &Json, patient: &str, metric: &str) -> (u64, u64) {
    let is_it = |own: &&Json| {
        own["patient_id"] == patient && own["metrics"].as_array().unwrap().iter().any(|named| named == metric)
    };
    let own = told["signal_times"].as_array().unwrap().iter().find(is_it).unwrap_or(told);
    (own["stale_after_ms"].as_u64().unwrap(), own["lost_after_ms"].as_u64().unwrap())
}

#[tokio::test]
async fn a_patients_own_silence_is_told_with_the_next_snapshot_and_to_nobody_else() {
    let server = Server::start();
    let all = patients(&server);
    server.reading(&all[0], Metric::Spo2, 97).await;
    server.settled().await;
    let viewer = server.claims(UserRole::Viewer);
    let before = snapshot(&server, &viewer).await;
    assert_eq!((&before["signal_times"], ages(&before, &all[0], "spo2")), (&json!([]), (5000, 10_000)), "{before}");

    let path = format!("/api/v1/patients/{}/limits/no_signal", all[0]);
    let longer = json!({"when": {"no_valid_for": "40s"}, "reason": "sends every 30 s", "expires": later()});
    let (status, answer) = server.ask(UserRole::Clinician, "PUT", &path, &longer.to_string()).await;
    assert_eq!(status, "200", "{answer}");

    let told = snapshot(&server, &viewer).await;
    let latest = server.get("/api/v1/readings/latest").await;
    for told in [&told, &latest] {
        assert_eq!(ages(told, &all[0], "spo2"), (5000, 40_000), "{told}");
        assert_eq!(ages(told, &all[1], "spo2"), (5000, 10_000), "{told}");
    }
    let caps = Some(vec![Capability::of_patient(&all[1].parse().unwrap(), UserRole::Viewer)]);
    let narrow = snapshot(&server, &Claims { caps, ..viewer.clone() }).await;
    assert_eq!(narrow["signal_times"], json!([]), "of a patient whom this token does not show");

    let (status, _) = server.ask(UserRole::Clinician, "DELETE", &format!("{path}?reason=over"), "").await;
    assert_eq!((status.as_str(), &snapshot(&server, &viewer).await["signal_times"]), ("200", &json!([])));
}
