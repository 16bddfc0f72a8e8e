//! GE Datex-Ohmeda S/5 and CARESCAPE Bx50 monitors: 8005313 (records) and M1017617 (serial line), both 12th edition.
//! Not tried on hardware.
//!
//! The monitor sends nothing until it is asked; then it sends displayed values every few seconds, waves several times a
//! second and, CARESCAPE only, its alarms when they change.

mod numbers;
mod record;
mod waves;

use std::collections::BTreeSet;
use std::time::Duration;

use super::Driver;
use super::alarms::{Messages, Statuses, text};
use super::tally::Tally;
use crate::clock::{Mono, Stamp, Wall};
use crate::decode::{Decoded, DecodedVital, FrameCounters};
use crate::profile::driver::DriverSettings;
use crate::vitals::{Absent, Metric, Pressure, Quality, Status, Value, Vital};

use numbers::{Cuff, Found, Numbers};
use record::{Deframer, END_OF_LIST, Main, Record, i16_at, request};
use waves::Waves;

/// Subrecord type of displayed values (8005313, table 3-1).
const DISPLAYED: u8 = 1;
/// Subrecord type of an alarm status (table 4-1).
const ALARM_STATUS: u8 = 1;
/// Alarms of a message, their place, and the bytes of one (4.2.1).
const ALARMS: (usize, usize, usize) = (5, 10, 98);
/// Waves are asked for again when none has come for so long: after 2 s without CTS the monitor stops them.
const WAVES_AGAIN: Duration = Duration::from_secs(5);
/// Numbers are asked for again when none has come for three intervals, at least this.
const NUMBERS_AGAIN: Duration = Duration::from_secs(15);

pub(super) fn metrics() -> BTreeSet<Metric> {
    numbers::METRICS.into_iter().collect()
}

/// When something is asked for again.
#[derive(Debug)]
struct Talk {
    numbers_at: Mono,
    /// `None`: no waves are wanted.
    waves_at: Option<Mono>,
    outgoing: Vec<u8>,
}

/// One monitor.
#[derive(Debug)]
pub(super) struct DatexDri {
    settings: DriverSettings,
    deframer: Deframer,
    waves: Waves,
    talk: Option<Talk>,
    tally: Tally,
    /// The metrics that the monitor has given: their module is missed when it is unplugged.
    given: BTreeSet<Metric>,
    /// The cuff's measurement that was told last, and whether it was old by then.
    cuff: Option<Cuff>,
    was_measuring: bool,
    is_asystole: bool,
    alarms: Messages,
    statuses: Statuses,
}

impl DatexDri {
    pub(super) fn new(settings: &DriverSettings) -> Self {
        Self {
            settings: settings.clone(),
            deframer: Deframer::default(),
            waves: Waves::default(),
            talk: None,
            tally: Tally::default(),
            given: BTreeSet::new(),
            cuff: None,
            was_measuring: false,
            is_asystole: false,
            alarms: Messages::default(),
            statuses: Statuses::default(),
        }
    }

    fn on_record(&mut self, record: &Record<'_>, now: Option<Mono>, out: &mut Vec<Decoded>) {
        match record.main {
            Some(Main::Numbers) => {
                for (kind, subrecord) in &record.subrecords {
                    if let Some(numbers) = (*kind == DISPLAYED).then(|| numbers::read(subrecord)).flatten() {
                        self.on_numbers(numbers, out);
                        if let Some((talk, now)) = self.talk.as_mut().zip(now) {
                            talk.numbers_at = now + patience(&self.settings);
                        }
                    }
                }
            }
            Some(Main::Waves) => {
                for (kind, subrecord) in &record.subrecords {
                    if self.waves.take(*kind, subrecord, out)
                        && let Some((talk, now)) = self.talk.as_mut().zip(now)
                        && talk.waves_at.is_some()
                    {
                        talk.waves_at = Some(now + WAVES_AGAIN);
                    }
                }
            }
            Some(Main::Alarms) => {
                for (kind, subrecord) in &record.subrecords {
                    if *kind == ALARM_STATUS {
                        self.on_alarms(subrecord, out);
                    }
                }
            }
            None => {}
        }
    }

