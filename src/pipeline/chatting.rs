//! The pipeline's side of the rooms of the care team: messages become events, what is of the moment is told.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::people::row;
use super::{COMMAND_DEADLINE, Control, Done, Pipeline, Refusal};
use crate::clock::{Stamp, Wall};
use crate::event::{Actor, AuditAction, AuditEvent, ChatCleared, ChatEvent, ChatMessage, EventBody};
use crate::hub::{ListenerId, Scope};
use crate::ids::{PatientId, Seq};
use crate::rooms::{Members, Moment, Sent, channel_of, id_of};

/// What somebody does in a room that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatAct {
    /// Writes.
    Send {
        /// The room.
        room: String,
        /// The text.
        text: String,
        /// The sender's name for it: sent again under the same name it is the same message.
        name: Option<String>,
    },
    /// Wants what was written before to be shown no more.
    Clear {
        /// The room.
        room: String,
        /// To nobody; else not to himself.
        everybody: bool,
    },
}

impl ChatAct {
    /// The room.
    pub fn room(&self) -> &str {
        match self {
            Self::Send { room, .. } | Self::Clear { room, .. } => room,
        }
    }
}

/// What became of a [`ChatAct`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatDone {
    /// The identity of the message.
    pub id: Option<Uuid>,
    /// Its event.
    pub done: Done,
}

/// What somebody does in a room, with who and where.
#[derive(Debug)]
pub struct ChatWish {
    /// What.
    pub act: ChatAct,
    /// Who.
    pub by: Actor,
    /// On which channels that person may do it.
    pub scope: Scope,
    /// The answer.
    pub reply: oneshot::Sender<Result<ChatDone, Refusal>>,
}

/// What somebody does that is not kept. Whether he may was decided where his token is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// Types, or has stopped to.
    Typing {
        /// The room.
        room: String,
        /// Who.
        by: String,
        /// Types.
        is_typing: bool,
    },
    /// Has read.
    Read {
        /// The room.
        room: String,
        /// Who.
        by: String,
        /// Up to this event.
        through: Seq,
    },
    /// Shows a patient, or nobody.
    LooksAt {
        /// On which connection.
        listener: ListenerId,
        /// Whom.
        patient: Option<PatientId>,
    },
}

