//! `vitalbridge buffer` on the store of a daemon that runs or does not, and ranges that are sent again.
#![cfg(test)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitalbridge::clock::{Mono, Stamp, Wall};
use vitalbridge::event::{Event, EventBody};
use vitalbridge::ids::{Epoch, Seq};
use vitalbridge::store::{self, Opened, StoreOptions};
use vitalbridge::uplink::plan::Lane;
use vitalbridge::wire;

use crate::bridge::{Bridge, eventually, program, token};
use crate::mqtt::{Broker, Consumer, Running, Store, bridge, config, id_of, reading};

/// A configuration for the store in `dir`, with a broker at this port.
fn configuration(dir: &Path, port: u16, more: &str) -> PathBuf {
    let file = dir.join("c.toml");
    let text = format!(
        "[bridge]\nid = \"b1\"\nsite = \"icu\"\n[server]\nlisten = \"127.0.0.1:0\"\n[store]\ndir = \"state\"\n\
         [mqtt]\nbroker = \"mqtt://127.0.0.1:{port}\"\nbacklog_per_second = 0\n{more}\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn buffer(config: &Path, arguments: &[&str]) -> Output {
    let mut command = program();
    command.arg("buffer").args(arguments).args(["--config", config.to_str().unwrap()]);
    command.stdin(Stdio::null()).output().unwrap()
}

/// The standard output of a command that has to end with this code.
fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json_of(config: &Path, arguments: &[&str], code: i32) -> Json {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&said(&buffer(config, &arguments), code)).unwrap()
}

fn database(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("state/vitals.db")).unwrap()
}

/// A hundred events, of which every tenth is an alert, with a hole of five numbers before the last fifty.
async fn filled(dir: &Path) -> (Store, Vec<Event>) {
    let mut store = Store::open(&dir.join("state"), 1);
    let mut events = store.append_mix(50);
    store.next = Seq(store.next.0 + 5);
    events.extend(store.append_mix(50));
    store.settle().await;
    (store, events)
}

#[tokio::test]
async fn what_waits_is_told_beside_a_daemon_that_works_in_the_store_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), 1, "");
    let (store, events) = filled(dir.path()).await;
    let epoch = store.epoch.clone();
    store.handle.set_cursors(
        [("urgent", 20), ("others", 20), ("readings", 30)].map(|(lane, seq)| (lane.to_owned(), Seq(seq))).into(),
    );
    let mut store = Some(store);
    for is_running in [true, false] {
        if is_running {
            let cursors = async {
                while store.as_ref().unwrap().cursors().await != [Seq(20), Seq(20), Seq(30)] {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(crate::mqtt::DEADLINE, cursors).await.unwrap();
        } else {
            store.take().unwrap().close().await;
        }
        let status = json_of(&config, &["status"], 0);
        assert_eq!(status["running"], is_running, "{status}");
        let lane =
            |name: &str| status["lanes"].as_array().unwrap().iter().find(|lane| lane["lane"] == name).unwrap().clone();
        let alerts = lane("alerts");
        assert_eq!((&alerts["rows"], &alerts["first_seq"], &alerts["last_seq"]), (&json!(8), &json!(30), &json!(105)));
        let live = lane("live");
        assert_eq!((&live["rows"], &live["first_seq"], &live["last_seq"]), (&json!(63), &json!(31), &json!(104)));
        assert_eq!(live["oldest"], events[30].at.wall.to_string());
        assert_eq!(lane("backlog")["rows"], 0);
        // The run is seconds old: nobody knows how fast the log grows.
        assert_eq!(status["buffer_seconds_left"], Json::Null);
        assert!(status["bytes_a_row"].as_u64().is_some_and(|bytes| bytes > 0), "{status}");
        let text = said(&buffer(&config, &["status"]), 0);
        assert!(text.contains("63 rows wait") && text.contains("Room without a broker: unknown"), "{text}");
    }
    let page = json_of(&config, &["ls"], 0);
    let shown: Vec<(&str, u64, u64)> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let number = |name: &str| entry[name].as_u64().unwrap();
            (entry["kind"].as_str().unwrap(), number("first_seq"), number("last_seq"))
        })
        .collect();
    let expected = [("range", 1, 20), ("range", 21, 30), ("range", 31, 50), ("hole", 51, 55), ("range", 56, 105)];
    assert_eq!(shown, expected);
    let states: Vec<(Json, Json)> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["kind"] == "range")
        .map(|entry| (entry["readings_wait"].clone(), entry["others_wait"].clone()))
        .collect();
    let expected = [(false, false), (false, true), (true, true), (true, true)];
    assert_eq!(states, expected.map(|(readings, others)| (json!(readings), json!(others))));
    // Page by page it is the same.
    let (mut after, mut all) = (0, Vec::new());
    while let Some(next) = {
        let page = json_of(&config, &["ls", "--limit", "2", "--after", &after.to_string()], 0);
        all.extend(page["entries"].as_array().unwrap().clone());
        page["next"].as_u64()
    } {
        after = next;
    }
    assert_eq!(Json::Array(all), page["entries"]);
    let text = said(&buffer(&config, &["ls"]), 0);
    assert!(text.contains(&format!("{epoch}:51-55  hole")), "{text}");
}

