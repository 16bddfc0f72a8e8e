//! The lane of readings: in the order of their coming, where the newest of a stream takes the place of the one that waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Published, READING_LANE};
use crate::event::EventBody;
use crate::ids::{DeviceId, PatientId, Seq};
use crate::vitals::Metric;

/// Whose reading, by which device, of what.
pub(super) type Stream = (Option<PatientId>, DeviceId, Metric);

/// At most [`READING_LANE`] readings.
#[derive(Debug, Default)]
pub(super) struct Readings {
    waiting: VecDeque<Arc<Published>>,
    /// The number of the first place; those of the others follow.
    first: u64,
    /// Where streams wait whose newest reading is all that is wanted.
    places: HashMap<Stream, u64>,
}

impl Readings {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.waiting.iter()
    }

    /// Puts one behind the others that nothing replaces; gives the oldest if the lane was full.
    pub(super) fn put(&mut self, published: &Arc<Published>) -> Option<Arc<Published>> {
        let dropped = if self.len() >= READING_LANE { self.take() } else { None };
        self.waiting.push_back(Arc::clone(published));
        dropped
    }

    /// Puts the newest of a stream in, in the place of the one that waits; gives what had to go for it.
    pub(super) fn put_newest(&mut self, stream: Stream, published: &Arc<Published>) -> Option<Arc<Published>> {
        if let Some(waiting) =
            self.places.get(&stream).and_then(|place| self.waiting.get_mut(index(self.first, *place)))
        {
            return Some(std::mem::replace(waiting, Arc::clone(published)));
        }
        let dropped = self.put(published);
        let behind = u64::try_from(self.len().saturating_sub(1)).unwrap_or(u64::MAX);
        self.places.insert(stream, self.first.saturating_add(behind));
        dropped
    }

    /// What waits in the place of a stream is one reading like others from now on: if it could still be replaced, something
    /// newer would go out before what is about to be put behind it.
    pub(super) fn pin(&mut self, stream: impl FnOnce() -> Stream) {
        if !self.places.is_empty() {
            self.places.remove(&stream());
        }
    }

    /// The reading that waits in the place of a stream.
    pub(super) fn newest(&self, stream: &Stream) -> Option<&Arc<Published>> {
        self.places.get(stream).and_then(|place| self.waiting.get(index(self.first, *place)))
    }

    /// The number of the oldest, unless a newer one of its stream may take its place.
    pub(super) fn oldest(&self) -> Option<Seq> {
        let oldest = self.waiting.front()?;
        (!self.is_place(oldest)).then_some(oldest.event.seq)
    }

    /// Takes the oldest.
    pub(super) fn take(&mut self) -> Option<Arc<Published>> {
        let oldest = self.waiting.pop_front()?;
        if self.is_place(&oldest)
            && let Some(stream) = stream_of(&oldest)
        {
            self.places.remove(&stream);
        }
        self.first += 1;
        Some(oldest)
    }

    /// True if this one, which is the first, waits in the place of its stream.
    fn is_place(&self, oldest: &Published) -> bool {
        let place = || stream_of(oldest).and_then(|stream| self.places.get(&stream).copied());
        !self.places.is_empty() && place() == Some(self.first)
    }
}

fn index(first: u64, place: u64) -> usize {
    usize::try_from(place - first).unwrap_or(usize::MAX)
}

fn stream_of(published: &Published) -> Option<Stream> {
    match &published.event.body {
        EventBody::Reading(it) => Some((it.patient.clone(), it.device.clone(), it.vital.metric())),
        _ => None,
    }
}
