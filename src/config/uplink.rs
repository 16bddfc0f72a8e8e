//! `[mqtt]`: the way to the backend.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::build::Builder;
use super::{Broker, Config, file};
use crate::clock::Clock;
use crate::uplink::access::{Access, BrokerAddress, Password, TlsFiles, TlsPart, Version};
use crate::uplink::token::{Algorithm, TokenMaker};
use crate::uplink::{Limits, TopicTemplate};

/// How long a token holds that the bridge signs: what large brokers accept at most is 24 hours.
const DEFAULT_LIFE: Duration = Duration::from_hours(1);

/// See [`DEFAULT_LIFE`].
const LIVES: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24);

/// Most messages of the backlog a second; more is the same as no limit.
const MAX_BACKLOG_PER_SECOND: u16 = 1000;

/// Most readings in one message of the backlog: their bodies are then about as large as a packet may be.
const MAX_BUNDLE: usize = 500;

/// With less room than this without a broker an alert says so.
const BUFFER_LOW: Duration = Duration::from_hours(24);

/// See [`BUFFER_LOW`].
const MAX_BUFFER_LOW_HOURS: u64 = 24 * 366;

/// Where Home Assistant looks for descriptions unless it is told otherwise.
const HOME_ASSISTANT: &str = "homeassistant";

/// Longest prefix of these descriptions.
const MAX_PREFIX_BYTES: usize = 64;

