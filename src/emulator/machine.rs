//! The emulated device: what it sends at each moment, as a plain state machine without port and clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::conversation::{Conversation, Heard};
use super::faults::{FaultCounts, Faults};
use super::patient::{Patient, Vitals};
use super::scenario::{Orders, Scenario, Step, rehearse};
use crate::clock::Mono;
use crate::encode::{Cadence, EncodeError, Encoder, Moment, Said, Say};
use crate::profile::Profile;

/// A device looks at its sensors this often.
const SENSE_EVERY: Duration = Duration::from_secs(1);
/// How long a cuff takes.
pub const MEASUREMENT: Duration = Duration::from_secs(5);
/// A cuff that nobody can start measures by itself this often.
const MEASURE_EVERY: Duration = Duration::from_mins(5);
/// Events that wait for a frame; more are left out.
const MAX_EVENTS: usize = 16;
/// What is due is sent later at most by this; after a longer time the device has slept.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(1);

/// What the line does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    /// These bytes come.
    Send(Vec<u8>),
    /// The line is lost, for so long.
    HangUp(Duration),
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Frames or lines that were sent, undamaged or not.
    pub frames: u64,
    /// Bytes from the host that are no command of the profile.
    pub unknown_bytes: u64,
    /// Times the line was lost.
    pub hang_ups: u64,
    /// What was damaged.
    #[serde(flatten)]
    pub faults: FaultCounts,
}

/// The cuff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cuff {
    /// Nothing was measured yet.
    Unused,
    /// It is inflated since then.
    Measuring(Mono),
    /// It has a result since then.
    Done(Mono),
}

/// An emulated device.
#[derive(Debug)]
pub struct Emulator {
    encoder: Encoder,
    patient: Patient,
    scenario: Scenario,
    conversation: Conversation,
    faults: Faults,
    /// The scenario begins when the port is first opened; its round began then, and so many of its steps are over.
    round: Option<Mono>,
    steps_done: usize,
    orders: Orders,
    said: Said,
    sensed: Mono,
    cuff: Cuff,
    cuff_starts_by_itself: bool,
    measured: Vitals,
    /// When each unit is sent next, and the beats that it has told.
    next: Vec<Mono>,
    beats_told: Vec<u64>,
    sample_ranges: Vec<(i32, i32)>,
    is_polled: bool,
    polls: u32,
    introduces_itself: bool,
    events: VecDeque<String>,
    replies: Vec<u8>,
    garbage: usize,
    hang_up: Option<Duration>,
    /// It is silent for so long after half of the next frame.
    half_pause: Option<Duration>,
    silent_until: Mono,
    /// The end of a write that was cut.
    late: Vec<u8>,
    totals: Totals,
}

impl Emulator {
    /// A device that is switched on now. The same seed gives the same patient and the same faults.
    ///
    /// # Errors
    /// The profile cannot send what a calm patient has.
    pub fn new(profile: &Arc<Profile>, scenario: Scenario, seed: u64, now: Mono) -> Result<Self, EncodeError> {
        let encoder = Encoder::new(Arc::clone(profile))?;
        rehearse(&encoder, &Orders::default())?;
        let patient = Patient::new(seed, now);
        let said = encoder.say(&Orders::default().wanted(patient.vitals(profile), Vitals::new()))?;
        let link = profile.link();
        Ok(Self {
            conversation: Conversation::new(link, now),
            faults: Faults::new(seed),
            round: None,
            steps_done: 0,
            orders: Orders::default(),
            said,
            sensed: now,
            cuff: Cuff::Unused,
            cuff_starts_by_itself: !link.commands.iter().any(|command| command.actuates),
            measured: Vitals::new(),
            next: vec![now; encoder.units().len()],
            beats_told: vec![0; encoder.units().len()],
            sample_ranges: (0..profile.waves().len()).map(|wave| encoder.sample_range(wave)).collect(),
            is_polled: !link.poll.is_empty(),
            polls: 0,
            introduces_itself: true,
            events: VecDeque::new(),
            replies: Vec::new(),
            garbage: 0,
            hang_up: None,
            half_pause: None,
            silent_until: now,
            late: Vec::new(),
            totals: Totals::default(),
            patient,
            scenario,
            encoder,
        })
    }

    /// What has happened so far.
    pub fn totals(&self) -> Totals {
        let unknown_bytes = self.conversation.unknown_bytes();
        Totals { unknown_bytes, faults: self.faults.counts(), ..self.totals }
    }

