//! Bluetooth through the whole daemon: the real binary with its own limits, a private D-Bus with a fake BlueZ on one side
//! and a dashboard on the other.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use crate::ble::{BEATING, OTHER, STRAP};
use crate::bridge::{Bridge, program, token};
use crate::dashboard::Dashboard;
use crate::fake_bluez::{Bus, FakeBluez, OnConnect, PATIENCE, Pairs, Strap, World};

pub(crate) const CUFF: &str = "C0:FF:EE:00:00:0A";
/// Longer than any limit of the daemon: a connect has 20 s, a subscription 30 s.
const LONG: Duration = Duration::from_mins(2);

/// Wall time, for figures only: nothing is asserted about it.
#[expect(clippy::disallowed_methods, reason = "a test measures the real time of a real daemon")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn strap() -> Strap {
    Strap::new(STRAP, "Strap").sending(&BEATING)
}

/// A cuff that wants to be paired so, and has 120/80 mmHg to tell (BLS 1.1.1, 3.1.1).
pub(crate) fn cuff(pairs: Pairs) -> Strap {
    Strap::cuff(CUFF, "Cuff", &[&[0x00, 120, 0, 80, 0, 93, 0]]).pairing(pairs)
}

/// A source for each of these sensors, `source-0` of the patient P-0 and so on.
pub(crate) fn config(sensors: &[(&str, &str)]) -> String {
    let mut text = "[bridge]\nid = \"b\"\n".to_owned();
    for (place, (address, sensor)) in sensors.iter().enumerate() {
        let source = format!("id = \"source-{place}\"\nkind = \"ble\"\naddress = \"{address}\"\nsensor = \"{sensor}\"");
        writeln!(text, "[[patient]]\nid = \"P-{place}\"\n[[source]]\n{source}\npatient = \"P-{place}\"").unwrap();
    }
    text
}

/// A daemon on a bus, and a dashboard at it.
pub(crate) struct Daemon {
    pub(crate) bridge: Bridge,
    pub(crate) dashboard: Dashboard,
    pub(crate) token: String,
    state: PathBuf,
}

impl Daemon {
    pub(crate) async fn start(bus: &Bus, config: &str) -> Self {
        let (file, state) = (bus.folder().join("vitalbridge.toml"), bus.folder().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(&file, config).unwrap();
        let mut command = program();
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).args(["run", "--listen", "127.0.0.1:0", "--config"]);
        command.arg(&file).arg("--state-dir").arg(&state);
        let bridge = Bridge::start_command(command);
        let token = token(&state, &["--role", "admin"]);
        let headers = [("Authorization", &*format!("Bearer {token}"))];
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &headers).await.unwrap();
        dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
        dashboard.next_of("snapshot").await;
        Self { bridge, dashboard, token, state }
    }

    /// Reads on until the dashboard gets something that fits.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut links = vec![];
        let reading_on = async {
            loop {
                let message = self.dashboard.next().await;
                if fits(&message) {
                    return message;
                }
                if message["type"] == "device_status" {
                    links.push(message["data"].clone());
                }
            }
        };
        let heard = tokio::time::timeout(LONG, reading_on).await;
        heard.unwrap_or_else(|_| panic!("never at the dashboard: {what}; the links were {links:#?}"))
    }

    /// The next reading of this metric.
    pub(crate) async fn reading(&mut self, metric: &str) -> Value {
        self.until(metric, |message| message["data"]["metric"] == metric).await["data"].take()
    }

    /// Until a source says that its link is so, for a reason that begins with these words.
    async fn link(&mut self, state: &str, words: &str) -> Value {
        let fits = |message: &Value| {
            let data = &message["data"];
            data["link"] == state && data["reason"].as_str().unwrap_or("").starts_with(words)
        };
        self.until(&format!("{state}: {words}"), fits).await["data"].take()
    }

    /// Waits until the daemon knows that the adapter is off: it may have said so before anybody listened.
    async fn until_off(&self) {
        let is_told = async {
            while self.radio().await["radio"]["obstacle"] != "switched_off" {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LONG, is_told).await.expect("the daemon knows that its adapter is off");
    }

    /// What `GET` of this path answers, by another program than the daemon.
    pub(crate) async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = &self.bridge.address;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        let request = format!("{head}authorization: Bearer {}\r\n\r\n", self.token);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// `GET /api/v1/ble`.
    pub(crate) async fn radio(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/ble").await).unwrap()
    }

    fn stop(self) {
        assert_eq!(self.bridge.stop(), Some(0));
    }
}

