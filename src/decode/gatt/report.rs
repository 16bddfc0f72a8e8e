//! What one payload says: vitals, statuses and failures to be published, and all that is only worth keeping beside them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::date_time::DateTime;
use crate::decode::{Decoded, DecodedVital, FailedMeasurement};
use crate::vitals::{Absent, Decimal, Metric, Status, Vital};

/// What one notification, indication, read value or advertisement says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Statuses, vitals, failed measurements and events, in the order in which they are to be published. A status set
    /// is given whenever the device reports one, changed or not.
    pub decoded: Vec<Decoded>,
    /// Everything else that the payload says, by the name of the specification in `snake_case`.
    pub details: Details,
    /// The device's number for the person who was measured; `None`: it names nobody.
    pub user: Option<u8>,
    /// The device says that it does not know whom it measured, which is not the same as to say nothing.
    pub is_stranger: bool,
    /// The number of a stored record, by which it is asked for and told from others.
    pub record: Option<u16>,
    /// What the device's clock said when it measured, as it said it. Never used to order: devices in use say 1970.
    pub device_time: Option<String>,
    /// Reserved bits that were set: ignored, but counted.
    pub rfu_bits: u32,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// The payload.
    pub raw: Vec<u8>,
}

/// Named facts.
pub type Details = BTreeMap<&'static str, Detail>;

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// The device says that it does not know; JSON null.
    Unknown,
    /// Yes or no.
    Flag(bool),
    /// A number, in the unit that its name says.
    Number(Decimal),
    /// A text.
    Text(String),
    /// The bits that are set, by name.
    Names(Vec<&'static str>),
    /// Records of one payload.
    Records(Vec<Details>),
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => serializer.serialize_none(),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Names(names) => names.serialize(serializer),
            Self::Records(records) => records.serialize(serializer),
        }
    }
}

impl From<bool> for Detail {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u8> for Detail {
    fn from(number: u8) -> Self {
        Self::Number(Decimal::integer(i32::from(number)))
    }
}

impl From<u16> for Detail {
    fn from(number: u16) -> Self {
        Self::Number(Decimal::integer(i32::from(number)))
    }
}

impl From<i16> for Detail {
    fn from(number: i16) -> Self {
        Self::Number(Decimal::integer(i32::from(number)))
    }
}

impl From<Decimal> for Detail {
    fn from(number: Decimal) -> Self {
        Self::Number(number)
    }
}

impl From<Result<Decimal, Absent>> for Detail {
    /// A special value by the name of its reason.
    fn from(sent: Result<Decimal, Absent>) -> Self {
        sent.map_or_else(|reason| Self::Text(reason.name().to_owned()), Self::Number)
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Detail {
    fn from(fact: Option<T>) -> Self {
        fact.map_or(Self::Unknown, Into::into)
    }
}

impl Report {
    /// Takes a User ID (GSS): 255 says that the user is not known.
    pub(super) fn set_user(&mut self, said: Option<u8>) {
        self.is_stranger = said == Some(0xFF);
        self.user = said.filter(|_| !self.is_stranger);
    }

    /// Adds a fact.
    pub(in crate::decode) fn detail(&mut self, name: &'static str, fact: impl Into<Detail>) {
        self.details.insert(name, fact.into());
    }

    /// Adds a fact if there is one.
    pub(in crate::decode) fn detail_if(&mut self, name: &'static str, fact: Option<impl Into<Detail>>) {
        if let Some(fact) = fact {
            self.detail(name, fact);
        }
    }

    /// The device's clock at the measurement.
    pub(in crate::decode) fn set_time(&mut self, time: Option<DateTime>) {
        self.device_time = time.and_then(DateTime::said);
    }

    /// Adds a vital, with the device's time as it is known so far.
    pub(in crate::decode) fn vital(&mut self, judged: super::plausible::Judged, mdc: Option<u32>) {
        let super::plausible::Judged { metric, value, quality } = judged;
        let vital = Vital::scalar(metric, value);
        self.composite(vital, quality, mdc);
    }

    /// Adds a vital of several numbers.
    pub(in crate::decode) fn composite(&mut self, vital: Vital, quality: crate::vitals::Quality, mdc: Option<u32>) {
        let device_time = self.device_time.clone();
        self.decoded.push(Decoded::Vital(DecodedVital { vital, mdc, quality, device_time }));
    }

    /// Adds a measurement that failed.
    pub(in crate::decode) fn failed(
        &mut self,
        metric: Metric,
        reason: Absent,
        causes: impl IntoIterator<Item = &'static str>,
    ) {
        let causes = causes.into_iter().collect();
        let device_time = self.device_time.clone();
        self.decoded.push(Decoded::MeasurementFailed(FailedMeasurement { metric, reason, causes, device_time }));
    }

    /// Adds the statuses that the device reports; an empty set says that all is well.
    pub(in crate::decode) fn status(&mut self, statuses: impl IntoIterator<Item = Status>) {
        self.decoded.push(Decoded::Status(statuses.into_iter().collect()));
    }

    /// Adds something that happened.
    pub(in crate::decode) fn event(&mut self, name: &str) {
        self.decoded.push(Decoded::Event { name: Arc::from(name) });
    }

    /// The payload in hex.
    pub fn raw_hex(&self) -> String {
        hex_digits(&self.raw)
    }
}

/// Bytes as hexadecimal digits without anything between them.
pub(crate) fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The names of the bits that are set.
pub(in crate::decode) fn names_of(bits: u32, table: &[(u32, &'static str)]) -> Vec<&'static str> {
    table.iter().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

/// The statuses of the bits that are set.
pub(in crate::decode) fn statuses_of(bits: u32, table: &[(u32, Status)]) -> Vec<Status> {
    table.iter().filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, status)| *status).collect()
}
