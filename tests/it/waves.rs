//! Waves from the bytes of an oximeter on a pty to the displays that asked for them.

use serde_json::{Value as Json, json};
use vitalbridge::clock::Mono;

use crate::bridge::{Bridge, now, token};
use crate::dashboard::{Came, Dashboard, MESSAGE_LIMIT};
use crate::oximeter::Oximeter;

/// A daemon that reads an oximeter, and its state directory.
struct Bed {
    folder: tempfile::TempDir,
    bridge: Bridge,
    _oximeter: Oximeter,
}

impl Bed {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let oximeter = Oximeter::start(folder.path().join("port"));
        let config = folder.path().join("bridge.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[store]\ndir = \"{}\"\n[[patient]]\nid = \"P-1\"\nbed = \"1\"\n\
             [[source]]\nid = \"oximeter\"\nkind = \"serial\"\nport = \"{}\"\nprofile = \"nonin-df2\"\n\
             patient = \"P-1\"\nmode = \"test\"\n",
            folder.path().join("state").display(),
            oximeter.path().display(),
        );
        std::fs::write(&config, text).unwrap();
        let bridge = Bridge::start(&["run", "--config", config.to_str().unwrap()]);
        Self { folder, bridge, _oximeter: oximeter }
    }

    async fn dashboard(&self, who: &[&str], channel: &str) -> Dashboard {
        let token = token(&self.folder.path().join("state"), who);
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        let mut dashboard = Dashboard::connect(&self.bridge.address, "/ws", &headers).await.unwrap();
        dashboard.say(&json!({"type": "subscribe", "channels": [channel]})).await;
        dashboard
    }
}

/// The header and the samples of a block.
fn block(message: &[u8]) -> (Json, Vec<u8>) {
    let length = usize::from(u16::from_le_bytes([message[0], message[1]]));
    (serde_json::from_slice(&message[2..2 + length]).unwrap(), message[2 + length..].to_vec())
}

/// The next blocks of samples; other messages are passed over.
async fn blocks(dashboard: &mut Dashboard, count: usize) -> Vec<(Json, Vec<u8>)> {
    let mut found = Vec::new();
    while found.len() < count {
        match dashboard.read().await {
            Came::Binary(message) => found.push(block(&message)),
            Came::Message(_) => {}
            other => panic!("expected samples, got {other:?}"),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_reach_a_display_in_order_as_the_device_sent_them() {
    let bed = Bed::start();
    let mut dashboard = bed.dashboard(&["--role", "viewer", "--patient", "P-1"], "waveform/P-1/pleth").await;
    let blocks = blocks(&mut dashboard, 12).await;
    let mut next: Option<(u64, u8)> = None;
    for (header, samples) in blocks {
        assert_eq!((&header["channel"], &header["mode"]), (&json!("waveform/P-1/pleth"), &json!("test")), "{header}");
        assert_eq!((header["format"].as_str(), header["n"].as_u64()), (Some("u8"), Some(18)), "{header}");
        let first = header["first"].as_u64().unwrap();
        for (number, sample) in (first..).zip(samples) {
            // The oximeter counts 0, 2 .. 126 again and again.
            if let Some((next, expected)) = next {
                assert_eq!((number, sample), (next, expected), "{header}");
            }
            next = Some((number + 1, (sample + 2) % 128));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_did_not_ask_for_waves_or_may_not_see_the_patient_gets_none() {
    let bed = Bed::start();
    let mut asked = bed.dashboard(&["--role", "viewer"], "waveform/+/+").await;
    let mut everything_else = bed.dashboard(&["--role", "viewer"], "#").await;
    let mut stranger = bed.dashboard(&["--role", "viewer", "--patient", "P-2"], "waveform/P-1/pleth").await;
    assert_eq!(stranger.next_of("error").await["data"]["code"], "permission_denied");
    blocks(&mut asked, 4).await;
    // Everything goes on for so long that samples would have come too.
    let until: Mono = now() + MESSAGE_LIMIT;
    let mut seconds = 0;
    while seconds < 3 {
        assert!(now() < until, "no readings");
        match everything_else.read().await {
            Came::Message(message) => seconds += usize::from(message["data"]["metric"] == "spo2"),
            other => panic!("expected readings, got {other:?}"),
        }
    }
}
