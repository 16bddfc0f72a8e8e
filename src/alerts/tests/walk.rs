//! The invariants of docs/alerts.md, under random walks.

use std::collections::{BTreeMap, BTreeSet};

use super::{AlertCommand, Bench, RuleSet};
use crate::clock::{Mono, Wall};
use crate::event::{AlertChange, AlertEvent, AlertKind, EndReason, LinkState, Presence, SignalPresence};
use crate::ids::AlertId;
use crate::vitals::Metric;

/// A random history of one patient: mostly readings, some silences, faults, commands and restarts.
struct Walk {
    bench: Bench,
    random: fastrand::Rng,
    /// The last event of each alert.
    last: BTreeMap<AlertId, AlertEvent>,
    spo2: i32,
    steps: u64,
    /// The last value of each continuous metric that counts, and when it came: what the engine may know.
    heard: BTreeMap<Metric, (Mono, i32)>,
    /// What happens instead of a restart in walks without any.
    restart: &'static str,
    /// The rule sets that follow each other: the default one, and the one with a rule that is off.
    rule_sets: [RuleSet; 2],
}

/// A rule that is switched off and on, beside the default set.
const WITH_ONE_OFF: &str = "[[rule]]\nid = 'heart_rate_high'\nmetric = ['heart_rate', 'pulse_rate']\nkind = 'physiological'\n\
    priority = 'medium'\nwhen = { above = 120 }\ndelay = '10s'\nenabled = false\nreason = 'r'\nby = 'b'";

/// What one action was, for the oracle.
#[derive(Debug, Clone, PartialEq)]
enum Action {
    /// A reading whose value counts.
    Counts(Metric, i32),
    /// A reading that tells nothing: no number, a doubtful one, a late one, one that was kept.
    TellsNothing(String),
    Command(AlertCommand),
    Restart,
    Unassign,
    /// The rule file was read again.
    Rules,
    /// Something else that a source or the bridge said.
    Other(String),
    /// Only time has passed.
    Time,
}

fn rule_sets() -> [RuleSet; 2] {
    ["", WITH_ONE_OFF].map(|text| RuleSet::parse(text).unwrap())
}

/// Where a check stands, written out only when it fails.
#[derive(Clone, Copy)]
struct Place<'a> {
    seed: u64,
    walk: u64,
    step: u64,
    action: &'a Action,
    event: Option<&'a AlertEvent>,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, walk, step, action, event } = self;
        write!(f, "seed {seed}, walk {walk}, step {step}, {action:?}")?;
        event.map_or(Ok(()), |event| write!(f, ": {event:#?}"))
    }
}

impl Walk {
    fn new(seed: u64, rule_sets: &[RuleSet; 2]) -> Self {
        Self {
            bench: Bench::new(rule_sets[0].clone()),
            random: fastrand::Rng::with_seed(seed),
            last: BTreeMap::new(),
            spo2: 95,
            steps: 0,
            heard: BTreeMap::new(),
            restart: "restart",
            rule_sets: rule_sets.clone(),
        }
    }

    /// A random while from now.
    fn target(&mut self) -> Mono {
        let pause = if self.random.u8(..20) == 0 { self.random.u64(1..200_000) } else { self.random.u64(100..1500) };
        self.bench.now.mono + std::time::Duration::from_millis(pause)
    }

    /// Moves both clocks to the next deadline and does what is due; `None`: to `target`, with nothing due before.
    fn moment(&mut self, target: Mono) -> Option<Vec<AlertEvent>> {
        let due = self.bench.engine.next_deadline().filter(|due| *due <= target);
        self.bench.move_to(due.unwrap_or(target).max(self.bench.now.mono));
        due.map(|_| self.bench.engine.on_deadline(self.bench.now))
    }

