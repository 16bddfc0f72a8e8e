//! What waits for one listener: a lossless lane, a lane of readings in which the newest wins, and a short one of waves.
//!
//! Nobody is ever awaited on the way in. A listener that does not take its alerts is marked as overrun and has to come
//! back with `since`; one that does not take its readings gets the newest of each stream and is told what it missed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::alerts::delivery::DeliveryState;
use crate::event::{Event, EventBody};
use crate::ids::{AlertId, DeviceId, PatientId, Seq};
use crate::vitals::Metric;

/// Most alerts and other lossless events that wait for one listener; one more marks it as overrun.
pub const LOSSLESS_LANE: usize = 1024;

/// Most readings that wait for one listener; one more drops the oldest, and a gap says so.
pub const READING_LANE: usize = 2048;

/// Most blocks of samples that wait for one listener: two seconds of four waves. One more drops the oldest.
pub const WAVE_LANE: usize = 32;

/// Samples as every listener gets them: written once.
#[derive(Debug)]
pub struct PublishedWave {
    /// The channel.
    pub channel: String,
    /// The binary message of [`crate::waveform::message`].
    pub message: Bytes,
}

/// One event as every listener gets it: routed and serialised once.
#[derive(Debug)]
pub struct Published {
    /// The event.
    pub event: Arc<Event>,
    /// Every channel it can be found on; the first is its own.
    pub routes: Vec<String>,
    /// The JSON text of [`crate::wire::push`].
    pub text: Bytes,
    /// Its other forms, made when the first listener wants one.
    pub forms: Forms,
}

/// Other forms of an event's text, each made at most once. `None` where there is none.
#[derive(Debug, Default)]
pub struct Forms {
    /// CBOR.
    pub cbor: OnceLock<Option<Bytes>>,
    /// A reading in short.
    pub compact: OnceLock<Option<Compact>>,
}

/// A reading in short.
#[derive(Debug, Clone)]
pub struct Compact {
    /// The number of its stream, which a client has to know first.
    pub stream: u32,
    /// The text.
    pub text: Bytes,
}

/// What the bridge says about its alerts every few seconds, so that a dashboard knows that it misses none.
#[derive(Debug)]
pub struct SelfCheck {
    /// Rises by one each time.
    pub number: u64,
    /// How often it comes.
    pub every: Duration,
    /// The newest event when it was made.
    pub through: Seq,
    /// Every present alert; each listener is told of those it may see.
    pub alerts: Vec<CheckedAlert>,
    /// How many connections show alerts to people.
    pub annunciators: usize,
    /// How many alerts nobody has shown in time.
    pub undelivered: usize,
    /// What people have to read all the time, if there is something.
    pub notice: Option<&'static str>,
}

/// A present alert.
#[derive(Debug)]
pub struct CheckedAlert {
    /// Which.
    pub alert: AlertId,
    /// Its newest event.
    pub published: Arc<Published>,
    /// How far it has come, if it asks for attention.
    pub delivery: Option<DeliveryState>,
}

/// How a listener wants its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Each of them, as long as the lane has room, and everything in the order of its number.
    All,
    /// The newest of each stream; alerts and other messages overtake readings.
    Latest,
}

/// What a listener takes out.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// An event.
    Event(Arc<Published>),
    /// A self-check; what was published before it has gone before it.
    Check(Arc<SelfCheck>),
    /// Samples of a wave.
    Wave(Arc<PublishedWave>),
    /// Readings that were replaced or dropped before they could be taken.
    Gap {
        /// The first of them.
        from: Seq,
        /// The last of them; others may lie between that were delivered.
        to: Seq,
        /// How many.
        skipped: u64,
    },
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits.
    Queued,
    /// It waits in the place of an older reading or block of samples.
    Conflated,
    /// It was not taken: the listener has to be closed.
    Overrun,
}

/// A stream of readings, or one reading where each of them is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Slot {
    Stream(Option<PatientId>, DeviceId, Metric),
    One(Seq),
}

