//! What a profile knows of a Bluetooth model reaches the link and the decoder: the real source over a private D-Bus.

use std::collections::BTreeMap;

use vitalbridge::profile::{built_in_text, hex};
use vitalbridge::sources::ble::SensorKind;

use crate::ble::{Bridge, STRAP, Setup};
use crate::fake_bluez::{Bus, FakeBluez, Strap, World};

/// 113 to 73, no mean, no time; pulse 65 most significant byte first, user 1 without its flag, status 4 likewise.
const BY_QUIRK: &str = "14 71 00 49 00 00 00 00 41 01 00 04";

fn setup(profile: &str, sensor: SensorKind) -> Setup {
    Setup { profile: Some(built_in_text(profile).unwrap().to_owned()), sensor, ..Setup::of(&[STRAP]) }
}

#[tokio::test]
async fn a_cuff_is_read_with_the_quirks_of_its_profile() {
    let bus = Bus::start().await;
    let payload = hex::bytes(BY_QUIRK).unwrap();
    let _fake = FakeBluez::start(&bus, World::new(vec![Strap::cuff(STRAP, "BM85", &[&payload])])).await;
    let users = BTreeMap::from([(1, "P-0001".to_owned()), (2, "P-0002".to_owned())]);
    let mut bridge = Bridge::start(&bus, &Setup { users, ..setup("beurer-bm85", SensorKind::BloodPressure) });
    let pressure = bridge.until_reading("blood_pressure").await;
    assert_eq!(pressure["patient_id"], "P-0001", "{pressure}");
    let pulse = bridge.until_reading("pulse_rate").await;
    assert_eq!(pulse["value"], 65, "{pulse}");
    bridge.stop().await;
}

/// Advertisements of a Mi Scale with this weight in units of 5 g, settled or not (`devices/mi-scale.toml`).
fn mi_scale(weight: u16, is_settled: bool) -> Vec<(u16, Vec<u8>)> {
    let [low, high] = weight.to_le_bytes();
    let flags = if is_settled { 0x22 } else { 0x02 };
    vec![(0x181D, vec![flags, low, high, 0xE5, 0x07, 0x04, 0x0B, 0x10, 0x13, 0x01])]
}

#[tokio::test]
async fn a_scale_that_only_advertises_is_heard_and_counts_once_and_is_never_connected_to() {
    let bus = Bus::start().await;
    let mut scale = Strap::new(STRAP, "MI_SCALE");
    scale.advert.service_data = mi_scale(17_310, true);
    let fake = FakeBluez::start(&bus, World::new(vec![scale])).await;
    let mut bridge = Bridge::start(&bus, &setup("mi-scale", SensorKind::HeartRate));
    let weight = bridge.until_reading("weight").await;
    assert_eq!(
        (&weight["value"], &weight["quality"]),
        (&serde_json::json!(86.55), &serde_json::json!("valid")),
        "{weight}"
    );
    // It steps off and on again; while it swings, any number is told.
    for (weight, is_settled) in [(1000, false), (17_000, false), (17_320, true)] {
        fake.change(move |world| world.strap(STRAP).advert.service_data = mi_scale(weight, is_settled)).await;
        let turn = fake.change(|world| world.turn).await;
        fake.until("it has advertised", move |world| world.turn > turn + 40).await;
    }
    assert_eq!(bridge.until_reading("weight").await["value"], 86.6);
    let connects = fake.change(|world| world.count("Connect")).await;
    assert_eq!(connects, 0);
    let weights = bridge.said().iter().filter(|message| message["reading"]["metric"] == "weight").count();
    assert_eq!(weights, 2, "each once");
    bridge.stop().await;
}
