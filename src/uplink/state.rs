//! Keeps on the broker what the bridge says about itself: the shell of the retained machine, the birth and the discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tracing::{debug, error, info, warn};

use super::birth;
use super::downlink::Incoming;
use super::home_assistant::{Catalogue, Seen};
use super::lane::{MAX_PANICS, first_half, halves};
use super::retained::{Due, Rank, Retained};
use super::{Announcement, Link, UplinkConfig, UplinkError};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{AlertEvent, Event, EventBody, SystemKind};
use crate::ids::{DeviceId, Seq};
use crate::store::{Reader, StoreError, StoreHandle, StoreHealth};
use crate::timeline::Timeline;
use crate::wire::Thresholds;

/// The `{kind}` of the topics of alerts that stand.
const PRESENT: &str = "alert_present";

/// The cursor up to which every alert that ended is gone from the broker. It holds nothing back in the store.
const CURSOR: &str = "retained";

/// A topic on which a document for Home Assistant was put is remembered as a cursor of this name and the topic: 1 while it
/// may stand there, 0 when it was taken back.
const DOCUMENT: &str = "document:";

/// What Home Assistant says when it has started.
const STARTED: &[u8] = b"online";

/// The cursor is stored when it has moved so far. What is between is removed once more by the next run.
const SAVE_EVERY: u64 = 4096;

/// Events that one look into the log may bring.
const LOOK_BATCH: usize = 256;

/// While connected the broker is told this often at most how long the buffer would last.
const BUFFER_EVERY: Duration = Duration::from_mins(10);

/// Wait after a look that failed.
const LOOK_RETRY: Duration = Duration::from_secs(1);

/// How old the end of an alert of an earlier run counts if the clock was set back since.
const UNKNOWN_AGE: Duration = Duration::from_mins(1);

/// What a look into the log brought, from its range.
pub(super) type Look = (Seq, Result<Vec<Event>, StoreError>);

/// What an earlier uplink left for this one: another run of the daemon, or one before in this run.
#[derive(Debug)]
pub(super) struct Kept {
    cursor: Seq,
    /// Topics on which a document for Home Assistant may stand.
    documents: BTreeSet<String>,
}

impl Kept {
    pub(super) fn of(cursors: &BTreeMap<String, Seq>) -> Self {
        let stands = cursors.iter().filter(|(_, seq)| **seq > Seq::ZERO);
        let documents = stands.filter_map(|(name, _)| name.strip_prefix(DOCUMENT)).map(str::to_owned).collect();
        Self { cursor: cursors.get(CURSOR).copied().unwrap_or(Seq::ZERO), documents }
    }
}

/// The events that say which alerts stand, followed as the log grows.
pub(super) struct State {
    retained: Retained,
    /// The log has been looked through up to here.
    looked: Seq,
    /// A row that cannot be read; what is before it is read first.
    bad_row: Option<Seq>,
    look_not_before: Mono,
    /// Reading up to here has ended in a panic, so that it is read by halves.
    suspect: Option<Seq>,
    /// How often the next event alone was that.
    panics: u8,
    saved: Seq,
    is_refusal_told: bool,
    /// At most one.
    pub(super) looks: FuturesUnordered<BoxFuture<'static, Look>>,
    /// The limits in force, as far as they are known.
    thresholds: Option<Thresholds>,
    /// Something that birth tells may have changed.
    is_birth_old: bool,
    /// At most one.
    pub(super) asked: FuturesUnordered<BoxFuture<'static, Option<Thresholds>>>,
    /// When the broker was told how long the buffer lasts, and what.
    told_buffer: (Mono, Option<Duration>),
    /// Since when the disk fails, as the broker was told.
    told_storage: Option<Wall>,
    /// The largest packet that the broker takes; `None`: there is no connection.
    max_packet_bytes: Option<u32>,
    /// The largest birth, after a larger one ended a connection.
    max_birth_bytes: usize,
    /// That something is larger than the broker takes was said.
    is_size_told: bool,
    catalogue: Catalogue,
    /// Topics on which a document may stand.
    documents: BTreeSet<String>,
}

