//! The time of day, who sets it, and the clock with a battery: times that are wrong make records that are wrong.

use std::path::Path;

use crate::clock::Wall;
use crate::doctor::{Area, Ended, Finding, Patient, blocking, output_of};
use crate::store;

/// 2026-01-01: no installation of this program is older.
const NOT_EARLIER: Wall = Wall(1_767_225_600_000);

/// The clock and the one with a battery, or the newest stored event, may differ by this, in ms.
const APART_MS: i64 = 60_000;

/// Clocks of the kernel that are looked at.
const RTC: &str = "/sys/class/rtc";

/// A cell of 3 V is empty long before; without one there are some hundredths.
const EMPTY_BELOW_UV: u64 = 1_000_000;

/// Who sets the clock, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synchronised {
    Yes,
    No,
    /// No service for it is switched on.
    SwitchedOff,
    /// There is nobody to ask.
    Unknown,
}

/// The clock with a battery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rtc {
    Absent,
    /// It is there, and does not say a time.
    Silent,
    /// It runs by the machine's supply alone, as that of a Raspberry Pi 5 does, and says so.
    NoBattery,
    Says(Wall),
}

#[derive(Debug)]
struct Facts {
    now: Wall,
    synchronised: Synchronised,
    rtc: Rtc,
    /// The time of the newest event in the store.
    newest: Option<Wall>,
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let asked = output_of("timedatectl", &["show", "--property=NTP", "--property=NTPSynchronized"]).await;
    let dir = patient.state_dir.clone();
    // What is wrong with the store is said by its own check.
    let newest = blocking(move || store::newest_time(&dir).ok().flatten()).await;
    let rtc = blocking(|| rtc_in(Path::new(RTC))).await;
    judge(&Facts { now: patient.now, synchronised: synchronised(asked), rtc, newest })
}

/// From the answer of `timedatectl show`: it knows the kernel's own word, whoever sets the clock.
fn synchronised(answer: Result<String, Ended>) -> Synchronised {
    let Ok(text) = answer else { return Synchronised::Unknown };
    let is = |line: &str| text.lines().any(|found| found.trim() == line);
    if is("NTPSynchronized=yes") {
        Synchronised::Yes
    } else if is("NTP=no") {
        Synchronised::SwitchedOff
    } else if is("NTPSynchronized=no") {
        Synchronised::No
    } else {
        Synchronised::Unknown
    }
}

fn rtc_in(folder: &Path) -> Rtc {
    let first = folder.join("rtc0");
    if !first.exists() {
        return Rtc::Absent;
    }
    // Of a Raspberry Pi 5, in millionths of a volt.
    let volts =
        std::fs::read_to_string(first.join("battery_voltage")).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if volts.is_some_and(|microvolts| microvolts < EMPTY_BELOW_UV) {
        return Rtc::NoBattery;
    }
    let seconds =
        std::fs::read_to_string(first.join("since_epoch")).ok().and_then(|text| text.trim().parse::<i64>().ok());
    seconds.map_or(Rtc::Silent, |seconds| Rtc::Says(Wall(seconds.saturating_mul(1000))))
}

fn judge(facts: &Facts) -> Vec<Finding> {
    vec![of_day(facts), of_battery(facts)]
}

fn of_day(facts: &Facts) -> Finding {
    let now = facts.now;
    if now < NOT_EARLIER {
        let advice = "connect the network so that NTP sets it, or set it with `sudo timedatectl set-ntp false` and `sudo timedatectl set-time \
                      'YYYY-MM-DD hh:mm:ss'`; times of readings taken until then are marked, certificates are refused";
        return Finding::error(Area::Clock, "not_set", format!("the clock is not set: it says {now}"), advice);
    }
    if let Some(newest) = facts.newest.filter(|newest| newest.0.saturating_sub(now.0) > APART_MS) {
        let message = format!("the clock says {now}, and the newest stored event is of {newest}");
        let advice = "one of the two was wrong: compare with a watch, and let NTP set the clock (`sudo timedatectl set-ntp true`)";
        return Finding::error(Area::Clock, "behind", message, advice);
    }
    match facts.synchronised {
        Synchronised::Yes => Finding::ok(Area::Clock, "synchronised", format!("synchronised, it says {now}")),
        Synchronised::SwitchedOff => Finding::warning(
            Area::Clock,
            "not_synchronised_by_anybody",
            "no service sets the clock",
            "switch one on with `sudo timedatectl set-ntp true` (Debian: `sudo apt install systemd-timesyncd`)",
        ),
        Synchronised::No => Finding::warning(
            Area::Clock,
            "not_synchronised",
            "the clock has not been synchronised since boot",
            "see `timedatectl timesync-status`: the network must let NTP (UDP 123) through, or name a server of your own in \
             /etc/systemd/timesyncd.conf",
        ),
        Synchronised::Unknown => Finding::warning(
            Area::Clock,
            "synchronisation_unknown",
            "nobody can tell whether the clock is synchronised: `timedatectl` does not answer",
            "install systemd-timesyncd or chrony, and see `systemctl status systemd-timedated`",
        ),
    }
}

