//! PLX Spot-check Measurement (0x2A5E), PLX Continuous Measurement (0x2A5F) and PLX Features (0x2A60) of the Pulse
//! Oximeter Service 1.0.1.

use super::date_time::DateTime;
use super::plausible::{Judged, judge};
use super::report::{Detail, names_of, statuses_of};
use super::{GattError, Reader, Report};
use crate::vitals::{Absent, Decimal, Metric, Quality, Status, Value};

/// A number as sent, or its special value.
type Sent = Result<Decimal, Absent>;

/// Oxygen saturation in % and pulse rate in beats a minute.
type Pair = (Sent, Sent);

/// The fields of a packet of either kind, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oximetry {
    /// True: one measurement for itself; false: one of a series.
    pub is_spot: bool,
    /// Oxygen saturation, %.
    pub spo2: Sent,
    /// Pulse rate, beats a minute.
    pub pulse_rate: Sent,
    /// Both with the device's quick averaging.
    pub fast: Option<Pair>,
    /// Both with the device's slow averaging.
    pub slow: Option<Pair>,
    /// The device's local time.
    pub device_time: Option<DateTime>,
    /// Measurement status bits.
    pub measurement_status: Option<u16>,
    /// Device and sensor status bits, 24 of them.
    pub device_status: Option<u32>,
    /// Pulse amplitude index, %.
    pub pulse_amplitude: Option<Sent>,
    /// True: the device says that its clock was never set.
    pub clock_not_set: bool,
    /// Bytes after the last field.
    pub trailing_bytes: usize,
    /// Flags that are reserved and were set.
    pub rfu_flags: u8,
}

/// PLXS 1.0.1, 3.1.1: the measurement status; bits 0 to 4 are reserved.
const MEASUREMENT_STATUS: &[(u32, &str)] = &[
    (5, "measurement_ongoing"),
    (6, "early_estimate"),
    (7, "validated_data"),
    (8, "fully_qualified_data"),
    (9, "from_measurement_storage"),
    (10, "data_for_demonstration"),
    (11, "data_for_testing"),
    (12, "calibration_ongoing"),
    (13, "measurement_unavailable"),
    (14, "questionable_measurement"),
    (15, "invalid_measurement"),
];

/// PLXS 1.0.1, 3.1.1: the device and sensor status; bits 16 to 23 are reserved.
const DEVICE_STATUS: &[(u32, &str)] = &[
    (0, "extended_display_update_ongoing"),
    (1, "equipment_malfunction"),
    (2, "signal_processing_irregularity"),
    (3, "inadequate_signal"),
    (4, "poor_signal"),
    (5, "low_perfusion"),
    (6, "erratic_signal"),
    (7, "nonpulsatile_signal"),
    (8, "questionable_pulse"),
    (9, "signal_analysis_ongoing"),
    (10, "sensor_interference"),
    (11, "sensor_unconnected_to_user"),
    (12, "unknown_sensor_connected"),
    (13, "sensor_displaced"),
    (14, "sensor_malfunctioning"),
    (15, "sensor_disconnected"),
];

/// The same bits in the one vocabulary of statuses.
const STATUSES: &[(u32, Status)] = &[
    (1, Status::SensorFault),
    (2, Status::LowQuality),
    (3, Status::LowQuality),
    (4, Status::LowQuality),
    (5, Status::LowPerfusion),
    (6, Status::Artifact),
    (7, Status::LowQuality),
    (8, Status::LowQuality),
    (10, Status::Artifact),
    (11, Status::SensorOff),
    (12, Status::LowQuality),
    (13, Status::SensorOff),
    (14, Status::SensorFault),
    (15, Status::NoSensor),
];

/// Statuses with which no number can be about the patient: it is withheld. The gravest first.
const WITHHELD: &[(u32, Absent)] = &[
    (15, Absent::NoSensor),
    (11, Absent::SensorOff),
    (13, Absent::SensorOff),
    (14, Absent::SensorFault),
    (1, Absent::SensorFault),
];

const DEMONSTRATION: u16 = 1 << 10;
const TESTING: u16 = 1 << 11;
const UNAVAILABLE: u16 = 1 << 13;
/// Device statuses 2 to 8, 10 and 12.
const DOUBTED_BY_DEVICE: u32 = 0x15FC;

