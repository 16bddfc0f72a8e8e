//! Every captured and documented vector is accounted for: decoded, sent, or named with the reason why it is neither.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use vitalbridge::decode::Decoded;
use vitalbridge::profile::{Profile, built_in_ids, hex};
use vitalbridge::vitals::{Metric, Quality, Status, Vital};

use super::{Recording, play, profile, shown};

/// Protocols of which every vector is looked at by other tests: drivers, and those of which only frames and checksums
/// are known.
const ELSEWHERE: &[(&str, &str)] = &[
    ("medibus", "a driver"),
    ("ge-s5-dri", "a driver"),
    ("philips-intellivue-rs232", "frame and checksum only"),
    ("bbraun-bcc", "frame and checksum only"),
    ("cmi-pc66h", "frame only"),
];

/// Vectors that no profile decodes or sends, and why.
const NEITHER: &[(&str, &str)] = &[
    ("contec-v5-recorded", "stored data, a download and no stream; nothing of it may be taken for live data"),
    ("nonin-9560-settime", "carries the time of the moment, which a fixed string cannot; device times order nothing"),
    ("pm6750-bad-table-entry", "a wrong checksum that a profile must not be able to send"),
];

/// Members of `expected` that no profile gives, and why.
const NO_VITAL: &[(&str, &str)] = &[
    ("signal_strength", "a display's bar, no vital"),
    ("bar_graph", "a display's bar, no vital"),
    ("pulse_amplitude", "a display's bar, no vital"),
    ("firmware", "the sensor's revision"),
    ("spco", "no metric of this bridge"),
    ("spmet", "no metric of this bridge"),
    ("pvi", "no metric of this bridge"),
    ("st_level", "no metric of this bridge"),
    ("arrhythmia", "the device's own label, no vital"),
    ("cuff_pressure", "the pressure in a cuff that is being inflated is none of the patient"),
    ("nibp_state", "withholds the pressure"),
    ("nibp_error", "withholds the pressure"),
    ("beats", "how many the cuff used"),
    ("raw", "what must not be published"),
    ("device_limit_spo2", "the monitor's own limits"),
    ("device_limit_pr", "the monitor's own limits"),
    ("request_meaning", "words"),
    ("exc", "compared as statuses by the profile's own tests"),
];

fn all() -> Vec<Json> {
    let path = format!("{}/tests/vectors/serial.json", env!("CARGO_MANIFEST_DIR"));
    let file: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap().clone();
    assert_eq!(file["count"], vectors.len(), "the file's own count");
    vectors
}

