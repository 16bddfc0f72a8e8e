//! The profile interpreter: what a frame, a superframe or a line says, as vitals, status, waves and events.
//!
//! The order for a number is fixed: extract, sentinel, sign, scale, offset, range, gates. A gate that does not hold
//! makes the value absent for its reason; never 0, never the last value.

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::CaptureLocations;

use super::number::{Input, Raw, extract, plus, read_text, times};
use super::packet::head_of;
use super::plan::{MessagePlan, NEVER_SEEN, Plan, WavePlan};
use super::superframe::Collector;
use super::waves::Block;
use super::{Decoded, DecodedVital, IdentityCounters};
use crate::profile::Profile;
use crate::profile::model::{
    Delimited, Field, Flag, Happening, InnerLines, Message, On, Part, Rule, State, StateValue, Test, Text, Wave,
};
use crate::vitals::{Absent, Decimal, Metric, Pressure, Quality, Status, Value, Vital};

/// What is known of a flag.
#[derive(Debug, Clone, Copy, Default)]
struct FlagNow {
    /// `None`: its message has not come yet.
    is_set: Option<bool>,
    /// Set in any frame since the last whole superframe: what a frame of a dropped one said still counts.
    latched: bool,
}

/// What is known of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateNow {
    /// Its message has not come yet.
    Unknown,
    /// A number that the profile does not list.
    Unlisted,
    /// The number of its value.
    Listed(usize),
}

/// What is remembered of one message.
#[derive(Debug)]
struct Memory {
    groups: Option<CaptureLocations>,
    /// The values of the last spot measurement; empty while the device measures.
    last: Option<Vec<Value>>,
}

/// Why a field has no value now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Withheld {
    /// For this reason.
    Because(Absent),
    /// It is not mentioned.
    Quietly,
}

#[derive(Debug)]
pub(super) struct Interpreter {
    flags: Vec<FlagNow>,
    states: Vec<StateNow>,
    flag_masks: Vec<u32>,
    /// What each value of each state means.
    meanings: Vec<Vec<Meaning>>,
    status_mask: u32,
    memories: Vec<Memory>,
    /// What the watched bits of each message were when its flags and states were last read.
    seen: Vec<u64>,
    /// Why the fields of the plan are withheld, by what the flags and states were when they last changed.
    gates: Vec<Option<Withheld>>,
    gates_are_stale: bool,
    collector: Collector,
    blocks: Vec<Block>,
    serial_number: String,
    identity: IdentityCounters,
    device_time: String,
    text: String,
}

/// The bit of a status in a mask.
fn mask_of(status: Status) -> u32 {
    Status::ALL
        .iter()
        .position(|known| *known == status)
        .and_then(|place| u32::try_from(place).ok())
        .map_or(0, |place| 1 << place)
}

/// What one value of a state means.
#[derive(Debug, Clone, Copy)]
struct Meaning {
    mask: u32,
    withheld: Withheld,
}

fn meanings_of(state: &State) -> Vec<Meaning> {
    let meaning = |value: &StateValue| {
        let reason = value.reason.or(value.maps.map(Absent::from)).unwrap_or(Absent::NotMeasured);
        let withheld = if value.quiet { Withheld::Quietly } else { Withheld::Because(reason) };
        Meaning { mask: value.maps.map_or(0, mask_of), withheld }
    };
    state.values.iter().map(meaning).collect()
}

impl Interpreter {
    pub(super) fn new(profile: &Profile, plan: &Plan) -> Self {
        let memory = |message: &Message| Memory {
            groups: message.pattern.as_ref().map(regex::Regex::capture_locations),
            last: None,
        };
        Self {
            flags: vec![FlagNow::default(); profile.flag_maps().len()],
            states: vec![StateNow::Unknown; profile.state_count()],
            flag_masks: profile.flag_maps().iter().map(|status| status.map_or(0, mask_of)).collect(),
            meanings: profile.messages().iter().flat_map(|message| &message.states).map(meanings_of).collect(),
            status_mask: 0,
            memories: profile.messages().iter().map(memory).collect(),
            seen: vec![NEVER_SEEN; plan.watches],
            gates: vec![None; plan.gates],
            gates_are_stale: true,
            collector: Collector::new(profile.superframe()),
            blocks: profile.waves().iter().map(Block::new).collect(),
            serial_number: String::new(),
            identity: IdentityCounters::default(),
            device_time: String::new(),
            text: String::new(),
        }
    }

