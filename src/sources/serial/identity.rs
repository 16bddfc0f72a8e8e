//! Which monitor is at the port: bound to its own serial number, and doubted when another number answers. Pure.
//!
//! Two ways lead to another monitor at the same port: the adapter is pulled out and plugged into another monitor, or
//! the monitor's cable is moved while the adapter stays. Both would put one patient's numbers on another's bed. The
//! second shows only as a silence, so that a number counts from one silence to the next and has to be told again after it.

use std::time::Duration;

use crate::clock::Mono;
use crate::event::NotDone;

/// Without a checksum a serial number counts once it has been told for so long without another one between: one
/// damaged character must neither bind a bed to a device that does not exist nor take its numbers away.
const SETTLES: Duration = Duration::from_secs(2);

/// What is known about a device from an earlier run of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// The serial number to which it is bound.
    pub serial_number: Option<String>,
    /// Another one that it told, and that nobody has confirmed.
    pub doubted: Option<String>,
}

/// What a serial number that was told has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The port is bound to this number from now on.
    Bound(String),
    /// This is another number than the one it is bound to: nothing is published until a person confirms.
    Changed(String),
}

/// Decides whether what comes from the port may be published.
#[derive(Debug)]
pub(super) struct Guard {
    /// The number in the configuration.
    configured: Option<String>,
    known: Bound,
    settles: Duration,
    /// The bridge can ask the device for its number: in the greeting, or by a driver.
    is_asked: bool,
    /// The number that is told at present, and since when.
    heard: Option<(String, Mono)>,
}

impl Guard {
    /// `configured` decides where it is given; what an earlier run doubted is then settled by a changed configuration.
    pub(super) fn new(configured: Option<String>, mut known: Bound, has_checksum: bool, is_asked: bool) -> Self {
        if configured.is_some() && configured != known.serial_number {
            known.doubted = None;
        }
        let settles = if has_checksum { Duration::ZERO } else { SETTLES };
        Self { configured, known, settles, is_asked, heard: None }
    }

    /// The port was opened, the device was silent, or it does not tell its number any more where it did: whatever is there
    /// has not told its number yet.
    pub(super) fn forget(&mut self) {
        self.heard = None;
    }

    /// True while nothing may be published only because the number was not told yet: asking for it helps.
    pub(super) fn awaits_number(&self) -> bool {
        self.expected().is_some() && self.heard.is_none() && !self.is_doubted()
    }

    fn expected(&self) -> Option<&String> {
        self.configured.as_ref().or(self.known.serial_number.as_ref())
    }

    /// Takes the number that the device told last, if it has told one, also when time has passed.
    pub(super) fn hear(&mut self, told: Option<&str>, now: Mono) -> Option<Finding> {
        let told = told?;
        let since = match &self.heard {
            Some((heard, since)) if heard == told => *since,
            _ => {
                self.heard = Some((told.to_owned(), now));
                now
            }
        };
        if now.since(since) < self.settles {
            return None;
        }
        let is_expected = self.expected().is_none_or(|expected| expected == told);
        if is_expected && self.known.doubted.is_none() && self.known.serial_number.as_deref() != Some(told) {
            self.known.serial_number = Some(told.to_owned());
            return Some(Finding::Bound(told.to_owned()));
        }
        if !is_expected && self.known.doubted.as_deref() != Some(told) {
            self.known.doubted = Some(told.to_owned());
            return Some(Finding::Changed(told.to_owned()));
        }
        None
    }

    /// True once another device has told its number, until a person confirms one.
    pub(super) const fn is_doubted(&self) -> bool {
        self.known.doubted.is_some()
    }

    /// Why nothing may be published, for people. `None`: it may.
    pub(super) fn objection(&self) -> Option<String> {
        let expected = self.expected();
        if let Some(doubted) = &self.known.doubted {
            let expected = expected.map_or("another", String::as_str);
            return Some(format!(
                "the device said that its serial number is {doubted}, expected is {expected}: its values are withheld \
                 until a person confirms which device is right"
            ));
        }
        let expected = expected?;
        match &self.heard {
            Some((heard, _)) if heard == expected => None,
            Some((heard, _)) => Some(format!(
                "the device says that its serial number is {heard}, expected is {expected}: its values are withheld"
            )),
            None => {
                let asked = if self.is_asked { "" } else { " and cannot be asked for it" };
                Some(format!(
                    "the device has not told its serial number yet{asked}, expected is {expected}: its values are \
                     withheld"
                ))
            }
        }
    }

    /// A person says that the device with this number is the right one.
    pub(super) fn confirm(&mut self, number: &str) -> Result<(), NotDone> {
        let refused = |code, reason: String| Err(NotDone { code, reason, was_tried: false });
        if let Some(configured) = self.configured.as_deref().filter(|configured| *configured != number) {
            return refused(
                "configured",
                format!("the configuration says that the serial number is {configured}: change `serial_number` there"),
            );
        }
        let is_there = match &self.heard {
            Some((heard, _)) => heard == number,
            // Nobody is there to be asked: what was told last, or what has been right all the time.
            None => self.known.doubted.as_deref() == Some(number) || self.expected().is_some_and(|e| e == number),
        };
        if !is_there {
            let heard = self.heard.as_ref().map(|(heard, _)| heard).or(self.known.doubted.as_ref());
            let heard = heard.map_or_else(|| "none".to_owned(), Clone::clone);
            return refused("wrong_serial_number", format!("the serial number that the device told is {heard}"));
        }
        self.known = Bound { serial_number: Some(number.to_owned()), doubted: None };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(seconds * 1000)
    }

