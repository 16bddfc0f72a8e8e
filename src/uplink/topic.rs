//! Topic templates: where each kind of message goes.

use std::fmt;
use std::str::FromStr;

use crate::ids::{BridgeId, DeviceId, SiteId};

/// Longest template, in bytes. MQTT allows a topic of 65,535.
const MAX_TEMPLATE_BYTES: usize = 256;

/// The template that is used if the configuration has none.
pub const DEFAULT_TEMPLATE: &str = "vitals/v1/{site}/{bridge}/{kind}[/{device}]";

/// What the broker of AWS publishes to its rules without a broker in between; the only topics of a client that begin with `$`.
const BASIC_INGEST: &str = "$aws/rules/";

/// Why a text is not a topic template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// Empty or too long.
    #[error("a topic template has 1 to {MAX_TEMPLATE_BYTES} bytes, not {0}")]
    Length(usize),
    /// MQTT gives the character a meaning of its own, or forbids it in a topic.
    #[error("`{0}` cannot stand in the topic template `{1}`")]
    Character(char, String),
    /// Topics that begin with `$` belong to the broker (MQTT 5.0 4.7.2).
    #[error("the topic template `{0}` begins with `$`, which is reserved for the broker, but for {BASIC_INGEST}")]
    Reserved(String),
    /// A name in braces that is not known.
    #[error("the topic template has no place for `{{{0}}}`: use {{site}}, {{bridge}}, {{kind}} or {{device}}")]
    Place(String),
    /// Braces or brackets that do not match.
    #[error("the braces or brackets of the topic template `{0}` do not match")]
    Unbalanced(String),
    /// Without `{kind}` all messages would share one topic, and the retained ones would replace each other.
    #[error("the topic template `{0}` needs {{kind}} outside of brackets")]
    NoKind(String),
    /// Not every message has a device.
    #[error("{{device}} must stand in brackets in the topic template `{0}`, for messages without a device")]
    BareDevice(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Site,
    Bridge,
    Kind,
    Device,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

/// A checked topic template: text, the places `{site}`, `{bridge}`, `{kind}` and `{device}`, and one part in brackets
/// that is left out when the message has no device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    parts: Vec<(Part, Optional)>,
}

/// Whether a part stands in the brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Optional {
    No,
    Yes,
}

impl TopicTemplate {
    /// The topic of one message.
    pub fn topic(&self, site: &SiteId, bridge: &BridgeId, kind: &str, device: Option<&DeviceId>) -> String {
        let mut topic = String::with_capacity(self.text.len());
        for (part, optional) in &self.parts {
            if *optional == Optional::Yes && device.is_none() {
                continue;
            }
            topic.push_str(match part {
                Part::Text(text) => text,
                Part::Place(Place::Site) => site.as_str(),
                Part::Place(Place::Bridge) => bridge.as_str(),
                Part::Place(Place::Kind) => kind,
                Part::Place(Place::Device) => device.map_or("", DeviceId::as_str),
            });
        }
        topic
    }

    /// Whether the device stands in a topic.
    pub(super) fn has_device(&self) -> bool {
        self.parts.contains(&(Part::Place(Place::Device), Optional::Yes))
    }

    fn check(&self) -> Result<(), BadTemplate> {
        let text = || self.text.clone();
        if !self.parts.contains(&(Part::Place(Place::Kind), Optional::No)) {
            return Err(BadTemplate::NoKind(text()));
        }
        if self.parts.contains(&(Part::Place(Place::Device), Optional::No)) {
            return Err(BadTemplate::BareDevice(text()));
        }
        Ok(())
    }
}

impl Default for TopicTemplate {
    fn default() -> Self {
        use Optional::{No, Yes};
        let text = |text: &str| Part::Text(text.to_owned());
        let parts = vec![
            (text("vitals/v1/"), No),
            (Part::Place(Place::Site), No),
            (text("/"), No),
            (Part::Place(Place::Bridge), No),
            (text("/"), No),
            (Part::Place(Place::Kind), No),
            (text("/"), Yes),
            (Part::Place(Place::Device), Yes),
        ];
        Self { text: DEFAULT_TEMPLATE.to_owned(), parts }
    }
}

impl FromStr for TopicTemplate {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<Self, BadTemplate> {
        if !(1..=MAX_TEMPLATE_BYTES).contains(&text.len()) {
            return Err(BadTemplate::Length(text.len()));
        }
        if text.starts_with('$') && !text.starts_with(BASIC_INGEST) {
            return Err(BadTemplate::Reserved(text.to_owned()));
        }
        if let Some(bad) = text.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
            return Err(BadTemplate::Character(bad, text.to_owned()));
        }
        let template = Self { text: text.to_owned(), parts: parse(text)? };
        template.check()?;
        Ok(template)
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Result<Vec<(Part, Optional)>, BadTemplate> {
    let unbalanced = || BadTemplate::Unbalanced(text.to_owned());
    let mut parts = Vec::new();
    let mut optional = Optional::No;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}', '[', ']']) {
        let (before, from) = rest.split_at(at);
        if !before.is_empty() {
            parts.push((Part::Text(before.to_owned()), optional));
        }
        let mut chars = from.chars();
        rest = match (chars.next(), optional) {
            (Some('['), Optional::No) => {
                optional = Optional::Yes;
                chars.as_str()
            }
            (Some(']'), Optional::Yes) => {
                optional = Optional::No;
                chars.as_str()
            }
            (Some('{'), _) => {
                let (name, after) = chars.as_str().split_once('}').ok_or_else(unbalanced)?;
                parts.push((Part::Place(place(name)?), optional));
                after
            }
            _ => return Err(unbalanced()),
        };
    }
    if optional == Optional::Yes {
        return Err(unbalanced());
    }
    if !rest.is_empty() {
        parts.push((Part::Text(rest.to_owned()), optional));
    }
    Ok(parts)
}

