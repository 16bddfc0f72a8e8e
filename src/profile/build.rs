//! Checks a profile's meaning and makes the decoder's form of it; every problem is collected with its line.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::Profile;
use super::build_frame::{self, Extent};
use super::checksum::Checksum;
use super::driver;
use super::model::{Command, DEFAULT_SILENCE, Framing, LineSettings, Link, Repeat, Rule, Serial, StateValue, Step};
use super::schema::{ChecksumDoc, LinkDoc, ProfileDoc, RepeatDoc, SerialDoc, StepDoc};
use super::{build_ble, build_message, build_test, hex, unasked};
use crate::document::{Problems, line_of};
use crate::vitals::Status;

/// Longest id of a profile, in bytes.
const MAX_PROFILE_ID: usize = 64;

/// Most bytes that are sent at once: the longest value of a GATT characteristic.
const MAX_SEND: usize = 512;

/// How long an answer may take where a step does not say.
const DEFAULT_WITHIN: Duration = Duration::from_secs(2);

/// What the parts of a profile have to know of each other while they are checked.
pub(super) struct Context<'t> {
    text: &'t str,
    pub(super) problems: Problems,
    pub(super) warnings: Problems,
    pub(super) nominal_hz: f64,
    pub(super) extent: Extent,
    pub(super) slots: usize,
    pub(super) flags: Vec<(String, Option<Status>)>,
    pub(super) states: Vec<(String, Vec<StateValue>)>,
    pub(super) waves: Vec<super::WaveInfo>,
}

impl Context<'_> {
    pub(super) fn problem(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.add(self.text, span, message);
    }

    pub(super) fn warning(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.warnings.add(self.text, span, message);
    }

    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        line_of(self.text, span.start)
    }

    /// Reads hex; the problem names the place.
    pub(super) fn hex(&mut self, text: &Spanned<String>) -> Vec<u8> {
        if text.get_ref().starts_with(super::MARK) {
            // That it is to be filled in has been told.
            return Vec::new();
        }
        match hex::bytes(text.get_ref()) {
            Ok(bytes) => {
                if bytes.is_empty() {
                    self.problem(&text.span(), "there are no bytes");
                }
                bytes
            }
            Err(error) => {
                self.problem(&text.span(), error.to_string());
                Vec::new()
            }
        }
    }

    pub(super) fn duration(&mut self, text: &Spanned<String>) -> Duration {
        parse_duration(text.get_ref()).unwrap_or_else(|| {
            self.problem(&text.span(), format!("`{}` is not a time such as 50ms, 2s or 1min", text.get_ref()));
            Duration::from_secs(1)
        })
    }

    pub(super) fn status(&mut self, span: &Range<usize>, name: &str) -> Option<Status> {
        // Whether it is the right device is for the bridge to say, not for the device.
        let status = Status::from_name(name).filter(|status| *status != Status::DeviceChanged);
        if status.is_none() {
            let known = nearest(name, Status::ALL.iter().map(|status| status.name()));
            self.problem(span, format!("`{name}` is not a status; the nearest is `{known}`"));
        }
        status
    }
}

/// The name of `known` that needs the fewest changes to become `name`.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> &'k str {
    known.min_by_key(|candidate| distance(name, candidate)).unwrap_or("")
}

/// Levenshtein distance, for names of at most a few dozen bytes.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, a) in left.bytes().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        for (slot, b) in row.iter_mut().skip(1).zip(right.bytes()) {
            let changed = diagonal + usize::from(a != b);
            diagonal = *slot;
            before = changed.min(before + 1).min(*slot + 1);
            *slot = before;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u32 = number.parse().ok()?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "min" => Duration::from_mins(1),
        _ => return None,
    };
    (number > 0).then(|| unit * number)
}

