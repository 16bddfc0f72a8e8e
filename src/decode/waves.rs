//! Puts single samples together into blocks of a quarter of a second.

use std::sync::Arc;

use super::Decoded;
use crate::profile::WaveInfo;

/// Length of a block, in seconds.
const BLOCK_SECONDS: f64 = 0.25;
/// Most samples of a block, whatever its rate.
const MAX_BLOCK: usize = 4096;

/// Consecutive samples of one wave.
#[derive(Debug, Clone, PartialEq)]
pub struct WaveSamples {
    /// The wave's name.
    pub name: Arc<str>,
    /// Samples a second, nominally.
    pub hz: f64,
    /// The number that is zero signal.
    pub baseline: i32,
    /// The samples, oldest first, as the device's converter gives them.
    pub samples: Vec<i32>,
    /// How many of them are at an end of the converter's range.
    pub saturated: usize,
    /// True if samples were lost before the first of these.
    pub after_gap: bool,
}

/// The block of one wave that is being filled.
#[derive(Debug)]
pub(super) struct Block {
    info: WaveInfo,
    /// Always with room for a full block.
    samples: Vec<i32>,
    full: usize,
    saturated: usize,
    after_gap: bool,
}

impl Block {
    pub(super) fn new(info: &WaveInfo) -> Self {
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "hz is above 0 and at most 10000: the profile was checked"
        )]
        let full = ((info.hz * BLOCK_SECONDS) as usize).clamp(1, MAX_BLOCK);
        Self { info: info.clone(), samples: Vec::with_capacity(full), full, saturated: 0, after_gap: false }
    }

    /// Adds a sample, and hands the block over to `out` if it is full now.
    #[inline]
    pub(super) fn push(&mut self, sample: i32, out: &mut Vec<Decoded>) {
        self.samples.push(sample);
        if let Some((low, high)) = self.info.saturated {
            self.saturated += usize::from(sample <= low || sample >= high);
        }
        if self.samples.len() >= self.full {
            self.hand_over(out);
        }
    }

    /// The one allocation: the samples of a block belong to whoever gets it.
    #[inline(never)]
    fn hand_over(&mut self, out: &mut Vec<Decoded>) {
        out.extend(self.take().map(Decoded::Wave));
    }

    /// What is there, though the block is not full.
    pub(super) fn take(&mut self) -> Option<WaveSamples> {
        if self.samples.is_empty() {
            return None;
        }
        Some(WaveSamples {
            name: Arc::clone(&self.info.name),
            hz: self.info.hz,
            baseline: self.info.baseline,
            samples: std::mem::replace(&mut self.samples, Vec::with_capacity(self.full)),
            saturated: std::mem::take(&mut self.saturated),
            after_gap: std::mem::take(&mut self.after_gap),
        })
    }

    /// Samples were lost: what is there is handed over, and the next block says so.
    pub(super) fn gap(&mut self) -> Option<WaveSamples> {
        let before = self.take();
        self.after_gap = true;
        before
    }

    /// Forgets everything, for a link that is opened again.
    pub(super) fn reset(&mut self) {
        self.samples.clear();
        self.saturated = 0;
        self.after_gap = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_quarter_of_a_second_and_tell_gaps_and_saturation() {
        let info = WaveInfo { name: Arc::from("ecg_I"), hz: 12.0, baseline: 128, saturated: Some((0, 250)) };
        let mut block = Block::new(&info);
        let mut out = Vec::new();
        block.push(128, &mut out);
        block.push(250, &mut out);
        assert!(out.is_empty());
        block.push(0, &mut out);
        let [Decoded::Wave(full)] = out.as_slice() else { panic!("{out:?}") };
        let full = full.clone();
        assert_eq!((full.samples, full.saturated, full.after_gap), (vec![128, 250, 0], 2, false));
        block.push(7, &mut out);
        assert_eq!(block.gap().unwrap().samples, [7]);
        assert!(block.gap().is_none());
        block.push(8, &mut out);
        let after = block.take().unwrap();
        assert_eq!((after.samples, after.saturated, after.after_gap), (vec![8], 0, true));
    }
}
