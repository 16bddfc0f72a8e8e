//! Decides what goes to the broker next: lanes over the stored log, a window, acknowledgements, back-off. Pure.
//!
//! The stored log is the only authority for retransmission. A row counts as delivered only when the broker has
//! confirmed it with a success code; when a connection ends, everything that was not confirmed is read again from the
//! cursor. Nothing is published while there is no connection. The shell asks [`Plan::next_action`] until it has no more,
//! then waits for an input or for [`Plan::next_deadline`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::backoff::Backoff;
use crate::clock::{Mono, Stamp, Wall};
use crate::ids::Seq;
use crate::named::named_enum;

/// Rows that one read may bring.
pub const READ_BATCH: usize = 64;

/// Rows of one lane between its cursor and its furthest row that stop further reading while the first is unsettled.
const LANE_SPAN: usize = 256;

/// Answers of "unspecified" or "implementation specific" error after which a row is parked.
const MAX_REFUSALS: u8 = 3;

/// Wait before a refused row is tried again.
const REFUSED_RETRY: Duration = Duration::from_secs(5);

/// Wait before a failed read is tried again.
const READ_RETRY: Duration = Duration::from_secs(1);

/// Longest pause after the broker asked for less (quota exceeded, packet identifier in use).
const LONGEST_HOLD: Duration = Duration::from_mins(1);

/// Takeovers within [`TAKEOVER_SPAN`] that say two bridges share one client id.
const MAX_TAKEOVERS: usize = 3;

/// See [`MAX_TAKEOVERS`].
const TAKEOVER_SPAN: Duration = Duration::from_mins(1);

named_enum! {
    /// A cursor over the stored log. Every event is in exactly one lane; an earlier lane goes first.
    Lane {
        /// All events that are not readings.
        Alerts = "alerts",
        /// Readings.
        Readings = "readings",
    }
}

/// Bounds and times of the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rows that may be unconfirmed at the same time.
    pub window: u16,
    /// Places of the window that readings leave to alerts.
    pub alert_reserve: u16,
    /// Largest packet that is sent, in bytes; the broker may allow less.
    pub max_packet_bytes: u32,
    /// Shortest wait before a new connection.
    pub reconnect_shortest: Duration,
    /// Longest wait before a new connection.
    pub reconnect_longest: Duration,
    /// A connection of this age counts as stable, and the next wait is short again.
    pub stable_after: Duration,
    /// From opening the socket to the broker's CONNACK.
    pub connect_timeout: Duration,
    /// Unconfirmed rows and no PUBACK for so long: the link is taken for dead, even if pings are answered.
    pub ack_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 32,
            alert_reserve: 8,
            max_packet_bytes: 256 * 1024,
            reconnect_shortest: Duration::from_secs(1),
            reconnect_longest: Duration::from_mins(2),
            stable_after: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(15),
            ack_timeout: Duration::from_secs(20),
        }
    }
}

/// One row in the form in which it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// JSON.
    pub body: Bytes,
    /// Its number.
    pub seq: Seq,
    /// The bridge that took it.
    pub bridge: String,
    /// The envelope's `type`.
    pub kind: &'static str,
    /// `bridge:epoch:seq`.
    pub id: String,
    /// The whole PUBLISH packet, in bytes.
    pub packet_bytes: usize,
}

/// A row that was read from the log.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number.
    pub seq: Seq,
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
    /// The row.
    pub seq: Seq,
}

/// A read of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    connection: u64,
    /// Which lane.
    pub lane: Lane,
    /// Rows after this one,
    pub after: Seq,
    /// up to and including this one,
    pub through: Seq,
    /// and no more than so many, oldest first.
    pub limit: usize,
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
    /// Everything of the lane up to here is confirmed or parked: store the cursor.
    SaveCursor {
        /// Which lane.
        lane: Lane,
        /// Its new cursor.
        seq: Seq,
    },
    /// Tell people that a row was parked.
    Park(Parked),
}

/// What the broker allows (CONNACK, MQTT 5.0 3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Receive Maximum: `QoS` 1 packets that it takes at the same time.
    pub receive_maximum: u16,
    /// Maximum Packet Size in bytes.
    pub max_packet_bytes: Option<u32>,
}

/// How a connection ended, as far as it matters for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// Refused, lost, reset, timed out.
    Lost,
    /// DISCONNECT 0x8E: another client came with the same client id.
    TakenOver,
    /// Because of one row, which the broker does not name: DISCONNECT 0x95 (packet too large), or an answer that MQTT
    /// does not know.
    RowRefused,
}

/// What the uplink is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UplinkStatus {
    /// The broker has accepted the connection, and it stands.
    pub connected: bool,
    /// Since when it is connected or not. `None` before the first connection.
    pub since: Option<Wall>,
    /// Numbers of the log between the lane that is furthest behind and the end of the log: at most so many events wait.
    pub waiting: u64,
    /// Rows sent and not confirmed.
    pub in_flight: usize,
    /// Rows the broker did not take, since the start.
    pub parked: u64,
    /// The last of them.
    pub last_parked: Option<Parked>,
    /// Rows confirmed by the broker since the start.
    pub sent: u64,
    /// What is wrong, in words, if something is.
    pub reason: Option<String>,
}

