//! The JSON that dashboards and the backend read: made from domain types, never the reverse.
//!
//! One event is serialised once; WebSocket, SSE and MQTT send the same text. The form is that of docs/protocol.md.

mod answer;
mod birth;
mod chat;
mod computed;
mod dated;
mod discovery;
mod list;
mod notification;
pub mod shape;
mod storage;
mod uplink;

use schemars::JsonSchema;
use serde::Serialize;

pub use self::answer::{ChosenPreferences, CommandResult, Done, No, Refused, Yes};
pub use self::birth::{BirthClock, BirthData, ClockEpoch, KnownDevice, Threshold, Thresholds};
pub use self::chat::{
    ActivityData, Line, MOMENTS, MomentData, PresenceData, ReadData, TypingData, chat_received, moment,
};
use self::chat::{ChatData, ClearedData, MessageData};
pub use self::dated::{ClockNote, dated};
pub use self::discovery::{DiscoveredAvailability, DiscoveredComponent, DiscoveredDevice, Discovery, DiscoveryOrigin};
pub use self::list::{alert, device, reading};
use self::notification::UserPush;
pub use self::notification::{ToUser, preferences, to_user, user_id};
use self::shape::{AnyUpload, Kind, Timestamp, Uuid};
pub use self::storage::{DiskNow, LogNow, StorageNow};
use self::uplink::StatusData;
pub use self::uplink::{BridgeNews, UplinkNow, bridge_news};
use crate::clock::{Mono, Wall};
use crate::derive::pressure;
use crate::event::{
    AlertChange, AlertEvent, AlertKind, AuditAction, AuditEvent, AuditResult, ChatEvent, EndReason, Entered, Event,
    EventBody, InboxChange, LimitAction, LimitKind, LimitsEvent, LinkState, ObservationEvent, Presence, Priority,
    Signal, SourceEvent, SystemEvent, SystemKind,
};
use crate::ids::{BridgeId, DeviceId, Epoch, PatientId, RuleId, Seq, SiteId, SourceId};
use crate::patient::Patient;
use crate::record::RecordEvent;
use crate::signal_times::{OwnTimes, SignalTimes};
use crate::vitals::{
    Absent, Breathing, Consciousness, Decimal, Metric, Mode, Pressure, Quality, Reading, Status, TimeSource, Value,
    Vital, rr_millis,
};
use computed::Computed;

/// Parts of a composite value, in the unit of the whole.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Components {
    /// The highest pressure in a beat.
    pub systolic: Option<Decimal>,
    /// The lowest pressure in a beat.
    pub diastolic: Option<Decimal>,
    /// The mean over a beat.
    pub mean: Option<Decimal>,
}

/// What is computed here from a composite value, in the unit of the whole. It stands apart from what the device said.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Derived {
    /// The mean pressure, where the device gives none: (systolic + 2 diastolic) / 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Decimal>,
    /// Systolic minus diastolic of the same measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulse_pressure: Option<Decimal>,
}

/// The `data` of a `health_update`. `vitalbridge decode` prints the same without the members that need a source.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ReadingData<'a> {
    metric: Metric,
    value: Option<Decimal>,
    /// For people.
    unit: &'static str,
    /// For machines (UCUM).
    ucum: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Timestamp>")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DeviceId>")]
    device_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    quality: Quality,
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<Absent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    components: Option<Components>,
    #[serde(skip_serializing_if = "Option::is_none")]
    derived: Option<Derived>,
    /// Beat intervals in ms, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    intervals: Option<Vec<Decimal>>,
    #[serde(flatten)]
    computed: Computed<'a>,
    mdc: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    loinc: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SourceId>")]
    source_id: Option<&'a str>,
    /// The metrics from which the bridge computed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    derived_from: Option<Vec<Metric>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Timestamp>")]
    received: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts_source: Option<TimeSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts_uncertainty_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_time: Option<&'a str>,
}

impl<'a> ReadingData<'a> {
    /// What a decoder found, before anybody knows whose it is.
    pub fn decoded(vital: &'a Vital, quality: Quality, mdc: Option<u32>, device_time: Option<&'a str>) -> Self {
        let metric = vital.metric();
        let info = metric.info();
        let leading = vital.leading();
        Self {
            metric,
            value: leading.valid(),
            unit: info.unit,
            ucum: info.ucum,
            timestamp: None,
            device_id: None,
            patient_id: None,
            quality,
            absent: leading.absent(),
            components: components(vital),
            derived: derived(vital),
            intervals: intervals(vital),
            computed: Computed::of(vital),
            mdc: mdc.unwrap_or(info.mdc),
            loinc: info.loinc,
            source_id: None,
            derived_from: None,
            mode: None,
            received: None,
            ts_source: None,
            ts_uncertainty_ms: None,
            device_time,
        }
    }

