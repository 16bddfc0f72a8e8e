//! Any content of a frame through the interpreter: the built-in profiles without their checksums.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use vitalbridge::profile::{Profile, built_in_ids, built_in_text};

mod plausible;
mod played;

/// The profile without the checksum of its frames, so that every change of a byte reaches what stands behind the framer.
fn unchecked(text: &str) -> Arc<Profile> {
    let is_packet = text.contains("kind = \"packet\"");
    let mut in_frame = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            in_frame = line == "[frame]";
        }
        match line {
            _ if in_frame && line.starts_with("lock") => {}
            _ if in_frame && line.starts_with("checksum") => {}
            _ => lines.push(line),
        }
        if line == "[frame]" && is_packet {
            lines.push("lock = 2");
        }
    }
    Arc::new(Profile::parse(&lines.join("\n")).unwrap())
}

static PROFILES: LazyLock<Vec<Arc<Profile>>> =
    LazyLock::new(|| built_in_ids().map(|id| unchecked(built_in_text(id).unwrap())).collect());

// Byte 0 chooses the profile, 1 one of its tests; the others are changes of single bytes (place, place, value) in the
// test's bytes, which are played three times.
fuzz_target!(|data: &[u8]| {
    let [which, test, changes @ ..] = data else { return };
    let profile = &PROFILES[usize::from(*which) % PROFILES.len()];
    let Some(test) = profile.tests().get(usize::from(*test) % profile.tests().len().max(1)) else { return };
    let mut bytes = test.bytes.repeat(3);
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
        bytes[place] = change[2];
    }
    played::holds(profile, &bytes, 7);
});
