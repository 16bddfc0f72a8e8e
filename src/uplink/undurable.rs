//! What goes out while the disk fails: alerts and the newest readings, from the store's memory and outside of every cursor.
//!
//! Each has the identity with which the log sends it once more when the disk works again. A run that ends before never gives
//! its numbers to other events: the next run has another epoch. Nothing here settles a row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::UplinkConfig;
use super::mqtt::Link;
use super::state::State;
use crate::clock::{Mono, Stamp};
use crate::event::{Event, EventBody};
use crate::ids::Seq;
use crate::store::{Rows, StoreHandle, StoreHealth};

/// Publications of this kind that may be without an answer.
pub(super) const BESIDE: usize = 16;

/// Of these, places that readings leave to everything else.
const RESERVE: usize = 8;

/// The store's memory is looked into this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Wait after the broker asked for less (MQTT 5.0 0x91, 0x97).
const HOLD: Duration = Duration::from_secs(5);

/// Events that are looked at in one turn for the alerts that stand.
const TAKEN_AT_ONCE: usize = 256;

/// What it works with.
pub(super) struct Surroundings<'a> {
    /// Where each message goes.
    pub(super) config: &'a UplinkConfig,
    /// The store.
    pub(super) handle: &'a StoreHandle,
    /// Readings wait for the clock.
    pub(super) is_held: bool,
}

/// A publication without an answer.
#[derive(Debug)]
struct Flight {
    at: Mono,
    /// The event, unless it is a reading: one that is not confirmed is sent again.
    seq: Option<Seq>,
}

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Undurable {
    /// What is no reading went out up to here.
    others: Seq,
    /// Readings went out up to here.
    readings: Seq,
    /// Of what stands, this is known.
    taken: Seq,
    /// At most [`BESIDE`].
    flights: BTreeMap<u64, Flight>,
    next_ticket: u64,
    not_before: Mono,
    /// The bridge leaves.
    is_over: bool,
}

impl Undurable {
    /// Sends what can be sent now; tells when there may be more. Nothing happens while the disk works.
    pub(super) fn turn(
        &mut self,
        around: &Surroundings<'_>,
        state: &mut State,
        link: Option<&mut Link>,
        now: Stamp,
    ) -> Option<Mono> {
        let is_failing = matches!(&*around.handle.health().borrow(), StoreHealth::Degraded { .. });
        if self.is_over || !is_failing {
            return None;
        }
        let durable = *around.handle.durable().borrow();
        for place in [&mut self.others, &mut self.readings, &mut self.taken] {
            *place = durable.max(*place);
        }
        self.take_alerts(around, state, now);
        let most = state.max_packet_bytes();
        if let (Some(link), Some(most)) = (link, most)
            && now.mono >= self.not_before
        {
            let room = BESIDE.saturating_sub(self.flights.len());
            for event in around.handle.unstored(Rows::Others, self.others, room) {
                self.others = event.seq;
                self.publish(around, link, (&event, Some(event.seq)), most, now.mono);
            }
            let room = BESIDE.saturating_sub(RESERVE).saturating_sub(self.flights.len());
            if !around.is_held {
                for event in around.handle.unstored(Rows::Readings, self.readings, room) {
                    self.readings = event.seq;
                    self.publish(around, link, (&event, None), most, now.mono);
                }
            }
        }
        Some(now.mono + LOOK_EVERY)
    }

    /// The alerts that stand are kept on the broker by what has happened, whether it is stored or not.
    fn take_alerts(&mut self, around: &Surroundings<'_>, state: &mut State, now: Stamp) {
        let timeline = Arc::clone(&around.handle.timeline().borrow());
        for event in around.handle.unstored(Rows::Others, self.taken, TAKEN_AT_ONCE) {
            self.taken = event.seq;
            if matches!(event.body, EventBody::Alert(_)) {
                state.take(around.config, &timeline.rebased((*event).clone()), &timeline, now);
            }
        }
    }

