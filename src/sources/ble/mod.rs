//! Bluetooth Low Energy sensors, as sources: decodes what a sensor sends, and tells how its link is.
//!
//! All sources of a daemon share one radio, the [`Air`]: it runs the connection [`policy`] and hands each source what its
//! sensor sends. A source never connects to anything itself.

mod air;
mod echo;
mod leaks;
pub mod policy;
mod racp;
mod radio;
pub mod sensor;
mod side;
pub mod status;
mod unattended;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::air::{Air, AirSettings, CommitWish, Surroundings};
pub use self::policy::BleLimits;
pub use self::sensor::SensorKind;
pub use self::status::AirStatus;
pub use self::wanted::Wanted;
pub use crate::bluez::{BadBleAddress, BleAddress};

use self::air::{Client, Report};
use self::policy::{SensorPhase, SensorState};
use self::racp::{Fetch, Step};
use self::radio::Delivery;
use self::sensor::{CURRENT_TIME, RECORD_ACCESS};
use super::output::{Observation, SourceCounters, SourceOutput};
use super::{SourceConfig, SourceError};
use crate::clock::Stamp;
use crate::decode::gatt;
use crate::decode::gatt::date_time::CurrentTime;
use crate::decode::{Decoded, DecodedVital};
use crate::event::LinkState;
use crate::ids::PatientId;
use crate::vitals::{Decimal, Metric, Status, Value, Vital};

/// How long records may take to the disk before the sensor is let go of without its records being deleted.
const COMMIT_LIMIT: Duration = Duration::from_secs(15);
/// Most users of one sensor; GSS, User Index: one byte, of which 255 is nobody.
pub const MAX_USERS: usize = 255;
/// The user index that a sensor sends for somebody it does not know (GSS, User Index).
const UNKNOWN_USER: u8 = 255;

/// One Bluetooth sensor.
#[derive(Debug, Clone)]
pub struct BleConfig {
    /// How it is recognised.
    pub wanted: Wanted,
    /// What it measures.
    pub sensor: SensorKind,
    /// Whose the numbers are under which the sensor keeps its users. Empty: all are the source's patient's. Otherwise
    /// what comes under another number, or under none, is nobody's.
    pub users: BTreeMap<u8, PatientId>,
    /// Whether a glucose meter's records are deleted from it once they are on disk.
    pub delete_records: bool,
    /// Whether the sensor's clock is set after each connect, and how many minutes its local time is ahead of UTC.
    pub set_clock: Option<i16>,
    /// The radio.
    pub air: Air,
}

impl BleConfig {
    /// A sensor about which nothing special is known.
    pub const fn new(wanted: Wanted, sensor: SensorKind, air: Air) -> Self {
        Self { wanted, sensor, users: BTreeMap::new(), delete_records: false, set_clock: None, air }
    }
}

/// Payloads that could not be decoded since the last one that could.
#[derive(Debug, Default)]
struct Malformed {
    count: u64,
    /// What is wrong with the last one.
    last: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 { Ok(()) } else { write!(f, ", {} malformed ones: {}", self.count, self.last) }
    }
}

/// Reads one sensor until the radio ends, which it does when the daemon stops.
pub(super) async fn run(
    config: &BleConfig,
    source: &SourceConfig,
    output: &mut SourceOutput,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    output.state(LinkState::Opening).await?;
    let wanting = config.air.want(config.wanted.clone(), config.sensor, source.id.clone(), source.device.clone());
    let Some(Some(client)) = stop.run_until_cancelled(wanting).await else { return Ok(()) };
    let others = config
        .users
        .iter()
        .map(|(slot, patient)| (*slot, output.for_device(Some(patient.clone()), source.device.clone())));
    let users = others.collect();
    let nobody = output.for_device(None, source.device.clone());
    let fetch = (config.sensor == SensorKind::Glucose).then(|| Fetch::new(config.delete_records));
    let reader =
        Reader { config, client, output, users, nobody, fetch, malformed: Malformed::default(), battery: None };
    reader.run().await
}

/// One running source.
struct Reader<'r> {
    config: &'r BleConfig,
    client: Client,
    output: &'r mut SourceOutput,
    /// The ways of the sensor's users into the pipeline.
    users: BTreeMap<u8, SourceOutput>,
    /// The way of what is nobody's.
    nobody: SourceOutput,
    fetch: Option<Fetch>,
    malformed: Malformed,
    battery: Option<u8>,
}

