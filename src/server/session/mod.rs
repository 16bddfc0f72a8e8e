//! One dashboard's session: text in, actions out. Pure, so that the same tests run it in virtual time and on sockets.

mod acking;
mod action;
mod annunciating;
mod asking;
mod chatting;
mod facts;
mod letters;
mod pacing;
mod signing_in;
mod subscribing;
#[cfg(test)]
mod tests;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::acking::Acking;
pub use self::acking::{ACK_DEADLINE, MAX_UNACKED};
pub use self::action::{Action, ChatOrder, CommandRequest, Located};
pub use self::asking::MAX_HISTORIES;
use self::chatting::Chatting;
pub(super) use self::chatting::conversation;
pub use self::facts::Wanted;
use self::letters::Written;
use self::pacing::Pace;
use self::writing::Told;
use crate::channel::Pattern;
use crate::clock::{Mono, Stamp};
use crate::command::Command;
use crate::event::Event;
use crate::filter::Filter;
use crate::hub::{ListenerId, Scope};
use crate::ids::{BridgeId, Epoch, Seq, SiteId};
use crate::notifier::Letter;
use crate::outbox::{Delivery, Published};
use crate::patient::Patient;
use crate::pipeline::Done;
use crate::server::auth::Rights;
use crate::server::bounds::{CloseCodes, ServerLimits};
use crate::server::close::Close;
use crate::server::form::compact::Streams;
use crate::server::form::{Form, cbor};
use crate::server::frames::{ClosingData, ErrorData, Frame, HeartbeatData, PongData, ResultData, WelcomeData};
use crate::server::message::{Message, Request, Unreadable};
use crate::server::rate::Users;
use crate::signal_times::SignalTimes;
use crate::wire;

/// A heartbeat goes out this often, whatever else flows.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// A WebSocket ping goes out this often.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// An unanswered ping closes the session after this time.
pub const PONG_DEADLINE: Duration = Duration::from_secs(8);

/// A token is told to end this long before it does.
pub const EXPIRY_NOTICE: Duration = Duration::from_mins(1);

/// A session outlives its token by this, so that a refresh on the way is not lost.
pub const EXPIRY_GRACE: Duration = Duration::from_secs(25);

/// More wrong messages than this close the session.
pub const MAX_ERRORS: u32 = 10;

/// Most subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = 128;

/// A command is answered once it is on disk, or after this time with `durable: false`.
pub const DURABLE_DEADLINE: Duration = Duration::from_secs(5);

/// Shortest name of a command, in characters, that is taken for one that no other page and no other connection gives: 64 bits
/// in hexadecimal. Clients that count their messages begin anew with each page.
pub const MIN_UNIQUE: usize = 16;

/// Most events that a resume replays; beyond it the client gets the newest of them and `recovered: false`.
pub const MAX_REPLAY: u64 = 100_000;

/// How a client is spoken with.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The channels of a `subscribe` that names none.
    pub defaults: &'static [&'static str],
    /// How messages are written.
    pub form: Form,
    /// The client has no way to say anything, so that its silence means nothing. That it takes what is sent shows that it is
    /// there.
    pub is_mute: bool,
}

impl Manner {
    /// Of a client that speaks.
    pub const fn new(defaults: &'static [&'static str], form: Form) -> Self {
        Self { defaults, form, is_mute: false }
    }
}

/// What every session of a daemon has in common.
#[derive(Debug)]
pub struct Shared {
    /// This bridge.
    pub bridge: BridgeId,
    /// Its place.
    pub site: SiteId,
    /// This run.
    pub epoch: Epoch,
    /// Everybody.
    pub patients: Vec<Patient>,
    /// How much each user may still say.
    pub users: Users,
    /// How many, how large, how long.
    pub limits: ServerLimits,
    /// Which numbers close frames have.
    pub close_codes: CloseCodes,
    /// The numbers of streams in the compact form.
    pub streams: Streams,
}

impl Shared {
    /// The ward of an event's patient.
    pub fn ward_of(&self, event: &Event) -> Option<&crate::ids::WardId> {
        let patient = event.patient()?;
        self.patients.iter().find(|known| known.id == *patient).map(|known| &known.ward)
    }
}

