//! Rows: how an event becomes columns and comes back with every digit and every nanosecond it had.
//!
//! Enums are stored by name. Times of one reading are stored as differences, because a difference of a few
//! milliseconds takes one byte where a time takes eight.

use std::hash::{Hash, Hasher};
use std::path::Path;

use rusqlite::{CachedStatement, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{Event, EventBody};
use crate::ids::{DeviceId, Epoch, PatientId, Seq, SourceId};
use crate::vitals::{Absent, Decimal, Metric, Mode, Pressure, Quality, Reading, Taken, TimeSource, Value, Vital};

/// Columns of [`insert_reading`], in its order.
pub(super) const INSERT_READING: &str = "INSERT INTO reading (seq, stream, mono, wall, received_ns, received_ms, \
     taken_ms, uncertainty_ms, device_time, mantissa, exponent, absent, parts) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// Columns of [`insert_event`], in its order.
pub(super) const INSERT_EVENT: &str = "INSERT INTO event (seq, kind, mono, wall, body) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Up to ?2 readings after ?1 and up to ?3, as [`reading_row`] wants them.
pub(super) const SELECT_READINGS: &str = "SELECT seq, stream, mono, wall, received_ns, received_ms, taken_ms, \
     uncertainty_ms, device_time, mantissa, exponent, absent, parts FROM reading \
     WHERE seq > ?1 AND seq <= ?3 ORDER BY seq LIMIT ?2";

/// Up to ?2 other events after ?1 and up to ?3, as [`event_row`] wants them.
pub(super) const SELECT_EVENTS: &str =
    "SELECT seq, kind, mono, wall, body FROM event WHERE seq > ?1 AND seq <= ?3 ORDER BY seq LIMIT ?2";

/// Those of the other events that are urgent ([`EventBody::is_urgent`]).
pub(super) const SELECT_URGENT: &str = "SELECT seq, kind, mono, wall, body FROM event \
     WHERE kind IN ('alert', 'limits', 'system') AND seq > ?1 AND seq <= ?3 ORDER BY seq LIMIT ?2";

/// Those of them that are not.
pub(super) const SELECT_UNHURRIED: &str = "SELECT seq, kind, mono, wall, body FROM event \
     WHERE kind NOT IN ('alert', 'limits', 'system') AND seq > ?1 AND seq <= ?3 ORDER BY seq LIMIT ?2";

/// The newest ?2 readings of those.
pub(super) const SELECT_LAST_READINGS: &str = "SELECT seq, stream, mono, wall, received_ns, received_ms, taken_ms, \
     uncertainty_ms, device_time, mantissa, exponent, absent, parts FROM reading \
     WHERE seq > ?1 AND seq <= ?3 ORDER BY seq DESC LIMIT ?2";

/// The newest ?2 other events of those.
pub(super) const SELECT_LAST_EVENTS: &str =
    "SELECT seq, kind, mono, wall, body FROM event WHERE seq > ?1 AND seq <= ?3 ORDER BY seq DESC LIMIT ?2";

/// The newest event of each alert that has not ended, as [`event_row`] wants them.
pub(super) const SELECT_STANDING: &str = "SELECT e.seq, e.kind, e.mono, e.wall, e.body \
     FROM alert_open a JOIN event e ON e.seq = a.seq ORDER BY e.seq";

/// Up to ?2 rows of the audit trail after ?1 and up to ?3, the newest first, as [`event_row`] wants them. Without the index
/// all events would be looked through for the few rows of a trail.
pub(super) const SELECT_AUDIT: &str = "SELECT seq, kind, mono, wall, body FROM event \
     INDEXED BY audit_trail WHERE kind = 'audit' AND seq > ?1 AND seq <= ?3 ORDER BY seq DESC LIMIT ?2";

/// Up to ?2 events before ?1, alerts among them, the newest first, as [`event_row`] wants them.
pub(super) const SELECT_BACKWARDS: &str =
    "SELECT seq, kind, mono, wall, body FROM event WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2";

/// The life of the alert ?1, oldest first, at most ?2 changes, as [`event_row`] wants them. The index is `alert_life`.
pub(super) const SELECT_LIFE: &str = "SELECT seq, kind, mono, wall, body FROM event WHERE kind = 'alert' \
     AND CASE WHEN json_valid(body) THEN body ->> '$.alert' END = ?1 ORDER BY seq LIMIT ?2";

/// Adds a stream, or does nothing if it is there.
pub(super) const INSERT_STREAM: &str = "INSERT INTO stream (patient, device, source, metric, mdc, mode, quality, \
     time_source) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING";

/// The number of a stream.
pub(super) const FIND_STREAM: &str = "SELECT id FROM stream WHERE patient = ?1 AND device = ?2 AND source = ?3 \
     AND metric = ?4 AND mdc = ?5 AND mode = ?6 AND quality = ?7 AND time_source = ?8";

/// What the stream ?1 stands for, as [`stream_row`] wants it.
pub(super) const SELECT_STREAM: &str =
    "SELECT patient, device, source, metric, mdc, mode, quality, time_source FROM stream WHERE id = ?1";

/// Why a row cannot be an event.
#[derive(Debug)]
pub(super) enum BadRow {
    /// SQLite could not give the columns.
    Sqlite(rusqlite::Error),
    /// The columns make no event.
    Content(String),
}

impl From<rusqlite::Error> for BadRow {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl BadRow {
    /// The error of the store for this row.
    pub(super) fn at(self, path: &Path, seq: Seq) -> StoreError {
        match self {
            Self::Sqlite(source) => StoreError::sqlite(path, "cannot read events")(source),
            Self::Content(what) => StoreError::Row { path: path.to_owned(), seq, what },
        }
    }
}

/// The row number of a `seq`. Numbers beyond `i64` would take 292 years at a billion a second.
pub(super) fn row_id(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

/// The `seq` of a row number.
pub(super) fn seq_of(row_id: i64) -> Seq {
    Seq(u64::try_from(row_id).unwrap_or(0))
}

/// A stamp from its two columns.
pub(super) fn stamp(mono: i64, wall: i64) -> Stamp {
    Stamp { mono: Mono(mono.cast_unsigned()), wall: Wall(wall) }
}

/// What many readings share; the store numbers each combination once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) patient: Option<PatientId>,
    pub(super) device: DeviceId,
    source: SourceId,
    pub(super) metric: Metric,
    mdc: Option<u32>,
    pub(super) mode: Mode,
    quality: Quality,
    time_source: TimeSource,
}

/// A stream as its readings have it: what finds a [`Stream`] without a copy of three names for each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StreamKey<'a> {
    patient: Option<&'a PatientId>,
    device: &'a DeviceId,
    source: &'a SourceId,
    metric: Metric,
    mdc: Option<u32>,
    mode: Mode,
    quality: Quality,
    time_source: TimeSource,
}

impl<'a> StreamKey<'a> {
    /// The stream of a reading.
    pub(super) const fn of(reading: &'a Reading) -> Self {
        Self {
            patient: reading.patient.as_ref(),
            device: &reading.device,
            source: &reading.source,
            metric: reading.vital.metric(),
            mdc: reading.mdc,
            mode: reading.mode,
            quality: reading.quality,
            time_source: reading.taken.source,
        }
    }

    /// The stream itself, to be kept.
    pub(super) fn to_stream(self) -> Stream {
        Stream {
            patient: self.patient.cloned(),
            device: self.device.clone(),
            source: self.source.clone(),
            metric: self.metric,
            mdc: self.mdc,
            mode: self.mode,
            quality: self.quality,
            time_source: self.time_source,
        }
    }
}

impl Hash for Stream {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A map finds a stream by its key, so both must have the same hash.
        self.key().hash(state);
    }
}

