//! Dräger MEDIBUS, 9028258 (protocol definition 4.03) and 9028329 (intensive care devices). Not tried on hardware.
//!
//! A ventilator answers one request at a time, asks questions of its own, and sends samples of waves in between, at any
//! place. A value that is missing from an answer is invalid (9028258, p. 11).

mod answer;
mod line;
mod realtime;
mod talk;

use std::collections::BTreeSet;

use super::alarms::{Messages, Settings, Statuses};
use super::tally::Tally;
use super::{Driver, converted, trimmed};
use crate::clock::{Mono, Stamp};
use crate::decode::{Decoded, DecodedVital, FrameCounters, IdentityCounters};
use crate::profile::driver::DriverSettings;
use crate::vitals::{Absent, Decimal, Metric, Quality, Status, Value, Vital};

use answer::Alarm;
use line::{Line, Said};
use realtime::Realtime;
use talk::{Talk, code};

/// Alarms up to this priority are called advisory (9028329); they are told, but do not make the device alarm.
const HIGHEST_ADVISORY: u8 = 10;

/// How a number of the device becomes one of the metric: `number * factor / 10^places`, with so many decimal places.
#[derive(Debug, Clone, Copy)]
struct Unit {
    factor: i64,
    places: i8,
    decimals: i8,
}

const SAME: Unit = Unit { factor: 1, places: 0, decimals: -1 };
const LITRE: Unit = Unit { factor: 1000, places: 0, decimals: 0 };
/// 1 mbar is 1.019716 cmH2O.
const MBAR: Unit = Unit { factor: 1_019_716, places: 6, decimals: 1 };
/// 1 kPa is 7.500617 mmHg.
const KPA: Unit = Unit { factor: 7_500_617, places: 6, decimals: 1 };

/// The codes of code page 1 by which a metric can come, the first that is there counts. Evita 4 gives volumes below and
/// above 1 L under two codes (9028329, p. 27).
const MEASURED: [(Metric, &[(u8, Unit)]); 10] = [
    (Metric::TidalVolume, &[(0x82, LITRE), (0x88, SAME)]),
    (Metric::MinuteVolume, &[(0xB9, SAME), (0xB8, SAME)]),
    (Metric::RespiratoryRate, &[(0xD6, SAME), (0xD7, SAME), (0xD9, SAME), (0xD5, SAME)]),
    (Metric::PeakAirwayPressure, &[(0x7D, MBAR)]),
    (Metric::PlateauPressure, &[(0x74, MBAR)]),
    (Metric::MeanAirwayPressure, &[(0x73, MBAR)]),
    (Metric::Peep, &[(0x78, MBAR)]),
    (Metric::Fio2, &[(0xF0, SAME)]),
    (Metric::Etco2, &[(0xE6, SAME), (0xE3, KPA)]),
    (Metric::Spo2, &[(0xEB, SAME)]),
];
/// Its 0 is no pulse.
const PULSE: (Metric, u8) = (Metric::PulseRate, 0xE1);

/// Alarms of code page 1 that say why values are missing (9028329, p. 30).
const REASONS: [(u8, Absent, &[Metric]); 8] = [
    (0x35, Absent::SensorOff, &[Metric::Spo2, Metric::PulseRate]),
    (0x68, Absent::SensorFault, &[Metric::Spo2, Metric::PulseRate]),
    (0x01, Absent::SignalLost, &[Metric::Spo2, Metric::PulseRate]),
    (0xD9, Absent::NoSensor, &[Metric::Etco2]),
    (0x6A, Absent::SensorFault, &[Metric::Etco2]),
    (0xA1, Absent::SensorFault, &[Metric::Fio2]),
    (0xA4, Absent::SensorFault, &[Metric::TidalVolume, Metric::MinuteVolume, Metric::RespiratoryRate]),
    (0xAD, Absent::SensorFault, PRESSURES),
];
const PRESSURES: &[Metric] =
    &[Metric::PeakAirwayPressure, Metric::PlateauPressure, Metric::MeanAirwayPressure, Metric::Peep];

pub(super) fn metrics() -> BTreeSet<Metric> {
    MEASURED.iter().map(|(metric, _)| *metric).chain([PULSE.0]).collect()
}

/// One device.
#[derive(Debug)]
pub(super) struct Medibus {
    settings: DriverSettings,
    line: Line,
    realtime: Realtime,
    talk: Option<Talk>,
    tally: Tally,
    /// The metrics that the device has given: they are missed when they are not in an answer.
    given: BTreeSet<Metric>,
    /// The alarms of both code pages.
    alarms: [Vec<Alarm>; 2],
    alarm_texts: Messages,
    texts: Messages,
    set: Settings,
    statuses: Statuses,
    device_time: Option<String>,
    identity: Option<String>,
    identified: IdentityCounters,
}

