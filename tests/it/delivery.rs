//! Whether alerts reach anybody, with the whole daemon: receipts, the local fallback, escalation, restarts and kills.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::bridge::{Bridge, eventually, now, token};
use crate::dashboard::Dashboard;

/// Ten minutes of a saturation that alarms at once with priority high.
const DESATURATED: &str = "t_s,spo2\n0,70\n600,70\n";

/// How long things may take beside their own times, on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

/// An alert, also one that a route or a time limit has to bring, comes within this time.
const ALERT_LIMIT: Duration = Duration::from_secs(90);

/// A daemon's files.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// A bed whose patient desaturates from the start on; `alerts` is the configuration's section.
    fn new(alerts: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("numerics.csv"), DESATURATED).unwrap();
        std::fs::write(dir.path().join("line"), "?").unwrap();
        let config = format!(
            "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n{alerts}\n\
             [[patient]]\nid = 'P-1'\nbed = 'bed 3'\n\
             [[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\nmode = 'test'\n"
        );
        std::fs::write(dir.path().join("vitalbridge.toml"), config).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> Bridge {
        Bridge::start(&["run", "--config", self.path("vitalbridge.toml").to_str().unwrap()])
    }

    async fn until_file(&self, name: &str, accept: impl Fn(&str) -> bool) -> String {
        let path = self.path(name);
        let read = || std::fs::read_to_string(&path).ok().filter(|text| accept(text));
        eventually(&format!("{name} as it should be"), SLACK, read).await
    }

    /// A signed-in dashboard that has its snapshot; `annunciates`: it says that it shows alerts.
    async fn watch(&self, bridge: &Bridge, annunciates: bool) -> (Dashboard, Vec<Json>) {
        let token = token(&self.path("state"), &["--role", "admin", "--user", "anna"]);
        let bearer = format!("Bearer {token}");
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
        let channels = json!(["alerts/+", "audit", "notifications/+", "system"]);
        dashboard.say(&json!({"type": "subscribe", "channels": channels, "annunciator": annunciates})).await;
        let snapshot = dashboard.next_of("snapshot").await;
        (dashboard, snapshot["data"]["alerts"].as_array().unwrap().clone())
    }
}

/// Waits for an alert, in the snapshot or after it, that `accept` takes; gives its newest state.
async fn alert(dashboard: &mut Dashboard, known: &[Json], accept: impl Fn(&Json) -> bool) -> Json {
    if let Some(found) = known.iter().find(|alert| accept(alert)) {
        return found.clone();
    }
    let deadline = now() + ALERT_LIMIT;
    loop {
        // Heartbeats come for ever; an alert does not.
        assert!(now() < deadline, "no such alert within {ALERT_LIMIT:?}");
        let frame = dashboard.next().await;
        if frame["type"] != "alert" {
            continue;
        }
        let mut alert = frame["data"].clone();
        alert["seq"] = frame["seq"].clone();
        if accept(&alert) {
            return alert;
        }
    }
}

fn of_rule(rule: &str) -> impl Fn(&Json) -> bool {
    move |alert| alert["rule"] == rule && alert["change"] != "end"
}

async fn shown(dashboard: &mut Dashboard, state: &str, alerts: &[&Json]) {
    let alerts: Vec<Json> =
        alerts.iter().map(|alert| json!({"alert_id": alert["alert_id"], "seq": alert["seq"]})).collect();
    dashboard.say(&json!({"type": "alert_receipt", "state": state, "alerts": alerts})).await;
}

/// The next self-check, and what it says about one alert.
async fn checked(dashboard: &mut Dashboard, alert: &Json) -> (Json, Json) {
    let check = dashboard.next_of("alert_system").await["data"].clone();
    let alerts = check["alerts"].as_array().unwrap().iter();
    let found = alerts.clone().find(|it| it["alert_id"] == alert["alert_id"]).cloned();
    (check, found.unwrap_or_default())
}

const LINE: &str = "[alerts.fallback]\nline = 'line'\non = 'on'\noff = 'off'";

