//! The serial source over real pseudo terminals and TCP: real oximeter bytes, faults, hang-ups, and no invented number.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::LinkState::{self, Live, Lost, Opening, Silent, Waiting};
use vitalbridge::event::{SourceEvent, SourceMessage};
use vitalbridge::profile::{Profile, built_in};
use vitalbridge::sources::output::SourceCounters;
use vitalbridge::sources::serial::{SerialConfig, SerialPort};
use vitalbridge::sources::simulator::oximeters::{Contec, Nonin, Sensed};
use vitalbridge::sources::simulator::pty::EmulatedPort;
use vitalbridge::sources::{self, SourceConfig, SourceKind};
use vitalbridge::vitals::{Absent, Metric, Mode, Quality, Reading, Status, TimeSource, Value};

/// Longest time that anything may take to happen.
const DEADLINE: Duration = Duration::from_secs(20);
/// A finger with a pulse.
const FINGER: Sensed = Sensed { on_finger: true, pulse_rate: 72, spo2: 97, wave: 60, beat: false };

fn profile(id: &str) -> Arc<Profile> {
    built_in(id).unwrap().unwrap()
}

/// A source at work, and what it has said so far.
struct Rig {
    messages: mpsc::Receiver<SourceMessage>,
    seen: Vec<SourceMessage>,
    counters: Arc<SourceCounters>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    folder: tempfile::TempDir,
}

impl Rig {
    fn start(folder: tempfile::TempDir, port: SerialPort, profile: Arc<Profile>, serial_number: Option<&str>) -> Self {
        Self::start_by(Clock::System, folder, port, profile, serial_number)
    }

    fn start_by(
        clock: Clock,
        folder: tempfile::TempDir,
        port: SerialPort,
        profile: Arc<Profile>,
        serial_number: Option<&str>,
    ) -> Self {
        let config = SourceConfig {
            id: "port".parse().unwrap(),
            patient: Some("P-0001".parse().unwrap()),
            device: "oximeter".parse().unwrap(),
            mode: Mode::Test,
            kind: SourceKind::Serial(SerialConfig {
                serial_number: serial_number.map(ToOwned::to_owned),
                ..SerialConfig::new(port, profile)
            }),
        };
        let (out, messages) = mpsc::channel(1024);
        let (counters, stop) = (Arc::new(SourceCounters::default()), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let source = sources::run(config, out, clock, Arc::clone(&counters), stop.clone());
        tasks.spawn(async move { source.await.unwrap() });
        Self { messages, seen: Vec::new(), counters, stop, tasks, folder }
    }

    /// A source at a pseudo terminal, and the device's end of it, plugged in.
    fn at_pty(profile_id: &str) -> (Self, EmulatedPort) {
        Self::at_pty_with(profile(profile_id), None)
    }

    fn at_pty_with(profile: Arc<Profile>, serial_number: Option<&str>) -> (Self, EmulatedPort) {
        let folder = tempfile::tempdir().unwrap();
        let mut port = EmulatedPort::new(folder.path().join("oximeter"));
        port.plug().unwrap();
        let path = SerialPort::Path(port.link().to_owned());
        (Self::start(folder, path, profile, serial_number), port)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("oximeter")
    }

    /// Waits until `wanted` comes, while `device` does what it does 20 times a second.
    async fn until<T>(&mut self, mut device: impl FnMut(), mut wanted: impl FnMut(&SourceMessage) -> Option<T>) -> T {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let work = async {
            loop {
                tokio::select! {
                    biased;
                    message = self.messages.recv() => {
                        let message = message.expect("the source ended");
                        let found = wanted(&message);
                        self.seen.push(message);
                        if let Some(found) = found {
                            return found;
                        }
                    }
                    _ = tick.tick() => device(),
                }
            }
        };
        let result = tokio::time::timeout(DEADLINE, work).await;
        match result {
            Ok(found) => found,
            Err(elapsed) => panic!("it did not come ({elapsed}); so far: {:#?}", self.seen),
        }
    }

    async fn until_link(&mut self, device: impl FnMut(), state: LinkState) -> SourceEvent {
        self.until(device, |message| match message {
            SourceMessage::Link(event) if event.link == state => Some(event.clone()),
            _ => None,
        })
        .await
    }

    async fn until_value(&mut self, device: impl FnMut(), metric: Metric, wanted: Value) -> Reading {
        self.until(device, |message| match message {
            SourceMessage::Reading(reading)
                if reading.vital.metric() == metric && reading.vital.leading() == wanted =>
            {
                Some(reading.clone())
            }
            _ => None,
        })
        .await
    }

    fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.seen.iter().filter_map(|message| match message {
            SourceMessage::Reading(reading) => Some(reading),
            _ => None,
        })
    }

