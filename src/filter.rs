//! What a listener wants of the events on its channels, by their tags: metric, device, patient, ward, quality and so on.
//!
//! A tag narrows the events that have it and lets all others pass, so that no alarm is lost to a tag that it cannot have:
//! `quality` concerns readings, `priority` and `kind` alerts. Messages for people are never filtered: who gets them chooses
//! by preferences.
//!
//! `quality` keeps back the number of a reading and not the news that there is one: else the last number of the wanted
//! quality would stand on a display as if nothing had come since.

use serde_json::Value as Json;

use crate::command::BadMember;
use crate::event::{AlertKind, Event, EventBody, Priority};
use crate::named::named_enum;
use crate::vitals::{Metric, Mode, Quality};

/// Most values of one tag.
pub const MAX_FILTER_VALUES: usize = 64;

/// Longest value, in bytes: that of an identifier.
const MAX_VALUE_BYTES: usize = crate::ids::MAX_ID_BYTES;

named_enum! {
    /// What an event can be chosen by.
    Tag {
        /// Of readings, and of alerts about one.
        Metric = "metric",
        /// Of readings, records, states of devices, and alerts that a device caused.
        Device = "device_id",
        /// Of everything about a patient.
        Patient = "patient_id",
        /// Of everything about a patient whose ward is known.
        Ward = "ward",
        /// Of readings, records and states of devices.
        Source = "source_id",
        /// Of readings.
        Quality = "quality",
        /// Of alerts.
        Priority = "priority",
        /// Of alerts.
        Kind = "kind",
        /// Of everything that is real, demo or test.
        Mode = "mode",
    }
}

impl Tag {
    /// True if some event can have this value.
    fn can_be(self, value: &str) -> bool {
        match self {
            Self::Metric => Metric::from_name(value).is_some(),
            Self::Quality => Quality::from_name(value).is_some(),
            Self::Priority => Priority::from_name(value).is_some(),
            Self::Kind => AlertKind::from_name(value).is_some(),
            Self::Mode => Mode::from_name(value).is_some(),
            Self::Device | Self::Patient | Self::Ward | Self::Source => {
                !value.is_empty() && value.len() <= MAX_VALUE_BYTES
            }
        }
    }

    /// The value that an event has; `None`: none.
    fn of<'e>(self, event: &'e Event, routes: &'e [String]) -> Option<&'e str> {
        match (self, &event.body) {
            (Self::Patient, _) => event.patient().map(crate::ids::PatientId::as_str),
            // The ward is the second level of the routes through it.
            (Self::Ward, _) => routes.iter().find_map(|route| route.strip_prefix("ward/")?.split('/').next()),
            (Self::Metric, EventBody::Reading(reading)) => Some(reading.vital.metric().name()),
            (Self::Metric, EventBody::Alert(alert)) => alert.metric.map(Metric::name),
            (Self::Device, EventBody::Reading(reading)) => Some(reading.device.as_str()),
            (Self::Device, EventBody::Record(record)) => Some(record.device.as_str()),
            (Self::Device, EventBody::Source(source)) => Some(source.device.as_str()),
            (Self::Device, EventBody::Alert(alert)) => alert.device.as_ref().map(crate::ids::DeviceId::as_str),
            (Self::Source, EventBody::Reading(reading)) => Some(reading.source.as_str()),
            (Self::Source, EventBody::Record(record)) => Some(record.source.as_str()),
            (Self::Source, EventBody::Source(source)) => Some(source.source.as_str()),
            (Self::Quality, EventBody::Reading(reading)) => Some(reading.quality.name()),
            (Self::Priority, EventBody::Alert(alert)) => Some(alert.priority.name()),
            (Self::Kind, EventBody::Alert(alert)) => Some(alert.kind.name()),
            (Self::Mode, EventBody::Reading(reading)) => Some(reading.mode.name()),
            (Self::Mode, EventBody::Record(record)) => Some(record.mode.name()),
            (Self::Mode, EventBody::Source(source)) => Some(source.mode.name()),
            (Self::Mode, EventBody::Alert(alert)) => Some(alert.mode.name()),
            _ => None,
        }
    }
}

/// What of an event a listener gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Nothing.
    Nothing,
    /// That there is a reading, without its number.
    WithoutNumber,
    /// Everything.
    Whole,
}

/// Tags, each with the values of which an event has to have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    wanted: Vec<(Tag, Vec<String>)>,
}

