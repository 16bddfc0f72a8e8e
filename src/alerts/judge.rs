//! Judging values: smoothing, limits with hysteresis, trends, area, crossings and readings in a row.

use std::collections::VecDeque;
use std::time::Duration;

use crate::alerts::rule::{Area, Bound, Change, Condition, Edge, Level, Rule, Smoothing};
use crate::clock::Mono;
use crate::vitals::Decimal;

/// Most values kept for one rule's window. Beyond it the oldest is forgotten, so that the window is shorter than asked.
const MAX_WINDOW_SAMPLES: usize = 1024;

/// Whether a rule's condition holds. The order is that of "all of": the lowest decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    /// The clear condition holds.
    Clear,
    /// Nobody can tell.
    Unknown,
    /// Between the limit and its clear level.
    Between,
    /// The condition holds.
    True,
}

impl Truth {
    /// What all of them make together.
    pub(super) fn all(parts: impl Iterator<Item = Self>) -> Self {
        parts.min().unwrap_or(Self::Unknown)
    }

    /// What any of them makes: one that is true is enough, and one that is unknown hides that the others are not.
    pub(super) fn any(parts: impl Iterator<Item = Self>) -> Self {
        let rank = |truth: &Self| match truth {
            Self::Clear => 0,
            Self::Between => 1,
            Self::Unknown => 2,
            Self::True => 3,
        };
        parts.max_by_key(rank).unwrap_or(Self::Unknown)
    }
}

/// What one rule has seen of one value.
#[derive(Debug, Clone, Default)]
pub(super) struct Judge {
    /// Values inside the window, oldest first.
    window: VecDeque<(Mono, Level)>,
    /// Since when the window was never empty.
    since: Option<Mono>,
    /// Excess of each interval in millionths times nanoseconds, with its end.
    excess: VecDeque<(Mono, i128)>,
    crossings: VecDeque<Mono>,
    last: Option<(Mono, Level)>,
    met: bool,
    streak: u32,
    verdict: Option<Verdict>,
}

/// What a judge says about the newest value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    /// Whether the condition holds.
    pub(super) truth: Truth,
    /// True if the area or the crossings are reached: no further delay.
    pub(super) at_once: bool,
    /// The value that was compared.
    pub(super) value: Decimal,
    /// The bound that is crossed, if one is.
    pub(super) edge: Option<Edge>,
}

impl Judge {
    /// The verdict on the newest value.
    pub(super) const fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Takes a new value; a gap longer than `hold` counts no further than `hold` for the area.
    pub(super) fn push(&mut self, rule: &Rule, value: Decimal, hold: Duration, at: Mono) {
        let level = self.smoothed(rule, Level::of(value), at);
        let value = match rule.smoothing {
            Smoothing::None => value,
            _ => level.rounded(value.exponent().min(0).unsigned_abs()).unwrap_or(value),
        };
        let (mut truth, edge) = match &rule.condition {
            Condition::Limits { low, high, .. } => limits(low.as_ref(), high.as_ref(), level),
            Condition::Trend { rising, falling } => (self.trend(*rising, *falling, level, at), None),
            _ => (Truth::Unknown, None),
        };
        let met = truth == Truth::True;
        let at_once = met && rule.area.is_some_and(|area| self.area(area, rule, met, hold, at));
        if let Some(area) = rule.area.filter(|_| !met) {
            self.area(area, rule, met, hold, at);
        }
        self.streak = if met { self.streak.saturating_add(1) } else { 0 };
        if met && self.streak < rule.consecutive {
            truth = Truth::Between;
        }
        self.met = met;
        self.last = Some((at, level));
        self.verdict = Some(Verdict { truth, at_once, value, edge });
    }

    /// Keeps the window up to date and returns the value to compare.
    fn smoothed(&mut self, rule: &Rule, level: Level, at: Mono) -> Level {
        let (mean, window) = match (rule.smoothing, &rule.condition) {
            (Smoothing::None, Condition::Trend { rising, falling }) => {
                let longest = [rising, falling].into_iter().flatten().map(|change| change.over).max();
                self.keep(level, longest.unwrap_or_default(), at);
                return level;
            }
            (Smoothing::None, _) => return level,
            (Smoothing::Mean(window), _) => (true, window),
            (Smoothing::Median(window), _) => (false, window),
        };
        self.keep(level, window, at);
        if mean {
            let sum: i128 = self.window.iter().map(|(_, level)| i128::from(level.0)).sum();
            let count = i128::try_from(self.window.len().max(1)).unwrap_or(1);
            return Level(i64::try_from(sum / count).unwrap_or(level.0));
        }
        let mut levels: Vec<Level> = self.window.iter().map(|(_, level)| *level).collect();
        levels.sort_unstable();
        let (lower, upper) = (levels.get((levels.len().max(1) - 1) / 2), levels.get(levels.len() / 2));
        lower.zip(upper).map_or(level, |(lower, upper)| Level(lower.0.midpoint(upper.0)))
    }

