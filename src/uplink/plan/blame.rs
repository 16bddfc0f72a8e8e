//! Finds the row with which the broker ends connections, as a part of the plan. Pure.

use std::time::Duration;

use super::refusals::REFUSED_RETRY;
use super::suspects::{ALONE_FOR, MAX_ENDS};
use super::{EndKind, Flight, Lane, Link, Plan};
use crate::clock::Mono;

/// Connections that the broker closed one after the other, without a word and with rows under way, after which those are
/// suspected.
const MAX_CLOSINGS: u8 = 3;

/// Smallest bundle that is tried where larger ones ended connections, in bytes.
const MIN_BUNDLE_BYTES: usize = 2048;

impl Plan {
    /// What the bridge says of itself is not answered yet (`unanswered`), or has to go alone now (`wants_quiet`): then no
    /// row goes.
    pub fn on_announcements(&mut self, unanswered: bool, wants_quiet: bool) {
        (self.is_announcing, self.wants_quiet) = (unanswered, wants_quiet);
    }

    /// The broker has ended so many connections in a row that what was under way is suspected.
    pub const fn is_suspicious(&self, kind: EndKind) -> bool {
        match kind {
            EndKind::RowRefused | EndKind::Denied => true,
            EndKind::Closed => self.closings >= MAX_CLOSINGS,
            EndKind::Lost | EndKind::TakenOver | EndKind::Again | EndKind::Clock => false,
        }
    }

    /// Weighs the end of a connection, while what was under way is known. True if it has brought the search on, so that the
    /// next connection need not wait for long.
    pub(super) fn weigh(&mut self, kind: EndKind, reason: &str, now: Mono) -> bool {
        let Link::Up { since, .. } = self.link else { return false };
        if !matches!(kind, EndKind::RowRefused | EndKind::Denied | EndKind::Closed) {
            if matches!(kind, EndKind::Lost | EndKind::TakenOver) {
                self.closings = 0;
            }
            return false;
        }
        if now.since(since) >= self.limits.stable_after {
            self.closings = 0;
        }
        if self.flights.is_empty() && !self.is_announcing {
            return false;
        }
        self.closings = self.closings.saturating_add(1);
        // What the bridge says of itself is suspected first, and not here.
        if self.is_announcing {
            return false;
        }
        let is_certain = kind == EndKind::RowRefused;
        let is_alone = self.flights.len() == 1 && (is_certain || self.flights.values().all(|flight| flight.is_alone));
        if is_alone && let Some((_, flight)) = self.flights.pop_first() {
            self.convict(&flight, is_certain, reason, now);
            return true;
        }
        if self.is_suspicious(kind) {
            for flight in self.flights.values() {
                self.suspects.add(flight.first);
            }
        }
        false
    }

    /// A row that goes alone, because it is suspected, is under way, and nothing else goes for a moment.
    pub(super) fn is_probing(&self, now: Mono) -> bool {
        self.probed_until().is_some_and(|until| now < until)
    }

    fn probed_until(&self) -> Option<Mono> {
        self.flights.values().find(|flight| flight.is_alone).map(|flight| flight.sent + ALONE_FOR)
    }

    fn convict(&mut self, flight: &Flight, is_certain: bool, reason: &str, now: Mono) {
        let Flight { lane, first, last, bytes, sent, .. } = *flight;
        if first != last {
            // Each by itself; and the next bundles are smaller, in case that was it.
            let half = (bytes / 2).max(MIN_BUNDLE_BYTES);
            self.bundle_bytes = self.bundle_bytes.min(u32::try_from(half).unwrap_or(u32::MAX));
            self.single_through = self.single_through.max(last);
            self.suspects.acquit(&first);
        } else if is_certain {
            self.park(lane, first, reason.to_owned());
        } else if self.suspects.ended(first, sent, self.status.sent, now) >= MAX_ENDS {
            let reason = format!("with this row alone under way the broker has ended {MAX_ENDS} connections: {reason}");
            self.park(lane, first, reason);
        }
    }

    /// The lane of a suspect that is to go now, as soon as nothing else is under way.
    pub(super) fn suspect_due(&self, now: Mono) -> Option<Lane> {
        let Link::Up { since, .. } = self.link else { return None };
        // What is never answered must not hold up a row for ever.
        let is_heard = !self.is_announcing || now >= since + self.limits.ack_timeout;
        if self.suspects.is_empty() || !is_heard {
            return None;
        }
        let may_go = |first| self.suspects.may_go(&first, since, self.status.sent, now);
        Lane::ALL
            .iter()
            .copied()
            .find(|lane| self.may_publish(*lane, now) && self.lane(*lane).due(now, may_go).is_some())
    }

    /// When a suspect may go, and when others may go beside one.
    pub(super) fn suspect_times(&self) -> impl Iterator<Item = Mono> {
        let since = if let Link::Up { since, .. } = self.link { Some(since) } else { None };
        let heard = since.filter(|_| self.is_announcing).map(|since| since + self.limits.ack_timeout);
        since.into_iter().flat_map(|since| self.suspects.times(since)).chain(heard).chain(self.probed_until())
    }

    /// The wait before the next connection where the broker is well, but for one row.
    pub(super) fn search_wait(&self) -> Duration {
        REFUSED_RETRY.min(self.limits.reconnect_longest)
    }
}
