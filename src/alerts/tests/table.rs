//! The table of transitions in docs/alerts.md, held against the engine in both directions.

use std::collections::BTreeSet;

use super::{OFF, RuleSet, plain, rules, run};

/// From, to, and the change that is published.
pub(in crate::alerts) type Step = (&'static str, &'static str, Option<&'static str>);

/// The states that `any` stands for. What is idle or switched off already has nothing to end.
const ANY: &[&str] = &["pending", "alarming", "acknowledged", "paused", "latched"];

/// The rows of the table: from, event with its guard, to, event published.
fn rows() -> Vec<[&'static str; 4]> {
    let text = include_str!("../../../docs/alerts.md");
    let table = text.split("\n## Transitions\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let cells = |line: &'static str| -> [&'static str; 4] {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("four cells: {cells:?}"))
    };
    table.lines().skip(2).map(cells).collect()
}

/// The changes in the last cell: the word in backquotes of each alternative, or none.
fn published(cell: &'static str) -> Vec<Option<&'static str>> {
    let words = cell.split(" / ").map(|part| part.strip_prefix('`').and_then(|rest| rest.split('`').next()));
    words.collect()
}

/// Every step that one row stands for.
fn steps([from, _, to, change]: [&'static str; 4]) -> BTreeSet<Step> {
    let from: Vec<&str> = if from == "any" { ANY.to_vec() } else { from.split(", ").collect() };
    let (to, changes): (Vec<&str>, _) = (to.split(" / ").collect(), published(change));
    assert!(to.len() == changes.len() || to.len() == 1, "{to:?} {changes:?}");
    let pair = |from: &'static str| {
        let to = to.clone();
        changes.iter().enumerate().map(move |(place, change)| {
            let to = to.get(place).or(to.first()).copied().unwrap();
            // Nothing was published of what is pending, so nothing is said of its end.
            let change = change.filter(|_| from != "pending" || to == "alarming");
            (from, if to == "the same" { from } else { to }, change)
        })
    };
    from.into_iter().flat_map(pair).collect()
}

/// Every step of the table.
pub(in crate::alerts) fn documented() -> BTreeSet<Step> {
    rows().into_iter().flat_map(steps).collect()
}

/// What one line at the end of a script does to one rule.
fn observe(set: RuleSet, script: &str, trigger: &str, rule: &str) -> (&'static str, &'static str, Vec<&'static str>) {
    let (before, _) = run(set.clone(), script);
    let (after, _) = run(set, &format!("{script}\n{trigger}"));
    let new = after.log.iter().skip(before.log.len()).filter(|event| event.rule.as_str() == rule);
    (before.engine.stage(rule), after.engine.stage(rule), new.map(|event| event.change.name()).collect())
}

/// One way through a row: the rules, how the state is reached, and the line that makes the step.
struct Case {
    set: RuleSet,
    rule: &'static str,
    before: String,
    trigger: String,
    /// The line makes the step of its row; false: the guard holds, and it does not.
    makes_it: bool,
}

/// The cases of one row, in short words.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(mut self, makes_it: bool, set: RuleSet, rule: &'static str, before: &str, trigger: &str) -> Self {
        self.0.push(Case { set, rule, before: before.to_owned(), trigger: trigger.to_owned(), makes_it });
        self
    }

    /// The default set, and one of its rules.
    fn yes(self, rule: &'static str, before: &str, trigger: &str) -> Self {
        self.add(true, RuleSet::built_in(), rule, before, trigger)
    }

    fn no(self, rule: &'static str, before: &str, trigger: &str) -> Self {
        self.add(false, RuleSet::built_in(), rule, before, trigger)
    }

    /// `spo2_low` without a delay, with more keys.
    fn yes_with(self, extra: &str, before: &str, trigger: &str) -> Self {
        self.add(true, plain(extra), "spo2_low", before, trigger)
    }

    fn no_with(self, extra: &str, before: &str, trigger: &str) -> Self {
        self.add(false, plain(extra), "spo2_low", before, trigger)
    }

    /// The same line in each state that a published alert of `spo2_desat` can have.
    fn in_each(self, states: &[&str], trigger: &str) -> Self {
        states.iter().fold(self, |cases, state| {
            let before = match *state {
                "alarming" => "0 spo2 79",
                "acknowledged" => "0 spo2 79\n0.5 ack spo2_desat",
                "paused" => "0 spo2 79\n0.5 pause spo2_desat 100",
                "latched" => "0 spo2 79\n1..6 spo2 95",
                other => panic!("no script for {other}"),
            };
            cases.yes("spo2_desat", before, trigger)
        })
    }
}