#[derive(Debug)]
enum Link {
    Down { retry_at: Mono },
    Connecting { deadline: Mono },
    Up { since: Mono, window: u16, max_packet_bytes: u32 },
}

#[derive(Debug)]
struct LaneRow {
    message: Arc<Message>,
    in_flight: bool,
    not_before: Mono,
}

/// One lane. Everything up to `cursor` is settled (confirmed or parked), everything up to `read_to` was read; the rows
/// between that are not settled are in `rows`, those that are, in `settled`.
#[derive(Debug)]
struct LaneState {
    cursor: Seq,
    saved: Seq,
    read_to: Seq,
    reading: bool,
    read_not_before: Mono,
    rows: BTreeMap<Seq, LaneRow>,
    settled: BTreeSet<Seq>,
    refusals: BTreeMap<Seq, u8>,
    /// A row that cannot be read, and why.
    bad_row: Option<(Seq, String)>,
}

impl LaneState {
    fn new(cursor: Seq) -> Self {
        Self {
            cursor,
            saved: cursor,
            read_to: cursor,
            reading: false,
            read_not_before: Mono::default(),
            rows: BTreeMap::new(),
            settled: BTreeSet::new(),
            refusals: BTreeMap::new(),
            bad_row: None,
        }
    }

    /// Forgets what was read, so that it is read again from the cursor.
    fn rewind(&mut self) {
        self.rows.clear();
        self.read_to = self.cursor;
        self.reading = false;
        self.bad_row = None;
    }

    fn settle(&mut self, seq: Seq) {
        self.rows.remove(&seq);
        self.refusals.remove(&seq);
        self.settled.insert(seq);
        self.advance();
    }

    /// Moves the cursor over everything that is settled.
    fn advance(&mut self) {
        self.cursor = match self.rows.first_key_value() {
            Some((first, _)) => Seq(first.0.saturating_sub(1)).max(self.cursor),
            None => self.read_to.max(self.cursor),
        };
        self.settled = self.settled.split_off(&self.cursor.next());
    }

    fn wants_rows(&self, durable: Seq, now: Mono) -> bool {
        let idle_rows = self.rows.values().filter(|row| !row.in_flight).count();
        !self.reading
            && self.read_to < durable
            && now >= self.read_not_before
            && idle_rows < READ_BATCH / 2
            && (self.rows.is_empty() || self.rows.len().saturating_add(self.settled.len()) < LANE_SPAN)
    }
}

/// One unconfirmed publication.
#[derive(Debug)]
struct Flight {
    lane: Lane,
    seq: Seq,
    /// When a later publication was answered before this one. A broker answers in order (MQTT 5.0 4.6).
    overtaken: Option<Mono>,
}

/// The machine.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    durable: Seq,
    alerts: LaneState,
    readings: LaneState,
    link: Link,
    connection: u64,
    next_order: u64,
    flights: BTreeMap<u64, Flight>,
    last_progress: Mono,
    reconnect: Backoff,
    hold: Backoff,
    held_until: Option<Mono>,
    /// Rows still to be sent one by one, to find the one because of which the broker ended the connection.
    one_by_one: usize,
    takeovers: VecDeque<Mono>,
    outbox: VecDeque<Action>,
    stopping: bool,
    status: UplinkStatus,
}

impl Plan {
    /// Starts at the stored cursors of `Lane::ALL` in that order; the first connection is wanted at once.
    ///
    /// A cursor beyond `durable` belongs to a log that was lost, and is set back to the end of this one.
    pub fn new(limits: Limits, cursors: [Seq; 2], durable: Seq, seed: u64, now: Stamp) -> Self {
        let [alerts, readings] = cursors.map(|cursor| LaneState::new(cursor.min(durable)));
        let reconnect = Backoff::new(limits.reconnect_shortest, limits.reconnect_longest, seed);
        let hold = Backoff::new(limits.reconnect_shortest, LONGEST_HOLD, seed.wrapping_add(1));
        Self {
            limits,
            durable,
            alerts,
            readings,
            link: Link::Down { retry_at: now.mono },
            connection: 0,
            next_order: 0,
            flights: BTreeMap::new(),
            last_progress: now.mono,
            reconnect,
            hold,
            held_until: None,
            one_by_one: 0,
            takeovers: VecDeque::new(),
            outbox: VecDeque::new(),
            stopping: false,
            status: UplinkStatus::default(),
        }
    }

    /// The store has committed everything up to `durable`.
    pub fn on_durable(&mut self, durable: Seq) {
        self.durable = self.durable.max(durable);
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
        self.status.connected = true;
        self.status.since = Some(now.wall);
        self.clear_reason(now.mono);
    }

