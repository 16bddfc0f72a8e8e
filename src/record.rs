//! Records: single measurements as their sensor sent them, byte by byte, and how one is recognised that comes again.
//!
//! Cuffs, meters and scales keep what they have measured and hand it over when they meet a host; some hand over all of it
//! each time. A record is kept beside its readings, so that a decoder that was wrong can be put right afterwards.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, PatientId, Seq, SourceId};
use crate::vitals::Mode;

/// Records of one device that are recognised when they come again; beyond it the oldest are forgotten. No known sensor
/// keeps more than 2,000.
pub const MAX_KNOWN_RECORDS: usize = 4096;

/// Glucose Measurement, whose records are numbered.
const GLUCOSE_MEASUREMENT: u16 = 0x2A18;

/// What is found in a record that cannot be read.
pub const MALFORMED: &str = "malformed";

/// What names a record of one device for ever, as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordKey(pub String);

impl RecordKey {
    /// The key of a payload of this characteristic, see [`RecordEvent::key`].
    pub fn of(
        characteristic: u16,
        number: Option<u16>,
        user: Option<u8>,
        device_time: Option<&str>,
        raw: &str,
    ) -> Option<Self> {
        if characteristic == GLUCOSE_MEASUREMENT && number.is_some() {
            // Two digits a byte: the flags, then the number in 2 bytes and the time in 7.
            return Some(Self(format!("{characteristic:04X}:{}", raw.get(2..20)?)));
        }
        // The time and the user may have come in another part of the measurement, and are not in the bytes then.
        let user = user.map_or_else(String::new, |user| format!("#{user}"));
        device_time.map(|time| Self(format!("{characteristic:04X}:{raw}@{time}{user}")))
    }

    /// The key of a payload that cannot be read, if it has the number of a stored record in it: the meter keeps it, and
    /// sends it at each visit.
    pub fn of_malformed(characteristic: u16, raw: &str) -> Option<Self> {
        // The flags and the number, two digits a byte.
        let is_numbered = characteristic == GLUCOSE_MEASUREMENT && raw.len() >= 6;
        is_numbered.then(|| Self(format!("{characteristic:04X}:{MALFORMED}:{raw}")))
    }
}

/// One measurement as its sensor sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEvent {
    /// Through which source.
    pub source: SourceId,
    /// By which device.
    pub device: DeviceId,
    /// Whose. `None`: nobody's.
    pub patient: Option<PatientId>,
    /// The 16-bit number of the GATT characteristic that brought it.
    pub characteristic: u16,
    /// Its number in the device's memory, where the device numbers its records.
    pub number: Option<u16>,
    /// The number under which the device keeps the person; `None`: it names nobody.
    pub user: Option<u8>,
    /// What the device's clock said, as it said it.
    pub device_time: Option<String>,
    /// The payload, in hexadecimal digits.
    pub raw: String,
    /// The payload of what belongs to it (Glucose Measurement Context), in hexadecimal digits.
    pub context: Option<String>,
    /// What it says beside its readings: `measurement_failed` with what the device blames, `control_solution`, `ketone`,
    /// `context_missing`, `user_unknown`, `clock_verified`, `late`, `malformed`.
    pub found: Vec<String>,
    /// The numbers of the first and the last of its readings; `None`: it has none.
    pub readings: Option<(Seq, Seq)>,
    /// Real, demo or test.
    pub mode: Mode,
}

impl RecordEvent {
    /// What names it; `None`: nothing tells it from the next measurement with the same result.
    ///
    /// A record with a number is named by that and by the clock's base time (GLS 1.0.1, 3.1.1.2 and 3.1.1.3): the offset
    /// from there to the time that is shown may change. Any other one is named by its bytes with its time and user, if it
    /// has a time.
    pub fn key(&self) -> Option<RecordKey> {
        if self.found.iter().any(|found| found == MALFORMED) {
            return RecordKey::of_malformed(self.characteristic, &self.raw);
        }
        RecordKey::of(self.characteristic, self.number, self.user, self.device_time.as_deref(), &self.raw)
    }
}

/// What earlier runs have taken of one device and put on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownRecords {
    /// The records, oldest first, at most [`MAX_KNOWN_RECORDS`].
    pub keys: Vec<RecordKey>,
    /// Everything up to this number of the device's memory has been taken.
    pub through: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(characteristic: u16, number: Option<u16>, device_time: Option<&str>, raw: &str) -> RecordEvent {
        RecordEvent {
            source: "cuff".parse().unwrap(),
            device: "cuff".parse().unwrap(),
            patient: None,
            characteristic,
            number,
            user: None,
            device_time: device_time.map(str::to_owned),
            raw: raw.to_owned(),
            context: None,
            found: vec![],
            readings: None,
            mode: Mode::Test,
        }
    }

    #[test]
    fn a_numbered_record_is_named_by_its_number_and_base_time_whatever_the_offset_says() {
        let raw = |offset: &str| format!("030500e4070114170000{offset}7000b0f8");
        let winter = record(0x2A18, Some(5), Some("2020-01-20T23:00:00"), &raw("0000"));
        let summer = record(0x2A18, Some(5), Some("2020-01-21T00:00:00"), &raw("3c00"));
        assert_eq!(winter.key(), summer.key());
        assert_eq!(winter.key().unwrap().0, "2A18:0500e4070114170000");
        let reset = record(0x2A18, Some(5), None, "030500e807011417000000007000b0f8");
        assert_ne!(winter.key(), reset.key(), "a meter that counts anew has other times");
    }

    #[test]
    fn a_record_without_number_and_time_is_never_taken_for_another() {
        assert_eq!(record(0x2A9D, None, None, "00e039").key(), None);
        let timed = record(0x2A9D, None, Some("2026-11-20T08:00:00"), "02e039ea070b14080000");
        assert_eq!(timed.key().unwrap().0, "2A9D:02e039ea070b14080000@2026-11-20T08:00:00");
        assert_eq!(record(0x2A18, Some(1), None, "0001").key(), None, "cut");
    }

    #[test]
    fn a_record_whose_time_and_user_came_in_another_part_is_named_by_them_too() {
        let monday = record(0x2A9C, None, Some("2026-11-16T08:00:00"), "9803c200");
        let tuesday = record(0x2A9C, None, Some("2026-11-17T08:00:00"), "9803c200");
        let other = RecordEvent { user: Some(2), ..monday.clone() };
        assert_ne!(monday.key(), tuesday.key());
        assert_ne!(monday.key(), other.key());
        assert_eq!(monday.key(), monday.clone().key());
    }

    #[test]
    fn a_numbered_record_that_cannot_be_read_is_known_when_it_comes_again() {
        let malformed = |characteristic, raw| {
            RecordEvent { found: vec![MALFORMED.to_owned()], ..record(characteristic, None, None, raw) }.key()
        };
        assert_eq!(malformed(0x2A18, "020400"), Some(RecordKey("2A18:malformed:020400".to_owned())));
        assert_eq!((malformed(0x2A18, "0204"), malformed(0x2A35, "027800")), (None, None));
    }
}
