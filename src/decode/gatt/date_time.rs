//! A device's clock: Date Time (0x2A08) and Current Time (0x2A2B, CTS 1.1) are read and written, Local Time Information
//! (0x2A0F) is read. It is a wall clock without a zone, and what it says is kept as it was said.

use std::fmt;

use super::{GattError, Reader, Report};
use crate::clock::Wall;
use crate::decode::gatt::report::names_of;

/// GSS, Date Time. Year 0, month 0 and day 0 are unknown; nothing else is checked, as devices send month 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// 1582 to 9999; 0: unknown.
    pub year: u16,
    /// 1 to 12; 0: unknown.
    pub month: u8,
    /// 1 to 31; 0: unknown.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl DateTime {
    pub(in crate::decode) fn read(reader: &mut Reader<'_>) -> Result<Self, GattError> {
        let [low, high, month, day, hour, minute, second] = reader.array("date and time")?;
        Ok(Self { year: u16::from_le_bytes([low, high]), month, day, hour, minute, second })
    }

    /// Reads 0x2A08.
    ///
    /// # Errors
    /// Fewer than seven bytes.
    pub fn parse(payload: &[u8]) -> Result<Self, GattError> {
        Self::read(&mut Reader::new("date and time", payload))
    }

    /// The seven bytes that set a device's clock.
    pub const fn encode(self) -> [u8; 7] {
        let [low, high] = self.year.to_le_bytes();
        [low, high, self.month, self.day, self.hour, self.minute, self.second]
    }

    /// As the device said it, `YYYY-MM-DDThh:mm:ss`; `None` if it said that it does not know the date.
    pub fn said(self) -> Option<String> {
        (self.year != 0 || self.month != 0 || self.day != 0).then(|| self.to_string())
    }

    /// So many minutes later, for meters that keep their local time as an offset; `None` if this is no date.
    pub fn plus_minutes(self, minutes: i16) -> Option<Self> {
        let utc = Wall::parse(&format!("{self}Z"))?;
        Self::of(Wall(utc.0.checked_add(i64::from(minutes) * 60_000)?))
    }

    /// This time, whole seconds of it; `None` outside the years 0 to 9999.
    pub fn of(time: Wall) -> Option<Self> {
        let text = time.to_string();
        let mut parts = text.split(['-', 'T', ':', '.', 'Z']);
        let year = parts.next()?.parse().ok()?;
        let mut next = || parts.next()?.parse().ok();
        Some(Self { year, month: next()?, day: next()?, hour: next()?, minute: next()?, second: next()? })
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// A value of Date Time (0x2A08).
pub(super) fn report_date_time(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("date time", payload);
    let time = DateTime::read(&mut reader)?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.set_time(Some(time));
    Ok(report)
}

/// CTS 1.1, 3.1: the time of a device, and why it was last set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentTime {
    /// Local time.
    pub time: DateTime,
    /// 1 Monday to 7 Sunday; 0: unknown.
    pub day_of_week: u8,
    /// 1/256 s.
    pub fractions_256: u8,
    /// Why it was set, see [`CurrentTime::ADJUST_REASONS`].
    pub adjust_reason: u8,
}

