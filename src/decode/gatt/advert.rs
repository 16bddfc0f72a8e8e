//! Advertised data: what sensors tell everybody without a connection. Service data and manufacturer data, by the 16-bit
//! number of the service or the company.

use super::date_time::DateTime;
use super::plausible::{Judged, judge};
use super::{GattError, Reader, Report, units};
use crate::profile::ble::AdvertField;
use crate::vitals::{Absent, Decimal, Metric, Quality, Status, Value};

/// One field of an advertisement, without its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertised<'a> {
    /// Service Data - 16-bit UUID (CSS 11, part A, 1.11).
    Service {
        /// The service.
        uuid: u16,
        /// Its data.
        data: &'a [u8],
    },
    /// Manufacturer Specific Data (CSS 11, part A, 1.4).
    Manufacturer {
        /// The company.
        company: u16,
        /// Its data, after the company's number.
        data: &'a [u8],
    },
}

impl<'a> Advertised<'a> {
    /// The data of a field that a profile names.
    pub const fn of(field: AdvertField, data: &'a [u8]) -> Self {
        match field {
            AdvertField::Service(uuid) => Self::Service { uuid, data },
            AdvertField::Manufacturer(company) => Self::Manufacturer { company, data },
        }
    }
}

/// The company number of Polar.
pub const POLAR: u16 = 0x006B;
/// Health Thermometer.
pub const HEALTH_THERMOMETER: u16 = 0x1809;
/// Body Composition, in which the Mi Body Composition Scale 2 sends.
pub const BODY_COMPOSITION: u16 = 0x181B;
/// Weight Scale, in which the first Mi Scale sends.
pub const WEIGHT_SCALE: u16 = 0x181D;

/// What an advertisement says. Sensors repeat theirs many times a second: whoever publishes tells repetitions by
/// `raw`.
pub fn decode(advertised: Advertised<'_>) -> Result<Report, GattError> {
    let (data, mut report) = match advertised {
        Advertised::Manufacturer { company: POLAR, data } => (data, polar(data)?),
        Advertised::Service { uuid: HEALTH_THERMOMETER, data } => (data, thermometer(data)?),
        Advertised::Service { uuid: WEIGHT_SCALE, data } => (data, mi_scale(data)?),
        Advertised::Service { uuid: BODY_COMPOSITION, data } => (data, mi_body_composition(data)?),
        Advertised::Service { uuid, .. } => return Err(GattError::UnknownServiceData(uuid)),
        Advertised::Manufacturer { company, .. } => return Err(GattError::UnknownManufacturer(company)),
    };
    report.raw = data.to_vec();
    Ok(report)
}

/// Polar's heart rate without a connection (H7, H9, H10, watches), as Polar's SDK reads it: status, the band of its
/// 5 kHz transmitter, a rate that follows quickly, and the one that the display shows.
fn polar(data: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("Polar advertisement", data);
    let status = reader.u8("status")?;
    let mut report = Report::default();
    // Bit 6: another kind of data follows, in which there is no heart rate.
    if status & 0x40 != 0 {
        report.trailing_bytes = reader.left();
        return Ok(report);
    }
    let (khz, fast, slow) = (reader.u8("transmitter")?, reader.u8("fast heart rate")?, reader.u8("heart rate")?);
    report.trailing_bytes = reader.left();
    let is_on = status & 0x02 != 0;
    let statuses = (!is_on).then_some(Status::SensorOff).into_iter();
    report.status(statuses.chain((status & 0x01 == 0).then_some(Status::LowBattery)));
    let judged = if is_on {
        judge(Metric::HeartRate, Ok(Decimal::integer(i32::from(slow))), Quality::Valid)
    } else {
        let value = Value::Absent(Absent::SensorOff);
        Judged { metric: Metric::HeartRate, value, quality: Quality::NotAvailable }
    };
    report.vital(judged, None);
    report.detail("battery_ok", status & 0x01 != 0);
    report.detail("contact", is_on);
    report.detail("frame_counter", status >> 2 & 7);
    report.detail("broadcast", status & 0x20 != 0);
    report.detail("transmitter_khz", khz);
    report.detail("heart_rate_fast", fast);
    Ok(report)
}

/// A bare FLOAT in °C, without the flags of 0x2A1C (`FreeTec` PX-1737).
fn thermometer(data: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("thermometer advertisement", data);
    let celsius = reader.float("temperature")?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.vital(judge(Metric::Temperature, celsius, Quality::Valid), None);
    Ok(report)
}

/// The unit in which a Mi Scale shows a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScaleUnit {
    Kilogram,
    Pound,
    /// Half a kilogram.
    Jin,
}

impl ScaleUnit {
    /// In kg. A Mi Scale counts 0.005 kg, 0.01 lb or 0.01 jin, which is 0.005 kg.
    fn kg(self, raw: u16) -> Result<Decimal, Absent> {
        match self {
            Self::Kilogram | Self::Jin => Decimal::new(i64::from(raw) * 5, -3).ok_or(Absent::OutOfRange),
            Self::Pound => units::kg_from_lb(Decimal::new(i64::from(raw), -2).ok_or(Absent::OutOfRange)),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Kilogram => "kg",
            Self::Pound => "lb",
            Self::Jin => "jin",
        }
    }
}

