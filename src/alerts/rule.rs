//! What an alert rule says: its condition, limits, times and relations, checked and resolved for one patient.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::alerts::BridgeCondition;
use crate::clock::Wall;
use crate::event::{AlertKind, LimitChange, LimitKind, Priority};
use crate::ids::{PatientId, RuleId};
use crate::named::named_enum;
use crate::vitals::{Decimal, Metric, Quality, Rhythm, Status, Value, Vital};

/// A number in millionths of its metric's unit: exact for every supported device, and exact to add and compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Level(pub i64);

impl Level {
    /// Millionths in one unit.
    pub const ONE: i64 = 1_000_000;

    /// The level of a decimal number; digits beyond the sixth place are cut.
    pub fn of(number: Decimal) -> Self {
        let shift = i32::from(number.exponent()) + 6;
        let power = 10_i128.pow(shift.unsigned_abs());
        let mantissa = i128::from(number.mantissa());
        let scaled = if shift >= 0 { mantissa * power } else { mantissa / power };
        Self(i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX }))
    }

    /// A whole number of units.
    pub fn whole(units: i32) -> Self {
        Self(i64::from(units) * Self::ONE)
    }

    /// The sum, kept at the ends of the range.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, kept at the ends of the range.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The decimal number rounded to `places` after the point (at most 6); `None` beyond 10^9 digits of mantissa.
    pub fn rounded(self, places: u8) -> Option<Decimal> {
        let places = places.min(6);
        let step = 10_i64.pow(u32::from(6 - places));
        let half = if self.0 < 0 { -step / 2 } else { step / 2 };
        Decimal::new(self.0.saturating_add(half) / step, -i8::try_from(places).ok()?)
    }
}

impl fmt::Display for Level {
    /// Without trailing zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.abs() / Self::ONE, self.0.abs() % Self::ONE);
        let sign = if self.0 < 0 { "-" } else { "" };
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        write!(f, "{sign}{whole}.{}", format!("{rest:06}").trim_end_matches('0'))
    }
}

named_enum! {
    /// One number of a measurement that has several.
    Part {
        /// The highest in a beat.
        Systolic = "systolic",
        /// The lowest in a beat.
        Diastolic = "diastolic",
        /// The mean over a beat.
        Mean = "mean",
        /// Not of a pressure but of an early warning score: the most points of one parameter.
        Single = "single",
    }
}

/// One number that a rule can look at: a metric, or one part of a pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    /// Which metric.
    pub metric: Metric,
    /// Which part, for a pressure.
    pub part: Option<Part>,
}

