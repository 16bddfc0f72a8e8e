//! The way from a source into the pipeline: stamps readings, names their device, and reports each change of the link once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::clock::{Clock, Stamp};
use crate::decode::WaveSamples;
use crate::event::{AuditAction, AuditEvent, AuditResult, LinkState, NotDone, SourceEvent, SourceMessage, WaveBlock};
use crate::ids::{DeviceId, PatientId, SourceId};
use crate::record::RecordEvent;
use crate::vitals::{Mode, Quality, Reading, Status, Taken, TimeSource, Value, Vital};

use super::device_clock::Mapped;
use super::{SourceConfig, SourceError};

pub use crate::metrics::SourceCounters;

/// One vital as an instrument or a decoder gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What.
    pub vital: Vital,
    /// MDC code, where it differs from the metric's own.
    pub mdc: Option<u32>,
    /// How far to trust it.
    pub quality: Quality,
    /// What the device's clock said, as it said it. Never used to order: devices in use say 2004.
    pub device_time: Option<String>,
}

impl Observation {
    /// A vital about which nothing more is known than its value.
    pub fn of(vital: Vital) -> Self {
        let is_absent = match &vital {
            Vital::RrIntervals(beats) => beats.is_empty(),
            other => matches!(other.leading(), Value::Absent(_)),
        };
        let quality = if is_absent { Quality::NotAvailable } else { Quality::Valid };
        Self { vital, mdc: None, quality, device_time: None }
    }
}

/// What a sensor sent in one record, and what it turned out to be: see [`RecordEvent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordBytes {
    /// The characteristic.
    pub(super) characteristic: u16,
    /// Its number in the sensor.
    pub(super) number: Option<u16>,
    /// The sensor's number for the person.
    pub(super) user: Option<u8>,
    /// What the sensor's clock said.
    pub(super) device_time: Option<String>,
    /// In hexadecimal digits.
    pub(super) raw: String,
    /// In hexadecimal digits.
    pub(super) context: Option<String>,
    /// What it says beside its readings.
    pub(super) found: Vec<String>,
    /// It was kept in the sensor until now.
    pub(super) is_late: bool,
}

/// When something was measured, as far as its source knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// As it arrived.
    OnArrival,
    /// By the device's clock.
    Mapped(Mapped),
    /// Nobody knows.
    Unknown,
}

impl When {
    /// What was measured then and arrived at `received`, of which the device's clock said `device_time`.
    fn taken(self, device_time: Option<String>, received: Stamp) -> Taken {
        let on_arrival = Taken { device_time, ..Taken::on_arrival(received) };
        match self {
            Self::OnArrival => on_arrival,
            // How far our own clock may be off is added when it is read: it may become known only later.
            Self::Mapped(Mapped { wall, uncertainty_ms, .. }) => Taken {
                wall: Some(wall),
                source: TimeSource::DeviceMapped,
                uncertainty_ms: None,
                mapping_ms: Some(uncertainty_ms),
                ..on_arrival
            },
            Self::Unknown => Taken { wall: None, source: TimeSource::Unknown, uncertainty_ms: None, ..on_arrival },
        }
    }
}

/// What was last reported about a link.
type Reported = (LinkState, BTreeSet<Status>, Option<String>);

/// One device's way into the pipeline.
#[derive(Debug)]
pub struct SourceOutput {
    source: SourceId,
    patient: Option<PatientId>,
    device: DeviceId,
    mode: Mode,
    out: mpsc::Sender<SourceMessage>,
    clock: Clock,
    counters: Arc<SourceCounters>,
    reported: Option<Reported>,
    /// The number of the next sample of each wave.
    next_samples: BTreeMap<Arc<str>, u64>,
    /// What the bridge itself says about the device, whatever the state of the link.
    standing: BTreeSet<Status>,
}

impl SourceOutput {
    /// The output of a source's own device.
    pub fn new(
        config: &SourceConfig,
        out: mpsc::Sender<SourceMessage>,
        clock: Clock,
        counters: Arc<SourceCounters>,
    ) -> Self {
        Self {
            source: config.id.clone(),
            patient: config.patient.clone(),
            device: config.device.clone(),
            mode: config.mode,
            out,
            clock,
            counters,
            reported: None,
            next_samples: BTreeMap::new(),
            standing: BTreeSet::new(),
        }
    }

