//! How the bridge reaches a broker: versions, TLS, certificates, `WebSockets` and passwords, with a real Mosquitto and NATS.
#![cfg(test)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vitalbridge::event::Event;
use vitalbridge::uplink::access::{Access, Password, TlsFiles, Version};
use vitalbridge::uplink::token::{Algorithm, TokenMaker};
use vitalbridge::uplink::{Downlink, UplinkConfig};
use vitalbridge::wire;

use crate::mqtt::{Broker, Consumer, DEADLINE, LOOK_AGAIN, Running, Store, bridge, config, free_port, id_of};

const NATS: &str = "/usr/sbin/nats-server";

/// Certificates of a test: an authority, a broker and a bridge signed by it, and a bridge signed by somebody else.
pub(crate) struct Certificates {
    pub(crate) dir: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap() };
        let (authority, other) = (made.authority("ca"), made.authority("other"));
        made.write("broker", &authority, |_| {});
        made.write("early", &authority, |params| params.not_before = rcgen::date_time_ymd(2900, 1, 1));
        made.write("bridge", &authority, |_| {});
        made.write("stranger", &other, |_| {});
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn authority(&self, name: &str) -> rcgen::Issuer<'static, rcgen::KeyPair> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        std::fs::write(self.path(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        rcgen::Issuer::new(params, key)
    }

    pub(crate) fn write(
        &self,
        name: &str,
        authority: &rcgen::Issuer<'_, rcgen::KeyPair>,
        change: impl Fn(&mut rcgen::CertificateParams),
    ) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(2999, 1, 1);
        change(&mut params);
        std::fs::write(self.path(&format!("{name}.pem")), params.signed_by(&key, authority).unwrap().pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// A listener of Mosquitto with TLS.
    pub(crate) fn listener(&self, port: u16, certificate: &str, more: &str) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "listener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\ncafile {}\n{more}\n",
            path(&format!("{certificate}.pem")),
            path(&format!("{certificate}.key")),
            path("ca.pem"),
        )
    }

    pub(crate) fn files(&self, authority: &str, identity: Option<&str>) -> TlsFiles {
        let identity = identity.map(|name| (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key"))));
        TlsFiles { authorities: Some(self.path(&format!("{authority}.pem"))), identity, server_name: None }
    }
}

pub(crate) fn reaching(address: &str, access: Access, store: &Store) -> UplinkConfig {
    UplinkConfig { broker: address.parse().unwrap(), access, ..config(1, &store.epoch) }
}

/// Whatever carries it, in whatever version: everything once, in the same words; the status retained; and a command
/// answered.
#[tokio::test]
async fn each_transport_and_each_version_carries_the_same() {
    let certificates = Certificates::new();
    let [tls, mutual, ws, wss] = std::array::from_fn(|_| free_port());
    let extra = [
        certificates.listener(tls, "broker", ""),
        certificates.listener(mutual, "broker", "require_certificate true"),
        format!("listener {ws} 127.0.0.1\nprotocol websockets\n"),
        certificates.listener(wss, "broker", "protocol websockets"),
    ];
    let broker = Broker::started(&extra.concat()).await;
    let (plain, ca) = (broker.port, certificates.files("ca", None));
    let named = TlsFiles { server_name: Some("localhost".to_owned()), ..ca.clone() };
    let ways = [
        (format!("mqtt://127.0.0.1:{plain}"), TlsFiles::default()),
        (format!("mqtts://127.0.0.1:{tls}"), ca.clone()),
        (format!("mqtts://127.0.0.1:{tls}"), named),
        (format!("mqtts://127.0.0.1:{mutual}"), certificates.files("ca", Some("bridge"))),
        (format!("ws://127.0.0.1:{ws}/mqtt"), TlsFiles::default()),
        (format!("wss://127.0.0.1:{wss}/mqtt"), ca),
    ];
    for (address, tls) in ways {
        for version in [Version::V5, Version::V311] {
            let folder = tempfile::tempdir().unwrap();
            let mut consumer = Consumer::subscribe(&broker).await;
            let mut store = Store::open(folder.path(), 1);
            let access = Access { version, tls: tls.clone(), ..Access::default() };
            let (control, _controlled) = mpsc::channel(16);
            let downlink = Some(Downlink { allow: Vec::new(), control });
            let settings = UplinkConfig { downlink, ..reaching(&address, access, &store) };
            let mut uplink = Running::start(settings, &store);
            let events = store.append_mix(200);
            consumer.until_all(&events).await;
            store.until_cursors_at_end().await;
            assert!(consumer.counts().values().all(|count| *count == 1), "{address} {version}");
            consumer.assert_order();
            for event in &events {
                let of_event = |one: &&crate::mqtt::Received| one.is_event() && one.id() == id_of(event);
                let received = consumer.all.iter().find(of_event).unwrap();
                assert_eq!(received.text, wire::upload(event, &bridge(), false).unwrap(), "{address} {version}");
                assert_eq!(received.qos, "1");
                assert_eq!(received.content_type.is_empty(), version == Version::V311, "{address} {version}");
            }
            let mut late = Consumer::subscribe(&broker).await;
            let status = late.find("the retained status", |received| received.topic.ends_with("/status")).await;
            assert_eq!((status.retained.as_str(), &status.body["data"]["state"]), ("1", &json!("online")));

            let command = json!({"name": "limits.set", "patient_id": "P-0001", "rule": "spo2_low", "below": 86,
                "reason": "COPD", "by": "clinician-7", "correlation_id": "c1"});
            publish(plain, "vitals/v1/icu/b1/cmd", &command).await;
            let answer = consumer.find("the answer", |received| received.topic.ends_with("/cmd_result")).await;
            assert_eq!((&answer.body["data"]["ok"], &answer.body["correlation_id"]), (&json!(false), &json!("c1")));

            uplink.until("quiet", |status| status.in_flight == 0 && status.reason.is_none()).await;
            uplink.kill().await;
            let lost = |received: &crate::mqtt::Received| received.body["data"]["reason"] == "connection_lost";
            // Not the retained one of the way before.
            let will = consumer.until("the will", lost).await;
            assert_eq!(will.body["data"]["state"], "offline", "{address} {version}");
        }
    }
}

async fn publish(port: u16, topic: &str, body: &Json) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-p", &port.to_string(), "-q", "1", "-t", topic, "-m", &body.to_string()]);
    assert!(command.status().await.unwrap().success());
}

