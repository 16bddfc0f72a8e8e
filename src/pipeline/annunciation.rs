//! How alerts reach people: receipts, the alert about alerts that nobody sees, the local fallback, escalation and the
//! self-check that every dashboard gets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Pipeline;
use crate::alerts::BridgeCondition;
use crate::alerts::delivery::{Annunciator, DeliveryWatch};
use crate::alerts::escalation::{Escalations, Route, bit_of};
use crate::clock::{Mono, Stamp};
use crate::event::{AlertEvent, AuditAction, AuditEvent, AuditResult, EventBody, Priority};
use crate::fallback::{Call, MAX_NAMED, Wanted};
use crate::hub::{ListenerId, Scope};
use crate::ids::{AlertId, Seq};
use crate::outbox::{CheckedAlert, SelfCheck};

/// The self-check goes out this often; a client that misses two of them says NO ALARMS FROM BRIDGE.
pub const SELF_CHECK_EVERY: Duration = Duration::from_secs(5);

/// What people read, always, where nobody has to confirm that alerts are shown.
pub const NOT_CONFIRMED: &str =
    "Delivery of alerts is not confirmed: an alert that no screen shows raises no alarm (annunciators = \"none\")";

/// How alerts reach people, as configured.
#[derive(Debug, Default)]
pub struct Annunciation {
    /// Somebody has to show each alert; that nobody does is an alert too.
    pub confirms: bool,
    /// Where alerts go that nobody acknowledges.
    pub routes: Vec<Route>,
    /// The local fallback, if there is one.
    pub fallback: Option<watch::Sender<Wanted>>,
}

/// What a client says about alerts that it got.
#[derive(Debug)]
pub struct Receipt {
    /// The client.
    pub listener: ListenerId,
    /// They are shown, or else only there.
    pub shown: bool,
    /// Each with the newest event of it that the client had.
    pub alerts: Vec<(AlertId, Seq)>,
    /// What the client may see; it confirms nothing else.
    pub scope: Scope,
}

/// What the pipeline keeps about that.
#[derive(Debug)]
pub(super) struct Annunciators {
    confirms: bool,
    watch: DeliveryWatch,
    escalations: Escalations,
    fallback: Option<watch::Sender<Wanted>>,
    /// What the engine was told to be undelivered; `None`: nothing yet, because it was not known.
    told: Option<BTreeMap<AlertId, Priority>>,
    /// What the fallback was called for last, and how often it was called.
    called: (BTreeMap<AlertId, Priority>, u64),
    /// Something happened since the last look.
    is_changed: bool,
    checks: u64,
    next_check: Mono,
}

impl Annunciators {
    pub(super) fn new(settings: Annunciation, now: Stamp) -> Self {
        Self {
            confirms: settings.confirms,
            watch: DeliveryWatch::default(),
            escalations: Escalations::new(settings.routes),
            fallback: settings.fallback,
            told: None,
            called: (BTreeMap::new(), 0),
            is_changed: true,
            checks: 0,
            next_check: now.mono + SELF_CHECK_EVERY,
        }
    }

    /// An alert changed. The alert about undelivered alerts never stands for itself.
    pub(super) fn on_alert(&mut self, event: &AlertEvent, is_about_delivery: bool, seq: Seq, now: Stamp) {
        self.is_changed = true;
        self.escalations.on_alert(event, now);
        if !is_about_delivery {
            self.watch.on_alert(event, seq, now);
        }
    }

    /// When there is something to do next.
    pub(super) fn next_deadline(&self) -> Mono {
        let late = if self.confirms { self.watch.next_deadline() } else { None };
        [late, self.escalations.next_deadline()].into_iter().flatten().fold(self.next_check, Mono::min)
    }

    /// The alerts that nobody has shown in time, once that is known: alerts of an earlier run have their time first.
    fn undelivered(&self) -> Option<BTreeMap<AlertId, Priority>> {
        if !self.confirms {
            return Some(BTreeMap::new());
        }
        let late: BTreeMap<AlertId, Priority> = self.watch.undelivered().collect();
        let is_known = self.told.is_some() || !late.is_empty() || !self.watch.is_undecided();
        is_known.then_some(late)
    }
}

impl Pipeline {
    /// Says how alerts reach people. Those that stand already count from now on.
    pub fn annunciate(&mut self, settings: Annunciation, now: Stamp) {
        let mut annunciators = Annunciators::new(settings, now);
        let present: Vec<_> = self.hub.alerts().cloned().collect();
        for published in present {
            if let EventBody::Alert(event) = &published.event.body {
                let is_about_delivery = self.engine.is_about_delivery(&event.rule);
                annunciators.on_alert(event, is_about_delivery, published.event.seq, now);
            }
        }
        self.annunciators = annunciators;
        self.settle_annunciation(now);
    }

