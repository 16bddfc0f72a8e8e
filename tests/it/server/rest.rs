//! REST: what was measured, paged and summed up; alerts and their lives; who may read what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use vitalbridge::clock::{Clock, Wall};
use vitalbridge::event::SourceMessage;
use vitalbridge::pipeline::Control;
use vitalbridge::server::auth::{Capability, Operation};
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::jwt::Claims;
use vitalbridge::server::rate::Allowance;
use vitalbridge::vitals::{Absent, Decimal, Metric, Mode, Pressure, Quality, Reading, Taken, TimeSource, Value, Vital};

use super::{HOST, Server, UserRole, patients};

/// An answer: status, content type, body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) body: Vec<u8>,
    /// False if the body was broken off.
    pub(super) is_whole: bool,
}

impl Answer {
    pub(super) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A reading to be: all but what a test says is ordinary.
pub(super) struct Draft {
    pub(super) device: &'static str,
    pub(super) vital: Vital,
    pub(super) quality: Quality,
    /// When it was measured; `None`: nobody knows.
    pub(super) taken: Option<Wall>,
}

pub(super) fn number(tenths: i32) -> Value {
    Value::Valid(Decimal::tenths(tenths))
}

pub(super) fn draft(metric: Metric, value: Value, taken: Wall) -> Draft {
    Draft { device: "d", vital: Vital::scalar(metric, value), quality: Quality::Valid, taken: Some(taken) }
}

impl Server {
    /// One request, with any token.
    pub(super) async fn request(&self, claims: Option<&Claims>, method: &str, path: &str) -> Answer {
        let io = TokioIo::new(self.stream());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::pin!(connection);
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", HOST);
        if let Some(claims) = claims {
            request = request.header("authorization", format!("Bearer {}", self.token(claims)));
        }
        let request = request.body(Body::empty()).unwrap();
        let asked = async {
            let response = sender.send_request(request).await.unwrap();
            let (head, mut body) = response.into_parts();
            let kind = head.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
            let (mut bytes, mut is_whole) = (Vec::new(), true);
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
                    Err(_) => is_whole = false,
                }
            }
            Answer { status: head.status.as_u16(), kind, body: bytes, is_whole }
        };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            // What came.
            answer = &mut asked => answer,
            // The connection has ended; what it brought is still to be read.
            _ = &mut connection => asked.await,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Json {
        let answer = self.request(Some(&self.claims(UserRole::Viewer)), "GET", path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(super) async fn put(&self, patient: &str, draft: Draft) {
        let now = self.clock.now();
        let taken = Taken {
            wall: draft.taken,
            source: TimeSource::Received,
            uncertainty_ms: Some(0),
            mapping_ms: None,
            device_time: None,
        };
        let reading = Reading {
            patient: Some(patient.parse().unwrap()),
            device: draft.device.parse().unwrap(),
            source: "s".parse().unwrap(),
            vital: draft.vital,
            mdc: None,
            quality: draft.quality,
            mode: Mode::Demo,
            taken,
            received: now,
        };
        self.readings.send(SourceMessage::Reading(reading)).await.unwrap();
    }

    /// Waits until everything that was put is on disk; gives the newest number.
    pub(super) async fn settled(&self) -> u64 {
        let (reply, newest) = oneshot::channel();
        self.site.gate.control.send(Control::Settle(reply)).await.unwrap();
        let newest = newest.await.unwrap();
        self.site.gate.durable.clone().wait_for(|durable| *durable >= newest).await.unwrap();
        newest.0
    }

    /// Every row of a list, page by page, with the number of pages.
    async fn pages(&self, path: &str) -> (Vec<Json>, usize) {
        let (mut rows, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = self.get(&format!("{path}{cursor}")).await;
            let list = page.get("rows").or(page.get("buckets")).or(page.get("points")).unwrap();
            rows.extend(list.as_array().unwrap().clone());
            pages += 1;
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (rows, pages),
            }
        }
    }
}

fn seqs(rows: &[Json]) -> Vec<u64> {
    rows.iter().map(|row| row["seq"].as_u64().unwrap()).collect()
}

/// 2026-11-20T22:00:00Z, and so many ms later.
fn at(ms: i64) -> Wall {
    Wall(Wall::parse("2026-11-20T22:00:00Z").unwrap().0 + ms)
}

#[tokio::test]
async fn paging_gives_each_reading_once_while_new_ones_come() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let other = patients(&server)[1].clone();
    for n in 0..1500 {
        server.reading(&patient, Metric::HeartRate, 60 + n % 40).await;
        server.reading(&other, Metric::HeartRate, 60 + n % 40).await;
    }
    server.settled().await;
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    for page in 0.. {
        let path = format!("/api/v1/readings?patient={patient}&metric=heart_rate&limit=97{cursor}");
        let found = server.get(&path).await;
        let found_rows = found["rows"].as_array().unwrap().clone();
        assert!(found_rows.len() <= 97);
        rows.extend(found_rows);
        let Some(next) = found["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
        if page < 5 {
            for n in 0..20 {
                server.reading(&patient, Metric::HeartRate, 100 + n).await;
            }
            server.settled().await;
        }
    }
    let numbers = seqs(&rows);
    assert_eq!(rows.len(), 1600);
    assert!(numbers.is_sorted_by(|a, b| a < b), "in the order of their numbers, each once");
    assert!(rows.iter().all(|row| row["data"]["patient_id"] == patient.as_str()));
    let (at_once, pages) =
        server.pages(&format!("/api/v1/readings?patient={patient}&metric=heart_rate&limit=5000")).await;
    assert_eq!((seqs(&at_once), pages), (numbers, 1));
}

#[tokio::test]
async fn pages_of_any_size_take_neighbours_of_one_patient_once_and_leave_none_out() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    for n in 0..60 {
        server.reading(&patient, Metric::HeartRate, 60 + n).await;
    }
    server.settled().await;
    let path = format!("/api/v1/readings?patient={patient}&metric=heart_rate");
    let whole = seqs(server.get(&path).await["rows"].as_array().unwrap());
    assert_eq!(whole.len(), 60);
    // Between most of them lies nothing that a page could leave out unnoticed.
    let neighbours = whole.windows(2).filter(|two| two[1] == two[0] + 1).count();
    assert!(neighbours > 50, "{whole:?}");
    for limit in [1, 2, 3, 7, 59, 60, 61] {
        let (rows, _) = server.pages(&format!("{path}&limit={limit}")).await;
        assert_eq!(seqs(&rows), whole, "pages of {limit}");
    }
}

