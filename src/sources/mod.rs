//! Where readings come from: what a source is, how it is started, and when it is started again.
//!
//! A source is one task. It reads its device, decodes in place, and sends [`SourceMessage`]s into the one bounded queue
//! of the pipeline; a full queue slows it down and is never a reason to drop. It fails by returning an error (or by a
//! panic), and [`run`] starts it again after a jittered pause, for ever.

pub mod ble;
mod device_clock;
pub mod output;
pub mod replay;
pub mod serial;
pub mod simulator;
pub mod stream;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock::{Clock, Mono};
use crate::event::{LinkState, NotDone, Order, SourceMessage};
use crate::ids::{DeviceId, PatientId, SourceId};
use crate::record::KnownRecords;
use crate::vitals::{Mode, Status};

use self::ble::BleConfig;
use self::ble::records::Known;
use self::output::{SourceCounters, SourceOutput};
use self::replay::{ReplayConfig, ReplayError};
use self::serial::{Bound, PortMemory, SerialConfig};
use self::simulator::SimulatorConfig;
use self::simulator::pty::PtyError;

/// Shortest pause before a source is started again.
pub const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause before a source is started again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A number that still holds is sent again this often, and so is its absence, so that its age stays known.
pub const RESEND_EVERY: Duration = Duration::from_secs(1);
/// Orders that may wait for one source. One more is refused as busy.
pub const ORDER_QUEUE: usize = 8;
/// The same reason why a source cannot be started is a warning this often, and for debugging in between.
const COMPLAIN_EVERY: Duration = Duration::from_hours(1);
/// How long a source may take to say goodbye to its device when the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// One configured way in.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Its name.
    pub id: SourceId,
    /// Whose readings these are. `None`: the device is not assigned to anybody.
    pub patient: Option<PatientId>,
    /// The device at the other end.
    pub device: DeviceId,
    /// Real, demo or test.
    pub mode: Mode,
    /// What is there.
    pub kind: SourceKind,
}

/// The kinds of source.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// A sensor over Bluetooth Low Energy.
    Ble(BleConfig),
    /// A monitor at a serial port.
    Serial(SerialConfig),
    /// The demo ward. It names its own patients and devices.
    Simulator(SimulatorConfig),
    /// A recording.
    Replay(ReplayConfig),
    /// What was configured cannot be used, which must not stop the other sources.
    Unusable {
        /// Why.
        reason: String,
    },
}

