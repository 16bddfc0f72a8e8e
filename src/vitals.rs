//! What is measured: metrics with their codes, values that are valid or absent for a reason, and readings.
//!
//! A value that is not known is never a number: not 0, not the last one. That is why there is no way to make a
//! [`Reading`] without a [`Value`].

mod score;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::{Stamp, Wall};
use crate::ids::{DeviceId, PatientId, SourceId};
use crate::named::named_enum;

pub use score::{Breathing, Consciousness, EarlyWarning, Finding, Parameter, Risk, ScoreInput, Spo2Scale, Variability};

/// A decimal number as the sensor gave it: `mantissa * 10^exponent`. The exponent is kept: 2.0 is not 2.
///
/// `==` therefore compares the written form; [`Decimal::compare`] compares the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    mantissa: i64,
    exponent: i8,
}

/// Exponents beyond this cannot come from any supported device and would make a number too long to print.
const MAX_EXPONENT: i8 = 9;

impl Decimal {
    /// `mantissa * 10^exponent`; `None` if the exponent is outside -9..=9 or the mantissa outside ±10^9.
    pub fn new(mantissa: i64, exponent: i8) -> Option<Self> {
        let fits = (-MAX_EXPONENT..=MAX_EXPONENT).contains(&exponent) && mantissa.abs() <= 1_000_000_000;
        fits.then_some(Self { mantissa, exponent })
    }

    /// A whole number.
    pub fn integer(value: i32) -> Self {
        Self { mantissa: i64::from(value), exponent: 0 }
    }

    /// A number of tenths: `tenths(364)` is 36.4.
    pub fn tenths(value: i32) -> Self {
        Self { mantissa: i64::from(value), exponent: -1 }
    }

    /// The digits, without the decimal point.
    pub const fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten.
    pub const fn exponent(self) -> i8 {
        self.exponent
    }

    /// True for 0, 0.0 and so on.
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// The nearest binary floating point number, for statistics; never for what is stored or shown.
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "|mantissa| <= 10^9 is exact in f64")]
    pub fn to_f64(self) -> f64 {
        let mantissa = self.mantissa as f64;
        if self.exponent < 0 {
            mantissa / 10_f64.powi(-i32::from(self.exponent))
        } else {
            mantissa * 10_f64.powi(i32::from(self.exponent))
        }
    }

    /// Compares the numbers exactly: 2.0 equals 2.
    pub fn compare(self, other: Self) -> Ordering {
        let lowest = self.exponent.min(other.exponent);
        self.scaled_to(lowest).cmp(&other.scaled_to(lowest))
    }

    /// The mantissa of the nearest number with this exponent, halves away from zero; `None` outside `i64`.
    pub fn rounded(self, exponent: i8) -> Option<i64> {
        if exponent <= self.exponent {
            return i64::try_from(self.scaled_to(exponent)).ok();
        }
        let steps = u32::try_from(i32::from(exponent) - i32::from(self.exponent)).ok()?;
        let unit = 10_i128.pow(steps);
        let half = if self.mantissa < 0 { -(unit / 2) } else { unit / 2 };
        i64::try_from((i128::from(self.mantissa) + half) / unit).ok()
    }

    /// The mantissa this number has with a smaller exponent. At most 10^9 * 10^18, far inside i128.
    fn scaled_to(self, exponent: i8) -> i128 {
        let steps = u32::try_from(i32::from(self.exponent) - i32::from(exponent)).unwrap_or(0);
        i128::from(self.mantissa) * 10_i128.pow(steps)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exponent >= 0 {
            return write!(f, "{}", self.scaled_to(0));
        }
        let places = usize::from(self.exponent.unsigned_abs());
        let digits = format!("{:0>width$}", self.mantissa.abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let sign = if self.mantissa < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// Why a text is not a [`Decimal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a decimal number such as 36.4")]
pub struct BadDecimal(pub String);

impl FromStr for Decimal {
    type Err = BadDecimal;

    fn from_str(text: &str) -> Result<Self, BadDecimal> {
        let bad = || BadDecimal(text.chars().take(32).collect());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = whole.strip_prefix('-').unwrap_or(whole);
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if digits.is_empty() || !all_digits(digits) || !all_digits(fraction) || text.ends_with('.') {
            return Err(bad());
        }
        let mantissa: i64 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
        let places = i8::try_from(fraction.len()).map_err(|_| bad())?;
        Self::new(mantissa, -places).ok_or_else(bad)
    }
}

impl Serialize for Decimal {
    /// A JSON number with the sensor's own digits; a float in binary formats.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_f64(self.to_f64());
        }
        serde_json::value::RawValue::from_string(self.to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl JsonSchema for Decimal {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "A number with the sensor's own digits: 37.0 is not 37.", "type": "number"})
    }
}

