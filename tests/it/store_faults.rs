//! The store under fault, with the whole daemon on a real file: nothing that was committed is lost, everything else goes on,
//! an alert tells, and it heals by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::bridge::{Bridge, eventually, program, signal, token};
use crate::broker::Broker;
use crate::dashboard::Dashboard;
use crate::mounts;
use crate::mqtt::{Store, free_port};
use crate::tally::{Identity, Outcome, Tally};

/// Everything that must happen happens within this time, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(90);

/// An override that makes every saturation too low, at once.
const STRICT: &str = "[patient.\"P-1\".rule.spo2_low]\nwhen = { below = 99 }\nclear = { at_least = 100 }\ndelay = \"1s\"\n\
    reason = \"test\"\nby = \"test\"\nexpires = \"2099-01-01T00:00:00Z\"\n";

/// A bridge with one recorded patient, its broker, and what reached that.
pub(crate) struct House {
    dir: tempfile::TempDir,
    port: u16,
}

impl House {
    /// `port` is that of its broker.
    pub(crate) fn new(port: u16) -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap(), port };
        std::fs::create_dir(house.state()).unwrap();
        let mut rows = "t_s,HR,SpO2\n".to_owned();
        for row in 0..4000 {
            writeln!(rows, "{row},{},{}", 60 + row % 20, 95 + row % 4).unwrap();
        }
        std::fs::write(house.path("numerics.csv"), rows).unwrap();
        house.write("b1", 2, "");
        house.rules("");
        house
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The configuration, with `mqtt` in the section of the broker.
    pub(crate) fn write(&self, bridge: &str, speed: u32, mqtt: &str) {
        let text = format!(
            "[bridge]\nid = '{bridge}'\n[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\ngroup_commit_ms = 200\n\
             [alerts]\nrules = 'rules.toml'\nannunciators = 'none'\n\
             [mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\nbacklog_per_second = 0\n{mqtt}\n\
             [[patient]]\nid = 'P-1'\n[[source]]\nid = 's-1'\nkind = 'replay'\nfile = 'numerics.csv'\nspeed = {speed}\n\
             patient = 'P-1'\nmode = 'test'\n",
            self.port
        );
        std::fs::write(self.path("vitalbridge.toml"), text).unwrap();
    }

    fn rules(&self, text: &str) {
        std::fs::write(self.path("rules.toml"), text).unwrap();
    }

    pub(crate) fn arguments(&self) -> [String; 3] {
        ["run".to_owned(), "--config".to_owned(), self.path("vitalbridge.toml").to_str().unwrap().to_owned()]
    }

    pub(crate) fn start(&self) -> Bridge {
        let mut command = program();
        command.args(self.arguments());
        Bridge::start_command(command)
    }

    /// Every event in the log, by its identity; of `database`, which is that of the house or a copy.
    pub(crate) fn stored_in(database: &Path) -> BTreeSet<Identity> {
        let database = rusqlite::Connection::open(database).unwrap();
        // A row belongs to the last run that began at or before it.
        let sql = "SELECT (SELECT name FROM epoch WHERE first_seq <= seq ORDER BY id DESC LIMIT 1), seq FROM
            (SELECT seq FROM reading UNION ALL SELECT seq FROM event)";
        let mut statement = database.prepare(sql).unwrap();
        let found = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).unwrap();
        found.map(Result::unwrap).collect()
    }

    pub(crate) fn stored(&self) -> BTreeSet<Identity> {
        Self::stored_in(&self.state().join("vitals.db"))
    }

    /// The ranges that the log says are lost.
    pub(crate) fn told_lost(&self) -> Vec<(Option<u64>, Option<u64>)> {
        let database = rusqlite::Connection::open(self.state().join("vitals.db")).unwrap();
        let told = "SELECT json_extract(body, '$.first'), json_extract(body, '$.last') FROM event
            WHERE kind = 'system' AND json_extract(body, '$.kind') = 'events_lost'";
        let mut statement = database.prepare(told).unwrap();
        let number = |found: Option<i64>| found.map(i64::cast_unsigned);
        statement
            .query_map([], |row| Ok((number(row.get(0)?), number(row.get(1)?))))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Runs the daemon until everything in its log has reached the broker, and ends it in order.
    pub(crate) async fn deliver_the_rest(
        &self,
        tally: &Tally,
        bridge: &str,
    ) -> (BTreeSet<Identity>, BTreeMap<Identity, u64>) {
        let daemon = self.start();
        let before = self.stored();
        eventually("the rest at the broker", LIMIT, || {
            let counts = tally.counts(bridge);
            before.iter().all(|event| counts.contains_key(event)).then_some(())
        })
        .await;
        assert_eq!(daemon.stop(), Some(0));
        // The last group of this run is sent before it ends, or by the next one: here it counts as far as it came.
        let (stored, counts) = (self.stored(), tally.counts(bridge));
        let invented: Vec<_> = counts.keys().filter(|event| !stored.contains(*event)).collect();
        assert_eq!(invented, Vec::<&Identity>::new(), "nothing was sent that was not on disk");
        (before, counts)
    }
}

