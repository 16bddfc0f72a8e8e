//! Connections with the whole daemon: what the audit trail has of them over an orderly end and a kill, and that no token
//! and no code is in the log or the store.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bridge::{Bridge, now, program, token};
use crate::dashboard::{Came, Dashboard};

/// Things that happen in other tasks come to pass within this time, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon's files.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[[patient]]\nid = 'P-1'\nbed = 'bed 3'\n\
                      [[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\nmode = 'test'\n";
        std::fs::write(dir.path().join("numerics.csv"), "t_s,spo2\n0,97\n600,97\n").unwrap();
        std::fs::write(dir.path().join("vitalbridge.toml"), config).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The daemon with everything that it can log in the file `log`.
    fn start(&self) -> Bridge {
        let program = program().get_program().to_owned();
        let mut command = Command::new("sh");
        command.env("VITALBRIDGE_LOG", "trace").env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        command.args(["-c", "exec \"$0\" run --config \"$1\" 2>>\"$2\""]).arg(program);
        command.arg(self.path("vitalbridge.toml")).arg(self.path("log"));
        Bridge::start_command(command)
    }

    fn token(&self, user: &str) -> String {
        token(&self.path("state"), &["--role", "admin", "--user", user])
    }

    /// A sign-in code, as a person types it.
    fn code(&self) -> String {
        let config = self.path("vitalbridge.toml");
        let output =
            program().args(["token", "code", "--role", "nurse", "--user", "nina", "--config"]).arg(config).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().next().unwrap().to_owned()
    }
}

async fn ask(bridge: &Bridge, method: &str, path: &str, token: &str, body: &str) -> (u16, Json) {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
        bridge.address,
        body.len()
    );
    let mut stream = TcpStream::connect(&bridge.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// The rows about connections as `action result by`, the oldest first, once `accept` takes them.
async fn rows(bridge: &Bridge, token: &str, accept: impl Fn(&[Json]) -> bool) -> Vec<Json> {
    let deadline = now() + LIMIT;
    loop {
        let (status, page) = ask(bridge, "GET", "/api/v1/audit?limit=500", token, "").await;
        assert_eq!(status, 200, "{page}");
        let mut rows: Vec<Json> = page["rows"].as_array().unwrap().iter().map(|row| row["data"].clone()).collect();
        rows.reverse();
        if accept(&rows) {
            return rows;
        }
        assert!(now() < deadline, "{rows:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Signs in by a message, and subscribes.
async fn signed_in(bridge: &Bridge, token: &str) -> (Dashboard, String) {
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[]).await.unwrap();
    let id = dashboard.next().await["data"]["connection_id"].as_str().unwrap().to_owned();
    dashboard.say(&json!({"type": "authenticate", "token": token})).await;
    dashboard.next_of("authenticated").await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["patient/+/+"]})).await;
    dashboard.next_of("snapshot").await;
    (dashboard, id)
}

fn ends_of(rows: &[Json], id: &str) -> Vec<String> {
    let ends = rows.iter().filter(|row| row["action"] == "close" && row["object"] == id);
    ends.map(|row| row["reason"].as_str().unwrap().split(" after ").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_connection_that_ends_with_the_daemon_has_its_row_and_a_killed_daemon_leaves_none() {
    let home = Home::new();
    let bridge = home.start();
    let token = home.token("lena");
    let (mut open, id) = signed_in(&bridge, &token).await;
    let (left, left_id) = signed_in(&bridge, &token).await;
    left.leave(1000).await;
    assert_eq!(bridge.stop(), Some(0));
    assert_eq!(open.next_of("closing").await["data"]["code"], 4206);
    assert_eq!(open.read().await, Came::Closed(4206));

    let bridge = home.start();
    let kept = rows(&bridge, &token, |_| true).await;
    assert_eq!(
        (ends_of(&kept, &id), ends_of(&kept, &left_id)),
        (vec!["4206 server_shutdown".to_owned()], vec!["1000 the other side closed".to_owned()])
    );
    let (_open, id) = signed_in(&bridge, &token).await;
    rows(&bridge, &token, |rows| rows.iter().any(|row| row["action"] == "subscribe" && row["by"] == "lena")).await;
    bridge.kill();
    let bridge = home.start();
    let kept = rows(&bridge, &token, |_| true).await;
    assert_eq!(ends_of(&kept, &id), Vec::<String>::new());
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn no_token_and_no_code_is_in_the_log_or_the_store() {
    let home = Home::new();
    let bridge = home.start();
    let (good, code) = (home.token("lena"), home.code());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    let forged = format!("{head}.{}{rest}", if first == "A" { "B" } else { "A" });
    for token in [good.as_str(), forged.as_str()] {
        let (bearer, protocol) = (format!("Bearer {token}"), format!("bearer.{token}"));
        for header in [("Authorization", bearer.as_str()), ("Sec-WebSocket-Protocol", protocol.as_str())] {
            let came = Dashboard::connect(&bridge.address, "/ws", &[header]).await;
            assert_eq!(came.is_ok(), token == good, "{header:?}");
        }
        assert!(Dashboard::connect(&bridge.address, &format!("/ws?token={token}"), &[]).await.is_err());
        assert!(Dashboard::connect(&bridge.address, &format!("/ws?ticket={token}"), &[]).await.is_err());
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[]).await.unwrap();
        dashboard.next_of("welcome").await;
        dashboard.say(&json!({"type": "authenticate", "token": token, "client": "a display"})).await;
        if token == good {
            dashboard.next_of("authenticated").await;
            // A message that cannot be read, and two that can.
            dashboard.say_text(&format!("{{\"token\": \"{token}\"")).await;
            dashboard.next_of("error").await;
            dashboard.say(&json!({"type": "subscribe", "channels": [token]})).await;
            dashboard.say(&json!({"type": "command", "name": token})).await;
            dashboard.leave(1000).await;
        } else {
            dashboard.next_of("auth_error").await;
        }
        ask(&bridge, "DELETE", "/ws/connection/none", token, "").await;
    }
    for (status, expected) in [(200, code.as_str()), (401, code.as_str()), (401, "0123456789abcdef")] {
        let body = json!({"code": expected}).to_string();
        assert_eq!(ask(&bridge, "POST", "/api/v1/sign-in", "", &body).await.0, status);
    }
    let count = |rows: &[Json], action: &str, result: &str| {
        rows.iter().filter(|row| row["action"] == action && row["result"] == result).count()
    };
    let is_all = |rows: &[Json]| {
        let signed_in = count(rows, "sign_in", "done") >= 1;
        signed_in && count(rows, "close", "done") >= 3 && count(rows, "sign_in", "refused") >= 8
    };
    let all = rows(&bridge, &good, is_all).await;
    assert_eq!((count(&all, "connect", "done"), count(&all, "sign_in", "done")), (3, 1), "{all:#?}");
    assert!(all.iter().filter(|row| row["action"] == "sign_in").all(|row| row["address"] == "127.0.0.1"), "{all:#?}");
    assert!(
        all.iter().any(
            |row| row["reason"] == "token: the token is not valid here: wrong signature" && row["object"] == "lena"
        )
    );
    assert_eq!(bridge.stop(), Some(0));

    let log = std::fs::read_to_string(home.path("log")).unwrap();
    assert!(log.contains("a token was refused") && log.contains("a sign-in code was refused"), "{log}");
    assert!(log.contains("session ended"), "the log has everything that can be logged");
    let mut files = vec![];
    every_file(home.dir.path(), &mut files);
    assert!(files.iter().any(|(path, _)| path.ends_with("log")) && files.len() > 4);
    let last_of_forged = forged.rsplit_once('.').unwrap().1;
    for secret in [good.as_str(), head, signature, last_of_forged, code.as_str(), "0123456789abcdef"] {
        for (path, bytes) in &files {
            let is_there = bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
            assert!(!is_there, "{} has {secret:.40}", path.display());
        }
    }
}

fn every_file(dir: &Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            every_file(&path, out);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            out.push((path, bytes));
        }
    }
}
