//! The forms of tickets, revocations, rooms and management, for the document: the members on which a client can rely.
//!
//! These types are never made: they describe.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

use super::forms::{Time, User};

/// A ticket for one connection: `?ticket=` of a WebSocket or of `/sse`.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct IssuedTicket {
    ticket: String,
    /// Seconds.
    expires_in: u64,
    expires_at: Time,
}

/// The token of this name.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct RevokeToken {
    #[schemars(length(min = 1, max = 1024))]
    jti: String,
}

/// The tokens of this user, as `sub` has it.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct RevokeUser {
    #[schemars(length(min = 1, max = 1024))]
    user: String,
}

/// Whose tokens are refused from now on: one token's, or every one that a user has.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes")]
pub(super) enum Revoke {
    Token(RevokeToken),
    User(RevokeUser),
}

/// What is revoked now, on disk.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct Revoked {
    ok: bool,
    revoked_at: Time,
}

/// Who is in a room.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct RoomMembers {
    conversation_id: String,
    /// The first of them by name.
    members: Vec<User>,
    member_count: u64,
}

/// A message of a room.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct RoomMessage {
    message: String,
    sender: String,
    conversation_id: String,
    session_id: String,
    message_id: String,
    user_id: User,
    timestamp: Time,
    seq: u64,
    epoch: String,
}

/// A page of a room's messages, the oldest first.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct RoomPage {
    conversation_id: String,
    session_id: String,
    messages: Vec<RoomMessage>,
    /// The `before` of the page before, which is older; `null` where there is none.
    next: Option<u64>,
}

/// What the connections are doing in all; the first six members are those of older servers.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct Connected {
    /// `healthy`, `degraded` or `draining`.
    status: String,
    active_connections: u64,
    /// Since the bridge began.
    total_connections: u64,
    users_online: u64,
    /// Connections that listen to each subject.
    subscriptions: BTreeMap<String, u64>,
    timestamp: Time,
    /// Seconds.
    uptime: u64,
    epoch: String,
    /// Connections in each state.
    states: BTreeMap<String, u64>,
    queues: BTreeMap<String, u64>,
    /// The limits in force.
    limits: BTreeMap<String, u64>,
    version: String,
    /// The connection to the broker; `null`: none is configured.
    #[schemars(with = "Option<crate::wire::UplinkNow>")]
    uplink: Option<serde_json::Value>,
}

/// How a connection ended.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct Ended {
    code: u16,
    reason: String,
}

/// How a connection fares.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct ConnectionHealth {
    /// `connecting`, `connected`, `authenticated`, `error` or `disconnected`.
    state: String,
    /// `null` before anybody has signed in.
    user_id: Option<User>,
    connected_at: Time,
    /// When the client was last heard.
    last_activity: Time,
    retry_count: u32,
    recovery_attempts: u32,
    /// What it listens to, by subject.
    subscriptions: Vec<String>,
    is_healthy: bool,
    rtt_ms: Option<f64>,
    queue_len: u64,
    queue_bytes: u64,
    conflated: u64,
    acked_seq: Option<u64>,
    client: Option<String>,
    role: Option<String>,
    address: Option<String>,
    channels: Vec<String>,
    messages_received: u64,
    messages_sent: u64,
    /// Only of one that has ended.
    disconnected_at: Option<Time>,
    /// Only of one that has ended.
    close: Option<Ended>,
}

/// A connection.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct OneConnection {
    connection_id: String,
    health: ConnectionHealth,
}

/// The connections that are open.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct AllConnections {
    connections: Vec<OneConnection>,
    total: u64,
}

/// A user who is online.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct OnlineUser {
    user_id: User,
    /// Their ids.
    connections: Vec<String>,
    roles: Vec<String>,
    connected_at: Time,
    last_activity: Time,
    /// All of the user's connections are.
    is_healthy: bool,
}

/// The users who are online.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct OnlineUsers {
    users: Vec<OnlineUser>,
    total: u64,
}

/// A pattern of channels to which somebody listens.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct OneChannel {
    channel: String,
    subscribers: u64,
}

/// The patterns of channels to which somebody listens.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct AllChannels {
    channels: Vec<OneChannel>,
    total: u64,
}

/// The order to close one connection; the WebSocket ends with this code.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct ClosedConnection {
    ok: bool,
    code: u16,
    reason: String,
    connection_id: String,
}

/// The order to close the connections of a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct ClosedUser {
    ok: bool,
    code: u16,
    reason: String,
    user_id: User,
    /// Their ids.
    connections: Vec<String>,
}

/// Whether nobody is let in; nothing means `true`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct Drain {
    #[serde(default = "yes")]
    drain: bool,
}

const fn yes() -> bool {
    true
}

/// Whether nobody is let in now, and how many connections were sent away.
#[derive(Debug, Deserialize, JsonSchema)]
#[expect(dead_code, reason = "it describes")]
pub(super) struct Drained {
    ok: bool,
    draining: bool,
    connections: u64,
}

/// The name of a connection or user in an address.
pub(super) fn name() -> Json {
    serde_json::json!({"type": "string", "minLength": 1, "maxLength": 256})
}
