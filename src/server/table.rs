//! One reading as a row of CSV (RFC 4180), safe to open in a spreadsheet.

use crate::event::Event;
use crate::vitals::{Absent, Decimal, Pressure, Reading, Value, Vital, rr_millis};

/// The columns.
const HEADER: [&str; 22] = [
    "epoch",
    "seq",
    "timestamp",
    "received",
    "patient_id",
    "device_id",
    "source_id",
    "metric",
    "value",
    "unit",
    "systolic",
    "diastolic",
    "mean",
    "intervals_ms",
    "details",
    "absent",
    "quality",
    "mode",
    "mdc",
    "ts_source",
    "ts_uncertainty_ms",
    "device_time",
];

/// The first line.
pub fn header() -> Vec<u8> {
    line(&HEADER.map(str::to_owned))
}

/// A reading as a line.
pub fn row(event: &Event, reading: &Reading) -> Vec<u8> {
    line(&cells(event, reading))
}

/// Cells with the quotes they need.
fn line(cells: &[String]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // Writing into memory does not fail.
    writer.write_record(cells).ok().and_then(|()| writer.into_inner().ok()).unwrap_or_default()
}

/// The cells of a reading, in the order of [`HEADER`]. What is absent is an empty cell, and `absent` says why.
fn cells(event: &Event, reading: &Reading) -> [String; 22] {
    let metric = reading.vital.metric();
    let info = metric.info();
    let leading = reading.vital.leading();
    let (systolic, diastolic, mean) = match &reading.vital {
        Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => parts(pressure),
        _ => Default::default(),
    };
    let taken = &reading.taken;
    [
        text(event.epoch.as_str()),
        event.seq.to_string(),
        taken.wall.map(|wall| wall.to_string()).unwrap_or_default(),
        reading.received.wall.to_string(),
        reading.patient.as_ref().map(|patient| text(patient.as_str())).unwrap_or_default(),
        text(reading.device.as_str()),
        text(reading.source.as_str()),
        metric.name().to_owned(),
        number(leading),
        text(info.unit),
        systolic,
        diastolic,
        mean,
        intervals(&reading.vital),
        details(&reading.vital),
        leading.absent().map(Absent::name).unwrap_or_default().to_owned(),
        reading.quality.name().to_owned(),
        reading.mode.name().to_owned(),
        reading.mdc.unwrap_or(info.mdc).to_string(),
        taken.source.name().to_owned(),
        taken.uncertainty_ms.map_or_else(String::new, |ms| ms.to_string()),
        taken.device_time.as_deref().map(text).unwrap_or_default(),
    ]
}

/// A cell that no spreadsheet takes for a formula: what begins like one gets an apostrophe before it. Numbers are not
/// touched: they are written by this file alone and may be negative.
fn text(of: &str) -> String {
    match of.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '\'') => format!("'{of}"),
        _ => of.to_owned(),
    }
}

fn number(value: Value) -> String {
    value.valid().as_ref().map(Decimal::to_string).unwrap_or_default()
}

fn parts(pressure: &Pressure) -> (String, String, String) {
    (number(pressure.systolic), number(pressure.diastolic), number(pressure.mean))
}

fn intervals(vital: &Vital) -> String {
    let Vital::RrIntervals(beats) = vital else { return String::new() };
    let beats: Vec<String> = beats.iter().filter_map(|raw| rr_millis(*raw)).map(|beat| beat.to_string()).collect();
    beats.join(" ")
}

/// What the bridge computed of several readings, as JSON.
fn details(vital: &Vital) -> String {
    match vital {
        Vital::News2(score) => serde_json::to_string(score).unwrap_or_default(),
        Vital::Variability(found) => serde_json::to_string(found).unwrap_or_default(),
        Vital::Scalar { .. } | Vital::BloodPressure(_) | Vital::ArterialPressure(_) | Vital::RrIntervals(_) => {
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_compute_is_text() {
        for (of, expected) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-P1", "'-P1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\tx", "'\tx"),
            ("\r=1", "'\r=1"),
            ("'=1", "''=1"),
            ("P-1", "P-1"),
            ("", ""),
        ] {
            assert_eq!(text(of), expected, "{of:?}");
        }
    }
}