impl CurrentTime {
    /// CTS 1.1, 3.1.1: names of the bits of the reason.
    pub const ADJUST_REASONS: &[(u32, &'static str)] = &[
        (0, "manual_time_update"),
        (1, "external_reference_time_update"),
        (2, "change_of_time_zone"),
        (3, "change_of_dst"),
    ];

    /// The bit for a clock that was set by another clock, as the bridge does.
    pub const EXTERNAL_REFERENCE: u8 = 1 << 1;

    /// What sets a device's clock to local time, so many minutes ahead of UTC. `None` outside the years 0 to 9999.
    pub fn local(now: Wall, offset_minutes: i16) -> Option<Self> {
        let local = Wall(now.0.checked_add(i64::from(offset_minutes) * 60_000)?);
        // 1970-01-01 was a Thursday.
        let weekday = (local.as_secs().div_euclid(86_400) + 3).rem_euclid(7) + 1;
        Some(Self {
            time: DateTime::of(local)?,
            day_of_week: u8::try_from(weekday).ok()?,
            fractions_256: 0,
            adjust_reason: Self::EXTERNAL_REFERENCE,
        })
    }

    /// Reads a value of 0x2A2B.
    pub fn parse(payload: &[u8]) -> Result<(Self, usize), GattError> {
        let mut reader = Reader::new("current time", payload);
        let found = Self {
            time: DateTime::read(&mut reader)?,
            day_of_week: reader.u8("day of week")?,
            fractions_256: reader.u8("fractions of a second")?,
            adjust_reason: reader.u8("adjust reason")?,
        };
        Ok((found, reader.left()))
    }

    /// The ten bytes that set a device's clock.
    pub fn encode(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let rest = [self.day_of_week, self.fractions_256, self.adjust_reason];
        let encoded = self.time.encode().into_iter().chain(rest);
        for (byte, encoded) in bytes.iter_mut().zip(encoded) {
            *byte = encoded;
        }
        bytes
    }
}

pub(super) fn report_current_time(payload: &[u8]) -> Result<Report, GattError> {
    let (found, trailing_bytes) = CurrentTime::parse(payload)?;
    let mut report = Report { trailing_bytes, ..Report::default() };
    report.set_time(Some(found.time));
    report.detail("day_of_week", found.day_of_week);
    report.detail("fractions_256", found.fractions_256);
    let reasons = names_of(found.adjust_reason.into(), CurrentTime::ADJUST_REASONS);
    report.detail("adjust_reason", super::Detail::Names(reasons));
    report.rfu_bits = (found.adjust_reason & 0xF0).count_ones();
    Ok(report)
}

/// CTS 1.1, 3.2 (Local Time Information): zone in quarters of an hour, -128 unknown; daylight saving 255 unknown.
pub(super) fn report_local_time(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("local time information", payload);
    let mut report = Report::default();
    zone(&mut reader, &mut report)?;
    report.trailing_bytes = reader.left();
    Ok(report)
}

/// Time zone and daylight saving time.
pub(super) fn zone(reader: &mut Reader<'_>, report: &mut Report) -> Result<(), GattError> {
    let [zone] = reader.array("time zone")?.map(u8::cast_signed);
    let dst = reader.u8("daylight saving time")?;
    report.detail("time_zone_minutes", (zone != i8::MIN).then(|| i16::from(zone) * 15));
    // GSS: quarters of an hour that are added; only these four are defined.
    report.detail("dst_offset_minutes", matches!(dst, 0 | 2 | 4 | 8).then(|| u16::from(dst) * 15));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_written_to_a_sensor_is_local_and_names_its_weekday() {
        // 2026-11-21 is a Saturday.
        let now = Wall::parse("2026-11-21T23:30:05Z").unwrap();
        let written = |offset| CurrentTime::local(now, offset).unwrap().encode();
        assert_eq!(written(0), [0xEA, 7, 11, 21, 23, 30, 5, 6, 0, 2]);
        assert_eq!(written(60), [0xEA, 7, 11, 22, 0, 30, 5, 7, 0, 2]);
        assert_eq!(written(-24 * 60), [0xEA, 7, 11, 20, 23, 30, 5, 5, 0, 2]);
    }

    const NOON: DateTime = DateTime { year: 2026, month: 2, day: 28, hour: 12, minute: 0, second: 5 };

    #[test]
    fn a_time_is_written_as_it_is_read() {
        let set = CurrentTime {
            time: NOON,
            day_of_week: 6,
            fractions_256: 128,
            adjust_reason: CurrentTime::EXTERNAL_REFERENCE,
        };
        assert_eq!(set.encode(), [0xEA, 0x07, 2, 28, 12, 0, 5, 6, 128, 2]);
        assert_eq!(CurrentTime::parse(&set.encode()), Ok((set, 0)));
        let read = report_date_time(&NOON.encode()).unwrap();
        assert_eq!(read.device_time.as_deref(), Some("2026-02-28T12:00:05"));
    }

    #[test]
    fn minutes_carry_over_months_and_a_nonsense_date_stays_alone() {
        assert_eq!(NOON.plus_minutes(720).unwrap().to_string(), "2026-03-01T00:00:05");
        assert_eq!(NOON.plus_minutes(-721).unwrap().to_string(), "2026-02-27T23:59:05");
        assert_eq!(DateTime { month: 13, ..NOON }.plus_minutes(1), None);
        assert_eq!(DateTime { year: 0, ..NOON }.said().as_deref(), Some("0000-02-28T12:00:05"));
        assert_eq!(DateTime { year: 0, month: 0, day: 0, ..NOON }.said(), None);
    }

    #[test]
    fn an_unknown_zone_is_no_zone() {
        let details = |payload: &[u8]| serde_json::to_string(&report_local_time(payload).unwrap().details).unwrap();
        assert_eq!(details(&[4, 4]), r#"{"dst_offset_minutes":60,"time_zone_minutes":60}"#);
        assert_eq!(details(&[0x80, 255]), r#"{"dst_offset_minutes":null,"time_zone_minutes":null}"#);
        assert_eq!(details(&[0xF0, 3]), r#"{"dst_offset_minutes":null,"time_zone_minutes":-240}"#);
    }
}