/// Reads a spot-check packet (0x2A5E).
pub fn parse_spot(payload: &[u8]) -> Result<Oximetry, GattError> {
    let mut reader = Reader::new("pulse oximeter spot-check", payload);
    let flags = reader.u8("flags")?;
    // PLXS 1.0.1, 3.1: the order is SpO2 and pulse rate, time, measurement status, device status, amplitude.
    let (spo2, pulse_rate) = pair(&mut reader)?;
    let device_time = reader.when(flags & 0x01 != 0, DateTime::read)?;
    let measurement_status = reader.when(flags & 0x02 != 0, |reader| reader.u16("measurement status"))?;
    let device_status = reader.when(flags & 0x04 != 0, |reader| reader.u24("device and sensor status"))?;
    let pulse_amplitude = reader.when(flags & 0x08 != 0, |reader| reader.sfloat("pulse amplitude index"))?;
    Ok(Oximetry {
        is_spot: true,
        spo2,
        pulse_rate,
        fast: None,
        slow: None,
        device_time,
        measurement_status,
        device_status,
        pulse_amplitude,
        clock_not_set: flags & 0x10 != 0,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xE0,
    })
}

/// Reads a continuous packet (0x2A5F).
pub fn parse_continuous(payload: &[u8]) -> Result<Oximetry, GattError> {
    let mut reader = Reader::new("pulse oximeter continuous", payload);
    let flags = reader.u8("flags")?;
    // PLXS 1.0.1, 3.2: the order is normal, fast, slow, measurement status, device status, amplitude.
    let (spo2, pulse_rate) = pair(&mut reader)?;
    let fast = reader.when(flags & 0x01 != 0, pair)?;
    let slow = reader.when(flags & 0x02 != 0, pair)?;
    let measurement_status = reader.when(flags & 0x04 != 0, |reader| reader.u16("measurement status"))?;
    // Three bytes, of which several public readers take two.
    let device_status = reader.when(flags & 0x08 != 0, |reader| reader.u24("device and sensor status"))?;
    let pulse_amplitude = reader.when(flags & 0x10 != 0, |reader| reader.sfloat("pulse amplitude index"))?;
    Ok(Oximetry {
        is_spot: false,
        spo2,
        pulse_rate,
        fast,
        slow,
        device_time: None,
        measurement_status,
        device_status,
        pulse_amplitude,
        clock_not_set: false,
        trailing_bytes: reader.left(),
        rfu_flags: flags & 0xE0,
    })
}

fn pair(reader: &mut Reader<'_>) -> Result<Pair, GattError> {
    Ok((reader.sfloat("SpO2")?, reader.sfloat("pulse rate")?))
}

impl Oximetry {
    /// Status, SpO2, pulse rate, perfusion. A spot check without any number has failed; in a series that is a finger
    /// that is out. What a device shows for demonstration or for testing is about no patient: it is an event, and its
    /// numbers are details.
    pub fn report(&self) -> Report {
        let (measurement, device) = (self.measurement_status.unwrap_or(0), self.device_status.unwrap_or(0));
        let rfu = u32::from(self.rfu_flags).count_ones()
            + (measurement & 0x001F).count_ones()
            + (device & 0x00FF_0000).count_ones();
        let mut report = Report { rfu_bits: rfu, trailing_bytes: self.trailing_bytes, ..Report::default() };
        self.add_time(&mut report);
        if self.device_status.is_some() {
            report.status(statuses_of(device, STATUSES));
        }
        self.add_details(&mut report);
        if measurement & (DEMONSTRATION | TESTING) != 0 {
            let name = if measurement & DEMONSTRATION == 0 { "data_for_testing" } else { "data_for_demonstration" };
            report.event(name);
            report.detail("spo2", self.spo2);
            report.detail("pulse_rate", self.pulse_rate);
        } else if self.is_spot && self.spo2.is_err() && self.pulse_rate.is_err() {
            let causes =
                names_of(device, DEVICE_STATUS).into_iter().chain(names_of(measurement.into(), MEASUREMENT_STATUS));
            report.failed(Metric::Spo2, self.spo2.err().unwrap_or(Absent::NotANumber), causes);
        } else {
            self.add_vitals(&mut report);
        }
        report
    }