    /// How often messages have told the serial number.
    pub(super) const fn identity(&self) -> IdentityCounters {
        self.identity
    }

    /// Forgets what the device said, because the link was opened again.
    pub(super) fn reset(&mut self) {
        self.flags.fill(FlagNow::default());
        self.states.fill(StateNow::Unknown);
        self.seen.fill(NEVER_SEEN);
        self.gates_are_stale = true;
        self.status_mask = 0;
        self.collector.clear();
        self.serial_number.clear();
        for memory in &mut self.memories {
            memory.last = None;
        }
        for block in &mut self.blocks {
            block.reset();
        }
    }

    /// Bytes were lost before the next frame.
    pub(super) fn gap(&mut self, out: &mut Vec<Decoded>) {
        self.collector.clear();
        out.extend(self.blocks.iter_mut().filter_map(Block::gap).map(Decoded::Wave));
    }

    /// Nothing follows: a superframe that has all its frames counts, and the samples of blocks that are not full are
    /// handed over.
    pub(super) fn finish(&mut self, profile: &Profile, plan: &Plan, out: &mut Vec<Decoded>) {
        if profile.superframe().is_some_and(|superframe| self.collector.is_full(superframe)) {
            self.superframe(profile, plan, out);
            self.collector.clear();
        }
        out.extend(self.blocks.iter_mut().filter_map(Block::take).map(Decoded::Wave));
    }

    /// A good frame of any kind.
    #[inline(never)]
    pub(super) fn frame(&mut self, profile: &Profile, plan: &Plan, frame: &[u8], out: &mut Vec<Decoded>) {
        self.packets(profile, plan, frame, &[frame.len()], out);
        if let Rule::Delimited(Delimited { lines: Some(lines), .. }) = &profile.framing().rule {
            self.inner_lines(profile, lines, frame, out);
        }
    }

    /// Good packets that follow each other: `bytes` begin with them, and `ends` says where each ends.
    #[inline(never)]
    pub(super) fn packets(
        &mut self,
        profile: &Profile,
        plan: &Plan,
        bytes: &[u8],
        ends: &[usize],
        out: &mut Vec<Decoded>,
    ) {
        if let Some(message) = &plan.stream
            && let [WavePlan::Byte { at, mask, index }] = *message.waves.as_slice()
        {
            self.stream(profile, plan, message, (at, mask, index), bytes, ends, out);
            return;
        }
        let (mut rest, mut start) = (bytes, 0);
        for end in ends {
            let Some((packet, following)) = rest.split_at_checked(end.saturating_sub(start)) else { return };
            self.packet(profile, plan, head_of(rest), plan.data(packet), out);
            (rest, start) = (following, *end);
        }
    }

    /// Packets whose only message has nothing to read each time but one sample, `wave`.
    #[expect(clippy::too_many_arguments, reason = "the arguments of `packets` and what it found in the plan")]
    #[inline(never)]
    fn stream(
        &mut self,
        profile: &Profile,
        plan: &Plan,
        message: &MessagePlan,
        (at, mask, index): (usize, u8, usize),
        bytes: &[u8],
        ends: &[usize],
        out: &mut Vec<Decoded>,
    ) {
        let (mut rest, mut start) = (bytes, 0);
        for end in ends {
            let Some((packet, following)) = rest.split_at_checked(end.saturating_sub(start)) else { return };
            let packet = plan.data(packet);
            self.collect(profile, plan, packet, out);
            let now = head_of(rest) & message.watch.mask;
            let is_sure = packet.len() >= message.watch.reach;
            if !is_sure || self.seen.get(message.watch.index) != Some(&now) {
                self.the_long_way(profile, message, if is_sure { now } else { NEVER_SEEN }, packet, out);
            }
            if let (Some(sample), Some(block)) = (packet.get(at), self.blocks.get_mut(index)) {
                block.push(i32::from(sample & mask), out);
            }
            (rest, start) = (following, *end);
        }
    }

