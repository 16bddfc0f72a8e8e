//! The whole daemon killed at random points under load, with a real broker: what was committed stays, and arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::{now, program};
use crate::broker::Broker;
use crate::mqtt::Store;
use crate::store_faults::House;
use crate::tally::{Identity, Outcome, Tally};

/// What a copy of the database has, as after a power cut: the killed daemon's own files stay as they are.
fn committed(state: &Path) -> BTreeSet<Identity> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["vitals.db", "vitals.db-wal"] {
        // Before the first start there is none, and after a clean one no log.
        let _ = std::fs::copy(state.join(name), copy.path().join(name));
    }
    let database = copy.path().join("vitals.db");
    if std::fs::metadata(&database).map_or(0, |file| file.len()) == 0 {
        return BTreeSet::new();
    }
    let connection = rusqlite::Connection::open(&database).unwrap();
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'event'", [], |row| row.get(0)).unwrap();
    drop(connection);
    if tables == 0 { BTreeSet::new() } else { House::stored_in(&database) }
}

/// How often daemons are killed.
const KILLS: usize = 200;

/// Daemons at once.
const DAEMONS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_at_random_points_under_load_lose_nothing_that_was_committed() {
    let seed = std::env::var("VITALBRIDGE_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path());
    let tally = Arc::new(Tally::start(broker.port()));
    let port = broker.port();
    let mut lives = Vec::new();
    for number in 0..DAEMONS {
        let tally = Arc::clone(&tally);
        lives.push(std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(u64::try_from(number).unwrap()));
            let house = House::new(port);
            let name = format!("k{number}");
            house.write(&name, 40, "");
            // One life shows how long a start takes here; a point before its end is as random as one under load.
            let began = now();
            let first = house.start();
            let start = now().since(began).clamp(Duration::from_millis(100), Duration::from_millis(700));
            first.kill();
            let (mut kept, mut looks) = (BTreeSet::new(), 0);
            for life in 0..KILLS / DAEMONS {
                let mut command = program();
                command.args(house.arguments()).stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().unwrap();
                std::thread::park_timeout(start.mul_f64(random.f64() * 2.5));
                child.kill().unwrap();
                child.wait().unwrap();
                if life % 5 == 4 {
                    kept.extend(committed(&house.state()));
                    kept.extend(tally.counts(&name).into_keys());
                    looks += 1;
                }
            }
            (house, name, kept, looks)
        }));
    }
    let mut total =
        Outcome::of::<u64>("daemon killed (SIGKILL) at 200 random points", &BTreeSet::new(), &BTreeMap::new(), 0);
    let mut epochs = BTreeSet::new();
    for life in lives {
        let (house, name, kept, looks) = tokio::task::spawn_blocking(|| life.join().unwrap()).await.unwrap();
        let (produced, counts) = house.deliver_the_rest(&tally, &name).await;
        let vanished: Vec<_> = kept.iter().filter(|event| !produced.contains(*event)).collect();
        assert_eq!(vanished, Vec::<&Identity>::new(), "seed {seed}, {name}: committed and gone; {looks} looks");
        // Within the log no number is missing, whatever was hit.
        let numbers: BTreeSet<u64> = produced.iter().map(|(_, seq)| *seq).collect();
        let last = *numbers.last().unwrap();
        assert_eq!(u64::try_from(numbers.len()).unwrap(), last, "seed {seed}, {name}: numbers are missing");
        assert!(!house.state().join("vitals.db.suspect").exists());
        epochs.extend(produced.iter().map(|(epoch, _)| epoch.clone()));
        let outcome = Outcome::of(&name, &produced, &counts, 0);
        total.produced += outcome.produced;
        total.received += outcome.received;
        total.duplicates += outcome.duplicates;
        total.lost += outcome.lost;
    }
    total.print();
    println!("{} runs stored something", epochs.len());
    assert!(epochs.len() > KILLS / 5, "seed {seed}: too few of the kills came under load: {}", epochs.len());
    assert_eq!(total.lost, 0, "seed {seed}");
    broker.kill();
}

/// Events that wait for the broker in a database that is damaged then.
const FILLED: u64 = 6000;

/// How often the daemon is killed while it starts on the damaged database.
const KILLS_IN_A_SALVAGE: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_a_salvage_lose_nothing_that_could_be_read_and_nothing_untold() {
    let seed = std::env::var("VITALBRIDGE_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path());
    let tally = Tally::start(broker.port());
    broker.kill();
    let house = House::new(broker.port());
    let mut store = Store::open(&house.state(), 1);
    for _ in 0..FILLED / 1000 {
        store.append_mix(1000);
        store.settle().await;
    }
    store.close().await;
    let database = std::fs::OpenOptions::new().write(true).open(house.state().join("vitals.db")).unwrap();
    let pages = database.metadata().unwrap().len() / 4096;
    for _ in 0..4 {
        database.write_all_at(&[0xFF; 4096], random.u64(pages / 3..pages * 2 / 3) * 4096).unwrap();
    }
    drop(database);
    for _ in 0..KILLS_IN_A_SALVAGE {
        let mut command = program();
        let mut child = command.args(house.arguments()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(random.u64(5..400)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    broker.restart();
    let (produced, counts) = house.deliver_the_rest(&tally, "b1").await;
    let numbers: BTreeSet<u64> = house.stored().iter().map(|(_, seq)| *seq).collect();
    let gone: Vec<u64> = (1..=FILLED).filter(|seq| !numbers.contains(seq)).collect();
    assert!(!gone.is_empty() && gone.len() < 2000, "seed {seed}: {} of {FILLED} are gone", gone.len());
    let told = house.told_lost();
    let is_told = |seq: &u64| told.iter().any(|range| range.0 <= Some(*seq) && Some(*seq) <= range.1);
    let untold: Vec<&u64> = gone.iter().filter(|seq| !is_told(seq)).collect();
    assert_eq!(untold, Vec::<&u64>::new(), "seed {seed}: told are {told:?}");
    let fault = format!("daemon killed (SIGKILL) {KILLS_IN_A_SALVAGE} times while it mends a damaged database");
    let outcome = Outcome::of(&fault, &produced, &counts, 0);
    outcome.print();
    assert_eq!(outcome.lost, 0, "seed {seed}: {outcome:?}");
}
