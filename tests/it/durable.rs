//! A disk that stands still until the store's queue is full: what is refused, what is answered, and what a restart knows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::{Engine, RuleSet};
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::command::{Command, Members};
use vitalbridge::derive::live::News2Settings;
use vitalbridge::event::{AlertEvent, LimitChange, SourceMessage, SystemEvent, SystemKind};
use vitalbridge::hub::Scope;
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::Notifier;
use vitalbridge::patient::Patient;
use vitalbridge::pipeline::{CommandWish, Control, Done, Parts, Pipeline, Refusal};
use vitalbridge::store::{
    self, KeptObservation, PLACES_A_COMMAND, QUEUE, RESERVED_FOR_ALERTS, StoreError, StoreHandle, StoreOptions, Writer,
};
use vitalbridge::vitals::{Absent, Metric, Mode, Pressure, Quality, Reading, Taken, Value, Vital};

const START: i64 = 1_795_219_200_000;

/// A bridge whose disk stands still until it is told otherwise.
struct Stalled {
    pipeline: Pipeline,
    handle: StoreHandle,
    writer: Option<Writer>,
    writing: JoinSet<Result<(), StoreError>>,
    stop: CancellationToken,
    now: Stamp,
    /// What the store knew at the start.
    knew: Knew,
}

/// What a start finds of the runs before.
struct Knew {
    alerts: Vec<AlertEvent>,
    limits: Vec<LimitChange>,
    observations: Vec<KeptObservation>,
}

impl Knew {
    fn rules(&self) -> Vec<&str> {
        self.alerts.iter().map(|alert| alert.rule.as_str()).collect()
    }
}

fn set_limit(below: u32) -> Json {
    json!({"name": "limits.set", "patient_id": "P-1", "rule": "spo2_low", "below": below,
           "reason": "COPD", "expires": "2026-12-10T08:00:00Z"})
}

