//! The connection policy in virtual time against a hostile radio: a week of random faults, with the behaviours that were
//! measured on real ones, ends with every reachable sensor delivering, and there is never a storm of attempts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fastrand::Rng;

use super::*;
use crate::bluez::BleAddress;
use crate::clock::Wall;
use crate::sources::ble::sensor::{Manner, SensorKind};
use crate::sources::ble::wanted::Wanted;

const HOUR: u64 = 3600;
const WEEK: u64 = 7 * 24 * HOUR;
/// The last hours are friendly: what is broken is mended, and nothing new breaks.
const FRIENDLY: u64 = 3 * HOUR;
/// Debian's limit of match rules for a client of the system bus.
const MATCH_RULES: u32 = 512;
/// A live sensor sends so often: just often enough for its watchdog, which keeps the simulation short.
const BEAT: Duration = Duration::from_millis(3900);

/// A sensor may not be without data for longer while it is in range and bluetoothd, the adapter and it itself are well:
/// some of the longest pauses, and what all others may take before each. The worst of some hundred seeds was 6 min 3 s.
const LONGEST_WAIT: Duration = Duration::from_mins(7);

/// What happens at a time.
#[derive(Debug, Clone)]
enum Happening {
    /// The policy gets this, if the generation still lives that it comes from.
    Tell(u64, Input),
    /// A sensor with this link sends.
    Beat(usize, u64),
    /// An episodic sensor sends a record, and after its last one ends the link.
    Record(usize, u64),
    /// Every sensor in range advertises.
    Adverts,
    /// Something breaks or changes.
    Fault(Fault),
    /// The link drops before its services are resolved.
    Drop(usize, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    DaemonKilled,
    DaemonBack,
    AdapterUnplugged,
    AdapterPlugged,
    OperatorOff,
    OperatorOn,
    Wedged,
    Panic,
    OutOfRange(usize),
    InRange(usize),
    LinkLost(usize),
    FallsSilent(usize),
    Stuck(usize),
    Measurement(usize),
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the faults of a radio vary freely")]
struct FakeSensor {
    key: SensorKey,
    address: BleAddress,
    name: String,
    episodic: bool,
    bonded: bool,
    never_there: bool,
    has_battery: bool,
    in_range: bool,
    /// The link as the kernel has it; its number.
    link: Option<u64>,
    subscribed: bool,
    silent: bool,
    /// Every connect fails until BlueZ forgets the device.
    stuck: bool,
    known: bool,
    last_advert: Option<Mono>,
    last_data: Option<Mono>,
    /// Since when nothing stands in its way.
    reachable: Option<Mono>,
    worst: Duration,
    delivered: u64,
    stored: u64,
    taken: u64,
    /// It advertises until then.
    in_the_air_until: Mono,
    /// It advertises all the time, whether it has something to hand over or not.
    stays: bool,
    attempts: VecDeque<Mono>,
}

#[expect(clippy::struct_excessive_bools, reason = "the faults of a radio vary freely")]
struct World {
    random: Rng,
    now: Stamp,
    policy: Policy,
    limits: BleLimits,
    sensors: Vec<FakeSensor>,
    agenda: BTreeMap<(Mono, u64), Happening>,
    planned: u64,
    hostile: bool,
    daemon: bool,
    plugged: bool,
    powered: bool,
    off_by_operator: bool,
    wedged: bool,
    generation: Option<u64>,
    generations: u64,
    match_rules: u32,
    scanning: bool,
    /// A `Connect` that BlueZ has not finished: every other one is refused meanwhile.
    pending: Option<usize>,
    links: u64,
    adapter_attempts: VecDeque<Mono>,
    faults: BTreeMap<&'static str, u32>,
    exits: u32,
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
        let limits = BleLimits::default();
        let mut policy = Policy::new(&limits, seed, now);
        let kinds = [
            (SensorKind::HeartRate, false, false),
            (SensorKind::HeartRate, true, false),
            (SensorKind::PulseOximeter, false, false),
            // Never there: it must disturb nobody.
            (SensorKind::HeartRate, false, true),
            (SensorKind::BloodPressure, true, false),
            (SensorKind::Thermometer, false, false),
            (SensorKind::Glucose, true, false),
            // In the air all the time.
            (SensorKind::Scale, true, false),
        ];
        let mut sensors = vec![];
        for (index, (kind, bonded, never_there)) in kinds.into_iter().enumerate() {
            let address = BleAddress::new([0xC0, 0, 0, 0, 0, u8::try_from(index).unwrap()]);
            let name = format!("sensor {index}");
            let wanted = if index % 2 == 0 { Wanted::Address(address) } else { Wanted::Name(name.clone()) };
            let key = policy.add(WantedSensor { wanted, habit: kind.habit(), manner: Manner::default() }, now);
            sensors.push(FakeSensor {
                key,
                address,
                name,
                episodic: kind.habit().is_episodic(),
                bonded,
                never_there,
                has_battery: index != 2,
                in_range: !never_there,
                link: None,
                subscribed: false,
                silent: false,
                stuck: false,
                known: false,
                last_advert: None,
                last_data: None,
                reachable: None,
                worst: Duration::ZERO,
                delivered: 0,
                stored: 0,
                taken: 0,
                in_the_air_until: Mono(0),
                stays: kind == SensorKind::Scale,
                attempts: VecDeque::new(),
            });
        }
        let random = Rng::with_seed(seed);
        let mut world = Self {
            random,
            now,
            policy,
            limits,
            sensors,
            agenda: BTreeMap::new(),
            planned: 0,
            hostile: true,
            daemon: true,
            plugged: true,
            powered: true,
            off_by_operator: false,
            wedged: false,
            generation: None,
            generations: 0,
            match_rules: 0,
            scanning: false,
            pending: None,
            links: 0,
            adapter_attempts: VecDeque::new(),
            faults: BTreeMap::new(),
            exits: 0,
        };
        for index in 0..world.sensors.len() {
            let bonded = world.sensors[index].bonded;
            world.tell(Input::Bonded(world.sensors[index].key, bonded));
        }
        world.plan_faults();
        world.plan(seconds(1), Happening::Adverts);
        world
    }

    /// All faults of the week, before it begins.
    fn plan_faults(&mut self) {
        let sensors = self.sensors.len();
        let mut at = 0;
        while at < WEEK - FRIENDLY {
            at += self.random.u64(20..900);
            let one = self.random.usize(..sensors);
            let fault = match self.random.u8(..100) {
                0..5 => Fault::DaemonKilled,
                5..9 => Fault::AdapterUnplugged,
                9..11 => Fault::OperatorOff,
                11..14 => Fault::Wedged,
                14..18 => Fault::Panic,
                18..30 => Fault::OutOfRange(one),
                30..55 => Fault::LinkLost(one),
                55..65 => Fault::FallsSilent(one),
                65..70 => Fault::Stuck(one),
                _ => Fault::Measurement(one),
            };
            self.plan(seconds(at), Happening::Fault(fault));
        }
        for fault in [Fault::DaemonBack, Fault::AdapterPlugged, Fault::OperatorOn] {
            self.plan(seconds(WEEK - FRIENDLY), Happening::Fault(fault));
        }
        for index in 0..sensors {
            self.plan(seconds(WEEK - FRIENDLY), Happening::Fault(Fault::InRange(index)));
            // A sensor is in the air for less than a minute and may be missed; its records come with the next measurement.
            for round in 1..=3 {
                let apart = 120 * u64::try_from(index).unwrap();
                let at = WEEK - FRIENDLY + round * FRIENDLY / 4 + apart;
                self.plan(seconds(at), Happening::Fault(Fault::Measurement(index)));
            }
        }
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((self.now.mono + after, self.planned), happening);
    }

    /// Something that the generation of now will say.
    fn answer(&mut self, after: Duration, input: Input) {
        if let Some(generation) = self.generation {
            self.plan(after, Happening::Tell(generation, input));
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    fn tell(&mut self, input: Input) {
        let orders = self.policy.on(input, self.now);
        for order in orders {
            self.carry_out(&order);
        }
    }

    fn index(&self, key: SensorKey) -> usize {
        self.sensors.iter().position(|sensor| sensor.key == key).unwrap()
    }

    fn is_usable(&self) -> bool {
        self.daemon && self.plugged
    }

    fn carry_out(&mut self, order: &Order) {
        let touches = !matches!(order, Order::NewGeneration | Order::EndGeneration | Order::Exit(_));
        assert!(!touches || self.generation.is_some(), "{order:?} without a generation");
        match *order {
            Order::NewGeneration => self.start_generation(),
            Order::EndGeneration => self.end_generation(),
            Order::StartScan => {
                assert!(!self.off_by_operator, "a scan would switch the adapter on against the operator");
                assert!(self.pending.is_none(), "scan and connect at once");
                let works = self.is_usable() && !(self.hostile && self.random.u8(..30) == 0);
                self.scanning = works;
                let result = if works { Ok(()) } else { Err("starting to scan: refused".to_owned()) };
                let after = self.millis(5..400);
                self.answer(after, Input::ScanStarted(result));
            }
            Order::StopScan => {
                self.scanning = false;
                let after = self.millis(5..200);
                self.answer(after, Input::ScanStopped);
            }
            Order::Connect(key, address) => self.connect(key, address),
            Order::Subscribe(key) => self.subscribe(key),
            Order::ReadBattery(key) => {
                let sensor = &self.sensors[self.index(key)];
                let result =
                    if sensor.link.is_some() && sensor.has_battery { Ok(Some(80)) } else { Err("none".to_owned()) };
                let after = self.millis(30..300);
                self.answer(after, Input::BatteryRead(key, result));
            }
            Order::Disconnect(key, _) => self.disconnect(key),
            Order::Remove(key, _) => {
                let index = self.index(key);
                assert!(!self.sensors[index].bonded, "a bond would be lost");
                (self.sensors[index].known, self.sensors[index].stuck) = (false, false);
                let after = self.millis(5..100);
                self.answer(after, Input::Removed(key));
            }
            Order::PowerCycle | Order::PowerOn => self.switch(),
            Order::Exit(_) => self.exits += 1,
        }
    }

    fn start_generation(&mut self) {
        assert!(self.generation.is_none(), "two generations at once");
        self.generations += 1;
        self.generation = Some(self.generations);
        self.match_rules = 4;
        let after = self.millis(20..500);
        if !self.is_usable() {
            let ended = Ended { obstacle: Obstacle::NoAdapter, words: "no Bluetooth adapter".to_owned() };
            return self.answer(after, Input::Down(ended));
        }
        let known = self.sensors.iter().filter(|sensor| sensor.known || sensor.link.is_some());
        let known = known.map(|sensor| Known {
            advert: Advert { address: sensor.address, name: Some(sensor.name.clone()), rssi: None },
            connected: sensor.link.is_some(),
        });
        let known = known.collect();
        let powered = self.powered;
        self.answer(after, Input::Up { powered, known });
    }

    /// The client leaves the bus: its scan, its `Connect` and its subscriptions end, links stay.
    fn end_generation(&mut self) {
        self.generation = None;
        (self.scanning, self.pending) = (false, None);
        for sensor in &mut self.sensors {
            sensor.subscribed = false;
        }
    }

    fn connect(&mut self, key: SensorKey, address: BleAddress) {
        let index = self.index(key);
        let now = self.now.mono;
        assert_eq!(self.sensors[index].address, address);
        assert!(!self.off_by_operator && !self.scanning, "connect while scanning or switched off");
        assert!(self.pending.is_none(), "two connection attempts at once");
        let heard = self.sensors[index].last_advert;
        let is_fresh = heard.is_some_and(|heard| now.since(heard) <= self.limits.fresh);
        assert!(is_fresh || self.sensors[index].link.is_some(), "a stale object is connected: {heard:?} {now:?}");
        self.no_storm(index);
        let fault = if self.hostile { self.random.u8(..100) } else { 100 };
        let after = self.millis(50..2500);
        let refused = |words: &str| Input::Connected(key, Err(Failure::ordinary(words)));
        if !self.is_usable() || !self.powered {
            return self.answer(after, refused("org.freedesktop.DBus.Error.ServiceUnknown"));
        }
        // btleplug leaks a match rule in a sixth of its connects.
        self.match_rules += u32::from(self.random.u8(..6) == 0);
        if self.match_rules >= MATCH_RULES {
            let ended = Ended { obstacle: Obstacle::Failed, words: "LimitsExceeded".to_owned() };
            return self.answer(after, Input::Down(ended));
        }
        let sensor = &self.sensors[index];
        if !sensor.known && sensor.link.is_none() {
            let failure = Failure { kind: FailureKind::Vanished, words: "UnknownObject".to_owned() };
            return self.answer(after, Input::Connected(key, Err(failure)));
        }
        if self.wedged || !sensor.in_range || fault < 8 {
            self.pending = Some(index);
            return;
        }
        if sensor.stuck || (8..16).contains(&fault) {
            return self.answer(after, refused("le-connection-abort-by-local"));
        }
        self.links += 1;
        self.sensors[index].link = Some(self.links);
        self.answer(after, Input::LinkUp(key));
        if (16..22).contains(&fault) {
            // Dropped before the services are resolved: btleplug does not notice.
            let link = self.links;
            self.plan(after + Duration::from_millis(200), Happening::Drop(index, link));
        } else if fault >= 26 {
            let resolved = after + self.millis(100..3000);
            self.answer(resolved, Input::Connected(key, Ok(())));
        }
    }

    /// At most so many attempts in a minute.
    fn no_storm(&mut self, index: usize) {
        let now = self.now.mono;
        let (limits, sensor) = (&self.limits, &mut self.sensors[index]);
        for (window, most) in [
            (&mut sensor.attempts, limits.attempts_a_minute),
            (&mut self.adapter_attempts, limits.adapter_attempts_a_minute),
        ] {
            window.push_back(now);
            while window.front().is_some_and(|first| now.since(*first) >= seconds(60)) {
                window.pop_front();
            }
            assert!(window.len() <= most, "{} attempts in a minute", window.len());
        }
    }

    fn subscribe(&mut self, key: SensorKey) {
        let index = self.index(key);
        let after = self.millis(50..900);
        let Some(link) = self.sensors[index].link else {
            return self.answer(after, Input::Subscribed(key, Err(Failure::ordinary("not connected"))));
        };
        if self.hostile && self.random.u8(..50) == 0 {
            return self.answer(after, Input::Subscribed(key, Err(Failure::ordinary("refused"))));
        }
        self.sensors[index].subscribed = true;
        self.answer(after, Input::Subscribed(key, Ok(())));
        let next =
            if self.sensors[index].episodic { Happening::Record(index, link) } else { Happening::Beat(index, link) };
        self.plan(after + Duration::from_millis(100), next);
    }

    fn disconnect(&mut self, key: SensorKey) {
        let index = self.index(key);
        self.pending.take_if(|pending| *pending == index);
        if self.sensors[index].link.take().is_some() {
            self.sensors[index].subscribed = false;
        }
        // Now and then nobody answers.
        if !self.hostile || self.random.u8(..40) > 0 {
            let after = self.millis(5..3000);
            self.answer(after, Input::Disconnected(key));
        }
    }

    fn switch(&mut self) {
        assert!(!self.off_by_operator, "the adapter is switched on against the operator");
        for index in 0..self.sensors.len() {
            self.sensors[index].link = None;
        }
        (self.scanning, self.pending) = (false, None);
        let works = self.is_usable();
        if works {
            (self.wedged, self.powered) = (false, true);
        }
        let after = self.millis(1000..4000);
        let result = if works { Ok(()) } else { Err("no adapter".to_owned()) };
        self.answer(after, Input::PowerCycled(result));
    }

    /// The link ends, and BlueZ says so if it lives.
    fn drop_link(&mut self, index: usize) {
        let sensor = &mut self.sensors[index];
        sensor.subscribed = false;
        if sensor.link.take().is_some() {
            let key = sensor.key;
            self.answer(Duration::from_millis(10), Input::LinkDown(key));
        }
    }

    fn fault(&mut self, fault: Fault) {
        let name = format!("{fault:?}");
        let name = name.split('(').next().unwrap();
        *self.faults.entry(Box::leak(name.to_owned().into_boxed_str())).or_default() += 1;
        match fault {
            Fault::DaemonKilled if self.daemon => {
                self.daemon = false;
                (self.scanning, self.pending) = (false, None);
                // The kernel keeps the links; nobody says anything through them any more.
                for sensor in &mut self.sensors {
                    (sensor.subscribed, sensor.known) = (false, false);
                }
                self.tell(Input::DaemonGone);
                let after = self.millis(500..120_000);
                self.plan(after, Happening::Fault(Fault::DaemonBack));
            }
            Fault::DaemonBack if !self.daemon => {
                self.daemon = true;
                // A new bluetoothd may find the adapter off, unless a person wants it so.
                if self.random.bool() {
                    self.powered = false;
                }
                self.tell(Input::DaemonBack);
            }
            Fault::AdapterUnplugged if self.plugged => {
                self.plugged = false;
                (self.scanning, self.pending, self.wedged) = (false, None, false);
                for index in 0..self.sensors.len() {
                    self.drop_link(index);
                    self.sensors[index].known = false;
                }
                if self.daemon && self.generation.is_some() {
                    self.powered = false;
                    self.tell(Input::Powered(false));
                    self.tell(Input::AdapterGone);
                }
                let after = self.millis(2000..1_200_000);
                self.plan(after, Happening::Fault(Fault::AdapterPlugged));
            }
            Fault::AdapterPlugged if !self.plugged => {
                self.plugged = true;
                self.powered = !self.off_by_operator && self.random.bool();
                self.tell(Input::AdapterBack { address: "00:AA:01:00:00:42".to_owned(), left_off: false });
            }
            // What is being switched by the policy at this moment is not known to be a person's wish.
            Fault::OperatorOff if self.is_usable() && self.powered && self.policy.obstacle().is_none() => {
                self.operator_off();
            }
            // Nobody can switch on what is not there.
            Fault::OperatorOn if !self.is_usable() || self.generation.is_none() => {
                self.plan(seconds(7), Happening::Fault(Fault::OperatorOn));
            }
            Fault::OperatorOn => {
                self.off_by_operator = false;
                self.powered = true;
                self.tell(Input::Powered(true));
            }
            Fault::Wedged => {
                self.wedged = true;
                (0..self.sensors.len()).for_each(|index| self.drop_link(index));
            }
            Fault::Panic if self.generation.is_some() => {
                self.end_generation();
                let ended = Ended { obstacle: Obstacle::Failed, words: "panicked".to_owned() };
                self.tell(Input::Down(ended));
            }
            of_one_sensor => self.sensor_fault(of_one_sensor),
        }
    }

    fn sensor_fault(&mut self, fault: Fault) {
        match fault {
            Fault::OutOfRange(index) => {
                self.sensors[index].in_range = false;
                self.drop_link(index);
                let after = self.millis(5000..7_200_000);
                self.plan(after, Happening::Fault(Fault::InRange(index)));
            }
            Fault::InRange(index) => self.sensors[index].in_range = !self.sensors[index].never_there,
            Fault::LinkLost(index) => self.drop_link(index),
            Fault::FallsSilent(index) => self.sensors[index].silent = self.sensors[index].link.is_some(),
            Fault::Stuck(index) => {
                self.sensors[index].stuck = !self.sensors[index].bonded;
                self.drop_link(index);
            }
            Fault::Measurement(index) if self.sensors[index].episodic => {
                let records = self.random.u64(1..5);
                self.sensors[index].stored += records;
                self.sensors[index].in_the_air_until = self.now.mono + seconds(40);
            }
            _ => {}
        }
    }

    fn operator_off(&mut self) {
        (self.powered, self.off_by_operator) = (false, true);
        (self.scanning, self.pending) = (false, None);
        (0..self.sensors.len()).for_each(|index| self.drop_link(index));
        self.tell(Input::Powered(false));
        let after = self.millis(60_000..7_200_000);
        self.plan(after, Happening::Fault(Fault::OperatorOn));
    }

    fn adverts(&mut self) {
        // While nothing is scanned for there is nothing to hear.
        self.plan(Duration::from_millis(2500), Happening::Adverts);
        if !self.scanning || !self.is_usable() || !self.powered {
            return;
        }
        for index in 0..self.sensors.len() {
            let sensor = &mut self.sensors[index];
            let in_the_air = !sensor.episodic || sensor.stays || self.now.mono < sensor.in_the_air_until;
            if sensor.in_range && sensor.link.is_none() && in_the_air && self.random.u8(..4) > 0 {
                (sensor.last_advert, sensor.known) = (Some(self.now.mono), true);
                let advert = Advert { address: sensor.address, name: Some(sensor.name.clone()), rssi: Some(-60) };
                self.tell(Input::Advert(advert));
            }
        }
        let stranger = Advert { address: BleAddress::new([9; 6]), name: Some("stranger".to_owned()), rssi: Some(-90) };
        if self.random.u8(..8) == 0 {
            self.tell(Input::Advert(stranger));
        }
    }

    fn beat(&mut self, index: usize, link: u64) {
        let sensor = &mut self.sensors[index];
        if sensor.link != Some(link) || !sensor.subscribed {
            sensor.silent &= sensor.link == Some(link);
            return;
        }
        let key = sensor.key;
        if !sensor.silent {
            sensor.last_data = Some(self.now.mono);
            sensor.delivered += 1;
            self.answer(Duration::ZERO, Input::Data(key));
        }
        self.plan(BEAT, Happening::Beat(index, link));
    }

    fn record(&mut self, index: usize, link: u64) {
        let sensor = &mut self.sensors[index];
        if sensor.link != Some(link) || !sensor.subscribed {
            return;
        }
        let key = sensor.key;
        if sensor.taken < sensor.stored {
            sensor.taken += 1;
            self.answer(Duration::ZERO, Input::Data(key));
            self.plan(Duration::from_millis(200), Happening::Record(index, link));
        } else {
            sensor.in_the_air_until = self.now.mono;
            self.drop_link(index);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tell(generation, input) => {
                if self.generation == Some(generation) {
                    if matches!(input, Input::Down(_)) {
                        self.end_generation();
                    }
                    self.tell(input);
                }
            }
            Happening::Beat(index, link) => self.beat(index, link),
            Happening::Record(index, link) => self.record(index, link),
            Happening::Adverts => self.adverts(),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Drop(index, link) => {
                if self.sensors[index].link == Some(link) {
                    self.drop_link(index);
                }
            }
        }
    }

    /// How long each live sensor has not delivered although nothing stood in its way.
    fn judge(&mut self) {
        let radio_works = self.is_usable() && !self.off_by_operator && !self.wedged;
        let now = self.now.mono;
        for sensor in self.sensors.iter_mut().filter(|sensor| !sensor.episodic) {
            let is_reachable = radio_works && sensor.in_range && !sensor.silent && !sensor.stuck;
            let delivers = sensor.last_data.is_some_and(|last| now.since(last) < seconds(10));
            if !is_reachable || delivers {
                sensor.reachable = None;
            } else {
                let since = *sensor.reachable.get_or_insert(now);
                sensor.worst = sensor.worst.max(now.since(since));
            }
        }
    }

    fn run(&mut self, until: Mono) {
        loop {
            let deadline = self.policy.next_deadline(self.now);
            let planned = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let next = [deadline, planned].into_iter().flatten().min().unwrap_or(until);
            if next >= until {
                self.now.mono = until;
                return;
            }
            self.now.mono = self.now.mono.max(next);
            if planned.is_some_and(|at| at <= self.now.mono) {
                let (_, happening) = self.agenda.pop_first().unwrap();
                self.happen(happening);
            } else {
                self.tell(Input::Tick);
                let next = self.policy.next_deadline(self.now);
                assert!(next.is_none_or(|at| at > self.now.mono), "a timer that does nothing: {next:?}");
            }
            self.judge();
        }
    }
}

fn week(seed: u64) {
    let mut world = World::new(seed);
    let start = world.now.mono;
    world.run(start + seconds(WEEK - FRIENDLY));
    world.hostile = false;
    world.run(start + seconds(WEEK));
    let counts = world.policy.radio().counts;
    println!("seed {seed}: {counts:?}, exits {}, faults {:?}", world.exits, world.faults);
    let mut kinds = BTreeSet::new();
    for sensor in &world.sensors {
        let state = world.policy.sensor(sensor.key, world.now).unwrap();
        kinds.insert(state.phase);
        println!(
            "  {}: {:?}, attempts {}, delivered {}, taken {}/{}, longest wait while reachable {:?}",
            sensor.name, state.phase, state.attempts, sensor.delivered, sensor.taken, sensor.stored, sensor.worst
        );
        if sensor.never_there {
            assert_eq!((state.attempts, state.phase), (0, SensorPhase::Searching));
        } else if sensor.episodic {
            assert_eq!(sensor.taken, sensor.stored, "records were left behind");
            assert!(sensor.stored > 0);
            // A visit every ten minutes, and some at shorter pauses after each measurement and each absence.
            assert!(state.attempts < WEEK / 120, "{} was visited {} times", sensor.name, state.attempts);
        } else {
            assert_eq!(state.phase, SensorPhase::Live, "{}: {state:?}", sensor.name);
            assert!(sensor.worst <= LONGEST_WAIT, "{} was not heard although nothing stood in its way", sensor.name);
        }
    }
    assert!(counts.power_cycles > 0 && counts.removals > 0 && counts.generations > 10, "{counts:?}");
}

#[test]
fn a_week_of_random_faults_ends_with_every_reachable_sensor_delivering_and_never_storms() {
    let fresh = Rng::new().u64(..);
    for seed in [1, 2, fresh] {
        week(seed);
    }
}