impl State {
    /// Takes up what an earlier run left. `durable`: the end of the log before this is called.
    pub(super) async fn begin(
        config: &UplinkConfig,
        reader: &Reader,
        timeline: &Timeline,
        Kept { cursor, documents }: Kept,
        durable: Seq,
    ) -> Result<Self, UplinkError> {
        let cursor = cursor.min(durable);
        let mut retained = Retained::new(cursor, durable);
        for event in reader.standing_alerts().await.map_err(UplinkError::Cursor)? {
            if let EventBody::Alert(alert) = &event.body {
                match config.upload(&event, false, timeline) {
                    Ok(body) => retained.stood(topic_of(config, alert), body, event.seq),
                    Err(error) => untellable(&event, &error),
                }
            }
        }
        let mut state = Self {
            retained,
            looked: cursor,
            bad_row: None,
            look_not_before: Mono(0),
            suspect: None,
            panics: 0,
            saved: cursor,
            is_refusal_told: false,
            looks: FuturesUnordered::new(),
            thresholds: birth::thresholds(config.about.clone()).await,
            is_birth_old: false,
            asked: FuturesUnordered::new(),
            told_buffer: (Mono(0), None),
            told_storage: None,
            max_packet_bytes: None,
            max_birth_bytes: usize::MAX,
            is_size_told: false,
            catalogue: Catalogue::expected(config),
            documents,
        };
        state.describe(config)?;
        Ok(state)
    }

    /// Everything is said again on a new connection.
    pub(super) fn on_connected(
        &mut self,
        config: &UplinkConfig,
        handle: &StoreHandle,
        max_packet_bytes: Option<u32>,
        now: Stamp,
    ) -> Result<(), UplinkError> {
        self.is_refusal_told = false;
        self.retained.on_connected(now.mono);
        self.max_packet_bytes = Some(max_packet_bytes.unwrap_or(u32::MAX).min(config.limits.max_packet_bytes));
        self.tell_birth(config, handle, now)?;
        self.tell_online(config, handle, now)
    }

    fn tell_online(&mut self, config: &UplinkConfig, handle: &StoreHandle, now: Stamp) -> Result<(), UplinkError> {
        self.told_buffer = (now.mono, config.about.buffer_left());
        self.told_storage = degraded_since(handle);
        let Announcement { topic, body } = config.announcement(config.online(self.told_storage), now)?;
        self.retained.bridge(topic, body);
        Ok(())
    }

    /// Tells another length of the buffer, now and then, and at once that the disk fails or works again.
    pub(super) fn tell_buffer(
        &mut self,
        config: &UplinkConfig,
        handle: &StoreHandle,
        now: Stamp,
    ) -> Result<(), UplinkError> {
        let (at, known) = self.told_buffer;
        let left = config.about.buffer_left();
        // One that has just become known is told at once.
        let is_due = known.is_none() || now.mono.since(at) >= BUFFER_EVERY;
        let is_news = (left != known && is_due) || degraded_since(handle) != self.told_storage;
        if self.max_packet_bytes.is_some() && is_news {
            self.tell_online(config, handle, now)?;
        }
        Ok(())
    }

    fn tell_birth(&mut self, config: &UplinkConfig, handle: &StoreHandle, now: Stamp) -> Result<(), UplinkError> {
        if let Some(most) = self.max_packet_bytes {
            let epoch = handle.timeline().borrow().current().cloned();
            let topic = birth_topic(config);
            let most =
                usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(topic.len()).min(self.max_birth_bytes);
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            let body = birth::body(config, epoch.as_ref(), self.thresholds.as_ref(), most, now)?;
            self.retained.bridge(topic, body);
        }
        Ok(())
    }

    /// The limits were asked for; without an answer the last ones hold no longer.
    pub(super) fn on_thresholds(
        &mut self,
        config: &UplinkConfig,
        handle: &StoreHandle,
        thresholds: Option<Thresholds>,
        now: Stamp,
    ) -> Result<(), UplinkError> {
        self.thresholds = thresholds;
        self.tell_birth(config, handle, now)
    }

    /// More is known of the clock: the birth says so, and alerts that stand say the times that hold now.
    pub(super) async fn on_clock(&mut self, config: &UplinkConfig, reader: &Reader, timeline: &Timeline) {
        self.is_birth_old = true;
        match tokio::time::timeout(LOOK_RETRY, reader.standing_alerts()).await {
            Ok(Ok(events)) => {
                for event in events {
                    if let EventBody::Alert(alert) = &event.body {
                        match config.upload(&event, false, timeline) {
                            Ok(body) => self.retained.dated_anew(topic_of(config, alert), body, event.seq),
                            Err(error) => untellable(&event, &error),
                        }
                    }
                }
            }
            Ok(Err(error)) => warn!(%error, "alerts on the broker keep the times that they had"),
            Err(_) => warn!("alerts on the broker keep the times that they had: the log does not answer"),
        }
    }

    /// Numbers have come that Home Assistant may not know yet.
    pub(super) fn on_seen(&mut self, config: &UplinkConfig, seen: BTreeSet<Seen>) -> Result<(), UplinkError> {
        let mut is_new = false;
        for one in seen {
            is_new |= self.catalogue.add(one);
        }
        if is_new { self.describe(config) } else { Ok(()) }
    }

    /// Home Assistant has said something. What the broker had kept of it is no news.
    pub(super) fn on_home_assistant(&mut self, incoming: &Incoming) {
        if !incoming.is_retained && incoming.payload.as_ref() == STARTED {
            info!("Home Assistant has started and is told of the bridge again");
            self.retained.again(Rank::Document);
        }
    }

