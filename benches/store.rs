//! What the store costs: its throughput beside a bare loop over SQLite, and the bytes it writes for a reading.
//!
//! The bare loop makes the same rows durable in the same groups, in the thread that has the events, and does nothing
//! else: no streams, no order, no space, no cursors. The limit is for this one. The store takes its events from a thread
//! that never waits for the disk, so each group passes between threads, and so does the news that it is durable; what
//! that alone costs is shown by the same loop on a thread of its own, which is printed beside it.
//!
//! `cargo bench --bench store` prints both and fails beyond the limits below.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rusqlite::{Connection, params};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::{Event, EventBody, SystemEvent, SystemKind};
use vitalbridge::ids::{DeviceId, Epoch, PatientId, Seq, SourceId};
use vitalbridge::store::{self, MAX_BATCH, Opened, QUEUE, Refused, StoreHandle, StoreOptions};
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};

/// The store's throughput must be at least this part of that of a bare loop.
const LEAST_RATIO: f64 = 0.8;
/// Most bytes written to files for one reading at ten readings a second in groups of one second.
const MOST_BYTES: f64 = 1200.0;
/// Rounds of each side; they take turns, so that whatever else the machine does hits both.
const ROUNDS: usize = 60;
/// Groups of one round.
const GROUPS: usize = 16;
/// Readings whose bytes are counted: six minutes.
const COUNTED: u32 = 3600;

fn main() -> Result<()> {
    println!("rows made durable a second: the store, and bare loops of rusqlite with the same rows in the same groups");
    // A second of one bed, a second of a ward, and the largest group, which comes after a fault of the disk.
    let ratios = [throughput(10)?, throughput(100)?, throughput(MAX_BATCH)?];
    let plain = bytes_written(false)?;
    let with_cursor = bytes_written(true)?;
    println!(
        "bytes written for a reading, 10/s in groups of 1 s: {plain:.0}; with a cursor that follows: {with_cursor:.0}"
    );
    for ratio in ratios {
        ensure!(ratio >= LEAST_RATIO, "the store reaches {ratio:.2} of a bare loop, less than {LEAST_RATIO}");
    }
    ensure!(with_cursor.max(plain) <= MOST_BYTES, "more than {MOST_BYTES} bytes written for a reading");
    Ok(())
}

/// What the readings of a sensor have in common: made once, as a source does.
struct Sensor {
    epoch: Epoch,
    patient: PatientId,
    device: DeviceId,
    id: SourceId,
}

impl Sensor {
    fn new() -> Result<Self> {
        let epoch = Epoch::from_bits(1);
        Ok(Self { epoch, patient: "P-0001".parse()?, device: "nonin-3150".parse()?, id: "bed-4".parse()? })
    }

    /// A reading of the form that comes most often: one number of an oximeter, 2 ms after its last byte arrived.
    fn event(&self, seq: Seq) -> Result<Event> {
        let received = Stamp {
            mono: Mono(86_400_000_000_000 + seq.0 * 100_000_123),
            wall: Wall(1_795_219_200_000 + i64::try_from(seq.0)? * 100),
        };
        let at = Stamp { mono: received.mono + Duration::from_micros(2017), wall: Wall(received.wall.0 + 2) };
        let reading = Reading {
            patient: Some(self.patient.clone()),
            device: self.device.clone(),
            source: self.id.clone(),
            vital: Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(90 + i32::try_from(seq.0 % 10)?))),
            mdc: None,
            quality: Quality::Valid,
            mode: Mode::Real,
            taken: Taken::on_arrival(received),
            received,
        };
        Ok(Event { epoch: self.epoch.clone(), seq, at, body: EventBody::Reading(reading) })
    }
}

/// A round of groups. What is no reading is committed at once, so one ends each group that does not fill a batch.
fn events(sensor: &Sensor, first: Seq, group: usize) -> Result<Vec<Arc<Event>>> {
    let mut events = Vec::new();
    for (place, seq) in (1..=group * GROUPS).zip(first.0..) {
        let mut event = sensor.event(Seq(seq))?;
        if group < MAX_BATCH && place % group == 0 {
            let (kind, message) = (SystemKind::Started, "the end of a group".to_owned());
            event.body = EventBody::System(SystemEvent { kind, message, first: None, last: None });
        }
        events.push(Arc::new(event));
    }
    Ok(events)
}