    /// The output of another device that the same source reads.
    #[must_use]
    pub fn for_device(&self, patient: Option<PatientId>, device: DeviceId) -> Self {
        Self {
            source: self.source.clone(),
            patient,
            device,
            mode: self.mode,
            out: self.out.clone(),
            clock: self.clock.clone(),
            counters: Arc::clone(&self.counters),
            reported: None,
            next_samples: BTreeMap::new(),
            standing: BTreeSet::new(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Stamp {
        self.clock.now()
    }

    /// Where the time comes from, for the part of a source that runs on a thread of its own.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The device's name, for log lines.
    pub const fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The source's counters.
    pub fn counters(&self) -> &SourceCounters {
        &self.counters
    }

    /// The link's state as it was last reported.
    pub fn link_state(&self) -> Option<LinkState> {
        self.reported.as_ref().map(|(state, ..)| *state)
    }

    /// Hands a reading on that was measured as it arrived. Waits while the pipeline's queue is full; fails when the pipeline
    /// has gone.
    pub async fn reading(&self, observation: Observation, received: Stamp) -> Result<(), SourceError> {
        self.reading_of(observation, When::OnArrival, received).await
    }

    /// Hands a reading on that was measured then.
    pub(super) async fn reading_of(
        &self,
        observation: Observation,
        when: When,
        received: Stamp,
    ) -> Result<(), SourceError> {
        self.send(SourceMessage::Reading(self.compose(observation, when, received))).await
    }

    /// Hands a record on with the readings in it, which were measured then.
    pub(super) async fn record(
        &self,
        bytes: RecordBytes,
        observations: Vec<Observation>,
        when: When,
        received: Stamp,
    ) -> Result<(), SourceError> {
        let RecordBytes { characteristic, number, user, device_time, raw, context, found, .. } = bytes;
        let compose = |observation: Observation| self.compose(observation, when, received);
        let readings = observations.into_iter().map(compose).collect();
        let record = RecordEvent {
            source: self.source.clone(),
            device: self.device.clone(),
            patient: self.patient.clone(),
            characteristic,
            number,
            user,
            device_time,
            raw,
            context,
            found,
            readings: None,
            mode: self.mode,
        };
        self.send(SourceMessage::Record { record, readings }).await
    }

    fn compose(&self, observation: Observation, when: When, received: Stamp) -> Reading {
        let is_absent = matches!(Observation::of(observation.vital.clone()).quality, Quality::NotAvailable);
        let counter = if is_absent { &self.counters.absent } else { &self.counters.valid };
        SourceCounters::add(counter, 1);
        Reading {
            patient: self.patient.clone(),
            device: self.device.clone(),
            source: self.source.clone(),
            vital: observation.vital,
            mdc: observation.mdc,
            quality: observation.quality,
            mode: self.mode,
            taken: when.taken(observation.device_time, received),
            received,
        }
    }

    /// Hands samples of a wave on, if they do not crowd out what counts: only while half of the pipeline's queue is
    /// free. Never waits; a display sees by the number of the next sample that some are missing.
    pub fn wave(&mut self, wave: WaveSamples, received: Stamp) {
        let WaveSamples { name, hz, baseline, samples, saturated, after_gap } = wave;
        let next = self.next_samples.entry(Arc::clone(&name)).or_default();
        let first = *next;
        *next = first.saturating_add(u64::try_from(samples.len()).unwrap_or(0));
        let block = WaveBlock {
            patient: self.patient.clone(),
            device: self.device.clone(),
            source: self.source.clone(),
            mode: self.mode,
            name,
            hz,
            baseline,
            saturated,
            after_gap,
            first,
            samples,
            received,
        };
        let is_room = self.out.capacity() > self.out.max_capacity() / 2;
        if !is_room || self.out.try_send(SourceMessage::Wave(block)).is_err() {
            SourceCounters::add(&self.counters.waves_dropped, 1);
        }
    }

    /// Reports the state of the link, unless the same was reported last.
    pub async fn link(
        &mut self,
        state: LinkState,
        status: &BTreeSet<Status>,
        reason: Option<&str>,
    ) -> Result<(), SourceError> {
        let status = status.union(&self.standing).copied().collect();
        let report = (state, status, reason.map(ToOwned::to_owned));
        if self.reported.as_ref() == Some(&report) {
            return Ok(());
        }
        let (link, status, reason) = report.clone();
        self.reported = Some(report);
        self.send(SourceMessage::Link(SourceEvent {
            source: self.source.clone(),
            device: self.device.clone(),
            patient: self.patient.clone(),
            link,
            status,
            reason,
            mode: self.mode,
        }))
        .await
    }

    /// Reports a state about which the sensor itself has nothing to say.
    pub async fn state(&mut self, state: LinkState) -> Result<(), SourceError> {
        self.link(state, &BTreeSet::new(), None).await
    }

    /// Sets what every report of the link says from now on, beside what the sensor says about itself.
    pub(super) fn stand(&mut self, standing: BTreeSet<Status>) {
        self.standing = standing;
    }

    /// Says what became of an order.
    pub(super) async fn answer(&self, order: u64, result: Result<(), NotDone>) -> Result<(), SourceError> {
        self.send(SourceMessage::Answer { order, result }).await
    }

    /// Writes down what the bridge found out about the device by itself.
    pub(super) async fn audit(&self, action: AuditAction, object: String) -> Result<(), SourceError> {
        let audit = AuditEvent {
            by: AuditEvent::BRIDGE.to_owned(),
            address: None,
            action,
            object,
            patient: self.patient.clone(),
            device: Some(self.device.clone()),
            source: Some(self.source.clone()),
            result: AuditResult::Done,
            reason: None,
            mode: self.mode,
        };
        self.send(SourceMessage::Audit(audit)).await
    }

    async fn send(&self, message: SourceMessage) -> Result<(), SourceError> {
        self.out.send(message).await.map_err(|_| SourceError::PipelineGone)
    }
}