    /// Takes the slot of a frame, after the superframe that it shows to be whole.
    #[inline]
    fn collect(&mut self, profile: &Profile, plan: &Plan, frame: &[u8], out: &mut Vec<Decoded>) {
        if let Some(superframe) = &plan.superframe {
            // Before anything is read from this frame: its flags belong to the superframe that it begins.
            if self.collector.is_ended_by(superframe, frame) {
                self.superframe(profile, plan, out);
            }
            self.collector.take(superframe, frame);
        }
    }

    /// A good frame that has no lines of text in it. `head` is its first word; where the frame is shorter, what the
    /// word has beyond its end may be anything.
    #[expect(clippy::inline_always, reason = "the inner loop: a call costs a tenth of a frame")]
    #[inline(always)]
    fn packet(&mut self, profile: &Profile, plan: &Plan, head: u64, frame: &[u8], out: &mut Vec<Decoded>) {
        self.collect(profile, plan, frame, out);
        for message in plan.messages(frame) {
            if message.when.iter().all(|predicate| predicate.holds(frame)) {
                self.planned(profile, plan, message, head, frame, out);
            }
        }
    }

    /// The lines of text in a frame.
    #[inline(never)]
    fn inner_lines(&mut self, profile: &Profile, lines: &InnerLines, frame: &[u8], out: &mut Vec<Decoded>) {
        let end = frame.len().saturating_sub(lines.until);
        let mut rest = frame.get(lines.from..end).unwrap_or(&[]);
        while !rest.is_empty() {
            let found = (0..rest.len()).find_map(|at| {
                let from = rest.get(at..)?;
                lines.end.iter().find(|end| from.starts_with(end)).map(|end| (at, at + end.len()))
            });
            let (end, next) = found.unwrap_or((rest.len(), rest.len()));
            self.line(profile, rest.get(..end).unwrap_or(&[]), out);
            rest = rest.get(next..).unwrap_or(&[]);
        }
    }

    /// A message of bytes, by its plan.
    #[expect(clippy::inline_always, reason = "the inner loop: a call costs a tenth of a frame")]
    #[inline(always)]
    fn planned(
        &mut self,
        profile: &Profile,
        plan: &Plan,
        message: &MessagePlan,
        head: u64,
        bytes: &[u8],
        out: &mut Vec<Decoded>,
    ) {
        let now = head & message.watch.mask;
        let is_sure = bytes.len() >= message.watch.reach;
        let is_as_before = is_sure && self.seen.get(message.watch.index) == Some(&now);
        if !is_as_before || message.has_more {
            self.the_long_way(profile, message, if is_sure { now } else { NEVER_SEEN }, bytes, out);
        }
        if !message.fields.is_empty() {
            self.numbers(profile, plan, message, bytes, out);
        }
        for wave in &message.waves {
            if let WavePlan::Byte { at, mask, index } = wave {
                if let (Some(sample), Some(block)) = (bytes.get(*at), self.blocks.get_mut(*index)) {
                    block.push(i32::from(sample & mask), out);
                }
            } else {
                self.samples(profile, message, wave, bytes, out);
            }
        }
    }

    /// The numbers of a message that stand by themselves.
    #[inline(never)]
    fn numbers(&mut self, profile: &Profile, plan: &Plan, message: &MessagePlan, bytes: &[u8], out: &mut Vec<Decoded>) {
        if self.gates_are_stale {
            self.refresh_gates(profile, plan);
        }
        for field in &message.fields {
            let is_open = self.gates.get(field.gate) == Some(&None);
            match field.sure_value(bytes).filter(|_| is_open) {
                Some(value) => out.push(scalar(field.metric, value, field.mdc, Quality::Valid)),
                None => self.one_value(profile, message.index, field.index, bytes, out),
            }
        }
    }

