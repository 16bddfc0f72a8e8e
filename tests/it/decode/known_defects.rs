//! Defects that public decoders of the same protocols have; each was seen to give wrong numbers.

use std::sync::Arc;

use vitalbridge::decode::{Decoded, Decoder};
use vitalbridge::profile::{Profile, built_in_ids, built_in_text, hex};
use vitalbridge::vitals::Metric;

use super::{play, profile};

/// Nonin data format 2: a packet with this pulse rate in every slot, and SpO2 96.
fn nonin_packet(rate: u16, status: u8) -> Vec<u8> {
    let slot = |frame: u8| match frame {
        0 | 13 | 19 | 21 => u8::try_from(rate >> 7).unwrap(),
        1 | 14 | 20 | 22 => u8::try_from(rate & 0x7F).unwrap(),
        2 | 8 | 9 | 10 | 15 | 16 => 96,
        _ => 0,
    };
    (0..25_u8)
        .flat_map(|frame| {
            let bytes = [1, 0x80 | status | u8::from(frame == 0), 0x40, slot(frame)];
            let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            [bytes[0], bytes[1], bytes[2], bytes[3], sum]
        })
        .collect()
}

#[test]
fn a_nonin_pulse_rate_above_127_is_read_from_two_and_seven_bits() {
    for rate in [18, 72, 127, 128, 130, 255, 256, 300] {
        assert_eq!(play("nonin-df2", &nonin_packet(rate, 0)).values(Metric::PulseRate), [rate.to_string()]);
    }
}

#[test]
fn the_display_values_of_a_nonin_without_a_finger_are_withheld() {
    let recording = play("nonin-df2", &nonin_packet(130, 0x08));
    assert_eq!(recording.values(Metric::PulseRate), ["sensor_off"]);
    assert_eq!(recording.values(Metric::Spo2), ["sensor_off"]);
}

/// Three packets a second for 10 s: the display values stay, only the alarm tells.
#[test]
fn the_ten_seconds_in_which_a_nonin_repeats_its_last_values_are_silent() {
    let bytes = [nonin_packet(130, 0), nonin_packet(130, 0x08).repeat(30), nonin_packet(74, 0)].concat();
    for metric in [Metric::PulseRate, Metric::Spo2] {
        let values = play("nonin-df2", &bytes).values(metric);
        assert_eq!(values.iter().filter(|value| *value == "sensor_off").count(), 30, "{values:?}");
        assert_eq!(values.iter().filter(|value| value.parse::<f64>().is_ok()).count(), 2, "{values:?}");
    }
}

#[test]
fn one_alarm_frame_is_enough_to_withhold_its_whole_packet() {
    let mut bytes = nonin_packet(130, 0);
    bytes[5 * 12 + 1] |= 0x08;
    bytes[5 * 12 + 4] = bytes[5 * 12 + 4].wrapping_add(0x08);
    assert_eq!(play("nonin-df2", &bytes).values(Metric::Spo2), ["sensor_off"]);
}

#[test]
fn a_lost_frame_never_shifts_the_slots_of_a_nonin_packet() {
    for lost in 0..25 {
        let mut bytes = nonin_packet(130, 0);
        bytes.drain(lost * 5..(lost + 1) * 5);
        bytes.extend(nonin_packet(72, 0));
        assert_eq!(play("nonin-df2", &bytes).values(Metric::PulseRate), ["72"], "without frame {lost}");
    }
}

/// The pulse rates among these frames, of which some vanish without a trace.
fn pulse_rates_without(frames: &[u8], vanished: &[usize]) -> Vec<String> {
    let kept = frames.chunks(5).enumerate().filter(|(place, _)| !vanished.contains(place));
    play("nonin-df2", &kept.flat_map(|(_, frame)| frame).copied().collect::<Vec<u8>>()).values(Metric::PulseRate)
}

#[test]
fn a_lost_frame_and_a_lost_first_frame_do_not_hide_each_other_in_nonin_packets() {
    let bytes = [nonin_packet(130, 0), nonin_packet(73, 0), nonin_packet(74, 0)].concat();
    assert_eq!(pulse_rates_without(&bytes, &[]), ["130", "73", "74"]);
    for lost in 0..25 {
        // With the second frame of the second packet there are 25 again, and those after the lost one are shifted.
        assert_eq!(pulse_rates_without(&bytes, &[lost, 25]), ["74"], "without frames {lost} and 25");
    }
    // Whichever two: each packet is told as it is or not at all.
    for first in 0..75 {
        for second in first + 1..75 {
            let told = pulse_rates_without(&bytes, &[first, second]);
            assert!(
                told.iter().all(|rate| ["130", "73", "74"].contains(&rate.as_str())),
                "{first}, {second}: {told:?}"
            );
        }
    }
}

