//! The uplink against a real Mosquitto: everything stored arrives, whatever happens to the broker, the link or the daemon.
#![cfg(test)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::{
    Activation, AlertChange, AlertEvent, AlertKind, ChatEvent, ChatMessage, Event, EventBody, Presence, Priority,
    Signal, SignalPresence,
};
use vitalbridge::ids::{AlertId, BridgeId, Epoch, Seq};
use vitalbridge::store::{self, Opened, Reader, StoreError, StoreHandle, StoreOptions};
use vitalbridge::uplink::access::{Access, Password};
use vitalbridge::uplink::plan::{HOLDING, Lane};
use vitalbridge::uplink::{self, About, Limits, TopicTemplate, UplinkConfig, UplinkError, UplinkStatus};
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};
use vitalbridge::wire;

use crate::frames;

/// Longest wait for anything that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Pause between two looks at a condition that nothing announces.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) const MOSQUITTO: &str = "/usr/sbin/mosquitto";

pub(crate) use crate::broker::free_port;

/// A Mosquitto on a port of its own.
pub(crate) struct Broker {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) process: Option<Child>,
}

impl Broker {
    /// Takes a port without starting anything on it. `extra` is added to the configuration.
    pub(crate) fn stopped(extra: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 100000\n\
             log_dest none\nuser root\n{extra}\n"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        Self { folder, port, process: None }
    }

    pub(crate) async fn started(extra: &str) -> Self {
        let mut broker = Self::stopped(extra);
        broker.start().await;
        broker
    }

    pub(crate) async fn start(&mut self) {
        let config = self.folder.path().join("mosquitto.conf");
        let mut command = Command::new(MOSQUITTO);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.process = Some(command.spawn().expect("mosquitto is installed"));
        let listening = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_err() {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(DEADLINE, listening).await.expect("mosquitto listens");
        // Tells a consumer when its subscription is in force.
        let mut marker = Command::new("mosquitto_pub");
        marker.args(["-V", "5", "-p", &self.port.to_string(), "-q", "1", "-r", "-t", "test/ready", "-m", "{}"]);
        assert!(marker.status().await.unwrap().success());
    }

    /// SIGKILL: nothing is said to anybody.
    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}

/// What a way to the broker does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GateState {
    Open,
    /// Connections are cut, new ones closed at once.
    Closed,
    /// Everything is accepted, and nothing comes through any more: a half-open link.
    Stalled,
}

/// A way to the broker that a test can cut.
pub(crate) struct Gate {
    pub(crate) port: u16,
    pub(crate) state: watch::Sender<GateState>,
    pub(crate) _tasks: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn new(target: SocketAddr, state: GateState) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = watch::Sender::new(state);
        let changes = state.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(carry(socket, target, changes.clone()));
            }
        });
        Self { port, state, _tasks: tasks }
    }

    pub(crate) fn set(&self, state: GateState) {
        self.state.send_replace(state);
    }
}

async fn carry(mut socket: TcpStream, target: SocketAddr, mut state: watch::Receiver<GateState>) {
    let Ok(mut broker) = TcpStream::connect(target).await else { return };
    loop {
        let now = *state.borrow_and_update();
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            _ = copy_bidirectional(&mut socket, &mut broker), if now == GateState::Open => return,
            () = std::future::ready(()), if now == GateState::Closed => return,
        }
    }
}

/// One message as a subscriber sees it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) qos: String,
    pub(crate) retained: String,
    pub(crate) content_type: String,
    pub(crate) properties: String,
    pub(crate) text: String,
    pub(crate) body: Json,
}

impl Received {
    pub(crate) fn is_event(&self) -> bool {
        // What the broker keeps repeats an event; it is not the delivery of one.
        self.body.get("seq").is_some() && !self.topic.contains("/alert_present")
    }

    pub(crate) fn seq(&self) -> u64 {
        self.body["seq"].as_u64().unwrap()
    }

    /// The identity, from the body alone.
    pub(crate) fn id(&self) -> String {
        let text = |name: &str| self.body[name].as_str().unwrap().to_owned();
        format!("{}:{}:{}", text("bridge"), text("epoch"), self.seq())
    }

