//! A clock that is set late: readings wait for it, alerts do not, and what was stored before has the right times afterwards.
//! The whole daemon with a clock that can be set, a fake `timedate1` on a D-Bus of its own, and a real Mosquitto.
#![cfg(test)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value as Json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::config::{Config, Place};
use vitalbridge::daemon::{self, DaemonError, Machine, Start};
use vitalbridge::event::{Event, EventBody};
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::server::codes::Codes;
use vitalbridge::store::{self, Scan, StoreOptions};
use vitalbridge::timeline::{ClockEpoch, ClockState};
use vitalbridge::vitals::{Reading, TimeSource};
use zbus::message::{Message, Type};
use zbus::{MessageStream, Variant};

use crate::bridge::{Bridge, program};
use crate::fake_bluez::Bus;
use crate::mqtt::{self, Broker, Consumer, DEADLINE, Received, Store};

const YEAR_MS: i64 = 31_536_000_000;

/// A `timedate1` that says what the test wants.
struct TimeDate1 {
    is_synchronised: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl TimeDate1 {
    async fn start(bus: &Bus) -> Self {
        let connection = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
        let mut messages = MessageStream::from(&connection);
        let bus_name = Some("org.freedesktop.DBus");
        let wish = ("org.freedesktop.timedate1", 4_u32);
        connection.call_method(bus_name, "/", bus_name, "RequestName", &wish).await.unwrap();
        let is_synchronised = Arc::<AtomicBool>::default();
        let told = Arc::clone(&is_synchronised);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if message.message_type() != Type::MethodCall {
                    continue;
                }
                let (interface, property): (String, String) = message.body().deserialize().unwrap();
                assert_eq!((&*interface, &*property), ("org.freedesktop.timedate1", "NTPSynchronized"));
                let value = Variant::Bool(told.load(Ordering::Relaxed));
                connection.send(&Message::method_return(&message.header()).build(&value).unwrap()).await.unwrap();
            }
        });
        Self { is_synchronised, _task: task }
    }
}

/// A daemon whose clock a test sets.
struct Trial {
    dir: tempfile::TempDir,
    ahead_ms: Arc<AtomicI64>,
    time_date: TimeDate1,
    _bus: Bus,
    stop: CancellationToken,
    daemon: JoinSet<Result<(), DaemonError>>,
}

impl Trial {
    /// One recorded patient whose SpO2 is too low from the first second on; the clock is 20 years behind, and nobody has
    /// set it.
    async fn start(broker: &Broker, mqtt: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = write_config(dir.path(), broker.port, mqtt);
        let config = Config::load(&file, &Place::default()).unwrap();
        let bus = Bus::start().await;
        let time_date = TimeDate1::start(&bus).await;
        let ahead_ms = Arc::new(AtomicI64::new(-20 * YEAR_MS));
        let nowhere = dir.path().join("nowhere");
        let machine = Machine {
            clock: Clock::Adjusted(Arc::clone(&ahead_ms)),
            bus: Some(bus.address()),
            timesync: nowhere.clone(),
            hardware_clocks: nowhere,
        };
        let codes = Codes::Directory(config.state_dir.clone());
        let start = Start { config, config_file: None, codes, on_listening: |_| {} };
        let stop = CancellationToken::new();
        let mut daemon = JoinSet::new();
        daemon.spawn(daemon::run_on(machine, start, stop.clone()));
        Self { dir, ahead_ms, time_date, _bus: bus, stop, daemon }
    }

    /// A time server answers.
    fn set_the_clock(&self) {
        self.ahead_ms.store(0, Ordering::Relaxed);
        self.time_date.is_synchronised.store(true, Ordering::Relaxed);
    }

    /// Ends the daemon and gives all that is in its log.
    async fn end(mut self) -> Vec<Event> {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.daemon.join_next()).await.unwrap().unwrap().unwrap().unwrap();
        let (state, now) = (self.dir.path().join("state"), Clock::System.now());
        let opened = store::open(&state, &StoreOptions::default(), Epoch::from_bits(9), "later", now).unwrap();
        opened.reader.events(Seq::ZERO, 10_000).await.unwrap()
    }
}

