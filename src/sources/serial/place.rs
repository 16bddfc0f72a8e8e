//! Where a monitor is: a serial port of this machine, or a TCP port that carries one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How often a port that was lost is looked for by its name.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where the monitor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialPort {
    /// A port of this machine, best by its stable name under `/dev/serial/by-id`.
    Path(PathBuf),
    /// A serial server (ser2net and its like), raw TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Why a text is not the place of a serial port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port: write a path such as /dev/serial/by-id/..., or tcp://host:port")]
pub struct BadPort(String);

impl FromStr for SerialPort {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort(text.to_owned());
        if let Some(server) = text.strip_prefix("tcp://") {
            let (host, port) = server.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            return if host.is_empty() || port == 0 {
                Err(bad())
            } else {
                Ok(Self::Tcp { host: host.to_owned(), port })
            };
        }
        if text.starts_with('/') { Ok(Self::Path(PathBuf::from(text))) } else { Err(bad()) }
    }
}

impl SerialPort {
    /// Waits until the port is plugged in again: until its name leads somewhere, or somewhere else than at the call.
    ///
    /// The link under `/dev/serial` is looked at twice a second. A TCP port gives no such sign.
    pub(in crate::sources) async fn replugged(&self) {
        let Self::Path(path) = self else { return std::future::pending().await };
        let before = std::fs::canonicalize(path).ok();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = std::fs::canonicalize(path).ok();
            if now.is_some() && now != before {
                return;
            }
        }
    }
}

/// Where udev keeps names that stay the same: by the adapter's own serial number, and by the socket it is plugged into.
pub const STABLE_NAMES: &str = "/dev/serial";

/// The stable names that lead to this port, those by the adapter's own identity first.
///
/// `folder` is [`STABLE_NAMES`], but for tests.
pub fn stable_names(folder: &Path, port: &Path) -> Vec<PathBuf> {
    let Ok(real) = std::fs::canonicalize(port) else { return Vec::new() };
    let mut names = Vec::new();
    for kind in ["by-id", "by-path"] {
        let links = std::fs::read_dir(folder.join(kind)).into_iter().flatten().flatten();
        let mut of_kind: Vec<PathBuf> = links
            .map(|link| link.path())
            .filter(|link| std::fs::canonicalize(link).is_ok_and(|target| target == real))
            .collect();
        of_kind.sort();
        names.extend(of_kind);
    }
    names
}

/// True for a name that the kernel gives anew at every plug: the next adapter gets it as well.
pub fn is_number_of_the_moment(port: &Path) -> bool {
    let name = port.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_device = port.parent() == Some(Path::new("/dev"));
    is_device && ["ttyUSB", "ttyACM"].iter().any(|kind| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_port_is_a_path_or_a_server() {
        for (text, expected) in [
            ("/dev/ttyUSB0", Some("/dev/ttyUSB0")),
            ("tcp://ward-3:4001", Some("tcp://ward-3:4001")),
            ("tcp://[::1]:4001", Some("tcp://[::1]:4001")),
            ("tcp://ward-3", None),
            ("tcp://:4001", None),
            ("tcp://ward-3:0", None),
            ("ttyUSB0", None),
            ("", None),
        ] {
            let port = text.parse::<SerialPort>().map(|port| port.to_string()).ok();
            assert_eq!(port.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_stable_names_of_a_port_are_found_those_by_its_identity_first() {
        let folder = tempfile::tempdir().unwrap();
        let dev = folder.path();
        for name in ["ttyUSB0", "ttyUSB1"] {
            std::fs::write(dev.join(name), "").unwrap();
        }
        for (link, target) in
            [("by-path/pci-0-usb-0:1", "ttyUSB0"), ("by-id/usb-FTDI_A", "ttyUSB0"), ("by-id/x", "ttyUSB1")]
        {
            let link = dev.join("serial").join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(dev.join(target), link).unwrap();
        }
        let names = stable_names(&dev.join("serial"), &dev.join("ttyUSB0"));
        let names: Vec<&str> = names.iter().map(|name| name.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["usb-FTDI_A", "pci-0-usb-0:1"]);
        assert_eq!(stable_names(&dev.join("serial"), &dev.join("ttyUSB7")), Vec::<PathBuf>::new());
        assert_eq!(stable_names(&dev.join("nowhere"), &dev.join("ttyUSB0")), Vec::<PathBuf>::new());
    }

    #[test]
    fn numbers_of_the_moment_are_those_of_usb() {
        for (port, expected) in [
            ("/dev/ttyUSB0", true),
            ("/dev/ttyACM3", true),
            ("/dev/ttyAMA0", false),
            ("/dev/serial/by-id/ttyUSB", false),
        ] {
            assert_eq!(is_number_of_the_moment(Path::new(port)), expected, "{port}");
        }
    }
}
