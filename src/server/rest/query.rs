//! Reads the parameters of a request: each by its own type, with the parameter and the problem in the refusal.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use crate::clock::Wall;
use crate::ids::{Epoch, Seq};
use crate::vitals::Metric;

/// A parameter that cannot be read. What was sent is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum BadQuery {
    /// One has a wrong value.
    #[error("`{name}` {problem}")]
    Value {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There is one that this address does not take.
    #[error("this address takes no {}", if takes.is_empty() { "parameters".to_owned() } else { format!("other parameters than {takes}") })]
    Unknown {
        /// What it takes.
        takes: String,
    },
    /// One stands there twice.
    #[error("a parameter stands there twice; join several metrics by commas")]
    Twice,
    /// The query is no query.
    #[error("the query cannot be read; it is `name=value` joined by `&`, percent-encoded")]
    Form,
}

impl BadQuery {
    /// A wrong value.
    pub(in crate::server) fn value(name: &'static str, problem: impl Into<String>) -> Self {
        Self::Value { name, problem: problem.into() }
    }
}

/// The parameters of a request that were not read yet.
#[derive(Debug)]
pub(in crate::server) struct Given {
    values: BTreeMap<String, String>,
}

impl Given {
    /// The parameters of this address, all of them among `takes`.
    pub(in crate::server) fn of(uri: &Uri, takes: &[&str]) -> Result<Self, BadQuery> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| BadQuery::Form)?;
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            if !takes.contains(&name.as_str()) {
                let takes: Vec<String> = takes.iter().map(|name| format!("`{name}`")).collect();
                return Err(BadQuery::Unknown { takes: takes.join(", ") });
            }
            if values.insert(name, value).is_some() {
                return Err(BadQuery::Twice);
            }
        }
        Ok(Self { values })
    }

    /// A parameter as text.
    pub(in crate::server) fn text(&mut self, name: &'static str) -> Option<String> {
        self.values.remove(name)
    }

    /// A parameter of a type that reads itself; `is` says what it has to be.
    pub(in crate::server) fn parsed<T: FromStr>(
        &mut self,
        name: &'static str,
        is: &str,
    ) -> Result<Option<T>, BadQuery> {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| BadQuery::value(name, format!("is not {is}")))
    }

    /// A time.
    pub(in crate::server) fn time(&mut self, name: &'static str) -> Result<Option<Wall>, BadQuery> {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        let problem = "is not a time as RFC 3339 has it, such as 2026-11-20T22:00:00Z";
        rfc_3339(&text).map(Some).ok_or_else(|| BadQuery::value(name, problem))
    }

    /// A number from 1 to `most`.
    pub(in crate::server) fn number(&mut self, name: &'static str, most: usize) -> Result<Option<usize>, BadQuery> {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(BadQuery::value(name, format!("is not a number from 1 to {most}"))),
        }
    }

    /// Metrics, joined by commas.
    pub(in crate::server) fn metrics(&mut self, name: &'static str) -> Result<Option<Vec<Metric>>, BadQuery> {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        let metrics: Option<Vec<Metric>> = text.split(',').map(Metric::from_name).collect();
        metrics.map(Some).ok_or_else(|| BadQuery::value(name, "names no metric, or several without commas between"))
    }

    /// The `next` of the page before, where that is `epoch:seq`.
    pub(in crate::server) fn cursor(&mut self, name: &'static str) -> Result<Option<(Epoch, Seq)>, BadQuery> {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        let (epoch, seq) = text.rsplit_once(':').unwrap_or_default();
        match (epoch.parse(), seq.parse()) {
            (Ok(epoch), Ok(seq)) => Ok(Some((epoch, Seq(seq)))),
            _ => Err(BadQuery::value(name, "is not the `next` of a page before")),
        }
    }

    /// A span of time such as `30s`, `5m`, `1h` or `1d`, in ms.
    pub(in crate::server) fn span(&mut self, name: &'static str) -> Result<Option<i64>, BadQuery> {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        span_ms(&text)
            .map(Some)
            .ok_or_else(|| BadQuery::value(name, "is not a span such as 30s, 5m, 1h or 1d, up to 31d"))
    }
}

