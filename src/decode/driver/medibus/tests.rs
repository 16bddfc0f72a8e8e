//! The bytes of the vendor's document and of field captures: every vector of MEDIBUS, decoded or encoded.

use serde_json::Value as Json;

use super::*;
use crate::clock::Wall;
use crate::profile::{built_in, hex};
use line::{ESC, SOH, message};

const VECTORS: &str = include_str!("../../../../tests/vectors/serial.json");

fn vectors() -> Vec<Json> {
    let all: Json = serde_json::from_str(VECTORS).unwrap();
    let all = all["vectors"].as_array().unwrap().clone();
    all.into_iter().filter(|vector| vector["protocol"] == "medibus").collect()
}

fn medibus() -> Medibus {
    Medibus::new(built_in("draeger-medibus").unwrap().unwrap().driver().unwrap())
}

/// What the line says about these bytes.
fn said(bytes: &[u8]) -> Vec<Said> {
    let (mut line, mut tally) = (Line::default(), Tally::default());
    let said = bytes.iter().filter_map(|byte| line.take(*byte, &mut tally)).collect();
    assert_eq!((tally.counters().bad_checksum, tally.counters().skipped_bytes), (0, 0), "{bytes:02X?}");
    said
}

#[test]
fn every_vector_decodes_to_its_values_or_is_encoded_from_them() {
    let mut checked = 0;
    for vector in vectors() {
        let id = vector["id"].as_str().unwrap();
        let bytes = vector["hex"].as_str().map(|text| hex::bytes(text).unwrap()).unwrap_or_default();
        let encoded = match id {
            "medibus-icc" => message(ESC, code::ICC, b""),
            "medibus-icc-echo" => message(SOH, code::ICC, b""),
            "medibus-reqid" => message(ESC, code::IDENTIFY, b""),
            "medibus-id-empty" => message(SOH, code::IDENTIFY, b""),
            "medibus-nop" => message(ESC, code::NOP, b""),
            "medibus-req-cp1" => message(ESC, code::DATA, b""),
            "medibus-cp1-empty" => message(SOH, code::DATA, b""),
            "medibus-cp1-spo2" => message(SOH, code::DATA, b"EB 98 E1 70 "),
            "medibus-cfg" => message(ESC, 0x4A, b"$EB"),
            "medibus-req-time" => message(ESC, code::TIME, b""),
            "medibus-time" => message(SOH, code::TIME, b"11:11:1911-NOV-93"),
            "medibus-rt-cfg" => message(ESC, code::CHOOSE, b"00020603"),
            "medibus-rt" => Vec::new(),
            _ => {
                let time = answer::time(vector["text"].as_str().unwrap().as_bytes()).unwrap();
                let millis = Wall::parse(&format!("{time}Z")).unwrap().0;
                assert_eq!(Some(millis), vector["expected"]["utc_ms"].as_i64(), "{id}: {time}");
                checked += 1;
                continue;
            }
        };
        if id == "medibus-rt" {
            realtime_vector(&bytes, &vector["expected"]);
        } else {
            assert_eq!(encoded, bytes, "{id}");
            let (start, code) = (encoded[0], encoded[1]);
            let data = encoded[2..encoded.len() - 3].to_vec();
            let expected = if start == ESC { Said::Command { code } } else { Said::Response { code, data } };
            assert_eq!(said(&bytes), [expected], "{id}");
        }
        checked += 1;
    }
    assert_eq!(checked, 18);
}

/// p. 32 and 33: two waves, their samples, and what they stand for.
fn realtime_vector(bytes: &[u8], expected: &Json) {
    let offers = answer::offers(b"00   16000-  10  10037006   16000-  20  100460").unwrap();
    let mut medibus = medibus();
    let mut out = Vec::new();
    medibus.push(&message(SOH, code::OFFER, b"00   16000-  10  10037006   16000-  20  100460"), None, &mut out);
    medibus.push(bytes, None, &mut out);
    medibus.finish(&mut out);
    for (name, offer, raw, physical) in [
        ("airway_pressure", &offers[0], "airway_pressure_raw", "airway_pressure_mbar"),
        ("co2", &offers[1], "co2_raw", "co2_mmHg"),
    ] {
        let wave = out.iter().find_map(|decoded| match decoded {
            Decoded::Wave(wave) if *wave.name == *name => Some(wave),
            _ => None,
        });
        let wave = wave.unwrap();
        assert_eq!(expected[raw].as_i64(), Some(i64::from(wave.samples[0])), "{name}");
        assert!((wave.hz - 62.5).abs() < 1e-9, "{name}: {}", wave.hz);
        let (min, max) = (offer.min.to_f64(), offer.max.to_f64());
        let value = min + f64::from(wave.samples[0]) * (max - min) / f64::from(offer.max_binary);
        assert!((value - expected[physical].as_f64().unwrap()).abs() < 0.005, "{name}: {value}");
        let zero = min + f64::from(wave.baseline) * (max - min) / f64::from(offer.max_binary);
        assert!(zero.abs() < 0.1, "{name}: the baseline stands for {zero}");
    }
}