#[tokio::test]
async fn what_keeps_the_bridge_from_a_broker_is_told_with_what_to_do() {
    let certificates = Certificates::new();
    let [tls, mutual, early] = std::array::from_fn(|_| free_port());
    let extra = [
        certificates.listener(tls, "broker", ""),
        certificates.listener(mutual, "broker", "require_certificate true"),
        certificates.listener(early, "early", ""),
    ];
    let broker = Broker::started(&extra.concat()).await;
    let (plain, files) = (broker.port, |ca: &str, identity| certificates.files(ca, identity));
    let other_name = TlsFiles { server_name: Some("broker.example.org".to_owned()), ..files("ca", None) };
    for (address, tls, words) in [
        (format!("mqtts://127.0.0.1:{mutual}"), files("ca", None), "wants a certificate of the bridge"),
        (format!("mqtts://127.0.0.1:{mutual}"), files("ca", Some("stranger")), "refuses the bridge's certificate"),
        (format!("mqtts://127.0.0.1:{tls}"), files("other", None), "name its authority in mqtt.tls.ca_file"),
        (format!("mqtts://127.0.0.1:{tls}"), other_name, "is not for `broker.example.org`: set mqtt.tls.server_name"),
        (format!("mqtts://127.0.0.1:{early}"), files("ca", None), "is not valid yet"),
        (format!("mqtts://127.0.0.1:{plain}"), files("ca", None), "check mqtt.broker"),
        (format!("ws://127.0.0.1:{plain}"), TlsFiles::default(), "opens no WebSocket"),
        (format!("mqtts://127.0.0.1:{tls}"), files("nothing", None), "cannot read"),
    ] {
        for version in [Version::V5, Version::V311] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = Store::open(folder.path(), 1);
            store.append_mix(10);
            let access = Access { version, tls: tls.clone(), ..Access::default() };
            let mut uplink = Running::start(reaching(&address, access, &store), &store);
            let status = uplink.until("refused", |status| status.reason.is_some()).await;
            let reason = status.reason.unwrap();
            assert!(reason.contains(words), "{address} {version}: {reason}");
            assert_eq!((status.connected, status.sent), (false, 0), "{address} {version}");
            uplink.stop().await;
            store.close().await;
        }
    }
}

