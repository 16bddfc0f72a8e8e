//! GATT payloads of real devices: every vector decodes to what it says, and each of its beginnings to a value or an error.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use vitalbridge::decode::gatt::advert::{self, Advertised};
use vitalbridge::decode::gatt::{
    self, GattError, Report, blood_pressure, body_composition, cgm, date_time, device_information, glucose,
    glucose_context, heart_rate, oximeter, racp, thermometer, weight,
};
use vitalbridge::decode::ieee11073::{float, sfloat};
use vitalbridge::decode::vendor::{RECORDS, microlife, omron, tempsitter};
use vitalbridge::decode::{Decoded, DecodedVital, Decoder, FrameCounters};
use vitalbridge::profile::ble::Quirk;
use vitalbridge::profile::checksum::ChecksumKind;
use vitalbridge::profile::hex;
use vitalbridge::vitals::{Absent, Decimal, Metric, Value, Vital};

use super::{profile, shown};

const FILE: &str = "ble.json";

/// One vector.
struct Vector {
    id: String,
    decoder: String,
    characteristic: String,
    bytes: Vec<u8>,
    expected: Json,
    is_short: bool,
}

fn all() -> Vec<Vector> {
    let path = format!("{}/tests/vectors/{FILE}", env!("CARGO_MANIFEST_DIR"));
    let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = |vector: &Json, key: &str| vector[key].as_str().unwrap_or_default().to_owned();
    let vector = |vector: &Json| Vector {
        id: text(vector, "id"),
        decoder: text(vector, "decoder"),
        characteristic: text(vector, "characteristic"),
        bytes: hex::bytes(vector["hex"].as_str().unwrap()).unwrap(),
        expected: vector["expected"].clone(),
        is_short: vector["expect_error"] == "short",
    };
    all["vectors"].as_array().unwrap().iter().map(vector).collect()
}

/// A float as the vectors write it.
fn text(value: Result<Decimal, Absent>) -> Json {
    json!(match value {
        Ok(number) => number.to_string(),
        Err(Absent::NotANumber) => "NaN".into(),
        Err(Absent::NotAtThisResolution) => "NRes".into(),
        Err(Absent::OverRange) => "+INF".into(),
        Err(Absent::UnderRange) => "-INF".into(),
        Err(Absent::Reserved) => "reserved".into(),
        Err(other) => other.name().into(),
    })
}

/// A number that is 0 where it was not measured; the vectors write either.
fn measured(number: Decimal) -> Json {
    json!(number.to_string())
}

/// The same: numbers by their value (36.40 is 36.4), everything else as it is written.
fn same(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::String(found), Json::String(expected)) => {
            match (found.parse::<Decimal>(), expected.parse::<Decimal>()) {
                (Ok(found), Ok(expected)) => found.compare(expected).is_eq(),
                _ => found == expected,
            }
        }
        (Json::Array(found), Json::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(found, expected)| same(found, expected))
        }
        (Json::Object(found), Json::Object(expected)) => {
            expected.iter().all(|(key, expected)| found.get(key).is_some_and(|found| same(found, expected)))
        }
        _ => found == expected,
    }
}

/// The value of a metric in a report, or the name of the reason; null if it is not mentioned.
fn reported(decoded: &[Decoded], metric: Metric) -> Json {
    let of_metric = |decoded: &Decoded| match decoded {
        Decoded::Vital(vital) if vital.vital.metric() == metric => Some(shown(vital.vital.leading())),
        _ => None,
    };
    json!(decoded.iter().find_map(of_metric))
}

fn pressure(vector: &Vector) -> Result<Json, GattError> {
    let packet = blood_pressure::parse(&vector.bytes)?;
    Ok(json!({
        "unit": if packet.is_kpa { "kPa" } else { "mmHg" },
        "systolic": text(packet.systolic),
        "diastolic": text(packet.diastolic),
        "map": text(packet.mean),
        "device_time": packet.device_time.map(|time| time.to_string()),
        "pulse": packet.pulse.map(text),
        "user": packet.user,
        "status": packet.status,
        "rfu_flags": packet.rfu_flags,
    }))
}

