//! What reaches a dashboard of what happened: gaps that history fills, cursors over reconnects, commands done once.

use serde_json::{Value as Json, json};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use vitalbridge::clock::{Clock, Wall};
use vitalbridge::pipeline::Control;
use vitalbridge::server::auth::{Capability, Role as UserRole};
use vitalbridge::store::StoreOptions;
use vitalbridge::tasks::Role;
use vitalbridge::vitals::Metric;

use super::{HOST, Server, patients};
use crate::dashboard::Dashboard;

async fn subscribed(server: &Server, role: UserRole, subscribe: &Json) -> (Dashboard, Json) {
    let mut dashboard = server.signed_in(&server.claims(role)).await;
    dashboard.say(subscribe).await;
    let subscribed = dashboard.next_of("subscribed").await;
    (dashboard, subscribed["data"].clone())
}

fn seq(message: &Json) -> u64 {
    message["seq"].as_u64().unwrap()
}

async fn history(dashboard: &mut Dashboard, mut request: Json) -> Json {
    request["type"] = json!("history");
    dashboard.say(&request).await;
    dashboard.next_of("history").await["data"].clone()
}

#[tokio::test]
async fn a_gap_names_what_was_skipped_and_history_fills_it() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let channels = json!([format!("patient/{patient}/spo2")]);
    let (mut dashboard, _) =
        subscribed(&server, UserRole::Viewer, &json!({"type": "subscribe", "channels": channels})).await;
    dashboard.next_of("snapshot").await;
    // Between two turns of the session everything of a stream but the newest is replaced.
    let many = 400;
    for value in 0..many {
        server.reading(&patient, Metric::Spo2, 90 + value % 10).await;
    }
    let (mut had, mut gaps) = (Vec::new(), Vec::new());
    while had.last().is_none_or(|(_, value)| *value < 0) || had.len() + missing(&gaps) < usize::try_from(many).unwrap()
    {
        let message = dashboard.next().await;
        match message["type"].as_str().unwrap() {
            "health_update" => had.push((seq(&message), message["data"]["value"].as_i64().unwrap())),
            "gap" => gaps.push(message["data"].clone()),
            _ => {}
        }
    }
    assert!(!gaps.is_empty(), "nothing was skipped: the test proves nothing");
    let mut filled: Vec<u64> = had.iter().map(|(seq, _)| *seq).collect();
    for gap in &gaps {
        let streams = gap["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 1, "{gap}");
        assert_eq!(streams[0]["channel"], format!("patient/{patient}/spo2"));
        assert_eq!(streams[0]["skipped"], gap["skipped"]);
        let mut request = json!({"channels": [streams[0]["channel"]], "limit": 50,
                                 "from": streams[0]["from"], "to": streams[0]["to"]});
        loop {
            let page = history(&mut dashboard, request.clone()).await;
            assert_eq!(page["lost"], json!([]));
            let events = page["events"].as_array().unwrap();
            assert!(events.len() <= 50);
            assert!(events.is_sorted_by_key(seq), "{page}");
            filled.extend(events.iter().map(seq));
            if page["next"].is_null() {
                break;
            }
            request["before"] = page["next"].clone();
        }
    }
    filled.sort_unstable();
    filled.dedup();
    assert_eq!(filled.len(), usize::try_from(many).unwrap());
}

fn missing(gaps: &[Json]) -> usize {
    gaps.iter().map(|gap| usize::try_from(gap["skipped"].as_u64().unwrap()).unwrap()).sum()
}