    /// One random action and its events.
    fn act(&mut self) -> (Action, Vec<AlertEvent>) {
        self.steps += 1;
        self.spo2 = (self.spo2 + self.random.i32(-4..=4)).clamp(72, 99);
        let spo2 = self.spo2;
        let (action, words) = match self.random.u8(..100) {
            0..60 => (Action::Counts(Metric::Spo2, spo2), format!("spo2 {spo2}")),
            60..67 => (Action::TellsNothing("-".into()), "spo2 -".to_owned()),
            67..70 => (Action::TellsNothing("?".into()), format!("spo2 {spo2}?")),
            70..73 => (Action::TellsNothing("late".into()), format!("spo2 {spo2}@70")),
            73..75 => (Action::TellsNothing("kept".into()), format!("heart_rate {}!", self.random.u8(20..200))),
            75..80 => {
                let rate = self.random.i32(35..160);
                (Action::Counts(Metric::HeartRate, rate), format!("heart_rate {rate}"))
            }
            80..82 => {
                let words = format!("bp {}/{}", self.random.u8(80..170), self.random.u8(45..95));
                (Action::Other(words.clone()), words)
            }
            82..85 => {
                let words = format!("link {}", LinkState::ALL[self.random.usize(..LinkState::ALL.len())]);
                (Action::Other(words.clone()), words)
            }
            85..87 => {
                let words = format!("bridge disk_full {}", if self.random.bool() { "on" } else { "off" });
                (Action::Other(words.clone()), words)
            }
            87..96 => return self.command(),
            96 => {
                self.bench.rules = self.rule_sets[usize::from(self.random.bool())].clone();
                let events = self.bench.engine.replace_rules(self.bench.rules.clone(), self.bench.now);
                return (Action::Rules, events);
            }
            97 if self.restart == "restart" => (Action::Restart, "restart".to_owned()),
            97 | 98 => (Action::Unassign, "unassign".to_owned()),
            _ => return (Action::Time, self.bench.engine.on_deadline(self.bench.now)),
        };
        let events = self.bench.act(&words.split(' ').collect::<Vec<_>>()).unwrap();
        match action {
            Action::Counts(metric, value) => _ = self.heard.insert(metric, (self.bench.now.mono, value)),
            Action::Restart | Action::Unassign => self.heard.clear(),
            _ => {}
        }
        (action, events)
    }

    fn command(&mut self) -> (Action, Vec<AlertEvent>) {
        let present = self.bench.engine.present();
        if present.is_empty() {
            return (Action::Time, Vec::new());
        }
        let (alert, by) = (present[self.random.usize(..present.len())].alert, "n".to_owned());
        let command = match self.random.u8(..3) {
            0 => AlertCommand::Acknowledge { alert, by },
            1 => AlertCommand::PauseAudio { alert, by, seconds: self.random.u64(1..=120) },
            _ => AlertCommand::Reset { alert, by },
        };
        let now = self.bench.now;
        let events = self.bench.engine.on_command(&command, now);
        (Action::Command(command), events.unwrap_or_else(|_| self.bench.engine.on_deadline(now)))
    }

    /// What must hold for every event of every history.
    fn check(&mut self, action: &Action, events: &[AlertEvent], (seed, walk): (u64, u64)) {
        let context = Place { seed, walk, step: self.steps, action, event: None };
        if matches!(action, Action::TellsNothing(why) if why == "late" || why == "kept") {
            assert!(events.is_empty(), "a late reading starts, clears and changes nothing: {context}: {events:#?}");
        }
        for event in events {
            let context = Place { event: Some(event), ..context };
            let before = self.last.get(&event.alert);
            assert_eq!(before.is_none(), event.change == AlertChange::Start, "{context}");
            if let Some(before) = before {
                assert_ne!(before.change, AlertChange::End, "over is over: {context}");
                assert!(event.recurrence >= before.recurrence && event.priority >= before.priority, "{context}");
            }
            if event.change == AlertChange::End {
                self.check_end(action, event, before.unwrap(), context);
            }
            if event.change == AlertChange::Latch {
                self.check_cleared(event, context);
            }
            if event.kind == AlertKind::Technical {
                assert_ne!(event.change, AlertChange::Latch, "technical alerts never latch: {context}");
                assert_ne!(event.visual.presence, SignalPresence::Latched, "technical alerts never latch: {context}");
            }
            if event.change == AlertChange::Start || event.change == AlertChange::Recur {
                assert_eq!(event.presence, Presence::True, "{context}");
                // But for the silence itself: who sends something else than numbers is named by what he does not tell.
                let is_silence = event.rule.as_str() == "no_signal" && !self.has_heard(event.metric);
                // A link that was closed before anything told whose device it is: it is known by the first thing that does.
                let is_link = event.rule.as_str() == "device_lost";
                assert!(
                    !matches!(action, Action::TellsNothing(_)) || is_silence || is_link,
                    "nothing told, nothing starts: {context}"
                );
            }
            self.last.insert(event.alert, event.clone());
        }
        let present = self.bench.engine.present();
        let shown: BTreeSet<AlertId> = present.iter().map(|event| event.alert).collect();
        let open = self.last.values().filter(|event| event.is_present()).map(|event| event.alert).collect();
        assert_eq!(shown, open, "what is present is what was published: {context}");
        self.check_what_is_lost(&present, context);
    }

