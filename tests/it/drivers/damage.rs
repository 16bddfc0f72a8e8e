//! Drivers and lines that are not kind: interrupted, damaged, cut off, or no protocol at all.

use vitalbridge::clock::Clock;
use vitalbridge::decode::{Decoded, Decoder};
use vitalbridge::profile::built_in_ids;
use vitalbridge::vitals::{Metric, Value, Vital};

use super::{evita, monitor};
use crate::decode::{play, profile};

/// The numbers that were told, with their metrics.
fn numbers(decoded: &[Decoded]) -> Vec<(Metric, String)> {
    let vitals = decoded.iter().filter_map(|decoded| match decoded {
        Decoded::Vital(vital) => Some(&vital.vital),
        _ => None,
    });
    vitals
        .filter_map(|vital| match vital {
            Vital::Scalar { metric, value: Value::Valid(number) } => Some((*metric, number.to_string())),
            _ => None,
        })
        .collect()
}

fn samples(decoded: &[Decoded], name: &str) -> Vec<i32> {
    let of = |decoded: &Decoded| match decoded {
        Decoded::Wave(wave) if *wave.name == *name => wave.samples.clone(),
        _ => Vec::new(),
    };
    decoded.iter().flat_map(of).collect()
}

fn with(bytes: &[u8], at: usize, inserted: &[u8]) -> Vec<u8> {
    [&bytes[..at], inserted, &bytes[at..]].concat()
}

#[test]
fn a_response_may_be_interrupted_by_samples_and_commands_at_every_place() {
    let offers = evita::response(0x53, evita::OFFERS);
    let answer = evita::response(0x24, evita::MEASURED);
    let expected = numbers(&play("draeger-medibus", &answer).decoded);
    assert_eq!(expected.len(), 11);
    let record = [&[0xD3][..], &evita::sample(81), &evita::sample(205)].concat();
    for at in 0..=answer.len() {
        for inserted in [record.clone(), evita::command(0x30), [evita::command(0x52), record.clone()].concat()] {
            let bytes = [offers.clone(), with(&answer, at, &inserted)].concat();
            let recording = play("draeger-medibus", &bytes);
            assert_eq!(numbers(&recording.decoded), expected, "at {at}: {inserted:02X?}");
            assert_eq!(recording.counters.skipped_bytes, 0, "at {at}: {inserted:02X?}");
            let is_wave = inserted.contains(&0xD3);
            let expected_samples = if is_wave { vec![81] } else { Vec::new() };
            assert_eq!(samples(&recording.decoded, "airway_pressure"), expected_samples, "at {at}");
        }
    }
    // Each byte of the record alone, anywhere: the halves still belong together.
    for at in 0..answer.len() - record.len() {
        let mut bytes = offers.clone();
        for (place, byte) in answer.iter().enumerate() {
            bytes.extend(place.checked_sub(at).and_then(|place| record.get(place)));
            bytes.push(*byte);
        }
        let recording = play("draeger-medibus", &bytes);
        assert_eq!(numbers(&recording.decoded), expected, "at {at}");
        assert_eq!(samples(&recording.decoded, "co2"), [205], "at {at}");
    }
}

/// Three answers of which the middle one is damaged: what is told is what the others say.
fn check_damage(id: &str, answers: [&[u8]; 3]) {
    let told: Vec<Vec<(Metric, String)>> = answers.iter().map(|answer| numbers(&play(id, answer).decoded)).collect();
    let without = [told[0].clone(), told[2].clone()].concat();
    assert!(told.iter().all(|told| !told.is_empty()));
    for place in 0..answers[1].len() {
        for value in 0..=255_u8 {
            if value == answers[1][place] {
                continue;
            }
            let mut middle = answers[1].to_vec();
            middle[place] = value;
            let recording = play(id, &[answers[0], &middle, answers[2]].concat());
            let found = numbers(&recording.decoded);
            assert_eq!(found, without, "{id}: byte {place} is {value:02X}");
        }
        let mut middle = answers[1].to_vec();
        middle.remove(place);
        let found = numbers(&play(id, &[answers[0], &middle, answers[2]].concat()).decoded);
        assert_eq!(found, without, "{id}: byte {place} is lost");
    }
}

#[test]
fn one_damaged_or_lost_byte_costs_one_medibus_answer_and_gives_no_number() {
    let answer = |spo2: &str| evita::response(0x24, format!("EB{spo2:<4}E170  F040  ").as_bytes());
    check_damage("draeger-medibus", [&answer("97"), &answer("98"), &answer("99")]);
}

#[test]
fn one_damaged_or_lost_byte_costs_one_record_and_gives_no_number() {
    let answer = |spo2: i16| monitor::framed(&monitor::record(0, &[(1, monitor::displayed(spo2, 72, 71))]));
    let (before, damaged, after) = (answer(9700), answer(9800), answer(9900));
    // Every fourth value of each of the 300 places: the others differ in nothing.
    let told = |bytes: &[u8]| numbers(&play("datex-s5-dri", bytes).decoded);
    let without = [told(&before), told(&after)].concat();
    assert_eq!(told(&damaged).len(), 4);
    for place in 0..damaged.len() {
        let values = (0..=255).step_by(4).chain([0x7D, 0x7E, 0x5D, 0x5E, 0x01]);
        for value in values.filter(|value| *value != damaged[place]) {
            let mut middle = damaged.clone();
            middle[place] = value;
            assert_eq!(told(&[&before[..], &middle, &after].concat()), without, "byte {place} is {value:02X}");
        }
        let mut middle = damaged.clone();
        middle.remove(place);
        // The neighbours' flags stand in for a lost one.
        let is_flag = place == 0 || place == damaged.len() - 1;
        let expected = if is_flag { [told(&before), told(&damaged), told(&after)].concat() } else { without.clone() };
        assert_eq!(told(&[&before[..], &middle, &after].concat()), expected, "byte {place} is lost");
    }
}

