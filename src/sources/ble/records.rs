//! Single measurements on their way into the log: which are new, what belongs together, and which were kept in the sensor
//! until now. A pure machine.
//!
//! A record goes through three steps. One that is known is left out. A glucose with a context waits for it, because the
//! context may say that it is no glucose. And each waits a moment for the next one of its kind: what another one follows
//! that was measured later is not a measurement of now, and must not alarm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::sensor::GLUCOSE_MEASUREMENT;
use crate::clock::{Mono, Stamp, Wall};
use crate::decode::Decoded;
use crate::decode::gatt::{BLOOD_PRESSURE_MEASUREMENT, Detail, Report};
use crate::profile::ble::Quirk;
use crate::record::{KnownRecords, MAX_KNOWN_RECORDS, RecordKey};
use crate::sources::output::RecordBytes;
use crate::vitals::Quality;

/// GLS 1.0.1, 3.2: a context is sent right after its measurement. Later than this, it does not come.
const CONTEXT_WAIT: Duration = Duration::from_secs(5);
/// A sensor that hands over several sends the next one within this time. No cuff measures so fast.
const NEXT_WITHIN: Duration = Duration::from_secs(2);
/// What was measured so much earlier than another one of the same visit was kept until now.
const KEPT_MS: i64 = 60_000;
/// The first of a visit that goes on with older ones waits for their end, so that the newest is told last, but no longer
/// than this: it may have to alarm.
const FIRST_WAITS: Duration = Duration::from_secs(10);
/// Measurements that may wait for their context; one more, and the oldest goes on without.
const MAX_WAITING: usize = 8;

/// Weight Measurement, Body Composition Measurement, Temperature Measurement, Glucose Measurement, PLX Spot-Check.
const OTHER_RECORDS: [u16; 5] = [0x2A9D, 0x2A9C, 0x2A1C, 0x2A18, 0x2A5E];
/// Glucose Measurement Context.
pub(super) const GLUCOSE_CONTEXT: u16 = 0x2A34;
/// GLS 1.0.1, 3.2.1: from here on meals are reserved; the only known use is a ketone.
const FIRST_RESERVED_MEAL: u8 = 6;

/// True for a characteristic whose every payload is a measurement of its own.
pub(super) fn is_record(characteristic: u16) -> bool {
    characteristic == BLOOD_PRESSURE_MEASUREMENT || OTHER_RECORDS.contains(&characteristic)
}

/// The records of a device that are known, whether they are on disk already or not.
#[derive(Debug, Default)]
pub(crate) struct Known {
    keys: BTreeSet<RecordKey>,
    /// In the order in which they came.
    order: VecDeque<RecordKey>,
    /// Everything up to this number of the device's memory is on disk.
    pub(super) through: Option<u16>,
}

impl From<KnownRecords> for Known {
    fn from(records: KnownRecords) -> Self {
        let mut known = Self { through: records.through, ..Self::default() };
        records.keys.into_iter().for_each(|key| known.insert(key));
        known
    }
}

impl Known {
    fn insert(&mut self, key: RecordKey) {
        if self.keys.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_KNOWN_RECORDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

/// A measurement with all that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measurement {
    /// What it says.
    pub(super) decoded: Vec<Decoded>,
    /// Its bytes.
    pub(super) bytes: RecordBytes,
    /// When it came.
    pub(super) received: Stamp,
    key: Option<RecordKey>,
    /// How many measurements in a row, with this one, were taken well before the one that was sent before them.
    falls: u32,
}

/// What became of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is on its way; `None`: it has no name.
    New(Option<RecordKey>),
    /// It came before.
    Again(RecordKey),
}

/// A measurement and when it goes on by itself.
#[derive(Debug)]
struct Waiting {
    measurement: Measurement,
    until: Mono,
}

/// The measurements of one device that are on their way.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Glucose that waits for its context, oldest first.
    contexts: VecDeque<Waiting>,
    /// The last one of each characteristic, which waits for the next.
    last: BTreeMap<u16, Waiting>,
    /// The one of each characteristic after which older ones came.
    first: BTreeMap<u16, Waiting>,
    /// Whether a glucose without the context that it promises is doubtful: this meter writes ketones as glucose, and
    /// only the context tells.
    writes_ketones: bool,
}