impl hashbrown::Equivalent<Stream> for StreamKey<'_> {
    fn equivalent(&self, stream: &Stream) -> bool {
        *self == stream.key()
    }
}

impl Stream {
    const fn key(&self) -> StreamKey<'_> {
        StreamKey {
            patient: self.patient.as_ref(),
            device: &self.device,
            source: &self.source,
            metric: self.metric,
            mdc: self.mdc,
            mode: self.mode,
            quality: self.quality,
            time_source: self.time_source,
        }
    }

    /// The number of this stream, given by `insert` if it is new and found by `find`.
    pub(super) fn number(
        &self,
        insert: &mut CachedStatement<'_>,
        find: &mut CachedStatement<'_>,
    ) -> rusqlite::Result<i64> {
        let columns = params![
            self.patient.as_ref().map_or("", PatientId::as_str),
            self.device.as_str(),
            self.source.as_str(),
            self.metric.name(),
            self.mdc.map_or(-1, i64::from),
            self.mode.name(),
            self.quality.name(),
            self.time_source.name(),
        ];
        insert.execute(columns)?;
        find.query_row(columns, |row| row.get(0))
    }
}

/// The stream of a row of [`SELECT_STREAM`].
pub(super) fn stream_row(row: &Row<'_>) -> Result<Stream, BadRow> {
    let patient: String = row.get(0)?;
    let mdc: i64 = row.get(4)?;
    Ok(Stream {
        patient: if patient.is_empty() { None } else { Some(identifier(patient)?) },
        device: identifier(row.get(1)?)?,
        source: identifier(row.get(2)?)?,
        metric: named(&row.get::<_, String>(3)?, Metric::from_name)?,
        mdc: if mdc == -1 { None } else { Some(number(mdc)?) },
        mode: named(&row.get::<_, String>(5)?, Mode::from_name)?,
        quality: named(&row.get::<_, String>(6)?, Quality::from_name)?,
        time_source: named(&row.get::<_, String>(7)?, TimeSource::from_name)?,
    })
}

