//! Where at a sensor the radio listens and writes: characteristics of the specification, or those of its maker.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::sensor::{Habit, SensorKind};
use crate::profile::Profile;
use crate::profile::ble::{AdvertField, Presence, Speaks};

/// A 16-bit UUID in its long form (Core 5.4, vol. 3 part B, 2.5.1).
pub(super) const fn bluetooth_uuid(short: u16) -> Uuid {
    #[expect(clippy::as_conversions, reason = "From is not const; widening cannot lose anything")]
    Uuid::from_u128(((short as u128) << 96) | 0x0000_0000_0000_1000_8000_0080_5f9b_34fb)
}

/// What is subscribed to at a sensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subscription {
    /// Characteristics of the Bluetooth SIG, each notification a payload of its own.
    Standard {
        /// Which.
        kind: SensorKind,
        /// Current Time too, with which it says when its clock may be set.
        tells_time: bool,
    },
    /// A maker's own, whose notifications are one stream of bytes.
    Stream(Arc<Wires>),
    /// None: what it advertises says all.
    Heard(Arc<Heard>),
}

/// A sensor that tells everybody what it measures, as its profile says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// The profile's id.
    pub(super) profile: String,
    /// What kind of device it is, by its name.
    pub(super) kind: &'static str,
    /// The field of its advertisements that has the measurement.
    pub(super) field: AdvertField,
}

impl Heard {
    /// That of a profile; `None`: its devices are connected to.
    pub(super) fn of(profile: &Profile) -> Option<Self> {
        match profile.ble()?.speaks {
            Speaks::Advertised(field) => {
                Some(Self { profile: profile.id().to_owned(), kind: profile.kind().name(), field })
            }
            Speaks::Standard(_) | Speaks::Stream(_) => None,
        }
    }

    /// The measurement's field of an advertisement, without its number.
    pub(super) fn find<'a>(
        &self,
        manufacturer_data: &'a BTreeMap<u16, Vec<u8>>,
        service_data: &'a BTreeMap<Uuid, Vec<u8>>,
    ) -> Option<&'a [u8]> {
        match self.field {
            AdvertField::Service(short) => service_data.get(&bluetooth_uuid(short)),
            AdvertField::Manufacturer(company) => manufacturer_data.get(&company),
        }
        .map(Vec::as_slice)
    }
}

/// The two directions of a byte stream over GATT, as its profile names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wires {
    /// The profile's id.
    pub(super) profile: String,
    /// What kind of device it is, by its name.
    pub(super) kind: &'static str,
    /// The service of all of them.
    pub(super) service: Uuid,
    /// The characteristic whose notifications or indications are the stream.
    pub(super) notify: Uuid,
    /// The characteristic that takes the commands.
    pub(super) write: Option<Uuid>,
    /// Whether the sensor sends nothing before it is told to.
    pub(super) is_asked: bool,
    /// How it comes and goes.
    pub(super) habit: Habit,
}

impl Wires {
    /// Those of a profile; `None`: its devices have no byte stream over GATT.
    pub(super) fn of(profile: &Profile) -> Option<Self> {
        let ble = profile.ble()?;
        let (gatt, link) = (ble.stream()?, profile.link());
        Some(Self {
            profile: profile.id().to_owned(),
            kind: profile.kind().name(),
            service: gatt.service,
            notify: gatt.notify,
            write: gatt.write,
            is_asked: !link.init.is_empty() || !link.poll.is_empty(),
            habit: match ble.presence {
                Presence::Episodic => Habit::Episodic { idle: link.silence },
                Presence::Live => Habit::Live { silence: link.silence },
            },
        })
    }
}

impl Subscription {
    /// True if the sensor comes for a measurement and goes again.
    pub(super) fn is_episodic(&self) -> bool {
        match self {
            Self::Standard { kind, .. } => kind.habit().is_episodic(),
            Self::Stream(wires) => wires.habit.is_episodic(),
            Self::Heard(_) => true,
        }
    }

    /// The characteristics that it may send by.
    pub(super) fn characteristics(&self) -> Vec<Uuid> {
        match self {
            Self::Standard { kind, .. } => kind.characteristics().iter().map(|one| bluetooth_uuid(one.uuid)).collect(),
            Self::Stream(wires) => vec![wires.notify],
            Self::Heard(_) => vec![],
        }
    }

    /// What it measures, by name.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Standard { kind, .. } => kind.name(),
            Self::Stream(wires) => wires.kind,
            Self::Heard(heard) => heard.kind,
        }
    }

    /// The profile by which its stream or its advertisements are read.
    pub(super) fn profile(&self) -> Option<&str> {
        match self {
            Self::Standard { .. } => None,
            Self::Stream(wires) => Some(&wires.profile),
            Self::Heard(heard) => Some(&heard.profile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::built_in;

    #[test]
    fn a_cuff_comes_for_a_measurement_and_an_oximeter_sends_all_the_time() {
        for (id, is_episodic, seconds, is_asked) in [
            ("yonker-bp", true, 120, false),
            ("viatom-o2", false, 8, true),
            ("contec-cms50d-bt", false, 5, true),
            ("berry-bci", false, 2, false),
        ] {
            let wires = Wires::of(&built_in(id).unwrap().unwrap()).unwrap();
            assert_eq!((wires.habit.is_episodic(), wires.is_asked), (is_episodic, is_asked), "{id}");
            assert_eq!(wires.habit.patience().as_secs(), seconds, "{id}");
        }
        for id in ["nonin-df2", "beurer-bm85"] {
            assert_eq!(Wires::of(&built_in(id).unwrap().unwrap()), None, "{id}: no stream over GATT");
        }
    }
}
