//! Ports through the whole daemon: which monitor is at one, who may command it, and what the audit trail keeps of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};

use vitalbridge::sources::simulator::pty::EmulatedPort;

use crate::bridge::{Bridge, now, program, token};
use crate::dashboard::Dashboard;

/// Commands that were given so far.
static COMMANDS: AtomicU64 = AtomicU64::new(0);

/// Longest time that anything may take to happen.
const DEADLINE: Duration = Duration::from_secs(40);

/// What a test can do to a monitor and see of it.
#[derive(Default)]
struct State {
    /// What it sends four times a second, as long as its cable is in.
    line: String,
    /// Pull the cable out and plug it in again.
    replug: bool,
    /// What the host sent in one go, or nearly so.
    heard: Vec<Vec<u8>>,
    stop: bool,
}

/// A monitor on a pty, which goes on whoever reads.
struct Monitor {
    link: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Monitor {
    fn start(link: PathBuf, line: String) -> Self {
        let state = Arc::new(Mutex::new(State { line, ..State::default() }));
        let (theirs, mut port) = (Arc::clone(&state), EmulatedPort::new(link.clone()));
        port.plug().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test has no task list")]
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            for tick in 0_u64.. {
                ticks.tick().await;
                let mut state = theirs.lock().unwrap();
                if state.stop {
                    return;
                }
                if std::mem::take(&mut state.replug) {
                    port.unplug();
                    port.plug().unwrap();
                }
                if tick % 25 == 0 {
                    port.send(state.line.as_bytes());
                }
                let heard = port.received();
                if !heard.is_empty() {
                    state.heard.push(heard);
                }
            }
        });
        Self { link, state }
    }

    /// Another monitor is plugged in.
    fn replace(&self, line: String) {
        let mut state = self.state.lock().unwrap();
        state.line = line;
        state.replug = true;
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().heard.clone()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.state.lock().unwrap().stop = true;
    }
}

/// A line of a Masimo monitor.
fn masimo(serial_number: &str, spo2: u8) -> String {
    format!("09/15/10 15:10:29 SN={serial_number} SPO2={spo2:03}% BPM=080 PI=04.96% ALARM=0000 EXC=000800\r\n")
}

/// A bridge with one monitor, and everything that it has said to a clinician.
struct Ward {
    bridge: Bridge,
    dashboard: Dashboard,
    seen: Vec<Json>,
}

impl Ward {
    async fn start(dir: &Path, monitor: &Monitor, profile: &str, more: &str) -> Self {
        let file = dir.join("vitalbridge.toml");
        let text = format!(
            "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[[patient]]\nid = 'P-1'\n[[source]]\nid = 'port'\n\
             kind = 'serial'\npatient = 'P-1'\ndevice = 'monitor'\nport = '{}'\nprofile = '{profile}'\n{more}\n",
            monitor.link.display()
        );
        std::fs::write(&file, text).unwrap();
        let bridge = Bridge::start_command(without_our_files(&["run", "--config", file.to_str().unwrap()]));
        let dashboard = sign_in(&bridge, &dir.join("state"), "clinician").await;
        Self { bridge, dashboard, seen: Vec::new() }
    }

    /// The next message that fits; what was said before it is kept.
    async fn until(&mut self, what: &str, fits: impl Fn(&Json) -> bool) -> Json {
        let deadline = now() + DEADLINE;
        loop {
            let message = self.dashboard.next().await;
            self.seen.push(message.clone());
            if fits(&message) {
                return message;
            }
            assert!(now() < deadline, "{what} did not come; so far: {:#?}", self.seen);
        }
    }

    async fn until_spo2(&mut self, value: u8) {
        self.until("a saturation", |message| is_spo2(message, value)).await;
    }

    async fn until_alert(&mut self, change: &str) -> Json {
        self.until("device_changed", |message| {
            message["type"] == "alert"
                && message["data"]["rule"] == "device_changed"
                && message["data"]["change"] == change
        })
        .await
    }

    async fn until_audit(&mut self, action: &str) -> Json {
        let audit =
            self.until(action, |message| message["type"] == "audit" && message["data"]["action"] == action).await;
        audit["data"].clone()
    }

