//! What keeps an alert and what ends it, through the pipeline as a configuration builds it: sensors that people share,
//! what is no longer configured at the next start, and alerts that reach nobody.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::escalation::Route;
use vitalbridge::alerts::{BridgeCondition, Engine, RuleSet};
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::config::{Config, Place};
use vitalbridge::event::{LinkState, Priority, SourceEvent, SourceMessage};
use vitalbridge::fallback::Wanted;
use vitalbridge::hub::{Join, Joined, Scope};
use vitalbridge::ids::{Epoch, PatientId, Seq};
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::Notifier;
use vitalbridge::outbox::{Delivery, Parcel};
use vitalbridge::pipeline::{Annunciation, Control, Parts, Pipeline};
use vitalbridge::store::{self, StoreError, StoreOptions};
use vitalbridge::timeline::{ClockEpoch, ClockNews, ClockState, What, offset_ms};
use vitalbridge::vitals::{Absent, Mode, Pressure, Quality, Reading, Taken, Value, Vital};

const START: i64 = 1_795_219_200_000;

/// Two users of one cuff.
const SHARED: &str = "[[patient]]\nid = 'P-1'\n[[patient]]\nid = 'P-2'\n\
    [[source]]\nid = 'cuff'\nkind = 'ble'\nname = 'C'\nsensor = 'blood_pressure'\nusers = { 1 = 'P-1', 2 = 'P-2' }\n";

/// A pipeline as this configuration builds it, and a clock that the test moves.
struct Bridge {
    pipeline: Pipeline,
    joined: Joined,
    stop: CancellationToken,
    writer: JoinSet<Result<(), StoreError>>,
    now: Stamp,
}