impl Quantity {
    /// Reads `spo2` or `blood_pressure.systolic`; the error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, part) = text.split_once('.').map_or((text, None), |(name, part)| (name, Some(part)));
        let metric = Metric::from_name(name).ok_or_else(|| format!("`{text}` is not a metric"))?;
        let has_parts = matches!(metric, Metric::BloodPressure | Metric::ArterialPressure);
        match part {
            Some("single") if metric == Metric::News2 => Ok(Self { metric, part: Some(Part::Single) }),
            Some(_) if metric == Metric::News2 => {
                Err("write `news2` for the score, `news2.single` for its highest parameter".to_owned())
            }
            None if has_parts => Err(format!("say which pressure: {name}.systolic, {name}.diastolic or {name}.mean")),
            Some(_) if !has_parts => Err(format!("`{name}` has no parts: write `{name}`")),
            None if metric.info().rhythm == Rhythm::Beats => {
                Err(format!("`{name}` is one beat, which never alarms: use heart_rate"))
            }
            None => Ok(Self { metric, part: None }),
            Some(part) => match Part::from_name(part) {
                Some(part) if part != Part::Single => Ok(Self { metric, part: Some(part) }),
                _ => Err(format!("`{part}` is not a pressure: systolic, diastolic or mean")),
            },
        }
    }

    /// The quantities that one reading carries, with their values.
    pub fn in_vital(vital: &Vital) -> Vec<(Self, Value)> {
        match vital {
            Vital::Scalar { metric, value } => vec![(Self { metric: *metric, part: None }, *value)],
            Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => {
                let metric = vital.metric();
                let of = |part, value| (Self { metric, part: Some(part) }, value);
                vec![
                    of(Part::Systolic, pressure.systolic),
                    of(Part::Diastolic, pressure.diastolic),
                    of(Part::Mean, pressure.mean),
                ]
            }
            Vital::Variability(_) => vec![(Self { metric: vital.metric(), part: None }, vital.leading())],
            // A score is a range; see `score`.
            Vital::News2(_) | Vital::RrIntervals(_) => Vec::new(),
        }
    }

    /// What a nurse calls it.
    pub const fn label(self) -> &'static str {
        match (self.metric, self.part) {
            (Metric::BloodPressure, Some(Part::Systolic)) => "Systolic pressure",
            (Metric::BloodPressure, Some(Part::Diastolic)) => "Diastolic pressure",
            (Metric::BloodPressure, Some(Part::Mean)) => "Mean pressure",
            (Metric::ArterialPressure, Some(Part::Systolic)) => "Arterial systolic pressure",
            (Metric::ArterialPressure, Some(Part::Diastolic)) => "Arterial diastolic pressure",
            (Metric::ArterialPressure, Some(Part::Mean)) => "Arterial mean pressure",
            (Metric::News2, Some(_)) => "NEWS2: one parameter with",
            (metric, _) => metric_label(metric),
        }
    }

    /// The default distance between a limit and the level that clears it.
    pub fn hysteresis(self) -> Level {
        match self.metric {
            Metric::Spo2 | Metric::RespiratoryRate => Level::whole(1),
            Metric::HeartRate | Metric::PulseRate => Level::whole(2),
            Metric::BloodPressure | Metric::ArterialPressure => Level::whole(3),
            Metric::Temperature => Level(Level::ONE / 5),
            _ => Level(0),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            None => f.write_str(self.metric.name()),
            Some(part) => write!(f, "{}.{part}", self.metric),
        }
    }
}

/// What a nurse calls a metric.
pub(crate) const fn metric_label(metric: Metric) -> &'static str {
    match metric {
        Metric::HeartRate => "Heart rate",
        Metric::PulseRate => "Pulse rate",
        Metric::RrInterval => "Beat interval",
        Metric::Spo2 => "SpO2",
        Metric::PerfusionIndex => "Perfusion index",
        Metric::BloodPressure => "Blood pressure",
        Metric::ArterialPressure => "Arterial pressure",
        Metric::CuffPressure => "Cuff pressure",
        Metric::Temperature => "Temperature",
        Metric::RespiratoryRate => "Respiration",
        Metric::Etco2 => "etCO2",
        Metric::Fio2 => "FiO2",
        Metric::TidalVolume => "Tidal volume",
        Metric::MinuteVolume => "Minute volume",
        Metric::PeakAirwayPressure => "Peak airway pressure",
        Metric::PlateauPressure => "Plateau pressure",
        Metric::MeanAirwayPressure => "Mean airway pressure",
        Metric::Peep => "PEEP",
        Metric::CentralVenousPressure => "Central venous pressure",
        Metric::Glucose => "Glucose",
        Metric::Weight => "Weight",
        Metric::Height => "Height",
        Metric::Bmi => "Body mass index",
        Metric::BodyFat => "Body fat",
        Metric::FatFreeMass => "Fat free mass",
        Metric::SoftLeanMass => "Soft lean mass",
        Metric::BodyWater => "Body water",
        Metric::Battery => "Battery",
        Metric::News2 => "NEWS2",
        Metric::HeartRateVariability => "Heart rate variability",
    }
}

/// One comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// `<`
    Below(Level),
    /// `<=`
    AtMost(Level),
    /// `>`
    Above(Level),
    /// `>=`
    AtLeast(Level),
}

impl Edge {
    /// The number compared with.
    pub const fn level(self) -> Level {
        match self {
            Self::Below(level) | Self::AtMost(level) | Self::Above(level) | Self::AtLeast(level) => level,
        }
    }

