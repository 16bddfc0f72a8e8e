//! The way to the backend: sends the stored log to an MQTT broker, each event at least once.

pub mod access;
mod birth;
mod downlink;
mod hold;
mod home_assistant;
mod lane;
mod mqtt;
mod pieces;
pub mod plan;
mod progress;
mod resend;
mod retained;
mod rows;
mod state;
pub mod token;
pub mod topic;
mod undurable;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use self::access::{Access, BrokerAddress};
pub use self::birth::About;
pub use self::downlink::Downlink;
pub use self::mqtt::{Probe, ProbeStep, probe};
pub use self::plan::{DEFAULT_CLOCK_HOLD, Limits, UplinkStatus};
pub use self::topic::TopicTemplate;
pub use self::waiting::Waiting;

use self::downlink::{COMMANDS, Incoming, MAX_COMMANDS, MAX_REPLIES, RESULTS};
use self::mqtt::{Announcement, Link, LinkEvent, Memory};
use self::pieces::Pieces;
use self::plan::{Action, EndKind, Lane, Message, Plan, ReadRequest, Row};
use self::progress::{Line, Progress};
use self::resend::Resend;
use self::rows::{Failure, Read};
use self::state::State;
use self::undurable::{Surroundings, Undurable};
use crate::clock::{Clock, Mono, Stamp, Wall};
use crate::event::Event;
use crate::ids::{BridgeId, DeviceId, Epoch, Seq, SiteId};
use crate::store::{ParkedRow, Reader, SeqRange, StoreError, StoreHandle};
use crate::timeline::{ClockState, Timeline};
use crate::wire::{self, BridgeNews};

/// On stop: the wait for answers to what is under way, and to the farewell.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// What a packet of a bundle has beside the events: topic, properties and the members around them, in bytes.
const BUNDLE_OVERHEAD: usize = 1024;

/// What was published longer ago than this is of the past when it is sent, whatever it has waited for.
const PRESENT_FOR: Duration = Duration::from_mins(1);

/// The ticket of an announcement whose answer nobody waits for.
const UNASKED: u64 = 0;

/// What the uplink must know.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    /// Where the broker is.
    pub broker: BrokerAddress,
    /// How it is reached: version, TLS, password.
    pub access: Access,
    /// The MQTT client id. Two clients with one id throw each other out.
    pub client_id: String,
    /// For the broker.
    pub username: Option<String>,
    /// The place this bridge stands in.
    pub site: SiteId,
    /// This bridge.
    pub bridge: BridgeId,
    /// This run of the daemon, for the messages about the bridge itself. An event carries its own.
    pub epoch: Epoch,
    /// Where each kind of message goes.
    pub topic: TopicTemplate,
    /// Bounds and times.
    pub limits: Limits,
    /// What the bridge tells of itself.
    pub about: About,
    /// Who may do what by the broker; `None`: nothing is listened to.
    pub downlink: Option<Downlink>,
}

impl UplinkConfig {
    /// The rows of what a read has found: an event each, or bundles of the backlog.
    fn rows(&self, request: &ReadRequest, events: &[Event], timeline: &Timeline, now: Mono) -> Vec<Row> {
        if request.bundle < 2 {
            let until = |event: &Event| self.present_until(event, now).filter(|_| request.lane != Lane::Backlog);
            return events.iter().map(|event| self.encode(event, until(event), timeline)).collect();
        }
        let mut rows = Vec::new();
        let mut rest = events;
        while !rest.is_empty() {
            let (row, taken) = self.bundle(request, rest, timeline);
            rows.push(row);
            rest = rest.get(taken..).unwrap_or(&[]);
        }
        rows
    }