#[derive(Debug, Default)]
struct Lanes {
    lossless: VecDeque<Arc<Published>>,
    order: VecDeque<Slot>,
    readings: HashMap<Slot, Arc<Published>>,
    gap: Option<(Seq, Seq, u64)>,
    waves: VecDeque<Arc<PublishedWave>>,
    /// The newest one; an older one says nothing any more.
    check: Option<Arc<SelfCheck>>,
    overrun: bool,
    /// The listener wants every reading, and with it the order of the numbers.
    in_order: bool,
}

/// The bounded queue of one listener.
#[derive(Debug, Default)]
pub struct Outbox {
    lanes: Mutex<Lanes>,
    filled: Notify,
}

impl Outbox {
    /// Puts an event in; never waits. Nothing goes in any more once the listener is overrun: what comes after the first
    /// lost message must not move its position past it.
    pub fn put(&self, published: &Arc<Published>, delivery: Delivery) -> Put {
        let mut lanes = self.lock();
        if lanes.overrun {
            return Put::Overrun;
        }
        lanes.in_order = delivery == Delivery::All;
        let put = match &published.event.body {
            EventBody::Reading(reading) => {
                let slot = match delivery {
                    Delivery::All => Slot::One(published.event.seq),
                    Delivery::Latest => {
                        Slot::Stream(reading.patient.clone(), reading.device.clone(), reading.vital.metric())
                    }
                };
                lanes.put_reading(slot, published)
            }
            // A meter has hundreds of them: they must not close a listener.
            EventBody::Record(_) => lanes.put_reading(Slot::One(published.event.seq), published),
            _ => lanes.put_lossless(published),
        };
        drop(lanes);
        self.filled.notify_one();
        put
    }

    /// Puts samples in, in the place of the oldest if the lane is full; never waits.
    pub fn put_wave(&self, wave: &Arc<PublishedWave>) -> Put {
        let mut lanes = self.lock();
        if lanes.overrun {
            return Put::Overrun;
        }
        let full = lanes.waves.len() >= WAVE_LANE;
        if full {
            lanes.waves.pop_front();
        }
        lanes.waves.push_back(Arc::clone(wave));
        drop(lanes);
        self.filled.notify_one();
        if full { Put::Conflated } else { Put::Queued }
    }

    /// Puts a self-check in, in the place of an older one; never waits.
    pub fn put_check(&self, check: &Arc<SelfCheck>) {
        let mut lanes = self.lock();
        if !lanes.overrun {
            lanes.check = Some(Arc::clone(check));
        }
        drop(lanes);
        self.filled.notify_one();
    }

    /// Takes up to `most` parcels in the order of their delivery; false once the listener is overrun. What is left
    /// makes the next [`Outbox::filled`] return at once.
    pub fn take(&self, most: usize, out: &mut Vec<Parcel>) -> bool {
        let mut lanes = self.lock();
        while out.len() < most {
            let Some(parcel) = lanes.next() else { break };
            out.push(parcel);
        }
        let is_left = !(lanes.lossless.is_empty() && lanes.readings.is_empty() && lanes.waves.is_empty())
            || lanes.check.is_some();
        let overrun = lanes.overrun;
        drop(lanes);
        if is_left {
            self.filled.notify_one();
        }
        !overrun
    }

    /// Takes up to `most` alerts and other lossless events, and leaves the readings.
    pub fn take_lossless(&self, most: usize, out: &mut Vec<Parcel>) {
        let mut lanes = self.lock();
        let count = lanes.lossless.len().min(most);
        out.extend(lanes.lossless.drain(..count).map(Parcel::Event));
    }

