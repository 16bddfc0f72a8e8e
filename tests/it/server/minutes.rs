//! What stays when readings go: minutes, which say the same of a long time as the readings did.

use std::time::Duration;

use serde_json::Value as Json;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::store::StoreOptions;
use vitalbridge::vitals::{Absent, Decimal, Metric, Pressure, Quality, Value, Vital};

use super::rest::{Draft, draft, number};
use super::{Server, patients};

const START: Stamp = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(1_795_219_200_000) };

async fn rows(server: &Server) -> u64 {
    let rows = server.site.gate.reader.events(vitalbridge::ids::Seq::ZERO, 10_000).await.unwrap();
    u64::try_from(rows.len()).unwrap()
}

fn value_of(second: u64) -> Value {
    match second {
        700..730 => Value::Absent(Absent::LeadOff),
        777 => number(2200),
        1234 => number(310),
        _ => number(700 + i32::try_from(second % 50).unwrap()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_time_looks_the_same_when_its_readings_have_gone() {
    let options = StoreOptions { retention: Duration::from_hours(1), ..StoreOptions::default() };
    let clock = Clock::tokio(START);
    let server = Server::start_with(clock.clone(), &options);
    let patient = patients(&server)[0].clone();
    for second in 0..3000 {
        let now = clock.now().wall;
        server.put(&patient, draft(Metric::HeartRate, value_of(second), now)).await;
        if second % 600 == 0 {
            let pressure =
                Pressure { systolic: number(1200), diastolic: number(800), mean: Value::Valid(Decimal::integer(93)) };
            server
                .put(&patient, Draft { vital: Vital::BloodPressure(pressure), ..draft(Metric::Spo2, number(0), now) })
                .await;
        }
        if second % 100 == 0 {
            // What a device had kept.
            let past = Wall(now.0 - 90_000);
            let kept = Draft { quality: Quality::Questionable, ..draft(Metric::HeartRate, number(650), past) };
            server.put(&patient, kept).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    server.settled().await;
    let time = |ms: i64| Wall(START.wall.0 + ms).to_string();
    let chosen =
        format!("patient={patient}&metric=heart_rate,blood_pressure&from={}&to={}", time(-600_000), time(3_600_000));
    let buckets = format!("/api/v1/readings?every=5m&{chosen}");
    let points = format!("/api/v1/readings?max_points=60&{chosen}");
    let (before, few) = (server.get(&buckets).await, server.get(&points).await);
    let stored = rows(&server).await;

    tokio::time::sleep(Duration::from_hours(2)).await;
    for _ in 0..3 {
        server.put(&patient, draft(Metric::Spo2, number(970), clock.now().wall)).await;
        server.settled().await;
        tokio::time::sleep(Duration::from_mins(2)).await;
    }
    let left = rows(&server).await;
    assert!(left + 2000 < stored, "{left} of {stored} are left: readings go in ranges");
    assert!(left > 500, "{left} are left, so that one bucket is of both");
    let after = server.get(&buckets).await;
    assert_eq!(after["buckets"], before["buckets"]);

    let of = |page: &Json| -> Vec<Json> { page["points"].as_array().unwrap().clone() };
    let bare = |point: &Json| {
        let mut point = point.clone();
        point.as_object_mut().unwrap().remove("span_ms");
        point
    };
    let after = of(&server.get(&points).await);
    let spans: Vec<Option<i64>> = after.iter().map(|point| point["span_ms"].as_i64()).collect();
    assert_eq!(spans.first(), Some(&Some(60_000)), "{after:?}");
    assert_eq!(spans.last(), Some(&None), "its readings are there");
    assert_eq!(after.iter().map(bare).collect::<Vec<_>>(), of(&few));
    // Rows are of readings that are there: none is made of a minute.
    let rows = server.get(&format!("/api/v1/readings?limit=5000&{chosen}")).await;
    assert!(u64::try_from(rows["rows"].as_array().unwrap().len()).unwrap() < left);
}
