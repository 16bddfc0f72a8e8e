//! Bluetooth over HTTP: the real daemon with a private D-Bus and a fake BlueZ, asked as a program would ask it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bridge::{Bridge, program, token};
use crate::dashboard::Dashboard;
use crate::fake_bluez::{Bus, FakeBluez, PATIENCE, Pairs, Strap, World};

const STRAP: &str = "C0:FF:EE:00:00:01";
const CUFF: &str = "C0:FF:EE:00:00:0A";

/// A daemon without sources, on this bus, and where its state is.
fn daemon(bus: &Bus) -> (Bridge, PathBuf) {
    let (config, state) = (bus.folder().join("vitalbridge.toml"), bus.folder().join("state"));
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(&config, "[bridge]\nid = \"b\"\n").unwrap();
    let mut command = program();
    command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).args(["run", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(&config).arg("--state-dir").arg(&state);
    (Bridge::start_command(command), state)
}

struct Client<'a> {
    bridge: &'a Bridge,
    token: String,
}

impl<'a> Client<'a> {
    fn new(bridge: &'a Bridge, state: &Path, arguments: &[&str]) -> Self {
        Self { bridge, token: token(state, arguments) }
    }

    /// One request; gives the status and the body.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let address = &self.bridge.address;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = format!(
            "{method} /api/v1/ble/{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    async fn job(&self) -> Value {
        self.ask("GET", "job", None).await.1
    }

    /// Waits until the job is so.
    async fn until(&self, state: &str) -> Value {
        let waited = async {
            loop {
                let job = self.job().await;
                if job["state"] == state {
                    return job;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("never {state}"))
    }
}

fn cuff(pairs: Pairs) -> Strap {
    Strap::cuff(CUFF, "Cuff 1", &[]).pairing(pairs)
}

#[tokio::test]
async fn a_scan_shows_what_is_near_while_it_goes_on_and_can_be_ended() {
    let bus = Bus::start().await;
    let fake = FakeBluez::start(&bus, World::new(vec![Strap::new(STRAP, "Strap 1"), cuff(Pairs::JustWorks)])).await;
    let (bridge, state) = daemon(&bus);
    let admin = Client::new(&bridge, &state, &["--role", "admin"]);
    assert_eq!(admin.ask("GET", "job", None).await.0, 404);
    let (status, job) = admin.ask("POST", "scan", Some(json!({"seconds": 60}))).await;
    assert_eq!((status, &job["kind"], &job["state"]), (202, &json!("scan"), &json!("running")));
    let (status, busy) = admin.ask("POST", "pair", Some(json!({"device": CUFF}))).await;
    assert_eq!((status, &busy["code"]), (409, &json!("busy")));
    fake.until("both are heard", |world| world.is_heard(STRAP) && world.is_heard(CUFF)).await;
    let (status, _) = admin.ask("DELETE", "job", None).await;
    assert_eq!(status, 202);
    let done = admin.until("done").await;
    let found: Vec<_> = done["devices"].as_array().unwrap().iter().map(|device| &device["what"]).collect();
    assert_eq!(found, [&json!("heart rate"), &json!("blood pressure")]);
    assert!(done["devices"][1]["config"].as_str().unwrap().contains("# Pair it first: vitalbridge pair"), "{done}");
    let profiles: Vec<_> = done["devices"].as_array().unwrap().iter().map(|device| &device["profile"]).collect();
    assert_eq!(profiles, [&json!("generic-heart-rate"), &json!("generic-blood-pressure")]);
    let lines = done["devices"][1]["config"].as_str().unwrap();
    assert!(lines.contains("\nprofile = \"generic-blood-pressure\"\n"), "{lines}");
    fake.until("the scan has ended", |world| world.count("StopDiscovery") == 1).await;

    admin.ask("POST", "scan", Some(json!({"seconds": 60}))).await;
    fake.until("the next scan runs", |world| world.count("StartDiscovery") == 2).await;
    fake.change(|world| world.power(false)).await;
    let failed = admin.until("failed").await;
    assert!(failed["error"].as_str().unwrap().contains("switch it on with `bluetoothctl power on`"), "{failed}");
}

#[tokio::test]
async fn a_pairing_asks_its_question_and_takes_the_answer() {
    for (pairs, prompt, wrong, right) in [
        (Pairs::JustWorks, Value::Null, Value::Null, Value::Null),
        (Pairs::ShowsPasskey(4711), json!({"kind": "passkey"}), json!({"accept": true}), json!({"passkey": "004711"})),
        (
            Pairs::Compares(42),
            json!({"kind": "compare", "passkey": "000042"}),
            json!({"passkey": "42"}),
            json!({"accept": true}),
        ),
    ] {
        let bus = Bus::start().await;
        let fake = FakeBluez::start(&bus, World::new(vec![cuff(pairs)])).await;
        let (bridge, state) = daemon(&bus);
        let clinician = Client::new(&bridge, &state, &["--role", "clinician"]);
        let headers = [("Authorization", &*format!("Bearer {}", clinician.token))];
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &headers).await.unwrap();
        dashboard.say(&json!({"type": "subscribe", "channels": ["audit"]})).await;
        dashboard.next_of("snapshot").await;
        assert_eq!(clinician.ask("POST", "pair", Some(json!({"device": "Cuff 1"}))).await.0, 202);
        if !prompt.is_null() {
            assert_eq!(clinician.until("question").await["prompt"], prompt, "{pairs:?}");
            let (status, refused) = clinician.ask("POST", "job/answer", Some(wrong)).await;
            assert_eq!((status, &refused["code"]), (409, &json!("no_answer")), "{pairs:?}");
            assert_eq!(clinician.ask("POST", "job/answer", Some(right)).await.0, 202, "{pairs:?}");
        }
        let done = clinician.until("done").await;
        assert_eq!((&done["devices"][0]["bonded"], &done["devices"][0]["trusted"]), (&json!(true), &json!(true)));
        let (status, listed) = clinician.ask("GET", "devices", None).await;
        assert_eq!((status, &listed["devices"][0]["address"]), (200, &json!(CUFF)));
        let (status, removed) = clinician.ask("DELETE", &format!("devices/{CUFF}"), None).await;
        assert_eq!((status, &removed["removed"][0]["address"]), (200, &json!(CUFF)));
        for action in ["bluetooth_pair", "bluetooth_remove"] {
            let row = loop {
                let row = dashboard.next_of("audit").await["data"].take();
                // What the dashboard itself has asked for is in the trail too.
                if row["action"] != "subscribe" {
                    break row;
                }
            };
            assert_eq!((&row["action"], &row["object"]), (&json!(action), &json!(CUFF)), "{row}");
            assert_eq!((&row["by"], &row["result"]), (&json!("local"), &json!("done")), "{row}");
        }
        assert!(!fake.change(|world| world.strap(CUFF).bonded).await);
        assert_eq!(clinician.ask("DELETE", &format!("devices/{CUFF}"), None).await.0, 404);
    }
}

