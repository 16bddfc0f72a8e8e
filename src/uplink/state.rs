//! Keeps on the broker what the bridge says about itself: the shell of the retained machine and of the birth message.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tracing::{debug, warn};

use super::retained::{Due, Retained};
use super::{Announcement, Link, UplinkConfig, UplinkError};
use crate::clock::{Mono, Stamp};
use crate::event::{AlertEvent, Event, EventBody};
use crate::ids::{DeviceId, Seq};
use crate::store::{Reader, StoreError, StoreHandle};
use crate::wire;

/// The `{kind}` of the topics of alerts that stand.
const PRESENT: &str = "alert_present";

/// The cursor up to which every alert that ended is gone from the broker. It holds nothing back in the store.
const CURSOR: &str = "retained";

/// The cursor is stored when it has moved so far. What is between is removed once more by the next run.
const SAVE_EVERY: u64 = 4096;

/// Events that one look into the log may bring.
const LOOK_BATCH: usize = 256;

/// Wait after a look that failed.
const LOOK_RETRY: Duration = Duration::from_secs(1);

/// How old the end of an alert of an earlier run counts if the clock was set back since.
const UNKNOWN_AGE: Duration = Duration::from_mins(1);

/// What a look into the log brought, from its range.
pub(super) type Look = (Seq, Result<Vec<Event>, StoreError>);

/// The events that say which alerts stand, followed as the log grows.
pub(super) struct State {
    retained: Retained,
    /// The log has been looked through up to here.
    looked: Seq,
    /// A row that cannot be read; what is before it is read first.
    bad_row: Option<Seq>,
    look_not_before: Mono,
    saved: Seq,
    is_refusal_told: bool,
    /// At most one.
    pub(super) looks: FuturesUnordered<BoxFuture<'static, Look>>,
}

impl State {
    /// Takes up what an earlier run left. `durable`: the end of the log before this is called.
    pub(super) async fn begin(config: &UplinkConfig, reader: &Reader, durable: Seq) -> Result<Self, UplinkError> {
        let cursor = reader.cursor(CURSOR).await.map_err(UplinkError::Cursor)?.min(durable);
        let mut retained = Retained::new(cursor, durable);
        for event in reader.standing_alerts().await.map_err(UplinkError::Cursor)? {
            if let EventBody::Alert(alert) = &event.body {
                retained.stood(topic_of(config, alert), wire::upload(&event, &config.bridge, false)?, event.seq);
            }
        }
        Ok(Self {
            retained,
            looked: cursor,
            bad_row: None,
            look_not_before: Mono(0),
            saved: cursor,
            is_refusal_told: false,
            looks: FuturesUnordered::new(),
        })
    }

    /// Everything is said again on a new connection.
    pub(super) fn on_connected(&mut self) {
        self.is_refusal_told = false;
        self.retained.on_connected();
    }

    /// Nothing more of this goes out until the next connection.
    pub(super) fn on_disconnected(&mut self) {
        self.retained.on_disconnected();
    }

    /// Looks for news in the log, says what is to be said, and remembers how far that has come.
    pub(super) fn turn(&mut self, link: Option<&mut Link>, reader: &Reader, handle: &StoreHandle, now: Stamp) {
        self.retained.turn(now.mono);
        if self.retained.take_missed() {
            self.looked = self.retained.cursor();
        }
        let durable = *handle.durable().borrow();
        if self.looks.is_empty() && self.looked < durable && self.look_not_before <= now.mono {
            let through = self.bad_row.map_or(durable, |bad| durable.min(Seq(bad.0.saturating_sub(1))));
            let (reader, after) = (reader.clone(), self.looked);
            self.looks
                .push(Box::pin(async move { (through, reader.events_but_readings(after, through, LOOK_BATCH).await) }));
        }
        if let Some(link) = link {
            while let Some(Due { ticket, topic, body }) = self.retained.next(now.mono) {
                link.announce(Announcement { topic, body }, ticket);
            }
        }
        let cursor = self.retained.cursor();
        if cursor.0.saturating_sub(self.saved.0) >= SAVE_EVERY {
            self.saved = cursor;
            handle.set_cursors(vec![(CURSOR.to_owned(), cursor)]);
        }
    }

    /// When [`Self::turn`] may have something to do without anything else happening.
    pub(super) fn next_deadline(&self, now: Stamp) -> Option<Mono> {
        let retry = Some(self.look_not_before).filter(|at| *at > now.mono);
        self.retained.next_deadline().into_iter().chain(retry).min()
    }

    /// Takes what a look has brought.
    pub(super) fn on_look(&mut self, config: &UplinkConfig, look: Look, now: Stamp) -> Result<(), UplinkError> {
        match look {
            (through, Ok(events)) => {
                for event in &events {
                    self.take(config, event, now)?;
                }
                let more = events.len() >= LOOK_BATCH;
                self.looked = events.last().filter(|_| more).map_or(through, |event| event.seq);
                if let Some(bad) = self.bad_row.take_if(|bad| self.looked.next() >= *bad) {
                    // The alerts lane parks it and says so.
                    self.looked = self.looked.max(bad);
                }
                self.retained.looked_through(self.looked);
            }
            (_, Err(StoreError::Row { seq, .. })) => {
                if self.looked.next() >= seq {
                    self.looked = seq;
                } else {
                    self.bad_row = Some(seq);
                }
            }
            (_, Err(error)) => {
                warn!(%error, "cannot read which alerts stand");
                self.look_not_before = now.mono + LOOK_RETRY;
            }
        }
        Ok(())
    }

    /// The broker has answered the announcement with this ticket.
    pub(super) fn on_answer(&mut self, ticket: u64, result: &Result<(), String>) {
        let topic = self.retained.on_answer(ticket, result.is_ok());
        let topic = topic.as_deref().unwrap_or("its status");
        match result {
            Ok(()) => debug!(topic, "the broker keeps what the bridge says"),
            Err(reason) if !self.is_refusal_told => {
                self.is_refusal_told = true;
                warn!(topic, %reason, "something of the bridge's state is not on the broker");
            }
            Err(reason) => debug!(topic, %reason, "something of the bridge's state is not on the broker"),
        }
    }

    fn take(&mut self, config: &UplinkConfig, event: &Event, now: Stamp) -> Result<(), UplinkError> {
        let EventBody::Alert(alert) = &event.body else { return Ok(()) };
        let (topic, body) = (topic_of(config, alert), wire::upload(event, &config.bridge, false)?);
        if alert.is_present() {
            self.retained.stands(topic, body, event.seq);
        } else {
            let age = if event.epoch == config.epoch {
                now.mono.since(event.at.mono)
            } else {
                let passed = u64::try_from(now.wall.0.saturating_sub(event.at.wall.0));
                passed.map_or(UNKNOWN_AGE, Duration::from_millis)
            };
            self.retained.ended(topic, body, event.seq, age, now);
        }
        Ok(())
    }
}

/// The topic of an alert that stands. The alert's id stands where the device does; where a template has no device, it
/// stands in the kind, so that no alert takes the place of another.
fn topic_of(config: &UplinkConfig, alert: &AlertEvent) -> String {
    let id = alert.alert.to_string();
    let place: Option<DeviceId> = id.parse().ok().filter(|_| config.topic.has_device());
    match &place {
        Some(place) => config.topic.topic(&config.site, &config.bridge, PRESENT, Some(place)),
        None => config.topic.topic(&config.site, &config.bridge, &format!("{PRESENT}_{id}"), None),
    }
}
