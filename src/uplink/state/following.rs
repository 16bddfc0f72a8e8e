//! What the state makes of the log as it grows, of an earlier run's alerts, and of a clock that is set.

use serde_json::Value as Json;

use super::*;
use crate::clock::Wall;
use crate::event::{Activation, AlertChange, AlertKind, Presence, Priority, Signal, SignalPresence, SystemEvent};
use crate::ids::{AlertId, Epoch};
use crate::store::{Opened, StoreOptions, open};
use crate::timeline::{ClockEpoch, ClockState};
use crate::uplink::birth::About;
use crate::vitals::Mode;

const SET: i64 = 1_795_219_200_000; // 2026-11-21

/// Ten seconds after a boot at which nobody has set the clock.
const UNSET: Stamp = Stamp { mono: Mono::from_millis(10_000), wall: Wall(10_000) };

/// An hour after boot.
const NOW: Stamp = Stamp { mono: Mono::from_millis(3_600_000), wall: Wall(SET + 3_600_000) };

/// A change of the alert with this number.
fn alert(epoch: &Epoch, seq: u64, number: u128, change: AlertChange, at: Stamp) -> Event {
    let signal = Signal { activation: Activation::On, presence: SignalPresence::On };
    let presence = if change == AlertChange::End { Presence::False } else { Presence::True };
    let alert = AlertEvent {
        alert: AlertId(uuid::Uuid::from_u128(number)),
        change,
        patient: Some("P-1".parse().unwrap()),
        device: None,
        rule: "hr_high".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority: Priority::High,
        metric: None,
        value: None,
        limit: String::new(),
        message: String::new(),
        presence,
        audio: signal,
        visual: signal,
        onset: at.wall,
        announced: at.wall,
        paused_until: None,
        hidden_by: None,
        recurrence: 0,
        by: None,
        end_reason: None,
        escalated: 0,
        mode: Mode::Test,
    };
    Event { epoch: epoch.clone(), seq: Seq(seq), at, body: EventBody::Alert(alert) }
}

/// A state over a log up to here, connected.
async fn begun(config: &UplinkConfig, reader: &Reader, handle: &StoreHandle, durable: Seq) -> State {
    let known = Arc::clone(&handle.timeline().borrow());
    let kept = Kept::of(&reader.cursors().await.unwrap());
    let mut state = State::begin(config, reader, &known, kept, durable).await.unwrap();
    state.retained.on_connected(NOW.mono);
    state
}

/// The same over an empty log.
async fn connected(config: &UplinkConfig, opened: &Opened) -> State {
    begun(config, &opened.reader, &opened.handle, Seq::ZERO).await
}

fn look(state: &mut State, config: &UplinkConfig, opened: &Opened, look: Look) {
    state.on_look(config, &opened.handle, look, NOW);
}

fn opened(folder: &std::path::Path, config: &UplinkConfig) -> Opened {
    open(folder, &StoreOptions::default(), config.epoch.clone(), "boot", NOW).unwrap()
}

/// The bodies of what is to be said now; the broker takes all of it.
fn said(state: &mut State) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(due) = state.retained.next((0, 0), NOW.mono) {
        state.retained.on_answer(due.ticket, true);
        bodies.push(due.body);
    }
    bodies
}

#[tokio::test]
async fn what_lies_before_a_row_that_cannot_be_read_is_looked_at() {
    let (folder, config) = (tempfile::tempdir().unwrap(), UplinkConfig::for_tests(About::default()));
    let opened = opened(folder.path(), &config);
    let mut state = connected(&config, &opened).await;
    let bad = |seq| Err(StoreError::Row { path: "vitals.db".into(), seq: Seq(seq), what: "damaged".to_owned() });
    look(&mut state, &config, &opened, (Seq(9), bad(5)));
    assert_eq!((state.looked, state.bad_row), (Seq::ZERO, Some(Seq(5))));
    let start = alert(&config.epoch, 3, 1, AlertChange::Start, NOW);
    look(&mut state, &config, &opened, (Seq(4), Ok(vec![start])));
    assert_eq!((state.looked, state.bad_row), (Seq(5), None), "the row itself is passed");
    assert_eq!(said(&mut state).len(), 1);
    look(&mut state, &config, &opened, (Seq(9), bad(6)));
    assert_eq!(state.looked, Seq(6), "nothing is before it");
}

