//! Stored records of Bluetooth sensors through the whole daemon: the binary over a private D-Bus and a fake BlueZ, and what
//! its database holds afterwards, over restarts.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vitalbridge::clock::Clock;
use vitalbridge::event::{AuditAction, Event, EventBody};
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::record::RecordEvent;
use vitalbridge::store::{self, MAX_READ, StoreOptions};
use vitalbridge::wire::ReadingData;

use crate::bridge::{Bridge, program, token};
use crate::dashboard::Dashboard;
use crate::fake_bluez::sensor::{Characteristic, Service};
use crate::fake_bluez::{Bus, FakeBluez, PATIENCE, Strap, World};

const SENSOR: &str = "C0:FF:EE:00:00:0A";
const BLOOD_PRESSURE: u16 = 0x2A35;
const GLUCOSE: u16 = 0x2A18;
const CONTEXT: u16 = 0x2A34;
const CONTROL: u16 = 0x2A52;
const CURRENT_TIME: u16 = 0x2A2B;

/// A bus with a fake BlueZ, and a bridge that reads one sensor.
struct Rig {
    bus: Bus,
    bluez: FakeBluez,
    config: PathBuf,
    state: PathBuf,
    runs: u64,
}

impl Rig {
    /// `source` are the lines of the source beside its address and patient.
    async fn new(sensor: Strap, source: &str) -> Self {
        let bus = Bus::start().await;
        let bluez = FakeBluez::start(&bus, World::new(vec![sensor])).await;
        let (config, state) = (bus.folder().join("vitalbridge.toml"), bus.folder().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let text = format!(
            "[bridge]\nid = \"b\"\n[[patient]]\nid = \"P-0001\"\nbed = \"1\"\nward = \"w\"\n[[patient]]\nid = \"P-0002\"\n\
             bed = \"2\"\nward = \"w\"\n[[source]]\nid = \"sensor\"\nkind = \"ble\"\naddress = \"{SENSOR}\"\n\
             patient = \"P-0001\"\n{source}\n"
        );
        std::fs::write(&config, text).unwrap();
        Self { bus, bluez, config, state, runs: 0 }
    }

    fn run(&self) -> Bridge {
        let mut command = program();
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address());
        command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(&self.config);
        command.arg("--state-dir").arg(&self.state);
        Bridge::start_command(command)
    }