fn bytes_of(vector: &Json) -> Vec<u8> {
    match vector["hex"].as_str() {
        Some(text) => hex::bytes(text).unwrap(),
        None => vector["text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// Everything that a profile can send.
fn sends(profile: &Profile) -> Vec<&[u8]> {
    let link = profile.link();
    let steps = link.init.iter().chain(&link.stop).map(|step| step.send.as_slice());
    let repeats = link.poll.iter().chain(&link.keep_alive).map(|repeat| repeat.send.as_slice());
    let commands = link.commands.iter().flat_map(|command| &command.send).map(Vec::as_slice);
    steps.chain(repeats).chain(commands).collect()
}

fn has(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(known, _)| *known == name)
}

#[test]
fn every_vector_is_decoded_or_sent_or_named_with_a_reason() {
    let mut accounts: BTreeMap<&str, usize> = BTreeMap::new();
    let vectors = all();
    for vector in &vectors {
        let (id, protocol) = (vector["id"].as_str().unwrap(), vector["protocol"].as_str().unwrap());
        let account = if has(ELSEWHERE, protocol) {
            "elsewhere"
        } else if has(NEITHER, id) {
            "neither"
        } else if protocol == "ble-plx" {
            a_gatt_profile_reads_a_spot_check(vector);
            "decoded"
        } else if vector["direction"] == "host->device" {
            is_sent(id, protocol, &bytes_of(vector));
            "sent"
        } else {
            decodes(id, protocol, vector);
            "decoded"
        };
        *accounts.entry(account).or_default() += 1;
    }
    let expected = [("decoded", 49), ("elsewhere", 23), ("neither", NEITHER.len()), ("sent", 20)];
    assert_eq!(accounts, BTreeMap::from(expected));
    for (name, _) in NO_VITAL {
        let is_there = vectors.iter().any(|vector| vector["expected"].get(name).is_some());
        assert!(is_there, "`{name}` is named for nothing");
    }
}

/// The set-format commands of the 9560 stand with the format that they select.
fn is_sent(id: &str, protocol: &str, bytes: &[u8]) {
    let profiles: Vec<&str> = match protocol {
        "nonin-9560" => built_in_ids().filter(|known| known.starts_with("nonin-df")).collect(),
        other => vec![other],
    };
    let is_sent = profiles.iter().any(|known| sends(&profile(known)).contains(&bytes));
    assert!(is_sent, "{id}: {profiles:?} cannot send {}", hex::text(bytes));
}

fn decodes(id: &str, protocol: &str, vector: &Json) {
    let expected = vector["expected"].as_object().unwrap();
    let recording = play(protocol, &bytes_of(vector));
    let mut compared = 0;
    for (key, wanted) in expected {
        if has(NO_VITAL, key) {
            continue;
        }
        assert!(compare(id, key, wanted, &recording), "{id}: `{key}` is neither compared nor named");
        compared += 1;
    }
    // What has nothing to compare is at least a whole frame that says nothing about the patient.
    if compared == 0 {
        assert_eq!((recording.counters.frames, recording.counters.skipped_bytes), (1, 0), "{id}");
        assert_eq!(recording.vitals().count(), 0, "{id}");
    }
}

/// Compares one member; false if nothing is known about it.
fn compare(id: &str, key: &str, wanted: &Json, recording: &Recording) -> bool {
    let metric = match key {
        "spo2" => Metric::Spo2,
        "pulse_rate" => Metric::PulseRate,
        "perfusion_index" => Metric::PerfusionIndex,
        "heart_rate" => Metric::HeartRate,
        "resp_rate" => Metric::RespiratoryRate,
        "temp" => Metric::Temperature,
        _ => return compare_other(id, key, wanted, recording),
    };
    let found = recording.values(metric);
    assert!(!found.is_empty(), "{id}: no {metric}");
    for value in found {
        match wanted.as_f64() {
            Some(wanted) => assert_eq!(value.parse::<f64>(), Ok(wanted), "{id}: {metric}"),
            None => assert!(value.parse::<f64>().is_err(), "{id}: {metric} is {value}"),
        }
    }
    true
}

fn samples(recording: &Recording, name: &str) -> Vec<i32> {
    let of = |decoded: &Decoded| match decoded {
        Decoded::Wave(wave) if *wave.name == *name => wave.samples.clone(),
        _ => Vec::new(),
    };
    recording.decoded.iter().flat_map(of).collect()
}

fn pressure(recording: &Recording) -> Option<[String; 3]> {
    recording.vitals().find_map(|vital| match &vital.vital {
        Vital::BloodPressure(pressure) => Some([pressure.systolic, pressure.diastolic, pressure.mean].map(shown)),
        _ => None,
    })
}

fn compare_other(id: &str, key: &str, wanted: &Json, recording: &Recording) -> bool {
    let has_status = |status: Status| {
        let of = |decoded: &Decoded| matches!(decoded, Decoded::Status(set) if set.contains(&status));
        recording.decoded.iter().any(of)
    };
    let has_event = |name: &str| {
        recording.decoded.iter().any(|decoded| matches!(decoded, Decoded::Event { name: found } if **found == *name))
    };
    let integers = || -> Vec<i32> { serde_json::from_value(wanted.clone()).unwrap() };
    match key {
        "pleth" => assert_eq!(samples(recording, "pleth"), integers(), "{id}"),
        "pleth_count" => assert_eq!(Json::from(samples(recording, "pleth").len()), *wanted, "{id}"),
        "ecg" => {
            let waves = ["ecg_I", "ecg_II", "ecg_III", "ecg_aVR", "ecg_aVL", "ecg_aVF", "ecg_V"];
            assert_eq!(waves.map(|wave| samples(recording, wave)).concat(), integers(), "{id}");
        }
        "ecg_I" | "ecg_II" => assert_eq!(Json::from(samples(recording, key)), Json::from(vec![wanted.clone()]), "{id}"),
        "nibp_sys" | "nibp_dia" | "nibp_map" => {
            let place = ["nibp_sys", "nibp_dia", "nibp_map"].iter().position(|known| *known == key).unwrap();
            match pressure(recording) {
                Some(parts) => assert_eq!(parts[place], wanted.to_string(), "{id}: {key}"),
                None => assert!(wanted.is_null(), "{id}: no pressure"),
            }
        }
        "sn" => {
            let is_it = |decoded: &Decoded| matches!(decoded, Decoded::SerialNumber(found) if found == wanted);
            assert!(recording.decoded.iter().any(is_it), "{id}: serial number");
        }
        "frames_ok" => assert_eq!(Json::from(recording.counters.frames), *wanted, "{id}"),
        "frames_bad" => assert_eq!(Json::from(recording.counters.bad_checksum), *wanted, "{id}"),
        "sensor_alarm" => assert_eq!(Json::from(has_status(Status::SensorOff)), *wanted, "{id}"),
        "low_signal_iq" => assert_eq!(Json::from(has_status(Status::LowQuality)), *wanted, "{id}"),
        "event_mark" | "breath" => assert_eq!(Json::from(has_event(key)), *wanted, "{id}"),
        "event" => {
            assert_eq!(wanted, "beat");
            assert!(recording.decoded.contains(&Decoded::Beat), "{id}");
        }
        "alarm" => {
            for name in wanted.as_array().unwrap() {
                assert!(has_status(Status::from_name(name.as_str().unwrap()).unwrap()), "{id}: {name}");
            }
        }
        "status" => compare_words(id, wanted, &has_status),
        // The whole reply is one frame.
        "response" => assert_eq!((recording.counters.frames, recording.counters.skipped_bytes), (1, 0), "{id}"),
        _ => return false,
    }
    true
}

/// One of our names, or the words at the end of a Nellcor line.
fn compare_words(id: &str, wanted: &Json, has_status: &dyn Fn(Status) -> bool) {
    match wanted {
        Json::String(name) => assert!(has_status(Status::from_name(name).unwrap()), "{id}: {name}"),
        Json::Array(words) => {
            for word in words {
                let status = match word.as_str().unwrap() {
                    "AO" => Status::AlarmSilenced,
                    "MO" => Status::Artifact,
                    other => panic!("{id}: {other}"),
                };
                assert!(has_status(status), "{id}: {word}");
            }
        }
        other => panic!("{id}: {other}"),
    }
}

/// Pulse oximeters of the Bluetooth SIG's profile: a notification is one frame, its numbers are SFLOATs.
fn a_gatt_profile_reads_a_spot_check(vector: &Json) {
    let hex = vector["hex"].as_str().unwrap();
    let text = format!(
        r#"schema = 1
id = "plx-spot-check"
name = "PLX Spot-Check Measurement without its optional parts"
kind = "pulse_oximeter"
nominal_hz = 0.1
tried_on_hardware = false
[ble]
match = [{{ service = "1822" }}]
stream = {{ service = "1822", notify = "2A5E" }}
[frame]
kind = "payload"
min = 5
[[message]]
id = "spot_check"
[[message.field]]
metric = "spo2"
at = 1
type = "sfloat"
[[message.field]]
metric = "pulse_rate"
at = 3
type = "sfloat"
[[test]]
name = "the vector"
case = "valid"
hex = "{hex}"
expect = [{{ spo2 = {}, pulse_rate = {} }}]
[[test]]
name = "not a number"
case = "sensor_off"
hex = "00 FF 07 FF 07"
expect = [{{ spo2 = "not_a_number", pulse_rate = "not_a_number" }}]
[[test]]
name = "too short"
case = "corrupted"
hex = "00 61 00 60"
frames = 0
skipped_bytes = 4
"#,
        vector["expected"]["spo2"], vector["expected"]["pulse_rate"]
    );
    let profile = Profile::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(vitalbridge::decode::self_test::run(&std::sync::Arc::new(profile)), Vec::new());
}

#[test]
fn the_requests_that_the_captured_replies_answer_are_sent_at_the_start() {
    let profile = profile("contec-v7");
    let init: Vec<String> = profile.link().init.iter().map(|step| hex::text(&step.send)).collect();
    let mut sent = 0;
    for vector in all() {
        let Some(request) = vector["notes"].as_str().and_then(|notes| notes.strip_prefix("request ")) else { continue };
        // The others are: undocumented, about the storage, and about an index that the live packet tells by itself.
        let is_used = ["7D 81 A7", "7D 81 A2", "7D 81 AA"].iter().any(|used| request.starts_with(used));
        assert_eq!(init.iter().any(|sent| sent == request), is_used, "{request}");
        sent += usize::from(is_used);
    }
    assert_eq!(sent, 3);
}

#[test]
fn stored_data_is_never_taken_for_live_data() {
    let vectors = all();
    let stored = vectors.iter().find(|vector| vector["id"] == "contec-v5-recorded").unwrap();
    let recording = play("contec-cms50-v5", &bytes_of(stored));
    assert_eq!((recording.counters.frames, recording.vitals().count()), (0, 0));
}

#[test]
fn a_command_with_a_wrong_checksum_of_a_published_table_is_refused() {
    let vectors = all();
    let wrong = vectors.iter().find(|vector| vector["id"] == "pm6750-bad-table-entry").unwrap();
    let text = vitalbridge::profile::built_in_text("berry-pm6750").unwrap();
    let text = text.replace("55 AA 04 07 03 F1", wrong["hex"].as_str().unwrap());
    let problems = Profile::parse(&text).unwrap_err().to_string();
    assert!(problems.contains("has the checksum F2, must be F3"), "{problems}");
}

#[test]
fn the_time_command_that_no_profile_sends_is_one_frame_of_its_length() {
    let vectors = all();
    let time = vectors.iter().find(|vector| vector["id"] == "nonin-9560-settime").unwrap();
    let bytes = bytes_of(time);
    assert_eq!((bytes[0], bytes[1], usize::from(bytes[2]), bytes[bytes.len() - 1]), (2, 0x72, bytes.len() - 4, 3));
    assert!(built_in_ids().all(|id| !sends(&profile(id)).contains(&bytes.as_slice())));
}

#[test]
fn what_a_trend_tells_is_historic() {
    let line = b"09/21/08 09:56:12 SpO2=097 PR=069 PI=04.69 EXC=800:SET\r\n";
    let recording = play("masimo-ascii2-trend", line);
    assert!(recording.vitals().count() == 3 && recording.vitals().all(|vital| vital.quality == Quality::Historic));
}
