//! What happened: the one type that is stored, sent to dashboards, forwarded and replayed.

mod chat;
mod inbox;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::chat::{ChatCleared, ChatEvent, ChatMessage};
pub use self::inbox::{Dropped, InboxChange, Listens, Notification, NotificationKind, Preferences, Reminder};
use crate::clock::{Mono, Stamp, Wall};
use crate::ids::{AlertId, DeviceId, Epoch, PatientId, RuleId, Seq, SourceId};
use crate::named::named_enum;
use crate::record::RecordEvent;
use crate::vitals::{Breathing, Consciousness, Metric, Mode, Reading, Status, Value};

/// One thing that happened. `(epoch, seq)` names it for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The run of the daemon that numbered it.
    pub epoch: Epoch,
    /// Its number: rises by one, without gaps inside an epoch.
    pub seq: Seq,
    /// When the pipeline took it.
    pub at: Stamp,
    /// What happened.
    pub body: EventBody,
}

/// The kinds of event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// A measurement.
    Reading(Reading),
    /// A change of one alert.
    Alert(AlertEvent),
    /// A message for people.
    Notification(Notification),
    /// Something in a room of the care team.
    Chat(ChatEvent),
    /// A source or its device changed its state.
    Source(SourceEvent),
    /// A single measurement as its sensor sent it, after its readings.
    Record(RecordEvent),
    /// The bridge says something about itself.
    System(SystemEvent),
    /// Somebody did something, or was not allowed to.
    Audit(AuditEvent),
    /// The limits of a patient changed.
    Limits(LimitsEvent),
    /// What became of messages for people.
    Inbox(InboxChange),
    /// What a person sees of a patient, and no sensor does.
    Observation(ObservationEvent),
}

impl EventBody {
    /// What the backend has to learn before everything else: alerts, what decides when they come, and what the bridge says
    /// of itself, such as that events were lost.
    pub const fn is_urgent(&self) -> bool {
        matches!(self, Self::Alert(_) | Self::Limits(_) | Self::System(_))
    }
}

named_enum! {
    /// Alert priority (IEC 60601-1-8, table 1), and `info`, which signals nothing.
    Priority {
        /// Shown on request only.
        Info = "info",
        /// Awareness is required.
        Low = "low",
        /// Prompt response is required.
        Medium = "medium",
        /// Immediate response is required.
        High = "high",
    }
}

named_enum! {
    /// What an alert is about.
    AlertKind {
        /// The patient.
        Physiological = "physiological",
        /// The equipment, or the bridge itself.
        Technical = "technical",
    }
}

named_enum! {
    /// Whether the alert's condition exists. Unknown is not normal.
    #[schemars(rename = "ConditionPresence")]
    Presence {
        /// It does.
        True = "true",
        /// It does not.
        False = "false",
        /// The data that would tell is missing.
        Unknown = "unknown",
    }
}

named_enum! {
    /// Whether a signal is switched on (IEEE 11073-10207, `AlertActivation`).
    Activation {
        /// It may sound or show.
        On = "on",
        /// Silenced for a limited time.
        Paused = "paused",
        /// Silenced without an end.
        Off = "off",
    }
}

named_enum! {
    /// What a signal is doing (IEEE 11073-10207, `AlertSignalPresence`).
    SignalPresence {
        /// Sounding or showing.
        On = "on",
        /// Not sounding or showing.
        Off = "off",
        /// Still shown, although the condition has gone.
        Latched = "latched",
        /// Acknowledged by a person.
        Ack = "ack",
    }
}

/// One signal of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    /// Whether it is switched on.
    pub activation: Activation,
    /// What it is doing.
    pub presence: SignalPresence,
}

named_enum! {
    /// What changed in an alert's life.
    AlertChange {
        /// It began to alarm.
        Start = "start",
        /// Something about it changed (presence, a reminder).
        Update = "update",
        /// It got worse since a person acknowledged or paused it.
        Escalate = "escalate",
        /// The condition has gone, the alert stays until a person has seen it.
        Latch = "latch",
        /// The condition came back while latched.
        Recur = "recur",
        /// The audio pause is over.
        Resume = "resume",
        /// A person acknowledged it.
        Acknowledge = "acknowledge",
        /// A person paused its sound.
        Pause = "pause",
        /// It is over; see `end_reason`.
        End = "end",
    }
}

named_enum! {
    /// Why an alert ended.
    EndReason {
        /// The condition has gone.
        ConditionCleared = "condition_cleared",
        /// A person reset a latched alert.
        Reset = "reset",
        /// The rule was switched off by a person, or removed from the rule file.
        Disabled = "disabled",
        /// The patient no longer has the device.
        Unassigned = "unassigned",
    }
}

