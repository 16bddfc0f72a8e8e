//! Bluetooth sensors with protocols of their makers, through the unchanged btleplug against a fake BlueZ, to readings.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vitalbridge::clock::Wall;
use vitalbridge::profile::built_in_text;

use crate::ble::{Bridge, OTHER, STRAP, Setup, reason};
use crate::bridge;
use crate::dashboard::Dashboard;
use crate::fake_bluez::sensor::Characteristic;
use crate::fake_bluez::{Bus, FakeBluez, Own, PATIENCE, Strap, World};

/// The numbers by which the fake calls the maker's service and its two characteristics.
const SERVICE: u16 = 0xE000;
const NOTIFY: u16 = 0xE001;
const WRITE: u16 = 0xE002;

/// What asks a ring for its values (command 0x17).
const POLL: [u8; 8] = [0xAA, 0x17, 0xE8, 0, 0, 0, 0, 0x1B];
/// What makes a CMS50D-BT send.
const START: [u8; 3] = [0x9B, 0x01, 0x1C];

/// The payload of a vector, by its id.
fn vector(id: &str) -> Vec<u8> {
    let all: Value = serde_json::from_str(include_str!("../vectors/ble.json")).unwrap();
    let vectors = all["vectors"].as_array().unwrap();
    let found = vectors.iter().find(|vector| vector["id"] == id).unwrap_or_else(|| panic!("no vector {id}"));
    hex(found["hex"].as_str().unwrap())
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A sensor with these UUIDs for its service, its notifications and what it takes.
fn sensor(uuids: [&'static str; 3], takes: &'static [&'static str], own: Own) -> Strap {
    let notify = Characteristic::new(NOTIFY, &["notify"]);
    let services = vec![(SERVICE, vec![notify, Characteristic::new(WRITE, takes)])];
    let uuids = [SERVICE, NOTIFY, WRITE].into_iter().zip(uuids).collect();
    let mut sensor = Strap::sensor(STRAP, "Sensor", services);
    sensor.own = Own { uuids, ..own };
    sensor
}

const O2: [&str; 3] = [
    "14839ac4-7d7e-415c-9a42-167340cf2339",
    "0734594a-a8e7-4b1a-a6b1-cd5243059a57",
    "8b00ace7-eb0b-49b0-bbe9-9aee0a26e1a3",
];
const NORDIC_UART: [&str; 3] = [
    "6e400001-b5a3-f393-e0a9-e50e24dcca9e",
    "6e400003-b5a3-f393-e0a9-e50e24dcca9e",
    "6e400002-b5a3-f393-e0a9-e50e24dcca9e",
];
const NONIN: [&str; 3] = [
    "46a970e0-0d5f-11e2-8b5e-0002a5d5c51b",
    "0aad7ea0-0d60-11e2-8e3c-0002a5d5c51b",
    "1447af80-0d60-11e2-88b6-0002a5d5c51b",
];
const CONTEC: [&str; 3] = [
    "0000ff12-0000-1000-8000-00805f9b34fb",
    "0000ff02-0000-1000-8000-00805f9b34fb",
    "0000ff01-0000-1000-8000-00805f9b34fb",
];
const YONKER: [&str; 3] = [
    "cdeacb80-5235-4c07-8846-93a37ee6b86d",
    "cdeacd81-5235-4c07-8846-93a37ee6b86d",
    "cdeacd82-5235-4c07-8846-93a37ee6b86d",
];
const BERRY: [&str; 3] = [
    "49535343-fe7d-4ae5-8fa9-9fafd205e455",
    "49535343-1e4d-4bd9-ba61-23c647249616",
    "49535343-8841-43f4-a8d4-ecbe34729bb3",
];

fn setup(profile: &str) -> Setup {
    Setup { profile: Some(built_in_text(profile).unwrap().to_owned()), ..Setup::of(&[STRAP]) }
}

/// The values of a metric that were heard so far, in order; the reason where there is none.
fn values(bridge: &Bridge, metric: &str) -> Vec<Value> {
    let readings = bridge.said().iter().map(|message| &message["reading"]);
    let of_metric = readings.filter(|reading| reading["metric"] == metric);
    of_metric
        .map(|reading| if reading["value"].is_null() { &reading["absent"] } else { &reading["value"] }.clone())
        .collect()
}

#[tokio::test]
async fn a_ring_that_only_answers_is_asked_again_and_again() {
    let bus = Bus::start().await;
    // An answer is longer than a notification: its checksum comes in the next one.
    let answers = vec![(POLL.to_vec(), vec![vector("o2-chunk-1"), vec![0xAC]])];
    let ring = sensor(O2, &["write-without-response"], Own { answers, ..Own::default() });
    let bluez = FakeBluez::start(&bus, World::new(vec![ring])).await;
    let mut bridge = Bridge::start(&bus, &setup("viatom-o2"));
    for _ in 0..2 {
        assert_eq!(bridge.until_reading("spo2").await["value"], 96);
        assert_eq!(bridge.until_reading("pulse_rate").await["value"], 93);
        assert_eq!(bridge.until_reading("battery").await["value"], 49);
    }
    assert_eq!(bridge.links(), ["opening", "waiting", "live"]);
    let (writes, commands) =
        bluez.change(|world| (world.strap(STRAP).writes.clone(), world.strap(STRAP).own.commands)).await;
    assert!(writes.len() >= 2 && writes.iter().all(|write| *write == (WRITE, POLL.to_vec())), "{writes:?}");
    assert_eq!(commands, writes.len(), "the characteristic takes no other writes");
    bridge.stop().await;
    bluez.until("the ring is let go", |world| !world.strap(STRAP).connected).await;
}

#[tokio::test]
async fn frames_are_found_whether_notifications_split_or_join_them() {
    let bus = Bus::start().await;
    let (first, second) = (vector("pc60-1"), vector("pc60-2"));
    let cycle = vec![
        first[..7].to_vec(),
        [&first[7..], &second[..3]].concat(),
        second[3..11].to_vec(),
        [&second[11..], &first[..], &second[..]].concat(),
    ];
    let oximeter = sensor(NORDIC_UART, &["write"], Own { cycle, ..Own::default() });
    let bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &setup("viatom-pc60"));
    while values(&bridge, "perfusion_index").len() < 8 {
        bridge.until_reading("perfusion_index").await;
    }
    assert_eq!(values(&bridge, "spo2")[..8], [96, 95, 96, 95, 96, 95, 96, 95].map(Value::from));
    assert_eq!(values(&bridge, "pulse_rate")[..4], [63, 71, 63, 71].map(Value::from));
    assert_eq!(values(&bridge, "perfusion_index")[..4], [json!(4.5), json!(12.9), json!(4.5), json!(12.9)]);
    bluez.change(|world| world.drop_link(STRAP)).await;
    let lost = bridge.until("the loss", |message| message["link"]["link"] == "lost").await;
    let counted = |place: usize| lost["counted"][place].as_u64().unwrap();
    assert!(counted(1) == 0 && counted(2) < 12, "nothing was broken but the frame in which the link was lost: {lost}");
    assert_eq!(reason(&lost["link"]), "the sensor dropped the link");
    assert_eq!(bluez.change(|world| world.strap(STRAP).writes.len()).await, 0, "it sends by itself");
}

#[tokio::test]
async fn each_notification_of_a_nonin_is_a_frame_of_its_own() {
    let bus = Bus::start().await;
    let frame = vector("nonin-sim");
    // A cut one, and one without a finger.
    let cycle = vec![frame.clone(), frame[..9].to_vec(), hex("0a091e000000097f01ff")];
    let oximeter = sensor(NONIN, &["write"], Own { cycle, ..Own::default() });
    let _bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &setup("nonin-3230"));
    while values(&bridge, "perfusion_index").len() < 4 {
        bridge.until_reading("perfusion_index").await;
    }
    for (metric, value) in [("spo2", json!(98)), ("pulse_rate", json!(72)), ("perfusion_index", json!(13.3))] {
        let searching = json!("searching");
        assert_eq!(values(&bridge, metric)[..4], [value.clone(), searching.clone(), value, searching], "{metric}");
    }
}

#[tokio::test]
async fn an_oximeter_that_falls_silent_without_its_command_is_told_again_in_time() {
    let bus = Bus::start().await;
    let frames = [vector("contec-1"), vector("contec-pleth"), vector("contec-2")].concat();
    // Real ones stop within a minute and are told every 20 s; this one stops within a second.
    let profile = built_in_text("contec-cms50d-bt").unwrap().replace("every = \"20s\"", "every = \"500ms\"");
    let own = Own { cycle: vec![frames], needs: Some((START.to_vec(), 100)), ..Own::default() };
    let oximeter = sensor(CONTEC, &["write", "write-without-response"], own);
    let bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &Setup { profile: Some(profile), ..setup("contec-cms50d-bt") });
    bluez.until("it is told six times", |world| world.strap(STRAP).writes.len() >= 6).await;
    let heard = values(&bridge, "spo2").len();
    while values(&bridge, "pulse_rate").len() < heard + 4 {
        bridge.until_reading("pulse_rate").await;
    }
    let (rates, writes) =
        (values(&bridge, "pulse_rate"), bluez.change(|world| world.strap(STRAP).writes.clone()).await);
    assert!(
        rates.chunks(2).all(|pair| pair.iter().zip([83, 64]).all(|(rate, expected)| *rate == expected)),
        "{rates:?}"
    );
    assert!(values(&bridge, "spo2").iter().all(|spo2| *spo2 == 99));
    assert!(writes.iter().all(|write| *write == (WRITE, START.to_vec())), "{writes:?}");
    assert_eq!(bluez.change(|world| world.strap(STRAP).own.commands).await, 0, "with a response where it is possible");
    assert_eq!(bridge.links(), ["opening", "waiting", "live"], "it never fell silent");
}

