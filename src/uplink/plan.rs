//! Decides what goes to the broker next: lanes over the stored log, a window, acknowledgements, back-off. Pure.
//!
//! The stored log is the only authority for retransmission. A row counts as delivered only when the broker has
//! confirmed it with a success code; when a connection ends, everything that was not confirmed is read again from the
//! cursor. Nothing is published while there is no connection. The shell asks [`Plan::next_action`] until it has no more,
//! then waits for an input or for [`Plan::next_deadline`].
//!
//! Readings have two lanes. What a connection finds waiting is the backlog ([`Pieces`]): it goes in bundles, paced. What
//! comes from then on is live and waits for none of it. So have alerts: one that is raised now does not wait for a flood of
//! earlier ones. What is neither urgent nor a reading has a lane behind them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::limits::{BrokerLimits, EndKind, Limits};
use self::pauses::Pauses;
use self::refusals::Refusals;
pub use self::status::UplinkStatus;
use self::suspects::Suspects;
use crate::backoff::Backoff;
use crate::clock::{Mono, Stamp};
use crate::ids::Seq;
use crate::named::named_enum;
use crate::uplink::hold::ClockHold;
pub use crate::uplink::hold::DEFAULT_CLOCK_HOLD;
use crate::uplink::lane::{LaneState, READ_BATCH, Wish};
pub use crate::uplink::pieces::HOLDING;
use crate::uplink::pieces::{OTHERS, Pieces, READINGS, SentRanges, URGENT, others, urgent};

/// So many numbers of the log that wait at a new connection stay in the live lane: a moment's interruption.
const BACKLOG_FROM: u64 = 256;

/// The end of a lane that goes on with the log.
const LAST: Seq = Seq(u64::MAX);

/// Events of one piece of the backlog that one read may bring, in bundles: the next ones are read while they go out.
const BUNDLES_A_READ: usize = 8;

/// The pace of the backlog is known after this.
const PACE_KNOWN_AFTER: Duration = Duration::from_secs(1);

/// Takeovers within [`TAKEOVER_SPAN`] that say two bridges share one client id.
const MAX_TAKEOVERS: usize = 3;

/// See [`MAX_TAKEOVERS`].
const TAKEOVER_SPAN: Duration = Duration::from_mins(1);

named_enum! {
    /// A way through the stored log. Every event is in exactly one lane; an earlier lane goes first.
    Lane {
        /// Alerts, and what else is urgent, since the connection stands.
        Alerts = "alerts",
        /// The same from before it.
        EarlierAlerts = "earlier_alerts",
        /// Readings since the connection stands.
        Live = "live",
        /// What is neither urgent nor a reading.
        Others = "others",
        /// Readings from before it, and what somebody asked for again.
        Backlog = "backlog",
    }
}

/// One row in the form in which it is published: one event, or a bundle of the backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// JSON.
    pub body: Bytes,
    /// The number of its event, the last one of a bundle.
    pub seq: Seq,
    /// Until then it may be sent as of the present; `None`: it says itself that it is of the past.
    pub present_until: Option<Mono>,
    /// The bridge that took it.
    pub bridge: String,
    /// The envelope's `type`.
    pub kind: &'static str,
    /// `bridge:epoch:seq`.
    pub id: String,
    /// The whole PUBLISH packet, in bytes.
    pub packet_bytes: usize,
}

impl Message {
    /// It says that what it tells is of the past.
    pub const fn is_historical(&self) -> bool {
        self.present_until.is_none()
    }
}

/// A row that was read from the log.
#[derive(Debug, Clone)]
pub struct Row {
    /// The number of its first event.
    pub first: Seq,
    /// The number of its last event: the same, unless it is a bundle. Between them is nothing else of its lane.
    pub last: Seq,
    /// What to publish, or why it cannot be written.
    pub message: Result<Arc<Message>, String>,
}

/// Names one publication of one row, so that an answer to an earlier one is not taken for an answer to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Rises with each publication of this plan.
    order: u64,
    /// The lane of the row.
    pub lane: Lane,
    /// The first event of the row.
    pub first: Seq,
    /// The last event of the row.
    pub last: Seq,
}

