//! What waits for one listener: a lossless lane, a lane of readings in which the newest wins, and a short one of waves.
//!
//! Nobody is ever awaited on the way in. A listener that does not take its alerts is marked as overrun and has to come
//! back with `since`; one that does not take its readings gets the newest of each stream and is told what it missed.

mod frame;

mod readings;

mod sampling;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

pub use self::frame::Frame;
use self::readings::{Readings, Stream};
use self::sampling::Sampler;
pub use self::sampling::{QUIET, Sampling};
use crate::alerts::delivery::DeliveryState;
use crate::clock::{Clock, Mono};
use crate::event::{Event, EventBody};
use crate::ids::{AlertId, PatientId, Seq};
use crate::rooms::Moment;
use crate::vitals::Metric;
use crate::wire;

/// Most alerts and other lossless events that wait for one listener; one more marks it as overrun.
pub const LOSSLESS_LANE: usize = 1024;

/// Most readings that wait for one listener; one more drops the oldest, and a gap says so.
pub const READING_LANE: usize = 2048;

/// Most blocks of samples that wait for one listener: two seconds of four waves. One more drops the oldest.
pub const WAVE_LANE: usize = 32;

/// Most of what is of the moment that waits for one listener. One more drops the oldest.
pub const MOMENT_LANE: usize = 128;

/// Most streams that a gap names one by one; the others are in its total.
pub const GAP_STREAMS: usize = 512;

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
    /// The JSON text of [`crate::wire::push`], framed.
    pub text: Frame,
    /// Its other forms, made when the first listener wants one.
    pub forms: Forms,
}

impl Published {
    /// The channel under which it is published.
    pub fn channel(&self) -> &str {
        self.routes.first().map_or("", String::as_str)
    }

    /// A reading without its number; see [`crate::filter::Share::WithoutNumber`]. `None` of everything else.
    pub fn withheld(&self) -> Option<Arc<Self>> {
        let event = self.event.withheld()?;
        let text = Frame::text(&wire::push(&event).ok()?);
        let (routes, forms) = (self.routes.clone(), Forms::default());
        Some(Arc::new(Self { event: Arc::new(event), routes, text, forms }))
    }

    /// When the bridge received it, if it is a reading.
    pub fn received(&self) -> Option<Mono> {
        match &self.event.body {
            EventBody::Reading(reading) => Some(reading.received.mono),
            _ => None,
        }
    }
}

/// Other forms of an event's text, each made at most once. `None` where there is none.
#[derive(Debug, Default)]
pub struct Forms {
    /// CBOR.
    pub cbor: OnceLock<Option<Frame>>,
    /// A reading in short.
    pub compact: OnceLock<Option<Compact>>,
}

/// A reading in short.
#[derive(Debug, Clone)]
pub struct Compact {
    /// The number of its stream, which a client has to know first.
    pub stream: u32,
    /// The text, framed.
    pub text: Frame,
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
    /// As `Latest`, and no more of each stream than this.
    Sampled(Sampling),
}

impl Delivery {
    /// The one that gives the listener more, for what it has subscribed to twice.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Latest, _) | (_, Self::Latest) => Self::Latest,
            (Self::Sampled(one), Self::Sampled(two)) => {
                Self::Sampled(if two.interval < one.interval { two } else { one })
            }
        }
    }
}

/// What a listener takes out.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// An event.
    Event(Arc<Published>),
    /// A self-check; what was published before it has gone before it.
    Check(Arc<SelfCheck>),
    /// Something of the moment: who is there, who types.
    Moment(Arc<Moment>),
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
        /// The same of each stream, as far as [`GAP_STREAMS`] reach; none where nobody knows what they were.
        streams: Vec<GapStream>,
    },
}

/// What was skipped of one stream.
#[derive(Debug, Clone)]
pub struct GapStream {
    /// The first of them.
    pub from: Seq,
    /// The last of them; it also says which stream.
    pub last: Arc<Published>,
    /// How many.
    pub skipped: u64,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits.
    Queued,
    /// It waits in the place of an older reading or block of samples.
    Conflated,
    /// It waits for its time: the listener wants fewer of this stream.
    Held,
    /// It was not taken: the listener has to be closed.
    Overrun,
}