    /// The same comparison with another number.
    #[must_use]
    pub const fn at(self, level: Level) -> Self {
        match self {
            Self::Below(_) => Self::Below(level),
            Self::AtMost(_) => Self::AtMost(level),
            Self::Above(_) => Self::Above(level),
            Self::AtLeast(_) => Self::AtLeast(level),
        }
    }

    /// True for `<` and `<=`.
    pub const fn is_low(self) -> bool {
        matches!(self, Self::Below(_) | Self::AtMost(_))
    }

    /// Whether `value` satisfies it.
    pub fn holds(self, value: Level) -> bool {
        match self {
            Self::Below(level) => value < level,
            Self::AtMost(level) => value <= level,
            Self::Above(level) => value > level,
            Self::AtLeast(level) => value >= level,
        }
    }

    /// How far `value` is beyond the number; 0 on the good side.
    pub fn excess(self, value: Level) -> Level {
        let beyond = if self.is_low() { self.level().minus(value) } else { value.minus(self.level()) };
        beyond.max(Level(0))
    }

    /// The comparison that is satisfied exactly where this one is not, moved away from the limit by `distance`.
    #[must_use]
    pub const fn opposite(self, distance: Level) -> Self {
        match self {
            Self::Below(level) => Self::AtLeast(level.plus(distance)),
            Self::AtMost(level) => Self::Above(level.plus(distance)),
            Self::Above(level) => Self::AtMost(level.minus(distance)),
            Self::AtLeast(level) => Self::Below(level.minus(distance)),
        }
    }

    /// True if a value could meet this limit and the comparison that should clear it at once, or if they are on the
    /// same side.
    pub fn overlaps(self, clear: Self) -> bool {
        match (self, clear) {
            // No number lies between two neighbouring millionths, so `above` may stand just at the limit.
            (Self::Below(limit), Self::AtLeast(clear))
            | (Self::Below(limit) | Self::AtMost(limit), Self::Above(clear)) => clear < limit,
            (Self::AtMost(limit), Self::AtLeast(clear)) => clear <= limit,
            (Self::Above(limit), Self::AtMost(clear))
            | (Self::Above(limit) | Self::AtLeast(limit), Self::Below(clear)) => clear > limit,
            (Self::AtLeast(limit), Self::AtMost(clear)) => clear >= limit,
            _ => true,
        }
    }

    /// In words: `below 90 %`.
    pub fn text(self, unit: &str) -> String {
        match self {
            Self::Below(level) => format!("below {level} {unit}"),
            Self::AtMost(level) => format!("{level} {unit} or below"),
            Self::Above(level) => format!("above {level} {unit}"),
            Self::AtLeast(level) => format!("{level} {unit} or above"),
        }
    }
}

/// Where a limit comes from inside its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// Written as a number.
    Fixed(Edge),
    /// This far beyond the same side's limit of another rule, but no further than `stop` (floor or cap).
    Beyond {
        /// The other rule.
        rule: RuleId,
        /// How far beyond.
        by: Level,
        /// The floor of a low limit, the cap of a high one.
        stop: Option<Level>,
    },
}

/// One side of a rule: when it alarms and when it is clear again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// As written.
    pub limit: Limit,
    /// The clear level as written, if it is.
    pub written_clear: Option<Edge>,
    /// The limit in force.
    pub edge: Edge,
    /// The comparison that clears it.
    pub clear: Edge,
}

impl Bound {
    /// A bound whose limit is resolved to `edge`; the clear level follows by `hysteresis` unless it was written.
    pub fn new(limit: Limit, edge: Edge, written_clear: Option<Edge>, hysteresis: Level) -> Self {
        Self { limit, written_clear, edge, clear: written_clear.unwrap_or(edge.opposite(hysteresis)) }
    }
}

/// A change of the value inside a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// At least this much.
    pub by: Level,
    /// Inside this time.
    pub over: Duration,
}

/// What has to be true for a rule to alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// A value outside a bound, or a flag of the device.
    Limits {
        /// The low side.
        low: Option<Bound>,
        /// The high side.
        high: Option<Bound>,
        /// Status words that count as the condition too.
        flags: Vec<Status>,
    },
    /// A value that moved fast.
    Trend {
        /// Upwards.
        rising: Option<Change>,
        /// Downwards.
        falling: Option<Change>,
    },
    /// No valid value of a continuous metric for this long.
    NoValid(Duration),
    /// A device not connected for this long.
    LinkDown(Duration),
    /// The bridge says so.
    Bridge(BridgeCondition),
    /// All of these rules' conditions.
    AllOf(Vec<RuleId>),
    /// Any of these rules' conditions.
    AnyOf(Vec<RuleId>),
}

