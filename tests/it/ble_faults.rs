//! What breaks around Bluetooth sensors, through the unchanged btleplug over a private D-Bus: what is left behind, and what
//! is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use vitalbridge::sources::ble::SensorKind;
use zbus::Variant;

use crate::ble::{BEATING, Bridge, OTHER, Pace, STRAP, Setup, place, reason};
use crate::fake_bluez::sensor::Characteristic;
use crate::fake_bluez::{Bus, FakeBluez, OnConnect, Strap, World};

/// Debian's limit of match rules.
pub(crate) const USUAL_MATCH_RULES: u32 = 512;

fn strap() -> Strap {
    Strap::new(STRAP, "Strap").sending(&BEATING)
}

/// A bus, a BlueZ with a strap, and a bridge with the limits of the daemon that reads it.
struct Rig {
    bus: Bus,
    bluez: FakeBluez,
    bridge: Bridge,
}

impl Rig {
    async fn reading() -> Self {
        let mut rig = Self::with(vec![strap()], &Setup { pace: Pace::Real, ..Setup::of(&[STRAP]) }).await;
        rig.bridge.until_reading("heart_rate").await;
        rig
    }

    async fn with(straps: Vec<Strap>, setup: &Setup) -> Self {
        let bus = Bus::start().await;
        let bluez = FakeBluez::start(&bus, World::new(straps)).await;
        let mut bridge = Bridge::start(&bus, setup);
        // Longer than the deadline of a connect, which is 20 s.
        bridge.patience = Duration::from_mins(1);
        Self { bus, bluez, bridge }
    }
}

#[tokio::test]
async fn an_adapter_that_a_person_switched_off_is_neither_switched_on_nor_scanned_with() {
    let mut rig = Rig::reading().await;
    rig.bluez.change(|world| world.power(false)).await;
    rig.bridge
        .until("why", |message| reason(&message["link"]).starts_with("the Bluetooth adapter is switched off"))
        .await;
    let Rig { bus, bluez, mut bridge } = rig;
    // Not even by a bluetoothd that is started anew. One that ends switches the adapter off as well, but just before.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    bluez.change(|world| world.calls.clear()).await;
    let kernel = bluez.kill().await;
    bridge.until("the end of bluetoothd", |message| reason(&message["link"]).starts_with("bluetoothd does not")).await;
    let bluez = FakeBluez::start(&bus, kernel).await;
    bridge
        .until("the adapter", |message| reason(&message["link"]).starts_with("the Bluetooth adapter is switched off"))
        .await;
    let (powered, calls) = bluez.change(|world| (world.powered, world.calls.clone())).await;
    assert!(!powered);
    for call in ["Set", "StartDiscovery", "Connect"] {
        assert!(calls.iter().all(|made| made.split(' ').next() != Some(call)), "{call}: {calls:#?}");
    }
    bluez.change(|world| world.power(true)).await;
    bridge.until_link("live").await;
}

/// What a process has: file descriptors, threads, and match rules over all its connections, as the bus counts them.
pub(crate) async fn left_behind(bus: &Bus, pid: u32) -> (usize, usize, i64) {
    let count = |folder: &str| std::fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().count();
    let address = bus.address();
    let connection = zbus::connection::Builder::address(address.as_str()).build().await.unwrap();
    let (bus_name, stats) = (Some("org.freedesktop.DBus"), Some("org.freedesktop.DBus.Debug.Stats"));
    let path = "/org/freedesktop/DBus";
    let reply = connection.call_method(bus_name, path, bus_name, "ListNames", &()).await.unwrap();
    let names: Vec<String> = reply.body().deserialize().unwrap();
    let mut held = 0;
    for name in names.iter().filter(|name| name.starts_with(':')) {
        let asked = connection.call_method(bus_name, path, bus_name, "GetConnectionUnixProcessID", name).await;
        // It may have left meanwhile.
        let Ok(reply) = asked else { continue };
        if reply.body().deserialize::<u32>().unwrap() != pid {
            continue;
        }
        let reply = connection.call_method(bus_name, path, stats, "GetConnectionStats", name).await.unwrap();
        let body = reply.body();
        let numbers: BTreeMap<String, Variant<'_>> = body.deserialize().unwrap();
        held += i64::from(u32::try_from(&numbers["MatchRules"]).unwrap());
    }
    (count("fd"), count("task"), held)
}

