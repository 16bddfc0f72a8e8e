//! How much a client may say: what counts for its user, what for its connection, and the end of one that floods.

use std::time::Duration;

use super::{Action, MAX_ERRORS, Session};
use crate::clock::Stamp;
use crate::server::close::Close;
use crate::server::frames::ErrorData;
use crate::server::message::Request;
use crate::server::rate::{Bucket, SMALL_TALK};

/// Who was closed for too many messages is asked to stay away for so long.
pub(super) const PAUSE_MS: u64 = 5000;

/// What a connection has said lately.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What is left of what does not count for the user.
    small_talk: Bucket,
    /// Messages that were refused for their number since one was taken.
    refused: u32,
    /// The first `subscribe` has come.
    has_subscribed: bool,
}

impl Session {
    /// Takes one of what the client may still say. What has to be said often, and the first `subscribe`, without which a
    /// display that comes back shows no alarm, do not count for the user.
    pub(super) fn admits(&mut self, request: Option<&Request>, now: Stamp) -> Result<(), Duration> {
        let is_small = match request {
            Some(Request::Ping | Request::Heartbeat | Request::Receipt { .. } | Request::Ack { .. }) => true,
            Some(Request::Subscribe { .. }) => !std::mem::replace(&mut self.pace.has_subscribed, self.rights.is_some()),
            _ => false,
        };
        match &self.rights {
            Some(rights) if !is_small => self.shared.users.take(&rights.user, now.mono)?,
            _ => self.pace.small_talk.take(SMALL_TALK, now.mono)?,
        }
        self.pace.refused = 0;
        Ok(())
    }

    /// Answers a message that came too soon; one that floods is closed.
    pub(super) fn too_often(&mut self, id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        self.pace.refused += 1;
        let message = "too many messages; ask again in a second".to_owned();
        self.say(out, &ErrorData { code: "rate_limited", message, retryable: true, scope: "request" }, id, now);
        if self.pace.refused >= MAX_ERRORS {
            self.close(Close::RateLimited, out, now);
        }
    }
}
