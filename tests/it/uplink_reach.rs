//! The uplink over every way and with every kind of message: idle links that died, alerts that stand on NATS and through TLS,
//! a template as Azure wants it, and commands that acknowledge or actuate.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value as Json, json};
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use vitalbridge::event::{AlertChange, Event, EventBody, Presence};
use vitalbridge::uplink::access::{Access, TlsFiles, Version};

use crate::bridge::Bridge;
use crate::mqtt::{Broker, Consumer, DEADLINE, LOOK_AGAIN, Running, Store, alert, config, free_port};
use crate::mqtt_access::{Certificates, Nats, reaching};
use crate::stub_broker::{Answer, StubBroker, Welcome};

/// An event about the alert with this number; an end was five minutes ago, so that it is removed at once.
fn append(store: &mut Store, number: u64, change: AlertChange) -> Event {
    let EventBody::Alert(mut event) = alert(number) else { panic!("not an alert") };
    event.change = change;
    let mut at = vitalbridge::clock::Clock::System.now();
    if change == AlertChange::End {
        event.presence = Presence::False;
        let ago = 300_000_u64;
        at.mono.0 = at.mono.0.saturating_sub(ago * 1_000_000);
        at.wall.0 -= i64::try_from(ago).unwrap();
    }
    let event = Event { epoch: store.epoch.clone(), seq: store.next, at, body: EventBody::Alert(event) };
    store.next = store.next.next();
    store.handle.try_append(std::sync::Arc::new(event.clone())).unwrap();
    event
}

/// The numbers of the alerts that a new subscriber is told of.
async fn held(port: u16, version: &str) -> BTreeSet<u64> {
    let all = Consumer::with(port, &["-V", version]).await.all;
    let kept = all.into_iter().filter(|received| received.retained == "1" && received.topic.contains("/alert_present"));
    kept.filter(|received| !received.text.is_empty()).map(|received| received.seq()).collect()
}

