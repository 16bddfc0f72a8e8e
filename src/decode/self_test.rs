//! Runs the tests that a profile carries: as they are, and in variants that every link produces sooner or later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Decoded, DecodedVital, Decoder, FrameCounters};
use crate::profile::Profile;
use crate::profile::ble::{Ble, SensorKind};
use crate::profile::model::{EmbeddedTest, Expected, Rule, TestCase};
use crate::vitals::{Absent, Decimal, Metric, Status, Value, Vital};

/// Bytes of a test that are dropped one after the other; the rest is like them.
const MAX_DROPPED: usize = 600;
/// Bytes of noise before a test.
const NOISE_BYTES: usize = 61;
/// Size of the pieces in which a variant is played again: no divisor of any frame, so that pieces end everywhere.
const PIECE: usize = 13;

/// A test that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The line of the profile that the test is on.
    pub line: usize,
    /// Which test, which variant, and what is wrong.
    pub message: String,
}

/// What a decoder said about some bytes.
#[derive(Debug, Clone, Default, PartialEq)]
struct Outcome {
    vitals: Vec<DecodedVital>,
    waves: BTreeMap<String, Vec<i32>>,
    status: BTreeSet<Status>,
    beats: u64,
    events: Vec<String>,
    serial_number: Option<String>,
    counters: FrameCounters,
}

fn failure(test: &EmbeddedTest, message: &str) -> Failure {
    Failure { line: test.line, message: format!("test \"{}\": {message}", test.name) }
}

/// Runs every embedded test as it is.
pub fn as_they_are(profile: &Arc<Profile>) -> Vec<Failure> {
    let of_test = |test: &EmbeddedTest| {
        let found = differences(test, &play(profile, [test.bytes.as_slice()]));
        found.iter().map(|message| failure(test, message)).collect::<Vec<_>>()
    };
    profile.tests().iter().flat_map(of_test).collect()
}

/// Runs every embedded test as it is and in every variant.
pub fn run(profile: &Arc<Profile>) -> Vec<Failure> {
    let mut failures = as_they_are(profile);
    for test in profile.tests() {
        let mut fail = |message: String| failures.push(failure(test, &message));
        if matches!(profile.framing().rule, Rule::Payload { .. }) {
            continue;
        }
        if play(profile, test.bytes.chunks(1)) != play(profile, [test.bytes.as_slice()]) {
            fail("byte by byte it gives another result than in one piece".to_owned());
        }
        if test.case != TestCase::Corrupted {
            variants(profile, test, &mut fail);
        }
    }
    failures
}

fn play<'b>(profile: &Arc<Profile>, pieces: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let mut decoder = Decoder::new(Arc::clone(profile));
    let mut out = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut out);
    }
    decoder.finish(&mut out);
    let mut outcome = Outcome { counters: decoder.counters(), ..Outcome::default() };
    for decoded in out {
        match decoded {
            Decoded::Vital(vital) => outcome.vitals.push(vital),
            Decoded::MeasurementFailed(failed) => outcome.vitals.push(failed.vital()),
            Decoded::Status(status) => outcome.status = status,
            Decoded::Wave(wave) => outcome.waves.entry(wave.name.to_string()).or_default().extend(wave.samples),
            Decoded::Beat => outcome.beats += 1,
            Decoded::SerialNumber(number) => outcome.serial_number = Some(number),
            Decoded::Event { name } => outcome.events.push(name.to_string()),
        }
    }
    outcome
}