    /// As many of the events as go together; at least one, by itself if it stands alone or cannot be written.
    fn bundle(&self, request: &ReadRequest, events: &[Event], timeline: &Timeline) -> (Row, usize) {
        let most = usize::try_from(request.max_packet_bytes).unwrap_or(usize::MAX).saturating_sub(BUNDLE_OVERHEAD);
        let (mut bodies, mut bytes) = (Vec::new(), 0_usize);
        for event in events.iter().take(request.bundle) {
            let Ok(body) = self.upload(event, true, timeline) else { break };
            bytes = bytes.saturating_add(body.len()).saturating_add(1);
            if bytes > most {
                break;
            }
            bodies.push(body);
        }
        let ends = events.first().zip(bodies.len().checked_sub(1).and_then(|place| events.get(place)));
        let Some((first, last)) = ends.filter(|_| bodies.len() > 1) else {
            let row = events.first().map(|event| self.encode(event, None, timeline));
            let none = Row { first: Seq::ZERO, last: Seq::ZERO, message: Err("there is no event".to_owned()) };
            return (row.unwrap_or(none), 1);
        };
        let body = wire::bundle(&bodies, &self.bridge, (first, last));
        let message = self.message(last, wire::BUNDLE, None, None, body);
        (Row { first: first.seq, last: last.seq, message: Ok(message) }, bodies.len())
    }

    /// The text of an event. Where the clock was not set when it happened, and was not since, that stands in it.
    fn upload(&self, event: &Event, is_historical: bool, timeline: &Timeline) -> Result<String, serde_json::Error> {
        let state = timeline.placed(event.seq, event.at).map(|placed| placed.state);
        rows::unpanicked(|| Ok(wire::dated(wire::upload(event, &self.bridge, is_historical)?, state)))
    }

    /// How long this is of the present. What an earlier run has left is not: how long ago that was, nobody knows for sure.
    fn present_until(&self, event: &Event, now: Mono) -> Option<Mono> {
        let until = event.at.mono + PRESENT_FOR;
        (event.epoch == self.epoch && now < until).then_some(until)
    }

    fn encode(&self, event: &Event, present_until: Option<Mono>, timeline: &Timeline) -> Row {
        let kind = wire::kind_of(&event.body);
        let body = self.upload(event, present_until.is_none(), timeline);
        let message = body.map_err(|error| format!("cannot be written as JSON: {error}"));
        let message = message.map(|body| self.message(event, kind, event.device(), present_until, body));
        Row { first: event.seq, last: event.seq, message }
    }

    /// The publication of an event, or of a bundle that ends with it.
    fn message(
        &self,
        event: &Event,
        kind: &'static str,
        device: Option<&DeviceId>,
        present_until: Option<Mono>,
        body: String,
    ) -> Arc<Message> {
        let mut message = Message {
            topic: self.topic.topic(&self.site, &self.bridge, kind, device),
            body: Bytes::from(body),
            seq: event.seq,
            present_until,
            bridge: self.bridge.to_string(),
            kind,
            id: format!("{}:{}:{}", self.bridge, event.epoch, event.seq),
            packet_bytes: 0,
        };
        message.packet_bytes = mqtt::packet_bytes(&message);
        Arc::new(message)
    }

    /// A configuration without a broker.
    #[cfg(test)]
    fn for_tests(about: About) -> Self {
        Self {
            broker: "mqtt://localhost".parse().unwrap(),
            client_id: "vitalbridge-b1".to_owned(),
            username: None,
            access: Access::default(),
            site: "icu".parse().unwrap(),
            bridge: "b1".parse().unwrap(),
            epoch: "k3f9".parse().unwrap(),
            topic: TopicTemplate::default(),
            limits: Limits::default(),
            about,
            downlink: None,
        }
    }

    /// That the bridge is there, how long its buffer would last without the broker, and since when its disk fails.
    fn online(&self, storage_degraded_since: Option<Wall>) -> BridgeNews {
        let buffer_seconds_left = self.about.buffer_left().map(|left| left.as_secs());
        BridgeNews::Online { buffer_seconds_left, storage_degraded_since }
    }

    fn announcement(&self, news: BridgeNews, now: Stamp) -> Result<Announcement, UplinkError> {
        let body = wire::bridge_news(news, &self.site, &self.bridge, &self.epoch, now.wall)?;
        Ok(Announcement { topic: self.topic.topic(&self.site, &self.bridge, news.kind(), None), body })
    }
}

