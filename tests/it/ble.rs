//! BLE straps: the real source over a real, private D-Bus, against a fake BlueZ.
//!
//! btleplug takes the bus from the environment, which belongs to a whole process. So each test runs the source in a
//! child: this same binary, told to run [`child_that_runs_the_sources`] only, which prints what the sources send.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use vitalbridge::clock::Clock;
use vitalbridge::event::SourceMessage;
use vitalbridge::profile::Profile;
use vitalbridge::sources::ble::{Air, AirSettings, BleConfig, BleLimits, CommitWish, SensorKind, Surroundings, Wanted};
use vitalbridge::sources::output::SourceCounters;
use vitalbridge::sources::replay::{ReplayConfig, Speed};

use vitalbridge::sources::{self, SourceConfig, SourceKind};
use vitalbridge::vitals::Mode;
use vitalbridge::wire::ReadingData;

use crate::fake_bluez::{Bus, FakeBluez, OnConnect, PATIENCE, Strap, World};

/// The child finds its [`Setup`] here.
const SETUP: &str = "VITALBRIDGE_TEST_BLE_SETUP";
pub(crate) const STRAP: &str = "C0:FF:EE:00:00:01";
pub(crate) const OTHER: &str = "C0:FF:EE:00:00:02";
/// 72 bpm, skin contact supported and there, one interval of 1024/1024 s (HRS 1.0, 3.1.1).
pub(crate) const BEATING: [u8; 4] = [0x16, 72, 0x00, 0x04];

/// What the child runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Addresses or names of straps; each source is called by its place, `source-0`.
    pub(crate) wanted: Vec<String>,
    /// A recording that is replayed beside them, by the last source.
    pub(crate) recording: Option<PathBuf>,
    pub(crate) scan_ms: u64,
    pub(crate) connect_ms: u64,
    pub(crate) silence_ms: u64,
    /// What they measure.
    pub(crate) sensor: SensorKind,
    /// Whose the users' numbers are.
    pub(crate) users: BTreeMap<u8, String>,
    /// Whether records are deleted from a meter.
    pub(crate) delete_records: bool,
    /// How often the disk has none of the records that it is asked for.
    pub(crate) losses: u32,
    /// The text of the profile of a maker's own protocol.
    pub(crate) profile: Option<String>,
    /// Where it is written down that the adapter was switched off.
    pub(crate) power_file: Option<PathBuf>,
    /// How far ahead of UTC the sensors' clocks are set, in minutes.
    pub(crate) set_clock: Option<i16>,
    /// Where it stands whether this machine's own clock was set.
    pub(crate) time_sync: Option<PathBuf>,
    pub(crate) pace: Pace,
}

/// How long things may take in the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// As the limits of the [`Setup`] say.
    Short,
    /// As in the daemon.
    Real,
    /// Without pauses, to connect often.
    Restless,
    /// The same, and without a rest between two steps of the ladder, up to the end of the daemon.
    Desperate,
}

impl Setup {
    pub(crate) fn of(wanted: &[&str]) -> Self {
        let wanted = wanted.iter().map(ToString::to_string).collect();
        Self {
            wanted,
            recording: None,
            scan_ms: 10_000,
            connect_ms: 5000,
            silence_ms: 5000,
            sensor: SensorKind::HeartRate,
            users: BTreeMap::new(),
            delete_records: false,
            losses: 0,
            profile: None,
            power_file: None,
            set_clock: None,
            time_sync: None,
            pace: Pace::Short,
        }
    }

