//! The side channel to BlueZ over a real, private D-Bus, against a fake BlueZ.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use vitalbridge::bluez::kind::kind_of;
use vitalbridge::bluez::{
    Adapter, AgentRole, BleAddress, Bluez, BluezError, BluezEvent, BluezLimits, Capability, Cause, Configured, Pairing,
    Peer, Question, Step, Transport, Watch,
};

use crate::fake_bluez::{Advert, Bus, FakeBluez, PATIENCE, Pairs, Strap, World};

const CUFF: &str = "C0:FF:EE:00:00:0A";
const OTHER: &str = "C0:FF:EE:00:00:02";
/// 120/80/93 mmHg (BLS 1.1.1, 3.1.1).
const PRESSURE: &[u8] = &[0x00, 120, 0, 80, 0, 93, 0];

fn limits() -> BluezLimits {
    let call = Duration::from_secs(2);
    BluezLimits { call, power: call, disconnect: call, pair: Duration::from_secs(5) }
}

async fn connect(bus: &Bus) -> Bluez {
    Bluez::connect_to(Some(&bus.address()), limits()).await.unwrap()
}

fn peer(address: &str) -> Peer {
    Peer { adapter: "hci0".to_owned(), address: address.parse().unwrap() }
}

fn cuff(pairs: Pairs) -> Strap {
    Strap::cuff(CUFF, "Cuff 1", &[PRESSURE]).pairing(pairs)
}

fn adapter(powered: bool) -> Adapter {
    let (name, address) = ("hci0".to_owned(), "00:AA:01:00:00:42".to_owned());
    Adapter { name, address, powered, discovering: false }
}

async fn next(watch: &mut Watch) -> BluezEvent {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("an event").unwrap()
}

/// The next event but those of devices.
async fn next_of_adapters(watch: &mut Watch) -> BluezEvent {
    loop {
        let event = next(watch).await;
        if !matches!(event, BluezEvent::Heard { .. } | BluezEvent::DeviceAdded(_) | BluezEvent::DeviceRemoved(_)) {
            return event;
        }
    }
}

fn cause<T: std::fmt::Debug>(result: Result<T, BluezError>) -> Cause {
    result.unwrap_err().cause
}

#[tokio::test]
async fn a_daemon_that_is_killed_and_comes_back_is_told_of_with_its_adapters() {
    let bus = Bus::start().await;
    let bluez = connect(&bus).await;
    let mut watch = bluez.watch().await.unwrap();
    assert_eq!(next(&mut watch).await, BluezEvent::DaemonGone);
    let mut world = World::new(vec![]);
    for _ in 0..3 {
        let fake = FakeBluez::start(&bus, world).await;
        assert_eq!(next(&mut watch).await, BluezEvent::DaemonBack);
        assert_eq!(next(&mut watch).await, BluezEvent::AdapterAdded(adapter(true)));
        assert!(bluez.daemon_runs().await.unwrap());
        world = fake.kill().await;
        assert_eq!(next(&mut watch).await, BluezEvent::DaemonGone);
        assert_eq!(cause(bluez.adapters().await), Cause::ServiceUnknown);
    }
}

#[tokio::test]
async fn an_adapter_that_is_pulled_out_and_plugged_in_again_is_told_of_once_each() {
    let bus = Bus::start().await;
    let fake = FakeBluez::start(&bus, World::new(vec![Strap::new(OTHER, "Strap")])).await;
    let bluez = connect(&bus).await;
    let mut watch = bluez.watch().await.unwrap();
    assert_eq!(next(&mut watch).await, BluezEvent::DaemonBack);
    assert_eq!(next(&mut watch).await, BluezEvent::AdapterAdded(adapter(true)));
    bluez.start_scan("hci0", Transport::LowEnergy).await.unwrap();
    fake.until("the strap is heard", |world| world.is_heard(OTHER)).await;
    fake.change(World::unplug).await;
    assert_eq!(next_of_adapters(&mut watch).await, BluezEvent::Powered { adapter: "hci0".to_owned(), on: false });
    assert_eq!(next_of_adapters(&mut watch).await, BluezEvent::AdapterRemoved { name: "hci0".to_owned() });
    assert!(matches!(cause(bluez.adapter(None).await), Cause::NoAdapter(_)));
    assert_eq!(cause(bluez.start_scan("hci0", Transport::LowEnergy).await), Cause::UnknownObject);
    fake.change(World::plug_in).await;
    assert_eq!(next_of_adapters(&mut watch).await, BluezEvent::AdapterAdded(adapter(true)));
    assert_eq!(bluez.adapter(None).await.unwrap(), adapter(true));
}