const LIVE: &[&str] = &["alarming", "acknowledged", "paused"];
const NONE: &str = "latching = 'none'";

/// `spo2_low` alarming under the default set, at 16.5 s, and what a person did by then.
fn low(person: &str) -> String {
    format!("0..16 spo2 81\n16.5 {person}")
}

/// A rule of its own that a file can drop again.
fn own_rule(delay: &str) -> RuleSet {
    rules(&format!(
        "[[rule]]\nid = 'own'\nmetric = 'spo2'\nkind = 'physiological'\npriority = 'medium'\nwhen = {{ below = 90 }}\n\
         delay = '{delay}'"
    ))
}

/// Rows about the beginning of an alert and about what hides it, by their first two cells.
fn beginnings(from: &str, event: &str) -> Option<Cases> {
    let cases = Cases::default();
    let area = "delay = '15s'\narea = { points_seconds = 50, window = '60s', crossings = 3 }";
    Some(match (from, event) {
        ("idle", "condition true [delay > 0]") => {
            cases.yes("spo2_low", "", "0 spo2 85").no("spo2_low", "", "0 spo2 90").no("spo2_low", "", "0 spo2 85?")
        }
        ("idle", "condition true [delay = 0]") => cases
            .yes_with("", "", "0 spo2 89.9")
            .no_with("", "", "0 spo2 90")
            .no_with("", "", "0 spo2 85@61")
            .no_with("", "", "0 spo2 85!")
            .no_with("delay = '1s'", "", "0 spo2 85"),
        ("pending", "not true any more, data lost, or an inhibitor is live") => cases
            .yes("spo2_low", "0..4 spo2 85", "5 spo2 90")
            .yes("spo2_low", "0..4 spo2 85", "14.5 end")
            .no("spo2_low", "0..4 spo2 85", "13.5 end")
            .yes("spo2_low", "0..4 spo2 85", "5 spo2 79")
            .no("spo2_low", "0..4 spo2 85", "5 spo2 89"),
        ("pending", "delay elapsed, or the area or crossings are reached") => cases
            .yes("spo2_low", "0..14 spo2 85", "15 spo2 85")
            .no("spo2_low", "0..14 spo2 85", "14.9 spo2 85")
            .yes_with(area, "0..4 spo2 80", "5 spo2 80")
            .no_with(area, "0..3 spo2 80", "4 spo2 80"),
        (_, "an inhibitor is live") => cases
            .yes("spo2_low", &low("end"), "17 spo2 79")
            .yes("spo2_low", &low("ack spo2_low"), "17 spo2 79")
            .yes("spo2_low", &low("pause spo2_low 60"), "17 spo2 79")
            .no("spo2_low", &low("end"), "17 spo2 80"),
        (_, "the inhibitor ends or latches") => ["end", "ack spo2_low", "pause spo2_low 60"]
            .into_iter()
            .map(|person| format!("{}\n17..19 spo2 79\n20..24 spo2 81", low(person)))
            .fold(cases, |cases, before| {
                cases.yes("spo2_low", &before, "25 spo2 81").no("spo2_low", &before, "24.9 end")
            }),
        (_, "data lost") => cases.in_each(LIVE, "10.5 end").no("spo2_desat", "0 spo2 79", "9.5 end").no(
            "spo2_desat",
            "0 spo2 79",
            "9.5 spo2 79",
        ),
        (_, "start of the daemon") if from != "latched" => cases.in_each(LIVE, "2 restart"),
        (_, "start of the daemon") => cases.in_each(&["latched"], "7 restart"),
        _ => return None,
    })
}

