//! Checks `[driver]`: the drivers that a profile can name where a protocol is a conversation and no stream of frames.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::build::{Context, nearest};
use super::checksum::{Checksum, ChecksumKind, Encoding, Endian};
use super::model::{Delimited, Escape, Escaped, Framing, Rule};
use super::schema::{DriverDoc, ProfileDoc};
use crate::named::named_enum;

/// Waves that one device is asked for at most: a DRI request has room for 8 (M1017617, 4), of the 12 that MEDIBUS can
/// carry (9028258, p. 19) the sync byte itself announces the first 4.
pub const MAX_WAVES: usize = 8;
/// Longest pause between two requests for the same numbers.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// Samples a second that a monitor sends over a line of 19200 bit/s (M1017617, 4).
const DRI_SAMPLES: u32 = 600;
/// From this speed on that limit does not apply (M1017617, 4).
const DRI_FAST_BAUD: u32 = 115_200;

named_enum! {
    /// Protocols that are read by a driver in Rust.
    DriverKind {
        /// Dräger MEDIBUS (9028258): ventilators and anaesthesia machines.
        Medibus = "medibus",
        /// GE Datex-Ohmeda S/5 record interface (8005313, M1017617): monitors.
        DatexDri = "datex-dri",
    }
}

/// A wave that a driver can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DriverWave {
    /// Its name in the profile and in what is decoded.
    pub name: &'static str,
    /// Samples a second; 0 where the device itself says it.
    pub hz: u32,
}

const fn wave(name: &'static str, hz: u32) -> DriverWave {
    DriverWave { name, hz }
}

/// The rate is part of the device's answer (9028258, p. 20).
const MEDIBUS_WAVES: &[DriverWave] = &[
    wave("airway_pressure", 0),
    wave("airway_flow", 0),
    wave("pleth", 0),
    wave("airway_volume", 0),
    wave("o2", 0),
    wave("co2", 0),
];

/// 8005313, table 5-3.
const DATEX_WAVES: &[DriverWave] = &[
    wave("ecg1", 300),
    wave("ecg2", 300),
    wave("ecg3", 300),
    wave("pressure1", 100),
    wave("pressure2", 100),
    wave("pressure3", 100),
    wave("pressure4", 100),
    wave("pleth", 100),
    wave("co2", 25),
    wave("o2", 25),
    wave("n2o", 25),
    wave("agent", 25),
    wave("airway_pressure", 25),
    wave("airway_flow", 25),
    wave("resp", 25),
    wave("pressure5", 100),
    wave("pressure6", 100),
    wave("airway_volume", 25),
    wave("pressure7", 100),
    wave("pressure8", 100),
    wave("pleth2", 100),
];

impl DriverKind {
    /// True if the device says who it is: MEDIBUS tells the model (9028258, command 52h), not the single device; DRI says
    /// nothing of the kind.
    pub const fn tells_serial_number(self) -> bool {
        matches!(self, Self::Medibus)
    }

    /// The waves that it can ask for.
    pub const fn waves(self) -> &'static [DriverWave] {
        match self {
            Self::Medibus => MEDIBUS_WAVES,
            Self::DatexDri => DATEX_WAVES,
        }
    }

    /// How often numbers are asked for, if the profile does not say, and how often at most.
    const fn intervals(self) -> (Duration, Duration) {
        match self {
            Self::Medibus => (Duration::from_secs(1), Duration::from_secs(1)),
            // M1017617, 3: displayed values are sent every 5 s at most.
            Self::DatexDri => (Duration::from_secs(5), Duration::from_secs(5)),
        }
    }

    /// What its messages look like on the line. The driver finds them itself.
    fn framing(self) -> Framing {
        let mark = |byte: u8| vec![byte];
        let sum = |encoding: Encoding, width: i32| Checksum {
            kind: ChecksumKind::Sum8,
            from: 0,
            to: -width,
            at: -width,
            endian: Endian::Little,
            encoding,
            absent_below: 0,
        };
        let (start, end, escape, min, max, checksum) = match self {
            // 9028258, p. 10: SOH, at most 3845 bytes, CR.
            Self::Medibus => (mark(0x01), mark(0x0D), None, 3, 3845, sum(Encoding::Hex, 2)),
            // M1017617, 2: a record of 40 + 1450 bytes and its sum, each of which may be escaped.
            Self::DatexDri => {
                let escape = Escape { byte: 0x7D, escaped: Escaped::Or(0x20), abort: None };
                (mark(0x7E), mark(0x7E), Some(escape), 41, 2 * 1491 + 2, sum(Encoding::Raw, 1))
            }
        };
        let rule = Rule::Delimited(Delimited { start, end, escape, opaque: 0, min, lines: None });
        Framing { rule, checksum: Some(checksum), lock: 1, max }
    }
}

