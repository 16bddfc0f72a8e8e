//! Limits that people change while the bridge runs.

use super::{Bench, COPD, RuleSet, START, line, patient, rules};
use crate::alerts::file::MAX_OVERRIDES;
use crate::alerts::rule::Condition;
use crate::alerts::{BridgeCondition, LimitSource};
use crate::clock::Wall;
use crate::command::{LimitOperation, LimitWish};
use crate::event::{LimitAction, LimitChange, LimitKind, LimitsEvent, Priority};

const MINUTE: u64 = 60_000;

/// `expires` of a wish: so many minutes after the start.
fn after(minutes: i64) -> String {
    Wall(START + minutes * 60_000).to_string()
}

fn set(rule: &str, lines: &str, expires: &str) -> LimitWish {
    let operation = LimitOperation::Set { lines: lines.to_owned(), expires: expires.to_owned() };
    LimitWish { patient: patient(), rule: rule.parse().unwrap(), operation, reason: "COPD".to_owned() }
}

fn wish(rule: &str, operation: LimitOperation) -> LimitWish {
    LimitWish { operation, ..set(rule, "", "") }
}

fn off(rule: &str, minutes: i64) -> LimitWish {
    wish(rule, LimitOperation::Disable { until: after(minutes) })
}

/// What a wish changes in the alerts, and what is told of it.
fn change(bench: &mut Bench, wish: &LimitWish) -> (Vec<String>, Vec<LimitsEvent>) {
    let events = bench.engine.change_limits(wish, "clinician-7", bench.now).unwrap_or_else(|error| panic!("{error:?}"));
    (events.iter().map(|event| line(bench, event)).collect(), bench.engine.take_limit_news())
}

fn refused(bench: &mut Bench, wish: &LimitWish) -> String {
    let problems = bench.engine.change_limits(wish, "clinician-7", bench.now).unwrap_err();
    assert_eq!(bench.engine.take_limit_news(), [], "a refused wish changes nothing");
    problems.join("; ")
}

fn text(bench: &Bench, rule: &str) -> (String, LimitSource) {
    let limits = bench.engine.limits(&patient(), bench.now);
    let limit = limits.into_iter().find(|limit| limit.rule.as_str() == rule).unwrap();
    (limit.summary(), limit.source)
}

fn told(news: &[LimitsEvent]) -> Vec<String> {
    news.iter()
        .map(|one| format!("{} {} by {}: {} -> {}", one.action, one.change.rule, one.by, one.before, one.after))
        .collect()
}

#[test]
fn limits_that_a_person_sets_hold_at_once_and_until_their_end() {
    let mut bench = Bench::new(RuleSet::built_in());
    bench.act(&["spo2", "88"]).unwrap();
    let (alerts, news) = change(&mut bench, &set("spo2_low", "when = { below = 86 }\ndelay = '20s'", &after(2)));
    assert_eq!(alerts, Vec::<String>::new());
    assert_eq!(told(&news), ["set spo2_low by clinician-7: below 90 % for 15 s -> below 86 % for 20 s"]);
    assert_eq!(text(&bench, "spo2_low"), ("below 86 % for 20 s".to_owned(), LimitSource::Runtime));
    // What stands beyond it follows.
    assert_eq!(text(&bench, "spo2_desat").0, "below 76 %");
    for second in 1..120 {
        bench.run_to(second * 1000);
        bench.act(&["spo2", "88"]).unwrap();
    }
    assert_eq!(bench.log, [], "88 % is not below 86 %");
    bench.run_to(2 * MINUTE);
    bench.act(&["spo2", "88"]).unwrap();
    let news = bench.engine.take_limit_news();
    assert_eq!(told(&news), ["expired spo2_low by bridge: below 86 % for 20 s -> below 90 % for 15 s"]);
    assert_eq!(text(&bench, "spo2_low"), ("below 90 % for 15 s".to_owned(), LimitSource::BuiltIn));
    for second in 121..140 {
        bench.run_to(second * 1000);
        let events = bench.act(&["spo2", "88"]).unwrap();
        bench.note(events);
    }
    assert_eq!(bench.log.first().map(|event| event.rule.as_str()), Some("spo2_low"));
}