    /// The samples of interleaved waves, and of those that are more than a byte each.
    #[inline(never)]
    fn samples(
        &mut self,
        profile: &Profile,
        message: &MessagePlan,
        wave: &WavePlan,
        bytes: &[u8],
        out: &mut Vec<Decoded>,
    ) {
        match wave {
            WavePlan::Byte { at, mask, index: first } | WavePlan::Bytes { at, mask, first, .. } => {
                let count = if let WavePlan::Bytes { count, .. } = wave { *count } else { 1 };
                let samples = bytes.get(*at..).unwrap_or(&[]);
                let blocks = self.blocks.get_mut(*first..).unwrap_or(&mut []);
                for (sample, block) in samples.iter().zip(blocks).take(count) {
                    block.push(i32::from(sample & mask), out);
                }
            }
            WavePlan::Other(index) => {
                let waves = profile.messages().get(message.index).map_or(&[][..], |message| &message.waves);
                if let Some(wave) = waves.get(*index) {
                    self.wave(wave, bytes, out);
                }
            }
        }
    }

    /// The watched bits are `now`, perhaps other ones than before, or the message has more to tell than numbers.
    #[inline(never)]
    fn the_long_way(&mut self, profile: &Profile, plan: &MessagePlan, now: u64, bytes: &[u8], out: &mut Vec<Decoded>) {
        let Some(message) = profile.messages().get(plan.index) else { return };
        let input = Input::Bytes(bytes);
        if let Some(seen) = self.seen.get_mut(plan.watch.index) {
            *seen = now;
        }
        // Reading flags and states again that are as they were changes nothing.
        self.status(message, &input, out);
        self.told(message, &input, out);
        if plan.fields.is_empty() && !message.fields.is_empty() {
            self.vitals(plan.index, message, &input, out);
        }
    }

    /// Looks up all gates again, after a flag or a state has changed.
    #[inline(never)]
    fn refresh_gates(&mut self, profile: &Profile, plan: &Plan) {
        for (gate, message, field) in plan.gated_fields() {
            let field = profile.messages().get(message).and_then(|message| message.fields.get(field));
            let withheld = field.and_then(|field| self.withheld(field));
            if let Some(now) = self.gates.get_mut(gate) {
                *now = withheld;
            }
        }
        self.gates_are_stale = false;
    }

    /// One number that needs a closer look: it is withheld, a sentinel, out of bounds or made of several parts.
    #[inline(never)]
    fn one_value(&mut self, profile: &Profile, message: usize, field: usize, bytes: &[u8], out: &mut Vec<Decoded>) {
        let field = profile.messages().get(message).and_then(|message| message.fields.get(field));
        if let Some(field) = field
            && let Some(value) = self.value(field, &Input::Bytes(bytes))
        {
            out.push(scalar(field.metric, value, field.mdc, quality_of(value, Quality::Valid)));
        }
    }

    /// A whole superframe, now and then: flags that were latched in any of its frames count, then its messages.
    #[inline(never)]
    fn superframe(&mut self, profile: &Profile, plan: &Plan, out: &mut Vec<Decoded>) {
        let mut is_changed = false;
        for (flag, event) in &plan.latches {
            if let Some(now) = self.flags.get_mut(*flag) {
                let is_set = std::mem::take(&mut now.latched);
                if is_set && now.is_set != Some(true) {
                    out.extend(event.as_ref().map(happened));
                }
                is_changed |= now.is_set.replace(is_set) != Some(is_set);
            }
        }
        if is_changed {
            self.gates_are_stale = true;
            self.tell_status(out);
        }
        // What a frame says is latched anew, although it may be what the frame before it said.
        for watch in &plan.latched {
            if let Some(seen) = self.seen.get_mut(*watch) {
                *seen = NEVER_SEEN;
            }
        }
        let collector = std::mem::take(&mut self.collector);
        let slots = collector.slots();
        for message in &plan.on_superframe {
            self.planned(profile, plan, message, head_of(slots), slots, out);
        }
        self.collector = collector;
    }

    /// A line of text; false if no message knows it.
    pub(super) fn line(&mut self, profile: &Profile, line: &[u8], out: &mut Vec<Decoded>) -> bool {
        let Ok(text) = std::str::from_utf8(line) else {
            return false;
        };
        for (index, message) in profile.messages().iter().enumerate() {
            let Some(pattern) = message.pattern.as_ref().filter(|_| message.on == On::Line) else { continue };
            let Some(mut groups) = self.memories.get_mut(index).and_then(|memory| memory.groups.take()) else {
                continue;
            };
            let fits = pattern.captures_read(&mut groups, text).is_some();
            if fits {
                self.message(
                    index,
                    message,
                    &Input::Line { text, groups: &groups, pairs: message.pairs.as_ref() },
                    out,
                );
            }
            if let Some(memory) = self.memories.get_mut(index) {
                memory.groups = Some(groups);
            }
            if fits {
                return true;
            }
        }
        false
    }

