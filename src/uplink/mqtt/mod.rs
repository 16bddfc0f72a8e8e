//! One connection to a broker, whatever version of MQTT it speaks: the only folder that knows the MQTT crates.
//!
//! A [`Link`] lives from CONNECT to the end of that connection and is never resumed: clean start, no session, no stored
//! publications. What the broker did not confirm is known to [`super::plan::Plan`], which reads it again from the log.

mod dial;
mod parting;
mod probe;
mod renewal;
mod v4;
mod v5;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::dial::{Failure, Target};
use self::renewal::{Due, Renewal};
use super::UplinkConfig;
use super::access::{Credential, Version};
use super::downlink::{Incoming, MAX_COMMANDS, MAX_REPLIES};
use super::plan::{BrokerLimits, EndKind, Message, Ticket};
use super::retained::AT_ONCE;
use super::undurable::BESIDE;
use crate::clock::{Clock, Stamp};
use crate::timeline;

pub use self::probe::{Probe, ProbeStep, probe};
pub(super) use self::v5::packet_bytes;

/// A broker that hears nothing for one and a half times this takes the client for gone; pings go out at this pace.
const KEEP_ALIVE_S: u16 = 15;

/// Largest packet from the broker: acknowledgements with their properties, and commands.
const MAX_INCOMING_BYTES: u32 = 64 * 1024;

/// Messages about the bridge that may wait beside the window: online, birth twice, offline, and what it keeps there.
const ANNOUNCEMENTS: usize = 4 + AT_ONCE;

/// The subscriptions of commands and of Home Assistant's start.
const SUBSCRIPTIONS: usize = 2;

/// From DISCONNECT to the closed socket.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that failed because of this machine's clock is tried again after this, though nobody says that it was set.
const LONGEST_CLOCK_WAIT: Duration = Duration::from_mins(2);

/// A clock that is so much off from where it went was set.
const CLOCK_MOVED_MS: u64 = 250;

/// Longest text of a broker that is kept for people, in characters.
const MAX_REASON_CHARS: usize = 300;

/// A retained message about the bridge itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Where to.
    pub(super) topic: String,
    /// JSON.
    pub(super) body: String,
}

/// What happened on the connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The broker has accepted it.
    Connected(BrokerLimits),
    /// PUBACK with its reason code; MQTT 3.1.1 knows success only.
    Answer {
        /// Of the publication.
        ticket: Ticket,
        /// MQTT 5.0 3.4.2.1.
        code: u8,
    },
    /// PUBACK of what was sent beside the rows, with its reason code.
    Beside {
        /// Of the publication.
        ticket: u64,
        /// MQTT 5.0 3.4.2.1.
        code: u8,
    },
    /// The broker has answered the subscription of commands, with the reason if it refused it.
    Listening(Result<(), String>),
    /// Somebody has published a command.
    Command(Incoming),
    /// The broker has answered an announcement, with the reason if it refused it.
    Announced {
        /// Of the announcement.
        ticket: u64,
        /// Why it was refused.
        result: Result<(), String>,
    },
    /// It is over; nothing more will come.
    Ended {
        /// As far as it matters for what comes next.
        kind: EndKind,
        /// In words.
        reason: String,
    },
}

#[derive(Debug, Clone, Copy)]
enum Sent {
    Row(Ticket),
    Beside(u64),
    Announcement(u64),
    Reply,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// As the plan knows it.
    Kind(EndKind),
    /// The broker does not take user and password.
    Login,
    /// The broker does not speak this version of MQTT.
    Version,
    /// The stream has broken, and does not say why.
    Broken,
}

#[derive(Debug, Clone)]
struct End {
    cause: Cause,
    reason: String,
}

impl End {
    fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into().chars().take(MAX_REASON_CHARS).collect() }
    }

    fn lost(reason: impl Into<String>) -> Self {
        Self::new(Cause::Kind(EndKind::Lost), reason)
    }

    /// The stream could not be made.
    fn unreachable(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
            Some(Failure::Clock(reason)) => Self::new(Cause::Kind(EndKind::Clock), reason.as_str()),
            Some(Failure::Other(reason)) => Self::lost(reason.as_str()),
            None => Self::lost(dial::words(error).unwrap_or_else(|| format!("the broker cannot be reached: {error}"))),
        }
    }

    /// The stream has broken.
    fn broken(error: &io::Error) -> Self {
        match dial::words(error) {
            Some(words) => Self::lost(words),
            None => Self::new(Cause::Broken, format!("the connection is lost: {error}")),
        }
    }

    /// The stream has ended.
    fn closed() -> Self {
        Self::new(Cause::Broken, "the broker has closed the connection")
    }
}

