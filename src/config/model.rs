//! A Bluetooth source and the profile that it names: what they say together, and where they contradict each other.

use std::ops::Range;

use toml::Spanned;

use super::file;
use crate::profile::ble::{Ble, SensorKind, Sighting, Speaks, TimeWrite};
use crate::profile::{Models, Profile};

/// A problem and its place in the text.
pub(super) type Found = (Range<usize>, String);

/// What the source measures by standard characteristics; `None` with a problem if that cannot be.
///
/// With a profile it is the profile that says so, and with neither it is a strap.
pub(super) fn sensor(source: &file::Source, profile: Option<&Profile>, found: &mut Vec<Found>) -> Option<SensorKind> {
    let Some(place) = &source.sensor else {
        return Some(profile.and_then(Profile::ble).and_then(Ble::sensor).unwrap_or(SensorKind::HeartRate));
    };
    let said = SensorKind::from_name(place.get_ref());
    if said.is_none() {
        let names: Vec<&str> = SensorKind::ALL.iter().map(|kind| kind.name()).collect();
        let message = format!("`{}` is not a sensor; there are {}", place.get_ref(), names.join(", "));
        found.push((place.span(), message));
    }
    let (Some(said), Some(profile)) = (said, profile) else { return said };
    match profile.ble().map(|ble| &ble.speaks) {
        Some(Speaks::Standard(kind)) if *kind == said => {}
        Some(Speaks::Standard(kind)) => {
            let message = format!("the profile {} is of a {kind}, not of a {said}: leave `sensor` out", profile.id());
            found.push((place.span(), message));
        }
        Some(_) => {
            let message = format!("the profile {} speaks a protocol of its own: leave `sensor` out", profile.id());
            found.push((place.span(), message));
        }
        None => {}
    }
    Some(said)
}

/// Everything in which a source contradicts its profile.
pub(super) fn contradictions(source: &file::Source, profile: &Profile, models: &Models) -> Vec<Found> {
    let id = profile.id();
    let mut found = Vec::new();
    let mut problem = |place: Range<usize>, message: String| found.push((place, message));
    let named = source.profile.as_ref().map_or(0..0, Spanned::span);
    let Some(ble) = profile.ble() else {
        problem(named, format!("the profile {id} is of a serial device: its source has kind = \"serial\""));
        return found;
    };
    if let Some(place) = &source.name
        && let Some(other) = model_of(place.get_ref(), models).filter(|other| other.id() != id)
        && ble.rank(&by_name(place.get_ref())).is_none()
    {
        let message = format!("`{}` is the name of the model {}, not of {id}", place.get_ref(), other.id());
        problem(place.span(), message);
    }
    if let Some(place) = &source.set_clock {
        if ble.time_write == TimeWrite::Never {
            problem(place.span(), format!("the clock of the {} is never set: leave `set_clock` out", profile.name()));
        } else if ble.sensor().is_none() {
            problem(place.span(), format!("the profile {id} speaks a protocol of its own, in which no clock is set"));
        }
    }
    let users = source.users.len();
    if let Some(place) = source.users.values().next() {
        if ble.sensor().is_none() {
            problem(place.span(), format!("the profile {id} speaks a protocol of its own, without numbers of users"));
        } else if ble.users.count > 0 && users > usize::from(ble.users.count) {
            problem(place.span(), format!("{users} users; the {} keeps {}", profile.name(), ble.users.count));
        }
    }
    found
}

/// What whoever has a sensor's clock set should know.
pub(super) const FIXED_OFFSET: &str =
    "this offset is fixed and follows no daylight saving time: change it when the clocks change";

/// What whoever sets the source up should know.
pub(super) fn warnings(profile: &Profile) -> Vec<String> {
    let Some(ble) = profile.ble().filter(|ble| ble.deletes_on_transfer) else { return Vec::new() };
    let alone = if ble.needs_bond { ", and let nothing else be bonded with it" } else { "" };
    vec![format!("the {} deletes what it has handed over: use no other application with it{alone}", profile.name())]
}

const fn by_name(name: &str) -> Sighting<'_> {
    Sighting { name: Some(name), services: &[], service_data: &[], companies: &[], manufacturer: None, model: None }
}