impl Reader<'_> {
    async fn run(mut self) -> Result<(), SourceError> {
        loop {
            let now = self.output.now();
            let due = self.fetch.as_ref().and_then(Fetch::deadline).map(|at| at.since(now.mono));
            tokio::select! {
                biased;
                // What has arrived comes before what became of the link: no record is lost, and none makes a link that
                // has gone look live.
                delivery = self.client.deliveries.recv() => match delivery {
                    Some(Delivery::Subscribed) => self.on_subscribed().await?,
                    Some(Delivery::Payload { uuid, bytes, received }) => self.on_payload(uuid, &bytes, received).await?,
                    // The radio has ended.
                    None => return Ok(()),
                },
                Some(state) = self.client.news.recv() => self.on_news(&state).await?,
                // A meter has stopped in the middle of its records.
                () = sleep(due) => {
                    if let Some(step) = self.fetch.as_mut().map(Fetch::on_deadline) {
                        self.carry_out(step).await;
                    }
                }
            }
        }
    }

    async fn on_subscribed(&mut self) -> Result<(), SourceError> {
        SourceCounters::add(&self.output.counters().opened, 1);
        self.malformed = Malformed::default();
        self.output.state(LinkState::Waiting).await?;
        let now = self.output.now().wall;
        if let Some(now) = self.config.set_clock.and_then(|offset| CurrentTime::local(now, offset)) {
            self.client.report(Report::Write(CURRENT_TIME, now.encode().to_vec())).await;
        }
        let now = self.output.now();
        if let Some(step) = self.fetch.as_mut().map(|fetch| fetch.on_subscribed(now)) {
            self.carry_out(step).await;
        }
        Ok(())
    }

    async fn on_payload(&mut self, uuid: u16, payload: &[u8], received: Stamp) -> Result<(), SourceError> {
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        SourceCounters::add(&self.output.counters().reads, 1);
        SourceCounters::add(&self.output.counters().bytes, length);
        // The control point talks to the fetching alone.
        if uuid == RECORD_ACCESS.uuid && self.fetch.is_some() {
            self.client.understood();
        } else {
            match gatt::decode(uuid, payload) {
                Ok(report) => {
                    self.malformed = Malformed::default();
                    self.client.understood();
                    self.hand_on(report.decoded, report.user, received).await?;
                }
                Err(error) => {
                    SourceCounters::add(&self.output.counters().rubbish_bytes, length);
                    debug!(device = %self.output.device(), %error, "malformed payload");
                    self.malformed = Malformed { count: self.malformed.count + 1, last: error.to_string() };
                }
            }
        }
        let now = self.output.now();
        if let Some(step) = self.fetch.as_mut().and_then(|fetch| fetch.on_payload(uuid, payload, now)) {
            self.carry_out(step).await;
        }
        Ok(())
    }

    /// Hands on what a payload says, to whom it belongs.
    async fn hand_on(&mut self, decoded: Vec<Decoded>, user: Option<u8>, received: Stamp) -> Result<(), SourceError> {
        let mut status = BTreeSet::new();
        let mut vitals = vec![];
        for part in decoded {
            match part {
                Decoded::Vital(vital) => vitals.push(vital),
                Decoded::MeasurementFailed(failed) => vitals.push(failed.vital()),
                Decoded::Status(said) => status.extend(said),
                _ => {}
            }
        }
        let state = if status.contains(&Status::SensorOff) { LinkState::SensorOff } else { LinkState::Live };
        self.output.link(state, &status, None).await?;
        let output = match user.filter(|user| *user != UNKNOWN_USER).and_then(|user| self.users.get(&user)) {
            _ if self.users.is_empty() => &*self.output,
            Some(output) => output,
            None => &self.nobody,
        };
        for DecodedVital { vital, mdc, quality, device_time } in vitals {
            output.reading(Observation { vital, mdc, quality, device_time }, received).await?;
        }
        Ok(())
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
        let is_episodic = self.config.sensor.habit().is_episodic();
        let (link, words) = match state.phase {
            SensorPhase::Unavailable => (LinkState::Lost, state.reason.clone()),
            SensorPhase::Silent if !is_episodic => {
                let reason = state.reason.clone().unwrap_or_default();
                (LinkState::Silent, Some(format!("{reason}{}", self.malformed)))
            }
            // The source itself says what it subscribes and understands.
            SensorPhase::Waiting | SensorPhase::Live | SensorPhase::Silent => return Ok(()),
            _ if is_episodic => {
                // It is not there most of the time, and that is no fault.
                let words = state.reason.clone().unwrap_or_else(|| "between measurements".to_owned());
                (LinkState::Waiting, Some(words))
            }
            _ if state.reason.is_some() => {
                (LinkState::Lost, state.reason.as_ref().map(|reason| format!("{reason}{}", self.malformed)))
            }
            // Nothing has been tried yet.
            _ => return Ok(()),
        };
        if let Some(fetch) = &mut self.fetch
            && !matches!(state.phase, SensorPhase::Silent)
        {
            fetch.on_link_lost();
        }
        self.output.link(link, &BTreeSet::new(), words.as_deref()).await
    }

    /// Goes on with the fetching until it waits for the meter.
    async fn carry_out(&mut self, step: Step) {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            match step {
                Step::Write(bytes) => self.client.report(Report::Write(RECORD_ACCESS, bytes)).await,
                Step::Commit => {
                    let is_on_disk = self.client.committed(COMMIT_LIMIT).await;
                    let now = self.output.now();
                    next = self.fetch.as_mut().map(|fetch| fetch.on_committed(is_on_disk, now));
                }
                Step::Done(result) => {
                    if let Err(reason) = result {
                        warn!(device = %self.output.device(), reason, "stored records");
                    }
                    self.client.report(Report::Finished).await;
                }
            }
        }
    }
}

async fn sleep(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}