#[tokio::test]
async fn power_is_told_of_and_switched_and_what_rfkill_blocks_is_named_so() {
    let bus = Bus::start().await;
    let fake = FakeBluez::start(&bus, World::new(vec![])).await;
    let bluez = connect(&bus).await;
    let mut watch = bluez.watch().await.unwrap();
    next(&mut watch).await;
    next(&mut watch).await;
    fake.change(|world| world.power(false)).await;
    assert_eq!(next(&mut watch).await, BluezEvent::Powered { adapter: "hci0".to_owned(), on: false });
    assert_eq!(cause(bluez.start_scan("hci0", Transport::LowEnergy).await), Cause::NotPowered);
    assert!(!bluez.adapter(None).await.unwrap().powered, "a scan must not switch the adapter on");
    bluez.set_powered("hci0", true).await.unwrap();
    assert_eq!(next(&mut watch).await, BluezEvent::Powered { adapter: "hci0".to_owned(), on: true });
    fake.change(|world| world.rfkill = true).await;
    assert_eq!(cause(bluez.set_powered("hci0", false).await), Cause::Blocked);
}

#[tokio::test]
async fn a_bus_that_dies_ends_the_watch_and_every_call_with_its_name() {
    let mut bus = Bus::start().await;
    let _fake = FakeBluez::start(&bus, World::new(vec![])).await;
    let bluez = connect(&bus).await;
    let mut watch = bluez.watch().await.unwrap();
    next(&mut watch).await;
    next(&mut watch).await;
    bus.kill().await;
    let ended = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap();
    assert!(matches!(cause(ended), Cause::NoBus(_)));
    assert!(matches!(cause(bluez.adapters().await), Cause::NoBus(_)));
    assert!(matches!(cause(Bluez::connect_to(Some(&bus.address()), limits()).await), Cause::NoBus(_)));
}

#[tokio::test]
async fn a_bus_that_takes_connections_and_says_nothing_is_given_up() {
    let bus = Bus::absent();
    let _silent = std::os::unix::net::UnixListener::bind(bus.socket()).unwrap();
    let brief = BluezLimits { call: Duration::from_millis(200), ..limits() };
    let error = Bluez::connect_to(Some(&bus.address()), brief).await.unwrap_err();
    assert_eq!(error.cause, Cause::Timeout(brief.call));
    assert!(error.to_string().contains("no answer within 0.2 s"), "{error}");
}

#[tokio::test]
async fn a_user_who_may_not_use_bluetooth_is_told_so() {
    let mut bus = Bus::absent();
    bus.denies_bluez = true;
    bus.run().await;
    let _fake = FakeBluez::start(&bus, World::new(vec![])).await;
    let error = connect(&bus).await.adapters().await.unwrap_err();
    assert!(matches!(error.cause, Cause::AccessDenied(_)), "{error:?}");
    assert!(error.to_string().contains("group `bluetooth`"), "{error}");
}

#[tokio::test]
async fn a_scan_hears_what_is_advertised_and_asks_for_low_energy_only() {
    let bus = Bus::start().await;
    let mut strap = Strap::new(OTHER, "Polar H10 12345678");
    strap.advert = Advert {
        services: vec![0x180D],
        manufacturer_data: vec![(0x006B, vec![1, 2, 3])],
        service_data: vec![(0x1809, vec![0x6C, 1, 0, 0xFF])],
        tx_power: Some(4),
    };
    strap.rssi = -47;
    let mut absent = cuff(Pairs::JustWorks);
    absent.in_range = false;
    absent.remembered();
    let fake = FakeBluez::start(&bus, World::new(vec![strap, absent])).await;
    let bluez = connect(&bus).await;
    bluez.start_scan("hci0", Transport::LowEnergy).await.unwrap();
    fake.until("the strap is heard", |world| world.is_heard(OTHER)).await;
    let devices = bluez.devices(Some("hci0")).await.unwrap();
    let heard: Vec<_> = devices.iter().filter(|device| device.rssi.is_some()).collect();
    let [device] = heard.as_slice() else { panic!("{devices:#?}") };
    assert_eq!((device.address, device.name.as_deref()), (OTHER.parse().unwrap(), Some("Polar H10 12345678")));
    assert_eq!((device.rssi, device.tx_power), (Some(-47), Some(4)));
    assert_eq!(device.manufacturer_data[&0x006B], [1, 2, 3]);
    assert_eq!(device.service_data.values().next().unwrap(), &[0x6C, 1, 0, 0xFF]);
    assert_eq!(kind_of(device).unwrap().what, "heart rate");
    bluez.stop_scan("hci0").await.unwrap();
    assert!(bluez.devices(None).await.unwrap().iter().all(|device| device.rssi.is_none()));
    // Whoever returns is heard with its first advertisement, also if it says the same as the last one.
    let filters = fake.change(|world| (world.transports.clone(), world.duplicates.clone())).await;
    assert_eq!(filters, (vec!["le".to_owned()], vec![true]));
}