#[tokio::test]
async fn three_hundred_connects_in_a_row_leave_nothing_behind() {
    const CONNECTS: usize = 300;
    let mut bus = Bus::absent();
    bus.match_rules = USUAL_MATCH_RULES;
    bus.run().await;
    let bluez = FakeBluez::start(&bus, World::new(vec![strap()])).await;
    let mut bridge = Bridge::start(&bus, &Setup { pace: Pace::Restless, ..Setup::of(&[STRAP]) });
    println!("| connects | file descriptors | threads | match rules | tokio tasks | leaked | generations |");
    println!("|---|---|---|---|---|---|---|");
    let mut measured = vec![];
    for connect in 1..=CONNECTS {
        let live = bridge.until("the strap", |message| message["link"]["link"] == "live").await;
        if connect % 50 == 0 || connect == 5 {
            let (files, threads, held) = left_behind(&bus, bridge.pid()).await;
            let status = &live["status"];
            let leaked = status["match_rules_leaked"].as_i64().unwrap();
            let tasks = (&live["tasks"], &status["radio_tasks"]);
            let generations = &status["radio"]["counts"]["generations"];
            println!(
                "| {connect} | {files} | {threads} | {held} | {} + {} | {leaked} | {generations} |",
                tasks.0, tasks.1
            );
            measured.push((files, threads, held - leaked));
        }
        bluez.change(|world| world.drop_link(STRAP)).await;
    }
    assert!(bluez.change(|world| world.count("Connect")).await >= CONNECTS);
    let (first, last) = (measured[0], measured[measured.len() - 1]);
    assert!(last.0 <= first.0 + 2, "file descriptors: {measured:?}");
    assert!(last.1 <= first.1 + 2, "threads: {measured:?}");
    assert!(last.2 <= first.2 + 2, "match rules beside those that are counted as leaked: {measured:?}");
}

#[tokio::test]
async fn a_bus_without_match_rules_for_us_costs_a_generation_and_no_more() {
    // Watching BlueZ takes five, on a connection of its own. On that of btleplug five devices take five, and a connect
    // one: with four of them all is well, the fifth is one too many.
    let mut bus = Bus::absent();
    bus.match_rules = 5;
    bus.run().await;
    let addresses = [STRAP, OTHER, "C0:FF:EE:00:00:03", "C0:FF:EE:00:00:04", "C0:FF:EE:00:00:05"];
    let straps = addresses.map(|address| Strap::new(address, "Strap").sending(&BEATING));
    let bluez = FakeBluez::start(&bus, World::new(straps.into())).await;
    let mut bridge = Bridge::start(&bus, &Setup { pace: Pace::Restless, ..Setup::of(&addresses) });
    bridge.until("the limit", |message| reason(&message["link"]).contains("match rules")).await;
    // The limit goes up, as it does when the rules of another part of the system are given back.
    bus.allow_match_rules(USUAL_MATCH_RULES).await;
    for source in 0..addresses.len() {
        let source = format!("source-{source}");
        bridge.until(&source, |message| message["reading"]["source_id"] == source.as_str()).await;
    }
    // One that goes makes none of the others deaf.
    for dropped in addresses {
        bluez.change(move |world| world.drop_link(dropped)).await;
        bridge.until_link("live").await;
        for source in 0..addresses.len() {
            let source = format!("source-{source}");
            bridge.until(&source, |message| message["reading"]["source_id"] == source.as_str()).await;
        }
    }
    let silent = bridge.links().iter().filter(|link| *link == "silent").count();
    assert_eq!(silent, 0, "{:?}", bridge.links());
}