#[tokio::test]
async fn a_cuff_hands_over_its_measurement_and_ends_the_link_which_is_no_loss() {
    let bus = Bus::start().await;
    let measured = vector("yonker");
    let failed = [&[0x81, 0, 0, 0], &measured[4..]].concat();
    let mut cuff = sensor(YONKER, &["write"], Own::default());
    cuff.services[0].1[0] = Characteristic::new(NOTIFY, &["notify"]).storing(&[&measured, &failed]);
    cuff.ends_link = true;
    let bluez = FakeBluez::start(&bus, World::new(vec![cuff])).await;
    let mut bridge = Bridge::start(&bus, &setup("yonker-bp"));
    let parts = |pressure: &Value| pressure["components"].clone();
    let pressure = bridge.until_reading("blood_pressure").await;
    assert_eq!(parts(&pressure), json!({"systolic": 131, "diastolic": 103, "mean": null}));
    assert_eq!(pressure["device_time"], "2025-11-24T19:18");
    // It was not measured now, and so it alarms nobody.
    assert_eq!((&pressure["quality"], &pressure["ts_source"]), (&json!("historic"), &json!("unknown")));
    let failed = bridge.until_reading("blood_pressure").await;
    assert_eq!(parts(&failed), json!({"systolic": null, "diastolic": null, "mean": null}), "{failed}");
    let between =
        bridge.until("the end of the visit", |message| reason(&message["link"]) == "between measurements").await;
    assert_eq!(between["link"]["link"], "waiting");
    // It comes again with what it has handed over already, and then with a new measurement.
    bluez.until("the next visit", |world| world.count("Connect") >= 2).await;
    bridge.until_link("live").await;
    let newer = [&measured[..1], &[120, 80, 60], &measured[4..9], &[20], &measured[10..]].concat();
    bluez.change(|world| world.strap(STRAP).services[0].1[0].stored.insert(0, newer)).await;
    let newest = bridge.until_reading("blood_pressure").await;
    assert_eq!(parts(&newest)["systolic"], 120, "what came before is known: {newest}");
    assert_eq!(newest["device_time"], "2025-11-24T20:18");
    assert!(!bridge.links().iter().any(|link| link == "lost" || link == "silent"), "{:?}", bridge.links());
}

