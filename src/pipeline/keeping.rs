//! What the store could not take: which numbers were lost, and the state that is written again once there is room.
//!
//! A lost reading is a gap in a trend. A lost change of an alert, of limits or of what people entered would be undone by
//! the next start, and the backend would never hear of it: the newest one of each is owed to the store until it has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::{Pipeline, Refusal};
use crate::clock::Stamp;
use crate::event::{AlertChange, AlertEvent, Event, EventBody, LimitKind, SystemEvent, SystemKind};
use crate::ids::{AlertId, PatientId, RuleId, Seq};
use crate::store::Refused;

/// Most facts that are owed. Beyond it the oldest alert that has ended makes room: the next start takes that one for
/// present, with its presence unknown, until a reading says otherwise.
const MAX_OWED: usize = 4096;

/// What the newest event of a kind says, and every older one no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    /// The state of an alert.
    Alert(AlertId),
    /// A change of limits, or its end.
    Limits(PatientId, RuleId, LimitKind),
    /// What a person sees of a patient.
    Observation(PatientId),
}

impl Fact {
    fn of(body: &EventBody) -> Option<Self> {
        match body {
            EventBody::Alert(alert) => Some(Self::Alert(alert.alert)),
            EventBody::Limits(limits) => {
                let change = &limits.change;
                Some(Self::Limits(change.patient.clone(), change.rule.clone(), change.kind))
            }
            EventBody::Observation(observation) => Some(Self::Observation(observation.patient.clone())),
            EventBody::Reading(_)
            | EventBody::Notification(_)
            | EventBody::Chat(_)
            | EventBody::Source(_)
            | EventBody::Record(_)
            | EventBody::System(_)
            | EventBody::Audit(_)
            | EventBody::Inbox(_) => None,
        }
    }
}

/// Events that the store refused.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    /// The first and the last number since the store last took everything.
    lost: Option<(Seq, Seq)>,
    /// The newest refused event of each fact of which no later one was taken.
    owed: BTreeMap<Fact, Arc<Event>>,
    /// Refused since the start, readings and records not counted.
    count: u64,
}

impl Unkept {
    /// Events other than readings and records that were refused since the start: whoever compares two counts knows
    /// whether something between them was.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    fn on_refused(&mut self, event: &Arc<Event>) {
        let first = self.lost.map_or(event.seq, |(first, _)| first);
        self.lost = Some((first, event.seq));
        if !matches!(event.body, EventBody::Reading(_) | EventBody::Record(_)) {
            self.count = self.count.saturating_add(1);
        }
        let Some(fact) = Fact::of(&event.body) else { return };
        if self.owed.len() >= MAX_OWED && !self.owed.contains_key(&fact) {
            let ended = |event: &Event| matches!(&event.body, EventBody::Alert(alert) if !alert.is_present());
            let oldest = self.owed.iter().find(|(_, event)| ended(event)).map(|(fact, _)| fact.clone());
            let Some(oldest) = oldest else {
                error!(seq = %event.seq, "too much waits to be written again: this change is not kept");
                return;
            };
            self.owed.remove(&oldest);
        }
        self.owed.insert(fact, Arc::clone(event));
    }

    fn on_taken(&mut self, event: &Event) {
        if !self.owed.is_empty()
            && let Some(fact) = Fact::of(&event.body)
        {
            self.owed.remove(&fact);
        }
    }
}

impl Pipeline {
    /// Hands an event to the store.
    pub(super) fn keep(&mut self, event: &Arc<Event>) {
        if self.store.try_append(Arc::clone(event)).is_ok() {
            self.unkept.on_taken(event);
            return;
        }
        self.metrics.store_refused_total.add_one();
        if self.unkept.lost.is_none() {
            error!(seq = %event.seq, "the store's queue is full: events are shown live but not kept");
        }
        self.unkept.on_refused(event);
    }

    /// Why a command is not begun.
    pub(super) fn not_begun(&self, refused: Refused) -> Refusal {
        match refused {
            Refused::Full => {
                self.metrics.commands_unkept_total.add_one();
                let reason = "the disk is too far behind to keep this, so nothing was done; ask again in a minute";
                Refusal { code: "store_full", reason: reason.to_owned() }
            }
            Refused::Stopped => Refusal { code: "unavailable", reason: "the bridge is stopping".to_owned() },
        }
    }

    /// Says which events were lost, and writes again what stands of them, once the store takes everything again.
    ///
    /// With new numbers: those that were refused stay empty. Dashboards see an alert that they know, once more.
    pub(super) fn write_what_is_owed(&mut self, now: Stamp) {
        if self.unkept.lost.is_none() || !self.store.is_at_ease() {
            return;
        }
        let Some((first, last)) = self.unkept.lost.take() else { return };
        let owed = std::mem::take(&mut self.unkept.owed);
        warn!(%first, %last, "the store takes events again");
        let message = format!("of the events {first} to {last} some were shown live but could not be kept");
        let system = SystemEvent { kind: SystemKind::EventsLost, message, first: Some(first), last: Some(last) };
        self.on_system(system, now);
        if !owed.is_empty() {
            info!(count = owed.len(), "what stands of the lost events is written again");
        }
        for event in owed.into_values() {
            match &event.body {
                EventBody::Alert(alert) if alert.is_present() => {
                    let again = AlertEvent { change: AlertChange::Update, ..alert.clone() };
                    self.publish_alerts(vec![again], now);
                }
                body => _ = self.publish(body.clone(), now),
            }
        }
    }
}
