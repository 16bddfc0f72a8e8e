//! One sensor as the connection policy sees it: where its link stands, when it may be tried again, and what is overdue.

use std::collections::VecDeque;
use std::time::Duration;

use super::words::{BleLimits, FailureKind, Rung, SensorPhase, SensorState, WantedSensor};
use crate::backoff::Backoff;
use crate::bluez::BleAddress;
use crate::clock::{Mono, Stamp};

/// Attempts are counted over this time.
pub(super) const ATTEMPT_WINDOW: Duration = Duration::from_mins(1);

/// What is done once a link has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// Nothing but trying again.
    Nothing,
    /// BlueZ forgets the device.
    Remove,
    /// The adapter is switched off and on.
    PowerCycle,
    /// A new generation.
    Renew,
}

/// Where the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// There is none.
    Idle,
    /// `Connect` is under way; `resolving` since the link stands.
    Connecting { since: Mono, resolving: Option<Mono> },
    /// The services are known; the sensor is given time before it is subscribed to.
    Settling { since: Mono },
    /// The subscription is being made.
    Subscribing { since: Mono },
    /// Subscribed. `quiet`: since when nothing readable has come.
    Open { quiet: Mono },
    /// Nothing came for too long; the battery is being read.
    Checking { since: Mono },
    /// The link is being ended.
    Ending { since: Mono, then: Cure },
    /// BlueZ is being made to forget the device.
    Removing { since: Mono },
}

/// What a link has carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// Nothing readable.
    Nothing,
    /// Data.
    Data,
    /// Data, for so long that it is a good link.
    Stable,
}

/// What is overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// `Connect` as a whole.
    Connect,
    /// The services of a link that stands.
    Resolve,
    /// Nothing: the sensor may be subscribed to now.
    Settle,
    /// The subscription.
    Subscribe,
    /// Data.
    Data,
    /// The answer of the battery.
    Check,
    /// The end of the link.
    Disconnect,
    /// BlueZ's forgetting.
    Remove,
    /// A first sighting.
    Sighting,
    /// Nothing: the link has stood long enough to be called a good one.
    Stable,
}

/// One sensor.
#[derive(Debug)]
pub(super) struct Sensor {
    pub(super) wanted: WantedSensor,
    pub(super) link: Link,
    pub(super) address: Option<BleAddress>,
    pub(super) bonded: bool,
    /// When it was last heard advertising, while that counts.
    pub(super) heard: Option<Mono>,
    pub(super) last_seen: Option<Stamp>,
    pub(super) rssi: Option<i16>,
    pub(super) battery: Option<u8>,
    pub(super) attempts: u64,
    pub(super) last_attempt: Option<Mono>,
    pub(super) failures: u32,
    /// Visits in a row over which the sensor refused what was wanted of it: no fault of the radio, and no cure for it.
    refused: u32,
    /// Visits in a row that brought nothing new.
    empty_visits: u32,
    /// This link has brought something new.
    has_brought: bool,
    /// When it last was near for certain.
    near: Option<Mono>,
    /// The last step of the ladder since it delivered.
    pub(super) tried: Option<Rung>,
    /// Failures in a row to resolve the services.
    pub(super) unresolved: u32,
    pub(super) reason: Option<String>,
    pub(super) not_before: Mono,
    /// Since when it is listened for; `None`: its absence has been told.
    pub(super) looking: Option<Mono>,
    /// When the link was subscribed.
    opened: Mono,
    carried: Carried,
    /// The battery has answered since data last came.
    pub(super) was_asked: bool,
    window: VecDeque<Mono>,
    backoff: Backoff,
}

impl Sensor {
    pub(super) fn new(wanted: WantedSensor, limits: &BleLimits, seed: u64, now: Stamp) -> Self {
        Self {
            wanted,
            link: Link::Idle,
            address: None,
            bonded: false,
            heard: None,
            last_seen: None,
            rssi: None,
            battery: None,
            attempts: 0,
            last_attempt: None,
            failures: 0,
            refused: 0,
            empty_visits: 0,
            has_brought: false,
            near: None,
            tried: None,
            unresolved: 0,
            reason: None,
            not_before: now.mono,
            looking: Some(now.mono),
            opened: now.mono,
            carried: Carried::Nothing,
            was_asked: false,
            window: VecDeque::new(),
            backoff: Backoff::new(limits.pause.0, limits.pause.1, seed),
        }
    }

    /// A link, or the attempt at one.
    pub(super) fn is_idle(&self) -> bool {
        self.link == Link::Idle
    }

    /// It is subscribed and has sent something readable over this link.
    pub(super) fn delivers(&self) -> bool {
        self.carried != Carried::Nothing && matches!(self.link, Link::Open { .. } | Link::Checking { .. })
    }

    /// Until when its last sighting counts.
    pub(super) fn fresh_until(&self, limits: &BleLimits) -> Option<Mono> {
        self.heard.map(|heard| heard + limits.fresh)
    }

