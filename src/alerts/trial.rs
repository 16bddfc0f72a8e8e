//! Trying rules on recorded values: the alerts a rule set would have made, in the recording's own time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::alerts::engine::Engine;
use crate::alerts::rule::{
    Bound, Condition, Decision, EffectiveLimit, Level, Limit, Quantity, Rule, RuleSet, Smoothing,
};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{AlertChange, AlertEvent, AlertKind, LinkState, Presence, Priority, SourceEvent};
use crate::ids::{AlertId, DeviceId, PatientId, RuleId, SourceId};
use crate::named::named_enum;
use crate::vitals::{Absent, Decimal, Metric, Mode, Pressure, Quality, Reading, Rhythm, Taken, Value, Vital};

/// Most alerts that are kept one by one. Beyond it they are only counted and added up.
pub const MAX_LISTED: usize = 100_000;
/// Where the virtual clock begins: late enough that nothing lies before it.
const BEGAN: Mono = Mono::from_millis(86_400_000);

named_enum! {
    /// What of the rules is tried.
    Variant {
        /// The rules as they are in force.
        AsWritten = "as_written",
        /// Their limits alone: no delay, no hysteresis, no inhibition.
        RawLimits = "raw_limits",
        /// Their limits alone, and a reported 0 counts as the number 0.
        RawLimitsAndZeros = "raw_limits_and_zeros",
    }
}

named_enum! {
    /// Whether a recording says anything about a rule.
    Tried {
        /// It does.
        Yes = "yes",
        /// No valid value of what the rule looks at.
        NoValues = "no_values",
        /// Links, batteries and the bridge itself are not in a recording.
        NotRecorded = "not_recorded",
        /// A person switched the rule off.
        Off = "off",
    }
}

/// One alert; times are counted from the first row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialAlert {
    /// Whose it is.
    pub rule: RuleId,
    /// The metric it is about.
    pub metric: Option<Metric>,
    /// The highest it had.
    pub priority: Priority,
    /// When the condition became true, before the delay.
    pub onset: Duration,
    /// When it alarmed.
    pub start: Duration,
    /// When its condition was over, or the recording.
    pub end: Duration,
    /// The recording ended before it did.
    pub is_open: bool,
    /// For how long of it nobody knew, for want of data.
    pub unknown: Duration,
    /// For how long of it another alert stood for it.
    pub hidden: Duration,
    /// What people would have read at its start.
    pub message: String,
}

impl TrialAlert {
    /// How long it lasted.
    pub const fn lasted(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// The alerts of a rule, or of a no-signal rule about one metric, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialRow {
    /// The rule, as it was tried.
    pub limit: EffectiveLimit,
    /// The metric, for a no-signal rule.
    pub metric: Option<Metric>,
    /// Whether the recording says anything about it.
    pub tried: Tried,
    /// What came of it.
    pub tally: Tally,
    /// How often the condition went away before the delay was over.
    pub near_misses: u64,
}

/// Alerts added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many; one that came back while it was latched counts again.
    pub alerts: u64,
    /// How long, all together.
    pub total: Duration,
    /// How long, the longest.
    pub longest: Duration,
    /// How long of the total without data.
    pub unknown: Duration,
    /// How long of the total behind another alert.
    pub hidden: Duration,
    /// When the first began.
    pub first: Option<Duration>,
    /// When the last began.
    pub last: Option<Duration>,
}

impl Tally {
    fn add(&mut self, alert: &TrialAlert) {
        self.alerts += 1;
        self.total += alert.lasted();
        self.longest = self.longest.max(alert.lasted());
        self.unknown += alert.unknown;
        self.hidden += alert.hidden;
        // Alerts are added as they end, which is not as they began.
        self.first = Some(self.first.map_or(alert.start, |first| first.min(alert.start)));
        self.last = self.last.max(Some(alert.start));
    }
}

/// What a rule set would have alarmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialReport {
    /// Every rule, the most urgent physiological first.
    pub rows: Vec<TrialRow>,
    /// Every alert as it began, up to [`MAX_LISTED`].
    pub alerts: Vec<TrialAlert>,
    /// Alerts beyond that, which are only in the rows.
    pub unlisted: u64,
}

/// An alert whose condition is not over.
#[derive(Debug)]
struct Running {
    alert: TrialAlert,
    unknown_since: Option<Duration>,
    hidden_since: Option<Duration>,
}

/// A rule set at work on a recording of one patient.
#[derive(Debug)]
pub struct Trial {
    engine: Engine,
    rules: Vec<Rule>,
    variant: Variant,
    patient: PatientId,
    device: DeviceId,
    source: SourceId,
    began: Stamp,
    at: Duration,
    running: BTreeMap<AlertId, Running>,
    alerts: Vec<TrialAlert>,
    unlisted: u64,
    tallies: BTreeMap<(RuleId, Option<Metric>), Tally>,
    valued: BTreeSet<Quantity>,
}

