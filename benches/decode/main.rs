//! The profile interpreter against decoders written by hand for the same protocols, in the same run.
//!
//! Both find frames in the same bytes, check them and give the same, which is compared first, with damaged bytes too.
//! A ratio of 1.0 means as fast as by hand. Less than [`LEAST_RATIO`] is an error, and so is any memory that a frame
//! asks for: samples are handed over in blocks that own them, and only a new block may allocate, once.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]
#![expect(clippy::indexing_slicing, reason = "by hand means as fast as it gets; lengths are checked once a frame")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to report")]

mod by_hand;
#[path = "../../tests/allocations/counting.rs"]
mod counting;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use by_hand::by_hand;
use counting::allocations;
use vitalbridge::decode::{Decoded, Decoder, FrameCounters};
use vitalbridge::profile::{Profile, built_in};

/// The protocols that are measured: packets with a superframe, packed packets without a checksum, packets of several
/// types and lengths.
const PROTOCOLS: [&str; 3] = ["nonin-df2", "contec-v7", "berry-pm6750"];
/// Frames of one run.
const FRAMES: usize = 200_000;
/// Runs of each, in turns, of which the fastest counts: a machine is never faster than it is.
const RUNS: usize = 15;
/// Bytes handed over at a time, as a serial port does.
const CHUNK: usize = 256;
/// The interpreter has at least this share of the speed by hand.
const LEAST_RATIO: f64 = 0.5;

/// Takes bytes, and adds what they say.
type Push = Box<dyn FnMut(&[u8], &mut Vec<Decoded>)>;

fn interpreted(profile: &Arc<Profile>) -> Push {
    let mut decoder = Decoder::new(Arc::clone(profile));
    Box::new(move |bytes, out| decoder.push(bytes, out))
}

fn written_by_hand(id: &str) -> Push {
    let mut decoder = by_hand(id);
    Box::new(move |bytes, out| decoder.push(bytes, out))
}

/// Seconds of one run.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn run(bytes: &[u8], mut push: Push) -> f64 {
    let mut out = Vec::with_capacity(CHUNK);
    let started = Instant::now();
    for chunk in bytes.chunks(CHUNK) {
        push(chunk, &mut out);
        out.drain(..).for_each(|decoded| drop(black_box(decoded)));
    }
    started.elapsed().as_secs_f64()
}

/// How often memory was asked for beside the samples of finished blocks, once the first frames are through.
fn allocations_beside_blocks(bytes: &[u8], mut push: Push) -> u64 {
    let mut out = Vec::with_capacity(CHUNK);
    let (warm, rest) = bytes.split_at(bytes.len() / 10);
    warm.chunks(CHUNK).for_each(|chunk| push(chunk, &mut out));
    out.clear();
    let (before, mut blocks) = (allocations(), 0);
    for chunk in rest.chunks(CHUNK) {
        push(chunk, &mut out);
        blocks += out.drain(..).filter(|decoded| matches!(decoded, Decoded::Wave(_))).count();
    }
    (allocations() - before).saturating_sub(u64::try_from(blocks).unwrap())
}

/// All that both make of the bytes must be the same, or one of them is fast because it does less.
fn assert_same(id: &str, profile: &Arc<Profile>, bytes: &[u8]) {
    let (mut decoder, mut hand) = (Decoder::new(Arc::clone(profile)), by_hand(id));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(CHUNK) {
        decoder.push(chunk, &mut left);
        hand.push(chunk, &mut right);
    }
    let different = left.iter().zip(&right).position(|(left, right)| left != right);
    if let Some(at) = different {
        assert_eq!(left[at], right[at], "{id}: item {at} is not the same");
    }
    assert_eq!((left.len(), decoder.counters()), (right.len(), hand.counters()), "{id}: not as much is decoded");
    assert!(!left.is_empty() && decoder.counters() != FrameCounters::default(), "{id}: nothing was decoded");
}

/// The bytes with one in about 300 changed, lost or doubled; the end stays, so that nothing is left to wait for.
fn damaged(bytes: &[u8]) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(3);
    let (damaged, end) = bytes.split_at(bytes.len() - 1000);
    let mut all = Vec::with_capacity(bytes.len());
    for byte in damaged {
        match random.u16(..900) {
            0 => all.push(random.u8(..)),
            1 => {}
            2 => all.extend([*byte; 2]),
            _ => all.push(*byte),
        }
    }
    all.extend(end);
    all
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

fn main() -> ExitCode {
    println!("{:<14} {:>14} {:>14} {:>7} {:>14}", "protocol", "profile", "by hand", "ratio", "allocations");
    // `cargo bench --bench decode -- nonin` runs one of them.
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut is_good = true;
    for id in PROTOCOLS.into_iter().filter(|id| id.contains(&wanted)) {
        let (bytes, frames) = stream(id);
        let profile = built_in(id).unwrap().unwrap();
        assert_same(id, &profile, &bytes);
        assert_same(id, &profile, &damaged(&bytes));
        let allocated = allocations_beside_blocks(&bytes, interpreted(&profile));
        let (mut best, mut best_by_hand) = (f64::MAX, f64::MAX);
        for _ in 0..RUNS {
            best = best.min(run(&bytes, interpreted(&profile)));
            best_by_hand = best_by_hand.min(run(&bytes, written_by_hand(id)));
        }
        let rate = |seconds: f64| f64::from(u32::try_from(frames).unwrap()) / seconds;
        let ratio = best_by_hand / best;
        println!("{id:<14} {:>9.0} fr/s {:>9.0} fr/s {ratio:>7.2} {allocated:>14}", rate(best), rate(best_by_hand));
        is_good &= ratio >= LEAST_RATIO && allocated == 0;
    }
    if is_good {
        return ExitCode::SUCCESS;
    }
    println!("a ratio is below {LEAST_RATIO}, or frames allocate: see the table");
    ExitCode::FAILURE
}