    pub(super) fn is_fresh(&self, limits: &BleLimits, now: Mono) -> bool {
        self.fresh_until(limits).is_some_and(|until| now < until)
    }

    /// When it may be tried at the earliest; `None`: not before it is heard again.
    pub(super) fn next_try(&self, limits: &BleLimits, now: Mono) -> Option<Mono> {
        if !self.is_idle() || !self.is_fresh(limits, now) || self.wanted.manner.is_only_heard {
            return None;
        }
        Some(self.not_before.max(free_at(&self.window, limits.attempts_a_minute)))
    }

    /// An attempt begins.
    pub(super) fn attempt(&mut self, limits: &BleLimits, now: Mono) {
        self.link = Link::Connecting { since: now, resolving: None };
        (self.carried, self.has_brought) = (Carried::Nothing, false);
        self.attempts = self.attempts.saturating_add(1);
        self.last_attempt = Some(now);
        remember(&mut self.window, limits.attempts_a_minute, now);
    }

    /// The subscription stands.
    pub(super) fn open(&mut self, now: Mono) {
        self.link = Link::Open { quiet: now };
        self.opened = now;
        (self.carried, self.was_asked) = (Carried::Nothing, false);
        self.unresolved = 0;
    }

    /// It was heard. One that was away for a while has come back for something new, and does not wait for the end of a
    /// pause that was made for one that never goes.
    pub(super) fn hear(&mut self, limits: &BleLimits, now: Mono) {
        let was_away = self.near.is_none_or(|last| now.since(last) >= limits.away);
        if was_away && self.empty_visits > 0 {
            self.empty_visits = 0;
            self.not_before = self.not_before.min(now);
        }
        (self.heard, self.near) = (Some(now), Some(now));
    }

    /// Something readable has come over the open link, new or known.
    pub(super) fn data(&mut self, is_new: bool, limits: &BleLimits, now: Stamp) {
        self.link = Link::Open { quiet: now.mono };
        self.was_asked = false;
        if self.carried == Carried::Nothing {
            self.carried = Carried::Data;
        }
        self.late_data(is_new, limits, now);
    }

    /// Something readable has come before this link's own subscription.
    pub(super) fn early_data(&mut self, is_new: bool, limits: &BleLimits, now: Stamp) {
        self.carried = Carried::Data;
        self.late_data(is_new, limits, now);
    }

    /// Something readable has come, and the link may have ended since.
    pub(super) fn late_data(&mut self, is_new: bool, limits: &BleLimits, now: Stamp) {
        (self.failures, self.tried) = (0, None);
        self.last_seen = Some(now);
        if is_new || !matches!(self.link, Link::Open { .. }) {
            // What a meter refuses is known at the end of its visit, and stays told until then.
            (self.refused, self.reason) = (0, None);
        }
        if is_new {
            (self.has_brought, self.empty_visits) = (true, 0);
            self.not_before = self.not_before.min(now.mono + limits.episode_pause);
        }
    }

    /// Something readable has come over this link.
    pub(super) fn has_carried(&self) -> bool {
        self.carried != Carried::Nothing
    }

    /// The link has been a good one for so long that the next pause is a short one again.
    pub(super) const fn settle(&mut self) {
        self.carried = Carried::Stable;
        self.backoff.reset();
    }

    /// Counts a failure, sets the pause, and says how often it has failed in a row.
    pub(super) fn fail(&mut self, kind: FailureKind, words: String, limits: &BleLimits, now: Mono) -> u32 {
        self.reason = Some(words);
        match kind {
            FailureKind::Vanished => {
                self.heard = None;
                return 0;
            }
            FailureKind::WrongDevice => self.not_before = now + limits.pause.1,
            FailureKind::Ordinary => self.not_before = now + self.backoff.next_delay(),
        }
        self.failures = self.failures.saturating_add(1);
        if kind == FailureKind::Ordinary { self.failures } else { 0 }
    }

    /// What an operator can do about a failure at this point.
    pub(super) fn advice(&self) -> String {
        let is_refused = matches!(self.link, Link::Settling { .. } | Link::Subscribing { .. });
        if is_refused { self.pairing().unwrap_or_default() } else { String::new() }
    }

    /// That it has to be paired, if it has to be.
    fn pairing(&self) -> Option<String> {
        let address = self.address.filter(|_| self.wanted.manner.needs_bond && !self.bonded)?;
        Some(format!("; such a sensor has to be paired first: vitalbridge pair {address}"))
    }