impl Stalled {
    fn start(dir: &Path, run: u64) -> Self {
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(START) };
        let epoch = Epoch::from_bits(run);
        let opened = store::open(dir, &StoreOptions::default(), epoch.clone(), "boot", now).unwrap();
        let patients = vec![Patient {
            id: "P-1".parse().unwrap(),
            name: "P-1".to_owned(),
            bed: "1".to_owned(),
            ward: "icu".parse().unwrap(),
            mode: Mode::Test,
        }];
        let knew = Knew {
            alerts: opened.open_alerts.clone(),
            limits: opened.limit_changes.changes.clone(),
            observations: opened.observations.clone(),
        };
        let pipeline = Pipeline::new(Parts {
            epoch,
            first: opened.first_seq,
            notifier: Notifier::new(&patients, opened.inboxes, run),
            patients,
            limit_changes: opened.limit_changes,
            engine: Engine::new(RuleSet::built_in(), run),
            expected: Vec::new(),
            open_alerts: opened.open_alerts,
            news2: BTreeMap::from([("P-1".parse().unwrap(), News2Settings::default())]),
            observations: opened.observations,
            store: opened.handle.clone(),
            metrics: Arc::new(Metrics::default()),
            clock: Clock::tokio(now),
        });
        let (handle, writer) = (opened.handle, Some(opened.writer));
        Self { pipeline, handle, writer, writing: JoinSet::new(), stop: CancellationToken::new(), now, knew }
    }

    fn ask(&mut self, members: &Json) -> Result<Done, Refusal> {
        let command = Command::read(Members(members)).unwrap();
        let (reply, mut answer) = oneshot::channel();
        let (by, scope) = ("clinician-7".into(), Scope::Everything);
        let wish = CommandWish { command, by, scope, key: None, reply };
        self.pipeline.on_control(Control::Command(wish), self.now);
        answer.try_recv().unwrap()
    }

    /// Events of the kind that may take the very last place, until `free` places are left.
    fn fill(&mut self, free: usize) {
        while self.handle.queued() < QUEUE - free {
            let (kind, message) = (SystemKind::EventsLost, "fills".to_owned());
            let system = SystemEvent { kind, message, first: None, last: None };
            self.pipeline.on_control(Control::System(system), self.now);
        }
    }

    fn measure(&mut self, device: &str, vital: Vital) {
        let reading = Reading {
            patient: Some("P-1".parse().unwrap()),
            device: device.parse().unwrap(),
            source: device.parse().unwrap(),
            vital,
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Test,
            taken: Taken::on_arrival(self.now),
            received: self.now,
        };
        self.pipeline.on_source_message(SourceMessage::Reading(reading), self.now);
    }

    fn systolic(&mut self, number: &str) {
        let (systolic, absent) = (Value::Valid(number.parse().unwrap()), Value::Absent(Absent::NotMeasured));
        self.measure("cuff", Vital::BloodPressure(Pressure { systolic, diastolic: absent, mean: absent }));
    }

    fn temperature(&mut self, number: &str) {
        self.measure("ear", Vital::scalar(Metric::Temperature, Value::Valid(number.parse().unwrap())));
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.mono = self.now.mono + Duration::from_secs(1);
            self.now.wall.0 += 1000;
            self.pipeline.on_deadline(self.now);
        }
    }

    /// The disk works again and has everything that waited.
    async fn disk_returns(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.writing.spawn(writer.run(self.stop.clone()));
        }
        let handle = self.handle.clone();
        let drained = async {
            while handle.queued() > 0 {
                tokio::task::yield_now().await;
                handle.ping().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_mins(5), drained).await.unwrap();
    }

    /// The machine dies after everything in the queue is on disk; what is written at an orderly end is not.
    async fn dies(mut self) {
        self.disk_returns().await;
        drop(self.pipeline);
        self.stop.cancel();
        self.writing.join_next().await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_kept_is_refused_before_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Stalled::start(dir.path(), 1);
    assert!(bed.ask(&set_limit(86)).unwrap().is_kept);
    bed.fill(RESERVED_FOR_ALERTS + PLACES_A_COMMAND - 1);
    let waiting = bed.handle.queued();
    for members in [
        set_limit(80),
        json!({"name": "observation.set", "patient_id": "P-1", "oxygen": "oxygen"}),
        json!({"name": "preferences.set", "mute": ["appointment_reminder"]}),
        json!({"name": "device.command", "source_id": "port", "command": "nibp_start"}),
        json!({"name": "notification.send", "kind": "system", "users": ["7"], "title": "a", "message": "b",
               "correlation_id": "1"}),
    ] {
        let refused = bed.ask(&members).unwrap_err();
        assert_eq!(refused.code, "store_full", "{members}");
    }
    assert_eq!(bed.handle.queued(), waiting, "a refusal costs no place");
    let (reply, mut answer) = oneshot::channel();
    bed.pipeline.on_control(Control::Limits("P-1".parse().unwrap(), reply), bed.now);
    let limits = answer.try_recv().unwrap().unwrap();
    let limit = limits.iter().find(|limit| limit.rule.as_str() == "spo2_low").unwrap();
    assert!(limit.summary().contains("86"), "the refused limit does not hold: {}", limit.summary());

    // The disk returns: what was refused can be asked for again, and stays.
    bed.disk_returns().await;
    assert!(bed.ask(&set_limit(84)).unwrap().is_kept);
    bed.dies().await;
    let bed = Stalled::start(dir.path(), 2);
    assert_eq!(bed.knew.limits.len(), 1);
    assert!(bed.knew.limits[0].lines.contains("84"), "{:?}", bed.knew.limits);
}

#[tokio::test]
async fn what_stands_of_the_lost_events_is_written_again_when_the_disk_returns() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Stalled::start(dir.path(), 1);
    bed.temperature("39.5");
    bed.fill(0);
    // One alert ends and another begins while nothing at all is taken: a spot measurement never comes again.
    bed.systolic("200");
    bed.temperature("37.0");
    bed.pass(6);
    let newest = newest(&mut bed);
    bed.disk_returns().await;
    assert!(*bed.handle.durable().borrow() < newest, "nothing of it is on disk yet");
    bed.pass(1);
    bed.dies().await;

    let bed = Stalled::start(dir.path(), 2);
    assert_eq!(bed.knew.rules(), ["systolic"], "one had ended, the other had begun");
}

#[tokio::test]
async fn a_loss_is_told_once_and_nothing_is_written_again_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Stalled::start(dir.path(), 1);
    bed.systolic("200");
    bed.ask(&set_limit(86)).unwrap();
    bed.ask(&json!({"name": "observation.set", "patient_id": "P-1", "oxygen": "oxygen"})).unwrap();
    bed.fill(0);
    bed.systolic("200");
    bed.disk_returns().await;
    let before = newest(&mut bed);
    bed.pass(3);
    assert_eq!(newest(&mut bed).0, before.0 + 1, "the word of the loss alone");
    bed.dies().await;
    let bed = Stalled::start(dir.path(), 2);
    assert_eq!((bed.knew.limits.len(), bed.knew.observations.len()), (1, 1));
    assert_eq!(bed.knew.rules(), ["systolic"]);
}

fn newest(bed: &mut Stalled) -> Seq {
    let (reply, mut answer) = oneshot::channel();
    bed.pipeline.on_control(Control::Settle(reply), bed.now);
    answer.try_recv().unwrap()
}