/// A read of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    connection: u64,
    piece: u64,
    clock: u64,
    /// Which lane.
    pub lane: Lane,
    /// Rows after this one,
    pub after: Seq,
    /// up to and including this one,
    pub through: Seq,
    /// and no more than so many, oldest first.
    pub limit: usize,
    /// Most events in one row.
    pub bundle: usize,
    /// Largest packet of a row of several events, in bytes.
    pub max_packet_bytes: u32,
    /// The lane wants events of every kind: they are asked for again.
    pub every_kind: bool,
    /// These events could not go together.
    pub(super) split: bool,
}

impl ReadRequest {
    /// A read of live readings, one a row.
    #[cfg(test)]
    pub(super) const fn for_tests(after: Seq, through: Seq, split: bool) -> Self {
        let (connection, piece, clock, lane, max_packet_bytes) = (0, 0, 0, Lane::Live, u32::MAX);
        let (limit, bundle, every_kind) = (READ_BATCH, 1, false);
        Self { connection, piece, clock, lane, after, through, limit, bundle, max_packet_bytes, every_kind, split }
    }
}

/// A row that the broker will not take; it stays in the store, and its lane goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The lane of the row.
    pub lane: Lane,
    /// The row.
    pub seq: Seq,
    /// Why, in words.
    pub reason: String,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection; answer with [`Plan::on_connected`] or [`Plan::on_disconnected`].
    Connect,
    /// Drop the connection at once; no answer is expected.
    Close {
        /// Why, in words.
        reason: String,
    },
    /// Read rows; answer with [`Plan::on_rows`] or [`Plan::on_read_failed`].
    Read(ReadRequest),
    /// Publish with `QoS` 1; answer with [`Plan::on_puback`], or with the end of the connection.
    Publish {
        /// To hand back with the answer.
        ticket: Ticket,
        /// What.
        message: Arc<Message>,
    },
    /// These cursors have moved: store them together.
    Save(Vec<(String, Seq)>),
    /// Tell people that a row was parked.
    Park(Parked),
    /// The parked rows from the first number to the last go again.
    Unpark(Seq, Seq),
}

#[derive(Debug)]
enum Link {
    Down { retry_at: Mono },
    Connecting { deadline: Mono },
    Up { since: Mono, window: u16, max_packet_bytes: u32 },
}

/// Where the cursors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    urgent: Seq,
    others: Seq,
    readings: Seq,
    sent: SentRanges,
}

/// One unconfirmed publication.
#[derive(Debug)]
struct Flight {
    lane: Lane,
    first: Seq,
    last: Seq,
    /// When a later publication was answered before this one. A broker answers in order (MQTT 5.0 4.6).
    overtaken: Option<Mono>,
    /// The whole packet.
    bytes: usize,
    sent: Mono,
    /// Nothing else was under way when it went, and nothing else goes for a moment.
    is_alone: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    durable: Seq,
    alerts: LaneState,
    earlier_alerts: LaneState,
    live: LaneState,
    others: LaneState,
    backlog: LaneState,
    pieces: Pieces,
    /// Rises whenever the live lane begins anew.
    live_generation: u64,
    /// What the store knows of the cursors.
    saved: BTreeMap<String, Seq>,
    /// The same without names, once it was compared: nothing is to be stored as long as nothing moves.
    marks: Option<Marks>,
    /// The next publication of the backlog, if it is paced.
    backlog_at: Mono,
    /// When the backlog of this connection was looked at first, and how much it was then.
    progress: Option<(Mono, u64)>,
    /// Up to here the backlog goes without bundles, because one of them was refused.
    single_through: Seq,
    /// What somebody wants to have again; it is taken up as soon as nothing of the backlog is under way.
    resend: Option<(Seq, Seq)>,
    /// The part of it that the live lane has not passed yet, for instance because readings wait for the clock.
    resend_later: Option<(Seq, Seq)>,
    link: Link,
    connection: u64,
    next_order: u64,
    flights: BTreeMap<u64, Flight>,
    last_progress: Mono,
    reconnect: Backoff,
    pauses: Pauses,
    refusals: Refusals,
    clock_hold: ClockHold,
    /// Rises whenever more is known of the clock: what was read before has other times.
    clock: u64,
    /// Rows, by their first event, that go alone, to find the one because of which the broker ends connections.
    suspects: Suspects<Seq>,
    /// Connections in a row that the broker ended while something was under way.
    closings: u8,
    /// Largest bundle, where larger ones ended connections.
    bundle_bytes: u32,
    /// See [`Self::on_announcements`].
    is_announcing: bool,
    wants_quiet: bool,
    takeovers: VecDeque<Mono>,
    outbox: VecDeque<Action>,
    stopping: bool,
    status: UplinkStatus,
}