impl Trial {
    /// Tries the rules that are in force for `patient` at the time of day `wall`, throughout the recording: no override
    /// expires half-way. `source` is what the recording is called in what people read.
    pub fn new(
        rules: &RuleSet,
        patient: PatientId,
        source: SourceId,
        device: DeviceId,
        variant: Variant,
        wall: Wall,
    ) -> Self {
        let mut rules = rules.effective(Some(&patient), wall);
        for rule in &mut rules {
            rule.off = rule.off.take().map(|off| Decision { expires: None, ..off });
            if variant != Variant::AsWritten {
                bare(rule);
            }
        }
        let set = RuleSet { rules: rules.clone(), overrides: BTreeMap::new(), lines: BTreeMap::new() };
        let began = Stamp { mono: BEGAN, wall };
        let mut trial = Self {
            engine: Engine::new(set, 0),
            rules,
            variant,
            patient,
            device,
            source,
            began,
            at: Duration::ZERO,
            running: BTreeMap::new(),
            alerts: Vec::new(),
            unlisted: 0,
            tallies: BTreeMap::new(),
            valued: BTreeSet::new(),
        };
        let live = trial.link();
        let events = trial.engine.on_source(&live, began);
        trial.note(events);
        trial
    }

    fn link(&self) -> SourceEvent {
        SourceEvent {
            source: self.source.clone(),
            device: self.device.clone(),
            patient: Some(self.patient.clone()),
            link: LinkState::Live,
            status: BTreeSet::new(),
            reason: None,
            mode: Mode::Test,
        }
    }

    /// Takes a vital at a time since the first row; a time before the last one counts as the last one.
    pub fn take(&mut self, at: Duration, vital: &Vital, quality: Quality) {
        let now = self.run_to(at);
        let counted = if self.variant == Variant::RawLimitsAndZeros { zeros_counted(vital) } else { None };
        let quality = if counted.is_some() { Quality::Valid } else { quality };
        let vital = counted.unwrap_or_else(|| vital.clone());
        let values = Quantity::in_vital(&vital).into_iter().filter(|(_, value)| value.valid().is_some());
        self.valued.extend(values.map(|(quantity, _)| quantity));
        let reading = Reading {
            patient: Some(self.patient.clone()),
            device: self.device.clone(),
            source: self.source.clone(),
            vital,
            mdc: None,
            quality,
            mode: Mode::Test,
            taken: Taken::on_arrival(now),
            received: now,
        };
        let events = self.engine.on_reading(&reading, now);
        self.note(events);
    }

    /// Does what only time brings about before `at`, and returns that moment.
    fn run_to(&mut self, at: Duration) -> Stamp {
        let at = at.max(self.at);
        let target = self.began.mono + at;
        while let Some(due) = self.engine.next_deadline().filter(|due| *due < target) {
            let now = self.move_to(due.since(self.began.mono));
            let events = self.engine.on_deadline(now);
            self.note(events);
        }
        self.move_to(at)
    }

    fn move_to(&mut self, at: Duration) -> Stamp {
        self.at = self.at.max(at);
        let millis = i64::try_from(self.at.as_millis()).unwrap_or(i64::MAX);
        Stamp { mono: self.began.mono + self.at, wall: Wall(self.began.wall.0.saturating_add(millis)) }
    }

    fn note(&mut self, events: Vec<AlertEvent>) {
        for event in events.into_iter().filter(|event| event.patient.is_some()) {
            let (id, at) = (event.alert, self.at);
            match event.change {
                AlertChange::Start | AlertChange::Recur => _ = self.running.insert(id, begin(&event, at)),
                AlertChange::Latch | AlertChange::End => {
                    if let Some(running) = self.running.remove(&id) {
                        self.close(running, false);
                    }
                }
                _ => {
                    if let Some(running) = self.running.get_mut(&id) {
                        running.follow(&event, at);
                    }
                }
            }
        }
    }

    fn close(&mut self, running: Running, is_open: bool) {
        let alert = running.into_alert(self.at, is_open);
        let about =
            self.rules.iter().find(|rule| rule.id == alert.rule).and_then(|rule| row_metric(rule, alert.metric));
        self.tallies.entry((alert.rule.clone(), about)).or_default().add(&alert);
        if self.alerts.len() < MAX_LISTED { self.alerts.push(alert) } else { self.unlisted += 1 }
    }

    /// Ends the recording at `at`: what still alarms is cut there.
    pub fn finish(mut self, at: Duration) -> TrialReport {
        let now = self.run_to(at);
        let events = self.engine.on_deadline(now);
        self.note(events);
        for (_, running) in std::mem::take(&mut self.running) {
            self.close(running, true);
        }
        self.alerts.sort_by_key(|alert| alert.start);
        let near_misses = self.engine.near_misses();
        let mut rows = Vec::new();
        for rule in &self.rules {
            let of_rule = self.tallies.iter().filter(|((id, _), _)| *id == rule.id);
            let mut tallies: Vec<_> = of_rule.map(|((_, metric), tally)| (*metric, tally.clone())).collect();
            if tallies.is_empty() {
                tallies.push((None, Tally::default()));
            }
            let near_misses = near_misses.get(&rule.id).copied().unwrap_or(0);
            rows.extend(tallies.into_iter().map(|(metric, tally)| TrialRow {
                limit: EffectiveLimit::from(rule),
                metric,
                tried: self.tried(rule),
                tally,
                near_misses,
            }));
        }
        TrialReport { rows, alerts: self.alerts, unlisted: self.unlisted }
    }