impl Intake {
    /// For a meter that writes ketones as glucose, or for any other sensor.
    pub(super) fn new(quirks: &[Quirk]) -> Self {
        Self { writes_ketones: quirks.contains(&Quirk::KetoneAsMeal), ..Self::default() }
    }

    /// Takes a payload of a characteristic of [`is_record`]; what can go on is added to `ready`.
    pub(super) fn take(
        &mut self,
        known: &Known,
        characteristic: u16,
        report: Report,
        ready: &mut Vec<Measurement>,
        received: Stamp,
    ) -> Taken {
        let has_context = report.details.get("context_follows") == Some(&Detail::Flag(true));
        let measurement = measurement(characteristic, report, received);
        if let Some(key) = &measurement.key
            && (known.keys.contains(key) || self.is_on_its_way(key))
        {
            return Taken::Again(key.clone());
        }
        let taken = Taken::New(measurement.key.clone());
        if has_context {
            self.contexts.push_back(Waiting { measurement, until: received.mono + CONTEXT_WAIT });
            if self.contexts.len() > MAX_WAITING {
                self.give_up_oldest_context(ready);
            }
        } else {
            // What was sent before it goes on before it.
            while characteristic == GLUCOSE_MEASUREMENT.uuid && !self.contexts.is_empty() {
                self.give_up_oldest_context(ready);
            }
            self.pass(measurement, ready);
        }
        taken
    }