impl Medibus {
    pub(super) fn new(settings: &DriverSettings) -> Self {
        Self {
            settings: settings.clone(),
            line: Line::default(),
            realtime: Realtime::default(),
            talk: None,
            tally: Tally::default(),
            given: BTreeSet::new(),
            alarms: [Vec::new(), Vec::new()],
            alarm_texts: Messages::default(),
            texts: Messages::default(),
            set: Settings::default(),
            statuses: Statuses::default(),
            device_time: None,
            identity: None,
            identified: IdentityCounters::default(),
        }
    }

    fn on_said(&mut self, said: Said, now: Option<Mono>, out: &mut Vec<Decoded>) {
        let Some((talk, now)) = self.talk.as_mut().zip(now) else {
            // A recording, or a line that is only listened to: every answer was one to somebody.
            if let Said::Response { code, data } = said {
                self.on_answer(code, &data, None, out);
            }
            return;
        };
        match said {
            Said::Suspend => talk.suspend(now),
            Said::Resume => talk.resume(now),
            Said::CorruptCommand => talk.on_corrupt_command(now),
            Said::Command { code } => {
                talk.on_command(code, now);
                if matches!(code, code::ICC | code::OFFER_CHANGED | code::STOP) {
                    self.realtime.pause(out);
                }
            }
            Said::Response { code, data } => {
                if talk.on_response(code, now) {
                    self.on_answer(code, &data, Some(now), out);
                }
                if let Some(talk) = &mut self.talk {
                    talk.proceed(now);
                }
            }
        }
    }

    /// The answer to what was asked. One that cannot be read although its sum is right says nothing.
    fn on_answer(&mut self, code: u8, data: &[u8], now: Option<Mono>, out: &mut Vec<Decoded>) {
        match code {
            code::DATA => self.on_data(data, out),
            code::ALARMS => self.on_alarms(0, data, out),
            code::ALARMS_2 => self.on_alarms(1, data, out),
            code::TIME => {
                self.device_time = answer::time(data).map(|time| time.to_string());
                if let Some(talk) = self.talk.as_mut().filter(|_| data.is_empty()) {
                    talk.is_unknown(code);
                }
            }
            code::TEXTS => {
                if let Some(texts) = answer::texts(data) {
                    self.texts.replace(texts.into_iter().map(|text| format!("text {text}")).collect(), out);
                }
            }
            code::SETTINGS => {
                let settings = answer::settings(data).unwrap_or_default();
                self.set.replace(settings.into_iter().map(|(code, set)| (format!("setting {code:02X}"), set)), out);
            }
            code::LOW_LIMITS => self.on_limits("low limit", data, out),
            code::HIGH_LIMITS => self.on_limits("high limit", data, out),
            code::IDENTIFY => self.on_identity(data, now, out),
            code::OFFER => self.on_offers(data, now),
            _ => {}
        }
    }

    fn on_data(&mut self, data: &[u8], out: &mut Vec<Decoded>) {
        let device_time = self.device_time.take();
        let Some(measured) = answer::measured(data) else { return };
        let number_of = |code: u8| measured.iter().find(|(known, _)| *known == code).map(|(_, number)| *number);
        let mut found: Vec<(Metric, Value)> = Vec::new();
        for (metric, codes) in MEASURED {
            let first = codes.iter().find_map(|(code, unit)| Some((number_of(*code)?, *unit)));
            if let Some((number, unit)) = first {
                found.push((metric, value(metric, number, unit)));
            }
        }
        if let Some(number) = number_of(PULSE.1) {
            found.push((PULSE.0, value(PULSE.0, number, SAME)));
        }
        self.given.extend(found.iter().map(|(metric, _)| *metric));
        for metric in &self.given {
            if found.iter().all(|(known, _)| known != metric) {
                found.push((*metric, Value::Absent(self.reason(*metric))));
            }
        }
        out.extend(found.into_iter().map(|(metric, value)| {
            let (vital, device_time) = (Vital::scalar(metric, value), device_time.clone());
            let quality = if value.valid().is_some() { Quality::Valid } else { Quality::NotAvailable };
            Decoded::Vital(DecodedVital { vital, mdc: None, quality, device_time })
        }));
    }

    /// Why a metric is missing, if an alarm says it.
    fn reason(&self, metric: Metric) -> Absent {
        let [first_page, _] = &self.alarms;
        let is_active = |code: u8| first_page.iter().any(|alarm| alarm.code == code);
        let known = REASONS.iter().find(|(code, _, metrics)| metrics.contains(&metric) && is_active(*code));
        known.map_or(Absent::NotMeasured, |(_, reason, _)| *reason)
    }

