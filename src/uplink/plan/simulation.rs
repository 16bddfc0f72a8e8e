//! The plan against a hostile broker in virtual time: what the broker confirmed is what a cursor passes, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use super::{Action, BrokerLimits, EndKind, Lane, Limits, Message, Plan, ReadRequest, Row, Ticket};
use crate::clock::{Mono, Stamp, Wall};
use crate::ids::Seq;
use crate::uplink::pieces::{HOLDING, OTHERS, READINGS, URGENT};

/// Rows larger than this are refused by this broker.
const BROKER_PACKET_BYTES: usize = 2000;

/// The size of a bundle of any length.
const BUNDLE_BYTES: usize = 1500;

/// What was published longer ago is of the past.
const PRESENT_FOR: Duration = Duration::from_mins(1);

/// Virtual time in which everything must have arrived once the broker has become friendly.
const PATIENCE: Duration = Duration::from_hours(8);

/// Somebody is monitored all the time: so often there is something new, of every sort.
const LIFE_GOES_ON: Duration = Duration::from_secs(20);

/// What an event is, as far as lanes tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Reading,
    Urgent,
    Other,
}

/// What happens at a time, in the order of times and then of planning.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Accept,
    Puback(Ticket, u8),
    End(EndKind),
    Rows(ReadRequest),
    ReadFails(ReadRequest),
    ReadPanics(ReadRequest),
    Commit,
    /// A time server answers.
    ClockSet,
    /// The broker answers what the bridge says of itself.
    Announced,
}

