//! Brokers that are killed and start again, whatever carries MQTT to them: real Mosquitto with persistence, and NATS with
//! `JetStream`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use vitalbridge::event::Event;
use vitalbridge::store::GROUP_COMMIT_BOUNDS;
use vitalbridge::uplink::access::{Access, TlsFiles, Version};

use crate::bridge::eventually;
use crate::mqtt::{Broker, Consumer, DEADLINE, Gate, GateState, Running, Store, alert, config, free_port, id_of};
use crate::mqtt_access::{Certificates, Nats, reaching};
use crate::tally::{Identity, Outcome, Tally};

#[tokio::test(flavor = "multi_thread")]
async fn a_mosquitto_killed_and_restarted_loses_nothing_whatever_carries_it() {
    let certificates = Certificates::new();
    let [tls, mutual, ws, wss] = std::array::from_fn(|_| free_port());
    let (ca, identity) = (certificates.files("ca", None), certificates.files("ca", Some("bridge")));
    let ways = [
        ("plain", String::new(), TlsFiles::default()),
        ("TLS", format!("mqtts://127.0.0.1:{tls}"), ca.clone()),
        ("mTLS", format!("mqtts://127.0.0.1:{mutual}"), identity),
        ("WebSocket", format!("ws://127.0.0.1:{ws}/mqtt"), TlsFiles::default()),
        ("WebSocket in TLS", format!("wss://127.0.0.1:{wss}/mqtt"), ca),
    ];
    for (way, address, tls_files) in ways {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::stopped("");
        let address = if address.is_empty() { format!("mqtt://127.0.0.1:{}", broker.port) } else { address };
        let listeners = [
            certificates.listener(tls, "broker", ""),
            certificates.listener(mutual, "broker", "require_certificate true"),
            format!("listener {ws} 127.0.0.1\nprotocol websockets\n"),
            certificates.listener(wss, "broker", "protocol websockets"),
        ];
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nlog_dest none\nuser root\nmax_queued_messages 0\n\
             persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n{}",
            broker.port,
            folder.path().display(),
            listeners.concat(),
        );
        std::fs::write(broker.folder.path().join("mosquitto.conf"), text).unwrap();
        broker.start().await;
        let tally = Tally::start(broker.port);
        let mut store = Store::open(folder.path(), 1);
        let access = Access { tls: tls_files, ..Access::default() };
        let mut uplink = Running::start(reaching(&address, access, &store), &store);
        // The subscription is in force once the first row has come.
        let first = store.append_mix(1);
        let identity = |event: &vitalbridge::event::Event| -> Identity { (event.epoch.to_string(), event.seq.0) };
        eventually("the first row", DEADLINE, || (!tally.counts("b1").is_empty()).then_some(())).await;
        let mut produced: BTreeSet<Identity> = first.iter().map(identity).collect();
        for _ in 0..2 {
            let mut events = store.append_mix(100);
            store.until_cursors_at_end().await;
            events.extend(store.append_mix(50));
            broker.kill().await;
            events.extend(store.append_mix(100));
            store.settle().await;
            uplink.until("disconnected", |status| !status.connected).await;
            broker.start().await;
            store.until_cursors_at_end().await;
            produced.extend(events.iter().map(identity));
        }
        eventually(way, DEADLINE, || {
            let counts = tally.counts("b1");
            produced.iter().all(|event| counts.contains_key(event)).then_some(())
        })
        .await;
        let fault = format!("broker killed and restarted, sessions kept ({way})");
        let outcome = Outcome::of(&fault, &produced, &tally.counts("b1"), 0);
        outcome.print();
        assert_eq!(outcome.lost, 0, "{outcome:?}");
        uplink.stop().await;
        store.close().await;
    }
}

/// What the first uplink said of its cursors is not on disk when the second begins: groups are as far apart as they may be.
#[tokio::test]
async fn an_uplink_that_begins_again_in_the_same_run_goes_on_where_the_one_before_was() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut store = Store::open_with(folder.path(), 1, GROUP_COMMIT_BOUNDS.1);
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut events = Vec::new();
    for round in 0..5 {
        let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
        // No reading: they are stored at once.
        events.extend((0..4).map(|number| store.append(alert(round * 4 + number))));
        consumer.until_all(&events).await;
        uplink.until("done", |status| status.connected && status.waiting == 0 && status.in_flight == 0).await;
        uplink.kill().await;
    }
    assert!(consumer.counts().values().all(|count| *count == 1), "{:?}", consumer.counts());
    store.close().await;

    // And the next run of the daemon goes on there too.
    let mut store = Store::open(folder.path(), 2);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    events.push(store.append(alert(100)));
    consumer.until_all(&events).await;
    assert!(consumer.counts().values().all(|count| *count == 1), "{:?}", consumer.counts());
    uplink.stop().await;
    store.close().await;
}

/// A row of the table, by what one consumer got.
fn told(fault: &str, events: &[Event], consumer: &Consumer) {
    let counts = consumer.counts().into_iter().map(|(id, count)| (id, u64::try_from(count).unwrap())).collect();
    let outcome = Outcome::of(fault, &events.iter().map(id_of).collect(), &counts, 0);
    outcome.print();
    assert_eq!(outcome.lost, 0, "{outcome:?}");
}

/// What NATS has confirmed it still has after a kill. The consumer is away while NATS is killed: a consumer that is thrown
/// out may have confirmed what it had no time to write down, and that is then nobody's.
#[tokio::test]
async fn everything_reaches_nats_over_kills_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut nats = Nats::started(folder.path()).await;
    // A session that JetStream keeps; it takes nothing until the end.
    let mut away = nats.subscribe("311").await;
    away.leave().await;
    let mut store = Store::open(folder.path(), 1);
    let gate = Gate::new(SocketAddr::from((Ipv4Addr::LOCALHOST, nats.port)), GateState::Open).await;
    let access = Access { version: Version::V311, ..Access::default() };
    let mut settings = reaching(&format!("mqtt://127.0.0.1:{}", gate.port), access, &store);
    settings.limits.ack_timeout = Duration::from_secs(2);
    let mut uplink = Running::start(settings, &store);
    let mut events = Vec::new();
    for _ in 0..3 {
        events.extend(store.append_mix(100));
        store.until_cursors_at_end().await;
        // Some of these are under way.
        events.extend(store.append_mix(100));
        nats.kill().await;
        events.extend(store.append_mix(100));
        store.settle().await;
        uplink.until("disconnected", |status| !status.connected).await;
        nats.start().await;
        store.until_cursors_at_end().await;
    }
    let mut consumer = nats.subscribe("311").await;
    consumer.until_all(&events).await;
    told("NATS with JetStream killed and restarted", &events, &consumer);

    // A partition: nothing comes through, nothing is refused.
    events.extend(store.append_mix(100));
    gate.set(GateState::Stalled);
    events.extend(store.append_mix(200));
    store.settle().await;
    uplink.until("given up", |status| !status.connected && status.reason.is_some()).await;
    gate.set(GateState::Closed);
    gate.set(GateState::Open);
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;
    told("NATS behind a network partition", &events, &consumer);

    // A consumer that stays through a kill comes back to its session by itself; what it had not confirmed comes again.
    for _ in 0..3 {
        let mut more = store.append_mix(50);
        store.settle().await;
        nats.kill().await;
        more.extend(store.append_mix(50));
        store.settle().await;
        nats.start().await;
        store.until_cursors_at_end().await;
        consumer.until_all(&more).await;
        events.extend(more);
    }
    told("NATS killed and restarted under its consumer", &events, &consumer);
    uplink.stop().await;
    store.close().await;
}
