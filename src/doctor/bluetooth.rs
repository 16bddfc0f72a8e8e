//! BlueZ from the bus to the radio: the system bus and the right to use it, bluetoothd and its version, rfkill, the
//! adapter. Without a Bluetooth source none of it matters, and none of it is asked.

use std::path::Path;

use crate::bluez::{Adapter, Bluez, BluezError, BluezLimits, Cause};
use crate::doctor::account::Account;
use crate::doctor::{Area, Ended, Finding, Patient, blocking, has_bluetooth, output_of};

/// The oldest bluetoothd that this program was tried with: Debian 12's.
const OLDEST: (u32, u32) = (5, 66);

/// Where distributions keep bluetoothd.
const DAEMONS: [&str; 3] =
    ["/usr/libexec/bluetooth/bluetoothd", "/usr/lib/bluetooth/bluetoothd", "/usr/sbin/bluetoothd"];

/// The kernel's switches of radios.
const RFKILL: &str = "/sys/class/rfkill";

/// The group that D-Bus policies for BlueZ name.
const GROUP: &str = "bluetooth";

/// A switch of one Bluetooth radio.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Switch {
    name: String,
    /// Switched off by a program, or by the kernel at boot.
    soft: bool,
    /// Switched off by a key or a pin.
    hard: bool,
}

/// What the bus and bluetoothd say.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// The bus cannot be reached.
    NoBus(BluezError),
    /// Nobody owns `org.bluez`.
    NotRunning,
    /// It does not answer as it should.
    Refused(BluezError),
    Adapters(Vec<Adapter>),
}

#[derive(Debug)]
struct Facts<'a> {
    answer: Answer,
    /// In numbers, and as it was said.
    version: Option<((u32, u32), String)>,
    switches: Vec<Switch>,
    /// The adapter that the configuration names.
    wanted: Option<&'a str>,
    account: &'a Account,
}

pub(super) async fn check(patient: &Patient<'_>, limits: BluezLimits) -> Vec<Finding> {
    let Some(config) = patient.config else {
        return skip("the configuration, which says whether Bluetooth is used, has errors");
    };
    if !has_bluetooth(config) {
        return skip("no source uses Bluetooth");
    }
    let (answer, version) = tokio::join!(ask(limits), version());
    let switches = blocking(|| switches_in(Path::new(RFKILL))).await;
    judge(&Facts { answer, version, switches, wanted: config.air.adapter(), account: &patient.account })
}

fn skip(reason: &str) -> Vec<Finding> {
    [Area::Dbus, Area::Bluez, Area::Rfkill, Area::Adapter].map(|area| Finding::skipped(area, "unused", reason)).to_vec()
}

async fn ask(limits: BluezLimits) -> Answer {
    let bluez = match Bluez::connect_to(None, limits).await {
        Ok(bluez) => bluez,
        Err(error) => return Answer::NoBus(error),
    };
    match bluez.daemon_runs().await {
        Ok(true) => {}
        Ok(false) => return Answer::NotRunning,
        Err(error) => return Answer::Refused(error),
    }
    bluez.adapters().await.map_or_else(Answer::Refused, Answer::Adapters)
}

/// bluetoothd's own word, or that of `bluetoothctl`, which is of the same package.
async fn version() -> Option<((u32, u32), String)> {
    for daemon in DAEMONS {
        match output_of(daemon, &["--version"]).await {
            Err(Ended::NotThere) => {}
            said => return numbers(&said.ok()?),
        }
    }
    numbers(&output_of("bluetoothctl", &["--version"]).await.ok()?)
}

/// `5.66`, or `bluetoothctl: 5.82`.
fn numbers(text: &str) -> Option<((u32, u32), String)> {
    let word = text.split_whitespace().last()?;
    let (major, minor) = word.split_once('.')?;
    let minor: String = minor.chars().take_while(char::is_ascii_digit).collect();
    Some(((major.parse().ok()?, minor.parse().ok()?), word.to_owned()))
}

fn switches_in(folder: &Path) -> Vec<Switch> {
    let read = |path: &Path, name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
    let mut switches: Vec<Switch> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| read(path, "type") == "bluetooth")
        .map(|path| Switch {
            name: read(&path, "name"),
            soft: read(&path, "soft") == "1",
            hard: read(&path, "hard") == "1",
        })
        .collect();
    switches.sort_by(|one, other| one.name.cmp(&other.name));
    switches
}

fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = vec![bus(facts), daemon(facts)];
    findings.extend(rfkill(&facts.switches));
    findings.push(adapter(facts));
    findings
}

