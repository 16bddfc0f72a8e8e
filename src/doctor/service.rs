//! What systemd says of the unit: whether it runs, whether it will after the next boot, and what its sandbox keeps from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::doctor::secrets::secret_files;
use crate::doctor::{Area, Ended, Finding, Patient, blocking, output_of};
use crate::sources::SourceKind;
use crate::sources::serial::SerialPort;

/// The unit of the package.
pub(super) const UNIT: &str = "vitalbridge.service";

/// What is asked of systemd.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,NRestarts,MainPID,StatusText,\
                          ExecStart,StateDirectory,ReadWritePaths,DeviceAllow";

/// So many restarts since somebody last started it are no accident.
const MANY_RESTARTS: u32 = 3;

/// Where the kernel says what it can bound.
const CONTROLLERS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Folders that `ProtectHome=` and `PrivateTmp=` of the unit hide.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Devices that the unit allows by itself.
const ALLOWED: [&str; 4] = ["ttyUSB", "ttyACM", "ttyAMA", "ttyS"];

/// The answer of systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    /// There is no systemd here, or it does not answer.
    NoSystemd,
    NotInstalled,
    /// It runs another configuration than the one that is looked at.
    OfAnother,
    Known(BTreeMap<String, String>),
}

impl Unit {
    pub(super) async fn ask(config: &Path) -> Self {
        let property = format!("--property={PROPERTIES}");
        Self::of(output_of("systemctl", &["show", UNIT, &property]).await, config)
    }

    fn of(answer: Result<String, Ended>, config: &Path) -> Self {
        let Ok(text) = answer else { return Self::NoSystemd };
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            // A list, as of devices, may come in several lines.
            let before = known.entry(name.to_owned()).or_default();
            before.push_str(if before.is_empty() { "" } else { " " });
            before.push_str(value);
        }
        let is = |name: &str, value: &str| known.get(name).is_some_and(|found| found == value);
        if !known.contains_key("LoadState") {
            return Self::NoSystemd;
        }
        if is("LoadState", "not-found") {
            return Self::NotInstalled;
        }
        let config = config.to_string_lossy();
        let of_ours = |words: &String| words.split_whitespace().any(|word| *word == *config);
        if known.get("ExecStart").is_some_and(|words| !words.is_empty() && !of_ours(words)) {
            return Self::OfAnother;
        }
        Self::Known(known)
    }

    fn property(&self, name: &str) -> &str {
        match self {
            Self::Known(known) => known.get(name).map_or("", String::as_str),
            _ => "",
        }
    }

    /// A start is under way: of a large database it takes minutes, and nobody shall end it.
    pub(super) fn is_starting(&self) -> bool {
        self.property("ActiveState") == "activating" && self.property("SubState") != "auto-restart"
    }

    /// The main process of the running unit.
    fn pid(&self) -> Option<u32> {
        self.property("MainPID").parse().ok().filter(|pid| *pid > 0)
    }
}

/// Something of the configuration that the sandbox keeps from the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    /// The state directory, outside of what may be written.
    State(PathBuf),
    /// A file in a folder that the unit hides.
    File(&'static str, PathBuf),
    /// A serial port, and its kind, that is not allowed.
    Device(PathBuf, String),
}

#[derive(Debug)]
struct Facts<'a> {
    unit: &'a Unit,
    /// Who uses the state directory.
    daemon: Option<u32>,
    kept: Vec<Kept>,
    /// Whether the kernel can bound the memory of a service; `None`: nobody can tell.
    bounds_memory: Option<bool>,
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let kept = match (patient.config, &patient.unit) {
        (Some(config), Unit::Known(_)) => {
            let (places, unit) = (places(config), patient.unit.clone());
            blocking(move || kept_from_it(places, &unit)).await
        }
        _ => Vec::new(),
    };
    let bounds_memory = blocking(|| {
        let found = std::fs::read_to_string(CONTROLLERS).ok()?;
        Some(found.split_whitespace().any(|controller| controller == "memory"))
    });
    let bounds_memory = bounds_memory.await;
    judge(&Facts { unit: &patient.unit, daemon: patient.daemon, kept, bounds_memory })
}

/// Everything outside of its own that a configuration names.
fn places(config: &Config) -> Vec<Kept> {
    let mut places = vec![Kept::State(config.state_dir.clone())];
    places.extend(secret_files(config).into_iter().map(|(what, path)| Kept::File(what, path)));
    places.extend(config.rules_file.iter().map(|path| Kept::File("the rule file", path.clone())));
    places.extend(config.sources.iter().filter_map(|source| match &source.kind {
        SourceKind::Serial(serial) => match &serial.port {
            SerialPort::Path(path) => Some(Kept::Device(path.clone(), kind_of(path))),
            SerialPort::Tcp { .. } => None,
        },
        _ => None,
    }));
    places
}