#[test]
fn an_alarm_counts_for_its_own_nonin_packet_although_the_next_one_shows_that_it_is_whole() {
    for frame in 0..25 {
        let mut bytes = [nonin_packet(130, 0), nonin_packet(72, 0), nonin_packet(73, 0)].concat();
        let at = 5 * (25 + frame);
        bytes[at + 1] |= 0x08;
        bytes[at + 4] = bytes[at + 4].wrapping_add(0x08);
        let recording = play("nonin-df2", &bytes);
        assert_eq!(recording.values(Metric::PulseRate), ["130", "sensor_off", "73"], "alarm in frame {frame}");
        assert_eq!(recording.values(Metric::Spo2), ["96", "sensor_off", "96"], "alarm in frame {frame}");
    }
}

#[test]
fn an_alarm_in_a_dropped_nonin_packet_is_told_with_the_next() {
    let mut bytes = [nonin_packet(130, 0x08), nonin_packet(72, 0), nonin_packet(73, 0)].concat();
    bytes.drain(5 * 10..5 * 11);
    assert_eq!(play("nonin-df2", &bytes).values(Metric::PulseRate), ["sensor_off", "73"]);
}

#[test]
fn the_last_nonin_packet_counts_if_the_recording_ends_with_its_last_frame() {
    let mut bytes = [nonin_packet(130, 0), nonin_packet(72, 0)].concat();
    assert_eq!(play("nonin-df2", &bytes).values(Metric::PulseRate), ["130", "72"]);
    // What follows is no first frame.
    bytes.extend(&[1, 0x80, 0x40]);
    assert_eq!(play("nonin-df2", &bytes).values(Metric::PulseRate), ["130"]);
}

#[test]
fn damage_over_the_edge_of_two_nonin_packets_never_mixes_their_slots() {
    let mut bytes = [nonin_packet(130, 0), nonin_packet(72, 0), nonin_packet(73, 0)].concat();
    // From frame 19 of the first packet to frame 0 of the second: the later frames would fill the missing slots.
    for frame in 19..=25 {
        bytes[frame * 5 + 4] ^= 0xFF;
    }
    let recording = play("nonin-df2", &bytes);
    assert_eq!(recording.values(Metric::PulseRate), ["73"]);
    let gaps = recording.decoded.iter().filter(|decoded| matches!(decoded, Decoded::Wave(wave) if wave.after_gap));
    assert_eq!(gaps.count(), 1, "the wave tells that samples are missing");
}

#[test]
fn a_contec_pulse_rate_above_127_has_its_high_bit_elsewhere() {
    let newer = hex::bytes("01 A8 85 B3 86 96 E1 F0 81").unwrap();
    assert_eq!(play("contec-v7", &newer).values(Metric::PulseRate), ["150"]);
    let older = hex::bytes("85 33 46 16 61").unwrap();
    assert_eq!(play("contec-cms50-v5", &older).values(Metric::PulseRate), ["150"]);
}

#[test]
fn numbers_that_a_masimo_sends_with_the_sensor_off_are_withheld() {
    let line = b"12/01/05 11:56:29 SN=0123456789 SPO2=098% BPM=240 PI=20.00% ALARM=0000 EXC=000820\r\n";
    let recording = play("masimo-ascii1", line);
    for metric in [Metric::Spo2, Metric::PulseRate, Metric::PerfusionIndex] {
        assert_eq!(recording.values(metric), ["sensor_off"], "{metric}");
    }
}

#[test]
fn a_nellcor_that_searches_does_not_report_saturation_0() {
    let line = b"07-Jan-04 11:24:50     0       0     ---    PS\r\n";
    let recording = play("nellcor-oximax", line);
    assert_eq!(recording.values(Metric::Spo2), ["searching"]);
    assert_eq!(recording.values(Metric::PulseRate), ["searching"]);
}

#[test]
fn the_blood_pressure_in_the_firmware_of_a_healthypi_is_no_measurement() {
    let test = super::profile("healthypi").tests()[0].bytes.clone();
    assert_eq!((test[22], test[23]), (80, 120), "the bytes are there");
    assert!(play("healthypi", &test).values(Metric::BloodPressure).is_empty());
}

/// A PM6750 frame with its checksum.
fn berry(body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len() + 2).unwrap();
    let sum = body.iter().fold(length, |sum, byte| sum.wrapping_add(*byte));
    [&[0x55, 0xAA, length][..], body, &[!sum]].concat()
}

