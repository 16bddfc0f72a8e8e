//! The scenario file: what happens at an emulated device, and when. Checked against the profile, all problems at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::faults::{Rate, Spread};
use super::patient::Vitals;
use crate::document::{self, Problems};
use crate::encode::{Cadence, EncodeError, Encoder, Moment, Say, Wanted};
use crate::profile::model::{Happening, Part};
use crate::profile::{Profile, nearest, parse_duration};
use crate::vitals::{Absent, Decimal, Metric, Status};

/// Largest scenario file that is read, in bytes.
pub const MAX_SCENARIO_BYTES: usize = 256 * 1024;
/// Most steps of a scenario.
const MAX_STEPS: usize = 1000;
/// Most bytes of garbage at a time: more than any frame has.
const MAX_GARBAGE: usize = 16 * 1024;
/// The word for "as the model has it".
const CALM: &str = "calm";
/// The word for "no value, however this device says that".
const NOTHING: &str = "nothing";

/// What happens, in the order of its time. The default is nothing: a calm patient for ever.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scenario {
    /// Of the patient and of the faults, unless the command line has one.
    pub seed: Option<u64>,
    /// After this time everything begins anew.
    pub repeat: Option<Duration>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Something that happens at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Since the beginning.
    pub at: Duration,
    /// Vitals from now on.
    pub set: BTreeMap<(Metric, Option<Part>), Order>,
    /// All statuses from now on.
    pub status: Option<BTreeSet<Status>>,
    /// The serial number from now on.
    pub serial_number: Option<String>,
    /// An event of the profile.
    pub event: Option<String>,
    /// Somebody presses the button of the cuff.
    pub measure: bool,
    /// Faults that go on until they are ended.
    pub faults: FaultOrders,
    /// So many bytes that mean nothing.
    pub garbage: Option<usize>,
    /// Half of the next frame, then the line is lost for so long.
    pub half_frame_then_hangup: Option<Duration>,
    /// Nothing is sent for so long.
    pub pause: Option<Duration>,
    /// Half of the next frame is sent, and then nothing for so long.
    pub half_frame_then_pause: Option<Duration>,
}

/// What is ordered for one vital.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the model of the patient has it.
    Calm,
    /// This.
    Say(Say),
}

/// Faults that begin or end with a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FaultOrders {
    /// All running faults end first.
    pub end: bool,
    /// The end of each write comes later.
    pub split_writes: bool,
    /// Bytes are left out.
    pub drop_bytes: Option<Spread>,
    /// Bits are changed.
    pub flip_bits: Option<Spread>,
    /// Frames are sent twice.
    pub duplicate: Option<Spread>,
}

/// What the steps so far have ordered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Orders {
    set: Vitals,
    pub(super) statuses: BTreeSet<Status>,
    pub(super) serial_number: Option<String>,
}

impl Orders {
    pub(super) fn apply(&mut self, step: &Step) {
        for (key, order) in &step.set {
            match order {
                Order::Say(say) => self.set.insert(*key, *say),
                Order::Calm => self.set.remove(key),
            };
        }
        if let Some(status) = &step.status {
            self.statuses.clone_from(status);
        }
        if step.serial_number.is_some() {
            self.serial_number.clone_from(&step.serial_number);
        }
    }

