//! `doctor` as a person meets it: the real binary, with real brokers, a real bus, ports, disks and databases that are well
//! and that are not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::net::TcpListener;
use vitalbridge::clock::{Clock, Wall};

use crate::bridge::{Bridge, eventually, program};
use crate::fake_bluez::{Bus, FakeBluez, World};
use crate::mqtt::{Broker, free_port};
use crate::mqtt_access::Certificates;

/// A broker's password, which nothing may print.
const PASSWORD: &str = "correct-horse-battery";

/// A folder with a configuration in it, and programs of the machine that say what a test wants.
struct Ward {
    dir: tempfile::TempDir,
    listen: u16,
}

impl Ward {
    fn new() -> Self {
        let ward = Self { dir: tempfile::tempdir().unwrap(), listen: free_port() };
        std::fs::create_dir(ward.path("bin")).unwrap();
        ward.says("timedatectl", "printf 'NTP=yes\\nNTPSynchronized=yes\\n'");
        ward.says("vcgencmd", "echo throttled=0x0");
        ward.says("systemctl", "printf 'LoadState=not-found\\nActiveState=inactive\\n'");
        std::fs::write(ward.path("numerics.csv"), "t_s,HR,SpO2\n0,72,97\n100000,72,97\n").unwrap();
        ward
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that goes before the machine's own.
    fn says(&self, program: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.path("bin").join(program);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The configuration: a recorded patient, and what else is given.
    fn configured(&self, more: &str) -> String {
        let file = self.path("vitalbridge.toml");
        let text = format!(
            "[server]\nlisten = '127.0.0.1:{}'\n[store]\ndir = 'state'\n[[patient]]\nid = 'P-1'\nname = 'Erika Mustermann'\n\
             [[source]]\nid = 'recording'\nkind = 'replay'\nfile = 'numerics.csv'\npatient = 'P-1'\n{more}\n",
            self.listen
        );
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn command(&self) -> Command {
        let mut command = program();
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display())).stdin(Stdio::null());
        command.args(["doctor", "--json", "--config", self.path("vitalbridge.toml").to_str().unwrap()]);
        command
    }

    /// What it finds; its exit code is that of the worst finding.
    async fn doctor(&self) -> Report {
        Report::of(self.command()).await
    }

    /// What it finds with this configuration.
    async fn with(&self, more: &str) -> Report {
        self.configured(more);
        self.doctor().await
    }
}

struct Report(Json);

impl Report {
    async fn of(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(Duration::from_secs(90), command.kill_on_drop(true).output());
        let output = output.await.expect("doctor ends").unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let report: Json = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let levels: Vec<&str> =
            report["findings"].as_array().unwrap().iter().map(|one| one["level"].as_str().unwrap()).collect();
        let code = if levels.contains(&"error") { 2 } else { i32::from(levels.contains(&"warning")) };
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(report["status"], ["ok", "warning", "error"][usize::try_from(code).unwrap()]);
        for finding in report["findings"].as_array().unwrap() {
            let is_bad = matches!(finding["level"].as_str(), Some("warning" | "error"));
            assert_eq!(finding["advice"].is_string(), is_bad, "{finding}");
        }
        Self(report)
    }

    /// The findings of an area as `check level`.
    fn of_area(&self, area: &str) -> Vec<String> {
        let all = self.0["findings"].as_array().unwrap().iter().filter(|one| one["area"] == area);
        all.map(|one| format!("{} {}", one["check"].as_str().unwrap(), one["level"].as_str().unwrap())).collect()
    }