/// Noise before the bytes, and each byte lost once. The decoder must find its way back within one repetition of the
/// bytes; where frames carry a checksum, and for noise always, it must not say anything that the bytes do not say.
fn variants(profile: &Arc<Profile>, test: &EmbeddedTest, fail: &mut impl FnMut(String)) {
    let repetitions = profile.framing().lock + 2;
    let whole = test.bytes.repeat(repetitions);
    let clean = play(profile, [whole.as_slice()]);
    let said: BTreeSet<String> = clean.vitals.iter().map(|vital| format!("{:?}", vital.vital)).collect();
    let at_least = play(profile, [test.bytes.repeat(repetitions - 1).as_slice()]).counters.frames;
    let mut check = |bytes: &[&[u8]], is_checked: bool, variant: &str| {
        let outcome = play(profile, bytes.iter().copied());
        let joined = bytes.concat();
        if play(profile, joined.chunks(PIECE)) != outcome {
            fail(format!("{variant}: in pieces of {PIECE} bytes it gives another result than in one piece"));
        }
        if outcome.counters.frames < at_least {
            let found = outcome.counters.frames;
            fail(format!("{variant}: {found} good frames are found instead of {at_least} or more"));
        }
        // A driver may learn from another message why there is no value: without that one the reason is another.
        let may_differ = |vital: &Vital| profile.driver().is_some() && vital.leading().valid().is_none();
        let is_new = |vital: &&DecodedVital| !said.contains(&format!("{:?}", vital.vital)) && !may_differ(&vital.vital);
        let invented = outcome.vitals.iter().find(is_new);
        if let Some(vital) = invented.filter(|_| is_checked) {
            fail(format!("{variant}: a value appears that was not sent: {:?}", vital.vital));
        }
    };
    for seed in 1..=3 {
        check(&[&noise(seed), &whole], true, &format!("after noise {seed}"));
    }
    for lost in 0..test.bytes.len().min(MAX_DROPPED) {
        let (before, after) = whole.split_at_checked(lost).unwrap_or((&whole, &[]));
        let variant = format!("without byte {lost}");
        check(&[before, after.get(1..).unwrap_or(&[])], profile.has_checksum(), &variant);
    }
}

/// The same noise every time (xorshift).
fn noise(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes().first().copied().unwrap_or(0)
    };
    (0..NOISE_BYTES).map(|_| next()).collect()
}

/// What differs from what the test expects.
fn differences(test: &EmbeddedTest, outcome: &Outcome) -> Vec<String> {
    let mut found = vitals_differences(test, &outcome.vitals);
    let mut differs = |what: &str, expected: String, is: String| {
        if expected != is {
            found.push(format!("{what} must be {expected}, is {is}"));
        }
    };
    for (name, samples) in &test.waves {
        let is = outcome.waves.get(name).cloned().unwrap_or_default();
        differs(&format!("wave {name}"), format!("{samples:?}"), format!("{is:?}"));
    }
    if let Some(status) = &test.status {
        let expected: BTreeSet<Status> = status.iter().copied().collect();
        differs("status", names(&expected), names(&outcome.status));
    }
    if let Some(beats) = test.beats {
        differs("beats", beats.to_string(), outcome.beats.to_string());
    }
    differs("events", format!("{:?}", test.events), format!("{:?}", outcome.events));
    if test.serial_number.is_some() {
        differs("serial_number", format!("{:?}", test.serial_number), format!("{:?}", outcome.serial_number));
    }
    if test.device_time.is_some() {
        let is = outcome.vitals.last().and_then(|vital| vital.device_time.clone());
        differs("device_time", format!("{:?}", test.device_time), format!("{is:?}"));
    }
    let counters = outcome.counters;
    for (what, expected, is) in [
        ("frames", test.frames, counters.frames),
        ("bad_checksum", test.bad_checksum, counters.bad_checksum),
        ("skipped_bytes", test.skipped_bytes, counters.skipped_bytes),
    ] {
        if let Some(expected) = expected {
            differs(what, expected.to_string(), is.to_string());
        }
    }
    found
}

fn names(statuses: &BTreeSet<Status>) -> String {
    let names: Vec<&str> = statuses.iter().map(|status| status.name()).collect();
    format!("{names:?}")
}

fn vitals_differences(test: &EmbeddedTest, vitals: &[DecodedVital]) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = vitals;
    for (index, expected) in test.expect.iter().enumerate() {
        let (message, later) = rest.split_at_checked(expected.len()).unwrap_or((rest, &[]));
        rest = later;
        for (metric, expected) in expected {
            let place = format!("reading {}: {metric}", index + 1);
            match message.iter().find(|vital| vital.vital.metric() == *metric) {
                Some(vital) if agrees(expected, &vital.vital) => {}
                Some(vital) => {
                    found.push(format!("{place} must be {}, is {}", shown_expected(expected), shown(&vital.vital)));
                }
                None => found.push(format!("{place} must be {}, is not mentioned", shown_expected(expected))),
            }
        }
    }
    if let Some(vital) = rest.first() {
        let (count, shown) = (rest.len(), shown(&vital.vital));
        found.push(format!("{count} more than was expected, first {} {shown}", vital.vital.metric()));
    }
    found
}

