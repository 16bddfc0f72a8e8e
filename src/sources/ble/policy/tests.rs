//! What the connection policy does in single situations.

use super::*;
use crate::bluez::BleAddress;
use crate::clock::Wall;
use crate::sources::ble::sensor::{Manner, SensorKind};
use crate::sources::ble::wanted::Wanted;

const STRAP: BleAddress = BleAddress::new([0xC0, 0, 0, 0, 0, 1]);
const OTHER: BleAddress = BleAddress::new([0xC0, 0, 0, 0, 0, 2]);

struct Rig {
    policy: Policy,
    now: Stamp,
}

fn sensor(kind: SensorKind, address: BleAddress) -> WantedSensor {
    WantedSensor { wanted: Wanted::Address(address), habit: kind.habit(), manner: Manner::default() }
}

impl Rig {
    /// A radio that works, and these sensors.
    fn new(sensors: &[WantedSensor]) -> (Self, Vec<SensorKey>) {
        Self::with(&BleLimits::default(), sensors)
    }

    fn with(limits: &BleLimits, sensors: &[WantedSensor]) -> (Self, Vec<SensorKey>) {
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
        let mut policy = Policy::new(limits, 7, now);
        let keys = sensors.iter().map(|wanted| policy.add(wanted.clone(), now)).collect();
        let mut rig = Self { policy, now };
        assert_eq!(rig.on(Input::Tick), [Order::NewGeneration]);
        (rig, keys)
    }

    /// The same, with the scan running.
    fn scanning(sensors: &[WantedSensor]) -> (Self, Vec<SensorKey>) {
        let (mut rig, keys) = Self::new(sensors);
        assert_eq!(rig.up(true), [Order::StartScan]);
        assert_eq!(rig.on(Input::ScanStarted(Ok(()))), []);
        (rig, keys)
    }

    fn on(&mut self, input: Input) -> Vec<Order> {
        self.policy.on(input, self.now)
    }

    fn up(&mut self, powered: bool) -> Vec<Order> {
        self.on(Input::Up { powered, known: vec![] })
    }

    fn wait(&mut self, millis: u64) -> Vec<Order> {
        self.now.mono = self.now.mono + Duration::from_millis(millis);
        self.on(Input::Tick)
    }

    fn hear(&mut self, address: BleAddress) -> Vec<Order> {
        self.on(Input::Advert(Advert { address, name: None, rssi: Some(-60) }))
    }

    /// From an advertisement to a `Connect`.
    fn connect(&mut self, key: SensorKey, address: BleAddress) {
        // It may have been heard before, and have waited for the end of a pause.
        let orders = self.hear(address);
        assert!(orders.is_empty() || orders == [Order::StopScan], "{orders:?}");
        assert_eq!(self.on(Input::ScanStopped), [Order::Connect(key, address)]);
    }

    /// From an advertisement to a subscription.
    fn open(&mut self, key: SensorKey, address: BleAddress) {
        self.connect(key, address);
        self.on(Input::LinkUp(key));
        assert_eq!(self.on(Input::Connected(key, Ok(())))[0], Order::Subscribe(key));
        assert_eq!(self.on(Input::Subscribed(key, Ok(()))), [Order::ReadBattery(key)]);
        self.on(Input::BatteryRead(key, Ok(Some(55))));
    }

    /// A connect that fails, until the policy scans again; gives what was ordered beside.
    fn fail(&mut self, key: SensorKey, address: BleAddress) -> Vec<Order> {
        let heard = self.hear(address);
        if heard.is_empty() {
            self.wait(60_000);
            self.hear(address);
        }
        self.on(Input::ScanStopped);
        assert_eq!(self.state(key).phase, SensorPhase::Connecting);
        let refused = Input::Connected(key, Err(Failure::ordinary("refused")));
        assert_eq!(self.on(refused), [Order::Disconnect(key, address)]);
        let orders = self.on(Input::Disconnected(key));
        if orders.contains(&Order::StartScan) {
            self.on(Input::ScanStarted(Ok(())));
        }
        orders.into_iter().filter(|order| *order != Order::StartScan).collect()
    }

