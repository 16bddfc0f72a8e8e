//! From wanted values to a device's bytes, by the same profile that decodes them: the inverse of `decode`.
//!
//! A profile says where the values are, not what stands between them. That comes from its embedded tests: the first
//! good frame, superframe or line of each kind is the pattern into which values, flags, samples and sums are written.
//! What a profile cannot send is an error that says why; nothing is left out silently.

mod amount;
mod bytes;
mod choice;
mod frame;
mod line;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::profile::Profile;
use crate::profile::model::{Happening, Message, NumberKind, On, Part, Rule};
use crate::vitals::{Absent, Decimal, Metric, Status};

pub use choice::Said;
pub use unit::{Cadence, Unit};

use unit::Pattern;

/// What a device says about one vital.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// This number, rounded to what the device can show.
    Value(Decimal),
    /// No number, for exactly this reason.
    Absent(Absent),
    /// No number, in whichever way the profile has for it.
    Nothing,
    /// A measurement is going on.
    Measuring,
}

/// What a device is to say. A vital that is not mentioned is [`Say::Nothing`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Vitals; a pressure by its parts.
    pub vitals: BTreeMap<(Metric, Option<Part>), Say>,
    /// The same for messages that repeat the last spot measurement.
    pub measured: BTreeMap<(Metric, Option<Part>), Say>,
    /// What the device says about itself. A vital that has a value is still sent, as real devices do, and withheld by
    /// whoever decodes it.
    pub statuses: BTreeSet<Status>,
    /// The device's serial number; `None`: that of the embedded test.
    pub serial_number: Option<String>,
}

/// What happens at the moment of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment<'m> {
    /// The heart beats.
    pub beat: bool,
    /// Another event of the profile.
    pub event: Option<&'m str>,
}

impl Moment<'_> {
    fn has(&self, happening: &Happening) -> bool {
        match happening {
            Happening::Beat => self.beat,
            Happening::Named(name) => self.event == Some(&**name),
        }
    }
}

/// Why something cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile {profile} cannot send {what}: {reason}")]
pub struct EncodeError {
    /// The profile.
    pub profile: String,
    /// What was to be sent.
    pub what: String,
    /// Why it cannot.
    pub reason: String,
}

/// Something does not fit into the bytes or the text of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Misfit(String);

impl Misfit {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    fn error(self, profile: &Profile, what: impl Into<String>) -> EncodeError {
        EncodeError { profile: profile.id().to_owned(), what: what.into(), reason: self.0 }
    }
}

/// Makes the bytes that a device of one profile sends.
#[derive(Debug)]
pub struct Encoder {
    profile: Arc<Profile>,
    units: Vec<Unit>,
    /// The superframe that is being sent: its next frame, and its slots.
    place: usize,
    slots: Vec<u8>,
}

impl Encoder {
    /// An encoder before its first frame.
    ///
    /// # Errors
    /// A message of the profile is in none of its tests, so that nothing shows how it looks; or a driver reads it, which
    /// holds a conversation that no profile describes.
    pub fn new(profile: Arc<Profile>) -> Result<Self, EncodeError> {
        if let Some(driver) = profile.driver() {
            let reason =
                format!("the driver `{}` reads it, and only what a profile describes can be sent", driver.kind);
            return Err(Misfit::new(reason).error(&profile, "anything"));
        }
        let units = unit::units(&profile)?;
        Ok(Self { profile, units, place: 0, slots: Vec::new() })
    }

    /// The profile it follows.
    pub const fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// What is sent, each by itself and at its own pace.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Decides how the profile says what is wanted; once for all frames until something else is wanted.
    ///
    /// # Errors
    /// The profile has no way to say it.
    pub fn say(&self, wanted: &Wanted) -> Result<Said, EncodeError> {
        choice::decide(&self.profile, wanted)
    }

    /// Adds the next frame or line of a unit to `out`, as it goes over the line; of a superframe the next of its
    /// frames. `sample` gives the next sample of a wave, by its number in [`Profile::waves`].
    ///
    /// # Errors
    /// Something does not fit into the frame; `out` is as before.
    pub fn encode(
        &mut self,
        unit: usize,
        said: &Said,
        moment: Moment<'_>,
        sample: &mut dyn FnMut(usize) -> i32,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let profile = Arc::clone(&self.profile);
        let Some(unit) = self.units.get(unit) else {
            return Err(Misfit::new("the profile has no such unit").error(&profile, format!("unit {unit}")));
        };
        let made = match unit.pattern() {
            Pattern::Lines { message, patterns } => {
                let made = line::encode(&profile, *message, patterns, said, moment);
                made.map(|text| frame::end_line(&profile, text))
            }
            Pattern::Frame(pattern) => frame_content(&profile, unit, pattern, said, moment, sample, None)
                .and_then(|content| frame::finish(&profile, unit.messages(), content)),
            Pattern::Superframe(patterns) => {
                if self.place == 0 {
                    let slots = superframe_slots(&profile, patterns, said, moment);
                    self.slots = slots.map_err(|misfit| misfit.error(&profile, unit.id()))?;
                }
                let slot = self.slots.get(self.place).copied();
                let made = match patterns.get(self.place) {
                    Some(pattern) => frame_content(&profile, unit, pattern, said, moment, sample, slot),
                    None => Err(Misfit::new("the superframe has no such frame")),
                };
                self.place = if self.place + 1 < patterns.len() { self.place + 1 } else { 0 };
                made.and_then(|content| frame::finish(&profile, unit.messages(), content))
            }
        };
        out.extend(made.map_err(|misfit| misfit.error(&profile, unit.id()))?);
        Ok(())
    }