#[tokio::test]
async fn an_end_of_an_earlier_boot_is_as_old_as_the_time_of_day_says_and_removed_at_once_if_that_is_unknown() {
    let other: Epoch = "k3f8".parse().unwrap();
    let hour = 3_600_000;
    // The time since boot says nothing: it was another boot.
    for (wall, is_removed) in [(NOW.wall.0 - hour, true), (NOW.wall.0 + hour, true), (NOW.wall.0 - 1000, false)] {
        for mono in [Mono::from_millis(1000), Mono::from_millis(9_000_000)] {
            let (folder, config) = (tempfile::tempdir().unwrap(), UplinkConfig::for_tests(About::default()));
            let opened = opened(folder.path(), &config);
            let mut state = connected(&config, &opened).await;
            let end = alert(&other, 1, 1, AlertChange::End, Stamp { mono, wall: Wall(wall) });
            look(&mut state, &config, &opened, (Seq(1), Ok(vec![end])));
            let bodies = said(&mut state);
            assert_eq!(bodies.iter().map(String::is_empty).collect::<Vec<_>>(), [is_removed], "{wall} {mono:?}");
        }
    }
}

#[tokio::test]
async fn the_log_is_looked_through_again_for_ends_that_found_no_room() {
    let (folder, config) = (tempfile::tempdir().unwrap(), UplinkConfig::for_tests(About::default()));
    let opened = opened(folder.path(), &config);
    let mut state = connected(&config, &opened).await;
    let long_ago = Duration::from_hours(2);
    let mut last = Seq::ZERO;
    while last == Seq::ZERO || state.retained.holds(&format!("a-{last}")) {
        last = last.next();
        state.retained.ended(format!("a-{last}"), "end".to_owned(), last, long_ago, NOW);
    }
    (state.looked, state.look_not_before) = (last, NOW.mono);
    said(&mut state);
    state.turn(&config, None, &opened.reader, &opened.handle, (0, 0), NOW);
    assert_eq!(state.looked, Seq(last.0 - 1));
}

#[tokio::test]
async fn home_assistant_is_told_again_when_it_starts_and_not_because_the_broker_remembers_a_start() {
    let (folder, config) = (tempfile::tempdir().unwrap(), UplinkConfig::for_tests(About::default()));
    let opened = opened(folder.path(), &config);
    let mut state = connected(&config, &opened).await;
    state.retained.document("doc", "text");
    assert_eq!(said(&mut state), ["text"]);
    let word = |payload: &'static [u8], is_retained| Incoming {
        topic: "homeassistant/status".to_owned(),
        payload: bytes::Bytes::from_static(payload),
        is_retained,
    };
    state.on_home_assistant(&word(STARTED, true));
    state.on_home_assistant(&word(b"offline", false));
    assert_eq!(said(&mut state), Vec::<String>::new());
    state.on_home_assistant(&word(STARTED, false));
    assert_eq!(said(&mut state), ["text"]);
}

#[tokio::test]
async fn a_configuration_that_was_read_again_makes_the_birth_old_and_that_of_an_earlier_run_does_not() {
    let (folder, config) = (tempfile::tempdir().unwrap(), UplinkConfig::for_tests(About::default()));
    let opened = opened(folder.path(), &config);
    for (epoch, kind, is_old) in [
        (config.epoch.clone(), SystemKind::ConfigReloaded, true),
        (config.epoch.clone(), SystemKind::ConfigRefused, true),
        (config.epoch.clone(), SystemKind::Started, false),
        ("k3f8".parse().unwrap(), SystemKind::ConfigReloaded, false),
    ] {
        let mut state = connected(&config, &opened).await;
        let system = SystemEvent { kind, message: String::new(), first: None, last: None };
        let event = Event { epoch, seq: Seq(1), at: NOW, body: EventBody::System(system) };
        look(&mut state, &config, &opened, (Seq(1), Ok(vec![event])));
        assert_eq!(state.is_birth_old, is_old, "{kind:?}");
    }
}

