//! The daemon as a service: what systemd is told, a reload, and a state directory that is full.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::bridge::{Bridge, eventually, program, signal, token};
use crate::broker::free_port;
use crate::dashboard::Dashboard;

/// A bridge with one recorded patient, and rules of its own.
fn write_config(dir: &Path, rules: &str) -> String {
    std::fs::write(dir.join("numerics.csv"), "t_s,HR,SpO2\n0,72,97\n100000,72,97\n").unwrap();
    std::fs::write(dir.join("rules.toml"), rules).unwrap();
    let file = dir.join("vitalbridge.toml");
    let text = "[server]\nlisten = '127.0.0.1:0'\n[store]\ndir = 'state'\n[alerts]\nrules = 'rules.toml'\n\
        [[patient]]\nid = 'P-1'\n[[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\n";
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// An override that makes 97 % too low at once.
const STRICT: &str = "[patient.\"P-1\".rule.spo2_low]\nwhen = { below = 99 }\nclear = { at_least = 100 }\ndelay = \"1s\"\n\
    reason = \"test\"\nby = \"test\"\nexpires = \"2099-01-01T00:00:00Z\"\n";

async fn watching(bridge: &Bridge, state: &Path) -> Dashboard {
    let bearer = format!("Bearer {}", token(state, &["--role", "nurse"]));
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    dashboard.say(&json!({"type": "subscribe", "channels": ["system", "alerts/+", "patient/+/+"]})).await;
    dashboard.next_of("snapshot").await;
    dashboard
}

#[tokio::test]
async fn a_reload_takes_new_rules_and_refuses_broken_ones() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let bridge = Bridge::start(&["run", "--config", &file]);
    let mut dashboard = watching(&bridge, &dir.path().join("state")).await;

    write_config(dir.path(), STRICT);
    signal(bridge.pid(), "HUP");
    assert_eq!(dashboard.next_of("system").await["data"]["kind"], "config_reloaded");
    let alert = dashboard.next_of("alert").await;
    assert_eq!((&alert["data"]["rule"], &alert["data"]["change"]), (&json!("spo2_low"), &json!("start")), "{alert}");

    write_config(dir.path(), "[[rule]]\nid = 5\n");
    signal(bridge.pid(), "HUP");
    assert_eq!(dashboard.next_of("system").await["data"]["kind"], "config_refused");
    let fault = dashboard.next_of("alert").await;
    assert_eq!(fault["data"]["kind"], "technical", "{fault}");
    assert_eq!(fault["data"]["priority"], "high", "{fault}");
    // The old rules go on.
    assert_eq!(dashboard.next_of("health_update").await["data"]["mode"], "test");
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn systemd_is_told_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut command = program();
    command.args(["run", "--config", &file]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
    let bridge = Bridge::start_command(command);
    let mut told = String::new();
    let mut hear = |wanted: &str| {
        let mut bytes = [0; 4096];
        while let Ok(length) = socket.recv(&mut bytes) {
            told.push_str(&String::from_utf8_lossy(&bytes[..length]));
            told.push('\n');
        }
        // Who looks while a large database is mended reads what is going on.
        if let Some((before, _)) = told.split_once("READY=1") {
            assert!(before.contains("STATUS=starting: opening the database"), "{told}");
        }
        told.contains(wanted).then_some(())
    };
    for wanted in ["READY=1", "STATUS=", "WATCHDOG=1"] {
        eventually(wanted, Duration::from_secs(30), || hear(wanted)).await;
    }
    signal(bridge.pid(), "TERM");
    eventually("STOPPING=1", Duration::from_secs(10), || hear("STOPPING=1")).await;
    assert_eq!(bridge.exit_code(), Some(0));
}

#[tokio::test]
async fn systemd_is_told_that_it_is_ready_while_the_broker_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let text = std::fs::read_to_string(&file).unwrap();
    let port = free_port();
    std::fs::write(&file, format!("{text}[mqtt]\nbroker = 'mqtt://127.0.0.1:{port}'\n")).unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut command = program();
    command.args(["run", "--config", &file]).env("NOTIFY_SOCKET", &path);
    let bridge = Bridge::start_command(command);
    let mut told = String::new();
    eventually("READY=1", Duration::from_secs(10), || {
        let mut bytes = [0; 4096];
        while let Ok(length) = socket.recv(&mut bytes) {
            told.push_str(&String::from_utf8_lossy(&bytes[..length]));
            told.push('\n');
        }
        told.contains("READY=1").then_some(())
    })
    .await;
    assert_eq!(bridge.stop(), Some(0));
}

