//! Bluetooth Low Energy sensors, as sources: decodes what a sensor sends, and tells how its link is.
//!
//! All sources of a daemon share one radio, the [`Air`]: it runs the connection [`policy`] and hands each source what its
//! sensor sends. A source never connects to anything itself.

mod advert;
mod air;
mod client;
mod clocks;
mod echo;
mod join;
mod leaks;
pub mod policy;
mod power;
mod racp;
mod radio;
pub(super) mod records;
pub mod sensor;
mod set_clock;
mod side;
pub mod status;
mod stream;
mod taking;
mod talk;
mod unattended;
mod visit;
mod wanted;
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use self::air::{Air, AirSettings, Surroundings};
pub use self::client::CommitWish;
pub use self::policy::BleLimits;
pub use self::sensor::SensorKind;
pub use self::status::AirStatus;
pub use self::wanted::Wanted;
pub use crate::bluez::{BadBleAddress, BleAddress};

use self::client::Client;
use self::join::Join;
use self::policy::{SensorPhase, SensorState, WantedSensor};
use self::racp::Fetch;
use self::radio::Delivery;
use self::records::{GLUCOSE_CONTEXT, Intake, Kind, Known, Manners, is_record};
use self::sensor::{CURRENT_TIME, DATE_TIME, Habit, Manner, RECORD_ACCESS};
use self::set_clock::SetClock;
use self::taking::{Check, STRANGER, answered};
use self::visit::Visits;
use self::wires::{Heard, Subscription, Wires};
use super::device_clock::DeviceClock;
use super::output::{Observation, SourceCounters, SourceOutput, When};
use super::{SourceConfig, SourceError};
use crate::clock::Stamp;
use crate::decode::gatt;
use crate::decode::self_test::metrics;
use crate::decode::{Decoded, DecodedVital};
use crate::event::LinkState;
use crate::ids::PatientId;
use crate::profile::Profile;
use crate::profile::ble::{Ble, Quirk, Stored, TimeWrite};
use crate::vitals::{Decimal, Metric, Quality, Status, Value, Vital};

/// Most users of one sensor; GSS, User Index: one byte, of which 255 is nobody.
pub const MAX_USERS: usize = 255;

/// One Bluetooth sensor.
#[derive(Debug, Clone)]
pub struct BleConfig {
    /// How it is recognised.
    pub wanted: Wanted,
    /// What it measures, by the standard characteristics that it has.
    pub sensor: SensorKind,
    /// What is known of its model. If that speaks a protocol of its maker's, `sensor` says nothing.
    pub profile: Option<Arc<Profile>>,
    /// Whose the numbers are under which the sensor keeps its users. What comes under another number is nobody's, and so
    /// is what comes under none, unless this is empty: then it is the source's patient's.
    pub users: BTreeMap<u8, PatientId>,
    /// Whether a glucose meter's records are deleted from it once they are on disk.
    pub delete_records: bool,
    /// Whether the sensor's clock is set, when its profile says it can be or else after each connect, and how many minutes
    /// its local time is ahead of UTC.
    pub set_clock: Option<i16>,
    /// The radio.
    pub air: Air,
}

impl BleConfig {
    /// A sensor about which nothing special is known.
    pub const fn new(wanted: Wanted, sensor: SensorKind, air: Air) -> Self {
        Self { wanted, sensor, profile: None, users: BTreeMap::new(), delete_records: false, set_clock: None, air }
    }

    /// In what its model departs from the specification.
    fn quirks(&self) -> &[Quirk] {
        self.profile.as_ref().map_or(&[], |profile| profile.quirks())
    }

    /// The profile and the characteristics of its byte stream, if it sends one.
    fn stream(&self) -> Option<(&Arc<Profile>, Wires)> {
        let profile = self.profile.as_ref()?;
        Some((profile, Wires::of(profile)?))
    }

