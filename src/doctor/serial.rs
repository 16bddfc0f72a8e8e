//! Serial ports: whether they are there, who may use them and who does, and `ModemManager`, which writes to them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::doctor::account::Account;
use crate::doctor::processes::{self, Process};
use crate::doctor::{Area, Finding, Patient, blocking};
use crate::ids::SourceId;
use crate::sources::SourceKind;
use crate::sources::serial::SerialPort;
use crate::sources::serial::console::System;

/// A serial server answers within this time.
const CONNECT: Duration = Duration::from_secs(3);

/// Where udev keeps what its rules have set, by the device's numbers.
const UDEV: &str = "/run/udev/data";

/// What our udev rule sets.
const IGNORED: &str = "E:ID_MM_DEVICE_IGNORE=1";

/// What the file of a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Port {
    Absent,
    /// A file that is no character device.
    NoDevice,
    Device {
        uid: u32,
        gid: u32,
        mode: u32,
        /// Why it must not be used.
        console: Option<String>,
        /// Another program than the daemon has it open.
        taken_by: Option<Process>,
        /// It is one that `ModemManager` looks at, and it was not told to leave it alone.
        is_probed: bool,
    },
    /// A serial server, with what a connection to it said; `None`: the daemon has its connection.
    Server(Option<Result<(), String>>),
}

#[derive(Debug)]
struct Facts<'a> {
    ports: Vec<(SourceId, String, Port)>,
    modem_manager: Option<Process>,
    account: &'a Account,
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = patient.config else {
        return skip("the configuration, which names the ports, has errors");
    };
    let wanted: Vec<(SourceId, SerialPort)> = config
        .sources
        .iter()
        .filter_map(|source| match &source.kind {
            SourceKind::Serial(serial) => Some((source.id.clone(), serial.port.clone())),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return skip("no source uses a serial port");
    }
    let mut ports = Vec::new();
    for (source, port) in wanted {
        let found = match &port {
            SerialPort::Path(path) => {
                let (path, daemon) = (path.clone(), patient.daemon);
                blocking(move || look_at(&path, daemon)).await
            }
            SerialPort::Tcp { .. } if patient.daemon.is_some() => Port::Server(None),
            SerialPort::Tcp { host, port } => Port::Server(Some(connect(host, *port).await)),
        };
        ports.push((source, port.to_string(), found));
    }
    let modem_manager = blocking(|| processes::named(Path::new("/proc"), "ModemManager")).await;
    judge(&Facts { ports, modem_manager, account: &patient.account })
}

fn skip(reason: &str) -> Vec<Finding> {
    [Area::Serial, Area::ModemManager].map(|area| Finding::skipped(area, "unused", reason)).to_vec()
}

async fn connect(host: &str, port: u16) -> Result<(), String> {
    let connected = tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect((host, port))).await;
    match connected {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT.as_secs())),
    }
}

/// The port is not opened: that alone resets some monitors.
fn look_at(path: &Path, daemon: Option<u32>) -> Port {
    let Ok(metadata) = fs::metadata(path) else { return Port::Absent };
    let Some((major, minor)) = processes::device_numbers(&metadata) else { return Port::NoDevice };
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let udev = PathBuf::from(UDEV).join(format!("c{major}:{minor}"));
    let is_adapter = ["ttyUSB", "ttyACM"].iter().any(|kind| name.starts_with(kind));
    let is_ignored = fs::read_to_string(udev).is_ok_and(|text| text.lines().any(|line| line == IGNORED));
    let excused: Vec<u32> = daemon.into_iter().chain([std::process::id()]).collect();
    Port::Device {
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode(),
        console: System::default().console_at(path),
        taken_by: processes::who_has(Path::new("/proc"), &real, &excused),
        is_probed: is_adapter && !is_ignored,
    }
}

fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.ports.iter().flat_map(|port| of_port(port, facts.account)).collect();
    findings.push(modem_manager(facts));
    findings
}

fn of_port((source, name, port): &(SourceId, String, Port), account: &Account) -> Vec<Finding> {
    let error = |check, message: String, advice: String| vec![Finding::error(Area::Serial, check, message, advice)];
    match port {
        Port::Absent => error(
            "absent",
            format!("the port {name} of {source} is not there"),
            "plug the cable in; `ls -l /dev/serial/by-id` shows what is plugged in, `sudo dmesg | tail` why something is not seen".to_owned(),
        ),
        Port::NoDevice => error(
            "no_device",
            format!("the port {name} of {source} is no serial port"),
            "name one of `ls -l /dev/serial/by-id` in the configuration".to_owned(),
        ),
        Port::Device { uid, gid, mode, console, taken_by, .. } => {
            let mut found = Vec::new();
            if let Some(reason) = console {
                found.extend(error("console", format!("the port {name} of {source} will not be opened"), reason.clone()));
            }
            if !account.may_write(*uid, *gid, *mode) {
                let group = Account::group_name(*gid);
                let user = &account.name;
                found.extend(error(
                    "denied",
                    format!("the daemon's user {user} may not use the port {name} of {source}; the group {group} may"),
                    format!("`sudo usermod -aG {group} {user}`, then `sudo systemctl restart vitalbridge`"),
                ));
            }
            if let Some(process) = taken_by {
                found.extend(error(
                    "taken",
                    format!("the port {name} of {source} is used by {process}"),
                    format!("stop that program: two readers of a port each lose bytes (`sudo kill {}`)", process.pid),
                ));
            }
            if found.is_empty() {
                found.push(Finding::ok(Area::Serial, "there", format!("the port {name} of {source} is there and may be used")));
            }
            found
        }
        Port::Server(Some(Err(reason))) => error(
            "server",
            format!("the serial server {name} of {source} cannot be reached: {reason}"),
            "see that it is switched on and that its port serves raw TCP to one client, this bridge".to_owned(),
        ),
        Port::Server(Some(Ok(()))) => {
            vec![Finding::ok(Area::Serial, "server_there", format!("the serial server {name} of {source} answers"))]
        }
        Port::Server(None) => {
            let reason = format!("the daemon has the connection to {name} of {source}; a second one would end it");
            vec![Finding::skipped(Area::Serial, "server_used", reason)]
        }
    }
}

