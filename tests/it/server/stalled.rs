//! Displays that do not keep up: what becomes of them, and that nobody else notices.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::{AuditAction, AuditEvent, AuditResult};
use vitalbridge::hub::{Join, Joined, Scope};
use vitalbridge::outbox::{Delivery, LOSSLESS_LANE, Parcel, READING_LANE};
use vitalbridge::pipeline::Control;
use vitalbridge::server::auth::Role as UserRole;
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::connections::Which;
use vitalbridge::store::StoreOptions;
use vitalbridge::vitals::{Metric, Mode};

use super::rest::{Draft, draft, number as number_of};
use super::{HOST, Server, patients};
use crate::dashboard::{Came, Dashboard};

/// How many displays there are, the one that has stalled among them.
const DISPLAYS: usize = 1000;

/// Readings that everybody gets.
const READINGS: usize = 60;

/// Streams of readings, each of a device of its own.
const STREAMS: usize = 160;

/// What is waited for comes within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

async fn listen(server: &Server, delivery: Delivery) -> Joined {
    let (reply, joined) = oneshot::channel();
    let patterns = ["patient/+/spo2", "alerts/+"].map(|pattern| pattern.parse().unwrap()).to_vec();
    let (scope, acks) = (Scope::Everything, false);
    let join = Join { listener: None, user: None, patterns, filter: None, scope, delivery, since: None, acks };
    server.site.gate.control.send(Control::Join(join, reply)).await.unwrap();
    joined.await.unwrap().unwrap()
}

