//! What a profile knows of a Bluetooth model: how it is recognised, what it speaks, and how it wants to be treated.

use std::fmt;
use std::time::Duration;

use uuid::Uuid;

use crate::named::named_enum;

named_enum! {
    /// What a sensor measures, by the service that the Bluetooth SIG has standardised for it.
    SensorKind {
        /// Heart Rate Service: a strap or band that sends once a second.
        HeartRate = "heart_rate",
        /// Pulse Oximeter Service, continuous.
        PulseOximeter = "pulse_oximeter",
        /// Pulse Oximeter Service, one measurement at a time.
        PulseOximeterSpot = "pulse_oximeter_spot",
        /// Blood Pressure Service: a cuff.
        BloodPressure = "blood_pressure",
        /// Health Thermometer Service.
        Thermometer = "thermometer",
        /// Glucose Service: a meter with a memory.
        Glucose = "glucose",
        /// Weight Scale and Body Composition Service.
        Scale = "scale",
    }
}

impl SensorKind {
    /// The characteristic that carries its measurements, by its number in the Assigned Numbers. Embedded tests that name
    /// no other are payloads of it.
    pub const fn measurement(self) -> u16 {
        match self {
            Self::HeartRate => 0x2A37,
            Self::PulseOximeter => 0x2A5F,
            Self::PulseOximeterSpot => 0x2A5E,
            Self::BloodPressure => 0x2A35,
            Self::Thermometer => 0x2A1C,
            Self::Glucose => 0x2A18,
            Self::Scale => 0x2A9D,
        }
    }
}

named_enum! {
    /// In what a model departs from the specification of a standard characteristic.
    Quirk {
        /// Blood pressure: pulse and status are written most significant byte first.
        PulseAndStatusBigEndian = "pulse_and_status_big_endian",
        /// Blood pressure: a user is there without its flag.
        UserWithoutFlag = "user_without_flag",
        /// Heart rate: the contact bit says nothing.
        ContactUnreliable = "contact_unreliable",
        /// Glucose context: meal 6 says that the record is a ketone.
        KetoneAsMeal = "ketone_as_meal",
    }
}

named_enum! {
    /// How a model is paired with.
    PairMethod {
        /// Nobody is asked.
        JustWorks = "just_works",
        /// The device shows or has printed on it a number of six digits, which is entered here.
        Passkey = "passkey",
        /// Both show a number, and a person says that they are the same.
        NumericComparison = "numeric_comparison",
    }
}

named_enum! {
    /// When the clock of a model may be set. It is only ever set where the configuration asks for it.
    TimeWrite {
        /// Never: it refuses, or takes harm.
        Never = "never",
        /// After each connect.
        OnConnect = "on_connect",
        /// After a connect, if what it reads there is off by more than 10 minutes.
        IfOff10Min = "if_off_10min",
        /// When the sensor itself tells its time for the first time in a connection, if that is off by more than
        /// 10 minutes; at any other time it refuses.
        OnNotifyIfOff10Min = "on_notify_if_off_10min",
    }
}

named_enum! {
    /// How a model hands over what it has stored.
    Stored {
        /// It stores nothing, or keeps it.
        None = "none",
        /// On request at its Record Access Control Point.
        Racp = "racp",
        /// By itself, after each connect.
        OnConnect = "on_connect",
        /// It is asked again and again by the `poll` of `[link]`.
        Poll = "poll",
    }
}

named_enum! {
    /// How a model comes and goes.
    Presence {
        /// It sends all the time while it is worn.
        Live = "live",
        /// It comes into the air for a measurement, hands over what it has, and ends the link.
        Episodic = "episodic",
    }
}

named_enum! {
    /// What it means that a model ends its link.
    EndsLink {
        /// Something went wrong.
        Failure = "failure",
        /// That is its way: nothing is wrong, and no pause grows.
        Normal = "normal",
    }
}

/// A GATT service whose notifications carry the bytes that `[frame]` and `[[message]]` describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gatt {
    /// The service.
    pub service: Uuid,
    /// The characteristic that notifies.
    pub notify: Uuid,
    /// The characteristic that takes what `[link]` sends (`init`, `keep_alive`, `poll`, `stop`).
    pub write: Option<Uuid>,
}

