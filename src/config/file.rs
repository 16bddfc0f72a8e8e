//! The configuration file as it is written: a serde mirror of the TOML, every member with its place in the text.
//!
//! Nothing is checked here beyond types and unknown keys; [`super::Config`] gives it its meaning.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::alerts::Time;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) bridge: Bridge,
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) store: Store,
    #[serde(default)]
    pub(super) auth: Auth,
    #[serde(default)]
    pub(super) alerts: Alerts,
    #[serde(default)]
    pub(super) clock: Clock,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) profiles: Profiles,
    #[serde(default)]
    pub(super) ble: Ble,
    pub(super) mqtt: Option<Mqtt>,
    #[serde(default, rename = "patient")]
    pub(super) patients: Vec<Patient>,
    #[serde(default, rename = "source")]
    pub(super) sources: Vec<Spanned<Source>>,
}

/// `[bridge]`: which bridge this is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bridge {
    pub(super) id: Option<Spanned<String>>,
    pub(super) site: Option<Spanned<String>>,
}

/// `[clock]`: who is believed about the time of day.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Clock {
    pub(super) trust: Option<Spanned<String>>,
}

/// `[server]`: where dashboards connect.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) allowed_hosts: Vec<String>,
    #[serde(default)]
    pub(super) allowed_origins: Vec<Spanned<String>>,
    pub(super) tls: Option<Spanned<Tls>>,
    pub(super) close_codes: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) limits: ServerLimits,
}

/// `[server.tls]`: the server speaks TLS.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) client_ca: Option<Spanned<String>>,
    pub(super) client_certificates: Option<Spanned<String>>,
}

/// `[server.limits]`: how many, how large, how often, how long.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServerLimits {
    pub(super) connections: Option<Spanned<u64>>,
    pub(super) admin_connections: Option<Spanned<u64>>,
    pub(super) per_user: Option<Spanned<u64>>,
    pub(super) per_address: Option<Spanned<u64>>,
    pub(super) unauthenticated_per_address: Option<Spanned<u64>>,
    pub(super) handshake_ms: Option<Spanned<u64>>,
    pub(super) auth_ms: Option<Spanned<u64>>,
    pub(super) first_message_bytes: Option<Spanned<u64>>,
    pub(super) message_bytes: Option<Spanned<u64>>,
    pub(super) fragments: Option<Spanned<u64>>,
    pub(super) json_depth: Option<Spanned<u64>>,
    pub(super) messages_per_minute: Option<Spanned<u64>>,
    pub(super) message_burst: Option<Spanned<u64>>,
    pub(super) reads_per_minute: Option<Spanned<u64>>,
    pub(super) read_burst: Option<Spanned<u64>>,
    pub(super) small_talk_per_second: Option<Spanned<u64>>,
    pub(super) small_talk_burst: Option<Spanned<u64>>,
    pub(super) idle_ms: Option<Spanned<u64>>,
    pub(super) idle_subscribed_ms: Option<Spanned<u64>>,
}

/// `[store]`: where and how readings are kept.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) dir: Option<String>,
    pub(super) group_commit_ms: Option<Spanned<u64>>,
    pub(super) retention_hours: Option<Spanned<u64>>,
    pub(super) max_mib: Option<Spanned<u64>>,
}

/// `[auth]`: whose tokens are taken.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Auth {
    pub(super) secret_file: Option<Spanned<String>>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) own_tokens: Option<Spanned<bool>>,
    pub(super) query_token: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) trust: Vec<Spanned<Trust>>,
}

/// `[[auth.trust]]`: an issuer whose tokens are taken beside our own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trust {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) public_key_file: Option<Spanned<String>>,
    pub(super) kid: Option<String>,
    pub(super) jwks_file: Option<Spanned<String>>,
    pub(super) jwks_url: Option<Spanned<String>>,
    pub(super) jwks_ca_file: Option<Spanned<String>>,
    pub(super) jwks_refresh_minutes: Option<Spanned<u64>>,
}