fn oximetry(packet: &oximeter::Oximetry) -> Json {
    let pair = |pair: Option<(_, _)>| pair.map(|(spo2, rate)| json!([text(spo2), text(rate)]));
    json!({
        "spo2": text(packet.spo2),
        "pulse_rate": text(packet.pulse_rate),
        "device_time": packet.device_time.map(|time| time.to_string()),
        "meas_status": packet.measurement_status,
        "dev_status": packet.device_status,
        "pai": packet.pulse_amplitude.map(text),
        "clock_not_set": packet.clock_not_set,
        "fast": pair(packet.fast),
        "slow": pair(packet.slow),
    })
}

fn glucose(bytes: &[u8]) -> Result<Json, GattError> {
    let packet = glucose::parse(bytes)?;
    let concentration = packet.concentration.unwrap();
    Ok(json!({
        "seq": packet.sequence,
        "base_time": packet.base_time.to_string(),
        "offset_min": packet.offset_min,
        "unit": if concentration.is_molar { "mol/L" } else { "kg/L" },
        "raw_value": text(concentration.value),
        "type": concentration.sample,
        "location": concentration.location,
        "value": text(concentration.usual()),
        "value_unit": if concentration.is_molar { "mmol/L" } else { "mg/dL" },
        "status": packet.status,
        "context_follows": packet.context_follows,
    }))
}

fn access_control(bytes: &[u8]) -> Result<Json, GattError> {
    Ok(match racp::parse(bytes)?.0 {
        racp::Response::Count(count) => json!({"opcode": 5, "operator": 0, "count": count}),
        racp::Response::Ended { request, outcome } => {
            let response = match outcome {
                racp::Outcome::Success => 1,
                racp::Outcome::NoRecordsFound => 6,
                other => panic!("{other:?}"),
            };
            json!({"opcode": 6, "operator": 0, "request": request, "response": response})
        }
        other @ racp::Response::Other { .. } => panic!("{other:?}"),
    })
}

fn cgm_records(bytes: &[u8]) -> Result<Json, GattError> {
    let octet = |record: &cgm::Record, place: u32| record.annunciation >> (8 * place) & 0xFF;
    let record = |record: &cgm::Record| {
        json!({
            "value": text(record.glucose),
            "unit": "mg/dL",
            "offset_min": record.offset_min,
            "status": octet(record, 0),
            "cal_temp": octet(record, 1),
            "warning": octet(record, 2),
            "trend": record.trend.map(text),
            "quality": record.quality.map(text),
            "crc": bytes.last_chunk::<2>().map(|sum| u16::from_le_bytes(*sum)),
            "crc_ok": record.has_crc,
        })
    };
    Ok(json!({ "records": cgm::parse(bytes)?.iter().map(record).collect::<Vec<_>>() }))
}

/// What a scale sent, by its report.
fn scale_detail(report: &Report, name: &str) -> Json {
    report.details.get(name).map_or(Json::Null, |detail| {
        let value = serde_json::to_value(detail).unwrap();
        if value.is_number() { json!(value.to_string()) } else { value }
    })
}

fn body(bytes: &[u8]) -> Result<Json, GattError> {
    let packet = body_composition::parse(bytes)?;
    let tenths = |raw: Option<u16>| raw.map(|raw| measured(Decimal::tenths(i32::from(raw))));
    let mass = |raw: Option<u16>| raw.map(|raw| measured(Decimal::new(i64::from(raw) * 5, -3).unwrap()));
    Ok(json!({
        "unit": if packet.is_imperial { "lb" } else { "kg" },
        "fat_pct": tenths(Some(packet.fat)),
        "bmr_kj": packet.basal_metabolism_kj,
        "muscle_pct": tenths(packet.muscle_percentage),
        "soft_lean": mass(packet.soft_lean_mass),
        "water_mass": mass(packet.water_mass),
        "impedance_ohm": tenths(packet.impedance),
        "multi_packet": packet.is_multi_packet,
    }))
}

fn body_weight(bytes: &[u8]) -> Result<Json, GattError> {
    let packet = weight::parse(bytes)?;
    let (factor, exponent) = if packet.is_imperial { (1, -2) } else { (5, -3) };
    let number = |raw: u16, factor, exponent| measured(Decimal::new(i64::from(raw) * factor, exponent).unwrap());
    Ok(json!({
        "unit": if packet.is_imperial { "lb" } else { "kg" },
        "weight": (packet.weight != 0xFFFF).then(|| number(packet.weight, factor, exponent)),
        "device_time": packet.device_time.map(|time| time.to_string()),
        "user": packet.user,
        "bmi": packet.bmi_and_height.map(|(bmi, _)| number(bmi, 1, -1)),
        "height": packet.bmi_and_height.map(|(_, height)| number(height, 1, -3)),
    }))
}

