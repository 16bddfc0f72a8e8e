//! The invariants of docs/alerts.md, under random walks.

use std::collections::{BTreeMap, BTreeSet};

use super::{AlertCommand, Bench, RuleSet};
use crate::clock::Wall;
use crate::event::{AlertChange, AlertEvent, EndReason, LinkState, Presence, SignalPresence};
use crate::ids::AlertId;
use crate::vitals::Metric;

/// A random history of one patient: mostly readings, some silences, faults, commands and restarts.
struct Walk {
    bench: Bench,
    random: fastrand::Rng,
    /// The last event of each alert, and whether a valid reading of SpO2 came since.
    last: BTreeMap<AlertId, AlertEvent>,
    spo2: i32,
    steps: u64,
    /// What happens instead of a restart in walks without any.
    restart: &'static str,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let bench = Bench::new(RuleSet::built_in());
        Self {
            bench,
            random: fastrand::Rng::with_seed(seed),
            last: BTreeMap::new(),
            spo2: 95,
            steps: 0,
            restart: "restart",
        }
    }

    /// One random action; its name and its events.
    fn step(&mut self) -> (String, Vec<AlertEvent>) {
        self.steps += 1;
        let pause = if self.random.u8(..20) == 0 { self.random.u64(1..200_000) } else { self.random.u64(100..1500) };
        self.bench.move_to(self.bench.now.mono + std::time::Duration::from_millis(pause));
        let present = self.bench.engine.present();
        let any_alert = (!present.is_empty()).then(|| present[self.random.usize(..present.len())].clone());
        self.spo2 = (self.spo2 + self.random.i32(-4..=4)).clamp(72, 99);
        let action = match self.random.u8(..100) {
            0..60 => format!("spo2 {}", self.spo2),
            60..68 => "spo2 -".to_owned(),
            68..72 => format!("spo2 {}?", self.spo2),
            72..75 => format!("spo2 {}@70", self.spo2),
            75..80 => format!("heart_rate {}", self.random.u8(35..160)),
            80..82 => format!("bp {}/{}", self.random.u8(80..170), self.random.u8(45..95)),
            82..85 => format!("link {}", LinkState::ALL[self.random.usize(..LinkState::ALL.len())]),
            85..87 => format!("bridge disk_full {}", if self.random.bool() { "on" } else { "off" }),
            87..97 => {
                let Some(alert) = any_alert else { return ("nothing".to_owned(), Vec::new()) };
                let by = "n".to_owned();
                let command = match self.random.u8(..3) {
                    0 => AlertCommand::Acknowledge { alert: alert.alert, by },
                    1 => AlertCommand::PauseAudio { alert: alert.alert, by, seconds: self.random.u64(1..=120) },
                    _ => AlertCommand::Reset { alert: alert.alert, by },
                };
                let now = self.bench.now;
                let events = self.bench.engine.on_command(&command, now);
                let events = events.unwrap_or_else(|_| self.bench.engine.on_deadline(now));
                return (format!("{command:?}"), events);
            }
            97 => self.restart.to_owned(),
            98 => "unassign".to_owned(),
            _ => return ("deadline".to_owned(), self.bench.engine.on_deadline(self.bench.now)),
        };
        let events = self.bench.act(&action.split(' ').collect::<Vec<_>>()).unwrap();
        (action, events)
    }

    /// What must hold for every event of every history.
    fn check(&mut self, action: &str, events: &[AlertEvent], context: &str) {
        for event in events {
            let context = format!("{context}, step {}, {action}: {event:#?}", self.steps);
            let before = self.last.get(&event.alert);
            assert_eq!(before.is_none(), event.change == AlertChange::Start, "{context}");
            if let Some(before) = before {
                assert_ne!(before.change, AlertChange::End, "over is over: {context}");
                assert!(event.recurrence >= before.recurrence && event.priority >= before.priority, "{context}");
            }
            if event.change == AlertChange::End {
                Self::check_end(action, event, before.unwrap(), &context);
            }
            if event.kind == crate::event::AlertKind::Technical {
                assert_ne!(event.change, AlertChange::Latch, "technical alerts never latch: {context}");
            }
            if event.change == AlertChange::Start || event.change == AlertChange::Recur {
                assert_eq!(event.presence, Presence::True, "{context}");
            }
            self.last.insert(event.alert, event.clone());
        }
        let shown: BTreeSet<AlertId> = self.bench.engine.present().iter().map(|event| event.alert).collect();
        let open = self.last.values().filter(|event| event.is_present()).map(|event| event.alert).collect();
        assert_eq!(shown, open, "what is present is what was published: {context}");
    }

    fn check_end(action: &str, event: &AlertEvent, before: &AlertEvent, context: &str) {
        match event.end_reason.unwrap() {
            EndReason::ConditionCleared => {
                // In one call data may come back and clear; what was unknown before the call and is still unknown may not.
                let only_time =
                    action == "deadline" || action == "spo2 -" || action.contains('@') || action.contains('?');
                let is_spo2 = event.metric == Some(Metric::Spo2);
                let unknown = before.presence == Presence::Unknown;
                assert!(!(unknown && only_time && is_spo2), "unknown never clears: {context}");
            }
            EndReason::Reset => assert_eq!(before.visual.presence, SignalPresence::Latched, "{context}"),
            EndReason::Unassigned => assert_eq!(action, "unassign", "{context}"),
            EndReason::Disabled => panic!("no rule was switched off: {context}"),
        }
    }
}

