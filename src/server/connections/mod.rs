//! Every WebSocket connection of the daemon: who it is, how it fares, and the orders to close it.

mod health;
mod lineage;
mod visit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::health::{Health, State, Subject, Totals};
use self::lineage::Lineages;
pub use self::visit::Visit;
use self::visit::{Entry, Gone};
use super::claimed;
use super::trail::{Row, Trail};
use crate::clock::{Clock, Mono, Stamp};
use crate::event::{Actor, AuditAction, AuditEvent};
use crate::metrics::Metrics;
use crate::pipeline::Control;
use crate::server::close::Close;

/// Connections that have ended and can still be looked at.
pub const MAX_GONE: usize = 256;

/// For how long they can.
pub const GONE_LIFE: Duration = Duration::from_mins(15);

/// Longest name of a client, in characters.
const MAX_CLIENT: usize = 120;

/// What the registry owns.
#[derive(Debug, Default)]
struct Table {
    open: BTreeMap<String, Arc<Entry>>,
    /// The newest last; at most [`MAX_GONE`].
    gone: VecDeque<Gone>,
    lineages: Lineages,
    /// No connection is let in.
    is_draining: bool,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    trail: Trail,
    began: Mono,
    /// Held for a look-up, never across an `.await`.
    table: Mutex<Table>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registry; clones are the same one.
#[derive(Debug, Clone)]
pub struct Connections {
    inner: Arc<Inner>,
}

/// Which connections are looked at, or closed.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All that are open.
    All,
    /// This one.
    Connection(&'a str),
    /// Those of this user.
    User(&'a str),
}

impl Connections {
    /// A registry without connections.
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        let (trail, began) = (Trail::new(metrics), clock.now().mono);
        Self { inner: Arc::new(Inner { clock, trail, began, table: Mutex::default() }) }
    }

    /// Hands rows of the audit trail to the pipeline until told to stop.
    ///
    /// # Errors
    /// None; a task returns a result.
    pub async fn keep_trail(self, control: mpsc::Sender<Control>, stop: CancellationToken) -> anyhow::Result<()> {
        self.inner.trail.clone().hand_over(control, self.inner.clock.clone(), stop).await;
        Ok(())
    }

    /// Lets a connection in, from this address, with this name of its client; `None` while nobody is let in.
    pub fn open(&self, id: String, address: Option<IpAddr>, client: Option<&str>) -> Option<Visit> {
        let now = self.inner.clock.now();
        let mut table = self.inner.lock();
        if table.is_draining {
            return None;
        }
        let client = client.map(|name| claimed::name(name, MAX_CLIENT)).filter(|name| !name.is_empty());
        let entry = Arc::new(Entry::new(id, address, client, now));
        table.open.insert(entry.id.clone(), Arc::clone(&entry));
        Some(Visit::new(entry, Arc::clone(&self.inner)))
    }

    /// True while no connection is let in.
    pub fn is_draining(&self) -> bool {
        self.inner.lock().is_draining
    }

    /// Sends all connections away and lets no other in, or lets them in again; how many were sent away.
    pub fn drain(&self, drain: bool) -> usize {
        let mut table = self.inner.lock();
        table.is_draining = drain;
        if !drain {
            return 0;
        }
        table.open.values().filter(|entry| entry.order(Close::ServerShutdown)).count()
    }

    /// Has connections closed; their ids, those that are being closed already left out.
    pub fn close(&self, which: Which<'_>, close: Close) -> Vec<String> {
        let entries = self.entries(which);
        entries.iter().filter(|entry| entry.order(close)).map(|entry| entry.id.clone()).collect()
    }

    fn entries(&self, which: Which<'_>) -> Vec<Arc<Entry>> {
        let table = self.inner.lock();
        match which {
            Which::All => table.open.values().cloned().collect(),
            Which::Connection(id) => table.open.get(id).cloned().into_iter().collect(),
            Which::User(user) => table.open.values().filter(|entry| entry.is_of(user)).cloned().collect(),
        }
    }

    /// How each connection that is open fares, in the order of their ids.
    pub fn healths(&self, which: Which<'_>) -> Vec<(String, Health)> {
        let now = self.inner.clock.now();
        self.entries(which).iter().map(|entry| (entry.id.clone(), entry.health(now))).collect()
    }

    /// How a connection fares, or fared: for some time also one that has ended.
    pub fn health(&self, id: &str) -> Option<Health> {
        let now = self.inner.clock.now();
        let table = self.inner.lock();
        if let Some(entry) = table.open.get(id) {
            return Some(entry.health(now));
        }
        let gone = table.gone.iter().rfind(|gone| gone.id == id)?;
        (now.mono.since(gone.at) < GONE_LIFE).then(|| gone.health.clone())
    }

    /// How many listen to each pattern of channels.
    pub fn channels(&self) -> BTreeMap<String, usize> {
        let mut channels = BTreeMap::new();
        for entry in self.entries(Which::All) {
            for pattern in entry.patterns() {
                *channels.entry(pattern.as_str().to_owned()).or_insert(0) += 1;
            }
        }
        channels
    }

    /// What there is in all.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut users = BTreeSet::new();
        for (_, health) in self.healths(Which::All) {
            users.extend(health.user.clone());
            totals.add(&health);
        }
        totals.users = users.len();
        totals.uptime = self.inner.clock.now().mono.since(self.inner.began);
        totals.audit_rows_waiting = self.inner.trail.len();
        totals
    }

