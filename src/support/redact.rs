//! Takes out of texts what is nobody else's business: patients, secrets, tokens. Pure.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value as Json};

/// What stands where something was taken out.
pub(super) const HIDDEN: &str = "[hidden]";

/// A shorter word is a part of many others.
const SHORTEST: usize = 3;

/// What looks like a token (RFC 7519) or a key, wherever it stands.
const TOKENS: &str = r"eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}|(?i:bearer)\s+\S+|SharedAccessSignature\s+\S+|-----BEGIN[\s\S]*?-----END[^-]*-----";

/// User and password in an address.
const USERINFO: &str = r"://[^/\s@]+@";

/// Words of members whose values are never shown.
const SECRET_WORDS: [&str; 5] = ["pass", "secret", "token", "credential", "username"];

/// Members that say who or why: of patients, and of people who decided.
const PRIVATE: [&str; 5] = ["name", "bed", "reason", "by", "user"];

/// Replaces what is known to be private, and what looks like it.
#[derive(Debug)]
pub(super) struct Redactor {
    /// Longest first, so that no part of one is left.
    words: Vec<(String, String)>,
    patterns: Vec<(Regex, &'static str)>,
}

impl Redactor {
    /// `patients`: the identifier and the other texts of each; `secrets`: texts of secret files.
    pub(super) fn new<'t>(
        patients: impl IntoIterator<Item = (&'t str, Vec<&'t str>)>,
        secrets: impl IntoIterator<Item = String>,
    ) -> Result<Self, regex::Error> {
        let mut words = BTreeSet::new();
        for (place, (id, others)) in patients.into_iter().enumerate() {
            let stand_in = format!("patient-{}", place.saturating_add(1));
            words.extend(others.into_iter().map(|other| (other.to_owned(), HIDDEN.to_owned())));
            words.insert((id.to_owned(), stand_in));
        }
        for secret in secrets {
            // Of a key in several lines each is one.
            words.extend(secret.lines().map(|line| (line.trim().to_owned(), HIDDEN.to_owned())));
        }
        let mut words: Vec<_> = words.into_iter().filter(|(word, _)| word.chars().count() >= SHORTEST).collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        let patterns = vec![(Regex::new(TOKENS)?, HIDDEN), (Regex::new(USERINFO)?, "://[hidden]@")];
        Ok(Self { words, patterns })
    }

    /// A text without what is private.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, stand_in) in &self.patterns {
            text = pattern.replace_all(&text, *stand_in).into_owned();
        }
        for (word, stand_in) in &self.words {
            if text.contains(word.as_str()) {
                text = text.replace(word.as_str(), stand_in);
            }
        }
        text
    }

    /// A configuration: members with secret or private names are hidden, and of addresses of the web the host is left.
    pub(super) fn configuration(&self, value: &Json) -> Json {
        self.value("", value)
    }

    fn value(&self, name: &str, value: &Json) -> Json {
        let is_path = name.ends_with("_file");
        let is_secret = !is_path && SECRET_WORDS.iter().any(|word| name.contains(word));
        match value {
            Json::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), self.value(name, value)));
                Json::Object(members.collect::<Map<_, _>>())
            }
            Json::Array(all) if name == "command" => {
                // The program is shown; its arguments may be anything.
                let shown = |(place, one): (usize, &Json)| if place == 0 { self.value("", one) } else { HIDDEN.into() };
                all.iter().enumerate().map(shown).collect()
            }
            Json::Array(all) => all.iter().map(|one| self.value(name, one)).collect(),
            Json::String(_) | Json::Number(_) if is_secret || PRIVATE.contains(&name) => HIDDEN.into(),
            Json::String(text) => self.text(host_of(text)).into(),
            other => other.clone(),
        }
    }
}

/// Of an address of the web, scheme and host: its path is often a secret.
fn host_of(text: &str) -> &str {
    let Some(start) = ["http://", "https://"].into_iter().find(|start| text.starts_with(start)) else { return text };
    let end =
        text.get(start.len()..).and_then(|rest| rest.find(['/', '?', '#'])).map(|at| at.saturating_add(start.len()));
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor() -> Redactor {
        let patients = [("P-0001", vec!["Erika Mustermann", "bed 7"]), ("P-0002", vec!["Jo"])];
        Redactor::new(patients, ["hunter2hunter2\nsecond line".to_owned()]).unwrap()
    }

    #[test]
    fn patients_and_secrets_are_taken_out_of_a_text_wherever_they_stand() {
        for (text, expected) in [
            ("alert of P-0001 (Erika Mustermann) in bed 7", "alert of patient-1 ([hidden]) in [hidden]"),
            ("P-0002 and P-0003", "patient-2 and P-0003"),
            ("the password hunter2hunter2 is wrong", "the password [hidden] is wrong"),
            ("a second line of it", "a [hidden] of it"),
            ("Authorization: Bearer abc.def", "Authorization: [hidden]"),
            ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln end", "token [hidden] end"),
            ("mqtt://me:hunter3@broker:1883", "mqtt://[hidden]@broker:1883"),
            ("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----", "[hidden]"),
            ("nothing to hide", "nothing to hide"),
        ] {
            assert_eq!(redactor().text(text), expected);
        }
    }

    #[test]
    fn a_configuration_keeps_what_helps_and_loses_what_is_private() {
        let config = json!({
            "mqtt": {"broker": "mqtts://b:8883", "username": "u", "password": "p", "password_file": "/etc/p", "version": 5},
            "patient": [{"id": "P-0001", "name": "Erika Mustermann", "bed": 7, "news2": {"spo2_scale": 2, "by": "Dr", "reason": "COPD"}}],
            "source": [{"id": "s1", "patient": "P-0001", "port": "/dev/ttyUSB0"}],
            "alerts": {"fallback": {"command": ["/usr/bin/curl", "https://x/t0ken"]}, "escalation": [{"to": ["https://hook.example/T0K/EN?x=1"]}]},
            "server": {"listen": "0.0.0.0:8080", "tls": {}},
        });
        let expected = json!({
            "mqtt": {"broker": "mqtts://b:8883", "username": HIDDEN, "password": HIDDEN, "password_file": "/etc/p", "version": 5},
            "patient": [{"id": "patient-1", "name": HIDDEN, "bed": HIDDEN, "news2": {"spo2_scale": 2, "by": HIDDEN, "reason": HIDDEN}}],
            "source": [{"id": "s1", "patient": "patient-1", "port": "/dev/ttyUSB0"}],
            "alerts": {"fallback": {"command": ["/usr/bin/curl", HIDDEN]}, "escalation": [{"to": ["https://hook.example"]}]},
            "server": {"listen": "0.0.0.0:8080", "tls": {}},
        });
        assert_eq!(redactor().configuration(&config), expected);
    }
}