#[tokio::test]
async fn an_export_has_every_event_in_the_form_that_the_broker_gets_and_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), 1, "");
    let (store, events) = filled(dir.path()).await;
    let line = |event: &Event| wire::upload(event, &bridge(), true).unwrap() + "\n";
    let lines =
        |wanted: &dyn Fn(&Event) -> bool| -> String { events.iter().filter(|event| wanted(event)).map(line).collect() };
    assert_eq!(said(&buffer(&config, &["export"]), 0), lines(&|_| true));
    let range = format!("{}:40-60", store.epoch);
    assert_eq!(
        said(&buffer(&config, &["export", "--range", &range]), 0),
        lines(&|event| (40..=60).contains(&event.seq.0))
    );
    let (from, to) = (events[10].at.wall, events[60].at.wall);
    let times = ["export", "--from", &from.to_string(), "--to", &to.to_string()];
    assert_eq!(said(&buffer(&config, &times), 0), lines(&|event| event.at.wall >= from && event.at.wall < to));

    let table = said(&buffer(&config, &["export", "--format", "csv"]), 0);
    assert!(table.starts_with("epoch,seq,timestamp,"), "{table}");
    assert_eq!(table.lines().count(), 1 + 90);

    store.handle.set_cursors(
        [("urgent", 20), ("others", 20), ("readings", 30)].map(|(lane, seq)| (lane.to_owned(), Seq(seq))).into(),
    );
    store.close().await;
    let waits = |event: &Event| event.seq.0 > if matches!(event.body, EventBody::Reading(_)) { 30 } else { 20 };
    let out = dir.path().join("out.ndjson");
    let to_file = ["export", "--waiting", "--out", out.to_str().unwrap()];
    let output = buffer(&config, &to_file);
    assert_eq!(said(&output, 0), "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("71 events written"));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), lines(&waits));
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(buffer(&config, &to_file).status.code(), Some(64), "it is there already");

    // One that cannot be read is named and left out.
    assert_eq!(database(dir.path()).execute("UPDATE reading SET stream = 999 WHERE seq = 45", []).unwrap(), 1);
    let output = buffer(&config, &["export"]);
    assert_eq!(said(&output, 1), lines(&|event| event.seq != Seq(45)));
    assert!(String::from_utf8_lossy(&output.stderr).contains(":45 cannot be read: its stream 999"));
}

