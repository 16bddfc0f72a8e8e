//! The care team's rooms through the real daemon: nothing is lost or doubled over restarts and power cuts.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::bridge::Bridge;
use crate::dashboard::Dashboard;
use crate::ward::Ward;

/// What is awaited comes within this time, however many heartbeats come meanwhile, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

impl Ward {
    /// Somebody signed in who has subscribed in this way, and all frames up to the snapshot.
    async fn tab(&self, bridge: &Bridge, user: &str, subscribe: &Json) -> (Dashboard, Vec<Json>) {
        let bearer = format!("Bearer {}", self.token(user, &[]));
        let headers = [("Authorization", bearer.as_str())];
        let mut tab = Dashboard::connect(&bridge.address, "/ws/chat", &headers).await.unwrap();
        tab.say(subscribe).await;
        let frames = until(&mut tab, |frame| frame["type"] == "snapshot").await;
        (tab, frames)
    }
}

async fn until(tab: &mut Dashboard, is_last: impl Fn(&Json) -> bool) -> Vec<Json> {
    let mut frames = Vec::new();
    let all = async {
        while !frames.last().is_some_and(&is_last) {
            frames.push(tab.next().await);
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}"));
    frames
}

async fn soon(tab: &mut Dashboard, kind: &str) -> Json {
    until(tab, |frame| frame["type"] == kind).await.pop().unwrap()
}

/// Writes, and gives the `data` of the answer.
async fn write(tab: &mut Dashboard, room: &str, text: &str) -> Json {
    tab.say(&json!({"type": "message", "conversation_id": room, "message": text, "id": format!("{room} {text}")}))
        .await;
    let complete = soon(tab, "complete").await;
    assert_eq!(complete["data"]["durable"], true, "{complete}");
    complete["data"].clone()
}

fn texts(frames: &[Json]) -> Vec<&str> {
    let kinds = |frame: &&Json| matches!(frame["type"].as_str(), Some("chat_message" | "message_received"));
    frames.iter().filter(kinds).map(|frame| frame["data"]["message"].as_str().unwrap()).collect()
}

async fn history(tab: &mut Dashboard, room: &str) -> Vec<String> {
    tab.say(&json!({"type": "get_conversation_history", "conversation_id": room})).await;
    let page = soon(tab, "conversation_history").await;
    let lines = page["data"]["messages"].as_array().unwrap();
    lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

fn of_room(room: &str) -> Json {
    json!({"type": "subscribe", "channels": [format!("chat/{room}")]})
}

fn since(frame: &Json, room: &str) -> Json {
    let mut subscribe = of_room(room);
    subscribe["since"] = json!({"epoch": frame["epoch"], "seq": frame["seq"]});
    subscribe
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_complete_survives_a_power_cut_and_who_comes_back_gets_it_once() {
    let ward = Ward::new();
    let bridge = ward.start();
    let (mut otto, _) = ward.tab(&bridge, "otto", &of_room("r")).await;
    let (mut lena, _) = ward.tab(&bridge, "lena", &of_room("r")).await;
    write(&mut lena, "r", "seen").await;
    let seen = soon(&mut otto, "chat_message").await;
    drop(otto);
    let missed = write(&mut lena, "r", "missed").await;
    write(&mut lena, "elsewhere", "not his").await;
    // The answer is out, so the disk has it.
    bridge.kill();

    let bridge = ward.start();
    let (mut lena, _) = ward.tab(&bridge, "lena", &of_room("r")).await;
    // She has not seen the answer, for all she knows, and sends it again.
    assert_eq!(write(&mut lena, "r", "missed").await, missed, "it is the same message");
    write(&mut lena, "r", "after").await;
    let (mut otto, came) = ward.tab(&bridge, "otto", &since(&seen, "r")).await;
    assert_eq!(texts(&came), ["missed", "after"], "each once, in order");
    assert_eq!(came.iter().find(|frame| frame["type"] == "subscribed").unwrap()["data"]["recovered"], true);
    let again = came.iter().find(|frame| frame["type"] == "chat_message").unwrap();
    assert_eq!((&again["seq"], &again["data"]["message_id"]), (&missed["seq"], &missed["message_id"]));
    assert_eq!(history(&mut otto, "r").await, ["seen", "missed", "after"]);
    write(&mut lena, "r", "now").await;
    assert_eq!(soon(&mut otto, "chat_message").await["data"]["message"], "now");
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cleared_stays_cleared_over_a_restart_for_whom_it_was() {
    let ward = Ward::new();
    let bridge = ward.start();
    let (mut lena, _) = ward.tab(&bridge, "lena", &of_room("r")).await;
    let (mut otto, _) = ward.tab(&bridge, "otto", &of_room("r")).await;
    write(&mut lena, "r", "before").await;
    let first = soon(&mut otto, "chat_message").await;
    lena.say(&json!({"type": "clear_conversation", "conversation_id": "r"})).await;
    assert_eq!(soon(&mut lena, "complete").await["data"]["durable"], true);
    bridge.kill();

    let bridge = ward.start();
    let (mut lena, _) = ward.tab(&bridge, "lena", &of_room("r")).await;
    let (mut otto, _) = ward.tab(&bridge, "otto", &of_room("r")).await;
    write(&mut lena, "r", "later").await;
    assert_eq!(history(&mut lena, "r").await, ["later"]);
    assert_eq!(history(&mut otto, "r").await, ["before", "later"]);
    // Among the missed events is what she cleared herself, and nothing of what others did.
    for (user, expected) in [("lena", 1), ("otto", 0)] {
        let (_tab, came) = ward.tab(&bridge, user, &since(&first, "r")).await;
        let cleared = came.iter().filter(|frame| frame["type"] == "conversation_cleared").count();
        assert_eq!((texts(&came), cleared), (vec!["later"], expected), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_that_are_cut_again_and_again_miss_nothing_and_see_nothing_twice() {
    let seed = 6;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let ward = Ward::new();
    let mut bridge = ward.start();
    let (mut lena, _) = ward.tab(&bridge, "lena", &of_room("r")).await;
    let (mut otto, _) = ward.tab(&bridge, "otto", &of_room("r")).await;
    let (mut written, mut came, mut last) = (Vec::new(), Vec::new(), None::<Json>);
    for number in 0..40 {
        let text = format!("m{number}");
        write(&mut lena, "r", &text).await;
        written.push(text.clone());
        if number == 0 || random.u8(..3) > 0 {
            let mut frames = until(&mut otto, |frame| frame["data"]["message"] == *text).await;
            last = frames.last().cloned();
            came.append(&mut frames);
        }
        let restart = random.u8(..10) == 0;
        if restart {
            bridge.kill();
            bridge = ward.start();
            (lena, _) = ward.tab(&bridge, "lena", &of_room("r")).await;
        }
        if restart || random.u8(..3) == 0 {
            let subscribe = last.as_ref().map_or_else(|| of_room("r"), |last| since(last, "r"));
            let frames;
            (otto, frames) = ward.tab(&bridge, "otto", &subscribe).await;
            let newest = frames.iter().rfind(|frame| frame["type"] == "chat_message").cloned();
            last = newest.or(last);
            came.extend(frames);
        }
    }
    write(&mut lena, "r", "end").await;
    came.extend(until(&mut otto, |frame| frame["data"]["message"] == "end").await);
    written.push("end".to_owned());
    assert_eq!(texts(&came), written);
}
