//! The table of faults of the uplink: what was produced, what was received, how often twice, and what was lost. Its rows of
//! the store are in `store_faults`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};
use vitalbridge::event::Event;
use vitalbridge::ids::Seq;
use vitalbridge::uplink::{UplinkConfig, UplinkStatus};

use crate::bridge::{Bridge, eventually, program};
use crate::mqtt::{Broker, Consumer, DEADLINE, Gate, GateState, LOOK_AGAIN, Running, Store, chat, config};
use crate::store_faults::{House, Told};
use crate::stub_broker::{Answer, StubBroker, Welcome};
use crate::tally::{Identity, Outcome, Tally};

/// Silence that the watchdog bears in these tests; the default of 20 s is tried in virtual time beside the plan.
const SHORT: Duration = Duration::from_millis(600);

fn identities<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeSet<Identity> {
    events.into_iter().map(|event| (event.epoch.to_string(), event.seq.0)).collect()
}

/// What a consumer got, by identity.
fn counts(consumers: &[&Consumer]) -> BTreeMap<Identity, u64> {
    let mut counts = BTreeMap::new();
    for received in consumers.iter().flat_map(|consumer| &consumer.all).filter(|received| received.is_event()) {
        let epoch = received.body["epoch"].as_str().unwrap().to_owned();
        *counts.entry((epoch, received.seq())).or_default() += 1;
    }
    counts
}

/// Where a wait is no silence.
fn patient(settings: &mut UplinkConfig) {
    settings.limits.ack_timeout = Duration::from_secs(20);
}

fn impatient(port: u16, store: &Store) -> UplinkConfig {
    let mut settings = config(port, &store.epoch);
    (settings.limits.ack_timeout, settings.limits.connect_timeout) = (SHORT, SHORT);
    settings
}

/// The events of a store go to a stub broker until each is confirmed or parked.
struct Bench {
    folder: tempfile::TempDir,
    store: Store,
    events: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1);
        Self { folder, store, events: Vec::new() }
    }

    fn append(&mut self, count: u64) {
        let events = self.store.append_mix(count);
        self.events.extend(events);
    }

    /// Runs the uplink until nothing waits; gives its last status and the row of the table.
    async fn run(
        &mut self,
        fault: &str,
        broker: &StubBroker,
        change: impl FnOnce(&mut UplinkConfig),
    ) -> (UplinkStatus, Outcome) {
        let mut settings = impatient(broker.port, &self.store);
        change(&mut settings);
        let mut uplink = Running::start(settings, &self.store);
        // Rows come before the fault and meanwhile.
        let connected = uplink.until("connected at last", |status| status.sent > 0).await;
        assert!(connected.connected || connected.reason.is_some());
        self.append(100);
        self.store.settle().await;
        let done = |status: &UplinkStatus| status.waiting == 0 && status.in_flight == 0;
        let status = uplink.until("done", done).await;
        self.store.until_cursors_at_end().await;
        uplink.stop().await;
        let parked = usize::try_from(status.parked).unwrap();
        let outcome = broker.look(|came| Outcome::of(fault, &identities(&self.events), &came.confirmed, parked));
        outcome.print();
        assert!(self.folder.path().exists());
        assert_eq!(outcome.lost, 0, "{outcome:?}");
        (status, outcome)
    }
}

#[tokio::test]
async fn a_puback_that_never_comes_or_comes_late_loses_nothing() {
    let mut bench = Bench::new();
    bench.append(200);
    let withheld = StubBroker::start(
        |_| Welcome::default(),
        |row| if row.times == 1 && row.events[0].1 % 9 == 4 { Answer::Never } else { Answer::Code(0) },
    )
    .await;
    let (_, outcome) = bench.run("PUBACK withheld, pings answered", &withheld, |_| {}).await;
    assert!(withheld.look(|came| came.connections) > 1, "the watchdog ends such a connection");
    assert!(outcome.duplicates > 0 || withheld.look(|came| came.published.values().any(|times| *times > 1)));

    let mut bench = Bench::new();
    bench.append(200);
    let mut random = fastrand::Rng::with_seed(7);
    let slow =
        StubBroker::start(|_| Welcome::default(), move |_| Answer::Late(Duration::from_millis(random.u64(1..60)), 0))
            .await;
    let (_, outcome) = bench.run("PUBACK slow, out of order", &slow, patient).await;
    assert_eq!((slow.look(|came| came.connections), outcome.duplicates), (1, 0));
}

