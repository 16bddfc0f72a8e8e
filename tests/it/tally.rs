//! Counts what reaches a broker: each event by its identity, how often it came, and under which topics.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;

use crate::bridge::{START_LIMIT, now};
use crate::frames;

/// Names an event of one bridge for ever.
pub(crate) type Identity = (String, u64);

/// Tells that the subscription is in force.
const READY: &str = "tally/ready";

#[derive(Default)]
struct Counted {
    is_listening: bool,
    /// How often each event of each bridge came.
    events: BTreeMap<String, BTreeMap<Identity, u64>>,
    /// The first two parts of each topic on which an event came.
    topics: BTreeSet<String>,
    /// Rule and change of the alerts that came, and of those that the broker keeps.
    alerts: BTreeSet<(String, String)>,
    present: BTreeSet<(String, String)>,
    /// What the bridge said last of itself.
    status: Json,
    /// What the contract does not allow.
    problems: Vec<String>,
}

/// `mosquitto_sub` with a session that the broker keeps: nothing is missed while the broker is away.
pub(crate) struct Tally {
    child: Child,
    counted: Arc<Mutex<Counted>>,
}

impl Tally {
    pub(crate) fn start(port: u16) -> Self {
        let port_text = port.to_string();
        let marker = ["-V", "5", "-h", "127.0.0.1", "-p", &port_text, "-q", "1", "-r", "-t", READY, "-m", "{}"];
        assert!(Command::new("mosquitto_pub").args(marker).status().unwrap().success());
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-q", "1", "-c", "-i", "tally"])
            .args(["-x", "3600", "-t", "#", "-F", "%t\t%p"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let counted = Arc::new(Mutex::new(Counted::default()));
        let list = Arc::clone(&counted);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let Some((topic, text)) = line.split_once('\t') else { continue };
                if topic == READY {
                    list.lock().unwrap().is_listening = true;
                    continue;
                }
                // The marker of another consumer of the same test.
                if topic.starts_with("test/") {
                    continue;
                }
                let problems = frames::problems_at_broker(topic, text);
                list.lock().unwrap().problems.extend(problems);
                let Ok(message) = serde_json::from_str::<Json>(text) else { continue };
                let mut list = list.lock().unwrap();
                // What the broker keeps repeats an event; it is not the delivery of one.
                if topic.contains("alert_present") {
                    list.present.extend(alert_of(&message));
                } else {
                    list.take(topic, &message);
                }
            }
        });
        let tally = Self { child, counted };
        // What comes before the subscription is in force is for nobody.
        let deadline = now() + START_LIMIT;
        while !tally.counted.lock().unwrap().is_listening {
            assert!(now() < deadline, "the subscription is not in force");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        tally
    }

    /// How often each event of a bridge came.
    pub(crate) fn counts(&self, bridge: &str) -> BTreeMap<Identity, u64> {
        let counted = self.counted.lock().unwrap();
        assert_eq!(counted.problems, Vec::<String>::new(), "not in the contract");
        counted.events.get(bridge).cloned().unwrap_or_default()
    }

    /// Whether the start of an alert of this rule came, as an event and as what stands.
    pub(crate) fn has_begun(&self, rule: &str) -> bool {
        let (counted, alert) = (self.counted.lock().unwrap(), (rule.to_owned(), "start".to_owned()));
        counted.alerts.contains(&alert) && counted.present.contains(&alert)
    }

    /// What the bridge said last of itself.
    pub(crate) fn status(&self) -> Json {
        self.counted.lock().unwrap().status.clone()
    }

    /// The first two parts of each topic on which an event came.
    pub(crate) fn topics(&self) -> BTreeSet<String> {
        self.counted.lock().unwrap().topics.clone()
    }
}

/// Rule and change of an alert.
fn alert_of(message: &Json) -> Option<(String, String)> {
    let text = |name: &str| message["data"][name].as_str().map(str::to_owned);
    text("rule").zip(text("change")).filter(|_| message["type"] == "alert")
}

impl Counted {
    fn take(&mut self, topic: &str, message: &Json) {
        self.alerts.extend(alert_of(message));
        if message["type"] == "status" {
            self.status = message["data"].clone();
        }
        let one = [message.clone()];
        let events = match message["data"].as_array() {
            Some(bundle) if message["type"] == "batch" => bundle.as_slice(),
            _ => &one,
        };
        for event in events {
            let (Some(bridge), Some(epoch), Some(seq)) =
                (event["bridge"].as_str(), event["epoch"].as_str(), event["seq"].as_u64())
            else {
                continue;
            };
            let counts = self.events.entry(bridge.to_owned()).or_default();
            *counts.entry((epoch.to_owned(), seq)).or_default() += 1;
            self.topics.insert(topic.split('/').take(2).collect::<Vec<_>>().join("/"));
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A row of the table of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) fault: String,
    pub(crate) produced: usize,
    pub(crate) received: usize,
    /// Deliveries of what had come before, with the same identity.
    pub(crate) duplicates: u64,
    /// Kept in the store, and told, because the broker does not take it.
    pub(crate) parked: usize,
    pub(crate) lost: usize,
}

impl Outcome {
    /// What was produced against what came, and how often.
    pub(crate) fn of<T: Ord>(fault: &str, produced: &BTreeSet<T>, counts: &BTreeMap<T, u64>, parked: usize) -> Self {
        let received = produced.iter().filter(|event| counts.contains_key(event)).count();
        let duplicates = counts.values().map(|count| count - 1).sum();
        let lost = produced.len() - received - parked;
        Self { fault: fault.to_owned(), produced: produced.len(), received, duplicates, parked, lost }
    }

    /// Prints the row; `--no-capture` shows it.
    pub(crate) fn print(&self) {
        let Self { fault, produced, received, duplicates, parked, lost } = self;
        println!("| {fault} | {produced} | {received} | {duplicates} | {parked} | {lost} |");
    }
}
