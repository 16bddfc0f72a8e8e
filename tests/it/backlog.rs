//! A long backlog drains from the real daemon to a real broker: what arrives, what it costs in memory, who waits for it.
//!
//! The test has 50,000 rows and asserts what must hold; `cargo bench --bench uplink -- backlog` runs the same with a million
//! and prints times.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Clock, Stamp, Wall};
use vitalbridge::event::{Event, EventBody};
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::store::{self, Opened, Refused, StoreOptions};
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};

use crate::bridge::{Bridge, now, program, token};
use crate::broker::Broker;

/// Longest wait for anything that must happen.
const DEADLINE: Duration = Duration::from_mins(20);

/// The memory of the daemon and its progress are looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Longest wait for the line about the end of a backlog.
const LAST_ANSWER: Duration = Duration::from_secs(20);

/// Looks before the broker is there: what the daemon takes while it only waits.
const IDLE_LOOKS: usize = 25;

/// Time between two readings of the backlog, in ms.
const BETWEEN_MS: i64 = 50;

/// What lines of the log about a backlog say.
const TOLD: &str = "what waited for the broker";

/// What was seen while a backlog drained.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    /// Most memory of the daemon before the broker was there, in KiB.
    pub(crate) idle_kib: u64,
    /// Most memory while the backlog drained.
    pub(crate) peak_kib: u64,
    /// Distinct rows of the backlog that arrived.
    pub(crate) rows: usize,
    /// Those that came again.
    pub(crate) repeated: usize,
    /// The rows of the backlog came in the order of their numbers.
    pub(crate) is_in_order: bool,
    /// From the event to its arrival, in ms: alerts, and live readings, that arrived while the backlog drained.
    pub(crate) alerts: Vec<i64>,
    pub(crate) live: Vec<i64>,
    /// What was left, and for how many seconds, as `/metrics` and `/ws/status` told it.
    pub(crate) metrics: Vec<(u64, u64)>,
    pub(crate) status: Vec<(u64, Option<u64>)>,
    /// What the log told of it.
    pub(crate) log: Vec<String>,
    /// From the first row of the backlog to the last.
    pub(crate) took: Duration,
}

impl Drained {
    /// Prints its row of the table of faults.
    pub(crate) fn print_row(&self, produced: u64) {
        let lost = produced - u64::try_from(self.rows).unwrap();
        println!(
            "| backlog of {produced} rows, whole daemon | {produced} | {} | {} | 0 | {lost} |",
            self.rows, self.repeated
        );
    }
}

/// Stores `rows` readings as a run of the daemon without a broker would have.
pub(crate) fn fill(state: &Path, rows: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let start = Clock::System.now();
        let options = StoreOptions {
            max_bytes: Some(4 << 30),
            holding_lanes: vitalbridge::uplink::plan::HOLDING.map(str::to_owned).to_vec(),
            ..StoreOptions::default()
        };
        let opened = store::open(state, &options, Epoch::from_bits(1), "boot", start).unwrap();
        let Opened { writer, handle, first_seq, epoch, .. } = opened;
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(writer.run(stop.clone()));
        let mut durable = handle.durable();
        for number in 0..rows {
            let ago = i64::try_from(rows - number).unwrap() * BETWEEN_MS;
            let at = Stamp { mono: start.mono, wall: Wall(start.wall.0 - ago) };
            let value = Value::Valid(Decimal::integer(60 + i32::try_from(number % 40).unwrap()));
            let reading = Reading {
                patient: Some("P-2".parse().unwrap()),
                device: "strap-1".parse().unwrap(),
                source: "bed-4".parse().unwrap(),
                vital: Vital::scalar(Metric::HeartRate, value),
                mdc: None,
                quality: Quality::Valid,
                mode: Mode::Test,
                taken: Taken::on_arrival(at),
                received: at,
            };
            let seq = Seq(first_seq.0 + number);
            let event = Arc::new(Event { epoch: epoch.clone(), seq, at, body: EventBody::Reading(reading) });
            while let Err(refused) = handle.try_append(Arc::clone(&event)) {
                assert_eq!(refused, Refused::Full);
                durable.changed().await.unwrap();
            }
        }
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
    });
}