impl Condition {
    /// The conditions of other rules that this one is made of.
    pub fn members(&self) -> &[RuleId] {
        match self {
            Self::AllOf(members) | Self::AnyOf(members) => members,
            _ => &[],
        }
    }

    /// The bound of one side.
    pub const fn bound(&self, low_side: bool) -> Option<&Bound> {
        match self {
            Self::Limits { low, .. } if low_side => low.as_ref(),
            Self::Limits { high, .. } => high.as_ref(),
            _ => None,
        }
    }
}

/// How a value is smoothed before it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smoothing {
    /// Not at all.
    None,
    /// The mean of the values of this time.
    Mean(Duration),
    /// The median of the values of this time.
    Median(Duration),
}

/// The second way into an alert: depth times time, or many crossings, inside a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Units beyond the limit times seconds.
    pub points_seconds: u32,
    /// Inside this time.
    pub window: Duration,
    /// This many crossings of the limit inside the window do too.
    pub crossings: Option<u32>,
}

named_enum! {
    /// What stays after the condition has gone and nobody has acknowledged.
    Latching {
        /// Sound and light, until a person has seen it.
        Full = "full",
        /// A silent line, until a person has seen it.
        StatusLine = "status_line",
        /// Nothing.
        None = "none",
    }
}

named_enum! {
    /// Who set the limit in force.
    LimitSource {
        /// The default set.
        BuiltIn = "built_in",
        /// The rule file.
        File = "file",
        /// The rule file, for this patient.
        Override = "override",
        /// A person, for this patient, while the bridge runs.
        Runtime = "runtime",
    }
}

/// A rule or limit that a person switched off or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// Until when. `None`: without an end.
    pub expires: Option<Wall>,
}

impl Decision {
    pub(super) fn in_force(&self, now: Wall) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The times of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long the condition must hold before it alarms.
    pub delay: Duration,
    /// How long the clear condition must hold before the alert ends.
    pub clear_delay: Duration,
    /// How long an acknowledged alert stays quiet.
    pub reminder: Duration,
    /// The longest audio pause.
    pub audio_pause: Duration,
}

/// One checked rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// Patient or equipment.
    pub kind: AlertKind,
    /// How urgent.
    pub priority: Priority,
    /// What it looks at: the first that is available.
    pub sources: Vec<Quantity>,
    /// When it alarms.
    pub condition: Condition,
    /// Its times.
    pub times: Times,
    /// From what age a value is drawn as old (a rule with `no_valid_for` only).
    pub stale_after: Duration,
    /// Smoothing before the comparison.
    pub smoothing: Smoothing,
    /// The second way in.
    pub area: Option<Area>,
    /// How many readings in a row must meet the condition.
    pub consecutive: u32,
    /// Rules that hide this one while they alarm.
    pub inhibited_by: Vec<RuleId>,
    /// What stays.
    pub latching: Latching,
    /// Each value stands until the next one.
    pub spot: bool,
    /// Qualities that count.
    pub quality: Vec<Quality>,
    /// Switched off, if it is.
    pub off: Option<Decision>,
    /// Who set it.
    pub source: LimitSource,
    /// The decision behind an override.
    pub decision: Option<Decision>,
}

impl Rule {
    /// True if this is judged once for each device: battery and link.
    pub fn is_per_device(&self) -> bool {
        let only_flags =
            matches!(&self.condition, Condition::Limits { low: None, high: None, flags } if !flags.is_empty());
        matches!(self.condition, Condition::LinkDown(_))
            || (only_flags && self.sources.is_empty())
            || self.sources.first().is_some_and(|source| source.metric.info().rhythm == Rhythm::Status)
    }

