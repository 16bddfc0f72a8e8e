//! The whole of alerting under scripts: what happens at which second, and which changes of alerts follow.

mod changes;
mod owners;
mod silence;
pub(in crate::alerts) mod table;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{AlertChange, AlertEvent, EndReason, LinkState, Priority, SignalPresence, SourceEvent};
use crate::ids::{AlertId, DeviceId, PatientId};
use crate::vitals::{
    Absent, Decimal, Metric, Mode, Pressure, Quality, Reading, Status, Taken, TimeSource, Value, Vital,
};

const START: i64 = 1_795_219_200_000;

/// An engine with one patient and a clock that tests move.
struct Bench {
    engine: Engine,
    rules: RuleSet,
    now: Stamp,
    log: Vec<AlertEvent>,
}

fn patient() -> PatientId {
    "P-0001".parse().unwrap()
}

impl Bench {
    fn new(rules: RuleSet) -> Self {
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(START) };
        Self { engine: Engine::new(rules.clone(), 7), rules, now, log: Vec::new() }
    }

    /// Seconds since the start of the script.
    fn seconds(&self) -> f64 {
        self.now.mono.since(Mono::from_millis(1_000_000)).as_secs_f64()
    }

    /// Moves both clocks to a second of the script, stopping at every deadline on the way.
    fn run_to(&mut self, millis: u64) {
        let target = Mono::from_millis(1_000_000 + millis);
        let mut stops = 0;
        while let Some(due) = self.engine.next_deadline().filter(|due| *due < target) {
            stops += 1;
            assert!(stops < 100_000, "the engine asks for the same deadline again and again: {due:?}");
            self.move_to(due.max(self.now.mono));
            let events = self.engine.on_deadline(self.now);
            self.note(events);
        }
        self.move_to(target.max(self.now.mono));
    }

    fn move_to(&mut self, mono: Mono) {
        self.now.wall.0 += i64::try_from(mono.since(self.now.mono).as_millis()).unwrap();
        self.now.mono = mono;
    }

    fn note(&mut self, events: Vec<AlertEvent>) {
        self.log.extend(events);
    }

    fn reading(&self, vital: Vital, quality: Quality) -> Reading {
        Reading {
            patient: Some(patient()),
            device: "ox".parse().unwrap(),
            source: "port".parse().unwrap(),
            vital,
            mdc: None,
            quality,
            mode: Mode::Real,
            taken: Taken::on_arrival(self.now),
            received: self.now,
        }
    }

    fn source(device: &str, link: LinkState, status: &[Status]) -> SourceEvent {
        SourceEvent {
            source: "port".parse().unwrap(),
            device: device.parse().unwrap(),
            patient: Some(patient()),
            link,
            status: status.iter().copied().collect(),
            reason: None,
            mode: Mode::Real,
        }
    }

    fn alert_of(&self, rule: &str) -> AlertId {
        let found = self.engine.present().into_iter().find(|event| event.rule.as_str() == rule);
        found.unwrap_or_else(|| panic!("no present alert of {rule}")).alert
    }

    /// One action of a script; returns what is new, or the refusal.
    fn act(&mut self, words: &[&str]) -> Result<Vec<AlertEvent>, String> {
        let now = self.now;
        let by = "nurse-1".to_owned();
        match words {
            ["link", state] => {
                let source = Self::source("ox", LinkState::from_name(state).unwrap(), &[]);
                Ok(self.engine.on_source(&source, now))
            }
            ["link", state, status] => {
                let source =
                    Self::source("ox", LinkState::from_name(state).unwrap(), &[Status::from_name(status).unwrap()]);
                Ok(self.engine.on_source(&source, now))
            }
            ["unassign"] => {
                let source = SourceEvent { patient: None, ..Self::source("ox", LinkState::Live, &[]) };
                Ok(self.engine.on_source(&source, now))
            }
            ["expect", metrics @ ..] => {
                let metrics: Vec<Metric> = metrics.iter().map(|name| Metric::from_name(name).unwrap()).collect();
                Ok(self.engine.expect(&"ox".parse().unwrap(), &patient(), &metrics, Mode::Real, now))
            }
            ["spot"] => Ok(self.engine.expect_spot(&"ox".parse().unwrap(), &patient(), Mode::Real, now)),
            ["ack", rule] => {
                let command = AlertCommand::Acknowledge { alert: self.alert_of(rule), by };
                self.engine.on_command(&command, now).map_err(|refused| refused.to_string())
            }
            ["pause", rule, seconds] => {
                let command =
                    AlertCommand::PauseAudio { alert: self.alert_of(rule), by, seconds: seconds.parse().unwrap() };
                self.engine.on_command(&command, now).map_err(|refused| refused.to_string())
            }
            ["reset", rule] => {
                let command = AlertCommand::Reset { alert: self.alert_of(rule), by };
                self.engine.on_command(&command, now).map_err(|refused| refused.to_string())
            }
            ["gone"] => Ok(self.engine.patient_gone(&patient(), now)),
            ["bridge", condition, present] => {
                let condition = BridgeCondition::from_name(condition).unwrap();
                Ok(self.engine.on_condition(condition, *present == "on", now))
            }
            ["rules", rest @ ..] => {
                self.rules = RuleSet::parse(&rest.join(" ").replace(" | ", "\n")).map_err(|p| p.to_string())?;
                Ok(self.engine.replace_rules(self.rules.clone(), now))
            }
            ["restart"] => {
                let open = self.engine.present();
                self.engine = Engine::new(self.rules.clone(), 8);
                Ok(self.engine.restore(open, now))
            }
            [metric, value] => Ok(self.measure(metric, value)),
            other => panic!("no action {other:?}"),
        }
    }

    /// `spo2 84`, `spo2 -` (no number), `spo2 84?` (questionable), `spo2 84!` (historic), `spo2 84@61` (61 s old).
    fn measure(&mut self, metric: &str, value: &str) -> Vec<AlertEvent> {
        let (value, age) = value.split_once('@').map_or((value, 0), |(value, age)| (value, age.parse().unwrap()));
        let (value, quality) = match (value.strip_suffix('?'), value.strip_suffix('!')) {
            (Some(value), _) => (value, Quality::Questionable),
            (_, Some(value)) => (value, Quality::Historic),
            _ => (value, Quality::Valid),
        };
        let number = |text: &str| match text {
            "-" => Value::Absent(Absent::ZeroReported),
            text => Value::Valid(text.parse().unwrap()),
        };
        let vital = match metric {
            "bp" => {
                let (systolic, diastolic) = value.split_once('/').unwrap();
                let mean = Value::Absent(Absent::NotMeasured);
                Vital::BloodPressure(Pressure { systolic: number(systolic), diastolic: number(diastolic), mean })
            }
            metric => Vital::scalar(Metric::from_name(metric).unwrap(), number(value)),
        };
        let mut reading = self.reading(vital, quality);
        if age > 0 {
            reading.taken.wall = Some(Wall(self.now.wall.0 - age * 1000));
            reading.taken.source = TimeSource::DeviceSynced;
        }
        self.engine.on_reading(&reading, self.now)
    }
}

