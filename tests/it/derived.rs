//! What the bridge computes, through the pipeline and onto the disk: an early warning score with its alerts, a heart rate
//! and its variability, and what people enter, over a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::{BridgeCondition, Engine, RuleSet};
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::command::{Command, Members};
use vitalbridge::derive::live::News2Settings;
use vitalbridge::event::SourceMessage;
use vitalbridge::hub::{Join, Joined, Scope};
use vitalbridge::ids::{Epoch, PatientId, Seq};
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::Notifier;
use vitalbridge::outbox::{Delivery, Parcel};
use vitalbridge::patient::Patient;
use vitalbridge::pipeline::{CommandWish, Control, Done, Parts, Pipeline, Refusal};
use vitalbridge::store::{self, Reader, StoreError, StoreOptions};
use vitalbridge::vitals::{Absent, Metric, Mode, Pressure, Quality, Reading, Taken, Value, Vital};

const START: i64 = 1_795_219_200_000;

/// A bridge with two patients, of whom the first has a score, and a clock that the test moves.
struct Bed {
    pipeline: Pipeline,
    joined: Joined,
    reader: Reader,
    stop: CancellationToken,
    writer: JoinSet<Result<(), StoreError>>,
    now: Stamp,
}

fn patient(id: &str) -> Patient {
    Patient {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        bed: id.to_owned(),
        ward: "icu".parse().unwrap(),
        mode: Mode::Test,
    }
}

fn scored(is_scored: bool) -> BTreeMap<PatientId, News2Settings> {
    let patients = ["P-1"].into_iter().filter(|_| is_scored);
    patients.map(|id| (id.parse().unwrap(), News2Settings::default())).collect()
}

impl Bed {
    fn start(dir: &Path, run: u64, wall: i64, is_scored: bool) -> Self {
        Self::start_in("boot", dir, run, wall, is_scored)
    }

    fn start_in(boot: &str, dir: &Path, run: u64, wall: i64, is_scored: bool) -> Self {
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(wall) };
        let epoch = Epoch::from_bits(run);
        let opened = store::open(dir, &StoreOptions::default(), epoch.clone(), boot, now).unwrap();
        let (stop, writer) = (CancellationToken::new(), opened.writer);
        let stopped = stop.clone();
        let patients = vec![patient("P-1"), patient("P-2")];
        let mut pipeline = Pipeline::new(Parts {
            epoch,
            first: opened.first_seq,
            notifier: Notifier::new(&patients, opened.inboxes, run),
            patients,
            limit_changes: opened.limit_changes,
            engine: Engine::new(RuleSet::built_in(), run),
            expected: Vec::new(),
            open_alerts: opened.open_alerts,
            news2: scored(is_scored),
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
        Self { pipeline, joined, reader: opened.reader, stop, writer: tasks, now }
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

    /// Lets time pass, and the pipeline do what it would then.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now.mono = self.now.mono + Duration::from_secs(1);
            self.now.wall.0 += 1000;
            self.pipeline.on_deadline(self.now);
        }
    }

    fn feed(&mut self, device: &str, vital: Vital) {
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

    fn number(&mut self, metric: Metric, number: &str) {
        self.feed(metric.name(), Vital::scalar(metric, Value::Valid(number.parse().unwrap())));
    }

    fn enter(&mut self, members: &Json, scope: Scope) -> Result<Done, Refusal> {
        let mut command = members.clone();
        command["name"] = json!("observation.set");
        let command = Command::read(Members(&command)).unwrap();
        let (reply, mut answer) = oneshot::channel();
        let wish = CommandWish { command, by: "lena".to_owned().into(), scope, key: None, reply };
        self.pipeline.on_control(Control::Command(wish), self.now);
        answer.try_recv().unwrap()
    }

    /// The end of this run.
    async fn end(mut self) {
        drop(self.pipeline);
        self.stop.cancel();
        self.writer.join_next().await.unwrap().unwrap().unwrap();
    }
}

fn scores(told: &[Json]) -> Vec<&Json> {
    told.iter().map(|event| &event["data"]).filter(|data| data["news2"].is_object()).collect()
}

#[tokio::test]
async fn a_score_is_published_with_what_it_rests_on_alarms_and_is_kept_as_it_was_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start(dir.path(), 1, START, true);
    let first = bed.told();
    let first = scores(&first);
    assert_eq!(first.len(), 1, "only for the patient for whom it is switched on");
    assert_eq!((&first[0]["value"], &first[0]["absent"]), (&Json::Null, &json!("inputs_missing")));
    assert_eq!((&first[0]["news2"]["score_max"], &first[0]["news2"]["band"]), (&json!(20), &Json::Null));