/// A subscribe that waits for its answer from the hub.
#[derive(Debug)]
struct Pending {
    correlation_id: String,
    patterns: Vec<Pattern>,
    filter: Option<Arc<Filter>>,
    delivery: Delivery,
    located: Option<Located>,
}

/// A command that was carried out and waits for the disk.
#[derive(Debug)]
struct Unanswered {
    correlation_id: String,
    seq: Seq,
    due: Mono,
}

/// A join that has been answered and whose replay from disk is under way.
#[derive(Debug)]
struct Replaying {
    patterns: Vec<Pattern>,
    filter: Option<Arc<Filter>>,
    /// Only what a client that acknowledges has not acknowledged: of each alerts' channel what is newer than this.
    unacked: Option<BTreeMap<String, Seq>>,
    recent: Vec<Arc<Published>>,
    latest: Vec<Arc<Published>>,
    letters: Vec<Letter>,
    signal_times: SignalTimes,
    through: Seq,
    /// The next number that the replay from disk is to bring.
    expected: Seq,
    /// The last number that the disk is to bring; `None`: nothing of the disk is replayed.
    from_disk: Option<Seq>,
    /// Ranges of which the client was told that they are lost.
    lost: Vec<(Seq, Seq)>,
    /// Messages for people among the missed events.
    told: Vec<uuid::Uuid>,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    connection_id: String,
    defaults: &'static [&'static str],
    form: Form,
    /// Streams whose numbers this client of the compact form knows.
    told: Told,
    opened: Mono,
    rights: Option<Rights>,
    signing_in: Option<String>,
    expiry_told: bool,
    /// The next moment at which the token's end has to be looked at.
    expiry_due: Option<Mono>,
    listener: Option<ListenerId>,
    patterns: Vec<Pattern>,
    /// How often channels were left or rights changed. Once that was, what waits is looked at once more.
    narrowings: u32,
    /// What is wanted of some of them.
    filters: BTreeMap<Pattern, Arc<Filter>>,
    acking: Acking,
    /// Questions about the past that are not answered yet.
    histories: usize,
    /// So many of them, the first ones, were asked with other rights than the client has now.
    histories_outdated: usize,
    delivery: Delivery,
    /// The client has said that it shows alerts, and the pipeline is to be told.
    wants_to_annunciate: bool,
    pending: Option<Box<Pending>>,
    commands: Vec<Unanswered>,
    scope: Scope,
    replaying: Option<Box<Replaying>>,
    /// Of each stream the reading that was written last, by its channel. They are everybody's: no names of streams here.
    newest: Vec<Arc<Published>>,
    durable: Seq,
    next_heartbeat: Mono,
    next_ping: Mono,
    pong_due: Option<Mono>,
    /// Messages for people that were written since the last ping, and those before it.
    written: Vec<Written>,
    pinged_for: Vec<Written>,
    chat: Chatting,
    errors: u32,
    /// What the client calls itself, and the newest event that it has acknowledged.
    client: Option<String>,
    acked: Option<Seq>,
    /// What the client asked for, until it is written down.
    wanted: Option<Box<Wanted>>,
    pace: Pace,
    sent: u64,
    closed: bool,
}

impl Session {
    /// A session that has just been opened. `rights`: of a token that came with the upgrade.
    pub fn new(
        shared: Arc<Shared>,
        connection_id: String,
        rights: Option<Rights>,
        manner: Manner,
        now: Stamp,
    ) -> (Self, Vec<Action>) {
        let Manner { defaults, form, .. } = manner;
        let mut session = Self {
            shared,
            connection_id,
            defaults,
            form,
            told: Told::default(),
            opened: now.mono,
            rights: None,
            signing_in: None,
            expiry_told: false,
            expiry_due: None,
            listener: None,
            patterns: Vec::new(),
            narrowings: 0,
            filters: BTreeMap::new(),
            acking: Acking::default(),
            histories: 0,
            histories_outdated: 0,
            delivery: Delivery::Latest,
            wants_to_annunciate: false,
            pending: None,
            commands: Vec::new(),
            scope: Scope::Only(Vec::new()),
            replaying: None,
            newest: Vec::new(),
            durable: Seq::ZERO,
            next_heartbeat: now.mono + HEARTBEAT,
            next_ping: now.mono + PING_EVERY,
            pong_due: None,
            written: Vec::new(),
            pinged_for: Vec::new(),
            chat: Chatting::default(),
            errors: 0,
            client: None,
            acked: None,
            wanted: None,
            pace: Pace::new(manner, now.mono),
            sent: 0,
            closed: false,
        };
        let mut out = Vec::new();
        let (common, connection_id) = (Arc::clone(&session.shared), session.connection_id.clone());
        let welcome = WelcomeData {
            server: "vitalbridge",
            version: env!("CARGO_PKG_VERSION"),
            protocol: form.protocol(),
            connection_id: &connection_id,
            bridge_id: &common.bridge,
            site: &common.site,
            epoch: &common.epoch,
            heartbeat_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
            mono_ms: now.mono.as_millis(),
        };
        session.say(&mut out, &welcome, None, now);
        if let Some(rights) = rights {
            session.accept(rights, None, &mut out, now);
        }
        (session, out)
    }