fn scale(uuid: u16, bytes: &[u8]) -> Result<Json, GattError> {
    let report = advert::decode(Advertised::Service { uuid, data: bytes })?;
    let settled = reported(&report.decoded, Metric::Weight);
    let weight = if settled.is_null() { scale_detail(&report, "unsettled_weight_kg") } else { settled };
    Ok(json!({
        "stabilized": scale_detail(&report, "stabilized"),
        "removed": scale_detail(&report, "removed"),
        "weight_kg": weight,
        "device_time": report.device_time,
        "impedance_ohm": report.details.get("impedance_ohm"),
    }))
}

fn polar(bytes: &[u8]) -> Result<Json, GattError> {
    let report = advert::decode(Advertised::Manufacturer { company: advert::POLAR, data: bytes })?;
    let number = |name: &str| serde_json::to_value(&report.details[name]).unwrap();
    let bit = |name: &str| u8::from(number(name).as_bool().unwrap());
    let rate = reported(&report.decoded, Metric::HeartRate);
    Ok(json!({
        "battery_ok_bit": bit("battery_ok"),
        "contact_bit": bit("contact"),
        "frame_counter": number("frame_counter"),
        "broadcast": bit("broadcast"),
        "khz": number("transmitter_khz"),
        "fast_hr": number("heart_rate_fast"),
        "slow_hr": rate.as_str().unwrap().parse::<u8>().unwrap(),
    }))
}

fn temperature(bytes: &[u8]) -> Result<Json, GattError> {
    let packet = thermometer::parse(bytes)?;
    Ok(json!({
        "unit": if packet.is_fahrenheit { "F" } else { "C" },
        "value": text(packet.value),
        "device_time": packet.device_time.map(|time| time.to_string()),
        "type": packet.site,
    }))
}

fn omron_record(bytes: &[u8], layout: omron::Layout) -> Result<Json, GattError> {
    let Some(record) = omron::parse(bytes, layout)? else { return Ok(json!({"empty": true})) };
    Ok(json!({
        "systolic": record.systolic,
        "diastolic": record.diastolic,
        "pulse": record.pulse,
        "device_time": record.time.to_string(),
    }))
}

fn beats(bytes: &[u8]) -> Result<Json, GattError> {
    let packet = heart_rate::parse(bytes)?;
    Ok(json!({
        "heart_rate": packet.heart_rate,
        "contact": packet.contact,
        "energy_kj": packet.energy_kj,
        "rr_1024": packet.rr_1024,
        "trailing_bytes": packet.trailing_bytes,
        "rfu_flags": packet.rfu_flags,
    }))
}

/// What the decoder of a vector reads, in the words of the vectors; `None`: a profile reads it.
fn read(vector: &Vector) -> Option<Result<Json, GattError>> {
    let bytes = vector.bytes.as_slice();
    Some(match vector.decoder.as_str() {
        "sf" => Ok(json!({"value": text(sfloat(u16::from_le_bytes(bytes.try_into().unwrap())))})),
        "fl" => Ok(json!({"value": text(float(u32::from_le_bytes(bytes.try_into().unwrap())))})),
        "hr" => beats(bytes),
        "bp" | "bp_bm85" => pressure(vector),
        "plx_spot" => oximeter::parse_spot(bytes).as_ref().map(oximetry).map_err(|error| *error),
        "plx_cont" => oximeter::parse_continuous(bytes).as_ref().map(oximetry).map_err(|error| *error),
        "temp" => temperature(bytes),
        "glucose" => glucose(bytes),
        "glucose_ctx" => {
            glucose_context::parse(bytes).map(|context| json!({"seq": context.sequence, "meal": context.meal}))
        }
        "racp" => access_control(bytes),
        "cgm" => cgm_records(bytes),
        "weight" => body_weight(bytes),
        "bodycomp" => body(bytes),
        "u8" => gatt::decode(0x2A19, bytes).map(|report| {
            json!({"value": reported(&report.decoded, Metric::Battery).as_str().unwrap().parse::<u8>().unwrap()})
        }),
        "utf8" => Ok(json!({"text": device_information::text(bytes)})),
        "cts" => date_time::CurrentTime::parse(bytes).map(|(now, _)| {
            json!({
                "time": now.time.to_string(),
                "day_of_week": now.day_of_week,
                "fractions256": now.fractions_256,
                "adjust_reason": now.adjust_reason,
            })
        }),
        "miscale1" => scale(advert::WEIGHT_SCALE, bytes),
        "miscale2" => scale(advert::BODY_COMPOSITION, bytes),
        "polar_adv" => polar(bytes),
        "omron_le" => omron_record(bytes, omron::Layout::LittleEndian),
        "omron_be" => omron_record(bytes, omron::Layout::BigEndian),
        "sum8" => microlife::parse(bytes).map(|_| json!({"sum8_ok": true})),
        "tempsitter" => tempsitter::parse(bytes).map(|(raw, _)| {
            json!({"value_c": Decimal::new(raw.into(), -2).unwrap().to_string(), "sum8_ok": true})
        }),
        _ => return None,
    })
}