    fn lane(&self) -> Lane {
        match (self.body["type"] == "health_update", self.body["historical"] == true) {
            (false, _) if matches!(self.body["type"].as_str(), Some("alert" | "limits_changed" | "system")) => {
                Lane::Alerts
            }
            (false, _) => Lane::Others,
            (true, false) => Lane::Live,
            (true, true) => Lane::Backlog,
        }
    }

    /// The events of a bundle, as if each had come by itself.
    fn events_in_it(&self) -> Vec<Self> {
        let events = if self.body["type"] == "batch" { self.body["data"].as_array().unwrap().clone() } else { vec![] };
        events.into_iter().map(|body| Self { text: body.to_string(), body, ..self.clone() }).collect()
    }
}

/// A subscriber of another make: `mosquitto_sub`.
pub(crate) struct Consumer {
    pub(crate) process: Child,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
    pub(crate) all: Vec<Received>,
    /// A message that comes at all comes within this.
    pub(crate) patience: Duration,
}

impl Consumer {
    pub(crate) async fn subscribe(broker: &Broker) -> Self {
        Self::with(broker.port, &["-V", "5"]).await
    }

    /// With these arguments of `mosquitto_sub` more.
    pub(crate) async fn with(port: u16, more: &[&str]) -> Self {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-p", &port.to_string(), "-q", "1", "-t", "vitals/#"]);
        command.args(["-t", "homeassistant/device/#", "-t", "test/ready"]).args(more);
        command.args(["-F", "%t\t%q\t%r\t%C\t%P\t%p"]).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().expect("mosquitto_sub is installed");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut consumer = Self { process, lines, all: Vec::new(), patience: DEADLINE };
        consumer.until("the subscription", |received| received.topic == "test/ready").await;
        consumer
    }