    fn links(&self) -> Vec<LinkState> {
        let links = self.seen.iter().filter_map(|message| match message {
            SourceMessage::Link(event) => Some(event.link),
            _ => None,
        });
        links.collect()
    }

    fn count(&self, counter: impl Fn(&SourceCounters) -> &std::sync::atomic::AtomicU64) -> u64 {
        counter(&self.counters).load(Ordering::Relaxed)
    }

    /// Stops the source and takes everything that it still had to say.
    async fn finish(&mut self, mut device: impl FnMut()) {
        self.stop.cancel();
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let work = async {
            loop {
                tokio::select! {
                    message = self.messages.recv() => match message {
                        Some(message) => self.seen.push(message),
                        None => return,
                    },
                    _ = tick.tick() => device(),
                }
            }
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap();
        self.tasks.join_next().await.unwrap().unwrap();
    }
}

/// A Nonin that has found the pulse.
fn nonin() -> Nonin {
    let mut nonin = Nonin::new();
    for _ in 0..300 {
        nonin.frame(FINGER);
    }
    nonin
}

/// A Contec that has found the pulse.
fn contec() -> Contec {
    let mut contec = Contec::new();
    for _ in 0..200 {
        contec.frame(FINGER, Clock::System.now().mono);
    }
    contec
}

fn number(value: i32) -> Value {
    Value::Valid(vitalbridge::vitals::Decimal::integer(value))
}

/// About a twentieth of a second of frames.
fn nonin_burst(nonin: &mut Nonin, sensed: Sensed) -> Vec<u8> {
    (0..4).flat_map(|_| nonin.frame(sensed)).collect()
}

#[tokio::test]
async fn a_contec_is_asked_to_start_kept_alive_and_told_to_stop() {
    let (mut rig, mut port) = Rig::at_pty("contec-v7");
    let mut contec = contec();
    let mut heard = Vec::new();
    let mut device = || {
        let commands = port.received();
        let now = Clock::System.now().mono;
        port.send(&contec.command(&commands, now));
        heard.extend(commands);
        for _ in 0..3 {
            // One byte at a time: the frame arrives in pieces.
            for byte in contec.frame(FINGER, now).into_iter().flatten() {
                port.send(&[byte]);
            }
        }
    };
    rig.until_link(&mut device, LinkState::Live).await;
    let reading = rig.until_value(&mut device, Metric::Spo2, number(97)).await;
    assert_eq!(reading.patient, Some("P-0001".parse().unwrap()));
    assert_eq!((reading.mode, reading.device.as_str(), reading.source.as_str()), (Mode::Test, "oximeter", "port"));
    rig.until_value(&mut device, Metric::PulseRate, number(72)).await;
    let keep_alive = [0x7D, 0x81, 0xAF];
    let wait_until = Clock::System.now().mono + Duration::from_secs(6);
    rig.until(&mut device, |_| (Clock::System.now().mono > wait_until).then_some(())).await;
    rig.finish(&mut device).await;
    assert!(heard.windows(3).any(|bytes| bytes == keep_alive), "{heard:02X?}");
    assert!(!contec.is_streaming(), "it was not told to stop");
    assert_eq!(rig.links().last(), Some(&LinkState::Closed));
}

#[tokio::test]
async fn rubbish_and_cut_frames_on_the_line_never_become_a_number() {
    let seed = Clock::System.now().mono.0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut nonin = nonin();
    let mut device = || {
        let frames = nonin_burst(&mut nonin, FINGER);
        match random.u8(0..12) {
            0 => {
                let rubbish: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
                port.send(&rubbish);
            }
            1 => port.send(&frames[..random.usize(1..frames.len())]),
            _ => {
                let (head, tail) = frames.split_at(random.usize(0..frames.len()));
                port.send(head);
                port.send(tail);
            }
        }
    };
    let wait_until = Clock::System.now().mono + Duration::from_secs(6);
    rig.until_value(&mut device, Metric::Spo2, number(97)).await;
    rig.until(&mut device, |_| (Clock::System.now().mono > wait_until).then_some(())).await;
    rig.finish(&mut device).await;
    for reading in rig.readings() {
        let expected = if reading.vital.metric() == Metric::Spo2 { 97 } else { 72 };
        assert_eq!(reading.vital.leading(), number(expected), "seed {seed}: {reading:?}");
    }
    assert!(rig.count(|counters| &counters.rubbish_bytes) > 0);
    assert!(!rig.links().contains(&LinkState::Lost), "{:?}", rig.links());
}

#[tokio::test]
async fn a_hang_up_in_the_middle_of_a_frame_is_lost_until_the_port_is_back() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    port.send(&module.frame(FINGER)[..3]);
    port.unplug();
    let lost = rig.until_link(|| (), LinkState::Lost).await;
    assert!(lost.reason.unwrap().ends_with("was lost: it was hung up"));
    let seen_when_lost = rig.seen.len();
    // The link file is gone meanwhile, so that opening fails too.
    let missing = rig.until_link(|| (), LinkState::Lost).await;
    assert!(missing.reason.unwrap().starts_with("cannot open "));
    let reads_while_lost = rig.count(|counters| &counters.reads);
    port.plug().unwrap();
    let mut module = nonin();
    rig.until_link(|| port.send(&nonin_burst(&mut module, FINGER)), LinkState::Waiting).await;
    assert_eq!(rig.count(|counters| &counters.reads), reads_while_lost, "it read from a port that it had lost");
    assert!(
        rig.seen[seen_when_lost..].iter().all(|message| matches!(message, SourceMessage::Link(_))),
        "a value was repeated"
    );
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    assert_eq!(rig.links(), [Opening, Waiting, Live, Lost, Lost, Waiting, Live]);
}

