//! Any bytes, among them whole and damaged frames, through the framer of every built-in profile.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use vitalbridge::profile::model::Rule;
use vitalbridge::profile::{Profile, built_in, built_in_ids};

mod plausible;
mod played;

static PROFILES: LazyLock<Vec<Arc<Profile>>> =
    LazyLock::new(|| built_in_ids().map(|id| built_in(id).unwrap().unwrap()).collect());

// Byte 0 chooses the profile, 1 the size of the pieces, 2 one of the profile's tests or none; the rest is the stream,
// with the test's bytes put in at the place that byte 3 says.
fuzz_target!(|data: &[u8]| {
    let [which, size, test, place, rest @ ..] = data else { return };
    let profile = &PROFILES[usize::from(*which) % PROFILES.len()];
    let mut bytes = rest.to_vec();
    if let Some(test) = profile.tests().get(usize::from(*test)) {
        let place = usize::from(*place).min(bytes.len());
        bytes.splice(place..place, test.bytes.iter().copied());
    }
    let (_, counters) = played::holds(profile, &bytes, usize::from(*size));
    let skipped = usize::try_from(counters.skipped_bytes).unwrap();
    assert!(skipped <= bytes.len() || matches!(profile.framing().rule, Rule::Payload { .. }));
    // A driver counts no marks between its messages.
    if counters.frames == 0 && !profile.is_text() && profile.driver().is_none() {
        assert_eq!(skipped, bytes.len(), "{}", profile.id());
    }
});
