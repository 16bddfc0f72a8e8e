//! Confirmed delivery: whether each alert was shown to somebody in time, again each time it alarms.
//!
//! Pure, and knows nothing of connections: an annunciator is a number that joins, shows and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::event::{Activation, AlertChange, AlertEvent, Priority, SignalPresence};
use crate::ids::{AlertId, Seq};
use crate::named::named_enum;

/// The longest time until an alert of priority high is shown.
pub const SHOWN_WITHIN_HIGH: Duration = Duration::from_secs(5);
/// The same for medium.
pub const SHOWN_WITHIN_MEDIUM: Duration = Duration::from_secs(10);
/// The same for low.
pub const SHOWN_WITHIN_LOW: Duration = Duration::from_mins(1);

named_enum! {
    /// How far an alert that asks for attention has come.
    DeliveryState {
        /// No annunciator has answered yet.
        Waiting = "waiting",
        /// It has reached an annunciator, which has not shown it yet.
        Delivered = "delivered",
        /// An annunciator that is still there shows it.
        Shown = "shown",
        /// Nobody has shown it in time.
        Undelivered = "undelivered",
    }
}

/// Somebody who shows alerts to people: a number that no other has while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Annunciator(pub u64);

/// What is asked of annunciators about one alert.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Nothing: it is hidden by another alert, or a person has acknowledged or paused it.
    Quiet,
    /// To show it by then.
    Waiting { due: Mono, delivered: bool },
    /// It is too late.
    Overdue,
    /// These do.
    Shown { by: BTreeSet<Annunciator> },
}

/// One present alert.
#[derive(Debug, Clone)]
struct Tracked {
    /// The event at which it last began to alarm: a receipt for an earlier one says nothing about it.
    alarmed: Seq,
    priority: Priority,
    sounds: bool,
    stage: Stage,
}

/// Who has shown what. As many alerts as the engine has, and as many annunciators as the hub has listeners.
#[derive(Debug, Clone, Default)]
pub struct DeliveryWatch {
    alerts: BTreeMap<AlertId, Tracked>,
    annunciators: BTreeSet<Annunciator>,
}

impl DeliveryWatch {
    /// An alert changed; `seq` is the number of that event. The alert about undelivered alerts is not given here: it
    /// never stands for itself.
    pub fn on_alert(&mut self, event: &AlertEvent, seq: Seq, now: Stamp) {
        if !event.is_present() {
            self.alerts.remove(&event.alert);
            return;
        }
        let (asks, sounds, priority) = (asks(event), event.audio.presence == SignalPresence::On, event.priority);
        let due = now.mono + shown_within(priority);
        let waiting = Stage::Waiting { due, delivered: false };
        let Some(tracked) = self.alerts.get_mut(&event.alert) else {
            let stage = if asks { waiting } else { Stage::Quiet };
            self.alerts.insert(event.alert, Tracked { alarmed: seq, priority, sounds, stage });
            return;
        };
        let begins = matches!(event.change, AlertChange::Recur | AlertChange::Escalate | AlertChange::Resume);
        let again = begins || (sounds && !tracked.sounds) || priority > tracked.priority;
        (tracked.priority, tracked.sounds) = (priority, sounds);
        match &mut tracked.stage {
            stage if !asks => *stage = Stage::Quiet,
            stage @ Stage::Quiet => (*stage, tracked.alarmed) = (waiting, seq),
            _ if !again => {}
            // What is late stays late, and what waits does not wait longer because it alarms again.
            Stage::Overdue => tracked.alarmed = seq,
            Stage::Waiting { due: before, delivered } => {
                (*before, *delivered) = ((*before).min(due), false);
                tracked.alarmed = seq;
            }
            stage @ Stage::Shown { .. } => (*stage, tracked.alarmed) = (waiting, seq),
        }
    }

    /// Somebody shows alerts from now on.
    pub fn on_joined(&mut self, annunciator: Annunciator) {
        self.annunciators.insert(annunciator);
    }

    /// Somebody has gone: what nobody else shows has to be shown again.
    pub fn on_left(&mut self, annunciator: Annunciator, now: Stamp) {
        if !self.annunciators.remove(&annunciator) {
            return;
        }
        for tracked in self.alerts.values_mut() {
            if let Stage::Shown { by } = &mut tracked.stage
                && by.remove(&annunciator)
                && by.is_empty()
            {
                let due = now.mono + shown_within(tracked.priority);
                tracked.stage = Stage::Waiting { due, delivered: false };
            }
        }
    }

    /// An alert, as it was after the event `seq`, has reached somebody.
    pub fn on_delivered(&mut self, alert: AlertId, seq: Seq) {
        if let Some(tracked) = self.alerts.get_mut(&alert)
            && seq >= tracked.alarmed
            && let Stage::Waiting { delivered, .. } = &mut tracked.stage
        {
            *delivered = true;
        }
    }