/// The state of one alert after a change. It is complete: the latest one of each alert restores the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// The episode.
    pub alert: AlertId,
    /// What changed.
    pub change: AlertChange,
    /// Whose alert. `None`: the bridge's own.
    pub patient: Option<PatientId>,
    /// The device whose reading or silence caused it, if one did.
    pub device: Option<DeviceId>,
    /// The rule that made it.
    pub rule: RuleId,
    /// Patient or equipment.
    pub kind: AlertKind,
    /// How urgent it is now.
    pub priority: Priority,
    /// The metric it is about, if it is about one.
    pub metric: Option<Metric>,
    /// The value that made this change.
    pub value: Option<Value>,
    /// The limit in words, for example `below 90 %`.
    pub limit: String,
    /// What a person should read.
    pub message: String,
    /// Whether the condition exists.
    pub presence: Presence,
    /// Sound.
    pub audio: Signal,
    /// Light and text.
    pub visual: Signal,
    /// When the condition first became true (before any delay).
    pub onset: Wall,
    /// When it was announced.
    pub announced: Wall,
    /// Until when the sound is paused.
    pub paused_until: Option<Wall>,
    /// The alert that hides this one's signals.
    pub hidden_by: Option<AlertId>,
    /// How often it came back while latched.
    pub recurrence: u32,
    /// Who acknowledged, paused or reset it.
    pub by: Option<String>,
    /// Why it ended, if it did.
    pub end_reason: Option<EndReason>,
    /// Which routes of escalation it has taken since somebody last acknowledged it: bit 0 is the first one. With
    /// [`AlertEvent::NOBODY_REACHED`].
    #[serde(default)]
    pub escalated: u32,
    /// Real, demo or test.
    pub mode: Mode,
}

impl AlertEvent {
    /// The bit of `escalated` that says that no route reached anybody: the local fallback stands for it. No route has it.
    pub const NOBODY_REACHED: u32 = 1 << 31;

    /// The routes of escalation that it has taken, from 0.
    pub fn routes_taken(&self) -> impl Iterator<Item = u32> {
        let taken = self.escalated & !Self::NOBODY_REACHED;
        (0..u32::BITS).filter(move |bit| taken & (1 << bit) != 0)
    }

    /// True while the alert must be shown.
    pub fn is_present(&self) -> bool {
        self.change != AlertChange::End
    }
}

named_enum! {
    /// What a change of one rule of one patient is about.
    LimitKind {
        /// Other limits or delays.
        Limits = "limits",
        /// ALARM OFF.
        Off = "off",
    }
}

named_enum! {
    /// What became of a change of limits.
    LimitAction {
        /// A person set other limits.
        Set = "set",
        /// A person took them back.
        Cleared = "cleared",
        /// A person switched the rule off.
        Disabled = "disabled",
        /// A person switched it on again.
        Enabled = "enabled",
        /// It was set before the bridge started, and still holds.
        Stands = "stands",
        /// Its time is over.
        Expired = "expired",
        /// The rule file has a later override of the same rule.
        Replaced = "replaced",
        /// The rules were changed, and it no longer fits them.
        Unfit = "unfit",
    }
}

impl LimitAction {
    /// True while the change holds after this.
    pub const fn is_in_force(self) -> bool {
        matches!(self, Self::Set | Self::Disabled | Self::Stands)
    }
}

/// A change of one rule of one patient: an override that a person made while the bridge runs, or one of the rule file
/// whose time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitChange {
    /// Whose.
    pub patient: PatientId,
    /// Which rule.
    pub rule: RuleId,
    /// Limits, or ALARM OFF.
    pub kind: LimitKind,
    /// The keys of an override in a rule file, one in a line.
    pub lines: String,
    /// Why, in the person's words.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Until when.
    pub expires: Wall,
    /// When it was set. `None`: it stands in the rule file.
    pub set: Option<Wall>,
    /// What the rule file's own override of the same rule said then: a later one there takes its place.
    pub beside: Option<String>,
}

/// The limits of a patient changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsEvent {
    /// The change.
    pub change: LimitChange,
    /// What became of it.
    pub action: LimitAction,
    /// Who did this; [`AuditEvent::BRIDGE`] where nobody did.
    pub by: String,
    /// Why, in words.
    pub reason: String,
    /// What the rule said before, in words.
    pub before: String,
    /// What it says now, in words.
    pub after: String,
}

