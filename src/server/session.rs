//! One dashboard's session: text in, actions out. Pure, so that the same tests run it in virtual time and on sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::channel::{Pattern, routes};
use crate::clock::{Mono, Stamp, Wall};
use crate::event::{Event, EventBody};
use crate::hub::{Join, Joined, ListenerId, Scope};
use crate::ids::{AlertId, BridgeId, Epoch, Seq, SiteId};
use crate::outbox::{Delivery, Parcel, Published};
use crate::patient::Patient;
use crate::server::auth::{Operation, Rights};
use crate::server::close::Close;
use crate::server::message::{Message, Request, Unreadable};
use crate::wire;

/// A client that has not signed in by then is closed.
pub const AUTH_DEADLINE: Duration = Duration::from_secs(5);

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

/// Most events that a resume replays; beyond it the client gets the newest of them and `recovered: false`.
pub const MAX_REPLAY: u64 = 100_000;

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
    /// When a number turns grey, and when it is no longer shown, in ms.
    pub stale_and_lost_ms: (u64, u64),
}

impl Shared {
    /// The ward of an event's patient.
    pub fn ward_of(&self, event: &Event) -> Option<&crate::ids::WardId> {
        let patient = event.patient()?;
        self.patients.iter().find(|known| known.id == *patient).map(|known| &known.ward)
    }
}

/// What the socket has to do.
#[derive(Debug)]
pub enum Action {
    /// Write a text message.
    Send(String),
    /// Write a text message that many listeners share.
    SendShared(Bytes),
    /// Write a binary message that many listeners share.
    SendBinary(Bytes),
    /// Write a ping.
    Ping,
    /// Check a token; answer with [`Session::on_token`].
    Verify(crate::secret::Secret),
    /// Find where to go on after an event; answer with [`Session::on_located`].
    Locate(Epoch, Seq),
    /// Join the hub; answer with [`Session::on_joined`].
    Join(Join),
    /// Read these events from disk, oldest first; answer with [`Session::on_replay`] and [`Session::on_replayed`].
    Replay {
        /// The event before the first.
        after: Seq,
        /// The last.
        through: Seq,
    },
    /// Leave these channels.
    Unsubscribe(ListenerId, Vec<Pattern>),
    /// Ask the pipeline about an alert; answer with [`Session::on_command_done`].
    Alert(AlertRequest),
    /// Write the close frame and end.
    Close(Close),
}

/// What a person wants done with an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRequest {
    /// Answered under this.
    pub correlation_id: String,
    /// Which alert.
    pub alert: AlertId,
    /// What.
    pub operation: AlertOperation,
    /// The newest event of the alert that the person saw.
    pub expected_seq: Option<Seq>,
    /// Who.
    pub by: String,
    /// What that user may acknowledge.
    pub scope: Scope,
}

/// Operations on one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertOperation {
    /// A person has seen it.
    Acknowledge,
    /// Silence it for some seconds.
    PauseAudio {
        /// At most 120.
        seconds: u64,
    },
    /// End a latched one.
    Reset,
}

/// Where a resume goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Everything after this one is replayed. `None`: the epoch is unknown here.
    pub after: Option<Seq>,
    /// Ranges after it that are no longer on disk.
    pub lost: Vec<(Seq, Seq)>,
}

/// A subscribe that waits for its answer from the hub.
#[derive(Debug)]
struct Pending {
    correlation_id: String,
    patterns: Vec<Pattern>,
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
    recent: Vec<Arc<Published>>,
    latest: Vec<Arc<Published>>,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    connection_id: String,
    defaults: &'static [&'static str],
    opened: Mono,
    rights: Option<Rights>,
    signing_in: Option<String>,
    expiry_told: bool,
    listener: Option<ListenerId>,
    patterns: Vec<Pattern>,
    delivery: Delivery,
    pending: Option<Pending>,
    commands: Vec<Unanswered>,
    scope: Scope,
    replaying: Option<Replaying>,
    ages: BTreeMap<String, Mono>,
    durable: Seq,
    next_heartbeat: Mono,
    next_ping: Mono,
    pong_due: Option<Mono>,
    errors: u32,
    sent: u64,
    closed: bool,
}