#[tokio::test]
async fn a_log_that_is_whole_is_said_to_be_and_what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), 1, "");
    let (store, _) = filled(dir.path()).await;
    let epoch = store.epoch.clone();
    let verdict = json_of(&config, &["verify"], 0);
    assert_eq!((&verdict["ok"], &verdict["rows"], &verdict["hole_count"]), (&json!(true), &json!(100), &json!(1)));
    store.close().await;
    assert!(said(&buffer(&config, &["verify"]), 0).contains("The log is whole: 100 rows read"));

    let base = database(dir.path());
    for (sql, words) in [
        ("UPDATE event SET body = '{' WHERE seq = 20", format!("unreadable: {epoch}:20: ")),
        (
            "UPDATE reading SET stream = 999 WHERE seq = 33",
            format!("unreadable: {epoch}:33: its stream 999 is missing"),
        ),
        ("DELETE FROM reading WHERE seq IN (41, 42)", format!("missing: {epoch}:41-42: ")),
        ("INSERT INTO cursor (lane, seq) VALUES ('alerts', 106)", "the cursor alerts stands at 106".to_owned()),
        ("INSERT INTO alert_open (alert, seq, body) VALUES ('x', 7, '{}')", "the open alert x has no event".to_owned()),
    ] {
        assert!(base.execute(sql, []).unwrap() > 0, "{sql}");
        let text = said(&buffer(&config, &["verify"]), 1);
        assert!(text.contains(&words) && text.contains("NOT whole"), "{sql}: {text}");
    }
    let verdict = json_of(&config, &["verify"], 1);
    assert_eq!((&verdict["undecodable_rows"], &verdict["gap_count"]), (&json!(2), &json!(1)), "{verdict}");
    drop(base);

    // The file itself.
    let file = dir.path().join("state/vitals.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let pages = bytes.len() / 4096;
    bytes[(pages / 2) * 4096..(pages / 2 + 6) * 4096].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();
    let text = said(&buffer(&config, &["verify"]), 1);
    assert!(text.contains("damaged: "), "{text}");
}

#[tokio::test]
async fn the_room_lasts_as_long_as_the_pace_of_the_last_hour_says() {
    let dir = tempfile::tempdir().unwrap();
    let at = |seconds: u64| Stamp {
        mono: Mono::from_millis((5000 + seconds) * 1000),
        wall: Wall(1_795_219_200_000 + i64::try_from(seconds).unwrap() * 1000),
    };
    let opened = store::open(dir.path(), &StoreOptions::default(), Epoch::from_bits(1), "boot", at(0)).unwrap();
    let Opened { writer, reader, handle, epoch, first_seq, .. } = opened;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(stop.clone()));
    // Two readings a second for an hour, then one.
    let seconds = (0..3600).flat_map(|second| [second, second]).chain(3600..7200);
    let mut durable = handle.durable();
    let mut newest = Seq::ZERO;
    for (second, seq) in seconds.zip(first_seq.0..) {
        newest = Seq(seq);
        let event = Arc::new(Event { epoch: epoch.clone(), seq: newest, at: at(second), body: reading(seq) });
        while handle.try_append(Arc::clone(&event)).is_err() {
            durable.changed().await.unwrap();
        }
    }
    durable.wait_for(|seq| *seq >= newest).await.unwrap();
    let budget = Some(8 << 20);
    let room = reader.room(budget, Seq::ZERO, Some(at(7200))).await.unwrap();
    let bytes = room.bytes_a_row.unwrap();
    assert_eq!((room.rows_lately, room.lately), (3600, Some(Duration::from_hours(1))));
    assert!((30..200).contains(&bytes), "{bytes}");
    assert_eq!(room.free_bytes, (8 << 20) - 10_800 * bytes);
    assert_eq!(room.left.map(|left| left.as_secs()), Some(room.free_bytes * 3600 / (3600 * bytes)));
    // What was confirmed makes room.
    let confirmed = reader.room(budget, newest, Some(at(7200))).await.unwrap();
    assert_eq!((confirmed.free_bytes, confirmed.left > room.left), (8 << 20, true));
    // An hour without anything, and a run of some seconds, say nothing.
    assert_eq!(reader.room(budget, newest, Some(at(10_801))).await.unwrap().left, None);
    assert_eq!(reader.room(budget, newest, Some(at(59))).await.unwrap().left, None);
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

