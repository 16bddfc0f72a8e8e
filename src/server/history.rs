//! A page of what was on some channels: the newest events before a place, read from the store in bounded steps.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::channel::{Pattern, routes};
use crate::clock::Wall;
use crate::event::{Event, EventBody};
use crate::hub::Scope;
use crate::ids::{Epoch, Seq};
use crate::server::session::Shared;
use crate::store::{Reader, StoreError};
use crate::wire;

/// Events of a page where the request does not say.
pub const PAGE: usize = 100;

/// Most events of a page.
pub const MAX_PAGE: usize = 500;

/// A page ends with the event that brings it to so many bytes.
pub const MAX_PAGE_BYTES: usize = 64 * 1024;

/// Most events of all channels that one page is looked for among; a page may therefore be short, and have a `next`.
pub const MAX_LOOKED_AT: usize = 20_000;

/// Events read at once: others who read wait so long.
const EVENTS_AT_ONCE: usize = 1000;

/// What was asked for and is not on disk yet is waited for so long.
const COMMIT_PATIENCE: Duration = Duration::from_secs(3);

/// An end of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This event, included.
    Event(Seq),
    /// This time of publishing, included. Where the clock was set back, numbers are the safer question.
    Time(Wall),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The answer is sent under this.
    pub correlation_id: String,
    /// On which channels.
    pub patterns: Vec<Pattern>,
    /// What the user may read.
    pub scope: Scope,
    /// From here on.
    pub from: Option<Place>,
    /// Up to here.
    pub to: Option<Place>,
    /// Before this event.
    pub before: Option<Seq>,
    /// At most so many events.
    pub limit: Option<usize>,
}

/// What was on some channels.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HistoryData")]
pub struct Page {
    /// As they were pushed, oldest first.
    #[schemars(with = "Vec<wire::shape::AnyEvent>")]
    events: Vec<Box<RawValue>>,
    /// The first number that was looked at.
    from: Seq,
    /// The last number that was looked at, which is on disk.
    to: Seq,
    /// Ask again with this as `before` for what is older; `None`: there is nothing older inside what was asked for.
    next: Option<Seq>,
    /// Ranges between `from` and `to` that are no longer in the log.
    lost: Vec<(Seq, Seq)>,
    /// This run.
    epoch: Epoch,
}

/// Reads a page.
///
/// # Errors
/// Those of the store.
pub async fn read(
    reader: &Reader,
    mut durable: watch::Receiver<Seq>,
    shared: &Shared,
    query: &Query,
) -> Result<Page, StoreError> {
    if let Some(Place::Event(to)) = query.to
        && query.before.is_none_or(|before| to < before)
    {
        // A gap is told before the disk has what lies in it.
        let _ = tokio::time::timeout(COMMIT_PATIENCE, durable.wait_for(|newest| *newest >= to)).await;
    }
    let newest = *durable.borrow();
    let first = match query.from {
        None => Seq(1),
        Some(Place::Event(seq)) => seq.max(Seq(1)),
        Some(Place::Time(wall)) => reader.last_before(wall).await?.next(),
    };
    let last = match query.to {
        None => newest,
        Some(Place::Event(seq)) => seq.min(newest),
        Some(Place::Time(wall)) => reader.last_before(Wall(wall.0.saturating_add(1))).await?.min(newest),
    };
    let last = query.before.map_or(last, |before| last.min(Seq(before.0.saturating_sub(1))));
    let limit = query.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let found = look_back(reader, shared, query, (first, last), limit).await?;
    let lost = reader.lost(Seq(found.from.0.saturating_sub(1)), last).await?;
    let lost = lost.iter().map(|range| (range.first, range.last)).collect();
    let next = (found.from > first).then_some(found.from);
    let mut events = found.events;
    events.reverse();
    Ok(Page { events, from: found.from, to: last, next, lost, epoch: shared.epoch.clone() })
}

#[cfg(test)]
impl Page {
    /// A page without events.
    pub fn empty(epoch: Epoch) -> Self {
        Self { events: Vec::new(), from: Seq(1), to: Seq(1), next: None, lost: Vec::new(), epoch }
    }
}

/// Events, newest first, and the oldest number that was looked at.
struct Found {
    events: Vec<Box<RawValue>>,
    from: Seq,
}

async fn look_back(
    reader: &Reader,
    shared: &Shared,
    query: &Query,
    (first, last): (Seq, Seq),
    limit: usize,
) -> Result<Found, StoreError> {
    let mut found = Found { events: Vec::new(), from: last.next() };
    let (mut bytes, mut looked_at) = (0, 0);
    while found.from > first && looked_at < MAX_LOOKED_AT {
        let rows = reader.events_before(found.from, first, EVENTS_AT_ONCE).await?;
        let is_last = rows.len() < EVENTS_AT_ONCE;
        looked_at += rows.len();
        for event in rows.into_iter().rev() {
            if let Some(text) = wanted(shared, query, &event) {
                bytes += text.get().len();
                found.events.push(text);
            }
            found.from = event.seq;
            if found.events.len() >= limit || bytes >= MAX_PAGE_BYTES {
                return Ok(found);
            }
        }
        if is_last {
            found.from = first;
        }
    }
    Ok(found)
}

/// The text of an event that is asked for and may be read. Messages for people have a way of their own,
/// and those of rooms too: it knows what was cleared, and for whom.
fn wanted(shared: &Shared, query: &Query, event: &Event) -> Option<Box<RawValue>> {
    if matches!(event.body, EventBody::Notification(_) | EventBody::Inbox(_) | EventBody::Chat(_)) {
        return None;
    }
    let routes = routes(event, shared.ward_of(event));
    let is_asked_for = routes.iter().any(|route| query.patterns.iter().any(|pattern| pattern.matches(route)));
    if !is_asked_for || !query.scope.allows(&routes) {
        return None;
    }
    RawValue::from_string(wire::push(event).ok()?).ok()
}
