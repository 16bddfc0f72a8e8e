//! Facts about the machine: how full a disk is, whether the clock has been set, under which names and addresses it is known.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::clock::Wall;

/// A disk is called full when more than this is used, in percent.
const FULL_ABOVE: u128 = 90;

/// And no longer full once at most this is used, so that a disk at the limit does not come and go.
const ROOM_AGAIN_AT: u128 = 88;

/// The space of a file system as `df` counts it: what is reserved for root is neither used nor available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that hold something.
    pub used_bytes: u64,
    /// Bytes that this process can still write.
    pub available_bytes: u64,
}

impl DiskSpace {
    /// How much is used, in whole percent, rounded up as `df` does; 100 on a file system without any space.
    pub fn used_percent(self) -> u8 {
        let (used, all) = (u128::from(self.used_bytes), u128::from(self.used_bytes) + u128::from(self.available_bytes));
        let percent = (used * 100).div_ceil(all.max(1));
        if all == 0 { 100 } else { u8::try_from(percent).unwrap_or(100) }
    }
}

/// The space of the file system of `path`. Blocks, for as long as a dead disk does.
///
/// # Errors
/// Those of the file system.
pub fn disk_space(path: &Path) -> io::Result<DiskSpace> {
    let space = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    let used_bytes = bytes(space.f_blocks.saturating_sub(space.f_bfree));
    Ok(DiskSpace { used_bytes, available_bytes: bytes(space.f_bavail) })
}

/// Whether the file system of `path` counts as full; `was_full` is the last answer.
///
/// # Errors
/// Those of the file system.
pub fn is_disk_full(path: &Path, was_full: bool) -> io::Result<bool> {
    let DiskSpace { used_bytes, available_bytes } = disk_space(path)?;
    Ok(is_full(used_bytes, available_bytes, was_full))
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

/// A clock with a battery and the system's clock may differ by this, in seconds: one of them counts whole ones.
const HARDWARE_CLOCK_SECONDS: i64 = 2;

/// Whether the system's clock was set at boot from one with a battery that still says the same. `clocks` is where the kernel
/// lists them. One that has lost its battery starts in the past, and the system's clock leaves it behind.
pub fn has_hardware_clock(clocks: &Path, now: Wall) -> bool {
    let Ok(entries) = std::fs::read_dir(clocks) else { return false };
    let read = |folder: &Path, name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    entries.flatten().any(|entry| {
        let folder = entry.path();
        // Documentation/ABI/testing/sysfs-class-rtc: hctosys is 1 for the one that set the system's clock.
        let has_set = read(&folder, "hctosys").trim() == "1";
        let seconds: Option<i64> = read(&folder, "since_epoch").trim().parse().ok();
        has_set && seconds.is_some_and(|it| now.as_secs().saturating_sub(it).saturating_abs() <= HARDWARE_CLOCK_SECONDS)
    })
}

/// Raises the number of files and sockets that this process may have open to at least `wanted`, as far as its hard limit
/// goes, and gives the number that it may have.
///
/// # Errors
/// The system does not raise it.
pub fn allow_descriptors(wanted: u64) -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    // None is without limit.
    let (soft, hard) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
    if soft >= wanted {
        return Ok(soft);
    }
    let raised = wanted.min(hard);
    setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: before.maximum })?;
    Ok(raised)
}

/// The machine's name, unless it has none.
pub fn name() -> Option<String> {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().filter(|name| !name.is_empty() && *name != "(none)").map(str::to_owned)
}

/// The addresses of the machine at this moment, as the kernel lists them for this process; none where it does not.
pub fn addresses() -> Vec<IpAddr> {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let mut all: Vec<IpAddr> = local_v4(&read("/proc/self/net/fib_trie")).into_iter().map(IpAddr::V4).collect();
    all.extend(local_v6(&read("/proc/self/net/if_inet6")).into_iter().map(IpAddr::V6));
    all.sort();
    all.dedup();
    all
}

/// Where this machine reaches a server that listens there: an address that means every interface is none to connect to.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The leaves of the routing table that are hosts of this machine: an address, and below it `/32 host LOCAL`.
fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut leaf: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(leaf);
        }
    }
    found
}

/// The first word of each line: 32 hexadecimal digits.
fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok().map(Ipv6Addr::from_bits);
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_with_a_battery_counts_only_if_it_set_the_system_and_still_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let now = Wall(1_795_219_200_000);
        assert!(!has_hardware_clock(&dir.path().join("rtc"), now));
        for (name, hctosys, since_epoch, expected) in [
            ("rtc0", "0\n", "1795219200\n", false),
            ("rtc1", "1\n", "86\n", false),
            ("rtc2", "1\n", "rubbish", false),
            ("rtc3", "1\n", "1795219199\n", true),
        ] {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("hctosys"), hctosys).unwrap();
            std::fs::write(folder.join("since_epoch"), since_epoch).unwrap();
            assert_eq!(has_hardware_clock(dir.path(), now), expected, "{name}");
        }
    }

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        for (used, available, expected) in
            [(0, 10, 0), (1, 999, 1), (1, 1, 50), (501, 499, 51), (10, 0, 100), (0, 0, 100), (u64::MAX, u64::MAX, 50)]
        {
            let space = DiskSpace { used_bytes: used, available_bytes: available };
            assert_eq!(space.used_percent(), expected, "{space:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(disk_space(dir.path()).unwrap().used_bytes > 0);
        assert!(disk_space(&dir.path().join("nothing")).is_err());
    }

    #[test]
    fn descriptors_are_allowed_up_to_the_hard_limit() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let before = getrlimit(Resource::Nofile);
        let hard = before.maximum.unwrap_or(1 << 20).min(1 << 20);
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard - 10), maximum: Some(hard) }).unwrap();
        assert_eq!(allow_descriptors(100).unwrap(), hard - 10, "more than wanted is left alone");
        assert_eq!(allow_descriptors(hard - 5).unwrap(), hard - 5);
        assert_eq!(getrlimit(Resource::Nofile).current, Some(hard - 5));
        assert_eq!(allow_descriptors(hard + 5).unwrap(), hard);
    }

    #[test]
    fn the_addresses_are_those_of_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 192.0.2.0/24 2 0 2\n\
                    |-- 192.0.2.0\n /24 link UNICAST\n |-- 192.0.2.7\n /32 host LOCAL\n |-- 192.0.2.255\n /32 link BROADCAST\n";
        assert_eq!(local_v4(trie), [Ipv4Addr::new(192, 0, 2, 7)]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfe80000000000000021c42fffe000001 02 40 20 80 eth0\n";
        assert_eq!(
            local_v6(table).iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["::1", "fe80::21c:42ff:fe00:1"]
        );
        assert_eq!((local_v4("rubbish"), local_v6("rubbish x")), (Vec::new(), Vec::new()));
        // Where the kernel shows its tables at all, this machine can reach itself.
        if Path::new("/proc/self/net/fib_trie").exists() {
            assert!(addresses().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{:?}", addresses());
        }
    }

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
