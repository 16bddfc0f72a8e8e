//! Protocols without a capture: bytes written down from the layout of the document, each place with a value of its own.

use vitalbridge::decode::Decoded;
use vitalbridge::vitals::{Metric, Quality, Status};

use super::{Recording, play};

fn samples(recording: &Recording, name: &str) -> Vec<i32> {
    let of = |decoded: &Decoded| match decoded {
        Decoded::Wave(wave) if *wave.name == *name => wave.samples.clone(),
        _ => Vec::new(),
    };
    recording.decoded.iter().flat_map(of).collect()
}

fn has_status(recording: &Recording, status: Status) -> bool {
    recording.decoded.iter().any(|decoded| matches!(decoded, Decoded::Status(set) if set.contains(&status)))
}

fn value(recording: &Recording, metric: Metric) -> String {
    match recording.values(metric).as_slice() {
        [one] => one.clone(),
        other => panic!("{metric}: {other:?}"),
    }
}

/// `STATUS PLETH_MSB PLETH_LSB FLOAT CHK`, 25 of them; the last field is multiplexed by the number of the frame.
fn df7(rate: u16, spo2: u8, status: u8, stat2: u8) -> Vec<u8> {
    (1..=25_u8)
        .flat_map(|frame| {
            let float = match frame {
                1 | 14 | 20 | 22 => u8::try_from(rate >> 7).unwrap(),
                2 | 15 | 21 | 23 => u8::try_from(rate & 0x7F).unwrap(),
                3 | 9 | 10 | 11 | 16 | 17 => spo2,
                8 => stat2,
                // The revision and the timer, which must not be taken for anything else.
                4 => 48,
                6 | 7 => 0x7D,
                _ => 0,
            };
            let bytes = [0x80 | status | u8::from(frame == 1), 0x12, frame, float];
            let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            [bytes[0], bytes[1], bytes[2], bytes[3], sum]
        })
        .collect()
}

#[test]
fn nonin_data_format_7_by_its_layout() {
    for rate in [18, 72, 127, 128, 255, 256, 300, 321] {
        let recording = play("nonin-df7", &df7(rate, 91, 0, 0));
        assert_eq!(value(&recording, Metric::PulseRate), rate.to_string());
        assert_eq!(value(&recording, Metric::Spo2), "91");
        assert_eq!(samples(&recording, "pleth"), (1..=25).map(|frame| 0x1200 + frame).collect::<Vec<i32>>());
    }
    for (status, reason) in [(0x08, "sensor_off"), (0x10, "signal_lost")] {
        let recording = play("nonin-df7", &df7(130, 96, status, 0));
        assert_eq!(value(&recording, Metric::PulseRate), reason);
        assert_eq!(value(&recording, Metric::Spo2), reason);
    }
    let recording = play("nonin-df7", &df7(511, 127, 0x20, 0x01));
    assert_eq!(value(&recording, Metric::PulseRate), "not_a_number");
    assert_eq!(value(&recording, Metric::Spo2), "not_a_number");
    assert!(has_status(&recording, Status::Artifact) && has_status(&recording, Status::LowBattery));
}

#[test]
fn nonin_data_format_8_by_its_layout() {
    // 1 R OOT LPRF MPRF ARTF HR8 HR7 | 0 HR6..0 | 0 SP6..0 | 0 R SPA R SNSA R R LOWBAT, twice for the lock.
    let frame = |rate: u16, spo2: u8, first: u8, last: u8| {
        let (high, low) = (u8::try_from(rate >> 7).unwrap(), u8::try_from(rate & 0x7F).unwrap());
        [0x80 | first | high, low, spo2, last].repeat(2)
    };
    for rate in [18, 127, 128, 255, 256, 321] {
        let recording = play("nonin-df8", &frame(rate, 97, 0, 0));
        assert_eq!(recording.values(Metric::PulseRate), [rate.to_string(), rate.to_string()]);
        assert_eq!(recording.values(Metric::Spo2), ["97", "97"]);
        assert!(!recording.decoded.iter().any(|decoded| matches!(decoded, Decoded::Status(_))));
    }
    for (first, last, status, reason) in [
        (0x20, 0, Status::SignalLost, Some("signal_lost")),
        (0, 0x08, Status::SensorOff, Some("sensor_off")),
        (0x10, 0, Status::LowPerfusion, None),
        (0x04, 0, Status::Artifact, None),
        (0, 0x01, Status::LowBattery, None),
    ] {
        let recording = play("nonin-df8", &frame(130, 96, first, last));
        assert!(has_status(&recording, status), "{status:?}");
        assert_eq!(recording.values(Metric::PulseRate)[0], reason.unwrap_or("130"), "{status:?}");
    }
    // Reserved bits and the two that nobody acts on change nothing.
    let recording = play("nonin-df8", &frame(130, 96, 0x48, 0x76));
    assert_eq!(recording.values(Metric::PulseRate), ["130", "130"]);
    assert_eq!(play("nonin-df8", &frame(511, 127, 0, 0)).values(Metric::Spo2), ["not_a_number"; 2]);
}

