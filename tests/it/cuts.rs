//! A thousand cuts: dashboards of the real binary that are cut off at random, while it is stopped and killed under them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::bridge::{Bridge, eventually, token};
use crate::dashboard::{Came, Dashboard};

/// Names an event for ever.
type Identity = (String, u64);

/// Dashboards at once.
const DASHBOARDS: usize = 10;

/// How often all of them together are cut off.
const CUTS: usize = 1000;

/// Most events between two cuts of a dashboard.
const EVENTS_A_CONNECTION: usize = 10;

/// What is cut is listened to on these channels: everything but messages for people, which wait for who is away.
const CHANNELS: [&str; 5] = ["patient/#", "alerts/#", "device/#", "system", "audit"];

/// A row of a recording is a quarter of a second long here.
const SPEED: u32 = 4;

fn home(dir: &Path) -> String {
    let mut rows = "t_s,spo2,pulse_rate\n".to_owned();
    for row in 0..4000 {
        writeln!(rows, "{row},{},{}", 95 + row % 4, 60 + row % 20).unwrap();
    }
    std::fs::write(dir.join("numerics.csv"), rows).unwrap();
    let mut beds = String::new();
    for bed in 1..=6 {
        writeln!(
            beds,
            "[[patient]]\nid = 'P-{bed}'\nbed = '{bed}'\n[[source]]\nid = 's-{bed}'\nkind = 'replay'\n\
             file = 'numerics.csv'\nspeed = {SPEED}\npatient = 'P-{bed}'\nmode = 'test'"
        )
        .unwrap();
    }
    let config = format!(
        "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\ngroup_commit_ms = 200\n\
         [alerts]\nannunciators = 'none'\n{beds}"
    );
    let file = dir.join("vitalbridge.toml");
    std::fs::write(&file, config).unwrap();
    file.to_str().unwrap().to_owned()
}

/// What all dashboards share.
#[derive(Default)]
struct Ward {
    address: Mutex<Option<String>>,
    cuts: AtomicUsize,
}

/// What one dashboard knows.
#[derive(Default)]
struct Seen {
    /// In the order in which it came.
    events: Vec<Identity>,
    /// Ranges that it was told are lost.
    lost: Vec<(u64, u64)>,
    /// Ranges of which it was told that so many were skipped.
    gaps: Vec<(u64, u64, u64)>,
    /// The first number that it could have seen.
    first: Option<u64>,
}

impl Seen {
    /// One connection, until it breaks or so many events have come.
    async fn watch(&mut self, address: &str, token: &str, most: usize) -> bool {
        let bearer = format!("Bearer {token}");
        let Ok(mut dashboard) = Dashboard::connect(address, "/ws", &[("Authorization", &bearer)]).await else {
            return false;
        };
        let mut subscribe = json!({"type": "subscribe", "channels": CHANNELS, "delivery": "all"});
        if let Some((epoch, seq)) = self.events.last() {
            subscribe["since"] = json!({"epoch": epoch, "seq": seq});
        }
        dashboard.say(&subscribe).await;
        // Until the snapshot, what is newer than the join has overtaken the missed events and does not move the position.
        let (mut last_missed, mut ahead, mut came) = (None, Vec::new(), 0);
        while came < most {
            let Came::Message(message) = dashboard.read().await else { return came > 0 };
            match message["type"].as_str().unwrap() {
                "subscribed" => {
                    let data = &message["data"];
                    assert_eq!(data["recovered"].as_bool().unwrap(), subscribe["since"].is_object(), "{message}");
                    self.told_lost(&data["lost"]);
                    last_missed = data["last_seq"].as_u64();
                    self.first.get_or_insert(data["first_seq"].as_u64().unwrap());
                }
                "snapshot" => {
                    last_missed = None;
                    self.events.append(&mut ahead);
                }
                "gap" => {
                    let at = |name: &str| message["data"][name].as_u64().unwrap();
                    self.gaps.push((at("from"), at("to"), at("skipped")));
                }
                _ if message["channel"].is_string() => {
                    came += 1;
                    let event = (message["epoch"].as_str().unwrap().to_owned(), message["seq"].as_u64().unwrap());
                    if last_missed.is_some_and(|last| event.1 > last) {
                        ahead.push(event);
                    } else {
                        self.events.push(event);
                    }
                }
                _ => {}
            }
        }
        true
    }

    fn told_lost(&mut self, ranges: &Json) {
        for range in ranges.as_array().unwrap() {
            self.lost.push((range[0].as_u64().unwrap(), range[1].as_u64().unwrap()));
        }
    }
}

