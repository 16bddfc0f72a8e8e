//! Small tasks that carry facts of one part to another, and tell systemd and the metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use super::{Running, buffering};
use crate::alerts::BridgeCondition;
use crate::config::Config;
use crate::event::{SystemEvent, SystemKind};
use crate::host;
use crate::metrics::Metrics;
use crate::pipeline::Control;
use crate::store::{DroppedRows, SalvageReport, SeqRange, StoreHandle, StoreHealth};
use crate::systemd;
use crate::tasks::Role;
use crate::uplink;
use crate::wire::UplinkNow;

/// The disk is looked at this often.
const DISK_EVERY: Duration = Duration::from_mins(1);

/// The line for `systemctl status` is renewed this often.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// How long it is told on the dashboards that a damaged database was replaced; the log of events has it for good.
const SALVAGE_TOLD: Duration = Duration::from_hours(1);

/// How long the pipeline and the writer may take to answer the watchdog.
const WATCHDOG_ANSWER: Duration = Duration::from_secs(5);

/// What is told of the connection to the broker.
#[derive(Debug)]
pub(super) struct Uplink {
    /// What it is doing.
    pub(super) status: watch::Receiver<uplink::UplinkStatus>,
    /// How long the buffer lasts without the broker; `None`: unknown.
    pub(super) buffer: watch::Receiver<Option<Duration>>,
    /// When that is too short.
    pub(super) low: buffering::Watch,
}

/// Small tasks that carry facts of one part to another.
pub(super) fn start_watchers(
    running: &Running,
    metrics: &Arc<Metrics>,
    (dropped, salvages): (mpsc::Receiver<DroppedRows>, mpsc::Receiver<SalvageReport>),
    uplink: Option<Uplink>,
    config: &Config,
) {
    let confirms_delivery = config.confirms_delivery;
    let stop = &running.stages.inputs;
    running.tasks.spawn("store health", Role::Helper, {
        let (stop, control, health) = (stop.clone(), running.control.clone(), running.handle.health());
        stop.clone().run_until_cancelled_owned(watch_store(control, health)).map_or_ok()
    });
    running.tasks.spawn("dropped readings", Role::Helper, {
        let control = running.control.clone();
        stop.clone().run_until_cancelled_owned(tell_dropped(control, dropped)).map_or_ok()
    });
    running.tasks.spawn("salvaged databases", Role::Helper, {
        let control = running.control.clone();
        stop.clone().run_until_cancelled_owned(tell_salvaged(control, salvages)).map_or_ok()
    });
    if let Some(Uplink { status, buffer, low }) = uplink {
        // From the first moment on: without it nobody could tell it from a bridge that has no broker.
        metrics.uplink.send_replace(Some(UplinkNow::default()));
        running.tasks.spawn("uplink status", Role::Helper, {
            let (control, metrics) = (running.control.clone(), Arc::clone(metrics));
            stop.clone().run_until_cancelled_owned(watch_uplink(control, metrics, status, (buffer, low))).map_or_ok()
        });
    }
    running.tasks.spawn("status line", Role::Helper, {
        let (metrics, durable) = (Arc::clone(metrics), running.handle.durable());
        stop.clone().run_until_cancelled_owned(tell_status(metrics, durable, confirms_delivery)).map_or_ok()
    });
    if let Some(every) = systemd::watchdog_interval() {
        let (control, handle) = (running.control.clone(), running.handle.clone());
        running.tasks.spawn("watchdog", Role::Helper, {
            stop.clone().run_until_cancelled_owned(feed_watchdog(control, handle, every)).map_or_ok()
        });
    }
}

/// Ends a watcher quietly, whether it was cancelled or its part went away.
pub(super) trait MapOrOk: Future + Sized + Send {
    fn map_or_ok(self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async {
            self.await;
            Ok(())
        }
    }
}

impl<F: Future + Send> MapOrOk for F where F::Output: Send {}

async fn watch_store(control: mpsc::Sender<Control>, mut health: watch::Receiver<StoreHealth>) {
    loop {
        let degraded = matches!(*health.borrow_and_update(), StoreHealth::Degraded { .. });
        let told = control.send(Control::Condition(BridgeCondition::StorageDegraded, degraded)).await;
        if told.is_err() || health.changed().await.is_err() {
            return;
        }
    }
}

/// Tells how full the state directory's disk is.
pub(super) async fn watch_disk(control: mpsc::Sender<Control>, state_dir: PathBuf) {
    let mut told = None;
    loop {
        let (path, was_full) = (state_dir.clone(), told == Some(true));
        // A dead disk blocks, and must not block anybody else.
        let looked = tokio::task::spawn_blocking(move || host::is_disk_full(&path, was_full));
        match looked.await {
            Ok(Ok(present)) => {
                if told.replace(present) != Some(present)
                    && control.send(Control::Condition(BridgeCondition::DiskFull, present)).await.is_err()
                {
                    return;
                }
            }
            Ok(Err(error)) => warn!(%error, path = %state_dir.display(), "cannot tell how full the disk is"),
            Err(_) => return,
        }
        tokio::time::sleep(DISK_EVERY).await;
    }
}