impl Bridge {
    fn start(dir: &Path, run: u64, config: &str) -> Self {
        let wall = START + i64::try_from(run).unwrap() * 3_600_000;
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(wall) };
        let config = Config::parse(config, dir, &Place::default()).unwrap();
        let epoch = Epoch::from_bits(run);
        let opened = store::open(dir, &StoreOptions::default(), epoch.clone(), "boot", now).unwrap();
        let (stop, writer) = (CancellationToken::new(), opened.writer);
        let stopped = stop.clone();
        let mut pipeline = Pipeline::new(Parts {
            epoch,
            first: opened.first_seq,
            notifier: Notifier::new(&config.patients, opened.inboxes, run),
            expected: vitalbridge::daemon::expected(&config.sources),
            patients: config.patients,
            limit_changes: opened.limit_changes,
            engine: Engine::new(RuleSet::built_in(), run),
            open_alerts: opened.open_alerts,
            news2: config.news2,
            observations: opened.observations,
            store: opened.handle,
            metrics: Arc::new(Metrics::default()),
            clock: Clock::tokio(now),
        });
        let (reply, mut answer) = oneshot::channel();
        let join = Join {
            listener: None,
            user: None,
            patterns: vec!["#".parse().unwrap()],
            filter: None,
            acks: false,
            scope: Scope::Everything,
            delivery: Delivery::All,
            since: Some(Seq::ZERO),
        };
        pipeline.on_control(Control::Join(join, reply), now);
        let joined = answer.try_recv().unwrap().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(stopped));
        Self { pipeline, joined, stop, writer: tasks, now }
    }

    /// Everything that was published since, in the order of its numbers.
    fn told(&mut self) -> Vec<Json> {
        let mut parcels = Vec::new();
        self.joined.outbox.take(usize::MAX, &mut parcels);
        let recent = std::mem::take(&mut self.joined.recent);
        let events = parcels.into_iter().filter_map(|parcel| match parcel {
            Parcel::Event(published) => Some(published),
            _ => None,
        });
        let read = |text: &[u8]| serde_json::from_slice(text).unwrap();
        let mut told: Vec<Json> = recent.into_iter().chain(events).map(|published| read(&published.text)).collect();
        told.sort_by_key(|event| event["seq"].as_u64());
        told
    }

    /// `change rule patient reason` of each alert that changed since.
    fn alerts(&mut self) -> Vec<String> {
        let told = self.told();
        let alerts = told.iter().filter(|event| event["type"] == "alert").map(|event| {
            let text = |name: &str| event["data"][name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", text("change"), text("rule"), text("patient_id"), text("end_reason"))
        });
        alerts.collect()
    }

    fn pass(&mut self, seconds: u64) {
        let target = self.now.mono + std::time::Duration::from_secs(seconds);
        while self.pipeline.next_deadline() <= target {
            self.move_to(self.pipeline.next_deadline().max(self.now.mono));
            self.pipeline.on_deadline(self.now);
        }
        self.move_to(target);
    }

    fn move_to(&mut self, mono: Mono) {
        self.now.wall.0 += i64::try_from(mono.since(self.now.mono).as_millis()).unwrap();
        self.now.mono = mono;
    }

    /// More is known of the clock, which may have been stepped before.
    fn tell_clock(&mut self, state: ClockState, what: What) {
        let (since, offset_ms) = (self.now.mono, offset_ms(self.now));
        let uncertainty_ms = state.is_settled().then_some(100);
        let epoch = ClockEpoch { first: Seq::ZERO, boot: "boot".into(), since, offset_ms, uncertainty_ms, state };
        self.pipeline.on_control(Control::Clock(ClockNews { epoch, what }), self.now);
    }

    /// What somebody is shown who comes now.
    fn present(&mut self) -> Vec<Json> {
        let (reply, mut answer) = oneshot::channel();
        self.pipeline.on_control(Control::Present(Scope::Everything, reply), self.now);
        let present = answer.try_recv().unwrap();
        present.iter().map(|published| serde_json::from_slice(&published.text).unwrap()).collect()
    }

    fn measure(&mut self, device: &str, patient: &str, systolic: &str) {
        let number = |text: &str| Value::Valid(text.parse().unwrap());
        let mean = Value::Absent(Absent::NotMeasured);
        let reading = Reading {
            patient: Some(patient.parse().unwrap()),
            device: device.parse().unwrap(),
            source: device.parse().unwrap(),
            vital: Vital::BloodPressure(Pressure { systolic: number(systolic), diastolic: number("80"), mean }),
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Real,
            taken: Taken::on_arrival(self.now),
            received: self.now,
        };
        self.pipeline.on_source_message(SourceMessage::Reading(reading), self.now);
    }

    fn link(&mut self, device: &str, patient: Option<&str>, link: LinkState) {
        let source = SourceEvent {
            source: device.parse().unwrap(),
            device: device.parse().unwrap(),
            patient: patient.map(|patient| patient.parse::<PatientId>().unwrap()),
            link,
            status: std::collections::BTreeSet::new(),
            reason: None,
            mode: Mode::Real,
        };
        self.pipeline.on_source_message(SourceMessage::Link(source), self.now);
    }

    async fn stop(self) {
        let Self { pipeline, stop, mut writer, .. } = self;
        drop(pipeline);
        stop.cancel();
        while let Some(done) = writer.join_next().await {
            done.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_when_the_clock_is_set_says_the_times_that_hold_from_then_on() {
    const DAY_MS: i64 = 86_400_000;
    let wall = |text: &Json| Wall::parse(text.as_str().unwrap_or_default()).unwrap();
    for by in [DAY_MS, -DAY_MS] {
        let dir = tempfile::tempdir().unwrap();
        let mut bridge = Bridge::start(dir.path(), 1, SHARED);
        bridge.tell_clock(ClockState::Unsynchronised, What::Told);
        bridge.link("cuff", None, LinkState::Live);
        bridge.measure("cuff", "P-1", "190");
        let begun = bridge.now.wall;
        bridge.told();
        bridge.pass(10);
        bridge.now.wall.0 += by;
        bridge.tell_clock(ClockState::Synchronised, What::Stepped(by));
        let holds = Wall(begun.0 + by);
        let present = bridge.present();
        let of = |kind: &str| -> Vec<Wall> {
            let events = present.iter().filter(|event| event["type"] == kind && event["data"]["patient_id"] == "P-1");
            events.map(|event| wall(&event["timestamp"])).collect()
        };
        assert!(!of("health_update").is_empty() && of("health_update").iter().all(|at| *at == holds), "{present:#?}");
        assert!(!of("alert").is_empty() && of("alert").iter().all(|at| *at == holds), "{present:#?}");
        // What becomes of the alert from here on began when it began.
        bridge.told();
        bridge.measure("cuff", "P-1", "120");
        bridge.pass(60);
        let told = bridge.told();
        let changed: Vec<&Json> = told.iter().filter(|event| event["data"]["rule"] == "systolic").collect();
        assert!(!changed.is_empty(), "{told:#?}");
        assert!(changed.iter().all(|event| wall(&event["data"]["onset"]) == holds), "{changed:#?}");
        bridge.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_of_one_user_of_a_cuff_stays_until_he_is_measured_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(dir.path(), 1, SHARED);
    bridge.link("cuff", None, LinkState::Opening);
    bridge.link("cuff", None, LinkState::Live);
    bridge.measure("cuff", "P-1", "190");
    assert_eq!(bridge.alerts(), ["start systolic P-1 -"]);
    bridge.link("cuff", None, LinkState::Waiting);
    bridge.pass(20);
    bridge.link("cuff", None, LinkState::Live);
    bridge.measure("cuff", "P-2", "120");
    bridge.link("cuff", None, LinkState::Waiting);
    bridge.pass(3600);
    assert_eq!(bridge.alerts(), Vec::<String>::new());
    bridge.stop().await;
    // So it does over a restart.
    let mut bridge = Bridge::start(dir.path(), 2, SHARED);
    bridge.link("cuff", None, LinkState::Waiting);
    bridge.measure("cuff", "P-2", "121");
    bridge.pass(3600);
    assert_eq!(bridge.alerts(), ["update systolic P-1 -"]);
    bridge.measure("cuff", "P-1", "130");
    bridge.pass(10);
    assert_eq!(bridge.alerts(), ["update systolic P-1 -", "latch systolic P-1 -"]);
    bridge.stop().await;
}

#[tokio::test(start_paused = true)]
async fn alerts_of_patients_and_devices_that_left_the_configuration_end_at_the_start() {
    const BOTH: &str = "[[patient]]\nid = 'P-1'\n\
        [[source]]\nid = 'ox'\nkind = 'ble'\nname = 'O'\nsensor = 'pulse_oximeter'\npatient = 'P-1'\n\
        [[source]]\nid = 'cuff'\nkind = 'ble'\nname = 'C'\nsensor = 'blood_pressure'\npatient = 'P-1'\n";
    let patient = "[[patient]]\nid = 'P-1'\n[[patient]]\nid = 'P-2'\n";
    let before = BOTH.replace("[[patient]]\nid = 'P-1'\n", patient)
        + "[[source]]\nid = 'other'\nkind = 'ble'\nname = 'D'\nsensor = 'blood_pressure'\npatient = 'P-2'\n";
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(dir.path(), 1, &before);
    bridge.link("ox", Some("P-1"), LinkState::Lost);
    bridge.measure("cuff", "P-1", "190");
    bridge.measure("other", "P-2", "190");
    bridge.pass(40);
    let lost = bridge.alerts();
    assert!(lost.contains(&"start device_lost P-1 -".to_owned()), "{lost:?}");
    bridge.stop().await;

    // The second patient has left, and the first one's oximeter is another one.
    let after = BOTH.replace("id = 'ox'", "id = 'ox-2'");
    let mut bridge = Bridge::start(dir.path(), 2, &after);
    let told = bridge.told();
    let change = |rule: &str, patient: &str| {
        let mut of =
            told.iter().filter(|event| event["data"]["rule"] == rule && event["data"]["patient_id"] == patient);
        let last = of.next_back().map(|event| event["data"].clone()).unwrap_or_default();
        (last["change"].as_str().unwrap_or("-").to_owned(), last["end_reason"].as_str().unwrap_or("-").to_owned())
    };
    let words = |change: &str, reason: &str| (change.to_owned(), reason.to_owned());
    assert_eq!(change("systolic", "P-2"), words("end", "unassigned"), "{told:#?}");
    assert_eq!(change("device_lost", "P-1"), words("end", "unassigned"), "{told:#?}");
    assert_eq!(change("systolic", "P-1"), words("update", "-"), "{told:#?}");
    let said: Vec<&str> = told.iter().filter_map(|event| event["data"]["message"].as_str()).collect();
    for why in ["the patient is not in the configuration any more", "no source names ox for this patient any more"] {
        assert!(said.iter().any(|message| message.ends_with(why)), "{why}: {said:#?}");
    }
    bridge.stop().await;
    // What has ended is over.
    let mut bridge = Bridge::start(dir.path(), 3, &after);
    let alerts = bridge.alerts();
    assert!(!alerts.iter().any(|alert| alert.contains("device_lost") || alert.contains("P-2")), "{alerts:?}");
    bridge.stop().await;
}

/// One cuff, whose alert nobody sees.
const ALONE: &str = "[[patient]]\nid = 'P-1'\n\
    [[source]]\nid = 'cuff'\nkind = 'ble'\nname = 'C'\nsensor = 'blood_pressure'\npatient = 'P-1'\n";

fn route(after_s: u64, users: &[&str]) -> Route {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    let (roles, fallback) = (Vec::new(), false);
    Route { after: std::time::Duration::from_secs(after_s), priority: Priority::Low, users, roles, fallback }
}

/// Result and reason of each row about escalation.
fn escalations(told: &[Json]) -> Vec<String> {
    let rows = told.iter().filter(|event| event["data"]["action"] == "alert_escalated");
    let text = |event: &Json, name: &str| event["data"][name].as_str().unwrap_or("-").to_owned();
    rows.map(|event| format!("{}: {}", text(event, "result"), text(event, "reason"))).collect()
}

#[tokio::test(start_paused = true)]
async fn an_escalation_that_reaches_nobody_goes_further_at_once_and_in_the_end_to_the_fallback() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(dir.path(), 1, ALONE);
    let (fallback, wanted) = watch::channel(Wanted::default());
    let routes = vec![route(60, &["nobody"]), route(600, &["neither"])];
    let settings = Annunciation { confirms: false, routes, fallback: Some(fallback) };
    bridge.pipeline.annunciate(settings, bridge.now);
    bridge.measure("cuff", "P-1", "190");
    bridge.pass(59);
    assert_eq!((escalations(&bridge.told()), wanted.borrow().clone()), (vec![], Wanted::Off));
    bridge.pass(2);
    let told = bridge.told();
    assert_eq!(
        escalations(&told),
        [
            "failed: not acknowledged for 60 s: to user:nobody: reaches nobody",
            "failed: the route before reached nobody: to user:neither: reaches nobody",
            "done: no route reaches anybody: to fallback",
        ]
    );
    assert!(matches!(&*wanted.borrow(), Wanted::On(call) if call.count == 1), "{wanted:?}");
    let alert = told.iter().rev().find(|event| event["type"] == "alert").unwrap();
    assert_eq!(alert["data"]["escalated"], serde_json::json!([1, 2]));
    bridge.pass(3600);
    assert_eq!(escalations(&bridge.told()), Vec::<String>::new(), "once");
    bridge.stop().await;
    // A restart goes on with it.
    let mut bridge = Bridge::start(dir.path(), 2, ALONE);
    let (fallback, wanted) = watch::channel(Wanted::default());
    let routes = vec![route(60, &["nobody"]), route(600, &["neither"])];
    bridge.pipeline.annunciate(Annunciation { confirms: false, routes, fallback: Some(fallback) }, bridge.now);
    bridge.pass(1);
    assert!(matches!(&*wanted.borrow(), Wanted::On(_)), "{wanted:?}");
    bridge.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_of_low_priority_that_nobody_shows_calls_the_fallback_after_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut bridge = Bridge::start(dir.path(), 1, ALONE);
    let (fallback, wanted) = watch::channel(Wanted::default());
    let settings = Annunciation { confirms: true, routes: Vec::new(), fallback: Some(fallback) };
    bridge.pipeline.annunciate(settings, bridge.now);
    bridge.pipeline.on_control(Control::Condition(BridgeCondition::DiskFull, true), bridge.now);
    bridge.pass(59);
    assert_eq!(*wanted.borrow(), Wanted::Off);
    bridge.pass(2);
    assert!(matches!(&*wanted.borrow(), Wanted::On(call) if call.priority == Priority::Low), "{wanted:?}");
    bridge.stop().await;
}
