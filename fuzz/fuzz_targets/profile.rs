//! Any text as a profile; where it is one, any bytes through it.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vitalbridge::profile::Profile;

mod plausible;
mod played;

// The text ends with the first byte 0; the stream follows.
fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let Ok(text) = std::str::from_utf8(&data[..end]) else { return };
    match Profile::parse(text) {
        Ok(profile) => {
            let profile = Arc::new(profile);
            played::holds(&profile, data.get(end + 1..).unwrap_or(&[]), 3);
            // Its own tests are frames, or nearly.
            for test in profile.tests().iter().filter(|test| test.bytes.len() < 2048) {
                played::holds(&profile, &test.bytes, 5);
            }
        }
        Err(problems) => {
            let lines = text.lines().count().max(1);
            assert!(!problems.is_empty());
            assert!(problems.as_slice().iter().all(|problem| problem.line <= lines + 1));
        }
    }
});
