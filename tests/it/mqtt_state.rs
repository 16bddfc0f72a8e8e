//! What the bridge keeps on a real Mosquitto: the alerts that stand and no others, whoever was away in between.
#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use vitalbridge::clock::{Clock, Mono};
use vitalbridge::event::{AlertChange, Event, EventBody, Presence};
use vitalbridge::wire;

use crate::mqtt::{Broker, Consumer, DEADLINE, Gate, GateState, LOOK_AGAIN, Running, Store, alert, config};

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