/// A bridge in a mount namespace of its own, where its state directory is a disk of `size` with `ballast` KiB on it. A
/// helper beside it there fills the disk once `fill` exists, and goes with the folder.
async fn on_a_small_disk(dir: &Path, file: &str, size: &str, ballast: u32) -> (Bridge, Dashboard) {
    let state = dir.join("state");
    std::fs::create_dir(&state).unwrap();
    let (ready, fill) = (dir.join("mounted"), dir.join("fill"));
    let script = format!(
        "mount -t tmpfs -o size={size},mode=700 none '{state}' && \
         dd if=/dev/zero of='{state}/first' bs=1k count={ballast} 2>/dev/null && touch '{ready}' && \
         (while ! [ -e '{fill}' ]; do [ -e '{ready}' ] || exit; sleep 0.05; done; dd if=/dev/zero of='{state}/ballast' bs=4k 2>/dev/null) & \
         while ! [ -e '{ready}' ]; do sleep 0.05; done; \
         '{program}' token issue --config '{file}' --role nurse > '{dir}/token' && exec '{program}' run --config '{file}'",
        state = state.display(),
        ready = ready.display(),
        fill = fill.display(),
        program = program().get_program().to_str().unwrap(),
        dir = dir.display(),
    );
    let mut command = Command::new("unshare");
    // Without root, a user namespace gives the right to mount.
    let namespaces = if is_root() { "-m" } else { "-rm" };
    command.args([namespaces, "sh", "-c", &script]).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    let bridge = Bridge::start_command(command);
    let token = std::fs::read_to_string(dir.join("token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    (bridge, dashboard)
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_raises_an_alert() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let (bridge, mut dashboard) = on_a_small_disk(dir.path(), &file, "40m", 38_000).await;
    assert_eq!(rule_of_the_first_alert(&mut dashboard).await, ("disk_full".to_owned(), "start".to_owned()));
    assert_eq!(bridge.stop(), Some(0));
}

/// The next alert; heartbeats do not count as progress.
async fn next_alert(dashboard: &mut Dashboard) -> serde_json::Value {
    tokio::time::timeout(Duration::from_secs(20), dashboard.next_of("alert")).await.expect("an alert within 20 s")
}

/// The rule and change of the first alert, whether it came before the subscription or after.
async fn rule_of_the_first_alert(dashboard: &mut Dashboard) -> (String, String) {
    dashboard.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    let snapshot = dashboard.next_of("snapshot").await;
    let alert = match snapshot["data"]["alerts"].get(0) {
        Some(alert) => alert.clone(),
        None => next_alert(dashboard).await["data"].take(),
    };
    let member = |name: &str| alert[name].as_str().unwrap_or_else(|| panic!("{alert}")).to_owned();
    (member("rule"), member("change"))
}

#[tokio::test]
async fn without_a_broker_an_uplink_is_not_down() {
    const AT_ONCE: &str = "[[rule]]\nid = \"uplink_down\"\nkind = \"technical\"\npriority = \"low\"\n\
        when = { condition = \"uplink_down\" }\nclear_delay = \"0s\"\n";
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), AT_ONCE);
    let with_broker = std::fs::read_to_string(&file).unwrap();
    // Nobody listens on port 1.
    std::fs::write(&file, format!("{with_broker}[mqtt]\nbroker = 'mqtt://127.0.0.1:1'\n")).unwrap();
    let bridge = Bridge::start(&["run", "--config", &file]);
    let state = dir.path().join("state");
    let bearer = format!("Bearer {}", token(&state, &["--role", "nurse"]));
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    assert_eq!(rule_of_the_first_alert(&mut dashboard).await, ("uplink_down".to_owned(), "start".to_owned()));
    assert_eq!(bridge.stop(), Some(0));

    write_config(dir.path(), AT_ONCE);
    let bridge = Bridge::start(&["run", "--config", &file]);
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    dashboard.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    let snapshot = dashboard.next_of("snapshot").await;
    // Over before the subscription or after.
    let mut is_over = snapshot["data"]["alerts"].as_array().unwrap().is_empty();
    while !is_over {
        let alert = next_alert(&mut dashboard).await;
        assert_eq!(alert["data"]["rule"], "uplink_down", "{alert}");
        is_over = alert["data"]["change"] == "end";
    }
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn a_full_state_directory_raises_an_alert_and_the_patients_stay_on_the_screen() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let (bridge, mut dashboard) = on_a_small_disk(dir.path(), &file, "2m", 0).await;
    dashboard.say(&json!({"type": "subscribe", "channels": ["alerts/+", "patient/+/+"]})).await;
    dashboard.next_of("health_update").await;

    std::fs::write(dir.path().join("fill"), "").unwrap();
    // Readings have room in the file for a while. Each subscription is a row of the audit trail, so that it ends soon.
    let is_told = async {
        loop {
            dashboard.say(&json!({"type": "subscribe", "channels": ["alerts/+", "patient/+/+"]})).await;
            if let Ok(alert) = tokio::time::timeout(Duration::from_millis(100), dashboard.next_of("alert")).await
                && alert["data"]["rule"] == "storage_degraded"
            {
                break assert_eq!(alert["data"]["change"], "start", "{alert}");
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), is_told).await.expect("the full disk is told");
    // Live goes on although nothing can be written.
    for _ in 0..3 {
        assert_eq!(dashboard.next_of("health_update").await["data"]["mode"], "test");
    }
    // What was never stored is no clean end.
    assert_eq!(bridge.stop(), Some(70));
}

#[tokio::test]
async fn a_start_on_a_full_disk_shows_the_patients_tells_and_heals_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let (state, free) = (dir.path().join("state"), dir.path().join("free"));
    std::fs::create_dir(&state).unwrap();
    // A run that ends as it should; then somebody fills the disk, and the daemon starts again.
    let script = format!(
        "mount -t tmpfs -o size=20m,mode=700 none '{state}' && cd '{dir}' && \
         '{program}' token issue --config '{file}' --role nurse > token && \
         {{ '{program}' run --config '{file}' > first & }} && first=$! && \
         while ! grep -q listening first; do kill -0 $first || exit; sleep 0.05; done; \
         kill -TERM $first; wait $first; \
         dd if=/dev/zero of='{state}/ballast' bs=4k 2>/dev/null; \
         (while ! [ -e '{free}' ]; do [ -e token ] || exit; cat /dev/zero >> '{state}/ballast'; sleep 0.05; done; \
         rm '{state}/ballast') 2>/dev/null & \
         exec '{program}' run --config '{file}'",
        state = state.display(),
        free = free.display(),
        dir = dir.path().display(),
        program = program().get_program().to_str().unwrap(),
    );
    let mut command = Command::new("unshare");
    let namespaces = if is_root() { "-m" } else { "-rm" };
    command.args([namespaces, "sh", "-c", &script]).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    let bridge = Bridge::start_command(command);
    let bearer = format!("Bearer {}", std::fs::read_to_string(dir.path().join("token")).unwrap().trim());
    let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    dashboard.say(&json!({"type": "subscribe", "channels": ["alerts/+", "patient/+/+"]})).await;
    let degraded = json!("storage_degraded");
    let snapshot = dashboard.next_of("snapshot").await;
    let mut is_told = snapshot["data"]["alerts"].as_array().unwrap().iter().any(|alert| alert["rule"] == degraded);
    while !is_told {
        let alert = next_alert(&mut dashboard).await;
        is_told = alert["data"]["rule"] == degraded && alert["data"]["change"] == "start";
    }
    for _ in 0..3 {
        assert_eq!(dashboard.next_of("health_update").await["data"]["mode"], "test");
    }
    std::fs::write(&free, "").unwrap();
    loop {
        let alert = next_alert(&mut dashboard).await;
        if alert["data"]["rule"] == degraded && alert["data"]["change"] == "end" {
            break;
        }
    }
    assert_eq!(bridge.stop(), Some(0), "everything is stored");
}

fn is_root() -> bool {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim() == "0"
}
