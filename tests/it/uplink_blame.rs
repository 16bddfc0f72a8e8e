//! What the broker ends connections with is found, whatever it is, and nothing else waits for it or is taken for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use vitalbridge::clock::Mono;
use vitalbridge::event::{ChatEvent, Event, EventBody};
use vitalbridge::uplink::UplinkStatus;

use crate::mqtt::{Broker, Consumer, DEADLINE, LOOK_AGAIN, Running, Store, alert, chat, config, reading};
use crate::stub_broker::{Answer, Publication, StubBroker, Welcome};
use crate::tally::{Identity, Outcome};

/// What the broker that closes connections gets meanwhile: somebody is monitored all the time.
const ONE_MORE: Duration = Duration::from_millis(200);

/// Something that is neither urgent nor a reading.
fn said(number: u64) -> EventBody {
    let EventBody::Chat(ChatEvent::Message(mut message)) = chat(10) else { unreachable!() };
    message.id = uuid::Uuid::from_u128(u128::from(number) + 2);
    EventBody::Chat(ChatEvent::Message(message))
}

fn identities(events: &[Event]) -> BTreeSet<Identity> {
    events.iter().map(|event| (event.epoch.to_string(), event.seq.0)).collect()
}

fn is_done(status: &UplinkStatus) -> bool {
    status.waiting == 0 && status.in_flight == 0
}

/// The broker closes each connection on which one row comes, with these words.
async fn closes(form: &str, words: Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    let mut events = store.append_mix(30);
    let denied = store.append(chat(10));
    events.push(denied.clone());
    events.extend(store.append_mix(30));
    let seq = denied.seq.0;
    let script = move |row: &Publication| {
        if row.events.iter().any(|event| event.1 == seq) { Answer::Part(words.clone()) } else { Answer::Code(0) }
    };
    let broker = StubBroker::start(|_| Welcome::default(), script).await;
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    let found = async {
        while uplink.status.borrow().parked == 0 {
            events.extend(store.append_mix(10));
            sleep(ONE_MORE).await;
        }
    };
    timeout(DEADLINE, found).await.unwrap();
    store.settle().await;
    let status = uplink.until("done", is_done).await;
    let parked = status.last_parked.clone().unwrap();
    assert_eq!((status.parked, parked.seq), (1, denied.seq), "{form}: {parked:?}");
    let times = broker.look(|came| came.published[&(denied.epoch.to_string(), denied.seq.0)]);
    assert!((3..=8).contains(&times), "{form}: {times} tries");
    uplink.stop().await;
    let fault = format!("connection closed at one row ({form})");
    let outcome = broker.look(|came| Outcome::of(&fault, &identities(&events), &came.confirmed, 1));
    outcome.print();
    assert_eq!(outcome.lost, 0, "{outcome:?}");
    store.close().await;
}

#[tokio::test]
async fn a_row_with_which_the_broker_closes_the_connection_is_found_and_parked_and_no_other() {
    tokio::join!(closes("without a word", vec![]), closes("DISCONNECT 0x87", vec![0xE0, 2, 0x87, 0]));
}

/// An alert that stands, whose state takes more than the broker has for one message.
fn large_alert() -> EventBody {
    let EventBody::Alert(mut large) = alert(1_000_000) else { unreachable!() };
    large.message = "x".repeat(6000);
    EventBody::Alert(large)
}

#[tokio::test]
async fn what_the_bridge_says_of_itself_and_the_broker_does_not_take_costs_no_row() {
    for is_told in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), 1);
        let mut events = store.append_mix(20);
        let large = store.append(large_alert());
        events.push(large.clone());
        events.extend(store.append_mix(200));
        store.settle().await;
        let welcome = move |_| Welcome {
            max_packet_bytes: is_told.then_some(4096),
            // Rows of this size are taken: only what is kept is too large.
            largest_kept: Some(4096),
            ..Welcome::default()
        };
        let broker = StubBroker::start(welcome, |_| Answer::Late(Duration::from_millis(5), 0)).await;
        let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
        let said =
            |status: &UplinkStatus| status.reason.as_deref().is_some_and(|reason| reason.contains("alert_present"));
        let status = uplink.until("done", |status| is_done(status) && status.connected && said(status)).await;
        // Told of the limit, the bridge does not send the row either.
        assert_eq!(status.parked, u64::from(is_told), "{status:?}");
        assert!(status.last_parked.is_none_or(|parked| parked.seq == large.seq));
        assert!(broker.look(|came| came.connections) <= if is_told { 1 } else { 4 });
        let confirmed: BTreeSet<Identity> = broker.look(|came| came.confirmed.keys().cloned().collect());
        let missing: Vec<_> = identities(&events).difference(&confirmed).cloned().collect();
        let expected = if is_told { vec![(large.epoch.to_string(), large.seq.0)] } else { vec![] };
        assert_eq!(missing, expected);
        uplink.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_alert_passes_whatever_waits_that_is_none_and_the_alerts_of_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    for number in 0..2500 {
        store.append(if number % 5 == 0 { alert(number) } else { said(number) });
        if number % 500 == 499 {
            store.settle().await;
        }
    }
    let order: Arc<Mutex<Vec<u64>>> = Arc::default();
    let noted = Arc::clone(&order);
    let script = move |row: &Publication| {
        noted.lock().unwrap().push(row.events[0].1);
        Answer::Late(Duration::from_millis(300), 0)
    };
    let broker = StubBroker::start(|_| Welcome::default(), script).await;
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    uplink.until("draining", |status| status.sent > 0).await;
    let now = store.append(alert(1_000_000));
    let (key, mut place) = ((now.epoch.to_string(), now.seq.0), None);
    let confirmed = async {
        while !broker.look(|came| came.confirmed.contains_key(&key)) {
            sleep(LOOK_AGAIN).await;
        }
        place = order.lock().unwrap().iter().position(|seq| *seq == now.seq.0);
    };
    timeout(DEADLINE, confirmed).await.unwrap();
    let place = place.unwrap();
    assert!(place < 400, "{place}: even the alerts that waited are more");
    let order = order.lock().unwrap().clone();
    let earlier: Vec<u64> = order.iter().copied().filter(|seq| seq % 5 == 1 && *seq <= 2500).collect();
    assert!(earlier.is_sorted() && earlier.len() >= 16, "{earlier:?}");
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn what_is_old_when_it_is_sent_says_so_whatever_it_is_and_however_few_there_are() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut events = Vec::new();
    for age in [600, 61, 0] {
        for body in [reading(1), alert(age), said(age)] {
            events.push(store.append_aged(body, Duration::from_secs(age)));
        }
    }
    store.settle().await;
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    consumer.until_all(&events).await;
    let newest = events.last().unwrap().seq.0;
    for received in consumer.all.iter().filter(|received| received.is_event()) {
        let is_past = received.seq() <= newest - 3;
        assert_eq!(received.body["historical"] == true, is_past, "{received:?}");
        assert_eq!(received.properties.contains("historical:true"), is_past, "{received:?}");
    }
    assert!(events[0].at.mono > Mono(0), "the machine runs for longer than that");
    uplink.stop().await;
    store.close().await;
}
