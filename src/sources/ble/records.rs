//! Single measurements on their way into the log: which are new, what belongs together, and which were kept in the sensor
//! until now. A pure machine.
//!
//! A record goes through three steps. One that is known is left out. A glucose with a context waits for it, because the
//! context may say that it is no glucose. And the newest of those that come in a burst waits for the end of the burst: only
//! it can be a measurement of now. The others were kept in the sensor, and must not alarm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::sensor::GLUCOSE_MEASUREMENT;
use super::visit::{KEPT_MS, LATE_MS, Visits, historic};
use crate::clock::{Mono, Stamp, Wall};
use crate::decode::Decoded;
use crate::decode::gatt::{BLOOD_PRESSURE_MEASUREMENT, Detail, Report};
use crate::record::{KnownRecords, MAX_KNOWN_RECORDS, RecordKey};
use crate::sources::device_clock::{DeviceClock, Related, UNSET_MS};
use crate::sources::output::{RecordBytes, When};
use crate::vitals::Quality;

/// GLS 1.0.1, 3.2: a context is sent right after its measurement. Later than this, it does not come.
const CONTEXT_WAIT: Duration = Duration::from_secs(5);
/// A sensor that hands over several sends the next one within this time. None measures so fast.
const NEXT_WITHIN: Duration = Duration::from_secs(2);
/// The newest of a burst waits no longer than this, whatever else comes: it may have to alarm. A sensor of which it is known
/// that it hands over what it keeps may pause for as long between two, while the link stands.
const NEWEST_WAITS: Duration = Duration::from_secs(10);
/// Measurements that may wait for their context; one more, and the oldest goes on without.
const MAX_WAITING: usize = 8;

/// Measurements that wait for the sensor's time; one more, and the oldest goes on without.
const MAX_UNDATED: usize = 256;

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

/// The records of a device that are known.
#[derive(Debug, Default)]
pub(crate) struct Known {
    keys: BTreeSet<RecordKey>,
    /// In the order in which they came.
    order: VecDeque<RecordKey>,
    /// Those of which it is not known yet whether they are on disk, in the order in which they came.
    unsure: Vec<RecordKey>,
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
            self.unsure.retain(|key| *key != oldest);
        }
    }

    /// Notes a record that was handed on, and may be on disk soon.
    pub(super) fn hand_on(&mut self, key: RecordKey) {
        if !self.keys.contains(&key) {
            self.insert(key.clone());
            self.unsure.push(key);
        }
    }

    pub(super) fn contains(&self, key: &RecordKey) -> bool {
        self.keys.contains(key)
    }

    /// Records of which it has to be asked whether they are on disk.
    pub(super) fn unsure(&self) -> &[RecordKey] {
        &self.unsure
    }

    /// All of `asked` are on disk but those that are `missing`: these are taken when they come again.
    pub(super) fn settle(&mut self, asked: &[RecordKey], missing: &[RecordKey]) {
        let (asked, missing): (BTreeSet<_>, BTreeSet<_>) = (asked.iter().collect(), missing.iter().collect());
        self.unsure.retain(|key| !asked.contains(key));
        self.keys.retain(|key| !missing.contains(key));
        self.order.retain(|key| !missing.contains(key));
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
    /// The sensor says that it does not know whom it measured.
    pub(super) is_stranger: bool,
    /// What its clock said then is not what its clock shows.
    is_off_line: bool,
    /// What its time says, kept before the clock of its link is forgotten.
    related: Option<Related>,
}

/// Whose measurements pass each other by: those of a characteristic and of the sensor's user.
pub(super) type Kind = (u16, Option<u8>);

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

/// Measurements of one kind that come close together: at most one of them is of now.
#[derive(Debug)]
struct Burst {
    /// The newest, until it has waited for long enough.
    newest: Option<Measurement>,
    /// Its place among the others.
    place: Place,
    /// When it came.
    since: Mono,
    /// When the last one came.
    last: Mono,
}

/// Where a measurement stands among others of its sensor.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: Option<u16>,
    /// The device's time, as if it were UTC: good for differences only.
    time: Option<Wall>,
    /// The device's clock was never set, or it was kept for years.
    is_unset: bool,
}