#[tokio::test]
async fn a_span_of_time_is_one_of_measurement_also_for_what_comes_late() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    // Enough for several blocks of numbers, so that both ways to find a time are taken.
    for n in 0..3000 {
        server.put(&patient, draft(Metric::Spo2, number(970), at(n * 1000))).await;
    }
    server.put(&patient, draft(Metric::Glucose, number(55), at(500))).await;
    for n in 3000..4500 {
        server.put(&patient, draft(Metric::Spo2, number(970), at(n * 1000))).await;
    }
    let unknown = Draft { taken: None, ..draft(Metric::Temperature, number(370), at(0)) };
    server.put(&patient, unknown).await;
    server.settled().await;
    let path = format!("/api/v1/readings?patient={patient}&from={}&to={}", at(0), at(2000));
    let (rows, _) = server.pages(&path).await;
    let found: Vec<&str> = rows.iter().map(|row| row["data"]["metric"].as_str().unwrap()).collect();
    assert_eq!(found, ["spo2", "spo2", "glucose"]);
    let timestamps: Vec<&Json> = rows.iter().map(|row| &row["data"]["timestamp"]).collect();
    assert_eq!(timestamps, ["2026-11-20T22:00:00.000Z", "2026-11-20T22:00:01.000Z", "2026-11-20T22:00:00.500Z"]);
    let (rows, _) = server.pages(&format!("/api/v1/readings?from={}&to={}&limit=5000", at(0), at(4_500_000))).await;
    assert_eq!(rows.len(), 4501, "each of the span, and not the one of an unknown time, which arrived later");
    let (rows, _) = server.pages(&format!("/api/v1/readings?metric=temperature&from={}", at(9_000_000))).await;
    assert_eq!(rows.len(), 1, "what nobody knows the time of is found by its arrival");
}

