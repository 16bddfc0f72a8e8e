//! The stored log on real files: exact, complete, and alive through crashes, full disks and damage.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::{
    Activation, AlertChange, AlertEvent, AlertKind, AuditAction, AuditEvent, AuditResult, ChatCleared, ChatEvent,
    ChatMessage, EndReason, Entered, Event, EventBody, LimitAction, LimitChange, LimitKind, LimitsEvent, LinkState,
    Notification, NotificationKind, ObservationEvent, Presence, Priority, Signal, SignalPresence, SourceEvent,
    SystemEvent, SystemKind,
};
use vitalbridge::ids::{AlertId, DeviceId, Epoch, Seq, SourceId};
use vitalbridge::record::{KnownRecords, RecordEvent, RecordKey};
use vitalbridge::store::{
    self, DeviceIdentity, DroppedRows, KeptChanges, KeptObservation, MAX_BATCH, MAX_READ, Opened, ParkedRow, QUEUE,
    RESERVED_FOR_ALERTS, RESERVED_FOR_PEOPLE, RETRY_EVERY, Reader, Refused, ResumePoint, SalvageReport, SeqRange,
    StoreError, StoreHandle, StoreHealth, StoreOptions,
};
use vitalbridge::timeline::{ClockEpoch, ClockState};
use vitalbridge::vitals::{
    Absent, Breathing, Consciousness, Decimal, EarlyWarning, Finding, Metric, Mode, Parameter, Pressure, Quality,
    Reading, ScoreInput, Spo2Scale, Status, Taken, TimeSource, Value, Variability, Vital,
};

/// Longest wait for anything that must happen.
const DEADLINE: Duration = Duration::from_mins(5);
const SECOND: Duration = Duration::from_secs(1);

fn start_of_time() -> Stamp {
    Stamp { mono: Mono::from_millis(100_000), wall: Wall(1_795_219_200_123) }
}

/// The moment `seconds` after the start of the tests' time.
fn at(seconds: u64) -> Stamp {
    let start = start_of_time();
    let millis = i64::try_from(seconds).unwrap() * 1000;
    Stamp { mono: start.mono + Duration::from_secs(seconds), wall: Wall(start.wall.0 + millis) }
}

fn epoch(number: u64) -> Epoch {
    Epoch::from_bits(number)
}

/// A store with its writer at work.
struct Running {
    handle: StoreHandle,
    reader: Reader,
    epoch: Epoch,
    next: Seq,
    first_seq: Seq,
    open_alerts: Vec<AlertEvent>,
    limit_changes: KeptChanges,
    identities: BTreeMap<SourceId, DeviceIdentity>,
    records: BTreeMap<DeviceId, KnownRecords>,
    dropped: mpsc::Receiver<DroppedRows>,
    salvaged: Option<SalvageReport>,
    salvages: mpsc::Receiver<SalvageReport>,
    stop: CancellationToken,
    writer: JoinSet<Result<(), StoreError>>,
}

impl Running {
    fn start(dir: &Path, options: &StoreOptions, run: u64) -> Self {
        Self::of(store::open(dir, options, epoch(run), "boot-1", start_of_time()).unwrap())
    }

    fn of(opened: Opened) -> Self {
        let Opened {
            writer,
            reader,
            handle,
            epoch,
            first_seq,
            open_alerts,
            limit_changes,
            identities,
            records,
            dropped,
            salvaged,
            salvages,
            ..
        } = opened;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(stop.clone()));
        let next = first_seq;
        Self {
            handle,
            reader,
            epoch,
            next,
            first_seq,
            open_alerts,
            limit_changes,
            identities,
            records,
            dropped,
            salvaged,
            salvages,
            stop,
            writer: tasks,
        }
    }

    /// Numbers a body and queues it.
    fn append(&mut self, at: Stamp, body: EventBody) -> Event {
        let event = self.number(at, body);
        self.handle.try_append(Arc::new(event.clone())).unwrap();
        event
    }

    fn number(&mut self, at: Stamp, body: EventBody) -> Event {
        let event = Event { epoch: self.epoch.clone(), seq: self.next, at, body };
        self.next = self.next.next();
        event
    }

    /// Waits until everything that was appended is durable.
    async fn settle(&self) {
        self.settle_at(Seq(self.next.0 - 1)).await;
    }

    async fn settle_at(&self, newest: Seq) {
        let mut durable = self.handle.durable();
        tokio::time::timeout(DEADLINE, durable.wait_for(|seq| *seq >= newest)).await.unwrap().unwrap();
    }

    async fn wait_for_health(&self, wanted: impl Fn(&StoreHealth) -> bool) -> StoreHealth {
        let mut health = self.handle.health();
        tokio::time::timeout(DEADLINE, health.wait_for(|health| wanted(health))).await.unwrap().unwrap().clone()
    }

    async fn all(&self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(Seq::ZERO, |event| event.seq);
            let page = self.reader.events(after, MAX_READ).await.unwrap();
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    /// Stops the writer and gives its result.
    async fn end(mut self) -> Result<(), StoreError> {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.writer.join_next()).await.unwrap().unwrap().unwrap()
    }
}

fn reading(vital: Vital, received: Stamp) -> Reading {
    Reading {
        patient: Some("P-0001".parse().unwrap()),
        device: "nonin-3150".parse().unwrap(),
        source: "bed-4".parse().unwrap(),
        vital,
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Real,
        taken: Taken::on_arrival(received),
        received,
    }
}

fn spo2(value: i32, received: Stamp) -> EventBody {
    EventBody::Reading(reading(Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(value))), received))
}

fn alert(number: u128, change: AlertChange) -> AlertEvent {
    AlertEvent {
        alert: AlertId(uuid::Uuid::from_u128(number)),
        change,
        patient: Some("P-0001".parse().unwrap()),
        device: Some("nonin-3150".parse().unwrap()),
        rule: "spo2_low".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority: Priority::Medium,
        metric: Some(Metric::Spo2),
        value: Some(Value::Valid(Decimal::new(8850, -2).unwrap())),
        limit: "below 90 %".to_owned(),
        message: "SpO2 88.50 % is below 90 %".to_owned(),
        presence: Presence::Unknown,
        audio: Signal { activation: Activation::Paused, presence: SignalPresence::Off },
        visual: Signal { activation: Activation::On, presence: SignalPresence::Latched },
        onset: Wall(1_795_219_200_001),
        announced: Wall(1_795_219_215_002),
        paused_until: Some(Wall(1_795_219_300_000)),
        hidden_by: Some(AlertId(uuid::Uuid::from_u128(9))),
        recurrence: 3,
        by: Some("nurse-1 \"äö\" \u{1F600}\n".to_owned()),
        end_reason: (change == AlertChange::End).then_some(EndReason::Reset),
        escalated: 0,
        mode: Mode::Test,
    }
}

fn system(message: &str) -> EventBody {
    EventBody::System(SystemEvent { kind: SystemKind::Started, message: message.to_owned(), first: None, last: None })
}

/// A record of a glucose meter.
fn record(number: u16) -> RecordEvent {
    let [low, high] = number.to_le_bytes();
    RecordEvent {
        source: "meter".parse().unwrap(),
        device: "meter-1".parse().unwrap(),
        patient: Some("P-0001".parse().unwrap()),
        characteristic: 0x2A18,
        number: Some(number),
        user: None,
        device_time: Some("2026-11-20T08:00:00".to_owned()),
        raw: format!("12{low:02x}{high:02x}ea070b140800007000b011"),
        context: Some("02070006".to_owned()),
        found: vec!["ketone".to_owned()],
        readings: Some((Seq(3), Seq(4))),
        mode: Mode::Real,
    }
}

