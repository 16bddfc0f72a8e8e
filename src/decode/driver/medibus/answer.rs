//! What MEDIBUS responses say: measured values, alarms, texts, settings, time, identification, realtime offers.

use std::fmt;

use super::super::alarms::text;
use super::line::ETX;
use crate::vitals::Decimal;

/// Two capital hexadecimal digits (9028258, p. 28).
fn hex(digits: &[u8]) -> Option<u8> {
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'A'..=b'F');
    let digits = (digits.len() == 2 && digits.iter().all(is_hex)).then_some(digits)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Records of `size` bytes that fill the data; `None` if they do not or if one cannot be read.
fn records<T>(data: &[u8], size: usize, read: impl Fn(&[u8]) -> Option<T>) -> Option<Vec<T>> {
    let records = data.chunks_exact(size);
    records.remainder().is_empty().then(|| records.map(read).collect()).flatten()
}

/// A number that is filled up with spaces, also between its sign and its digits.
fn number(field: &[u8]) -> Option<Decimal> {
    let compact: String = field.iter().filter(|byte| **byte != b' ').map(|byte| char::from(*byte)).collect();
    compact.parse().ok()
}

/// Codes 24H to 26H: `{code}{4 characters}`. A value that is no number is `None`.
pub(super) fn measured(data: &[u8]) -> Option<Vec<(u8, Option<Decimal>)>> {
    records(data, 6, |record| Some((hex(record.get(..2)?)?, number(record.get(2..)?))))
}

/// Code 29H: `{code}{5 characters}`.
pub(super) fn settings(data: &[u8]) -> Option<Vec<(u8, String)>> {
    records(data, 7, |record| Some((hex(record.get(..2)?)?, text(record.get(2..)?))))
}

/// One alarm of codes 27H and 2EH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alarm {
    /// 1 to 31, the highest.
    pub(super) priority: u8,
    /// Its number in the code page.
    pub(super) code: u8,
    /// What the device calls it.
    pub(super) phrase: String,
}

/// `{priority + 30H}{code}{12 characters}`.
pub(super) fn alarms(data: &[u8]) -> Option<Vec<Alarm>> {
    records(data, 15, |record| {
        let priority = record.first()?.checked_sub(0x30).filter(|priority| (1..=31).contains(priority))?;
        Some(Alarm { priority, code: hex(record.get(1..3)?)?, phrase: phrase(record.get(3..)?) })
    })
}

/// 9028329, p. 4: two characters stand for a word where the phrase would be too long.
fn phrase(bytes: &[u8]) -> String {
    text(bytes).replace("$&", "LOW").replace("\"#", "HIGH").replace("'@", "ALARM")
}

/// Code 2AH: `{code}{length + 30H}{text}ETX`.
pub(super) fn texts(mut data: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    while !data.is_empty() {
        hex(data.get(..2)?)?;
        let length = usize::from(data.get(2)?.checked_sub(0x30)?);
        let (message, rest) = data.get(3..)?.split_at_checked(length)?;
        data = rest.strip_prefix(&[ETX])?;
        found.push(text(message));
    }
    Some(found)
}

/// What a device is, by code 52H: `{4 digits}'{name}'{revision}:{MEDIBUS version}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The number of the model.
    pub(super) number: String,
    /// Its name.
    pub(super) name: String,
    /// The first number of the MEDIBUS version.
    pub(super) version: u8,
}

pub(super) fn identity(data: &[u8]) -> Option<Identity> {
    let said = std::str::from_utf8(data).ok()?;
    let (number, rest) = said.split_once('\'')?;
    let (name, revisions) = rest.split_once('\'')?;
    let (_, version) = revisions.split_once(':')?;
    let version = version.split_once('.')?.0.trim().parse().ok()?;
    let is_number = number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Identity { number: number.to_owned(), name: text(name.as_bytes()), version })
}

/// The device's own time of day, of no known zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeviceTime {
    year: u16,
    month: usize,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl fmt::Display for DeviceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// p. 13: German names; V500 and Evita XL have been seen with English ones too.
const MONTHS: [&[&str]; 12] = [
    &["JAN"],
    &["FEB"],
    &["MAR", "MRZ", "MÄR"],
    &["APR"],
    &["MAI", "MAY"],
    &["JUN"],
    &["JUL"],
    &["AUG"],
    &["SEP"],
    &["OKT", "OCT"],
    &["NOV"],
    &["DEZ", "DEC"],
];

/// Code 28H: `HH:MM:SS` and `DD-MMM-YY`. Devices leave out the seconds, or write spaces for leading zeros.
pub(super) fn time(data: &[u8]) -> Option<DeviceTime> {
    let said: String = data.iter().map(|byte| char::from(*byte)).collect();
    let (hour, rest) = said.trim_start().split_once(':')?;
    let (minute, rest) = rest.split_at_checked(2)?;
    let (second, date) = match rest.strip_prefix(':') {
        Some(rest) => rest.split_at_checked(2)?,
        None => ("0", rest),
    };
    let mut date = date.trim().split('-');
    let (day, name, year) = (date.next()?, date.next()?, date.next()?);
    let month = MONTHS.iter().position(|names| names.contains(&name))? + 1;
    let year: u16 = year.trim().parse().ok().filter(|year| *year < 100 && date.next().is_none())?;
    // MEDIBUS is of 1991, and its years have two digits.
    let year = if year < 80 { 2000 + year } else { 1900 + year };
    let part = |text: &str, most: u8| text.trim().parse().ok().filter(|number: &u8| *number <= most);
    let (day, hour) = (part(day, 31).filter(|day| *day > 0)?, part(hour, 23)?);
    Some(DeviceTime { year, month, day, hour, minute: part(minute, 59)?, second: part(second, 59)? })
}

/// A wave that the device offers by code 53H.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Offer {
    /// Its code.
    pub(super) code: u8,
    /// Microseconds from one sample to the next.
    pub(super) interval_us: u32,
    /// What the binary value 0 stands for.
    pub(super) min: Decimal,
    /// What `max_binary` stands for.
    pub(super) max: Decimal,
    /// At most 4095.
    pub(super) max_binary: u16,
}

/// p. 20: `{code}{8: interval}{5: min}{5: max}{3 hexadecimal digits}`.
pub(super) fn offers(data: &[u8]) -> Option<Vec<Offer>> {
    records(data, 23, |record| {
        let interval = number(record.get(2..10)?)?;
        let digits = std::str::from_utf8(record.get(20..23)?).ok()?;
        Some(Offer {
            code: hex(record.get(..2)?)?,
            interval_us: microseconds(interval)?,
            min: number(record.get(10..15)?)?,
            max: number(record.get(15..20)?)?,
            max_binary: u16::from_str_radix(digits, 16).ok().filter(|max| *max > 0)?,
        })
    })
}

/// The text of p. 20 says milliseconds, its example (p. 32) writes 16 ms as 16000. No device samples as slowly as once
/// in a second or as fast as once in a microsecond, so that the number tells which of the two it is.
fn microseconds(interval: Decimal) -> Option<u32> {
    let is_micro = interval.compare(Decimal::integer(1000)).is_ge();
    let micro = super::super::converted(interval, if is_micro { 1 } else { 1000 }, 0, 0)?.mantissa();
    u32::try_from(micro).ok().filter(|micro| (100..=1_000_000).contains(micro))
}
