//! Serial ports of a configuration: no two sources at one, and what may go wrong with a name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::ids::SourceId;
use crate::sources::serial::console::System;
use crate::sources::serial::{STABLE_NAMES, SerialPort, is_number_of_the_moment, stable_names};

/// A port, whatever name it was given.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The device to which the path leads now, or the path as it is written while nothing is plugged in.
    Device(PathBuf),
    Server(String, u16),
}

/// The ports that sources have taken.
#[derive(Debug, Default)]
pub(super) struct Ports {
    taken: BTreeMap<Key, (SourceId, SerialPort)>,
}

impl Ports {
    /// Takes a port for a source. `Some`: another one has it.
    pub(super) fn claim(&mut self, port: &SerialPort, source: &SourceId) -> Option<String> {
        let key = match port {
            SerialPort::Path(path) => Key::Device(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
            SerialPort::Tcp { host, port } => Key::Server(host.to_ascii_lowercase(), *port),
        };
        let (other, theirs) = self.taken.insert(key, (source.clone(), port.clone()))?;
        let same = if theirs == *port { String::new() } else { format!(", as `{theirs}`") };
        let by_id = [port, &theirs].into_iter().any(|port| matches!(port, SerialPort::Path(path) if is_by_id(path)));
        let advice = if by_id {
            "; cables of one kind that have no serial number of their own share one name under by-id: name each by its \
             socket, under /dev/serial/by-path"
        } else {
            ""
        };
        Some(format!("the port `{port}` belongs to the source `{other}` already{same}{advice}"))
    }
}

fn is_by_id(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("serial/by-id"))
}

/// What an installer should know about a port.
pub(super) fn warnings(port: &SerialPort) -> Vec<String> {
    let SerialPort::Path(path) = port else { return Vec::new() };
    let console = System::default().console_at(path).map(|reason| format!("`{port}` will not be opened: {reason}"));
    let name = is_number_of_the_moment(path).then(|| unstable(path, &stable_names(Path::new(STABLE_NAMES), path)));
    console.into_iter().chain(name).collect()
}

/// A name that another adapter has after the next plug.
fn unstable(path: &Path, stable: &[PathBuf]) -> String {
    let instead = match stable.first() {
        Some(name) => format!("write {}", name.display()),
        None => "write its name under /dev/serial/by-id (`ls -l /dev/serial/by-id` while it is plugged in)".to_owned(),
    };
    format!("`{}` can be another adapter after a cable was pulled: {instead}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(ports: &[String]) -> Vec<Option<String>> {
        let mut taken = Ports::default();
        let claim = |(index, port): (usize, &String)| {
            taken.claim(&port.parse().unwrap(), &format!("source-{index}").parse().unwrap())
        };
        ports.iter().enumerate().map(claim).collect()
    }

    #[test]
    fn two_names_of_one_device_are_one_port() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(folder.path().join("serial/by-id")).unwrap();
        std::fs::write(path("ttyUSB0"), "").unwrap();
        for name in ["serial/by-id/usb-1a86_USB_Serial-if00", "desk"] {
            std::os::unix::fs::symlink(path("ttyUSB0"), path(name)).unwrap();
        }
        let by_id = path("serial/by-id/usb-1a86_USB_Serial-if00");
        let found = claims(&[path("ttyUSB0"), path("desk"), path("ttyUSB9"), by_id.clone(), by_id]);
        assert_eq!((&found[0], &found[2]), (&None, &None));
        let desk = found[1].as_ref().unwrap();
        assert!(desk.contains("source-0` already, as `") && !desk.contains("by-path"), "{desk}");
        for one in &found[3..] {
            assert!(one.as_ref().unwrap().contains("under /dev/serial/by-path"), "{one:?}");
        }
    }

    #[test]
    fn two_sources_at_one_serial_server_are_one_port() {
        let found = claims(&["tcp://Ward:1".into(), "tcp://ward:2".into(), "tcp://ward:1".into()]);
        assert_eq!(found[..2], [None, None]);
        assert_eq!(
            found[2].as_deref(),
            Some("the port `tcp://ward:1` belongs to the source `source-0` already, as `tcp://Ward:1`")
        );
    }

    #[test]
    fn a_number_of_the_moment_is_warned_of_with_the_name_to_write() {
        let stable =
            unstable(Path::new("/dev/ttyUSB0"), &["/dev/serial/by-id/usb-A".into(), "/dev/serial/by-path/b".into()]);
        assert!(stable.ends_with("write /dev/serial/by-id/usb-A"), "{stable}");
        let found = warnings(&"/dev/ttyUSB77".parse().unwrap());
        assert!(found.len() == 1 && found[0].contains("under /dev/serial/by-id"), "{found:?}");
        assert_eq!(warnings(&"tcp://ward:1".parse().unwrap()), Vec::<String>::new());
    }
}
