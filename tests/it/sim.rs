//! The daemon's core under a seed in virtual time: simulator, decoders, pipeline, alert engine, hub and store.
//!
//! Hours cost seconds because the clock is tokio's paused one; SQLite runs on real files behind `spawn_blocking`, which
//! holds virtual time while it works.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::{Engine, RuleSet};
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::config::{Config, Place};
use vitalbridge::event::{AlertChange, Event, EventBody, SystemKind};
use vitalbridge::hub::{Join, Scope};
use vitalbridge::ids::{AlertId, Epoch, PatientId, Seq};
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::Notifier;
use vitalbridge::outbox::{Delivery, Parcel};
use vitalbridge::pipeline::{CONTROL_QUEUE, Control, Parts, Pipeline, SOURCE_QUEUE};
use vitalbridge::sources;
use vitalbridge::sources::simulator::{Links, SimulatorConfig, demo_sources};
use vitalbridge::store::{self, Reader, StoreOptions};
use vitalbridge::tasks::{Role, Tasks};
use vitalbridge::vitals::{Absent, Metric, Mode};

/// A day on which nobody has planned anything.
const START: Stamp = Stamp { mono: Mono(1_000_000_000), wall: Wall(1_800_000_000_000) };

/// What a run published, and what it kept.
struct Outcome {
    published: Vec<String>,
    events: Vec<Arc<Event>>,
    stored: Vec<Event>,
    first_seq: Seq,
}

/// A folder in memory where there is one: the disk is not what is tested here.
fn folder() -> tempfile::TempDir {
    let builder = tempfile::Builder::new().prefix("vitalbridge-sim-").to_owned();
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

/// Runs the core for a span of virtual time.
async fn run(seed: u64, span: Duration) -> Outcome {
    println!("seed {seed}");
    let clock = Clock::tokio(START);
    let dir = folder();
    let epoch = Epoch::from_bits(seed);
    let options = StoreOptions { group_commit: Duration::from_secs(5), ..StoreOptions::default() };
    let opened = store::open(dir.path(), &options, epoch.clone(), "boot", clock.now()).unwrap();
    let (inputs, end_store) = (CancellationToken::new(), CancellationToken::new());
    let tasks = Tasks::new(inputs.clone());
    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (readings, source_queue) = mpsc::channel(SOURCE_QUEUE);
    let config = Config::demo(seed, &Place::default()).unwrap();
    let notifier = Notifier::new(&config.patients, opened.inboxes, seed);
    let demo = demo_sources(&SimulatorConfig { seed, links: Links::Direct }).unwrap();
    let pipeline = Pipeline::new(Parts {
        epoch,
        first: opened.first_seq,
        patients: config.patients,
        engine: Engine::new(RuleSet::built_in(), seed),
        expected: vitalbridge::daemon::expected(&demo),
        open_alerts: opened.open_alerts,
        limit_changes: opened.limit_changes,
        notifier,
        news2: config.news2,
        observations: opened.observations,
        store: opened.handle,
        metrics: Arc::new(Metrics::default()),
        clock: clock.clone(),
    });
    tasks.spawn("pipeline", Role::Vital, pipeline.run(source_queue, control_queue));
    let stores = Tasks::new(end_store.clone());
    let (writer, end) = (opened.writer, end_store.clone());
    stores.spawn("store", Role::Vital, async move { Ok(writer.run(end).await?) });

    let (reply, joined) = oneshot::channel();
    let everything = Join {
        listener: None,
        user: None,
        patterns: vec!["#".parse().unwrap()],
        filter: None,
        acks: false,
        scope: Scope::Everything,
        delivery: Delivery::All,
        since: Some(Seq::ZERO),
    };
    control.send(Control::Join(everything, reply)).await.unwrap();
    let joined = joined.await.unwrap().unwrap();
    let mut events = joined.recent;

    for source in demo {
        let (out, clock, stop) = (readings.clone(), clock.clone(), inputs.clone());
        tasks.spawn("source", Role::Helper, async move {
            Ok(sources::run(source, out, clock, Arc::default(), stop).await?)
        });
    }
    drop(readings);

    let mut parcels = Vec::new();
    let deadline = tokio::time::sleep(span);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            biased;
            () = joined.outbox.filled(&clock) => {}
            () = &mut deadline => break,
        }
        take(&joined.outbox, &mut parcels, &mut events);
    }
    inputs.cancel();
    drop(control);
    assert_eq!(tasks.drain(Duration::from_mins(1)).await, Vec::<String>::new());
    take(&joined.outbox, &mut parcels, &mut events);
    end_store.cancel();
    assert_eq!(stores.drain(Duration::from_mins(1)).await, Vec::<String>::new());

    let stored = whole_log(&opened.reader).await;
    let published = events.iter().map(|published| String::from_utf8(published.text.to_vec()).unwrap()).collect();
    let events = events.iter().map(|published| Arc::clone(&published.event)).collect();
    Outcome { published, events, stored, first_seq: opened.first_seq }
}