    fn keep(&mut self, level: Level, window: Duration, at: Mono) {
        self.window.push_back((at, level));
        while self.window.len() > MAX_WINDOW_SAMPLES
            || self.window.front().is_some_and(|(taken, _)| at.since(*taken) > window)
        {
            self.window.pop_front();
        }
        if self.window.len() <= 1 {
            self.since = Some(at);
        }
    }

    /// A trend that is not there is clear only once it is known for as long as it may take: with less history nobody can
    /// tell.
    fn trend(&self, rising: Option<Change>, falling: Option<Change>, level: Level, at: Mono) -> Truth {
        let inside = |change: Change| self.window.iter().filter(move |(taken, _)| at.since(*taken) <= change.over);
        let rose = rising.is_some_and(|change| inside(change).any(|(_, old)| level.minus(*old) >= change.by));
        let fell = falling.is_some_and(|change| inside(change).any(|(_, old)| old.minus(level) >= change.by));
        let known = self.since.map_or(Duration::ZERO, |since| at.since(since));
        let is_known = [rising, falling].into_iter().flatten().all(|change| known >= change.over);
        match (rose || fell, is_known) {
            (true, _) => Truth::True,
            (false, true) => Truth::Clear,
            (false, false) => Truth::Unknown,
        }
    }

    /// Adds the interval since the last value, at that value; true if the area or the crossings are reached.
    fn area(&mut self, area: Area, rule: &Rule, met: bool, hold: Duration, at: Mono) -> bool {
        if let Some((taken, level)) = self.last {
            let held = i128::try_from(at.since(taken).min(hold).as_nanos()).unwrap_or(0);
            let bounds = [true, false].into_iter().filter_map(|side| rule.condition.bound(side));
            let excess: i128 = bounds.map(|bound| i128::from(bound.edge.excess(level).0)).sum();
            if excess > 0 {
                self.excess.push_back((at, excess * held));
            }
        }
        if met && !self.met {
            self.crossings.push_back(at);
        }
        let old = |end: &Mono| at.since(*end) > area.window;
        while self.excess.len() > MAX_WINDOW_SAMPLES || self.excess.front().is_some_and(|(end, _)| old(end)) {
            self.excess.pop_front();
        }
        while self.crossings.len() > MAX_WINDOW_SAMPLES || self.crossings.front().is_some_and(old) {
            self.crossings.pop_front();
        }
        let sum: i128 = self.excess.iter().map(|(_, excess)| *excess).sum();
        // Millionths times nanoseconds in one unit times one second.
        let wanted = i128::from(area.points_seconds) * i128::from(Level::ONE) * 1_000_000_000;
        let crossings = u32::try_from(self.crossings.len()).unwrap_or(u32::MAX);
        sum >= wanted || area.crossings.is_some_and(|wanted| crossings >= wanted)
    }
}

/// What a value is to a rule's bounds, and the bound it crosses.
fn limits(low: Option<&Bound>, high: Option<&Bound>, level: Level) -> (Truth, Option<Edge>) {
    let bounds = || [low, high].into_iter().flatten();
    if let Some(bound) = bounds().find(|bound| bound.edge.holds(level)) {
        return (Truth::True, Some(bound.edge));
    }
    let is_clear = bounds().all(|bound| bound.clear.holds(level));
    (if is_clear { Truth::Clear } else { Truth::Between }, None)
}

/// What a number that is only known to lie between `least` and `most` is to a rule's bounds, and the bound it crosses.
///
/// It is beyond a bound only if all of it is, and clear only if all of it is; else nobody can tell.
pub(super) fn range(low: Option<&Bound>, high: Option<&Bound>, least: Level, most: Level) -> (Truth, Option<Edge>) {
    let bounds = || [low, high].into_iter().flatten();
    let all = |edge: Edge| edge.holds(least) && edge.holds(most);
    let any = |edge: Edge| edge.holds(least) || edge.holds(most);
    if let Some(bound) = bounds().find(|bound| all(bound.edge)) {
        return (Truth::True, Some(bound.edge));
    }
    let truth = if bounds().all(|bound| all(bound.clear)) {
        Truth::Clear
    } else if !bounds().any(|bound| any(bound.edge)) && bounds().any(|bound| !any(bound.clear)) {
        Truth::Between
    } else {
        Truth::Unknown
    };
    (truth, None)
}
