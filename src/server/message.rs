//! What a client says: reading its JSON into requests, with the names that older clients use.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::channel::{BadPattern, Pattern, notifications_of};
use crate::command::{BadMember, Command, Members};
use crate::filter::Filter;
use crate::ids::{AlertId, Epoch, Seq};
use crate::outbox::{Delivery, Sampling};
use crate::secret::Secret;
use crate::server::chat::{self, ChatRequest};
use crate::server::history::Place;
use crate::server::session::MAX_SUBSCRIPTIONS;
use crate::vitals::Decimal;

pub use crate::server::bounds::MAX_JSON_DEPTH;

/// Most alerts of one receipt.
pub const MAX_RECEIPTS: usize = 256;
/// Most messages that one `ack` names.
const MAX_ACKED: usize = 128;

/// Longest correlation id that is echoed, in characters; longer ones are cut.
const MAX_CORRELATION_ID: usize = 128;

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The client's name for it, echoed in the answer.
    pub correlation_id: Option<String>,
    /// What the client calls itself, as it says in `authenticate`.
    pub client: Option<String>,
    /// What it wants.
    pub request: Request,
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Sign in, or sign in again with a newer token.
    Authenticate {
        /// The token.
        token: Secret,
    },
    /// Listen.
    Subscribe {
        /// To what; empty: to what the endpoint is for.
        patterns: Vec<Pattern>,
        /// From the event after this one on.
        since: Option<(Epoch, Seq)>,
        /// How readings come.
        delivery: Option<Delivery>,
        /// The client shows alerts to people, and says so by receipts.
        annunciator: bool,
        /// What is wanted of the events.
        filter: Option<Arc<Filter>>,
        /// The client acknowledges what comes on alerts' channels.
        acks: bool,
    },
    /// What was on some channels?
    History {
        /// Which.
        patterns: Vec<Pattern>,
        /// From here on.
        from: Option<Place>,
        /// Up to here.
        to: Option<Place>,
        /// Before this event: the `next` of the page before.
        before: Option<Seq>,
        /// At most so many events.
        limit: Option<usize>,
    },
    /// Stop listening.
    Unsubscribe {
        /// To what.
        patterns: Vec<Pattern>,
    },
    /// These alerts have come, or are shown.
    Receipt {
        /// They are shown.
        shown: bool,
        /// Each with the newest event of it that the client has.
        alerts: Vec<(AlertId, Seq)>,
        /// The run of the daemon that numbered these events; left out: this one.
        epoch: Option<Epoch>,
    },
    /// Do something.
    Command(Command),
    /// I have these messages, or everything on a channel up to a number.
    Ack {
        /// Ids of notifications.
        ids: Vec<uuid::Uuid>,
        /// The channel and the number.
        through: Option<(Pattern, Seq)>,
        /// The run of the daemon that numbered it; left out: this one.
        epoch: Option<Epoch>,
    },
    /// Something in the rooms of the care team.
    Chat(ChatRequest),
    /// What am I told of?
    GetPreferences,
    /// Are you there?
    Ping,
    /// I am here.
    Heartbeat,
}

impl Request {
    /// The message type, for errors.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Authenticate { .. } => "authenticate",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::History { .. } => "history",
            Self::Receipt { .. } => "alert_receipt",
            Self::Command(_) => "command",
            Self::Ack { .. } => "ack",
            Self::Chat(chat) => chat.name(),
            Self::GetPreferences => "get_preferences",
            Self::Ping => "ping",
            Self::Heartbeat => "heartbeat",
        }
    }
}