/// One patient of the present whose saturation falls and comes back every eight seconds.
fn recording() -> String {
    let rows = (0..3600).map(|second| format!("{second},72,{}\n", if second % 8 < 4 { 97 } else { 75 }));
    format!("t_s,HR,SpO2\n{}", rows.collect::<String>())
}

fn configuration(folder: &Path, port: u16, per_second: u16) -> String {
    std::fs::write(folder.join("numerics.csv"), recording()).unwrap();
    let rule = "[[rule]]\nid = \"spo2_falls\"\nmetric = \"spo2\"\nkind = \"physiological\"\npriority = \"high\"\n\
                when = { below = 90 }\nclear = { at_least = 92 }\ndelay = \"0s\"\nclear_delay = \"0s\"\nlatching = \"none\"\n";
    std::fs::write(folder.join("rules.toml"), rule).unwrap();
    let file = folder.join("c.toml");
    let text = format!(
        "[bridge]\nid = \"b1\"\nsite = \"icu\"\n[server]\nlisten = \"127.0.0.1:0\"\n[store]\ndir = \"state\"\nmax_mib = 4096\n\
         [alerts]\nrules = \"rules.toml\"\nannunciators = \"none\"\n\
         [mqtt]\nbroker = \"mqtt://127.0.0.1:{port}\"\nbacklog_per_second = {per_second}\n\
         [[patient]]\nid = \"P-1\"\n[[patient]]\nid = \"P-2\"\n\
         [[source]]\nid = \"now\"\nkind = \"replay\"\nfile = \"numerics.csv\"\npatient = \"P-1\"\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Every message that the broker hands on, with the time at which it came.
struct Consumer {
    child: Child,
    lines: mpsc::Receiver<(Wall, String)>,
}

impl Consumer {
    fn listen(port: u16) -> Self {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-q", "1", "-t", "vitals/#", "-F", "%p"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
        // What is read ahead is bounded, so that this process stays small too.
        let (sender, lines) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            loop {
                let mut line = String::new();
                // The end of the subscriber, or of the run.
                if stdout.read_line(&mut line).map_or(true, |read| read == 0)
                    || sender.send((Clock::System.now().wall, line)).is_err()
                {
                    return;
                }
            }
        });
        Self { child, lines }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The memory of a process in KiB.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// The body of an answer.
pub(crate) fn get(address: &str, token: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What is seen of the daemon from outside.
#[derive(Default)]
struct Seen {
    peak_kib: u64,
    metrics: Vec<(u64, u64)>,
    status: Vec<(u64, Option<u64>)>,
}

/// Looks at the daemon until it is told to stop.
fn watch(pid: u32, address: &str, token: &str, stop: &mpsc::Receiver<()>) -> Seen {
    let mut seen = Seen::default();
    loop {
        seen.peak_kib = seen.peak_kib.max(memory(pid));
        let text = get(address, token, "/metrics");
        let number = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("vitalbridge_{name} ")));
            line.unwrap().parse().unwrap()
        };
        seen.metrics.push((number("uplink_backlog"), number("uplink_backlog_seconds")));
        let told: Json = serde_json::from_str(&get(address, token, "/ws/status")).unwrap();
        seen.status.push((told["uplink"]["backlog"].as_u64().unwrap(), told["uplink"]["backlog_seconds"].as_u64()));
        if stop.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
            return seen;
        }
    }
}

/// The number behind each `"seq":` of a bundle's events.
pub(crate) fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split("\"seq\":").skip(1).filter_map(|rest| rest.split(',').next()?.parse().ok())
}