/// Pairs, answering with `answer`; gives the questions and the end.
async fn paired(
    bluez: &Bluez,
    capability: Capability,
    answer: impl AsyncFn(&vitalbridge::bluez::AgentRequest),
) -> (Vec<Question>, Result<(), Cause>) {
    let mut pairing = Pairing::start(bluez, peer(CUFF), capability).await.unwrap();
    let mut questions = vec![];
    let end = loop {
        match tokio::time::timeout(PATIENCE, pairing.next()).await.expect("a step") {
            Ok(Step::Asked(request)) => {
                questions.push(request.question.clone());
                answer(&request).await;
            }
            Ok(Step::Paired) => break Ok(()),
            Ok(Step::WasPaired) => panic!("it was not paired before"),
            Err(error) => break Err(error.cause),
        }
    };
    pairing.end().await;
    (questions, end)
}

async fn accept(request: &vitalbridge::bluez::AgentRequest) {
    request.accept().await.unwrap();
}

async fn reject(request: &vitalbridge::bluez::AgentRequest) {
    request.reject().await.unwrap();
}

/// A cuff that pairs so, heard by BlueZ.
async fn near(bus: &Bus, pairs: Pairs) -> (FakeBluez, Bluez) {
    let mut cuff = cuff(pairs);
    cuff.remembered();
    let fake = FakeBluez::start(bus, World::new(vec![cuff])).await;
    (fake, connect(bus).await)
}

#[tokio::test]
async fn each_way_to_pair_asks_its_question_and_ends_bonded_and_trusted() {
    let typed = async |request: &vitalbridge::bluez::AgentRequest| match request.question {
        Question::EnterPasskey => request.passkey(4711).await.unwrap(),
        Question::Authorize | Question::Confirm { .. } => request.accept().await.unwrap(),
        _ => {}
    };
    for (pairs, question) in [
        (Pairs::JustWorks, Question::Authorize),
        (Pairs::ShowsPasskey(4711), Question::EnterPasskey),
        (Pairs::Compares(123), Question::Confirm { passkey: 123 }),
        (Pairs::TypesPasskey(7), Question::ShowPasskey { passkey: 7, entered: 0 }),
    ] {
        let bus = Bus::start().await;
        let (fake, bluez) = near(&bus, pairs).await;
        assert!(!bluez.is_bonded(&peer(CUFF)).await.unwrap());
        let (questions, end) = paired(&bluez, Capability::KeyboardDisplay, typed).await;
        assert_eq!((questions, end), (vec![question], Ok(())), "{pairs:?}");
        assert!(bluez.is_bonded(&peer(CUFF)).await.unwrap(), "{pairs:?}");
        assert!(fake.change(|world| world.strap(CUFF).trusted).await, "{pairs:?}");
        fake.until("the agent has gone", |world| world.agents.is_empty()).await;
    }
}

#[tokio::test]
async fn a_pairing_that_fails_says_why_and_leaves_nothing_behind() {
    let wrong = async |request: &vitalbridge::bluez::AgentRequest| {
        if request.question == Question::EnterPasskey {
            request.passkey(1).await.unwrap();
        }
    };
    let silent = async |_: &vitalbridge::bluez::AgentRequest| {};
    for (pairs, expected) in [
        (Pairs::Refuses, Cause::AuthenticationFailed),
        (Pairs::ShowsPasskey(4711), Cause::AuthenticationFailed),
        (Pairs::NeverAnswers, Cause::Timeout(Duration::from_secs(1))),
        (Pairs::GivesUp, Cause::AuthenticationTimeout),
    ] {
        let bus = Bus::start().await;
        let (fake, _) = near(&bus, pairs).await;
        let brief = BluezLimits { pair: Duration::from_secs(1), ..limits() };
        let bluez = Bluez::connect_to(Some(&bus.address()), brief).await.unwrap();
        let (questions, end) = match pairs {
            Pairs::GivesUp => paired(&bluez, Capability::KeyboardDisplay, silent).await,
            _ => paired(&bluez, Capability::KeyboardDisplay, wrong).await,
        };
        assert_eq!(end, Err(expected), "{pairs:?}: {questions:?}");
        assert!(!bluez.is_bonded(&peer(CUFF)).await.unwrap(), "{pairs:?}");
        if pairs == Pairs::NeverAnswers {
            assert_eq!(fake.change(|world| world.count("CancelPairing")).await, 1);
            fake.until("the link is ended", |world| !world.strap(CUFF).connected).await;
        }
    }
}