named_enum! {
    /// The state of a link to a sensor or monitor.
    LinkState {
        /// Not tried yet, or given up on purpose.
        Closed = "closed",
        /// The port or the connection is being opened.
        Opening = "opening",
        /// Open, and nothing valid has arrived yet.
        Waiting = "waiting",
        /// Data arrives.
        Live = "live",
        /// Open, but no data for longer than the profile allows.
        Silent = "silent",
        /// Data arrives and says that no sensor is on the patient.
        SensorOff = "sensor_off",
        /// The port or the connection has gone.
        Lost = "lost",
    }
}

/// A source or its device changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEvent {
    /// Which source.
    pub source: SourceId,
    /// Which device.
    pub device: DeviceId,
    /// Whose device. `None`: not assigned.
    pub patient: Option<PatientId>,
    /// The state of the link.
    pub link: LinkState,
    /// What the sensor says about itself.
    pub status: BTreeSet<Status>,
    /// The reason in words, for people: an I/O error, a serial number that changed.
    pub reason: Option<String>,
    /// Real, demo or test.
    pub mode: Mode,
}

named_enum! {
    /// What the bridge says about itself.
    SystemKind {
        /// A run of the daemon began.
        Started = "started",
        /// A run of the daemon ends on purpose.
        Stopping = "stopping",
        /// Thresholds or tokens were read again.
        ConfigReloaded = "config_reloaded",
        /// A configuration was refused on reload; the old one goes on.
        ConfigRefused = "config_refused",
        /// Limits that a person set in an earlier run cannot be read; those of the rule file hold.
        LimitsUnreadable = "limits_unreadable",
        /// Events were dropped; `first`..=`last` says which.
        EventsLost = "events_lost",
        /// An alert of the last run is over because its patient or device is not configured any more.
        AlertEnded = "alert_ended",
        /// The clock was set forward or back; no timer notices.
        ClockStepped = "clock_stepped",
        /// Another thing is known of the clock, such as that a time server has set it.
        ClockEpoch = "clock_epoch",
    }
}

/// The bridge says something about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemEvent {
    /// What.
    pub kind: SystemKind,
    /// In words.
    pub message: String,
    /// The first dropped number, for [`SystemKind::EventsLost`].
    pub first: Option<Seq>,
    /// The last dropped number.
    pub last: Option<Seq>,
}

/// Something that a person entered, and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered<T> {
    /// What.
    pub value: T,
    /// Who.
    pub by: String,
    /// When.
    pub at: Wall,
    /// From then on it is unknown again.
    pub until: Wall,
    /// From then on too, since boot, in the boot in which it was entered or taken back: a wall clock that was set back
    /// prolongs nothing.
    #[serde(default)]
    pub until_mono: Mono,
}

impl<T> Entered<T> {
    /// True until its time is over by either clock.
    pub fn holds(&self, now: Stamp) -> bool {
        now.wall < self.until && now.mono < self.until_mono
    }

    /// The same after another boot: the wall clock says how much of its time is left. `None`: nothing, or it was entered
    /// in what this clock takes for the future.
    #[must_use]
    pub fn after_boot(self, longest: Duration, now: Stamp) -> Option<Self> {
        let left = u64::try_from(self.until.0.saturating_sub(now.wall.0)).ok().filter(|left| *left > 0)?;
        let until_mono = now.mono + Duration::from_millis(left).min(longest);
        (self.at <= now.wall).then_some(Self { until_mono, ..self })
    }
}

/// What a person sees of a patient, and no sensor does. It is complete: the latest one of each patient holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationEvent {
    /// Whose.
    pub patient: PatientId,
    /// What is breathed. `None`: unknown.
    pub oxygen: Option<Entered<Breathing>>,
    /// The level of consciousness. `None`: unknown.
    pub consciousness: Option<Entered<Consciousness>>,
    /// Who changed it last.
    pub by: String,
    /// Real, demo or test.
    pub mode: Mode,
}

/// Consecutive samples of one wave: shown while they happen, never numbered and never stored.
#[derive(Debug, Clone, PartialEq)]
pub struct WaveBlock {
    /// Whose. `None`: the device is not assigned.
    pub patient: Option<PatientId>,
    /// The device.
    pub device: DeviceId,
    /// The source that read it.
    pub source: SourceId,
    /// Real, demo or test.
    pub mode: Mode,
    /// The wave's name in the profile.
    pub name: Arc<str>,
    /// Samples a second, nominally.
    pub hz: f64,
    /// The sample that is zero signal.
    pub baseline: i32,
    /// How many samples are at an end of the converter's range.
    pub saturated: usize,
    /// The device's bytes were lost before the first sample.
    pub after_gap: bool,
    /// The number of the first sample since the source started: it rises by one a sample, blocks that were dropped
    /// included, so that a display places samples by it and sees what is missing.
    pub first: u64,
    /// The samples, oldest first, as the device's converter gives them.
    pub samples: Vec<i32>,
    /// When the last of them arrived.
    pub received: Stamp,
}

