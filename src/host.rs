//! Facts about the machine that people must hear of: how full a disk is, whether the clock has been set.

use std::io;
use std::path::Path;

/// A disk is called full when more than this is used, in percent.
const FULL_ABOVE: u128 = 90;

/// And no longer full once at most this is used, so that a disk at the limit does not come and go.
const ROOM_AGAIN_AT: u128 = 88;

/// Whether the file system of `path` counts as full; `was_full` is the last answer.
///
/// # Errors
/// Those of the file system.
pub fn is_disk_full(path: &Path, was_full: bool) -> io::Result<bool> {
    let space = rustix::fs::statvfs(path)?;
    Ok(is_full(space.f_blocks.saturating_sub(space.f_bfree), space.f_bavail, was_full))
}

/// As `df` counts: what is reserved for root is neither used nor available.
fn is_full(used: u64, available: u64, was_full: bool) -> bool {
    let (used, all) = (u128::from(used), u128::from(used) + u128::from(available));
    used * 100 > all * if was_full { ROOM_AGAIN_AT } else { FULL_ABOVE }
}

/// Whether the clock has not been set since boot, by the directory of systemd-timesyncd. `None` where nobody can tell:
/// without that directory another program sets the clock, or none.
pub fn is_clock_unsynchronised(timesync: &Path) -> Option<bool> {
    let is_there = timesync.is_dir();
    // systemd-timesyncd(8): the file is touched at each synchronisation, and /run is empty at boot.
    is_there.then(|| timesync.join("synchronized").try_exists().ok().map(|synchronised| !synchronised)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_above_nine_tenths_and_has_room_again_a_little_below() {
        for (used, available, was_full, expected) in [
            (90, 10, false, false),
            (901, 99, false, true),
            (89, 11, true, true),
            (88, 12, true, false),
            (0, 0, false, false),
            (u64::MAX, 0, false, true),
            (u64::MAX, u64::MAX, false, false),
        ] {
            assert_eq!(is_full(used, available, was_full), expected, "{used} used, {available} available, {was_full}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(is_disk_full(dir.path(), false).is_ok());
        assert!(is_disk_full(&dir.path().join("nothing"), false).is_err());
    }

    #[test]
    fn a_clock_is_unsynchronised_only_where_systemd_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let timesync = dir.path().join("timesync");
        assert_eq!(is_clock_unsynchronised(&timesync), None);
        std::fs::create_dir(&timesync).unwrap();
        assert_eq!(is_clock_unsynchronised(&timesync), Some(true));
        std::fs::write(timesync.join("synchronized"), "").unwrap();
        assert_eq!(is_clock_unsynchronised(&timesync), Some(false));
    }
}
