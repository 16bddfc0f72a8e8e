//! The JSON of one thing of the present, for those who ask instead of listening: as in a snapshot.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{AlertData, ReadingData, SnapshotAlert, SnapshotReading, SnapshotSource, SourceData, channel_of};
use crate::clock::Mono;
use crate::event::{Event, EventBody};

/// A reading with its age at `now`; `None` for what is no reading.
pub fn reading(event: &Event, now: Mono) -> Option<Box<RawValue>> {
    let EventBody::Reading(reading) = &event.body else { return None };
    let age_ms = u64::try_from(now.since(reading.received.mono).as_millis()).unwrap_or(u64::MAX);
    let (data, channel) = (ReadingData::reading(reading), channel_of(&event.body));
    written(&SnapshotReading { data, channel, seq: event.seq, epoch: &event.epoch, age_ms })
}

/// The state of an alert; `None` for what is no alert.
pub fn alert(event: &Event) -> Option<Box<RawValue>> {
    let EventBody::Alert(alert) = &event.body else { return None };
    let (data, channel) = (AlertData::new(alert), channel_of(&event.body));
    written(&SnapshotAlert { data, channel, seq: event.seq, epoch: &event.epoch })
}

/// The state of a source and its device; `None` for what is neither.
pub fn device(event: &Event) -> Option<Box<RawValue>> {
    let EventBody::Source(source) = &event.body else { return None };
    let (data, channel) = (SourceData::new(source), channel_of(&event.body));
    written(&SnapshotSource { data, channel, seq: event.seq, epoch: &event.epoch })
}

/// The text of plain data, which cannot fail to be written.
fn written(of: &impl Serialize) -> Option<Box<RawValue>> {
    to_raw_value(of).ok()
}
