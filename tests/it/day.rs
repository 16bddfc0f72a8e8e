//! A day of each device with a checksum, in virtual time, with faults on its line: every number that comes out was sent.
//!
//! A frame has at most one fault: a flipped bit, a lost byte, rubbish before it, a pause after it, or a hang-up in its
//! middle; the next frame may have one as well. What no receiver can notice is left out: two faults in one frame, which can
//! cancel each other in an 8-bit sum, and a lost byte with one byte of rubbish behind its frame, which is a frame with two
//! wrong bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::profile::{Profile, built_in};
use vitalbridge::sources::stream::{Arrived, Stream};
use vitalbridge::vitals::{Decimal, Metric, Pressure, Value, Vital};

/// A day.
const SECONDS: u64 = 24 * 3600;
/// One frame in so many has a fault.
const FAULTS: u32 = 50;
/// What was sent so many seconds ago is not handed on any more: after two without a byte what is held back is told.
const WINDOW: u64 = 3;

/// A number that was sent, by its place.
type Sent = (Metric, [Option<Decimal>; 3]);

/// A device: the frames of one second and the numbers in them.
type Device = Box<dyn FnMut(u64, &mut fastrand::Rng) -> (Vec<Vec<u8>>, Vec<Sent>)>;

fn sum8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn scalar(metric: Metric, value: i32) -> Sent {
    (metric, [Some(Decimal::integer(value)), None, None])
}

/// Numbers that change each second, so that an old one is noticed.
fn numbers(random: &mut fastrand::Rng) -> (u8, u8) {
    (random.u8(70..=100), random.u8(40..=200))
}

/// Nonin data format 2: three packets of 25 frames a second.
fn nonin(_second: u64, random: &mut fastrand::Rng) -> (Vec<Vec<u8>>, Vec<Sent>) {
    let (spo2, rate) = numbers(random);
    let float = |slot: u8| match slot {
        // HR-MSB and its kin, HR-LSB and its kin.
        0 | 13 | 19 | 21 => rate >> 7,
        1 | 14 | 20 | 22 => rate & 0x7F,
        2 | 8 | 9 | 10 | 15 | 16 => spo2,
        _ => 0,
    };
    let frame = |slot: u8, pleth: u8| {
        let mut frame = vec![0x01, 0x80 | u8::from(slot == 0), pleth, float(slot)];
        frame.push(sum8(&frame));
        frame
    };
    let frames = (0..75_u8).map(|index| frame(index % 25, random.u8(..))).collect();
    (frames, vec![scalar(Metric::Spo2, spo2.into()), scalar(Metric::PulseRate, rate.into())])
}

/// Nonin data format 7: three packets of 25 frames a second, which have no start byte.
fn nonin_df7(_second: u64, random: &mut fastrand::Rng) -> (Vec<Vec<u8>>, Vec<Sent>) {
    let (spo2, rate) = numbers(random);
    let value = |slot: u8| match slot {
        19 => rate >> 7,
        20 => rate & 0x7F,
        8 => spo2,
        _ => 0,
    };
    let frame = |slot: u8, pleth: u16| {
        let mut frame = vec![0x80 | u8::from(slot == 0)];
        frame.extend(pleth.to_be_bytes());
        frame.push(value(slot));
        frame.push(sum8(&frame));
        frame
    };
    let frames = (0..75_u8).map(|index| frame(index % 25, random.u16(..))).collect();
    (frames, vec![scalar(Metric::Spo2, spo2.into()), scalar(Metric::PulseRate, rate.into())])
}

/// Berry PM6750: numbers once a second, some waves, a cuff each minute.
fn pm6750(second: u64, random: &mut fastrand::Rng) -> (Vec<Vec<u8>>, Vec<Sent>) {
    let frame = |content: &[u8]| {
        let mut summed = vec![u8::try_from(content.len()).unwrap() + 2];
        summed.extend(content);
        let sum = !sum8(&summed);
        [&[0x55, 0xAA][..], &summed, &[sum]].concat()
    };
    let ((spo2, pulse), (_, heart), breaths) = (numbers(random), numbers(random), random.u8(5..40));
    let mut sent = vec![
        scalar(Metric::Spo2, spo2.into()),
        scalar(Metric::PulseRate, pulse.into()),
        scalar(Metric::HeartRate, heart.into()),
        scalar(Metric::RespiratoryRate, breaths.into()),
    ];
    let mut frames = vec![frame(&[0x04, 0, spo2, pulse]), frame(&[0x02, 0, heart, breaths, 0, 0])];
    frames.extend((0..8).map(|_| frame(&[0xFE, random.u8(..)])));
    if second.is_multiple_of(60) {
        let (systolic, mean, diastolic) = (random.u8(120..180), random.u8(90..110), random.u8(50..80));
        frames.push(frame(&[0x03, 0, 0, systolic, mean, diastolic]));
        sent.push((Metric::BloodPressure, [systolic, diastolic, mean].map(|part| Some(Decimal::integer(part.into())))));
    }
    random.shuffle(&mut frames);
    (frames, sent)
}

/// The numbers of a vital; `None` where there is none.
fn numbers_of(vital: &Vital) -> Sent {
    let parts = match vital {
        Vital::Scalar { value, .. } => [Value::valid(*value), None, None],
        Vital::BloodPressure(Pressure { systolic, diastolic, mean })
        | Vital::ArterialPressure(Pressure { systolic, diastolic, mean }) => {
            [Value::valid(*systolic), Value::valid(*diastolic), Value::valid(*mean)]
        }
        Vital::RrIntervals(_) | Vital::News2(_) | Vital::Variability(_) => [None; 3],
    };
    (vital.metric(), parts)
}