impl Plan {
    /// Starts at the stored cursors; the first connection is wanted at once.
    ///
    /// A cursor beyond `durable` belongs to a log that was lost, and is set back to the end of this one.
    pub fn new(limits: Limits, stored: &BTreeMap<String, Seq>, durable: Seq, seed: u64, now: Stamp) -> Self {
        let (urgent, others) = (urgent(stored).min(durable), others(stored).min(durable));
        let (pieces, live) = Pieces::restore(stored, durable);
        let reconnect = Backoff::new(limits.reconnect_shortest, limits.reconnect_longest, seed);
        let pauses = Pauses::new(limits.reconnect_shortest, seed);
        let clock_hold = ClockHold::new(limits.clock_hold);
        let mut plan = Self {
            limits,
            durable,
            alerts: LaneState::new(urgent, LAST),
            earlier_alerts: LaneState::new(urgent, urgent),
            live: LaneState::new(live, LAST),
            others: LaneState::new(others, LAST),
            backlog: LaneState::new(Seq::ZERO, Seq::ZERO),
            pieces,
            live_generation: 0,
            saved: stored.clone(),
            marks: None,
            backlog_at: now.mono,
            progress: None,
            single_through: Seq::ZERO,
            resend: None,
            resend_later: None,
            link: Link::Down { retry_at: now.mono },
            connection: 0,
            next_order: 0,
            flights: BTreeMap::new(),
            last_progress: now.mono,
            reconnect,
            pauses,
            refusals: Refusals::default(),
            clock_hold,
            clock: 0,
            suspects: Suspects::new(),
            closings: 0,
            bundle_bytes: u32::MAX,
            is_announcing: false,
            wants_quiet: false,
            takeovers: VecDeque::new(),
            outbox: VecDeque::new(),
            stopping: false,
            status: UplinkStatus::default(),
        };
        plan.begin_piece();
        plan
    }

    /// Takes up the first piece of the backlog.
    fn begin_piece(&mut self) {
        self.backlog = match self.pieces.first() {
            Some(piece) => LaneState::new(piece.after, piece.through),
            None => LaneState::new(Seq::ZERO, Seq::ZERO),
        };
    }

    /// The store has committed everything up to `durable`.
    pub fn on_durable(&mut self, durable: Seq) {
        self.durable = self.durable.max(durable);
    }

    /// More is known of the clock: what has been read and not been sent is read again, with the times that hold now.
    ///
    /// `unset_from`: the first event of this boot, while nobody has set its clock. Readings from there on wait for somebody
    /// to do so, as long as [`Limits::clock_hold`] says, and go out all the same after that. Everything else goes at once.
    pub fn on_clock(&mut self, unset_from: Option<Seq>, now: Stamp) {
        self.clock = self.clock.saturating_add(1);
        for lane in Lane::ALL {
            self.lane_mut(*lane).read_again();
        }
        let is_up = matches!(self.link, Link::Up { .. });
        if !unset_from.is_some_and(|first| self.clock_hold.begin(first, is_up, now.mono)) {
            self.end_hold(now.mono);
        }
    }

    /// Readings wait for the clock no longer. What has gathered is no part of the present.
    fn end_hold(&mut self, now: Mono) {
        let has_held = self.clock_hold.end();
        let live_flies = self.flights.values().any(|flight| flight.lane == Lane::Live);
        if has_held && matches!(self.link, Link::Up { .. }) && !live_flies {
            self.turn_to_the_present(now);
        }
    }