#[tokio::test]
async fn history_is_bounded_and_for_those_who_may_read_it() {
    let server = Server::start();
    let all = patients(&server);
    for value in 0..700 {
        server.reading(&all[value % 2], Metric::Spo2, 95).await;
    }
    let mut claims = server.claims(UserRole::Viewer);
    claims.caps = Some(vec![Capability::of_patient(&all[0].parse().unwrap(), UserRole::Viewer)]);
    let mut dashboard = server.signed_in(&claims).await;
    dashboard.say(&json!({"type": "history", "channels": [format!("patient/{}/spo2", all[1])]})).await;
    assert_eq!(dashboard.next_of("error").await["data"]["code"], "permission_denied");

    // Everything is on disk once this is answered.
    let (reply, newest) = oneshot::channel();
    server.site.gate.control.send(Control::Settle(reply)).await.unwrap();
    let newest = newest.await.unwrap();
    let (mut whole, mut request) = (0, json!({"channels": ["patient/+/spo2"], "to": newest, "limit": 100_000}));
    loop {
        let page = history(&mut dashboard, request.clone()).await;
        let events = page["events"].as_array().unwrap();
        assert!(events.iter().all(|event| event["data"]["patient_id"] == all[0]));
        let bytes: usize = events.iter().map(|event| event.to_string().len()).sum();
        assert!(bytes < 65 * 1024 && events.len() <= 500, "{bytes} {}", events.len());
        whole += events.len();
        if page["next"].is_null() {
            break;
        }
        request["before"] = page["next"].clone();
    }
    assert_eq!(whole, 350);
    let page = history(&mut dashboard, json!({"patient_id": all[0], "metric": "spo2", "limit": 3})).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 3);
    let page = history(&mut dashboard, json!({"patient_id": all[0], "to": "2020-01-01T00:00:00Z"})).await;
    assert_eq!((&page["events"], &page["next"]), (&json!([]), &Json::Null));
    let page = history(&mut dashboard, json!({"patient_id": all[0], "from": "2020-01-01T00:00:00Z", "limit": 2})).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 2);

    // Four wait, one more is refused, and the session goes on.
    for _ in 0..6 {
        dashboard.say(&json!({"type": "history", "patient_id": all[0]})).await;
    }
    dashboard.say(&json!({"type": "ping", "id": "p"})).await;
    let (mut pages, mut busy) = (0, 0);
    while pages + busy < 6 {
        match dashboard.next().await {
            message if message["type"] == "history" => pages += 1,
            message if message["data"]["code"] == "busy" => busy += 1,
            message => assert!(["pong", "heartbeat"].contains(&message["type"].as_str().unwrap()), "{message}"),
        }
    }
    assert_eq!((pages, busy), (4, 2));
}

#[tokio::test]
async fn what_a_user_has_not_acknowledged_comes_on_the_next_connection_too() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let channel = format!("alerts/{patient}");
    let subscribe = json!({"type": "subscribe", "channels": [&channel], "acks": true});
    let (mut first, told) = subscribed(&server, UserRole::Nurse, &subscribe).await;
    assert_eq!(told["cursors"], json!({}));
    first.next_of("snapshot").await;
    server.reading(&patient, Metric::Spo2, 70).await;
    let start = first.next_of("alert").await;
    first.say(&json!({"type": "ack", "channel": &channel, "epoch": start["epoch"], "seq": start["seq"]})).await;
    // The answer to a ping comes after the acknowledgement has been handed on.
    first.say(&json!({"type": "ping"})).await;
    first.next_of("pong").await;
    // It begins and ends while nobody is there: no snapshot has it any more.
    drop(first);
    let mut admin = server.signed_in(&server.claims(UserRole::Clinician)).await;
    admin.say(&json!({"type": "subscribe", "channels": [&channel]})).await;
    admin.next_of("snapshot").await;
    let pause = json!({"type": "command", "data": {"name": "alert.pause_audio", "seconds": 60,
                       "alert_id": start["data"]["alert_id"]}});
    admin.say(&pause).await;
    let paused = admin.next_of("alert").await;
    assert_eq!(paused["data"]["change"], "pause");

    let (mut second, told) = subscribed(&server, UserRole::Nurse, &subscribe).await;
    assert_eq!(told["cursors"], json!({&channel: start["seq"]}));
    let again = second.next().await;
    assert_eq!((&again["type"], &again["seq"], &again["redelivered"]), (&json!("alert"), &paused["seq"], &json!(true)));
    assert_eq!(second.next().await["type"], "snapshot");
    // Who does not acknowledge is told the present alone.
    let plain = json!({"type": "subscribe", "channels": [&channel]});
    let (mut third, told) = subscribed(&server, UserRole::Nurse, &plain).await;
    assert_eq!(told["cursors"], Json::Null);
    assert_eq!(third.next().await["type"], "snapshot");
}

