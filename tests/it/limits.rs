//! Limits changed while the real bridge runs, over a sudden end of it and a later word of the rule file.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vitalbridge::clock::{Clock, Wall};

use crate::bridge::{Bridge, now, token};
use crate::broker::Broker;

/// After the end of any run of these tests, and not longer than a person may ask for.
fn later() -> String {
    let now = Clock::System.now().wall;
    Wall(now.0 + 20 * 3_600_000).to_string()
}

const CONFIG: &str = r#"
[bridge]
id = "limits"
[server]
listen = "127.0.0.1:0"
[store]
dir = "state"
[alerts]
rules = "rules.toml"
[[patient]]
id = "P-1"
"#;

const RULES: &str = r#"
[patient."P-1".rule.spo2_low]
when = { below = 88 }
reason = "from the file"
by = "clinician-1"
expires = "2125-01-01T00:00:00Z"
"#;

/// A bridge whose directory stays.
struct Place {
    dir: tempfile::TempDir,
    token: String,
    /// More of the configuration.
    more: String,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("rules.toml"), RULES).unwrap();
        Self { dir, token: String::new(), more: String::new() }
    }

    fn start(&mut self) -> Bridge {
        let (config, state) = (self.dir.path().join("c.toml"), self.dir.path().join("state"));
        std::fs::write(&config, CONFIG.replace("\"state\"", &format!("{state:?}")) + &self.more).unwrap();
        let bridge = Bridge::start(&["run", "--config", config.to_str().unwrap()]);
        self.token = token(&state, &["--role", "clinician", "--user", "lena"]);
        bridge
    }

    /// One request: the status and the answer.
    fn ask(&self, bridge: &Bridge, method: &str, path: &str, body: &str) -> (String, Json) {
        let mut stream = TcpStream::connect(&bridge.address).unwrap();
        let (address, token) = (&bridge.address, &self.token);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let json = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        (head.split(' ').nth(1).unwrap().to_owned(), json)
    }

    /// The audit trail once it has a row that begins so, the newest first: who, what, on what, why.
    fn audit(&self, bridge: &Bridge, awaited: &str) -> Vec<String> {
        let deadline = now() + Duration::from_secs(20);
        loop {
            let (_, page) = self.ask(bridge, "GET", "/api/v1/audit", "");
            let words = |row: &Json| {
                let text = |name: &str| row["data"][name].as_str().unwrap_or("").to_owned();
                [text("by"), text("action"), text("object"), text("reason")].join(" | ")
            };
            let rows: Vec<String> = page["rows"].as_array().unwrap().iter().map(words).collect();
            if rows.iter().any(|row| row.starts_with(awaited)) {
                return rows;
            }
            assert!(now() < deadline, "no row `{awaited}` in {rows:#?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Who set the limit of one rule, and what it says.
    fn limit(&self, bridge: &Bridge, rule: &str) -> (String, String) {
        let (status, limit) = self.ask(bridge, "GET", &format!("/api/v1/patients/P-1/limits/{rule}"), "");
        assert_eq!(status, "200", "{limit}");
        let text = |name: &str| limit[name].as_str().unwrap().to_owned();
        (text("source"), text("summary"))
    }
}

#[test]
fn limits_that_were_answered_survive_a_sudden_end_and_a_later_word_of_the_file_wins() {
    let mut place = Place::new();
    let bridge = place.start();
    assert_eq!(place.limit(&bridge, "spo2_low"), ("override".into(), "below 88 % for 15 s".into()));
    let set = json!({"below": 86, "reason": "COPD", "expires": later()}).to_string();
    let (status, done) = place.ask(&bridge, "PUT", "/api/v1/patients/P-1/limits/spo2_low", &set);
    assert_eq!((status.as_str(), &done["durable"]), ("200", &json!(true)), "{done}");
    let until = later();
    let off = json!({"enabled": false, "until": until, "reason": "no cuff"}).to_string();
    let (status, done) = place.ask(&bridge, "PUT", "/api/v1/patients/P-1/limits/systolic", &off);
    assert_eq!((status.as_str(), &done["durable"]), ("200", &json!(true)), "{done}");
    bridge.kill();

    let bridge = place.start();
    assert_eq!(place.limit(&bridge, "spo2_low"), ("runtime".into(), "below 86 % for 15 s".into()));
    assert!(place.limit(&bridge, "systolic").1.starts_with(&format!("ALARM OFF until {until}")));
    bridge.kill();

    std::fs::write(place.dir.path().join("rules.toml"), RULES.replace("88", "87")).unwrap();
    let bridge = place.start();
    assert_eq!(place.limit(&bridge, "spo2_low"), ("override".into(), "below 87 % for 15 s".into()));
    assert!(place.limit(&bridge, "systolic").1.starts_with(&format!("ALARM OFF until {until}")));
    let rows = place.audit(&bridge, "bridge | limits_end");
    assert_eq!(
        rows,
        [
            "bridge | limits_end | spo2_low | when = { \"below\" = 86 } -> below 87 % for 15 s; the rule file has a later \
             override of the same rule",
            &format!(
                "lena | rule_disable | systolic | below 90 mmHg or above 160 mmHg -> ALARM OFF until {until} \
                 (below 90 mmHg or above 160 mmHg); no cuff"
            ),
            "lena | limits_set | spo2_low | below 88 % for 15 s -> below 86 % for 15 s; COPD",
        ]
    );
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn limits_that_cannot_be_read_any_more_are_told_and_the_file_holds() {
    let mut place = Place::new();
    let bridge = place.start();
    let set = json!({"below": 86, "reason": "COPD", "expires": later()}).to_string();
    let (status, done) = place.ask(&bridge, "PUT", "/api/v1/patients/P-1/limits/spo2_low", &set);
    assert_eq!(status, "200", "{done}");
    bridge.kill();
    let database = rusqlite::Connection::open(place.dir.path().join("state/vitals.db")).unwrap();
    assert_eq!(database.execute("UPDATE limit_change SET body = '{\"lines\": 7}'", []).unwrap(), 1);
    let bridge = place.start();
    assert_eq!(place.limit(&bridge, "spo2_low"), ("override".into(), "below 88 % for 15 s".into()));
    assert_eq!(bridge.stop(), Some(0));
    let one = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let told = "SELECT count(*) FROM event WHERE body LIKE '%limits_unreadable%spo2_low of P-1%'";
    assert_eq!(one(told), 1);
    // It still stands, though the configuration of this run was reported to be right.
    assert_eq!(one("SELECT count(*) FROM alert_open WHERE body LIKE '%configuration_error%'"), 1);
}

/// Where the bridge of these tests takes commands.
const COMMANDS: &str = "vitals/v1/home/limits/cmd";

/// `mosquitto_sub` on the topic of answers.
struct Answers {
    child: Child,
    lines: mpsc::Receiver<String>,
    port: String,
}

impl Answers {
    fn listen(port: u16) -> Self {
        let port = port.to_string();
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port, "-V", "5", "-q", "1", "-t", "vitals/v1/+/+/cmd_result", "-F", "%p"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (heard, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = heard.send(line);
            }
        });
        Self { child, lines, port }
    }

    /// The next answer, held to the contract.
    fn next(&self, wait: Duration) -> Result<Json, mpsc::RecvTimeoutError> {
        let text = self.lines.recv_timeout(wait)?;
        crate::frames::check_at_broker("vitals/v1/home/limits/cmd_result", &text);
        Ok(serde_json::from_str(&text).unwrap())
    }

    /// Publishes a command again and again until its answer comes: the bridge takes none while it is not connected.
    fn of(&self, command: &Json, more: &[&str]) -> Json {
        let text = command.to_string();
        for _ in 0..60 {
            let published = Command::new("mosquitto_pub")
                .args(["-h", "127.0.0.1", "-p", &self.port, "-V", "5", "-q", "1", "-t", COMMANDS])
                .args(["-m", &text])
                .args(more)
                .status();
            assert!(published.unwrap().success());
            let wait = Duration::from_millis(500);
            while let Ok(answer) = self.next(wait) {
                if answer["correlation_id"] == command["correlation_id"] || !more.is_empty() {
                    // A command may be wrong on purpose, but not one that was done.
                    if answer["data"]["ok"] == true {
                        crate::frames::check_at_broker(COMMANDS, &text);
                    }
                    return answer["data"].clone();
                }
            }
        }
        panic!("no answer to {command}");
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_command_by_the_broker_is_taken_if_it_is_on_the_list_and_answered_there() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path());
    let answers = Answers::listen(broker.port());
    let mut place = Place::new();
    place.more = format!("[mqtt]\nbroker = \"mqtt://127.0.0.1:{}\"\ncommands = [\"limits.set\"]\n", broker.port());
    let bridge = place.start();
    let command = |id: &str, name: &str, more: Json| {
        let mut command = json!({"correlation_id": id, "name": name, "patient_id": "P-1", "rule": "systolic", "by": "lena", "reason": "r"});
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        command
    };
    let limits = json!({"below": 100, "above": 140, "expires": later()});
    let done = answers.of(&command("1", "limits.set", limits.clone()), &[]);
    assert_eq!((&done["ok"], &done["durable"]), (&json!(true), &json!(true)), "{done}");
    assert_eq!(place.limit(&bridge, "systolic"), ("runtime".into(), "below 100 mmHg or above 140 mmHg".into()));
    for (id, name, more, code, words) in [
        ("2", "rule.disable", json!({"until": later()}), "not_allowed", "`rule.disable` is not in mqtt.commands"),
        ("3", "limits.set", json!({"by": ""}), "validation", "`by` is the person"),
        ("4", "limits.set", json!({"below": 500, "expires": later()}), "validation", "is outside 1 to 300 mmHg"),
        ("5", "fly", json!({}), "validation", "`name` is alert.acknowledge"),
        ("7", "device.command", json!({}), "not_allowed", "`device.command` is not in mqtt.commands"),
        ("8", "preferences.set", json!({"mute": []}), "not_allowed", "`preferences.set` is not in mqtt.commands"),
    ] {
        let refused = answers.of(&command(id, name, more), &[]);
        assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!(code)), "{refused}");
        assert!(refused["message"].as_str().unwrap().contains(words), "{words}: {refused}");
    }
    place.audit(&bridge, "mqtt:lena | limits_set | systolic | below 90 mmHg or above 160 mmHg -> below 100 mmHg");
    place.audit(&bridge, "mqtt:lena | remote_command | rule.disable | `rule.disable` is not in mqtt.commands");
    // So does each that nobody could have carried out.
    for row in [
        "mqtt | remote_command | limits.set | `by` is the person",
        "mqtt:lena | remote_command | fly | `name` is alert.acknowledge",
        "mqtt:lena | remote_command | device.command | `device.command` is not in mqtt.commands",
        "mqtt:lena | remote_command | preferences.set | `preferences.set` is not in mqtt.commands",
    ] {
        place.audit(&bridge, row);
    }
    // What the broker keeps would be done again at each connection.
    bridge.kill();
    let kept = command("6", "limits.set", json!({"below": 80, "above": 150, "expires": later()}));
    let published = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &answers.port, "-r", "-q", "1", "-t", COMMANDS])
        .args(["-m", &kept.to_string()])
        .status();
    assert!(published.unwrap().success());
    let bridge = place.start();
    let answer = answers.next(Duration::from_mins(1)).unwrap();
    assert_eq!(answer["data"]["code"], "retained", "{answer}");
    assert_eq!(place.limit(&bridge, "systolic").1, "below 100 mmHg or above 140 mmHg");
    place.audit(&bridge, "mqtt | remote_command | unreadable | a command is not kept on the broker");
}

