//! The connection policy of one Bluetooth adapter: a pure machine that decides when to scan, whom to connect, when a link
//! is dead and what is tried against a radio that does not work.
//!
//! It follows what was measured with BlueZ, btleplug and real adapters: one connection attempt at a time, with the scan
//! stopped meanwhile; a bounded `Disconnect` after each attempt that failed, because BlueZ's own `Connect` would stay
//! pending; nothing is connected that was not heard lately; a link is dead when it carries nothing, whatever BlueZ says;
//! and an adapter that a person switched off stays off.

mod link;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub use words::{
    Advert, BleLimits, Ended, Failure, FailureKind, Input, Known, Obstacle, Order, RadioCounts, RadioState, Rung,
    SensorKey, SensorPhase, SensorState, WantedSensor,
};

use self::link::{Cure, Link, Overdue, Sensor, free_at, remember};
use self::words::Scan;
use crate::backoff::Backoff;
use crate::bluez::BleAddress;
use crate::clock::{Mono, Stamp};

/// A power-off that is followed by the end of bluetoothd or of the adapter within this time was its beginning, and no
/// wish of a person: both say `Powered = false` first.
const LEAVING: Duration = Duration::from_secs(1);

/// Shortest and longest pause before a scan that could not be started is tried again.
const SCAN_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Failures of one sensor in a row after which the next rung of the ladder is tried.
const FAILURES_A_RUNG: u32 = 3;

/// Generations that were made for want of success and brought none, before the daemon is ended.
const FRUITLESS_GENERATIONS: u32 = 3;

/// The state of the radio.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Radio {
    /// There is no generation.
    Down { ended: Ended, retry: Mono },
    /// One is being started.
    Starting { since: Mono },
    /// One works.
    Up,
    /// One works, and the adapter is being switched.
    Switching { since: Mono },
}

/// What is known about the adapter's power.
#[derive(Debug, Default)]
struct Power {
    /// Of which adapter, by its address.
    adapter: Option<String>,
    on: bool,
    /// It was on before, in our time: whoever switched it on wants it on.
    was_on: bool,
    /// Since when it is off by somebody's wish.
    switched_off: Option<Mono>,
}

impl Power {
    /// What is known of one adapter says nothing about another.
    fn adapter_is(&mut self, address: String, left_off: bool) {
        if self.adapter.as_ref().is_some_and(|last| *last != address) {
            *self = Self::default();
        }
        self.adapter = Some(address);
        self.was_on |= left_off;
    }
}

/// What was tried against a radio that does not work.
#[derive(Debug, Default)]
struct Cures {
    cycled: Option<Mono>,
    renewed: Option<Mono>,
    /// Generations made for want of success, since data last came.
    fruitless: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Policy {
    limits: BleLimits,
    seed: u64,
    started: Mono,
    sensors: BTreeMap<SensorKey, Sensor>,
    last_key: u32,
    radio: Radio,
    radio_pause: Backoff,
    /// When the generation found the adapter.
    up_since: Option<Mono>,
    power: Power,
    scan: Scan,
    scan_retry: Mono,
    scan_pause: Backoff,
    /// Scans in a row that could not be started or heard nothing.
    scan_trouble: u32,
    /// Who has the one connection attempt.
    slot: Option<SensorKey>,
    window: VecDeque<Mono>,
    cures: Cures,
    counts: RadioCounts,
    orders: Vec<Order>,
}

impl Policy {
    /// A policy without sensors, which wants nothing. `seed` fixes the jitter of its pauses.
    pub fn new(limits: &BleLimits, seed: u64, now: Stamp) -> Self {
        let ended = Ended { obstacle: Obstacle::Starting, words: "Bluetooth is being started".to_owned() };
        Self {
            limits: *limits,
            seed,
            started: now.mono,
            sensors: BTreeMap::new(),
            last_key: 0,
            radio: Radio::Down { ended, retry: now.mono },
            radio_pause: Backoff::new(limits.generation_pause.0, limits.generation_pause.1, seed),
            up_since: None,
            power: Power::default(),
            scan: Scan::Off,
            scan_retry: now.mono,
            scan_pause: Backoff::new(SCAN_PAUSE.0, SCAN_PAUSE.1, seed ^ 1),
            scan_trouble: 0,
            slot: None,
            window: VecDeque::new(),
            cures: Cures::default(),
            counts: RadioCounts::default(),
            orders: Vec::new(),
        }
    }

