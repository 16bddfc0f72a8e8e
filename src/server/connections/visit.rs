//! One connection in the registry: its facts, and the handle by which its session keeps them true.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::SetOnce;

use super::lineage::Client;
use super::{Health, Inner, MAX_CLIENT, State};
use crate::channel::Pattern;
use crate::clock::{Mono, Stamp, Wall};
use crate::event::AuditAction;
use crate::ids::Seq;
use crate::metrics::Number;
use crate::outbox::{Load, Outbox};
use crate::server::auth::{Rights, Role};
use crate::server::claimed;
use crate::server::close::Close;
use crate::server::session::{PING_EVERY, PONG_DEADLINE, Session, Wanted};
use crate::server::trail::Row;

/// A client that has not been heard for longer is not healthy: a ping and its answer, and what the network takes.
const HEARD_WITHIN: Duration = PING_EVERY.saturating_add(PONG_DEADLINE).saturating_add(Duration::from_secs(2));

/// What a session may still do once it was ordered to close.
pub(super) const ORDER_GRACE: Duration = Duration::from_secs(3);

/// Channels of a connection that has ended which are remembered.
const MAX_CHANNELS_OF_GONE: usize = 16;

/// Longest list of channels in a row of the audit trail, in bytes.
const MAX_LISTED_BYTES: usize = 256;

/// The code of an end without a close frame (RFC 6455, 7.4.1).
const ABNORMAL: u16 = 1006;

/// What changes now and then.
#[derive(Debug)]
struct Facts {
    state: State,
    user: Option<String>,
    role: Option<Role>,
    client: Option<String>,
    patterns: Vec<Pattern>,
    outbox: Option<Arc<Outbox>>,
    retry_count: u32,
    recovery_attempts: u32,
    /// A row of the audit trail says already why nobody got in.
    is_told: bool,
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) address: Option<IpAddr>,
    pub(super) opened: Stamp,
    /// Held for a look-up, never across an `.await`.
    facts: Mutex<Facts>,
    /// At most one, for ever.
    order: Arc<SetOnce<Close>>,
    /// Milliseconds since boot and since 1970.
    heard: (Number, Number),
    received: Number,
    sent: Number,
    /// Nanoseconds; 0: not known.
    rtt: Number,
    /// 0: none.
    acked: Number,
    /// 1 if it has not acknowledged an alert that came twice.
    late: Number,
}

/// A connection that has ended.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) id: String,
    pub(super) at: Mono,
    pub(super) health: Health,
}

impl Entry {
    pub(super) fn new(id: String, address: Option<IpAddr>, client: Option<String>, now: Stamp) -> Self {
        let facts = Facts {
            state: State::Connecting,
            user: None,
            role: None,
            client,
            patterns: Vec::new(),
            outbox: None,
            retry_count: 0,
            recovery_attempts: 0,
            is_told: false,
        };
        let entry = Self {
            id,
            address,
            opened: now,
            facts: Mutex::new(facts),
            order: Arc::default(),
            heard: <(Number, Number)>::default(),
            received: Number::default(),
            sent: Number::default(),
            rtt: Number::default(),
            acked: Number::default(),
            late: Number::default(),
        };
        entry.hear(now);
        entry
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, now: Stamp) {
        self.heard.0.set(now.mono.as_millis());
        self.heard.1.set(u64::try_from(now.wall.0).unwrap_or(0));
    }

    /// Orders it to close; false if that was ordered before.
    pub(super) fn order(&self, close: Close) -> bool {
        self.order.set(close).is_ok()
    }

    pub(super) fn is_of(&self, user: &str) -> bool {
        self.lock().user.as_deref() == Some(user)
    }

    pub(super) fn user(&self) -> Option<String> {
        self.lock().user.clone()
    }

    /// True if a row says already why nobody got in.
    pub(super) fn is_told(&self) -> bool {
        self.lock().is_told
    }

    pub(super) fn patterns(&self) -> Vec<Pattern> {
        self.lock().patterns.clone()
    }

    /// By what the client is recognised, once it has signed in.
    pub(super) fn lineage(&self) -> Option<Client> {
        let facts = self.lock();
        facts.user.clone().map(|user| (user, self.address, facts.client.clone()))
    }

