//! Rules about an early warning score, which is a range as long as anything of it is missing.
//!
//! A rule alarms on what is certain: the lower end. An alert is over only when the upper end says so too. Between them
//! nobody can tell: a score that fell because an input was lost leaves its alert, with presence unknown.

use crate::alerts::file::Reader;
use crate::alerts::judge::{Truth, range};
use crate::alerts::rule::{Condition, Level, Part, Quantity, Rule};
use crate::alerts::subject::View;
use crate::alerts::written::RawRule;
use crate::vitals::{Decimal, EarlyWarning, Metric, Mode};

/// What a score is computed from; the silence of one of them can be why it is not known.
pub(super) const INPUTS: [Quantity; 4] = [
    Quantity { metric: Metric::RespiratoryRate, part: None },
    Quantity { metric: Metric::Spo2, part: None },
    Quantity { metric: Metric::HeartRate, part: None },
    Quantity { metric: Metric::PulseRate, part: None },
];

/// A patient's newest score, as far as rules look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    total: (u8, u8),
    single: (u8, u8),
    mode: Mode,
}

impl Standing {
    pub(super) const fn new(score: &EarlyWarning, mode: Mode) -> Self {
        let (total, single) = ((score.score_min, score.score_max), (score.single_min, score.single_max));
        Self { total, single, mode }
    }
}

/// What a rule sees of a score; without one nobody can tell.
pub(super) fn look(rule: &Rule, standing: Option<&Standing>) -> View {
    let (Some(standing), Some(source), Condition::Limits { low, high, .. }) =
        (standing, rule.sources.first(), &rule.condition)
    else {
        return View::plain(Truth::Unknown);
    };
    let (least, most) = if source.part == Some(Part::Single) { standing.single } else { standing.total };
    let level = |points: u8| Level::whole(i32::from(points));
    let (truth, edge) = range(low.as_ref(), high.as_ref(), level(least), level(most));
    let mut view = View::plain(truth);
    view.quantity = Some(*source);
    view.value = Some(Decimal::integer(i32::from(least)));
    view.edge = edge;
    view.mode = standing.mode;
    view
}