/// What clients have said first, on their way to a broker.
struct Recorder {
    port: u16,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Recorder {
    async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                connections.spawn(async move {
                    let mut first = vec![0; 4096];
                    let Ok(count) = socket.read(&mut first).await else { return };
                    first.truncate(count);
                    all.lock().unwrap().push(first.clone());
                    let Ok(mut broker) = TcpStream::connect(target).await else { return };
                    if broker.write_all(&first).await.is_ok() {
                        let _ended = copy_bidirectional(&mut socket, &mut broker).await;
                    }
                });
            }
        });
        Self { port, heard, _tasks: tasks }
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }

    /// The last field of each CONNECT: the password.
    fn passwords(&self) -> Vec<String> {
        let last = |connect: &Vec<u8>| {
            let text = String::from_utf8_lossy(connect).into_owned();
            text.rsplit("ey").nth(1).map(|_| text[text.find("eyJ").unwrap()..].to_owned()).unwrap_or_default()
        };
        self.heard().iter().map(last).collect()
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_waits_for_a_clock_that_is_not_set() {
    let (certificates, timesync) = (Certificates::new(), tempfile::tempdir().unwrap());
    let port = free_port();
    let mut broker = Broker::started(&certificates.listener(port, "early", "")).await;
    let recorder = Recorder::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path(), 1);
    let tls = certificates.files("ca", None);
    let access = Access { tls, timesync: Some(timesync.path().to_owned()), ..Access::default() };
    let settings = reaching(&format!("mqtts://127.0.0.1:{}", recorder.port), access, &store);
    let mut uplink = Running::start(settings, &store);
    let told = |status: &vitalbridge::uplink::UplinkStatus| {
        status.reason.as_deref().is_some_and(|reason| reason.contains("this machine's clock is not set"))
    };
    uplink.until("told", told).await;
    let events = store.append_mix(10);
    store.settle().await;

    // The broker's certificate would be right now; nobody asks it before the clock is set.
    for name in ["pem", "key"] {
        std::fs::copy(certificates.path(&format!("broker.{name}")), certificates.path(&format!("early.{name}")))
            .unwrap();
    }
    broker.kill().await;
    broker.start().await;
    let mut consumer = Consumer::subscribe(&broker).await;
    assert_eq!(recorder.heard().len(), 1);
    assert!(told(&uplink.until("disconnected", |status| !status.connected).await));
    std::fs::write(timesync.path().join("synchronized"), "").unwrap();
    consumer.until_all(&events).await;
    assert_eq!(recorder.heard().len(), 2);
    uplink.stop().await;
    store.close().await;
}

fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let six = |byte: u8| LETTERS.iter().position(|letter| *letter == byte).unwrap();
    let bits: Vec<bool> =
        text.bytes().flat_map(|byte| (0..6).rev().map(move |bit| six(byte) >> bit & 1 == 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_no_row_is_lost_or_repeated() {
    for version in [Version::V5, Version::V311] {
        let (broker, folder) = (Broker::started("").await, tempfile::tempdir().unwrap());
        let recorder = Recorder::new(broker.address()).await;
        let pair = rcgen::KeyPair::generate().unwrap();
        let key_file = folder.path().join("key.pem");
        std::fs::write(&key_file, pair.serialize_pem()).unwrap();
        let maker = TokenMaker {
            key_file,
            algorithm: Algorithm::Es256,
            audience: Some("project-1".to_owned()),
            subject: None,
            life: Duration::from_secs(2),
        };
        let mut consumer = Consumer::subscribe(&broker).await;
        let mut store = Store::open(folder.path(), 1);
        let access = Access { version, password: Some(Password::Made(maker)), ..Access::default() };
        let settings = UplinkConfig {
            username: Some("unused".to_owned()),
            ..reaching(&format!("mqtt://127.0.0.1:{}", recorder.port), access, &store)
        };
        let mut uplink = Running::start(settings, &store);
        let mut events: Vec<Event> = Vec::new();
        let renewed = async {
            while recorder.heard().len() < 4 {
                events.extend(store.append_mix(5));
                store.settle().await;
            }
        };
        timeout(DEADLINE, renewed).await.expect("the connection is made anew");
        consumer.until_all(&events).await;
        store.until_cursors_at_end().await;
        let counts = consumer.counts();
        assert_eq!(counts.len(), events.len());
        assert!(counts.values().all(|count| *count == 1), "{version}: what was under way was answered first");
        let offline = consumer.all.iter().find(|received| received.body["data"]["state"] == "offline");
        assert!(offline.is_none(), "{version}: {offline:?}");
        let status = uplink.until("connected", |status| status.connected).await;
        assert_eq!(status.reason, None);
        uplink.stop().await;
        store.close().await;

        let tokens = recorder.passwords();
        assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), tokens.len(), "{version}: each has its own");
        let mut last_end = 0;
        for token in tokens {
            let (message, signature) = token.rsplit_once('.').unwrap();
            let claims: Json = serde_json::from_slice(&decoded(message.split_once('.').unwrap().1)).unwrap();
            let [from, to] = ["iat", "exp"].map(|name| claims[name].as_i64().unwrap());
            assert_eq!((to - from, &claims["aud"]), (2, &json!("project-1")));
            assert!(last_end == 0 || from < last_end, "{version}: the one before it was still good");
            last_end = to;
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, rcgen::PublicKeyData::der_bytes(&pair));
            assert!(public.verify(message.as_bytes(), &decoded(signature)).is_ok(), "{token}");
        }
    }
}