    /// True if a value stands until the next one.
    pub fn keeps_values(&self) -> bool {
        let stands = |source: &Quantity| matches!(source.metric.info().rhythm, Rhythm::Status | Rhythm::Computed);
        self.spot || self.sources.first().is_some_and(stands)
    }

    /// True if it looks at an early warning score.
    pub(super) fn is_about_score(&self) -> bool {
        self.sources.first().is_some_and(|source| source.metric == Metric::News2)
    }

    /// The unit of its limits, for people.
    pub fn unit(&self) -> &'static str {
        self.sources.first().map_or("", |source| source.metric.info().unit)
    }

    /// The condition in words, without a value.
    pub fn text(&self) -> String {
        let unit = self.unit();
        match &self.condition {
            Condition::Limits { low, high, flags } => {
                let bounds = [low, high].into_iter().flatten().map(|bound| bound.edge.text(unit));
                let flags = flags.iter().map(|flag| format!("device reports {}", flag.name().replace('_', " ")));
                bounds.chain(flags).collect::<Vec<_>>().join(" or ")
            }
            Condition::Trend { rising, falling } => {
                let words = |word: &str, change: &Option<Change>| {
                    change.map(|change| format!("{word} by {} {unit} in {}", change.by, span_text(change.over)))
                };
                let words = [words("rising", rising), words("falling", falling)];
                words.into_iter().flatten().collect::<Vec<_>>().join(" or ")
            }
            Condition::NoValid(time) => format!("no valid value for {}", span_text(*time)),
            Condition::LinkDown(time) => format!("not connected for {}", span_text(*time)),
            Condition::Bridge(condition) => condition.text().to_owned(),
            Condition::AllOf(members) => joined(members, " and "),
            Condition::AnyOf(members) => joined(members, " or "),
        }
    }
}

fn joined(members: &[RuleId], word: &str) -> String {
    members.iter().map(RuleId::as_str).collect::<Vec<_>>().join(word)
}

/// A time as people write it: `500 ms`, `10 s`, `5 min`, `1 h`.
pub(super) fn span_text(time: Duration) -> String {
    let (millis, secs) = (time.as_millis(), time.as_secs());
    if millis % 1000 != 0 {
        format!("{millis} ms")
    } else if secs == 0 || secs % 60 != 0 {
        format!("{secs} s")
    } else if secs % 3600 != 0 {
        format!("{} min", secs / 60)
    } else {
        format!("{} h", secs / 3600)
    }
}

/// What one patient's override changes of one rule. What it does not mention stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    /// Which rule.
    pub rule: RuleId,
    /// Where it stands in the rule file.
    pub line: usize,
    /// The new limits.
    pub condition: Option<Condition>,
    /// The new times.
    pub times: Times,
    /// Switches the rule off.
    pub off: bool,
    /// Why, by whom and until when.
    pub decision: Decision,
    /// What a person asked for while the bridge runs. `None`: it stands in the rule file.
    pub change: Option<LimitChange>,
}

impl Override {
    /// True if it switches the rule off beside whatever limits hold.
    fn is_off_alone(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.kind == LimitKind::Off)
    }
}

/// One limit in force, for `check`, the snapshot and the dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveLimit {
    /// The rule.
    pub rule: RuleId,
    /// Patient or equipment.
    pub kind: AlertKind,
    /// How urgent.
    pub priority: Priority,
    /// What it looks at, in order (`spo2`, `blood_pressure.systolic`). Empty: every continuous metric, or no metric.
    pub metrics: Vec<String>,
    /// Unit of the limits, for people.
    pub unit: &'static str,
    /// The condition in words: `below 90 %`.
    pub text: String,
    /// The low limit.
    pub low: Option<Decimal>,
    /// The high limit.
    pub high: Option<Decimal>,
    /// How long it must hold, in milliseconds.
    pub delay_ms: u64,
    /// From what age a value is drawn as old, in milliseconds (no-signal rules only).
    pub stale_after_ms: Option<u64>,
    /// From what age there is no value and the rule alarms, in milliseconds (no-signal rules only).
    pub no_valid_for_ms: Option<u64>,
    /// Who set it.
    pub source: LimitSource,
    /// Where it stands in the rule file, if it does.
    pub line: Option<usize>,
    /// Why, by whom and until when, for an override.
    pub decision: Option<Decision>,
    /// ALARM OFF: why, by whom and until when.
    pub off: Option<Decision>,
}

