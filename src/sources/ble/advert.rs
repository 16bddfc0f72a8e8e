//! A sensor that only advertises, as a source: each measurement once, however often it is told.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::debug;

use super::client::Client;
use super::policy::{SensorPhase, SensorState};
use super::radio::Delivery;
use super::wires::Heard;
use crate::clock::{Mono, Stamp};
use crate::decode::Decoded;
use crate::decode::gatt::advert::{self, Advertised};
use crate::event::LinkState;
use crate::profile::ble::AdvertField;
use crate::sources::SourceError;
use crate::sources::output::{Observation, SourceCounters, SourceOutput};
use crate::vitals::Vital;

/// A measurement that is told again after so long a silence is another one with the same result. Scales repeat theirs
/// several times a second while they show it.
const REPEATED_FOR: Duration = Duration::from_secs(30);

/// What the sensor told last.
#[derive(Debug, Default)]
struct Told {
    measured: Vec<Vital>,
    heard: Option<Mono>,
}

impl Told {
    /// True if this is a measurement that was not told yet. Nothing measured (a scale that has not settled) makes the
    /// next one a new one.
    fn is_news(&mut self, measured: &[Vital], now: Mono) -> bool {
        let is_silent = self.heard.replace(now).is_none_or(|heard| now.since(heard) >= REPEATED_FOR);
        let is_same = self.measured == measured && !is_silent;
        if !is_same {
            self.measured = measured.to_vec();
        }
        !is_same && !measured.is_empty()
    }
}

/// One running source.
pub(super) struct Reader<'r> {
    field: AdvertField,
    client: Client,
    output: &'r mut SourceOutput,
    told: Told,
}

impl<'r> Reader<'r> {
    pub(super) fn new(heard: &Heard, client: Client, output: &'r mut SourceOutput) -> Self {
        Self { field: heard.field, client, output, told: Told::default() }
    }

    /// Listens until the radio ends, which it does when the daemon stops.
    pub(super) async fn run(mut self) -> Result<(), SourceError> {
        loop {
            tokio::select! {
                biased;
                delivery = self.client.deliveries.recv() => match delivery {
                    Some(Delivery::Advertised { bytes, received }) => self.on_advertised(&bytes, received).await?,
                    // Nothing was subscribed to and nothing written.
                    Some(_) => {}
                    None => return Ok(()),
                },
                Some(state) = self.client.news.recv() => self.on_news(&state).await?,
            }
        }
    }

    async fn on_advertised(&mut self, bytes: &[u8], received: Stamp) -> Result<(), SourceError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        SourceCounters::add(&self.output.counters().reads, 1);
        SourceCounters::add(&self.output.counters().bytes, length);
        let report = match advert::decode(Advertised::of(self.field, bytes)) {
            Ok(report) => report,
            Err(error) => {
                SourceCounters::add(&self.output.counters().rubbish_bytes, length);
                debug!(device = %self.output.device(), %error, "malformed advertisement");
                return Ok(());
            }
        };
        let observations: Vec<Observation> = report
            .decoded
            .into_iter()
            .filter_map(|part| match part {
                Decoded::Vital(part) => Some(Observation {
                    vital: part.vital,
                    mdc: part.mdc,
                    quality: part.quality,
                    device_time: part.device_time,
                }),
                _ => None,
            })
            .collect();
        let measured: Vec<Vital> = observations.iter().map(|observation| observation.vital.clone()).collect();
        if !self.told.is_news(&measured, received.mono) {
            return Ok(());
        }
        for observation in observations {
            self.output.reading(observation, received).await?;
        }
        Ok(())
    }

    /// It is not there most of the time, and that is no fault.
    async fn on_news(&mut self, state: &SensorState) -> Result<(), SourceError> {
        let (link, words) = match state.phase {
            SensorPhase::Unavailable => (LinkState::Lost, state.reason.clone()),
            _ => (LinkState::Waiting, Some("between measurements".to_owned())),
        };
        self.output.link(link, &BTreeSet::new(), words.as_deref()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vitals::{Decimal, Metric, Value};

    #[test]
    fn a_measurement_counts_once_however_often_it_is_told() {
        let weight = |grams: i64| {
            let value = Value::Valid(Decimal::new(grams, -3).unwrap());
            vec![Vital::scalar(Metric::Weight, value)]
        };
        let mut told = Told::default();
        for (millis, measured, expected) in [
            (0, vec![], false),
            (100, weight(86_550), true),
            (200, weight(86_550), false),
            (29_000, weight(86_550), false),
            // Somebody else steps on, and weighs the same.
            (30_000, vec![], false),
            (31_000, weight(86_550), true),
            (32_000, weight(86_600), true),
            (33_000, weight(86_600), false),
            // The next day.
            (86_433_000, weight(86_600), true),
        ] {
            assert_eq!(told.is_news(&measured, Mono::from_millis(millis)), expected, "{millis}");
        }
    }
}