    /// A whole reading.
    pub fn reading(reading: &'a Reading) -> Self {
        let taken = &reading.taken;
        Self {
            timestamp: taken.wall.map(|wall| wall.to_string()),
            device_id: Some(reading.device.as_str()),
            patient_id: reading.patient.as_ref().map(PatientId::as_str),
            source_id: Some(reading.source.as_str()),
            mode: Some(reading.mode),
            received: Some(reading.received.wall.to_string()),
            ts_source: Some(taken.source),
            ts_uncertainty_ms: taken.uncertainty_ms,
            derived_from: reading.is_derived().then(|| computed::sources(&reading.vital)),
            ..Self::decoded(&reading.vital, reading.quality, reading.mdc, taken.device_time.as_deref())
        }
    }
}

fn components(vital: &Vital) -> Option<Components> {
    match vital {
        Vital::BloodPressure(Pressure { systolic, diastolic, mean })
        | Vital::ArterialPressure(Pressure { systolic, diastolic, mean }) => {
            Some(Components { systolic: systolic.valid(), diastolic: diastolic.valid(), mean: mean.valid() })
        }
        Vital::Scalar { .. } | Vital::RrIntervals(_) | Vital::News2(_) | Vital::Variability(_) => None,
    }
}

/// `None` where nothing can be computed: nothing is computed from what is missing.
fn derived(vital: &Vital) -> Option<Derived> {
    let (Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure)) = vital else {
        return None;
    };
    let mean = pressure::mean(pressure).filter(|mean| mean.derived).map(|mean| mean.value);
    let pulse_pressure = pressure::pulse_pressure(pressure);
    (mean.is_some() || pulse_pressure.is_some()).then_some(Derived { mean, pulse_pressure })
}

fn intervals(vital: &Vital) -> Option<Vec<Decimal>> {
    match vital {
        Vital::RrIntervals(beats) => Some(beats.iter().filter_map(|raw| rr_millis(*raw)).collect()),
        _ => None,
    }
}

#[derive(Serialize, JsonSchema)]
struct Condition {
    presence: Presence,
}

#[derive(Serialize, JsonSchema)]
struct Signals {
    audio: Signal,
    visual: Signal,
}

/// The `data` of an `alert`: the whole state of the episode after the change.
#[derive(Serialize, JsonSchema)]
struct AlertData<'a> {
    #[schemars(with = "Uuid")]
    alert_id: String,
    change: AlertChange,
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    #[schemars(with = "Option<DeviceId>")]
    device_id: Option<&'a str>,
    #[schemars(with = "RuleId")]
    rule: &'a str,
    kind: AlertKind,
    priority: Priority,
    metric: Option<Metric>,
    value: Option<Decimal>,
    absent: Option<Absent>,
    limit: &'a str,
    message: &'a str,
    condition: Condition,
    signal: Signals,
    #[schemars(with = "Timestamp")]
    onset: String,
    #[schemars(with = "Timestamp")]
    announced: String,
    #[schemars(with = "Option<Timestamp>")]
    paused_until: Option<String>,
    #[schemars(with = "Option<Uuid>")]
    hidden_by: Option<String>,
    recurrence: u32,
    by: Option<&'a str>,
    end_reason: Option<EndReason>,
    /// The numbers of the escalation routes it has taken, from 1 on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    escalated: Vec<u32>,
    mode: Mode,
}

