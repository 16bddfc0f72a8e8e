//! Prints the readings and alerts of a vitalbridge, and goes on after a loss where it was.
//!
//! ```sh
//! export VITALBRIDGE_TOKEN=$(vitalbridge token issue --role viewer --for 8h)
//! cargo run --example watch -- 127.0.0.1:8080
//! ```
//!
//! docs/protocol.md says what the messages mean.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is what the example is for")]
#![expect(clippy::indexing_slicing, reason = "a member that is missing in JSON is null")]

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Two heartbeats of 5 s missed: the connection is lost, whatever TCP says.
const SILENCE: Duration = Duration::from_millis(10_500);

/// The wait before a new connection, at least and at most.
const PAUSE_MS: (u64, u64) = (200, 5000);

/// The last event that was seen.
#[derive(Clone)]
struct Position {
    epoch: String,
    seq: u64,
}

/// How a connection ended.
enum End {
    /// It is worth another attempt.
    Lost(String),
    /// The bridge does not want this client back as it is.
    Refused(u16),
}

/// Digits stay as the sensor gave them; without a number `absent` says why.
fn show(frame: &Json) {
    let (seq, data) = (&frame["seq"], &frame["data"]);
    let text = |member: &Json| member.as_str().unwrap_or("-").to_owned();
    let patient = text(if data["patient_id"].is_null() { &data["device_id"] } else { &data["patient_id"] });
    match frame["type"].as_str() {
        Some("health_update") if data["value"].is_null() => {
            println!("{seq} {patient} {} -- ({})", text(&data["metric"]), text(&data["absent"]));
        }
        Some("health_update") => {
            println!("{seq} {patient} {} {} {}", text(&data["metric"]), data["value"], text(&data["unit"]));
        }
        Some("alert") => {
            let (priority, change, message) = (text(&data["priority"]), text(&data["change"]), text(&data["message"]));
            println!("{seq} {patient} ALERT {priority} {change} {message}");
        }
        _ => {}
    }
}

/// One connection; moves `position` on.
async fn watch(address: &str, token: &str, position: &mut Option<Position>) -> Result<(), End> {
    let lost = |error: &dyn std::fmt::Display| End::Lost(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(|error| lost(&error))?;
    // For wss:// put a TLS stream (tokio-rustls) between the two.
    let url = format!("ws://{address}/ws");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.map_err(|error| lost(&error))?;
    let mut subscribe = json!({"type": "subscribe", "channels": ["patient/+/+", "alerts/+"], "delivery": "all"});
    if let Some(Position { epoch, seq }) = position {
        subscribe["since"] = json!({"epoch": epoch, "seq": seq});
    }
    for message in [json!({"type": "authenticate", "token": token}), subscribe] {
        socket.send(Message::text(message.to_string())).await.map_err(|error| lost(&error))?;
    }
    let (mut epoch, mut last, mut caught_up) = (String::new(), 0, false);
    loop {
        let heard = tokio::time::timeout(SILENCE, socket.next()).await.map_err(|_| lost(&"silence"))?;
        let frame: Json = match heard {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map_err(|error| lost(&error))?,
            Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => {
                let code = u16::from(code);
                let is_refused = (4000..4200).contains(&code) || [1008, 1009].contains(&code);
                return Err(if is_refused { End::Refused(code) } else { End::Lost(format!("closed with {code}")) });
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(lost(&error)),
            None => return Err(lost(&"the bridge has gone")),
        };
        match frame["type"].as_str() {
            Some("auth_error" | "error") => eprintln!("{}", frame["data"]["message"]),
            Some("subscribed") => {
                frame["data"]["epoch"].as_str().unwrap_or_default().clone_into(&mut epoch);
                last = frame["data"]["last_seq"].as_u64().unwrap_or(0);
            }
            Some("snapshot") => {
                caught_up = true;
                *position = Some(Position { epoch: epoch.clone(), seq: last });
            }
            _ => {
                let Some(seq) = frame["seq"].as_u64() else { continue };
                show(&frame);
                // Until the snapshot an alert of the present may overtake what was missed.
                if caught_up || seq <= last {
                    let epoch = frame["epoch"].as_str().unwrap_or_default().to_owned();
                    *position = Some(Position { epoch, seq });
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (Some(address), Ok(token)) = (std::env::args().nth(1), std::env::var("VITALBRIDGE_TOKEN")) else {
        eprintln!("usage: VITALBRIDGE_TOKEN=... watch HOST:PORT");
        std::process::exit(2);
    };
    let (mut position, mut attempt) = (None, 0_u32);
    loop {
        let seen = position.as_ref().map(|position: &Position| position.seq);
        match watch(&address, &token, &mut position).await {
            Err(End::Refused(code)) => {
                eprintln!("the bridge closed with {code}: a new token, or another client, is needed");
                std::process::exit(1);
            }
            Err(End::Lost(reason)) => eprintln!("no connection: {reason}"),
            Ok(()) => {}
        }
        let is_new = position.as_ref().map(|position| position.seq) != seen;
        attempt = if is_new { 0 } else { attempt.saturating_add(1) };
        let longest = PAUSE_MS.0.saturating_mul(2_u64.saturating_pow(attempt)).clamp(PAUSE_MS.0 + 300, PAUSE_MS.1);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSE_MS.0..longest))).await;
    }
}
