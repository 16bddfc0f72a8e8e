//! The profiles that are part of the program: `devices/*.toml`.

use std::sync::{Arc, OnceLock};

use super::Profile;
use super::build::distance;
use crate::document::Problems;

type Parsed = OnceLock<Result<Arc<Profile>, Problems>>;

struct BuiltIn {
    id: &'static str,
    text: &'static str,
    parsed: Parsed,
}

macro_rules! built_in_profiles {
    ($count:literal: $($id:literal),+ $(,)?) => {
        static BUILT_IN: [BuiltIn; $count] = [$(BuiltIn {
            id: $id,
            text: include_str!(concat!("../../devices/", $id, ".toml")),
            parsed: OnceLock::new(),
        },)+];
    };
}

built_in_profiles![
    62: "accu-chek-guide",
    "and-ua-651ble",
    "and-ub-1100ble",
    "ansar-b",
    "berry-bci",
    "berry-pm6750",
    "beurer-bf105",
    "beurer-bf720",
    "beurer-bf788",
    "beurer-bm48",
    "beurer-bm59",
    "beurer-bm85",
    "beurer-elite900",
    "boso-medicus",
    "caresens",
    "choicemmed-plx",
    "contec-cms50-v5",
    "contec-cms50d-bt",
    "contec-v7",
    "contour-next-one",
    "datex-s5-dri",
    "draeger-medibus",
    "freetec-px1737",
    "garmin-hrm",
    "garmin-watch",
    "generic-blood-pressure",
    "generic-glucose",
    "generic-heart-rate",
    "generic-pulse-oximeter",
    "generic-scale",
    "generic-thermometer",
    "healthypi",
    "jumper-oximeter",
    "masimo-ascii1",
    "masimo-ascii2-trend",
    "masimo-mightysat",
    "medisana-bu5xx",
    "medlab-nibp",
    "mi-body-scale-2",
    "mi-scale",
    "nellcor-oximax",
    "nonin-3230",
    "nonin-ascii",
    "nonin-df13",
    "nonin-df2",
    "nonin-df7",
    "nonin-df8",
    "omron-bp5150",
    "omron-standard",
    "omron-x2-smart-plus",
    "omron-x4-smart",
    "polar-h10",
    "polar-h7",
    "polar-h9",
    "polar-oh1",
    "polar-verity-sense",
    "silvercrest-sbm69",
    "suntech-nibp",
    "viatom-o2",
    "viatom-pc60",
    "wahoo-tickr",
    "yonker-bp",
];

/// The ids of all built-in profiles.
pub fn built_in_ids() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|profile| profile.id)
}

/// The TOML of a built-in profile.
pub fn built_in_text(id: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|profile| profile.id == id).map(|profile| profile.text)
}

/// A built-in profile, parsed once; `None` if there is none of this name.
pub fn built_in(id: &str) -> Option<Result<Arc<Profile>, Problems>> {
    let found = BUILT_IN.iter().find(|profile| profile.id == id)?;
    Some(found.parsed.get_or_init(|| Profile::parse(found.text).map(Arc::new)).clone())
}

/// The built-in ids that are most like `id`, nearest first, at most three.
pub fn nearest_ids(id: &str) -> Vec<&'static str> {
    nearest_of(id, built_in_ids())
}

/// The `known` ids that are most like `id`, nearest first, at most three.
pub fn nearest_of<'k>(id: &str, known: impl IntoIterator<Item = &'k str>) -> Vec<&'k str> {
    let mut ids: Vec<&'k str> = known.into_iter().collect();
    // A part of a name ("nonin") is nearer than any change of letters.
    ids.sort_by_key(|known| (!known.contains(id) || id.is_empty(), distance(id, known)));
    ids.truncate(3);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::model::On;
    use crate::vitals::{Metric, Status};

    #[test]
    fn every_built_in_profile_is_valid_and_has_the_id_of_its_file() {
        for id in built_in_ids() {
            match built_in(id).unwrap() {
                Ok(profile) => assert_eq!(profile.id(), id),
                Err(problems) => panic!("devices/{id}.toml:\n{problems}"),
            }
        }
    }

    #[test]
    fn every_profile_file_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/devices");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
                assert!(built_in_ids().any(|known| known == id), "{id} is not in the list of built_in.rs");
            }
        }
    }

    /// Fields that are measured without the sensor on a patient: profile, metric, why.
    const MEASURED_WITHOUT_A_SIGNAL: [(&str, Metric, &str); 1] =
        [("viatom-o2", Metric::Battery, "the charge of the ring is known whether it is worn or not")];

    #[test]
    fn a_device_that_says_it_has_no_signal_gives_no_value() {
        let without = |status: Option<Status>| {
            let all = [Status::NoSensor, Status::SensorOff, Status::Searching, Status::SignalLost];
            status.is_some_and(|status| all.contains(&status))
        };
        let mut exempt = Vec::new();
        let mut gates = 0;
        for id in built_in_ids() {
            let profile = built_in(id).unwrap().unwrap();
            let latched = profile.messages().iter().flat_map(|message| &message.flags).filter(|flag| flag.latched);
            for message in profile.messages() {
                // A packet of many frames is withheld by what any of them says.
                let of_packet = latched.clone().filter(|_| message.on == On::Superframe);
                let flags: Vec<_> = message.flags.iter().chain(of_packet).filter(|flag| without(flag.maps)).collect();
                for field in &message.fields {
                    if MEASURED_WITHOUT_A_SIGNAL.iter().any(|(of, metric, _)| (*of, *metric) == (id, field.metric)) {
                        exempt.push((id, field.metric));
                        continue;
                    }
                    let name = field.metric.name();
                    for flag in &flags {
                        let is_gate = field.unless.iter().any(|gate| gate.flag == flag.index);
                        assert!(is_gate, "{id}: {name} is published while `{}` is set", flag.name);
                        gates += 1;
                    }
                    for state in &message.states {
                        let only = field.only.iter().find(|only| only.state == state.index);
                        for (index, value) in state.values.iter().enumerate().filter(|(_, value)| without(value.maps)) {
                            let is_gate = only.is_some_and(|only| !only.allowed.contains(&index));
                            assert!(is_gate, "{id}: {name} is published while `{}` is `{}`", state.name, value.name);
                            gates += 1;
                        }
                    }
                }
            }
        }
        let listed: Vec<_> = MEASURED_WITHOUT_A_SIGNAL.iter().map(|(id, metric, _)| (*id, *metric)).collect();
        assert_eq!(exempt, listed);
        assert!(gates > 50, "{gates}");
    }

    #[test]
    fn an_unknown_id_leads_to_the_nearest() {
        assert_eq!(nearest_ids("nonin").first(), Some(&"nonin-df2"));
        assert_eq!(nearest_ids("contec-v8").first(), Some(&"contec-v7"));
        assert!(built_in("nonin").is_none());
    }
}