impl<'a> AlertData<'a> {
    fn new(alert: &'a AlertEvent) -> Self {
        Self {
            alert_id: alert.alert.to_string(),
            change: alert.change,
            patient_id: alert.patient.as_ref().map(PatientId::as_str),
            device_id: alert.device.as_ref().map(DeviceId::as_str),
            rule: alert.rule.as_str(),
            kind: alert.kind,
            priority: alert.priority,
            metric: alert.metric,
            value: alert.value.and_then(Value::valid),
            absent: alert.value.and_then(Value::absent),
            limit: &alert.limit,
            message: &alert.message,
            condition: Condition { presence: alert.presence },
            signal: Signals { audio: alert.audio, visual: alert.visual },
            onset: alert.onset.to_string(),
            announced: alert.announced.to_string(),
            paused_until: alert.paused_until.map(|wall| wall.to_string()),
            hidden_by: alert.hidden_by.map(|id| id.to_string()),
            recurrence: alert.recurrence,
            by: alert.by.as_deref(),
            end_reason: alert.end_reason,
            escalated: alert.routes_taken().map(|bit| bit + 1).collect(),
            mode: alert.mode,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct SourceData<'a> {
    #[schemars(with = "SourceId")]
    source_id: &'a str,
    #[schemars(with = "DeviceId")]
    device_id: &'a str,
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    link: LinkState,
    status: Vec<Status>,
    reason: Option<&'a str>,
    mode: Mode,
}

impl<'a> SourceData<'a> {
    fn new(source: &'a SourceEvent) -> Self {
        Self {
            source_id: source.source.as_str(),
            device_id: source.device.as_str(),
            patient_id: source.patient.as_ref().map(PatientId::as_str),
            link: source.link,
            status: source.status.iter().copied().collect(),
            reason: source.reason.as_deref(),
            mode: source.mode,
        }
    }
}

/// The `data` of a `record`.
#[derive(Serialize, JsonSchema)]
struct RecordData<'a> {
    #[schemars(with = "SourceId")]
    source_id: &'a str,
    #[schemars(with = "DeviceId")]
    device_id: &'a str,
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    characteristic: String,
    number: Option<u16>,
    user: Option<u8>,
    device_time: Option<&'a str>,
    raw: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
    found: &'a [String],
    first_reading: Option<Seq>,
    last_reading: Option<Seq>,
    mode: Mode,
}

impl<'a> RecordData<'a> {
    fn new(record: &'a RecordEvent) -> Self {
        Self {
            source_id: record.source.as_str(),
            device_id: record.device.as_str(),
            patient_id: record.patient.as_ref().map(PatientId::as_str),
            characteristic: format!("{:04X}", record.characteristic),
            number: record.number,
            user: record.user,
            device_time: record.device_time.as_deref(),
            raw: &record.raw,
            context: record.context.as_deref(),
            found: &record.found,
            first_reading: record.readings.map(|(first, _)| first),
            last_reading: record.readings.map(|(_, last)| last),
            mode: record.mode,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct SystemData<'a> {
    kind: SystemKind,
    message: &'a str,
    first: Option<Seq>,
    last: Option<Seq>,
}

impl<'a> SystemData<'a> {
    fn new(system: &'a SystemEvent) -> Self {
        Self { kind: system.kind, message: &system.message, first: system.first, last: system.last }
    }
}

#[derive(Serialize, JsonSchema)]
struct AuditData<'a> {
    by: &'a str,
    address: Option<&'a str>,
    action: AuditAction,
    object: &'a str,
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    #[schemars(with = "Option<DeviceId>")]
    device_id: Option<&'a str>,
    #[schemars(with = "Option<SourceId>")]
    source_id: Option<&'a str>,
    result: AuditResult,
    reason: Option<&'a str>,
    mode: Mode,
}

impl<'a> AuditData<'a> {
    fn new(audit: &'a AuditEvent) -> Self {
        Self {
            by: &audit.by,
            address: audit.address.as_deref(),
            action: audit.action,
            object: &audit.object,
            patient_id: audit.patient.as_ref().map(PatientId::as_str),
            device_id: audit.device.as_ref().map(DeviceId::as_str),
            source_id: audit.source.as_ref().map(SourceId::as_str),
            result: audit.result,
            reason: audit.reason.as_deref(),
            mode: audit.mode,
        }
    }
}

/// The `data` of a `limits_changed`: what one rule says for one patient from now on.
#[derive(Serialize, JsonSchema)]
struct LimitsData<'a> {
    #[schemars(with = "PatientId")]
    patient_id: &'a str,
    #[schemars(with = "RuleId")]
    rule: &'a str,
    action: LimitAction,
    /// The change holds from now on; false: it has come to its end.
    in_force: bool,
    /// ALARM OFF.
    alarm_off: bool,
    /// Until when, if it holds.
    #[schemars(with = "Option<Timestamp>")]
    until: Option<String>,
    before: &'a str,
    after: &'a str,
    reason: &'a str,
    by: &'a str,
    set_by: &'a str,
    #[schemars(with = "Option<Timestamp>")]
    set: Option<String>,
}

impl<'a> LimitsData<'a> {
    fn new(limits: &'a LimitsEvent) -> Self {
        let (change, in_force) = (&limits.change, limits.action.is_in_force());
        Self {
            patient_id: change.patient.as_str(),
            rule: change.rule.as_str(),
            action: limits.action,
            in_force,
            alarm_off: in_force && change.kind == LimitKind::Off,
            until: in_force.then(|| change.expires.to_string()),
            before: &limits.before,
            after: &limits.after,
            reason: &limits.reason,
            by: &limits.by,
            set_by: &change.by,
            set: change.set.map(|set| set.to_string()),
        }
    }
}

/// What a person entered, and how long it holds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Entered{T}Data")]
struct EnteredData<'a, T> {
    value: T,
    by: &'a str,
    #[schemars(with = "Timestamp")]
    at: String,
    #[schemars(with = "Timestamp")]
    until: String,
}