/// What waits for a listener, and what it has missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Events, blocks of samples and self-checks that wait.
    pub parcels: usize,
    /// The bytes of their messages; of a self-check none, because each listener has its own.
    pub bytes: usize,
    /// Readings and blocks of samples that were replaced or dropped since it began to listen.
    pub conflated: u64,
    /// It has to be closed.
    pub is_overrun: bool,
}

/// What was skipped since the listener was last told.
#[derive(Debug)]
struct Skipped {
    from: Seq,
    to: Seq,
    count: u64,
    /// By the channel. At most [`GAP_STREAMS`].
    streams: BTreeMap<String, GapStream>,
}

#[derive(Debug, Default)]
struct Lanes {
    lossless: VecDeque<Arc<Published>>,
    readings: Readings,
    gap: Option<Box<Skipped>>,
    /// Readings that a listener wants less often.
    sampler: Sampler,
    /// Everything that was replaced or dropped.
    conflated: u64,
    waves: VecDeque<Arc<PublishedWave>>,
    /// The newest of each kind, room and person: an older one says nothing any more.
    moments: VecDeque<Arc<Moment>>,
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
    ///
    /// `is_alarmed`: an alert stands about this reading, so that no sampling holds it back.
    pub fn put(&self, published: &Arc<Published>, delivery: Delivery, is_alarmed: bool) -> Put {
        let mut lanes = self.lock();
        if lanes.overrun {
            return Put::Overrun;
        }
        lanes.in_order |= delivery == Delivery::All;
        let mut is_urgent = false;
        let put = match &published.event.body {
            EventBody::Reading(reading) => {
                let stream = || (reading.patient.clone(), reading.device.clone(), reading.vital.metric());
                // What was held back of the stream is older than this one, and must not come behind it.
                if !matches!(delivery, Delivery::Sampled(_)) && !lanes.sampler.is_empty() {
                    lanes.sampler.forget(&stream());
                }
                match delivery {
                    Delivery::All => {
                        lanes.readings.pin(stream);
                        lanes.put_reading(None, published)
                    }
                    Delivery::Latest => lanes.put_reading(Some(stream()), published),
                    Delivery::Sampled(sampling) => {
                        let (stream, before) = (stream(), lanes.sampler.next_due());
                        if !lanes.sampler.passes(&stream, published, sampling, is_alarmed) {
                            let is_sooner = lanes.sampler.next_due() != before;
                            drop(lanes);
                            // Only whoever waits for it has to know: nothing can be taken yet.
                            if is_sooner {
                                self.filled.notify_one();
                            }
                            return Put::Held;
                        }
                        lanes.put_reading(Some(stream), published)
                    }
                }
            }
            // A meter has hundreds of them: they must not close a listener.
            EventBody::Record(_) => lanes.put_reading(None, published),
            _ => {
                is_urgent = true;
                lanes.put_lossless(published)
            }
        };
        drop(lanes);
        if is_urgent {
            self.filled.notify_one();
        }
        put
    }

