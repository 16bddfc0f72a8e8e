//! What a device sends each by itself, with its pattern from the profile's embedded tests and its pace.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{EncodeError, Misfit};
use crate::decode::contents;
use crate::profile::Profile;
use crate::profile::model::{Happening, InnerLines, Message, On, Rule, TestCase};

/// How often a unit is sent, where there is no rate to go by.
const ONCE_A_SECOND: f64 = 1.0;

/// When a unit is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Cadence {
    /// So many times a second.
    Hz(f64),
    /// With each heart beat.
    OnBeat,
    /// When this happens.
    OnEvent(Arc<str>),
    /// Once when the device begins to send: it says who it is.
    AtStart,
}

/// How a unit looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// The content of a frame.
    Frame(Vec<u8>),
    /// The contents of all frames of a superframe.
    Superframe(Vec<Vec<u8>>),
    /// Lines of one message, those with the most groups first.
    Lines {
        /// The number of the message.
        message: usize,
        /// The lines.
        patterns: Vec<String>,
    },
}

/// One kind of frame, superframe or line that a device sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    id: String,
    messages: Vec<usize>,
    pattern: Pattern,
    cadence: Cadence,
}

impl Unit {
    /// The names of its messages.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it is sent.
    pub const fn cadence(&self) -> &Cadence {
        &self.cadence
    }

    pub(super) fn messages(&self) -> &[usize] {
        &self.messages
    }

    pub(super) const fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

/// The units of a profile; each message that says anything is in one of them.
pub(super) fn units(profile: &Profile) -> Result<Vec<Unit>, EncodeError> {
    let mut found = if profile.is_text() {
        line_units(profile)
    } else if profile.superframe().is_some() {
        superframe_unit(profile).into_iter().collect()
    } else {
        frame_units(profile)
    };
    found.retain(|(messages, _)| {
        messages.iter().filter_map(|index| profile.messages().get(*index)).any(|message| !is_silent(message))
    });
    for (index, message) in profile.messages().iter().enumerate() {
        let is_covered = found.iter().any(|(messages, _)| messages.contains(&index));
        if !is_covered && !is_silent(message) {
            let reason = "none of the profile's tests with values has one, so that nothing shows how it looks";
            return Err(Misfit::new(reason).error(profile, format!("the message `{}`", message.id)));
        }
    }
    Ok(with_cadence(profile, found))
}

/// True if a message only has to be recognised.
fn is_silent(message: &Message) -> bool {
    message.fields.is_empty()
        && message.waves.is_empty()
        && message.flags.is_empty()
        && message.states.is_empty()
        && message.event.is_none()
        && message.serial_number.is_none()
}

/// The contents of the frames of all tests without damage, those with values first.
fn patterns(profile: &Profile) -> Vec<Vec<u8>> {
    let of = |case: TestCase| profile.tests().iter().filter(move |test| test.case == case);
    let tests = of(TestCase::Valid).chain(of(TestCase::SensorOff));
    tests.flat_map(|test| contents(profile.framing(), &test.bytes)).collect()
}

/// The first message that knows a line.
pub(super) fn line_message(profile: &Profile, line: &str) -> Option<usize> {
    let knows = |message: &Message| message.pattern.as_ref().is_some_and(|pattern| pattern.is_match(line));
    profile.messages().iter().position(|message| message.on == On::Line && knows(message))
}

fn line_units(profile: &Profile) -> Vec<(Vec<usize>, Pattern)> {
    let mut found: Vec<(usize, Vec<String>)> = Vec::new();
    for content in patterns(profile) {
        let Ok(line) = String::from_utf8(content) else { continue };
        let Some(index) = line_message(profile, &line) else { continue };
        match found.iter_mut().find(|(known, _)| *known == index) {
            Some((_, lines)) => lines.push(line),
            None => found.push((index, vec![line])),
        }
    }
    let unit = |(message, mut patterns): (usize, Vec<String>)| {
        patterns.sort_by_key(|line| std::cmp::Reverse(group_count(profile, message, line)));
        (vec![message], Pattern::Lines { message, patterns })
    };
    found.into_iter().map(unit).collect()
}

/// How many groups of the message's pattern take part in a line.
fn group_count(profile: &Profile, message: usize, line: &str) -> usize {
    let pattern = profile.messages().get(message).and_then(|message| message.pattern.as_ref());
    let captures = pattern.and_then(|pattern| pattern.captures(line));
    captures.map_or(0, |captures| captures.iter().flatten().filter(|group| !group.is_empty()).count())
}

/// The messages that a frame carries.
fn frame_messages(profile: &Profile, content: &[u8]) -> Vec<usize> {
    let mut found: BTreeSet<usize> = BTreeSet::new();
    for (index, message) in profile.messages().iter().enumerate() {
        if message.on == On::Frame && message.when.iter().all(|predicate| predicate.holds(content)) {
            found.insert(index);
        }
    }
    if let Rule::Delimited(rule) = &profile.framing().rule
        && let Some(lines) = &rule.lines
    {
        found.extend(inner_lines(lines, content).into_iter().filter_map(|line| line_message(profile, line)));
    }
    found.into_iter().collect()
}

/// The lines of text inside a frame, without their ends.
pub(super) fn inner_lines<'c>(lines: &InnerLines, content: &'c [u8]) -> Vec<&'c str> {
    let end = content.len().saturating_sub(lines.until);
    let Some(text) = content.get(lines.from..end).and_then(|text| std::str::from_utf8(text).ok()) else {
        return Vec::new();
    };
    let mut found = vec![text];
    for end in lines.end.iter().filter_map(|end| std::str::from_utf8(end).ok()) {
        found = found.into_iter().flat_map(|part| part.split(end)).collect();
    }
    found
}

