//! Live readings that come while fifty thousand rows drain to a real broker: they arrive ahead of the rows that wait.
#![cfg(test)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;

use crate::backlog::{fill, numbers};
use crate::bridge::eventually;
use crate::frames;
use crate::mqtt::{Broker, Running, Store, config, reading};

/// Rows that wait.
const ROWS: u64 = 50_000;

/// Readings that come meanwhile.
const LIVE: usize = 20;

/// Bundles of the backlog a second: about sixteen seconds of it.
const A_SECOND: u16 = 60;

/// Bundles that may arrive between the commit of a reading and its own arrival: twice the window, which is the most that can
/// be under way, and as much again for what the pace allows while the reading is read.
const BETWEEN: usize = 2 * 32;

/// Longest wait for anything that must happen.
const DEADLINE: Duration = Duration::from_mins(10);

/// What has come, in its order.
#[derive(Default)]
struct Arrived {
    /// The subscription is in force.
    is_listening: bool,
    /// Bundles of the backlog.
    bundles: usize,
    /// How often each row of the backlog came.
    rows: BTreeMap<u64, usize>,
    /// Live readings: their numbers, and how many bundles came before.
    live: Vec<(u64, usize)>,
    problems: Vec<String>,
}

impl Arrived {
    fn take(&mut self, topic: &str, text: &str) {
        if topic == "test/ready" {
            self.is_listening = true;
            return;
        }
        if topic.ends_with("/batch") {
            // Each one would take longer than it is on its way.
            if self.bundles.is_multiple_of(100) {
                self.problems.extend(frames::problems_at_broker(topic, text));
            }
            self.bundles += 1;
            for seq in numbers(text) {
                *self.rows.entry(seq).or_default() += 1;
            }
            return;
        }
        self.problems.extend(frames::problems_at_broker(topic, text));
        let message: Json = serde_json::from_str(text).unwrap();
        if message["type"] == "health_update" && message["historical"] != true {
            self.live.push((message["seq"].as_u64().unwrap(), self.bundles));
        }
    }
}

/// Notes what `mosquitto_sub` gets, until it ends.
fn listen(port: u16) -> (std::process::Child, Arc<Mutex<Arrived>>) {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-q", "1", "-t", "vitals/#"]);
    command.args(["-t", "test/ready", "-F", "%t\t%p"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let arrived = Arc::<Mutex<Arrived>>::default();
    let list = Arc::clone(&arrived);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let (topic, text) = line.split_once('\t').unwrap();
            list.lock().unwrap().take(topic, text);
        }
    });
    (child, arrived)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_live_reading_that_comes_while_fifty_thousand_rows_drain_arrives_ahead_of_them() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let state = folder.path().to_owned();
    tokio::task::spawn_blocking(move || fill(&state, ROWS)).await.unwrap();
    let mut store = Store::open(folder.path(), 2);
    let (mut consumer, arrived) = listen(broker.port);
    eventually("the subscription", DEADLINE, || arrived.lock().unwrap().is_listening.then_some(())).await;
    let mut settings = config(broker.port, &store.epoch);
    settings.limits.backlog_a_second = A_SECOND;
    let uplink = Running::start(settings, &store);
    let bundles = || arrived.lock().unwrap().bundles;
    let mut given = Vec::new();
    for number in 0..LIVE {
        // Spread over the drain, by what has come of it.
        let so_far = 20 + number * 40;
        eventually("more of the backlog", DEADLINE, || (bundles() >= so_far).then_some(())).await;
        let event = store.append(reading(u64::try_from(number).unwrap()));
        store.settle().await;
        given.push((event.seq.0, bundles()));
    }
    let all = |arrived: &Arrived| (1..=ROWS).all(|seq| arrived.rows.contains_key(&seq)) && arrived.live.len() >= LIVE;
    eventually("everything", DEADLINE, || all(&arrived.lock().unwrap()).then_some(())).await;
    uplink.stop().await;
    store.close().await;
    consumer.kill().unwrap();
    consumer.wait().unwrap();

    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived.problems, Vec::<String>::new());
    assert!(arrived.rows.values().all(|times| *times == 1), "a row of the backlog came again");
    let live: Vec<u64> = arrived.live.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(live, given.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), "each once, in their order");
    for ((seq, at), (_, came)) in given.iter().zip(&arrived.live) {
        let (between, left) = (came.saturating_sub(*at), arrived.bundles - came);
        assert!(left > 0, "{seq} came behind the last of {} bundles", arrived.bundles);
        assert!(between <= BETWEEN, "{between} bundles came between the reading {seq} and its arrival");
    }
}