/// A dashboard that remembers what it was shown.
struct Screen {
    dashboard: Dashboard,
    seen: BTreeSet<Identity>,
}

impl Screen {
    async fn watch(bridge: &Bridge, state: &Path) -> (Self, Json) {
        let bearer = format!("Bearer {}", token(state, &["--role", "nurse"]));
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
        dashboard.say(&json!({"type": "subscribe", "channels": ["#"], "delivery": "all"})).await;
        let snapshot = dashboard.next_of("snapshot").await;
        (Self { dashboard, seen: BTreeSet::new() }, snapshot)
    }

    async fn next(&mut self) -> Json {
        let message = self.dashboard.next().await;
        if let (Some(epoch), Some(seq), true) =
            (message["epoch"].as_str(), message["seq"].as_u64(), message["channel"].is_string())
        {
            self.seen.insert((epoch.to_owned(), seq));
        }
        message
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&Json) -> bool) -> Json {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let message = self.next().await;
                if wanted(&message) {
                    return message;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} has not come"))
    }

    async fn alert(&mut self, rule: &str, change: &str) -> Json {
        let wanted = |message: &Json| {
            message["type"] == "alert" && message["data"]["rule"] == rule && message["data"]["change"] == change
        };
        self.until(&format!("{change} of {rule}"), wanted).await
    }

    async fn readings(&mut self, count: usize) {
        for _ in 0..count {
            self.until("a reading", |message| message["type"] == "health_update").await;
        }
    }
}

/// What a daemon writes to its standard error, while it goes on.
pub(crate) struct Told(Arc<Mutex<String>>);