    /// The connection, or the attempt to make one, has ended.
    pub fn on_disconnected(&mut self, kind: EndKind, reason: &str, now: Stamp) {
        if matches!(self.link, Link::Down { .. }) {
            return;
        }
        match kind {
            EndKind::Lost => self.go_down(reason.to_owned(), now),
            EndKind::TakenOver => {
                let reason = self.note_takeover(reason, now.mono);
                self.go_down(reason, now);
            }
            EndKind::RowRefused => {
                self.single_out_the_row(reason);
                self.go_down(reason.to_owned(), now);
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
        let Ticket { lane, seq, .. } = ticket;
        match code {
            // 0x10: no subscriber matches now; the broker has taken the message all the same.
            0x00 | 0x10 => {
                self.status.sent = self.status.sent.saturating_add(1);
                self.clear_reason(now.mono);
                self.hold.reset();
                self.one_by_one = self.one_by_one.saturating_sub(1);
                self.lane_mut(lane).settle(seq);
            }
            0x87 => self.park(lane, seq, "the broker does not authorise this topic (0x87)".to_owned()),
            0x90 => self.park(lane, seq, "the broker does not accept this topic name (0x90)".to_owned()),
            0x99 => self.park(lane, seq, "the broker finds the payload format invalid (0x99)".to_owned()),
            0x91 | 0x97 => self.hold_back(lane, seq, code, now.mono),
            other => self.refused(lane, seq, other, now.mono),
        }
    }

    /// The rows that a read has found: of its lane, in its range, oldest first.
    pub fn on_rows(&mut self, request: ReadRequest, rows: Vec<Row>) {
        if request.connection != self.connection || !self.lane(request.lane).reading {
            return;
        }
        let full = rows.len() >= request.limit;
        let lane = self.lane_mut(request.lane);
        lane.reading = false;
        let mut unwritable = Vec::new();
        let mut last = request.after;
        for row in rows {
            if row.seq <= last || row.seq > request.through {
                continue;
            }
            last = row.seq;
            if lane.settled.contains(&row.seq) {
                continue;
            }
            match row.message {
                Ok(message) => {
                    let waiting = LaneRow { message, in_flight: false, not_before: Mono::default() };
                    lane.rows.insert(row.seq, waiting);
                }
                Err(reason) => unwritable.push((row.seq, reason)),
            }
        }
        lane.read_to = if full { last } else { request.through };
        lane.advance();
        for (seq, reason) in unwritable {
            self.park(request.lane, seq, reason);
        }
    }

    /// The row `seq` of the log makes no event; the read has brought nothing. What is before it is read, then it is
    /// parked and passed.
    pub fn on_bad_row(&mut self, request: ReadRequest, seq: Seq, reason: &str, now: Stamp) {
        if seq <= request.after || seq > request.through {
            self.on_read_failed(request, reason, now);
        } else if request.connection == self.connection {
            let lane = self.lane_mut(request.lane);
            lane.reading = false;
            lane.bad_row = Some((seq, reason.to_owned()));
        }
    }

    /// A read has failed; it is tried again.
    pub fn on_read_failed(&mut self, request: ReadRequest, reason: &str, now: Stamp) {
        if request.connection != self.connection {
            return;
        }
        let lane = self.lane_mut(request.lane);
        lane.reading = false;
        lane.read_not_before = now.mono + READ_RETRY;
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
        if let Some(action) = self.save_cursor() {
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
            Link::Up { window, max_packet_bytes, .. } => self.next_of_link(window, max_packet_bytes, now.mono),
        }
    }

    /// When [`Self::next_action`] may have something to do without any input: the first time after `now`, for which
    /// [`Self::next_action`] has just been exhausted.
    pub fn next_deadline(&self, now: Stamp) -> Option<Mono> {
        match self.link {
            Link::Down { retry_at } => (!self.stopping).then_some(retry_at),
            Link::Connecting { deadline } => Some(deadline),
            Link::Up { .. } => {
                let retries = [&self.alerts, &self.readings].into_iter().flat_map(|lane| {
                    let rows = lane.rows.values().filter(|row| !row.in_flight).map(|row| row.not_before);
                    rows.chain([lane.read_not_before])
                });
                retries.chain(self.held_until).filter(|at| *at > now.mono).chain(self.watchdog()).min()
            }
        }
    }

    /// What the uplink is doing.
    pub fn status(&self) -> UplinkStatus {
        let behind = self.alerts.cursor.min(self.readings.cursor);
        UplinkStatus {
            waiting: self.durable.0.saturating_sub(behind.0),
            in_flight: self.flights.len(),
            ..self.status.clone()
        }
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
            Lane::Readings => &self.readings,
        }
    }

    const fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        match lane {
            Lane::Alerts => &mut self.alerts,
            Lane::Readings => &mut self.readings,
        }
    }

