//! A scripted broker of MQTT 5, for what a real one cannot produce on demand: it answers each publication as it is told.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::frames;
use crate::tally::Identity;

/// How a connection is received.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Welcome {
    /// No CONNACK at all.
    pub(crate) silent: bool,
    /// CONNACK, and not a word after it, not even to pings.
    pub(crate) then_silent: bool,
    /// Receive Maximum.
    pub(crate) receive_maximum: Option<u16>,
    /// Maximum Packet Size.
    pub(crate) max_packet_bytes: Option<u32>,
    /// Topic Alias Maximum.
    pub(crate) topic_aliases: Option<u16>,
    /// A larger publication of anything but rows ends the connection with 0x95.
    pub(crate) largest_kept: Option<usize>,
    /// The connection is reset once so many bytes have come.
    pub(crate) reset_after: Option<usize>,
}

/// What happens to a publication of rows.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// PUBACK with this reason code.
    Code(u8),
    /// The same after a while.
    Late(Duration, u8),
    /// Nothing, though pings are answered.
    Never,
    /// These bytes, then the end of the connection.
    Part(Vec<u8>),
}

/// A publication of rows.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// Of the connections, from 1.
    pub(crate) connection: usize,
    /// The whole packet.
    pub(crate) bytes: usize,
    /// What is in it.
    pub(crate) events: Vec<Identity>,
    /// How often the first of them has been published, this one counted.
    pub(crate) times: u64,
}

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) connections: usize,
    /// Publications of rows, each event by itself.
    pub(crate) published: BTreeMap<Identity, u64>,
    /// Those confirmed with success: what this broker has taken on.
    pub(crate) confirmed: BTreeMap<Identity, u64>,
    /// Publications of any kind with an alias and without a topic.
    pub(crate) aliased: usize,
    /// The largest alias.
    pub(crate) largest_alias: u16,
    /// The topics of publications of rows.
    pub(crate) topics: BTreeMap<String, usize>,
    /// The largest publication of any kind.
    pub(crate) largest: usize,
    /// Most publications of any kind without an answer.
    pub(crate) most_in_flight: usize,
}

type Script = dyn FnMut(&Publication) -> Answer + Send;

pub(crate) struct StubBroker {
    pub(crate) port: u16,
    came: Arc<Mutex<Came>>,
    _tasks: JoinSet<()>,
}

impl StubBroker {
    /// `welcome` is asked for each connection by its number, `script` for each publication of rows.
    pub(crate) async fn start(
        welcome: impl Fn(usize) -> Welcome + Send + 'static,
        script: impl FnMut(&Publication) -> Answer + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::new(Mutex::new(Came::default()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&came);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let number = {
                    let mut came = shared.lock().unwrap();
                    came.connections += 1;
                    came.connections
                };
                let talk = Talk::new(number, welcome(number), Arc::clone(&shared), Arc::clone(&script));
                connections.spawn(talk.run(socket));
            }
        });
        Self { port, came, _tasks: tasks }
    }

    pub(crate) fn look<T>(&self, at: impl FnOnce(&Came) -> T) -> T {
        at(&self.came.lock().unwrap())
    }
}

/// One connection.
struct Talk {
    number: usize,
    welcome: Welcome,
    came: Arc<Mutex<Came>>,
    script: Arc<Mutex<Script>>,
    in_flight: Arc<Mutex<usize>>,
    aliases: BTreeMap<u16, String>,
    late: JoinSet<()>,
}

impl Talk {
    fn new(number: usize, welcome: Welcome, came: Arc<Mutex<Came>>, script: Arc<Mutex<Script>>) -> Self {
        let (in_flight, aliases, late) = (Arc::default(), BTreeMap::new(), JoinSet::new());
        Self { number, welcome, came, script, in_flight, aliases, late }
    }

    async fn run(mut self, socket: TcpStream) {
        let (mut from, to) = socket.into_split();
        let to = Arc::new(AsyncMutex::new(to));
        let (mut buffer, mut total) = (Vec::new(), 0);
        loop {
            let mut bytes = [0; 4096];
            let most =
                self.welcome.reset_after.map_or(bytes.len(), |limit| limit.saturating_sub(total).min(bytes.len()));
            if most == 0 {
                return reset(from, to);
            }
            // The client may go at any time, with or without a word.
            let Ok(length @ 1..) = from.read(&mut bytes[..most]).await else { return };
            total += length;
            buffer.extend_from_slice(&bytes[..length]);
            while let Some(packet) = take_packet(&mut buffer) {
                if !self.on_packet(&packet, &to).await {
                    return;
                }
            }
        }
    }

    /// False: the connection ends.
    async fn on_packet(&mut self, packet: &Packet, to: &Arc<AsyncMutex<OwnedWriteHalf>>) -> bool {
        let say = async |bytes: &[u8]| to.lock().await.write_all(bytes).await.is_ok();
        match packet.first >> 4 {
            1 if self.welcome.silent => true,
            1 => say(&self.connack()).await,
            3 => self.on_publish(packet, to).await,
            _ if self.welcome.then_silent => true,
            8 => say(&[0x90, 4, packet.body[0], packet.body[1], 0, 1]).await,
            12 => say(&[0xD0, 0]).await,
            14 => false,
            _ => true,
        }
    }

    fn connack(&self) -> Vec<u8> {
        let mut properties = Vec::new();
        if let Some(maximum) = self.welcome.receive_maximum {
            properties.push(0x21);
            properties.extend(maximum.to_be_bytes());
        }
        if let Some(maximum) = self.welcome.max_packet_bytes {
            properties.push(0x27);
            properties.extend(maximum.to_be_bytes());
        }
        if let Some(maximum) = self.welcome.topic_aliases {
            properties.push(0x22);
            properties.extend(maximum.to_be_bytes());
        }
        let length = u8::try_from(properties.len()).unwrap();
        [vec![0x20, 3 + length, 0, 0, length], properties].concat()
    }

