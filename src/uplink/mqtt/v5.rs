//! MQTT 5 for a link.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, DisconnectReasonCode, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties, SubscribeReasonCode,
};
use rumqttc::{
    AsyncClient, Broker, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, PublishNoticeError,
    PublishOptions, PublishResult, StateError, TopicAliasPolicy,
};

use super::{
    Cause, Client, Confirmation, End, KEEP_ALIVE_S, LinkEvent, MAX_INCOMING_BYTES, Opening, Outgoing, Reports,
    Unanswered, dial,
};
use crate::uplink::plan::{BrokerLimits, EndKind, Message};
use crate::wire;

const CONTENT_TYPE: &str = "application/json";

/// Payload Format Indicator 1: UTF-8 (MQTT 5.0 3.3.2.3.2).
const UTF_8: u8 = 1;

/// The property that gives a topic its alias (MQTT 5.0 3.3.2.3.4), and what it may add to the two lengths before it.
const TOPIC_ALIAS_BYTES: usize = 5;

/// Begins to connect: the handle, and what turns the event loop.
pub(super) fn open(opening: Opening<'_>) -> (Box<dyn Client>, BoxFuture<'static, End>) {
    let (client, event_loop) = AsyncClient::builder(options(&opening)).capacity(opening.capacity).build();
    (Box::new(V5(client)), Box::pin(drive(event_loop, opening.reports)))
}

struct V5(AsyncClient);

impl Client for V5 {
    fn publish(&self, outgoing: Outgoing<'_>) -> Result<Confirmation, String> {
        let Outgoing { topic, body, is_retained, row } = outgoing;
        let properties = row.map_or_else(plain_properties, properties);
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(is_retained).properties(properties);
        let notice = self.0.try_publish_tracked(topic, body, options).map_err(|error| error.to_string())?;
        Ok(notice.wait_async().map(answer).boxed())
    }

    fn subscribe(&self, topic: String) -> Result<(), String> {
        self.0.try_subscribe(topic, QoS::AtLeastOnce).map_err(|error| error.to_string())
    }

    fn farewell(&self) -> Result<(), String> {
        self.0.try_disconnect_now().map_err(|error| error.to_string())
    }
}

fn answer(result: Result<PublishResult, PublishNoticeError>) -> Result<u8, Unanswered> {
    match result {
        Ok(PublishResult::Qos1(ack)) => Ok(puback_code(ack.reason)),
        Ok(other) => Err(Unanswered::Useless(format!("a QoS 1 publication was answered with {other:?}"))),
        Err(PublishNoticeError::RetainNotSupported) => Err(Unanswered::NoRetain),
        Err(error) => Err(Unanswered::Useless(error.to_string())),
    }
}

/// Turns the event loop until the connection ends; it must not reconnect by itself.
async fn drive(mut event_loop: EventLoop, reports: Reports) -> End {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => match broker_limits(&ack) {
                Ok(limits) => reports.connected(limits),
                Err(end) => return end,
            },
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let refused = ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                let listening = refused.map_or(Ok(()), |code| Err(format!("the broker refuses the topic: {code:?}")));
                reports.hear(LinkEvent::Listening(listening));
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                reports.command(publish.topic.as_ref(), publish.payload, publish.retain);
            }
            Ok(_) => {}
            Err(error) => return end_of(&error),
        }
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

