//! Protocols of which no more is shown than that their frames are found and their sums are right.

use std::sync::Arc;

use vitalbridge::decode::{Decoder, FrameCounters};
use vitalbridge::profile::checksum::ChecksumKind;
use vitalbridge::profile::{Profile, hex};

use crate::decode::vectors;

/// A profile of nothing but a frame, and what its decoder counts.
fn count(frame: &str, bytes: &[u8]) -> FrameCounters {
    let text = format!(
        r#"
        schema = 1
        id = "framing"
        name = "framing"
        kind = "multi_parameter"
        nominal_hz = 1
        [serial]
        settings = ["115200 8N1"]
        [frame]
        {frame}
        [[message]]
        id = "any"
        event = "frame"
        [[test]]
        name = "valid"
        case = "valid"
        hex = "00"
        beats = 0
        [[test]]
        name = "off"
        case = "sensor_off"
        hex = "00"
        expect = [{{ spo2 = "sensor_off" }}]
        [[test]]
        name = "bad"
        case = "corrupted"
        hex = "00"
        skipped_bytes = 1
        "#
    );
    let profile = Profile::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let mut decoder = Decoder::new(Arc::new(profile));
    decoder.push(bytes, &mut Vec::new());
    decoder.finish(&mut Vec::new());
    decoder.counters()
}

fn vector_bytes(protocol: &str) -> Vec<Vec<u8>> {
    let found = vectors("serial.json", "protocol", &[protocol]);
    assert!(!found.is_empty(), "{protocol}");
    found.iter().map(|vector| hex::bytes(vector["hex"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn intellivue_frames_have_escapes_and_a_crc_16_of_x_25() {
    let frame = r#"
        kind = "delimited"
        start = "C0"
        end = "C1"
        min = 3
        max = 2048
        escape = { byte = 0x7D, xor = 0x20, abort = 0xC1 }
        checksum = { kind = "crc16-x25", from = 0, to = -2, at = -2 }"#;
    for bytes in vector_bytes("philips-intellivue-rs232") {
        let counters = count(frame, &bytes);
        assert_eq!((counters.frames, counters.skipped_bytes), (1, 0), "{bytes:02X?}");
        for place in 1..bytes.len() - 1 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x01;
            assert_eq!(count(frame, &damaged).frames, 0, "byte {place}");
        }
    }
}

#[test]
fn b_braun_frames_have_their_length_and_sum_in_five_decimal_digits() {
    let frame = r#"
        kind = "delimited"
        start = "01"
        end = "04"
        min = 12
        max = 4096"#;
    for bytes in vector_bytes("bbraun-bcc") {
        let counters = count(frame, &bytes.repeat(3));
        assert_eq!((counters.frames, counters.skipped_bytes), (3, 0));
        let number = |digits: &[u8]| std::str::from_utf8(digits).unwrap().parse::<usize>().unwrap();
        assert_eq!(number(&bytes[1..6]), bytes.len());
        // From the start of the header to the end of the text.
        let covered = &bytes[..bytes.len() - 6];
        assert_eq!(covered.last(), Some(&0x03));
        let sum = ChecksumKind::Sum8.compute(covered);
        assert_eq!(number(&bytes[bytes.len() - 6..bytes.len() - 1]), usize::from(sum));
    }
}

#[test]
fn pc66h_frames_have_a_length_by_type_and_no_sum() {
    let frame = r#"
        kind = "packet"
        magic = "55 AA"
        length_by = { at = 2, lengths = { 0x01 = 3, 0x03 = 13 } }
        lock = 2"#;
    for acknowledgement in vector_bytes("cmi-pc66h") {
        // A stored record: time, pulse rate and saturations; then the acknowledgement.
        let record = [0x55, 0xAA, 0x03, 14, 5, 1, 12, 30, 0, 72, 0, 97, 0];
        let bytes = [&record[..], &acknowledgement, &record, &acknowledgement].concat();
        let counters = count(frame, &bytes);
        assert_eq!((counters.frames, counters.skipped_bytes), (4, 0));
    }
}
