//! The bounds and times of the uplink, what the broker allows, and how a connection ends. Pure.

use std::time::Duration;

use crate::uplink::hold::DEFAULT_CLOCK_HOLD;

/// Bounds and times of the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rows that may be unconfirmed at the same time.
    pub window: u16,
    /// Places of the window that everything else leaves to alerts since the connection stands.
    pub alert_reserve: u16,
    /// Places of the window that are left to live readings by what goes after them, and by earlier alerts.
    pub live_reserve: u16,
    /// Readings of the backlog in one publication.
    pub bundle: usize,
    /// Publications of the backlog a second; 0: as fast as the window allows.
    pub backlog_a_second: u16,
    /// Largest packet that is sent, in bytes; the broker may allow less.
    pub max_packet_bytes: u32,
    /// Shortest wait before a new connection.
    pub reconnect_shortest: Duration,
    /// Longest wait before a new connection.
    pub reconnect_longest: Duration,
    /// A connection of this age counts as stable, and the next wait is short again.
    pub stable_after: Duration,
    /// From opening the socket to the broker's CONNACK.
    pub connect_timeout: Duration,
    /// Unconfirmed rows and no PUBACK for so long: the link is taken for dead, even if pings are answered.
    pub ack_timeout: Duration,
    /// Readings wait for so long in all, while the broker is connected, for somebody to set the clock; zero: they do not.
    pub clock_hold: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: 32,
            alert_reserve: 8,
            live_reserve: 8,
            bundle: 50,
            backlog_a_second: 20,
            max_packet_bytes: 256 * 1024,
            reconnect_shortest: Duration::from_secs(1),
            reconnect_longest: Duration::from_mins(2),
            stable_after: Duration::from_mins(1),
            connect_timeout: Duration::from_secs(15),
            ack_timeout: Duration::from_secs(20),
            clock_hold: DEFAULT_CLOCK_HOLD,
        }
    }
}

/// What the broker allows (CONNACK, MQTT 5.0 3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Receive Maximum: `QoS` 1 packets that it takes at the same time.
    pub receive_maximum: u16,
    /// Maximum Packet Size in bytes.
    pub max_packet_bytes: Option<u32>,
}

/// How a connection ended, as far as it matters for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// Refused, lost, reset, timed out.
    Lost,
    /// DISCONNECT 0x8E: another client came with the same client id.
    TakenOver,
    /// Because of one publication, which the broker does not name: DISCONNECT 0x95 (packet too large), or an answer that
    /// MQTT does not know.
    RowRefused,
    /// Perhaps because of one: a DISCONNECT that says that something was not allowed, or not well formed.
    Denied,
    /// The broker has closed the connection without a word, for whatever reason.
    Closed,
    /// Ended by the bridge itself, which wants another connection at once: with a new password, or another version of MQTT.
    Again,
    /// This machine's clock is not set, which a new connection would not change: it is looked at again after the shortest
    /// wait.
    Clock,
}