    fn air(&self) -> AirSettings {
        if self.pace == Pace::Real {
            return AirSettings::default();
        }
        let mut limits = BleLimits {
            call: Duration::from_secs(2),
            start: Duration::from_secs(5),
            scan: Duration::from_millis(self.scan_ms),
            connect: Duration::from_millis(self.connect_ms),
            subscribe: Duration::from_secs(5),
            read: Duration::from_millis(500),
            disconnect: Duration::from_secs(1),
            silence: Some(Duration::from_millis(self.silence_ms)),
            listen: Duration::from_millis(500),
            ..BleLimits::default()
        };
        if self.pace == Pace::Desperate {
            (limits.between_cures, limits.before_exit) = (Duration::ZERO, Duration::ZERO);
        }
        if self.pace != Pace::Short {
            limits.pause = (Duration::from_millis(5), Duration::from_millis(5));
            (limits.attempts_a_minute, limits.adapter_attempts_a_minute) = (100_000, 100_000);
        }
        AirSettings { adapter: None, limits }
    }
}

/// Not a test of its own: what the tests below start in a process of its own.
#[test]
fn child_that_runs_the_sources() {
    let Ok(setup) = std::env::var(SETUP) else {
        return;
    };
    let setup: Setup = serde_json::from_str(&setup).unwrap();
    // Shown with a test that fails.
    let filter = EnvFilter::new("off,vitalbridge=debug");
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter).init();
    let stop = CancellationToken::new();
    let parent = stop.clone();
    std::thread::spawn(move || {
        // The parent closes this pipe when it wants the sources to stop, or dies.
        let _ = std::io::stdin().read_to_end(&mut vec![]);
        parent.cancel();
    });
    tokio::runtime::Runtime::new().unwrap().block_on(run_sources(&setup, stop));
    println!("{}", json!({"stopped": true}));
}

async fn run_sources(setup: &Setup, stop: CancellationToken) {
    let (out, mut messages) = mpsc::channel(16);
    let mut running = JoinSet::new();
    let air = Air::new(setup.air());
    let mut counters = vec![];
    let straps = setup.wanted.iter().map(|wanted| {
        let wanted = wanted.parse().map_or_else(|_| Wanted::Name(wanted.clone()), Wanted::Address);
        let users = setup.users.iter().map(|(slot, patient)| (*slot, patient.parse().unwrap())).collect();
        let delete_records = setup.delete_records;
        let profile = setup.profile.as_ref().map(|text| Arc::new(Profile::parse(text).unwrap()));
        SourceKind::Ble(BleConfig {
            users,
            delete_records,
            profile,
            set_clock: setup.set_clock,
            ..BleConfig::new(wanted, setup.sensor, air.clone())
        })
    });
    let recording = setup.recording.clone();
    let replay = recording.map(|path| SourceKind::Replay(ReplayConfig { path, speed: Speed::REAL_TIME }));
    for (place, kind) in straps.chain(replay).enumerate() {
        let config = SourceConfig {
            id: format!("source-{place}").parse().unwrap(),
            patient: Some("P-0001".parse().unwrap()),
            device: format!("device-{place}").parse().unwrap(),
            mode: Mode::Test,
            kind,
        };
        let counted = Arc::new(SourceCounters::default());
        counters.push(Arc::clone(&counted));
        running.spawn(sources::run(config, out.clone(), Clock::System, counted, stop.clone()));
    }
    drop(out);
    // Stands for the pipeline and the disk: what was printed is kept.
    let (commits, mut wishes) = mpsc::channel::<CommitWish>(16);
    let mut losses = setup.losses;
    running.spawn(async move {
        while let Some(wish) = wishes.recv().await {
            let is_lost = losses > 0;
            losses = losses.saturating_sub(1);
            let _ = wish.granted.send(if is_lost { wish.records } else { vec![] });
        }
        Ok(())
    });
    let status = air.status();
    let power_file = setup.power_file.clone();
    let time_sync = setup.time_sync.clone().map(|path| &*path.leak());
    let surroundings = Surroundings { commits: Some(commits), bonds_file: None, power_file, time_sync, timeline: None };
    let radio = air.run(Clock::System, surroundings, stop.clone());
    running.spawn(async move {
        // As the daemon ends with its radio, so do the sources.
        if let Err(error) = radio.await {
            println!("{}", json!({"radio_ended": error.to_string()}));
        }
        Ok(())
    });
    while let Some(message) = messages.recv().await {
        let (message, readings) = match message {
            SourceMessage::Record { record, readings } => (json!({"record": record}), readings),
            SourceMessage::Reading(reading) => (json!({}), vec![reading]),
            SourceMessage::Audit(audit) => (json!({"audit": audit}), vec![]),
            SourceMessage::Link(event) => {
                let (status, tasks) = (status.borrow().clone(), Handle::current().metrics().num_alive_tasks());
                let counted = counters.first().map(|counted| counts(counted));
                (json!({"link": event, "status": status, "tasks": tasks, "counted": counted}), vec![])
            }
            SourceMessage::Wave(wave) => {
                let wave = json!({"name": &*wave.name, "first": wave.first, "samples": wave.samples.len()});
                (json!({"wave": wave}), vec![])
            }
            other @ SourceMessage::Answer { .. } => panic!("a strap has no {other:?}"),
        };
        for reading in readings {
            println!("{}", json!({"reading": ReadingData::reading(&reading)}));
        }
        println!("{message}");
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap().unwrap();
    }
}

