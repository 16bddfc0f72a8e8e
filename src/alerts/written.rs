//! The rule file as it is written: a serde mirror of the TOML, with the places that problems are named by.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, de::Error as _};
use toml::Spanned;

use crate::alerts::BridgeCondition;
use crate::alerts::rule::Latching;
use crate::event::{AlertKind, Priority};
use crate::vitals::{Decimal, Quality};

/// Longest delay, reminder or silence a rule may ask for.
const MAX_TIME: Duration = Duration::from_hours(24);

/// A time as written: `500ms`, `15s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || D::Error::custom(format!("`{text}` is not a time such as 500ms, 15s, 5m or 1h"));
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        let time = Duration::from_millis(number.saturating_mul(millis));
        if time > MAX_TIME {
            return Err(D::Error::custom(format!("`{text}` is longer than 24h")));
        }
        Ok(Self(time))
    }
}

/// One word or a list of words.
#[derive(Debug, Clone)]
pub(super) struct Words(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of words")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = items.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SmoothingKind {
    None,
    Mean,
    Median,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    pub(super) patient: BTreeMap<Spanned<String>, RawPatient>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPatient {
    #[serde(default)]
    pub(super) rule: BTreeMap<Spanned<String>, RawOverride>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) id: Spanned<String>,
    pub(super) kind: AlertKind,
    pub(super) priority: Priority,
    pub(super) when: Spanned<RawWhen>,
    pub(super) metric: Option<Spanned<Words>>,
    pub(super) unit: Option<Spanned<String>>,
    pub(super) clear: Option<Spanned<RawClear>>,
    pub(super) delay: Option<Spanned<Time>>,
    pub(super) clear_delay: Option<Time>,
    pub(super) reminder: Option<Spanned<Time>>,
    pub(super) audio_pause: Option<Spanned<Time>>,
    pub(super) stale_after: Option<Spanned<Time>>,
    pub(super) smoothing: Option<Spanned<RawSmoothing>>,
    pub(super) area: Option<Spanned<RawArea>>,
    pub(super) consecutive: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) inhibits: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) inhibited_by: Vec<Spanned<String>>,
    pub(super) latching: Option<Spanned<Latching>>,
    #[serde(default)]
    pub(super) spot: bool,
    pub(super) quality: Option<Spanned<Vec<Quality>>>,
    pub(super) enabled: Option<Spanned<bool>>,
    pub(super) reason: Option<Spanned<String>>,
    pub(super) by: Option<Spanned<String>>,
    pub(super) expires: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOverride {
    pub(super) when: Option<Spanned<RawWhen>>,
    pub(super) clear: Option<Spanned<RawClear>>,
    pub(super) delay: Option<Spanned<Time>>,
    pub(super) clear_delay: Option<Time>,
    pub(super) enabled: Option<bool>,
    pub(super) reason: Spanned<String>,
    pub(super) by: Spanned<String>,
    pub(super) expires: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWhen {
    pub(super) below: Option<Decimal>,
    pub(super) at_most: Option<Decimal>,
    pub(super) below_other: Option<RawBelow>,
    pub(super) above: Option<Decimal>,
    pub(super) at_least: Option<Decimal>,
    pub(super) above_other: Option<RawAbove>,
    pub(super) rising_by: Option<RawChange>,
    pub(super) falling_by: Option<RawChange>,
    pub(super) no_valid_for: Option<Time>,
    pub(super) link_down_for: Option<Time>,
    pub(super) or_flag: Option<Spanned<Words>>,
    pub(super) condition: Option<BridgeCondition>,
    pub(super) all_of: Option<Vec<String>>,
    pub(super) any_of: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBelow {
    pub(super) rule: String,
    pub(super) by: Decimal,
    pub(super) floor: Option<Decimal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAbove {
    pub(super) rule: String,
    pub(super) by: Decimal,
    pub(super) cap: Option<Decimal>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChange {
    pub(super) by: Decimal,
    pub(super) over: Time,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClear {
    pub(super) below: Option<Decimal>,
    pub(super) at_most: Option<Decimal>,
    pub(super) above: Option<Decimal>,
    pub(super) at_least: Option<Decimal>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSmoothing {
    pub(super) kind: SmoothingKind,
    pub(super) window: Option<Time>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawArea {
    pub(super) points_seconds: u32,
    pub(super) window: Time,
    pub(super) crossings: Option<u32>,
}
