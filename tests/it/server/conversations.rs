//! One table of conversations, held twice: with the session alone in virtual time, and through axum over a duplex stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;
use vitalbridge::clock::{Clock, Mono, Stamp, Wall};
use vitalbridge::config::{Config, Place};
use vitalbridge::event::SourceMessage;
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::outbox::Outbox;
use vitalbridge::pipeline::{CommandWish, Control, Pipeline};
use vitalbridge::secret::Secret;
use vitalbridge::server::auth::{Rights, Role as UserRole};
use vitalbridge::server::bounds::{CloseCodes, ServerLimits};
use vitalbridge::server::form::Form;
use vitalbridge::server::jwt::{Claims, TokenKey};
use vitalbridge::server::session::{Action, Located, Manner, Session, Shared};
use vitalbridge::store::{self, StoreOptions};
use vitalbridge::vitals::Metric;

use super::{HOST, Server, demo_reading, pipeline_of, shared_of};
use crate::dashboard::{Came, Dashboard};
use crate::frames;

/// What both runners do.
enum Step {
    /// The client says this.
    Say(Json),
    /// The client says this text.
    SayText(&'static str),
    /// The next message has these members; `seq` of it is kept under this name for `"$name"`.
    Expect(Json, Option<&'static str>),
    /// Nothing more comes now.
    Quiet,
    /// Milliseconds pass.
    Pass(u64),
    /// The sensor of the first patient measures.
    Measured(Metric, i32),
    /// The server has closed.
    Closed(u16),
}

use Step::{Closed, Measured, Pass, Quiet, Say, SayText};

fn expect(members: Json) -> Step {
    Step::Expect(members, None)
}

fn expect_as(name: &'static str, members: Json) -> Step {
    Step::Expect(members, Some(name))
}

fn sign_in() -> Vec<Step> {
    vec![
        expect(json!({"type": "welcome", "data": {"server": "vitalbridge", "heartbeat_ms": 5000}})),
        Say(json!({"type": "authenticate", "token": "$token", "id": "a"})),
        expect(json!({"type": "authenticated", "correlation_id": "a", "data": {"user_id": 7, "role": "clinician"}})),
    ]
}

/// What is computed of several readings comes of its own accord and is left out.
const CHANNELS: [&str; 3] = ["patient/$patient/spo2", "patient/$patient/pulse_rate", "alerts/$patient"];

fn subscribe(members: &Json) -> Vec<Step> {
    let mut subscribe = json!({"type": "subscribe", "channels": CHANNELS, "id": "s"});
    for (name, value) in members.as_object().unwrap() {
        subscribe[name] = value.clone();
    }
    vec![
        Say(subscribe),
        expect(json!({"type": "subscribed", "correlation_id": "s", "data": {"lost": []}})),
        expect(json!({"type": "snapshot"})),
    ]
}

fn spo2(value: i32) -> Step {
    expect(
        json!({"type": "health_update", "data": {"metric": "spo2", "value": value}, "channel": "patient/$patient/spo2"}),
    )
}

fn told(steps: &mut Vec<Step>, kind: &str, code: &str) {
    steps.push(expect(json!({"type": kind, "data": {"code": code}})));
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn conversations() -> Vec<(&'static str, Vec<Step>)> {
    let mut all = Vec::new();

    let mut steps = sign_in();
    steps.extend(subscribe(&json!({})));
    steps.extend([Measured(Metric::Spo2, 97), spo2(97), Measured(Metric::Spo2, 96), spo2(96)]);
    steps.push(Say(json!({"type": "unsubscribe", "channels": ["patient/$patient/spo2"], "id": 5})));
    steps.push(expect(json!({"type": "unsubscribed", "correlation_id": "5"})));
    steps.extend([Measured(Metric::Spo2, 95), Quiet]);
    all.push(("signs in, listens and stops listening", steps));

    let steps = vec![
        expect(json!({"type": "welcome"})),
        Pass(4900),
        Quiet,
        Pass(200),
        expect(json!({"type": "closing", "data": {"code": 4008, "reason": "auth_timeout", "reconnect": false}})),
        Closed(4008),
    ];
    all.push(("does not sign in", steps));

    let steps = vec![
        expect(json!({"type": "welcome"})),
        Say(json!({"type": "subscribe", "channels": ["patient/+/+"], "id": "s"})),
        expect(json!({"type": "error", "correlation_id": "s", "data": {"code": "not_authenticated"}})),
        expect(json!({"type": "closing", "data": {"code": 4003, "reason": "permission_denied", "reconnect": false}})),
        Closed(4003),
    ];
    all.push(("says something else first", steps));

    let mut steps = vec![expect(json!({"type": "welcome"})), Say(json!({"type": "authenticate", "token": "rubbish"}))];
    told(&mut steps, "auth_error", "invalid_token");
    steps.push(expect(json!({"type": "closing", "data": {"code": 4001}})));
    steps.push(Closed(4001));
    all.push(("signs in with rubbish", steps));

    let mut steps = sign_in();
    for _ in 0..4 {
        for (text, code) in [("nonsense", "format"), (r#"{"type":"fly"}"#, "unknown_type"), ("{}", "format")] {
            if steps.len() < 3 + 2 * 10 {
                steps.push(SayText(text));
                told(&mut steps, "error", code);
            }
        }
    }
    steps.extend([expect(json!({"type": "closing", "data": {"code": 4005}})), Closed(4005)]);
    all.push(("talks rubbish", steps));

    let mut steps = sign_in();
    steps.extend([Pass(5100), expect(json!({"type": "heartbeat", "data": {"ages": {}}}))]);
    steps.extend(subscribe(&json!({})));
    steps.extend([Measured(Metric::Spo2, 97), spo2(97), Pass(5000)]);
    steps.push(expect(json!({"type": "heartbeat", "data": {"ages": {"patient/$patient/spo2": "$any"}}})));
    all.push(("hears the heart beat", steps));

    let mut steps = sign_in();
    steps.extend(subscribe(&json!({"filter": {"metric": ["spo2", "temperature"]}})));
    steps.extend([Measured(Metric::PulseRate, 60), Measured(Metric::Spo2, 97), spo2(97), Quiet]);
    steps.push(Say(json!({"type": "subscribe", "channels": ["patient/$patient/+"], "filter": {"colour": "red"}})));
    told(&mut steps, "error", "validation");
    all.push(("filters by a tag", steps));

    let mut steps = sign_in();
    steps.extend(subscribe(&json!({"delivery": {"mode": "sampled", "max_rate_hz": 2}})));
    steps.extend([Measured(Metric::Spo2, 97), spo2(97), Measured(Metric::Spo2, 96), Measured(Metric::Spo2, 95), Quiet]);
    steps.extend([Pass(510), spo2(95), Quiet, Pass(600), Measured(Metric::Spo2, 94), spo2(94), Quiet]);
    all.push(("samples, and the last value before a silence comes", steps));

    let mut steps = sign_in();
    steps.extend(subscribe(&json!({"acks": true})));
    steps.push(Measured(Metric::Spo2, 70));
    // The alert overtakes nothing here: both are written at once, the alert first.
    steps.push(expect_as("alert", json!({"type": "alert", "channel": "alerts/$patient", "data": {"change": "start"}})));
    steps.extend([spo2(70), Pass(4000), Quiet, Pass(1500)]);
    steps.push(expect(json!({"type": "alert", "redelivered": true, "seq": "$alert"})));
    steps.push(Say(json!({"type": "ack", "channel": "alerts/$patient", "epoch": "$epoch", "seq": "$alert"})));
    steps.extend([Measured(Metric::Spo2, 70), spo2(70), Pass(6000), Quiet]);
    all.push(("gets an alert once more that it does not acknowledge", steps));

    let mut steps = sign_in();
    steps.extend(subscribe(&json!({})));
    steps.push(Measured(Metric::Spo2, 70));
    steps.push(expect(json!({"type": "alert", "data": {"change": "start"}})));
    steps.extend([spo2(70), Pass(6000), Measured(Metric::Spo2, 70), spo2(70), Pass(6000), Quiet]);
    all.push(("never acknowledges, as older clients", steps));

    let mut steps = sign_in();
    let prefer = |kind: &str, id: &str| Say(json!({"type": "set_preferences", "mute": [kind], "id": id}));
    steps.push(prefer("system", "once"));
    steps.push(expect_as(
        "done",
        json!({"type": "result", "correlation_id": "once", "data": {"ok": true, "durable": true}}),
    ));
    steps.push(prefer("system", "once"));
    steps.push(expect(json!({"type": "result", "correlation_id": "once", "data": {"ok": true, "seq": "$done"}})));
    steps.push(prefer("appointment_reminder", "once"));
    steps.push(expect(json!({"type": "result", "data": {"ok": false, "code": "conflict"}})));
    steps.push(prefer("appointment_reminder", "twice"));
    steps.push(expect(json!({"type": "result", "data": {"ok": true, "durable": true}})));
    all.push(("repeats a command", steps));

    let mut steps = sign_in();
    steps.extend([Measured(Metric::Spo2, 97), Measured(Metric::Spo2, 96)]);
    let since = json!({"epoch": "$epoch", "seq": 0});
    steps.push(Say(json!({"type": "subscribe", "channels": ["patient/$patient/spo2"], "since": since})));
    steps.push(expect(json!({"type": "subscribed", "data": {"recovered": true, "lost": [], "first_seq": 1}})));
    steps.extend([spo2(97), spo2(96), expect(json!({"type": "snapshot"})), Measured(Metric::Spo2, 95), spo2(95)]);
    all.push(("resumes with nothing", steps));
    all
}

const START: Stamp = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(1_795_219_200_000) };

/// What a conversation is held with.
trait Other {
    async fn say(&mut self, text: &str);
    /// The next message, if one is there or comes at once.
    async fn hear(&mut self) -> Option<Came>;
    async fn pass(&mut self, span: Duration);
    async fn measured(&mut self, metric: Metric, value: i32);
    fn token(&self) -> String;
    fn patient(&self) -> String;
    fn epoch(&self) -> String;
}

fn claims(clock: &Clock) -> Claims {
    let now = clock.now().wall.as_secs();
    Claims {
        sub: "7".into(),
        role: UserRole::Clinician,
        caps: None,
        jti: None,
        iat: Some(now),
        nbf: None,
        exp: now + 3600,
    }
}

/// True if everything expected is there; `"$any"` is anything.
fn has(found: &Json, expected: &Json) -> bool {
    match expected {
        Json::String(any) if any == "$any" => !found.is_null(),
        Json::Object(members) => members.iter().all(|(name, value)| has(&found[name], value)),
        value => found == value,
    }
}

async fn hold(name: &str, steps: Vec<Step>, other: &mut impl Other) {
    let mut names = vec![("$token".to_owned(), json!(other.token())), ("$epoch".to_owned(), json!(other.epoch()))];
    let patient = other.patient();
    let fill = |json: &Json, names: &[(String, Json)]| -> Json {
        let mut text = json.to_string().replace("$patient", &patient);
        for (name, value) in names {
            text = text.replace(&format!("\"{name}\""), &value.to_string());
        }
        serde_json::from_str(&text).unwrap()
    };
    for (place, step) in steps.into_iter().enumerate() {
        let about = format!("{name}, step {place}");
        match step {
            Say(json) => other.say(&fill(&json, &names).to_string()).await,
            SayText(text) => other.say(text).await,
            Step::Expect(json, kept) => {
                let expected = fill(&json, &names);
                let heard = heard(other, expected["type"].as_str().unwrap_or("")).await;
                let Some(Came::Message(found)) = heard else { panic!("{about}: {expected}, not {heard:?}") };
                assert!(has(&found, &expected), "{about}: expected {expected}, found {found}");
                if let Some(kept) = kept {
                    let seq = if found["seq"].is_null() { &found["data"]["seq"] } else { &found["seq"] };
                    names.push((format!("${kept}"), seq.clone()));
                }
            }
            Quiet => {
                let heard = heard(other, "").await;
                assert!(heard.is_none(), "{about}: {heard:?}");
            }
            Pass(ms) => other.pass(Duration::from_millis(ms)).await,
            Measured(metric, value) => other.measured(metric, value).await,
            Closed(code) => assert_eq!(heard(other, "").await, Some(Came::Closed(code)), "{about}"),
        }
    }
}

/// The next message but for those that come at their own times, unless one of them is wanted.
async fn heard(other: &mut impl Other, wanted: &str) -> Option<Came> {
    loop {
        let came = other.hear().await?;
        match &came {
            Came::Message(message) => {
                let kind = message["type"].as_str().unwrap();
                if kind != wanted && ["heartbeat", "alert_system"].contains(&kind) {
                    continue;
                }
            }
            Came::Binary(_) => continue,
            _ => {}
        }
        return Some(came);
    }
}

/// The session alone: its actions are carried out by plain calls, and time passes from deadline to deadline.
struct Alone {
    session: Session,
    pipeline: Pipeline,
    clock: Clock,
    key: TokenKey,
    outbox: Option<Arc<Outbox>>,
    heard: VecDeque<Came>,
    shared: Arc<Shared>,
    _dir: tempfile::TempDir,
}

impl Alone {
    fn new() -> Self {
        let clock = Clock::tokio(START);
        let dir = tempfile::tempdir().unwrap();
        let place = Place { listen: None, state_dir: Some(dir.path().to_owned()) };
        let config = Config::demo(1, &place).unwrap();
        let epoch = Epoch::from_bits(1);
        let opened = store::open(dir.path(), &StoreOptions::default(), epoch.clone(), "boot", clock.now()).unwrap();
        let (mut pipeline, _, _) = pipeline_of(&config, opened, &Arc::default(), &clock);
        // Each reading is written by itself.
        pipeline.write_every(Duration::ZERO);
        let shared = Arc::new(shared_of(config, epoch, ServerLimits::default(), CloseCodes::Own));
        let key = TokenKey::new(&Secret::new("s".repeat(32)), "vitalbridge", "vitalbridge").unwrap();
        let (session, greeting) =
            Session::new(Arc::clone(&shared), "c".into(), None, Manner::new(&[], Form::Json), clock.now());
        let heard = VecDeque::new();
        let mut alone = Self { session, pipeline, clock, key, outbox: None, heard, shared, _dir: dir };
        alone.carry_out(greeting);
        alone
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut queue: VecDeque<Action> = actions.into();
        while let Some(action) = queue.pop_front() {
            for action in self.one(action).into_iter().rev() {
                queue.push_front(action);
            }
        }
    }

    fn hear(&mut self, message: Json) {
        frames::check(&message);
        self.heard.push_back(Came::Message(message));
    }

    /// Carries out one action; gives what its answer brings.
    fn one(&mut self, action: Action) -> Vec<Action> {
        let now = self.clock.now();
        let mut tell = |wish| self.pipeline.on_control(wish, now);
        match action {
            Action::Send(text) => self.hear(serde_json::from_str(&text).unwrap()),
            Action::SendShared(bytes) => self.hear(serde_json::from_slice(&bytes).unwrap()),
            Action::SendBinary(bytes) => self.heard.push_back(Came::Binary(bytes.to_vec())),
            Action::Close(close) => self.heard.push_back(Came::Closed(close.code())),
            // Every WebSocket answers a ping by itself.
            Action::Ping => return self.session.on_pong(now),
            Action::Verify(token) => {
                let checked = self.key.verify(token.expose(), now.wall);
                let rights = checked.map(|claims| Rights::from_claims(&claims)).map_err(|refused| refused.to_string());
                return self.session.on_token(rights, now);
            }
            Action::Locate(epoch, seq) => {
                let after = (epoch == self.shared.epoch).then_some(seq);
                return self.session.on_located(Located { after, lost: Vec::new() });
            }
            Action::Join(join) => {
                let (reply, mut answer) = oneshot::channel();
                tell(Control::Join(*join, reply));
                let joined = answer.try_recv().unwrap();
                self.outbox = joined.as_ref().map(|joined| Arc::clone(&joined.outbox));
                return self.session.on_joined(joined, now);
            }
            Action::Unsubscribe(listener, patterns) => tell(Control::Unsubscribe(listener, patterns)),
            Action::Annunciate(listener) => tell(Control::Annunciate(listener)),
            Action::Receipt(receipt) => tell(Control::Receipt(receipt)),
            Action::Delivered(user, ids) => tell(Control::Delivered(user, ids)),
            Action::Acked(user, channel, seq) => tell(Control::Acked(user, channel, seq)),
            Action::Command(request) => {
                let (reply, mut answer) = oneshot::channel();
                let key = Some(request.key);
                let (command, by, scope) = (request.command, request.by, request.scope);
                tell(Control::Command(CommandWish { command, by: by.into(), scope, key, reply }));
                let done = answer.try_recv().unwrap().map_err(|refusal| (refusal.code, refusal.reason));
                let mut actions = self.session.on_command_done(&request.correlation_id, done, now);
                // This disk is never late.
                actions.extend(self.session.on_durable(Seq(u64::MAX), now));
                return actions;
            }
            other => panic!("no conversation needs this: {other:?}"),
        }
        Vec::new()
    }

    /// What waits in the outbox goes to the session.
    fn deliver(&mut self) {
        let Some(outbox) = self.outbox.clone() else { return };
        while outbox.filled(&self.clock).now_or_never().is_some() {
            let mut parcels = Vec::new();
            assert!(outbox.take(64, &mut parcels), "overrun");
            let actions = self.session.on_parcels(&parcels, self.clock.now());
            self.carry_out(actions);
        }
    }
}

impl Other for Alone {
    async fn say(&mut self, text: &str) {
        let actions = self.session.on_text(text, self.clock.now());
        self.carry_out(actions);
    }

    async fn hear(&mut self) -> Option<Came> {
        self.deliver();
        self.heard.pop_front()
    }

    async fn pass(&mut self, span: Duration) {
        let end = self.clock.now().mono + span;
        loop {
            // The outbox has times of its own, of 10 ms at least.
            let now = self.clock.now().mono;
            let next = self.session.next_deadline().min(self.pipeline.next_deadline());
            let next = next.min(now + Duration::from_millis(10)).min(end).max(now + Duration::from_millis(1));
            tokio::time::advance(next.since(now)).await;
            let now = self.clock.now();
            self.pipeline.on_deadline(now);
            self.deliver();
            let actions = self.session.on_deadline(now);
            self.carry_out(actions);
            if now.mono >= end {
                break;
            }
        }
    }

    async fn measured(&mut self, metric: Metric, value: i32) {
        let now = self.clock.now();
        let reading = demo_reading(&self.patient(), metric, value, now);
        self.pipeline.on_source_message(SourceMessage::Reading(reading), now);
        self.pipeline.on_tick(now);
        self.deliver();
    }

    fn token(&self) -> String {
        self.key.issue(&claims(&self.clock)).unwrap().expose().to_owned()
    }

    fn patient(&self) -> String {
        self.shared.patients[0].id.to_string()
    }

    fn epoch(&self) -> String {
        self.shared.epoch.to_string()
    }
}

/// The whole server, and a client of another library.
struct Through {
    server: Server,
    dashboard: Dashboard,
}

impl Other for Through {
    async fn say(&mut self, text: &str) {
        self.dashboard.say_text(text).await;
    }

    async fn hear(&mut self) -> Option<Came> {
        // Paused time goes on only when nobody has anything to do, and then nothing more comes.
        tokio::time::timeout(Duration::from_millis(5), self.dashboard.read()).await.ok()
    }

    async fn pass(&mut self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn measured(&mut self, metric: Metric, value: i32) {
        let patient = self.patient();
        self.server.reading(&patient, metric, value).await;
    }

    fn token(&self) -> String {
        self.server.token(&claims(&self.server.clock))
    }

    fn patient(&self) -> String {
        super::patients(&self.server)[0].clone()
    }

    fn epoch(&self) -> String {
        self.server.site.gate.shared.epoch.to_string()
    }
}

#[tokio::test(start_paused = true)]
async fn conversations_with_the_session_alone() {
    for (name, steps) in conversations() {
        hold(name, steps, &mut Alone::new()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_conversations_through_axum() {
    for (name, steps) in conversations() {
        let server = Server::start_with(Clock::tokio(START), &StoreOptions::default());
        let dashboard = Dashboard::over(server.stream(), HOST, "/ws", &[]).await.unwrap();
        hold(name, steps, &mut Through { server, dashboard }).await;
    }
}