/// A bus, a BlueZ and a daemon that reads one strap.
struct Rig {
    bus: Bus,
    bluez: FakeBluez,
    daemon: Daemon,
}

impl Rig {
    async fn with(world: World, config: &str) -> Self {
        let bus = Bus::start().await;
        let bluez = FakeBluez::start(&bus, world).await;
        let daemon = Daemon::start(&bus, config).await;
        Self { bus, bluez, daemon }
    }

    async fn of(strap: Strap) -> Self {
        Self::with(World::new(vec![strap]), &config(&[(STRAP, "heart_rate")])).await
    }

    async fn reading() -> Self {
        let mut rig = Self::of(strap()).await;
        rig.daemon.reading("heart_rate").await;
        rig
    }

    /// How long it is from now to the next reading. The daemon is killed then: an orderly end would be waited for by the
    /// thread on which the other fakes live.
    async fn next(mut self) -> Duration {
        let since = now();
        self.daemon.reading("heart_rate").await;
        since.elapsed()
    }
}

/// What breaks; how long it is from its end to the next reading at the dashboard is measured.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Connect(OnConnect),
    Absent,
    LinkDrops,
    DaemonKilled,
    BusKilled,
    Unplugged,
    SwitchedOff,
    MatchRules,
    Silent,
    SlowBus,
}

/// Each fault of this table, in words; since when the time is counted; and the end of the fault.
const FAULTS: &[(Fault, &str, &str)] = &[
    (Fault::Connect(OnConnect::DropsAtOnce), "peer drops before its services resolve", "the connect"),
    (Fault::Connect(OnConnect::NeverResolves), "link without services", "the connect"),
    (Fault::Connect(OnConnect::Fails), "le-connection-abort-by-local", "the connect"),
    (Fault::Connect(OnConnect::InProgress), "InProgress", "the connect"),
    (Fault::Connect(OnConnect::NeverAnswers), "connect never answers", "the connect"),
    (Fault::Absent, "absent peer", "its return"),
    (Fault::LinkDrops, "link drops", "the loss is told"),
    (Fault::DaemonKilled, "bluetoothd killed", "its return"),
    (Fault::BusKilled, "D-Bus killed, and bluetoothd with it", "their return"),
    (Fault::Unplugged, "adapter unplugged", "plugged in"),
    (Fault::SwitchedOff, "adapter switched off by a person", "switched on"),
    (Fault::MatchRules, "match rules used up", "the limit is lifted"),
    (Fault::Silent, "notifications fall silent", "the last reading"),
    (Fault::SlowBus, "slow bus, 300 ms an answer", "the start of the daemon"),
];