#[tokio::test]
async fn a_cuff_of_its_makers_protocol_is_dated_by_its_clock_if_it_has_one() {
    let bus = Bus::start().await;
    // Its measurement says 19:18, and its clock does not know what year it is.
    let measured = [&vector("yonker")[..6], &[19, 11, 24], &vector("yonker")[9..]].concat();
    let mut cuff = sensor(YONKER, &["write"], Own::default());
    cuff.services[0].1[0] = Characteristic::new(NOTIFY, &["notify"]).storing(&[&measured]);
    let now = Characteristic::new(0x2A2B, &["read"]).reading(&[0xE3, 7, 11, 24, 19, 18, 50, 0, 0, 0]);
    cuff.services.push((0x1805, vec![now]));
    cuff.ends_link = true;
    let _bluez = FakeBluez::start(&bus, World::new(vec![cuff])).await;
    let mut bridge = Bridge::start(&bus, &setup("yonker-bp"));
    let pressure = bridge.until_reading("blood_pressure").await;
    assert_eq!(
        (&pressure["ts_source"], &pressure["quality"]),
        (&json!("device_mapped"), &json!("valid")),
        "{pressure}"
    );
    assert_eq!(pressure["device_time"], "2019-11-24T19:18");
    let wall = |name: &str| Wall::parse(pressure[name].as_str().unwrap()).unwrap().0;
    // It says minutes: the middle of its one, and the middle of the second of the answer.
    assert!((20_000..26_000).contains(&(wall("received") - wall("timestamp"))), "{pressure}");
}