/// What the broker says to these rows; the numbers are those of readings, which go by themselves.
#[tokio::test]
async fn each_reason_code_parks_backs_off_or_succeeds_as_it_should() {
    let mut bench = Bench::new();
    bench.append(60);
    let codes = [(2, 0x87_u8), (3, 0x90), (4, 0x99), (5, 0x80), (6, 0x83), (10, 0x91), (11, 0x97), (12, 0x10)];
    let script = move |row: &crate::stub_broker::Publication| {
        let seq = row.events[0].1;
        match codes.iter().find(|(number, _)| *number == seq) {
            // These two only ask for less, once.
            Some((_, 0x91 | 0x97)) if row.times > 1 => Answer::Code(0),
            Some((_, code)) => Answer::Code(*code),
            None => Answer::Code(0),
        }
    };
    let broker = StubBroker::start(|_| Welcome::default(), script).await;
    let (status, outcome) = bench.run("PUBACK with reason codes", &broker, patient).await;
    assert_eq!((outcome.parked, outcome.duplicates), (5, 0), "{status:?}");
    let times = |seq: u64| broker.look(|came| came.published[&(bench.store.epoch.to_string(), seq)]);
    for (seq, tries) in [(2, 1), (3, 1), (4, 1), (5, 3), (6, 3), (10, 2), (11, 2), (12, 1), (13, 1)] {
        assert_eq!(times(seq), tries, "row {seq}");
    }
    assert_eq!(broker.look(|came| came.connections), 1, "none of them ends the connection");
}

