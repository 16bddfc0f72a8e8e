//! Finding frames again: noise, lost bytes, any bytes.

use std::sync::Arc;

use proptest::prelude::*;
use vitalbridge::decode::Decoder;
use vitalbridge::profile::built_in_ids;
use vitalbridge::profile::model::Rule;

use super::{play, profile};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_are_decoded_without_a_panic_and_each_is_counted(
        bytes in proptest::collection::vec(any::<u8>(), 0..1500),
        pieces in 1_usize..200,
    ) {
        // Where each notification is a frame, pieces are not the same as the whole.
        for id in built_in_ids().filter(|id| !matches!(profile(id).framing().rule, Rule::Payload { .. })) {
            let whole = play(id, &bytes);
            let mut decoder = Decoder::new(profile(id));
            let mut decoded = Vec::new();
            for piece in bytes.chunks(pieces) {
                decoder.push(piece, &mut decoded);
            }
            decoder.finish(&mut decoded);
            prop_assert_eq!(&decoded, &whole.decoded, "{} in pieces of {}", id, pieces);
            prop_assert_eq!(decoder.counters(), whole.counters, "{} in pieces of {}", id, pieces);
            let skipped = usize::try_from(whole.counters.skipped_bytes).unwrap();
            prop_assert!(skipped <= bytes.len(), "{} counts {} of {} bytes", id, skipped, bytes.len());
            // A driver's marks and control bytes stand alone and mean something without a frame.
            if whole.counters.frames == 0 && !profile(id).is_text() && profile(id).driver().is_none() {
                prop_assert_eq!(skipped, bytes.len(), "{}", id);
            }
        }
    }

    /// Random bytes rarely look like a frame; damaged frames do.
    #[test]
    fn damaged_frames_are_decoded_without_a_panic(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
    ) {
        for id in built_in_ids() {
            for test in profile(id).tests() {
                let mut bytes = test.bytes.repeat(3);
                for (place, value) in &places {
                    let at = place.index(bytes.len());
                    bytes[at] = *value;
                }
                let mut decoder = Decoder::new(Arc::clone(&profile(id)));
                let mut decoded = Vec::new();
                decoder.push(&bytes, &mut decoded);
                decoder.finish(&mut decoded);
            }
        }
    }
}