/// Xiaomi Mi Scale: flags, weight, time.
fn mi_scale(data: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("Mi Scale advertisement", data);
    let flags = reader.u8("flags")?;
    let raw = reader.u16("weight")?;
    let time = DateTime::read(&mut reader)?;
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.set_time(Some(time));
    let unit = match flags & 0x11 {
        0x01 => ScaleUnit::Pound,
        0x10 => ScaleUnit::Jin,
        _ => ScaleUnit::Kilogram,
    };
    settled_weight(&mut report, unit, raw, flags & 0x20 != 0, flags & 0x80 != 0);
    Ok(report)
}

/// Xiaomi Mi Body Composition Scale 2: two bytes of flags, time, impedance, weight.
fn mi_body_composition(data: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("Mi Body Composition Scale advertisement", data);
    let (units, flags) = (reader.u8("unit")?, reader.u8("flags")?);
    let time = DateTime::read(&mut reader)?;
    let (impedance, raw) = (reader.u16("impedance")?, reader.u16("weight")?);
    let mut report = Report { trailing_bytes: reader.left(), ..Report::default() };
    report.set_time(Some(time));
    let unit = match (units & 0x01, flags & 0x40) {
        (0, 0) => ScaleUnit::Kilogram,
        (0, _) => ScaleUnit::Jin,
        _ => ScaleUnit::Pound,
    };
    settled_weight(&mut report, unit, raw, flags & 0x20 != 0, flags & 0x80 != 0);
    let is_measured = flags & 0x02 != 0 && impedance != 0;
    report.detail("impedance_ohm", is_measured.then_some(impedance));
    Ok(report)
}

/// The weight counts when the scale has settled; before that, and while somebody steps off, it is any number.
fn settled_weight(report: &mut Report, unit: ScaleUnit, raw: u16, is_settled: bool, is_removed: bool) {
    if is_settled {
        report.vital(judge(Metric::Weight, unit.kg(raw), Quality::Valid), None);
    } else {
        report.detail("unsettled_weight_kg", unit.kg(raw));
    }
    report.detail("stabilized", is_settled);
    report.detail("removed", is_removed);
    report.detail("unit", unit.name());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;

    fn vitals(report: &Report) -> Vec<Value> {
        let value = |decoded: &Decoded| match decoded {
            Decoded::Vital(vital) => Some(vital.vital.leading()),
            _ => None,
        };
        report.decoded.iter().filter_map(value).collect()
    }

    fn service(uuid: u16, data: &str) -> Report {
        decode(Advertised::Service { uuid, data: &hex::bytes(data).unwrap() }).unwrap()
    }

    fn from_polar(data: &[u8]) -> Report {
        decode(Advertised::Manufacturer { company: POLAR, data }).unwrap()
    }

    #[test]
    fn a_polar_strap_tells_its_rate_unless_it_is_off() {
        assert_eq!(vitals(&from_polar(&[0x3B, 0x1B, 0x54, 0x52])), [Value::Valid(Decimal::integer(82))]);
        let off = from_polar(&[0x39, 0x1B, 0x54, 0x52]);
        assert_eq!(vitals(&off), [Value::Absent(Absent::SensorOff)]);
        assert_eq!(off.decoded.first(), Some(&Decoded::Status([Status::SensorOff].into())));
        assert_eq!(from_polar(&[0x3A, 0, 0, 60]).decoded.first(), Some(&Decoded::Status([Status::LowBattery].into())));
        assert!(from_polar(&[0x7B, 0x1B]).decoded.is_empty());
    }

    #[test]
    fn only_a_settled_weight_counts() {
        let unsettled = service(WEIGHT_SCALE, "821400e507040b101708");
        assert!(vitals(&unsettled).is_empty());
        assert_eq!(serde_json::to_string(&unsettled.details["unsettled_weight_kg"]).unwrap(), "0.100");
        let weight = |uuid, data: &str| vitals(&service(uuid, data))[0].valid().unwrap().to_string();
        assert_eq!(weight(WEIGHT_SCALE, "229e43e507040b101301"), "86.550");
        // 173.10 jin, 190.81 lb.
        assert_eq!(weight(WEIGHT_SCALE, "329e43e507040b101301"), "86.550");
        assert_eq!(weight(WEIGHT_SCALE, "23894ae507040b101301"), "86.550");
        assert_eq!(weight(BODY_COMPOSITION, "0226b20705040f0201ac018642"), "85.150");
        assert_eq!(weight(BODY_COMPOSITION, "0266b20705040f0201ac018642"), "85.150");
        assert_eq!(weight(BODY_COMPOSITION, "0326b20705040f0201ac01894a"), "86.550");
    }

    #[test]
    fn a_thermometer_advertises_a_bare_float() {
        assert_eq!(vitals(&service(HEALTH_THERMOMETER, "6c0100ff"))[0].valid().unwrap().to_string(), "36.4");
    }

    #[test]
    fn what_is_not_known_says_its_number() {
        let error = decode(Advertised::Service { uuid: 0xFE95, data: &[] }).unwrap_err().to_string();
        assert_eq!(error, "service data of 0xFE95 is not known");
        let error = decode(Advertised::Manufacturer { company: 0x004C, data: &[] }).unwrap_err().to_string();
        assert_eq!(error, "manufacturer data of company 0x004C is not known");
    }
}