/// The embedded tests of a profile as a device: once in ten seconds one of them, with what its bytes say undamaged.
fn by_its_tests(profile: Arc<Profile>) -> Device {
    Box::new(move |second, random| {
        if !second.is_multiple_of(10) {
            return (Vec::new(), Vec::new());
        }
        let valid: Vec<_> = profile.tests().iter().filter(|test| test.bad_checksum.unwrap_or(0) == 0).collect();
        let bytes = valid[random.usize(0..valid.len())].bytes.clone();
        let mut stream = Stream::new(&profile, at(0));
        let mut sent = stream.push(&bytes, at(1));
        sent.extend(stream.second(at(1001)));
        (vec![bytes], sent.iter().map(|arrived| numbers_of(&arrived.observation.vital)).collect())
    })
}

fn at(millis: u64) -> Stamp {
    Stamp { mono: Mono::from_millis(millis), wall: Wall(0) }
}

/// What a day brought.
#[derive(Debug, Default)]
struct Day {
    sent: u64,
    faults: u64,
    found: u64,
    readings: u64,
    wrong: Vec<String>,
}

impl Day {
    /// `recent`: what was sent in each of the last seconds, the newest last.
    fn judge(&mut self, arrived: &[Arrived], recent: &VecDeque<Vec<Sent>>, second: u64) {
        for Arrived { observation, received } in arrived {
            let (metric, parts) = numbers_of(&observation.vital);
            if parts == [None; 3] {
                continue;
            }
            self.readings += 1;
            let was_sent = |(kind, sent): &Sent| {
                *kind == metric && parts.iter().zip(sent).all(|(part, sent)| part.is_none() || part == sent)
            };
            let age = usize::try_from(at(second * 1000).mono.since(received.mono).as_secs()).unwrap();
            // A packet or a frame counts with the byte behind it, which may come in the next second.
            if !recent.iter().rev().skip(age).take(2).flatten().any(was_sent) {
                self.wrong.push(format!("second {second}, received {age} s before: {metric} {parts:?}"));
            }
        }
    }
}

fn live(profile: &Arc<Profile>, mut device: Device, seconds: u64, random: &mut fastrand::Rng) -> Day {
    let (mut day, mut stream) = (Day::default(), Stream::new(profile, at(0)));
    let mut recent: VecDeque<Vec<Sent>> = VecDeque::new();
    let (mut lost_before, mut pause) = (false, 0);
    for second in 1..=seconds {
        let now = at(second * 1000);
        let (frames, sent) = device(second, random);
        recent.push_back(sent);
        while recent.len() > usize::try_from(WINDOW).unwrap() {
            recent.pop_front();
        }
        for mut frame in frames {
            if pause > 0 {
                break;
            }
            day.sent += 1;
            let is_faulty = random.u32(0..FAULTS) == 0;
            let least_rubbish = if std::mem::take(&mut lost_before) { 2 } else { 1 };
            day.faults += u64::from(is_faulty);
            match random.u8(0..40) {
                _ if !is_faulty => {}
                0..16 => {
                    let place = random.usize(0..frame.len());
                    frame[place] ^= 1 << random.u8(0..8);
                }
                16..30 => {
                    frame.remove(random.usize(0..frame.len()));
                    lost_before = true;
                }
                30..38 => {
                    let rubbish = (0..random.usize(least_rubbish..20)).map(|_| random.u8(..));
                    frame = rubbish.chain(frame).collect();
                }
                38 => pause = random.u64(2..40),
                _ => {
                    stream.push(&frame[..random.usize(0..frame.len())], now);
                    day.found += stream.take_counters().frames;
                    stream = Stream::new(profile, now);
                    continue;
                }
            }
            let observations = stream.push(&frame, now);
            day.judge(&observations, &recent, second);
        }
        pause = pause.saturating_sub(1);
        let observations = stream.second(now);
        day.judge(&observations, &recent, second);
    }
    day.found += stream.take_counters().frames;
    day
}

#[test]
fn in_a_day_of_faults_no_number_comes_out_that_was_not_sent() {
    let seed = std::env::var("SEED").map_or_else(|_| Clock::System.now().mono.0, |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    for id in ["nonin-df2", "nonin-df7", "berry-pm6750", "suntech-nibp", "medlab-nibp", "nonin-df13"] {
        let profile = built_in(id).unwrap().unwrap();
        assert!(profile.has_checksum(), "{id}");
        let device: Device = match id {
            "nonin-df2" => Box::new(nonin),
            "nonin-df7" => Box::new(nonin_df7),
            "berry-pm6750" => Box::new(pm6750),
            _ => by_its_tests(Arc::clone(&profile)),
        };
        // Its packets are those of data format 2, and as many: a quarter of a day is enough, and spares seconds.
        let seconds = if id == "nonin-df7" { SECONDS / 4 } else { SECONDS };
        let day = live(&profile, device, seconds, &mut random);
        println!(
            "{id}: {} frames sent, {} with a fault, {} found, {} readings, {} wrong",
            day.sent,
            day.faults,
            day.found,
            day.readings,
            day.wrong.len()
        );
        // The tests of a profile send the same measurement again and again, which is told once.
        assert!(day.readings > 0 && day.faults > 50, "seed {seed}, {id}: {day:?}");
        assert_eq!(day.wrong, Vec::<String>::new(), "seed {seed}, {id}");
    }
}