    /// How it comes and goes.
    pub fn habit(&self) -> Habit {
        match (self.stream(), self.ble()) {
            (Some((_, wires)), _) => wires.habit,
            (None, Some(ble)) => Habit::of(ble, self.sensor.habit()),
            (None, None) => self.sensor.habit(),
        }
    }

    fn ble(&self) -> Option<&Ble> {
        self.profile.as_ref().and_then(|profile| profile.ble())
    }

    /// The clock that is to be set, if there is one.
    fn clock(&self) -> Option<SetClock> {
        let when = self.ble().map_or(TimeWrite::OnConnect, |ble| ble.time_write);
        self.set_clock.map(|offset| SetClock::new(when, offset))
    }

    /// What its advertisements say, if they say all.
    fn heard(&self) -> Option<Arc<Heard>> {
        self.profile.as_deref().and_then(Heard::of).map(Arc::new)
    }

    /// What is to be expected of its records. A meter is asked for all that it keeps.
    fn manners(&self) -> Manners {
        let stored = self.ble().map_or(Stored::None, |ble| ble.stored);
        Manners {
            writes_ketones: self.quirks().contains(&Quirk::KetoneAsMeal),
            hands_over: stored != Stored::None || self.sensor == SensorKind::Glucose,
        }
    }

    /// How the connection policy treats it.
    fn wanted_sensor(&self) -> WantedSensor {
        let manner = self.ble().map_or_else(Manner::default, Manner::of);
        WantedSensor { wanted: self.wanted.clone(), habit: self.habit(), manner }
    }

    /// What it will deliver, for rules that miss what never comes.
    pub fn metrics(&self) -> BTreeSet<Metric> {
        match self.stream() {
            // It measures now and then: nothing is missed between measurements.
            Some((_, wires)) if wires.habit.is_episodic() => BTreeSet::new(),
            Some((profile, _)) => metrics(profile),
            None if self.heard().is_some() => BTreeSet::new(),
            None => self.sensor.metrics().iter().copied().collect(),
        }
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
    known: &mut Known,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    output.state(LinkState::Opening).await?;
    let (stream, heard) = (config.stream(), config.heard());
    let subscription = match (&stream, &heard) {
        (Some((_, wires)), _) => Subscription::Stream(Arc::new(wires.clone())),
        (None, Some(heard)) => Subscription::Heard(Arc::clone(heard)),
        (None, None) => Subscription::Standard {
            kind: config.sensor,
            tells_time: config.clock().is_some_and(|clock| clock.listens()),
        },
    };
    let wanting = config.air.want(config.wanted_sensor(), subscription, source.id.clone(), source.device.clone());
    let Some(Some(client)) = stop.run_until_cancelled(wanting).await else { return Ok(()) };
    if let Some((profile, wires)) = stream {
        return stream::Reader::new(Arc::clone(profile), wires.habit, config.set_clock, client, output).run().await;
    }
    if let Some(heard) = heard {
        return advert::Reader::new(&heard, client, output).run().await;
    }
    let others = config
        .users
        .iter()
        .map(|(slot, patient)| (*slot, output.for_device(Some(patient.clone()), source.device.clone())));
    let users = others.collect();
    let nobody = output.for_device(None, source.device.clone());
    let fetch = (config.sensor == SensorKind::Glucose).then(|| Fetch::new(config.delete_records, known.through));
    let join = config.ble().is_some_and(|ble| ble.multi_packet).then(Join::default);
    let reader = Reader {
        config,
        client,
        output,
        users,
        nobody,
        known,
        intake: Intake::new(config.manners()),
        fetch,
        is_fetch_due: false,
        clock: config.clock(),
        device_clock: DeviceClock::default(),
        visits: Visits::default(),
        join,
        malformed: Malformed::default(),
        gone: None,
        check: None,
        check_later: false,
        unassigned: None,
        battery: None,
    };
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
    /// The records that came before.
    known: &'r mut Known,
    /// Single measurements on their way.
    intake: Intake,
    fetch: Option<Fetch>,
    /// A meter is to be asked for its records, once its time is known.
    is_fetch_due: bool,
    /// The clock that is to be set.
    clock: Option<SetClock>,
    /// What the sensor's clock said.
    device_clock: DeviceClock,
    /// What it has handed over.
    visits: Visits<Kind>,
    /// Of a model whose measurements come in parts.
    join: Option<Join>,
    malformed: Malformed,
    /// What was told of a link that has ended; `None`: it stands.
    gone: Option<(LinkState, Option<String>)>,
    /// What the disk was asked.
    check: Option<Check>,
    /// It has not answered, and is asked again after a pause.
    check_later: bool,
    /// A user of whom the configuration does not say who it is, after whose measurement nobody else's came.
    unassigned: Option<u8>,
    battery: Option<u8>,
}

impl Reader<'_> {
    async fn run(mut self) -> Result<(), SourceError> {
        loop {
            self.check_disk();
            let now = self.output.now();
            let due = [
                self.fetch.as_ref().and_then(Fetch::deadline),
                self.intake.next_deadline(),
                self.device_clock.deadline(),
            ];
            let due = due.into_iter().flatten().min();
            let due = due.map(|at| at.since(now.mono));
            tokio::select! {
                biased;
                // What has arrived comes before what became of the link: no record is lost, and none makes a link that
                // has gone look live.
                delivery = self.client.deliveries.recv() => match delivery {
                    Some(Delivery::Subscribed) => self.on_subscribed().await?,
                    Some(Delivery::Payload { uuid, bytes, received }) => self.on_payload(uuid, &bytes, received).await?,
                    // Of a byte stream, which was not subscribed to.
                    Some(Delivery::Bytes { .. } | Delivery::Advertised { .. } | Delivery::Sent(_)) => {}
                    Some(Delivery::NoTime) => self.on_untold().await?,
                    Some(Delivery::TimeTaken { received }) => self.device_clock.on_taken(received),
                    // The radio has ended.
                    None => return self.finish_records().await,
                },
                Some(state) = self.client.news.recv() => self.on_news(&state).await?,
                // A record has waited for long enough, or a meter has stopped in the middle of its records.
                () = sleep(due) => self.on_deadline().await?,
                missing = answered(&mut self.check) => self.on_answer(missing),
            }
        }
    }

