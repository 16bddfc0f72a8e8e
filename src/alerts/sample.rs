//! Alerts for the tests of what follows their events.

use crate::clock::Wall;
use crate::event::{
    Activation, AlertChange, AlertEvent, AlertKind, EndReason, Presence, Priority, Signal, SignalPresence,
};
use crate::ids::AlertId;
use crate::vitals::Mode;

/// What an alert looks like after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It sounds and shows.
    Alarming,
    /// A person knows.
    Acknowledged,
    /// A person has paused its sound.
    Paused,
    /// Over, and nobody has seen it.
    Latched,
    /// Another alert stands for it.
    Hidden,
    /// Over.
    Ended,
}

impl Look {
    /// Every one.
    pub(super) const ALL: [Self; 6] =
        [Self::Alarming, Self::Acknowledged, Self::Paused, Self::Latched, Self::Hidden, Self::Ended];
}

/// A change that a present alert can have.
pub(super) fn a_change(random: &mut fastrand::Rng) -> AlertChange {
    let present: Vec<AlertChange> = AlertChange::ALL.iter().copied().filter(|it| *it != AlertChange::End).collect();
    present[random.usize(..present.len())]
}

/// The event of an alert of nobody.
pub(super) fn alert(alert: AlertId, change: AlertChange, priority: Priority, look: Look) -> AlertEvent {
    let signal = |activation, presence| Signal { activation, presence };
    let on = signal(Activation::On, SignalPresence::On);
    let off = signal(Activation::On, SignalPresence::Off);
    let (audio, visual) = match look {
        Look::Alarming => (on, on),
        Look::Acknowledged => (signal(Activation::On, SignalPresence::Ack), on),
        Look::Paused => (signal(Activation::Paused, SignalPresence::Off), on),
        Look::Latched => {
            (signal(Activation::On, SignalPresence::Latched), signal(Activation::On, SignalPresence::Latched))
        }
        Look::Hidden | Look::Ended => (off, off),
    };
    AlertEvent {
        alert,
        change,
        patient: None,
        device: None,
        rule: "sample".parse().unwrap(),
        kind: AlertKind::Technical,
        priority,
        metric: None,
        value: None,
        limit: String::new(),
        message: "Sample".to_owned(),
        presence: Presence::True,
        audio,
        visual,
        onset: Wall(0),
        announced: Wall(0),
        paused_until: None,
        hidden_by: (look == Look::Hidden).then_some(AlertId(uuid::Uuid::from_u128(99))),
        recurrence: 0,
        by: None,
        end_reason: (change == AlertChange::End).then_some(EndReason::ConditionCleared),
        escalated: 0,
        mode: Mode::Test,
    }
}
