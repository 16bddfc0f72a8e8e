//! Any payload through the decoders of standard GATT characteristics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitalbridge::decode::{Decoded, gatt};
use vitalbridge::vitals::Quality;

mod plausible;

// Byte 0 chooses the characteristic; the rest is the notification.
fuzz_target!(|data: &[u8]| {
    let [which, payload @ ..] = data else { return };
    let characteristic = gatt::CHARACTERISTICS[usize::from(*which) % gatt::CHARACTERISTICS.len()].uuid;
    if let Ok(report) = gatt::decode(characteristic, payload) {
        assert_eq!(report.raw, payload);
        for decoded in report.decoded {
            match decoded {
                // What no body can have, or the device calls wrong, is kept and marked.
                Decoded::Vital(vital) if matches!(vital.quality, Quality::Implausible | Quality::Invalid) => {}
                Decoded::Vital(vital) => plausible::plausible(&vital.vital),
                _ => {}
            }
        }
    }
});
