//! Every route of the server. A new one is described here; a test fails for one that is missing.

use serde_json::{Value as Json, json};

use super::forms::{self, AnObject};
use super::managed;
use super::operation::{Operation, operation};
use crate::ids::MAX_ID_BYTES;
use crate::server::connections::State;
use crate::server::{pages, rest};
use crate::vitals::Metric;

/// All operations, in the order of the document.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    all.extend(patients());
    all.extend(readings());
    all.extend(alerts());
    all.extend(commands());
    all.extend(messages());
    all.extend(rooms());
    all.extend(tokens());
    all.extend(management());
    all.extend(bluetooth());
    all.extend(service());
    all.extend(sockets());
    all.extend(files());
    all
}

fn text() -> Json {
    json!({"type": "string"})
}

fn time() -> Json {
    json!({"type": "string", "format": "date-time"})
}

fn number(most: usize) -> Json {
    json!({"type": "integer", "minimum": 1, "maximum": most})
}

/// A number that the handler brings into its own limits.
fn whole_number() -> Json {
    json!({"type": "integer", "minimum": 0, "maximum": u64::MAX})
}

/// An id of a configured thing, or of a room.
fn id() -> Json {
    json!({"type": "string", "pattern": format!("^[A-Za-z0-9_-]{{1,{MAX_ID_BYTES}}}$")})
}

fn metrics() -> Json {
    let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    json!({"type": "string", "examples": ["spo2", "heart_rate,spo2"], "pattern": format!("^({0})(,({0}))*$", names.join("|"))})
}

fn patients() -> Vec<Operation> {
    vec![
        operation("get", "/api/v1/patients", "The patients of whom the token shows something")
            .reads()
            .gives::<rest::Patients>(200, "by configuration")
            .refuses(&[400]),
        operation("get", "/api/v1/patients/{id}", "One patient")
            .reads()
            .gives::<rest::ShownPatient>(200, "the patient"),
        operation("get", "/api/v1/devices", "Sources and their devices, with the state they are in")
            .reads()
            .query("patient", id(), "those of this patient")
            .gives::<rest::DevicesNow>(200, "by source")
            .refuses(&[404]),
        operation("get", "/api/v1/devices/{id}", "One device").reads().gives::<rest::DeviceNow>(200, "its sources"),
        operation("get", "/api/v1/system", "The bridge itself: how long it runs, its disk, its log and its broker")
            .reads()
            .gives::<rest::SystemNow>(200, "now")
            .refuses(&[400]),
        operation("get", "/api/v1/patients/{id}/limits", "The limits in force for a patient, and who set them")
            .reads()
            .gives::<forms::Limits>(200, "by rule"),
        operation("get", "/api/v1/patients/{id}/limits/{rule}", "One limit in force")
            .reads()
            .gives::<forms::Limit>(200, "it"),
    ]
}

/// The parameters that choose readings.
fn choice(operation: Operation) -> Operation {
    operation
        .query("patient", id(), "of this patient")
        .query("device", id(), "of this device")
        .query("metric", metrics(), "of these metrics, joined by commas")
        .refuses(&[404])
}

fn span(operation: Operation) -> Operation {
    operation.query("from", time(), "measured from then on; where nobody knows when, arrived").query(
        "to",
        time(),
        "measured before",
    )
}

fn readings() -> Vec<Operation> {
    let readings = operation("get", "/api/v1/readings", "Readings of a span of time: rows, buckets or points")
        .reads()
        .query("limit", number(rest::MAX_READINGS), "most rows of a page; 1000 if left out")
        .query("cursor", text(), "the `next` of the page before")
        .query(
            "every",
            json!({"type": "string", "pattern": "^[1-9][0-9]{0,2}[smhd]$", "examples": ["1m"]}),
            "buckets of this width instead of rows (1 s to 31 days); needs `from`",
        )
        .query("max_points", number(rest::MAX_POINTS), "at most so many points of each stream; needs `from` and `to`")
        .gives::<rest::ReadingsAnswer>(200, "a page of rows, of buckets (`every`) or of points (`max_points`)");
    let latest = operation("get", "/api/v1/readings/latest", "The latest reading of each stream, with its age")
        .reads()
        .gives::<rest::LatestReadings>(200, "now");
    let export = operation("get", "/api/v1/export", "The readings of a span of time as one file")
        .reads()
        .query("format", json!({"type": "string", "enum": ["csv", "ndjson"]}), "csv if left out")
        .gives_text(
            200,
            &["text/csv", "application/x-ndjson"],
            "written while it is taken; broken off if it cannot be whole",
        );
    vec![span(choice(readings)), choice(latest), span(choice(export))]
}