/// How long the random walks may be in a debug build, so that the whole suite stays fast.
const WALKS: u64 = 40;
const STEPS_A_WALK: u64 = 500;

#[test]
fn the_invariants_hold_for_any_history() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut changes: BTreeMap<AlertChange, u64> = BTreeMap::new();
    for walk_number in 0..WALKS {
        let mut walk = Walk::new(seed.wrapping_add(walk_number));
        for _ in 0..STEPS_A_WALK {
            let (action, events) = walk.step();
            for event in &events {
                *changes.entry(event.change).or_default() += 1;
            }
            walk.check(&action, &events, &format!("seed {seed}, walk {walk_number}"));
            let due = walk.bench.engine.next_deadline();
            let events = walk.bench.engine.on_deadline(walk.bench.now);
            walk.check("deadline", &events, &format!("seed {seed}, walk {walk_number}"));
            let next = walk.bench.engine.next_deadline();
            assert!(next.is_none_or(|next| next > walk.bench.now.mono), "seed {seed}: due again: {due:?} {next:?}");
        }
    }
    // The walk has to reach every kind of change, or it would prove nothing.
    for change in AlertChange::ALL {
        assert!(changes.contains_key(change), "seed {seed}: no {change} in {changes:?}");
    }
}

#[test]
fn the_same_readings_make_the_same_alerts_and_a_step_of_the_wall_clock_changes_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let times_apart = |mut event: AlertEvent| {
        // The identity holds the wall time in its first 48 bits; the random bits must agree.
        event.alert = AlertId(uuid::Uuid::from_u128(event.alert.0.as_u128() << 48));
        event.hidden_by = event.hidden_by.map(|id| AlertId(uuid::Uuid::from_u128(id.0.as_u128() << 48)));
        (event.onset, event.announced, event.paused_until) = (Wall(0), Wall(0), None);
        event.message = String::new();
        event
    };
    let history = |step_ms: i64| {
        // A pause of the sound that crosses a restart is stored as wall time; every other timer is monotonic.
        let mut walk = Walk { restart: "unassign", ..Walk::new(seed) };
        let mut log = Vec::new();
        for step in 0..1500 {
            if step % 100 == 50 {
                walk.bench.now.wall.0 += if step % 200 == 50 { step_ms } else { -2 * step_ms };
            }
            log.extend(walk.step().1.into_iter().map(times_apart));
        }
        log
    };
    let plain = history(0);
    assert!(plain.len() > 100);
    assert_eq!(plain, history(0), "seed {seed}");
    for step_ms in [3_600_000, -3_600_000] {
        let stepped = history(step_ms);
        let differing = plain.iter().zip(&stepped).find(|(a, b)| a != b);
        assert_eq!((differing, plain.len()), (None, stepped.len()), "seed {seed}, step {step_ms}");
    }
}
