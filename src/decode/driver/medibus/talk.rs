//! The host's half of a MEDIBUS conversation: who says what when, and when the link counts as broken.

use std::time::Duration;

use super::line::{ESC, NAK, SOH, message};
use crate::clock::Mono;

/// Codes of commands (9028258, p. 8 and 18). Nothing else is ever sent: none of them moves anything.
pub(super) mod code {
    pub(in super::super) const DATA: u8 = 0x24;
    pub(in super::super) const LOW_LIMITS: u8 = 0x25;
    pub(in super::super) const HIGH_LIMITS: u8 = 0x26;
    pub(in super::super) const ALARMS: u8 = 0x27;
    pub(in super::super) const TIME: u8 = 0x28;
    pub(in super::super) const SETTINGS: u8 = 0x29;
    pub(in super::super) const TEXTS: u8 = 0x2A;
    pub(in super::super) const ALARMS_2: u8 = 0x2E;
    pub(in super::super) const NOP: u8 = 0x30;
    pub(in super::super) const TIME_CHANGED: u8 = 0x49;
    pub(in super::super) const ICC: u8 = 0x51;
    pub(in super::super) const IDENTIFY: u8 = 0x52;
    pub(in super::super) const OFFER: u8 = 0x53;
    pub(in super::super) const CHOOSE: u8 = 0x54;
    pub(in super::super) const STOP: u8 = 0x55;
    pub(in super::super) const OFFER_CHANGED: u8 = 0x56;
}

/// p. 5: any pause longer than this ends the link.
const SILENCE: Duration = Duration::from_secs(3);
/// p. 5: a response is complete after this.
const ANSWER: Duration = Duration::from_secs(10);
/// p. 5: what is said when there is nothing to say.
const NOP_EVERY: Duration = Duration::from_secs(2);
/// p. 35: what the device needs after our identification before it listens to anything else.
const SETTLE: Duration = Duration::from_millis(200);
/// p. 37: a command is repeated so often before the link is started anew.
const TRIES: u32 = 3;
/// Pause after a command that the device did not understand.
const AFTER_NAK: Duration = Duration::from_millis(500);
/// p. 26: the enabling of streams is repeated, since nobody confirms it.
const ENABLE_EVERY: Duration = Duration::from_secs(5);
/// Texts, settings and limits change when somebody turns a knob.
const SLOW_POLL: Duration = Duration::from_secs(15);
/// p. 35: some devices expect this number. The name and our revision are free, the last is the version of the document.
const IDENTITY: &[u8] = b"0161'vitalbridge'01.00:04.03";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// ICC is sent until the device answers it or sends its own.
    Calling,
    /// The device is asked what it is.
    Identifying,
    /// It is asked which waves it offers.
    Asking,
    /// It is told which of them are wanted.
    Choosing,
    /// Data are asked for.
    Active,
}

#[derive(Debug)]
struct Poll {
    code: u8,
    every: Duration,
    /// `None`: the device does not know it.
    due: Option<Mono>,
}

/// The conversation. Silent until it is made.
#[derive(Debug)]
pub(super) struct Talk {
    phase: Phase,
    /// When the last byte below 80H came: realtime bytes do not keep the link alive (p. 16).
    heard: Mono,
    sent: Mono,
    not_before: Mono,
    /// The command that waits for its response.
    awaited: Option<(u8, Mono)>,
    failures: u32,
    suspended: Option<Mono>,
    polls: Vec<Poll>,
    /// The streams that are to be sent: the argument of code 54H, and when they are enabled next.
    choice: Vec<u8>,
    enable_at: Option<Mono>,
    outgoing: Vec<u8>,
}

impl Talk {
    pub(super) fn new(now: Mono, interval: Duration) -> Self {
        let slow = SLOW_POLL.max(interval);
        let polls = [
            (code::TIME, interval),
            (code::DATA, interval),
            (code::ALARMS, interval),
            (code::ALARMS_2, interval),
            (code::TEXTS, slow),
            (code::SETTINGS, slow),
            (code::LOW_LIMITS, slow),
            (code::HIGH_LIMITS, slow),
        ];
        let mut talk = Self {
            phase: Phase::Calling,
            heard: now,
            sent: now,
            not_before: now,
            awaited: None,
            failures: 0,
            suspended: None,
            polls: polls.map(|(code, every)| Poll { code, every, due: None }).into(),
            choice: Vec::new(),
            enable_at: None,
            outgoing: Vec::new(),
        };
        talk.proceed(now);
        talk
    }

