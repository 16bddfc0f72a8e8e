//! One connection to a broker by MQTT 5: the only file that knows the MQTT crate.
//!
//! A [`Link`] lives from CONNECT to the end of that connection and is never resumed: clean start, no session, no stored
//! publications. What the broker did not confirm is known to [`super::plan::Plan`], which reads it again from the log.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{
    ConnAck, DisconnectReasonCode, LastWill, LastWillProperties, Packet, PubAckReason, Publish, PublishProperties,
    SubscribeReasonCode,
};
use rumqttc::{
    AsyncClient, Broker, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, PublishNoticeError,
    PublishOptions, PublishResult, StateError,
};
use tokio::sync::mpsc;
use tracing::warn;

use super::downlink::{Incoming, MAX_COMMANDS};
use super::plan::{BrokerLimits, EndKind, Message, Ticket};
use super::retained::AT_ONCE;
use super::{BrokerAddress, UplinkConfig};
use crate::wire;

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

/// Longest text of a broker that is kept for people, in characters.
const MAX_REASON_CHARS: usize = 200;

const CONTENT_TYPE: &str = "application/json";

/// Payload Format Indicator 1: UTF-8 (MQTT 5.0 3.3.2.3.2).
const UTF_8: u8 = 1;

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
    /// PUBACK with its reason code.
    Answer {
        /// Of the publication.
        ticket: Ticket,
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
    Announcement(u64),
    Reply,
}

#[derive(Debug, Clone)]
struct End {
    kind: EndKind,
    reason: String,
}

impl End {
    fn lost(reason: impl Into<String>) -> Self {
        Self { kind: EndKind::Lost, reason: reason.into() }
    }
}

type Answer = (Sent, Result<PublishResult, PublishNoticeError>);

/// One connection, or the attempt to make one.
pub(super) struct Link {
    client: AsyncClient,
    /// Turns the crate's event loop. It is kept, never cut off in the middle of a write; dropping it drops the socket.
    driver: Option<BoxFuture<'static, End>>,
    connected: mpsc::Receiver<BrokerLimits>,
    /// Commands, and the answer to the subscription of them.
    incoming: mpsc::Receiver<LinkEvent>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    announcements: usize,
    end: Option<End>,
}

impl Link {
    /// Begins to connect. `will` is what the broker publishes, retained, if the connection ends without a farewell.
    pub(super) fn open(config: &UplinkConfig, will: Announcement) -> Self {
        let window = config.limits.window;
        let capacity = usize::from(window)
            .saturating_add(ANNOUNCEMENTS)
            .saturating_add(MAX_COMMANDS)
            .saturating_add(SUBSCRIPTIONS);
        let (client, event_loop) = AsyncClient::builder(options(config, will)).capacity(capacity).build();
        let (report, connected) = mpsc::channel(1);
        let (heard, incoming) = mpsc::channel(MAX_COMMANDS);
        Self {
            client,
            driver: Some(Box::pin(drive(event_loop, report, heard))),
            connected,
            incoming,
            answers: FuturesUnordered::new(),
            announcements: 0,
            end: None,
        }
    }