impl<'a, T: Copy> EnteredData<'a, T> {
    fn new(entered: &'a Entered<T>) -> Self {
        let (at, until) = (entered.at.to_string(), entered.until.to_string());
        Self { value: entered.value, by: &entered.by, at, until }
    }
}

#[derive(Serialize, JsonSchema)]
struct ObservationData<'a> {
    #[schemars(with = "PatientId")]
    patient_id: &'a str,
    oxygen: Option<EnteredData<'a, Breathing>>,
    consciousness: Option<EnteredData<'a, Consciousness>>,
    by: &'a str,
    mode: Mode,
}

impl<'a> ObservationData<'a> {
    fn new(observation: &'a ObservationEvent) -> Self {
        let consciousness = observation.consciousness.as_ref();
        Self {
            patient_id: observation.patient.as_str(),
            oxygen: observation.oxygen.as_ref().map(EnteredData::new),
            consciousness: consciousness.map(EnteredData::new),
            by: &observation.by,
            mode: observation.mode,
        }
    }
}

/// `data` of any event.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Reading(Box<ReadingData<'a>>),
    Alert(Box<AlertData<'a>>),
    Source(SourceData<'a>),
    Record(Box<RecordData<'a>>),
    Chat(ChatData<'a>),
    System(SystemData<'a>),
    Audit(AuditData<'a>),
    Limits(LimitsData<'a>),
    Inbox(&'a InboxChange),
    Observation(ObservationData<'a>),
}

/// The envelope of a push.
#[derive(Serialize, JsonSchema)]
struct Push<'a, D> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: D,
    #[schemars(with = "Timestamp")]
    timestamp: String,
    /// `{epoch}:{seq}`; of a message for people, its id.
    correlation_id: String,
    channel: &'a str,
    seq: Seq,
    epoch: &'a Epoch,
    /// Which bridge, where the receiver hears several: `bridge`, `epoch` and `seq` name the event for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<&'a BridgeId>,
    /// It waited for the connection to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    historical: Option<bool>,
    /// Where the clock was not set by which it is dated: [`dated`] says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<ClockNote>,
    /// The client may have had it before: [`redelivered`] says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    redelivered: Option<bool>,
}

/// The envelope's `type` for an event.
pub const fn kind_of(body: &EventBody) -> &'static str {
    match body {
        EventBody::Reading(_) => "health_update",
        EventBody::Alert(_) => "alert",
        EventBody::Notification(_) => "notification",
        EventBody::Chat(ChatEvent::Message(_)) => "chat_message",
        EventBody::Chat(ChatEvent::Cleared(_)) => "conversation_cleared",
        EventBody::Source(_) => "device_status",
        EventBody::Record(_) => "record",
        EventBody::System(_) => "system",
        EventBody::Audit(_) => "audit",
        EventBody::Limits(_) => "limits_changed",
        EventBody::Inbox(_) => "inbox",
        EventBody::Observation(_) => "observation",
    }
}

/// The channel of a patient's readings of one metric, or of those of a device that nobody has.
pub fn channel_of_stream(patient: Option<&PatientId>, device: &DeviceId, metric: Metric) -> String {
    match patient {
        Some(patient) => format!("patient/{patient}/{metric}"),
        None => format!("device/{device}/{metric}"),
    }
}

/// The channel an event is published on. A reading of nobody goes to its device's channel.
pub fn channel_of(body: &EventBody) -> String {
    match body {
        EventBody::Reading(reading) => {
            channel_of_stream(reading.patient.as_ref(), &reading.device, reading.vital.metric())
        }
        EventBody::Alert(alert) => {
            alert.patient.as_ref().map_or_else(|| "alerts/bridge".to_owned(), |patient| format!("alerts/{patient}"))
        }
        EventBody::Notification(_) => "notifications".to_owned(),
        EventBody::Chat(chat) => format!("chat/{}", chat.room()),
        EventBody::Source(source) => format!("device/{}/status", source.device),
        EventBody::Record(record) => format!("device/{}/record", record.device),
        EventBody::System(_) => "system".to_owned(),
        EventBody::Audit(_) => "audit".to_owned(),
        EventBody::Limits(limits) => format!("alerts/{}", limits.change.patient),
        EventBody::Inbox(_) => "inbox".to_owned(),
        EventBody::Observation(observation) => format!("patient/{}/observation", observation.patient),
    }
}

/// The text of one event as every transport sends it.
///
/// # Errors
/// None for the types above; serde's signature has one.
pub fn push(event: &Event) -> Result<String, serde_json::Error> {
    envelope(event, None, false)
}

/// The text of one event for a receiver of many bridges: that of [`push`], the bridge, and `historical` if it waited for
/// the connection.
///
/// # Errors
/// As [`push`].
pub fn upload(event: &Event, bridge: &BridgeId, is_historical: bool) -> Result<String, serde_json::Error> {
    envelope(event, Some(bridge), is_historical)
}

/// The `type` of [`bundle`].
pub const BUNDLE: &str = "batch";

/// The text of several events that waited for the connection: each in `data` as [`upload`] has it, oldest first.
///
/// `ends`: the first and the last of them.
pub fn bundle(uploads: &[String], bridge: &BridgeId, (first, last): (&Event, &Event)) -> String {
    // Ids and times have no character that JSON would have to escape.
    format!(
        r#"{{"type":"{BUNDLE}","historical":true,"bridge":"{bridge}","first_seq":{},"last_seq":{},"timestamp":"{}","data":[{}]}}"#,
        first.seq,
        last.seq,
        last.at.wall,
        uploads.join(",")
    )
}

fn envelope(event: &Event, bridge: Option<&BridgeId>, is_historical: bool) -> Result<String, serde_json::Error> {
    enveloped(event, kind_of(&event.body), bridge, is_historical)
}

fn enveloped(
    event: &Event,
    kind: &'static str,
    bridge: Option<&BridgeId>,
    is_historical: bool,
) -> Result<String, serde_json::Error> {
    let channel = channel_of(&event.body);
    let data = match &event.body {
        EventBody::Reading(reading) => Data::Reading(Box::new(ReadingData::reading(reading))),
        EventBody::Alert(alert) => Data::Alert(Box::new(AlertData::new(alert))),
        EventBody::Notification(notification) => {
            let name = (channel.as_str(), event.seq, &event.epoch);
            return notification::to_all(notification, name, (bridge, is_historical), event.at.wall);
        }
        EventBody::Chat(chat) => Data::Chat(ChatData::new(chat)),
        EventBody::Source(source) => Data::Source(SourceData::new(source)),
        EventBody::Record(record) => Data::Record(Box::new(RecordData::new(record))),
        EventBody::System(system) => Data::System(SystemData::new(system)),
        EventBody::Audit(audit) => Data::Audit(AuditData::new(audit)),
        EventBody::Limits(limits) => Data::Limits(LimitsData::new(limits)),
        EventBody::Inbox(change) => Data::Inbox(change),
        EventBody::Observation(observation) => Data::Observation(ObservationData::new(observation)),
    };
    serde_json::to_string(&Push {
        kind,
        data,
        timestamp: event.at.wall.to_string(),
        correlation_id: format!("{}:{}", event.epoch, event.seq),
        channel: &channel,
        seq: event.seq,
        epoch: &event.epoch,
        bridge,
        historical: is_historical.then_some(true),
        clock: None,
        redelivered: None,
    })
}

/// The kinds of event that clients and the broker are sent.
pub const PUSHES: &[Kind] = &[
    Kind::of::<Push<'static, ReadingData<'static>>>("health_update"),
    Kind::of::<Push<'static, AlertData<'static>>>("alert"),
    Kind::of::<UserPush<'static>>("notification"),
    Kind::of::<Push<'static, MessageData<'static>>>("chat_message"),
    Kind::of::<Push<'static, ClearedData<'static>>>("conversation_cleared"),
    Kind::of::<Push<'static, SourceData<'static>>>("device_status"),
    Kind::of::<Push<'static, RecordData<'static>>>("record"),
    Kind::of::<Push<'static, SystemData<'static>>>("system"),
    Kind::of::<Push<'static, AuditData<'static>>>("audit"),
    Kind::of::<Push<'static, LimitsData<'static>>>("limits_changed"),
    Kind::of::<Push<'static, ObservationData<'static>>>("observation"),
];

/// Those that the broker alone is sent.
pub const UPLOADS: &[Kind] = &[Kind::of::<Push<'static, InboxChange>>("inbox"), Kind::of::<Bundle>(BUNDLE)];

/// Several events that waited for the connection, as [`bundle`] writes them.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the text is joined of texts that are there already; this is its form")]
struct Bundle {
    #[schemars(rename = "type")]
    kind: &'static str,
    #[schemars(with = "Yes")]
    historical: bool,
    bridge: BridgeId,
    /// The number of the first.
    first_seq: Seq,
    /// The number of the last.
    last_seq: Seq,
    /// When the last was published.
    #[schemars(with = "Timestamp")]
    timestamp: String,
    /// Oldest first, each as it would come alone.
    #[schemars(length(min = 1))]
    data: Vec<AnyUpload>,
}

/// What the broker is told about a bridge.
pub const NEWS: &[Kind] =
    &[Kind::of::<News<'static, StatusData>>("status"), Kind::of::<News<'static, BirthData>>("birth")];

/// The `type` of the answer to a command.
pub const RESULT: &str = "result";

/// What the broker is told about commands.
pub const ANSWERS: &[Kind] = &[Kind::of::<Frame<'static, CommandResult<'static>>>(RESULT)];

/// A frame that is not an event and whose `data` is `D`.
pub const fn frame_of<D: JsonSchema + 'static>(name: &'static str) -> Kind {
    Kind::of::<Frame<'static, D>>(name)
}

/// A reading in a snapshot: its data, its number and its age by our own clock.
#[derive(Serialize, JsonSchema)]
struct SnapshotReading<'a> {
    #[serde(flatten)]
    data: ReadingData<'a>,
    channel: String,
    seq: Seq,
    epoch: &'a Epoch,
    age_ms: u64,
}

#[derive(Serialize, JsonSchema)]
struct SnapshotAlert<'a> {
    #[serde(flatten)]
    data: AlertData<'a>,
    channel: String,
    seq: Seq,
    epoch: &'a Epoch,
}

#[derive(Serialize, JsonSchema)]
struct SnapshotSource<'a> {
    #[serde(flatten)]
    data: SourceData<'a>,
    channel: String,
    seq: Seq,
    epoch: &'a Epoch,
}

#[derive(Serialize, JsonSchema)]
struct SnapshotLimits<'a> {
    #[serde(flatten)]
    data: LimitsData<'a>,
    channel: String,
    seq: Seq,
    epoch: &'a Epoch,
}

/// The `data` of a `snapshot`: the state that later pushes change.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SnapshotData")]
pub struct Snapshot<'a> {
    patients: Vec<&'a Patient>,
    readings: Vec<SnapshotReading<'a>>,
    alerts: Vec<SnapshotAlert<'a>>,
    devices: Vec<SnapshotSource<'a>>,
    /// What people changed of the limits, ALARM OFF among it.
    limits: Vec<SnapshotLimits<'a>>,
    /// From this age on a continuous number is drawn as old, if `signal_times` does not say otherwise.
    stale_after_ms: u64,
    /// From this age on it is not shown any more: the moment at which its no-signal alert starts.
    lost_after_ms: u64,
    /// The numbers that have other times, all of them longer.
    signal_times: Vec<&'a OwnTimes>,
    mode: Mode,
    mono_ms: u64,
}

impl<'a> Snapshot<'a> {
    /// A snapshot of these patients and of the latest events about them, with ages at `now`.
    ///
    /// `times`: when a continuous number turns grey, and when it is no longer shown.
    pub fn new(
        patients: impl Iterator<Item = &'a Patient>,
        latest: impl Iterator<Item = &'a Event>,
        times: &'a SignalTimes,
        now: Mono,
    ) -> Self {
        let patients: Vec<&Patient> = patients.collect();
        let mode = patients.iter().map(|patient| patient.mode).max().unwrap_or(Mode::Real);
        let (mut readings, mut alerts, mut devices, mut limits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for event in latest {
            let (channel, seq, epoch) = (channel_of(&event.body), event.seq, &event.epoch);
            match &event.body {
                EventBody::Reading(reading) => {
                    let age = now.since(reading.received.mono).as_millis();
                    let age_ms = u64::try_from(age).unwrap_or(u64::MAX);
                    let data = ReadingData::reading(reading);
                    readings.push(SnapshotReading { data, channel, seq, epoch, age_ms });
                }
                EventBody::Alert(alert) => {
                    alerts.push(SnapshotAlert { data: AlertData::new(alert), channel, seq, epoch });
                }
                EventBody::Source(source) => {
                    devices.push(SnapshotSource { data: SourceData::new(source), channel, seq, epoch });
                }
                EventBody::Limits(change) => {
                    limits.push(SnapshotLimits { data: LimitsData::new(change), channel, seq, epoch });
                }
                EventBody::Record(_)
                | EventBody::Notification(_)
                | EventBody::Chat(_)
                | EventBody::System(_)
                | EventBody::Audit(_)
                | EventBody::Inbox(_)
                | EventBody::Observation(_) => {}
            }
        }
        let mono_ms = now.as_millis();
        let SignalTimes { stale_after_ms, lost_after_ms, others } = times;
        let (stale_after_ms, lost_after_ms) = (*stale_after_ms, *lost_after_ms);
        let is_shown = |own: &&OwnTimes| patients.iter().any(|patient| patient.id == own.patient_id);
        let signal_times = others.iter().filter(is_shown).collect();
        Self { patients, readings, alerts, devices, limits, stale_after_ms, lost_after_ms, signal_times, mode, mono_ms }
    }
}

/// The envelope of what a receiver of many bridges is told about one of them.
#[derive(Serialize, JsonSchema)]
struct News<'a, D> {
    #[serde(rename = "type")]
    kind: &'static str,
    data: D,
    #[schemars(with = "Timestamp")]
    timestamp: String,
    site: &'a SiteId,
    bridge: &'a BridgeId,
    epoch: &'a Epoch,
}

/// The name of the form of these messages; it changes when a reader of the old form could misread the new one.
pub const SCHEMA: &str = "vitals/v1";

/// The text of a message of this `type` about the bridge itself.
///
/// # Errors
/// As [`push`].
pub fn bridge_message(
    kind: &'static str,
    data: &impl Serialize,
    (site, bridge, epoch): (&SiteId, &BridgeId, &Epoch),
    at: Wall,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&News { kind, data, timestamp: at.to_string(), site, bridge, epoch })
}