/// A publication as each version can carry it.
struct Outgoing<'a> {
    topic: &'a str,
    body: Bytes,
    is_retained: bool,
    /// The row that it is, for the properties of MQTT 5.
    row: Option<&'a Message>,
}

/// Why a publication has no answer.
#[derive(Debug)]
enum Unanswered {
    /// The broker keeps no retained messages.
    NoRetain,
    /// The connection is of no use any more, in words.
    Useless(String),
}

/// The answer to a publication: the reason code of its PUBACK (MQTT 5.0 3.4.2.1).
type Confirmation = BoxFuture<'static, Result<u8, Unanswered>>;

/// The handle of one version's client. An error means that the connection is of no use any more.
trait Client: Send + Sync {
    /// Queues a publication with `QoS` 1.
    fn publish(&self, outgoing: Outgoing<'_>) -> Result<Confirmation, String>;

    /// Queues a subscription with `QoS` 1.
    fn subscribe(&self, topic: String) -> Result<(), String>;

    /// Queues DISCONNECT.
    fn farewell(&self) -> Result<(), String>;
}

/// What a version's client tells while its event loop turns.
struct Reports {
    connected: mpsc::Sender<BrokerLimits>,
    heard: mpsc::Sender<LinkEvent>,
}

impl Reports {
    fn connected(&self, limits: BrokerLimits) {
        // The channel has room for the one CONNACK of this connection.
        let _full_never = self.connected.try_send(limits);
    }

    /// Hands on what the broker says; a flood of commands is dropped here, before it costs anything.
    fn hear(&self, event: LinkEvent) {
        if self.heard.try_send(event).is_err() {
            warn!("commands come faster from the broker than they can be taken; one is dropped without an answer");
        }
    }

    fn command(&self, topic: &[u8], payload: Bytes, is_retained: bool) {
        let topic = String::from_utf8_lossy(topic).into_owned();
        self.hear(LinkEvent::Command(Incoming { topic, payload, is_retained }));
    }
}

/// What a version's client needs to connect.
struct Opening<'a> {
    config: &'a UplinkConfig,
    will: Announcement,
    password: Option<&'a Credential>,
    target: &'a Arc<Target>,
    reports: Reports,
    /// Of the queue to the event loop.
    capacity: usize,
}

/// What is remembered from one connection to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// The broker has refused MQTT 5.
    refuses_5: Arc<AtomicBool>,
    /// The last attempt failed because of this machine's clock: when that was, and what the clock said.
    clock_wait: Arc<Mutex<Option<Stamp>>>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.clock_wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another attempt would fail as the last one did: the clock goes on as it was, and that was not long ago. A person may
    /// set it without anybody being told, and a certificate begins at last by a clock that is late too.
    fn waits_for_clock(&self, now: Stamp) -> bool {
        let is_moved = |before: Stamp| timeline::offset_ms(now).abs_diff(timeline::offset_ms(before)) > CLOCK_MOVED_MS;
        self.lock().is_some_and(|before| now.mono.since(before.mono) < LONGEST_CLOCK_WAIT && !is_moved(before))
    }
}

/// One connection, or the attempt to make one.
pub(super) struct Link {
    client: Option<Box<dyn Client>>,
    /// Turns the crate's event loop. It is kept, never cut off in the middle of a write; dropping it drops the socket.
    driver: Option<BoxFuture<'static, End>>,
    connected: mpsc::Receiver<BrokerLimits>,
    /// Commands, and the answer to the subscription of them.
    incoming: mpsc::Receiver<LinkEvent>,
    answers: FuturesUnordered<BoxFuture<'static, (Sent, Result<u8, Unanswered>)>>,
    announcements: usize,
    /// Answers to commands that the broker has not confirmed.
    replies: usize,
    renewal: Option<Renewal>,
    end: Option<End>,
}

