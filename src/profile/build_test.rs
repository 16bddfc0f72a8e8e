//! Checks `[[test]]`: a profile proves itself with a valid case, a sensor-off case and a corrupted case.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::build::Context;
use super::build_message::absent;
use super::model::{EmbeddedTest, Expected, TestCase};
use super::schema::{ExpectDoc, NumberDoc, PartDoc, TestDoc};
use crate::vitals::{Absent, Decimal, Metric};

/// Bytes of one test, repetitions included.
const MAX_TEST_BYTES: usize = 64 * 1024;

pub(super) fn tests(docs: &[Spanned<TestDoc>], are_needed: bool, context: &mut Context<'_>) -> Vec<EmbeddedTest> {
    for case in TestCase::ALL {
        if are_needed && !docs.iter().any(|doc| doc.get_ref().case == *case) {
            context.problem(&(0..0), format!("a profile needs a [[test]] with case = \"{case}\""));
        }
    }
    docs.iter().map(|doc| build_test(doc, context)).collect()
}

fn build_test(spanned: &Spanned<TestDoc>, context: &mut Context<'_>) -> EmbeddedTest {
    let (span, doc) = (spanned.span(), spanned.get_ref());
    let once = match (&doc.hex, &doc.text) {
        (Some(text), None) => context.hex(text),
        (None, Some(text)) => text.as_bytes().to_vec(),
        _ => {
            context.problem(&span, "a test needs `hex` or `text`");
            Vec::new()
        }
    };
    if doc.times == 0 || once.len().saturating_mul(doc.times) > MAX_TEST_BYTES {
        context.problem(&span, format!("a test has 1 to {MAX_TEST_BYTES} bytes"));
    }
    let bytes = once.repeat(doc.times.min(MAX_TEST_BYTES / once.len().max(1)));
    let mut expect: Vec<BTreeMap<Metric, Expected>> = Vec::new();
    for table in &doc.expect {
        let mut vitals = BTreeMap::new();
        for (name, expected) in table.get_ref() {
            if let Some((metric, expected)) = expectation(name, expected, &table.span(), context) {
                vitals.insert(metric, expected);
            }
        }
        expect.push(vitals);
    }
    check_case(doc, &expect, &span, context);
    let status = doc.status.as_ref().map(|names| {
        let mut found = Vec::new();
        for name in names.get_ref() {
            found.extend(context.status(&names.span(), name));
        }
        found
    });
    EmbeddedTest {
        name: doc.name.clone(),
        line: context.line(&span),
        case: doc.case,
        bytes,
        expect,
        waves: doc.waves.clone(),
        status,
        beats: doc.beats,
        events: doc.events.clone(),
        serial_number: doc.serial_number.clone(),
        device_time: doc.device_time.clone(),
        frames: doc.frames,
        bad_checksum: doc.bad_checksum,
        skipped_bytes: doc.skipped_bytes,
    }
}

/// A test must show what its case says, so that it cannot pass by expecting nothing.
fn check_case(doc: &TestDoc, expect: &[BTreeMap<Metric, Expected>], span: &Range<usize>, context: &mut Context<'_>) {
    let all = || expect.iter().flat_map(BTreeMap::values);
    let is_valid = |expected: &Expected| match expected {
        Expected::One(value) => value.is_ok(),
        Expected::Pressure { systolic, diastolic, mean } => {
            [systolic, diastolic, mean].into_iter().any(|part| matches!(part, Some(Ok(_))))
        }
    };
    let message = match doc.case {
        TestCase::Valid if !all().any(is_valid) && doc.waves.is_empty() && doc.beats.is_none() => {
            "a valid case expects a value, a wave or a beat"
        }
        TestCase::SensorOff if all().all(is_valid) => "a sensor_off case expects a value that is withheld",
        TestCase::Corrupted if doc.bad_checksum.is_none() && doc.skipped_bytes.is_none() => {
            "a corrupted case says how many frames have a `bad_checksum` or bytes are skipped (`skipped_bytes`)"
        }
        _ => return,
    };
    context.problem(span, message);
}

fn expectation(
    name: &str,
    doc: &ExpectDoc,
    span: &Range<usize>,
    context: &mut Context<'_>,
) -> Option<(Metric, Expected)> {
    let Some(metric) = Metric::from_name(name) else {
        let known = super::build::nearest(name, Metric::ALL.iter().map(|metric| metric.name()));
        context.problem(span, format!("`{name}` is not a metric; the nearest is `{known}`"));
        return None;
    };
    let is_pressure = matches!(metric, Metric::BloodPressure | Metric::ArterialPressure);
    let expected = match doc {
        ExpectDoc::Number(number) if !is_pressure => Expected::One(Ok(decimal(number, span, context)?)),
        ExpectDoc::Reason(reason) if !is_pressure => Expected::One(Err(absent(reason, span, context)?)),
        ExpectDoc::Reason(reason) => {
            let reason = Some(Err(absent(reason, span, context)?));
            Expected::Pressure { systolic: reason, diastolic: reason, mean: reason }
        }
        ExpectDoc::Pressure(parts) if is_pressure => {
            let mut read = |part: &Option<PartDoc>| part.as_ref().and_then(|part| part_value(part, span, context));
            let (systolic, diastolic, mean) = (read(&parts.systolic), read(&parts.diastolic), read(&parts.mean));
            Expected::Pressure { systolic, diastolic, mean }
        }
        ExpectDoc::Number(_) | ExpectDoc::Pressure(_) => {
            context.problem(span, format!("{metric} is expected in a form it cannot have"));
            return None;
        }
    };
    Some((metric, expected))
}

fn part_value(part: &PartDoc, span: &Range<usize>, context: &mut Context<'_>) -> Option<Result<Decimal, Absent>> {
    match part {
        PartDoc::Number(number) => decimal(number, span, context).map(Ok),
        PartDoc::Reason(reason) => absent(reason, span, context).map(Err),
    }
}

fn decimal(number: &NumberDoc, span: &Range<usize>, context: &mut Context<'_>) -> Option<Decimal> {
    let text = match number {
        NumberDoc::Integer(number) => number.to_string(),
        NumberDoc::Float(number) => number.to_string(),
    };
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => {
            context.problem(span, format!("{error}"));
            None
        }
    }
}