/// Frames, bad checksums, bytes of no frame.
fn counts(counted: &SourceCounters) -> [u64; 3] {
    [&counted.frames, &counted.bad_checksums, &counted.rubbish_bytes].map(|counter| counter.load(Ordering::Relaxed))
}

/// The child, and what it has said.
pub(crate) struct Bridge {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<Value>,
    /// What it writes to stderr, such as the panics inside btleplug that it must survive.
    log: PathBuf,
    /// How long anything is waited for.
    pub(crate) patience: Duration,
}

impl Bridge {
    pub(crate) fn start(bus: &Bus, setup: &Setup) -> Self {
        let log = bus.folder().join("child.log");
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["ble::child_that_runs_the_sources", "--exact", "--nocapture"])
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .env(SETUP, serde_json::to_string(setup).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, said: vec![], log, patience: PATIENCE }
    }

    /// Reads on until the child says something that fits.
    pub(crate) async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let reading_on = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the child goes on");
                // The test harness of the child prints its own lines around ours.
                let Some(Ok(message)) = line.find('{').map(|start| serde_json::from_str::<Value>(&line[start..]))
                else {
                    continue;
                };
                self.said.push(message.clone());
                if fits(&message) {
                    return message;
                }
            }
        };
        let heard = tokio::time::timeout(self.patience, reading_on).await;
        let Ok(message) = heard else {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let links: Vec<&Value> = self.said.iter().filter(|message| message["link"].is_object()).collect();
            let last = &links[links.len().saturating_sub(8)..];
            panic!("never heard {what}; heard the links {:?}, last {last:#?}; the child wrote:\n{log}", self.links());
        };
        message
    }

    pub(crate) async fn until_reading(&mut self, metric: &str) -> Value {
        self.until(metric, |message| message["reading"]["metric"] == metric).await["reading"].take()
    }

    pub(crate) async fn until_link(&mut self, state: &str) -> Value {
        self.until(state, |message| message["link"]["link"] == state).await["link"].take()
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Everything that it has said.
    pub(crate) fn said(&self) -> &[Value] {
        &self.said
    }

    /// The states of the link so far, in order.
    pub(crate) fn links(&self) -> Vec<String> {
        self.said.iter().filter_map(|message| Some(message["link"]["link"].as_str()?.to_owned())).collect()
    }

    /// Tells the child to stop and waits until it has.
    pub(crate) async fn stop(mut self) {
        drop(self.process.stdin.take());
        self.until("the end", |message| message["stopped"] == true).await;
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await.expect("the child ends");
        assert!(ended.unwrap().success());
    }
}

pub(crate) fn reason(link: &Value) -> &str {
    link["reason"].as_str().unwrap_or("")
}

/// Where this call is in the list of calls.
pub(crate) fn place(calls: &[String], member: &str) -> usize {
    calls
        .iter()
        .position(|call| call.split(' ').next() == Some(member))
        .unwrap_or_else(|| panic!("{member}: {calls:#?}"))
}