    bed.number(Metric::RespiratoryRate, "25");
    bed.number(Metric::Temperature, "38.50");
    let told = bed.told();
    let score = *scores(&told).last().unwrap();
    let news2 = &score["news2"];
    assert_eq!((&news2["score_min"], &news2["score_max"], &news2["complete"]), (&json!(4), &json!(18), &json!(false)));
    assert_eq!((&news2["single_3"], &news2["band_min"]), (&json!(true), &json!("low-medium")));
    assert_eq!(news2["missing"], json!(["systolic", "pulse", "consciousness", "oxygen", "spo2"]));
    let expected = json!({"parameter": "temperature", "value": 38.50, "points": 1, "age_ms": 0, "metric": "temperature",
                          "device_id": "temperature"});
    assert_eq!(news2["inputs"][1], expected);
    assert_eq!((&score["source_id"], &score["mode"]), (&json!("derived"), &json!("test")));
    assert_eq!(score["derived_from"], json!(["respiratory_rate", "temperature"]));
    assert_eq!(told.last().unwrap()["channel"], "patient/P-1/news2");

    bed.pass(16);
    let told = bed.told();
    let alerts: Vec<&Json> = told.iter().filter(|event| event["data"]["rule"] == "news2_single").collect();
    assert_eq!(alerts[0]["data"]["change"], "start", "{told:#?}");
    // Respiration is lost: nobody knows any more, and the alert stays.
    bed.pass(50);
    let told = bed.told();
    assert_eq!(scores(&told).last().unwrap()["news2"]["score_min"], 1);
    let alert = told.iter().rev().find(|event| event["data"]["rule"] == "news2_single").unwrap();
    assert_eq!(
        (&alert["data"]["change"], &alert["data"]["condition"]["presence"]),
        (&json!("update"), &json!("unknown"))
    );

    let reader = bed.reader.clone();
    bed.end().await;
    let stored = reader.events(Seq::ZERO, 10_000).await.unwrap();
    let kept = stored.iter().filter_map(|event| match &event.body {
        vitalbridge::event::EventBody::Reading(reading) => match &reading.vital {
            Vital::News2(score) => Some(score.score_min),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(kept.collect::<Vec<u8>>(), [0, 3, 4, 1]);
}

#[tokio::test]
async fn what_a_nurse_enters_completes_the_score_survives_a_restart_and_is_forgotten_after_a_shift() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start(dir.path(), 1, START, true);
    for (metric, number) in [
        (Metric::RespiratoryRate, "16"),
        (Metric::Spo2, "97"),
        (Metric::HeartRate, "70"),
        (Metric::Temperature, "37.0"),
    ] {
        bed.number(metric, number);
    }
    let absent = Value::Absent(Absent::NotMeasured);
    let systolic = Value::Valid("120".parse().unwrap());
    bed.feed("cuff", Vital::BloodPressure(Pressure { systolic, diastolic: absent, mean: absent }));
    bed.told();
    bed.enter(&json!({"patient_id": "P-1", "oxygen": "air"}), Scope::Everything).unwrap();
    bed.enter(&json!({"patient_id": "P-1", "consciousness": "C"}), Scope::Everything).unwrap();
    let told = bed.told();
    let kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["audit", "observation", "health_update"].repeat(2));
    assert_eq!((&told[3]["data"]["object"], &told[3]["data"]["by"]), (&json!("consciousness=C"), &json!("lena")));
    assert_eq!(told[4]["channel"], "patient/P-1/observation");
    assert_eq!(told[4]["data"]["oxygen"]["value"], "air", "each is the whole of what holds");
    let score = &told[5]["data"];
    assert_eq!((&score["value"], &score["news2"]["band"]), (&json!(3), &json!("low-medium")));
    let inputs = score["news2"]["inputs"].as_array().unwrap();
    let level = inputs.iter().find(|input| input["parameter"] == "consciousness").unwrap();
    assert_eq!((&level["value"], &level["by"]), (&json!("C"), &json!("lena")));
    bed.end().await;

    let hour = 3_600_000;
    for (run, hours, points) in [(2, 11, 3), (3, 13, 0)] {
        let mut bed = Bed::start(dir.path(), run, START + hours * hour, true);
        let told = bed.told();
        assert_eq!(scores(&told).last().unwrap()["news2"]["score_min"], points, "{hours} h later");
        bed.end().await;
    }
}

#[tokio::test]
async fn after_a_boot_what_was_entered_counts_only_once_the_clock_is_known_to_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start_in("boot-1", dir.path(), 1, START, true);
    bed.enter(&json!({"patient_id": "P-1", "consciousness": "C"}), Scope::Everything).unwrap();
    bed.end().await;
    let hour = 3_600_000;
    let points =
        |bed: &mut Bed| scores(&bed.told()).last().map_or(json!(0), |score| score["news2"]["score_min"].clone());
    for (run, hours, expected) in [(2, 11, 3), (3, 36, 0), (4, -1, 0)] {
        // Switched off an hour after the entry, and on again with the clock where it was: nobody knows how long ago.
        let mut bed = Bed::start_in(&format!("boot-{run}"), dir.path(), run, START + hour, true);
        assert_eq!(points(&mut bed), 0);
        bed.pass(60);
        bed.pipeline.on_control(Control::Condition(BridgeCondition::ClockUnsynchronised, true), bed.now);
        bed.pass(60);
        assert_eq!(points(&mut bed), 0);
        bed.now.wall = Wall(START + hours * hour);
        bed.pipeline.on_control(Control::Condition(BridgeCondition::ClockUnsynchronised, false), bed.now);
        assert_eq!(points(&mut bed), expected, "{hours} h later");
        bed.end().await;
    }
}