fn bodies_of_every_kind() -> Vec<EventBody> {
    let mut bodies = vec![
        EventBody::Alert(alert(1, AlertChange::Start)),
        EventBody::Alert(AlertEvent {
            patient: None,
            device: None,
            metric: None,
            value: Some(Value::Absent(Absent::Silent)),
            paused_until: None,
            hidden_by: None,
            by: None,
            ..alert(1, AlertChange::End)
        }),
        EventBody::Notification(Notification {
            id: uuid::Uuid::from_u128(77),
            kind: NotificationKind::MedicationReminder,
            patient: None,
            users: vec!["u-1".to_owned()],
            alert: None,
            title: String::new(),
            message: "null \0 byte and 'quotes'".to_owned(),
            priority: Priority::Info,
            created: Wall(-1),
            expires: None,
            by: None,
            mode: Mode::Real,
        }),
        EventBody::Chat(ChatEvent::Message(ChatMessage {
            id: uuid::Uuid::from_u128(3),
            room: "ward 1".to_owned(),
            sender: "a".to_owned(),
            message: "line\nline".to_owned(),
        })),
        EventBody::Chat(ChatEvent::Cleared(ChatCleared {
            cleared: "ward 1".to_owned(),
            by: "a".to_owned(),
            everybody: false,
        })),
        EventBody::Source(SourceEvent {
            source: "bed-4".parse().unwrap(),
            device: "nonin-3150".parse().unwrap(),
            patient: None,
            link: LinkState::SensorOff,
            status: Status::ALL.iter().copied().collect::<BTreeSet<_>>(),
            reason: Some("serial number changed".to_owned()),
            mode: Mode::Demo,
        }),
        EventBody::Record(record(7)),
        EventBody::Audit(AuditEvent {
            by: "m.mustermann".to_owned(),
            address: None,
            action: AuditAction::DeviceCommand,
            object: "nibp_start".to_owned(),
            patient: Some("P-1".parse().unwrap()),
            device: Some("nonin-3150".parse().unwrap()),
            source: Some("bed-4".parse().unwrap()),
            result: AuditResult::Refused,
            reason: Some("not in allow_commands".to_owned()),
            mode: Mode::Real,
        }),
        EventBody::Observation(observation("P-1", 1)),
        EventBody::System(SystemEvent {
            kind: SystemKind::EventsLost,
            message: "dropped".to_owned(),
            first: Some(Seq(3)),
            last: Some(Seq(u64::MAX)),
        }),
    ];
    bodies.extend(vitals_of_every_kind().into_iter().map(|vital| EventBody::Reading(reading(vital, start_of_time()))));
    bodies
}

fn vitals_of_every_kind() -> Vec<Vital> {
    let decimal = |mantissa, exponent| Value::Valid(Decimal::new(mantissa, exponent).unwrap());
    let mut vitals = Vec::new();
    for value in Absent::ALL.iter().map(|reason| Value::Absent(*reason)).chain([
        decimal(20, -1),
        decimal(2, 0),
        decimal(0, -3),
        decimal(12, 2),
        decimal(-1_000_000_000, -9),
        decimal(1_000_000_000, 9),
    ]) {
        for metric in Metric::ALL {
            vitals.push(Vital::scalar(*metric, value));
        }
        let pressure = Pressure { systolic: decimal(1200, -1), diastolic: value, mean: decimal(93, 0) };
        vitals.push(Vital::BloodPressure(pressure));
        vitals.push(Vital::ArterialPressure(Pressure { systolic: value, mean: value, ..pressure }));
    }
    vitals.push(Vital::RrIntervals(vec![]));
    vitals.push(Vital::RrIntervals(vec![0, 1024, u16::MAX]));
    vitals.extend(computed());
    vitals
}

/// What the bridge computes.
fn computed() -> [Vital; 3] {
    let incomplete = EarlyWarning { missing: vec![Parameter::Pulse], ..early_warning() };
    let [sdnn, rmssd, pnn50] = [270, 277, 0].map(Decimal::tenths);
    [
        Vital::News2(Box::new(early_warning())),
        Vital::News2(Box::new(incomplete)),
        Vital::Variability(Variability { n: 364, rejected: 6, sdnn, rmssd, pnn50 }),
    ]
}

fn early_warning() -> EarlyWarning {
    let device = Some("thermometer".parse().unwrap());
    let input = |parameter, value, by: Option<&str>| ScoreInput {
        parameter,
        value,
        points: 2,
        age_ms: u64::MAX,
        metric: by.is_none().then_some(Metric::Temperature),
        device: device.clone().filter(|_| by.is_none()),
        by: by.map(str::to_owned),
    };
    EarlyWarning {
        score_min: 4,
        score_max: 4,
        single_min: 2,
        single_max: 3,
        scale: Spo2Scale::Two,
        inputs: vec![
            input(Parameter::Temperature, Finding::Number(Decimal::new(3910, -2).unwrap()), None),
            input(Parameter::Oxygen, Finding::Breathing(Breathing::Oxygen), Some("lena")),
            input(Parameter::Consciousness, Finding::Consciousness(Consciousness::Pain), Some("l \"x\"")),
        ],
        missing: vec![],
    }
}

/// What was entered about a patient so many milliseconds after the start of time.
fn observation(patient: &str, millis: i64) -> ObservationEvent {
    let at = Wall(start_of_time().wall.0 + millis);
    let (by, until, until_mono) = ("lena".to_owned(), Wall(at.0 + 1), Mono(7));
    let entered = Entered { value: Breathing::Air, by, at, until, until_mono };
    ObservationEvent {
        patient: patient.parse().unwrap(),
        oxygen: Some(entered),
        consciousness: None,
        by: "lena".to_owned(),
        mode: Mode::Real,
    }
}

#[tokio::test]
async fn what_was_entered_about_a_patient_is_known_to_the_next_run_as_long_as_it_can_hold() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let mut store = Running::start(dir.path(), &options, 1);
    let (old, new, other) = (observation("P-1", 1), observation("P-1", 2), observation("P-2", 3));
    for (second, body) in (1..).zip([old, other.clone(), new.clone()]) {
        store.append(at(second), EventBody::Observation(body));
    }
    store.end().await.unwrap();
    let opened = |hours: i64, boot: &str| {
        let mut now = start_of_time();
        now.wall.0 += hours * 3_600_000;
        store::open(dir.path(), &options, epoch(1 + u64::try_from(hours).unwrap()), boot, now).unwrap().observations
    };
    // Of the same boot the monotonic clock tells how long ago it was, of another one nothing does but the wall clock.
    for (hours, boot, is_of_this_boot) in [(1, "boot-1", true), (2, "boot-2", false), (3, "boot-1", false)] {
        let kept = [&new, &other].map(|event| KeptObservation { event: event.clone(), is_of_this_boot });
        assert_eq!(opened(hours, boot), kept, "{boot}");
    }
    assert_eq!(opened(25, "boot-1"), []);
}

/// Of a time that the device's clock said, only its own part of the uncertainty is stored: ours is known when it is read.
fn random_taken(random: &mut fastrand::Rng, wall: Option<Wall>, device_time: Option<String>) -> Taken {
    let source = TimeSource::ALL[random.usize(..TimeSource::ALL.len())];
    let uncertainty = random.bool().then(|| random.u32(..));
    let is_mapped = source == TimeSource::DeviceMapped;
    Taken {
        wall,
        source,
        uncertainty_ms: uncertainty.filter(|_| !is_mapped),
        mapping_ms: uncertainty.filter(|_| is_mapped),
        device_time,
    }
}

