//! Decides how a profile says what is wanted: which flags are set, which states are named, what each field carries.

use super::{EncodeError, Misfit, Moment, Say, Wanted, bytes};
use crate::profile::Profile;
use crate::profile::model::{Field, Flag, Message, Only, Source, State, StateValue};
use crate::vitals::{Absent, Decimal, Status};

/// What is written for one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// Whatever the pattern has there.
    Keep,
    /// This value, after scale and offset.
    Value(Decimal),
    /// The special value of an IEEE 11073 float.
    Special(Absent),
    /// This raw number.
    Raw(i64),
    /// A text without digits.
    Dashes,
}

/// What a device says until something else is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    flags: Vec<bool>,
    /// The number of each state; `None`: the pattern's.
    states: Vec<Option<i64>>,
    /// Message by message, field by field.
    puts: Vec<Vec<Put>>,
    serial_number: Option<String>,
}

impl Said {
    pub(super) fn has_flag(&self, flag: &Flag, moment: Moment<'_>) -> bool {
        let happens = flag.event.as_ref().is_some_and(|event| moment.has(event));
        happens || self.flags.get(flag.index).copied().unwrap_or(false)
    }

    pub(super) fn state(&self, state: &State) -> Option<i64> {
        self.states.get(state.index).copied().flatten()
    }

    pub(super) fn put(&self, message: usize, field: usize) -> Put {
        self.puts.get(message).and_then(|puts| puts.get(field)).copied().unwrap_or(Put::Keep)
    }

    pub(super) fn serial_number(&self) -> Option<&str> {
        self.serial_number.as_deref()
    }
}

/// Why a field has no value, as far as it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Withheld {
    Because(Absent),
    Quietly,
}

struct Decision<'p> {
    flags: Vec<bool>,
    /// The number of the value that each state has, in [`State::values`].
    values: Vec<Option<usize>>,
    states: Vec<&'p State>,
}

/// Decides for all messages at once: a flag of one message may withhold a field of another.
pub(super) fn decide(profile: &Profile, wanted: &Wanted) -> Result<Said, EncodeError> {
    let mut states: Vec<&State> = profile.messages().iter().flat_map(|message| &message.states).collect();
    states.sort_by_key(|state| state.index);
    let mut decision =
        Decision { flags: vec![false; profile.flag_maps().len()], values: vec![None; states.len()], states };
    for status in &wanted.statuses {
        decision
            .set_status(profile, *status)
            .map_err(|misfit| misfit.error(profile, format!("the status {status}")))?;
    }
    let has_serial_number = profile.messages().iter().any(|message| message.serial_number.is_some());
    if let (Some(number), false) = (&wanted.serial_number, has_serial_number) {
        let misfit = Misfit::new("its protocol has none");
        return Err(misfit.error(profile, format!("the serial number {number}")));
    }
    let mut puts = Vec::with_capacity(profile.messages().len());
    for message in profile.messages() {
        let mut of_message = Vec::with_capacity(message.fields.len());
        for field in &message.fields {
            let say = said_of(wanted, message, field);
            let put = decision.put(field, say);
            of_message.push(put.map_err(|misfit| misfit.error(profile, format!("{} without a value", field.metric)))?);
        }
        puts.push(of_message);
    }
    decision.settle(profile);
    let states = decision.numbers();
    Ok(Said { flags: decision.flags, states, puts, serial_number: wanted.serial_number.clone() })
}

fn said_of(wanted: &Wanted, message: &Message, field: &Field) -> Say {
    let vitals = if message.spot { &wanted.measured } else { &wanted.vitals };
    vitals.get(&(field.metric, field.part)).copied().unwrap_or(Say::Nothing)
}

const fn is_text(source: &Source) -> bool {
    matches!(source, Source::Key { .. } | Source::Group { .. })
}

/// Why there is no value while a state has this one.
fn reason_of(value: &StateValue) -> Withheld {
    if value.quiet {
        return Withheld::Quietly;
    }
    Withheld::Because(value.reason.or(value.maps.map(Absent::from)).unwrap_or(Absent::NotMeasured))
}

/// True if 0 is read as "no value" and can be told from other reasons.
fn zero_is_nothing(field: &Field) -> bool {
    !field.zero_is_measured && field.offset.is_none_or(Decimal::is_zero) && !field.invalid.contains(&0)
}

/// What is sent for a field that is withheld anyway.
fn filler(field: &Field) -> Put {
    match field.invalid.first() {
        Some(sentinel) if !is_text(&field.source) => Put::Raw(*sentinel),
        _ => Put::Keep,
    }
}

/// How the field's own bytes or text say a reason.
fn own_way(field: &Field, reason: Absent) -> Option<Put> {
    if bytes::has_special(&field.source, reason) {
        return Some(Put::Special(reason));
    }
    match reason {
        Absent::NotANumber if is_text(&field.source) => Some(Put::Dashes),
        Absent::NotANumber => field.invalid.first().map(|sentinel| Put::Raw(*sentinel)),
        Absent::ZeroReported => zero_is_nothing(field).then_some(Put::Raw(0)),
        _ => None,
    }
}