    /// Makes [`Outbox::filled`] return if readings or waves wait: they go out together, once a tick. Everything else has
    /// done so when it was put in.
    pub fn tick(&self) {
        let lanes = self.lock();
        let waits = !(lanes.readings.is_empty() && lanes.waves.is_empty());
        drop(lanes);
        if waits {
            self.filled.notify_one();
        }
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
            lanes.conflated += 1;
        }
        lanes.waves.push_back(Arc::clone(wave));
        drop(lanes);
        if full { Put::Conflated } else { Put::Queued }
    }

    /// Puts something of the moment in, in the place of what it replaces, else of the oldest if the lane is full; never
    /// waits.
    pub fn put_moment(&self, moment: &Arc<Moment>) {
        let mut lanes = self.lock();
        if !lanes.overrun {
            lanes.moments.retain(|waiting| !moment.replaces(waiting));
            if lanes.moments.len() >= MOMENT_LANE {
                lanes.moments.pop_front();
            }
            lanes.moments.push_back(Arc::clone(moment));
        }
        drop(lanes);
        self.filled.notify_one();
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
        let is_left = lanes.is_filled();
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

    /// Takes up to `most` alerts and other lossless events that overtake readings: none where the order counts.
    pub fn take_urgent(&self, most: usize, out: &mut Vec<Parcel>) {
        let in_order = self.lock().in_order;
        if !in_order {
            self.take_lossless(most, out);
        }
    }

    /// Waits until something that must not wait was put in since the last wait, or something else and the tick after it, or
    /// until something that was held back is due.
    pub async fn filled(&self, clock: &Clock) {
        loop {
            let now = clock.now().mono;
            let (due, was_due) = {
                let mut lanes = self.lock();
                let held = lanes.sampler.due(now);
                let was_due = !held.is_empty();
                lanes.let_go(held);
                (lanes.sampler.next_due(), was_due)
            };
            if was_due {
                return;
            }
            let Some(due) = due else { return self.filled.notified().await };
            // In a box: most listeners never sample.
            let came = Box::pin(tokio::time::timeout(due.since(now), self.filled.notified())).await;
            // What came may be due sooner.
            if came.is_ok() && self.is_filled() {
                return;
            }
        }
    }

    /// Lets out what is held back of this patient's metric: it has begun to alarm.
    pub fn release(&self, patient: Option<&PatientId>, metric: Metric, now: Mono) {
        let mut lanes = self.lock();
        let held = lanes.sampler.of(patient, metric, now);
        let is_news = !held.is_empty();
        lanes.let_go(held);
        drop(lanes);
        if is_news {
            self.filled.notify_one();
        }
    }

    /// The listener has other subscriptions. `is_wanted`: whether it still wants a reading; `in_order`: it wants every
    /// reading of some stream, and with it the order of the numbers.
    pub fn resubscribed(&self, in_order: bool, is_wanted: impl Fn(&Published) -> bool) {
        let mut lanes = self.lock();
        lanes.in_order = in_order;
        lanes.sampler.keep(is_wanted);
    }

    /// True while something can be taken.
    fn is_filled(&self) -> bool {
        let lanes = self.lock();
        lanes.overrun || lanes.is_filled()
    }

    /// How many parcels wait.
    pub fn waiting(&self) -> usize {
        let lanes = self.lock();
        lanes.lossless.len() + lanes.readings.len() + lanes.waves.len() + lanes.sampler.held()
    }

    /// How many bytes of messages wait. Other listeners share them.
    pub fn waiting_bytes(&self) -> usize {
        let lanes = self.lock();
        let texts = lanes.lossless.iter().chain(lanes.readings.iter()).map(|published| published.text.len());
        texts.chain(lanes.waves.iter().map(|wave| wave.message.len())).sum()
    }

    /// What waits, and what was missed.
    pub fn load(&self) -> Load {
        let lanes = self.lock();
        let parcels =
            lanes.lossless.len() + lanes.readings.len() + lanes.waves.len() + usize::from(lanes.check.is_some());
        let events = lanes.lossless.iter().chain(lanes.readings.iter()).map(|published| published.text.len());
        let bytes = events.chain(lanes.waves.iter().map(|wave| wave.message.len())).sum();
        Load { parcels, bytes, conflated: lanes.conflated, is_overrun: lanes.overrun }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn put_lossless(&mut self, published: &Arc<Published>) -> Put {
        if self.lossless.len() >= LOSSLESS_LANE {
            // It comes back with `since` and gets all of this from the log.
            *self = Self { overrun: true, conflated: self.conflated, ..Self::default() };
            return Put::Overrun;
        }
        self.lossless.push_back(Arc::clone(published));
        Put::Queued
    }

    /// `stream`: the newest of it is all that is wanted.
    fn put_reading(&mut self, stream: Option<Stream>, published: &Arc<Published>) -> Put {
        let skipped = match stream {
            Some(stream) => self.readings.put_newest(stream, published),
            None => self.readings.put(published),
        };
        let Some(skipped) = skipped else { return Put::Queued };
        self.note_gap(&skipped);
        Put::Conflated
    }

    /// Puts readings that were held back where they can be taken.
    fn let_go(&mut self, held: Vec<(Stream, Arc<Published>)>) {
        for (stream, published) in held {
            // The newest of a stream is never replaced by an older one.
            let waiting = self.readings.newest(&stream);
            if waiting.is_none_or(|waiting| waiting.event.seq < published.event.seq) {
                self.put_reading(Some(stream), &published);
            }
        }
    }

    fn is_filled(&self) -> bool {
        !(self.lossless.is_empty() && self.readings.is_empty() && self.waves.is_empty())
            || self.check.is_some()
            || !self.moments.is_empty()
    }

    fn note_gap(&mut self, skipped: &Arc<Published>) {
        self.conflated += 1;
        let seq = skipped.event.seq;
        let gap = self
            .gap
            .get_or_insert_with(|| Box::new(Skipped { from: seq, to: seq, count: 0, streams: BTreeMap::new() }));
        (gap.from, gap.to, gap.count) = (gap.from.min(seq), gap.to.max(seq), gap.count + 1);
        let Some(channel) = skipped.routes.first() else { return };
        if let Some(stream) = gap.streams.get_mut(channel) {
            // Two devices may share a channel, so that an older one may go later.
            (stream.from, stream.skipped) = (stream.from.min(seq), stream.skipped + 1);
            if stream.last.event.seq < seq {
                stream.last = Arc::clone(skipped);
            }
        } else if gap.streams.len() < GAP_STREAMS {
            let first = GapStream { from: seq, last: Arc::clone(skipped), skipped: 1 };
            gap.streams.insert(channel.clone(), first);
        }
    }

    /// True if order matters and the oldest reading came before the oldest message.
    fn reading_is_first(&self) -> bool {
        let first = self.lossless.front().filter(|_| self.in_order);
        first.zip(self.readings.oldest()).is_some_and(|(message, reading)| reading < message.event.seq)
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
        if self.lossless.is_empty()
            && let Some(moment) = self.moments.pop_front()
        {
            return Some(Parcel::Moment(moment));
        }
        if let Some(gap) = self.gap.take() {
            let Skipped { from, to, count, streams } = *gap;
            return Some(Parcel::Gap { from, to, skipped: count, streams: streams.into_values().collect() });
        }
        if let Some(reading) = self.readings.take() {
            return Some(Parcel::Event(reading));
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
        Arc::new(Published { event, routes: vec![], text: Frame::text(""), forms: Forms::default() })
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
                Parcel::Moment(moment) => moment.routes.concat(),
                Parcel::Check(check) => format!("check{}", check.number),
                Parcel::Gap { from, to, skipped, .. } => format!("{from}-{to}/{skipped}"),
            })
            .collect();
        texts.join(" ")
    }

    /// True if a listener that waits would be woken now.
    fn wakes(outbox: &Outbox) -> bool {
        let mut filled = std::pin::pin!(outbox.filled(&Clock::System));
        filled.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn readings_and_waves_wait_for_the_tick_and_alerts_do_not() {
        let outbox = Outbox::default();
        outbox.tick();
        assert!(!wakes(&outbox), "nothing waits");
        outbox.put(&reading(1, "a"), Delivery::Latest, false);
        outbox.put_wave(&Arc::new(PublishedWave { channel: "w".into(), message: Bytes::new() }));
        assert!(!wakes(&outbox));
        outbox.tick();
        assert!(wakes(&outbox));
        assert_eq!(taken(&outbox), "1 w");
        outbox.put(&reading(2, "a"), Delivery::Latest, false);
        outbox.put(&notice(3), Delivery::Latest, false);
        assert!(wakes(&outbox));
        assert_eq!(taken(&outbox), "3 2", "what waits goes with it");
    }

    #[test]
    fn alerts_are_taken_alone_before_an_answer_but_not_out_of_an_order() {
        for (delivery, expected) in [(Delivery::Latest, 1), (Delivery::All, 0)] {
            let outbox = Outbox::default();
            outbox.put(&reading(1, "a"), delivery, false);
            outbox.put(&notice(2), delivery, false);
            let mut parcels = Vec::new();
            outbox.take_urgent(10, &mut parcels);
            assert_eq!(parcels.len(), expected, "{delivery:?}");
        }
    }

    #[test]
    fn the_newest_reading_of_a_stream_wins_and_the_gap_says_so() {
        let outbox = Outbox::default();
        assert_eq!(outbox.put(&reading(1, "a"), Delivery::Latest, false), Put::Queued);
        assert_eq!(outbox.put(&reading(2, "b"), Delivery::Latest, false), Put::Queued);
        assert_eq!(outbox.put(&reading(3, "a"), Delivery::Latest, false), Put::Conflated);
        assert_eq!(outbox.put(&reading(4, "a"), Delivery::Latest, false), Put::Conflated);
        assert_eq!(taken(&outbox), "1-3/2 4 2");
        assert_eq!(taken(&outbox), "");
    }

    #[test]
    fn alerts_and_notices_overtake_readings() {
        let outbox = Outbox::default();
        outbox.put(&reading(1, "a"), Delivery::Latest, false);
        outbox.put(&notice(2), Delivery::Latest, false);
        outbox.put(&reading(3, "b"), Delivery::Latest, false);
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
        outbox.put(&reading(1, "a"), Delivery::Latest, false);
        outbox.put(&notice(2), Delivery::Latest, false);
        let taken = taken(&outbox);
        assert!(taken.starts_with("2 1 w1 w2 ") && taken.ends_with(&format!(" w{WAVE_LANE}")), "{taken}");
    }

    #[test]
    fn what_is_of_the_moment_is_bounded_and_the_newest_stands_for_the_older() {
        let moment = |room: usize, at: i64| {
            let now = Stamp { mono: Mono(0), wall: Wall(at) };
            Arc::new(Moment::presence(&format!("r{room}"), "lena", true, &crate::rooms::Members::default(), now))
        };
        let outbox = Outbox::default();
        for room in 0..=MOMENT_LANE {
            outbox.put_moment(&moment(room, 1));
        }
        outbox.put_moment(&moment(2, 2));
        outbox.put(&reading(1, "a"), Delivery::Latest, false);
        outbox.put(&notice(2), Delivery::Latest, false);
        let mut parcels = Vec::new();
        outbox.take(usize::MAX, &mut parcels);
        let rooms: Vec<(String, i64)> = parcels
            .iter()
            .filter_map(|parcel| match parcel {
                Parcel::Moment(moment) => Some((moment.routes.concat(), moment.at.0)),
                _ => None,
            })
            .collect();
        assert_eq!(rooms.len(), MOMENT_LANE, "the first has gone");
        assert_eq!(rooms.first(), Some(&("chat/r1".to_owned(), 1)));
        assert_eq!(rooms.last(), Some(&("chat/r2".to_owned(), 2)), "in the place of the older one");
        assert!(matches!(parcels.first(), Some(Parcel::Event(published)) if published.event.seq == Seq(2)));
        assert!(matches!(parcels.last(), Some(Parcel::Event(published)) if published.event.seq == Seq(1)));
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
            outbox.put(&reading(1, "a"), delivery, false);
            outbox.put_check(&check(1));
            outbox.put(&notice(2), delivery, false);
            outbox.put_check(&check(2));
            let order = if delivery == Delivery::All { "1 2 check2" } else { "2 check2 1" };
            assert_eq!(taken(&outbox), order);
        }
    }

    #[test]
    fn who_wants_every_reading_gets_everything_in_order() {
        let outbox = Outbox::default();
        for seq in [1, 3, 4] {
            outbox.put(&reading(seq, "a"), Delivery::All, false);
        }
        outbox.put(&notice(5), Delivery::All, false);
        outbox.put(&reading(6, "a"), Delivery::All, false);
        assert_eq!(taken(&outbox), "1 3 4 5 6");
    }

    #[test]
    fn a_full_reading_lane_drops_the_oldest() {
        let outbox = Outbox::default();
        let lane = u64::try_from(READING_LANE).unwrap();
        for seq in 1..=lane + 2 {
            outbox.put(&reading(seq, "a"), Delivery::All, false);
        }
        assert_eq!(outbox.waiting(), READING_LANE);
        assert!(taken(&outbox).starts_with("1-2/2 3 4 "));
    }

    #[test]
    fn a_full_lossless_lane_is_an_overrun_and_nothing_is_dropped_silently() {
        let outbox = Outbox::default();
        let lane = u64::try_from(LOSSLESS_LANE).unwrap();
        for seq in 1..=lane {
            assert_eq!(outbox.put(&notice(seq), Delivery::Latest, false), Put::Queued);
        }
        assert_eq!(outbox.put(&notice(lane + 1), Delivery::Latest, false), Put::Overrun);
        assert_eq!(outbox.put(&reading(lane + 2, "a"), Delivery::Latest, false), Put::Overrun);
        let mut parcels = Vec::new();
        assert!(!outbox.take(10, &mut parcels));
        assert!(parcels.is_empty(), "what came after the loss would move the position past it");
    }

    #[test]
    fn a_gap_names_each_stream_and_what_it_lost() {
        let outbox = Outbox::default();
        let of = |seq: u64, device: &str| {
            let Published { event, text, .. } = Arc::into_inner(reading(seq, device)).unwrap();
            Arc::new(Published { event, routes: vec![format!("patient/P/{device}")], text, forms: Forms::default() })
        };
        for (seq, device) in [(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "b"), (6, "c")] {
            outbox.put(&of(seq, device), Delivery::Latest, false);
        }
        let mut parcels = Vec::new();
        outbox.take(1, &mut parcels);
        let Some(Parcel::Gap { from, to, skipped, streams }) = parcels.pop() else { panic!() };
        assert_eq!((from, to, skipped), (Seq(1), Seq(3), 3));
        let told: Vec<_> =
            streams.iter().map(|it| (it.last.routes[0].as_str(), it.from.0, it.last.event.seq.0, it.skipped)).collect();
        assert_eq!(told, [("patient/P/a", 1, 3, 2), ("patient/P/b", 2, 2, 1)]);
        assert_eq!(taken(&outbox), "4 5 6");
    }

    #[test]
    fn a_gap_has_a_bound_and_its_total_is_right_beyond_it() {
        let outbox = Outbox::default();
        let count = u64::try_from(GAP_STREAMS).unwrap() + 5;
        for seq in 1..=2 * count {
            let device = format!("d{}", seq % count);
            let Published { event, text, .. } = Arc::into_inner(reading(seq, &device)).unwrap();
            let published = Arc::new(Published { event, routes: vec![device], text, forms: Forms::default() });
            outbox.put(&published, Delivery::Latest, false);
        }
        let mut parcels = Vec::new();
        outbox.take(1, &mut parcels);
        let Some(Parcel::Gap { skipped, streams, .. }) = parcels.pop() else { panic!() };
        assert_eq!((skipped, streams.len()), (count, GAP_STREAMS));
    }

    /// A reading of a millisecond of the script; `x` for none.
    fn measured(ms: u64, value: &str, quality: Quality) -> Arc<Published> {
        let at = Stamp { mono: Mono::from_millis(ms), wall: Wall(0) };
        let value = value.parse().map_or(Value::Absent(crate::vitals::Absent::SensorOff), Value::Valid);
        let body = EventBody::Reading(Reading {
            patient: None,
            device: "a".parse().unwrap(),
            source: "s".parse().unwrap(),
            vital: Vital::scalar(Metric::Spo2, value),
            mdc: None,
            quality,
            mode: Mode::Test,
            taken: Taken::on_arrival(at),
            received: at,
        });
        let event = Arc::new(Event { epoch: "e".parse().unwrap(), seq: Seq(ms), at, body });
        Arc::new(Published { event, routes: vec![], text: Frame::text(""), forms: Forms::default() })
    }

    /// What comes out of `put value at ms` every step, and of time alone (`-`), as `ms` of what was measured.
    fn sampled(deadband: Option<&str>, script: &[(u64, &str, &str)]) {
        let sampling = Sampling {
            interval: Duration::from_millis(500),
            deadband: deadband.map(|deadband| deadband.parse().unwrap()),
        };
        let outbox = Outbox::default();
        for (ms, value, expected) in script {
            let now = Mono::from_millis(*ms);
            {
                let mut lanes = outbox.lock();
                let held = lanes.sampler.due(now);
                lanes.let_go(held);
            }
            match *value {
                "-" => {}
                "alert" => outbox.release(None, Metric::Spo2, now),
                _ => {
                    let quality = if value.ends_with('?') { Quality::Questionable } else { Quality::Valid };
                    let is_alarmed = value.ends_with('!');
                    let number = value.trim_end_matches(['?', '!']);
                    outbox.put(&measured(*ms, number, quality), Delivery::Sampled(sampling), is_alarmed);
                }
            }
            assert_eq!(taken(&outbox), *expected, "{deadband:?}: {value} at {ms}");
        }
    }

    #[test]
    fn sampling_bounds_the_rate_and_the_last_value_before_a_silence_comes() {
        sampled(
            None,
            &[
                (1000, "97", "1000"),
                (1100, "96", ""),
                (1200, "95", ""),
                (1500, "-", "1200"),
                (1900, "94", ""),
                (2000, "-", "1900"),
                (9000, "-", ""),
                (9001, "93", "9001"),
                // The same number again is a reading like any other.
                (9100, "93", ""),
                (9501, "-", "9100"),
            ],
        );
    }

    #[test]
    fn small_changes_wait_longer_and_never_for_ever() {
        sampled(
            Some("1.5"),
            &[
                (1000, "97", "1000"),
                (1600, "98", ""),
                (2200, "96", ""),
                (2900, "-", ""),
                (3000, "-", "2200"),
                // Too much of a change waits for the rate alone.
                (3100, "90", ""),
                (3500, "-", "3100"),
                (3600, "91", ""),
                (3700, "88", ""),
                (4000, "-", "3700"),
            ],
        );
    }

    #[test]
    fn what_changes_its_kind_or_alarms_passes_at_once() {
        for deadband in [None, Some("5")] {
            sampled(
                deadband,
                &[
                    (1000, "97", "1000"),
                    (1010, "x", "1010"),
                    (1020, "x", ""),
                    (1030, "97", "1030"),
                    (1040, "97?", "1040"),
                    (1050, "97", "1050"),
                    (1060, "96!", "1060"),
                    (1070, "96!", "1070"),
                    (1080, "96", ""),
                    // The alert comes behind the reading that made it.
                    (1081, "alert", "1080"),
                    (3100, "-", ""),
                ],
            );
        }
    }

    #[test]
    fn each_part_of_a_pressure_has_the_deadband() {
        let deadband = Sampling { interval: Duration::from_millis(10), deadband: Some("2".parse().unwrap()) };
        let cuff = |ms: u64, parts: [i32; 3]| {
            let Published { event, .. } = Arc::into_inner(measured(ms, "0", Quality::Valid)).unwrap();
            let mut event = Arc::into_inner(event).unwrap();
            let [systolic, diastolic, mean] = parts.map(|part| Value::Valid(Decimal::integer(part)));
            if let EventBody::Reading(reading) = &mut event.body {
                reading.vital = Vital::BloodPressure(crate::vitals::Pressure { systolic, diastolic, mean });
            }
            Arc::new(Published {
                event: Arc::new(event),
                routes: vec![],
                text: Frame::text(""),
                forms: Forms::default(),
            })
        };
        let outbox = Outbox::default();
        for (ms, parts, passes) in [
            (100, [120, 80, 93], true),
            (200, [122, 78, 94], false),
            (300, [120, 83, 93], true),
            (400, [120, 83, 97], true),
            (500, [118, 83, 97], false),
        ] {
            outbox.put(&cuff(ms, parts), Delivery::Sampled(deadband), false);
            assert_eq!(taken(&outbox), if passes { ms.to_string() } else { String::new() }, "{parts:?}");
        }
    }

    #[test]
    fn what_was_held_back_never_comes_behind_a_newer_reading() {
        let sampled = Delivery::Sampled(Sampling { interval: Duration::from_millis(500), deadband: None });
        for (delivery, is_taken) in
            [(Delivery::Latest, false), (Delivery::Latest, true), (Delivery::All, false), (Delivery::All, true)]
        {
            let outbox = Outbox::default();
            outbox.put(&measured(1000, "97", Quality::Valid), sampled, false);
            assert_eq!(taken(&outbox), "1000");
            assert_eq!(outbox.put(&measured(1100, "96", Quality::Valid), sampled, false), Put::Held);
            outbox.resubscribed(delivery == Delivery::All, |_| true);
            outbox.put(&measured(1200, "50", Quality::Valid), delivery, false);
            let before = if is_taken { taken(&outbox) } else { String::new() };
            {
                let mut lanes = outbox.lock();
                let held = lanes.sampler.due(Mono::from_millis(9000));
                lanes.let_go(held);
            }
            assert_eq!(before + &taken(&outbox), "1200", "{delivery:?}, taken before: {is_taken}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_what_was_held_back_is_due() {
        let clock = Clock::tokio(Stamp { mono: Mono::from_millis(1000), wall: Wall(0) });
        let sampling = Delivery::Sampled(Sampling { interval: Duration::from_millis(500), deadband: None });
        let outbox = Outbox::default();
        outbox.put(&measured(1000, "97", Quality::Valid), sampling, false);
        outbox.tick();
        outbox.filled(&clock).await;
        assert_eq!(taken(&outbox), "1000");
        outbox.put(&measured(1000, "96", Quality::Valid), sampling, false);
        while outbox.waiting() > 0 {
            outbox.filled(&clock).await;
            taken(&outbox);
        }
        assert_eq!(clock.now().mono, Mono::from_millis(1500));
    }

    #[test]
    fn a_stream_that_is_wanted_whole_and_then_newest_again_keeps_its_order() {
        let outbox = Outbox::default();
        for (seq, delivery) in [(1, Delivery::Latest), (2, Delivery::All), (3, Delivery::Latest), (4, Delivery::Latest)]
        {
            outbox.put(&reading(seq, "a"), delivery, false);
        }
        assert_eq!(taken(&outbox), "3-3/1 1 2 4");
    }

    #[test]
    fn whatever_a_listener_wants_of_a_stream_its_readings_never_go_back_and_each_is_accounted_for() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let sampled = Delivery::Sampled(Sampling { interval: Duration::from_millis(3), deadband: None });
        for _ in 0..2000 {
            let outbox = Outbox::default();
            let (mut newest, mut told, mut unsampled) = (BTreeMap::new(), 0, 0);
            let sampling = random.bool();
            for ms in 1..random.u64(2..60) {
                let device = *random.choice(["a", "b", "c"].iter()).unwrap();
                let wanted = [Delivery::Latest, Delivery::All, sampled];
                let delivery = wanted[random.usize(..if sampling { 3 } else { 2 })];
                outbox.put(&of_device(&measured(ms, "97", Quality::Valid), device), delivery, false);
                unsampled += 1;
                let mut parcels = Vec::new();
                if random.u8(..4) == 0 {
                    outbox.take(random.usize(..6), &mut parcels);
                }
                if ms % 7 == 0 {
                    let mut lanes = outbox.lock();
                    let held = lanes.sampler.due(Mono::from_millis(ms));
                    lanes.let_go(held);
                }
                told += account(&parcels, &mut newest);
            }
            let mut parcels = Vec::new();
            outbox.take(usize::MAX, &mut parcels);
            told += account(&parcels, &mut newest);
            assert!(sampling || told == unsampled, "{told} of {unsampled}");
            assert!(outbox.lock().readings.is_empty());
        }
    }

    fn of_device(published: &Arc<Published>, device: &str) -> Arc<Published> {
        let mut event = Event::clone(&published.event);
        if let EventBody::Reading(reading) = &mut event.body {
            reading.device = device.parse().unwrap();
        }
        let (text, forms) = (Frame::text(""), Forms::default());
        Arc::new(Published { event: Arc::new(event), routes: vec![], text, forms })
    }

    /// How many readings came or were told as skipped; each stream's number rises.
    fn account(parcels: &[Parcel], newest: &mut BTreeMap<String, Seq>) -> u64 {
        let mut told = 0;
        for parcel in parcels {
            match parcel {
                Parcel::Gap { skipped, .. } => told += skipped,
                Parcel::Event(published) => {
                    let EventBody::Reading(reading) = &published.event.body else { panic!("only readings") };
                    let before = newest.insert(reading.device.to_string(), published.event.seq);
                    assert!(before.is_none_or(|before| before < published.event.seq), "{before:?} {published:?}");
                    told += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        told
    }
}