#[tokio::test]
async fn a_port_that_was_hung_up_is_read_once_and_not_in_a_busy_loop() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    let before = rig.count(|counters| &counters.reads);
    let path = rig.path();
    // The link leads to a terminal whose other end is gone: opening and reading it fails at once, again and again.
    let dead = std::fs::read_link(&path).unwrap();
    port.unplug();
    std::os::unix::fs::symlink(dead, &path).unwrap();
    for _ in 0..3 {
        let deadline = Clock::System.now().mono + Duration::from_secs(1);
        while Clock::System.now().mono < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let reads = rig.count(|counters| &counters.reads) - before;
    assert!((1..20).contains(&reads), "{reads} reads from a dead port in 3 s");
    let restarts = rig.count(|counters| &counters.restarts);
    assert!((1..=6).contains(&restarts), "{restarts} starts in 3 s");
    rig.finish(|| ()).await;
}

#[tokio::test]
async fn a_port_that_another_program_has_locked_is_refused_with_that_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oximeter");
    let mut port = EmulatedPort::new(path.clone());
    port.plug().unwrap();
    let other = tokio_serial::SerialStream::open(&tokio_serial::new(path.to_string_lossy(), 9600)).unwrap();
    let mut rig = Rig::start(folder, SerialPort::Path(path.clone()), profile("nonin-df2"), None);
    let refused = rig.until_link(|| (), LinkState::Lost).await;
    let expected = format!("{} is in use by another program", path.display());
    assert_eq!(refused.reason, Some(expected));
    drop(other);
    let mut module = nonin();
    rig.until_link(|| port.send(&nonin_burst(&mut module, FINGER)), LinkState::Live).await;
    // And while the source has it, nobody else gets it.
    tokio_serial::SerialStream::open(&tokio_serial::new(path.to_string_lossy(), 9600)).unwrap_err();
}

#[tokio::test]
async fn a_silent_monitor_is_silent_and_not_lost_and_nothing_is_repeated() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    let silent = rig.until_link(|| (), LinkState::Silent).await;
    assert_eq!((silent.patient, silent.mode), (Some("P-0001".parse().unwrap()), Mode::Test));
    let told = |rig: &Rig| rig.seen.iter().filter(|message| !matches!(message, SourceMessage::Wave(_))).count();
    let until_silence = told(&rig);
    rig.until_link(|| port.send(&nonin_burst(&mut module, FINGER)), LinkState::Live).await;
    assert_eq!(told(&rig), until_silence + 1, "{:#?}", rig.seen);
    assert_eq!(rig.links(), [Opening, Waiting, Live, Silent, Live]);
}