/// A reading with anything in it that its type allows.
fn random_reading(random: &mut fastrand::Rng) -> EventBody {
    let pick_time = |random: &mut fastrand::Rng| match random.u8(0..3) {
        0 => random.i64(..),
        1 => 0,
        _ => 1_795_219_200_000 + random.i64(-100_000..100_000),
    };
    let received = Stamp { mono: Mono(pick_time(random).unsigned_abs()), wall: Wall(pick_time(random)) };
    let mut value = || {
        if random.bool() {
            let mantissa = random.i64(-1_000_000_000..=1_000_000_000);
            Value::Valid(Decimal::new(mantissa, random.i8(-9..=9)).unwrap())
        } else {
            Value::Absent(Absent::ALL[random.usize(..Absent::ALL.len())])
        }
    };
    let (first, second, third) = (value(), value(), value());
    let pressure = Pressure { systolic: first, diastolic: second, mean: third };
    let vital = match random.u8(0..4) {
        0 => Vital::BloodPressure(pressure),
        1 => Vital::ArterialPressure(pressure),
        2 => Vital::RrIntervals((0..random.usize(0..9)).map(|_| random.u16(..)).collect()),
        _ => Vital::scalar(Metric::ALL[random.usize(..Metric::ALL.len())], first),
    };
    let device_time = random.bool().then(|| (0..random.usize(0..20)).map(|_| random.char(..)).collect());
    let wall = random.bool().then(|| Wall(pick_time(random)));
    EventBody::Reading(Reading {
        patient: random.bool().then(|| format!("P-{}", random.u8(..)).parse().unwrap()),
        device: format!("d{}", random.u8(..)).parse().unwrap(),
        source: "s".parse().unwrap(),
        vital,
        mdc: random.bool().then(|| random.u32(..)),
        quality: Quality::ALL[random.usize(..Quality::ALL.len())],
        mode: Mode::ALL[random.usize(..Mode::ALL.len())],
        taken: random_taken(random, wall, device_time),
        received,
    })
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_event_comes_back_exactly_even_in_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    // The random times below span five hundred years, and nothing shall be too old.
    let options = StoreOptions { retention: Duration::MAX, event_retention: Duration::MAX, ..StoreOptions::default() };
    let mut first = Running::start(folder.path(), &options, 1);
    let mut written = Vec::new();
    for (place, body) in bodies_of_every_kind().into_iter().enumerate() {
        let second = u64::try_from(place).unwrap();
        written.push(first.append(at(second), body));
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..3000 {
        let stamp = Stamp { mono: Mono(random.u64(..)), wall: Wall(random.i64(..)) };
        written.push(first.append(stamp, random_reading(&mut random)));
    }
    first.settle().await;
    compare(&first.all().await, &written);
    first.end().await.unwrap();
    let second = Running::start(folder.path(), &StoreOptions::default(), 2);
    compare(&second.all().await, &written);
    second.end().await.unwrap();
}

fn compare(found: &[Event], expected: &[Event]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn pages_of_readings_and_events_follow_each_other_without_gap_or_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for second in 0..5000 {
        let body = if random.u8(..) < 40 { system("x") } else { spo2(97, at(second)) };
        store.append(at(second), body);
    }
    store.settle().await;
    let mut seen = Seq::ZERO;
    loop {
        let limit = random.usize(1..700);
        let page = store.reader.events(seen, limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!(event.seq, seen.next());
            seen = event.seq;
        }
    }
    assert_eq!(seen, Seq(5000));
    assert_eq!(store.reader.bounds().await.unwrap(), Some(SeqRange { first: Seq(1), last: Seq(5000) }));
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn readings_wait_for_their_group_and_an_alert_takes_them_along_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    let clock = Clock::tokio(start_of_time());
    let passed = || clock.now().mono.since(start_of_time().mono);
    let mut durable = store.handle.durable();

    store.append(at(0), spo2(97, at(0)));
    tokio::time::sleep(SECOND / 2).await;
    store.append(at(0), spo2(96, at(0)));
    assert_eq!(*durable.borrow(), Seq::ZERO);
    durable.changed().await.unwrap();
    assert_eq!((passed(), *durable.borrow_and_update()), (SECOND, Seq(2)));

    store.append(at(1), spo2(95, at(1)));
    tokio::time::sleep(SECOND / 4).await;
    let before = passed();
    store.append(at(1), EventBody::Alert(alert(1, AlertChange::Start)));
    durable.changed().await.unwrap();
    assert_eq!((passed(), *durable.borrow_and_update()), (before, Seq(4)));

    // The writer comes round every second after its last commit, so that no reading has to wake it.
    tokio::time::sleep(SECOND * 11 / 2).await;
    let before = passed();
    store.append(at(9), spo2(95, at(9)));
    durable.changed().await.unwrap();
    assert_eq!((passed().saturating_sub(before), *durable.borrow_and_update()), (SECOND / 2, Seq(5)));
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_alert_behind_a_full_batch_does_not_wait_for_the_next_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    let clock = Clock::tokio(start_of_time());
    let before = clock.now().mono;
    let mut durable = store.handle.durable();
    for _ in 0..MAX_BATCH + 10 {
        store.append(at(0), spo2(97, at(0)));
    }
    store.append(at(0), EventBody::Alert(alert(1, AlertChange::Start)));
    let last = Seq(u64::try_from(MAX_BATCH).unwrap() + 11);
    durable.wait_for(|seq| *seq == last).await.unwrap();
    assert_eq!(clock.now().mono, before);
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_when_the_store_stops_is_stored_and_the_end_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    for second in 0..3000 {
        store.append(at(second), spo2(97, at(second)));
    }
    store.end().await.unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("vitals.db-wal")).map_or(0, |file| file.len()), 0);
    let second = Running::start(folder.path(), &StoreOptions::default(), 2);
    assert_eq!(second.first_seq, Seq(3001));
    assert_eq!(second.all().await.len(), 3000);
    let epochs = second.reader.epochs().await.unwrap();
    let ends: Vec<_> = epochs.iter().map(|run| (run.epoch.clone(), run.first_seq, run.ended)).collect();
    assert_eq!(ends, [(epoch(1), Seq(1), Some(at(2999))), (epoch(2), Seq(3001), None)]);
    assert_eq!(epochs[0].boot_id, "boot-1");
    assert_eq!(epochs[0].started, start_of_time());
    let handle = second.handle.clone();
    second.end().await.unwrap();
    let late = Event { epoch: epoch(2), seq: Seq(3001), at: at(0), body: system("late") };
    assert_eq!(handle.try_append(Arc::new(late)), Err(Refused::Stopped));
    assert_eq!(handle.ping().await, Err(Refused::Stopped));
}