/// Writes a reading by a statement of [`INSERT_READING`].
pub(super) fn insert_reading(
    statement: &mut CachedStatement<'_>,
    event: &Event,
    reading: &Reading,
    stream: i64,
) -> rusqlite::Result<()> {
    let at = event.at;
    let received = reading.received;
    let taken_ms = reading.taken.wall.map(|taken| received.wall.0.wrapping_sub(taken.0));
    let columns = Columns::of(&reading.vital);
    statement.execute(params![
        row_id(event.seq),
        stream,
        at.mono.0.cast_signed(),
        at.wall.0,
        at.mono.0.wrapping_sub(received.mono.0).cast_signed(),
        at.wall.0.wrapping_sub(received.wall.0),
        taken_ms,
        own_uncertainty(&reading.taken),
        reading.taken.device_time,
        columns.mantissa,
        columns.exponent,
        columns.absent,
        columns.parts,
    ])?;
    Ok(())
}

/// What is stored of an uncertainty: of a mapped time the part that is not our own clock's, which is known when it is read;
/// of a time of arrival nothing, for the same reason. 0 stands for that, as in rows of earlier versions.
fn own_uncertainty(taken: &Taken) -> i64 {
    match taken.source {
        TimeSource::DeviceMapped => taken.mapping_ms.map_or(-1, i64::from),
        TimeSource::Received => taken.uncertainty_ms.map_or(0, i64::from),
        _ => taken.uncertainty_ms.map_or(-1, i64::from),
    }
}

/// The uncertainty of a row, and the part of it that is not our own clock's.
fn read_uncertainty(stored: i64, source: TimeSource) -> Result<(Option<u32>, Option<u32>), BadRow> {
    Ok(match source {
        TimeSource::DeviceMapped => (None, uncertainty(stored)?),
        TimeSource::Received if stored == 0 => (None, None),
        _ => (uncertainty(stored)?, None),
    })
}

/// The event of a row of [`SELECT_READINGS`]; `stream_of` knows the streams by number.
pub(super) fn reading_row(
    row: &Row<'_>,
    epoch: Epoch,
    stream_of: impl FnOnce(i64) -> Result<Stream, BadRow>,
) -> Result<Event, BadRow> {
    let stream = stream_of(row.get(1)?)?;
    let at = stamp(row.get(2)?, row.get(3)?);
    let (received_ns, received_ms): (i64, i64) = (row.get(4)?, row.get(5)?);
    let received = Stamp {
        mono: Mono(at.mono.0.wrapping_sub(received_ns.cast_unsigned())),
        wall: Wall(at.wall.0.wrapping_sub(received_ms)),
    };
    let taken_ms: Option<i64> = row.get(6)?;
    let (uncertainty_ms, mapping_ms) = read_uncertainty(row.get(7)?, stream.time_source)?;
    let columns = Columns { mantissa: row.get(9)?, exponent: row.get(10)?, absent: row.get(11)?, parts: row.get(12)? };
    let reading = Reading {
        vital: columns.vital(stream.metric)?,
        patient: stream.patient,
        device: stream.device,
        source: stream.source,
        mdc: stream.mdc,
        quality: stream.quality,
        mode: stream.mode,
        taken: Taken {
            wall: taken_ms.map(|earlier| Wall(received.wall.0.wrapping_sub(earlier))),
            source: stream.time_source,
            uncertainty_ms,
            mapping_ms,
            device_time: row.get(8)?,
        },
        received,
    };
    Ok(Event { epoch, seq: seq_of(row.get(0)?), at, body: EventBody::Reading(reading) })
}

