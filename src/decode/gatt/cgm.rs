//! CGM Measurement (0x2AA7) of the Continuous Glucose Monitoring Service 1.0.2: one or more records of glucose in
//! interstitial fluid.

use std::collections::BTreeSet;

use super::date_time::{self, DateTime};
use super::plausible::judge;
use super::report::{Detail, Details, names_of};
use super::{GattError, Reader, Report};
use crate::vitals::{Absent, Decimal, MDC_GLUCOSE_ISF, Metric, Quality, Status};

/// The fields of one record, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Glucose in mg/dL.
    pub glucose: Result<Decimal, Absent>,
    /// Minutes since the session began.
    pub offset_min: u16,
    /// Status, calibration and warning octets: bits 0 to 7, 8 to 15 and 16 to 23.
    pub annunciation: u32,
    /// Trend in mg/dL a minute.
    pub trend: Option<Result<Decimal, Absent>>,
    /// Quality in %.
    pub quality: Option<Result<Decimal, Absent>>,
    /// True: a checksum was sent, and it holds.
    pub has_crc: bool,
    /// Bytes after the last field that the size counts in.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// CGMS 1.0.2, 3.1.1: the sensor status annunciation.
const ANNUNCIATION: &[(u32, &str)] = &[
    (0, "session_stopped"),
    (1, "device_battery_low"),
    (2, "sensor_type_incorrect"),
    (3, "sensor_malfunction"),
    (4, "device_specific_alert"),
    (5, "general_device_fault"),
    (8, "time_synchronization_required"),
    (9, "calibration_not_allowed"),
    (10, "calibration_recommended"),
    (11, "calibration_required"),
    (12, "temperature_too_high"),
    (13, "temperature_too_low"),
    (16, "below_patient_low_level"),
    (17, "above_patient_high_level"),
    (18, "below_hypo_level"),
    (19, "above_hyper_level"),
    (20, "rate_of_decrease_exceeded"),
    (21, "rate_of_increase_exceeded"),
    (22, "result_too_low"),
    (23, "result_too_high"),
];

/// Bits 6, 7, 14 and 15.
const RESERVED: u32 = 0x0000_C0C0;
/// Session stopped, wrong or broken sensor, device fault, sensor too warm or too cold.
const FAULTS: u32 = 0x0000_302D;

/// CRC-16/MCRF4XX (CGMS 1.0.2, E2E-CRC): polynomial 0x8408 reflected, start 0xFFFF.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |start, byte| {
        (0..8).fold(start ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x8408 } else { crc >> 1 })
    })
}

/// Reads the records of a packet. Each begins with its size, which counts itself.
pub fn parse(payload: &[u8]) -> Result<Vec<Record>, GattError> {
    let mut records = Vec::new();
    let mut rest = payload;
    // The size is at least 6, so there are no more than a sixth as many records as bytes.
    while !rest.is_empty() || records.is_empty() {
        let size = usize::from(rest.first().copied().unwrap_or(0));
        let has = rest.len();
        let at = payload.len() - has;
        let (bytes, later) = rest.split_at_checked(size).ok_or(GattError::Short {
            what: "CGM measurement",
            field: "record",
            at,
            has: payload.len(),
            needs: at.saturating_add(size),
        })?;
        records.push(record(bytes)?);
        rest = later;
    }
    Ok(records)
}

fn record(bytes: &[u8]) -> Result<Record, GattError> {
    let mut reader = Reader::new("CGM measurement", bytes);
    reader.u8("size")?;
    let flags = reader.u8("flags")?;
    let glucose = reader.sfloat("glucose concentration")?;
    let offset_min = reader.u16("time offset")?;
    // CGMS 1.0.2, 3.1.1: the octets come in the order status, calibration and temperature, warning.
    let status = reader.when(flags & 0x80 != 0, |reader| reader.u8("status octet"))?.unwrap_or(0);
    let calibration = reader.when(flags & 0x40 != 0, |reader| reader.u8("calibration octet"))?.unwrap_or(0);
    let warning = reader.when(flags & 0x20 != 0, |reader| reader.u8("warning octet"))?.unwrap_or(0);
    let trend = reader.when(flags & 0x01 != 0, |reader| reader.sfloat("trend"))?;
    let quality = reader.when(flags & 0x02 != 0, |reader| reader.sfloat("quality"))?;
    // Whether there is a checksum stands in another characteristic (0x2AA8, bit 12); the size tells it too.
    let has_crc = reader.left() == 2;
    let (at, mut trailing_bytes) = (reader.at(), reader.left());
    if has_crc {
        let (computed, found) = (crc(bytes.get(..at).unwrap_or(&[])), reader.u16("checksum")?);
        if computed != found {
            return Err(GattError::Checksum { what: "CGM measurement", computed, found });
        }
        trailing_bytes = 0;
    }
    Ok(Record {
        glucose,
        offset_min,
        annunciation: u32::from_le_bytes([status, calibration, warning, 0]),
        trend,
        quality,
        has_crc,
        trailing_bytes,
        rfu_flags: flags & 0x1C,
    })
}

impl Record {
    fn is_set(&self, bit: u32) -> bool {
        self.annunciation >> bit & 1 == 1
    }

    fn statuses(&self) -> impl Iterator<Item = Status> {
        let broken = (self.is_set(3) || self.is_set(5)).then_some(Status::SensorFault);
        let battery = self.is_set(1).then_some(Status::LowBattery);
        // The alarms of the device itself: bits 4 and 16 to 21.
        let alarm = (self.annunciation & 0x003F_0010 != 0).then_some(Status::DeviceAlarm);
        broken.into_iter().chain(battery).chain(alarm)
    }