/// Rows about what people do and what time does to an alert.
fn middles(event: &str) -> Option<Cases> {
    let cases = Cases::default();
    Some(match event {
        "acknowledge" => cases.in_each(&["alarming", "paused"], "1 ack spo2_desat").no(
            "spo2_desat",
            "0 spo2 79\n1 ack spo2_desat",
            "2 ack spo2_desat",
        ),
        "audio pause of 1 s to `audio_pause` (at most 120 s)" => cases
            .yes_with("", "0 spo2 85", "1 pause spo2_low 1")
            .yes_with("", "0 spo2 85", "1 pause spo2_low 120")
            .no_with("", "0 spo2 85", "1 pause spo2_low 121")
            .no_with("", "0 spo2 85", "1 pause spo2_low 0")
            .no_with("audio_pause = '60s'", "0 spo2 85", "1 pause spo2_low 61"),
        "reminder elapsed, clear timer not running" => cases
            .yes("spo2_desat", "0..180 spo2 79\n1 ack spo2_desat", "181.5 spo2 79")
            .no("spo2_desat", "0..180 spo2 79\n1 ack spo2_desat", "180.5 spo2 79")
            .no("spo2_desat", "0..178 spo2 79\n1 ack spo2_desat\n179..180 spo2 95", "181.5 spo2 95"),
        "higher priority, or 5 % beyond the value at the acknowledgement or pause" => cases
            .yes_with("", "0 spo2 85\n1 ack spo2_low", "2 spo2 80.75")
            .no_with("", "0 spo2 85\n1 ack spo2_low", "2 spo2 80.76")
            .yes_with("", "0 spo2 85\n1 pause spo2_low 60", "2 spo2 80.75")
            .no_with("", "0 spo2 85\n1 pause spo2_low 60", "2 spo2 80.76")
            .add(true, silences(), "silence", &format!("{HIDES_MORE}11 ack silence"), "22.5 end")
            .add(true, silences(), "silence", &format!("{HIDES_MORE}11 pause silence 60"), "22.5 end")
            .add(false, silences(), "silence", &format!("{HIDES_MORE}11 ack silence"), "21.5 end"),
        "pause over" => cases.yes_with("", "0..30 spo2 85\n1 pause spo2_low 30", "31.5 spo2 85").no_with(
            "",
            "0..30 spo2 85\n1 pause spo2_low 30",
            "30.9 spo2 85",
        ),
        "acknowledge or reset" => cases
            .in_each(&["latched"], "7 ack spo2_desat")
            .in_each(&["latched"], "7 reset spo2_desat")
            .no("spo2_desat", "0 spo2 79", "1 reset spo2_desat"),
        "condition true for the delay" => {
            let latched = "0..5 heart_rate 150\n6..11 heart_rate 100\n12..16 heart_rate 150";
            cases
                .in_each(&["latched"], "7 spo2 79")
                .no("spo2_desat", "0 spo2 79\n1..6 spo2 95", "7 spo2 80")
                .yes("heart_rate_extreme_high", latched, "17 heart_rate 150")
                .no("heart_rate_extreme_high", latched, "16.9 heart_rate 150")
        }
        _ => return None,
    })
}