    fn on_numbers(&mut self, numbers: Numbers, out: &mut Vec<Decoded>) {
        // The monitor's clock has no zone: without the fraction and the Z of a time that is known.
        let time = Wall(i64::from(numbers.time) * 1000).to_string();
        let device_time = time.get(..19).filter(|_| numbers.time > 0).map(str::to_owned);
        let mut found = numbers.found;
        // A module that is there and measures nothing is no news, until it has measured something.
        let is_idle = |found: &Found| found.vital.leading() == Value::Absent(Absent::NotMeasured);
        found.retain(|found| !is_idle(found) || self.given.contains(&found.vital.metric()));
        let there: BTreeSet<Metric> = found.iter().map(|found| found.vital.metric()).collect();
        for metric in self.given.difference(&there) {
            found.push(Found { vital: missing(*metric), mdc: None, quality: Quality::NotAvailable });
        }
        self.given.extend(there);
        found.extend(numbers.cuff.into_iter().flat_map(|cuff| self.new_cuff(cuff)));
        out.extend(found.into_iter().map(|Found { vital, mdc, quality }| {
            // When an old one of the cuff was measured, the monitor does not say.
            let device_time = device_time.clone().filter(|_| quality != Quality::Historic);
            Decoded::Vital(DecodedVital { vital, mdc, quality, device_time })
        }));
        self.statuses.replace(&numbers::STATUSES, &numbers.statuses, out);
        if numbers.is_asystole && !self.is_asystole {
            out.push(Decoded::Event { name: "asystole".into() });
        }
        self.is_asystole = numbers.is_asystole;
    }

    /// A measurement is told once: when the cuff has been inflated since the last, when its numbers differ, or when it
    /// is new although the last one had grown old.
    fn new_cuff(&mut self, cuff: Cuff) -> Vec<Found> {
        if cuff.is_measuring {
            self.was_measuring = true;
            return Vec::new();
        }
        let was_measuring = std::mem::take(&mut self.was_measuring);
        let vitals = |cuff: &Cuff| cuff.found.iter().map(|found| found.vital.clone()).collect::<Vec<Vital>>();
        let is_known = self.cuff.as_ref().is_some_and(|known| {
            let is_renewed = known.is_old && !cuff.is_old;
            vitals(known) == vitals(&cuff) && !is_renewed
        });
        // Before the first measurement there is nothing to tell.
        let is_empty = cuff.found.iter().all(|found| found.vital.leading().valid().is_none());
        let is_told = (was_measuring || !is_known) && !(is_empty && self.cuff.is_none() && !was_measuring);
        let found = if is_told { cuff.found.clone() } else { Vec::new() };
        if self.cuff.is_some() || is_told {
            self.cuff = Some(cuff);
        }
        found
    }

    /// 4.2.1: up to five texts, in the language of the monitor.
    fn on_alarms(&mut self, message: &[u8], out: &mut Vec<Decoded>) {
        let (count, first, size) = ALARMS;
        let Some(all) = message.get(first..first + count * size) else { return };
        let mut shown = BTreeSet::new();
        for alarm in all.chunks_exact(size) {
            let colour = match i16_at(alarm, 82) {
                Some(1) => "white",
                Some(2) => "yellow",
                Some(3) => "red",
                _ => continue,
            };
            shown.insert(format!("alarm {colour} {}", text(alarm.get(..80).unwrap_or_default())));
        }
        let mut statuses = BTreeSet::new();
        statuses.extend((!shown.is_empty()).then_some(Status::DeviceAlarm));
        statuses.extend(i16_at(message, 8).is_some_and(|silence| silence != 0).then_some(Status::AlarmSilenced));
        self.alarms.replace(shown, out);
        self.statuses.replace(&[Status::DeviceAlarm, Status::AlarmSilenced], &statuses, out);
    }

    /// M1017617, 3: displayed values of the basic class, every `interval`; 0 s cancels them.
    fn numbers_request(interval: Duration) -> Vec<u8> {
        let seconds = u16::try_from(interval.as_secs()).unwrap_or(u16::MAX).to_le_bytes();
        let mut body = vec![DISPLAYED];
        body.extend(seconds);
        body.extend([0; 6]);
        request(Main::Numbers, &body)
    }