#[tokio::test]
async fn an_alert_that_nobody_shows_calls_the_fallback_until_somebody_does() {
    let home = Home::new(LINE);
    let bridge = home.start();
    // Nobody is there at all.
    home.until_file("line", |text| text == "on").await;
    let (mut dashboard, known) = home.watch(&bridge, true).await;
    let desaturated = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
    let about = alert(&mut dashboard, &known, of_rule("alert_undelivered")).await;
    let id = desaturated["alert_id"].as_str().unwrap();
    assert_eq!((&about["priority"], &about["patient_id"]), (&json!("high"), &Json::Null), "{about}");
    assert!(about["message"].as_str().unwrap().contains(id), "{about}");
    let (check, state) = checked(&mut dashboard, &desaturated).await;
    assert_eq!(
        (&state["delivery"], &check["undelivered"], &check["annunciators"]),
        (&json!("undelivered"), &json!(1), &json!(1))
    );
    let (_, about_itself) = checked(&mut dashboard, &about).await;
    assert_eq!(about_itself["delivery"], Json::Null, "it never stands for itself");

    // It has come, and is not on the screen: that changes nothing.
    shown(&mut dashboard, "delivered", &[&desaturated]).await;
    let (check, _) = checked(&mut dashboard, &desaturated).await;
    assert_eq!(check["undelivered"], 1);
    shown(&mut dashboard, "shown", &[&desaturated]).await;
    let over =
        alert(&mut dashboard, &[], |alert| alert["rule"] == "alert_undelivered" && alert["change"] == "end").await;
    assert_eq!(over["alert_id"], about["alert_id"]);
    home.until_file("line", |text| text == "off").await;
    let (check, state) = checked(&mut dashboard, &desaturated).await;
    assert_eq!(
        (&state["delivery"], &check["undelivered"], &check["notice"]),
        (&json!("shown"), &json!(0), &Json::Null)
    );

    // The only screen goes: the alert that still stands is shown nowhere again.
    drop(dashboard);
    home.until_file("line", |text| text == "on").await;
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn a_kill_changes_no_alert_and_what_began_in_the_last_moment_begins_again() {
    let home = Home::new(LINE);
    let bridge = home.start();
    let (mut dashboard, known) = home.watch(&bridge, false).await;
    let before = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
    let about = alert(&mut dashboard, &known, of_rule("alert_undelivered")).await;
    // The moment in which it is told: whether it has reached the disk is a matter of luck.
    bridge.kill();
    let bridge = home.start();
    let (mut dashboard, known) = home.watch(&bridge, false).await;
    // It stands from the first moment on, before any reading, with its id.
    let after = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
    assert_eq!((&after["alert_id"], &after["onset"]), (&before["alert_id"], &before["onset"]));
    let again =
        alert(&mut dashboard, &known, |alert| of_rule("spo2_desat")(alert) && alert["condition"]["presence"] == "true");
    assert_eq!(again.await["alert_id"], before["alert_id"]);
    let about_again = alert(&mut dashboard, &known, of_rule("alert_undelivered")).await;
    let message = about_again["message"].as_str().unwrap();
    assert!(message.contains(before["alert_id"].as_str().unwrap()), "{message}; before: {about}");

    // The first moment of an alert's life, many times: there is always one afterwards, whatever the disk had.
    bridge.kill();
    for round in 0..3 {
        let home = Home::new("");
        let bridge = home.start();
        let (mut dashboard, known) = home.watch(&bridge, false).await;
        alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
        bridge.kill();
        let bridge = home.start();
        let (mut dashboard, known) = home.watch(&bridge, false).await;
        let found = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
        let others =
            known.iter().filter(|alert| of_rule("spo2_desat")(alert) && alert["alert_id"] != found["alert_id"]);
        assert_eq!(others.count(), 0, "round {round}: one episode, one alert");
    }
}

#[tokio::test]
async fn without_annunciators_it_is_said_all_the_time() {
    let home = Home::new("[alerts]\nannunciators = 'none'");
    let bridge = home.start();
    let (mut dashboard, known) = home.watch(&bridge, false).await;
    let desaturated = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
    // More than the five seconds within which it would have to be shown.
    let mut checks = Vec::new();
    while checks.len() < 2 {
        let frame = dashboard.next().await;
        assert_ne!(frame["data"]["rule"], "alert_undelivered", "{frame}");
        if frame["type"] == "alert_system" {
            checks.push(frame["data"].clone());
        }
    }
    let first = checks[0]["self_check"].as_u64().unwrap();
    assert_eq!(checks[1]["self_check"], first + 1);
    for check in checks {
        let said = check["notice"].as_str().unwrap();
        assert!(said.starts_with("Delivery of alerts is not confirmed"), "{said}");
        let ids: Vec<&Json> = check["alerts"].as_array().unwrap().iter().map(|alert| &alert["alert_id"]).collect();
        assert_eq!(ids, [&desaturated["alert_id"]]);
    }
}

#[tokio::test]
async fn an_alert_that_nobody_acknowledges_goes_further_once_also_over_a_restart() {
    let route = |after: &str, to: &str| format!("[[alerts.escalation]]\nafter = '{after}'\nto = [{to}]\n");
    let (first, second) = (route("10s", "'user:anna', 'fallback'"), route("30s", "'role:clinician'"));
    let home = Home::new(&format!("[alerts]\nannunciators = 'none'\n{LINE}\n{first}{second}"));
    let bridge = home.start();
    let (mut dashboard, known) = home.watch(&bridge, false).await;
    let begun = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
    assert_eq!(begun["escalated"], Json::Null);
    let marked = alert(&mut dashboard, &[], |alert| alert["escalated"] == json!([1])).await;
    assert_eq!((&marked["alert_id"], &marked["change"]), (&begun["alert_id"], &json!("update")));
    let audit = dashboard.next_of("audit").await["data"].clone();
    assert_eq!(
        (&audit["action"], &audit["object"], &audit["by"]),
        (&json!("alert_escalated"), &begun["alert_id"], &json!("bridge"))
    );
    assert_eq!(audit["reason"], "not acknowledged for 10 s: to user:anna, fallback");
    let notification = dashboard.next_of("notification").await["notification"].clone();
    assert_eq!(
        (&notification["type"], &notification["priority"]),
        (&json!("health_alert"), &json!("high")),
        "{notification}"
    );
    home.until_file("line", |text| text == "on").await;

    bridge.kill();
    let bridge = home.start();
    let (mut dashboard, known) = home.watch(&bridge, false).await;
    let after = alert(&mut dashboard, &known, of_rule("spo2_desat")).await;
    assert_eq!((&after["alert_id"], &after["escalated"]), (&begun["alert_id"], &json!([1])));
    // The second route, and not the first one again.
    let marked = alert(&mut dashboard, &known, |alert| alert["escalated"] == json!([1, 2])).await;
    let audit = dashboard.next_of("audit").await["data"].clone();
    // Nobody of that role was ever here.
    assert_eq!(audit["reason"], "not acknowledged for 30 s: to role:clinician: reaches nobody");
    assert_eq!(audit["result"], "failed");
    let data = json!({"name": "alert.acknowledge", "alert_id": marked["alert_id"], "expected_seq": marked["seq"]});
    dashboard.say(&json!({"type": "command", "data": data})).await;
    let known = alert(&mut dashboard, &[], |alert| alert["change"] == "acknowledge").await;
    assert_eq!(known["escalated"], Json::Null, "who knows is asked anew by the reminder");
    home.until_file("line", |text| text == "off").await;
}

#[tokio::test]
async fn a_fallback_that_does_not_work_is_known_before_it_is_needed() {
    let home = Home::new("[alerts.fallback]\ncommand = ['/nowhere/alarm']");
    std::fs::write(home.path("numerics.csv"), DESATURATED.replace("70", "97")).unwrap();
    let bridge = home.start();
    let (mut dashboard, known) = home.watch(&bridge, true).await;
    let broken = alert(&mut dashboard, &known, of_rule("fallback_failed")).await;
    assert_eq!((&broken["priority"], &broken["kind"]), (&json!("medium"), &json!("technical")));
}

#[tokio::test]
async fn a_receipt_before_a_subscribe_and_one_of_another_run_confirm_nothing() {
    let home = Home::new("");
    let bridge = home.start();
    let token = token(&home.path("state"), &["--role", "viewer", "--user", "7"]);
    let bearer = format!("Bearer {token}");
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    let (mut other, known) = home.watch(&bridge, false).await;
    let desaturated = alert(&mut other, &known, of_rule("spo2_desat")).await;
    shown(&mut dashboard, "shown", &[&desaturated]).await;
    assert_eq!(dashboard.next_of("error").await["data"]["code"], "validation");
    let stale = json!({"alert_id": desaturated["alert_id"], "seq": desaturated["seq"]});
    other.say(&json!({"type": "alert_receipt", "state": "shown", "epoch": "elsewhere", "alerts": [stale]})).await;
    let early = json!({"alert_id": desaturated["alert_id"], "seq": 0});
    other.say(&json!({"type": "alert_receipt", "state": "shown", "alerts": [early]})).await;
    alert(&mut other, &known, of_rule("alert_undelivered")).await;
}

/// The example in the documentation is a configuration that works.
#[test]
fn the_documented_section_is_valid() {
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.md")).unwrap();
    let example = docs.split("```toml").find(|block| block.contains("[alerts.fallback]"));
    let example = example.and_then(|block| block.split("```").next()).expect("an example of [alerts.fallback]");
    let parsed = vitalbridge::config::Config::parse(
        example,
        Path::new("/etc/vitalbridge"),
        &vitalbridge::config::Place::default(),
    );
    assert!(parsed.is_ok(), "{parsed:?}");
}
