//! Escalation: where an alert goes that nobody acknowledges, by its age and priority.
//!
//! Pure. What an alert has taken is a part of its events ([`AlertEvent::escalated`]), so that a restart goes on with it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::event::{Activation, AlertChange, AlertEvent, Priority, SignalPresence};
use crate::ids::AlertId;

/// Most routes; each is one bit of [`AlertEvent::escalated`].
pub const MAX_ROUTES: usize = 16;

/// Where an alert goes when it is older than this and nobody has acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The age, since it began to alarm or, once acknowledged, since it reminded.
    pub after: Duration,
    /// The least priority.
    pub priority: Priority,
    /// Who is told, by name.
    pub users: Vec<String>,
    /// Who is told, by role.
    pub roles: Vec<String>,
    /// The local fallback is on until the alert is acknowledged or over.
    pub fallback: bool,
}

impl Route {
    /// Whom it reaches, as the configuration writes it: `user:anna, role:clinician, fallback`.
    pub fn targets(&self) -> String {
        let users = self.users.iter().map(|user| format!("user:{user}"));
        let roles = self.roles.iter().map(|role| format!("role:{role}"));
        let fallback = self.fallback.then(|| "fallback".to_owned());
        users.chain(roles).chain(fallback).collect::<Vec<_>>().join(", ")
    }
}

/// The bit of a route in [`AlertEvent::escalated`].
pub fn bit_of(route: usize) -> u32 {
    if route >= MAX_ROUTES {
        return 0;
    }
    u32::try_from(route).ok().and_then(|route| 1_u32.checked_shl(route)).unwrap_or(0)
}

/// One present alert.
#[derive(Debug, Clone)]
struct Tracked {
    /// Since when it waits for somebody.
    since: Mono,
    priority: Priority,
    is_acknowledged: bool,
    /// Hidden by another alert or paused: its age counts on, and it goes nowhere meanwhile.
    is_held: bool,
    taken: u32,
}

/// The age of each present alert. As many as the engine has.
#[derive(Debug, Clone, Default)]
pub struct Escalations {
    routes: Vec<Route>,
    alerts: BTreeMap<AlertId, Tracked>,
}