    /// A client shows alerts to people from now on.
    pub(super) fn on_annunciator(&mut self, listener: ListenerId) {
        if self.hub.has(listener) {
            self.annunciators.is_changed = true;
            self.annunciators.watch.on_joined(Annunciator(listener.number()));
        }
    }

    /// A client has gone.
    pub(super) fn on_annunciator_left(&mut self, listener: ListenerId, now: Stamp) {
        self.annunciators.is_changed = true;
        self.annunciators.watch.on_left(Annunciator(listener.number()), now);
    }

    /// A client says what it has, or shows.
    pub(super) fn on_receipt(&mut self, receipt: &Receipt) {
        let Receipt { listener, shown, alerts, scope } = receipt;
        // A receipt that comes after its client has gone is worth nothing.
        if !self.hub.has(*listener) {
            return;
        }
        self.annunciators.is_changed = true;
        for (alert, seq) in alerts {
            self.metrics.alert_receipts_total.add_one();
            // Who may not see an alert cannot have shown it.
            if !self.hub.alert(*alert).is_some_and(|published| scope.allows(&published.routes)) {
                continue;
            }
            if *shown {
                self.annunciators.watch.on_shown(Annunciator(listener.number()), *alert, *seq);
            } else {
                self.annunciators.watch.on_delivered(*alert, *seq);
            }
        }
    }

    /// Does what receipts, alerts and the time ask for. Cheap while there is nothing.
    pub(super) fn settle_annunciation(&mut self, now: Stamp) {
        if !self.annunciators.is_changed && self.annunciators.next_deadline() > now.mono {
            return;
        }
        self.annunciators.is_changed = false;
        self.annunciators.watch.on_deadline(now);
        self.tell_undelivered(now);
        self.escalate(now);
        self.call_fallback();
        self.metrics.annunciators.set(u64::try_from(self.annunciators.watch.annunciators()).unwrap_or(u64::MAX));
        if self.annunciators.next_check <= now.mono {
            self.annunciators.next_check = now.mono + SELF_CHECK_EVERY;
            self.annunciators.checks += 1;
            let check = Arc::new(self.self_check());
            self.hub.self_check(&check);
        }
    }

    fn tell_undelivered(&mut self, now: Stamp) {
        let Some(late) = self.annunciators.undelivered() else { return };
        if self.annunciators.told.as_ref() == Some(&late) {
            return;
        }
        let before = self.annunciators.told.take().unwrap_or_default();
        for alert in late.keys().filter(|alert| !before.contains_key(alert)) {
            warn!(%alert, "no annunciator has shown an alert in time");
        }
        self.metrics.alerts_undelivered.set(u64::try_from(late.len()).unwrap_or(u64::MAX));
        let changes = self.engine.on_undelivered(&late.keys().copied().collect(), now);
        self.annunciators.told = Some(late);
        self.publish_alerts(changes, now);
    }

    /// Takes alerts that are old enough along their routes. One that reaches nobody goes further at once, in the end to
    /// the fallback.
    fn escalate(&mut self, now: Stamp) {
        for (alert, number) in self.annunciators.escalations.due(now) {
            // An earlier route may have led to this one already.
            let mut next = Some(number).filter(|number| self.annunciators.escalations.is_open(alert, *number));
            let mut is_due = true;
            while let Some(number) = next {
                let is_reached = self.take_route(alert, number, is_due, now);
                next = if is_reached { None } else { self.annunciators.escalations.next_route(alert) };
                if !is_reached && next.is_none() {
                    self.nobody_reached(alert, now);
                }
                is_due = false;
            }
        }
    }

    /// Takes an alert along a route, which is due or follows one that reached nobody; false if this one reaches nobody.
    fn take_route(&mut self, alert: AlertId, number: usize, is_due: bool, now: Stamp) -> bool {
        self.annunciators.escalations.on_taken(alert, number);
        let route = self.annunciators.escalations.routes().get(number).cloned();
        let event = self.hub.alert(alert).map(|published| Arc::clone(&published.event));
        // An alert that is over needs nobody.
        let (Some(route), Some(event)) = (route, event) else { return true };
        let EventBody::Alert(event) = &event.body else { return true };
        self.metrics.alerts_escalated_total.add_one();
        info!(%alert, to = route.targets(), "nobody has acknowledged an alert: it goes further");
        let changes = self.engine.on_escalated(alert, bit_of(number), now);
        self.publish_alerts(changes, now);
        let messages = self.notifier.call(event, &route.users, &route.roles, now);
        let is_reached = !messages.is_empty() || (route.fallback && self.annunciators.fallback.is_some());
        let why = if is_due {
            format!("not acknowledged for {} s", route.after.as_secs())
        } else {
            "the route before reached nobody".to_owned()
        };
        let (result, end) =
            if is_reached { (AuditResult::Done, "") } else { (AuditResult::Failed, ": reaches nobody") };
        if !is_reached {
            warn!(%alert, to = route.targets(), "an escalation reaches nobody: nobody of them is known and sees the patient");
        }
        let reason = format!("{why}: to {}{end}", route.targets());
        self.publish(EventBody::Audit(escalated(event, result, reason)), now);
        self.publish_all(messages, now);
        is_reached
    }

