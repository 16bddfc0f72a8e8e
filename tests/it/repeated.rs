//! A command under a name of its person's is done once, also by the next run of the real binary after a kill.

use std::path::Path;

use serde_json::{Value as Json, json};
use vitalbridge::clock::{Clock, Wall};

use crate::bridge::{Bridge, token};
use crate::dashboard::Dashboard;

fn home(dir: &Path) -> String {
    std::fs::write(dir.join("numerics.csv"), "t_s,spo2\n0,97\n600,97\n").unwrap();
    let config = "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[alerts]\nannunciators = 'none'\n\
        [[patient]]\nid = 'P-1'\nbed = '3'\n\
        [[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\nmode = 'test'\n";
    let file = dir.join("vitalbridge.toml");
    std::fs::write(&file, config).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn ask(bridge: &Bridge, token: &str, expires: &str, below: u32, id: &str) -> Json {
    let bearer = format!("Bearer {token}");
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    let data = json!({"name": "limits.set", "patient_id": "P-1", "rule": "spo2_low", "below": below, "reason": "COPD",
                      "expires": expires});
    dashboard.say(&json!({"type": "command", "correlation_id": id, "data": data})).await;
    dashboard.next_of("result").await["data"].clone()
}

/// How often the limits were set, by the log.
fn rows(state: &Path) -> u32 {
    let database = rusqlite::Connection::open(state.join("vitals.db")).unwrap();
    let sql =
        "SELECT count(*) FROM event WHERE kind = 'audit' AND body LIKE '%\"limits_set\"%' AND body LIKE '%\"done\"%'";
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_command_is_on_disk_and_is_not_done_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (home(dir.path()), dir.path().join("state"));
    let arguments = ["run", "--config", file.as_str()];
    let mut bridge = Bridge::start(&arguments);
    let ours = token(&state, &["--role", "clinician", "--user", "anna"]);
    let theirs = token(&state, &["--role", "clinician", "--user", "otto"]);
    let expires = Wall(Clock::System.now().wall.0 + 86_400_000).to_string();
    for round in 0..4 {
        let id = format!("a-name-of-the-{round}th-command");
        let done = ask(&bridge, &ours, &expires, 80 + round, &id).await;
        assert_eq!((&done["ok"], &done["durable"]), (&json!(true), &json!(true)), "{done}");
        // In the moment of the answer: it is on disk, or it was not to be answered.
        bridge.kill();
        bridge = Bridge::start(&arguments);
        assert_eq!(ask(&bridge, &ours, &expires, 80 + round, &id).await, done, "the same answer, by another run");
        assert_eq!(ask(&bridge, &ours, &expires, 70, &id).await["code"], "conflict");
        assert_eq!(rows(&state), round + 1, "done once each");
    }
    // Another person's name is another one.
    assert_eq!(ask(&bridge, &theirs, &expires, 70, "a-name-of-the-0th-command").await["ok"], true);
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(rows(&state), 5);
}
