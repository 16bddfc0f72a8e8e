//! The demo ward as a source: in virtual time without ports, for real with pseudo terminals, and a day of a faulty line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::{LinkState, SourceMessage};
use vitalbridge::profile::built_in;
use vitalbridge::sources;
use vitalbridge::sources::output::SourceCounters;
use vitalbridge::sources::simulator::oximeters::{Nonin, Sensed};
use vitalbridge::sources::simulator::ward::{BEDS, beds};
use vitalbridge::sources::simulator::{Links, SimulatorConfig, demo_sources};
use vitalbridge::sources::stream::{Arrived, Stream};
use vitalbridge::vitals::{Absent, Decimal, Metric, Mode, Reading, Value, Vital};

/// A moment to begin at.
const ORIGIN: Stamp = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(1_795_219_200_000) };

/// Everything that the demo ward says in so many seconds of virtual time, with the second.
async fn demo(seed: u64, seconds: u64) -> Vec<(u64, SourceMessage)> {
    let config = SimulatorConfig { seed, links: Links::Direct };
    let [source] = demo_sources(&config).unwrap().try_into().unwrap();
    let (out, mut messages) = mpsc::channel(64);
    let (clock, stop) = (Clock::tokio(ORIGIN), CancellationToken::new());
    let run = sources::run(source, out, clock.clone(), Arc::new(SourceCounters::default()), stop.clone());
    let collect = async {
        let mut seen = Vec::new();
        while let Some(message) = messages.recv().await {
            let second = clock.now().mono.since(ORIGIN.mono).as_secs();
            if second >= seconds {
                stop.cancel();
            }
            seen.push((second, message));
        }
        seen
    };
    let (ended, seen) = tokio::join!(run, collect);
    ended.unwrap();
    seen
}

fn readings(seen: &[(u64, SourceMessage)]) -> impl Iterator<Item = (u64, &Reading)> {
    seen.iter().filter_map(|(second, message)| match message {
        SourceMessage::Reading(reading) => Some((*second, reading)),
        _ => None,
    })
}

/// The numbers (or reasons) of one metric of one device, by second.
fn series(seen: &[(u64, SourceMessage)], device: &str, metric: Metric) -> BTreeMap<u64, Value> {
    let of =
        readings(seen).filter(|(_, reading)| reading.device.as_str() == device && reading.vital.metric() == metric);
    of.map(|(second, reading)| (second, reading.vital.leading())).collect()
}