#[tokio::test]
async fn rows_around_a_refused_one_do_not_wait_for_it() {
    let mut bench = Bench::new();
    bench.append(40);
    let script = |row: &crate::stub_broker::Publication| Answer::Code(if row.events[0].1 == 2 { 0x80 } else { 0 });
    let broker = StubBroker::start(|_| Welcome::default(), script).await;
    let mut uplink = Running::start(impatient(broker.port, &bench.store), &bench.store);
    // The row is tried again after five seconds, and again; all the others are there before.
    let others = || broker.look(|came| came.confirmed.len()) == 39;
    let all = async {
        while !others() {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(DEADLINE, all).await.unwrap();
    assert_eq!(broker.look(|came| came.published[&(bench.store.epoch.to_string(), 2)]), 1);
    let status = uplink.until("parked", |status| status.parked == 1).await;
    assert_eq!(status.last_parked.unwrap().reason, "the broker has refused the row 3 times (0x80)");
    uplink.stop().await;
}

#[tokio::test]
async fn a_broker_that_says_nothing_any_more_is_left_and_nothing_is_lost() {
    let mut bench = Bench::new();
    bench.append(200);
    let welcome = |number| Welcome { then_silent: number < 3, ..Welcome::default() };
    let broker = StubBroker::start(welcome, |_| Answer::Code(0)).await;
    bench.run("CONNACK, then silence", &broker, |_| {}).await;
    assert!(broker.look(|came| came.connections) >= 3);

    let mut bench = Bench::new();
    bench.append(200);
    let welcome = |number| Welcome { silent: number < 3, ..Welcome::default() };
    let broker = StubBroker::start(welcome, |_| Answer::Code(0)).await;
    bench.run("CONNECT not answered", &broker, |_| {}).await;
    assert!(broker.look(|came| came.connections) >= 3);
}

#[tokio::test]
async fn a_row_that_is_too_large_is_not_even_sent_and_one_that_ends_the_connection_is_found() {
    let mut bench = Bench::new();
    bench.append(30);
    let large = bench.store.append(chat(8000));
    bench.events.push(large.clone());
    bench.append(30);
    let welcome = |_| Welcome { max_packet_bytes: Some(4096), ..Welcome::default() };
    let broker = StubBroker::start(welcome, |_| Answer::Code(0)).await;
    let (status, outcome) = bench.run("message larger than Maximum Packet Size", &broker, |_| {}).await;
    assert_eq!((outcome.parked, status.last_parked.unwrap().seq), (1, large.seq));
    assert!(broker.look(|came| came.largest) <= 4096, "birth and status keep to it too");

    // The broker that does not say its limit ends the connection: in the long form, and in the short one of Mosquitto.
    for (form, words) in [("with properties", vec![0xE0, 2, 0x95, 0]), ("bare", vec![0xE0, 1, 0x95])] {
        let mut bench = Bench::new();
        bench.append(30);
        let large = bench.store.append(chat(8000));
        bench.events.push(large.clone());
        bench.append(30);
        let script = move |row: &crate::stub_broker::Publication| {
            if row.bytes > 4096 { Answer::Part(words.clone()) } else { Answer::Code(0) }
        };
        let broker = StubBroker::start(|_| Welcome::default(), script).await;
        let (status, outcome) = bench.run(&format!("DISCONNECT 0x95 ({form})"), &broker, |_| {}).await;
        assert_eq!((outcome.parked, status.last_parked.unwrap().seq), (1, large.seq), "{form}");
    }
}

#[tokio::test]
async fn what_the_broker_takes_at_once_is_not_exceeded() {
    let mut bench = Bench::new();
    bench.append(300);
    let welcome = |_| Welcome { receive_maximum: Some(5), ..Welcome::default() };
    let broker = StubBroker::start(welcome, |_| Answer::Late(Duration::from_millis(3), 0)).await;
    bench.run("Receive Maximum of 5", &broker, |_| {}).await;
    let most = broker.look(|came| came.most_in_flight);
    assert!((2..=5).contains(&most), "{most} at once, the messages about the bridge counted");
}

#[tokio::test]
async fn topics_are_named_once_where_the_broker_keeps_names_for_them() {
    let mut topics = Vec::new();
    for (maximum, are_used) in [(None, false), (Some(1), true), (Some(10), true)] {
        let mut bench = Bench::new();
        bench.append(100);
        let welcome = move |_| Welcome { topic_aliases: maximum, ..Welcome::default() };
        let broker = StubBroker::start(welcome, |_| Answer::Code(0)).await;
        bench.run(&format!("Topic Alias Maximum {maximum:?}"), &broker, |_| {}).await;
        broker.look(|came| {
            assert_eq!(came.aliased > 0, are_used, "{maximum:?}");
            assert!(came.largest_alias <= maximum.unwrap_or_default(), "{}", came.largest_alias);
            topics.push(came.topics.keys().cloned().collect::<Vec<_>>());
        });
    }
    assert!(topics.iter().all(|found| *found == topics[0]), "the same topics whatever names them: {topics:?}");
}

#[tokio::test]
async fn three_takeovers_in_a_minute_are_said_whatever_form_they_have() {
    for words in [vec![0xE0, 2, 0x8E, 0], vec![0xE0, 1, 0x8E]] {
        let mut bench = Bench::new();
        bench.append(200);
        let script = move |row: &crate::stub_broker::Publication| {
            if row.connection <= 4 && row.events[0].1.is_multiple_of(3) {
                Answer::Part(words.clone())
            } else {
                Answer::Code(0)
            }
        };
        let broker = StubBroker::start(|_| Welcome::default(), script).await;
        let mut uplink = Running::start(impatient(broker.port, &bench.store), &bench.store);
        let told =
            |status: &UplinkStatus| status.reason.as_deref().is_some_and(|text| text.contains("share one client id"));
        uplink.until("told of two bridges", told).await;
        uplink.stop().await;
        bench.run("session taken over (DISCONNECT 0x8E)", &broker, |_| {}).await;
    }
}

#[tokio::test]
async fn connections_that_are_reset_after_some_bytes_lose_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut bench = Bench::new();
    bench.append(600);
    let welcome = move |number: usize| {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(u64::try_from(number).unwrap()));
        let reset_after = (number <= 25).then(|| random.usize(1..20_000));
        Welcome { reset_after, ..Welcome::default() }
    };
    let broker = StubBroker::start(welcome, |_| Answer::Code(0)).await;
    bench.run("TCP reset after n bytes, 25 times", &broker, |settings| settings.limits.bundle = 7).await;
    assert!(broker.look(|came| came.connections) > 25, "seed {seed}");
}