    /// Puts the documents for Home Assistant, and takes back those that stand for nothing any more.
    fn describe(&mut self, config: &UplinkConfig) -> Result<(), UplinkError> {
        let prefix = config.about.home_assistant.as_ref();
        let wanted = prefix.map(|prefix| self.catalogue.documents(config, prefix)).transpose()?.unwrap_or_default();
        for topic in self.documents.iter().filter(|topic| !wanted.contains_key(*topic)) {
            self.retained.document(topic, "");
        }
        // A device without a number so far keeps what an earlier run said of it.
        for (topic, text) in wanted.iter().filter(|(_, text)| !text.is_empty()) {
            self.retained.document(topic, text);
        }
        Ok(())
    }

    /// A document is remembered before it goes out, and forgotten once the broker has said that it is gone.
    fn remember_document(&mut self, topic: &str, stands: bool, handle: &StoreHandle) {
        let is_news = if stands { self.documents.insert(topic.to_owned()) } else { self.documents.remove(topic) };
        if is_news {
            handle.set_cursors(vec![(format!("{DOCUMENT}{topic}"), Seq(u64::from(stands)))]);
        }
    }

    /// The broker has ended the connection, perhaps because of something that was under way; `is_certain`: because of it.
    /// `rows`: how many were under way too, and how many it has taken.
    pub(super) fn on_broken_off(&mut self, config: &UplinkConfig, is_certain: bool, rows: (usize, u64), now: Stamp) {
        if let Some((topic, bytes)) = self.retained.on_broken_off(is_certain, rows, now.mono) {
            warn!(topic, bytes, "the broker ends the connection when it is told this; it is left out until it changes");
            if topic == birth_topic(config) {
                // The next one has less in it.
                self.max_birth_bytes = bytes.saturating_sub(1).saturating_add(birth::PACKET_OVERHEAD);
            }
        }
    }

    /// Announcements that the broker has not answered, and whether one has to go alone now; `rows` it has taken.
    pub(super) fn under_way(&self, rows: u64, now: Stamp) -> (bool, bool) {
        (self.retained.unanswered() > 0, self.retained.wants_quiet(rows, now.mono))
    }

    /// What is not on the broker because it would not take it, in words.
    pub(super) fn left_out(&self) -> Option<String> {
        let topic = self.retained.leaves_out()?;
        Some(format!(
            "the broker does not take what the bridge says on {topic}: too large, or not allowed; it is left out"
        ))
    }

    /// Whether a message of the bridge itself is not larger than the broker takes; that it is, is said once.
    pub(super) fn fits(&mut self, topic: &str, body: &str) -> bool {
        let bytes = topic.len().saturating_add(body.len()).saturating_add(birth::PACKET_OVERHEAD);
        let most = self.max_packet_bytes.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        if bytes > most && !self.is_size_told {
            self.is_size_told = true;
            warn!(
                topic,
                bytes, most, "this is larger than the broker takes, and is left out, as all that is too large"
            );
        }
        bytes <= most
    }

    /// Nothing more of this goes out until the next connection.
    pub(super) fn on_disconnected(&mut self) {
        self.max_packet_bytes = None;
        self.retained.on_disconnected();
    }