#[test]
fn every_vector_of_a_standard_payload_or_a_record_decodes_to_what_it_says() {
    let mut decoders = BTreeSet::new();
    let mut read_count = 0;
    for vector in all() {
        let Some(found) = read(&vector) else { continue };
        read_count += 1;
        decoders.insert(vector.decoder.clone());
        let id = &vector.id;
        if vector.is_short {
            assert!(matches!(found, Err(GattError::Short { .. })), "{id}: {found:?}");
            continue;
        }
        let found = found.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert!(same(&found, &vector.expected), "{id}: {found}\n    instead of {}", vector.expected);
    }
    assert_eq!((read_count, decoders.len()), (143, 24));
}

/// The decoder of a vector as `vitalbridge decode` has it, for pieces of it.
fn report_of(vector: &Vector, bytes: &[u8]) -> Option<Result<Report, GattError>> {
    Some(match vector.decoder.as_str() {
        "sf" | "fl" => return None,
        "miscale1" => advert::decode(Advertised::Service { uuid: advert::WEIGHT_SCALE, data: bytes }),
        "miscale2" => advert::decode(Advertised::Service { uuid: advert::BODY_COMPOSITION, data: bytes }),
        "polar_adv" => advert::decode(Advertised::Manufacturer { company: advert::POLAR, data: bytes }),
        "omron_le" => record("omron-le", bytes),
        "omron_be" => record("omron-be", bytes),
        "sum8" => record("microlife", bytes),
        "tempsitter" => record("tempsitter", bytes),
        _ => {
            let uuid = u16::from_str_radix(&vector.characteristic, 16).ok()?;
            gatt::characteristic(uuid)?;
            gatt::decode(uuid, bytes)
        }
    })
}

fn record(name: &str, bytes: &[u8]) -> Result<Report, GattError> {
    RECORDS.iter().find(|record| record.name == name).unwrap().decode(bytes)
}

#[test]
fn every_beginning_of_every_vector_gives_a_value_or_names_the_field_that_is_cut() {
    let mut cuts = 0;
    for vector in all() {
        for end in 0..=vector.bytes.len() {
            let cut = &vector.bytes[..end];
            match report_of(&vector, cut) {
                None => break,
                Some(Ok(report)) => assert_eq!(report.raw, cut, "{}", vector.id),
                Some(Err(GattError::Short { field, at, has, needs, .. })) => {
                    assert!(
                        !field.is_empty() && has == end && at <= has && needs > has,
                        "{} {end}: {field}",
                        vector.id
                    );
                }
                // A checksum can fail where the rest is missing.
                Some(Err(GattError::Checksum { .. })) => {}
                Some(Err(error)) => panic!("{} {end}: {error}", vector.id),
            }
            cuts += 1;
        }
    }
    assert!(cuts > 1000, "{cuts}");
}

/// Reserved bits of the flags of each characteristic that has them, by number, place and mask.
const RESERVED_FLAGS: &[(u16, usize, u8)] = &[
    (0x2A18, 0, 0xE0),
    (0x2A1C, 0, 0xF8),
    (0x2A1E, 0, 0xF8),
    (0x2A35, 0, 0xE0),
    (0x2A36, 0, 0xE0),
    (0x2A37, 0, 0xE0),
    (0x2A5E, 0, 0xE0),
    (0x2A5F, 0, 0xE0),
    (0x2A9C, 1, 0xE0),
    (0x2A9D, 0, 0xF0),
    (0x2AA7, 1, 0x1C),
];