#[tokio::test]
async fn a_sensor_that_cannot_be_connected_is_cured_step_by_step_up_to_the_end_of_the_daemon_and_its_bond_is_kept() {
    for bonded in [false, true] {
        let mut strap = strap();
        strap.bonded = bonded;
        strap.on_connect = vec![OnConnect::Fails; 1000];
        if bonded {
            strap.remembered();
        }
        let mut rig = Rig::with(vec![strap], &Setup { pace: Pace::Desperate, ..Setup::of(&[STRAP]) }).await;
        let ended = rig.bridge.until("the end of the radio", |message| message["radio_ended"].is_string()).await;
        let words = "no Bluetooth sensor can be connected: connecting to the sensor: le-connection-abort-by-local";
        assert_eq!(ended["radio_ended"], words);
        let calls = rig.bluez.change(|world| world.calls.clone()).await;
        // What was done after how many connects.
        let (mut connects, mut steps, mut disconnects) = (0, vec![], 0);
        for call in &calls {
            match call.split(' ').next() {
                Some("Connect") => connects += 1,
                Some("Disconnect") => disconnects += 1,
                Some("RemoveDevice") => steps.push((connects, "forgotten")),
                Some("Set") => steps.push((connects, "switched")),
                // A generation of btleplug begins with this; the other connection never asks for it.
                Some("GetAll") if call.ends_with("/hci0") => steps.push((connects, "a new thread")),
                _ => {}
            }
        }
        assert!(disconnects >= connects, "each connect that failed is ended: {disconnects} of {connects}");
        let round = [(3, "forgotten"), (6, "switched"), (6, "switched"), (9, "a new thread")];
        // The fourth renewal in vain ends the daemon instead.
        let rounds = (0..4).flat_map(|times| round.map(|(after, step)| (9 * times + after, step)));
        let expected = std::iter::once((0, "a new thread")).chain(rounds).filter(|(after, _)| *after < 36);
        let expected: Vec<_> = expected.filter(|(_, step)| !bonded || *step != "forgotten").collect();
        assert_eq!(steps, expected, "bonded: {bonded}");
        assert_eq!(rig.bluez.change(|world| (world.powered, world.strap(STRAP).bonded)).await, (true, bonded));
        let shown: BTreeSet<&str> =
            rig.bridge.said().iter().filter_map(|said| said["status"]["sensors"][0]["tried"].as_str()).collect();
        assert!(shown.contains("power_cycled"), "{shown:?}");
    }
}

#[tokio::test]
async fn a_bridge_that_is_stopped_inside_a_power_cycle_leaves_the_adapter_on_and_after_a_crash_the_next_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("bluetooth-switched-off");
    let setup = Setup { pace: Pace::Desperate, power_file: Some(note.clone()), ..Setup::of(&[STRAP]) };
    for crashes in [false, true] {
        let mut strap = strap();
        strap.on_connect = vec![OnConnect::Fails; 1000];
        let Rig { bus, bluez, bridge } = Rig::with(vec![strap], &setup).await;
        bluez.until("the adapter off", |world| !world.powered).await;
        assert_eq!(std::fs::read_to_string(&note).unwrap(), "00:AA:01:00:00:42\n");
        if crashes {
            drop(bridge);
            assert!(!bluez.change(|world| world.powered).await);
            // The note of another adapter is none about this one.
            std::fs::write(&note, "00:AA:01:00:00:43\n").unwrap();
            let mut other = Bridge::start(&bus, &setup);
            other.until("why", |message| reason(&message["link"]).contains("is switched off")).await;
            other.stop().await;
            assert!(!bluez.change(|world| world.powered).await);
            std::fs::write(&note, "00:AA:01:00:00:42\n").unwrap();
            bluez.change(|world| world.strap(STRAP).on_connect.clear()).await;
            let mut next = Bridge::start(&bus, &setup);
            next.until_reading("heart_rate").await;
        } else {
            bridge.stop().await;
            assert!(bluez.change(|world| world.powered).await);
        }
        assert!(!note.exists(), "crashes: {crashes}");
    }
}

#[tokio::test]
async fn without_an_agent_an_encrypted_cuff_hangs_and_with_one_it_delivers() {
    let cuff = Strap::cuff(STRAP, "A&D_UA-651BLE", &[&[0x00, 120, 0, 80, 0, 93, 0]]);
    let bus = Bus::start().await;
    let mut world = World::new(vec![cuff]);
    world.refuses_agents = true;
    let bluez = FakeBluez::start(&bus, world).await;
    let mut bridge = Bridge::start(&bus, &Setup { sensor: SensorKind::BloodPressure, ..Setup::of(&[STRAP]) });
    // 5 s here; btleplug would wait 30 s.
    bridge.until("the hang", |message| reason(&message["link"]) == "subscribing: no answer within 5 s").await;
    assert!(bluez.change(|world| world.agents.is_empty() && !world.strap(STRAP).bonded).await);
    bluez.change(|world| world.refuses_agents = false).await;
    assert_eq!(bridge.until_reading("blood_pressure").await["components"]["systolic"], 120);
    assert!(bluez.change(|world| world.strap(STRAP).bonded).await);
}