#[tokio::test]
async fn a_broker_that_forgets_everything_and_a_network_that_parts_lose_nothing() {
    let (mut broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let gate = Gate::new(broker.address(), GateState::Open).await;
    let mut before = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(impatient(gate.port, &store), &store);
    let mut events = store.append_mix(200);
    before.until_all(&events).await;
    store.until_cursors_at_end().await;
    broker.kill().await;
    let away = store.append_mix(300);
    store.settle().await;
    uplink.until("disconnected", |status| !status.connected).await;
    // No subscriber, no delivery: the bridge comes after the consumer.
    gate.set(GateState::Closed);
    broker.start().await;
    let mut after = Consumer::subscribe(&broker).await;
    gate.set(GateState::Open);
    after.until_all(&away).await;
    events.extend(away);
    store.until_cursors_at_end().await;
    let outcome = Outcome::of(
        "broker killed and restarted, all sessions lost",
        &identities(&events),
        &counts(&[&before, &after]),
        0,
    );
    outcome.print();
    assert_eq!(outcome.lost, 0, "{outcome:?}");

    // A partition: nothing comes through, nothing is refused.
    let mut parted = store.append_mix(100);
    gate.set(GateState::Stalled);
    parted.extend(store.append_mix(200));
    store.settle().await;
    uplink.until("given up", |status| !status.connected && status.reason.is_some()).await;
    gate.set(GateState::Closed);
    gate.set(GateState::Open);
    after.until_all(&parted).await;
    store.until_cursors_at_end().await;
    events.extend(parted);
    let outcome = Outcome::of("network partition", &identities(&events), &counts(&[&before, &after]), 0);
    outcome.print();
    assert_eq!(outcome.lost, 0, "{outcome:?}");

    // Somebody else comes with the same client id, again and again.
    let mut doubled = Vec::new();
    for _ in 0..5 {
        let connected = uplink.until("connected", |status| status.connected).await;
        let mut other = Command::new("mosquitto_pub");
        other.args(["-V", "5", "-p", &broker.port.to_string(), "-i", "vitalbridge-b1", "-t", "test/other", "-m", "{}"]);
        assert!(other.stdout(Stdio::null()).status().await.unwrap().success());
        doubled.extend(store.append_mix(50));
        uplink.until("thrown out", |status| status.since > connected.since || !status.connected).await;
    }
    after.until_all(&doubled).await;
    store.until_cursors_at_end().await;
    events.extend(doubled);
    let outcome =
        Outcome::of("duplicate client id, five takeovers", &identities(&events), &counts(&[&before, &after]), 0);
    outcome.print();
    assert_eq!(outcome.lost, 0, "{outcome:?}");
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_backlog_arrives_whole() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut events = Vec::new();
    for _ in 0..10 {
        events.extend(store.append_mix(1000));
        store.settle().await;
    }
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    let last = Seq(store.next.0 - 1);
    while consumer.counts().len() < events.len() {
        consumer.next().await;
    }
    store.until_cursors_at_end().await;
    let outcome = Outcome::of("backlog of 10,000 rows", &identities(&events), &counts(&[&consumer]), 0);
    outcome.print();
    assert_eq!((outcome.lost, outcome.duplicates), (0, 0), "{outcome:?} up to {last}");
    uplink.stop().await;
    store.close().await;
}

/// The whole daemon with names of its own, which the test takes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_name_is_gone_gets_everything_when_the_name_is_back() {
    let name = "uplink_faults::a_broker_whose_name_is_gone_gets_everything_when_the_name_is_back";
    if !crate::mounts::are_allowed_here(name) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut broker = crate::broker::Broker::start(folder.path());
    let tally = Tally::start(broker.port());
    let house = House::new(broker.port());
    let (file, hosts, resolver) = (house.path("vitalbridge.toml"), house.path("hosts"), house.path("resolv.conf"));
    let by_address = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, by_address.replace("mqtt://127.0.0.1", "mqtt://broker.test")).unwrap();
    std::fs::write(&hosts, "127.0.0.1 localhost broker.test\n").unwrap();
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let mounts = format!(
        "mount --bind '{}' /etc/hosts && mount --bind '{}' /etc/resolv.conf",
        hosts.display(),
        resolver.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{mounts} && exec \"$0\" \"$@\"")]);
    command.arg(program().get_program()).args(house.arguments()).env("VITALBRIDGE_LOG", "debug");
    command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    let told = Told::of(&mut command);
    let bridge = Bridge::start_command_with_its_errors(command);
    eventually("events at the broker", DEADLINE, || (tally.counts("b1").len() > 5).then_some(())).await;

    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    broker.kill();
    broker.restart();
    eventually("the name is gone", DEADLINE, || told.has("failed to lookup address").then_some(())).await;
    let (before, sent) = (house.stored().len(), tally.counts("b1").len());
    eventually("more events", DEADLINE, || (house.stored().len() > before + 40).then_some(())).await;
    assert!(tally.counts("b1").len() <= sent + 20, "nothing gets through without a name");
    std::fs::write(&hosts, "127.0.0.1 localhost broker.test\n").unwrap();
    let waiting = house.stored();
    eventually("what waited at the broker", DEADLINE, || {
        let counts = tally.counts("b1");
        waiting.iter().all(|event| counts.contains_key(event)).then_some(())
    })
    .await;
    assert_eq!(bridge.stop(), Some(0));
    std::fs::write(&file, by_address).unwrap();
    let (produced, counts) = house.deliver_the_rest(&tally, "b1").await;
    let outcome = Outcome::of("DNS gone", &produced, &counts, 0);
    outcome.print();
    assert_eq!(outcome.lost, 0, "{outcome:?}");
}