impl Place {
    fn of(measurement: &Measurement) -> Self {
        let said = measurement.bytes.device_time.as_ref();
        let time = said.and_then(|said| Wall::parse(&format!("{said}Z")));
        let is_unset = time.is_some_and(|time| measurement.received.wall.0.saturating_sub(time.0) > UNSET_MS);
        Self { number: measurement.bytes.number, time, is_unset }
    }

    /// Milliseconds by which the sensor's clock was ahead of `before`; `None`: one of them says no time.
    fn after(&self, before: &Self) -> Option<i64> {
        self.time.zip(before.time).map(|(time, before)| time.0.saturating_sub(before.0))
    }

    /// Whether it was measured before `other`, which came before it. A number counts on also when a clock is set back.
    fn is_older(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            // Half of the numbers are ahead, the others behind.
            (Some(number), Some(other)) if number != other => number.wrapping_sub(other) > u16::MAX / 2,
            _ => self.after(other).is_some_and(|ms| ms < 0),
        }
    }
}

/// What a model is known to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manners {
    /// A glucose without the context that it promises is doubtful: this meter writes ketones as glucose, and only the
    /// context tells.
    pub(super) writes_ketones: bool,
    /// It hands over what it keeps, so that the end of the link is the end of a burst.
    pub(super) hands_over: bool,
}

/// The measurements of one device that are on their way.
#[derive(Debug, Default)]
pub(super) struct Intake {
    manners: Manners,
    /// Glucose that waits for its context, oldest first.
    contexts: VecDeque<Waiting>,
    /// By characteristic.
    bursts: BTreeMap<u16, Burst>,
    /// What came over this link, and when it came last.
    seen: BTreeMap<RecordKey, Mono>,
    is_linked: bool,
    /// When the link ended; what was sent over it may still arrive.
    ended: Option<Mono>,
    /// How many minutes the sensor's local time is ahead of UTC; `None`: its clock was not seen to be right at this visit.
    clock: Option<i16>,
    /// What can go on once the sensor's time is known, oldest first.
    undated: VecDeque<Measurement>,
}

impl Intake {
    pub(super) fn new(manners: Manners) -> Self {
        Self { manners, ..Self::default() }
    }

    /// A new link.
    pub(super) fn on_link(&mut self) {
        (self.is_linked, self.ended, self.clock) = (true, None, None);
        self.seen.clear();
    }

    /// The link has gone, or is about to. What was sent over it may still be on its way here.
    pub(super) fn on_link_end(&mut self, now: Stamp) {
        if std::mem::take(&mut self.is_linked) {
            self.ended = Some(now.mono);
        }
        // What comes before the next link is known of belongs to it.
        self.seen.clear();
    }

    /// The sensor's clock was right before anybody set it: it is so many minutes ahead of UTC.
    pub(super) fn trust_clock(&mut self, offset: i16) {
        self.clock = Some(offset);
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
        if let Some(key) = &measurement.key {
            let seen = self.seen.get(key).copied();
            if seen.is_some() || self.seen.len() < MAX_KNOWN_RECORDS {
                self.seen.insert(key.clone(), received.mono);
            }
            // Nobody repeats itself after a while over the same link, unless it hands over what it keeps: it was measured
            // again within the minute, with the same result.
            let is_another = self.is_linked
                && measurement.bytes.number.is_none()
                && !self.manners.hands_over
                && seen.is_some_and(|seen| received.mono.since(seen) > NEXT_WITHIN);
            if !is_another && (known.contains(key) || self.is_on_its_way(key)) {
                return Taken::Again(key.clone());
            }
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
        let waiting = self.contexts.iter().map(|waiting| &waiting.measurement);
        let newest = self.bursts.values().filter_map(|burst| burst.newest.as_ref());
        waiting.chain(newest).chain(&self.undated).any(|measurement| measurement.key.as_ref() == Some(key))
    }

    /// Keeps for all that waits what the clock of its link says, which is about to be forgotten.
    pub(super) fn relate(&mut self, clock: &DeviceClock) {
        let contexts = self.contexts.iter_mut().map(|waiting| &mut waiting.measurement);
        let newest = self.bursts.values_mut().filter_map(|burst| burst.newest.as_mut());
        contexts.chain(newest).chain(&mut self.undated).for_each(|measurement| measurement.relate(clock));
    }

    /// What can go on waits for its turn.
    pub(super) fn hold(&mut self, ready: Vec<Measurement>) {
        self.undated.extend(ready);
    }

    /// The next that goes on; none while the sensor's time is awaited, unless too many wait for it.
    pub(super) fn next_held(&mut self, is_awaited: bool) -> Option<Measurement> {
        if is_awaited && self.undated.len() <= MAX_UNDATED { None } else { self.undated.pop_front() }
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
            if self.manners.writes_ketones {
                measurement.doubt();
            }
            self.pass(measurement, ready);
        }
    }