    /// Waits until one of the source's counters is so high.
    async fn counted(&self, bridge: &Bridge, counter: &str, expected: u64) {
        let name = format!("vitalbridge_source_{counter}_total{{source=\"sensor\"}} ");
        let token = token(&self.state, &["--role", "admin", "--user", "m"]);
        let counting = async {
            loop {
                let text = metrics(&bridge.address, &token).await;
                let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
                if line.parse::<u64>().unwrap() >= expected {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let counted = tokio::time::timeout(PATIENCE, counting).await;
        assert!(counted.is_ok(), "never {expected} {counter}: {}", metrics(&bridge.address, &token).await);
    }

    /// What the database holds. The bridge has ended.
    async fn log(&mut self) -> Vec<Event> {
        self.runs += 1;
        let (state, epoch) = (self.state.clone(), Epoch::from_bits(self.runs));
        let opened =
            store::open(&state, &StoreOptions::default(), epoch, "look", Clock::System.now()).expect("it is free");
        opened.reader.events(Seq::ZERO, MAX_READ).await.unwrap()
    }

    /// The readings of one metric as the wire shows them, oldest first.
    async fn readings(&mut self, metric: &str) -> Vec<Json> {
        let log = self.log().await;
        let readings = log.iter().filter_map(|event| match &event.body {
            EventBody::Reading(reading) => Some(serde_json::to_value(ReadingData::reading(reading)).unwrap()),
            _ => None,
        });
        readings.filter(|reading| reading["metric"] == metric).collect()
    }

    async fn records(&mut self) -> Vec<RecordEvent> {
        let bodies = self.log().await.into_iter().map(|event| event.body);
        bodies.filter_map(|body| if let EventBody::Record(record) = body { Some(record) } else { None }).collect()
    }

    async fn alerts(&mut self) -> usize {
        self.log().await.iter().filter(|event| matches!(event.body, EventBody::Alert(_))).count()
    }

    /// Waits until the meter was asked for this, answers with these records, and says how it ended.
    async fn serve(&self, request: &'static [u8], payloads: Vec<(u16, Vec<u8>)>, answer: u8) {
        let asked = move |world: &mut World| world.strap(SENSOR).writes == [(CONTROL, request.to_vec())];
        self.bluez.until(&format!("the request {request:?}"), asked).await;
        let send = move |world: &mut World| {
            world.strap(SENSOR).writes.clear();
            for (characteristic, payload) in payloads {
                world.notify_by(SENSOR, Some(characteristic), &payload);
            }
            world.notify_by(SENSOR, Some(CONTROL), &[6, 0, request[0], answer]);
        };
        self.bluez.change(send).await;
    }

    /// The meter sleeps until it is woken by [`Rig::wake`].
    async fn sleep(&self) {
        self.bluez.until("the end of the link", |world| !world.strap(SENSOR).connected).await;
        self.bluez.change(|world| world.strap(SENSOR).in_range = false).await;
    }

    async fn wake(&self) {
        self.bluez.change(|world| world.strap(SENSOR).in_range = true).await;
    }
}

/// Ends it as systemd would; everything is on disk then.
fn stop(bridge: Bridge) {
    assert_eq!(bridge.stop(), Some(0));
}

async fn metrics(address: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

/// Date Time (GSS): so many days into November 2026, at eight.
fn day(day: u8) -> [u8; 7] {
    [0xEA, 7, 11, day, 8, 0, 0]
}

/// BLS 1.1.1, 3.1: a pressure with its time, and the user if there is one. RFU bit 7 is set, as by real cuffs.
fn pressure(systolic: u8, at: u8, user: Option<u8>) -> Vec<u8> {
    let flags = 0x82 | if user.is_some() { 0x08 } else { 0 };
    let mut payload = vec![flags, systolic, 0, 80, 0, 93, 0];
    payload.extend(day(at));
    payload.extend(user);
    payload
}

fn cuff(stored: &[Vec<u8>]) -> Strap {
    let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
    Strap::cuff(SENSOR, "Cuff", &stored)
}

/// What the cuff has in its memory from now on.
async fn store_in_cuff(rig: &Rig, stored: Vec<Vec<u8>>) {
    rig.bluez.change(move |world| world.strap(SENSOR).services = cuff(&stored).services).await;
}

fn meter() -> Strap {
    let service: Service = (
        0x1808,
        vec![
            Characteristic::new(GLUCOSE, &["notify"]),
            Characteristic::new(CONTEXT, &["notify"]),
            Characteristic::new(CONTROL, &["indicate", "write"]),
        ],
    );
    Strap::sensor(SENSOR, "Meter", vec![service])
}

/// GLS 1.0.1, 3.1: a record of that day with so many mg/dL in capillary blood.
fn glucose(number: u8, at: u8, mg_dl: u8) -> (u16, Vec<u8>) {
    let mut payload = vec![0x02, number, 0];
    payload.extend(day(at));
    payload.extend([mg_dl, 0xB0, 0x11]);
    (GLUCOSE, payload)
}

/// The same with another sample, of which a context follows.
fn with_context((_, mut payload): (u16, Vec<u8>), sample: u8) -> (u16, Vec<u8>) {
    payload[0] |= 0x10;
    payload[12] = 0x10 | sample;
    (GLUCOSE, payload)
}

fn meal(number: u8, meal: u8) -> (u16, Vec<u8>) {
    (CONTEXT, vec![0x02, number, 0, meal])
}

fn values(readings: &[Json]) -> Vec<&Json> {
    readings.iter().map(|reading| &reading["value"]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_stored_pressures_are_kept_only_the_last_alarms_and_none_comes_twice() {
    // 29 that would alarm, of four weeks; the last, of today, is high too.
    let memory: Vec<Vec<u8>> = (1..=30).map(|at| pressure(200 + at, at, None)).collect();
    let mut rig = Rig::new(cuff(&memory), "sensor = \"blood_pressure\"").await;
    let bridge = rig.run();
    rig.counted(&bridge, "records", 30).await;
    rig.counted(&bridge, "valid", 30).await;
    rig.counted(&bridge, "rfu_bits", 30).await;
    rig.sleep().await;
    stop(bridge);

    let kept = rig.readings("blood_pressure").await;
    let expected: Vec<Json> = (201..=230).map(Json::from).collect();
    assert_eq!(values(&kept), expected.iter().collect::<Vec<_>>());
    let historic = kept.iter().filter(|reading| reading["quality"] == "historic").count();
    assert_eq!((historic, &kept[29]["quality"]), (29, &json!("valid")), "{kept:#?}");
    assert_eq!((&kept[0]["ts_source"], &kept[0]["timestamp"]), (&json!("unknown"), &Json::Null));
    assert_eq!(kept[0]["device_time"], "2026-11-01T08:00:00");
    let alerts: Vec<Json> = rig
        .log()
        .await
        .into_iter()
        .filter_map(|event| if let EventBody::Alert(alert) = event.body { Some(alert) } else { None })
        .map(|alert| json!([alert.rule.as_str(), alert.value.and_then(vitalbridge::vitals::Value::valid)]))
        .collect();
    assert_eq!(alerts[0], json!(["systolic", 230]), "{alerts:?}");
    assert!(alerts.iter().all(|alert| alert[0] != "systolic" || alert[1] == 230), "{alerts:?}");

    let log = rig.log().await;
    let records = rig.records().await;
    assert_eq!(records.len(), 30);
    for (record, payload) in records.iter().zip(&memory) {
        let raw = vitalbridge::decode::gatt::decode(BLOOD_PRESSURE, payload).unwrap().raw_hex();
        assert_eq!((record.characteristic, &record.raw), (BLOOD_PRESSURE, &raw));
        let (first, last) = record.readings.unwrap();
        let of_it = |event: &&Event| (first..=last).contains(&event.seq) && matches!(event.body, EventBody::Reading(_));
        assert_eq!(log.iter().filter(of_it).count(), 1);
    }

    let bytes: usize = records.iter().map(|record| serde_json::to_string(record).unwrap().len()).sum();
    println!("{} bytes a record in the database", bytes / records.len());

    // The whole memory comes again at the next visit, in the same run and in the next, with one new measurement.
    let mut memory = memory;
    for (visit, systolic) in [(31, 120), (32, 121)] {
        // One measured a year later: the days of the month are used up.
        let mut newest = pressure(systolic, 1, None);
        newest[7] = 0xEB;
        memory.push(newest);
        store_in_cuff(&rig, memory.clone()).await;
        let bridge = rig.run();
        rig.wake().await;
        rig.counted(&bridge, "records_again", visit - 1).await;
        rig.counted(&bridge, "valid", 1).await;
        rig.sleep().await;
        rig.wake().await;
        rig.counted(&bridge, "records_again", 2 * visit - 1).await;
        rig.sleep().await;
        stop(bridge);
        let kept = rig.readings("blood_pressure").await;
        assert_eq!(kept.len(), usize::try_from(visit).unwrap());
        assert_eq!(
            (&kept.last().unwrap()["value"], &kept.last().unwrap()["quality"]),
            (&json!(systolic), &json!("valid"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_is_asked_for_what_is_new_over_restarts_and_for_everything_once_it_was_reset() {
    let mut rig = Rig::new(meter(), "sensor = \"glucose\"").await;
    let bridge = rig.run();
    rig.serve(&[1, 1], vec![glucose(1, 1, 101), glucose(2, 2, 102)], 1).await;
    rig.sleep().await;
    stop(bridge);
    assert_eq!(values(&rig.readings("glucose").await), [101, 102]);

    // From the newest known one on. Killed after the records, before they can be on disk.
    let bridge = rig.run();
    rig.wake().await;
    rig.serve(&[1, 3, 1, 2, 0], vec![glucose(2, 2, 102), glucose(3, 3, 103)], 1).await;
    bridge.kill();
    rig.bluez.until("the end of the link", |world| world.count("Disconnect") >= 1).await;
    rig.bluez.change(|world| world.drop_link(SENSOR)).await;
    let killed = values(&rig.readings("glucose").await).len();
    assert!((2..=3).contains(&killed));

    // Asked again from there or one later: in both cases it is there once.
    let bridge = rig.run();
    rig.bluez.until("a request", |world| !world.strap(SENSOR).writes.is_empty()).await;
    let writes = rig.bluez.change(|world| world.strap(SENSOR).writes.clone()).await;
    let request: &[u8] = if writes[0].1[3] == 2 { &[1, 3, 1, 2, 0] } else { &[1, 3, 1, 3, 0] };
    rig.serve(request, vec![glucose(2, 2, 102), glucose(3, 3, 103)], 1).await;
    rig.sleep().await;
    // Reset: it counts from 1 again, and does not have a record 3 yet.
    rig.wake().await;
    rig.serve(&[1, 3, 1, 3, 0], vec![], 6).await;
    rig.serve(&[1, 1], vec![glucose(1, 11, 111)], 1).await;
    rig.sleep().await;
    stop(bridge);
    assert_eq!(values(&rig.readings("glucose").await), [101, 102, 103, 111]);

    // A firmware that does not filter sends all: nothing comes twice.
    let bridge = rig.run();
    rig.wake().await;
    rig.serve(&[1, 3, 1, 1, 0], vec![], 9).await;
    rig.serve(&[1, 1], vec![glucose(1, 11, 111), glucose(2, 12, 112)], 1).await;
    rig.sleep().await;
    stop(bridge);
    assert_eq!(values(&rig.readings("glucose").await), [101, 102, 103, 111, 112]);
    let marks = rig.log().await.into_iter().filter_map(|event| match event.body {
        EventBody::Audit(audit) if audit.action == AuditAction::RecordsTaken => Some(audit.object),
        _ => None,
    });
    assert_eq!(marks.collect::<Vec<_>>(), ["2", "3", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_is_told_to_delete_what_is_on_disk_and_only_if_the_configuration_says_so() {
    let mut rig = Rig::new(meter(), "sensor = \"glucose\"\ndelete_records = true").await;
    let bridge = rig.run();
    rig.serve(&[1, 1], vec![glucose(1, 1, 101), glucose(2, 2, 102)], 1).await;
    let deletion: (u16, Vec<u8>) = (CONTROL, vec![2, 2, 1, 2, 0]);
    rig.bluez.until("the deletion", move |world| world.strap(SENSOR).writes.contains(&deletion)).await;
    let database = rusqlite::Connection::open(rig.state.join("vitals.db")).unwrap();
    let count = |table: &str| -> i64 {
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("reading"), count("known_record")), (2, 2), "they are on disk by now");
    drop(database);
    rig.serve(&[2, 2, 1, 2, 0], vec![], 1).await;
    rig.sleep().await;
    // The memory is empty; what it counts from here on is not known to anybody.
    rig.wake().await;
    rig.serve(&[1, 1], vec![], 6).await;
    rig.sleep().await;
    rig.wake().await;
    // A record that cannot be read keeps all of them in the meter.
    rig.serve(&[1, 1], vec![glucose(3, 3, 103), (GLUCOSE, vec![0x02, 4, 0])], 1).await;
    rig.sleep().await;
    // It comes again at the next visit, which does not leave it behind either.
    rig.wake().await;
    rig.serve(&[1, 1], vec![glucose(3, 3, 103), (GLUCOSE, vec![0x02, 4, 0]), glucose(5, 5, 105)], 1).await;
    rig.sleep().await;
    let left = rig.bluez.change(|world| world.strap(SENSOR).writes.clone()).await;
    assert_eq!(left, []);
    stop(bridge);
    assert_eq!(values(&rig.readings("glucose").await), [101, 102, 103, 105]);
    let done = rig.log().await.into_iter().filter_map(|event| match event.body {
        EventBody::Audit(audit) => Some(format!("{} {}", audit.action, audit.object)),
        _ => None,
    });
    assert_eq!(done.collect::<Vec<_>>(), ["records_taken 2", "records_deleted 2"]);
    let records = rig.records().await;
    let malformed: Vec<&RecordEvent> = records.iter().filter(|record| record.found == ["malformed"]).collect();
    assert_eq!((malformed.len(), malformed[0].raw.as_str(), &malformed[0].patient), (1, "020400", &None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_ketone_nor_control_solution_is_a_glucose_and_both_are_kept_as_they_came() {
    let mut rig = Rig::new(meter(), "sensor = \"glucose\"").await;
    let bridge = rig.run();
    let bearer = format!("Bearer {}", token(&rig.state, &["--role", "admin"]));
    let mut page = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    let channels = ["device/sensor/record", "patient/P-0001/glucose"];
    page.say(&json!({"type": "subscribe", "channels": channels, "delivery": "all"})).await;
    page.next_of("snapshot").await;
    // Sample 10: control solution, of a value that would alarm; a reserved meal, which the configuration knows no
    // reason for, makes the number doubtful.
    let payloads = vec![
        with_context(glucose(1, 1, 30), 10),
        meal(1, 1),
        with_context(glucose(2, 2, 31), 1),
        meal(2, 6),
        with_context(glucose(3, 3, 99), 1),
        meal(3, 2),
    ];
    rig.serve(&[1, 1], payloads, 1).await;
    let control = page.next_of("record").await;
    assert_eq!(
        (&control["data"]["raw"], &control["channel"]),
        (&json!("120100ea070b010800001eb01a"), &json!("device/sensor/record"))
    );
    assert_eq!((&control["data"]["characteristic"], &control["data"]["first_reading"]), (&json!("2A18"), &Json::Null));
    let doubtful = page.next_of("health_update").await;
    assert_eq!((&doubtful["data"]["value"], &doubtful["data"]["quality"]), (&json!(31), &json!("historic")));
    let record = page.next_of("record").await;
    assert_eq!((&record["data"]["context"], &record["data"]["number"]), (&json!("02020006"), &json!(2)));
    assert_eq!(record["data"]["last_reading"], doubtful["seq"]);
    drop(page);
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("glucose").await;
    assert_eq!(values(&kept), [31, 99]);
    let records = rig.records().await;
    let found: Vec<String> = records.iter().map(|record| record.found.join(" ")).collect();
    assert_eq!(found, ["control_solution late", "reserved_meal late", ""]);
    let contexts: Vec<&str> = records.iter().filter_map(|record| record.context.as_deref()).collect();
    assert_eq!(contexts, ["02010001", "02020006", "02030002"]);
    assert_eq!(rig.alerts().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meter_that_writes_ketones_as_glucose_is_known_by_its_profile() {
    let mut rig = Rig::new(meter(), "profile = \"caresens\"").await;
    let bridge = rig.run();
    // A ketone of which the number would alarm, a glucose, and one whose context is lost.
    let payloads = vec![
        with_context(glucose(1, 1, 30), 1),
        meal(1, 6),
        with_context(glucose(2, 1, 112), 1),
        meal(2, 1),
        with_context(glucose(3, 1, 31), 1),
    ];
    rig.serve(&[1, 1], payloads, 1).await;
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("glucose").await;
    let kept: Vec<(&Json, &Json)> = kept.iter().map(|reading| (&reading["value"], &reading["quality"])).collect();
    assert_eq!(kept, [(&json!(112), &json!("valid")), (&json!(31), &json!("questionable"))]);
    let found: Vec<String> = rig.records().await.iter().map(|record| record.found.join(" ")).collect();
    assert_eq!(found, ["ketone", "", "context_missing"]);
    assert_eq!(rig.alerts().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_measurement_that_failed_is_an_event_and_an_implausible_one_is_kept_and_marked() {
    // BLS 1.1.1, 3.1: all NaN. WSS 1.0.1, 3.2.1.2: 0xFFFF. HTS 1.0, 3.1.1.2: NaN. Then 36.4 °C as 180 °C; a cut pressure.
    let nan = [0x00, 0xFF, 0x07, 0xFF, 0x07, 0xFF, 0x07];
    for (kind, service, characteristic, payload, metric, quality, found) in [
        ("blood_pressure", 0x1810, 0x2A35, &nan[..], "blood_pressure", "not_available", "measurement_failed"),
        ("scale", 0x181D, 0x2A9D, &[0x00, 0xFF, 0xFF], "weight", "not_available", "measurement_failed"),
        (
            "thermometer",
            0x1809,
            0x2A1C,
            &[0x00, 0xFF, 0xFF, 0x7F, 0],
            "temperature",
            "not_available",
            "measurement_failed",
        ),
        ("thermometer", 0x1809, 0x2A1C, &[0x00, 0x08, 0x07, 0, 0xFF], "temperature", "implausible", ""),
        ("blood_pressure", 0x1810, 0x2A35, &[0x02, 120, 0, 80, 0, 93, 0], "blood_pressure", "", "malformed"),
    ] {
        let stored = Characteristic::new(characteristic, &["indicate"]).storing(&[payload]);
        let mut sensor = Strap::sensor(SENSOR, "Sensor", vec![(service, vec![stored])]);
        sensor.ends_link = true;
        let mut rig = Rig::new(sensor, &format!("sensor = \"{kind}\"")).await;
        let bridge = rig.run();
        rig.counted(&bridge, "records", 1).await;
        rig.sleep().await;
        stop(bridge);
        let records = rig.records().await;
        assert_eq!(records.len(), 1, "{metric}");
        assert_eq!(records[0].found.first().map_or("", String::as_str), found, "{metric}");
        let readings = rig.readings(metric).await;
        assert_eq!(readings.first().map_or(&json!(""), |reading| &reading["quality"]), quality, "{readings:?}");
        for reading in readings.iter().filter(|reading| reading["quality"] == "not_available") {
            assert_eq!((&reading["value"], &reading["absent"]), (&Json::Null, &json!("measurement_failed")));
        }
        assert_eq!(rig.alerts().await, 0, "{metric}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_sensor_measured_is_nobody_unless_the_configuration_says_who_it_is() {
    let memory =
        vec![pressure(121, 1, Some(1)), pressure(122, 2, Some(2)), pressure(123, 3, Some(255)), pressure(124, 4, None)];
    for (users, expected) in [
        ("", [Json::Null, Json::Null, Json::Null, json!("P-0001")]),
        ("users = { 1 = \"P-0002\" }", [json!("P-0002"), Json::Null, Json::Null, Json::Null]),
    ] {
        let mut rig = Rig::new(cuff(&memory), &format!("sensor = \"blood_pressure\"\n{users}")).await;
        let bridge = rig.run();
        rig.counted(&bridge, "records", 4).await;
        rig.counted(&bridge, "valid", 4).await;
        stop(bridge);
        let kept = rig.readings("blood_pressure").await;
        let whose: Vec<&Json> = kept.iter().map(|reading| &reading["patient_id"]).collect();
        assert_eq!(whose, expected.iter().collect::<Vec<_>>(), "{users}");
        let records = rig.records().await;
        let users_told: Vec<Option<u8>> = records.iter().map(|record| record.user).collect();
        assert_eq!(users_told, [Some(1), Some(2), None, None], "255 is a sensor's word for nobody it knows");
        let found: Vec<String> = records.iter().map(|record| record.found.join(" ")).collect();
        assert_eq!(found, ["late", "late", "user_unknown late", ""]);
        let reasons: Vec<String> = rig
            .log()
            .await
            .into_iter()
            .filter_map(|event| if let EventBody::Source(source) = event.body { source.reason } else { None })
            .collect();
        let told = "user 2 is nobody's: `users` does not say who it is".to_owned();
        assert!(reasons.contains(&told), "{reasons:?}");
    }
}

/// Current Time, as text of the same day.
fn told(local: &str) -> Vec<u8> {
    let local = vitalbridge::clock::Wall::parse(&format!("{local}Z")).unwrap();
    vitalbridge::decode::gatt::date_time::CurrentTime::local(local, 0).unwrap().encode().to_vec()
}

/// The sensor has a clock that says this.
fn with_clock(mut sensor: Strap, says: &str) -> Strap {
    sensor.services.push((0x1805, vec![Characteristic::new(CURRENT_TIME, &["read", "write"]).reading(&told(says))]));
    sensor
}

/// A pressure that the cuff dates so.
fn pressure_of(systolic: u8, local: &str) -> Vec<u8> {
    let mut payload = pressure(systolic, 1, None);
    payload.splice(7..14, told(local)[..7].to_vec());
    payload
}

fn wall(text: &Json) -> i64 {
    vitalbridge::clock::Wall::parse(text.as_str().unwrap()).unwrap().0
}

/// A reading that was measured so long before it came, by the sensor's clock: within 5 s, as the clock of this one stands
/// still. Ours is taken to be right within 100 ms.
fn assert_mapped(reading: &Json, seconds: i64) {
    assert_eq!(reading["ts_source"], "device_mapped", "{reading}");
    let before = wall(&reading["received"]) - wall(&reading["timestamp"]);
    assert!((0..5000).contains(&(before - seconds * 1000)), "{before} ms, expected {seconds} s: {reading}");
    // Ours, half a second of each time, half of the round trip, and 100 ppm.
    let least = 100 + 1000 + seconds / 10;
    let uncertainty = reading["ts_uncertainty_ms"].as_i64().unwrap();
    assert!((least..least + 1500).contains(&uncertainty), "{uncertainty}, at least {least}: {reading}");
}

const TRUST: &str = "\n[clock]\ntrust = \"system\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_cuff_has_kept_is_dated_by_its_own_clock_over_restarts() {
    let mut memory = vec![
        pressure_of(201, "2019-11-30T12:00:01"),
        pressure_of(202, "2020-01-01T09:00:01"),
        pressure_of(203, "2020-01-01T11:59:51"),
    ];
    let mut rig =
        Rig::new(with_clock(cuff(&memory), "2020-01-01T12:00:01"), &format!("sensor = \"blood_pressure\"{TRUST}"))
            .await;
    let bridge = rig.run();
    rig.counted(&bridge, "valid", 3).await;
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("blood_pressure").await;
    assert_eq!(values(&kept), [201, 202, 203]);
    let qualities: Vec<&Json> = kept.iter().map(|reading| &reading["quality"]).collect();
    assert_eq!(qualities, ["historic", "historic", "valid"]);
    // Older than 30 days: kept raw.
    assert_eq!((&kept[0]["ts_source"], &kept[0]["timestamp"]), (&json!("unknown"), &Json::Null));
    assert_eq!((&kept[0]["device_time"], &kept[0]["ts_uncertainty_ms"]), (&json!("2019-11-30T12:00:01"), &Json::Null));
    assert_mapped(&kept[1], 3 * 3600);
    assert_eq!(kept[1]["device_time"], "2020-01-01T09:00:01");
    assert_mapped(&kept[2], 10);

    // Somebody sets the cuff's clock while the bridge is off. It hands over all of it again, an hour-old one and one of the
    // future: the pair of this connect counts, and what is known keeps its time.
    memory.extend([pressure_of(204, "2021-06-01T07:00:01"), pressure_of(205, "2021-06-03T07:00:00")]);
    let services = with_clock(cuff(&memory), "2021-06-01T08:00:01").services;
    rig.bluez.change(move |world| world.strap(SENSOR).services = services).await;
    let bridge = rig.run();
    rig.wake().await;
    rig.counted(&bridge, "records_again", 3).await;
    rig.counted(&bridge, "valid", 2).await;
    rig.sleep().await;
    stop(bridge);
    let again = rig.readings("blood_pressure").await;
    assert_eq!(again[..3], kept[..]);
    assert_eq!(values(&again[3..]), [204, 205]);
    assert_mapped(&again[3], 3600);
    // It may have been measured now, so it may have to alarm; but nobody knows when.
    assert_eq!((&again[4]["ts_source"], &again[4]["timestamp"]), (&json!("unknown"), &Json::Null));
    assert_eq!((&again[4]["quality"], &again[4]["device_time"]), (&json!("valid"), &json!("2021-06-03T07:00:00")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_measurement_of_hours_ago_does_not_alarm_if_the_cuffs_clock_says_so() {
    let sensor = with_clock(cuff(&[pressure_of(230, "2020-01-01T09:00:01")]), "2020-01-01T12:00:01");
    let mut rig = Rig::new(sensor, &format!("sensor = \"blood_pressure\"{TRUST}")).await;
    let bridge = rig.run();
    rig.counted(&bridge, "records_late", 1).await;
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("blood_pressure").await;
    assert_mapped(&kept[0], 3 * 3600);
    assert_eq!(kept[0]["quality"], "historic");
    assert_eq!(rig.records().await[0].found, ["late"]);
    let rules = rig.log().await.into_iter().filter_map(|event| match event.body {
        EventBody::Alert(alert) => Some(alert.rule.as_str().to_owned()),
        _ => None,
    });
    assert!(!rules.collect::<Vec<_>>().contains(&"systolic".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meters_records_are_dated_by_the_time_that_its_user_sees() {
    // GLS 1.0.1, 3.1.1: the base time, and so many minutes to the time that the user sees.
    let record = |number: u8, base: &str, offset: i16, mg_dl: u8| {
        let mut payload = vec![0x03, number, 0];
        payload.extend(&told(base)[..7]);
        payload.extend(offset.to_le_bytes());
        payload.extend([mg_dl, 0xB0, 0x11]);
        (GLUCOSE, payload)
    };
    let meter = with_clock(meter(), "2020-01-01T12:00:01");
    let mut rig = Rig::new(meter, &format!("sensor = \"glucose\"{TRUST}")).await;
    let bridge = rig.run();
    let records = vec![
        record(1, "2020-01-01T07:00:01", 60, 101),
        record(2, "2020-01-01T09:00:01", i16::MAX, 102),
        record(3, "2020-01-01T10:59:51", 60, 103),
    ];
    rig.serve(&[1, 1], records, 1).await;
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("glucose").await;
    assert_eq!(values(&kept), [101, 102, 103]);
    assert_mapped(&kept[0], 4 * 3600);
    assert_eq!(kept[0]["device_time"], "2020-01-01T08:00:01");
    assert_eq!(
        (&kept[1]["ts_source"], &kept[1]["timestamp"]),
        (&json!("unknown"), &Json::Null),
        "its offset has overrun"
    );
    assert_mapped(&kept[2], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_at_each_connect_is_read_before() {
    let memory = [pressure_of(202, "2020-01-01T09:00:01"), pressure_of(203, "2020-01-01T11:59:51")];
    let sensor = with_clock(cuff(&memory), "2020-01-01T12:00:01");
    let mut rig = Rig::new(sensor, &format!("sensor = \"blood_pressure\"\nset_clock = \"+01:00\"{TRUST}")).await;
    let bridge = rig.run();
    rig.bluez.until("the time", |world| !world.strap(SENSOR).writes.is_empty()).await;
    rig.counted(&bridge, "valid", 2).await;
    rig.sleep().await;
    stop(bridge);
    let writes = rig.bluez.change(|world| world.strap(SENSOR).writes.clone()).await;
    assert_eq!((writes.len(), writes[0].0, writes[0].1.len()), (1, CURRENT_TIME, 10));
    let kept = rig.readings("blood_pressure").await;
    assert_mapped(&kept[0], 3 * 3600);
    assert_mapped(&kept[1], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_measured_after_the_bridge_has_set_the_clock_alarms() {
    // The cuff's clock is seven hours ahead until the bridge sets it; then it measures.
    let wall = |ahead_s: i64| {
        let now = vitalbridge::clock::Clock::System.now().wall.0;
        vitalbridge::clock::Wall(now + ahead_s * 1000).to_string()[..19].to_owned()
    };
    let sensor = with_clock(cuff(&[pressure_of(230, &wall(2))]), &wall(7 * 3600));
    let mut rig = Rig::new(sensor, &format!("sensor = \"blood_pressure\"\nset_clock = \"+00:00\"{TRUST}")).await;
    let bridge = rig.run();
    rig.bluez.until("the time", |world| !world.strap(SENSOR).writes.is_empty()).await;
    rig.counted(&bridge, "valid", 1).await;
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("blood_pressure").await;
    assert_eq!(kept[0]["quality"], "valid", "just now, or seven hours ago: {}", kept[0]);
    let rules = rig.log().await.into_iter().filter_map(|event| match event.body {
        EventBody::Alert(alert) => Some(alert.rule.as_str().to_owned()),
        _ => None,
    });
    assert!(rules.collect::<Vec<_>>().contains(&"systolic".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_measurement_of_minutes_ago_alarms_because_connecting_may_take_so_long() {
    let sensor = with_clock(cuff(&[pressure_of(230, "2020-01-01T11:50:01")]), "2020-01-01T12:00:01");
    let mut rig = Rig::new(sensor, &format!("sensor = \"blood_pressure\"{TRUST}")).await;
    let bridge = rig.run();
    rig.counted(&bridge, "valid", 1).await;
    rig.sleep().await;
    stop(bridge);
    let kept = rig.readings("blood_pressure").await;
    assert_mapped(&kept[0], 600);
    assert_eq!(kept[0]["quality"], "valid");
    let rules = rig.log().await.into_iter().filter_map(|event| match event.body {
        EventBody::Alert(alert) => Some(alert.rule.as_str().to_owned()),
        _ => None,
    });
    assert!(rules.collect::<Vec<_>>().contains(&"systolic".to_owned()));
}