/// Why a source stopped.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The port or connection cannot be opened.
    #[error("cannot open {port}: {reason}")]
    Open {
        /// The port.
        port: String,
        /// The system's answer.
        reason: String,
    },
    /// Another process has the port, and keeps others out.
    #[error("{port} is in use by another program")]
    InUse {
        /// The port.
        port: String,
    },
    /// The port or connection has gone.
    #[error("{port} was lost: {reason}")]
    Lost {
        /// The port.
        port: String,
        /// How that showed.
        reason: String,
    },
    /// The profile is for a device without a serial line.
    #[error("the profile `{profile}` has no line settings for a serial port")]
    NoSerialLine {
        /// The profile.
        profile: String,
    },
    /// A profile that the simulator needs cannot be used.
    #[error("the profile `{profile}` cannot be used: {reason}")]
    Profile {
        /// The profile.
        profile: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A recording cannot be played.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// An emulated device cannot be offered.
    #[error(transparent)]
    Pty(#[from] PtyError),
    /// A defect in the source.
    #[error("the source panicked: {0}")]
    Panicked(String),
    /// Nobody takes the readings any more.
    #[error("the pipeline has gone")]
    PipelineGone,
}

/// What ties a source to the rest of the daemon, where it is run by one.
#[derive(Debug, Default)]
pub struct Ties {
    /// What is known about its device from an earlier run.
    pub bound: Bound,
    /// What people order. Only a serial source takes orders.
    pub orders: Option<mpsc::Receiver<Order>>,
    /// What earlier runs have taken of the device's memory.
    pub records: KnownRecords,
}

/// Runs a source on its own: nobody gives it orders, and it knows nothing of earlier runs. See [`run_with`].
///
/// # Errors
/// Those of [`run_with`].
pub async fn run(
    config: SourceConfig,
    out: mpsc::Sender<SourceMessage>,
    clock: Clock,
    counters: Arc<SourceCounters>,
    stop: CancellationToken,
) -> Result<(), SourceError> {
    run_with(config, Ties::default(), out, clock, counters, stop).await
}

/// Runs a source until `stop` is cancelled or it has come to its end, and starts it again whenever it fails.
///
/// Every change of the link is reported, the last one as [`LinkState::Closed`].
///
/// # Errors
/// [`SourceError::PipelineGone`] alone; every other error is reported, and waited out.
pub async fn run_with(
    config: SourceConfig,
    ties: Ties,
    out: mpsc::Sender<SourceMessage>,
    clock: Clock,
    counters: Arc<SourceCounters>,
    stop: CancellationToken,
) -> Result<(), SourceError> {
    let mut memory = Memory::new(&config, ties);
    let mut output = SourceOutput::new(&config, out, clock, counters);
    if memory.port.is_doubted() {
        output.stand([Status::DeviceChanged].into());
    }
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    let result = tokio::select! {
        biased;
        // The source has come to its end, or has seen `stop` itself.
        result = supervise(&config, &mut output, &mut memory, &stop) => result,
        // The source does not see `stop`: its futures are dropped, which closes its port.
        () = stopped => Ok(()),
    };
    result?;
    // A pipeline that takes nothing for so long is on its way out too.
    let closing = async {
        memory.refuse_orders(&mut output, "the bridge is stopping").await?;
        output.state(LinkState::Closed).await
    };
    tokio::time::timeout(STOP_GRACE, closing).await.unwrap_or(Ok(()))
}

async fn supervise(
    config: &SourceConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    let mut complaint = Complaint::default();
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE, jitter_seed(config, output));
    loop {
        let error = match without_panic(run_once(config, output, memory, stop)).await {
            Ok(()) => return Ok(()),
            Err(SourceError::PipelineGone) => return Err(SourceError::PipelineGone),
            Err(error) => error,
        };
        if std::mem::take(&mut memory.was_live) {
            backoff.reset();
            complaint = Complaint::default();
        }
        let pause = backoff.next_delay();
        if complaint.is_news(&error.to_string(), output.now().mono) {
            tracing::warn!(source = %config.id, %error, ?pause, "source stopped, will be started again");
        } else {
            tracing::debug!(source = %config.id, %error, ?pause, "source stopped again");
        }
        SourceCounters::add(&output.counters().restarts, 1);
        output.link(LinkState::Lost, &BTreeSet::new(), Some(&error.to_string())).await?;
        if let Some(order) = memory.in_hand.take() {
            let reason = error.to_string();
            output.answer(order, Err(NotDone { code: "failed", reason, was_tried: true })).await?;
        }
        let mut pausing = pin!(pause_before_retry(config, pause));
        loop {
            tokio::select! {
                biased;
                // The daemon stops.
                () = stop.cancelled() => return Ok(()),
                // A person wants something meanwhile.
                order = next_order(&mut memory.orders) => {
                    serial::orders::obey_while_closed(order, &mut memory.port, output).await?;
                }
                // Try again.
                () = &mut pausing => break,
            }
        }
    }
}

/// What was last written into the log about a source that cannot be started.
///
/// An unplugged port fails every few seconds for as long as it is out, which would push everything else out of the log.
#[derive(Debug, Default)]
struct Complaint {
    last: Option<(String, Mono)>,
}

impl Complaint {
    /// True if the reason is another one than the last, or was not written for [`COMPLAIN_EVERY`].
    fn is_news(&mut self, reason: &str, now: Mono) -> bool {
        let is_known = |(last, at): &(String, Mono)| last == reason && now.since(*at) < COMPLAIN_EVERY;
        if self.last.as_ref().is_some_and(is_known) {
            return false;
        }
        self.last = Some((reason.to_owned(), now));
        true
    }
}

/// Waits; a serial port that is plugged in meanwhile is tried at once.
async fn pause_before_retry(config: &SourceConfig, pause: Duration) {
    match &config.kind {
        SourceKind::Serial(serial) => {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = serial.port.replugged() => {}
            }
        }
        _ => tokio::time::sleep(pause).await,
    }
}