    /// Who it is, once signed in.
    pub fn rights(&self) -> Option<&Rights> {
        self.rights.as_ref()
    }

    /// True while events from the outbox can be written: no replay is under way. A subscribe that waits for its answer holds
    /// up nothing of what the client listens to already.
    pub fn is_live(&self) -> bool {
        self.replaying.is_none() && !self.closed
    }

    /// True once a close was ordered.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// A text message from the client.
    pub fn on_text(&mut self, text: &str, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        if self.closed {
            return out;
        }
        self.pace.said(now.mono);
        match Message::parse_within(text, self.shared.limits.json_depth) {
            Ok(message) if self.admits(Some(&message.request), now).is_ok() => self.on_message(message, &mut out, now),
            Err((unreadable, id)) if self.admits(None, now).is_ok() => {
                self.wrong(&mut out, &unreadable, id.as_deref(), now);
            }
            Ok(Message { correlation_id: id, .. }) | Err((_, id)) => self.too_often(id.as_deref(), &mut out, now),
        }
        out
    }

    /// A binary message: CBOR, if that was agreed; this protocol has no other from the client.
    pub fn on_binary(&mut self, bytes: &[u8], now: Stamp) -> Vec<Action> {
        let json = if self.form == Form::Cbor { cbor::to_json(bytes) } else { None };
        if let Some(text) = json {
            return self.on_text(&text, now);
        }
        let mut out = Vec::new();
        if self.closed {
            return out;
        }
        self.pace.said(now.mono);
        if self.admits(None, now).is_ok() {
            let refused = if self.form == Form::Cbor { Unreadable::NotCbor } else { Unreadable::Binary };
            self.wrong(&mut out, &refused, None, now);
        } else {
            self.too_often(None, &mut out, now);
        }
        out
    }

    /// A message over the size limit.
    pub fn on_too_big(&mut self, now: Stamp) -> Vec<Action> {
        self.close_now(Close::MessageTooBig, now)
    }

    /// The newest event on disk, told with the next heartbeat: answers the commands that waited for it.
    pub fn on_durable(&mut self, seq: Seq, now: Stamp) -> Vec<Action> {
        self.durable = seq;
        self.answer_commands(now)
    }

    /// True while a command waits for the disk.
    pub fn waits_for_disk(&self) -> bool {
        !self.commands.is_empty() || self.chat.waits_for_disk()
    }

    fn answer_commands(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let durable = self.durable;
        let ready = |command: &mut Unanswered| command.seq <= durable || command.due <= now.mono;
        let answers: Vec<Unanswered> = self.commands.extract_if(.., ready).collect();
        for Unanswered { correlation_id, seq, .. } in answers {
            self.say(&mut out, &ResultData::done(seq, seq <= durable), Some(&correlation_id), now);
        }
        self.answer_messages(&mut out, now);
        out
    }

    /// Ends the session for a reason of the server.
    pub fn close_now(&mut self, close: Close, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        self.close(close, &mut out, now);
        out
    }