named_enum! {
    /// What was done, for the audit trail.
    AuditAction {
        /// The first serial number that a device told was taken for its own.
        DeviceBound = "device_bound",
        /// A device told another serial number than the one it is bound to; nothing of it is published any more.
        DeviceChanged = "device_changed",
        /// A person said that the device with this serial number is the right one.
        DeviceConfirmed = "device_confirmed",
        /// A command was sent to a device.
        DeviceCommand = "device_command",
        /// All records of a device up to a number have been taken; the object is that number.
        RecordsTaken = "records_taken",
        /// The records of a device up to a number were deleted from it; the object is that number.
        RecordsDeleted = "records_deleted",
        /// A person has seen an alert; the object is the alert.
        AlertAcknowledge = "alert_acknowledge",
        /// A person silenced an alert for a while.
        AlertPauseAudio = "alert_pause_audio",
        /// A person put a latched alert away.
        AlertReset = "alert_reset",
        /// A person set other limits for a patient; the object is the rule.
        LimitsSet = "limits_set",
        /// A person took limits back.
        LimitsClear = "limits_clear",
        /// A person switched a rule off for a patient.
        RuleDisable = "rule_disable",
        /// A person switched it on again.
        RuleEnable = "rule_enable",
        /// A change of limits came to its end without a person.
        LimitsEnd = "limits_end",
        /// A command came by the broker that is not on the list; the object is its name.
        RemoteCommand = "remote_command",
        /// A Bluetooth device was paired with; the object is its address.
        BluetoothPair = "bluetooth_pair",
        /// A Bluetooth device and its bond were forgotten; the object is its address.
        BluetoothRemove = "bluetooth_remove",
        /// An alert that nobody acknowledged went further; the object is its id, the reason says how old it was and where
        /// it went.
        AlertEscalated = "alert_escalated",
        /// A message for people was sent, or scheduled; the object is its id.
        NotificationSend = "notification_send",
        /// A scheduled message was taken back; the object is its id.
        NotificationWithdraw = "notification_withdraw",
        /// A user chose what to be told of; the object is what is muted.
        PreferencesSet = "preferences_set",
        /// A person entered what is breathed or the level of consciousness; the object says what.
        ObservationSet = "observation_set",
        /// Tokens were revoked; the object is `jti` or `user` with its name.
        TokenRevoke = "token_revoke",
        /// A range of the log was asked for again; the object is `epoch:first-last`.
        UplinkResend = "uplink_resend",
        /// Somebody signed in over the WebSocket; the object is the connection.
        Connect = "connect",
        /// A sign-in code was exchanged for a token, or a token or code was refused; the object of a refused one is the
        /// user whom the token names, which proves nothing.
        SignIn = "sign_in",
        /// A connection asked for channels; the object is a list of them.
        Subscribe = "subscribe",
        /// A connection of somebody who had signed in ended; the object is the connection.
        Close = "close",
        /// An administrator closed a connection; the object is the connection.
        ConnectionClose = "connection_close",
        /// An administrator has a user's clients connect anew; the object is the user.
        UserReconnect = "user_reconnect",
        /// An administrator closed a user's connections; the object is the user.
        UserDisconnect = "user_disconnect",
        /// An administrator sent all connections away or let them in again; the object is `on` or `off`.
        Drain = "drain",
        /// A person cleared a conversation; the object is the room, the reason says for whom.
        ConversationClear = "conversation_clear",
    }
}

named_enum! {
    /// How it ended, for the audit trail.
    AuditResult {
        /// It was done.
        Done = "done",
        /// It was not tried: not allowed, not known, or not possible at that moment.
        Refused = "refused",
        /// It was tried and did not work.
        Failed = "failed",
    }
}

impl AuditAction {
    /// True of what the server says about its connections. It comes in bounded numbers already.
    pub const fn is_about_connections(self) -> bool {
        use AuditAction::{Close, Connect, ConnectionClose, Drain, SignIn, Subscribe, UserDisconnect, UserReconnect};
        matches!(self, Connect | SignIn | Subscribe | Close | ConnectionClose | UserReconnect | UserDisconnect | Drain)
    }
}

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: String,
    /// The IP address from which it was asked for; `None` where there is none, such as by the broker.
    pub address: Option<String>,
}

impl From<&str> for Actor {
    fn from(user: &str) -> Self {
        user.to_owned().into()
    }
}