    /// The line stands again after it was lost: the device was switched off and on.
    pub fn plugged(&mut self, now: Mono) {
        self.conversation.restart(now);
        self.encoder.restart();
        self.introduces_itself = true;
        self.late.clear();
        self.replies.clear();
        self.polls = 0;
    }

    /// Takes what the host has sent.
    pub fn hear(&mut self, bytes: &[u8], now: Mono) {
        for heard in self.conversation.hear(bytes, now) {
            match heard {
                Heard::Poll => self.polls += 1,
                Heard::Reply(reply) => self.replies.extend(reply),
                Heard::Started => {
                    self.introduces_itself = true;
                    self.next.fill(now);
                }
                Heard::Measure => self.cuff = Cuff::Measuring(now),
                Heard::EndMeasurement => self.cuff = Cuff::Unused,
            }
        }
    }

    /// Lets the time pass to `now`; what the line does by then. `is_plugged` is false while nobody could receive it.
    ///
    /// # Errors
    /// The profile cannot send a value that the patient has.
    pub fn advance(&mut self, is_plugged: bool, now: Mono) -> Result<Vec<Doing>, EncodeError> {
        if is_plugged {
            self.round = self.round.or(Some(now));
        }
        let changed = self.play(now) | self.run_cuff(now);
        if changed || now.since(self.sensed) >= SENSE_EVERY {
            self.sense(now)?;
        }
        let mut doing = Vec::new();
        if !is_plugged || now < self.silent_until {
            self.patient.advance(now);
            self.skip(now);
            self.replies.clear();
            self.polls = 0;
            return Ok(doing);
        }
        let mut bytes = std::mem::take(&mut self.late);
        bytes.extend(std::mem::take(&mut self.replies));
        let garbage = std::mem::take(&mut self.garbage);
        bytes.extend(self.faults.garbage(garbage));
        let mut is_lost = false;
        for (unit, at) in self.due(now) {
            self.patient.advance(at);
            let frame = self.frame(unit)?;
            self.totals.frames += 1;
            if let Some(pause) = self.hang_up.take() {
                bytes.extend(frame.get(..frame.len() / 2).unwrap_or(&[]));
                doing.push(Doing::HangUp(pause));
                self.totals.hang_ups += 1;
                is_lost = true;
                break;
            }
            if let Some(pause) = self.half_pause.take() {
                bytes.extend(frame.get(..frame.len() / 2).unwrap_or(&[]));
                self.silent_until = now + pause;
                break;
            }
            bytes.extend(self.faults.damage(&frame));
        }
        self.patient.advance(now);
        if !is_lost {
            self.late = bytes.split_off(self.faults.cut(bytes.len()));
        }
        if !bytes.is_empty() {
            doing.insert(0, Doing::Send(bytes));
        }
        Ok(doing)
    }

    /// Carries out the steps of the scenario that are due; true if the device says something else now.
    fn play(&mut self, now: Mono) -> bool {
        let Some(mut round) = self.round else { return false };
        let mut changed = false;
        if let Some(repeat) = self.scenario.repeat.filter(|repeat| now.since(round) >= *repeat) {
            round = round + repeat;
            self.round = Some(round);
            self.steps_done = 0;
            self.orders = Orders::default();
            self.faults.end();
            changed = true;
        }
        let since = now.since(round);
        while let Some(step) = self.scenario.steps.get(self.steps_done).filter(|step| step.at <= since).cloned() {
            self.steps_done += 1;
            self.carry_out(&step, now);
            changed = true;
        }
        changed
    }

    fn carry_out(&mut self, step: &Step, now: Mono) {
        self.introduces_itself |= step.serial_number.is_some();
        self.orders.apply(step);
        if self.events.len() < MAX_EVENTS {
            self.events.extend(step.event.clone());
        }
        if step.measure {
            self.cuff = Cuff::Measuring(now);
        }
        let faults = step.faults;
        if faults.end {
            self.faults.end();
        }
        self.faults.splits_writes |= faults.split_writes;
        if let Some(spread) = faults.drop_bytes {
            self.faults.drop_bytes(spread);
        }
        if let Some(spread) = faults.flip_bits {
            self.faults.flip_bits(spread);
        }
        if let Some(spread) = faults.duplicate {
            self.faults.duplicate(spread);
        }
        self.garbage += step.garbage.unwrap_or(0);
        self.hang_up = step.half_frame_then_hangup.or(self.hang_up);
        self.half_pause = step.half_frame_then_pause.or(self.half_pause);
        if let Some(pause) = step.pause {
            self.silent_until = now + pause;
        }
    }