impl<'de> Deserialize<'de> for Decimal {
    /// From a TOML or JSON number, or from text, which alone keeps trailing zeros.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl serde::de::Visitor<'_> for Digits {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number such as 36.4")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Decimal, E> {
                Decimal::new(number, 0).ok_or_else(|| E::custom(BadDecimal(number.to_string())))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Decimal, E> {
                i64::try_from(number).map_err(E::custom).and_then(|number| self.visit_i64(number))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Decimal, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Digits)
    }
}

named_enum! {
    /// What a number says about a patient or a device. Codes and units: [`Metric::info`].
    Metric {
        /// Heart rate from an ECG or a chest strap.
        HeartRate = "heart_rate",
        /// Pulse rate from an oximeter or a cuff.
        PulseRate = "pulse_rate",
        /// Times between heart beats.
        RrInterval = "rr_interval",
        /// Oxygen saturation by pulse oximetry.
        Spo2 = "spo2",
        /// Strength of the pulse signal.
        PerfusionIndex = "perfusion_index",
        /// Non-invasive blood pressure: systolic, diastolic and mean of one measurement.
        BloodPressure = "blood_pressure",
        /// Invasive arterial pressure, continuous.
        ArterialPressure = "arterial_pressure",
        /// Pressure in a cuff while it measures.
        CuffPressure = "cuff_pressure",
        /// Body temperature.
        Temperature = "temperature",
        /// Breaths a minute.
        RespiratoryRate = "respiratory_rate",
        /// Carbon dioxide at the end of a breath.
        Etco2 = "etco2",
        /// Oxygen in the gas that is breathed in.
        Fio2 = "fio2",
        /// Gas that is breathed out in one breath.
        TidalVolume = "tidal_volume",
        /// Gas that is breathed out in one minute.
        MinuteVolume = "minute_volume",
        /// Highest airway pressure of a breath.
        PeakAirwayPressure = "peak_airway_pressure",
        /// Airway pressure while the lung is held inflated.
        PlateauPressure = "plateau_pressure",
        /// Airway pressure, mean over a breath.
        MeanAirwayPressure = "mean_airway_pressure",
        /// Airway pressure at the end of breathing out.
        Peep = "peep",
        /// Central venous pressure, mean.
        CentralVenousPressure = "central_venous_pressure",
        /// Glucose in capillary whole blood.
        Glucose = "glucose",
        /// Body weight.
        Weight = "weight",
        /// Body height, as the scale's user has entered it.
        Height = "height",
        /// Body mass index.
        Bmi = "bmi",
        /// Share of fat in the body.
        BodyFat = "body_fat",
        /// Mass of the body without its fat.
        FatFreeMass = "fat_free_mass",
        /// Mass of the body without its fat and bones.
        SoftLeanMass = "soft_lean_mass",
        /// Mass of the water in the body.
        BodyWater = "body_water",
        /// Charge of the sensor's battery.
        Battery = "battery",
        /// National Early Warning Score 2, which the bridge computes.
        News2 = "news2",
        /// Variability of the heart rate over five minutes, which the bridge computes.
        HeartRateVariability = "heart_rate_variability",
    }
}

/// How often a metric comes, which decides how its age is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rhythm {
    /// About once a second while the sensor is on the patient; silence is a fault.
    Continuous,
    /// Whenever somebody measures; always shown with its time.
    Spot,
    /// As often as a continuous metric of the same sensor, if the sensor gives it at all; its absence alone says
    /// nothing that the other metric does not say.
    Accompanying,
    /// The heart's own times.
    Beats,
    /// About the device, not the patient.
    Status,
    /// Whenever the bridge has computed it anew; it stands until then.
    Computed,
}

/// Codes, units and bounds of a metric (LOINC; ISO/IEEE 11073-10101 reference codes; UCUM).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    /// LOINC code, where one fits.
    pub loinc: Option<&'static str>,
    /// 32-bit MDC code: partition * 65536 + code.
    pub mdc: u32,
    /// Unit for machines (UCUM).
    pub ucum: &'static str,
    /// Unit for people.
    pub unit: &'static str,
    /// Lowest and highest number that is kept as valid, in the unit above.
    pub range: (i32, i32),
    /// How often it comes.
    pub rhythm: Rhythm,
}