/// The broker, the store and the network around one plan.
#[expect(clippy::struct_excessive_bools, reason = "each is a fault that is on or off by itself")]
struct World {
    random: Rng,
    now: Stamp,
    limits: Limits,
    plan: Plan,
    hostile: bool,
    // The store.
    log: Vec<Sort>,
    /// When each event up to `durable` was published.
    published: Vec<Mono>,
    /// Events up to here are of an earlier life.
    inherited: Seq,
    durable: Seq,
    stored_cursors: BTreeMap<String, Seq>,
    /// Moved, and not on disk yet.
    moved: BTreeMap<String, Seq>,
    /// Up to here every event that a cursor passes is known to be settled.
    checked: BTreeMap<&'static str, u64>,
    // The broker.
    connection: u64,
    connected: bool,
    silent: bool,
    receive_maximum: u16,
    in_flight: BTreeMap<u64, Ticket>,
    sent: u64,
    poison: BTreeMap<Seq, u8>,
    /// Rows with which this broker ends the connection, and how.
    closing: BTreeMap<Seq, EndKind>,
    /// Until then it asks for less at each publication of the backlog.
    no_backlog_until: Mono,
    announcing: bool,
    damaged: BTreeSet<Seq>,
    /// The program cannot bear to read these.
    unbearable: BTreeSet<Seq>,
    received: BTreeSet<Seq>,
    confirmed: BTreeSet<Seq>,
    parked: BTreeSet<Seq>,
    parked_in_this_life: BTreeSet<Seq>,
    unparked: Vec<(Seq, Seq)>,
    /// What somebody has asked for again in this life and that has not come since.
    asked: BTreeSet<Seq>,
    agenda: BTreeMap<(Mono, u64), (u64, Happening)>,
    planned: u64,
    // The clock.
    /// The first event of this boot.
    booted: Seq,
    clock_is_set: bool,
    /// How long this life has been connected with a clock that nobody had set, before this connection.
    waited: Duration,
    connected_at: Mono,
    held: u64,
    flagged: u64,
    publications: u64,
    bundles: u64,
    resent: u64,
    past_alerts: u64,
    ended_by_row: u64,
    /// The longest time from an urgent event to the broker's confirmation.
    slowest_alert: Duration,
    panics: u64,
    task_restarts: u64,
    connections: u64,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    fn new(seed: u64, rows: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let sort = |number: u8| match number {
            0 => Sort::Urgent,
            1 => Sort::Other,
            _ => Sort::Reading,
        };
        let log: Vec<Sort> = (0..rows).map(|_| sort(random.u8(..12))).collect();
        let now = Stamp { mono: Mono::from_millis(50_000), wall: Wall(0) };
        let limits = Limits { clock_hold: seconds(random.u64(0..4) * 40), ..Limits::default() };
        let plan = Plan::new(limits.clone(), &BTreeMap::new(), Seq::ZERO, seed, now);
        let booted = Seq(random.u64(1..=u64::try_from(rows).unwrap()));
        let set_after = seconds(random.u64(0..900));
        let poison = (0..rows / 40).map(|_| {
            let code = [0x87, 0x90, 0x99, 0x80, 0x83, 0x97, 0x91][random.usize(..7)];
            (Seq(random.u64(1..=u64::try_from(rows).unwrap())), code)
        });
        let poison = poison.collect();
        let closing = (0..rows / 200).map(|_| {
            let kind = [EndKind::RowRefused, EndKind::Denied, EndKind::Closed][random.usize(..3)];
            (Seq(random.u64(1..=u64::try_from(rows).unwrap())), kind)
        });
        let closing = closing.collect();
        let damaged = (0..rows / 100).map(|_| Seq(random.u64(1..=u64::try_from(rows).unwrap()))).collect();
        let unbearable = (0..rows / 300).map(|_| Seq(random.u64(1..=u64::try_from(rows).unwrap()))).collect();
        let mut world = Self {
            random,
            now,
            limits,
            plan,
            hostile: true,
            log,
            published: Vec::new(),
            inherited: Seq::ZERO,
            durable: Seq::ZERO,
            stored_cursors: BTreeMap::new(),
            moved: BTreeMap::new(),
            checked: HOLDING.map(|name| (name, 0)).into(),
            connection: 0,
            connected: false,
            silent: false,
            receive_maximum: 0,
            in_flight: BTreeMap::new(),
            sent: 0,
            poison,
            closing,
            no_backlog_until: Mono(0),
            announcing: false,
            damaged,
            unbearable,
            received: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            parked: BTreeSet::new(),
            parked_in_this_life: BTreeSet::new(),
            unparked: Vec::new(),
            asked: BTreeSet::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            booted,
            clock_is_set: false,
            waited: Duration::ZERO,
            connected_at: Mono(0),
            held: 0,
            flagged: 0,
            publications: 0,
            bundles: 0,
            resent: 0,
            past_alerts: 0,
            ended_by_row: 0,
            slowest_alert: Duration::ZERO,
            panics: 0,
            task_restarts: 0,
            connections: 0,
        };
        world.later(seconds(0), Happening::Commit);
        // One in four never hears of a time server.
        if !seed.is_multiple_of(4) {
            world.later(set_after, Happening::ClockSet);
        }
        world.tell_clock();
        world
    }

    fn tell_clock(&mut self) {
        self.plan.on_clock((!self.clock_is_set).then_some(self.booted), self.now);
    }

    /// What a row says of the clock: that of its time, or of its boot since.
    fn mark(&self, last: Seq) -> String {
        if last < self.booted || self.clock_is_set { "set" } else { "unset" }.to_owned()
    }

    /// How long this life has waited for the clock with a connection.
    fn has_waited(&self) -> Duration {
        let now = if self.connected { self.now.mono.since(self.connected_at) } else { Duration::ZERO };
        self.waited + now
    }

    fn check_clock(&mut self, ticket: Ticket, message: &Message) {
        assert_eq!(message.id, self.mark(ticket.last), "a row goes out with times that do not hold any more");
        if ticket.last < self.booted || self.clock_is_set {
            return;
        }
        if matches!(ticket.lane, Lane::Live | Lane::Backlog) {
            self.flagged += 1;
            assert!(self.has_waited() >= self.limits.clock_hold, "a reading has not waited for the clock");
        } else {
            self.held += u64::from(self.has_waited() < self.limits.clock_hold);
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((self.now.mono + after, self.planned), (self.connection, happening));
    }

    /// True with this chance in a thousand, while the world is hostile.
    fn bad_luck(&mut self, per_mille: u16) -> bool {
        self.hostile && self.random.u16(..1000) < per_mille
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.u64(1..=most))
    }

