//! What a source does about its sensor's clock: asks it at each connect, dates by it what the sensor has kept, and sets it.

use tracing::warn;

use super::Reader;
use super::client::Report;
use super::sensor::SensorKind;
use super::set_clock::SetClock;
use crate::clock::{Stamp, Wall};
use crate::decode::gatt::date_time::CurrentTime;
use crate::sources::SourceError;

impl Reader<'_> {
    /// A new link: asks for the time, before anybody sets it. A meter is asked for its records after that.
    pub(super) async fn ask_for_time(&mut self, now: Stamp) -> Result<(), SourceError> {
        self.intake.relate(&self.device_clock);
        self.device_clock.on_link();
        self.is_fetch_due = self.fetch.is_some();
        if let Some(clock) = &mut self.clock {
            clock.on_subscribed();
        }
        if self.clock.as_ref().is_some_and(SetClock::listens) {
            self.device_clock.on_awaited(now);
        } else if self.config.sensor != SensorKind::HeartRate || self.clock.is_some() {
            self.device_clock.on_asked(now);
            let is_optional = !self.clock.as_ref().is_some_and(SetClock::asks);
            self.client.report(Report::ReadClock { is_optional }).await;
        }
        if self.device_clock.deadline().is_none() { self.begin_fetch(now).await } else { Ok(()) }
    }

    /// The sensor has told its time.
    pub(super) async fn on_told(&mut self, payload: &[u8], received: Stamp) -> Result<(), SourceError> {
        self.device_clock.on_told(payload, received);
        let time = self.clock.as_mut().and_then(|clock| clock.on_told(payload, received));
        if let Some(offset) = self.clock.as_ref().and_then(SetClock::verified) {
            self.intake.trust_clock(offset);
        }
        self.set_time(time).await;
        self.hand_on_records(vec![]).await?;
        self.begin_fetch(received).await
    }

    /// It does not tell its time, or not soon enough.
    pub(super) async fn on_untold(&mut self) -> Result<(), SourceError> {
        let now = self.output.now();
        self.device_clock.on_untold();
        let time = self.clock.as_mut().and_then(|clock| clock.on_untold(now));
        self.set_time(time).await;
        self.hand_on_records(vec![]).await?;
        self.begin_fetch(now).await
    }

    async fn begin_fetch(&mut self, now: Stamp) -> Result<(), SourceError> {
        if !std::mem::take(&mut self.is_fetch_due) {
            return Ok(());
        }
        match self.fetch.as_mut().map(|fetch| fetch.on_subscribed(now)) {
            Some(step) => self.carry_out(step).await,
            None => Ok(()),
        }
    }

    async fn set_time(&mut self, time: Option<CurrentTime>) {
        let Some(time) = time else { return };
        // A wrong time in a medical device is worse than the one that it keeps.
        if !self.client.is_clock_set().await {
            let reason = "this machine's own clock is not known to be set (docs/timekeeping.md)";
            warn!(device = %self.output.device(), reason, "the sensor's clock is left as it is");
            return;
        }
        // What it takes is told by [`super::radio::Delivery::TimeTaken`].
        if let Some(local) = Wall::parse(&format!("{}Z", time.time)) {
            self.device_clock.on_set(local, self.output.now());
        }
        self.client.report(Report::SetClock(time)).await;
    }
}