    fn publish(
        &mut self,
        around: &Surroundings<'_>,
        link: &mut Link,
        (event, seq): (&Event, Option<Seq>),
        most: u32,
        at: Mono,
    ) {
        let timeline = Arc::clone(&around.handle.timeline().borrow());
        let present_until = around.config.present_until(event, at);
        let row = around.config.encode(&timeline.rebased(event.clone()), present_until, &timeline);
        // What cannot be written or is too large is parked, and told, when it comes from the log.
        let Ok(message) = row.message else { return };
        if message.packet_bytes > usize::try_from(most).unwrap_or(usize::MAX) {
            return;
        }
        self.next_ticket = self.next_ticket.saturating_add(1);
        self.flights.insert(self.next_ticket, Flight { at, seq });
        link.publish_beside(self.next_ticket, &message);
    }

    /// The broker has answered. One that asks for less gets the same a little later; what it refuses is settled when it comes
    /// from the log.
    pub(super) fn on_answer(&mut self, ticket: u64, code: u8, now: Mono) {
        let Some(Flight { seq, .. }) = self.flights.remove(&ticket) else { return };
        if matches!(code, 0x91 | 0x97) {
            self.not_before = now + HOLD;
            self.go_back(seq);
        }
    }

    /// What was not confirmed goes again with the next connection.
    pub(super) fn on_disconnected(&mut self) {
        let first = self.flights.values().filter_map(|flight| flight.seq).min();
        self.flights.clear();
        self.go_back(first);
    }

    fn go_back(&mut self, seq: Option<Seq>) {
        if let Some(seq) = seq {
            self.others = self.others.min(Seq(seq.0.saturating_sub(1)));
        }
    }

    /// True if an answer has been missing for so long that the link is taken for dead.
    pub(super) fn is_stuck(&self, limit: Duration, now: Mono) -> bool {
        self.flights.first_key_value().is_some_and(|(_, oldest)| now.since(oldest.at) >= limit)
    }

    /// The bridge leaves: nothing more goes out.
    pub(super) const fn end(&mut self) {
        self.is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(seconds * 1000)
    }

    fn flying() -> Undurable {
        let flight = |seconds, seq: Option<u64>| Flight { at: at(seconds), seq: seq.map(Seq) };
        let flights = [(1, flight(1, None)), (2, flight(2, Some(21))), (3, flight(3, Some(22)))].into_iter().collect();
        Undurable { others: Seq(22), readings: Seq(20), flights, next_ticket: 3, ..Undurable::default() }
    }

    #[test]
    fn an_alert_that_was_not_confirmed_goes_again_and_a_reading_does_not() {
        let mut undurable = flying();
        undurable.on_answer(2, 0x00, at(4));
        undurable.on_disconnected();
        assert_eq!((undurable.others, undurable.readings, undurable.flights.len()), (Seq(21), Seq(20), 0));
        // An answer of the connection before says nothing.
        undurable.on_answer(3, 0x97, at(5));
        assert_eq!((undurable.others, undurable.not_before), (Seq(21), Mono(0)));
    }

    #[test]
    fn a_broker_that_asks_for_less_gets_the_same_later_and_one_that_refuses_does_not() {
        let mut undurable = flying();
        undurable.on_answer(3, 0x87, at(4));
        assert_eq!((undurable.others, undurable.not_before), (Seq(22), Mono(0)));
        undurable.on_answer(2, 0x97, at(4));
        assert_eq!((undurable.others, undurable.not_before), (Seq(20), at(9)));
    }

    #[test]
    fn a_link_without_answers_is_dead_after_its_time() {
        let mut undurable = flying();
        assert!(!undurable.is_stuck(Duration::from_secs(20), at(20)));
        assert!(undurable.is_stuck(Duration::from_secs(20), at(21)));
        undurable.on_answer(1, 0x00, at(21));
        assert!(!undurable.is_stuck(Duration::from_secs(20), at(21)));
    }
}