async fn measured(fault: Fault) -> Duration {
    match fault {
        Fault::Connect(outcome) => {
            let mut strap = strap();
            strap.on_connect = vec![outcome];
            let rig = Rig::of(strap).await;
            rig.bluez.until("a connect", |world| world.count("Connect") == 1).await;
            rig.next().await
        }
        Fault::Absent => {
            let mut strap = strap();
            strap.in_range = false;
            let rig = Rig::of(strap).await;
            rig.bluez.until("a scan", |world| world.count("StartDiscovery") == 1).await;
            rig.bluez.change(|world| world.strap(STRAP).in_range = true).await;
            rig.next().await
        }
        Fault::LinkDrops => {
            let mut rig = Rig::reading().await;
            rig.bluez.change(|world| world.drop_link(STRAP)).await;
            rig.daemon.link("lost", "the sensor dropped the link").await;
            rig.next().await
        }
        Fault::DaemonKilled => {
            let Rig { bus, bluez, mut daemon } = Rig::reading().await;
            let kernel = bluez.kill().await;
            daemon.link("lost", "bluetoothd does not run").await;
            let bluez = FakeBluez::start(&bus, kernel).await;
            Rig { bus, bluez, daemon }.next().await
        }
        Fault::BusKilled => bus_killed().await,
        Fault::Unplugged => {
            let mut rig = Rig::reading().await;
            rig.bluez.change(World::unplug).await;
            rig.daemon.link("lost", "the Bluetooth adapter was unplugged").await;
            rig.bluez.change(World::plug_in).await;
            rig.next().await
        }
        Fault::SwitchedOff => {
            let mut rig = Rig::reading().await;
            rig.bluez.change(|world| world.power(false)).await;
            rig.daemon.link("lost", "the Bluetooth adapter is switched off").await;
            rig.bluez.change(|world| world.power(true)).await;
            rig.next().await
        }
        Fault::MatchRules => match_rules().await,
        Fault::Silent => silent().await,
        Fault::SlowBus => {
            let mut world = World::new(vec![strap()]);
            world.late_turns = 30;
            Rig::with(world, &config(&[(STRAP, "heart_rate")])).await.next().await
        }
    }
}

async fn bus_killed() -> Duration {
    let Rig { mut bus, bluez, mut daemon } = Rig::reading().await;
    bus.kill().await;
    daemon.until("the loss", |message| message["data"]["link"] == "lost").await;
    bus.run().await;
    let kernel = bluez.abandon().await;
    let bluez = FakeBluez::start(&bus, kernel).await;
    Rig { bus, bluez, daemon }.next().await
}

/// Nobody says that the link is dead: counted from the last measurement on.
async fn silent() -> Duration {
    let mut rig = Rig::reading().await;
    rig.bluez.change(|world| world.strap(STRAP).measurement = None).await;
    let since = now();
    rig.bluez.until("a disconnect", |world| world.count("Disconnect") == 1).await;
    rig.bluez.change(|world| world.strap(STRAP).measurement = Some(BEATING.to_vec())).await;
    rig.daemon.link("silent", "no readable measurement for 8 s").await;
    rig.daemon.link("live", "").await;
    rig.daemon.reading("heart_rate").await;
    since.elapsed()
}

/// The bus allows each client five: enough to watch BlueZ, and on the connection of btleplug for four straps.
async fn match_rules() -> Duration {
    let mut bus = Bus::absent();
    bus.match_rules = 5;
    bus.run().await;
    let addresses = [STRAP, OTHER, "C0:FF:EE:00:00:03", "C0:FF:EE:00:00:04", "C0:FF:EE:00:00:05"];
    let straps = addresses.map(|address| Strap::new(address, "Strap").sending(&BEATING));
    let bluez = FakeBluez::start(&bus, World::new(straps.into())).await;
    let sensors = addresses.map(|address| (address, "heart_rate"));
    let mut daemon = Daemon::start(&bus, &config(&sensors)).await;
    let limit = |message: &Value| message["data"]["reason"].as_str().unwrap_or("").contains("match rules");
    daemon.until("the limit", limit).await;
    bus.allow_match_rules(512).await;
    let since = now();
    for source in 0..addresses.len() {
        let source = format!("source-{source}");
        daemon.until(&source, |message| message["data"]["source_id"] == source && message["data"]["value"] == 72).await;
    }
    drop(bluez);
    since.elapsed()
}

