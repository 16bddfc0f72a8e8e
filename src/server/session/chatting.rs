//! A session in the rooms of the care team: what its client says there, and how it is told, also in the form of clients
//! that call a room a session.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, ChatOrder, DURABLE_DEADLINE, Session};
use crate::channel::Operation;
use crate::clock::{Mono, Stamp};
use crate::command::BadMember;
use crate::desk::Refusal;
use crate::event::{ChatEvent, Event, EventBody};
use crate::ids::{PatientId, Seq};
use crate::pipeline::{ChatAct, ChatDone, Sign};
use crate::rooms::{Members, Moment, MomentKind, RoomsNow, channel_of};
use crate::server::chat::{ChatRequest, Page};
use crate::server::frames::{CompleteData, ConversationData, ErrorData, RoomData};
use crate::server::message::Unreadable;
use crate::store::PageWanted;
use crate::wire;

/// A client that says the same again within this time says nothing new.
const TYPING_EVERY: Duration = Duration::from_secs(1);

/// What was written and waits for the disk.
#[derive(Debug)]
struct Unanswered {
    correlation_id: String,
    /// But for `durable`.
    data: CompleteData,
    due: Mono,
}

/// What a session knows of the rooms.
#[derive(Debug, Default)]
pub(super) struct Chatting {
    /// The client has joined by `join_session`: it knows the names of form B.
    is_older: bool,
    /// The newest message that may not be on disk.
    newest: Seq,
    /// As many as a client's messages are read before its own answers.
    unanswered: Vec<Unanswered>,
    /// What was last said of typing.
    typed: Option<(String, bool, Mono)>,
}

impl Chatting {
    pub(super) fn waits_for_disk(&self) -> bool {
        !self.unanswered.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.unanswered.iter().map(|waiting| waiting.due).min()
    }
}

impl Session {
    /// Something of the client in the rooms.
    pub(super) fn on_chat(&mut self, request: ChatRequest, id: Option<String>, out: &mut Vec<Action>, now: Stamp) {
        let Some(by) = self.rights().map(|rights| rights.user.clone()) else { return };
        match request {
            ChatRequest::Join { patterns, since, is_session } => {
                self.chat.is_older |= is_session;
                self.subscribe(patterns, (None, None), since, id, out, now);
            }
            ChatRequest::Leave { patterns } => self.unsubscribe(&patterns, id.as_deref(), out, now),
            ChatRequest::Send { room, text, name } => {
                self.order(ChatAct::Send { room, text, name }, Operation::Publish, by, id, out);
            }
            ChatRequest::Clear { room, everybody } => {
                let needs = if everybody { Operation::Command } else { Operation::History };
                self.order(ChatAct::Clear { room, everybody }, needs, by, id, out);
            }
            ChatRequest::Typing { room, is_typing } => {
                if self.may(Operation::Publish, &room, id.as_deref(), out, now) {
                    self.types(room, by, is_typing, out, now);
                }
            }
            ChatRequest::Read { room, through } => {
                if self.may(Operation::Subscribe, &room, id.as_deref(), out, now) {
                    out.push(Action::Sign(Sign::Read { room, by, through }));
                }
            }
            ChatRequest::History { room, before, limit } => {
                if self.may(Operation::History, &room, id.as_deref(), out, now) {
                    let wanted = PageWanted { room, user: by, before, limit };
                    let correlation_id = id.unwrap_or_default();
                    out.push(Action::Conversation {
                        correlation_id,
                        wanted: Box::new(wanted),
                        through: self.chat.newest,
                    });
                }
            }
            ChatRequest::Activity { patient } => self.looks_at(patient, id.as_deref(), out, now),
        }
    }

    fn order(&self, act: ChatAct, needs: Operation, by: String, id: Option<String>, out: &mut Vec<Action>) {
        let Some(scope) = self.rights().map(|rights| rights.scope(needs)) else { return };
        out.push(Action::Chat(Box::new(ChatOrder { correlation_id: id.unwrap_or_default(), act, by, scope })));
    }

    /// True if the token allows this in the room; else the client is told.
    fn may(&mut self, operation: Operation, room: &str, id: Option<&str>, out: &mut Vec<Action>, now: Stamp) -> bool {
        let channel = channel_of(room);
        let may = self.rights().is_some_and(|rights| rights.scope(operation).allows_channel(&channel));
        if !may {
            self.wrong(out, &Unreadable::Denied { channels: channel }, id, now);
        }
        may
    }

    fn types(&mut self, room: String, by: String, is_typing: bool, out: &mut Vec<Action>, now: Stamp) {
        let said = |(last, was, at): &(String, bool, Mono)| {
            *last == room && *was == is_typing && now.mono.since(*at) < TYPING_EVERY
        };
        if !self.chat.typed.as_ref().is_some_and(said) {
            self.chat.typed = Some((room.clone(), is_typing, now.mono));
            out.push(Action::Sign(Sign::Typing { room, by, is_typing }));
        }
    }

    fn looks_at(&mut self, patient: Option<PatientId>, id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        let Some(listener) = self.listener else {
            let first = BadMember::new("activity", "needs a subscribe first");
            return self.wrong(out, &Unreadable::Member(first), id, now);
        };
        let mut seen =
            self.shared.patients.iter().filter(|known| self.scope.sees_patient(&known.id, Some(&known.ward)));
        if patient.as_ref().is_some_and(|wanted| !seen.any(|known| known.id == *wanted)) {
            let refusal = Unreadable::Denied { channels: "this patient".to_owned() };
            return self.wrong(out, &refusal, id, now);
        }
        out.push(Action::Sign(Sign::LooksAt { listener, patient }));
    }