    /// Takes what is complete: the older one of it and the newest before it goes on, and the other one waits.
    fn pass(&mut self, measurement: Measurement, ready: &mut Vec<Measurement>) {
        let characteristic = measurement.bytes.characteristic;
        let (place, now) = (Place::of(&measurement), measurement.received.mono);
        let alone = Burst { newest: None, place, since: now, last: now };
        let Some(burst) = self.bursts.remove(&characteristic) else {
            self.bursts.insert(characteristic, Burst { newest: Some(measurement), ..alone });
            return;
        };
        if self.end_of(&burst) <= now {
            ready.extend(burst.newest.map(|newest| self.judged(newest)));
            self.bursts.insert(characteristic, Burst { newest: Some(measurement), ..alone });
            return;
        }
        let is_apart = match place.after(&burst.place) {
            // Which of them is of now cannot be known: both may have to alarm.
            Some(_) if place.is_unset != burst.place.is_unset => false,
            Some(ms) => ms.saturating_abs() > KEPT_MS,
            // Without times only the haste tells, and only of a cuff.
            None => characteristic == BLOOD_PRESSURE_MEASUREMENT,
        };
        let burst = if place.is_older(&burst.place) {
            ready.push(self.passed_by(measurement, is_apart));
            Burst { last: now, ..burst }
        } else {
            ready.extend(burst.newest.map(|newest| self.passed_by(newest, is_apart)));
            Burst { newest: Some(measurement), ..alone }
        };
        self.bursts.insert(characteristic, burst);
    }

    /// One of a burst that is not its newest.
    fn passed_by(&self, mut measurement: Measurement, is_apart: bool) -> Measurement {
        measurement.bytes.is_late = is_apart;
        self.judged(measurement)
    }

    /// What is not late beside others may be so by its time. In doubt it is of now.
    fn judged(&self, mut measurement: Measurement) -> Measurement {
        if let (Some(offset), Some(time)) = (self.clock, Place::of(&measurement).time) {
            measurement.bytes.found.push("clock_verified".to_owned());
            let local = measurement.received.wall.0.saturating_add(i64::from(offset) * 60_000);
            measurement.bytes.is_late |= local.saturating_sub(time.0) > LATE_MS;
        }
        measurement.settle();
        measurement
    }

    /// When no other one comes any more.
    fn end_of(&self, burst: &Burst) -> Mono {
        let pause = if self.is_linked && self.manners.hands_over { NEWEST_WAITS } else { NEXT_WITHIN };
        self.ended.map_or(burst.last, |ended| burst.last.max(ended)) + pause
    }

    /// When the newest of a burst goes on.
    fn due(&self, burst: &Burst) -> Mono {
        self.end_of(burst).min(burst.since + NEWEST_WAITS)
    }