    /// Somebody wants this sensor. The orders are those of the next [`Policy::on`].
    pub fn add(&mut self, wanted: WantedSensor, now: Stamp) -> SensorKey {
        self.last_key += 1;
        let key = SensorKey(self.last_key);
        let seed = self.seed.wrapping_add(u64::from(self.last_key));
        self.sensors.insert(key, Sensor::new(wanted, &self.limits, seed, now));
        key
    }

    /// Nobody wants it any more. The order to end its link, if it has one, is among those of the next [`Policy::on`].
    pub fn remove(&mut self, key: SensorKey) {
        let Some(sensor) = self.sensors.remove(&key) else { return };
        if self.slot == Some(key) {
            self.slot = None;
        }
        if let Some(address) = sensor.address
            && !sensor.is_idle()
        {
            self.orders.push(Order::Disconnect(key, address));
        }
    }

    /// Takes what has happened and says what is to be done.
    pub fn on(&mut self, input: Input, now: Stamp) -> Vec<Order> {
        match input {
            Input::Tick => {}
            Input::Up { powered, known } => self.on_up(powered, &known, now),
            Input::Down(ended) => {
                // One that has worked for a while may be replaced at once; one after the other may not.
                if self.up_since.is_some_and(|since| now.mono.since(since) >= self.limits.stable) {
                    self.radio_pause.reset();
                }
                let pause = self.radio_pause.next_delay();
                self.go_down(ended, pause, now.mono);
            }
            Input::DaemonGone => {
                self.leave(Obstacle::NoDaemon, "bluetoothd does not run: `systemctl status bluetooth` says why", now);
            }
            Input::AdapterGone => self.leave(Obstacle::NoAdapter, "the Bluetooth adapter was unplugged", now),
            Input::DaemonBack => self.retry_now(now.mono),
            Input::AdapterBack { address, left_off } => {
                self.power.adapter_is(address, left_off);
                self.retry_now(now.mono);
            }
            Input::Powered(on) => self.on_powered(on, now.mono),
            Input::PowerCycled(result) => self.on_power_cycled(result, now.mono),
            Input::Advert(advert) => self.on_advert(&advert, now),
            Input::ScanStarted(result) => self.on_scan_started(result, now.mono),
            Input::ScanStopped => {
                if matches!(self.scan, Scan::Stopping { .. }) {
                    self.scan = Scan::Off;
                }
            }
            about_one_sensor => self.on_sensor(about_one_sensor, now),
        }
        self.turn(now);
        std::mem::take(&mut self.orders)
    }

    fn on_sensor(&mut self, input: Input, now: Stamp) {
        match input {
            Input::LinkUp(key) => self.on_link_up(key, now.mono),
            Input::LinkFound(key) if self.sensors.get(&key).is_some_and(Sensor::is_idle) => {
                self.end_link(key, Cure::Nothing, now.mono);
            }
            Input::LinkDown(key) => self.on_link_down(key, now),
            Input::Connected(key, result) => self.on_connected(key, result, now),
            Input::Subscribed(key, result) => self.on_subscribed(key, result, now),
            Input::Data(key) => self.on_data(key, true, now),
            Input::Again(key) => self.on_data(key, false, now),
            Input::BatteryRead(key, result) => self.on_battery_read(key, &result, now),
            Input::Battery(key, level) => {
                if let Some(sensor) = self.sensors.get_mut(&key) {
                    sensor.battery = Some(level);
                }
            }
            Input::Finished(key, result) => self.on_finished(key, result, now.mono),
            Input::Disconnected(key) => self.on_disconnected(key, now),
            Input::Removed(key) => self.on_removed(key, now.mono),
            Input::Bonded(key, bonded) => {
                if let Some(sensor) = self.sensors.get_mut(&key) {
                    sensor.bonded = bonded;
                }
            }
            _ => {}
        }
    }