    /// Waits until something was put in since the last wait.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// How many parcels wait.
    pub fn waiting(&self) -> usize {
        let lanes = self.lock();
        lanes.lossless.len() + lanes.readings.len()
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn put_lossless(&mut self, published: &Arc<Published>) -> Put {
        if self.lossless.len() >= LOSSLESS_LANE {
            // It comes back with `since` and gets all of this from the log.
            *self = Self { overrun: true, ..Self::default() };
            return Put::Overrun;
        }
        self.lossless.push_back(Arc::clone(published));
        Put::Queued
    }

    fn put_reading(&mut self, slot: Slot, published: &Arc<Published>) -> Put {
        if let Some(waiting) = self.readings.get_mut(&slot) {
            let skipped = std::mem::replace(waiting, Arc::clone(published)).event.seq;
            self.note_gap(skipped);
            return Put::Conflated;
        }
        let full = self.order.len() >= READING_LANE;
        if full
            && let Some(oldest) = self.order.pop_front()
            && let Some(dropped) = self.readings.remove(&oldest)
        {
            self.note_gap(dropped.event.seq);
        }
        self.order.push_back(slot.clone());
        self.readings.insert(slot, Arc::clone(published));
        if full { Put::Conflated } else { Put::Queued }
    }

    fn note_gap(&mut self, seq: Seq) {
        let (from, to, skipped) = self.gap.unwrap_or((seq, seq, 0));
        self.gap = Some((from.min(seq), to.max(seq), skipped + 1));
    }

    /// True if order matters and the oldest reading came before the oldest message.
    fn reading_is_first(&self) -> bool {
        match (self.order.front(), self.lossless.front()) {
            (Some(Slot::One(reading)), Some(message)) => self.in_order && *reading < message.event.seq,
            _ => false,
        }
    }

    fn next(&mut self) -> Option<Parcel> {
        if !self.reading_is_first()
            && let Some(published) = self.lossless.pop_front()
        {
            return Some(Parcel::Event(published));
        }
        // Behind the alerts that it names, and before readings: those may never come to an end.
        if self.lossless.is_empty()
            && let Some(check) = self.check.take()
        {
            return Some(Parcel::Check(check));
        }
        if let Some((from, to, skipped)) = self.gap.take() {
            return Some(Parcel::Gap { from, to, skipped });
        }
        if let Some(slot) = self.order.pop_front() {
            return self.readings.remove(&slot).map(Parcel::Event);
        }
        self.waves.pop_front().map(Parcel::Wave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Stamp, Wall};
    use crate::event::{SystemEvent, SystemKind};
    use crate::vitals::{Decimal, Mode, Quality, Reading, Taken, Value, Vital};

    fn published(seq: u64, body: EventBody) -> Arc<Published> {
        let at = Stamp { mono: Mono(seq), wall: Wall(0) };
        let event = Arc::new(Event { epoch: "e".parse().unwrap(), seq: Seq(seq), at, body });
        Arc::new(Published { event, routes: vec![], text: Bytes::new(), forms: Forms::default() })
    }

    fn reading(seq: u64, device: &str) -> Arc<Published> {
        let at = Stamp::default();
        let reading = Reading {
            patient: None,
            device: device.parse().unwrap(),
            source: "s".parse().unwrap(),
            vital: Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(97))),
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Test,
            taken: Taken::on_arrival(at),
            received: at,
        };
        published(seq, EventBody::Reading(reading))
    }

    fn notice(seq: u64) -> Arc<Published> {
        let system = SystemEvent { kind: SystemKind::Started, message: String::new(), first: None, last: None };
        published(seq, EventBody::System(system))
    }

    /// What comes out, as text: `5` for event 5, `1-3/2` for a gap.
    fn taken(outbox: &Outbox) -> String {
        let mut parcels = Vec::new();
        outbox.take(usize::MAX, &mut parcels);
        let texts: Vec<String> = parcels
            .iter()
            .map(|parcel| match parcel {
                Parcel::Event(published) => published.event.seq.to_string(),
                Parcel::Wave(wave) => wave.channel.clone(),
                Parcel::Check(check) => format!("check{}", check.number),
                Parcel::Gap { from, to, skipped } => format!("{from}-{to}/{skipped}"),
            })
            .collect();
        texts.join(" ")
    }