/// Why a message is answered with an `error`. What the client sent is never echoed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A binary message.
    #[error("messages are JSON text; this one was binary")]
    Binary,
    /// Not CBOR.
    #[error("the message is not CBOR of maps with names, lists, text, numbers, booleans and null")]
    NotCbor,
    /// Not JSON.
    #[error("the message is not JSON (line {line}, column {column})")]
    NotJson {
        /// Where reading stopped.
        line: usize,
        /// Where reading stopped.
        column: usize,
    },
    /// Nested too deeply.
    #[error("the message is nested deeper than {most} levels")]
    TooDeep {
        /// The deepest nesting that is read.
        most: usize,
    },
    /// Not an object with a type.
    #[error("a message is an object with a member `type`")]
    NoType,
    /// A type that this server does not have.
    #[error(
        "this message type is not known; known are authenticate, refresh, subscribe, unsubscribe, history, alert_receipt, command, ack, set_preferences, \
         get_preferences, ping, heartbeat, message, typing, join_room, leave_room, get_conversation_history, \
         clear_conversation, mark_read, activity"
    )]
    UnknownType,
    /// A member is missing or of another form.
    #[error(transparent)]
    Member(#[from] BadMember),
    /// A channel that cannot be.
    #[error("a channel cannot be read: {0}")]
    Channel(BadPattern),
    /// Nobody has signed in.
    #[error("`{name}` needs a sign-in first: send authenticate with a token")]
    NotSignedIn {
        /// The type of the message.
        name: &'static str,
    },
    /// The rights do not reach.
    #[error("not allowed: {channels}")]
    Denied {
        /// The refused patterns, already checked for their form.
        channels: String,
    },
    /// Too many subscriptions.
    #[error("a session has at most {} subscriptions; unsubscribe first, or use + and #", MAX_SUBSCRIPTIONS)]
    TooManySubscriptions,
}

impl Unreadable {
    /// The `code` of the `error`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Binary | Self::NotCbor | Self::NotJson { .. } | Self::TooDeep { .. } | Self::NoType => "format",
            Self::UnknownType => "unknown_type",
            Self::Member(_) | Self::Channel(_) => "validation",
            Self::NotSignedIn { .. } => "not_authenticated",
            Self::Denied { .. } => "permission_denied",
            Self::TooManySubscriptions => "too_many_subscriptions",
        }
    }

    /// What the `error` is about.
    pub const fn scope(&self) -> &'static str {
        match self {
            Self::Channel(_) | Self::Denied { .. } | Self::TooManySubscriptions => "subscription",
            _ => "request",
        }
    }
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// The reason for which it cannot be answered, and the client's name for it as far as it could be read.
    pub fn parse(text: &str) -> Result<Self, (Unreadable, Option<String>)> {
        Self::parse_within(text, MAX_JSON_DEPTH)
    }

    /// [`Message::parse`] with another depth of nesting.
    ///
    /// # Errors
    /// Those of [`Message::parse`].
    pub fn parse_within(text: &str, most: usize) -> Result<Self, (Unreadable, Option<String>)> {
        if depth(text) > most {
            return Err((Unreadable::TooDeep { most }, None));
        }
        let not_json = |error: serde_json::Error| Unreadable::NotJson { line: error.line(), column: error.column() };
        let json: Json = serde_json::from_str(text).map_err(|error| (not_json(error), None))?;
        let correlation_id = Fields(Members(&json)).correlation_id();
        match Request::read(&json) {
            Ok(request) => {
                let client = Members(&json).text("client").filter(|_| matches!(request, Request::Authenticate { .. }));
                Ok(Self { correlation_id, client: client.map(str::to_owned), request })
            }
            Err(unreadable) => Err((unreadable, correlation_id)),
        }
    }
}