    fn sort_of(&self, seq: Seq) -> Sort {
        self.log[usize::try_from(seq.0 - 1).unwrap()]
    }

    fn is_reading(&self, seq: Seq) -> bool {
        self.sort_of(seq) == Sort::Reading
    }

    /// The backlog may have events of every kind, if they are asked for again.
    fn belongs(&self, lane: Lane, seq: Seq) -> bool {
        match lane {
            Lane::Backlog => true,
            Lane::Live => self.sort_of(seq) == Sort::Reading,
            Lane::Alerts | Lane::EarlierAlerts => self.sort_of(seq) == Sort::Urgent,
            Lane::Others => self.sort_of(seq) == Sort::Other,
        }
    }

    /// The events between the ends of a row.
    fn of_row(&self, lane: Lane, first: Seq, last: Seq) -> Vec<Seq> {
        let all = (first.0..=last.0).map(Seq);
        // What was asked for again is sent as a reading in a bundle of readings would be.
        all.filter(|seq| if lane == Lane::Backlog { self.is_reading(*seq) } else { self.belongs(lane, *seq) }).collect()
    }

    fn bytes_of(seq: Seq) -> usize {
        if seq.0.is_multiple_of(97) { BROKER_PACKET_BYTES + 1 } else { 500 }
    }

    /// Rows that this broker never takes, or that cannot be read.
    fn is_bad(&self, seq: Seq) -> bool {
        let is_refused = self.poison.contains_key(&seq) || self.closing.contains_key(&seq);
        is_refused
            || self.damaged.contains(&seq)
            || self.unbearable.contains(&seq)
            || Self::bytes_of(seq) > BROKER_PACKET_BYTES
    }

    fn expected(&self) -> impl Iterator<Item = Seq> {
        (1..=self.end_of_log().0).map(Seq)
    }

    fn end_of_log(&self) -> Seq {
        Seq(u64::try_from(self.log.len()).unwrap())
    }

    fn run_until(&mut self, end: Mono) {
        loop {
            self.carry_out_all();
            let is_done = self.plan.status(self.now).waiting == 0 && !self.plan.is_resending();
            if self.durable == self.end_of_log() && is_done {
                return;
            }
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = next.into_iter().chain(self.plan.next_deadline(self.now)).min() else {
                panic!("nothing will ever happen again: {:?}", self.plan.status(self.now));
            };
            if at > end {
                return;
            }
            self.now.mono = self.now.mono.max(at);
            while let Some(entry) = self.agenda.first_entry() {
                if entry.key().0 > self.now.mono {
                    break;
                }
                let (connection, happening) = entry.remove();
                self.happen(connection, happening);
            }
        }
    }

