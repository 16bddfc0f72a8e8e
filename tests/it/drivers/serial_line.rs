//! The drivers through the serial source, over real pseudo terminals and in real time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use vitalbridge::clock::{Clock, Mono};
use vitalbridge::event::{LinkState, SourceMessage};
use vitalbridge::profile::model::LineSettings;
use vitalbridge::sources::output::SourceCounters;
use vitalbridge::sources::serial::{SerialConfig, SerialPort};
use vitalbridge::sources::simulator::pty::EmulatedPort;
use vitalbridge::sources::{self, SourceConfig, SourceKind};
use vitalbridge::vitals::{Metric, Mode, Value};

use super::evita::Evita;
use super::monitor::Monitor;
use crate::decode::{profile, shown};

/// Longest time that anything may take to happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// A source at a pseudo terminal with a device at its other end.
struct Line {
    messages: mpsc::Receiver<SourceMessage>,
    port: EmulatedPort,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    seen: Vec<SourceMessage>,
    _folder: tempfile::TempDir,
}

impl Line {
    fn start(profile_id: &str, settings: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut port = EmulatedPort::new(folder.path().join("device"));
        port.plug().unwrap();
        let config = SourceConfig {
            id: "port".parse().unwrap(),
            patient: Some("P-0001".parse().unwrap()),
            device: "device".parse().unwrap(),
            mode: Mode::Test,
            kind: SourceKind::Serial(SerialConfig {
                settings: settings.map(|text| LineSettings::parse(text).unwrap()),
                ..SerialConfig::new(SerialPort::Path(port.link().to_owned()), profile(profile_id))
            }),
        };
        let (out, messages) = mpsc::channel(1024);
        let (counters, stop) = (Arc::new(SourceCounters::default()), CancellationToken::new());
        let mut tasks = JoinSet::new();
        let source = sources::run(config, out, Clock::System, counters, stop.clone());
        tasks.spawn(async move { source.await.unwrap() });
        Self { messages, port, stop, tasks, seen: Vec::new(), _folder: folder }
    }

    /// Lets the device take its turns until the source says what is wanted.
    async fn until(
        &mut self,
        device: &mut dyn FnMut(&[u8], Mono) -> Vec<u8>,
        wanted: &mut dyn FnMut(&SourceMessage) -> bool,
    ) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let work = async {
            loop {
                tokio::select! {
                    biased;
                    message = self.messages.recv() => {
                        let message = message.expect("the source ended");
                        let is_wanted = wanted(&message);
                        self.seen.push(message);
                        if is_wanted {
                            return;
                        }
                    }
                    _ = tick.tick() => {
                        let mut heard = Vec::new();
                        loop {
                            let more = self.port.received();
                            if more.is_empty() {
                                break;
                            }
                            heard.extend(more);
                        }
                        let said = device(&heard, Clock::System.now().mono);
                        self.port.send(&said);
                    }
                }
            }
        };
        let result = tokio::time::timeout(DEADLINE, work).await;
        assert!(result.is_ok(), "it did not come; so far: {:#?}", self.seen);
    }

    /// Stops the source, while the device still listens; what it was told last.
    async fn finish(&mut self) -> Vec<u8> {
        self.stop.cancel();
        let mut heard = Vec::new();
        let port = &mut self.port;
        let messages = &mut self.messages;
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let work = async {
            loop {
                tokio::select! {
                    message = messages.recv() => if message.is_none() { break },
                    _ = tick.tick() => heard.extend(port.received()),
                }
            }
            self.tasks.join_next().await.unwrap().unwrap();
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap();
        heard
    }
}

fn is_link(message: &SourceMessage, state: LinkState) -> bool {
    matches!(message, SourceMessage::Link(event) if event.link == state)
}

fn value_of(message: &SourceMessage, metric: Metric) -> Option<Value> {
    match message {
        SourceMessage::Reading(reading) if reading.vital.metric() == metric => Some(reading.vital.leading()),
        _ => None,
    }
}

#[tokio::test]
async fn an_evita_at_a_port_is_read_lost_and_read_again() {
    let mut line = Line::start("draeger-medibus", Some("19200 8E1"));
    let mut evita = Evita::new();
    let mut missing: BTreeSet<Metric> = [Metric::TidalVolume, Metric::Etco2, Metric::Spo2, Metric::Peep].into();
    line.until(&mut |bytes, now| evita.turn(bytes, now), &mut |message| {
        missing.retain(|metric| value_of(message, *metric).and_then(Value::valid).is_none());
        missing.is_empty()
    })
    .await;
    // It hears everything and answers nothing, not even NOP.
    evita.manner.answers = false;
    let calls = evita.count(0x51);
    line.until(&mut |bytes, now| evita.turn(bytes, now), &mut |message| is_link(message, LinkState::Silent)).await;
    let silent = line.seen.len();
    let wait_until = Clock::System.now().mono + Duration::from_secs(4);
    let mut evita_silent = |bytes: &[u8], now| evita.turn(bytes, now);
    while Clock::System.now().mono < wait_until {
        let heard = line.port.received();
        evita_silent(&heard, Clock::System.now().mono);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(evita.count(0x51) > calls, "it is not called again");
    evita.manner.answers = true;
    line.until(&mut |bytes, now| evita.turn(bytes, now), &mut |message| is_link(message, LinkState::Live)).await;
    let between = &line.seen[silent..line.seen.len() - 1];
    // Its samples go on.
    let is_told = |message: &SourceMessage| matches!(message, SourceMessage::Link(_) | SourceMessage::Wave(_));
    assert!(between.iter().all(is_told), "{between:#?}");
    assert_eq!(evita.damaged, 0, "it was sent a wrong sum");
    let farewell = line.finish().await;
    let stop = super::evita::command(0x55);
    assert!(farewell.windows(stop.len()).any(|bytes| bytes == stop), "it was not told to stop: {farewell:02X?}");
}

#[tokio::test]
async fn the_line_settings_of_an_evita_are_found_by_listening_to_its_calls() {
    let mut line = Line::start("draeger-medibus", None);
    let mut evita = Evita::new();
    let mut heard = Vec::new();
    line.until(
        &mut |bytes, now| {
            // Nothing has called yet, so that nothing may be sent.
            heard.extend_from_slice(bytes);
            evita.turn(bytes, now)
        },
        &mut |message| value_of(message, Metric::TidalVolume).and_then(Value::valid).is_some(),
    )
    .await;
    // The answer to its call or a call: in any case a whole message first.
    assert!(matches!(heard.first(), Some(0x01 | 0x1B)), "{heard:02X?}");
}

#[tokio::test]
async fn a_monitor_at_a_port_is_asked_and_read() {
    let mut line = Line::start("datex-s5-dri", None);
    let mut monitor = Monitor::measuring(9750);
    let mut told = Vec::new();
    line.until(&mut |bytes, now| monitor.turn(bytes, now), &mut |message| {
        told.extend(value_of(message, Metric::Spo2).map(shown));
        told.len() == 2
    })
    .await;
    assert_eq!(told, ["97.5", "97.5"]);
    assert!(line.seen.iter().any(|message| is_link(message, LinkState::Live)));
    let farewell = line.finish().await;
    monitor.turn(&farewell, Clock::System.now().mono);
    assert!(!monitor.in_alarm_mode, "it was not told to stop");
}
