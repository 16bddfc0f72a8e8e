//! What the bridge keeps on a real Mosquitto: the alerts that stand and no others, whoever was away in between.
#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use vitalbridge::clock::{Clock, Mono, Wall};
use vitalbridge::event::{AlertChange, Event, EventBody, Presence};
use vitalbridge::wire;

use serde_json::{Value as Json, json};
use tokio::process::Command;

use crate::bridge::{Bridge, signal};
use crate::mqtt::{Broker, Consumer, DEADLINE, Gate, GateState, LOOK_AGAIN, Running, Store, alert, config, reading};

/// An event about the alert with this number.
fn change(number: u64, change: AlertChange) -> EventBody {
    let EventBody::Alert(mut event) = alert(number) else { panic!("not an alert") };
    event.change = change;
    if change == AlertChange::End {
        event.presence = Presence::False;
    }
    EventBody::Alert(event)
}

/// Stores an event of so long ago.
fn append_ago(store: &mut Store, body: EventBody, ago: Duration) -> Event {
    let mut at = Clock::System.now();
    at.mono = Mono(at.mono.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap()));
    at.wall.0 -= i64::try_from(ago.as_millis()).unwrap();
    let event = Event { epoch: store.epoch.clone(), seq: store.next, at, body };
    store.next = store.next.next();
    store.handle.try_append(Arc::new(event.clone())).unwrap();
    event
}

fn topic(number: u64) -> String {
    format!("vitals/v1/icu/b1/alert_present/{}", uuid::Uuid::from_u128(u128::from(number)))
}

fn text(event: &Event) -> String {
    wire::upload(event, &"b1".parse().unwrap(), false).unwrap()
}

/// What a new subscriber is told at once of this kind of topic.
async fn held(broker: &Broker, part: &str) -> BTreeMap<String, String> {
    let all = Consumer::subscribe(broker).await.all;
    let kept = all.into_iter().filter(|received| received.retained == "1" && received.topic.contains(part));
    kept.map(|received| (received.topic, received.text)).collect()
}

/// Waits until exactly these alerts are on the broker, with these bodies.
async fn until_held(broker: &Broker, expected: &[(u64, &Event)]) {
    let expected: BTreeMap<String, String> =
        expected.iter().map(|(number, event)| (topic(*number), text(event))).collect();
    let mut last = BTreeMap::new();
    let waiting = async {
        loop {
            last = held(broker, "/alert_present").await;
            if last == expected {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    let found = timeout(DEADLINE, waiting).await;
    assert!(found.is_ok(), "the broker has {last:#?}, not {expected:#?}");
}

#[tokio::test]
async fn an_alert_is_kept_on_the_broker_with_its_newest_state_and_goes_a_minute_after_its_end() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut store = Store::open(folder.path(), 1);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    let mut consumer = Consumer::subscribe(&broker).await;
    let first = store.append(change(1, AlertChange::Start));
    until_held(&broker, &[(1, &first)]).await;
    let second = store.append(change(2, AlertChange::Start));
    let acknowledged = store.append(change(1, AlertChange::Acknowledge));
    until_held(&broker, &[(1, &acknowledged), (2, &second)]).await;

    let end = append_ago(&mut store, change(1, AlertChange::End), Duration::from_secs(57));
    consumer.until("the end", |received| received.topic == topic(1) && received.text == text(&end)).await;
    consumer.until("the removal", |received| received.topic == topic(1) && received.text.is_empty()).await;
    until_held(&broker, &[(2, &second)]).await;
    // An end of just now stands for its minute.
    let end = store.append(change(2, AlertChange::End));
    until_held(&broker, &[(2, &end)]).await;
    uplink.stop().await;
    until_held(&broker, &[(2, &end)]).await;
    store.close().await;
}

#[tokio::test]
async fn a_broker_that_forgot_everything_or_ends_of_alerts_is_set_right_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::started("").await;
    let gate = Gate::new(broker.address(), GateState::Open).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(gate.port, &store.epoch), &store);
    let (stays, goes) = (store.append(change(1, AlertChange::Start)), store.append(change(2, AlertChange::Start)));
    until_held(&broker, &[(1, &stays), (2, &goes)]).await;

    broker.kill().await;
    uplink.until("disconnected", |status| !status.connected).await;
    append_ago(&mut store, change(2, AlertChange::End), Duration::from_mins(5));
    let new = store.append(change(3, AlertChange::Start));
    store.settle().await;
    broker.start().await;
    until_held(&broker, &[(1, &stays), (3, &new)]).await;

    // The same with the link alone: this broker remembers, and the bridge takes back what has ended meanwhile.
    gate.set(GateState::Closed);
    uplink.until("disconnected", |status| !status.connected).await;
    append_ago(&mut store, change(3, AlertChange::End), Duration::from_mins(5));
    store.settle().await;
    until_held(&broker, &[(1, &stays), (3, &new)]).await;
    gate.set(GateState::Open);
    until_held(&broker, &[(1, &stays)]).await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn an_alert_that_ended_while_no_uplink_ran_leaves_no_ghost() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut store = Store::open(folder.path(), 1);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    let (stays, goes) = (store.append(change(1, AlertChange::Start)), store.append(change(2, AlertChange::Start)));
    until_held(&broker, &[(1, &stays), (2, &goes)]).await;
    uplink.kill().await;
    // Nobody was there to say so, and the next run of the daemon begins after it.
    append_ago(&mut store, change(2, AlertChange::End), Duration::from_mins(5));
    store.settle().await;
    until_held(&broker, &[(1, &stays), (2, &goes)]).await;
    store.close().await;

    let store = Store::open(folder.path(), 2);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    until_held(&broker, &[(1, &stays)]).await;
    uplink.kill().await;
    store.close().await;
}