/// Why the uplink has ended although nobody stopped it. A broker that is away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The cursors cannot be read.
    #[error("cannot read where the uplink had come to: {0}")]
    Cursor(#[source] StoreError),
    /// The store has ended.
    #[error("the store has ended before the uplink")]
    StoreEnded,
    /// A message about the bridge cannot be written.
    #[error("cannot write a message about the bridge: {0}")]
    Encode(#[from] serde_json::Error),
}

/// How often counts are shown of what is under way.
const COUNTS_EVERY: Duration = Duration::from_millis(100);

/// The text of an answer to a command.
type CommandAnswer = Result<String, serde_json::Error>;

/// Sends the stored log to the broker until `stop`, then says that the bridge leaves.
///
/// `status` shows what it is doing: what people must know at once, counts of what is under way ten times a second. `seed`
/// fixes the jitter of its waits.
///
/// # Errors
/// See [`UplinkError`]: only trouble with the store.
pub async fn run(
    config: UplinkConfig,
    reader: Reader,
    handle: StoreHandle,
    status: watch::Sender<UplinkStatus>,
    clock: Clock,
    seed: u64,
    stop: CancellationToken,
) -> Result<(), UplinkError> {
    let mut durable = handle.durable();
    // Of an uplink before this one in the same run of the daemon; what is stored in between is then in both.
    let unstored = handle.unstored_cursors();
    let mut cursors = reader.cursors().await.map_err(UplinkError::Cursor)?;
    cursors.extend(unstored);
    let kept = state::Kept::of(&cursors);
    let own: BTreeSet<String> = Pieces::cursor_names().collect();
    cursors.retain(|name, _| own.contains(name));
    let through = *durable.borrow_and_update();
    let mut plan = Plan::new(config.limits.clone(), &cursors, through, seed, clock.now());
    let (mut timeline, mut parked, mut health) = (handle.timeline(), handle.parked(), handle.health());
    plan.on_clock(timeline.borrow_and_update().unset_from(), clock.now());
    let known = Arc::clone(&timeline.borrow());
    let state = State::begin(&config, &reader, &known, kept, through).await?;
    let resends = config.about.resends.clone();
    let mut uplink = Uplink {
        config: Arc::new(config),
        plan,
        state,
        resend: Resend::default(),
        undurable: Undurable::default(),
        link: None,
        memory: Memory::default(),
        reads: FuturesUnordered::new(),
        commands: FuturesUnordered::new(),
        reader,
        handle,
        status,
        progress: Progress::default(),
        told: Mono(0),
        is_held: false,
        clock,
    };
    loop {
        let deadline = uplink.carry_out_all()?;
        tokio::select! {
            biased;
            // Stopping comes before everything that could go on for ever.
            () = stop.cancelled() => return uplink.leave().await,
            // Answers free the window.
            event = next_event(&mut uplink.link) => uplink.on_link_events(event)?,
            // The clock was set. The handle has the other end, so this fails never.
            _ = timeline.changed() => {
                let known = Arc::clone(&timeline.borrow_and_update());
                uplink.on_clock(&known).await;
            }
            // Rows that were asked for.
            Some(result) = uplink.reads.next(), if !uplink.reads.is_empty() => uplink.on_read(result)?,
            // The limits in force, for the birth message.
            Some(thresholds) = uplink.state.asked.next(), if !uplink.state.asked.is_empty() => {
                let now = uplink.clock.now();
                uplink.state.on_thresholds(&uplink.config, &uplink.handle, thresholds, now)?;
            }
            // What stands, according to the log.
            Some(look) = uplink.state.looks.next(), if !uplink.state.looks.is_empty() => {
                let now = uplink.clock.now();
                uplink.state.on_look(&uplink.config, &uplink.handle, look, now);
            }
            // A range is to be sent again; the next turn takes it.
            () = resends.pushed() => {}
            // Other rows are parked; the next turn tells. The handle has the other end, so this fails never.
            _ = parked.changed() => {}
            // The disk fails, or works again; the next turn tells, and whether the store has ended is seen below.
            Ok(()) = health.changed() => {}
            // Commands that were carried out.
            Some(text) = uplink.commands.next(), if !uplink.commands.is_empty() => uplink.reply(text?),
            // The store has committed more.
            changed = durable.changed() => {
                if changed.is_err() {
                    uplink.leave().await?;
                    return if stop.is_cancelled() { Ok(()) } else { Err(UplinkError::StoreEnded) };
                }
                uplink.plan.on_durable(*durable.borrow_and_update());
            }
            // Reconnecting, retries, the watchdog.
            () = sleep_until(deadline, &uplink.clock) => {}
        }
    }
}

/// The shell around the plan.
struct Uplink {
    config: Arc<UplinkConfig>,
    plan: Plan,
    state: State,
    resend: Resend,
    undurable: Undurable,
    link: Option<Link>,
    memory: Memory,
    /// At most one read a lane.
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    /// At most [`MAX_COMMANDS`].
    commands: FuturesUnordered<BoxFuture<'static, CommandAnswer>>,
    reader: Reader,
    handle: StoreHandle,
    status: watch::Sender<UplinkStatus>,
    clock: Clock,
    /// What the log was told of the backlog.
    progress: Progress,
    /// When the status was shown last.
    told: Mono,
    /// Readings wait for the clock.
    is_held: bool,
}

impl Uplink {
    /// More is known of the clock: what is sent from now on says the times that hold now.
    async fn on_clock(&mut self, timeline: &Timeline) {
        self.plan.on_clock(timeline.unset_from(), self.clock.now());
        self.state.on_clock(&self.config, &self.reader, timeline).await;
    }

    /// Says in the log when readings begin to wait for the clock, and when they do no longer.
    fn tell_hold(&mut self, seconds: Option<u64>) {
        if self.is_held != seconds.is_some() {
            self.is_held = seconds.is_some();
            if let Some(seconds) = seconds {
                info!(seconds, "nobody has set the clock: readings wait for it before they are sent");
            } else {
                info!("readings wait for the clock no longer");
            }
        }
    }

    /// Does what the plan wants now, and tells when it may want more.
    fn carry_out_all(&mut self) -> Result<Option<Mono>, UplinkError> {
        let now = self.clock.now();
        let rows = (self.plan.in_flight(), self.plan.taken());
        self.state.turn(&self.config, self.link.as_mut(), &self.reader, &self.handle, rows, now);
        self.weigh_announcements(now);
        self.state.tell_buffer(&self.config, &self.handle, now)?;
        let past_the_disk = self.tell_undurable(now);
        let durable = *self.handle.durable().borrow();
        self.resend.turn(&mut self.plan, &self.config.about.resends, &self.handle, durable);
        while let Some(action) = self.plan.next_action(now) {
            self.carry_out(action, now)?;
        }
        let parked = self.handle.parked().borrow().total();
        let mut status = UplinkStatus { parked, ..self.plan.status(now) };
        status.reason = status.reason.or_else(|| self.state.left_out());
        self.tell_hold(status.held_seconds);
        match self.progress.turn(&status, now.mono) {
            Some(Line::GoesOut { left, seconds }) => info!(left, seconds, "what waited for the broker goes out"),
            Some(Line::IsOut { took }) => info!(seconds = took.as_secs(), "what waited for the broker has gone out"),
            None => {}
        }
        let told_again = self.tell_status(status, now.mono);
        let others = [self.state.next_deadline(now), told_again, past_the_disk];
        Ok(self.plan.next_deadline(now).into_iter().chain(others.into_iter().flatten()).min())
    }

    /// While the disk fails: what happens now is sent all the same. Tells when there may be more.
    fn tell_undurable(&mut self, now: Stamp) -> Option<Mono> {
        if self.undurable.is_stuck(self.config.limits.ack_timeout, now.mono) {
            let reason = "the broker does not confirm what it is sent";
            warn!(%reason, "uplink connection dropped");
            self.disconnected(EndKind::Lost, reason, now);
        }
        let surroundings = Surroundings { config: &self.config, handle: &self.handle, is_held: self.is_held };
        self.undurable.turn(&surroundings, &mut self.state, self.link.as_mut(), now)
    }

    fn disconnected(&mut self, kind: EndKind, reason: &str, now: Stamp) {
        self.link = None;
        self.weigh_announcements(now);
        let rows = (self.plan.in_flight(), self.plan.taken());
        self.plan.on_disconnected(kind, reason, now);
        if self.plan.is_suspicious(kind) {
            self.state.on_broken_off(&self.config, kind == EndKind::RowRefused, rows, now);
        }
        self.state.on_disconnected();
        self.undurable.on_disconnected();
    }

    /// Shows what it is doing; tells when counts that are not shown yet are due. Each change wakes whoever looks, which for
    /// each answer of the broker would cost more than the answer.
    fn tell_status(&mut self, status: UplinkStatus, now: Mono) -> Option<Mono> {
        let due = self.told + COUNTS_EVERY;
        let is_shown = {
            let shown = self.status.borrow();
            if *shown == status {
                return None;
            }
            !status.differs_for_people(&shown)
        };
        if is_shown && now < due {
            return Some(due);
        }
        self.told = now;
        self.status.send_replace(status);
        None
    }

    fn carry_out(&mut self, action: Action, now: Stamp) -> Result<(), UplinkError> {
        match action {
            Action::Connect => {
                let will = self.config.announcement(BridgeNews::Lost, now)?;
                let state = self.handle.timeline().borrow().current().map(|epoch| epoch.state);
                let is_unset = state == Some(ClockState::Unsynchronised);
                self.link = Some(Link::open(&self.config, &self.memory, will, is_unset, &self.clock));
            }
            Action::Close { reason } => {
                warn!(%reason, "uplink connection dropped");
                self.link = None;
                self.state.on_disconnected();
                self.undurable.on_disconnected();
            }
            Action::Read(request) => {
                let (reader, config) = (self.reader.clone(), Arc::clone(&self.config));
                let timeline = Arc::clone(&self.handle.timeline().borrow());
                let read = rows::read(config, reader, timeline, self.clock.clone(), request);
                self.reads.push(Box::pin(read));
            }
            Action::Publish { ticket, message } => {
                if let Some(link) = &mut self.link {
                    link.publish(ticket, &message);
                }
            }
            Action::Save(cursors) => self.handle.set_cursors(cursors),
            Action::Park(parked) => {
                warn!(lane = %parked.lane, seq = %parked.seq, reason = %parked.reason, "the broker does not take a row");
                let (seq, lane, reason) = (parked.seq, parked.lane.to_string(), parked.reason);
                self.handle.park(ParkedRow { seq, lane, at: now.wall, reason });
            }
            // What the broker did not take is tried again with what was asked for.
            Action::Unpark(first, last) => self.handle.unpark(SeqRange { first, last }),
        }
        Ok(())
    }

    /// Takes this and what else the broker has said by now, so that a burst of answers is one turn.
    fn on_link_events(&mut self, event: LinkEvent) -> Result<(), UplinkError> {
        let mut next = Some(event);
        for _ in 0..self.config.limits.window {
            let Some(event) = next else { break };
            self.on_link_event(event)?;
            next = self.link.as_mut().and_then(|link| link.next().now_or_never());
        }
        next.map_or(Ok(()), |event| self.on_link_event(event))
    }

    fn on_link_event(&mut self, event: LinkEvent) -> Result<(), UplinkError> {
        let now = self.clock.now();
        match event {
            LinkEvent::Connected(limits) => {
                info!(broker = %self.config.broker, "uplink connected");
                if let Some(link) = &mut self.link {
                    if self.config.downlink.is_some() {
                        link.listen(self.config.topic.topic(&self.config.site, &self.config.bridge, COMMANDS, None));
                    }
                    if let Some(prefix) = &self.config.about.home_assistant {
                        link.listen(home_assistant::birth_topic(prefix));
                    }
                }
                // Goes out before any row, so that a consumer knows the bridge when the first one comes.
                self.state.on_connected(&self.config, &self.handle, limits.max_packet_bytes, now)?;
                self.plan.on_connected(limits, now);
            }
            LinkEvent::Listening(Ok(())) => info!("the broker hands on what the bridge listens to"),
            LinkEvent::Listening(Err(reason)) => {
                warn!(%reason, "no commands, or no word of Home Assistant, come from the broker");
            }
            LinkEvent::Command(incoming) if self.is_of_home_assistant(&incoming) => {
                self.state.on_home_assistant(&incoming);
            }
            LinkEvent::Command(incoming) => match &self.config.downlink {
                Some(_) if self.commands_under_way() >= MAX_REPLIES => {
                    debug!("commands come faster from the broker than it takes the answers; one is dropped");
                }
                Some(_) if self.commands_under_way() >= MAX_COMMANDS => self.reply(downlink::busy(&self.clock)?),
                Some(downlink) => {
                    let (downlink, durable, clock) = (downlink.clone(), self.handle.durable(), self.clock.clone());
                    self.commands.push(Box::pin(downlink::answer(downlink, incoming, durable, clock)));
                }
                None => {}
            },
            LinkEvent::Answer { ticket, code } => self.plan.on_puback(ticket, code, now),
            LinkEvent::Beside { ticket, code } => self.undurable.on_answer(ticket, code, now.mono),
            LinkEvent::Announced { ticket, result } => self.state.on_answer(ticket, &result, &self.handle),
            LinkEvent::Ended { kind, reason } => {
                self.disconnected(kind, &reason, now);
                // A broker that is away for a week is one line at its start, and the status.
                if kind == EndKind::Again {
                    info!(%reason, "uplink connects anew");
                } else if self.plan.attempts() <= 1 {
                    warn!(%reason, "uplink disconnected");
                } else {
                    debug!(%reason, "uplink still disconnected");
                }
            }
        }
        Ok(())
    }

    /// What the bridge says of itself may have to go alone, and may be why a connection ends.
    fn weigh_announcements(&mut self, now: Stamp) {
        let (unanswered, wants_quiet) = self.state.under_way(self.plan.taken(), now);
        self.plan.on_announcements(unanswered, wants_quiet);
    }

    /// Commands that are carried out, and answers that the broker has not confirmed.
    fn commands_under_way(&self) -> usize {
        self.commands.len().saturating_add(self.link.as_ref().map_or(0, Link::pending_replies))
    }

    fn is_of_home_assistant(&self, incoming: &Incoming) -> bool {
        let prefix = self.config.about.home_assistant.as_ref();
        prefix.is_some_and(|prefix| incoming.topic == home_assistant::birth_topic(prefix))
    }

    /// Answers a command, if the broker is still there; the audit trail has it in any case.
    fn reply(&mut self, body: String) {
        let topic = self.config.topic.topic(&self.config.site, &self.config.bridge, RESULTS, None);
        if let Some(link) = &mut self.link
            && self.state.fits(&topic, &body)
        {
            link.reply(Announcement { topic, body });
        }
    }

    fn on_read(&mut self, Read { request, result, seen }: Read) -> Result<(), UplinkError> {
        self.state.on_seen(&self.config, seen)?;
        let now = self.clock.now();
        match result {
            Ok((rows, more)) => self.plan.on_rows(request, rows, more),
            Err(Failure::Store(error @ StoreError::Row { seq, .. })) => {
                warn!(lane = %request.lane, %error, "a stored row cannot be sent");
                self.plan.on_bad_row(request, seq, &error.to_string(), now);
            }
            Err(Failure::Store(error)) => {
                warn!(lane = %request.lane, %error, "cannot read what waits for the uplink");
                self.plan.on_read_failed(request, &format!("cannot read what waits: {error}"), now);
            }
            Err(Failure::Panic(words)) => {
                let ReadRequest { lane, after, through, .. } = request;
                error!(%lane, %after, %through, words, "a defect of the bridge: a row in this range cannot be read");
                self.plan.on_read_panicked(request, &format!("a defect of the bridge: {words}"), now);
            }
        }
        Ok(())
    }

    /// Says that the bridge leaves, waits a bounded time for what is under way, and disconnects.
    async fn leave(mut self) -> Result<(), UplinkError> {
        self.plan.on_stop();
        self.state.on_disconnected();
        self.undurable.end();
        if self.plan.status(self.clock.now()).connected {
            let offline = self.config.announcement(BridgeNews::Stopped, self.clock.now())?;
            if let Some(link) = &mut self.link {
                link.announce(offline, UNASKED);
            }
            let farewell = tokio::time::timeout(FAREWELL_TIMEOUT, self.settle()).await;
            if let Ok(result) = farewell {
                result?;
            } else {
                warn!(rows = self.plan.in_flight(), "the broker has not answered everything before the stop");
            }
        }
        if let Some(link) = self.link.take() {
            link.disconnect().await;
        }
        let status = self.plan.status(self.clock.now());
        self.status.send_replace(UplinkStatus { connected: false, ..status });
        Ok(())
    }

    /// Takes answers until none is missing or the connection has ended.
    async fn settle(&mut self) -> Result<(), UplinkError> {
        loop {
            self.carry_out_all()?;
            let Some(link) = &mut self.link else { return Ok(()) };
            if self.plan.in_flight() == 0 && link.pending_announcements() == 0 {
                return Ok(());
            }
            let event = link.next().await;
            self.on_link_event(event)?;
        }
    }
}

async fn next_event(link: &mut Option<Link>) -> LinkEvent {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Mono>, clock: &Clock) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock.now().mono)).await,
        None => std::future::pending().await,
    }
}