/// Rows about the end of an alert.
fn ends(from: &str, event: &str) -> Option<Cases> {
    let cases = Cases::default();
    let (over, between) = ("0 spo2 85\n1..5 spo2 95", "0 spo2 85\n1..5 spo2 90");
    let (every, off) = (["alarming", "acknowledged", "paused", "latched"], OFF.replace("00:01:00", "00:00:30"));
    Some(match (from, event) {
        ("alarming", "clear condition held for `clear_delay` [not latching]") => cases
            .yes_with(NONE, over, "6 spo2 95")
            .no_with(NONE, over, "5.9 spo2 95")
            .no_with(NONE, between, "6 spo2 90")
            .no_with(NONE, "0 spo2 85\n1..4 spo2 95\n4.5 spo2 -", "6 end"),
        ("alarming", "the same [latching]") => cases
            .yes("spo2_desat", "0 spo2 79\n1..5 spo2 95", "6 spo2 95")
            .yes_with("", over, "6 spo2 95")
            .no("spo2_desat", "0 spo2 79\n1..5 spo2 95", "5.9 spo2 95"),
        ("acknowledged", "cleared") => cases
            .yes("spo2_desat", "0 spo2 79\n0.5 ack spo2_desat\n1..5 spo2 95", "6 spo2 95")
            .no("spo2_desat", "0 spo2 79\n0.5 ack spo2_desat\n1..5 spo2 95", "5.9 spo2 95"),
        ("paused", "cleared [latching] / [not]") => {
            let paused = |rule: &str, value: u8| format!("0 spo2 {value}\n0.5 pause {rule} 100\n1..5 spo2 95");
            cases
                .yes("spo2_desat", &paused("spo2_desat", 79), "6 spo2 95")
                .yes_with(NONE, &paused("spo2_low", 85), "6 spo2 95")
                .no_with(NONE, &paused("spo2_low", 85), "5.9 spo2 95")
        }
        (_, "rule switched off") => cases.in_each(&every, &format!("7 {OFF}")).yes(
            "heart_rate_extreme_high",
            "0..3 heart_rate 150",
            &format!("4 {}", off_high()),
        ),
        (_, "its time is over, or it is switched on") => cases
            .yes("spo2_desat", &format!("0..29 spo2 95\n1 {off}"), "30.5 spo2 95")
            .no("spo2_desat", &format!("0..29 spo2 95\n1 {off}"), "29.5 spo2 95")
            .yes("spo2_desat", &format!("0 spo2 95\n1 {off}"), "2 rules"),
        (_, "rule gone from the file") => {
            let own = |delay| own_rule(delay);
            let script = |person: &str| format!("0 spo2 85\n{person}");
            cases
                .add(true, own("5s"), "own", "0 spo2 85", "1 rules")
                .add(true, own("0s"), "own", "0 spo2 85", "1 rules")
                .add(true, own("0s"), "own", &script("0.5 ack own"), "1 rules")
                .add(true, own("0s"), "own", &script("0.5 pause own 60"), "1 rules")
                .add(true, own("0s"), "own", &script("1..7 spo2 95"), "8 rules")
        }
        (_, "the patient is gone, or has no device for it any more") => {
            cases.yes("spo2_low", "0..4 spo2 85", "5 gone").in_each(&every, "7 gone").in_each(&every, "7 unassign")
        }
        _ => return None,
    })
}

/// `heart_rate_extreme_high` switched off.
fn off_high() -> String {
    let metric = "metric = ['heart_rate', 'pulse_rate']";
    OFF.replace("id = 'spo2_desat' | metric = 'spo2'", &format!("id = 'heart_rate_extreme_high' | {metric}"))
        .replace("{ below = 80 }", "{ above = 140 } | delay = '5s'")
}

/// The silence of the heart rate that comes to hide a high alert.
const HIDES_MORE: &str = "0 heart_rate 60\n12 pulse_rate 40\n";

fn silences() -> RuleSet {
    rules(
        "[[rule]]\nid = 'silence'\nkind = 'technical'\nmetric = 'heart_rate'\npriority = 'low'\n\
         when = { no_valid_for = '10s' }\n[[rule]]\nid = 'hr_slow'\nkind = 'physiological'\npriority = 'high'\n\
         metric = ['pulse_rate', 'heart_rate']\nwhen = { below = 45 }",
    )
}

#[test]
fn every_row_of_the_table_is_what_the_engine_does_and_its_guard_holds() {
    for row in rows() {
        let [from, event, ..] = row;
        let cases = beginnings(from, event).or_else(|| middles(event)).or_else(|| ends(from, event));
        let cases = cases.unwrap_or_else(|| panic!("no case shows the row `{from}`, `{event}` as it is written"));
        let documented = steps(row);
        let mut shown = BTreeSet::new();
        for Case { set, rule, before, trigger, makes_it } in cases.0 {
            let (from, to, changes) = observe(set, &before, &trigger, rule);
            let step = (from, to, changes.last().copied());
            let context = format!("row {row:?}\nscript {before}\nline {trigger}\n{from} to {to} by {changes:?}");
            assert_eq!(documented.contains(&step), makes_it, "{context}");
            assert!(changes.len() <= 1, "one step: {context}");
            shown.extend(makes_it.then_some(step));
        }
        assert_eq!(shown, documented, "every step of row {row:?} is shown");
    }
}