fn agrees(expected: &Expected, vital: &Vital) -> bool {
    let one = |expected: &Result<Decimal, Absent>, value: Value| match (expected, value) {
        (Ok(expected), Value::Valid(number)) => expected.compare(number).is_eq(),
        (Err(expected), Value::Absent(reason)) => *expected == reason,
        _ => false,
    };
    match (expected, vital) {
        (Expected::One(expected), Vital::Scalar { value, .. }) => one(expected, *value),
        // By one of them, as a rule judges them.
        (Expected::One(expected), Vital::RrIntervals(_)) => one(expected, vital.leading()),
        (
            Expected::Pressure { systolic, diastolic, mean },
            Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure),
        ) => [(systolic, pressure.systolic), (diastolic, pressure.diastolic), (mean, pressure.mean)]
            .into_iter()
            .all(|(expected, value)| expected.as_ref().is_none_or(|expected| one(expected, value))),
        _ => false,
    }
}

fn shown_value(value: Value) -> String {
    match value {
        Value::Valid(number) => number.to_string(),
        Value::Absent(reason) => format!("absent ({reason})"),
    }
}

fn shown(vital: &Vital) -> String {
    match vital {
        Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => format!(
            "{} / {} / {}",
            shown_value(pressure.systolic),
            shown_value(pressure.diastolic),
            shown_value(pressure.mean)
        ),
        other => shown_value(other.leading()),
    }
}

fn shown_expected(expected: &Expected) -> String {
    let one = |value: &Result<Decimal, Absent>| shown_value(value.map_or_else(Value::Absent, Value::Valid));
    let part = |value: &Option<Result<Decimal, Absent>>| value.as_ref().map_or_else(|| "any".to_owned(), one);
    match expected {
        Expected::One(value) => one(value),
        Expected::Pressure { systolic, diastolic, mean } => {
            format!("{} / {} / {}", part(systolic), part(diastolic), part(mean))
        }
    }
}

/// What a standard sensor usually tells; some leave out what is optional.
const fn usual_metrics(sensor: SensorKind) -> &'static [Metric] {
    match sensor {
        SensorKind::HeartRate => &[Metric::HeartRate, Metric::RrInterval],
        SensorKind::PulseOximeter | SensorKind::PulseOximeterSpot => &[Metric::Spo2, Metric::PulseRate],
        SensorKind::BloodPressure => &[Metric::BloodPressure, Metric::PulseRate],
        SensorKind::Thermometer => &[Metric::Temperature],
        SensorKind::Glucose => &[Metric::Glucose],
        SensorKind::Scale => &[Metric::Weight],
    }
}

/// The metrics that a profile can give; of a standard sensor, the usual ones and those that its tests show.
pub fn metrics(profile: &Profile) -> BTreeSet<Metric> {
    if let Some(driver) = profile.driver() {
        return super::driver::metrics(driver.kind);
    }
    if profile.is_standard() {
        let shown = profile.tests().iter().flat_map(|test| &test.expect).flat_map(BTreeMap::keys).copied();
        let sensor = profile.ble().and_then(Ble::sensor);
        return shown.chain(sensor.map_or(&[][..], usual_metrics).iter().copied()).collect();
    }
    profile.messages().iter().flat_map(|message| &message.fields).map(|field| field.metric).collect()
}

/// The metrics that a device with this profile is to give from the beginning; none of one that measures now and then.
pub fn expected_metrics(profile: &Profile) -> BTreeSet<Metric> {
    if profile.is_spot_check() {
        return BTreeSet::new();
    }
    profile.driver().map_or_else(|| metrics(profile), |driver| super::driver::expected(driver.kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{built_in, built_in_ids};

    #[test]
    fn every_built_in_profile_passes_its_own_tests_in_every_variant() {
        for id in built_in_ids() {
            let profile = built_in(id).unwrap().unwrap();
            let failures: Vec<String> = run(&profile).into_iter().map(|failure| failure.message).collect();
            assert!(failures.is_empty(), "{id}:\n{}", failures.join("\n"));
        }
    }
}
