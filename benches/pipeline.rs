//! Bytes in to frame out: a strap's payload through decoder, alert engine, hub, store queue and one listener's outbox,
//! beside a bare loop that reads the rate from the payload and writes the same JSON, in the same run.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::{Engine, RuleSet};
use vitalbridge::clock::Clock;
use vitalbridge::decode::{Decoded, gatt};
use vitalbridge::event::SourceMessage;
use vitalbridge::hub::{Join, Joined, Scope};
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::{Notifier, Saved};
use vitalbridge::outbox::Delivery;
use vitalbridge::pipeline::{Control, Parts, Pipeline};
use vitalbridge::store::{self, KeptChanges, StoreOptions};
use vitalbridge::vitals::{Mode, Reading, Taken};

/// Payloads of one round: fewer than fill an outbox, so that nothing is skipped.
const PAYLOADS: usize = 1000;

/// Rounds, taken in turns; medians count.
const ROUNDS: usize = 101;

/// A Polar H7 payload with contact, rate 77 and one interval.
const PAYLOAD: [u8; 4] = [0x16, 0x4D, 0x16, 0x03];

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let clock = Clock::System;
    let epoch = Epoch::from_bits(1);
    let options = StoreOptions { group_commit: Duration::from_millis(100), ..StoreOptions::default() };
    let opened = store::open(dir.path(), &options, epoch.clone(), "boot", clock.now())?;
    let mut durable = opened.handle.durable();
    let (stop, writer) = (CancellationToken::new(), opened.writer);
    let stopped = stop.clone();
    let writing = runtime.spawn(async move { writer.run(stopped).await });
    let mut pipeline = Pipeline::new(Parts {
        epoch,
        first: opened.first_seq,
        patients: Vec::new(),
        engine: Engine::new(RuleSet::built_in(), 1),
        expected: Vec::new(),
        open_alerts: Vec::new(),
        limit_changes: KeptChanges::default(),
        notifier: Notifier::new(&[], Saved::default(), 1),
        news2: BTreeMap::new(),
        observations: Vec::new(),
        store: opened.handle,
        metrics: Arc::new(Metrics::default()),
        clock: clock.clone(),
    });
    let joined = join(&mut pipeline, &clock)?;

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut parcels = Vec::new();
    let mut newest = Seq::ZERO;
    for _ in 0..ROUNDS {
        let begin = now();
        for _ in 0..PAYLOADS {
            feed(&mut pipeline, &clock)?;
        }
        parcels.clear();
        joined.outbox.take(usize::MAX, &mut parcels);
        ours.push(begin.elapsed());
        if let Some(vitalbridge::outbox::Parcel::Event(published)) = black_box(&parcels).last() {
            newest = published.event.seq;
        }
        // The disk is measured by the store's own benchmark.
        runtime.block_on(durable.wait_for(|through| *through >= newest))?;

        let begin = now();
        black_box(bare_loop()?);
        bare.push(begin.elapsed());
    }
    drop(pipeline);
    stop.cancel();
    runtime.block_on(writing)??;

    let (ours, bare) = (median(ours), median(bare));
    println!("{PAYLOADS} payloads, two readings each, median of {ROUNDS} rounds");
    println!("  pipeline   {:>8.2} us a payload", micros(ours));
    println!("  bare loop  {:>8.2} us a payload", micros(bare));
    println!("  ratio      {:>8.2}", ours.as_secs_f64() / bare.as_secs_f64());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn join(pipeline: &mut Pipeline, clock: &Clock) -> anyhow::Result<Joined> {
    let (reply, mut answer) = oneshot::channel();
    let join = Join {
        listener: None,
        user: None,
        patterns: vec!["#".parse()?],
        filter: None,
        acks: false,
        scope: Scope::Everything,
        delivery: Delivery::All,
        since: None,
    };
    pipeline.on_control(Control::Join(join, reply), clock.now());
    answer.try_recv()?.context("the hub has no room")
}

/// What the strap's source does with a notification, without the radio.
fn feed(pipeline: &mut Pipeline, clock: &Clock) -> anyhow::Result<()> {
    for decoded in gatt::decode(gatt::HEART_RATE_MEASUREMENT, black_box(&PAYLOAD))?.decoded {
        let Decoded::Vital(decoded) = decoded else { continue };
        let received = clock.now();
        let reading = Reading {
            patient: Some("P-0001".parse()?),
            device: "strap-1".parse()?,
            source: "strap-1".parse()?,
            vital: decoded.vital,
            mdc: decoded.mdc,
            quality: decoded.quality,
            mode: Mode::Test,
            taken: Taken::on_arrival(received),
            received,
        };
        pipeline.on_source_message(SourceMessage::Reading(reading), received);
    }
    Ok(())
}

/// The least that a bridge can do: no types, no rules, no numbers that name events for ever.
fn bare_loop() -> anyhow::Result<VecDeque<String>> {
    let mut queue = VecDeque::new();
    for seq in 0..PAYLOADS {
        let [_, rate, low, high] = black_box(PAYLOAD);
        let interval = f64::from(u16::from_le_bytes([low, high])) * 1000.0 / 1024.0;
        for (metric, value, unit) in [("heart_rate", f64::from(rate), "bpm"), ("rr_interval", interval, "ms")] {
            let data = json!({"metric": metric, "value": value, "unit": unit, "patient_id": "P-0001",
                "device_id": "strap-1", "quality": "valid", "timestamp": "2026-11-20T22:00:00.123Z"});
            let frame = json!({"type": "health_update", "data": data, "seq": seq, "epoch": "k3f9",
                "timestamp": "2026-11-20T22:00:00.123Z", "channel": format!("patient/P-0001/{metric}")});
            queue.push_back(serde_json::to_string(&frame)?);
        }
    }
    Ok(queue)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(u32::try_from(PAYLOADS).unwrap_or(u32::MAX))
}
