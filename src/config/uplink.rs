//! `[mqtt]`: the way to the backend.

use super::build::Builder;
use super::{Broker, Config, file, read_bounded};
use crate::secret::Secret;
use crate::uplink::{Limits, TopicTemplate};

/// Most messages of the backlog a second; more is the same as no limit.
const MAX_BACKLOG_PER_SECOND: u16 = 1000;

/// Most readings in one message of the backlog: their bodies are then about as large as a packet may be.
const MAX_BUNDLE: usize = 500;

/// Where Home Assistant looks for descriptions unless it is told otherwise.
const HOME_ASSISTANT: &str = "homeassistant";

/// Longest prefix of these descriptions.
const MAX_PREFIX_BYTES: usize = 64;

impl Builder<'_> {
    pub(super) fn broker(&mut self, mqtt: &file::Mqtt, config: &Config) -> Option<Broker> {
        let address = self.parse(&mqtt.broker);
        let topic = match &mqtt.topic {
            Some(topic) => self.parse(topic),
            None => Some(TopicTemplate::default()),
        };
        let password = mqtt.password_file.as_ref().and_then(|file| {
            let path = self.path(file.get_ref());
            match read_bounded(&path) {
                Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
                Err(error) => {
                    self.problem(file, format!("cannot read the password file {}: {error}", path.display()));
                    None
                }
            }
        });
        for name in mqtt.commands.iter().filter(|name| !crate::command::NAMES.contains(&name.get_ref().as_str())) {
            let message =
                format!("`{}` is no command: it is one of {}", name.get_ref(), crate::command::NAMES.join(", "));
            self.problem(name, message);
        }
        let commands = mqtt.commands.iter().map(|name| name.get_ref().clone()).collect();
        let client_id = mqtt.client_id.clone().unwrap_or_else(|| format!("vitalbridge-{}", config.bridge));
        let username = mqtt.username.clone();
        let limits = self.uplink_limits(mqtt);
        let home_assistant = self.home_assistant(mqtt);
        Some(Broker {
            address: address?,
            client_id,
            username,
            password,
            topic: topic?,
            commands,
            limits,
            home_assistant,
        })
    }

    /// The prefix under which Home Assistant listens, if it shall be told.
    fn home_assistant(&mut self, mqtt: &file::Mqtt) -> Option<String> {
        let Some(prefix) = &mqtt.home_assistant_prefix else {
            return mqtt.home_assistant.then(|| HOME_ASSISTANT.to_owned());
        };
        let text = prefix.get_ref();
        let is_level = |level: &str| {
            !level.is_empty() && level.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if text.len() > MAX_PREFIX_BYTES || !text.split('/').all(is_level) {
            self.problem(
                prefix,
                format!("is a topic of at most {MAX_PREFIX_BYTES} of A-Z a-z 0-9 _ - and / between them"),
            );
        }
        mqtt.home_assistant.then(|| text.clone())
    }

    /// How fast what waited goes out, and how much of it at once.
    fn uplink_limits(&mut self, mqtt: &file::Mqtt) -> Limits {
        let mut limits = Limits::default();
        if let Some(rate) = &mqtt.backlog_per_second {
            match u16::try_from(*rate.get_ref()).ok().filter(|rate| *rate <= MAX_BACKLOG_PER_SECOND) {
                Some(rate) => limits.backlog_a_second = rate,
                None => {
                    self.problem(rate, format!("is 0 (as fast as the broker takes them) to {MAX_BACKLOG_PER_SECOND}"));
                }
            }
        }
        if let Some(bundle) = &mqtt.backlog_bundle {
            match usize::try_from(*bundle.get_ref()).ok().filter(|bundle| (1..=MAX_BUNDLE).contains(bundle)) {
                Some(bundle) => limits.bundle = bundle,
                None => self.problem(bundle, format!("is 1 (each by itself) to {MAX_BUNDLE}")),
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Place;

    #[test]
    fn home_assistant_is_told_only_if_it_is_switched_on_and_under_a_topic() {
        let parsed = |rest: &str| {
            let text = format!("[mqtt]\nbroker = \"mqtt://b\"\n{rest}\n");
            let config = Config::parse(&text, Path::new("."), &Place::default());
            config.map(|config| config.broker.unwrap().home_assistant).map_err(|problems| problems.to_string())
        };
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("home_assistant = true"), Ok(Some("homeassistant".to_owned())));
        assert_eq!(parsed("home_assistant = true\nhome_assistant_prefix = \"a/b\""), Ok(Some("a/b".to_owned())));
        assert_eq!(parsed("home_assistant_prefix = \"ha\""), Ok(None));
        for bad in ["", "/a", "a//b", "a/#", "a b", "$SYS"] {
            let problems = parsed(&format!("home_assistant = true\nhome_assistant_prefix = \"{bad}\"")).unwrap_err();
            assert!(problems.starts_with("line 4: is a topic of at most 64"), "{bad}: {problems}");
        }
    }

    #[test]
    fn the_pace_and_the_bundles_of_the_backlog_have_bounds() {
        let parsed = |rest: &str| {
            let text = format!("[mqtt]\nbroker = \"mqtt://b\"\n{rest}\n");
            Config::parse(&text, Path::new("."), &Place::default()).map_err(|problems| problems.to_string())
        };
        let limits = |rest: &str| {
            let limits = parsed(rest).unwrap().broker.unwrap().limits;
            (limits.backlog_a_second, limits.bundle)
        };
        assert_eq!(limits(""), (20, 50));
        assert_eq!(limits("backlog_per_second = 0\nbacklog_bundle = 1"), (0, 1));
        let problems = parsed("backlog_per_second = 1001\nbacklog_bundle = 0").unwrap_err();
        assert!(problems.contains("0 (as fast as the broker takes them) to 1000"), "{problems}");
        assert!(problems.contains("1 (each by itself) to 500"), "{problems}");
    }
}