#[test]
fn nonin_data_format_13_by_its_layout() {
    // Header | BCD date and time, status (2), pulse rate (2), reserved, SpO2 | sum of the 14 | 03.
    let packet = |status: [u8; 2], rate: u16, spo2: u8| {
        let mut data = vec![0x20, 0x26, 0x11, 0x20, 0x22, 0x05, 0x30, 0x00];
        data.extend(status);
        data.extend([u8::try_from(rate >> 8).unwrap(), u8::try_from(rate & 0xFF).unwrap(), 0, spo2]);
        let sum = data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        [&[0x00, 0x02, 0x00, 0x0D, 0x00, 0x0E][..], &data, &[sum, 0x03]].concat()
    };
    for rate in [18, 127, 128, 255, 256, 321] {
        let recording = play("nonin-df13", &packet([0, 0], rate, 97));
        assert_eq!(value(&recording, Metric::PulseRate), rate.to_string());
        assert_eq!(value(&recording, Metric::Spo2), "97");
        assert!(recording.vitals().all(|vital| vital.device_time.as_deref() == Some("2026112022053000")));
    }
    let kept = play("nonin-df13", &packet([0, 0x10], 72, 97));
    assert!(kept.vitals().all(|vital| vital.quality == Quality::Historic), "sent later than measured");
    assert!(has_status(&play("nonin-df13", &packet([0, 0x01], 72, 97)), Status::LowBattery));
    assert_eq!(value(&play("nonin-df13", &packet([0x01, 0], 72, 97)), Metric::Spo2), "measurement_failed");
    assert_eq!(value(&play("nonin-df13", &packet([0, 0], 511, 127)), Metric::PulseRate), "not_a_number");
}

#[test]
fn a_healthypi_packet_by_its_layout() {
    // ECG i16, respiration i16, IR i32, RED i32, temperature i16, RR, SpO2, HR, 80, 120, status.
    let packet = |leads: u8| {
        let mut bytes = vec![0x0A, 0xFA, 0x14, 0x00, 0x02];
        bytes.extend((-1000_i16).to_le_bytes());
        bytes.extend(321_i16.to_le_bytes());
        bytes.extend(123_456_i32.to_le_bytes());
        bytes.extend((-65_432_i32).to_le_bytes());
        bytes.extend(3711_i16.to_le_bytes());
        bytes.extend([17, 98, 150, 80, 120, leads, 0x00, 0x0B]);
        bytes.repeat(2)
    };
    let recording = play("healthypi", &packet(0));
    for (name, sample) in [("ecg", -1000), ("resp", 321), ("pleth_ir", 123_456), ("pleth_red", -65_432)] {
        assert_eq!(samples(&recording, name), [sample, sample], "{name}");
    }
    for (metric, number) in [
        (Metric::Temperature, "37.11"),
        (Metric::RespiratoryRate, "17"),
        (Metric::Spo2, "98"),
        (Metric::HeartRate, "150"),
    ] {
        assert_eq!(recording.values(metric), [number, number], "{metric}");
    }
    assert!(recording.values(Metric::BloodPressure).is_empty(), "80 and 120 are constants of the firmware");
    let off = play("healthypi", &packet(0x01));
    assert_eq!(off.values(Metric::HeartRate), ["lead_off", "lead_off"]);
    assert_eq!(off.values(Metric::Spo2), ["98", "98"], "the clip does not need the electrodes");
}

#[test]
fn an_ansar_b_block_by_its_layout() {
    // The name, 200 + 4 x 50 samples of which any may look like the end, the lines, and the end.
    let mut bytes = b"\xFFANSAR-B ".to_vec();
    bytes.extend((0..200_u8).map(|place| if place == 7 { 0xFE } else { place }));
    for wave in 0..4_u8 {
        bytes.extend((0..50_u8).map(|place| if place == 3 { 0xFF } else { wave * 50 + place }));
    }
    bytes.extend(b"HR=1;150;ECG-II-DIAG;\rRR=1;35;APNEA: 20 SEC;\rSPO2=1;100;PR=81 ;\r");
    bytes.extend(b"NIBP=4;121;75;92;80;;\rP1=3;111;73;88;;\r\xFE");
    let recording = play("ansar-b", &bytes);
    let ecg = samples(&recording, "ecg");
    assert_eq!((ecg.len(), ecg[6], ecg[7], ecg[199]), (200, 6, 0xFE, 199));
    for (wave, name) in ["resp", "pleth", "p1", "p2"].iter().enumerate() {
        let found = samples(&recording, name);
        let first = i32::try_from(wave).unwrap() * 50;
        assert_eq!((found.len(), found[0], found[3], found[49]), (50, first, 0xFF, first + 49), "{name}");
    }
    assert_eq!(recording.values(Metric::HeartRate), ["150"]);
    assert_eq!(recording.values(Metric::RespiratoryRate), ["35"]);
    assert_eq!(recording.values(Metric::Spo2), ["100"]);
    assert_eq!(recording.values(Metric::BloodPressure), ["121"]);
    // The clip's pulse rate and the cuff's.
    assert_eq!(recording.values(Metric::PulseRate), ["81", "80"]);
    assert_eq!(recording.counters.frames, 1);
    // A pulse rate of another origin in the place of the ECG's is none of the heart.
    let other = String::from_utf8_lossy(b"HR=1;150;PLETH;\r").into_owned();
    let mut bytes = bytes[..409].to_vec();
    bytes.extend(other.as_bytes());
    bytes.push(0xFE);
    assert!(play("ansar-b", &bytes).values(Metric::HeartRate).is_empty());
}

#[test]
fn the_checksum_of_a_short_frame_is_not_taken_for_a_sample() {
    // Three leads where the module otherwise sends seven.
    let recording = play("berry-pm6750", &[0x55, 0xAA, 0x06, 0x01, 0x80, 0x81, 0x82, 0x75]);
    assert_eq!(recording.counters.frames, 1, "{:?}", recording.counters);
    for (lead, expected) in [("ecg_I", vec![128]), ("ecg_II", vec![129]), ("ecg_III", vec![130]), ("ecg_aVR", vec![])] {
        assert_eq!(samples(&recording, lead), expected, "{lead}");
    }
}
