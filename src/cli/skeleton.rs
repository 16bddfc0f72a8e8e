//! The text of a new device profile: complete for an invented device, with every place marked that a real one needs.

use anyhow::bail;

use crate::profile::hex;
use crate::profile::model::DeviceKind;

/// What every place begins with that has to be filled in. The schema refuses a profile as long as one is left.
pub(super) use crate::profile::MARK;

/// Stands before the bytes of the tests, which must not be taken for captured ones: a test with it left in fails.
const INVENTED: &str = "invented:";

/// How frames are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Frame {
    /// Fixed bytes and a length.
    Packet,
    /// Text lines.
    Line,
    /// Between two marks.
    Delimited,
    /// Notifications of a GATT characteristic.
    Payload,
}

/// A vital of the invented device.
struct Sample {
    metric: &'static str,
    part: Option<&'static str>,
    unit: &'static str,
    raw: u16,
    /// Two bytes, in tenths.
    is_in_tenths: bool,
}

impl Sample {
    const fn new(metric: &'static str, unit: &'static str, raw: u16) -> Self {
        Self { metric, part: None, unit, raw, is_in_tenths: false }
    }

    const fn tenths(metric: &'static str, unit: &'static str, raw: u16) -> Self {
        Self { metric, part: None, unit, raw, is_in_tenths: true }
    }

    const fn pressure(part: &'static str, raw: u16) -> Self {
        Self { metric: "blood_pressure", part: Some(part), unit: "mmHg", raw, is_in_tenths: false }
    }

    fn name(&self) -> &'static str {
        self.part.unwrap_or(self.metric)
    }

    fn shown(&self) -> String {
        if self.is_in_tenths { format!("{}.{}", self.raw / 10, self.raw % 10) } else { self.raw.to_string() }
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = self.raw.to_le_bytes();
        if self.is_in_tenths { bytes.to_vec() } else { bytes.into_iter().take(1).collect() }
    }
}

fn samples(kind: DeviceKind) -> Vec<Sample> {
    match kind {
        DeviceKind::PulseOximeter => vec![Sample::new("spo2", "%", 97), Sample::new("pulse_rate", "bpm", 72)],
        DeviceKind::BloodPressure => {
            vec![Sample::pressure("systolic", 120), Sample::pressure("diastolic", 80), Sample::pressure("mean", 93)]
        }
        DeviceKind::MultiParameter => vec![
            Sample::new("heart_rate", "bpm", 72),
            Sample::new("respiratory_rate", "rpm", 16),
            Sample::new("spo2", "%", 97),
        ],
        DeviceKind::HeartRate => vec![Sample::new("heart_rate", "bpm", 72)],
        DeviceKind::Thermometer => vec![Sample::tenths("temperature", "°C", 368)],
        DeviceKind::Capnograph => vec![Sample::new("etco2", "mmHg", 38), Sample::new("respiratory_rate", "rpm", 16)],
        DeviceKind::Glucose => vec![Sample::new("glucose", "mg/dL", 105)],
        DeviceKind::Scales => vec![Sample::tenths("weight", "kg", 725)],
    }
}

/// The status by which the invented device says that its numbers do not count.
const fn off(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::BloodPressure => "cuff_too_loose",
        _ => "sensor_off",
    }
}

/// The text of a profile of this id.
///
/// # Errors
/// The id cannot be one.
pub(super) fn text(kind: DeviceKind, frame: Frame, id: &str) -> anyhow::Result<String> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        bail!("the id `{id}` must be made of a-z 0-9 -; name another with --id");
    }
    let samples = samples(kind);
    Ok([head(kind, frame, id), framing(frame, &samples), message(kind, frame, &samples), tests(kind, frame, &samples)]
        .concat())
}