    fn message(&mut self, index: usize, message: &Message, input: &Input<'_>, out: &mut Vec<Decoded>) {
        self.status(message, input, out);
        self.told(message, input, out);
        if !message.fields.is_empty() {
            self.vitals(index, message, input, out);
        }
    }

    /// The flags and states of a message.
    fn status(&mut self, message: &Message, input: &Input<'_>, out: &mut Vec<Decoded>) {
        let mut is_changed = false;
        for flag in &message.flags {
            is_changed |= self.read_flag(flag, input, out);
        }
        for state in &message.states {
            is_changed |= self.read_state(state, input);
        }
        if is_changed {
            self.gates_are_stale = true;
            self.tell_status(out);
        }
    }

    /// What the arrival of a message tells, and the device's serial number.
    fn told(&mut self, message: &Message, input: &Input<'_>, out: &mut Vec<Decoded>) {
        if let Some(event) = &message.event {
            out.push(happened(event));
        }
        if let Some(text) = &message.serial_number {
            self.read_serial_number(text, input, out);
        }
    }

    #[inline(never)]
    fn read_serial_number(&mut self, text: &Text, input: &Input<'_>, out: &mut Vec<Decoded>) {
        if !read_text(text, input, &mut self.text) {
            self.identity.missing += 1;
            return;
        }
        self.identity.told += 1;
        if self.text != self.serial_number {
            self.serial_number.clone_from(&self.text);
            out.push(Decoded::SerialNumber(self.text.clone()));
        }
    }

    /// Tells the set of statuses if it is another one than before.
    #[inline(never)]
    fn tell_status(&mut self, out: &mut Vec<Decoded>) {
        let flags = self.flags.iter().zip(&self.flag_masks);
        let mut mask = flags.filter(|(now, _)| now.is_set == Some(true)).fold(0, |mask, (_, bit)| mask | bit);
        for (now, meanings) in self.states.iter().zip(&self.meanings) {
            if let StateNow::Listed(value) = now {
                mask |= meanings.get(*value).map_or(0, |meaning| meaning.mask);
            }
        }
        if mask != self.status_mask {
            self.status_mask = mask;
            let set: BTreeSet<Status> =
                Status::ALL.iter().copied().filter(|status| mask & mask_of(*status) != 0).collect();
            out.push(Decoded::Status(set));
        }
    }

    /// True if a flag that counts at once has changed.
    #[inline]
    fn read_flag(&mut self, flag: &Flag, input: &Input<'_>, out: &mut Vec<Decoded>) -> bool {
        let is_set = match (&flag.test, input) {
            (Test::Byte(predicate), Input::Bytes(bytes)) => predicate.holds(bytes),
            (test, input) => test_holds(test, input),
        };
        let Some(now) = self.flags.get_mut(flag.index) else {
            return false;
        };
        if flag.latched {
            now.latched |= is_set;
            return false;
        }
        let before = now.is_set.replace(is_set);
        // A bit lasts for several frames; each line is about a time of its own.
        let begins = is_set && (before != Some(true) || matches!(input, Input::Line { .. }));
        if begins {
            out.extend(flag.event.as_ref().map(happened));
        }
        before != Some(is_set)
    }

    fn read_state(&mut self, state: &State, input: &Input<'_>) -> bool {
        let now = match extract(&state.source, input) {
            Raw::Integer { signed, .. } => state
                .values
                .iter()
                .position(|value| value.number.is_none_or(|number| number == signed))
                .map_or(StateNow::Unlisted, StateNow::Listed),
            Raw::Decimal(_) | Raw::Absent(_) | Raw::Missing => StateNow::Unlisted,
        };
        self.states.get_mut(state.index).is_some_and(|slot| std::mem::replace(slot, now) != now)
    }

