//! Tokens at the real daemon: keys of other issuers from files and addresses, what its log says, and revocation over a
//! restart.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use vitalbridge::clock::Clock;

use crate::bridge::{Bridge, eventually, now, program, signal};
use crate::dashboard::{Came, Dashboard};
use crate::forge::{Signer, key_set};

/// What is not there by then does not come.
const LIMIT: Duration = Duration::from_secs(15);

/// An issuer's address of keys on loopback, by HTTP or TLS.
struct KeyServer {
    port: u16,
    keys: Arc<Mutex<Option<String>>>,
    fetches: Arc<AtomicUsize>,
}

impl KeyServer {
    fn start(keys: &[Json], tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, keys: Arc::new(Mutex::new(Some(key_set(keys)))), fetches: Arc::default() };
        let (keys, fetches) = (Arc::clone(&server.keys), Arc::clone(&server.fetches));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                fetches.fetch_add(1, Ordering::Relaxed);
                let keys = keys.lock().unwrap().clone();
                let answer = keys.map_or_else(
                    || "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
                    |keys| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{keys}", keys.len()),
                );
                // Who hangs up has no answer.
                let mut request = [0; 1024];
                match &tls {
                    None => _ = stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes())),
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
                        let mut stream = rustls::StreamOwned::new(connection, stream);
                        _ = stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes()));
                    }
                }
            }
        });
        server
    }

    fn say(&self, keys: Option<&[Json]>) {
        *self.keys.lock().unwrap() = keys.map(key_set);
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

fn configure(dir: &Path, auth: &str) -> String {
    let file = dir.join("bridge.toml");
    std::fs::write(&file, format!("[server]\nlisten = \"127.0.0.1:0\"\n[store]\ndir = \"state\"\n{auth}\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

fn start(file: &str) -> Bridge {
    Bridge::start(&["run", "--config", file])
}

fn token(signer: &Signer, kid: Option<&str>, issuer: &str) -> String {
    let now = Clock::System.now().wall.as_secs();
    let claims = json!({"iss": issuer, "aud": "ward", "sub": "7", "role": "viewer", "iat": now, "exp": now + 600});
    signer.honest(kid, &claims)
}

/// Tries a token once.
async fn comes_in(bridge: &Bridge, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    match Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await {
        Ok(mut dashboard) => {
            dashboard.next_of("authenticated").await;
            true
        }
        Err(refused) => {
            assert!(refused.contains("401"), "{refused}");
            false
        }
    }
}

/// Tries a token until it is taken, or refused.
async fn becomes(bridge: &Bridge, token: &str, expected: bool) {
    let deadline = now() + LIMIT;
    while comes_in(bridge, token).await != expected {
        assert!(now() < deadline, "taken: {}, after {LIMIT:?}", !expected);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One request with a token, and the JSON of the answer.
fn ask(bridge: &Bridge, request: &str, token: &str) -> Json {
    let mut stream = std::net::TcpStream::connect(&bridge.address).unwrap();
    let lines = format!("host: {}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n", bridge.address);
    stream.write_all(format!("{request} HTTP/1.1\r\n{lines}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Runs a command that has to end well.
fn done(arguments: &[&str]) -> String {
    let output = program().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn keys_of_files_are_read_at_the_start_and_again_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new, set) = (Signer::ed25519(), Signer::ed25519(), Signer::p256());
    write(dir.path(), "idp.pem", &old.pem());
    write(dir.path(), "set.json", &key_set(&[set.jwk("k1"), Signer::rsa().jwk("k2")]));
    let auth = "[auth]\nown_tokens = false\naudience = \"ward\"\n\
                [[auth.trust]]\nissuer = \"pem\"\npublic_key_file = \"idp.pem\"\n\
                [[auth.trust]]\nissuer = \"set\"\njwks_file = \"set.json\"\n";
    let file = configure(dir.path(), auth);
    let bridge = start(&file);
    assert!(comes_in(&bridge, &token(&old, None, "pem")).await);
    assert!(comes_in(&bridge, &token(&set, Some("k1"), "set")).await);
    assert!(comes_in(&bridge, &token(&Signer::rsa(), Some("k2"), "set")).await);
    assert!(!comes_in(&bridge, &token(&new, None, "pem")).await);
    // Without tokens of its own there is no secret that could leak, and nothing is issued.
    assert!(!dir.path().join("state/token.secret").exists());
    let refused = program().args(["token", "issue", "--config", &file]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("issues no tokens"));

    write(dir.path(), "idp.pem", &new.pem());
    signal(bridge.pid(), "HUP");
    becomes(&bridge, &token(&new, None, "pem"), true).await;
    assert!(!comes_in(&bridge, &token(&old, None, "pem")).await);
    // A broken file changes nothing.
    write(dir.path(), "idp.pem", "broken");
    signal(bridge.pid(), "HUP");
    let check = program().args(["check", "--config", &file]).output().unwrap();
    assert!(String::from_utf8_lossy(&check.stderr).contains("idp.pem"), "{check:?}");
    assert!(comes_in(&bridge, &token(&new, None, "pem")).await);
}

#[tokio::test]
async fn keys_of_an_address_follow_the_issuer_and_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Signer::ed25519(), Signer::p256());
    let server = KeyServer::start(&[first.jwk("a")], None);
    let auth = format!(
        "[[auth.trust]]\nissuer = \"idp\"\naudience = \"ward\"\njwks_url = \"http://127.0.0.1:{}/jwks\"\n",
        server.port
    );
    let file = configure(dir.path(), &auth);
    let bridge = start(&file);
    becomes(&bridge, &token(&first, Some("a"), "idp"), true).await;

    // A new key is found by the first token that names it; the old one goes with it.
    server.say(Some(&[second.jwk("b")]));
    assert!(comes_in(&bridge, &token(&second, Some("b"), "idp")).await, "the first try waits for the key");
    assert!(!comes_in(&bridge, &token(&first, Some("a"), "idp")).await);
    // Names that nobody has do not become a flood of requests.
    let before = server.fetches();
    for number in 0..30 {
        assert!(!comes_in(&bridge, &token(&first, Some(&format!("../{number}")), "idp")).await);
    }
    assert!(server.fetches() <= before + 2, "{} fetches", server.fetches() - before);
    // Neither a symmetric key nor an outage takes away what is known.
    assert!(comes_in(&bridge, &token(&second, Some("b"), "idp")).await);
    assert_eq!(bridge.stop(), Some(0));

    server.say(None);
    let bridge = start(&file);
    assert!(comes_in(&bridge, &token(&second, Some("b"), "idp")).await, "kept for a start without network");
    let before = server.fetches();
    eventually("it is asked again", LIMIT, || (server.fetches() > before).then_some(())).await;
    server.say(Some(&[first.jwk("c"), Signer::Hmac(vec![b'k'; 32]).jwk("d")]));
    assert!(!comes_in(&bridge, &token(&first, Some("c"), "idp")).await, "one symmetric key spoils the set");
    server.say(Some(&[first.jwk("c")]));
    becomes(&bridge, &token(&first, Some("c"), "idp"), true).await;
}

#[tokio::test]
async fn keys_come_by_tls_from_who_can_prove_to_be_the_issuer() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let serve = |made: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        Arc::new(config.unwrap())
    };
    let certificate = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (good, other, misnamed) = (certificate("localhost"), certificate("localhost"), certificate("evil.example"));
    let key = Signer::ed25519();
    for (what, certificate, trusted, expected) in [
        ("good", &good, &good, true),
        ("of somebody else", &good, &other, false),
        ("for another name", &misnamed, &misnamed, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = KeyServer::start(&[key.jwk("a")], Some(serve(certificate)));
        write(dir.path(), "ca.pem", &trusted.cert.pem());
        let auth = format!(
            "[[auth.trust]]\nissuer = \"idp\"\naudience = \"ward\"\njwks_url = \"https://localhost:{}/jwks\"\n\
             jwks_ca_file = \"ca.pem\"\n",
            server.port
        );
        let bridge = start(&configure(dir.path(), &auth));
        eventually(what, LIMIT, || (server.fetches() > 0).then_some(())).await;
        // The first try asks for the key and waits for the answer, whatever it is.
        let taken = comes_in(&bridge, &token(&key, Some("a"), "idp")).await;
        assert_eq!(taken, expected, "{what}");
    }
}

#[test]
fn a_key_that_is_given_as_the_secret_is_refused_at_the_start() {
    for text in [
        include_str!("../vectors/keys/rsa2048.pem"),
        include_str!("../vectors/keys/ed25519.pem"),
        include_str!("../vectors/keys/rsa2048-private.pem"),
        "-----BEGIN CERTIFICATE-----\nMIIB0000000000000000000000000000000000000000000000\n",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJIfVeEwdDiCGYvtcPodY6VIPY5ZEVPSqzRp18k63QeQ nurse",
        r#"{"kty":"OKP","crv":"Ed25519","x":"kh9V4TB0OIIZi-1w-h1jpUg9jlkRU9KrNGnXyTrdB5A"}"#,
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "secret", text);
        let file = configure(dir.path(), "[auth]\nsecret_file = \"secret\"\n");
        let output = program().args(["run", "--config", &file]).output().unwrap();
        assert!(!output.status.success(), "{text}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("is a key or certificate and no secret"), "{said}");
        assert!(!said.contains(text.lines().nth(1).unwrap_or(text)), "it is printed: {said}");
    }
}

#[tokio::test]
async fn no_token_no_ticket_and_no_secret_is_in_the_log_whatever_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let file = configure(dir.path(), "[auth]\nquery_token = true\n");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut command = program();
    command.args(["run", "--config", &file]).env("VITALBRIDGE_LOG", "trace").stderr(Stdio::from(log));
    let bridge = Bridge::start_command_with_its_errors(command);
    let mut secrets = Vec::new();
    let issued: Json =
        serde_json::from_str(&done(&["token", "issue", "--config", &file, "--json", "--user", "lena"])).unwrap();
    let good = issued["token"].as_str().unwrap().to_owned();
    assert_eq!((&issued["user_id"], &issued["role"]), (&json!("lena"), &json!("nurse")));
    let bad = format!("{}x", &good[..good.len() - 2]);
    for token in [&good, &bad] {
        // As a header, a subprotocol, in the address, and in the first message.
        let protocol = format!("vitals.v1.json, bearer.{token}");
        let header = format!("Bearer {token}");
        for headers in [[("Authorization", header.as_str())], [("Sec-WebSocket-Protocol", protocol.as_str())]] {
            let came = Dashboard::connect(&bridge.address, "/ws", &headers).await;
            assert_eq!(came.is_ok(), *token == good);
        }
        let came = Dashboard::connect(&bridge.address, &format!("/ws?token={token}"), &[]).await;
        assert_eq!(came.is_ok(), *token == good);
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[]).await.unwrap();
        dashboard.next_of("welcome").await;
        dashboard.say(&json!({"type": "authenticate", "token": token})).await;
        let answer = dashboard.next().await["type"].clone();
        assert_eq!(answer == "authenticated", *token == good);
        secrets.push(token.clone());
    }
    let answer = ask(&bridge, "POST /api/v1/ws-ticket", &good);
    let ticket = answer["ticket"].as_str().unwrap().to_owned();
    for expected in [true, false] {
        let came = Dashboard::connect(&bridge.address, &format!("/ws?ticket={ticket}"), &[]).await;
        assert_eq!(came.is_ok(), expected);
    }
    secrets.push(ticket);
    secrets.push(std::fs::read_to_string(dir.path().join("state/token.secret")).unwrap().trim().to_owned());
    let code = done(&["token", "code", "--config", &file]).lines().next().unwrap().to_owned();
    secrets.push(code.rsplit('=').next().unwrap().to_owned());
    assert_eq!(bridge.stop(), Some(0));

    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(
        log.contains("DEBUG") && log.contains("a token was refused") && log.contains("a ticket was refused"),
        "{log:.2000}"
    );
    assert!(log.contains("tokens are taken from addresses"), "no warning at the start");
    for secret in &secrets {
        // Nor a part of it: of a token its signature, which is what nobody else has.
        for part in secret.split('.').filter(|part| part.len() > 12) {
            assert!(!log.contains(part), "the log has {part}");
        }
    }
}

#[tokio::test]
async fn the_command_line_revokes_at_a_running_daemon_and_a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = configure(dir.path(), "");
    let bridge = start(&file);
    let issue = |user: &str| -> Json {
        serde_json::from_str(&done(&["token", "issue", "--config", &file, "--json", "--role", "admin", "--user", user]))
            .unwrap()
    };
    let (first, second, other) = (issue("lena"), issue("lena"), issue("otto"));
    let text = |issued: &Json| issued["token"].as_str().unwrap().to_owned();
    let open = async |issued: &Json| {
        let bearer = format!("Bearer {}", issued["token"].as_str().unwrap());
        let mut dashboard = Dashboard::connect(&bridge.address, "/ws", &[("Authorization", &bearer)]).await.unwrap();
        dashboard.next_of("authenticated").await;
        dashboard
    };
    let (mut first_open, mut second_open, mut other_open) =
        (open(&first).await, open(&second).await, open(&other).await);
    let said = done(&["token", "revoke", "--config", &file, "--jti", first["jti"].as_str().unwrap()]);
    let begin = now();
    assert!(said.starts_with("Revoked: jti "), "{said}");
    assert_eq!(first_open.next_of("closing").await["data"]["reason"], "token_revoked");
    assert_eq!(first_open.read().await, Came::Closed(4103));
    assert!(now().since(begin) < Duration::from_secs(1), "{:?}", now().since(begin));
    assert!(!comes_in(&bridge, &text(&first)).await);
    assert!(comes_in(&bridge, &text(&second)).await);

    let said: Json =
        serde_json::from_str(&done(&["token", "revoke", "--config", &file, "--user", "lena", "--json"])).unwrap();
    assert_eq!((&said["ok"], &said["revoked"]), (&json!(true), &json!({"user": "lena"})));
    assert_eq!(second_open.next_of("closing").await["data"]["code"], 4103);
    other_open.say(&json!({"type": "ping"})).await;
    other_open.next_of("pong").await;
    drop(other_open);
    bridge.kill();

    let bridge = start(&file);
    for (issued, expected) in [(&first, false), (&second, false), (&other, true)] {
        assert_eq!(comes_in(&bridge, &text(issued)).await, expected, "{}", issued["user_id"]);
    }
    let page = ask(&bridge, "GET /api/v1/audit", &text(&other));
    let rows = page["rows"].as_array().unwrap().iter().filter(|row| row["data"]["action"] == "token_revoke");
    let rows: Vec<&Json> = rows.collect();
    // A crash repeats a row rather than lose it; a run has each once.
    let texts = |of: &dyn Fn(&Json) -> String| rows.iter().map(|row| of(row)).collect::<BTreeSet<String>>().len();
    assert_eq!(texts(&|row| row["data"]["object"].to_string()), 2, "{page}");
    assert_eq!(texts(&|row| format!("{}{}", row["epoch"], row["data"]["object"])), rows.len(), "{page}");
    assert!(rows.iter().all(|row| row["data"]["by"] == "command-line"), "{page}");
    // What is issued from now on is taken again.
    let deadline = now() + LIMIT;
    while !comes_in(&bridge, &text(&issue("lena"))).await {
        assert!(now() < deadline, "no newer token is taken");
    }
}

#[test]
fn what_cannot_be_revoked_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    for (arguments, expected) in [
        (vec!["token", "revoke", "--state-dir", state], "--jti"),
        (vec!["token", "revoke", "--state-dir", state, "--jti", "a", "--user", "b"], "cannot be used with"),
        (vec!["token", "revoke", "--state-dir", state, "--user", ""], "1 to 1024 bytes"),
        (vec!["token", "revoke", "--state-dir", "/nowhere/at/all", "--user", "a"], "no state directory"),
    ] {
        let output = program().args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
}