#[tokio::test]
async fn buckets_are_made_of_valid_values_and_absent_ones_are_counted() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let pressure = |systolic, diastolic, mean| Vital::BloodPressure(Pressure { systolic, diastolic, mean });
    let drafts = [
        draft(Metric::Spo2, number(970), at(1000)),
        draft(Metric::Spo2, Value::Absent(Absent::SensorOff), at(2000)),
        draft(Metric::Spo2, number(905), at(59_999)),
        draft(Metric::Spo2, Value::Absent(Absent::ZeroReported), at(61_000)),
        draft(Metric::Spo2, Value::Absent(Absent::ZeroReported), at(62_000)),
        Draft { quality: Quality::Invalid, ..draft(Metric::Spo2, number(10), at(3000)) },
        Draft { quality: Quality::Questionable, ..draft(Metric::Spo2, number(960), at(4000)) },
        // It came last and was measured first.
        draft(Metric::Spo2, number(980), at(500)),
        Draft {
            vital: pressure(number(1200), number(800), Value::Absent(Absent::NotMeasured)),
            ..draft(Metric::Spo2, number(0), at(5000))
        },
        Draft { taken: None, ..draft(Metric::Spo2, number(10), at(0)) },
    ];
    for draft in drafts {
        server.put(&patient, draft).await;
    }
    server.settled().await;
    let path = format!("/api/v1/readings?patient={patient}&every=1m&from={}&to={}", at(10), at(90_000));
    let page = server.get(&path).await;
    let bucket = |metric: &str, from: &str, rest: Json| {
        let mut bucket =
            json!({"patient_id": patient, "device_id": "d", "metric": metric, "mode": "demo", "from": from});
        bucket.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        bucket
    };
    let (first, second) = ("2026-11-20T22:00:00.000Z", "2026-11-20T22:01:00.000Z");
    let none =
        json!({"count": 0, "questionable": 0, "min": null, "max": null, "mean": null, "first": null, "last": null});
    let absent = |reasons: Json| {
        let mut rest = none.clone();
        rest["absent"] = reasons;
        rest
    };
    let one = |value: f64| json!({"count": 1, "questionable": 0, "min": value, "max": value, "mean": value, "first": value, "last": value, "absent": {}});
    let expected = json!([
        bucket("blood_pressure.diastolic", first, one(80.0)),
        bucket("blood_pressure.mean", first, absent(json!({"not_measured": 1}))),
        bucket("blood_pressure.systolic", first, one(120.0)),
        bucket(
            "spo2",
            first,
            json!({"count": 4, "questionable": 1, "min": 90.5, "max": 98.0, "mean": 95.38, "first": 98.0, "last": 90.5,
                   "absent": {"invalid": 1, "sensor_off": 1}})
        ),
        bucket("spo2", second, absent(json!({"zero_reported": 2}))),
    ]);
    assert_eq!(page, json!({"every_ms": 60_000, "buckets": expected, "undated": 0, "next": null}));
    // Where nobody knows when something was measured, it is counted and in no bucket.
    let (from, to) = (at(120_000), server.clock.now().wall.0 + 60_000);
    let page = server.get(&format!("/api/v1/readings?every=1m&metric=spo2&from={from}&to={}", Wall(to))).await;
    assert_eq!((&page["undated"], &page["buckets"]), (&json!(1), &json!([])), "{page}");
}

#[tokio::test]
async fn buckets_of_a_long_time_come_in_pages_and_each_is_whole() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    for n in 0..9000_i64 {
        // Two a second, and a year without anything between.
        let gap = if n < 4500 { 0 } else { 365 * 86_400_000 };
        server.put(&patient, draft(Metric::HeartRate, number(600), at(gap + n * 500))).await;
    }
    server.settled().await;
    let path = format!(
        "/api/v1/readings?patient={patient}&metric=heart_rate&every=1s&from={}&to={}",
        at(0),
        at(800 * 86_400_000)
    );
    let (buckets, pages) = server.pages(&path).await;
    assert!((2..10).contains(&pages), "{pages} pages: each is bounded, and the year costs few");
    assert_eq!(buckets.len(), 4500);
    assert!(buckets.iter().all(|bucket| bucket["count"] == 2));
    let starts: BTreeSet<&str> = buckets.iter().map(|bucket| bucket["from"].as_str().unwrap()).collect();
    assert_eq!(starts.len(), buckets.len());
}

