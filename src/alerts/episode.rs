//! The life of one alert: the state machine of `docs/alerts.md`, without rules, values or words.

use std::time::Duration;

use crate::alerts::judge::Truth;
use crate::alerts::rule::{Edge, Latching, Level, Times};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{Activation, AlertChange, AlertEvent, EndReason, Presence, Priority, Signal, SignalPresence};
use crate::ids::AlertId;

/// Worse than at the acknowledgement: further beyond by this many hundredths of the value acknowledged.
const WORSE_PERCENT: i128 = 5;

/// Makes the identities of alerts; repeats exactly under the same seed.
#[derive(Debug, Clone)]
pub(super) struct AlertIds(fastrand::Rng);

impl AlertIds {
    /// Random bits from a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A new identity that sorts by its time.
    fn next(&mut self, now: Wall) -> AlertId {
        let mut random = [0; 10];
        self.0.fill(&mut random);
        let millis = u64::try_from(now.0).unwrap_or(0);
        AlertId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// What the rule sees at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    /// Whether the condition holds.
    pub(super) truth: Truth,
    /// No further delay.
    pub(super) at_once: bool,
    /// The newest reading has no number that counts: what was clear may no longer be.
    pub(super) gap: bool,
    /// Another alert stands for this one.
    pub(super) inhibited: bool,
    /// The value that was compared, and the bound it crosses.
    pub(super) crossed: Option<(Level, Edge)>,
    /// How urgent it would be now.
    pub(super) priority: Priority,
}

/// What the rule asks of its episodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Its times.
    pub(super) times: Times,
    /// What stays after the condition.
    pub(super) latching: Latching,
}

/// Where a published alert is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It sounds and shows.
    Alarming,
    /// A person knows; it sounds again at this time.
    Acknowledged {
        /// When it reminds.
        reminder: Mono,
    },
    /// Its sound is paused.
    Paused {
        /// Until when.
        until: Mono,
    },
    /// The condition has gone, and nobody has seen it.
    Latched {
        /// Since when the condition is back.
        back: Option<Mono>,
    },
}

/// How long the clear condition has been seen to hold.
#[derive(Debug, Clone, Copy, Default)]
struct ClearTimer {
    held: Duration,
    running: Option<Mono>,
}

impl ClearTimer {
    fn run(&mut self, now: Mono) {
        self.running.get_or_insert(now);
    }

    /// Stops without forgetting: nobody knows whether it still holds.
    fn freeze(&mut self, now: Mono) {
        if let Some(since) = self.running.take() {
            self.held += now.since(since);
        }
    }

    /// When it will have held for `delay`.
    fn due(&self, delay: Duration) -> Option<Mono> {
        self.running.map(|since| since + delay.saturating_sub(self.held))
    }
}

/// A published alert.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// Its identity.
    pub(super) id: AlertId,
    /// Where it is in its life.
    pub(super) phase: Phase,
    /// Whether its condition exists.
    pub(super) presence: Presence,
    /// How urgent it is. Never falls while it lives.
    pub(super) priority: Priority,
    /// When the condition first became true.
    pub(super) onset: Wall,
    /// When it last began to alarm.
    pub(super) announced: Wall,
    /// Until when its sound is paused.
    pub(super) paused_until: Option<Wall>,
    /// Which alert stands for it.
    pub(super) hidden_by: Option<AlertId>,
    /// How often it came back while latched.
    pub(super) recurrence: u32,
    /// Who acted on it last.
    pub(super) by: Option<String>,
    /// Which routes of escalation it has taken, see [`AlertEvent::escalated`].
    pub(super) escalated: u32,
    /// What the latching left: full or a silent line.
    latching: Latching,
    /// The newest value beyond the limit.
    worst: Option<Level>,
    /// The value a person acknowledged or paused.
    accepted: Option<Level>,
    clear: ClearTimer,
}

