//! Whether a port of this machine is a console: a login program or the kernel writes to it and takes bytes from it.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the system says what it runs; the root of the file system, but for tests.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

/// Processes that are looked at, at most: more than a small machine has.
const MAX_PROCESSES: usize = 4096;

/// Where systemd keeps what it starts at boot, the generators' first. A Raspberry Pi's come from `console=`.
const UNIT_FOLDERS: [&str; 3] =
    ["run/systemd/generator/getty.target.wants", "etc/systemd/system/getty.target.wants", "run/systemd/transient"];

impl System {
    /// The system as it is told under `root`.
    pub const fn under(root: PathBuf) -> Self {
        Self { root }
    }

    /// Why the port must not be used, and what to do about it. `None`: it is no console, as far as can be seen. The
    /// hardened service sees neither other processes nor the kernel's command line, but always the units.
    pub fn console_at(&self, port: &Path) -> Option<String> {
        // A link such as /dev/serial0 leads to the terminal that the system names.
        let real = fs::canonicalize(port).unwrap_or_else(|_| port.to_owned());
        let names: Vec<&str> = [port, &real].into_iter().filter_map(|path| path.file_name()?.to_str()).collect();
        names.iter().find_map(|name| {
            self.login_unit(name).or_else(|| self.login_process(name)).or_else(|| self.kernel_console(name))
        })
    }

    fn login_unit(&self, name: &str) -> Option<String> {
        let unit = format!("serial-getty@{name}.service");
        // A unit that was masked is a link to nowhere.
        let mask = fs::read_link(self.root.join("etc/systemd/system").join(&unit));
        if mask.is_ok_and(|target| target == Path::new("/dev/null")) {
            return None;
        }
        let is_there = |folder: &str| self.root.join(folder).join(&unit).symlink_metadata().is_ok();
        UNIT_FOLDERS.iter().any(|folder| is_there(folder)).then(|| {
            format!(
                "a login runs on it ({unit}): give the port free with `sudo systemctl mask --now {unit}`, and remove \
                 `console={name}` from the kernel's command line (raspi-config: serial port, login shell off)"
            )
        })
    }

    fn login_process(&self, name: &str) -> Option<String> {
        let processes = fs::read_dir(self.root.join("proc")).ok()?;
        processes.take(MAX_PROCESSES).flatten().find_map(|process| {
            let command = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let mut words = command.split('\0');
            let program = words.next()?.rsplit('/').next()?;
            let is_here = words.any(|word| word.strip_prefix("/dev/").unwrap_or(word) == name);
            (program.ends_with("getty") && is_here).then(|| {
                let id = process.file_name();
                format!("the login program {program} has it (process {}): stop it first", id.display())
            })
        })
    }

    fn kernel_console(&self, name: &str) -> Option<String> {
        let line = fs::read_to_string(self.root.join("proc/cmdline")).ok()?;
        let mut consoles = line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("console="));
        let is_console = consoles.any(|console| console.split(',').next() == Some(name));
        is_console.then(|| {
            format!("the kernel writes its messages to it: remove `console={name}` from the kernel's command line")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files, each with its text.
    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let system = System::under(folder.path().to_owned());
        (folder, system)
    }

    const BOOT: &str = "console=ttyS0,115200 console=tty1 root=/dev/mmcblk0p2 rootwait\n";
    const UNIT: &str = "run/systemd/generator/getty.target.wants/serial-getty@ttyAMA0.service";
    const LOGIN: &str = "/sbin/agetty\0-o\0--keep-baud\x00115200,57600\0ttyUSB3\0vt220\0";

    #[test]
    fn a_console_is_found_in_each_place_where_the_system_tells_of_it() {
        let all = [("proc/cmdline", BOOT), (UNIT, ""), ("proc/812/cmdline", LOGIN), ("proc/9/comm", "x")];
        let (_folder, system) = system(&all);
        for (port, expected) in [
            ("/dev/ttyAMA0", Some("systemctl mask --now serial-getty@ttyAMA0.service")),
            ("/dev/ttyS0", Some("remove `console=ttyS0`")),
            ("/dev/ttyUSB3", Some("agetty has it (process 812)")),
            ("/dev/ttyAMA1", None),
            ("/dev/ttyUSB30", None),
            ("/dev/ttyS", None),
        ] {
            let found = system.console_at(Path::new(port));
            assert_eq!(found.is_some(), expected.is_some(), "{port}: {found:?}");
            assert!(found.is_none_or(|hint| hint.contains(expected.unwrap())), "{port}");
        }
    }

    #[test]
    fn a_masked_login_is_none() {
        let (folder, system) = system(&[(UNIT, "")]);
        let units = folder.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        std::os::unix::fs::symlink("/dev/null", units.join("serial-getty@ttyAMA0.service")).unwrap();
        assert_eq!(system.console_at(Path::new("/dev/ttyAMA0")), None);
    }

    #[test]
    fn a_link_to_a_console_is_one_too() {
        let (folder, system) = system(&[(UNIT, ""), ("dev/ttyAMA0", "")]);
        let link = folder.path().join("serial0");
        std::os::unix::fs::symlink(folder.path().join("dev/ttyAMA0"), &link).unwrap();
        assert!(system.console_at(&link).is_some());
    }
}
