//! How long to wait before trying again: exponential, with full jitter from a seed.

use std::time::Duration;

/// Doubling delays between a shortest and a longest one.
///
/// Full jitter: each delay is uniform between zero and the current ceiling, so that many bridges that lost the same
/// broker do not return at once. The shortest delay is kept as a floor so that a retry is never a busy loop.
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    attempts: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Delays grow from `shortest` to `longest`; `seed` fixes the jitter.
    pub fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        Self { shortest, longest, attempts: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.shortest.saturating_mul(1_u32 << self.attempts.min(20)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(self.random.f64()).max(self.shortest)
    }

    /// Starts again at the shortest delay, after a success.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How many delays were handed out since the last reset.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_between_the_bounds_and_reach_both_ends() {
        let (shortest, longest) = (Duration::from_millis(500), Duration::from_secs(10));
        let mut backoff = Backoff::new(shortest, longest, 7);
        let delays: Vec<_> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().all(|delay| (shortest..=longest).contains(delay)), "{delays:?}");
        assert!(delays.iter().max() > Some(&Duration::from_secs(9)));
        backoff.reset();
        assert_eq!(backoff.next_delay(), shortest);
    }
}