    /// Queues a row. The plan's window keeps this inside the capacity; an error ends the connection.
    pub(super) fn publish(&mut self, ticket: Ticket, message: &Message) {
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties(message));
        match self.client.try_publish_tracked(message.topic.as_str(), message.body.clone(), options) {
            Ok(notice) => self.answers.push(Box::pin(async move { (Sent::Row(ticket), notice.wait_async().await) })),
            Err(error) => self.abandon(format!("publication not queued: {error}")),
        }
    }

    /// Queues a retained message about the bridge; `ticket` comes back with its answer.
    pub(super) fn announce(&mut self, announcement: Announcement, ticket: u64) {
        let properties = PublishProperties {
            payload_format_indicator: Some(UTF_8),
            content_type: Some(CONTENT_TYPE.to_owned()),
            ..PublishProperties::default()
        };
        let options = PublishOptions::new(QoS::AtLeastOnce).retained().properties(properties);
        match self.client.try_publish_tracked(announcement.topic, announcement.body, options) {
            Ok(notice) => {
                self.announcements = self.announcements.saturating_add(1);
                self.answers.push(Box::pin(async move { (Sent::Announcement(ticket), notice.wait_async().await) }));
            }
            Err(error) => self.abandon(format!("announcement not queued: {error}")),
        }
    }

    /// Subscribes the topic of commands.
    pub(super) fn listen(&mut self, topic: String) {
        if let Err(error) = self.client.try_subscribe(topic, QoS::AtLeastOnce) {
            self.abandon(format!("subscription not queued: {error}"));
        }
    }

    /// Queues the answer to a command. A broker that takes none of them is not worth the connection.
    pub(super) fn reply(&mut self, reply: Announcement) {
        let properties = PublishProperties {
            payload_format_indicator: Some(UTF_8),
            content_type: Some(CONTENT_TYPE.to_owned()),
            ..PublishProperties::default()
        };
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        match self.client.try_publish_tracked(reply.topic, reply.body, options) {
            Ok(notice) => self.answers.push(Box::pin(async move { (Sent::Reply, notice.wait_async().await) })),
            Err(error) => self.abandon(format!("answer to a command not queued: {error}")),
        }
    }

    /// Announcements that the broker has not answered yet.
    pub(super) const fn pending_announcements(&self) -> usize {
        self.announcements
    }

    /// Waits for the next event; may be dropped at any time without losing one.
    pub(super) async fn next(&mut self) -> LinkEvent {
        loop {
            if let Some(End { kind, reason }) = self.end.clone() {
                // Answers that came with the end of the connection still count. Those that are missing now will never
                // come: what was still queued for the event loop is gone with it.
                if let Some((sent, result)) = self.answers.next().now_or_never().flatten() {
                    if let Some(event) = self.answered(sent, result) {
                        return event;
                    }
                    continue;
                }
                return LinkEvent::Ended { kind, reason };
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
                // The connection itself, which fills the two above.
                end = driven(&mut self.driver) => {
                    self.driver = None;
                    self.end.get_or_insert(end);
                }
            }
        }
    }

    fn answered(&mut self, sent: Sent, result: Result<PublishResult, PublishNoticeError>) -> Option<LinkEvent> {
        if matches!(sent, Sent::Announcement(_)) {
            self.announcements = self.announcements.saturating_sub(1);
        }
        match (sent, result) {
            (Sent::Row(ticket), Ok(PublishResult::Qos1(ack))) => {
                Some(LinkEvent::Answer { ticket, code: puback_code(ack.reason) })
            }
            // Whoever asked may have gone; the audit trail has what was done.
            (Sent::Reply, Ok(PublishResult::Qos1(_))) => None,
            (Sent::Announcement(ticket), Ok(PublishResult::Qos1(ack))) => {
                let result = match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                    refused => Err(format!("the broker refuses it: {refused:?}")),
                };
                Some(LinkEvent::Announced { ticket, result })
            }
            (Sent::Announcement(ticket), Err(PublishNoticeError::RetainNotSupported)) => {
                let result = Err("the broker keeps no retained messages".to_owned());
                Some(LinkEvent::Announced { ticket, result })
            }
            (_, Ok(other)) => {
                self.abandon(format!("a QoS 1 publication was answered with {other:?}"));
                None
            }
            // The connection has ended, or is useless: no row is left behind without an answer or an end.
            (_, Err(error)) => {
                self.abandon(error.to_string());
                None
            }
        }
    }

    /// Drops the connection without a farewell.
    fn abandon(&mut self, reason: String) {
        self.driver = None;
        self.end.get_or_insert(End::lost(reason));
    }

    /// Says farewell, so that the broker does not publish the will; bounded in time.
    pub(super) async fn disconnect(mut self) {
        // An error means that the connection has ended already.
        if self.client.try_disconnect_now().is_ok()
            && let Some(driver) = self.driver.take()
        {
            let _ended_or_not = tokio::time::timeout(DISCONNECT_TIMEOUT, driver).await;
        }
    }
}

async fn driven(driver: &mut Option<BoxFuture<'static, End>>) -> End {
    match driver {
        Some(driver) => driver.await,
        None => std::future::pending().await,
    }
}

/// Turns the event loop until the connection ends; it must not reconnect by itself.
async fn drive(mut event_loop: EventLoop, report: mpsc::Sender<BrokerLimits>, heard: mpsc::Sender<LinkEvent>) -> End {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => match broker_limits(&ack) {
                // The channel has room for the one CONNACK of this connection.
                Ok(limits) => drop(report.try_send(limits)),
                Err(end) => return end,
            },
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let refused = ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                let listening = refused.map_or(Ok(()), |code| Err(format!("the broker refuses the topic: {code:?}")));
                hear(&heard, LinkEvent::Listening(listening));
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let (payload, is_retained) = (publish.payload, publish.retain);
                hear(&heard, LinkEvent::Command(Incoming { topic, payload, is_retained }));
            }
            Ok(_) => {}
            Err(error) => return end_of(&error),
        }
    }
}

/// Hands on what the broker says; a flood of commands is dropped here, before it costs anything.
fn hear(heard: &mpsc::Sender<LinkEvent>, event: LinkEvent) {
    if heard.try_send(event).is_err() {
        warn!("commands come faster from the broker than they can be taken; one is dropped without an answer");
    }
}

fn broker_limits(ack: &ConnAck) -> Result<BrokerLimits, End> {
    let properties = ack.properties.as_ref();
    if properties.is_some_and(|properties| properties.max_qos == Some(0)) {
        return Err(End::lost("the broker allows no QoS 1"));
    }
    Ok(BrokerLimits {
        // MQTT 5.0 3.2.2.3.3: absent means 65,535.
        receive_maximum: properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX),
        max_packet_bytes: properties.and_then(|properties| properties.max_packet_size),
    })
}

