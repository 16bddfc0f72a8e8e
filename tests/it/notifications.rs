//! Messages for people through the real daemon: who was away gets each of them once, also over a power cut.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vitalbridge::clock::{Clock, Wall};
use vitalbridge::command::{Command, Members};
use vitalbridge::event::InboxChange;

use crate::bridge::{Bridge, now};
use crate::dashboard::Dashboard;
use crate::ward::Ward;

/// What must not keep a test waiting, however many heartbeats come meanwhile.
trait Soon {
    /// The next message of a type.
    async fn soon(&mut self, kind: &str) -> Json;
}

impl Soon for Dashboard {
    async fn soon(&mut self, kind: &str) -> Json {
        let next = tokio::time::timeout(LIMIT, self.next_of(kind)).await;
        next.unwrap_or_else(|_| panic!("no {kind} within {LIMIT:?}"))
    }
}

/// A message is awaited this long, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Somebody signed in, who has asked for what the address is for.
async fn listening(bridge: &Bridge, path: &str, token: &str, subscribe: &Json) -> Dashboard {
    let bearer = format!("Bearer {token}");
    let mut dashboard = Dashboard::connect(&bridge.address, path, &[("Authorization", &bearer)]).await.unwrap();
    dashboard.say(subscribe).await;
    dashboard.soon("snapshot").await;
    dashboard
}

async fn at_notifications(bridge: &Bridge, token: &str) -> Dashboard {
    listening(bridge, "/ws/notifications", token, &json!({"type": "subscribe"})).await
}

/// The notifications that come before the answer to a ping of the protocol. Reading on answers the pings of WebSocket.
async fn until_quiet(dashboard: &mut Dashboard) -> Vec<Json> {
    dashboard.say(&json!({"type": "ping", "id": "quiet"})).await;
    let mut messages = everything_until(dashboard, "pong").await;
    messages.retain(|message| message["type"] == "notification");
    messages
}

/// All messages up to the first of a type, that one included.
async fn everything_until(dashboard: &mut Dashboard, kind: &str) -> Vec<Json> {
    let mut messages = Vec::new();
    while messages.last().is_none_or(|last: &Json| last["type"] != kind) {
        messages.push(dashboard.next().await);
    }
    messages
}

fn ids(notifications: &[Json]) -> Vec<String> {
    notifications.iter().map(|it| it["notification"]["id"].as_str().unwrap().to_owned()).collect()
}

