//! A sensor of a maker's own protocol as a source: its notifications are a stream of bytes, read as at a serial port.
//!
//! Framing, decoding, confirmation and thinning are those of [`crate::sources::stream`]; a new subscription begins with
//! a clean framer. What is written to the sensor is decided by [`Talk`], and whether the link is a good one by the
//! radio's connection policy, which is told of each sign of life that was understood.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::client::{Client, Report};
use super::policy::{SensorPhase, SensorState};
use super::radio::Delivery;
use super::sensor::{CURRENT_TIME, DATE_TIME, Habit};
use super::talk::Talk;
use super::visit::{Visits, historic, is_long_ago};
use super::{Malformed, link_of, sleep};
use crate::clock::{Mono, Stamp};
use crate::decode::FrameCounters;
use crate::event::LinkState;
use crate::profile::Profile;
use crate::sources::device_clock::{DeviceClock, Related};
use crate::sources::output::{Observation, SourceCounters, SourceOutput, When};
use crate::sources::stream::{Arrived, Stream};
use crate::sources::{RESEND_EVERY, SourceError};
use crate::vitals::{Decimal, Metric, Quality, Value, Vital};

/// The policy is told so often that data comes: some sensors send a hundred times a second.
const UNDERSTOOD_EVERY: Duration = Duration::from_millis(250);

/// Measurements of a sensor that measures now and then which are recognised when they come again; the oldest is forgotten.
const MAX_REMEMBERED: usize = 512;

/// Measurements that wait for the sensor's time; one more, and the oldest goes on without.
const MAX_UNDATED: usize = 256;

/// One running source.
pub(super) struct Reader<'r> {
    profile: Arc<Profile>,
    is_episodic: bool,
    /// How many minutes the sensor's local time is ahead of UTC, if the configuration says so.
    offset: Option<i16>,
    client: Client,
    output: &'r mut SourceOutput,
    /// What came since the subscription; `None`: there is no link.
    stream: Option<Stream>,
    talk: Talk,
    /// What the radio says about the link, where it is not for the stream to say.
    told: Option<(LinkState, Option<String>)>,
    malformed: Malformed,
    understood: Option<Mono>,
    battery: Option<u8>,
    /// What a sensor that measures now and then has handed over: some hand it over again at a later visit.
    handed_over: VecDeque<Observation>,
    /// What the sensor's clock said.
    device_clock: DeviceClock,
    /// What it has handed over.
    visits: Visits<Metric>,
    /// What waits for that.
    undated: VecDeque<Arrived>,
}

impl<'r> Reader<'r> {
    pub(super) fn new(
        profile: Arc<Profile>,
        habit: Habit,
        offset: Option<i16>,
        client: Client,
        output: &'r mut SourceOutput,
    ) -> Self {
        Self {
            is_episodic: habit.is_episodic(),
            offset,
            talk: Talk::new(Arc::clone(&profile)),
            profile,
            client,
            output,
            stream: None,
            told: None,
            malformed: Malformed::default(),
            understood: None,
            battery: None,
            handed_over: VecDeque::new(),
            device_clock: DeviceClock::default(),
            visits: Visits::default(),
            undated: VecDeque::new(),
        }
    }