    #[inline(never)]
    fn vitals(&mut self, index: usize, message: &Message, input: &Input<'_>, out: &mut Vec<Decoded>) {
        let is_old = message.historic.as_ref().is_some_and(|test| test_holds(test, input));
        let mut quality = if is_old { Quality::Historic } else { Quality::Valid };
        if message.spot {
            match self.is_repeated(index, message, input) {
                Repeated::Same => return,
                Repeated::Other => {}
                // It may have been measured long before the link was opened.
                Repeated::First => quality = Quality::Historic,
            }
        }
        let has_time = message.device_time.as_ref().is_some_and(|text| read_text(text, input, &mut self.device_time));
        let mut has_pressure = false;
        for field in &message.fields {
            if field.part.is_some() {
                has_pressure = true;
                continue;
            }
            let Some(value) = self.value(field, input) else { continue };
            let device_time = has_time.then(|| self.device_time.clone());
            let vital = Vital::scalar(field.metric, value);
            let quality = quality_of(value, quality);
            out.push(Decoded::Vital(DecodedVital { vital, mdc: field.mdc, quality, device_time }));
        }
        if has_pressure {
            let device_time = has_time.then(|| self.device_time.clone());
            for metric in [Metric::BloodPressure, Metric::ArterialPressure] {
                out.extend(self.pressure(metric, message, input, quality, device_time.as_ref()));
            }
        }
    }

    /// The parts of a pressure in one message, together; `None`: it has none, or nothing is said.
    fn pressure(
        &self,
        metric: Metric,
        message: &Message,
        input: &Input<'_>,
        quality: Quality,
        device_time: Option<&String>,
    ) -> Option<Decoded> {
        let mut pressure = None;
        let mut mdc = None;
        for field in message.fields.iter().filter(|field| field.metric == metric) {
            if let (Some(part), Some(value)) = (field.part, self.value(field, input)) {
                mdc = mdc.or(field.mdc);
                set_part(&mut pressure, part, value);
            }
        }
        let pressure = pressure?;
        let is_cuff = metric == Metric::BloodPressure;
        Some(Decoded::Vital(DecodedVital {
            quality: quality_of(pressure.systolic, quality),
            vital: if is_cuff { Vital::BloodPressure(pressure) } else { Vital::ArterialPressure(pressure) },
            mdc,
            device_time: device_time.cloned(),
        }))
    }

    /// Whether a spot measurement is the one that was read before. A device that is measuring says nothing, and what
    /// it says then is another measurement, though its values may be equal.
    fn is_repeated(&mut self, index: usize, message: &Message, input: &Input<'_>) -> Repeated {
        let values: Vec<Value> = message.fields.iter().filter_map(|field| self.value(field, input)).collect();
        let Some(memory) = self.memories.get_mut(index) else {
            return Repeated::Other;
        };
        match memory.last.replace(values) {
            None => Repeated::First,
            before if before == memory.last => Repeated::Same,
            Some(_) => Repeated::Other,
        }
    }

    /// The value of a field; `None`: nothing is said.
    fn value(&self, field: &Field, input: &Input<'_>) -> Option<Value> {
        let raw = extract(&field.source, input);
        if raw == Raw::Missing && field.optional {
            return None;
        }
        match self.withheld(field) {
            Some(Withheld::Quietly) => None,
            Some(Withheld::Because(reason)) => Some(Value::Absent(reason)),
            None => Some(convert(field, raw)),
        }
    }

    fn withheld(&self, field: &Field) -> Option<Withheld> {
        for gate in &field.unless {
            match self.flags.get(gate.flag).and_then(|now| now.is_set) {
                Some(false) => {}
                Some(true) => return Some(Withheld::Because(gate.reason)),
                None => return Some(Withheld::Because(Absent::NotMeasured)),
            }
        }
        let mut withheld = None;
        for gate in &field.only {
            let failed = match self.states.get(gate.state).copied().unwrap_or(StateNow::Unknown) {
                StateNow::Listed(value) if gate.allowed.contains(&value) => continue,
                StateNow::Listed(value) => {
                    let meaning = self.meanings.get(gate.state).and_then(|meanings| meanings.get(value));
                    meaning.map_or(Withheld::Because(Absent::Reserved), |meaning| meaning.withheld)
                }
                StateNow::Unlisted => Withheld::Because(Absent::Reserved),
                StateNow::Unknown => Withheld::Because(Absent::NotMeasured),
            };
            if failed == Withheld::Quietly {
                return Some(failed);
            }
            withheld = withheld.or(Some(failed));
        }
        withheld
    }