    fn save_cursor(&mut self) -> Option<Action> {
        for lane in Lane::ALL.iter().copied() {
            let state = self.lane_mut(lane);
            if state.saved != state.cursor {
                state.saved = state.cursor;
                return Some(Action::SaveCursor { lane, seq: state.cursor });
            }
        }
        None
    }

    /// With a connection: alerts before readings, publishing before reading ahead.
    fn next_of_link(&mut self, window: u16, max_packet_bytes: u32, now: Mono) -> Option<Action> {
        let held = self.held_until.is_some_and(|until| now < until);
        if !held {
            for lane in Lane::ALL.iter().copied() {
                if self.flights.len() >= self.places(lane, window) {
                    continue;
                }
                if let Some(action) = self.publish_next(lane, max_packet_bytes, now) {
                    return Some(action);
                }
            }
        }
        Lane::ALL.iter().copied().find_map(|lane| self.read_next(lane, now))
    }

    /// How full the window may be for a publication of this lane to be added.
    fn places(&self, lane: Lane, window: u16) -> usize {
        if self.one_by_one > 0 {
            return 1;
        }
        let reserve = self.limits.alert_reserve.min(window / 2);
        usize::from(match lane {
            Lane::Alerts => window,
            Lane::Readings => window.saturating_sub(reserve),
        })
    }

    fn publish_next(&mut self, lane: Lane, max_packet_bytes: u32, now: Mono) -> Option<Action> {
        let due = |row: &LaneRow| !row.in_flight && row.not_before <= now;
        let (seq, row) = self.lane_mut(lane).rows.iter_mut().find(|(_, row)| due(row))?;
        let (seq, message) = (*seq, Arc::clone(&row.message));
        if u32::try_from(message.packet_bytes).map_or(true, |bytes| bytes > max_packet_bytes) {
            let bytes = message.packet_bytes;
            self.park(lane, seq, format!("the packet has {bytes} bytes, the broker takes {max_packet_bytes}"));
            return self.outbox.pop_front();
        }
        row.in_flight = true;
        if self.flights.is_empty() {
            self.last_progress = now;
        }
        let order = self.next_order;
        self.next_order = self.next_order.saturating_add(1);
        self.flights.insert(order, Flight { lane, seq, overtaken: None });
        Some(Action::Publish { ticket: Ticket { order, lane, seq }, message })
    }

    fn read_next(&mut self, lane: Lane, now: Mono) -> Option<Action> {
        let (durable, connection) = (self.durable, self.connection);
        let state = self.lane_mut(lane);
        if !state.wants_rows(durable, now) {
            return None;
        }
        let through = match state.bad_row.take_if(|(seq, _)| *seq <= state.read_to.next()) {
            Some((seq, reason)) => {
                state.read_to = seq;
                let known = state.settled.contains(&seq);
                state.advance();
                if !known {
                    self.park(lane, seq, reason);
                }
                return self.outbox.pop_front().or_else(|| self.read_next(lane, now));
            }
            None => state.bad_row.as_ref().map_or(durable, |(seq, _)| Seq(seq.0.saturating_sub(1))),
        };
        state.reading = true;
        Some(Action::Read(ReadRequest { connection, lane, after: state.read_to, through, limit: READ_BATCH }))
    }

    /// When the link must be taken for dead: nothing was answered for the limit, or one publication was passed over.
    fn watchdog(&self) -> Option<Mono> {
        let (_, oldest) = self.flights.first_key_value()?;
        let silence = self.last_progress + self.limits.ack_timeout;
        Some(oldest.overtaken.map_or(silence, |at| silence.min(at + self.limits.ack_timeout)))
    }

    fn park(&mut self, lane: Lane, seq: Seq, reason: String) {
        let parked = Parked { lane, seq, reason };
        self.status.parked = self.status.parked.saturating_add(1);
        self.status.last_parked = Some(parked.clone());
        self.one_by_one = self.one_by_one.saturating_sub(1);
        self.lane_mut(lane).settle(seq);
        self.outbox.push_back(Action::Park(parked));
    }

    /// The broker asks for less: the row waits, and with it everything else.
    fn hold_back(&mut self, lane: Lane, seq: Seq, code: u8, now: Mono) {
        if self.held_until.is_none_or(|until| now >= until) {
            self.held_until = Some(now + self.hold.next_delay());
        }
        self.status.reason = Some(format!("the broker asks for less (0x{code:02x})"));
        self.send_again(lane, seq, now);
    }

    /// An error that may pass: some more tries, then the row is parked.
    fn refused(&mut self, lane: Lane, seq: Seq, code: u8, now: Mono) {
        let count = self.lane_mut(lane).refusals.entry(seq).or_default();
        *count = count.saturating_add(1);
        if *count >= MAX_REFUSALS {
            self.park(lane, seq, format!("the broker has refused the row {MAX_REFUSALS} times (0x{code:02x})"));
        } else {
            self.send_again(lane, seq, now + REFUSED_RETRY);
        }
    }