/// One change in a line: second, change, rule, presence, sound; `hidden`; the reason of an end.
fn line(bench: &Bench, event: &AlertEvent) -> String {
    let hidden = if event.hidden_by.is_some() { " hidden" } else { "" };
    let tail = match event.end_reason {
        Some(reason) => reason.name().to_owned(),
        None => format!("{} {}{hidden}", event.presence, event.audio.presence),
    };
    format!("{} {} {} {tail}", bench.seconds(), event.change, event.rule)
}

/// Runs a script: lines `second action`, or `first..last action` for one each second.
fn run(rules: RuleSet, script: &str) -> (Bench, Vec<String>) {
    let mut steps: Vec<(u64, Vec<&str>)> = Vec::new();
    for text in script.lines().map(str::trim).filter(|text| !text.is_empty()) {
        let mut words = text.split_whitespace();
        let when = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let second = |text: &str| {
            let time = std::time::Duration::from_secs_f64(text.parse().unwrap());
            u64::try_from(time.as_millis()).unwrap()
        };
        match when.split_once("..") {
            Some((first, last)) => {
                steps.extend((second(first)..=second(last)).step_by(1000).map(|at| (at, words.clone())));
            }
            None => steps.push((second(when), words)),
        }
    }
    steps.sort_by_key(|step| step.0);
    let mut bench = Bench::new(rules);
    let mut lines = Vec::new();
    for (at, words) in steps {
        // Deadlines one by one, so that each line carries its own second.
        let target = Mono::from_millis(1_000_000 + at);
        while let Some(due) = bench.engine.next_deadline().filter(|due| *due < target) {
            bench.move_to(due.max(bench.now.mono));
            let events = bench.engine.on_deadline(bench.now);
            lines.extend(events.iter().map(|event| line(&bench, event)));
            bench.note(events);
        }
        bench.move_to(target.max(bench.now.mono));
        if words == ["end"] {
            continue;
        }
        match bench.act(&words) {
            Ok(events) => {
                lines.extend(events.iter().map(|event| line(&bench, event)));
                bench.note(events);
            }
            Err(refused) => lines.push(format!("{} refused: {refused}", bench.seconds())),
        }
    }
    (bench, lines)
}

#[track_caller]
fn check(script: &str, expected: &[&str]) {
    check_with(RuleSet::built_in(), script, expected);
}

#[track_caller]
fn check_with(rules: RuleSet, script: &str, expected: &[&str]) {
    assert_eq!(run(rules, script).1, expected, "{script}");
}