#[tokio::test]
async fn a_password_file_is_read_again_for_each_connection() {
    let (folder, locked) = (tempfile::tempdir().unwrap(), free_port());
    let accounts = folder.path().join("accounts");
    let set = async |password: &str| {
        let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&accounts).args(["b1", password]).status();
        assert!(made.await.unwrap().success());
    };
    set("first").await;
    let mut broker = Broker::stopped("");
    let text = format!(
        "per_listener_settings true\nuser root\nlog_dest none\nlistener {} 127.0.0.1\nallow_anonymous true\n\
         listener {locked} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
        broker.port,
        accounts.display()
    );
    std::fs::write(broker.folder.path().join("mosquitto.conf"), text).unwrap();
    broker.start().await;
    let file = folder.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let mut store = Store::open(folder.path(), 1);
    for version in [Version::V5, Version::V311] {
        let access = Access { version, password: Some(Password::File(file.clone())), ..Access::default() };
        let settings = UplinkConfig {
            username: Some("b1".to_owned()),
            ..reaching(&format!("mqtt://127.0.0.1:{locked}"), access, &store)
        };
        set("first").await;
        std::fs::write(&file, "first\n").unwrap();
        broker.kill().await;
        broker.start().await;
        let mut uplink = Running::start(settings, &store);
        uplink.until("connected", |status| status.connected).await;
        set("second").await;
        broker.kill().await;
        broker.start().await;
        let mut consumer = Consumer::subscribe(&broker).await;
        let refused = |status: &vitalbridge::uplink::UplinkStatus| {
            status.reason.as_deref().is_some_and(|reason| reason.contains("check mqtt.username, the password or token"))
        };
        uplink.until("refused", refused).await;
        std::fs::write(&file, "second\n").unwrap();
        let events = store.append_mix(10);
        consumer.until_all(&events).await;
        uplink.stop().await;
    }
    store.close().await;
}