    fn guard(configured: Option<&str>, bound: Option<&str>, doubted: Option<&str>) -> Guard {
        let own = |text: Option<&str>| text.map(ToOwned::to_owned);
        Guard::new(own(configured), Bound { serial_number: own(bound), doubted: own(doubted) }, false, true)
    }

    fn publishes(guard: &Guard) -> bool {
        guard.objection().is_none()
    }

    #[test]
    fn the_first_number_that_lasts_is_the_bound_one() {
        let mut guard = guard(None, None, None);
        assert!(publishes(&guard), "a device without a number is read");
        assert_eq!(guard.hear(Some("B"), at(0)), None);
        assert_eq!(guard.hear(Some("A"), at(1)), None);
        assert_eq!(guard.hear(Some("A"), at(2)), None);
        assert_eq!(guard.hear(Some("A"), at(3)), Some(Finding::Bound("A".to_owned())));
        assert_eq!(guard.hear(Some("A"), at(4)), None, "it is told once");
        assert!(publishes(&guard));
    }

    #[test]
    fn another_number_withholds_at_once_and_counts_once_it_lasts() {
        let mut guard = guard(None, Some("A"), None);
        assert!(!publishes(&guard), "it has not told its number yet");
        guard.hear(Some("A"), at(0));
        assert!(publishes(&guard));
        assert_eq!(guard.hear(Some("B"), at(1)), None);
        assert!(!publishes(&guard), "also a number that may be damaged");
        guard.hear(Some("A"), at(2));
        assert!(publishes(&guard) && !guard.is_doubted(), "it was damaged");
        guard.hear(Some("B"), at(3));
        assert_eq!(guard.hear(Some("B"), at(5)), Some(Finding::Changed("B".to_owned())));
        assert_eq!(guard.hear(Some("B"), at(6)), None, "it is told once");
        guard.forget();
        assert_eq!(guard.hear(Some("A"), at(7)), None);
        assert!(guard.hear(Some("A"), at(17)).is_none() && !publishes(&guard), "only a person ends the doubt");
    }

    #[test]
    fn after_a_silence_the_number_has_to_be_told_again() {
        let mut bound = guard(None, Some("A"), None);
        bound.hear(Some("A"), at(0));
        assert!(publishes(&bound) && !bound.awaits_number());
        bound.forget();
        assert_eq!(bound.hear(None, at(10)), None);
        assert!(!publishes(&bound) && bound.awaits_number(), "whatever is there now, it did not say that it is A");
        assert!(!bound.objection().unwrap().contains("cannot be asked"));
        bound.hear(Some("A"), at(11));
        assert!(publishes(&bound), "the same monitor recovers by itself, and at once");

        let mut unbound = guard(None, None, None);
        unbound.forget();
        assert!(publishes(&unbound) && !unbound.awaits_number(), "a device that never told a number is read");
        unbound.hear(Some("A"), at(20));
        unbound.forget();
        assert_eq!(unbound.hear(Some("A"), at(22)), None, "what was told before a silence does not settle it");

        let mute = Guard::new(Some("A".to_owned()), Bound::default(), false, false);
        assert!(mute.objection().unwrap().contains("cannot be asked for it, expected is A"));
    }

    #[test]
    fn a_number_behind_a_checksum_counts_at_once() {
        let mut guard = Guard::new(None, Bound::default(), true, true);
        assert_eq!(guard.hear(Some("A"), at(0)), Some(Finding::Bound("A".to_owned())));
        assert_eq!(guard.hear(Some("B"), at(0)), Some(Finding::Changed("B".to_owned())));
    }

    #[test]
    fn a_person_confirms_the_device_that_is_there() {
        let mut known = guard(None, Some("A"), None);
        known.hear(Some("B"), at(0));
        known.hear(Some("B"), at(2));
        for wrong in ["A", "C"] {
            assert_eq!(known.confirm(wrong).unwrap_err().code, "wrong_serial_number");
        }
        assert!(!publishes(&known));
        known.confirm("B").unwrap();
        assert!(publishes(&known));
        known.hear(Some("A"), at(3));
        assert!(!publishes(&known), "the old one is the other one now");

        // The cable is out: either of the two can be confirmed.
        for number in ["A", "B"] {
            let mut unplugged = guard(None, Some("A"), Some("B"));
            assert_eq!(unplugged.confirm("C").unwrap_err().code, "wrong_serial_number");
            unplugged.confirm(number).unwrap();
            assert!(!unplugged.is_doubted());
        }
    }

    #[test]
    fn the_configuration_decides() {
        let mut fixed = guard(Some("A"), None, None);
        fixed.hear(Some("B"), at(0));
        assert_eq!(fixed.hear(Some("B"), at(2)), Some(Finding::Changed("B".to_owned())));
        assert_eq!(fixed.confirm("B").unwrap_err().code, "configured");
        // It was written down meanwhile that B is right.
        let mut changed = guard(Some("B"), Some("A"), Some("B"));
        assert!(!changed.is_doubted());
        changed.hear(Some("B"), at(0));
        assert!(publishes(&changed));
        assert_eq!(changed.hear(Some("B"), at(2)), Some(Finding::Bound("B".to_owned())));
        // The doubt of an earlier run lasts.
        assert!(guard(Some("A"), Some("A"), Some("B")).is_doubted());
    }
}