    fn finding(&self, area: &str, check: &str) -> &Json {
        let found =
            self.0["findings"].as_array().unwrap().iter().find(|one| one["area"] == area && one["check"] == check);
        found.unwrap_or_else(|| panic!("{area} {check}: {:#}", self.0))
    }
}

#[tokio::test]
async fn a_well_machine_is_well_before_its_daemon_starts_and_while_it_runs() {
    let (ward, broker) = (Ward::new(), Broker::started("").await);
    let file = ward.configured(&format!("[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\n", broker.port));
    let before = ward.doctor().await;
    for (area, expected) in [
        ("configuration", "right ok"),
        ("service", "not_installed skipped"),
        ("clock", "synchronised ok"),
        ("bluez", "unused skipped"),
        ("serial", "unused skipped"),
        ("store", "absent skipped"),
        ("broker", "reached ok"),
        ("secrets", "absent skipped"),
        ("ports", "free ok"),
        ("power", "good ok"),
        ("machine", "unknown skipped"),
    ] {
        assert_eq!(before.of_area(area), [expected], "{:#}", before.0);
    }
    assert!(before.0["daemon"].is_null());
    assert!(!ward.path("state").exists(), "it has made something");

    let bridge = Bridge::start(&["run", "--config", &file]);
    let running = ward.doctor().await;
    assert_eq!(running.0["daemon"], bridge.pid(), "{:#}", running.0);
    for (area, expected) in [
        ("store", "sound ok"),
        ("broker", "reached ok"),
        ("secrets", "good ok"),
        ("ports", "answered ok"),
        ("buffer", "pace_unknown skipped"),
    ] {
        assert_eq!(running.of_area(area), [expected], "{:#}", running.0);
    }
    // A container may have neither of the numbers of a machine.
    assert_eq!(running.of_area("machine"), ["same ok"]);
    assert_eq!(bridge.stop(), Some(0));
    let files = || {
        let all = std::fs::read_dir(ward.path("state")).unwrap();
        all.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let left = files();
    let after = ward.doctor().await;
    assert_eq!((after.of_area("store"), after.of_area("ports")), (vec!["sound ok".into()], vec!["free ok".into()]));
    assert_eq!(files(), left, "to look has left something");
}

#[tokio::test]
async fn what_keeps_the_bridge_from_its_broker_is_found_at_the_step_where_it_is() {
    let (ward, certificates) = (Ward::new(), Certificates { dir: tempfile::tempdir().unwrap() });
    let authority = certificates.authority("ca");
    let today = Clock::System.now().wall;
    // Ten days from now, as year, month and day.
    let soon = Wall(today.0 + 10 * 86_400_000).to_string();
    let number = |from: usize, to: usize| soon[from..to].parse::<u8>().unwrap();
    let soon = rcgen::date_time_ymd(soon[..4].parse().unwrap(), number(5, 7), number(8, 10));
    certificates.write("broker", &authority, |_| {});
    certificates.write("early", &authority, |params| params.not_before = rcgen::date_time_ymd(2900, 1, 1));
    certificates.write("ended", &authority, |params| {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(2001, 1, 1));
    });
    certificates.write("soon", &authority, |params| params.not_after = soon);
    let _other = certificates.authority("other");
    let [early, ended, ending, good, locked, guarded, nobody] = std::array::from_fn(|_| free_port());
    std::fs::write(ward.path("accounts"), "").unwrap();
    std::fs::write(ward.path("password"), PASSWORD).unwrap();
    std::fs::write(ward.path("rights"), "topic read #\n").unwrap();
    let made = Command::new("mosquitto_passwd")
        .args(["-b", ward.path("accounts").to_str().unwrap(), "b1", "another"])
        .status();
    assert!(made.unwrap().success());
    let mut broker = Broker::stopped("");
    let text = format!(
        "per_listener_settings true\nuser root\nlog_dest none\nlistener {} 127.0.0.1\nallow_anonymous true\n{}{}{}{}\
         listener {locked} 127.0.0.1\nallow_anonymous false\npassword_file {}\n\
         listener {guarded} 127.0.0.1\nallow_anonymous true\nacl_file {}\n",
        broker.port,
        certificates.listener(early, "early", "allow_anonymous true"),
        certificates.listener(ended, "ended", "allow_anonymous true"),
        certificates.listener(ending, "soon", "allow_anonymous true"),
        certificates.listener(good, "broker", "allow_anonymous true"),
        ward.path("accounts").display(),
        ward.path("rights").display(),
    );
    std::fs::write(broker.folder.path().join("mosquitto.conf"), text).unwrap();
    broker.start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().port();
    let ca = |name: &str| format!("[mqtt.tls]\nca_file = '{}'\n", certificates.path(name).display());
    let plain = String::new;
    let login = || "username = 'b1'\npassword_file = 'password'\n".to_owned();
    for (address, more, check, level, words) in [
        ("mqtt://broker.invalid".to_owned(), plain(), "name", "error", "leads nowhere"),
        (format!("mqtt://127.0.0.1:{nobody}"), plain(), "tcp", "error", "refused"),
        (format!("mqtts://127.0.0.1:{early}"), ca("ca.pem"), "tls", "error", "is not valid yet"),
        (format!("mqtts://127.0.0.1:{ended}"), ca("ca.pem"), "tls", "error", "certificate has ended"),
        (format!("mqtts://127.0.0.1:{good}"), ca("other.pem"), "tls", "error", "nobody who is trusted here"),
        (format!("mqtts://127.0.0.1:{}", broker.port), ca("ca.pem"), "tls", "error", "check mqtt.broker"),
        (format!("mqtts://127.0.0.1:{good}"), ca("ca.pem"), "reached", "ok", "TLS"),
        (format!("mqtts://127.0.0.1:{ending}"), ca("ca.pem"), "certificate_ends", "warning", "within 30 days"),
        (format!("mqtt://127.0.0.1:{locked}"), login(), "connack", "error", "refuses the connection"),
        (format!("mqtt://127.0.0.1:{guarded}"), plain(), "puback", "error", "takes the connection and no message"),
        (format!("mqtt://127.0.0.1:{silent}"), plain(), "connack", "error", "no answer"),
    ] {
        let report = ward.with(&format!("[mqtt]\nbroker = '{address}'\n{more}")).await;
        let found = report.finding("broker", check);
        assert_eq!(found["level"], level, "{found}");
        assert!(found["message"].as_str().unwrap().contains(words), "{words}: {found}");
        assert!(!report.0.to_string().contains(PASSWORD));
    }
}

#[tokio::test]
async fn a_message_of_the_doctor_is_empty_and_stays_nowhere_and_the_daemon_keeps_its_connection() {
    let (ward, broker) = (Ward::new(), Broker::started("").await);
    let file = ward.configured(&format!("[mqtt]\nbroker = 'mqtt://127.0.0.1:{}'\n", broker.port));
    let mut consumer = tokio::process::Command::new("mosquitto_sub");
    consumer.args(["-p", &broker.port.to_string(), "-t", "vitals/#", "-F", "%t %r %p"]).kill_on_drop(true);
    let heard = ward.path("heard");
    let _consumer = consumer.stdout(std::fs::File::create(&heard).unwrap()).spawn().unwrap();
    let bridge = Bridge::start(&["run", "--config", &file]);
    let said =
        |words: &str| std::fs::read_to_string(&heard).unwrap().lines().any(|line| line.contains(words)).then_some(());
    eventually("the bridge is online", Duration::from_secs(20), || said("\"online\"")).await;
    assert_eq!(ward.doctor().await.of_area("broker"), ["reached ok"]);
    eventually("the doctor's message", Duration::from_secs(10), || said("/doctor 0")).await;
    assert_eq!(said("\"offline\""), None, "the daemon was thrown out");
    assert_eq!(bridge.stop(), Some(0));
    for line in std::fs::read_to_string(&heard).unwrap().lines() {
        let parts: Vec<&str> = line.splitn(3, ' ').collect();
        crate::frames::check_at_broker(parts[0], parts[2]);
    }
}

/// Of another patient than the recording, whose mode is another one.
const STRAP: &str = "[[patient]]\nid = 'P-2'\nname = 'Otto Normal'\n\
     [[source]]\nid = 'strap'\nkind = 'ble'\naddress = 'C0:FF:EE:00:00:01'\npatient = 'P-2'\n";

#[tokio::test]
async fn bluetooth_is_followed_from_the_bus_to_the_adapter() {
    let ward = Ward::new();
    ward.says("bluetoothctl", "echo 'bluetoothctl: 5.82'");
    ward.configured(STRAP);
    let ask = async |bus: &Bus| {
        let mut command = ward.command();
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        Report::of(command).await
    };
    let absent = Bus::absent();
    let report = ask(&absent).await;
    assert_eq!(report.of_area("dbus"), ["unreachable error"]);
    assert_eq!(report.of_area("bluez"), ["bus skipped"]);
    let bus = Bus::start().await;
    assert_eq!(ask(&bus).await.of_area("bluez"), ["not_running error"]);
    let mut world = World::new(vec![]);
    world.has_adapter = false;
    let fake = FakeBluez::start(&bus, world).await;
    assert_eq!(ask(&bus).await.of_area("adapter"), ["absent error"]);
    fake.change(World::plug_in).await;
    fake.change(|world| world.power(false)).await;
    assert_eq!(ask(&bus).await.of_area("adapter"), ["off error"]);
    assert!(!fake.change(|world| world.powered).await, "the adapter was switched on against the operator");
    fake.change(|world| world.power(true)).await;
    let report = ask(&bus).await;
    assert_eq!(report.of_area("adapter"), ["on ok"]);
    assert_eq!(report.of_area("bluez"), ["runs ok"]);

    let mut denying = Bus::absent();
    denying.denies_bluez = true;
    denying.run().await;
    let _fake = FakeBluez::start(&denying, World::new(vec![])).await;
    assert_eq!(ask(&denying).await.of_area("dbus"), ["denied error"]);
}

#[tokio::test]
async fn a_serial_port_is_there_or_not_or_in_other_hands() {
    let ward = Ward::new();
    let port = ward.path("port");
    let source = format!(
        "[[patient]]\nid = 'P-2'\nname = 'Otto Normal'\n\
         [[source]]\nid = 'oximeter'\nkind = 'serial'\nport = '{}'\nprofile = 'nonin-df8'\npatient = 'P-2'\n",
        port.display()
    );
    assert_eq!(ward.with(&source).await.of_area("serial"), ["absent error"]);
    std::fs::write(&port, "").unwrap();
    assert_eq!(ward.doctor().await.of_area("serial"), ["no_device error"]);
    std::fs::remove_file(&port).unwrap();
    let mut device = program();
    device.args(["emulate", "--json", "--profile", "nonin-df8", "--pty", port.to_str().unwrap()]);
    let mut device = tokio::process::Command::from(device).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    eventually("the port", Duration::from_secs(20), || port.exists().then_some(())).await;
    assert_eq!(ward.doctor().await.of_area("serial"), ["there ok"]);
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(&port).unwrap();
    // The command keeps the port open too, and goes at once.
    let mut reader = tokio::process::Command::new("sleep").arg("60").stdin(opened).kill_on_drop(true).spawn().unwrap();
    let report = ward.doctor().await;
    assert_eq!(report.of_area("serial"), ["taken error"]);
    assert!(report.finding("serial", "taken")["message"].as_str().unwrap().contains("sleep (process"));
    reader.kill().await.unwrap();
    device.kill().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_is_full_or_read_only_is_found() {
    let ward = Ward::new();
    ward.configured("");
    let state = ward.path("state");
    std::fs::create_dir(&state).unwrap();
    let inside = async |script: String| {
        let doctor = ward.command();
        let mut command = Command::new("unshare");
        let words: Vec<String> = std::iter::once(doctor.get_program())
            .chain(doctor.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let script = format!(
            "mount -t tmpfs -o size=4m,mode=700 none '{}' && {script} exec {}",
            state.display(),
            words.join(" ")
        );
        let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        command.args([namespaces, "sh", "-c", &script]);
        command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        Report::of(command).await
    };
    let full = inside(format!(
        "{{ dd if=/dev/zero of='{}/ballast' bs=1k count=4000 2>/dev/null || true; }} &&",
        state.display()
    ));
    assert_eq!(full.await.of_area("disk"), ["full error"]);
    let read_only = inside(format!("mount -o remount,ro '{}' &&", state.display()));
    assert_eq!(read_only.await.of_area("disk"), ["read_only error"]);
    let small = inside(String::new());
    assert_eq!(small.await.of_area("disk"), ["tight warning"]);
}

/// Writes rubbish over the pages of a file from the second on.
fn damage(file: &Path) {
    use std::os::unix::fs::FileExt as _;
    let pages = std::fs::metadata(file).unwrap().len() / 4096;
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    for page in 2..pages {
        file.write_all_at(&[0xFF; 4096], page * 4096).unwrap();
    }
}

#[tokio::test]
async fn a_database_that_is_damaged_newer_or_put_aside_is_found() {
    let ward = Ward::new();
    let file = ward.configured("");
    assert_eq!(Bridge::start(&["run", "--config", &file]).stop(), Some(0));
    assert_eq!(ward.doctor().await.of_area("store"), ["sound ok"]);
    let database = ward.path("state/vitals.db");
    let sound = std::fs::read(&database).unwrap();

    damage(&database);
    let report = ward.doctor().await;
    assert_eq!(report.of_area("store"), ["damaged error"], "{:#}", report.0);
    // SQLite's file format, 1.3.14: the user version, here one of a later program.
    let mut newer = sound.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&database, newer).unwrap();
    assert_eq!(ward.doctor().await.of_area("store"), ["newer error"]);
    std::fs::write(&database, "this is no database, and long enough to be looked at as one".repeat(100)).unwrap();
    assert_eq!(ward.doctor().await.of_area("store"), ["damaged error"]);
    std::fs::write(&database, sound).unwrap();
    std::fs::write(ward.path("state/vitals.db.corrupt-1795000000000"), "").unwrap();
    std::fs::write(ward.path("state/vitals.db.suspect"), "").unwrap();
    assert_eq!(ward.doctor().await.of_area("store"), ["suspect warning", "put_aside warning"]);
}

#[tokio::test]
async fn a_copied_state_a_weak_secret_a_taken_port_and_a_wrong_clock_are_found() {
    let ward = Ward::new();
    let file = ward.configured("");
    assert_eq!(Bridge::start(&["run", "--config", &file]).stop(), Some(0));
    let machine = ward.path("state/machine");
    assert_eq!(ward.doctor().await.of_area("machine"), ["same ok"]);
    if Path::new("/etc/machine-id").exists() {
        std::fs::write(&machine, "{\"system\":\"another\"}").unwrap();
        let report = ward.doctor().await;
        assert_eq!(report.of_area("machine"), ["copied error"]);
        let advice = report.finding("machine", "copied")["advice"].as_str().unwrap().to_owned();
        assert!(advice.contains(machine.to_str().unwrap()), "{advice}");
    }
    std::fs::write(&machine, "rubbish").unwrap();
    assert_eq!(ward.doctor().await.of_area("machine"), ["unreadable warning"]);

    let secret = ward.path("state/token.secret");
    std::fs::write(&secret, "hunter2hunter2").unwrap();
    let report = ward.doctor().await;
    assert_eq!(report.of_area("secrets"), ["weak error"]);
    assert!(!report.0.to_string().contains("hunter2"), "{:#}", report.0);

    let _listener = std::net::TcpListener::bind(("127.0.0.1", ward.listen)).unwrap();
    let report = ward.doctor().await;
    assert_eq!(report.of_area("ports"), ["taken error"]);
    let own = format!("(process {})", std::process::id());
    assert!(report.finding("ports", "taken")["message"].as_str().unwrap().contains(&own), "{:#}", report.0);

    ward.says("timedatectl", "printf 'NTP=no\\nNTPSynchronized=no\\n'");
    ward.says("vcgencmd", "echo throttled=0x50005");
    let report = ward.doctor().await;
    assert_eq!(report.of_area("clock"), ["not_synchronised_by_anybody warning"]);
    assert_eq!(report.of_area("power"), ["under_voltage error"]);
    ward.says("timedatectl", "exec sleep 60");
    assert_eq!(ward.doctor().await.of_area("clock"), ["too_late warning"], "a program that hangs holds nothing up");
}

#[tokio::test]
async fn what_systemd_says_of_the_service_is_found_whoever_looks() {
    let ward = Ward::new();
    let file = ward.configured("");
    let unit = |active: &str, sub: &str, enabled: &str, more: &str| {
        let text = format!(
            "LoadState=loaded\\nActiveState={active}\\nSubState={sub}\\nUnitFileState={enabled}\\nReadWritePaths={}\\n\
             ExecStart=argv[]=/usr/bin/vitalbridge run --config {file} ;\\n{more}",
            ward.path("").display()
        );
        ward.says("systemctl", &format!("printf '{text}'"));
    };
    // A kernel that bounds no memory, and files below /tmp, which the unit hides, are found on some machines and are none of this.
    let of_service = async || {
        let all = ward.doctor().await.of_area("service");
        let is_other = |one: &String| one.starts_with("memory_unbound") || one.starts_with("sandbox");
        all.into_iter().filter(|one| !is_other(one)).collect::<Vec<_>>()
    };
    unit("inactive", "dead", "enabled", "");
    assert_eq!(of_service().await, ["stopped error"]);
    unit("failed", "failed", "enabled", "Result=exit-code\\nExecMainStatus=78\\n");
    assert_eq!(of_service().await, ["failed error"]);
    let bridge = Bridge::start(&["run", "--config", &file]);
    let pid = format!("MainPID={}\\n", bridge.pid());
    unit("active", "running", "disabled", &pid);
    assert_eq!(of_service().await, ["disabled warning"]);
    unit("active", "running", "enabled", &pid);
    let well = of_service().await;
    assert!(well.is_empty() || well == ["runs ok"], "{well:?}");
    unit("active", "running", "enabled", "MainPID=1\\n");
    assert_eq!(of_service().await, ["elsewhere warning"]);
    assert_eq!(bridge.stop(), Some(0));
    // Of another configuration nothing is said.
    ward.says(
        "systemctl",
        "printf 'LoadState=loaded\\nActiveState=failed\\nExecStart=run --config /etc/other.toml\\n'",
    );
    assert_eq!(of_service().await, ["other skipped"]);
}

#[tokio::test]
async fn a_daemon_that_is_starting_is_not_to_be_restarted() {
    let ward = Ward::new();
    let file = ward.configured("[server.tls]\n");
    let bridge = Bridge::start(&["run", "--config", &file]);
    let report = ward.doctor().await;
    assert_eq!(report.of_area("ports"), ["answered ok"], "with TLS too: {:#}", report.0);
    // It hangs: the address is taken, and nobody answers there.
    let stopped = Command::new("kill").args(["-STOP", &bridge.pid().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(ward.doctor().await.of_area("ports"), ["silent error"]);
    let unit = format!(
        "LoadState=loaded\\nActiveState=activating\\nSubState=start\\nStatusText=opening\\nExecStart=run --config {file}\\n"
    );
    ward.says("systemctl", &format!("printf '{unit}'"));
    let report = ward.doctor().await;
    assert_eq!(report.of_area("ports"), ["starting warning"]);
    assert!(report.of_area("service").contains(&"starting warning".to_owned()), "{:#}", report.0);
    Command::new("kill").args(["-CONT", &bridge.pid().to_string()]).status().unwrap();
    assert_eq!(bridge.stop(), Some(0));
}

#[tokio::test]
async fn a_broken_configuration_is_a_finding_and_the_machine_is_looked_at_all_the_same() {
    let ward = Ward::new();
    let file = ward.configured("[nonsense]\n");
    let report = ward.doctor().await;
    assert_eq!(report.of_area("configuration"), ["wrong error"]);
    assert_eq!(report.of_area("clock"), ["synchronised ok"]);
    assert_eq!(report.of_area("broker"), ["unused skipped"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ward.doctor().await.of_area("configuration"), ["unreadable error"]);

    let output = program().args(["doctor", "--config", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("error    configuration  cannot read"), "{text}");
    assert!(text.contains("\n                        -> write it"), "{text}");
}