    #[inline(never)]
    fn wave(&mut self, wave: &Wave, bytes: &[u8], out: &mut Vec<Decoded>) {
        let bytes = bytes.get(wave.at..).unwrap_or(&[]);
        let samples = bytes.chunks_exact(wave.kind.width()).take(wave.count * wave.names.len());
        for (sample, (_, index)) in samples.zip(wave.names.iter().cycle()) {
            if let Some(block) = self.blocks.get_mut(*index) {
                block.push(super::number::sample(wave.kind, sample, wave.mask), out);
            }
        }
    }
}

/// Whether a spot measurement was read before.
enum Repeated {
    /// Yes.
    Same,
    /// No, another one was.
    Other,
    /// Nothing was read before.
    First,
}

const fn scalar(metric: Metric, value: Value, mdc: Option<u32>, quality: Quality) -> Decoded {
    Decoded::Vital(DecodedVital { vital: Vital::scalar(metric, value), mdc, quality, device_time: None })
}

fn happened(happening: &Happening) -> Decoded {
    match happening {
        Happening::Beat => Decoded::Beat,
        Happening::Named(name) => Decoded::Event { name: Arc::clone(name) },
    }
}

const fn quality_of(value: Value, quality: Quality) -> Quality {
    match value {
        Value::Valid(_) => quality,
        Value::Absent(_) => Quality::NotAvailable,
    }
}

fn set_part(pressure: &mut Option<Pressure>, part: Part, value: Value) {
    let nothing = Value::Absent(Absent::NotMeasured);
    let pressure = pressure.get_or_insert(Pressure { systolic: nothing, diastolic: nothing, mean: nothing });
    match part {
        Part::Systolic => pressure.systolic = value,
        Part::Diastolic => pressure.diastolic = value,
        Part::Mean => pressure.mean = value,
    }
}

#[inline(never)]
fn test_holds(test: &Test, input: &Input<'_>) -> bool {
    match test {
        Test::Byte(predicate) => match input {
            Input::Bytes(bytes) => predicate.holds(bytes),
            Input::Line { .. } => false,
        },
        Test::Number { source, mask, value } => match extract(source, input) {
            Raw::Integer { bits, .. } => bits & i64::from(*mask) == i64::from(*value),
            Raw::Decimal(_) | Raw::Absent(_) | Raw::Missing => false,
        },
        Test::Word { group, word } => {
            input.group(*group).is_some_and(|text| text.split_ascii_whitespace().any(|found| found == word))
        }
        Test::Present { group } => input.group(*group).is_some_and(|text| !text.trim().is_empty()),
    }
}

/// Sentinel, sign, scale, offset, range.
fn convert(field: &Field, raw: Raw) -> Value {
    let number = match raw {
        Raw::Integer { bits, signed } => {
            if field.invalid.iter().any(|sentinel| *sentinel == bits || *sentinel == signed) {
                return Value::Absent(Absent::NotANumber);
            }
            Decimal::new(signed, 0)
        }
        Raw::Decimal(number) => {
            let is_sentinel =
                |sentinel: &i64| Decimal::new(*sentinel, 0).is_some_and(|sentinel| number.compare(sentinel).is_eq());
            if field.invalid.iter().any(is_sentinel) {
                return Value::Absent(Absent::NotANumber);
            }
            Some(number)
        }
        Raw::Absent(reason) => return Value::Absent(reason),
        Raw::Missing => return Value::Absent(Absent::NotMeasured),
    };
    let scaled = number.and_then(|number| field.scale.map_or(Some(number), |scale| times(number, scale)));
    let shifted = scaled.and_then(|number| field.offset.map_or(Some(number), |offset| plus(number, offset)));
    let Some(number) = shifted else {
        return Value::Absent(Absent::OutOfRange);
    };
    if let Some((low, high)) = field.range
        && !number.is_zero()
        && (number.compare(low).is_lt() || number.compare(high).is_gt())
    {
        return Value::Absent(Absent::OutOfRange);
    }
    if number.is_zero() && field.zero_is_measured {
        Value::Valid(number)
    } else {
        Value::reported(field.metric, number)
    }
}