    /// A byte of a command or a response came.
    pub(super) const fn hear(&mut self, now: Mono) {
        self.heard = now;
    }

    pub(super) const fn suspend(&mut self, now: Mono) {
        self.suspended = Some(now);
    }

    pub(super) fn resume(&mut self, now: Mono) {
        self.suspended = None;
        self.proceed(now);
    }

    /// p. 7: a command with an argument confuses devices older than MEDIBUS 3.00.
    pub(super) fn identified(&mut self, version: u8, wants_waves: bool, now: Mono) {
        if self.phase == Phase::Identifying {
            let phase = if wants_waves && version >= 3 { Phase::Asking } else { Phase::Active };
            self.not_before = now + SETTLE;
            self.enter(phase, now);
        }
    }

    /// The device offers waves; `choice` is the argument of the command that chooses some of them.
    pub(super) fn offered(&mut self, choice: Vec<u8>, now: Mono) {
        if self.phase == Phase::Asking {
            self.enter(if choice.is_empty() { Phase::Active } else { Phase::Choosing }, now);
            self.choice = choice;
            self.proceed(now);
        }
    }

    /// The device does not know this request.
    pub(super) fn is_unknown(&mut self, code: u8) {
        for poll in self.polls.iter_mut().filter(|poll| poll.code == code) {
            poll.due = None;
        }
    }

    fn enter(&mut self, phase: Phase, now: Mono) {
        self.phase = phase;
        self.failures = 0;
        self.awaited = None;
        if phase == Phase::Active {
            for poll in &mut self.polls {
                poll.due = Some(now);
            }
        }
    }

    /// A command of the device: every one is answered, known or not (p. 36).
    pub(super) fn on_command(&mut self, code: u8, now: Mono) {
        self.say(SOH, code, if code == code::IDENTIFY { IDENTITY } else { &[] }, now);
        match code {
            // It has started, or started again, and has forgotten everything (p. 37).
            code::ICC => {
                self.enable_at = None;
                self.choice.clear();
                self.not_before = now;
                self.enter(Phase::Identifying, now);
            }
            code::TIME_CHANGED => {
                for poll in self.polls.iter_mut().filter(|poll| poll.code == code::TIME && poll.due.is_some()) {
                    poll.due = Some(now);
                }
            }
            code::OFFER_CHANGED if self.phase == Phase::Active && !self.choice.is_empty() => {
                self.enable_at = None;
                self.enter(Phase::Asking, now);
            }
            // It goes; it is called until it is back.
            code::STOP => {
                self.start_again(now);
                self.say(SOH, code, &[], now);
                self.not_before = now + SILENCE;
            }
            _ => {}
        }
        self.proceed(now);
    }

    /// p. 11.
    pub(super) fn on_corrupt_command(&mut self, now: Mono) {
        self.say(SOH, NAK, &[], now);
    }

    /// A response; false if nobody waits for it.
    pub(super) fn on_response(&mut self, code: u8, now: Mono) -> bool {
        let Some((awaited, _)) = self.awaited else { return false };
        if code == NAK {
            self.awaited = None;
            self.not_before = now + AFTER_NAK;
            self.fail(now);
            return false;
        }
        if code != awaited {
            return false;
        }
        self.awaited = None;
        self.failures = 0;
        match (self.phase, code) {
            (Phase::Calling, code::ICC) => self.enter(Phase::Identifying, now),
            (Phase::Choosing, code::CHOOSE) => {
                self.enter(Phase::Active, now);
                self.enable_at = Some(now);
            }
            _ => {}
        }
        true
    }

    /// What could not be done is left out: only the link itself and the data are worth insisting.
    fn fail(&mut self, now: Mono) {
        self.failures += 1;
        if self.failures >= TRIES {
            match self.phase {
                Phase::Calling => self.failures = 0,
                Phase::Identifying | Phase::Asking | Phase::Choosing => self.enter(Phase::Active, now),
                Phase::Active => self.start_again(now),
            }
        }
    }

    fn start_again(&mut self, now: Mono) {
        self.phase = Phase::Calling;
        self.awaited = None;
        self.failures = 0;
        self.suspended = None;
        self.enable_at = None;
        self.choice.clear();
        self.outgoing.clear();
        self.not_before = now;
        for poll in &mut self.polls {
            poll.due = None;
        }
    }