/// The ratio of the medians: 1 means as fast as the bare loop.
fn throughput(group: usize) -> Result<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let Opened { writer, reader: _reader, handle, first_seq, .. } = open(folder.path())?;
    let sensor = Sensor::new()?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn_on(writer.run(stop.clone()), runtime.handle());
    let behind = BareThread::start(bare_database(&folder.path().join("behind.db"))?, group);
    let mut plain = bare_database(&folder.path().join("plain.db"))?;

    let mut first = first_seq;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for number in 0..ROUNDS {
        let round = events(&sensor, first, group)?;
        // Whoever comes second finds the disk still busy with the first, so they take turns at that too.
        for turn in 0..times.len() {
            let side = (number + turn) % times.len();
            let took = match side {
                0 => timed(|| runtime.block_on(store_round(&handle, &round, group)))?,
                1 => timed(|| behind.round(&round, group))?,
                _ => timed(|| bare_round(&mut plain, &round, group))?,
            };
            times.get_mut(side).context("three sides")?.push(took);
        }
        first = round.last().map_or(first, |event| event.seq.next());
    }
    stop.cancel();
    runtime.block_on(tasks.join_next()).context("no writer")???;
    behind.end()?;
    let [store, behind, plain] = times;
    let (store, behind, plain) = (median(store)?, median(behind)?, median(plain)?);
    let ratio = plain.as_secs_f64() / store.as_secs_f64();
    let rate = |time: Duration| f64::from(u32::try_from(group * GROUPS).unwrap_or(u32::MAX)) / time.as_secs_f64();
    println!(
        "  groups of {group:>4}: store {:>9.0}, bare loop {:>9.0} (ratio of medians {ratio:.2}), \
         loop on a thread {:>9.0} (ratio {:.2})",
        rate(store),
        rate(plain),
        rate(behind),
        behind.as_secs_f64() / store.as_secs_f64(),
    );
    Ok(ratio)
}

fn open(dir: &Path) -> Result<Opened> {
    let start = Sensor::new()?.event(Seq(1))?.at;
    Ok(store::open(dir, &StoreOptions::default(), Epoch::from_bits(1), "boot", start)?)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Clock::System.now().mono;
    work()?;
    Ok(Clock::System.now().mono.since(start))
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("no rounds")
}

/// Queues a round and waits until all of it is durable. A group is waited for before the next one, as the product's
/// groups come one by one; full batches follow each other as after a fault.
async fn store_round(handle: &StoreHandle, round: &[Arc<Event>], group: usize) -> Result<()> {
    let mut durable = handle.durable();
    for (place, event) in (1..).zip(round) {
        while let Err(refused) = handle.try_append(Arc::clone(event)) {
            ensure!(refused == Refused::Full, "{refused}");
            durable.changed().await?;
        }
        if group < MAX_BATCH && place % group == 0 {
            durable.wait_for(|seq| *seq >= event.seq).await?;
        }
    }
    let last = round.last().context("empty round")?.seq;
    durable.wait_for(|seq| *seq >= last).await?;
    Ok(())
}

/// The bare loop on a thread of its own.
struct BareThread {
    queue: mpsc::SyncSender<Arc<Event>>,
    durable: mpsc::Receiver<Seq>,
    thread: JoinHandle<Result<()>>,
}

