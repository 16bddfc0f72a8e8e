//! What the uplink costs: its drain rate beside a bare loop of the same client, the bytes on disk of a reading, a long backlog.
//!
//! `cargo bench --bench uplink` prints the first two and fails beyond the limits below. The bare loop publishes the same
//! bodies on the same topics with the same properties through the same broker with the same window, and does nothing else:
//! no order, no cursors. Its messages of one reading are made beforehand. Bundles of 50 are made by its own loop from the
//! same rows of the same log, because a bundle costs more to read and to write than to send; beside that it is shown how
//! fast it is with bundles that were made beforehand. `cargo bench --bench uplink -- backlog [ROWS [MESSAGES_A_SECOND]]`
//! drains a backlog of a million rows from the real daemon.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../tests/it/backlog.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "it is a test")]
mod backlog;
#[path = "../tests/it/bridge.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "it is of the tests")]
mod bridge;
#[path = "../tests/it/broker.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, reason = "it is of the tests")]
mod broker;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::PublishProperties;
use rumqttc::{AsyncClient, Broker as Address, MqttOptions, PublishOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::event::{Event, EventBody};
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::store::{self, Opened, Refused, StoreHandle, StoreOptions};
use vitalbridge::uplink::plan::HOLDING;
use vitalbridge::uplink::{self, About, Access, Limits, TopicTemplate, UplinkConfig, UplinkStatus};
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};
use vitalbridge::wire;

/// The drain rate must be at least this part of that of the bare loop.
const LEAST_RATIO: f64 = 0.7;
/// Most bytes written to files for one reading.
const MOST_BYTES: f64 = 1200.0;
/// Rounds of each side; they take turns, so that whatever else the machine does hits both.
const ROUNDS: usize = 5;
/// Readings whose bytes are counted: an hour at ten a second.
const COUNTED: u64 = 36_000;
/// Rows that the bare loop takes from the log with one query.
const ROWS_A_READ: usize = 400;
/// Readings of one group.
const GROUP: u64 = 10;
/// A group that is not on disk after so much real time gets another second of the paused one.
const LATE: Duration = Duration::from_millis(50);
/// Rows of the long backlog.
const BACKLOG: u64 = 1_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "backlog") {
        let number = |place: usize| arguments.get(place).and_then(|text| text.parse::<u64>().ok());
        return long_backlog(number(1).unwrap_or(BACKLOG), u16::try_from(number(2).unwrap_or(0))?);
    }
    if arguments.first().is_none_or(|first| first == "bytes") {
        for is_online in [true, false] {
            let bytes = bytes_written(is_online)?;
            let word = if is_online { "online" } else { "offline" };
            println!("bytes written for a reading, {COUNTED} readings in groups of {GROUP}, {word}: {bytes:.0}");
            ensure!(bytes <= MOST_BYTES, "more than {MOST_BYTES} bytes written for a reading");
        }
    }
    if arguments.first().is_none_or(|first| first == "drain") {
        println!("rows drained a second, pacing off, window of 32: medians of {ROUNDS} rounds");
        let ratios = [drain_rate(1, 20_000, Bodies::Ready)?, drain_rate(50, 100_000, Bodies::FromLog)?];
        drain_rate(50, 100_000, Bodies::Ready)?;
        for ratio in ratios {
            ensure!(ratio >= LEAST_RATIO, "the uplink reaches {ratio:.2} of a bare loop, less than {LEAST_RATIO}");
        }
    }
    Ok(())
}

