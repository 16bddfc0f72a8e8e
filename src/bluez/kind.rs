//! What a device is, by what it advertises: services first, then the names that models are known by.

use serde::Serialize;
use uuid::Uuid;

use super::object::Device;

/// What can be said about a device in the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// What it measures, in words.
    pub what: &'static str,
    /// A short word for identifiers.
    pub word: &'static str,
    /// Whether such devices usually send only after they were paired.
    pub pairs: bool,
}

/// A 16-bit UUID in its long form (Core 5.4, vol. 3 part B, 2.5.1).
const fn short(number: u16) -> Uuid {
    #[expect(clippy::as_conversions, reason = "From is not const; widening cannot lose anything")]
    Uuid::from_u128(((number as u128) << 96) | 0x0000_0000_0000_1000_8000_0080_5f9b_34fb)
}

const fn kind(what: &'static str, word: &'static str, pairs: bool) -> Kind {
    Kind { what, word, pairs }
}

/// Services of the Bluetooth SIG (Assigned Numbers, 3.4.2) and of makers whose devices have none of those. Those of vital
/// signs stand before scales, of which some offer both.
const SERVICES: &[(Uuid, Kind)] = &[
    (short(0x180D), kind("heart rate", "heart", false)),
    (short(0x1810), kind("blood pressure", "cuff", true)),
    (short(0x1822), kind("pulse oximeter", "oximeter", false)),
    (short(0x1809), kind("thermometer", "thermometer", false)),
    (short(0x1808), kind("glucose meter", "glucose", true)),
    (short(0x181F), kind("continuous glucose monitor", "cgm", true)),
    (short(0x181B), kind("body composition scale", "scale", false)),
    (short(0x181D), kind("weight scale", "scale", false)),
    (Uuid::from_u128(0x46a970e0_0d5f_11e2_8b5e_0002a5d5c51b), kind("pulse oximeter (Nonin)", "oximeter", true)),
    (Uuid::from_u128(0x14839ac4_7d7e_415c_9a42_167340cf2339), kind("pulse oximeter (Viatom)", "oximeter", false)),
    (Uuid::from_u128(0x49535343_fe7d_4ae5_8fa9_9fafd205e455), kind("pulse oximeter (Berry BCI)", "oximeter", false)),
    (Uuid::from_u128(0xcdeacb80_5235_4c07_8846_93a37ee6b86d), kind("pulse oximeter (Jumper)", "oximeter", false)),
    (Uuid::from_u128(0xecbe3980_c9a2_11e1_b1bd_0002a5d5c51b), kind("blood pressure (Omron's own)", "cuff", true)),
    (short(0xFE4A), kind("blood pressure (Omron's own)", "cuff", true)),
];

/// How models call themselves that do not advertise their service; beginnings, in lower case.
const NAMES: &[(&str, Kind)] = &[
    ("polar ", kind("heart rate", "heart", false)),
    ("tickr", kind("heart rate", "heart", false)),
    ("hrm-", kind("heart rate", "heart", false)),
    ("a&d_ua-651ble", kind("blood pressure", "cuff", true)),
    ("blesmart_", kind("blood pressure (Omron)", "cuff", true)),
    ("nonin3230", kind("pulse oximeter (Nonin)", "oximeter", true)),
    ("o2ring", kind("pulse oximeter (Viatom)", "oximeter", false)),
    ("checkme", kind("pulse oximeter (Viatom)", "oximeter", false)),
    ("pc-60", kind("pulse oximeter (PC-60)", "oximeter", false)),
    ("mightysat", kind("pulse oximeter (Masimo)", "oximeter", false)),
    ("mibcs", kind("body composition scale (Mi)", "scale", false)),
    ("mi scale", kind("weight scale (Mi)", "scale", false)),
];

/// What a device is; `None` if nothing says so.
pub fn kind_of(device: &Device) -> Option<Kind> {
    let offers = |service: &Uuid| device.services.contains(service) || device.service_data.contains_key(service);
    let by_service = SERVICES.iter().find(|(service, _)| offers(service));
    let name = device.name.as_deref().unwrap_or_default().to_lowercase();
    let by_name = || NAMES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, kind)| *kind);
    by_service.map(|(_, kind)| *kind).or_else(by_name)
}