    fn on_alarms(&mut self, page: usize, data: &[u8], out: &mut Vec<Decoded>) {
        let Some((alarms, slot)) = answer::alarms(data).zip(self.alarms.get_mut(page)) else { return };
        *slot = alarms;
        let all = || self.alarms.iter().flatten();
        let is_alarming = all().any(|alarm| alarm.priority > HIGHEST_ADVISORY);
        let shown = all().map(|alarm| format!("alarm {} {}", alarm.priority, alarm.phrase)).collect();
        self.alarm_texts.replace(shown, out);
        let status = is_alarming.then_some(Status::DeviceAlarm);
        self.statuses.replace(&[Status::DeviceAlarm], &status.into_iter().collect(), out);
    }

    fn on_limits(&mut self, which: &str, data: &[u8], out: &mut Vec<Decoded>) {
        let limits = answer::measured(data).unwrap_or_default();
        let known = limits.into_iter().filter_map(|(code, limit)| Some((code, trimmed(limit?).to_string())));
        self.set.replace(known.map(|(code, limit)| (format!("{which} {code:02X}"), limit)), out);
    }

    fn on_identity(&mut self, data: &[u8], now: Option<Mono>, out: &mut Vec<Decoded>) {
        let identity = answer::identity(data);
        if let Some((talk, now)) = self.talk.as_mut().zip(now) {
            let version = identity.as_ref().map_or(0, |identity| identity.version);
            talk.identified(version, !self.settings.waves.is_empty(), now);
        }
        let Some(identity) = identity else {
            self.identified.missing += 1;
            return;
        };
        self.identified.told += 1;
        let said = format!("{} {}", identity.number, identity.name);
        if self.identity.as_ref() != Some(&said) {
            out.push(Decoded::SerialNumber(said.clone()));
            self.identity = Some(said);
        }
    }

    fn on_offers(&mut self, data: &[u8], now: Option<Mono>) {
        let streams = realtime::choose(&self.settings.waves, &answer::offers(data).unwrap_or_default());
        self.realtime.set(&streams);
        if let Some((talk, now)) = self.talk.as_mut().zip(now) {
            // Each sample: the multiplier is 1 (p. 19).
            let choice = streams.iter().flat_map(|stream| format!("{:02X}01", stream.code).into_bytes());
            talk.offered(choice.collect(), now);
        }
    }
}

/// A number of the device in the metric's unit. `None`: what stood there is no number.
fn value(metric: Metric, number: Option<Decimal>, unit: Unit) -> Value {
    let Some(number) = number else { return Value::Absent(Absent::NotANumber) };
    let number = match unit.decimals {
        -1 => Some(number),
        decimals => converted(number, unit.factor, unit.places, decimals),
    };
    // A measurement that does not exist is not sent, so that a 0 has been measured.
    number.map_or(Value::Absent(Absent::OutOfRange), |number| Value::measured(metric, number))
}

impl Driver for Medibus {
    fn push(&mut self, bytes: &[u8], now: Option<Stamp>, out: &mut Vec<Decoded>) {
        let now = now.map(|now| now.mono);
        for byte in bytes {
            if *byte >= 0x80 {
                self.realtime.take(*byte, &mut self.tally, out);
                continue;
            }
            if let Some((talk, now)) = self.talk.as_mut().zip(now) {
                talk.hear(now);
            }
            if let Some(said) = self.line.take(*byte, &mut self.tally) {
                self.on_said(said, now, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Decoded>) {
        self.realtime.finish(&mut self.tally, out);
        self.line.give_up(&mut self.tally);
    }

    fn pause(&mut self, out: &mut Vec<Decoded>) {
        self.realtime.pause(out);
        self.device_time = None;
    }

    fn reset(&mut self) {
        let (tally, identified) = (std::mem::take(&mut self.tally), self.identified);
        *self = Self { tally, identified, ..Self::new(&self.settings) };
    }

    fn counters(&self) -> FrameCounters {
        self.tally.counters()
    }

    fn identity(&self) -> IdentityCounters {
        self.identified
    }

    fn begin(&mut self, now: Stamp) {
        if self.talk.is_none() {
            self.talk = Some(Talk::new(now.mono, self.settings.interval));
        }
    }

    fn end(&mut self) {
        if let Some(talk) = &mut self.talk {
            talk.stop();
        }
    }

    fn on_time(&mut self, now: Stamp, out: &mut Vec<Decoded>) {
        if let Some(talk) = &mut self.talk
            && talk.on_time(now.mono)
        {
            out.push(Decoded::Event { name: "link time-out".into() });
            self.line.give_up(&mut self.tally);
            self.realtime.pause(out);
            self.device_time = None;
            self.alarms = [Vec::new(), Vec::new()];
            self.alarm_texts.clear();
            self.texts.clear();
            self.set.clear();
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.talk.as_ref().map(Talk::next_deadline)
    }

    fn take_outgoing(&mut self) -> Vec<u8> {
        self.talk.as_mut().map(Talk::take_outgoing).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
