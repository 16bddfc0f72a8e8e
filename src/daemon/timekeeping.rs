//! Keeps the clock epochs: compares the clocks each second, and asks what is known of the time of day.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::alerts::BridgeCondition;
use crate::clock::{Clock, Stamp};
use crate::host;
use crate::ids::Seq;
use crate::pipeline::Control;
use crate::store::StoreHandle;
use crate::timedate::TimeDate;
use crate::timeline::{ClockEpoch, ClockState, ClockWatch, Looked, Trust, What};

/// The clocks are compared this often.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// A clock that nobody has set is asked about this often: readings may wait for the answer.
const ASK_UNSET_EVERY: Duration = Duration::from_secs(2);

/// One that was set is asked about this often: the answer changes hours after the loss of a time server.
const ASK_SET_EVERY: Duration = Duration::from_mins(1);

/// What a run takes from the machine under it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What time it is.
    pub clock: Clock,
    /// The D-Bus on which the operating system tells of its clock; `None`: the system bus.
    pub bus: Option<String>,
    /// Where systemd-timesyncd says the same, for a machine without D-Bus.
    pub timesync: PathBuf,
    /// Where the kernel tells of clocks with a battery.
    pub hardware_clocks: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            clock: Clock::System,
            bus: None,
            timesync: PathBuf::from("/run/systemd/timesync"),
            hardware_clocks: PathBuf::from("/sys/class/rtc"),
        }
    }
}

/// Asks the operating system.
#[derive(Debug)]
struct Witness {
    time_date: TimeDate,
    machine: Machine,
}

impl Witness {
    async fn look(mut self) -> (Self, Looked) {
        let by_bus = self.time_date.is_synchronised().await;
        let (timesync, clocks) = (self.machine.timesync.clone(), self.machine.hardware_clocks.clone());
        let now = self.machine.clock.now().wall;
        // Files of the kernel and of systemd, in memory; the questions may block all the same.
        let files = tokio::task::spawn_blocking(move || {
            (host::is_clock_unsynchronised(&timesync), host::has_hardware_clock(&clocks, now))
        });
        let (unsynchronised, has_hardware_clock) = files.await.unwrap_or_default();
        let synchronised = by_bus.or(unsynchronised.map(|unsynchronised| !unsynchronised));
        (self, Looked { synchronised, has_hardware_clock })
    }
}

type Looking = Pin<Box<dyn Future<Output = (Witness, Looked)> + Send>>;

/// Follows the clock of one run.
pub(super) struct Timekeeper {
    watch: ClockWatch,
    witness: Option<Witness>,
    clock: Clock,
}

impl Timekeeper {
    /// Begins the first clock epoch of a run, before its first event.
    pub(super) async fn begin(machine: &Machine, trust: Trust, boot: &str, handle: &StoreHandle, first: Seq) -> Self {
        let time_date = TimeDate::on(machine.bus.clone());
        let (witness, looked) = Witness { time_date, machine: machine.clone() }.look().await;
        let clock = machine.clock.clone();
        let watch = ClockWatch::begin(boot, trust, looked, &handle.timeline().borrow(), clock.now());
        handle.begin_clock_epoch(ClockEpoch { first, ..watch.epoch().clone() });
        Self { watch, witness: Some(witness), clock }
    }

    /// Tells the pipeline what becomes of the clock, until that has gone.
    pub(super) async fn run(mut self, control: mpsc::Sender<Control>) {
        let mut seconds = tokio::time::interval(COMPARE_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looking: Option<Looking> = None;
        let mut asked = self.clock.now();
        // What was asked before a step says nothing of the time after it.
        let mut must_ask = false;
        let mut told = None;
        loop {
            if tell_condition(&control, self.watch.epoch().state, &mut told).await.is_err() {
                return;
            }
            let news = tokio::select! {
                biased;
                // Comparing costs nothing and comes first.
                _ = seconds.tick() => self.watch.on_second(self.clock.now()),
                // The operating system has answered.
                (witness, looked) = answer(&mut looking) => {
                    (self.witness, looking) = (Some(witness), None);
                    if must_ask { None } else { self.watch.on_look(looked, self.clock.now()) }
                }
            };
            must_ask |= news.as_ref().is_some_and(|news| matches!(news.what, What::Stepped(_)));
            let now = self.clock.now();
            if (must_ask || self.is_due(asked, now))
                && let Some(witness) = self.witness.take()
            {
                (asked, must_ask) = (now, false);
                looking = Some(Box::pin(witness.look()));
            }
            if let Some(news) = news
                && control.send(Control::Clock(news)).await.is_err()
            {
                return;
            }
        }
    }

    fn is_due(&self, asked: Stamp, now: Stamp) -> bool {
        let every = if self.watch.epoch().state.is_settled() { ASK_SET_EVERY } else { ASK_UNSET_EVERY };
        now.mono.since(asked.mono) >= every
    }
}

async fn answer(looking: &mut Option<Looking>) -> (Witness, Looked) {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

/// Says whether the clock is known not to be set, when that changes; nothing where nobody can tell.
async fn tell_condition(
    control: &mpsc::Sender<Control>,
    state: ClockState,
    told: &mut Option<bool>,
) -> Result<(), mpsc::error::SendError<Control>> {
    let Some(synced) = state.synced().filter(|synced| *told != Some(*synced)) else { return Ok(()) };
    *told = Some(synced);
    control.send(Control::Condition(BridgeCondition::ClockUnsynchronised, !synced)).await
}