/// The model whose name this is.
fn model_of<'m>(name: &str, models: &'m Models) -> Option<&'m Profile> {
    models.find(&by_name(name)).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Place};
    use super::*;
    use crate::profile::ble::Presence;
    use crate::sources::SourceKind;

    fn parsed(members: &str) -> Result<Config, String> {
        let text = format!(
            "[[patient]]\nid = \"P-1\"\n[[patient]]\nid = \"P-2\"\n[[source]]\nid = \"s\"\nkind = \"ble\"\n{members}\n"
        );
        Config::parse(&text, Path::new("."), &Place::default()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_source_is_what_its_profile_says() {
        let config =
            parsed("name = \"BM85\"\nprofile = \"beurer-bm85\"\nusers = { 1 = \"P-1\", 2 = \"P-2\" }").unwrap();
        let SourceKind::Ble(cuff) = &config.sources[0].kind else { panic!("not ble") };
        let profile = cuff.profile.as_ref().unwrap();
        assert_eq!((cuff.sensor, profile.id(), profile.quirks().len()), (SensorKind::BloodPressure, "beurer-bm85", 2));
        assert!(cuff.habit().is_episodic() && cuff.metrics().is_empty());
        assert!(config.warnings.is_empty(), "{}", config.warnings);
        for (members, presence) in [
            ("name = \"Polar H10 1\"\nprofile = \"polar-h10\"", Presence::Live),
            ("name = \"Polar H10 1\"\nprofile = \"polar-h10\"\nsensor = \"heart_rate\"", Presence::Live),
            ("address = \"C0:FF:EE:00:00:01\"\nprofile = \"viatom-o2\"", Presence::Live),
            ("address = \"C0:FF:EE:00:00:01\"\nprofile = \"yonker-bp\"", Presence::Episodic),
            // A name that nobody else's model has is the owner's choice.
            ("name = \"Bed 3\"\nprofile = \"polar-h10\"", Presence::Live),
        ] {
            let config = parsed(members).unwrap();
            let SourceKind::Ble(sensor) = &config.sources[0].kind else { panic!("not ble") };
            assert_eq!(sensor.habit().is_episodic(), presence == Presence::Episodic, "{members}");
        }
    }

    #[test]
    fn what_contradicts_the_profile_is_a_problem_with_its_line() {
        for (members, words) in [
            ("name = \"S\"\nprofile = \"polar-h11\"", "line 9: there is no profile `polar-h11`; near are polar-h1"),
            ("name = \"S\"\nprofile = \"nonin-df2\"", "line 9: the profile nonin-df2 is of a serial device"),
            (
                "name = \"S\"\nprofile = \"polar-h10\"\nsensor = \"scale\"",
                "line 10: the profile polar-h10 is of a heart_rate, not of a scale: leave `sensor` out",
            ),
            (
                "name = \"S\"\nprofile = \"viatom-o2\"\nsensor = \"pulse_oximeter\"",
                "line 10: the profile viatom-o2 speaks a protocol of its own: leave `sensor` out",
            ),
            (
                "name = \"BM85\"\nprofile = \"polar-h10\"",
                "line 8: `BM85` is the name of the model beurer-bm85, not of polar-h10",
            ),
            ("name = \"S\"\nprofile = \"mi-scale\"\nset_clock = \"+01:00\"", "line 10: the clock of the Xiaomi"),
            ("name = \"S\"\nprofile = \"viatom-o2\"\nset_clock = \"+01:00\"", "line 10: the profile viatom-o2 speaks"),
            ("name = \"S\"\nprofile = \"viatom-o2\"\nusers = { 1 = \"P-1\" }", "line 10: the profile viatom-o2 speaks"),
            (
                "name = \"S\"\nprofile = \"beurer-bm85\"\nusers = { 1 = \"P-1\", 2 = \"P-2\", 3 = \"P-1\" }",
                "line 10: 3 users; the Beurer BM85 upper arm cuff keeps 2",
            ),
            ("name = \"S\"\nprofile = \"beurer-bm85\"\ndelete_records = true", "line 10: only a glucose meter"),
        ] {
            let problems = parsed(members).unwrap_err();
            assert!(problems.lines().any(|problem| problem.starts_with(words)), "{members}: {problems}");
        }
        let both =
            parsed("name = \"BM85\"\nprofile = \"polar-h10\"\nsensor = \"scale\"\nset_clock = \"noon\"").unwrap_err();
        assert_eq!(both.lines().count(), 3, "{both}");
        let serial = "[[source]]\nid = \"s\"\nkind = \"serial\"\nport = \"tcp://a:1\"\nprofile = \"polar-h10\"\n";
        let problems = Config::parse(serial, Path::new("."), &Place::default()).map(|_| ()).unwrap_err().to_string();
        assert!(problems.contains("line 5: the profile polar-h10 is of a Bluetooth device"), "{problems}");
    }

    #[test]
    fn a_cuff_that_deletes_what_it_hands_over_is_warned_of() {
        let config = parsed("name = \"X4 Smart\"\nprofile = \"omron-x4-smart\"").unwrap();
        let warnings = config.warnings.to_string();
        assert!(warnings.starts_with("line 9: the Omron X4 Smart upper arm cuff deletes what it has"), "{warnings}");
    }
}
