//! Which processes run, and which of them has a file or a TCP port open, as far as this user can see.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Processes that are looked at, at most: more than a small machine has.
const MAX_PROCESSES: usize = 4096;

/// Open files of a process that are looked at, at most.
const MAX_FILES: usize = 4096;

/// A process as it is told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// The kernel's name of it, 15 characters at most.
    pub(super) name: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// All of them, as `proc` (`/proc`) tells.
fn all(proc: &Path) -> impl Iterator<Item = Process> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
            Some(Process { pid, name })
        })
        .take(MAX_PROCESSES)
}

/// The process of this name.
pub(super) fn named(proc: &Path, name: &str) -> Option<Process> {
    all(proc).find(|process| process.name == name)
}

/// A process other than these that has the file open.
pub(super) fn who_has(proc: &Path, file: &Path, but: &[u32]) -> Option<Process> {
    who(proc, but, |target| target == file)
}

fn who(proc: &Path, but: &[u32], is_it: impl Fn(&Path) -> bool) -> Option<Process> {
    all(proc).filter(|process| !but.contains(&process.pid)).find(|process| {
        let files = fs::read_dir(proc.join(process.pid.to_string()).join("fd")).into_iter().flatten().flatten();
        files.take(MAX_FILES).any(|file| fs::read_link(file.path()).is_ok_and(|target| is_it(&target)))
    })
}

/// The process that listens on a TCP port of any address.
pub(super) fn who_listens(proc: &Path, port: u16) -> Option<Process> {
    let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(proc.join(table)).unwrap_or_default());
    let inodes: Vec<String> = tables.iter().flat_map(|table| listeners(table, port)).collect();
    who(proc, &[], |target| {
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
    })
}

/// The inodes of sockets in state LISTEN (0A) on a port, from /proc/net/tcp.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&"0A");
        is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(of).collect()
}

/// The numbers of a device file, if it is one of a character device.
pub(super) fn device_numbers(metadata: &fs::Metadata) -> Option<(u32, u32)> {
    use std::os::unix::fs::FileTypeExt as _;
    let device = metadata.rdev();
    metadata.file_type().is_char_device().then(|| (rustix::fs::major(device), rustix::fs::minor(device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_file_open_is_found_and_who_is_excused_is_not() {
        let proc = Path::new("/proc");
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = std::process::id();
        assert_eq!(who_has(proc, file.path(), &[]).map(|found| found.pid), Some(own));
        assert_eq!(who_has(proc, file.path(), &[own]), None);
    }

    #[test]
    fn who_listens_on_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(who_listens(Path::new("/proc"), port).map(|found| found.pid), Some(std::process::id()));
        drop(listener);
        assert_eq!(who_listens(Path::new("/proc"), port), None);
    }

    #[test]
    fn a_process_is_found_by_its_name() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        assert!(named(Path::new("/proc"), own.trim()).is_some());
        assert_eq!(named(Path::new("/proc"), "no such program"), None);
    }

    #[test]
    fn device_files_have_numbers_and_others_have_none() {
        assert_eq!(device_numbers(&fs::metadata("/dev/null").unwrap()), Some((1, 3)));
        assert_eq!(device_numbers(&fs::metadata("/proc").unwrap()), None);
    }
}