    async fn on_publish(&mut self, packet: &Packet, to: &Arc<AsyncMutex<OwnedWriteHalf>>) -> bool {
        let topic_end = 2 + usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
        let (high, low) = (packet.body[topic_end], packet.body[topic_end + 1]);
        let (properties, length_bytes) = varint(&packet.body[topic_end + 2..]).unwrap();
        let properties = &packet.body[topic_end + 2 + length_bytes..][..properties];
        let text = &packet.body[topic_end + 2 + length_bytes + properties.len()..];
        let topic = String::from_utf8(packet.body[2..topic_end].to_vec()).unwrap();
        let topic = self.resolved(topic, alias_in(properties));
        let publication = self.note(&topic, text, packet.bytes);
        if self.welcome.then_silent {
            return true;
        }
        let answer = match &publication {
            Some(publication) => (self.script.lock().unwrap())(publication),
            None if self.welcome.largest_kept.is_some_and(|most| packet.bytes > most) => {
                Answer::Part(vec![0xE0, 2, 0x95, 0])
            }
            None => Answer::Code(0),
        };
        let events = publication.map_or_else(Vec::new, |publication| publication.events);
        let (wait, code) = match answer {
            Answer::Code(code) => (Duration::ZERO, code),
            Answer::Late(wait, code) => (wait, code),
            Answer::Never => return true,
            Answer::Part(words) => {
                // The client may be gone already.
                let _ = to.lock().await.write_all(&words).await;
                return false;
            }
        };
        let (came, in_flight, to) = (Arc::clone(&self.came), Arc::clone(&self.in_flight), Arc::clone(to));
        let answering = async move {
            sleep(wait).await;
            *in_flight.lock().unwrap() -= 1;
            if matches!(code, 0x00 | 0x10) {
                let mut came = came.lock().unwrap();
                for event in events {
                    *came.confirmed.entry(event).or_default() += 1;
                }
            }
            let _ = to.lock().await.write_all(&[0x40, 4, high, low, code, 0]).await;
        };
        if wait.is_zero() {
            answering.await;
        } else {
            self.late.spawn(answering);
        }
        true
    }

    /// The topic of a publication (MQTT 5.0 3.3.2.3.4).
    fn resolved(&mut self, topic: String, alias: Option<u16>) -> String {
        let Some(alias) = alias else { return topic };
        let mut came = self.came.lock().unwrap();
        came.largest_alias = came.largest_alias.max(alias);
        if topic.is_empty() {
            came.aliased += 1;
            return self.aliases[&alias].clone();
        }
        self.aliases.insert(alias, topic.clone());
        topic
    }

    /// Counts a publication; `None` if it is none of rows.
    fn note(&self, topic: &str, text: &[u8], bytes: usize) -> Option<Publication> {
        frames::check_at_broker(topic, std::str::from_utf8(text).unwrap());
        let mut came = self.came.lock().unwrap();
        came.largest = came.largest.max(bytes);
        let mut in_flight = self.in_flight.lock().unwrap();
        *in_flight += 1;
        came.most_in_flight = came.most_in_flight.max(*in_flight);
        let body: Json = serde_json::from_slice(text).ok()?;
        if topic.contains("alert_present") {
            return None;
        }
        let one = [body.clone()];
        let rows = if body["type"] == "batch" { body["data"].as_array().unwrap().as_slice() } else { &one };
        let identity = |row: &Json| Some((row["epoch"].as_str()?.to_owned(), row["seq"].as_u64()?));
        let events: Vec<Identity> = rows.iter().filter_map(identity).collect();
        let first = events.first()?.clone();
        for event in &events {
            *came.published.entry(event.clone()).or_default() += 1;
        }
        *came.topics.entry(topic.to_owned()).or_default() += 1;
        let times = came.published[&first];
        Some(Publication { connection: self.number, bytes, events, times })
    }
}

/// The Topic Alias among the properties of a PUBLISH (MQTT 5.0 2.2.2.2 has their types).
fn alias_in(mut properties: &[u8]) -> Option<u16> {
    while let Some((kind, rest)) = properties.split_first() {
        let text = |from: usize| 2 + usize::from(u16::from_be_bytes([rest[from], rest[from + 1]]));
        let length = match kind {
            0x01 => 1,
            0x02 => 4,
            0x03 | 0x08 | 0x09 => text(0),
            0x23 => return Some(u16::from_be_bytes([rest[0], rest[1]])),
            0x26 => text(0) + text(text(0)),
            other => panic!("property {other:#x}"),
        };
        properties = &rest[length..];
    }
    None
}

/// Ends a connection with RST: what was not read yet by the client is gone.
fn reset(from: OwnedReadHalf, to: Arc<AsyncMutex<OwnedWriteHalf>>) {
    let Some(to) = Arc::into_inner(to) else { return };
    let socket = from.reunite(to.into_inner()).unwrap();
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

struct Packet {
    first: u8,
    body: Vec<u8>,
    bytes: usize,
}

/// A whole packet from the begin of the buffer.
fn take_packet(buffer: &mut Vec<u8>) -> Option<Packet> {
    let first = *buffer.first()?;
    let (length, length_bytes) = varint(&buffer[1..])?;
    let bytes = 1 + length_bytes + length;
    if buffer.len() < bytes {
        return None;
    }
    let packet: Vec<u8> = buffer.drain(..bytes).collect();
    Some(Packet { first, body: packet[1 + length_bytes..].to_vec(), bytes })
}

/// A variable byte integer (MQTT 5.0 1.5.5) and its length.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}