    /// A message was taken or a room cleared, or it was refused.
    pub fn on_chat_done(
        &mut self,
        correlation_id: &str,
        act: &ChatAct,
        done: Result<ChatDone, Refusal>,
        now: Stamp,
    ) -> Vec<Action> {
        let mut out = Vec::new();
        match done {
            Ok(ChatDone { id, done }) => {
                let data = CompleteData {
                    ok: wire::Yes,
                    conversation_id: act.room().to_owned(),
                    session_id: act.room().to_owned(),
                    message_id: id.map(|id| id.to_string()),
                    seq: done.seq,
                    durable: false,
                };
                if done.is_kept {
                    self.chat.newest = self.chat.newest.max(done.seq);
                    let (correlation_id, due) = (correlation_id.to_owned(), now.mono + DURABLE_DEADLINE);
                    self.chat.unanswered.push(Unanswered { correlation_id, data, due });
                    self.answer_messages(&mut out, now);
                } else {
                    // It was shown, and a later number on disk would say nothing about it.
                    self.say(&mut out, &data, Some(correlation_id), now);
                }
            }
            Err(Refusal { code, reason }) => {
                let retryable = matches!(code, "store_full" | "unavailable" | "unknown");
                let data = ErrorData { code, message: reason, retryable, scope: "request" };
                self.say(&mut out, &data, Some(correlation_id), now);
            }
        }
        out
    }

    /// Answers what is on disk now, or has waited for too long.
    pub(super) fn answer_messages(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let durable = self.durable;
        let ready = |waiting: &mut Unanswered| waiting.data.seq <= durable || waiting.due <= now.mono;
        let answers: Vec<Unanswered> = self.chat.unanswered.extract_if(.., ready).collect();
        for Unanswered { correlation_id, data, .. } in answers {
            let data = CompleteData { durable: data.seq <= durable, ..data };
            self.say(out, &data, Some(&correlation_id), now);
        }
    }

    /// A page of a conversation; `None`: it cannot be read now.
    pub fn on_conversation(
        &mut self,
        correlation_id: &str,
        wanted: &PageWanted,
        page: Option<Page>,
        now: Stamp,
    ) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(Page { messages, next }) = page else {
            let message = "the conversation cannot be read now".to_owned();
            let data = ErrorData { code: "unavailable", message, retryable: true, scope: "request" };
            self.say(&mut out, &data, Some(correlation_id), now);
            return out;
        };
        let data = conversation(&wanted.room, &messages, next);
        self.say(&mut out, &data, Some(correlation_id), now);
        out
    }

    /// Rooms were joined: a client of form B waits for the state of its session.
    pub(super) fn on_rooms(&mut self, rooms: &RoomsNow, out: &mut Vec<Action>, now: Stamp) {
        self.chat.newest = self.chat.newest.max(rooms.newest);
        let Some(user) = self.rights().map(|rights| rights.user.clone()).filter(|_| self.chat.is_older) else { return };
        for (room, (members, _)) in &rooms.members {
            self.tell_moment(&Moment::presence(room, &user, true, members, now), out);
        }
    }

    /// True if this user is told of an event, as far as its channels are open to him.
    pub(super) fn concerns(&self, event: &Event) -> bool {
        match &event.body {
            EventBody::Chat(chat) => self.rights().is_some_and(|rights| chat.concerns(&rights.user)),
            _ => true,
        }
    }

    /// A message as clients of form B know it; `None`: as it is pushed.
    pub(super) fn in_older_form(&self, event: &Event) -> Option<String> {
        match &event.body {
            EventBody::Chat(ChatEvent::Message(_)) if self.chat.is_older => wire::chat_received(event).ok(),
            _ => None,
        }
    }

    /// Writes what is of the moment.
    pub(super) fn tell_moment(&mut self, moment: &Moment, out: &mut Vec<Action>) {
        // Rights may have been narrowed while it waited.
        let Some(channel) = moment.routes.first().filter(|_| self.scope.allows(&moment.routes)) else { return };
        let kind = match moment.kind {
            MomentKind::Presence if self.chat.is_older => "session_update",
            MomentKind::Typing if self.chat.is_older => "typing_indicator",
            kind => kind.name(),
        };
        self.sent += 1;
        let id = format!("{}-{}", self.connection_id, self.sent);
        if let Ok(text) = wire::moment(kind, &moment.data, channel, &id, moment.at) {
            out.push(self.form.own(text));
        }
    }
}

/// What `subscribed` says of the rooms that were joined.
pub(super) fn rooms_told(rooms: &RoomsNow) -> BTreeMap<&str, RoomData> {
    rooms.members.iter().map(|(room, (members, read))| (room.as_str(), told(members, *read))).collect()
}

fn told(members: &Members, read_through: Option<Seq>) -> RoomData {
    let users = members.users.iter().map(|user| wire::user_id(user)).collect();
    RoomData { members: users, member_count: members.count, read_through }
}

/// `data` of a page.
pub(in crate::server) fn conversation<'a>(
    room: &'a str,
    messages: &'a [Event],
    next: Option<Seq>,
) -> ConversationData<'a> {
    let messages = messages.iter().filter_map(wire::Line::of).collect();
    ConversationData { conversation_id: room, session_id: room, messages, next }
}
