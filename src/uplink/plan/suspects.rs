//! Publications that may be why the broker ends connections: each goes alone until it is taken or found out. Pure.
//!
//! Connections end for many reasons: bad radio, a broker without memory, two clients with one name. So what is suspected is
//! found guilty only if it was alone under way when the broker ended the connection, several times, each time at another age
//! of the connection, and if the broker took something else in between. No lifetime of connections, however regular, and no
//! broker that takes nothing at all looks like that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Mono;

/// A suspect goes this long after the connection was made for each connection that it has ended, and has to end it within
/// this time.
const STEP: Duration = Duration::from_secs(6);

/// Others wait no longer for the answer to what goes alone.
pub(in crate::uplink) const ALONE_FOR: Duration = Duration::from_secs(2);

/// So many connections are enough.
pub(in crate::uplink) const MAX_ENDS: u8 = 3;

#[derive(Debug, Default)]
struct Suspect {
    /// Connections that ended while it was alone under way.
    ends: u8,
    /// What the broker had taken then.
    taken: u64,
}

/// What is suspected, by its name.
#[derive(Debug)]
pub(in crate::uplink) struct Suspects<K>(BTreeMap<K, Suspect>);

impl<K: Ord> Suspects<K> {
    pub(in crate::uplink) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(in crate::uplink) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::uplink) fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    pub(in crate::uplink) fn add(&mut self, key: K) {
        self.0.entry(key).or_default();
    }

    /// It was taken, or goes in another form, or not at all.
    pub(in crate::uplink) fn acquit(&mut self, key: &K) {
        self.0.remove(key);
    }

    /// It may be tried now, on a connection that stands since `since`; so much the broker has `taken` in all.
    pub(in crate::uplink) fn may_go(&self, key: &K, since: Mono, taken: u64, now: Mono) -> bool {
        self.0.get(key).is_some_and(|suspect| {
            now >= since + STEP.saturating_mul(suspect.ends.into()) && (suspect.ends == 0 || suspect.taken < taken)
        })
    }

    /// The broker has ended the connection while it was alone under way since `sent`. Gives how often it has done so.
    pub(in crate::uplink) fn ended(&mut self, key: K, sent: Mono, taken: u64, now: Mono) -> u8 {
        let suspect = self.0.entry(key).or_default();
        if now.since(sent) < STEP {
            suspect.ends = suspect.ends.saturating_add(1);
            suspect.taken = taken;
        }
        suspect.ends
    }

    /// When one may go on a connection that stands since `since`.
    pub(in crate::uplink) fn times(&self, since: Mono) -> impl Iterator<Item = Mono> {
        self.0.values().map(move |suspect| since + STEP.saturating_mul(suspect.ends.into()))
    }
}
