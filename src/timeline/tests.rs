//! Clock epochs: steps, boots, a time server that comes late or never.

use super::*;
use crate::clock::Stamp;
use crate::event::{Event, EventBody};
use crate::vitals::{Absent, Metric, Mode, Quality, Reading, Taken, TimeSource, Value, Vital};

const SET: i64 = 1_795_219_200_000; // 2026-11-21

fn epoch(first: u64, boot: &str, since_s: u64, offset_ms: i64, state: ClockState) -> ClockEpoch {
    let uncertainty_ms = state.is_settled().then_some(100);
    ClockEpoch { first: Seq(first), boot: boot.into(), since: second(since_s), offset_ms, uncertainty_ms, state }
}

fn second(seconds: u64) -> Mono {
    Mono::from_millis(seconds * 1000)
}

/// A moment `seconds` after boot by a clock that was `offset_ms` ahead of it.
fn at(seconds: u64, offset_ms: i64) -> Stamp {
    Stamp { mono: second(seconds), wall: Wall(offset_ms + i64::try_from(seconds).unwrap() * 1000) }
}

#[test]
fn what_was_stored_before_the_clock_was_set_is_dated_by_the_clock_that_was_set() {
    use ClockState::{Synchronised, Unsynchronised};
    let timeline = Timeline::new(vec![epoch(1, "b", 10, 0, Unsynchronised), epoch(50, "b", 60, SET, Synchronised)]);
    let early = timeline.placed(Seq(20), at(30, 0)).unwrap();
    assert_eq!((early.wall, early.state, early.is_rebased), (Wall(SET + 30_000), Synchronised, true));
    // 30 s of an oscillator without correction at 100 ppm, and what the time server leaves open.
    assert_eq!(early.uncertainty_ms, Some(103));
    let late = timeline.placed(Seq(50), at(61, SET)).unwrap();
    assert_eq!((late.wall, late.uncertainty_ms, late.is_rebased), (Wall(SET + 61_000), Some(100), false));
    // Stored after the step and before it was noticed.
    assert_eq!(timeline.placed(Seq(49), at(59, SET)).unwrap().wall, Wall(SET + 59_000));
    assert_eq!(timeline.unset_from(), None);
    let wrong = [Correction { first: Seq(1), last: Seq(49), offset_ms: SET, stored_offset_ms: 0 }];
    assert_eq!(timeline.corrections(), wrong);
}

#[test]
fn a_boot_whose_clock_nobody_ever_set_keeps_its_times_and_says_that_nobody_knows() {
    use ClockState::{Synchronised, Unsynchronised};
    let timeline = Timeline::new(vec![
        epoch(1, "a", 10, 0, Unsynchronised),
        epoch(30, "b", 10, 1000, Unsynchronised),
        epoch(50, "b", 60, SET, Synchronised),
        epoch(70, "c", 5, 2000, Unsynchronised),
    ]);
    for (seq, stored) in [(5, at(12, 0)), (75, at(9, 2000))] {
        let placed = timeline.placed(Seq(seq), stored).unwrap();
        assert_eq!((placed.wall, placed.state), (stored.wall, Unsynchronised), "{seq}");
        assert_eq!((placed.uncertainty_ms, placed.is_rebased), (None, false), "{seq}");
    }
    assert_eq!(timeline.placed(Seq(31), at(11, 1000)).unwrap().wall, Wall(SET + 11_000));
    assert_eq!(
        timeline.unset_from(),
        Some(Seq(70)),
        "the present boot waits for a time server from its first event on"
    );
    assert_eq!(timeline.corrections().len(), 1);
}

#[test]
fn a_step_of_a_clock_that_was_set_dates_nothing_anew() {
    use ClockState::Synchronised;
    let timeline =
        Timeline::new(vec![epoch(1, "b", 10, SET, Synchronised), epoch(50, "b", 60, SET - 5000, Synchronised)]);
    assert_eq!(timeline.placed(Seq(20), at(30, SET)).unwrap().wall, Wall(SET + 30_000));
    assert_eq!(timeline.placed(Seq(60), at(70, SET - 5000)).unwrap().wall, Wall(SET + 65_000));
    assert_eq!(timeline.corrections(), Vec::<Correction>::new());
}

#[test]
fn several_steps_before_the_clock_was_set_are_all_dated_by_the_one_that_set_it() {
    use ClockState::{Hardware, Synchronised, Unknown, Unsynchronised};
    let timeline = Timeline::new(vec![
        epoch(1, "b", 1, 0, Unsynchronised),
        epoch(10, "b", 20, 99_000, Unknown),
        epoch(20, "b", 30, SET - 7000, Hardware),
        epoch(30, "b", 40, SET, Synchronised),
    ]);
    for (seq, stored) in [(5, at(2, 0)), (15, at(25, 99_000)), (25, at(35, SET - 7000))] {
        let seconds = i64::try_from(stored.mono.as_millis()).unwrap();
        assert_eq!(timeline.placed(Seq(seq), stored).unwrap().wall, Wall(SET + seconds), "{seq}");
    }
    let walls: Vec<i64> = timeline.corrections().iter().map(|correction| correction.stored_offset_ms).collect();
    assert_eq!(walls, [0, 99_000, SET - 7000]);
}

