//! `/sse`: the WebSocket's frames as server-sent events, for those whom no WebSocket reaches.
//!
//! It is the same session on the same engine: the far end of a stream in memory speaks WebSocket with it, subscribes
//! once, answers its pings and hands each frame on as fast as the HTTP connection takes it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::admission::RETRY_AFTER_S;
use super::codes::{hex, random_bytes};
use super::rest::query::{BadQuery, Given};
use super::routes::{Site, bearer, failure, internal, signed_in};
use super::tokens::{self, Comer};
use super::{manage, peer, socket};
use crate::channel::Pattern;
use crate::ids::{Epoch, Seq};
use crate::server::auth::Rights;
use crate::server::form::Form;
use crate::server::session::Manner;
use crate::tasks::Role as TaskRole;
use crate::waveform::WAVEFORM;

/// What a request without channels means.
const DEFAULTS: &[&str] = &["patient/+/+", "alerts/+", "notifications/+", "system"];

/// Nobody can say anything over a stream of events: its life is bounded by its token, by a heartbeat in 5 s that has to be
/// taken (the deadlines of the HTTP connection's writes and of TCP), and by the pings that this side answers only while
/// the client takes what is sent.
const MANNER: Manner = Manner { defaults: DEFAULTS, form: Form::Json, is_mute: true };

/// Bytes on their way to a client that does not read; what is behind them waits in the session's lanes, where newer
/// readings replace older ones.
const IN_FLIGHT: usize = 8 * 1024;

/// The subscribe is answered within this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A client that lost the connection comes back after this time.
const RETRY_MS: u64 = 3000;

/// What a stream of events has in its head; a proxy that buffered it would make it late.
const EVENT_STREAM: [(&str, &str); 2] = [("content-type", "text/event-stream"), ("x-accel-buffering", "no")];

/// `GET /sse`.
pub(super) fn router(site: Site) -> Router {
    Router::new().route("/sse", get(listen).head(glance)).with_state(site)
}

/// `HEAD /sse`: whether a token and these parameters would be taken. It opens no stream and uses no ticket up.
async fn glance(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    match signed_in(&site, &headers).and_then(|_| subscribe(&headers, &uri).map_err(Box::<Response>::from)) {
        Ok(_) => EVENT_STREAM.into_response(),
        Err(refused) => *refused,
    }
}

/// Who asks: by `Authorization`, a ticket or, where the configuration allows it, a token in the address.
fn who(site: &Site, headers: &HeaderMap, uri: &Uri) -> Result<Rights, Box<Response>> {
    match tokens::comer(site, bearer(headers), uri)? {
        Comer::Welcome(Some(rights)) => Ok(rights),
        // There is no close frame here: without a valid token the answer is 401.
        Comer::Welcome(None) | Comer::Closed => signed_in(site, headers),
    }
}

async fn listen(State(site): State<Site>, headers: HeaderMap, uri: Uri) -> Response {
    match open(&site, &headers, &uri).await {
        Ok(response) => response,
        Err(refused) => *refused,
    }
}

async fn open(site: &Site, headers: &HeaderMap, uri: &Uri) -> Result<Response, Box<Response>> {
    let rights = who(site, headers, uri)?;
    let subscribe = subscribe(headers, uri).map_err(Box::<Response>::from)?;
    let connection_id = random_bytes::<8>().map(|bytes| hex(&bytes)).map_err(|error| Box::new(internal(&error)))?;
    let client = headers.get(USER_AGENT).and_then(|name| name.to_str().ok());
    let visit = site.gate.connections.open(connection_id.clone(), peer::address(), client);
    let visit = visit.ok_or_else(|| Box::new(manage::draining()))?;
    let (near, far) = tokio::io::duplex(IN_FLIGHT);
    let gate = Arc::clone(&site.gate);
    site.tasks.spawn(format!("sse {connection_id}"), TaskRole::Helper, async move {
        socket::run(near, gate, visit, Some(rights), None, MANNER).await;
        Ok(())
    });
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    let client = WebSocketStream::from_raw_socket(far, Role::Client, Some(config)).await;
    let mut events = Events { client, place: Place::default(), waiting: VecDeque::new(), has_ended: false };
    let answered = tokio::time::timeout(ANSWER_DEADLINE, events.begin(subscribe)).await;
    answered.unwrap_or_else(|_| Err(Box::new(gone())))?;
    let body = futures_util::stream::unfold(events, async |mut events| {
        let event = events.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), events))
    });
    Ok((EVENT_STREAM, Body::from_stream(body)).into_response())
}