#[test]
fn a_place_without_a_log_and_a_range_that_is_none_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), 1, "");
    for (arguments, code, words) in [
        (&["status"][..], 70, "name its place by --config or --state-dir"),
        (&["replay", "5-9"], 64, "write EPOCH:FIRST-LAST"),
        (&["export", "--from", "yesterday"], 64, "write a time as in"),
    ] {
        let output = buffer(&config, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    let empty = configuration(dir.path(), 1, "");
    std::fs::create_dir_all(dir.path().join("state")).unwrap();
    assert!(!buffer(&empty, &["ls"]).status.success());
}

#[tokio::test]
async fn rows_that_the_broker_does_not_take_are_listed_with_their_reason_and_go_again_when_asked_for() {
    let mut broker = Broker::stopped("");
    let rules = broker.folder.path().join("acl");
    let refusing = "topic read #\ntopic write test/ready\ntopic write vitals/v1/icu/b1/health_update/#\n\
                    topic write vitals/v1/icu/b1/status\ntopic write vitals/v1/icu/b1/batch\n";
    std::fs::write(&rules, refusing).unwrap();
    let file = broker.folder.path().join("mosquitto.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}acl_file {}\n", rules.display())).unwrap();
    broker.start().await;

    let dir = tempfile::tempdir().unwrap();
    let place = configuration(dir.path(), broker.port, "");
    let mut store = Store::open(&dir.path().join("state"), 1);
    let mut uplink = Running::start(config(broker.port, &store.epoch), &store);
    let events = store.append_mix(20);
    uplink.until("parked", |status| status.parked == 2).await;
    store.until_cursors_at_end().await;
    uplink.stop().await;
    store.close().await;
    assert_eq!(json_of(&place, &["status"], 0)["parked"], 2);
    let page = json_of(&place, &["ls"], 0);
    let parked: Vec<&Json> =
        page["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "parked").collect();
    let numbers: Vec<&Json> = parked.iter().map(|entry| &entry["seq"]).collect();
    assert_eq!(numbers, [&json!(10), &json!(20)], "{page}");
    assert!(parked.iter().all(|entry| entry["reason"].as_str().unwrap().contains("0x87") && entry["lane"] == "alerts"));

    // The broker takes them now, and somebody asks for them.
    std::fs::write(&rules, "topic readwrite #\n").unwrap();
    broker.kill().await;
    broker.start().await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let order = |range: &str| json_of(&place, &["replay", &format!("{}:{range}", events[0].epoch)], 0);
    let ordered = order("9-9");
    assert_eq!((&ordered["rows"], &ordered["running"]), (&json!(1), &json!(false)), "{ordered}");
    assert_eq!(json_of(&place, &["status"], 0)["ordered"], 1);
    let bridge = Bridge::start(&["run", "--config", place.to_str().unwrap()]);
    // Another run parked them, and this one tells of it until they have gone.
    let rejected = |change: &'static str| {
        move |received: &crate::mqtt::Received| {
            let data = &received.body["data"];
            received.is_event() && data["rule"] == "uplink_rejected" && data["change"] == change
        }
    };
    consumer.find("the alert", rejected("start")).await;
    assert_eq!(json_of(&place, &["status"], 0)["parked"], 2);
    let ordered = order("9-20");
    assert_eq!((&ordered["rows"], &ordered["running"]), (&json!(12), &json!(true)), "{ordered}");
    consumer.until_all(&events[8..]).await;
    assert_eq!(consumer.counts().get(&id_of(&events[7])), None, "before the range");
    let none = || {
        let status = json_of(&place, &["status"], 0);
        (status["parked"] == 0 && status["ordered"] == 0).then_some(())
    };
    eventually("nothing is parked", crate::mqtt::DEADLINE, none).await;
    consumer.find("its end", rejected("end")).await;
    assert_eq!(bridge.stop(), Some(0));
}

/// Publishes a command as a backend does, and waits for its answer.
async fn command(broker: &Broker, consumer: &mut Consumer, command: Json) -> Json {
    loop {
        let mut publisher = Command::new("mosquitto_pub");
        publisher.args(["-V", "5", "-p", &broker.port.to_string(), "-q", "1", "-t", "vitals/v1/icu/b1/cmd"]);
        assert!(publisher.args(["-m", &command.to_string()]).status().await.unwrap().success());
        // A command that comes before the bridge listens is lost.
        let id = command["correlation_id"].clone();
        let answer = consumer
            .until("the answer", |received| received.body["correlation_id"] == id && received.body["type"] == "result");
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), answer).await {
            return answer.body["data"].clone();
        }
    }
}

/// Gives a command over HTTP.
fn post(dir: &Path, bridge: &Bridge, role: &str, body: &Json) -> Json {
    let token = token(&dir.join("state"), &["--role", role, "--user", role]);
    let output = std::process::Command::new("curl")
        .args(["-s", "-X", "POST", "-H", "content-type: application/json", "-H"])
        .arg(format!("authorization: Bearer {token}"))
        .args(["-d", &body.to_string(), &format!("http://{}/api/v1/commands", bridge.address)])
        .output()
        .unwrap();
    serde_json::from_slice::<Json>(&output.stdout).unwrap()
}