    /// No route is left that could reach anybody: the fallback stands for the alert until somebody acknowledges it.
    fn nobody_reached(&mut self, alert: AlertId, now: Stamp) {
        let event = self.hub.alert(alert).map(|published| Arc::clone(&published.event));
        let Some(EventBody::Alert(event)) = event.as_deref().map(|event| &event.body) else { return };
        let changes = self.engine.on_escalated(alert, AlertEvent::NOBODY_REACHED, now);
        self.publish_alerts(changes, now);
        let (result, to) = if self.annunciators.fallback.is_some() {
            (AuditResult::Done, "to fallback")
        } else {
            error!(%alert, "no route of escalation reaches anybody, and there is no fallback");
            (AuditResult::Failed, "there is no fallback")
        };
        let reason = format!("no route reaches anybody: {to}");
        self.publish(EventBody::Audit(escalated(event, result, reason)), now);
    }

    /// Has the local fallback stand for what nobody sees: alerts that are undelivered, and those that a route brought to
    /// it, or that no route could bring to anybody. That the fallback itself does not work is nothing that it could tell.
    fn call_fallback(&mut self) {
        let Some(fallback) = &self.annunciators.fallback else { return };
        let Some(late) = &self.annunciators.told else { return };
        let late = late.iter().map(|(alert, priority)| (*alert, *priority));
        let standing: BTreeMap<AlertId, Priority> = late
            .chain(self.annunciators.escalations.calls_fallback())
            .filter(|(alert, _)| {
                self.hub.alert(*alert).is_some_and(|published| match &published.event.body {
                    EventBody::Alert(event) => !self.engine.is_about(BridgeCondition::FallbackFailed, &event.rule),
                    _ => false,
                })
            })
            .collect();
        let (before, number) = &mut self.annunciators.called;
        let is_known = |(alert, priority): (&AlertId, &Priority)| before.get(alert).is_some_and(|it| it >= priority);
        if !standing.iter().all(is_known) {
            *number += 1;
        }
        let number = *number;
        let wanted = if standing.is_empty() { Wanted::Off } else { Wanted::On(self.call(&standing, number)) };
        fallback.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
        self.annunciators.called.0 = standing;
    }

    fn call(&self, standing: &BTreeMap<AlertId, Priority>, number: u64) -> Call {
        let mut alerts: Vec<(AlertId, Priority)> = standing.iter().map(|(alert, it)| (*alert, *it)).collect();
        // The most urgent first, and of those the oldest: identities sort by their time.
        alerts.sort_by_key(|(alert, priority)| (std::cmp::Reverse(*priority), *alert));
        let (first, priority) = alerts.first().copied().unzip();
        let message = first.and_then(|alert| self.hub.alert(alert)).map(|published| match &published.event.body {
            EventBody::Alert(event) => {
                let patient = event.patient.as_ref();
                let bed = patient.and_then(|patient| self.patients.get(patient)).map(|patient| patient.bed.clone());
                let place = bed.or_else(|| patient.map(ToString::to_string)).unwrap_or_else(|| "bridge".to_owned());
                format!("{place}: {}", event.message)
            }
            _ => String::new(),
        });
        let count = alerts.len();
        let alerts = alerts.into_iter().take(MAX_NAMED).map(|(alert, _)| alert).collect();
        let priority = priority.unwrap_or(Priority::High);
        Call { number, priority, count, alerts, message: message.unwrap_or_default() }
    }

    /// What every dashboard is told every five seconds.
    fn self_check(&self) -> SelfCheck {
        let Annunciators { confirms, watch, checks, told, .. } = &self.annunciators;
        let alerts = self.hub.alerts().filter_map(|published| match &published.event.body {
            EventBody::Alert(event) => {
                let delivery = watch.state(event.alert).filter(|_| *confirms);
                Some(CheckedAlert { alert: event.alert, published: Arc::clone(published), delivery })
            }
            _ => None,
        });
        SelfCheck {
            number: *checks,
            every: SELF_CHECK_EVERY,
            through: Seq(self.next.0.saturating_sub(1)),
            alerts: alerts.collect(),
            annunciators: watch.annunciators(),
            undelivered: told.as_ref().map_or(0, BTreeMap::len),
            notice: (!confirms).then_some(NOT_CONFIRMED),
        }
    }
}

/// The row of the audit trail for a route that an alert has taken.
fn escalated(alert: &AlertEvent, result: AuditResult, reason: String) -> AuditEvent {
    AuditEvent {
        by: AuditEvent::BRIDGE.to_owned(),
        address: None,
        action: AuditAction::AlertEscalated,
        object: alert.alert.to_string(),
        patient: alert.patient.clone(),
        device: alert.device.clone(),
        source: None,
        result,
        reason: Some(reason),
        mode: alert.mode,
    }
}