    pub(super) fn health(&self, now: Stamp) -> Health {
        let facts = self.lock();
        let load = facts.outbox.as_ref().map_or_else(Load::default, |outbox| outbox.load());
        let heard = Mono::from_millis(self.heard.0.get());
        let is_open = matches!(facts.state, State::Connecting | State::Connected | State::Authenticated);
        let rtt = Some(self.rtt.get()).filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        Health {
            state: facts.state,
            user: facts.user.clone(),
            role: facts.role,
            connected_at: self.opened.wall.to_string(),
            last_activity: Wall(i64::try_from(self.heard.1.get()).unwrap_or(0)).to_string(),
            retry_count: facts.retry_count,
            recovery_attempts: facts.recovery_attempts,
            channels: facts.patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            is_healthy: is_open && now.mono.since(heard) < HEARD_WITHIN && !load.is_overrun && self.late.get() == 0,
            rtt,
            load,
            acked_seq: Some(self.acked.get()).filter(|seq| *seq > 0),
            client: facts.client.clone(),
            address: self.address.map(|address| address.to_string()),
            messages_received: self.received.get(),
            messages_sent: self.sent.get(),
            end: None,
        }
    }

    /// What is remembered of it.
    pub(super) fn farewell(&self, code: u16, reason: &'static str, now: Stamp) -> Health {
        let mut health = self.health(now);
        health.state = State::Disconnected;
        health.is_healthy = false;
        health.load = Load { conflated: health.load.conflated, ..Load::default() };
        health.channels.truncate(MAX_CHANNELS_OF_GONE);
        health.end = Some((now.wall.to_string(), code, reason));
        health
    }
}

/// What a session does about its place in the registry; the place is given up when this is dropped.
#[derive(Debug)]
pub struct Visit {
    entry: Arc<Entry>,
    inner: Arc<Inner>,
    end: (u16, &'static str),
}

impl Visit {
    pub(super) fn new(entry: Arc<Entry>, inner: Arc<Inner>) -> Self {
        Self { entry, inner, end: (ABNORMAL, "it ended without a close frame") }
    }

    /// The connection's id.
    pub fn id(&self) -> &str {
        &self.entry.id
    }

    /// From where it comes.
    pub fn address(&self) -> Option<IpAddr> {
        self.entry.address
    }

    /// Its session turns.
    pub fn begin(&self) {
        self.entry.lock().state = State::Connected;
    }

    /// Somebody may have signed in, with this session.
    pub fn on_signed_in(&self, session: &Session) {
        if let Some(rights) = session.rights() {
            self.sign_in(rights, session.client());
        }
    }

    fn sign_in(&self, rights: &Rights, client: Option<&str>) {
        let now = self.inner.clock.now();
        let mut facts = self.entry.lock();
        if let Some(client) = client {
            facts.client = Some(claimed::name(client, MAX_CLIENT)).filter(|name| !name.is_empty());
        }
        facts.role = Some(rights.role);
        let is_first = facts.user.is_none();
        if !is_first {
            return;
        }
        facts.user = Some(rights.user.clone());
        if facts.state != State::Error {
            facts.state = State::Authenticated;
        }
        let client = facts.client.clone();
        drop(facts);
        // The table is never locked while the facts are: looking at all connections locks them the other way round.
        let lineage = (rights.user.clone(), self.entry.address, client.clone());
        let counts = self.inner.lock().lineages.on_signed_in(&lineage, now.mono);
        let mut facts = self.entry.lock();
        (facts.retry_count, facts.recovery_attempts) = counts;
        drop(facts);
        let reason = client.map(|client| format!("{}, {client}", rights.role));
        let reason = reason.or_else(|| Some(rights.role.to_string()));
        let row = Row::done(AuditAction::Connect, self.entry.id.clone(), reason);
        self.inner.write(Some(&rights.user), self.entry.address, row);
    }

    /// The token of the upgrade was refused, which has been written down.
    pub fn on_refused_before(&self) {
        self.entry.lock().is_told = true;
    }

