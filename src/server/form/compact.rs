//! `vitals.v1.compact`: a reading as a short list, beside a table of what all readings of its stream have in common.
//!
//! `[seq, stream, value, received, sent]`, and `more` if the reading says something that is not in the table: see
//! docs/contract.md. It is made of the JSON of the event, so that a member that is new there is in `more` here and not
//! lost; what does not fit at all goes in the full form.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::value::RawValue;

use super::cbor::Members;
use crate::clock::Wall;
use crate::ids::Seq;
use crate::outbox::{Compact, Frame, Published};
use crate::vitals::{Absent, Decimal};

/// Most streams of a run that have a number; readings of further ones come in the full form.
pub const MAX_NUMBERED: usize = 16_384;

/// Members of `data` that all readings of a stream have in common: another value is another stream.
const IN_TABLE: [&str; 9] = ["metric", "unit", "ucum", "device_id", "patient_id", "mdc", "loinc", "source_id", "mode"];

/// A further one, which is a list.
const DERIVED_FROM: &str = "derived_from";

/// Members that the table gives for all streams, and that a reading names only where it has another value.
const USUAL: [(&str, &str); 2] = [("quality", "\"valid\""), ("ts_source", "\"received\"")];

/// A reading in short, for the contract.
#[derive(Debug)]
pub enum CompactReading {}

impl JsonSchema for CompactReading {
    fn schema_name() -> Cow<'static, str> {
        "CompactReading".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (seq, value, absent) = (
            generator.subschema_for::<Seq>(),
            generator.subschema_for::<Decimal>(),
            generator.subschema_for::<Absent>(),
        );
        json_schema!({
            "description": "A reading in `vitals.v1.compact`: [seq, stream, value, received, sent, more].",
            "type": "array",
            "prefixItems": [
                seq,
                {"description": "The number of its stream.", "type": "integer", "minimum": 0},
                {"description": "The value, or why there is none.", "anyOf": [value, absent, {"type": "null"}]},
                {"description": "When it was received: ms since `base`.", "type": "integer"},
                {"description": "When it was sent: ms since it was received.", "type": "integer"},
                {
                    "description": "Members of `data` in the place of those of the stream; null: it is not there.",
                    "type": "object", "minProperties": 1,
                },
            ],
            "items": false,
            "minItems": 5,
        })
    }
}

/// A stream with its number.
#[derive(Debug)]
pub struct Stream {
    /// The number.
    pub number: u32,
    /// The channel of its readings.
    pub channel: String,
    /// The members of `data` that its readings have in common, as an object.
    pub data: Box<RawValue>,
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<(String, String), u32>,
    streams: Vec<Arc<Stream>>,
}

/// The streams of this run of the daemon and their numbers.
#[derive(Debug, Default)]
pub struct Streams {
    table: Mutex<Table>,
    base: OnceLock<Wall>,
}

impl Streams {
    /// The short form of a reading, made once for all who want it; `None` where the full form has to do.
    pub fn shared(&self, published: &Published) -> Option<Compact> {
        let make = || std::str::from_utf8(&published.text).ok().and_then(|text| self.compact(text));
        published.forms.compact.get_or_init(make).clone()
    }

    /// The moment from which readings count their milliseconds.
    pub fn base(&self) -> Wall {
        self.base.get().copied().unwrap_or_default()
    }