impl Session {
    /// A session that has just been opened. `rights`: of a token that came with the upgrade; `defaults`: the channels
    /// of a `subscribe` that names none.
    pub fn new(
        shared: Arc<Shared>,
        connection_id: String,
        rights: Option<Rights>,
        defaults: &'static [&'static str],
        now: Stamp,
    ) -> (Self, Vec<Action>) {
        let mut session = Self {
            shared,
            connection_id,
            defaults,
            opened: now.mono,
            rights: None,
            signing_in: None,
            expiry_told: false,
            listener: None,
            patterns: Vec::new(),
            delivery: Delivery::Latest,
            pending: None,
            commands: Vec::new(),
            scope: Scope::Only(Vec::new()),
            replaying: None,
            ages: BTreeMap::new(),
            durable: Seq::ZERO,
            next_heartbeat: now.mono + HEARTBEAT,
            next_ping: now.mono + PING_EVERY,
            pong_due: None,
            errors: 0,
            sent: 0,
            closed: false,
        };
        let mut out = Vec::new();
        let data = json!({
            "server": "vitalbridge", "version": env!("CARGO_PKG_VERSION"), "protocol": "vitals.v1.json",
            "connection_id": session.connection_id, "bridge_id": session.shared.bridge, "site": session.shared.site,
            "epoch": session.shared.epoch, "heartbeat_ms": HEARTBEAT.as_millis(), "mono_ms": now.mono.as_millis(),
        });
        session.send(&mut out, "welcome", &data, None, now);
        if let Some(rights) = rights {
            session.accept(rights, None, &mut out, now);
        }
        (session, out)
    }

    /// Who it is, once signed in.
    pub fn rights(&self) -> Option<&Rights> {
        self.rights.as_ref()
    }

    /// True while events from the outbox can be written: joined, and no replay under way.
    pub fn is_live(&self) -> bool {
        self.replaying.is_none() && self.pending.is_none() && !self.closed
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
        match Message::parse(text) {
            Ok(message) => self.on_message(message, &mut out, now),
            Err((unreadable, id)) => self.wrong(&mut out, &unreadable, id.as_deref(), now),
        }
        out
    }

    /// A binary message: this protocol has none from the client.
    pub fn on_binary(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        if !self.closed {
            self.wrong(&mut out, &Unreadable::Binary, None, now);
        }
        out
    }

    /// A message over the size limit.
    pub fn on_too_big(&mut self, now: Stamp) -> Vec<Action> {
        self.close_now(Close::MessageTooBig, now)
    }

    /// The answer to a ping.
    pub const fn on_pong(&mut self) {
        self.pong_due = None;
    }

    /// The newest event on disk, told with the next heartbeat: answers the commands that waited for it.
    pub fn on_durable(&mut self, seq: Seq, now: Stamp) -> Vec<Action> {
        self.durable = seq;
        self.answer_commands(now)
    }

    /// True while a command waits for the disk.
    pub fn waits_for_disk(&self) -> bool {
        !self.commands.is_empty()
    }

    fn answer_commands(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let durable = self.durable;
        let ready = |command: &mut Unanswered| command.seq <= durable || command.due <= now.mono;
        let answers: Vec<Unanswered> = self.commands.extract_if(.., ready).collect();
        for Unanswered { correlation_id, seq, .. } in answers {
            let data = json!({"ok": true, "seq": seq, "durable": seq <= durable});
            self.send(&mut out, "result", &data, Some(&correlation_id), now);
        }
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
        let auth = self.rights.is_none().then(|| self.opened + AUTH_DEADLINE);
        let command = self.commands.iter().map(|command| command.due).min();
        [Some(self.next_heartbeat), Some(self.next_ping), self.pong_due, auth, command]
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
        if self.rights.is_none() && now.mono >= self.opened + AUTH_DEADLINE {
            self.close(Close::AuthTimeout, &mut out, now);
            return out;
        }
        out.extend(self.answer_commands(now));
        if self.pong_due.is_some_and(|due| now.mono >= due) {
            self.close(Close::NoPong, &mut out, now);
            return out;
        }
        if now.mono >= self.next_heartbeat {
            self.next_heartbeat = now.mono + HEARTBEAT;
            self.heartbeat(&mut out, now);
            self.watch_expiry(&mut out, now);
        }
        if now.mono >= self.next_ping {
            self.next_ping = now.mono + PING_EVERY;
            // During a replay nothing is read, so nothing may be asked.
            if self.replaying.is_some() {
                return out;
            }
            self.pong_due = self.pong_due.or(Some(now.mono + PONG_DEADLINE));
            out.push(Action::Ping);
        }
        out
    }

    /// A token was checked, for `authenticate` or `refresh`.
    pub fn on_token(&mut self, checked: Result<Rights, String>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let correlation_id = self.signing_in.take();
        match checked {
            Ok(rights) => {
                let changed = self.rights.as_ref().is_some_and(|ours| ours.user != rights.user);
                if changed {
                    self.close(Close::TokenChangedSubject, &mut out, now);
                } else {
                    self.accept(rights, correlation_id.as_deref(), &mut out, now);
                }
            }
            Err(reason) => {
                let data = json!({"code": "invalid_token", "message": reason, "retryable": false});
                self.send(&mut out, "auth_error", &data, correlation_id.as_deref(), now);
                self.close(Close::InvalidToken, &mut out, now);
            }
        }
        out
    }

    /// It was found where a resume goes on.
    pub fn on_located(&mut self, located: Located) -> Vec<Action> {
        let Some(pending) = self.pending.as_mut() else {
            return Vec::new();
        };
        let (patterns, delivery) = (pending.patterns.clone(), pending.delivery);
        let since = located.after.unwrap_or(Seq(u64::MAX));
        pending.located = Some(located);
        vec![self.join_action(patterns, delivery, Some(since))]
    }

    /// The hub has answered. `None`: it has no room.
    pub fn on_joined(&mut self, joined: Option<Joined>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(pending) = self.pending.take() else {
            return out;
        };
        let Some(joined) = joined else {
            self.close(Close::OverCapacity, &mut out, now);
            return out;
        };
        self.listener = Some(joined.listener);
        for pattern in &pending.patterns {
            if !self.patterns.contains(pattern) {
                self.patterns.push(pattern.clone());
            }
        }
        let located = pending.located.as_ref();
        let resume = located.and_then(|located| located.after.map(|after| (after, &located.lost)));
        // Nobody has seen what has not happened: such a client is told the present.
        let resume = resume.filter(|(after, _)| *after <= joined.through);
        let floor = Seq(joined.through.0.saturating_sub(MAX_REPLAY));
        let after = resume.map_or(joined.through, |(after, _)| after.max(floor));
        let capped = resume.is_some_and(|(after, _)| after < floor);
        let lost = resume.map_or(&[][..], |(_, lost)| lost);
        let data = json!({
            "channels": pending.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>(),
            "recovered": resume.is_some() && !capped && lost.is_empty(),
            "first_seq": after.next(), "last_seq": joined.through, "epoch": self.shared.epoch, "lost": lost,
        });
        self.send(&mut out, "subscribed", &data, Some(&pending.correlation_id), now);
        let Joined { latest, recent, recent_from, .. } = joined;
        self.replaying = Some(Replaying { patterns: pending.patterns, recent, latest });
        if resume.is_some() && after.next() < recent_from {
            out.push(Action::Replay { after, through: Seq(recent_from.0.saturating_sub(1)) });
        } else {
            self.finish_replay(&mut out, now);
        }
        out
    }

    /// Events of a replay, from disk.
    pub fn on_replay(&mut self, events: &[Event]) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(replaying) = &self.replaying else { return out };
        let mut sent = 0;
        for event in events {
            let routes = routes(event, self.shared.ward_of(event));
            let wanted = routes.iter().any(|route| replaying.patterns.iter().any(|pattern| pattern.matches(route)));
            if wanted
                && self.scope.allows(&routes)
                && let Ok(text) = wire::push(event)
            {
                sent += 1;
                out.push(Action::Send(text));
            }
        }
        self.sent += sent;
        out
    }

    /// The replay from disk is complete.
    pub fn on_replayed(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        self.pong_due = self.pong_due.map(|_| now.mono + PONG_DEADLINE);
        self.finish_replay(&mut out, now);
        out
    }

    /// Events and gaps from the outbox.
    pub fn on_parcels(&mut self, parcels: &[Parcel], now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        for parcel in parcels {
            match parcel {
                Parcel::Event(published) => {
                    // Rights may have been narrowed while it waited.
                    if self.scope.allows(&published.routes) {
                        self.push(published, &mut out);
                        self.overtake(published);
                    }
                }
                Parcel::Wave(wave) => {
                    if self.scope.allows_channel(&wave.channel) {
                        out.push(Action::SendBinary(wave.message.clone()));
                    }
                }
                Parcel::Gap { from, to, skipped } => {
                    let data = json!({"from": from, "to": to, "skipped": skipped});
                    self.send(&mut out, "gap", &data, None, now);
                }
            }
        }
        out
    }

    /// An event of the present that comes during a replay changes what the snapshot after the replay has to say.
    fn overtake(&mut self, published: &Arc<Published>) {
        let Some(replaying) = &mut self.replaying else { return };
        let same = |known: &Arc<Published>| match (&known.event.body, &published.event.body) {
            (EventBody::Alert(known), EventBody::Alert(new)) => known.alert == new.alert,
            (EventBody::Source(known), EventBody::Source(new)) => known.source == new.source,
            _ => false,
        };
        replaying.latest.retain(|known| !same(known));
        match &published.event.body {
            EventBody::Alert(alert) if !alert.is_present() => {}
            EventBody::Alert(_) | EventBody::Source(_) => replaying.latest.push(Arc::clone(published)),
            _ => {}
        }
    }

    /// A command was carried out, or refused with a code and a reason.
    pub fn on_command_done(
        &mut self,
        correlation_id: &str,
        done: Result<Seq, (&'static str, String)>,
        now: Stamp,
    ) -> Vec<Action> {
        let mut out = Vec::new();
        match done {
            Ok(seq) => {
                let (correlation_id, due) = (correlation_id.to_owned(), now.mono + DURABLE_DEADLINE);
                self.commands.push(Unanswered { correlation_id, seq, due });
                out.extend(self.answer_commands(now));
            }
            Err((code, message)) => {
                let data = json!({"ok": false, "code": code, "message": message});
                self.send(&mut out, "result", &data, Some(correlation_id), now);
            }
        }
        out
    }

    fn on_message(&mut self, message: Message, out: &mut Vec<Action>, now: Stamp) {
        let id = message.correlation_id;
        match message.request {
            Request::Authenticate { token } => {
                // A second `authenticate` is a refresh; both name the same user or the session ends.
                self.signing_in = Some(id.unwrap_or_default());
                out.push(Action::Verify(token));
            }
            Request::Ping => self.send(out, "pong", &json!({"mono_ms": now.mono.as_millis()}), id.as_deref(), now),
            // The client's own heartbeat needs no answer; ours goes out on its own.
            Request::Heartbeat => {}
            request if self.rights.is_none() => {
                let name = request.name();
                self.wrong(out, &Unreadable::NotSignedIn { name }, id.as_deref(), now);
            }
            Request::Subscribe { mut patterns, since, delivery } => {
                if patterns.is_empty() {
                    patterns = self.defaults.iter().filter_map(|channel| channel.parse().ok()).collect();
                }
                self.subscribe(patterns, since, delivery, id, out, now);
            }
            Request::Unsubscribe { patterns } => self.unsubscribe(&patterns, id.as_deref(), out, now),
            Request::Alert { alert, operation, expected_seq } => {
                self.command(alert, operation, expected_seq, id.unwrap_or_default(), out);
            }
        }
    }

    fn subscribe(
        &mut self,
        patterns: Vec<Pattern>,
        since: Option<(Epoch, Seq)>,
        delivery: Option<Delivery>,
        correlation_id: Option<String>,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let id = correlation_id.as_deref();
        let denied: Vec<&str> = patterns.iter().filter(|p| !self.scope.overlaps(p)).map(Pattern::as_str).collect();
        if !denied.is_empty() {
            let refusal = Unreadable::Denied { channels: denied.join(", ") };
            return self.wrong(out, &refusal, id, now);
        }
        if since.is_some() && self.listener.is_some() {
            let place =
                Unreadable::Member { member: "since", problem: "belongs to the first subscribe of a connection" };
            return self.wrong(out, &place, id, now);
        }
        if self.patterns.len() + patterns.len() > MAX_SUBSCRIPTIONS {
            return self.wrong(out, &Unreadable::TooManySubscriptions, id, now);
        }
        // Who resumes wants each event; who only watches wants the newest.
        let default = if since.is_some() { Delivery::All } else { self.delivery };
        let delivery = delivery.unwrap_or(default);
        self.delivery = delivery;
        // The socket carries out actions in order and reads on only then, so no other subscribe waits.
        self.pending = Some(Pending {
            correlation_id: correlation_id.unwrap_or_default(),
            patterns: patterns.clone(),
            delivery,
            located: None,
        });
        match since {
            Some((epoch, seq)) => out.push(Action::Locate(epoch, seq)),
            None => out.push(self.join_action(patterns, delivery, None)),
        }
    }

    fn join_action(&self, patterns: Vec<Pattern>, delivery: Delivery, since: Option<Seq>) -> Action {
        Action::Join(Join { listener: self.listener, patterns, scope: self.scope.clone(), delivery, since })
    }

    fn unsubscribe(&mut self, patterns: &[Pattern], id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        self.patterns.retain(|pattern| !patterns.contains(pattern));
        self.ages.retain(|channel, _| self.patterns.iter().any(|pattern| pattern.matches(channel)));
        if let Some(listener) = self.listener {
            out.push(Action::Unsubscribe(listener, patterns.to_vec()));
        }
        let channels: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        self.send(out, "unsubscribed", &json!({"channels": channels}), id, now);
    }

    fn command(
        &mut self,
        alert: AlertId,
        operation: AlertOperation,
        expected_seq: Option<Seq>,
        correlation_id: String,
        out: &mut Vec<Action>,
    ) {
        let Some(rights) = &self.rights else { return };
        let (scope, by) = (rights.scope(Operation::Acknowledge), rights.user.clone());
        out.push(Action::Alert(AlertRequest { correlation_id, alert, operation, expected_seq, by, scope }));
    }

    fn accept(&mut self, rights: Rights, correlation_id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        let data =
            json!({"user_id": user_id(&rights.user), "role": rights.role, "expires_at": rights.expires.to_string()});
        self.scope = rights.scope(Operation::Subscribe);
        self.rights = Some(rights);
        self.expiry_told = false;
        self.send(out, "authenticated", &data, correlation_id, now);
        if self.listener.is_some() {
            // The new token may allow less: the hub is told, and so is the client.
            let lost: Vec<Pattern> = self.patterns.iter().filter(|p| !self.scope.overlaps(p)).cloned().collect();
            out.push(self.join_action(Vec::new(), self.delivery, None));
            if !lost.is_empty() {
                self.unsubscribe(&lost, None, out, now);
            }
        }
    }

    fn watch_expiry(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let Some(expires) = self.rights.as_ref().map(|rights| rights.expires) else {
            return;
        };
        let later =
            |wall: Wall, span: Duration| Wall(wall.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(0)));
        if now.wall > later(expires, EXPIRY_GRACE) {
            self.close(Close::TokenExpired, out, now);
        } else if !self.expiry_told && later(now.wall, EXPIRY_NOTICE) > expires {
            self.expiry_told = true;
            self.send(out, "token_expiring", &json!({"expires_at": expires.to_string()}), None, now);
        }
    }

    fn heartbeat(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let age = |at: &Mono| u64::try_from(now.mono.since(*at).as_millis()).unwrap_or(u64::MAX);
        let ages: BTreeMap<&str, u64> = self.ages.iter().map(|(channel, at)| (channel.as_str(), age(at))).collect();
        let data = json!({
            "mono_ms": now.mono.as_millis(), "durable_through": self.durable, "epoch": self.shared.epoch, "ages": ages,
        });
        self.send(out, "heartbeat", &data, None, now);
    }

    fn push(&mut self, published: &Arc<Published>, out: &mut Vec<Action>) {
        self.note_age(&published.event);
        self.sent += 1;
        out.push(Action::SendShared(published.text.clone()));
    }

    fn note_age(&mut self, event: &Event) {
        if let EventBody::Reading(reading) = &event.body {
            self.ages.insert(wire::channel_of(&event.body), reading.received.mono);
        }
    }

    fn finish_replay(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let Some(replaying) = self.replaying.take() else {
            return;
        };
        for published in &replaying.recent {
            self.push(published, out);
        }
        for published in &replaying.latest {
            self.note_age(&published.event);
        }
        let shared = Arc::clone(&self.shared);
        let scope = self.scope.clone();
        let patients = shared.patients.iter().filter(|patient| scope.sees_patient(&patient.id));
        let latest = replaying.latest.iter().map(|published| published.event.as_ref());
        let snapshot = wire::Snapshot::new(patients, latest, shared.stale_and_lost_ms, now.mono);
        self.send(out, "snapshot", &snapshot, None, now);
    }

    fn wrong(&mut self, out: &mut Vec<Action>, what: &Unreadable, id: Option<&str>, now: Stamp) {
        self.errors += 1;
        let data = json!({
            "code": what.code(), "message": what.to_string(), "retryable": false, "scope": what.scope(),
        });
        self.send(out, "error", &data, id, now);
        if self.errors >= MAX_ERRORS {
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
        let retry_after_ms = if close == Close::ServerShutdown { spread } else { 0 };
        let data = json!({
            "code": close.code(), "reason": close.name(), "reconnect": close.reconnect(), "retry_after_ms": retry_after_ms,
        });
        self.send(out, "closing", &data, None, now);
        out.push(Action::Close(close));
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
            out.push(Action::Send(text));
        }
    }
}