    /// Goes without a word.
    pub(crate) async fn leave(&mut self) {
        self.process.kill().await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Received {
        let line = timeout(self.patience, self.lines.next_line()).await.expect("a message");
        let line = line.unwrap().expect("a subscriber");
        let mut parts = line.splitn(6, '\t').map(str::to_owned);
        let mut part = || parts.next().unwrap();
        let (topic, qos, retained, content_type, properties, text) = (part(), part(), part(), part(), part(), part());
        // What is removed comes as an empty message.
        let parsed = if text.is_empty() { Ok(Json::Null) } else { serde_json::from_str(&text) };
        let body = parsed.unwrap_or_else(|error| panic!("{error}: {text}"));
        if topic != "test/ready" {
            self.check(&topic, &text, &body);
        }
        let received = Received { topic, qos, retained, content_type, properties, text, body };
        self.all.push(received.clone());
        self.all.extend(received.events_in_it());
        received
    }

    /// Holds a message to the contract. A command is the backend's, and may be wrong on purpose: but not one that was done.
    fn check(&self, topic: &str, text: &str, body: &Json) {
        if topic.ends_with("/cmd") {
            return;
        }
        frames::check_at_broker(topic, text);
        if topic.ends_with("/cmd_result") && body["data"]["ok"] == true {
            let is_its = |command: &&Received| {
                let id = command.body["correlation_id"].as_str().unwrap_or_default();
                command.topic.ends_with("/cmd") && body["correlation_id"] == id
            };
            let command = self.all.iter().find(is_its).expect("nobody gave this command");
            frames::check_at_broker(&command.topic, &command.text);
        }
    }

    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        timeout(self.patience, async {
            loop {
                let received = self.next().await;
                if wanted(&received) {
                    return received;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{what} has not come"))
    }

    /// The first message of this kind, from those that have come or will come.
    pub(crate) async fn find(&mut self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        match self.all.iter().find(|received| wanted(received)) {
            Some(received) => received.clone(),
            None => self.until(what, wanted).await,
        }
    }

    /// How often each identity has come.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for received in self.all.iter().filter(|received| received.is_event()) {
            *counts.entry(received.id()).or_default() += 1;
        }
        counts
    }

    /// Reads on until all of `events` have come.
    pub(crate) async fn until_all(&mut self, events: &[Event]) {
        let missing = |consumer: &Self| {
            let counts = consumer.counts();
            events.iter().map(id_of).find(|id| !counts.contains_key(id))
        };
        let arrive = async {
            while missing(self).is_some() {
                self.next().await;
            }
        };
        let arrived = timeout(DEADLINE, arrive).await;
        assert!(arrived.is_ok(), "{:?} has not come", missing(self));
    }

    /// Numbers of one lane in the order in which they came first.
    pub(crate) fn first_arrivals(&self, lane: Lane) -> Vec<u64> {
        let mut seen = Vec::new();
        for received in self.all.iter().filter(|received| received.is_event() && received.lane() == lane) {
            if !seen.contains(&received.seq()) {
                seen.push(received.seq());
            }
        }
        seen
    }

    pub(crate) fn assert_order(&self) {
        for lane in Lane::ALL {
            let arrivals = self.first_arrivals(*lane);
            assert!(arrivals.is_sorted(), "{lane} came out of order: {arrivals:?}");
        }
    }
}

pub(crate) fn id_of(event: &Event) -> String {
    format!("b1:{}:{}", event.epoch, event.seq)
}

/// A store at work.
pub(crate) struct Store {
    pub(crate) handle: StoreHandle,
    pub(crate) reader: Reader,
    pub(crate) epoch: Epoch,
    pub(crate) next: Seq,
    pub(crate) stop: CancellationToken,
    pub(crate) writer: JoinSet<Result<(), StoreError>>,
}

impl Store {
    pub(crate) fn open(folder: &Path, run: u64) -> Self {
        Self::open_with(folder, run, Duration::from_millis(100))
    }

    /// Whose groups are so far apart.
    pub(crate) fn open_with(folder: &Path, run: u64, group_commit: Duration) -> Self {
        let options = StoreOptions { group_commit, ..StoreOptions::default() };
        let opened = store::open(folder, &options, Epoch::from_bits(run), "boot-1", Clock::System.now()).unwrap();
        let Opened { writer, reader, handle, epoch, first_seq, .. } = opened;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(stop.clone()));
        Self { handle, reader, epoch, next: first_seq, stop, writer: tasks }
    }

    pub(crate) fn append(&mut self, body: EventBody) -> Event {
        let event = Event { epoch: self.epoch.clone(), seq: self.next, at: Clock::System.now(), body };
        self.next = self.next.next();
        self.handle.try_append(Arc::new(event.clone())).unwrap();
        event
    }

    /// As if it had happened so long ago.
    pub(crate) fn append_aged(&mut self, body: EventBody, age: Duration) -> Event {
        let now = Clock::System.now();
        let nanos = u64::try_from(age.as_nanos()).unwrap();
        let millis = i64::try_from(age.as_millis()).unwrap();
        let at = Stamp { mono: Mono(now.mono.0.saturating_sub(nanos)), wall: Wall(now.wall.0 - millis) };
        let event = Event { epoch: self.epoch.clone(), seq: self.next, at, body };
        self.next = self.next.next();
        self.handle.try_append(Arc::new(event.clone())).unwrap();
        event
    }

    /// `count` events, every tenth an alert.
    pub(crate) fn append_mix(&mut self, count: u64) -> Vec<Event> {
        let body = |number: u64| if number % 10 == 9 { alert(number) } else { reading(number) };
        (0..count).map(|number| self.append(body(number))).collect()
    }

    pub(crate) async fn settle(&self) {
        let newest = Seq(self.next.0 - 1);
        let mut durable = self.handle.durable();
        timeout(DEADLINE, durable.wait_for(|seq| *seq >= newest)).await.unwrap().unwrap();
    }

    /// The cursors of what is urgent, of others, and of readings.
    pub(crate) async fn cursors(&self) -> [Seq; 3] {
        let [urgent, others, readings] = HOLDING.map(|name| self.reader.cursor(name));
        [urgent.await.unwrap(), others.await.unwrap(), readings.await.unwrap()]
    }

    /// Waits until all lanes have come to the end, and that is stored.
    pub(crate) async fn until_cursors_at_end(&self) {
        let end = Seq(self.next.0 - 1);
        let at_end = async {
            while self.cursors().await != [end; 3] {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(DEADLINE, at_end).await.expect("the cursors are stored");
    }

    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        timeout(DEADLINE, self.writer.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }
}

pub(crate) fn reading(number: u64) -> EventBody {
    let now: Stamp = Clock::System.now();
    let value = Value::Valid(Decimal::integer(60 + i32::try_from(number % 40).unwrap()));
    EventBody::Reading(Reading {
        patient: Some("P-0001".parse().unwrap()),
        device: "strap-1".parse().unwrap(),
        source: "bed-4".parse().unwrap(),
        vital: Vital::scalar(Metric::HeartRate, value),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Test,
        taken: Taken::on_arrival(now),
        received: now,
    })
}

pub(crate) fn alert(number: u64) -> EventBody {
    let now = Clock::System.now().wall;
    EventBody::Alert(AlertEvent {
        alert: AlertId(uuid::Uuid::from_u128(u128::from(number))),
        change: AlertChange::Start,
        patient: Some("P-0001".parse().unwrap()),
        device: Some("strap-1".parse().unwrap()),
        rule: "hr_high".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority: Priority::High,
        metric: Some(Metric::HeartRate),
        value: None,
        limit: "above 150 bpm".to_owned(),
        message: "heart rate above 150 bpm".to_owned(),
        presence: Presence::True,
        audio: Signal { activation: Activation::On, presence: SignalPresence::On },
        visual: Signal { activation: Activation::On, presence: SignalPresence::On },
        onset: now,
        announced: now,
        paused_until: None,
        hidden_by: None,
        recurrence: 0,
        by: None,
        end_reason: None,
        escalated: 0,
        mode: Mode::Test,
    })
}

pub(crate) fn chat(bytes: usize) -> EventBody {
    let (room, sender) = ("ward-1".to_owned(), "nurse".to_owned());
    let (id, message) = (uuid::Uuid::from_u128(1), "x".repeat(bytes));
    EventBody::Chat(ChatEvent::Message(ChatMessage { id, room, sender, message }))
}

pub(crate) fn bridge() -> BridgeId {
    "b1".parse().unwrap()
}

pub(crate) fn config(port: u16, epoch: &Epoch) -> UplinkConfig {
    UplinkConfig {
        downlink: None,
        about: About::default(),
        broker: format!("mqtt://127.0.0.1:{port}").parse().unwrap(),
        access: Access::default(),
        client_id: "vitalbridge-b1".to_owned(),
        username: None,
        site: "icu".parse().unwrap(),
        bridge: bridge(),
        epoch: epoch.clone(),
        topic: TopicTemplate::default(),
        limits: Limits {
            reconnect_shortest: Duration::from_millis(20),
            reconnect_longest: Duration::from_millis(200),
            backlog_a_second: 0,
            ..Limits::default()
        },
    }
}

/// An uplink at work.
pub(crate) struct Running {
    pub(crate) status: watch::Receiver<UplinkStatus>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinSet<Result<(), UplinkError>>,
}

impl Running {
    pub(crate) fn start(config: UplinkConfig, store: &Store) -> Self {
        let (status_in, status) = watch::channel(UplinkStatus::default());
        let (reader, handle, stop) = (store.reader.clone(), store.handle.clone(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(uplink::run(config, reader, handle, status_in, Clock::System, 7, stop.clone()));
        Self { status, stop, task }
    }

    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&UplinkStatus) -> bool) -> UplinkStatus {
        let found = timeout(DEADLINE, self.status.wait_for(|status| wanted(status))).await;
        let found = found.map(|status| status.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not {what}: {:?}", *self.status.borrow()))
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        timeout(DEADLINE, self.task.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    }

    /// Ends it like a killed process: no farewell, the socket just goes.
    pub(crate) async fn kill(mut self) {
        self.task.shutdown().await;
    }
}

#[tokio::test]
async fn readings_and_alerts_arrive_once_each_with_their_identity() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    let mut events = store.append_mix(40);
    consumer.until_all(&events).await;
    events.extend(store.append_mix(60));
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;

    let counts = consumer.counts();
    assert_eq!(counts.len(), events.len());
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    consumer.assert_order();
    for event in &events {
        let received =
            consumer.all.iter().find(|received| received.is_event() && received.id() == id_of(event)).unwrap();
        assert_eq!(received.text, wire::upload(event, &bridge(), false).unwrap());
        let kind = wire::kind_of(&event.body);
        assert_eq!(received.topic, format!("vitals/v1/icu/b1/{kind}/strap-1"));
        assert_eq!((received.qos.as_str(), received.retained.as_str()), ("1", "0"));
        assert_eq!(received.content_type, "application/json");
        let properties = &received.properties;
        let expected =
            format!("id:{} source:b1 type:{kind} seq:{} historical:false schema:vitals/v1", id_of(event), event.seq);
        assert_eq!(properties, &expected);
    }
    let status = uplink.until("quiet", |status| status.waiting == 0 && status.in_flight == 0).await;
    assert_eq!((status.sent, status.parked, status.reason), (100, 0, None));
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_consumer_learns_who_the_bridge_is_before_its_first_row_and_how_it_left() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let events = store.append_mix(3);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    consumer.until_all(&events).await;
    let kinds: Vec<&str> = consumer.all.iter().skip(1).take(3).map(|received| received.topic.as_str()).collect();
    assert_eq!(kinds, ["vitals/v1/icu/b1/birth", "vitals/v1/icu/b1/status", "vitals/v1/icu/b1/health_update/strap-1"]);
    let birth = &consumer.all[1].body;
    assert_eq!(birth["data"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(birth["epoch"], store.epoch.as_str());

    let mut late = Consumer::subscribe(&broker).await;
    let retained = late.find("the retained status", |received| received.topic.ends_with("/status")).await;
    assert_eq!((retained.retained.as_str(), &retained.body["data"]["state"]), ("1", &Json::from("online")));

    uplink.stop().await;
    let offline = consumer.until("the farewell", |received| received.body["data"]["state"] == "offline").await;
    assert_eq!(offline.body["data"]["reason"], "stopped");
    store.close().await;
}

#[tokio::test]
async fn an_abrupt_end_makes_the_broker_publish_the_will() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let store = Store::open(folder.path(), 1);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    consumer.until("online", |received| received.body["data"]["state"] == "online").await;
    uplink.kill().await;
    let offline = consumer.until("the will", |received| received.body["data"]["state"] == "offline").await;
    assert_eq!(offline.topic, "vitals/v1/icu/b1/status");
    assert_eq!(offline.body["data"]["reason"], "connection_lost");
    let mut late = Consumer::subscribe(&broker).await;
    let retained = late.find("the retained status", |received| received.topic.ends_with("/status")).await;
    assert_eq!((retained.retained.as_str(), &retained.body), ("1", &offline.body));
}

#[tokio::test]
async fn rows_wait_in_the_store_while_there_never_was_a_broker() {
    let (mut broker, folder) = (Broker::stopped(""), tempfile::tempdir().unwrap());
    let gate = Gate::new(broker.address(), GateState::Closed).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(gate.port, &store.epoch), &store);
    let events = store.append_mix(300);
    store.settle().await;
    let status = uplink.until("waiting", |status| status.waiting == 300 && status.reason.is_some()).await;
    assert!(!status.connected);
    assert_eq!((status.sent, status.in_flight), (0, 0));
    assert_eq!(store.cursors().await, [Seq::ZERO; 3]);

    broker.start().await;
    let mut consumer = Consumer::subscribe(&broker).await;
    gate.set(GateState::Open);
    consumer.until_all(&events).await;
    consumer.assert_order();
    assert!(consumer.counts().values().all(|count| *count == 1));
    store.until_cursors_at_end().await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_killed_broker_gets_everything_after_its_restart() {
    let (mut broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let gate = Gate::new(broker.address(), GateState::Open).await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(gate.port, &store.epoch), &store);
    let mut events = store.append_mix(100);
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;

    for _ in 0..2 {
        broker.kill().await;
        let while_away = store.append_mix(200);
        store.settle().await;
        uplink.until("disconnected", |status| !status.connected && status.waiting == 200).await;
        // No subscriber, no delivery: the broker must not take rows before the consumer has come back.
        gate.set(GateState::Closed);
        broker.start().await;
        let mut again = Consumer::subscribe(&broker).await;
        gate.set(GateState::Open);
        again.until_all(&while_away).await;
        again.assert_order();
        store.until_cursors_at_end().await;
        events.extend(while_away);
        let late = store.append_mix(10);
        again.until_all(&late).await;
        store.until_cursors_at_end().await;
        events.extend(late);
        consumer.all.extend(again.all);
    }
    let counts = consumer.counts();
    assert_eq!(counts.len(), events.len());
    assert!(counts.values().all(|count| *count == 1), "everything was confirmed before each cut");
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_loses_nothing() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let gate = Gate::new(broker.address(), GateState::Open).await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut config = config(gate.port, &store.epoch);
    config.limits.bundle = 7;
    let mut uplink = Running::start(config, &store);
    let mut events = store.append_mix(1000);
    for cut in 1..=8_u64 {
        uplink.until("sending", |status| status.sent >= cut * 25).await;
        gate.set(GateState::Closed);
        uplink.until("disconnected", |status| !status.connected).await;
        events.extend(store.append_mix(50));
        gate.set(GateState::Open);
    }
    consumer.until_all(&events).await;
    consumer.assert_order();
    store.until_cursors_at_end().await;
    assert_eq!(consumer.counts().len(), events.len());
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_half_open_link_is_noticed_and_left() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let gate = Gate::new(broker.address(), GateState::Open).await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut config = config(gate.port, &store.epoch);
    config.limits.ack_timeout = Duration::from_millis(500);
    config.limits.connect_timeout = Duration::from_millis(500);
    let mut uplink = Running::start(config, &store);
    let mut events = store.append_mix(20);
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;
    gate.set(GateState::Stalled);
    events.extend(store.append_mix(20));
    let status = uplink.until("disconnected", |status| !status.connected).await;
    assert!(status.reason.unwrap().contains("answers no publication"));
    // CONNECT is swallowed too.
    let unanswered = "does not answer the connection request";
    uplink.until("unanswered", |status| status.reason.as_deref().is_some_and(|text| text.contains(unanswered))).await;
    gate.set(GateState::Open);
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_new_run_of_the_daemon_goes_on_where_the_last_one_stopped() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut events = Vec::new();
    for run in 1..=3 {
        let mut store = Store::open(folder.path(), run);
        let uplink = Running::start(config(broker.port, &store.epoch), &store);
        events.extend(store.append_mix(50));
        consumer.until_all(&events).await;
        uplink.stop().await;
        store.close().await;
    }
    assert_eq!(consumer.counts().len(), 150);
    assert!(consumer.counts().values().all(|count| *count == 1), "a stop on purpose repeats nothing");
    consumer.assert_order();
}

#[tokio::test]
async fn what_a_killed_daemon_sends_again_has_the_same_identity() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let events = store.append_mix(50);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    consumer.until_all(&events).await;
    // The cursors of the last moments may not be stored: the writer goes with the process.
    uplink.kill().await;
    store.writer.shutdown().await;
    let cursors = store.cursors().await;
    drop(store);

    let mut store = Store::open(folder.path(), 2);
    let new = store.append_mix(50);
    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    consumer.until_all(&new).await;
    let counts = consumer.counts();
    assert_eq!(counts.len(), 100, "cursors were {cursors:?}");
    for event in &new {
        assert_eq!(counts[&id_of(event)], 1);
    }
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_topic_the_broker_does_not_authorise_parks_its_rows_and_the_rest_goes_on() {
    let mut broker = Broker::stopped("");
    let rules = broker.folder.path().join("acl");
    let text = "topic read #\ntopic write test/ready\ntopic write vitals/v1/icu/b1/health_update/#\n\
                topic write vitals/v1/icu/b1/status\n";
    std::fs::write(&rules, text).unwrap();
    let file = broker.folder.path().join("mosquitto.conf");
    let config_text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{config_text}acl_file {}\n", rules.display())).unwrap();
    broker.start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    let events = store.append_mix(50);
    let readings: Vec<Event> =
        events.iter().filter(|event| matches!(event.body, EventBody::Reading(_))).cloned().collect();
    consumer.until_all(&readings).await;
    let status = uplink.until("parked", |status| status.parked == 5).await;
    assert!(status.last_parked.unwrap().reason.contains("0x87"));
    store.until_cursors_at_end().await;
    assert_eq!(consumer.counts().len(), readings.len());
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_row_too_large_for_the_broker_is_parked_whether_it_announces_its_limit_or_not() {
    for limit in ["max_packet_size 4096", "message_size_limit 4096"] {
        let (broker, folder) = (Broker::started(limit).await, tempfile::tempdir().unwrap());
        let mut consumer = Consumer::subscribe(&broker).await;
        let mut store = Store::open(folder.path(), 1);
        let mut events = store.append_mix(30);
        let large = store.append(chat(8000));
        events.extend(store.append_mix(30));
        let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
        consumer.until_all(&events).await;
        let status = uplink.until("parked", |status| status.parked == 1).await;
        assert_eq!(status.last_parked.unwrap().seq, large.seq, "{limit}");
        store.until_cursors_at_end().await;
        assert_eq!(consumer.counts().len(), events.len(), "{limit}");
        uplink.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_stored_row_that_makes_no_event_is_parked_and_those_around_it_arrive() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut store = Store::open(folder.path(), 1);
    let mut events = store.append_mix(30);
    store.settle().await;
    store.close().await;
    let database = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let database = database.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "db")).unwrap();
    let connection = rusqlite::Connection::open(database).unwrap();
    assert_eq!(connection.execute("UPDATE reading SET stream = 999 WHERE seq = 15", []).unwrap(), 1);
    drop(connection);

    let mut consumer = Consumer::subscribe(&broker).await;
    let store = Store::open(folder.path(), 2);
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    events.retain(|event| event.seq != Seq(15));
    consumer.until_all(&events).await;
    let status = uplink.until("parked", |status| status.parked == 1).await;
    assert!(status.last_parked.unwrap().reason.contains("999"));
    store.until_cursors_at_end().await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_stop_is_bounded_even_if_the_broker_has_gone_silent() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let gate = Gate::new(broker.address(), GateState::Open).await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(gate.port, &store.epoch), &store);
    let mut events = store.append_mix(10);
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;
    gate.set(GateState::Stalled);
    events.extend(store.append_mix(10));
    uplink.until("under way", |status| status.in_flight == 10).await;
    // Two seconds for answers and one for the socket; the watchdog would take twenty.
    timeout(Duration::from_secs(10), uplink.stop()).await.expect("a bounded stop");
    let will = consumer.until("the will", |received| received.body["data"]["state"] == "offline").await;
    assert_eq!(will.body["data"]["reason"], "connection_lost");

    let uplink = Running::start(config(broker.port, &store.epoch), &store);
    consumer.until_all(&events).await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_broker_that_wants_a_password_gets_it_and_a_wrong_one_is_named() {
    let mut broker = Broker::stopped("");
    let (file, passwords) = (broker.folder.path().join("mosquitto.conf"), broker.folder.path().join("passwords"));
    let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args(["b1", "right"]).status().await;
    assert!(made.unwrap().success());
    // The test's own tools stay anonymous on a second listener.
    let open = format!("listener {} 127.0.0.1\nallow_anonymous true\n", broker.port);
    let locked_port = free_port();
    let locked =
        format!("listener {locked_port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n", passwords.display());
    std::fs::write(&file, format!("per_listener_settings true\nuser root\nlog_dest none\n{open}{locked}")).unwrap();
    broker.start().await;

    let folder = tempfile::tempdir().unwrap();
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let events = store.append_mix(10);
    let with = |password: &str| {
        let file = broker.folder.path().join(password);
        std::fs::write(&file, password).unwrap();
        let access = Access { password: Some(Password::File(file)), ..Access::default() };
        UplinkConfig { username: Some("b1".to_owned()), access, ..config(locked_port, &store.epoch) }
    };
    let (wrong, right) = (with("wrong"), with("right"));
    let mut uplink = Running::start(wrong, &store);
    let status = uplink.until("refused", |status| status.reason.is_some()).await;
    let reason = "the broker refuses the connection: NotAuthorized; check mqtt.username, the password or token, and \
                  mqtt.client_id";
    assert_eq!(status.reason.as_deref(), Some(reason));
    uplink.stop().await;
    let uplink = Running::start(right, &store);
    consumer.until_all(&events).await;
    uplink.stop().await;
    store.close().await;
}

/// A broker of few words: accepts each connection, says what it was told to say, and closes.
async fn stub(words: &'static [u8]) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut connect = [0; 512];
            // The client may be gone already; the next one is waiting.
            if socket.read(&mut connect).await.is_ok_and(|read| read > 0) {
                let _ = socket.write_all(words).await;
            }
        }
    });
    (port, tasks)
}

#[tokio::test]
async fn two_bridges_with_one_client_id_are_told_so() {
    // CONNACK, success, no properties; DISCONNECT with reason 0x8E, session taken over. Mosquitto 2.0.11 just closes.
    let (port, _stub) = stub(&[0x20, 3, 0, 0, 0, 0xE0, 2, 0x8E, 0]).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), 1);
    let mut uplink = Running::start(config(port, &store.epoch), &store);
    let told =
        |status: &UplinkStatus| status.reason.as_deref().is_some_and(|text| text.contains("share one client id"));
    uplink.until("told", told).await;
    uplink.stop().await;
    store.close().await;
}

