//! Brings the times that a device's own clock says to ours, by moments at which both clocks were read. Pure.
//!
//! Only differences of the device's clock count: it may be years behind, and has no zone. What it says is related where its
//! clock is known to have run on since the measurement without being set, as far as that can be seen from here.

use std::time::Duration;

use crate::clock::{Mono, Stamp, Wall};
use crate::decode::gatt::date_time::{CurrentTime, DateTime};
use crate::timeline::drift_ms;

/// What lies further back has no time, but is of the past.
const OLDEST_MS: i64 = 30 * 86_400_000;

/// What a clock says that lies back further was said by one that was never set: an old record and such a one cannot be
/// told apart.
pub(super) const UNSET_MS: i64 = 366 * 86_400_000;

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

    /// Many devices cut what they write down to the minute, and write seconds of zero.
    fn stamp(local: Wall) -> Self {
        let is_cut = local.0.rem_euclid(i64::from(MINUTE_MS)) == 0;
        Self::new(local, if is_cut { MINUTE_MS } else { SECOND_MS })
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
            return Some(Self::stamp(Wall::parse(&written)?));
        }
        match Wall::parse(&format!("{text}Z")) {
            Some(local) => Some(Self::stamp(local)),
            None => Some(Self::new(Wall::parse(&format!("{text}:00Z"))?, MINUTE_MS)),
        }
    }

    /// The value of Current Time or Date Time. Fractions of zero are those of a clock that has none; seconds of zero those of
    /// one that counts minutes, unless it is known to count seconds.
    fn answer(payload: &[u8], counts_seconds: bool) -> Option<Self> {
        let (time, fractions) = match CurrentTime::parse(payload) {
            Ok((told, _)) => (told.time, told.fractions_256),
            Err(_) => (DateTime::parse(payload).ok()?, 0),
        };
        let whole = Wall::parse(&format!("{time}Z"))?;
        if fractions == 0 {
            return Some(if counts_seconds { Self::new(whole, SECOND_MS) } else { Self::stamp(whole) });
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

/// What a time of the device's says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Related {
    /// It is one of ours.
    At(Mapped),
    /// It is more than 30 days back.
    TooOld,
    /// It cannot be related, or lies in the future: it may be of now.
    Unknown,
}

/// How the device's clock ran while nobody set it. Times are by the clock that does not step, in ms since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    pair: Pair,
    /// Not before; `None`: as far back as anybody knows.
    from: Option<i64>,
    /// Not after.
    until: Option<i64>,
}

impl Line {
    /// What a stamp says that came at `received` if it was made on this line; `None`: it was not.
    fn place(&self, stamp: Said, received: Stamp) -> Option<Related> {
        let now = millis(received.mono);
        let ago = self.pair.device_at(now).saturating_sub(stamp.middle);
        let ahead = AHEAD_MS.saturating_add(i64::from(stamp.resolution_ms / 2));
        if !(-ahead..=UNSET_MS).contains(&ago) {
            return None;
        }
        // The device's oscillator ran alone from one reading of its clock to the other.
        let apart = Duration::from_millis(self.pair.device.middle.saturating_sub(stamp.middle).unsigned_abs());
        let halves =
            [stamp.resolution_ms / 2, self.pair.device.resolution_ms / 2, self.pair.half_trip_ms, drift_ms(apart)];
        let uncertainty_ms = halves.into_iter().fold(0, u32::saturating_add);
        let (at, slack) = (now.saturating_sub(ago.max(0)), i64::from(uncertainty_ms));
        let is_before = self.from.is_some_and(|from| at.saturating_add(slack) < from);
        let is_after = self.until.is_some_and(|until| at.saturating_sub(slack) > until);
        if is_before || is_after {
            return None;
        }
        if ago > OLDEST_MS {
            return Some(Related::TooOld);
        }
        let before = Duration::from_millis(u64::try_from(ago).unwrap_or(0));
        Some(Related::At(Mapped { wall: Wall(received.wall.0.saturating_sub(ago.max(0))), before, uncertainty_ms }))
    }
}

/// The bridge writes the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    written: Said,
    ordered: Stamp,
}

/// The clock of one device.
#[derive(Debug, Default)]
pub(super) struct DeviceClock {
    /// Where it runs now, as far as is known.
    line: Option<Line>,
    /// Where it ran before somebody set it, or the bridge did.
    earlier: Option<Line>,
    /// It has told a time with seconds.
    counts_seconds: bool,
    /// The line was read or written over this link.
    is_of_link: bool,
    /// Written over this link; whether the device took it is not known, or it did not.
    setting: Option<Setting>,
    asked: Option<Mono>,
    waits_until: Option<Mono>,
    /// When the link ended.
    ended: Option<Mono>,
}