    fn carry_out_all(&mut self) {
        for _ in 0..10_000 {
            match self.plan.next_action(self.now) {
                Some(action) => self.carry_out(action),
                None => return,
            }
        }
        panic!("the plan never comes to rest");
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Connect => self.connect(),
            Action::Close { .. } => self.cut(),
            Action::Read(request) => self.read(request),
            Action::Publish { ticket, message } => self.publish(ticket, &message),
            Action::Save(cursors) => self.save(cursors),
            Action::Unpark(first, last) => self.unparked.push((first, last)),
            Action::Park(parked) => {
                assert!(self.belongs(parked.lane, parked.seq));
                assert!(self.is_bad(parked.seq), "{parked:?} was parked without a reason");
                self.parked_in_this_life.insert(parked.seq);
                self.parked.insert(parked.seq);
            }
        }
    }

    fn connect(&mut self) {
        assert!(!self.connected, "connects although connected");
        self.cut();
        self.connections += 1;
        self.silent = self.bad_luck(50);
        self.receive_maximum = if self.bad_luck(300) { self.random.u16(1..5) } else { u16::MAX };
        let delay = self.millis(500);
        if self.bad_luck(200) {
            self.later(delay, Happening::End(EndKind::Lost));
        } else if !self.bad_luck(100) {
            self.later(delay, Happening::Accept);
        }
    }

    fn cut(&mut self) {
        self.waited = self.has_waited();
        self.silent = false;
        self.connection += 1;
        self.connected = false;
        self.in_flight.clear();
    }

    fn read(&mut self, request: ReadRequest) {
        assert!(request.through <= self.durable, "reads what is not durable");
        let delay = self.millis(50);
        let happening = match (self.bad_luck(50), self.bad_luck(10)) {
            (true, _) => Happening::ReadFails(request),
            (false, true) => Happening::ReadPanics(request),
            (false, false) => Happening::Rows(request),
        };
        self.later(delay, happening);
    }

    fn publish(&mut self, ticket: Ticket, message: &Message) {
        assert!(self.connected, "publishes without a connection");
        assert!(ticket.last <= self.durable, "publishes what is not durable");
        assert!(self.belongs(ticket.lane, ticket.first) && self.belongs(ticket.lane, ticket.last));
        let is_past = ticket.lane == Lane::Backlog || self.present_until(ticket.first).is_none();
        assert_eq!(message.is_historical(), is_past, "{ticket:?} says what is not so");
        self.past_alerts += u64::from(is_past && self.sort_of(ticket.first) == Sort::Urgent);
        assert!(message.packet_bytes <= BROKER_PACKET_BYTES, "publishes what is too large");
        let is_twice = self
            .in_flight
            .values()
            .any(|other| other.lane == ticket.lane && other.first <= ticket.last && ticket.first <= other.last);
        assert!(!is_twice, "publishes twice at once");
        self.check_clock(ticket, message);
        self.sent += 1;
        self.publications += 1;
        if ticket.first < ticket.last {
            self.bundles += 1;
        }
        self.in_flight.insert(self.sent, ticket);
        let window = self.limits.window.min(self.receive_maximum);
        assert!(self.in_flight.len() <= usize::from(window), "the window is exceeded");
        self.meet_fate(ticket);
    }

    fn meet_fate(&mut self, ticket: Ticket) {
        if self.silent || self.bad_luck(4) {
            // A half-open link, or a publication that is lost: no answer.
            return;
        }
        if self.bad_luck(4) {
            // Broken radio, a broker that restarts, another client with this name, a password that ends.
            let kinds = [EndKind::Lost, EndKind::Closed, EndKind::TakenOver, EndKind::Again, EndKind::Denied];
            let kind = kinds[self.random.usize(..kinds.len())];
            let delay = self.millis(100);
            self.later(delay, Happening::End(kind));
        }
        let events = self.of_row(ticket.lane, ticket.first, ticket.last);
        if let Some(kind) = events.iter().find_map(|seq| self.closing.get(seq).copied()) {
            // Nothing behind it is looked at.
            self.silent = true;
            let delay = self.millis(300);
            self.later(delay, Happening::End(kind));
            self.ended_by_row += 1;
            return;
        }
        let code = match events.iter().find_map(|seq| self.poison.get(seq).copied()) {
            Some(code) => code,
            None if ticket.lane == Lane::Backlog && self.now.mono < self.no_backlog_until => 0x97,
            None if self.bad_luck(10) => [0x91, 0x97][self.random.usize(..2)],
            None if self.random.bool() => 0x10,
            None => 0x00,
        };
        if code < 0x80 {
            self.received.extend(events);
            if ticket.lane == Lane::Backlog {
                self.asked.retain(|seq| *seq < ticket.first || ticket.last < *seq);
            }
        }
        if self.bad_luck(4) {
            // Taken, but the answer is lost.
            return;
        }
        // Some answers come after the end of their connection, or twice.
        let slowest = if self.bad_luck(20) { 30_000 } else { 300 };
        let delay = self.millis(slowest);
        self.later(delay, Happening::Puback(ticket, code));
        if self.bad_luck(5) {
            self.later(delay * 2, Happening::Puback(ticket, code));
        }
    }

    fn happen(&mut self, connection: u64, happening: Happening) {
        let current = connection == self.connection;
        match happening {
            Happening::Accept if current => {
                (self.connected, self.connected_at, self.announcing) = (true, self.now.mono, true);
                self.plan.on_announcements(true, false);
                if self.bad_luck(50) {
                    // What the bridge says of itself is too large for this broker: no row has anything to do with it.
                    let delay = self.millis(300);
                    self.later(delay, Happening::End(EndKind::RowRefused));
                } else {
                    let delay = self.millis(400);
                    self.later(delay, Happening::Announced);
                }
                let max_packet_bytes = Some(u32::try_from(BROKER_PACKET_BYTES).unwrap());
                self.plan
                    .on_connected(BrokerLimits { receive_maximum: self.receive_maximum, max_packet_bytes }, self.now);
            }
            Happening::End(kind) if current => {
                self.cut();
                self.plan.on_disconnected(kind, "the model says so", self.now);
            }
            Happening::Puback(ticket, code) => {
                if current {
                    self.in_flight.retain(|_, other| *other != ticket);
                    if code < 0x80 && ticket.lane == Lane::Alerts {
                        let published = self.published[usize::try_from(ticket.first.0 - 1).unwrap()];
                        self.slowest_alert = self.slowest_alert.max(self.now.mono.since(published));
                    }
                    if code < 0x80 {
                        self.confirmed.extend(self.of_row(ticket.lane, ticket.first, ticket.last));
                    }
                }
                self.plan.on_puback(ticket, code, self.now);
            }
            Happening::Rows(request) => {
                let events = self.events(request);
                if events.iter().any(|seq| self.unbearable.contains(seq)) {
                    self.panics += 1;
                    self.plan.on_read_panicked(request, "a defect", self.now);
                } else if let Some(bad) = events.iter().find(|seq| self.damaged.contains(seq)) {
                    self.plan.on_bad_row(request, *bad, "damaged", self.now);
                } else {
                    let rows = self.rows(request, &events);
                    self.plan.on_rows(request, rows, events.len() >= request.limit);
                }
            }
            // By itself it would do the next time.
            Happening::ReadPanics(request) => self.plan.on_read_panicked(request, "a passing defect", self.now),
            Happening::ReadFails(request) => self.plan.on_read_failed(request, "the model says so", self.now),
            Happening::Commit => self.commit(),
            Happening::ClockSet => {
                self.clock_is_set = true;
                self.tell_clock();
            }
            Happening::Announced if current => {
                self.announcing = false;
                self.plan.on_announcements(false, false);
            }
            Happening::Accept | Happening::End(_) | Happening::Announced => {}
        }
        if self.bad_luck(1) {
            self.restart();
        }
        if self.bad_luck(2) {
            self.restart_the_task();
        }
        if self.bad_luck(1) {
            let (first, more) = (self.random.u64(1..=self.end_of_log().0), self.random.u64(..200));
            let last = Seq((first + more).min(self.end_of_log().0));
            if self.plan.resend(Seq(first), last) {
                self.resent += 1;
                self.asked.extend((first..=last.0).map(Seq));
            }
        }
    }

    fn events(&self, request: ReadRequest) -> Vec<Seq> {
        let all = (request.after.0 + 1..=request.through.0).map(Seq);
        let wanted = all.filter(|seq| match request.lane {
            Lane::Backlog => request.every_kind || self.is_reading(*seq),
            lane => self.belongs(lane, *seq),
        });
        wanted.take(request.limit).collect()
    }

    fn rows(&self, request: ReadRequest, events: &[Seq]) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut rest = events;
        while let Some(first) = rest.first() {
            // What is too large stands alone.
            let fits = |seq: &&Seq| Self::bytes_of(**seq) <= BROKER_PACKET_BYTES;
            let length = rest.iter().take(request.bundle).take_while(fits).count().max(1);
            let last = &rest[length - 1];
            let packet_bytes = if length > 1 { BUNDLE_BYTES } else { Self::bytes_of(*first) };
            let message = Message {
                topic: String::new(),
                body: Bytes::new(),
                seq: *last,
                present_until: self.present_until(*first).filter(|_| request.lane != Lane::Backlog),
                bridge: String::new(),
                kind: "",
                id: self.mark(*last),
                packet_bytes,
            };
            rows.push(Row { first: *first, last: *last, message: Ok(Arc::new(message)) });
            rest = &rest[length..];
        }
        rows
    }

    /// For how long an event is of the present, if it is.
    fn present_until(&self, seq: Seq) -> Option<Mono> {
        let until = self.published[usize::try_from(seq.0 - 1).unwrap()] + PRESENT_FOR;
        (seq > self.inherited && self.now.mono < until).then_some(until)
    }

    fn commit(&mut self) {
        let end = self.end_of_log().0;
        if self.durable.0 == end {
            self.log.extend([Sort::Urgent, Sort::Reading, Sort::Other]);
            self.durable = self.end_of_log();
        } else {
            self.durable = Seq((self.durable.0 + self.random.u64(1..40)).min(end));
        }
        self.published.resize(usize::try_from(self.durable.0).unwrap(), self.now.mono);
        self.plan.on_durable(self.durable);
        self.later(if self.durable.0 < end { seconds(1) } else { LIFE_GOES_ON }, Happening::Commit);
    }

    fn save(&mut self, cursors: Vec<(String, Seq)>) {
        self.moved.extend(cursors);
        let mut after = self.stored_cursors.clone();
        after.extend(self.moved.clone());
        assert!(after.values().all(|seq| *seq <= self.durable), "a cursor is beyond the log: {after:?}");
        let at = |name: &str| after.get(name).copied().unwrap_or(Seq::ZERO).0;
        let wrong = |from: u64, to: u64, sort: Sort| {
            let passed = (from..=to).map(Seq).filter(|seq| self.sort_of(*seq) == sort);
            passed.filter(|seq| !self.confirmed.contains(seq) && !self.parked.contains(seq)).collect::<Vec<_>>()
        };
        for (name, sort) in [(URGENT, Sort::Urgent), (OTHERS, Sort::Other), (READINGS, Sort::Reading)] {
            // What was settled once stays so.
            let wrong = wrong(self.checked[name] + 1, at(name), sort);
            assert!(wrong.is_empty(), "the cursors {after:?} pass {wrong:?}, which nobody confirmed");
        }
        for name in after.keys().filter(|name| name.ends_with(".through")) {
            let wrong = wrong(at(&name.replace("through", "after")) + 1, at(name), Sort::Reading);
            assert!(wrong.is_empty(), "the cursors {after:?} pass {wrong:?}, which nobody confirmed");
        }
        self.checked = HOLDING.map(|name| (name, at(name).max(self.checked[name]))).into();
        // A crash loses what was not stored yet.
        if !self.bad_luck(300) {
            self.stored_cursors = after;
            self.moved.clear();
        }
    }

    /// The uplink ends and begins again in the same run of the daemon: the store goes on, and with it what has moved and is
    /// not on disk yet.
    fn restart_the_task(&mut self) {
        let mut known = self.stored_cursors.clone();
        known.extend(self.moved.clone());
        self.task_restarts += u64::from(!self.moved.is_empty());
        self.begin_again(&known);
    }

    /// The daemon is killed and comes back with what is stored.
    fn restart(&mut self) {
        self.moved.clear();
        self.begin_again(&self.stored_cursors.clone());
    }

    fn begin_again(&mut self, cursors: &BTreeMap<String, Seq>) {
        self.cut();
        self.agenda.retain(|_, (_, happening)| matches!(happening, Happening::Commit | Happening::ClockSet));
        self.parked_in_this_life.clear();
        self.asked.clear();
        let seed = self.random.u64(..);
        self.plan = Plan::new(self.limits.clone(), cursors, self.durable, seed, self.now);
        self.waited = Duration::ZERO;
        self.inherited = self.durable;
        self.tell_clock();
    }
}