    /// M1017617, 4: 0 starts these waves, 1 stops all.
    fn waves_request(kind: u8, names: &[&str]) -> Vec<u8> {
        let mut body = vec![kind, 0, 0, 0];
        let mut types = waves::types(names);
        types.truncate(8);
        if types.len() < 8 {
            types.push(END_OF_LIST);
        }
        body.extend(types);
        body.resize(32, 0);
        request(Main::Waves, &body)
    }

    /// M1017617, 5: 2 enters the mode in which changes are sent, 3 leaves it.
    fn alarms_request(command: u8) -> Vec<u8> {
        let mut body = vec![command];
        body.resize(12, 0);
        request(Main::Alarms, &body)
    }
}

fn patience(settings: &DriverSettings) -> Duration {
    NUMBERS_AGAIN.max(settings.interval * 3)
}

/// A metric whose module is not there any more.
const fn missing(metric: Metric) -> Vital {
    let none = Value::Absent(Absent::NoSensor);
    match metric {
        Metric::ArterialPressure => Vital::ArterialPressure(Pressure { systolic: none, diastolic: none, mean: none }),
        _ => Vital::scalar(metric, none),
    }
}

impl Driver for DatexDri {
    fn push(&mut self, bytes: &[u8], now: Option<Stamp>, out: &mut Vec<Decoded>) {
        for byte in bytes {
            let Some((content, raw)) = self.deframer.take(*byte, &mut self.tally) else { continue };
            if let Some(record) = Record::parse(&content) {
                self.tally.good();
                self.on_record(&record, now.map(|now| now.mono), out);
            } else {
                self.tally.skip(raw);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Decoded>) {
        self.deframer.give_up(&mut self.tally);
        self.waves.finish(out);
    }

    fn pause(&mut self, out: &mut Vec<Decoded>) {
        self.waves.gap(out);
    }

    fn reset(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        *self = Self { tally, ..Self::new(&self.settings) };
    }

    fn counters(&self) -> FrameCounters {
        self.tally.counters()
    }

    fn begin(&mut self, now: Stamp) {
        if self.talk.is_some() {
            return;
        }
        let wants_waves = !self.settings.waves.is_empty();
        let (numbers_at, waves_at) = (now.mono, wants_waves.then_some(now.mono));
        self.talk = Some(Talk { numbers_at, waves_at, outgoing: Vec::new() });
        self.on_time(now, &mut Vec::new());
    }

    fn end(&mut self) {
        if let Some(talk) = &mut self.talk {
            talk.outgoing = Self::numbers_request(Duration::ZERO);
            talk.outgoing.extend(Self::alarms_request(3));
            if talk.waves_at.is_some() {
                talk.outgoing.extend(Self::waves_request(1, &[]));
            }
        }
    }

    fn on_time(&mut self, now: Stamp, out: &mut Vec<Decoded>) {
        let Some(talk) = &mut self.talk else { return };
        if talk.outgoing.len() > super::MAX_OUTGOING {
            talk.outgoing.clear();
        }
        if talk.numbers_at <= now.mono {
            talk.outgoing.extend(Self::numbers_request(self.settings.interval));
            talk.outgoing.extend(Self::alarms_request(2));
            talk.numbers_at = now.mono + patience(&self.settings);
        }
        if talk.waves_at.is_some_and(|at| at <= now.mono) {
            talk.outgoing.extend(Self::waves_request(0, &self.settings.waves));
            talk.waves_at = Some(now.mono + WAVES_AGAIN);
            self.waves.gap(out);
        }
    }

    fn next_deadline(&self) -> Option<Mono> {
        self.talk.as_ref().map(|talk| talk.waves_at.map_or(talk.numbers_at, |at| at.min(talk.numbers_at)))
    }

    fn take_outgoing(&mut self) -> Vec<u8> {
        self.talk.as_mut().map(|talk| std::mem::take(&mut talk.outgoing)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