impl Link {
    /// Begins to connect. `will` is what the broker publishes, retained, if the connection ends without a farewell.
    /// `is_unset`: it is known that nobody has set this machine's clock.
    pub(super) fn open(
        config: &UplinkConfig,
        memory: &Memory,
        will: Announcement,
        is_unset: bool,
        clock: &Clock,
    ) -> Self {
        let stamp = clock.now();
        let now = stamp.wall;
        let (connected_in, connected) = mpsc::channel(1);
        let (heard, incoming) = mpsc::channel(MAX_COMMANDS);
        let mut link = Self {
            client: None,
            driver: None,
            connected,
            incoming,
            answers: FuturesUnordered::new(),
            announcements: 0,
            replies: 0,
            renewal: None,
            end: None,
        };
        let (broker, access) = (config.broker.clone(), config.access.clone());
        let target = Arc::new(Target {
            broker,
            access,
            now,
            is_unset,
            refuses_version: AtomicBool::new(false),
            has_spoken: AtomicBool::new(false),
            parting: AtomicU8::new(0),
        });
        if memory.waits_for_clock(stamp) && target.clock_is_unset() {
            let reason = format!("this machine's clock is not set: it says {now}; waiting for it to be synchronised");
            link.end = Some(End::new(Cause::Kind(EndKind::Clock), reason));
            return link;
        }
        *memory.lock() = None;
        let password = match config.access.password.as_ref().map(|password| password.get(now)).transpose() {
            Ok(password) => password,
            Err(reason) => {
                link.end = Some(End::lost(reason));
                return link;
            }
        };
        link.renewal = Renewal::of(config.access.password.as_ref(), password.as_ref(), clock);
        let capacity = usize::from(config.limits.window)
            .saturating_add(ANNOUNCEMENTS)
            .saturating_add(BESIDE)
            .saturating_add(MAX_REPLIES)
            .saturating_add(SUBSCRIPTIONS);
        let reports = Reports { connected: connected_in, heard };
        let opening = Opening { config, will, password: password.as_ref(), target: &target, reports, capacity };
        let version = match config.access.version {
            Version::Auto if memory.refuses_5.load(Ordering::Relaxed) => Version::V311,
            Version::Auto => Version::V5,
            given => given,
        };
        let (client, driver) = if version == Version::V311 { v4::open(opening) } else { v5::open(opening) };
        let has_token = password.is_some_and(|password| password.ends.is_some());
        let judge = Judge {
            wanted: config.access.version,
            tried: version,
            has_token,
            memory: memory.clone(),
            target,
            began: stamp,
        };
        link.client = Some(client);
        link.driver = Some(Box::pin(async move { judge.judge(driver.await) }));
        link
    }

    fn publish_as(&mut self, sent: Sent, outgoing: Outgoing<'_>) {
        let Some(client) = &self.client else { return };
        match client.publish(outgoing) {
            Ok(confirmation) => self.answers.push(Box::pin(async move { (sent, confirmation.await) })),
            Err(error) => self.abandon(format!("a publication cannot be queued: {error}")),
        }
    }

    /// Queues a row. The plan's window keeps this inside the capacity; an error ends the connection.
    pub(super) fn publish(&mut self, ticket: Ticket, message: &Message) {
        self.publish_message(Sent::Row(ticket), message);
    }

    /// Queues an event that is not known to the plan; no more than [`BESIDE`] may be without an answer.
    pub(super) fn publish_beside(&mut self, ticket: u64, message: &Message) {
        self.publish_message(Sent::Beside(ticket), message);
    }

    fn publish_message(&mut self, sent: Sent, message: &Message) {
        // A connection that will be replaced takes nothing new: the plan reads the row again for the next one.
        if self.renewal.as_ref().is_some_and(Renewal::has_begun) {
            return;
        }
        let (topic, body) = (message.topic.as_str(), message.body.clone());
        self.publish_as(sent, Outgoing { topic, body, is_retained: false, row: Some(message) });
    }

    /// Queues a retained message about the bridge; `ticket` comes back with its answer.
    pub(super) fn announce(&mut self, announcement: Announcement, ticket: u64) {
        let Announcement { topic, body } = announcement;
        self.announcements = self.announcements.saturating_add(1);
        let outgoing = Outgoing { topic: &topic, body: Bytes::from(body), is_retained: true, row: None };
        self.publish_as(Sent::Announcement(ticket), outgoing);
    }