/// Drains a backlog of `rows` readings, at most `per_second` messages a second (0: as fast as it goes).
pub(crate) fn drain(rows: u64, per_second: u16) -> Drained {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fill(&state, rows);
    let mut broker = Broker::without_memory(folder.path());
    broker.kill();
    let config = configuration(folder.path(), broker.port(), per_second);
    let log = folder.path().join("log");
    let mut command = program();
    command.args(["run", "--config", &config]).stderr(std::fs::File::create(&log).unwrap());
    let bridge = Bridge::start_command_with_its_errors(command);
    let token = token(&state, &["--role", "admin"]);
    let mut drained = Drained { is_in_order: true, ..Drained::default() };
    for _ in 0..IDLE_LOOKS {
        drained.idle_kib = drained.idle_kib.max(memory(bridge.pid()));
        std::thread::park_timeout(LOOK_EVERY);
    }
    let (stop, stopped) = mpsc::channel();
    let (pid, address) = (bridge.pid(), bridge.address.clone());
    let watching = std::thread::spawn(move || watch(pid, &address, &token, &stopped));
    broker.restart();
    let consumer = Consumer::listen(broker.port());
    let (mut seen, mut last, mut first_at) = (BTreeSet::new(), 0, None);
    let deadline = now() + DEADLINE;
    while u64::try_from(seen.len()).unwrap() < rows {
        let (at, line) = consumer.lines.recv_timeout(deadline.since(now())).expect("the backlog has arrived");
        if line.starts_with("{\"type\":\"batch\"") {
            let came = first_at.get_or_insert(now());
            drained.took = now().since(*came);
            for seq in numbers(&line).filter(|seq| *seq <= rows) {
                drained.is_in_order &= seq > last || seen.contains(&seq);
                last = last.max(seq);
                drained.repeated += usize::from(!seen.insert(seq));
            }
            continue;
        }
        let Ok(message) = serde_json::from_str::<Json>(&line) else { continue };
        let is_old = message["historical"] == true || first_at.is_none();
        let published = message["timestamp"].as_str().and_then(Wall::parse);
        let Some(published) = published.filter(|_| !is_old && message["seq"].is_u64()) else { continue };
        match message["type"].as_str() {
            Some("alert") => drained.alerts.push(at.0 - published.0),
            Some("health_update") => drained.live.push(at.0 - published.0),
            _ => {}
        }
    }
    drained.rows = seen.len();
    // The last row is over when the broker's answer to it is here; of a short backlog nothing is told.
    let until = now() + LAST_ANSWER;
    let told = || std::fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains(TOLD)).count() > 1;
    while !told() && now() < until {
        std::thread::park_timeout(LOOK_EVERY);
    }
    stop.send(()).unwrap();
    Seen { peak_kib: drained.peak_kib, metrics: drained.metrics, status: drained.status } = watching.join().unwrap();
    assert_eq!(bridge.stop(), Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    drained.log = text.lines().filter(|line| line.contains(TOLD)).map(str::to_owned).collect();
    drained
}

/// Memory that a backlog may take above that of an idle daemon, in KiB.
pub(crate) const MOST_MEMORY_KIB: u64 = 16 * 1024;

#[cfg(test)]
#[test]
fn a_backlog_of_fifty_thousand_rows_takes_little_memory_and_holds_up_nobody() {
    // About sixteen seconds of it.
    let drained = drain(50_000, 60);
    drained.print_row(50_000);
    assert_eq!((drained.rows, drained.is_in_order, drained.repeated), (50_000, true, 0), "{drained:?}");
    assert!(drained.took > Duration::ZERO);
    assert!(
        drained.peak_kib <= drained.idle_kib + MOST_MEMORY_KIB,
        "{} KiB, idle {}",
        drained.peak_kib,
        drained.idle_kib
    );
    assert!(drained.alerts.len() >= 2, "alerts came before the end of the backlog: {:?}", drained.alerts);
    assert!(drained.live.len() >= 10, "so did live readings: {:?}", drained.live);
    // Progress is shown, and it is progress.
    let left: Vec<u64> = drained.metrics.iter().map(|(left, _)| *left).filter(|left| *left > 0).collect();
    assert!(left.len() >= 3 && left.is_sorted_by(|one, next| one >= next), "{left:?}");
    assert!(drained.metrics.iter().any(|(left, seconds)| *left > 0 && *seconds > 0), "{:?}", drained.metrics);
    assert!(drained.status.iter().any(|(left, seconds)| *left > 0 && seconds.is_some()), "{:?}", drained.status);
    // The log tells soon after the begin what is left and for how long, and that it is over.
    let number = |line: &str, name: &str| -> u64 {
        let rest = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}")).1;
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let (Some(first), Some(last)) = (drained.log.first(), drained.log.last()) else { panic!("nothing is told") };
    assert!(first.contains("what waited for the broker goes out"), "{first}");
    let (left, seconds) = (number(first, " left="), number(first, " seconds="));
    assert!((25_000..50_000).contains(&left), "{first}: soon after the begin");
    // At most 60 bundles of 50 a second.
    assert!(seconds >= 10 && seconds * 4000 >= left, "{first}: faster than its pace");
    assert!(last.contains("what waited for the broker has gone out"), "{last}");
}
