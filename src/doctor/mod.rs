//! What is the matter with this machine, its configuration and the way to its broker: facts are collected, each check
//! within a deadline, and what they mean is judged by pure functions, one file an area.
//!
//! A finding that is not fine says what to do next, and none says a secret. The daemon may run or not: nothing here
//! takes a port, a lock or a connection away from it.

mod account;
mod bluetooth;
mod broker;
mod clock;
mod configuration;
mod disk;
mod listening;
mod machine;
mod power;
mod processes;
mod secrets;
mod serial;
mod service;
mod store;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::bluez::BluezLimits;
use crate::clock::{Clock, Wall};
use crate::config::{Config, ConfigError, Devices, Place};
use crate::named::named_enum;
use crate::sources::SourceKind;
use crate::store::{Holder, holder};

pub use machine::{Change, remember};
pub use secrets::secret_files;

/// A check of files and small programs ends within this time.
const QUICK: Duration = Duration::from_secs(5);

/// All of BlueZ together; each question to it has a deadline of its own.
const BLUEZ: Duration = Duration::from_secs(12);

/// All steps to the broker together; each has a deadline of its own.
const BROKER: Duration = Duration::from_secs(40);

/// A large database on an SD card is read at some 20 MB a second.
const STORE: Duration = Duration::from_mins(1);

named_enum! {
    /// What a finding is about.
    Area {
        /// The file, the profiles and the rules.
        Configuration = "configuration",
        /// The unit of systemd that the daemon runs in.
        Service = "service",
        /// The time of day, and who sets it.
        Clock = "clock",
        /// The clock with a battery.
        Rtc = "rtc",
        /// The system bus and the right to talk to BlueZ.
        Dbus = "dbus",
        /// bluetoothd.
        Bluez = "bluez",
        /// The switches of radios.
        Rfkill = "rfkill",
        /// The Bluetooth adapter.
        Adapter = "adapter",
        /// Serial ports and who may use them.
        Serial = "serial",
        /// A program that writes to serial adapters.
        ModemManager = "modem_manager",
        /// The file system of the state directory.
        Disk = "disk",
        /// The database.
        Store = "store",
        /// How long it can take what does not reach the broker.
        Buffer = "buffer",
        /// The way to the backend.
        Broker = "broker",
        /// Secrets, keys and who can read them.
        Secrets = "secrets",
        /// The address that dashboards use.
        Ports = "ports",
        /// The supply of a Raspberry Pi.
        Power = "power",
        /// Whether this is the machine that the state belongs to.
        Machine = "machine",
    }
}

named_enum! {
    /// How bad it is, the worst last.
    Level {
        /// It was looked at and is as it should be.
        Ok = "ok",
        /// It was not looked at, because it is not used or not there; the finding says why.
        Skipped = "skipped",
        /// Something does not work as well as it should, or nobody can tell.
        Warning = "warning",
        /// Something does not work.
        Error = "error",
    }
}

/// One thing that was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// Which finding of the area: a word for programs that never changes its meaning.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do next; there for each warning and error.
    pub advice: Option<String>,
}

impl Finding {
    fn new(area: Area, check: &'static str, level: Level, message: String, advice: Option<String>) -> Self {
        Self { area, check, level, message, advice }
    }

    fn ok(area: Area, check: &'static str, message: impl Into<String>) -> Self {
        Self::new(area, check, Level::Ok, message.into(), None)
    }

    fn skipped(area: Area, check: &'static str, reason: impl Into<String>) -> Self {
        Self::new(area, check, Level::Skipped, reason.into(), None)
    }

    fn warning(area: Area, check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(area, check, Level::Warning, message.into(), Some(advice.into()))
    }

    fn error(area: Area, check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(area, check, Level::Error, message.into(), Some(advice.into()))
    }
}