    /// What the device says with these vitals at the patient.
    pub(super) fn wanted(&self, mut vitals: Vitals, mut measured: Vitals) -> Wanted {
        vitals.extend(&self.set);
        measured.extend(&self.set);
        let (statuses, serial_number) = (self.statuses.clone(), self.serial_number.clone());
        Wanted { vitals, measured, statuses, serial_number }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioDoc {
    seed: Option<u64>,
    repeat: Option<Spanned<String>>,
    #[serde(default)]
    step: Vec<Spanned<StepDoc>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepDoc {
    at: Option<Spanned<String>>,
    #[serde(default)]
    set: BTreeMap<String, Spanned<SetDoc>>,
    status: Option<Spanned<Vec<String>>>,
    serial_number: Option<String>,
    event: Option<Spanned<String>>,
    #[serde(default)]
    measure: bool,
    #[serde(default)]
    end_faults: bool,
    #[serde(default)]
    split_writes: bool,
    drop_bytes: Option<Spanned<SpreadDoc>>,
    flip_bits: Option<Spanned<SpreadDoc>>,
    duplicate: Option<Spanned<SpreadDoc>>,
    garbage: Option<Spanned<usize>>,
    half_frame_then_hangup: Option<Spanned<String>>,
    pause: Option<Spanned<String>>,
    half_frame_then_pause: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SetDoc {
    Number(Decimal),
    Word(String),
    Parts(PartsDoc),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartsDoc {
    systolic: Option<Decimal>,
    diastolic: Option<Decimal>,
    mean: Option<Decimal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpreadDoc {
    every: Option<u64>,
    probability: Option<f64>,
    times: Option<u64>,
}

impl Scenario {
    /// Reads and checks a scenario for a profile.
    ///
    /// # Errors
    /// All problems of the text, each with its line: also what the profile has no way to send.
    pub fn parse(text: &str, encoder: &Encoder) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        if text.len() > MAX_SCENARIO_BYTES {
            problems.add_at_line(0, format!("the scenario has {} bytes, at most {MAX_SCENARIO_BYTES}", text.len()));
            return Err(problems);
        }
        let Some(doc) = document::read::<ScenarioDoc>(text, &mut problems) else {
            return Err(problems);
        };
        let mut reader = Reader { text, profile: encoder.profile(), problems };
        let scenario = reader.scenario(&doc, encoder);
        if reader.problems.is_empty() { Ok(scenario) } else { Err(reader.problems) }
    }
}

struct Reader<'r> {
    text: &'r str,
    profile: &'r Profile,
    problems: Problems,
}

impl Reader<'_> {
    fn problem(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.add(self.text, span, message);
    }

    fn duration(&mut self, text: &Spanned<String>) -> Option<Duration> {
        let found = parse_duration(text.get_ref());
        if found.is_none() {
            self.problem(&text.span(), format!("`{}` is not a time such as 500ms, 10s or 1min", text.get_ref()));
        }
        found
    }

    fn scenario(&mut self, doc: &ScenarioDoc, encoder: &Encoder) -> Scenario {
        let repeat = doc.repeat.as_ref().and_then(|text| self.duration(text));
        let mut steps: Vec<Step> = Vec::new();
        let mut orders = Orders::default();
        if doc.step.len() > MAX_STEPS {
            self.problems.add_at_line(0, format!("a scenario has at most {MAX_STEPS} steps"));
        }
        for spanned in doc.step.iter().take(MAX_STEPS) {
            let step = self.step(spanned.get_ref());
            let before = steps.last().map_or(Duration::ZERO, |before| before.at);
            if step.at < before {
                self.problem(&spanned.span(), "a step comes before the one above it: put them in the order of `at`");
            }
            if repeat.is_some_and(|repeat| step.at >= repeat) {
                self.problem(&spanned.span(), "a step at or after the time of `repeat` never happens");
            }
            orders.apply(&step);
            // What the values above have broken is said once.
            if self.problems.is_empty()
                && let Err(error) = rehearse(encoder, &orders)
            {
                self.problem(&spanned.span(), error.to_string());
            }
            steps.push(step);
        }
        Scenario { seed: doc.seed, repeat, steps }
    }

    fn step(&mut self, doc: &StepDoc) -> Step {
        let at = match &doc.at {
            Some(text) if text.get_ref() == "0s" => None,
            Some(text) => self.duration(text),
            None => None,
        };
        let mut set = BTreeMap::new();
        for (name, value) in &doc.set {
            self.set(name, value, &mut set);
        }
        let status = doc.status.as_ref().map(|names| {
            let mut found = BTreeSet::new();
            for name in names.get_ref() {
                if let Some(status) = Status::from_name(name) {
                    found.insert(status);
                } else {
                    let known = nearest(name, Status::ALL.iter().map(|status| status.name()));
                    let message = format!("`{name}` is not a status; the nearest is `{known}`");
                    self.problem(&names.span(), message);
                }
            }
            found
        });
        if let Some(event) = &doc.event {
            self.check_event(event);
        }
        if let Some(count) = doc.garbage.as_ref().filter(|count| !(1..=MAX_GARBAGE).contains(count.get_ref())) {
            self.problem(&count.span(), format!("`garbage` is a number of bytes from 1 to {MAX_GARBAGE}"));
        }
        Step {
            at: at.unwrap_or_default(),
            set,
            status,
            serial_number: doc.serial_number.clone(),
            event: doc.event.as_ref().map(|event| event.get_ref().clone()),
            measure: doc.measure,
            faults: FaultOrders {
                end: doc.end_faults,
                split_writes: doc.split_writes,
                drop_bytes: doc.drop_bytes.as_ref().and_then(|spread| self.spread(spread)),
                flip_bits: doc.flip_bits.as_ref().and_then(|spread| self.spread(spread)),
                duplicate: doc.duplicate.as_ref().and_then(|spread| self.spread(spread)),
            },
            garbage: doc.garbage.as_ref().map(|count| *count.get_ref()),
            half_frame_then_hangup: doc.half_frame_then_hangup.as_ref().and_then(|text| self.duration(text)),
            pause: doc.pause.as_ref().and_then(|text| self.duration(text)),
            half_frame_then_pause: doc.half_frame_then_pause.as_ref().and_then(|text| self.duration(text)),
        }
    }

    fn spread(&mut self, doc: &Spanned<SpreadDoc>) -> Option<Spread> {
        let SpreadDoc { every, probability, times } = *doc.get_ref();
        let rate = match (every, probability) {
            (Some(every), None) if every > 0 => Rate::Every(every),
            (None, Some(probability)) if (0.0..=1.0).contains(&probability) => Rate::Probability(probability),
            _ => {
                self.problem(&doc.span(), "a fault has either `every` = 1 or more, or `probability` from 0 to 1");
                return None;
            }
        };
        Some(Spread { rate, times })
    }

    fn set(&mut self, name: &str, value: &Spanned<SetDoc>, out: &mut BTreeMap<(Metric, Option<Part>), Order>) {
        let fields = || self.profile.messages().iter().flat_map(|message| &message.fields);
        let keys: BTreeSet<(Metric, Option<Part>)> =
            fields().filter(|field| field.metric.name() == name).map(|field| (field.metric, field.part)).collect();
        if keys.is_empty() {
            let known: BTreeSet<&str> = fields().map(|field| field.metric.name()).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("profile {} has no `{name}`; it has {known}", self.profile.id());
            self.problem(&value.span(), message);
            return;
        }
        for key in keys {
            let order = match (value.get_ref(), key.1) {
                (SetDoc::Number(number), None) => Some(Order::Say(Say::Value(*number))),
                (SetDoc::Word(word), _) => self.word(word, &value.span()),
                (SetDoc::Parts(parts), Some(part)) => {
                    let number = match part {
                        Part::Systolic => parts.systolic,
                        Part::Diastolic => parts.diastolic,
                        Part::Mean => parts.mean,
                    };
                    number.map(|number| Order::Say(Say::Value(number)))
                }
                (SetDoc::Number(_), Some(_)) => {
                    self.problem(&value.span(), "a pressure is { systolic = .., diastolic = .., mean = .. }");
                    None
                }
                (SetDoc::Parts(_), None) => {
                    self.problem(&value.span(), format!("{name} is one number"));
                    None
                }
            };
            if let Some(order) = order {
                out.insert(key, order);
            }
        }
    }

    fn word(&mut self, word: &str, span: &Range<usize>) -> Option<Order> {
        match (word, Absent::from_name(word)) {
            (CALM, _) => Some(Order::Calm),
            (NOTHING, _) => Some(Order::Say(Say::Nothing)),
            (_, Some(reason)) => Some(Order::Say(Say::Absent(reason))),
            (_, None) => {
                let reasons = Absent::ALL.iter().map(|reason| reason.name());
                let known = nearest(word, reasons.chain([CALM, NOTHING]));
                let message =
                    format!("`{word}` is not a number, a reason, `{CALM}` or `{NOTHING}`; the nearest is `{known}`");
                self.problem(span, message);
                None
            }
        }
    }

    fn check_event(&mut self, event: &Spanned<String>) {
        let messages = self.profile.messages().iter();
        let happenings = messages.flat_map(|message| {
            message.flags.iter().filter_map(|flag| flag.event.as_ref()).chain(message.event.as_ref())
        });
        let names: Vec<&str> = happenings
            .filter_map(|happening| match happening {
                Happening::Named(name) => Some(&**name),
                Happening::Beat => None,
            })
            .collect();
        if !names.contains(&event.get_ref().as_str()) {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("profile {} has no event `{}`; it has {known}", self.profile.id(), event.get_ref());
            self.problem(&event.span(), message);
        }
    }
}

/// Encodes everything once with what is ordered: what cannot be sent is found before anything starts.
pub(super) fn rehearse(encoder: &Encoder, orders: &Orders) -> Result<(), EncodeError> {
    let mut encoder = Encoder::new(std::sync::Arc::clone(encoder.profile()))?;
    let patient = super::patient::Patient::new(0, crate::clock::Mono(0));
    let vitals = patient.vitals(encoder.profile());
    let said = encoder.say(&orders.wanted(vitals.clone(), vitals))?;
    let ranges: Vec<i32> = (0..encoder.profile().waves().len()).map(|wave| encoder.sample_range(wave).0).collect();
    let mut sample = |wave: usize| ranges.get(wave).copied().unwrap_or(0);
    for unit in 0..encoder.units().len() {
        let cadence = encoder.units().get(unit).map(|unit| unit.cadence().clone());
        let event = match &cadence {
            Some(Cadence::OnEvent(name)) => Some(&**name),
            _ => None,
        };
        encoder.encode(unit, &said, Moment { beat: false, event }, &mut sample, &mut Vec::new())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::built_in;

    fn encoder(id: &str) -> Encoder {
        Encoder::new(built_in(id).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            seed = 9
            repeat = "1min"
            [[step]]
            set = { spo2 = 85, temperature = "calm", blood_pressure = { systolic = 180, diastolic = 110, mean = 133 } }
            [[step]]
            at = "10s"
            status = ["searching"]
            event = "pulse"
            measure = true
            [[step]]
            at = "20s"
            split_writes = true
            drop_bytes = { every = 400 }
            flip_bits = { probability = 0.01, times = 10 }
            duplicate = { every = 3 }
            garbage = 50
            half_frame_then_hangup = "2s"
            pause = "10s"
            [[step]]
            at = "30s"
            end_faults = true
        "#;
        let scenario = Scenario::parse(text, &encoder("berry-pm6750")).unwrap();
        assert_eq!((scenario.seed, scenario.repeat), (Some(9), Some(Duration::from_mins(1))));
        let [first, second, third, fourth] = &scenario.steps[..] else { panic!("{scenario:?}") };
        assert_eq!((first.at, first.set.len()), (Duration::ZERO, 5));
        assert_eq!(first.set[&(Metric::Spo2, None)], Order::Say(Say::Value(Decimal::integer(85))));
        assert_eq!(first.set[&(Metric::Temperature, None)], Order::Calm);
        assert_eq!(second.status, Some([Status::Searching].into()));
        assert!(second.measure && second.event.as_deref() == Some("pulse"));
        assert_eq!(third.faults.flip_bits, Some(Spread { rate: Rate::Probability(0.01), times: Some(10) }));
        assert_eq!((third.garbage, third.pause), (Some(50), Some(Duration::from_secs(10))));
        assert!(fourth.faults.end);
    }

    #[test]
    fn all_problems_are_reported_with_their_lines() {
        let text = "repeat = \"5s\"\n[[step]]\nat = \"soon\"\nset = { glucose = 5, spo2 = \"sensor_of\" }\n\
            [[step]]\nat = \"9s\"\nflip_bits = { every = 0 }\nstatus = [\"asleep\"]\n[[step]]\nat = \"3s\"\n\
            colour = 1\nevent = \"tea\"\ngarbage = 0\n";
        let problems = Scenario::parse(text, &encoder("nonin-df2")).unwrap_err();
        let lines: Vec<usize> = problems.as_slice().iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [3, 4, 4, 5, 7, 8, 9, 11, 12, 13], "{problems}");
    }

    #[test]
    fn what_the_profile_cannot_send_is_a_problem_of_its_step() {
        let text = "[[step]]\nset = { spo2 = 97 }\n[[step]]\nat = \"1s\"\nset = { spo2 = 101 }\n";
        let problems = Scenario::parse(text, &encoder("nonin-ascii")).unwrap_err().to_string();
        assert_eq!(problems, "line 3: profile nonin-ascii cannot send line: spo2: 101 is outside 1 to 100");
        let problems = Scenario::parse("[[step]]\nserial_number = 'x'\n", &encoder("nonin-df2")).unwrap_err();
        assert!(problems.to_string().contains("its protocol has none"), "{problems}");
    }
}