    fn state(&self, key: SensorKey) -> SensorState {
        self.policy.sensor(key, self.now).unwrap()
    }
}

#[test]
fn a_strap_is_connected_with_the_scan_stopped_and_all_about_it_is_shown() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    assert_eq!(rig.state(keys[0]).phase, SensorPhase::Searching);
    rig.open(keys[0], STRAP);
    assert_eq!(rig.state(keys[0]).phase, SensorPhase::Waiting);
    rig.on(Input::Data(keys[0]));
    let expected = SensorState {
        phase: SensorPhase::Live,
        address: Some(STRAP),
        last_seen: Some(rig.now),
        rssi: Some(-60),
        battery: Some(55),
        attempts: 1,
        failures: 0,
        tried: None,
        bonded: false,
        reason: None,
    };
    assert_eq!(rig.state(keys[0]), expected);
    assert!(!rig.policy.radio().scanning, "nobody is looked for");
}

#[test]
fn a_connect_has_a_deadline_and_the_adapter_is_not_free_before_its_disconnect_is_over() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP), sensor(SensorKind::HeartRate, OTHER)]);
    rig.connect(keys[0], STRAP);
    assert_eq!(rig.wait(19_999), []);
    assert_eq!(rig.wait(1), [Order::Disconnect(keys[0], STRAP)]);
    assert_eq!(rig.state(keys[0]).reason.unwrap(), "connecting to the sensor: no answer within 20 s");
    assert_eq!(rig.hear(OTHER), [], "the other one waits");
    assert_eq!(rig.wait(4999), []);
    assert_eq!(rig.wait(1), [Order::Connect(keys[1], OTHER)], "the disconnect has its own deadline");
}

#[test]
fn a_link_without_services_is_ended_after_5_s_and_gets_longer_the_next_time() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    rig.connect(keys[0], STRAP);
    rig.wait(1000);
    rig.on(Input::LinkUp(keys[0]));
    assert_eq!(rig.wait(5000), [Order::Disconnect(keys[0], STRAP)]);
    rig.on(Input::Disconnected(keys[0]));
    rig.on(Input::ScanStarted(Ok(())));
    rig.wait(300);
    rig.connect(keys[0], STRAP);
    rig.on(Input::LinkUp(keys[0]));
    assert_eq!(rig.wait(9999), []);
    assert_eq!(rig.wait(1), [Order::Disconnect(keys[0], STRAP)]);
}

#[test]
fn a_link_that_drops_while_it_is_made_is_a_failure_at_once() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    rig.connect(keys[0], STRAP);
    rig.on(Input::LinkUp(keys[0]));
    assert_eq!(rig.on(Input::LinkDown(keys[0])), [Order::Disconnect(keys[0], STRAP)]);
    assert_eq!(rig.state(keys[0]).reason.unwrap(), "the sensor dropped the link");
}

#[test]
fn a_silent_strap_is_asked_for_its_battery_once_and_then_given_up() {
    for has_battery in [false, true] {
        let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
        rig.open(keys[0], STRAP);
        rig.wait(7000);
        rig.on(Input::Data(keys[0]));
        assert_eq!(rig.wait(7999), []);
        assert_eq!(rig.wait(1), [Order::ReadBattery(keys[0])]);
        assert_eq!(rig.state(keys[0]).phase, SensorPhase::Silent);
        let gives_up = [Order::Disconnect(keys[0], STRAP)];
        if has_battery {
            assert_eq!(rig.on(Input::BatteryRead(keys[0], Ok(Some(54)))), []);
            assert_eq!(rig.wait(8000), gives_up);
        } else {
            assert_eq!(rig.on(Input::BatteryRead(keys[0], Err("none".to_owned()))), gives_up);
        }
        assert_eq!(rig.state(keys[0]).reason.unwrap(), "no readable measurement for 8 s");
    }
}

