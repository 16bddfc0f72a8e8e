//! How often somebody may ask: one allowance for all connections of a user, and one for the small talk of a connection.
//! Pure but for a lock.
//!
//! An allowance is a bucket that loses a drop at a steady rate and takes no drop while it is full (GCRA): its whole state
//! is the moment at which it will be empty.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Mono;

/// Users whose allowance is remembered. It is forgotten once it is whole again; one more user than that takes the place of
/// the one whose is whole soonest.
pub const MAX_USERS: usize = 4096;

/// How many at once, and how many for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// As many may come at once.
    burst: u32,
    /// One more may come after this time.
    every: Duration,
}

impl Allowance {
    /// So many in this span for ever, so many of them at once.
    pub fn new(count: u32, span: Duration, burst: u32) -> Self {
        Self { burst, every: span.checked_div(count).unwrap_or(span) }
    }

    /// As many may come at once.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// As many may come in this span for ever.
    pub fn per(self, span: Duration) -> u32 {
        let count = span.as_nanos().checked_div(self.every.as_nanos()).unwrap_or(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Messages and commands of a user, over all his connections and HTTP, unless configured: 100 a minute, 50 at once.
pub const MESSAGES: Allowance = Allowance { burst: 50, every: Duration::from_millis(600) };

/// Reads over HTTP of a user, exports among them, unless configured: 1200 a minute, 400 at once. A page with the trends of a
/// whole ward asks for some hundreds when it is opened.
pub const READS: Allowance = Allowance { burst: 400, every: Duration::from_millis(50) };

/// What a client has to say often, control frames, and everything before the sign-in,
/// unless configured: 50 a second and connection.
pub const SMALL_TALK: Allowance = Allowance { burst: 50, every: Duration::from_millis(20) };

/// Fetches of an issuer's keys because a token names one that is not known: two at once, then one in half a minute.
pub const REFETCHES: Allowance = Allowance { burst: 2, every: Duration::from_secs(30) };

/// Rows of the audit trail about connections that stand alone, of one user, action and address: 60 at once, then 6 a minute.
pub const ROWS: Allowance = Allowance { burst: 60, every: Duration::from_secs(10) };

/// The same for what is refused: ten at once, then one a minute.
pub const REFUSED_ROWS: Allowance = Allowance { burst: 10, every: Duration::from_mins(1) };

/// Users and addresses whose refused rows are counted on their own: 100 at once, then 10 a minute.
pub const ALL_REFUSED_ROWS: Allowance = Allowance { burst: 100, every: Duration::from_secs(6) };

/// What is left of an allowance.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    empty_at: Mono,
}

impl Bucket {
    /// True if nothing has been taken lately.
    pub fn is_whole(&self, now: Mono) -> bool {
        self.empty_at <= now
    }

    /// Takes one.
    ///
    /// # Errors
    /// Nothing is left; one more may come after this time.
    pub fn take(&mut self, allowance: Allowance, now: Mono) -> Result<(), Duration> {
        let full = now + allowance.every.saturating_mul(allowance.burst.saturating_sub(1));
        let wait = self.empty_at.since(full);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.empty_at = self.empty_at.max(now) + allowance.every;
        Ok(())
    }
}

/// What is left of what each user may say, and may read.
#[derive(Debug)]
pub struct Users {
    messages: Buckets,
    reads: Buckets,
}

impl Default for Users {
    fn default() -> Self {
        Self::new(MESSAGES, READS)
    }
}

impl Users {
    /// Each user has this much.
    pub const fn new(messages: Allowance, reads: Allowance) -> Self {
        Self { messages: Buckets::new(messages), reads: Buckets::new(reads) }
    }

    /// Takes one message of a user.
    ///
    /// # Errors
    /// Nothing is left; one more may come after this time.
    pub fn take(&self, user: &str, now: Mono) -> Result<(), Duration> {
        self.messages.take(user, now)
    }

    /// Takes one read of a user over HTTP.
    ///
    /// # Errors
    /// As [`Users::take`].
    pub fn take_read(&self, user: &str, now: Mono) -> Result<(), Duration> {
        self.reads.take(user, now)
    }
}

/// What is left of one allowance of each user.
#[derive(Debug)]
struct Buckets {
    allowance: Allowance,
    /// At most [`MAX_USERS`]. Held for a look-up, never across an `.await`.
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

impl Buckets {
    const fn new(allowance: Allowance) -> Self {
        Self { allowance, buckets: Mutex::new(BTreeMap::new()) }
    }

    fn take(&self, user: &str, now: Mono) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(user) {
            return bucket.take(self.allowance, now);
        }
        if buckets.len() >= MAX_USERS {
            buckets.retain(|_, bucket| bucket.empty_at > now);
        }
        if buckets.len() >= MAX_USERS
            && let Some(soonest) =
                buckets.iter().min_by_key(|(_, bucket)| bucket.empty_at).map(|(user, _)| user.clone())
        {
            buckets.remove(&soonest);
        }
        buckets.entry(user.to_owned()).or_default().take(self.allowance, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_user_has_fifty_at_once_and_then_a_hundred_a_minute() {
        let users = Users::default();
        let taken = |user, millis| (0..1000).take_while(|_| users.take(user, at(millis)).is_ok()).count();
        assert_eq!(taken("lena", 0), 50);
        assert_eq!(users.take("lena", at(0)), Err(Duration::from_millis(600)));
        assert_eq!(users.take("lena", at(599)), Err(Duration::from_millis(1)));
        assert_eq!(taken("otto", 0), 50, "each has his own");
        assert_eq!((taken("lena", 600), taken("lena", 1199), taken("lena", 1200)), (1, 0, 1));
        let minute: usize = (0..600).map(|tenth| taken("lena", 1300 + tenth * 100)).sum();
        assert_eq!(minute, 100);
        assert_eq!(taken("lena", 1_000_000), 50, "it does not grow beyond its size");
        let read = (0..1000).take_while(|_| users.take_read("lena", at(1_000_000)).is_ok()).count();
        assert_eq!(read, 400, "what is read is counted by itself");
    }

    #[test]
    fn the_users_that_are_remembered_are_bounded_and_who_floods_is_not_forgotten_first() {
        let users = Users::default();
        while users.take("flood", at(0)).is_ok() {}
        for number in 0..3 * MAX_USERS {
            users.take(&number.to_string(), at(0)).unwrap();
        }
        assert_eq!(users.messages.buckets.lock().unwrap().len(), MAX_USERS);
        users.take("flood", at(0)).unwrap_err();
        users.take("late", at(600)).unwrap();
        assert_eq!(users.messages.buckets.lock().unwrap().len(), 2, "whose allowance is whole needs no memory");
    }
}