/// The next order; waits for ever where nobody gives any.
async fn next_order(orders: &mut Option<mpsc::Receiver<Order>>) -> Order {
    match orders {
        Some(queue) => match queue.recv().await {
            Some(order) => order,
            // Nobody can order anything any more.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// What a source remembers when it is started again.
#[derive(Debug, Default)]
struct Memory {
    /// Data came since the last start: the next pause is a short one again.
    was_live: bool,
    /// About the port, if the source reads one.
    port: PortMemory,
    /// What people order.
    orders: Option<mpsc::Receiver<Order>>,
    /// The number of the order that is being carried out.
    in_hand: Option<u64>,
    /// Records of the device that came before.
    known: Known,
}

impl Memory {
    fn new(config: &SourceConfig, ties: Ties) -> Self {
        let port = match &config.kind {
            SourceKind::Serial(serial) => PortMemory::new(serial, ties.bound),
            _ => PortMemory::default(),
        };
        Self { port, orders: ties.orders, known: ties.records.into(), ..Self::default() }
    }

    /// Answers what nobody will carry out any more.
    async fn refuse_orders(&mut self, output: &mut SourceOutput, reason: &str) -> Result<(), SourceError> {
        if let Some(order) = self.in_hand.take() {
            let reason = reason.to_owned();
            output.answer(order, Err(NotDone { code: "failed", reason, was_tried: true })).await?;
        }
        let Some(orders) = &mut self.orders else { return Ok(()) };
        orders.close();
        while let Ok(order) = orders.try_recv() {
            let reason = reason.to_owned();
            output.answer(order.number, Err(NotDone { code: "unavailable", reason, was_tried: false })).await?;
        }
        Ok(())
    }
}

async fn run_once(
    config: &SourceConfig,
    output: &mut SourceOutput,
    memory: &mut Memory,
    stop: &CancellationToken,
) -> Result<(), SourceError> {
    match &config.kind {
        // By far the largest of them, which the others need not make room for.
        SourceKind::Ble(sensor) => Box::pin(ble::run(sensor, config, output, &mut memory.known, stop)).await,
        SourceKind::Serial(serial) => serial::run(serial, output, memory, stop).await,
        SourceKind::Simulator(simulator) => simulator::run(simulator, output, memory, stop).await,
        SourceKind::Replay(replay) => replay::run(replay, output, memory, stop).await,
        SourceKind::Unusable { reason } => {
            // It does not get better by trying again; whoever repairs it starts the daemon again.
            tracing::error!(source = %config.id, %reason, "the source cannot be started");
            output.link(LinkState::Lost, &BTreeSet::new(), Some(reason)).await?;
            stop.cancelled().await;
            Ok(())
        }
    }
}

/// Sources of one daemon, and the same source of many daemons, must not retry in step.
fn jitter_seed(config: &SourceConfig, output: &SourceOutput) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&config.id, output.now()).hash(&mut hasher);
    hasher.finish()
}

/// A panic becomes an error like any other: one broken source must not take the daemon with it.
async fn without_panic(attempt: impl Future<Output = Result<(), SourceError>>) -> Result<(), SourceError> {
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    attempt.unwrap_or_else(|panic| Err(SourceError::Panicked(panic_text(&*panic))))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_when_it_changes_and_once_an_hour() {
        let mut complaint = Complaint::default();
        let written: Vec<bool> = [("a", 0), ("a", 10), ("b", 20), ("b", 3619), ("b", 3620), ("b", 3630), ("a", 3640)]
            .map(|(reason, seconds)| complaint.is_news(reason, Mono::from_millis(seconds * 1000)))
            .into();
        assert_eq!(written, [true, false, true, false, true, false, true]);
    }

    #[tokio::test]
    async fn a_panic_in_a_source_is_an_error_with_its_message() {
        let broken = async {
            let empty: Vec<u8> = Vec::new();
            assert_eq!(empty.len(), 1, "no number");
            Ok(())
        };
        let panicked = without_panic(broken).await.unwrap_err().to_string();
        assert!(panicked.starts_with("the source panicked: ") && panicked.contains("no number"), "{panicked}");
    }
}