/// The budget was too small for what the backend has not confirmed: said as an event, which is kept longer.
async fn tell_dropped(control: mpsc::Sender<Control>, mut dropped: mpsc::Receiver<DroppedRows>) {
    while let Some(DroppedRows { first, last, parked }) = dropped.recv().await {
        let message = if parked == 0 {
            format!("readings from {first} to {last} were dropped for want of space")
        } else {
            format!(
                "{parked} events between {first} and {last} that the broker had not taken were dropped for want of space"
            )
        };
        warn!("{message}, and the backend does not have them");
        let system = SystemEvent { kind: SystemKind::EventsLost, message, first: Some(first), last: Some(last) };
        if control.send(Control::System(system)).await.is_err() {
            return;
        }
    }
}

/// A damaged database was replaced: an alert for a while, and an event for each range of numbers that is lost.
async fn tell_salvaged(control: mpsc::Sender<Control>, mut salvages: mpsc::Receiver<SalvageReport>) {
    // What the last run told is over with it, unless there is more to tell.
    let mut present = !salvages.is_empty();
    if !present && control.send(Control::Condition(BridgeCondition::StorageSalvaged, false)).await.is_err() {
        return;
    }
    loop {
        let span = if present { SALVAGE_TOLD } else { Duration::MAX };
        let Ok(report) = tokio::time::timeout(span, salvages.recv()).await else {
            present = false;
            if control.send(Control::Condition(BridgeCondition::StorageSalvaged, false)).await.is_err() {
                return;
            }
            continue;
        };
        let Some(SalvageReport { problem, moved_to, readings, events, lost }) = report else { return };
        present = true;
        error!(%problem, moved_to = %moved_to.display(), readings, events, "the database was damaged; a new one has what could be read");
        if control.send(Control::Condition(BridgeCondition::StorageSalvaged, true)).await.is_err() {
            return;
        }
        for SeqRange { first, last } in lost {
            let message = format!("events from {first} to {last} are lost with a damaged part of the database");
            let system = SystemEvent { kind: SystemKind::EventsLost, message, first: Some(first), last: Some(last) };
            if control.send(Control::System(system)).await.is_err() {
                return;
            }
        }
    }
}

async fn watch_uplink(
    control: mpsc::Sender<Control>,
    metrics: Arc<Metrics>,
    mut status: watch::Receiver<uplink::UplinkStatus>,
    (mut buffer, mut low): (watch::Receiver<Option<Duration>>, buffering::Watch),
) {
    let mut told = BTreeMap::new();
    loop {
        let left = *buffer.borrow_and_update();
        let (now, held) = {
            let status = status.borrow_and_update();
            (seen(&status, left), status.held_seconds)
        };
        metrics.uplink_held_seconds.set(held.unwrap_or(0));
        metrics.uplink_backlog.set(now.backlog);
        metrics.uplink_backlog_seconds.set(now.backlog_seconds.unwrap_or(0));
        metrics.uplink_connected.set(u64::from(now.connected));
        metrics.uplink_waiting.set(now.waiting);
        metrics.uplink_parked.set(now.parked);
        for (condition, known) in [
            (BridgeCondition::UplinkDown, Some(!now.connected)),
            (BridgeCondition::UplinkRejected, Some(now.parked > 0)),
            (BridgeCondition::BufferLow, low.look(now.connected, left)),
        ] {
            let Some(present) = known else { continue };
            if told.insert(condition, present) != Some(present)
                && control.send(Control::Condition(condition, present)).await.is_err()
            {
                return;
            }
        }
        metrics.uplink.send_replace(Some(now));
        tokio::select! {
            biased;
            // The connection, or what waits.
            changed = status.changed() => if changed.is_err() { return },
            // The room was measured.
            changed = buffer.changed() => if changed.is_err() { return },
        }
    }
}

/// The connection to the broker as it is told to people.
fn seen(status: &uplink::UplinkStatus, left: Option<Duration>) -> UplinkNow {
    UplinkNow {
        connected: status.connected,
        since: status.since.map(|since| since.to_string()),
        waiting: status.waiting,
        backlog: status.backlog,
        backlog_seconds: status.backlog_seconds,
        in_flight: u64::try_from(status.in_flight).unwrap_or(u64::MAX),
        parked: status.parked,
        sent: status.sent,
        buffer_seconds_left: left.map(|left| left.as_secs()),
        reason: status.reason.clone(),
    }
}