impl Request {
    fn read(json: &Json) -> Result<Self, Unreadable> {
        let fields = Fields(Members(json));
        let kind = json.get("type").and_then(Json::as_str).ok_or(Unreadable::NoType)?;
        match kind {
            "authenticate" | "refresh" => {
                let token = fields.0.required("token")?;
                Ok(Self::Authenticate { token: Secret::new(token) })
            }
            "subscribe" => Ok(Self::Subscribe {
                patterns: if fields.names_channels() { fields.patterns()? } else { Vec::new() },
                since: fields.since()?,
                delivery: fields.delivery()?,
                annunciator: fields.0.get("annunciator").and_then(Json::as_bool).unwrap_or(false),
                filter: fields.0.get("filter").map(Filter::read).transpose()?.flatten().map(Arc::new),
                acks: fields.0.get("acks").and_then(Json::as_bool).unwrap_or(false),
            }),
            "history" => fields.history(),
            "unsubscribe" => Ok(Self::Unsubscribe { patterns: fields.patterns()? }),
            "alert_receipt" => fields.receipt(),
            "command" => Ok(Self::Command(Command::read(fields.0)?)),
            "set_preferences" => Ok(Self::Command(Command::read_preferences(fields.0)?)),
            "get_preferences" => Ok(Self::GetPreferences),
            "ack" => fields.ack(),
            "ping" => Ok(Self::Ping),
            "heartbeat" | "pong" => Ok(Self::Heartbeat),
            kind => ChatRequest::read(kind, fields.0)?.map(Self::Chat).ok_or(Unreadable::UnknownType),
        }
    }
}

/// How deeply brackets are nested outside strings.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

const fn missing(member: &'static str, problem: &'static str) -> Unreadable {
    Unreadable::Member(BadMember::new(member, problem))
}

/// What several messages have in common.
pub(super) struct Fields<'a>(pub(super) Members<'a>);