#[test]
fn only_what_was_heard_lately_is_connected() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP), sensor(SensorKind::HeartRate, OTHER)]);
    rig.connect(keys[0], STRAP);
    rig.on(Input::LinkUp(keys[0]));
    rig.hear(OTHER);
    rig.on(Input::Connected(keys[0], Ok(())));
    // It was the other one's turn at once; had it been heard 25 s ago, it would have to be heard again.
    assert_eq!(rig.state(keys[1]).phase, SensorPhase::Connecting);
    let (mut rig, keys) = Rig::new(&[sensor(SensorKind::HeartRate, STRAP)]);
    let known = Known { advert: Advert { address: STRAP, name: None, rssi: None }, connected: false };
    assert_eq!(rig.on(Input::Up { powered: true, known: vec![known] }), [Order::StartScan]);
    rig.on(Input::ScanStarted(Ok(())));
    assert_eq!(rig.wait(30_000), []);
    let reason = rig.state(keys[0]).reason.unwrap();
    assert_eq!(reason, "C0:00:00:00:00:01 was not seen in 30 s of scanning");
}

#[test]
fn a_cuff_that_ends_the_link_was_a_success_and_waits_for_its_next_advertisement() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::BloodPressure, STRAP)]);
    for visit in 0..20 {
        rig.open(keys[0], STRAP);
        rig.on(Input::Data(keys[0]));
        assert_eq!(rig.on(Input::LinkDown(keys[0])), [Order::Disconnect(keys[0], STRAP)]);
        assert_eq!(rig.on(Input::Disconnected(keys[0])), [Order::StartScan]);
        rig.on(Input::ScanStarted(Ok(())));
        let state = rig.state(keys[0]);
        assert_eq!((state.phase, state.failures, state.reason), (SensorPhase::Searching, 0, None), "visit {visit}");
        assert_eq!(rig.hear(STRAP), [], "it advertises on for a while");
        rig.wait(10_000);
    }
}

#[test]
fn a_cuff_that_sends_before_its_services_are_known_and_ends_the_link_was_a_success() {
    // BlueZ renews the subscriptions of a device that it knows as soon as the link stands. Its word and that of the
    // source come by two ways, in any order.
    for data_first in [true, false] {
        let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::BloodPressure, STRAP)]);
        let key = keys[0];
        rig.connect(key, STRAP);
        rig.on(Input::LinkUp(key));
        for is_data in [data_first, !data_first] {
            rig.on(if is_data { Input::Data(key) } else { Input::LinkDown(key) });
        }
        rig.on(Input::Disconnected(key));
        let state = rig.state(key);
        assert_eq!((state.failures, state.reason, state.last_seen), (0, None, Some(rig.now)), "{data_first}");
        // A strap that drops the link while it is made has failed, whatever it has sent before.
        let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
        rig.connect(keys[0], STRAP);
        rig.on(Input::Data(keys[0]));
        rig.on(Input::LinkDown(keys[0]));
        assert_eq!(rig.state(keys[0]).failures, 1);
    }
}

#[test]
fn the_ladder_goes_from_forgetting_over_the_power_to_a_new_generation_and_never_forgets_a_bond() {
    for bonded in [false, true] {
        let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
        let key = keys[0];
        rig.on(Input::Bonded(key, bonded));
        let mut rungs = vec![];
        for failure in 1..=12 {
            let orders = rig.fail(key, STRAP);
            for order in orders {
                match order {
                    Order::Remove(..) => {
                        rungs.push((failure, "remove"));
                        rig.on(Input::Removed(key));
                    }
                    Order::PowerCycle => {
                        rungs.push((failure, "power cycle"));
                        rig.on(Input::PowerCycled(Ok(())));
                    }
                    Order::NewGeneration => {
                        rungs.push((failure, "generation"));
                        rig.up(true);
                    }
                    Order::EndGeneration => {}
                    other => panic!("{other:?}"),
                }
            }
            rig.on(Input::ScanStarted(Ok(())));
        }
        let expected = [(3, "remove"), (6, "power cycle"), (9, "generation"), (12, "remove")];
        let expected: Vec<_> = expected.into_iter().filter(|(_, rung)| !bonded || *rung != "remove").collect();
        assert_eq!(rungs, expected, "bonded: {bonded}");
    }
}