    #[test]
    fn the_newest_reading_of_a_stream_wins_and_the_gap_says_so() {
        let outbox = Outbox::default();
        assert_eq!(outbox.put(&reading(1, "a"), Delivery::Latest), Put::Queued);
        assert_eq!(outbox.put(&reading(2, "b"), Delivery::Latest), Put::Queued);
        assert_eq!(outbox.put(&reading(3, "a"), Delivery::Latest), Put::Conflated);
        assert_eq!(outbox.put(&reading(4, "a"), Delivery::Latest), Put::Conflated);
        assert_eq!(taken(&outbox), "1-3/2 4 2");
        assert_eq!(taken(&outbox), "");
    }

    #[test]
    fn alerts_and_notices_overtake_readings() {
        let outbox = Outbox::default();
        outbox.put(&reading(1, "a"), Delivery::Latest);
        outbox.put(&notice(2), Delivery::Latest);
        outbox.put(&reading(3, "b"), Delivery::Latest);
        assert_eq!(taken(&outbox), "2 1 3");
    }

    #[test]
    fn waves_come_last_and_a_full_lane_drops_the_oldest_block() {
        let outbox = Outbox::default();
        let wave = |number: usize| Arc::new(PublishedWave { channel: format!("w{number}"), message: Bytes::new() });
        for number in 0..WAVE_LANE {
            assert_eq!(outbox.put_wave(&wave(number)), Put::Queued);
        }
        assert_eq!(outbox.put_wave(&wave(WAVE_LANE)), Put::Conflated);
        outbox.put(&reading(1, "a"), Delivery::Latest);
        outbox.put(&notice(2), Delivery::Latest);
        let taken = taken(&outbox);
        assert!(taken.starts_with("2 1 w1 w2 ") && taken.ends_with(&format!(" w{WAVE_LANE}")), "{taken}");
    }

    #[test]
    fn a_self_check_comes_behind_the_alerts_before_it_and_the_newest_alone() {
        let check = |number| {
            let every = Duration::from_secs(5);
            let (through, alerts) = (Seq(number), Vec::new());
            Arc::new(SelfCheck { number, every, through, alerts, annunciators: 0, undelivered: 0, notice: None })
        };
        for delivery in [Delivery::All, Delivery::Latest] {
            let outbox = Outbox::default();
            outbox.put(&reading(1, "a"), delivery);
            outbox.put_check(&check(1));
            outbox.put(&notice(2), delivery);
            outbox.put_check(&check(2));
            let order = if delivery == Delivery::All { "1 2 check2" } else { "2 check2 1" };
            assert_eq!(taken(&outbox), order);
        }
    }

    #[test]
    fn who_wants_every_reading_gets_everything_in_order() {
        let outbox = Outbox::default();
        for seq in [1, 3, 4] {
            outbox.put(&reading(seq, "a"), Delivery::All);
        }
        outbox.put(&notice(5), Delivery::All);
        outbox.put(&reading(6, "a"), Delivery::All);
        assert_eq!(taken(&outbox), "1 3 4 5 6");
    }

    #[test]
    fn a_full_reading_lane_drops_the_oldest() {
        let outbox = Outbox::default();
        let lane = u64::try_from(READING_LANE).unwrap();
        for seq in 1..=lane + 2 {
            outbox.put(&reading(seq, "a"), Delivery::All);
        }
        assert_eq!(outbox.waiting(), READING_LANE);
        assert!(taken(&outbox).starts_with("1-2/2 3 4 "));
    }

    #[test]
    fn a_full_lossless_lane_is_an_overrun_and_nothing_is_dropped_silently() {
        let outbox = Outbox::default();
        let lane = u64::try_from(LOSSLESS_LANE).unwrap();
        for seq in 1..=lane {
            assert_eq!(outbox.put(&notice(seq), Delivery::Latest), Put::Queued);
        }
        assert_eq!(outbox.put(&notice(lane + 1), Delivery::Latest), Put::Overrun);
        assert_eq!(outbox.put(&reading(lane + 2, "a"), Delivery::Latest), Put::Overrun);
        let mut parcels = Vec::new();
        assert!(!outbox.take(10, &mut parcels));
        assert!(parcels.is_empty(), "what came after the loss would move the position past it");
    }
}