impl Fields<'_> {
    /// Text, or a whole number as some clients count.
    fn correlation_id(&self) -> Option<String> {
        let id = self.0.get("correlation_id").or_else(|| self.0.get("id"))?;
        let number = || id.as_u64().map(|number| number.to_string());
        id.as_str().map(|id| id.chars().take(MAX_CORRELATION_ID).collect()).or_else(number)
    }

    fn names_channels(&self) -> bool {
        self.0.get("channels").is_some() || self.0.get("subscription").is_some()
    }

    fn patterns(&self) -> Result<Vec<Pattern>, Unreadable> {
        if let Some(alias) = self.0.text("subscription") {
            return aliased(alias);
        }
        let channels = self.0.get("channels").ok_or(missing("channels", "is missing"))?;
        let channels = channels.as_array().ok_or(missing("channels", "is not a list of channels"))?;
        let mut patterns = Vec::new();
        for channel in channels {
            let text = channel.as_str().ok_or(missing("channels", "has a member that is not text"))?;
            patterns.extend(aliased(text)?);
        }
        if patterns.is_empty() {
            return Err(missing("channels", "is empty"));
        }
        if patterns.len() > MAX_SUBSCRIPTIONS {
            return Err(Unreadable::TooManySubscriptions);
        }
        Ok(patterns)
    }

    /// The last event that the client has.
    pub(super) fn since(&self) -> Result<Option<(Epoch, Seq)>, Unreadable> {
        let Some(since) = self.0.get("since") else { return Ok(None) };
        let epoch = since.get("epoch").and_then(Json::as_str).and_then(|text| text.parse().ok());
        let seq = since.get("seq").and_then(Json::as_u64).map(Seq);
        epoch.zip(seq).map(Some).ok_or(missing("since", "needs the epoch and seq of the last event you have"))
    }

    fn receipt(&self) -> Result<Request, Unreadable> {
        const FORM: &str = "is a list of {\"alert_id\", \"seq\"}, the newest event of each alert that you have";
        let shown = match self.0.text("state") {
            Some("shown") => true,
            Some("delivered") => false,
            _ => return Err(missing("state", "is `delivered` or `shown`")),
        };
        let list = self.0.get("alerts").and_then(Json::as_array).ok_or(missing("alerts", FORM))?;
        if list.is_empty() || list.len() > MAX_RECEIPTS {
            return Err(missing("alerts", "has 1 to 256 members"));
        }
        let read = |alert: &Json| {
            let id = alert.get("alert_id").and_then(Json::as_str).and_then(|text| text.parse().ok()).map(AlertId);
            id.zip(alert.get("seq").and_then(Json::as_u64).map(Seq))
        };
        let alerts = list.iter().map(read).collect::<Option<Vec<_>>>().ok_or(missing("alerts", FORM))?;
        let epoch = match self.0.get("epoch") {
            None => None,
            Some(epoch) => {
                Some(epoch.as_str().and_then(|text| text.parse().ok()).ok_or(missing("epoch", "is no epoch"))?)
            }
        };
        Ok(Request::Receipt { shown, alerts, epoch })
    }

    fn ack(&self) -> Result<Request, Unreadable> {
        let wrong = missing("ids", "is not a list of at most 128 ids");
        let ids = self.0.get("ids").map_or(Some(&[][..]), |list| list.as_array().map(Vec::as_slice));
        let ids = ids.filter(|ids| ids.len() <= MAX_ACKED).ok_or(wrong.clone())?;
        let id = |id: &Json| id.as_str().and_then(|text| text.parse().ok()).ok_or(wrong.clone());
        let ids = ids.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let through = match (self.0.text("channel"), self.0.get("seq").and_then(Json::as_u64)) {
            (Some(channel), Some(seq)) => Some((channel.parse().map_err(Unreadable::Channel)?, Seq(seq))),
            _ if ids.is_empty() => return Err(missing("ids", "is missing, or `channel` and `seq` are")),
            _ => None,
        };
        let epoch = match self.0.get("epoch") {
            None => None,
            Some(epoch) => {
                Some(epoch.as_str().and_then(|text| text.parse().ok()).ok_or(missing("epoch", "is no epoch"))?)
            }
        };
        Ok(Request::Ack { ids, through, epoch })
    }

    fn history(&self) -> Result<Request, Unreadable> {
        let patterns = match (self.0.text("patient_id").or_else(|| self.0.text("patient")), self.0.text("metric")) {
            _ if self.names_channels() => self.patterns()?,
            (Some(patient), metric) => {
                let channel = format!("patient/{patient}/{}", metric.unwrap_or("+"));
                vec![channel.parse().map_err(Unreadable::Channel)?]
            }
            (None, _) => return Err(missing("channels", "is missing, or `patient_id` with or without `metric` is")),
        };
        let number = |name, problem| match self.0.get(name) {
            None => Ok(None),
            Some(number) => number.as_u64().map(Some).ok_or(missing(name, problem)),
        };
        let before = number("before", "is not the `next` of a page")?.map(Seq);
        let limit = number("limit", "is not a number of events")?;
        Ok(Request::History {
            patterns,
            from: self.place("from")?,
            to: self.place("to")?,
            before,
            limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        })
    }

    /// The number of an event, or a time.
    fn place(&self, name: &'static str) -> Result<Option<Place>, Unreadable> {
        let Some(place) = self.0.get(name) else { return Ok(None) };
        let time = || place.as_str().and_then(crate::clock::Wall::parse).map(Place::Time);
        let place = place.as_u64().map(Seq).map(Place::Event).or_else(time);
        place.map(Some).ok_or(missing(name, "is not the `seq` of an event nor a time such as 2026-11-21T08:00:00Z"))
    }

    /// A mode by its name, or an object with `mode`; what belongs to `sampled` stands in the object, or beside the name.
    fn delivery(&self) -> Result<Option<Delivery>, Unreadable> {
        const FORM: Unreadable =
            missing("delivery", "is `all`, `latest` or `sampled`, or an object with such a `mode`");
        let Some(delivery) = self.0.get("delivery") else { return Ok(None) };
        let (mode, members) = match delivery.as_str() {
            Some(mode) => (Some(mode), self.0),
            None => (delivery.get("mode").and_then(Json::as_str), Members(delivery)),
        };
        match mode {
            Some("all") => Ok(Some(Delivery::All)),
            Some("latest") => Ok(Some(Delivery::Latest)),
            Some("sampled") => sampling(members).map(|sampling| Some(Delivery::Sampled(sampling))),
            _ => Err(FORM),
        }
    }
}