#[tokio::test(start_paused = true)]
async fn alerts_that_have_not_ended_are_handed_to_the_next_run_in_their_latest_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    for (number, change) in [
        (1, AlertChange::Start),
        (2, AlertChange::Start),
        (3, AlertChange::Start),
        (1, AlertChange::Acknowledge),
        (3, AlertChange::End),
        (2, AlertChange::Latch),
        (1, AlertChange::Escalate),
    ] {
        store.append(at(1), EventBody::Alert(alert(number, change)));
    }
    store.end().await.unwrap();
    let second = Running::start(folder.path(), &StoreOptions::default(), 2);
    assert_eq!(second.open_alerts, [alert(2, AlertChange::Latch), alert(1, AlertChange::Escalate)]);
    second.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cursor_rides_with_the_next_group_and_never_passes_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    assert_eq!(store.reader.cursor("live").await.unwrap(), Seq::ZERO);
    for second in 0..10 {
        store.append(at(second), spo2(97, at(second)));
    }
    store.settle().await;
    store.handle.set_cursors(vec![("live".to_owned(), Seq(4))]);
    store.handle.set_cursors(vec![("live".to_owned(), Seq(7))]);
    store.handle.set_cursors(vec![("backlog".to_owned(), Seq(12))]);
    assert_eq!(store.reader.cursor("live").await.unwrap(), Seq::ZERO);
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(store.reader.cursor("live").await.unwrap(), Seq(7));
    assert_eq!(store.reader.cursor("backlog").await.unwrap(), Seq(10));
    for second in 10..15 {
        store.append(at(second), spo2(97, at(second)));
    }
    store.settle().await;
    assert_eq!(store.reader.cursor("backlog").await.unwrap(), Seq(12));
    store.handle.set_cursors(vec![("live".to_owned(), Seq(9))]);
    store.end().await.unwrap();
    let second = Running::start(folder.path(), &StoreOptions::default(), 2);
    assert_eq!(second.reader.cursor("live").await.unwrap(), Seq(9));
    second.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listener_resumes_across_runs_where_the_numbers_still_mean_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for (run, events) in [(1, 5), (2, 0), (3, 4)] {
        let mut store = Running::start(folder.path(), &StoreOptions::default(), run);
        for second in 0..events {
            store.append(at(second), spo2(97, at(second)));
        }
        store.end().await.unwrap();
    }
    let store = Running::start(folder.path(), &StoreOptions::default(), 4);
    // Runs: 1 stored 1..=5, 2 nothing, 3 stored 6..=9, 4 goes on at 10.
    for (run, seq, after) in [(1, 3, 3), (1, 5, 5), (1, 8, 5), (2, 5, 5), (2, 7, 5), (3, 6, 6), (3, 99, 9), (4, 12, 12)]
    {
        let point = store.reader.resume_point(&epoch(run), Seq(seq)).await.unwrap();
        assert_eq!(point, ResumePoint::After { after: Seq(after), lost: vec![] }, "{run} {seq}");
    }
    assert_eq!(store.reader.resume_point(&epoch(9), Seq(3)).await.unwrap(), ResumePoint::Unknown);
    let epochs: Vec<_> = store.all().await.iter().map(|event| event.epoch.clone()).collect();
    assert_eq!(epochs, [vec![epoch(1); 5], vec![epoch(3); 4]].concat());
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn readings_are_refused_while_alerts_still_fit_and_the_hole_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let opened = store::open(folder.path(), &StoreOptions::default(), epoch(1), "boot-1", at(0)).unwrap();
    let mut next = Seq::ZERO;
    let mut offer = |body: EventBody| {
        next = next.next();
        opened.handle.try_append(Arc::new(Event { epoch: epoch(1), seq: next, at: at(0), body }))
    };
    // Nobody writes yet, so the queue fills.
    for _ in 0..QUEUE - RESERVED_FOR_ALERTS - RESERVED_FOR_PEOPLE {
        offer(spo2(97, at(0))).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(offer(spo2(97, at(0))), Err(Refused::Full));
    }
    for _ in 0..RESERVED_FOR_PEOPLE {
        offer(system("what can be asked for at will")).unwrap();
    }
    assert_eq!(offer(system("one more")), Err(Refused::Full));
    for _ in 0..RESERVED_FOR_ALERTS {
        offer(EventBody::Alert(alert(1, AlertChange::Update))).unwrap();
    }
    assert_eq!(offer(EventBody::Alert(alert(1, AlertChange::Update))), Err(Refused::Full));
    let mut store = Running::of(opened);
    store.next = next;
    store.settle_at(Seq(next.0 - 1)).await;
    store.next = next.next();
    store.append(at(1), system("more"));
    store.settle().await;
    let full = u64::try_from(QUEUE - RESERVED_FOR_ALERTS - RESERVED_FOR_PEOPLE).unwrap();
    let people = Seq(full + 3 + u64::try_from(RESERVED_FOR_PEOPLE).unwrap() + 1);
    let range = |first, last| SeqRange { first, last };
    let lost = vec![range(Seq(full + 1), Seq(full + 3)), range(people, people), range(next, next)];
    let point = store.reader.resume_point(&epoch(1), Seq(7)).await.unwrap();
    assert_eq!(point, ResumePoint::After { after: Seq(7), lost: lost.clone() });
    assert_eq!(
        store.reader.lost(Seq(full + 2), Seq(full + 9)).await.unwrap(),
        [SeqRange { first: lost[0].last, ..lost[0] }]
    );
    assert_eq!(store.all().await.len(), QUEUE + 1);
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_event_out_of_order_ends_the_writer_instead_of_breaking_the_numbering() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    store.append(at(0), system("one"));
    store.settle().await;
    store.next = Seq(1);
    store.append(at(0), system("one again"));
    let result = store.writer.join_next().await.unwrap().unwrap();
    assert!(matches!(result, Err(StoreError::OutOfOrder { seq: Seq(1), newest: Seq(1) })), "{result:?}");
}

#[test]
fn a_second_daemon_is_refused_until_the_first_has_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let open = |run| store::open(folder.path(), &StoreOptions::default(), epoch(run), "boot-1", at(0));
    let first = open(1).unwrap();
    let refusal = open(2).unwrap_err().to_string();
    assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
    drop(first.writer);
    open(3).unwrap_err();
    drop(first.reader);
    let again = open(4).unwrap();
    assert_eq!(again.first_seq, Seq(1));
}