fn wish(id: &str, epoch: &str, first: u64, last: u64) -> Json {
    json!({
        "name": "uplink.resend", "epoch": epoch, "first_seq": first, "last_seq": last, "by": "lena", "correlation_id": id,
    })
}

#[tokio::test]
async fn an_order_that_was_accepted_outlives_a_power_cut() {
    let (mut broker, dir) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let place = configuration(dir.path(), broker.port, "");
    let mut consumer = Consumer::subscribe(&broker).await;
    let (store, events) = filled(dir.path()).await;
    let epoch = store.epoch.clone();
    store.close().await;
    let bridge = Bridge::start(&["run", "--config", place.to_str().unwrap()]);
    consumer.until_all(&events).await;
    let settled = || {
        let status = json_of(&place, &["status"], 0);
        status["lanes"].as_array().unwrap().iter().all(|lane| lane["rows"] == 0).then_some(())
    };
    eventually("everything is confirmed", crate::mqtt::DEADLINE, settled).await;
    broker.kill().await;
    drop(consumer);

    let mut accepted = Vec::new();
    for number in 0..20 {
        let (id, seq) = (format!("o{number}"), 11 + number);
        let answer = post(dir.path(), &bridge, "admin", &wish(&id, epoch.as_str(), seq, seq));
        if answer["ok"] == true {
            accepted.push(usize::try_from(seq).unwrap());
        } else {
            assert_eq!(answer["code"], "busy", "{answer}");
        }
    }
    bridge.kill();
    assert_eq!(json_of(&place, &["status"], 0)["ordered"], accepted.len());
    broker.start().await;
    let mut consumer = Consumer::subscribe(&broker).await;
    let bridge = Bridge::start(&["run", "--config", place.to_str().unwrap()]);
    let wanted: Vec<Event> = accepted.iter().map(|seq| events[seq - 1].clone()).collect();
    consumer.until_all(&wanted).await;
    let carried_out = || (json_of(&place, &["status"], 0)["ordered"] == 0).then_some(());
    eventually("the orders are carried out", crate::mqtt::DEADLINE, carried_out).await;
    assert_eq!(accepted.len(), vitalbridge::pipeline::MAX_ORDERED, "{accepted:?}");
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn a_buffer_that_is_soon_full_is_an_alert_until_the_broker_is_back() {
    let (mut broker, dir) = (Broker::stopped(""), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("numerics.csv"), "t_s,HR,SpO2\n0,72,97\n100000,72,97\n").unwrap();
    // 8 MiB last for some hours of this patient, which is less than a year.
    let more = "buffer_low_hours = 8784\n[[patient]]\nid = 'P-1'\n[[source]]\nid = 'recording'\nkind = 'replay'\n\
                file = 'numerics.csv'\npatient = 'P-1'\n";
    let place = configuration(dir.path(), broker.port, more);
    let text = std::fs::read_to_string(&place).unwrap();
    std::fs::write(&place, text.replace("dir = \"state\"", "dir = \"state\"\nmax_mib = 8")).unwrap();
    let bridge = Bridge::start(&["run", "--config", place.to_str().unwrap()]);
    // It is known once the pace of a minute is, which is measured once a minute.
    let limit = crate::mqtt::DEADLINE * 3;
    let stands = || {
        let base = database(dir.path());
        let sql = "SELECT count(*) FROM alert_open WHERE body ->> '$.rule' = 'buffer_low'";
        base.query_row(sql, [], |row| row.get(0)).is_ok_and(|count: i64| count == 1).then_some(())
    };
    eventually("the alert", limit, stands).await;
    let status = json_of(&place, &["status"], 0);
    assert!(status["buffer_seconds_left"].as_u64().is_some_and(|left| left < 8784 * 3600), "{status}");

    broker.start().await;
    let mut consumer = Consumer::subscribe(&broker).await;
    // After a minute without a broker the next try may be a minute away.
    consumer.patience = limit;
    let change = |change: &'static str| {
        move |received: &crate::mqtt::Received| {
            let data = &received.body["data"];
            data["rule"] == "buffer_low" && data["change"] == change
        }
    };
    let end = consumer.find("its end", change("end")).await;
    assert_eq!(end.body["data"]["end_reason"], "condition_cleared", "{}", end.text);
    let over = || stands().is_none().then_some(());
    eventually("it is over", crate::mqtt::DEADLINE, over).await;
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn a_range_is_sent_again_for_the_command_line_the_backend_and_an_administrator() {
    let (broker, dir) = (Broker::started("").await, tempfile::tempdir().unwrap());
    let place = configuration(dir.path(), broker.port, "commands = [\"uplink.resend\"]");
    let mut consumer = Consumer::subscribe(&broker).await;
    let (store, events) = filled(dir.path()).await;
    let epoch = store.epoch.clone();
    store.close().await;
    let bridge = Bridge::start(&["run", "--config", place.to_str().unwrap()]);
    consumer.until_all(&events).await;
    let counted = |consumer: &Consumer, seq: usize| consumer.counts()[&id_of(&events[seq - 1])];
    assert_eq!(counted(&consumer, 20), 1);

    // The command line.
    let settled = || {
        let status = json_of(&place, &["status"], 0);
        let waits = status["lanes"].as_array().unwrap().iter().any(|lane| lane["rows"] != 0);
        (!waits && status["ordered"] == 0).then_some(())
    };
    json_of(&place, &["replay", &format!("{epoch}:18-21")], 0);
    let again = |received: &crate::mqtt::Received| received.body["type"] == "batch" && received.body["first_seq"] == 18;
    let bundle = consumer.find("the range", again).await;
    let kinds: Vec<&Json> = bundle.body["data"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert_eq!(kinds, ["health_update", "health_update", "alert", "health_update"], "every kind");
    assert!(bundle.body["data"].as_array().unwrap().iter().all(|event| event["historical"] == true));
    eventually("the order is carried out", crate::mqtt::DEADLINE, settled).await;
    assert_eq!((17..=22).map(|seq| counted(&consumer, seq)).collect::<Vec<_>>(), [1, 2, 2, 2, 2, 1]);

    // The backend.
    let done = command(&broker, &mut consumer, wish("r1", epoch.as_str(), 30, 31)).await;
    assert_eq!((&done["ok"], &done["durable"]), (&json!(true), &json!(true)), "{done}");
    consumer.find("the range", |received| received.body["type"] == "batch" && received.body["first_seq"] == 30).await;
    for (id, epoch, first, last, code) in [
        ("r2", "nobody", 1, 2, "unknown_epoch"),
        ("r3", epoch.as_str(), 90, 900_000, "validation"),
        ("r4", epoch.as_str(), 1, 1_000_001, "validation"),
    ] {
        let refused = command(&broker, &mut consumer, wish(id, epoch, first, last)).await;
        assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!(code)), "{refused}");
    }

    // An administrator, and nobody else.
    let post = |role: &str, body: &Json| post(dir.path(), &bridge, role, body);
    let body = wish("h1", epoch.as_str(), 40, 50);
    assert_eq!(post("clinician", &body)["code"], "permission_denied");
    assert_eq!(post("admin", &body)["ok"], true);
    consumer.find("the range", |received| received.body["type"] == "batch" && received.body["first_seq"] == 40).await;

    // The audit trail has all of them; the last row may come after the range.
    let is_last = |received: &crate::mqtt::Received| {
        received.body["data"]["action"] == "uplink_resend" && received.body["data"]["by"] == "admin"
    };
    consumer.find("the last row", is_last).await;
    let audit: Vec<Json> = consumer
        .all
        .iter()
        .filter(|received| received.body["type"] == "audit" && received.body["data"]["action"] == "uplink_resend")
        .map(|received| {
            json!([received.body["data"]["by"], received.body["data"]["object"], received.body["data"]["result"]])
        })
        .collect();
    let expected = [
        json!(["command-line", format!("{epoch}:18-21"), "done"]),
        json!(["mqtt:lena", format!("{epoch}:30-31"), "done"]),
        json!(["mqtt:lena", "nobody:1-2", "refused"]),
        json!(["mqtt:lena", format!("{epoch}:90-900000"), "refused"]),
        json!(["clinician", format!("{epoch}:40-50"), "refused"]),
        json!(["admin", format!("{epoch}:40-50"), "done"]),
    ];
    for row in expected {
        assert!(audit.contains(&row), "{row} is not among {audit:?}");
    }
    assert!(consumer.first_arrivals(Lane::Live).is_sorted());
    assert_eq!(bridge.stop(), Some(0));
}