/// The name of a device without its number, as the kernel has it in /proc/devices.
fn kind_of(path: &Path) -> String {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
}

fn kept_from_it(places: Vec<Kept>, unit: &Unit) -> Vec<Kept> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let words = |property: &str| unit.property(property).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let may_write = |path: &Path| {
        let opened = words("ReadWritePaths").into_iter().map(|word| word.trim_start_matches(['-', '+']).to_owned());
        let own = words("StateDirectory").into_iter().map(|name| format!("/var/lib/{name}"));
        opened.chain(own).any(|folder| path.starts_with(&folder) || real(path).starts_with(real(Path::new(&folder))))
    };
    let is_allowed = |path: &Path, kind: &str| {
        let device = real(path);
        // One that is not plugged in tells nothing of its kind.
        !device.exists()
            || !device.starts_with("/dev/")
            || ALLOWED.contains(&kind)
            || words("DeviceAllow").iter().any(|word| *word == format!("char-{kind}") || Path::new(word) == device)
    };
    let is_kept = |place: &Kept| match place {
        Kept::State(path) => !may_write(path),
        Kept::File(_, path) => HIDDEN.iter().any(|folder| path.starts_with(folder) || real(path).starts_with(folder)),
        Kept::Device(path, kind) => !is_allowed(path, kind),
    };
    places.into_iter().filter(is_kept).collect()
}

fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let skipped = |check, reason: &str| vec![Finding::skipped(Area::Service, check, reason)];
    match facts.unit {
        Unit::NoSystemd => return skipped("no_systemd", "no systemd answers here"),
        Unit::NotInstalled => return skipped("not_installed", "vitalbridge.service is not installed on this machine"),
        Unit::OfAnother => return skipped("other", "vitalbridge.service runs another configuration than this one"),
        Unit::Known(_) => {}
    }
    let mut findings = of_state(facts);
    findings.extend(facts.kept.iter().map(of_sandbox));
    if facts.bounds_memory == Some(false) {
        let advice = "put `cgroup_enable=memory` at the end of the one line of /boot/firmware/cmdline.txt, and restart the machine";
        let message = "the kernel bounds no service's memory: a fault of one takes the whole machine with it";
        findings.push(Finding::warning(Area::Service, "memory_unbound", message, advice));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Area::Service, "runs", "the service runs, and starts with the machine"));
    }
    findings
}

fn of_state(facts: &Facts<'_>) -> Vec<Finding> {
    let unit = facts.unit;
    let error = |check, message: String, advice: &str| vec![Finding::error(Area::Service, check, message, advice)];
    let code = unit.property("ExecMainStatus");
    let why = "`journalctl -u vitalbridge -n 50` says why";
    match (unit.property("LoadState"), unit.property("ActiveState")) {
        ("masked", _) => error(
            "masked",
            "the service is masked: nothing starts it".to_owned(),
            "`sudo systemctl unmask vitalbridge`, then `sudo systemctl enable --now vitalbridge`",
        ),
        ("loaded", "failed") => error(
            "failed",
            format!("the service has failed ({}, exit code {code}), and nothing is watched", unit.property("Result")),
            "`sudo vitalbridge check` says what is wrong with the configuration, `journalctl -u vitalbridge -n 50` what else; then \
             `sudo systemctl restart vitalbridge`: after 78 systemd does not try again by itself",
        ),
        ("loaded", _) if unit.property("SubState") == "auto-restart" => error(
            "restarting",
            format!("the service ends with exit code {code} and is started again and again; nothing is watched"),
            &format!("{why}; 77 is a right that is missing: see what else is found here"),
        ),
        ("loaded", "activating") => vec![Finding::warning(
            Area::Service,
            "starting",
            format!("the service is starting: {}", unit.property("StatusText")),
            "wait: a start that mends a large database or brings it forward takes minutes, and one that is ended begins again. \
             `journalctl -u vitalbridge -f` shows how it gets on",
        )],
        ("loaded", "inactive" | "deactivating") if facts.daemon.is_some() => vec![Finding::warning(
            Area::Service,
            "by_hand",
            "a daemon runs that systemd has not started: nobody starts it again when it ends",
            "end it, then `sudo systemctl enable --now vitalbridge`",
        )],
        ("loaded", "inactive" | "deactivating") => error(
            "stopped",
            "the service does not run, and nothing is watched".to_owned(),
            "`sudo systemctl enable --now vitalbridge`; if it does not stay, `journalctl -u vitalbridge -n 50`",
        ),
        ("loaded", _) => of_running(facts),
        (other, _) => error(
            "broken",
            format!("systemd cannot read the unit ({other}): a drop-in of it is wrong"),
            "`systemctl status vitalbridge` names the line; drop-ins are in /etc/systemd/system/vitalbridge.service.d",
        ),
    }
}