impl From<String> for Actor {
    fn from(user: String) -> Self {
        Self { user, address: None }
    }
}

/// A row of the audit trail: who did what to what, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// The user; [`AuditEvent::BRIDGE`] where nobody asked, [`AuditEvent::UNKNOWN`] where nobody has proven who it was.
    pub by: String,
    /// The IP address from which it was asked for, of the peer itself; `None` where nobody asked over HTTP or WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What.
    pub action: AuditAction,
    /// What it was about, in the action's own terms: a serial number, the name of a command.
    pub object: String,
    /// Whose bed it concerns.
    pub patient: Option<PatientId>,
    /// Which device it concerns.
    pub device: Option<DeviceId>,
    /// Which source it concerns.
    pub source: Option<SourceId>,
    /// How it ended.
    pub result: AuditResult,
    /// Why it was refused or failed, or why the bridge did it by itself; of a change of limits what it was, what it is now
    /// and the person's reason.
    pub reason: Option<String>,
    /// Real, demo or test.
    pub mode: Mode,
}

impl AuditEvent {
    /// Who did what the bridge does by itself.
    pub const BRIDGE: &str = "bridge";

    /// Who was refused before he had signed in.
    pub const UNKNOWN: &str = "unknown";
}

/// What a person wants of a device behind a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderKind {
    /// The device with this serial number is the right one for this bed.
    Confirm {
        /// As the device tells it.
        serial_number: String,
    },
    /// Send one of the commands of its profile.
    Command {
        /// The command's id.
        command: String,
    },
}

/// An order for a source. It is answered with [`SourceMessage::Answer`], whatever becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number, by which it is answered.
    pub number: u64,
    /// What is wanted.
    pub kind: OrderKind,
    /// After this nothing is sent any more: whoever asked may have turned away.
    pub until: Mono,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotDone {
    /// A word for programs.
    pub code: &'static str,
    /// In words.
    pub reason: String,
    /// True if it was tried.
    pub was_tried: bool,
}

/// What a source sends into the pipeline, which numbers it.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceMessage {
    /// A measurement.
    Reading(Reading),
    /// A single measurement as its sensor sent it, with what was read of it.
    Record {
        /// The bytes; its `readings` are numbered by the pipeline.
        record: RecordEvent,
        /// The readings, in order.
        readings: Vec<Reading>,
    },
    /// The link to the device changed its state.
    Link(SourceEvent),
    /// Samples of a wave.
    Wave(WaveBlock),
    /// Something for the audit trail that nobody had asked for.
    Audit(AuditEvent),
    /// What became of an order.
    Answer {
        /// Its number.
        order: u64,
        /// The end of it.
        result: Result<(), NotDone>,
    },
}

impl Event {
    /// A reading without its number, for a listener that wants none of its quality; `None` of everything else.
    pub fn withheld(&self) -> Option<Self> {
        let EventBody::Reading(reading) = &self.body else { return None };
        let reading = Reading { vital: reading.vital.withheld(), ..reading.clone() };
        Some(Self { epoch: self.epoch.clone(), seq: self.seq, at: self.at, body: EventBody::Reading(reading) })
    }

    /// Whose event this is, if it is about one patient.
    pub const fn patient(&self) -> Option<&PatientId> {
        match &self.body {
            EventBody::Reading(reading) => reading.patient.as_ref(),
            EventBody::Alert(alert) => alert.patient.as_ref(),
            EventBody::Notification(notification) => notification.patient.as_ref(),
            EventBody::Source(source) => source.patient.as_ref(),
            EventBody::Record(record) => record.patient.as_ref(),
            EventBody::Audit(audit) => audit.patient.as_ref(),
            EventBody::Limits(limits) => Some(&limits.change.patient),
            EventBody::Observation(observation) => Some(&observation.patient),
            EventBody::Chat(_) | EventBody::System(_) | EventBody::Inbox(_) => None,
        }
    }

    /// The device this is about, if it is about one.
    pub const fn device(&self) -> Option<&DeviceId> {
        match &self.body {
            EventBody::Reading(reading) => Some(&reading.device),
            EventBody::Alert(alert) => alert.device.as_ref(),
            EventBody::Source(source) => Some(&source.device),
            EventBody::Record(record) => Some(&record.device),
            EventBody::Audit(audit) => audit.device.as_ref(),
            EventBody::Notification(_)
            | EventBody::Chat(_)
            | EventBody::System(_)
            | EventBody::Limits(_)
            | EventBody::Inbox(_)
            | EventBody::Observation(_) => None,
        }
    }
}
