//! The rooms of the care team over in-memory streams: who writes, who reads, who is there, and who may.

use std::time::Duration;

use serde_json::{Value as Json, json};
use vitalbridge::channel::Operation;
use vitalbridge::clock::Clock;
use vitalbridge::ids::Seq;
use vitalbridge::rooms::{PRESENCE_GRACE, TYPING_LIFE};
use vitalbridge::server::auth::{Capability, Role as UserRole};
use vitalbridge::store::PageWanted;
use vitalbridge::vitals::Metric;

use super::{HOST, Server, patients};
use crate::dashboard::Dashboard;

/// Somebody signed in, who has joined these channels.
async fn tab(server: &Server, user: &str, role: UserRole, channels: &[&str]) -> Dashboard {
    let mut claims = server.claims(role);
    claims.sub = user.to_owned();
    tab_with(server, &claims, channels).await
}

async fn tab_with(server: &Server, claims: &vitalbridge::server::jwt::Claims, channels: &[&str]) -> Dashboard {
    let bearer = format!("Bearer {}", server.token(claims));
    let mut dashboard = server.dashboard(&[("Authorization", &bearer)]).await.unwrap();
    if !channels.is_empty() {
        dashboard.say(&json!({"type": "subscribe", "channels": channels})).await;
        soon(&mut dashboard, "snapshot").await;
    }
    dashboard
}

async fn nurse(server: &Server, user: &str, channels: &[&str]) -> Dashboard {
    tab(server, user, UserRole::Nurse, channels).await
}

fn message(room: &str, text: &str, id: &str) -> Json {
    json!({"type": "message", "data": {"conversation_id": room, "message": text}, "correlation_id": id})
}

/// What is awaited comes within this time, however many heartbeats come meanwhile, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The next message of a type.
async fn soon(dashboard: &mut Dashboard, kind: &str) -> Json {
    let next = tokio::time::timeout(LIMIT, dashboard.next_of(kind)).await;
    next.unwrap_or_else(|_| panic!("no {kind} within {LIMIT:?}"))
}

/// Sends a message, and gives the `data` of its answer.
async fn write(dashboard: &mut Dashboard, room: &str, text: &str) -> Json {
    let name: String = text.chars().take(20).collect();
    dashboard.say(&message(room, text, &name)).await;
    let complete = soon(dashboard, "complete").await;
    assert_eq!((&complete["correlation_id"], &complete["data"]["durable"]), (&json!(name), &json!(true)), "{complete}");
    complete["data"].clone()
}

