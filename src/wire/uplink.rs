//! What the bridge says of its connection to the backend: to the backend itself, and to who asks the bridge.

use schemars::JsonSchema;
use serde::Serialize;

use super::{bridge_message, shape};
use crate::clock::Wall;
use crate::ids::{BridgeId, Epoch, SiteId};

/// What a receiver of many bridges is told about one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BridgeNews {
    /// It is connected.
    Online {
        /// Without the connection its buffer would last for so many seconds; `None`: unknown.
        buffer_seconds_left: Option<u64>,
        /// Since when its disk takes no events; `None`: it does.
        storage_degraded_since: Option<Wall>,
    },
    /// It has left on purpose.
    Stopped,
    /// The receiver's broker has lost it.
    Lost,
}

impl BridgeNews {
    /// The envelope's `type`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Online { .. } | Self::Stopped | Self::Lost => "status",
        }
    }
}

/// The `data` of a bridge's `status`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StatusData {
    #[schemars(extend("enum" = ["online", "offline"]))]
    state: &'static str,
    #[schemars(extend("enum" = ["stopped", "connection_lost", null]))]
    reason: Option<&'static str>,
    /// While it is online: for how many seconds its buffer would last without the broker; null if that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    buffer_seconds_left: Option<Known<u64>>,
    /// While it is online: since when its disk takes no events. Alerts and the newest readings are sent all the same, with
    /// numbers that only its memory holds; null: everything is stored before it is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<shape::Timestamp>")]
    storage_degraded_since: Option<Known<String>>,
}

/// A member, or null: it is unknown, or there is none.
#[derive(Debug, Serialize)]
struct Known<T>(Option<T>);

/// The text of a bridge's `status`. It is no event: it has no number and is not in the log.
///
/// # Errors
/// Those of serialising it.
pub fn bridge_news(
    news: BridgeNews,
    site: &SiteId,
    bridge: &BridgeId,
    epoch: &Epoch,
    at: Wall,
) -> Result<String, serde_json::Error> {
    let offline =
        |reason| StatusData { state: "offline", reason, buffer_seconds_left: None, storage_degraded_since: None };
    let data = match news {
        BridgeNews::Online { buffer_seconds_left, storage_degraded_since } => StatusData {
            state: "online",
            reason: None,
            buffer_seconds_left: Some(Known(buffer_seconds_left)),
            storage_degraded_since: Some(Known(storage_degraded_since.map(|since| since.to_string()))),
        },
        BridgeNews::Stopped => offline(Some("stopped")),
        BridgeNews::Lost => offline(Some("connection_lost")),
    };
    bridge_message(news.kind(), &data, (site, bridge, epoch), at)
}

/// The connection to the broker as the bridge itself sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct UplinkNow {
    /// The broker has accepted the connection, and it stands.
    pub connected: bool,
    /// Since when it is connected or not; null before the first connection.
    #[schemars(with = "Option<shape::Timestamp>")]
    pub since: Option<String>,
    /// Events of the log that the broker has not confirmed, at most.
    pub waiting: u64,
    /// Of these, from before the connection.
    pub backlog: u64,
    /// In how many seconds the backlog will be sent at its pace so far; null: there is none, or it has just begun.
    pub backlog_seconds: Option<u64>,
    /// Sent and not confirmed.
    pub in_flight: u64,
    /// Events that the broker did not take, since the start.
    pub parked: u64,
    /// Messages that the broker has confirmed since the start.
    pub sent: u64,
    /// For how many seconds the buffer lasts without the broker at the pace of lately; null: unknown.
    pub buffer_seconds_left: Option<u64>,
    /// What is wrong, in words, if something is.
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_a_bridge_say_which_bridge_how_it_left_and_how_long_its_buffer_lasts() {
        let text = |news| {
            let (site, bridge, epoch) = ("icu".parse().unwrap(), "b1".parse().unwrap(), "k3f9".parse().unwrap());
            bridge_news(news, &site, &bridge, &epoch, Wall(0)).unwrap()
        };
        assert_eq!(
            text(BridgeNews::Lost),
            concat!(
                r#"{"type":"status","data":{"state":"offline","reason":"connection_lost"},"#,
                r#""timestamp":"1970-01-01T00:00:00.000Z","site":"icu","bridge":"b1","epoch":"k3f9"}"#
            )
        );
        let online = r#""data":{"state":"online","reason":null,"buffer_seconds_left":"#;
        let news = |buffer_seconds_left, storage_degraded_since| {
            text(BridgeNews::Online { buffer_seconds_left, storage_degraded_since })
        };
        let storage = r#","storage_degraded_since":"#;
        assert!(news(None, None).contains(&format!("{online}null{storage}null}}")));
        let since = r#""1970-01-01T00:00:01.000Z"}"#;
        assert!(news(Some(7200), Some(Wall(1000))).contains(&format!("{online}7200{storage}{since}")));
        assert!(text(BridgeNews::Stopped).contains(r#""data":{"state":"offline","reason":"stopped"}"#));
    }
}