    /// There is no room for another session of this user, who has a valid token.
    pub fn on_no_room(&self, user: &str) {
        self.entry.lock().is_told = true;
        let reason = Close::UserConnectionLimit.name().to_owned();
        let row = Row::refused(AuditAction::Connect, self.entry.id.clone(), reason);
        self.inner.write(Some(user), self.entry.address, row);
    }

    /// A token of a message was refused.
    pub fn on_refused(&self, token: &str, reason: &str) {
        self.entry.lock().is_told = true;
        let user = self.entry.user();
        let object = claimed::subject(token).unwrap_or_default();
        let row = Row::refused(AuditAction::SignIn, object, format!("token: {reason}"));
        self.inner.write(user.as_deref(), self.entry.address, row);
    }

    /// The client was heard: a message, or a sign of life.
    pub fn on_heard(&self, is_message: bool) {
        self.entry.hear(self.inner.clock.now());
        self.entry.received.add(u64::from(is_message));
    }

    /// The newest event that the client has acknowledged.
    ///
    /// `is_late`: it has not acknowledged an alert that came twice.
    pub fn on_acked(&self, acked: Option<Seq>, is_late: bool) {
        if let Some(Seq(seq)) = acked {
            self.entry.acked.set(seq);
        }
        self.entry.late.set(u64::from(is_late));
    }

    /// A message was written.
    pub fn on_sent(&self) {
        self.entry.sent.add_one();
    }

    /// The answer to a ping took so long.
    pub fn on_round_trip(&self, rtt: Duration) {
        // Less than a nanosecond is not measured.
        self.entry.rtt.set(u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// The session listens to other channels than before, or has another outbox.
    pub fn on_listening(&self, session: &Session, outbox: Option<&Arc<Outbox>>) {
        let mut facts = self.entry.lock();
        facts.patterns = session.patterns().to_vec();
        facts.outbox = outbox.cloned();
    }

    /// The session asks for channels, or was refused them.
    pub fn on_subscribe(&self, wanted: &Wanted) {
        let Some(user) = self.entry.user() else { return };
        if wanted.since.is_some() && wanted.refused.is_none() {
            let mut facts = self.entry.lock();
            facts.recovery_attempts = facts.recovery_attempts.saturating_add(1);
        }
        let object = listed(&wanted.patterns);
        let row = match (&wanted.refused, &wanted.since) {
            (Some(refused), _) => {
                Row::refused(AuditAction::Subscribe, object, claimed::name(refused, MAX_LISTED_BYTES))
            }
            (None, Some((epoch, seq))) => {
                Row::done(AuditAction::Subscribe, object, Some(format!("goes on after {epoch}:{seq}")))
            }
            (None, None) => Row::done(AuditAction::Subscribe, object, None),
        };
        self.inner.write(Some(&user), self.entry.address, row);
    }

    /// Where the order to close comes.
    pub fn order(&self) -> Arc<SetOnce<Close>> {
        Arc::clone(&self.entry.order)
    }

    /// A way to wait for an order that stays without effect, for a socket that is stuck in a write.
    pub fn overdue(&self) -> impl Future<Output = Close> + use<> {
        let order = self.order();
        async move {
            let close = *order.wait().await;
            tokio::time::sleep(ORDER_GRACE).await;
            close
        }
    }

    /// The server begins to close it.
    pub fn on_closing(&self, close: Close) {
        let is_order = matches!(close, Close::ClosedByAdmin | Close::ForceReconnect | Close::ServerShutdown);
        if !is_order {
            self.entry.lock().state = State::Error;
        }
    }

    /// It has ended with this code; `None`: without a close frame.
    pub fn on_end(&mut self, code: Option<u16>, reason: &'static str) {
        self.end = (code.unwrap_or(ABNORMAL), reason);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let (code, reason) = self.end;
        self.inner.take_out(&self.entry, code, reason);
    }
}

/// Channels as one text of bounded length.
fn listed(patterns: &[Pattern]) -> String {
    let mut text = String::new();
    for (at, pattern) in patterns.iter().enumerate() {
        if text.len() + pattern.as_str().len() > MAX_LISTED_BYTES {
            return format!("{text} and {} more", patterns.len() - at);
        }
        if at > 0 {
            text.push_str(", ");
        }
        text.push_str(pattern.as_str());
    }
    text
}