    /// Does what is due; true if the link broke.
    pub(super) fn on_time(&mut self, now: Mono) -> bool {
        let is_broken = self.is_broken(now);
        if is_broken {
            self.start_again(now);
        } else if let Some((_, since)) = self.awaited
            && now.since(since) >= self.patience(since)
        {
            self.awaited = None;
            self.fail(now);
        }
        self.proceed(now);
        is_broken
    }

    /// p. 24: ICC is repeated after 3 s if nothing comes, after 10 s if something comes that is no response.
    fn patience(&self, since: Mono) -> Duration {
        if self.phase == Phase::Calling && self.heard <= since { SILENCE } else { ANSWER }
    }

    fn is_broken(&self, now: Mono) -> bool {
        let is_held_up = self.suspended.is_some_and(|since| now.since(since) >= SILENCE);
        is_held_up || (self.phase != Phase::Calling && now.since(self.heard) >= SILENCE)
    }

    pub(super) fn next_deadline(&self) -> Mono {
        if let Some(since) = self.suspended {
            return (since + SILENCE).min(self.silent_at());
        }
        let next = match self.awaited {
            Some((_, since)) => since + self.patience(since),
            None if self.phase == Phase::Active => {
                let due = self.polls.iter().filter_map(|poll| poll.due).min();
                due.map_or(self.sent + NOP_EVERY, |due| due.min(self.sent + NOP_EVERY)).max(self.not_before)
            }
            None => self.not_before,
        };
        next.min(self.silent_at()).min(self.enable_at.unwrap_or(next))
    }

    /// When the link is broken if nothing comes until then.
    fn silent_at(&self) -> Mono {
        if self.phase == Phase::Calling { Mono(u64::MAX) } else { self.heard + SILENCE }
    }

    /// Sends the next command, if one may be sent: p. 7, one at a time.
    pub(super) fn proceed(&mut self, now: Mono) {
        if self.suspended.is_some() {
            return;
        }
        if self.enable_at.is_some_and(|at| at <= now) {
            self.enable(now);
        }
        if self.awaited.is_some() || now < self.not_before {
            return;
        }
        let next = match self.phase {
            Phase::Calling => code::ICC,
            Phase::Identifying => code::IDENTIFY,
            Phase::Asking => code::OFFER,
            Phase::Choosing => code::CHOOSE,
            Phase::Active => {
                // The one that has waited longest, so that on a slow line each has its turn.
                let due = self.polls.iter_mut().filter(|poll| poll.due.is_some_and(|due| due <= now));
                match due.min_by_key(|poll| poll.due) {
                    Some(poll) => {
                        poll.due = Some(now + poll.every);
                        poll.code
                    }
                    None if now.since(self.sent) >= NOP_EVERY => code::NOP,
                    None => return,
                }
            }
        };
        let argument = if next == code::CHOOSE { self.choice.clone() } else { Vec::new() };
        self.say(ESC, next, &argument, now);
        self.awaited = Some((next, now));
    }

    /// p. 33: a sync byte without data, the command that enables the first streams, and the end of the sequence.
    fn enable(&mut self, now: Mono) {
        let streams = u32::try_from(self.choice.len() / 4).unwrap_or(0).min(4);
        let bits = (1_u8 << streams).wrapping_sub(1) & 0x0F;
        self.outgoing.extend([0xD0, 0xC1, 0xC0 | bits, 0xC0, 0xC0]);
        self.enable_at = Some(now + ENABLE_EVERY);
    }

    fn say(&mut self, start: u8, code: u8, data: &[u8], now: Mono) {
        if self.outgoing.len() < super::super::MAX_OUTGOING {
            self.outgoing.extend(message(start, code, data));
        }
        self.sent = now;
    }

    /// The device is told that nobody listens any more, so that it does not call for a technician (p. 24).
    pub(super) fn stop(&mut self) {
        let off: &[u8] = if self.enable_at.is_some() { &[0xD0, 0xC1, 0xC0, 0xC0, 0xC0] } else { &[] };
        self.outgoing.extend_from_slice(off);
        self.outgoing.extend(message(ESC, code::STOP, &[]));
    }

    pub(super) fn take_outgoing(&mut self) -> Vec<u8> {
        if self.suspended.is_some() { Vec::new() } else { std::mem::take(&mut self.outgoing) }
    }
}