#[test]
fn a_lost_byte_of_a_wave_costs_its_record_and_moves_no_sample_to_another_wave() {
    let record = |value: u16| [&[0xD3][..], &evita::sample(value), &evita::sample(value + 1000)].concat();
    let offers = evita::response(0x53, evita::OFFERS);
    for lost in 0..5 {
        let mut middle = record(200);
        middle.remove(lost);
        let bytes = [offers.clone(), record(100), middle, record(300), record(400)].concat();
        let recording = play("draeger-medibus", &bytes);
        let (first, second) = (samples(&recording.decoded, "airway_pressure"), samples(&recording.decoded, "co2"));
        // Without its sync byte the values hang on the record before, which then has too many.
        let expected: &[i32] = if lost == 0 { &[300, 400] } else { &[100, 300, 400] };
        assert_eq!(first, expected, "byte {lost}");
        assert_eq!(second, expected.iter().map(|value| value + 1000).collect::<Vec<i32>>(), "byte {lost}");
        let has_gap = |decoded: &Decoded| matches!(decoded, Decoded::Wave(wave) if wave.after_gap);
        assert!(recording.decoded.iter().any(has_gap), "byte {lost}: no gap is told");
    }
}

#[test]
fn a_sample_that_is_a_control_code_is_a_gap_and_no_number() {
    let bytes = monitor::framed(&monitor::record(1, &[(8, monitor::wave(0, &[1, 2, -32000, -32767, 3]))]));
    let recording = play("datex-s5-dri", &bytes);
    assert_eq!(samples(&recording.decoded, "pleth"), [1, 2, 3]);
    let off = monitor::framed(&monitor::record(1, &[(1, monitor::wave(8, &[1, 2]))]));
    assert_eq!(samples(&play("datex-s5-dri", &off).decoded, "ecg1"), [0; 0], "the electrode is off");
}

#[test]
fn every_length_of_every_test_of_a_driver_is_read_without_a_panic() {
    for id in built_in_ids().filter(|id| profile(id).driver().is_some()) {
        for test in profile(id).tests() {
            for length in 0..test.bytes.len() {
                let recording = play(id, &test.bytes[..length]);
                let skipped = usize::try_from(recording.counters.skipped_bytes).unwrap();
                assert!(skipped <= length, "{id}: {} bytes: {:?}", length, recording.counters);
            }
        }
    }
}

#[test]
fn a_record_that_says_a_wrong_length_or_place_gives_nothing() {
    let whole = monitor::record(0, &[(1, monitor::displayed(9700, 72, 71))]);
    for (place, value) in [(0, 0xFF), (1, 0x7F), (1, 0xFF), (16, 0xFF), (17, 0x7F), (17, 0xFF), (14, 9)] {
        let mut record = whole.clone();
        record[place] = value;
        assert_eq!(numbers(&play("datex-s5-dri", &monitor::framed(&record)).decoded), [], "byte {place}: {value:02X}");
    }
    for length in 0..whole.len() {
        let mut record = whole[..length].to_vec();
        if length > 1 {
            let told = u16::try_from(length).unwrap().to_le_bytes();
            record[..2].copy_from_slice(&told);
        }
        assert_eq!(numbers(&play("datex-s5-dri", &monitor::framed(&record)).decoded), [], "{length} bytes");
    }
}

#[test]
fn random_bytes_and_times_never_make_a_driver_panic_or_grow() {
    let seed = Clock::System.now().mono.0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for id in built_in_ids().filter(|id| profile(id).driver().is_some()) {
        for round in 0..200 {
            let mut decoder = Decoder::new(profile(id));
            let mut now = Clock::System.now();
            let mut decoded = Vec::new();
            if random.bool() {
                decoder.begin(now);
            }
            for _ in 0..50 {
                now.mono = now.mono + std::time::Duration::from_millis(random.u64(0..4000));
                let marks = [0x01, 0x03, 0x0D, 0x11, 0x13, 0x15, 0x18, 0x1B, 0x7D, 0x7E, 0xD3, 0xC1];
                let length = random.usize(0..300);
                let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
                for _ in 0..length / 4 {
                    let place = random.usize(0..length);
                    bytes[place] = *random.choice(&marks).unwrap();
                }
                if random.u8(0..3) == 0 {
                    bytes.extend(evita::command(random.u8(0..0x80)));
                    bytes.extend(evita::response(random.u8(0x20..0x56), &bytes.clone()));
                }
                decoder.push_at(&bytes, now, &mut decoded);
                decoder.on_time(now, &mut decoded);
                if let Some(next) = decoder.next_deadline() {
                    assert!(next > now.mono, "seed {seed}, {id}, round {round}: it is due again at once");
                }
                if random.bool() {
                    assert!(decoder.take_outgoing().len() < 8192, "seed {seed}, {id}, round {round}");
                }
                match random.u8(0..20) {
                    0 => decoder.pause(&mut decoded),
                    1 => decoder.reset(),
                    2 => decoder.begin(now),
                    _ => {}
                }
                decoded.clear();
            }
        }
    }
}