fn options(config: &UplinkConfig, will: Announcement) -> MqttOptions {
    let BrokerAddress { host, port } = &config.broker;
    let mut options = MqttOptions::new(config.client_id.as_str(), Broker::tcp(host.as_str(), *port));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let will_properties = LastWillProperties {
        delay_interval: None,
        payload_format_indicator: Some(UTF_8),
        message_expiry_interval: None,
        content_type: Some(CONTENT_TYPE.to_owned()),
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    options
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE_S)
        .set_connect_timeout(config.limits.connect_timeout)
        .set_outgoing_inflight_upper_limit(config.limits.window.max(1))
        .set_max_packet_size(Some(MAX_INCOMING_BYTES))
        .set_network_options(network)
        .set_last_will(LastWill::new(will.topic, will.body, QoS::AtLeastOnce, true, Some(will_properties)));
    match (&config.username, &config.password) {
        (Some(username), Some(password)) => {
            options.set_credentials(username.as_str(), Bytes::copy_from_slice(password.expose().as_bytes()));
        }
        (Some(username), None) => {
            options.set_username(username.as_str());
        }
        (None, Some(password)) => {
            options.set_password(Bytes::copy_from_slice(password.expose().as_bytes()));
        }
        (None, None) => {}
    }
    options
}

/// What a consumer can see without reading the body.
fn properties(message: &Message) -> PublishProperties {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    PublishProperties {
        payload_format_indicator: Some(UTF_8),
        content_type: Some(CONTENT_TYPE.to_owned()),
        user_properties: vec![
            pair("id", &message.id),
            pair("source", &message.bridge),
            pair("type", message.kind),
            pair("seq", &message.seq.to_string()),
            pair("historical", if message.is_historical { "true" } else { "false" }),
            pair("schema", wire::SCHEMA),
        ],
        ..PublishProperties::default()
    }
}

/// The size of the PUBLISH packet that carries this message, in bytes.
pub(super) fn packet_bytes(message: &Message) -> usize {
    let (topic, body) = (message.topic.as_str(), message.body.clone());
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, body, Some(properties(message)));
    publish.pkid = 1;
    publish.size()
}

/// MQTT 5.0 3.4.2.1.
const fn puback_code(reason: PubAckReason) -> u8 {
    match reason {
        PubAckReason::Success => 0x00,
        PubAckReason::NoMatchingSubscribers => 0x10,
        PubAckReason::UnspecifiedError => 0x80,
        PubAckReason::ImplementationSpecificError => 0x83,
        PubAckReason::NotAuthorized => 0x87,
        PubAckReason::TopicNameInvalid => 0x90,
        PubAckReason::PacketIdentifierInUse => 0x91,
        PubAckReason::QuotaExceeded => 0x97,
        PubAckReason::PayloadFormatInvalid => 0x99,
    }
}

fn end_of(error: &ConnectionError) -> End {
    let reason = match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            return server_disconnect(*reason_code, reason_string.as_deref());
        }
        // Mosquitto answers a message over its `message_size_limit` with PUBACK 0x95, which MQTT 5.0 3.4.2.1 does not
        // list; the crate cannot read that packet and ends the connection.
        ConnectionError::MqttState(StateError::Deserialization(rumqttc::Error::InvalidConnectReturnCode(code))) => {
            let reason = format!("the broker answers a publication with 0x{code:02x}, which MQTT does not know");
            return End { kind: EndKind::RowRefused, reason };
        }
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses the connection: {code:?}"),
        ConnectionError::Timeout(_) => "the broker does not answer the connection request".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker answers no ping".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker has closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error))) => {
            format!("the connection is lost: {error}")
        }
        ConnectionError::Io(error) => format!("the broker cannot be reached: {error}"),
        other => other.to_string(),
    };
    End::lost(reason.chars().take(MAX_REASON_CHARS).collect::<String>())
}

/// A DISCONNECT that ends after its reason code, as MQTT 5.0 3.14.2.2.1 allows, is not understood by the crate: such a
/// broker is only seen to close the connection.
fn server_disconnect(code: DisconnectReasonCode, text: Option<&str>) -> End {
    let text = text.map(|text| format!(" ({text})")).unwrap_or_default();
    let reason = format!("the broker has ended the connection: {code:?}{text}");
    let kind = match code {
        DisconnectReasonCode::SessionTakenOver => EndKind::TakenOver,
        DisconnectReasonCode::PacketTooLarge => EndKind::RowRefused,
        _ => EndKind::Lost,
    };
    End { kind, reason: reason.chars().take(MAX_REASON_CHARS).collect() }
}