/// Checks everything; the profile only counts if no problem was added.
pub(super) fn profile(text: &str, doc: ProfileDoc, problems: Problems) -> Result<Profile, Problems> {
    let mut context = Context {
        text,
        problems,
        warnings: Problems::default(),
        nominal_hz: *doc.nominal_hz.get_ref(),
        extent: Extent::default(),
        slots: 0,
        flags: Vec::new(),
        states: Vec::new(),
        waves: Vec::new(),
    };
    let context = &mut context;
    check_head(&doc, context);
    let serial = doc.serial.as_ref().map(|serial| build_serial(serial.get_ref(), context));
    let ble = doc.ble.as_ref().and_then(|ble| build_ble::ble(ble, &doc, context));
    let driven = doc.driver.as_ref().map(|driver| {
        let silence = doc.link.as_ref().and_then(|link| parse_duration(link.get_ref().silence.get_ref()));
        driver::settings(driver, &doc, silence.unwrap_or(DEFAULT_SILENCE), context)
    });
    let (driver, framing) = match driven {
        Some(driven) => driven.unzip(),
        None => (None, build_frame::framing(doc.frame.as_ref(), doc.ble.is_some(), context)),
    };
    let superframe = doc.superframe.as_ref().and_then(|superframe| build_frame::superframe(superframe, context));
    let link = doc.link.as_ref().map(|link| build_link(link.get_ref(), framing.as_ref(), context)).unwrap_or_default();
    let is_stream = doc.ble.as_ref().is_none_or(|ble| ble.get_ref().stream.is_some());
    let messages = if doc.driver.is_some() || !is_stream {
        Vec::new()
    } else {
        build_message::messages(&doc.message, superframe.is_some(), framing.as_ref(), context)
    };
    // What the program itself decodes, as the standard has it, is proven by the program's own tests.
    let needs_tests = is_stream || ble.as_ref().is_some_and(|ble| !ble.quirks.is_empty());
    let tests = build_test::tests(&doc.test, needs_tests, context);
    let problems = std::mem::take(&mut context.problems);
    match framing {
        Some(framing) if problems.is_empty() => Ok(Profile {
            id: doc.id.into_inner(),
            name: doc.name,
            kind: doc.kind.into_inner(),
            nominal_hz: context.nominal_hz,
            sources: doc.sources,
            tried_on_hardware: doc.tried_on_hardware.unwrap_or(false),
            serial,
            ble,
            link,
            framing,
            driver,
            superframe,
            messages,
            flag_maps: context.flags.iter().map(|(_, maps)| *maps).collect(),
            state_count: context.states.len(),
            waves: std::mem::take(&mut context.waves),
            tests,
            warnings: std::mem::take(&mut context.warnings),
        }),
        _ => Err(problems),
    }
}

fn check_head(doc: &ProfileDoc, context: &mut Context<'_>) {
    if *doc.schema.get_ref() != 1 {
        let found = doc.schema.get_ref();
        context.problem(&doc.schema.span(), format!("schema {found} is not known; this program reads schema 1"));
    }
    let id = doc.id.get_ref();
    let is_id = (1..=MAX_PROFILE_ID).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !is_id {
        context.problem(&doc.id.span(), format!("id `{id}` must be 1 to {MAX_PROFILE_ID} of a-z 0-9 -"));
    }
    let hz = *doc.nominal_hz.get_ref();
    if !(hz > 0.0 && hz <= 10_000.0) {
        context.problem(&doc.nominal_hz.span(), format!("nominal_hz {hz} must be above 0 and at most 10000"));
    }
    if doc.serial.is_none() && doc.ble.is_none() {
        context.problem(&(0..0), "a profile needs [serial] or [ble]");
    }
}

fn build_serial(doc: &SerialDoc, context: &mut Context<'_>) -> Serial {
    let mut settings = Vec::new();
    for text in &doc.settings {
        match LineSettings::parse(text.get_ref()) {
            Some(setting) => settings.push(setting),
            None => {
                context.problem(&text.span(), format!("`{}` is not a line setting such as 9600 8N1", text.get_ref()));
            }
        }
    }
    if doc.settings.is_empty() {
        context.problem(&(0..0), "serial.settings needs at least one line setting");
    }
    let mut usb = Vec::new();
    for text in &doc.usb {
        match usb_id(text.get_ref()) {
            Some(id) => usb.push(id),
            None => context.problem(&text.span(), format!("`{}` is not vvvv or vvvv:pppp in hex", text.get_ref())),
        }
    }
    Serial { settings, flow: doc.flow, dtr: doc.dtr, usb }
}