#[test]
fn ten_damaged_bytes_in_400_frames_cost_no_more_than_ten_frames() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let frames: Vec<Vec<u8>> = (0..400)
            .map(|number: u32| match number % 8 {
                0 => berry(&[0x04, 0, random.u8(90..100), random.u8(60..80)]),
                1 | 5 => berry(&[0xFE, random.u8(..)]),
                3 | 7 => berry(&[0xFF, random.u8(..)]),
                // Samples may look like the beginning of a frame.
                _ => berry(&[0x01, 0x55, 0xAA, random.u8(..), 0x55, 0xAA, random.u8(..), random.u8(..)]),
            })
            .collect();
        let mut bytes = frames.concat();
        for _ in 0..10 {
            let place = random.usize(..bytes.len());
            bytes[place] ^= random.u8(1..);
        }
        let recording = play("berry-pm6750", &bytes);
        // A damaged sum can fit by chance, which loses nothing; a damaged length may show a frame inside another.
        assert!(recording.counters.frames >= 390, "seed {seed}: {:?}", recording.counters);
        assert!(recording.counters.frames <= 400, "seed {seed}: {:?}", recording.counters);
    }
}

#[test]
fn a_damaged_length_is_not_waited_for() {
    let good = berry(&[0x04, 0, 97, 72]);
    // The longest frame that the profile trusts; 255 is no length at all.
    for (length, most) in [(255_u8, 1_usize), (5 + 13, 20)] {
        let mut damaged = good.clone();
        damaged[2] = length;
        let mut decoder = Decoder::new(profile("berry-pm6750"));
        let mut decoded = Vec::new();
        decoder.push(&damaged, &mut decoded);
        let after = good.repeat(20);
        let told = after.iter().position(|byte| {
            decoder.push(&[*byte], &mut decoded);
            decoded.iter().any(|decoded| matches!(decoded, Decoded::Vital(_)))
        });
        let frames = told.unwrap() / good.len() + 1;
        assert!(frames <= most.div_ceil(good.len()) + 1, "length {length}: told with frame {frames}");
    }
}

#[test]
fn a_binary_link_cannot_be_given_xon_xoff() {
    // It would eat the data bytes 0x11 and 0x13.
    let text = built_in_text("contec-cms50-v5").unwrap();
    let text = text.replace("settings = [", "flow = \"xonxoff\"\nsettings = [");
    let problems = Profile::parse(&text).unwrap_err().to_string();
    assert!(problems.contains("XON/XOFF is not offered"), "{problems}");
    let eaten = hex::bytes("85 11 46 13 61").unwrap();
    assert_eq!(play("contec-cms50-v5", &eaten.repeat(3)).values(Metric::PulseRate), ["147"; 3]);
}

/// Where a link ends, or a device has nothing to say, some show 0.
#[test]
fn no_profile_makes_a_zero_of_nothing() {
    for id in built_in_ids() {
        for test in profile(id).tests() {
            for vital in play(id, &test.bytes).vitals() {
                // Of some metrics 0 can be measured; their profiles say so themselves.
                let (lowest, _) = vital.vital.metric().info().range;
                let is_zero = vital.vital.leading().valid().is_some_and(vitalbridge::vitals::Decimal::is_zero);
                assert!(lowest <= 0 || !is_zero, "{id}, {}: {vital:?}", test.name);
            }
        }
        // What the program decodes as the standard has it carries no tests of its own.
        let profile = profile(id);
        let Some(test) = profile.tests().first() else { continue };
        let mut decoder = Decoder::new(Arc::clone(&profile));
        let mut decoded = Vec::new();
        decoder.push(&test.bytes, &mut decoded);
        decoded.clear();
        decoder.reset();
        decoder.finish(&mut decoded);
        assert!(!decoded.iter().any(|decoded| matches!(decoded, Decoded::Vital(_))), "{id}: {decoded:?}");
    }
}

#[test]
fn no_sample_of_a_wave_is_lost_between_its_blocks() {
    let bytes: Vec<u8> = (0..=250_u8).flat_map(|sample| berry(&[0xFE, sample])).collect();
    let samples: Vec<i32> = play("berry-pm6750", &bytes)
        .decoded
        .iter()
        .filter_map(|decoded| match decoded {
            Decoded::Wave(wave) => Some(wave.samples.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(samples, (0..=250).collect::<Vec<i32>>());
}

#[test]
fn an_ecg_at_its_rails_is_told_though_no_lead_is_off() {
    let bytes: Vec<u8> = (0..100).flat_map(|_| berry(&[0x01, 250, 128, 0, 128, 128, 128, 128])).collect();
    let saturated = |name: &str| -> usize {
        let blocks = play("berry-pm6750", &bytes).decoded;
        let of = |decoded: &Decoded| match decoded {
            Decoded::Wave(wave) if *wave.name == *name => wave.saturated,
            _ => 0,
        };
        blocks.iter().map(of).sum()
    };
    assert_eq!((saturated("ecg_I"), saturated("ecg_II"), saturated("ecg_III")), (100, 0, 100));
}