/// All findings, in the order of [`Area::ALL`].
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    /// When, by the clock that may be wrong.
    pub checked_at: String,
    /// The process of the daemon that uses the state directory; `None`: none does.
    pub daemon: Option<u32>,
    /// The worst level; what was skipped counts as fine.
    pub status: Level,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(mut findings: Vec<Finding>, daemon: Option<u32>, now: Wall) -> Self {
        findings.sort_by_key(|finding| finding.area);
        let worst = findings.iter().map(|finding| finding.level).filter(|level| *level != Level::Skipped).max();
        let status = worst.unwrap_or(Level::Ok);
        Self { version: env!("CARGO_PKG_VERSION"), checked_at: now.to_string(), daemon, status, findings }
    }

    /// 0: fine, 1: there are warnings, 2: there are errors.
    pub const fn exit_code(&self) -> u8 {
        match self.status {
            Level::Ok | Level::Skipped => 0,
            Level::Warning => 1,
            Level::Error => 2,
        }
    }
}

/// What the checks are told.
#[derive(Debug)]
struct Patient<'a> {
    /// `None`: the configuration has errors, and what hangs on it cannot be looked at.
    config: Option<&'a Config>,
    state_dir: PathBuf,
    /// The daemon that uses the state directory.
    daemon: Option<u32>,
    /// Whom the daemon runs as, or would.
    account: account::Account,
    /// What systemd says of the service.
    unit: service::Unit,
    now: Wall,
}

#[cfg(test)]
impl Patient<'static> {
    /// Whose configuration cannot be read.
    fn without_configuration() -> Self {
        let account = account::Account::default();
        let unit = service::Unit::NoSystemd;
        Self { config: None, state_dir: "/state".into(), daemon: None, account, unit, now: Wall(0) }
    }
}

/// Looks at everything. Returns when the slowest check has ended or its deadline is over.
pub async fn examine(file: &Path, place: &Place) -> Report {
    let now = Clock::System.now().wall;
    let (loaded, devices) = {
        let (name, place) = (file.to_owned(), place.clone());
        let loading = tokio::task::spawn_blocking(move || Config::look(&name, &place));
        match tokio::time::timeout(QUICK, loading).await {
            Ok(Ok(loaded)) => loaded,
            ended => {
                let reason =
                    ended.map_or_else(|_| "reading it takes too long".to_owned(), |_| "its reader failed".to_owned());
                let error = std::io::Error::other(reason);
                (Err(ConfigError::Unreadable { file: file.to_owned(), error }), Devices::default())
            }
        }
    };
    let mut findings = configuration::judge(&loaded, &devices);
    let config = loaded.as_ref().ok();
    let fallback = Config::empty(place);
    let state_dir = config.map_or(&fallback.state_dir, |config| &config.state_dir).clone();
    let held = blocking({
        let state_dir = state_dir.clone();
        move || holder(&state_dir)
    });
    let daemon = match bounded(Area::Store, QUICK, held).await {
        Ok(Ok(Holder::Process(pid))) => Some(pid),
        Ok(Ok(Holder::Nobody)) => None,
        Ok(Err(error)) => {
            findings.push(store::cannot_tell(&state_dir, &error));
            None
        }
        Err(late) => {
            findings.push(late);
            None
        }
    };
    let account = bounded(Area::Serial, QUICK, blocking(move || account::Account::of_daemon(daemon))).await;
    let account = account.unwrap_or_else(|late| {
        findings.push(late);
        account::Account::default()
    });
    findings.extend(configuration::denied(file, config, &account));
    let unit = bounded(Area::Service, QUICK, service::Unit::ask(file)).await.unwrap_or_else(|late| {
        findings.push(late);
        service::Unit::NoSystemd
    });
    let patient = Patient { config, state_dir, daemon, account, unit, now };
    let (service, clock, bluetooth, serial, disk, kept, broker, secrets, ports, power, machine) = tokio::join!(
        each(Area::Service, QUICK, service::check(&patient)),
        each(Area::Clock, QUICK, clock::check(&patient)),
        each(Area::Bluez, BLUEZ, bluetooth::check(&patient, BluezLimits::default())),
        each(Area::Serial, QUICK * 2, serial::check(&patient)),
        each(Area::Disk, QUICK, disk::check(&patient)),
        each(Area::Store, STORE + QUICK, store::check(&patient, STORE)),
        each(Area::Broker, BROKER, broker::check(&patient)),
        each(Area::Secrets, QUICK, secrets::check(&patient)),
        each(Area::Ports, QUICK * 2, listening::check(&patient)),
        each(Area::Power, QUICK, power::check()),
        each(Area::Machine, QUICK, machine::check(&patient)),
    );
    findings.extend(
        [service, clock, bluetooth, serial, disk, kept, broker, secrets, ports, power, machine].into_iter().flatten(),
    );
    Report::new(findings, patient.daemon, now)
}