#[track_caller]
fn rules(text: &str) -> RuleSet {
    RuleSet::parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// One rule about SpO2 without delays, and nothing else that could alarm on it.
fn plain(extra: &str) -> RuleSet {
    rules(&format!(
        r#"
        [[rule]]
        id = "spo2_low"
        metric = "spo2"
        kind = "physiological"
        priority = "medium"
        when = {{ below = 90 }}
        {extra}
        [[rule]]
        id = "spo2_desat"
        kind = "physiological"
        metric = "spo2"
        priority = "low"
        when = {{ below = 10 }}
        "#
    ))
}

// The table of transitions, row by row.

#[test]
fn a_true_condition_waits_for_its_delay_and_is_not_published_before() {
    check("0..14 spo2 85\n14.9 end", &[]);
    check("0..20 spo2 85", &["15 start spo2_low true on"]);
}

#[test]
fn without_a_delay_it_alarms_at_once() {
    check("0 spo2 79", &["0 start spo2_desat true on"]);
}

#[test]
fn what_goes_back_before_the_delay_is_a_near_miss() {
    let (bench, lines) = run(RuleSet::built_in(), "0..10 spo2 85\n11..30 spo2 95");
    assert_eq!(lines, Vec::<String>::new());
    assert_eq!(bench.engine.near_misses(), BTreeMap::from([("spo2_low".parse().unwrap(), 1)]));
}

#[test]
fn lost_data_ends_a_pending_condition() {
    check("0..4 spo2 85\n30 end", &["14 start no_signal true on"]);
}

#[test]
fn an_inhibitor_ends_a_pending_condition_and_hides_an_alarming_one() {
    check("0..5 spo2 85\n6..20 spo2 79", &["6 start spo2_desat true on"]);
    // With the desaturation over, the lower alert signals again; the latched one stays.
    check(
        "0..16 spo2 85\n17..19 spo2 79\n20..26 spo2 85",
        &[
            "15 start spo2_low true on",
            "17 start spo2_desat true on",
            "17 update spo2_low true off hidden",
            "25 latch spo2_desat false latched",
            "25 update spo2_low true on",
        ],
    );
}

#[test]
fn an_acknowledged_and_a_paused_alert_are_hidden_too_and_keep_their_state() {
    check(
        "0..16 spo2 85\n16.5 ack spo2_low\n17..19 spo2 79\n20..26 spo2 86",
        &[
            "15 start spo2_low true on",
            "16.5 acknowledge spo2_low true ack",
            "17 start spo2_desat true on",
            "17 escalate spo2_low true off hidden",
            "25 latch spo2_desat false latched",
            "25 update spo2_low true on",
        ],
    );
}

#[test]
fn a_start_has_a_new_id_its_onset_and_its_announcement() {
    let (bench, _) = run(RuleSet::built_in(), "0..20 spo2 85");
    let alert = bench.log.first().unwrap();
    assert_eq!((alert.onset, alert.announced), (Wall(START), Wall(START + 15_000)));
    assert_eq!(alert.alert.0.get_version_num(), 7);
    assert_eq!(alert.message, "SpO2 85 %, below 90 %");
    assert_eq!(alert.limit, "below 90 %");
    assert_eq!(alert.value, Some(Value::Valid(Decimal::integer(85))));
    assert_eq!((alert.metric, alert.priority), (Some(Metric::Spo2), Priority::Medium));
}

#[test]
fn a_clear_condition_must_hold_for_the_clear_delay() {
    let none = || plain("latching = 'none'");
    check_with(none(), "0 spo2 85\n1..5 spo2 95\n5.9 end", &["0 start spo2_low true on"]);
    check_with(none(), "0 spo2 85\n1..7 spo2 95", &["0 start spo2_low true on", "6 end spo2_low condition_cleared"]);
    // Between the limit and the clear level it is not clear; below it the timer starts again.
    check_with(none(), "0 spo2 85\n1..30 spo2 90", &["0 start spo2_low true on"]);
    check_with(
        none(),
        "0 spo2 85\n1..4 spo2 95\n5 spo2 90\n6..12 spo2 91",
        &["0 start spo2_low true on", "11 end spo2_low condition_cleared"],
    );
}

#[test]
fn high_latches_with_sound_medium_leaves_a_silent_line_low_leaves_nothing() {
    let desat = "0 spo2 79\n1..7 spo2 95";
    check(desat, &["0 start spo2_desat true on", "6 latch spo2_desat false latched"]);
    let (bench, lines) = run(plain(""), "0 spo2 85\n1..7 spo2 95");
    assert_eq!(lines, ["0 start spo2_low true on", "6 latch spo2_low false off"]);
    assert_eq!(bench.log.last().unwrap().visual.presence, SignalPresence::Latched);
    assert_eq!(bench.log.last().unwrap().message, "SpO2 85 %, below 90 %; over now");
    check(
        "0 temperature 39.5\n60 temperature 38.0\n70 end",
        &["0 start temperature true on", "65 end temperature condition_cleared"],
    );
}

#[test]
fn acknowledged_then_cleared_does_not_latch() {
    check(
        "0 spo2 79\n1 ack spo2_desat\n2..8 spo2 95",
        &["0 start spo2_desat true on", "1 acknowledge spo2_desat true ack", "7 end spo2_desat condition_cleared"],
    );
}

#[test]
fn the_reminder_alarms_again_while_still_true_or_unknown() {
    check(
        "0..200 spo2 79\n1 ack spo2_desat",
        &["0 start spo2_desat true on", "1 acknowledge spo2_desat true ack", "181 update spo2_desat true on"],
    );
    check(
        "0 spo2 79\n1 ack spo2_desat\n200 end",
        &[
            "0 start spo2_desat true on",
            "1 acknowledge spo2_desat true ack",
            "10 start no_signal true on",
            "10 update spo2_desat unknown ack hidden",
            "181 update spo2_desat unknown off hidden",
        ],
    );
}

#[test]
fn five_percent_beyond_what_was_acknowledged_alarms_again() {
    // 5 % of 85 is 4.25.
    check_with(
        plain(""),
        "0 spo2 85\n1 ack spo2_low\n2 spo2 81\n3 spo2 80.75",
        &["0 start spo2_low true on", "1 acknowledge spo2_low true ack", "3 escalate spo2_low true on"],
    );
    check_with(
        plain(""),
        "0 spo2 85\n1 pause spo2_low 60\n2 spo2 81\n3 spo2 80",
        &["0 start spo2_low true on", "1 pause spo2_low true off", "3 escalate spo2_low true on"],
    );
}

#[test]
fn a_pause_of_the_sound_ends_by_itself() {
    let (bench, lines) = run(plain(""), "0..40 spo2 85\n1 pause spo2_low 30");
    assert_eq!(lines, ["0 start spo2_low true on", "1 pause spo2_low true off", "31 resume spo2_low true on"]);
    assert_eq!(bench.log[1].paused_until, Some(Wall(START + 31_000)));
    assert_eq!(bench.log[2].paused_until, None);
}

#[test]
fn a_paused_alert_that_clears_latches_by_its_rule() {
    check(
        "0 spo2 79\n1 pause spo2_desat 120\n2..8 spo2 95\n200 end",
        &[
            "0 start spo2_desat true on",
            "1 pause spo2_desat true off",
            "7 latch spo2_desat false latched",
            "18 start no_signal true on",
        ],
    );
    check_with(
        plain("latching = 'none'"),
        "0 spo2 85\n1 pause spo2_low 120\n2..8 spo2 95",
        &["0 start spo2_low true on", "1 pause spo2_low true off", "7 end spo2_low condition_cleared"],
    );
}

#[test]
fn data_loss_makes_presence_unknown_and_the_silence_takes_the_priority() {
    let (bench, lines) = run(RuleSet::built_in(), "0 spo2 79\n30 spo2 79\n31..37 spo2 79");
    assert_eq!(
        lines,
        [
            "0 start spo2_desat true on",
            "10 start no_signal true on",
            "10 update spo2_desat unknown off hidden",
            "30 update spo2_desat true on",
            "35 end no_signal condition_cleared",
        ]
    );
    let silence = &bench.log[1];
    assert_eq!((silence.priority, silence.message.as_str()), (Priority::High, "No SpO2 signal for 10 s"));
    assert_eq!(bench.log[2].hidden_by, Some(silence.alert));
    assert_eq!(bench.log[2].message, "SpO2 79 %, below 80 %; no data now");
    assert_eq!(bench.log[3].message, "SpO2 79 %, below 80 %");
}

#[test]
fn a_silence_without_an_alert_behind_it_is_of_low_priority() {
    let (bench, _) = run(RuleSet::built_in(), "0 spo2 97\n20 end");
    assert_eq!(bench.log[0].priority, Priority::Low);
}

#[test]
fn an_acknowledged_silence_that_comes_to_hide_more_escalates() {
    let text = r#"
        [[rule]]
        id = "silence"
        kind = "technical"
        metric = ["heart_rate"]
        priority = "low"
        when = { no_valid_for = "10s" }
        [[rule]]
        id = "hr_slow"
        kind = "physiological"
        priority = "high"
        metric = ["pulse_rate", "heart_rate"]
        when = { below = 45 }
    "#;
    let (bench, lines) = run(rules(text), "0 heart_rate 60\n11 ack silence\n12 pulse_rate 40\n25 end");
    assert_eq!(
        lines,
        [
            "10 start silence true on",
            "11 acknowledge silence true ack",
            "12 start hr_slow true on",
            "22 start no_signal true on",
            "22 escalate silence true on",
            "22 update hr_slow unknown off hidden",
        ]
    );
    let priority = |index: usize| bench.log[index].priority;
    assert_eq!((priority(0), priority(3), priority(4)), (Priority::Low, Priority::High, Priority::High));
}

#[test]
fn a_missing_number_freezes_the_clear_timer() {
    // Clear for 3 s, then unknown for 4 s, then clear for 2 s more.
    check_with(
        plain("latching = 'none'"),
        "0 spo2 85\n1..3 spo2 95\n4..7 spo2 -\n8..12 spo2 95",
        &["0 start spo2_low true on", "10 end spo2_low condition_cleared"],
    );
    check_with(
        plain("latching = 'none'\nclear_delay = '20s'"),
        "0 spo2 85\n1 spo2 95\n30..50 spo2 95",
        &[
            "0 start spo2_low true on",
            "11 start no_signal true on",
            "11 update spo2_low unknown off hidden",
            "30 update spo2_low true on",
            "35 end no_signal condition_cleared",
            "40 end spo2_low condition_cleared",
        ],
    );
}

#[test]
fn a_latched_alert_ends_by_acknowledge_or_reset() {
    for action in ["ack", "reset"] {
        check(
            &format!("0 spo2 79\n1..7 spo2 95\n8 {action} spo2_desat"),
            &["0 start spo2_desat true on", "6 latch spo2_desat false latched", "8 end spo2_desat reset"],
        );
    }
}

#[test]
fn a_condition_that_comes_back_while_latched_recurs_with_the_same_id() {
    let (bench, lines) = run(RuleSet::built_in(), "0..1 spo2 79\n2..8 spo2 95\n9..10 spo2 78");
    assert_eq!(
        lines,
        ["0 start spo2_desat true on", "7 latch spo2_desat false latched", "9 recur spo2_desat true on",]
    );
    assert_eq!(bench.log[0].alert, bench.log[2].alert);
    assert_eq!((bench.log[0].recurrence, bench.log[2].recurrence), (0, 1));
    // With a delay, only after it.
    check_with(
        plain("delay = '3s'\nlatching = 'full'"),
        "0..4 spo2 85\n5..11 spo2 95\n12..13 spo2 85\n14 spo2 95\n15..19 spo2 85",
        &["3 start spo2_low true on", "10 latch spo2_low false latched", "18 recur spo2_low true on"],
    );
}

const OFF: &str = "rules [[rule]] | id = 'spo2_desat' | metric = 'spo2' | kind = 'physiological' | priority = 'high' | \
    when = { below = 80 } | enabled = false | reason = 'probe test' | by = 'clinician-7' | \
    expires = '2026-11-21T00:01:00Z'";

#[test]
fn a_rule_switched_off_ends_its_alert_and_is_evaluated_again_after_its_time() {
    check(
        &format!("0..70 spo2 79\n5 {OFF}\n70 end"),
        &[
            "0 start spo2_desat true on",
            "5 end spo2_desat disabled",
            "20 start spo2_low true on",
            "60 start spo2_desat true on",
        ],
    );
}

#[test]
fn while_a_rule_is_off_the_limits_say_until_when_and_why() {
    let (bench, _) = run(RuleSet::built_in(), &format!("5 {OFF}"));
    let limits = bench.rules.limits(&patient(), bench.now.wall);
    let off = limits.iter().find(|limit| limit.rule.as_str() == "spo2_desat").unwrap().off.clone().unwrap();
    assert_eq!((off.reason.as_str(), off.by.as_str()), ("probe test", "clinician-7"));
    assert_eq!(off.expires, Wall::parse("2026-11-21T00:01:00Z"));
    let later = bench.rules.limits(&patient(), off.expires.unwrap());
    assert!(later.iter().all(|limit| limit.off.is_none()));
}

#[test]
fn a_patient_or_device_that_leaves_ends_its_alerts() {
    check("0 spo2 79\n3 gone", &["0 start spo2_desat true on", "3 end spo2_desat unassigned"]);
    check("0 spo2 79\n3 unassign\n60 end", &["0 start spo2_desat true on", "3 end spo2_desat unassigned"]);
    check("0 spo2 97\n12 unassign\n60 end", &["10 start no_signal true on", "12 end no_signal unassigned"]);
}

#[test]
fn after_a_restart_an_alert_stays_with_its_id_and_unknown_until_a_valid_reading() {
    let (bench, lines) = run(RuleSet::built_in(), "0 spo2 79\n2 restart\n4 spo2 -\n5 spo2 79");
    assert_eq!(lines, ["0 start spo2_desat true on", "2 update spo2_desat unknown on", "5 update spo2_desat true on",]);
    assert!(bench.log.iter().all(|event| event.alert == bench.log[0].alert));
    let (bench, _) = run(RuleSet::built_in(), "0 spo2 79\n2 restart\n3 restart\n4 spo2 79\n5 restart");
    let messages: BTreeSet<_> = bench.log.iter().map(|event| event.message.as_str()).collect();
    let expected = ["SpO2 79 %, below 80 %", "SpO2 79 %, below 80 %; no data now"];
    assert_eq!(messages, BTreeSet::from(expected));
    let (bench, _) = run(RuleSet::built_in(), "0 spo2 79\n2 restart\n3 restart");
    assert_eq!(bench.engine.present()[0].message, expected[1]);
    // Without any reading the silence is found as on the first start.
    check(
        "0 spo2 79\n2 restart\n20 end",
        &[
            "0 start spo2_desat true on",
            "2 update spo2_desat unknown on",
            "12 start no_signal true on",
            "12 update spo2_desat unknown off hidden",
        ],
    );
    check(
        "0 spo2 79\n2 restart\n3..9 spo2 95",
        &[
            "0 start spo2_desat true on",
            "2 update spo2_desat unknown on",
            "3 update spo2_desat true on",
            "8 latch spo2_desat false latched",
        ],
    );
}

#[test]
fn a_restart_keeps_acknowledgement_pause_and_latch() {
    check(
        "0..3 spo2 79\n1 ack spo2_desat\n2 restart\n60..300 spo2 79",
        &[
            "0 start spo2_desat true on",
            "1 acknowledge spo2_desat true ack",
            "2 update spo2_desat unknown ack",
            "3 update spo2_desat true ack",
            "13 start no_signal true on",
            "13 update spo2_desat unknown ack hidden",
            "60 update spo2_desat true ack",
            "65 end no_signal condition_cleared",
            "182 update spo2_desat true on",
        ],
    );
    check_with(
        plain(""),
        "0..40 spo2 85\n1 pause spo2_low 30\n2 restart",
        &[
            "0 start spo2_low true on",
            "1 pause spo2_low true off",
            "2 update spo2_low unknown off",
            "3 update spo2_low true off",
            "31 resume spo2_low true on",
        ],
    );
    check(
        "0 spo2 79\n1..7 spo2 95\n8 restart\n9 spo2 95\n10 reset spo2_desat",
        &["0 start spo2_desat true on", "6 latch spo2_desat false latched", "10 end spo2_desat reset"],
    );
}

#[test]
fn commands_that_make_no_sense_are_refused_with_a_reason() {
    check(
        "0 spo2 79\n1 reset spo2_desat\n2 pause spo2_desat 121\n3 pause spo2_desat 0\n4 pause spo2_desat 60\n\
         5 pause spo2_desat 60\n6 ack spo2_desat\n7 ack spo2_desat\n8 pause spo2_desat 60",
        &[
            "0 start spo2_desat true on",
            "1 refused: the condition has not gone: acknowledge the alert instead of resetting it",
            "2 refused: an audio pause of 121 s is not between 1 and 120 s",
            "3 refused: an audio pause of 0 s is not between 1 and 120 s",
            "4 pause spo2_desat true off",
            "5 refused: the sound is paused already",
            "6 acknowledge spo2_desat true ack",
            "7 refused: the alert is acknowledged already",
            "8 refused: the alert is acknowledged already",
        ],
    );
    let mut bench = Bench::new(RuleSet::built_in());
    let alert = AlertId(uuid::Uuid::nil());
    let mut ask = |by: &str| {
        let command = AlertCommand::Acknowledge { alert, by: by.to_owned() };
        bench.engine.on_command(&command, bench.now).unwrap_err()
    };
    assert_eq!(ask("nurse-1"), CommandRefused::NoSuchAlert(alert));
    assert_eq!(ask(" "), CommandRefused::NoName { longest: MAX_BY_BYTES });
    assert_eq!(ask(&"x".repeat(MAX_BY_BYTES + 1)), CommandRefused::NoName { longest: MAX_BY_BYTES });
}

#[test]
fn a_refused_command_swallows_no_event() {
    let mut bench = Bench::new(plain(""));
    assert_eq!(bench.measure("spo2", "85").len(), 1);
    bench.move_to(bench.now.mono + std::time::Duration::from_secs(11));
    let command = AlertCommand::Reset { alert: bench.alert_of("spo2_low"), by: "n".to_owned() };
    assert_eq!(bench.engine.on_command(&command, bench.now), Err(CommandRefused::NotLatched));
    assert!(bench.engine.next_deadline().is_some_and(|due| due <= bench.now.mono));
    let changes: Vec<_> = bench.engine.on_deadline(bench.now).iter().map(|event| event.rule.to_string()).collect();
    assert_eq!(changes, ["no_signal", "spo2_low"]);
}

// What readings may do.

#[test]
fn late_historic_and_doubtful_readings_start_nothing() {
    check("0 spo2 79@61\n1 spo2 79!\n2 end", &[]);
    check("0..8 spo2 79?", &[]);
    check("0 spo2 79@60", &["0 start spo2_desat true on"]);
    check_with(plain("quality = ['valid', 'questionable']"), "0 spo2 85?", &["0 start spo2_low true on"]);
}

#[test]
fn late_readings_clear_nothing() {
    check("0 spo2 79\n1..9 spo2 97@70\n9.5 end", &["0 start spo2_desat true on"]);
    // Nor do they disturb what is being cleared.
    check_with(
        plain("latching = 'none'"),
        "0 spo2 85\n1..7 spo2 95\n3.5 spo2 70!",
        &["0 start spo2_low true on", "6 end spo2_low condition_cleared"],
    );
}

#[test]
fn doubtful_readings_are_no_signal() {
    check("0..12 spo2 97?", &["10 start no_signal true on"]);
}

#[test]
fn a_reading_of_nobody_is_not_evaluated() {
    let mut bench = Bench::new(RuleSet::built_in());
    let vital = Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(70)));
    let reading = Reading { patient: None, ..bench.reading(vital, Quality::Valid) };
    assert_eq!(bench.engine.on_reading(&reading, bench.now), []);
    assert_eq!(bench.engine.next_deadline(), None);
}