fn of_battery(facts: &Facts) -> Finding {
    let now = facts.now;
    match facts.rtc {
        Rtc::Absent => Finding::warning(
            Area::Rtc,
            "absent",
            "there is no clock with a battery: after a power cut without a network the time is wrong",
            "add one (Raspberry Pi 5: a battery at J5; others: a DS3231 with `dtoverlay=i2c-rtc,ds3231`)",
        ),
        Rtc::Silent => Finding::warning(
            Area::Rtc,
            "silent",
            "the clock with a battery does not say a time",
            "its battery is empty or missing: replace it, then `sudo hwclock --systohc`",
        ),
        Rtc::NoBattery => Finding::warning(
            Area::Rtc,
            "no_battery",
            "the clock has no battery: it is right while the machine has power, and after a power cut without a network it is not",
            "plug the battery for a Raspberry Pi 5 in at J5, then `sudo hwclock --systohc`",
        ),
        Rtc::Says(time) if time < NOT_EARLIER => Finding::warning(
            Area::Rtc,
            "not_set",
            format!("the clock with a battery says {time}"),
            "set it with `sudo hwclock --systohc` once the time is right; if it is wrong again after a power cut, replace its battery",
        ),
        Rtc::Says(time) if time.0.abs_diff(now.0) > APART_MS.unsigned_abs() => Finding::warning(
            Area::Rtc,
            "apart",
            format!("the clock with a battery says {time}, the system {now}"),
            "once the system's time is right, set the other with `sudo hwclock --systohc`",
        ),
        Rtc::Says(_) => Finding::ok(Area::Rtc, "right", "the clock with a battery says the same time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    const NOW: Wall = Wall(1_795_000_000_000);

    fn facts() -> Facts {
        Facts { now: NOW, synchronised: Synchronised::Yes, rtc: Rtc::Says(Wall(NOW.0 - 900)), newest: Some(NOW) }
    }

    #[test]
    fn each_finding_of_the_clocks_says_what_to_do() {
        let early = Wall(1_000_000);
        let later = Some(Wall(NOW.0 + APART_MS + 1));
        for (facts, check, level, advice) in [
            (facts(), "synchronised", Level::Ok, ""),
            (Facts { now: early, newest: None, ..facts() }, "not_set", Level::Error, "sudo timedatectl set-time"),
            (Facts { newest: later, ..facts() }, "behind", Level::Error, "timedatectl set-ntp true"),
            (Facts { newest: Some(Wall(NOW.0 + APART_MS)), ..facts() }, "synchronised", Level::Ok, ""),
            (Facts { synchronised: Synchronised::No, ..facts() }, "not_synchronised", Level::Warning, "UDP 123"),
            (
                Facts { synchronised: Synchronised::SwitchedOff, ..facts() },
                "not_synchronised_by_anybody",
                Level::Warning,
                "timedatectl set-ntp true",
            ),
            (
                Facts { synchronised: Synchronised::Unknown, ..facts() },
                "synchronisation_unknown",
                Level::Warning,
                "chrony",
            ),
        ] {
            let found = &judge(&facts)[0];
            assert_eq!((found.area, found.check, found.level), (Area::Clock, check, level), "{facts:?}");
            assert!(found.advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
        for (rtc, check, level, advice) in [
            (Rtc::Absent, "absent", Level::Warning, "DS3231"),
            (Rtc::Silent, "silent", Level::Warning, "battery"),
            (Rtc::NoBattery, "no_battery", Level::Warning, "J5"),
            (Rtc::Says(Wall(0)), "not_set", Level::Warning, "hwclock --systohc"),
            (Rtc::Says(Wall(NOW.0 - APART_MS - 1)), "apart", Level::Warning, "hwclock --systohc"),
            (Rtc::Says(Wall(NOW.0 + APART_MS)), "right", Level::Ok, ""),
        ] {
            let found = &judge(&Facts { rtc, ..facts() })[1];
            assert_eq!((found.area, found.check, found.level), (Area::Rtc, check, level));
            assert!(found.advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
    }

    #[test]
    fn the_answer_of_timedatectl_is_read() {
        for (answer, expected) in [
            (Ok("NTP=yes\nNTPSynchronized=yes"), Synchronised::Yes),
            // chrony sets it, which systemd does not manage.
            (Ok("NTP=no\nNTPSynchronized=yes"), Synchronised::Yes),
            (Ok("NTP=yes\nNTPSynchronized=no"), Synchronised::No),
            (Ok("NTP=no\nNTPSynchronized=no"), Synchronised::SwitchedOff),
            (Ok(""), Synchronised::Unknown),
            (Err(Ended::NotThere), Synchronised::Unknown),
        ] {
            assert_eq!(synchronised(answer.clone().map(str::to_owned)), expected, "{answer:?}");
        }
    }

    #[test]
    fn the_clock_with_a_battery_is_found_where_the_kernel_has_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(rtc_in(dir.path()), Rtc::Absent);
        std::fs::create_dir(dir.path().join("rtc0")).unwrap();
        assert_eq!(rtc_in(dir.path()), Rtc::Silent);
        std::fs::write(dir.path().join("rtc0/since_epoch"), "1795000000\n").unwrap();
        assert_eq!(rtc_in(dir.path()), Rtc::Says(NOW));
        for (microvolts, expected) in
            [("3011000\n", Rtc::Says(NOW)), ("23400\n", Rtc::NoBattery), ("odd", Rtc::Says(NOW))]
        {
            std::fs::write(dir.path().join("rtc0/battery_voltage"), microvolts).unwrap();
            assert_eq!(rtc_in(dir.path()), expected, "{microvolts}");
        }
    }
}
