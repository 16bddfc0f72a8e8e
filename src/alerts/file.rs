//! The rule file: its TOML form, and the checks that turn it into a [`RuleSet`] with every problem named by line.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use toml::Spanned;

use crate::alerts::rule::{
    Area, Bound, Change, Condition, Decision, Edge, Latching, Level, Limit, LimitSource, Override, Quantity, Rule,
    RuleSet, Smoothing, Times, span_text,
};
use crate::alerts::written::{
    RawArea, RawChange, RawClear, RawFile, RawOverride, RawRule, RawSmoothing, RawWhen, SmoothingKind, Time, Words,
};
use crate::clock::Wall;
use crate::document::{self, Problems};
use crate::event::{AlertKind, Priority};
use crate::ids::{PatientId, RuleId};
use crate::vitals::{Decimal, Quality, Rhythm, Status};

/// Longest rule file that is read, in bytes. A longer one is refused.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Most rules, the default set included. A file with more is refused.
pub const MAX_RULES: usize = 256;
/// Most overrides of all patients together. A file with more is refused.
pub const MAX_OVERRIDES: usize = 4096;
/// Longest time without a valid value before it is missed, the rule's delay included: whatever a rule says, nothing older
/// is live.
pub(super) const MAX_SILENCE: Duration = Duration::from_mins(2);
/// Longest time without a link before it is missed, the rule's delay included.
const MAX_LINK_DOWN: Duration = Duration::from_mins(5);
/// Longest delay, and longest window of smoothing, of a rule of high priority.
const MAX_DELAY_HIGH: Duration = Duration::from_mins(1);
/// Longest delay of other rules.
const MAX_DELAY: Duration = Duration::from_mins(5);
/// Longest time that an acknowledged alert stays quiet.
const MAX_REMINDER: Duration = Duration::from_hours(1);
/// How a rule is really put off, for whoever tries it with a time.
const SWITCH_OFF: &str =
    "to silence a rule for longer, switch it off with an end (`rule.disable`, or `enabled = false` with `expires`)";
/// Longest window that values are kept for.
const MAX_WINDOW: Duration = Duration::from_mins(15);
/// Longest audio pause (IEC 60601-1-8, 6.8.3: a pause is limited in time).
pub(super) const MAX_AUDIO_PAUSE: Duration = Duration::from_mins(2);
/// Longest reason and name of a person, in bytes.
pub(super) const MAX_WORDS_BYTES: usize = 200;

const DEFAULT_CLEAR_DELAY: Duration = Duration::from_secs(5);
const DEFAULT_REMINDER: Duration = Duration::from_mins(3);

/// A checked rule with what is only known when every rule is: whom it inhibits, and where it stands.
pub(super) struct Draft {
    pub(super) rule: Rule,
    pub(super) inhibits: Vec<RuleId>,
    /// Line of its `when`, or 0 for the default set.
    pub(super) line: usize,
}

/// One pass over one text.
pub(super) struct Reader<'a> {
    text: &'a str,
    /// The default set has no lines that a user could mend.
    source: LimitSource,
    pub(super) problems: Problems,
}

impl RuleSet {
    /// The default set for adults.
    pub fn built_in() -> Self {
        #[expect(clippy::expect_used, reason = "the text is part of the program, and a test parses it")]
        Self::parse("").expect("the default rules are valid")
    }