#[tokio::test]
async fn a_strap_is_found_by_its_address_and_its_measurements_arrive() {
    let bus = Bus::start().await;
    let bluez = FakeBluez::start(&bus, World::new(vec![Strap::new(STRAP, "Strap").sending(&BEATING)])).await;
    let mut bridge = Bridge::start(&bus, &Setup::of(&[STRAP]));
    let rate = bridge.until_reading("heart_rate").await;
    assert_eq!((&rate["value"], &rate["quality"]), (&json!(72), &json!("valid")));
    assert_eq!((&rate["patient_id"], &rate["mode"]), (&json!("P-0001"), &json!("test")));
    let beats = bridge.until_reading("rr_interval").await;
    assert_eq!(beats["intervals"], json!([1000.0]));
    assert_eq!(bridge.links(), ["opening", "waiting", "live"]);
    let calls = bluez.change(|world| world.calls.clone()).await;
    assert!(place(&calls, "StartDiscovery") < place(&calls, "StopDiscovery"), "{calls:#?}");
    assert!(place(&calls, "StopDiscovery") < place(&calls, "Connect"), "scan and connect at once: {calls:#?}");
    bridge.stop().await;
    bluez.until("the strap is let go", |world| !world.strap(STRAP).connected).await;
}

#[tokio::test]
async fn a_strap_is_found_by_its_name_among_others() {
    let bus = Bus::start().await;
    let straps =
        vec![Strap::new(OTHER, "Strap 12").sending(&[0x00, 99]), Strap::new(STRAP, "Strap 1").sending(&BEATING)];
    let bluez = FakeBluez::start(&bus, World::new(straps)).await;
    let mut bridge = Bridge::start(&bus, &Setup::of(&["Strap 1"]));
    assert_eq!(bridge.until_reading("heart_rate").await["value"], 72);
    let connects =
        bluez.change(|world| world.calls.iter().filter(|call| call.starts_with("Connect ")).cloned().collect());
    let connects: Vec<String> = connects.await;
    assert_eq!(connects, ["Connect /org/bluez/hci0/dev_C0_FF_EE_00_00_01"]);
}

#[tokio::test]
async fn a_dropped_link_is_told_and_made_again_without_leaving_anything_on_the_bus() {
    let bus = Bus::start().await;
    let bluez = FakeBluez::start(&bus, World::new(vec![Strap::new(STRAP, "Strap").sending(&BEATING)])).await;
    let mut bridge = Bridge::start(&bus, &Setup::of(&[STRAP]));
    bridge.until_reading("heart_rate").await;
    let clients = bluez.clients().await;
    for round in 0..6 {
        bluez.change(|world| world.drop_link(STRAP)).await;
        let lost = bridge.until_link("lost").await;
        assert_eq!(reason(&lost), "the sensor dropped the link", "round {round}");
        bridge.until_link("live").await;
        bridge.until_reading("heart_rate").await;
    }
    assert_eq!(bluez.clients().await, clients, "connections to the bus are left behind");
}