fn usb_id(text: &str) -> Option<(u16, Option<u16>)> {
    let number = |part: &str| (part.len() == 4).then(|| u16::from_str_radix(part, 16).ok()).flatten();
    match text.split_once(':') {
        Some((vendor, product)) => Some((number(vendor)?, Some(number(product)?))),
        None => Some((number(text)?, None)),
    }
}

/// Without `at` the checksum is the last of the frame, and without `to` it covers all before it.
pub(super) fn build_checksum(doc: &ChecksumDoc) -> Checksum {
    let width = match doc.encoding {
        super::checksum::Encoding::Raw => doc.kind.width(),
        super::checksum::Encoding::Hex => doc.kind.width() * 2,
    };
    let at_end = -i32::try_from(width).unwrap_or(1);
    let at = doc.at.unwrap_or(at_end);
    Checksum {
        kind: doc.kind,
        from: doc.from,
        to: doc.to.unwrap_or(at),
        at,
        endian: doc.endian,
        encoding: doc.encoding,
        absent_below: doc.absent_below,
    }
}

fn build_link(doc: &LinkDoc, framing: Option<&Framing>, context: &mut Context<'_>) -> Link {
    let own = doc.checksum.as_ref().map(build_checksum);
    let sums = SendSums { own, framing };
    let step = |step: &Spanned<StepDoc>, context: &mut Context<'_>| {
        let step = step.get_ref();
        Step {
            send: sums.bytes(&step.send, context),
            reply: step.reply.as_ref().map(|reply| context.hex(reply)),
            within: step.within.as_ref().map_or(DEFAULT_WITHIN, |within| context.duration(within)),
        }
    };
    let repeat = |repeat: &Spanned<RepeatDoc>, context: &mut Context<'_>| Repeat {
        send: sums.bytes(&repeat.get_ref().send, context),
        every: context.duration(&repeat.get_ref().every),
    };
    let silence = context.duration(&doc.silence);
    let gap = doc.gap.as_ref().map_or(Duration::ZERO, |gap| context.duration(gap));
    let init = doc.init.iter().map(|item| step(item, context)).collect();
    let keep_alive = doc.keep_alive.as_ref().map(|item| repeat(item, context));
    let poll = doc.poll.iter().map(|item| repeat(item, context)).collect();
    let stop = doc.stop.iter().map(|item| step(item, context)).collect();
    let mut commands: Vec<Command> = Vec::new();
    for command in &doc.command {
        let (span, command) = (command.span(), command.get_ref());
        if commands.iter().any(|earlier| earlier.id == *command.id.get_ref()) {
            context.problem(&span, format!("command `{}` is there twice", command.id.get_ref()));
        }
        commands.push(Command {
            id: command.id.get_ref().clone(),
            send: command.send.iter().map(|send| sums.bytes(send, context)).collect(),
            actuates: command.actuates,
        });
    }
    let link = Link { silence, gap, init, keep_alive, poll, stop, commands };
    check_actuators(doc, &link, context);
    link
}

/// What moves something on the patient is only ever sent on request, and only by a command that says so.
fn check_actuators(doc: &LinkDoc, link: &Link, context: &mut Context<'_>) {
    let steps = link.init.iter().chain(&link.stop).map(|step| step.send.as_slice());
    let repeats = link.poll.iter().chain(&link.keep_alive).map(|repeat| repeat.send.as_slice());
    let step_places = doc.init.iter().chain(&doc.stop).map(|step| &step.get_ref().send);
    let repeat_places = doc.poll.iter().chain(&doc.keep_alive).map(|repeat| &repeat.get_ref().send);
    let mut unasked: Vec<(&[u8], Range<usize>, String)> = steps
        .chain(repeats)
        .zip(step_places.chain(repeat_places).map(Spanned::span))
        .map(|(sent, place)| (sent, place, "is sent unasked".to_owned()))
        .collect();
    for (command, written) in link.commands.iter().zip(&doc.command).filter(|(command, _)| !command.actuates) {
        let how = format!("is sent by `{}`, which has no `actuates = true`", command.id);
        let sends = command.send.iter().zip(&written.get_ref().send);
        unasked.extend(sends.map(|(sent, place)| (sent.as_slice(), place.span(), how.clone())));
    }
    let pieces: Vec<&[u8]> = unasked.iter().map(|(sent, ..)| *sent).collect();
    for actuating in link.commands.iter().filter(|command| command.actuates).flat_map(|command| &command.send) {
        for (_, place, how) in unasked::completing(actuating, &pieces).into_iter().filter_map(|at| unasked.get(at)) {
            let alone_or_joined = "alone or together with what else is sent without being asked for";
            let message =
                format!("`{}` belongs to a command that actuates and {how}, {alone_or_joined}", hex::text(actuating));
            context.problem(place, message);
        }
    }
}