    /// True if a value of the last 10 s tells about the alert's metric: the time of the default no-signal rule.
    fn knows(&self, event: &AlertEvent) -> bool {
        let metrics: &[Metric] = match event.rule.as_str() {
            "spo2_low" | "spo2_desat" => &[Metric::Spo2],
            name if name.starts_with("heart_rate") => &[Metric::HeartRate],
            _ => return true,
        };
        metrics.iter().any(|metric| self.has_heard(Some(*metric)))
    }

    /// True if a value of the last 10 s counts.
    fn has_heard(&self, metric: Option<Metric>) -> bool {
        let silence = std::time::Duration::from_secs(10);
        metric
            .and_then(|metric| self.heard.get(&metric))
            .is_some_and(|(at, _)| self.bench.now.mono.since(*at) < silence)
    }

    /// Data lost never clears: whoever says that a condition has gone has a value that says so.
    fn check_cleared(&self, event: &AlertEvent, context: Place) {
        assert!(self.knows(event), "unknown never clears an alert: {context}");
        let normal = match event.rule.as_str() {
            "spo2_low" => self.heard[&Metric::Spo2].1 >= 91,
            "spo2_desat" => self.heard[&Metric::Spo2].1 >= 81,
            "heart_rate_low" => self.heard[&Metric::HeartRate].1 >= 52,
            "heart_rate_high" => self.heard[&Metric::HeartRate].1 <= 118,
            _ => true,
        };
        assert!(normal, "cleared by a value that is not clear: {context}");
    }

    /// Data lost never looks normal, and the silence has the priority of what it hides.
    fn check_what_is_lost(&self, present: &[AlertEvent], context: Place) {
        for event in present {
            let is_latched = event.visual.presence == SignalPresence::Latched;
            if !is_latched && !self.knows(event) {
                assert_eq!(event.presence, Presence::Unknown, "lost data looks known: {context}: {event:#?}");
            }
            assert!(is_latched || event.presence != Presence::False, "lives and is over: {context}: {event:#?}");
            let Some(by) = event.hidden_by else { continue };
            let by = present.iter().find(|other| other.alert == by);
            let by = by.unwrap_or_else(|| panic!("hidden by what is not shown: {context}: {event:#?}"));
            assert!(by.priority >= event.priority, "inherits no less than it hides: {context}: {event:#?} {by:#?}");
            assert_ne!(by.audio.presence, SignalPresence::Latched, "hidden by what is over: {context}: {event:#?}");
        }
    }

    fn check_end(&self, action: &Action, event: &AlertEvent, before: &AlertEvent, context: Place) {
        match event.end_reason.unwrap() {
            EndReason::ConditionCleared => self.check_cleared(event, context),
            EndReason::Reset => {
                assert_eq!(before.visual.presence, SignalPresence::Latched, "{context}");
                assert!(matches!(action, Action::Command(_)), "{context}");
            }
            EndReason::Unassigned => assert_eq!(*action, Action::Unassign, "{context}"),
            EndReason::Disabled => {
                assert_eq!((action, event.rule.as_str()), (&Action::Rules, "heart_rate_high"), "{context}");
            }
        }
    }
}

/// A quarter of a million steps in each of four tests, which run side by side: a million in each run.
const WALKS: u64 = 500;
const STEPS_A_WALK: u64 = 500;

/// Walks from the seed on; counts changes and reasons of ends.
fn walk_from(seed: u64, walks: std::ops::Range<u64>) -> (BTreeMap<AlertChange, u64>, BTreeSet<EndReason>) {
    let mut changes: BTreeMap<AlertChange, u64> = BTreeMap::new();
    let mut ends: BTreeSet<EndReason> = BTreeSet::new();
    let rule_sets = rule_sets();
    for walk_number in walks {
        let mut walk = Walk::new(seed.wrapping_add(walk_number), &rule_sets);
        let place = (seed, walk_number);
        for _ in 0..STEPS_A_WALK {
            let mut log = Vec::new();
            let target = walk.target();
            while let Some(events) = walk.moment(target) {
                walk.check(&Action::Time, &events, place);
                log.extend(events);
            }
            let (action, events) = walk.act();
            walk.check(&action, &events, place);
            log.extend(events);
            for event in &log {
                *changes.entry(event.change).or_default() += 1;
                ends.extend(event.end_reason);
            }
            let due = walk.bench.engine.next_deadline();
            let events = walk.bench.engine.on_deadline(walk.bench.now);
            walk.check(&Action::Time, &events, place);
            let next = walk.bench.engine.next_deadline();
            assert!(next.is_none_or(|next| next > walk.bench.now.mono), "seed {seed}: due again: {due:?} {next:?}");
        }
    }
    (changes, ends)
}