#[tokio::test]
async fn an_alert_that_stood_before_this_run_stands_on_its_topic_and_moves_with_the_clock() {
    const UNSET: Stamp = Stamp { mono: Mono::from_millis(10_000), wall: Wall(10_000) };
    let (folder, config) = (tempfile::tempdir().unwrap(), UplinkConfig::for_tests(About::default()));
    let Opened { writer, handle, reader, .. } = opened(folder.path(), &config);
    let begin = |first, offset_ms, state| {
        let (since, uncertainty_ms) = (UNSET.mono, Some(100));
        let epoch = ClockEpoch { first: Seq(first), boot: "boot".into(), since, offset_ms, uncertainty_ms, state };
        handle.begin_clock_epoch(epoch);
    };
    begin(1, 0, ClockState::Unsynchronised);
    let start = alert(&config.epoch, 1, 1, AlertChange::Start, UNSET);
    handle.try_append(Arc::new(start.clone())).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    writer.run(stop).await.unwrap();
    let mut state = begun(&config, &reader, &handle, Seq(1)).await;
    let due = state.retained.next((0, 0), NOW.mono).unwrap();
    let EventBody::Alert(stands) = &start.body else { panic!() };
    assert_eq!(due.topic, topic_of(&config, stands));
    state.retained.on_answer(due.ticket, true);

    begin(2, SET, ClockState::Synchronised);
    let known = Arc::clone(&handle.timeline().borrow());
    state.on_clock(&config, &reader, &known).await;
    let bodies = said(&mut state);
    assert_eq!(bodies.len(), 1);
    let told: Json = serde_json::from_str(&bodies[0]).unwrap();
    assert_eq!(told["data"]["onset"], Json::from(Wall(SET + 10_000).to_string()));
}

#[tokio::test]
async fn an_alert_that_was_being_looked_up_when_the_clock_was_set_stands_with_the_time_that_holds_now() {
    let folder = tempfile::tempdir().unwrap();
    let config = UplinkConfig::for_tests(About::default());
    let opened = open(folder.path(), &StoreOptions::default(), config.epoch.clone(), "boot", UNSET).unwrap();
    let begin = |first, offset_ms, state| {
        let (since, uncertainty_ms) = (UNSET.mono, Some(100));
        let epoch = ClockEpoch { first: Seq(first), boot: "boot".into(), since, offset_ms, uncertainty_ms, state };
        opened.handle.begin_clock_epoch(epoch);
    };
    begin(1, 0, ClockState::Unsynchronised);
    let known = Arc::clone(&opened.handle.timeline().borrow());
    let mut state = State::begin(&config, &opened.reader, &known, Kept::of(&BTreeMap::new()), Seq::ZERO).await.unwrap();
    // The look has read the alert with the time that it had; then a time server answers.
    let look = (Seq(1), Ok(vec![known.rebased(alert(&config.epoch, 1, 1, AlertChange::Start, UNSET))]));
    begin(2, SET, ClockState::Synchronised);
    state.on_look(&config, &opened.handle, look, UNSET);
    state.retained.on_connected(UNSET.mono);
    let due = state.retained.next((0, 0), UNSET.mono).unwrap();
    let told: Json = serde_json::from_str(&due.body).unwrap();
    let expected = Wall(SET + 10_000).to_string();
    assert_eq!((&told["timestamp"], &told["data"]["onset"]), (&Json::from(&*expected), &Json::from(&*expected)));
}