    /// The broker has accepted the connection.
    pub fn on_connected(&mut self, broker: BrokerLimits, now: Stamp) {
        if !matches!(self.link, Link::Connecting { .. }) {
            return;
        }
        self.link = Link::Up {
            since: now.mono,
            window: self.limits.window.min(broker.receive_maximum).max(1),
            max_packet_bytes: broker.max_packet_bytes.unwrap_or(u32::MAX).min(self.limits.max_packet_bytes),
        };
        self.last_progress = now.mono;
        self.clock_hold.on_connected(now.mono);
        self.set_earlier_alerts_apart();
        self.turn_to_the_present(now.mono);
        self.status.connected = true;
        self.status.since = Some(now.wall);
        self.clear_reason(now.mono);
    }

    /// What is urgent and comes from now on waits for nothing that is older.
    fn set_earlier_alerts_apart(&mut self) {
        let waiting = std::mem::replace(&mut self.alerts, LaneState::new(self.durable, LAST));
        self.earlier_alerts.join(waiting, self.durable);
    }

    /// What waits is the backlog from now on, unless it is only a moment's.
    fn turn_to_the_present(&mut self, now: Mono) {
        let sent = self.live.cursor();
        if self.durable.0.saturating_sub(sent.0) > BACKLOG_FROM {
            let is_first = self.pieces.first().is_none();
            self.pieces.add(sent, self.durable);
            self.live = LaneState::new(self.durable, LAST);
            self.live_generation = self.live_generation.saturating_add(1);
            match self.pieces.first() {
                Some(piece) if !is_first => self.backlog.set_end(piece.through),
                _ => self.begin_piece(),
            }
        }
        self.backlog_at = now;
        self.progress = None;
    }

    /// The connection, or the attempt to make one, has ended.
    pub fn on_disconnected(&mut self, kind: EndKind, reason: &str, now: Stamp) {
        if matches!(self.link, Link::Down { .. }) {
            return;
        }
        let is_found_soon = self.weigh(kind, reason, now.mono);
        match kind {
            EndKind::Lost => self.go_down(reason.to_owned(), now),
            EndKind::TakenOver => {
                let reason = self.note_takeover(reason, now.mono);
                self.go_down(reason, now);
            }
            EndKind::RowRefused | EndKind::Denied | EndKind::Closed => {
                self.go_down(reason.to_owned(), now);
                if is_found_soon {
                    self.link = Link::Down { retry_at: now.mono + self.search_wait() };
                }
            }
            EndKind::Again => {
                self.go_down(reason.to_owned(), now);
                self.reconnect.reset();
                self.status.reason = None;
                self.link = Link::Down { retry_at: now.mono };
            }
            EndKind::Clock => {
                self.go_down(reason.to_owned(), now);
                self.link = Link::Down { retry_at: now.mono + self.limits.reconnect_shortest };
            }
        }
    }

    /// The broker has answered a publication with this reason code (MQTT 5.0 3.4.2.1).
    pub fn on_puback(&mut self, ticket: Ticket, code: u8, now: Stamp) {
        if self.flights.remove(&ticket.order).is_none() {
            return;
        }
        for (_, earlier) in self.flights.range_mut(..ticket.order) {
            earlier.overtaken.get_or_insert(now.mono);
        }
        self.last_progress = now.mono;
        let Ticket { lane, first, last, .. } = ticket;
        match code {
            // 0x10: no subscriber matches now; the broker has taken the message all the same.
            0x00 | 0x10 => {
                self.status.sent = self.status.sent.saturating_add(1);
                self.clear_reason(now.mono);
                self.pauses.took(lane);
                self.settle(lane, first, last);
            }
            // Which of them it does not take is found by sending each by itself.
            _ if first != last && !matches!(code, 0x91 | 0x97) => self.split(lane, first, last),
            0x87 => self.park(lane, first, "the broker does not authorise this topic (0x87)".to_owned()),
            0x90 => self.park(lane, first, "the broker does not accept this topic name (0x90)".to_owned()),
            0x99 => self.park(lane, first, "the broker finds the payload format invalid (0x99)".to_owned()),
            0x91 | 0x97 => self.hold_back(lane, (first, last), code, now.mono),
            other => self.refused(lane, first, other, now.mono),
        }
        self.take_up_resend();
    }

