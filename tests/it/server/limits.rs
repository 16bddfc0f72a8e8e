//! Limits changed by people while the bridge runs, over the WebSocket and HTTP; and the audit trail of what people do.

use serde_json::{Value as Json, json};
use vitalbridge::clock::{Clock, Wall};
use vitalbridge::server::auth::Capability;
use vitalbridge::vitals::Metric;

use super::{Dashboard, HOST, Server, UserRole, patients};

/// After the end of any run of these tests, and not longer than a person may ask for.
fn later() -> String {
    let now = Clock::System.now().wall;
    Wall(now.0 + 20 * 3_600_000).to_string()
}

impl Server {
    /// One request with a role's token: the status and the answer.
    pub(super) async fn ask(&self, role: UserRole, method: &str, path: &str, body: &str) -> (String, Json) {
        let token = self.token(&self.claims(role));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.http(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let json = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        (head.split(' ').nth(1).unwrap().to_owned(), json)
    }

    /// The rows of the audit trail, the newest first, as `who action object result`.
    async fn audit(&self) -> Vec<String> {
        let (status, page) = self.ask(UserRole::Admin, "GET", "/api/v1/audit", "").await;
        assert_eq!(status, "200", "{page}");
        let text = |row: &Json| {
            let data = &row["data"];
            let words = ["by", "action", "object", "result"].map(|name| data[name].as_str().unwrap().to_owned());
            words.join(" ")
        };
        page["rows"].as_array().unwrap().iter().map(text).collect()
    }
}

fn set(patient: &str) -> Json {
    json!({"type": "command", "correlation_id": "c1", "name": "limits.set", "patient_id": patient, "rule": "spo2_low",
           "below": 86, "clear": {"at_least": 87}, "delay": "20s", "reason": "COPD", "expires": later()})
}

/// The `result` and the `limits_changed` of a command, which come in either order.
async fn answer_and_change(dashboard: &mut Dashboard) -> (Json, Json) {
    let (mut result, mut change) = (None, None);
    while result.is_none() || change.is_none() {
        let message = dashboard.next().await;
        match message["type"].as_str() {
            Some("result") => result = Some(message),
            Some("limits_changed") => change = Some(message),
            _ => {}
        }
    }
    (result.unwrap(), change.unwrap())
}

#[tokio::test]
async fn limits_set_by_command_hold_at_once_and_everybody_who_watches_is_told() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut by_patient = server.signed_in(&server.claims(UserRole::Viewer)).await;
    by_patient.say(&json!({"type": "subscribe", "channels": [format!("patient/{patient}/+")]})).await;
    by_patient.next_of("snapshot").await;
    let mut clinician = server.signed_in(&server.claims(UserRole::Clinician)).await;
    clinician.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    clinician.next_of("snapshot").await;
    clinician.say(&set(&patient)).await;
    let (result, change) = answer_and_change(&mut clinician).await;
    let data = &change["data"];
    assert_eq!(
        (&data["action"], &data["before"], &data["after"], &data["by"], &data["reason"], &data["alarm_off"]),
        (
            &json!("set"),
            &json!("below 90 % for 15 s"),
            &json!("below 86 % for 20 s"),
            &json!("7"),
            &json!("COPD"),
            &json!(false)
        ),
        "{change}"
    );
    assert_eq!(change["channel"], format!("alerts/{patient}"));
    assert_eq!((&result["data"]["ok"], &result["data"]["durable"]), (&json!(true), &json!(true)), "{result}");
    assert_eq!(by_patient.next_of("limits_changed").await["seq"], change["seq"]);

    let (status, limit) =
        server.ask(UserRole::Viewer, "GET", &format!("/api/v1/patients/{patient}/limits/spo2_low"), "").await;
    assert_eq!(status, "200");
    assert_eq!((&limit["source"], &limit["summary"]), (&json!("runtime"), &json!("below 86 % for 20 s")), "{limit}");
    assert_eq!((&limit["decision"]["by"], &limit["decision"]["reason"]), (&json!("7"), &json!("COPD")));
    // Who comes later sees it in the snapshot.
    let mut later = server.signed_in(&server.claims(UserRole::Viewer)).await;
    later.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    let snapshot = later.next_of("snapshot").await;
    assert_eq!(snapshot["data"]["limits"][0]["rule"], "spo2_low", "{snapshot}");
    assert_eq!(server.audit().await[0], "7 limits_set spo2_low done");

