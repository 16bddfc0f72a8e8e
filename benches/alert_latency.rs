//! From the reading that crosses a limit to the alert frame on a TCP socket, beside a frame of the same size that goes
//! straight through pipeline, hub, session and socket in the same run.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use vitalbridge::alerts::{Engine, RuleSet};
use vitalbridge::clock::{Clock, Stamp};
use vitalbridge::event::{SourceMessage, SystemEvent, SystemKind};
use vitalbridge::ids::Epoch;
use vitalbridge::metrics::Metrics;
use vitalbridge::notifier::{Notifier, Saved};
use vitalbridge::pipeline::{CONTROL_QUEUE, Control, Parts, Pipeline, SOURCE_QUEUE};
use vitalbridge::profile::Models;
use vitalbridge::secret::Secret;
use vitalbridge::server::accept;
use vitalbridge::server::auth::Role as UserRole;
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::codes::Codes;
use vitalbridge::server::connections::Connections;
use vitalbridge::server::form::compact::Streams;
use vitalbridge::server::hosts::Hosts;
use vitalbridge::server::jwt::{Claims, TokenKey};
use vitalbridge::server::rate::Users;
use vitalbridge::server::routes::{Site, router};
use vitalbridge::server::seats::Seats;
use vitalbridge::server::session::Shared;
use vitalbridge::server::socket::Gate;
use vitalbridge::server::tokens::Access;
use vitalbridge::sources::ble::{Air, AirSettings};
use vitalbridge::store::{self, KeptChanges, StoreOptions};
use vitalbridge::tasks::{Role, Tasks};
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};

/// Alerts, and frames beside them.
const ROUNDS: usize = 2000;

/// Alarms at once and ends at once; the default set is evaluated with it.
const RULE: &str = r#"
[[rule]]
id = "bench_low"
metric = "spo2"
kind = "physiological"
priority = "medium"
when = { below = 87 }
clear = { at_least = 87 }
clear_delay = "0s"
latching = "none"
"#;

type Socket = WebSocketStream<TcpStream>;

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut alerts, mut bare, bytes) = runtime.block_on(measure())?;
    println!("{ROUNDS} alerts and {ROUNDS} frames of the same {bytes} bytes in turns, over TCP on this machine, in us");
    println!("  {:<44} {:>8} {:>8} {:>8}", "", "p50", "p99", "max");
    for (name, times) in
        [("reading crosses a limit -> alert on the socket", &mut alerts), ("bare fan-out: event -> frame", &mut bare)]
    {
        times.sort();
        let at = |share: usize| times.get((times.len() - 1) * share / 100).copied().unwrap_or_default();
        println!("  {name:<44} {:>8.0} {:>8.0} {:>8.0}", micros(at(50)), micros(at(99)), micros(at(100)));
    }
    Ok(())
}

fn shared(epoch: Epoch) -> anyhow::Result<Shared> {
    Ok(Shared {
        bridge: "bench".parse()?,
        site: "bench".parse()?,
        epoch,
        patients: Vec::new(),
        users: Users::default(),
        limits: ServerLimits::default(),
        close_codes: CloseCodes::Own,
        streams: Streams::default(),
    })
}

