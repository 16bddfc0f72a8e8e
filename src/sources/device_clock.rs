//! Brings the times that a device's own clock says to ours, by moments at which both clocks were read. Pure.
//!
//! Only differences of the device's clock count: it may be years behind, and has no zone. What it says is related where its
//! clock is known to have run on since the measurement without being set, as far as that can be seen from here.

use std::time::Duration;

use crate::clock::{Mono, Stamp, Wall};
use crate::decode::gatt::date_time::{CurrentTime, DateTime};
use crate::timeline::drift_ms;

/// What lies further back cannot be told from what a clock says that was set meanwhile.
const OLDEST_MS: i64 = 30 * 86_400_000;

/// A stamp may be ahead of the device's clock by as much as both are cut off and the link is slow. More lies in the future.
const AHEAD_MS: i64 = 2000;

/// A clock that says whole seconds, or whole minutes, or 1/256 s (CTS 1.1, 3.1.1).
const SECOND_MS: u32 = 1000;
const MINUTE_MS: u32 = 60_000;
const FRACTION_MS: u32 = 4;

/// What was sent over a link may arrive so long after its end.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// How long measurements wait for the answer of a device that was asked for its time. The newest of a visit waits as long
/// anyway, because another one may come after it.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// What a clock says that is cut off after so many milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// Local time as if it were UTC: good for differences only. The middle of what it may mean.
    middle: i64,
    resolution_ms: u32,
}

impl Said {
    fn new(local: Wall, resolution_ms: u32) -> Self {
        Self { middle: local.0.saturating_add(i64::from(resolution_ms / 2)), resolution_ms }
    }

    /// `YYYY-MM-DDThh:mm[:ss]`, or as instruments send binary coded decimals, `YYYYMMDDhhmmss` and hundredths, which are
    /// not believed. `None` for any other text, and for what is no date.
    fn read(text: &str) -> Option<Self> {
        if let Some(digits) =
            text.get(..14).filter(|_| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            let part = |range| digits.get(range);
            let (date, time) = ([part(0..4)?, part(4..6)?, part(6..8)?], [part(8..10)?, part(10..12)?, part(12..14)?]);
            let written = format!("{}T{}Z", date.join("-"), time.join(":"));
            return Some(Self::new(Wall::parse(&written)?, SECOND_MS));
        }
        match Wall::parse(&format!("{text}Z")) {
            Some(local) => Some(Self::new(local, SECOND_MS)),
            None => Some(Self::new(Wall::parse(&format!("{text}:00Z"))?, MINUTE_MS)),
        }
    }

    /// The value of Current Time or Date Time. Fractions of zero are those of a clock that has none.
    fn answer(payload: &[u8]) -> Option<Self> {
        let (time, fractions) = match CurrentTime::parse(payload) {
            Ok((told, _)) => (told.time, told.fractions_256),
            Err(_) => (DateTime::parse(payload).ok()?, 0),
        };
        let whole = Wall::parse(&format!("{time}Z"))?;
        if fractions == 0 {
            return Some(Self::new(whole, SECOND_MS));
        }
        Some(Self::new(Wall(whole.0.saturating_add(i64::from(fractions) * 1000 / 256)), FRACTION_MS))
    }
}

/// The same moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    device: Said,
    /// The middle of the question's round trip, by the clock that does not step: ms since boot.
    at: i64,
    /// Half of the round trip, in ms, rounded up.
    half_trip_ms: u32,
}

impl Pair {
    /// What the device's clock says when ours says `at`, if nobody sets it.
    const fn device_at(&self, at: i64) -> i64 {
        self.device.middle.saturating_add(at.saturating_sub(self.at))
    }

    /// True if the device's clock ran on from `before` to this without being set.
    fn continues(&self, before: &Self) -> bool {
        let drifted = drift_ms(Duration::from_millis(self.at.saturating_sub(before.at).unsigned_abs()));
        let parts =
            [self.device.resolution_ms, before.device.resolution_ms, self.half_trip_ms, before.half_trip_ms, drifted];
        let tolerance = parts.into_iter().fold(0, |sum: i64, part| sum.saturating_add(i64::from(part)));
        self.device.middle.saturating_sub(before.device_at(self.at)).saturating_abs() <= tolerance
    }
}

/// When something was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapped {
    /// By our clock.
    pub(super) wall: Wall,
    /// How long before it came.
    pub(super) before: Duration,
    /// How far that may be off, in ms, beside what our own clock may be off.
    pub(super) uncertainty_ms: u32,
}

/// The clock of one device.
#[derive(Debug, Default)]
pub(super) struct DeviceClock {
    /// Of this link.
    pair: Option<Pair>,
    /// The last one of the links before, unless the bridge has set the clock since.
    before: Option<Pair>,
    is_set: bool,
    asked: Option<Mono>,
    waits_until: Option<Mono>,
    /// When the link ended.
    ended: Option<Mono>,
}