/// The invariants hold in a quarter of the million, from a seed that is printed.
fn hold_for_any_history() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (changes, ends) = walk_from(seed, 0..WALKS);
    // The walk has to reach every kind of change, or it would prove nothing.
    for change in AlertChange::ALL {
        assert!(changes.contains_key(change), "seed {seed}: no {change} in {changes:?}");
    }
    assert_eq!(ends.len(), EndReason::ALL.len(), "seed {seed}: {ends:?}");
}

#[test]
fn the_invariants_hold_for_any_history_first_quarter() {
    hold_for_any_history();
}

#[test]
fn the_invariants_hold_for_any_history_second_quarter() {
    hold_for_any_history();
}

#[test]
fn the_invariants_hold_for_any_history_third_quarter() {
    hold_for_any_history();
}

#[test]
fn the_invariants_hold_for_any_history_last_quarter() {
    hold_for_any_history();
}

/// A history that once broke a check: a device that has been silent for long sends something that is no value, and the
/// silence of what it should tell is known by its name at once.
#[test]
fn the_invariants_hold_where_the_first_sign_of_a_device_is_no_value() {
    let (changes, _) = walk_from(8_976_805_759_309_779_427, 32..33);
    assert!(changes.contains_key(&AlertChange::Start), "{changes:?}");
}

/// The same for a link that was closed while nobody knew whose device it was.
#[test]
fn the_invariants_hold_where_the_first_sign_of_a_device_after_a_restart_tells_whose_closed_link_it_is() {
    let (changes, _) = walk_from(4_392_722_762_056_517_742, 56..57);
    assert!(changes.contains_key(&AlertChange::Start), "{changes:?}");
}

const YEAR_MS: i64 = 365 * 86_400_000;

/// Six histories of so many steps for each seed, 28 seeds in each of four tests: a million steps in each run.
const STEPS_A_HISTORY: u64 = 1500;
const SEEDS: u64 = 28;

/// The changes of one history, without what may differ: wall times. `step_ms`: by how much the wall clock jumps now and then.
fn history(seed: u64, rule_sets: &[RuleSet; 2], step_ms: i64) -> Vec<AlertEvent> {
    let times_apart = |mut event: AlertEvent| {
        // The identity holds the wall time in its first 48 bits; the random bits must agree.
        event.alert = AlertId(uuid::Uuid::from_u128(event.alert.0.as_u128() << 48));
        event.hidden_by = event.hidden_by.map(|id| AlertId(uuid::Uuid::from_u128(id.0.as_u128() << 48)));
        (event.onset, event.announced, event.paused_until) = (Wall(0), Wall(0), None);
        event.message = String::new();
        event
    };
    // A pause of the sound that crosses a restart is stored as wall time; every other timer is monotonic.
    let mut walk = Walk { restart: "unassign", ..Walk::new(seed, rule_sets) };
    let mut log = Vec::new();
    for step in 0..STEPS_A_HISTORY {
        if step % 100 == 50 {
            walk.bench.now.wall.0 += if step % 200 == 50 { step_ms } else { -2 * step_ms };
        }
        let target = walk.target();
        while let Some(events) = walk.moment(target) {
            log.extend(events.into_iter().map(times_apart));
        }
        log.extend(walk.act().1.into_iter().map(times_apart));
    }
    log
}

/// The same readings make the same alerts, and a step of the wall clock changes nothing.
fn repeats_itself_whatever_the_wall_clock_does() {
    let (rule_sets, first) = (rule_sets(), fastrand::u64(..));
    println!("seed {first}");
    for seed in (0..SEEDS).map(|n| first.wrapping_add(n)) {
        let plain = history(seed, &rule_sets, 0);
        assert!(plain.len() > 100, "seed {seed}: {}", plain.len());
        for step_ms in [0, 3_600_000, -3_600_000, YEAR_MS, -YEAR_MS] {
            let stepped = history(seed, &rule_sets, step_ms);
            let differing = plain.iter().zip(&stepped).find(|(a, b)| a != b);
            assert_eq!((differing, plain.len()), (None, stepped.len()), "seed {seed}, step {step_ms}");
        }
    }
}

#[test]
fn a_history_repeats_itself_whatever_the_wall_clock_does_first_quarter() {
    repeats_itself_whatever_the_wall_clock_does();
}

#[test]
fn a_history_repeats_itself_whatever_the_wall_clock_does_second_quarter() {
    repeats_itself_whatever_the_wall_clock_does();
}

#[test]
fn a_history_repeats_itself_whatever_the_wall_clock_does_third_quarter() {
    repeats_itself_whatever_the_wall_clock_does();
}

#[test]
fn a_history_repeats_itself_whatever_the_wall_clock_does_last_quarter() {
    repeats_itself_whatever_the_wall_clock_does();
}