    /// When time alone will change something; `None`: only an input will.
    pub fn next_deadline(&self, now: Stamp) -> Option<Mono> {
        match &self.radio {
            Radio::Down { retry, .. } => return (!self.sensors.is_empty()).then_some(*retry),
            Radio::Starting { since } => return Some(*since + self.limits.start),
            Radio::Switching { since } => return Some(*since + self.limits.power_cycle),
            Radio::Up => {}
        }
        let dues = self.sensors.values().filter_map(|sensor| sensor.due(&self.limits)).map(|(at, _)| at);
        let mut earliest = dues.min();
        let mut consider = |at: Option<Mono>| earliest = [earliest, at].into_iter().flatten().min();
        if !self.power.on {
            return earliest;
        }
        match self.scan {
            Scan::Starting { since } | Scan::Stopping { since } => consider(Some(since + self.limits.call)),
            Scan::On { since, heard } => {
                consider(Some(heard + self.limits.scan_watchdog));
                consider(Some(since + self.limits.listen).filter(|at| *at > now.mono));
            }
            Scan::Off => consider(Some(self.scan_retry).filter(|at| *at > now.mono)),
        }
        if self.slot.is_none() {
            let free = free_at(&self.window, self.limits.adapter_attempts_a_minute);
            let tries = self.sensors.values().filter_map(|sensor| sensor.next_try(&self.limits, now.mono));
            consider(tries.map(|at| at.max(free)).filter(|at| *at > now.mono).min());
        }
        earliest
    }

    /// What people are shown about a sensor.
    pub fn sensor(&self, key: SensorKey, now: Stamp) -> Option<SensorState> {
        let sensor = self.sensors.get(&key)?;
        Some(match self.obstacle() {
            Some((Obstacle::Starting, _)) => sensor.state(SensorPhase::Searching, None),
            Some((_, words)) => sensor.state(SensorPhase::Unavailable, Some(words)),
            None => sensor.state(sensor.phase(&self.limits, now.mono), None),
        })
    }

    /// All sensors.
    pub fn keys(&self) -> impl Iterator<Item = SensorKey> + '_ {
        self.sensors.keys().copied()
    }

    /// The sensor with this address, if it is a wanted one that was heard.
    pub fn at(&self, address: BleAddress) -> Option<SensorKey> {
        self.sensors.iter().find(|(_, sensor)| sensor.address == Some(address)).map(|(key, _)| *key)
    }

    /// What people are shown about the radio.
    pub fn radio(&self) -> RadioState {
        let (obstacle, reason) = self.obstacle().unzip();
        let (scanning, fruitless) = (matches!(self.scan, Scan::On { .. }), self.cures.fruitless);
        RadioState { obstacle, reason, scanning, counts: self.counts, fruitless }
    }

    fn obstacle(&self) -> Option<(Obstacle, String)> {
        let (obstacle, words) = match &self.radio {
            Radio::Down { ended, .. } => (ended.obstacle, ended.words.as_str()),
            Radio::Starting { .. } => (Obstacle::Starting, "Bluetooth is being started"),
            Radio::Switching { .. } => (Obstacle::PowerCycle, "the Bluetooth adapter is being switched off and on"),
            Radio::Up if !self.power.on => {
                (Obstacle::SwitchedOff, "the Bluetooth adapter is switched off; `bluetoothctl power on` switches it on")
            }
            Radio::Up => return None,
        };
        Some((obstacle, words.to_owned()))
    }

    // The radio.

    fn on_up(&mut self, powered: bool, known: &[Known], now: Stamp) {
        if !matches!(self.radio, Radio::Starting { .. }) {
            return;
        }
        self.radio = Radio::Up;
        self.up_since = Some(now.mono);
        self.counts.generations += 1;
        (self.scan, self.slot) = (Scan::Off, None);
        self.scan_retry = now.mono;
        for sensor in self.sensors.values_mut() {
            sensor.rest(now.mono);
        }
        for Known { advert, connected } in known {
            let Some(key) = self.wanted_by(advert) else { continue };
            if *connected && let Some(sensor) = self.sensors.get_mut(&key) {
                sensor.address = Some(advert.address);
                self.end_link(key, Cure::Nothing, now.mono);
            }
        }
        self.power.on = powered;
        if powered {
            self.power.was_on = true;
            self.power.switched_off = None;
        } else if self.power.was_on && self.power.switched_off.is_none() {
            // It was on until bluetoothd or the adapter went away, and nobody has switched it off.
            self.radio = Radio::Switching { since: now.mono };
            self.orders.push(Order::PowerOn);
        }
    }

