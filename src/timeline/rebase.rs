//! An event with the times that it has by what is known of the clock now.

use std::sync::Arc;

use super::watch::STEP_MS;
use super::{Placed, Timeline};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{AlertEvent, Entered, Event, EventBody};
use crate::vitals::{Reading, TimeSource};

impl Timeline {
    /// The event as it is to be read now. Doing it once more changes nothing.
    #[must_use]
    pub fn rebased(&self, mut event: Event) -> Event {
        if let Some(placed) = self.placed(event.seq, event.at) {
            rebase(&mut event, placed);
        }
        event
    }

    /// The event as it is shown now; most are shown as they are stored.
    pub fn shown(&self, event: &Arc<Event>) -> Arc<Event> {
        let is_as_stored = self.placed(event.seq, event.at).is_none_or(|placed| {
            let is_reading = matches!(event.body, EventBody::Reading(_));
            placed.wall == event.at.wall && !(is_reading && placed.state.synced().is_some())
        });
        if is_as_stored { Arc::clone(event) } else { Arc::new(self.rebased(Event::clone(event))) }
    }

    /// True if [`Timeline::rebased`] would change an event that was published before the clock was set.
    pub fn redates(&self, event: &Event) -> bool {
        self.placed(event.seq, event.at).is_some_and(|placed| {
            let is_unsynced =
                matches!(&event.body, EventBody::Reading(reading) if reading.taken.source == TimeSource::Unsynced);
            placed.is_rebased && (placed.wall != event.at.wall || is_unsynced)
        })
    }
}

fn rebase(event: &mut Event, placed: Placed) {
    let stored = event.at;
    event.at.wall = placed.wall;
    let by = placed.wall.0.saturating_sub(stored.wall.0);
    match &mut event.body {
        EventBody::Reading(reading) => rebase_reading(reading, stored, placed),
        EventBody::Alert(alert) => move_alert(alert, by),
        EventBody::Notification(notification) => moved(&mut notification.created, by),
        EventBody::Observation(observation) => {
            // What holds for so long from then on.
            observation.oxygen.as_mut().into_iter().for_each(|entered| move_entry(entered, by));
            observation.consciousness.as_mut().into_iter().for_each(|entered| move_entry(entered, by));
        }
        // `expires` is what a person said.
        EventBody::Limits(limits) => limits.change.set.iter_mut().for_each(|set| moved(set, by)),
        EventBody::Chat(_)
        | EventBody::Source(_)
        | EventBody::Record(_)
        | EventBody::System(_)
        | EventBody::Audit(_)
        | EventBody::Inbox(_) => {}
    }
}

fn moved(wall: &mut Wall, by: i64) {
    wall.0 = wall.0.saturating_add(by);
}

fn move_entry<T>(entered: &mut Entered<T>, by: i64) {
    moved(&mut entered.at, by);
    moved(&mut entered.until, by);
}

fn move_alert(alert: &mut AlertEvent, by: i64) {
    let AlertEvent { onset, announced, paused_until, .. } = alert;
    for wall in [Some(onset), Some(announced), paused_until.as_mut()].into_iter().flatten() {
        moved(wall, by);
    }
}

/// The bytes arrived so long before the event was published, by the clock that does not step.
fn rebase_reading(reading: &mut Reading, stored: Stamp, placed: Placed) {
    let waited = |received: Mono| i64::try_from(stored.mono.since(received).as_millis()).unwrap_or(i64::MAX);
    let waited = waited(reading.received.mono);
    let stored_wait = stored.wall.0.saturating_sub(reading.received.wall.0);
    let is_stepped_between = stored_wait.saturating_sub(waited).saturating_abs() > STEP_MS;
    if placed.wall != stored.wall || is_stepped_between {
        let wait = if is_stepped_between { waited } else { stored_wait };
        let received = Wall(placed.wall.0.saturating_sub(wait));
        let by = received.0.saturating_sub(reading.received.wall.0);
        reading.received.wall = received;
        // A device whose own clock follows a time server does not care about ours.
        if let Some(taken) = reading.taken.wall.as_mut().filter(|_| reading.taken.source != TimeSource::DeviceSynced) {
            moved(taken, by);
        }
    }
    let taken = &mut reading.taken;
    match (taken.source, placed.state.synced()) {
        (TimeSource::Received | TimeSource::Unsynced, Some(true)) => {
            (taken.source, taken.uncertainty_ms) = (TimeSource::Received, placed.uncertainty_ms);
        }
        (TimeSource::Received | TimeSource::Unsynced, Some(false)) => {
            (taken.source, taken.uncertainty_ms) = (TimeSource::Unsynced, None);
        }
        // What the device's clock leaves open, and ours.
        (TimeSource::DeviceMapped, synced) => {
            let ours = placed.uncertainty_ms.filter(|_| synced == Some(true));
            taken.uncertainty_ms = taken.mapping_ms.zip(ours).map(|(its, ours)| its.saturating_add(ours));
        }
        _ => {}
    }
}
