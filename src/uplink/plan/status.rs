//! What the uplink is doing, for people and for those who wait for it.

use super::Parked;
use crate::clock::Wall;

/// What the uplink is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UplinkStatus {
    /// The broker has accepted the connection, and it stands.
    pub connected: bool,
    /// Since when it is connected or not. `None` before the first connection.
    pub since: Option<Wall>,
    /// Numbers of the log between the lane that is furthest behind and the end of the log: at most so many events wait.
    pub waiting: u64,
    /// Of these, numbers before the connection that are still to be looked through: the backlog.
    pub backlog: u64,
    /// In how many seconds the backlog will be sent at the pace so far. `None`: there is none, or it has just begun.
    pub backlog_seconds: Option<u64>,
    /// Rows sent and not confirmed.
    pub in_flight: usize,
    /// Rows the broker did not take: of a plan those since it began, of the uplink all that the store remembers, until they
    /// go again.
    pub parked: u64,
    /// The last of them.
    pub last_parked: Option<Parked>,
    /// Publications confirmed by the broker since the start: an event each, or a bundle of the backlog.
    pub sent: u64,
    /// For so many seconds more readings wait for somebody to set the clock. `None`: they do not.
    pub held_seconds: Option<u64>,
    /// What is wrong, in words, if something is.
    pub reason: Option<String>,
}

impl UplinkStatus {
    /// What people must know at once is not as it was; counts of what is under way change with each message.
    pub fn differs_for_people(&self, before: &Self) -> bool {
        let of_people = |status: &Self| (status.connected, status.since, status.parked, status.held_seconds.is_some());
        let is_done = |status: &Self| (status.waiting == 0 && status.in_flight == 0, status.backlog == 0);
        of_people(self) != of_people(before) || is_done(self) != is_done(before) || self.reason != before.reason
    }
}
