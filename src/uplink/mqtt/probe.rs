//! One attempt to reach a broker, step by step, with one message and its answer: for `doctor`. Nothing of the log is sent.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::dial::{self, Target};
use super::{Announcement, Link, LinkEvent, Memory, Outgoing, Sent};
use crate::clock::{Clock, Wall};
use crate::server::tls;
use crate::uplink::UplinkConfig;
use crate::uplink::plan::EndKind;

/// The last part of the topic of the one message, which is empty and not retained.
const KIND: &str = "doctor";

/// What each step may take.
const STEP: Duration = Duration::from_secs(8);

/// A certificate that ends sooner is worth a word.
const SOON: Duration = Duration::from_hours(30 * 24);

/// A broker that refuses MQTT 5 is asked once more, with MQTT 3.1.1.
const ATTEMPTS: u32 = 2;

/// The one message.
const TICKET: u64 = 1;

/// A step of the way to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStep {
    /// Its name has an address.
    Name,
    /// A connection.
    Tcp,
    /// Encryption, and who it is; without TLS there is none.
    Tls,
    /// The WebSocket if there is one, and the broker's word that it takes this client.
    Connack,
    /// The broker's word that it has a message.
    Puback,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The step that failed, and why in words that hold no secret; `None`: all succeeded.
    pub failed: Option<(ProbeStep, String)>,
    /// The broker's certificate holds now and not for a month more.
    pub ends_soon: bool,
    /// From the message to its answer.
    pub round_trip: Option<Duration>,
}

/// Goes all the way once. Each step has a deadline.
pub async fn probe(config: &UplinkConfig, clock: &Clock) -> Probe {
    let mut probe = Probe { failed: None, ends_soon: false, round_trip: None };
    let done = async {
        let tcp = reach(config).await?;
        if config.broker.transport.is_encrypted() {
            probe.ends_soon = encrypt(config, tcp, clock.now().wall).await?;
        } else {
            drop(tcp);
        }
        probe.round_trip = Some(talk(config, clock).await?);
        Ok(())
    };
    if let Err(failed) = done.await {
        probe.failed = Some(failed);
    }
    probe
}

type Failed = (ProbeStep, String);

fn late() -> String {
    format!("no answer within {} s", STEP.as_secs())
}

async fn reach(config: &UplinkConfig) -> Result<TcpStream, Failed> {
    let (host, port) = (config.broker.host.trim_start_matches('[').trim_end_matches(']'), config.broker.port);
    let name = |reason: String| (ProbeStep::Name, reason);
    let found = timeout(STEP, lookup_host((host, port))).await.map_err(|_| name(late()))?;
    let addresses: Vec<_> = found.map_err(|error| name(error.to_string()))?.collect();
    if addresses.is_empty() {
        return Err(name("it has no address".to_owned()));
    }
    let connected = timeout(STEP, TcpStream::connect(addresses.as_slice())).await;
    let connected = connected.unwrap_or_else(|_| Err(io::Error::other(late())));
    connected.map_err(|error| (ProbeStep::Tcp, error.to_string()))
}

/// Whether the certificate ends soon.
async fn encrypt(config: &UplinkConfig, tcp: TcpStream, now: Wall) -> Result<bool, Failed> {
    let target = Target {
        broker: config.broker.clone(),
        access: config.access.clone(),
        now,
        // What the clock has to do with it is for who asks.
        is_unset: false,
        parting: AtomicU8::new(0),
        refuses_version: AtomicBool::new(false),
        has_spoken: AtomicBool::new(false),
    };
    let made = timeout(STEP, dial::secure(&target, tcp)).await;
    let stream = made.unwrap_or_else(|_| Err(io::Error::other(late())));
    let stream = stream.map_err(|error| (ProbeStep::Tls, error.to_string()))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let in_a_month = Wall(now.0.saturating_add(i64::try_from(SOON.as_millis()).unwrap_or(i64::MAX)));
    Ok(leaf.is_some_and(|leaf| tls::ends_by(&leaf.clone().into_owned(), in_a_month)))
}

async fn talk(config: &UplinkConfig, clock: &Clock) -> Result<Duration, Failed> {
    let (memory, topic) = (Memory::default(), config.topic.topic(&config.site, &config.bridge, KIND, None));
    let mut ended = (ProbeStep::Connack, late());
    for _ in 0..ATTEMPTS {
        // Published only if this program is killed meanwhile, and then as empty as the message.
        let will = Announcement { topic: topic.clone(), body: String::new() };
        let mut link = Link::open(config, &memory, will, false, clock);
        match timeout(STEP, link.next()).await {
            Ok(LinkEvent::Connected(_)) => return exchange(link, &topic, clock).await,
            Ok(LinkEvent::Ended { kind: EndKind::Again, reason }) => ended.1 = reason,
            Ok(LinkEvent::Ended { reason, .. }) => return Err((ProbeStep::Connack, reason)),
            Ok(other) => return Err((ProbeStep::Connack, format!("the broker begins with {other:?}"))),
            Err(_) => return Err((ProbeStep::Connack, late())),
        }
    }
    Err(ended)
}

async fn exchange(mut link: Link, topic: &str, clock: &Clock) -> Result<Duration, Failed> {
    let began = clock.now().mono;
    link.announcements = link.announcements.saturating_add(1);
    let outgoing = Outgoing { topic, body: Bytes::new(), is_retained: false, row: None };
    link.publish_as(Sent::Announcement(TICKET), outgoing);
    let failed = |reason: String| Err((ProbeStep::Puback, reason));
    let answer = timeout(STEP, link.next()).await;
    let passed = clock.now().mono.since(began);
    match answer {
        Ok(LinkEvent::Announced { result: Ok(()), .. }) => {
            link.disconnect().await;
            Ok(passed)
        }
        Ok(LinkEvent::Announced { result: Err(reason), .. }) => {
            link.disconnect().await;
            failed(reason)
        }
        Ok(LinkEvent::Ended { reason, .. }) => failed(reason),
        Ok(other) => failed(format!("the broker answers with {other:?}")),
        Err(_) => failed(late()),
    }
}