fn of_running(facts: &Facts<'_>) -> Vec<Finding> {
    let unit = facts.unit;
    let mut findings = Vec::new();
    let mut warning = |check, message: String, advice: &str| {
        findings.push(Finding::warning(Area::Service, check, message, advice));
    };
    if !matches!(unit.property("UnitFileState"), "enabled" | "enabled-runtime" | "static" | "generated" | "alias") {
        warning(
            "disabled",
            "the service runs, and will not after the next power cut: it is not enabled".to_owned(),
            "`sudo systemctl enable vitalbridge`",
        );
    }
    if facts.daemon.is_none() || facts.daemon != unit.pid() {
        warning(
            "elsewhere",
            "the service runs, and does not use the state directory that this configuration names".to_owned(),
            "it runs with what the configuration was before: `sudo vitalbridge check`, then `sudo systemctl restart vitalbridge`",
        );
    }
    if let Some(restarts) = unit.property("NRestarts").parse::<u32>().ok().filter(|count| *count >= MANY_RESTARTS) {
        warning(
            "restarts",
            format!("systemd has started the service again {restarts} times since somebody did"),
            "`journalctl -u vitalbridge -p warning` says why each run ended; `sudo dmesg` whether memory ran out",
        );
    }
    findings
}

fn of_sandbox(kept: &Kept) -> Finding {
    let (message, advice) = match kept {
        Kept::State(path) => (
            format!("the unit lets the daemon write to /var/lib/vitalbridge, and not to {}", path.display()),
            format!(
                "`sudo systemctl edit vitalbridge`, with the lines [Service] and `ReadWritePaths={}`; or mount that disk at \
                 /var/lib/vitalbridge and take `store.dir` out",
                path.display()
            ),
        ),
        Kept::File(what, path) => (
            format!("the unit hides the folder of {what}, {}, from the daemon", path.display()),
            "put it into /etc/vitalbridge, of which the daemon sees everything that its group may read, and change its line".to_owned(),
        ),
        Kept::Device(path, kind) => (
            format!("the unit does not let the daemon use {}", path.display()),
            format!(
                "`sudo systemctl edit vitalbridge`, with the lines [Service] and `DeviceAllow=char-{kind} rw`, then `sudo systemctl \
                 restart vitalbridge`"
            ),
        ),
    };
    Finding::error(Area::Service, "sandbox", message, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const FILE: &str = "/etc/vitalbridge/vitalbridge.toml";

    const RUNNING: &str = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nResult=success\nNRestarts=0\n\
                           ExecMainStatus=0\nMainPID=7\nStateDirectory=vitalbridge\n\
                           ExecStart={ path=/usr/bin/vitalbridge ; argv[]=/usr/bin/vitalbridge run --config \
                           /etc/vitalbridge/vitalbridge.toml ; }\nDeviceAllow=char-ttyUSB rw\nDeviceAllow=char-mem rw\n";

    fn unit(changes: &[(&str, &str)]) -> Unit {
        let text = changes.iter().fold(RUNNING.to_owned(), |text, (from, to)| text.replace(from, to));
        Unit::of(Ok(text), Path::new(FILE))
    }

    fn found(unit: &Unit, daemon: Option<u32>) -> Vec<Finding> {
        judge(&Facts { unit, daemon, kept: Vec::new(), bounds_memory: Some(true) })
    }

    #[test]
    fn each_finding_about_the_service_says_what_to_do() {
        let inactive = [("=active", "=inactive"), ("MainPID=7", "MainPID=0")];
        let starting = [("=active", "=activating"), ("SubState=running", "SubState=start\nStatusText=opening")];
        let again =
            [("=active", "=activating"), ("SubState=running", "SubState=auto-restart"), ("Status=0", "Status=77")];
        for (changes, daemon, check, level, words, advice) in [
            (&[][..], Some(7), "runs", Level::Ok, "starts with the machine", ""),
            (&[("LoadState=loaded", "LoadState=masked")], None, "masked", Level::Error, "masked", "unmask"),
            (&[("LoadState=loaded", "LoadState=bad-setting")], None, "broken", Level::Error, "bad-setting", "drop-ins"),
            (
                &[("=active", "=failed"), ("Status=0", "Status=78")],
                None,
                "failed",
                Level::Error,
                "exit code 78",
                "`sudo vitalbridge check`",
            ),
            (&again, None, "restarting", Level::Error, "exit code 77", "journalctl"),
            (&starting, Some(7), "starting", Level::Warning, "opening", "wait"),
            (&inactive, None, "stopped", Level::Error, "nothing is watched", "enable --now"),
            (&inactive, Some(9), "by_hand", Level::Warning, "has not started", "enable --now"),
            (&[("=enabled", "=disabled")], Some(7), "disabled", Level::Warning, "next power cut", "systemctl enable"),
            (&[], None, "elsewhere", Level::Warning, "does not use", "restart vitalbridge"),
            (&[], Some(9), "elsewhere", Level::Warning, "does not use", "restart vitalbridge"),
            (&[("NRestarts=0", "NRestarts=3")], Some(7), "restarts", Level::Warning, "3 times", "journalctl"),
        ] {
            let found = found(&unit(changes), daemon);
            assert_eq!(found.len(), 1, "{check}: {found:?}");
            assert_eq!((found[0].check, found[0].level), (check, level), "{found:?}");
            assert!(found[0].message.contains(words), "{found:?}");
            assert!(found[0].advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
        let unbound = judge(&Facts { unit: &unit(&[]), daemon: Some(7), kept: Vec::new(), bounds_memory: Some(false) });
        assert_eq!((unbound[0].check, unbound[0].level), ("memory_unbound", Level::Warning));
        assert!(unbound[0].advice.as_ref().unwrap().contains("cgroup_enable=memory"), "{unbound:?}");
        assert!(unit(&starting).is_starting() && !unit(&again).is_starting() && !unit(&[]).is_starting());
    }

    #[test]
    fn what_is_no_unit_of_this_configuration_is_not_judged() {
        let failed = || Err(Ended::Failed("System has not been booted with systemd as init system".to_owned()));
        for (answer, check) in [
            (failed(), "no_systemd"),
            (Err(Ended::NotThere), "no_systemd"),
            (Ok(String::new()), "no_systemd"),
            (Ok("LoadState=not-found\nActiveState=inactive\n".to_owned()), "not_installed"),
            (Ok(RUNNING.replace("vitalbridge.toml", "other.toml")), "other"),
        ] {
            let found = found(&Unit::of(answer, Path::new(FILE)), None);
            assert_eq!((found.len(), found[0].check, found[0].level), (1, check, Level::Skipped), "{found:?}");
        }
    }

    #[test]
    fn what_the_sandbox_keeps_from_the_daemon_is_found_before_it_fails_there() {
        let unit =
            unit(&[("StateDirectory=vitalbridge", "StateDirectory=vitalbridge\nReadWritePaths=-/ssd /sys/class/leds")]);
        let state = |path: &str| Kept::State(path.into());
        let file = |path: &str| Kept::File("the broker's password", path.into());
        let device = |path: &str| Kept::Device(path.into(), kind_of(Path::new(path)));
        for (place, is_kept, advice) in [
            (state("/var/lib/vitalbridge"), false, ""),
            (state("/ssd/vitals"), false, ""),
            (state("/srv/vitals"), true, "ReadWritePaths=/srv/vitals"),
            (file("/etc/vitalbridge/password"), false, ""),
            (file("/home/pi/password"), true, "into /etc/vitalbridge"),
            (file("/tmp/password"), true, "into /etc/vitalbridge"),
            (device("/dev/ttyUSB0"), false, ""),
            (device("/dev/not-plugged-in0"), false, ""),
            // There on every machine, and no serial port of the unit's.
            (device("/dev/null"), true, "DeviceAllow=char-null rw"),
            (device("/dev/ptmx"), true, "DeviceAllow=char-ptmx rw"),
        ] {
            let kept = kept_from_it(vec![place.clone()], &unit);
            assert_eq!(kept.len(), usize::from(is_kept), "{place:?}");
            let found = judge(&Facts { unit: &unit, daemon: Some(7), kept, bounds_memory: None });
            assert_eq!(found[0].check, if is_kept { "sandbox" } else { "runs" }, "{found:?}");
            assert!(found[0].advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
    }
}