fn gone() -> Response {
    failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the bridge does not answer")
}

/// The `subscribe` that a request stands for.
fn subscribe(headers: &HeaderMap, uri: &Uri) -> Result<String, BadQuery> {
    let mut given = Given::of(uri, &["channels", "delivery", "since", "ticket", "token"])?;
    let mut message = json!({"type": "subscribe"});
    if let Some(channels) = given.text("channels") {
        let patterns: Result<Vec<Pattern>, _> = channels.split(',').map(str::parse).collect();
        let patterns = patterns.map_err(|bad| BadQuery::value("channels", format!("has one that is none: {bad}")))?;
        if patterns.iter().any(|pattern| pattern.as_str().split('/').next() == Some(WAVEFORM)) {
            return Err(BadQuery::value("channels", "has waves, which are binary: they take the WebSocket"));
        }
        let patterns: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        set(&mut message, "channels", json!(patterns));
    }
    match given.text("delivery").as_deref() {
        None => {}
        Some(delivery @ ("all" | "latest")) => set(&mut message, "delivery", json!(delivery)),
        Some(_) => return Err(BadQuery::value("delivery", "is neither all nor latest")),
    }
    let since = given.cursor("since")?;
    let last = headers.get("last-event-id").map(|last| last.to_str().map(str::to_owned));
    let last: Option<(Epoch, Seq)> = match last {
        // A client that has no event yet sends an empty one.
        None => None,
        Some(Ok(last)) if last.is_empty() => None,
        Some(last) => {
            let read = last.ok().and_then(|last| {
                let (epoch, seq) = last.rsplit_once(':')?;
                Some((epoch.parse().ok()?, Seq(seq.parse().ok()?)))
            });
            Some(read.ok_or(BadQuery::value("Last-Event-ID", "is not the `id` of an event, `epoch:seq`"))?)
        }
    };
    if let Some((epoch, seq)) = last.or(since) {
        set(&mut message, "since", json!({"epoch": epoch, "seq": seq}));
    }
    Ok(message.to_string())
}

fn set(message: &mut serde_json::Value, name: &str, value: serde_json::Value) {
    if let Some(members) = message.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// The members of a frame that decide what becomes of it.
#[derive(Debug, Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    seq: Option<u64>,
    #[serde(borrow)]
    epoch: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The members of `data` that decide what becomes of a frame.
#[derive(Debug, Default, Deserialize)]
struct Details {
    epoch: Option<String>,
    last_seq: Option<u64>,
    retry_after_ms: Option<u64>,
    code: Option<serde_json::Value>,
    message: Option<String>,
    reason: Option<String>,
}

impl Head<'_> {
    fn details(&self) -> Details {
        self.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default()
    }
}

/// The answer for a frame that says that there will be no events.
fn refusal(head: &Head<'_>) -> Response {
    let Details { code, message, reason, .. } = head.details();
    let (code, reason) = (code.unwrap_or_default(), reason.unwrap_or_default());
    let message = message.unwrap_or_default();
    match code.as_str() {
        Some("permission_denied") => failure(StatusCode::FORBIDDEN, "permission_denied", &message),
        Some("rate_limited") => failure(StatusCode::TOO_MANY_REQUESTS, "rate_limited", &message),
        Some(code) => failure(StatusCode::BAD_REQUEST, code, &message),
        None => {
            let message = "there is no room for another listener now";
            let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, &reason, message);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            response
        }
    }
}

/// Up to which event a client has everything: what it sends back as `Last-Event-ID`.
#[derive(Debug, Default)]
struct Place {
    /// The run of this daemon, and the last event before the snapshot that is still to come.
    joined: Option<(String, u64)>,
    seq: Option<u64>,
}

