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