fn modem_manager(facts: &Facts<'_>) -> Finding {
    let probed = facts.ports.iter().find(|(_, _, port)| matches!(port, Port::Device { is_probed: true, .. }));
    match (&facts.modem_manager, probed) {
        (Some(process), Some((source, name, _))) => Finding::warning(
            Area::ModemManager,
            "probes",
            format!("{process} runs and sends modem commands to {name} of {source} when it is plugged in"),
            "`sudo systemctl mask --now ModemManager`; or install the package's udev rule 60-vitalbridge.rules with the adapter's \
             idVendor, `sudo udevadm control --reload`, and plug the adapter in again",
        ),
        (Some(_), None) => {
            Finding::ok(Area::ModemManager, "told", "ModemManager runs and leaves the configured ports alone")
        }
        (None, _) => Finding::ok(Area::ModemManager, "absent", "ModemManager does not run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn device() -> Port {
        Port::Device { uid: 0, gid: 20, mode: 0o660, console: None, taken_by: None, is_probed: true }
    }

    fn with(change: impl Fn(&mut u32, &mut Option<String>, &mut Option<Process>, &mut bool)) -> Port {
        let mut port = device();
        if let Port::Device { gid, console, taken_by, is_probed, .. } = &mut port {
            change(gid, console, taken_by, is_probed);
        }
        port
    }

    fn screen() -> Process {
        Process { pid: 812, name: "minicom".to_owned() }
    }

    #[test]
    fn each_finding_about_a_port_says_what_to_do() {
        let account = Account::named("vitalbridge", &["dialout"]);
        for (port, check, level, advice) in [
            (Port::Absent, "absent", Level::Error, "/dev/serial/by-id"),
            (Port::NoDevice, "no_device", Level::Error, "/dev/serial/by-id"),
            (
                with(|_, console, _, _| *console = Some("a login runs on it".to_owned())),
                "console",
                Level::Error,
                "a login runs",
            ),
            (with(|gid, _, _, _| *gid = 5), "denied", Level::Error, "usermod -aG "),
            (with(|_, _, taken, _| *taken = Some(screen())), "taken", Level::Error, "kill 812"),
            (device(), "there", Level::Ok, ""),
            (Port::Server(Some(Err("refused".to_owned()))), "server", Level::Error, "raw TCP"),
            (Port::Server(Some(Ok(()))), "server_there", Level::Ok, ""),
            (Port::Server(None), "server_used", Level::Skipped, ""),
        ] {
            let found = of_port(&("s1".parse().unwrap(), "/dev/ttyUSB0".to_owned(), port.clone()), &account);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!((found[0].check, found[0].level), (check, level), "{port:?}");
            assert!(found[0].message.contains("/dev/ttyUSB0") && found[0].message.contains("s1"), "{found:?}");
            assert!(found[0].advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
    }

    #[test]
    fn modem_manager_matters_where_it_looks_at_a_port() {
        let account = Account::named("vitalbridge", &["dialout"]);
        let manager = || Some(Process { pid: 5, name: "ModemManager".to_owned() });
        for (port, modem_manager, check, level, advice) in [
            (device(), manager(), "probes", Level::Warning, "mask --now ModemManager"),
            (with(|_, _, _, probed| *probed = false), manager(), "told", Level::Ok, ""),
            (device(), None, "absent", Level::Ok, ""),
        ] {
            let ports = vec![("s1".parse().unwrap(), "/dev/ttyUSB0".to_owned(), port)];
            let found = judge(&Facts { ports, modem_manager, account: &account });
            let found = found.last().unwrap();
            assert_eq!((found.area, found.check, found.level), (Area::ModemManager, check, level));
            assert!(found.advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
    }

    #[test]
    fn a_port_is_looked_at_without_opening_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look_at(&dir.path().join("nothing"), None), Port::Absent);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(look_at(&file, None), Port::NoDevice);
        let Port::Device { taken_by, console, is_probed, .. } = look_at(Path::new("/dev/null"), None) else {
            panic!("/dev/null is a device");
        };
        assert_eq!((console, is_probed), (None, false));
        assert!(taken_by.is_none_or(|process| process.pid != std::process::id()));
    }

    #[tokio::test]
    async fn without_a_configuration_no_port_is_looked_for() {
        for found in check(&Patient::without_configuration()).await {
            assert_eq!((found.check, found.level), ("unused", Level::Skipped));
        }
    }

    #[tokio::test]
    async fn a_serial_server_answers_or_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(connect("127.0.0.1", port).await, Ok(()));
        drop(listener);
        assert!(connect("127.0.0.1", port).await.is_err());
    }
}