#[tokio::test]
async fn entering_one_thing_again_prolongs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start(dir.path(), 1, START, true);
    bed.enter(&json!({"patient_id": "P-1", "consciousness": "C"}), Scope::Everything).unwrap();
    let hours = |bed: &mut Bed, hours: u64| bed.now.mono = bed.now.mono + Duration::from_hours(hours);
    hours(&mut bed, 11);
    // The wall clock is set back by half a day: consciousness seems to have been entered just now.
    bed.enter(&json!({"patient_id": "P-1", "oxygen": "oxygen"}), Scope::Everything).unwrap();
    bed.told();
    hours(&mut bed, 1);
    bed.pass(1);
    assert_eq!(scores(&bed.told()).last().unwrap()["news2"]["score_min"], 2, "oxygen alone");
    bed.end().await;
}

#[tokio::test]
async fn an_entry_is_refused_where_it_may_not_be_made_and_the_refusal_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start(dir.path(), 1, START, true);
    bed.told();
    let only = |pattern: &str| Scope::Only(vec![pattern.parse().unwrap()]);
    for (id, scope, expected) in [
        ("P-1", only("patient/P-2/#"), "permission_denied"),
        ("P-9", only("patient/P-1/#"), "permission_denied"),
        ("P-9", Scope::Everything, "unknown_patient"),
        ("P-2", Scope::Everything, "not_scored"),
    ] {
        let refused = bed.enter(&json!({"patient_id": id, "oxygen": "oxygen"}), scope).unwrap_err();
        assert_eq!(refused.code, expected, "{id}");
        let told = bed.told();
        assert_eq!(told.len(), 1, "{told:#?}");
        let audit = &told[0]["data"];
        assert_eq!((&audit["action"], &audit["result"]), (&json!("observation_set"), &json!("refused")));
        assert_eq!(audit["reason"], json!(refused.reason));
    }
    for scope in [only("patient/P-1/#"), only("ward/icu/#")] {
        bed.enter(&json!({"patient_id": "P-1", "oxygen": "oxygen"}), scope).unwrap();
    }
    bed.enter(&json!({"patient_id": "P-1", "oxygen": "unknown"}), Scope::Everything).unwrap();
    let told = bed.told();
    let scores = scores(&told);
    assert_eq!(scores.len(), 2, "the same points again are no news");
    assert_eq!((&scores[0]["news2"]["score_min"], &scores[1]["news2"]["score_min"]), (&json!(2), &json!(0)));
    bed.end().await;
}

#[tokio::test]
async fn an_alert_about_a_score_that_is_switched_off_ends_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start(dir.path(), 1, START, true);
    bed.number(Metric::RespiratoryRate, "7");
    bed.pass(16);
    assert!(bed.told().iter().any(|event| event["data"]["rule"] == "news2_single"));
    bed.end().await;
    for (run, is_scored, change) in [(2, true, "update"), (3, false, "end")] {
        let mut bed = Bed::start(dir.path(), run, START + 60_000, is_scored);
        let told = bed.told();
        let last = told.iter().rev().find(|event| event["data"]["rule"] == "news2_single").unwrap();
        assert_eq!(last["data"]["change"], change, "{last}");
        bed.end().await;
    }
}

#[tokio::test]
async fn a_strap_that_gives_only_intervals_gets_a_rate_that_alarms_and_a_variability() {
    let dir = tempfile::tempdir().unwrap();
    let mut bed = Bed::start(dir.path(), 1, START, false);
    let mut told = Vec::new();
    for _ in 0..310 {
        // 180 a minute, too regular to be true.
        bed.feed("strap", Vital::RrIntervals(vec![341, 341, 341]));
        bed.pass(1);
        told.extend(bed.told());
    }
    let of = |metric: &str| told.iter().map(|event| &event["data"]).filter(|data| data["metric"] == metric).collect();
    let rates: Vec<&Json> = of("heart_rate");
    let rate = rates.iter().find(|data| data["alert_id"].is_null()).unwrap();
    assert_eq!(
        (&rate["value"], &rate["source_id"], &rate["device_id"]),
        (&json!(180), &json!("derived"), &json!("strap"))
    );
    assert_eq!((&rate["derived_from"], &rate["quality"]), (&json!(["rr_interval"]), &json!("valid")));
    assert!(rates.iter().any(|data| data["rule"] == "heart_rate_extreme_high"), "{rates:#?}");
    let spread: Vec<&Json> = of("heart_rate_variability");
    assert_eq!((&spread[0]["value"], &spread[0]["absent"]), (&Json::Null, &json!("inputs_missing")));
    let last = spread.last().unwrap();
    assert_eq!(
        (&last["value"], &last["variability"]["pnn50"], &last["unit"]),
        (&json!(0.0), &json!(0.0), &json!("ms"))
    );
    assert!(last["variability"]["n"].as_u64().unwrap() > 850, "{last}");
    assert_eq!(last["variability"]["rejected"], 0);
    bed.end().await;
}
