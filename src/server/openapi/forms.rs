//! The forms of what `wire` writes, for the document: the members on which a client can rely.
//!
//! These types are never made: they describe. A test compares them with what the server really sends.

use schemars::JsonSchema;
use serde::Deserialize;

/// A moment in UTC.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(transparent, extend("format" = "date-time"))]
pub(in crate::server) struct Time(#[expect(dead_code, reason = "it describes")] String);

/// A user: text, or a number where the token's subject is all digits.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(transparent, extend("type" = ["string", "integer"]))]
pub(in crate::server) struct User(#[expect(dead_code, reason = "it describes")] serde_json::Value);

/// A refusal. `code` is for programs, `message` for people; what was sent is not repeated.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Failure {
    code: String,
    message: String,
}

/// What was measured: a number or the reason why there is none.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct ReadingData {
    metric: String,
    /// `null` if it is absent.
    value: Option<f64>,
    /// Why there is no value.
    absent: Option<String>,
    unit: String,
    ucum: String,
    /// When it was measured; missing if nobody knows.
    timestamp: Option<Time>,
    device_id: String,
    patient_id: Option<String>,
    source_id: String,
    quality: String,
    mdc: u32,
    mode: String,
    received: Time,
}

/// A reading as it is pushed.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct HealthUpdate {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "health_update"))]
    kind: String,
    data: ReadingData,
    timestamp: Time,
    correlation_id: String,
    channel: String,
    seq: u64,
    epoch: String,
}

/// The latest reading of a stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct LatestReading {
    #[serde(flatten)]
    data: ReadingData,
    channel: String,
    seq: u64,
    epoch: String,
    /// By the bridge's own clock.
    age_ms: u64,
}

/// The whole state of an alert.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct AlertData {
    alert_id: String,
    change: String,
    patient_id: Option<String>,
    device_id: Option<String>,
    rule: String,
    kind: String,
    priority: String,
    metric: Option<String>,
    value: Option<f64>,
    absent: Option<String>,
    limit: String,
    message: String,
    onset: Time,
    announced: Time,
    mode: String,
}

/// A change of an alert as it is pushed.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Alert {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "alert"))]
    kind: String,
    data: AlertData,
    timestamp: Time,
    correlation_id: String,
    channel: String,
    seq: u64,
    epoch: String,
}

/// An alert as its latest change left it.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct AlertState {
    #[serde(flatten)]
    data: AlertData,
    channel: String,
    seq: u64,
    epoch: String,
}

/// A source and its device, with the state they are in.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct StateOfDevice {
    source_id: String,
    device_id: String,
    patient_id: Option<String>,
    /// The state of the link.
    link: String,
    /// What the sensor says about itself.
    status: Vec<String>,
    reason: Option<String>,
    mode: String,
    channel: String,
    seq: u64,
    epoch: String,
}

/// A row of the audit trail as it is pushed.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct AuditRow {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "audit"))]
    kind: String,
    data: AuditData,
    timestamp: Time,
    channel: String,
    seq: u64,
    epoch: String,
}

/// Who did what to what, and how it ended.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct AuditData {
    by: String,
    /// The IP address from which it was asked for.
    address: Option<String>,
    action: String,
    object: String,
    patient_id: Option<String>,
    device_id: Option<String>,
    source_id: Option<String>,
    result: String,
    reason: Option<String>,
    mode: String,
}

/// A page of the audit trail, the newest first.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct AuditPage {
    rows: Vec<AuditRow>,
    /// The `before` of the page after, which is older; `null` at the end.
    next: Option<u64>,
}

/// What was done. `durable` is false if it holds and is not known to be on disk.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Done {
    ok: bool,
    /// The number of its last event.
    seq: u64,
    durable: bool,
}

/// A message that was sent or taken back.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct SentMessage {
    ok: bool,
    seq: u64,
    durable: bool,
    /// Of the message.
    id: String,
}

/// What a user is told of.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct UserPreferences {
    ok: bool,
    preferences: Preferences,
    /// The priorities of alerts that come whatever is muted.
    never_muted: Vec<String>,
}

/// What a user chose.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Preferences {
    /// The kinds of message that do not come; `[]` mutes nothing.
    #[schemars(inner(regex(pattern = "^(health_alert|medication_reminder|appointment_reminder|system)$")))]
    mute: Vec<String>,
}

/// A limit in force.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Limit {
    rule: String,
    kind: String,
    priority: String,
    metrics: Vec<String>,
    unit: String,
    text: String,
    low: Option<f64>,
    high: Option<f64>,
    delay_ms: u64,
    /// Where it comes from.
    source: serde_json::Value,
    /// In words.
    summary: String,
}

/// The limits in force for a patient.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Limits {
    patient_id: String,
    limits: Vec<Limit>,
}

/// A token.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct IssuedToken {
    token: String,
    expires_at: Time,
    user_id: User,
    role: String,
}

/// A one-use code.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct SignIn {
    code: String,
}

/// What a person wants done; docs/protocol.md lists the commands and their members.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Command {
    /// Which.
    #[schemars(extend("enum" = [
        "alert.acknowledge", "alert.pause_audio", "alert.reset", "limits.set", "limits.clear", "rule.disable",
        "rule.enable", "observation.set", "device.confirm", "device.command", "notification.send",
        "notification.withdraw", "preferences.set", "uplink.resend",
    ]))]
    name: String,
    #[schemars(extend("format" = "uuid"))]
    alert_id: Option<String>,
    expected_seq: Option<u64>,
}

/// What a person sees of a patient; what is left out stays as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct Observation {
    /// What is breathed.
    #[schemars(extend("enum" = ["air", "oxygen", "unknown", null]))]
    oxygen: Option<String>,
    /// By ACVPU.
    #[schemars(extend("enum" = ["A", "C", "V", "P", "U", "unknown", null]))]
    consciousness: Option<String>,
}

/// Other limits for a patient, or `"enabled": false` for ALARM OFF.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct LimitChange {
    below: Option<f64>,
    above: Option<f64>,
    reason: Option<String>,
    expires: Option<String>,
    enabled: Option<bool>,
}

/// A message for people.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct NewMessage {
    #[schemars(extend("enum" = ["medication_reminder", "appointment_reminder", "system"]))]
    kind: String,
    /// These users; without `users` and `roles`, everybody who may see the alerts of `patient`.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 128)))]
    users: Option<Vec<String>>,
    /// Everybody with one of these roles.
    #[schemars(length(min = 1, max = 5), inner(regex(pattern = "^(viewer|nurse|clinician|admin|service)$")))]
    roles: Option<Vec<String>>,
    /// The patient it is about.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    patient: Option<String>,
    #[schemars(length(min = 1, max = 200))]
    title: String,
    #[schemars(length(min = 1, max = 2000))]
    message: String,
    /// `medium` if left out.
    #[schemars(extend("enum" = ["info", "low", "medium", "high", null]))]
    priority: Option<String>,
    /// When; now if left out.
    at: Option<Time>,
    /// It is of no use any more after this.
    expires: Option<Time>,
}

/// How long to listen.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct BleScan {
    seconds: Option<u64>,
    adapter: Option<String>,
}

/// Which device to pair with.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct BlePair {
    /// Address or name.
    device: String,
    seconds: Option<u64>,
    adapter: Option<String>,
}

/// What a person answers to a question of a device.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(in crate::server) struct BleAnswer {
    accept: Option<bool>,
    passkey: Option<String>,
}

/// An object; docs/ble.md describes its members.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::server) struct AnObject(
    #[expect(dead_code, reason = "it describes")] serde_json::Map<String, serde_json::Value>,
);
