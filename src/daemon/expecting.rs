//! Which devices the configured sources have, whose they are, and what each is to deliver, where its kind or profile tells.

use std::collections::BTreeSet;

use crate::ids::{DeviceId, PatientId};
use crate::pipeline::Expected;
use crate::sources::ble::BleConfig;
use crate::sources::simulator::ward::{self, Instrument};
use crate::sources::{SourceConfig, SourceKind};
use crate::vitals::{Metric, Mode};

/// Every device of every patient.
pub fn expected(sources: &[SourceConfig]) -> Vec<Expected> {
    sources.iter().flat_map(of_source).collect()
}

fn of_source(source: &SourceConfig) -> Vec<Expected> {
    let own = |metrics, is_spot| {
        let patient = source.patient.clone();
        patient
            .map(|patient| alone(source.device.clone(), patient, metrics, is_spot, source.mode))
            .into_iter()
            .collect()
    };
    match &source.kind {
        SourceKind::Serial(serial) => {
            own(crate::decode::self_test::expected_metrics(&serial.profile), serial.profile.is_spot_check())
        }
        SourceKind::Ble(ble) if !ble.users.is_empty() => of_users(source, ble),
        SourceKind::Ble(ble) => own(ble.metrics(), ble.habit().is_episodic()),
        SourceKind::Simulator(_) => of_ward(source.mode),
        // A recording has the columns it has.
        SourceKind::Replay(_) | SourceKind::Unusable { .. } => own(BTreeSet::new(), false),
    }
}

/// A sensor of several users: whom it measures next is not known, so nothing of it is missed.
fn of_users(source: &SourceConfig, ble: &BleConfig) -> Vec<Expected> {
    let patients: BTreeSet<&PatientId> = ble.users.values().chain(&source.patient).collect();
    let of_patient = |patient: &PatientId| Expected {
        is_shared: true,
        ..alone(source.device.clone(), patient.clone(), BTreeSet::new(), true, source.mode)
    };
    patients.into_iter().map(of_patient).collect()
}

/// The demo ward: cuffs and thermometers measure now and then.
fn of_ward(mode: Mode) -> Vec<Expected> {
    let of_bed = |bed: ward::DemoBed| {
        Instrument::ALL.map(|instrument| {
            let is_spot = matches!(instrument, Instrument::Cuff | Instrument::Thermometer);
            alone(bed.device(instrument), bed.patient.clone(), BTreeSet::new(), is_spot, mode)
        })
    };
    ward::beds().into_iter().flat_map(of_bed).collect()
}

const fn alone(device: DeviceId, patient: PatientId, metrics: BTreeSet<Metric>, is_spot: bool, mode: Mode) -> Expected {
    Expected { device, patient, metrics, is_spot, is_shared: false, mode }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Place};
    use crate::sources::simulator::{Links, SimulatorConfig, demo_sources};

    /// Device, patient, spot, shared.
    fn named(expected: &[Expected]) -> Vec<(&str, &str, bool, bool)> {
        expected.iter().map(|it| (it.device.as_str(), it.patient.as_str(), it.is_spot, it.is_shared)).collect()
    }

    #[test]
    fn a_sensor_of_several_users_is_each_ones_and_measures_now_and_then() {
        let source = |members: &str| {
            let text = format!(
                "[[patient]]\nid = \"P-1\"\n[[patient]]\nid = \"P-2\"\n[[patient]]\nid = \"P-3\"\n\
                 [[source]]\nid = \"cuff\"\nkind = \"ble\"\nname = \"C\"\nsensor = \"blood_pressure\"\n{members}\n"
            );
            expected(&Config::parse(&text, Path::new("."), &Place::default()).unwrap().sources)
        };
        let users = "users = { 1 = \"P-1\", 2 = \"P-2\" }";
        let both = [("cuff", "P-1", true, true), ("cuff", "P-2", true, true)];
        assert_eq!(named(&source(users)), both);
        assert_eq!(named(&source(&format!("{users}\npatient = \"P-1\""))), both);
        let three = [both[0], both[1], ("cuff", "P-3", true, true)];
        assert_eq!(named(&source(&format!("{users}\npatient = \"P-3\""))), three);
        assert_eq!(named(&source("patient = \"P-3\"")), [("cuff", "P-3", true, false)]);
        assert_eq!(named(&source("")), []);
    }

    #[test]
    fn the_cuffs_and_thermometers_of_the_demo_measure_now_and_then() {
        let sources = demo_sources(&SimulatorConfig { seed: 1, links: Links::Direct }).unwrap();
        let expected = expected(&sources);
        for it in &expected {
            let is_single = it.device.as_str().starts_with("cuff-") || it.device.as_str().starts_with("thermometer-");
            assert_eq!((it.is_spot, it.mode), (is_single, Mode::Demo), "{}", it.device);
        }
        assert_eq!(expected.len(), ward::BEDS * Instrument::ALL.len());
    }
}