impl Metric {
    /// Codes, units and bounds.
    pub const fn info(self) -> MetricInfo {
        const fn row(
            loinc: &'static str,
            mdc: u32,
            ucum: &'static str,
            unit: &'static str,
            range: (i32, i32),
            rhythm: Rhythm,
        ) -> MetricInfo {
            let loinc = if loinc.is_empty() { None } else { Some(loinc) };
            MetricInfo { loinc, mdc, ucum, unit, range, rhythm }
        }
        use Rhythm::{Accompanying, Beats, Computed, Continuous, Spot, Status};
        match self {
            Self::HeartRate => row("8867-4", 147_842, "/min", "bpm", (1, 350), Continuous),
            Self::PulseRate => row("8867-4", 149_530, "/min", "bpm", (1, 350), Continuous),
            Self::RrInterval => row("", 147_240, "ms", "ms", (200, 3000), Beats),
            Self::Spo2 => row("59408-5", 150_456, "%", "%", (1, 100), Continuous),
            Self::PerfusionIndex => row("61006-3", 150_448, "%", "%", (0, 30), Accompanying),
            Self::BloodPressure => row("85354-9", 150_020, "mm[Hg]", "mmHg", (1, 300), Spot),
            Self::ArterialPressure => row("", 150_016, "mm[Hg]", "mmHg", (1, 300), Continuous),
            Self::CuffPressure => row("", 150_300, "mm[Hg]", "mmHg", (1, 350), Spot),
            Self::Temperature => row("8310-5", 150_364, "Cel", "°C", (20, 45), Spot),
            Self::RespiratoryRate => row("9279-1", 151_562, "/min", "rpm", (0, 150), Continuous),
            Self::Etco2 => row("19891-1", 151_728, "mm[Hg]", "mmHg", (0, 150), Continuous),
            // MDC_CONC_AWAY_O2_INSP, MDC_VOL_AWAY_TIDAL_EXP, MDC_VENT_VOL_MINUTE_EXP, MDC_VENT_PRESS_AWAY_MAX,
            // MDC_VENT_PRESS_RESP_PLAT, MDC_VENT_PRESS_AWAY_MEAN, MDC_VENT_PRESS_AWAY_END_EXP_POS.
            Self::Fio2 => row("", 152_196, "%", "%", (1, 100), Accompanying),
            Self::TidalVolume => row("", 152_664, "mL", "mL", (0, 5000), Accompanying),
            Self::MinuteVolume => row("", 152_000, "L/min", "L/min", (0, 100), Continuous),
            Self::PeakAirwayPressure => row("", 151_973, "cm[H2O]", "cmH2O", (-50, 150), Accompanying),
            Self::PlateauPressure => row("", 152_424, "cm[H2O]", "cmH2O", (-50, 150), Accompanying),
            Self::MeanAirwayPressure => row("", 151_975, "cm[H2O]", "cmH2O", (-50, 150), Accompanying),
            Self::Peep => row("", 151_976, "cm[H2O]", "cmH2O", (-50, 150), Accompanying),
            // MDC_PRESS_BLD_VEN_CENT_MEAN.
            Self::CentralVenousPressure => row("", 150_087, "mm[Hg]", "mmHg", (-30, 100), Continuous),
            Self::Glucose => row("2339-0", 160_184, "mg/dL", "mg/dL", (10, 1000), Spot),
            Self::Weight => row("29463-7", 188_736, "kg", "kg", (0, 500), Spot),
            Self::Height => row("8302-2", 188_740, "m", "m", (0, 3), Spot),
            Self::Bmi => row("39156-5", 188_752, "kg/m2", "kg/m²", (1, 200), Spot),
            Self::BodyFat => row("41982-0", 188_748, "%", "%", (1, 100), Spot),
            Self::FatFreeMass => row("", 188_756, "kg", "kg", (1, 500), Spot),
            Self::SoftLeanMass => row("", 188_760, "kg", "kg", (1, 500), Spot),
            Self::BodyWater => row("", 188_764, "kg", "kg", (1, 500), Spot),
            Self::Battery => row("", 67_996, "%", "%", (0, 100), Status),
            // No code of the standard: 1 and 2 of its private partition, 1024.
            Self::News2 => row("", 67_108_865, "{score}", "points", (0, 20), Computed),
            // LOINC of the standard deviation, which is the leading number.
            Self::HeartRateVariability => row("80404-7", 67_108_866, "ms", "ms", (0, 2000), Computed),
        }
    }
}