    /// Gives a command and waits for what became of it.
    async fn command(&mut self, data: &Json) -> Json {
        // A name stands for one command for a day, also over restarts.
        let name = format!("c{}", COMMANDS.fetch_add(1, Ordering::Relaxed));
        self.dashboard.say(&json!({"type": "command", "correlation_id": name, "data": data})).await;
        self.until("a result", |message| message["type"] == "result").await["data"].clone()
    }
}

/// The binary without the files that this process has open: a daemon that holds the monitor's end of a pty as well would
/// never see it hang up.
fn without_our_files(arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    let close = r#"for file in /proc/$$/fd/*; do n=${file##*/}; ((n > 2)) && eval "exec $n>&-"; done; exec "$0" "$@""#;
    command.args(["-c", close]).arg(program().get_program()).args(arguments);
    command.env_remove("VITALBRIDGE_LOG").env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    command
}

fn is_spo2(message: &Json, value: u8) -> bool {
    message["type"] == "health_update"
        && message["data"]["metric"] == "spo2"
        && message["data"]["value"] == json!(value)
}

async fn sign_in(bridge: &Bridge, state: &Path, role: &str) -> Dashboard {
    let bearer = format!("Bearer {}", token(state, &["--role", role, "--user", role]));
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    let channels = ["patient/+/+", "alerts/+", "device/+/status", "audit"];
    dashboard.say(&json!({"type": "subscribe", "channels": channels, "delivery": "all"})).await;
    dashboard.next_of("snapshot").await;
    dashboard
}

fn confirm(serial_number: &str) -> Json {
    json!({"name": "device.confirm", "source_id": "port", "serial_number": serial_number})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_monitor_at_the_port_is_withheld_until_a_clinician_confirms_it_also_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let monitor = Monitor::start(dir.path().join("cable"), masimo("AAA", 97));
    let mut ward = Ward::start(dir.path(), &monitor, "masimo-ascii1", "").await;
    ward.until_spo2(97).await;
    let bound = ward.until_audit("device_bound").await;
    assert_eq!(
        (&bound["object"], &bound["by"], &bound["patient_id"]),
        (&json!("AAA"), &json!("bridge"), &json!("P-1"))
    );

    monitor.replace(masimo("BBB", 88));
    let alert = ward.until_alert("start").await;
    assert_eq!((&alert["data"]["kind"], &alert["data"]["patient_id"]), (&json!("technical"), &json!("P-1")));
    assert!(alert["data"]["message"].as_str().unwrap().contains("Another monitor at monitor"), "{alert}");
    let nurse = sign_in(&ward.bridge, &dir.path().join("state"), "nurse").await;
    let clinician = std::mem::replace(&mut ward.dashboard, nurse);
    assert_eq!(ward.command(&confirm("BBB")).await["code"], "permission_denied");
    ward.dashboard = clinician;
    let refused = ward.until_audit("device_confirmed").await;
    assert_eq!((&refused["by"], &refused["result"]), (&json!("nurse"), &json!("refused")));
    assert_eq!(ward.command(&confirm("AAA")).await["code"], "wrong_serial_number");
    // The first is back: it is not for the bridge to say that nothing was mixed up meanwhile.
    let lines = ward.seen.len();
    monitor.replace(masimo("AAA", 96));
    let told = |message: &Json| message["type"] == "device_status" && message["data"]["link"] == "lost";
    ward.until("the cable was pulled", told).await;
    ward.until("it is back", |message| message["type"] == "device_status" && message["data"]["link"] == "waiting")
        .await;
    let withheld = ward.seen.iter().find(|message| is_spo2(message, 88) || is_spo2(message, 96));
    assert_eq!(withheld, None, "from message {lines} on it was the first monitor again");
    monitor.replace(masimo("BBB", 88));
    ward.until("it is back", |message| message["type"] == "device_status" && message["data"]["link"] == "lost").await;
    // The adapter is there again after a moment; the number has to be heard first.
    while ward.command(&confirm("BBB")).await["ok"] != true {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        !ward.seen.iter().any(|message| is_spo2(message, 88) || is_spo2(message, 96)),
        "published before it was confirmed"
    );
    // Both follow, in either order.
    let is_end = |message: &Json| message["data"]["rule"] == "device_changed" && message["data"]["change"] == "end";
    ward.until_spo2(88).await;
    if !ward.seen.iter().any(is_end) {
        ward.until_alert("end").await;
    }
    let rows: Vec<(&str, &str)> = ward
        .seen
        .iter()
        .filter(|message| message["type"] == "audit" && message["data"]["action"] == "device_confirmed")
        .map(|message| (message["data"]["by"].as_str().unwrap(), message["data"]["result"].as_str().unwrap()))
        .collect();
    assert_eq!(rows.first(), Some(&("nurse", "refused")));
    assert_eq!(rows.last(), Some(&("clinician", "done")));
    assert_eq!(ward.bridge.stop(), Some(0));

    // The confirmed one is known after a restart, and the first is the other one now.
    let mut ward = Ward::start(dir.path(), &monitor, "masimo-ascii1", "").await;
    ward.until_spo2(88).await;
    assert!(!ward.seen.iter().any(|message| message["type"] == "alert" && message["data"]["rule"] == "device_changed"));
    monitor.replace(masimo("AAA", 97));
    ward.until_alert("start").await;
    assert!(!ward.seen.iter().any(|message| is_spo2(message, 97)), "the old monitor was published");
    assert_eq!(ward.bridge.stop(), Some(0));

    // Nor does a restart make it right; a changed configuration does.
    let mut ward = Ward::start(dir.path(), &monitor, "masimo-ascii1", "").await;
    ward.until("the doubt", |message| {
        message["type"] == "device_status" && message["data"]["status"] == json!(["device_changed"])
    })
    .await;
    assert!(!ward.seen.iter().any(|message| is_spo2(message, 97)), "published after a restart");
    assert_eq!(ward.bridge.stop(), Some(0));
    let mut ward = Ward::start(dir.path(), &monitor, "masimo-ascii1", "serial_number = 'AAA'").await;
    ward.until_spo2(97).await;
    assert_eq!(ward.command(&confirm("BBB")).await["code"], "configured");
    assert_eq!(ward.bridge.stop(), Some(0));
}