#[tokio::test]
async fn without_a_place_for_devices_each_alert_has_a_topic_of_its_own_all_the_same() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut store = Store::open(folder.path(), 1);
    let mut config = config(broker.port, &store.epoch);
    config.topic = "vitals/{bridge}/{kind}".parse().unwrap();
    let uplink = Running::start(config, &store);
    store.append(change(1, AlertChange::Start));
    store.append(change(2, AlertChange::Start));
    let waiting = async {
        while held(&broker, "/alert_present").await.len() < 2 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("two topics");
    let topics: Vec<String> = held(&broker, "/alert_present").await.into_keys().collect();
    let id = |number| uuid::Uuid::from_u128(number).to_string();
    assert_eq!(topics, [1, 2].map(|number| format!("vitals/b1/alert_present_{}", id(number))));
    uplink.stop().await;
    store.close().await;
}

/// Publishes as any other client would.
async fn publish(broker: &Broker, arguments: &[&str]) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-V", "5", "-p", &broker.port.to_string(), "-q", "1"]).args(arguments);
    assert!(command.status().await.unwrap().success());
}

const CONFIG: &str = r#"
[bridge]
id = "b1"
site = "icu"
[server]
listen = "127.0.0.1:0"
[store]
dir = "state"
[[patient]]
id = "P-1"
[[source]]
id = "strap"
kind = "ble"
name = "Polar H10 1"
profile = "polar-h10"
patient = "P-1"
device = "strap-1"
[mqtt]
username = "bridge"
password_file = "password"
commands = ["limits.set"]
"#;