fn frame_units(profile: &Profile) -> Vec<(Vec<usize>, Pattern)> {
    let mut found: Vec<(Vec<usize>, Pattern)> = Vec::new();
    for content in patterns(profile) {
        let messages = frame_messages(profile, &content);
        if !found.iter().any(|(known, _)| *known == messages) {
            found.push((messages, Pattern::Frame(content)));
        }
    }
    // A frame whose messages another one has too, and more, is only a poorer pattern.
    let all: Vec<Vec<usize>> = found.iter().map(|(messages, _)| messages.clone()).collect();
    found.retain(|(messages, _)| {
        let is_poorer =
            |other: &Vec<usize>| other.len() > messages.len() && messages.iter().all(|index| other.contains(index));
        !all.iter().any(is_poorer)
    });
    found
}

fn superframe_unit(profile: &Profile) -> Option<(Vec<usize>, Pattern)> {
    let superframe = profile.superframe()?;
    let all = patterns(profile);
    let is_whole = |frames: &&[Vec<u8>]| {
        let mut firsts = frames.iter().map(|frame| superframe.first.holds(frame));
        firsts.next() == Some(true) && !firsts.any(|is_first| is_first)
    };
    let frames = all.windows(superframe.frames).find(is_whole)?;
    let mut messages = frame_messages(profile, frames.first()?);
    let slotted = profile.messages().iter().enumerate().filter(|(_, message)| message.on == On::Superframe);
    messages.extend(slotted.map(|(index, _)| index));
    Some((messages, Pattern::Superframe(frames.to_vec())))
}

fn with_cadence(profile: &Profile, found: Vec<(Vec<usize>, Pattern)>) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut without_rate = 0.0;
    let mut left = profile.nominal_hz();
    for (messages, pattern) in found {
        let own: Vec<&Message> = messages.iter().filter_map(|index| profile.messages().get(*index)).collect();
        let wave = own.iter().flat_map(|message| &message.waves).next();
        let has_data = own.iter().any(|message| !message.fields.is_empty() || !message.states.is_empty());
        let event = own.iter().find_map(|message| message.event.clone());
        let cadence = match (&pattern, wave, event) {
            (Pattern::Superframe(_), ..) => Some(Cadence::Hz(profile.nominal_hz())),
            (_, Some(wave), _) => {
                let samples = u32::try_from(wave.count).unwrap_or(u32::MAX);
                Some(Cadence::Hz(wave.hz / f64::from(samples)))
            }
            (_, None, Some(Happening::Beat)) if !has_data => Some(Cadence::OnBeat),
            (_, None, Some(Happening::Named(name))) if !has_data => Some(Cadence::OnEvent(name)),
            (_, None, None) if !has_data && own.iter().all(|message| message.serial_number.is_some()) => {
                Some(Cadence::AtStart)
            }
            _ => None,
        };
        match &cadence {
            Some(Cadence::Hz(hz)) => left -= hz,
            None => without_rate += 1.0,
            Some(_) => {}
        }
        let id = own.iter().map(|message| message.id.as_str()).collect::<Vec<_>>().join("+");
        // A rate of 0 stands for the share that is known below.
        units.push(Unit { id, messages, pattern, cadence: cadence.unwrap_or(Cadence::Hz(0.0)) });
    }
    // What the waves leave of the nominal rate is shared by the numbers.
    let share = if left > 0.0 && without_rate > 0.0 { left / without_rate } else { ONCE_A_SECOND };
    for unit in &mut units {
        if unit.cadence == Cadence::Hz(0.0) {
            unit.cadence = Cadence::Hz(share);
        }
    }
    units
}