impl Open {
    /// True while its condition is taken to exist, so that it can stand for others.
    pub(super) const fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Latched { .. })
    }

    /// Sound, then light and text.
    pub(super) fn signals(&self) -> (Signal, Signal) {
        let signal = |activation, presence| Signal { activation, presence };
        let on = Activation::On;
        let (audio, visual) = match self.phase {
            Phase::Alarming => (signal(on, SignalPresence::On), SignalPresence::On),
            Phase::Acknowledged { .. } => (signal(on, SignalPresence::Ack), SignalPresence::On),
            Phase::Paused { .. } => (signal(Activation::Paused, SignalPresence::Off), SignalPresence::On),
            Phase::Latched { .. } if self.latching == Latching::Full => {
                (signal(on, SignalPresence::Latched), SignalPresence::Latched)
            }
            Phase::Latched { .. } => (signal(on, SignalPresence::Off), SignalPresence::Latched),
        };
        let is_quiet = self.hidden_by.is_some() || self.priority == Priority::Info;
        let quiet = |presence| if is_quiet && presence == SignalPresence::On { SignalPresence::Off } else { presence };
        (signal(audio.activation, quiet(audio.presence)), signal(on, quiet(visual)))
    }

    /// 5 % further beyond the limit than what a person accepted.
    fn is_worse(&self, level: Level, edge: Edge) -> bool {
        let Some(accepted) = self.accepted else {
            return false;
        };
        let step = i128::from(accepted.0).abs() * WORSE_PERCENT / 100;
        let (accepted, level) = (i128::from(accepted.0), i128::from(level.0));
        if edge.is_low() { level <= accepted - step } else { level >= accepted + step }
    }
}

/// Where a rule stands with one patient, device or metric.
#[derive(Debug, Clone, Default)]
pub(super) enum Stage {
    /// Nothing to tell.
    #[default]
    Idle,
    /// True, but not for long enough.
    Pending {
        /// Since when.
        since: Mono,
        /// The same on the wall clock.
        onset: Wall,
    },
    /// An alert.
    Open(Box<Open>),
}

/// One rule's state machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Episode {
    /// Where it stands.
    pub(super) stage: Stage,
    /// How often the condition went away before the delay was over.
    pub(super) near_misses: u64,
}

/// What a step changed.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing that anybody needs to know.
    Nothing,
    /// The alert changed.
    Changed(AlertChange),
    /// It is over.
    Ended(Box<Open>, EndReason),
}

/// Why a person's command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefused {
    /// The alert does not exist or is over.
    #[error("no present alert has the id {0}")]
    NoSuchAlert(AlertId),
    /// Acknowledged before.
    #[error("the alert is acknowledged already")]
    AlreadyAcknowledged,
    /// Paused before.
    #[error("the sound is paused already")]
    AlreadyPaused,
    /// A pause needs a sound.
    #[error("the condition has gone: acknowledge or reset the alert instead of pausing it")]
    Latched,
    /// A reset needs a condition that has gone.
    #[error("the condition has not gone: acknowledge the alert instead of resetting it")]
    NotLatched,
    /// A pause outside the rule's bound.
    #[error("an audio pause of {seconds} s is not between 1 and {longest} s")]
    PauseOutOfBounds {
        /// Asked for.
        seconds: u64,
        /// Allowed.
        longest: u64,
    },
    /// Nobody said who.
    #[error("a command needs the name of the person, of 1 to {longest} bytes")]
    NoName {
        /// Allowed.
        longest: usize,
    },
}

impl Episode {
    /// Moves what was written down by the wall clock.
    pub(super) fn move_times(&mut self, by_ms: i64) {
        let moved = |wall: &mut Wall| wall.0 = wall.0.saturating_add(by_ms);
        match &mut self.stage {
            Stage::Idle => {}
            Stage::Pending { onset, .. } => moved(onset),
            Stage::Open(open) => {
                [&mut open.onset, &mut open.announced].into_iter().chain(&mut open.paused_until).for_each(moved);
            }
        }
    }

    /// The alert, if there is one.
    pub(super) fn open(&self) -> Option<&Open> {
        match &self.stage {
            Stage::Open(open) => Some(open),
            Stage::Idle | Stage::Pending { .. } => None,
        }
    }

