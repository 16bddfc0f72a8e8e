//! The whole daemon with real parts: the binary, an oximeter on a pty, mosquitto, and a dashboard of another library.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

use crate::bridge::{Bridge, eventually, token};
use crate::broker::Broker;
use crate::dashboard::{Came, Dashboard};
use crate::frames;
use crate::oximeter::Oximeter;

/// Names an event for ever.
type Identity = (String, u64);

fn identity(message: &Json) -> Identity {
    (message["epoch"].as_str().unwrap().to_owned(), message["seq"].as_u64().unwrap())
}

/// `mosquitto_sub` in the background: everything that reached the broker.
struct Subscriber {
    child: Child,
    received: Arc<Mutex<Vec<Json>>>,
    /// What the contract does not allow.
    problems: Arc<Mutex<Vec<String>>>,
}

impl Subscriber {
    fn start(port: u16) -> Self {
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-q", "1", "-c", "-i", "checker"])
            .args(["-x", "3600", "-t", "vitals/#", "-F", "%t\t%p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let problems = Arc::<Mutex<Vec<String>>>::default();
        let (list, found) = (Arc::clone(&received), Arc::clone(&problems));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let (topic, line) = line.split_once('\t').unwrap();
                found.lock().unwrap().extend(frames::problems_at_broker(topic, line));
                if let Ok(message) = serde_json::from_str::<Json>(line) {
                    let mut list = list.lock().unwrap();
                    // What waited for long comes in bundles.
                    list.extend(message["data"].as_array().into_iter().flatten().cloned());
                    list.push(message);
                }
            }
        });
        Self { child, received, problems }
    }

    /// Events of the log among what came, with their bodies.
    fn events(&self) -> BTreeMap<Identity, Json> {
        let received = self.received.lock().unwrap();
        let mut events = BTreeMap::new();
        assert_eq!(*self.problems.lock().unwrap(), Vec::<String>::new());
        for message in received.iter().filter(|message| message["seq"].is_u64()) {
            let before = events.insert(identity(message), message["data"].clone());
            // What comes twice is the same thing.
            assert!(before.is_none_or(|before| before == message["data"]), "{message}");
        }
        events
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A dashboard that comes back with `since` whenever it is cut off, and keeps what it saw.
struct Watcher {
    task: JoinHandle<()>,
    seen: Arc<Mutex<Vec<Identity>>>,
    first: Arc<Mutex<Option<u64>>>,
    address: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    fn start(token: String) -> Self {
        let (seen, first) = (Arc::<Mutex<Vec<Identity>>>::default(), Arc::<Mutex<Option<u64>>>::default());
        let (address, stop) = (Arc::<Mutex<Option<String>>>::default(), Arc::<AtomicBool>::default());
        let theirs = (Arc::clone(&seen), Arc::clone(&first), Arc::clone(&address), Arc::clone(&stop));
        #[expect(clippy::disallowed_methods, reason = "a test has no task list; `end` waits for this one")]
        let task = tokio::spawn(async move {
            let (seen, first, address, stop) = theirs;
            while !stop.load(Ordering::Relaxed) {
                let here = address.lock().unwrap().clone();
                if let Some(here) = here {
                    watch(&here, &token, &seen, &first).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { task, seen, first, address, stop }
    }

    fn look_at(&self, address: Option<&str>) {
        *self.address.lock().unwrap() = address.map(str::to_owned);
    }

    fn seen(&self) -> Vec<Identity> {
        assert!(!self.task.is_finished(), "the dashboard gave up");
        self.seen.lock().unwrap().clone()
    }

    /// No new connection from here on.
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end of the last connection and gives the first number it could have seen and what it saw. Fails
    /// with whatever the dashboard did not like.
    async fn end(self) -> (u64, Vec<Identity>) {
        self.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        match ended.expect("the dashboard was not cut off") {
            Ok(()) => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        let first = self.first.lock().unwrap().expect("no connection");
        (first, std::mem::take(&mut *self.seen.lock().unwrap()))
    }
}

/// One connection, from sign-in to its end.
async fn watch(address: &str, token: &str, seen: &Mutex<Vec<Identity>>, first: &Mutex<Option<u64>>) {
    let bearer = format!("Bearer {token}");
    let Ok(mut dashboard) = Dashboard::connect(address, "/ws", &[("Authorization", &bearer)]).await else { return };
    let mut subscribe = json!({"type": "subscribe", "channels": ["#"], "delivery": "all"});
    let position = seen.lock().unwrap().last().cloned();
    if let Some((epoch, seq)) = position {
        subscribe["since"] = json!({"epoch": epoch, "seq": seq});
    }
    dashboard.say(&subscribe).await;
    // Until the snapshot, what is newer than the join has overtaken the missed events and does not move the position.
    let (mut last_missed, mut ahead) = (None, Vec::new());
    loop {
        let Came::Message(message) = dashboard.read().await else { return };
        match message["type"].as_str().unwrap() {
            "subscribed" => {
                assert_eq!(message["data"]["lost"], json!([]), "{message}");
                last_missed = message["data"]["last_seq"].as_u64();
                first.lock().unwrap().get_or_insert(message["data"]["first_seq"].as_u64().unwrap());
            }
            "snapshot" => {
                last_missed = None;
                seen.lock().unwrap().append(&mut ahead);
            }
            "gap" => panic!("readings were skipped: {message}"),
            _ if message["channel"].is_string() => {
                let event = identity(&message);
                if last_missed.is_some_and(|last| event.1 > last) {
                    ahead.push(event);
                } else {
                    seen.lock().unwrap().push(event);
                }
            }
            _ => {}
        }
    }
}

fn config(state: &Path, port: &Path, broker: u16) -> String {
    format!(
        r#"
[bridge]
id = "whole"
[server]
listen = "127.0.0.1:0"
[store]
dir = "{state}"
group_commit_ms = 200
[mqtt]
broker = "mqtt://127.0.0.1:{broker}"
clock_hold = "0s"
[[patient]]
id = "P-1"
bed = "1"
[[source]]
id = "oximeter"
kind = "serial"
port = "{port}"
profile = "nonin-df2"
patient = "P-1"
mode = "test"
"#,
        state = state.display(),
        port = port.display(),
    )
}

/// Every event in the log of a daemon that has ended.
fn stored(state: &Path) -> BTreeSet<Identity> {
    let mut rows = rows_of(state, "reading");
    rows.extend(rows_of(state, "event"));
    rows
}

/// What became of messages for people, which no dashboard is told.
fn inboxes(state: &Path) -> BTreeSet<Identity> {
    rows_of(state, "event WHERE kind = 'inbox'")
}

fn rows_of(state: &Path, table: &str) -> BTreeSet<Identity> {
    let database = rusqlite::Connection::open(state.join("vitals.db")).unwrap();
    // A row belongs to the last run that began at or before it. Runs that stored nothing begin at the same number as the
    // next one.
    let sql =
        format!("SELECT (SELECT name FROM epoch WHERE first_seq <= seq ORDER BY id DESC LIMIT 1), seq FROM {table}");
    let mut statement = database.prepare(&sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).unwrap();
    found.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_through_the_loss_of_broker_and_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let oximeter = Oximeter::start(dir.path().join("port"));
    let mut broker = Broker::start(dir.path());
    let file = dir.path().join("vitalbridge.toml");
    std::fs::write(&file, config(&state, oximeter.path(), broker.port())).unwrap();
    let arguments = ["run", "--config", file.to_str().unwrap()];
    let subscriber = Subscriber::start(broker.port());

    let bridge = Bridge::start(&arguments);
    let watcher = Watcher::start(token(&state, &["--role", "viewer"]));
    watcher.look_at(Some(&bridge.address));
    let limit = Duration::from_secs(30);
    eventually("events at the broker", limit, || (subscriber.events().len() > 10).then_some(())).await;

    // The broker goes; readings wait in the store; the dashboard goes on.
    broker.kill();
    let before = watcher.seen().len();
    eventually("events without a broker", limit, || (watcher.seen().len() > before + 10).then_some(())).await;

    // The daemon goes in mid-stream, as by a power cut.
    bridge.kill();
    watcher.look_at(None);
    let bridge = Bridge::start(&arguments);
    watcher.look_at(Some(&bridge.address));
    let before = watcher.seen().len();
    eventually("events after the restart", limit, || (watcher.seen().len() > before + 10).then_some(())).await;

    // The broker comes back, and what waited arrives.
    broker.restart();
    let newest = watcher.seen().last().unwrap().clone();
    eventually("the waiting events at the broker", limit, || subscriber.events().contains_key(&newest).then_some(()))
        .await;
    watcher.stop();
    assert_eq!(bridge.stop(), Some(0));
    let (first, seen) = watcher.end().await;

    // The last second of a run is committed at its end and sent by the next one.
    let bridge = Bridge::start(&arguments);
    let all_before = stored(&state);
    eventually("the last events at the broker", limit, || {
        let received = subscriber.events();
        all_before.iter().all(|event| received.contains_key(event)).then_some(())
    })
    .await;
    assert_eq!(bridge.stop(), Some(0));

    // Whatever the broker has is in the log: nothing was sent that was not on disk.
    let (kept, received) = (stored(&state), subscriber.events());
    let invented: Vec<_> = received.keys().filter(|event| !kept.contains(*event)).collect();
    assert_eq!(invented, Vec::<&Identity>::new(), "not in the log");
    let epochs: BTreeSet<_> = kept.iter().map(|(epoch, _)| epoch).collect();
    assert_eq!(epochs.len(), 3, "three runs are three epochs");

    // The dashboard saw each stored event of its time once. Events that were shown and not yet on disk when the daemon
    // was killed are no part of the log; their numbers came again under another epoch.
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "an event came twice");
    let (_, last) = seen.last().unwrap().clone();
    let told = kept.difference(&inboxes(&state)).cloned().collect::<BTreeSet<_>>();
    let missed: Vec<_> =
        told.iter().filter(|(_, seq)| (first..=last).contains(seq)).filter(|event| !once.contains(*event)).collect();
    assert_eq!(missed, Vec::<&Identity>::new(), "the dashboard missed events");
}