#[tokio::test]
async fn a_person_who_says_no_is_obeyed() {
    let bus = Bus::start().await;
    let (_fake, bluez) = near(&bus, Pairs::Compares(123)).await;
    let (_, end) = paired(&bluez, Capability::KeyboardDisplay, reject).await;
    assert_eq!(end, Err(Cause::AuthenticationFailed));
    assert!(!bluez.is_bonded(&peer(CUFF)).await.unwrap());
}

#[tokio::test]
async fn a_pairing_that_is_given_up_is_cancelled() {
    let bus = Bus::start().await;
    let (fake, bluez) = near(&bus, Pairs::ShowsPasskey(4711)).await;
    let mut pairing = Pairing::start(&bluez, peer(CUFF), Capability::KeyboardDisplay).await.unwrap();
    assert!(matches!(pairing.next().await, Ok(Step::Asked(_))));
    pairing.end().await;
    assert_eq!(fake.change(|world| world.count("CancelPairing")).await, 1);
    fake.until("the agent has gone", |world| world.agents.is_empty()).await;
}

#[tokio::test]
async fn what_is_paired_already_is_trusted_and_what_is_removed_is_forgotten() {
    let bus = Bus::start().await;
    let (fake, bluez) = near(&bus, Pairs::JustWorks).await;
    paired(&bluez, Capability::NoInputNoOutput, accept).await.1.unwrap();
    fake.change(|world| world.strap(CUFF).trusted = false).await;
    let mut pairing = Pairing::start(&bluez, peer(CUFF), Capability::NoInputNoOutput).await.unwrap();
    assert!(matches!(pairing.next().await, Ok(Step::WasPaired)));
    pairing.end().await;
    assert!(bluez.device(&peer(CUFF)).await.unwrap().unwrap().trusted);

    let mut watch = bluez.watch().await.unwrap();
    bluez.remove(&peer(CUFF)).await.unwrap();
    loop {
        if next(&mut watch).await == BluezEvent::DeviceRemoved(peer(CUFF)) {
            break;
        }
    }
    assert_eq!(bluez.device(&peer(CUFF)).await.unwrap(), None);
    assert_eq!(cause(bluez.remove(&peer(CUFF)).await), Cause::UnknownObject);
    assert_eq!(cause(bluez.pair(&peer(CUFF)).await), Cause::UnknownObject);
    bluez.cancel_pairing(&peer(CUFF)).await.unwrap();
}

