//! Any payload through the decoders of standard GATT characteristics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitalbridge::decode::{Decoded, gatt};

mod plausible;

// Byte 0 chooses the characteristic; the rest is the notification.
fuzz_target!(|data: &[u8]| {
    let [which, payload @ ..] = data else { return };
    let characteristic = gatt::KNOWN[usize::from(*which) % gatt::KNOWN.len()];
    if let Ok(decoded) = gatt::decode(characteristic, payload) {
        assert!(!decoded.is_empty());
        for decoded in decoded {
            if let Decoded::Vital(vital) = decoded {
                plausible::plausible(&vital.vital);
            }
        }
    }
});