impl DeviceClock {
    /// A new link: the clock may have been set meanwhile.
    pub(super) fn on_link(&mut self) {
        let before = self.pair.or(self.before).filter(|_| !self.is_set);
        *self = Self { before, ..Self::default() };
    }

    /// The link has gone. What comes later than what was on its way is of another one.
    pub(super) fn on_link_end(&mut self, now: Stamp) {
        self.ended.get_or_insert(now.mono);
    }

    /// The device is asked for its time.
    pub(super) fn on_asked(&mut self, now: Stamp) {
        (self.asked, self.waits_until) = (Some(now.mono), Some(now.mono + ANSWER_WAIT));
    }

    /// The device is going to tell its time unasked.
    pub(super) fn on_awaited(&mut self, now: Stamp) {
        self.waits_until = Some(now.mono + ANSWER_WAIT);
    }

    /// The device has told its time, by Current Time or Date Time. Only the first answer of a link counts: after it somebody
    /// may have set the clock, and what the device has kept is of before.
    pub(super) fn on_told(&mut self, payload: &[u8], received: Stamp) {
        self.waits_until = None;
        let asked = self.asked.take();
        if self.pair.is_none() && !self.is_set {
            self.pair = Said::answer(payload).map(|device| pair(device, asked, received));
        }
    }

    /// The device does not tell its time.
    pub(super) fn on_untold(&mut self) {
        (self.asked, self.waits_until) = (None, None);
    }

    /// A measurement of now has the device's time in it. The newest one counts.
    pub(super) fn on_live(&mut self, said: &str, received: Stamp) {
        if let Some(device) = Said::read(said) {
            self.pair = Some(pair(device, None, received));
        }
    }

    /// The bridge sets the clock. What was measured before is related by the pair of this link, what is measured after by
    /// that of the next.
    pub(super) const fn on_set(&mut self) {
        self.is_set = true;
    }

    /// Until when measurements wait for the device's time.
    pub(super) const fn deadline(&self) -> Option<Mono> {
        self.waits_until
    }

    /// When something was measured that came at `received` and has this time of the device's. `None`: it cannot be related,
    /// lies in the future or is older than 30 days.
    pub(super) fn mapped(&self, said: &str, received: Stamp) -> Option<Mapped> {
        let stamp = Said::read(said)?;
        let is_of_link = self.ended.is_none_or(|ended| received.mono <= ended + ON_ITS_WAY);
        let pair = self.pair.filter(|_| is_of_link)?;
        let now = millis(received.mono);
        let ago = |pair: &Pair| pair.device_at(now).saturating_sub(stamp.middle);
        let ahead = AHEAD_MS.saturating_add(i64::from(stamp.resolution_ms / 2));
        let is_possible = |ago: i64, oldest: i64| (-ahead..=oldest).contains(&ago);
        let (by, ago) = match self.before.filter(|before| !pair.continues(before)) {
            None => Some((pair, ago(&pair))).filter(|(_, ago)| is_possible(*ago, OLDEST_MS)),
            // Somebody has set the clock since `before`: by the new line it was measured after that, by the old one it may
            // have been at any time. Where both can be, nobody knows.
            Some(before) => {
                let since = now.saturating_sub(before.at).clamp(0, OLDEST_MS);
                let new = Some((pair, ago(&pair))).filter(|(_, ago)| is_possible(*ago, since));
                let old = Some((before, ago(&before))).filter(|(_, ago)| is_possible(*ago, OLDEST_MS));
                new.xor(old)
            }
        }?;
        let before = Duration::from_millis(u64::try_from(ago).unwrap_or(0));
        // The device's oscillator ran alone from one reading of its clock to the other.
        let apart = Duration::from_millis(by.device.middle.saturating_sub(stamp.middle).unsigned_abs());
        let halves = [stamp.resolution_ms / 2, by.device.resolution_ms / 2, by.half_trip_ms, drift_ms(apart)];
        let uncertainty_ms = halves.into_iter().fold(0, u32::saturating_add);
        Some(Mapped { wall: Wall(received.wall.0.saturating_sub(ago.max(0))), before, uncertainty_ms })
    }
}

fn pair(device: Said, asked: Option<Mono>, received: Stamp) -> Pair {
    let trip = asked.map_or(Duration::ZERO, |asked| received.mono.since(asked));
    let half_trip = u32::try_from(trip.as_micros().div_ceil(2000)).unwrap_or(u32::MAX);
    Pair { device, at: millis(received.mono).saturating_sub(i64::from(half_trip)), half_trip_ms: half_trip }
}

fn millis(mono: Mono) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