impl EffectiveLimit {
    /// What is in force, in words: `below 90 % for 15 s`, or `ALARM OFF until ...`.
    pub fn summary(&self) -> String {
        let until = |off: &Decision| off.expires.map_or_else(String::new, |expires| format!(" until {expires}"));
        let delay = match self.delay_ms {
            0 => String::new(),
            ms => format!(" for {}", span_text(Duration::from_millis(ms))),
        };
        match &self.off {
            Some(off) => format!("ALARM OFF{} ({}{delay})", until(off), self.text),
            None => format!("{}{delay}", self.text),
        }
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Rule> for EffectiveLimit {
    fn from(rule: &Rule) -> Self {
        let level =
            |low_side| rule.condition.bound(low_side).and_then(|bound| bound.edge.level().to_string().parse().ok());
        let silence = match rule.condition {
            Condition::NoValid(time) => Some(time),
            _ => None,
        };
        Self {
            rule: rule.id.clone(),
            kind: rule.kind,
            priority: rule.priority,
            metrics: rule.sources.iter().map(ToString::to_string).collect(),
            unit: rule.unit(),
            text: rule.text(),
            low: level(true),
            high: level(false),
            delay_ms: millis(rule.times.delay),
            stale_after_ms: silence.map(|_| millis(rule.stale_after)),
            no_valid_for_ms: silence.map(millis),
            source: rule.source,
            line: None,
            decision: rule.decision.clone(),
            off: rule.off.clone(),
        }
    }
}

/// Every rule and override: checked, so that resolving them for a patient cannot fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// Physiological before technical, the most urgent first: an inhibitor stands before what it inhibits.
    pub(super) rules: Vec<Rule>,
    /// By patient.
    pub(super) overrides: BTreeMap<PatientId, Vec<Override>>,
    /// Where each rule of the rule file stands in it.
    pub(super) lines: BTreeMap<RuleId, usize>,
}

impl RuleSet {
    /// The rules of one patient (`None`: nobody in particular) at a moment; as many and in the same order for everybody.
    pub fn effective(&self, patient: Option<&PatientId>, now: Wall) -> Vec<Rule> {
        self.resolved(patient, now, false)
    }

    /// The same in a running engine: what a person changed holds for as long as it is there, because the engine takes it
    /// away when its time is over by the monotonic clock.
    pub(super) fn in_run(&self, patient: Option<&PatientId>, date: Wall) -> Vec<Rule> {
        self.resolved(patient, date, true)
    }

    fn resolved(&self, patient: Option<&PatientId>, now: Wall, changes_hold: bool) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        for rule in &mut rules {
            rule.off = rule.off.take().filter(|off| off.in_force(now));
        }
        let changes = patient.and_then(|patient| self.overrides.get(patient)).map_or(&[][..], Vec::as_slice);
        let in_force = |change: &&Override| changes_hold && change.change.is_some() || change.decision.in_force(now);
        // What a person set while the bridge runs stands in place of the rule file's override, and ALARM OFF over both.
        let mut changes: Vec<&Override> = changes.iter().filter(in_force).collect();
        changes.sort_by_key(|change| (change.change.is_some(), change.is_off_alone()));
        let own: Vec<&Override> =
            changes.iter().filter(|one| one.change.is_some() && !one.is_off_alone()).copied().collect();
        for change in changes {
            let is_replaced = change.change.is_none() && own.iter().any(|other| other.rule == change.rule);
            if let Some(rule) = rules.iter_mut().find(|rule| rule.id == change.rule && !is_replaced) {
                apply(rule, change);
            }
        }
        resolve(&mut rules);
        rules
    }

    /// The limits in force for a patient, the most urgent physiological first.
    pub fn limits(&self, patient: &PatientId, now: Wall) -> Vec<EffectiveLimit> {
        self.shown(patient, &self.effective(Some(patient), now))
    }

