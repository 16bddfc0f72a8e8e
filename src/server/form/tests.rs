//! Every kind of event in every form says the same, and in how many bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::{Form, cbor, compact::Streams};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{
    Activation, AlertChange, AlertEvent, AlertKind, AuditAction, AuditEvent, AuditResult, ChatCleared, ChatEvent,
    ChatMessage, Entered, Event, EventBody, InboxChange, LimitAction, LimitChange, LimitKind, LimitsEvent, LinkState,
    Notification, NotificationKind, ObservationEvent, Presence, Priority, Signal, SignalPresence, SourceEvent,
    SystemEvent, SystemKind,
};
use crate::ids::{AlertId, Seq};
use crate::record::RecordEvent;
use crate::server::contract::frames;
use crate::vitals::{
    Absent, Breathing, DERIVED_SOURCE, Decimal, EarlyWarning, Finding, Metric, Mode, Parameter, Pressure, Quality,
    Reading, ScoreInput, Spo2Scale, Status, Taken, TimeSource, Value, Variability, Vital,
};
use crate::wire;

fn wall() -> Wall {
    Wall::parse("2026-11-20T22:00:00.123Z").unwrap()
}

fn now() -> Stamp {
    Stamp { mono: Mono::from_millis(5), wall: wall() }
}

fn reading(vital: Vital) -> Reading {
    Reading {
        patient: Some("P-0001".parse().unwrap()),
        device: "polar-h10-1".parse().unwrap(),
        source: "strap".parse().unwrap(),
        vital,
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Real,
        taken: Taken::on_arrival(now()),
        received: now(),
    }
}

fn number(metric: Metric, value: i32) -> Reading {
    reading(Vital::scalar(metric, Value::Valid(Decimal::integer(value))))
}

/// Readings of every form that a reading can have, each with what it shows.
fn readings() -> Vec<(&'static str, Reading)> {
    let pressure = |mean| {
        let valid = |value| Value::Valid(Decimal::integer(value));
        reading(Vital::BloodPressure(Pressure { systolic: valid(120), diastolic: valid(80), mean }))
    };
    let gone = Value::Absent(Absent::SensorOff);
    let score = EarlyWarning {
        score_min: 2,
        score_max: 5,
        single_min: 2,
        single_max: 3,
        scale: Spo2Scale::One,
        inputs: vec![ScoreInput {
            parameter: Parameter::Oxygen,
            value: Finding::Breathing(Breathing::Oxygen),
            points: 2,
            age_ms: 7,
            metric: None,
            device: None,
            by: Some("lena".to_owned()),
        }],
        missing: vec![Parameter::Pulse],
    };
    let spread = Variability {
        n: 300,
        rejected: 2,
        sdnn: Decimal::tenths(450),
        rmssd: Decimal::tenths(312),
        pnn50: Decimal::tenths(100),
    };
    let device_time = Taken {
        wall: Some(Wall(wall().0 - 3_600_000)),
        source: TimeSource::DeviceMapped,
        uncertainty_ms: Some(500),
        mapping_ms: Some(400),
        device_time: Some("2026-11-20T08:00:00".to_owned()),
    };
    let unknown_time = Taken { wall: None, ..device_time.clone() };
    vec![
        ("a heart rate", number(Metric::HeartRate, 72)),
        ("digits are kept", reading(Vital::scalar(Metric::Temperature, Value::Valid(Decimal::tenths(370))))),
        ("absent", reading(Vital::scalar(Metric::Spo2, gone))),
        ("a doubtful one", Reading { quality: Quality::Questionable, ..number(Metric::Spo2, 91) }),
        ("a composite", pressure(gone)),
        ("a composite with its mean", pressure(Value::Valid(Decimal::integer(95)))),
        ("beats", reading(Vital::RrIntervals(vec![819, 1024]))),
        ("a score", Reading { source: DERIVED_SOURCE.parse().unwrap(), ..reading(Vital::News2(Box::new(score))) }),
        ("a spread", Reading { source: DERIVED_SOURCE.parse().unwrap(), ..reading(Vital::Variability(spread)) }),
        ("of nobody", Reading { patient: None, ..number(Metric::Spo2, 97) }),
        ("a demo", Reading { mode: Mode::Demo, ..number(Metric::Spo2, 97) }),
        ("another code", Reading { mdc: Some(149_546), ..number(Metric::PulseRate, 60) }),
        ("the device's time", Reading { taken: device_time, ..number(Metric::Glucose, 99) }),
        ("an unknown time", Reading { taken: unknown_time, ..number(Metric::Glucose, 99) }),
        (
            "a clock that was set back",
            Reading { received: Stamp { wall: Wall(0), ..now() }, ..number(Metric::Spo2, 1) },
        ),
    ]
}

