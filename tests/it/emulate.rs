//! `vitalbridge emulate` and the real serial source: what the scenario sets arrives, and each fault costs what it must.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use vitalbridge::clock::{Clock, Mono};
use vitalbridge::decode::{Decoded, Decoder};
use vitalbridge::emulator::machine::{Doing, Emulator};
use vitalbridge::emulator::scenario::Scenario;
use vitalbridge::encode::Encoder;
use vitalbridge::event::{LinkState, SourceMessage};
use vitalbridge::profile::{Profile, built_in};
use vitalbridge::sources::output::SourceCounters;
use vitalbridge::sources::serial::SerialConfig;
use vitalbridge::sources::{self, SourceConfig, SourceKind};
use vitalbridge::vitals::{Absent, Metric, Mode, Reading, Status, Value, Vital};

use crate::bridge::{program, signal};
use crate::encode::described;

/// Longest time that anything may take to happen.
const DEADLINE: Duration = Duration::from_secs(30);

fn profile(id: &str) -> Arc<Profile> {
    built_in(id).unwrap().unwrap()
}

/// A running `vitalbridge emulate --json`; killed when dropped.
struct Emulated {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// As a configuration names it.
    port: String,
    folder: tempfile::TempDir,
}

impl Emulated {
    fn start(profile: &str, scenario: &str, is_tcp: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scenario.toml");
        std::fs::write(&file, scenario).unwrap();
        let mut command = program();
        command.args(["emulate", "--json", "--profile", profile, "--scenario", file.to_str().unwrap()]);
        if is_tcp {
            command.args(["--tcp", "127.0.0.1:0"]);
        } else {
            command.args(["--pty", folder.path().join("port").to_str().unwrap()]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((ready["event"].as_str(), ready["profile"].as_str()), (Some("ready"), Some(profile)));
        let port = ready["port"].as_str().unwrap().to_owned();
        Self { child, lines, port, folder }
    }

    /// Ctrl-C; what it counted.
    fn stop(mut self) -> serde_json::Value {
        signal(self.child.id(), "INT");
        let end: serde_json::Value = serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(end["event"], "ended");
        assert!(self.child.wait().unwrap().success());
        assert!(self.folder.path().join("port").symlink_metadata().is_err(), "the link stays behind");
        end
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The real serial source at an emulated device.
struct Rig {
    emulated: Emulated,
    messages: mpsc::Receiver<SourceMessage>,
    counters: Arc<SourceCounters>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    seen: Vec<SourceMessage>,
}

impl Rig {
    fn start(id: &str, scenario: &str, is_tcp: bool, serial_number: Option<&str>) -> Self {
        let emulated = Emulated::start(id, scenario, is_tcp);
        let config = SourceConfig {
            id: "port".parse().unwrap(),
            patient: Some("P-0001".parse().unwrap()),
            device: "monitor".parse().unwrap(),
            mode: Mode::Test,
            kind: SourceKind::Serial(SerialConfig {
                serial_number: serial_number.map(ToOwned::to_owned),
                ..SerialConfig::new(emulated.port.parse().unwrap(), profile(id))
            }),
        };
        let (out, messages) = mpsc::channel(1024);
        let (counters, stop) = (Arc::new(SourceCounters::default()), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let source = sources::run(config, out, Clock::System, Arc::clone(&counters), stop.clone());
        tasks.spawn(async move { source.await.unwrap() });
        Self { emulated, messages, counters, stop, tasks, seen: Vec::new() }
    }

    /// Waits for the next message that is wanted.
    async fn until(&mut self, what: &str, mut wanted: impl FnMut(&SourceMessage) -> bool) {
        let work = async {
            loop {
                let message = self.messages.recv().await.expect("the source ended");
                let found = wanted(&message);
                self.seen.push(message);
                if found {
                    return;
                }
            }
        };
        let result = tokio::time::timeout(DEADLINE, work).await;
        assert!(result.is_ok(), "{what} did not come; so far: {:#?}", self.seen);
    }

    async fn until_value(&mut self, metric: Metric, wanted: Value) {
        let is_it = |message: &SourceMessage| match message {
            SourceMessage::Reading(reading) => {
                reading.vital.metric() == metric && is_equal(reading.vital.leading(), wanted)
            }
            _ => false,
        };
        self.until(&format!("{metric} = {wanted:?}"), is_it).await;
    }

    async fn until_link(&mut self, state: LinkState) {
        self.until(
            &format!("{state:?}"),
            |message| matches!(message, SourceMessage::Link(event) if event.link == state),
        )
        .await;
    }

    /// Every value of a metric so far.
    fn values(&self, metric: Metric) -> Vec<Value> {
        let values = self.seen.iter().filter_map(|message| match message {
            SourceMessage::Reading(reading) if reading.vital.metric() == metric => Some(reading.vital.leading()),
            _ => None,
        });
        values.collect()
    }

    fn readings(&self) -> impl DoubleEndedIterator<Item = &Reading> {
        self.seen.iter().filter_map(|message| match message {
            SourceMessage::Reading(reading) => Some(reading),
            _ => None,
        })
    }

    fn rubbish(&self) -> u64 {
        self.counters.rubbish_bytes.load(Ordering::Relaxed)
    }

    /// Stops the source, then the device; what the device counted.
    async fn finish(mut self) -> serde_json::Value {
        self.stop.cancel();
        let drained = async { while self.messages.recv().await.is_some() {} };
        tokio::time::timeout(DEADLINE, drained).await.unwrap();
        self.tasks.join_next().await.unwrap().unwrap();
        let Self { emulated, .. } = self;
        emulated.stop()
    }
}

fn is_equal(found: Value, wanted: Value) -> bool {
    match (found, wanted) {
        (Value::Valid(found), Value::Valid(wanted)) => found.compare(wanted).is_eq(),
        (found, wanted) => found == wanted,
    }
}

fn number(text: &str) -> Value {
    Value::Valid(text.parse().unwrap())
}

#[tokio::test]
async fn values_and_reasons_of_the_scenario_arrive_at_a_pty() {
    let scenario = r#"
        [[step]]
        set = { spo2 = 85, pulse_rate = 131, heart_rate = 132, respiratory_rate = 33, temperature = 38.4 }
        [[step]]
        at = "4s"
        status = ["searching"]
        [[step]]
        at = "8s"
        status = []
        set = { spo2 = 86, blood_pressure = { systolic = 180, diastolic = 110, mean = 133 } }
        measure = true
    "#;
    // It is silent until each of its parts has been switched on, so this shows that the source's commands arrive.
    let mut rig = Rig::start("berry-pm6750", scenario, false, None);
    rig.until_link(LinkState::Live).await;
    rig.until_value(Metric::Spo2, number("85")).await;
    rig.until_value(Metric::Temperature, number("38.4")).await;
    rig.until_value(Metric::Spo2, Value::Absent(Absent::Searching)).await;
    rig.until_value(Metric::Spo2, number("86")).await;
    rig.until_value(Metric::BloodPressure, number("180")).await;
    for (metric, expected) in [
        (Metric::PulseRate, vec![number("131"), Value::Absent(Absent::Searching)]),
        (Metric::HeartRate, vec![number("132")]),
        (Metric::RespiratoryRate, vec![number("33")]),
    ] {
        let found = rig.values(metric);
        assert!(!found.is_empty() && found.iter().all(|value| expected.contains(value)), "{metric}: {found:?}");
    }
    assert_eq!(rig.rubbish(), 0);
    let end = rig.finish().await;
    assert_eq!((end["unknown_bytes"].as_u64(), end["hang_ups"].as_u64()), (Some(0), Some(0)), "{end}");
    assert!(end["frames"].as_u64().unwrap() > 3000, "{end}");
}

async fn check_fault(fault: &str, counted: &str, makes_rubbish: bool) {
    let scenario = format!(
        "[[step]]\nset = {{ spo2 = 85 }}\n[[step]]\nat = \"2s\"\n{fault}\n\
         [[step]]\nat = \"5s\"\nend_faults = true\nset = {{ spo2 = 86 }}\n"
    );
    let mut rig = Rig::start("berry-pm6750", &scenario, false, None);
    rig.until_value(Metric::Spo2, number("85")).await;
    rig.until_value(Metric::Spo2, number("86")).await;
    let values = rig.values(Metric::Spo2);
    assert!(values.iter().all(|value| [number("85"), number("86")].contains(value)), "{fault}: {values:?}");
    assert_eq!(rig.rubbish() > 0, makes_rubbish, "{fault}: {}", rig.rubbish());
    let is_lost = |message: &SourceMessage| matches!(message, SourceMessage::Link(event) if matches!(event.link, LinkState::Lost | LinkState::Silent));
    assert!(!rig.seen.iter().any(is_lost), "{fault}: {:#?}", rig.seen);
    let end = rig.finish().await;
    assert!(counted.is_empty() || end[counted].as_u64().unwrap() > 0, "{fault}: {end}");
}

#[tokio::test]
async fn damaged_bytes_cost_frames_and_never_make_a_wrong_value() {
    let faults = [
        ("drop_bytes = { every = 300 }", "dropped_bytes", true),
        ("flip_bits = { every = 300 }", "flipped_bytes", true),
        ("flip_bits = { probability = 0.003 }", "flipped_bytes", true),
        ("garbage = 500", "garbage_bytes", true),
        ("duplicate = { every = 10 }", "duplicated_frames", false),
        ("split_writes = true", "", false),
    ];
    let all = faults.map(|(fault, counted, makes_rubbish)| check_fault(fault, counted, makes_rubbish));
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn a_line_that_hangs_up_in_a_frame_is_lost_and_comes_back() {
    for is_tcp in [false, true] {
        let scenario = "[[step]]\nset = { spo2 = 85 }\n[[step]]\nat = \"2s\"\nhalf_frame_then_hangup = \"1s\"\n\
            set = { spo2 = 86 }\n";
        let mut rig = Rig::start("nonin-df2", scenario, is_tcp, None);
        rig.until_value(Metric::Spo2, number("85")).await;
        rig.until_link(LinkState::Lost).await;
        rig.until_link(LinkState::Live).await;
        rig.until_value(Metric::Spo2, number("86")).await;
        let end = rig.finish().await;
        assert_eq!(end["hang_ups"], 1, "{end}");
    }
}

async fn check_pause(id: &str, fault: &str) {
    let scenario = format!(
        "[[step]]\nset = {{ spo2 = 85 }}\n[[step]]\nat = \"2s\"\n{fault} = \"7s\"\n[[step]]\nat = \"9s\"\n\
         set = {{ spo2 = 86 }}\n"
    );
    let mut rig = Rig::start(id, &scenario, false, None);
    rig.until_value(Metric::Spo2, number("85")).await;
    rig.until_link(LinkState::Silent).await;
    let before = rig.readings().count();
    rig.until_link(LinkState::Live).await;
    assert_eq!(rig.readings().count(), before, "{id}, {fault}: nothing comes out of the silence: {:#?}", rig.seen);
    rig.until_value(Metric::Spo2, number("86")).await;
    let of = |reading: &&Reading, percent| {
        reading.vital.metric() == Metric::Spo2 && is_equal(reading.vital.leading(), number(percent))
    };
    let newest_old = rig.readings().rfind(|reading| of(reading, "85")).unwrap();
    let first_new = rig.readings().find(|reading| of(reading, "86")).unwrap();
    let between = first_new.received.mono.since(newest_old.received.mono);
    assert!(between >= Duration::from_secs(6), "{id}, {fault}: {between:?}");
    rig.finish().await;
}

#[tokio::test]
async fn a_long_pause_is_silence_and_no_value_outlives_it() {
    let pauses = [
        ("nonin-df2", "pause"),
        ("nonin-df2", "half_frame_then_pause"),
        ("contec-v7", "half_frame_then_pause"),
        ("berry-pm6750", "half_frame_then_pause"),
    ];
    futures_util::future::join_all(pauses.map(|(id, fault)| check_pause(id, fault))).await;
}

#[tokio::test]
async fn a_probe_that_is_off_leaves_the_ecg_and_the_temperature_alone() {
    let scenario = "[[step]]\nset = { spo2 = 85, heart_rate = 132, temperature = 38.4 }\n[[step]]\nat = \"2s\"\n\
        status = [\"sensor_off\"]\nset = { heart_rate = 133, temperature = 38.5 }\n";
    let mut rig = Rig::start("berry-pm6750", scenario, false, None);
    rig.until_value(Metric::Spo2, number("85")).await;
    rig.until_value(Metric::Spo2, Value::Absent(Absent::SensorOff)).await;
    let is_told = |message: &SourceMessage| matches!(message, SourceMessage::Link(event) if event.link == LinkState::Live && event.status.contains(&Status::SensorOff));
    if !rig.seen.iter().any(is_told) {
        rig.until("the status", is_told).await;
    }
    rig.until_value(Metric::HeartRate, number("133")).await;
    rig.until_value(Metric::Temperature, number("38.5")).await;
    for metric in [Metric::HeartRate, Metric::Temperature] {
        let found = rig.values(metric);
        assert!(found.iter().all(|value| value.valid().is_some()), "{metric}: {found:?}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn another_serial_number_stops_the_values() {
    let scenario = "[[step]]\nserial_number = \"AB-1234\"\nset = { spo2 = 85 }\n[[step]]\nat = \"3s\"\n\
        serial_number = \"XX-9\"\nset = { spo2 = 86 }\n";
    let mut rig = Rig::start("contec-v7", scenario, false, Some("AB-1234"));
    rig.until_value(Metric::Spo2, number("85")).await;
    let mut reason = None;
    rig.until("the stranger", |message| match message {
        SourceMessage::Link(event) if event.status.contains(&Status::DeviceChanged) => {
            reason.clone_from(&event.reason);
            true
        }
        _ => false,
    })
    .await;
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("XX-9")), "{reason:?}");
    assert!(!rig.values(Metric::Spo2).contains(&number("86")));
    rig.finish().await;
}

#[test]
fn a_cuff_answers_the_poll_with_the_result_after_its_start_command() {
    let emulated = Emulated::start("suntech-nibp", "", true);
    let mut host = TcpStream::connect(emulated.port.strip_prefix("tcp://").unwrap()).unwrap();
    host.set_read_timeout(Some(DEADLINE)).unwrap();
    let profile = profile("suntech-nibp");
    let mut decoder = Decoder::new(Arc::clone(&profile));
    let mut ask = |host: &mut TcpStream| -> Option<Value> {
        host.write_all(&profile.link().poll[0].send).unwrap();
        let mut answer = [0; 24];
        host.read_exact(&mut answer).unwrap();
        let mut decoded = Vec::new();
        decoder.push(&answer, &mut decoded);
        decoded.iter().find_map(|item| match item {
            Decoded::Vital(vital) => match &vital.vital {
                Vital::BloodPressure(pressure) => Some(pressure.systolic),
                _ => None,
            },
            _ => None,
        })
    };
    // Garbage is no command, and is counted.
    host.write_all(&[0x3A, 0x99, 0x00]).unwrap();
    assert_eq!(ask(&mut host), Some(Value::Absent(Absent::ZeroReported)));
    let start = profile.link().commands.iter().find(|command| command.id == "nibp_start").unwrap();
    host.write_all(&start.send[0]).unwrap();
    let deadline = Clock::System.now().mono + DEADLINE;
    let result = loop {
        assert!(Clock::System.now().mono < deadline, "no result came");
        match ask(&mut host) {
            Some(Value::Valid(systolic)) => break systolic,
            Some(Value::Absent(_)) | None => {}
        }
    };
    assert!((90.0..160.0).contains(&result.to_f64()), "{result}");
    assert_eq!(emulated.stop()["unknown_bytes"], 3);
}

/// The exit code and what was said of a call that must not start a device.
fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = program().arg("emulate").args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Clock::System.now().mono + DEADLINE;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Clock::System.now().mono > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("a device was started: {arguments:?}");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (code, text)
}

#[test]
fn a_wrong_call_says_what_is_wrong_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "precious").unwrap();
    let taken = taken.to_str().unwrap();
    let (code, text) = failure(&["--profile", "nonin-df2", "--pty", taken]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("is there already"), "{text}");
    assert_eq!(std::fs::read_to_string(taken).unwrap(), "precious");

    let scenario = folder.path().join("scenario.toml");
    std::fs::write(&scenario, "[[step]]\nat = \"soon\"\ncolour = 1\nset = { etco2 = 5 }\n").unwrap();
    let (code, text) = failure(&["--profile", "nonin-df2", "--scenario", scenario.to_str().unwrap()]);
    assert_eq!(code, Some(64), "{text}");
    for line in ["line 2: `soon` is not a time", "line 3: unknown field `colour`", "line 4: profile nonin-df2 has no"] {
        assert!(text.contains(line), "{text}");
    }
    let (code, text) = failure(&["--profile", "nonin"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("nonin-df2"), "{text}");
}

/// Frames of a device in virtual time, whose host sends its commands once a second.
fn play(emulator: &mut Emulator, profile: &Profile, until: impl Fn(&Emulator, Mono) -> bool) -> Vec<u8> {
    let link = profile.link();
    let mut bytes = Vec::new();
    let mut now = Mono::from_millis(0);
    for step in &link.init {
        emulator.hear(&step.send, now);
    }
    while !until(emulator, now) {
        if now.as_millis().is_multiple_of(1000) {
            let repeats = link.keep_alive.iter().chain(&link.poll);
            repeats.for_each(|repeat| emulator.hear(&repeat.send, now));
        }
        for doing in emulator.advance(true, now).unwrap() {
            if let Doing::Send(sent) = doing {
                bytes.extend(sent);
            }
        }
        now = now + Duration::from_millis(10);
    }
    bytes
}

#[test]
fn every_profile_sends_at_its_nominal_rate_and_nothing_is_skipped() {
    for id in described() {
        let profile = profile(id);
        let mut emulator = Emulator::new(&profile, Scenario::default(), 3, Mono::from_millis(0)).unwrap();
        let bytes = play(&mut emulator, &profile, |_, now| now.as_millis() >= 60_000);
        let mut decoder = Decoder::new(Arc::clone(&profile));
        let mut decoded = Vec::new();
        decoder.push(&bytes, &mut decoded);
        decoder.finish(&mut decoded);
        let counters = decoder.counters();
        assert_eq!((counters.bad_checksum, counters.skipped_bytes), (0, 0), "{id}");
        assert_eq!(counters.frames, emulator.totals().frames, "{id}");
        // One of each for a poll each second; marks of beats come beside the nominal rate.
        let hz = if profile.link().poll.is_empty() { profile.nominal_hz() } else { 1.0 };
        let expected = hz * 60.0;
        #[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "a few thousand frames")]
        let found = counters.frames as f64;
        assert!((found - expected).abs() <= 2.0 + expected * 0.01, "{id}: {found} frames, expected {expected}");
        let has_values = decoded.iter().any(|item| matches!(item, Decoded::Vital(_)));
        assert!(has_values, "{id}");
    }
}

#[test]
fn a_contec_is_silent_before_its_start_and_after_its_keep_alive() {
    let profile = profile("contec-v7");
    let at = Mono::from_millis;
    let mut emulator = Emulator::new(&profile, Scenario::default(), 3, at(0)).unwrap();
    assert_eq!(emulator.advance(true, at(500)).unwrap(), []);
    for step in &profile.link().init {
        emulator.hear(&step.send, at(1000));
    }
    assert!(!emulator.advance(true, at(1100)).unwrap().is_empty());
    assert!(!emulator.advance(true, at(11_000)).unwrap().is_empty());
    assert_eq!(emulator.advance(true, at(11_001)).unwrap(), []);
}

#[test]
fn ten_corrupt_bytes_in_400_frames_cost_at_most_ten_frames() {
    let profile = profile("berry-pm6750");
    let encoder = Encoder::new(Arc::clone(&profile)).unwrap();
    // About 4300 bytes are 400 frames.
    let scenario = Scenario::parse("[[step]]\nflip_bits = { every = 400, times = 10 }\n", &encoder).unwrap();
    let (mut worst, mut sum) = (0, 0);
    for seed in 0..200 {
        let mut emulator = Emulator::new(&profile, scenario.clone(), seed, Mono::from_millis(0)).unwrap();
        let bytes = play(&mut emulator, &profile, |emulator, _| emulator.totals().frames >= 400);
        let totals = emulator.totals();
        assert_eq!(totals.faults.flipped_bytes, 10, "seed {seed}: {totals:?}");
        let mut decoder = Decoder::new(Arc::clone(&profile));
        let mut decoded = Vec::new();
        decoder.push(&bytes, &mut decoded);
        decoder.finish(&mut decoded);
        let lost = totals.frames - decoder.counters().frames;
        (worst, sum) = (worst.max(lost), sum + lost);
    }
    println!("worst {worst}, {sum} frames in 200 runs");
    assert!(worst <= 10, "{worst}");
    assert!(sum > 1000, "{sum}");
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let profile = profile("berry-pm6750");
    let run = |seed| {
        let mut emulator = Emulator::new(&profile, Scenario::default(), seed, Mono::from_millis(0)).unwrap();
        play(&mut emulator, &profile, |_, now| now.as_millis() >= 5000)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_scenarios_of_the_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let encoder = Encoder::new(profile("nonin-df2")).unwrap();
    let example = std::fs::read_to_string(root.join("docs/examples/scenario.toml")).unwrap();
    assert_eq!(Scenario::parse(&example, &encoder).unwrap().steps.len(), 8);
    let page = std::fs::read_to_string(root.join("docs/emulator.md")).unwrap();
    let snippet = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(Scenario::parse(snippet, &encoder).unwrap().steps.len(), 3);
}

/// What the program prints is what the page shows, and the source it prints is one that `check` takes.
#[test]
fn the_announcement_of_the_documents_is_the_real_one() {
    let folder = tempfile::tempdir().unwrap();
    let port = folder.path().join("nonin");
    let mut command = program();
    command.args(["emulate", "--profile", "nonin-df2", "--pty", port.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        printed.push_str(&line);
        printed.push('\n');
        if line.contains("Ctrl-C") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/emulator.md")).unwrap();
    let shown = printed.replace(port.to_str().unwrap(), "/tmp/nonin");
    assert!(page.contains(&shown), "{shown}");
    let file = folder.path().join("vitalbridge.toml");
    let source: Vec<&str> = printed.lines().filter(|line| !line.starts_with("vitalbridge:")).collect();
    std::fs::write(&file, source.join("\n")).unwrap();
    let checked = program().args(["check", "--config", file.to_str().unwrap()]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