#[test]
fn no_cure_costs_a_delivering_sensor_its_link() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP), sensor(SensorKind::HeartRate, OTHER)]);
    rig.open(keys[1], OTHER);
    for _ in 0..30 {
        rig.on(Input::Data(keys[1]));
        rig.on(Input::ScanStarted(Ok(())));
        let orders = rig.policy.on(Input::Advert(Advert { address: STRAP, name: None, rssi: Some(-70) }), rig.now);
        if orders.contains(&Order::StopScan) {
            rig.on(Input::ScanStopped);
            rig.on(Input::Connected(keys[0], Err(Failure::ordinary("refused"))));
            for order in rig.on(Input::Disconnected(keys[0])) {
                assert!(matches!(order, Order::StartScan | Order::Remove(..)), "{order:?}");
            }
            rig.on(Input::Removed(keys[0]));
        }
        for _ in 0..10 {
            rig.wait(6000);
            rig.on(Input::Data(keys[1]));
        }
    }
    assert!(rig.state(keys[0]).failures >= 9);
    assert_eq!(rig.state(keys[1]).phase, SensorPhase::Live);
}

#[test]
fn the_daemon_is_ended_only_after_fruitless_generations_and_an_hour() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    let started = rig.now.mono;
    let mut exits = vec![];
    for _ in 0..200 {
        for order in rig.fail(keys[0], STRAP) {
            match order {
                Order::Remove(key, _) => drop(rig.on(Input::Removed(key))),
                Order::PowerCycle => drop(rig.on(Input::PowerCycled(Ok(())))),
                Order::NewGeneration => drop(rig.up(true)),
                Order::Exit(words) => exits.push((rig.now.mono.since(started), words)),
                _ => {}
            }
        }
        rig.on(Input::ScanStarted(Ok(())));
    }
    assert!(!exits.is_empty());
    assert!(exits[0].0 >= Duration::from_hours(1), "{exits:?}");
    assert_eq!(exits[0].1, "no Bluetooth sensor can be connected: refused");
}

#[test]
fn an_adapter_that_a_person_switched_off_stays_off_and_one_that_a_restart_left_off_comes_back() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    assert_eq!(rig.on(Input::Powered(false)), []);
    let state = rig.state(keys[0]);
    assert_eq!(state.phase, SensorPhase::Unavailable);
    assert!(state.reason.unwrap().starts_with("the Bluetooth adapter is switched off"));
    assert_eq!(rig.wait(3_600_000), []);
    // bluetoothd is restarted much later: the wish still stands.
    assert_eq!(rig.on(Input::DaemonGone), [Order::EndGeneration]);
    assert_eq!(rig.on(Input::DaemonBack), [Order::NewGeneration]);
    assert_eq!(rig.up(false), []);
    assert_eq!(rig.on(Input::Powered(true)), [Order::StartScan]);
    // A daemon that ends switches the adapter off first.
    rig.on(Input::ScanStarted(Ok(())));
    rig.on(Input::Powered(false));
    rig.wait(200);
    rig.on(Input::DaemonGone);
    rig.on(Input::DaemonBack);
    assert_eq!(rig.up(false), [Order::PowerOn]);
    assert_eq!(rig.on(Input::PowerCycled(Ok(()))), [Order::StartScan]);
    // What was off when this program came is somebody's wish.
    let (mut rig, _) = Rig::new(&[sensor(SensorKind::HeartRate, STRAP)]);
    assert_eq!(rig.up(false), []);
}