fn head(kind: DeviceKind, frame: Frame, id: &str) -> String {
    let way_in = if frame == Frame::Payload {
        format!(
            r#"[ble]
match = [{{ name = "{MARK} Ox-1*" }}] # the advertised name; * stands for any characters
# needs_bond = true # it sends nothing before it was paired with

[ble.stream]
service = "{MARK} FFE0" # the service's UUID, or its 4 digits
notify = "{MARK} FFE1" # the characteristic that notifies
# write = "FFE2" # the characteristic that takes what [link] sends
"#
        )
    } else {
        format!(
            r#"[serial]
settings = ["{MARK} 9600 8N1"] # those that the device may be set to, the most usual first
# flow = "rtscts" # only where the manual asks for it; XON/XOFF eats data bytes
"#
        )
    };
    format!(
        r#"# Replace what stands behind each {MARK} by what the manual of the device says. `vitalbridge profile check` names
# the places that are left; docs/profiles.md explains every key.
schema = 1
id = "{id}" # the file is called {id}.toml
name = "{MARK} maker, models, firmware"
kind = "{kind}"
nominal_hz = 1 # frames, lines or notifications a second: count them in a capture
sources = ["{MARK} document, edition and section that the facts below are from"]
tried_on_hardware = false # true once it was compared with the display of a real device

{way_in}
[link]
silence = "5s" # no good frame for so long: the device is silent
# What has to be sent before it talks. Never anything that moves something on the patient.
# init = [{{ send = "55 AA 04 01 01 F9" }}]
# keep_alive = {{ send = "55 AA 03 07 F5", every = "5s" }}

"#,
        kind = kind.name()
    )
}

fn framing(frame: Frame, samples: &[Sample]) -> String {
    let values: usize = samples.iter().map(|sample| sample.bytes().len()).sum();
    match frame {
        Frame::Packet => format!(
            r#"[frame]
kind = "packet"
magic = "{MARK} 55 AA" # the first bytes of every packet
length = {} # of a whole packet; see also length_from and length_by
# Without a checksum: lock = 3, the good packets in a row before one counts.
checksum = {{ kind = "sum8", from = 0, to = -1, at = -1 }}
"#,
            values + 4
        ),
        Frame::Line => r#"[frame]
kind = "line"
end = ["\r\n", "\n", "\r"]
max = 200 # the longest line
"#
        .to_owned(),
        Frame::Delimited => format!(
            r#"[frame]
kind = "delimited"
start = "{MARK} C0" # the bytes before every frame
end = "{MARK} C1" # and after it
min = {} # the shortest content, so that a lost 0, which changes no sum, is noticed
max = 64 # the longest frame, `start` and `end` included
# How a byte that looks like start or end is written inside.
escape = {{ byte = 0x7D, xor = 0x20 }}
# Places in the checksum and below count from the first byte after `start`.
checksum = {{ kind = "sum8", from = 0, to = -1, at = -1 }}
"#,
            values + 2
        ),
        Frame::Payload => format!(
            r#"[frame]
kind = "payload"
min = {} # the shortest notification that has everything
"#,
            values + 1
        ),
    }
}

/// The place of the status byte; the vitals follow.
const fn status_at(frame: Frame) -> usize {
    match frame {
        Frame::Packet => 2,
        _ => 0,
    }
}