fn alerts() -> Vec<Operation> {
    vec![
        operation("get", "/api/v1/alerts", "The alerts that stand")
            .reads()
            .query("patient", id(), "of this patient")
            .gives::<rest::AlertsNow>(200, "now")
            .refuses(&[404]),
        operation("get", "/api/v1/alerts/history", "What became of alerts, the newest first")
            .reads()
            .query("patient", id(), "of this patient")
            .query("from", time(), "from then on")
            .query("to", time(), "before then")
            .query("limit", number(rest::MAX_ALERTS), "most rows of a page; 100 if left out")
            .query("cursor", text(), "the `next` of the page before")
            .gives::<rest::AlertPage>(200, "a page")
            .refuses(&[404]),
        operation("get", "/api/v1/alerts/{id}", "One alert and its life")
            .reads()
            .gives::<rest::AlertLife>(200, "the alert"),
        operation("get", "/api/v1/audit", "The audit trail, the newest first")
            .reads()
            .query("patient", id(), "rows about this patient alone")
            .query("limit", whole_number(), "most rows of a page; 100 if left out, at most 500")
            .query("before", whole_number(), "the `next` of the page before")
            .gives::<forms::AuditPage>(200, "a page"),
    ]
}

fn commands() -> Vec<Operation> {
    vec![
        operation("post", "/api/v1/commands", "Has a command carried out")
            .takes::<forms::Command>()
            .gives::<forms::Done>(200, "done")
            .commands()
            .once(),
        operation("post", "/api/v1/patients/{id}/observations", "Enters what no sensor sees")
            .takes::<forms::Observation>()
            .gives::<forms::Done>(200, "entered")
            .commands()
            .once(),
        operation("put", "/api/v1/patients/{id}/limits/{rule}", "Sets other limits, or switches the rule off or on")
            .takes::<forms::LimitChange>()
            .gives::<forms::Done>(200, "set")
            .commands()
            .once(),
        operation("delete", "/api/v1/patients/{id}/limits/{rule}", "Takes limits back")
            .query("reason", text(), "why")
            .gives::<forms::Done>(200, "taken back")
            .commands()
            .once(),
    ]
}

fn messages() -> Vec<Operation> {
    let send = |path| {
        operation("post", path, "Sends a message to people, now or later")
            .takes::<forms::NewMessage>()
            .gives::<forms::SentMessage>(201, "sent")
            .commands()
            .once()
    };
    vec![
        send("/api/v1/notifications"),
        send("/ws/publish"),
        operation("delete", "/api/v1/notifications/{id}", "Takes a message back that waits for its time")
            .path("id", &json!({"type": "string", "format": "uuid"}))
            .gives::<forms::SentMessage>(200, "taken back")
            .commands()
            .once(),
        operation("get", "/api/v1/users/me/preferences", "What the user is told of")
            .reads()
            .gives::<forms::UserPreferences>(200, "the choice"),
        operation("put", "/api/v1/users/me/preferences", "Chooses what the user is told of")
            .takes::<forms::Preferences>()
            .gives::<forms::UserPreferences>(200, "chosen")
            .commands()
            .once(),
    ]
}

fn rooms() -> Vec<Operation> {
    vec![
        operation("get", "/api/v1/rooms/{room}/members", "Who is in a room of the care team")
            .reads()
            .path("room", &id())
            .gives::<managed::RoomMembers>(200, "now"),
        operation("get", "/api/v1/rooms/{room}/messages", "What was written in a room, the newest page first")
            .reads()
            .path("room", &id())
            .query("before", whole_number(), "the `next` of the page before")
            .query("limit", whole_number(), "most messages of a page; 50 if left out, at most 100")
            .gives::<managed::RoomPage>(200, "a page"),
    ]
}

fn tokens() -> Vec<Operation> {
    vec![
        operation("post", "/api/v1/ws-ticket", "A ticket for one connection, to be put into its address")
            .gives::<managed::IssuedTicket>(200, "a ticket"),
        operation("post", "/api/v1/tokens/revoke", "Has a token, or all of a user, refused from now on")
            .takes::<managed::Revoke>()
            .gives::<managed::Revoked>(200, "revoked")
            .acts()
            .refuses(&[409]),
    ]
}

fn management() -> Vec<Operation> {
    let states = json!({"type": "string", "enum": State::ALL});
    let send_away = |path, summary| {
        operation("post", path, summary)
            .path("id", &managed::name())
            .gives::<managed::ClosedUser>(200, "ordered")
            .acts()
    };
    vec![
        operation("get", "/ws/status", "The connections in all").gives::<managed::Connected>(200, "now"),
        operation("get", "/ws/connections", "The connections that are open")
            .query("user", text(), "those of this user")
            .query("state", states, "those in this state")
            .gives::<managed::AllConnections>(200, "by id"),
        operation("get", "/ws/connection/{id}/health", "How a connection fares, or fared")
            .path("id", &managed::name())
            .gives::<managed::OneConnection>(200, "it"),
        operation("delete", "/ws/connection/{id}", "Closes a connection")
            .path("id", &managed::name())
            .gives::<managed::ClosedConnection>(200, "ordered")
            .acts(),
        operation("get", "/ws/users", "The users who are online").gives::<managed::OnlineUsers>(200, "by name"),
        operation("get", "/ws/channels", "The channels to which somebody listens")
            .gives::<managed::AllChannels>(200, "by name"),
        send_away("/ws/user/{id}/reconnect", "Has the clients of a user come back anew"),
        send_away("/ws/user/{id}/disconnect", "Closes the connections of a user"),
        operation("post", "/ws/drain", "Sends all connections away and lets no other in, or lets them in again")
            .may_take::<managed::Drain>()
            .gives::<managed::Drained>(200, "ordered")
            .acts(),
    ]
}