    /// The same in a running engine.
    pub(super) fn limits_in_run(&self, patient: &PatientId, date: Wall) -> Vec<EffectiveLimit> {
        self.shown(patient, &self.in_run(Some(patient), date))
    }

    fn shown(&self, patient: &PatientId, rules: &[Rule]) -> Vec<EffectiveLimit> {
        let with_line = |rule: &Rule| {
            let line = match rule.source {
                LimitSource::File => self.lines.get(&rule.id).copied(),
                LimitSource::Override => self.override_line(patient, &rule.id),
                LimitSource::BuiltIn | LimitSource::Runtime => None,
            };
            EffectiveLimit { line, ..EffectiveLimit::from(rule) }
        };
        rules.iter().map(with_line).collect()
    }

    fn override_line(&self, patient: &PatientId, rule: &RuleId) -> Option<usize> {
        let own = self.overrides.get(patient)?.iter();
        own.filter(|one| one.change.is_none() && one.rule == *rule).map(|one| one.line).next()
    }

    /// True if this patient has limits of its own, now or at another time.
    pub fn has_overrides(&self, patient: &PatientId) -> bool {
        self.overrides.contains_key(patient)
    }

    /// The patients with limits of their own, each with the line of the first in the rule file.
    pub fn patients_with_overrides(&self) -> impl Iterator<Item = (&PatientId, usize)> {
        self.overrides
            .iter()
            .filter_map(|(patient, changes)| Some((patient, changes.iter().map(|change| change.line).min()?)))
    }

    /// The span of wall time around `now` in which nothing of the rule file changes by its date: from (included) and until
    /// (excluded).
    pub fn unchanged_around(&self, now: Wall) -> (Wall, Wall) {
        let dates = self.rules.iter().filter_map(|rule| rule.off.as_ref()?.expires);
        let of_file = self.overrides.values().flatten().filter(|change| change.change.is_none());
        let expiries = of_file.filter_map(|change| change.decision.expires);
        let (mut from, mut until) = (Wall(i64::MIN), Wall(i64::MAX));
        for date in dates.chain(expiries) {
            if date <= now {
                from = from.max(date);
            } else {
                until = until.min(date);
            }
        }
        (from, until)
    }
}

fn apply(rule: &mut Rule, change: &Override) {
    if change.is_off_alone() {
        rule.off = Some(change.decision.clone());
        return;
    }
    if let Some(condition) = &change.condition {
        rule.condition = condition.clone();
    }
    rule.times = change.times;
    rule.source = if change.change.is_some() { LimitSource::Runtime } else { LimitSource::Override };
    rule.decision = Some(change.decision.clone());
    if change.off {
        rule.off = Some(change.decision.clone());
    }
}

/// Sets every limit that stands in relation to another rule's.
pub(super) fn resolve(rules: &mut [Rule]) {
    let known: BTreeMap<(RuleId, bool), Edge> = rules
        .iter()
        .flat_map(|rule| [true, false].map(|side| (rule.id.clone(), side, rule.condition.bound(side))))
        .filter_map(|(id, side, bound)| bound.map(|bound| ((id, side), bound.edge)))
        .collect();
    for rule in rules {
        let hysteresis = rule.sources.first().map_or(Level(0), |source| source.hysteresis());
        let Condition::Limits { low, high, .. } = &mut rule.condition else {
            continue;
        };
        for (side, bound) in [(true, low), (false, high)] {
            let Some(bound) = bound else {
                continue;
            };
            let Limit::Beyond { rule: other, by, stop } = &bound.limit else {
                continue;
            };
            if let Some(edge) = known.get(&(other.clone(), side)) {
                let edge = edge.at(beyond(*edge, *by, *stop));
                *bound = Bound::new(bound.limit.clone(), edge, bound.written_clear, hysteresis);
            }
        }
    }
}

/// The level `by` beyond an edge, not past `stop`.
fn beyond(edge: Edge, by: Level, stop: Option<Level>) -> Level {
    if edge.is_low() {
        let level = edge.level().minus(by);
        stop.map_or(level, |floor| level.max(floor))
    } else {
        let level = edge.level().plus(by);
        stop.map_or(level, |cap| level.min(cap))
    }
}
