//! Playing bytes to a decoder, and what must hold whatever the bytes are.

use std::sync::Arc;

use vitalbridge::decode::{Decoded, Decoder, FrameCounters};
use vitalbridge::profile::Profile;
use vitalbridge::profile::model::Rule;
use vitalbridge::vitals::Quality;

use crate::plausible::plausible;

/// What a decoder said and counted.
pub type Played = (Vec<Decoded>, FrameCounters);

/// Plays pieces to a new decoder, to the end.
pub fn play<'b>(profile: &Arc<Profile>, pieces: impl Iterator<Item = &'b [u8]>) -> Played {
    let mut decoder = Decoder::new(Arc::clone(profile));
    let mut out = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut out);
    }
    decoder.finish(&mut out);
    (out, decoder.counters())
}

/// The bytes in one piece and in pieces of `size` say the same, and every number is one that its metric can have, or marked.
pub fn holds(profile: &Arc<Profile>, bytes: &[u8], size: usize) -> Played {
    let whole = play(profile, std::iter::once(bytes));
    // A notification is one frame, whatever it is cut into.
    let is_notification =
        matches!(profile.framing().rule, Rule::Payload { .. }) || profile.is_standard();
    if !is_notification {
        let pieces = play(profile, bytes.chunks(size.max(1)));
        assert_eq!(whole, pieces, "{} in pieces of {size}", profile.id());
    }
    for decoded in &whole.0 {
        match decoded {
            Decoded::Vital(vital) if matches!(vital.quality, Quality::Implausible | Quality::Invalid) => {}
            Decoded::Vital(vital) => plausible(&vital.vital),
            _ => {}
        }
    }
    whole
}