    fn is_on_its_way(&self, key: &RecordKey) -> bool {
        self.waiting().any(|waiting| waiting.measurement.key.as_ref() == Some(key))
    }

    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.contexts.iter().chain(self.last.values()).chain(self.first.values())
    }

    /// Takes a context; true if its measurement has waited for it.
    pub(super) fn take_context(&mut self, context: &Report, ready: &mut Vec<Measurement>) -> bool {
        let is_its = |waiting: &Waiting| waiting.measurement.bytes.number == context.record;
        let Some(place) = self.contexts.iter().position(is_its) else { return false };
        // A context comes right after its measurement: those before it have none.
        for _ in 0..place {
            self.give_up_oldest_context(ready);
        }
        let Some(mut waiting) = self.contexts.pop_front() else { return false };
        let measurement = &mut waiting.measurement;
        measurement.bytes.context = Some(context.raw_hex());
        let is_ketone = |part: &Decoded| matches!(part, Decoded::Event { name } if **name == *"ketone");
        if context.decoded.iter().any(is_ketone) {
            measurement.bytes.found.push("ketone".to_owned());
            measurement.decoded.retain(|part| matches!(part, Decoded::Status(_)));
        } else if is_reserved_meal(context) {
            measurement.bytes.found.push("reserved_meal".to_owned());
            measurement.doubt();
        }
        self.pass(waiting.measurement, ready);
        true
    }

    /// The oldest goes on without its context: what it would have said is not known.
    fn give_up_oldest_context(&mut self, ready: &mut Vec<Measurement>) {
        if let Some(Waiting { mut measurement, .. }) = self.contexts.pop_front() {
            measurement.bytes.found.push("context_missing".to_owned());
            if self.writes_ketones {
                measurement.doubt();
            }
            self.pass(measurement, ready);
        }
    }

    /// Takes what is complete: the one before it goes on, and it waits for the next.
    fn pass(&mut self, mut measurement: Measurement, ready: &mut Vec<Measurement>) {
        let characteristic = measurement.bytes.characteristic;
        let mut before = self.last.remove(&characteristic).map(|waiting| waiting.measurement);
        if let Some(before) = &mut before {
            let later_by = measurement.time().zip(before.time()).map(|(time, before)| time.0.saturating_sub(before.0));
            if let Some(ms) = later_by {
                measurement.falls = if ms < -KEPT_MS { before.falls.saturating_add(1) } else { 0 };
                // Another one was measured later; or in the midst of a memory that comes newest first.
                before.bytes.is_late = ms > KEPT_MS || before.falls > 0 && measurement.falls > 0;
            } else {
                // Without times only the haste tells.
                let haste = measurement.received.mono.since(before.received.mono) < NEXT_WITHIN;
                before.bytes.is_late = haste && characteristic == BLOOD_PRESSURE_MEASUREMENT;
            }
        }
        if let Some(before) = before {
            self.follow(before, measurement.falls > 0, ready);
        }
        let until = measurement.received.mono + NEXT_WITHIN;
        self.last.insert(characteristic, Waiting { measurement, until });
    }

    /// Another one has come after `before`, and was measured well before it or not.
    fn follow(&mut self, before: Measurement, is_older: bool, ready: &mut Vec<Measurement>) {
        let characteristic = before.bytes.characteristic;
        if is_older && before.falls == 0 {
            let until = before.received.mono + FIRST_WAITS;
            self.first.insert(characteristic, Waiting { measurement: before, until });
            return;
        }
        if !is_older && let Some(first) = self.first.remove(&characteristic) {
            ready.push(first.measurement.settled());
        }
        ready.push(before.settled());
    }

    /// When something goes on by itself.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.waiting().map(|waiting| waiting.until).min()
    }

    /// What has waited for long enough goes on.
    pub(super) fn on_deadline(&mut self, ready: &mut Vec<Measurement>, now: Stamp) {
        while self.contexts.front().is_some_and(|waiting| waiting.until <= now.mono) {
            self.give_up_oldest_context(ready);
        }
        let due: Vec<u16> =
            self.last.iter().filter(|(_, waiting)| waiting.until <= now.mono).map(|(uuid, _)| *uuid).collect();
        for characteristic in due {
            self.let_go(characteristic, ready);
        }
        let due = self.first.extract_if(.., |_, waiting| waiting.until <= now.mono);
        ready.extend(due.map(|(_, first)| first.measurement.settled()));
    }

    /// Nothing more comes of this visit: all go on.
    pub(super) fn finish(&mut self, ready: &mut Vec<Measurement>) {
        while !self.contexts.is_empty() {
            self.give_up_oldest_context(ready);
        }
        let waiting: Vec<u16> = self.last.keys().copied().collect();
        for characteristic in waiting {
            self.let_go(characteristic, ready);
        }
    }

    /// The last one of a visit counts as one of now, unless the visit has told its memory newest first.
    fn let_go(&mut self, characteristic: u16, ready: &mut Vec<Measurement>) {
        let Some(Waiting { mut measurement, .. }) = self.last.remove(&characteristic) else { return };
        measurement.bytes.is_late = measurement.falls > 1;
        let (is_late, first) = (measurement.bytes.is_late, self.first.remove(&characteristic));
        let first = first.map(|first| first.measurement.settled());
        let last = Some(measurement.settled());
        ready.extend(if is_late { [last, first] } else { [first, last] }.into_iter().flatten());
    }
}

fn measurement(characteristic: u16, report: Report, received: Stamp) -> Measurement {
    let raw = report.raw_hex();
    let key = RecordKey::of(characteristic, report.record, report.device_time.as_deref(), &raw);
    let mut found = vec![];
    for part in &report.decoded {
        match part {
            Decoded::MeasurementFailed(failed) => {
                found.push("measurement_failed".to_owned());
                found.extend(failed.causes.iter().map(ToString::to_string));
            }
            Decoded::Event { name } => found.push(name.to_string()),
            _ => {}
        }
    }
    let bytes = RecordBytes {
        characteristic,
        number: report.record,
        user: report.user,
        device_time: report.device_time,
        raw,
        context: None,
        found,
        is_late: false,
    };
    Measurement { decoded: report.decoded, bytes, received, key, falls: 0 }
}

fn is_reserved_meal(context: &Report) -> bool {
    let number = context.details.get("meal_number");
    (FIRST_RESERVED_MEAL..=u8::MAX).any(|meal| number == Some(&Detail::from(meal)))
}

