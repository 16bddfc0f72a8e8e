//! MQTT 3.1.1 for a link: the body says everything that MQTT 5 adds beside it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rumqttc_v4::mqttbytes::QoS;
use rumqttc_v4::mqttbytes::v4::{ConnectReturnCode, LastWill, Packet, SubscribeReasonCode};
use rumqttc_v4::{
    AsyncClient, Broker, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, PublishNoticeError,
    PublishOptions, PublishResult, StateError,
};

use super::{
    Cause, Client, Confirmation, End, KEEP_ALIVE_S, LinkEvent, MAX_INCOMING_BYTES, Opening, Outgoing, Reports,
    Unanswered, dial,
};
use crate::uplink::plan::BrokerLimits;

/// What a broker of MQTT 3.1.1 may be sent: it says nothing of it, so the plan's own limits hold.
const LIMITS: BrokerLimits = BrokerLimits { receive_maximum: u16::MAX, max_packet_bytes: None };

/// PUBACK of MQTT 3.1.1 has no reason code: it is success (MQTT 5.0 3.4.2.1).
const SUCCESS: u8 = 0x00;

/// Begins to connect: the handle, and what turns the event loop.
pub(super) fn open(opening: Opening<'_>) -> (Box<dyn Client>, BoxFuture<'static, End>) {
    let (client, mut event_loop) = AsyncClient::builder(options(&opening)).capacity(opening.capacity).build();
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    // Whole seconds only; the plan looks at the clock itself.
    network.set_connection_timeout(opening.config.limits.connect_timeout.as_secs().max(1));
    event_loop.set_network_options(network);
    (Box::new(V4(client)), Box::pin(drive(event_loop, opening.reports)))
}

struct V4(AsyncClient);

impl Client for V4 {
    fn publish(&self, outgoing: Outgoing<'_>) -> Result<Confirmation, String> {
        let Outgoing { topic, body, is_retained, .. } = outgoing;
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(is_retained);
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
        Ok(PublishResult::Qos1(_)) => Ok(SUCCESS),
        Ok(other) => Err(Unanswered::Useless(format!("a QoS 1 publication was answered with {other:?}"))),
        Err(error) => Err(Unanswered::Useless(error.to_string())),
    }
}

/// Turns the event loop until the connection ends; it must not reconnect by itself.
async fn drive(mut event_loop: EventLoop, reports: Reports) -> End {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => reports.connected(LIMITS),
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let is_refused = ack.return_codes.contains(&SubscribeReasonCode::Failure);
                let words = "the broker refuses the topic (0x80): allow it to this client";
                reports.hear(LinkEvent::Listening(if is_refused { Err(words.to_owned()) } else { Ok(()) }));
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                reports.command(publish.topic.as_ref(), publish.payload, publish.retain);
            }
            Ok(_) => {}
            Err(error) => return end_of(&error),
        }
    }
}

fn options(opening: &Opening<'_>) -> MqttOptions {
    let Opening { config, will, password, target, .. } = opening;
    let mut options =
        MqttOptions::new(config.client_id.as_str(), Broker::tcp(config.broker.host.as_str(), config.broker.port));
    let bytes = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let most = bytes(config.limits.max_packet_bytes.max(MAX_INCOMING_BYTES));
    let target = Arc::clone(target);
    options
        .set_clean_session(true)
        .set_keep_alive(KEEP_ALIVE_S)
        .set_inflight(config.limits.window.max(1))
        .set_max_packet_size(bytes(MAX_INCOMING_BYTES), most)
        .set_last_will(LastWill::new(will.topic.as_str(), will.body.as_str(), QoS::AtLeastOnce, true))
        .set_socket_connector(move |address, network| dial::connect(Arc::clone(&target), address, network));
    match (&config.username, password) {
        // MQTT 3.1.1, 3.1.2.9: no password without a user name, which may be empty.
        (username, Some(credential)) => {
            let password = Bytes::copy_from_slice(credential.secret.expose().as_bytes());
            options.set_credentials(username.as_deref().unwrap_or_default(), password)
        }
        (Some(username), None) => options.set_username(username.as_str()),
        (None, None) => &mut options,
    };
    options
}

fn end_of(error: &ConnectionError) -> End {
    let reason = match error {
        ConnectionError::ConnectionRefused(code) => return refused(*code),
        ConnectionError::NetworkTimeout => "the broker does not answer the connection request".to_owned(),
        ConnectionError::FlushTimeout => "the broker takes no more bytes".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker answers no ping".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => return End::closed(),
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(rumqttc_v4::Error::Io(error)),
        ) => {
            return End::broken(error);
        }
        ConnectionError::Io(error) => return End::unreachable(error),
        other => other.to_string(),
    };
    End::lost(reason)
}

fn refused(code: ConnectReturnCode) -> End {
    use ConnectReturnCode as Code;
    let reason = format!("the broker refuses the connection: {code:?}");
    match code {
        Code::NotAuthorized | Code::BadUserNamePassword => {
            End::new(Cause::Login, format!("{reason}; check mqtt.username, the password or token, and mqtt.client_id"))
        }
        Code::BadClientId => End::lost(format!("{reason}; set mqtt.client_id to what the broker expects")),
        Code::RefusedProtocolVersion => End::new(Cause::Version, reason),
        _ => End::lost(reason),
    }
}