fn bus(facts: &Facts<'_>) -> Finding {
    let Account { name, groups, .. } = facts.account;
    match &facts.answer {
        Answer::NoBus(error) => Finding::error(
            Area::Dbus,
            "unreachable",
            error.to_string(),
            "start the bus with `sudo systemctl start dbus` (Debian: `sudo apt install dbus`)",
        ),
        Answer::Refused(BluezError { cause: Cause::AccessDenied(_), doing }) => Finding::error(
            Area::Dbus,
            "denied",
            format!("{doing}: the bus does not let this user talk to BlueZ"),
            format!("`sudo usermod -aG {GROUP} USER`, sign in anew, and run this again"),
        ),
        Answer::Refused(_) | Answer::NotRunning | Answer::Adapters(_)
            if !facts.account.is_root() && !groups.is_empty() && !groups.contains(GROUP) =>
        {
            Finding::warning(
                Area::Dbus,
                "group",
                format!(
                    "the daemon's user {name} is not in the group {GROUP}: some systems let only its members use BlueZ"
                ),
                format!("`sudo usermod -aG {GROUP} {name}`, then `sudo systemctl restart vitalbridge`"),
            )
        }
        _ => Finding::ok(Area::Dbus, "reached", "the system bus answers, and BlueZ may be used"),
    }
}

fn daemon(facts: &Facts<'_>) -> Finding {
    match &facts.answer {
        Answer::NoBus(_) => Finding::skipped(Area::Bluez, "bus", "there is no bus to ask on"),
        Answer::NotRunning => Finding::error(
            Area::Bluez,
            "not_running",
            "bluetoothd does not run",
            "`sudo systemctl enable --now bluetooth` (Debian: `sudo apt install bluez`); if it fails, `journalctl -u bluetooth`",
        ),
        Answer::Refused(BluezError { cause: Cause::AccessDenied(_), .. }) => {
            Finding::skipped(Area::Bluez, "denied", "this user may not ask it")
        }
        Answer::Refused(error) => Finding::error(
            Area::Bluez,
            "silent",
            error.to_string(),
            "`sudo systemctl restart bluetooth`; if it stays so, `journalctl -u bluetooth`",
        ),
        Answer::Adapters(_) => match &facts.version {
            Some((version, text)) if *version < OLDEST => Finding::warning(
                Area::Bluez,
                "old",
                format!("BlueZ {text} is older than {}.{}, the oldest that is known to work", OLDEST.0, OLDEST.1),
                "upgrade the system: Debian 12, Raspberry Pi OS of 2023 and later have it",
            ),
            Some((_, text)) => Finding::ok(Area::Bluez, "runs", format!("bluetoothd runs, version {text}")),
            None => Finding::warning(
                Area::Bluez,
                "version_unknown",
                "bluetoothd runs, and its version cannot be found out",
                format!("see `bluetoothctl --version`: it has to be {}.{} or later", OLDEST.0, OLDEST.1),
            ),
        },
    }
}

fn rfkill(switches: &[Switch]) -> Vec<Finding> {
    let mut found = Vec::new();
    for Switch { name, soft, hard } in switches {
        if *hard {
            found.push(Finding::error(
                Area::Rfkill,
                "hard",
                format!("the radio {name} is switched off by hardware"),
                "look for a key, a switch or a setting of the firmware (Raspberry Pi: `dtoverlay=disable-bt` in config.txt)",
            ));
        } else if *soft {
            found.push(Finding::error(
                Area::Rfkill,
                "soft",
                format!("the radio {name} is blocked by software"),
                "if that is not meant: `sudo rfkill unblock bluetooth`; then `bluetoothctl power on`",
            ));
        }
    }
    if found.is_empty() {
        let none = if switches.is_empty() { "no radio has a switch" } else { "no radio is blocked" };
        found.push(Finding::ok(Area::Rfkill, "open", none));
    }
    found
}