/// What a profile asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverSettings {
    /// Which one.
    pub kind: DriverKind,
    /// How often it asks for numbers.
    pub interval: Duration,
    /// The waves that it asks for, the most wanted first.
    pub waves: Vec<&'static str>,
}

/// Checks `[driver]` and that nothing else in the profile does the driver's work.
pub(super) fn settings(
    spanned: &Spanned<DriverDoc>,
    doc: &ProfileDoc,
    silence: Duration,
    context: &mut Context<'_>,
) -> Option<(DriverSettings, Framing)> {
    refuse_what_a_driver_does(doc, &spanned.span(), context);
    let driver = spanned.get_ref();
    let name = driver.name.get_ref();
    let Some(kind) = DriverKind::from_name(name) else {
        let known: Vec<&str> = DriverKind::ALL.iter().map(|kind| kind.name()).collect();
        context.problem(&driver.name.span(), format!("there is no driver `{name}`; there are {}", known.join(", ")));
        return None;
    };
    let (usual, shortest) = kind.intervals();
    let interval = driver.interval.as_ref().map_or(usual, |text| context.duration(text));
    if !(shortest..=MAX_INTERVAL).contains(&interval) || interval >= silence {
        let span = driver.interval.as_ref().map_or_else(|| spanned.span(), Spanned::span);
        let (shortest, longest) = (shortest.as_secs(), MAX_INTERVAL.as_secs());
        let message = format!("interval must be {shortest} s to {longest} s, and shorter than silence in [link]");
        context.problem(&span, message);
    }
    let waves = waves(kind, driver, doc, context);
    Some((DriverSettings { kind, interval, waves }, kind.framing()))
}

fn waves(kind: DriverKind, driver: &DriverDoc, doc: &ProfileDoc, context: &mut Context<'_>) -> Vec<&'static str> {
    let mut found: Vec<DriverWave> = Vec::new();
    for text in &driver.waves {
        let name = text.get_ref();
        match kind.waves().iter().find(|wave| wave.name == name) {
            Some(wave) if found.contains(wave) => {
                context.problem(&text.span(), format!("wave `{name}` is there twice"));
            }
            Some(wave) => found.push(*wave),
            None => {
                let known = nearest(name, kind.waves().iter().map(|wave| wave.name));
                context.problem(&text.span(), format!("{kind} has no wave `{name}`; the nearest is `{known}`"));
            }
        }
    }
    let Some(first) = driver.waves.first() else { return Vec::new() };
    let most = if kind == DriverKind::Medibus { 4 } else { MAX_WAVES };
    if found.len() > most {
        context.problem(&first.span(), format!("{} waves are asked for, at most {most}", found.len()));
    }
    let samples: u32 = found.iter().map(|wave| wave.hz).sum();
    if samples > DRI_SAMPLES && !is_fast(doc) {
        let message = format!("the waves have {samples} samples a second, below {DRI_FAST_BAUD} bit/s at most 600 fit");
        context.problem(&first.span(), message);
    }
    found.into_iter().map(|wave| wave.name).collect()
}

/// True if every line setting is fast enough for any number of samples.
fn is_fast(doc: &ProfileDoc) -> bool {
    let baud = |text: &Spanned<String>| text.get_ref().split(' ').next().and_then(|baud| baud.parse::<u32>().ok());
    doc.serial.as_ref().is_some_and(|serial| {
        serial.get_ref().settings.iter().all(|text| baud(text).is_some_and(|baud| baud >= DRI_FAST_BAUD))
    })
}

fn refuse_what_a_driver_does(doc: &ProfileDoc, span: &Range<usize>, context: &mut Context<'_>) {
    let tables = [
        ("[frame]", doc.frame.is_some()),
        ("[superframe]", doc.superframe.is_some()),
        ("[[message]]", !doc.message.is_empty()),
        ("[ble]", doc.ble.is_some()),
        ("init, poll, keep_alive, stop or commands in [link]", doc.link.as_ref().is_some_and(|l| l.get_ref().sends())),
    ];
    for (table, is_there) in tables {
        if is_there {
            context.problem(span, format!("a profile with [driver] has no {table}: the driver does that"));
        }
    }
    if doc.serial.is_none() {
        context.problem(span, "a driver needs [serial]");
    }
}