impl Reader<'_> {
    /// A score has limits and a delay, and nothing that looks at single values.
    pub(super) fn check_score(&mut self, raw: &RawRule, condition: &Condition, sources: &[Quantity]) {
        let (Some(metric), true) = (&raw.metric, sources.iter().any(|source| source.metric == Metric::News2)) else {
            return;
        };
        let plain = matches!(condition, Condition::Limits { flags, .. } if flags.is_empty());
        let more = raw.smoothing.is_some() || raw.area.is_some() || raw.consecutive.is_some() || raw.spot;
        if sources.len() > 1 || !plain || more {
            self.wrong(metric, "a rule about a score has one metric, limits and a delay: no flags, changes, smoothing, area, consecutive or spot");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::{AlertCommand, Engine, RuleSet};
    use crate::clock::{Mono, Stamp, Wall};
    use crate::event::{AlertChange, AlertEvent, EndReason, Presence, Priority};
    use crate::ids::PatientId;
    use crate::vitals::{Quality, Reading, Spo2Scale, Taken, Value, Vital};

    fn at(seconds: u64) -> Stamp {
        let wall = Wall(1_795_219_200_000 + i64::try_from(seconds * 1000).unwrap());
        Stamp { mono: Mono::from_millis(1_000_000 + seconds * 1000), wall }
    }

    fn patient() -> PatientId {
        "P-1".parse().unwrap()
    }

    /// A score that lies between the first two, with a single parameter between the others.
    fn score((score_min, score_max, single_min, single_max): (u8, u8, u8, u8)) -> EarlyWarning {
        let (inputs, missing) = (Vec::new(), Vec::new());
        EarlyWarning { score_min, score_max, single_min, single_max, scale: Spo2Scale::One, inputs, missing }
    }

    fn reading(device: &str, vital: Vital, now: Stamp) -> Reading {
        Reading {
            patient: Some(patient()),
            device: device.parse().unwrap(),
            source: "derived".parse().unwrap(),
            vital,
            mdc: None,
            quality: Quality::NotAvailable,
            mode: Mode::Test,
            taken: Taken::on_arrival(now),
            received: now,
        }
    }

    /// The engine's rules about a score, and what it published of them.
    struct Bed {
        engine: Engine,
        log: Vec<AlertEvent>,
        now: u64,
    }

    impl Bed {
        fn new() -> Self {
            Self { engine: Engine::new(RuleSet::built_in(), 1), log: Vec::new(), now: 0 }
        }

        /// Shows a score, and lets it stand for some seconds.
        fn shows(&mut self, range: (u8, u8, u8, u8), seconds: u64) -> Vec<(String, AlertChange, Presence)> {
            let from = self.log.len();
            let vital = Vital::News2(Box::new(score(range)));
            let events = self.engine.on_reading(&reading("vitalbridge", vital, at(self.now)), at(self.now));
            self.log.extend(events);
            self.now += seconds;
            self.log.extend(self.engine.on_deadline(at(self.now)));
            let told = |event: &AlertEvent| (event.rule.to_string(), event.change, event.presence);
            self.log[from..].iter().map(told).collect()
        }

        fn present(&self) -> Vec<(String, Presence)> {
            let present = self.engine.present();
            present.iter().map(|event| (event.rule.to_string(), event.presence)).collect()
        }
    }

    #[test]
    fn a_rule_alarms_on_what_is_certain_and_is_over_only_when_the_rest_is_certain_too() {
        let rule = RuleSet::built_in().effective(None, Wall(0));
        let rule = |id: &str| rule.iter().find(|rule| rule.id.as_str() == id).unwrap().clone();
        for (id, range, expected) in [
            ("news2_medium", (4, 4, 2, 2), Truth::Clear),
            ("news2_medium", (5, 5, 2, 2), Truth::True),
            ("news2_medium", (5, 20, 2, 3), Truth::True),
            ("news2_medium", (4, 5, 2, 2), Truth::Unknown),
            ("news2_medium", (0, 20, 0, 3), Truth::Unknown),
            ("news2_medium", (0, 4, 0, 2), Truth::Clear),
            ("news2_high", (6, 6, 2, 2), Truth::Clear),
            ("news2_high", (6, 7, 2, 2), Truth::Unknown),
            ("news2_high", (7, 9, 2, 3), Truth::True),
            ("news2_single", (3, 3, 3, 3), Truth::True),
            ("news2_single", (3, 8, 3, 3), Truth::True),
            ("news2_single", (4, 6, 2, 3), Truth::Unknown),
            ("news2_single", (4, 6, 2, 2), Truth::Clear),
        ] {
            let view = look(&rule(id), Some(&Standing::new(&score(range), Mode::Real)));
            assert_eq!(view.truth, expected, "{id} {range:?}");
        }
        assert_eq!(look(&rule("news2_medium"), None).truth, Truth::Unknown);
    }

    #[test]
    fn a_score_that_falls_because_an_input_was_lost_leaves_its_alert_unknown() {
        let mut bed = Bed::new();
        assert_eq!(bed.shows((5, 5, 2, 2), 14), [], "it has the delay of its numbers");
        let started = bed.shows((5, 5, 2, 2), 2);
        assert_eq!(started, [("news2_medium".to_owned(), AlertChange::Start, Presence::True)]);
        assert_eq!(bed.log[0].message, "NEWS2 5 points, 5 points or above");
        assert_eq!((bed.log[0].mode, bed.log[0].priority), (Mode::Test, Priority::Medium));
        // SpO2 with 2 points is lost: three points are certain, and it could be six.
        assert_eq!(
            bed.shows((3, 6, 1, 3), 3600),
            [("news2_medium".to_owned(), AlertChange::Update, Presence::Unknown)]
        );
        assert_eq!(bed.present(), [("news2_medium".to_owned(), Presence::Unknown)], "an hour does not clear it");
        // It comes back, and is better by then.
        let cleared = bed.shows((4, 4, 2, 2), 6);
        assert_eq!(cleared.last().unwrap().1, AlertChange::Latch, "medium leaves a line: {cleared:?}");
    }

    #[test]
    fn nothing_is_over_before_the_most_it_could_be_is_below_the_limit() {
        let mut bed = Bed::new();
        bed.shows((5, 8, 2, 3), 16);
        assert_eq!(bed.shows((0, 5, 0, 2), 60).last().unwrap().2, Presence::Unknown);
        let cleared = bed.shows((0, 4, 0, 2), 6);
        assert_eq!(cleared.last().unwrap().1, AlertChange::Latch, "{cleared:?}");
    }

    #[test]
    fn nothing_alarms_on_what_is_only_possible() {
        let mut bed = Bed::new();
        assert_eq!(bed.shows((0, 20, 0, 3), 600), []);
        assert_eq!(bed.shows((4, 20, 2, 3), 600), []);
        assert_eq!(bed.present(), []);
    }

    #[test]
    fn a_high_score_hides_the_lower_rules_and_a_single_three_alarms_alone() {
        let mut bed = Bed::new();
        let single = bed.shows((3, 3, 3, 3), 16);
        assert_eq!(single, [("news2_single".to_owned(), AlertChange::Start, Presence::True)]);
        assert_eq!(bed.log[0].message, "NEWS2: one parameter with 3 points, 3 points or above");
        bed.shows((7, 7, 3, 3), 16);
        let present = bed.engine.present();
        let high = present.iter().find(|event| event.rule.as_str() == "news2_high").unwrap();
        assert_eq!(high.priority, Priority::High);
        for other in present.iter().filter(|event| event.rule.as_str() != "news2_high") {
            assert_eq!(other.hidden_by, Some(high.alert), "{other:?}");
        }
    }

    #[test]
    fn after_a_restart_an_alert_stays_unknown_until_the_score_is_known_and_ends_where_it_is_switched_off() {
        let mut bed = Bed::new();
        bed.shows((7, 7, 2, 2), 16);
        let open = bed.engine.present();
        assert_eq!(open[0].rule.as_str(), "news2_high");
        let id = open[0].alert;
        let restarted = |open: &[AlertEvent]| {
            let mut engine = Engine::new(RuleSet::built_in(), 2);
            let mut log = engine.restore(open.to_vec(), at(20));
            log.retain(|event| event.alert == id);
            assert_eq!((log[0].change, log[0].presence), (AlertChange::Update, Presence::Unknown));
            Bed { engine, log, now: 20 }
        };
        let mut bed = restarted(&open);
        bed.shows((0, 20, 0, 3), 3600);
        assert_eq!(bed.present(), [("news2_high".to_owned(), Presence::Unknown)]);
        bed.shows((7, 9, 2, 2), 1);
        assert_eq!(bed.present()[0], ("news2_high".to_owned(), Presence::True));
        assert_eq!(bed.engine.present()[0].alert, id);

        let mut bed = restarted(&open);
        let ended = bed.engine.without_score(&patient(), at(21));
        assert_eq!((ended[0].change, ended[0].end_reason), (AlertChange::End, Some(EndReason::Disabled)));
        assert_eq!(bed.present(), []);
    }

    #[test]
    fn an_alert_unknown_because_a_sensor_fell_silent_gives_the_silence_its_priority() {
        let mut bed = Bed::new();
        let spo2 = |quality, now| Reading {
            quality,
            ..reading("ox", Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(95))), now)
        };
        bed.engine.on_reading(&spo2(Quality::Valid, at(0)), at(0));
        bed.shows((7, 7, 2, 2), 0);
        for second in 0..20 {
            bed.engine.on_reading(&spo2(Quality::Valid, at(second)), at(second));
        }
        bed.now = 60;
        bed.shows((5, 8, 2, 3), 1);
        let present = bed.engine.present();
        let find = |rule: &str| present.iter().find(|event| event.rule.as_str() == rule).unwrap();
        assert_eq!(find("news2_high").presence, Presence::Unknown);
        assert_eq!(find("no_signal").priority, Priority::High);
        assert_eq!(find("news2_high").hidden_by, Some(find("no_signal").alert));
    }

    #[test]
    fn a_rule_about_a_score_has_limits_and_nothing_else() {
        let rule = |metric: &str, rest: &str| {
            let text = format!(
                "[[rule]]\nid = \"x\"\nkind = \"physiological\"\npriority = \"low\"\nmetric = {metric}\n{rest}\n"
            );
            RuleSet::parse(&text).map(drop).map_err(|problems| problems.to_string())
        };
        assert_eq!(rule("\"news2\"", "when = { at_least = 3 }"), Ok(()));
        for (metric, rest, expected) in [
            ("\"news2\"", "when = { at_least = 3 }\nspot = true", "one metric, limits and a delay"),
            ("\"news2\"", "when = { at_least = 3 }\nconsecutive = 2", "one metric, limits and a delay"),
            ("\"news2\"", "when = { rising_by = { by = 2, over = \"5m\" } }", "one metric, limits and a delay"),
            ("\"news2\"", "when = { at_least = 21 }", "outside"),
            ("\"news2.total\"", "when = { at_least = 3 }", "write `news2` for the score"),
            ("\"blood_pressure.single\"", "when = { at_least = 3 }", "is not a pressure"),
        ] {
            let problems = rule(metric, rest).unwrap_err();
            assert!(problems.contains(expected), "{metric} {rest}: {problems}");
        }
    }

    /// Random ranges, waits, restarts and acknowledgements: an alert never ends while its score could be beyond the limit.
    #[test]
    fn random_scores_never_end_an_alert_that_could_still_be_true() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bed = Bed::new();
        let mut ends = 0;
        for _ in 0..100_000 {
            let (score_min, single_min) = (random.u8(0..10), random.u8(0..4));
            let score_max = if random.bool() { score_min } else { score_min + random.u8(0..6) };
            let single_max = if random.bool() { single_min } else { random.u8(single_min..4) };
            let range = (score_min, score_max, single_min, single_max);
            let told = bed.shows(range, random.u64(0..40));
            let limit = |rule: &str| match rule {
                "news2_high" => score_max < 7,
                "news2_medium" => score_max < 5,
                _ => single_max < 3,
            };
            for (rule, change, presence) in &told {
                assert!(*presence != Presence::False || limit(rule), "{range:?}: {told:?}");
                if matches!(change, AlertChange::End | AlertChange::Latch) {
                    assert!(limit(rule), "{range:?}: {told:?}");
                    ends += 1;
                }
            }
            if random.u8(..) < 20
                && let Some(alert) = bed.engine.present().first()
            {
                let command = AlertCommand::Acknowledge { alert: alert.alert, by: "lena".to_owned() };
                let now = at(bed.now);
                // What is acknowledged already is refused.
                bed.log = bed.engine.on_command(&command, now).unwrap_or_default();
            }
        }
        assert!(ends > 1000, "only {ends} ends: nothing was tested");
    }
}
