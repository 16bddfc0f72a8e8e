//! What a command by the broker must be like, and what its answer waits for.

use serde_json::json;

use super::*;
use crate::clock::{Stamp, Wall};

/// Whoever stands behind the pipeline's entrance: what came, and every command done as event 7.
async fn served(allow: &[&str], payload: &str, durable: watch::Receiver<Seq>) -> (Json, Vec<String>) {
    let (control, mut wishes) = mpsc::channel(4);
    let downlink = Downlink { allow: allow.iter().map(|name| (*name).to_owned()).collect(), control };
    let incoming =
        Incoming { topic: String::new(), payload: Bytes::copy_from_slice(payload.as_bytes()), is_retained: false };
    let clock = Clock::tokio(Stamp { wall: Wall(1_795_219_200_000), ..Stamp::default() });
    let mut came = Vec::new();
    let pipeline = async {
        while let Some(wish) = wishes.recv().await {
            match wish {
                Control::Command(wish) => {
                    came.push(format!("command of {}", wish.by.user));
                    wish.reply.send(Ok(Done { seq: Seq(7), is_kept: true })).unwrap();
                }
                Control::Audit(audit) => came.push(format!("audit {} {}", audit.by, audit.object)),
                _ => came.push("something else".to_owned()),
            }
        }
    };
    let (text, ()) = tokio::join!(answer(downlink, incoming, durable, clock), pipeline);
    let answer: Json = serde_json::from_str(&text.unwrap()).unwrap();
    (answer["data"].clone(), came)
}

fn command(name: &str) -> String {
    let expires = "2099-01-01T00:00:00Z";
    json!({"name": name, "patient_id": "P-1", "rule": "spo2_low", "below": 86, "reason": "r", "expires": expires, "by": "lena",
           "correlation_id": "a1"})
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn only_the_very_name_that_the_list_has_is_taken() {
    let (_sender, durable) = watch::channel(Seq(7));
    let set = ["limits.set"];
    let (done, came) = served(&set, &command("limits.set"), durable.clone()).await;
    assert_eq!((done, came), (json!({"ok": true, "seq": 7, "durable": true}), vec!["command of mqtt:lena".to_owned()]));
    for (allow, name) in
        [(&set[..], "limits.clear"), (&[], "limits.set"), (&["limits"], "limits.set"), (&["limits.set "], "limits.set")]
    {
        let (refused, came) = served(allow, &command(name), durable.clone()).await;
        assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!("not_allowed")), "{name}: {refused}");
        assert_eq!(came, [format!("audit mqtt:lena {name}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_durable_only_once_the_disk_has_it() {
    let (sender, durable) = watch::channel(Seq(6));
    let (never, _) = served(&["limits.set"], &command("limits.set"), durable.clone()).await;
    assert_eq!(never, json!({"ok": true, "seq": 7, "durable": false}), "after five seconds");
    let text = command("limits.set");
    let asked = served(&["limits.set"], &text, durable);
    let late = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        sender.send(Seq(7)).unwrap();
    };
    let ((done, _), ()) = tokio::join!(asked, late);
    assert_eq!(done, json!({"ok": true, "seq": 7, "durable": true}));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_too_long_or_no_json_is_none() {
    let (_sender, durable) = watch::channel(Seq(7));
    let long = command("limits.set").replace("\"r\"", &format!("\"{}\"", "r".repeat(MAX_COMMAND_BYTES)));
    for text in [long.as_str(), "", "{", "7 8"] {
        let (refused, came) = served(&["limits.set"], text, durable.clone()).await;
        assert_eq!(refused["code"], json!("format"), "{refused}");
        assert!(matches!(&came[..], [row] if row.starts_with("audit ")), "nothing but its row of the trail: {came:?}");
    }
}