fn write_config(dir: &Path, port: u16, mqtt: &str) -> std::path::PathBuf {
    const STRICT: &str = "[patient.\"P-1\".rule.spo2_low]\nwhen = { below = 99 }\nclear = { at_least = 100 }\n\
        delay = \"1s\"\nreason = \"test\"\nby = \"test\"\nexpires = \"2099-01-01T00:00:00Z\"\n";
    std::fs::write(dir.join("numerics.csv"), "t_s,HR,SpO2\n0,72,97\n100000,72,97\n").unwrap();
    std::fs::write(dir.join("rules.toml"), STRICT).unwrap();
    let file = dir.join("vitalbridge.toml");
    let text = format!(
        "[bridge]\nid = 'b1'\n[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[alerts]\nrules = 'rules.toml'\n\
         [[patient]]\nid = 'P-1'\n[[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\n\
         [mqtt]\nbroker = 'mqtt://127.0.0.1:{port}'\n{mqtt}"
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn is_reading(received: &Received) -> bool {
    received.body["type"] == "health_update"
}

fn wall(text: &Json) -> i64 {
    Wall::parse(text.as_str().unwrap_or_else(|| panic!("{text} is no time"))).unwrap().0
}

fn readings(events: &[Event]) -> impl Iterator<Item = (&Event, &Reading)> {
    events.iter().filter_map(|event| match &event.body {
        EventBody::Reading(reading) => Some((event, reading)),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_wait_for_the_clock_alerts_do_not_and_then_every_time_is_right() {
    let broker = Broker::started("").await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let before = Clock::System.now().wall.0;
    let trial = Trial::start(&broker, "clock_hold = '60s'\n").await;

    let birth = consumer.find("the birth", |received| received.body["type"] == "birth").await;
    let clock = &birth.body["data"]["clock"];
    assert_eq!((&clock["synchronised"], &clock["state"]), (&Json::from(false), &Json::from("unsynchronised")));
    // An alert of a patient goes out at once, and says that its time is not to be trusted.
    let is_alert = |received: &Received| received.body["data"]["rule"] == "spo2_low" && received.is_event();
    let alert = consumer.find("the alert", is_alert).await;
    assert_eq!(alert.body["clock"]["synced"], Json::from(false), "{}", alert.text);
    assert!(wall(&alert.body["timestamp"]) < before - 19 * YEAR_MS, "{}", alert.text);
    let early: Vec<&Received> = consumer.all.iter().filter(|received| is_reading(received)).collect();
    assert!(early.is_empty(), "a reading has not waited: {early:?}");

    trial.set_the_clock();
    let first = consumer.until("a reading", is_reading).await;
    let data = &first.body["data"];
    assert_eq!((&first.body["clock"], &data["ts_source"]), (&Json::Null, &Json::from("received")), "{}", first.text);
    assert!(data["ts_uncertainty_ms"].as_u64().is_some_and(|ms| ms >= 100), "{}", first.text);
    for time in [&first.body["timestamp"], &data["timestamp"], &data["received"]] {
        let found = wall(time);
        assert!((before..=wall(&alert.body["timestamp"]) + 20 * YEAR_MS).contains(&found), "{}", first.text);
    }
    let is_set = |received: &Received| received.body["data"]["clock"]["synchronised"] == true;
    consumer.find("a birth with a clock that is set", is_set).await;
    // What stands on the broker says the time that holds now.
    let is_dated = |received: &Received| {
        received.topic.contains("/alert_present/")
            && received.body["data"]["rule"] == "spo2_low"
            && received.body["data"]["onset"].as_str().is_some_and(|onset| onset >= "2026")
    };
    consumer.find("the alert that stands, dated anew", is_dated).await;

    // Another step: information, and no timer notices.
    trial.ahead_ms.store(3_600_000, Ordering::Relaxed);
    // The two clocks are read to the millisecond, one after the other.
    let is_step = |received: &Received| {
        let message = received.body["data"]["message"].as_str().unwrap_or_default();
        let is_hour = ["forward by 3599.9", "forward by 3600."].iter().any(|by| message.contains(by));
        received.body["data"]["kind"] == "clock_stepped" && is_hour
    };
    let step = consumer.find("the step", is_step).await;
    consumer.until("a reading after it", |received| is_reading(received) && received.seq() > step.seq()).await;
    let restless = consumer.all.iter().filter(|received| received.body["type"] == "alert" && received.is_event());
    let changes: Vec<&Json> = restless
        .filter(|received| received.seq() > step.seq())
        .map(|received| &received.body["data"]["rule"])
        .collect();
    assert_eq!(changes, Vec::<&Json>::new(), "an alert changed because of the clock");

    let events = trial.end().await;
    let stored = readings(&events).filter(|(event, _)| event.seq.0 < step.seq()).collect::<Vec<_>>();
    assert!(stored.len() > 3, "{stored:?}");
    let mut last = before;
    // What came after the step and before it was noticed says the time of after it.
    for (event, reading) in stored.into_iter().take_while(|(event, _)| event.at.wall.0 < before + 3_000_000) {
        assert_eq!(reading.taken.source, TimeSource::Received, "{event:?}");
        assert!(event.at.wall.0 >= last && event.at.wall.0 < before + 600_000, "{event:?} after {last}");
        last = event.at.wall.0;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_time_server_readings_go_out_after_the_hold_and_say_so() {
    let broker = Broker::started("").await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let trial = Trial::start(&broker, "clock_hold = '2s'\n").await;
    let birth = consumer.find("the birth", |received| received.body["type"] == "birth").await;
    let first = consumer.find("a reading", is_reading).await;
    let data = &first.body["data"];
    assert_eq!(first.body["clock"]["synced"], Json::from(false), "{}", first.text);
    assert_eq!((&data["ts_source"], data.get("ts_uncertainty_ms")), (&Json::from("unsynced"), None), "{}", first.text);
    // What came into being before the connection has waited for longer than the hold; then all goes out at once.
    let connected = wall(&birth.body["timestamp"]);
    let is_later = |received: &Received| is_reading(received) && wall(&received.body["timestamp"]) > connected + 2000;
    consumer.until("a live reading", is_later).await;
    trial.end().await;
}

/// A moment `seconds` after boot by a clock that is `ahead_ms` ahead of the time since boot.
fn at(seconds: u64, ahead_ms: i64) -> Stamp {
    Stamp { mono: Mono::from_millis(seconds * 1000), wall: Wall(ahead_ms + i64::try_from(seconds).unwrap() * 1000) }
}

const SET: i64 = 1_795_219_200_000; // 2026-11-21

fn epoch(first: Seq, boot: &str, since: Stamp, state: ClockState) -> ClockEpoch {
    let uncertainty_ms = state.is_settled().then_some(100);
    let offset_ms = vitalbridge::timeline::offset_ms(since);
    ClockEpoch { first, boot: boot.into(), since: since.mono, offset_ms, uncertainty_ms, state }
}

/// Appends `count` readings, one a second from `from` on.
fn append(store: &mut Store, count: u64, from: u64, ahead_ms: i64) {
    for number in 0..count {
        let stamp = at(from + number, ahead_ms);
        let EventBody::Reading(reading) = mqtt::reading(number) else { unreachable!() };
        let taken = vitalbridge::vitals::Taken::on_arrival(stamp);
        let body = EventBody::Reading(Reading { taken, received: stamp, ..reading });
        let event = Event { epoch: store.epoch.clone(), seq: store.next, at: stamp, body };
        store.next = store.next.next();
        store.handle.try_append(Arc::new(event)).unwrap();
    }
}

#[tokio::test]
async fn a_search_by_time_finds_what_was_stored_with_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    let (unset, set) = (ClockState::Unsynchronised, ClockState::Synchronised);
    let first = store.next;
    store.handle.begin_clock_epoch(epoch(first, "boot-1", at(10, 0), unset));
    // More than two blocks of 1024 numbers, of which the last is not complete.
    append(&mut store, 5000, 10, 0);
    let synchronised = store.next;
    store.handle.begin_clock_epoch(epoch(synchronised, "boot-1", at(6000, SET), set));
    append(&mut store, 100, 6000, SET);
    store.settle().await;

    let look = async |from: i64, to: i64| {
        let (after, through) = (Seq::ZERO, Seq(u64::MAX));
        let scan = Scan { from: Wall(from), to: Wall(to), after, through, limit: usize::MAX };
        let found = store.reader.scan(scan, |_| true, Vec::new(), |found, event| found.push(event.at.wall.0)).await;
        found.unwrap().0
    };
    assert_eq!(look(0, SET).await, Vec::<i64>::new(), "nothing is of 1970 any more");
    let expected: Vec<i64> = (1000..2000).map(|seconds| SET + seconds * 1000).collect();
    assert_eq!(look(SET + 1_000_000, SET + 2_000_000).await, expected);
    assert_eq!(look(SET, SET + 10_000_000).await.len(), 5100);
    let extent = store.reader.extent(Wall(0)).await.unwrap().unwrap();
    // Blocks are a second wider where they are dated anew, those at an edge keep what they had.
    assert_eq!(extent.1, Wall(SET + 6_099_000));
    let reach = store.reader.reach(Wall(SET), Wall(SET + 10_000_000)).await.unwrap();
    assert_eq!(reach, Wall(SET + 10_000_000));
    let place = store.reader.last_before(Wall(SET + 1_000_000)).await.unwrap();
    assert_eq!(place.0 - first.0, 989, "the reading of second 999");

    let counts =
        store.reader.events(Seq::ZERO, 10_000).await.unwrap().iter().fold(BTreeMap::new(), |mut counts, event| {
            let EventBody::Reading(reading) = &event.body else { unreachable!() };
            assert_eq!(reading.taken.wall, Some(event.at.wall));
            *counts.entry(reading.taken.source).or_insert(0) += 1;
            counts
        });
    assert_eq!(counts, BTreeMap::from([(TimeSource::Received, 5100)]));
    store.close().await;
    let database = rusqlite::Connection::open(folder.path().join("vitals.db")).unwrap();
    let rows = format!("SELECT min(wall), max(wall) FROM reading WHERE seq < {synchronised}");
    let stored: (i64, i64) = database.query_row(&rows, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(stored, (10_000, 5_009_000), "no row was written again");
}

/// What a run notes of the clock at its start, with this D-Bus and this directory of systemd-timesyncd.
async fn noted(bus: String, timesync: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens at the broker's port.
    let config = Config::load(&write_config(dir.path(), 1, ""), &Place::default()).unwrap();
    let machine = Machine {
        clock: Clock::System,
        bus: Some(bus),
        timesync: timesync.to_owned(),
        hardware_clocks: dir.path().join("nowhere"),
    };
    let codes = Codes::Directory(config.state_dir.clone());
    let start = Start { config, config_file: None, codes, on_listening: |_| {} };
    let stop = CancellationToken::new();
    let mut daemon = JoinSet::new();
    daemon.spawn(daemon::run_on(machine, start, stop.clone()));
    let database = dir.path().join("state/vitals.db");
    let state = || -> rusqlite::Result<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = rusqlite::Connection::open_with_flags(&database, flags)?;
        connection.query_row("SELECT state FROM clock_epoch ORDER BY first_seq LIMIT 1", [], |row| row.get(0))
    };
    let noting = async {
        loop {
            if let Ok(state) = state() {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let state = tokio::time::timeout(DEADLINE, noting).await.expect("a clock epoch on disk");
    stop.cancel();
    tokio::time::timeout(DEADLINE, daemon.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operating_system_is_asked_over_d_bus_else_by_a_file_else_nobody_can_tell() {
    let bus = Bus::start().await;
    let time_date = TimeDate1::start(&bus).await;
    let folder = tempfile::tempdir().unwrap();
    let (absent, empty, set) = (folder.path().join("absent"), folder.path().join("empty"), folder.path().join("set"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&set).unwrap();
    std::fs::write(set.join("synchronized"), "").unwrap();
    let nowhere = format!("unix:path={}", folder.path().join("no-bus").display());
    for (says, timesync, expected) in [
        (Some(true), &empty, "synchronised"),
        (Some(false), &set, "unsynchronised"),
        (None, &set, "synchronised"),
        (None, &empty, "unsynchronised"),
        (None, &absent, "unknown"),
    ] {
        time_date.is_synchronised.store(says == Some(true), Ordering::Relaxed);
        let bus = if says.is_some() { bus.address() } else { nowhere.clone() };
        assert_eq!(noted(bus, timesync).await, expected, "{says:?} {}", timesync.display());
    }
}

#[tokio::test]
async fn the_boot_is_named_by_the_unit_and_else_by_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), 1, "");
    let kernels = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for (units, expected) in [(Some("0123456789abcdef"), "0123456789abcdef"), (None, kernels.trim())] {
        let mut command = program();
        command.env_remove("VITALBRIDGE_BOOT_ID").args(["run", "--config"]).arg(&file);
        if let Some(boot) = units {
            command.env("VITALBRIDGE_BOOT_ID", boot);
        }
        let bridge = tokio::task::spawn_blocking(|| Bridge::start_command(command)).await.unwrap();
        assert_eq!(bridge.stop(), Some(0));
        let database = rusqlite::Connection::open(dir.path().join("state/vitals.db")).unwrap();
        let newest = |table: &str| -> String {
            let boot = format!("SELECT boot FROM {table} ORDER BY first_seq DESC LIMIT 1");
            database.query_row(&boot, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((newest("epoch"), newest("clock_epoch")), (expected.to_owned(), expected.to_owned()));
    }
}

#[tokio::test]
async fn a_boot_that_was_never_set_stays_uncertain_after_the_next_one_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    store.handle.begin_clock_epoch(epoch(store.next, "boot-1", at(10, 0), ClockState::Unsynchronised));
    append(&mut store, 3, 10, 0);
    store.handle.begin_clock_epoch(epoch(store.next, "boot-2", at(5, SET), ClockState::Synchronised));
    append(&mut store, 3, 5, SET);
    store.settle().await;
    let events = store.reader.events(Seq::ZERO, 10).await.unwrap();
    let shown: Vec<_> = readings(&events)
        .map(|(event, reading)| (event.at.wall.0, reading.taken.source, reading.taken.uncertainty_ms))
        .collect();
    let (unsynced, received) = (TimeSource::Unsynced, TimeSource::Received);
    assert_eq!(shown[0], (10_000, unsynced, None), "{shown:?}");
    assert_eq!(shown[5], (SET + 7000, received, Some(100)), "{shown:?}");
    // What a listener gets that resumes is the same.
    let resumed = store.reader.events_through(Seq(1), Seq(2), 10).await.unwrap();
    assert_eq!(resumed, events[1..2]);
    store.close().await;
}

#[tokio::test]
async fn a_clock_epoch_is_on_disk_with_the_events_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    let begun = epoch(store.next, "boot-1", at(10, 0), ClockState::Hardware);
    store.handle.begin_clock_epoch(begun.clone());
    append(&mut store, 1, 10, 0);
    store.settle().await;
    // Closed without a farewell: only what is on disk counts.
    drop(store);
    let after = async {
        loop {
            let now = Clock::System.now();
            match store::open(folder.path(), &StoreOptions::default(), Epoch::from_bits(2), "boot-1", now) {
                Ok(opened) => return opened,
                Err(store::StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let opened = tokio::time::timeout(DEADLINE, after).await.unwrap();
    assert_eq!(opened.handle.timeline().borrow().epochs(), [begun]);
}