#[tokio::test]
async fn a_cuff_hands_over_all_it_has_stored_and_the_end_of_the_link_is_no_fault() {
    // BLS 1.1.1, 3.1.1.1: user index present; 121/81, 122/82, 123/83, 124/84 of the users 0, 1, 7 and nobody.
    let stored: Vec<Vec<u8>> = [(121, 81, 0), (122, 82, 1), (123, 83, 7), (124, 84, 255)]
        .into_iter()
        .map(|(systolic, diastolic, user)| vec![0x08, systolic, 0, diastolic, 0, 95, 0, user])
        .collect();
    let stored: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
    let cuff = Strap::cuff(STRAP, "A&D_UA-651BLE", &stored);
    let users = BTreeMap::from([(0, "P-0001".to_owned()), (1, "P-0002".to_owned())]);
    let setup = Setup { sensor: SensorKind::BloodPressure, users, ..Setup::of(&[STRAP]) };
    let mut rig = Rig::with(vec![cuff], &setup).await;
    let mut whose = vec![];
    for _ in 0..4 {
        let reading = rig.bridge.until_reading("blood_pressure").await;
        whose.push((reading["components"]["systolic"].clone(), reading["patient_id"].clone()));
    }
    let expected = [(121, json!("P-0001")), (122, json!("P-0002")), (123, Value::Null), (124, Value::Null)]
        .map(|(systolic, patient)| (json!(systolic), patient));
    assert_eq!(whose, expected, "an unknown user is nobody, and not the first one");
    rig.bluez.until("the end of the link", |world| !world.strap(STRAP).connected).await;
    let waiting = rig.bridge.until("the pause", |message| reason(&message["link"]) == "between measurements").await;
    assert_eq!(waiting["link"]["link"], "waiting");
    assert!(!rig.bridge.links().contains(&"lost".to_owned()), "{:?}", rig.bridge.links());
    assert_eq!(waiting["status"]["sensors"][0]["failures"], 0);
    rig.bridge.stop().await;
}

/// A cuff that sends this once, with what else it has in its service.
fn cuff_with(sends: &[u8], others: Vec<Characteristic>) -> Strap {
    let measurement = Characteristic::new(0x2A35, &["indicate"]).storing(&[sends]);
    let others = others.into_iter().chain([measurement]);
    let mut cuff = Strap::sensor(STRAP, "Cuff", vec![(0x1810, others.collect())]);
    cuff.ends_link = true;
    cuff
}

#[tokio::test]
async fn what_a_cuff_refuses_beside_its_measurement_does_not_cost_the_measurement() {
    for cuff_pressure in
        [Characteristic::new(0x2A36, &["notify"]).refusing(), Characteristic::new(0x2A36, &["read"]).refusing()]
    {
        let cuff = cuff_with(&[0x00, 120, 0, 80, 0, 93, 0], vec![cuff_pressure]);
        let setup = Setup { sensor: SensorKind::BloodPressure, ..Setup::of(&[STRAP]) };
        let mut rig = Rig::with(vec![cuff], &setup).await;
        let reading = rig.bridge.until_reading("blood_pressure").await;
        assert_eq!(reading["components"]["systolic"], 120);
        rig.bridge.stop().await;
    }
}

#[tokio::test]
async fn a_cuff_with_date_time_has_its_clock_set_if_the_clock_of_this_machine_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        sensor: SensorKind::BloodPressure,
        set_clock: Some(60),
        time_sync: Some(folder.path().to_owned()),
        ..Setup::of(&[STRAP])
    };
    for is_set in [false, true] {
        if is_set {
            std::fs::write(folder.path().join("synchronized"), "").unwrap();
        }
        let date_time = Characteristic::new(0x2A08, &["read", "write"]);
        let mut cuff = cuff_with(&[0x00, 120, 0, 80, 0, 93, 0], vec![date_time]);
        cuff.ends_link = false;
        let Rig { bus: _bus, bluez, mut bridge } = Rig::with(vec![cuff], &setup).await;
        bridge.until_reading("blood_pressure").await;
        if is_set {
            bluez.until("the time", |world| !world.strap(STRAP).writes.is_empty()).await;
        }
        bridge.stop().await;
        let writes = bluez.change(|world| world.strap(STRAP).writes.clone()).await;
        let written: Vec<(u16, usize)> = writes.iter().map(|(uuid, bytes)| (*uuid, bytes.len())).collect();
        let expected: &[(u16, usize)] = if is_set { &[(0x2A08, 7)] } else { &[] };
        assert_eq!(written, expected);
    }
}