/// What the module is told when the port is opened, and what a command to it is.
const INIT: [[u8; 6]; 5] = [
    [0x55, 0xAA, 0x04, 0x01, 0x01, 0xF9],
    [0x55, 0xAA, 0x04, 0x03, 0x01, 0xF7],
    [0x55, 0xAA, 0x04, 0x04, 0x01, 0xF6],
    [0x55, 0xAA, 0x04, 0xFE, 0x01, 0xFC],
    [0x55, 0xAA, 0x04, 0xFF, 0x01, 0xFB],
];
const NIBP_START: [u8; 6] = [0x55, 0xAA, 0x04, 0x02, 0x01, 0xF8];
const NIBP_STOP: [u8; 6] = [0x55, 0xAA, 0x04, 0x02, 0x00, 0xF9];

fn is_order(message: &Json) -> bool {
    message["type"] == "audit" && message["data"]["action"] == "device_command"
}

fn order(command: &str) -> Json {
    json!({"name": "device.command", "source_id": "port", "command": command})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cuff_is_inflated_on_order_and_with_leave_only_and_every_order_is_in_the_audit_trail() {
    let dir = tempfile::tempdir().unwrap();
    // A gap that no machine is too slow for.
    let profile =
        vitalbridge::profile::built_in_text("berry-pm6750").unwrap().replace(r#"gap = "50ms""#, r#"gap = "1s""#);
    std::fs::write(dir.path().join("pm6750.toml"), profile).unwrap();
    let monitor = Monitor::start(dir.path().join("cable"), String::new());
    let mut ward = Ward::start(dir.path(), &monitor, "pm6750.toml", "").await;
    ward.until("it waits", |message| message["data"]["link"] == "silent").await;
    for (command, code) in [("nibp_start", "not_allowed"), ("self_destruct", "unknown_command")] {
        let result = ward.command(&order(command)).await;
        assert_eq!((&result["ok"], &result["code"]), (&json!(false), &json!(code)), "{result}");
        let row = ward.seen.iter().rfind(|message| is_order(message)).cloned();
        let row = match row {
            Some(row) if row["data"]["object"] == command => row["data"].clone(),
            _ => ward.until_audit("device_command").await,
        };
        assert_eq!(
            (&row["by"], &row["object"], &row["result"], &row["source_id"]),
            (&json!("clinician"), &json!(command), &json!("refused"), &json!("port")),
        );
    }
    // What stops the cuff needs no leave.
    assert_eq!(ward.command(&order("nibp_stop")).await["ok"], true);
    assert_eq!(ward.bridge.stop(), Some(0));
    let sent: Vec<u8> = monitor.heard().concat();
    assert!(sent.windows(6).any(|bytes| bytes == NIBP_STOP), "{sent:02X?}");
    assert!(!sent.windows(6).any(|bytes| bytes == NIBP_START), "{sent:02X?}");
    monitor.state.lock().unwrap().heard.clear();

    let mut ward = Ward::start(dir.path(), &monitor, "pm6750.toml", "allow_commands = ['nibp_start']").await;
    ward.until("it waits", |message| message["data"]["link"] == "silent").await;
    let before = monitor.heard().concat();
    assert!(!before.windows(6).any(|bytes| bytes == NIBP_START), "it was sent unasked: {before:02X?}");
    let deadline = now() + DEADLINE;
    while monitor.heard().len() < INIT.len() {
        assert!(now() < deadline, "{:02X?}", monitor.heard());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ward.command(&order("nibp_start")).await["ok"], true);
    let row = ward.seen.iter().rfind(|message| is_order(message)).map(|row| row["data"].clone());
    let row = match row {
        Some(row) => row,
        None => ward.until_audit("device_command").await,
    };
    assert_eq!(
        (&row["object"], &row["result"], &row["by"]),
        (&json!("nibp_start"), &json!("done"), &json!("clinician"))
    );
    // Each came by itself: the link's gap lay between.
    let deadline = now() + DEADLINE;
    while !monitor.heard().iter().any(|bytes| *bytes == NIBP_START) {
        assert!(now() < deadline, "{:02X?}", monitor.heard());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let heard = monitor.heard();
    assert_eq!(heard.iter().filter(|bytes| bytes.len() != 6).count(), 0, "two at once: {heard:02X?}");
    assert_eq!(heard[..INIT.len()], INIT.map(|step| step.to_vec()));
    assert_eq!(ward.bridge.stop(), Some(0));
}

#[test]
fn check_names_every_problem_of_ports_at_once_and_warns_of_names_that_move() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tty"), "").unwrap();
    std::os::unix::fs::symlink(dir.path().join("tty"), dir.path().join("alias")).unwrap();
    let profile = vitalbridge::profile::built_in_text("nonin-df2").unwrap();
    let xon = profile.replace("[serial]", "[serial]\nflow = \"xonxoff\"");
    std::fs::write(dir.path().join("xon.toml"), xon.replacen("flow = \"none\"\n", "", 1)).unwrap();
    let source = |id: &str, port: &str, rest: &str| {
        format!(
            "[[source]]\nid = '{id}'\nkind = 'serial'\nport = '{}'\n{rest}\n",
            port.replace('@', dir.path().to_str().unwrap())
        )
    };
    let nonin = "profile = 'nonin-df2'";
    let file = dir.path().join("c.toml");
    let check = |text: String| {
        std::fs::write(&file, text).unwrap();
        let output = program().args(["check", "--json", "--config", file.to_str().unwrap()]).output().unwrap();
        serde_json::from_slice::<Json>(&output.stdout).unwrap()
    };
    let report = check(
        [
            source("a", "@/tty", nonin),
            source("b", "@/alias", nonin),
            source("c", "/dev/nowhere", "profile = 'xon.toml'"),
            source("d", "tcp://ward:1", "profile = 'nonin-df2'\nserial_number = '123'"),
            source("f", "/dev/ttyUSB76", "profile = 'masimo-ascii1'\nsettings = '9600 9N1'"),
            source("g", "tcp://ward:2", "profile = 'masimo-ascii1'\nsettings = '9600 8N1'"),
            source("e", "tcp://WARD:1", "profile = 'berry-pm6750'\nallow_commands = ['fly', 'nibp_start']"),
        ]
        .concat(),
    );
    let problems = report["problems"].as_array().unwrap();
    let text = |part: &str| problems.iter().filter(|one| one["message"].as_str().unwrap().contains(part)).count();
    for part in [
        "belongs to the source `a` already, as `",
        "belongs to the source `d` already, as `",
        "XON/XOFF is not offered: it eats the data bytes 0x11 and 0x13",
        "never tells a serial number",
        "has no command `fly`; it has ",
        "`9600 9N1` is no line settings: write them as `9600 8N1`",
        "a serial server has its line settings itself",
    ] {
        assert_eq!(text(part), 1, "{part}: {report:#}");
    }
    assert_eq!(problems.len(), 7, "{report:#}");
    // What is wrong elsewhere hides no warning.
    assert!(report["warnings"][0]["message"].as_str().unwrap().contains("/dev/serial/by-id"), "{report:#}");
    let output = program().args(["check", "--config", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("warning, ") && said.contains("/dev/serial/by-id"), "{said}");

    let report = check(source("a", "/dev/ttyUSB77", "profile = 'masimo-ascii1'\nsettings = '19200 8N1'"));
    assert_eq!((&report["ok"], &report["warnings"][0]["line"]), (&json!(true), &json!(4)), "{report:#}");
    assert!(report["warnings"][0]["message"].as_str().unwrap().contains("/dev/serial/by-id"), "{report:#}");
}

#[test]
fn a_profile_that_would_actuate_unasked_is_refused() {
    let text = vitalbridge::profile::built_in_text("berry-pm6750").unwrap();
    let first = r#"  { send = "55 AA 04 01 01 F9" }, # ECG"#;
    for (place, with) in [
        (first, r#"  { send = "55 AA 04 02 01 F8" },"#.to_owned()),
        (r#"gap = "50ms""#, "gap = \"50ms\"\npoll = [{ send = \"55 AA 04 02 01 F8\", every = \"60s\" }]".to_owned()),
        (r#"gap = "50ms""#, "gap = \"50ms\"\nkeep_alive = { send = \"55 AA 04 02 01 F8\", every = \"5s\" }".to_owned()),
        (r#"  { send = "55 AA 04 01 00 FA" },"#, r#"  { send = "55 AA 04 02 01 F8" },"#.to_owned()),
    ] {
        assert!(text.contains(place), "{place}");
        let problems = vitalbridge::profile::Profile::parse(&text.replacen(place, &with, 1)).unwrap_err().to_string();
        assert!(problems.contains("belongs to a command that actuates and is sent unasked"), "{with}: {problems}");
    }
    let text = vitalbridge::profile::built_in_text("suntech-nibp").unwrap();
    let place = "gap = \"50ms\"\n";
    let command = "[[link.command]]\nid = \"nibp_start\"";
    let (unasked, sneaky) = ("and is sent unasked", "and is sent by `sneaky`, which has no `actuates = true`");
    for (name, at, with, expected) in [
        ("doubled", place, r#"init = [{ send = "3A 20 A6 3A 20 A6" }]"#, unasked),
        ("split", place, r#"init = [{ send = "3A" }, { send = "20 A6" }]"#, unasked),
        ("split over stop and init", place, "stop = [{ send = \"3A\" }]\ninit = [{ send = \"20 A6\" }]", unasked),
        ("embedded", place, r#"stop = [{ send = "3A 79 3A 20 A6 4A" }]"#, unasked),
        ("a poll after itself", place, "poll = [{ send = \"A6 3A 20\", every = \"2s\" }]", unasked),
        ("a keep-alive after itself", place, "keep_alive = { send = \"20 A6 3A\", every = \"2s\" }", unasked),
        ("a command", command, "[[link.command]]\nid = \"sneaky\"\nsend = [\"3A 20 A6\"]", sneaky),
        ("a command in parts", command, "[[link.command]]\nid = \"sneaky\"\nsend = [\"3A 20\", \"A6 00\"]", sneaky),
        ("a part alone", command, "[[link.command]]\nid = \"sneaky\"\nsend = [\"20 A6\"]", ""),
    ] {
        assert!(text.contains(at), "{name}");
        // Without a checksum, or its bytes would be refused for that already.
        let open = text.replacen("[link]\n", "[link]\nchecksum = { kind = \"none\" }\n", 1);
        let open = if with.starts_with("poll") {
            let poll = "[[link.poll]]\nsend = \"3A 79 03 00 4A\"\nevery = \"2s\"\n";
            assert!(open.contains(poll));
            open.replacen(poll, "", 1)
        } else {
            open
        };
        let written = if at == place { format!("{at}{with}\n") } else { format!("{with}\n\n{at}") };
        let parsed = vitalbridge::profile::Profile::parse(&open.replacen(at, &written, 1));
        if expected.is_empty() {
            assert!(parsed.is_ok(), "{name}: {:?}", parsed.err());
            continue;
        }
        let problems = parsed.unwrap_err();
        let found = problems.as_slice().iter().all(|problem| problem.message.contains(expected));
        assert!(found && !problems.as_slice().is_empty(), "{name}: {problems}");
    }
}