    // 70 % is low by any limit: the alert starts with the limit in force.
    let (status, _) = server
        .ask(
            UserRole::Clinician,
            "PUT",
            &format!("/api/v1/patients/{patient}/limits/spo2_desat"),
            &json!({"enabled": false, "until": self::later(), "reason": "probe is being changed"}).to_string(),
        )
        .await;
    assert_eq!(status, "200");
    let off = clinician.next_of("limits_changed").await;
    assert_eq!((&off["data"]["action"], &off["data"]["alarm_off"]), (&json!("disabled"), &json!(true)), "{off}");
    server.reading(&patient, Metric::Spo2, 70).await;
    let (status, _) = server
        .ask(
            UserRole::Clinician,
            "PUT",
            &format!("/api/v1/patients/{patient}/limits/spo2_desat"),
            &json!({"enabled": true, "reason": "probe sits"}).to_string(),
        )
        .await;
    assert_eq!(status, "200");
    assert_eq!(clinician.next_of("limits_changed").await["data"]["action"], "enabled");
    let alert = clinician.next_of("alert").await;
    assert_eq!((&alert["data"]["rule"], &alert["data"]["change"]), (&json!("spo2_desat"), &json!("start")), "{alert}");

    let path = format!("/api/v1/patients/{patient}/limits/spo2_low");
    let (status, why) = server.ask(UserRole::Clinician, "DELETE", &path, "").await;
    assert_eq!((status.as_str(), &why["code"]), ("400", &json!("validation")), "{why}");
    let (status, _) = server.ask(UserRole::Clinician, "DELETE", &format!("{path}?reason=over"), "").await;
    assert_eq!(status, "200");
    let (_, limit) = server.ask(UserRole::Viewer, "GET", &path, "").await;
    assert_eq!((&limit["source"], &limit["decision"]), (&json!("built_in"), &json!(null)), "{limit}");
    assert_eq!(
        server.audit().await,
        [
            "7 limits_clear spo2_low done",
            "7 limits_clear spo2_low refused",
            "7 rule_enable spo2_desat done",
            "7 rule_disable spo2_desat done",
            "7 limits_set spo2_low done",
        ]
    );
}