#[test]
fn a_value_that_new_limits_do_not_allow_alarms_at_once() {
    let mut bench = Bench::new(RuleSet::built_in());
    bench.act(&["bp", "150/80"]).unwrap();
    let (alerts, _) = change(&mut bench, &set("systolic", "when = { below = 90, above = 140 }", &after(9)));
    assert_eq!(alerts, ["0 start systolic true on"]);
    let (alerts, news) = change(&mut bench, &wish("systolic", LimitOperation::Clear));
    assert_eq!(alerts, Vec::<String>::new(), "it clears after its delay");
    assert_eq!(
        told(&news),
        ["cleared systolic by clinician-7: below 90 mmHg or above 140 mmHg -> below 90 mmHg or above 160 mmHg"]
    );
}

#[test]
fn a_rule_switched_off_is_off_until_its_end_and_no_longer() {
    let mut bench = Bench::new(RuleSet::built_in());
    let events = bench.act(&["spo2", "79"]).unwrap();
    bench.note(events);
    bench.run_to(5000);
    let (alerts, news) = change(&mut bench, &off("spo2_desat", 1));
    assert_eq!(alerts, ["5 end spo2_desat disabled"]);
    assert_eq!(
        told(&news),
        ["disabled spo2_desat by clinician-7: below 80 % -> ALARM OFF until 2026-11-21T00:01:00.000Z (below 80 %)"]
    );
    for second in 6..61 {
        bench.run_to(second * 1000);
        bench.act(&["spo2", "79"]).unwrap();
    }
    let present = |bench: &Bench| bench.engine.present().iter().any(|event| event.rule.as_str() == "spo2_desat");
    assert!(present(&bench), "evaluated again at once");
    assert_eq!(bench.engine.take_limit_news()[0].action, LimitAction::Expired);
    change(&mut bench, &off("spo2_desat", 10));
    assert!(!present(&bench));
    let (alerts, news) = change(&mut bench, &wish("spo2_desat", LimitOperation::Enable));
    assert_eq!(alerts, ["60 start spo2_desat true on", "60 update spo2_low true off hidden"]);
    assert_eq!(news[0].action, LimitAction::Enabled);
}

#[test]
fn limits_and_alarm_off_of_one_rule_end_each_at_its_own_time() {
    let mut bench = Bench::new(RuleSet::built_in());
    change(&mut bench, &set("spo2_low", "when = { below = 86 }", &after(10)));
    change(&mut bench, &off("spo2_low", 5));
    assert!(text(&bench, "spo2_low").0.starts_with("ALARM OFF until"));
    bench.run_to(5 * MINUTE + 1);
    bench.engine.on_deadline(bench.now);
    assert_eq!(text(&bench, "spo2_low").0, "below 86 % for 15 s");
    bench.run_to(10 * MINUTE + 1);
    bench.engine.on_deadline(bench.now);
    assert_eq!(text(&bench, "spo2_low").0, "below 90 % for 15 s");
}

