//! What eight straps and a cuff cost the whole daemon, and that no reading is lost on the way to a dashboard.
//!
//! A few seconds as a test; for figures, minutes of a release build, as docs/ble.md says.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::ble::BEATING;
use crate::ble_faults::{USUAL_MATCH_RULES, left_behind};
use crate::ble_whole::{CUFF, Daemon, config, cuff, now};
use crate::fake_bluez::{Bus, FakeBluez, PATIENCE, Pairs, Strap, World};

/// How long, in seconds, if it is to be longer than the test.
const SECONDS: &str = "VITALBRIDGE_LOAD_SECONDS";
/// The fake's turns in a second.
const TURNS_A_SECOND: u64 = 100;
/// How often somebody measures with the cuff.
const BETWEEN_MEASUREMENTS: Duration = Duration::from_secs(20);
const STRAPS: [&str; 8] = [
    "C0:FF:EE:00:01:01",
    "C0:FF:EE:00:01:02",
    "C0:FF:EE:00:01:03",
    "C0:FF:EE:00:01:04",
    "C0:FF:EE:00:01:05",
    "C0:FF:EE:00:01:06",
    "C0:FF:EE:00:01:07",
    "C0:FF:EE:00:01:08",
];

/// What a process has used: seconds of processor time, and its memory now and at most, in KiB.
struct Used {
    seconds: f64,
    resident: u64,
    most_resident: u64,
}

fn used(pid: u32) -> Used {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name in parentheses; proc(5): utime and stime are the 14th and 15th, in hundredths of a second.
    let after_the_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u32 = after_the_name[11..13].iter().map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Used { seconds: f64::from(ticks) / 100.0, resident: kib("VmRSS:"), most_resident: kib("VmHWM:") }
}

/// The sensors, near a daemon that looks for them.
struct Ward {
    bus: Bus,
    bluez: FakeBluez,
    daemon: Daemon,
    /// Readings at the dashboard, by source and metric.
    came: BTreeMap<(String, String), u64>,
}

impl Ward {
    async fn start() -> Self {
        let mut bus = Bus::absent();
        bus.match_rules = USUAL_MATCH_RULES;
        bus.run().await;
        let straps = STRAPS.into_iter().map(|address| Strap::new(address, "Strap").sending(&BEATING));
        let mut asleep: Vec<Strap> = straps.chain([cuff(Pairs::JustWorks)]).collect();
        for sensor in &mut asleep {
            (sensor.in_range, sensor.beat_turns) = (false, TURNS_A_SECOND);
        }
        let bluez = FakeBluez::start(&bus, World::new(asleep)).await;
        let sensors = STRAPS.map(|address| (address, "heart_rate"));
        let daemon = Daemon::start(&bus, &config(&[sensors.as_slice(), &[(CUFF, "blood_pressure")]].concat())).await;
        // The dashboard is there from the first measurement on.
        bluez.change(|world| STRAPS.iter().for_each(|address| world.strap(address).in_range = true)).await;
        Self { bus, bluez, daemon, came: BTreeMap::new() }
    }

    /// Takes one message of the dashboard; none may say that something was left out.
    async fn take(&mut self) {
        let message = self.daemon.dashboard.next().await;
        assert_ne!(message["type"], "gap", "{message}");
        let of = |name: &str| message["data"][name].as_str().map(ToOwned::to_owned);
        if let (Some(source), Some(metric)) = (of("source_id"), of("metric")) {
            *self.came.entry((source, metric)).or_default() += 1;
        }
    }

    fn came(&self, source: usize, metric: &str) -> u64 {
        self.came.get(&(format!("source-{source}"), metric.to_owned())).copied().unwrap_or(0)
    }

    async fn until_all_straps_send(&mut self) {
        while (0..STRAPS.len()).any(|source| self.came(source, "heart_rate") == 0) {
            self.take().await;
        }
    }