    /// Subscribes the topic of commands.
    pub(super) fn listen(&mut self, topic: String) {
        if let Some(Err(error)) = self.client.as_ref().map(|client| client.subscribe(topic)) {
            self.abandon(format!("the subscription cannot be queued: {error}"));
        }
    }

    /// Queues the answer to a command. A broker that takes none of them is not worth the connection.
    pub(super) fn reply(&mut self, reply: Announcement) {
        let Announcement { topic, body } = reply;
        self.replies = self.replies.saturating_add(1);
        self.publish_as(
            Sent::Reply,
            Outgoing { topic: &topic, body: Bytes::from(body), is_retained: false, row: None },
        );
    }

    /// Answers to commands that the broker has not confirmed yet.
    pub(super) const fn pending_replies(&self) -> usize {
        self.replies
    }

    /// Announcements that the broker has not answered yet.
    pub(super) const fn pending_announcements(&self) -> usize {
        self.announcements
    }

    /// Waits for the next event; may be dropped at any time without losing one.
    pub(super) async fn next(&mut self) -> LinkEvent {
        loop {
            if let Some(End { cause, reason }) = self.end.clone() {
                // Answers that came with the end of the connection still count. Those that are missing now will never
                // come: what was still queued for the event loop is gone with it.
                if let Some((sent, result)) = self.answers.next().now_or_never().flatten() {
                    if let Some(event) = self.answered(sent, result) {
                        return event;
                    }
                    continue;
                }
                let kind = match cause {
                    Cause::Kind(kind) => kind,
                    Cause::Broken => EndKind::Closed,
                    Cause::Login | Cause::Version => EndKind::Lost,
                };
                return LinkEvent::Ended { kind, reason };
            }
            if self.answers.is_empty() && self.renewal.as_ref().is_some_and(Renewal::is_draining) {
                self.part();
                continue;
            }
            tokio::select! {
                biased;
                // Answers first: they free the window.
                Some((sent, result)) = self.answers.next(), if !self.answers.is_empty() => {
                    if let Some(event) = self.answered(sent, result) {
                        return event;
                    }
                }
                Some(limits) = self.connected.recv() => return LinkEvent::Connected(limits),
                // What people want comes after what the log needs.
                Some(heard) = self.incoming.recv() => return heard,
                // The password ends soon.
                due = renewal::due(&mut self.renewal) => match due {
                    Due::Drain => info!("the password of the broker ends soon; the connection is made anew"),
                    Due::Part => self.part(),
                    Due::Over => self.renewed(),
                },
                // The connection itself, which fills the two above.
                end = driven(&mut self.driver) => {
                    self.driver = None;
                    if self.renewal.as_ref().is_some_and(Renewal::is_parting) {
                        self.renewed();
                    } else {
                        self.end.get_or_insert(end);
                    }
                }
            }
        }
    }

    fn answered(&mut self, sent: Sent, result: Result<u8, Unanswered>) -> Option<LinkEvent> {
        match sent {
            Sent::Announcement(_) => self.announcements = self.announcements.saturating_sub(1),
            Sent::Reply => self.replies = self.replies.saturating_sub(1),
            Sent::Row(_) | Sent::Beside(_) => {}
        }
        match (sent, result) {
            (Sent::Row(ticket), Ok(code)) => Some(LinkEvent::Answer { ticket, code }),
            (Sent::Beside(ticket), Ok(code)) => Some(LinkEvent::Beside { ticket, code }),
            // Whoever asked may have gone; the audit trail has what was done.
            (Sent::Reply, Ok(_)) => None,
            (Sent::Announcement(ticket), Ok(code)) => {
                let result = match code {
                    0x00 | 0x10 => Ok(()),
                    refused => Err(format!("the broker refuses it (0x{refused:02x})")),
                };
                Some(LinkEvent::Announced { ticket, result })
            }
            (Sent::Announcement(ticket), Err(Unanswered::NoRetain)) => {
                let result = Err("the broker keeps no retained messages".to_owned());
                Some(LinkEvent::Announced { ticket, result })
            }
            // The connection has ended, or is useless: no row is left behind without an answer or an end.
            (_, Err(Unanswered::NoRetain)) => {
                self.abandon("a publication that is not retained was answered as if it were".to_owned());
                None
            }
            (_, Err(Unanswered::Useless(error))) => {
                self.abandon(error);
                None
            }
        }
    }