async fn until_held(port: u16, version: &str, expected: &[u64]) {
    let expected: BTreeSet<u64> = expected.iter().copied().collect();
    let mut last = BTreeSet::new();
    let waiting = async {
        loop {
            last = held(port, version).await;
            if last == expected {
                return;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    assert!(timeout(DEADLINE, waiting).await.is_ok(), "the broker holds {last:?}, not {expected:?}");
}

/// One alert stands and one ends; what stands is what the broker holds.
async fn alerts_come_and_go(address: &str, access: Access, port: u16, version: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    let uplink = Running::start(reaching(address, access, &store), &store);
    let (stays, goes) = (append(&mut store, 1, AlertChange::Start), append(&mut store, 2, AlertChange::Start));
    until_held(port, version, &[stays.seq.0, goes.seq.0]).await;
    append(&mut store, 2, AlertChange::End);
    until_held(port, version, &[stays.seq.0]).await;
    let changed = append(&mut store, 1, AlertChange::Acknowledge);
    until_held(port, version, &[changed.seq.0]).await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn alerts_that_stand_are_kept_by_nats() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::started(folder.path()).await;
    let access = Access { version: Version::V311, ..Access::default() };
    alerts_come_and_go(&format!("mqtt://127.0.0.1:{}", nats.port), access, nats.port, "311").await;
}

#[tokio::test]
async fn alerts_that_stand_are_kept_whatever_carries_them_and_in_both_versions() {
    let certificates = Certificates::new();
    let [tls, ws] = std::array::from_fn(|_| free_port());
    let ca = certificates.files("ca", None);
    for (version, address, tls_files, listener) in [
        (Version::V5, format!("mqtts://127.0.0.1:{tls}"), ca, certificates.listener(tls, "broker", "")),
        (
            Version::V311,
            format!("ws://127.0.0.1:{ws}/mqtt"),
            TlsFiles::default(),
            format!("listener {ws} 127.0.0.1\nprotocol websockets\n"),
        ),
    ] {
        let broker = Broker::started(&listener).await;
        alerts_come_and_go(&address, Access { version, tls: tls_files, ..Access::default() }, broker.port, "5").await;
    }
}

#[tokio::test]
async fn an_idle_link_on_which_nobody_answers_pings_is_left_and_the_next_one_carries_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    let welcome = |number| Welcome { then_silent: number == 1, ..Welcome::default() };
    let broker = StubBroker::start(welcome, |_| Answer::Code(0)).await;
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    let connected = uplink.until("connected", |status| status.connected).await;
    assert_eq!((connected.waiting, connected.in_flight), (0, 0), "there is nothing whose answer could be missed");
    let told = |reason: &Option<String>| reason.as_deref().is_some_and(|text| text.contains("ping"));
    uplink.until("told that pings are not answered", |status| told(&status.reason)).await;
    let events = store.append_mix(20);
    store.until_cursors_at_end().await;
    assert_eq!(broker.look(|came| (came.connections, came.confirmed.len())), (2, events.len()));
    uplink.stop().await;
    store.close().await;
}

/// Azure's topics have the device's name in front, and what is said of a message behind it.
#[tokio::test]
async fn everything_works_behind_a_prefix_with_properties_in_the_topic() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let prefix = "devices/b1/messages/events/";
    let mut all = Command::new("mosquitto_sub");
    all.args(["-p", &broker.port.to_string(), "-V", "311", "-q", "1", "-t", "devices/#", "-F", "%t %r %p"]);
    let mut store = Store::open(folder.path(), 1);
    let mut settings = config(broker.port, &store.epoch);
    settings.access.version = Version::V311;
    settings.topic = format!("{prefix}kind={{kind}}[&device={{device}}]").parse().unwrap();
    // A backlog, so that there are bundles.
    let mut events = Vec::new();
    events.extend(store.append_mix(600));
    store.settle().await;
    let mut subscriber = all.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(subscriber.stdout.take().unwrap()));
    let ready = ["-p", &broker.port.to_string(), "-r", "-t", "devices/ready", "-m", "{}"];
    assert!(Command::new("mosquitto_pub").args(ready).status().await.unwrap().success());
    lines.next_line().await.unwrap().expect("the subscription");
    let uplink = Running::start(settings, &store);
    let (mut came, mut topics) = (BTreeSet::new(), BTreeSet::new());
    let id = uuid::Uuid::from_u128(9);
    let wanted = [
        "kind=status".to_owned(),
        "kind=birth".to_owned(),
        "kind=batch".to_owned(),
        "kind=alert&device=strap-1".to_owned(),
        "kind=health_update&device=strap-1".to_owned(),
        format!("kind=alert_present&device={id}"),
    ];
    let reading = async {
        while came.len() < events.len() || !wanted.iter().all(|kind| topics.contains(kind)) {
            if came.len() == 600 {
                events.extend(store.append_mix(10));
            }
            let line = lines.next_line().await.unwrap().expect("a subscriber");
            let (topic, rest) = line.split_once(' ').unwrap();
            topics.insert(topic.strip_prefix(prefix).unwrap_or(topic).to_owned());
            let Ok(message) = serde_json::from_str::<Json>(rest.split_once(' ').unwrap().1) else { continue };
            let one = [message.clone()];
            let rows =
                message["data"].as_array().filter(|_| message["type"] == "batch").map_or(&one[..], Vec::as_slice);
            if !topic.contains("alert_present") {
                came.extend(rows.iter().filter_map(|row| row["seq"].as_u64()));
            }
        }
    };
    let arrived = timeout(DEADLINE, reading).await;
    assert!(arrived.is_ok(), "{} of {} under {topics:?}", came.len(), events.len());
    uplink.kill().await;
    let will = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("a subscriber");
            if line.starts_with(&format!("{prefix}kind=status ")) && line.contains("connection_lost") {
                return;
            }
        }
    };
    timeout(DEADLINE, will).await.expect("the will");
    store.close().await;
}

