//! The kinds of Bluetooth sensor: which characteristics are listened to, and how such a sensor behaves.

use std::time::Duration;

pub use crate::profile::ble::SensorKind;
use crate::profile::ble::{Ble, EndsLink, Presence, Speaks};
use crate::vitals::Metric;

/// A characteristic within its service; 16-bit numbers of the Bluetooth Assigned Numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Characteristic {
    /// The service.
    pub service: u16,
    /// The characteristic.
    pub uuid: u16,
}

const fn at(service: u16, uuid: u16) -> Characteristic {
    Characteristic { service, uuid }
}

const HEART_RATE: Characteristic = at(0x180D, 0x2A37);
const PLX_CONTINUOUS: Characteristic = at(0x1822, 0x2A5F);
const PLX_SPOT_CHECK: Characteristic = at(0x1822, 0x2A5E);
const BLOOD_PRESSURE: Characteristic = at(0x1810, 0x2A35);
const CUFF_PRESSURE: Characteristic = at(0x1810, 0x2A36);
const TEMPERATURE: Characteristic = at(0x1809, 0x2A1C);
const INTERMEDIATE_TEMPERATURE: Characteristic = at(0x1809, 0x2A1E);
const GLUCOSE_CONTEXT: Characteristic = at(0x1808, 0x2A34);
const WEIGHT: Characteristic = at(0x181D, 0x2A9D);
const BODY_COMPOSITION: Characteristic = at(0x181B, 0x2A9C);

/// Battery Level: read once a link stands, and as a sign of life.
pub const BATTERY_LEVEL: Characteristic = at(0x180F, 0x2A19);
/// Current Time, written if the configuration says so.
pub const CURRENT_TIME: Characteristic = at(0x1805, 0x2A2B);
/// Date Time, which some sensors have in their own service instead.
pub const DATE_TIME: u16 = 0x2A08;
/// Record Access Control Point of the Glucose Service.
pub const RECORD_ACCESS: Characteristic = at(0x1808, 0x2A52);
/// Glucose Measurement.
pub const GLUCOSE_MEASUREMENT: Characteristic = at(0x1808, 0x2A18);

impl SensorKind {
    /// What is subscribed to, in this order, as far as the sensor has it; one of [`SensorKind::needs`] must be there.
    pub const fn characteristics(self) -> &'static [Characteristic] {
        match self {
            Self::HeartRate => &[HEART_RATE],
            Self::PulseOximeter => &[PLX_CONTINUOUS, PLX_SPOT_CHECK],
            Self::PulseOximeterSpot => &[PLX_SPOT_CHECK],
            Self::BloodPressure => &[BLOOD_PRESSURE, CUFF_PRESSURE],
            Self::Thermometer => &[TEMPERATURE, INTERMEDIATE_TEMPERATURE],
            // GLS 1.0, 3.4: the control point answers by indications, and records come meanwhile.
            Self::Glucose => &[GLUCOSE_MEASUREMENT, GLUCOSE_CONTEXT, RECORD_ACCESS],
            Self::Scale => &[WEIGHT, BODY_COMPOSITION],
        }
    }

    /// Any of these must be there, or it is another kind of device.
    pub const fn needs(self) -> &'static [Characteristic] {
        match self {
            Self::HeartRate => &[HEART_RATE],
            Self::PulseOximeter => &[PLX_CONTINUOUS],
            Self::PulseOximeterSpot => &[PLX_SPOT_CHECK],
            Self::BloodPressure => &[BLOOD_PRESSURE],
            Self::Thermometer => &[TEMPERATURE, INTERMEDIATE_TEMPERATURE],
            Self::Glucose => &[GLUCOSE_MEASUREMENT],
            Self::Scale => &[WEIGHT, BODY_COMPOSITION],
        }
    }

    /// What a person calls the measurement, for `the device has no ...`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::HeartRate => "heart-rate measurement",
            Self::PulseOximeter => "continuous pulse oximetry",
            Self::PulseOximeterSpot => "pulse oximetry",
            Self::BloodPressure => "blood pressure measurement",
            Self::Thermometer => "temperature measurement",
            Self::Glucose => "glucose measurement",
            Self::Scale => "weight or body composition measurement",
        }
    }

    /// How it comes and goes.
    pub const fn habit(self) -> Habit {
        match self {
            Self::HeartRate => Habit::Live { silence: Duration::from_secs(8) },
            Self::PulseOximeter => Habit::Live { silence: Duration::from_secs(5) },
            Self::PulseOximeterSpot | Self::BloodPressure | Self::Thermometer | Self::Glucose | Self::Scale => {
                Habit::Episodic { idle: Duration::from_mins(2) }
            }
        }
    }

    /// What it will deliver, for rules that miss what never comes.
    pub const fn metrics(self) -> &'static [Metric] {
        match self {
            Self::HeartRate => &[Metric::HeartRate],
            Self::PulseOximeter => &[Metric::Spo2, Metric::PulseRate],
            // It measures now and then: nothing is missed between measurements.
            _ => &[],
        }
    }
}

/// How a sensor comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// It sends all the time while it is worn.
    Live {
        /// No readable measurement for so long: the link is dead, whatever BlueZ says.
        silence: Duration,
    },
    /// It comes into the air for a measurement, hands over what it has stored, and ends the link.
    Episodic {
        /// An open link that has carried nothing for so long is looked at.
        idle: Duration,
    },
}

/// What a model wants beyond its habit; by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// Pause between a link and the first subscription, which it refuses before.
    pub settle: Duration,
    /// A live sensor that ends its link, as some do when they are taken off: nothing is wrong then.
    pub ends_normally: bool,
    /// It sends nothing before it was paired with.
    pub needs_bond: bool,
    /// It tells everybody what it measures, and is never connected to.
    pub is_only_heard: bool,
}

impl Manner {
    /// That of a model.
    pub const fn of(ble: &Ble) -> Self {
        Self {
            settle: ble.settle,
            ends_normally: matches!(ble.ends_link, EndsLink::Normal),
            needs_bond: ble.needs_bond,
            is_only_heard: matches!(ble.speaks, Speaks::Advertised(_)),
        }
    }
}

impl Habit {
    /// That of a model, of which `usual` is the habit of its kind.
    pub fn of(ble: &Ble, usual: Self) -> Self {
        match ble.presence {
            Presence::Live => {
                let silence = ble.silence.unwrap_or_else(|| usual.patience());
                Self::Live { silence }
            }
            Presence::Episodic => {
                let idle = ble.silence.unwrap_or_else(|| usual.patience());
                Self::Episodic { idle }
            }
        }
    }

    /// Whether it comes for single measurements.
    pub const fn is_episodic(self) -> bool {
        matches!(self, Self::Episodic { .. })
    }

    /// How long an open link may carry nothing.
    pub const fn patience(self) -> Duration {
        match self {
            Self::Live { silence } => silence,
            Self::Episodic { idle } => idle,
        }
    }
}
