//! What the store remembers of the inboxes from one run of the daemon to the next.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Acked, Kept};
use crate::event::{Dropped, Listens, Notification, Preferences, Priority, Reminder};
use crate::ids::{AlertId, Seq};

/// Everything, as the last committed event left it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// Users.
    pub people: BTreeMap<String, SavedPerson>,
    /// What waits for somebody, oldest first, with its event.
    pub messages: Vec<(Notification, Seq)>,
    /// For whom each message still waits.
    pub waiting: BTreeMap<Uuid, Vec<String>>,
    /// What is sent later.
    pub scheduled: Vec<Reminder>,
    /// The priority at which people were last told of an alert that stands.
    pub notified: BTreeMap<AlertId, Priority>,
    /// What people have asked for under a name of their own.
    pub requests: BTreeMap<Uuid, Kept>,
    /// How far users have acknowledged alerts' channels.
    pub acked: Acked,
}

/// One user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedPerson {
    /// As what the user last listened; `None`: never.
    pub listens: Option<Listens>,
    /// What the user wants to be told of.
    pub preferences: Preferences,
    /// What was dropped and not told yet.
    pub untold: Option<Dropped>,
}
