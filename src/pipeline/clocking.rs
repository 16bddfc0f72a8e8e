//! What becomes of the present when the clock was set or more is known of it: no timer notices, and what is shown has the
//! times that hold now.

use std::sync::Arc;

use tracing::{error, info};

use super::Pipeline;
use crate::clock::Stamp;
use crate::event::{SystemEvent, SystemKind};
use crate::outbox::{Forms, Frame, Published};
use crate::timeline::{ClockEpoch, ClockNews, ClockState, What};
use crate::wire;

impl Pipeline {
    /// A clock epoch begins with the next event, or the present one is known less exactly.
    pub(super) fn on_clock(&mut self, news: ClockNews, now: Stamp) {
        let ClockNews { mut epoch, what } = news;
        let before = Arc::clone(&self.timeline);
        epoch.first = match (what, before.current()) {
            (What::Drifted, Some(current)) => current.first,
            _ => self.next,
        };
        self.store.begin_clock_epoch(epoch.clone());
        self.timeline = Arc::clone(&self.store.timeline().borrow());
        if what == What::Drifted {
            return;
        }
        if let What::Stepped(by) = what {
            self.engine.on_clock_moved(by);
        }
        self.date_anew();
        let kind = if matches!(what, What::Stepped(_)) { SystemKind::ClockStepped } else { SystemKind::ClockEpoch };
        let message = message(what, &epoch, before.current());
        info!(offset_ms = epoch.offset_ms, state = epoch.state.name(), message, "a clock epoch begins");
        self.on_system(SystemEvent { kind, message, first: None, last: None }, now);
    }

    /// What is kept of the present and of the last minutes says the times that hold now.
    fn date_anew(&mut self) {
        let timeline = Arc::clone(&self.timeline);
        self.hub.replace(|known| {
            let event = timeline.redates(&known.event).then(|| timeline.shown(&known.event))?;
            match wire::push(&event) {
                Ok(text) => {
                    let (text, forms, routes) = (Frame::text(&text), Forms::default(), known.routes.clone());
                    Some(Arc::new(Published { event, routes, text, forms }))
                }
                Err(error) => {
                    error!(seq = %event.seq, %error, "event could not be serialised; it keeps the time that it had");
                    None
                }
            }
        });
    }
}

/// What happened, for people.
fn message(what: What, epoch: &ClockEpoch, before: Option<&ClockEpoch>) -> String {
    let known = match epoch.state {
        ClockState::Synchronised => "a time server sets it",
        ClockState::Trusted => "the configuration says that it is right",
        ClockState::Hardware => "it was set from a clock with a battery, and no time server has confirmed it",
        ClockState::Unsynchronised => "no time server has set it since boot",
        ClockState::Unknown => "nobody can tell whether it is right",
    };
    let redated = before
        .is_some_and(|before| before.boot == epoch.boot && !before.state.is_settled() && epoch.state.is_settled());
    let redated = if redated { "; what was stored before in this boot is dated by it" } else { "" };
    match what {
        What::Stepped(by) => {
            let direction = if by < 0 { "back" } else { "forward" };
            let (seconds, millis) = (by.unsigned_abs() / 1000, by.unsigned_abs() % 1000);
            format!("the clock was set {direction} by {seconds}.{millis:03} s: {known}{redated}")
        }
        What::Told | What::Drifted => format!("the clock: {known}{redated}"),
    }
}