    fn said(&self) -> Quality {
        if self.annunciation & FAULTS != 0 {
            Quality::Invalid
        } else if self.is_set(23) {
            Quality::Overflow
        } else if self.is_set(22) {
            Quality::Underflow
        } else if self.is_set(11) {
            Quality::Questionable
        } else {
            Quality::Valid
        }
    }

    fn details(&self) -> Details {
        let mut details = Details::from([
            ("glucose_mg_dl", self.glucose.into()),
            ("time_offset_min", self.offset_min.into()),
            ("annunciation", Detail::Names(names_of(self.annunciation, ANNUNCIATION))),
            ("has_crc", self.has_crc.into()),
        ]);
        for (name, sent) in [("trend_mg_dl_min", self.trend), ("quality_pct", self.quality)] {
            details.extend(sent.map(|sent| (name, sent.into())));
        }
        details
    }
}

/// Status, and the glucose of each record in the order in which they were sent. The time of a record is minutes since
/// the session began (0x2AAA), no time of day.
pub(super) fn report(payload: &[u8]) -> Result<Report, GattError> {
    let records = parse(payload)?;
    let mut report = Report {
        rfu_bits: records
            .iter()
            .map(|record| record.rfu_flags.count_ones() + (record.annunciation & RESERVED).count_ones())
            .sum(),
        trailing_bytes: records.iter().map(|record| record.trailing_bytes).sum(),
        ..Report::default()
    };
    report.status(records.iter().flat_map(Record::statuses).collect::<BTreeSet<_>>());
    for record in &records {
        match record.glucose {
            Ok(_) => report.vital(judge(Metric::Glucose, record.glucose, record.said()), Some(MDC_GLUCOSE_ISF)),
            Err(reason) => report.failed(Metric::Glucose, reason, names_of(record.annunciation, ANNUNCIATION)),
        }
    }
    report.detail("records", Detail::Records(records.iter().map(Record::details).collect()));
    Ok(report)
}

/// A value of CGM Session Start Time (0x2AAA): local time, zone in quarters of an hour, daylight saving, and on some
/// devices a checksum. The offsets of records count from here.
pub(super) fn report_start(payload: &[u8]) -> Result<Report, GattError> {
    const WHAT: &str = "CGM session start time";
    let mut reader = Reader::new(WHAT, payload);
    let time = DateTime::read(&mut reader)?;
    let mut report = Report::default();
    report.set_time(Some(time));
    date_time::zone(&mut reader, &mut report)?;
    let at = reader.at();
    report.trailing_bytes = reader.left();
    if reader.left() == 2 {
        let (computed, found) = (crc(payload.get(..at).unwrap_or(&[])), reader.u16("checksum")?);
        if computed != found {
            return Err(GattError::Checksum { what: WHAT, computed, found });
        }
        report.trailing_bytes = 0;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;

    fn said(payload: &str) -> Result<Report, GattError> {
        report(&hex::bytes(payload).unwrap())
    }

    #[test]
    fn every_record_of_a_packet_counts() {
        let found = said("06000c10060006000c100700").unwrap();
        let vitals: Vec<String> = found
            .decoded
            .iter()
            .filter_map(|decoded| match decoded {
                Decoded::Vital(vital) => Some(vital.vital.leading().valid().unwrap().to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(vitals, ["120", "120"]);
        assert_eq!(parse(&hex::bytes("06000c10060006000c100700").unwrap()).unwrap()[1].offset_min, 7);
    }

    #[test]
    fn a_checksum_that_is_there_must_hold() {
        assert!(said("0fe3d2e405000214ff02f0e5f38e3f").is_ok());
        let error = said("0fe3d2e405000214ff02f0e5f38e3e").unwrap_err().to_string();
        assert_eq!(error, "CGM measurement packet has the checksum 0x3E8E, must have 0x3F8E");
        // One byte more is no checksum.
        assert_eq!(said("07000c10060000").unwrap().trailing_bytes, 1);
    }

    #[test]
    fn a_size_that_cannot_be_is_an_error() {
        for payload in ["", "00", "0500000000", "0700000000", "06000c10060006000c", "06000c1006000000"] {
            assert!(matches!(said(payload), Err(GattError::Short { .. })), "{payload}");
        }
    }

    #[test]
    fn a_session_says_when_it_began() {
        let start = [0xEA, 0x07, 8, 11, 12, 0, 0, 4, 4];
        let report = report_start(&start).unwrap();
        assert_eq!(report.device_time.as_deref(), Some("2026-08-11T12:00:00"));
        assert_eq!(report.details["time_zone_minutes"], 60_u8.into());
        let with_crc = [&start[..], &crc(&start).to_le_bytes()].concat();
        assert_eq!(report_start(&with_crc).unwrap(), report);
        let bad = [&start[..], &[0, 0]].concat();
        assert!(matches!(report_start(&bad), Err(GattError::Checksum { .. })));
    }

    #[test]
    fn the_sensor_says_what_it_thinks_of_its_number() {
        for (octet, quality) in [
            ("8001", Quality::Invalid),
            ("8002", Quality::Valid),
            ("4008", Quality::Questionable),
            ("2040", Quality::Underflow),
            ("2080", Quality::Overflow),
            ("2004", Quality::Valid),
        ] {
            let (flags, bits) = octet.split_at(2);
            let Some(Decoded::Vital(vital)) = said(&format!("07{flags}0c100600{bits}")).unwrap().decoded.pop() else {
                panic!("{octet}")
            };
            assert_eq!((vital.quality, vital.mdc), (quality, Some(MDC_GLUCOSE_ISF)), "{octet}");
        }
        let failed = said("0780ff07060008").unwrap().decoded.pop();
        let Some(Decoded::MeasurementFailed(failed)) = failed else { panic!("{failed:?}") };
        assert_eq!(failed.causes, ["sensor_malfunction"]);
    }
}
