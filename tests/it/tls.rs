//! The daemon with TLS over real sockets: its own certificate, the installer's, a reload, and certificates of clients.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vitalbridge::server::tls::CERTIFICATE_FILE;

use crate::bridge::{Bridge, eventually, program, signal};
use crate::dashboard::Dashboard;

/// A client that trusts these certificates, and may show one of its own.
pub(crate) fn connector(trusted: &Path, own: Option<(&Path, &Path)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

async fn connect(bridge: &Bridge, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(&bridge.address).await?;
    let mut stream = client.connect("localhost".try_into().unwrap(), stream).await?;
    // With TLS 1.3 the client learns only from the first answer that its certificate was refused.
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", bridge.address).as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 200");
    Ok(stream)
}

/// A folder with a configuration that listens on a free port, and these lines more.
fn folder(more: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), more);
    dir
}

fn configure(dir: &Path, more: &str) {
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\n[store]\ndir = \"state\"\n{more}");
    std::fs::write(dir.join("vitalbridge.toml"), text).unwrap();
}

fn start(dir: &Path) -> Bridge {
    Bridge::start(&["run", "--config", dir.join("vitalbridge.toml").to_str().unwrap()])
}

fn command(dir: &Path, arguments: &[&str]) -> String {
    let Output { stdout, stderr, .. } =
        program().args(arguments).args(["--config", dir.join("vitalbridge.toml").to_str().unwrap()]).output().unwrap();
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

/// The fingerprint in a text.
fn fingerprint(text: &str) -> Option<&str> {
    text.split_whitespace().map(|word| word.trim_end_matches([')', ','])).find(|word| word.matches(':').count() == 31)
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_once_and_its_fingerprint_is_told() {
    let dir = folder("[server.tls]\n");
    assert!(command(dir.path(), &["check"]).contains("self-signed (made at the first start)"));
    let bridge = start(dir.path());
    let client = connector(&dir.path().join("state").join(CERTIFICATE_FILE), None);

    // The page, and the WebSocket with it.
    let stream = connect(&bridge, &client).await.unwrap();
    let shown: CertificateDer<'_> = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let digest = ring::digest::digest(&ring::digest::SHA256, &shown);
    let shown = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let tcp = TcpStream::connect(&bridge.address).await.unwrap();
    let tls = client.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let origin = format!("https://{}", bridge.address);
    let mut dashboard = Dashboard::over(tls, &bridge.address, "/ws", &[("Origin", &origin)]).await.unwrap();
    assert_eq!(dashboard.next().await["type"], "welcome");

    // In clear nothing is said.
    let mut plain = TcpStream::connect(&bridge.address).await.unwrap();
    plain.write_all(format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", bridge.address).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may break instead of ending.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");

    let checked = command(dir.path(), &["check"]);
    assert_eq!(fingerprint(&checked), Some(shown.as_str()), "{checked}");
    let signing_in = command(dir.path(), &["token", "code"]);
    assert_eq!(fingerprint(&signing_in), Some(shown.as_str()), "{signing_in}");
    let json: serde_json::Value = serde_json::from_str(&command(dir.path(), &["check", "--json"])).unwrap();
    assert_eq!(json["tls"]["sha256"], shown);
    assert_eq!(bridge.stop(), Some(0));

    // The same after a restart, and printed where people look.
    let mut run = program();
    run.args(["run", "--config", dir.path().join("vitalbridge.toml").to_str().unwrap()]);
    let said = Bridge::start_command(run);
    assert!(said.start.iter().any(|line| line.starts_with("vitalbridge: listening on https://")), "{:?}", said.start);
    assert_eq!(said.start.iter().find_map(|line| fingerprint(line)), Some(shown.as_str()), "{:?}", said.start);
    connect(&said, &client).await.unwrap();
}

/// A certificate for `localhost` and its key, signed by themselves or by an authority.
fn write_certificate(dir: &Path, name: &str, authority: Option<&rcgen::Issuer<'_, rcgen::KeyPair>>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = match authority {
        Some(authority) => params.signed_by(&key, authority).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// An authority, whose certificate is written.
fn authority(dir: &Path, name: &str) -> rcgen::Issuer<'static, rcgen::KeyPair> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    std::fs::write(dir.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    rcgen::Issuer::new(params, key)
}

const OWN: &str = "[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";

#[tokio::test]
async fn new_files_are_taken_at_a_reload_and_broken_ones_are_not() {
    let dir = folder(OWN);
    let path = |name: &str| dir.path().join(name);
    write_certificate(dir.path(), "server", None);
    std::fs::copy(path("server.pem"), path("first.pem")).unwrap();
    let bridge = start(dir.path());
    let first = connector(&path("first.pem"), None);
    let old_connection = connect(&bridge, &first).await.unwrap();

    write_certificate(dir.path(), "server", None);
    let second = connector(&path("server.pem"), None);
    assert!(connect(&bridge, &second).await.is_err(), "not before the reload");
    signal(bridge.pid(), "HUP");
    let limit = Duration::from_secs(20);
    let deadline = crate::bridge::now() + limit;
    while connect(&bridge, &second).await.is_err() {
        assert!(crate::bridge::now() < deadline, "the new certificate was not taken within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(connect(&bridge, &first).await.is_err());
    drop(old_connection);

    std::fs::copy(path("server.pem"), path("second.pem")).unwrap();
    std::fs::write(path("server.key"), "no key").unwrap();
    assert!(command(dir.path(), &["check"]).contains("has no private key in PEM"));
    signal(bridge.pid(), "HUP");
    // The alert says so, which an admin sees.
    let token = program()
        .args(["token", "issue", "--role", "admin", "--config", path("vitalbridge.toml").to_str().unwrap()])
        .output();
    // The configuration is broken now, so the command goes by the state directory.
    assert!(!token.unwrap().status.success());
    let token = crate::bridge::token(&path("state"), &["--role", "admin"]);
    let tcp = TcpStream::connect(&bridge.address).await.unwrap();
    let tls = connector(&path("second.pem"), None).connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let bearer = format!("Bearer {token}");
    let mut dashboard = Dashboard::over(tls, &bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
    dashboard.say(&serde_json::json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    let snapshot = dashboard.next_of("snapshot").await;
    let rule = "configuration_error";
    if !snapshot["data"]["alerts"].to_string().contains(rule) {
        while dashboard.next_of("alert").await["data"]["rule"] != rule {}
    }
    connect(&bridge, &second).await.unwrap();
}

#[tokio::test]
async fn clients_show_certificates_where_they_have_to() {
    let dir = folder("");
    let path = |name: &str| dir.path().join(name);
    write_certificate(dir.path(), "server", None);
    let ours = authority(dir.path(), "ours");
    write_certificate(dir.path(), "client", Some(&ours));
    let foreign = authority(dir.path(), "foreign");
    write_certificate(dir.path(), "stranger", Some(&foreign));
    let nobody = connector(&path("server.pem"), None);
    let client = connector(&path("server.pem"), Some((&path("client.pem"), &path("client.key"))));
    let stranger = connector(&path("server.pem"), Some((&path("stranger.pem"), &path("stranger.key"))));
    for (setting, without) in [("required", false), ("optional", true)] {
        configure(dir.path(), &format!("{OWN}client_ca = \"ours.pem\"\nclient_certificates = \"{setting}\"\n"));
        assert!(command(dir.path(), &["check"]).contains(&format!("certificates of clients {setting}")));
        let bridge = start(dir.path());
        connect(&bridge, &client).await.unwrap();
        assert_eq!(connect(&bridge, &nobody).await.is_ok(), without, "{setting}");
        assert!(connect(&bridge, &stranger).await.is_err(), "{setting}");
        // A certificate is no token.
        let tcp = TcpStream::connect(&bridge.address).await.unwrap();
        let tls = client.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let mut dashboard = Dashboard::over(tls, &bridge.address, "/ws", &[]).await.unwrap();
        dashboard.say(&serde_json::json!({"type": "subscribe", "channels": ["#"]})).await;
        assert_eq!(dashboard.next_of("error").await["data"]["code"], "not_authenticated");
        assert_eq!(bridge.stop(), Some(0));
    }
}

#[tokio::test]
async fn listening_for_others_without_tls_is_said() {
    let dir = folder("");
    let text = "[server]\nlisten = \"0.0.0.0:0\"\n[store]\ndir = \"state\"\n";
    std::fs::write(dir.path().join("vitalbridge.toml"), text).unwrap();
    let checked = command(dir.path(), &["check"]);
    assert!(checked.contains("line 2: 0.0.0.0:0 can be reached from other machines and there is no TLS"), "{checked}");
    let mut run = program();
    run.args(["run", "--config", dir.path().join("vitalbridge.toml").to_str().unwrap()]);
    run.stderr(std::fs::File::create(dir.path().join("log")).unwrap());
    let log = || std::fs::read_to_string(dir.path().join("log")).ok();
    let mut bridge = run.spawn().unwrap();
    let warned = || log().filter(|log| log.contains("cross the network in clear"));
    let found = eventually("the warning of the start", Duration::from_secs(30), warned);
    found.await;
    bridge.kill().unwrap();
    bridge.wait().unwrap();
}