    fn retry_now(&mut self, now: Mono) {
        if let Radio::Down { retry, .. } = &mut self.radio {
            *retry = now;
        }
    }

    /// bluetoothd or the adapter has gone.
    fn leave(&mut self, obstacle: Obstacle, words: &str, now: Stamp) {
        if self.power.switched_off.is_some_and(|off| now.mono.since(off) < LEAVING) {
            self.power.switched_off = None;
        }
        if !matches!(self.radio, Radio::Down { .. }) {
            self.orders.push(Order::EndGeneration);
        }
        // Tried now and then even if nobody says that it is back.
        let pause = self.limits.generation_pause.1;
        self.go_down(Ended { obstacle, words: words.to_owned() }, pause, now.mono);
    }

    fn go_down(&mut self, ended: Ended, pause: Duration, now: Mono) {
        self.radio = Radio::Down { ended, retry: now + pause };
        self.up_since = None;
        (self.scan, self.slot) = (Scan::Off, None);
        for sensor in self.sensors.values_mut() {
            sensor.rest(now);
            // What was heard by one bluetoothd the next one does not know.
            sensor.heard = None;
        }
    }

    fn on_powered(&mut self, on: bool, now: Mono) {
        // The policy's own switching is nobody's wish.
        if matches!(self.radio, Radio::Switching { .. }) || self.power.on == on {
            return;
        }
        self.power.on = on;
        self.power.was_on |= on;
        self.power.switched_off = (!on).then_some(now);
        (self.scan, self.slot) = (Scan::Off, None);
        self.scan_retry = now;
        for sensor in self.sensors.values_mut() {
            sensor.rest(now);
            sensor.heard = None;
        }
    }

    fn on_power_cycled(&mut self, result: Result<(), String>, now: Mono) {
        if !matches!(self.radio, Radio::Switching { .. }) {
            return;
        }
        match result {
            Ok(()) => {
                self.radio = Radio::Up;
                (self.power.on, self.power.was_on, self.power.switched_off) = (true, true, None);
                self.scan_retry = now;
                for sensor in self.sensors.values_mut() {
                    sensor.rest(now);
                }
            }
            Err(words) => {
                self.orders.push(Order::EndGeneration);
                let pause = self.radio_pause.next_delay();
                self.go_down(Ended { obstacle: Obstacle::Failed, words }, pause, now);
            }
        }
    }

    /// Nothing that costs a delivering sensor its link is tried for the sake of another one.
    fn may_cure(&self, last: Option<Mono>, now: Mono) -> bool {
        let is_rested = last.is_none_or(|last| now.since(last) >= self.limits.between_cures);
        is_rested && !self.sensors.values().any(Sensor::delivers)
    }

    /// Switches the adapter off and on, unless that would do harm or was done lately.
    fn power_cycle(&mut self, now: Mono) -> bool {
        if !self.power.on || !self.may_cure(self.cures.cycled, now) {
            return false;
        }
        self.cures.cycled = Some(now);
        self.counts.power_cycles += 1;
        self.radio = Radio::Switching { since: now };
        (self.scan, self.slot) = (Scan::Off, None);
        for sensor in self.sensors.values_mut() {
            sensor.rest(now);
            sensor.heard = None;
        }
        self.orders.push(Order::PowerCycle);
        true
    }

    /// Makes a new generation, and after several that brought nothing ends the daemon, which systemd starts anew.
    fn renew(&mut self, words: &str, may_exit: bool, now: Mono) -> bool {
        if !self.may_cure(self.cures.renewed, now) {
            return false;
        }
        self.cures.renewed = Some(now);
        if may_exit {
            self.cures.fruitless += 1;
        }
        if self.cures.fruitless > FRUITLESS_GENERATIONS && now.since(self.started) >= self.limits.before_exit {
            self.cures.fruitless = 0;
            self.orders.push(Order::Exit(format!("no Bluetooth sensor can be connected: {words}")));
        }
        self.orders.push(Order::EndGeneration);
        self.go_down(Ended { obstacle: Obstacle::Failed, words: words.to_owned() }, Duration::ZERO, now);
        true
    }