/// The field of an advertisement that carries measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvertField {
    /// Service Data of this 16-bit service (CSS 11, part A, 1.11).
    Service(u16),
    /// Manufacturer Specific Data of this company (CSS 11, part A, 1.4).
    Manufacturer(u16),
}

/// What a model speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speaks {
    /// The characteristics that the Bluetooth SIG has standardised for this kind of sensor.
    Standard(SensorKind),
    /// Its maker's own protocol: a stream of bytes over one service.
    Stream(Gatt),
    /// Advertisements alone: it is never connected to.
    Advertised(AdvertField),
}

/// Text in which `*` stands for any characters, also none. Letters are compared without regard to case: makers change it
/// between firmware versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// A pattern; it needs at least one character beside `*`.
    pub fn new(pattern: &str) -> Option<Self> {
        pattern.chars().any(|c| c != '*').then(|| Self(pattern.to_lowercase()))
    }

    /// Whether all of `text` fits.
    pub fn fits(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
        let mut last = None;
        for part in parts {
            // What stood before the last `*` is looked for as early as possible; the last part has to be the end.
            if let Some(inner) = last.replace(part) {
                let Some((_, after)) = rest.split_once(inner) else { return false };
                rest = after;
            }
        }
        last.map_or(rest.is_empty(), |end| rest.ends_with(end))
    }

    /// How many characters it fixes.
    pub fn fixed(&self) -> usize {
        self.0.chars().filter(|c| *c != '*').count()
    }

    /// A text that fits, with `filling` for each `*`.
    pub fn example(&self, filling: &str) -> String {
        self.0.replace('*', filling)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a device in the air, or of one that is connected.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sighting<'d> {
    /// Its advertised name.
    pub name: Option<&'d str>,
    /// Services, advertised or found.
    pub services: &'d [Uuid],
    /// Services of its service data.
    pub service_data: &'d [Uuid],
    /// Companies of its manufacturer data.
    pub companies: &'d [u16],
    /// Manufacturer Name String of its Device Information (0x2A29), where it was read.
    pub manufacturer: Option<&'d str>,
    /// Model Number String of its Device Information (0x2A24), where it was read.
    pub model: Option<&'d str>,
}

/// One way to recognise a model: everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// The advertised name.
    pub name: Option<Glob>,
    /// A service, advertised or found.
    pub service: Option<Uuid>,
    /// A service of its service data.
    pub service_data: Option<Uuid>,
    /// The company of its manufacturer data.
    pub company: Option<u16>,
    /// Manufacturer in its Device Information.
    pub manufacturer: Option<Glob>,
    /// Model in its Device Information.
    pub model: Option<Glob>,
}

/// How surely a match names a model: first by what kind of thing fitted, then by how many characters were fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    weight: u32,
    fixed: usize,
}

impl Match {
    /// How surely the device is this model; `None`: it is another one, or not enough is known.
    pub fn rank(&self, seen: &Sighting<'_>) -> Option<Rank> {
        /// A name that a user can set says less than what is burnt into the device, and a company or a service is
        /// shared by many models.
        const MODEL: u32 = 32;
        const NAME: u32 = 16;
        const MANUFACTURER: u32 = 8;
        const COMPANY: u32 = 4;
        const SERVICE_DATA: u32 = 2;
        const SERVICE: u32 = 1;
        let text = |glob: &Option<Glob>, found: Option<&str>| match glob {
            None => Some(None),
            Some(glob) => found.filter(|text| glob.fits(text)).map(|_| Some(glob.fixed())),
        };
        let texts = [
            (text(&self.model, seen.model)?, MODEL),
            (text(&self.name, seen.name)?, NAME),
            (text(&self.manufacturer, seen.manufacturer)?, MANUFACTURER),
        ];
        let numbers = [
            (self.company.map(|company| seen.companies.contains(&company)), COMPANY),
            (self.service_data.map(|service| seen.service_data.contains(&service)), SERVICE_DATA),
            (self.service.map(|service| seen.services.contains(&service)), SERVICE),
        ];
        let mut rank = Rank { weight: 0, fixed: 0 };
        for (fixed, weight) in texts {
            if let Some(fixed) = fixed {
                rank = Rank { weight: rank.weight + weight, fixed: rank.fixed + fixed };
            }
        }
        for (holds, weight) in numbers {
            match holds {
                Some(true) => rank.weight += weight,
                Some(false) => return None,
                None => {}
            }
        }
        (rank.weight > 0).then_some(rank)
    }
}

