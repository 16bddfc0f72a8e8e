//! When a sensor's clock is set: a pure machine, because some models take the time only at one moment, and some only
//! if theirs is wrong.

use crate::clock::{Stamp, Wall};
use crate::decode::gatt::date_time::{CurrentTime, DateTime};
use crate::profile::ble::TimeWrite;

/// A clock that is off by more than this is set, in milliseconds: Omron cuffs refuse smaller corrections.
const TOLERANCE_MS: i64 = 10 * 60 * 1000;

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

    /// Whether the sensor has to have a clock.
    pub(super) const fn asks(&self) -> bool {
        matches!(self.when, TimeWrite::IfOff10Min)
    }

    /// A new link is subscribed, and the sensor is asked for its time unless it tells that by itself: what it has kept is
    /// dated by what its clock said before anybody set it.
    pub(super) const fn on_subscribed(&mut self) {
        (self.is_open, self.is_verified) = (true, false);
    }

    /// The sensor has told its time. The answer is what is to be written.
    pub(super) fn on_told(&mut self, payload: &[u8], now: Stamp) -> Option<CurrentTime> {
        if !std::mem::take(&mut self.is_open) {
            return None;
        }
        match self.when {
            TimeWrite::Never => None,
            TimeWrite::OnConnect => self.time(now),
            TimeWrite::IfOff10Min | TimeWrite::OnNotifyIfOff10Min => {
                self.is_verified = self.is_right(payload, now);
                if self.is_verified { None } else { self.time(now) }
            }
        }
    }

    /// The sensor does not tell its time. The answer is what is to be written all the same.
    pub(super) fn on_untold(&mut self, now: Stamp) -> Option<CurrentTime> {
        if !matches!(self.when, TimeWrite::OnConnect) || !std::mem::take(&mut self.is_open) {
            return None;
        }
        self.time(now)
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

    fn time(&self, now: Stamp) -> Option<CurrentTime> {
        CurrentTime::local(now.wall, self.offset)
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
        for (when, told, then) in [
            (TimeWrite::Never, time(far), None),
            (TimeWrite::OnConnect, time(far), Some(local)),
            (TimeWrite::OnConnect, time(near), Some(local)),
            (TimeWrite::IfOff10Min, time(near), None),
            (TimeWrite::IfOff10Min, time(far), Some(local)),
            (TimeWrite::IfOff10Min, date_time(near), None),
            (TimeWrite::IfOff10Min, date_time(far), Some(local)),
            (TimeWrite::IfOff10Min, never_set, Some(local)),
            (TimeWrite::OnNotifyIfOff10Min, time(near), None),
            (TimeWrite::OnNotifyIfOff10Min, time(far), Some(local)),
        ] {
            let mut clock = SetClock::new(when, 60);
            assert_eq!((clock.on_told(&told, now), clock.on_untold(now)), (None, None), "{when}: before a link");
            clock.on_subscribed();
            assert_eq!(clock.on_told(&told, now), then, "{when}");
            let may_tell = !matches!(when, TimeWrite::Never | TimeWrite::OnConnect);
            assert_eq!(clock.verified(), (may_tell && then.is_none()).then_some(60), "{when}");
            assert_eq!((clock.on_told(&time(far), now), clock.on_untold(now)), (None, None), "{when}: once a link");
            clock.on_subscribed();
            let unread = (when == TimeWrite::OnConnect).then_some(local);
            assert_eq!(clock.on_untold(now), unread, "{when}: it does not tell its time");
        }
    }
}
