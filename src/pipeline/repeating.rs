//! A command under a name of its person's is done once: what was done is answered again, and another one is refused.

use super::{Done, Pipeline, Refusal};
use crate::clock::Stamp;
use crate::command::Command;
use crate::event::{EventBody, InboxChange};
use crate::ids::Seq;
use crate::notifier::{MAX_KEY, Repeated, Request};

/// What is known of a command.
pub(super) enum Known {
    /// It is to be done; its name, if it has one.
    New(Option<Request>),
    /// It is answered without being done.
    Answered(Result<Done, Refusal>),
}

impl Pipeline {
    /// Whether a command was given before under the same name. Refused ones have no name: nothing was done.
    pub(super) fn recognise(&mut self, command: &Command, by: &str, key: Option<String>, now: Stamp) -> Known {
        let own = match command {
            Command::Notify(new) => new.correlation_id.clone(),
            _ => None,
        };
        let Some(key) = key.filter(|key| !key.is_empty()).or(own) else { return Known::New(None) };
        let refuse = |code, reason: &str| Known::Answered(Err(Refusal { code, reason: reason.to_owned() }));
        if key.chars().count() > MAX_KEY {
            return refuse("validation", "the name of a command has at most 128 characters");
        }
        let request = Request::new(by, &key, command);
        match self.notifier.requests.find(&request, now.wall) {
            Repeated::New => Known::New(Some(request)),
            Repeated::Done(seq, is_kept) => Known::Answered(Ok(Done { seq, is_kept })),
            Repeated::UnderWay => refuse("busy", "this command is under way; ask again in a second"),
            Repeated::Unknown => {
                refuse("unknown", "this command was begun, and nobody knows what became of it: look at the device")
            }
            Repeated::Conflict => refuse("conflict", "this name stands for another command; give this one its own"),
        }
    }

    /// A command was carried out; its events are already published, in the same group.
    pub(super) fn remember_done(&mut self, request: Request, seq: Seq, is_kept: bool, now: Stamp) {
        self.notifier.requests.done(&request, seq, is_kept, now.wall);
        let Request { id, digest } = request;
        self.publish(EventBody::Inbox(InboxChange::Requested { id, digest, last: Some(seq) }), now);
    }

    /// An order goes to its source: from now on it may reach the device.
    pub(super) fn order_begins(&mut self, request: Option<&Request>, now: Stamp) {
        let Some(request) = request else { return };
        self.notifier.requests.begin(request, now.wall);
        let Request { id, digest } = request.clone();
        self.publish(EventBody::Inbox(InboxChange::Requested { id, digest, last: None }), now);
    }

    /// An order has ended: done, perhaps done, or not done at all.
    pub(super) fn order_ended(&mut self, request: Option<Request>, code: Option<&str>, done: Done, now: Stamp) {
        let Some(request) = request else { return };
        match code {
            None => self.remember_done(request, done.seq, done.is_kept, now),
            // It may have reached the device.
            Some("failed" | "unknown") => self.notifier.requests.lost(&request),
            Some(_) => {
                self.notifier.requests.refused(&request);
                self.publish(EventBody::Inbox(InboxChange::NotDone { id: request.id }), now);
            }
        }
    }
}