/// MDC code of a pulse rate that a cuff measured (`MDC_PULS_RATE_NON_INV`), other than the oximeter's default.
pub const MDC_PULSE_RATE_CUFF: u32 = 149_546;

/// MDC code of glucose in interstitial fluid (`MDC_CONC_GLU_ISF`), other than the capillary blood of the metric.
pub const MDC_GLUCOSE_ISF: u32 = 160_212;

named_enum! {
    /// What a sensor says about itself; one vocabulary for every device.
    Status {
        /// No sensor is plugged in.
        NoSensor = "no_sensor",
        /// The sensor is not on the patient.
        SensorOff = "sensor_off",
        /// The sensor is broken.
        SensorFault = "sensor_fault",
        /// The sensor is looking for a pulse.
        Searching = "searching",
        /// The pulse is too weak to trust.
        LowPerfusion = "low_perfusion",
        /// The device itself trusts its numbers little.
        LowQuality = "low_quality",
        /// Movement disturbs the signal.
        Artifact = "artifact",
        /// The signal was lost.
        SignalLost = "signal_lost",
        /// An electrode is off.
        LeadOff = "lead_off",
        /// The battery must be charged or changed.
        LowBattery = "low_battery",
        /// The device sounds an alarm of its own.
        DeviceAlarm = "device_alarm",
        /// The device's own alarm was silenced at the device.
        AlarmSilenced = "alarm_silenced",
        /// The cuff sits too loosely.
        CuffTooLoose = "cuff_too_loose",
        /// The device saw an irregular pulse.
        IrregularPulse = "irregular_pulse",
        /// The body moved during the measurement.
        BodyMovement = "body_movement",
        /// The arm was not at the height of the heart.
        ImproperPosition = "improper_position",
        /// The bridge says it: another device answers than the one bound to this bed. Nothing of it is published.
        DeviceChanged = "device_changed",
    }
}

named_enum! {
    /// Why there is no number.
    Absent {
        /// The device reported 0, which is no measurement.
        ZeroReported = "zero_reported",
        /// The device's sentinel for "no value" (also IEEE 11073 NaN).
        NotANumber = "not_a_number",
        /// IEEE 11073 NRes: not at this resolution.
        NotAtThisResolution = "not_at_this_resolution",
        /// Above what the device can measure (IEEE 11073 +INF).
        OverRange = "over_range",
        /// Below what the device can measure (IEEE 11073 -INF).
        UnderRange = "under_range",
        /// A value that the specification reserves.
        Reserved = "reserved",
        /// Outside the bounds that the profile or the metric allows.
        OutOfRange = "out_of_range",
        /// The source has an empty field here.
        NotMeasured = "not_measured",
        /// A measurement was tried and failed.
        MeasurementFailed = "measurement_failed",
        /// The sensor sends nothing, though the link stands.
        Silent = "silent",
        /// The link to the sensor is gone.
        LinkLost = "link_lost",
        /// [`Status::NoSensor`].
        NoSensor = "no_sensor",
        /// [`Status::SensorOff`].
        SensorOff = "sensor_off",
        /// [`Status::SensorFault`].
        SensorFault = "sensor_fault",
        /// [`Status::Searching`].
        Searching = "searching",
        /// [`Status::LowPerfusion`].
        LowPerfusion = "low_perfusion",
        /// [`Status::LowQuality`].
        LowQuality = "low_quality",
        /// [`Status::Artifact`].
        Artifact = "artifact",
        /// [`Status::SignalLost`].
        SignalLost = "signal_lost",
        /// [`Status::LeadOff`].
        LeadOff = "lead_off",
        /// [`Status::CuffTooLoose`].
        CuffTooLoose = "cuff_too_loose",
        /// What it would be computed from is missing, too old or too disturbed.
        InputsMissing = "inputs_missing",
        /// There is a number, of a quality that this listener does not want. Never measured and never stored.
        Withheld = "withheld",
    }
}

impl From<Status> for Absent {
    /// The reason a value is withheld while the sensor has this status.
    fn from(status: Status) -> Self {
        match status {
            Status::NoSensor => Self::NoSensor,
            Status::SensorOff => Self::SensorOff,
            Status::SensorFault => Self::SensorFault,
            Status::Searching => Self::Searching,
            Status::LowPerfusion => Self::LowPerfusion,
            Status::Artifact | Status::BodyMovement => Self::Artifact,
            Status::SignalLost => Self::SignalLost,
            Status::LeadOff => Self::LeadOff,
            Status::CuffTooLoose => Self::CuffTooLoose,
            Status::LowQuality
            | Status::LowBattery
            | Status::DeviceAlarm
            | Status::AlarmSilenced
            | Status::IrregularPulse
            | Status::ImproperPosition
            | Status::DeviceChanged => Self::LowQuality,
        }
    }
}