/// From 1 s to 31 days.
fn span_ms(text: &str) -> Option<i64> {
    const LONGEST: i64 = 31 * 86_400_000;
    let unit = match text.as_bytes().last()? {
        b's' => 1000,
        b'm' => 60_000,
        b'h' => 3_600_000,
        b'd' => 86_400_000,
        _ => return None,
    };
    let number = text.get(..text.len() - 1)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|ms| (1000..=LONGEST).contains(ms))
}

/// A time with its offset (RFC 3339, 5.6). A `+` that came as a space is understood, because queries do that to it.
fn rfc_3339(text: &str) -> Option<Wall> {
    let text = text.to_ascii_uppercase();
    if let Some(utc) = Wall::parse(&text) {
        return Some(utc);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, offset) = offset.split_at_checked(1)?;
    let sign = match sign {
        "+" | " " => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str, below: i64| {
        let fits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| fits && *number < below)
    };
    let ahead = sign * (number(hours, 24)? * 60 + number(minutes, 60)?) * 60_000;
    Some(Wall(Wall::parse(&format!("{local}Z"))?.0 - ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_offset_and_nothing_else_is() {
        for (text, expected) in [
            ("2026-11-20T22:00:00Z", Some("2026-11-20T22:00:00.000Z")),
            ("2026-11-20t22:00:00.25z", Some("2026-11-20T22:00:00.250Z")),
            ("2026-11-20T22:00:00+02:00", Some("2026-11-20T20:00:00.000Z")),
            ("2026-11-20T22:00:00 02:00", Some("2026-11-20T20:00:00.000Z")),
            ("2026-11-20T22:00:00-00:30", Some("2026-11-20T22:30:00.000Z")),
            ("2026-11-20T22:00:00", None),
            ("2026-11-20", None),
            ("2026-02-30T00:00:00Z", None),
            ("2026-11-20T22:00:00+24:00", None),
            ("2026-11-20T22:00:00+2:000", None),
            ("1763676000", None),
            ("", None),
            ("\u{e4}+02:00", None),
        ] {
            assert_eq!(rfc_3339(text).map(|wall| wall.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_span_has_a_number_and_a_unit_and_is_bounded() {
        for (text, expected) in [
            ("1s", Some(1000)),
            ("90m", Some(5_400_000)),
            ("31d", Some(2_678_400_000)),
            ("32d", None),
            ("0s", None),
            ("-1s", None),
            ("1", None),
            ("s", None),
            ("", None),
            ("99999999999999999999d", None),
            ("1\u{e4}", None),
        ] {
            assert_eq!(span_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_parameter_and_never_repeats_the_value() {
        let uri: Uri = "/x?from=evil&limit=0&metric=spo2,evil&cursor=evil&every=evil".parse().unwrap();
        let takes = ["from", "limit", "metric", "cursor", "every"];
        let mut given = Given::of(&uri, &takes).unwrap();
        let refusals = [
            given.time("from").unwrap_err(),
            given.number("limit", 10).unwrap_err(),
            given.metrics("metric").unwrap_err(),
            given.cursor("cursor").unwrap_err(),
            given.span("every").unwrap_err(),
        ];
        for (name, refusal) in takes.iter().zip(&refusals) {
            let text = refusal.to_string();
            assert!(text.starts_with(&format!("`{name}` ")) && !text.contains("evil"), "{text}");
        }
        let uri: Uri = "/x?evil=1".parse().unwrap();
        assert_eq!(
            Given::of(&uri, &["a", "b"]).unwrap_err().to_string(),
            "this address takes no other parameters than `a`, `b`"
        );
        let uri: Uri = "/x?a=1&a=2".parse().unwrap();
        assert_eq!(Given::of(&uri, &["a", "b"]).unwrap_err(), BadQuery::Twice);
    }
}
