//! A session's answers in virtual time, without a socket.

use serde_json::{Value as Json, json};

use super::*;
use crate::channel::routes;
use crate::clock::Wall;
use crate::event::{
    Activation, AlertChange, AlertEvent, AlertKind, ChatEvent, ChatMessage, EventBody, Presence, Priority, Signal,
    SignalPresence,
};
use crate::hub::Join;
use crate::ids::AlertId;
use crate::outbox::{Forms, Frame, Parcel};
use crate::patient::Patient;
use crate::pipeline::{ChatAct, ChatDone};
use crate::rooms::{Members, Moment};
use crate::server::auth::{Capability, Role};
use crate::server::contract::frames;
use crate::server::history::Page;
use crate::server::jwt::Claims;
use crate::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};

fn at(seconds: u64) -> Stamp {
    Stamp { mono: Mono::from_millis(seconds * 1000), wall: Wall(1_800_000_000_000) }
}

fn session() -> Session {
    session_of(&shared())
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        bridge: "b".parse().unwrap(),
        site: "s".parse().unwrap(),
        epoch: "e".parse().unwrap(),
        patients: Vec::new(),
        users: Users::default(),
        limits: ServerLimits::default(),
        close_codes: CloseCodes::Own,
        streams: Streams::default(),
    })
}

fn session_of(shared: &Arc<Shared>) -> Session {
    session_in(shared, Form::Json)
}

fn session_in(shared: &Arc<Shared>, form: Form) -> Session {
    let exp = 1_800_003_600;
    let claims = Claims { sub: "u".into(), role: Role::Nurse, caps: None, jti: None, iat: None, nbf: None, exp };
    Session::new(Arc::clone(shared), "c".into(), Some(Rights::from_claims(&claims)), Manner::new(&[], form), at(0)).0
}

fn alert(id: u128, seq: u64, change: AlertChange) -> Arc<Published> {
    let signal = Signal { activation: Activation::On, presence: SignalPresence::On };
    let body = EventBody::Alert(AlertEvent {
        alert: AlertId(uuid::Uuid::from_u128(id)),
        change,
        patient: Some("P-1".parse().unwrap()),
        device: None,
        rule: "spo2_low".parse().unwrap(),
        kind: AlertKind::Physiological,
        priority: Priority::Medium,
        metric: None,
        value: None,
        limit: String::new(),
        message: String::new(),
        presence: Presence::True,
        audio: signal,
        visual: signal,
        onset: Wall(0),
        announced: Wall(0),
        paused_until: None,
        hidden_by: None,
        recurrence: 0,
        by: None,
        end_reason: None,
        escalated: 0,
        mode: Mode::Test,
    });
    let event = Event { epoch: "e".parse().unwrap(), seq: Seq(seq), at: at(0), body };
    let (routes, text) = (routes(&event, None), Frame::text(&wire::push(&event).unwrap()));
    Arc::new(Published { event: Arc::new(event), routes, text, forms: Forms::default() })
}

/// The JSON of everything that is written, in its order.
fn written(actions: &[Action]) -> Vec<Json> {
    let text = |action: &Action| match action {
        Action::Send(text) => Some(text.clone()),
        Action::SendShared(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    };
    let read = |text: String| serde_json::from_str(&text).unwrap();
    actions.iter().filter_map(text).map(read).inspect(frames::check).collect()
}

/// A session that resumes after event 1 and is being sent what the disk has; one alert stands.
fn resuming() -> Session {
    let mut session = session();
    let subscribe = r#"{"type":"subscribe","channels":["alerts/+"],"since":{"epoch":"e","seq":1}}"#;
    assert!(matches!(session.on_text(subscribe, at(1))[..], [Action::Locate(..)]));
    assert!(matches!(session.on_located(Located { after: Some(Seq(1)), lost: vec![] })[..], [Action::Join(_)]));
    let mut hub = crate::hub::Hub::new(Seq(90), Arc::default());
    hub.publish(&alert(1, 91, AlertChange::Start));
    let join = Join {
        listener: None,
        user: None,
        patterns: vec!["alerts/+".parse().unwrap()],
        filter: None,
        acks: false,
        scope: Scope::Everything,
        delivery: Delivery::All,
        since: Some(Seq(1)),
    };
    let actions = session.on_joined(hub.join(join), at(1));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Replay { after: Seq(1), through: Seq(90), readings: true }))
    );
    session
}