/// One request; the status and the JSON of the answer.
async fn http(bridge: &Bridge, method: &str, path: &str, token: &str, body: &Json) -> (u16, Json) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        bridge.address,
        body.len()
    );
    let mut stream = TcpStream::connect(&bridge.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn in_seconds(seconds: i64) -> String {
    Wall(Clock::System.now().wall.0 + seconds * 1000).to_string()
}

/// Waits until the bridge has written down on disk that a user has these messages. No client is told of that.
async fn delivered(state: &Path, user: &str, wanted: &BTreeSet<String>) {
    let database = rusqlite::Connection::open(state.join("vitals.db")).unwrap();
    let known = || {
        let mut rows = database.prepare("SELECT body FROM event WHERE kind = 'inbox'").unwrap();
        let bodies = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let changes = bodies.map(|body| serde_json::from_str::<InboxChange>(&body.unwrap()).unwrap());
        let ids = changes.filter_map(|change| match change {
            InboxChange::Delivered { user: who, ids } if who == user => Some(ids),
            _ => None,
        });
        ids.flatten().map(|id| id.to_string()).collect::<BTreeSet<_>>()
    };
    let all = async {
        while !wanted.is_subset(&known()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_to_somebody_who_was_away_arrives_once_through_power_cuts() {
    let ward = Ward::new();
    let bridge = ward.start();
    let (lena, otto) = (ward.token("7", &[]), ward.token("otto", &[]));
    let reminder = json!({"kind": "medication_reminder", "users": [7], "patient": "P-1", "title": "Metoprolol",
        "message": "47.5 mg", "priority": "medium", "correlation_id": "morning"});
    let (status, sent) = http(&bridge, "POST", "/api/v1/notifications", &otto, &reminder).await;
    assert_eq!((status, &sent["ok"], &sent["durable"]), (201, &json!(true), &json!(true)), "{sent}");
    let system = json!({"kind": "system", "users": ["7"], "title": "Update", "message": "At noon."});
    let (status, second) = http(&bridge, "POST", "/ws/publish", &otto, &system).await;
    assert_eq!(status, 201, "{second}");
    let gone =
        json!({"kind": "system", "users": ["7"], "title": "Coffee", "message": "Now.", "expires": in_seconds(1)});
    assert_eq!(http(&bridge, "POST", "/ws/publish", &otto, &gone).await.0, 201);
    let later = json!({"kind": "appointment_reminder", "users": ["7"], "title": "Visit", "message": "Bed 1.",
        "at": in_seconds(3), "correlation_id": "visit"});
    let (status, visit) = http(&bridge, "POST", "/api/v1/notifications", &otto, &later).await;
    assert_eq!(status, 201, "{visit}");
    bridge.kill();

    let bridge = ward.start();
    // The same request again is the same message.
    let (status, again) = http(&bridge, "POST", "/api/v1/notifications", &otto, &reminder).await;
    assert_eq!((status, &again["id"]), (201, &sent["id"]), "{again}");
    // What becomes of other people's messages is nobody's business: not on a channel of its own, not among all.
    let subscribe = json!({"type": "subscribe", "channels": ["#", "inbox"]});
    let mut curious = listening(&bridge, "/ws", &ward.token("admin", &["--role", "admin"]), &subscribe).await;
    let mut dashboard = at_notifications(&bridge, &lena).await;
    let mut came = Vec::new();
    // What waited, and the one whose time comes meanwhile.
    let wanted: BTreeSet<String> =
        [&sent, &second, &visit].map(|answer| answer["id"].as_str().unwrap().to_owned()).into();
    while !wanted.is_subset(&ids(&came).into_iter().collect()) {
        came.push(dashboard.soon("notification").await);
    }
    came.extend(until_quiet(&mut dashboard).await);
    let first = came.iter().find(|it| it["notification"]["id"] == sent["id"]).unwrap();
    assert_eq!(first["notification"], first["data"]);
    assert_eq!((&first["data"]["user_id"], &first["channel"]), (&json!(7), &json!("notifications/7")), "{first}");
    assert_eq!(
        (&first["data"]["type"], &first["data"]["from"], &first["data"]["patient_id"]),
        (&json!("medication_reminder"), &json!("otto"), &json!("P-1")),
        "{first}"
    );
    assert!(ids(&came).iter().all(|id| id != gone["id"].as_str().unwrap_or("")));
    // Answers the pings that confirm the messages, while the disk is looked at.
    let state = ward.state();
    tokio::select! {
        () = delivered(&state, "7", &wanted) => {}
        never = async { loop { dashboard.next().await; } } => never,
    }
    curious.say(&json!({"type": "set_preferences", "preferences": {"mute": []}})).await;
    let mut told = everything_until(&mut curious, "audit").await;
    // Who came and asked for what is in the trail too.
    while told.last().is_some_and(|row| row["data"]["action"] != "preferences_set") {
        told.extend(everything_until(&mut curious, "audit").await);
    }
    let since = json!({"epoch": told.last().unwrap()["epoch"], "seq": 1});
    let bearer = format!("Bearer {}", ward.token("otto", &["--role", "viewer"]));
    let mut late = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    late.say(&json!({"type": "subscribe", "channels": ["#", "inbox"], "since": since})).await;
    let replayed = everything_until(&mut late, "snapshot").await;
    assert!(replayed.iter().any(|message| message["channel"] == "audit"), "it does see other things: {replayed:#?}");
    for told in [told, replayed] {
        assert!(told.iter().all(|message| message["type"] != "inbox" && message["channel"] != "inbox"), "{told:#?}");
    }
    bridge.kill();

    let bridge = ward.start();
    came.extend(until_quiet(&mut at_notifications(&bridge, &lena).await).await);
    came.extend(until_quiet(&mut at_notifications(&bridge, &lena).await).await);
    let all = ids(&came);
    let titles: Vec<_> =
        came.iter().map(|it| it["data"]["title"].as_str().unwrap()).filter(|it| *it != "Coffee").collect();
    assert_eq!(titles.len(), 3, "{titles:?}");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "one came twice: {titles:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_client_may_not_have_comes_again_under_the_same_id() {
    let ward = Ward::new();
    let bridge = ward.start();
    let lena = ward.token("lena", &[]);
    let new = json!({"kind": "system", "users": ["lena"], "title": "t", "message": "m"});
    let (_, sent) = http(&bridge, "POST", "/api/v1/notifications", &lena, &new).await;
    // It reads the message and goes before it reads the ping behind it.
    let mut hasty = at_notifications(&bridge, &lena).await;
    assert_eq!(hasty.soon("notification").await["data"]["id"], sent["id"]);
    drop(hasty);
    // This one acknowledges it by name, and goes too.
    let mut thorough = at_notifications(&bridge, &lena).await;
    let message = thorough.soon("notification").await;
    assert_eq!((&message["data"]["id"], &message["data"]["alert_stands"]), (&sent["id"], &json!(null)), "{message}");
    thorough
        .say(&json!({"type": "ack", "channel": message["channel"], "epoch": message["epoch"], "seq": message["seq"]}))
        .await;
    // Commands are answered in order, so the bridge has read the acknowledgement.
    until_quiet(&mut thorough).await;
    assert!(until_quiet(&mut at_notifications(&bridge, &lena).await).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tab_of_a_user_shows_a_message_and_nobody_else_does() {
    let ward = Ward::new();
    let bridge = ward.start();
    let (lena, otto) = (ward.token("lena", &["--patient", "P-1"]), ward.token("otto", &[]));
    let mut tabs = [at_notifications(&bridge, &lena).await, at_notifications(&bridge, &lena).await];
    let mut other = listening(&bridge, "/ws", &otto, &json!({"type": "subscribe", "channels": ["#"]})).await;
    let new = json!({"kind": "system", "users": ["lena"], "title": "t", "message": "m"});
    let (_, sent) = http(&bridge, "POST", "/api/v1/notifications", &otto, &new).await;
    for tab in &mut tabs {
        let message = tab.soon("notification").await;
        assert_eq!((&message["data"]["id"], &message["data"]["user_id"]), (&sent["id"], &json!("lena")));
    }
    assert!(until_quiet(&mut other).await.is_empty());
    // Another one's channel is refused, one's own is not, although the token names only a patient.
    for (channel, answer) in [("notifications/otto", "error"), ("user:lena", "subscribed")] {
        tabs[0].say(&json!({"type": "subscribe", "channels": [channel], "id": channel})).await;
        assert_eq!(tabs[0].soon(answer).await["correlation_id"], channel);
    }
    // Who is limited to a patient sends to who sees that patient, and to nobody else.
    assert_eq!(http(&bridge, "POST", "/api/v1/notifications", &lena, &new).await.0, 403);
    let about = json!({"kind": "system", "patient": "P-1", "title": "t", "message": "m"});
    assert_eq!(http(&bridge, "POST", "/api/v1/notifications", &lena, &about).await.0, 201);
    assert_eq!(tabs[1].soon("notification").await["data"]["patient_id"], "P-1");
    assert_eq!(other.soon("notification").await["data"]["user_id"], "otto");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_gets_the_message_among_the_missed_events_and_not_twice() {
    let ward = Ward::new();
    let bridge = ward.start();
    let (lena, otto) = (ward.token("lena", &[]), ward.token("otto", &[]));
    let mut before = listening(&bridge, "/ws", &lena, &json!({"type": "subscribe"})).await;
    let new = |title: &str| json!({"kind": "system", "users": ["lena"], "title": title, "message": "m"});
    http(&bridge, "POST", "/api/v1/notifications", &otto, &new("seen")).await;
    let seen = before.soon("notification").await;
    until_quiet(&mut before).await;
    drop(before);
    http(&bridge, "POST", "/api/v1/notifications", &otto, &new("missed")).await;
    bridge.kill();
    let bridge = ward.start();
    let since = json!({"epoch": seen["epoch"], "seq": seen["seq"]});
    let bearer = format!("Bearer {lena}");
    let mut after = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    after.say(&json!({"type": "subscribe", "since": since})).await;
    let came = until_quiet(&mut after).await;
    let titles: Vec<_> = came.iter().map(|it| it["data"]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["missed"]);
    assert_eq!(came[0]["epoch"], seen["epoch"], "it is the event that was missed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_of_priority_high_reaches_who_has_muted_everything_and_who_is_away() {
    let ward = Ward::new();
    let bridge = ward.start();
    let (lena, otto) = (ward.token("lena", &[]), ward.token("otto", &["--patient", "P-1"]));
    // Both have been here; who has never listened is not known.
    at_notifications(&bridge, &lena).await;
    let mut quiet = at_notifications(&bridge, &otto).await;
    let all = json!({"mute": ["health_alert", "medication_reminder", "appointment_reminder", "system"]});
    let (status, answer) = http(&bridge, "PUT", "/api/v1/users/me/preferences", &otto, &all).await;
    assert_eq!((status, &answer["never_muted"]), (200, &json!(["high"])), "{answer}");
    let high = json!({"mute": ["high"]});
    let (status, refused) = http(&bridge, "PUT", "/api/v1/users/me/preferences", &otto, &high).await;
    assert_eq!((status, &refused["code"]), (400, &json!("validation")), "{refused}");
    quiet.say(&json!({"type": "set_preferences", "preferences": high, "id": "p"})).await;
    assert!(quiet.soon("error").await["data"]["message"].as_str().unwrap().contains("always comes"));
    bridge.kill();

    // The patient desaturates while nobody listens.
    let file = ward.dir.path().join("low.csv");
    let rows: Vec<String> = (0..600).map(|second| format!("{second},70\n")).collect();
    std::fs::write(&file, format!("t_s,SpO2\n{}", rows.concat())).unwrap();
    ward.configure(&source(&file));
    let bridge = ward.start();
    let (desaturation, seq, mut witness) = alert(&bridge, &ward.token("w", &[]), "spo2_desat").await;
    while witness.soon("heartbeat").await["data"]["durable_through"].as_u64().unwrap() < seq + 1 {}
    bridge.kill();

    ward.configure("");
    let bridge = ward.start();
    let chosen = http(&bridge, "GET", "/api/v1/users/me/preferences", &otto, &json!(null)).await.1;
    assert_eq!(chosen["preferences"]["mute"].as_array().unwrap().len(), 4, "{chosen}");
    let mut high_ids = BTreeSet::new();
    for token in [&lena, &otto] {
        let came = until_quiet(&mut at_notifications(&bridge, token).await).await;
        let about: Vec<_> = came.iter().filter(|it| it["data"]["alert_id"] == desaturation.as_str()).collect();
        assert_eq!(about.len(), 1, "{came:?}");
        let data = &about[0]["data"];
        assert_eq!((&data["type"], &data["priority"]), (&json!("health_alert"), &json!("high")), "{data}");
        assert_eq!((&data["title"], &data["mode"]), (&json!("TEST: SpO2 Alert"), &json!("test")), "{data}");
        assert!(data["message"].as_str().unwrap().starts_with("P-1: SpO2 70 %"), "{data}");
        high_ids.insert(data["id"].as_str().unwrap().to_owned());
        if token == &otto {
            assert!(came.iter().all(|it| it["data"]["priority"] == "high"), "muted: {came:?}");
        }
    }
    assert_eq!(high_ids.len(), 1, "it is one message for both");
}

#[test]
fn what_the_document_sends_and_chooses_is_taken() {
    let page = include_str!("../../docs/notifications.md");
    let snippets: Vec<&str> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|it| !it.contains("{...}"))
        .collect();
    assert_eq!(snippets.len(), 1);
    let sent = serde_json::from_str(snippets[0]).unwrap();
    assert!(matches!(Command::read_notification(Members(&sent)), Ok(Command::Notify(_))), "{sent}");
    let chosen = page.split("/preferences` with `").nth(1).unwrap().split('`').next().unwrap();
    let chosen = serde_json::from_str(chosen).unwrap();
    assert!(matches!(Command::read_preferences(Members(&chosen)), Ok(Command::Prefer(_))), "{chosen}");
}

fn source(file: &Path) -> String {
    format!(
        "[[source]]\nid = \"tape\"\nkind = \"replay\"\nfile = \"{}\"\npatient = \"P-1\"\nmode = \"test\"\n",
        file.display()
    )
}

/// Waits for a rule's alert, which stands already or begins; its id and its event.
async fn alert(bridge: &Bridge, token: &str, rule: &str) -> (String, u64, Dashboard) {
    let bearer = format!("Bearer {token}");
    let mut witness = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    witness.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    let until = now() + LIMIT;
    loop {
        assert!(now() < until, "no alert of {rule} within {LIMIT:?}");
        let message = witness.next().await;
        let of_snapshot = message["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let alerts =
            of_snapshot.iter().map(|alert| (alert, &alert["seq"])).chain([(&message["data"], &message["seq"])]);
        for (alert, seq) in alerts {
            if alert["rule"] == rule {
                return (alert["alert_id"].as_str().unwrap().to_owned(), seq.as_u64().unwrap(), witness);
            }
        }
    }
}