    /// Somebody measures now and then: the cuff is there until it has told its measurement.
    async fn run(&mut self, duration: Duration) {
        let began = now();
        let mut measurements = 0;
        while began.elapsed() < duration {
            let is_due = began.elapsed() >= BETWEEN_MEASUREMENTS * measurements;
            measurements += u32::from(is_due);
            let wanted = u64::from(measurements);
            self.bluez
                .change(move |world| {
                    let cuff = world.strap(CUFF);
                    cuff.in_range = cuff.sent < wanted;
                })
                .await;
            self.take().await;
        }
    }

    /// Stops the sensors, and waits until as much has come as was sent: gives both, of all straps and of the cuff.
    async fn settle(&mut self) -> ((u64, u64), (u64, u64)) {
        let sent = self
            .bluez
            .change(|world| {
                world.straps.iter_mut().for_each(|strap| strap.measurement = None);
                let of_straps = STRAPS.iter().map(|address| world.strap(address).sent).sum::<u64>();
                (of_straps, world.strap(CUFF).sent)
            })
            .await;
        let all = |ward: &Self| {
            let rates = (0..STRAPS.len()).map(|source| ward.came(source, "heart_rate")).sum::<u64>();
            (rates, ward.came(STRAPS.len(), "blood_pressure"))
        };
        let settling = async {
            while all(self) != sent {
                self.take().await;
            }
        };
        // What is missing then is shown by what is compared.
        let _ = tokio::time::timeout(PATIENCE, settling).await;
        let came = all(self);
        ((sent.0, came.0), (sent.1, came.1))
    }
}

#[tokio::test]
async fn eight_straps_and_a_cuff_reach_the_dashboard_without_a_loss() {
    let seconds = std::env::var(SECONDS).map_or(6, |seconds| seconds.parse().unwrap());
    let mut ward = Ward::start().await;
    ward.until_all_straps_send().await;
    let pid = ward.daemon.bridge.pid();
    let (before, began) = (used(pid), now());
    let at_first = left_behind(&ward.bus, pid).await;
    ward.run(Duration::from_secs(seconds)).await;
    let (after, elapsed) = (used(pid), began.elapsed().as_secs_f64());
    let at_last = left_behind(&ward.bus, pid).await;
    let radio = ward.daemon.radio().await;
    let (straps, cuffs) = ward.settle().await;
    let processor = after.seconds - before.seconds;
    let counts = |(files, threads, rules): (usize, usize, i64)| format!("{files} / {threads} / {rules}");
    let rows = [
        ("time", format!("{elapsed:.0} s")),
        ("processor time", format!("{processor:.2} s, {:.2} % of one core", 100.0 * processor / elapsed)),
        ("memory, resident / at most", format!("{} / {} KiB", after.resident, after.most_resident)),
        ("file descriptors / threads / match rules at the first reading", counts(at_first)),
        ("the same at the end", counts(at_last)),
        ("tasks of the Bluetooth thread", radio["radio_tasks"].to_string()),
        (
            "Bluetooth threads started, match rules leaked",
            format!("{}, {}", radio["radio"]["counts"]["generations"], radio["match_rules_leaked"]),
        ),
        ("heart rates sent / at the dashboard", format!("{} / {}", straps.0, straps.1)),
        ("blood pressures sent / at the dashboard", format!("{} / {}", cuffs.0, cuffs.1)),
    ];
    println!("| 8 straps at 1 Hz, a cuff every 20 s, a dashboard | |\n|---|---|");
    for (name, value) in rows {
        println!("| {name} | {value} |");
    }
    assert_eq!(straps.0, straps.1);
    assert_eq!(cuffs.0, cuffs.1);
    assert!(straps.0 > 0 && cuffs.0 > 0, "{straps:?} {cuffs:?}");
    let live = radio["sensors"].as_array().unwrap().iter().filter(|sensor| sensor["phase"] == "live").count();
    assert_eq!(live, STRAPS.len(), "{radio}");
    assert_eq!(radio["radio"]["obstacle"], Value::Null);
    // The cuff makes and ends a link meanwhile, which is one match rule.
    assert!(at_last.0 <= at_first.0 + 2 && at_last.1 <= at_first.1 + 2, "{at_first:?} {at_last:?}");
    let leaked = radio["match_rules_leaked"].as_i64().unwrap();
    assert!(at_last.2 - leaked <= at_first.2 + 2, "{at_first:?} {at_last:?}");
}