/// `[alerts]`: the rules, and what happens to their alerts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alerts {
    pub(super) rules: Option<Spanned<String>>,
    pub(super) annunciators: Option<Spanned<String>>,
    pub(super) fallback: Option<Spanned<Fallback>>,
    #[serde(default)]
    pub(super) escalation: Vec<Spanned<Escalation>>,
}

/// `[alerts.fallback]`: what is on while nobody is shown an alert.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fallback {
    pub(super) command: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Spanned<Time>>,
    pub(super) line: Option<Spanned<String>>,
    pub(super) on: Option<String>,
    pub(super) off: Option<String>,
}

/// `[[alerts.escalation]]`: where an alert goes that nobody acknowledges.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Escalation {
    pub(super) after: Spanned<Time>,
    pub(super) priority: Option<Spanned<String>>,
    pub(super) to: Spanned<Vec<Spanned<String>>>,
}

/// `[log]`: what is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) filter: Option<Spanned<String>>,
}

/// `[profiles]`: where the installer's own device profiles are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profiles {
    pub(super) dir: Option<Spanned<String>>,
}

/// `[ble]`: the radio that all Bluetooth sources share.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ble {
    pub(super) adapter: Option<Spanned<String>>,
}

/// `[mqtt]`: the way to the backend.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mqtt {
    pub(super) broker: Spanned<String>,
    pub(super) client_id: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) version: Option<Spanned<String>>,
    pub(super) tls: Option<Spanned<MqttTls>>,
    pub(super) jwt: Option<Spanned<MqttJwt>>,
    pub(super) topic: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) commands: Vec<Spanned<String>>,
    pub(super) backlog_per_second: Option<Spanned<u64>>,
    pub(super) backlog_bundle: Option<Spanned<u64>>,
    pub(super) clock_hold: Option<Spanned<Time>>,
    pub(super) buffer_low_hours: Option<Spanned<u64>>,
    #[serde(default)]
    pub(super) home_assistant: bool,
    pub(super) home_assistant_prefix: Option<Spanned<String>>,
}

/// `[mqtt.tls]`: whom the bridge trusts, and its own certificate.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MqttTls {
    pub(super) ca_file: Option<Spanned<String>>,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) server_name: Option<Spanned<String>>,
}

/// `[mqtt.jwt]`: tokens that the bridge signs, as the password.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MqttJwt {
    pub(super) key_file: Spanned<String>,
    pub(super) algorithm: Spanned<String>,
    pub(super) aud: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) life: Option<Spanned<Time>>,
}

/// `[[patient]]`: who lies where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patient {
    pub(super) id: Spanned<String>,
    pub(super) name: Option<String>,
    pub(super) bed: Option<String>,
    pub(super) ward: Option<Spanned<String>>,
    pub(super) news2: Option<Spanned<News2>>,
}

/// `news2`: whether the score is computed for a patient, and how.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "news2 is true, false or { spo2_scale = 2, by = \"...\", reason = \"...\" }")]
pub(super) enum News2 {
    /// On with scale 1, or off.
    Switch(bool),
    /// On.
    Settings(News2Scale),
}

/// Which column of SpO2 holds, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct News2Scale {
    pub(super) spo2_scale: u8,
    pub(super) by: Option<String>,
    pub(super) reason: Option<String>,
}

/// `[[source]]`: one way in. Which members it needs depends on `kind`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) id: Spanned<String>,
    pub(super) kind: Spanned<String>,
    pub(super) patient: Option<Spanned<String>>,
    pub(super) device: Option<Spanned<String>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<String>>,
    pub(super) profile: Option<Spanned<String>>,
    pub(super) settings: Option<Spanned<String>>,
    pub(super) serial_number: Option<Spanned<String>>,
    pub(super) allow_commands: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) sensor: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) users: BTreeMap<String, Spanned<String>>,
    pub(super) delete_records: Option<Spanned<bool>>,
    pub(super) set_clock: Option<Spanned<String>>,
    pub(super) file: Option<Spanned<String>>,
    pub(super) speed: Option<Spanned<f64>>,
}