    /// The default set with the rules of a file: a rule with the id of a default one replaces it.
    ///
    /// # Errors
    /// Every problem of the file, each with its line.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut defaults = Reader::new(include_str!("default_rules.toml"), LimitSource::BuiltIn);
        let mut drafts: Vec<Draft> = defaults.file().map_or_else(Vec::new, |file| defaults.drafts(&file));
        let mut reader = Reader::new(text, LimitSource::File);
        reader.problems = defaults.problems;
        if text.len() > MAX_FILE_BYTES {
            reader.problems.add_at_line(0, format!("the file is longer than {MAX_FILE_BYTES} bytes"));
            return Err(reader.problems);
        }
        let Some(file) = reader.file() else {
            return Err(reader.problems);
        };
        for draft in reader.drafts(&file) {
            drafts.retain(|other| other.rule.id != draft.rule.id || other.line > 0);
            drafts.push(draft);
        }
        if drafts.len() > MAX_RULES {
            reader.problems.add_at_line(0, format!("{} rules are more than {MAX_RULES}", drafts.len()));
            return Err(reader.problems);
        }
        reader.relate(&mut drafts);
        let overrides = reader.overrides(&file, &drafts);
        let mut rules: Vec<Rule> = drafts.iter().map(|draft| draft.rule.clone()).collect();
        rules.sort_by_key(|rule| (rule.kind, std::cmp::Reverse(rule.priority)));
        let lines =
            drafts.iter().filter(|draft| draft.line > 0).map(|draft| (draft.rule.id.clone(), draft.line)).collect();
        let set = Self { rules, overrides, lines };
        reader.check_orders(&set, &file, &drafts);
        if reader.problems.is_empty() { Ok(set) } else { Err(reader.problems) }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, source: LimitSource) -> Self {
        Self { text, source, problems: Problems::default() }
    }

    pub(super) fn file(&mut self) -> Option<RawFile> {
        document::read(self.text, &mut self.problems)
    }

    /// The line of a spanned item; 0 in the default set.
    pub(super) fn line<T>(&self, item: &Spanned<T>) -> usize {
        if self.source == LimitSource::BuiltIn { 0 } else { document::line_of(self.text, item.span().start) }
    }

    pub(super) fn wrong<T>(&mut self, item: &Spanned<T>, message: impl Into<String>) {
        let line = self.line(item);
        self.problems.add_at_line(line, message);
    }

    fn drafts(&mut self, file: &RawFile) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::new();
        for raw in &file.rule {
            let Some(draft) = self.draft(raw.get_ref()) else {
                continue;
            };
            if drafts.iter().any(|other| other.rule.id == draft.rule.id) {
                self.wrong(&raw.get_ref().id, format!("rule `{}` is defined twice", draft.rule.id));
            } else {
                drafts.push(draft);
            }
        }
        drafts
    }

    fn draft(&mut self, raw: &RawRule) -> Option<Draft> {
        let id: RuleId = self.parsed(&raw.id)?;
        let sources = self.sources(raw)?;
        let condition = self.condition(&raw.when, raw.clear.as_ref(), &sources)?;
        self.check_kind(raw, &condition, &sources);
        if let Some(delay) = &raw.delay {
            self.check_delay(delay, raw.priority, &condition);
        }
        let latching = match raw.latching.as_ref().map(Spanned::get_ref) {
            Some(latching) => *latching,
            None => default_latching(raw.kind, raw.priority),
        };
        let stale_after = self.stale_after(raw, &condition);
        let rule = Rule {
            times: self.times(raw),
            stale_after,
            smoothing: self.smoothing(raw),
            area: self.area(raw, &condition),
            consecutive: self.consecutive(raw),
            inhibited_by: self.names(&raw.inhibited_by),
            quality: self.quality(raw),
            off: self.off(raw),
            id,
            kind: raw.kind,
            priority: raw.priority,
            sources,
            condition,
            latching,
            spot: raw.spot,
            source: self.source,
            decision: None,
        };
        Some(Draft { inhibits: self.names(&raw.inhibits), line: self.line(&raw.when), rule })
    }

    /// A spanned text as an identifier.
    fn parsed<T: std::str::FromStr<Err: fmt::Display>>(&mut self, text: &Spanned<String>) -> Option<T> {
        match text.get_ref().parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.wrong(text, error.to_string());
                None
            }
        }
    }

    fn names(&mut self, names: &[Spanned<String>]) -> Vec<RuleId> {
        names.iter().filter_map(|name| self.parsed(name)).collect()
    }

    /// The metrics of a rule; `None` after a problem.
    fn sources(&mut self, raw: &RawRule) -> Option<Vec<Quantity>> {
        let Some(words) = &raw.metric else {
            if let Some(unit) = &raw.unit {
                self.wrong(unit, "a unit needs a metric");
            }
            return Some(Vec::new());
        };
        let mut sources = Vec::new();
        let mut fine = true;
        for word in &words.get_ref().0 {
            match Quantity::parse(word) {
                Ok(source) => sources.push(source),
                Err(message) => {
                    self.wrong(words, message);
                    fine = false;
                }
            }
        }
        let (Some(first), true) = (sources.first(), fine) else {
            if fine {
                self.wrong(words, "the list of metrics is empty");
            }
            return None;
        };
        let info = first.metric.info();
        if let Some(other) = sources.iter().find(|source| source.metric.info().unit != info.unit) {
            self.wrong(words, format!("`{first}` is in {} and `{other}` in {}", info.unit, other.metric.info().unit));
        }
        if let Some(unit) = &raw.unit
            && ![info.unit, info.ucum].contains(&unit.get_ref().as_str())
        {
            self.wrong(unit, format!("limits of `{first}` are in {}, not in `{}`", info.unit, unit.get_ref()));
        }
        Some(sources)
    }

    /// What `when` says; `None` after a problem.
    fn condition(
        &mut self,
        when: &Spanned<RawWhen>,
        clear: Option<&Spanned<RawClear>>,
        sources: &[Quantity],
    ) -> Option<Condition> {
        let raw = when.get_ref();
        let has_limits = [raw.below, raw.at_most, raw.above, raw.at_least].iter().any(Option::is_some)
            || raw.below_other.is_some()
            || raw.above_other.is_some();
        let has_trend = raw.rising_by.is_some() || raw.falling_by.is_some();
        let others = [
            raw.no_valid_for.is_some(),
            raw.link_down_for.is_some(),
            raw.condition.is_some(),
            raw.all_of.is_some(),
            raw.any_of.is_some(),
            has_trend,
            has_limits || raw.or_flag.is_some(),
        ];
        if others.iter().filter(|present| **present).count() != 1 {
            self.wrong(when, "`when` needs exactly one kind of condition: limits, a change, a silence or other rules");
            return None;
        }
        if let Some(clear) = clear.filter(|_| !has_limits) {
            self.wrong(clear, "`clear` belongs to a limit");
        }
        if (has_limits || has_trend) && sources.is_empty() {
            self.wrong(when, "a limit needs a metric");
            return None;
        }
        if let Some(Time(time)) = raw.no_valid_for {
            return self.silence(when, time, MAX_SILENCE).map(Condition::NoValid);
        }
        if let Some(Time(time)) = raw.link_down_for {
            return self.silence(when, time, MAX_LINK_DOWN).map(Condition::LinkDown);
        }
        if let Some(condition) = raw.condition {
            return Some(Condition::Bridge(condition));
        }
        if let Some(members) = &raw.all_of {
            return self.members(when, members).map(Condition::AllOf);
        }
        if let Some(members) = &raw.any_of {
            return self.members(when, members).map(Condition::AnyOf);
        }
        if has_trend { self.trend(when) } else { self.limits(when, clear, sources) }
    }

    fn silence(&mut self, when: &Spanned<RawWhen>, time: Duration, longest: Duration) -> Option<Duration> {
        if time < Duration::from_secs(1) {
            self.wrong(when, "a silence shorter than 1s would alarm between two readings");
            return None;
        }
        if time > longest {
            let longest = span_text(longest);
            self.wrong(when, format!("a silence is missed after {longest} at the latest: {SWITCH_OFF}"));
            return None;
        }
        Some(time)
    }

    /// A delay is there to leave out what passes by itself, not to silence a rule.
    fn check_delay(&mut self, place: &Spanned<Time>, priority: Priority, condition: &Condition) {
        let Time(delay) = *place.get_ref();
        let (longest, what) = match condition {
            Condition::NoValid(silence) => (MAX_SILENCE.saturating_sub(*silence), "after its silence a rule"),
            Condition::LinkDown(silence) => (MAX_LINK_DOWN.saturating_sub(*silence), "after its silence a rule"),
            _ if priority == Priority::High => (MAX_DELAY_HIGH, "a rule of priority high"),
            _ => (MAX_DELAY, "a rule"),
        };
        if delay > longest {
            self.wrong(place, format!("{what} waits {} at most: {SWITCH_OFF}", span_text(longest)));
        }
    }

    fn members(&mut self, when: &Spanned<RawWhen>, members: &[String]) -> Option<Vec<RuleId>> {
        let ids: Vec<RuleId> = members.iter().filter_map(|member| member.parse().ok()).collect();
        if ids.len() != members.len() || ids.len() < 2 {
            self.wrong(when, "a compound rule names at least two rules");
            return None;
        }
        Some(ids)
    }

    fn trend(&mut self, when: &Spanned<RawWhen>) -> Option<Condition> {
        let raw = when.get_ref();
        let mut fine = true;
        let mut change = |change: Option<RawChange>| {
            let change = change.map(|change| Change { by: Level::of(change.by), over: change.over.0 })?;
            if change.by <= Level(0) || change.over.is_zero() || change.over > MAX_WINDOW {
                fine = false;
            }
            Some(change)
        };
        let condition = Condition::Trend { rising: change(raw.rising_by), falling: change(raw.falling_by) };
        if !fine {
            self.wrong(when, "a change is more than 0, over a time of at most 15m");
        }
        fine.then_some(condition)
    }

    fn limits(
        &mut self,
        when: &Spanned<RawWhen>,
        clear: Option<&Spanned<RawClear>>,
        sources: &[Quantity],
    ) -> Option<Condition> {
        let raw = when.get_ref();
        let fixed = |edge: fn(Level) -> Edge, number: Option<Decimal>| {
            number.map(|number| (Limit::Fixed(edge(Level::of(number))), edge(Level::of(number))))
        };
        let lows = [
            fixed(Edge::Below, raw.below),
            fixed(Edge::AtMost, raw.at_most),
            raw.below_other.as_ref().and_then(|other| {
                let limit = self.beyond(when, &other.rule, other.by, other.floor)?;
                Some((limit, Edge::Below(Level(0))))
            }),
        ];
        let highs = [
            fixed(Edge::Above, raw.above),
            fixed(Edge::AtLeast, raw.at_least),
            raw.above_other.as_ref().and_then(|other| {
                let limit = self.beyond(when, &other.rule, other.by, other.cap)?;
                Some((limit, Edge::Above(Level(0))))
            }),
        ];
        let low = self.one_side(when, lows, clear.map(|clear| (clear, true)), sources);
        let high = self.one_side(when, highs, clear.map(|clear| (clear, false)), sources);
        if let (Some(low), Some(high)) = (&low, &high)
            && low.edge.level() >= high.edge.level()
            && matches!((&low.limit, &high.limit), (Limit::Fixed(_), Limit::Fixed(_)))
        {
            self.wrong(when, "the low limit is not below the high limit");
        }
        let flags = raw.or_flag.as_ref().map_or_else(Vec::new, |words| self.flags(words));
        (low.is_some() || high.is_some() || !flags.is_empty()).then_some(Condition::Limits { low, high, flags })
    }

    fn flags(&mut self, words: &Spanned<Words>) -> Vec<Status> {
        let mut flags = Vec::new();
        for word in &words.get_ref().0 {
            match Status::from_name(word) {
                Some(flag) => flags.push(flag),
                None => self.wrong(words, format!("`{word}` is not a status of a sensor")),
            }
        }
        flags
    }

    fn beyond(&mut self, when: &Spanned<RawWhen>, rule: &str, by: Decimal, stop: Option<Decimal>) -> Option<Limit> {
        let by = Level::of(by);
        if by <= Level(0) {
            self.wrong(when, format!("a limit beyond rule `{rule}` needs `by` above 0"));
            return None;
        }
        match rule.parse() {
            Ok(rule) => Some(Limit::Beyond { rule, by, stop: stop.map(Level::of) }),
            Err(error) => {
                self.wrong(when, format!("{error}"));
                None
            }
        }
    }

    /// The bound of one side, from the one of three spellings that is used.
    fn one_side(
        &mut self,
        when: &Spanned<RawWhen>,
        spellings: [Option<(Limit, Edge)>; 3],
        clear: Option<(&Spanned<RawClear>, bool)>,
        sources: &[Quantity],
    ) -> Option<Bound> {
        let mut present = spellings.into_iter().flatten();
        let written_clear = clear.and_then(|(clear, low_side)| self.clear(clear, low_side));
        let Some((limit, edge)) = present.next() else {
            if let (Some((clear, _)), Some(_)) = (clear, written_clear) {
                self.wrong(clear, "`clear` is on a side that `when` does not limit");
            }
            return None;
        };
        if present.next().is_some() {
            self.wrong(when, "`when` has two limits on the same side");
        }
        let source = sources.first()?;
        let (lowest, highest) = source.metric.info().range;
        let range = Level::whole(lowest)..=Level::whole(highest);
        let unit = source.metric.info().unit;
        if matches!(limit, Limit::Fixed(_)) && !range.contains(&edge.level()) {
            self.wrong(when, format!("the limit {} is outside {lowest} to {highest} {unit}", edge.level()));
        }
        if let (Some(written), Some((clear, _))) = (written_clear, clear) {
            if matches!(limit, Limit::Fixed(_)) && edge.overlaps(written) {
                let message = format!("clear `{}` lies inside when `{}`", written.text(unit), edge.text(unit));
                self.wrong(clear, message);
            }
            if !range.contains(&written.level()) {
                self.wrong(clear, format!("clear {} is outside {lowest} to {highest} {unit}", written.level()));
            }
        }
        Some(Bound::new(limit, edge, written_clear, source.hysteresis()))
    }

    /// The clear comparison of a low (`at_least`, `above`) or high (`at_most`, `below`) limit.
    fn clear(&mut self, clear: &Spanned<RawClear>, low_side: bool) -> Option<Edge> {
        let raw = *clear.get_ref();
        let of = |edge: fn(Level) -> Edge, number: Option<Decimal>| number.map(|number| edge(Level::of(number)));
        let pair = if low_side {
            [of(Edge::AtLeast, raw.at_least), of(Edge::Above, raw.above)]
        } else {
            [of(Edge::AtMost, raw.at_most), of(Edge::Below, raw.below)]
        };
        if pair.iter().all(Option::is_some) {
            self.wrong(clear, "`clear` has two levels on the same side");
        }
        pair.into_iter().flatten().next()
    }

    fn check_kind(&mut self, raw: &RawRule, condition: &Condition, sources: &[Quantity]) {
        let equipment = matches!(condition, Condition::NoValid(_) | Condition::LinkDown(_) | Condition::Bridge(_))
            || sources.iter().any(|source| source.metric.info().rhythm == Rhythm::Status);
        if equipment && raw.kind != AlertKind::Technical {
            self.wrong(&raw.when, "this condition is about equipment: kind = \"technical\"");
        }
        if raw.kind == AlertKind::Technical
            && let Some(latching) = raw.latching.as_ref().filter(|latching| *latching.get_ref() != Latching::None)
        {
            self.wrong(latching, "a technical rule never latches");
        }
        if !sources.is_empty()
            && matches!(condition, Condition::LinkDown(_) | Condition::Bridge(_))
            && let Some(metric) = &raw.metric
        {
            self.wrong(metric, "this condition is not about a metric");
        }
        if let (Some(metric), false) = (&raw.metric, condition.members().is_empty()) {
            self.wrong(metric, "a compound rule takes the metrics of its members");
        }
        if matches!(condition, Condition::NoValid(_))
            && let (Some(metric), Some(source)) =
                (&raw.metric, sources.iter().find(|source| source.metric.info().rhythm != Rhythm::Continuous))
        {
            self.wrong(metric, format!("`{source}` does not come all the time, so its silence is no fault"));
        }
        self.check_score(raw, condition, sources);
        if raw.spot {
            self.check_spot(raw, condition);
        }
        let levels = matches!(condition, Condition::Limits { .. } | Condition::Trend { .. });
        if !levels {
            for (line, key) in [
                raw.smoothing.as_ref().map(|item| (self.line(item), "smoothing")),
                raw.area.as_ref().map(|item| (self.line(item), "area")),
                raw.consecutive.as_ref().map(|item| (self.line(item), "consecutive")),
            ]
            .into_iter()
            .flatten()
            {
                self.problems.add_at_line(line, format!("`{key}` belongs to a rule with limits"));
            }
        }
    }

    /// A spot measurement is not repeated, so nothing that needs a second one can belong to it.
    fn check_spot(&mut self, raw: &RawRule, condition: &Condition) {
        if !matches!(condition, Condition::Limits { .. }) {
            self.wrong(&raw.when, "`spot` belongs to a rule with limits");
        }
        let delay =
            raw.delay.as_ref().filter(|delay| !delay.get_ref().0.is_zero()).map(|item| (self.line(item), "delay"));
        let smoothing = raw.smoothing.as_ref().map(|item| (self.line(item), "smoothing"));
        let area = raw.area.as_ref().map(|item| (self.line(item), "area"));
        for (line, key) in [delay, smoothing, area].into_iter().flatten() {
            self.problems.add_at_line(line, format!("a spot rule has no {key}: the measurement is not repeated"));
        }
    }

    fn times(&mut self, raw: &RawRule) -> Times {
        let time = |item: &Option<Spanned<Time>>| item.as_ref().map(|item| item.get_ref().0);
        let times = Times {
            delay: time(&raw.delay).unwrap_or(Duration::ZERO),
            clear_delay: raw.clear_delay.map_or(DEFAULT_CLEAR_DELAY, |time| time.0),
            reminder: time(&raw.reminder).unwrap_or(DEFAULT_REMINDER),
            audio_pause: time(&raw.audio_pause).unwrap_or(MAX_AUDIO_PAUSE),
        };
        if let Some(reminder) = raw.reminder.as_ref().filter(|_| times.reminder < Duration::from_secs(1)) {
            self.wrong(reminder, "a reminder comes after 1s or later");
        }
        if let Some(reminder) = raw.reminder.as_ref().filter(|_| times.reminder > MAX_REMINDER) {
            self.wrong(reminder, "an acknowledged alert reminds after 1h at the latest");
        }
        if let Some(pause) = raw.audio_pause.as_ref().filter(|_| times.audio_pause > MAX_AUDIO_PAUSE) {
            self.wrong(pause, "an audio pause lasts at most 120s");
        }
        times
    }

    fn stale_after(&mut self, raw: &RawRule, condition: &Condition) -> Duration {
        let silence = match condition {
            Condition::NoValid(silence) => Some(*silence),
            _ => None,
        };
        match (&raw.stale_after, silence) {
            (Some(item), Some(silence)) if item.get_ref().0 > silence => {
                self.wrong(item, "a value is old before it is gone: `stale_after` is longer than `no_valid_for`");
            }
            (Some(item), None) => self.wrong(item, "`stale_after` belongs to a rule with `no_valid_for`"),
            _ => {}
        }
        let half = silence.map_or(Duration::ZERO, |silence| silence / 2);
        raw.stale_after.as_ref().map_or(half, |item| item.get_ref().0)
    }

    fn smoothing(&mut self, raw: &RawRule) -> Smoothing {
        let Some(item) = &raw.smoothing else {
            return Smoothing::None;
        };
        let RawSmoothing { kind, window } = *item.get_ref();
        let window = window.map(|window| window.0);
        if window.is_some_and(|window| window.is_zero() || window > MAX_WINDOW) {
            self.wrong(item, "a window is longer than 0s and at most 15m");
        }
        if raw.priority == Priority::High && window.is_some_and(|window| window > MAX_DELAY_HIGH) {
            self.wrong(item, "a rule of priority high smooths over 1m at most: a longer window delays it");
        }
        match (kind, window) {
            (SmoothingKind::None, None) => Smoothing::None,
            (SmoothingKind::Mean, Some(window)) => Smoothing::Mean(window),
            (SmoothingKind::Median, Some(window)) => Smoothing::Median(window),
            (SmoothingKind::None, Some(_)) => {
                self.wrong(item, "no smoothing has no window");
                Smoothing::None
            }
            (SmoothingKind::Mean | SmoothingKind::Median, None) => {
                self.wrong(item, "smoothing needs a window");
                Smoothing::None
            }
        }
    }

    fn area(&mut self, raw: &RawRule, condition: &Condition) -> Option<Area> {
        let item = raw.area.as_ref()?;
        let RawArea { points_seconds, window, crossings } = *item.get_ref();
        if window.0.is_zero() || window.0 > MAX_WINDOW {
            self.wrong(item, "a window is longer than 0s and at most 15m");
        }
        if points_seconds == 0 || crossings == Some(0) {
            self.wrong(item, "an area and a number of crossings are more than 0");
        }
        if matches!(condition, Condition::Trend { .. }) {
            self.wrong(item, "`area` belongs to a limit");
        }
        Some(Area { points_seconds, window: window.0, crossings })
    }

    fn consecutive(&mut self, raw: &RawRule) -> u32 {
        let Some(item) = &raw.consecutive else {
            return 1;
        };
        if !(1..=100).contains(item.get_ref()) {
            self.wrong(item, "`consecutive` is 1 to 100");
        }
        *item.get_ref()
    }

    fn quality(&mut self, raw: &RawRule) -> Vec<Quality> {
        match &raw.quality {
            None => vec![Quality::Valid, Quality::Validated],
            Some(item) => {
                if item.get_ref().is_empty() {
                    self.wrong(item, "with no quality allowed the rule could never alarm");
                }
                if item.get_ref().contains(&Quality::Historic) {
                    self.wrong(item, "a historic reading never alarms");
                }
                item.get_ref().clone()
            }
        }
    }

    /// Who switched a rule off, until when and why.
    fn off(&mut self, raw: &RawRule) -> Option<Decision> {
        let enabled = raw.enabled.as_ref().is_none_or(|enabled| *enabled.get_ref());
        if enabled {
            for item in [&raw.reason, &raw.by, &raw.expires].into_iter().flatten() {
                self.wrong(item, "reason, by and expires belong to `enabled = false`");
            }
            return None;
        }
        let place = raw.enabled.as_ref()?;
        let (Some(reason), Some(by)) = (&raw.reason, &raw.by) else {
            self.wrong(place, "a rule is switched off with `reason` and `by`");
            return None;
        };
        if raw.expires.is_none() && raw.priority == Priority::High {
            self.wrong(place, "a rule of high priority is switched off with `expires`, never without an end");
        }
        let expires = raw.expires.as_ref().and_then(|text| self.date(text));
        Some(Decision { reason: self.words(reason), by: self.words(by), expires })
    }

    fn date(&mut self, text: &Spanned<String>) -> Option<Wall> {
        let date = Wall::parse(text.get_ref());
        if date.is_none() {
            self.wrong(text, format!("`{}` is not a time such as 2027-01-23T08:00:00Z", text.get_ref()));
        }
        date
    }

    fn words(&mut self, text: &Spanned<String>) -> String {
        let words = text.get_ref().trim();
        if words.is_empty() || words.len() > MAX_WORDS_BYTES {
            self.wrong(text, format!("reason and by are 1 to {MAX_WORDS_BYTES} bytes"));
        }
        words.to_owned()
    }

    pub(super) fn overrides(&mut self, file: &RawFile, drafts: &[Draft]) -> BTreeMap<PatientId, Vec<Override>> {
        let mut overrides = BTreeMap::new();
        let mut count = 0_usize;
        for (name, raw) in &file.patient {
            let Some(patient) = self.parsed::<PatientId>(name) else {
                continue;
            };
            let mut changes = Vec::new();
            for (id, raw) in &raw.rule {
                count += 1;
                match drafts.iter().find(|draft| draft.rule.id.as_str() == id.get_ref()) {
                    None => self.wrong(id, format!("`{}` is no rule", id.get_ref())),
                    Some(draft) if matches!(draft.rule.condition, Condition::Bridge(_)) => {
                        self.wrong(id, format!("`{}` is about the bridge, not about a patient", id.get_ref()));
                    }
                    Some(draft) => changes.extend(self.change(raw, &draft.rule, self.line(id))),
                }
            }
            overrides.insert(patient, changes);
        }
        if count > MAX_OVERRIDES {
            self.problems.add_at_line(0, format!("{count} overrides are more than {MAX_OVERRIDES}"));
        }
        overrides
    }

    /// One override of one rule, written at `line`; `None` after a problem.
    fn change(&mut self, raw: &RawOverride, rule: &Rule, line: usize) -> Option<Override> {
        let condition = match &raw.when {
            Some(when) => {
                let condition = self.condition(when, raw.clear.as_ref(), &rule.sources)?;
                let condition = with_flags_of(condition, &rule.condition);
                if shape(&condition) != shape(&rule.condition) {
                    self.wrong(when, format!("an override keeps the form of `{}` ({})", rule.id, rule.text()));
                    return None;
                }
                Some(condition)
            }
            None => match &raw.clear {
                Some(clear) => Some(self.cleared(clear, rule)?),
                None => None,
            },
        };
        if let (Some(delay), true) = (&raw.delay, rule.spot) {
            self.wrong(delay, "a spot rule has no delay: the measurement is not repeated");
        }
        let in_force = condition.as_ref().unwrap_or(&rule.condition);
        match (&raw.delay, &raw.when) {
            (Some(delay), _) => self.check_delay(delay, rule.priority, in_force),
            // Together with a delay that stays as it is.
            (None, Some(when)) => {
                let stays = Spanned::new(when.span(), Time(rule.times.delay));
                self.check_delay(&stays, rule.priority, in_force);
            }
            (None, None) => {}
        }
        let times = Times {
            delay: raw.delay.as_ref().map_or(rule.times.delay, |delay| delay.get_ref().0),
            clear_delay: raw.clear_delay.map_or(rule.times.clear_delay, |time| time.0),
            ..rule.times
        };
        let expires = Some(self.date(&raw.expires)?);
        let decision = Decision { reason: self.words(&raw.reason), by: self.words(&raw.by), expires };
        Some(Override {
            rule: rule.id.clone(),
            line,
            condition,
            times,
            off: raw.enabled == Some(false),
            decision,
            change: None,
        })
    }

    /// The rule's own limits with another clear level.
    fn cleared(&mut self, clear: &Spanned<RawClear>, rule: &Rule) -> Option<Condition> {
        let mut condition = rule.condition.clone();
        let Condition::Limits { low, high, .. } = &mut condition else {
            self.wrong(clear, "`clear` belongs to a limit");
            return None;
        };
        for (bound, low_side) in [(low, true), (high, false)] {
            match (bound, self.clear(clear, low_side)) {
                (Some(bound), Some(edge)) => {
                    if matches!(bound.limit, Limit::Fixed(_)) && bound.edge.overlaps(edge) {
                        self.wrong(clear, "the clear level lies inside the limit");
                    }
                    *bound = Bound::new(bound.limit.clone(), bound.edge, Some(edge), Level(0));
                }
                (None, Some(_)) => self.wrong(clear, "`clear` is on a side that the rule does not limit"),
                (_, None) => {}
            }
        }
        Some(condition)
    }
}

