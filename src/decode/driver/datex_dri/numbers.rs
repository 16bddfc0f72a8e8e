//! The basic class of the physiological database (8005313, 3.5): groups of 16-bit numbers, each with a status.

use std::collections::BTreeSet;

use super::record::{i16_at, u16_at, u32_at};
use crate::vitals::{Absent, Decimal, MDC_PULSE_RATE_CUFF, Metric, Pressure, Quality, Status, Value, Vital};

/// Bytes of a subrecord with displayed or trended values (8005313, 3.2).
pub(super) const SUBRECORD: usize = 278;
/// Numbers from here down are no measurements (3.4).
const LOWEST_SPECIAL: i16 = -32001;

/// Places of the groups in the subrecord: the 4 bytes of its time, then the structure of 3.5.
mod at {
    pub(super) const ECG: usize = 4;
    pub(super) const PRESSURES: [usize; 6] = [20, 34, 48, 62, 244, 258];
    pub(super) const NIBP: usize = 76;
    pub(super) const TEMPERATURES: [usize; 4] = [90, 98, 106, 114];
    pub(super) const SPO2: usize = 122;
    pub(super) const CO2: usize = 136;
    pub(super) const O2: usize = 150;
    pub(super) const FLOW: usize = 182;
    pub(super) const ECG_EXTRA: usize = 230;
    pub(super) const CLASS: usize = 276;
}

/// Statuses that these numbers can set.
pub(super) const STATUSES: [Status; 2] = [Status::LeadOff, Status::Artifact];

/// One vital of a subrecord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) vital: Vital,
    pub(super) mdc: Option<u32>,
    pub(super) quality: Quality,
}

/// A cuff's measurement: the monitor repeats it until the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cuff {
    pub(super) found: Vec<Found>,
    /// The cuff is inflated: what is shown is the measurement before.
    pub(super) is_measuring: bool,
    /// It was measured more than 60 s ago.
    pub(super) is_old: bool,
}

/// What one subrecord says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) found: Vec<Found>,
    pub(super) cuff: Option<Cuff>,
    pub(super) statuses: BTreeSet<Status>,
    pub(super) is_asystole: bool,
    /// The monitor's clock, in seconds since 1970.
    pub(super) time: u32,
}

/// A group: its status, its label, and its numbers by their places.
#[derive(Clone, Copy)]
struct Group<'s> {
    status: u32,
    label: u16,
    numbers: &'s [u8],
}

impl<'s> Group<'s> {
    /// `None` if the module does not exist.
    fn at(subrecord: &'s [u8], place: usize) -> Option<Self> {
        let bytes = subrecord.get(place..)?;
        let group = Self { status: u32_at(bytes, 0)?, label: u16_at(bytes, 4)?, numbers: bytes.get(6..)? };
        group.bit(0).then_some(group)
    }

    const fn bit(&self, bit: u32) -> bool {
        self.status >> bit & 1 == 1
    }

    const fn has_label_bit(&self, bit: u32) -> bool {
        self.label >> bit & 1 == 1
    }

    /// The number at a place, of so many decimal places; absent while the measurement is not active.
    fn value(&self, index: usize, metric: Metric, exponent: i8) -> Value {
        let raw = i16_at(self.numbers, index * 2).unwrap_or(i16::MIN);
        match special(raw) {
            _ if !self.bit(1) => Value::Absent(Absent::NotMeasured),
            Some(reason) => Value::Absent(reason),
            None => match Decimal::new(i64::from(raw), exponent) {
                // A missing measurement is a special number, so that a 0 has been measured.
                Some(number) => Value::measured(metric, super::super::trimmed(number)),
                None => Value::Absent(Absent::OutOfRange),
            },
        }
    }

    fn pressure(&self, metric: Metric) -> Pressure {
        let part = |index| self.value(index, metric, -2);
        Pressure { systolic: part(0), diastolic: part(1), mean: part(2) }
    }
}

/// Table 3-9.
const fn special(raw: i16) -> Option<Absent> {
    match raw {
        -32767 => Some(Absent::NotANumber),
        -32766 => Some(Absent::NotMeasured),
        -32764 => Some(Absent::UnderRange),
        -32763 => Some(Absent::OverRange),
        -32762 => Some(Absent::MeasurementFailed),
        i16::MIN..=LOWEST_SPECIAL => Some(Absent::Reserved),
        _ => None,
    }
}

/// `value`, unless something speaks against it.
const fn unless(value: Value, reason: Option<Absent>) -> Value {
    match reason {
        Some(reason) => Value::Absent(reason),
        None => value,
    }
}

fn of(metric: Metric, value: Value, is_doubtful: bool) -> Found {
    let quality = match value {
        Value::Absent(_) => Quality::NotAvailable,
        Value::Valid(_) if is_doubtful => Quality::Questionable,
        Value::Valid(_) => Quality::Valid,
    };
    Found { vital: Vital::scalar(metric, value), mdc: None, quality }
}