#[test]
fn the_snapshot_after_a_replay_knows_the_alerts_that_overtook_it() {
    let mut session = resuming();
    let overtaking = [alert(1, 95, AlertChange::End), alert(2, 96, AlertChange::Start)].map(Parcel::Event);
    let shown = written(&session.on_parcels(&overtaking, at(2)));
    assert_eq!(shown.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [95, 96]);
    let messages = written(&session.on_replayed(at(3)));
    let snapshot = messages.iter().find(|message| message["type"] == "snapshot").unwrap();
    let seqs: Vec<u64> =
        snapshot["data"]["alerts"].as_array().unwrap().iter().map(|alert| alert["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [96], "one has ended, the other has begun");
}

#[test]
fn a_long_replay_is_not_taken_for_a_silent_client() {
    let mut session = resuming();
    for second in 2..60 {
        let actions = session.on_deadline(at(second));
        assert!(!actions.iter().any(|action| matches!(action, Action::Ping | Action::Close(_))), "{second}");
    }
    session.on_replayed(at(60));
    assert!(session.on_deadline(at(80)).iter().any(|action| matches!(action, Action::Ping)));
    assert!(session.on_deadline(at(89)).iter().any(|action| matches!(action, Action::Close(Close::NoPong))));
}

#[test]
fn a_command_is_answered_when_it_is_on_disk_or_with_the_word_that_it_is_not() {
    let mut session = session();
    assert!(session.on_command_done("a", Ok(Done { seq: Seq(5), is_kept: true }), at(1)).is_empty());
    assert!(session.on_durable(Seq(4), at(2)).is_empty());
    let answer = written(&session.on_durable(Seq(5), at(3)));
    assert_eq!((&answer[0]["correlation_id"], &answer[0]["data"]["durable"]), (&json!("a"), &json!(true)));

    session.on_command_done("b", Ok(Done { seq: Seq(9), is_kept: true }), at(4));
    assert!(session.next_deadline() <= at(9).mono);
    let late = written(&session.on_deadline(at(9)));
    let answer = late.iter().find(|message| message["type"] == "result").unwrap();
    assert_eq!((&answer["correlation_id"], &answer["data"]["durable"]), (&json!("b"), &json!(false)));

    // What the store has not taken is not on disk with a later number.
    session.on_durable(Seq(20), at(10));
    let answer = written(&session.on_command_done("c", Ok(Done { seq: Seq(15), is_kept: false }), at(10)));
    assert_eq!((&answer[0]["correlation_id"], &answer[0]["data"]["durable"]), (&json!("c"), &json!(false)));
}

#[test]
fn a_message_is_complete_when_it_is_on_disk_or_with_the_word_that_it_is_not() {
    let mut session = session();
    let act = ChatAct::Send { room: "r".to_owned(), text: "t".to_owned(), name: None };
    let done = |seq, is_kept| Ok(ChatDone { id: Some(uuid::Uuid::from_u128(5)), done: Done { seq, is_kept } });
    assert!(session.on_chat_done("a", &act, done(Seq(5), true), at(1)).is_empty());
    assert!(session.waits_for_disk() && session.on_durable(Seq(4), at(2)).is_empty());
    let answer = written(&session.on_durable(Seq(5), at(3)));
    assert_eq!((&answer[0]["type"], &answer[0]["correlation_id"]), (&json!("complete"), &json!("a")));
    assert_eq!((&answer[0]["data"]["durable"], &answer[0]["data"]["conversation_id"]), (&json!(true), &json!("r")));
    assert!(!session.waits_for_disk());

    session.on_chat_done("b", &act, done(Seq(9), true), at(4));
    assert!(session.next_deadline() <= at(9).mono);
    let late = written(&session.on_deadline(at(9)));
    let answer = late.iter().find(|message| message["type"] == "complete").unwrap();
    assert_eq!((&answer["correlation_id"], &answer["data"]["durable"]), (&json!("b"), &json!(false)));

    // What the store has not taken is not on disk with a later number.
    session.on_durable(Seq(20), at(10));
    let answer = written(&session.on_chat_done("c", &act, done(Seq(15), false), at(10)));
    assert_eq!((&answer[0]["correlation_id"], &answer[0]["data"]["durable"]), (&json!("c"), &json!(false)));
    let refusal = crate::desk::Refusal { code: "store_full", reason: "later".to_owned() };
    let answer = written(&session.on_chat_done("d", &act, Err(refusal), at(10)));
    assert_eq!((&answer[0]["type"], &answer[0]["data"]["retryable"]), (&json!("error"), &json!(true)));
}

#[test]
fn a_token_is_announced_to_end_and_then_ends_the_session() {
    let mut session = session();
    let later = |seconds: i64| Stamp { mono: at(100_000).mono, wall: Wall(1_800_000_000_000 + seconds * 1000) };
    let kinds = |session: &mut Session, seconds| -> Vec<String> {
        session.next_heartbeat = Mono(0);
        session.pong_due = None;
        session.on_text(r#"{"type":"heartbeat"}"#, later(seconds));
        let messages = written(&session.on_deadline(later(seconds)));
        messages.iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&mut session, 3500), ["heartbeat"]);
    assert_eq!(kinds(&mut session, 3590), ["heartbeat", "token_expiring"]);
    assert_eq!(kinds(&mut session, 3620), ["heartbeat"]);
    assert_eq!(kinds(&mut session, 3626), ["heartbeat", "closing"]);
}

#[test]
fn a_user_may_say_so_much_over_all_connections_and_small_talk_does_not_count() {
    let shared = shared();
    let (mut one, mut other) = (session_of(&shared), session_of(&shared));
    let command = r#"{"type":"get_preferences","id":"g"}"#;
    let is_taken = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Preferences(..)));
    let is_refused = |actions: &[Action]| {
        let told = written(actions);
        told.len() == 1
            && (&told[0]["data"]["code"], &told[0]["data"]["retryable"]) == (&json!("rate_limited"), &json!(true))
    };
    for _ in 0..25 {
        assert!(is_taken(&one.on_text(command, at(1))) && is_taken(&other.on_text(command, at(1))));
    }
    assert!(is_refused(&one.on_text(command, at(1))) && is_refused(&other.on_text(command, at(1))));
    assert!(is_refused(&one.on_text("rubbish", at(1))), "what cannot be read counts as well");
    // A display that comes back is not kept from its alarms, and what confirms them passes.
    let subscribe = r#"{"type":"subscribe","channels":["alerts/+"]}"#;
    let mut back = session_of(&shared);
    assert!(back.on_text(subscribe, at(1)).iter().any(|action| matches!(action, Action::Join(_))));
    assert!(is_refused(&back.on_text(subscribe, at(1))));
    assert_eq!(written(&one.on_text(r#"{"type":"ping"}"#, at(1)))[0]["type"], "pong");
    assert!(is_taken(&one.on_text(command, at(2))), "one more after 0.6 s");
    assert!(is_refused(&other.on_text(command, at(2))));
}

#[test]
fn who_floods_is_closed_and_may_come_back_later() {
    let mut session = session();
    let pings = |session: &mut Session, count: usize| -> Vec<Action> {
        (0..count).flat_map(|_| session.on_text(r#"{"type":"ping"}"#, at(1))).collect()
    };
    let told = written(&pings(&mut session, 59));
    assert_eq!(told.iter().filter(|message| message["type"] == "pong").count(), 50);
    assert!(!session.is_closed());
    let last = pings(&mut session, 1);
    let closing = &written(&last)[1]["data"];
    assert_eq!((&closing["code"], &closing["reconnect"]), (&json!(4203), &json!(true)), "{closing}");
    assert!(last.iter().any(|action| matches!(action, Action::Close(Close::RateLimited))));
}

#[test]
fn who_says_nothing_is_closed_sooner_without_subscriptions_and_a_heartbeat_is_enough() {
    let closed = |session: &mut Session, seconds| {
        session.pong_due = None;
        let messages = written(&session.on_deadline(at(seconds)));
        messages.iter().find(|message| message["type"] == "closing").map(|message| message["data"].clone())
    };
    let mut silent = session();
    assert!(silent.next_deadline() <= at(300).mono, "nobody else wakes it");
    assert_eq!(closed(&mut silent, 299), None);
    let why = closed(&mut silent, 300).unwrap();
    assert_eq!((&why["code"], &why["reason"], &why["reconnect"]), (&json!(4209), &json!("idle_timeout"), &json!(true)));

    let mut alive = session();
    alive.on_text(r#"{"type":"heartbeat"}"#, at(299));
    assert_eq!(closed(&mut alive, 598), None);
    assert!(closed(&mut alive, 599).is_some());

    let mut listening = session();
    listening.patterns = vec!["alerts/+".parse().unwrap()];
    assert_eq!(closed(&mut listening, 3599), None);
    assert_eq!(closed(&mut listening, 3600).unwrap()["reason"], "idle_timeout");

    let mut mute = session();
    mute.pace.is_mute = true;
    mute.patterns = vec!["alerts/+".parse().unwrap()];
    assert_eq!(closed(&mut mute, 3600), None, "it cannot say anything");
    assert_eq!(closed(&mut mute, 86_400), None);
}

#[test]
fn before_the_sign_in_there_is_one_message() {
    for text in
        [r#"{"type":"ping"}"#, r#"{"type":"subscribe","channels":["system"]}"#, "rubbish", r#"{"type":"heartbeat"}"#]
    {
        let mut stranger = Session::new(shared(), "c".into(), None, Manner::new(&[], Form::Json), at(0)).0;
        let answers = written(&stranger.on_text(text, at(1)));
        let kinds: Vec<&str> = answers.iter().map(|answer| answer["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["error", "closing"], "{text}");
        assert_eq!(answers[1]["data"]["code"], 4003);
        assert!(stranger.on_text(r#"{"type":"authenticate","token":"t"}"#, at(1)).is_empty(), "{text}");
    }
}

#[test]
fn a_flood_of_pings_is_closed_and_the_usual_ones_are_not() {
    let mut calm = session();
    for second in 1..600 {
        assert!((0..50).all(|_| calm.on_control(at(second)).is_empty()), "{second}");
    }
    let mut flood = session();
    let taken = (0..1000).take_while(|_| flood.on_control(at(1)).is_empty()).count();
    assert_eq!(taken, 59, "50 at once, and the tenth that is refused in a row is the last");
    assert!(flood.is_closed());
}

#[test]
fn at_the_end_sessions_are_sent_away_for_times_that_are_spread() {
    let away = |number: u64| {
        // As the server makes them: 16 hexadecimal digits.
        let id = format!("{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut session = Session::new(shared(), id, None, Manner::new(&[], Form::Json), at(0)).0;
        let closing = written(&session.close_now(Close::ServerShutdown, at(1)));
        closing[0]["data"]["retry_after_ms"].as_u64().unwrap()
    };
    let mut tenths = [0; 10];
    for number in 1..=2000 {
        let pause = away(number);
        assert!(pause < 5000);
        tenths[usize::try_from(pause / 500).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|count| (120..=280).contains(count)), "{tenths:?}");
}

#[test]
fn a_probe_asks_at_once_and_never_twice_for_one_answer() {
    let mut session = session();
    let pings = |actions: Vec<Action>| actions.iter().filter(|action| matches!(action, Action::Ping)).count();
    assert_eq!(pings(session.on_probe(at(1))), 1);
    assert_eq!(pings(session.on_probe(at(2))), 0, "the first is not answered yet");
    session.on_pong(at(2));
    assert_eq!(pings(session.on_probe(at(3))), 1);
}

#[test]
fn an_alert_that_is_not_acknowledged_comes_twice_and_then_the_connection_is_not_healthy() {
    let mut session = session();
    let subscribe = r#"{"type":"subscribe","channels":["alerts/+"],"acks":true}"#;
    session.on_text(subscribe, at(1));
    let mut hub = crate::hub::Hub::new(Seq(90), Arc::default());
    let join = Join {
        listener: None,
        user: None,
        patterns: vec!["alerts/+".parse().unwrap()],
        filter: None,
        scope: Scope::Everything,
        delivery: Delivery::Latest,
        since: None,
        acks: true,
    };
    session.on_joined(hub.join(join), at(1));
    let alerts = |actions: &[Action]| -> Vec<(u64, bool)> {
        let told = written(actions).into_iter().filter(|message| message["type"] == "alert");
        told.map(|it| (it["seq"].as_u64().unwrap(), it["redelivered"] == true)).collect()
    };
    let parcels = [alert(1, 91, AlertChange::Start), alert(2, 92, AlertChange::Start)].map(Parcel::Event);
    assert_eq!(alerts(&session.on_parcels(&parcels, at(2))), [(91, false), (92, false)]);
    let ack = |session: &mut Session, epoch: &str, seq: u64, now| {
        let text = format!(r#"{{"type":"ack","channel":"alerts/P-1","epoch":"{epoch}","seq":{seq}}}"#);
        session.on_text(&text, now).iter().filter(|it| matches!(it, Action::Acked(..))).count()
    };
    assert_eq!(ack(&mut session, "e", 91, at(3)), 1);
    assert_eq!(ack(&mut session, "elsewhere", 92, at(3)), 0, "another run's number is another event");
    assert!(session.next_deadline() <= at(7).mono);
    assert_eq!(alerts(&session.on_deadline(at(7))), [(92, true)]);
    assert!(session.is_healthy());
    assert_eq!(alerts(&session.on_deadline(at(11))), []);
    session.on_pong(at(11));
    assert_eq!(alerts(&session.on_deadline(at(12))), []);
    assert_eq!((session.is_healthy(), session.acked_seq()), (false, Some(Seq(91))));
    assert_eq!(ack(&mut session, "e", 500, at(13)), 1, "no further than what was sent");
    assert_eq!((session.is_healthy(), session.acked_seq()), (true, Some(Seq(92))));
}

#[test]
fn a_form_is_made_once_for_all_who_want_it_and_not_where_nobody_does() {
    let (shared, published) = (shared(), alert(1, 91, AlertChange::Start));
    let told = |form| {
        let mut session = session_in(&shared, form);
        session.patterns = vec!["alerts/+".parse().unwrap()];
        match session.on_parcels(&[Parcel::Event(Arc::clone(&published))], at(1)).remove(0) {
            Action::SendShared(frame) => frame,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(Form::Json).as_ptr(), published.text.as_ptr());
    assert_eq!(told(Form::Compact).as_ptr(), published.text.as_ptr(), "an alert stays as it is");
    assert!(published.forms.cbor.get().is_none() && published.forms.compact.get().is_none());
    assert_eq!(told(Form::Cbor).as_ptr(), told(Form::Cbor).as_ptr());
    assert_ne!(told(Form::Cbor), published.text);
}

/// The rights of a nurse who may hear and read of these patients alone.
fn rights_of(patients: &[&str]) -> Rights {
    let cap = |id: &&str| Capability::of_patient(&id.parse().unwrap(), Role::Nurse);
    let caps = Some(patients.iter().map(cap).collect());
    let exp = 1_800_003_600;
    Rights::from_claims(&Claims { sub: "u".into(), role: Role::Nurse, caps, jti: None, iat: None, nbf: None, exp })
}

fn shared_with(patients: &[&str]) -> Arc<Shared> {
    let patient = |id: &&str| Patient {
        id: id.parse().unwrap(),
        name: (*id).to_owned(),
        bed: String::new(),
        ward: "W".parse().unwrap(),
        mode: Mode::Test,
    };
    let shared = Arc::into_inner(shared()).unwrap();
    Arc::new(Shared { patients: patients.iter().map(patient).collect(), ..shared })
}

fn spo2(patient: &str, seq: u64) -> Arc<Published> {
    let now = at(seq);
    let body = EventBody::Reading(Reading {
        patient: Some(patient.parse().unwrap()),
        device: "d".parse().unwrap(),
        source: "s".parse().unwrap(),
        vital: Vital::scalar(Metric::Spo2, Value::Valid(Decimal::integer(97))),
        mdc: None,
        quality: Quality::Valid,
        mode: Mode::Test,
        taken: Taken::on_arrival(now),
        received: now,
    });
    let event = Event { epoch: "e".parse().unwrap(), seq: Seq(seq), at: now, body };
    let (routes, text) = (routes(&event, Some(&"W".parse().unwrap())), Frame::text(&wire::push(&event).unwrap()));
    Arc::new(Published { event: Arc::new(event), routes, text, forms: Forms::default() })
}

/// Says `subscribe` and has the hub answer it.
fn subscribed(session: &mut Session, hub: &mut crate::hub::Hub, more: &str) -> Vec<Json> {
    let mut actions = session.on_text(&format!(r#"{{"type":"subscribe",{more}}}"#), at(1));
    if matches!(actions[..], [Action::Locate(..)]) {
        actions = session.on_located(Located { after: Some(Seq::ZERO), lost: vec![] });
    }
    let Some(Action::Join(join)) = actions.pop() else { panic!("{actions:?}") };
    written(&session.on_joined(hub.join(*join), at(1)))
}

fn alerts_of(actions: &[Action]) -> Vec<u64> {
    let told = written(actions).into_iter().filter(|message| message["type"] == "alert");
    told.map(|it| it["seq"].as_u64().unwrap()).collect()
}

#[test]
fn an_alert_that_the_client_may_or_will_not_hear_any_more_is_not_sent_again() {
    for (change, again) in [("none", vec![91]), ("P-1", vec![91]), ("P-2", vec![]), ("unsubscribe", vec![])] {
        let mut session = session();
        let mut hub = crate::hub::Hub::new(Seq(90), Arc::default());
        subscribed(&mut session, &mut hub, r#""channels":["alerts/+","patient/+/+"],"acks":true"#);
        let parcel = Parcel::Event(alert(1, 91, AlertChange::Start));
        assert_eq!(alerts_of(&session.on_parcels(&[parcel], at(2))), [91]);
        match change {
            "none" => {}
            "unsubscribe" => {
                session.on_text(r#"{"type":"unsubscribe","channels":["alerts/+"]}"#, at(3));
            }
            patient => {
                session.on_token(Ok(rights_of(&[patient])), at(3));
            }
        }
        assert_eq!(alerts_of(&session.on_deadline(at(7))), again, "{change}");
    }
}

#[test]
fn an_ack_moves_the_cursor_over_nothing_that_this_connection_did_not_get() {
    for (subscribe, parcels, moved) in [
        (r#""channels":["alerts/+"]"#, vec![], vec![("alerts/P-1", 95), ("alerts/P-2", 95), ("alerts/bridge", 95)]),
        (r#""channels":["alerts/P-1"]"#, vec![], vec![("alerts/P-1", 95)]),
        (r#""channels":["patient/+/+"]"#, vec![], vec![]),
        (r#""channels":["alerts/+"],"filter":{"priority":["high"]}"#, vec![], vec![]),
        (r#""channels":["alerts/+"],"filter":{"priority":["high"]}"#, vec![93], vec![("alerts/P-1", 93)]),
    ] {
        let mut session = session_of(&shared_with(&["P-1", "P-2"]));
        let mut hub = crate::hub::Hub::new(Seq(95), Arc::default());
        subscribed(&mut session, &mut hub, &format!(r#"{subscribe},"acks":true"#));
        let parcels: Vec<Parcel> =
            parcels.iter().map(|seq| Parcel::Event(alert(1, *seq, AlertChange::Start))).collect();
        session.on_parcels(&parcels, at(2));
        let actions = session.on_text(r#"{"type":"ack","channel":"alerts/+","epoch":"e","seq":95}"#, at(3));
        let found: Vec<(&str, u64)> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Acked(_, channel, seq) => Some((channel.as_str(), seq.0)),
                _ => None,
            })
            .collect();
        assert_eq!(found, moved, "{subscribe}");
    }
}

#[test]
fn a_page_of_the_past_does_not_outlive_the_rights_it_was_asked_with() {
    for (rights, expected) in [(rights_of(&["P-1", "P-2"]), "history"), (rights_of(&["P-2"]), "error")] {
        let claims = rights_of(&["P-1", "P-2"]);
        let mut session = Session::new(shared(), "c".into(), Some(claims), Manner::new(&[], Form::Json), at(0)).0;
        let ask = r#"{"type":"history","channels":["patient/P-1/spo2"],"id":"h"}"#;
        assert!(matches!(session.on_text(ask, at(1))[..], [Action::History(_)]));
        session.on_token(Ok(rights), at(2));
        let answer = written(&session.on_history("h", Some(&Page::empty("e".parse().unwrap())), at(3)));
        assert_eq!((&answer[0]["type"], &answer[0]["correlation_id"]), (&json!(expected), &json!("h")));
        // What is asked with the new rights is answered.
        session.on_text(&ask.replace("P-1", "P-2"), at(4));
        let answer = written(&session.on_history("h", Some(&Page::empty("e".parse().unwrap())), at(5)));
        assert_eq!(answer[0]["type"], "history");
    }
}

#[test]
fn what_waited_when_its_channel_was_left_is_not_sent_and_has_no_age() {
    for (subscribe, leave, stays) in [
        ("patient/P-1/+", "patient/P-1/+", false),
        ("ward/W/patient/+/+", "system", true),
        ("ward/W/patient/+/+", "ward/W/patient/+/+", false),
    ] {
        let mut session = session();
        let mut hub = crate::hub::Hub::new(Seq(1), Arc::default());
        subscribed(&mut session, &mut hub, &format!(r#""channels":["{subscribe}","system"]"#));
        session.on_parcels(&[Parcel::Event(spo2("P-1", 2))], at(2));
        session.on_text(&format!(r#"{{"type":"unsubscribe","channels":["{leave}"]}}"#), at(3));
        let ages = |session: &mut Session, now| {
            let told = written(&session.on_deadline(at(now)));
            let heartbeat = told.into_iter().find(|it| it["type"] == "heartbeat").unwrap();
            heartbeat["data"]["ages"].as_object().unwrap().len()
        };
        assert_eq!(ages(&mut session, 5), usize::from(stays), "{subscribe}");
        let pushed = written(&session.on_parcels(&[Parcel::Event(spo2("P-1", 4))], at(6)));
        assert_eq!(pushed.len(), usize::from(stays), "{subscribe}");
        assert_eq!(ages(&mut session, 10), usize::from(stays), "{subscribe}");
    }
}

#[test]
fn a_narrowed_token_is_told_of_no_other_patient_in_a_snapshot_or_a_resume() {
    for since in ["", r#","since":{"epoch":"e","seq":0}"#] {
        let shared = shared_with(&["P-1", "P-2"]);
        let mut session =
            Session::new(shared, "c".into(), Some(rights_of(&["P-1"])), Manner::new(&[], Form::Json), at(0)).0;
        let mut hub = crate::hub::Hub::new(Seq::ZERO, Arc::default());
        hub.publish(&spo2("P-1", 1));
        hub.publish(&spo2("P-2", 2));
        let told = subscribed(&mut session, &mut hub, &format!(r#""channels":["patient/+/+"]{since}"#));
        let snapshot = told.iter().find(|message| message["type"] == "snapshot").unwrap();
        assert!(snapshot.to_string().contains("P-1"), "{snapshot}");
        let pushed = told.iter().filter(|message| message["seq"] == 1).count();
        assert_eq!(pushed, usize::from(!since.is_empty()), "{told:?}");
        assert!(told.iter().all(|message| !message.to_string().contains("P-2")), "{told:?}");
    }
}

/// A token for these channels alone.
fn rights_on(channels: &[&str]) -> Rights {
    let allow = Role::Nurse.operations().to_vec();
    let caps = Some(vec![Capability { channels: channels.iter().map(|it| (*it).to_owned()).collect(), allow }]);
    let exp = 1_800_003_600;
    Rights::from_claims(&Claims { sub: "u".into(), role: Role::Nurse, caps, jti: None, iat: None, nbf: None, exp })
}

#[test]
fn what_is_lost_of_a_subscription_that_stays_is_told_also_where_it_was_open_through_the_ward() {
    let second = json!(["patient/P-2/#", "alerts/P-2"]);
    for (before, after, subscribed_to, lost) in [
        (vec!["ward/W/#"], vec!["ward/W/patient/P-1/#", "ward/W/alerts/P-1"], "ward/W/#", second.clone()),
        (vec!["ward/W/#"], vec!["patient/P-1/#", "alerts/P-1"], "#", second.clone()),
        (vec!["#"], vec!["ward/W/#"], "#", json!(["waveform/P-1/#", "waveform/P-2/#"])),
        (vec!["ward/W/#"], vec!["patient/+/+", "alerts/+"], "#", json!(null)),
    ] {
        let shared = shared_with(&["P-1", "P-2"]);
        let manner = Manner::new(&[], Form::Json);
        let mut session = Session::new(shared, "c".into(), Some(rights_on(&before)), manner, at(0)).0;
        let mut hub = crate::hub::Hub::new(Seq(1), Arc::default());
        subscribed(&mut session, &mut hub, &format!(r#""channels":["{subscribed_to}"]"#));
        // Its age is known under its own channel, though it came by the ward's.
        session.on_parcels(&[Parcel::Event(spo2("P-1", 2)), Parcel::Event(spo2("P-2", 3))], at(2));
        let told = written(&session.on_token(Ok(rights_on(&after)), at(3)));
        let narrowed = told.iter().find(|message| message["data"]["narrowed"] == true);
        let found = narrowed.map_or(Json::Null, |message| {
            let channels = message["data"]["channels"].as_array().unwrap();
            channels.iter().filter(|it| !matches!(it.as_str(), Some("system" | "audit"))).cloned().collect()
        });
        assert_eq!(found, lost, "{before:?} {after:?}");
    }
}

#[test]
fn a_number_of_a_quality_that_is_not_wanted_takes_the_last_good_one_off_the_screen() {
    let of = |published: &Arc<Published>, quality| {
        let mut event = Event::clone(&published.event);
        if let EventBody::Reading(reading) = &mut event.body {
            reading.quality = quality;
        }
        let text = Frame::text(&wire::push(&event).unwrap());
        let (routes, forms) = (published.routes.clone(), Forms::default());
        Arc::new(Published { event: Arc::new(event), routes, text, forms })
    };
    let shown = |message: &Json| {
        let data = &message["data"];
        (message["seq"].clone(), data["value"].clone(), data["absent"].clone(), data["quality"].clone())
    };
    let filter = r#""channels":["patient/P-1/+"],"filter":{"quality":"valid"},"delivery":"all""#;
    let mut hub = crate::hub::Hub::new(Seq::ZERO, Arc::default());
    let mut session = session_of(&shared_with(&["P-1"]));
    subscribed(&mut session, &mut hub, filter);
    hub.publish(&spo2("P-1", 1));
    hub.publish(&of(&spo2("P-1", 2), Quality::Questionable));
    let outbox = hub.join(join_of(&session)).unwrap().outbox;
    let mut parcels = Vec::new();
    outbox.take(10, &mut parcels);
    let told = written(&session.on_parcels(&parcels, at(3)));
    assert_eq!(shown(&told[0]), (json!(1), json!(97), json!(null), json!("valid")));
    let withheld = (json!(2), json!(null), json!("withheld"), json!("questionable"));
    assert_eq!(shown(&told[1]), withheld);

    // Who comes later learns it from the snapshot, and who comes back from what he missed: of memory or of the disk.
    let mut late = session_of(&shared_with(&["P-1"]));
    let told = subscribed(&mut late, &mut hub, filter);
    let snapshot = told.iter().find(|message| message["type"] == "snapshot").unwrap();
    let reading = &snapshot["data"]["readings"][0];
    assert_eq!((&reading["value"], &reading["absent"]), (&json!(null), &json!("withheld")), "{snapshot}");
    let mut back = session_of(&shared_with(&["P-1"]));
    let told = subscribed(&mut back, &mut hub, &format!(r#"{filter},"since":{{"epoch":"e","seq":1}}"#));
    assert!(told.iter().any(|message| shown(message) == withheld), "{told:?}");
    let mut hub = crate::hub::Hub::new(Seq(2), Arc::default());
    hub.publish(&spo2("P-1", 3));
    let mut back = session_of(&shared_with(&["P-1"]));
    subscribed(&mut back, &mut hub, &format!(r#"{filter},"since":{{"epoch":"e","seq":1}}"#));
    let stored = Event::clone(&of(&spo2("P-1", 2), Quality::Questionable).event);
    let told = written(&back.on_replay(&[stored], at(4)));
    assert!(told.iter().any(|message| shown(message) == withheld), "{told:?}");

    // Who wants it all beside it gets the number.
    let mut both = session_of(&shared_with(&["P-1"]));
    subscribed(&mut both, &mut hub, filter);
    subscribed(&mut both, &mut hub, r#""channels":["patient/+/+"]"#);
    hub.publish(&of(&spo2("P-1", 4), Quality::Questionable));
    let outbox = hub.join(join_of(&both)).unwrap().outbox;
    let mut parcels = Vec::new();
    outbox.take(10, &mut parcels);
    assert_eq!(written(&both.on_parcels(&parcels, at(5)))[0]["data"]["value"], 97);
}

/// A join that adds nothing: it gives the outbox of the session's listener.
fn join_of(session: &Session) -> Join {
    match session.join_action(Vec::new(), (None, session.delivery), None) {
        Action::Join(join) => *join,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_name_of_a_command_is_its_connections_own_and_a_long_one_its_users() {
    let key = |id: &str, connection: &str| {
        let rights = Some(rights_of(&["P-1"]));
        let manner = Manner::new(&[], Form::Json);
        let mut session = Session::new(shared(), connection.into(), rights, manner, at(0)).0;
        let data = r#""data":{"name":"preferences.set","mute":[]}"#;
        let mut actions = session.on_text(&format!(r#"{{"type":"command",{id}{data}}}"#), at(1));
        match actions.pop() {
            Some(Action::Command(request)) => (request.correlation_id, request.key),
            other => panic!("{other:?}"),
        }
    };
    // A client that counts its messages begins anew with each page.
    assert_eq!(key(r#""correlation_id":"1","#, "c1"), ("1".to_owned(), "c1/1".to_owned()));
    assert_eq!(key(r#""id":1,"#, "c2"), ("1".to_owned(), "c2/1".to_owned()));
    for long in ["0123456789abcdef", "0193f8a0-5b7e-7c4e-9d3a-2f1c5b7e9d3a"] {
        let id = format!(r#""correlation_id":"{long}","#);
        assert_eq!((key(&id, "c1").1, key(&id, "c2").1), (long.to_owned(), long.to_owned()));
    }
    assert_eq!(key("", "c1").1, "", "a command without a name is done each time");
}

#[test]
fn what_is_missing_of_a_replay_is_told_as_a_gap_and_nothing_else_is() {
    let stored = |seq| Event::clone(&spo2("P-1", seq).event);
    for (events, expected) in [
        (vec![2, 3, 90], vec![(4, 89)]),
        (vec![5, 6], vec![(2, 4), (7, 90)]),
        (vec![], vec![(2, 90)]),
        ((2..=90).collect(), vec![]),
    ] {
        let mut session = resuming();
        let events: Vec<Event> = events.into_iter().map(stored).collect();
        // In chunks, as they are read.
        let mut told = Vec::new();
        for chunk in events.chunks(2) {
            told.extend(written(&session.on_replay(chunk, at(2))));
        }
        told.extend(written(&session.on_replayed(at(3))));
        let gaps: Vec<(u64, u64)> = told
            .iter()
            .filter(|message| message["type"] == "gap")
            .map(|message| (message["data"]["from"].as_u64().unwrap(), message["data"]["to"].as_u64().unwrap()))
            .collect();
        assert_eq!(gaps, expected, "{} events", events.len());
    }
}

fn said(seq: u64) -> Event {
    let message = ChatMessage {
        id: uuid::Uuid::nil(),
        room: "s-1".to_owned(),
        sender: "lena".to_owned(),
        message: "Hello".to_owned(),
    };
    Event {
        epoch: "e".parse().unwrap(),
        seq: Seq(seq),
        at: at(seq),
        body: EventBody::Chat(ChatEvent::Message(message)),
    }
}

#[test]
fn a_client_of_form_b_gets_what_the_disk_has_under_the_names_it_knows() {
    let since = r#""since":{"epoch":"e","seq":1}"#;
    for (subscribe, kind) in [
        (format!(r#"{{"type":"join_session","data":{{"session_id":"s-1"}},{since}}}"#), "message_received"),
        (format!(r#"{{"type":"subscribe","channels":["chat/s-1"],{since}}}"#), "chat_message"),
    ] {
        let mut session = session();
        let mut hub = crate::hub::Hub::new(Seq(90), Arc::default());
        hub.publish(&alert(1, 91, AlertChange::Start));
        assert!(matches!(session.on_text(&subscribe, at(1))[..], [Action::Locate(..)]));
        let mut actions = session.on_located(Located { after: Some(Seq(1)), lost: vec![] });
        let Some(Action::Join(join)) = actions.pop() else { panic!("{actions:?}") };
        let actions = session.on_joined(hub.join(*join), at(1));
        assert!(actions.iter().any(|action| matches!(action, Action::Replay { .. })), "{actions:?}");
        let told = written(&session.on_replay(&[said(2)], at(2)));
        assert_eq!(told[0]["type"], kind);
    }
}

#[test]
fn who_looks_at_a_patient_is_told_to_nobody_else_and_nobody_looks_beyond_the_token() {
    let shared = shared_with(&["P-1", "P-2"]);
    let manner = Manner::new(&[], Form::Json);
    let mut session = Session::new(shared, "c".into(), Some(rights_of(&["P-1"])), manner, at(0)).0;
    let mut hub = crate::hub::Hub::new(Seq::ZERO, Arc::default());
    subscribed(&mut session, &mut hub, r#""channels":["patient/+/+"]"#);
    let activity = |patient: &str| {
        let room = format!("patient/{patient}/activity");
        let members = Members { users: vec!["eva".to_owned()], count: 1 };
        Arc::new(Moment { routes: vec![room], ..Moment::presence("r", "eva", true, &members, at(1)) })
    };
    // The hub gives it to those who may see it, and the session, whose rights may be narrower by then, writes no other.
    let outbox = hub.join(join_of(&session)).unwrap().outbox;
    for patient in ["P-1", "P-2"] {
        hub.tell(&activity(patient));
        let mut parcels = Vec::new();
        outbox.take(10, &mut parcels);
        assert_eq!(parcels.len(), usize::from(patient == "P-1"), "{patient}");
        let told = session.on_parcels(&[Parcel::Moment(activity(patient))], at(2));
        assert_eq!(told.len(), usize::from(patient == "P-1"), "{patient}");
        let look = format!(r#"{{"type":"activity","patient_id":"{patient}"}}"#);
        let is_signed = session.on_text(&look, at(3)).iter().any(|action| matches!(action, Action::Sign(_)));
        assert_eq!(is_signed, patient == "P-1", "{patient}");
    }
}