/// Slowest and fastest sampling, a second. A slower one would show numbers that are old by then.
const RATES: std::ops::RangeInclusive<f64> = 0.2..=100.0;

fn sampling(members: Members<'_>) -> Result<Sampling, Unreadable> {
    let rate = members.get("max_rate_hz").and_then(Json::as_f64).filter(|rate| RATES.contains(rate));
    let rate = rate.ok_or(missing("max_rate_hz", "belongs to `sampled` and is 0.2 to 100"))?;
    let deadband = match members.get("deadband") {
        None => None,
        Some(number) => {
            let number = number.as_number().and_then(|number| number.to_string().parse::<Decimal>().ok());
            let number = number.filter(|number| number.mantissa() >= 0);
            Some(number.ok_or(missing("deadband", "is a number such as 2 or 0.5, in the metric's unit"))?)
        }
    };
    Ok(Sampling { interval: Duration::from_secs_f64(1.0 / rate), deadband })
}

/// A channel, or the name that older clients have for some.
pub(super) fn aliased(text: &str) -> Result<Vec<Pattern>, Unreadable> {
    let channels: &[&str] = match text {
        "health_updates" => &["patient/+/+", "alerts/+"],
        "notifications" => &["notifications/+"],
        "chat" => &["chat/+"],
        other => match other.strip_prefix("user:") {
            Some(user) => return Ok(vec![notifications_of(user).parse().map_err(Unreadable::Channel)?]),
            None => match chat::aliased(other) {
                Some(channels) => return channels.map_err(Unreadable::Channel),
                None => &[other],
            },
        },
    };
    channels.iter().map(|channel| channel.parse().map_err(Unreadable::Channel)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Message::parse(text).unwrap_err().0.to_string()
    }

    #[test]
    fn an_error_knows_the_clients_name_for_the_message() {
        for (text, id) in [
            (r#"{"type":"fly","id":"a"}"#, Some("a")),
            (r#"{"type":"command","correlation_id":"b","data":{"name":"x"}}"#, Some("b")),
            (r#"{"type":"subscribe","channels":["a b"],"id":5}"#, Some("5")),
            ("nonsense", None),
        ] {
            assert_eq!(Message::parse(text).unwrap_err().1.as_deref(), id, "{text}");
        }
    }

    #[test]
    fn members_stand_at_the_top_or_under_data() {
        for text in [
            r#"{"type":"authenticate","token":"t","id":"1"}"#,
            r#"{"type":"authenticate","data":{"token":"t"},"correlation_id":"1"}"#,
            r#"{"type":"refresh","token":"t","correlation_id":"1","extra":[]}"#,
        ] {
            let message = Message::parse(text).unwrap();
            assert_eq!(message.correlation_id.as_deref(), Some("1"));
            assert_eq!(message.request, Request::Authenticate { token: Secret::new("t") });
        }
    }

    #[test]
    fn older_clients_subscribe_by_name() {
        let message = Message::parse(r#"{"type":"subscribe","subscription":"health_updates"}"#).unwrap();
        let Request::Subscribe { patterns, since: None, delivery: None, annunciator: false, filter: None, acks: false } =
            message.request
        else {
            panic!()
        };
        let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        assert_eq!(texts, ["patient/+/+", "alerts/+"]);
    }

    #[test]
    fn rubbish_gets_an_error_that_does_not_echo_it() {
        assert_eq!(error("nonsense"), "the message is not JSON (line 1, column 2)");
        assert!(error("[]").contains("`type`"));
        assert!(error(r#"{"type":"fly"}"#).contains("not known"));
        assert_eq!(error(r#"{"type":"authenticate"}"#), "`token` is missing");
        assert!(error(r#"{"type":"subscribe","channels":["a b<script>"]}"#).starts_with("a channel cannot be read"));
        assert!(error(r#"{"type":"subscribe","channels":["a"],"since":{"seq":1}}"#).contains("epoch and seq"));
        for (members, expected) in [
            (r#""delivery":"some""#, "`delivery` is `all`, `latest` or `sampled`"),
            (r#""delivery":{"max_rate_hz":1}"#, "`delivery` is `all`, `latest` or `sampled`"),
            (r#""delivery":"sampled""#, "`max_rate_hz` belongs to"),
            (r#""delivery":{"mode":"sampled","max_rate_hz":0.1}"#, "`max_rate_hz` belongs to"),
            (r#""delivery":{"mode":"sampled","max_rate_hz":1,"deadband":-1}"#, "`deadband` is a number"),
            (r#""delivery":{"mode":"sampled","max_rate_hz":1,"deadband":"1"}"#, "`deadband` is a number"),
            (r#""filter":{"colour":"red"}"#, "`filter` has a tag that is not"),
        ] {
            let found = error(&format!(r#"{{"type":"subscribe","channels":["a"],{members}}}"#));
            assert!(found.starts_with(expected), "{members}: {found}");
        }
        for (members, expected) in [
            ("", "`channels` is missing, or `patient_id`"),
            (r#","channels":["a"],"from":"yesterday""#, "`from` is not the `seq`"),
            (r#","patient_id":"P-1","metric":"spo2","to":-1"#, "`to` is not the `seq`"),
            (r#","channels":["a"],"before":"x""#, "`before` is not the `next`"),
        ] {
            let found = error(&format!(r#"{{"type":"history"{members}}}"#));
            assert!(found.starts_with(expected), "{members}: {found}");
        }
        assert!(error(r#"{"type":"command","name":"alert.pause_audio","seconds":121}"#).contains("1 to 120"));
        assert!(error(&"[".repeat(100_000)).contains("nested deeper"));
        let id = "01928374-0000-7000-8000-000000000000";
        let ack = format!(r#"{{"type":"command","name":"alert.acknowledge","alert_id":"{id}","expected_seq":"7"}}"#);
        assert_eq!(error(&ack), "`expected_seq` is not the number of an event");
        assert!(!error(r#"{"type":"<script>"}"#).contains("script"));
        let receipt = |rest: &str| error(&format!(r#"{{"type":"alert_receipt",{rest}}}"#));
        let one = format!(r#"{{"alert_id":"{id}","seq":7}}"#);
        assert_eq!(receipt(r#""alerts":[]"#), "`state` is `delivered` or `shown`");
        assert!(receipt(r#""state":"seen","alerts":[]"#).starts_with("`state` is"));
        assert!(receipt(r#""state":"shown""#).starts_with("`alerts` is a list"));
        assert!(receipt(r#""state":"shown","alerts":[]"#).starts_with("`alerts` has 1 to 256"));
        assert!(
            receipt(&format!(r#""state":"shown","alerts":[{one}{}]"#, format!(",{one}").repeat(256))).contains("256")
        );
        assert!(receipt(&format!(r#""state":"shown","alerts":["{id}"]"#)).starts_with("`alerts` is a list"));
        assert!(receipt(&format!(r#""state":"shown","alerts":[{one}],"epoch":7"#)).starts_with("`epoch`"));
    }

    #[test]
    fn sampling_stands_in_an_object_or_beside_its_name() {
        let expected = Sampling { interval: Duration::from_millis(500), deadband: Some(Decimal::tenths(15)) };
        for members in [
            r#""delivery":{"mode":"sampled","max_rate_hz":2,"deadband":1.5}"#,
            r#""delivery":"sampled","max_rate_hz":2,"deadband":1.5"#,
        ] {
            let message = Message::parse(&format!(r#"{{"type":"subscribe","channels":["a"],{members}}}"#)).unwrap();
            let Request::Subscribe { delivery, .. } = message.request else { panic!() };
            assert_eq!(delivery, Some(Delivery::Sampled(expected)), "{members}");
        }
    }

    #[test]
    fn brackets_in_strings_are_not_nesting() {
        assert_eq!(depth(r#"{"a":"[[[{{\"[","b":[1]}"#), 2);
    }
}