    /// The alert, if there is one.
    pub(super) fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.stage {
            Stage::Open(open) => Some(open),
            Stage::Idle | Stage::Pending { .. } => None,
        }
    }

    /// Where it stands, in the words of the table of transitions.
    #[cfg(test)]
    pub(super) const fn stage_name(&self) -> &'static str {
        match &self.stage {
            Stage::Idle => "idle",
            Stage::Pending { .. } => "pending",
            Stage::Open(open) => match open.phase {
                Phase::Alarming => "alarming",
                Phase::Acknowledged { .. } => "acknowledged",
                Phase::Paused { .. } => "paused",
                Phase::Latched { .. } => "latched",
            },
        }
    }

    /// When time alone changes something.
    pub(super) fn due(&self, terms: &Terms) -> Option<Mono> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Pending { since, .. } => Some(*since + terms.times.delay),
            Stage::Open(open) => {
                let clear = open.clear.due(terms.times.clear_delay);
                match open.phase {
                    Phase::Alarming => clear,
                    // While the clear timer runs the reminder waits: the alert may be about to end.
                    Phase::Acknowledged { reminder } => clear.or(Some(reminder)),
                    Phase::Paused { until } => clear.map_or(Some(until), |clear| Some(clear.min(until))),
                    Phase::Latched { back } => back.map(|back| back + terms.times.delay),
                }
            }
        }
    }

    /// Takes one look at the condition.
    pub(super) fn step(&mut self, sight: &Sight, terms: &Terms, ids: &mut AlertIds, now: Stamp) -> Outcome {
        let holds = sight.truth == Truth::True && !sight.inhibited;
        match &mut self.stage {
            Stage::Idle if holds => {
                self.stage = Stage::Pending { since: now.mono, onset: now.wall };
                self.start_if_due(sight, terms, ids, now)
            }
            Stage::Idle => Outcome::Nothing,
            Stage::Pending { .. } if holds => self.start_if_due(sight, terms, ids, now),
            Stage::Pending { .. } => {
                self.stage = Stage::Idle;
                self.near_misses = self.near_misses.saturating_add(1);
                Outcome::Nothing
            }
            Stage::Open(open) => match open.phase {
                Phase::Latched { back } => {
                    let back = holds.then(|| back.unwrap_or(now.mono));
                    open.phase = Phase::Latched { back };
                    recur_if_due(open, back, sight, terms, now)
                }
                _ => self.step_live(sight, terms, now),
            },
        }
    }

    fn start_if_due(&mut self, sight: &Sight, terms: &Terms, ids: &mut AlertIds, now: Stamp) -> Outcome {
        let Stage::Pending { since, onset } = self.stage else {
            return Outcome::Nothing;
        };
        if !sight.at_once && now.mono.since(since) < terms.times.delay {
            return Outcome::Nothing;
        }
        self.stage = Stage::Open(Box::new(Open {
            id: ids.next(now.wall),
            phase: Phase::Alarming,
            presence: Presence::True,
            priority: sight.priority,
            onset,
            announced: now.wall,
            paused_until: None,
            hidden_by: None,
            recurrence: 0,
            by: None,
            escalated: 0,
            latching: terms.latching,
            worst: sight.crossed.map(|(level, _)| level),
            accepted: None,
            clear: ClearTimer::default(),
        }));
        Outcome::Changed(AlertChange::Start)
    }

    /// A step of an alert whose condition is taken to exist.
    fn step_live(&mut self, sight: &Sight, terms: &Terms, now: Stamp) -> Outcome {
        let Stage::Open(open) = &mut self.stage else {
            return Outcome::Nothing;
        };
        let before = open.presence;
        open.presence = if sight.truth == Truth::Unknown { Presence::Unknown } else { Presence::True };
        match sight.truth {
            Truth::Clear if !sight.gap => open.clear.run(now.mono),
            Truth::Clear | Truth::Unknown => open.clear.freeze(now.mono),
            Truth::Between | Truth::True => open.clear = ClearTimer::default(),
        }
        if open.clear.due(terms.times.clear_delay).is_some_and(|due| due <= now.mono) {
            return self.cleared(terms);
        }
        if let Some(change) = worsened(open, sight, now) {
            return Outcome::Changed(change);
        }
        match open.phase {
            Phase::Paused { until } if until <= now.mono => {
                open.phase = Phase::Alarming;
                open.paused_until = None;
                Outcome::Changed(AlertChange::Resume)
            }
            Phase::Acknowledged { reminder } if reminder <= now.mono && open.clear.running.is_none() => {
                open.phase = Phase::Alarming;
                Outcome::Changed(AlertChange::Update)
            }
            _ if open.presence != before => Outcome::Changed(AlertChange::Update),
            _ => Outcome::Nothing,
        }
    }

    /// The clear condition has held for long enough.
    fn cleared(&mut self, terms: &Terms) -> Outcome {
        let Some(open) = self.open_mut() else {
            return Outcome::Nothing;
        };
        open.presence = Presence::False;
        open.hidden_by = None;
        open.paused_until = None;
        if matches!(open.phase, Phase::Acknowledged { .. }) || terms.latching == Latching::None {
            return self.end(EndReason::ConditionCleared);
        }
        open.latching = terms.latching;
        open.clear = ClearTimer::default();
        open.phase = Phase::Latched { back: None };
        Outcome::Changed(AlertChange::Latch)
    }

    /// Ends the alert, if there is one, and forgets what was pending.
    pub(super) fn end(&mut self, reason: EndReason) -> Outcome {
        match std::mem::take(&mut self.stage) {
            Stage::Open(open) => Outcome::Ended(open, reason),
            Stage::Idle | Stage::Pending { .. } => Outcome::Nothing,
        }
    }

    /// A person has seen it. A latched alert ends by that.
    pub(super) fn acknowledge(&mut self, by: &str, terms: &Terms, now: Stamp) -> Result<Outcome, CommandRefused> {
        let Some(open) = self.open_mut() else {
            return Ok(Outcome::Nothing);
        };
        match open.phase {
            Phase::Acknowledged { .. } => return Err(CommandRefused::AlreadyAcknowledged),
            Phase::Latched { .. } => return self.reset(by),
            Phase::Alarming | Phase::Paused { .. } => {}
        }
        open.phase = Phase::Acknowledged { reminder: now.mono + terms.times.reminder };
        open.paused_until = None;
        open.accepted = open.worst;
        open.escalated = 0;
        open.by = Some(by.to_owned());
        Ok(Outcome::Changed(AlertChange::Acknowledge))
    }

    /// A person silences it for a while.
    pub(super) fn pause(
        &mut self,
        by: &str,
        seconds: u64,
        terms: &Terms,
        now: Stamp,
    ) -> Result<Outcome, CommandRefused> {
        let longest = terms.times.audio_pause.as_secs();
        if !(1..=longest).contains(&seconds) {
            return Err(CommandRefused::PauseOutOfBounds { seconds, longest });
        }
        let Some(open) = self.open_mut() else {
            return Ok(Outcome::Nothing);
        };
        match open.phase {
            Phase::Acknowledged { .. } => return Err(CommandRefused::AlreadyAcknowledged),
            Phase::Paused { .. } => return Err(CommandRefused::AlreadyPaused),
            Phase::Latched { .. } => return Err(CommandRefused::Latched),
            Phase::Alarming => {}
        }
        open.phase = Phase::Paused { until: now.mono + Duration::from_secs(seconds) };
        let millis = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        open.paused_until = Some(Wall(now.wall.0.saturating_add(millis)));
        open.accepted = open.worst;
        open.by = Some(by.to_owned());
        Ok(Outcome::Changed(AlertChange::Pause))
    }

    /// It has taken these routes of escalation.
    pub(super) fn escalated(&mut self, routes: u32) -> Outcome {
        match self.open_mut() {
            Some(open) if open.escalated | routes != open.escalated => {
                open.escalated |= routes;
                Outcome::Changed(AlertChange::Update)
            }
            _ => Outcome::Nothing,
        }
    }

    /// A person puts a latched alert away.
    pub(super) fn reset(&mut self, by: &str) -> Result<Outcome, CommandRefused> {
        let Some(open) = self.open_mut() else {
            return Ok(Outcome::Nothing);
        };
        if open.is_live() {
            return Err(CommandRefused::NotLatched);
        }
        open.by = Some(by.to_owned());
        Ok(self.end(EndReason::Reset))
    }

    /// Says which alert stands for this one; true if that changed.
    pub(super) fn hide(&mut self, by: Option<AlertId>) -> bool {
        let Some(open) = self.open_mut().filter(|open| open.hidden_by != by) else {
            return false;
        };
        open.hidden_by = by;
        true
    }

    /// An alert of an earlier run of the daemon: as stored, with presence unknown until a valid reading.
    pub(super) fn restored(event: &AlertEvent, terms: &Terms, now: Stamp) -> Self {
        let is_latched = event.visual.presence == SignalPresence::Latched;
        let phase = if is_latched {
            Phase::Latched { back: None }
        } else if event.audio.activation == Activation::Paused {
            // The wall clock may have jumped between the runs: a pause is never longer than the rule allows.
            let left = event.paused_until.map_or(0, |until| until.0.saturating_sub(now.wall.0));
            let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).min(terms.times.audio_pause);
            Phase::Paused { until: now.mono + left }
        } else if event.audio.presence == SignalPresence::Ack {
            Phase::Acknowledged { reminder: now.mono + terms.times.reminder }
        } else {
            Phase::Alarming
        };
        let is_full = event.audio.presence == SignalPresence::Latched;
        let value = event.value.and_then(crate::vitals::Value::valid).map(Level::of);
        let is_accepted = matches!(phase, Phase::Acknowledged { .. } | Phase::Paused { .. });
        let open = Open {
            id: event.alert,
            phase,
            presence: if is_latched { Presence::False } else { Presence::Unknown },
            priority: event.priority,
            onset: event.onset,
            announced: event.announced,
            paused_until: event.paused_until,
            hidden_by: event.hidden_by,
            recurrence: event.recurrence,
            by: event.by.clone(),
            escalated: event.escalated,
            latching: if is_full { Latching::Full } else { Latching::StatusLine },
            worst: value,
            accepted: value.filter(|_| is_accepted),
            clear: ClearTimer::default(),
        };
        Self { stage: Stage::Open(Box::new(open)), near_misses: 0 }
    }
}