/// Users of one device, each with an own memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserSlots {
    /// How many it keeps; 0: one, without a number.
    pub count: u8,
    /// True: live values come only after a user has consented (User Data Service, 0x2A9F).
    pub needs_consent: bool,
}

/// `[ble]`: a Bluetooth model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ble {
    /// How it is recognised: any of these. Never empty.
    pub matches: Vec<Match>,
    /// What it speaks.
    pub speaks: Speaks,
    /// In what it departs from the standard.
    pub quirks: Vec<Quirk>,
    /// How it comes and goes.
    pub presence: Presence,
    /// Silence after which an open link counts as dead (live) or is looked at (episodic); `None`: as the kind has it.
    pub silence: Option<Duration>,
    /// True: it sends nothing, or ends the link, unless it is bonded.
    pub needs_bond: bool,
    /// How it is paired with.
    pub pair_method: Option<PairMethod>,
    /// Pause between a connected link and the first subscription.
    pub settle: Duration,
    /// Its users.
    pub users: UserSlots,
    /// When its clock may be set.
    pub time_write: TimeWrite,
    /// How it hands over what it has stored.
    pub stored: Stored,
    /// True: what it hands over it no longer has.
    pub deletes_on_transfer: bool,
    /// What it means that it ends its link.
    pub ends_link: EndsLink,
    /// True: a body composition that is too long for one indication comes in two (BCS 1.0.1, 3.2.1.1), which are joined.
    pub multi_packet: bool,
    /// What whoever sets it up has to know or do, in words.
    pub hints: Vec<String>,
}

impl Ble {
    /// The service and characteristics of the maker's own protocol.
    pub const fn stream(&self) -> Option<&Gatt> {
        match &self.speaks {
            Speaks::Stream(gatt) => Some(gatt),
            _ => None,
        }
    }

    /// The standard sensor that it is.
    pub const fn sensor(&self) -> Option<SensorKind> {
        match self.speaks {
            Speaks::Standard(sensor) => Some(sensor),
            _ => None,
        }
    }

    /// How surely a device is this model.
    pub fn rank(&self, seen: &Sighting<'_>) -> Option<Rank> {
        self.matches.iter().filter_map(|one| one.rank(seen)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_case_does_not_count() {
        for (pattern, text, fits) in [
            ("Polar H10*", "Polar H10 1234", true),
            ("Polar H10*", "POLAR H10", true),
            ("Polar H10*", "Polar H1", false),
            ("*X4*", "BLESmart_0000_X4_ab", true),
            ("*X4*", "X4", true),
            ("BM85", "BM85", true),
            ("BM85", "BM85 ", false),
            ("A*B*B", "ABB", true),
            ("A*B*B", "AB", false),
            ("A*B", "AxB", true),
            ("A*A", "A", false),
            ("*-*-*", "a-b", false),
            ("Größe*", "GRÖSSE", false),
            ("Größe*", "größe 1", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().fits(text), fits, "{pattern} {text}");
        }
        assert_eq!((Glob::new(""), Glob::new("**")), (None, None));
    }

    #[test]
    fn everything_that_a_match_names_must_be_there_and_more_of_it_ranks_higher() {
        let name = Match { name: Glob::new("Polar*"), ..Match::default() };
        let longer = Match { name: Glob::new("Polar H10*"), ..Match::default() };
        let both = Match { name: Glob::new("Polar*"), company: Some(0x6B), ..Match::default() };
        let model = Match { model: Glob::new("H10"), ..Match::default() };
        let seen = Sighting { name: Some("Polar H10 1"), companies: &[0x6B], ..Sighting::default() };
        assert!(both.rank(&seen) > longer.rank(&seen));
        assert!(longer.rank(&seen) > name.rank(&seen) && name.rank(&seen).is_some());
        assert_eq!(both.rank(&Sighting { companies: &[], ..seen }), None);
        assert_eq!(model.rank(&seen), None);
        assert!(model.rank(&Sighting { model: Some("H10"), ..seen }) > both.rank(&seen));
        assert_eq!(Match::default().rank(&seen), None);
    }
}