impl Place {
    /// The frame as an event. It has an `id` if it moves the place on: an alert of the present that overtakes missed
    /// events does not, and neither does what comes out of turn.
    fn event(&mut self, head: &Head<'_>, text: &str) -> String {
        let mut id = None;
        match (head.kind.as_ref(), head.epoch.as_ref(), head.seq) {
            ("subscribed", ..) => {
                let details = head.details();
                self.joined = details.epoch.zip(details.last_seq);
            }
            ("snapshot", ..) => {
                if let Some((epoch, last)) = self.joined.take() {
                    id = self.moves_to(last).then(|| format!("{epoch}:{last}"));
                }
            }
            (_, Some(epoch), Some(seq)) => {
                let overtakes = self.joined.as_ref().is_some_and(|(_, last)| seq > *last);
                id = (!overtakes && self.moves_to(seq)).then(|| format!("{epoch}:{seq}"));
            }
            _ => {}
        }
        let retry = match head.kind.as_ref() {
            "closing" => head.details().retry_after_ms.filter(|ms| *ms > 0),
            "welcome" => Some(RETRY_MS),
            _ => None,
        };
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        let retry = retry.map(|ms| format!("retry: {ms}\n")).unwrap_or_default();
        format!("{id}{retry}data: {text}\n\n")
    }

    fn moves_to(&mut self, seq: u64) -> bool {
        let moves = self.seq.is_none_or(|before| before < seq);
        if moves {
            self.seq = Some(seq);
        }
        moves
    }
}

/// The events of one connection.
struct Events {
    client: WebSocketStream<DuplexStream>,
    place: Place,
    /// What came before the answer to the subscribe.
    waiting: VecDeque<String>,
    has_ended: bool,
}

impl Events {
    /// Subscribes, and waits until that is answered.
    async fn begin(&mut self, subscribe: String) -> Result<(), Box<Response>> {
        self.client.send(Message::text(subscribe)).await.map_err(|_| Box::new(gone()))?;
        while let Some(text) = self.frame().await {
            let Ok(head) = serde_json::from_str::<Head>(&text) else { continue };
            if matches!(head.kind.as_ref(), "error" | "closing") {
                return Err(Box::new(refusal(&head)));
            }
            self.waiting.push_back(self.place.event(&head, &text));
            if head.kind == "subscribed" {
                return Ok(());
            }
        }
        Err(Box::new(gone()))
    }

    /// The next text message; the library answers pings while this waits.
    async fn frame(&mut self) -> Option<String> {
        loop {
            match self.client.next().await? {
                Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            }
        }
    }

    async fn next(&mut self) -> Option<String> {
        if let Some(event) = self.waiting.pop_front() {
            return Some(event);
        }
        while !self.has_ended {
            let Some(text) = self.frame().await else { break };
            // Every frame of ours has a type.
            let Ok(head) = serde_json::from_str::<Head>(&text) else { continue };
            // Nothing follows it.
            self.has_ended = head.kind == "closing";
            return Some(self.place.event(&head, &text));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(frames: &[&str]) -> Vec<Option<String>> {
        let mut place = Place::default();
        let event = |text: &&str| {
            let head: Head = serde_json::from_str(text).unwrap();
            let event = place.event(&head, text);
            assert!(event.ends_with(&format!("data: {text}\n\n")), "{event}");
            event.lines().find_map(|line| line.strip_prefix("id: ").map(str::to_owned))
        };
        frames.iter().map(event).collect()
    }

    #[test]
    fn the_id_of_an_event_is_the_place_up_to_which_the_client_has_everything() {
        let found = ids(&[
            r#"{"type":"subscribed","data":{"epoch":"b","last_seq":12}}"#,
            r#"{"type":"health_update","seq":10,"epoch":"a","data":{}}"#,
            r#"{"type":"alert","seq":14,"epoch":"b","data":{}}"#,
            r#"{"type":"health_update","seq":11,"epoch":"b","data":{}}"#,
            r#"{"type":"snapshot","data":{}}"#,
            r#"{"type":"alert","seq":16,"epoch":"b","data":{}}"#,
            r#"{"type":"health_update","seq":15,"epoch":"b","data":{}}"#,
            r#"{"type":"heartbeat","data":{}}"#,
        ]);
        let expected = [None, Some("a:10"), None, Some("b:11"), Some("b:12"), Some("b:16"), None, None];
        assert_eq!(found, expected.map(|id| id.map(str::to_owned)));
    }
}
