//! Clock epochs: which time of day each stored moment was, by what is known of the clock now. Pure.
//!
//! A machine without a clock battery starts with a wrong time of day and is set by a time server later. A clock epoch is a
//! span in which time of day and time since boot went together. What was stored in an epoch whose clock nobody had set is
//! dated by the first later epoch of the same boot whose clock was set: when it is read, and never by writing it again.

mod rebase;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Stamp, Wall};
use crate::ids::Seq;
use crate::named::named_enum;

pub use self::watch::{ClockNews, ClockWatch, Looked, Trust, What};

/// Most clock epochs that are kept. Of more the oldest go; what was stored in them keeps the time it was stored with.
pub const MAX_EPOCHS: usize = 4096;

/// A clock that says an earlier time has not been set: this program did not exist then (2026-01-01).
pub const EARLIEST: Wall = Wall(1_767_225_600_000);

/// How far an oscillator of a small computer runs off in a second, in nanoseconds: 100 ppm is three times what is usual.
const DRIFT_NS_A_SECOND: u128 = 100_000;

named_enum! {
    /// What is known of the clock.
    ClockState {
        /// A time server has set it.
        Synchronised = "synchronised",
        /// Whoever configured the bridge says that it is right.
        Trusted = "trusted",
        /// It was set from a clock with a battery, and no time server has confirmed it.
        Hardware = "hardware",
        /// Nobody has set it since boot.
        Unsynchronised = "unsynchronised",
        /// Nobody can tell.
        Unknown = "unknown",
    }
}

impl ClockState {
    /// True if the time of day counts as right.
    pub const fn is_settled(self) -> bool {
        matches!(self, Self::Synchronised | Self::Trusted)
    }

    /// As messages tell it: `None` where nobody can tell.
    pub const fn synced(self) -> Option<bool> {
        match self {
            Self::Synchronised | Self::Trusted => Some(true),
            Self::Hardware | Self::Unsynchronised => Some(false),
            Self::Unknown => None,
        }
    }
}

/// A span of one boot in which time of day was time since boot and `offset_ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockEpoch {
    /// The number of the first event in it; it lasts until the next one begins.
    pub first: Seq,
    /// The boot of the machine.
    pub boot: Arc<str>,
    /// When it began.
    pub since: Mono,
    /// Time of day less time since boot, in ms.
    pub offset_ms: i64,
    /// How far its time of day may be off, in ms; `None`: nobody knows.
    pub uncertainty_ms: Option<u32>,
    /// What is known of the clock in it.
    pub state: ClockState,
}

impl ClockEpoch {
    /// The time of day at `mono` if it had always been as in this epoch.
    pub fn wall(&self, mono: Mono) -> Wall {
        Wall(self.offset_ms.saturating_add(millis(mono)))
    }
}

/// Time of day less time since boot, in ms.
pub fn offset_ms(at: Stamp) -> i64 {
    at.wall.0.saturating_sub(millis(at.mono))
}

fn millis(mono: Mono) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX)
}

/// How far a clock may have run off in this time, in ms, rounded up.
pub fn drift_ms(span: Duration) -> u32 {
    let drift_ns = span.as_nanos().saturating_mul(DRIFT_NS_A_SECOND) / 1_000_000_000;
    u32::try_from(drift_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// Where a stored moment lies by what is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The time of day.
    pub wall: Wall,
    /// What is known of the clock that says so.
    pub state: ClockState,
    /// How far it may be off, in ms; `None`: nobody knows.
    pub uncertainty_ms: Option<u32>,
    /// The clock was not set when it was stored, and was later.
    pub is_rebased: bool,
}

/// Numbers whose stored time of day does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    /// The first number.
    pub first: Seq,
    /// The last number.
    pub last: Seq,
    /// Their time of day less their time since boot, in ms.
    pub offset_ms: i64,
    /// The same as they were stored, about.
    pub stored_offset_ms: i64,
}

/// The clock epochs of all runs in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// By their first number, which no two share.
    epochs: Vec<ClockEpoch>,
    /// For each epoch the place of the one by which it is dated.
    dated_by: Vec<usize>,
}

impl Timeline {
    /// The epochs in any order. Of two with one first number the later in the list counts.
    pub fn new(epochs: Vec<ClockEpoch>) -> Self {
        let mut timeline = Self::default();
        for epoch in epochs {
            timeline.insert(epoch);
        }
        timeline.date();
        timeline
    }

