//! The plan against a hostile broker in virtual time: what the broker confirmed is what a cursor passes, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use super::plan::{Action, BrokerLimits, EndKind, Lane, Limits, Message, Plan, ReadRequest, Row, Ticket};
use crate::clock::{Mono, Stamp, Wall};
use crate::ids::Seq;

/// Rows larger than this are refused by this broker.
const BROKER_PACKET_BYTES: usize = 2000;

/// Virtual time in which everything must have arrived once the broker has become friendly.
const PATIENCE: Duration = Duration::from_hours(1);

/// What happens at a time, in the order of times and then of planning.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Accept,
    Puback(Ticket, u8),
    End(EndKind),
    Rows(ReadRequest),
    ReadFails(ReadRequest),
    Commit,
}

/// The broker, the store and the network around one plan.
struct World {
    random: Rng,
    now: Stamp,
    limits: Limits,
    plan: Plan,
    hostile: bool,
    // The store.
    log: Vec<Lane>,
    durable: Seq,
    stored_cursors: [Seq; 2],
    // The broker.
    connection: u64,
    connected: bool,
    silent: bool,
    receive_maximum: u16,
    in_flight: BTreeMap<u64, Seq>,
    sent: u64,
    poison: BTreeMap<Seq, u8>,
    damaged: BTreeSet<Seq>,
    received: BTreeSet<Seq>,
    confirmed: BTreeSet<Seq>,
    parked: BTreeSet<Seq>,
    parked_in_this_life: BTreeSet<Seq>,
    agenda: BTreeMap<(Mono, u64), (u64, Happening)>,
    planned: u64,
    publications: u64,
    connections: u64,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    fn new(seed: u64, rows: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let log: Vec<Lane> =
            (0..rows).map(|_| if random.u8(..10) == 0 { Lane::Alerts } else { Lane::Readings }).collect();
        let now = Stamp { mono: Mono::from_millis(50_000), wall: Wall(0) };
        let limits = Limits::default();
        let plan = Plan::new(limits.clone(), [Seq::ZERO; 2], Seq::ZERO, seed, now);
        let poison = (0..rows / 40).map(|_| {
            let code = [0x87, 0x90, 0x99, 0x80, 0x83][random.usize(..5)];
            (Seq(random.u64(1..=u64::try_from(rows).unwrap())), code)
        });
        let poison = poison.collect();
        let damaged = (0..rows / 100).map(|_| Seq(random.u64(1..=u64::try_from(rows).unwrap()))).collect();
        let mut world = Self {
            random,
            now,
            limits,
            plan,
            hostile: true,
            log,
            durable: Seq::ZERO,
            stored_cursors: [Seq::ZERO; 2],
            connection: 0,
            connected: false,
            silent: false,
            receive_maximum: 0,
            in_flight: BTreeMap::new(),
            sent: 0,
            poison,
            damaged,
            received: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            parked: BTreeSet::new(),
            parked_in_this_life: BTreeSet::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            publications: 0,
            connections: 0,
        };
        world.later(seconds(0), Happening::Commit);
        world
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

    fn lane_of(&self, seq: Seq) -> Lane {
        self.log[usize::try_from(seq.0 - 1).unwrap()]
    }

    fn bytes_of(seq: Seq) -> usize {
        if seq.0.is_multiple_of(97) { BROKER_PACKET_BYTES + 1 } else { 500 }
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
            if self.durable == self.end_of_log() && self.plan.status().waiting == 0 {
                return;
            }
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = next.into_iter().chain(self.plan.next_deadline(self.now)).min() else {
                panic!("nothing will ever happen again: {:?}", self.plan.status());
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
            Action::SaveCursor { lane, seq } => self.save(lane, seq),
            Action::Park(parked) => {
                assert_eq!(parked.lane, self.lane_of(parked.seq));
                let deserved = self.poison.contains_key(&parked.seq)
                    || self.damaged.contains(&parked.seq)
                    || Self::bytes_of(parked.seq) > BROKER_PACKET_BYTES;
                assert!(deserved, "{parked:?} was parked without a reason");
                assert!(self.parked_in_this_life.insert(parked.seq), "{parked:?} was parked twice");
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
        self.connection += 1;
        self.connected = false;
        self.in_flight.clear();
    }

    fn read(&mut self, request: ReadRequest) {
        assert!(request.through <= self.durable, "reads what is not durable");
        let delay = self.millis(50);
        let fails = self.bad_luck(50);
        self.later(delay, if fails { Happening::ReadFails(request) } else { Happening::Rows(request) });
    }

    fn publish(&mut self, ticket: Ticket, message: &Message) {
        assert!(self.connected, "publishes without a connection");
        assert!(ticket.seq <= self.durable, "publishes what is not durable");
        assert_eq!(ticket.lane, self.lane_of(ticket.seq));
        assert!(message.packet_bytes <= BROKER_PACKET_BYTES, "publishes what is too large");
        assert!(!self.in_flight.values().any(|seq| *seq == ticket.seq), "publishes twice at once");
        self.sent += 1;
        self.publications += 1;
        self.in_flight.insert(self.sent, ticket.seq);
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
            let kind = if self.random.bool() { EndKind::Lost } else { EndKind::TakenOver };
            let delay = self.millis(100);
            self.later(delay, Happening::End(kind));
        }
        let code = match self.poison.get(&ticket.seq).copied() {
            Some(code) => code,
            None if self.bad_luck(10) => [0x91, 0x97][self.random.usize(..2)],
            None if self.random.bool() => 0x10,
            None => 0x00,
        };
        if code < 0x80 {
            self.received.insert(ticket.seq);
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
                self.connected = true;
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
                    self.in_flight.retain(|_, seq| *seq != ticket.seq);
                    if code < 0x80 {
                        self.confirmed.insert(ticket.seq);
                    }
                }
                self.plan.on_puback(ticket, code, self.now);
            }
            Happening::Rows(request) => {
                let rows = self.rows(request);
                match rows.iter().find(|row| self.damaged.contains(&row.seq)) {
                    Some(bad) => self.plan.on_bad_row(request, bad.seq, "damaged", self.now),
                    None => self.plan.on_rows(request, rows),
                }
            }
            Happening::ReadFails(request) => self.plan.on_read_failed(request, "the model says so", self.now),
            Happening::Commit => self.commit(),
            Happening::Accept | Happening::End(_) => {}
        }
        if self.bad_luck(1) {
            self.restart();
        }
    }