/// The checksum that everything sent must carry: the link's own, or that of the frames.
struct SendSums<'f> {
    own: Option<Checksum>,
    framing: Option<&'f Framing>,
}

impl SendSums<'_> {
    fn bytes(&self, send: &Spanned<String>, context: &mut Context<'_>) -> Vec<u8> {
        let bytes = context.hex(send);
        if bytes.len() > MAX_SEND {
            context.problem(&send.span(), format!("{} bytes are sent at once; at most {MAX_SEND} can be", bytes.len()));
        }
        let (checksum, covered) = match (&self.own, self.framing) {
            (Some(own), _) => (Some(own), bytes.as_slice()),
            (None, Some(framing)) => (framing.checksum.as_ref(), content(&framing.rule, &bytes)),
            (None, None) => (None, bytes.as_slice()),
        };
        if let Some(checksum) = checksum.filter(|checksum| !bytes.is_empty() && !checksum.holds(covered)) {
            let message = match checksum.computed_and_found(covered) {
                Some((computed, found)) => {
                    let width = checksum.kind.width() * 2;
                    format!("`{}` has the checksum {found:0width$X}, must be {computed:0width$X}", send.get_ref())
                }
                None => format!("`{}` is too short for its checksum", send.get_ref()),
            };
            context.problem(&send.span(), message);
        }
        bytes
    }
}

/// What is between the marks of a delimited frame.
fn content<'b>(rule: &Rule, bytes: &'b [u8]) -> &'b [u8] {
    match rule {
        Rule::Delimited(rule) => bytes
            .strip_prefix(rule.start.as_slice())
            .and_then(|rest| rest.strip_suffix(rule.end.as_slice()))
            .unwrap_or(bytes),
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_duration("50ms"), Some(Duration::from_millis(50)));
        assert_eq!(parse_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration("1min"), Some(Duration::from_mins(1)));
        for bad in ["", "2", "s", "0s", "-1s", "1.5s", "1h", "99999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_profile_of_standard_notifications_has_no_messages_and_known_quirks() {
        let good = include_str!("../../devices/beurer-bm85.toml");
        assert!(Profile::parse(good).is_ok());
        let message = "[[message]]\nid = \"a\"\n[[test]]";
        for (from, to, expected) in [
            (
                "user_without_flag",
                "user_with_flag",
                "`user_with_flag` is not a quirk; the nearest is `user_without_flag`",
            ),
            ("\"blood_pressure\"\nquirks", "\"scale\"\nquirks", "`pulse_and_status_big_endian` needs `sensor"),
            ("[[test]]", message, "standard notifications are decoded by the program"),
        ] {
            let problems = Profile::parse(&good.replacen(from, to, 1)).unwrap_err();
            let found = problems.as_slice().iter().any(|problem| problem.message.starts_with(expected));
            assert!(found, "{expected}: {problems:?}");
        }
        let clock = include_str!("../../devices/yonker-bp.toml").replace("length = 5, clock", "length = 4, clock");
        let problems = Profile::parse(&clock).unwrap_err();
        assert!(
            problems.as_slice().iter().any(|problem| problem.message.contains("a clock has 5 bytes")),
            "{problems:?}"
        );
    }

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        assert_eq!(nearest("sensor_of", ["searching", "sensor_off", "no_sensor"].into_iter()), "sensor_off");
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
