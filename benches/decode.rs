//! The profile interpreter against decoders written by hand for the same protocols, in the same run.
//!
//! Both find frames in the same bytes, check them and hand over vitals and waves in the same form. A ratio of 1.0 means
//! as fast as by hand; 0.5 is the least that is wanted.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
#![expect(clippy::indexing_slicing, reason = "by hand means as fast as it gets; lengths are checked once a frame")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to report")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use vitalbridge::decode::{Decoded, DecodedVital, Decoder, WaveSamples};
use vitalbridge::profile::built_in;
use vitalbridge::vitals::{Absent, Decimal, Metric, Quality, Value, Vital};

/// Frames of one run.
const FRAMES: usize = 200_000;
/// Runs, of which the fastest counts.
const RUNS: usize = 7;
/// Takes bytes, and adds what they say.
type Push = Box<dyn FnMut(&[u8], &mut Vec<Decoded>)>;

/// Bytes handed over at a time, as a serial port does.
const CHUNK: usize = 256;

fn vital(metric: Metric, value: Value) -> Decoded {
    let quality = if value.valid().is_some() { Quality::Valid } else { Quality::NotAvailable };
    let vital = Vital::scalar(metric, value);
    Decoded::Vital(DecodedVital { vital, mdc: None, quality, device_time: None })
}

/// Collects samples as the interpreter does: a quarter of a second in a block.
struct Block {
    name: Arc<str>,
    hz: f64,
    full: usize,
    samples: Vec<i32>,
}

impl Block {
    fn new(name: &str, hz: f64, full: usize) -> Self {
        Self { name: Arc::from(name), hz, full, samples: Vec::with_capacity(full) }
    }

    fn push(&mut self, sample: u8, out: &mut Vec<Decoded>) {
        self.samples.push(i32::from(sample));
        if self.samples.len() == self.full {
            out.push(Decoded::Wave(WaveSamples {
                name: Arc::clone(&self.name),
                hz: self.hz,
                baseline: 0,
                samples: std::mem::replace(&mut self.samples, Vec::with_capacity(self.full)),
                saturated: 0,
                after_gap: false,
            }));
        }
    }
}

/// A decoder written for one protocol.
trait ByHand {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>);
}

struct NoninDf2 {
    buffer: Vec<u8>,
    slots: Vec<u8>,
    is_off: bool,
    pleth: Block,
}

impl ByHand for NoninDf2 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some([start, status, pleth, slot, sum]) = self.buffer.get(at..at + 5) {
            let found = start.wrapping_add(*status).wrapping_add(*pleth).wrapping_add(*slot);
            if *start != 1 || status & 0x80 == 0 || found != *sum {
                at += 1;
                self.slots.clear();
                continue;
            }
            at += 5;
            if status & 1 == 1 {
                self.slots.clear();
                self.is_off = false;
            }
            self.is_off |= status & 0x18 != 0;
            if status & 1 == 1 || !self.slots.is_empty() {
                self.slots.push(*slot);
            }
            self.pleth.push(*pleth, out);
            if self.slots.len() == 25 {
                let rate = (i32::from(self.slots[19] & 3) << 7) | i32::from(self.slots[20] & 0x7F);
                let spo2 = i32::from(self.slots[8] & 0x7F);
                for (metric, number, none) in [(Metric::PulseRate, rate, 511), (Metric::Spo2, spo2, 127)] {
                    let value = match number {
                        _ if self.is_off => Value::Absent(Absent::SensorOff),
                        number if number == none => Value::Absent(Absent::NotANumber),
                        number => Value::reported(metric, Decimal::integer(number)),
                    };
                    out.push(vital(metric, value));
                }
                self.slots.clear();
            }
        }
        self.buffer.drain(..at);
    }
}

struct ContecV7 {
    buffer: Vec<u8>,
    pleth: Block,
}

impl ByHand for ContecV7 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(frame) = self.buffer.get(at..at + 9) {
            if frame[0] != 1 || frame[1..].iter().any(|byte| byte & 0x80 == 0) {
                at += 1;
                continue;
            }
            at += 9;
            let byte = |place: usize| (frame[place] & 0x7F) | (((frame[1] >> (place - 2)) & 1) << 7);
            self.pleth.push(byte(3) & 0x7F, out);
            let is_off = byte(2) & 0x80 != 0 || byte(3) & 0x80 != 0;
            let index = u16::from_le_bytes([byte(7), byte(8)]);
            for (metric, number, places, none) in [
                (Metric::PulseRate, i64::from(byte(5)), 0, 0xFF),
                (Metric::Spo2, i64::from(byte(6)), 0, 0x7F),
                (Metric::PerfusionIndex, i64::from(index), -2, 0xFFFF),
            ] {
                let value = match number {
                    _ if is_off => Value::Absent(Absent::SensorOff),
                    number if number == none => Value::Absent(Absent::NotANumber),
                    number => Value::reported(metric, Decimal::new(number, places).unwrap()),
                };
                out.push(vital(metric, value));
            }
        }
        self.buffer.drain(..at);
    }
}

struct Pm6750 {
    buffer: Vec<u8>,
    ecg: Vec<Block>,
    pleth: Block,
    resp: Block,
}