fn patient() -> crate::ids::PatientId {
    "P-0001".parse().unwrap()
}

fn alert() -> AlertEvent {
    let signal = Signal { activation: Activation::On, presence: SignalPresence::On };
    AlertEvent {
        alert: AlertId(Uuid::from_u128(1)),
        change: AlertChange::Start,
        patient: Some(patient()),
        device: None,
        rule: "spo2_low".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority: Priority::High,
        metric: Some(Metric::Spo2),
        value: Some(Value::Valid(Decimal::integer(84))),
        limit: "below 90 %".to_owned(),
        message: "SpO2 84 %".to_owned(),
        presence: Presence::True,
        audio: signal,
        visual: signal,
        onset: wall(),
        announced: wall(),
        paused_until: Some(wall()),
        hidden_by: None,
        recurrence: 1,
        by: None,
        end_reason: None,
        escalated: 3,
        mode: Mode::Real,
    }
}

fn limits() -> LimitsEvent {
    let change = LimitChange {
        patient: patient(),
        rule: "spo2_low".parse().unwrap(),
        kind: LimitKind::Limits,
        lines: String::new(),
        reason: "COPD".to_owned(),
        by: "clinician-7".to_owned(),
        expires: wall(),
        set: Some(wall()),
        beside: None,
    };
    LimitsEvent {
        change,
        action: LimitAction::Set,
        by: "clinician-7".to_owned(),
        reason: "COPD".to_owned(),
        before: "below 90 %".to_owned(),
        after: "below 86 %".to_owned(),
    }
}

/// Events that are no readings, one of each kind.
fn others() -> Vec<EventBody> {
    let (device, source) = ("polar-h10-1".parse().unwrap(), "strap".parse().unwrap());
    let entered =
        Entered { value: Breathing::Oxygen, by: "lena".into(), at: wall(), until: wall(), until_mono: Mono(9) };
    vec![
        EventBody::Alert(alert()),
        EventBody::Notification(Notification {
            id: Uuid::from_u128(2),
            kind: NotificationKind::HealthAlert,
            patient: Some(patient()),
            users: vec!["7".to_owned()],
            alert: Some(AlertId(Uuid::from_u128(1))),
            title: "t".to_owned(),
            message: "\"ä\"\n".to_owned(),
            priority: Priority::High,
            created: wall(),
            expires: None,
            by: None,
            mode: Mode::Real,
        }),
        EventBody::Chat(ChatEvent::Message(ChatMessage {
            id: Uuid::from_u128(3),
            room: "r".into(),
            sender: "nurse".into(),
            message: "Hello".into(),
        })),
        EventBody::Chat(ChatEvent::Cleared(ChatCleared { cleared: "r".into(), by: "7".into(), everybody: true })),
        EventBody::Source(SourceEvent {
            source,
            device,
            patient: None,
            link: LinkState::Live,
            status: [Status::LowBattery].into(),
            reason: None,
            mode: Mode::Real,
        }),
        EventBody::Record(RecordEvent {
            source: "meter".parse().unwrap(),
            device: "meter".parse().unwrap(),
            patient: Some(patient()),
            characteristic: 0x2A18,
            number: Some(7),
            user: None,
            device_time: Some("2026-11-20T08:00:00".to_owned()),
            raw: "1207".to_owned(),
            context: Some("02".to_owned()),
            found: vec![],
            readings: Some((Seq(1), Seq(2))),
            mode: Mode::Real,
        }),
        EventBody::System(SystemEvent {
            kind: SystemKind::EventsLost,
            message: "lost".to_owned(),
            first: Some(Seq(3)),
            last: Some(Seq(4)),
        }),
        EventBody::Audit(AuditEvent {
            by: AuditEvent::BRIDGE.to_owned(),
            address: Some("192.0.2.1".to_owned()),
            action: AuditAction::DeviceBound,
            object: "5".to_owned(),
            patient: None,
            device: None,
            source: None,
            result: AuditResult::Done,
            reason: None,
            mode: Mode::Real,
        }),
        EventBody::Limits(limits()),
        EventBody::Inbox(InboxChange::Delivered { user: "7".to_owned(), ids: vec![Uuid::from_u128(2)] }),
        EventBody::Observation(ObservationEvent {
            patient: patient(),
            oxygen: Some(entered),
            consciousness: None,
            by: "lena".to_owned(),
            mode: Mode::Real,
        }),
    ]
}