    /// When something goes on by itself.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let bursts = self.bursts.values().filter(|burst| burst.newest.is_some()).map(|burst| self.due(burst));
        self.contexts.iter().map(|waiting| waiting.until).chain(bursts).min()
    }

    /// What has waited for long enough goes on.
    pub(super) fn on_deadline(&mut self, ready: &mut Vec<Measurement>, now: Stamp) {
        while self.contexts.front().is_some_and(|waiting| waiting.until <= now.mono) {
            self.give_up_oldest_context(ready);
        }
        let mut bursts = std::mem::take(&mut self.bursts);
        for burst in bursts.values_mut() {
            if self.due(burst) <= now.mono {
                ready.extend(burst.newest.take().map(|newest| self.judged(newest)));
            }
        }
        // Where older ones still come, it is known that a newer one was told.
        bursts.retain(|_, burst| burst.newest.is_some() || self.end_of(burst) > now.mono);
        self.bursts = bursts;
    }

    /// Nothing more comes: all go on.
    pub(super) fn finish(&mut self, ready: &mut Vec<Measurement>) {
        while !self.contexts.is_empty() {
            self.give_up_oldest_context(ready);
        }
        for burst in std::mem::take(&mut self.bursts).into_values() {
            ready.extend(burst.newest.map(|newest| self.judged(newest)));
        }
    }
}