#[test]
fn reserved_flags_change_nothing_but_their_count() {
    let mut seen = BTreeSet::new();
    for vector in all() {
        let Ok(uuid) = u16::from_str_radix(&vector.characteristic, 16) else { continue };
        let Some((_, place, mask)) = RESERVED_FLAGS.iter().find(|(known, ..)| *known == uuid) else { continue };
        let Ok(plain) = gatt::decode(uuid, &vector.bytes) else { continue };
        // One model is known by its reserved flag, and a checksum covers the flags.
        if vector.decoder == "bp_bm85" || vector.id == "cgm-nordic-1" {
            continue;
        }
        let set_already = (vector.bytes[*place] & mask).count_ones();
        for bit in (0..8).map(|bit| 1_u8 << bit).filter(|bit| bit & mask != 0) {
            let mut bytes = vector.bytes.clone();
            bytes[*place] = (bytes[*place] & !mask) | bit;
            let found = gatt::decode(uuid, &bytes).unwrap();
            assert_eq!(found.rfu_bits, plain.rfu_bits - set_already + 1, "{} {bit:02X}", vector.id);
            let same = Report { rfu_bits: plain.rfu_bits, raw: plain.raw.clone(), ..found };
            assert_eq!(same, plain, "{} {bit:02X}", vector.id);
            seen.insert(uuid);
        }
    }
    // No vector of an intermediate temperature is there; it has the flags of 0x2A1C.
    assert_eq!(seen.len(), RESERVED_FLAGS.len() - 1);
}

#[test]
fn bytes_after_the_last_field_are_counted_and_change_nothing() {
    for vector in all() {
        let text = vector.decoder == "utf8";
        // Beat intervals, records and a checksum go to the end.
        if text || matches!(vector.characteristic.as_str(), "2A37" | "2AA7") || vector.decoder == "bp_bm85" {
            continue;
        }
        let Some(Ok(plain)) = report_of(&vector, &vector.bytes) else { continue };
        let mut longer = vector.bytes.clone();
        longer.push(0xA5);
        let found = report_of(&vector, &longer).unwrap().unwrap();
        assert_eq!(found.trailing_bytes, plain.trailing_bytes + 1, "{}", vector.id);
        assert_eq!((found.decoded, found.details), (plain.decoded, plain.details), "{}", vector.id);
    }
}

/// What a profile reads in notifications.
fn by_profile(id: &str, notifications: &[&[u8]]) -> (Vec<DecodedVital>, FrameCounters) {
    let mut decoder = Decoder::new(profile(id));
    let mut decoded = Vec::new();
    for notification in notifications {
        decoder.push(notification, &mut decoded);
    }
    let vital = |decoded| match decoded {
        Decoded::Vital(vital) => Some(vital),
        _ => None,
    };
    (decoded.into_iter().filter_map(vital).collect(), decoder.counters())
}

fn value_of(vitals: &[DecodedVital], metric: Metric) -> Option<Decimal> {
    vitals.iter().find(|vital| vital.vital.metric() == metric).and_then(|vital| vital.vital.leading().valid())
}