impl BareThread {
    fn start(mut connection: Connection, size: usize) -> Self {
        let (queue, events) = mpsc::sync_channel::<Arc<Event>>(QUEUE);
        let (news, durable) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut group = Vec::with_capacity(size);
            while let Ok(event) = events.recv() {
                let seq = event.seq;
                group.push(event);
                if group.len() == size {
                    bare_round(&mut connection, &group, size)?;
                    news.send(seq)?;
                    group.clear();
                }
            }
            Ok(())
        });
        Self { queue, durable, thread }
    }

    /// As [`store_round`].
    fn round(&self, round: &[Arc<Event>], group: usize) -> Result<()> {
        for (place, event) in (1..).zip(round) {
            self.queue.send(Arc::clone(event))?;
            if group < MAX_BATCH && place % group == 0 {
                self.wait_for(event.seq)?;
            }
        }
        let last = round.last().context("empty round")?.seq;
        if group < MAX_BATCH { Ok(()) } else { self.wait_for(last) }
    }

    fn wait_for(&self, seq: Seq) -> Result<()> {
        while self.durable.recv()? < seq {}
        Ok(())
    }

    fn end(self) -> Result<()> {
        drop(self.queue);
        self.thread.join().map_err(|_| anyhow!("the bare loop panicked"))?
    }
}

/// A database with the settings and the table of readings of the store, and nothing else.
fn bare_database(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 64; PRAGMA journal_size_limit = 1048576;
         CREATE TABLE reading (seq INTEGER PRIMARY KEY, stream INTEGER NOT NULL, mono INTEGER NOT NULL,
            wall INTEGER NOT NULL, received_ns INTEGER NOT NULL, received_ms INTEGER NOT NULL, taken_ms INTEGER,
            uncertainty_ms INTEGER NOT NULL, device_time TEXT, mantissa INTEGER, exponent INTEGER, absent TEXT,
            parts TEXT) STRICT;
         CREATE TABLE event (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, mono INTEGER NOT NULL, wall INTEGER NOT NULL,
            body TEXT NOT NULL) STRICT;",
    )?;
    Ok(connection)
}

/// The least that can be done to make the same rows durable in the same groups.
fn bare_round(connection: &mut Connection, round: &[Arc<Event>], size: usize) -> Result<()> {
    for group in round.chunks(size) {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO reading VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?;
            let mut note = transaction.prepare_cached("INSERT INTO event VALUES (?1, 'system', ?2, ?3, ?4)")?;
            for event in group {
                let (seq, mono) = (event.seq.0.cast_signed(), event.at.mono.0.cast_signed());
                let reading = match &event.body {
                    EventBody::Reading(reading) => reading,
                    EventBody::System(system) => {
                        note.execute(params![seq, mono, event.at.wall.0, serde_json::to_string(system)?])?;
                        continue;
                    }
                    _ => continue,
                };
                let number = reading.vital.leading().valid();
                insert.execute(params![
                    seq,
                    1,
                    mono,
                    event.at.wall.0,
                    2_017_000,
                    2,
                    0,
                    0,
                    None::<&str>,
                    number.map(Decimal::mantissa),
                    number.map(Decimal::exponent),
                    None::<&str>,
                    None::<&str>,
                ])?;
            }
        }
        transaction.commit()?;
    }
    Ok(())
}

/// Bytes that this process hands to `write` and its kin for one reading, from the first to the end of the run.
///
/// The kernel counts them as `wchar` in `/proc/self/io`: everything SQLite writes to the log and to the database, so
/// every page of a checkpoint too. Nothing else writes meanwhile. Time is paused and jumps from group to group.
fn bytes_written(with_cursor: bool) -> Result<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let Opened { writer, reader: _reader, handle, first_seq, .. } = open(folder.path())?;
        let sensor = Sensor::new()?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run(stop.clone()));
        let before = bytes_so_far()?;
        for number in 0..u64::from(COUNTED) {
            handle.try_append(Arc::new(sensor.event(Seq(first_seq.0 + number))?))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if with_cursor && number % 10 == 0 {
                handle.set_cursors(vec![("live".to_owned(), *handle.durable().borrow())]);
            }
        }
        stop.cancel();
        tasks.join_next().await.context("no writer")???;
        let bytes = u32::try_from(bytes_so_far()?.saturating_sub(before))?;
        Ok(f64::from(bytes) / f64::from(COUNTED))
    })
}

fn bytes_so_far() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let count = text.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no wchar in /proc/self/io")?;
    Ok(count.parse()?)
}
