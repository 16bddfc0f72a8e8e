//! `[server.tls]`, `[server.limits]` and `server.close_codes`: TLS, the limits of connections, and how they are closed.

use std::time::Duration;

use toml::Spanned;

use super::Config;
use super::build::Builder;
use super::file::{Server, ServerLimits};
use crate::clock::Clock;
use crate::hub::MAX_LISTENERS;
use crate::server::bounds::CloseCodes;
use crate::server::rate::Allowance;
use crate::server::tls::{self, Clients, Identity, Part, TlsConfig};

/// Most connections that can be configured, those of admins aside: each may listen.
const MOST_CONNECTIONS: u64 = 1900;

const _: () = assert!(MOST_CONNECTIONS + 64 <= 2048 && MAX_LISTENERS == 2048);

/// A day, in ms.
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Builder<'_> {
    pub(super) fn server_limits(&mut self, limits: &ServerLimits, config: &mut Config) {
        let ours = &mut config.server.limits;
        let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        for (name, member, bounds, place) in [
            ("connections", &limits.connections, 1..=MOST_CONNECTIONS, &mut ours.connections),
            ("admin_connections", &limits.admin_connections, 0..=64, &mut ours.admin_connections),
            ("per_user", &limits.per_user, 1..=MOST_CONNECTIONS, &mut ours.per_user),
            ("per_address", &limits.per_address, 1..=MOST_CONNECTIONS, &mut ours.per_address),
            (
                "unauthenticated_per_address",
                &limits.unauthenticated_per_address,
                1..=MOST_CONNECTIONS,
                &mut ours.unauthenticated_per_address,
            ),
            // A token has up to 4 KiB, and has to fit.
            ("first_message_bytes", &limits.first_message_bytes, 8192..=1024 * 1024, &mut ours.first_message_bytes),
            ("message_bytes", &limits.message_bytes, 8192..=16 * 1024 * 1024, &mut ours.message_bytes),
            ("fragments", &limits.fragments, 1..=65_536, &mut ours.fragments),
            // Messages of this protocol are up to six deep; deeper than 127 the reader of JSON itself refuses.
            ("json_depth", &limits.json_depth, 8..=127, &mut ours.json_depth),
        ] {
            if let Some(value) = self.within(name, member.as_ref(), bounds) {
                *place = count(value);
            }
        }
        for (name, member, bounds, place) in [
            ("handshake_ms", &limits.handshake_ms, 500..=60_000, &mut ours.handshake),
            ("auth_ms", &limits.auth_ms, 500..=60_000, &mut ours.auth),
            ("idle_ms", &limits.idle_ms, 10_000..=DAY_MS, &mut ours.idle),
            ("idle_subscribed_ms", &limits.idle_subscribed_ms, 60_000..=7 * DAY_MS, &mut ours.idle_subscribed),
        ] {
            if let Some(value) = self.within(name, member.as_ref(), bounds) {
                *place = Duration::from_millis(value);
            }
        }
        let (minute, second) = (Duration::from_mins(1), Duration::from_secs(1));
        let mut allowance = |names: [&str; 2], members: [&Option<Spanned<u64>>; 2], span, now: Allowance| {
            let [per, burst] = names;
            let [of_span, at_once] = members;
            let number = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
            let per = number(self.within(per, of_span.as_ref(), 1..=1_000_000)).unwrap_or(now.per(span));
            let burst = number(self.within(burst, at_once.as_ref(), 1..=1_000_000)).unwrap_or(now.burst());
            Allowance::new(per, span, burst)
        };
        ours.messages = allowance(
            ["messages_per_minute", "message_burst"],
            [&limits.messages_per_minute, &limits.message_burst],
            minute,
            ours.messages,
        );
        ours.reads = allowance(
            ["reads_per_minute", "read_burst"],
            [&limits.reads_per_minute, &limits.read_burst],
            minute,
            ours.reads,
        );
        ours.small_talk = allowance(
            ["small_talk_per_second", "small_talk_burst"],
            [&limits.small_talk_per_second, &limits.small_talk_burst],
            second,
            ours.small_talk,
        );
        if ours.first_message_bytes > ours.message_bytes
            && let Some(place) = limits.first_message_bytes.as_ref().or(limits.message_bytes.as_ref())
        {
            self.problem(place, "first_message_bytes is more than message_bytes: no message may be larger than that");
        }
    }

    pub(super) fn close_codes(&mut self, server: &Server, config: &mut Config) {
        let Some(place) = &server.close_codes else { return };
        match CloseCodes::from_name(place.get_ref()) {
            Some(codes) => config.server.close_codes = codes,
            None => self.problem(place, format!("close_codes is `{}`; it can be own or standard", place.get_ref())),
        }
    }

    pub(super) fn tls(&mut self, server: &Server, config: &mut Config) {
        if let Some(section) = &server.tls {
            config.server.tls = self.tls_section(section, config);
        }
        // What is wrong with the section itself has been said.
        if let (Some(listen), None) = (&server.listen, &server.tls)
            && let Some(warning) = config.server.in_clear(config.server.listen)
        {
            config.warnings.add(self.text, &listen.span(), warning);
        }
    }

    fn tls_section(&mut self, section: &Spanned<super::file::Tls>, config: &mut Config) -> Option<TlsConfig> {
        let tls = section.get_ref();
        let identity = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => {
                Identity::Files { certificate: self.path(certificate.get_ref()), key: self.path(key.get_ref()) }
            }
            (None, None) => Identity::SelfSigned { names: config.server.hosts.names.clone() },
            (Some(place), None) => {
                self.problem(place, "certificate needs `key`, the file with its private key");
                return None;
            }
            (None, Some(place)) => {
                self.problem(place, "key needs `certificate`, the file with the certificate that it belongs to");
                return None;
            }
        };
        let required = match &tls.client_certificates {
            None => true,
            Some(place) => {
                if tls.client_ca.is_none() {
                    self.problem(place, "client_certificates needs `client_ca`, the authorities that sign them");
                }
                match place.get_ref().as_str() {
                    "required" => true,
                    "optional" => false,
                    other => {
                        let message = format!("client_certificates is `{other}`; it can be required or optional");
                        self.problem(place, message);
                        true
                    }
                }
            }
        };
        let authorities = tls.client_ca.as_ref().map(|place| self.path(place.get_ref()));
        let clients = authorities.map(|authorities| Clients { authorities, required });
        let ours = TlsConfig { identity, clients };
        let (problems, warnings) = tls::check(&ours, Clock::System.now().wall);
        let place = |part: Part| match part {
            Part::Certificate => tls.certificate.as_ref(),
            Part::Key => tls.key.as_ref(),
            Part::Authorities => tls.client_ca.as_ref(),
        };
        for (found, is_problem) in problems.iter().map(|one| (one, true)).chain(warnings.iter().map(|one| (one, false)))
        {
            match (place(found.part), is_problem) {
                (Some(file), true) => self.file_problem(file, found.to_string()),
                (None, true) => self.problem(section, found.to_string()),
                (file, false) => {
                    let span = file.map_or_else(|| section.span(), Spanned::span);
                    config.warnings.add(self.text, &span, found.to_string());
                }
            }
        }
        Some(ours)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Wall;
    use crate::config::Place;
    use crate::document::Problems;

    /// Problems as text.
    fn lines(problems: &Problems) -> Vec<String> {
        problems.as_slice().iter().map(|problem| format!("{}: {}", problem.line, problem.message)).collect()
    }

    fn problems(text: &str, folder: &Path) -> Vec<String> {
        lines(&Config::parse(text, folder, &Place::default()).unwrap_err())
    }

    fn parsed(text: &str, folder: &Path) -> Config {
        Config::parse(text, folder, &Place::default()).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn limits_are_what_the_file_says_and_each_has_its_bounds() {
        let text = "[server.limits]\nconnections = 200\nper_user = 50\nhandshake_ms = 2500\nmessages_per_minute = 600\n\
                    message_burst = 7\nidle_subscribed_ms = 60000\njson_depth = 32";
        let limits = parsed(text, Path::new(".")).server.limits;
        let named: std::collections::BTreeMap<_, _> = limits.named().into_iter().collect();
        let expected = [
            ("connections", 200),
            ("per_user", 50),
            ("handshake_ms", 2500),
            ("messages_per_minute", 600),
            ("message_burst", 7),
            ("idle_subscribed_ms", 60_000),
            ("json_depth", 32),
            ("per_address", 64),
        ];
        for (name, value) in expected {
            assert_eq!(named[name], value, "{name}");
        }
        // Each has its bounds, and none is forgotten.
        for (name, _) in limits.named() {
            let found = problems(&format!("[server.limits]\n{name} = 999999999999"), Path::new("."));
            assert!(
                found.len() == 1 && found[0].starts_with(&format!("2: {name} is 999999999999; it can be")),
                "{found:?}"
            );
        }
        let text = "[server.limits]\nfirst_message_bytes = 100000\nunknown = 1";
        assert!(problems(text, Path::new(".")).concat().contains("`unknown`"), "an unknown limit is an error");
        let found = problems("[server.limits]\nfirst_message_bytes = 100000", Path::new("."));
        assert_eq!(found, ["2: first_message_bytes is more than message_bytes: no message may be larger than that"]);
    }

    #[test]
    fn close_codes_are_ours_or_the_standard_ones() {
        assert_eq!(parsed("", Path::new(".")).server.close_codes, CloseCodes::Own);
        let standard = parsed("[server]\nclose_codes = \"standard\"", Path::new("."));
        assert_eq!(standard.server.close_codes, CloseCodes::Standard);
        let found = problems("[server]\nclose_codes = \"rfc\"", Path::new("."));
        assert_eq!(found, ["2: close_codes is `rfc`; it can be own or standard"]);
    }

    #[test]
    fn every_problem_of_tls_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let made = TlsConfig { identity: Identity::SelfSigned { names: Vec::new() }, clients: None };
        tls::load(&made, dir.path(), Wall(1_790_000_000_000)).unwrap();
        let good = "certificate = \"tls-certificate.pem\"\nkey = \"tls-key.pem\"";
        let config = parsed(&format!("[server.tls]\n{good}\nclient_ca = \"tls-certificate.pem\""), dir.path());
        assert!(matches!(config.server.tls, Some(TlsConfig { clients: Some(Clients { required: true, .. }), .. })));
        assert_eq!(config.server.scheme(), "https");
        for (text, expected) in [
            ("certificate = \"a.pem\"", "2: certificate needs `key`"),
            ("key = \"a.pem\"", "2: key needs `certificate`"),
            ("client_certificates = \"optional\"", "2: client_certificates needs `client_ca`"),
            ("certificate = \"a.pem\"\nkey = \"tls-key.pem\"", "2: cannot read"),
            ("certificate = \"tls-certificate.pem\"\nkey = \"tls-certificate.pem\"", "3: "),
            ("client_ca = \"tls-key.pem\"", "2: "),
            (
                "client_ca = \"tls-certificate.pem\"\nclient_certificates = \"maybe\"",
                "3: client_certificates is `maybe`",
            ),
        ] {
            let found = problems(&format!("[server.tls]\n{text}"), dir.path());
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn an_address_that_others_reach_without_tls_is_a_warning() {
        let warnings = |text: &str| lines(&parsed(text, Path::new(".")).warnings);
        assert_eq!(warnings("[server]\nlisten = \"127.0.0.1:8080\""), Vec::<String>::new());
        let open = warnings("[server]\nlisten = \"0.0.0.0:8080\"");
        assert!(open.len() == 1 && open[0].starts_with("2: 0.0.0.0:8080 can be reached"), "{open:?}");
        assert_eq!(warnings("[server]\nlisten = \"0.0.0.0:8080\"\n[server.tls]"), Vec::<String>::new());
    }
}