    fn tried(&self, rule: &Rule) -> Tried {
        let members = rule.condition.members();
        let parts = self.rules.iter().filter(|other| members.contains(&other.id));
        let mut sources = rule.sources.iter().chain(parts.flat_map(|part| &part.sources));
        match rule.condition {
            _ if rule.off.is_some() => Tried::Off,
            Condition::LinkDown(_) | Condition::Bridge(_) => Tried::NotRecorded,
            _ if rule.is_per_device() => Tried::NotRecorded,
            Condition::NoValid(_) => Tried::Yes,
            _ if sources.any(|source| self.valued.contains(source)) => Tried::Yes,
            _ => Tried::NoValues,
        }
    }
}

/// A no-signal rule has a row for each metric.
fn row_metric(rule: &Rule, metric: Option<Metric>) -> Option<Metric> {
    metric.filter(|_| matches!(rule.condition, Condition::NoValid(_)))
}

fn begin(event: &AlertEvent, at: Duration) -> Running {
    let delay = event.announced.0.saturating_sub(event.onset.0);
    let delay = Duration::from_millis(u64::try_from(delay).unwrap_or(0));
    let mut running = Running {
        unknown_since: None,
        hidden_since: None,
        alert: TrialAlert {
            rule: event.rule.clone(),
            metric: event.metric,
            priority: event.priority,
            // A recurrence keeps the first announcement; its own beginning is not told.
            onset: if event.change == AlertChange::Start { at.saturating_sub(delay) } else { at },
            start: at,
            end: at,
            is_open: true,
            unknown: Duration::ZERO,
            hidden: Duration::ZERO,
            message: event.message.clone(),
        },
    };
    running.follow(event, at);
    running
}

impl Running {
    /// Notes whether there is data, and whether another alert stands for it.
    fn follow(&mut self, event: &AlertEvent, at: Duration) {
        self.alert.priority = self.alert.priority.max(event.priority);
        let is_unknown = event.presence == Presence::Unknown;
        span(&mut self.unknown_since, &mut self.alert.unknown, is_unknown, at);
        span(&mut self.hidden_since, &mut self.alert.hidden, event.hidden_by.is_some(), at);
    }

    fn into_alert(mut self, at: Duration, is_open: bool) -> TrialAlert {
        span(&mut self.unknown_since, &mut self.alert.unknown, false, at);
        span(&mut self.hidden_since, &mut self.alert.hidden, false, at);
        TrialAlert { end: at, is_open, ..self.alert }
    }
}

/// Adds to `sum` how long something held once it does no more.
fn span(since: &mut Option<Duration>, sum: &mut Duration, holds: bool, at: Duration) {
    match (*since, holds) {
        (None, true) => *since = Some(at),
        (Some(began), false) => {
            *sum += at.saturating_sub(began);
            *since = None;
        }
        _ => {}
    }
}

/// Leaves of a rule about the patient its limits and nothing else.
fn bare(rule: &mut Rule) {
    if rule.kind != AlertKind::Physiological {
        return;
    }
    rule.times.delay = Duration::ZERO;
    rule.times.clear_delay = Duration::ZERO;
    rule.smoothing = Smoothing::None;
    rule.area = None;
    rule.consecutive = 1;
    rule.inhibited_by.clear();
    if let Condition::Limits { low, high, .. } = &mut rule.condition {
        for bound in [low, high].into_iter().flatten() {
            let clear = bound.edge.opposite(Level(0));
            *bound = Bound::new(Limit::Fixed(bound.edge), bound.edge, Some(clear), Level(0));
        }
    }
}

/// The vital with each reported 0 taken for the number 0, as a program that does not know better would; `None` if it
/// reports none.
fn zeros_counted(vital: &Vital) -> Option<Vital> {
    let is_zero = |value: Value| value == Value::Absent(Absent::ZeroReported);
    let count = |value| if is_zero(value) { Value::Valid(Decimal::integer(0)) } else { value };
    let of = |pressure: &Pressure| {
        let Pressure { systolic, diastolic, mean } = *pressure;
        let has_zero = [systolic, diastolic, mean].into_iter().any(is_zero);
        has_zero.then(|| Pressure { systolic: count(systolic), diastolic: count(diastolic), mean: count(mean) })
    };
    match vital {
        Vital::Scalar { metric, value } if is_zero(*value) && metric.info().rhythm != Rhythm::Status => {
            Some(Vital::scalar(*metric, count(*value)))
        }
        Vital::BloodPressure(pressure) => of(pressure).map(Vital::BloodPressure),
        Vital::ArterialPressure(pressure) => of(pressure).map(Vital::ArterialPressure),
        Vital::Scalar { .. } | Vital::RrIntervals(_) => None,
    }
}