    /// Somebody shows an alert as it was after the event `seq`, and is an annunciator by that.
    pub fn on_shown(&mut self, annunciator: Annunciator, alert: AlertId, seq: Seq) {
        self.on_joined(annunciator);
        let Some(tracked) = self.alerts.get_mut(&alert).filter(|tracked| seq >= tracked.alarmed) else {
            return;
        };
        match &mut tracked.stage {
            Stage::Quiet => {}
            stage @ (Stage::Waiting { .. } | Stage::Overdue) => {
                *stage = Stage::Shown { by: BTreeSet::from([annunciator]) };
            }
            Stage::Shown { by } => _ = by.insert(annunciator),
        }
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, now: Stamp) {
        for tracked in self.alerts.values_mut() {
            if let Stage::Waiting { due, .. } = tracked.stage
                && due <= now.mono
            {
                tracked.stage = Stage::Overdue;
            }
        }
    }

    /// When [`DeliveryWatch::on_deadline`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.waiting().min()
    }

    fn waiting(&self) -> impl Iterator<Item = Mono> {
        self.alerts.values().filter_map(|tracked| match tracked.stage {
            Stage::Waiting { due, .. } => Some(due),
            _ => None,
        })
    }

    /// True while it is not yet known of each alert whether it will be shown in time.
    pub fn is_undecided(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// The alerts that nobody has shown in time, with their priorities.
    pub fn undelivered(&self) -> impl Iterator<Item = (AlertId, Priority)> {
        let late = self.alerts.iter().filter(|(_, tracked)| tracked.stage == Stage::Overdue);
        late.map(|(alert, tracked)| (*alert, tracked.priority))
    }

    /// How far an alert has come; `None` if it asks for nothing.
    pub fn state(&self, alert: AlertId) -> Option<DeliveryState> {
        match self.alerts.get(&alert)?.stage {
            Stage::Quiet => None,
            Stage::Waiting { delivered: false, .. } => Some(DeliveryState::Waiting),
            Stage::Waiting { delivered: true, .. } => Some(DeliveryState::Delivered),
            Stage::Shown { .. } => Some(DeliveryState::Shown),
            Stage::Overdue => Some(DeliveryState::Undelivered),
        }
    }

    /// How many show alerts.
    pub fn annunciators(&self) -> usize {
        self.annunciators.len()
    }
}

/// True while somebody should see it who has not said that he knows. An alert that another one hides is told by that one.
fn asks(event: &AlertEvent) -> bool {
    let is_visible = matches!(event.visual.presence, SignalPresence::On | SignalPresence::Latched);
    let is_known = event.audio.presence == SignalPresence::Ack || event.audio.activation != Activation::On;
    is_visible && !is_known && event.hidden_by.is_none() && event.priority > Priority::Info
}