named_enum! {
    /// How far a reading can be trusted (IEEE 11073-10207 measurement validity, and two of our own).
    Quality {
        /// Measured and checked by the device.
        Valid = "valid",
        /// Confirmed by a person.
        Validated = "validated",
        /// The measurement is not finished.
        Ongoing = "ongoing",
        /// The device doubts it.
        Questionable = "questionable",
        /// The device is calibrating.
        Calibrating = "calibrating",
        /// The device says it is wrong.
        Invalid = "invalid",
        /// Above the measuring range.
        Overflow = "overflow",
        /// Below the measuring range.
        Underflow = "underflow",
        /// There is no value.
        NotAvailable = "not_available",
        /// A number that no patient has; kept and marked.
        Implausible = "implausible",
        /// Measured earlier and handed over now.
        Historic = "historic",
    }
}

named_enum! {
    /// Whether a reading is about a patient or about nobody. Never mixed on one patient.
    Mode {
        /// A real sensor on a real patient.
        Real = "real",
        /// The built-in simulator.
        Demo = "demo",
        /// Recorded or emulated data.
        Test = "test",
    }
}

/// Serialises a decimal as text, so that the store gives back every digit, trailing zeros too.
fn as_text<S: Serializer>(number: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// A number, or the reason why there is none.
///
/// Its serde form is the store's, `{"valid":"36.40"}` or `{"absent":"sensor_off"}`; [`crate::wire`] makes the public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A measurement in the metric's canonical unit.
    Valid(#[serde(serialize_with = "as_text")] Decimal),
    /// No number.
    Absent(Absent),
}

impl Value {
    /// The number, if there is one.
    pub const fn valid(self) -> Option<Decimal> {
        match self {
            Self::Valid(number) => Some(number),
            Self::Absent(_) => None,
        }
    }

    /// No number where there was one; where there was none its reason stays.
    #[must_use]
    pub const fn withheld(self) -> Self {
        match self {
            Self::Valid(_) => Self::Absent(Absent::Withheld),
            Self::Absent(_) => self,
        }
    }

    /// The reason, if there is no number.
    pub const fn absent(self) -> Option<Absent> {
        match self {
            Self::Valid(_) => None,
            Self::Absent(reason) => Some(reason),
        }
    }

    /// A number that is known to be a measurement even if it is 0, because the device has another way to say that there
    /// is none. 0 stays absent for a metric of which it can be no measurement (a heart rate).
    pub fn measured(metric: Metric, number: Decimal) -> Self {
        let (lowest, highest) = metric.info().range;
        if number.is_zero() && (lowest..=highest).contains(&0) {
            Self::Valid(number)
        } else {
            Self::reported(metric, number)
        }
    }

    /// A number as a device reports it for `metric`: 0 and numbers outside the metric's range are absent.
    ///
    /// The metrics whose range includes 0 (perfusion, respiration, CO2, volumes, pressures of the airway, weight,
    /// battery) keep their 0 only where the decoder knows that it is a measurement: [`Value::measured`].
    pub fn reported(metric: Metric, number: Decimal) -> Self {
        let (lowest, highest) = metric.info().range;
        if number.is_zero() {
            Self::Absent(Absent::ZeroReported)
        } else if number.compare(Decimal::integer(lowest)).is_lt() || number.compare(Decimal::integer(highest)).is_gt()
        {
            Self::Absent(Absent::OutOfRange)
        } else {
            Self::Valid(number)
        }
    }
}

/// Pressures of one measurement, in mmHg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pressure {
    /// The highest pressure in a beat.
    pub systolic: Value,
    /// The lowest pressure in a beat.
    pub diastolic: Value,
    /// The mean over a beat, as the device gives it.
    pub mean: Value,
}