#[test]
fn the_first_available_source_wins() {
    // The strap says 130, the oximeter 70; the strap goes silent, and the oximeter takes over.
    check(
        "0..12 heart_rate 130\n0..60 pulse_rate 70\n60 end",
        &["10 start heart_rate_high true on", "22 start no_signal true on", "27 latch heart_rate_high false off"],
    );
}

#[test]
fn two_devices_of_one_metric_do_not_take_turns() {
    let mut bench = Bench::new(plain(""));
    let mut lines = Vec::new();
    for second in 0..30_u64 {
        bench.run_to(second * 1000);
        let vital = |value| Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(value)));
        let first = bench.reading(vital(97), Quality::Valid);
        let second_device: DeviceId = "ox-2".parse().unwrap();
        let other = Reading { device: second_device, ..bench.reading(vital(80), Quality::Valid) };
        if second < 10 {
            lines.extend(bench.engine.on_reading(&first, bench.now));
        }
        lines.extend(bench.engine.on_reading(&other, bench.now));
        if second < 19 {
            assert_eq!(lines, [], "at {second} s");
        }
    }
    assert_eq!(lines[0].device, Some("ox-2".parse().unwrap()));
    assert_eq!(lines[0].rule.as_str(), "spo2_low");
}

#[test]
fn spot_measurements_stand_until_the_next() {
    check("0 bp 170/80\n600 bp 150/80\n700 end", &["0 start systolic true on", "605 latch systolic false off"]);
    let (bench, _) = run(RuleSet::built_in(), "0 bp 85/45");
    let messages: Vec<_> = bench.log.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["Systolic pressure 85 mmHg, below 90 mmHg", "Diastolic pressure 45 mmHg, below 50 mmHg"]);
}