impl DeviceClock {
    /// A new link: the clock may have been set meanwhile.
    pub(super) fn on_link(&mut self) {
        let Self { line, earlier, counts_seconds, .. } = *self;
        *self = Self { line, earlier, counts_seconds, ..Self::default() };
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
        if self.is_of_link || self.setting.is_some() {
            return;
        }
        if let Some(device) = Said::answer(payload, self.counts_seconds) {
            self.counts_seconds |= device.resolution_ms < MINUTE_MS;
            let pair = pair(device, asked, received);
            // If it was set, then after the last time that it was known.
            let from = self.line.map(|line| line.pair.at);
            self.run_on(pair, from, pair.at);
        }
    }

    /// The device does not tell its time.
    pub(super) fn on_untold(&mut self) {
        (self.asked, self.waits_until) = (None, None);
    }

    /// A measurement of now has the device's time in it. The newest one counts.
    pub(super) fn on_live(&mut self, said: &str, received: Stamp) {
        // A time that may be cut to the minute does not take the place of one that is not.
        let coarser = |line: Line, device: Said| line.pair.device.resolution_ms < device.resolution_ms;
        let device = Said::read(said);
        if let Some(device) = device.filter(|device| !self.line.is_some_and(|line| coarser(line, *device))) {
            self.line = Some(Line { pair: pair(device, None, received), from: None, until: None });
            self.is_of_link = true;
        }
    }

    /// The bridge writes this local time to the clock. Until the device has taken it, and if it does not, what is measured
    /// from here on may be of either time.
    pub(super) fn on_set(&mut self, local: Wall, now: Stamp) {
        self.setting = Some(Setting { written: Said::new(local, SECOND_MS), ordered: now });
    }

    /// The device has taken what was written: what was measured before runs on as it was read, what is measured after as it
    /// was written.
    pub(super) fn on_taken(&mut self, received: Stamp) {
        if let Some(Setting { written, ordered }) = self.setting.take() {
            let pair = pair(written, Some(ordered.mono), received);
            self.run_on(pair, Some(millis(ordered.mono)), millis(received.mono));
        }
    }

    /// The clock stands there. If it has not run on from where it was known to stand, it was set not before `from` and not
    /// after `until`.
    fn run_on(&mut self, pair: Pair, from: Option<i64>, until: i64) {
        let from = match self.line {
            Some(line) if pair.continues(&line.pair) => line.from,
            Some(line) => {
                self.earlier = Some(Line { until: Some(until), ..line });
                from
            }
            None => from,
        };
        self.line = Some(Line { pair, from, until: None });
        self.is_of_link = true;
    }

    /// Until when measurements wait for the device's time.
    pub(super) const fn deadline(&self) -> Option<Mono> {
        self.waits_until
    }

    /// Whether it is known how the clock stood at the link over which something came at `received`.
    pub(super) fn is_known(&self, received: Stamp) -> bool {
        self.is_of_link && self.ended.is_none_or(|ended| received.mono <= ended + ON_ITS_WAY)
    }

    /// When something was measured that came at `received` and has this time of the device's. Where the clock was set, by the
    /// new line it was measured after that, by the old one before. Where both can be, nobody knows.
    pub(super) fn related(&self, said: &str, received: Stamp) -> Related {
        let Some(stamp) = Said::read(said).filter(|_| self.is_known(received)) else { return Related::Unknown };
        let written = self.setting.map(|Setting { written, ordered }| Line {
            pair: pair(written, None, ordered),
            from: Some(millis(ordered.mono)),
            until: None,
        });
        let lines = [self.line, self.earlier, written].into_iter().flatten();
        let found = lines.filter_map(|line| line.place(stamp, received));
        found.reduce(either).unwrap_or(Related::Unknown)
    }
}

/// What is known of a stamp that can be of two lines. One that lies within 30 days is taken before an older one; two that
/// say the same time as far as they are certain leave the later one.
fn either(one: Related, other: Related) -> Related {
    match (one, other) {
        (Related::At(one), Related::At(other)) => {
            let apart = i64::try_from(one.before.abs_diff(other.before).as_millis()).unwrap_or(i64::MAX);
            let certain = i64::from(one.uncertainty_ms).saturating_add(i64::from(other.uncertainty_ms));
            if apart > certain {
                return Related::Unknown;
            }
            let later = if one.before <= other.before { one } else { other };
            let widest = one.uncertainty_ms.max(other.uncertainty_ms);
            let uncertainty_ms = widest.saturating_add(u32::try_from(apart).unwrap_or(u32::MAX));
            Related::At(Mapped { uncertainty_ms, ..later })
        }
        (Related::Unknown, _) | (_, Related::Unknown) => Related::Unknown,
        (at @ Related::At(_), Related::TooOld) | (Related::TooOld, at) => at,
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