fn message(kind: DeviceKind, frame: Frame, samples: &[Sample]) -> String {
    let off = off(kind);
    let (which, status) = if frame == Frame::Line {
        let one = |sample: &Sample| format!("{0}=(?P<{1}>[0-9.]+|-+) ", sample.name().to_uppercase(), sample.name());
        let numbers: String = samples.iter().map(one).collect();
        let pattern = format!("match = '{MARK} ^{numbers}STATUS=(?P<status>[0-9A-F]{{2}})$'");
        let which = format!("# One group for each number; a line that does not fit is skipped.\n{pattern}");
        (which, "group = \"status\", radix = 16".to_owned())
    } else {
        let which = "# when = [{ at = 2, value = 0x01 }] # where frames are of several types".to_owned();
        (which, format!("at = {}", status_at(frame)))
    };
    let head = format!(
        r#"
[[message]]
id = "data"
{which}

[message.status]
# Every bit by which the device says that its numbers do not count.
{off} = {{ {status}, bit = 0, maps = "{off}" }}
"#
    );
    let mut at = status_at(frame) + 1;
    let fields = samples.iter().map(|sample| {
        let place = match frame {
            Frame::Line => format!("group = \"{}\"", sample.name()),
            _ if sample.is_in_tenths => format!("at = {at}\ntype = \"u16le\"\nscale = 0.1"),
            _ => format!("at = {at}\n# invalid = [0xFF] # numbers that mean \"no value\""),
        };
        at += sample.bytes().len();
        let part = sample.part.map_or_else(String::new, |part| format!("part = \"{part}\"\n"));
        let Sample { metric, unit, .. } = sample;
        format!("\n[[message.field]]\nmetric = \"{metric}\"\n{part}unit = \"{unit}\"\n{place}\nunless = [\"{off}\"]\n")
    });
    std::iter::once(head).chain(fields).collect()
}

fn tests(kind: DeviceKind, frame: Frame, samples: &[Sample]) -> String {
    let off = off(kind);
    let (good, gone, damaged) = (example(frame, samples, 0), example(frame, samples, 1), damaged(frame, samples));
    let shown = |value: &dyn Fn(&Sample) -> String| {
        let parts = |only_parts: bool| {
            let of = samples.iter().filter(|sample| sample.part.is_some() == only_parts);
            of.map(|sample| format!("{} = {}", sample.name(), value(sample))).collect::<Vec<_>>().join(", ")
        };
        if samples.iter().any(|sample| sample.part.is_some()) {
            format!("{{ blood_pressure = {{ {} }} }}", parts(true))
        } else {
            format!("{{ {} }}", parts(false))
        }
    };
    let (values, reasons) = (shown(&Sample::shown), shown(&|_| format!("\"{off}\"")));
    let counted = if matches!(frame, Frame::Packet | Frame::Delimited) { "bad_checksum = 1\n" } else { "" };
    let skipped = match frame {
        // The end of a line is not counted; it is written as four characters.
        Frame::Line => damaged.len() - 4,
        _ => damaged.split(' ').count(),
    };
    let key = if frame == Frame::Line { "text" } else { "hex" };
    format!(
        r#"
# At least one test of each case. The bytes below are invented, no device has sent them: put captured ones there.
[[test]]
name = "values"
case = "valid"
{key} = "{MARK} {INVENTED} {good}"
expect = [{values}]
status = []

[[test]]
name = "the device says that its numbers do not count"
case = "sensor_off"
{key} = "{MARK} {INVENTED} {gone}"
expect = [{reasons}]
status = ["{off}"]

[[test]]
name = "damage"
case = "corrupted"
{key} = "{MARK} {INVENTED} {damaged}"
frames = 0
{counted}skipped_bytes = {skipped}
"#
    )
}

/// A frame of the invented device, as a test has it.
fn example(frame: Frame, samples: &[Sample], status: u8) -> String {
    let content: Vec<u8> = std::iter::once(status).chain(samples.iter().flat_map(Sample::bytes)).collect();
    let sum = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    match frame {
        Frame::Packet => {
            let bytes = [&[0x55, 0xAA][..], &content].concat();
            hex::text(&[&bytes[..], &[sum(&bytes)]].concat())
        }
        Frame::Delimited => hex::text(&[&[0xC0][..], &content, &[sum(&content), 0xC1]].concat()),
        Frame::Payload => hex::text(&content),
        Frame::Line => {
            let values = samples.iter().map(|sample| format!("{}={} ", sample.name().to_uppercase(), sample.shown()));
            format!("{}STATUS={status:02X}\\r\\n", values.collect::<String>())
        }
    }
}

