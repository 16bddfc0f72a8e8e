//! The start of a run: the alerts of the last one come back, and those of whom or what is no longer configured end.

use std::collections::BTreeSet;

use tracing::warn;

use super::{Expected, Pipeline};
use crate::alerts::Engine;
use crate::clock::Stamp;
use crate::event::{AlertChange, AlertEvent, EndReason, SystemEvent, SystemKind};
use crate::ids::{DeviceId, PatientId};
use crate::vitals::Metric;

impl Pipeline {
    /// Takes the open alerts of the last run back, and tells the engine which devices there are.
    pub(super) fn restore(&mut self, open: Vec<AlertEvent>, expected: Vec<Expected>, now: Stamp) {
        for shared in expected.iter().filter(|expected| expected.is_shared) {
            self.engine.share(&shared.device);
        }
        let is_here = |alert: &AlertEvent| alert.patient.as_ref().is_none_or(|it| self.patients.contains_key(it));
        let (known, gone): (Vec<_>, Vec<_>) = open.into_iter().filter(AlertEvent::is_present).partition(is_here);
        let ended = gone.into_iter().map(|alert| Engine::ended(alert, EndReason::Unassigned)).collect();
        self.end_unnamed(ended, "the patient is not in the configuration any more", now);

        let named: BTreeSet<(DeviceId, PatientId)> =
            expected.iter().map(|expected| (expected.device.clone(), expected.patient.clone())).collect();
        let of_device = |alert: &AlertEvent| alert.device.clone().zip(alert.patient.clone());
        let unnamed: BTreeSet<_> = known.iter().filter_map(of_device).filter(|pair| !named.contains(pair)).collect();
        let restored = self.engine.restore(known, now);
        self.publish_alerts(restored, now);
        self.publish_what_stands(now);
        for expected in expected {
            self.expect(&expected, now);
        }
        // After what is expected: an alert about what another device of the patient measures as well stays.
        for (device, patient) in unnamed {
            let changes = self.engine.device_gone(&device, &patient, now);
            let (ended, other) = changes.into_iter().partition(|alert| alert.change == AlertChange::End);
            self.publish_alerts(other, now);
            self.end_unnamed(ended, &format!("no source names {device} for this patient any more"), now);
        }
    }

    fn expect(&mut self, expected: &Expected, now: Stamp) {
        let Expected { device, patient, metrics, is_spot, mode, .. } = expected;
        let metrics: Vec<Metric> = metrics.iter().copied().collect();
        if *is_spot {
            self.derivation.expect_spot(device.clone());
        } else {
            self.derivation.expect_continuous(device.clone());
        }
        let changes = if *is_spot {
            self.engine.expect_spot(device, patient, *mode, now)
        } else if metrics.is_empty() {
            // Nothing is known of it but its name.
            return;
        } else {
            self.engine.expect(device, patient, &metrics, *mode, now)
        };
        self.publish_alerts(changes, now);
    }

    /// Publishes the ends of alerts that nothing could ever end otherwise, and says so.
    fn end_unnamed(&mut self, ended: Vec<AlertEvent>, why: &str, now: Stamp) {
        for alert in &ended {
            let whose = alert.patient.as_ref().map_or("bridge", PatientId::as_str);
            let message = format!("the alert {} of {whose} ({}) has ended: {why}", alert.alert, alert.message);
            warn!("{message}");
            self.on_system(SystemEvent { kind: SystemKind::AlertEnded, message, first: None, last: None }, now);
        }
        self.publish_alerts(ended, now);
    }
}