/// The metrics of this class.
pub(super) const METRICS: [Metric; 15] = [
    Metric::HeartRate,
    Metric::PulseRate,
    Metric::Spo2,
    Metric::BloodPressure,
    Metric::ArterialPressure,
    Metric::CentralVenousPressure,
    Metric::Temperature,
    Metric::RespiratoryRate,
    Metric::Etco2,
    Metric::Fio2,
    Metric::TidalVolume,
    Metric::MinuteVolume,
    Metric::PeakAirwayPressure,
    Metric::PlateauPressure,
    Metric::Peep,
];

/// Reads a subrecord; `None` if it is not one of the basic class.
pub(super) fn read(subrecord: &[u8]) -> Option<Numbers> {
    let class = u16_at(subrecord, at::CLASS)? >> 8 & 0x0F;
    if subrecord.len() != SUBRECORD || class != 0 {
        return None;
    }
    let mut numbers = Numbers {
        found: Vec::new(),
        cuff: cuff(subrecord),
        statuses: BTreeSet::new(),
        is_asystole: false,
        time: u32_at(subrecord, 0)?,
    };
    ecg(subrecord, &mut numbers);
    blood_pressures(subrecord, &mut numbers.found);
    numbers.found.extend(temperature(subrecord));
    if let Some(group) = Group::at(subrecord, at::SPO2) {
        numbers.found.push(of(Metric::Spo2, group.value(0, Metric::Spo2, -2), false));
        numbers.found.push(of(Metric::PulseRate, group.value(1, Metric::PulseRate, 0), false));
    }
    gases(subrecord, &mut numbers.found);
    ventilation(subrecord, &mut numbers.found);
    numbers.found.extend(respiration(subrecord));
    Some(numbers)
}

/// 3.5.1 and 3.5.13.
fn ecg(subrecord: &[u8], numbers: &mut Numbers) {
    let Some(group) = Group::at(subrecord, at::ECG) else { return };
    let all_leads_off = group.bit(1) && (11..=13).all(|bit| group.bit(bit));
    let is_disturbed = group.bit(7) || group.bit(8);
    let reason = match () {
        () if all_leads_off => Some(Absent::LeadOff),
        () if group.bit(9) => Some(Absent::Searching),
        () => None,
    };
    // Table 3-11: the shown rate is the ECG's only with these sources; otherwise it is a pulse.
    let is_from_ecg = matches!(group.status >> 3 & 0x0F, 1 | 9);
    let rate = if is_from_ecg {
        group.value(0, Metric::HeartRate, 0)
    } else {
        let extra = Group { numbers: subrecord.get(at::ECG_EXTRA..).unwrap_or_default(), ..group };
        extra.value(0, Metric::HeartRate, 0)
    };
    numbers.found.push(of(Metric::HeartRate, unless(rate, reason), is_disturbed));
    numbers.statuses.extend(all_leads_off.then_some(Status::LeadOff));
    numbers.statuses.extend(is_disturbed.then_some(Status::Artifact));
    numbers.is_asystole = group.bit(1) && group.bit(2);
}

/// 3.5.2. Of several arterial lines the first in the order ART, ABP, FEM, UAC counts.
fn blood_pressures(subrecord: &[u8], found: &mut Vec<Found>) {
    const ARTERIAL: [u16; 4] = [1, 8, 16, 17];
    const CENTRAL_VENOUS: u16 = 2;
    let groups = || at::PRESSURES.iter().filter_map(|place| Group::at(subrecord, *place));
    let labelled = |label: u16| groups().find(|group| group.label == label);
    // Bit 2: the transducer is open to the air.
    let zeroing = |group: &Group<'_>| group.bit(2).then_some(Absent::NotMeasured);
    if let Some(group) = ARTERIAL.iter().find_map(|label| labelled(*label)) {
        let Pressure { systolic, diastolic, mean } = group.pressure(Metric::ArterialPressure);
        let part = |value| unless(value, zeroing(&group));
        let pressure = Pressure { systolic: part(systolic), diastolic: part(diastolic), mean: part(mean) };
        let is_there = [pressure.systolic, pressure.diastolic, pressure.mean].iter().any(|v| v.valid().is_some());
        let quality = if is_there { Quality::Valid } else { Quality::NotAvailable };
        found.push(Found { vital: Vital::ArterialPressure(pressure), mdc: None, quality });
    }
    if let Some(group) = labelled(CENTRAL_VENOUS) {
        let mean = group.value(2, Metric::CentralVenousPressure, -2);
        found.push(of(Metric::CentralVenousPressure, unless(mean, zeroing(&group)), false));
    }
}