impl Filter {
    /// Reads `{"metric": "spo2", "priority": ["medium", "high"]}`; `None` if nothing is to be filtered.
    ///
    /// # Errors
    /// It is no object, a tag is not known, or a value is none that the tag can have.
    pub fn read(json: &Json) -> Result<Option<Self>, BadMember> {
        const FORM: &str = "is an object of tags, each with a text or a list of 1 to 64 texts";
        const TAGS: &str = "has a tag that is not metric, device_id, patient_id, ward, source_id, quality, priority, \
             kind or mode";
        let tags = json.as_object().ok_or(BadMember::new("filter", FORM))?;
        let mut wanted = Vec::new();
        for (name, values) in tags {
            let tag = Tag::from_name(name).ok_or(BadMember::new("filter", TAGS))?;
            let list = match values {
                Json::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            if list.is_empty() || list.len() > MAX_FILTER_VALUES {
                return Err(BadMember::new("filter", FORM));
            }
            let texts = list.iter().map(Json::as_str).collect::<Option<Vec<_>>>();
            let texts = texts.ok_or(BadMember::new("filter", FORM))?;
            if !texts.iter().all(|text| tag.can_be(text)) {
                let problem = format!("has a value that no `{}` is", tag.name()).into();
                return Err(BadMember { member: "filter", problem });
            }
            wanted.push((tag, texts.into_iter().map(str::to_owned).collect()));
        }
        Ok((!wanted.is_empty()).then_some(Self { wanted }))
    }

    /// What is wanted of an event on these routes.
    pub fn share(&self, event: &Event, routes: &[String]) -> Share {
        if matches!(event.body, EventBody::Notification(_)) {
            return Share::Whole;
        }
        let mut share = Share::Whole;
        for (tag, values) in &self.wanted {
            if tag.of(event, routes).is_none_or(|value| values.iter().any(|wanted| wanted == value)) {
                continue;
            }
            if *tag != Tag::Quality {
                return Share::Nothing;
            }
            share = Share::WithoutNumber;
        }
        share
    }

    /// True if an event on these routes is wanted, as it is.
    pub fn passes(&self, event: &Event, routes: &[String]) -> bool {
        self.share(event, routes) == Share::Whole
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Stamp;
    use crate::event::{LinkState, SourceEvent, SystemEvent, SystemKind};
    use crate::ids::Seq;
    use crate::vitals::{Decimal, Reading, Taken, Value, Vital};

    fn event(body: EventBody) -> Event {
        Event { epoch: "e".parse().unwrap(), seq: Seq(1), at: Stamp::default(), body }
    }

    fn reading() -> Event {
        event(EventBody::Reading(Reading {
            patient: Some("P-1".parse().unwrap()),
            device: "d".parse().unwrap(),
            source: "s".parse().unwrap(),
            vital: Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(97))),
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Test,
            taken: Taken::on_arrival(Stamp::default()),
            received: Stamp::default(),
        }))
    }

    #[test]
    fn a_tag_narrows_what_has_it_and_lets_the_rest_pass() {
        let source = event(EventBody::Source(SourceEvent {
            source: "s".parse().unwrap(),
            device: "d".parse().unwrap(),
            patient: Some("P-1".parse().unwrap()),
            link: LinkState::Live,
            status: std::collections::BTreeSet::new(),
            reason: None,
            mode: Mode::Test,
        }));
        let message = String::new();
        let system =
            event(EventBody::System(SystemEvent { kind: SystemKind::Started, message, first: None, last: None }));
        for (filter, of_reading, of_source) in [
            (json!({"metric": "spo2"}), true, true),
            (json!({"metric": ["heart_rate", "temperature"]}), false, true),
            (json!({"metric": ["heart_rate", "spo2"], "quality": "valid"}), true, true),
            (json!({"metric": "spo2", "quality": "questionable"}), false, true),
            (json!({"quality": "questionable"}), false, true),
            (json!({"patient_id": "P-1"}), true, true),
            (json!({"patient_id": "P-2"}), false, false),
            (json!({"ward": "icu"}), true, true),
            (json!({"ward": "er"}), false, false),
            (json!({"device_id": "d", "source_id": "s", "mode": "test"}), true, true),
            (json!({"mode": "real"}), false, false),
            (json!({"priority": "high", "kind": "technical"}), true, true),
        ] {
            let filter_ = Filter::read(&filter).unwrap().unwrap();
            let routes = vec!["patient/P-1/spo2".to_owned(), "ward/icu/patient/P-1/spo2".to_owned()];
            let found = (filter_.passes(&reading(), &routes), filter_.passes(&source, &routes));
            assert_eq!(found, (of_reading, of_source), "{filter}");
            // A quality that is not wanted keeps back the number alone, and only where nothing else keeps it all back.
            let quality = filter["quality"] == "questionable";
            let share = if of_reading {
                Share::Whole
            } else if quality {
                Share::WithoutNumber
            } else {
                Share::Nothing
            };
            assert_eq!(filter_.share(&reading(), &routes), share, "{filter}");
            assert!(filter_.passes(&system, &["system".to_owned()]), "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_says_what_one_is() {
        assert_eq!(Filter::read(&json!({})), Ok(None));
        let many = vec!["P-1"; MAX_FILTER_VALUES + 1];
        for (json, expected) in [
            (json!("spo2"), "`filter` is an object of tags"),
            (json!({"colour": "red"}), "`filter` has a tag that is not metric, device_id"),
            (json!({"metric": []}), "`filter` is an object of tags"),
            (json!({"metric": 5}), "`filter` is an object of tags"),
            (json!({"patient_id": many}), "`filter` is an object of tags"),
            (json!({"metric": "sp02"}), "`filter` has a value that no `metric` is"),
            (json!({"priority": ["high", "urgent"]}), "`filter` has a value that no `priority` is"),
            (json!({"ward": ""}), "`filter` has a value that no `ward` is"),
        ] {
            let error = Filter::read(&json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