#[tokio::test]
async fn a_broker_without_qos_1_gets_nothing() {
    // CONNACK with the property Maximum QoS (36) 0.
    let (port, _stub) = stub(&[0x20, 5, 0, 0, 2, 36, 0]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    store.append_mix(10);
    let mut uplink = Running::start(config(port, &store.epoch), &store);
    let told = |status: &UplinkStatus| status.reason.as_deref() == Some("the broker allows no QoS 1");
    assert_eq!(uplink.until("told", told).await.sent, 0);
    uplink.stop().await;
    store.close().await;
}

/// What a long absence left goes out in bundles, marked; what comes meanwhile goes ahead of it, unmarked.
#[tokio::test]
async fn the_present_does_not_wait_for_the_past() {
    let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let mut consumer = Consumer::subscribe(&broker).await;
    let mut store = Store::open(folder.path(), 1);
    let past = store.append_mix(2000);
    store.settle().await;
    let mut config = config(broker.port, &store.epoch);
    // Thirty-six bundles at two a second: the past takes longer than the present has to wait for.
    config.limits.backlog_a_second = 2;
    let mut uplink = Running::start(config, &store);
    uplink.until("draining", |status| status.backlog > 0 && status.sent > 0).await;
    let present = store.append_mix(30);
    consumer.until_all(&present).await;
    let status = uplink.until("measured", |status| status.backlog_seconds.is_some()).await;
    assert!(status.backlog > 500, "{status:?}");
    consumer.until_all(&past).await;
    store.until_cursors_at_end().await;

    let newest = past.last().unwrap().seq.0;
    for received in consumer.all.iter().filter(|received| received.body["type"] == "health_update") {
        assert_eq!(received.body["historical"] == true, received.seq() <= newest, "{received:?}");
    }
    let bundles: Vec<&Received> = consumer.all.iter().filter(|received| received.body["type"] == "batch").collect();
    assert!(bundles.len() >= 36, "{}", bundles.len());
    for bundle in bundles {
        assert!(bundle.topic.ends_with("/b1/batch") && bundle.properties.contains("historical:true"), "{bundle:?}");
        let numbers: Vec<u64> = bundle.events_in_it().iter().map(Received::seq).collect();
        assert!(numbers.is_sorted() && numbers.len() <= 50, "{numbers:?}");
        let ends = [&bundle.body["first_seq"], &bundle.body["last_seq"]].map(Json::as_u64);
        assert_eq!(ends, [numbers.first().copied(), numbers.last().copied()]);
    }
    assert!(consumer.counts().values().all(|count| *count == 1));
    uplink.stop().await;
    store.close().await;
}
