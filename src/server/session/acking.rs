//! Alerts arrive at least once at clients that acknowledge: what was sent and not acknowledged, once more, and then the
//! word that this connection is not healthy. An acknowledgement says that a client has it; it silences nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{Action, Session};
use crate::channel::Pattern;
use crate::clock::{Mono, Stamp};
use crate::event::{Event, EventBody};
use crate::hub::Joined;
use crate::ids::{Epoch, Seq};
use crate::wire;

/// An alert that is not acknowledged within this time is sent once more; after it again, the connection is unhealthy.
pub const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// Most alerts of a connection that wait to be acknowledged. One more, and the oldest is not sent again: the connection
/// is unhealthy, and what is owed comes with its next one.
pub const MAX_UNACKED: usize = 1024;

/// An alert that was sent and is not acknowledged.
#[derive(Debug)]
struct Unacked {
    channel: String,
    /// Every channel that it can be found on.
    routes: Vec<String>,
    epoch: Epoch,
    seq: Seq,
    text: Bytes,
    due: Mono,
    was_sent_again: bool,
}

/// What one connection acknowledges.
#[derive(Debug, Default)]
pub(super) struct Acking {
    is_on: bool,
    sent: VecDeque<Unacked>,
    /// The newest event that this connection may have.
    newest: Seq,
    acked: BTreeMap<String, Seq>,
    /// One was forgotten, or not acknowledged although it came twice.
    is_late: bool,
}

impl Acking {
    /// The client acknowledges from now on.
    pub(super) const fn begin(&mut self) {
        self.is_on = true;
    }

    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// The hub says how far the user has come.
    pub(super) fn on_joined(&mut self, joined: &Joined) {
        self.newest = self.newest.max(joined.through);
        if self.is_on {
            self.acked.extend(joined.acked.iter().map(|(channel, seq)| (channel.clone(), *seq)));
        }
    }

    /// An event goes out on `routes`; `text` is its message.
    pub(super) fn on_sent(&mut self, event: &Event, routes: &[String], text: impl FnOnce() -> Bytes, now: Stamp) {
        self.newest = self.newest.max(event.seq);
        if !self.is_on || !matches!(event.body, EventBody::Alert(_)) {
            return;
        }
        if self.sent.len() >= MAX_UNACKED {
            self.sent.pop_front();
            self.is_late = true;
        }
        self.sent.push_back(Unacked {
            channel: wire::channel_of(&event.body),
            routes: routes.to_vec(),
            epoch: event.epoch.clone(),
            seq: event.seq,
            text: text(),
            due: now.mono + ACK_DEADLINE,
            was_sent_again: false,
        });
    }

    /// The client reads again: during a replay nothing was read, so that nothing could be acknowledged.
    pub(super) fn on_replayed(&mut self, now: Stamp) {
        for unacked in &mut self.sent {
            unacked.due = now.mono + ACK_DEADLINE;
        }
    }

    /// The newest event of all that this client has acknowledged on an alerts' channel.
    pub(super) fn newest_acked(&self) -> Option<Seq> {
        self.acked.values().max().copied()
    }

    fn due(&self) -> Option<Mono> {
        self.sent.iter().filter(|unacked| !(unacked.was_sent_again && self.is_late)).map(|unacked| unacked.due).min()
    }
}

impl Session {
    /// False if the client acknowledges alerts and has not acknowledged one that came to it twice.
    pub fn is_healthy(&self) -> bool {
        !self.acking.is_late
    }

    /// The newest event of each alerts' channel that the user's clients have acknowledged, as far as this connection
    /// knows.
    pub fn acked(&self) -> &BTreeMap<String, Seq> {
        &self.acking.acked
    }

    /// When an alert is to be sent again.
    pub(super) fn ack_due(&self) -> Option<Mono> {
        if self.replaying.is_some() { None } else { self.acking.due() }
    }