#[tokio::test]
async fn few_points_keep_the_least_the_greatest_and_that_something_was_absent() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    for n in 0..2000 {
        let value = match n {
            777 => number(2200),
            1234 => number(310),
            1500..1600 => Value::Absent(Absent::LeadOff),
            _ => number(700 + n % 50),
        };
        server.put(&patient, draft(Metric::HeartRate, value, at(i64::from(n) * 1000))).await;
    }
    server.settled().await;
    let path = format!("/api/v1/readings?patient={patient}&max_points=60&from={}&to={}", at(0), at(2_000_000));
    let (points, _) = server.pages(&path).await;
    assert!((20..=60).contains(&points.len()), "{}", points.len());
    let values: Vec<f64> = points.iter().filter_map(|point| point["value"].as_f64()).collect();
    assert!(values.contains(&220.0) && values.contains(&31.0), "{values:?}");
    let absent: Vec<&Json> = points.iter().filter(|point| point["absent"] == "lead_off").collect();
    assert!(!absent.is_empty() && absent.iter().all(|point| point["value"].is_null()), "{points:?}");
    let times: Vec<&str> = points.iter().map(|point| point["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted());
    // What few points show is what was measured, at the time at which it was.
    let peak = points.iter().find(|point| point["value"] == 220.0).unwrap();
    assert_eq!(peak["timestamp"], at(777_000).to_string());
}

#[tokio::test]
async fn points_say_what_was_kept_somewhere_and_told_later() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let now = server.clock.now().wall;
    let ago = |ms: i64| Wall(now.0 - ms);
    server.put(&patient, draft(Metric::Spo2, number(970), ago(0))).await;
    server.put(&patient, draft(Metric::Spo2, number(960), ago(50_000))).await;
    server.put(&patient, draft(Metric::Spo2, number(950), ago(120_000))).await;
    server.put(&patient, Draft { quality: Quality::Historic, ..draft(Metric::HeartRate, number(700), ago(0)) }).await;
    server.settled().await;
    let path = format!("/api/v1/readings?patient={patient}&max_points=600&from={}&to={}", ago(600_000), ago(-1000));
    let (points, _) = server.pages(&path).await;
    // What the bridge says itself about a patient is among the points as well.
    let told: Vec<(f64, Option<bool>)> =
        points.iter().filter_map(|point| Some((point["value"].as_f64()?, point["late"].as_bool()))).collect();
    assert_eq!(told.len(), 4, "{points:?}");
    for expected in [(97.0, None), (96.0, None), (95.0, Some(true)), (70.0, Some(true))] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
}

#[tokio::test]
async fn few_points_keep_both_of_two_values_of_one_reading() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    server
        .put(&patient, Draft { vital: Vital::RrIntervals(vec![1024, 512]), ..draft(Metric::Spo2, number(0), at(4)) })
        .await;
    server.settled().await;
    let path = format!("/api/v1/readings?patient={patient}&max_points=60&from={}&to={}", at(0), at(2_000_000));
    let (points, _) = server.pages(&path).await;
    let values: Vec<f64> = points.iter().filter_map(|point| point["value"].as_f64()).collect();
    assert_eq!(values, [500.0, 1000.0], "{points:?}");
}

#[tokio::test]
async fn what_a_device_had_kept_does_not_hide_a_newer_measurement() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let now = server.clock.now().wall;
    let hour = 3_600_000;
    let path = format!("/api/v1/readings/latest?patient={patient}&device=d");
    for (value, quality, taken, shown) in [
        (900, Quality::Historic, None, 90),
        (910, Quality::Historic, Some(Wall(now.0 - 2 * hour)), 91),
        (970, Quality::Valid, Some(now), 97),
        (880, Quality::Historic, Some(Wall(now.0 - hour)), 97),
        (870, Quality::Historic, None, 97),
        (960, Quality::Valid, None, 96),
    ] {
        server.put(&patient, Draft { quality, taken, ..draft(Metric::Spo2, number(value), now) }).await;
        server.settled().await;
        let latest = server.get(&path).await;
        assert_eq!(latest["readings"][0]["value"].as_f64(), Some(f64::from(shown)), "after {value}: {latest}");
    }
}