impl ByHand for Pm6750 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.buffer.get(at..at + 3) {
            let length = usize::from(head[2]) + 2;
            if head[0] != 0x55 || head[1] != 0xAA || !(6..=20).contains(&length) {
                at += 1;
                continue;
            }
            let Some(frame) = self.buffer.get(at..at + length) else { break };
            let sum = frame[2..length - 1].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            if !sum != frame[length - 1] {
                at += 1;
                continue;
            }
            at += length;
            match frame[3] {
                0x01 => self.ecg.iter_mut().zip(&frame[4..]).for_each(|(lead, sample)| lead.push(*sample, out)),
                0x04 => {
                    for (metric, number, none) in [(Metric::Spo2, frame[5], 127), (Metric::PulseRate, frame[6], 255)] {
                        let value = match frame[4] {
                            0 if number == none => Value::Absent(Absent::NotANumber),
                            0 => Value::reported(metric, Decimal::integer(i32::from(number))),
                            _ => Value::Absent(Absent::SensorOff),
                        };
                        out.push(vital(metric, value));
                    }
                }
                0xFE => self.pleth.push(frame[4], out),
                0xFF => self.resp.push(frame[4], out),
                _ => {}
            }
        }
        self.buffer.drain(..at);
    }
}

/// The fastest of some runs, in seconds, and the vitals and samples that came out.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn fastest(bytes: &[u8], mut make: impl FnMut() -> Push) -> (f64, usize, usize) {
    let (mut best, mut vitals, mut samples) = (f64::MAX, 0, 0);
    for _ in 0..RUNS {
        let mut push = make();
        let mut out = Vec::new();
        (vitals, samples) = (0, 0);
        let started = Instant::now();
        for chunk in bytes.chunks(CHUNK) {
            push(chunk, &mut out);
            for decoded in out.drain(..) {
                match black_box(decoded) {
                    Decoded::Vital(_) => vitals += 1,
                    Decoded::Wave(wave) => samples += wave.samples.len(),
                    _ => {}
                }
            }
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    (best, vitals, samples)
}

/// A stream of about `FRAMES` frames, and how many it has.
fn stream(id: &str) -> (Vec<u8>, usize) {
    let sum = |body: &[u8]| body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let berry = |body: &[u8]| {
        let counted = [&[u8::try_from(body.len() + 2).unwrap()], body].concat();
        [&[0x55, 0xAA], counted.as_slice(), &[!sum(&counted)]].concat()
    };
    let unit: Vec<u8> = match id {
        "nonin-df2" => (0..25_u8)
            .flat_map(|frame| {
                let slot = match frame {
                    8 => 97,
                    20 => 72,
                    _ => 0,
                };
                let body = [1, 0x80 | u8::from(frame == 0), frame * 5, slot];
                [&body[..], &[sum(&body)]].concat()
            })
            .collect(),
        "contec-v7" => [0x01, 0xA0, 0x85, 0xB3, 0x86, 0xC1, 0xE1, 0xF0, 0x81].to_vec(),
        _ => {
            let wave =
                [berry(&[1, 128, 130, 140, 120, 110, 100, 90]).repeat(5), berry(&[0xFE, 60]), berry(&[0xFF, 70])];
            [wave.concat().repeat(10), berry(&[4, 0, 97, 72])].concat()
        }
    };
    let frames_in_unit = match id {
        "nonin-df2" => 25,
        "contec-v7" => 1,
        _ => 71,
    };
    let units = FRAMES / frames_in_unit;
    (unit.repeat(units), units * frames_in_unit)
}

fn by_hand(id: &str) -> Push {
    let mut decoder: Box<dyn ByHand> = match id {
        "nonin-df2" => Box::new(NoninDf2 {
            buffer: Vec::new(),
            slots: Vec::new(),
            is_off: false,
            pleth: Block::new("pleth", 75.0, 18),
        }),
        "contec-v7" => Box::new(ContecV7 { buffer: Vec::new(), pleth: Block::new("pleth", 60.0, 15) }),
        _ => Box::new(Pm6750 {
            buffer: Vec::new(),
            ecg: (0..7).map(|lead| Block::new(&format!("ecg_{lead}"), 250.0, 62)).collect(),
            pleth: Block::new("pleth", 50.0, 12),
            resp: Block::new("resp", 50.0, 12),
        }),
    };
    Box::new(move |bytes, out| decoder.push(bytes, out))
}

fn main() {
    println!("{:<14} {:>14} {:>14} {:>7}", "protocol", "profile", "by hand", "ratio");
    // `cargo bench --bench decode -- nonin` runs one of them.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for id in ["nonin-df2", "contec-v7", "berry-pm6750"].into_iter().filter(|id| id.contains(&wanted)) {
        let (bytes, frames) = stream(id);
        let profile = built_in(id).unwrap().unwrap();
        let (interpreted, vitals, samples) = fastest(&bytes, || {
            let mut decoder = Decoder::new(Arc::clone(&profile));
            Box::new(move |bytes, out| decoder.push(bytes, out))
        });
        let (hand, hand_vitals, hand_samples) = fastest(&bytes, || by_hand(id));
        assert_eq!((vitals, samples), (hand_vitals, hand_samples), "{id}: both must decode the same");
        let rate = |seconds: f64| f64::from(u32::try_from(frames).unwrap()) / seconds;
        println!("{id:<14} {:>9.0} fr/s {:>9.0} fr/s {:>7.2}", rate(interpreted), rate(hand), hand / interpreted);
    }
}