#[tokio::test]
async fn a_clock_that_may_be_protected_is_not_asked_for_without_a_bond() {
    let bus = Bus::start().await;
    let mut cuff = sensor(YONKER, &["write"], Own::default());
    cuff.services[0].1[0] = Characteristic::new(NOTIFY, &["notify"]).storing(&[&vector("yonker")]);
    let now = Characteristic::new(0x2A08, &["read"]).reading(&[0xE9, 7, 11, 24, 19, 18, 50]);
    cuff.services.push((0x1809, vec![now]));
    cuff.ends_link = true;
    let bluez = FakeBluez::start(&bus, World::new(vec![cuff])).await;
    let mut bridge = Bridge::start(&bus, &setup("yonker-bp"));
    let pressure = bridge.until_reading("blood_pressure").await;
    assert_eq!(pressure["ts_source"], "unknown", "{pressure}");
    assert_eq!(bluez.change(|world| world.count("ReadValue")).await, 0);
}

#[tokio::test]
async fn a_flood_of_a_hundred_frames_a_second_is_one_median_a_second_and_a_wave() {
    let bus = Bus::start().await;
    let frame = hex("8533461661");
    // One damaged frame in ten, which no checksum tells: a saturation of 80.
    let mut cycle = vec![frame; 10];
    cycle[4][4] = 0x50;
    let oximeter = sensor(BERRY, &["write"], Own { cycle, beat_turns: Some(1), ..Own::default() });
    let _bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &setup("berry-bci"));
    for _ in 0..4 {
        assert_eq!(bridge.until_reading("spo2").await["value"], 97);
    }
    assert!(values(&bridge, "pulse_rate").iter().all(|rate| *rate == 150));
    // Samples count the frames: between two readings there is about a second of them.
    let readings: Vec<usize> =
        (0..bridge.said().len()).filter(|at| bridge.said()[*at]["reading"]["metric"] == "spo2").collect();
    let between = &bridge.said()[readings[0]..readings[3]];
    let ends = between.iter().filter_map(|message| message["wave"]["first"].as_u64());
    let (first, last) = (ends.clone().min().unwrap(), ends.max().unwrap());
    assert!(last - first >= 150, "{} frames in three seconds", last - first);
}