    /// True if a unit's messages can tell this event.
    pub fn tells(&self, unit: usize, event: &str) -> bool {
        let moment = Moment { beat: false, event: Some(event) };
        let messages = self.units.get(unit).map_or(&[][..], Unit::messages);
        messages.iter().filter_map(|index| self.profile.messages().get(*index)).any(|message| {
            let flags = message.flags.iter().filter_map(|flag| flag.event.as_ref());
            flags.chain(&message.event).any(|happening| moment.has(happening))
        })
    }

    /// The link was opened again: a superframe begins with its first frame.
    pub const fn restart(&mut self) {
        self.place = 0;
    }

    /// Lowest and highest sample that a wave's frames can carry.
    pub fn sample_range(&self, wave: usize) -> (i32, i32) {
        let found = self
            .profile
            .messages()
            .iter()
            .flat_map(|message| &message.waves)
            .find(|found| found.names.iter().any(|(_, index)| *index == wave));
        let Some(wave) = found else {
            return (0, 0);
        };
        let (low, high) = match wave.kind {
            NumberKind::I8 => (-128, 127),
            NumberKind::I16le | NumberKind::I16be => (-0x8000, 0x7FFF),
            NumberKind::U16le | NumberKind::U16be => (0, 0xFFFF),
            NumberKind::U24le | NumberKind::U24be => (0, 0x00FF_FFFF),
            NumberKind::U32le | NumberKind::U32be => (0, i32::MAX),
            NumberKind::I32le | NumberKind::I32be => (i32::MIN, i32::MAX),
            _ => (0, 0xFF),
        };
        let mask = wave.mask.and_then(|mask| i32::try_from(mask).ok()).unwrap_or(i32::MAX);
        let high = high.min(mask).min(frame::free_bits(&self.profile, wave.at));
        // At the ends themselves the converter counts as saturated.
        wave.saturated.map_or((low, high), |(lowest, highest)| (low.max(lowest + 1), high.min(highest - 1)))
    }
}

/// The slots of a superframe with its messages written into them.
fn superframe_slots(
    profile: &Profile,
    patterns: &[Vec<u8>],
    said: &Said,
    moment: Moment<'_>,
) -> Result<Vec<u8>, Misfit> {
    let at = profile.superframe().map_or(0, |superframe| superframe.slot_at);
    let mut slots: Vec<u8> = patterns.iter().filter_map(|pattern| pattern.get(at).copied()).collect();
    for (index, message) in profile.messages().iter().enumerate() {
        if message.on == On::Superframe {
            write_message(index, message, said, moment, &mut slots)?;
        }
    }
    Ok(slots)
}

/// The content of one frame: what is between its marks, unescaped and unpacked, still without its sum.
fn frame_content(
    profile: &Profile,
    unit: &Unit,
    pattern: &[u8],
    said: &Said,
    moment: Moment<'_>,
    sample: &mut dyn FnMut(usize) -> i32,
    slot: Option<u8>,
) -> Result<Vec<u8>, Misfit> {
    let mut content = pattern.to_vec();
    for (index, message) in profile.messages().iter().enumerate() {
        if message.on != On::Frame || !unit.messages().contains(&index) {
            continue;
        }
        write_message(index, message, said, moment, &mut content)?;
        for wave in &message.waves {
            let width = wave.kind.width();
            for place in 0..wave.count * wave.names.len() {
                let Some((_, index)) = wave.names.get(place % wave.names.len()) else { continue };
                let at = wave.at + place * width;
                bytes::put_number(&mut content, at, wave.kind, width, wave.mask, i64::from(sample(*index)))?;
            }
        }
    }
    if let (Some(superframe), Some(slot)) = (profile.superframe(), slot)
        && let Some(byte) = content.get_mut(superframe.slot_at)
    {
        *byte = slot;
    }
    match &profile.framing().rule {
        Rule::Delimited(rule) => match &rule.lines {
            Some(lines) => line::encode_inner(profile, lines, &content, said, moment),
            None => Ok(content),
        },
        _ => Ok(content),
    }
}

/// Writes flags, states, texts and vitals of a message into bytes.
fn write_message(
    index: usize,
    message: &Message,
    said: &Said,
    moment: Moment<'_>,
    content: &mut [u8],
) -> Result<(), Misfit> {
    for flag in &message.flags {
        bytes::put_flag(content, &flag.test, said.has_flag(flag, moment))?;
    }
    if let Some(test) = &message.historic {
        bytes::put_flag(content, test, false)?;
    }
    for state in &message.states {
        if let Some(number) = said.state(state) {
            bytes::put_state(content, &state.source, number)
                .map_err(|misfit| Misfit(format!("{} {number}: {misfit}", state.name)))?;
        }
    }
    if let (Some(text), Some(number)) = (&message.serial_number, said.serial_number()) {
        bytes::put_text(content, &text.source, number)?;
    }
    for (place, field) in message.fields.iter().enumerate() {
        bytes::put_field(content, field, said.put(index, place))
            .map_err(|misfit| Misfit(format!("{}: {misfit}", field.metric)))?;
    }
    Ok(())
}
