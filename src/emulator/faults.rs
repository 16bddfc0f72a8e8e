//! Damages what a device sends, by a seed: lost, changed, doubled and strange bytes, and writes in pieces.

use fastrand::Rng;

/// How often something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Once, at a random place, in so many bytes or frames; or by chance at each of them.
    pub rate: Rate,
    /// So many times at most.
    pub times: Option<u64>,
}

/// See [`Spread::rate`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Once in so many.
    Every(u64),
    /// With this probability, 0 to 1.
    Probability(f64),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct FaultCounts {
    /// Bytes that were left out.
    pub dropped_bytes: u64,
    /// Bytes with a changed bit.
    pub flipped_bytes: u64,
    /// Frames that were sent twice.
    pub duplicated_frames: u64,
    /// Bytes that no device has sent.
    pub garbage_bytes: u64,
}

/// One kind of fault at work.
#[derive(Debug, Clone)]
struct Running {
    spread: Spread,
    /// How many have passed in this block, and at which of them it happens.
    passed: u64,
    happens_at: u64,
    done: u64,
}

impl Running {
    fn new(spread: Spread, random: &mut Rng) -> Self {
        let mut running = Self { spread, passed: 0, happens_at: 0, done: 0 };
        running.draw(random);
        running
    }

    fn draw(&mut self, random: &mut Rng) {
        if let Rate::Every(every) = self.spread.rate {
            self.happens_at = random.u64(0..every.max(1));
        }
    }

    /// True if it happens to the next one.
    fn happens(&mut self, random: &mut Rng) -> bool {
        let happens = match self.spread.rate {
            Rate::Every(every) => {
                let happens = self.passed == self.happens_at;
                self.passed += 1;
                if self.passed >= every {
                    self.passed = 0;
                    self.draw(random);
                }
                happens
            }
            Rate::Probability(probability) => random.f64() < probability,
        };
        let counts = happens && self.spread.times.is_none_or(|times| self.done < times);
        self.done += u64::from(counts);
        counts
    }
}

/// The faults of a line.
#[derive(Debug, Clone)]
pub struct Faults {
    random: Rng,
    drop: Option<Running>,
    flip: Option<Running>,
    duplicate: Option<Running>,
    /// The end of each write comes later.
    pub splits_writes: bool,
    counts: FaultCounts,
}

impl Faults {
    /// A line without faults. The same seed gives the same faults.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            drop: None,
            flip: None,
            duplicate: None,
            splits_writes: false,
            counts: FaultCounts::default(),
        }
    }

    /// Leaves bytes out.
    pub fn drop_bytes(&mut self, spread: Spread) {
        self.drop = Some(Running::new(spread, &mut self.random));
    }

    /// Changes one bit of bytes.
    pub fn flip_bits(&mut self, spread: Spread) {
        self.flip = Some(Running::new(spread, &mut self.random));
    }

    /// Sends frames twice.
    pub fn duplicate(&mut self, spread: Spread) {
        self.duplicate = Some(Running::new(spread, &mut self.random));
    }

    /// The line is as good as new.
    pub fn end(&mut self) {
        (self.drop, self.flip, self.duplicate, self.splits_writes) = (None, None, None, false);
    }

    /// What was done so far.
    pub const fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// A frame as it arrives.
    pub fn damage(&mut self, frame: &[u8]) -> Vec<u8> {
        let is_double = self.duplicate.as_mut().is_some_and(|running| running.happens(&mut self.random));
        self.counts.duplicated_frames += u64::from(is_double);
        let mut arrived = Vec::with_capacity(frame.len() * 2);
        for byte in frame.repeat(1 + usize::from(is_double)) {
            if self.drop.as_mut().is_some_and(|running| running.happens(&mut self.random)) {
                self.counts.dropped_bytes += 1;
                continue;
            }
            let is_flipped = self.flip.as_mut().is_some_and(|running| running.happens(&mut self.random));
            self.counts.flipped_bytes += u64::from(is_flipped);
            arrived.push(if is_flipped { byte ^ 1 << self.random.u8(0..8) } else { byte });
        }
        arrived
    }

    /// So many bytes that mean nothing.
    pub fn garbage(&mut self, count: usize) -> Vec<u8> {
        self.counts.garbage_bytes += u64::try_from(count).unwrap_or(0);
        std::iter::repeat_with(|| self.random.u8(..)).take(count).collect()
    }

    /// Where a write of so many bytes is cut; its end comes later.
    pub fn cut(&mut self, length: usize) -> usize {
        if self.splits_writes && length > 1 { self.random.usize(1..length) } else { length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(every: u64, times: Option<u64>) -> Spread {
        Spread { rate: Rate::Every(every), times }
    }

    #[test]
    fn a_fault_happens_once_a_block_and_only_as_often_as_said() {
        let mut faults = Faults::new(1);
        assert_eq!(faults.damage(&[7; 100]), [7; 100]);
        faults.drop_bytes(every(10, Some(3)));
        assert_eq!(faults.damage(&[7; 100]).len(), 97);
        assert_eq!(faults.counts().dropped_bytes, 3);
        faults.end();
        faults.flip_bits(every(10, None));
        let arrived = faults.damage(&[0; 100]);
        for block in arrived.chunks(10) {
            let flipped: Vec<&u8> = block.iter().filter(|byte| **byte != 0).collect();
            assert!(flipped.len() == 1 && flipped[0].is_power_of_two(), "{block:?}");
        }
        faults.end();
        faults.duplicate(every(1, None));
        assert_eq!(faults.damage(&[1, 2]), [1, 2, 1, 2]);
        assert_eq!(faults.counts().duplicated_frames, 1);
        faults.end();
        faults.drop_bytes(Spread { rate: Rate::Probability(1.0), times: None });
        assert!(faults.damage(&[1, 2]).is_empty());
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_seed_others() {
        let run = |seed| {
            let mut faults = Faults::new(seed);
            faults.flip_bits(Spread { rate: Rate::Probability(0.1), times: None });
            faults.damage(&[0; 500])
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}