fn place(name: &str) -> Result<Place, BadTemplate> {
    match name {
        "site" => Ok(Place::Site),
        "bridge" => Ok(Place::Bridge),
        "kind" => Ok(Place::Kind),
        "device" => Ok(Place::Device),
        other => Err(BadTemplate::Place(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(template: &str, device: Option<&str>) -> String {
        let template: TopicTemplate = template.parse().unwrap();
        let device = device.map(|text| text.parse().unwrap());
        template.topic(&"icu".parse().unwrap(), &"b1".parse().unwrap(), "alert", device.as_ref())
    }

    #[test]
    fn the_default_written_as_text_is_the_default() {
        assert_eq!(DEFAULT_TEMPLATE.parse(), Ok(TopicTemplate::default()));
    }

    #[test]
    fn a_template_fills_its_places_and_leaves_out_the_device_that_is_not_there() {
        for (template, device, expected) in [
            (DEFAULT_TEMPLATE, Some("strap-1"), "vitals/v1/icu/b1/alert/strap-1"),
            (DEFAULT_TEMPLATE, None, "vitals/v1/icu/b1/alert"),
            ("devices/{bridge}/messages/events/{kind}", Some("strap-1"), "devices/b1/messages/events/alert"),
            ("{kind}[/of/{device}/x]/end", Some("d"), "alert/of/d/x/end"),
            ("{kind}[/of/{device}/x]/end", None, "alert/end"),
        ] {
            assert_eq!(topic(template, device), expected, "{template}");
        }
    }

    #[test]
    fn every_kind_of_message_fits_what_the_large_brokers_allow() {
        let longest = "x".repeat(64);
        let [site, bridge, device] = [longest.as_str(), "b1", "strap-1"];
        let parsed = (site.parse().unwrap(), bridge.parse().unwrap(), device.parse().unwrap());
        let kinds = ["health_update", "batch", "alert", "status", "birth", "cmd", "cmd_result", "conversation_cleared"];
        for (template, prefix) in [
            (DEFAULT_TEMPLATE, ""),
            // AWS IoT Core: Basic Ingest does not count what stands before the topic itself.
            ("$aws/rules/vitals/{site}/{bridge}/{kind}[/{device}]", "$aws/rules/vitals/"),
            // Azure IoT Hub: only this topic, and properties as in the query of an address.
            ("devices/b1/messages/events/kind={kind}[&device={device}]", "devices/b1/messages/events/"),
            ("devices/{bridge}/messages/events/{kind}[/{device}]", "devices/b1/messages/events/"),
        ] {
            let checked: TopicTemplate = template.parse().unwrap();
            assert_eq!(checked.to_string(), template);
            for kind in kinds {
                let topics = [None, Some(&parsed.2)].map(|device| checked.topic(&parsed.0, &parsed.1, kind, device));
                for topic in &topics {
                    let rest = topic.strip_prefix(prefix).unwrap();
                    // AWS IoT Core: seven slashes and 256 bytes.
                    assert!(rest.matches('/').count() <= 7 && rest.len() <= 256, "{topic}");
                    // NATS: a dot separates as a slash does, `*` and `>` are wildcards, and a space ends a subject.
                    assert!(!rest.contains(['.', '*', '>', ' ', '+', '#']), "{topic}");
                    if template.contains("kind=") {
                        let pairs: Vec<_> = rest.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
                        assert_eq!(pairs[0], ("kind", kind));
                        assert!(pairs.get(1).is_none_or(|pair| *pair == ("device", "strap-1")), "{topic}");
                    }
                }
                assert_ne!(topics[0], topics[1]);
            }
        }
    }

    #[test]
    fn a_template_that_could_not_work_is_refused_with_its_reason() {
        let parse = |text: &str| text.parse::<TopicTemplate>().unwrap_err();
        assert_eq!(parse(""), BadTemplate::Length(0));
        assert_eq!(parse(&"x".repeat(257)), BadTemplate::Length(257));
        assert_eq!(parse("a/+/{kind}"), BadTemplate::Character('+', "a/+/{kind}".into()));
        assert_eq!(parse("a/#{kind}"), BadTemplate::Character('#', "a/#{kind}".into()));
        assert_eq!(parse("a\0{kind}"), BadTemplate::Character('\0', "a\0{kind}".into()));
        assert_eq!(parse("$SYS/{kind}"), BadTemplate::Reserved("$SYS/{kind}".into()));
        assert_eq!(parse("$aws/things/{kind}"), BadTemplate::Reserved("$aws/things/{kind}".into()));
        assert_eq!(parse("{kind}/{ward}"), BadTemplate::Place("ward".into()));
        assert_eq!(parse("a/b"), BadTemplate::NoKind("a/b".into()));
        assert_eq!(parse("a[/{kind}]"), BadTemplate::NoKind("a[/{kind}]".into()));
        assert_eq!(parse("{kind}/{device}"), BadTemplate::BareDevice("{kind}/{device}".into()));
        for text in ["{kind", "kind}", "{kind}[", "{kind}]", "{kind}[/[x]]"] {
            assert_eq!(parse(text), BadTemplate::Unbalanced(text.into()), "{text}");
        }
    }
}