    fn send_again(&mut self, lane: Lane, seq: Seq, not_before: Mono) {
        if let Some(row) = self.lane_mut(lane).rows.get_mut(&seq) {
            row.in_flight = false;
            row.not_before = not_before;
        }
    }

    /// All is well, except that two clients which take turns are both well most of the time.
    fn clear_reason(&mut self, now: Mono) {
        self.takeovers.retain(|at| now.since(*at) <= TAKEOVER_SPAN);
        if self.takeovers.len() < MAX_TAKEOVERS {
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

    /// The broker does not say which row it refuses: with one in flight it is known, otherwise the same rows go one by
    /// one next time.
    fn single_out_the_row(&mut self, reason: &str) {
        match self.flights.len() {
            0 => {}
            1 => {
                if let Some((_, flight)) = self.flights.pop_first() {
                    self.park(flight.lane, flight.seq, reason.to_owned());
                }
            }
            several => self.one_by_one = several,
        }
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
        self.held_until = None;
        self.alerts.rewind();
        self.readings.rewind();
        self.status.connected = false;
        self.status.reason = Some(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan, its time, and everything it has asked for.
    struct Bench {
        plan: Plan,
        now: Stamp,
        tickets: Vec<Ticket>,
        saved: Vec<(Lane, u64)>,
        parked: Vec<(u64, String)>,
        connects: usize,
        closed: Vec<String>,
    }

    const HUGE: usize = 5000;

    impl Bench {
        /// A log of alerts (`A`), readings (`r`) and readings that are huge (`R`), numbered from 1; connected.
        fn new(log: &str, broker: BrokerLimits) -> Self {
            let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
            let durable = Seq(u64::try_from(log.len()).unwrap());
            let plan = Plan::new(Limits::default(), [Seq::ZERO; 2], durable, 1, now);
            let (tickets, saved, parked, closed) = (vec![], vec![], vec![], vec![]);
            let mut bench = Self { plan, now, tickets, saved, parked, connects: 0, closed };
            bench.turn(log);
            assert_eq!(bench.connects, 1, "the first connection is wanted at once");
            bench.plan.on_connected(broker, now);
            bench.turn(log);
            bench
        }

        fn turn(&mut self, log: &str) {
            while let Some(action) = self.plan.next_action(self.now) {
                match action {
                    Action::Connect => self.connects += 1,
                    Action::Close { reason } => self.closed.push(reason),
                    Action::Read(request) => self.plan.on_rows(request, rows(log, request)),
                    Action::Publish { ticket, .. } => self.tickets.push(ticket),
                    Action::SaveCursor { lane, seq } => self.saved.push((lane, seq.0)),
                    Action::Park(parked) => self.parked.push((parked.seq.0, parked.reason)),
                }
            }
        }

        fn sent(&mut self) -> Vec<u64> {
            self.tickets.drain(..).map(|ticket| ticket.seq.0).collect()
        }

        fn wait(&mut self, span: Duration) {
            self.now.mono = self.now.mono + span;
        }

        fn answer(&mut self, ticket: Ticket, code: u8) {
            self.plan.on_puback(ticket, code, self.now);
        }

        fn reconnect(&mut self, log: &str, broker: BrokerLimits) {
            self.wait(Limits::default().reconnect_longest);
            self.turn(log);
            self.plan.on_connected(broker, self.now);
            self.turn(log);
        }
    }

    fn rows(log: &str, request: ReadRequest) -> Vec<Row> {
        let row = |(place, letter): (usize, char)| {
            let seq = Seq(u64::try_from(place + 1).unwrap());
            let packet_bytes = if letter == 'R' { HUGE } else { 100 };
            let message = Message {
                topic: String::new(),
                body: Bytes::new(),
                seq,
                bridge: String::new(),
                kind: "",
                id: String::new(),
                packet_bytes,
            };
            Row { seq, message: Ok(Arc::new(message)) }
        };
        let of_lane = |(_, letter): &(usize, char)| (*letter == 'A') == (request.lane == Lane::Alerts);
        let all = log.chars().enumerate().filter(of_lane).map(row);
        all.filter(|row| row.seq > request.after && row.seq <= request.through).take(request.limit).collect()
    }

    const BROAD: BrokerLimits = BrokerLimits { receive_maximum: u16::MAX, max_packet_bytes: None };

    #[test]
    fn alerts_go_first_and_readings_leave_places_to_them() {
        let log = format!("{}AA", "r".repeat(60));
        let mut bench = Bench::new(&log, BROAD);
        let sent = bench.sent();
        assert_eq!(sent.len(), 24, "32 places, 8 of them only for alerts, of which 2 came");
        assert!(sent.contains(&61) && sent.contains(&62), "{sent:?}");
        assert_eq!(sent.iter().filter(|seq| **seq <= 60).count(), 22);
    }

    #[test]
    fn an_alert_passes_a_window_full_of_readings() {
        let log = format!("{}AA", "r".repeat(60));
        let before = log.replace('A', "");
        let mut bench = Bench::new(&before, BROAD);
        assert_eq!(bench.sent().len(), 24);
        bench.plan.on_durable(Seq(62));
        bench.turn(&log);
        assert_eq!(bench.sent(), [61, 62]);
    }

    #[test]
    fn the_smaller_of_both_windows_counts() {
        for (receive_maximum, expected) in [(1, 1), (4, 2), (20, 12), (500, 24)] {
            let broker = BrokerLimits { receive_maximum, max_packet_bytes: None };
            assert_eq!(Bench::new(&"r".repeat(60), broker).sent().len(), expected, "{receive_maximum}");
        }
    }

    #[test]
    fn a_cursor_passes_only_what_is_confirmed_in_whatever_order() {
        let mut bench = Bench::new("rArrr", BROAD);
        let tickets = bench.tickets.clone();
        let by_seq = |seq: u64| *tickets.iter().find(|ticket| ticket.seq.0 == seq).unwrap();
        // What is in no lane's way is passed at once: the reading 1 before the first alert.
        assert_eq!(std::mem::take(&mut bench.saved), [(Lane::Alerts, 1)]);
        for (seq, code, expected) in [
            (3, 0x00, vec![]),
            (1, 0x10, vec![(Lane::Readings, 3)]),
            (2, 0x00, vec![(Lane::Alerts, 5)]),
            (5, 0x00, vec![]),
            (4, 0x00, vec![(Lane::Readings, 5)]),
        ] {
            bench.answer(by_seq(seq), code);
            bench.turn("rArrr");
            assert_eq!(std::mem::take(&mut bench.saved), expected, "after {seq}");
        }
        assert_eq!((bench.plan.status().sent, bench.plan.status().waiting), (5, 0));
    }

    #[test]
    fn after_a_lost_connection_what_was_not_confirmed_goes_again_and_only_that() {
        let log = "rrrr";
        let mut bench = Bench::new(log, BROAD);
        let second = bench.tickets[1];
        bench.answer(second, 0x00);
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        bench.turn(log);
        bench.sent();
        assert_eq!(bench.plan.status().in_flight, 0);
        assert_eq!(bench.plan.status().reason.as_deref(), Some("cut"));
        bench.reconnect(log, BROAD);
        assert_eq!(bench.sent(), [1, 3, 4]);
    }

    #[test]
    fn an_answer_from_an_earlier_connection_confirms_nothing() {
        let log = "rr";
        let mut bench = Bench::new(log, BROAD);
        let old = bench.tickets[0];
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        bench.answer(old, 0x00);
        bench.reconnect(log, BROAD);
        bench.answer(old, 0x00);
        bench.turn(log);
        assert_eq!(bench.saved, [(Lane::Alerts, 2)], "no reading is confirmed");
        assert_eq!((bench.plan.status().sent, bench.plan.in_flight()), (0, 2));
    }

    #[test]
    fn rows_of_an_earlier_connection_are_not_taken() {
        let mut bench = Bench::new("", BROAD);
        bench.plan.on_durable(Seq(2));
        let reads: Vec<_> = std::iter::from_fn(|| bench.plan.next_action(bench.now)).collect();
        let Some(Action::Read(old)) = reads.last().cloned() else { panic!("no read: {reads:?}") };
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        bench.wait(Limits::default().reconnect_longest);
        assert_eq!(bench.plan.next_action(bench.now), Some(Action::Connect));
        bench.plan.on_connected(BROAD, bench.now);
        let _again: Vec<_> = std::iter::from_fn(|| bench.plan.next_action(bench.now)).collect();
        bench.plan.on_rows(old, rows("rr", old));
        assert_eq!(bench.plan.next_action(bench.now), None, "the new read has not been answered");
    }

    #[test]
    fn some_codes_park_at_once_and_some_after_three_tries_and_the_lane_goes_on() {
        for (code, tries) in [(0x87, 1), (0x90, 1), (0x99, 1), (0x80, 3), (0x83, 3)] {
            let log = "rr";
            let mut bench = Bench::new(log, BROAD);
            let good = bench.tickets[1];
            bench.answer(good, 0x00);
            for attempt in 1..=tries {
                let bad = *bench.tickets.iter().rfind(|ticket| ticket.seq == Seq(1)).unwrap();
                bench.answer(bad, code);
                bench.turn(log);
                assert_eq!(bench.parked.len(), usize::from(attempt == tries), "0x{code:02x}, try {attempt}");
                assert_eq!(bench.plan.in_flight(), 0, "the next try waits");
                bench.wait(REFUSED_RETRY);
                bench.turn(log);
            }
            assert_eq!(bench.saved.last(), Some(&(Lane::Readings, 2)), "0x{code:02x}");
            assert_eq!(bench.plan.status().last_parked.unwrap().seq, Seq(1));
        }
    }

    #[test]
    fn tries_are_counted_over_connections() {
        let log = "r";
        let mut bench = Bench::new(log, BROAD);
        for _ in 0..MAX_REFUSALS {
            let ticket = *bench.tickets.last().unwrap();
            bench.answer(ticket, 0x80);
            bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
            bench.reconnect(log, BROAD);
        }
        assert_eq!(bench.parked.len(), 1);
        assert_eq!(bench.saved.last(), Some(&(Lane::Readings, 1)));
    }

    #[test]
    fn a_broker_that_asks_for_less_gets_nothing_for_a_while() {
        for code in [0x91, 0x97] {
            let log = "rrr";
            let mut bench = Bench::new(log, BrokerLimits { receive_maximum: 1, max_packet_bytes: None });
            let first = bench.tickets[0];
            bench.sent();
            bench.answer(first, code);
            bench.turn(log);
            assert!(bench.sent().is_empty(), "0x{code:02x}");
            let until = bench.plan.next_deadline(bench.now).unwrap();
            assert!(until.since(bench.now.mono) >= Limits::default().reconnect_shortest);
            bench.now.mono = until;
            bench.turn(log);
            assert_eq!(bench.sent(), [1], "the same row, and the lane in its order");
        }
    }

    #[test]
    fn a_row_larger_than_the_broker_takes_is_parked_unsent() {
        let broker = BrokerLimits { receive_maximum: 100, max_packet_bytes: Some(1000) };
        let mut bench = Bench::new("rRr", broker);
        assert_eq!(bench.sent(), [1, 3]);
        assert_eq!(bench.parked, [(2, "the packet has 5000 bytes, the broker takes 1000".to_owned())]);
    }

    #[test]
    fn after_a_refusal_that_names_no_row_they_go_one_by_one_until_it_is_found() {
        let log = "rRr";
        let mut bench = Bench::new(log, BROAD);
        assert_eq!(bench.sent(), [1, 2, 3]);
        bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
        bench.reconnect(log, BROAD);
        let first = bench.tickets[0];
        assert_eq!(bench.sent(), [1]);
        bench.answer(first, 0x00);
        bench.turn(log);
        assert_eq!(bench.sent(), [2]);
        bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
        bench.reconnect(log, BROAD);
        assert_eq!(bench.parked, [(2, "too large".to_owned())]);
        assert_eq!(bench.sent(), [3]);
    }

    #[test]
    fn silence_after_a_publication_ends_the_connection() {
        let log = "r";
        let mut bench = Bench::new(log, BROAD);
        assert_eq!(bench.plan.next_deadline(bench.now), Some(bench.now.mono + Duration::from_secs(20)));
        bench.wait(Duration::from_millis(19_999));
        bench.turn(log);
        assert!(bench.closed.is_empty());
        bench.wait(Duration::from_millis(1));
        bench.turn(log);
        assert_eq!((bench.closed.len(), bench.plan.status().connected), (1, false));
    }

    #[test]
    fn an_idle_connection_is_not_ended() {
        let mut bench = Bench::new("", BROAD);
        bench.wait(Duration::from_hours(1));
        bench.turn("");
        assert!(bench.closed.is_empty());
        assert_eq!(bench.plan.next_deadline(bench.now), None);
    }

    #[test]
    fn a_publication_passed_over_ends_the_connection_even_if_others_are_answered() {
        let log = "r".repeat(200);
        let mut bench = Bench::new(&log, BROAD);
        for _ in 0..25 {
            if !bench.closed.is_empty() {
                break;
            }
            let last = bench.tickets.pop().unwrap();
            bench.answer(last, 0x00);
            bench.wait(Duration::from_secs(1));
            bench.turn(&log);
        }
        assert_eq!(bench.closed.len(), 1);
    }

    #[test]
    fn a_broker_that_never_answers_the_connection_request_is_given_up() {
        let now = Stamp { mono: Mono::from_millis(5), wall: Wall(0) };
        let mut plan = Plan::new(Limits::default(), [Seq::ZERO; 2], Seq::ZERO, 1, now);
        assert_eq!(plan.next_action(now), Some(Action::Connect));
        assert_eq!(plan.next_action(now), None);
        let late = Stamp { mono: plan.next_deadline(now).unwrap(), ..now };
        assert_eq!(late.mono.since(now.mono), Duration::from_secs(15));
        assert!(matches!(plan.next_action(late), Some(Action::Close { .. })));
    }

    #[test]
    fn waits_grow_to_the_longest_and_a_stable_connection_makes_them_short_again() {
        let mut bench = Bench::new("", BROAD);
        let mut longest = Duration::ZERO;
        let wait_of = |bench: &mut Bench, stood: u64| {
            bench.wait(Duration::from_secs(stood));
            bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
            let wait = bench.plan.next_deadline(bench.now).unwrap().since(bench.now.mono);
            bench.now.mono = bench.now.mono + wait;
            bench.turn("");
            bench.plan.on_connected(BROAD, bench.now);
            wait
        };
        for _ in 0..60 {
            let wait = wait_of(&mut bench, 59);
            assert!((Duration::from_secs(1)..=Duration::from_mins(2)).contains(&wait), "{wait:?}");
            longest = longest.max(wait);
        }
        assert!(longest > Duration::from_mins(1), "{longest:?}");
        assert_eq!(wait_of(&mut bench, 60), Duration::from_secs(1));
    }

    #[test]
    fn three_takeovers_in_a_minute_name_their_cause() {
        let mut bench = Bench::new("", BROAD);
        let mut reasons = Vec::new();
        for _ in 0..3 {
            bench.plan.on_disconnected(EndKind::TakenOver, "taken over", bench.now);
            reasons.push(bench.plan.status().reason.unwrap());
            bench.now.mono = bench.plan.next_deadline(bench.now).unwrap();
            bench.turn("");
            bench.plan.on_connected(BROAD, bench.now);
        }
        assert_eq!(reasons[..2], ["taken over", "taken over"]);
        assert!(reasons[2].contains("two clients share one client id"), "{}", reasons[2]);
        assert_eq!(bench.plan.status().reason.as_deref(), Some(reasons[2].as_str()), "still said while connected");
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        bench.reconnect("", BROAD);
        assert_eq!(bench.plan.status().reason, None, "over after a while");
    }

    #[test]
    fn only_durable_rows_are_read_and_a_failed_read_is_tried_again() {
        let mut bench = Bench::new("", BROAD);
        bench.plan.on_durable(Seq(1));
        let Some(Action::Read(request)) = bench.plan.next_action(bench.now) else { panic!("no read") };
        assert_eq!((request.after, request.through), (Seq::ZERO, Seq(1)));
        bench.plan.on_read_failed(request, "disk", bench.now);
        assert_eq!(bench.plan.status().reason.as_deref(), Some("disk"));
        bench.turn("r");
        bench.wait(READ_RETRY);
        bench.turn("rrr");
        assert_eq!(bench.sent(), [1], "the other two are not durable");
    }

    #[test]
    fn a_row_that_cannot_be_written_is_parked_and_passed() {
        let mut bench = Bench::new("", BROAD);
        bench.plan.on_durable(Seq(1));
        while let Some(action) = bench.plan.next_action(bench.now) {
            if let Action::Read(request) = action {
                let row = Row { seq: Seq(1), message: Err("no JSON".to_owned()) };
                let rows = if request.lane == Lane::Readings { vec![row] } else { vec![] };
                bench.plan.on_rows(request, rows);
            }
        }
        assert_eq!((bench.plan.status().parked, bench.plan.status().waiting), (1, 0));
    }

    #[test]
    fn a_row_that_cannot_be_read_is_parked_and_those_around_it_are_sent() {
        let log = "r".repeat(100);
        let mut bench = Bench::new("", BROAD);
        bench.plan.on_durable(Seq(100));
        for _ in 0..1000 {
            match bench.plan.next_action(bench.now) {
                Some(Action::Read(request)) if request.after < Seq(70) && request.through >= Seq(70) => {
                    let whole = rows(&log, request);
                    if request.lane == Lane::Readings && whole.last().unwrap().seq >= Seq(70) {
                        bench.plan.on_bad_row(request, Seq(70), "damaged", bench.now);
                    } else {
                        bench.plan.on_rows(request, if request.lane == Lane::Readings { whole } else { vec![] });
                    }
                }
                Some(Action::Read(request)) => bench.plan.on_rows(request, rows(&log, request)),
                Some(Action::Publish { ticket, .. }) => {
                    bench.tickets.push(ticket);
                    bench.answer(ticket, 0x00);
                }
                Some(Action::Park(parked)) => bench.parked.push((parked.seq.0, parked.reason)),
                Some(Action::SaveCursor { .. }) => {}
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        assert_eq!(bench.sent(), (1..=100).filter(|seq| *seq != 70).collect::<Vec<_>>());
        assert_eq!(bench.parked, [(70, "damaged".to_owned())]);
        assert_eq!(bench.plan.status().waiting, 0);
    }

    #[test]
    fn after_stop_answers_count_and_nothing_new_is_sent() {
        let log = "r".repeat(60);
        let mut bench = Bench::new(&log, BROAD);
        let sent = bench.tickets.len();
        bench.plan.on_stop();
        let first = bench.tickets[0];
        bench.answer(first, 0x00);
        bench.turn(&log);
        assert_eq!((bench.tickets.len(), bench.saved.last()), (sent, Some(&(Lane::Readings, 1))));
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        bench.wait(Duration::from_mins(10));
        bench.turn(&log);
        assert_eq!(bench.connects, 1);
    }

    #[test]
    fn a_cursor_from_a_log_that_was_lost_is_set_back_to_the_end_of_this_one() {
        let now = Stamp::default();
        let plan = Plan::new(Limits::default(), [Seq(900), Seq(5)], Seq(10), 1, now);
        assert_eq!(plan.status().waiting, 5);
        assert_eq!(plan.alerts.cursor, Seq(10));
    }
}