// Equipment.

#[test]
fn a_device_that_never_delivers_alarms() {
    check("0 link opening\n60 end", &["10 start no_signal true on", "30 start device_lost true on"]);
    let (bench, _) = run(RuleSet::built_in(), "0 link opening\n60 end");
    assert_eq!(bench.log[0].message, "No signal from ox for 10 s");
    assert_eq!(bench.log[1].message, "ox not connected for 30 s");
    check("0 expect spo2 pulse_rate\n60 end", &["10 start no_signal true on", "10 start no_signal true on"]);
    check("0 link waiting\n20..30 spo2 97", &["10 start no_signal true on", "25 end no_signal condition_cleared"]);
}

#[test]
fn a_device_that_measures_now_and_then_is_not_silent() {
    check("0 expect blood_pressure\n0 link closed\n600 end", &[]);
    check("0 link opening\n5 bp 120/80\n6 link closed\n600 end", &[]);
    check("0 spot\n0 link waiting\n50 spo2 97\n50 pulse_rate 70\n300 link lost\n600 end", &[]);
}

#[test]
fn a_lost_device_alarms_and_retries_do_not_restart_its_time() {
    check(
        "0..100 spo2 97\n0 link live\n1 link lost\n10 link opening\n20 link lost\n40 link opening\n50 link live",
        &["31 start device_lost true on", "55 end device_lost condition_cleared"],
    );
}

#[test]
fn a_battery_alarms_by_its_charge_or_by_its_flag() {
    check(
        "0..130 spo2 97\n0 battery 15\n60 battery 22\n120 battery 30\n130 end",
        &["0 start battery_low true on", "125 end battery_low condition_cleared"],
    );
    let (bench, lines) = run(RuleSet::built_in(), "0..20 spo2 97\n0 link live low_battery\n10 link live");
    assert_eq!(lines, ["0 start battery_low true on", "15 end battery_low condition_cleared"]);
    assert_eq!(bench.log[0].message, "ox reports low battery");
}