impl Measurement {
    /// Notes that it is taken.
    pub(super) fn remember(&self, known: &mut Known) {
        if let Some(key) = &self.key {
            known.insert(key.clone());
        }
    }

    /// The device's time, as if it were UTC: good for differences only.
    fn time(&self) -> Option<Wall> {
        self.bytes.device_time.as_ref().and_then(|said| Wall::parse(&format!("{said}Z")))
    }

    /// It may not be what it seems to be.
    fn doubt(&mut self) {
        for part in &mut self.decoded {
            if let Decoded::Vital(vital) = part
                && matches!(vital.quality, Quality::Valid | Quality::Validated | Quality::Ongoing)
            {
                vital.quality = Quality::Questionable;
            }
        }
    }

    /// A late one says so in each of its numbers, except those that are worth nothing anyway.
    fn settled(mut self) -> Self {
        if self.bytes.is_late {
            self.bytes.found.push("late".to_owned());
            for part in &mut self.decoded {
                if let Decoded::Vital(vital) = part
                    && !matches!(vital.quality, Quality::NotAvailable | Quality::Invalid | Quality::Implausible)
                {
                    vital.quality = Quality::Historic;
                }
            }
            // What the sensor said of itself then is not so now.
            self.decoded.retain(|part| !matches!(part, Decoded::Status(_)));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::gatt;
    use crate::profile::hex;

    const GLUCOSE: u16 = 0x2A18;
    const WEIGHT: u16 = 0x2A9D;
    const KETONES: &[Quirk] = &[Quirk::KetoneAsMeal];

    fn at(ms: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(ms), wall: Wall(1_795_219_200_000) }
    }

    /// Plays a script on one intake. `bp 08:05 @300` is a cuff's record of that time, which came at 300 ms; `bp - @0` has
    /// no time, `weight` is a scale's, `sugar 5` a glucose with number 5, `sugar 5+` one that a context follows, `meal 5 6`
    /// its context with that meal; `tick @2000` lets time pass, `end` ends the visit. Gives what went on, in order.
    fn check(quirks: &[Quirk], script: &[&str], expected: &[&str]) {
        let mut known = Known::default();
        played(quirks, script, expected, &mut known);
    }

    fn played(quirks: &[Quirk], script: &[&str], expected: &[&str], known: &mut Known) {
        let (mut intake, mut went) = (Intake::new(quirks), vec![]);
        let mut now = at(0);
        for line in script {
            let (words, time) = line.split_once('@').map_or((*line, None), |(words, time)| (words, Some(time)));
            now = time.map_or(now, |time| at(time.parse().unwrap()));
            let words: Vec<&str> = words.split_whitespace().collect();
            let mut ready = vec![];
            let mut take = |uuid: u16, payload: &[u8], ready: &mut Vec<Measurement>| {
                let report = gatt::decode_with(uuid, payload, quirks).unwrap();
                if matches!(intake.take(known, uuid, report, ready, now), Taken::Again(_)) {
                    went.push("again".to_owned());
                }
            };
            match words[..] {
                ["bp", time] => take(BLOOD_PRESSURE_MEASUREMENT, &cuff(time), &mut ready),
                ["weight", time] => take(WEIGHT, &scale(time), &mut ready),
                ["sugar", number] => take(GLUCOSE, &sugar(number), &mut ready),
                ["meal", number, meal] => {
                    let context = [0x02, number.parse().unwrap(), 0, meal.parse().unwrap()];
                    let report = gatt::decode_with(GLUCOSE_CONTEXT, &context, quirks).unwrap();
                    if !intake.take_context(&report, &mut ready) {
                        went.push("stray".to_owned());
                    }
                }
                ["tick"] => intake.on_deadline(&mut ready, now),
                ["end"] => intake.finish(&mut ready),
                _ => panic!("{line}"),
            }
            for measurement in ready {
                measurement.remember(known);
                went.push(shown(&measurement));
            }
        }
        assert_eq!(went, expected, "{script:?}");
    }

    /// `08:05 valid`: its time or number, the quality of its first number, and what it says beside.
    fn shown(measurement: &Measurement) -> String {
        let bytes = &measurement.bytes;
        let time = bytes.device_time.as_ref().map_or("-", |time| &time[11..16]);
        let name = bytes.number.map_or_else(|| time.to_owned(), |number| number.to_string());
        let quality = measurement.decoded.iter().find_map(|part| match part {
            Decoded::Vital(vital) => Some(vital.quality.name()),
            _ => None,
        });
        let mut words = vec![name.as_str(), quality.unwrap_or("nothing")];
        words.extend(bytes.found.iter().map(String::as_str));
        words.join(" ")
    }

    fn clock(time: &str) -> Vec<u8> {
        let (hour, minute) = time.split_once(':').unwrap();
        vec![0xEA, 7, 11, 20, hour.parse().unwrap(), minute.parse().unwrap(), 0]
    }

    /// BLS 1.1.1: 120/80, with a time if there is one.
    fn cuff(time: &str) -> Vec<u8> {
        let mut payload = vec![if time == "-" { 0 } else { 0x02 }, 120, 0, 80, 0, 93, 0];
        if time != "-" {
            payload.extend(clock(time));
        }
        payload
    }

    /// WSS 1.0.1: 70 kg.
    fn scale(time: &str) -> Vec<u8> {
        let mut payload = vec![if time == "-" { 0 } else { 0x02 }, 0xB0, 0x36];
        if time != "-" {
            payload.extend(clock(time));
        }
        payload
    }

    /// GLS 1.0.1: 112 mg/dL, measured as many minutes after eight as the number says.
    fn sugar(number: &str) -> Vec<u8> {
        let follows = number.ends_with('+');
        let number: u8 = number.trim_end_matches('+').parse().unwrap();
        let mut payload = vec![if follows { 0x12 } else { 0x02 }, number, 0];
        payload.extend(clock(&format!("8:{number}")));
        payload.extend([0x70, 0xB0, 0x11]);
        payload
    }

    #[test]
    fn of_a_memory_that_comes_oldest_first_only_the_last_is_of_now() {
        check(
            &[],
            &["bp 08:00", "bp 08:10 @300", "bp 09:00 @600", "tick @2599", "tick @2600"],
            &["08:00 historic late", "08:10 historic late", "09:00 valid"],
        );
    }

    #[test]
    fn of_a_memory_that_comes_newest_first_only_the_first_is_of_now() {
        check(
            &[],
            &["bp 09:00", "bp 08:10 @300", "bp 08:00 @600", "end"],
            &["08:10 historic late", "08:00 historic late", "09:00 valid"],
        );
        // The newest waits for the end of the visit, so that nothing older is told after it, but it may have to alarm.
        check(
            &[],
            &[
                "bp 09:00",
                "bp 08:50 @1000",
                "bp 08:40 @2500",
                "bp 08:30 @4000",
                "bp 08:20 @5500",
                "bp 08:10 @7000",
                "bp 08:00 @8500",
                "tick @9999",
                "bp 07:50 @9999",
                "tick @10000",
                "end",
            ],
            &[
                "08:50 historic late",
                "08:40 historic late",
                "08:30 historic late",
                "08:20 historic late",
                "08:10 historic late",
                "08:00 historic late",
                "09:00 valid",
                "07:50 historic late",
            ],
        );
    }

    #[test]
    fn a_clock_that_was_set_back_hides_no_measurement_of_now() {
        check(&[], &["bp 02:50", "bp 02:10 @300", "end"], &["02:50 valid", "02:10 valid"]);
        // Two users, each oldest first.
        check(
            &[],
            &["bp 08:00", "bp 09:00 @300", "bp 07:00 @600", "bp 07:30 @900", "end"],
            &["08:00 historic late", "09:00 valid", "07:00 historic late", "07:30 valid"],
        );
    }

    #[test]
    fn measurements_of_one_minute_are_all_of_now_and_without_a_time_haste_tells_only_of_a_cuff() {
        check(&[], &["weight 08:00", "weight 08:01 @900", "end"], &["08:00 valid", "08:01 valid"]);
        check(&[], &["weight -", "weight - @300", "end"], &["- valid", "- valid"]);
        check(&[], &["bp -", "bp - @300", "end"], &["- historic late", "- valid"]);
        check(&[], &["bp -", "bp - @2000", "end"], &["- valid", "- valid"]);
    }

    #[test]
    fn kinds_do_not_wait_for_each_other() {
        check(&[], &["weight 08:00", "bp 09:00 @100", "end"], &["09:00 valid", "08:00 valid"]);
    }

    #[test]
    fn what_came_before_is_left_out_whether_it_went_on_or_not() {
        let mut known = Known::default();
        played(&[], &["bp 08:00", "bp 08:00", "end"], &["again", "08:00 valid"], &mut known);
        let whole_memory = ["bp 08:00", "bp 09:00 @300", "end"];
        played(&[], &whole_memory, &["again", "09:00 valid"], &mut known);
        played(&[], &["sugar 5+", "sugar 5+", "meal 5 1", "end"], &["again", "5 valid"], &mut known);
        played(&[], &["sugar 5+", "meal 5 1", "end"], &["again", "stray"], &mut known);
        played(&[], &["weight -", "end"], &["- valid"], &mut known);
        played(&[], &["weight -", "end"], &["- valid"], &mut known);
    }

    #[test]
    fn a_glucose_waits_for_its_context_and_a_ketone_is_none() {
        check(KETONES, &["sugar 5+", "meal 5 1 @100", "end"], &["5 valid"]);
        check(KETONES, &["sugar 5+", "meal 5 6 @100", "end"], &["5 nothing ketone"]);
        check(&[], &["sugar 5+", "meal 5 6 @100", "end"], &["5 questionable reserved_meal"]);
        check(KETONES, &["sugar 5", "end"], &["5 valid"]);
    }

    #[test]
    fn a_context_that_does_not_come_is_waited_for_5_s_and_is_unknown() {
        let waited = ["sugar 5+", "tick @4999", "tick @5000", "end"];
        check(KETONES, &waited, &["5 questionable context_missing"]);
        check(&[], &waited, &["5 valid context_missing"]);
        let lost = ["sugar 5+", "sugar 7+ @100", "meal 7 6 @200", "end"];
        check(KETONES, &lost, &["5 historic context_missing late", "7 nothing ketone"]);
        let passed = ["sugar 5+", "sugar 7 @100", "end"];
        check(&[], &passed, &["5 historic context_missing late", "7 valid"]);
        check(KETONES, &["meal 5 6", "sugar 5", "end"], &["stray", "5 valid"]);
    }

    #[test]
    fn no_more_than_eight_wait_for_a_context() {
        let script: Vec<String> = (1..=10).map(|number| format!("sugar {number}+ @{number}")).collect();
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        // The first one is settled when the second is given up.
        check(&[], &script, &["1 valid context_missing"]);
    }

    #[test]
    fn control_solution_is_nobodys_number_whatever_its_context_says() {
        let mut known = Known::default();
        let mut intake = Intake::new(&[]);
        let payload = hex::bytes("12 0500 ea070b14080000 70b0 1a").unwrap();
        let mut ready = vec![];
        let report = gatt::decode(GLUCOSE, &payload).unwrap();
        intake.take(&known, GLUCOSE, report, &mut ready, at(0));
        intake.finish(&mut ready);
        assert_eq!(shown(&ready[0]), "5 nothing control_solution context_missing");
        ready[0].remember(&mut known);
        assert_eq!(known.order.len(), 1);
    }

    #[test]
    fn what_is_known_is_bounded_and_the_oldest_is_forgotten() {
        let key = |number: usize| RecordKey(number.to_string());
        let keys = (0..MAX_KNOWN_RECORDS).map(key).collect();
        let mut known = Known::from(KnownRecords { keys, through: Some(3) });
        known.insert(key(MAX_KNOWN_RECORDS));
        assert_eq!(known.keys.len(), MAX_KNOWN_RECORDS);
        assert!(!known.keys.contains(&key(0)) && known.keys.contains(&key(1)));
        assert_eq!(known.through, Some(3));
    }
}