/// The text of [`push`] with the word that the receiver may have had it before.
pub fn redelivered(push: &str) -> String {
    // Every message is an object with members.
    push.replacen('{', "{\"redelivered\":true,", 1)
}

/// The envelope of a frame that is not an event.
#[derive(Serialize, JsonSchema)]
struct Frame<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a T,
    #[schemars(with = "Timestamp")]
    timestamp: String,
    /// That of the request, if it had one.
    correlation_id: &'a str,
}

/// A frame that is not an event: `type`, `data`, `timestamp`, `correlation_id`.
///
/// # Errors
/// Those of serialising `data`.
pub fn frame(kind: &str, data: &impl Serialize, correlation_id: &str, at: Wall) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Frame { kind, data, timestamp: at.to_string(), correlation_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::vitals::Taken;

    fn event(vital: Vital) -> Event {
        let at = Stamp { mono: Mono(1), wall: Wall::parse("2026-11-20T22:00:00.123Z").unwrap() };
        let body = EventBody::Reading(Reading {
            patient: Some("P-0001".parse().unwrap()),
            device: "polar-h10-1".parse().unwrap(),
            source: "strap".parse().unwrap(),
            vital,
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Real,
            taken: Taken::on_arrival(at),
            received: at,
        });
        Event { epoch: "k3f9".parse().unwrap(), seq: Seq(1042), at, body }
    }

    #[test]
    fn a_heart_rate_has_the_envelope_of_the_protocol() {
        let vital = Vital::scalar(Metric::HeartRate, Value::Valid(Decimal::integer(72)));
        assert_eq!(
            push(&event(vital)).unwrap(),
            concat!(
                r#"{"type":"health_update","data":{"metric":"heart_rate","value":72,"unit":"bpm","ucum":"/min","#,
                r#""timestamp":"2026-11-20T22:00:00.123Z","device_id":"polar-h10-1","patient_id":"P-0001","#,
                r#""quality":"valid","mdc":147842,"loinc":"8867-4","source_id":"strap","mode":"real","#,
                r#""received":"2026-11-20T22:00:00.123Z","ts_source":"received"},"#,
                r#""timestamp":"2026-11-20T22:00:00.123Z","correlation_id":"k3f9:1042","#,
                r#""channel":"patient/P-0001/heart_rate","seq":1042,"epoch":"k3f9"}"#
            )
        );
    }

    #[test]
    fn a_pressure_keeps_the_simple_form_and_adds_its_parts() {
        let number = |n| Value::Valid(Decimal::integer(n));
        let mean = Value::Absent(Absent::NotANumber);
        let vital = Vital::BloodPressure(Pressure { systolic: number(120), diastolic: number(80), mean });
        let text = push(&event(vital)).unwrap();
        assert!(text.contains(r#""metric":"blood_pressure","value":120,"unit":"mmHg""#), "{text}");
        assert!(text.contains(r#""components":{"systolic":120,"diastolic":80,"mean":null}"#), "{text}");
    }

    #[test]
    fn what_is_computed_from_a_pressure_stands_apart_from_what_the_device_said() {
        let value = |number: Option<i32>| {
            number.map_or(Value::Absent(Absent::ZeroReported), |number| Value::Valid(Decimal::integer(number)))
        };
        for (systolic, diastolic, mean, expected) in [
            (Some(120), Some(80), None, Some(r#"{"mean":93.3,"pulse_pressure":40}"#)),
            (Some(120), Some(80), Some(95), Some(r#"{"pulse_pressure":40}"#)),
            (Some(120), None, Some(95), None),
            (None, Some(80), None, None),
        ] {
            let pressure = Pressure { systolic: value(systolic), diastolic: value(diastolic), mean: value(mean) };
            for vital in [Vital::BloodPressure(pressure), Vital::ArterialPressure(pressure)] {
                let text = push(&event(vital)).unwrap();
                let found = text.split(r#""derived":"#).nth(1).map(|rest| rest.split_inclusive('}').next().unwrap());
                assert_eq!(found, expected, "{text}");
                let own = mean.map_or("null".to_owned(), |mean| mean.to_string());
                assert!(text.contains(&format!(r#""mean":{own}}}"#)), "{text}");
            }
        }
        let text = push(&event(Vital::scalar(Metric::HeartRate, value(Some(72))))).unwrap();
        assert!(!text.contains("derived"), "{text}");
    }

    #[test]
    fn an_absent_value_is_null_with_its_reason() {
        let text = push(&event(Vital::scalar(Metric::Spo2, Value::Absent(Absent::SensorOff)))).unwrap();
        assert!(text.contains(r#""value":null"#) && text.contains(r#""absent":"sensor_off""#), "{text}");
    }

    #[test]
    fn an_upload_is_the_push_and_the_bridge() {
        let event = event(Vital::scalar(Metric::HeartRate, Value::Valid(Decimal::integer(72))));
        let push = push(&event).unwrap();
        let expected = push.replace(r#""epoch":"k3f9"}"#, r#""epoch":"k3f9","bridge":"b1"}"#);
        assert_ne!(expected, push);
        let bridge = "b1".parse().unwrap();
        assert_eq!(upload(&event, &bridge, false).unwrap(), expected);
        let historical = upload(&event, &bridge, true).unwrap();
        assert_eq!(historical, expected.replace(r#""bridge":"b1"}"#, r#""bridge":"b1","historical":true}"#));
        let both: serde_json::Value =
            serde_json::from_str(&bundle(&[historical.clone(), historical], &bridge, (&event, &event))).unwrap();
        assert_eq!((both["type"].as_str(), both["data"][1]["historical"].as_bool()), (Some("batch"), Some(true)));
        assert_eq!((both["first_seq"].as_u64(), both["timestamp"].is_string()), (Some(event.seq.0), true));
    }

    #[test]
    fn a_decimal_reaches_the_wire_with_its_own_digits() {
        let text = push(&event(Vital::scalar(Metric::Temperature, Value::Valid(Decimal::tenths(370))))).unwrap();
        assert!(text.contains(r#""value":37.0,"#), "{text}");
    }
}