fn post(server: &Server, path: &str, key: Option<&str>, body: &Json) -> String {
    let token = server.token(&server.claims(UserRole::Clinician));
    let (body, key) = (body.to_string(), key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default());
    format!(
        "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {token}\r\n{key}connection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn answered(server: &Server, request: String) -> (u16, Json) {
    let answer = server.http(&request).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap())
}

#[tokio::test]
async fn a_command_is_done_once_whether_it_comes_by_websocket_or_http() {
    let server = Server::start();
    let patient = patients(&server)[0].clone();
    let expires = Wall(server.clock.now().wall.0 + 86_400_000).to_string();
    let set = |below| {
        json!({"name": "limits.set", "patient_id": &patient, "rule": "spo2_low", "below": below, "reason": "COPD",
               "expires": &expires})
    };
    let mut dashboard = server.signed_in(&server.claims(UserRole::Clinician)).await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["audit"]})).await;
    dashboard.next_of("snapshot").await;
    let mut command = json!({"type": "command", "correlation_id": "k-1-of-the-afternoon"});
    command["data"] = set(86);
    dashboard.say(&command).await;
    while dashboard.next_of("audit").await["data"]["action"] != "limits_set" {}
    let done = dashboard.next_of("result").await["data"].clone();
    assert_eq!((&done["ok"], &done["durable"]), (&json!(true), &json!(true)));

    for (key, mut body) in [(Some("k-1-of-the-afternoon"), set(86)), (None, set(86))] {
        if key.is_none() {
            body["correlation_id"] = json!("k-1-of-the-afternoon");
        }
        let (status, same) = answered(&server, post(&server, "/api/v1/commands", key, &body)).await;
        assert_eq!((status, &same["seq"], &same["ok"]), (200, &done["seq"], &json!(true)), "{same}");
    }
    let (status, other) =
        answered(&server, post(&server, "/api/v1/commands", Some("k-1-of-the-afternoon"), &set(80))).await;
    assert_eq!((status, &other["code"]), (409, &json!("conflict")), "{other}");
    command["data"] = set(80);
    dashboard.say(&command).await;
    // Nothing of all this was done: the next message is the refusal, and no row of the audit trail.
    let refused = loop {
        let message = dashboard.next().await;
        assert_ne!(message["type"], "audit", "{message}");
        if message["type"] == "result" {
            break message;
        }
    };
    assert_eq!(refused["data"]["code"], "conflict");

    // What was refused was not done: its name is free.
    let unknown = json!({"name": "alert.reset", "alert_id": "01928374-0000-7000-8000-000000000000"});
    let (status, _) =
        answered(&server, post(&server, "/api/v1/commands", Some("k-2-of-the-afternoon"), &unknown)).await;
    assert_eq!(status, 404);
    let (status, _) =
        answered(&server, post(&server, "/api/v1/commands", Some("k-2-of-the-afternoon"), &set(84))).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_name_that_cannot_be_read_is_refused_and_an_empty_one_is_none() {
    let server = Server::start();
    let message = |title| json!({"kind": "system", "users": ["7"], "title": title, "message": "m"});
    let prefer = json!({"name": "preferences.set", "mute": []});
    for (path, body) in [("/api/v1/commands", prefer), ("/api/v1/notifications", message("a"))] {
        let (status, refused) = answered(&server, post(&server, path, Some("\u{e4}"), &body)).await;
        assert_eq!((status, &refused["code"]), (400, &json!("validation")), "{path}: {refused}");
    }
    let mut ids = Vec::new();
    for title in ["a", "b"] {
        let (status, sent) = answered(&server, post(&server, "/api/v1/notifications", Some(""), &message(title))).await;
        assert_eq!(status, 201, "{sent}");
        ids.push(sent["id"].clone());
    }
    assert_ne!(ids[0], ids[1], "two messages");
}