#[test]
fn what_is_known_of_one_adapter_switches_no_other_one_on() {
    let plugged = |address: &str, left_off| Input::AdapterBack { address: address.to_owned(), left_off };
    for (second, left_off, is_switched_on) in
        [("00:00:00:00:00:01", false, true), ("00:00:00:00:00:02", false, false), ("00:00:00:00:00:02", true, true)]
    {
        let (mut rig, _) = Rig::new(&[sensor(SensorKind::HeartRate, STRAP)]);
        rig.on(plugged("00:00:00:00:00:01", false));
        assert_eq!(rig.up(true), [Order::StartScan]);
        // It says that it is off before it goes.
        rig.on(Input::Powered(false));
        assert_eq!(rig.on(Input::AdapterGone), [Order::EndGeneration]);
        assert_eq!(rig.on(plugged(second, left_off)), [Order::NewGeneration]);
        let expected: &[Order] = if is_switched_on { &[Order::PowerOn] } else { &[] };
        assert_eq!(rig.up(false), expected, "{second} {left_off}");
    }
}

#[test]
fn a_link_that_a_crash_left_behind_is_ended_first() {
    let (mut rig, keys) = Rig::new(&[sensor(SensorKind::HeartRate, STRAP)]);
    let known = Known { advert: Advert { address: STRAP, name: None, rssi: None }, connected: true };
    assert_eq!(rig.on(Input::Up { powered: true, known: vec![known] }), [Order::Disconnect(keys[0], STRAP)]);
    assert_eq!(rig.on(Input::Disconnected(keys[0])), [Order::StartScan]);
    // bluetoothd may tell of it only after the generation has begun.
    rig.on(Input::ScanStarted(Ok(())));
    assert_eq!(rig.on(Input::LinkFound(keys[0])), [Order::Disconnect(keys[0], STRAP), Order::StopScan]);
    assert_eq!(rig.on(Input::LinkFound(keys[0])), [], "it is being ended already");
}

#[test]
fn a_scan_that_hears_nobody_is_started_again() {
    let (mut rig, _) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    rig.wait(80_000);
    rig.hear(OTHER);
    assert_eq!(rig.wait(89_999), []);
    assert_eq!(rig.wait(1), [Order::StopScan]);
    assert_eq!(rig.on(Input::ScanStopped), [Order::StartScan]);
}

#[test]
fn a_generation_that_panics_is_replaced_and_one_after_the_other_is_not() {
    let (mut rig, _) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    let ended = Ended { obstacle: Obstacle::Failed, words: "panicked".to_owned() };
    let mut starts = 0;
    let begun = rig.now.mono;
    while rig.now.mono.since(begun) < Duration::from_mins(10) {
        rig.on(Input::Down(ended.clone()));
        let orders = rig.wait(100);
        if orders.contains(&Order::NewGeneration) {
            starts += 1;
            rig.up(true);
        } else {
            let due = rig.policy.next_deadline(rig.now).unwrap();
            rig.now.mono = due;
            assert!(rig.on(Input::Tick).contains(&Order::NewGeneration));
            starts += 1;
            rig.up(true);
        }
    }
    assert!((60..400).contains(&starts), "{starts}");
}

#[test]
fn another_kind_of_device_is_not_tried_again_soon_and_costs_no_cure() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::HeartRate, STRAP)]);
    for _ in 0..10 {
        rig.connect(keys[0], STRAP);
        rig.on(Input::Connected(keys[0], Ok(())));
        let wrong = Failure { kind: FailureKind::WrongDevice, words: "no heart rate".to_owned() };
        assert_eq!(rig.on(Input::Subscribed(keys[0], Err(wrong))), [Order::Disconnect(keys[0], STRAP)]);
        assert_eq!(rig.on(Input::Disconnected(keys[0])), [Order::StartScan]);
        rig.on(Input::ScanStarted(Ok(())));
        assert_eq!(rig.hear(STRAP), []);
        rig.wait(59_999);
        assert_eq!(rig.hear(STRAP), []);
        rig.wait(1);
    }
}