#[tokio::test]
async fn a_sensor_that_is_off_has_no_number_although_the_monitor_still_shows_one() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    let off = Sensed { on_finger: false, ..FINGER };
    let event = rig.until_link(|| port.send(&nonin_burst(&mut module, off)), LinkState::SensorOff).await;
    assert!(event.status.contains(&Status::SensorOff), "{event:?}");
    let since_off = rig.seen.len();
    let mut absent = 0;
    rig.until(
        || port.send(&nonin_burst(&mut module, off)),
        |message| {
            absent += usize::from(matches!(message, SourceMessage::Reading(_)));
            (absent == 6).then_some(())
        },
    )
    .await;
    let mut metrics = BTreeSet::new();
    for message in &rig.seen[since_off..] {
        if let SourceMessage::Reading(reading) = message {
            assert_eq!(reading.vital.leading(), Value::Absent(Absent::SensorOff), "{reading:?}");
            metrics.insert(reading.vital.metric());
        }
    }
    assert_eq!(metrics, BTreeSet::from([Metric::Spo2, Metric::PulseRate]), "both go on, as absent");
}

#[tokio::test]
async fn another_device_at_the_same_port_is_noticed_and_its_values_are_withheld() {
    let (mut rig, mut port) = Rig::at_pty_with(profile("contec-v7"), Some("bed 1"));
    let mut contec = contec();
    let mut device = || {
        let now = Clock::System.now().mono;
        let commands = port.received();
        // It calls itself "user   ".
        port.send(&contec.command(&commands, now));
        port.send(&contec.frame(FINGER, now).into_iter().flatten().collect::<Vec<u8>>());
    };
    let withheld = rig
        .until(&mut device, |message| match message {
            SourceMessage::Link(event) if event.status.contains(&Status::DeviceChanged) => Some(event.clone()),
            _ => None,
        })
        .await;
    assert_eq!(withheld.link, LinkState::Waiting);
    assert!(withheld.reason.unwrap().contains("serial number is user, expected is bed 1"));
    let wait_until = Clock::System.now().mono + Duration::from_secs(3);
    while Clock::System.now().mono < wait_until {
        device();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.finish(&mut device).await;
    assert_eq!(rig.readings().count(), 0, "{:#?}", rig.seen);
}

/// A Masimo at known line settings that counts as silent after 2 s.
fn masimo_profile() -> Arc<Profile> {
    let text = vitalbridge::profile::built_in_text("masimo-ascii1").unwrap();
    let one = text.replace(r#"settings = ["9600 8N1", "19200 8N1"]"#, r#"settings = ["9600 8N1"]"#);
    let quick = one.replace("silence = \"5s\"", "silence = \"2s\"");
    assert_eq!(text.len() - quick.len(), r#", "19200 8N1""#.len(), "the profile has changed");
    Arc::new(Profile::parse(&quick).unwrap())
}

/// A line of a Masimo monitor, with ` SN=` and its number or without.
fn masimo_line(serial_number: &str, spo2: u8) -> Vec<u8> {
    format!("09/15/10 15:10:29{serial_number} SPO2={spo2:03}% BPM=080 PI=04.96% ALARM=0000 EXC=000800\r\n").into_bytes()
}

/// Plays what is there for a while that is longer than any grace.
async fn play_on(rig: &mut Rig, mut device: impl FnMut()) {
    let wait_until = Clock::System.now().mono + Duration::from_secs(3);
    while Clock::System.now().mono < wait_until {
        device();
        while let Ok(message) = rig.messages.try_recv() {
            rig.seen.push(message);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_withheld_for(message: &SourceMessage, why: &str) -> Option<()> {
    let SourceMessage::Link(event) = message else { return None };
    let is_for = event.reason.as_ref().is_some_and(|reason| reason.contains(why));
    (is_for && event.link == LinkState::Waiting).then_some(())
}

fn has_spo2(rig: &Rig, percent: i32) -> bool {
    rig.readings().any(|reading| reading.vital.metric() == Metric::Spo2 && reading.vital.leading() == number(percent))
}

#[tokio::test]
async fn another_monitor_without_a_number_is_not_taken_for_the_bound_one() {
    for (other, falls_silent) in [("", true), (" SN=----------", true), ("", false), (" SN=----------", false)] {
        let (mut rig, mut port) = Rig::at_pty_with(masimo_profile(), Some("AAA"));
        rig.until_value(|| port.send(&masimo_line(" SN=AAA", 97)), Metric::Spo2, number(97)).await;
        if falls_silent {
            rig.until_link(|| (), Silent).await;
        }
        // The cable was put into another monitor; the adapter stayed where it is.
        let mut lines = || port.send(&masimo_line(other, 88));
        rig.until(&mut lines, |message| is_withheld_for(message, "cannot be asked for it, expected is AAA")).await;
        play_on(&mut rig, lines).await;
        assert!(!has_spo2(&rig, 88), "{other:?}: {:#?}", rig.seen);
        // And back again: nobody has to do anything.
        rig.until_value(|| port.send(&masimo_line(" SN=AAA", 96)), Metric::Spo2, number(96)).await;
        rig.finish(|| ()).await;
        assert!(!has_spo2(&rig, 88), "{other:?}: {:#?}", rig.seen);
    }
}

#[tokio::test]
async fn after_a_silence_a_monitor_is_asked_for_its_number_and_withheld_until_it_tells_it() {
    let (mut rig, mut port) = Rig::at_pty_with(profile("contec-v7"), Some("user"));
    let mut contec = contec();
    let mut bound = |port: &mut EmulatedPort, spo2| {
        let now = Clock::System.now().mono;
        let commands = port.received();
        port.send(&contec.command(&commands, now));
        let sensed = Sensed { spo2, ..FINGER };
        port.send(&contec.frame(sensed, now).into_iter().flatten().collect::<Vec<u8>>());
    };
    rig.until_value(|| bound(&mut port, 97), Metric::Spo2, number(97)).await;
    // The same monitor after a pause.
    rig.until_link(|| (), Silent).await;
    rig.until_value(|| bound(&mut port, 96), Metric::Spo2, number(96)).await;
    // Another one that streams already and never says who it is.
    rig.until_link(|| (), Silent).await;
    let mut heard = Vec::new();
    let mut other = || {
        heard.extend(port.received());
        port.send(&[0x01, 0xE0, 0x85, 0xB3, 0x96, 0xC1, 0xD8, 0xFF, 0xFF]);
    };
    rig.until(&mut other, |message| is_withheld_for(message, "has not told its serial number yet, expected is user"))
        .await;
    play_on(&mut rig, other).await;
    assert!(!has_spo2(&rig, 88), "{:#?}", rig.seen);
    assert!(heard.windows(3).any(|bytes| bytes == [0x7D, 0x81, 0xAA]), "it was not asked: {heard:02X?}");
}

#[tokio::test]
async fn line_settings_are_found_by_listening_only() {
    let text = vitalbridge::profile::built_in_text("nonin-df2").unwrap();
    let several = text.replace(r#"settings = ["9600 8N1"]"#, r#"settings = ["19200 8O1", "9600 8N1"]"#);
    let several = several
        .replace("[link]\nsilence = \"2s\"\n", "[link]\nsilence = \"2s\"\ninit = [{ send = \"02 70 02 02 02 03\" }]\n");
    let (mut rig, mut port) = Rig::at_pty_with(Arc::new(Profile::parse(&several).unwrap()), None);
    rig.until(
        || (),
        |message| matches!(message, SourceMessage::Link(event) if event.link == LinkState::Waiting).then_some(()),
    )
    .await;
    let opened = |rig: &Rig| rig.count(|counters| &counters.opened);
    let deadline = Clock::System.now().mono + DEADLINE;
    while opened(&rig) < 2 {
        assert!(Clock::System.now().mono < deadline, "the next settings were not tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(port.received(), Vec::<u8>::new(), "something was sent while listening");
    let mut module = nonin();
    rig.until_link(|| port.send(&nonin_burst(&mut module, FINGER)), LinkState::Live).await;
    let greeting = [0x02, 0x70, 0x02, 0x02, 0x02, 0x03];
    let mut heard = Vec::new();
    let deadline = Clock::System.now().mono + DEADLINE;
    while heard != greeting {
        assert!(Clock::System.now().mono < deadline, "{heard:02X?}");
        heard.extend(port.received());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn noise_at_the_wrong_line_settings_is_no_monitor_and_the_true_one_is_still_found() {
    let seed = Clock::System.now().mono.0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut rig, mut port) = Rig::at_pty("contec-cms50-v5");
    let opened = |rig: &Rig| rig.count(|counters| &counters.opened);
    // 19200 bit/s of noise, at each of the candidates.
    let deadline = Clock::System.now().mono + DEADLINE;
    while opened(&rig) < 4 {
        assert!(Clock::System.now().mono < deadline, "the next settings were not tried");
        // Four frames in it look like good ones, which is more than the profile asks for.
        let noise = (0..76).map(|_| random.u8(..));
        let alike = (0..20).map(|place| if place % 5 == 0 { 0x85 } else { 0x40 });
        port.send(&noise.chain(alike).collect::<Vec<u8>>());
        tokio::time::sleep(Duration::from_millis(50)).await;
        while let Ok(message) = rig.messages.try_recv() {
            rig.seen.push(message);
        }
    }
    assert!(rig.count(|counters| &counters.frames) > 0, "the noise had no frame in it, and so shows nothing");
    assert_eq!(rig.readings().count(), 0, "{:#?}", rig.seen);
    assert!(!rig.links().contains(&Live) && rig.links().contains(&Silent), "{:?}", rig.links());
    assert_eq!(port.received(), Vec::<u8>::new(), "something was sent while listening");
    let frames = [0x85, 0x33, 0x46, 0x16, 0x61].repeat(3);
    rig.until_value(|| port.send(&frames), Metric::Spo2, number(97)).await;
}

#[tokio::test(start_paused = true)]
async fn line_settings_that_do_not_fit_any_more_are_looked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut port = EmulatedPort::new(folder.path().join("oximeter"));
    port.plug().unwrap();
    let path = SerialPort::Path(port.link().to_owned());
    let clock = Clock::tokio(Stamp { mono: Mono::from_millis(0), wall: Wall(0) });
    let mut rig = Rig::start_by(clock, folder, path, profile("contec-cms50-v5"), None);
    let frames = [0x85, 0x33, 0x46, 0x16, 0x61].repeat(3);
    rig.until_link(|| port.send(&frames), Live).await;
    // Somebody changed the monitor's menu: what comes now is no frame at these settings.
    let opened = rig.count(|counters| &counters.opened);
    for _ in 0..120 {
        port.send(&[0xFF; 48]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        while let Ok(message) = rig.messages.try_recv() {
            rig.seen.push(message);
        }
    }
    assert!(rig.count(|counters| &counters.opened) >= opened + 2, "{:?}", rig.links());
    assert_eq!(rig.links().last(), Some(&Silent), "{:?}", rig.links());
    rig.until_link(|| port.send(&frames), Live).await;
}

#[tokio::test]
async fn a_device_that_is_off_is_silent_also_while_its_line_settings_are_looked_for() {
    let (mut rig, _port) = Rig::at_pty("masimo-ascii1");
    rig.until_link(|| (), Silent).await;
    // It stays so over the next candidates.
    let opened = rig.count(|counters| &counters.opened);
    let deadline = Clock::System.now().mono + DEADLINE;
    while rig.count(|counters| &counters.opened) < opened + 2 {
        assert!(Clock::System.now().mono < deadline, "the next settings were not tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.finish(|| ()).await;
    assert_eq!(rig.links(), [Opening, Waiting, Silent, LinkState::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_serial_server_is_given_the_silence_of_the_profile() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = SerialPort::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    let clock = Clock::tokio(Stamp { mono: Mono::from_millis(0), wall: Wall(0) });
    let mut rig = Rig::start_by(clock, tempfile::tempdir().unwrap(), port, profile("nonin-df13"), None);
    let (_connection, _) = listener.accept().await.unwrap();
    loop {
        let SourceMessage::Link(event) = rig.messages.recv().await.unwrap() else { continue };
        if event.link == Lost {
            assert!(event.reason.unwrap().ends_with("nothing came for 600 s"));
            return;
        }
    }
}

#[tokio::test]
async fn a_monitor_behind_a_serial_server_is_read_over_tcp_and_connected_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = SerialPort::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    let mut rig = Rig::start(tempfile::tempdir().unwrap(), port, profile("nonin-df2"), None);
    for _ in 0..2 {
        let (mut connection, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        let mut module = nonin();
        let frames: Vec<u8> = (0..200).flat_map(|_| module.frame(FINGER)).collect();
        connection.write_all(&frames).await.unwrap();
        rig.until_value(|| (), Metric::Spo2, number(97)).await;
        drop(connection);
        rig.until_link(|| (), LinkState::Lost).await;
    }
}

#[tokio::test]
async fn a_link_that_moves_to_another_terminal_is_followed() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    // As udev does: the same name leads to another device while the old one still hangs on its wire.
    let mut other = EmulatedPort::new(rig.folder.path().join("other"));
    other.plug().unwrap();
    let fresh = rig.folder.path().join("fresh");
    std::os::unix::fs::symlink(std::fs::read_link(other.link()).unwrap(), &fresh).unwrap();
    std::fs::rename(&fresh, rig.path()).unwrap();
    let lower = Sensed { spo2: 91, ..FINGER };
    let mut second = nonin();
    let opened = rig.count(|counters| &counters.opened);
    drop(port);
    // Dropping the first took the link away with it: udev would have left it.
    if std::fs::read_link(rig.path()).is_err() {
        std::os::unix::fs::symlink(std::fs::read_link(other.link()).unwrap(), rig.path()).unwrap();
    }
    rig.until_value(|| other.send(&nonin_burst(&mut second, lower)), Metric::Spo2, number(91)).await;
    assert_eq!(rig.count(|counters| &counters.opened), opened + 1, "it was opened more often than once");
    assert_eq!(rig.links(), [Opening, Waiting, Live, Lost, Waiting, Live]);
}

#[tokio::test]
async fn half_a_frame_and_a_hang_up_give_no_number() {
    let (mut rig, mut port) = Rig::at_pty("masimo-ascii1");
    rig.until_link(|| (), Waiting).await;
    port.send(b"09/15/10 15:10:29 SN=0123456789 SPO2=097% BPM=064 PI=11.82% ALARM=0000 EXC=0008");
    port.unplug();
    rig.until_link(|| (), Lost).await;
    port.plug().unwrap();
    rig.until_link(|| port.send(b"00\r\n"), Waiting).await;
    rig.finish(|| port.send(b"00\r\n")).await;
    assert_eq!(rig.readings().count(), 0, "{:#?}", rig.seen);
}

#[tokio::test]
async fn a_number_without_a_checksum_is_the_median_of_its_second() {
    let (mut rig, mut port) = Rig::at_pty("contec-v7");
    let mut contec = contec();
    let mut frame = 0_u32;
    let mut device = || {
        let now = Clock::System.now().mono;
        let commands = port.received();
        port.send(&contec.command(&commands, now));
        for _ in 0..3 {
            frame += 1;
            let mut bytes: Vec<u8> = contec.frame(FINGER, now).into_iter().flatten().collect();
            // Every tenth frame was damaged on its way, which nothing shows: 33 % instead of 97 %.
            if frame.is_multiple_of(10) && bytes.len() == 9 {
                bytes[6] = 0xA1;
            }
            port.send(&bytes);
        }
    };
    let mut readings = Vec::new();
    rig.until(&mut device, |message| {
        if let SourceMessage::Reading(reading) = message
            && reading.vital.metric() == Metric::Spo2
        {
            readings.push((reading.vital.leading(), reading.received.mono));
        }
        (readings.len() == 5).then_some(())
    })
    .await;
    assert!(readings.iter().all(|(value, _)| *value == number(97)), "{readings:?}");
    let span = readings[4].1.since(readings[0].1);
    assert!(span >= Duration::from_millis(3500), "more than one a second: {readings:?}");
}

#[tokio::test]
async fn the_frames_and_the_damage_of_a_line_are_counted() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df2");
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    let mut frame = module.frame(FINGER);
    frame[4] ^= 1;
    port.send(&frame);
    let resyncs = |rig: &Rig| rig.count(|counters| &counters.resyncs);
    while resyncs(&rig) == 0 {
        rig.until(|| port.send(&nonin_burst(&mut module, FINGER)), |_| Some(())).await;
    }
    assert_eq!(rig.count(|counters| &counters.bad_checksums), 1);
    assert!(rig.count(|counters| &counters.frames) >= 25 && rig.count(|counters| &counters.rubbish_bytes) >= 5);
    // A pseudo terminal has no line whose errors could be counted.
    assert_eq!(rig.count(|counters| &counters.framing_errors), 0);
}

#[tokio::test]
async fn a_port_without_dtr_is_read_all_the_same() {
    let text = vitalbridge::profile::built_in_text("nonin-df2").unwrap();
    let without = text.replace("[serial]\n", "[serial]\ndtr = \"off\"\n");
    let (mut rig, mut port) = Rig::at_pty_with(Arc::new(Profile::parse(&without).unwrap()), None);
    let mut module = nonin();
    rig.until_value(|| port.send(&nonin_burst(&mut module, FINGER)), Metric::Spo2, number(97)).await;
    assert_eq!(rig.links(), [Opening, Waiting, Live]);
}

#[tokio::test(start_paused = true)]
async fn a_serial_server_that_says_nothing_any_more_is_given_up_and_connected_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = SerialPort::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    let origin = Stamp { mono: Mono::from_millis(0), wall: Wall(0) };
    let clock = Clock::tokio(origin);
    let mut rig = Rig::start_by(clock, tempfile::tempdir().unwrap(), port, profile("nonin-df2"), None);
    let (mut first, _) = listener.accept().await.unwrap();
    let mut module = nonin();
    first.write_all(&(0..200).flat_map(|_| module.frame(FINGER)).collect::<Vec<u8>>()).await.unwrap();
    let mut states = Vec::new();
    while states.last() != Some(&Lost) {
        if let SourceMessage::Link(event) = rig.messages.recv().await.unwrap() {
            states.push(event.link);
            if event.link == Lost {
                assert!(event.reason.unwrap().ends_with("nothing came for 30 s"));
            }
        }
    }
    assert_eq!(states, [Opening, Waiting, Live, Silent, Lost]);
    listener.accept().await.unwrap();
    assert_eq!(rig.count(|counters| &counters.restarts), 1);
}

/// A spot check of Nonin's data format 13 on 2026-11-20 at this hour, 05:30.
fn spot_check(hour: u8, is_stored: bool, spo2: u8) -> Vec<u8> {
    let stored = if is_stored { 0x10 } else { 0 };
    let mut frame =
        vec![0, 2, 0, 0x0D, 0, 0x0E, 0x20, 0x26, 0x11, 0x20, hour, 0x05, 0x30, 0, 0, stored, 0, 72, 0, spo2];
    frame.push(frame[6..].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    frame.push(3);
    frame
}

#[tokio::test]
async fn what_an_oximeter_has_kept_is_dated_by_the_time_that_it_sends_with_its_measurements() {
    let (mut rig, mut port) = Rig::at_pty("nonin-df13");
    let kept = rig.until_value(|| port.send(&spot_check(0x20, true, 91)), Metric::Spo2, number(91)).await;
    assert_eq!((kept.taken.source, kept.taken.wall), (TimeSource::Unknown, None), "nothing relates it yet");
    assert_eq!(kept.taken.device_time.as_deref(), Some("2026112020053000"));
    let live = rig.until_value(|| port.send(&spot_check(0x22, false, 97)), Metric::Spo2, number(97)).await;
    assert_eq!((live.taken.source, live.taken.wall), (TimeSource::Received, Some(live.received.wall)));
    let kept = rig.until_value(|| port.send(&spot_check(0x20, true, 92)), Metric::Spo2, number(92)).await;
    assert_eq!((kept.quality, kept.taken.source), (Quality::Historic, TimeSource::DeviceMapped));
    let before = kept.received.wall.0 - kept.taken.wall.unwrap().0;
    assert!((7_200_000..7_230_000).contains(&before), "{before}");
    // Half a second of each of its two times, and 100 ppm of two hours.
    assert_eq!((kept.taken.mapping_ms, kept.taken.uncertainty_ms), (Some(1720), None));
    rig.finish(|| ()).await;
}

#[tokio::test]
async fn a_dump_of_the_past_without_the_time_of_now_has_no_time_of_ours() {
    let (mut rig, mut port) = Rig::at_pty("masimo-ascii2-trend");
    let line = b"09/21/08 09:56:12 SpO2=097 PR=069 PI=04.69 EXC=800:SET\r\n";
    let kept = rig.until_value(|| port.send(line), Metric::Spo2, number(97)).await;
    assert_eq!((kept.quality, kept.taken.source, kept.taken.wall), (Quality::Historic, TimeSource::Unknown, None));
    assert_eq!(kept.taken.device_time.as_deref(), Some("09/21/08 09:56:12"));
    rig.finish(|| ()).await;
}