fn long_backlog(rows: u64, per_second: u16) -> Result<()> {
    let drained = backlog::drain(rows, per_second);
    drained.print_row(rows);
    let longest = |times: &[i64]| times.iter().copied().max();
    let median = |times: &[i64]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    };
    let seconds = drained.took.as_secs_f64();
    println!(
        "{} rows in {seconds:.1} s ({:.0} rows/s), {} came again, in order: {}",
        drained.rows,
        f64::from(u32::try_from(drained.rows)?) / seconds,
        drained.repeated,
        drained.is_in_order
    );
    println!("memory: idle {} KiB, at most {} KiB while it drained", drained.idle_kib, drained.peak_kib);
    println!(
        "alerts meanwhile: {}, ms: median {:?}, longest {:?}",
        drained.alerts.len(),
        median(&drained.alerts),
        longest(&drained.alerts)
    );
    println!(
        "live readings meanwhile: {}, ms: median {:?}, longest {:?}",
        drained.live.len(),
        median(&drained.live),
        longest(&drained.live)
    );
    let shown: Vec<_> = drained.status.iter().filter(|(left, seconds)| *left > 0 && seconds.is_some()).collect();
    println!(
        "progress (left, seconds) in status: {} looks, first {:?}, last {:?}",
        shown.len(),
        shown.first(),
        shown.last()
    );
    let in_metrics = drained.metrics.iter().filter(|(left, seconds)| *left > 0 && *seconds > 0).count();
    println!("progress in metrics: {in_metrics} looks");
    ensure!(drained.peak_kib <= drained.idle_kib + backlog::MOST_MEMORY_KIB, "the backlog takes too much memory");
    ensure!(drained.repeated == 0 && drained.is_in_order, "rows came again, or out of order");
    ensure!(median(&drained.live).is_some_and(|ms| ms < 1000), "half of the live readings took a second, or none came");
    ensure!(longest(&drained.alerts).is_some_and(|ms| ms < 1000), "an alert took a second, or none came");
    Ok(())
}

fn event(epoch: &Epoch, seq: Seq) -> Result<Event> {
    let received = Stamp {
        mono: Mono(86_400_000_000_000 + seq.0 * 100_000_123),
        wall: Wall(1_795_219_200_000 + i64::try_from(seq.0)? * 100),
    };
    let at = Stamp { mono: received.mono + Duration::from_micros(2017), wall: Wall(received.wall.0 + 2) };
    let reading = Reading {
        patient: Some("P-0001".parse()?),
        device: "nonin-3150".parse()?,
        source: "bed-4".parse()?,
        vital: Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(90 + i32::try_from(seq.0 % 10)?))),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Real,
        taken: Taken::on_arrival(received),
        received,
    };
    Ok(Event { epoch: epoch.clone(), seq, at, body: EventBody::Reading(reading) })
}

fn config(port: u16, epoch: &Epoch, bundle: usize) -> Result<UplinkConfig> {
    Ok(UplinkConfig {
        broker: format!("mqtt://127.0.0.1:{port}").parse()?,
        access: Access::default(),
        client_id: "vitalbridge-b1".to_owned(),
        username: None,
        site: "icu".parse()?,
        bridge: "b1".parse()?,
        epoch: epoch.clone(),
        topic: TopicTemplate::default(),
        limits: Limits { backlog_a_second: 0, bundle, ..Limits::default() },
        about: About::default(),
        downlink: None,
    })
}

/// A store at work.
struct Working {
    opened: (store::Reader, StoreHandle, Epoch, Seq),
    stop: CancellationToken,
    tasks: JoinSet<Result<(), store::StoreError>>,
}

fn work(dir: &Path) -> Result<Working> {
    let epoch = Epoch::from_bits(1);
    let start = event(&epoch, Seq(1))?.at;
    let options = StoreOptions {
        max_bytes: Some(1 << 30),
        holding_lanes: HOLDING.map(str::to_owned).to_vec(),
        ..StoreOptions::default()
    };
    let Opened { writer, reader, handle, first_seq, .. } = store::open(dir, &options, epoch.clone(), "boot", start)?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(stop.clone()));
    Ok(Working { opened: (reader, handle, epoch, first_seq), stop, tasks })
}

/// Where the bare loop has its bodies from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    /// Made beforehand.
    Ready,
    /// Read from the log and written while it goes.
    FromLog,
}

/// The ratio of the medians: 1 means as fast as the bare loop.
fn drain_rate(bundle: usize, rows: u64, bodies: Bodies) -> Result<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let broker = broker::Broker::without_memory(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut own, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let dir = folder.path().join(format!("{round}"));
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                own.push(runtime.block_on(own_round(&dir, broker.port(), bundle, rows))?);
            } else {
                let dir = folder.path().join(format!("{round}-bare"));
                bare.push(runtime.block_on(bare_round(&dir, broker.port(), (bundle, rows), bodies))?);
            }
        }
    }
    let (own, bare) = (median(own)?, median(bare)?);
    let ratio = bare.as_secs_f64() / own.as_secs_f64();
    let rate = |time: Duration| f64::from(u32::try_from(rows).unwrap_or(u32::MAX)) / time.as_secs_f64();
    println!(
        "  messages of {bundle:>2}: uplink {:>8.0}, bare loop ({bodies:?}) {:>8.0}, ratio {ratio:.2}",
        rate(own),
        rate(bare)
    );
    Ok(ratio)
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort();
    times.get(times.len() / 2).copied().context("no rounds")
}