/// Notes the newest value and priority; alarms again if they are worse than what a person accepted.
fn worsened(open: &mut Open, sight: &Sight, now: Stamp) -> Option<AlertChange> {
    let raised = sight.priority > open.priority && sight.truth != Truth::Clear;
    open.priority = if raised { sight.priority } else { open.priority };
    let crossed = sight.crossed.filter(|_| sight.truth == Truth::True);
    let worse = crossed.is_some_and(|(level, edge)| open.is_worse(level, edge));
    if let Some((level, _)) = crossed {
        open.worst = Some(level);
    }
    let is_accepted = matches!(open.phase, Phase::Acknowledged { .. } | Phase::Paused { .. });
    if is_accepted && (worse || raised) {
        open.phase = Phase::Alarming;
        open.paused_until = None;
        open.announced = now.wall;
        return Some(AlertChange::Escalate);
    }
    raised.then_some(AlertChange::Update)
}

fn recur_if_due(open: &mut Open, back: Option<Mono>, sight: &Sight, terms: &Terms, now: Stamp) -> Outcome {
    let Some(back) = back else {
        return Outcome::Nothing;
    };
    if !sight.at_once && now.mono.since(back) < terms.times.delay {
        return Outcome::Nothing;
    }
    open.phase = Phase::Alarming;
    open.presence = Presence::True;
    open.priority = open.priority.max(sight.priority);
    open.announced = now.wall;
    open.recurrence = open.recurrence.saturating_add(1);
    open.worst = sight.crossed.map(|(level, _)| level);
    open.accepted = None;
    Outcome::Changed(AlertChange::Recur)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough that every pair of transitions meets many times; half a second in a debug build.
    const STEPS: u64 = 1_000_000;

    fn random_sight(random: &mut fastrand::Rng) -> Sight {
        let truth = [Truth::True, Truth::Between, Truth::Clear, Truth::Unknown][random.usize(..4)];
        let level = Level::whole(random.i32(60..90));
        Sight {
            truth,
            at_once: random.u8(..50) == 0,
            gap: random.u8(..5) == 0,
            inhibited: random.u8(..10) == 0,
            crossed: (truth == Truth::True).then_some((level, Edge::Below(Level::whole(90)))),
            priority: if random.u8(..100) == 0 { Priority::High } else { Priority::Medium },
        }
    }

    fn is_idle(episode: &Episode) -> bool {
        matches!(episode.stage, Stage::Idle)
    }

    /// What must hold of one step, given the alert before it.
    fn check_step(
        before: Option<&Open>,
        sight: &Sight,
        outcome: &Outcome,
        episode: &Episode,
        context: &dyn Fn() -> String,
    ) {
        match outcome {
            Outcome::Ended(_, EndReason::ConditionCleared) => {
                assert!(sight.truth == Truth::Clear && !sight.gap, "unknown never clears: {}", context());
            }
            Outcome::Ended(_, reason) => panic!("a look at the condition ends nothing by {reason}: {}", context()),
            Outcome::Changed(AlertChange::Start) => {
                assert!(before.is_none() && sight.truth == Truth::True && !sight.inhibited, "{}", context());
            }
            Outcome::Changed(AlertChange::Latch) => assert!(sight.truth == Truth::Clear && !sight.gap, "{}", context()),
            Outcome::Changed(AlertChange::Recur) => {
                let before = before.unwrap();
                assert!(!before.is_live() && sight.truth == Truth::True, "{}", context());
                assert_eq!(episode.open().unwrap().recurrence, before.recurrence + 1, "{}", context());
            }
            Outcome::Changed(AlertChange::Escalate | AlertChange::Resume) => {
                let was_quiet = matches!(before.unwrap().phase, Phase::Acknowledged { .. } | Phase::Paused { .. });
                assert!(was_quiet && episode.open().unwrap().phase == Phase::Alarming, "{}", context());
            }
            Outcome::Changed(_) | Outcome::Nothing => {}
        }
        let (Some(before), Some(after)) = (before, episode.open()) else {
            return;
        };
        assert_eq!(before.id, after.id, "{}", context());
        assert!(after.priority >= before.priority, "{}", context());
        if matches!(outcome, Outcome::Nothing) {
            assert_eq!(
                (before.presence, before.signals()),
                (after.presence, after.signals()),
                "silent change: {}",
                context()
            );
        }
        if after.is_live() {
            assert_eq!(after.presence == Presence::Unknown, sight.truth == Truth::Unknown, "{}", context());
        }
    }

    fn change_name(outcome: &Outcome) -> Option<&'static str> {
        match outcome {
            Outcome::Nothing => None,
            Outcome::Changed(change) => Some(change.name()),
            Outcome::Ended(..) => Some(AlertChange::End.name()),
        }
    }

    #[test]
    fn a_million_random_steps_break_no_rule_of_the_table() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let seconds = Duration::from_secs;
        let times =
            Times { delay: seconds(3), clear_delay: seconds(2), reminder: seconds(20), audio_pause: seconds(10) };
        let (mut episode, mut ids) = (Episode::default(), AlertIds::new(seed));
        let mut now = Stamp { mono: Mono::from_millis(1), wall: Wall(0) };
        let mut sight = random_sight(&mut random);
        let (mut ends, mut latches) = (0, 0);
        let mut latching = Latching::Full;
        let documented = crate::alerts::tests::table::documented();
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..STEPS {
            if is_idle(&episode) {
                latching = Latching::ALL[random.usize(..Latching::ALL.len())];
            }
            let terms = Terms { times, latching };
            let pause = Duration::from_millis(random.u64(1..1000));
            let due = episode.due(&terms).filter(|due| *due > now.mono);
            now = Stamp {
                mono: due.map_or(now.mono + pause, |due| due.min(now.mono + pause)),
                wall: Wall(random.i64(..)),
            };
            // Conditions last a while, or nothing with a delay would ever happen.
            if random.u8(..4) == 0 {
                sight = random_sight(&mut random);
            }
            let (before, from) = (episode.open().cloned(), episode.stage_name());
            let context = || format!("seed {seed}, step {step}, {sight:?}, before {before:?}");
            let outcome = match random.u16(..400) {
                0..10 => {
                    let outcome = episode.acknowledge("n", &terms, now);
                    assert!(before.is_none() || !matches!(outcome, Ok(Outcome::Nothing)), "{}", context());
                    outcome.unwrap_or(Outcome::Nothing)
                }
                10..20 => episode.pause("n", random.u64(0..=11), &terms, now).unwrap_or(Outcome::Nothing),
                20..30 => {
                    let was_live = before.as_ref().is_some_and(Open::is_live);
                    let outcome = episode.reset("n");
                    assert_eq!(outcome.is_err(), was_live, "{}", context());
                    outcome.unwrap_or(Outcome::Nothing)
                }
                30 => episode.end(EndReason::Unassigned),
                _ => {
                    let outcome = episode.step(&sight, &terms, &mut ids, now);
                    ends += u64::from(matches!(outcome, Outcome::Ended(..)));
                    latches += u64::from(matches!(outcome, Outcome::Changed(AlertChange::Latch)));
                    check_step(before.as_ref(), &sight, &outcome, &episode, &context);
                    outcome
                }
            };
            let made = (from, episode.stage_name(), change_name(&outcome));
            if made.0 != made.1 || made.2.is_some() {
                assert!(documented.contains(&made), "no row of the table: {made:?}, {}", context());
                seen.insert(made);
            }
        }
        // Switched off is not a state of an episode: its rule is not stepped. What stays silently is no step.
        let is_step = |step: &&(&str, &str, Option<&str>)| {
            ![step.0, step.1].contains(&"switched off") && (step.0 != step.1 || step.2.is_some())
        };
        let missing: Vec<_> = documented.difference(&seen).filter(is_step).collect();
        assert!(missing.is_empty(), "seed {seed}: the walk never took {missing:?}");
        assert!(ends > 1000 && latches > 1000, "seed {seed}: {ends} ends, {latches} latches: the walk proves little");
    }
}