async fn display(server: &Server, delivery: &str) -> Dashboard {
    let token = server.token(&server.claims(UserRole::Viewer));
    let mut dashboard = server.dashboard(&[("Authorization", &format!("Bearer {token}"))]).await.unwrap();
    dashboard
        .say(&json!({"type": "subscribe", "channels": ["patient/+/spo2", "alerts/+"], "delivery": delivery}))
        .await;
    dashboard.next_of("snapshot").await;
    dashboard
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thousand_that_never_reads_changes_nothing_for_the_others() {
    let limits = ServerLimits { per_user: 2000, per_address: 2000, ..ServerLimits::default() };
    let server = Server::with(limits, CloseCodes::Own, Clock::System);
    let all = patients(&server);
    // This one subscribed and does not read a byte any more; its stream takes little.
    let token = server.token(&server.claims(UserRole::Viewer));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let mut stalled = Dashboard::over(server.stream_of(8 * 1024), HOST, "/ws", &headers).await.unwrap();
    stalled.say(&json!({"type": "subscribe", "channels": ["patient/+/spo2", "alerts/+"]})).await;
    stalled.next_of("snapshot").await;
    // And this one is the outbox of such a display, to be looked into.
    let forgotten = listen(&server, Delivery::Latest).await;

    let mut displays = JoinSet::new();
    for _ in 0..DISPLAYS - 1 {
        let mut dashboard = display(&server, "all").await;
        displays.spawn(async move {
            let mut values = Vec::new();
            while values.len() < READINGS {
                match dashboard.read().await {
                    Came::Message(message) if message["type"] == "health_update" => {
                        values.push((message["seq"].as_u64().unwrap(), message["data"]["value"].as_u64().unwrap()));
                    }
                    Came::Message(message) => assert_ne!(message["type"], "gap", "{message}"),
                    end => panic!("{end:?}"),
                }
            }
            values
        });
    }
    for value in 0..READINGS {
        // Numbers that alarm nobody.
        server.reading(&all[value % all.len()], Metric::Spo2, 95 + i32::try_from(value % 3).unwrap()).await;
    }
    let mut first = None;
    while let Some(values) = displays.join_next().await {
        let values = values.unwrap();
        assert!(values.is_sorted(), "in the order of their numbers");
        assert_eq!(values.len(), READINGS);
        // Everybody has got the same.
        assert_eq!(first.get_or_insert_with(|| values.clone()), &values);
    }

    // Of each stream the newest waits, and one alert more than its lane closes.
    assert_eq!(forgotten.outbox.waiting(), all.len(), "one slot a stream");
    let mut parcels = Vec::new();
    assert!(forgotten.outbox.take(usize::MAX, &mut parcels));
    let Some(Parcel::Gap { skipped, streams, .. }) = parcels.first() else { panic!("{:?}", parcels.first()) };
    assert_eq!((*skipped, streams.len()), (u64::try_from(READINGS - all.len()).unwrap(), all.len()));
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_stalled_display_stays_inside_its_lanes() {
    let server = Server::start();
    let all = patients(&server);
    let (latest, every) = (listen(&server, Delivery::Latest).await, listen(&server, Delivery::All).await);
    let (mut most, mut most_bytes) = ((0, 0), 0);
    for round in 0..3 * READING_LANE {
        server.reading(&all[round % all.len()], Metric::Spo2, 97).await;
        if round % 64 == 0 {
            most = (most.0.max(latest.outbox.waiting()), most.1.max(every.outbox.waiting()));
            most_bytes = most_bytes.max(every.outbox.waiting_bytes());
        }
    }
    let (reply, settled) = oneshot::channel();
    server.site.gate.control.send(Control::Settle(reply)).await.unwrap();
    settled.await.unwrap();
    most = (most.0.max(latest.outbox.waiting()), most.1.max(every.outbox.waiting()));
    assert_eq!(most, (all.len(), READING_LANE));
    assert!(most_bytes < (READING_LANE + LOSSLESS_LANE) * 1024, "{most_bytes} bytes");
}

/// A row of the audit trail: of what must not be lost, the simplest.
fn row(number: usize) -> AuditEvent {
    AuditEvent {
        by: "lena".to_owned(),
        address: None,
        action: AuditAction::RemoteCommand,
        object: number.to_string(),
        patient: None,
        device: None,
        source: None,
        result: AuditResult::Done,
        reason: None,
        mode: Mode::Demo,
    }
}

#[tokio::test]
async fn who_does_not_take_what_must_not_be_lost_is_closed_and_nothing_more_waits_for_him() {
    let server = Server::start();
    let token = server.token(&server.claims(UserRole::Admin));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let mut stalled = Dashboard::over(server.stream_of(2048), HOST, "/ws", &headers).await.unwrap();
    stalled.say(&json!({"type": "subscribe", "channels": ["audit"]})).await;
    stalled.next_of("snapshot").await;
    let (reply, joined) = oneshot::channel();
    let (patterns, delivery) = (vec!["audit".parse().unwrap()], Delivery::Latest);
    let (scope, acks) = (Scope::Everything, false);
    let join = Join { listener: None, user: None, patterns, filter: None, scope, delivery, since: None, acks };
    server.site.gate.control.send(Control::Join(join, reply)).await.unwrap();
    let outbox = joined.await.unwrap().unwrap().outbox;
    let mut most = 0;
    for number in 0..LOSSLESS_LANE + 200 {
        server.site.gate.control.send(Control::Audit(row(number))).await.unwrap();
        most = most.max(outbox.waiting());
    }
    server.settled().await;
    assert!((LOSSLESS_LANE / 2..=LOSSLESS_LANE).contains(&most), "{most} waited");
    assert!(outbox.load().is_overrun && outbox.waiting() == 0, "{:?}", outbox.load());
    // The display itself, once it reads again: what it gets is without a gap up to its end, and it is told to come back.
    let mut seen = Vec::new();
    loop {
        match stalled.read().await {
            Came::Message(message) if message["type"] == "audit" => {
                let object = message["data"]["object"].as_str().unwrap();
                seen.extend(object.parse::<usize>().ok());
            }
            Came::Message(message) => {
                if message["type"] == "closing" {
                    assert_eq!((&message["data"]["code"], &message["data"]["reconnect"]), (&json!(4201), &json!(true)));
                }
            }
            end => {
                assert_eq!(end, Came::Closed(4201));
                break;
            }
        }
    }
    assert!(seen.len() < LOSSLESS_LANE, "{}", seen.len());
    assert!(seen.iter().enumerate().all(|(place, number)| place == *number), "{seen:?}");
}

#[tokio::test]
async fn a_slow_client_is_written_little_at_once_so_that_the_rest_can_still_be_replaced() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let token = server.token(&server.claims(UserRole::Viewer));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    // Less than one write of a slow client takes.
    let mut slow = Dashboard::over(server.stream_of(1024), HOST, "/ws", &headers).await.unwrap();
    slow.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
    slow.next_of("snapshot").await;
    let waiting = || {
        let all = server.site.gate.connections.healths(Which::All);
        all.first().map_or(0, |(_, health)| health.load.parcels)
    };
    for number in 0..STREAMS {
        let device: &'static str = Box::leak(format!("d-{number}").into_boxed_str());
        let now = server.clock.now().wall;
        let draft = Draft { device, ..draft(Metric::HeartRate, number_of(600), now) };
        server.put(&patient, draft).await;
    }
    server.settled().await;
    crate::bridge::eventually("the client is slow", LIMIT, || (waiting() < STREAMS && waiting() > 100).then_some(()))
        .await;
    // Each message that it reads makes room for a part of the next write, and never for two.
    let (mut before, mut steps, mut read) = (waiting(), Vec::new(), 0);
    while read < STREAMS {
        if slow.next().await["type"] == "health_update" {
            read += 1;
        }
        // The session has its turn.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let now = waiting();
        if now < before && now > 0 {
            steps.push(before - now);
        }
        before = now;
    }
    assert!(steps.len() > 5, "{steps:?}");
    assert!(steps.iter().all(|step| *step <= 8), "taken at once: {steps:?}");
}

/// The slowest display that is still served, at half the speed of its stream: in virtual time, on a stream that takes
/// only what is read.
#[tokio::test(start_paused = true)]
async fn a_display_at_half_the_streams_speed_is_never_two_seconds_behind() {
    let clock = Clock::tokio(Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(1_795_219_200_000) });
    let server = Server::start_with(clock.clone(), &StoreOptions::default());
    let patient = patients(&server)[0].clone();
    let token = server.token(&server.claims(UserRole::Viewer));
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    // What the kernel takes beyond what is read, as with TCP_NOTSENT_LOWAT.
    let mut slow = Dashboard::over(server.stream_of(4 * 1024), HOST, "/ws", &headers).await.unwrap();
    slow.say(&json!({"type": "subscribe", "channels": ["patient/+/spo2"]})).await;
    slow.next_of("snapshot").await;
    // 50 a second, of which 25 can be read, for 40 s.
    let (readings, wards) = (server.readings.clone(), clock.clone());
    let whose = patient.clone();
    let mut stream = JoinSet::new();
    stream.spawn(async move {
        for value in 0..2000 {
            let reading = super::demo_reading(&whose, Metric::Spo2, 95 + value % 4, wards.now());
            readings.send(vitalbridge::event::SourceMessage::Reading(reading)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (mut oldest, mut read, mut gaps) = (Duration::ZERO, 0, 0);
    while stream.try_join_next().is_none() {
        let message = slow.next().await;
        if message["type"] == "gap" {
            gaps += message["data"]["skipped"].as_u64().unwrap();
        }
        if message["type"] == "health_update" {
            read += 1;
            let published = Wall::parse(message["timestamp"].as_str().unwrap()).unwrap();
            let age = clock.now().wall.0 - published.0;
            oldest = oldest.max(Duration::from_millis(u64::try_from(age).unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    println!("a display at half the speed: {read} read, {gaps} skipped, at most {oldest:?} old");
    assert!(gaps > 500 && read > 300, "{gaps} {read}");
    assert!(oldest <= Duration::from_secs(2), "{oldest:?}");
}
