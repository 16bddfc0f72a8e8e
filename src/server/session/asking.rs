//! What a client asks about the past: whether it may, and the page that it gets. The disk is read while everything else
//! goes on.

use super::{Action, Session};
use crate::channel::{Operation, Pattern};
use crate::clock::Stamp;
use crate::ids::Seq;
use crate::server::frames::ErrorData;
use crate::server::history::{Page, Place, Query};
use crate::server::message::Unreadable;

/// Most questions about the past of one connection that are not answered yet; they are answered one after the other.
pub const MAX_HISTORIES: usize = 4;

impl Session {
    /// The client asks what was on some channels.
    pub(super) fn ask_for_history(
        &mut self,
        patterns: Vec<Pattern>,
        (from, to): (Option<Place>, Option<Place>),
        (before, limit): (Option<Seq>, Option<usize>),
        id: Option<String>,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let Some(rights) = &self.rights else { return };
        let scope = rights.scope(Operation::History);
        let denied: Vec<&str> = patterns.iter().filter(|it| !scope.overlaps(it)).map(Pattern::as_str).collect();
        if !denied.is_empty() {
            let refusal = Unreadable::Denied { channels: denied.join(", ") };
            return self.wrong(out, &refusal, id.as_deref(), now);
        }
        if self.histories >= MAX_HISTORIES {
            return self.put_off(out, "busy", "four questions about the past wait already", id.as_deref(), now);
        }
        self.histories += 1;
        let correlation_id = id.unwrap_or_default();
        out.push(Action::History(Box::new(Query { correlation_id, patterns, scope, from, to, before, limit })));
    }

    /// A page was read. `None`: the disk could not be read.
    pub fn on_history(&mut self, correlation_id: &str, page: Option<&Page>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        self.histories = self.histories.saturating_sub(1);
        let is_outdated = self.histories_outdated > 0;
        self.histories_outdated = self.histories_outdated.saturating_sub(1);
        match page {
            // It may hold what the client must not read any more.
            _ if is_outdated => {
                self.put_off(&mut out, "unavailable", "the rights have changed; ask again", Some(correlation_id), now);
            }
            Some(page) => self.say(&mut out, page, Some(correlation_id), now),
            None => self.put_off(&mut out, "unavailable", "the log cannot be read now", Some(correlation_id), now),
        }
        out
    }

    /// An error that is not the client's: it may ask again, and it does not count against it.
    fn put_off(&mut self, out: &mut Vec<Action>, code: &'static str, reason: &str, id: Option<&str>, now: Stamp) {
        let message = reason.to_owned();
        self.say(out, &ErrorData { code, message, retryable: true, scope: "request" }, id, now);
    }
}