#[tokio::test]
async fn after_each_fault_the_next_reading_comes_to_the_dashboard() {
    // Three at a time: most of them wait most of the time.
    let table = stream::iter(FAULTS).map(|(fault, words, from)| async move { (words, from, measured(*fault).await) });
    let table: Vec<_> = table.buffered(3).collect().await;
    println!("| fault | from | next reading at the dashboard after |\n|---|---|---|");
    for (fault, from, waited) in table {
        println!("| {fault} | {from} | {:.1} s |", waited.as_secs_f32());
        // The daemon's own longest limit for any of these is 20 s.
        assert!(waited < LONG, "{fault}: {waited:?}");
    }
}

#[tokio::test]
async fn an_adapter_that_is_off_is_left_off_through_every_restart_and_said_to_be_off() {
    let mut world = World::new(vec![strap()]);
    world.powered = false;
    let Rig { bus, bluez, mut daemon } = Rig::with(world, &config(&[(STRAP, "heart_rate")])).await;
    let off = "the Bluetooth adapter is switched off; `bluetoothctl power on` switches it on";
    // Off when the daemon starts.
    daemon.until_off().await;
    // bluetoothd is started anew.
    let kernel = bluez.kill().await;
    daemon.link("lost", "bluetoothd does not run").await;
    let bluez = FakeBluez::start(&bus, kernel).await;
    daemon.link("lost", off).await;
    // The daemon is started anew.
    daemon.stop();
    let mut daemon = Daemon::start(&bus, &config(&[(STRAP, "heart_rate")])).await;
    daemon.until_off().await;
    let (powered, calls) = bluez.change(|world| (world.powered, world.calls.clone())).await;
    assert!(!powered);
    for call in ["Set", "StartDiscovery", "Connect"] {
        assert!(calls.iter().all(|made| made.split(' ').next() != Some(call)), "{call}: {calls:#?}");
    }
    bluez.change(|world| world.power(true)).await;
    daemon.reading("heart_rate").await;
    // Off while it reads.
    bluez.change(|world| world.power(false)).await;
    daemon.link("lost", off).await;
    assert!(!bluez.change(|world| world.powered).await);
    bluez.change(|world| world.power(true)).await;
    daemon.reading("heart_rate").await;
    assert_eq!(bluez.change(|world| world.count("Set")).await, 0);
}

/// Subscribes to the cuff as a client that knows nothing of pairing, which makes BlueZ ask the default agent.
async fn subscribe_to_the_cuff(bus: &Bus) -> zbus::Result<()> {
    let client = zbus::connection::Builder::address(bus.address().as_str()).build().await?;
    let (bluez, device) = (Some("org.bluez"), "/org/bluez/hci0/dev_C0_FF_EE_00_00_0A");
    client.call_method(bluez, device, Some("org.bluez.Device1"), "Connect", &()).await?;
    let path = format!("{device}/service0010/char0011");
    loop {
        let interface = Some("org.bluez.GattCharacteristic1");
        match client.call_method(bluez, path.as_str(), interface, "StartNotify", &()).await {
            // The services are there a moment after the link.
            Err(zbus::Error::FDO(error)) if matches!(*error, zbus::fdo::Error::UnknownObject(_)) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answer => return answer.map(drop),
        }
    }
}