impl Escalations {
    /// With these routes; those beyond [`MAX_ROUTES`] are never taken, and the configuration refuses them.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes, alerts: BTreeMap::new() }
    }

    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// An alert changed.
    ///
    /// The age of one that is met for the first time in this run comes from its `announced`; it counts on by the
    /// monotonic clock from there. A wall clock that was set back meanwhile makes it young.
    pub fn on_alert(&mut self, event: &AlertEvent, now: Stamp) {
        if !event.is_present() {
            self.alerts.remove(&event.alert);
            return;
        }
        let is_acknowledged = event.audio.presence == SignalPresence::Ack;
        let is_held = event.hidden_by.is_some() || event.audio.activation == Activation::Paused;
        let old = u64::try_from(now.wall.0.saturating_sub(event.announced.0)).unwrap_or(0);
        let since = match self.alerts.get(&event.alert) {
            Some(before) if before.is_acknowledged && !is_acknowledged => now.mono,
            Some(before) => before.since,
            None if event.change == AlertChange::Start => now.mono,
            None => now.mono - Duration::from_millis(old),
        };
        let tracked = Tracked { since, priority: event.priority, is_acknowledged, is_held, taken: event.escalated };
        self.alerts.insert(event.alert, tracked);
    }

    /// An alert takes a route now: it is not due again, also if no event of the alert says so.
    pub fn on_taken(&mut self, alert: AlertId, route: usize) {
        if let Some(tracked) = self.alerts.get_mut(&alert) {
            tracked.taken |= bit_of(route);
        }
    }

    /// When a route is due next.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.open().map(|(_, _, due)| due).min()
    }

    /// Routes that alerts have to take now, the oldest first. Each stays due until
    /// [`Escalations::on_taken`], or an event of the alert with its bit.
    pub fn due(&self, now: Stamp) -> Vec<(AlertId, usize)> {
        let mut due: Vec<_> = self.open().filter(|(_, _, due)| *due <= now.mono).collect();
        due.sort_by_key(|(alert, route, due)| (*due, *route, *alert));
        due.into_iter().map(|(alert, route, _)| (alert, route)).collect()
    }

    /// True if an alert has still to take a route.
    pub fn is_open(&self, alert: AlertId, route: usize) -> bool {
        self.open().any(|(it, number, _)| (it, number) == (alert, route))
    }

    /// The route that an alert takes next, whenever that is.
    pub fn next_route(&self, alert: AlertId) -> Option<usize> {
        let open = self.open().filter(|(it, ..)| *it == alert);
        open.min_by_key(|(_, number, due)| (*due, *number)).map(|(_, number, _)| number)
    }

    /// Every route that an alert has still to take, and when.
    fn open(&self) -> impl Iterator<Item = (AlertId, usize, Mono)> {
        let waiting = self.alerts.iter().filter(|(_, tracked)| !tracked.is_acknowledged && !tracked.is_held);
        waiting.flat_map(|(alert, tracked)| {
            let routes = self.routes.iter().enumerate().filter(|(number, route)| {
                let bit = bit_of(*number);
                tracked.priority >= route.priority && bit != 0 && tracked.taken & bit == 0
            });
            routes.map(|(number, route)| (*alert, number, tracked.since + route.after))
        })
    }

    /// The alerts for which a route asks for the local fallback, or whose routes reach nobody, with their priorities.
    pub fn calls_fallback(&self) -> impl Iterator<Item = (AlertId, Priority)> {
        let asks = |taken: u32| {
            let mut routes = self.routes.iter().enumerate();
            taken & AlertEvent::NOBODY_REACHED != 0
                || routes.any(|(number, route)| route.fallback && taken & bit_of(number) != 0)
        };
        let waiting = self.alerts.iter().filter(|(_, tracked)| !tracked.is_acknowledged && !tracked.is_held);
        waiting.filter(move |(_, tracked)| asks(tracked.taken)).map(|(alert, tracked)| (*alert, tracked.priority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::sample::{self, Look};
    use crate::clock::Wall;

    fn at(seconds: u64) -> Stamp {
        Stamp { mono: Mono::from_millis((1000 + seconds) * 1000), wall: Wall(i64::try_from(seconds).unwrap() * 1000) }
    }

    fn route(after_s: u64, priority: Priority, fallback: bool) -> Route {
        let users = if fallback { Vec::new() } else { vec!["anna".to_owned()] };
        Route { after: Duration::from_secs(after_s), priority, users, roles: Vec::new(), fallback }
    }

    fn id(number: u128) -> AlertId {
        AlertId(uuid::Uuid::from_u128(number))
    }

    /// A high route after 2 min, and the fallback for everything from medium on after 5 min.
    fn routes() -> Escalations {
        Escalations::new(vec![route(120, Priority::High, false), route(300, Priority::Medium, true)])
    }

    fn event(change: AlertChange, priority: Priority, look: Look, escalated: u32) -> AlertEvent {
        AlertEvent { escalated, ..sample::alert(id(1), change, priority, look) }
    }

    #[test]
    fn an_alert_takes_each_route_of_its_priority_when_it_is_old_enough() {
        for (priority, second, expected) in [
            (Priority::High, 119, vec![]),
            (Priority::High, 120, vec![0]),
            (Priority::High, 300, vec![0, 1]),
            (Priority::Medium, 299, vec![]),
            (Priority::Medium, 300, vec![1]),
            (Priority::Low, 9999, vec![]),
        ] {
            let mut machine = routes();
            machine.on_alert(&event(AlertChange::Start, priority, Look::Alarming, 0), at(0));
            let due: Vec<usize> = machine.due(at(second)).into_iter().map(|(_, route)| route).collect();
            assert_eq!(due, expected, "{priority} after {second} s");
        }
    }

    #[test]
    fn a_route_is_taken_once() {
        let mut machine = routes();
        machine.on_alert(&event(AlertChange::Start, Priority::High, Look::Alarming, 0), at(0));
        machine.on_alert(&event(AlertChange::Update, Priority::High, Look::Alarming, bit_of(0)), at(120));
        assert!(machine.due(at(200)).is_empty());
        assert_eq!(machine.next_deadline(), Some(at(300).mono));
        assert_eq!(machine.calls_fallback().count(), 0);
        machine.on_alert(&event(AlertChange::Update, Priority::High, Look::Alarming, bit_of(0) | bit_of(1)), at(300));
        assert_eq!(machine.calls_fallback().collect::<Vec<_>>(), [(id(1), Priority::High)]);
        assert_eq!(machine.next_deadline(), None);
    }

    #[test]
    fn who_acknowledges_ends_it_and_a_reminder_begins_anew() {
        let mut machine = routes();
        machine.on_alert(&event(AlertChange::Start, Priority::High, Look::Alarming, 0), at(0));
        machine.on_alert(&event(AlertChange::Acknowledge, Priority::High, Look::Acknowledged, 0), at(100));
        assert_eq!((machine.next_deadline(), machine.calls_fallback().count()), (None, 0));
        machine.on_alert(&event(AlertChange::Update, Priority::High, Look::Alarming, 0), at(280));
        assert_eq!(machine.next_deadline(), Some(at(400).mono));
    }

    #[test]
    fn what_is_paused_or_hidden_grows_older_and_goes_nowhere_meanwhile() {
        for look in [Look::Paused, Look::Hidden] {
            let mut machine = routes();
            machine.on_alert(&event(AlertChange::Start, Priority::High, Look::Alarming, 0), at(0));
            machine.on_alert(&event(AlertChange::Update, Priority::High, look, 0), at(60));
            assert!(machine.due(at(150)).is_empty(), "{look:?}");
            machine.on_alert(&event(AlertChange::Resume, Priority::High, Look::Alarming, 0), at(150));
            assert_eq!(machine.due(at(150)), [(id(1), 0)], "{look:?}");
        }
    }

    #[test]
    fn what_latched_unseen_still_waits_for_somebody() {
        let mut machine = routes();
        machine.on_alert(&event(AlertChange::Start, Priority::High, Look::Alarming, 0), at(0));
        machine.on_alert(&event(AlertChange::Latch, Priority::High, Look::Latched, 0), at(10));
        assert_eq!(machine.due(at(120)), [(id(1), 0)]);
        machine.on_alert(&event(AlertChange::End, Priority::High, Look::Ended, 0), at(121));
        assert!(machine.due(at(999)).is_empty());
    }

    #[test]
    fn a_restart_goes_on_with_the_age_and_with_what_was_taken() {
        let mut machine = routes();
        // Announced at 0; the daemon came back 200 s later, with another monotonic clock.
        let restored = event(AlertChange::Update, Priority::High, Look::Alarming, bit_of(0));
        let boot = Stamp { mono: Mono::from_millis(500_000), wall: at(200).wall };
        machine.on_alert(&restored, boot);
        assert!(machine.due(boot).is_empty(), "the first route was taken before");
        assert_eq!(machine.next_deadline(), Some(boot.mono + Duration::from_secs(100)));
        // A wall clock that was set back makes it young, and never older than the machine can tell.
        let mut machine = routes();
        machine.on_alert(&restored, Stamp { mono: Mono::from_millis(500_000), wall: Wall(-5_000_000) });
        assert_eq!(machine.next_deadline(), Some(Mono::from_millis(800_000)));
    }

    #[test]
    fn a_route_that_the_configuration_would_refuse_is_not_due_for_ever() {
        let mut machine = Escalations::new(vec![route(0, Priority::Low, true); 40]);
        machine.on_alert(&event(AlertChange::Start, Priority::High, Look::Alarming, u32::MAX), at(0));
        assert_eq!((machine.due(at(0)).len(), machine.next_deadline()), (0, None));
    }

    #[test]
    fn the_next_route_of_an_alert_is_the_one_that_is_due_first_and_not_taken() {
        let mut machine = routes();
        machine.on_alert(&event(AlertChange::Start, Priority::High, Look::Alarming, 0), at(0));
        assert_eq!((machine.next_route(id(1)), machine.next_route(id(2))), (Some(0), None));
        machine.on_taken(id(1), 0);
        assert_eq!((machine.next_route(id(1)), machine.is_open(id(1), 0)), (Some(1), false));
        machine.on_taken(id(1), 1);
        assert_eq!(machine.next_route(id(1)), None);
    }

    #[test]
    fn an_alert_whose_routes_reach_nobody_calls_the_fallback_until_somebody_knows() {
        let mut machine = Escalations::new(vec![route(120, Priority::Low, false)]);
        let taken = bit_of(0) | AlertEvent::NOBODY_REACHED;
        machine.on_alert(&event(AlertChange::Update, Priority::High, Look::Alarming, taken), at(120));
        assert_eq!(machine.calls_fallback().collect::<Vec<_>>(), [(id(1), Priority::High)]);
        machine.on_alert(&event(AlertChange::Acknowledge, Priority::High, Look::Acknowledged, 0), at(121));
        assert_eq!(machine.calls_fallback().count(), 0);
    }

    /// About a second in a debug build.
    const STEPS: u64 = 1_000_000;

    #[test]
    fn in_a_million_random_steps_a_route_is_taken_once_in_time_and_only_by_whom_nobody_knows() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut machine = routes();
        let mut latest: BTreeMap<AlertId, (AlertEvent, Mono)> = BTreeMap::new();
        let (mut now, mut taken) = (at(0), 0_u64);
        for step in 0..STEPS {
            let pause = Duration::from_millis(random.u64(..60_000));
            let next = machine.next_deadline().filter(|due| *due > now.mono);
            // Never past a deadline, as the pipeline sleeps no longer; the wall clock is of no concern.
            now = Stamp { mono: next.map_or(now.mono + pause, |due| due.min(now.mono + pause)), wall: now.wall };
            let alert = id(random.u128(..4));
            let look = Look::ALL[random.usize(..Look::ALL.len())];
            let known = latest.get(&alert).map(|(event, _)| event.clone());
            let change = match (look, &known) {
                (Look::Ended, _) => AlertChange::End,
                (_, None) => AlertChange::Start,
                _ => AlertChange::Update,
            };
            let priority = Priority::ALL[random.usize(..Priority::ALL.len())];
            // A new alert has taken nothing, and an acknowledgement forgets what was taken.
            let escalated = if look == Look::Acknowledged { 0 } else { known.as_ref().map_or(0, |it| it.escalated) };
            let event = AlertEvent { escalated, ..sample::alert(alert, change, priority, look) };
            if random.u8(..3) == 0 {
                machine.on_alert(&event, now);
                let was_known = known.as_ref().is_some_and(|it| it.audio.presence == SignalPresence::Ack);
                let begins = known.is_none() || (was_known && event.audio.presence != SignalPresence::Ack);
                let since = if begins { now.mono } else { latest[&alert].1 };
                if event.is_present() {
                    latest.insert(alert, (event, since));
                } else {
                    latest.remove(&alert);
                }
            }
            for (alert, route) in machine.due(now) {
                let context = format!("seed {seed}, step {step}, route {route}");
                let (event, since) = latest.get_mut(&alert).unwrap_or_else(|| panic!("{context}: it is over"));
                let rule = &machine.routes[route];
                assert_eq!(event.escalated & bit_of(route), 0, "{context}: taken twice");
                assert!(
                    now.mono.since(*since) >= rule.after && event.priority >= rule.priority,
                    "{context}: too early"
                );
                assert!(event.audio.presence != SignalPresence::Ack && event.hidden_by.is_none(), "{context}");
                event.escalated |= bit_of(route);
                let marked = event.clone();
                machine.on_alert(&AlertEvent { change: AlertChange::Update, ..marked }, now);
                taken += 1;
            }
            assert!(machine.next_deadline().is_none_or(|due| due > now.mono), "seed {seed}, step {step}: overdue");
        }
        assert!(taken > 1000, "seed {seed}: {taken} taken: the walk proves little");
    }
}