#[tokio::test]
async fn garbage_is_counted_and_costs_no_frame_after_it() {
    let bus = Bus::start().await;
    let (first, second) = (vector("pc60-1"), vector("pc60-2"));
    let mut broken = first.clone();
    broken[11] ^= 1;
    // Noise that begins like a frame, a frame with a wrong sum, and the beginning of one that never ends.
    let cycle = vec![first.clone(), hex("ff00aa5513"), second.clone(), broken, [&first[..5], &second[..]].concat()];
    let oximeter = sensor(NORDIC_UART, &["write"], Own { cycle, ..Own::default() });
    let bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &setup("viatom-pc60"));
    while values(&bridge, "spo2").len() < 9 {
        bridge.until_reading("spo2").await;
    }
    assert_eq!(values(&bridge, "spo2")[..9], [96, 95, 95, 96, 95, 95, 96, 95, 95].map(Value::from));
    bluez.change(|world| world.drop_link(STRAP)).await;
    let lost = bridge.until("the loss", |message| message["link"]["link"] == "lost").await;
    let counted: Vec<u64> = (0..3).map(|at| lost["counted"][at].as_u64().unwrap()).collect();
    assert!(counted[0] >= 9 && counted[1] >= 2 && counted[2] >= 2 * (5 + 12 + 5), "{counted:?}");
}

#[tokio::test]
async fn a_sensor_of_which_nothing_is_understood_is_silent_and_says_why() {
    let bus = Bus::start().await;
    let mut broken = vector("pc60-1");
    broken[11] ^= 1;
    let oximeter = sensor(NORDIC_UART, &["write"], Own { cycle: vec![broken], ..Own::default() });
    let bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &Setup { silence_ms: 1000, ..setup("viatom-pc60") });
    let silent = bridge.until_link("silent").await;
    let words = reason(&silent);
    assert!(words.starts_with("no readable measurement for 1 s, "), "{words}");
    assert!(words.ends_with(" malformed ones: a frame of the profile viatom-pc60 has a wrong checksum"), "{words}");
    assert!(bridge.said().iter().all(|message| message["reading"].is_null()), "{:?}", bridge.said());
    bluez.until("the link is made anew", |world| world.count("Connect") >= 2).await;
}

#[tokio::test]
async fn a_link_that_drops_in_a_frame_leaves_nothing_of_it_to_the_next_one() {
    let bus = Bus::start().await;
    let (first, second) = (vector("pc60-1"), vector("pc60-2"));
    let (begun, rest) = (first[..7].to_vec(), [&first[7..], &second[..]].concat());
    let oximeter = sensor(NORDIC_UART, &["write"], Own::default());
    let bluez = FakeBluez::start(&bus, World::new(vec![oximeter])).await;
    let mut bridge = Bridge::start(&bus, &setup("viatom-pc60"));
    bridge.until_link("waiting").await;
    bluez
        .change(move |world| {
            world.notify(STRAP, &second);
            world.notify(STRAP, &begun);
        })
        .await;
    assert_eq!(bridge.until_reading("spo2").await["value"], 95);
    bluez.change(|world| world.drop_link(STRAP)).await;
    bridge.until_link("lost").await;
    bridge.until_link("waiting").await;
    bluez.change(move |world| world.notify(STRAP, &rest)).await;
    bridge.until_reading("spo2").await;
    assert_eq!(values(&bridge, "spo2"), [95, 95], "96 would be the frame that was cut in two");
}