/// What one reading says, in canonical units.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Vital {
    /// Any metric that is one number. Never [`Metric::BloodPressure`], [`Metric::ArterialPressure`] or, but for
    /// [`Vital::withheld`], [`Metric::RrInterval`].
    Scalar {
        /// Which.
        metric: Metric,
        /// How much, in the unit of [`Metric::info`].
        value: Value,
    },
    /// A cuff's measurement.
    BloodPressure(Pressure),
    /// An arterial line.
    ArterialPressure(Pressure),
    /// Times between beats, oldest first, as the strap gives them: units of 1/1024 s (HRS 1.0, 3.1.1.4).
    RrIntervals(Vec<u16>),
    /// An early warning score, computed here.
    News2(Box<EarlyWarning>),
    /// The variability of the heart rate, computed here. Where there is none it is a [`Vital::Scalar`] with the reason.
    Variability(Variability),
}

impl Vital {
    /// One number of a metric.
    pub const fn scalar(metric: Metric, value: Value) -> Self {
        Self::Scalar { metric, value }
    }

    /// What this is about.
    pub const fn metric(&self) -> Metric {
        match self {
            Self::Scalar { metric, .. } => *metric,
            Self::BloodPressure(_) => Metric::BloodPressure,
            Self::ArterialPressure(_) => Metric::ArterialPressure,
            Self::RrIntervals(_) => Metric::RrInterval,
            Self::News2(_) => Metric::News2,
            Self::Variability(_) => Metric::HeartRateVariability,
        }
    }

    /// The same without any of its numbers, for a listener that must not see them.
    #[must_use]
    pub fn withheld(&self) -> Self {
        let emptied = |pressure: &Pressure| Pressure {
            systolic: pressure.systolic.withheld(),
            diastolic: pressure.diastolic.withheld(),
            mean: pressure.mean.withheld(),
        };
        match self {
            Self::BloodPressure(pressure) => Self::BloodPressure(emptied(pressure)),
            Self::ArterialPressure(pressure) => Self::ArterialPressure(emptied(pressure)),
            Self::Scalar { .. } | Self::RrIntervals(_) | Self::News2(_) | Self::Variability(_) => {
                Self::scalar(self.metric(), self.leading().withheld())
            }
        }
    }

    /// The one number that stands for it: systolic for a pressure, the newest beat for intervals (in ms), the score if
    /// nothing of it is missing, the standard deviation for a variability.
    pub fn leading(&self) -> Value {
        match self {
            Self::Scalar { value, .. } => *value,
            Self::BloodPressure(pressure) | Self::ArterialPressure(pressure) => pressure.systolic,
            Self::RrIntervals(beats) => {
                beats.last().and_then(|raw| rr_millis(*raw)).map_or(Value::Absent(Absent::NotMeasured), Value::Valid)
            }
            Self::News2(score) => score.value(),
            Self::Variability(found) => Value::Valid(found.sdnn),
        }
    }
}

/// An interval of 1/1024 s as milliseconds with one decimal place, rounded to nearest.
pub fn rr_millis(raw: u16) -> Option<Decimal> {
    Decimal::new((i64::from(raw) * 10_000 + 512) / 1024, -1)
}

named_enum! {
    /// Where the time of a measurement comes from.
    TimeSource {
        /// The device's clock, which follows a time server.
        DeviceSynced = "device_synced",
        /// The device's clock, mapped to ours by one coincident pair.
        DeviceMapped = "device_mapped",
        /// The time at which the bytes arrived.
        Received = "received",
        /// Our own clock, which has not been synchronised since boot.
        Unsynced = "unsynced",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

/// When a measurement was taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Taken {
    /// Time of day, if it is known.
    pub wall: Option<Wall>,
    /// How it is known.
    pub source: TimeSource,
    /// How far it may be off, in milliseconds; `None`: nobody knows.
    pub uncertainty_ms: Option<u32>,
    /// Of [`TimeSource::DeviceMapped`]: the part of it, in milliseconds, that is not our own clock's.
    pub mapping_ms: Option<u32>,
    /// What the device's own clock said, as it said it.
    pub device_time: Option<String>,
}

impl Taken {
    /// Taken when it arrived. How far that may be off is what our own clock may be, which is known when it is read.
    pub const fn on_arrival(received: Stamp) -> Self {
        Self {
            wall: Some(received.wall),
            source: TimeSource::Received,
            uncertainty_ms: None,
            mapping_ms: None,
            device_time: None,
        }
    }
}

/// One measurement of one vital by one device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Whose. `None`: the device is not assigned to anybody.
    pub patient: Option<PatientId>,
    /// By which device.
    pub device: DeviceId,
    /// Through which source.
    pub source: SourceId,
    /// What.
    pub vital: Vital,
    /// MDC code, where it differs from the metric's own (a pulse rate by cuff).
    pub mdc: Option<u32>,
    /// How far to trust it.
    pub quality: Quality,
    /// Real, demo or test.
    pub mode: Mode,
    /// When it was measured.
    pub taken: Taken,
    /// When its last byte arrived here.
    pub received: Stamp,
}

