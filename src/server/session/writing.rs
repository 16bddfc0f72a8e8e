//! How a session writes events: in the form that was agreed, and in the compact one behind the numbers of its streams.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Action, Session};
use crate::clock::Stamp;
use crate::event::{Event, EventBody};
use crate::outbox::{Compact, Published};
use crate::server::form::Form;
use crate::server::frames::{StreamData, StreamsData};

/// The numbers of streams that a client knows; at most [`crate::server::form::compact::MAX_NUMBERED`].
pub(super) type Told = BTreeSet<u32>;

impl Session {
    /// Writes an event that others get too.
    pub(super) fn write_shared(&mut self, published: &Arc<Published>, out: &mut Vec<Action>, now: Stamp) {
        let action = match self.form {
            Form::Json => None,
            Form::Cbor => Form::shared_cbor(published).map(Action::SendShared),
            Form::Compact => self.compact_of(published).map(|Compact { stream, text }| {
                self.tell_streams(&[stream], out, now);
                Action::SendShared(text)
            }),
        };
        out.push(action.unwrap_or_else(|| Action::SendShared(published.text.clone())));
    }

    /// Writes an event that this client alone gets, because it missed it.
    pub(super) fn write_event(&mut self, event: &Event, text: String, out: &mut Vec<Action>, now: Stamp) {
        // The numbers of streams, and short readings, belong to this run.
        let is_short = self.form == Form::Compact && event.epoch == self.shared.epoch;
        match is_short.then(|| self.shared.streams.compact(&text)).flatten() {
            Some(Compact { stream, text }) => {
                self.tell_streams(&[stream], out, now);
                out.push(Action::SendShared(text));
            }
            None => out.push(self.form.own(text)),
        }
    }

    /// Tells the numbers of the streams of a snapshot.
    pub(super) fn name_streams(&mut self, latest: &[Arc<Published>], out: &mut Vec<Action>, now: Stamp) {
        if self.form == Form::Compact {
            let numbers: Vec<u32> = latest
                .iter()
                .filter_map(|published| self.compact_of(published))
                .map(|compact| compact.stream)
                .collect();
            self.tell_streams(&numbers, out, now);
        }
    }

    fn compact_of(&self, published: &Published) -> Option<Compact> {
        let is_reading = matches!(published.event.body, EventBody::Reading(_));
        let is_short = is_reading && published.event.epoch == self.shared.epoch;
        is_short.then(|| self.shared.streams.shared(published)).flatten()
    }

    /// A number is told before the first reading that has it.
    fn tell_streams(&mut self, numbers: &[u32], out: &mut Vec<Action>, now: Stamp) {
        let new: Vec<u32> = numbers.iter().copied().filter(|number| self.told.insert(*number)).collect();
        let common = Arc::clone(&self.shared);
        let described = |number: &u32| {
            let stream = common.streams.stream(*number)?;
            Some(StreamData { stream: stream.number, channel: stream.channel.clone(), data: stream.data.clone() })
        };
        let streams: Vec<StreamData> = new.iter().filter_map(described).collect();
        if !streams.is_empty() {
            let base = common.streams.base().to_string();
            self.say(out, &StreamsData { epoch: &common.epoch, base, streams }, None, now);
        }
    }
}
