//! Temperature Measurement (0x2A1C), Intermediate Temperature (0x2A1E), Temperature Type (0x2A1D) and Measurement
//! Interval (0x2A21) of the Health Thermometer Service 1.0.

use super::date_time::DateTime;
use super::plausible::judge;
use super::{GattError, Reader, Report, units};
use crate::vitals::{Absent, Decimal, Metric, Quality};

/// The fields of a packet, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Temperature {
    /// True: °F, false: °C.
    pub is_fahrenheit: bool,
    /// The temperature in that unit.
    pub value: Result<Decimal, Absent>,
    /// The device's local time.
    pub device_time: Option<DateTime>,
    /// Where it was measured, see [`site`].
    pub site: Option<u8>,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// HTS 1.0, 3.1.1 and 3.2: the name of a site and its code (ISO/IEEE 11073-10408, table 2); `None`: reserved.
pub const fn site(number: u8) -> Option<(&'static str, u32)> {
    match number {
        1 => Some(("armpit", 188_452)),
        2 => Some(("body", 150_364)),
        3 => Some(("ear", 188_428)),
        4 => Some(("finger", 188_432)),
        5 => Some(("gastro_intestinal_tract", 188_456)),
        6 => Some(("mouth", 188_424)),
        7 => Some(("rectum", 188_420)),
        8 => Some(("toe", 188_448)),
        9 => Some(("tympanum", 150_392)),
        _ => None,
    }
}

/// Reads a packet of 0x2A1C or 0x2A1E.
pub fn parse(payload: &[u8]) -> Result<Temperature, GattError> {
    let mut reader = Reader::new("temperature", payload);
    let flags = reader.u8("flags")?;
    // HTS 1.0, 3.1.1: the order is temperature, time, type.
    let value = reader.float("temperature")?;
    let device_time = reader.when(flags & 0x02 != 0, DateTime::read)?;
    let site = reader.when(flags & 0x04 != 0, |reader| reader.u8("temperature type"))?;
    Ok(Temperature {
        is_fahrenheit: flags & 0x01 != 0,
        value,
        device_time,
        site,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xF8,
    })
}

impl Temperature {
    /// The temperature, with the code of its site. One without a number has failed.
    pub fn report(&self) -> Report {
        let mut report = self.begin();
        match self.value {
            Err(reason) => report.failed(Metric::Temperature, reason, []),
            Ok(_) => self.add_vital(&mut report, Quality::Valid),
        }
        report
    }

    /// A temperature while the measurement goes on.
    pub fn report_intermediate(&self) -> Report {
        let mut report = self.begin();
        self.add_vital(&mut report, Quality::Ongoing);
        report
    }

    fn begin(&self) -> Report {
        let rfu_bits = self.rfu_flags.count_ones();
        let mut report = Report { rfu_bits, trailing_bytes: self.trailing_bytes, ..Report::default() };
        report.set_time(self.device_time);
        if let Some(number) = self.site {
            report.detail("temperature_type", site(number).map_or("reserved", |(name, _)| name));
        }
        if self.is_fahrenheit {
            report.detail("temperature_fahrenheit", self.value);
        }
        report
    }

    fn add_vital(&self, report: &mut Report, quality: Quality) {
        let celsius = if self.is_fahrenheit { units::celsius_from_fahrenheit(self.value) } else { self.value };
        let mdc = self.site.and_then(site).map(|(_, mdc)| mdc).filter(|mdc| *mdc != Metric::Temperature.info().mdc);
        report.vital(judge(Metric::Temperature, celsius, quality), mdc);
    }
}

/// A value of Temperature Type (0x2A1D).
pub(super) fn report_type(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("temperature type", payload);
    let number = reader.u8("temperature type")?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.detail("temperature_type", site(number).map_or("reserved", |(name, _)| name));
    Ok(report)
}

/// A value of Measurement Interval (0x2A21), in s; 0: only when somebody measures.
pub(super) fn report_interval(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("measurement interval", payload);
    let seconds = reader.u16("interval")?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.detail("measurement_interval_s", seconds);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;
    use crate::vitals::Value;

    fn report(payload: &str) -> Report {
        parse(&hex::bytes(payload).unwrap()).unwrap().report()
    }

    #[test]
    fn a_temperature_keeps_its_digits_and_says_its_site_by_its_code() {
        let found = report("06e70d00fee107081e08311e01");
        let [Decoded::Vital(vital)] = found.decoded.as_slice() else { panic!("{found:?}") };
        assert_eq!(vital.vital.leading().valid().unwrap().to_string(), "35.59");
        assert_eq!(vital.mdc, Some(188_452));
        assert_eq!(vital.device_time.as_deref(), Some("2017-08-30T08:49:30"));
        // A body temperature has the metric's own code, a reserved site none of its own.
        for payload in ["06680100ffe207030a15340002", "06680100ffe207030a15340014"] {
            let Some(Decoded::Vital(vital)) = report(payload).decoded.pop() else { panic!() };
            assert_eq!(vital.mdc, None);
        }
    }

    #[test]
    fn fahrenheit_becomes_celsius_and_is_kept_beside_it() {
        let found = report("01da0300ff");
        let [Decoded::Vital(vital)] = found.decoded.as_slice() else { panic!("{found:?}") };
        assert_eq!(vital.vital.leading().valid().unwrap().to_string(), "37.00");
        assert_eq!(serde_json::to_string(&found.details).unwrap(), r#"{"temperature_fahrenheit":98.6}"#);
    }

    #[test]
    fn no_number_is_a_failure_at_the_end_and_absent_on_the_way() {
        let packet = parse(&hex::bytes("00ffff7f00").unwrap()).unwrap();
        assert!(matches!(packet.report().decoded.as_slice(), [Decoded::MeasurementFailed(_)]));
        let Some(Decoded::Vital(vital)) = packet.report_intermediate().decoded.pop() else { panic!() };
        assert_eq!(vital.vital.leading(), Value::Absent(Absent::NotANumber));
    }

    #[test]
    fn an_oven_is_implausible() {
        let Some(Decoded::Vital(vital)) = report("00b4000000").decoded.pop() else { panic!() };
        assert_eq!((vital.vital.leading(), vital.quality), (Value::Valid(Decimal::integer(180)), Quality::Implausible));
    }
}
