//! Messages for people, and what becomes of them in each person's inbox.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Priority;
use crate::clock::Wall;
use crate::ids::{AlertId, PatientId, Seq};
use crate::named::named_enum;
use crate::vitals::Mode;

named_enum! {
    /// Kinds of message for people (the names that older clients know).
    NotificationKind {
        /// An alert, in words.
        HealthAlert = "health_alert",
        /// Time for a medicine.
        MedicationReminder = "medication_reminder",
        /// Time for an appointment.
        AppointmentReminder = "appointment_reminder",
        /// Something about the bridge.
        System = "system",
    }
}

/// A message for people. It waits for each of `users` until that user has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Notification {
    /// Its identity.
    pub id: uuid::Uuid,
    /// What kind.
    pub kind: NotificationKind,
    /// Whom it concerns.
    pub patient: Option<PatientId>,
    /// Whom it is for.
    #[serde(default)]
    pub users: Vec<String>,
    /// The alert that it tells of.
    pub alert: Option<AlertId>,
    /// The headline.
    pub title: String,
    /// The text.
    pub message: String,
    /// How urgent.
    pub priority: Priority,
    /// When it was made.
    pub created: Wall,
    /// It is of no use any more after this.
    pub expires: Option<Wall>,
    /// Who sent it; `None`: the bridge.
    pub by: Option<String>,
    /// Real, demo or test.
    pub mode: Mode,
}

/// What a person wants sent to people, now or later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reminder {
    /// The identity of the notification that it becomes.
    pub id: uuid::Uuid,
    /// What kind.
    pub kind: NotificationKind,
    /// The patient it is about.
    pub patient: Option<PatientId>,
    /// These users.
    pub users: Vec<String>,
    /// Everybody known with one of these roles.
    pub roles: Vec<String>,
    /// The headline.
    pub title: String,
    /// The text.
    pub message: String,
    /// How urgent.
    pub priority: Priority,
    /// When, by the time of day.
    pub at: Wall,
    /// It is of no use any more after this.
    pub expires: Option<Wall>,
    /// Who sends it.
    pub by: String,
    /// Real, demo or test: the mode of the patient.
    pub mode: Mode,
}

/// What a user wants to be told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Preferences {
    /// Kinds that are not for this user, except what has priority high.
    pub mute: BTreeSet<NotificationKind>,
}

impl Preferences {
    /// True if a message is kept from the user. Nothing of priority high ever is.
    pub fn mutes(&self, kind: NotificationKind, priority: Priority) -> bool {
        priority < Priority::High && self.mute.contains(&kind)
    }
}

/// Somebody who listens to notifications, as the last token said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Listens {
    /// The role's name.
    pub role: String,
    /// The channels that the token covers; `None`: all.
    pub sees: Option<Vec<String>>,
    /// When the user last began to listen.
    pub seen: Wall,
}

/// Messages of one user that found no room, and that the user has not been told of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// The identity of the message that will say so.
    pub id: uuid::Uuid,
    /// How many.
    pub count: u32,
    /// How many of them had priority high.
    pub high: u32,
}

/// What changed in the inboxes, beside messages that came in, and what people asked for under names of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum InboxChange {
    /// Messages wait for this user from now on.
    Known {
        /// The user.
        user: String,
        /// As what.
        listens: Listens,
    },
    /// Too many users: nothing waits for this one any more.
    Forgotten {
        /// The user.
        user: String,
    },
    /// A user wants other kinds of message.
    Preferences {
        /// The user.
        user: String,
        /// From now on.
        preferences: Preferences,
    },
    /// A person's command was carried out under a name of his own, or begun: given again it is not done again.
    Requested {
        /// Of the person and the name.
        id: uuid::Uuid,
        /// Of the command.
        digest: String,
        /// The last event of it; `None`: it was begun.
        last: Option<Seq>,
    },
    /// A command that was begun was not carried out: its name is free.
    NotDone {
        /// Of the person and the name.
        id: uuid::Uuid,
    },
    /// A message for later was taken on.
    Scheduled {
        /// It.
        reminder: Reminder,
    },
    /// A message for later is not sent: a person took it back, or it was too late.
    Withdrawn {
        /// Its identity.
        id: uuid::Uuid,
    },
    /// A message that waited was written to a client of the user's, as this event.
    HandedOver {
        /// The user.
        user: String,
        /// Which.
        id: uuid::Uuid,
    },
    /// A user's client has these.
    Delivered {
        /// The user.
        user: String,
        /// Which.
        ids: Vec<uuid::Uuid>,
    },
    /// These found no room in a user's inbox.
    Dropped {
        /// The user.
        user: String,
        /// Which.
        ids: Vec<uuid::Uuid>,
        /// All of which the user has not been told yet.
        untold: Dropped,
    },
    /// Nobody needs these any more.
    Expired {
        /// Which.
        ids: Vec<uuid::Uuid>,
    },
}
