//! When a sensor's clock is set: a pure machine, because some models take the time only at one moment, and some only
//! if theirs is wrong.

use crate::clock::{Stamp, Wall};
use crate::decode::gatt::date_time::{CurrentTime, DateTime};
use crate::profile::ble::TimeWrite;

/// A clock that is off by more than this is set, in milliseconds: Omron cuffs refuse smaller corrections.
const TOLERANCE_MS: i64 = 10 * 60 * 1000;

/// What the source is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this to Current Time, or to Date Time where the sensor has that instead.
    Write(CurrentTime),
    /// Read either of them, and hand what it says to [`SetClock::on_told`].
    Read,
}

/// The clock of one sensor.
#[derive(Debug)]
pub(super) struct SetClock {
    when: TimeWrite,
    /// How many minutes its local time is ahead of UTC.
    offset: i16,
    /// What it tells is waited for, once a link.
    is_open: bool,
    /// What it told was right, before anything was written over this link.
    is_verified: bool,
}

impl SetClock {
    pub(super) const fn new(when: TimeWrite, offset: i16) -> Self {
        Self { when, offset, is_open: false, is_verified: false }
    }

    /// Whether the sensor has to be listened to for its time.
    pub(super) const fn listens(&self) -> bool {
        matches!(self.when, TimeWrite::OnNotifyIfOff10Min)
    }

    /// A new link is subscribed.
    pub(super) fn on_subscribed(&mut self, now: Stamp) -> Option<Step> {
        (self.is_open, self.is_verified) = (true, false);
        match self.when {
            TimeWrite::Never | TimeWrite::OnNotifyIfOff10Min => None,
            TimeWrite::OnConnect => self.write(now),
            TimeWrite::IfOff10Min => Some(Step::Read),
        }
    }

    /// The sensor has told its time.
    pub(super) fn on_told(&mut self, payload: &[u8], now: Stamp) -> Option<Step> {
        let waits = std::mem::take(&mut self.is_open);
        let may_write = matches!(self.when, TimeWrite::IfOff10Min | TimeWrite::OnNotifyIfOff10Min);
        if !waits || !may_write {
            return None;
        }
        self.is_verified = self.is_right(payload, now);
        if self.is_verified { None } else { self.write(now) }
    }

    /// How many minutes the sensor's local time is ahead of UTC, if its clock was right by itself when it was asked over this
    /// link. One that is set now says nothing about what was measured before.
    pub(super) fn verified(&self) -> Option<i16> {
        self.is_verified.then_some(self.offset)
    }

    /// A time that cannot be read, or is none, is not right.
    fn is_right(&self, payload: &[u8], now: Stamp) -> bool {
        let told = CurrentTime::parse(payload).map(|(told, _)| told.time).or_else(|_| DateTime::parse(payload));
        let Some(told) = told.ok().and_then(|told| Wall::parse(&format!("{told}Z"))) else { return false };
        let local = now.wall.0.saturating_add(i64::from(self.offset) * 60_000);
        told.0.saturating_sub(local).saturating_abs() <= TOLERANCE_MS
    }

    fn write(&self, now: Stamp) -> Option<Step> {
        CurrentTime::local(now.wall, self.offset).map(Step::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

    fn at(text: &str) -> Stamp {
        Stamp { mono: Mono(0), wall: Wall::parse(text).unwrap() }
    }

    fn current_time(text: &str) -> CurrentTime {
        CurrentTime::local(Wall::parse(text).unwrap(), 0).unwrap()
    }

    fn time(text: &str) -> Vec<u8> {
        current_time(text).encode().to_vec()
    }

    #[test]
    fn the_clock_is_written_when_the_model_takes_it_and_only_if_it_is_wrong() {
        // The bridge's local time is 13:00:00.
        let now = at("2026-11-21T12:00:00Z");
        let local = current_time("2026-11-21T13:00:00Z");
        let date_time = |text| current_time(text).time.encode().to_vec();
        let (near, far, never_set) = ("2026-11-21T13:09:59Z", "2026-11-21T12:49:59Z", vec![0; 10]);
        for (when, first, told, then) in [
            (TimeWrite::Never, None, time(far), None),
            (TimeWrite::OnConnect, Some(Step::Write(local)), time(far), None),
            (TimeWrite::IfOff10Min, Some(Step::Read), time(near), None),
            (TimeWrite::IfOff10Min, Some(Step::Read), time(far), Some(Step::Write(local))),
            (TimeWrite::IfOff10Min, Some(Step::Read), date_time(near), None),
            (TimeWrite::IfOff10Min, Some(Step::Read), date_time(far), Some(Step::Write(local))),
            (TimeWrite::IfOff10Min, Some(Step::Read), never_set, Some(Step::Write(local))),
            (TimeWrite::OnNotifyIfOff10Min, None, time(near), None),
            (TimeWrite::OnNotifyIfOff10Min, None, time(far), Some(Step::Write(local))),
        ] {
            let mut clock = SetClock::new(when, 60);
            assert_eq!(clock.on_told(&told, now), None, "{when}: before a link");
            assert_eq!(clock.on_subscribed(now), first, "{when}");
            assert_eq!(clock.on_told(&told, now), then, "{when}");
            let may_tell = !matches!(when, TimeWrite::Never | TimeWrite::OnConnect);
            assert_eq!(clock.verified(), (may_tell && then.is_none()).then_some(60), "{when}");
            assert_eq!(clock.on_told(&time(far), now), None, "{when}: once a link");
        }
    }
}