#[test]
fn what_is_older_than_the_first_clock_epoch_is_left_as_it_is() {
    let timeline = Timeline::new(vec![epoch(100, "b", 10, SET, ClockState::Synchronised)]);
    assert_eq!(timeline.placed(Seq(99), at(5, 0)), None);
    assert_eq!(Timeline::default().placed(Seq(1), at(5, 0)), None);
    assert_eq!(Timeline::default().unset_from(), None);
}

#[test]
fn a_clock_of_which_nobody_can_tell_is_waited_for_like_one_that_is_not_set() {
    use ClockState::{Synchronised, Unknown};
    let before = epoch(1, "a", 10, SET, Synchronised);
    let mut timeline = Timeline::new(vec![before, epoch(30, "b", 10, 1000, Unknown)]);
    assert_eq!(timeline.unset_from(), Some(Seq(30)));
    timeline.add(epoch(50, "b", 60, SET, Synchronised));
    assert_eq!(timeline.unset_from(), None);
}

/// A reading that was published at `at`, and arrived at `received`.
fn read(at: Stamp, received: Stamp, taken: Taken) -> Event {
    let reading = Reading {
        patient: None,
        device: "d".parse().unwrap(),
        source: "s".parse().unwrap(),
        vital: Vital::scalar(Metric::Spo2, Value::Absent(Absent::Silent)),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Real,
        taken,
        received,
    };
    Event { epoch: "k3f9".parse().unwrap(), seq: Seq(20), at, body: EventBody::Reading(reading) }
}

#[test]
fn a_reading_is_moved_as_far_as_its_clock_was_wrong_when_it_arrived() {
    use ClockState::{Synchronised, Unsynchronised};
    let timeline = Timeline::new(vec![epoch(1, "b", 10, 0, Unsynchronised), epoch(50, "b", 60, SET, Synchronised)]);
    let moment = |taken: &Event| match &taken.body {
        EventBody::Reading(reading) => (reading.received.wall, reading.taken.wall, reading.taken.uncertainty_ms),
        _ => panic!(),
    };
    let arrived = at(28, 0);
    // Two seconds in the pipeline.
    let found = moment(&timeline.rebased(read(at(30, 0), arrived, Taken::on_arrival(arrived))));
    assert_eq!(found, (Wall(SET + 28_000), Some(Wall(SET + 28_000)), Some(103)));
    // The clock was set to an hour later between its arrival and its publication, and to the right time after that.
    let stepped = at(30, 3_600_000);
    let found = moment(&timeline.rebased(read(stepped, arrived, Taken::on_arrival(arrived))));
    assert_eq!(found, (Wall(SET + 28_000), Some(Wall(SET + 28_000)), Some(103)));
    // A device's own time: what the mapping leaves open and what our clock does; and one that follows a time server.
    let mapped = Taken {
        wall: Some(Wall(20_000)),
        source: TimeSource::DeviceMapped,
        mapping_ms: Some(1100),
        ..Taken::on_arrival(arrived)
    };
    let found = moment(&timeline.rebased(read(at(30, 0), arrived, mapped.clone())));
    assert_eq!(found, (Wall(SET + 28_000), Some(Wall(SET + 20_000)), Some(1203)));
    let own = Taken { wall: Some(Wall(SET + 5)), source: TimeSource::DeviceSynced, uncertainty_ms: Some(7), ..mapped };
    let found = moment(&timeline.rebased(read(at(30, 0), arrived, own)));
    assert_eq!(found, (Wall(SET + 28_000), Some(Wall(SET + 5)), Some(7)));
}

#[test]
fn a_clock_with_a_battery_is_worth_no_waiting_and_is_corrected_all_the_same() {
    let mut timeline = Timeline::new(vec![epoch(1, "b", 10, SET - 3000, ClockState::Hardware)]);
    assert_eq!(timeline.unset_from(), None);
    assert_eq!(timeline.placed(Seq(2), at(11, SET - 3000)).unwrap().state.synced(), Some(false));
    timeline.add(epoch(40, "b", 60, SET, ClockState::Synchronised));
    assert_eq!(timeline.placed(Seq(2), at(11, SET - 3000)).unwrap().wall, Wall(SET + 11_000));
}

#[test]
fn clock_epochs_stay_bounded_and_a_number_has_one() {
    let mut timeline = Timeline::default();
    for first in 0..5000 {
        timeline.add(epoch(first, "b", first, 0, ClockState::Unsynchronised));
    }
    timeline.add(epoch(4999, "b", 4999, SET, ClockState::Synchronised));
    assert_eq!(timeline.epochs().len(), MAX_EPOCHS);
    assert_eq!(timeline.current().unwrap().offset_ms, SET);
    assert_eq!(timeline.placed(Seq(4000), at(4000, 0)).unwrap().wall, Wall(SET + 4_000_000));
}