/// Has the pipeline take what somebody does in a room, and waits for its event.
///
/// # Errors
/// As [`super::carry_out`].
pub async fn chat(
    control: &mpsc::Sender<Control>,
    act: ChatAct,
    by: impl Into<Actor>,
    scope: Scope,
) -> Result<ChatDone, Refusal> {
    let by = by.into();
    let (reply, answer) = oneshot::channel();
    let asked = async {
        control.send(Control::Chat(ChatWish { act, by, scope, reply })).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(COMMAND_DEADLINE, asked).await {
        Ok(Some(done)) => done,
        Ok(None) => Err(Refusal { code: "unavailable", reason: "the bridge is stopping".to_owned() }),
        Err(_) => {
            let reason = "it was not taken in time; send it again under the same correlation_id".to_owned();
            Err(Refusal { code: "unknown", reason })
        }
    }
}

/// Who is in a room; `None` if the pipeline does not answer.
pub async fn members(control: &mpsc::Sender<Control>, room: String) -> Option<Members> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        control.send(Control::Members(room, reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(COMMAND_DEADLINE, asked).await.ok().flatten()
}

impl Pipeline {
    /// Messages of the runs before, so that one that is sent again is known.
    pub fn remember_messages(&mut self, messages: impl IntoIterator<Item = (Uuid, Seq, Wall)>) {
        for (id, seq, at) in messages {
            self.rooms.remember(id, seq, at);
        }
    }

    /// Gives what is of the moment to whoever it concerns.
    pub(super) fn tell(&mut self, moments: Vec<Moment>) {
        for mut moment in moments {
            let patient = moment.routes.first().and_then(|route| route.strip_prefix("patient/")?.split('/').next());
            let patient = patient.and_then(|id| self.patients.get(&id.parse().ok()?));
            if let (Some(patient), Some(own)) = (patient, moment.routes.first()) {
                moment.routes.push(format!("ward/{}/{own}", patient.ward));
            }
            self.hub.tell(&Arc::new(moment));
        }
    }

    pub(super) fn on_sign(&mut self, sign: Sign, now: Stamp) {
        let moments = match sign {
            Sign::Typing { room, by, is_typing } => self.rooms.on_typing(&room, &by, is_typing, now),
            Sign::Read { room, by, through } => {
                let newest = Seq(self.next.0.saturating_sub(1));
                self.rooms.on_read(&room, &by, through.min(newest), now)
            }
            Sign::LooksAt { listener, patient } => self.rooms.on_looks_at(listener.number(), patient, now),
        };
        self.tell(moments);
    }

    pub(super) fn on_chat(&mut self, wish: ChatWish, now: Stamp) {
        let ChatWish { act, by, scope, reply } = wish;
        let done = match self.store.takes_a_command() {
            Err(refused) => Err(self.not_begun(refused)),
            Ok(()) => match act {
                ChatAct::Send { room, text, name } => {
                    self.on_chat_message((room, text), name.as_deref(), &by.user, &scope, now)
                }
                ChatAct::Clear { room, everybody } => self.on_chat_clear(room, everybody, by, &scope, now),
            },
        };
        // Nobody waits any more if the session went away; what was written stands all the same.
        let _ = reply.send(done);
    }

    fn on_chat_message(
        &mut self,
        (room, message): (String, String),
        name: Option<&str>,
        sender: &str,
        scope: &Scope,
        now: Stamp,
    ) -> Result<ChatDone, Refusal> {
        if !scope.allows_channel(&channel_of(&room)) {
            let reason = "this takes the right `pub` on the room".to_owned();
            return Err(Refusal { code: "permission_denied", reason });
        }
        let derived = name.map(|name| id_of(sender, name, &room, &message));
        let id = match derived.map(|id| (id, self.rooms.sent(id, now.wall))) {
            Some((id, Sent::Lately(seq))) => return Ok(ChatDone { id: Some(id), done: Done { seq, is_kept: true } }),
            Some((id, Sent::Never)) => id,
            Some((_, Sent::LongAgo)) | None => self.notifier.new_id(now),
        };
        let before = self.unkept.count();
        let text = ChatMessage { id, room: room.clone(), sender: sender.to_owned(), message };
        let seq = self.publish(EventBody::Chat(ChatEvent::Message(text)), now);
        let is_kept = self.unkept.count() == before;
        // What the store has not taken is written once more when it is sent again, under the same identity.
        let moments = if is_kept { self.rooms.on_message(id, &room, sender, seq, now) } else { Vec::new() };
        self.tell(moments);
        Ok(ChatDone { id: Some(id), done: Done { seq, is_kept } })
    }

    fn on_chat_clear(
        &mut self,
        room: String,
        everybody: bool,
        by: Actor,
        scope: &Scope,
        now: Stamp,
    ) -> Result<ChatDone, Refusal> {
        let reason = if everybody { "for everybody" } else { "for this user" }.to_owned();
        let row = row(&by, AuditAction::ConversationClear, None);
        let row = AuditEvent { object: room.clone(), reason: Some(reason), ..row };
        if !scope.allows_channel(&channel_of(&room)) {
            let right = if everybody { "cmd` (a clinician)" } else { "hst`" };
            let refusal =
                Refusal { code: "permission_denied", reason: format!("this takes the right `{right} on the room") };
            self.publish_outcome(row, Some(&refusal), now);
            return Err(refusal);
        }
        let before = self.unkept.count();
        let cleared = ChatCleared { cleared: room, by: by.user, everybody };
        let seq = self.publish(EventBody::Chat(ChatEvent::Cleared(cleared)), now);
        self.publish_outcome(row, None, now);
        Ok(ChatDone { id: None, done: Done { seq, is_kept: self.unkept.count() == before } })
    }
}