#[test]
fn every_problem_of_a_wish_is_told_at_once() {
    let mut bench = Bench::new(rules(&format!(
        "{COPD}\n[[rule]]\nid = 'other'\nmetric = 'spo2'\nkind = 'physiological'\npriority = 'low'\nwhen = {{ below = 95 }}"
    )));
    let nameless = LimitWish {
        reason: " ".to_owned(),
        ..set("spo2_low", "when = { below = 0 }\nclear = { at_least = 200 }\nwobble = 3", "tomorrow")
    };
    let found = refused(&mut bench, &nameless);
    for words in [
        "`reason` is 1 to 200 bytes",
        "`expires` is a time such as",
        "the limit 0 is outside 1 to 100 %",
        "clear 200 is outside",
        "`wobble`: unknown field",
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    for (wish, words) in [
        (set("nobody", "when = { below = 86 }", &after(1)), "`nobody` is no rule"),
        (set("spo2_low", "when = { below = 86 }", &after(0)), "`expires` is over already"),
        (set("spo2_low", "when = { below = 86 }", ""), "`expires` is a time"),
        (set("spo2_low", "when = { above = 95 }", &after(1)), "an override keeps the form"),
        (set("spo2_low", "when = { below = 86 }\nclear = { at_least = 85 }", &after(1)), "lies inside when"),
        (set("spo2_low", "when = { below = 10 }", &after(1)), "the limit 0 of `spo2_desat` for P-0001 is outside"),
        (set("heart_rate_low", "when = { below = 40 }", &after(1)), "is not below the limit 40"),
        (set("temperature", "delay = '5s'", &after(1)), "a spot rule has no delay"),
        (set("disk_full", "delay = '5s'", &after(1)), "is about the bridge"),
        (set("spo2_low", "reason = 'x'", &after(1)), "duplicate key"),
        (set("spo2_low", "[patient.'P-2'.rule.spo2_low]", &after(1)), "missing field"),
        (set("spo2_low", "when = { below = 11 }", &after(1)), "the limit 1 of `spo2_desat` for P-0001 is below 60"),
        (set("spo2_desat", "when = { below = 40 }", &after(1)), "the limit 40 of `spo2_desat` for P-0001 is below 60"),
        (set("spo2_desat", "delay = '61s'", &after(1)), "`delay`: a rule of priority high waits 1 min at most"),
        (
            set("no_signal", "when = { no_valid_for = '1h' }", &after(1)),
            "a silence is missed after 2 min at the latest",
        ),
        (set("spo2_low", "when = { below = 86 }", &after(30 * 1440 + 1)), "`expires` is at most 30 days from now"),
        (off("spo2_low", 1441), "`until` is at most 24 h from now"),
        (off("disk_full", 1), "is about the bridge"),
        (off("spo2_low", -1), "`until` is over already"),
        (wish("spo2_low", LimitOperation::Clear), "nobody has set limits of `spo2_low` for P-0001"),
        (wish("spo2_low", LimitOperation::Enable), "`spo2_low` is not switched off for P-0001"),
    ] {
        let found = refused(&mut bench, &wish);
        assert!(found.contains(words), "{wish:?}: {found}");
    }
    let nobody = bench.engine.change_limits(&off("spo2_low", 1), " ", bench.now).unwrap_err();
    assert!(nobody[0].contains("the name of the person"), "{nobody:?}");
}

#[test]
fn a_wish_is_checked_against_what_holds_beside_it_now_and_later() {
    let mut bench = Bench::new(RuleSet::built_in());
    change(&mut bench, &set("heart_rate_high", "when = { above = 170 }", &after(5)));
    // 170 + 20 is within the cap of 200; a limit at the cap is not beyond itself.
    let found = refused(&mut bench, &set("heart_rate_high", "when = { above = 200 }", &after(5)));
    assert!(
        found.contains("the limit 200 of `heart_rate_extreme_high` for P-0001 is not above the limit 200"),
        "{found}"
    );
    assert_eq!(text(&bench, "heart_rate_high").0, "above 170 bpm for 10 s", "the earlier one stands");
}

/// What is kept of an engine, and what the next run takes back.
fn restarted(bench: &Bench, set: RuleSet) -> Bench {
    let changes: Vec<LimitChange> = bench.engine.rules_for_tests().changes().cloned().collect();
    let mut next = Bench::new(set);
    next.now = bench.now;
    next.engine.take_back_changes(changes, next.now);
    next
}

#[test]
fn changes_survive_a_restart_and_the_later_of_file_and_person_wins() {
    let mut bench = Bench::new(rules(COPD));
    change(&mut bench, &set("spo2_low", "when = { below = 84 }", &after(60)));
    assert_eq!(text(&bench, "spo2_low"), ("below 84 % for 15 s".to_owned(), LimitSource::Runtime));
    // The same file again: the person was later.
    let mut same = restarted(&bench, rules(COPD));
    assert_eq!(text(&same, "spo2_low"), ("below 84 % for 15 s".to_owned(), LimitSource::Runtime));
    assert_eq!(same.engine.take_limit_news()[0].action, LimitAction::Stands);
    same.engine.replace_rules(rules(COPD), same.now);
    assert_eq!((text(&same, "spo2_low").1, same.engine.take_limit_news()), (LimitSource::Runtime, Vec::new()));
    // The file's override was changed: the file is later.
    let later = || rules(&COPD.replace("below = 86", "below = 85").replace("clinician-7", "clinician-8"));
    let mut replaced = restarted(&bench, later());
    assert_eq!(text(&replaced, "spo2_low"), ("below 85 % for 15 s".to_owned(), LimitSource::Override));
    let news = replaced.engine.take_limit_news();
    assert_eq!((news[0].action, news[0].by.as_str()), (LimitAction::Replaced, "bridge"));
    same.engine.replace_rules(later(), same.now);
    assert_eq!(text(&same, "spo2_low").1, LimitSource::Override);
    assert_eq!(same.engine.take_limit_news()[0].action, LimitAction::Replaced);
    // With the person's end comes what the file says.
    change(&mut bench, &wish("spo2_low", LimitOperation::Clear));
    assert_eq!(text(&bench, "spo2_low"), ("below 86 % for 15 s".to_owned(), LimitSource::Override));
}

#[test]
fn a_change_that_holds_no_more_after_a_restart_says_so() {
    let mut bench = Bench::new(RuleSet::built_in());
    change(&mut bench, &set("spo2_low", "when = { below = 84 }", &after(60)));
    change(&mut bench, &off("temperature", 30));
    let unfit = "[[rule]]\nid = 'spo2_low'\nmetric = 'spo2'\nkind = 'physiological'\npriority = 'medium'\nwhen = { at_most = 88, above = 99 }";
    let mut next = restarted(&bench, rules(unfit));
    let news = next.engine.take_limit_news();
    let actions: Vec<_> = news.iter().map(|one| (one.change.rule.as_str(), one.change.kind, one.action)).collect();
    assert_eq!(
        actions,
        [("spo2_low", LimitKind::Limits, LimitAction::Unfit), ("temperature", LimitKind::Off, LimitAction::Stands),]
    );
    bench.run_to(40 * MINUTE);
    bench.engine.take_limit_news();
    let changes: Vec<LimitChange> = restarted(&Bench::new(RuleSet::built_in()), RuleSet::built_in())
        .engine
        .rules_for_tests()
        .changes()
        .cloned()
        .collect();
    assert_eq!(changes, []);
}

#[test]
fn an_override_of_the_file_that_ends_says_so() {
    let mut bench = Bench::new(rules(COPD));
    bench.act(&["spo2", "95"]).unwrap();
    assert_eq!(bench.engine.take_limit_news(), []);
    bench.run_to(MINUTE);
    bench.engine.on_deadline(bench.now);
    let news = bench.engine.take_limit_news();
    assert_eq!(told(&news), ["expired spo2_low by bridge: below 86 % for 15 s -> below 90 % for 15 s"]);
    assert_eq!((news[0].change.by.as_str(), news[0].change.set), ("clinician-7", None));
}

#[test]
fn a_step_of_the_wall_clock_prolongs_no_alarm_off() {
    const YEAR: i64 = 365 * 86_400_000;
    let mut bench = Bench::new(RuleSet::built_in());
    change(&mut bench, &off("spo2_low", 10));
    bench.now.wall.0 -= YEAR;
    bench.engine.on_deadline(bench.now);
    assert!(text(&bench, "spo2_low").0.starts_with("ALARM OFF"));
    let end = bench.now.mono + std::time::Duration::from_mins(10);
    assert!(bench.engine.next_deadline().is_some_and(|due| due <= end));
    bench.move_to(end);
    bench.engine.on_deadline(bench.now);
    assert_eq!(text(&bench, "spo2_low").0, "below 90 % for 15 s", "ten minutes are ten minutes");
}

#[test]
fn a_step_of_the_wall_clock_ends_no_change_that_was_made_in_this_run() {
    const YEAR: i64 = 365 * 86_400_000;
    let mut bench = Bench::new(rules(COPD));
    bench.engine.on_condition(BridgeCondition::ClockUnsynchronised, false, bench.now);
    // Stricter limits are as much a loss as ALARM OFF is.
    change(&mut bench, &set("spo2_low", "when = { below = 95 }", &after(10)));
    bench.now.wall.0 += YEAR;
    bench.engine.on_deadline(bench.now);
    bench.engine.replace_rules(rules(COPD), bench.now);
    assert_eq!(text(&bench, "spo2_low"), ("below 95 % for 15 s".to_owned(), LimitSource::Runtime));
    assert_eq!(bench.engine.take_limit_news(), []);
    // Nor of the rule file: what it says until in a minute holds for a minute.
    change(&mut bench, &wish("spo2_low", LimitOperation::Clear));
    assert_eq!(text(&bench, "spo2_low"), ("below 86 % for 15 s".to_owned(), LimitSource::Override));
    bench.move_to(bench.now.mono + std::time::Duration::from_mins(1));
    bench.engine.on_deadline(bench.now);
    assert_eq!(text(&bench, "spo2_low"), ("below 90 % for 15 s".to_owned(), LimitSource::BuiltIn));
}

#[test]
fn a_change_of_an_earlier_run_ends_by_the_wall_clock_until_that_is_known_to_be_right() {
    const DAY: i64 = 86_400_000;
    let mut bench = Bench::new(RuleSet::built_in());
    change(&mut bench, &off("spo2_low", 10));
    let taken_back = || {
        let mut next = restarted(&bench, RuleSet::built_in());
        // Nobody knows how long the machine was off.
        next.now.wall.0 -= 60_000;
        assert_eq!(next.engine.take_limit_news()[0].action, LimitAction::Stands);
        next
    };
    let ended = |bench: &Bench| text(bench, "spo2_low").0 == "below 90 % for 15 s";
    // The clock is set, and told so or not: the end is past.
    for is_told in [true, false] {
        let mut next = taken_back();
        next.now.wall.0 += DAY;
        if is_told {
            next.engine.on_condition(BridgeCondition::ClockUnsynchronised, false, next.now);
        }
        next.engine.on_deadline(next.now);
        assert!(ended(&next), "{is_told}");
        assert_eq!(next.engine.take_limit_news()[0].action, LimitAction::Expired);
    }
    // It was right: no later step ends it, and it does not last longer.
    let mut next = taken_back();
    next.engine.on_condition(BridgeCondition::ClockUnsynchronised, false, next.now);
    for step in [DAY, -2 * DAY] {
        next.now.wall.0 += step;
        next.engine.on_deadline(next.now);
        assert!(!ended(&next), "{step}");
    }
    next.move_to(next.now.mono + std::time::Duration::from_mins(11));
    next.engine.on_deadline(next.now);
    assert!(ended(&next));
}

#[test]
fn every_end_of_an_override_of_the_file_is_told_once() {
    // Ended while the bridge was off, by what the last run knew.
    for (last_run, count) in [(START - 1, 1), (START + 60_000, 0), (START + 120_000, 0)] {
        let mut bench = Bench::new(rules(COPD));
        bench.now.wall = Wall(START + 90_000);
        bench.engine.last_run_ended(Wall(last_run));
        bench.engine.take_back_changes(Vec::new(), bench.now);
        assert_eq!(told(&bench.engine.take_limit_news()).len(), count, "{last_run}");
        bench.engine.replace_rules(rules(COPD), bench.now);
        assert_eq!(bench.engine.take_limit_news(), [], "said once");
    }
    // A change of a person ends in the same moment.
    let mut bench = Bench::new(rules(COPD));
    change(&mut bench, &set("temperature", "when = { below = 34, above = 40 }", &after(1)));
    bench.run_to(MINUTE);
    bench.engine.on_deadline(bench.now);
    let news = bench.engine.take_limit_news();
    let rules: Vec<&str> = news.iter().map(|one| one.change.rule.as_str()).collect();
    assert_eq!(rules, ["temperature", "spo2_low"]);
}

#[test]
fn as_many_changes_as_there_may_be_are_taken_over_without_delay() {
    let bench = Bench::new(RuleSet::built_in());
    let ids: Vec<_> = bench.rules.rules.iter().filter(|rule| rule.priority != Priority::High).collect();
    let ids: Vec<_> = ids.into_iter().filter(|rule| !matches!(rule.condition, Condition::Bridge(_))).collect();
    let of = |patient: usize, rule: &crate::ids::RuleId, lines: &str| LimitChange {
        patient: format!("P-{patient}").parse().unwrap(),
        rule: rule.clone(),
        kind: LimitKind::Limits,
        lines: lines.to_owned(),
        reason: "r".into(),
        by: "b".into(),
        expires: Wall(START + 60_000),
        set: Some(Wall(START)),
        beside: None,
    };
    let mut changes: Vec<LimitChange> = (0..)
        .flat_map(|patient| ids.iter().map(move |rule| (patient, &rule.id)))
        .map(|(patient, rule)| of(patient, rule, "clear_delay = '6s'"))
        .take(MAX_OVERRIDES + 1)
        .collect();
    // One that does not fit takes no other of its patient with it.
    let low = changes.iter().position(|change| change.rule.as_str() == "spo2_low").unwrap();
    changes[low].lines = "when = { below = 11 }".to_owned();
    let (set, over) = RuleSet::built_in().adopt(changes, Wall(START));
    assert_eq!(set.changes().count(), MAX_OVERRIDES - 1);
    let reasons: Vec<&str> = over.iter().map(|(_, _, reason)| reason.as_str()).collect();
    assert!(reasons[0].contains("more than 4096 overrides"), "{reasons:?}");
    assert!(reasons[1].contains("is below 60") && reasons.len() == 2, "{reasons:?}");
}