#[tokio::test]
async fn what_the_store_has_really_lost_is_told_and_everything_else_comes_once() {
    let options = StoreOptions {
        max_bytes: Some(0),
        group_commit: std::time::Duration::from_millis(100),
        ..StoreOptions::default()
    };
    let server = Server::start_with(Clock::System, &options);
    let patient = patients(&server)[0].clone();
    let subscribe = json!({"type": "subscribe", "channels": ["patient/#", "alerts/#", "device/#", "system"],
                           "delivery": "all", "since": {"epoch": server.site.gate.shared.epoch, "seq": 1}});
    // Far more than memory holds, and than the smallest store does.
    let wanted = 24_000_u64;
    let mut durable = server.site.gate.durable.clone();
    for number in 2..=wanted {
        server.reading(&patient, Metric::Spo2, 95).await;
        if number % 4000 == 0 {
            durable.wait_for(|durable| durable.0 >= number).await.unwrap();
        }
    }
    let (reply, newest) = oneshot::channel();
    server.site.gate.control.send(Control::Settle(reply)).await.unwrap();
    let last = newest.await.unwrap().0;
    durable.wait_for(|durable| durable.0 >= last).await.unwrap();
    let (mut dashboard, told) = subscribed(&server, UserRole::Viewer, &subscribe).await;
    assert_eq!(told["recovered"], false);
    let mut seen = vec![false; usize::try_from(last).unwrap() + 1];
    let mut count = |from: u64, to: u64, what: &Json| {
        for seq in from..=to {
            let seen = &mut seen[usize::try_from(seq).unwrap()];
            assert!(!std::mem::replace(seen, true), "{seq} twice: {what}");
        }
    };
    let mut lost = 0;
    for range in told["lost"].as_array().unwrap() {
        count(range[0].as_u64().unwrap(), range[1].as_u64().unwrap(), range);
        lost += range[1].as_u64().unwrap() - range[0].as_u64().unwrap() + 1;
    }
    assert!((1000..last - 1000).contains(&lost), "lost {lost} of {last}: the test proves little");
    loop {
        let message = dashboard.next().await;
        match message["type"].as_str().unwrap() {
            "gap" => {
                let (from, to) = (message["data"]["from"].as_u64().unwrap(), message["data"]["to"].as_u64().unwrap());
                count(from, to, &message);
            }
            "snapshot" => break,
            _ if message["channel"].is_string() => count(seq(&message), seq(&message), &message),
            other => assert_eq!(other, "heartbeat", "{message}"),
        }
    }
    let missing: Vec<usize> = (2..seen.len()).filter(|seq| !seen[*seq]).collect();
    assert!(missing.is_empty(), "neither came nor were told as lost: {missing:?}");
}

#[tokio::test]
async fn a_subscribe_that_waits_for_its_answer_holds_up_no_alert_and_no_heartbeat() {
    let mut server = Server::start();
    let patient = patients(&server)[0].clone();
    // Between the sessions and the pipeline stands somebody who can hold a join back.
    let (hold, mut held) = watch::channel(false);
    let (sender, mut queue) = mpsc::channel(64);
    let control = std::mem::replace(&mut Arc::make_mut(&mut server.site.gate).control, sender);
    server.site.tasks.spawn("slow joins", Role::Helper, async move {
        while let Some(wish) = queue.recv().await {
            let control = control.clone();
            if matches!(wish, Control::Join(..)) && held.wait_for(|held| !held).await.is_err() {
                return Ok(());
            }
            control.send(wish).await?;
        }
        Ok(())
    });
    let (mut dashboard, _) =
        subscribed(&server, UserRole::Nurse, &json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    dashboard.next_of("snapshot").await;
    hold.send_replace(true);
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"], "id": "late"})).await;
    // A reading that alarms: the session is not on its channel yet.
    server.reading(&patient, Metric::Spo2, 70).await;
    let mut came = Vec::new();
    while !["alert", "heartbeat"].iter().all(|kind| came.iter().any(|it| it == kind)) {
        let message = dashboard.next().await;
        let kind = message["type"].as_str().unwrap().to_owned();
        assert!(kind != "subscribed" && kind != "snapshot" && kind != "health_update", "{message}");
        came.push(kind);
    }
    hold.send_replace(false);
    assert_eq!(dashboard.next_of("subscribed").await["correlation_id"], "late");
    let snapshot = dashboard.next_of("snapshot").await;
    let told = snapshot["data"]["readings"].as_array().unwrap();
    assert!(told.iter().any(|it| it["patient_id"] == patient && it["value"] == 70), "{snapshot}");
    server.reading(&patient, Metric::Spo2, 71).await;
    assert_eq!(dashboard.next_of("health_update").await["data"]["value"], 71);
}