impl Builder<'_> {
    pub(super) fn broker(&mut self, mqtt: &file::Mqtt, config: &mut Config) -> Option<Broker> {
        let address = self.parse(&mqtt.broker);
        let topic = match &mqtt.topic {
            Some(topic) => self.parse(topic),
            None => Some(TopicTemplate::default()),
        };
        let access = self.access(mqtt, address.as_ref());
        if let Some(warning) = address.as_ref().and_then(in_clear) {
            config.warnings.add(self.text, &mqtt.broker.span(), warning);
        }
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
        let buffer_low = self.buffer_low(mqtt);
        Some(Broker {
            address: address?,
            client_id,
            username,
            access: access?,
            topic: topic?,
            commands,
            limits,
            buffer_low,
            home_assistant,
        })
    }

    /// How the broker is reached. Every file is tried now, so that a mistake is told before the daemon runs.
    fn access(&mut self, mqtt: &file::Mqtt, address: Option<&BrokerAddress>) -> Option<Access> {
        let version = match &mqtt.version {
            None => Some(Version::Auto),
            Some(text) => {
                let known = Version::from_name(text.get_ref());
                if known.is_none() {
                    self.problem(
                        text,
                        format!("version is `{}`; it can be \"5\", \"3.1.1\" or \"auto\"", text.get_ref()),
                    );
                }
                known
            }
        };
        let password = match (&mqtt.password_file, &mqtt.jwt) {
            (Some(_), Some(jwt)) => {
                self.problem(jwt, "the password comes from `password_file` or from `jwt`, not from both");
                None
            }
            (Some(file), None) => {
                let password = Password::File(self.path(file.get_ref()));
                if let Err(reason) = password.get(Clock::System.now().wall) {
                    self.file_problem(file, reason);
                }
                Some(password)
            }
            (None, Some(jwt)) => Some(Password::Made(self.token_maker(jwt.get_ref())?)),
            (None, None) => None,
        };
        // What is wrong with the address has been said.
        let tls = address.map_or_else(|| Some(TlsFiles::default()), |address| self.broker_tls(mqtt, address));
        Some(Access { version: version?, tls: tls?, password, timesync: None })
    }

    fn token_maker(&mut self, jwt: &file::MqttJwt) -> Option<TokenMaker> {
        let name = jwt.algorithm.get_ref();
        let Some(algorithm) = Algorithm::from_name(name) else {
            self.problem(&jwt.algorithm, format!("algorithm is `{name}`; it can be ES256, RS256 or HS256"));
            return None;
        };
        let life = jwt.life.as_ref().map_or(DEFAULT_LIFE, |life| life.get_ref().0);
        if let Some(place) = jwt.life.as_ref().filter(|_| !LIVES.contains(&life)) {
            self.problem(place, "life is 1m to 24h");
        }
        let key_file = self.path(jwt.key_file.get_ref());
        let (audience, subject) = (jwt.aud.clone(), jwt.sub.clone());
        let maker = TokenMaker { key_file, algorithm, audience, subject, life };
        if let Err(reason) = Password::Made(maker.clone()).get(Clock::System.now().wall) {
            self.file_problem(&jwt.key_file, reason);
        }
        Some(maker)
    }

    fn broker_tls(&mut self, mqtt: &file::Mqtt, address: &BrokerAddress) -> Option<TlsFiles> {
        let Some(section) = &mqtt.tls else { return Some(TlsFiles::default()) };
        if !address.transport.is_encrypted() {
            self.problem(section, "[mqtt.tls] belongs to a broker at mqtts:// or wss://");
            return None;
        }
        let tls = section.get_ref();
        let identity = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => Some((self.path(certificate.get_ref()), self.path(key.get_ref()))),
            (None, None) => None,
            (Some(place), None) => {
                self.problem(place, "certificate needs `key`, the file with its private key");
                return None;
            }
            (None, Some(place)) => {
                self.problem(place, "key needs `certificate`, the file with the certificate that it belongs to");
                return None;
            }
        };
        let authorities = tls.ca_file.as_ref().map(|file| self.path(file.get_ref()));
        let server_name = tls.server_name.as_ref().map(|name| name.get_ref().clone());
        let files = TlsFiles { authorities, identity, server_name };
        let problems = [files.load().err(), files.name(address).err()];
        for problem in problems.into_iter().flatten() {
            let place = match problem.part {
                TlsPart::Authorities => tls.ca_file.as_ref(),
                TlsPart::Certificate => tls.certificate.as_ref(),
                TlsPart::Key => tls.key.as_ref(),
                TlsPart::ServerName => tls.server_name.as_ref(),
            };
            match place {
                Some(file) => self.file_problem(file, problem.to_string()),
                None => self.problem(section, problem.to_string()),
            }
        }
        Some(files)
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

    /// When an alert says that the room for what waits ends soon.
    fn buffer_low(&mut self, mqtt: &file::Mqtt) -> Option<Duration> {
        let Some(hours) = &mqtt.buffer_low_hours else { return Some(BUFFER_LOW) };
        if *hours.get_ref() > MAX_BUFFER_LOW_HOURS {
            let range = format!("0 (no alert) to {MAX_BUFFER_LOW_HOURS}");
            self.problem(hours, format!("buffer_low_hours is {}; it can be {range}", hours.get_ref()));
            return None;
        }
        let low = Duration::from_secs(hours.get_ref().saturating_mul(3600));
        (!low.is_zero()).then_some(low)
    }

    /// How fast what waited goes out, and how much of it at once.
    fn uplink_limits(&mut self, mqtt: &file::Mqtt) -> Limits {
        let mut limits = Limits::default();
        if let Some(rate) = &mqtt.backlog_per_second {
            let known = u16::try_from(*rate.get_ref()).ok().filter(|rate| *rate <= MAX_BACKLOG_PER_SECOND);
            if let Some(known) = known {
                limits.backlog_a_second = known;
            } else {
                let range = format!("0 (as fast as the broker takes them) to {MAX_BACKLOG_PER_SECOND}");
                self.problem(rate, format!("backlog_per_second is {}; it can be {range}", rate.get_ref()));
            }
        }
        if let Some(bundle) = &mqtt.backlog_bundle {
            match usize::try_from(*bundle.get_ref()).ok().filter(|bundle| (1..=MAX_BUNDLE).contains(bundle)) {
                Some(bundle) => limits.bundle = bundle,
                None => self.problem(
                    bundle,
                    format!("backlog_bundle is {}; it can be 1 (each by itself) to {MAX_BUNDLE}", bundle.get_ref()),
                ),
            }
        }
        limits
    }
}