/// Connects to the cuff and subscribes to its measurements as a client would that knows nothing of pairing.
async fn subscribe(connection: &zbus::Connection) -> zbus::Result<()> {
    let device = "/org/bluez/hci0/dev_C0_FF_EE_00_00_0A";
    let bluez = Some("org.bluez");
    connection.call_method(bluez, device, Some("org.bluez.Device1"), "Connect", &()).await?;
    let characteristic = format!("{device}/service0010/char0011");
    // The services are there a moment after the link.
    let start = async || {
        let interface = Some("org.bluez.GattCharacteristic1");
        connection.call_method(bluez, characteristic.as_str(), interface, "StartNotify", &()).await
    };
    let started = async {
        loop {
            match start().await {
                Err(zbus::Error::FDO(error)) if matches!(*error, zbus::fdo::Error::UnknownObject(_)) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                answer => return answer.map(drop),
            }
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("an answer to StartNotify")
}

fn configured(address: &str) -> watch::Receiver<Configured> {
    let addresses = BTreeSet::from([address.parse::<BleAddress>().unwrap()]);
    // What is configured stays as it is: nobody needs the sender.
    watch::channel(Configured { addresses, ..Configured::default() }).1
}

#[tokio::test]
async fn an_encrypted_cuff_is_subscribed_to_with_the_agent_and_never_without() {
    let bus = Bus::start().await;
    let (fake, bluez) = near(&bus, Pairs::JustWorks).await;
    let client = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
    // Waits as with a real BlueZ; half a second shows that it does not just take a while.
    assert!(tokio::time::timeout(Duration::from_millis(500), subscribe(&client)).await.is_err());
    fake.change(|world| world.drop_link(CUFF)).await;

    let mut agent = bluez.agent(Capability::NoInputNoOutput, AgentRole::Default).await.unwrap();
    let capability = fake.change(|world| world.agents[0].capability.clone()).await;
    assert_eq!(capability, "NoInputNoOutput");
    let ours = configured(CUFF);
    tokio::select! {
        ended = agent.serve(&ours) => panic!("{ended:?}"),
        subscribed = subscribe(&client) => subscribed.unwrap(),
    }
    assert!(bluez.is_bonded(&peer(CUFF)).await.unwrap());
    agent.unregister().await.unwrap();
    assert!(fake.change(|world| world.agents.is_empty()).await);
}

#[tokio::test]
async fn a_device_that_nobody_has_configured_is_refused() {
    let bus = Bus::start().await;
    let (_fake, bluez) = near(&bus, Pairs::JustWorks).await;
    let client = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
    let mut agent = bluez.agent(Capability::NoInputNoOutput, AgentRole::Default).await.unwrap();
    let others = configured(OTHER);
    tokio::select! {
        ended = agent.serve(&others) => panic!("{ended:?}"),
        subscribed = subscribe(&client) => assert!(subscribed.unwrap_err().to_string().contains("ATT error: 0x05")),
    }
    assert!(!bluez.is_bonded(&peer(CUFF)).await.unwrap());
}

#[tokio::test]
async fn a_daemon_that_comes_back_gets_to_know_the_agent_again() {
    let bus = Bus::start().await;
    let (fake, bluez) = near(&bus, Pairs::JustWorks).await;
    let mut agent = bluez.agent(Capability::NoInputNoOutput, AgentRole::Default).await.unwrap();
    let ours = configured(CUFF);
    let restarted = async {
        let mut kernel = fake.kill().await;
        kernel.strap(CUFF).remembered();
        let fake = FakeBluez::start(&bus, kernel).await;
        fake.until("the agent is known again", |world| world.count("RequestDefaultAgent") == 2).await;
        let client = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
        subscribe(&client).await.unwrap();
        fake
    };
    tokio::select! {
        ended = agent.serve(&ours) => panic!("{ended:?}"),
        fake = restarted => assert_eq!(fake.change(|world| world.agents.len()).await, 1),
    }
}

#[tokio::test]
async fn the_agent_answers_nobody_but_bluez() {
    let bus = Bus::start().await;
    let (fake, bluez) = near(&bus, Pairs::JustWorks).await;
    let mut agent = bluez.agent(Capability::NoInputNoOutput, AgentRole::Default).await.unwrap();
    let registered = fake.change(|world| world.agents[0].clone()).await;
    let stranger = zbus::connection::Builder::address(bus.address().as_str()).build().await.unwrap();
    let device = zbus::ObjectPath::try_from("/org/bluez/hci0/dev_C0_FF_EE_00_00_0A").unwrap();
    let (client, interface) = (Some(registered.client.as_str()), Some("org.bluez.Agent1"));
    let path = registered.path.as_str();
    let asked = stranger.call_method(client, path, interface, "RequestAuthorization", &device);
    let ours = configured(CUFF);
    tokio::select! {
        ended = agent.serve(&ours) => panic!("{ended:?}"),
        answer = asked => assert!(answer.unwrap_err().to_string().contains("org.bluez.Error.Rejected")),
    }
}

#[tokio::test]
async fn connections_watches_agents_and_scans_leave_nothing_on_the_bus() {
    let bus = Bus::start().await;
    let (fake, bluez) = near(&bus, Pairs::JustWorks).await;
    let clients = fake.clients().await;
    for round in 0..50 {
        let another = connect(&bus).await;
        let watch = another.watch().await.unwrap();
        let agent = another.agent(Capability::NoInputNoOutput, AgentRole::Default).await.unwrap();
        another.start_scan("hci0", Transport::LowEnergy).await.unwrap();
        drop((watch, agent, another));
        let mut left = fake.clients().await;
        let gone = async {
            while left > clients {
                tokio::time::sleep(Duration::from_millis(5)).await;
                left = fake.clients().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, gone).await.is_ok(), "round {round}: clients stay on the bus");
    }
    fake.until("agents and scans have gone", |world| world.agents.is_empty() && !world.is_scanning()).await;
    assert_eq!(bluez.adapters().await.unwrap().len(), 1);
}