/// 3.5.3: all of its status is in the label.
fn cuff(subrecord: &[u8]) -> Option<Cuff> {
    let group = Group::at(subrecord, at::NIBP)?;
    let pressure = group.pressure(Metric::BloodPressure);
    let is_there = [pressure.systolic, pressure.diastolic, pressure.mean].iter().any(|part| part.valid().is_some());
    let is_old = group.has_label_bit(8);
    let quality = match (is_there, is_old) {
        (false, _) => Quality::NotAvailable,
        (true, true) => Quality::Historic,
        (true, false) => Quality::Valid,
    };
    let mut found = vec![Found { vital: Vital::BloodPressure(pressure), mdc: None, quality }];
    let rate = group.value(3, Metric::PulseRate, 0);
    if is_there && rate.valid().is_some() {
        let vital = Vital::scalar(Metric::PulseRate, rate);
        found.push(Found { vital, mdc: Some(MDC_PULSE_RATE_CUFF), quality });
    }
    Some(Cuff { found, is_measuring: group.has_label_bit(5) || group.has_label_bit(7), is_old })
}

/// 3.5.4: the first probe that is in or on the body's core; skin, surface, muscle, airway and room are other things.
fn temperature(subrecord: &[u8]) -> Option<Found> {
    let is_body = |label: u16| matches!(label, 0..=6 | 11..=15 | 17 | 18);
    let groups = || at::TEMPERATURES.iter().filter_map(|place| Group::at(subrecord, *place));
    let mut probes = groups().filter(|group| is_body(group.label)).map(|g| g.value(0, Metric::Temperature, -2));
    let first = probes.next()?;
    let valid = std::iter::once(first).chain(probes).find(|value| value.valid().is_some());
    Some(of(Metric::Temperature, valid.unwrap_or(first), false))
}

/// 3.5.6 and 3.5.7.
fn gases(subrecord: &[u8], found: &mut Vec<Found>) {
    if let Some(group) = Group::at(subrecord, at::CO2) {
        let reason = match () {
            // Calibrating, zeroing; occlusion, air leak.
            () if group.bit(3) || group.bit(4) => Some(Absent::NotMeasured),
            () if group.bit(5) || group.bit(6) => Some(Absent::SensorFault),
            () => None,
        };
        found.push(of(Metric::Etco2, unless(end_tidal(&group), reason), false));
    }
    if let Some(group) = Group::at(subrecord, at::O2) {
        let reason = (group.bit(2) || group.bit(3)).then_some(Absent::NotMeasured);
        found.push(of(Metric::Fio2, unless(group.value(1, Metric::Fio2, -2), reason), false));
    }
}

/// A concentration in 1/100 % and the ambient pressure in 1/10 mmHg make a partial pressure.
fn end_tidal(group: &Group<'_>) -> Value {
    let raw = |index: usize| i16_at(group.numbers, index * 2).unwrap_or(i16::MIN);
    let (concentration, ambient) = (raw(0), raw(3));
    if !group.bit(1) {
        return Value::Absent(Absent::NotMeasured);
    }
    if let Some(reason) = special(concentration) {
        return Value::Absent(reason);
    }
    // Without the ambient pressure there is no pressure of the gas: a device on a mountain is not at sea level.
    if special(ambient).is_some() || ambient <= 0 {
        return Value::Absent(Absent::NotMeasured);
    }
    let exact = Decimal::new(i64::from(concentration) * i64::from(ambient), -5);
    let rounded = exact.and_then(|exact| super::super::converted(exact, 1, 0, 1));
    rounded.map_or(Value::Absent(Absent::OutOfRange), |pressure| Value::measured(Metric::Etco2, pressure))
}

/// 3.5.10.
fn ventilation(subrecord: &[u8], found: &mut Vec<Found>) {
    let Some(group) = Group::at(subrecord, at::FLOW) else { return };
    let reason = ventilation_reason(&group);
    for (index, metric, exponent) in [
        (1, Metric::PeakAirwayPressure, -2),
        (2, Metric::Peep, -2),
        (3, Metric::PlateauPressure, -2),
        (5, Metric::TidalVolume, -1),
        (7, Metric::MinuteVolume, -2),
    ] {
        // Bits 5 and 6: obstruction, leak.
        found.push(of(metric, unless(group.value(index, metric, exponent), reason), group.bit(5) || group.bit(6)));
    }
}

const fn ventilation_reason(group: &Group<'_>) -> Option<Absent> {
    if group.bit(2) {
        return Some(Absent::SensorOff); // the patient is disconnected
    }
    // Calibrating, zeroing, measurement off.
    if group.bit(3) || group.bit(4) || group.bit(7) { Some(Absent::NotMeasured) } else { None }
}

/// The rate from CO2, or else from the impedance of the chest, or else from the flow.
fn respiration(subrecord: &[u8]) -> Option<Found> {
    let rate = |group: Option<Group<'_>>, index| group.map(|group| group.value(index, Metric::RespiratoryRate, 0));
    let flow = Group::at(subrecord, at::FLOW);
    let candidates = [
        rate(Group::at(subrecord, at::CO2), 2),
        rate(Group::at(subrecord, at::ECG), 4),
        rate(flow, 0).map(|value| unless(value, flow.as_ref().and_then(ventilation_reason))),
    ];
    let known = || candidates.iter().flatten();
    let value = known().find(|value| value.valid().is_some()).or_else(|| known().next())?;
    Some(of(Metric::RespiratoryRate, *value, false))
}