#[tokio::test]
async fn the_present_is_told_with_ages_devices_and_alerts() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    server.reading(&patient, Metric::Spo2, 70).await;
    let newest = server.settled().await;
    let latest = server.get(&format!("/api/v1/readings/latest?patient={patient}&metric=spo2")).await;
    let reading = &latest["readings"][0];
    assert_eq!((&reading["value"], &reading["channel"]), (&json!(70), &json!(format!("patient/{patient}/spo2"))));
    assert!(reading["age_ms"].as_u64().unwrap() < 60_000 && latest["stale_after_ms"] == 5000, "{latest}");
    let none = server.get(&format!("/api/v1/readings/latest?patient={patient}&device=other")).await;
    assert_eq!(none["readings"], json!([]));

    let now = server.get(&format!("/api/v1/alerts?patient={patient}")).await;
    let of_rule = |list: &Json| list.as_array().unwrap().iter().find(|it| it["rule"] == "spo2_desat").cloned();
    let alert = of_rule(&now["alerts"]).unwrap();
    assert!(alert["seq"].as_u64().unwrap() <= newest);
    let id = alert["alert_id"].as_str().unwrap();
    let command = json!({"name": "alert.acknowledge", "alert_id": id, "expected_seq": alert["seq"]}).to_string();
    let (status, done) = server.ask(UserRole::Nurse, "POST", "/api/v1/commands", &command).await;
    assert_eq!(status, "200", "{done}");
    let one = server.get(&format!("/api/v1/alerts/{id}")).await;
    let life: Vec<&Json> = one["life"].as_array().unwrap().iter().map(|change| &change["data"]["change"]).collect();
    assert_eq!((life, &one["alert"]["change"]), (vec![&json!("start"), &json!("acknowledge")], &json!("acknowledge")));
    let (history, _) = server.pages(&format!("/api/v1/alerts/history?patient={patient}&limit=1")).await;
    let changes: Vec<&Json> =
        history.iter().filter(|it| it["data"]["alert_id"] == id).map(|it| &it["data"]["change"]).collect();
    assert_eq!(changes, ["acknowledge", "start"], "the newest first");
    assert!(seqs(&history).is_sorted_by(|a, b| a > b));
    let before = server.get(&format!("/api/v1/alerts/history?to={}", at(0))).await;
    assert_eq!(before["rows"], json!([]));
}

