//! Captured and documented bytes of serial devices.

use vitalbridge::decode::Decoded;
use vitalbridge::profile::{built_in_ids, hex};
use vitalbridge::vitals::{Metric, Vital};

use super::{play, profile, shown, vectors};

/// The metric's name here and in the vectors.
const SCALARS: [(Metric, &str); 6] = [
    (Metric::Spo2, "spo2"),
    (Metric::PulseRate, "pulse_rate"),
    (Metric::PerfusionIndex, "perfusion_index"),
    (Metric::HeartRate, "heart_rate"),
    (Metric::RespiratoryRate, "resp_rate"),
    (Metric::Temperature, "temp"),
];

fn bytes_of(vector: &serde_json::Value) -> Vec<u8> {
    match vector["hex"].as_str() {
        Some(text) => hex::bytes(text).unwrap(),
        None => vector["text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

#[test]
fn every_vector_of_a_built_in_profile_decodes_to_its_values() {
    let ids: Vec<&str> = built_in_ids().collect();
    let mut compared = 0;
    for vector in vectors("serial.json", "protocol", &ids) {
        let expected = &vector["expected"];
        if vector["direction"] == "host->device" || expected["preamble"].is_number() {
            continue; // commands, and stored data, which is a download and no stream
        }
        let (name, id) = (vector["protocol"].as_str().unwrap(), &vector["id"]);
        let recording = play(name, &bytes_of(&vector));
        for (metric, key) in SCALARS {
            let Some(wanted) = expected.get(key) else { continue };
            let found = recording.values(metric);
            assert!(!found.is_empty(), "{id}: no {metric}");
            for value in found {
                match wanted.as_f64() {
                    Some(wanted) => assert_eq!(value.parse::<f64>(), Ok(wanted), "{id}: {metric}"),
                    None => assert!(value.parse::<f64>().is_err(), "{id}: {metric} is {value}"),
                }
                compared += 1;
            }
        }
        compared += compare_pressure(id, expected, &recording.decoded);
        if let Some(serial_number) = expected["sn"].as_str() {
            let is_it = |decoded: &Decoded| matches!(decoded, Decoded::SerialNumber(found) if found == serial_number);
            assert!(recording.decoded.iter().any(is_it), "{id}: serial number");
            compared += 1;
        }
    }
    assert!(compared > 10, "only {compared} values were compared");
}

fn compare_pressure(id: &serde_json::Value, expected: &serde_json::Value, decoded: &[Decoded]) -> usize {
    let Some(systolic) = expected.get("nibp_sys") else { return 0 };
    let found = decoded.iter().find_map(|decoded| match decoded {
        Decoded::Vital(vital) => match &vital.vital {
            Vital::BloodPressure(pressure) => Some(*pressure),
            _ => None,
        },
        _ => None,
    });
    match systolic.as_i64() {
        Some(_) => {
            let found = found.unwrap_or_else(|| panic!("{id}: no pressure"));
            for (value, key) in [(found.systolic, "nibp_sys"), (found.diastolic, "nibp_dia"), (found.mean, "nibp_map")]
            {
                assert_eq!(shown(value), expected[key].to_string(), "{id}: {key}");
            }
        }
        None => assert!(found.is_none_or(|found| found.systolic.valid().is_none()), "{id}: {found:?}"),
    }
    1
}

#[test]
fn every_profile_can_be_told_its_link() {
    for id in built_in_ids() {
        let profile = profile(id);
        assert!(profile.serial().is_some_and(|serial| !serial.settings.is_empty()) || profile.gatt().is_some(), "{id}");
        assert!(!profile.sources().is_empty(), "{id} cites no source");
    }
}