#[tokio::test]
async fn a_change_that_is_not_allowed_or_not_right_is_refused_with_every_reason_and_a_row() {
    let server = Server::start();
    let all = patients(&server);
    let path = format!("/api/v1/patients/{}/limits/spo2_low", all[0]);
    let good = json!({"below": 86, "reason": "COPD", "expires": later()}).to_string();
    let bad = json!({"when": {"below": 0}, "clear": {"at_least": 200}, "expires": "2020-01-01T00:00:00Z"}).to_string();
    let clinician = UserRole::Clinician;
    for (role, path, body, status, words) in [
        (UserRole::Viewer, path.as_str(), &good, "403", &["your role does not allow this"][..]),
        (UserRole::Nurse, &path, &good, "403", &["your role does not allow this"]),
        (
            clinician,
            &path,
            &bad,
            "400",
            &["`reason` is 1 to", "`expires` is over already", "the limit 0 is outside", "clear 200 is outside"],
        ),
        (clinician, "/api/v1/patients/P-none/limits/spo2_low", &good, "404", &["no patient P-none"]),
        (clinician, "/api/v1/patients/a%20b/limits/spo2_low", &good, "400", &["`patient_id` is not the id"]),
        (clinician, &path.replace("spo2_low", "nothing"), &good, "400", &["`nothing` is no rule"]),
        (clinician, &path, &"[]".to_owned(), "400", &["send {"]),
        (clinician, &path, &r#"{"enabled": 3}"#.to_owned(), "400", &["`enabled` is true or false"]),
    ] {
        let (found, answer) = server.ask(role, "PUT", path, body).await;
        assert_eq!(found, status, "{role} {path} {body}: {answer}");
        for word in words {
            assert!(answer["message"].as_str().unwrap().contains(word), "{word}: {answer}");
        }
    }
    let (status, _) = server.ask(UserRole::Viewer, "GET", "/api/v1/patients/P-none/limits", "").await;
    assert_eq!(status, "404");
    let (status, page) = server.ask(UserRole::Viewer, "GET", &format!("/api/v1/patients/{}/limits", all[0]), "").await;
    assert_eq!((status.as_str(), page["limits"].as_array().unwrap().len() > 20), ("200", true));

    // A token for one patient changes nothing of another.
    let mut claims = server.claims(clinician);
    claims.caps = Some(vec![Capability::of_patient(&all[1].parse().unwrap(), clinician)]);
    let mut narrow = server.signed_in(&claims).await;
    narrow.say(&set(&all[0])).await;
    let refused = narrow.next_of("result").await;
    assert_eq!(
        (&refused["data"]["ok"], &refused["data"]["code"]),
        (&json!(false), &json!("permission_denied")),
        "{refused}"
    );
    narrow.say(&set(&all[1])).await;
    assert_eq!(narrow.next_of("result").await["data"]["ok"], true);

    let rows = server.audit().await;
    let refused = |row: &&String| row.as_str() == "7 limits_set spo2_low refused";
    assert_eq!((rows[0].as_str(), rows.iter().filter(refused).count()), ("7 limits_set spo2_low done", 5), "{rows:?}");
}

#[tokio::test]
async fn who_did_what_with_an_alert_is_in_the_audit_page_by_page() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let mut nurse = server.signed_in(&server.claims(UserRole::Nurse)).await;
    nurse.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    nurse.next_of("snapshot").await;
    server.reading(&patient, Metric::Spo2, 70).await;
    let alert = nurse.next_of("alert").await;
    let id = alert["data"]["alert_id"].as_str().unwrap().to_owned();
    for (name, more) in [
        ("alert.reset", json!({})),
        ("alert.pause_audio", json!({"seconds": 30})),
        ("alert.acknowledge", json!({"expected_seq": alert["seq"].as_u64().unwrap() - 1})),
        ("alert.acknowledge", json!({"expected_seq": alert["seq"]})),
    ] {
        let mut body = json!({"name": name, "alert_id": id});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.ask(UserRole::Nurse, "POST", "/api/v1/commands", &body.to_string()).await;
    }
    let expected = [
        format!("7 alert_acknowledge {id} done"),
        format!("7 alert_acknowledge {id} refused"),
        format!("7 alert_pause_audio {id} done"),
        format!("7 alert_reset {id} refused"),
    ];
    assert_eq!(server.audit().await, expected);

    let (mut found, mut before) = (Vec::new(), String::new());
    for page in 0..4 {
        let path = format!("/api/v1/audit?limit=1&patient={patient}{before}");
        let (status, answer) = server.ask(UserRole::Viewer, "GET", &path, "").await;
        assert_eq!((status.as_str(), answer["rows"].as_array().unwrap().len()), ("200", 1), "{page}: {answer}");
        found.push(answer["rows"][0]["seq"].as_u64().unwrap());
        before = format!("&before={}", answer["next"]);
    }
    assert!(found.is_sorted_by(|newer, older| newer > older), "{found:?}");
    let (_, end) = server.ask(UserRole::Viewer, "GET", &format!("/api/v1/audit?limit=1{before}"), "").await;
    assert_eq!(end, json!({"rows": [], "next": null}));
    let (status, _) = server.ask(UserRole::Viewer, "GET", "/api/v1/audit?limit=many", "").await;
    assert_eq!(status, "400");
    // Who may see one patient sees what was done for that one.
    let mut claims = server.claims(UserRole::Viewer);
    claims.caps = Some(vec![Capability::of_patient(&patient.parse().unwrap(), UserRole::Viewer)]);
    let token = server.token(&claims);
    let request = format!(
        "GET /api/v1/audit HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let answer = server.http(&request).await;
    assert!(answer.contains(r#""rows":[]"#), "the trail is on the channel `audit`, which this token has not: {answer}");
}

#[tokio::test]
async fn who_asks_again_and_again_is_told_to_wait_and_does_not_fill_the_audit_trail() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let body = set(&patient).to_string();
    let mut refused = 0;
    let limited = loop {
        let (status, answer) = server.ask(UserRole::Viewer, "POST", "/api/v1/commands", &body).await;
        match status.as_str() {
            "403" => refused += 1,
            _ => break (status, answer),
        }
        assert!(refused < 1000, "a viewer asked a thousand times");
    };
    assert!(refused >= 50, "{refused}");
    assert_eq!((limited.0.as_str(), &limited.1["code"]), ("429", &json!("rate_limited")), "{limited:?}");
    // The whole user is, with every address that does something; reading goes on.
    let token = server.token(&server.claims(UserRole::Clinician));
    let request = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {token}\r\ncontent-length: 2\r\n\r\n{{}}"
        )
    };
    let mut waits = 0;
    for (method, path) in [
        ("PUT", format!("/api/v1/patients/{patient}/limits/spo2_low")),
        ("POST", format!("/api/v1/patients/{patient}/observations")),
        ("POST", "/api/v1/notifications".to_owned()),
        ("PUT", "/api/v1/users/me/preferences".to_owned()),
    ] {
        // One may come after 0.6 s, also on a slow machine: the next one is refused again.
        for _ in 0..100 {
            let answer = server.http(&request(method, &path)).await;
            if answer.starts_with("HTTP/1.1 429") {
                assert!(answer.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{answer}");
                waits += 1;
                break;
            }
        }
    }
    assert_eq!(waits, 4);
    let rows = server.audit().await;
    let rows = rows.iter().filter(|row| row.contains("limits_set") && row.ends_with("refused")).count();
    assert_eq!(rows, 10, "the others are counted");
}