/// An override that names no flag keeps those of its rule.
fn with_flags_of(condition: Condition, rule: &Condition) -> Condition {
    match (condition, rule) {
        (Condition::Limits { low, high, flags }, Condition::Limits { flags: own, .. }) if flags.is_empty() => {
            Condition::Limits { low, high, flags: own.clone() }
        }
        (condition, _) => condition,
    }
}

/// What an override may not change: which kind of condition, and which sides it has.
fn shape(condition: &Condition) -> (u8, bool, bool) {
    let kind = match condition {
        Condition::Limits { .. } => 0,
        Condition::Trend { .. } => 1,
        Condition::NoValid(_) => 2,
        Condition::LinkDown(_) => 3,
        Condition::Bridge(_) => 4,
        Condition::AllOf(_) => 5,
        Condition::AnyOf(_) => 6,
    };
    (kind, condition.bound(true).is_some(), condition.bound(false).is_some())
}

const fn default_latching(kind: AlertKind, priority: Priority) -> Latching {
    match (kind, priority) {
        (AlertKind::Physiological, Priority::High) => Latching::Full,
        (AlertKind::Physiological, Priority::Medium) => Latching::StatusLine,
        _ => Latching::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::BridgeCondition;

    /// A rule that is fine, with one line replaced or added.
    fn rule(changes: &[(&str, &str)]) -> String {
        let mut lines = vec![
            ("id", "'x'".to_owned()),
            ("metric", "'spo2'".to_owned()),
            ("kind", "'physiological'".to_owned()),
            ("priority", "'medium'".to_owned()),
            ("when", "{ below = 90 }".to_owned()),
        ];
        for (key, value) in changes {
            match lines.iter_mut().find(|line| line.0 == *key) {
                Some(line) => line.1 = (*value).to_owned(),
                None => lines.push((key, (*value).to_owned())),
            }
        }
        let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("[[rule]]\n{}\n", lines.join("\n"))
    }

    #[track_caller]
    fn refused(text: &str, line: usize, words: &str) {
        let problems = RuleSet::parse(text).expect_err(text);
        let found = problems.as_slice().iter().any(|problem| problem.line == line && problem.message.contains(words));
        assert!(found, "wanted line {line} `{words}` in:\n{problems}\nof:\n{text}");
    }

    #[test]
    fn the_default_set_is_valid_and_complete() {
        let set = RuleSet::built_in();
        let limits = set.limits(&"P-1".parse().unwrap(), Wall(0));
        let text = |id: &str| limits.iter().find(|limit| limit.rule.as_str() == id).map(|limit| limit.text.clone());
        for (id, expected) in [
            ("spo2_low", "below 90 %"),
            ("spo2_desat", "below 80 %"),
            ("heart_rate_low", "below 50 bpm"),
            ("heart_rate_high", "above 120 bpm"),
            ("heart_rate_extreme_low", "below 40 bpm"),
            ("heart_rate_extreme_high", "above 140 bpm"),
            ("respiration_low", "below 8 rpm"),
            ("respiration_high", "above 30 rpm"),
            ("systolic", "below 90 mmHg or above 160 mmHg"),
            ("diastolic", "below 50 mmHg or above 90 mmHg"),
            ("mean_pressure", "below 60 mmHg or above 110 mmHg"),
            ("temperature", "below 35 °C or above 39 °C"),
            ("no_signal", "no valid value for 10 s"),
            ("device_lost", "not connected for 30 s"),
            ("device_changed", "device reports device changed"),
            ("battery_low", "below 20 % or device reports low battery"),
        ] {
            assert_eq!(text(id).as_deref(), Some(expected), "{id}");
        }
        assert_eq!(RuleSet::parse(""), Ok(set));
    }

    #[test]
    fn every_bridge_condition_has_a_default_rule() {
        let set = RuleSet::built_in();
        for condition in BridgeCondition::ALL {
            assert!(set.rules.iter().any(|rule| rule.condition == Condition::Bridge(*condition)), "{condition}");
        }
    }

    #[test]
    fn a_file_replaces_a_rule_by_its_id_and_adds_others() {
        let count = RuleSet::built_in().rules.len();
        let added = RuleSet::parse(&rule(&[])).unwrap();
        assert_eq!(added.rules.len(), count + 1);
        let replaced = RuleSet::parse(&rule(&[("id", "'spo2_low'"), ("when", "{ below = 88 }")])).unwrap();
        assert_eq!(replaced.rules.len(), count);
        let limits = replaced.limits(&"P-1".parse().unwrap(), Wall(0));
        let text = |id: &str| limits.iter().find(|limit| limit.rule.as_str() == id).unwrap().text.clone();
        assert_eq!((text("spo2_low"), text("spo2_desat")), ("below 88 %".to_owned(), "below 78 %".to_owned()));
        assert!(limits.iter().any(|limit| limit.source == LimitSource::File));
    }

    #[test]
    fn every_key_of_a_rule_is_read() {
        let text = rule(&[
            ("unit", "'%'"),
            ("clear", "{ above = 92 }"),
            ("delay", "'1500ms'"),
            ("clear_delay", "'1m'"),
            ("reminder", "'1h'"),
            ("audio_pause", "'60s'"),
            ("smoothing", "{ kind = 'median', window = '8s' }"),
            ("area", "{ points_seconds = 50, window = '60s', crossings = 3 }"),
            ("consecutive", "2"),
            ("inhibits", "[]"),
            ("inhibited_by", "['spo2_desat']"),
            ("latching", "'none'"),
            ("spot", "false"),
            ("quality", "['valid', 'questionable']"),
        ]);
        let set = RuleSet::parse(&text).unwrap();
        let rule = set.rules.iter().find(|rule| rule.id.as_str() == "x").unwrap();
        let bound = rule.condition.bound(true).unwrap();
        assert_eq!((bound.edge, bound.clear), (Edge::Below(Level::whole(90)), Edge::Above(Level::whole(92))));
        let times = Times {
            delay: Duration::from_millis(1500),
            clear_delay: Duration::from_mins(1),
            reminder: Duration::from_hours(1),
            audio_pause: Duration::from_mins(1),
        };
        assert_eq!(rule.times, times);
        assert_eq!(rule.smoothing, Smoothing::Median(Duration::from_secs(8)));
        let area = Area { points_seconds: 50, window: Duration::from_mins(1), crossings: Some(3) };
        assert_eq!((rule.area, rule.consecutive, rule.latching), (Some(area), 2, Latching::None));
        assert_eq!(rule.quality, [Quality::Valid, Quality::Questionable]);
        assert_eq!(rule.inhibited_by.iter().map(RuleId::as_str).collect::<Vec<_>>(), ["spo2_desat"]);
    }

    /// Line 6 is `when`, line 7 the first key added.
    #[test]
    fn a_wrong_rule_is_refused_with_its_line_and_the_reason() {
        type Case<'a> = (&'a [(&'a str, &'a str)], usize, &'a str);
        let cases: [Case<'_>; 44] = [
            (&[("clear", "{ at_least = 89 }")], 7, "clear `89 % or above` lies inside when `below 90 %`"),
            (&[("clear", "{ at_most = 95 }")], 7, "on a side that `when` does not limit"),
            (&[("clear", "{ at_least = 101 }")], 7, "clear 101 is outside 1 to 100 %"),
            (&[("clear", "{ at_least = 91, above = 92 }")], 7, "two levels on the same side"),
            (&[("metric", "'spo3'")], 3, "`spo3` is not a metric"),
            (&[("metric", "[]")], 3, "the list of metrics is empty"),
            (&[("metric", "'rr_interval'")], 3, "never alarms"),
            (&[("metric", "'blood_pressure'")], 3, "say which pressure"),
            (&[("metric", "'spo2.mean'")], 3, "has no parts"),
            (&[("metric", "['spo2', 'heart_rate']")], 3, "`spo2` is in % and `heart_rate` in bpm"),
            (&[("unit", "'kPa'")], 7, "limits of `spo2` are in %, not in `kPa`"),
            (&[("when", "{ below = 0 }")], 6, "the limit 0 is outside 1 to 100 %"),
            (&[("when", "{ above = 101 }")], 6, "the limit 101 is outside 1 to 100 %"),
            (&[("when", "{ below = 90, at_most = 80 }")], 6, "two limits on the same side"),
            (&[("when", "{ below = 90, above = 80 }")], 6, "the low limit is not below the high limit"),
            (&[("when", "{ }")], 6, "exactly one kind of condition"),
            (&[("when", "{ below = 90, no_valid_for = '5s' }")], 6, "exactly one kind of condition"),
            (&[("when", "{ bellow = 90 }")], 6, "unknown field `bellow`"),
            (&[("when", "{ below_other = { rule = 'nobody', by = 5 } }")], 6, "names `nobody`, which is no rule"),
            (&[("when", "{ below_other = { rule = 'spo2_low', by = 0 } }")], 6, "needs `by` above 0"),
            (&[("when", "{ below_other = { rule = 'spo2_desat', by = 5 } }")], 6, "no low limit in numbers"),
            (&[("when", "{ below_other = { rule = 'spo2_low', by = 90 } }")], 6, "the limit 0 of `x` is outside"),
            (
                &[("when", "{ below_other = { rule = 'spo2_low', by = 5, floor = 90 } }")],
                6,
                "is not below the limit 90",
            ),
            (&[("when", "{ or_flag = ['wobbly'] , below = 90 }")], 6, "`wobbly` is not a status"),
            (&[("when", "{ rising_by = { by = 0, over = '10s' } }")], 6, "a change is more than 0"),
            (&[("when", "{ no_valid_for = '10s' }")], 6, "kind = \"technical\""),
            (&[("kind", "'technical'"), ("latching", "'full'")], 7, "a technical rule never latches"),
            (&[("inhibits", "['nobody']")], 6, "names `nobody`, which is no rule"),
            (&[("inhibits", "['spo2_low']")], 6, "`x` is not of higher priority than `spo2_low`"),
            (&[("inhibited_by", "['no_signal']")], 6, "`no_signal` is technical"),
            (&[("inhibits", "['x']")], 6, "rule `x` inhibits itself"),
            (&[("inhibits", "['spo2_desat']"), ("inhibited_by", "['spo2_desat']")], 6, "inhibits itself"),
            (&[("priority", "'high'"), ("inhibits", "['spo2_low']")], 6, "the limit 90 of `x` is not below"),
            (&[("audio_pause", "'121s'")], 7, "at most 120s"),
            (&[("delay", "'15 parsecs'")], 7, "is not a time"),
            (&[("delay", "'25h'")], 7, "longer than 24h"),
            (&[("spot", "true"), ("delay", "'5s'")], 8, "a spot rule has no delay"),
            (&[("smoothing", "{ kind = 'mean' }")], 7, "smoothing needs a window"),
            (&[("area", "{ points_seconds = 0, window = '60s' }")], 7, "more than 0"),
            (&[("consecutive", "0")], 7, "`consecutive` is 1 to 100"),
            (&[("quality", "[]")], 7, "never alarm"),
            (&[("stale_after", "'5s'")], 7, "belongs to a rule with `no_valid_for`"),
            (&[("enabled", "false")], 7, "switched off with `reason` and `by`"),
            (&[("reason", "'x'")], 7, "belong to `enabled = false`"),
        ];
        for (changes, line, words) in cases {
            refused(&rule(changes), line, words);
        }
    }

    #[test]
    fn no_time_and_no_limit_is_so_large_that_a_rule_never_alarms() {
        let silence = |when: &str, rest: &str| {
            format!("[[rule]]\nid = 'x'\nkind = 'technical'\npriority = 'low'\nwhen = {when}\n{rest}\n")
        };
        for (fine, wrong, line, words) in [
            (rule(&[("delay", "'5m'")]), rule(&[("delay", "'301s'")]), 7, "a rule waits 5 min at most: to silence"),
            (
                rule(&[("priority", "'high'"), ("delay", "'60s'")]),
                rule(&[("priority", "'high'"), ("delay", "'61s'")]),
                7,
                "a rule of priority high waits 1 min at most: to silence a rule for longer, switch it off with an end",
            ),
            (
                rule(&[("priority", "'high'"), ("smoothing", "{ kind = 'mean', window = '60s' }")]),
                rule(&[("priority", "'high'"), ("smoothing", "{ kind = 'mean', window = '61s' }")]),
                7,
                "smooths over 1m at most",
            ),
            (rule(&[("reminder", "'1h'")]), rule(&[("reminder", "'61m'")]), 7, "after 1h at the latest"),
            (
                silence("{ no_valid_for = '2m' }", ""),
                silence("{ no_valid_for = '121s' }", ""),
                5,
                "is missed after 2 min at the latest",
            ),
            (
                silence("{ link_down_for = '5m' }", ""),
                silence("{ link_down_for = '301s' }", ""),
                5,
                "is missed after 5 min at the latest",
            ),
            (
                silence("{ no_valid_for = '90s' }", "delay = '30s'"),
                silence("{ no_valid_for = '90s' }", "delay = '31s'"),
                6,
                "after its silence a rule waits 30 s at most",
            ),
            (
                override_of("spo2_desat", "delay = '60s'"),
                override_of("spo2_desat", "delay = '24h'"),
                2,
                "switch it off with an end",
            ),
            (
                override_of("no_signal", "when = { no_valid_for = '2m' }"),
                override_of("no_signal", "when = { no_valid_for = '24h' }"),
                2,
                "after 2 min at the latest",
            ),
            (
                override_of("spo2_low", "when = { below = 70 }"),
                override_of("spo2_low", "when = { below = 69 }"),
                1,
                "the limit 59 of `spo2_desat` for P-1 is below 60, the lowest of priority high: raise it, or switch",
            ),
            (
                rule(&[("priority", "'high'"), ("when", "{ below = 60 }")]),
                rule(&[("priority", "'high'"), ("when", "{ below = 59 }")]),
                6,
                "the limit 59 of `x` is below 60",
            ),
        ] {
            RuleSet::parse(&fine).unwrap_or_else(|problems| panic!("{problems}\n{fine}"));
            refused(&wrong, line, words);
        }
    }

    #[test]
    fn a_high_rule_is_not_switched_off_without_an_end() {
        let off = &[("priority", "'high'"), ("enabled", "false"), ("reason", "'r'"), ("by", "'b'")];
        refused(&rule(off), 7, "never without an end");
        let ended = [&off[..], &[("expires", "'2027-01-01T00:00:00Z'")]].concat();
        assert!(RuleSet::parse(&rule(&ended)).is_ok());
        let medium = [&off[..], &[("priority", "'medium'")]].concat();
        assert!(RuleSet::parse(&rule(&medium)).is_ok());
    }

    #[test]
    fn rules_that_only_make_sense_together_are_checked_together() {
        refused(&format!("{}{}", rule(&[]), rule(&[])), 8, "rule `x` is defined twice");
        let chain = [
            rule(&[("id", "'a'"), ("priority", "'high'"), ("when", "{ below = 50 }"), ("inhibits", "['b']")]),
            rule(&[("id", "'b'"), ("when", "{ below = 60 }"), ("inhibits", "['c']")]),
            rule(&[("id", "'c'"), ("priority", "'low'"), ("inhibits", "['a']")]),
        ];
        refused(&chain.concat(), 20, "inhibits itself through other rules");
        let compound = [("metric", "'spo2'"), ("when", "{ all_of = ['spo2_low', 'heart_rate_high'] }")];
        refused(&rule(&compound), 3, "takes the metrics of its members");
        let technical = "[[rule]]\nid = 'x'\nkind = 'physiological'\npriority = 'low'\nwhen = { any_of = ['spo2_low', 'no_signal'] }\n";
        refused(technical, 5, "`no_signal` is no rule about a patient's values");
        // A default rule that a new rule contradicts: the new rule is to blame.
        refused(&rule(&[("id", "'spo2_low'"), ("priority", "'high'")]), 6, "not of higher priority than `spo2_low`");
    }

    fn override_of(rule: &str, lines: &str) -> String {
        format!("[patient.'P-1'.rule.{rule}]\n{lines}\nreason = 'r'\nby = 'b'\nexpires = '2027-01-01T00:00:00Z'\n")
    }

    #[test]
    fn a_wrong_override_is_refused_with_its_line_and_the_reason() {
        for (rule, lines, line, words) in [
            ("nobody", "", 1, "`nobody` is no rule"),
            ("spo2_low", "when = { above = 95 }", 2, "an override keeps the form"),
            ("spo2_low", "when = { below = 86 }\nclear = { at_least = 85 }", 3, "lies inside when"),
            ("spo2_low", "when = { below = 10 }", 1, "the limit 0 of `spo2_desat` for P-1 is outside"),
            (
                "heart_rate_low",
                "when = { below = 40 }",
                1,
                "`heart_rate_extreme_low` for P-1 is not below the limit 40",
            ),
            ("temperature", "delay = '5s'", 2, "a spot rule has no delay"),
            ("spo2_low", "priority = 'low'", 2, "unknown field `priority`"),
            ("no_signal", "clear = { at_least = 3 }", 2, "`clear` belongs to a limit"),
        ] {
            refused(&override_of(rule, lines), line, words);
        }
        for missing in ["reason", "by", "expires"] {
            let text = override_of("spo2_low", "when = { below = 86 }");
            let text: Vec<&str> = text.lines().filter(|line| !line.starts_with(missing)).collect();
            refused(&text.join("\n"), 1, &format!("missing field `{missing}`"));
        }
        let text = override_of("spo2_low", "").replace("2027-01-01T00:00:00Z", "tomorrow");
        refused(&text, 5, "`tomorrow` is not a time");
    }

    #[test]
    fn an_override_of_two_rules_is_checked_also_after_the_first_has_expired() {
        // While both hold, 70 is below 78; when the first ends, 88 would not be below 80... so it is refused now.
        let text = "
            [patient.'P-1'.rule.heart_rate_low]
            when = { below = 90 }
            reason = 'r'
            by = 'b'
            expires = '2027-01-01T00:00:00Z'
            [[rule]]
            id = 'outer'
            metric = ['heart_rate', 'pulse_rate']
            kind = 'physiological'
            priority = 'high'
            when = { below = 45 }
            inhibits = ['heart_rate_low']
            [patient.'P-1'.rule.outer]
            when = { below = 70 }
            reason = 'r'
            by = 'b'
            expires = '2027-06-01T00:00:00Z'
        ";
        refused(text, 2, "the limit 70 of `outer` for P-1 is not below the limit 50 of `heart_rate_low`");
    }

    #[test]
    fn every_problem_of_a_file_is_reported_at_once() {
        let text = [
            rule(&[("metric", "'spo3'")]),
            rule(&[("id", "'y'"), ("delay", "'x'")]),
            rule(&[("id", "'z'"), ("when", "{ below = 0 }")]),
            override_of("spo2_low", "when = { above = 95 }"),
        ];
        let problems = RuleSet::parse(&text.concat()).unwrap_err();
        let lines: Vec<usize> = problems.as_slice().iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [3, 13, 19, 21], "{problems}");
    }

    #[test]
    fn too_much_is_refused() {
        refused(&" ".repeat(MAX_FILE_BYTES + 1), 0, "longer than");
        let many: String = (0..MAX_RULES).map(|number| rule(&[("id", &format!("'r{number}'"))])).collect();
        refused(&many, 0, "rules are more than");
    }

    #[test]
    fn any_text_is_read_or_refused_and_never_worse() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let good = rule(&[("clear", "{ at_least = 91 }"), ("delay", "'15s'"), ("inhibits", "['spo2_low']")]);
        for _ in 0..300 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..random.usize(1..6) {
                let place = random.usize(..bytes.len());
                bytes[place] = random.u8(b' '..=b'~');
            }
            let _ = RuleSet::parse(&String::from_utf8(bytes).unwrap());
        }
    }
}
