//! `scan`, `pair` and `devices` as a person meets them: the real binary on a private D-Bus, against a fake BlueZ.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::bridge::program;
use crate::fake_bluez::{Advert, Bus, FakeBluez, PATIENCE, Pairs, Strap, World};

const STRAP: &str = "C0:FF:EE:00:00:01";
const CUFF: &str = "C0:FF:EE:00:00:0A";

fn command(bus: &Bus, arguments: &[&str]) -> Command {
    let mut command = Command::from(program());
    command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", bus.address()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command, with these lines typed at its terminal.
async fn run_typing(bus: &Bus, arguments: &[&str], typed: &str) -> Output {
    let mut child = command(bus, arguments).spawn().unwrap();
    let mut terminal = child.stdin.take().unwrap();
    // It may have ended without reading.
    let _ = terminal.write_all(typed.as_bytes()).await;
    drop(terminal);
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the command ends").unwrap()
}

async fn run(bus: &Bus, arguments: &[&str]) -> Output {
    run_typing(bus, arguments, "").await
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a failed command says, with its exit code.
fn failure(output: &Output) -> (i32, String) {
    assert_eq!(output.stdout, b"", "{output:?}");
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn polar() -> Strap {
    let mut strap = Strap::new(STRAP, "Polar H10 12345678");
    strap.rssi = -47;
    strap
}

fn cuff(pairs: Pairs) -> Strap {
    Strap::cuff(CUFF, "A&D_UA-651BLE_1234", &[]).pairing(pairs)
}

#[tokio::test]
async fn a_scan_tells_sensors_from_other_devices_and_prints_lines_that_check_takes() {
    let bus = Bus::start().await;
    let mut earphones = Strap::new("C0:FF:EE:00:00:03", "Ear\u{1b}[2Jphones");
    earphones.advert = Advert::default();
    let mut gone = Strap::oximeter("C0:FF:EE:00:00:04", "Gone", &[]);
    gone.in_range = false;
    gone.remembered();
    let oximeter = Strap::oximeter("C0:FF:EE:00:00:05", "", &[]);
    let thermometer = Strap::thermometer("C0:FF:EE:00:00:06", "Thermo", &[]);
    let straps = vec![earphones, polar(), cuff(Pairs::JustWorks), gone, oximeter, thermometer];
    let fake = FakeBluez::start(&bus, World::new(straps)).await;
    let output = run(&bus, &["scan", "--seconds", "1"]).await;
    let text = out(&output);
    let first = text.lines().next().unwrap();
    assert_eq!(
        first, "C0:FF:EE:00:00:01   -47 dBm  Polar H10 12345678, heart rate  (near; profile polar-h10)",
        "{text}"
    );
    for words in [
        "C0:FF:EE:00:00:0A   -56 dBm  A&D_UA-651BLE_1234, blood pressure  (near; profile and-ua-651ble)",
        "C0:FF:EE:00:00:05   -56 dBm  (no name), pulse oximeter  (near; profile generic-pulse-oximeter)",
        "profile = \"polar-h10\"",
        "profile = \"and-ua-651ble\"",
        "# Hold START until Pr is shown before pairing",
        "Thermo, thermometer",
        "1 other devices; --all shows them.",
        "# Pair it first: vitalbridge pair C0:FF:EE:00:00:0A",
    ] {
        assert!(text.contains(words), "{words} in:\n{text}");
    }
    assert!(!text.contains("Gone") && !text.contains("phones"), "{text}");
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("listening with hci0 for 1 s"), "{notes}");
    assert!(notes.contains("heard C0:FF:EE:00:00:01 Polar H10 12345678, heart rate"), "{notes}");

    let config = bus.folder().join("found.toml");
    std::fs::write(&config, text.split_once("restart the daemon:").unwrap().1).unwrap();
    let checked = run(&bus, &["check", "--config", config.to_str().unwrap()]).await;
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(std::fs::read_to_string(&config).unwrap().matches("[[source]]").count(), 4);
    fake.until("the scan has ended", |world| world.count("StopDiscovery") == 1).await;
    assert!(fake.change(|world| world.powered).await);

    let all = out(&run(&bus, &["scan", "--seconds", "1", "--all", "--json"]).await);
    let records: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 5, "{all}");
    assert_eq!((&records[0]["address"], &records[0]["rssi"]), (&Value::from(STRAP), &Value::from(-47)));
    let earphones = records.iter().find(|record| record["what"].is_null()).unwrap();
    assert_eq!(earphones["name"], "Ear\u{FFFD}[2Jphones");
    assert_eq!((&earphones["profile"], &records[0]["profile"]), (&Value::Null, &Value::from("polar-h10")));
    assert_eq!(records[0]["model"], "Polar H10 chest strap");
}

#[tokio::test]
async fn what_keeps_a_scan_from_running_is_said_with_what_to_do() {
    let absent = Bus::absent();
    let (code, text) = failure(&run(&absent, &["scan"]).await);
    assert_eq!(code, 69);
    assert!(text.contains("system bus cannot be reached") && text.contains("systemctl start dbus"), "{text}");

    let bus = Bus::start().await;
    let (code, text) = failure(&run(&bus, &["scan"]).await);
    assert_eq!(code, 69);
    assert!(text.contains("bluetoothd does not run; start it with `systemctl start bluetooth`"), "{text}");

    let mut world = World::new(vec![polar()]);
    world.has_adapter = false;
    let fake = FakeBluez::start(&bus, world).await;
    let (code, text) = failure(&run(&bus, &["scan"]).await);
    assert!(code == 69 && text.contains("no Bluetooth adapter; plug one in"), "{text}");
    fake.change(World::plug_in).await;
    let (_, text) = failure(&run(&bus, &["scan", "--adapter", "hci7"]).await);
    assert!(text.contains("no Bluetooth adapter `hci7`, there is hci0"), "{text}");
    fake.change(|world| world.power(false)).await;
    for command in ["scan", "pair"] {
        let arguments = if command == "pair" { vec!["pair", STRAP] } else { vec!["scan"] };
        let (code, text) = failure(&run(&bus, &arguments).await);
        assert!(
            code == 69 && text.contains("the Bluetooth adapter is off") && text.contains("bluetoothctl power on"),
            "{text}"
        );
    }
    assert!(!fake.change(|world| world.powered).await, "the adapter was switched on against the operator");
    assert_eq!(fake.change(|world| world.count("Set") + world.count("StartDiscovery")).await, 0);

    let mut bus = Bus::absent();
    bus.denies_bluez = true;
    bus.run().await;
    let _fake = FakeBluez::start(&bus, World::new(vec![])).await;
    let (code, text) = failure(&run(&bus, &["scan"]).await);
    assert!(code == 77 && text.contains("add the user to the group `bluetooth`"), "{code} {text}");
}

#[tokio::test]
async fn a_scan_that_is_cut_short_says_by_what() {
    for (cut, words) in [
        ("power", "scanning: the Bluetooth adapter is off"),
        ("unplug", "scanning: the Bluetooth adapter is off"),
        ("kill", "scanning: bluetoothd does not run"),
    ] {
        let bus = Bus::start().await;
        let fake = FakeBluez::start(&bus, World::new(vec![polar()])).await;
        let mut scan = command(&bus, &["scan", "--seconds", "60"]);
        let mut running = JoinSet::new();
        running.spawn(async move { scan.output().await.unwrap() });
        fake.until("the scan runs", |world| world.is_heard(STRAP)).await;
        match cut {
            "power" => fake.change(|world| world.power(false)).await,
            "unplug" => fake.change(World::unplug).await,
            _ => drop(fake.kill().await),
        }
        let output =
            tokio::time::timeout(PATIENCE, running.join_next()).await.expect("the scan ends").unwrap().unwrap();
        let (code, text) = failure(&output);
        assert!(code == 69 && text.contains(words), "{cut}: {text}");
    }
}

#[tokio::test]
async fn each_way_to_pair_works_at_the_terminal_and_by_arguments() {
    for (pairs, arguments, typed, asked) in [
        (Pairs::JustWorks, vec![], "", ""),
        (Pairs::ShowsPasskey(4711), vec![], "004711\n", "passkey that the device shows"),
        (Pairs::ShowsPasskey(4711), vec![], "what?\n004711\n", "passkey that the device shows"),
        (Pairs::ShowsPasskey(4711), vec!["--passkey", "004711"], "", ""),
        (Pairs::Compares(42), vec![], "y\n", "does the device show 000042? [y/n]"),
        (Pairs::Compares(42), vec!["--yes"], "", "taking 000042"),
        (Pairs::TypesPasskey(77), vec![], "", "type 000077 at the device"),
    ] {
        let bus = Bus::start().await;
        let fake = FakeBluez::start(&bus, World::new(vec![polar(), cuff(pairs)])).await;
        // Half of them by address, half by name.
        let device = if arguments.is_empty() { CUFF } else { "A&D_UA-651BLE_1234" };
        let output = run_typing(&bus, &[&["pair", device], arguments.as_slice()].concat(), typed).await;
        let text = out(&output);
        let expected = format!("paired and trusted: {CUFF} A&D_UA-651BLE_1234, blood pressure");
        assert!(text.starts_with(&expected), "{pairs:?}: {text}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(asked), "{pairs:?}");
        let calls = fake
            .change(|world| {
                assert!(world.strap(CUFF).bonded && world.strap(CUFF).trusted);
                world.calls.clone()
            })
            .await;
        let place = |member: &str| calls.iter().position(|call| call.starts_with(member)).unwrap();
        assert!(place("StopDiscovery ") < place("Pair "), "scan and connect at once: {calls:#?}");
        assert!(place("RegisterAgent ") < place("Pair "), "{calls:#?}");
        assert!(!calls.iter().any(|call| call.starts_with("RequestDefaultAgent")), "{calls:#?}");
        fake.until("the agent has gone", |world| world.agents.is_empty()).await;
    }
}

#[tokio::test]
async fn a_pairing_that_fails_says_what_to_do_and_leaves_no_bond() {
    for (pairs, arguments, typed, expected, words) in [
        (Pairs::Refuses, vec![], "", 69, "the device refused to pair; put it into pairing mode"),
        (Pairs::ShowsPasskey(4711), vec![], "4712\n", 69, "if it shows a passkey, enter that one"),
        (Pairs::ShowsPasskey(4711), vec!["--passkey", "1"], "", 69, "the device refused to pair"),
        (Pairs::ShowsPasskey(4711), vec![], "", 64, "nobody is at the terminal; give --passkey"),
        (Pairs::ShowsPasskey(4711), vec![], "a\nb\nc\n", 64, "that was no answer"),
        (Pairs::Compares(42), vec![], "n\n", 69, "the numbers differ, so this may be another device"),
        (Pairs::GivesUp, vec!["--passkey", "1"], "", 69, "the device did not answer while pairing"),
        (Pairs::NeverAnswers, vec!["--timeout", "1"], "", 69, "pairing: no answer within 1 s"),
        (Pairs::JustWorks, vec!["--passkey", "abc"], "", 64, "`abc` is not a passkey"),
    ] {
        let bus = Bus::start().await;
        let fake = FakeBluez::start(&bus, World::new(vec![cuff(pairs)])).await;
        let output = run_typing(&bus, &[&["pair", CUFF], arguments.as_slice()].concat(), typed).await;
        let (code, text) = failure(&output);
        assert!(code == expected && text.contains(words), "{pairs:?} {arguments:?}: {code} {text}");
        let (bonded, trusted) = fake.change(|world| (world.strap(CUFF).bonded, world.strap(CUFF).trusted)).await;
        assert!(!bonded && !trusted, "{pairs:?}");
        fake.until("the agent has gone", |world| world.agents.is_empty() && world.is_unpaired()).await;
    }
}

#[tokio::test]
async fn a_device_that_is_not_heard_or_not_the_only_one_is_not_paired_with() {
    let bus = Bus::start().await;
    let mut absent = cuff(Pairs::JustWorks);
    absent.in_range = false;
    absent.remembered();
    let twin = |address| Strap::new(address, "Twin");
    let straps = vec![absent, twin("C0:FF:EE:00:00:07"), twin("C0:FF:EE:00:00:08")];
    let fake = FakeBluez::start(&bus, World::new(straps)).await;
    let (code, text) = failure(&run(&bus, &["pair", CUFF, "--seconds", "1"]).await);
    assert!(code == 69 && text.contains("was not heard in 1 s; wake it, put it into pairing mode"), "{text}");
    let (code, text) = failure(&run(&bus, &["pair", "Twin", "--seconds", "20"]).await);
    let words = "name one by its address: C0:FF:EE:00:00:07, C0:FF:EE:00:00:08";
    assert!(code == 64 && text.contains(words), "{text}");
    assert_eq!(fake.change(|world| world.count("Pair")).await, 0);
}

#[tokio::test]
async fn devices_lists_what_is_kept_and_forgets_what_is_named() {
    let bus = Bus::start().await;
    let mut heard = Strap::new("C0:FF:EE:00:00:03", "Heard");
    heard.remembered();
    let fake = FakeBluez::start(&bus, World::new(vec![cuff(Pairs::JustWorks), heard])).await;
    let nothing = out(&run(&bus, &["devices"]).await);
    assert!(nothing.contains("`vitalbridge scan` shows what is near"), "{nothing}");
    out(&run(&bus, &["pair", CUFF]).await);
    fake.until("its battery is read", |world| world.has_battery(CUFF)).await;
    let listed = out(&run(&bus, &["devices"]).await);
    let line = "C0:FF:EE:00:00:0A  A&D_UA-651BLE_1234, blood pressure  (bonded, trusted, connected, battery 95 %)\n";
    assert_eq!(listed, line);
    let all = out(&run(&bus, &["devices", "--all"]).await);
    assert!(all.contains("Heard, heart rate  (not heard)"), "{all}");
    let record: Value = serde_json::from_str(&out(&run(&bus, &["devices", "--json"]).await)).unwrap();
    assert_eq!((&record["bonded"], &record["battery"]), (&Value::from(true), &Value::from(95)));

    let again = out(&run(&bus, &["pair", CUFF]).await);
    assert!(again.starts_with("it was paired before, and is trusted now"), "{again}");
    let removed = out(&run(&bus, &["devices", "remove", CUFF]).await);
    assert!(removed.contains("its bond is gone: pair it again with `vitalbridge pair`"), "{removed}");
    assert!(!fake.change(|world| world.strap(CUFF).bonded).await);
    let (code, text) = failure(&run(&bus, &["devices", "remove", CUFF]).await);
    assert!(code == 69 && text.contains("BlueZ does not know C0:FF:EE:00:00:0A"), "{text}");
    let (code, text) = failure(&run(&bus, &["devices", "remove", "the cuff"]).await);
    assert!(code == 64 && text.contains("is not a Bluetooth address"), "{text}");
}