    /// Drops the connection without a farewell.
    fn abandon(&mut self, reason: String) {
        self.driver = None;
        self.end.get_or_insert(End::lost(reason));
    }

    /// Everything is answered: says farewell, so that the broker does not publish the will.
    fn part(&mut self) {
        let said = self.client.as_ref().map(|client| client.farewell());
        match (said, &mut self.renewal) {
            (Some(Ok(())), Some(renewal)) => renewal.part(DISCONNECT_TIMEOUT),
            _ => self.renewed(),
        }
    }

    fn renewed(&mut self) {
        self.driver = None;
        self.end.get_or_insert(End::new(Cause::Kind(EndKind::Again), "the password has been renewed"));
    }

    /// Says farewell, so that the broker does not publish the will; bounded in time.
    pub(super) async fn disconnect(mut self) {
        // An error means that the connection has ended already.
        if self.client.is_some_and(|client| client.farewell().is_ok())
            && let Some(driver) = self.driver.take()
        {
            let _ended_or_not = tokio::time::timeout(DISCONNECT_TIMEOUT, driver).await;
        }
    }
}

/// What the end of a connection means for the next one.
struct Judge {
    wanted: Version,
    tried: Version,
    has_token: bool,
    memory: Memory,
    target: Arc<Target>,
    began: Stamp,
}

impl Judge {
    fn judge(&self, end: End) -> End {
        if end.cause == Cause::Version || self.target.refuses_version.load(Ordering::Relaxed) {
            return self.other_version();
        }
        let parting = self.target.parting.load(Ordering::Relaxed);
        if end.cause == Cause::Broken && parting != 0 {
            return parting::end_of(parting);
        }
        if end.cause == Cause::Broken && self.target.is_silent() {
            return End::lost(format!("{}; {}", end.reason, self.target.certificate_advice()));
        }
        if end.cause == Cause::Login && self.has_token && self.target.clock_is_unset() {
            *self.memory.lock() = Some(self.began);
            let reason =
                "the token that is the password carries times, and this machine's clock is not set; waiting for it";
            return End::new(Cause::Kind(EndKind::Clock), format!("{}; {reason}", end.reason));
        }
        if end.cause == Cause::Kind(EndKind::Clock) {
            *self.memory.lock() = Some(self.began);
        }
        end
    }

    fn other_version(&self) -> End {
        match (self.wanted, self.tried) {
            (Version::Auto, Version::V5) => {
                self.memory.refuses_5.store(true, Ordering::Relaxed);
                End::new(Cause::Kind(EndKind::Again), "the broker does not speak MQTT 5; going on with MQTT 3.1.1")
            }
            (wanted, tried) => {
                // It may have been replaced by another one.
                self.memory.refuses_5.store(false, Ordering::Relaxed);
                let other = if tried == Version::V311 { "5" } else { "3.1.1" };
                let advice = if wanted == Version::Auto {
                    ""
                } else {
                    &format!(": set mqtt.version to \"{other}\" or \"auto\"")
                };
                End::lost(format!("the broker does not speak MQTT {tried}{advice}"))
            }
        }
    }
}

async fn driven(driver: &mut Option<BoxFuture<'static, End>>) -> End {
    match driver {
        Some(driver) => driver.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Wall};

    #[test]
    fn the_wait_for_the_clock_ends_when_somebody_moves_it_and_after_a_while_in_any_case() {
        let memory = Memory::default();
        let at = |mono_s: u64, wall_ms: i64| Stamp { mono: Mono::from_millis(mono_s * 1000), wall: Wall(wall_ms) };
        assert!(!memory.waits_for_clock(at(100, 5000)), "nothing has failed");
        *memory.lock() = Some(at(100, 5000));
        assert!(memory.waits_for_clock(at(101, 6000)));
        assert!(memory.waits_for_clock(at(101, 6200)), "drift");
        assert!(!memory.waits_for_clock(at(101, 1_795_219_200_000)), "it was set");
        assert!(memory.waits_for_clock(at(219, 124_000)));
        assert!(!memory.waits_for_clock(at(220, 125_000)), "two minutes are over");
    }
}