#[tokio::test]
async fn a_pairing_that_is_refused_or_cancelled_leaves_no_bond_and_room_for_the_next() {
    let bus = Bus::start().await;
    let fake = FakeBluez::start(&bus, World::new(vec![cuff(Pairs::Compares(42))])).await;
    let (bridge, state) = daemon(&bus);
    let admin = Client::new(&bridge, &state, &["--role", "admin"]);
    admin.ask("POST", "pair", Some(json!({"device": CUFF}))).await;
    admin.until("question").await;
    assert_eq!(admin.ask("POST", "job/answer", Some(json!({"accept": false}))).await.0, 202);
    let failed = admin.until("failed").await;
    assert!(failed["error"].as_str().unwrap().contains("put it into pairing mode"), "{failed}");

    admin.ask("POST", "pair", Some(json!({"device": CUFF}))).await;
    admin.until("question").await;
    admin.ask("DELETE", "job", None).await;
    let failed = admin.until("failed").await;
    assert!(failed["error"].as_str().unwrap().contains("the pairing was broken off"), "{failed}");
    fake.until("nothing is left", |world| world.is_unpaired() && world.agents.is_empty()).await;
    let absent = json!({"device": "C0:FF:EE:00:00:99", "seconds": 1});
    assert_eq!(admin.ask("POST", "pair", Some(absent)).await.0, 202);
    assert!(admin.until("failed").await["error"].as_str().unwrap().contains("was not heard in 1 s"));
    assert!(!fake.change(|world| world.strap(CUFF).bonded).await);
}

#[tokio::test]
async fn only_who_may_change_devices_does_and_who_looks_sees_them() {
    let bus = Bus::start().await;
    let fake = FakeBluez::start(&bus, World::new(vec![cuff(Pairs::JustWorks)])).await;
    let (bridge, state) = daemon(&bus);
    let removal = format!("devices/{CUFF}");
    let changes =
        [("POST", "scan", json!({})), ("POST", "pair", json!({"device": CUFF})), ("DELETE", &removal, Value::Null)];
    for (arguments, looking) in [
        (&["--role", "nurse"][..], 200),
        (&["--role", "viewer"], 200),
        // A token for one patient is none for devices.
        (&["--role", "clinician", "--patient", "P-1"], 403),
    ] {
        let client = Client::new(&bridge, &state, arguments);
        assert_eq!(client.ask("GET", "devices", None).await.0, looking, "{arguments:?}");
        for (method, path, body) in &changes {
            let (status, refused) = client.ask(method, path, Some(body.clone())).await;
            assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "{arguments:?} {path}");
        }
    }
    let stranger = Client { bridge: &bridge, token: "none".to_owned() };
    for (method, path, body) in changes {
        assert_eq!(stranger.ask(method, path, Some(body)).await.0, 401, "{path}");
    }
    assert_eq!(fake.change(|world| world.count("StartDiscovery") + world.count("RemoveDevice")).await, 0);
    drop(fake.kill().await);
    let nurse = Client::new(&bridge, &state, &["--role", "nurse"]);
    let (status, failed) = nurse.ask("GET", "devices", None).await;
    assert_eq!((status, &failed["code"]), (503, &json!("bluetooth_unavailable")), "{failed}");
}