    /// Adds an epoch. No event belongs to one of the same number, whose place it takes.
    pub fn add(&mut self, epoch: ClockEpoch) {
        self.insert(epoch);
        self.date();
    }

    fn insert(&mut self, epoch: ClockEpoch) {
        match self.epochs.binary_search_by_key(&epoch.first, |known| known.first) {
            Ok(place) => {
                if let Some(known) = self.epochs.get_mut(place) {
                    *known = epoch;
                }
            }
            Err(place) => self.epochs.insert(place, epoch),
        }
        let too_many = self.epochs.len().saturating_sub(MAX_EPOCHS);
        self.epochs.drain(..too_many);
    }

    /// Finds by which epoch each is dated, from the newest to the oldest.
    fn date(&mut self) {
        let mut settled: Option<(usize, &ClockEpoch)> = None;
        let mut dated_by: Vec<usize> = Vec::with_capacity(self.epochs.len());
        for (place, epoch) in self.epochs.iter().enumerate().rev() {
            if settled.is_some_and(|(_, anchor)| anchor.boot != epoch.boot) {
                settled = None;
            }
            if epoch.state.is_settled() {
                settled = Some((place, epoch));
            }
            dated_by.push(settled.map_or(place, |(anchor, _)| anchor));
        }
        dated_by.reverse();
        self.dated_by = dated_by;
    }

    /// The epoch of now.
    pub fn current(&self) -> Option<&ClockEpoch> {
        self.epochs.last()
    }

    /// The epoch of an event, and the one by which it is dated.
    fn at(&self, seq: Seq) -> Option<(&ClockEpoch, &ClockEpoch)> {
        let place = self.epochs.partition_point(|epoch| epoch.first <= seq).checked_sub(1)?;
        Some((self.epochs.get(place)?, self.epochs.get(*self.dated_by.get(place)?)?))
    }

    /// Where a moment lies that was stored as `at`. `None`: it is older than what is known of clocks.
    pub fn placed(&self, seq: Seq, at: Stamp) -> Option<Placed> {
        let (own, anchor) = self.at(seq)?;
        let state = anchor.state;
        if own.first == anchor.first {
            let uncertainty_ms = own.uncertainty_ms.filter(|_| state.is_settled());
            return Some(Placed { wall: at.wall, state, uncertainty_ms, is_rebased: false });
        }
        let drift = drift_ms(anchor.since.since(at.mono));
        let uncertainty_ms = anchor.uncertainty_ms.map(|ms| ms.saturating_add(drift));
        Some(Placed { wall: anchor.wall(at.mono), state, uncertainty_ms, is_rebased: true })
    }

    /// The numbers whose stored time of day does not hold any more, oldest first.
    pub fn corrections(&self) -> Vec<Correction> {
        let ends = self.epochs.iter().skip(1).map(|next| Seq(next.first.0.saturating_sub(1))).chain([Seq(u64::MAX)]);
        let with_ends = self.epochs.iter().zip(ends).enumerate();
        let corrected = with_ends.filter_map(|(place, (own, last))| {
            let anchor = self.dated_by.get(place).filter(|dated_by| **dated_by != place)?;
            let offset_ms = self.epochs.get(*anchor)?.offset_ms;
            Some(Correction { first: own.first, last, offset_ms, stored_offset_ms: own.offset_ms })
        });
        corrected.collect()
    }

    /// The first event of this boot if nobody has set the clock in it, and no clock with a battery did: from there on it is
    /// worth while to wait for a time server.
    pub fn unset_from(&self) -> Option<Seq> {
        let now = self.current()?;
        let of_boot = || self.epochs.iter().rev().take_while(|epoch| epoch.boot == now.boot);
        let is_unset = |epoch: &ClockEpoch| matches!(epoch.state, ClockState::Unsynchronised | ClockState::Unknown);
        if of_boot().any(|epoch| epoch.state.is_settled()) || !is_unset(now) {
            return None;
        }
        of_boot().last().map(|epoch| epoch.first)
    }

    /// The newest epoch of this boot in which the clock was set.
    pub fn settled_in(&self, boot: &str) -> Option<&ClockEpoch> {
        self.epochs.iter().rev().find(|epoch| &*epoch.boot == boot && epoch.state.is_settled())
    }

    /// All epochs, oldest first.
    pub fn epochs(&self) -> &[ClockEpoch] {
        &self.epochs
    }
}

#[cfg(test)]
mod tests;