#[tokio::test]
async fn who_may_read_what_is_answered_the_same_everywhere() {
    let server = Server::start();
    // A device of its own for each: one that goes to another patient ends the alerts of the first.
    for (patient, device) in patients(&server).iter().zip(["d", "e", "f"]) {
        let now = server.clock.now().wall;
        server.put(patient, Draft { device, ..draft(Metric::Spo2, number(700), now) }).await;
    }
    server.settled().await;
    let alerts = server.get("/api/v1/alerts").await;
    let alerts: BTreeMap<String, String> = alerts["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| Some((it["patient_id"].as_str()?.to_owned(), it["alert_id"].as_str()?.to_owned())))
        .collect();
    let (own, foreign) = (alerts.keys().next().unwrap().clone(), alerts.keys().nth(1).unwrap().clone());
    let viewer = server.claims(UserRole::Viewer);
    let of_patient = Capability::of_patient(&own.parse().unwrap(), UserRole::Viewer);
    let mut limited = server.claims(UserRole::Viewer);
    limited.caps = Some(vec![of_patient.clone()]);
    let mut live_only = server.claims(UserRole::Viewer);
    live_only.caps = Some(vec![Capability { allow: vec![Operation::Subscribe], ..of_patient }]);
    let mut of_ward = server.claims(UserRole::Viewer);
    let ward = server.site.gate.shared.patients[0].ward.to_string();
    of_ward.caps = Some(vec![Capability { channels: vec![format!("ward/{ward}/#")], allow: Operation::ALL.to_vec() }]);

    let (own_alert, foreign_alert) = (&alerts[&own], &alerts[&foreign]);
    let nobody = "00000000-0000-7000-8000-000000000000";
    // Path; everybody, one patient, live only, a ward, no token.
    let table = [
        ("/api/v1/patients".to_owned(), [200, 200, 403, 200, 401]),
        (format!("/api/v1/patients/{own}"), [200, 200, 403, 200, 401]),
        (format!("/api/v1/patients/{foreign}"), [200, 403, 403, 200, 401]),
        ("/api/v1/patients/nobody".to_owned(), [404, 403, 403, 403, 401]),
        ("/api/v1/patients/no%20name".to_owned(), [404, 403, 403, 403, 401]),
        ("/api/v1/devices".to_owned(), [200, 200, 403, 200, 401]),
        ("/api/v1/system".to_owned(), [200, 200, 403, 403, 401]),
        ("/api/v1/devices/nothing".to_owned(), [404, 403, 403, 403, 401]),
        (format!("/api/v1/readings?patient={own}"), [200, 200, 403, 200, 401]),
        (format!("/api/v1/readings?patient={foreign}"), [200, 403, 403, 200, 401]),
        ("/api/v1/readings?patient=nobody".to_owned(), [404, 403, 403, 403, 401]),
        (format!("/api/v1/readings/latest?patient={foreign}"), [200, 403, 403, 200, 401]),
        (format!("/api/v1/alerts?patient={foreign}"), [200, 403, 403, 200, 401]),
        (format!("/api/v1/alerts/history?patient={foreign}"), [200, 403, 403, 200, 401]),
        (format!("/api/v1/alerts/{own_alert}"), [200, 200, 403, 200, 401]),
        (format!("/api/v1/alerts/{foreign_alert}"), [200, 404, 403, 200, 401]),
        (format!("/api/v1/alerts/{nobody}"), [404, 404, 403, 404, 401]),
        ("/api/v1/alerts/no-id".to_owned(), [404, 404, 403, 404, 401]),
        (format!("/api/v1/export?patient={foreign}"), [200, 403, 403, 200, 401]),
    ];
    let tokens = [Some(&viewer), Some(&limited), Some(&live_only), Some(&of_ward), None];
    for (path, expected) in &table {
        for (who, (claims, expected)) in tokens.iter().zip(expected).enumerate() {
            let answer = server.request(*claims, "GET", path).await;
            assert_eq!(answer.status, *expected, "{path} by {who}: {}", answer.text());
            if answer.status >= 400 {
                let json = answer.json();
                assert!(json["code"].is_string() && json["message"].is_string(), "{path}: {json}");
            }
        }
    }
    // Lists without a patient leave out what the token does not show.
    for path in [
        "/api/v1/readings?limit=5000",
        "/api/v1/readings/latest",
        "/api/v1/alerts",
        "/api/v1/alerts/history",
        "/api/v1/export?format=ndjson",
    ] {
        let seen = server.request(Some(&limited), "GET", path).await.text();
        assert!(seen.contains(&own) && !seen.contains(&foreign), "{path}: {seen}");
        let seen = server.request(Some(&viewer), "GET", path).await.text();
        assert!(seen.contains(&own) && seen.contains(&foreign), "{path}: {seen}");
    }
    let patients = server.request(Some(&limited), "GET", "/api/v1/patients").await.json();
    assert_eq!(patients["patients"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named_with_its_problem() {
    let server = Server::start();
    let claims = server.claims(UserRole::Viewer);
    let (from, to) = (at(0), at(1000));
    for (path, expected) in [
        (
            "/api/v1/readings?from=yesterday".to_owned(),
            "`from` is not a time as RFC 3339 has it, such as 2026-11-20T22:00:00Z",
        ),
        (format!("/api/v1/readings?from={to}&to={from}"), "`to` is not after `from`"),
        ("/api/v1/readings?limit=0".to_owned(), "`limit` is not a number from 1 to 5000"),
        ("/api/v1/readings?limit=5001".to_owned(), "`limit` is not a number from 1 to 5000"),
        (
            "/api/v1/readings?metric=spo2,blood".to_owned(),
            "`metric` names no metric, or several without commas between",
        ),
        ("/api/v1/readings?patient=no%20name".to_owned(), "`patient` is not the id of a patient"),
        ("/api/v1/readings?cursor=12".to_owned(), "`cursor` is not the `next` of a page before"),
        (
            "/api/v1/readings?cursor=foreign:12".to_owned(),
            "`cursor` is of a run that this bridge does not know (any more)",
        ),
        ("/api/v1/readings?every=1m".to_owned(), "`from` is missing: `every` and `max_points` need it"),
        (
            format!("/api/v1/readings?every=1w&from={from}"),
            "`every` is not a span such as 30s, 5m, 1h or 1d, up to 31d",
        ),
        (format!("/api/v1/readings?every=1m&max_points=9&from={from}"), "`max_points` does not go with `every`"),
        (format!("/api/v1/readings?max_points=9&from={from}"), "`max_points` is at least 6, and needs `from` and `to`"),
        (format!("/api/v1/readings?every=1m&limit=5&from={from}"), "`limit` does not go with `every` and `max_points`"),
        (
            "/api/v1/readings?form=x".to_owned(),
            "this address takes no other parameters than `patient`, `device`, `metric`, `from`, `to`, `limit`, `cursor`, `every`, `max_points`",
        ),
        ("/api/v1/alerts/history?cursor=x".to_owned(), "`cursor` is not the `next` of a page before"),
        ("/api/v1/export?format=pdf".to_owned(), "`format` is neither csv nor ndjson"),
        (
            "/api/v1/readings?from=2026-11-20T22:00:00Z&from=2026-11-20T22:00:00Z".to_owned(),
            "a parameter stands there twice; join several metrics by commas",
        ),
    ] {
        let answer = server.request(Some(&claims), "GET", &path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(answer.json(), json!({"code": "validation", "message": expected}), "{path}");
    }
    // The refusals of the HTTP library have the same form.
    let answer = server.request(Some(&claims), "GET", "/api/v1/patients/%FF").await;
    assert_eq!((answer.status, answer.kind.as_str()), (400, "application/json"));
    assert_eq!(answer.json()["code"], "format");
}

#[tokio::test]
async fn an_export_ends_with_the_token_it_was_asked_for_with() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    for n in 0..8000 {
        server.put(&patient, draft(Metric::HeartRate, number(700 + n % 9), at(i64::from(n) * 1000))).await;
    }
    server.settled().await;
    let path = format!("/api/v1/export?format=ndjson&patient={patient}");
    let claims = Claims { jti: Some("gone".to_owned()), ..server.claims(UserRole::Viewer) };
    // It does not fit into what lies between: the client has to take it.
    let mut stream = server.stream_of(8 * 1024);
    let token = server.token(&claims);
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let other = Claims { sub: "8".to_owned(), ..server.claims(UserRole::Viewer) };
    let whole = server.request(Some(&other), "GET", &path).await;
    assert!(whole.status == 200 && whole.is_whole, "another user's");

    let file = vitalbridge::server::revocation::RevocationFile::new(server.dir.path().to_owned());
    let whose = vitalbridge::server::revocation::Whose::Jti("gone".to_owned());
    file.revoke(whose, "7".to_owned(), server.clock.now().wall).unwrap();
    server.site.gate.access.revocations().wait_for(|revoked| !revoked.is_empty()).await.unwrap();
    let mut rest = Vec::new();
    // A connection that is broken off may end with an error.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < whole.body.len() && !rest.ends_with(b"0\r\n\r\n"), "{} bytes came", rest.len());
}

#[tokio::test(start_paused = true)]
async fn an_export_that_outlives_its_token_is_broken_off() {
    let mut server = Server::start();
    let patient = patients(&server)[0].clone();
    for n in 0..8000 {
        server.put(&patient, draft(Metric::HeartRate, number(700 + n % 9), at(i64::from(n) * 1000))).await;
    }
    server.settled().await;
    server.clock = Clock::tokio(Clock::System.now());
    Arc::make_mut(&mut server.site.gate).clock = server.clock.clone();
    let start = server.clock.now().wall.as_secs();
    let path = format!("/api/v1/export?format=ndjson&patient={patient}");
    // The leeway of 5 s is over when the client goes on, and no write has stalled for too long.
    for (user, exp, is_whole) in [("8", start + 3600, true), ("9", start + 1, false)] {
        let claims = Claims { sub: user.to_owned(), exp, ..server.claims(UserRole::Viewer) };
        let mut stream = server.stream_of(8 * 1024);
        let token = server.token(&claims);
        let head = format!("host: {HOST}\r\nauthorization: Bearer {token}\r\nconnection: close");
        stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        if !is_whole {
            let over = start + 7 - server.clock.now().wall.as_secs();
            tokio::time::sleep(Duration::from_secs(u64::try_from(over).unwrap())).await;
        }
        let mut rest = Vec::new();
        // A connection that is broken off may end with an error.
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest.ends_with(b"\r\n0\r\n\r\n"), is_whole, "{} bytes came", rest.len());
    }
}

#[tokio::test]
async fn an_export_gives_back_what_was_stored() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let pressure = Vital::BloodPressure(Pressure {
        systolic: number(1205),
        diastolic: number(800),
        mean: Value::Absent(Absent::NotMeasured),
    });
    for n in 0..1300 {
        server.put(&patient, draft(Metric::HeartRate, number(700 + n % 9), at(i64::from(n) * 1000))).await;
    }
    server.put(&patient, draft(Metric::Temperature, number(-15), at(1))).await;
    server.put(&patient, draft(Metric::Spo2, Value::Absent(Absent::SensorOff), at(2))).await;
    server.put(&patient, Draft { vital: pressure, ..draft(Metric::Spo2, number(0), at(3)) }).await;
    server
        .put(&patient, Draft { vital: Vital::RrIntervals(vec![1024, 512]), ..draft(Metric::Spo2, number(0), at(4)) })
        .await;
    server.put(&patient, Draft { device: "-d", ..draft(Metric::Spo2, number(970), at(5)) }).await;
    server.settled().await;
    let claims = server.claims(UserRole::Viewer);
    let (rows, _) = server.pages(&format!("/api/v1/readings?patient={patient}&limit=5000")).await;
    let ndjson = server.request(Some(&claims), "GET", &format!("/api/v1/export?format=ndjson&patient={patient}")).await;
    assert!(ndjson.is_whole && ndjson.kind == "application/x-ndjson");
    let lines: Vec<Json> = ndjson.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, rows, "each line is the reading as it was pushed");

    let csv = server.request(Some(&claims), "GET", &format!("/api/v1/export?patient={patient}")).await;
    assert!(csv.is_whole && csv.kind.starts_with("text/csv"));
    let mut reader = csv::Reader::from_reader(csv.body.as_slice());
    let table: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(table.len(), rows.len());
    for (cells, row) in table.iter().zip(&rows) {
        let data = &row["data"];
        let cell = |name: &str| cells[name].as_str();
        let shown = |value: &Json| {
            value
                .as_str()
                .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
        };
        assert_eq!(cell("seq"), shown(&row["seq"]));
        for name in
            ["timestamp", "patient_id", "metric", "unit", "quality", "mode", "source_id", "received", "ts_source"]
        {
            assert_eq!(cell(name), shown(&data[name]), "{name}");
        }
        assert_eq!(cell("value").parse::<f64>().ok(), data["value"].as_f64(), "{data}");
        assert_eq!(cell("absent"), shown(&data["absent"]));
        assert_eq!(cell("diastolic").parse::<f64>().ok(), data["components"]["diastolic"].as_f64());
    }
    let of = |metric: &str| table.iter().find(|cells| cells["metric"] == metric).unwrap();
    assert_eq!(of("temperature")["value"], "-1.5", "a negative number stays one");
    assert_eq!(of("rr_interval")["intervals_ms"], "1000.0 500.0");
    assert!(table.iter().any(|cells| cells["device_id"] == "'-d"), "a name that a spreadsheet would compute is text");
    assert!(csv.text().starts_with("epoch,seq,timestamp,received,patient_id,"));
}

#[tokio::test]
async fn what_a_user_reads_is_bounded_and_the_refusal_says_when_to_come_again() {
    let reads = Allowance::new(60, Duration::from_mins(1), 3);
    let server = Server::with(ServerLimits { reads, ..ServerLimits::default() }, CloseCodes::Own, Clock::System);
    let read = async |user: &str, path: &str| {
        let mut claims = server.claims(UserRole::Admin);
        claims.sub = user.to_owned();
        let token = server.token(&claims);
        let head = "connection: close\r\nauthorization: Bearer";
        server.http(&format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{head} {token}\r\n\r\n")).await
    };
    let paths = [
        "/api/v1/patients",
        "/api/v1/devices",
        "/api/v1/system",
        "/api/v1/readings",
        "/api/v1/readings/latest",
        "/api/v1/alerts",
        "/api/v1/alerts/history",
        "/api/v1/audit",
        "/api/v1/export",
        "/api/v1/rooms/r/members",
        "/api/v1/rooms/r/messages",
        "/api/v1/users/me/preferences",
        "/api/v1/patients/P-0001/limits",
    ];
    for (number, path) in paths.iter().enumerate() {
        let user = format!("reader-{number}");
        for _ in 0..3 {
            let answer = read(&user, "/api/v1/patients").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let refused = read(&user, path).await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("\r\nretry-after: 1\r\n"), "{path}: {refused}");
        assert!(refused.contains(r#"{"code":"rate_limited","message":"#), "{path}: {refused}");
        // What is counted otherwise, or not at all, goes on.
        for path in ["/metrics", "/ws/status"] {
            let answer = read(&user, path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
    }
    let metrics = read("another", "/metrics").await;
    assert!(metrics.contains(&format!("\nvitalbridge_requests_limited_total {}\n", paths.len())), "{metrics}");
    assert!(metrics.contains("\nvitalbridge_limit{name=\"read_burst\"} 3\n"), "{metrics}");
}