/// The connection to the broker on the line for `systemctl status`; nothing where there is none.
fn uplink_words(uplink: Option<&UplinkNow>) -> String {
    let Some(uplink) = uplink else { return String::new() };
    let mut words = if uplink.connected { ", broker connected" } else { ", broker AWAY" }.to_owned();
    // Writing to a String cannot fail.
    let _ = match (uplink.backlog, uplink.backlog_seconds) {
        (0, _) if uplink.connected => Ok(()),
        (0, _) => write!(words, ", {} events wait", uplink.waiting),
        (left, Some(seconds)) => write!(words, ", {left} of the backlog left, {seconds} s"),
        (left, None) => write!(words, ", {left} of the backlog left"),
    };
    if !uplink.connected {
        let _ = match uplink.buffer_seconds_left {
            Some(seconds) => write!(words, ", room for {} h", seconds / 3600),
            None => write!(words, ", room for an unknown time"),
        };
    }
    words
}

async fn tell_status(metrics: Arc<Metrics>, durable: watch::Receiver<crate::ids::Seq>, confirms_delivery: bool) {
    loop {
        let through = durable.borrow().0;
        metrics.durable_through.set(through);
        let shown = if confirms_delivery {
            format!("alerts shown by {}, {} undelivered", metrics.annunciators.get(), metrics.alerts_undelivered.get())
        } else {
            "delivery of alerts NOT confirmed".to_owned()
        };
        systemd::status(&format!(
            "{} readings, {} dashboards, {shown}, kept through event {through}{}",
            metrics.readings_total.get(),
            metrics.connections.get(),
            uplink_words(metrics.uplink.borrow().as_ref()),
        ));
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

/// Tells systemd that we live, each time the pipeline has turned and the writer has answered since the last time.
async fn feed_watchdog(control: mpsc::Sender<Control>, handle: StoreHandle, every: Duration) {
    loop {
        let (reply, answer) = oneshot::channel();
        let both = async {
            control.send(Control::Ping(reply)).await.is_ok() && answer.await.is_ok() && handle.ping().await.is_ok()
        };
        if tokio::time::timeout(WATCHDOG_ANSWER, both).await == Ok(true) {
            systemd::watchdog();
        } else {
            warn!("the pipeline or the store does not answer; the watchdog is not fed");
        }
        tokio::time::sleep(every / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_status_tells_of_the_broker_the_backlog_and_the_room() {
        let base = UplinkNow { connected: true, ..UplinkNow::default() };
        let away = UplinkNow { connected: false, waiting: 70, ..base.clone() };
        for (uplink, expected) in [
            (base.clone(), ", broker connected"),
            (
                UplinkNow { backlog: 900, backlog_seconds: Some(42), ..base.clone() },
                ", broker connected, 900 of the backlog left, 42 s",
            ),
            (UplinkNow { backlog: 900, ..base }, ", broker connected, 900 of the backlog left"),
            (away.clone(), ", broker AWAY, 70 events wait, room for an unknown time"),
            (UplinkNow { buffer_seconds_left: Some(90_000), ..away }, ", broker AWAY, 70 events wait, room for 25 h"),
        ] {
            assert_eq!(uplink_words(Some(&uplink)), expected);
        }
        assert_eq!(uplink_words(None), "");
    }

    #[tokio::test]
    async fn room_that_ends_soon_without_the_broker_is_a_condition_of_the_bridge() {
        let (control, mut wishes) = mpsc::channel(8);
        let (status, told) = watch::channel(uplink::UplinkStatus::default());
        let (buffer, known) = watch::channel(None);
        let metrics = Arc::new(Metrics::default());
        let low = buffering::Watch::new(Some(Duration::from_hours(24)));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(watch_uplink(control, Arc::clone(&metrics), told, (known, low)));
        let mut next = async || match wishes.recv().await {
            Some(Control::Condition(condition, present)) => (condition, present),
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, (BridgeCondition::UplinkDown, true));
        assert_eq!(next().await, (BridgeCondition::UplinkRejected, false));
        // Nobody knows how long it lasts yet: nothing is said of it.
        buffer.send_replace(Some(Duration::from_hours(30)));
        assert_eq!(next().await, (BridgeCondition::BufferLow, false));
        buffer.send_replace(Some(Duration::from_hours(23)));
        assert_eq!(next().await, (BridgeCondition::BufferLow, true));
        let is_told =
            |now: &Option<UplinkNow>| now.as_ref().is_some_and(|now| now.buffer_seconds_left == Some(23 * 3600));
        assert!(metrics.uplink.subscribe().wait_for(is_told).await.is_ok());
        status.send_modify(|status| status.connected = true);
        assert_eq!(next().await, (BridgeCondition::UplinkDown, false));
        assert_eq!(next().await, (BridgeCondition::BufferLow, false));
    }
}