#[test]
fn faults_of_the_bridge_alarm_after_their_delay() {
    let (bench, lines) = run(
        RuleSet::built_in(),
        "0 bridge uplink_down on\n310 bridge uplink_down off\n400 bridge configuration_error on",
    );
    assert_eq!(
        lines,
        [
            "300 start uplink_down true on",
            "315 end uplink_down condition_cleared",
            "400 start configuration_error true on",
        ]
    );
    assert_eq!((bench.log[0].patient.clone(), bench.log[0].message.as_str()), (None, "Backend not reachable"));
    check(
        "0 bridge disk_full on\n1 restart\n2 bridge disk_full off\n9 end",
        &[
            "0 start disk_full true on",
            "1 update disk_full unknown on",
            "2 update disk_full true on",
            "7 end disk_full condition_cleared",
        ],
    );
}

#[test]
fn an_undelivered_alert_has_one_alert_of_the_same_priority() {
    let mut bench = Bench::new(RuleSet::built_in());
    let start = bench.measure("spo2", "79");
    let ids: BTreeSet<AlertId> = start.iter().map(|event| event.alert).collect();
    let events = bench.engine.on_undelivered(&ids, bench.now);
    assert_eq!((events.len(), events[0].priority, events[0].rule.as_str()), (1, Priority::High, "alert_undelivered"));
    assert!(events[0].message.contains(&start[0].alert.to_string()), "{}", events[0].message);
    // Never for itself.
    let own = BTreeSet::from([events[0].alert]);
    let events = bench.engine.on_undelivered(&own, bench.now);
    assert_eq!(events[0].end_reason, Some(EndReason::ConditionCleared));
}

#[test]
fn the_alert_about_undelivered_alerts_names_them_as_they_change() {
    let mut bench = Bench::new(RuleSet::built_in());
    let first = bench.measure("spo2", "79")[0].alert;
    let about = bench.engine.on_undelivered(&BTreeSet::from([first]), bench.now)[0].clone();
    assert_eq!(bench.engine.on_undelivered(&BTreeSet::from([first]), bench.now), [], "nothing has changed");
    let second = bench.engine.on_condition(BridgeCondition::ConfigurationError, true, bench.now)[0].alert;
    let changed = bench.engine.on_undelivered(&BTreeSet::from([first, second]), bench.now);
    let [changed] = changed.as_slice() else { panic!("{changed:?}") };
    assert_eq!((changed.alert, changed.change), (about.alert, AlertChange::Update));
    assert!(changed.message.contains(&first.to_string()) && changed.message.contains(&second.to_string()));
}

#[test]
fn an_escalated_alert_says_so_until_somebody_acknowledges_it_also_over_a_restart() {
    let mut bench = Bench::new(RuleSet::built_in());
    let alert = bench.measure("spo2", "79")[0].alert;
    let marked = bench.engine.on_escalated(alert, 0b10, bench.now);
    assert_eq!((marked.len(), marked[0].change, marked[0].escalated), (1, AlertChange::Update, 0b10));
    assert_eq!(bench.engine.on_escalated(alert, 0b10, bench.now), [], "it has taken that route");
    let mut restarted = Engine::new(RuleSet::built_in(), 2);
    let restored = restarted.restore(bench.engine.present(), bench.now);
    assert!(restored.iter().all(|event| event.alert != alert || event.escalated == 0b10), "{restored:?}");
    let marked = restarted.on_escalated(alert, 0b01, bench.now);
    assert_eq!(marked.last().map(|event| event.escalated), Some(0b11));
    let command = AlertCommand::Acknowledge { alert, by: "anna".to_owned() };
    let known = restarted.on_command(&command, bench.now).unwrap();
    assert_eq!(known.last().map(|event| (event.change, event.escalated)), Some((AlertChange::Acknowledge, 0)));
}

#[test]
fn more_patients_than_are_watched_is_an_alert_and_not_a_silence() {
    let mut bench = Bench::new(RuleSet::built_in());
    let vital = Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(97)));
    for number in 0..=MAX_PATIENTS {
        let reading = Reading {
            patient: Some(format!("P-{number}").parse().unwrap()),
            device: format!("ox-{number}").parse().unwrap(),
            ..bench.reading(vital.clone(), Quality::Valid)
        };
        let events = bench.engine.on_reading(&reading, bench.now);
        let rules: Vec<_> = events.iter().map(|event| event.rule.as_str()).collect();
        assert_eq!(rules, if number < MAX_PATIENTS { vec![] } else { vec!["alert_limit"] }, "{number}");
        let named = bench.engine.take_left_out();
        let left_out = reading.patient.clone().unwrap();
        let expected = if number < MAX_PATIENTS { vec![] } else { vec![(left_out, Some(reading.device.clone()))] };
        assert_eq!(named, expected, "who is not watched is named");
        bench.engine.on_reading(&reading, bench.now);
        assert!(bench.engine.take_left_out().is_empty(), "and once");
    }
}

#[test]
fn alerts_about_equipment_survive_a_restart_until_it_is_known_to_work() {
    check(
        "0 expect spo2\n12 restart\n25 end",
        &["10 start no_signal true on", "12 update no_signal unknown on", "22 update no_signal true on"],
    );
    check(
        "0..50 spo2 97\n0 link lost\n31 restart\n32 link opening\n45 link live\n51 end",
        &[
            "30 start device_lost true on",
            "31 update device_lost unknown on",
            "32 update device_lost true on",
            "50 end device_lost condition_cleared",
        ],
    );
}

#[test]
fn a_metric_is_missed_since_its_device_is_known_only_if_it_is_the_first() {
    check("0 link waiting\n5 expect spo2\n11 end", &["10 start no_signal true on"]);
    check("0..40 spo2 97\n20 heart_rate -\n31 end", &["30 start no_signal true on"]);
}

#[test]
fn a_device_that_turns_out_to_measure_now_and_then_is_no_longer_missed() {
    check(
        "0 link opening\n40 bp 120/80\n50 end",
        &[
            "10 start no_signal true on",
            "30 start device_lost true on",
            "45 end device_lost condition_cleared",
            "45 end no_signal condition_cleared",
        ],
    );
}

#[test]
fn what_was_due_between_two_calls_happens_in_its_order() {
    let mut bench = Bench::new(RuleSet::built_in());
    bench.measure("heart_rate", "35");
    bench.move_to(bench.now.mono + std::time::Duration::from_secs(20));
    let events = bench.engine.on_deadline(bench.now);
    let lines: Vec<String> = events.iter().map(|event| format!("{} {}", event.change, event.rule)).collect();
    assert_eq!(lines, ["start heart_rate_extreme_low", "start no_signal", "update heart_rate_extreme_low"]);
}