#[tokio::test]
async fn a_sensor_of_another_kind_and_one_that_takes_no_commands_are_named_as_such() {
    let bus = Bus::start().await;
    let other = sensor(NORDIC_UART, &["write"], Own::default());
    let _bluez = FakeBluez::start(&bus, World::new(vec![other])).await;
    let mut bridge = Bridge::start(&bus, &setup("viatom-o2"));
    let lost = bridge.until_link("lost").await;
    let words = "the device is none of the profile viatom-o2: it has no service 14839ac4-7d7e-415c-9a42-167340cf2339";
    assert!(reason(&lost).starts_with(words), "{lost}");

    let bus = Bus::start().await;
    let ring = sensor(O2, &["write"], Own { refuses_writes: true, ..Own::default() });
    let _bluez = FakeBluez::start(&bus, World::new(vec![ring])).await;
    let mut bridge = Bridge::start(&bus, &Setup { silence_ms: 1000, ..setup("viatom-o2") });
    let silent = bridge.until_link("silent").await;
    let words = "no readable measurement for 1 s; writing to the sensor: ";
    assert!(reason(&silent).starts_with(words) && reason(&silent).contains("Write not permitted"), "{silent}");
}

#[tokio::test]
async fn a_flood_and_a_ring_that_only_answers_reach_a_dashboard_side_by_side() {
    let mut bus = Bus::absent();
    bus.match_rules = 64;
    bus.run().await;
    let own = Own { cycle: vec![hex("8533461661")], beat_turns: Some(1), ..Own::default() };
    let mut flood = sensor(BERRY, &["write"], own);
    (flood.address, flood.name) = (OTHER, "BerryMed");
    let answers = vec![(POLL.to_vec(), vec![vector("o2-chunk-1"), vec![0xAC]])];
    let ring = sensor(O2, &["write"], Own { answers, ..Own::default() });
    let _bluez = FakeBluez::start(&bus, World::new(vec![flood, ring])).await;
    let (config, state) = (bus.folder().join("vitalbridge.toml"), bus.folder().join("state"));
    std::fs::create_dir_all(&state).unwrap();
    let source = |id: &str, patient: &str, rest: &str| {
        format!(
            "[[patient]]\nid = \"{patient}\"\n[[source]]\nid = \"{id}\"\nkind = \"ble\"\npatient = \"{patient}\"\n{rest}\n"
        )
    };
    let text = source("flood", "P-1", "name = \"BerryMed\"\nprofile = \"berry-bci\"")
        + &source("ring", "P-2", &format!("address = \"{STRAP}\"\nprofile = \"viatom-o2\""));
    std::fs::write(&config, format!("[bridge]\nid = \"b\"\n{text}")).unwrap();
    let mut command = bridge::program();
    command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).args(["run", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(&config).arg("--state-dir").arg(&state);
    let daemon = bridge::Bridge::start_command(command);
    let token = bridge::token(&state, &["--role", "clinician"]);
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    let mut dashboard = Dashboard::connect(&daemon.address, "/ws", &headers).await.unwrap();
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"], "delivery": "all"})).await;
    let mut heard: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let deadline = bridge::now() + 2 * PATIENCE;
    while heard.values().filter(|values| values.len() >= 2).count() < 2 {
        assert!(bridge::now() < deadline, "not both, but {heard:?}");
        let reading = dashboard.next_of("health_update").await["data"].take();
        if reading["metric"] == "spo2" && !reading["value"].is_null() {
            heard.entry(reading["source_id"].as_str().unwrap().to_owned()).or_default().push(reading["value"].clone());
        }
    }
    assert!(heard["flood"].iter().all(|value| *value == 97), "{heard:?}");
    assert!(heard["ring"].iter().all(|value| *value == 96), "{heard:?}");
    assert!(heard["flood"].len() <= 20, "no more than one a second: {heard:?}");
}