    /// A clock that was never set says nothing, be its date ever so likely (a `ChoiceMMed` says 2017).
    fn add_time(&self, report: &mut Report) {
        if self.clock_not_set {
            report.detail("clock_not_set", true);
            report.detail_if("unset_clock_said", self.device_time.map(|time| time.to_string()));
        } else {
            report.set_time(self.device_time);
        }
    }

    fn add_details(&self, report: &mut Report) {
        if let Some(bits) = self.measurement_status {
            report.detail("measurement_status", Detail::Names(names_of(bits.into(), MEASUREMENT_STATUS)));
        }
        if let Some(bits) = self.device_status {
            report.detail("device_status", Detail::Names(names_of(bits, DEVICE_STATUS)));
        }
        for (pair, spo2, pulse_rate) in
            [(self.fast, "spo2_fast", "pulse_rate_fast"), (self.slow, "spo2_slow", "pulse_rate_slow")]
        {
            if let Some(pair) = pair {
                report.detail(spo2, pair.0);
                report.detail(pulse_rate, pair.1);
            }
        }
    }

    fn add_vitals(&self, report: &mut Report) {
        let quality = self.quality();
        let amplitude = self.pulse_amplitude.map(|sent| (Metric::PerfusionIndex, sent));
        for (metric, sent) in
            [(Metric::Spo2, self.spo2), (Metric::PulseRate, self.pulse_rate)].into_iter().chain(amplitude)
        {
            let judged = match self.withheld() {
                Some(reason) => Judged { metric, value: Value::Absent(reason), quality: Quality::NotAvailable },
                None => judge(metric, sent, quality),
            };
            report.vital(judged, None);
        }
    }

    fn withheld(&self) -> Option<Absent> {
        let device = self.device_status.unwrap_or(0);
        let found = WITHHELD.iter().find(|(bit, _)| device >> bit & 1 == 1).map(|(_, reason)| *reason);
        found.or((self.measurement_status.unwrap_or(0) & UNAVAILABLE != 0).then_some(Absent::NotMeasured))
    }

    /// The gravest doubt counts. "Ongoing" says nothing in a series, where it always is.
    fn quality(&self) -> Quality {
        let (measurement, device) = (self.measurement_status.unwrap_or(0), self.device_status.unwrap_or(0));
        let is_set = |bit: u32| measurement >> bit & 1 == 1;
        if is_set(15) {
            Quality::Invalid
        } else if is_set(12) {
            Quality::Calibrating
        } else if is_set(9) {
            Quality::Historic
        } else if is_set(6) || is_set(14) || device & DOUBTED_BY_DEVICE != 0 {
            Quality::Questionable
        } else if self.is_spot && is_set(5) && !is_set(7) && !is_set(8) {
            Quality::Ongoing
        } else {
            Quality::Valid
        }
    }
}

/// PLXS 1.0.1, 3.3: what a device supports.
const FEATURES: &[(u32, &str)] = &[
    (0, "measurement_status"),
    (1, "device_and_sensor_status"),
    (2, "measurement_storage"),
    (3, "timestamp"),
    (4, "fast"),
    (5, "slow"),
    (6, "pulse_amplitude_index"),
    (7, "multiple_bonds"),
];