    // One sensor.

    fn wanted_by(&self, advert: &Advert) -> Option<SensorKey> {
        let is_met = |sensor: &Sensor| sensor.wanted.wanted.is_met_by(advert.address, advert.name.as_deref());
        self.sensors.iter().find(|(_, sensor)| is_met(sensor)).map(|(key, _)| *key)
    }

    fn on_advert(&mut self, advert: &Advert, now: Stamp) {
        if advert.rssi.is_none() {
            return;
        }
        if let Scan::On { heard, .. } = &mut self.scan {
            *heard = now.mono;
            self.scan_trouble = 0;
        }
        let Some(key) = self.wanted_by(advert) else { return };
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        if sensor.is_idle() {
            sensor.address = Some(advert.address);
        } else if sensor.address != Some(advert.address) {
            // Another device with the same name.
            return;
        }
        sensor.hear(&self.limits, now.mono);
        (sensor.last_seen, sensor.rssi) = (Some(now), advert.rssi);
        if sensor.is_idle() {
            sensor.looking = Some(now.mono);
        }
    }

    fn on_link_up(&mut self, key: SensorKey, now: Mono) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        match &mut sensor.link {
            Link::Connecting { resolving, .. } => {
                resolving.get_or_insert(now);
            }
            // It has come by itself, as bonded sensors may: a connect finds the link there.
            Link::Idle => sensor.heard = Some(now),
            _ => {}
        }
    }

    fn on_link_down(&mut self, key: SensorKey, now: Stamp) {
        let Some(sensor) = self.sensors.get(&key) else { return };
        match sensor.link {
            Link::Idle | Link::Ending { .. } | Link::Removing { .. } => {}
            Link::Open { .. } | Link::Checking { .. } if sensor.wanted.habit.is_episodic() => {
                self.end_visit(key, None, now.mono);
            }
            Link::Open { .. } | Link::Checking { .. } if sensor.wanted.manner.ends_normally && sensor.delivers() => {
                self.end_visit(key, None, now.mono);
                if let Some(sensor) = self.sensors.get_mut(&key) {
                    // Its numbers have ended all the same, and whoever waits for them has to know why.
                    sensor.reason = Some("the sensor has ended the link, as it does when it is taken off".to_owned());
                }
            }
            // It has sent what it had before its services were known: BlueZ had renewed an earlier subscription.
            _ if sensor.has_carried() && sensor.wanted.habit.is_episodic() => self.end_visit(key, None, now.mono),
            _ => self.fail(key, Failure::ordinary("the sensor dropped the link"), now.mono),
        }
    }

    /// The link of an episodic sensor has ended or may end: for the radio its visit was a success.
    fn end_visit(&mut self, key: SensorKey, refusal: Option<String>, now: Mono) {
        let limits = self.limits;
        if let Some(sensor) = self.sensors.get_mut(&key) {
            let is_in_vain = sensor.end_visit(refusal, &limits, now);
            self.counts.failures += u64::from(is_in_vain);
            self.cures.fruitless = 0;
            self.end_link(key, Cure::Nothing, now);
        }
    }

    fn on_finished(&mut self, key: SensorKey, result: Result<(), String>, now: Mono) {
        if self.sensors.get(&key).is_some_and(|sensor| matches!(sensor.link, Link::Open { .. } | Link::Checking { .. }))
        {
            self.end_visit(key, result.err(), now);
        }
    }

    fn on_connected(&mut self, key: SensorKey, result: Result<(), Failure>, now: Stamp) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        if !matches!(sensor.link, Link::Connecting { .. }) {
            return;
        }
        match result {
            Ok(()) => {
                sensor.link = Link::Settling { since: now.mono };
                let settle = sensor.wanted.manner.settle;
                self.slot = None;
                if settle.is_zero() {
                    self.subscribe(key, now.mono);
                }
            }
            Err(failure) => self.fail(key, failure, now.mono),
        }
    }

    fn subscribe(&mut self, key: SensorKey, now: Mono) {
        if let Some(sensor) = self.sensors.get_mut(&key) {
            sensor.link = Link::Subscribing { since: now };
            self.orders.push(Order::Subscribe(key));
        }
    }

    fn on_subscribed(&mut self, key: SensorKey, result: Result<(), Failure>, now: Stamp) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        if !matches!(sensor.link, Link::Subscribing { .. }) {
            return;
        }
        match result {
            Ok(()) => {
                sensor.open(now.mono);
                sensor.last_seen = Some(now);
                self.orders.push(Order::ReadBattery(key));
            }
            Err(failure) => self.fail(key, failure, now.mono),
        }
    }

    fn on_data(&mut self, key: SensorKey, is_new: bool, now: Stamp) {
        let limits = self.limits;
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        match sensor.link {
            Link::Open { .. } | Link::Checking { .. } => sensor.data(is_new, &limits, now),
            Link::Connecting { .. } | Link::Subscribing { .. } => sensor.early_data(is_new, &limits, now),
            // The end of the link was told first, and taken for a failure.
            _ if sensor.wanted.habit.is_episodic() => sensor.late_data(is_new, &limits, now),
            _ => return,
        }
        self.cures.fruitless = 0;
    }

    fn on_battery_read(&mut self, key: SensorKey, answer: &Result<Option<u8>, String>, now: Stamp) {
        let limits = self.limits;
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        let is_alive = match answer {
            Ok(level) => {
                sensor.battery = level.or(sensor.battery);
                sensor.last_seen = Some(now);
                true
            }
            Err(_) => false,
        };
        if !matches!(sensor.link, Link::Checking { .. }) {
            return;
        }
        if is_alive {
            // It lives and has nothing to say, or the subscription is dead: one more chance.
            sensor.was_asked = true;
            sensor.link = Link::Open { quiet: now.mono };
            return;
        }
        if sensor.wanted.habit.is_episodic() {
            return self.end_visit(key, None, now.mono);
        }
        let words = silent_words(sensor.patience(&limits));
        self.fail(key, Failure::ordinary(words), now.mono);
    }

    fn on_disconnected(&mut self, key: SensorKey, now: Stamp) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        let Link::Ending { then, .. } = sensor.link else { return };
        sensor.rest(now.mono);
        if self.slot == Some(key) {
            self.slot = None;
        }
        let words = self.sensors.get(&key).and_then(|sensor| sensor.reason.clone()).unwrap_or_default();
        let tried = match then {
            Cure::Nothing => return,
            Cure::Remove => None,
            Cure::PowerCycle => self.power_cycle(now.mono).then_some(Rung::PowerCycled),
            Cure::Renew => self.renew(&words, true, now.mono).then_some(Rung::Renewed),
        };
        match self.sensors.get_mut(&key) {
            Some(sensor) if tried.is_some() => sensor.tried = tried,
            _ => self.forget(key, now.mono),
        }
    }

    /// Makes BlueZ forget the device, unless that would lose its bond.
    fn forget(&mut self, key: SensorKey, now: Mono) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        if let Some(address) = sensor.address
            && !sensor.bonded
        {
            sensor.link = Link::Removing { since: now };
            sensor.tried = Some(Rung::Forgotten);
            self.counts.removals += 1;
            self.orders.push(Order::Remove(key, address));
        }
    }

    fn on_removed(&mut self, key: SensorKey, now: Mono) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        if matches!(sensor.link, Link::Removing { .. }) {
            sensor.rest(now);
            sensor.heard = None;
        }
    }

    /// A step has failed: the link is ended, whatever BlueZ says about it, and the next rung is chosen.
    fn fail(&mut self, key: SensorKey, failure: Failure, now: Mono) {
        let limits = self.limits;
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        let words = failure.words + &sensor.advice();
        let failures = sensor.fail(failure.kind, words, &limits, now);
        self.counts.failures += u64::from(failure.kind != FailureKind::Vanished);
        let rung = (failures > 0 && failures.is_multiple_of(FAILURES_A_RUNG)).then_some(failures / FAILURES_A_RUNG);
        let cure = match rung.map(|rung| rung % 3) {
            None => Cure::Nothing,
            Some(1) => Cure::Remove,
            Some(2) => Cure::PowerCycle,
            Some(_) => Cure::Renew,
        };
        self.end_link(key, cure, now);
    }

    /// Orders the end of a link. The connection attempt stays taken until it has ended.
    fn end_link(&mut self, key: SensorKey, then: Cure, now: Mono) {
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        let Some(address) = sensor.address else { return };
        sensor.link = Link::Ending { since: now, then };
        self.orders.push(Order::Disconnect(key, address));
    }

    // What time brings.

    fn turn(&mut self, now: Stamp) {
        self.turn_radio(now.mono);
        if self.radio != Radio::Up {
            return;
        }
        let keys: Vec<SensorKey> = self.sensors.keys().copied().collect();
        for key in keys {
            self.turn_sensor(key, now);
        }
        if self.radio == Radio::Up && self.power.on {
            self.turn_scan(now.mono);
        }
        // Again: a cure may have taken the radio away.
        if self.radio == Radio::Up && self.power.on {
            self.turn_slot(now.mono);
            self.listen(now.mono);
        }
        if self.radio != Radio::Up {
            // The cure may be due at once.
            self.turn_radio(now.mono);
        }
    }

    fn turn_radio(&mut self, now: Mono) {
        match self.radio {
            Radio::Down { retry, .. } if now >= retry && !self.sensors.is_empty() => {
                self.radio = Radio::Starting { since: now };
                self.orders.push(Order::NewGeneration);
            }
            Radio::Starting { since } if now >= since + self.limits.start => {
                self.orders.push(Order::EndGeneration);
                let words = format!("no answer from D-Bus and BlueZ within {} s", self.limits.start.as_secs_f32());
                let pause = self.radio_pause.next_delay();
                self.go_down(Ended { obstacle: Obstacle::NoBus, words }, pause, now);
            }
            Radio::Switching { since } if now >= since + self.limits.power_cycle => {
                self.on_power_cycled(Err("the adapter cannot be switched off and on: no answer".to_owned()), now);
            }
            _ => {}
        }
    }

    fn turn_sensor(&mut self, key: SensorKey, now: Stamp) {
        let limits = self.limits;
        let Some(sensor) = self.sensors.get_mut(&key) else { return };
        let Some((_, overdue)) = sensor.due(&limits).filter(|(at, _)| *at <= now.mono) else { return };
        match overdue {
            Overdue::Sighting => {
                sensor.looking = None;
                let seconds = limits.scan.as_secs_f32();
                if self.power.on && !sensor.is_fresh(&limits, now.mono) && !sensor.wanted.habit.is_episodic() {
                    sensor.reason = Some(format!("{} was not seen in {seconds} s of scanning", sensor.wanted.wanted));
                }
            }
            Overdue::Stable => sensor.settle(),
            Overdue::Connect => self.fail(key, timed_out("connecting to the sensor", limits.connect), now.mono),
            Overdue::Resolve => {
                sensor.unresolved = sensor.unresolved.saturating_add(1);
                self.fail(key, Failure::ordinary("the link stands, but its services are not found"), now.mono);
            }
            Overdue::Settle => self.subscribe(key, now.mono),
            Overdue::Subscribe => self.fail(key, timed_out("subscribing", limits.subscribe), now.mono),
            Overdue::Data if sensor.was_asked && !sensor.wanted.habit.is_episodic() => {
                let words = silent_words(sensor.patience(&limits));
                self.fail(key, Failure::ordinary(words), now.mono);
            }
            Overdue::Data => {
                if !sensor.wanted.habit.is_episodic() {
                    sensor.reason = Some(silent_words(sensor.patience(&limits)));
                }
                sensor.link = Link::Checking { since: now.mono };
                self.orders.push(Order::ReadBattery(key));
            }
            Overdue::Check => self.on_battery_read(key, &Err("no answer".to_owned()), now),
            Overdue::Disconnect => self.on_disconnected(key, now),
            Overdue::Remove => self.on_removed(key, now.mono),
        }
    }

    /// Scans while a wanted sensor has no link and nobody is being connected.
    fn listen(&mut self, now: Mono) {
        let is_wanted = self.slot.is_none() && self.sensors.values().any(Sensor::is_idle);
        match self.scan {
            Scan::Off if is_wanted && now >= self.scan_retry => {
                self.scan = Scan::Starting { since: now };
                self.orders.push(Order::StartScan);
            }
            Scan::On { .. } if !is_wanted && self.slot.is_none() => self.stop_scan(now),
            _ => {}
        }
    }

    fn turn_scan(&mut self, now: Mono) {
        match self.scan {
            Scan::On { heard, .. } if now >= heard + self.limits.scan_watchdog => {
                self.counts.silent_scans += 1;
                self.stop_scan(now);
                let seconds = self.limits.scan_watchdog.as_secs();
                self.scan_failed(&format!("nothing at all was heard in {seconds} s of scanning"), now);
            }
            Scan::Starting { since } if now >= since + self.limits.call => {
                self.on_scan_started(Err("starting to scan: no answer".to_owned()), now);
            }
            Scan::Stopping { since } if now >= since + self.limits.call => self.scan = Scan::Off,
            _ => {}
        }
    }

    fn stop_scan(&mut self, now: Mono) {
        self.scan = Scan::Stopping { since: now };
        self.orders.push(Order::StopScan);
    }

    fn on_scan_started(&mut self, result: Result<(), String>, now: Mono) {
        if !matches!(self.scan, Scan::Starting { .. }) {
            return;
        }
        match result {
            Ok(()) => {
                self.scan = Scan::On { since: now, heard: now };
                self.scan_pause.reset();
            }
            Err(words) => {
                self.scan = Scan::Off;
                self.scan_retry = now + self.scan_pause.next_delay();
                for sensor in self.sensors.values_mut().filter(|sensor| sensor.is_idle()) {
                    sensor.reason = Some(words.clone());
                }
                self.scan_failed(&words, now);
            }
        }
    }

    /// A scan heard nothing or could not be started: where nobody is near that is normal, so that only mild cures are
    /// tried.
    fn scan_failed(&mut self, words: &str, now: Mono) {
        self.scan_trouble = self.scan_trouble.saturating_add(1);
        match self.scan_trouble % (2 * FAILURES_A_RUNG) {
            FAILURES_A_RUNG => drop(self.power_cycle(now)),
            0 => drop(self.renew(words, false, now)),
            _ => {}
        }
    }

    fn turn_slot(&mut self, now: Mono) {
        if self.slot.is_none() {
            self.slot = self.next_in_turn(now);
        }
        let Some(key) = self.slot else { return };
        let limits = self.limits;
        let Some(sensor) = self.sensors.get_mut(&key).filter(|sensor| sensor.is_idle()) else { return };
        match self.scan {
            // Controllers that scan and connect at once are slow at both, and the Raspberry Pi's own one may reset.
            Scan::On { .. } => self.stop_scan(now),
            Scan::Starting { .. } | Scan::Stopping { .. } => {}
            Scan::Off if !sensor.is_fresh(&limits, now) => self.slot = None,
            Scan::Off => {
                let Some(address) = sensor.address else { return };
                sensor.attempt(&limits, now);
                remember(&mut self.window, limits.adapter_attempts_a_minute, now);
                self.counts.connects += 1;
                self.orders.push(Order::Connect(key, address));
            }
        }
    }

    /// Whose turn it is: of those that may be tried now, the one that was tried longest ago.
    fn next_in_turn(&self, now: Mono) -> Option<SensorKey> {
        if now < free_at(&self.window, self.limits.adapter_attempts_a_minute) {
            return None;
        }
        let is_due = |sensor: &Sensor| sensor.next_try(&self.limits, now).is_some_and(|at| at <= now);
        let due = self.sensors.iter().filter(|(_, sensor)| is_due(sensor));
        let (key, sensor) = due.min_by_key(|(_, sensor)| sensor.last_attempt)?;
        // One that has failed does not keep the adapter from hearing the others.
        let others_unheard = self.sensors.iter().any(|(other, sensor)| {
            other != key
                && sensor.is_idle()
                && !sensor.wanted.manner.is_only_heard
                && !sensor.is_fresh(&self.limits, now)
                && now >= sensor.not_before
        });
        let has_listened = matches!(self.scan, Scan::On { since, .. } if now >= since + self.limits.listen);
        (sensor.failures == 0 || !others_unheard || has_listened).then_some(*key)
    }
}

fn silent_words(limit: Duration) -> String {
    format!("no readable measurement for {} s", limit.as_secs_f32())
}

fn timed_out(doing: &str, limit: Duration) -> Failure {
    Failure::ordinary(format!("{doing}: no answer within {} s", limit.as_secs_f32()))
}