fn bluetooth() -> Vec<Operation> {
    vec![
        operation("get", "/api/v1/ble", "The radio and each configured sensor").gives::<AnObject>(200, "its state"),
        operation("get", "/api/v1/ble/devices", "Every device that the radio knows")
            .gives::<AnObject>(200, "the devices")
            .refuses(&[404, 409, 504]),
        operation("delete", "/api/v1/ble/devices/{address}", "Forgets a device and its bond")
            .path("address", &json!({"type": "string", "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"}))
            .gives::<AnObject>(200, "forgotten")
            .commands(),
        operation("post", "/api/v1/ble/scan", "Listens for devices")
            .takes::<forms::BleScan>()
            .gives::<AnObject>(202, "begun")
            .commands(),
        operation("post", "/api/v1/ble/pair", "Pairs with a device")
            .takes::<forms::BlePair>()
            .gives::<AnObject>(202, "begun")
            .commands(),
        operation("get", "/api/v1/ble/job", "The scan or pairing under way, or the last one")
            .gives::<AnObject>(200, "its state")
            .refuses(&[404]),
        operation("delete", "/api/v1/ble/job", "Ends the scan or pairing")
            .gives::<AnObject>(202, "it ends")
            .refuses(&[404]),
        operation("post", "/api/v1/ble/job/answer", "Answers a question of the device")
            .takes::<forms::BleAnswer>()
            .gives::<AnObject>(202, "answered")
            .commands(),
    ]
}

fn service() -> Vec<Operation> {
    vec![
        operation("post", "/api/v1/sign-in", "Exchanges a sign-in code for a token")
            .open()
            .takes::<forms::SignIn>()
            .gives::<forms::IssuedToken>(200, "a token")
            .refuses(&[401]),
        operation("get", "/api/v1/openapi.json", "This document").open().gives::<AnObject>(200, "OpenAPI 3.1"),
        operation("get", "/ws/schema.json", "The JSON Schema of every message of the WebSocket")
            .open()
            .gives::<AnObject>(200, "JSON Schema 2020-12"),
        operation("get", "/healthz", "The process answers").open().gives_text(200, &["text/plain"], "ok"),
        operation("get", "/readyz", "The pipeline takes events").open().gives_text(200, &["text/plain"], "ready"),
        operation("get", "/metrics", "Counters for Prometheus").gives_text(200, &["text/plain"], "text format 0.0.4"),
        operation("get", "/sse", "The frames of the WebSocket as server-sent events")
            .query("channels", text(), "patterns joined by commas; `#` is written %23")
            .query("delivery", json!({"type": "string", "enum": ["all", "latest"]}), "as in `subscribe`")
            .query("since", text(), "as `Last-Event-ID`, for the first connection")
            .header("Last-Event-ID", "`epoch:seq` of the last event that came")
            .query("token", text(), "a token, where `auth.query_token` allows it")
            .by_ticket()
            .gives_text(200, &["text/event-stream"], "until one side ends it")
            .refuses(&[429]),
    ]
}

fn sockets() -> Vec<Operation> {
    const PATHS: [&str; 6] = ["/ws", "/ws/combined", "/ws/health", "/ws/notifications", "/ws/chat", "/api/ws"];
    let socket = |path| {
        operation("get", path, "WebSocket; docs/protocol.md has its messages")
            .query("token", text(), "a token, where `auth.query_token` allows it")
            .signs_in_later()
            .gives_nothing(101, "upgraded")
            .refuses(&[400, 426])
    };
    PATHS.map(socket).into()
}

fn files() -> Vec<Operation> {
    const FILES: [(&str, &[&str]); 13] = [
        ("/", &["text/html"]),
        ("/style.css", &["text/css"]),
        ("/app.js", &["text/javascript"]),
        ("/ward.js", &["text/javascript"]),
        ("/alarm.js", &["text/javascript"]),
        ("/bedside.js", &["text/javascript"]),
        ("/dom.js", &["text/javascript"]),
        ("/number.js", &["text/javascript"]),
        ("/waves.js", &["text/javascript"]),
        ("/bedside.css", &["text/css"]),
        ("/sound.js", &["text/javascript"]),
        ("/icon.svg", &["image/svg+xml"]),
        ("/vitalbridge.js", &["text/javascript"]),
    ];
    let file =
        |(path, kinds)| operation("get", path, "A file of the dashboard").open().gives_text(200, kinds, "the file");
    FILES.into_iter().map(file).chain(pages::FILES.iter().map(|asset| file((asset.path, media(asset.kind))))).collect()
}

/// The media type of a file without its parameters.
fn media(kind: &str) -> &'static [&'static str] {
    match kind.split(';').next() {
        Some("text/css") => &["text/css"],
        Some("text/javascript") => &["text/javascript"],
        _ => &["text/plain"],
    }
}