#[test]
fn what_cannot_be_opened_is_named_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let open = |dir: &Path| {
        store::open(dir, &StoreOptions::default(), epoch(1), "boot-1", at(0)).map(drop).unwrap_err().to_string()
    };
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&file);
    assert!(error.contains(&file.display().to_string()), "{error}");

    let newer = folder.path().join("newer");
    drop(store::open(&newer, &StoreOptions::default(), epoch(1), "boot-1", at(0)).unwrap());
    let database = rusqlite::Connection::open(newer.join("vitals.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let error = open(&newer);
    assert!(error.contains("newer vitalbridge (schema 99") && error.contains("vitals.db"), "{error}");
    // /proc refuses new files to everybody, root too.
    let error = open(Path::new("/proc/vitalbridge"));
    assert!(error.contains("/proc/vitalbridge"), "{error}");
}

/// The environment variable that makes a test play the part of a daemon on the directory it names.
const CHILD: &str = "VITALBRIDGE_TEST_CHILD";

/// This test binary again, to run one test as a child process.
fn child(launcher: &[&str], test: &str, dir: &Path) -> tokio::process::Command {
    let program = std::env::current_exe().unwrap();
    let mut words = launcher.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
    let mut command = tokio::process::Command::new(words.next().unwrap());
    command.args(words).args(["--exact", test, "--nocapture"]).env(CHILD, dir).kill_on_drop(true);
    command
}

/// The body of event `seq` of the child: the same whoever asks.
fn body_of(seq: Seq) -> EventBody {
    let (tens, ones) = (u128::from(seq.0 / 10), seq.0 % 10);
    match ones {
        0 => EventBody::Alert(alert(tens, AlertChange::Start)),
        // Two of three alerts end.
        5 if tens % 3 != 0 => EventBody::Alert(alert(tens, AlertChange::End)),
        _ => spo2(i32::try_from(seq.0 % 100).unwrap() + 1, at(seq.0)),
    }
}

/// Appends for ever, and prints what is durable.
async fn append_until_killed(dir: &Path) {
    use std::io::Write;
    let mut random = fastrand::Rng::new();
    let options = StoreOptions { group_commit: SECOND / 10, ..StoreOptions::default() };
    let mut store = Running::start(dir, &options, random.u64(..));
    let mut durable = store.handle.durable();
    loop {
        for _ in 0..random.usize(1..40) {
            store.append(at(store.next.0), body_of(store.next));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(random.u64(0..5))) => {}
            changed = durable.changed() => {
                changed.unwrap();
                let line = format!("durable {}\n", *durable.borrow_and_update());
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn nothing_that_was_reported_durable_is_lost_by_sigkill() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    if let Some(dir) = std::env::var_os(CHILD) {
        return append_until_killed(Path::new(&dir)).await;
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut newest = Seq::ZERO;
    for round in 0..25 {
        let mut child = child(&[], "store::nothing_that_was_reported_durable_is_lost_by_sigkill", folder.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut reported = newest;
        let mut reports_to_go = random.u32(0..8);
        while let Some(line) = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
            let Some(number) = line.strip_prefix("durable ") else { continue };
            reported = Seq(number.parse().unwrap());
            if reports_to_go == 0 {
                // Where in its work the child is hit.
                tokio::time::sleep(Duration::from_micros(random.u64(0..20_000))).await;
                child.start_kill().unwrap();
            }
            reports_to_go = reports_to_go.saturating_sub(1);
        }
        assert!(!child.wait().await.unwrap().success());
        assert!(reported > newest, "round {round}");

        let store = Running::start(folder.path(), &StoreOptions::default(), 1_000_000 + round);
        assert!(store.salvaged.is_none());
        assert!(store.first_seq > reported, "{} was reported, {} begins", reported, store.first_seq);
        let events = store.all().await;
        let mut open = Vec::new();
        for (event, seq) in events.iter().zip(1..) {
            assert_eq!((event.seq, event.at), (Seq(seq), at(seq)));
            assert_eq!(event.body, body_of(event.seq));
            if let EventBody::Alert(alert) = &event.body {
                open.retain(|open: &AlertEvent| open.alert != alert.alert);
                open.extend(alert.is_present().then(|| alert.clone()));
            }
        }
        newest = events.last().unwrap().seq;
        assert_eq!(store.first_seq, newest.next());
        assert_eq!(store.open_alerts, open);
        store.end().await.unwrap();
    }
}

/// Appends readings second by second until the disk refuses, sees that everything else goes on, frees the disk, and
/// expects every event in its place.
async fn outlast_a_disk(dir: &Path, fill: impl FnOnce(), free: impl FnOnce()) {
    let options = StoreOptions { max_bytes: Some(64 << 20), ..StoreOptions::default() };
    let mut store = Running::start(dir, &options, 1);
    let mut written: Vec<Event> = (0..500).map(|second| store.append(at(second), spo2(97, at(second)))).collect();
    store.settle().await;
    fill();
    let health = store.handle.health();
    let mut second = 500;
    while *health.borrow() == StoreHealth::Ok {
        assert!(second < 20_000, "the disk never refused");
        written.extend((0..100).map(|more| store.append(at(second + more), spo2(97, at(second + more)))));
        written.push(store.append(at(second), EventBody::Alert(alert(1, AlertChange::Update))));
        // A stream that no earlier commit has numbered.
        let mut new_stream = reading(Vital::scalar(Metric::Spo2, Value::Absent(Absent::Silent)), at(second));
        new_stream.mdc = Some(u32::try_from(second).unwrap());
        written.push(store.append(at(second), EventBody::Reading(new_stream)));
        second += 100;
        tokio::time::sleep(SECOND).await;
    }
    let StoreHealth::Degraded { reason, since } = health.borrow().clone() else { panic!() };
    let durable = *store.handle.durable().borrow();
    let first_waiting = written.iter().find(|event| event.seq > durable).unwrap();
    assert_eq!(since, first_waiting.at);
    assert!(reason.contains("vitals.db"), "{reason}");
    println!("degraded after {durable}: {reason}");

    // What is to be remembered meanwhile is tried with each commit that fails.
    store.handle.set_cursors(vec![("readings".to_owned(), durable)]);
    store.handle.begin_clock_epoch(ClockEpoch {
        first: store.next,
        boot: "boot-1".into(),
        since: at(second).mono,
        offset_ms: 5,
        uncertainty_ms: None,
        state: ClockState::Unknown,
    });
    for more in 0..2000 {
        written.push(store.append(at(second + more), spo2(96, at(second))));
    }
    tokio::time::sleep(RETRY_EVERY * 3).await;
    tokio::time::timeout(SECOND, store.handle.ping()).await.unwrap().unwrap();
    assert!(matches!(*health.borrow(), StoreHealth::Degraded { .. }));
    assert_eq!(*store.handle.durable().borrow(), durable);
    assert_eq!(store.all().await.last().unwrap().seq, durable);

    free();
    let clock = Clock::tokio(start_of_time());
    store.wait_for_health(|health| *health == StoreHealth::Ok).await;
    assert!(clock.now().mono.since(start_of_time().mono) <= RETRY_EVERY);
    store.settle().await;
    compare(&store.all().await, &written);
    assert_eq!(store.reader.cursor("readings").await.unwrap(), durable);
    store.end().await.unwrap();
    let database = rusqlite::Connection::open(dir.join("vitals.db")).unwrap();
    let epochs: i64 = database.query_row("SELECT count(*) FROM clock_epoch", [], |row| row.get(0)).unwrap();
    assert_eq!(epochs, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_outlasted_without_losing_an_accepted_event() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let filler = Path::new(&dir).join("filler");
        let fill = || {
            use std::io::Write;
            let mut file = std::fs::File::create(&filler).unwrap();
            while file.write_all(&[1; 512]).is_ok() {}
        };
        return outlast_a_disk(Path::new(&dir), fill, || std::fs::remove_file(&filler).unwrap()).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=1m,mode=700 vitalbridge-test \"$VITALBRIDGE_TEST_CHILD\" && exec \"$0\" \"$@\"";
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let name = "store::a_full_disk_is_outlasted_without_losing_an_accepted_event";
    let status = child(&["unshare", flags, "sh", "-c", mount], name, folder.path()).status().await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_to_write_is_outlasted_without_losing_an_accepted_event() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    if let Some(dir) = std::env::var_os(CHILD) {
        // A file may not grow beyond this limit, which SQLite meets as an I/O error.
        let before = getrlimit(Resource::Fsize);
        let limit = |current| setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
        return outlast_a_disk(Path::new(&dir), || limit(Some(128 << 10)), || limit(before.current)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "store::a_disk_that_fails_to_write_is_outlasted_without_losing_an_accepted_event";
    // The signal that comes with the limit would end the process.
    let launcher = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let status = child(&launcher, name, folder.path()).status().await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test(start_paused = true)]
async fn rows_beyond_the_budget_go_oldest_first_and_every_unacknowledged_one_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let budget = 512 << 10;
    let options = StoreOptions {
        max_bytes: Some(budget),
        holding_lanes: vec!["backlog".to_owned()],
        retention: Duration::MAX,
        ..StoreOptions::default()
    };
    let mut store = Running::start(folder.path(), &options, 1);
    let mut alerts = Vec::new();
    let acknowledged = Seq(3000);
    let mut reported: Option<DroppedRows> = None;
    for second in 0..40_000_u64 {
        if second % 1000 == 999 {
            alerts.push(store.append(at(second), EventBody::Alert(alert(u128::from(second), AlertChange::End))));
            store.settle().await;
            if store.next > acknowledged {
                store.handle.set_cursors(vec![("backlog".to_owned(), acknowledged)]);
            }
        } else {
            store.append(at(second), spo2(97, at(second)));
        }
        while let Ok(range) = store.dropped.try_recv() {
            let expected = reported.map_or(acknowledged.next(), |reported| reported.last.next());
            // An alert between two ranges is no loss.
            assert!(range.first == expected || range.first == expected.next(), "{range:?} after {reported:?}");
            reported = Some(range);
        }
    }
    store.settle().await;
    tokio::time::sleep(SECOND * 2).await;
    // The last commits may have dropped rows as well.
    while let Ok(range) = store.dropped.try_recv() {
        reported = Some(DroppedRows { last: range.last, ..reported.unwrap() });
    }
    let events = store.all().await;
    let oldest = events.iter().find(|event| matches!(event.body, EventBody::Reading(_))).unwrap().seq;
    assert_eq!(reported.unwrap().last.next(), oldest);
    let kept_alerts: Vec<_> =
        events.iter().filter(|event| matches!(event.body, EventBody::Alert(_))).cloned().collect();
    compare(&kept_alerts, &alerts);
    assert_eq!(events.last().unwrap().seq, Seq(40_000));
    let lost = store.reader.lost(acknowledged, Seq(5000)).await.unwrap();
    let range = |first, last| SeqRange { first: Seq(first), last: Seq(last) };
    assert_eq!(lost, [range(3001, 3999), range(4001, 4999)]);
    let missing: u64 = store
        .reader
        .lost(Seq::ZERO, Seq(40_000))
        .await
        .unwrap()
        .iter()
        .map(|lost| lost.last.0 - lost.first.0 + 1)
        .sum();
    assert_eq!(missing + u64::try_from(events.len()).unwrap(), 40_000);
    store.end().await.unwrap();
    let bytes = std::fs::metadata(folder.path().join("vitals.db")).unwrap().len();
    assert!(bytes < budget + (128 << 10), "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_readings_go_after_a_day_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { holding_lanes: vec!["alerts".to_owned(), "backlog".to_owned()], ..StoreOptions::default() };
    let mut store = Running::start(folder.path(), &options, 1);
    let fill = async |store: &mut Running, seconds: std::ops::Range<u64>| {
        for step in seconds {
            let body = if step % 1000 == 0 { system("mark") } else { spo2(97, at(step * 20)) };
            store.append(at(step * 20), body);
            if step % 500 == 499 {
                store.settle().await;
            }
        }
    };
    let oldest_reading = async |store: &Running| {
        store.all().await.iter().find(|event| matches!(event.body, EventBody::Reading(_))).unwrap().seq.0
    };
    // 10,000 readings, one every 20 s, are 55 hours. Nobody has acknowledged any.
    fill(&mut store, 0..10_000).await;
    assert_eq!(oldest_reading(&store).await, 2);
    store.handle.set_cursors(vec![("alerts".to_owned(), Seq(9000))]);
    fill(&mut store, 10_000..10_200).await;
    assert_eq!(oldest_reading(&store).await, 2, "one lane alone acknowledges nothing");
    store.handle.set_cursors(vec![("backlog".to_owned(), Seq(5000))]);
    fill(&mut store, 10_200..10_500).await;
    let oldest = oldest_reading(&store).await;
    assert!((2953..=5001).contains(&oldest), "{oldest}");
    store.handle.set_cursors(vec![("backlog".to_owned(), Seq(10_500))]);
    store.handle.set_cursors(vec![("alerts".to_owned(), Seq(10_500))]);
    fill(&mut store, 10_500..11_000).await;
    let a_day_ago = 11_000 - 24 * 3600 / 20;
    let oldest = oldest_reading(&store).await;
    assert!((a_day_ago - 2048..=a_day_ago + 1).contains(&oldest), "{oldest}");
    assert!(store.dropped.try_recv().is_err());
    let marks = store.all().await.iter().filter(|event| matches!(event.body, EventBody::System(_))).count();
    assert_eq!(marks, 11);
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_the_broker_did_not_take_is_not_deleted_by_its_age_and_its_loss_for_want_of_space_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let lanes = vec!["alerts".to_owned(), "backlog".to_owned()];
    let options = StoreOptions { holding_lanes: lanes.clone(), ..StoreOptions::default() };
    let mut store = Running::start(folder.path(), &options, 1);
    let fill = async |store: &mut Running, seconds: std::ops::Range<u64>| {
        for second in seconds {
            store.append(at(second), spo2(97, at(second)));
            if second % 500 == 499 {
                store.settle().await;
            }
        }
        store.settle().await;
        // All of it is settled: confirmed or parked.
        let newest = Seq(store.next.0 - 1);
        store.handle.set_cursors(lanes.iter().map(|lane| (lane.clone(), newest)).collect());
    };
    let has = async |store: &Running, seq: u64| store.all().await.iter().any(|event| event.seq == Seq(seq));
    fill(&mut store, 0..5000).await;
    let row = ParkedRow { seq: Seq(3000), lane: "live".to_owned(), at: at(0).wall, reason: "0x87".to_owned() };
    store.handle.park(row);
    // 25 hours later.
    fill(&mut store, 90_000..100_000).await;
    fill(&mut store, 100_000..101_000).await;
    assert!(has(&store, 3000).await, "it was never delivered");
    assert!(!has(&store, 1000).await, "what was delivered goes by its age");
    assert_eq!(store.handle.parked().borrow().total(), 1, "the alert stands");
    assert!(store.dropped.try_recv().is_err());
    store.end().await.unwrap();

    // The next run has less room, and it goes.
    let options = StoreOptions { max_bytes: Some(512 << 10), ..options };
    let mut store = Running::start(folder.path(), &options, 2);
    fill(&mut store, 101_000..104_000).await;
    assert!(!has(&store, 3000).await);
    let told = store.dropped.recv().await.unwrap();
    assert_eq!(told, DroppedRows { first: Seq(3000), last: Seq(3000), parked: 1 });
    assert_eq!(store.handle.parked().borrow().total(), 1, "the alert does not end by itself");
    store.handle.unpark(SeqRange { first: Seq(2990), last: Seq(3000) });
    fill(&mut store, 104_000..104_500).await;
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!(store.handle.parked().borrow().total(), 0, "somebody has asked for it");
    store.end().await.unwrap();
}

/// Writes 0xFF over pages of the database.
fn damage(dir: &Path, pages: &[u64]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(dir.join("vitals.db")).unwrap();
    for page in pages {
        file.write_all_at(&[0xFF; 4096], page * 4096).unwrap();
    }
}

/// A folder with 20,000 events of one run that ended well, and those events.
async fn a_filled_store() -> (tempfile::TempDir, Vec<Event>) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    let mut written = Vec::new();
    for _ in 0..20 {
        written.extend((0..1000).map(|_| store.append(at(store.next.0), body_of(store.next))));
        store.settle().await;
    }
    store.handle.set_cursors(vec![("live".to_owned(), Seq(19_000))]);
    store.end().await.unwrap();
    (folder, written)
}

#[tokio::test(start_paused = true)]
async fn a_damaged_page_costs_only_its_own_rows() {
    let (folder, written) = a_filled_store().await;
    let image = std::fs::read(folder.path().join("vitals.db")).unwrap();
    // Leaves of tables begin with 13 (SQLite's file format, 1.6); those without an alert's text hold readings.
    let holds_readings = |page: &[u8]| page[0] == 13 && !page.windows(8).any(|text| text == b"spo2_low");
    let leaves: Vec<usize> = (20..image.len() / 4096).filter(|p| holds_readings(&image[p * 4096..][..4096])).collect();
    damage(folder.path(), &[u64::try_from(leaves[leaves.len() / 2]).unwrap()]);

    // The last run ended well, so nothing is checked, and the reader meets the damage.
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 2);
    assert!(store.salvaged.is_none());
    let mut after = Seq::ZERO;
    let error = loop {
        match store.reader.events(after, 100).await {
            Ok(events) => after = events.last().expect("the damage was not met").seq,
            Err(error) => break error,
        }
    };
    assert!(error.is_damage(), "{error}");

    // The writer replaces the database while the run goes on.
    let report = tokio::time::timeout(DEADLINE, store.salvages.recv()).await.unwrap().unwrap();
    assert!(report.moved_to.exists() && report.moved_to.to_string_lossy().contains("vitals.db.corrupt-"));
    let saved = store.all().await;
    assert_eq!(report.readings + report.events, u64::try_from(saved.len()).unwrap());
    let lost = written.len() - saved.len();
    assert!((1..=200).contains(&lost), "{lost}");
    for event in &saved {
        let place = usize::try_from(event.seq.0).unwrap() - 1;
        assert_eq!(*event, written[place]);
    }
    let counted: u64 = report.lost.iter().map(|range| range.last.0 - range.first.0 + 1).sum();
    assert_eq!(counted, u64::try_from(lost).unwrap());
    assert_eq!(store.reader.lost(Seq::ZERO, Seq(20_000)).await.unwrap(), report.lost);
    assert_eq!(store.reader.cursor("live").await.unwrap(), Seq(19_000));
    assert_eq!(store.first_seq, Seq(20_001));
    assert!(!store.open_alerts.is_empty());
    let epochs: Vec<_> = store.reader.epochs().await.unwrap().iter().map(|run| run.epoch.clone()).collect();
    assert_eq!(epochs, [epoch(1), epoch(2)]);
    let event = store.append(at(1), system("it goes on"));
    store.settle().await;
    assert_eq!(store.all().await.last(), Some(&event));
    store.end().await.unwrap();
    let store = Running::start(folder.path(), &StoreOptions::default(), 4);
    assert!(store.salvaged.is_none());
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_database_damaged_anywhere_starts_again_after_a_crash_with_what_can_be_read() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (folder, written) = a_filled_store().await;
    // A run that does not end: whoever opens next has reason to check.
    drop(store::open(folder.path(), &StoreOptions::default(), epoch(2), "boot-1", at(0)).unwrap());
    let path = folder.path().join("vitals.db");
    let image = std::fs::read(&path).unwrap();
    let pages = u64::try_from(image.len()).unwrap() / 4096;
    for round in 0..12 {
        std::fs::write(&path, &image).unwrap();
        let hit: Vec<u64> = match round {
            0 => vec![0],
            _ => (0..random.usize(1..6)).map(|_| random.u64(0..pages)).collect(),
        };
        println!("pages {hit:?}");
        damage(folder.path(), &hit);
        let mut store = Running::start(folder.path(), &StoreOptions::default(), 3);
        let saved = store.all().await;
        for event in &saved {
            let original = &written[usize::try_from(event.seq.0).unwrap() - 1];
            assert_eq!((&event.body, event.at), (&original.body, original.at));
        }
        let event = store.append(at(1), system("it goes on"));
        store.settle().await;
        assert_eq!(store.all().await.last(), Some(&event));
        store.end().await.unwrap();
        let kept = std::fs::read_dir(folder.path()).unwrap().count();
        assert!(kept < 12, "{kept} files");
    }
    std::fs::write(&path, "this is no database at all, and longer than its header would be: ".repeat(100)).unwrap();
    let store = Running::start(folder.path(), &StoreOptions::default(), 4);
    let report = store.salvaged.clone().unwrap();
    assert_eq!((report.readings, report.events, store.first_seq), (0, 0, Seq(1)));
    store.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_somebody_holds_only_delays_and_at_the_end_the_loss_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Running::start(folder.path(), &StoreOptions::default(), 1);
    let somebody = rusqlite::Connection::open(folder.path().join("vitals.db")).unwrap();
    somebody.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.append(at(3), system("one"));
    let health = store.wait_for_health(|health| *health != StoreHealth::Ok).await;
    assert!(matches!(&health, StoreHealth::Degraded { reason, since } if reason.contains("locked") && *since == at(3)));
    somebody.execute_batch("ROLLBACK").unwrap();
    store.settle().await;
    store.wait_for_health(|health| *health == StoreHealth::Ok).await;

    somebody.execute_batch("BEGIN IMMEDIATE").unwrap();
    for second in 4..1504 {
        store.append(at(second), spo2(97, at(second)));
    }
    let error = store.end().await.unwrap_err().to_string();
    assert!(error.starts_with("1500 events were not stored") && error.contains("locked"), "{error}");
    drop(somebody);
    let again = Running::start(folder.path(), &StoreOptions::default(), 2);
    assert_eq!(again.first_seq, Seq(2));
    again.end().await.unwrap();
}

#[tokio::test]
async fn what_a_device_is_bound_to_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let audit = |action, object: &str, result| {
        EventBody::Audit(AuditEvent {
            by: AuditEvent::BRIDGE.to_owned(),
            address: None,
            action,
            object: object.to_owned(),
            patient: None,
            device: Some("rad-8".parse().unwrap()),
            source: Some("port".parse().unwrap()),
            result,
            reason: None,
            mode: Mode::Real,
        })
    };
    let steps = [
        (AuditAction::DeviceBound, "A", AuditResult::Done, (Some("A"), None)),
        (AuditAction::DeviceChanged, "B", AuditResult::Done, (Some("A"), Some("B"))),
        (AuditAction::DeviceConfirmed, "C", AuditResult::Refused, (Some("A"), Some("B"))),
        (AuditAction::DeviceCommand, "D", AuditResult::Done, (Some("A"), Some("B"))),
        (AuditAction::DeviceConfirmed, "B", AuditResult::Done, (Some("B"), None)),
    ];
    for (run, (action, object, result, expected)) in (1..).zip(steps) {
        let mut store = Running::start(dir.path(), &options, run);
        store.append(at(run), audit(action, object, result));
        store.settle().await;
        store.end().await.unwrap();
        let reopened = Running::start(dir.path(), &options, 100 + run);
        let known = &reopened.identities[&"port".parse().unwrap()];
        assert_eq!((known.serial_number.as_deref(), known.doubted.as_deref()), expected, "{action}");
        assert_eq!(known.device.as_str(), "rad-8");
        reopened.end().await.unwrap();
    }
}

#[tokio::test]
async fn records_that_are_on_disk_are_known_to_the_next_run_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let meter: DeviceId = "meter-1".parse().unwrap();
    let key = |number| record(number).key().unwrap();
    let mark = |action, object: &str| {
        EventBody::Audit(AuditEvent {
            by: AuditEvent::BRIDGE.to_owned(),
            address: None,
            action,
            object: object.to_owned(),
            patient: None,
            device: Some("meter-1".parse().unwrap()),
            source: Some("meter".parse().unwrap()),
            result: AuditResult::Done,
            reason: None,
            mode: Mode::Real,
        })
    };
    let mut store = Running::start(dir.path(), &options, 1);
    assert_eq!(store.records, BTreeMap::new());
    // A number for the second record, which never reaches the disk: the store's queue had no place.
    store.append(at(1), EventBody::Record(record(1)));
    store.number(at(2), EventBody::Record(record(2)));
    store.append(at(3), EventBody::Record(record(3)));
    store.settle().await;
    for (numbers, expected) in [(&[1][..], true), (&[1, 3], true), (&[], true), (&[1, 2, 3], false), (&[4], false)] {
        let keys: Vec<RecordKey> = numbers.iter().map(|number| key(*number)).collect();
        assert_eq!(store.reader.missing_records(&meter, keys).await.unwrap().is_empty(), expected, "{numbers:?}");
    }
    let of_another = store.reader.missing_records(&"meter-2".parse().unwrap(), vec![key(1)]).await.unwrap();
    assert_eq!(of_another, [key(1)], "another meter");
    store.append(at(4), mark(AuditAction::RecordsTaken, "3"));
    // The same again, as after a power cut between a reading and its record.
    store.append(at(5), EventBody::Record(record(3)));
    store.end().await.unwrap();

    let mut store = Running::start(dir.path(), &options, 2);
    let known = KnownRecords { keys: vec![key(1), key(3)], through: Some(3) };
    assert_eq!(store.records, BTreeMap::from([(meter.clone(), known)]));
    store.append(at(6), mark(AuditAction::RecordsDeleted, "3"));
    store.end().await.unwrap();
    let store = Running::start(dir.path(), &options, 3);
    assert_eq!(store.records[&meter], KnownRecords { keys: vec![key(1), key(3)], through: None });
    store.end().await.unwrap();
}

#[tokio::test]
async fn a_record_goes_with_its_readings_and_stays_known() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { retention: Duration::from_hours(1), ..StoreOptions::default() };
    let mut store = Running::start(dir.path(), &options, 1);
    store.append(at(1), spo2(97, at(1)));
    store.append(at(1), EventBody::Record(record(1)));
    store.append(at(1), EventBody::Alert(alert(1, AlertChange::Start)));
    for _ in 0..2047 {
        store.append(at(2), spo2(97, at(2)));
    }
    // Right after the last reading that goes, which is its own.
    store.append(at(2), EventBody::Record(record(3)));
    for _ in 0..1000 {
        store.append(at(2), spo2(97, at(2)));
    }
    store.settle().await;
    store.append(at(2), EventBody::Record(record(2)));
    for second in 7200..7210 {
        store.append(at(second), spo2(97, at(second)));
    }
    store.settle().await;
    let left: Vec<EventBody> = store.all().await.into_iter().map(|event| event.body).collect();
    let numbers: Vec<_> = left
        .iter()
        .filter_map(|body| if let EventBody::Record(record) = body { record.number } else { None })
        .collect();
    assert_eq!(numbers, [2], "the older one has gone with the first 2048 readings");
    assert!(left.iter().any(|body| matches!(body, EventBody::Alert(_))), "an alert stays longer");
    assert_eq!(known_records(&store).await, 2);
    store.end().await.unwrap();
}

async fn known_records(store: &Running) -> usize {
    let meter: DeviceId = "meter-1".parse().unwrap();
    let mut known = 0;
    for number in 1..=2 {
        let keys = vec![record(number).key().unwrap()];
        known += usize::from(store.reader.missing_records(&meter, keys).await.unwrap().is_empty());
    }
    known
}

#[tokio::test]
async fn what_people_changed_of_limits_is_kept_as_long_as_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::default();
    let change = |kind, set| LimitChange {
        patient: "P-1".parse().unwrap(),
        rule: "spo2_low".parse().unwrap(),
        kind,
        lines: "when = { below = 86 }".to_owned(),
        reason: "COPD".to_owned(),
        by: "lena".to_owned(),
        expires: Wall(1_900_000_000_000),
        set,
        beside: Some("before".to_owned()),
    };
    let (limits, off) = (change(LimitKind::Limits, Some(Wall(1))), change(LimitKind::Off, Some(Wall(2))));
    let later = LimitChange { lines: "when = { below = 84 }".to_owned(), ..limits.clone() };
    let of_the_file = change(LimitKind::Limits, None);
    let steps = [
        (limits.clone(), LimitAction::Set, vec![limits.clone()]),
        (off.clone(), LimitAction::Disabled, vec![limits, off.clone()]),
        (later.clone(), LimitAction::Set, vec![later.clone(), off.clone()]),
        (of_the_file, LimitAction::Expired, vec![later.clone(), off.clone()]),
        (off, LimitAction::Enabled, vec![later.clone()]),
        (later.clone(), LimitAction::Stands, vec![later.clone()]),
        (later, LimitAction::Expired, vec![]),
    ];
    for (run, (change, action, expected)) in (1..).zip(steps) {
        let mut store = Running::start(dir.path(), &options, run);
        let text = || "in words".to_owned();
        let limits = LimitsEvent { change, action, by: text(), reason: text(), before: text(), after: text() };
        let event = store.append(at(run), EventBody::Limits(limits));
        store.settle().await;
        let before = Seq(event.seq.0 - 1);
        assert_eq!(store.reader.events(before, 1).await.unwrap(), [event], "read back as it was");
        store.end().await.unwrap();
        let reopened = Running::start(dir.path(), &options, 100 + run);
        assert_eq!(reopened.limit_changes.changes, expected, "{action}");
        reopened.end().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_boot_stored_before_its_clock_was_set_is_kept_for_its_time() {
    const SET: i64 = 1_795_219_200_000;
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { retention: Duration::from_hours(1), ..StoreOptions::default() };
    let at = |seconds: u64, ahead_ms: i64| Stamp {
        mono: Mono::from_millis(seconds * 1000),
        wall: Wall(i64::try_from(seconds).unwrap() * 1000 + ahead_ms),
    };
    let begin = |run: &Running, boot: &str, now: Stamp, state: ClockState| {
        let (first, since, offset_ms) = (run.next, now.mono, vitalbridge::timeline::offset_ms(now));
        run.handle.begin_clock_epoch(ClockEpoch {
            first,
            boot: boot.into(),
            since,
            offset_ms,
            uncertainty_ms: Some(100),
            state,
        });
    };
    let mut run = Running::of(store::open(dir.path(), &options, epoch(1), "boot-1", at(10, 0)).unwrap());
    // The clock begins at 1970, and a time server answers ten minutes later.
    begin(&run, "boot-1", at(10, 0), ClockState::Unsynchronised);
    for number in 0..2100 {
        run.append(at(10 + number / 10, 0), spo2(97, at(10 + number / 10, 0)));
    }
    begin(&run, "boot-1", at(600, SET), ClockState::Synchronised);
    run.append(at(600, SET), spo2(97, at(600, SET)));
    run.settle().await;
    run.end().await.unwrap();

    // Another boot twenty minutes after the first; ages are looked at with its first event.
    let booted = SET + 1_200_000;
    let mut run = Running::of(store::open(dir.path(), &options, epoch(2), "boot-2", at(5, booted)).unwrap());
    begin(&run, "boot-2", at(5, booted), ClockState::Synchronised);
    for (seconds, kept) in [(6, 2102), (1800, 2103), (3600, 56)] {
        run.append(at(seconds, booted), spo2(97, at(seconds, booted)));
        run.settle().await;
        assert_eq!(run.all().await.len(), kept, "{seconds} s after boot");
    }
    run.end().await.unwrap();
}
