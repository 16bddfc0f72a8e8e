//! The way from a source into the pipeline: stamps readings, names their device, and reports each change of the link once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::clock::{Clock, Stamp};
use crate::decode::WaveSamples;
use crate::event::{LinkState, SourceEvent, SourceMessage, WaveBlock};
use crate::ids::{DeviceId, PatientId, SourceId};
use crate::vitals::{Mode, Quality, Reading, Status, Taken, Value, Vital};

use super::{SourceConfig, SourceError};

/// What a source has done since the daemon started.
#[derive(Debug, Default)]
pub struct SourceCounters {
    /// Failed and was started again.
    pub restarts: AtomicU64,
    /// Ports and connections opened.
    pub opened: AtomicU64,
    /// Reads from the port that returned, with bytes or without.
    pub reads: AtomicU64,
    /// Bytes received.
    pub bytes: AtomicU64,
    /// Bytes that belonged to no valid frame.
    pub rubbish_bytes: AtomicU64,
    /// Readings handed on with a number.
    pub valid: AtomicU64,
    /// Readings handed on without a number.
    pub absent: AtomicU64,
    /// Blocks of samples that were dropped because the pipeline was busy.
    pub waves_dropped: AtomicU64,
}

impl SourceCounters {
    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

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

    /// Hands a reading on. Waits while the pipeline's queue is full; fails when the pipeline has gone.
    pub async fn reading(&self, observation: Observation, received: Stamp) -> Result<(), SourceError> {
        let is_absent = matches!(Observation::of(observation.vital.clone()).quality, Quality::NotAvailable);
        let counter = if is_absent { &self.counters.absent } else { &self.counters.valid };
        SourceCounters::add(counter, 1);
        let reading = Reading {
            patient: self.patient.clone(),
            device: self.device.clone(),
            source: self.source.clone(),
            vital: observation.vital,
            mdc: observation.mdc,
            quality: observation.quality,
            mode: self.mode,
            taken: Taken { device_time: observation.device_time, ..Taken::on_arrival(received) },
            received,
        };
        self.send(SourceMessage::Reading(reading)).await
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
        let report = (state, status.clone(), reason.map(ToOwned::to_owned));
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

    async fn send(&self, message: SourceMessage) -> Result<(), SourceError> {
        self.out.send(message).await.map_err(|_| SourceError::PipelineGone)
    }
}
