//! How much a client may say and how little: what counts for its user, what for its connection, the end of one that floods,
//! and of one that is silent.

use std::time::Duration;

use super::{Action, MAX_ERRORS, Manner, Session};
use crate::clock::{Mono, Stamp};
use crate::server::chat::ChatRequest;
use crate::server::close::Close;
use crate::server::frames::ErrorData;
use crate::server::message::Request;
use crate::server::rate::Bucket;

/// Who was closed for too many messages is asked to stay away for so long.
pub(super) const PAUSE_MS: u64 = 5000;

/// What a connection has said lately.
#[derive(Debug)]
pub(super) struct Pace {
    /// What is left of what does not count for the user.
    small_talk: Bucket,
    /// Messages that were refused for their number since one was taken.
    refused: u32,
    /// The first `subscribe` has come.
    has_subscribed: bool,
    /// When the client said something last; pongs are its library's.
    said: Mono,
    /// See [`Manner::is_mute`].
    pub(super) is_mute: bool,
}

impl Pace {
    /// Of a session that has just been opened.
    pub(super) fn new(manner: Manner, now: Mono) -> Self {
        let is_mute = manner.is_mute;
        Self { small_talk: Bucket::default(), refused: 0, has_subscribed: false, said: now, is_mute }
    }

    /// The client has said something.
    pub(super) fn said(&mut self, now: Mono) {
        self.said = now;
    }
}

impl Session {
    /// Takes one of what the client may still say. What has to be said often, and the first `subscribe`, without which a
    /// display that comes back shows no alarm, do not count for the user.
    pub(super) fn admits(&mut self, request: Option<&Request>, now: Stamp) -> Result<(), Duration> {
        let is_small = match request {
            Some(Request::Ping | Request::Heartbeat | Request::Receipt { .. } | Request::Ack { .. }) => true,
            Some(Request::Chat(chat)) if chat.is_small_talk() => true,
            Some(Request::Subscribe { .. } | Request::Chat(ChatRequest::Join { .. })) => {
                !std::mem::replace(&mut self.pace.has_subscribed, self.rights.is_some())
            }
            _ => false,
        };
        match &self.rights {
            Some(rights) if !is_small => self.shared.users.take(&rights.user, now.mono)?,
            _ => self.pace.small_talk.take(self.shared.limits.small_talk, now.mono)?,
        }
        self.pace.refused = 0;
        Ok(())
    }

    /// True if the session listens to anything.
    pub fn has_subscriptions(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// When the session ends if the client goes on saying nothing; `None`: it cannot say anything.
    pub(super) fn idle_at(&self) -> Option<Mono> {
        let limits = &self.shared.limits;
        let patience = if self.has_subscriptions() { limits.idle_subscribed } else { limits.idle };
        (!self.pace.is_mute).then(|| self.pace.said + patience)
    }

    /// A control frame of the client: a ping, or a pong, asked for or not. Nobody needs more of them than small talk.
    pub fn on_control(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        if self.pace.small_talk.take(self.shared.limits.small_talk, now.mono).is_ok() {
            return out;
        }
        self.pace.refused += 1;
        if self.pace.refused >= MAX_ERRORS {
            self.close(Close::RateLimited, &mut out, now);
        }
        out
    }

    /// Somebody wants to know whether the client is still there: it is asked now, and not only when its time comes.
    pub fn on_probe(&mut self, now: Stamp) -> Vec<Action> {
        if self.pong_due.is_none() {
            self.next_ping = now.mono;
        }
        self.on_deadline(now)
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