    /// The next moment at which [`Session::on_deadline`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        let auth = self.rights.is_none().then(|| self.opened + self.shared.limits.auth);
        let command = self.commands.iter().map(|command| command.due).min();
        [
            Some(self.next_heartbeat),
            Some(self.next_ping),
            self.pong_due,
            self.expiry_due,
            auth,
            command,
            self.ack_due(),
            self.chat.next_deadline(),
            self.idle_at(),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.next_ping)
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        if self.closed {
            return out;
        }
        if self.rights.is_none() && now.mono >= self.opened + self.shared.limits.auth {
            self.close(Close::AuthTimeout, &mut out, now);
            return out;
        }
        out.extend(self.answer_commands(now));
        self.send_unacked_again(&mut out, now);
        if self.pong_due.is_some_and(|due| now.mono >= due) {
            self.close(Close::NoPong, &mut out, now);
            return out;
        }
        if self.idle_at().is_some_and(|end| now.mono >= end) {
            self.close(Close::IdleTimeout, &mut out, now);
            return out;
        }
        if now.mono >= self.next_heartbeat {
            self.next_heartbeat = now.mono + HEARTBEAT;
            self.heartbeat(&mut out, now);
            // The wall clock may have been set meanwhile.
            self.watch_expiry(&mut out, now);
        } else if self.expiry_due.is_some_and(|due| now.mono >= due) {
            self.watch_expiry(&mut out, now);
        }
        if self.closed {
            return out;
        }
        if now.mono >= self.next_ping {
            self.next_ping = now.mono + PING_EVERY;
            // During a replay nothing is read, so nothing may be asked.
            if self.replaying.is_some() {
                return out;
            }
            self.pong_due = self.pong_due.or(Some(now.mono + PONG_DEADLINE));
            self.pinged_for.append(&mut self.written);
            out.push(Action::Ping);
        }
        out
    }

    /// A command was carried out, or refused with a code and a reason.
    pub fn on_command_done(
        &mut self,
        correlation_id: &str,
        done: Result<Done, (&'static str, String)>,
        now: Stamp,
    ) -> Vec<Action> {
        let mut out = Vec::new();
        match done {
            Ok(Done { seq, is_kept: false }) => {
                // It holds, and a later number on disk would say nothing about it.
                self.say(&mut out, &ResultData::done(seq, false), Some(correlation_id), now);
            }
            Ok(Done { seq, is_kept: true }) => {
                let (correlation_id, due) = (correlation_id.to_owned(), now.mono + DURABLE_DEADLINE);
                self.commands.push(Unanswered { correlation_id, seq, due });
                out.extend(self.answer_commands(now));
            }
            Err((code, message)) => {
                self.say(&mut out, &ResultData::refused(code, message), Some(correlation_id), now);
            }
        }
        out
    }

    fn on_message(&mut self, message: Message, out: &mut Vec<Action>, now: Stamp) {
        let id = message.correlation_id;
        self.client = message.client.or(self.client.take());
        match message.request {
            Request::Authenticate { token } => {
                // A second `authenticate` is a refresh; both name the same user or the session ends.
                self.signing_in = Some(id.unwrap_or_default());
                out.push(Action::Verify(token));
            }
            request if self.rights.is_none() => {
                let name = request.name();
                self.wrong(out, &Unreadable::NotSignedIn { name }, id.as_deref(), now);
            }
            Request::Ping => self.say(out, &PongData { mono_ms: now.mono.as_millis() }, id.as_deref(), now),
            // The client's own heartbeat needs no answer; ours goes out on its own.
            Request::Heartbeat => {}
            Request::Subscribe { mut patterns, since, delivery, annunciator, filter, acks } => {
                if patterns.is_empty() {
                    patterns = self.defaults.iter().filter_map(|channel| channel.parse().ok()).collect();
                }
                self.wants_to_annunciate |= annunciator;
                if acks {
                    self.acking.begin();
                }
                self.subscribe(patterns, (filter, delivery), since, id, out, now);
            }
            Request::History { patterns, from, to, before, limit } => {
                self.ask_for_history(patterns, (from, to), (before, limit), id, out, now);
            }
            Request::Unsubscribe { patterns } => self.unsubscribe(&patterns, id.as_deref(), out, now),
            Request::Receipt { shown, alerts, epoch } => {
                self.receipt(shown, alerts, epoch.as_ref(), id.as_deref(), out, now);
            }
            Request::Ack { ids, through, epoch } => {
                self.acked = self.acked.max(through.as_ref().map(|(_, seq)| *seq));
                if let Some((channel, seq)) = &through {
                    self.on_alerts_ack(channel, epoch.as_ref(), *seq, out, now);
                }
                self.on_ack(&ids, through, out);
            }
            Request::Chat(request) => self.on_chat(request, id, out, now),
            Request::GetPreferences => {
                let Some(rights) = &self.rights else { return };
                out.push(Action::Preferences(id.unwrap_or_default(), rights.user.clone()));
            }
            Request::Command(mut command) => {
                // A message for people has its id of this name.
                if let Command::Notify(new) = &mut command
                    && let Some(name) = &mut new.correlation_id
                {
                    *name = self.key_of(name);
                }
                let Some(rights) = &self.rights else { return };
                let (scope, by) = (rights.scope_of(&command), rights.user.clone());
                let correlation_id = id.unwrap_or_default();
                let key = self.key_of(&correlation_id);
                out.push(Action::Command(Box::new(CommandRequest { correlation_id, key, command, by, scope })));
            }
        }
    }

    /// Under which name a command is done once. A short one may be anybody's, and is meant again by the next page that the
    /// client loads: it is this connection's own.
    fn key_of(&self, correlation_id: &str) -> String {
        if correlation_id.is_empty() || correlation_id.chars().count() >= MIN_UNIQUE {
            return correlation_id.to_owned();
        }
        format!("{}/{correlation_id}", self.connection_id)
    }

    fn heartbeat(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let age = |at: &Mono| u64::try_from(now.mono.since(*at).as_millis()).unwrap_or(u64::MAX);
        let newest = std::mem::take(&mut self.newest);
        let common = Arc::clone(&self.shared);
        let heartbeat = HeartbeatData {
            mono_ms: now.mono.as_millis(),
            durable_through: self.durable,
            epoch: &common.epoch,
            ages: newest.iter().filter_map(|it| Some((it.channel(), age(&it.received()?)))).collect(),
        };
        self.say(out, &heartbeat, None, now);
        self.newest = newest;
    }

    fn wrong(&mut self, out: &mut Vec<Action>, what: &Unreadable, id: Option<&str>, now: Stamp) {
        self.errors += 1;
        let data = ErrorData { code: what.code(), message: what.to_string(), retryable: false, scope: what.scope() };
        self.say(out, &data, id, now);
        // Before the sign-in there is one message, and it was not the sign-in.
        if self.rights.is_none() {
            self.close(Close::PermissionDenied, out, now);
        } else if self.errors >= MAX_ERRORS {
            self.close(Close::TooManyErrors, out, now);
        }
    }

    fn close(&mut self, close: Close, out: &mut Vec<Action>, now: Stamp) {
        if self.closed {
            return;
        }
        self.closed = true;
        // Spread the return of many dashboards over five seconds; the connection's own number is random enough.
        let spread = self.connection_id.bytes().fold(0_u64, |sum, byte| sum * 31 % 5000 + u64::from(byte)) % 5000;
        let retry_after_ms = match close {
            Close::ServerShutdown | Close::ForceReconnect => spread,
            Close::RateLimited => pacing::PAUSE_MS,
            _ => 0,
        };
        let (code, reason, reconnect) = (close.code(), close.name(), close.reconnect());
        self.say(out, &ClosingData { code, reason, reconnect, retry_after_ms }, None, now);
        out.push(Action::Close(close));
    }

    /// Writes a frame of [`crate::server::frames`].
    fn say<F: Frame>(&mut self, out: &mut Vec<Action>, data: &F, id: Option<&str>, now: Stamp) {
        self.send(out, F::TYPE, data, id, now);
    }

    fn send(&mut self, out: &mut Vec<Action>, kind: &str, data: &impl Serialize, id: Option<&str>, now: Stamp) {
        self.sent += 1;
        let ours;
        let id = match id {
            Some(id) if !id.is_empty() => id,
            _ => {
                ours = format!("{}-{}", self.connection_id, self.sent);
                &ours
            }
        };
        // Data of this file's own making has string keys only, so it always serialises.
        if let Ok(text) = wire::frame(kind, data, id, now.wall) {
            out.push(self.form.own(text));
        }
    }
}