async fn measure() -> anyhow::Result<(Vec<Duration>, Vec<Duration>, usize)> {
    let dir = tempfile::tempdir()?;
    let clock = Clock::System;
    let epoch = Epoch::from_bits(1);
    let options = StoreOptions { group_commit: Duration::from_secs(1), ..StoreOptions::default() };
    let opened = store::open(dir.path(), &options, epoch.clone(), "boot", clock.now())?;
    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (readings, source_queue) = mpsc::channel(SOURCE_QUEUE);
    let metrics = Arc::new(Metrics::default());
    let durable = opened.handle.durable();
    let rules = RuleSet::parse(RULE).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let pipeline = Pipeline::new(Parts {
        epoch: epoch.clone(),
        first: opened.first_seq,
        patients: Vec::new(),
        engine: Engine::new(rules, 1),
        expected: Vec::new(),
        open_alerts: Vec::new(),
        limit_changes: KeptChanges::default(),
        notifier: Notifier::new(&[], Saved::default(), 1),
        news2: std::collections::BTreeMap::new(),
        observations: Vec::new(),
        store: opened.handle,
        metrics: Arc::clone(&metrics),
        clock: clock.clone(),
    });
    let (tasks, stop) = (Tasks::new(CancellationToken::new()), CancellationToken::new());
    tasks.spawn("pipeline", Role::Vital, pipeline.run(source_queue, control_queue));
    let (writer, stopped) = (opened.writer, stop.clone());
    tasks.spawn("store", Role::Vital, async move { Ok(writer.run(stopped).await?) });
    let key = TokenKey::new(&Secret::new("s".repeat(32)), "vitalbridge", "vitalbridge")?;
    let gate = Gate {
        shared: Arc::new(shared(epoch)?),
        control: control.clone(),
        reader: opened.reader,
        durable,
        key: watch::Sender::new(key.clone()).subscribe(),
        access: Access::new(dir.path().to_owned(), false, clock.now().wall)?,
        clock: clock.clone(),
        connections: Connections::new(clock.clone(), Arc::clone(&metrics)),
        metrics,
        seats: Seats::new(ServerLimits::default()),
        stop: stop.clone(),
    };
    let (codes, air) = (Codes::Demo(Secret::new("c0de")), Air::new(AirSettings::default()).status());
    let site = Site {
        gate: Arc::new(gate),
        codes,
        hosts: Arc::new(Hosts::default()),
        tasks: tasks.clone(),
        air,
        models: Models::built_in(),
    };
    let mut socket = connect(site, &key, &clock).await?;

    let (mut alerts, mut bare, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let received = clock.now();
        let begin = now();
        readings.send(SourceMessage::Reading(reading("P-1", Metric::Spo2, 86, received)?)).await?;
        let frame = next(&mut socket, "\"change\":\"start\"").await?;
        alerts.push(begin.elapsed());
        bytes = frame.len();
        let received = clock.now();
        readings.send(SourceMessage::Reading(reading("P-1", Metric::Spo2, 97, received)?)).await?;
        next(&mut socket, "\"change\":\"end\"").await?;

        // A frame without its message has about this length.
        let message = "x".repeat(bytes.saturating_sub(bare_length(&clock)?));
        let system = SystemEvent { kind: SystemKind::ConfigReloaded, message, first: None, last: None };
        let begin = now();
        control.send(Control::System(system)).await?;
        next(&mut socket, "\"type\":\"system\"").await?;
        bare.push(begin.elapsed());
    }
    stop.cancel();
    Ok((alerts, bare, bytes))
}

/// The length of a system event's frame with an empty message.
fn bare_length(clock: &Clock) -> anyhow::Result<usize> {
    use vitalbridge::event::{Event, EventBody};
    use vitalbridge::ids::Seq;
    let system = SystemEvent { kind: SystemKind::ConfigReloaded, message: String::new(), first: None, last: None };
    let body = EventBody::System(system);
    let event = Event { epoch: Epoch::from_bits(1), seq: Seq(1000), at: clock.now(), body };
    Ok(vitalbridge::wire::push(&event)?.len())
}

/// A signed-in dashboard that listens to alerts and to the bridge, over TCP.
async fn connect(site: Site, key: &TokenKey, clock: &Clock) -> anyhow::Result<Socket> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (client, (stream, peer)) = (client?, accepted?);
    client.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    let (router, tasks) = (router(site.clone()), site.tasks);
    tasks.spawn("connection", Role::Helper, async move {
        accept::serve(stream, peer, router, CancellationToken::new(), None).await;
        Ok(())
    });
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/ws"), client).await?;
    let exp = clock.now().wall.as_secs() + 3600;
    let claims =
        Claims { sub: "bench".into(), role: UserRole::Admin, caps: None, jti: None, iat: None, nbf: None, exp };
    let token = key.issue(&claims)?;
    say(&mut socket, &json!({"type": "authenticate", "token": token.expose()})).await?;
    say(&mut socket, &json!({"type": "subscribe", "channels": ["alerts/+", "system"]})).await?;
    next(&mut socket, "\"type\":\"snapshot\"").await?;
    Ok(socket)
}

async fn say(socket: &mut Socket, message: &Json) -> anyhow::Result<()> {
    Ok(socket.send(Message::Text(message.to_string().into())).await?)
}

/// The next text that has this in it.
async fn next(socket: &mut Socket, what: &str) -> anyhow::Result<String> {
    loop {
        let message = socket.next().await.context("the server has closed")??;
        if let Message::Text(text) = message
            && text.contains(what)
        {
            return Ok(text.as_str().to_owned());
        }
    }
}

fn reading(patient: &str, metric: Metric, value: i32, received: Stamp) -> anyhow::Result<Reading> {
    Ok(Reading {
        patient: Some(patient.parse()?),
        device: format!("ox-{patient}").parse()?,
        source: "bench".parse()?,
        vital: Vital::scalar(metric, Value::Valid(Decimal::integer(value))),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Test,
        taken: Taken::on_arrival(received),
        received,
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