#[test]
fn a_stamp_from_the_past_does_not_move_time_back() {
    let mut bench = Bench::new(RuleSet::built_in());
    bench.run_to(10_000);
    bench.engine.on_deadline(bench.now);
    bench.now.mono = Mono::from_millis(1_006_000);
    assert_eq!(bench.measure("spo2", "85"), []);
    for second in 11..=24 {
        bench.now.mono = Mono::from_millis(1_000_000 + second * 1000);
        assert_eq!(bench.measure("spo2", "85"), [], "at {second} s");
    }
    bench.now.mono = Mono::from_millis(1_025_000);
    assert_eq!(bench.measure("spo2", "85").len(), 1);
}

// The small pieces of a condition.

#[test]
fn smoothing_compares_the_mean_or_the_median_of_a_window() {
    let mean = || plain("smoothing = { kind = 'mean', window = '4s' }\nlatching = 'none'");
    // Means of 95, 95, 95, 95, 79: 91.8; then 79 again: (95 * 3 + 79 * 2) / 5 = 88.6.
    check_with(mean(), "0..3 spo2 95\n4..4 spo2 79\n4.5 end", &[]);
    let (bench, lines) = run(mean(), "0..3 spo2 95\n4..5 spo2 79");
    assert_eq!(lines, ["5 start spo2_low true on"]);
    assert_eq!(bench.log[0].message, "SpO2 89 %, below 90 %");
    let median = || plain("smoothing = { kind = 'median', window = '4s' }");
    check_with(median(), "0..3 spo2 95\n4..5 spo2 20\n6 spo2 95", &[]);
    check_with(median(), "0..1 spo2 95\n2..4 spo2 80", &["3 start spo2_low true on"]);
}

#[test]
fn a_deep_or_a_repeated_dip_alarms_before_the_delay() {
    let area = || plain("delay = '15s'\narea = { points_seconds = 50, window = '60s', crossings = 3 }");
    // 10 points below for 5 s.
    check_with(area(), "0..6 spo2 80", &["5 start spo2_low true on"]);
    check_with(area(), "0..20 spo2 88", &["15 start spo2_low true on"]);
    check_with(area(), "0 spo2 89\n1 spo2 95\n2 spo2 89\n3 spo2 95\n4 spo2 89", &["4 start spo2_low true on"]);
    // Nobody knows how deep it was while there was no data: a silence counts 10 s at most.
    check_with(
        plain("delay = '15s'\narea = { points_seconds = 150, window = '2m' }"),
        "0 spo2 80\n60 spo2 80\n61 end",
        &["10 start no_signal true on"],
    );
    // Crossings longer ago than the window do not count.
    check_with(area(), "0 spo2 89\n1..50 spo2 95\n51 spo2 89\n52..60 spo2 95\n61 spo2 89\n62 spo2 95", &[]);
}

#[test]
fn readings_in_a_row_are_counted() {
    check_with(plain("consecutive = 3"), "0..1 spo2 85\n2 spo2 95\n3..5 spo2 85", &["5 start spo2_low true on"]);
}

#[test]
fn a_fast_change_alarms() {
    let text = r#"
        [[rule]]
        id = "hr_jump"
        kind = "physiological"
        priority = "low"
        metric = "heart_rate"
        when = { rising_by = { by = 30, over = "10s" }, falling_by = { by = 20, over = "10s" } }
    "#;
    check_with(rules(text), "0..5 heart_rate 70\n6 heart_rate 99", &[]);
    check_with(rules(text), "0..5 heart_rate 70\n6 heart_rate 100", &["6 start hr_jump true on"]);
    check_with(rules(text), "0..5 heart_rate 90\n6 heart_rate 70", &["6 start hr_jump true on"]);
    check_with(rules(text), "0 heart_rate 60\n5 heart_rate 75\n11 heart_rate 90", &[]);
}

const BOTH: &str = r#"
    [[rule]]
    id = "hr_up"
    kind = "physiological"
    priority = "info"
    metric = "heart_rate"
    when = { above = 110 }
    [[rule]]
    id = "spo2_down"
    kind = "physiological"
    priority = "info"
    metric = "spo2"
    when = { below = 92 }
    [[rule]]
    id = "both"
    kind = "physiological"
    priority = "high"
    when = { all_of = ["hr_up", "spo2_down"] }
    delay = "10s"
    [[rule]]
    id = "either"
    kind = "physiological"
    priority = "low"
    when = { any_of = ["hr_up", "spo2_down"] }
    delay = "20s"
"#;

#[test]
fn compound_rules_look_at_the_conditions_of_others() {
    let (bench, lines) = run(rules(BOTH), "0..30 heart_rate 115\n5..30 spo2 91");
    assert_eq!(
        lines,
        ["0 start hr_up true off", "5 start spo2_down true off", "15 start both true on", "20 start either true on",]
    );
    assert_eq!(bench.log[2].message, "Heart rate 115 bpm, above 110 bpm; SpO2 91 %, below 92 %");
    // One member unknown: nobody can tell. One member clear: it is not both.
    check_with(
        rules(BOTH),
        "0..14 spo2 91\n0..30 heart_rate 115\n30 end",
        &[
            "0 start spo2_down true off",
            "0 start hr_up true off",
            "10 start both true on",
            "20 start either true on",
            "24 start no_signal true on",
            "24 update both unknown off hidden",
            "24 update spo2_down unknown off hidden",
        ],
    );
}

// Overrides.

const COPD: &str = r#"
    [patient."P-0001".rule.spo2_low]
    when = { below = 86 }
    clear = { at_least = 87 }
    reason = "COPD, target 88-92"
    by = "clinician-7"
    expires = "2026-11-21T00:01:00Z"
"#;

#[test]
fn an_override_changes_a_patients_limits_until_it_expires() {
    check_with(rules(COPD), "0..80 spo2 88", &["75 start spo2_low true on"]);
    check_with(rules(COPD), "0..20 spo2 85", &["15 start spo2_low true on"]);
    // The desaturation limit follows: 86 - 10.
    check_with(rules(COPD), "0 spo2 77", &[]);
    check_with(rules(COPD), "0 spo2 75", &["0 start spo2_desat true on"]);
}

#[test]
fn the_example_of_the_documentation_is_a_valid_rule_file() {
    let text = include_str!("../../docs/alerts.md");
    let example = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let limits = rules(example).limits(&patient(), Wall(START));
    let low = limits.iter().find(|limit| limit.rule.as_str() == "spo2_low").unwrap();
    assert_eq!((low.text.as_str(), low.source), ("below 86 %", LimitSource::Override));
}