/// The example with a flipped bit where that shows, else a part of it.
fn damaged(frame: Frame, samples: &[Sample]) -> String {
    let good = example(frame, samples, 0);
    match frame {
        Frame::Packet | Frame::Delimited => {
            let mut bytes = hex::bytes(&good).unwrap_or_default();
            if let Some(byte) = bytes.get_mut(status_at(frame) + 2) {
                *byte ^= 0x04;
            }
            hex::text(&bytes)
        }
        Frame::Line => good.chars().skip(3).collect(),
        Frame::Payload => good.rsplit_once(' ').map_or(good.clone(), |(short, _)| short.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::decode::self_test;
    use crate::profile::Profile;

    fn every() -> impl Iterator<Item = (DeviceKind, Frame, String)> {
        let frames = [Frame::Packet, Frame::Line, Frame::Delimited, Frame::Payload];
        DeviceKind::ALL.iter().flat_map(move |kind| {
            frames.into_iter().map(move |frame| (*kind, frame, text(*kind, frame, "acme-1").unwrap()))
        })
    }

    #[test]
    fn a_new_profile_is_toml_and_is_refused_at_its_marked_places_alone() {
        for (kind, frame, text) in every() {
            toml::from_str::<toml::Table>(&text).unwrap_or_else(|error| panic!("{kind:?} {frame:?}: {error}\n{text}"));
            let marked: Vec<usize> = (1..)
                .zip(text.lines())
                .filter(|(_, line)| line.contains(MARK) && !line.starts_with('#'))
                .map(|(number, _)| number)
                .collect();
            let problems = Profile::parse(&text).unwrap_err();
            for line in &marked {
                let is_told = problems.as_slice().iter().any(|problem| problem.line == *line);
                assert!(is_told, "{kind:?} {frame:?}: line {line} is not told\n{problems}");
            }
            let plain: Vec<_> = problems.as_slice().iter().filter(|problem| !marked.contains(&problem.line)).collect();
            assert!(plain.is_empty(), "{kind:?} {frame:?}: {plain:?}\n{text}");
        }
    }

    #[test]
    fn with_its_marks_filled_a_new_profile_passes_every_check() {
        for (kind, frame, text) in every() {
            let filled = text.replace(&format!("{INVENTED} "), "").replace(&format!("{MARK} "), "");
            let profile =
                Profile::parse(&filled).unwrap_or_else(|error| panic!("{kind:?} {frame:?}:\n{error}\n{filled}"));
            assert!(profile.warnings().is_empty(), "{kind:?} {frame:?}: {}", profile.warnings());
            let failures = self_test::run(&Arc::new(profile));
            assert!(failures.is_empty(), "{kind:?} {frame:?}: {failures:#?}\n{filled}");
        }
    }

    #[test]
    fn the_bytes_of_the_tests_are_said_to_be_invented_and_do_not_pass_as_they_are() {
        for (kind, frame, text) in every() {
            let of_tests: Vec<&str> =
                text.lines().filter(|line| line.starts_with("hex = ") || line.starts_with("text = ")).collect();
            assert_eq!(of_tests.len(), 3, "{kind:?} {frame:?}");
            for line in of_tests {
                assert!(line.contains("\"FILL: invented: "), "{kind:?} {frame:?}: {line}");
                // The mark alone is taken away from this line, and all that has to go from the others.
                let left = text.replacen(line, &line.replace(&format!("{MARK} "), ""), 1);
                let left = left.replace(&format!("{MARK} {INVENTED} "), "").replace(&format!("{MARK} "), "");
                let passes = Profile::parse(&left).is_ok_and(|profile| self_test::run(&Arc::new(profile)).is_empty());
                assert!(!passes, "{kind:?} {frame:?}: {line}");
            }
        }
    }

    #[test]
    fn an_id_that_cannot_be_one_is_refused() {
        for id in ["", "Acme", "a b", "../x"] {
            assert!(text(DeviceKind::PulseOximeter, Frame::Packet, id).is_err(), "{id}");
        }
    }
}