/// A watch and the news that it tells, as words.
struct Bench {
    watch: ClockWatch,
    looked: Looked,
}

impl Bench {
    fn new(trust: Trust, looked: Option<bool>, now: Stamp) -> Self {
        let looked = Looked { synchronised: looked, has_hardware_clock: false };
        Self { watch: ClockWatch::begin("b", trust, looked, &Timeline::default(), now), looked }
    }

    fn second(&mut self, now: Stamp) -> Option<(What, ClockState)> {
        self.watch.on_second(now).map(|news| (news.what, news.epoch.state))
    }

    fn look(&mut self, synchronised: Option<bool>, now: Stamp) -> Option<(What, ClockState)> {
        self.looked.synchronised = synchronised;
        self.watch.on_look(self.looked, now).map(|news| (news.what, news.epoch.state))
    }
}

#[test]
fn more_than_250_ms_is_a_step_and_less_is_drift() {
    use ClockState::{Synchronised, Unsynchronised};
    let mut bench = Bench::new(Trust::Synchronised, Some(false), at(10, SET));
    assert_eq!(bench.watch.epoch().state, Unsynchronised);
    for (seconds, offset, expected) in [
        (11, SET + 250, None),
        (12, SET - 250, None),
        (13, SET + 251, Some((What::Stepped(251), Unsynchronised))),
        (14, SET + 251, None),
        (15, SET, Some((What::Stepped(-251), Unsynchronised))),
        (16, SET + 31_536_000_000, Some((What::Stepped(31_536_000_000), Unsynchronised))),
    ] {
        assert_eq!(bench.second(at(seconds, offset)), expected, "after {seconds} s");
    }
    let now = at(17, SET + 31_536_000_000);
    assert_eq!(bench.look(Some(true), now), Some((What::Told, Synchronised)));
    assert_eq!(bench.look(Some(true), now), None);
    assert_eq!(bench.watch.epoch().uncertainty_ms, Some(100));
}

#[test]
fn a_step_that_an_answer_finds_is_a_step_and_the_answer_counts_for_nothing() {
    let mut bench = Bench::new(Trust::Synchronised, Some(false), at(10, SET));
    let late = at(11, SET + 3_600_000);
    let stepped = (What::Stepped(3_600_000), ClockState::Unsynchronised);
    assert_eq!(bench.look(Some(true), late), Some(stepped), "it was asked before the step, or after it");
    assert_eq!(bench.second(late), None);
    assert_eq!(bench.look(Some(true), late), Some((What::Told, ClockState::Synchronised)));
}

#[test]
fn drift_and_the_loss_of_the_time_server_only_make_the_time_less_certain() {
    let mut bench = Bench::new(Trust::Synchronised, Some(true), at(10, SET));
    assert_eq!(bench.second(at(11, SET + 90)), None, "less than is worth a word");
    assert_eq!(bench.second(at(12, SET + 100)), Some((What::Drifted, ClockState::Synchronised)));
    assert_eq!(bench.watch.epoch().uncertainty_ms, Some(201));
    assert_eq!(bench.look(Some(false), at(20, SET)), None, "it was right a moment ago");
    // A day without a time server at 100 ppm.
    let day = at(86_410, SET);
    assert_eq!(bench.second(day), Some((What::Drifted, ClockState::Synchronised)));
    assert_eq!(bench.watch.epoch().uncertainty_ms, Some(200 + 8640));
}

#[test]
fn a_time_before_this_program_existed_is_not_a_set_clock_whoever_says_so() {
    for (trust, looked) in [(Trust::System, None), (Trust::Synchronised, Some(true)), (Trust::Synchronised, None)] {
        let bench = Bench::new(trust, looked, at(10, 0));
        assert_eq!(bench.watch.epoch().state, ClockState::Unsynchronised, "{trust} {looked:?}");
    }
    let states = [(Trust::System, Some(false)), (Trust::Synchronised, None)].map(|(trust, looked)| {
        let bench = Bench::new(trust, looked, at(10, SET));
        bench.watch.epoch().state
    });
    assert_eq!(states, [ClockState::Trusted, ClockState::Unknown]);
}

#[test]
fn a_run_of_a_boot_whose_clock_was_set_begins_with_that() {
    let looked = Looked { synchronised: Some(false), has_hardware_clock: false };
    let timeline = Timeline::new(vec![epoch(1, "b", 10, SET, ClockState::Synchronised)]);
    let begin = |boot, offset| {
        let watch = ClockWatch::begin(boot, Trust::Synchronised, looked, &timeline, at(10_010, offset));
        (watch.epoch().state, watch.epoch().uncertainty_ms)
    };
    assert_eq!(begin("b", SET), (ClockState::Synchronised, Some(100 + 1000)));
    assert_eq!(begin("b", SET + 60_000), (ClockState::Unsynchronised, None), "somebody has set it since");
    assert_eq!(begin("c", SET), (ClockState::Unsynchronised, None), "another boot");
}
