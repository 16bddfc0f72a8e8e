//! Takes out of texts what is nobody else's business: patients, secrets, tokens. Pure.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value as Json};

/// What stands where something was taken out.
pub(super) const HIDDEN: &str = "[hidden]";

/// A shorter word is a part of many others: it is replaced where it stands by itself.
const SHORTEST_PART: usize = 5;

/// A number of so few digits, or a lone letter, stands for anything: it is hidden in the fields and members that name a patient.
const SHORTEST_WORD: usize = 3;

/// Fields of a line of the log that say who: patients, also those that have left the configuration, and people.
const WHO: &str = r#"\b(patient|bed|ward|user|users|user_id|by|whose|sub)=("(?:[^"\\]|\\.)*"|\S+)"#;

/// What looks like a token (RFC 7519) or a key, wherever it stands.
const TOKENS: &str = r"eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}|(?i:bearer)\s+\S+|SharedAccessSignature\s+\S+|-----BEGIN[\s\S]*?-----END[^-]*-----";

/// User and password in an address.
const USERINFO: &str = r"://[^/\s@]+@";

/// Words of members whose values are never shown.
const SECRET_WORDS: [&str; 5] = ["pass", "secret", "token", "credential", "username"];

/// Members that say who or why: of patients, and of people who decided.
const PRIVATE: [&str; 6] = ["name", "bed", "ward", "reason", "by", "user"];

/// Replaces what is known to be private, and what looks like it.
#[derive(Debug)]
pub(super) struct Redactor {
    /// Longest first, so that no part of one is left.
    words: Vec<(String, String)>,
    /// Patients' identifiers and what stands for each.
    patients: Vec<(String, String)>,
    patterns: Vec<(Regex, &'static str)>,
    who: Regex,
}

impl Redactor {
    /// `patients`: the identifier and the other texts of each; `secrets`: texts of secret files.
    pub(super) fn new<'t>(
        patients: impl IntoIterator<Item = (&'t str, Vec<&'t str>)>,
        secrets: impl IntoIterator<Item = String>,
    ) -> Result<Self, regex::Error> {
        let mut words = BTreeSet::new();
        let mut numbered = Vec::new();
        for (place, (id, others)) in patients.into_iter().enumerate() {
            let stand_in = format!("patient-{}", place.saturating_add(1));
            words.extend(others.into_iter().map(|other| (other.to_owned(), HIDDEN.to_owned())));
            words.insert((id.to_owned(), stand_in.clone()));
            numbered.push((id.to_owned(), stand_in));
        }
        for secret in secrets {
            // Of a key in several lines each is one.
            words.extend(secret.lines().map(|line| (line.trim().to_owned(), HIDDEN.to_owned())));
        }
        let is_telling = |word: &str| {
            let letters = word.chars().filter(|c| c.is_alphabetic()).count();
            word.chars().count() >= SHORTEST_WORD || (letters > 0 && word.chars().count() > 1)
        };
        let mut words: Vec<_> = words.into_iter().filter(|(word, _)| is_telling(word)).collect();
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        let patterns = vec![(Regex::new(TOKENS)?, HIDDEN), (Regex::new(USERINFO)?, "://[hidden]@")];
        Ok(Self { words, patients: numbered, patterns, who: Regex::new(WHO)? })
    }

    /// Lines of a log without what is private, and without anybody's name: also of patients that nobody knows any more.
    pub(super) fn log(&self, text: &str) -> String {
        let known = |value: &str| {
            let value = value.trim_matches('"');
            let patient = self.patients.iter().find(|(id, _)| id == value);
            patient.map_or(HIDDEN, |(_, stand_in)| stand_in.as_str()).to_owned()
        };
        let named = self.who.replace_all(text, |found: &regex::Captures<'_>| {
            let part = |place| found.get(place).map_or("", |part| part.as_str());
            format!("{}={}", part(1), known(part(2)))
        });
        self.text(&named)
    }

    /// A text without what is private.
    pub(super) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, stand_in) in &self.patterns {
            text = pattern.replace_all(&text, *stand_in).into_owned();
        }
        for (word, stand_in) in &self.words {
            if text.contains(word.as_str()) {
                text = replaced(&text, word, stand_in);
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
                // The number of a patient stands in its table under `id`, as that of a source does in another; `users` of a sensor
                // that several share are patients by the sensor's own numbers.
                let is_patient = |member: &str| (name == "patient" && member == "id") || name == "users";
                let of_patient = |member: &str| String::from(if is_patient(member) { "patient" } else { member });
                let members =
                    members.iter().map(|(member, value)| (member.clone(), self.value(&of_patient(member), value)));
                Json::Object(members.collect::<Map<_, _>>())
            }
            Json::Array(all) if name == "command" => {
                // The program is shown; its arguments may be anything.
                let shown = |(place, one): (usize, &Json)| if place == 0 { self.value("", one) } else { HIDDEN.into() };
                all.iter().enumerate().map(shown).collect()
            }
            Json::Array(all) => all.iter().map(|one| self.value(name, one)).collect(),
            Json::String(_) | Json::Number(_) if is_secret || PRIVATE.contains(&name) => HIDDEN.into(),
            Json::String(_) if name == "users" => HIDDEN.into(),
            // Whatever its length; one that nobody knows is hidden.
            Json::String(id) if name == "patient" || name == "patients" => self
                .patients
                .iter()
                .find(|(known, _)| known == id)
                .map_or(HIDDEN, |(_, stand_in)| stand_in.as_str())
                .into(),
            Json::String(text) => self.text(host_of(text)).into(),
            other => other.clone(),
        }
    }
}