#[test]
fn every_row_reaches_a_hostile_broker_and_no_cursor_passes_an_unconfirmed_one() {
    let first: u64 = std::env::var("UPLINK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (mut bundles, mut resent, mut held, mut flagged, mut past_alerts) = (0, 0, 0, 0, 0);
    let mut ended_by_row = 0;
    let (mut panics, mut task_restarts) = (0, 0);
    for seed in first..first + 60 {
        println!("seed {seed}");
        let mut world = World::new(seed, 1500);
        let hostile_end = world.now.mono + seconds(1800);
        world.run_until(hostile_end);
        world.hostile = false;
        world.restart();
        assert!(world.plan.resend(Seq(1), world.end_of_log()), "seed {seed}");
        world.asked.extend(world.expected().collect::<Vec<_>>());
        let end = world.now.mono + PATIENCE;
        world.run_until(end);
        for cursor in HOLDING {
            let (found, status) = (world.stored_cursors.get(cursor), world.plan.status(world.now));
            assert_eq!(found, Some(&world.end_of_log()), "seed {seed}: not everything has arrived: {status:?}");
        }
        let forgotten: Vec<&Seq> = world.asked.iter().filter(|seq| !world.is_bad(**seq)).collect();
        assert!(forgotten.is_empty(), "seed {seed}: {forgotten:?} were asked for again and did not come");
        assert!(!world.unparked.is_empty());
        for seq in world.expected() {
            let reached = world.received.contains(&seq) || world.parked.contains(&seq);
            assert!(reached, "seed {seed}: {seq} has never reached the broker");
        }
        assert!(world.connections > 3 && world.publications > 300, "seed {seed}: the world was not hostile");
        bundles += world.bundles;
        resent += world.resent;
        panics += world.panics;
        task_restarts += world.task_restarts;
        held += world.held;
        flagged += world.flagged;
        past_alerts += world.past_alerts;
        ended_by_row += world.ended_by_row;
        // Whatever the broker ends connections with is found, and nothing else.
        let unfound: Vec<_> = world.closing.keys().filter(|seq| !world.parked.contains(seq)).collect();
        assert!(unfound.is_empty(), "seed {seed}: {unfound:?}");
    }
    assert!(bundles > 1000, "only {bundles} bundles");
    assert!(resent > 10, "only {resent} ranges were sent again");
    assert!(panics > 100, "only {panics} reads ended in a panic");
    assert!(task_restarts > 10, "only {task_restarts} restarts of the uplink found cursors that were not on disk");
    assert!(held > 100, "only {held} alerts went out while readings waited for the clock");
    assert!(ended_by_row > 1000, "rows ended only {ended_by_row} connections");
    assert!(past_alerts > 100, "only {past_alerts} alerts went out as of the past");
    assert!(flagged > 100, "only {flagged} readings went out although the clock was never set");
}

#[test]
fn an_alert_is_out_within_a_second_while_the_broker_asks_for_less_of_the_backlog_for_ten_minutes() {
    for seed in 1..5 {
        println!("seed {seed}");
        let mut world = World::new(seed, 1500);
        (world.hostile, world.limits.clock_hold) = (false, Duration::ZERO);
        world.poison.clear();
        world.closing.clear();
        world.damaged.clear();
        // All of it waits: what is urgent, readings and others.
        world.durable = world.end_of_log();
        world.published = vec![world.now.mono; 1500];
        world.restart();
        let end = world.now.mono + seconds(600);
        world.no_backlog_until = end;
        while world.now.mono < end {
            let next = world.now.mono + seconds(20);
            world.run_until(next);
            world.now.mono = world.now.mono.max(next);
        }
        let urgent =
            |world: &World| (1501..=world.durable.0).filter(|seq| world.sort_of(Seq(*seq)) == Sort::Urgent).count();
        assert!(urgent(&world) >= 25, "seed {seed}: alerts were raised meanwhile");
        assert!(world.slowest_alert < seconds(1), "seed {seed}: {:?}", world.slowest_alert);
    }
}
