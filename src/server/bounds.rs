//! The limits of the server, as configured: how many, how large, how often and how long. docs/protocol.md lists them.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::named::named_enum;
use crate::server::rate::{Allowance, MESSAGES, READS, SMALL_TALK};

/// Connections at once, sessions included; more are answered with 503.
pub const MAX_CONNECTIONS: usize = 1000;

/// Connections beyond [`MAX_CONNECTIONS`] for those whose token says admin.
pub const MAX_ADMIN_CONNECTIONS: usize = 8;

/// Sessions of one user.
pub const MAX_CONNECTIONS_A_USER: usize = 5;

/// Connections of one address.
pub const MAX_CONNECTIONS_AN_ADDRESS: usize = 64;

/// Sessions of one address that have not signed in.
pub const MAX_UNAUTHENTICATED_AN_ADDRESS: usize = 32;

/// TLS handshake, header and upgrade are over by then, all of them together.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// A client that has not signed in by then is closed.
pub const AUTH_DEADLINE: Duration = Duration::from_secs(5);

/// The one message before the sign-in: a token, and what is around it.
pub const MAX_FIRST_MESSAGE_BYTES: usize = 8 * 1024;

/// Largest message of a client.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Most frames that one message comes in.
pub const MAX_FRAGMENTS: usize = 64;

/// Deepest nesting of arrays and objects that is read.
pub const MAX_JSON_DEPTH: usize = 16;

/// A session that listens to nothing and says nothing for so long is closed.
pub const IDLE: Duration = Duration::from_mins(5);

/// A session that listens, and says nothing for so long, is closed.
pub const IDLE_SUBSCRIBED: Duration = Duration::from_hours(1);

named_enum! {
    /// Which numbers the close frames have.
    CloseCodes {
        /// Our own, 4001 to 4209: they say what happened.
        Own = "own",
        /// Those of RFC 6455 and its registry, for clients that know no others.
        Standard = "standard",
    }
}

/// Every limit of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// See [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// See [`MAX_ADMIN_CONNECTIONS`].
    pub admin_connections: usize,
    /// See [`MAX_CONNECTIONS_A_USER`].
    pub per_user: usize,
    /// See [`MAX_CONNECTIONS_AN_ADDRESS`].
    pub per_address: usize,
    /// See [`MAX_UNAUTHENTICATED_AN_ADDRESS`].
    pub unauthenticated_per_address: usize,
    /// See [`HANDSHAKE_DEADLINE`].
    pub handshake: Duration,
    /// See [`AUTH_DEADLINE`].
    pub auth: Duration,
    /// See [`MAX_FIRST_MESSAGE_BYTES`].
    pub first_message_bytes: usize,
    /// See [`MAX_MESSAGE_BYTES`].
    pub message_bytes: usize,
    /// See [`MAX_FRAGMENTS`].
    pub fragments: usize,
    /// See [`MAX_JSON_DEPTH`].
    pub json_depth: usize,
    /// Messages and commands of a user, over all his connections and HTTP.
    pub messages: Allowance,
    /// Reads of a user over HTTP.
    pub reads: Allowance,
    /// What a client has to say often, and control frames, of each connection.
    pub small_talk: Allowance,
    /// See [`IDLE`].
    pub idle: Duration,
    /// See [`IDLE_SUBSCRIBED`].
    pub idle_subscribed: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            admin_connections: MAX_ADMIN_CONNECTIONS,
            per_user: MAX_CONNECTIONS_A_USER,
            per_address: MAX_CONNECTIONS_AN_ADDRESS,
            unauthenticated_per_address: MAX_UNAUTHENTICATED_AN_ADDRESS,
            handshake: HANDSHAKE_DEADLINE,
            auth: AUTH_DEADLINE,
            first_message_bytes: MAX_FIRST_MESSAGE_BYTES,
            message_bytes: MAX_MESSAGE_BYTES,
            fragments: MAX_FRAGMENTS,
            json_depth: MAX_JSON_DEPTH,
            messages: MESSAGES,
            reads: READS,
            small_talk: SMALL_TALK,
            idle: IDLE,
            idle_subscribed: IDLE_SUBSCRIBED,
        }
    }
}

impl ServerLimits {
    /// Each limit under its name in `[server.limits]`, which is also its name in `/metrics` and `/ws/status`.
    pub fn named(&self) -> [(&'static str, u64); 19] {
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let millis = |value: Duration| u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        [
            ("connections", count(self.connections)),
            ("admin_connections", count(self.admin_connections)),
            ("per_user", count(self.per_user)),
            ("per_address", count(self.per_address)),
            ("unauthenticated_per_address", count(self.unauthenticated_per_address)),
            ("handshake_ms", millis(self.handshake)),
            ("auth_ms", millis(self.auth)),
            ("first_message_bytes", count(self.first_message_bytes)),
            ("message_bytes", count(self.message_bytes)),
            ("fragments", count(self.fragments)),
            ("json_depth", count(self.json_depth)),
            ("messages_per_minute", u64::from(self.messages.per(Duration::from_mins(1)))),
            ("message_burst", u64::from(self.messages.burst())),
            ("reads_per_minute", u64::from(self.reads.per(Duration::from_mins(1)))),
            ("read_burst", u64::from(self.reads.burst())),
            ("small_talk_per_second", u64::from(self.small_talk.per(Duration::from_secs(1)))),
            ("small_talk_burst", u64::from(self.small_talk.burst())),
            ("idle_ms", millis(self.idle)),
            ("idle_subscribed_ms", millis(self.idle_subscribed)),
        ]
    }

    /// One gauge with a label for each limit.
    pub fn to_prometheus(&self) -> String {
        let mut text = "# HELP vitalbridge_limit A limit of the server, as configured.\n\
                        # TYPE vitalbridge_limit gauge\n"
            .to_owned();
        for (name, value) in self.named() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "vitalbridge_limit{{name=\"{name}\"}} {value}");
        }
        text
    }
}

/// `limits` of `GET /ws/status`.
impl Serialize for ServerLimits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.named())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let expected = [
            ("connections", 1000),
            ("admin_connections", 8),
            ("per_user", 5),
            ("per_address", 64),
            ("unauthenticated_per_address", 32),
            ("handshake_ms", 5000),
            ("auth_ms", 5000),
            ("first_message_bytes", 8192),
            ("message_bytes", 65_536),
            ("fragments", 64),
            ("json_depth", 16),
            ("messages_per_minute", 100),
            ("message_burst", 50),
            ("reads_per_minute", 1200),
            ("read_burst", 400),
            ("small_talk_per_second", 50),
            ("small_talk_burst", 50),
            ("idle_ms", 300_000),
            ("idle_subscribed_ms", 3_600_000),
        ];
        let limits = ServerLimits::default();
        assert_eq!(limits.named(), expected);
        let json = serde_json::to_value(limits).unwrap();
        assert!(expected.iter().all(|(name, value)| json[name] == *value), "{json}");
        assert!(limits.to_prometheus().contains("\nvitalbridge_limit{name=\"per_address\"} 64\n"));
    }

    #[test]
    fn the_documentation_names_each_limit_with_its_default() {
        let page = include_str!("../../docs/config.md");
        for (name, value) in ServerLimits::default().named() {
            let row = page.lines().find(|line| line.starts_with(&format!("| `server.limits.{name}`")));
            let default = row.and_then(|row| row.split('|').nth(2)).map(str::trim);
            assert_eq!(default, Some(value.to_string().as_str()), "{name}");
        }
    }
}
