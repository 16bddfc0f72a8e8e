//! What a profile says about the line and its sources.

use vitalbridge::profile::built_in_ids;

use super::profile;

#[test]
fn every_profile_can_be_told_its_link() {
    for id in built_in_ids() {
        let profile = profile(id);
        assert!(profile.serial().is_some_and(|serial| !serial.settings.is_empty()) || profile.ble().is_some(), "{id}");
        assert!(!profile.sources().is_empty(), "{id} cites no source");
        assert!(profile.warnings().is_empty(), "{id}: {}", profile.warnings());
    }
}