#[test]
fn limits_say_what_is_in_force_and_who_decided_it() {
    let set = rules(COPD);
    let of = |patient: &str, wall: i64| {
        let limits = set.limits(&patient.parse().unwrap(), Wall(wall));
        limits.into_iter().find(|limit| limit.rule.as_str() == "spo2_low").unwrap()
    };
    let (own, other, later) = (of("P-0001", START), of("P-0002", START), of("P-0001", START + 60_000));
    assert_eq!((own.text.as_str(), own.source), ("below 86 %", LimitSource::Override));
    assert_eq!(own.decision.unwrap().reason, "COPD, target 88-92");
    assert_eq!(own.low, Some(Decimal::integer(86)));
    for limit in [other, later] {
        assert_eq!((limit.text.as_str(), limit.source), ("below 90 %", LimitSource::BuiltIn));
    }
    let silence = set.limits(&patient(), Wall(START)).into_iter().find(|limit| limit.rule.as_str() == "no_signal");
    let silence = silence.unwrap();
    assert_eq!((silence.stale_after_ms, silence.no_valid_for_ms), (Some(5000), Some(10_000)));
}

#[test]
fn new_rules_hold_at_once_and_alerts_of_rules_that_are_gone_end() {
    let extra = "rules [[rule]] | id = 'hr_90' | metric = 'heart_rate' | kind = 'physiological' | priority = 'low' | \
        when = { above = 90 }";
    check(&format!("0..6 heart_rate 100\n2 {extra}\n4 rules"), &["2 start hr_90 true on", "4 end hr_90 disabled"]);
    let lower = "rules [[rule]] | id = 'systolic' | metric = 'blood_pressure.systolic' | kind = 'physiological' | \
        priority = 'medium' | when = { above = 140 } | spot = true";
    check(&format!("0 bp 150/80\n60 {lower}"), &["60 start systolic true on"]);
}

// A long recording, one row a minute, as intensive care delivers it.

/// SpO2 of 32 hours, made up: good values, and twelve runs of zeros from one minute to three hours, also at both ends.
fn one_reading_a_minute() -> Vec<Option<i32>> {
    const RUNS: [(i32, i32); 12] = [
        (0, 10),
        (11, 30),
        (300, 3),
        (400, 180),
        (700, 25),
        (800, 1),
        (900, 1),
        (1000, 15),
        (1100, 5),
        (1200, 60),
        (1500, 2),
        (1918, 2),
    ];
    let in_run = |minute| RUNS.iter().any(|(start, length)| (*start..start + length).contains(&minute));
    (0..1920).map(|minute| (!in_run(minute)).then_some(92 + minute % 8)).collect()
}

#[test]
fn zeros_in_a_long_recording_make_no_low_saturation_and_one_silence_a_run() {
    let text = r#"
        [[rule]]
        id = "no_signal"
        kind = "technical"
        priority = "low"
        when = { no_valid_for = "90s" }
        [[rule]]
        id = "spo2_low"
        metric = "spo2"
        kind = "physiological"
        priority = "medium"
        when = { below = 90 }
        delay = "15s"
    "#;
    let mut bench = Bench::new(rules(text));
    let mut as_number = Bench::new(rules(text));
    for (minute, value) in (0..).zip(one_reading_a_minute()) {
        for (bench, absent) in [
            (&mut bench, Value::reported(Metric::Spo2, Decimal::integer(0))),
            (&mut as_number, Value::Valid(Decimal::integer(0))),
        ] {
            bench.run_to(minute * 60_000);
            let value = value.map_or(absent, |value| Value::Valid(Decimal::integer(value)));
            let reading = bench.reading(Vital::scalar(Metric::Spo2, value), Quality::Valid);
            let events = bench.engine.on_reading(&reading, bench.now);
            bench.note(events);
        }
    }
    bench.run_to(1920 * 60_000);
    let starts = |bench: &Bench, rule: &str| {
        bench
            .log
            .iter()
            .filter(|event| event.change == AlertChange::Start && event.rule.as_str().starts_with(rule))
            .count()
    };
    assert_eq!((starts(&bench, "spo2"), starts(&bench, "no_signal")), (0, 12));
    // The trap is real: zeros taken as numbers would alarm.
    assert!(starts(&as_number, "spo2") > 0);
}

#[test]
fn after_a_restart_a_device_whose_value_nobody_has_seen_does_not_clear_an_alert_about_it() {
    check(
        "0 spot\n0 battery 10\n0 link live\n5 restart\n6 spot\n6 link live\n60 battery 9\n70 battery 90\n80 end",
        &[
            "0 start battery_low true on",
            "5 update battery_low unknown on",
            "60 update battery_low true on",
            "75 end battery_low condition_cleared",
        ],
    );
}

#[test]
fn a_trend_is_clear_only_once_it_is_known_for_as_long_as_it_may_take() {
    let trend = || {
        plain(
            r#"
            [[rule]]
            id = "fall"
            metric = "heart_rate"
            kind = "physiological"
            priority = "low"
            when = { falling_by = { by = 20, over = "10s" } }
            "#,
        )
    };
    // Too short a history, after the restart and after the silence, and the alert stays.
    check_with(
        trend(),
        "0..9 heart_rate 90\n10 heart_rate 60\n11 restart\n12..20 heart_rate 60\n21 end",
        &["10 start fall true on", "11 update fall unknown on"],
    );
    check_with(
        trend(),
        "0..9 heart_rate 90\n10 heart_rate 60\n11 restart\n12..40 heart_rate 60",
        &[
            "10 start fall true on",
            "11 update fall unknown on",
            "22 update fall true on",
            "27 end fall condition_cleared",
        ],
    );
}

#[test]
fn a_measurement_that_is_old_when_it_is_judged_for_the_first_time_starts_nothing() {
    let rule = "rules [[rule]] | id = 'systolic' | metric = 'blood_pressure.systolic' | kind = 'physiological' | \
        priority = 'medium' | spot = true | when = { above = LIMIT }";
    let (strict, wide) = (rule.replace("LIMIT", "140"), rule.replace("LIMIT", "180"));
    // Old: nothing. The next measurement counts.
    check(&format!("0 {wide}\n1 bp 150/80\n62 {strict}\n100 bp 151/80"), &["100 start systolic true on"]);
    // Young: at once.
    check(&format!("0 {wide}\n1 bp 150/80\n60 {strict}"), &["60 start systolic true on"]);
    // What stands is judged anew, and may end.
    check(
        &format!("0 {strict}\n1 bp 150/80\n3600 {wide}\n3610 end"),
        &["1 start systolic true on", "3605 latch systolic false off"],
    );
    // Nor does a latched one come back by an old measurement.
    check(
        &format!("0 {strict}\n1 bp 150/80\n3600 {wide}\n3610 {strict}\n3620 end"),
        &["1 start systolic true on", "3605 latch systolic false off"],
    );
    // ALARM OFF that is over.
    let off = format!("{wide} | enabled = false | reason = 'r' | by = 'b'");
    check(&format!("0 {off}\n1 bp 190/80\n3600 {wide}\n3700 bp 191/80"), &["3700 start systolic true on"]);
}