fn measurement(characteristic: u16, report: Report, received: Stamp) -> Measurement {
    let raw = report.raw_hex();
    let key = RecordKey::of(characteristic, report.record, report.user, report.device_time.as_deref(), &raw);
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
    if report.is_stranger {
        found.push("user_unknown".to_owned());
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
    // GLS 1.0.1, 3.1.1: the time that a meter shows is its base time and an offset; where the offset has overrun, only the
    // base time is left, of which nothing is known now.
    let is_off_line = report.details.get("time_offset_min") == Some(&Detail::Unknown);
    Measurement {
        decoded: report.decoded,
        bytes,
        received,
        key,
        is_stranger: report.is_stranger,
        is_off_line,
        related: None,
    }
}

fn is_reserved_meal(context: &Report) -> bool {
    let number = context.details.get("meal_number");
    (FIRST_RESERVED_MEAL..=u8::MAX).any(|meal| number == Some(&Detail::from(meal)))
}

impl Measurement {
    /// Notes that it is taken.
    pub(super) fn remember(&self, known: &mut Known) {
        if let Some(key) = &self.key {
            known.hand_on(key.clone());
        }
    }

    /// When it was measured, by what is known of the sensor's clock; what its clock dates long back is late, if it was not
    /// known yet.
    pub(super) fn dated(&mut self, clock: &DeviceClock, visits: &mut Visits<Kind>) -> When {
        let Some(said) = &self.bytes.device_time else {
            return if self.bytes.is_late || self.is_from_storage() { When::Unknown } else { When::OnArrival };
        };
        let kind = (self.bytes.characteristic, self.bytes.user);
        let related = self.related.unwrap_or_else(|| clock.related(said, self.received));
        let (when, is_late) = match related {
            _ if self.is_off_line => (When::Unknown, false),
            Related::At(mapped) => (When::Mapped(mapped), visits.is_of_the_past(kind, &mapped, self.received)),
            Related::TooOld => (When::Unknown, true),
            Related::Unknown => (When::Unknown, false),
        };
        if is_late && !self.bytes.is_late {
            self.bytes.is_late = true;
            self.settle();
        }
        when
    }

    /// The sensor says of a number that it had kept it.
    fn is_from_storage(&self) -> bool {
        let is_kept = |part: &Decoded| matches!(part, Decoded::Vital(vital) if vital.quality == Quality::Historic);
        self.decoded.iter().any(is_kept)
    }

    /// The clock of its link is about to be forgotten.
    fn relate(&mut self, clock: &DeviceClock) {
        if let Some(said) = self.bytes.device_time.as_ref().filter(|_| self.related.is_none()) {
            self.related = clock.is_known(self.received).then(|| clock.related(said, self.received));
        }
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
    fn settle(&mut self) {
        if self.bytes.is_late {
            self.bytes.found.push("late".to_owned());
            for part in &mut self.decoded {
                if let Decoded::Vital(vital) = part {
                    vital.quality = historic(vital.quality);
                }
            }
            // What the sensor said of itself then is not so now.
            self.decoded.retain(|part| !matches!(part, Decoded::Status(_)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::gatt;
    use crate::profile::ble::Quirk;
    use crate::profile::hex;

    const GLUCOSE: u16 = 0x2A18;
    const WEIGHT: u16 = 0x2A9D;
    const PLAIN: Manners = Manners { writes_ketones: false, hands_over: false };
    const KETONES: Manners = Manners { writes_ketones: true, hands_over: false };
    const HANDS_OVER: Manners = Manners { writes_ketones: false, hands_over: true };

    fn at(ms: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(ms), wall: Wall(1_795_219_200_000) }
    }

    /// Plays a script on one intake. `bp 08:05 @300` is a cuff's record of that time, which came at 300 ms; `bp - @0` has
    /// no time, `bp reset` that of a clock that was never set, `bp next 00:05` one of the next day, `weight` is a scale's, `sugar 5` a glucose with number 5, `sugar 5+` one that a context follows, `meal 5 6`
    /// its context with that meal; `tick @2000` lets time pass, `end` ends all; `link` and `unlink` begin and end a link, `trust`
    /// says that the clock is right. Gives what went on, in order.
    fn check(manners: Manners, script: &[&str], expected: &[&str]) {
        let mut known = Known::default();
        played(manners, script, expected, &mut known);
    }

    fn played(manners: Manners, script: &[&str], expected: &[&str], known: &mut Known) {
        let (mut intake, mut went) = (Intake::new(manners), vec![]);
        let mut now = at(0);
        for line in script {
            let (words, time) = line.split_once('@').map_or((*line, None), |(words, time)| (words, Some(time)));
            now = time.map_or(now, |time| at(time.parse().unwrap()));
            let words: Vec<&str> = words.split_whitespace().collect();
            let mut ready = vec![];
            let quirks = if manners.writes_ketones { &[Quirk::KetoneAsMeal][..] } else { &[] };
            let mut take = |uuid: u16, payload: &[u8], ready: &mut Vec<Measurement>| {
                let report = gatt::decode_with(uuid, payload, quirks).unwrap();
                if matches!(intake.take(known, uuid, report, ready, now), Taken::Again(_)) {
                    went.push("again".to_owned());
                }
            };
            match words[..] {
                ["bp", "next", time] => {
                    let mut payload = cuff(time);
                    payload[10] += 1;
                    take(BLOOD_PRESSURE_MEASUREMENT, &payload, &mut ready);
                }
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
                ["link"] => intake.on_link(),
                ["unlink"] => intake.on_link_end(now),
                // Its local time is an hour ahead.
                ["trust"] => intake.trust_clock(60),
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
        if time == "reset" {
            return vec![0xD0, 7, 1, 1, 0, 5, 0];
        }
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
            PLAIN,
            &["bp 08:00", "bp 08:10 @300", "bp 09:00 @600", "tick @2599", "tick @2600"],
            &["08:00 historic late", "08:10 historic late", "09:00 valid"],
        );
    }

    #[test]
    fn of_a_memory_that_comes_newest_first_only_the_first_is_of_now() {
        check(
            PLAIN,
            &["bp 09:00", "bp 08:10 @300", "bp 08:00 @600", "end"],
            &["08:10 historic late", "08:00 historic late", "09:00 valid"],
        );
        // The newest waits for the end of the visit, so that nothing older is told after it, but it may have to alarm.
        check(
            PLAIN,
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
                "bp 07:40 @10100",
                "end",
            ],
            &[
                "08:50 historic late",
                "08:40 historic late",
                "08:30 historic late",
                "08:20 historic late",
                "08:10 historic late",
                "08:00 historic late",
                "07:50 historic late",
                "09:00 valid",
                "07:40 historic late",
            ],
        );
    }

    #[test]
    fn no_two_of_a_burst_are_of_now_and_the_newest_is_told_last() {
        check(PLAIN, &["bp 09:00", "bp 08:10 @300", "end"], &["08:10 historic late", "09:00 valid"]);
        check(PLAIN, &["weight 09:00", "weight 08:10 @300", "end"], &["08:10 historic late", "09:00 valid"]);
        // Two users, each oldest first.
        check(
            PLAIN,
            &["bp 08:00", "bp 09:00 @300", "bp 07:00 @600", "bp 07:30 @900", "end"],
            &["08:00 historic late", "07:00 historic late", "07:30 historic late", "09:00 valid"],
        );
        // After a pause nothing is known: in doubt it is of now.
        check(PLAIN, &["bp 09:00", "bp 08:10 @2000", "end"], &["09:00 valid", "08:10 valid"]);
        // A meter's numbers count on when its clock is set back.
        check(PLAIN, &["sugar 50", "sugar 10 @300", "end"], &["10 historic late", "50 valid"]);
    }

    #[test]
    fn a_clock_that_was_never_set_hides_no_measurement_of_now() {
        // The battery was changed, and the clock is at its beginning.
        check(PLAIN, &["bp 08:00", "bp reset @300", "end"], &["00:05 valid", "08:00 valid"]);
        check(PLAIN, &["bp reset", "bp 08:00 @300", "end"], &["00:05 valid", "08:00 valid"]);
    }

    #[test]
    fn a_model_that_hands_over_what_it_keeps_may_pause_while_the_link_stands() {
        let slow = ["link", "bp 08:00", "tick @4000", "bp 08:10 @9000", "tick @18000", "bp 08:20 @18500"];
        let slow = [&slow[..], &["unlink @18600", "tick @20599", "tick @20600"]].concat();
        let all_of_now = ["08:00 valid", "08:10 valid", "08:20 valid"];
        check(HANDS_OVER, &slow, &["08:00 historic late", "08:10 historic late", "08:20 valid"]);
        check(PLAIN, &slow, &all_of_now);
        check(HANDS_OVER, &["link", "bp 08:00", "tick @9999", "tick @10000", "end"], &["08:00 valid"]);
        // Told of the end before all that was sent has arrived.
        check(
            HANDS_OVER,
            &["link", "bp 08:00", "unlink @5000", "tick @5000", "bp 08:10 @5100", "tick @7099", "tick @7100"],
            &["08:00 historic late", "08:10 valid"],
        );
    }

    #[test]
    fn by_a_clock_that_was_right_a_single_measurement_of_some_time_ago_is_late() {
        // Received at 01:00 of the sensor's local time on the next day.
        check(PLAIN, &["link", "trust", "bp 23:50", "end"], &["23:50 historic clock_verified late"]);
        check(PLAIN, &["link", "trust", "bp next 00:44", "end"], &["00:44 historic clock_verified late"]);
        check(PLAIN, &["link", "trust", "bp next 00:45", "end"], &["00:45 valid clock_verified"]);
        check(PLAIN, &["link", "trust", "bp -", "end"], &["- valid"]);
        check(PLAIN, &["link", "bp 23:50", "end"], &["23:50 valid"]);
        check(PLAIN, &["link", "trust", "link", "bp 23:50", "end"], &["23:50 valid"]);
    }

    #[test]
    fn the_same_again_over_a_link_is_another_measurement_unless_the_model_hands_over_what_it_keeps() {
        let twice = ["link", "bp 08:00", "tick @2000", "bp 08:00 @30000", "tick @32000"];
        check(PLAIN, &twice, &["08:00 valid", "08:00 valid"]);
        let known = ["again", "08:00 valid"];
        check(HANDS_OVER, &twice, &known);
        check(PLAIN, &["link", "bp 08:00", "bp 08:00 @2000", "tick @4000"], &known);
        // A sensor that hands over all of it at each visit.
        check(PLAIN, &["link", "bp 08:00", "tick @2000", "link", "bp 08:00 @30000"], &["08:00 valid", "again"]);
        let told_late = ["link", "bp 08:00", "tick @2000", "unlink", "bp 08:00 @30000", "bp 08:00 @33000", "link"];
        check(PLAIN, &told_late, &["08:00 valid", "again", "again"]);
    }

    #[test]
    fn what_did_not_reach_the_disk_is_taken_when_it_comes_again() {
        let key = |number: usize| RecordKey(number.to_string());
        let mut known = Known::from(KnownRecords { keys: vec![key(0)], through: None });
        known.hand_on(key(0));
        known.hand_on(key(1));
        known.hand_on(key(2));
        let asked = known.unsure().to_vec();
        assert_eq!(asked, [key(1), key(2)]);
        known.hand_on(key(3));
        known.settle(&asked, &[key(1)]);
        let is_known = [0, 1, 2, 3].map(|number| known.contains(&key(number)));
        assert_eq!((is_known, known.unsure()), ([true, false, true, true], &[key(3)][..]));
        known.hand_on(key(1));
        assert_eq!(known.unsure(), [key(3), key(1)]);
        known.settle(&[key(3), key(1)], &[]);
        assert!(known.unsure().is_empty() && known.contains(&key(1)));
    }

    #[test]
    fn measurements_of_one_minute_are_all_of_now_and_without_a_time_haste_tells_only_of_a_cuff() {
        check(PLAIN, &["weight 08:00", "weight 08:01 @900", "end"], &["08:00 valid", "08:01 valid"]);
        check(PLAIN, &["weight -", "weight - @300", "end"], &["- valid", "- valid"]);
        check(PLAIN, &["bp -", "bp - @300", "end"], &["- historic late", "- valid"]);
        check(PLAIN, &["bp -", "bp - @2000", "end"], &["- valid", "- valid"]);
    }

    #[test]
    fn kinds_do_not_wait_for_each_other() {
        check(PLAIN, &["weight 08:00", "bp 09:00 @100", "end"], &["09:00 valid", "08:00 valid"]);
    }

    #[test]
    fn what_came_before_is_left_out_whether_it_went_on_or_not() {
        let mut known = Known::default();
        played(PLAIN, &["bp 08:00", "bp 08:00", "end"], &["again", "08:00 valid"], &mut known);
        let whole_memory = ["bp 08:00", "bp 09:00 @300", "end"];
        played(PLAIN, &whole_memory, &["again", "09:00 valid"], &mut known);
        played(PLAIN, &["sugar 5+", "sugar 5+", "meal 5 1", "end"], &["again", "5 valid"], &mut known);
        played(PLAIN, &["sugar 5+", "meal 5 1", "end"], &["again", "stray"], &mut known);
        played(PLAIN, &["weight -", "end"], &["- valid"], &mut known);
        played(PLAIN, &["weight -", "end"], &["- valid"], &mut known);
    }

    #[test]
    fn a_glucose_waits_for_its_context_and_a_ketone_is_none() {
        check(KETONES, &["sugar 5+", "meal 5 1 @100", "end"], &["5 valid"]);
        check(KETONES, &["sugar 5+", "meal 5 6 @100", "end"], &["5 nothing ketone"]);
        check(PLAIN, &["sugar 5+", "meal 5 6 @100", "end"], &["5 questionable reserved_meal"]);
        check(KETONES, &["sugar 5", "end"], &["5 valid"]);
    }

    #[test]
    fn a_context_that_does_not_come_is_waited_for_5_s_and_is_unknown() {
        let waited = ["sugar 5+", "tick @4999", "tick @5000", "end"];
        check(KETONES, &waited, &["5 questionable context_missing"]);
        check(PLAIN, &waited, &["5 valid context_missing"]);
        let lost = ["sugar 5+", "sugar 7+ @100", "meal 7 6 @200", "end"];
        check(KETONES, &lost, &["5 historic context_missing late", "7 nothing ketone"]);
        let passed = ["sugar 5+", "sugar 7 @100", "end"];
        check(PLAIN, &passed, &["5 historic context_missing late", "7 valid"]);
        check(KETONES, &["meal 5 6", "sugar 5", "end"], &["stray", "5 valid"]);
    }

    #[test]
    fn no_more_than_eight_wait_for_a_context() {
        let script: Vec<String> = (1..=10).map(|number| format!("sugar {number}+ @{number}")).collect();
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        // The first one is settled when the second is given up.
        check(PLAIN, &script, &["1 valid context_missing"]);
    }

    #[test]
    fn control_solution_is_nobodys_number_whatever_its_context_says() {
        let mut known = Known::default();
        let mut intake = Intake::new(Manners::default());
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

    /// A clock that said 08:30:05 at once.
    fn device_clock() -> DeviceClock {
        let mut device_clock = DeviceClock::default();
        device_clock.on_told(&[0xEA, 7, 11, 20, 8, 30, 5], at(0));
        device_clock
    }

    fn alone(characteristic: u16, payload: &[u8]) -> (Intake, Vec<Measurement>) {
        let (mut intake, mut ready) = (Intake::new(PLAIN), vec![]);
        let report = gatt::decode(characteristic, payload).unwrap();
        intake.take(&Known::default(), characteristic, report, &mut ready, at(0));
        (intake, ready)
    }

    /// How it is dated, and whether it was measured now: `mapped valid`.
    fn judged(mut measurement: Measurement, device_clock: &DeviceClock) -> String {
        let when = match measurement.dated(device_clock, &mut Visits::default()) {
            When::OnArrival => "arrival",
            When::Mapped(_) => "mapped",
            When::Unknown => "unknown",
        };
        let quality = measurement.decoded.iter().find_map(|part| match part {
            Decoded::Vital(vital) => Some(vital.quality.name()),
            _ => None,
        });
        format!("{when} {}", quality.unwrap())
    }

    #[test]
    fn the_newest_alarms_for_15_minutes_and_what_is_too_old_for_a_time_is_of_the_past() {
        const SPOT: u16 = 0x2A5E;
        let mut month_old = cuff("08:29");
        month_old[9] = 10;
        // PLXS 1.0.1, 3.2: with a measurement status, of a live one and of one from the storage (bit 9).
        let spot = |status: u8| vec![0x02, 97, 0, 60, 0, 0, status];
        for (characteristic, payload, expected) in [
            (BLOOD_PRESSURE_MEASUREMENT, cuff("08:29"), "mapped valid"),
            (BLOOD_PRESSURE_MEASUREMENT, cuff("08:15"), "mapped valid"),
            (BLOOD_PRESSURE_MEASUREMENT, cuff("08:13"), "mapped historic"),
            (BLOOD_PRESSURE_MEASUREMENT, month_old, "unknown historic"),
            (BLOOD_PRESSURE_MEASUREMENT, cuff("reset"), "unknown valid"),
            (BLOOD_PRESSURE_MEASUREMENT, cuff("-"), "arrival valid"),
            (SPOT, spot(1), "arrival valid"),
            (SPOT, spot(2), "unknown historic"),
        ] {
            let (mut intake, mut ready) = alone(characteristic, &payload);
            intake.finish(&mut ready);
            assert_eq!(judged(ready.remove(0), &device_clock()), expected, "{payload:02x?}");
        }
    }

    #[test]
    fn what_can_go_on_waits_for_the_sensors_time_unless_too_much_does() {
        let (mut intake, mut ready) = alone(BLOOD_PRESSURE_MEASUREMENT, &cuff("08:00"));
        intake.finish(&mut ready);
        intake.hold(ready);
        assert!(intake.next_held(true).is_none());
        let held = intake.next_held(false).unwrap();
        assert!(intake.next_held(false).is_none());
        intake.hold(vec![held; MAX_UNDATED + 1]);
        assert!(intake.next_held(true).is_some(), "the oldest goes on without");
        assert!(intake.next_held(true).is_none());
    }

    #[test]
    fn what_waits_over_the_end_of_its_link_is_dated_by_the_clock_of_that() {
        let mut device_clock = device_clock();
        let (mut intake, mut ready) = alone(BLOOD_PRESSURE_MEASUREMENT, &cuff("08:00"));
        intake.relate(&device_clock);
        device_clock.on_link();
        // The next link's clock is not known yet.
        intake.relate(&device_clock);
        intake.finish(&mut ready);
        assert_eq!(judged(ready.remove(0), &device_clock), "mapped historic");
        // Of a sensor that sends before its link is known to stand.
        let (mut intake, mut ready) = alone(BLOOD_PRESSURE_MEASUREMENT, &cuff("08:00"));
        intake.relate(&device_clock);
        device_clock.on_told(&[0xEA, 7, 11, 20, 8, 30, 5], at(100));
        intake.finish(&mut ready);
        assert_eq!(judged(ready.remove(0), &device_clock), "mapped historic");
    }
}