/// Every event on [`CHANNELS`] in the log of a daemon that has ended, and the numbers that nobody gets.
fn stored(state: &Path) -> BTreeSet<Identity> {
    let database = rusqlite::Connection::open(state.join("vitals.db")).unwrap();
    // A row belongs to the last run that began at or before it.
    let sql = "SELECT (SELECT name FROM epoch WHERE first_seq <= seq ORDER BY id DESC LIMIT 1), seq FROM
        (SELECT seq FROM reading UNION ALL SELECT seq FROM event WHERE kind NOT IN ('inbox', 'notification'))";
    let mut statement = database.prepare(sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).unwrap();
    found.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cuts_over_stops_and_kills_lose_nothing_and_bring_nothing_twice() {
    let seed = std::env::var("VITALBRIDGE_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let file = home(dir.path());
    let arguments = ["run", "--config", file.as_str()];
    let mut bridge = Bridge::start(&arguments);
    let state = dir.path().join("state");
    let ward = Arc::new(Ward::default());
    *ward.address.lock().unwrap() = Some(bridge.address.clone());

    let mut dashboards = JoinSet::new();
    for number in 0..DASHBOARDS {
        let token = token(&state, &["--role", "viewer", "--user", &format!("d{number}")]);
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(u64::try_from(number).unwrap()));
        let ward = Arc::clone(&ward);
        dashboards.spawn(async move {
            let mut seen = Seen::default();
            while ward.cuts.load(Ordering::Relaxed) < CUTS {
                let address = ward.address.lock().unwrap().clone();
                let was_cut = match address {
                    Some(address) => seen.watch(&address, &token, random.usize(1..=EVENTS_A_CONNECTION)).await,
                    None => false,
                };
                if was_cut {
                    ward.cuts.fetch_add(1, Ordering::Relaxed);
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            seen
        });
    }

    let mut random = fastrand::Rng::with_seed(seed);
    let (mut runs, limit) = (1, Duration::from_mins(2));
    for at in [150, 300, 450, 600, 750, 900] {
        let at = at + random.usize(0..50);
        let cuts = || (ward.cuts.load(Ordering::Relaxed) >= at).then_some(());
        eventually("cuts", limit, cuts).await;
        // By turns as by a power cut, and in order.
        *ward.address.lock().unwrap() = None;
        if runs % 3 == 0 {
            assert_eq!(bridge.stop(), Some(0));
        } else {
            bridge.kill();
        }
        bridge = Bridge::start(&arguments);
        *ward.address.lock().unwrap() = Some(bridge.address.clone());
        runs += 1;
    }
    let mut all = Vec::new();
    while let Some(seen) = dashboards.join_next().await {
        all.push(seen.unwrap());
    }
    assert_eq!(bridge.stop(), Some(0));

    let produced = stored(&state);
    let epochs: BTreeSet<&String> = produced.iter().map(|(epoch, _)| epoch).collect();
    assert_eq!(epochs.len(), runs, "seed {seed}: each run has stored something");
    let mut events = 0;
    for (number, seen) in all.iter().enumerate() {
        let once: BTreeSet<&Identity> = seen.events.iter().collect();
        assert_eq!(once.len(), seen.events.len(), "seed {seed}, dashboard {number}: an event came twice");
        let (first, (_, last)) = (seen.first.unwrap(), seen.events.last().unwrap());
        let is_lost = |seq: u64| seen.lost.iter().any(|(from, to)| (*from..=*to).contains(&seq));
        let mut missing = 0;
        for event in produced.iter().filter(|(_, seq)| (first..=*last).contains(seq)) {
            // Each exactly once: it came, or it was told as skipped, which a busy machine may do.
            if !once.contains(event) {
                let is_told = seen.gaps.iter().any(|(from, to, _)| (*from..=*to).contains(&event.1));
                assert!(is_told, "seed {seed}, dashboard {number}: {event:?} is missing");
                missing += 1;
            }
            assert!(!is_lost(event.1), "seed {seed}, dashboard {number}: {event:?} was told as lost, and is not");
        }
        // What was skipped before a cut comes again after it.
        let told: u64 = seen.gaps.iter().map(|(.., skipped)| skipped).sum();
        assert!(told >= missing, "seed {seed}, dashboard {number}: {missing} missing, {:?}", seen.gaps);
        events += once.len();
    }
    let cuts = ward.cuts.load(Ordering::Relaxed);
    println!("{cuts} cuts, {runs} runs, {events} events, {} stored", produced.len());
    assert!(cuts >= CUTS && events > CUTS);
}