/// Every event.
fn events() -> Vec<(String, Event)> {
    let readings = readings().into_iter().map(|(name, reading)| (name.to_owned(), EventBody::Reading(reading)));
    let others = others().into_iter().map(|body| (wire::kind_of(&body).to_owned(), body));
    let event = |(name, body): (String, EventBody)| {
        let at = Stamp { wall: Wall(wall().0 + 7), ..now() };
        (name, Event { epoch: "k3f9a2b1".parse().unwrap(), seq: Seq(1042), at, body })
    };
    readings.chain(others).map(event).collect()
}

/// The JSON of every event.
fn texts() -> Vec<(String, String)> {
    events().into_iter().map(|(name, event)| (name, wire::push(&event).unwrap())).collect()
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_kind_of_event_is_in_the_contract() {
    let mut seen = BTreeSet::new();
    for (_, text) in texts() {
        let message = json(&text);
        let kind = message["type"].as_str().unwrap().to_owned();
        if kind == "inbox" {
            assert_eq!(frames::found("MqttInbox", &message), Vec::<String>::new());
        } else {
            frames::check(&message);
        }
        seen.insert(kind);
    }
    let all = wire::PUSHES.iter().chain(wire::UPLOADS).map(|kind| kind.name.to_owned());
    assert_eq!(seen, all.filter(|name| name != wire::BUNDLE).collect(), "one of each kind");
}

#[test]
fn what_waited_for_the_broker_is_in_the_contract_alone_and_in_a_bundle() {
    let (bridge, all) = ("b1".parse().unwrap(), events());
    let uploads: Vec<String> = all.iter().map(|(_, event)| wire::upload(event, &bridge, true).unwrap()).collect();
    for upload in uploads.iter().map(|text| json(text)).filter(|upload| upload["type"] != "inbox") {
        assert_eq!(upload["historical"], true);
        frames::check(&upload);
    }
    let ends = (&all.first().unwrap().1, &all.last().unwrap().1);
    let bundle = json(&wire::bundle(&uploads, &bridge, ends));
    assert_eq!(frames::found("MqttBatch", &bundle), Vec::<String>::new());
    for (pointer, value) in
        [("/data/0/type", Json::from("fly")), ("/data/0/seq", Json::Null), ("/historical", false.into())]
    {
        let mut broken = bundle.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        assert_ne!(frames::found("MqttBatch", &broken), Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn what_comes_again_and_what_older_clients_get_is_in_the_contract_and_stays_whole_in_every_form() {
    for (name, event) in events() {
        let text = match &event.body {
            EventBody::Alert(_) => wire::redelivered(&wire::push(&event).unwrap()),
            EventBody::Chat(ChatEvent::Message(_)) => wire::chat_received(&event).unwrap(),
            _ => continue,
        };
        frames::check(&json(&text));
        assert_eq!(json(&cbor::to_json(&cbor::from_json(&text).unwrap()).unwrap()), json(&text), "{name}");
        assert!(Streams::default().compact(&text).is_none(), "{name}");
    }
}

#[test]
fn every_event_says_the_same_in_cbor() {
    for (name, text) in texts() {
        let bytes = cbor::from_json(&text).unwrap();
        assert_eq!(&bytes[..3], [0xD9, 0xD9, 0xF7], "{name}");
        assert_eq!(json(&cbor::to_json(&bytes).unwrap()), json(&text), "{name}");
    }
    let (_, text) = texts().swap_remove(1);
    let bytes = cbor::from_json(&text).unwrap();
    // Tag 4, [-1, 370]: 37.0, and not 37.
    assert!(text.contains("37.0") && bytes.windows(6).any(|part| part == [0xC4, 0x82, 0x20, 0x19, 0x01, 0x72]));
}

/// Reads a short reading as docs/contract.md tells clients to.
fn long_form(list: &Json, streams: &BTreeMap<u64, (String, Json)>, base: Wall, epoch: &str) -> Json {
    let at = |place: usize| list[place].as_i64().unwrap();
    let (channel, shared) = &streams[&list[1].as_u64().unwrap()];
    let (received, seq) = (Wall(base.0 + at(3)), list[0].as_u64().unwrap());
    let mut data: Map<String, Json> = shared.as_object().unwrap().clone();
    data.insert("received".to_owned(), received.to_string().into());
    data.insert("timestamp".to_owned(), received.to_string().into());
    if list[2].is_string() {
        data.insert("value".to_owned(), Json::Null);
        data.insert("absent".to_owned(), list[2].clone());
    } else {
        data.insert("value".to_owned(), list[2].clone());
    }
    for (name, value) in list[5].as_object().into_iter().flatten() {
        if value.is_null() {
            data.remove(name)
        } else {
            data.insert(name.clone(), value.clone())
        };
    }
    serde_json::json!({
        "type": "health_update", "data": data, "timestamp": Wall(received.0 + at(4)).to_string(),
        "correlation_id": format!("{epoch}:{seq}"), "channel": channel, "seq": seq, "epoch": epoch,
    })
}

#[test]
fn every_reading_says_the_same_in_short_and_everything_else_stays_as_it_is() {
    let table = Streams::default();
    let mut numbers = BTreeSet::new();
    let mut short = Vec::new();
    for (name, text) in texts() {
        let is_reading = json(&text)["type"] == "health_update";
        let Some(compact) = table.compact(&text) else {
            assert!(!is_reading, "{name}: {text}");
            continue;
        };
        assert!(is_reading, "{name}");
        let list = json(std::str::from_utf8(&compact.text).unwrap());
        frames::check(&list);
        assert_eq!(list[1], compact.stream);
        numbers.insert(compact.stream);
        short.push((name, text, compact));
    }
    assert_eq!(short.len(), readings().len());
    let stream = |number: &u32| {
        let stream = table.stream(*number).unwrap();
        (u64::from(*number), (stream.channel.clone(), json(stream.data.get())))
    };
    let streams: BTreeMap<u64, (String, Json)> = numbers.iter().map(stream).collect();
    for (name, text, compact) in &short {
        let list = std::str::from_utf8(&compact.text).unwrap();
        assert_eq!(long_form(&json(list), &streams, table.base(), "k3f9a2b1"), json(text), "{name}: {list}");
    }
    let digits = short.iter().find(|(name, ..)| name == "digits are kept").unwrap();
    assert!(digits.2.text.windows(6).any(|part| part == b",37.0,"), "{:?}", digits.2);
    // The same stream has the same number, whatever its readings say of value, quality and time.
    let number = |name: &str| short.iter().find(|(known, ..)| known == name).unwrap().2.stream;
    assert_eq!(number("absent"), number("a doubtful one"));
    assert_eq!(number("the device's time"), number("an unknown time"));
    assert_ne!(number("a demo"), number("absent"));
}

#[test]
fn a_reading_that_cannot_be_told_in_short_goes_in_full() {
    let (_, text) = texts().swap_remove(0);
    let table = Streams::default();
    assert!(table.compact(&text).is_some());
    for (from, to) in [
        (r#""type":"health_update""#, r#""type":"other""#),
        (r#""seq":1042"#, r#""seq":1042,"extra":1"#),
        (r#""correlation_id":"k3f9a2b1:1042""#, r#""correlation_id":"x""#),
        (r#""received":"2026-11-20T22:00:00.123Z""#, r#""received":"2026-11-20T22:00:00Z""#),
        (r#""quality":"valid""#, r#""quality":null"#),
        (r#""value":72,"#, ""),
    ] {
        let other = text.replace(from, to);
        assert_ne!(other, text, "{from}");
        assert!(table.compact(&other).is_none(), "{to}");
    }
    // A member that nobody knew when this was written is told, and not lost.
    let newer = text.replace(r#""quality":"valid""#, r#""quality":"valid","site":"left hand""#);
    let compact = table.compact(&newer).unwrap();
    assert!(std::str::from_utf8(&compact.text).unwrap().ends_with(r#",{"site":"left hand"}]"#));
}

#[test]
fn a_form_has_its_subprotocol() {
    for form in Form::ALL {
        assert_eq!(Form::of_protocol(form.protocol()), Some(form));
    }
    assert_eq!(Form::of_protocol("vitals.v2.json"), None);
}

/// What docs/contract.md says about sizes is what they are.
#[test]
fn the_sizes_in_the_document_are_those_of_the_messages() {
    let table = Streams::default();
    // A minute into a run.
    table.compact(&texts().swap_remove(0).1.replace("22:00:00", "21:59:00"));
    let mut lines = Vec::new();
    for (name, text) in texts() {
        if !["a heart rate", "absent", "a composite", "a score", "alert"].contains(&name.as_str()) {
            continue;
        }
        let (cbor, json) = (cbor::from_json(&text).unwrap().len(), text.len());
        let compact = table.compact(&text).map_or(json, |compact| compact.text.len());
        lines.push(format!("| {name} | {json} | {cbor} | {compact} |"));
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/contract.md")).unwrap();
    for line in &lines {
        assert!(page.contains(line.as_str()), "docs/contract.md has to say\n{}", lines.join("\n"));
    }
}
