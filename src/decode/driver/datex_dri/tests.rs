//! The bytes of the vendor's documents.

use super::record::{HEADER, u32_at};
use super::*;
use crate::profile::hex;

const VECTORS: &str = include_str!("../../../../tests/vectors/serial.json");

/// Contents of the frames in these bytes.
fn contents(bytes: &[u8]) -> (Vec<Vec<u8>>, FrameCounters) {
    let (mut deframer, mut tally) = (Deframer::default(), Tally::default());
    let found = bytes.iter().filter_map(|byte| deframer.take(*byte, &mut tally)).map(|(content, _)| content).collect();
    deframer.give_up(&mut tally);
    (found, tally.counters())
}

#[test]
fn every_vector_decodes_to_its_bytes() {
    let all: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let mut checked = 0;
    for vector in all["vectors"].as_array().unwrap().iter().filter(|vector| vector["protocol"] == "ge-s5-dri") {
        let bytes = hex::bytes(vector["hex"].as_str().unwrap()).unwrap();
        assert_eq!(contents(&bytes).0, [vec![0x7E, 0x7D]]);
        for (plain, escaped) in vector["expected"].as_object().unwrap() {
            let (plain, escaped) = (hex::bytes(plain).unwrap(), hex::bytes(escaped.as_str().unwrap()).unwrap());
            let frame = [&[0x7E][..], &escaped, &escaped_sum(&plain), &[0x7E]].concat();
            assert_eq!(contents(&frame).0, [plain]);
        }
        checked += 1;
    }
    assert_eq!(checked, 1);
}

fn escaped_sum(plain: &[u8]) -> Vec<u8> {
    match plain.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) {
        mark @ (0x7D | 0x7E) => vec![0x7D, mark & 0x5F],
        sum => vec![sum],
    }
}

/// M1017617, A-3: the request for 60 s trends, whose sum is 7DH and has to be escaped.
#[test]
fn the_request_of_the_document_whose_sum_is_escaped_is_read_and_written() {
    let mut body = vec![3, 60, 0, 0x0E];
    body.resize(9, 0);
    let sent = request(Main::Numbers, &body);
    assert!(sent.ends_with(&[0x00, 0x7D, 0x5D, 0x7E]), "{sent:02X?}");
    let (found, counters) = contents(&sent);
    assert_eq!((found.len(), counters.skipped_bytes), (1, 0));
    let record = Record::parse(&found[0]).unwrap();
    assert_eq!((record.main, record.subrecords), (Some(Main::Numbers), vec![(0, &body[..])]));
    assert_eq!((found[0].len(), u32_at(&found[0], 0)), (HEADER + 9, Some(0x31)));
}

#[test]
fn only_the_flag_and_the_control_byte_are_escaped() {
    for bad in ["7E 7D 41 61 7E", "7E 41 41 7D 7E", "7E 7D 7D 5D 7D 7E", "7E 7D 7E 7E"] {
        let (found, counters) = contents(&hex::bytes(bad).unwrap());
        assert!(found.is_empty() && counters.bad_checksum > 0, "{bad}: {found:02X?}");
    }
}

#[test]
fn frames_may_share_a_flag_and_noise_between_them_costs_nothing_else() {
    let frame = request(Main::Waves, &[1; 32]);
    let shared = [&frame[..frame.len() - 1], &frame].concat();
    assert_eq!(contents(&shared).0.len(), 2);
    let noisy = [&[1, 2, 3][..], &frame, &[4, 5, 6, 7], &frame, &[8]].concat();
    let (found, counters) = contents(&noisy);
    assert_eq!((found.len(), counters.skipped_bytes), (2, 3 + 4 + 1));
}

#[test]
fn a_frame_that_never_ends_is_bounded() {
    let endless = [&[0x7E][..], &vec![0x11; 100_000], &[0x7E]].concat();
    let (found, counters) = contents(&endless);
    assert_eq!((found.len(), counters.bad_checksum, counters.skipped_bytes), (0, 1, 100_000));
}

#[test]
fn special_numbers_have_the_reason_of_the_document() {
    let reason = |raw: i16| {
        let mut group = vec![3, 0, 0, 0, 0, 0];
        group.extend(raw.to_le_bytes());
        let mut subrecord = vec![0; 278];
        subrecord[122..130].copy_from_slice(&group);
        let numbers = numbers::read(&subrecord).unwrap();
        numbers.found.iter().find(|found| found.vital.metric() == Metric::Spo2).unwrap().vital.leading()
    };
    for (raw, expected) in [
        (-32767, Absent::NotANumber),
        (-32766, Absent::NotMeasured),
        (-32764, Absent::UnderRange),
        (-32763, Absent::OverRange),
        (-32762, Absent::MeasurementFailed),
        (-32001, Absent::Reserved),
        (-32768, Absent::Reserved),
        (-32000, Absent::OutOfRange),
        (0, Absent::ZeroReported),
        (10_001, Absent::OutOfRange),
    ] {
        assert_eq!(reason(raw), Value::Absent(expected), "{raw}");
    }
    assert_eq!(reason(9_750), Value::Valid("97.5".parse().unwrap()));
}

#[test]
fn another_class_than_the_basic_one_is_not_read_as_if_it_were() {
    for class in 1..=15_u8 {
        let mut subrecord = vec![3; 278];
        subrecord[277] = class;
        assert_eq!(numbers::read(&subrecord), None, "class {class}");
    }
    assert_eq!(numbers::read(&[0; 277]), None);
}