#[tokio::test]
async fn an_encrypted_cuff_delivers_because_the_daemon_answers_and_again_by_its_bond_after_bluetoothd_was_killed() {
    let world = World::new(vec![cuff(Pairs::JustWorks)]);
    let Rig { bus, bluez, mut daemon } = Rig::with(world, &config(&[(CUFF, "blood_pressure")])).await;
    let reading = daemon.reading("blood_pressure").await;
    assert_eq!((&reading["value"], &reading["patient_id"]), (&json!(120), &json!("P-0")));
    // Again and again, and then BlueZ renews the subscription before the services are resolved.
    for visit in 2..=3 {
        assert_eq!(daemon.reading("blood_pressure").await["value"], 120);
        let (sent, asked) = bluez.change(|world| (world.strap(CUFF).sent, world.count("StartNotify"))).await;
        assert_eq!(sent, visit, "each one that was sent has come");
        assert_eq!(asked, 1, "it has ended the link before anybody could ask for more");
    }
    let states = daemon.radio().await;
    assert_eq!(states["sensors"][0]["failures"], 0, "{states}");
    let (bonded, agents, paired) =
        bluez.change(|world| (world.strap(CUFF).bonded, world.agents.clone(), world.count("Pair"))).await;
    assert!(bonded && paired == 0, "the cuff asked, not the daemon");
    let [agent] = agents.as_slice() else { panic!("{agents:?}") };
    assert_eq!(agent.capability, "NoInputNoOutput");

    let mut kernel = bluez.kill().await;
    daemon.link("lost", "bluetoothd does not run").await;
    kernel.calls.clear();
    kernel.strap(CUFF).in_range = false;
    let bluez = FakeBluez::start(&bus, kernel).await;
    bluez.until("the agent is known again", |world| world.agents.len() == 1).await;
    assert_eq!(bluez.change(|world| world.count("RequestDefaultAgent")).await, 1);
    bluez.change(|world| world.strap(CUFF).in_range = true).await;
    assert_eq!(daemon.reading("blood_pressure").await["value"], 120);
    daemon.stop();
    bluez.until("the agent has gone", |world| world.agents.is_empty()).await;
}

#[tokio::test]
async fn a_stranger_is_refused_by_the_daemon_and_a_cuff_that_wants_a_person_says_so() {
    // The cuff is near, and no source wants it.
    let mut stranger = cuff(Pairs::JustWorks);
    stranger.remembered();
    let rig = Rig::with(World::new(vec![strap(), stranger]), &config(&[(STRAP, "heart_rate")])).await;
    rig.bluez.until("the agent", |world| world.agents.len() == 1).await;
    let answer = tokio::time::timeout(PATIENCE, subscribe_to_the_cuff(&rig.bus)).await.expect("BlueZ gets an answer");
    assert!(answer.unwrap_err().to_string().contains("ATT error: 0x05"));
    assert!(!rig.bluez.change(|world| world.strap(CUFF).bonded).await);
    rig.daemon.stop();

    for pairs in [Pairs::ShowsPasskey(4711), Pairs::Compares(42)] {
        let mut rig = Rig::with(World::new(vec![cuff(pairs)]), &config(&[(CUFF, "blood_pressure")])).await;
        let told = rig.daemon.until("why", |message| {
            message["data"]["reason"].as_str().is_some_and(|reason| {
                reason.contains("ATT error: 0x05") && reason.contains("vitalbridge pair C0:FF:EE:00:00:0A")
            })
        });
        told.await;
        assert!(!rig.bluez.change(|world| world.strap(CUFF).bonded).await, "{pairs:?}");
        rig.daemon.stop();
    }
}

#[tokio::test]
async fn a_lost_bond_is_not_made_again_by_itself_not_even_by_the_next_run_but_by_a_person() {
    let sources = config(&[(CUFF, "blood_pressure")]);
    let Rig { bus, bluez, mut daemon } = Rig::with(World::new(vec![cuff(Pairs::JustWorks)]), &sources).await;
    daemon.reading("blood_pressure").await;
    let file = daemon.state.join("bluetooth-bonds");
    crate::bridge::eventually("the bond is written down", PATIENCE, || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains(CUFF))
    })
    .await;
    bluez.change(|world| world.lose_bond(CUFF)).await;
    let refused = |message: &Value| message["data"]["reason"].as_str().unwrap_or("").contains("ATT error: 0x05");
    daemon.until("the refusal", refused).await;
    daemon.stop();
    let mut daemon = Daemon::start(&bus, &sources).await;
    daemon.until("the refusal by the next run", refused).await;
    assert!(!bluez.change(|world| world.strap(CUFF).bonded).await);

    let mut pair = program();
    pair.args(["pair", CUFF]).env("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).stdin(Stdio::null());
    let output = tokio::time::timeout(LONG, tokio::process::Command::from(pair).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(daemon.reading("blood_pressure").await["value"], 120);
}