async fn whole_log(reader: &Reader) -> Vec<Event> {
    let mut stored = Vec::new();
    loop {
        let after = stored.last().map_or(Seq::ZERO, |event: &Event| event.seq);
        let more = reader.events(after, 10_000).await.unwrap();
        if more.is_empty() {
            return stored;
        }
        stored.extend(more);
    }
}

fn take(
    outbox: &vitalbridge::outbox::Outbox,
    parcels: &mut Vec<Parcel>,
    events: &mut Vec<Arc<vitalbridge::outbox::Published>>,
) {
    assert!(outbox.take(usize::MAX, parcels), "the listener was overrun");
    for parcel in parcels.drain(..) {
        match parcel {
            Parcel::Event(published) => events.push(published),
            // What it says is said by the events; that it comes is tested over sockets.
            Parcel::Check(_) | Parcel::Moment(_) => {}
            Parcel::Wave(wave) => panic!("nobody asked for {}", wave.channel),
            Parcel::Gap { from, to, .. } => panic!("readings {from} to {to} were skipped"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_events() {
    let span = Duration::from_mins(20);
    let (first, second, other) = (run(7, span).await, run(7, span).await, run(8, span).await);
    assert!(first.published.len() > 5000, "only {} events", first.published.len());
    for (left, right) in first.published.iter().zip(&second.published) {
        assert_eq!(left, right);
    }
    assert_eq!(first.published.len(), second.published.len());
    assert_ne!(first.published, other.published);
}

#[tokio::test(start_paused = true)]
async fn two_hours_are_numbered_without_a_gap_and_kept_as_they_were_shown() {
    let outcome = run(1, Duration::from_hours(2)).await;
    let mut shown: Vec<&Event> = outcome.events.iter().map(AsRef::as_ref).collect();
    // Alerts overtake readings on their way to a listener; the numbers say what came first.
    shown.sort_by_key(|event| event.seq);
    let numbers: Vec<u64> = shown.iter().map(|event| event.seq.0).collect();
    let expected: Vec<u64> = (outcome.first_seq.0..).take(numbers.len()).collect();
    assert_eq!(numbers, expected);
    assert_eq!(outcome.stored.len(), shown.len());
    for (shown, stored) in shown.iter().zip(&outcome.stored) {
        assert_eq!(*shown, stored);
    }
    assert!(matches!(&shown[0].body, EventBody::System(system) if system.kind == SystemKind::Started));
    assert!(matches!(&shown[shown.len() - 1].body, EventBody::System(system) if system.kind == SystemKind::Stopping));
}

#[tokio::test(start_paused = true)]
async fn the_changes_of_an_alert_arrive_with_rising_numbers_and_nothing_comes_after_its_end() {
    let outcome = run(2, Duration::from_mins(40)).await;
    let mut last: BTreeMap<AlertId, (Seq, AlertChange)> = BTreeMap::new();
    for event in &outcome.events {
        let EventBody::Alert(alert) = &event.body else { continue };
        let before = last.insert(alert.alert, (event.seq, alert.change));
        assert_eq!(before.is_none(), alert.change == AlertChange::Start, "{event:?}");
        assert!(
            before.is_none_or(|(seq, change)| seq < event.seq && change != AlertChange::End),
            "{before:?}: {event:?}"
        );
    }
    assert!(
        last.values().filter(|(_, change)| *change == AlertChange::End).count() > 3,
        "too little to tell: {last:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_script_does_to_the_patients_is_alarmed_and_nothing_is_invented() {
    let outcome = run(3, Duration::from_mins(30)).await;
    let mut started: BTreeMap<String, BTreeSet<PatientId>> = BTreeMap::new();
    let mut absent = BTreeSet::new();
    let mut patients = BTreeSet::new();
    for event in &outcome.events {
        match &event.body {
            EventBody::Reading(reading) => {
                assert_eq!(reading.mode, Mode::Demo);
                patients.extend(reading.patient.clone());
                match reading.vital.leading().valid() {
                    Some(number) => assert!(!number.is_zero(), "a zero is no value: {reading:?}"),
                    None if reading.vital.metric() == Metric::Spo2 => {
                        absent.extend(reading.vital.leading().absent());
                    }
                    None => {}
                }
            }
            EventBody::Alert(alert) => {
                assert_eq!(alert.mode, Mode::Demo, "{alert:?}");
                if alert.change == AlertChange::Start {
                    started.entry(alert.rule.to_string()).or_default().extend(alert.patient.clone());
                }
            }
            _ => {}
        }
    }
    assert_eq!(patients.len(), 8, "{patients:?}");
    assert!(absent.contains(&Absent::SensorOff), "{absent:?}");
    for rule in ["spo2_low", "no_signal"] {
        assert!(started.contains_key(rule), "no {rule} in 30 minutes of demo: {started:?}");
    }
}