    /// Reads until the radio ends, which it does when the daemon stops.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        let mut seconds = tokio::time::interval(RESEND_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once.
        seconds.tick().await;
        loop {
            let now = self.output.now();
            if let Some(bytes) = self.talk.next(now) {
                self.client.report(Report::Send(bytes)).await;
            }
            if self.device_clock.deadline().is_some_and(|due| due <= now.mono) {
                self.on_untold().await?;
            }
            let due = self.talk.next_deadline().into_iter().chain(self.device_clock.deadline()).min();
            let due = due.map(|at| at.since(now.mono));
            tokio::select! {
                biased;
                // A second is over. First, so that a flood of notifications cannot hold it up.
                _ = seconds.tick() => self.second().await?,
                // Something is to be written, or the sensor has not told its time.
                () = sleep(due) => {}
                // What has arrived comes before what became of the link: no measurement is lost, and none makes a link
                // that has gone look live.
                delivery = self.client.deliveries.recv() => match delivery {
                    Some(Delivery::Subscribed) => self.on_subscribed().await?,
                    Some(Delivery::Bytes { bytes, received }) => self.on_bytes(&bytes, received).await?,
                    Some(Delivery::Sent(result)) => self.on_sent(result),
                    Some(Delivery::Payload { uuid, bytes, received }) => {
                        if [CURRENT_TIME.uuid, DATE_TIME].contains(&uuid) {
                            self.device_clock.on_told(&bytes, received);
                        }
                        self.hand_on(vec![]).await?;
                    }
                    Some(Delivery::NoTime) => self.on_untold().await?,
                    Some(Delivery::Advertised { .. } | Delivery::TimeTaken { .. }) => {}
                    // The radio has ended, and nobody tells the time any more.
                    None => {
                        self.end_stream().await?;
                        return self.on_untold().await;
                    }
                },
                Some(state) = self.client.news.recv() => self.on_news(&state).await?,
            }
        }
    }

    async fn on_subscribed(&mut self) -> Result<(), SourceError> {
        // What was told before is about the link before.
        while let Ok(state) = self.client.news.try_recv() {
            self.on_news(&state).await?;
        }
        self.end_stream().await?;
        SourceCounters::add(&self.output.counters().opened, 1);
        self.stream = Some(Stream::of_notifications(&self.profile, self.output.now()));
        self.talk.on_subscribed();
        (self.told, self.understood, self.malformed) = (None, None, Malformed::default());
        self.output.state(LinkState::Waiting).await?;
        // What waits is of the clock of the link before.
        self.on_untold().await?;
        self.device_clock.on_link();
        if self.is_episodic {
            // What it has kept is dated by its own clock.
            self.device_clock.on_asked(self.output.now());
            self.client.report(Report::ReadClock { is_optional: true }).await;
        }
        Ok(())
    }

    /// It does not tell its time, or not soon enough.
    async fn on_untold(&mut self) -> Result<(), SourceError> {
        self.device_clock.on_untold();
        self.hand_on(vec![]).await
    }

    /// The link has gone: hands on what its last frame said. The next link begins with a clean framer.
    async fn end_stream(&mut self) -> Result<(), SourceError> {
        self.talk.on_link_lost();
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        let last = stream.last(self.output.now());
        let framed = stream.take_counters();
        self.count(framed);
        self.hand_on(last).await
    }

    async fn on_bytes(&mut self, bytes: &[u8], received: Stamp) -> Result<(), SourceError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let counters = self.output.counters();
        SourceCounters::add(&counters.reads, 1);
        SourceCounters::add(&counters.bytes, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let arrived = stream.push(bytes, received);
        let framed = stream.take_counters();
        let is_data = stream.is_live(received) && stream.silent_for(received).is_zero();
        let waves = stream.take_waves();
        self.talk.on_bytes(bytes);
        self.count(framed);
        self.notice(framed);
        for wave in waves {
            self.output.wave(wave, received);
        }
        if is_data {
            self.on_data(received.mono);
        }
        self.hand_on(arrived).await?;
        // The first data is told at once; every other change waits for the end of the second.
        if is_data && matches!(self.output.link_state(), Some(LinkState::Waiting | LinkState::Silent)) {
            self.report_link().await?;
        }
        Ok(())
    }

    fn count(&self, framed: FrameCounters) {
        let counters = self.output.counters();
        for (counter, amount) in [
            (&counters.frames, framed.frames),
            (&counters.bad_checksums, framed.bad_checksum),
            (&counters.rubbish_bytes, framed.skipped_bytes),
            (&counters.resyncs, framed.resyncs),
        ] {
            SourceCounters::add(counter, amount);
        }
    }

    /// Remembers what is wrong with what comes, until something good comes.
    fn notice(&mut self, framed: FrameCounters) {
        let last = match (framed.bad_checksum, framed.skipped_bytes) {
            (0, 0) => {
                if framed.frames > 0 {
                    self.malformed = Malformed::default();
                }
                return;
            }
            (0, skipped) => format!("{skipped} bytes belong to no frame of the profile {}", self.profile.id()),
            _ => format!("a frame of the profile {} has a wrong checksum", self.profile.id()),
        };
        debug!(device = %self.output.device(), last, "malformed notification");
        self.malformed = Malformed { count: self.malformed.count + 1, last };
    }

    /// The sensor lives, and was understood.
    fn on_data(&mut self, now: Mono) {
        if self.told.as_ref().is_some_and(|(link, _)| *link == LinkState::Silent) {
            self.told = None;
        }
        if self.understood.is_none_or(|last| now.since(last) >= UNDERSTOOD_EVERY) {
            self.understood = Some(now);
            // What a sensor that measures now and then has said may be known: that shows when it is handed on.
            self.client.understood(!self.is_episodic);
        }
    }

    fn on_sent(&mut self, result: Result<(), String>) {
        if let Err(words) = &result
            && self.talk.trouble().is_none()
        {
            warn!(device = %self.output.device(), reason = words, "the sensor did not take what was written");
        }
        self.talk.on_written(result, self.output.now());
    }

    /// The end of a second: hands on what it brought.
    async fn second(&mut self) -> Result<(), SourceError> {
        let now = self.output.now();
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let arrived = stream.second(now);
        let framed = stream.take_counters();
        self.count(framed);
        self.hand_on(arrived).await?;
        self.report_link().await
    }

    /// Hands measurements on, once it is known what the sensor's clock says.
    async fn hand_on(&mut self, arrived: Vec<Arrived>) -> Result<(), SourceError> {
        self.undated.extend(arrived);
        let is_awaited = self.device_clock.deadline().is_some();
        while !is_awaited || self.undated.len() > MAX_UNDATED {
            let Some(Arrived { mut observation, received }) = self.undated.pop_front() else { break };
            let is_news = self.is_news(&observation);
            if is_news && self.is_episodic {
                self.client.understood(true);
            }
            if !is_news {
                SourceCounters::add(&self.output.counters().records_again, 1);
                debug!(device = %self.output.device(), "a measurement that is known came again");
                continue;
            }
            let (when, is_late) = self.dated(&observation, received);
            if is_late {
                SourceCounters::add(&self.output.counters().records_late, 1);
                observation.quality = historic(observation.quality);
            }
            self.output.reading_of(observation, when, received).await?;
        }
        Ok(())
    }

    /// When something was measured, and whether it is not of now. What a sensor sends all the time is measured as it comes.
    fn dated(&mut self, observation: &Observation, received: Stamp) -> (When, bool) {
        let Some(said) = observation.device_time.as_deref().filter(|_| self.is_episodic) else {
            let is_kept = observation.quality == Quality::Historic;
            return (if is_kept { When::Unknown } else { When::OnArrival }, false);
        };
        match self.device_clock.related(said, received) {
            Related::At(mapped) => {
                let is_late = self.visits.is_of_the_past(observation.vital.metric(), &mapped, received);
                (When::Mapped(mapped), is_late)
            }
            Related::TooOld => (When::Unknown, true),
            Related::Unknown => (When::Unknown, is_long_ago(said, self.offset, received)),
        }
    }

    /// False for a single measurement that came before: the same numbers at the same time of the device's clock.
    fn is_news(&mut self, observation: &Observation) -> bool {
        if !self.is_episodic || observation.device_time.is_none() {
            return true;
        }
        if self.handed_over.contains(observation) {
            return false;
        }
        if self.handed_over.len() >= MAX_REMEMBERED {
            self.handed_over.pop_front();
        }
        self.handed_over.push_back(observation.clone());
        true
    }

    async fn report_link(&mut self) -> Result<(), SourceError> {
        if let Some((link, words)) = &self.told {
            return self.output.link(*link, &BTreeSet::new(), words.as_deref()).await;
        }
        let Some(stream) = &self.stream else { return Ok(()) };
        match stream.link(self.output.now()) {
            // It measures now and then.
            (LinkState::Silent, _) if self.is_episodic => self.output.state(LinkState::Waiting).await,
            // The radio says so too, and what it does about it.
            (LinkState::Silent, _) => Ok(()),
            (link, status) => self.output.link(link, &status, None).await,
        }
    }

    async fn on_news(&mut self, state: &SensorState) -> Result<(), SourceError> {
        if state.battery.is_some() && state.battery != self.battery {
            self.battery = state.battery;
            if let Some(level) = state.battery {
                let value = Value::reported(Metric::Battery, Decimal::integer(i32::from(level)));
                let received = self.output.now();
                self.output.reading(Observation::of(Vital::scalar(Metric::Battery, value)), received).await?;
            }
        }
        // The link has gone, or is about to.
        if matches!(
            state.phase,
            SensorPhase::Unavailable
                | SensorPhase::Searching
                | SensorPhase::Heard
                | SensorPhase::Connecting
                | SensorPhase::Ending
        ) {
            self.end_stream().await?;
        }
        self.told = link_of(state, self.is_episodic, &self.malformed);
        if let (Some((_, Some(words))), Some(trouble)) = (&mut self.told, self.talk.trouble()) {
            words.push_str("; ");
            words.push_str(trouble);
        }
        self.report_link().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::{Clock, Wall};
    use crate::event::SourceMessage;
    use crate::profile::{built_in, hex};
    use crate::sources::ble::policy::SensorKey;
    use crate::sources::{SourceConfig, SourceKind};
    use crate::vitals::Mode;

    #[tokio::test(start_paused = true)]
    async fn a_measurement_that_waits_for_the_sensors_time_is_not_lost_at_the_end_of_the_radio() {
        let (deliver, deliveries) = mpsc::channel(8);
        let (_tell, news) = mpsc::channel(8);
        let (reports, _heard) = mpsc::channel(8);
        let client =
            Client { key: SensorKey(1), deliveries, news, reports, commits: None, time_sync: None, timeline: None };
        let (out, mut said) = mpsc::channel(32);
        let config = SourceConfig {
            id: "cuff".parse().unwrap(),
            patient: None,
            device: "cuff".parse().unwrap(),
            mode: Mode::Test,
            kind: SourceKind::Unusable { reason: "its source is made below".to_owned() },
        };
        let now = Stamp { mono: Mono(0), wall: Wall(1_795_219_200_000) };
        let mut output = SourceOutput::new(&config, out, Clock::tokio(now), Arc::default());
        let profile = built_in("yonker-bp").unwrap().unwrap();
        let habit = Habit::Episodic { idle: Duration::from_mins(1) };
        let bytes = hex::bytes("818367510000190b18131200000000").unwrap();
        deliver.send(Delivery::Subscribed).await.unwrap();
        deliver.send(Delivery::Bytes { bytes, received: now }).await.unwrap();
        drop(deliver);
        Reader::new(profile, habit, None, client, &mut output).run().await.unwrap();
        drop(output);
        let mut readings = 0;
        while let Some(message) = said.recv().await {
            readings += u32::from(matches!(message, SourceMessage::Reading(_)));
        }
        assert_eq!(readings, 2, "the pressure and the pulse");
    }
}