#[tokio::test]
async fn birth_tells_of_the_whole_daemon_and_of_what_changes_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::started("").await;
    let file = folder.path().join("c.toml");
    let text = format!("{CONFIG}broker = \"mqtt://127.0.0.1:{}\"\n", broker.port);
    std::fs::write(&file, &text).unwrap();
    std::fs::write(folder.path().join("password"), "swordfish").unwrap();
    let mut consumer = Consumer::subscribe(&broker).await;
    let bridge = Bridge::start(&["run", "--config", file.to_str().unwrap()]);

    let is_birth = |topic: &str| topic == "vitals/v1/icu/b1/birth";
    let birth = consumer.find("the birth", |received| is_birth(&received.topic)).await;
    assert!(!birth.text.contains("swordfish"), "{}", birth.text);
    let data = &birth.body["data"];
    let device = json!({"source_id": "strap", "device_id": "strap-1", "patient_id": "P-1", "kind": "ble",
                        "profile": "polar-h10", "mode": "real"});
    assert_eq!(data["devices"], json!([device]));
    let limits = |body: &Json, rule: &str| -> Json {
        let limits = body["data"]["thresholds"]["P-1"].as_array().cloned().unwrap_or_default();
        limits.into_iter().find(|limit| limit["rule"] == rule).unwrap_or_default()
    };
    assert_eq!(limits(&birth.body, "spo2_low")["low"], 90, "{}", birth.text);
    let hash = data["config_hash"].as_str().unwrap().to_owned();
    assert_eq!(hash.len(), 64);
    assert!(data["clock"]["epoch"]["offset_ms"].as_i64().is_some(), "{data}");

    // A person changes a limit.
    let tomorrow = Wall(Clock::System.now().wall.0 + 86_400_000).to_string();
    let command = json!({"name": "limits.set", "patient_id": "P-1", "rule": "spo2_low", "below": 86, "reason": "COPD",
                         "by": "lena", "expires": tomorrow});
    // A command that comes before the bridge listens is lost.
    let done = loop {
        publish(&broker, &["-t", "vitals/v1/icu/b1/cmd", "-m", &command.to_string()]).await;
        let answer = consumer.until("the answer", |received| received.body["type"] == "result");
        if let Ok(answer) = timeout(Duration::from_secs(2), answer).await {
            break answer;
        }
    };
    assert_eq!(done.body["data"]["ok"], true, "{}", done.text);
    consumer
        .until("the new limit", |received| is_birth(&received.topic) && limits(&received.body, "spo2_low")["low"] == 86)
        .await;

    // The configuration is read again.
    std::fs::write(&file, format!("# changed\n{text}")).unwrap();
    signal(bridge.pid(), "HUP");
    let again = consumer
        .until("the new hash", |received| {
            is_birth(&received.topic) && received.body["data"]["config_hash"].as_str() != Some(&hash)
        })
        .await;
    assert!(again.body["data"]["config_hash"].is_string(), "{}", again.text);
    bridge.kill();
    consumer.until("the will", |received| received.body["data"]["reason"] == "connection_lost").await;
}

#[tokio::test]
async fn home_assistant_is_told_of_what_there_is_and_no_longer_of_what_there_was() {
    const STRAP: &str = "homeassistant/device/vitalbridge-b1/6-P-0001-strap-1/config";
    const BRIDGE: &str = "homeassistant/device/vitalbridge-b1/bridge/config";
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let told = |store: &Store, home_assistant: Option<&str>| {
        let mut config = config(broker.port, &store.epoch);
        config.about.home_assistant = home_assistant.map(str::to_owned);
        config
    };
    let mut store = Store::open(folder.path(), 1);
    let uplink = Running::start(told(&store, Some("homeassistant")), &store);
    store.append(reading(1));
    let document = consumer.until("the strap", |received| received.topic == STRAP).await;
    let sensor = &document.body["components"]["heart_rate"];
    assert_eq!(sensor["state_topic"], "vitals/v1/icu/b1/health_update/strap-1");
    assert_eq!(document.body["device"]["name"], "TEST patient P-0001");
    let topics = |kept: BTreeMap<String, String>| kept.into_keys().collect::<Vec<_>>();
    assert_eq!(topics(held(&broker, "homeassistant/").await), [STRAP, BRIDGE]);

    // Home Assistant starts anew, with a broker that has lost a document.
    publish(&broker, &["-t", STRAP, "-r", "-n"]).await;
    consumer.until("the removal", |received| received.topic == STRAP && received.text.is_empty()).await;
    publish(&broker, &["-t", "homeassistant/status", "-m", "online"]).await;
    consumer.until("the strap again", |received| received.topic == STRAP && received.text == document.text).await;
    store.until_cursors_at_end().await;
    uplink.stop().await;
    store.close().await;

    // The next run has no such device.
    let store = Store::open(folder.path(), 2);
    let uplink = Running::start(told(&store, Some("homeassistant")), &store);
    consumer.until("the removal", |received| received.topic == STRAP && received.text.is_empty()).await;
    assert_eq!(topics(held(&broker, "homeassistant/").await), [BRIDGE]);
    uplink.stop().await;
    store.close().await;

    // And the one after that does not tell Home Assistant.
    let store = Store::open(folder.path(), 3);
    let uplink = Running::start(told(&store, None), &store);
    consumer.until("the removal", |received| received.topic == BRIDGE && received.text.is_empty()).await;
    assert_eq!(topics(held(&broker, "homeassistant/").await), Vec::<String>::new());
    uplink.stop().await;
    store.close().await;
}
