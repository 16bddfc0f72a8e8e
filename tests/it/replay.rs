//! Recordings played through the supervised source in virtual time.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::LinkState::{self, Closed, Live, Lost, Opening};
use vitalbridge::event::SourceMessage;
use vitalbridge::sources::output::SourceCounters;
use vitalbridge::sources::replay::{ReplayConfig, Speed};
use vitalbridge::sources::{self, SourceConfig, SourceKind};
use vitalbridge::vitals::{Metric, Mode, Reading};

/// A moment to begin at.
const ORIGIN: Stamp = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(1_795_219_200_000) };

fn replay(path: PathBuf, speed: f64) -> SourceConfig {
    SourceConfig {
        id: "recording".parse().unwrap(),
        patient: None,
        device: "monitor".parse().unwrap(),
        mode: Mode::Test,
        kind: SourceKind::Replay(ReplayConfig { path, speed: Speed::new(speed).unwrap() }),
    }
}

/// Plays a recording to its end and gives every message with its time in milliseconds since the start.
async fn play(csv: &str, speed: f64) -> Vec<(u64, SourceMessage)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(csv.as_bytes()).unwrap();
    let clock = Clock::tokio(ORIGIN);
    let (out, mut messages) = mpsc::channel(16);
    let source = sources::run(
        replay(file.path().to_owned(), speed),
        out,
        clock.clone(),
        Arc::new(SourceCounters::default()),
        CancellationToken::new(),
    );
    let collect = async {
        let mut seen = Vec::new();
        while let Some(message) = messages.recv().await {
            seen.push((clock.now().mono.since(ORIGIN.mono).as_millis().try_into().unwrap(), message));
        }
        seen
    };
    let (ended, seen) = tokio::join!(source, collect);
    ended.unwrap();
    seen
}

fn readings(seen: &[(u64, SourceMessage)], metric: Metric) -> Vec<(u64, String)> {
    let of = |reading: &Reading| {
        let value = reading.vital.leading();
        value.valid().map_or_else(|| value.absent().unwrap().to_string(), |number| number.to_string())
    };
    let shown = seen.iter().filter_map(|(at, message)| match message {
        SourceMessage::Reading(reading) if reading.vital.metric() == metric => Some((*at, of(reading))),
        _ => None,
    });
    shown.collect()
}

fn shown(list: &[(u64, &str)]) -> Vec<(u64, String)> {
    list.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_row_holds_until_the_next_and_a_cuff_speaks_once() {
    let csv = "minute,HR,SpO2,NBPSys,NBPDias,NBPMean\n0,60.5,0.0,,,\n1,61,97,120,80,93\n4,62,,,,\n";
    let seen = play(csv, 60.0).await;
    assert_eq!(
        readings(&seen, Metric::HeartRate),
        shown(&[(0, "60.5"), (1000, "61"), (2000, "61"), (3000, "61"), (4000, "62")])
    );
    assert_eq!(
        readings(&seen, Metric::Spo2),
        shown(&[(0, "zero_reported"), (1000, "97"), (2000, "97"), (3000, "97"), (4000, "not_measured")])
    );
    assert_eq!(readings(&seen, Metric::BloodPressure), shown(&[(1000, "120")]));
    let links = seen.iter().filter_map(|(at, message)| match message {
        SourceMessage::Audit(_) | SourceMessage::Answer { .. } => panic!("a recording takes no orders"),
        SourceMessage::Record { .. } => panic!("a recording has no records of a sensor"),
        SourceMessage::Link(event) => Some((*at, event.link)),
        SourceMessage::Reading(reading) => {
            assert_eq!(
                (reading.mode, reading.received.wall.0 - ORIGIN.wall.0),
                (Mode::Test, i64::try_from(*at).unwrap())
            );
            None
        }
        SourceMessage::Wave(block) => panic!("a recording has no waves: {block:?}"),
    });
    let links: Vec<_> = links.collect();
    assert_eq!(links, [(0, LinkState::Opening), (0, LinkState::Live), (5000, LinkState::Closed)]);
}

#[tokio::test(start_paused = true)]
async fn a_long_recording_does_not_run_late() {
    let rows: Vec<String> = (0..3600).map(|second| format!("{second},{}", 60 + second % 7)).collect();
    let seen = play(&format!("t_s,HR\n{}\n", rows.join("\n")), 1.0).await;
    let beats = readings(&seen, Metric::HeartRate);
    assert_eq!(beats.len(), 3600);
    assert_eq!(beats.last().unwrap().0, 3_599_000);
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_is_not_there_is_tried_again_and_played_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late.csv");
    let (out, mut messages) = mpsc::channel(16);
    let (counters, stop) = (Arc::new(SourceCounters::default()), CancellationToken::new());
    let source = sources::run(replay(path.clone(), 1.0), out, Clock::tokio(ORIGIN), counters, stop);
    let watch = async {
        let mut links = Vec::new();
        while let Some(message) = messages.recv().await {
            if let SourceMessage::Link(event) = message {
                if event.link == LinkState::Lost {
                    assert!(event.reason.as_ref().unwrap().contains("late.csv"), "{event:?}");
                    std::fs::write(&path, "t_s,HR\n0,60\n").unwrap();
                }
                links.push(event.link);
            }
        }
        links
    };
    let (ended, links) = tokio::join!(tokio::time::timeout(Duration::from_mins(1), source), watch);
    ended.unwrap().unwrap();
    assert_eq!(links, [Opening, Lost, Opening, Live, Closed]);
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_a_replay_at_once_and_closes_it() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"minute,HR\n0,60\n600,60\n").unwrap();
    let (out, mut messages) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let clock = Clock::tokio(ORIGIN);
    let source = sources::run(
        replay(file.path().to_owned(), 1.0),
        out,
        clock.clone(),
        Arc::new(SourceCounters::default()),
        stop.clone(),
    );
    let watch = async {
        let mut count = 0;
        while let Some(message) = messages.recv().await {
            count += usize::from(matches!(message, SourceMessage::Reading(_)));
            if count == 10 {
                stop.cancel();
            }
        }
    };
    let (ended, ()) = tokio::join!(source, watch);
    ended.unwrap();
    assert_eq!(clock.now().mono.since(ORIGIN.mono), Duration::from_secs(9));
}