/// A value of PLX Features (0x2A60).
pub(super) fn report_features(payload: &[u8]) -> Result<Report, GattError> {
    let mut reader = Reader::new("pulse oximeter features", payload);
    let bits = reader.u16("supported features")?;
    let measurement = reader.when(bits & 1 != 0, |reader| reader.u16("supported measurement status"))?;
    let device = reader.when(bits & 2 != 0, |reader| reader.u24("supported device and sensor status"))?;
    let rfu = (bits & 0xFF00).count_ones()
        + (measurement.unwrap_or(0) & 0x001F).count_ones()
        + (device.unwrap_or(0) & 0x00FF_0000).count_ones();
    let mut report = Report { rfu_bits: rfu, trailing_bytes: reader.left(), ..Report::default() };
    report.detail("features", Detail::Names(names_of(bits.into(), FEATURES)));
    let names = |bits, table| Detail::Names(names_of(bits, table));
    report.detail_if("supported_measurement_status", measurement.map(|bits| names(bits.into(), MEASUREMENT_STATUS)));
    report.detail_if("supported_device_status", device.map(|bits| names(bits, DEVICE_STATUS)));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoded;
    use crate::profile::hex;

    /// `metric value quality` of each vital; `failed` and events by their names.
    fn said(report: &Report) -> Vec<String> {
        let line = |decoded: &Decoded| match decoded {
            Decoded::Vital(vital) => {
                let value = match vital.vital.leading() {
                    Value::Valid(number) => number.to_string(),
                    Value::Absent(reason) => reason.name().to_owned(),
                };
                format!("{} {value} {}", vital.vital.metric(), vital.quality)
            }
            Decoded::MeasurementFailed(failed) => format!("{} failed: {}", failed.metric, failed.causes.join(" ")),
            Decoded::Event { name } => name.to_string(),
            Decoded::Status(status) => status.iter().map(|status| status.name()).collect::<Vec<_>>().join("+"),
            other => panic!("{other:?}"),
        };
        report.decoded.iter().map(line).collect()
    }

    fn continuous(payload: &str) -> Vec<String> {
        said(&parse_continuous(&hex::bytes(payload).unwrap()).unwrap().report())
    }

    fn spot(payload: &str) -> Vec<String> {
        said(&parse_spot(&hex::bytes(payload).unwrap()).unwrap().report())
    }

    #[test]
    fn a_finger_that_is_out_is_absent_in_a_series_and_a_failure_of_a_spot_check() {
        assert_eq!(
            continuous("00ff07ff07"),
            ["spo2 not_a_number not_available", "pulse_rate not_a_number not_available"]
        );
        assert_eq!(spot("00ff07ff07"), ["spo2 failed: "]);
        assert_eq!(
            spot("06ff07ff0700200008 00"),
            ["sensor_off", "spo2 failed: sensor_unconnected_to_user measurement_unavailable"]
        );
    }

    #[test]
    fn numbers_of_a_sensor_that_is_off_broken_or_missing_are_withheld() {
        for (status, shown, reason) in [
            ("000800", "sensor_off", "sensor_off"),
            ("002000", "sensor_off", "sensor_off"),
            ("004000", "sensor_fault", "sensor_fault"),
            ("020000", "sensor_fault", "sensor_fault"),
            ("008800", "no_sensor+sensor_off", "no_sensor"),
        ] {
            let vitals = [format!("spo2 {reason} not_available"), format!("pulse_rate {reason} not_available")];
            assert_eq!(
                continuous(&format!("0861003c00{status}")),
                [shown.to_owned(), vitals[0].clone(), vitals[1].clone()],
                "{status}"
            );
        }
    }

    #[test]
    fn the_device_says_how_far_it_trusts_its_numbers() {
        for (status, quality) in [
            ("2000", "valid"),
            ("a000", "valid"),
            ("4000", "questionable"),
            ("0040", "questionable"),
            ("0002", "historic"),
            ("0010", "calibrating"),
            ("00c0", "invalid"),
        ] {
            let vitals = [format!("spo2 97 {quality}"), format!("pulse_rate 60 {quality}")];
            assert_eq!(continuous(&format!("0461003c00{status}")), vitals, "{status}");
        }
        assert_eq!(spot("0261003c002000")[0], "spo2 97 ongoing");
        assert_eq!(spot("0261003c002001")[0], "spo2 97 valid");
        assert_eq!(continuous("0461003c000020")[0], "spo2 not_measured not_available");
        assert_eq!(
            continuous("0861003c00200000"),
            ["low_perfusion", "spo2 97 questionable", "pulse_rate 60 questionable"]
        );
    }

    #[test]
    fn what_is_shown_for_demonstration_or_testing_is_no_vital() {
        assert_eq!(continuous("0461003c000004"), ["data_for_demonstration"]);
        assert_eq!(spot("0261003c000008"), ["data_for_testing"]);
        let report = parse_spot(&hex::bytes("0261003c000008").unwrap()).unwrap().report();
        assert_eq!(report.details["spo2"], Detail::Number(Decimal::integer(97)));
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        let report = parse_spot(&hex::bytes("1761006000e10701010122132000200000").unwrap()).unwrap().report();
        assert_eq!(report.device_time, None);
        assert_eq!(report.details["unset_clock_said"], Detail::Text("2017-01-01T01:34:19".to_owned()));
    }

    #[test]
    fn more_than_all_oxygen_is_kept_and_marked() {
        assert_eq!(continuous("0065003c00")[0], "spo2 101 implausible");
    }
}