    async fn on_subscribed(&mut self) -> Result<(), SourceError> {
        // What was told before is about the link before.
        while let Ok(state) = self.client.news.try_recv() {
            self.on_news(&state).await?;
        }
        self.gone = None;
        self.intake.on_link();
        SourceCounters::add(&self.output.counters().opened, 1);
        self.malformed = Malformed::default();
        self.output.state(LinkState::Waiting).await?;
        let now = self.output.now();
        if let Some(join) = &mut self.join {
            join.reset();
        }
        self.ask_for_time(now).await
    }

    async fn on_payload(&mut self, uuid: u16, payload: &[u8], received: Stamp) -> Result<(), SourceError> {
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        SourceCounters::add(&self.output.counters().reads, 1);
        SourceCounters::add(&self.output.counters().bytes, length);
        if [CURRENT_TIME.uuid, DATE_TIME].contains(&uuid) {
            return self.on_told(payload, received).await;
        }
        // The control point talks to the fetching alone.
        if uuid == RECORD_ACCESS.uuid && self.fetch.is_some() {
            self.client.understood(false);
        } else {
            match gatt::decode_with(uuid, payload, self.config.quirks()) {
                Ok(mut report) => {
                    if let Some(join) = &mut self.join {
                        join.complete(&mut report, received);
                    }
                    self.malformed = Malformed::default();
                    self.count_ignored(&report);
                    if is_record(uuid) {
                        self.on_record(uuid, report, received).await?;
                    } else if uuid == GLUCOSE_CONTEXT {
                        self.client.understood(false);
                        self.on_context(&report).await?;
                    } else {
                        self.client.understood(true);
                        let user = if report.is_stranger { Some(STRANGER) } else { report.user };
                        self.hand_on(report.decoded, user, received).await?;
                    }
                }
                Err(error) => {
                    SourceCounters::add(&self.output.counters().rubbish_bytes, length);
                    debug!(device = %self.output.device(), %error, "malformed payload");
                    self.malformed = Malformed { count: self.malformed.count + 1, last: error.to_string() };
                    if is_record(uuid) {
                        self.on_malformed_record(uuid, payload, received).await?;
                    }
                }
            }
        }
        let now = self.output.now();
        if let Some(step) = self.fetch.as_mut().and_then(|fetch| fetch.on_payload(uuid, payload, now)) {
            self.carry_out(step).await?;
        }
        Ok(())
    }