#[tokio::test]
async fn a_visit_of_which_nothing_could_be_read_is_told_with_its_reason() {
    let setup = Setup { sensor: SensorKind::BloodPressure, ..Setup::of(&[STRAP]) };
    let mut rig = Rig::with(vec![cuff_with(&[0x00, 120, 0], vec![])], &setup).await;
    rig.bridge
        .until("why", |message| {
            let reason = reason(&message["link"]);
            reason.starts_with("the sensor ended the link without a measurement, 1 malformed ones: blood pressure")
        })
        .await;
    rig.bridge.stop().await;
}

#[tokio::test]
async fn the_answer_to_a_read_is_no_measurement_and_the_battery_is_told_once() {
    let battery = Characteristic::new(0x2A19, &["read", "notify"]).reading(&[88]);
    let rate = Characteristic::new(0x2A37, &["notify"]);
    let services = vec![(0x180D, vec![rate]), (0x180F, vec![battery])];
    let strap = Strap::sensor(STRAP, "Strap", services).sending(&BEATING);
    let mut rig = Rig::with(vec![strap], &Setup::of(&[STRAP])).await;
    assert_eq!(rig.bridge.until_reading("battery").await["value"], 88);
    for _ in 0..10 {
        rig.bridge.until_reading("heart_rate").await;
    }
    let metrics: Vec<&str> =
        rig.bridge.said().iter().filter_map(|message| message["reading"]["metric"].as_str()).collect();
    assert_eq!(metrics.iter().filter(|metric| **metric == "battery").count(), 1, "{metrics:?}");
    let known: BTreeSet<&str> = metrics.into_iter().collect();
    assert_eq!(known, BTreeSet::from(["battery", "heart_rate", "rr_interval"]));
    let calls = rig.bluez.change(|world| world.calls.clone()).await;
    assert!(place(&calls, "StartNotify") < place(&calls, "ReadValue"), "{calls:#?}");
}

#[tokio::test]
async fn a_glucose_meter_is_asked_for_its_records_once_it_is_listened_to() {
    for delete_records in [false, true] {
        let measurement = Characteristic::new(0x2A18, &["notify"]);
        let control = Characteristic::new(0x2A52, &["indicate", "write"]);
        let meter = Strap::sensor(STRAP, "Meter", vec![(0x1808, vec![measurement, control])]);
        let setup = Setup { sensor: SensorKind::Glucose, delete_records, ..Setup::of(&[STRAP]) };
        let rig = Rig::with(vec![meter], &setup).await;
        rig.bluez.until("a request", |world| world.strap(STRAP).writes == [(0x2A52, vec![1, 1])]).await;
        let calls = rig.bluez.change(|world| world.calls.clone()).await;
        let subscriptions = calls.iter().filter(|call| call.starts_with("StartNotify")).count();
        assert_eq!(subscriptions, 2, "{calls:#?}");
        // Record 5, then: all of them sent.
        rig.bluez.change(|world| world.notify_by(STRAP, Some(0x2A18), &[0, 5, 0, 0xEA, 7, 11, 21, 8, 0, 0])).await;
        rig.bluez.change(|world| world.notify_by(STRAP, Some(0x2A52), &[6, 0, 1, 1])).await;
        if delete_records {
            let delete = (0x2A52, vec![2, 2, 1, 5, 0]);
            rig.bluez.until("the deletion", move |world| world.strap(STRAP).writes.contains(&delete)).await;
            rig.bluez.change(|world| world.notify_by(STRAP, Some(0x2A52), &[6, 0, 2, 1])).await;
        }
        rig.bluez.until("the end of the link", |world| world.count("Disconnect") == 1).await;
        let writes = rig.bluez.change(|world| world.strap(STRAP).writes.clone()).await;
        assert_eq!(writes.len(), 1 + usize::from(delete_records), "{writes:?}");
        rig.bridge.stop().await;
    }
}
