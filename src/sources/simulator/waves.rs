//! The waves of a simulated bed: ECG, pulse and breath, in blocks as instruments send them.

use super::physiology::{Body, whole};
use super::ward::Instrument;

/// A block has the samples of so many steps: a fifth of a second.
const STEPS_A_BLOCK: usize = 2;
/// Steps of the model in a second.
const STEPS_A_SECOND: u32 = 10;

/// One kind of wave.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    instrument: Instrument,
    /// Samples in a step.
    samples: u32,
    /// What is multiplied with the body's wave: of an ECG µV, of the others steps of an 8-bit converter.
    scale: f64,
    height: fn(&Body, f64) -> f64,
}

const KINDS: [Kind; 3] = [
    Kind { name: "ecg", instrument: Instrument::Strap, samples: 25, scale: 1000.0, height: Body::ecg_wave },
    Kind { name: "pleth", instrument: Instrument::Oximeter, samples: 10, scale: 255.0, height: Body::pulse_wave },
    Kind { name: "resp", instrument: Instrument::BreathMonitor, samples: 5, scale: 255.0, height: Body::breath_wave },
];

/// A block of samples that left an instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The wave.
    pub name: &'static str,
    /// Samples a second.
    pub hz: u32,
    /// Oldest first; the zero of an ECG is 0.
    pub samples: Vec<i32>,
    /// The instrument measured nothing before the first of these.
    pub after_gap: bool,
}

#[derive(Debug, Clone, Default)]
struct Filling {
    samples: Vec<i32>,
    after_gap: bool,
}

/// The waves of one bed.
#[derive(Debug, Clone, Default)]
pub struct Waves {
    filling: [Filling; KINDS.len()],
}

impl Waves {
    /// Adds a step of the body, as far as `is_on` says that an instrument is there and sends waves; `full` gets what is full.
    pub fn step(&mut self, body: &Body, is_on: impl Fn(Instrument) -> bool, mut full: impl FnMut(Instrument, Block)) {
        for (kind, filling) in KINDS.iter().zip(&mut self.filling) {
            let is_on = is_on(kind.instrument);
            if is_on {
                let part = |sample| f64::from(sample) / f64::from(kind.samples);
                let samples = (0..kind.samples).map(|sample| whole((kind.height)(body, part(sample)) * kind.scale));
                filling.samples.extend(samples);
            }
            let block = usize::try_from(kind.samples).unwrap_or(1) * STEPS_A_BLOCK;
            let is_due = if is_on { filling.samples.len() >= block } else { !filling.samples.is_empty() };
            if is_due {
                full(
                    kind.instrument,
                    Block {
                        name: kind.name,
                        hz: kind.samples * STEPS_A_SECOND,
                        samples: std::mem::take(&mut filling.samples),
                        after_gap: std::mem::take(&mut filling.after_gap),
                    },
                );
            }
            filling.after_gap |= !is_on;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::physiology::Strain;
    use super::super::physiology::tests::ADULT;
    use super::*;

    /// The blocks of one wave in so many steps; `is_on` is asked with the number of the step.
    fn blocks(name: &str, steps: u32, is_on: impl Fn(u32) -> bool) -> Vec<Block> {
        let (mut body, mut waves, mut sent) = (Body::new(ADULT, 1), Waves::default(), Vec::new());
        for step in 0..steps {
            body.step(Strain::NONE);
            waves.step(&body, |_| is_on(step), |_, block| sent.push(block));
        }
        sent.into_iter().filter(|block| block.name == name).collect()
    }

    #[test]
    fn a_minute_has_the_samples_that_the_rate_promises_and_a_peak_a_beat() {
        for (name, hz, beats) in [("ecg", 250_u32, 70..75), ("pleth", 100, 70..75), ("resp", 50, 14..17)] {
            let blocks = blocks(name, 600, |_| true);
            assert!(blocks.iter().all(|block| block.hz == hz && !block.after_gap), "{name}");
            let samples: Vec<i32> = blocks.into_iter().flat_map(|block| block.samples).collect();
            assert_eq!(samples.len(), usize::try_from(hz).unwrap() * 60, "{name}");
            let (least, most) = (*samples.iter().min().unwrap(), *samples.iter().max().unwrap());
            let middle = i32::midpoint(least, most);
            let rises = samples.windows(2).filter(|pair| pair[0] < middle && pair[1] >= middle).count();
            assert!(beats.contains(&rises), "{name}: {rises}");
        }
    }

    #[test]
    fn an_instrument_that_is_off_sends_nothing_and_says_so_in_its_next_block() {
        // Off from the middle of a block on.
        let blocks = blocks("ecg", 60, |step| !(21..40).contains(&step));
        let lengths: Vec<(usize, bool)> = blocks.iter().map(|block| (block.samples.len(), block.after_gap)).collect();
        assert_eq!(lengths.iter().map(|(samples, _)| samples).sum::<usize>(), 41 * 25);
        assert_eq!(lengths[9..12], [(50, false), (25, false), (50, true)]);
        assert_eq!(lengths.iter().filter(|(_, after_gap)| *after_gap).count(), 1);
    }
}
