//! How a connection fares, as administrators see it: the members of older clients first, in their order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value as Json;

use crate::named::named_enum;
use crate::outbox::Load;
use crate::server::auth::Role;
use crate::wire;

named_enum! {
    /// How far a connection is.
    State {
        /// Its upgrade is under way.
        Connecting = "connecting",
        /// Nobody has signed in.
        Connected = "connected",
        /// Somebody has signed in.
        Authenticated = "authenticated",
        /// The server is closing it for a fault.
        Error = "error",
        /// It has ended.
        Disconnected = "disconnected",
    }
}

named_enum! {
    /// What a client listens to, by the names of older clients and, beyond those, by the first level of its channels.
    Subject {
        /// Readings of patients.
        HealthUpdates = "health_updates",
        /// Messages between people.
        Chat = "chat",
        /// Messages for people.
        Notifications = "notifications",
        /// Alerts.
        Alerts = "alerts",
        /// Samples of waves.
        Waveforms = "waveforms",
        /// Devices and their records.
        Devices = "devices",
        /// What the bridge says about itself.
        System = "system",
        /// The audit trail.
        Audit = "audit",
        /// Everything else, `#` and `+/...` among it.
        Other = "other",
    }
}

impl Subject {
    /// What a pattern of channels is about. Below `ward/{ward}/` it is what follows.
    pub(super) fn of(pattern: &str) -> Self {
        let mut levels = pattern.split('/');
        let level = match levels.next() {
            Some("ward") => levels.nth(1).unwrap_or("#"),
            first => first.unwrap_or("#"),
        };
        match level {
            "patient" => Self::HealthUpdates,
            "chat" => Self::Chat,
            "notifications" => Self::Notifications,
            "alerts" => Self::Alerts,
            "waveform" => Self::Waveforms,
            "device" => Self::Devices,
            "system" => Self::System,
            "audit" => Self::Audit,
            _ => Self::Other,
        }
    }
}

/// How a connection fares.
#[derive(Debug, Clone)]
pub struct Health {
    /// How far it is.
    pub state: State,
    /// Who has signed in.
    pub user: Option<String>,
    /// As what.
    pub role: Option<Role>,
    /// When it was opened, as RFC 3339.
    pub connected_at: String,
    /// When the client was last heard, its answers to pings included.
    pub last_activity: String,
    /// How often this client has come back after a loss; see [`super::lineage`].
    pub retry_count: u32,
    /// How often it has asked for what it missed.
    pub recovery_attempts: u32,
    /// Its channels.
    pub channels: Vec<String>,
    /// Open, heard lately, and taking what it is sent.
    pub is_healthy: bool,
    /// The way of a ping and its answer.
    pub rtt: Option<Duration>,
    /// What waits for it.
    pub load: Load,
    /// The newest event that it has acknowledged.
    pub acked_seq: Option<u64>,
    /// What the client calls itself.
    pub client: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// Messages of the client.
    pub messages_received: u64,
    /// Messages to the client.
    pub messages_sent: u64,
    /// How it ended: when, with which code and why.
    pub end: Option<(String, u16, &'static str)>,
}

impl Health {
    /// What it listens to, each once.
    pub fn subjects(&self) -> Vec<Subject> {
        Subject::ALL
            .iter()
            .copied()
            .filter(|subject| self.channels.iter().any(|it| Subject::of(it) == *subject))
            .collect()
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("state", &self.state)?;
        map.serialize_entry("user_id", &self.user.as_deref().map_or(Json::Null, wire::user_id))?;
        map.serialize_entry("connected_at", &self.connected_at)?;
        map.serialize_entry("last_activity", &self.last_activity)?;
        map.serialize_entry("retry_count", &self.retry_count)?;
        map.serialize_entry("recovery_attempts", &self.recovery_attempts)?;
        map.serialize_entry("subscriptions", &self.subjects())?;
        map.serialize_entry("is_healthy", &self.is_healthy)?;
        map.serialize_entry("rtt_ms", &self.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0))?;
        map.serialize_entry("queue_len", &self.load.parcels)?;
        map.serialize_entry("queue_bytes", &self.load.bytes)?;
        map.serialize_entry("conflated", &self.load.conflated)?;
        map.serialize_entry("acked_seq", &self.acked_seq)?;
        map.serialize_entry("client", &self.client)?;
        map.serialize_entry("role", &self.role)?;
        map.serialize_entry("address", &self.address)?;
        map.serialize_entry("channels", &self.channels)?;
        map.serialize_entry("messages_received", &self.messages_received)?;
        map.serialize_entry("messages_sent", &self.messages_sent)?;
        if let Some((at, code, reason)) = &self.end {
            map.serialize_entry("disconnected_at", at)?;
            map.serialize_entry("close", &serde_json::json!({"code": code, "reason": reason}))?;
        }
        map.end()
    }
}

/// What there is in all.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Connections that are open.
    pub open: usize,
    /// Users who have signed in.
    pub users: usize,
    /// Connections in each state.
    pub states: BTreeMap<State, usize>,
    /// Connections that listen to each subject.
    pub subjects: BTreeMap<Subject, usize>,
    /// Open connections that are not healthy.
    pub unhealthy: usize,
    /// What waits for all of them.
    pub load: Load,
    /// What waits for the one for which most waits.
    pub longest: usize,
    /// Rows of the audit trail that wait for the pipeline.
    pub audit_rows_waiting: usize,
    /// For how long the daemon has run.
    pub uptime: Duration,
}

impl Totals {
    pub(super) fn add(&mut self, health: &Health) {
        self.open += 1;
        *self.states.entry(health.state).or_insert(0) += 1;
        for subject in health.subjects() {
            *self.subjects.entry(subject).or_insert(0) += 1;
        }
        self.unhealthy += usize::from(!health.is_healthy);
        self.load.parcels += health.load.parcels;
        self.load.bytes += health.load.bytes;
        self.load.conflated += health.load.conflated;
        self.longest = self.longest.max(health.load.parcels);
    }
}