/// A sensor that wants this.
fn with_manner(kind: SensorKind, manner: Manner) -> WantedSensor {
    WantedSensor { manner, ..sensor(kind, STRAP) }
}

#[test]
fn a_model_that_has_to_settle_is_subscribed_to_only_after_its_pause() {
    let settle = Duration::from_millis(100);
    let cuff = with_manner(SensorKind::BloodPressure, Manner { settle, ..Manner::default() });
    let (mut rig, keys) = Rig::scanning(&[cuff]);
    rig.connect(keys[0], STRAP);
    rig.on(Input::LinkUp(keys[0]));
    // The scan may go on meanwhile: the attempt is over.
    assert!(!rig.on(Input::Connected(keys[0], Ok(()))).contains(&Order::Subscribe(keys[0])));
    assert_eq!(rig.policy.next_deadline(rig.now), Some(rig.now.mono + settle));
    assert_eq!(rig.wait(99), []);
    assert_eq!(rig.state(keys[0]).phase, SensorPhase::Subscribing);
    assert_eq!(rig.wait(1), [Order::Subscribe(keys[0])]);
    assert_eq!(rig.on(Input::Subscribed(keys[0], Ok(()))), [Order::ReadBattery(keys[0])]);
}

#[test]
fn a_link_that_drops_while_the_model_settles_is_a_failure_at_once() {
    let settle = Duration::from_secs(1);
    let (mut rig, keys) =
        Rig::scanning(&[with_manner(SensorKind::BloodPressure, Manner { settle, ..Manner::default() })]);
    rig.connect(keys[0], STRAP);
    rig.on(Input::LinkUp(keys[0]));
    rig.on(Input::Connected(keys[0], Ok(())));
    assert!(rig.on(Input::LinkDown(keys[0])).contains(&Order::Disconnect(keys[0], STRAP)));
    assert_eq!(rig.state(keys[0]).failures, 1);
}

#[test]
fn a_strap_that_is_taken_off_ends_its_link_without_a_failure_but_says_so() {
    for ends_normally in [false, true] {
        let (mut rig, keys) =
            Rig::scanning(&[with_manner(SensorKind::HeartRate, Manner { ends_normally, ..Manner::default() })]);
        rig.open(keys[0], STRAP);
        rig.on(Input::Data(keys[0]));
        rig.on(Input::LinkDown(keys[0]));
        let state = rig.state(keys[0]);
        assert_eq!(state.failures, u32::from(!ends_normally));
        let reason = state.reason.unwrap();
        assert_eq!(reason.contains("taken off"), ends_normally, "{reason}");
    }
    // One that has sent nothing has not been taken off.
    let manner = Manner { ends_normally: true, ..Manner::default() };
    let (mut rig, keys) = Rig::scanning(&[with_manner(SensorKind::HeartRate, manner)]);
    rig.open(keys[0], STRAP);
    rig.on(Input::LinkDown(keys[0]));
    assert_eq!(rig.state(keys[0]).failures, 1);
}

#[test]
fn a_model_that_needs_a_bond_and_has_none_is_told_to_be_paired() {
    let manner = Manner { needs_bond: true, ..Manner::default() };
    for (bonded, advises) in [(false, true), (true, false)] {
        let (mut rig, keys) = Rig::scanning(&[with_manner(SensorKind::BloodPressure, manner)]);
        rig.on(Input::Bonded(keys[0], bonded));
        rig.connect(keys[0], STRAP);
        rig.on(Input::LinkUp(keys[0]));
        rig.on(Input::Connected(keys[0], Ok(())));
        rig.wait(30_000);
        let reason = rig.state(keys[0]).reason.unwrap();
        assert_eq!(reason.contains("has to be paired first: vitalbridge pair C0:00:00:00:00:01"), advises, "{reason}");
    }
}