/// A short word is replaced where no letter and no digit goes on with it.
fn replaced(text: &str, word: &str, stand_in: &str) -> String {
    if word.chars().count() >= SHORTEST_PART {
        return text.replace(word, stand_in);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some((ahead, behind)) = rest.split_once(word) {
        out.push_str(ahead);
        let left = ahead.chars().next_back().or(before);
        let goes_on = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        out.push_str(if goes_on(left) || goes_on(behind.chars().next()) { word } else { stand_in });
        before = word.chars().next_back();
        rest = behind;
    }
    out.push_str(rest);
    out
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
        let patients =
            [("P-0001", vec!["Erika Mustermann", "bed 7"]), ("P-0002", vec!["Jo"]), ("P1", vec!["7"]), ("9", vec![])];
        Redactor::new(patients, ["hunter2hunter2\nsecond line".to_owned()]).unwrap()
    }

    #[test]
    fn patients_and_secrets_are_taken_out_of_a_text_wherever_they_stand() {
        for (text, expected) in [
            ("alert of P-0001 (Erika Mustermann) in bed 7", "alert of patient-1 ([hidden]) in [hidden]"),
            ("P-0002 and P-0003", "patient-2 and P-0003"),
            // Short ones by themselves alone.
            ("Jo: Johanna, BanJo, Jo", "[hidden]: Johanna, BanJo, [hidden]"),
            ("JoJo Jo", "JoJo [hidden]"),
            ("P1 has P12 in hub/P1/hr", "patient-3 has P12 in hub/patient-3/hr"),
            ("bed 7 of 7", "[hidden] of 7"),
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
    fn a_line_of_the_log_names_nobody_also_none_who_has_left() {
        for (line, expected) in [
            ("signed in user=lena role=nurse", "signed in user=[hidden] role=nurse"),
            (r#"acknowledged by="Dr. \"A\" Winter" alert=a1"#, "acknowledged by=[hidden] alert=a1"),
            ("refused patient=P-0001 mode=live", "refused patient=patient-1 mode=live"),
            ("refused patient=P-9999 mode=live", "refused patient=[hidden] mode=live"),
            ("refused patient=9 after 9 s", "refused patient=patient-4 after 9 s"),
            (r#"revoked whose="every token of lena""#, "revoked whose=[hidden]"),
            ("error=\"disk I/O error\" seq=7", "error=\"disk I/O error\" seq=7"),
        ] {
            assert_eq!(redactor().log(line), expected);
        }
    }

    #[test]
    fn a_number_of_a_patient_is_replaced_in_the_configuration_whatever_its_length() {
        let config = json!({
            "patient": [{"id": "9", "ward": "palliative-west"}, {"id": "P1", "name": "Jo"}],
            "source": [{"id": "9", "patient": "9"}, {"id": "P-s", "patient": "gone", "users": {"1": "P1", "2": "9"}}],
            "auth": {"trust": [{"patients": ["P1", "P-0002"]}]},
        });
        let expected = json!({
            "patient": [{"id": "patient-4", "ward": HIDDEN}, {"id": "patient-3", "name": HIDDEN}],
            "source": [{"id": "9", "patient": "patient-4"}, {"id": "P-s", "patient": HIDDEN, "users": {"1": "patient-3", "2": "patient-4"}}],
            "auth": {"trust": [{"patients": ["patient-3", "patient-2"]}]},
        });
        assert_eq!(redactor().configuration(&config), expected);
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