    /// What the user has not acknowledged of these channels: of each one what is newer than the number.
    pub(super) fn unacked(
        &self,
        joined: &Joined,
        patterns: &[Pattern],
        is_resume: bool,
    ) -> Option<BTreeMap<String, Seq>> {
        if !self.acking.is_on || is_resume {
            return None;
        }
        let is_chosen = |(channel, _): &(&String, &Seq)| patterns.iter().any(|pattern| pattern.matches(channel));
        let owed: BTreeMap<_, _> =
            joined.acked.iter().filter(is_chosen).map(|(channel, seq)| (channel.clone(), *seq)).collect();
        (!owed.is_empty()).then_some(owed)
    }

    /// The client has everything of an alerts' channel up to an event. `channel` may choose several.
    pub(super) fn on_alerts_ack(
        &mut self,
        channel: &Pattern,
        epoch: Option<&Epoch>,
        through: Seq,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let is_ours = epoch.is_none_or(|epoch| *epoch == self.shared.epoch);
        let through = through.min(self.acking.newest);
        let mut moved: BTreeMap<String, Seq> = BTreeMap::new();
        // Numbers of another run may stand for other events here: what was sent is known with its run.
        self.acking.sent.retain(|sent| {
            let same_run = is_ours || epoch == Some(&sent.epoch);
            let is_meant = same_run && sent.seq <= through && channel.matches(&sent.channel);
            if is_meant {
                let newest = moved.entry(sent.channel.clone()).or_insert(sent.seq);
                *newest = sent.seq.max(*newest);
            }
            !is_meant
        });
        let mut is_heard = false;
        if is_ours {
            // Also what came in a snapshot, and what goes nowhere but forwards: the channels of patients there are.
            let known = self.shared.patients.iter().map(|patient| format!("alerts/{}", patient.id));
            for own in known.chain(["alerts/bridge".to_owned()]).filter(|own| channel.matches(own)) {
                let mut heard = self.patterns.iter().filter(|pattern| pattern.matches(&own)).peekable();
                is_heard |= heard.peek().is_some();
                // Of what nobody subscribed to here, or of a part alone, the client has what was sent to it and no more.
                let is_whole = heard.any(|pattern| !self.filters.contains_key(pattern));
                if is_whole && self.scope.allows_channel(&own) {
                    moved.insert(own, through);
                }
            }
        }
        let has_acked = is_heard || !moved.is_empty();
        let Some(user) = self.rights().map(|rights| rights.user.clone()).filter(|_| has_acked) else { return };
        self.acking.begin();
        for (channel, seq) in moved {
            let before = self.acking.acked.get(&channel).copied();
            if before.is_none_or(|before| before < seq) {
                self.acking.acked.insert(channel.clone(), seq);
                out.push(Action::Acked(user.clone(), channel, seq));
            }
        }
        let is_overdue = |sent: &Unacked| sent.was_sent_again && sent.due <= now.mono;
        self.acking.is_late = self.acking.sent.iter().any(is_overdue);
    }

    /// Forgets what this connection is no longer to have: it is not sent again, and the user's next one is owed it.
    pub(super) fn forget_unheard(&mut self, now: Stamp) {
        let before = self.acking.sent.len();
        let mut sent = std::mem::take(&mut self.acking.sent);
        sent.retain(|it| self.hears(&it.routes));
        if sent.len() < before {
            self.acking.is_late &= sent.iter().any(|it| it.was_sent_again && it.due <= now.mono);
        }
        self.acking.sent = sent;
    }

    /// Sends what was not acknowledged in time once more.
    pub(super) fn send_unacked_again(&mut self, out: &mut Vec<Action>, now: Stamp) {
        if self.replaying.is_some() {
            return;
        }
        let mut again = Vec::new();
        for sent in self.acking.sent.iter_mut().filter(|sent| sent.due <= now.mono) {
            if sent.was_sent_again {
                self.acking.is_late = true;
            } else {
                (sent.was_sent_again, sent.due) = (true, now.mono + ACK_DEADLINE);
                again.push(sent.text.clone());
            }
        }
        for text in again {
            self.send_again(&text, out);
        }
    }

    /// Writes an alert that the client may have already.
    pub(super) fn send_again(&mut self, text: &[u8], out: &mut Vec<Action>) {
        // It is text that this bridge has written.
        if let Ok(text) = std::str::from_utf8(text) {
            self.sent += 1;
            out.push(self.form.own(wire::redelivered(text)));
        }
    }
}