    /// The rows that a read has found: of its lane, in its range, oldest first. `more`: it found as many events as its
    /// limit.
    pub fn on_rows(&mut self, request: ReadRequest, rows: Vec<Row>, more: bool) {
        if !self.is_current(&request) {
            return;
        }
        for (seq, reason) in self.lane_mut(request.lane).on_rows(&request, rows, more) {
            self.park(request.lane, seq, reason);
        }
    }

    /// The lane that asked has not been taken up anew since.
    fn is_current(&self, request: &ReadRequest) -> bool {
        request.connection == self.connection
            && request.clock == self.clock
            && request.piece == self.generation(request.lane)
    }

    /// Which one of a lane's beginnings this is.
    const fn generation(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Alerts | Lane::EarlierAlerts | Lane::Others => 0,
            Lane::Live => self.live_generation,
            Lane::Backlog => self.pieces.generation(),
        }
    }

    /// The row `seq` of the log makes no event; the read has brought nothing. What is before it is read, then it is
    /// parked and passed.
    pub fn on_bad_row(&mut self, request: ReadRequest, seq: Seq, reason: &str, now: Stamp) {
        if seq <= request.after || seq > request.through {
            self.on_read_failed(request, reason, now);
        } else if self.is_current(&request) && self.lane_mut(request.lane).on_bad_row(&request, seq, reason) {
            self.park(request.lane, seq, reason.to_owned());
        }
    }

    /// A read, or writing its rows, has ended in a panic. Which row of the range it is the lane finds out by reading less;
    /// that row is tried some times and then parked, so that it holds up nothing.
    pub fn on_read_panicked(&mut self, request: ReadRequest, reason: &str, now: Stamp) {
        if !self.is_current(&request) {
            return;
        }
        let lane = self.lane_mut(request.lane);
        if let Some(seq) = lane.on_read_panicked(&request, now.mono)
            && lane.on_bad_row(&request, seq, reason)
        {
            self.park(request.lane, seq, reason.to_owned());
        }
    }

    /// A read has failed; it is tried again.
    pub fn on_read_failed(&mut self, request: ReadRequest, reason: &str, now: Stamp) {
        if !self.is_current(&request) {
            return;
        }
        self.lane_mut(request.lane).on_read_failed(now.mono);
        self.status.reason = Some(reason.to_owned());
    }

    /// From now on nothing new is read, sent or connected; answers are still taken.
    pub fn on_stop(&mut self) {
        self.stopping = true;
    }

    /// The next thing to do, if there is one now.
    pub fn next_action(&mut self, now: Stamp) -> Option<Action> {
        if let Some(action) = self.outbox.pop_front() {
            return Some(action);
        }
        if self.clock_hold.deadline().is_some_and(|end| now.mono >= end) {
            self.end_hold(now.mono);
        }
        self.finish_piece();
        self.take_up_resend();
        if let Some(action) = self.save_cursors() {
            return Some(action);
        }
        match self.link {
            Link::Down { retry_at } if now.mono >= retry_at && !self.stopping => {
                self.connection = self.connection.saturating_add(1);
                self.link = Link::Connecting { deadline: now.mono + self.limits.connect_timeout };
                Some(Action::Connect)
            }
            Link::Connecting { deadline } if now.mono >= deadline => {
                Some(self.close("the broker does not answer the connection request", now))
            }
            Link::Down { .. } | Link::Connecting { .. } => None,
            Link::Up { .. } if self.watchdog().is_some_and(|deadline| now.mono >= deadline) => {
                Some(self.close("the broker answers no publication, although the connection stands", now))
            }
            Link::Up { .. } if self.stopping => None,
            Link::Up { window, max_packet_bytes, .. } => {
                let action = self.next_of_link(window, max_packet_bytes, now.mono);
                // A lane may have come to its end without any.
                action.or_else(|| {
                    self.finish_piece();
                    let is_more = self.take_up_resend();
                    let action = self.save_cursors();
                    if action.is_none() && is_more {
                        return self.next_of_link(window, max_packet_bytes, now.mono);
                    }
                    action
                })
            }
        }
    }

    /// When [`Self::next_action`] may have something to do without any input: the first time after `now`, for which
    /// [`Self::next_action`] has just been exhausted.
    pub fn next_deadline(&self, now: Stamp) -> Option<Mono> {
        match self.link {
            Link::Down { retry_at } => (!self.stopping).then_some(retry_at),
            Link::Connecting { deadline } => Some(deadline),
            Link::Up { .. } => {
                let lanes = Lane::ALL.iter().map(|lane| self.lane(*lane));
                let retries = lanes.flat_map(LaneState::times).chain([self.backlog_at]);
                retries
                    .chain(self.pauses.times())
                    .chain(self.suspect_times())
                    .chain(self.clock_hold.deadline())
                    .filter(|at| *at > now.mono)
                    .chain(self.watchdog())
                    .min()
            }
        }
    }

    /// What the uplink is doing.
    pub fn status(&self, now: Stamp) -> UplinkStatus {
        let behind = self.urgent_cursor().min(self.others.cursor()).min(self.readings_cursor());
        let backlog = self.pieces.left(self.backlog.cursor());
        let backlog_seconds = self.progress.and_then(|(since, then)| {
            let (took, done) = (now.mono.since(since), then.saturating_sub(backlog));
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let left = backlog.saturating_mul(millis).checked_div(done)?.div_ceil(1000);
            Some(left).filter(|_| backlog > 0 && took >= PACE_KNOWN_AFTER)
        });
        UplinkStatus {
            held_seconds: self.clock_hold.seconds(now.mono),
            waiting: self.durable.0.saturating_sub(behind.0),
            backlog,
            backlog_seconds,
            in_flight: self.flights.len(),
            ..self.status.clone()
        }
    }

    /// Rows that the broker has taken since the start.
    pub const fn taken(&self) -> u64 {
        self.status.sent
    }

    /// Rows sent and not confirmed.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Connections that ended, or could not be made, since the last stable one.
    pub const fn attempts(&self) -> u32 {
        self.reconnect.attempts()
    }

    const fn lane(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Alerts => &self.alerts,
            Lane::EarlierAlerts => &self.earlier_alerts,
            Lane::Live => &self.live,
            Lane::Others => &self.others,
            Lane::Backlog => &self.backlog,
        }
    }

    const fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        match lane {
            Lane::Alerts => &mut self.alerts,
            Lane::EarlierAlerts => &mut self.earlier_alerts,
            Lane::Live => &mut self.live,
            Lane::Others => &mut self.others,
            Lane::Backlog => &mut self.backlog,
        }
    }

    /// Everything urgent up to here is settled.
    fn urgent_cursor(&self) -> Seq {
        if self.earlier_alerts.is_done() { self.alerts.cursor() } else { self.earlier_alerts.cursor() }
    }

    /// Every reading up to here is settled.
    fn readings_cursor(&self) -> Seq {
        self.pieces.settled(self.backlog.cursor()).unwrap_or(self.live.cursor())
    }

    /// The next piece follows where one is done.
    fn finish_piece(&mut self) {
        while self.pieces.first().is_some_and(|piece| self.backlog.cursor() >= piece.through) {
            self.pieces.passed(self.backlog.cursor());
            self.begin_piece();
        }
    }

    fn save_cursors(&mut self) -> Option<Action> {
        let sent = self.pieces.sent_ranges(self.live.cursor());
        let (urgent, others, readings) = (self.urgent_cursor(), self.others.cursor(), self.readings_cursor());
        let marks = Marks { urgent, others, readings, sent };
        if self.marks.replace(marks) == Some(marks) {
            return None;
        }
        let mut cursors = self.pieces.sent(self.live.cursor());
        cursors
            .extend([(URGENT, urgent), (OTHERS, others), (READINGS, readings)].map(|(name, at)| (name.to_owned(), at)));
        cursors.retain(|(name, seq)| self.saved.get(name).copied().unwrap_or(Seq::ZERO) != *seq);
        if cursors.is_empty() {
            return None;
        }
        self.saved.extend(cursors.iter().cloned());
        Some(Action::Save(cursors))
    }

    /// With a connection: an earlier lane before a later one, publishing before reading ahead.
    fn next_of_link(&mut self, window: u16, max_packet_bytes: u32, now: Mono) -> Option<Action> {
        if !self.wants_quiet && !self.is_probing(now) {
            let suspect = self.suspect_due(now);
            for lane in Lane::ALL.iter().copied() {
                // For a suspect the window is emptied; only alerts do not wait for that.
                let is_free = suspect.is_none() || lane == Lane::Alerts;
                if !is_free || self.flights.len() >= self.places(lane, window) || !self.may_publish(lane, now) {
                    continue;
                }
                if let Some(action) = self.publish_next(lane, false, max_packet_bytes, now) {
                    return Some(action);
                }
            }
            if let Some(lane) = suspect.filter(|_| self.flights.is_empty())
                && let Some(action) = self.publish_next(lane, true, max_packet_bytes, now)
            {
                return Some(action);
            }
        }
        Lane::ALL.iter().copied().find_map(|lane| self.read_next(lane, max_packet_bytes, now))
    }

    /// How full the window may be for a publication of this lane to be added.
    fn places(&self, lane: Lane, window: u16) -> usize {
        let readings = window.saturating_sub(self.limits.alert_reserve.min(window / 2));
        usize::from(match lane {
            Lane::Alerts => window,
            Lane::Live => readings,
            Lane::EarlierAlerts | Lane::Others | Lane::Backlog => {
                readings.saturating_sub(self.limits.live_reserve.min(readings / 2))
            }
        })
    }

    /// The lane does not pause, and is not paced, now.
    fn may_publish(&self, lane: Lane, now: Mono) -> bool {
        let is_its_turn = lane != Lane::Backlog || (now >= self.backlog_at && self.resend.is_none());
        is_its_turn && self.pauses.is_over(lane, now)
    }

    /// The next row of a lane: one that is not suspected, or one that is and goes alone.
    fn publish_next(&mut self, lane: Lane, is_alone: bool, max_packet_bytes: u32, now: Mono) -> Option<Action> {
        let Link::Up { since, .. } = self.link else { return None };
        let (suspects, taken) = (&self.suspects, self.status.sent);
        let (first, last, message) = self.lane(lane).due(now, |first| {
            if is_alone { suspects.may_go(&first, since, taken, now) } else { !suspects.contains(&first) }
        })?;
        if message.present_until.is_some_and(|until| now >= until) {
            // It was to be sent while it was true.
            self.lane_mut(lane).split(first);
            return self.read_next(lane, max_packet_bytes, now);
        }
        if u32::try_from(message.packet_bytes).map_or(true, |bytes| bytes > max_packet_bytes) {
            if first != last {
                self.split(lane, first, last);
                return self.read_next(lane, max_packet_bytes, now);
            }
            let bytes = message.packet_bytes;
            self.park(lane, first, format!("the packet has {bytes} bytes, the broker takes {max_packet_bytes}"));
            return self.outbox.pop_front();
        }
        self.lane_mut(lane).launch(first);
        if lane == Lane::Backlog {
            self.pace(now);
        }
        if self.flights.is_empty() {
            self.last_progress = now;
        }
        let order = self.next_order;
        self.next_order = self.next_order.saturating_add(1);
        let (bytes, sent) = (message.packet_bytes, now);
        self.flights.insert(order, Flight { lane, first, last, overtaken: None, bytes, sent, is_alone });
        Some(Action::Publish { ticket: Ticket { order, lane, first, last }, message })
    }

    /// Sends the events of a bundle each by itself, also after the next connection.
    fn split(&mut self, lane: Lane, first: Seq, last: Seq) {
        self.single_through = self.single_through.max(last);
        self.refusals.forget(first);
        self.suspects.acquit(&first);
        self.lane_mut(lane).split(first);
    }

    /// The next publication of the backlog has its time.
    fn pace(&mut self, now: Mono) {
        self.progress.get_or_insert((now, self.pieces.left(self.backlog.cursor())));
        let gap = Duration::from_secs(1).checked_div(u32::from(self.limits.backlog_a_second));
        // What was missed because of something else is not made up for.
        self.backlog_at = gap.map_or(now, |gap| self.backlog_at.max(now) + gap);
    }

    fn read_next(&mut self, lane: Lane, max_packet_bytes: u32, now: Mono) -> Option<Action> {
        loop {
            let waits_for_clock = matches!(lane, Lane::Live | Lane::Backlog);
            let durable = if waits_for_clock { self.clock_hold.readable(self.durable) } else { self.durable };
            let (connection, piece) = (self.connection, self.generation(lane));
            let wish = self.lane_mut(lane).next_wish(durable, now)?;
            let Wish::Read { after, through, split } = wish else {
                let Wish::Pass(seq, reason) = wish else { continue };
                self.park(lane, seq, reason);
                return self.outbox.pop_front();
            };
            let singly = split || after < self.single_through;
            let bundle = if lane == Lane::Backlog && !singly { self.limits.bundle.max(1) } else { 1 };
            // What goes singly because of a refusal ends there; after it bundles are read again.
            let is_refused = lane == Lane::Backlog && !split && singly;
            let through = if is_refused { through.min(self.single_through) } else { through };
            let limit = READ_BATCH.max(bundle.saturating_mul(BUNDLES_A_READ));
            let every_kind = lane == Lane::Backlog && self.pieces.first().is_some_and(|piece| piece.every_kind);
            let request = ReadRequest {
                connection,
                piece,
                clock: self.clock,
                lane,
                after,
                through,
                limit,
                bundle,
                max_packet_bytes: max_packet_bytes.min(self.bundle_bytes),
                every_kind,
                split,
            };
            return Some(Action::Read(request));
        }
    }

    /// When the link must be taken for dead: nothing was answered for the limit, or one publication was passed over.
    fn watchdog(&self) -> Option<Mono> {
        let (_, oldest) = self.flights.first_key_value()?;
        let silence = self.last_progress + self.limits.ack_timeout;
        Some(oldest.overtaken.map_or(silence, |at| silence.min(at + self.limits.ack_timeout)))
    }

    fn park(&mut self, lane: Lane, seq: Seq, reason: String) {
        // For people there is one lane of alerts.
        let shown = if lane == Lane::EarlierAlerts { Lane::Alerts } else { lane };
        let parked = Parked { lane: shown, seq, reason };
        self.status.parked = self.status.parked.saturating_add(1);
        self.status.last_parked = Some(parked.clone());
        self.settle(lane, seq, seq);
        self.outbox.push_back(Action::Park(parked));
    }

    /// These events are confirmed or parked.
    fn settle(&mut self, lane: Lane, first: Seq, last: Seq) {
        self.refusals.forget(first);
        self.suspects.acquit(&first);
        self.lane_mut(lane).settle(first, last);
    }

    /// All is well, except that two clients which take turns are both well most of the time.
    fn clear_reason(&mut self, now: Mono) {
        self.takeovers.retain(|at| now.since(*at) <= TAKEOVER_SPAN);
        if self.takeovers.len() < MAX_TAKEOVERS && self.pauses.is_over(Lane::Backlog, now) {
            self.status.reason = None;
        }
    }

    fn note_takeover(&mut self, reason: &str, now: Mono) -> String {
        self.takeovers.retain(|at| now.since(*at) <= TAKEOVER_SPAN);
        self.takeovers.push_back(now);
        if self.takeovers.len() < MAX_TAKEOVERS {
            return reason.to_owned();
        }
        self.takeovers.drain(..self.takeovers.len().saturating_sub(MAX_TAKEOVERS));
        "two clients share one client id: the session was taken over three times in a minute".to_owned()
    }

    fn close(&mut self, reason: &str, now: Stamp) -> Action {
        self.go_down(reason.to_owned(), now);
        Action::Close { reason: reason.to_owned() }
    }

    /// Without a connection: everything unconfirmed will be read again, after a wait.
    fn go_down(&mut self, reason: String, now: Stamp) {
        if let Link::Up { since, .. } = self.link {
            if now.mono.since(since) >= self.limits.stable_after {
                self.reconnect.reset();
            }
            self.status.since = Some(now.wall);
        }
        self.link = Link::Down { retry_at: now.mono + self.reconnect.next_delay() };
        self.flights.clear();
        self.clock_hold.on_disconnected(now.mono);
        self.pauses.end();
        for lane in Lane::ALL {
            self.lane_mut(*lane).rewind();
        }
        self.take_up_resend();
        self.status.connected = false;
        self.status.reason = Some(reason);
    }
}

mod blame;
mod limits;
mod pauses;
mod refusals;
mod resending;
#[cfg(test)]
mod simulation;
mod status;
pub(in crate::uplink) mod suspects;
#[cfg(test)]
mod tests;