    fn rows(&self, request: ReadRequest) -> Vec<Row> {
        let rows = (request.after.0 + 1..=request.through.0).map(Seq).filter(|seq| self.lane_of(*seq) == request.lane);
        let row = |seq: Seq| {
            let message = Message {
                topic: String::new(),
                body: Bytes::new(),
                seq,
                bridge: String::new(),
                kind: "",
                id: String::new(),
                packet_bytes: Self::bytes_of(seq),
            };
            Row { seq, message: Ok(Arc::new(message)) }
        };
        rows.take(request.limit).map(row).collect()
    }

    fn commit(&mut self) {
        let end = self.end_of_log().0;
        self.durable = Seq((self.durable.0 + self.random.u64(1..40)).min(end));
        self.plan.on_durable(self.durable);
        if self.durable.0 < end {
            self.later(seconds(1), Happening::Commit);
        }
    }

    fn save(&mut self, lane: Lane, seq: Seq) {
        let place = usize::from(lane != Lane::Alerts);
        let before = self.stored_cursors[place];
        assert!(seq > before, "the cursor of {lane} goes back from {before} to {seq}");
        assert!(seq <= self.durable, "the cursor of {lane} is beyond the log");
        for passed in (before.0 + 1..=seq.0).map(Seq).filter(|passed| self.lane_of(*passed) == lane) {
            let settled = self.confirmed.contains(&passed) || self.parked.contains(&passed);
            assert!(settled, "the cursor of {lane} passes {passed}, which nobody confirmed");
        }
        // A crash may lose a cursor that was not stored yet.
        if !self.bad_luck(50) {
            self.stored_cursors[place] = seq;
        }
    }

    /// The daemon is killed and comes back with what is stored.
    fn restart(&mut self) {
        self.cut();
        self.agenda.retain(|_, (_, happening)| matches!(happening, Happening::Commit));
        self.parked_in_this_life.clear();
        let seed = self.random.u64(..);
        self.plan = Plan::new(self.limits.clone(), self.stored_cursors, self.durable, seed, self.now);
    }
}

#[test]
fn every_row_reaches_a_hostile_broker_and_no_cursor_passes_an_unconfirmed_one() {
    let first: u64 = std::env::var("UPLINK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in first..first + 60 {
        println!("seed {seed}");
        let mut world = World::new(seed, 1500);
        let hostile_end = world.now.mono + seconds(1800);
        world.run_until(hostile_end);
        world.hostile = false;
        world.restart();
        let end = world.now.mono + PATIENCE;
        world.run_until(end);
        assert_eq!(
            world.stored_cursors,
            [world.end_of_log(); 2],
            "seed {seed}: not everything has arrived: {:?}",
            world.plan.status()
        );
        for seq in world.expected() {
            let reached = world.received.contains(&seq) || world.parked.contains(&seq);
            assert!(reached, "seed {seed}: {seq} has never reached the broker");
        }
        assert!(world.connections > 3 && world.publications > 1500, "seed {seed}: the world was not hostile");
    }
}