fn options(opening: &Opening<'_>) -> MqttOptions {
    let Opening { config, will, password, target, .. } = opening;
    let mut options =
        MqttOptions::new(config.client_id.as_str(), Broker::tcp(config.broker.host.as_str(), config.broker.port));
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
    let will = LastWill::new(will.topic.as_str(), will.body.clone(), QoS::AtLeastOnce, true, Some(will_properties));
    let target = Arc::clone(target);
    options
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE_S)
        .set_connect_timeout(config.limits.connect_timeout)
        .set_outgoing_inflight_upper_limit(config.limits.window.max(1))
        // The topics used last: what the bridge says of itself at first is not said again.
        .set_topic_alias_policy(TopicAliasPolicy::Lru)
        .set_max_packet_size(Some(MAX_INCOMING_BYTES))
        .set_network_options(network)
        .set_last_will(will)
        .set_socket_connector(move |address, network| dial::connect(Arc::clone(&target), address, network));
    let password = password.map(|credential| Bytes::copy_from_slice(credential.secret.expose().as_bytes()));
    match (&config.username, password) {
        (Some(username), Some(password)) => options.set_credentials(username.as_str(), password),
        (Some(username), None) => options.set_username(username.as_str()),
        (None, Some(password)) => options.set_password(password),
        (None, None) => &mut options,
    };
    options
}

/// What each message has.
fn plain_properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(UTF_8),
        content_type: Some(CONTENT_TYPE.to_owned()),
        ..PublishProperties::default()
    }
}

/// What a consumer can see without reading the body.
fn properties(message: &Message) -> PublishProperties {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    PublishProperties {
        user_properties: vec![
            pair("id", &message.id),
            pair("source", &message.bridge),
            pair("type", message.kind),
            pair("seq", &message.seq.to_string()),
            pair("historical", if message.is_historical { "true" } else { "false" }),
            pair("schema", wire::SCHEMA),
        ],
        ..plain_properties()
    }
}

/// The size of the PUBLISH packet that carries this message, in bytes, with the alias that its topic may get; in MQTT 3.1.1
/// it is smaller.
pub(in crate::uplink) fn packet_bytes(message: &Message) -> usize {
    let (topic, body) = (message.topic.as_str(), message.body.clone());
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, body, Some(properties(message)));
    publish.pkid = 1;
    publish.size().saturating_add(TOPIC_ALIAS_BYTES)
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
            return End::new(Cause::Kind(EndKind::RowRefused), reason);
        }
        ConnectionError::ConnectionRefused(code) => return refused(*code),
        ConnectionError::Timeout(_) => "the broker does not answer the connection request".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker answers no ping".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => return End::closed(),
        ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(rumqttc::Error::Io(error))) => {
            return End::broken(error);
        }
        ConnectionError::Io(error) => return End::unreachable(error),
        // Perhaps a DISCONNECT that the crate cannot read.
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            return End::new(Cause::Broken, format!("the broker sends what is no MQTT: {error}"));
        }
        other => other.to_string(),
    };
    End::lost(reason)
}

fn refused(code: ConnectReturnCode) -> End {
    use ConnectReturnCode as Code;
    let reason = format!("the broker refuses the connection: {code:?}");
    match code {
        Code::NotAuthorized | Code::BadUserNamePassword | Code::BadAuthenticationMethod => {
            End::new(Cause::Login, format!("{reason}; check mqtt.username, the password or token, and mqtt.client_id"))
        }
        Code::ClientIdentifierNotValid => End::lost(format!("{reason}; set mqtt.client_id to what the broker expects")),
        Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => End::new(Cause::Version, reason),
        _ => End::lost(reason),
    }
}

/// A DISCONNECT that ends after its reason code is not understood by the crate; [`super::parting`] finds it.
fn server_disconnect(code: DisconnectReasonCode, text: Option<&str>) -> End {
    let text = text.map(|text| format!(" ({text})")).unwrap_or_default();
    let kind = match code {
        DisconnectReasonCode::SessionTakenOver => EndKind::TakenOver,
        DisconnectReasonCode::PacketTooLarge
        | DisconnectReasonCode::NotAuthorized
        | DisconnectReasonCode::TopicNameInvalid
        | DisconnectReasonCode::PayloadFormatInvalid => EndKind::RowRefused,
        _ => EndKind::Lost,
    };
    End::new(Cause::Kind(kind), format!("the broker has ended the connection: {code:?}{text}"))
}