impl Decision<'_> {
    fn set_status(&mut self, profile: &Profile, status: Status) -> Result<(), Misfit> {
        let mut flags = profile.messages().iter().flat_map(|message| &message.flags);
        if let Some(flag) = flags.find(|flag| flag.maps == Some(status)) {
            self.raise(flag.index);
            return Ok(());
        }
        for place in 0..self.states.len() {
            let Some(state) = self.states.get(place) else { continue };
            let Some(value) = state.values.iter().position(|value| value.maps == Some(status)) else { continue };
            if self.demand(place, value) {
                return Ok(());
            }
        }
        Err(Misfit::new("it has no flag and no state for it, or another one is wanted there"))
    }

    fn raise(&mut self, flag: usize) {
        if let Some(slot) = self.flags.get_mut(flag) {
            *slot = true;
        }
    }

    /// Gives a state a value; false if it has another one already.
    fn demand(&mut self, state: usize, value: usize) -> bool {
        match self.values.get_mut(state) {
            Some(slot) if slot.is_none_or(|before| before == value) => {
                *slot = Some(value);
                true
            }
            _ => false,
        }
    }

    fn withheld(&self, field: &Field) -> Option<Withheld> {
        let is_raised = |flag: usize| self.flags.get(flag).copied().unwrap_or(false);
        if let Some(gate) = field.unless.iter().find(|gate| is_raised(gate.flag)) {
            return Some(Withheld::Because(gate.reason));
        }
        let failed = field.only.iter().filter_map(|gate| {
            let value = self.values.get(gate.state).copied().flatten()?;
            let state = self.states.get(gate.state)?;
            (!gate.allowed.contains(&value)).then(|| state.values.get(value).map(reason_of)).flatten()
        });
        let failed: Vec<Withheld> = failed.collect();
        failed.iter().find(|failed| **failed == Withheld::Quietly).or_else(|| failed.first()).copied()
    }

    fn put(&mut self, field: &Field, say: Say) -> Result<Put, Misfit> {
        match say {
            Say::Value(value) => Ok(Put::Value(value)),
            Say::Absent(reason) => self.absent(field, reason),
            Say::Nothing => self.nothing(field),
            Say::Measuring => {
                let measuring = |value: &StateValue| value.quiet && value.name == "measuring";
                if self.withheld(field).is_some() || self.name_state(field, measuring) || self.be_quiet(field) {
                    return Ok(filler(field));
                }
                self.nothing(field)
            }
        }
    }

    fn absent(&mut self, field: &Field, reason: Absent) -> Result<Put, Misfit> {
        match self.withheld(field) {
            Some(Withheld::Because(found)) if found == reason => return Ok(filler(field)),
            Some(Withheld::Because(found)) => {
                return Err(Misfit(format!("it is withheld as {found}, so that {reason} does not show")));
            }
            Some(Withheld::Quietly) => return Err(Misfit::new("it is not mentioned in the state that is wanted")),
            None => {}
        }
        if let Some(put) = own_way(field, reason) {
            return Ok(put);
        }
        if let Some(gate) = field.unless.iter().find(|gate| gate.reason == reason) {
            self.raise(gate.flag);
            return Ok(filler(field));
        }
        if self.name_state(field, |value| reason_of(value) == Withheld::Because(reason)) {
            return Ok(filler(field));
        }
        Err(Misfit(format!("it has no way to say {reason}")))
    }

    fn nothing(&mut self, field: &Field) -> Result<Put, Misfit> {
        if self.withheld(field).is_some() {
            return Ok(filler(field));
        }
        if let Some(put) = own_way(field, Absent::NotANumber) {
            return Ok(put);
        }
        if self.be_quiet(field) {
            return Ok(filler(field));
        }
        if let Some(put) = own_way(field, Absent::ZeroReported) {
            return Ok(put);
        }
        if self.name_state(field, |_| true) {
            return Ok(filler(field));
        }
        let gate = field.unless.first().ok_or_else(|| Misfit::new("it has no way to say that there is no value"))?;
        self.raise(gate.flag);
        Ok(filler(field))
    }

    /// A state in which the field is not mentioned: the last of the profile's, which is the idle one where there are
    /// several ("measuring", "ready").
    fn be_quiet(&mut self, field: &Field) -> bool {
        field.only.iter().any(|gate| {
            let values = self.states.get(gate.state).map_or(&[][..], |state| state.values.as_slice());
            let quiet = values.iter().enumerate().rev().find(|(_, value)| value.quiet);
            quiet.is_some_and(|(value, _)| self.demand(gate.state, value))
        })
    }

    /// Gives a state of the field's gates a value that withholds it.
    fn name_state(&mut self, field: &Field, fits: impl Fn(&StateValue) -> bool) -> bool {
        let withholding = |gate: &Only, states: &[&State]| {
            let values = states.get(gate.state).map_or(&[][..], |state| state.values.as_slice());
            values.iter().enumerate().position(|(index, value)| !gate.allowed.contains(&index) && fits(value))
        };
        field
            .only
            .iter()
            .any(|gate| withholding(gate, &self.states).is_some_and(|value| self.demand(gate.state, value)))
    }

    /// States that nothing demands have a value that withholds nothing.
    fn settle(&mut self, profile: &Profile) {
        for place in 0..self.states.len() {
            let mut gates = profile.messages().iter().flat_map(|message| &message.fields).flat_map(|field| &field.only);
            let allowed = gates.find(|gate| gate.state == place).and_then(|gate| gate.allowed.first().copied());
            let calm = || self.states.get(place)?.values.iter().position(|value| value.maps.is_none());
            if let Some(value) = allowed.or_else(calm) {
                self.demand(place, value);
            }
        }
    }

    fn numbers(&self) -> Vec<Option<i64>> {
        let number = |(state, value): (&&State, &Option<usize>)| {
            let listed = |number: i64| state.values.iter().any(|value| value.number == Some(number));
            // "Any other" is the lowest number that has no name.
            let any_other = || (0..=i64::from(u8::MAX)).find(|number| !listed(*number));
            state.values.get((*value)?)?.number.or_else(any_other)
        };
        self.states.iter().zip(&self.values).map(number).collect()
    }
}