    /// The visit of an episodic sensor has ended, or may end: what it had was handed over, or it refused. The radio has
    /// done its part. True: the visit was in vain.
    pub(super) fn end_visit(&mut self, refusal: Option<String>, limits: &BleLimits, now: Mono) -> bool {
        (self.failures, self.tried) = (0, None);
        self.unresolved = 0;
        self.backoff.reset();
        let pairing = if self.has_carried() { None } else { self.pairing() };
        let is_in_vain = refusal.is_some() || pairing.is_some();
        let is_empty = !self.has_carried();
        let words = refusal.or_else(|| is_empty.then(|| "the sensor ended the link without a measurement".to_owned()));
        self.reason = words.map(|words| words + &pairing.unwrap_or_default());
        if is_in_vain {
            self.refused = self.refused.saturating_add(1);
        } else if !is_empty {
            self.refused = 0;
        }
        let doublings = if self.has_brought { 0 } else { self.empty_visits.min(16) };
        self.empty_visits = if self.has_brought { 0 } else { self.empty_visits.saturating_add(1) };
        let pause = limits.episode_pause.saturating_mul(1_u32 << doublings);
        self.not_before = now + pause.min(limits.empty_pause.max(limits.episode_pause));
        // It has to be heard again.
        self.heard = None;
        self.rest(now);
        is_in_vain
    }

    /// There is no link any more.
    pub(super) fn rest(&mut self, now: Mono) {
        if !self.is_idle() {
            self.near = Some(now);
        }
        self.link = Link::Idle;
        (self.carried, self.was_asked) = (Carried::Nothing, false);
        self.looking = Some(now);
    }

    fn resolve_limit(&self, limits: &BleLimits) -> Duration {
        limits.resolve.saturating_mul(1_u32 << self.unresolved.min(4)).min(limits.connect)
    }

    /// How long its open link may carry nothing.
    pub(super) fn patience(&self, limits: &BleLimits) -> Duration {
        limits.silence.unwrap_or_else(|| self.wanted.habit.patience())
    }

    /// What becomes overdue next, and when.
    pub(super) fn due(&self, limits: &BleLimits) -> Option<(Mono, Overdue)> {
        let due = match self.link {
            Link::Idle => (self.looking? + limits.scan, Overdue::Sighting),
            Link::Connecting { since, resolving } => {
                let whole = (since + limits.connect, Overdue::Connect);
                let services = resolving.map(|since| (since + self.resolve_limit(limits), Overdue::Resolve));
                services.filter(|(at, _)| *at < whole.0).unwrap_or(whole)
            }
            Link::Settling { since } => (since + self.wanted.manner.settle, Overdue::Settle),
            Link::Subscribing { since } => (since + limits.subscribe, Overdue::Subscribe),
            Link::Open { quiet } => {
                let data = (quiet + self.patience(limits), Overdue::Data);
                let stable = (self.opened + limits.stable, Overdue::Stable);
                if self.carried == Carried::Data && stable.0 < data.0 { stable } else { data }
            }
            Link::Checking { since } => (since + limits.read, Overdue::Check),
            Link::Ending { since, .. } => (since + limits.disconnect, Overdue::Disconnect),
            Link::Removing { since } => (since + limits.call, Overdue::Remove),
        };
        Some(due)
    }

    /// What people are shown while the radio works.
    pub(super) fn phase(&self, limits: &BleLimits, now: Mono) -> SensorPhase {
        match self.link {
            Link::Idle if self.is_fresh(limits, now) => SensorPhase::Heard,
            Link::Idle => SensorPhase::Searching,
            Link::Connecting { .. } => SensorPhase::Connecting,
            Link::Settling { .. } | Link::Subscribing { .. } => SensorPhase::Subscribing,
            Link::Open { .. } if self.was_asked => SensorPhase::Silent,
            Link::Open { .. } if self.carried != Carried::Nothing => SensorPhase::Live,
            Link::Open { .. } => SensorPhase::Waiting,
            Link::Checking { .. } => SensorPhase::Silent,
            Link::Ending { .. } | Link::Removing { .. } => SensorPhase::Ending,
        }
    }

    pub(super) fn state(&self, phase: SensorPhase, reason: Option<String>) -> SensorState {
        SensorState {
            phase,
            address: self.address,
            last_seen: self.last_seen,
            rssi: self.rssi,
            battery: self.battery,
            attempts: self.attempts,
            failures: self.failures.saturating_add(self.refused),
            tried: self.tried,
            bonded: self.bonded,
            reason: reason.or_else(|| self.reason.clone()),
        }
    }
}

/// When a window of attempts has room for another one.
pub(super) fn free_at(window: &VecDeque<Mono>, most: usize) -> Mono {
    let oldest = window.len().checked_sub(most).and_then(|index| window.get(index));
    oldest.map_or(Mono(0), |oldest| *oldest + ATTEMPT_WINDOW)
}

/// Adds an attempt to a window, which holds no more than it needs.
pub(super) fn remember(window: &mut VecDeque<Mono>, most: usize, now: Mono) {
    window.push_back(now);
    while window.len() > most {
        window.pop_front();
    }
}