#[tokio::test]
async fn a_connect_that_fails_is_bounded_cleaned_up_and_tried_again() {
    for (fault, words) in [
        (OnConnect::NeverAnswers, "connecting to the sensor: no answer within 1 s"),
        (OnConnect::NeverResolves, "connecting to the sensor: no answer within 1 s"),
        (OnConnect::DropsAtOnce, "the sensor dropped the link"),
        (OnConnect::Fails, "connecting to the sensor: le-connection-abort-by-local"),
    ] {
        let bus = Bus::start().await;
        let mut strap = Strap::new(STRAP, "Strap").sending(&BEATING);
        strap.on_connect = vec![fault];
        let bluez = FakeBluez::start(&bus, World::new(vec![strap])).await;
        let mut bridge = Bridge::start(&bus, &Setup { connect_ms: 1000, ..Setup::of(&[STRAP]) });
        assert_eq!(reason(&bridge.until_link("lost").await), words, "{fault:?}");
        bluez.until("a disconnect", |world| world.count("Disconnect") == 1).await;
        let calls = bluez.change(|world| world.calls.clone()).await;
        assert!(place(&calls, "Connect") < place(&calls, "Disconnect"), "{fault:?}: {calls:#?}");
        bridge.until_reading("heart_rate").await;
        assert_eq!(bluez.change(|world| world.count("Connect")).await, 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_strap_that_falls_silent_is_disconnected_and_heard_again() {
    let bus = Bus::start().await;
    let bluez = FakeBluez::start(&bus, World::new(vec![Strap::new(STRAP, "Strap").sending(&BEATING)])).await;
    let mut bridge = Bridge::start(&bus, &Setup { silence_ms: 1500, ..Setup::of(&[STRAP]) });
    bridge.until_reading("heart_rate").await;
    bluez.change(|world| world.strap(STRAP).measurement = None).await;
    let silent = bridge.until_link("silent").await;
    assert_eq!(reason(&silent), "no readable measurement for 1.5 s");
    bluez.until("a disconnect", |world| world.count("Disconnect") == 1).await;
    bluez.change(|world| world.strap(STRAP).measurement = Some(BEATING.to_vec())).await;
    bridge.until_link("live").await;
}

#[tokio::test]
async fn payloads_that_cannot_be_decoded_are_no_readings_and_no_sign_of_life() {
    let bus = Bus::start().await;
    let strap = Strap::new(STRAP, "Strap").sending(&[0x00]);
    let _bluez = FakeBluez::start(&bus, World::new(vec![strap])).await;
    let mut bridge = Bridge::start(&bus, &Setup { silence_ms: 1000, ..Setup::of(&[STRAP]) });
    let silent = bridge.until_link("silent").await;
    assert!(reason(&silent).contains(" malformed ones: heart rate packet has 1 byte, needs 2"), "{silent}");
    assert_eq!(bridge.links(), ["opening", "waiting", "silent"]);
    assert!(bridge.said.iter().all(|message| message["reading"].is_null()), "{:?}", bridge.said);
}

#[tokio::test]
async fn a_strap_without_skin_contact_is_live_but_off() {
    let bus = Bus::start().await;
    let strap = Strap::new(STRAP, "Strap").sending(&[0x04, 84]);
    let bluez = FakeBluez::start(&bus, World::new(vec![strap])).await;
    let mut bridge = Bridge::start(&bus, &Setup::of(&[STRAP]));
    let off = bridge.until_link("sensor_off").await;
    assert_eq!(off["status"], json!(["sensor_off"]));
    bluez.change(|world| world.strap(STRAP).measurement = Some(BEATING.to_vec())).await;
    let live = bridge.until_link("live").await;
    assert_eq!(live["status"], json!([]));
}

#[tokio::test]
async fn a_device_without_heart_rate_is_named_as_such() {
    let bus = Bus::start().await;
    let mut strap = Strap::new(STRAP, "Thermometer");
    strap.has_heart_rate = false;
    let bluez = FakeBluez::start(&bus, World::new(vec![strap])).await;
    let mut bridge = Bridge::start(&bus, &Setup::of(&[STRAP]));
    assert!(reason(&bridge.until_link("lost").await).contains("no heart-rate measurement"));
    bluez.until("it is let go", |world| world.count("Disconnect") > 0).await;
}

#[tokio::test]
async fn bluetoothd_may_be_killed_and_come_back() {
    let bus = Bus::start().await;
    let bluez = FakeBluez::start(&bus, World::new(vec![Strap::new(STRAP, "Strap").sending(&BEATING)])).await;
    let mut bridge = Bridge::start(&bus, &Setup { silence_ms: 1000, ..Setup::of(&[STRAP]) });
    bridge.until_reading("heart_rate").await;
    let mut kernel = bluez.kill().await;
    let lost = bridge.until_link("lost").await;
    assert!(reason(&lost).starts_with("bluetoothd does not run"), "{lost}");
    kernel.calls.clear();
    let bluez = FakeBluez::start(&bus, kernel).await;
    bridge.until_link("live").await;
    let calls = bluez.change(|world| world.calls.clone()).await;
    assert!(place(&calls, "Disconnect") < place(&calls, "Connect"), "the old link still stands: {calls:#?}");
}

#[tokio::test]
async fn the_bus_may_die_and_come_back() {
    let mut bus = Bus::start().await;
    let bluez = FakeBluez::start(&bus, World::new(vec![Strap::new(STRAP, "Strap").sending(&BEATING)])).await;
    let mut bridge = Bridge::start(&bus, &Setup { silence_ms: 1000, ..Setup::of(&[STRAP]) });
    bridge.until_reading("heart_rate").await;
    bus.kill().await;
    bridge.until("why", |message| reason(&message["link"]).starts_with("reaching the D-Bus system bus: ")).await;
    bus.run().await;
    let world = bluez.abandon().await;
    let _bluez = FakeBluez::start(&bus, world).await;
    bridge.until_link("live").await;
}

#[tokio::test]
async fn a_machine_without_an_adapter_says_so_and_does_not_spin() {
    let bus = Bus::start().await;
    let mut world = World::new(vec![Strap::new(STRAP, "Strap").sending(&BEATING)]);
    world.has_adapter = false;
    let bluez = FakeBluez::start(&bus, world).await;
    let mut bridge = Bridge::start(&bus, &Setup::of(&[STRAP]));
    assert_eq!(reason(&bridge.until_link("lost").await), "no Bluetooth adapter");
    let tries = |world: &mut World| world.count("GetManagedObjects");
    let before = bluez.change(tries).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = bluez.change(tries).await;
    assert!(after - before <= 3, "{} tries in a second; the shortest pause is half a second", after - before);
    bluez.change(World::plug_in).await;
    bridge.until_reading("heart_rate").await;
    assert_eq!(bridge.links(), ["opening", "lost", "waiting", "live"], "the same reason is told once");
}

#[tokio::test]
async fn a_machine_without_a_bus_says_so_and_heals_when_it_comes_and_other_sources_never_mind() {
    let mut bus = Bus::absent();
    let recording = bus.folder().join("monitor.csv");
    std::fs::write(&recording, "minute,HR,SpO2\n0,61,97\n1,62,96\n").unwrap();
    let mut bridge = Bridge::start(&bus, &Setup { recording: Some(recording), ..Setup::of(&[STRAP]) });
    let lost = bridge.until_link("lost").await;
    assert!(reason(&lost).starts_with("reaching the D-Bus system bus: "), "{lost}");
    for _ in 0..6 {
        let reading = bridge.until("the recording", |message| message["reading"].is_object()).await;
        assert_eq!(reading["reading"]["source_id"], "source-1");
    }
    bus.run().await;
    let strap = Strap::new(STRAP, "Strap").sending(&BEATING);
    let _bluez = FakeBluez::start(&bus, World::new(vec![strap])).await;
    bridge.until("the strap", |message| message["reading"]["source_id"] == "source-0").await;
}

#[tokio::test]
async fn a_bus_that_hangs_is_told_of_and_blocks_one_thread_at_most() {
    let mut bus = Bus::absent();
    let hanging = std::os::unix::net::UnixListener::bind(bus.socket()).unwrap();
    hanging.set_nonblocking(true).unwrap();
    let mut bridge = Bridge::start(&bus, &Setup::of(&[STRAP]));
    let lost = bridge.until_link("lost").await;
    assert!(reason(&lost).starts_with("reaching the D-Bus system bus: no answer within 2 s"), "{lost}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let callers = hanging.incoming().map_while(Result::ok).count();
    assert!(callers <= 3, "{callers} callers: each is given up before the next, and the pause grows");
    drop(hanging);
    std::fs::remove_file(bus.socket()).unwrap();
    bus.run().await;
    let strap = Strap::new(STRAP, "Strap").sending(&BEATING);
    let _bluez = FakeBluez::start(&bus, World::new(vec![strap])).await;
    bridge.until_reading("heart_rate").await;
}

#[tokio::test]
async fn an_absent_strap_is_never_connected_to_and_disturbs_no_other() {
    let bus = Bus::start().await;
    let mut absent = Strap::new(OTHER, "Absent").sending(&[0x00, 99]);
    absent.in_range = false;
    absent.remembered();
    let straps = vec![absent, Strap::new(STRAP, "Strap").sending(&BEATING)];
    let bluez = FakeBluez::start(&bus, World::new(straps)).await;
    let mut bridge = Bridge::start(&bus, &Setup { scan_ms: 1000, ..Setup::of(&[OTHER, STRAP]) });
    let lost = bridge.until_link("lost").await;
    assert_eq!(
        (&lost["source"], reason(&lost)),
        (&json!("source-0"), "C0:FF:EE:00:00:02 was not seen in 1 s of scanning")
    );
    for _ in 0..20 {
        assert_eq!(bridge.until_reading("heart_rate").await["source_id"], "source-1");
    }
    assert_eq!(bluez.change(|world| world.count("Connect")).await, 1);
    bluez.change(|world| world.strap(OTHER).in_range = true).await;
    bridge.until("the other strap", |message| message["reading"]["source_id"] == "source-0").await;
}

#[tokio::test]
async fn one_strap_is_connected_at_a_time() {
    let bus = Bus::start().await;
    let mut hanging = Strap::new(OTHER, "Other").sending(&[0x00, 99]);
    hanging.on_connect = vec![OnConnect::NeverAnswers, OnConnect::NeverResolves];
    let straps = vec![hanging, Strap::new(STRAP, "Strap").sending(&BEATING)];
    let bluez = FakeBluez::start(&bus, World::new(straps)).await;
    let mut bridge = Bridge::start(&bus, &Setup { connect_ms: 1000, ..Setup::of(&[OTHER, STRAP]) });
    for source in ["source-1", "source-0"] {
        bridge.until(source, |message| message["reading"]["source_id"] == source).await;
    }
    assert_eq!(bluez.change(|world| world.collisions).await, 0);
}

#[tokio::test]
async fn a_measurement_that_missed_the_disk_is_taken_again_and_none_makes_a_link_that_has_gone_look_live() {
    let bus = Bus::start().await;
    let measured = |systolic| vec![0x02, systolic, 0, 80, 0, 93, 0, 0xEA, 7, 11, 20, 8, systolic % 60, 0];
    let cuff = |stored: &[Vec<u8>]| {
        let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
        Strap::cuff(STRAP, "Cuff", &stored)
    };
    let bluez = FakeBluez::start(&bus, World::new(vec![cuff(&[measured(121)])])).await;
    let setup = Setup { sensor: SensorKind::BloodPressure, losses: 1, ..Setup::of(&[STRAP]) };
    let mut bridge = Bridge::start(&bus, &setup);
    // It comes twice, and then no more: what is on disk is known.
    for (visit, memory, expected) in [(1, &[121][..], 121), (2, &[121], 121), (3, &[121, 122], 122)] {
        let memory: Vec<Vec<u8>> = memory.iter().map(|systolic| measured(*systolic)).collect();
        bluez.change(move |world| world.strap(STRAP).services = cuff(&memory).services).await;
        bluez.change(|world| world.strap(STRAP).in_range = true).await;
        bluez.until("the visit", move |world| world.count("Connect") == visit).await;
        bridge.until_link("live").await;
        bluez.until("the end of the link", |world| !world.strap(STRAP).connected).await;
        bluez.change(|world| world.strap(STRAP).in_range = false).await;
        let pressure = bridge.until_reading("blood_pressure").await;
        assert_eq!(pressure["components"]["systolic"], expected, "visit {visit}");
        assert_eq!(bridge.links().last().unwrap(), "waiting", "visit {visit}: {:?}", bridge.links());
        bridge.until("its record", |message| message["record"].is_object()).await;
    }
}