fn adapter(facts: &Facts<'_>) -> Finding {
    let Answer::Adapters(adapters) = &facts.answer else {
        return Finding::skipped(Area::Adapter, "bluez", "BlueZ has to answer first");
    };
    let known: Vec<&str> = adapters.iter().map(|adapter| adapter.name.as_str()).collect();
    let found = adapters.iter().find(|adapter| facts.wanted.is_none_or(|wanted| adapter.name == wanted));
    match (found, facts.wanted) {
        (None, Some(wanted)) if !known.is_empty() => Finding::error(
            Area::Adapter,
            "other",
            format!("there is no adapter {wanted}, there is {}", known.join(", ")),
            "plug it in, or change `ble.adapter` of the configuration and restart the daemon",
        ),
        (None, _) => Finding::error(
            Area::Adapter,
            "absent",
            "BlueZ has no Bluetooth adapter",
            "plug one in, see `sudo dmesg | grep -i bluetooth` and `rfkill list`; a Raspberry Pi's own needs hciuart: `systemctl status \
             hciuart`",
        ),
        (Some(adapter), _) if !adapter.powered => Finding::error(
            Area::Adapter,
            "off",
            format!(
                "the adapter {} is off; the daemon never switches one on that a person has switched off",
                adapter.name
            ),
            "if that is not meant: `bluetoothctl power on`",
        ),
        (Some(adapter), _) => {
            Finding::ok(Area::Adapter, "on", format!("the adapter {} ({}) is on", adapter.name, adapter.address))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::Level;

    fn adapter_of(name: &str, powered: bool) -> Adapter {
        Adapter { name: name.to_owned(), address: "00:AA:01:00:00:42".to_owned(), powered, discovering: false }
    }

    fn error(cause: Cause) -> BluezError {
        BluezError { doing: "asking BlueZ for its adapters", cause }
    }

    fn switch(soft: bool, hard: bool) -> Vec<Switch> {
        vec![Switch { name: "hci0".to_owned(), soft, hard }]
    }

    /// The one finding of an area.
    fn of(area: Area, facts: &Facts<'_>) -> Finding {
        let mut found: Vec<Finding> = judge(facts).into_iter().filter(|finding| finding.area == area).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn each_finding_about_bluetooth_says_what_to_do() {
        let (member, outsider) = (Account::named("vitalbridge", &[GROUP]), Account::named("vitalbridge", &["dialout"]));
        let on = || Answer::Adapters(vec![adapter_of("hci0", true)]);
        let good = |answer: Answer| Facts {
            answer,
            version: numbers("5.82"),
            switches: switch(false, false),
            wanted: None,
            account: &member,
        };
        let no_bus = || Answer::NoBus(error(Cause::NoBus("no such file".to_owned())));
        let denied = || Answer::Refused(error(Cause::AccessDenied("no".to_owned())));
        let late = || Answer::Refused(error(Cause::Timeout(Duration::from_secs(5))));
        let old = || Facts { version: numbers("bluetoothctl: 5.55"), ..good(on()) };
        let table = [
            (good(no_bus()), Area::Dbus, "unreachable", Level::Error, "systemctl start dbus"),
            (good(no_bus()), Area::Bluez, "bus", Level::Skipped, ""),
            (good(no_bus()), Area::Adapter, "bluez", Level::Skipped, ""),
            (good(denied()), Area::Dbus, "denied", Level::Error, "usermod -aG bluetooth"),
            (good(denied()), Area::Bluez, "denied", Level::Skipped, ""),
            (
                Facts { account: &outsider, ..good(on()) },
                Area::Dbus,
                "group",
                Level::Warning,
                "usermod -aG bluetooth vitalbridge",
            ),
            (good(on()), Area::Dbus, "reached", Level::Ok, ""),
            (good(Answer::NotRunning), Area::Bluez, "not_running", Level::Error, "systemctl enable --now bluetooth"),
            (good(late()), Area::Bluez, "silent", Level::Error, "systemctl restart bluetooth"),
            (old(), Area::Bluez, "old", Level::Warning, "Debian 12"),
            (Facts { version: None, ..good(on()) }, Area::Bluez, "version_unknown", Level::Warning, "5.66 or later"),
            (good(on()), Area::Bluez, "runs", Level::Ok, ""),
            (
                Facts { switches: switch(true, false), ..good(on()) },
                Area::Rfkill,
                "soft",
                Level::Error,
                "rfkill unblock bluetooth",
            ),
            (Facts { switches: switch(true, true), ..good(on()) }, Area::Rfkill, "hard", Level::Error, "disable-bt"),
            (Facts { switches: Vec::new(), ..good(on()) }, Area::Rfkill, "open", Level::Ok, ""),
            (good(Answer::Adapters(Vec::new())), Area::Adapter, "absent", Level::Error, "plug one in"),
            (Facts { wanted: Some("hci1"), ..good(on()) }, Area::Adapter, "other", Level::Error, "ble.adapter"),
            (
                Facts { wanted: Some("hci1"), ..good(Answer::Adapters(Vec::new())) },
                Area::Adapter,
                "absent",
                Level::Error,
                "plug",
            ),
            (
                good(Answer::Adapters(vec![adapter_of("hci0", false)])),
                Area::Adapter,
                "off",
                Level::Error,
                "bluetoothctl power on",
            ),
            (Facts { wanted: Some("hci0"), ..good(on()) }, Area::Adapter, "on", Level::Ok, ""),
        ];
        for (facts, area, check, level, advice) in table {
            let found = of(area, &facts);
            assert_eq!((found.check, found.level), (check, level), "{facts:?}");
            assert!(found.advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
        for finding in skip("no source uses Bluetooth") {
            assert_eq!((finding.check, finding.level), ("unused", Level::Skipped));
        }
    }

    #[test]
    fn a_version_is_read_from_either_program() {
        for (text, expected) in [
            ("5.66", Some((5, 66))),
            ("bluetoothctl: 5.82", Some((5, 82))),
            ("5.82rc1", Some((5, 82))),
            ("", None),
            ("none", None),
        ] {
            assert_eq!(numbers(text).map(|(version, _)| version), expected, "{text}");
        }
    }

    #[test]
    fn switches_are_those_of_bluetooth_radios() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind, soft, hard) in
            [("rfkill0", "wlan", "1", "1"), ("rfkill1", "bluetooth", "1", "0"), ("rfkill2", "bluetooth", "0", "1")]
        {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            for (file, text) in [("type", kind), ("soft", soft), ("hard", hard), ("name", name)] {
                std::fs::write(path.join(file), format!("{text}\n")).unwrap();
            }
        }
        let expected = [
            Switch { name: "rfkill1".to_owned(), soft: true, hard: false },
            Switch { name: "rfkill2".to_owned(), soft: false, hard: true },
        ];
        assert_eq!(switches_in(dir.path()), expected);
        assert_eq!(switches_in(&dir.path().join("nowhere")), []);
    }
}