fn links(seen: &[(u64, SourceMessage)], device: &str) -> Vec<(u64, LinkState)> {
    let of = seen.iter().filter_map(|(second, message)| match message {
        SourceMessage::Link(event) if event.device.as_str() == device => Some((*second, event.link)),
        _ => None,
    });
    of.collect()
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_the_demo_show_what_a_ward_can_show() {
    let seen = demo(7, 600).await;
    for bed in beds() {
        let metrics: BTreeSet<Metric> = readings(&seen)
            .filter(|(_, reading)| reading.patient.as_ref() == Some(&bed.patient))
            .map(|(_, reading)| reading.vital.metric())
            .collect();
        for metric in [
            Metric::HeartRate,
            Metric::RrInterval,
            Metric::Spo2,
            Metric::PulseRate,
            Metric::RespiratoryRate,
            Metric::BloodPressure,
            Metric::Temperature,
            Metric::Battery,
        ] {
            assert!(metrics.contains(&metric), "{} has no {metric}", bed.patient);
        }
    }
    for (_, reading) in readings(&seen) {
        assert!(reading.mode == Mode::Demo && reading.patient.is_some(), "{reading:?}");
    }
    // The first patient: SpO2 falls after the breath has failed at 75 s; the cable is out from 300 s to 325 s.
    let spo2 = series(&seen, "cms50d-1", Metric::Spo2);
    let value = |second: u64| spo2.get(&second).and_then(|value| value.valid()).map(Decimal::to_f64);
    assert!((10..75).all(|second| value(second).unwrap() >= 95.0), "{spo2:?}");
    let below_90: Vec<u64> =
        spo2.keys().copied().filter(|second| value(*second).is_some_and(|spo2| spo2 < 90.0)).collect();
    assert!((95..=115).contains(below_90.first().unwrap()), "{below_90:?}");
    let near_82 = (75..200).filter(|second| value(*second).is_some_and(|spo2| (80.0..=85.0).contains(&spo2))).count();
    assert!((40..=60).contains(&near_82), "near 82 % for {near_82} s: {spo2:?}");
    assert_eq!(spo2.range(302..=325).next(), None, "a value without a cable");
    assert!(spo2.range(335..).next().is_some(), "no value after the cable was put in again");
    let link = links(&seen, "cms50d-1");
    let around_the_pull: Vec<_> = link.iter().copied().filter(|(second, _)| (290..330).contains(second)).collect();
    let expected = [(300, LinkState::Lost), (325, LinkState::Waiting), (326, LinkState::Live)];
    assert_eq!(around_the_pull, expected, "{link:?}");
    // The second one's finger is out from 150 s to 180 s.
    let spo2 = series(&seen, "nonin-2", Metric::Spo2);
    assert!(spo2[&148].valid().is_some());
    assert!(spo2.range(152..=180).all(|(_, value)| *value == Value::Absent(Absent::SensorOff)), "{spo2:?}");
    assert_eq!(spo2.range(152..=180).count(), 29, "an absence is told each second");
    assert!(spo2[&190].valid().is_some(), "{spo2:?}");
    // The third one's heart races; the straps' payloads went through the decoder.
    let rate = series(&seen, "strap-3", Metric::HeartRate);
    assert!(rate[&270].valid().unwrap().to_f64() > 130.0, "{rate:?}");
    let off = series(&seen, "strap-7", Metric::HeartRate);
    assert_eq!(off[&400], Value::Absent(Absent::SensorOff));
    assert!(readings(&seen).any(|(_, reading)| matches!(&reading.vital, Vital::RrIntervals(beats) if beats.len() > 1)));
    let battery = series(&seen, "strap-5", Metric::Battery);
    assert!(battery.range(330..520).any(|(_, value)| value.valid().unwrap().to_f64() < 10.0));
}

#[tokio::test(start_paused = true)]
async fn every_bed_has_the_waves_of_its_instruments_marked_as_demo() {
    let seen = demo(7, 30).await;
    let waves: Vec<_> = seen
        .iter()
        .filter_map(|(_, message)| match message {
            SourceMessage::Wave(block) => Some(block),
            _ => None,
        })
        .collect();
    assert!(waves.iter().all(|block| block.mode == Mode::Demo), "a wave that could be taken for real");
    for bed in beds() {
        for name in ["ecg", "pleth", "resp"] {
            let count = waves
                .iter()
                .filter(|block| block.patient.as_ref() == Some(&bed.patient) && &*block.name == name)
                .count();
            // Five blocks a second; the Contec's and the Nonin's have their own length.
            assert!((100..=150).contains(&count), "{} {name}: {count} blocks in 30 s", bed.patient);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_source_repeats_itself_with_its_seed() {
    assert_eq!(demo(1, 90).await, demo(1, 90).await);
    assert_ne!(demo(1, 30).await, demo(2, 30).await);
}

#[tokio::test(start_paused = true)]
async fn at_most_one_reading_a_second_of_each_metric_leaves_an_oximeter() {
    let seen = demo(3, 60).await;
    for device in ["cms50d-1", "nonin-2", "oximeter-3"] {
        let count = readings(&seen)
            .filter(|(_, reading)| reading.device.as_str() == device && reading.vital.metric() == Metric::Spo2)
            .count();
        assert!((54..=61).contains(&count), "{device}: {count} in 60 s");
    }
}

#[tokio::test]
async fn the_demo_runs_through_real_pseudo_terminals() {
    let folder = tempfile::tempdir().unwrap();
    let config = SimulatorConfig { seed: 5, links: Links::pty_in(folder.path()) };
    let (out, mut messages) = mpsc::channel(256);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for source in demo_sources(&config).unwrap() {
        let run = sources::run(source, out.clone(), Clock::System, Arc::new(SourceCounters::default()), stop.clone());
        tasks.spawn(async move { run.await.unwrap() });
    }
    drop(out);
    let wait = async {
        let mut missing: BTreeSet<(&str, Metric)> = ["cms50d-1", "nonin-2", "oximeter-3"]
            .into_iter()
            .flat_map(|device| [(device, Metric::Spo2), (device, Metric::PulseRate)])
            .collect();
        while !missing.is_empty() {
            if let SourceMessage::Reading(reading) = messages.recv().await.unwrap()
                && reading.vital.leading().valid().is_some()
            {
                missing
                    .retain(|(device, metric)| *device != reading.device.as_str() || *metric != reading.vital.metric());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    stop.cancel();
    let mut closed = BTreeSet::new();
    while let Some(message) = messages.recv().await {
        if let SourceMessage::Link(event) = message
            && event.link == LinkState::Closed
        {
            closed.insert(event.device.to_string());
        }
    }
    // Five devices a bed, and the simulator itself.
    assert_eq!(closed.len(), BEDS * 5 + 1, "{closed:?}");
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path().join("demo")).unwrap().count(), 0, "links were left behind");
}

/// Damages a frame on its way in one of the ways that lines do. Often it vanishes whole: two of those can hide each
/// other (one in a packet, and the first of the next), which a day must bring dozens of times to show in a reading.
fn damage(frame: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let place = random.usize(0..bytes.len());
    match random.u8(0..8) {
        0 => bytes[place] ^= 1 << random.u8(0..8),
        1 => bytes[place] = bytes[place].wrapping_add(random.u8(1..=255)),
        2 => drop(bytes.remove(place)),
        3 => bytes.insert(place, random.u8(..)),
        4 => bytes.truncate(place),
        _ => bytes.clear(),
    }
    bytes
}

#[test]
fn a_day_of_a_nonin_on_a_faulty_line_gives_no_wrong_number() {
    let seed = Clock::System.now().mono.0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let profile = built_in("nonin-df2").unwrap().unwrap();
    let mut stream = Stream::new(&profile, ORIGIN);
    let mut nonin = Nonin::new();
    let (mut pulse_rate, mut spo2) = (72_u16, 97_u8);
    // What the module may have shown in this second and the one before.
    let mut shown: [BTreeSet<(u16, u8)>; 2] = [BTreeSet::new(), BTreeSet::new()];
    let (mut right, mut faults, mut vanished) = (0_u32, 0_u32, 0_u32);
    for second in 0..86_400_u64 {
        let now = Stamp { mono: ORIGIN.mono + Duration::from_secs(second + 1), ..ORIGIN };
        if random.u8(0..4) == 0 {
            pulse_rate = random.u16(30..=300);
            spo2 = random.u8(60..=100);
        }
        shown[1] = std::mem::take(&mut shown[0]);
        shown[0].insert((pulse_rate, spo2));
        let sensed = Sensed { on_finger: true, pulse_rate, spo2, wave: random.u8(0..128), beat: random.u8(0..60) == 0 };
        let mut bytes = Vec::new();
        for _ in 0..75 {
            let frame = nonin.frame(sensed);
            if random.u16(0..100) == 0 {
                let damaged = damage(&frame, &mut random);
                faults += 1;
                vanished += u32::from(damaged.is_empty());
                bytes.extend(damaged);
            } else {
                bytes.extend(frame);
            }
        }
        stream.push(&bytes, now);
        for Arrived { observation, .. } in stream.second(now) {
            let Some(number) = observation.vital.leading().valid() else {
                continue;
            };
            let is_right = shown.iter().flatten().any(|(pulse_rate, spo2)| {
                let expected = match observation.vital.metric() {
                    Metric::Spo2 => i64::from(*spo2),
                    _ => i64::from(*pulse_rate),
                };
                number.mantissa() == expected && number.exponent() == 0
            });
            assert!(is_right, "seed {seed}, second {second}: {observation:?}, shown {shown:?}");
            right += 1;
        }
    }
    assert!(faults > 60_000 && vanished > 20_000, "{faults} faults, {vanished} frames vanished");
    assert!(right > 150_000, "only {right} numbers in a day");
}