/// What is said about a broker that is reached without TLS over a network.
fn in_clear(address: &BrokerAddress) -> Option<String> {
    let bare = address.host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    (!address.transport.is_encrypted() && !is_here).then(|| {
        "patients' data and the password go to this broker in clear: use mqtts:// or wss://, or a network that you trust"
            .to_owned()
    })
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
        let low = |rest: &str| parsed(rest).unwrap().broker.unwrap().buffer_low.map(|low| low.as_secs() / 3600);
        assert_eq!((low(""), low("buffer_low_hours = 0"), low("buffer_low_hours = 72")), (Some(24), None, Some(72)));
        let problems = parsed("buffer_low_hours = 8785").unwrap_err();
        assert!(problems.contains("buffer_low_hours is 8785; it can be 0"), "{problems}");
        let problems = parsed("backlog_per_second = 1001\nbacklog_bundle = 0").unwrap_err();
        assert!(problems.contains("backlog_per_second is 1001; it can be 0"), "{problems}");
        assert!(problems.contains("backlog_bundle is 0; it can be 1"), "{problems}");
    }

    fn access(folder: &Path, text: &str) -> Result<(Access, usize), String> {
        let config = Config::parse(&format!("[mqtt]\n{text}\n"), folder, &Place::default());
        let config = config.map_err(|problems| problems.to_string())?;
        Ok((config.broker.unwrap().access, config.warnings.as_slice().len()))
    }

    #[test]
    fn a_broker_is_reached_as_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let made = rcgen::generate_simple_self_signed(["b1".to_owned()]).unwrap();
        std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("password"), "hunter2\n").unwrap();
        let read = |text: &str| access(dir.path(), text);

        assert_eq!(read("broker = 'mqtt://localhost'"), Ok((Access::default(), 0)));
        assert_eq!(read("broker = 'mqtt://[::1]'").unwrap().1, 0);
        assert_eq!(read("broker = 'ws://broker'").unwrap().1, 1, "in clear over a network");
        let (whole, warnings) = read(
            "broker = 'wss://broker/mqtt'\nversion = '3.1.1'\npassword_file = 'password'\n\
             tls = { ca_file = 'cert.pem', certificate = 'cert.pem', key = 'key.pem', server_name = 'b1' }",
        )
        .unwrap();
        assert_eq!((whole.version, warnings), (Version::V311, 0));
        assert_eq!(whole.password, Some(Password::File(path("password"))));
        let identity = Some((path("cert.pem"), path("key.pem")));
        let tls = TlsFiles { authorities: Some(path("cert.pem")), identity, server_name: Some("b1".to_owned()) };
        assert_eq!(whole.tls, tls);
        let (made, _) = read(
            "broker = 'mqtts://b'\nusername = 'u'\n\
             jwt = { key_file = 'key.pem', algorithm = 'ES256', aud = 'p', life = '20m' }",
        )
        .unwrap();
        let maker = TokenMaker {
            key_file: path("key.pem"),
            algorithm: Algorithm::Es256,
            audience: Some("p".to_owned()),
            subject: None,
            life: Duration::from_mins(20),
        };
        assert_eq!(made.password, Some(Password::Made(maker)));
    }

    #[test]
    fn what_cannot_reach_a_broker_is_refused_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["b1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        for (text, words) in [
            ("broker = 'tcp://b'", "write mqtts://host"),
            ("broker = 'mqtt://b'\nversion = '4'", "it can be \"5\", \"3.1.1\" or \"auto\""),
            ("broker = 'mqtt://b'\npassword_file = 'none'", "cannot read"),
            ("broker = 'mqtt://b'\ntls = { ca_file = 'cert.pem' }", "belongs to a broker at mqtts:// or wss://"),
            ("broker = 'mqtts://b'\ntls = { insecure = true }", "unknown field"),
            ("broker = 'mqtts://b'\ntls = { ca_file = 'none' }", "cannot read"),
            ("broker = 'mqtts://b'\ntls = { certificate = 'cert.pem' }", "certificate needs `key`"),
            ("broker = 'mqtts://b'\ntls = { key = 'cert.pem' }", "key needs `certificate`"),
            (
                "broker = 'mqtts://b'\ntls = { ca_file = 'cert.pem', certificate = 'cert.pem', key = 'cert.pem' }",
                "no private key",
            ),
            (
                "broker = 'mqtts://b'\ntls = { ca_file = 'cert.pem', server_name = 'a b' }",
                "cannot stand in a certificate",
            ),
            ("broker = 'mqtts://b'\njwt = { key_file = 'cert.pem', algorithm = 'none' }", "ES256, RS256 or HS256"),
            ("broker = 'mqtts://b'\njwt = { key_file = 'cert.pem', algorithm = 'ES256' }", "no private key"),
            (
                "broker = 'mqtts://b'\njwt = { key_file = 'cert.pem', algorithm = 'HS256', life = '2s' }",
                "life is 1m to 24h",
            ),
            (
                "broker = 'mqtts://b'\npassword_file = 'cert.pem'\njwt = { key_file = 'cert.pem', algorithm = 'HS256' }",
                "not from both",
            ),
        ] {
            let problems = access(dir.path(), text).unwrap_err();
            assert!(problems.contains(words), "{text}: {problems}");
        }
    }
}