/// How long an alert may wait for somebody who shows it.
pub const fn shown_within(priority: Priority) -> Duration {
    match priority {
        Priority::High => SHOWN_WITHIN_HIGH,
        Priority::Medium => SHOWN_WITHIN_MEDIUM,
        Priority::Low | Priority::Info => SHOWN_WITHIN_LOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::sample::{self, Look};

    fn at(millis: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(millis), ..Stamp::default() }
    }

    fn id(number: u128) -> AlertId {
        AlertId(uuid::Uuid::from_u128(number))
    }

    /// A watch with one alert of this priority that began as event 1 at the time 0.
    fn begun(priority: Priority) -> DeliveryWatch {
        let mut watch = DeliveryWatch::default();
        watch.on_alert(&sample::alert(id(1), AlertChange::Start, priority, Look::Alarming), Seq(1), at(0));
        watch
    }

    fn change(watch: &mut DeliveryWatch, change: AlertChange, look: Look, seq: u64, millis: u64) {
        watch.on_alert(&sample::alert(id(1), change, Priority::High, look), Seq(seq), at(millis));
    }

    fn late(watch: &mut DeliveryWatch, millis: u64) -> bool {
        watch.on_deadline(at(millis));
        watch.undelivered().next().is_some()
    }

    const SCREEN: Annunciator = Annunciator(7);

    #[test]
    fn an_alert_that_nobody_shows_is_undelivered_after_the_time_of_its_priority() {
        for (priority, millis) in [(Priority::High, 5000), (Priority::Medium, 10_000), (Priority::Low, 60_000)] {
            let mut watch = begun(priority);
            assert_eq!(watch.next_deadline(), Some(at(millis).mono));
            assert!(!late(&mut watch, millis - 1), "{priority}");
            assert!(late(&mut watch, millis), "{priority}");
            assert_eq!(watch.next_deadline(), None);
        }
        assert_eq!(begun(Priority::Info).next_deadline(), None);
    }

    #[test]
    fn delivered_is_not_shown_and_shown_also_late_is() {
        let mut watch = begun(Priority::High);
        watch.on_delivered(id(1), Seq(1));
        assert_eq!(watch.state(id(1)), Some(DeliveryState::Delivered));
        assert!(late(&mut watch, 5000));
        watch.on_shown(SCREEN, id(1), Seq(1));
        assert_eq!((watch.state(id(1)), watch.annunciators()), (Some(DeliveryState::Shown), 1));
        assert!(!late(&mut watch, 100_000));
    }

    #[test]
    fn each_time_it_alarms_again_it_has_to_be_shown_again() {
        for (quiet, again) in [
            (Some(Look::Acknowledged), AlertChange::Escalate),
            (Some(Look::Acknowledged), AlertChange::Update),
            (Some(Look::Paused), AlertChange::Resume),
            (Some(Look::Latched), AlertChange::Recur),
            (Some(Look::Hidden), AlertChange::Update),
        ] {
            let mut watch = begun(Priority::High);
            watch.on_shown(SCREEN, id(1), Seq(1));
            if let Some(look) = quiet {
                change(&mut watch, AlertChange::Update, look, 2, 1000);
            }
            assert!(!late(&mut watch, 20_000), "{quiet:?}");
            change(&mut watch, again, Look::Alarming, 3, 20_000);
            watch.on_shown(SCREEN, id(1), Seq(2));
            assert!(late(&mut watch, 25_000), "{quiet:?}: a receipt for what was before counted");
            watch.on_shown(SCREEN, id(1), Seq(3));
            assert!(!late(&mut watch, 25_000), "{quiet:?}");
        }
    }

    #[test]
    fn a_change_that_is_no_alarm_needs_no_new_receipt() {
        let mut watch = begun(Priority::High);
        watch.on_shown(SCREEN, id(1), Seq(1));
        change(&mut watch, AlertChange::Update, Look::Alarming, 2, 1000);
        change(&mut watch, AlertChange::Latch, Look::Latched, 3, 2000);
        assert_eq!((watch.state(id(1)), watch.next_deadline()), (Some(DeliveryState::Shown), None));
    }

    #[test]
    fn a_higher_priority_has_to_be_shown_again_and_sooner() {
        let mut watch = begun(Priority::Medium);
        change(&mut watch, AlertChange::Update, Look::Alarming, 2, 1000);
        assert_eq!(watch.next_deadline(), Some(at(6000).mono));
        watch.on_shown(SCREEN, id(1), Seq(1));
        assert!(late(&mut watch, 6000), "it was shown as less than it is");
    }

    #[test]
    fn what_alarms_again_and_again_is_not_postponed() {
        let mut watch = begun(Priority::High);
        for second in 1..5 {
            change(&mut watch, AlertChange::Recur, Look::Alarming, second + 1, second * 1000);
        }
        assert!(late(&mut watch, 5000));
    }

    #[test]
    fn when_the_last_that_shows_it_leaves_it_has_to_be_shown_again() {
        let mut watch = begun(Priority::High);
        let other = Annunciator(8);
        watch.on_shown(SCREEN, id(1), Seq(1));
        watch.on_shown(other, id(1), Seq(1));
        watch.on_left(SCREEN, at(1000));
        assert_eq!((watch.state(id(1)), watch.annunciators()), (Some(DeliveryState::Shown), 1));
        watch.on_left(other, at(2000));
        assert!(!late(&mut watch, 6999));
        assert!(late(&mut watch, 7000));
    }

    #[test]
    fn a_person_who_knows_and_an_end_settle_it() {
        for (kind, look) in [
            (AlertChange::Acknowledge, Look::Acknowledged),
            (AlertChange::Pause, Look::Paused),
            (AlertChange::Update, Look::Hidden),
            (AlertChange::End, Look::Ended),
        ] {
            let mut watch = begun(Priority::High);
            assert!(late(&mut watch, 5000));
            change(&mut watch, kind, look, 2, 6000);
            assert_eq!((watch.undelivered().count(), watch.state(id(1))), (0, None), "{kind}");
        }
    }

    #[test]
    fn an_alert_that_latches_unseen_is_still_asked_for_also_after_a_restart() {
        let mut watch = begun(Priority::High);
        change(&mut watch, AlertChange::Latch, Look::Latched, 2, 1000);
        assert!(late(&mut watch, 5000));
        let mut restarted = DeliveryWatch::default();
        change(&mut restarted, AlertChange::Update, Look::Latched, 9, 0);
        assert!(late(&mut restarted, 5000));
    }

    /// The same said another way: everything that happened to one alert, kept and searched.
    #[derive(Default)]
    struct Oracle {
        asks: bool,
        sounds: bool,
        priority: Option<Priority>,
        alarmed: Seq,
        /// The moment from which its time counts, and the time.
        due: Option<Mono>,
        showing: BTreeSet<Annunciator>,
    }

    impl Oracle {
        fn is_late(&self, now: Mono) -> bool {
            self.asks && self.showing.is_empty() && self.due.is_some_and(|due| due <= now)
        }

        fn alert(&mut self, event: &AlertEvent, seq: Seq, now: Mono) {
            let asks = asks(event);
            let sounds = event.audio.presence == SignalPresence::On;
            let is_new = self.priority.is_none() || !self.asks;
            let again = is_new
                || matches!(event.change, AlertChange::Recur | AlertChange::Escalate | AlertChange::Resume)
                || (sounds && !self.sounds)
                || Some(event.priority) > self.priority;
            if asks && again {
                let due = now + shown_within(event.priority);
                let kept = self.due.filter(|_| !is_new && self.showing.is_empty());
                self.due = Some(kept.map_or(due, |kept| kept.min(due)));
                self.alarmed = seq;
                self.showing.clear();
            }
            if !asks {
                self.showing.clear();
                self.due = None;
            }
            (self.asks, self.sounds, self.priority) = (asks, sounds, Some(event.priority));
        }
    }

    /// Long enough that the rare pairs meet often; about a second in a debug build.
    const STEPS: u64 = 1_000_000;

    #[test]
    fn a_million_random_steps_agree_with_a_second_telling() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut watch, mut oracles) = (DeliveryWatch::default(), BTreeMap::<AlertId, Oracle>::new());
        let mut there = BTreeSet::new();
        let (mut now, mut lates, mut showns) = (0, 0_u64, 0_u64);
        for step in 0..STEPS {
            let seq = Seq(step + 1);
            // Sometimes exactly to the deadline, which must then have passed.
            let due = watch.next_deadline().map_or(0, Mono::as_millis);
            now = if random.u8(..4) == 0 { due.max(now) } else { now + random.u64(..2000) };
            let (alert, screen) = (id(random.u128(..4)), Annunciator(random.u64(..3)));
            let context = format!("seed {seed}, step {step}");
            match random.u8(..12) {
                0..6 => {
                    let look = Look::ALL[random.usize(..Look::ALL.len())];
                    let change = if look == Look::Ended { AlertChange::End } else { sample::a_change(&mut random) };
                    let priority = Priority::ALL[random.usize(..Priority::ALL.len())];
                    let event = sample::alert(alert, change, priority, look);
                    watch.on_alert(&event, seq, at(now));
                    if event.is_present() {
                        oracles.entry(alert).or_default().alert(&event, seq, at(now).mono);
                    } else {
                        oracles.remove(&alert);
                    }
                }
                6..9 => {
                    // Sometimes for what it was before.
                    let seen = oracles.get(&alert).map_or(seq, |it| it.alarmed);
                    let seen = Seq(seen.0.saturating_sub(u64::from(random.u8(..4) == 0)));
                    watch.on_shown(screen, alert, seen);
                    there.insert(screen);
                    if let Some(oracle) = oracles.get_mut(&alert).filter(|it| it.asks && seen >= it.alarmed) {
                        oracle.showing.insert(screen);
                        showns += 1;
                    }
                }
                9 => watch.on_delivered(alert, seq),
                10 => {
                    watch.on_joined(screen);
                    there.insert(screen);
                }
                _ => {
                    watch.on_left(screen, at(now));
                    there.remove(&screen);
                    for oracle in oracles.values_mut() {
                        if oracle.showing.remove(&screen) && oracle.showing.is_empty() {
                            oracle.due = oracle.priority.map(|priority| at(now).mono + shown_within(priority));
                        }
                    }
                }
            }
            watch.on_deadline(at(now));
            let late: BTreeSet<AlertId> = watch.undelivered().map(|(alert, _)| alert).collect();
            let expected: BTreeSet<AlertId> =
                oracles.iter().filter(|(_, it)| it.is_late(at(now).mono)).map(|(id, _)| *id).collect();
            assert_eq!(late, expected, "{context}");
            assert!(
                watch.next_deadline().is_none_or(|due| due > at(now).mono),
                "{context}: a deadline that has passed"
            );
            assert_eq!(watch.annunciators(), there.len(), "{context}");
            lates += u64::try_from(late.len()).unwrap();
        }
        assert!(lates > 10_000 && showns > 10_000, "seed {seed}: {lates} late, {showns} shown: the walk proves little");
    }
}