#[test]
fn a_visit_that_was_in_vain_says_why_and_counts_as_a_failure_until_something_comes() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::Glucose, STRAP)]);
    let key = keys[0];
    for visit in 1..=3 {
        rig.open(key, STRAP);
        // The answer of its control point.
        rig.on(Input::Again(key));
        assert_eq!(rig.on(Input::Finished(key, Err("busy".to_owned()))), [Order::Disconnect(key, STRAP)]);
        assert_eq!(rig.on(Input::Disconnected(key)), [Order::StartScan], "no cure of the radio helps");
        let state = rig.state(key);
        assert_eq!((state.failures, state.reason.as_deref()), (visit, Some("busy")));
        rig.on(Input::ScanStarted(Ok(())));
        rig.wait(80_000);
    }
    rig.open(key, STRAP);
    rig.on(Input::Data(key));
    rig.on(Input::Finished(key, Ok(())));
    let state = rig.state(key);
    assert_eq!((state.failures, state.reason), (0, None));
}

#[test]
fn an_empty_visit_is_told_of_and_one_of_a_sensor_without_its_bond_advises_to_pair() {
    let manner = Manner { needs_bond: true, ..Manner::default() };
    for (bonded, failures) in [(true, 0), (false, 1)] {
        let (mut rig, keys) = Rig::scanning(&[with_manner(SensorKind::BloodPressure, manner)]);
        rig.on(Input::Bonded(keys[0], bonded));
        rig.open(keys[0], STRAP);
        rig.on(Input::LinkDown(keys[0]));
        let state = rig.state(keys[0]);
        let reason = state.reason.unwrap();
        assert!(reason.starts_with("the sensor ended the link without a measurement"), "{reason}");
        assert_eq!((state.failures, reason.contains("vitalbridge pair")), (failures, !bonded), "{reason}");
        // Its measurement may come by the slower way.
        rig.on(Input::Data(keys[0]));
        assert_eq!((rig.state(keys[0]).failures, rig.state(keys[0]).reason), (0, None));
    }
}

#[test]
fn a_sensor_that_stays_in_the_air_and_brings_nothing_new_is_visited_ever_more_rarely() {
    let (mut rig, keys) = Rig::scanning(&[sensor(SensorKind::BloodPressure, STRAP)]);
    let key = keys[0];
    // Advertises all the time until it is connected, and gives the seconds that took.
    let visited_after = |rig: &mut Rig, brings: Option<Input>| {
        let mut seconds = 0;
        while rig.hear(STRAP) != [Order::StopScan] {
            seconds += 1;
            if rig.wait(1000) == [Order::StopScan] {
                break;
            }
            assert!(seconds < 3600, "never visited again");
        }
        rig.on(Input::ScanStopped);
        rig.on(Input::LinkUp(key));
        rig.on(Input::Connected(key, Ok(())));
        rig.on(Input::Subscribed(key, Ok(())));
        if let Some(input) = brings {
            rig.on(input);
        }
        rig.on(Input::LinkDown(key));
        rig.on(Input::Disconnected(key));
        rig.on(Input::ScanStarted(Ok(())));
        seconds
    };
    let again = || Some(Input::Again(key));
    let pauses: Vec<u64> = (0..10).map(|visit| visited_after(&mut rig, again().filter(|_| visit % 2 == 0))).collect();
    assert_eq!(pauses, [0, 5, 10, 20, 40, 80, 160, 320, 600, 600]);
    assert_eq!(visited_after(&mut rig, Some(Input::Data(key))), 600);
    assert_eq!(visited_after(&mut rig, again()), 5, "something new has come");
    assert_eq!(visited_after(&mut rig, again()), 5);
    assert_eq!(visited_after(&mut rig, again()), 10);
    // It went away, and comes back after a measurement.
    rig.wait(60_000);
    assert_eq!(visited_after(&mut rig, again()), 0);
}