    /// Looks for news in the log, says what is to be said, and remembers how far that has come. `rows`: how many are under
    /// way, and how many the broker has taken.
    pub(super) fn turn(
        &mut self,
        config: &UplinkConfig,
        link: Option<&mut Link>,
        reader: &Reader,
        handle: &StoreHandle,
        rows: (usize, u64),
        now: Stamp,
    ) {
        if self.is_birth_old && self.asked.is_empty() {
            self.is_birth_old = false;
            self.asked.push(Box::pin(birth::thresholds(config.about.clone())));
        }
        self.retained.turn(now.mono);
        if self.retained.take_missed() {
            self.looked = self.retained.cursor();
        }
        let durable = *handle.durable().borrow();
        if self.looks.is_empty() && self.looked < durable && self.look_not_before <= now.mono {
            let through = self.bad_row.map_or(durable, |bad| durable.min(Seq(bad.0.saturating_sub(1))));
            let through = first_half(self.looked, through, &mut self.suspect);
            let (reader, after) = (reader.clone(), self.looked);
            self.looks
                .push(Box::pin(async move { (through, reader.events_but_readings(after, through, LOOK_BATCH).await) }));
        }
        if let Some(link) = link {
            while let Some(Due { ticket, rank, topic, body }) = self.retained.next(rows, now.mono) {
                if !self.fits(&topic, &body) {
                    self.retained.pass_over(ticket);
                    continue;
                }
                if rank == Rank::Document && !body.is_empty() {
                    self.remember_document(&topic, true, handle);
                }
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
        self.retained.next_deadline(now.mono).into_iter().chain(retry).min()
    }

    /// Takes what a look has brought.
    pub(super) fn on_look(&mut self, config: &UplinkConfig, handle: &StoreHandle, look: Look, now: Stamp) {
        match look {
            (through, Ok(events)) => {
                let timeline = Arc::clone(&handle.timeline().borrow());
                for event in &events {
                    // The clock may have been set since they were read.
                    self.take(config, &timeline.rebased(event.clone()), &timeline, now);
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
            (through, Err(StoreError::Thread(ended))) if ended.is_panic() => self.on_panic(through, now.mono),
            (_, Err(error)) => {
                warn!(%error, "cannot read which alerts stand");
                self.look_not_before = now.mono + LOOK_RETRY;
            }
        }
    }

    /// An event up to this one cannot be read without a panic: it is looked for by halves, tried again, and passed.
    fn on_panic(&mut self, through: Seq, now: Mono) {
        match halves(self.looked.next(), through) {
            Some(_) => self.suspect = Some(through),
            None if self.panics.saturating_add(1) < MAX_PANICS => {
                self.panics = self.panics.saturating_add(1);
                self.look_not_before = now + LOOK_RETRY;
            }
            // Its lane parks it and says so.
            None => {
                (self.panics, self.suspect) = (0, None);
                self.looked = through;
            }
        }
    }

    /// The broker has answered the announcement with this ticket.
    pub(super) fn on_answer(&mut self, ticket: u64, result: &Result<(), String>, handle: &StoreHandle) {
        let answered = self.retained.on_answer(ticket, result.is_ok());
        if let Some(topic) = answered.as_ref().filter(|topic| !self.retained.holds(topic)) {
            self.remember_document(topic, false, handle);
        }
        let topic = answered.as_deref().unwrap_or("its status");
        match result {
            Ok(()) => debug!(topic, "the broker keeps what the bridge says"),
            Err(reason) if !self.is_refusal_told => {
                self.is_refusal_told = true;
                warn!(topic, %reason, "something of the bridge's state is not on the broker");
            }
            Err(reason) => debug!(topic, %reason, "something of the bridge's state is not on the broker"),
        }
    }

    /// The largest packet that the broker takes; `None`: there is no connection.
    pub(super) const fn max_packet_bytes(&self) -> Option<u32> {
        self.max_packet_bytes
    }

    /// Takes an event that says which alerts stand, or what the birth says.
    pub(super) fn take(&mut self, config: &UplinkConfig, event: &Event, timeline: &Timeline, now: Stamp) {
        let alert = match &event.body {
            EventBody::Alert(alert) => alert,
            other => {
                // Told only of the present: what was so before this run is in the first birth.
                self.is_birth_old |= event.epoch == config.epoch && changes_birth(other);
                return;
            }
        };
        // The bridge's own alerts tell of its clock, among others.
        self.is_birth_old |= event.epoch == config.epoch && alert.patient.is_none();
        let topic = topic_of(config, alert);
        let body = match config.upload(event, false, timeline) {
            Ok(body) => body,
            Err(error) => return untellable(event, &error),
        };
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
    }
}

/// Since when the disk fails; `None`: it does not.
fn degraded_since(handle: &StoreHandle) -> Option<Wall> {
    match &*handle.health().borrow() {
        StoreHealth::Degraded { since, .. } => Some(since.wall),
        StoreHealth::Ok => None,
    }
}

/// The lane of alerts parks what cannot be written, and a technical alert tells; the rest goes on.
fn untellable(event: &Event, error: &serde_json::Error) {
    error!(seq = %event.seq, %error, "an alert cannot be put on the broker");
}

/// Whether the limits or the configuration are others afterwards.
const fn changes_birth(body: &EventBody) -> bool {
    match body {
        EventBody::Limits(_) => true,
        EventBody::System(system) => matches!(system.kind, SystemKind::ConfigReloaded | SystemKind::ConfigRefused),
        _ => false,
    }
}

/// The numbers of patients among these events, if Home Assistant is told of them.
pub(super) fn seen(config: &UplinkConfig, events: &[Event]) -> BTreeSet<Seen> {
    if config.about.home_assistant.is_none() {
        return BTreeSet::new();
    }
    let of_event = |event: &Event| match &event.body {
        EventBody::Reading(reading) => {
            let patient = reading.patient.clone()?;
            Some((patient, reading.device.clone(), reading.vital.metric(), reading.mode))
        }
        _ => None,
    };
    events.iter().filter_map(of_event).collect()
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

fn birth_topic(config: &UplinkConfig) -> String {
    config.topic.topic(&config.site, &config.bridge, birth::BIRTH, None)
}

#[cfg(test)]
mod following;