    /// A stream by its number.
    pub fn stream(&self, number: u32) -> Option<Arc<Stream>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.streams.get(usize::try_from(number).ok()?).cloned()
    }

    /// The short form of the JSON of a `health_update`; `None` of anything else, or of one that the short form cannot
    /// say.
    pub fn compact(&self, text: &str) -> Option<Compact> {
        let frame = Parts::of(text)?;
        let mut reading = Reading::default();
        for (name, value) in &frame.data {
            reading.take(name, value.get())?;
        }
        let Reading { shared, value, absent, received, taken, mut more } = reading;
        if taken != Some(received?) {
            // Null: the time at which it was measured is not known, and the member is not there.
            more.insert(0, ("timestamp", taken.unwrap_or("null")));
        }
        let value = match (value?, absent) {
            ("null", Some(absent)) => absent,
            (value, None) => value,
            (value, Some(absent)) => {
                more.push(("absent", absent));
                value
            }
        };
        let usual = USUAL.iter().filter(|(name, _)| !frame.data.iter().any(|(known, _)| known == name));
        more.extend(usual.map(|(name, _)| (*name, "null")));
        let (received, sent) = (moment(received?)?, moment(frame.timestamp)?);
        let base = self.base.get_or_init(|| received);
        let (at, later) = (received.0.checked_sub(base.0)?, sent.0.checked_sub(received.0)?);
        let stream = self.number(&frame.channel, &shared)?;
        let mut list = format!("[{},{stream},{value},{at},{later}", frame.seq);
        if !more.is_empty() {
            let members = more.iter().map(|(name, value)| format!("\"{name}\":{value}"));
            // Writing to a String cannot fail.
            let _ = write!(list, ",{{{}}}", members.collect::<Vec<_>>().join(","));
        }
        list.push(']');
        Some(Compact { stream, text: Frame::text(&list) })
    }

    fn number(&self, channel: &str, shared: &[(&str, &str)]) -> Option<u32> {
        let members = shared.iter().chain(&USUAL).map(|(name, value)| format!("\"{name}\":{value}"));
        let data = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Table { numbers, streams } = &mut *table;
        match numbers.entry((channel.to_owned(), data)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(_) if streams.len() >= MAX_NUMBERED => None,
            Entry::Vacant(new) => {
                let number = u32::try_from(streams.len()).ok()?;
                let data = RawValue::from_string(new.key().1.clone()).ok()?;
                streams.push(Arc::new(Stream { number, channel: channel.to_owned(), data }));
                new.insert(number);
                Some(number)
            }
        }
    }
}

/// The parts of a `health_update` that a short form has to tell.
struct Parts<'a> {
    data: Vec<(String, &'a RawValue)>,
    timestamp: &'a str,
    channel: String,
    seq: u64,
}

impl<'a> Parts<'a> {
    /// `None` if the text is another message, or has a member that a short form does not tell.
    fn of(text: &'a str) -> Option<Self> {
        let Members(members) = serde_json::from_str(text).ok()?;
        let get = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get());
        let word = |wanted| get(wanted).and_then(|text| serde_json::from_str::<String>(text).ok());
        let (seq, epoch): (u64, _) = (get("seq")?.parse().ok()?, word("epoch")?);
        let is_plain = word("type")? == "health_update" && word("correlation_id")? == format!("{epoch}:{seq}");
        // `type`, `data`, `timestamp`, `correlation_id`, `channel`, `seq`, `epoch`.
        (is_plain && members.len() == 7).then_some(())?;
        let Members(data) = serde_json::from_str(get("data")?).ok()?;
        let data = data.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        Some(Self { data, timestamp: get("timestamp")?, channel: word("channel")?, seq })
    }
}

/// What a reading says, each as it is written in JSON.
#[derive(Default)]
struct Reading<'a> {
    shared: Vec<(&'a str, &'a str)>,
    value: Option<&'a str>,
    absent: Option<&'a str>,
    received: Option<&'a str>,
    taken: Option<&'a str>,
    more: Vec<(&'a str, &'a str)>,
}

impl<'a> Reading<'a> {
    /// `None` if a member cannot be told in short: null means in `more` that a member is not there.
    fn take(&mut self, name: &'a str, value: &'a str) -> Option<()> {
        match name {
            "value" => self.value = Some(value),
            _ if value == "null" => return None,
            "absent" => self.absent = Some(value),
            "received" => self.received = Some(value),
            "timestamp" => self.taken = Some(value),
            name if IN_TABLE.contains(&name) || name == DERIVED_FROM => self.shared.push((name, value)),
            name if USUAL.contains(&(name, value)) => {}
            name => self.more.push((name, value)),
        }
        Some(())
    }
}

/// The moment of a text in quotes; `None` unless it is written as ours are, so that it can be told by its number.
fn moment(quoted: &str) -> Option<Wall> {
    let text = quoted.strip_prefix('"')?.strip_suffix('"')?;
    Wall::parse(text).filter(|wall| wall.to_string() == text)
}