    /// The text that Prometheus reads.
    pub fn to_prometheus(&self) -> String {
        let totals = self.totals();
        let mut text = "# HELP vitalbridge_connections_by_state WebSocket connections in each state.\n\
                        # TYPE vitalbridge_connections_by_state gauge\n"
            .to_owned();
        // Writing to a String cannot fail.
        for state in State::ALL.iter().filter(|state| **state != State::Disconnected) {
            let count = totals.states.get(state).copied().unwrap_or(0);
            let _ = writeln!(text, "vitalbridge_connections_by_state{{state=\"{state}\"}} {count}");
        }
        let _ = write!(
            text,
            "# HELP vitalbridge_users_online Users who have signed in over a WebSocket.\n\
             # TYPE vitalbridge_users_online gauge\nvitalbridge_users_online {}\n\
             # HELP vitalbridge_connections_unhealthy Open connections that are not healthy.\n\
             # TYPE vitalbridge_connections_unhealthy gauge\nvitalbridge_connections_unhealthy {}\n\
             # HELP vitalbridge_draining 1 while no connection is let in.\n\
             # TYPE vitalbridge_draining gauge\nvitalbridge_draining {}\n",
            totals.users,
            totals.unhealthy,
            u8::from(self.is_draining()),
        );
        text
    }

    /// Writes down that a token was refused before anybody had signed in; of the token only whom it names.
    pub(super) fn token_refused(&self, address: Option<IpAddr>, token: &str, reason: &str) {
        let object = claimed::subject(token).unwrap_or_default();
        self.write(None, address, Row::refused(AuditAction::SignIn, object, format!("token: {reason}")));
    }

    /// Writes a row; `user`: `None` where nobody has signed in.
    pub(super) fn write(&self, user: Option<&str>, address: Option<IpAddr>, row: Row) {
        self.inner.write(user, address, row);
    }

    /// The rows that have to be written before the pipeline ends: what has not been handed over, and that each
    /// connection ends with the daemon. Nothing is written after that.
    pub fn farewell(&self) -> Vec<AuditEvent> {
        let now = self.inner.clock.now();
        for entry in self.entries(Which::All) {
            self.inner.write_end(&entry, Close::ServerShutdown.code(), Close::ServerShutdown.name(), now);
        }
        self.inner.trail.finish()
    }
}

impl Inner {
    fn write(&self, user: Option<&str>, address: Option<IpAddr>, row: Row) {
        let by = Actor {
            user: user.unwrap_or(AuditEvent::UNKNOWN).to_owned(),
            address: address.map(|address| address.to_string()),
        };
        self.trail.write(by, row, self.clock.now().mono);
    }

    /// Writes down the end of a connection. One on which nobody has signed in was refused, and its one row says so, unless
    /// another did; they are bounded as all refusals are.
    fn write_end(&self, entry: &Entry, code: u16, reason: &str, now: Stamp) {
        let seconds = now.mono.since(entry.opened.mono).as_secs();
        let reason = format!("{code} {reason} after {seconds} s");
        let Some(user) = entry.user() else {
            if !entry.is_told() {
                let reason = format!("nobody signed in: {reason}");
                self.write(None, entry.address, Row::refused(AuditAction::Connect, entry.id.clone(), reason));
            }
            return;
        };
        let row = Row::done(AuditAction::Close, entry.id.clone(), Some(reason));
        self.write(Some(&user), entry.address, row);
    }

    /// A connection has ended: it can be looked at for a while.
    fn take_out(&self, entry: &Entry, code: u16, reason: &'static str) {
        let now = self.clock.now();
        self.write_end(entry, code, reason, now);
        let health = entry.farewell(code, reason, now);
        let mut table = self.lock();
        table.open.remove(&entry.id);
        if let Some(client) = entry.lineage()
            && is_lost(code)
        {
            table.lineages.on_lost(client, (health.retry_count, health.recovery_attempts), now.mono);
        }
        while table.gone.front().is_some_and(|first| now.mono.since(first.at) >= GONE_LIFE) {
            table.gone.pop_front();
        }
        if table.gone.len() >= MAX_GONE {
            table.gone.pop_front();
        }
        table.gone.push_back(Gone { id: entry.id.clone(), at: now.mono, health });
    }
}

/// True unless the client itself has ended it in good order (RFC 6455, 7.4.1: done, going away, no code).
const fn is_lost(code: u16) -> bool {
    !matches!(code, 1000 | 1001 | 1005)
}

#[cfg(test)]
mod tests;