#[test]
fn the_sum_that_the_manual_prints_for_nop_is_wrong() {
    let (mut line, mut tally) = (Line::default(), Tally::default());
    let printed = [0x1B, 0x30, 0x34, 0x36, 0x0D];
    let said: Vec<Said> = printed.iter().filter_map(|byte| line.take(*byte, &mut tally)).collect();
    assert_eq!(said, [Said::CorruptCommand]);
}

#[test]
fn dates_are_read_as_devices_write_them() {
    for (said, expected) in [
        ("11:11:1911-NOV-93", "1993-11-11T11:11:19"),
        // p. 13, the note on the PM 8040.
        (" 8:06:05 4-MAR- 2", "2002-03-04T08:06:05"),
        ("23:59:5931-DEZ-99", "1999-12-31T23:59:59"),
        ("00:0001-MAI-05", "2005-05-01T00:00:00"),
    ] {
        assert_eq!(answer::time(said.as_bytes()).map(|time| time.to_string()).as_deref(), Some(expected), "{said}");
    }
    for bad in ["", "11:11", "24:00:0001-JAN-00", "10:60:0001-JAN-00", "10:00:0000-JAN-00", "10:00:0001-XXX-00"] {
        assert_eq!(answer::time(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn an_answer_that_is_not_what_its_code_says_is_nothing() {
    assert_eq!(answer::measured(b"EB 98 E1 7"), None);
    assert_eq!(answer::measured(b"eB 98 "), None);
    assert_eq!(answer::measured(b"EB----"), Some(vec![(0xEB, None)]));
    assert_eq!(answer::measured(b"78-  5").unwrap()[0].1.unwrap().to_string(), "-5");
    assert_eq!(answer::alarms(b"0EBTOO LOW     "), None, "priority 0");
    assert_eq!(answer::texts(b"015ABC\x03"), None, "shorter than it says");
    assert_eq!(answer::texts(b"013ABC\x03021D\x03").unwrap(), ["ABC", "D"]);
    assert_eq!(answer::identity(b"8240'Evita 4'04.20"), None, "no version");
    assert_eq!(answer::identity(b"0161'My PC'01.00:03.00").unwrap().version, 3);
    assert_eq!(answer::offers(b"00       0-  10  100370"), None, "no interval");
    assert_eq!(answer::offers(b"00      16-  10  100370").unwrap()[0].interval_us, 16_000, "milliseconds");
}

#[test]
fn a_number_of_the_device_becomes_one_of_the_metric() {
    let shown = |metric, text: &str, unit| value(metric, text.parse().ok(), unit);
    let valid = |text: &str| Value::Valid(text.parse().unwrap());
    assert_eq!(shown(Metric::TidalVolume, "0.45", LITRE), valid("450"));
    assert_eq!(shown(Metric::Peep, "-2", MBAR), valid("-2.0"));
    assert_eq!(shown(Metric::Etco2, "5.1", KPA), valid("38.3"));
    // What cannot be measured is not sent, so that these zeros have been measured; but no pulse has a rate of 0.
    assert_eq!(shown(Metric::Peep, "0", MBAR), valid("0.0"));
    assert_eq!(shown(Metric::RespiratoryRate, "0", SAME), valid("0"));
    assert_eq!(shown(Metric::PulseRate, "0", SAME), Value::Absent(Absent::ZeroReported));
    assert_eq!(shown(Metric::Fio2, "101", SAME), Value::Absent(Absent::OutOfRange));
    assert_eq!(shown(Metric::Fio2, "----", SAME), Value::Absent(Absent::NotANumber));
}

#[test]
fn waves_beyond_the_fourth_and_their_changes_are_counted_right() {
    // Streams 5 and 6 are announced by a sync command, and stay until the next; only the first four have names.
    let mut medibus = medibus();
    let mut out = Vec::new();
    let offer = |code: &str| format!("{code}   16000    0  100FFF");
    let offers: String = ["00", "01", "06", "03"].into_iter().map(offer).collect();
    medibus.push(&message(SOH, code::OFFER, offers.as_bytes()), None, &mut out);
    let value = |value: u8| [0x80 | value, 0x80];
    let record = |start: &[u8], values: &[u8]| {
        [start.to_vec(), values.iter().flat_map(|v| value(*v)).collect::<Vec<u8>>()].concat()
    };
    for bytes in [
        record(&[0xDF, 0xC4, 0xC3], &[1, 2, 3, 4, 5, 6]),
        record(&[0xDF], &[7, 8, 9, 10, 11, 12]),
        record(&[0xDF, 0xC4, 0xC0], &[13, 14, 15, 16]),
    ] {
        medibus.push(&bytes, None, &mut out);
    }
    medibus.finish(&mut out);
    let volume = out.iter().find_map(|decoded| match decoded {
        Decoded::Wave(wave) if &*wave.name == "airway_volume" => Some(wave.samples.clone()),
        _ => None,
    });
    assert_eq!(volume.unwrap(), [4, 10, 16]);
    assert_eq!(medibus.counters().skipped_bytes, 0);
}