    /// True if the cuff says something else now.
    fn run_cuff(&mut self, now: Mono) -> bool {
        match self.cuff {
            Cuff::Unused if self.cuff_starts_by_itself => self.finish_measurement(now),
            Cuff::Done(at) if self.cuff_starts_by_itself && now.since(at) >= MEASURE_EVERY => {
                self.finish_measurement(now);
            }
            Cuff::Measuring(since) if now.since(since) >= MEASUREMENT => self.finish_measurement(now),
            Cuff::Measuring(since) => return since == now,
            Cuff::Unused | Cuff::Done(_) => return false,
        }
        true
    }

    fn finish_measurement(&mut self, now: Mono) {
        self.measured = self.patient.vitals(self.encoder.profile());
        self.cuff = Cuff::Done(now);
    }

    /// Reads the sensors.
    fn sense(&mut self, now: Mono) -> Result<(), EncodeError> {
        self.sensed = now;
        let vitals = self.patient.vitals(self.encoder.profile());
        let measured = match self.cuff {
            Cuff::Unused => Vitals::new(),
            Cuff::Measuring(_) => vitals.keys().map(|key| (*key, Say::Measuring)).collect(),
            Cuff::Done(_) => self.measured.clone(),
        };
        let is_measuring = matches!(self.cuff, Cuff::Measuring(_));
        let mut wanted = self.orders.wanted(vitals, measured.clone());
        if is_measuring {
            // The result that the scenario sets is that of the measurement, not there before its end.
            wanted.measured = measured;
        }
        self.said = self.encoder.say(&wanted)?;
        Ok(())
    }

    /// Nothing is sent: what would have been due is over.
    fn skip(&mut self, now: Mono) {
        for next in &mut self.next {
            *next = (*next).max(now);
        }
        self.beats_told.fill(self.patient.beats());
        self.encoder.restart();
    }

    /// The units that are due, each with its moment, in the order of time.
    fn due(&mut self, now: Mono) -> Vec<(usize, Mono)> {
        let mut due = Vec::new();
        if !self.conversation.is_streaming(now) {
            self.skip(now);
            return due;
        }
        let polls = std::mem::take(&mut self.polls);
        let introduces_itself = std::mem::take(&mut self.introduces_itself);
        let beats = self.patient.beats();
        let event = self.events.front().cloned();
        for (index, unit) in self.encoder.units().iter().enumerate() {
            match unit.cadence() {
                Cadence::AtStart if introduces_itself => due.push((index, now)),
                Cadence::OnBeat if self.beats_told.get(index).is_some_and(|told| *told < beats) => {
                    due.push((index, now));
                }
                Cadence::OnEvent(name) if event.as_deref() == Some(&**name) => due.push((index, now)),
                Cadence::Hz(_) if self.is_polled => due.extend((0..polls).map(|_| (index, now))),
                Cadence::Hz(hz) => {
                    let period = Duration::from_secs_f64(1.0 / hz.max(f64::EPSILON)).min(Duration::from_hours(1));
                    let Some(next) = self.next.get_mut(index) else { continue };
                    *next = (*next).max(now - LONGEST_CATCH_UP);
                    while *next <= now {
                        due.push((index, *next));
                        *next = *next + period;
                    }
                }
                Cadence::AtStart | Cadence::OnBeat | Cadence::OnEvent(_) => {}
            }
        }
        due.sort_by_key(|(_, at)| *at);
        due
    }

    /// The bytes of one unit at this moment.
    fn frame(&mut self, unit: usize) -> Result<Vec<u8>, EncodeError> {
        let event = self.events.front().cloned();
        let told = self.beats_told.get_mut(unit);
        let beats = self.patient.beats();
        let beat = told.is_some_and(|told| std::mem::replace(told, beats) < beats);
        let (patient, ranges) = (&self.patient, &self.sample_ranges);
        let profile = Arc::clone(self.encoder.profile());
        let mut sample = |wave: usize| {
            let range = ranges.get(wave).copied().unwrap_or((0, 0));
            profile.waves().get(wave).map_or(0, |info| patient.sample(&info.name, info.baseline, range))
        };
        let moment = Moment { beat, event: event.as_deref() };
        let mut bytes = Vec::new();
        self.encoder.encode(unit, &self.said, moment, &mut sample, &mut bytes)?;
        // It happens once: with the first frame that can tell it.
        let is_told = event.is_some_and(|event| self.encoder.tells(unit, &event));
        if is_told {
            self.events.pop_front();
        }
        Ok(bytes)
    }
}