/// A store with so many readings.
async fn filled(dir: &Path, rows: u64) -> Result<Working> {
    let working = work(dir)?;
    let (_, handle, epoch, first) = working.opened.clone();
    let mut durable = handle.durable();
    for number in 0..rows {
        let event = Arc::new(event(&epoch, Seq(first.0 + number))?);
        while let Err(refused) = handle.try_append(Arc::clone(&event)) {
            ensure!(refused == Refused::Full, "{refused}");
            durable.changed().await?;
        }
    }
    let newest = Seq(first.0 + rows - 1);
    durable.wait_for(|seq| *seq >= newest).await?;
    Ok(working)
}

impl Working {
    async fn end(mut self) -> Result<()> {
        self.stop.cancel();
        drop(self.opened);
        self.tasks.join_next().await.context("no writer")???;
        Ok(())
    }
}

/// From the connection to the last confirmation.
async fn own_round(dir: &Path, port: u16, bundle: usize, rows: u64) -> Result<Duration> {
    let working = filled(dir, rows).await?;
    let (reader, handle, epoch, _) = working.opened.clone();
    let (status_in, mut status) = watch::channel(UplinkStatus::default());
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let config = config(port, &epoch, bundle)?;
    tasks.spawn(uplink::run(config, reader, handle, status_in, Clock::System, 7, stop.clone()));
    status.wait_for(|status| status.connected).await?;
    let start = Clock::System.now().mono;
    status.wait_for(|status| status.waiting == 0 && status.in_flight == 0).await?;
    let took = Clock::System.now().mono.since(start);
    stop.cancel();
    tasks.join_next().await.context("no uplink")???;
    working.end().await?;
    Ok(took)
}

/// A message as the uplink would publish it.
struct Ready {
    topic: String,
    body: Bytes,
    properties: PublishProperties,
}

fn ready(bundle: usize, events: &[Event]) -> Result<VecDeque<Ready>> {
    let (epoch, bridge) = (Epoch::from_bits(1), "b1".parse()?);
    let mut all = VecDeque::new();
    for chunk in events.chunks(bundle) {
        let bodies = chunk.iter().map(|event| wire::upload(event, &bridge, true)).collect::<Result<Vec<_>, _>>()?;
        let (first, last) = (chunk.first().context("empty")?, chunk.last().context("empty")?);
        let (topic, kind, body) = if bundle == 1 {
            ("vitals/v1/icu/b1/health_update/nonin-3150", "health_update", bodies.concat())
        } else {
            ("vitals/v1/icu/b1/batch", "batch", wire::bundle(&bodies, &bridge, (first, last)))
        };
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            content_type: Some("application/json".to_owned()),
            user_properties: vec![
                pair("id", format!("b1:{epoch}:{}", last.seq)),
                pair("source", "b1".to_owned()),
                pair("type", kind.to_owned()),
                pair("seq", last.seq.to_string()),
                pair("historical", "true".to_owned()),
                pair("schema", wire::SCHEMA.to_owned()),
            ],
            ..PublishProperties::default()
        };
        all.push_back(Ready { topic: topic.to_owned(), body: Bytes::from(body), properties });
    }
    Ok(all)
}

