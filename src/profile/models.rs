//! Which model a Bluetooth device is, by what it advertises and says of itself: the surest match of all profiles.

use std::sync::Arc;

use uuid::Uuid;

use super::Profile;
use super::ble::Sighting;
use super::built_in::{built_in, built_in_ids};

/// The profiles that have a Bluetooth side.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<Vec<Arc<Profile>>>);

impl Models {
    /// Those of these profiles; of two that fit equally well, the earlier one is taken.
    pub fn new(profiles: impl IntoIterator<Item = Arc<Profile>>) -> Self {
        Self(Arc::new(profiles.into_iter().filter(|profile| profile.ble().is_some()).collect()))
    }

    /// Those that are part of the program.
    pub fn built_in() -> Self {
        Self::new(built_in_ids().filter_map(|id| built_in(id)?.ok()))
    }

    /// The model that a device is; `None` if none fits.
    pub fn find(&self, seen: &Sighting<'_>) -> Option<&Arc<Profile>> {
        let ranked = self.0.iter().filter_map(|profile| Some((profile.ble()?.rank(seen)?, profile)));
        ranked.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, profile)| profile)
    }

    /// The profiles.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.0.iter()
    }
}

/// A 16-bit UUID in its long form (Core 5.4, vol. 3 part B, 2.5.1).
pub(super) const fn long_form(short: u16) -> Uuid {
    #[expect(clippy::as_conversions, reason = "From is not const; widening cannot lose anything")]
    Uuid::from_u128(((short as u128) << 96) | 0x0000_0000_0000_1000_8000_0080_5f9b_34fb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::ble::{Glob, Rank};

    /// What was seen: name, 16-bit services, services of service data, companies.
    type Seen = (&'static str, &'static [u16], &'static [u16], &'static [u16]);

    /// Advertisements that owners have published, and names that the sources of the profiles print; and the model.
    const SEEN: &[(Seen, &str)] = &[
        // Stack Overflow and polar-ble-sdk, issue 305: flags, 180D, manufacturer data, name.
        (("Polar H7 D7490D14", &[0x180D], &[], &[0x006B]), "polar-h7"),
        (("Polar H9 12345678", &[0x180D], &[], &[0x006B]), "polar-h9"),
        (("Polar H10 9E3A7D21", &[0x180D, 0xFEEE], &[], &[0x006B]), "polar-h10"),
        (("Polar OH1 3C5B7F2A", &[0x180D], &[], &[0x006B]), "polar-oh1"),
        (("Polar Sense A1B2C3D4", &[0x180D], &[], &[0x006B]), "polar-verity-sense"),
        (("TICKR 1234", &[0x180D], &[], &[]), "wahoo-tickr"),
        (("Wahoo TICKR FIT", &[0x180D], &[], &[]), "wahoo-tickr"),
        (("HRM-Dual:068786", &[0x180D], &[], &[0x0087]), "garmin-hrm"),
        (("HRM-Pro:513142", &[0x180D], &[], &[]), "garmin-hrm"),
        (("Forerunner 245", &[0x180D], &[], &[0x0087]), "garmin-watch"),
        (("Kalenji Dual HRM", &[0x180D], &[], &[]), "generic-heart-rate"),
        // ble_monitor, issue 1003, with the standard service; docs/bluetooth.md of derdilla.
        (("BLESmart_0000025828FFB20591B5", &[0x1810], &[], &[0x020E]), "omron-standard"),
        (("X4 Smart", &[0x1810], &[], &[]), "omron-x4-smart"),
        (("X2 Smart+", &[0x1810], &[], &[0x020E]), "omron-x2-smart-plus"),
        (("BP5150", &[0x1810], &[], &[]), "omron-bp5150"),
        (("A&D_UA-651BLE_1234", &[0x1810], &[], &[]), "and-ua-651ble"),
        // blessed-bluez, issue 26.
        (("UB-1100BLE_88C32F", &[0x1810], &[], &[]), "and-ub-1100ble"),
        (("BM85", &[0x1810], &[], &[0x0611]), "beurer-bm85"),
        (("BM59", &[0x1810], &[], &[0x0611]), "beurer-bm59"),
        (("BM48", &[0x1810], &[], &[]), "beurer-bm48"),
        // OpenMQTTGateway, issue 806: 06 09 "SBM69" 02 01 06 03 02 10 18 04 FF 13 06 01.
        (("SBM69", &[0x1810], &[], &[0x0613]), "silvercrest-sbm69"),
        (("BU575", &[0x1810], &[], &[]), "medisana-bu5xx"),
        // derdilla, issue 80.
        (("boso medicus CE6674 ", &[0x1810], &[], &[]), "boso-medicus"),
        (("Blood Pressure", &[0x1810], &[], &[]), "generic-blood-pressure"),
        (("Nonin3230_502644497", &[], &[], &[]), "nonin-3230"),
        (("MightySatRx", &[0x1822], &[], &[0x0243]), "masimo-mightysat"),
        (("ChoiceMMed", &[0x1822], &[], &[]), "choicemmed-plx"),
        (("Oximeter", &[0x1822], &[], &[]), "generic-pulse-oximeter"),
        (("O2Ring 0123", &[], &[], &[]), "viatom-o2"),
        (("PC-60F_SN023456", &[], &[], &[]), "viatom-pc60"),
        (("SpO208", &[0xFF12], &[], &[]), "contec-cms50d-bt"),
        (("My Oximeter", &[], &[], &[]), "jumper-oximeter"),
        (("YK-BPA1", &[], &[], &[]), "yonker-bp"),
        // SensorsIot, issue 2.
        (("BerryMed", &[], &[], &[]), "berry-bci"),
        (("Thermometer", &[0x1809], &[], &[]), "generic-thermometer"),
        (("PX-1737", &[0x1809], &[0x1809], &[]), "freetec-px1737"),
        (("meter+00512345", &[0x1808], &[], &[]), "accu-chek-guide"),
        (("Contour7801H5213142", &[0x1808], &[], &[]), "contour-next-one"),
        (("CareSens 0123", &[0x1808], &[], &[]), "caresens"),
        (("Glucose", &[0x1808], &[], &[]), "generic-glucose"),
        (("MI_SCALE", &[0x181D], &[0x181D], &[0x0157]), "mi-scale"),
        (("MI SCALE2", &[0x181D], &[0x181D], &[0x0157]), "mi-scale"),
        (("MIBFS", &[0x181B], &[0x181B], &[0x0157]), "mi-body-scale-2"),
        // ble-scale-sync, issue 168: 181D with a byte of service data, company 0611.
        (("BF720", &[0x181D], &[0x181D], &[0x0611]), "beurer-bf720"),
        (("BF788", &[0x181D], &[], &[0x0611]), "beurer-bf788"),
        (("BF105", &[0x181D], &[], &[0x0611]), "beurer-bf105"),
        (("Scale", &[0x181D], &[], &[]), "generic-scale"),
    ];

    fn ranks(seen: &Sighting<'_>) -> Vec<(Rank, String)> {
        let models = Models::built_in();
        let fits = models.iter().filter_map(|profile| Some((profile.ble()?.rank(seen)?, profile.id().to_owned())));
        let mut all: Vec<_> = fits.collect();
        all.sort_by(|one, other| other.cmp(one));
        all
    }

    fn uuids(short: &[u16]) -> Vec<Uuid> {
        short.iter().copied().map(long_form).collect()
    }

    #[test]
    fn each_advertisement_that_was_seen_is_the_model_that_sent_it() {
        for ((name, services, service_data, companies), id) in SEEN {
            let (services, service_data) = (uuids(services), uuids(service_data));
            let (name, companies) = (Some(*name), *companies);
            let seen =
                Sighting { name, services: &services, service_data: &service_data, companies, ..Sighting::default() };
            let found = Models::built_in().find(&seen).map(|profile| profile.id().to_owned());
            assert_eq!(found.as_deref(), Some(*id), "{name:?} {:?}", ranks(&seen));
        }
        let told: std::collections::BTreeSet<&str> = SEEN.iter().map(|(_, id)| *id).collect();
        let without: Vec<&str> = built_in_ids()
            .filter(|id| built_in(id).unwrap().unwrap().ble().is_some() && !told.contains(id))
            // Of this one no advertisement is known but the name in its profile.
            .filter(|id| *id != "beurer-elite900")
            .collect();
        assert_eq!(without, Vec::<&str>::new(), "models without an advertisement in this table");
    }

    #[test]
    fn what_a_connected_device_says_of_itself_is_surer_than_what_it_advertises() {
        let services = uuids(&[0x180D]);
        let seen = Sighting { name: Some("Sports Band"), services: &services, ..Sighting::default() };
        let find = |seen: &Sighting<'_>| Models::built_in().find(seen).map(|profile| profile.id().to_owned()).unwrap();
        assert_eq!(find(&seen), "generic-heart-rate");
        let said = Sighting { manufacturer: Some("Wahoo Fitness"), model: Some("WFBTHR02"), ..seen };
        assert_eq!(find(&said), "wahoo-tickr");
        assert!(Models::built_in().find(&Sighting { name: Some("Earphones"), ..Sighting::default() }).is_none());
    }

    #[test]
    fn no_two_models_fit_the_same_device_equally_well() {
        let models = Models::built_in();
        let mut looked_at = 0;
        for profile in models.iter() {
            for one in &profile.ble().unwrap().matches {
                for filling in ["", "1", " 0123", "_ab"] {
                    // A device that fits this match and has nothing else.
                    let text = |glob: &Option<Glob>| glob.as_ref().map(|glob| glob.example(filling));
                    let (name, manufacturer, model) = (text(&one.name), text(&one.manufacturer), text(&one.model));
                    let seen = Sighting {
                        name: name.as_deref(),
                        services: one.service.as_slice(),
                        service_data: one.service_data.as_slice(),
                        companies: one.company.as_slice(),
                        manufacturer: manufacturer.as_deref(),
                        model: model.as_deref(),
                    };
                    let ranks = ranks(&seen);
                    looked_at += 1;
                    let [(best, _), (next, _), ..] = ranks.as_slice() else { continue };
                    assert!(best > next, "{}: {seen:?}: {ranks:?}", profile.id());
                }
            }
        }
        assert!(looked_at > 200, "{looked_at}");
    }
}