/// A reading older than this is of the past: it was kept by the device and handed over later. It starts and clears no
/// alert, and nothing of the present is computed from it.
pub const LATE_AFTER: Duration = Duration::from_mins(1);

/// The source of what the bridge computes; no configured source has this name.
pub const DERIVED_SOURCE: &str = "derived";

impl Reading {
    /// True if it was measured long before `now`. Both times are of one clock reading, so that a step of the wall clock
    /// does not make a reading old.
    ///
    /// How long a device had kept what its own clock dates is judged once, where it came in: [`Quality::Historic`].
    pub fn is_late(&self, now: Stamp) -> bool {
        let dated = self.taken.wall.filter(|_| self.taken.source != TimeSource::DeviceMapped);
        let kept = dated.map_or(0, |taken| self.received.wall.0.saturating_sub(taken.0));
        let kept = Duration::from_millis(u64::try_from(kept).unwrap_or(0));
        self.quality == Quality::Historic || kept + now.mono.since(self.received.mono) > LATE_AFTER
    }

    /// True if it came later than `known`, of the same stream, and was measured before it: its device had kept it. Both
    /// are placed by the clock that does not step.
    pub fn is_older_than(&self, known: &Self) -> bool {
        match (self.lag(), known.lag()) {
            // Nobody knows when it was measured, but not now.
            (None, known) => known.is_some(),
            // What is measured as it comes is the newest.
            (Some(Duration::ZERO), _) | (_, None) => false,
            (Some(lag), Some(known_lag)) => self.received.mono - lag < known.received.mono - known_lag,
        }
    }

    /// How long it was kept by its device; `None`: for so long that it is of the past, and nobody knows how long.
    fn lag(&self) -> Option<Duration> {
        let Some(taken) = self.taken.wall else {
            return (self.quality != Quality::Historic).then_some(Duration::ZERO);
        };
        let kept = self.received.wall.0.saturating_sub(taken.0);
        Some(Duration::from_millis(u64::try_from(kept).unwrap_or(0)))
    }