/// A NATS server with `JetStream` and its listener for MQTT 3.1.1.
pub(crate) struct Nats {
    config: PathBuf,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Nats {
    pub(crate) async fn started(folder: &Path) -> Self {
        let (config, port, own) = (folder.join("nats.conf"), free_port(), free_port());
        let text = format!(
            "server_name: n1\nlisten: \"127.0.0.1:{own}\"\njetstream {{ store_dir: \"{}\" }}\nmqtt {{ listen: \"127.0.0.1:{port}\" }}\n",
            folder.join("jetstream").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut nats = Self { config, port, process: None };
        nats.start().await;
        nats
    }

    /// SIGKILL: nothing is said to anybody.
    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    pub(crate) async fn start(&mut self) {
        let mut command = Command::new(NATS);
        command.arg("-c").arg(&self.config).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.process = Some(command.spawn().expect("nats-server is installed"));
        let ready = async {
            let port = self.port.to_string();
            let arguments = ["-V", "311", "-p", &port, "-q", "1", "-r", "-t", "test/ready", "-m", "{}"];
            let tried = || Command::new("mosquitto_pub").args(arguments).stderr(Stdio::null()).status();
            while !tried().await.unwrap().success() {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(DEADLINE, ready).await.expect("NATS takes messages by MQTT");
    }

    /// A consumer whose session NATS keeps.
    pub(crate) async fn subscribe(&self, version: &str) -> Consumer {
        Consumer::with(self.port, &["-V", version, "-c", "-i", "consumer"]).await
    }
}

#[tokio::test]
async fn everything_arrives_by_nats_and_so_do_status_and_will() {
    let folder = tempfile::tempdir().unwrap();
    let nats = Nats::started(folder.path()).await;
    let mut store = Store::open(folder.path(), 1);
    let settings = |version| {
        let access = Access { version, ..Access::default() };
        reaching(&format!("mqtt://127.0.0.1:{}", nats.port), access, &store)
    };
    let (five, auto) = (settings(Version::V5), settings(Version::Auto));
    let mut uplink = Running::start(five, &store);
    let told = |status: &vitalbridge::uplink::UplinkStatus| status.reason.is_some();
    let reason = uplink.until("refused", told).await.reason.unwrap();
    assert_eq!(reason, "the broker does not speak MQTT 5: set mqtt.version to \"3.1.1\" or \"auto\"");
    uplink.stop().await;

    let uplink = Running::start(auto, &store);
    let mut consumer = nats.subscribe("311").await;
    let mut events = store.append_mix(200);
    consumer.until_all(&events).await;
    events.extend(store.append_mix(400));
    consumer.until_all(&events).await;
    store.until_cursors_at_end().await;
    let counts = consumer.counts();
    let (produced, received): (BTreeSet<String>, BTreeSet<String>) =
        (events.iter().map(id_of).collect(), counts.keys().cloned().collect());
    assert_eq!(produced, received, "nothing is lost, and nothing else came");
    let repeated = counts.values().filter(|count| **count > 1).count();
    println!("NATS: produced {}, received {}, of them repeated {repeated}, lost 0", produced.len(), received.len());

    let mut late = Consumer::with(nats.port, &["-V", "311"]).await;
    let status = late.find("the retained status", |received| received.topic.ends_with("/status")).await;
    assert_eq!(status.body["data"]["state"], "online");
    uplink.kill().await;
    let will = late.until("the will", |received| received.body["data"]["state"] == "offline").await;
    assert_eq!(will.body["data"]["reason"], "connection_lost");
    store.close().await;
}

#[tokio::test]
async fn a_killed_mosquitto_with_persistence_hands_on_what_it_had_confirmed() {
    for version in [Version::V5, Version::V311] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Broker::stopped("");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nlog_dest none\nuser root\nmax_queued_messages 0\n\
             persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n",
            broker.port,
            folder.path().display()
        );
        std::fs::write(broker.folder.path().join("mosquitto.conf"), text).unwrap();
        broker.start().await;
        let subscribe = async |port| Consumer::with(port, &["-V", "311", "-c", "-i", "consumer"]).await;
        let mut consumer = subscribe(broker.port).await;
        let mut store = Store::open(folder.path(), 1);
        let access = Access { version, ..Access::default() };
        let mut uplink = Running::start(reaching(&format!("mqtt://127.0.0.1:{}", broker.port), access, &store), &store);
        let mut events = store.append_mix(50);
        consumer.until_all(&events).await;
        for _ in 0..2 {
            // The broker takes these for a consumer that is away.
            consumer.leave().await;
            events.extend(store.append_mix(100));
            store.settle().await;
            store.until_cursors_at_end().await;
            broker.kill().await;
            events.extend(store.append_mix(100));
            uplink.until("disconnected", |status| !status.connected).await;
            broker.start().await;
            let mut again = subscribe(broker.port).await;
            again.all.splice(0..0, std::mem::take(&mut consumer.all));
            consumer = again;
            consumer.until_all(&events).await;
        }
        let received: BTreeSet<String> = consumer.counts().into_keys().collect();
        assert_eq!(received, events.iter().map(id_of).collect());
        uplink.stop().await;
        store.close().await;
    }
}