impl Told {
    pub(crate) fn of(command: &mut Command) -> Self {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        command.stderr(OwnedFd::from(theirs));
        let text = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = ours.read(&mut bytes) {
                if length == 0 {
                    return;
                }
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self(text)
    }

    /// Its last words.
    pub(crate) fn end(&self) -> String {
        let text = self.0.lock().unwrap();
        text.lines().rev().take(12).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn has(&self, words: &str) -> bool {
        self.0.lock().unwrap().contains(words)
    }
}

/// A daemon that starts on a disk that fails already, until that works: what holds of each such fault.
async fn begin_on(fault: &str, house: &House, command: Command, begin: impl Fn(), end: impl Fn()) {
    let broker_folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start_on(broker_folder.path(), house.port);
    let tally = Tally::start(broker.port());
    // An earlier run has left a log and an alert.
    let bridge = house.start();
    let (mut screen, _) = Screen::watch(&bridge, &house.state()).await;
    screen.readings(5).await;
    assert_eq!(bridge.stop(), Some(0));
    let before = house.stored();

    begin();
    let mut command = command;
    let told = Told::of(&mut command);
    let bridge = Bridge::start_command_with_its_errors(command);
    let (mut screen, snapshot) = Screen::watch(&bridge, &house.state()).await;
    let is_shown = |alert: &Json| alert["rule"] == "storage_degraded";
    if !snapshot["data"]["alerts"].as_array().unwrap().iter().any(is_shown) {
        screen.alert("storage_degraded", "start").await;
    }
    screen.readings(10).await;
    house.rules(STRICT);
    signal(bridge.pid(), "HUP");
    screen.alert("spo2_low", "start").await;
    for rule in ["storage_degraded", "spo2_low"] {
        eventually(&format!("{fault}: {rule} at the broker"), LIMIT, || tally.has_begun(rule).then_some(())).await;
    }

    end();
    screen.alert("storage_degraded", "end").await;
    screen.readings(3).await;
    assert_eq!(bridge.stop(), Some(0), "{fault}: everything that waited is stored\n{}", told.end());
    let kept = house.stored();
    let missing: Vec<_> = before.iter().chain(&screen.seen).filter(|event| !kept.contains(*event)).collect();
    assert_eq!(missing, Vec::<&Identity>::new(), "{fault}");
    let (produced, counts) = house.deliver_the_rest(&tally, "b1").await;
    let outcome = Outcome::of(&format!("started on: {fault}"), &produced, &counts, 0);
    outcome.print();
    assert!(outcome.lost == 0 && outcome.produced > 20, "{outcome:?}");
    broker.kill();
}

/// From a sound disk through a fault, and back: what holds of each of them. `words` are those that tell which fault it is
/// and what to do.
async fn outlast(
    fault: &str,
    words: &[&str],
    house: &House,
    command: Command,
    begin: impl Fn(&Bridge),
    end: impl Fn(&Bridge),
) {
    let broker_folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start_on(broker_folder.path(), house.port);
    let tally = Tally::start(broker.port());
    let mut command = command;
    let told = Told::of(&mut command);
    let bridge = Bridge::start_command_with_its_errors(command);
    let (mut screen, _) = Screen::watch(&bridge, &house.state()).await;
    eventually("events at the broker", LIMIT, || (tally.counts("b1").len() > 5).then_some(())).await;

    begin(&bridge);
    let alert = screen.alert("storage_degraded", "start").await;
    assert_eq!(
        (&alert["data"]["kind"], &alert["data"]["priority"]),
        (&json!("technical"), &json!("medium")),
        "{alert}"
    );
    for part in words {
        eventually(part, LIMIT, || told.has(part).then_some(())).await;
    }
    // Whoever comes now sees it too, and patients and their alerts go on.
    let (_late, snapshot) = Screen::watch(&bridge, &house.state()).await;
    let is_shown = |alert: &Json| alert["rule"] == "storage_degraded";
    assert!(snapshot["data"]["alerts"].as_array().unwrap().iter().any(is_shown), "{snapshot}");
    screen.readings(10).await;
    house.rules(STRICT);
    signal(bridge.pid(), "HUP");
    screen.alert("spo2_low", "start").await;
    // The backend is told too, while nothing of it can be stored: that the disk fails, of the patient, and the numbers.
    for rule in ["storage_degraded", "spo2_low"] {
        eventually(&format!("{fault}: {rule} at the broker"), LIMIT, || tally.has_begun(rule).then_some(())).await;
    }
    let since = tally.status()["storage_degraded_since"].clone();
    assert!(since.as_str().is_some_and(|since| since.ends_with('Z')), "{fault}: {}", tally.status());
    let before = tally.counts("b1").len();
    screen.readings(10).await;
    eventually("readings of the present at the broker", LIMIT, || {
        (tally.counts("b1").len() >= before + 8).then_some(())
    })
    .await;

    end(&bridge);
    screen.alert("storage_degraded", "end").await;
    let is_healed = || tally.status()["storage_degraded_since"].is_null().then_some(());
    eventually("the broker knows that the disk works", LIMIT, is_healed).await;
    screen.readings(3).await;
    let code = bridge.stop();
    assert_eq!(code, Some(0), "{fault}: everything that waited is stored\n{}", told.end());

    // Everything that a dashboard was shown is kept, also what came while nothing could be written.
    let kept = house.stored();
    let missing: Vec<_> = screen.seen.iter().filter(|event| !kept.contains(*event)).collect();
    assert_eq!(missing, Vec::<&Identity>::new(), "{fault}");
    let (produced, counts) = house.deliver_the_rest(&tally, "b1").await;
    let outcome = Outcome::of(fault, &produced, &counts, 0);
    outcome.print();
    assert!(outcome.lost == 0 && outcome.produced > 40, "{outcome:?}");
    broker.kill();
}

/// A file system of its own for the state directory; it goes with this.
struct Mounted(PathBuf);

impl Mounted {
    fn on(path: PathBuf, size: &str) -> Self {
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "vitalbridge-test"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_outlasted_while_everything_else_goes_on() {
    if !mounts::are_allowed_here("store_faults::a_full_disk_is_told_and_outlasted_while_everything_else_goes_on") {
        return;
    }
    let house = House::new(free_port());
    let _mounted = Mounted::on(house.state(), "24m");
    let mut command = program();
    command.args(house.arguments());
    let filler = house.state().join("filler");
    let fill = |_: &Bridge| {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&filler).unwrap();
        for bytes in [vec![1; 65536], vec![1; 512]] {
            while file.write_all(&bytes).is_ok() {}
        }
    };
    let free = |_: &Bridge| std::fs::remove_file(&filler).unwrap();
    outlast("disk full", &["(SQLite 13)", "free space on its disk"], &house, command, fill, free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_grow_is_told_and_outlasted_while_everything_else_goes_on() {
    let house = House::new(free_port());
    let mut command = Command::new("sh");
    // The signal that comes with the limit would end the process.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(program().get_program()).args(house.arguments());
    command.env_remove("VITALBRIDGE_LOG").env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    let limit = |bridge: &Bridge, bytes: &str| {
        let (pid, soft) = (bridge.pid().to_string(), format!("--fsize={bytes}:"));
        assert!(Command::new("prlimit").args(["--pid", &pid, &soft]).status().unwrap().success());
    };
    let words = ["disk I/O error (SQLite 778)", "SD card"];
    outlast(
        "I/O errors (limit of file size)",
        &words,
        &house,
        command,
        |b| limit(b, "4096"),
        |b| limit(b, "unlimited"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_on_a_read_only_disk_serves_and_stores_once_it_can() {
    if !mounts::are_allowed_here("store_faults::a_daemon_that_starts_on_a_read_only_disk_serves_and_stores_once_it_can")
    {
        return;
    }
    let house = House::new(free_port());
    let _mounted = Mounted::on(house.state(), "24m");
    let remount = |how: &str| {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(house.state()).status().unwrap().success(), "{how}");
    };
    let mut command = program();
    command.args(house.arguments());
    begin_on("read-only file system", &house, command, || remount("ro"), || remount("rw")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_on_a_disk_with_errors_serves_and_stores_once_it_can() {
    let house = House::new(free_port());
    let (command, order) = failing(&house);
    let begin = || std::fs::write(&order, "5").unwrap();
    begin_on("I/O errors of the disk", &house, command, begin, || std::fs::remove_file(&order).unwrap()).await;
}

/// A daemon on a disk that fails with the error number in this file.
fn failing(house: &House) -> (Command, PathBuf) {
    let (library, order) = (house.path("failing_disk.so"), house.path("fault"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/failing_disk.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success(), "cc builds {source}");
    let mut command = program();
    command.args(house.arguments()).env("LD_PRELOAD", &library).env("VITALBRIDGE_TEST_FAULT", &order);
    (command, order)
}

/// A daemon whose writes to the database fail with this error number; with an `r` behind it, reads too.
async fn outlast_errno(fault: &str, errno: &str, words: &[&str]) {
    let house = House::new(free_port());
    let (command, order) = failing(&house);
    let begin = |_: &Bridge| std::fs::write(&order, errno).unwrap();
    outlast(fault, words, &house, command, begin, |_| std::fs::remove_file(&order).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turned_read_only_is_told_and_outlasted_while_everything_else_goes_on() {
    outlast_errno("file system turned read-only", "30", &["vitals.db"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_answers_with_errors_is_told_and_outlasted_while_everything_else_goes_on() {
    outlast_errno("I/O errors of the disk", "5", &["disk I/O error", "SD card"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_read_either_is_told_and_outlasted_while_everything_else_goes_on() {
    outlast_errno("I/O errors of the disk, reads too", "5 r", &["disk I/O error", "SD card"]).await;
}

/// When the bytes of a database are overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damaged {
    WhileItRuns,
    AfterItStopped,
    AfterItWasKilled,
}

/// Events in the database before it is damaged.
const FILLED: u64 = 6000;

/// Damages a database of [`FILLED`] events that wait for the broker.
async fn survive_damage(when: Damaged, seed: u64) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let house = House::new(free_port());
    let mut store = Store::open(&house.state(), 1);
    for _ in 0..FILLED / 1000 {
        store.append_mix(1000);
        store.settle().await;
    }
    store.close().await;
    let mut bridge = house.start();
    let (mut screen, _) = Screen::watch(&bridge, &house.state()).await;
    screen.readings(10).await;
    let mut damage = || {
        let file = std::fs::OpenOptions::new().write(true).read(true).open(house.state().join("vitals.db")).unwrap();
        let pages = file.metadata().unwrap().len() / 4096;
        for _ in 0..4 {
            // The middle of the file: readings and events, and what leads to them.
            let page = random.u64(pages / 3..pages * 2 / 3);
            file.write_all_at(&[0xFF; 4096], page * 4096).unwrap();
        }
        file.sync_all().unwrap();
    };
    match when {
        Damaged::WhileItRuns => damage(),
        Damaged::AfterItStopped => {
            assert_eq!(bridge.stop(), Some(0));
            damage();
            bridge = house.start();
        }
        Damaged::AfterItWasKilled => {
            bridge.kill();
            damage();
            bridge = house.start();
        }
    }
    let pid = bridge.pid();
    let mut shown = std::mem::take(&mut screen.seen);
    if when == Damaged::AfterItWasKilled {
        // What was shown in the last moment had not been committed.
        shown.clear();
    }
    if when != Damaged::WhileItRuns {
        (screen, _) = Screen::watch(&bridge, &house.state()).await;
    }
    // The broker comes back, and what waited is read.
    let broker_folder = tempfile::tempdir().unwrap();
    let broker = Broker::start_on(broker_folder.path(), house.port);
    let tally = Tally::start(broker.port());
    let lost_in_it = |message: &Json| message["type"] == "system" && message["data"]["kind"] == "events_lost";
    let (_other, snapshot) = Screen::watch(&bridge, &house.state()).await;
    let is_salvaged = |alert: &Json| alert["rule"] == "storage_salvaged";
    if !snapshot["data"]["alerts"].as_array().unwrap().iter().any(is_salvaged) {
        screen.alert("storage_salvaged", "start").await;
        screen.until("which events are lost", lost_in_it).await;
    }
    screen.readings(10).await;
    assert_eq!(bridge.pid(), pid);
    let state = house.state();
    let aside = || {
        let names = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")).count()
    };
    assert_eq!(aside(), 1, "{when:?}, seed {seed}");
    assert_eq!(bridge.stop(), Some(0), "{when:?}, seed {seed}");

    let kept = house.stored();
    let (produced, counts) = house.deliver_the_rest(&tally, "b1").await;
    // What the damage took is what the log says is lost, number by number.
    let ranges = house.told_lost();
    let is_told = |seq: u64| {
        ranges.iter().any(|range| range.0.zip(range.1).is_some_and(|(first, last)| (first..=last).contains(&seq)))
    };
    let numbers: BTreeSet<u64> = kept.iter().map(|(_, seq)| *seq).collect();
    let gone: Vec<u64> = (1..=FILLED).filter(|seq| !numbers.contains(seq)).collect();
    assert!(!gone.is_empty() && gone.len() < 2000, "{when:?}, seed {seed}: {} of {FILLED} are gone", gone.len());
    let untold: Vec<&u64> = gone.iter().filter(|seq| !is_told(**seq)).collect();
    assert_eq!(untold, Vec::<&u64>::new(), "{when:?}, seed {seed}: told are {ranges:?}");
    // What people saw and was not in the damaged part is still there.
    let missing = shown.iter().chain(&screen.seen).filter(|event| !kept.contains(*event) && !is_told(event.1)).count();
    assert_eq!(missing, 0, "{when:?}, seed {seed}");
    Outcome::of(&format!("database damaged, {} rows unreadable ({when:?})", gone.len()), &produced, &counts, 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_damaged_under_the_running_daemon_is_replaced_without_a_restart() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for when in [Damaged::WhileItRuns, Damaged::AfterItStopped, Damaged::AfterItWasKilled] {
        let outcome = survive_damage(when, seed).await;
        outcome.print();
        assert_eq!(outcome.lost, 0, "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_changes_while_the_broker_is_away_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(folder.path());
    let tally = Tally::start(broker.port());
    // At first the address is that of nobody.
    let mut house = House::new(free_port());
    house.write("b1", 30, "");
    let changes: [(&str, &str, &str, &str); 4] = [
        ("broker address", "", "vitals/v1", "P-1"),
        ("topic template", "topic = 'ward7/{site}/{bridge}/{kind}[/{device}]'", "ward7/", "P-1"),
        ("lanes", "backlog_bundle = 1\ntopic = 'ward7/{site}/{bridge}/{kind}[/{device}]'", "ward7/", "P-1"),
        ("patient removed", "", "vitals/v1", "P-2"),
    ];
    for (number, (change, mqtt, topic, patient)) in changes.into_iter().enumerate() {
        let bridge = house.start();
        let (mut screen, _) = Screen::watch(&bridge, &house.state()).await;
        if number > 0 {
            broker.kill();
        }
        // More than a moment's interruption, so that it becomes a backlog.
        screen.readings(300).await;
        // By turns in order and as by a power cut.
        let shown = std::mem::take(&mut screen.seen);
        if number % 2 == 0 {
            assert_eq!(bridge.stop(), Some(0));
            let kept = house.stored();
            assert_eq!(shown.iter().filter(|event| !kept.contains(*event)).count(), 0, "{change}");
        } else {
            bridge.kill();
        }
        house.port = broker.port();
        house.write("b1", 30, mqtt);
        let file = house.path("vitalbridge.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("'P-1'", &format!("'{patient}'"))).unwrap();
        if number > 0 {
            broker.restart();
        }
        let (produced, counts) = house.deliver_the_rest(&tally, "b1").await;
        let outcome = Outcome::of(&format!("configuration changed while offline: {change}"), &produced, &counts, 0);
        outcome.print();
        assert_eq!(outcome.lost, 0, "{outcome:?}");
        assert!(tally.topics().iter().any(|found| found.starts_with(topic)), "{change}: {:?}", tally.topics());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_on_a_machine_that_does_not_tell_its_boot_do_not_share_one() {
    let house = House::new(free_port());
    for run in 1..=2 {
        let mut command = program();
        command.args(house.arguments()).env("VITALBRIDGE_BOOT_ID", "unknown");
        let bridge = Bridge::start_command(command);
        assert_eq!(bridge.stop(), Some(0), "run {run}");
    }
    let database = rusqlite::Connection::open(house.state().join("vitals.db")).unwrap();
    let boots: i64 = database.query_row("SELECT count(DISTINCT boot) FROM epoch", [], |row| row.get(0)).unwrap();
    assert_eq!(boots, 2, "their times since boot cannot be compared");
}
