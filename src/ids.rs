//! Names of things: patients, devices, sources, alerts, and the number an event keeps for ever.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest identifier that is accepted, in bytes. Topics, log fields and database rows all carry these.
pub const MAX_ID_BYTES: usize = 64;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an identifier: use 1 to {MAX_ID_BYTES} of A-Z a-z 0-9 _ -")]
pub struct BadId {
    /// The refused text, cut to a length that fits a log line.
    pub text: String,
}

/// True for a text that every transport can carry unescaped: MQTT and NATS topics, URLs, file names.
fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(extend("pattern" = "^[A-Za-z0-9_-]{1,64}$"))]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                if is_id(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(BadId { text: text.chars().take(MAX_ID_BYTES).collect() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A person whose vitals are read. Chosen by whoever writes the configuration; not a name.
    PatientId
);
text_id!(
    /// One sensor or monitor.
    DeviceId
);
text_id!(
    /// One configured way in: a serial port, a BLE strap, a replay file.
    SourceId
);
text_id!(
    /// A group of beds that is watched together.
    WardId
);
text_id!(
    /// This daemon, among all that report to one backend.
    BridgeId
);
text_id!(
    /// The place a bridge stands in, the level above it in MQTT topics.
    SiteId
);
text_id!(
    /// One alert rule of the rule file.
    RuleId
);
text_id!(
    /// One run of the daemon. `(epoch, seq)` names an event for ever.
    Epoch
);

impl Epoch {
    /// Makes the text of an epoch from 40 random bits: eight characters of `[0-9a-v]`.
    pub fn from_bits(bits: u64) -> Self {
        const DIGITS: [char; 32] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k',
            'l', 'm', 'n', 'o', 'p', 'q', 'r', 's', 't', 'u', 'v',
        ];
        let digit = |place: u32| {
            let five_bits = usize::try_from((bits >> (place * 5)) & 31).unwrap_or(0);
            DIGITS.get(five_bits).copied().unwrap_or('0')
        };
        let text: String = (0..8).map(digit).collect();
        Self(Arc::from(text.as_str()))
    }
}

/// The identity of one alert episode: a UUID of version 7, so that it sorts by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct AlertId(pub uuid::Uuid);

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an event inside the log: rises by one, without gaps inside an epoch, and starts at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number before the first event.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_travels_unescaped_or_is_refused() {
        for good in ["P-0001", "a", "polar_h10-1", &"x".repeat(MAX_ID_BYTES)] {
            assert_eq!(good.parse::<PatientId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "a#", "+", "a.b", "ä", "$SYS", &"x".repeat(MAX_ID_BYTES + 1)] {
            assert!(bad.parse::<PatientId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_epoch_has_eight_characters_and_keeps_its_bits() {
        assert_eq!(Epoch::from_bits(0).as_str(), "00000000");
        assert_eq!(Epoch::from_bits(u64::MAX).as_str(), "vvvvvvvv");
        assert_ne!(Epoch::from_bits(1), Epoch::from_bits(2));
    }
}