/// The columns of a vital. `parts` has what does not fit one number, separated by spaces: the diastolic and the mean of
/// a pressure, the intervals between beats in 1/1024 s, or the JSON of what the bridge computed of several readings.
struct Columns<A> {
    mantissa: Option<i64>,
    exponent: Option<i64>,
    absent: Option<A>,
    parts: Option<String>,
}

impl Columns<&'static str> {
    fn of(vital: &Vital) -> Self {
        match vital {
            Vital::Scalar { value, .. } => Self::of_value(*value, None),
            Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => {
                let parts = format!("{} {}", value_text(pressure.diastolic), value_text(pressure.mean));
                Self::of_value(pressure.systolic, Some(parts))
            }
            Vital::RrIntervals(beats) => {
                let beats: Vec<String> = beats.iter().map(u16::to_string).collect();
                Self { mantissa: None, exponent: None, absent: None, parts: Some(beats.join(" ")) }
            }
            Vital::News2(score) => Self::of_value(vital.leading(), Some(object(score))),
            Vital::Variability(found) => Self::of_value(vital.leading(), Some(object(found))),
        }
    }

    fn of_value(value: Value, parts: Option<String>) -> Self {
        let number = value.valid();
        Self {
            mantissa: number.map(Decimal::mantissa),
            exponent: number.map(|number| i64::from(number.exponent())),
            absent: value.absent().map(Absent::name),
            parts,
        }
    }
}

impl Columns<String> {
    fn vital(&self, metric: Metric) -> Result<Vital, BadRow> {
        let Some(parts) = &self.parts else {
            return Ok(Vital::Scalar { metric, value: self.value()? });
        };
        match metric {
            Metric::BloodPressure => Ok(Vital::BloodPressure(self.pressure(parts)?)),
            Metric::ArterialPressure => Ok(Vital::ArterialPressure(self.pressure(parts)?)),
            Metric::RrInterval => {
                let beats = parts.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>();
                Ok(Vital::RrIntervals(beats.map_err(|_| content(format!("`{parts}` are no intervals")))?))
            }
            Metric::News2 => Ok(Vital::News2(json(parts)?)),
            Metric::HeartRateVariability => Ok(Vital::Variability(json(parts)?)),
            _ => Err(content(format!("{metric} has parts: `{parts}`"))),
        }
    }

    fn value(&self) -> Result<Value, BadRow> {
        match (self.mantissa, self.exponent, &self.absent) {
            (Some(mantissa), Some(exponent), None) => decimal(mantissa, exponent).map(Value::Valid),
            (None, None, Some(reason)) => named(reason, Absent::from_name).map(Value::Absent),
            _ => Err(content("neither a number nor a reason why there is none")),
        }
    }

    fn pressure(&self, parts: &str) -> Result<Pressure, BadRow> {
        let (diastolic, mean) = parts.split_once(' ').ok_or_else(|| content(format!("`{parts}` is no pressure")))?;
        Ok(Pressure { systolic: self.value()?, diastolic: value_of(diastolic)?, mean: value_of(mean)? })
    }
}

/// The text of plain data. Names and numbers cannot fail to be written; if they did, the row would be told as unreadable.
fn object(of: &impl Serialize) -> String {
    serde_json::to_string(of).unwrap_or_default()
}

/// A value as text that keeps mantissa and exponent apart: `800e-1`, or the reason for its absence.
fn value_text(value: Value) -> String {
    match value {
        Value::Valid(number) => format!("{}e{}", number.mantissa(), number.exponent()),
        Value::Absent(reason) => reason.name().to_owned(),
    }
}

/// The inverse of [`value_text`].
fn value_of(text: &str) -> Result<Value, BadRow> {
    if let Some(reason) = Absent::from_name(text) {
        return Ok(Value::Absent(reason));
    }
    let digits =
        text.split_once('e').and_then(|(mantissa, exponent)| Some((mantissa.parse().ok()?, exponent.parse().ok()?)));
    let (mantissa, exponent) = digits.ok_or_else(|| content(format!("`{text}` is no value")))?;
    decimal(mantissa, exponent).map(Value::Valid)
}

fn decimal(mantissa: i64, exponent: i64) -> Result<Decimal, BadRow> {
    i8::try_from(exponent)
        .ok()
        .and_then(|exponent| Decimal::new(mantissa, exponent))
        .ok_or_else(|| content(format!("{mantissa}e{exponent} is no decimal")))
}

