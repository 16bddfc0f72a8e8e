//! Watches the clock: finds steps by comparing it with the time since boot, and follows what is known of it. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::{ClockEpoch, ClockState, EARLIEST, Timeline, drift_ms, offset_ms};
use crate::clock::{Mono, Stamp};
use crate::ids::Seq;
use crate::named::named_enum;

/// Time of day and time since boot that part by more than this, in ms, were parted by a step. Less is drift.
pub(super) const STEP_MS: i64 = 250;

/// A clock that a time server has set is taken to be right within this, in ms: nobody tells more without a system call that
/// a hardened service may not make.
const SYNCHRONISED_MS: u32 = 100;

/// A growth of the uncertainty is told once it is at least this, in ms, and half of what was told before.
const GROWTH_MS: u32 = 100;

named_enum! {
    /// Who is believed about the clock.
    Trust {
        /// A time server, as the operating system tells.
        Synchronised = "synchronised",
        /// The operating system's clock, whatever it tells: something that it does not know of sets it.
        System = "system",
    }
}

/// What the operating system tells of the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Whether a time server has set it; `None`: nobody can tell.
    pub synchronised: Option<bool>,
    /// It was set at boot from a clock with a battery, which still says the same.
    pub has_hardware_clock: bool,
}

/// What happened to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was set forward or back by so many ms, and a time server has not confirmed it (yet).
    Stepped(i64),
    /// More or less is known of it.
    Told,
    /// Only the uncertainty of the epoch has grown.
    Drifted,
}

/// A clock epoch has begun, or is known less exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockNews {
    /// The epoch, without its number, which whoever numbers events gives it.
    pub epoch: ClockEpoch,
    /// What happened.
    pub what: What,
}

/// The machine.
#[derive(Debug)]
pub struct ClockWatch {
    trust: Trust,
    current: ClockEpoch,
    looked: Looked,
    /// When a time server was last known to set the clock.
    confirmed: Mono,
    /// The largest distance from the epoch's offset that was seen, in ms.
    deviation_ms: u32,
}

impl ClockWatch {
    /// Begins the first epoch of a run. `timeline`: what earlier runs left.
    pub fn begin(boot: &str, trust: Trust, looked: Looked, timeline: &Timeline, now: Stamp) -> Self {
        let offset = offset_ms(now);
        let before = timeline.settled_in(boot);
        let kept = before.filter(|before| before.offset_ms.saturating_sub(offset).saturating_abs() <= STEP_MS);
        let epoch = ClockEpoch {
            first: Seq::ZERO,
            boot: Arc::from(boot),
            since: now.mono,
            offset_ms: offset,
            uncertainty_ms: None,
            state: ClockState::Unknown,
        };
        let confirmed = kept.map_or(now.mono, |before| before.since);
        let mut watch = Self { trust, current: epoch, looked, confirmed, deviation_ms: 0 };
        watch.current.state = watch.state(kept.is_some(), now);
        watch.current.uncertainty_ms = watch.uncertainty(now);
        watch
    }

    /// The epoch of now.
    pub const fn epoch(&self) -> &ClockEpoch {
        &self.current
    }

    /// A second has passed. A step begins an epoch; whether the time that it brought is right, only a look can tell.
    pub fn on_second(&mut self, now: Stamp) -> Option<ClockNews> {
        let by = self.parted_by(now);
        if let Some(news) = self.step(by, now) {
            return Some(news);
        }
        self.deviation_ms = self.deviation_ms.max(u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX));
        let uncertainty = self.uncertainty(now)?;
        let told = self.current.uncertainty_ms?;
        if uncertainty < told.saturating_add(GROWTH_MS.max(told / 2)) {
            return None;
        }
        self.current.uncertainty_ms = Some(uncertainty);
        Some(self.news(What::Drifted))
    }

    /// The operating system was asked. An answer that finds a step may be older than it: it counts for nothing, and has to
    /// be asked for again.
    pub fn on_look(&mut self, looked: Looked, now: Stamp) -> Option<ClockNews> {
        if let Some(news) = self.step(self.parted_by(now), now) {
            return Some(news);
        }
        self.looked = looked;
        if looked.synchronised == Some(true) {
            self.confirmed = now.mono;
        }
        let state = self.state(self.current.state.is_settled(), now);
        if state == self.current.state {
            return None;
        }
        self.begin_epoch(offset_ms(now), now);
        self.current.state = state;
        self.current.uncertainty_ms = self.uncertainty(now);
        Some(self.news(What::Told))
    }

    /// How far the clock went from the epoch's offset, in ms.
    fn parted_by(&self, now: Stamp) -> i64 {
        offset_ms(now).saturating_sub(self.current.offset_ms)
    }

    /// Begins an epoch where the clocks were parted by a step.
    fn step(&mut self, by: i64, now: Stamp) -> Option<ClockNews> {
        if by.saturating_abs() <= STEP_MS {
            return None;
        }
        self.begin_epoch(offset_ms(now), now);
        // What nobody confirms any more is not confirmed for a time that somebody else has set: the next look tells.
        self.looked.synchronised = self.looked.synchronised.filter(|is_synchronised| !is_synchronised);
        self.current.state = self.state(false, now);
        self.current.uncertainty_ms = self.uncertainty(now);
        Some(self.news(What::Stepped(by)))
    }

    fn begin_epoch(&mut self, offset_ms: i64, now: Stamp) {
        (self.current.since, self.current.offset_ms, self.deviation_ms) = (now.mono, offset_ms, 0);
    }

    fn news(&self, what: What) -> ClockNews {
        ClockNews { epoch: self.current.clone(), what }
    }

    /// What is known. A clock that a time server has set once in this boot goes on being right when the server is lost: only
    /// its uncertainty grows.
    fn state(&self, was_settled: bool, now: Stamp) -> ClockState {
        if now.wall < EARLIEST {
            return ClockState::Unsynchronised;
        }
        match (self.trust, self.looked.synchronised) {
            (Trust::System, _) => ClockState::Trusted,
            (_, Some(true)) => ClockState::Synchronised,
            _ if was_settled => ClockState::Synchronised,
            _ if self.looked.has_hardware_clock => ClockState::Hardware,
            (_, Some(false)) => ClockState::Unsynchronised,
            (_, None) => ClockState::Unknown,
        }
    }

    fn uncertainty(&self, now: Stamp) -> Option<u32> {
        let alone = match self.current.state {
            ClockState::Synchronised => now.mono.since(self.confirmed),
            ClockState::Trusted => Duration::ZERO,
            ClockState::Hardware | ClockState::Unsynchronised | ClockState::Unknown => return None,
        };
        Some(SYNCHRONISED_MS.saturating_add(self.deviation_ms).saturating_add(drift_ms(alone)))
    }
}