    /// True if the bridge computed it from other readings.
    pub fn is_derived(&self) -> bool {
        self.source.as_str() == DERIVED_SOURCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

    #[test]
    fn a_decimal_keeps_the_digits_of_the_sensor() {
        for (mantissa, exponent, text) in
            [(364, -1, "36.4"), (20, -1, "2.0"), (2, 0, "2"), (-5, -2, "-0.05"), (12, 2, "1200"), (0, -3, "0.000")]
        {
            let number = Decimal::new(mantissa, exponent).unwrap();
            assert_eq!(number.to_string(), text);
            assert_eq!(serde_json::to_string(&number).unwrap(), text);
            if exponent <= 0 {
                assert_eq!(text.parse(), Ok(number));
            }
        }
        for bad in ["", "-", ".5", "5.", "1e3", "NaN", "1_0", "+1", "99999999999999999999", "--1", "1.-2"] {
            assert!(bad.parse::<Decimal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn decimals_compare_as_numbers_and_equal_as_written() {
        let (two, two_point_nought) = (Decimal::integer(2), Decimal::tenths(20));
        assert_eq!(two.compare(two_point_nought), Ordering::Equal);
        assert_ne!(two, two_point_nought);
        assert!(Decimal::tenths(-1).compare(Decimal::integer(0)).is_lt());
        assert!(Decimal::new(1_000_000_000, 9).unwrap().compare(Decimal::new(1, -9).unwrap()).is_gt());
    }

    #[test]
    fn the_stored_form_of_a_value_keeps_trailing_zeros() {
        let value = Value::Valid(Decimal::new(3640, -2).unwrap());
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(text, r#"{"valid":"36.40"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn zero_and_numbers_out_of_range_are_not_values() {
        let reported = |metric, number| Value::reported(metric, Decimal::integer(number));
        assert_eq!(reported(Metric::Spo2, 97), Value::Valid(Decimal::integer(97)));
        assert_eq!(reported(Metric::Spo2, 0), Value::Absent(Absent::ZeroReported));
        assert_eq!(reported(Metric::Spo2, 101), Value::Absent(Absent::OutOfRange));
        assert_eq!(reported(Metric::HeartRate, 511), Value::Absent(Absent::OutOfRange));
    }

    #[test]
    fn every_name_leads_back_to_its_member() {
        for metric in Metric::ALL {
            assert_eq!(Metric::from_name(metric.name()), Some(*metric));
        }
        for status in Status::ALL {
            assert_eq!(Status::from_name(status.name()), Some(*status));
        }
        assert_eq!(Metric::from_name("spo3"), None);
    }

    #[test]
    fn a_number_is_rounded_to_the_nearest_and_halves_away_from_zero() {
        for (text, exponent, expected) in [
            ("36.44", -1, 364),
            ("36.45", -1, 365),
            ("-36.45", -1, -365),
            ("97", -1, 970),
            ("97.5", 0, 98),
            ("4", 1, 0),
        ] {
            assert_eq!(text.parse::<Decimal>().unwrap().rounded(exponent), Some(expected), "{text}");
        }
    }

    #[test]
    fn beats_are_shown_in_milliseconds() {
        assert_eq!(rr_millis(1024).unwrap().to_string(), "1000.0");
        assert_eq!(rr_millis(1107).unwrap().to_string(), "1081.1");
        assert_eq!(Vital::RrIntervals(vec![]).leading(), Value::Absent(Absent::NotMeasured));
    }

    /// A pressure that came so long after boot, of a clock that says `taken` s of the same clock as its arrival, or nothing.
    fn pressure(arrived_s: u64, wall_s: i64, taken_s: Option<i64>, quality: Quality) -> Reading {
        let received = Stamp { mono: Mono::from_millis(arrived_s * 1000), wall: Wall(wall_s * 1000) };
        let wall = taken_s.map(|taken| Wall(taken * 1000));
        let source = if wall.is_some() { TimeSource::DeviceMapped } else { TimeSource::Unknown };
        Reading {
            patient: None,
            device: "cuff".parse().unwrap(),
            source: "s".parse().unwrap(),
            vital: Vital::scalar(Metric::Weight, Value::Valid(Decimal::integer(70))),
            mdc: None,
            quality,
            mode: Mode::Test,
            taken: Taken { wall, source, ..Taken::on_arrival(received) },
            received,
        }
    }

    #[test]
    fn what_a_device_had_kept_is_older_than_what_came_before_it() {
        use Quality::{Historic, Valid};
        // Arrived 1000 s after boot, measured as it came.
        let now = pressure(1000, 5000, Some(5000), Valid);
        for (what, later, expected) in [
            ("measured now", pressure(1010, 5010, Some(5010), Valid), false),
            ("measured now, and the clock was set back", pressure(1010, 100, Some(100), Valid), false),
            ("measured since", pressure(1010, 5010, Some(5005), Valid), false),
            ("kept for 11 s", pressure(1010, 5010, Some(4999), Historic), true),
            ("kept for 11 s, and the clock was set back", pressure(1010, 100, Some(89), Historic), true),
            ("kept for 9 s, and the clock was set on", pressure(1010, 9000, Some(8991), Historic), false),
            ("kept, nobody knows how long", pressure(1010, 5010, None, Historic), true),
            ("perhaps of now", pressure(1010, 5010, None, Valid), false),
        ] {
            assert_eq!(later.is_older_than(&now), expected, "{what}");
        }
        let kept = pressure(1000, 5000, None, Historic);
        assert!(
            !pressure(1010, 5010, None, Historic).is_older_than(&kept),
            "of two of the past the one that came last"
        );
        assert!(!pressure(1010, 5010, Some(4000), Historic).is_older_than(&kept));
    }

    #[test]
    fn what_a_devices_clock_dates_is_late_if_its_source_said_so_or_if_it_waited_here() {
        let after = |reading: &Reading, s: u64| Stamp {
            mono: reading.received.mono + Duration::from_secs(s),
            ..reading.received
        };
        for kept_s in 50..=61 {
            let (of_now, late) = [Quality::Valid, Quality::Historic]
                .map(|quality| pressure(1000, 5000, Some(5000 - kept_s), quality))
                .into();
            for waited_s in 0..=12 {
                assert!(!of_now.is_late(after(&of_now, waited_s)), "kept for {kept_s} s, and {waited_s} s here");
                assert!(late.is_late(after(&late, waited_s)), "kept for {kept_s} s, and {waited_s} s here");
            }
            assert!(of_now.is_late(after(&of_now, 61)));
        }
        let mut synced = pressure(1000, 5000, Some(4939), Quality::Valid);
        synced.taken.source = TimeSource::DeviceSynced;
        assert!(synced.is_late(after(&synced, 0)));
    }
}