/// Writes any other event by a statement of [`INSERT_EVENT`]; `body` is the text of [`body_text`].
pub(super) fn insert_event(statement: &mut CachedStatement<'_>, event: &Event, body: &str) -> rusqlite::Result<()> {
    let columns = params![row_id(event.seq), kind(&event.body), event.at.mono.0.cast_signed(), event.at.wall.0, body];
    statement.execute(columns)?;
    Ok(())
}

/// The event of a row of [`SELECT_EVENTS`].
pub(super) fn event_row(row: &Row<'_>, epoch: Epoch) -> Result<Event, BadRow> {
    let kind: String = row.get(1)?;
    let text: String = row.get(4)?;
    let body = match kind.as_str() {
        ALERT => EventBody::Alert(json(&text)?),
        NOTIFICATION => EventBody::Notification(json(&text)?),
        CHAT => EventBody::Chat(json(&text)?),
        SOURCE => EventBody::Source(json(&text)?),
        RECORD => EventBody::Record(json(&text)?),
        SYSTEM => EventBody::System(json(&text)?),
        AUDIT => EventBody::Audit(json(&text)?),
        LIMITS => EventBody::Limits(json(&text)?),
        INBOX => EventBody::Inbox(json(&text)?),
        OBSERVATION => EventBody::Observation(json(&text)?),
        _ => return Err(content(format!("`{kind}` is no kind of event"))),
    };
    Ok(Event { epoch, seq: seq_of(row.get(0)?), at: stamp(row.get(2)?, row.get(3)?), body })
}

/// The `kind` column of alerts.
pub(super) const ALERT: &str = "alert";
const NOTIFICATION: &str = "notification";
const CHAT: &str = "chat";
const SOURCE: &str = "source";
/// The `kind` column of records.
pub(super) const RECORD: &str = "record";
const SYSTEM: &str = "system";
const AUDIT: &str = "audit";
const LIMITS: &str = "limits";
const INBOX: &str = "inbox";
/// The `kind` column of what a person entered.
pub(super) const OBSERVATION: &str = "observation";

/// The `kind` column. A reading has none, because it has a table of its own.
const fn kind(body: &EventBody) -> &'static str {
    match body {
        EventBody::Reading(_) => "reading",
        EventBody::Alert(_) => ALERT,
        EventBody::Notification(_) => NOTIFICATION,
        EventBody::Chat(_) => CHAT,
        EventBody::Source(_) => SOURCE,
        EventBody::Record(_) => RECORD,
        EventBody::System(_) => SYSTEM,
        EventBody::Audit(_) => AUDIT,
        EventBody::Limits(_) => LIMITS,
        EventBody::Inbox(_) => INBOX,
        EventBody::Observation(_) => OBSERVATION,
    }
}

/// The `body` column. `None` for a reading, which has columns instead.
pub(super) fn body_text(body: &EventBody) -> Option<Result<String, serde_json::Error>> {
    fn text(body: &impl Serialize) -> Result<String, serde_json::Error> {
        serde_json::to_string(body)
    }
    Some(match body {
        EventBody::Reading(_) => return None,
        EventBody::Alert(alert) => text(alert),
        EventBody::Notification(notification) => text(notification),
        EventBody::Chat(chat) => text(chat),
        EventBody::Source(source) => text(source),
        EventBody::Record(record) => text(record),
        EventBody::System(system) => text(system),
        EventBody::Audit(audit) => text(audit),
        EventBody::Limits(limits) => text(limits),
        EventBody::Inbox(change) => text(change),
        EventBody::Observation(observation) => text(observation),
    })
}

/// A body from its text.
pub(super) fn json<T: DeserializeOwned>(text: &str) -> Result<T, BadRow> {
    serde_json::from_str(text).map_err(|error| content(error.to_string()))
}

fn content(what: impl Into<String>) -> BadRow {
    BadRow::Content(what.into())
}

pub(super) fn identifier<T: TryFrom<String, Error = crate::ids::BadId>>(text: String) -> Result<T, BadRow> {
    T::try_from(text).map_err(|error| content(error.to_string()))
}

pub(super) fn named<T>(name: &str, from_name: impl FnOnce(&str) -> Option<T>) -> Result<T, BadRow> {
    from_name(name).ok_or_else(|| content(format!("`{name}` is a name this version does not know")))
}

/// -1 where nobody knows: the column takes no NULL.
fn uncertainty(column: i64) -> Result<Option<u32>, BadRow> {
    if column == -1 { Ok(None) } else { number(column).map(Some) }
}

fn number(column: i64) -> Result<u32, BadRow> {
    u32::try_from(column).map_err(|_| content(format!("{column} is out of range")))
}