#[test]
fn a_command_by_the_broker_under_one_name_is_done_once_also_over_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(folder.path());
    let answers = Answers::listen(broker.port());
    let mut place = Place::new();
    place.more = format!("[mqtt]\nbroker = \"mqtt://127.0.0.1:{}\"\ncommands = [\"limits.set\"]\n", broker.port());
    let bridge = place.start();
    let expires = later();
    let command = |below: u32| {
        json!({"correlation_id": "once", "name": "limits.set", "patient_id": "P-1", "rule": "systolic", "by": "lena",
               "reason": "r", "below": below, "above": 140, "expires": expires})
    };
    let done = answers.of(&command(100), &[]);
    assert_eq!((&done["ok"], &done["durable"]), (&json!(true), &json!(true)), "{done}");
    assert_eq!(answers.of(&command(100), &[]), done, "the broker may bring it twice");
    bridge.kill();
    let bridge = place.start();
    while answers.lines.try_recv().is_ok() {}
    assert_eq!(answers.of(&command(100), &[]), done, "and another run knows it");
    while answers.lines.try_recv().is_ok() {}
    let mut other = answers.of(&command(90), &[]);
    // An answer to the command before may still come behind it.
    while other["ok"] == true {
        other = answers.of(&command(90), &[]);
    }
    assert_eq!((&other["ok"], &other["code"]), (&json!(false), &json!("conflict")), "{other}");
    let rows = place.audit(&bridge, "mqtt:lena | limits_set | systolic");
    let times = rows.iter().filter(|row| row.starts_with("mqtt:lena | limits_set | systolic")).count();
    assert_eq!(times, 1, "{rows:#?}");
    assert_eq!(place.limit(&bridge, "systolic").1, "below 100 mmHg or above 140 mmHg");
}