/// The least that can be done to have the same messages confirmed.
async fn bare_round(dir: &Path, port: u16, (bundle, rows): (usize, u64), bodies: Bodies) -> Result<Duration> {
    let limits = Limits::default();
    let mut options = MqttOptions::new("bare", Address::tcp("127.0.0.1", port));
    options.set_clean_start(true).set_keep_alive(15).set_outgoing_inflight_upper_limit(limits.window);
    let (client, mut event_loop) = AsyncClient::builder(options).capacity(usize::from(limits.window)).build();
    let (log, mut left) = match bodies {
        Bodies::FromLog => (Some(filled(dir, rows).await?), VecDeque::new()),
        Bodies::Ready => {
            let epoch = Epoch::from_bits(1);
            let events = (1..=rows).map(|number| event(&epoch, Seq(number))).collect::<Result<Vec<_>>>()?;
            (None, ready(bundle, &events)?)
        }
    };
    let mut read_to = Seq::ZERO;
    while !matches!(event_loop.poll().await?, rumqttc::Event::Incoming(rumqttc::mqttbytes::v5::Packet::ConnAck(_))) {}
    // All of the window: the uplink itself leaves places of it to alerts and to live readings.
    let window = usize::from(limits.window);
    let start = Clock::System.now().mono;
    let mut notices = FuturesUnordered::new();
    loop {
        if left.is_empty()
            && let Some(Working { opened: (reader, ..), .. }) = &log
        {
            let events = reader.readings(read_to, Seq(u64::MAX), ROWS_A_READ).await?;
            read_to = events.last().map_or(read_to, |event| event.seq);
            left = ready(bundle, &events)?;
        }
        while notices.len() < window
            && let Some(Ready { topic, body, properties }) = left.pop_front()
        {
            let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
            notices.push(client.try_publish_tracked(topic, body, options)?.wait_async());
        }
        if notices.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some(answer) = notices.next() => { answer?; }
            event = event_loop.poll() => { event?; }
        }
    }
    let took = Clock::System.now().mono.since(start);
    client.try_disconnect_now()?;
    if let Some(log) = log {
        log.end().await?;
    }
    // The farewell may or may not have gone out.
    let _ = tokio::time::timeout(Duration::from_secs(1), async { while event_loop.poll().await.is_ok() {} }).await;
    Ok(took)
}

/// Bytes that this process hands to `write` and its kin for one reading, from the first to the end of the run.
///
/// The kernel counts them as `wchar` in `/proc/self/io`: everything SQLite writes to its log and to the database, so every
/// page of a checkpoint too. What goes to a socket by `send` is not among them. Time is paused and goes from group to group.
#[expect(
    clippy::disallowed_methods,
    reason = "the time of the runtime stands still, this wait is one of the real time"
)]
fn bytes_written(is_online: bool) -> Result<f64> {
    let folder = tempfile::tempdir_in(".")?;
    let mut broker = broker::Broker::without_memory(folder.path());
    if !is_online {
        broker.kill();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let working = work(&folder.path().join("state"))?;
        let (reader, handle, epoch, first) = working.opened.clone();
        let (status_in, mut status) = watch::channel(UplinkStatus::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let config = config(broker.port(), &epoch, 50)?;
        tasks.spawn(uplink::run(config, reader, handle.clone(), status_in, Clock::System, 7, stop.clone()));
        if is_online {
            status.wait_for(|status| status.connected).await?;
        }
        let mut durable = handle.durable();
        // What sleeps must not make time jump while the broker answers.
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let holding = tokio::task::spawn_blocking(move || held.recv().is_err());
        tokio::time::pause();
        let before = bytes_so_far()?;
        for group in 0..COUNTED / GROUP {
            for number in 0..GROUP {
                handle.try_append(Arc::new(event(&epoch, Seq(first.0 + group * GROUP + number))?))?;
            }
            let newest = Seq(first.0 + (group + 1) * GROUP - 1);
            let mut is_durable = false;
            while !is_durable {
                // Once, unless the writer had not yet begun to wait for the next group.
                tokio::time::advance(Duration::from_millis(1100)).await;
                is_durable = tokio::select! {
                    biased;
                    found = durable.wait_for(|seq| *seq >= newest) => found.map(|_| true)?,
                    waited = tokio::task::spawn_blocking(|| std::thread::sleep(LATE)) => waited.map(|()| false)?,
                };
            }
            if is_online {
                status.wait_for(|status| status.waiting == 0 && status.in_flight == 0).await?;
            }
        }
        tokio::time::resume();
        drop(hold);
        stop.cancel();
        tasks.join_next().await.context("no uplink")???;
        working.end().await?;
        ensure!(holding.await?, "the holder has ended");
        let bytes = u32::try_from(bytes_so_far()?.saturating_sub(before))?;
        Ok(f64::from(bytes) / f64::from(u32::try_from(COUNTED)?))
    })
}

fn bytes_so_far() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let count = text.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no wchar in /proc/self/io")?;
    Ok(count.parse()?)
}