    /// Hands on what a payload says, to whom it belongs.
    async fn hand_on(&mut self, decoded: Vec<Decoded>, user: Option<u8>, received: Stamp) -> Result<(), SourceError> {
        let (status, observations) = parts(decoded);
        self.tell_live(&status, user).await?;
        let output = self.output_of(user);
        for observation in observations {
            // What the sensor had kept was not measured as it came.
            let when = if observation.quality == Quality::Historic { When::Unknown } else { When::OnArrival };
            output.reading_of(observation, when, received).await?;
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
        let is_episodic = self.config.habit().is_episodic();
        let Some((link, words)) = link_of(state, is_episodic, &self.malformed) else { return Ok(()) };
        if !matches!(state.phase, SensorPhase::Silent) {
            if matches!(state.phase, SensorPhase::Connecting | SensorPhase::Subscribing) {
                // A bonded sensor may send, and go, before the subscription is known to stand.
                self.gone = None;
                self.intake.on_link();
                self.intake.relate(&self.device_clock);
                self.device_clock.on_link();
            } else {
                // What was sent before may still be on its way here: it settles by itself.
                self.gone = Some((link, words.clone()));
                let now = self.output.now();
                self.intake.on_link_end(now);
                self.device_clock.on_link_end(now);
            }
            self.is_fetch_due = false;
            if let Some(fetch) = &mut self.fetch {
                fetch.on_link_lost();
            }
        }
        let words = self.with_stranger(words);
        self.output.link(link, &BTreeSet::new(), words.as_deref()).await
    }
}

/// What a sensor says of itself, and what it has measured; a failed measurement takes the place of the last one.
fn parts(decoded: Vec<Decoded>) -> (BTreeSet<Status>, Vec<Observation>) {
    let (mut status, mut observations) = (BTreeSet::new(), vec![]);
    for part in decoded {
        let DecodedVital { vital, mdc, quality, device_time } = match part {
            Decoded::Vital(vital) => vital,
            Decoded::MeasurementFailed(failed) => failed.vital(),
            Decoded::Status(said) => {
                status.extend(said);
                continue;
            }
            _ => continue,
        };
        observations.push(Observation { vital, mdc, quality, device_time });
    }
    (status, observations)
}

/// What the state of its radio says about the link of a source; `None`: nothing that the source does not say itself.
fn link_of(state: &SensorState, is_episodic: bool, malformed: &Malformed) -> Option<(LinkState, Option<String>)> {
    Some(match state.phase {
        SensorPhase::Unavailable => (LinkState::Lost, state.reason.clone()),
        SensorPhase::Silent if !is_episodic => {
            let reason = state.reason.clone().unwrap_or_default();
            (LinkState::Silent, Some(format!("{reason}{malformed}")))
        }
        // The source itself says what it subscribes and understands.
        SensorPhase::Waiting | SensorPhase::Live | SensorPhase::Silent => return None,
        _ if is_episodic => {
            // It is not there most of the time, and that is no fault.
            let words = state.reason.as_deref().unwrap_or("between measurements");
            (LinkState::Waiting, Some(format!("{words}{malformed}")))
        }
        _ if state.reason.is_some() => {
            (LinkState::Lost, state.reason.as_ref().map(|reason| format!("{reason}{malformed}")))
        }
        // Nothing has been tried yet.
        _ => return None,
    })
}

async fn sleep(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}