const CONFIG: &str = r#"
[bridge]
id = "b1"
[server]
listen = "127.0.0.1:0"
[store]
dir = "state"
[alerts]
rules = "rules.toml"
annunciators = "none"
[[patient]]
id = "P-1"
[[source]]
id = "s-1"
kind = "replay"
file = "numerics.csv"
patient = "P-1"
mode = "test"
"#;

/// Makes every saturation too low, at once.
const RULES: &str = "[patient.\"P-1\".rule.spo2_low]\nwhen = { below = 99 }\nclear = { at_least = 100 }\ndelay = \"1s\"\n\
    reason = \"test\"\nby = \"test\"\nexpires = \"2099-01-01T00:00:00Z\"\n";

/// Publishes a command as the backend would; gives the answer.
async fn ask(consumer: &mut Consumer, port: u16, command: Json) -> Json {
    let text = command.to_string();
    let arguments = ["-p", &port.to_string(), "-V", "5", "-q", "1", "-t", "vitals/v1/home/b1/cmd", "-m", &text];
    assert!(Command::new("mosquitto_pub").args(arguments).status().await.unwrap().success());
    let is_answer = |id: &Json, body: &Json| body["correlation_id"] == *id;
    let id = command["correlation_id"].clone();
    let answer = consumer
        .until("the answer", |received| received.topic.ends_with("/cmd_result") && is_answer(&id, &received.body))
        .await;
    answer.body["data"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_acknowledged_by_the_broker_and_nothing_is_actuated_by_it_that_no_source_allows() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("state")).unwrap();
    std::fs::write(at("rules.toml"), RULES).unwrap();
    let rows = (0..600).map(|second| format!("{second},72,95\n"));
    std::fs::write(at("numerics.csv"), format!("t_s,HR,SpO2\n{}", rows.collect::<String>())).unwrap();
    let commands = "commands = ['alert.acknowledge', 'device.command']";
    let mqtt = format!("[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\n{commands}\n", broker.port);
    std::fs::write(at("c.toml"), format!("{CONFIG}{mqtt}")).unwrap();
    let mut consumer = Consumer::subscribe(&broker).await;
    let bridge = Bridge::start(&["run", "--config", at("c.toml").to_str().unwrap()]);
    let start = consumer
        .until("the alert", |received| {
            received.body["data"]["rule"] == "spo2_low" && received.body["data"]["change"] == "start"
        })
        .await;
    let command = json!({"name": "alert.acknowledge", "alert_id": start.body["data"]["alert_id"],
        "expected_seq": start.body["seq"], "by": "lena", "correlation_id": "acknowledge-1"});
    let done = ask(&mut consumer, broker.port, command).await;
    assert_eq!((&done["ok"], &done["durable"]), (&json!(true), &json!(true)), "{done}");
    let acknowledged = consumer
        .find("the alert acknowledged", |received| {
            received.body["data"]["change"] == "acknowledge" && received.body["data"]["rule"] == "spo2_low"
        })
        .await;
    assert_eq!(acknowledged.body["data"]["by"], "mqtt:lena", "{}", acknowledged.text);

    // The list of the bridge names device commands; the source takes none.
    let command = json!({"name": "device.command", "source_id": "s-1", "command": "nibp_start", "by": "lena",
        "correlation_id": "actuate-1"});
    let refused = ask(&mut consumer, broker.port, command).await;
    assert_eq!(refused["ok"], json!(false), "{refused}");
    // What is not on the list is not even looked at.
    let command = json!({"name": "limits.clear", "patient_id": "P-1", "rule": "spo2_low", "reason": "r", "by": "lena",
        "correlation_id": "clear-1"});
    let refused = ask(&mut consumer, broker.port, command).await;
    assert_eq!(refused["code"], "not_allowed", "{refused}");
    assert_eq!(bridge.stop(), Some(0));
}