/// All frames up to a message with this text, that one included.
async fn until_text(dashboard: &mut Dashboard, text: &str) -> Vec<Json> {
    let mut frames = Vec::new();
    let all = async {
        while frames.last().is_none_or(|last: &Json| last["data"]["message"] != text) {
            frames.push(dashboard.next().await);
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap_or_else(|_| panic!("no {text} within {LIMIT:?}"));
    frames
}

/// All frames until one of each of these types has come, in any order.
async fn until_all(dashboard: &mut Dashboard, kinds: &[&str]) -> Vec<Json> {
    let mut frames: Vec<Json> = Vec::new();
    let all = async {
        while !kinds.iter().all(|kind| frames.iter().any(|frame| frame["type"] == *kind)) {
            frames.push(dashboard.next().await);
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap_or_else(|_| panic!("no {kinds:?} within {LIMIT:?}"));
    frames
}

fn texts(frames: &[Json]) -> Vec<&str> {
    let written = frames.iter().filter(|frame| frame["type"] == "chat_message");
    written.map(|frame| frame["data"]["message"].as_str().unwrap()).collect()
}

/// A page of a conversation as `texts` and `next`.
async fn history(dashboard: &mut Dashboard, room: &str, more: Json) -> (Vec<String>, Json) {
    let mut request = json!({"type": "get_conversation_history", "conversation_id": room, "id": "h"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    dashboard.say(&request).await;
    let page = soon(dashboard, "conversation_history").await;
    assert_eq!((&page["correlation_id"], &page["data"]["conversation_id"]), (&json!("h"), &json!(room)), "{page}");
    let text = |line: &Json| line["message"].as_str().unwrap().to_owned();
    (page["data"]["messages"].as_array().unwrap().iter().map(text).collect(), page["data"]["next"].clone())
}

#[tokio::test]
async fn a_message_reaches_every_tab_of_every_member_once_and_is_on_disk_before_it_is_complete() {
    let server = Server::start();
    // Two channels that match, one by name and one by a pattern.
    let mut writing = nurse(&server, "lena", &["chat/r-1", "chat/+"]).await;
    let mut tabs = [
        nurse(&server, "lena", &["chat/r-1"]).await,
        nurse(&server, "7", &["chat/+", "chat/r-1", "#"]).await,
        tab(&server, "otto", UserRole::Viewer, &["chat/r-1"]).await,
    ];
    let mut elsewhere = nurse(&server, "eva", &["chat/r-2"]).await;
    let text = "<b>Metoprolol</b> 47.5 mg \u{1f9ea}\n\"ok\" {{7*7}}";
    writing.say(&message("r-1", text, "a")).await;
    let first = until_all(&mut writing, &["complete", "chat_message"]).await;
    let complete = first.iter().find(|frame| frame["type"] == "complete").unwrap()["data"].clone();
    assert_eq!((&complete["conversation_id"], &complete["durable"]), (&json!("r-1"), &json!(true)), "{complete}");
    let wanted = PageWanted { room: "r-1".into(), user: "lena".into(), before: Seq(u64::MAX), limit: 9 };
    let stored = server.site.gate.reader.conversation(wanted).await.unwrap();
    assert_eq!(json!(stored.iter().map(|event| event.seq).collect::<Vec<_>>()), json!([complete["seq"]]));
    writing.say(&message("r-1", "end", "b")).await;
    let second = until_all(&mut writing, &["complete", "chat_message"]).await;
    assert_eq!((texts(&first), texts(&second)), (vec![text], vec!["end"]), "the writing tab shows it as the others do");
    for tab in &mut tabs {
        let frames = until_text(tab, "end").await;
        assert_eq!(texts(&frames), [text, "end"], "once, as it was written");
        let frame = frames.iter().find(|frame| frame["type"] == "chat_message").unwrap();
        assert_eq!((&frame["data"]["sender"], &frame["data"]["user_id"]), (&json!("lena"), &json!("lena")));
        assert_eq!((&frame["data"]["message_id"], &frame["seq"]), (&complete["message_id"], &complete["seq"]));
        assert_eq!((&frame["channel"], frame["epoch"].is_string()), (&json!("chat/r-1"), true), "{frame}");
    }
    write(&mut writing, "r-2", "other").await;
    assert_eq!(texts(&until_text(&mut elsewhere, "other").await), ["other"]);
}

#[tokio::test]
async fn a_message_that_is_sent_again_is_the_same_and_other_words_are_not() {
    let server = Server::start();
    let mut otto = nurse(&server, "otto", &["chat/r"]).await;
    let mut answers = Vec::new();
    for (user, text) in [("lena", "one"), ("lena", "one"), ("lena", "two"), ("eva", "one")] {
        // Each on a connection of its own, under one name.
        let mut tab = nurse(&server, user, &[]).await;
        tab.say(&message("r", text, "1")).await;
        let complete = soon(&mut tab, "complete").await["data"].clone();
        assert_eq!(complete["durable"], true, "{complete}");
        answers.push((complete["message_id"].clone(), complete["seq"].clone()));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[2] != answers[0] && answers[3] != answers[0] && answers[3] != answers[2], "{answers:?}");
    let mut lena = nurse(&server, "lena", &[]).await;
    // Without a name each is a message of its own.
    for _ in 0..2 {
        lena.say(&json!({"type": "send_message", "room": "r", "content": "unnamed"})).await;
        soon(&mut lena, "complete").await;
    }
    write(&mut lena, "r", "end").await;
    assert_eq!(texts(&until_text(&mut otto, "end").await), ["one", "two", "one", "unnamed", "unnamed", "end"]);
}

#[tokio::test]
async fn who_may_not_is_refused_without_an_echo_and_nothing_is_written() {
    let server = Server::start();
    let secret = "s3cret<script>";
    let cap = |channel: &str, allow: &[Operation]| Capability { channels: vec![channel.into()], allow: allow.to_vec() };
    let mut narrow = server.claims(UserRole::Clinician);
    narrow.caps = Some(vec![
        cap("chat/mine", Operation::ALL),
        cap("chat/readable", &[Operation::Subscribe, Operation::History]),
        cap("chat/live", &[Operation::Subscribe]),
    ]);
    let viewer = server.claims(UserRole::Viewer);
    let nurse = server.claims(UserRole::Nurse);
    let send = |room: &str| message(room, secret, "m");
    let typing = |room: &str| json!({"type": "typing", "conversation_id": room, "x": secret, "id": "m"});
    let page = |room: &str| json!({"type": "get_conversation_history", "conversation_id": room, "id": "m"});
    let clear = |room: &str, everybody: bool| json!({"type": "clear_conversation", "room": room, "everybody": everybody, "id": "m"});
    let join = |room: &str| json!({"type": "join_room", "room": room, "id": "m"});
    for (claims, request, answer) in [
        (&viewer, send("r"), "permission_denied"),
        (&viewer, typing("r"), "permission_denied"),
        (&viewer, page("r"), "conversation_history"),
        (&viewer, clear("r", false), "complete"),
        (&viewer, clear("r", true), "permission_denied"),
        (&viewer, join("r"), "subscribed"),
        (&nurse, send("r"), "complete"),
        (&nurse, clear("r", true), "permission_denied"),
        (&narrow, send("mine"), "complete"),
        (&narrow, clear("mine", true), "complete"),
        (&narrow, send("readable"), "permission_denied"),
        (&narrow, typing("readable"), "permission_denied"),
        (&narrow, page("readable"), "conversation_history"),
        (&narrow, page("live"), "permission_denied"),
        (&narrow, clear("live", false), "permission_denied"),
        (&narrow, join("live"), "subscribed"),
        (&narrow, join("other"), "permission_denied"),
        (&narrow, json!({"type": "mark_read", "room": "other", "seq": 1, "id": "m"}), "permission_denied"),
        (&narrow, json!({"type": "activity", "patient_id": "P-9", "id": "m"}), "validation"),
        (&nurse, message("r", &secret.repeat(400), "m"), "validation"),
        (&nurse, message(secret, "m", "m"), "validation"),
        (&nurse, json!({"type": secret, "id": "m"}), "unknown_type"),
    ] {
        let mut tab = tab_with(&server, claims, &[]).await;
        tab.say(&request).await;
        let answered = async {
            loop {
                let frame = tab.next().await;
                if frame["correlation_id"] == "m" {
                    break frame;
                }
            }
        };
        let told = tokio::time::timeout(LIMIT, answered).await.unwrap_or_else(|_| panic!("no answer: {request}"));
        let found = if told["type"] == "error" { &told["data"]["code"] } else { &told["type"] };
        assert_eq!(found, answer, "{request}: {told}");
        assert!(!told.to_string().contains("s3cret"), "{request}: {told}");
    }
    let rows = server.audit().await;
    let clears: Vec<&String> = rows.iter().filter(|row| row.contains("conversation_clear")).collect();
    assert_eq!(clears.iter().filter(|row| row.ends_with("refused")).count(), 3, "{rows:?}");
    assert_eq!(clears.iter().filter(|row| row.ends_with("done")).count(), 2, "{rows:?}");
}

#[tokio::test]
async fn history_comes_page_by_page_from_the_disk_over_websocket_and_http() {
    let server = Server::start();
    let mut lena = nurse(&server, "lena", &[]).await;
    for number in 0..5 {
        write(&mut lena, "r", &format!("m{number}")).await;
        write(&mut lena, "s", &format!("s{number}")).await;
    }
    let mut otto = tab(&server, "otto", UserRole::Viewer, &[]).await;
    let (page, next) = history(&mut otto, "r", json!({"limit": 2})).await;
    assert_eq!(page, ["m3", "m4"], "the newest page, oldest first");
    let (page, next) = history(&mut otto, "r", json!({"limit": 2, "before": next})).await;
    assert_eq!(page, ["m1", "m2"]);
    let (page, next) = history(&mut otto, "r", json!({"limit": 2, "before": next})).await;
    assert_eq!((page, next), (vec!["m0".to_owned()], Json::Null));
    assert_eq!(history(&mut otto, "empty", json!({})).await, (vec![], Json::Null));
    // The log knows nothing of what was cleared, so that messages of rooms are not read from there.
    otto.say(&json!({"type": "history", "channels": ["chat/+", "#"], "id": "log"})).await;
    let page = soon(&mut otto, "history").await;
    let of_rooms = |it: &&Json| it["channel"].as_str().is_some_and(|channel| channel.starts_with("chat/"));
    assert_eq!(page["data"]["events"].as_array().unwrap().iter().find(of_rooms), None);

    let ask = async |path: &str| server.ask(UserRole::Viewer, "GET", path, "").await;
    let (status, page) = ask("/api/v1/rooms/r/messages?limit=3").await;
    let found: Vec<&Json> = page["messages"].as_array().unwrap().iter().map(|line| &line["message"]).collect();
    assert_eq!((status.as_str(), found), ("200", vec![&json!("m2"), &json!("m3"), &json!("m4")]));
    let line = &page["messages"][0];
    for member in ["sender", "conversation_id", "session_id", "message_id", "timestamp", "epoch"] {
        assert!(line[member].is_string(), "{member}: {line}");
    }
    let (_, older) = ask(&format!("/api/v1/rooms/r/messages?limit=3&before={}", page["next"])).await;
    assert_eq!((older["messages"].as_array().unwrap().len(), &older["next"]), (2, &Json::Null), "{older}");
    assert_eq!(ask("/api/v1/rooms/r/messages?limit=x").await.0, "400");
    assert_eq!(ask("/api/v1/rooms/a%20b/messages").await.0, "400");
}

#[tokio::test]
async fn a_long_page_ends_early_and_the_next_one_goes_on() {
    let server = Server::start();
    let mut lena = nurse(&server, "lena", &[]).await;
    let long = "\u{1f9ea}".repeat(3900);
    for number in 0..30 {
        write(&mut lena, "r", &format!("{number} {long}")).await;
    }
    let (mut found, mut pages, mut more) = (0, 0, json!({}));
    loop {
        let (page, next) = history(&mut lena, "r", more).await;
        assert!(page.iter().map(String::len).sum::<usize>() < 300_000);
        (found, pages) = (found + page.len(), pages + 1);
        if next.is_null() {
            break;
        }
        more = json!({"before": next});
    }
    assert_eq!((found, pages), (30, 2));
}

#[tokio::test]
async fn a_room_is_cleared_for_one_in_all_tabs_or_for_everybody_and_the_log_keeps_it() {
    let server = Server::start();
    let mut lena = nurse(&server, "lena", &["chat/r"]).await;
    let mut other_tab = nurse(&server, "lena", &["chat/r"]).await;
    let mut otto = tab(&server, "otto", UserRole::Clinician, &["chat/r"]).await;
    write(&mut lena, "r", "one").await;
    lena.say(&json!({"type": "clear_conversation", "conversation_id": "r", "id": "c"})).await;
    let complete = soon(&mut lena, "complete").await;
    assert_eq!((&complete["correlation_id"], &complete["data"]["durable"]), (&json!("c"), &json!(true)), "{complete}");
    let cleared = soon(&mut other_tab, "conversation_cleared").await;
    assert_eq!((&cleared["data"]["user_id"], &cleared["data"]["everybody"]), (&json!("lena"), &json!(false)));
    write(&mut lena, "r", "two").await;
    assert_eq!(history(&mut other_tab, "r", json!({})).await.0, ["two"], "what comes after is shown");
    let seen = until_text(&mut otto, "two").await;
    assert!(seen.iter().all(|frame| frame["type"] != "conversation_cleared"), "it is lena's own: {seen:?}");
    assert_eq!(history(&mut otto, "r", json!({})).await.0, ["one", "two"]);

    otto.say(&json!({"type": "clear_conversation", "conversation_id": "r", "everybody": true})).await;
    until_all(&mut otto, &["complete", "conversation_cleared"]).await;
    for tab in [&mut lena, &mut other_tab] {
        while soon(tab, "conversation_cleared").await["data"]["user_id"] != "otto" {}
    }
    write(&mut lena, "r", "three").await;
    for tab in [&mut lena, &mut otto] {
        assert_eq!(history(tab, "r", json!({})).await.0, ["three"]);
    }
    let log = server.site.gate.reader.events_but_readings(Seq::ZERO, Seq(u64::MAX), 1000).await.unwrap();
    let kept = log.iter().filter(|event| format!("{:?}", event.body).contains("message: \"one\"")).count();
    assert_eq!(kept, 1, "the log keeps it");
    let rows = server.audit().await;
    assert!(rows.contains(&"lena conversation_clear r done".to_owned()), "{rows:?}");
    assert!(rows.contains(&"otto conversation_clear r done".to_owned()), "{rows:?}");
}

#[tokio::test]
async fn typing_is_told_to_others_and_ends_by_itself() {
    let server = Server::start();
    let mut lena = nurse(&server, "lena", &["chat/r"]).await;
    let mut other_tab = nurse(&server, "lena", &["chat/r"]).await;
    let mut otto = nurse(&server, "otto", &["chat/+"]).await;
    // More often than that nothing new is said.
    for _ in 0..20 {
        lena.say(&json!({"type": "typing", "conversation_id": "r"})).await;
    }
    let typing = soon(&mut otto, "typing").await;
    assert_eq!(typing["data"]["is_typing"], true, "{typing}");
    assert_eq!((&typing["data"]["user_id"], &typing["channel"]), (&json!("lena"), &json!("chat/r")), "{typing}");
    assert!(typing.get("seq").is_none(), "it is no event: {typing}");
    let began = Clock::System.now().mono;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last: &Json| last["data"]["is_typing"] != json!(false)) {
        heard.push(soon(&mut otto, "typing").await);
    }
    let lasted = Clock::System.now().mono.since(began);
    assert!(lasted + Duration::from_millis(500) >= TYPING_LIFE, "{lasted:?}");
    assert!(heard.len() <= 2, "{heard:?}");
    write(&mut lena, "r", "end").await;
    for tab in [&mut lena, &mut other_tab] {
        tab.say(&message("r", "last", "last")).await;
        let frames = until_text(tab, "last").await;
        assert!(frames.iter().all(|frame| frame["type"] != "typing"), "not to the same user: {frames:?}");
    }
    let log = server.site.gate.reader.events_but_readings(Seq::ZERO, Seq(u64::MAX), 1000).await.unwrap();
    assert!(log.iter().all(|event| !format!("{:?}", event.body).to_lowercase().contains("typing")), "never stored");
}

#[tokio::test]
async fn who_is_there_is_told_once_for_all_tabs_and_a_reconnect_does_not_flicker() {
    let server = Server::start();
    let mut otto = nurse(&server, "otto", &["chat/r"]).await;
    // A tab of lena's that is not in the room sees that she is.
    let mut aside = nurse(&server, "lena", &["chat/elsewhere"]).await;
    let first = nurse(&server, "lena", &["chat/r"]).await;
    let joined = soon(&mut otto, "presence").await;
    assert_eq!((&joined["data"]["user_id"], &joined["data"]["status"]), (&json!("lena"), &json!("online")));
    assert_eq!((&joined["data"]["members"], &joined["data"]["member_count"]), (&json!(["lena", "otto"]), &json!(2)));
    let of_r = async |tab: &mut Dashboard| loop {
        let frame = soon(tab, "presence").await;
        if frame["data"]["conversation_id"] == "r" {
            break frame;
        }
    };
    assert_eq!(of_r(&mut aside).await["data"]["status"], "online");
    let (status, members) = server.ask(UserRole::Viewer, "GET", "/api/v1/rooms/r/members", "").await;
    assert_eq!((status.as_str(), &members["members"]), ("200", &json!(["lena", "otto"])), "{members}");

    // The only connection is lost and comes back, and a second tab comes and goes: nobody hears of it.
    drop(first);
    let mut back = nurse(&server, "lena", &["chat/r"]).await;
    drop(nurse(&server, "lena", &["chat/r"]).await);
    write(&mut back, "r", "back").await;
    let quiet = until_text(&mut otto, "back").await;
    assert!(quiet.iter().all(|frame| frame["type"] != "presence"), "{quiet:?}");
    // Who says that he leaves has left; who is lost has left a while later.
    back.say(&json!({"type": "leave_room", "room": "r", "id": "l"})).await;
    assert_eq!(soon(&mut back, "unsubscribed").await["correlation_id"], "l");
    let left = soon(&mut otto, "presence").await;
    assert_eq!((&left["data"]["status"], &left["data"]["members"]), (&json!("offline"), &json!(["otto"])), "{left}");
    back.say(&json!({"type": "join_room", "room": "r"})).await;
    let subscribed = soon(&mut back, "subscribed").await;
    assert_eq!(subscribed["data"]["rooms"]["r"]["members"], json!(["lena", "otto"]), "{subscribed}");
    assert_eq!(soon(&mut otto, "presence").await["data"]["status"], "online");
    let lost = Clock::System.now().mono;
    drop(back);
    assert_eq!(soon(&mut otto, "presence").await["data"]["status"], "offline");
    let lasted = Clock::System.now().mono.since(lost);
    assert!(lasted >= PRESENCE_GRACE, "{lasted:?}");
}

#[tokio::test]
async fn what_a_user_has_read_is_known_in_the_users_other_tabs_alone() {
    let server = Server::start();
    let mut lena = nurse(&server, "lena", &["chat/r"]).await;
    let mut other_tab = nurse(&server, "lena", &[]).await;
    other_tab.say(&json!({"type": "join_room", "room": "r"})).await;
    assert_eq!(soon(&mut other_tab, "subscribed").await["data"]["rooms"]["r"]["read_through"], Json::Null);
    let mut otto = nurse(&server, "otto", &["chat/r"]).await;
    let seq = write(&mut otto, "r", "one").await["seq"].clone();
    lena.say(&json!({"type": "mark_read", "conversation_id": "r", "seq": seq})).await;
    let read = soon(&mut other_tab, "conversation_read").await;
    assert_eq!((&read["data"]["through"], &read["data"]["conversation_id"]), (&seq, &json!("r")), "{read}");
    let mut third = nurse(&server, "lena", &[]).await;
    third.say(&json!({"type": "join_room", "room": "r"})).await;
    assert_eq!(soon(&mut third, "subscribed").await["data"]["rooms"]["r"]["read_through"], seq);
    write(&mut lena, "r", "end").await;
    let frames = until_text(&mut otto, "end").await;
    assert!(frames.iter().all(|frame| frame["type"] != "conversation_read"), "{frames:?}");
}

#[tokio::test]
async fn who_looks_at_a_patient_is_told_to_who_may_see_the_patient() {
    let server = Server::start();
    let all = patients(&server);
    let mut claims = server.claims(UserRole::Nurse);
    claims.caps = Some(vec![Capability::of_patient(&all[1].parse().unwrap(), UserRole::Nurse)]);
    let mut of_other = tab_with(&server, &claims, &["patient/+/+"]).await;
    let mut otto = nurse(&server, "otto", &["patient/+/activity"]).await;
    let ward = server.site.gate.shared.patients[0].ward.clone();
    let mut on_ward = nurse(&server, "eva", &[&format!("ward/{ward}/#")]).await;
    let mut lena = nurse(&server, "lena", &["patient/+/+"]).await;
    let look = |patient: &str| json!({"type": "activity", "patient_id": patient});
    lena.say(&look(&all[0])).await;
    let lena_looks = |patient: &str| json!({"patient_id": patient, "viewers": ["lena"], "viewer_count": 1});
    for tab in [&mut otto, &mut on_ward] {
        assert_eq!(soon(tab, "activity").await["data"], lena_looks(&all[0]));
    }
    lena.say(&look(&all[1])).await;
    let told = soon(&mut of_other, "activity").await["data"].clone();
    assert_eq!(told, lena_looks(&all[1]), "nothing of a patient that the token does not cover");
    drop(lena);
    while soon(&mut otto, "activity").await["data"] != json!({"patient_id": all[1], "viewers": [], "viewer_count": 0}) {
    }
}

#[tokio::test]
async fn messages_count_for_the_user_and_typing_does_not() {
    let server = Server::start();
    let mut lena = nurse(&server, "lena", &["chat/r"]).await;
    for _ in 0..40 {
        lena.say(&json!({"type": "typing", "conversation_id": "r"})).await;
    }
    let mut limited = None;
    for number in 0..200 {
        lena.say(&message("r", &format!("{number}"), &format!("{number}"))).await;
        let answer = loop {
            let frame = lena.next().await;
            if matches!(frame["type"].as_str(), Some("complete" | "error")) {
                break frame;
            }
        };
        if answer["type"] == "error" {
            limited = Some((number, answer["data"]["code"].clone()));
            break;
        }
    }
    let (number, code) = limited.expect("a limit");
    assert!(number >= 50, "{number}");
    assert_eq!(code, "rate_limited");
}

#[tokio::test]
async fn rooms_of_older_systems_lead_to_the_channels_of_this_one() {
    let server = Server::start();
    let ward = server.site.gate.shared.patients[0].ward.to_string();
    let patient = patients(&server)[0].clone();
    let mut lena = nurse(&server, "lena", &[]).await;
    for room in
        [format!("clinic_{ward}"), "doctor_lena".to_owned(), "conversation:c-1".to_owned(), "user:lena".to_owned()]
    {
        lena.say(&json!({"type": "join_room", "room": room, "id": room})).await;
        assert_eq!(soon(&mut lena, "subscribed").await["correlation_id"], room);
    }
    for room in ["doctor_otto", "user:otto"] {
        lena.say(&json!({"type": "join_room", "room": room})).await;
        assert_eq!(soon(&mut lena, "error").await["data"]["code"], "permission_denied", "{room}");
    }
    // In the clinic's and in the doctor's room: once.
    let mut seen = Vec::new();
    for value in [97, 96, 95] {
        server.reading(&patient, Metric::Spo2, value).await;
        while seen.last() != Some(&json!(value)) {
            let update = soon(&mut lena, "health_update").await["data"].clone();
            seen.extend((update["metric"] == "spo2").then(|| update["value"].clone()));
        }
    }
    assert_eq!(seen, [97, 96, 95]);
    let mut otto = nurse(&server, "otto", &[]).await;
    for room in ["conversation:c-1".to_owned(), format!("clinic_{ward}")] {
        otto.say(&json!({"type": "send_message", "room": room, "message": room, "id": room})).await;
        assert_eq!(soon(&mut lena, "chat_message").await["data"]["message"], room);
    }
    let request = format!("GET /api/v1/rooms/c-1/members HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    assert!(server.http(&request).await.starts_with("HTTP/1.1 401"));
}