/// A user as older clients expect it: a number where the token's subject is all digits.
fn user_id(user: &str) -> Json {
    user.parse::<u64>().map_or_else(|_| Json::from(user), Json::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Activation, AlertChange, AlertEvent, AlertKind, Presence, Priority, Signal, SignalPresence};
    use crate::server::auth::Role;
    use crate::server::jwt::Claims;
    use crate::vitals::Mode;

    fn at(seconds: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(seconds * 1000), wall: Wall(1_800_000_000_000) }
    }

    fn session() -> Session {
        let shared = Shared {
            bridge: "b".parse().unwrap(),
            site: "s".parse().unwrap(),
            epoch: "e".parse().unwrap(),
            patients: Vec::new(),
            stale_and_lost_ms: (5000, 10_000),
        };
        let exp = 1_800_003_600;
        let claims = Claims { sub: "u".into(), role: Role::Nurse, caps: None, jti: None, iat: None, nbf: None, exp };
        Session::new(Arc::new(shared), "c".into(), Some(Rights::from_claims(&claims)), &[], at(0)).0
    }

    fn alert(id: u128, seq: u64, change: AlertChange) -> Arc<Published> {
        let signal = Signal { activation: Activation::On, presence: SignalPresence::On };
        let body = EventBody::Alert(AlertEvent {
            alert: AlertId(uuid::Uuid::from_u128(id)),
            change,
            patient: Some("P-1".parse().unwrap()),
            device: None,
            rule: "spo2_low".parse().unwrap(),
            kind: AlertKind::Physiological,
            priority: Priority::Medium,
            metric: None,
            value: None,
            limit: String::new(),
            message: String::new(),
            presence: Presence::True,
            audio: signal,
            visual: signal,
            onset: Wall(0),
            announced: Wall(0),
            paused_until: None,
            hidden_by: None,
            recurrence: 0,
            by: None,
            end_reason: None,
            mode: Mode::Test,
        });
        let event = Event { epoch: "e".parse().unwrap(), seq: Seq(seq), at: at(0), body };
        let (routes, text) = (routes(&event, None), Bytes::from(wire::push(&event).unwrap()));
        Arc::new(Published { event: Arc::new(event), routes, text })
    }

    /// The JSON of everything that is written, in its order.
    fn written(actions: &[Action]) -> Vec<Json> {
        let text = |action: &Action| match action {
            Action::Send(text) => Some(text.clone()),
            Action::SendShared(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            _ => None,
        };
        actions.iter().filter_map(text).map(|text| serde_json::from_str(&text).unwrap()).collect()
    }

    /// A session that resumes after event 1 and is being sent what the disk has; one alert stands.
    fn resuming() -> Session {
        let mut session = session();
        let subscribe = r#"{"type":"subscribe","channels":["alerts/+"],"since":{"epoch":"e","seq":1}}"#;
        assert!(matches!(session.on_text(subscribe, at(1))[..], [Action::Locate(..)]));
        assert!(matches!(session.on_located(Located { after: Some(Seq(1)), lost: vec![] })[..], [Action::Join(_)]));
        let mut hub = crate::hub::Hub::new(Seq(90), Arc::default());
        hub.publish(&alert(1, 91, AlertChange::Start));
        let join = Join {
            listener: None,
            patterns: vec!["alerts/+".parse().unwrap()],
            scope: Scope::Everything,
            delivery: Delivery::All,
            since: Some(Seq(1)),
        };
        let actions = session.on_joined(hub.join(join), at(1));
        assert!(actions.iter().any(|action| matches!(action, Action::Replay { after: Seq(1), through: Seq(90) })));
        session
    }

    #[test]
    fn the_snapshot_after_a_replay_knows_the_alerts_that_overtook_it() {
        let mut session = resuming();
        let overtaking = [alert(1, 95, AlertChange::End), alert(2, 96, AlertChange::Start)].map(Parcel::Event);
        let shown = written(&session.on_parcels(&overtaking, at(2)));
        assert_eq!(shown.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [95, 96]);
        let messages = written(&session.on_replayed(at(3)));
        let snapshot = messages.iter().find(|message| message["type"] == "snapshot").unwrap();
        let seqs: Vec<u64> =
            snapshot["data"]["alerts"].as_array().unwrap().iter().map(|alert| alert["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [96], "one has ended, the other has begun");
    }

    #[test]
    fn a_long_replay_is_not_taken_for_a_silent_client() {
        let mut session = resuming();
        for second in 2..60 {
            let actions = session.on_deadline(at(second));
            assert!(!actions.iter().any(|action| matches!(action, Action::Ping | Action::Close(_))), "{second}");
        }
        session.on_replayed(at(60));
        assert!(session.on_deadline(at(80)).iter().any(|action| matches!(action, Action::Ping)));
        assert!(session.on_deadline(at(89)).iter().any(|action| matches!(action, Action::Close(Close::NoPong))));
    }

    #[test]
    fn a_command_is_answered_when_it_is_on_disk_or_with_the_word_that_it_is_not() {
        let mut session = session();
        assert!(session.on_command_done("a", Ok(Seq(5)), at(1)).is_empty());
        assert!(session.on_durable(Seq(4), at(2)).is_empty());
        let answer = written(&session.on_durable(Seq(5), at(3)));
        assert_eq!((&answer[0]["correlation_id"], &answer[0]["data"]["durable"]), (&json!("a"), &json!(true)));

        session.on_command_done("b", Ok(Seq(9)), at(4));
        assert!(session.next_deadline() <= at(9).mono);
        let late = written(&session.on_deadline(at(9)));
        let answer = late.iter().find(|message| message["type"] == "result").unwrap();
        assert_eq!((&answer["correlation_id"], &answer["data"]["durable"]), (&json!("b"), &json!(false)));
    }

    #[test]
    fn a_token_is_announced_to_end_and_then_ends_the_session() {
        let mut session = session();
        let later = |seconds: i64| Stamp { mono: at(100_000).mono, wall: Wall(1_800_000_000_000 + seconds * 1000) };
        let kinds = |session: &mut Session, seconds| -> Vec<String> {
            session.next_heartbeat = Mono(0);
            session.pong_due = None;
            let messages = written(&session.on_deadline(later(seconds)));
            messages.iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(kinds(&mut session, 3500), ["heartbeat"]);
        assert_eq!(kinds(&mut session, 3590), ["heartbeat", "token_expiring"]);
        assert_eq!(kinds(&mut session, 3620), ["heartbeat"]);
        assert_eq!(kinds(&mut session, 3626), ["heartbeat", "closing"]);
    }
}