/// The findings of an area, or that they took too long.
async fn each(area: Area, limit: Duration, check: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    bounded(area, limit, check).await.unwrap_or_else(|late| vec![late])
}

/// A check that does not end in time is a finding of its own: what hangs there hangs the daemon too.
async fn bounded<T>(area: Area, limit: Duration, check: impl Future<Output = T>) -> Result<T, Finding> {
    tokio::time::timeout(limit, check).await.map_err(|_| too_late(area, limit))
}

fn too_late(area: Area, limit: Duration) -> Finding {
    let advice = match area {
        Area::Store | Area::Disk | Area::Configuration => {
            "the disk hardly answers: see `sudo dmesg`, and replace the SD card if it shows errors of mmc or I/O"
        }
        Area::Dbus | Area::Bluez | Area::Adapter | Area::Rfkill => {
            "restart BlueZ with `sudo systemctl restart bluetooth`, then run this again"
        }
        _ => "run this again; if it stays so, see `sudo dmesg` and `systemctl --failed`",
    };
    Finding::warning(area, "too_late", format!("the check did not end within {} s", limit.as_secs()), advice)
}

/// Runs what reads files on a thread where it blocks nobody. A thread that fails counts as one that does not answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => std::future::pending().await,
    }
}

/// The standard output of a program, if it is installed and succeeds; what it says of its failure otherwise. The caller
/// has the deadline; a program that is left behind is killed.
async fn output_of(program: &str, arguments: &[&str]) -> Result<String, Ended> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ended::NotThere,
        _ => Ended::Failed(error.to_string()),
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(Ended::Failed(text(&output.stderr))) }
}

/// Why a program has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    /// It is not installed.
    NotThere,
    /// What it said.
    Failed(String),
}

/// The sources of the configuration of one kind.
fn has_bluetooth(config: &Config) -> bool {
    config.sources.iter().any(|source| matches!(source.kind, SourceKind::Ble(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(area: Area, level: Level) -> Finding {
        Finding::new(area, "x", level, String::new(), None)
    }

    #[test]
    fn the_worst_finding_is_the_exit_code_and_what_was_skipped_is_none() {
        for (levels, status, code) in [
            (&[Level::Ok, Level::Skipped][..], Level::Ok, 0),
            (&[Level::Skipped], Level::Ok, 0),
            (&[], Level::Ok, 0),
            (&[Level::Warning, Level::Ok], Level::Warning, 1),
            (&[Level::Warning, Level::Error, Level::Skipped], Level::Error, 2),
        ] {
            let findings = levels.iter().map(|level| finding(Area::Disk, *level)).collect();
            let report = Report::new(findings, None, Wall(0));
            assert_eq!((report.status, report.exit_code()), (status, code), "{levels:?}");
        }
    }

    #[test]
    fn findings_stand_in_the_order_of_their_areas() {
        let areas = [Area::Machine, Area::Configuration, Area::Broker, Area::Clock];
        let report = Report::new(areas.map(|area| finding(area, Level::Ok)).to_vec(), None, Wall(0));
        let found: Vec<Area> = report.findings.iter().map(|finding| finding.area).collect();
        assert_eq!(found, [Area::Configuration, Area::Clock, Area::Broker, Area::Machine]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_a_finding_with_advice() {
        for area in Area::ALL {
            let found = each(*area, QUICK, std::future::pending()).await;
            assert_eq!((found[0].area, found[0].level, found[0].check), (*area, Level::Warning, "too_late"));
            assert!(found[0].advice.as_ref().is_some_and(|advice| advice.contains('`')), "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_program_answers_fails_or_is_not_there() {
        assert_eq!(output_of("sh", &["-c", "echo 5.82"]).await, Ok("5.82".to_owned()));
        assert_eq!(output_of("sh", &["-c", "echo no >&2; exit 1"]).await, Err(Ended::Failed("no".to_owned())));
        assert_eq!(output_of("/nonexistent/program", &[]).await, Err(Ended::NotThere));
    }
}