/// A vector's value of a metric is the one that was read; null: there is none.
fn check_value(vector: &Vector, key: &str, vitals: &[DecodedVital], metric: Metric) {
    let found = value_of(vitals, metric).map(|number| number.to_string());
    let expected = match &vector.expected[key] {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let found = found.map_or(Json::Null, Json::String);
    let expected = expected.map_or(Json::Null, Json::String);
    assert!(same(&found, &expected), "{}: {key} is {found} instead of {expected}", vector.id);
}

fn with_crc8(mut frame: Vec<u8>) -> Vec<u8> {
    let sum = ChecksumKind::Crc8.compute(&frame);
    frame.extend(u8::try_from(sum));
    frame
}

#[test]
fn every_vector_of_a_makers_own_protocol_decodes_by_its_profile() {
    let mut count = 0;
    for vector in all().iter().filter(|vector| read(vector).is_none()) {
        count += 1;
        let bytes = vector.bytes.as_slice();
        let (vitals, counters) = match vector.decoder.as_str() {
            // The content of an answer, without its head and its sum.
            "viatom13" => {
                let frame = with_crc8([&[0x55, 0x00, 0xFF, 0, 0, 13, 0], bytes].concat());
                by_profile("viatom-o2", &[&frame])
            }
            // A whole answer but for its sum, which comes with the next notification.
            "viatom_chunk" => {
                let frame = with_crc8(bytes.to_vec());
                assert_eq!(by_profile("viatom-o2", &[bytes]).1.frames, 0);
                by_profile("viatom-o2", &[bytes, &frame[20..]])
            }
            "o2cmd" => {
                let o2 = profile("viatom-o2");
                assert_eq!(o2.link().poll[0].send, bytes);
                continue;
            }
            "pc60" => by_profile("viatom-pc60", &[bytes]),
            "contec" => by_profile("contec-cms50d-bt", &[bytes]),
            "nonin" => by_profile("nonin-3230", &[bytes]),
            "yonker" => by_profile("yonker-bp", &[bytes]),
            other => panic!("{}: nothing reads {other}", vector.id),
        };
        assert_eq!((counters.frames, counters.skipped_bytes), (1, 0), "{}", vector.id);
        let rate = if vector.expected.get("heart_rate").is_some() { "heart_rate" } else { "pulse_rate" };
        match vector.decoder.as_str() {
            "yonker" => {
                let is_pressure = |vital: &&DecodedVital| vital.vital.metric() == Metric::BloodPressure;
                let found = &vitals.iter().find(is_pressure).unwrap().vital;
                let Vital::BloodPressure(pressure) = found else { panic!("{found:?}") };
                assert_eq!((shown(pressure.systolic), shown(pressure.diastolic)), ("131".into(), "103".into()));
                check_value(vector, "pulse", &vitals, Metric::PulseRate);
                assert_eq!(vitals[0].device_time.as_deref(), Some("2025-11-24T19:18"));
                continue;
            }
            "viatom13" | "viatom_chunk" => check_value(vector, "battery", &vitals, Metric::Battery),
            "nonin" => check_value(vector, "pai_pct", &vitals, Metric::PerfusionIndex),
            "pc60" => check_value(vector, "pi", &vitals, Metric::PerfusionIndex),
            _ => {}
        }
        check_value(vector, "spo2", &vitals, Metric::Spo2);
        check_value(vector, rate, &vitals, Metric::PulseRate);
    }
    assert_eq!(count, 12);
}

#[test]
fn every_beginning_of_a_makers_notification_gives_a_whole_frame_or_nothing() {
    let profiles =
        ["viatom-o2", "viatom-pc60", "contec-cms50d-bt", "nonin-3230", "yonker-bp", "beurer-bm85", "berry-bci"];
    for vector in all() {
        for end in 0..vector.bytes.len() {
            for id in profiles {
                let (vitals, counters) = by_profile(id, &[&vector.bytes[..end]]);
                assert!(!vitals.is_empty() || counters.frames <= 1, "{} {id} {end}", vector.id);
            }
        }
    }
    let vectors = all();
    let nonin = vectors.iter().find(|vector| vector.decoder == "nonin").unwrap();
    assert_eq!(by_profile("nonin-3230", &[&nonin.bytes[..9]]).1.frames, 0);
}

#[test]
fn a_profile_of_standard_notifications_reads_them_with_its_quirks() {
    for vector in all().iter().filter(|vector| vector.decoder == "bp_bm85") {
        let (vitals, counters) = by_profile("beurer-bm85", &[&vector.bytes]);
        assert_eq!((counters.frames, counters.skipped_bytes), (1, 0), "{}", vector.id);
        check_value(vector, "pulse", &vitals, Metric::PulseRate);
    }
    let (vitals, counters) = by_profile("beurer-bm85", &[&[0x56, 0x71]]);
    assert!(vitals.is_empty());
    assert_eq!((counters.frames, counters.skipped_bytes), (0, 2));
}

#[test]
fn special_values_are_reasons_with_exponent_zero_only() {
    for (bits, reason) in [
        (0x07FF, Absent::NotANumber),
        (0x0800, Absent::NotAtThisResolution),
        (0x07FE, Absent::OverRange),
        (0x0802, Absent::UnderRange),
        (0x0801, Absent::Reserved),
    ] {
        assert_eq!(sfloat(bits), Err(reason), "{bits:04X}");
        for exponent in 1..16_u16 {
            assert_ne!(sfloat(bits | exponent << 12), Err(reason), "{bits:04X} with exponent {exponent}");
        }
    }
    for (bits, reason) in [
        (0x007F_FFFF, Absent::NotANumber),
        (0x0080_0000, Absent::NotAtThisResolution),
        (0x007F_FFFE, Absent::OverRange),
        (0x0080_0002, Absent::UnderRange),
        (0x0080_0001, Absent::Reserved),
    ] {
        assert_eq!(float(bits), Err(reason), "{bits:08X}");
        assert_ne!(float(bits | 0xFF00_0000), Err(reason), "{bits:08X} with exponent -1");
    }
    for (bits, expected) in
        [(0x07FD, "2045"), (0x0803, "-2045"), (0xF7FF, "204.7"), (0x8001, "0.00000001"), (0x17FF, "20470")]
    {
        assert_eq!(text(sfloat(bits)), expected, "{bits:04X}");
    }
    for (bits, expected) in [
        (0x007F_FFFD, "8388605"),
        (0x0080_0003, "-8388605"),
        (0xF700_0001, "0.000000001"),
        (0xF600_0001, "out_of_range"),
        (0x0900_0001, "1000000000"),
        (0x0A00_0001, "out_of_range"),
        (0x7F7F_FFFF, "out_of_range"),
    ] {
        assert_eq!(text(float(bits)), expected, "{bits:08X}");
    }
}

#[test]
fn the_document_lists_every_characteristic_record_and_quirk_that_is_known() {
    let path = format!("{}/docs/gatt.md", env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(path).unwrap();
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| 2A")).collect();
    assert_eq!(rows.len(), gatt::CHARACTERISTICS.len());
    for known in gatt::CHARACTERISTICS {
        let row = format!("| {:04X} | {} |", known.uuid, known.name.trim_start_matches("IEEE 11073-20601 "));
        assert!(rows.iter().any(|line| line.starts_with(&row)), "{row}");
    }
    let names = RECORDS.iter().map(|record| record.name).chain(Quirk::ALL.iter().map(|quirk| quirk.name()));
    for name in names {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}

/// Numbers that a device has not sent do not appear: an absent value has no number, a valid one is no special value.
fn check_report(report: &Report) {
    for decoded in &report.decoded {
        if let Decoded::Vital(vital) = decoded
            && let Value::Valid(number) = vital.vital.leading()
        {
            assert!(!number.is_zero() || vital.vital.metric() == Metric::Battery, "{report:?}");
        }
    }
    serde_json::to_string(&report.details).unwrap();
}

proptest::proptest! {
    #[test]
    fn any_payload_of_any_characteristic_gives_values_or_an_error(
        payload in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
    ) {
        for characteristic in gatt::CHARACTERISTICS {
            if let Ok(report) = gatt::decode(characteristic.uuid, &payload) {
                check_report(&report);
                proptest::prop_assert_eq!(&report.raw, &payload);
            }
        }
        for uuid in [advert::HEALTH_THERMOMETER, advert::BODY_COMPOSITION, advert::WEIGHT_SCALE] {
            if let Ok(report) = advert::decode(Advertised::Service { uuid, data: &payload }) {
                check_report(&report);
            }
        }
        if let Ok(report) = advert::decode(Advertised::Manufacturer { company: advert::POLAR, data: &payload }) {
            check_report(&report);
        }
        for record in RECORDS {
            if let Ok(report) = record.decode(&payload) {
                check_report(&report);
            }
        }
    }

    #[test]
    fn any_float_is_the_number_that_its_bits_mean(bits in proptest::num::u16::ANY) {
        let signed = |bits: u16, width: u32| {
            let bits = i64::from(bits);
            if bits >> (width - 1) & 1 == 1 { bits - (1 << width) } else { bits }
        };
        let (mantissa, exponent) = (signed(bits & 0xFFF, 12), signed(bits >> 12, 4));
        match sfloat(bits) {
            Ok(number) => proptest::prop_assert_eq!((number.mantissa(), i64::from(number.exponent())), (mantissa, exponent)),
            Err(_) => proptest::prop_assert!(exponent == 0 && (mantissa.abs() >= 2046)),
        }
    }
}
