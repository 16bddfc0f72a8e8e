//! What the times between one device's heart beats tell while they come: a rate where the device gives none, and its
//! variability.

use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::derive::beats::{Beats, RATE_SPAN, SPAN};
use crate::ids::{DeviceId, PatientId};
use crate::vitals::{
    Absent, DERIVED_SOURCE, Decimal, Metric, Mode, Quality, Reading, Taken, Value, Variability, Vital,
};

/// The variability is published so often.
pub const VARIABILITY_EVERY: Duration = Duration::from_mins(1);

/// A rate is published no more often than this, and looked at so often for being lost.
const RATE_EVERY: Duration = Duration::from_secs(1);

/// Intervals arrive as much later than they end, and no more: a strap sends about once a second.
const DELIVERY: Duration = Duration::from_millis(2500);

/// The beats of one device, and what was published of them.
#[derive(Debug)]
pub(super) struct Heart {
    beats: Beats,
    mode: Mode,
    since: Mono,
    /// When intervals arrived last.
    heard: Option<Mono>,
    /// The device gives a rate of its own; it is never mixed with one of ours.
    gives_rate: bool,
    /// When a rate was last published, and when it was last looked at, while there is one.
    rate: Option<(Mono, Mono)>,
    variability_due: Mono,
    /// The last thing published was a variability, or that there is none.
    shown: Option<bool>,
}

impl Heart {
    pub(super) fn new(mode: Mode, now: Stamp) -> Self {
        Self {
            beats: Beats::default(),
            mode,
            since: now.mono,
            heard: None,
            gives_rate: false,
            rate: None,
            variability_due: now.mono + VARIABILITY_EVERY,
            shown: None,
        }
    }

    /// The device has a rate of its own.
    pub(super) const fn has_rate(&mut self) {
        self.gives_rate = true;
        self.rate = None;
    }

    /// Beats were missed: the link was lost, or the device doubts what it sent.
    pub(super) const fn gap(&mut self) {
        self.beats.gap();
    }

    /// Takes intervals of 1/1024 s, oldest first; a rate if there is one to be published.
    pub(super) fn take(&mut self, intervals: &[u16], mode: Mode, at: Mono, now: Stamp) -> Option<Vital> {
        self.mode = mode;
        let length: u64 = intervals.iter().map(|raw| u64::from(*raw)).sum();
        let length = Duration::from_millis(length.saturating_mul(1000) / 1024);
        if self.heard.is_some_and(|heard| at.since(heard) > length + DELIVERY) {
            self.beats.gap();
        }
        self.heard = Some(at);
        for raw in intervals {
            self.beats.push(*raw, at);
        }
        let is_soon = self.rate.is_some_and(|(told, _)| now.mono.since(told) < RATE_EVERY);
        // So long a device may take to tell its own rate.
        if self.gives_rate || is_soon || now.mono.since(self.since) < RATE_SPAN {
            return None;
        }
        let rate = self.beats.heart_rate(now.mono)?;
        self.rate = Some((now.mono, now.mono));
        Some(Vital::scalar(Metric::HeartRate, Value::reported(Metric::HeartRate, rate)))
    }

    /// The moment at which time alone changes something.
    pub(super) fn due(&self) -> Mono {
        self.rate.map_or(self.variability_due, |(_, looked)| self.variability_due.min(looked + RATE_EVERY))
    }

    /// True if nothing was heard for so long that nothing is known of it.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        self.rate.is_none() && self.shown != Some(true) && now.since(self.heard.unwrap_or(self.since)) > SPAN
    }

    /// What is due.
    pub(super) fn on_deadline(&mut self, now: Stamp) -> Vec<Vital> {
        let absent = |metric| Vital::scalar(metric, Value::Absent(Absent::InputsMissing));
        let mut found = Vec::new();
        if let Some((told, _)) = self.rate.filter(|(_, looked)| now.mono.since(*looked) >= RATE_EVERY) {
            let is_known = self.beats.recent_rate(now.mono).is_some();
            self.rate = is_known.then_some((told, now.mono));
            found.extend((!is_known).then(|| absent(Metric::HeartRate)));
        }
        if self.variability_due <= now.mono {
            self.variability_due = now.mono + VARIABILITY_EVERY;
            match self.variability(now.mono) {
                Some(variability) => {
                    self.shown = Some(true);
                    found.push(Vital::Variability(variability));
                }
                // Said once: what is not known stays so until it is.
                None if self.heard.is_some() && self.shown != Some(false) => {
                    self.shown = Some(false);
                    found.push(absent(Metric::HeartRateVariability));
                }
                None => {}
            }
        }
        found
    }

    fn variability(&self, now: Mono) -> Option<Variability> {
        let found = self.beats.variability(now)?;
        let tenths = |number: f64| format!("{number:.1}").parse::<Decimal>().ok();
        Some(Variability {
            n: u32::try_from(found.n).ok()?,
            rejected: u32::try_from(found.rejected).ok()?,
            sdnn: tenths(found.sdnn_ms)?,
            rmssd: tenths(found.rmssd_ms)?,
            pnn50: tenths(found.pnn50_percent)?,
        })
    }

    /// A reading of this heart.
    pub(super) fn reading(&self, patient: &PatientId, device: &DeviceId, vital: Vital, now: Stamp) -> Option<Reading> {
        derived(patient, device.clone(), vital, self.mode, now)
    }
}

/// A reading that the bridge computed just now; `None` never, because the name of its source is a good one.
pub(super) fn derived(patient: &PatientId, device: DeviceId, vital: Vital, mode: Mode, now: Stamp) -> Option<Reading> {
    let quality = if vital.leading().valid().is_some() { Quality::Valid } else { Quality::NotAvailable };
    Some(Reading {
        patient: Some(patient.clone()),
        device,
        source: DERIVED_SOURCE.parse().ok()?,
        vital,
        mdc: None,
        quality,
        mode,
        taken: Taken::on_arrival(now),
        received: now,
    })
}
