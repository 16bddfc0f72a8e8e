//! The security table of tokens: every forged, foreign, late or leaked one against every way in; and who may do what
//! where. (Hostile frames and requests have a table of their own.)

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use vitalbridge::channel::Operation;
use vitalbridge::server::auth::Capability;
use vitalbridge::server::keys::{Keys, PublicKey, Trusted, read_set};
use vitalbridge::vitals::Metric;

use super::{Came, HOST, Server, UserRole, patients};
use crate::forge::{Signer, base64_url, key_set};

/// The secret of [`Server`].
const SECRET: &[u8] = &[b's'; 32];

/// Keys of other issuers that the server trusts.
struct Issuers {
    /// A PEM file, without a name.
    ed: Signer,
    /// A key set with the name `k1`.
    ec: Signer,
    /// A PEM file with the name `r1`.
    rsa: Signer,
}

impl Server {
    /// A server that trusts others beside itself.
    fn trusting() -> (Self, Issuers) {
        let mut server = Self::start();
        let issuers = Issuers { ed: Signer::ed25519(), ec: Signer::p256(), rsa: Signer::rsa() };
        let pem = |signer: &Signer, kid: Option<&str>| {
            Keys::Fixed(Arc::from([PublicKey::from_pem(&signer.pem(), kid.map(str::to_owned)).unwrap()]))
        };
        let set = read_set(&key_set(&[issuers.ec.jwk("k1")])).unwrap();
        let trusted = |issuer: &str, keys| Trusted { issuer: issuer.to_owned(), audience: "ward".to_owned(), keys };
        let key = server.key.clone().trusting(vec![
            trusted("ed", pem(&issuers.ed, None)),
            trusted("ec", Keys::Fixed(set.into())),
            trusted("rsa", pem(&issuers.rsa, Some("r1"))),
        ]);
        Arc::make_mut(&mut server.site.gate).key = watch::Sender::new(key).subscribe();
        (server, issuers)
    }

    fn now(&self) -> i64 {
        self.clock.now().wall.as_secs()
    }

    /// The first line of the answer to an upgrade, with these header lines and this query.
    async fn upgrade(&self, query: &str, lines: &str) -> String {
        let request = format!(
            "GET /ws{query} HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        let mut stream = self.stream();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    }
}

/// Good claims of an issuer.
fn claims(issuer: &str, now: i64) -> Json {
    let audience = if issuer == "vitalbridge" { "vitalbridge" } else { "ward" };
    json!({"iss": issuer, "aud": audience, "sub": "7", "role": "nurse", "iat": now, "exp": now + 3600, "jti": "j"})
}

/// `claims` with some members changed; `null` takes one away.
fn with(mut claims: Json, changes: &Json) -> Json {
    for (member, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(member);
        } else {
            claims[member] = value.clone();
        }
    }
    claims
}

/// Everything that is sent to the server as a token: what it is, the token, and why it is refused (`None`: it is taken).
#[expect(clippy::too_many_lines, reason = "one table")]
fn table(issuers: &Issuers, now: i64) -> Vec<(&'static str, String, Option<&'static str>)> {
    let Issuers { ed, ec, rsa } = issuers;
    let own = Signer::Hmac(SECRET.to_vec());
    let ours = || claims("vitalbridge", now);
    let good = own.honest(None, &ours());
    let parts: Vec<&str> = good.split('.').collect();
    let header = |json: &Json| base64_url(json.to_string().as_bytes());
    let (payload, signature) = (parts[1], parts[2]);
    let changed = |changes: &Json| own.honest(None, &with(ours(), changes));
    let stranger = Signer::ed25519();
    let by_ed = |header: &Json| ed.token(header, &claims("ed", now));
    let by_ec = |kid: Option<&str>| ec.honest(kid, &claims("ec", now));
    let pem_as_secret = |signer: &Signer, issuer: &str, kid: Option<&str>| {
        Signer::Hmac(signer.pem().into_bytes()).honest(kid, &claims(issuer, now))
    };
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let not_here = Some("not valid here");
    vec![
        // What is taken: nothing below fails for another reason than its own.
        ("our own", good.clone(), None),
        ("Ed25519 by PEM", ed.honest(None, &claims("ed", now)), None),
        ("ES256 by key set", by_ec(Some("k1")), None),
        ("a token that names none of the keys", by_ec(None), None),
        ("RS256 by PEM", rsa.honest(Some("r1"), &claims("rsa", now)), None),
        ("four seconds late, inside the leeway", changed(&json!({"exp": now - 4, "iat": now - 100})), None),
        ("one of several audiences", changed(&json!({"aud": ["else", "vitalbridge"]})), None),
        // The algorithm.
        ("alg none", format!("{}.{payload}.", header(&json!({"alg": "none"}))), not_here),
        (
            "alg None with the old signature",
            format!("{}.{payload}.{signature}", header(&json!({"alg": "None"}))),
            not_here,
        ),
        ("no signature", format!("{}.{payload}.", parts[0]), not_here),
        ("no alg", format!("{}.{payload}.{signature}", header(&json!({"typ": "JWT"}))), not_here),
        ("alg HS512", own.token(&json!({"alg": "HS512"}), &ours()), not_here),
        ("Ed25519's PEM as the secret of HS256", pem_as_secret(ed, "ed", None), Some("another algorithm")),
        ("ES256's PEM as the secret of HS256", pem_as_secret(ec, "ec", Some("k1")), Some("another algorithm")),
        ("RS256's PEM as the secret of HS256", pem_as_secret(rsa, "rsa", Some("r1")), Some("another algorithm")),
        (
            "RS256's PEM as the secret, for our own issuer",
            pem_as_secret(rsa, "vitalbridge", None),
            Some("wrong signature"),
        ),
        ("Ed25519 that says ES256", by_ed(&json!({"alg": "ES256"})), Some("another algorithm")),
        (
            "RS256 that says PS256",
            rsa.token(&json!({"alg": "PS256", "kid": "r1"}), &claims("rsa", now)),
            Some("another algorithm"),
        ),
        ("our own that says RS256", own.token(&json!({"alg": "RS256"}), &ours()), Some("another algorithm")),
        // The key.
        ("another secret", Signer::Hmac(vec![b'x'; 32]).honest(None, &ours()), Some("wrong signature")),
        ("another Ed25519 key", stranger.honest(None, &claims("ed", now)), Some("wrong signature")),
        ("a trusted key for another trusted issuer", ed.honest(None, &claims("ec", now)), Some("another algorithm")),
        ("a trusted key for our own issuer", ed.honest(None, &ours()), Some("another algorithm")),
        ("kid unknown", by_ec(Some("k2")), Some("no key of this name")),
        ("kid of another issuer's key", by_ec(Some("r1")), Some("no key of this name")),
        ("kid of our own", own.honest(Some("k1"), &ours()), Some("no key of this name")),
        ("kid a path", by_ec(Some("../../../../dev/null")), Some("no key of this name")),
        (
            "kid a path, signed with an empty secret",
            Signer::Hmac(Vec::new()).honest(Some("/dev/null"), &ours()),
            Some("no key of this name"),
        ),
        ("kid SQL", by_ec(Some("k1' OR '1'='1")), Some("no key of this name")),
        ("kid a command", by_ec(Some("k1|whoami")), Some("no key of this name")),
        ("kid an address", by_ec(Some("https://evil.example/jwks")), Some("no key of this name")),
        ("kid no text", ec.token(&json!({"alg": "ES256", "kid": 1}), &claims("ec", now)), not_here),
        (
            "its own key in the header",
            stranger.token(&json!({"alg": "EdDSA", "jwk": stranger.jwk("a")}), &claims("ed", now)),
            Some("wrong signature"),
        ),
        (
            "its own address of keys",
            stranger.token(&json!({"alg": "EdDSA", "jku": "https://evil.example"}), &claims("ed", now)),
            Some("wrong signature"),
        ),
        (
            "an extension that is critical",
            by_ed(&json!({"alg": "EdDSA", "crit": ["b64"], "b64": false})),
            Some("an extension"),
        ),
        // Issuer, audience, claims.
        ("foreign issuer", changed(&json!({"iss": "https://evil.example"})), Some("another issuer")),
        ("issuer no text", changed(&json!({"iss": ["vitalbridge", "evil"]})), not_here),
        ("foreign audience", changed(&json!({"aud": "else"})), Some("another audience")),
        (
            "our audience at another issuer's",
            ed.honest(None, &with(claims("ed", now), &json!({"aud": "vitalbridge"}))),
            Some("another audience"),
        ),
        ("no iss", changed(&json!({"iss": null})), Some("the claim `iss` is missing")),
        ("no aud", changed(&json!({"aud": null})), Some("the claim `aud` is missing")),
        ("no sub", changed(&json!({"sub": null})), Some("the claim `sub` is missing")),
        ("no exp", changed(&json!({"exp": null})), Some("the claim `exp` is missing")),
        ("no role", changed(&json!({"role": null})), Some("the claim `role` is missing")),
        ("a role that is none", changed(&json!({"role": "root"})), not_here),
        ("an operation that is none", changed(&json!({"caps": [{"channels": ["#"], "allow": ["all"]}]})), not_here),
        // Times.
        ("expired", changed(&json!({"exp": now - 60, "iat": now - 100})), Some("has expired")),
        (
            "expired at another issuer's",
            ed.honest(None, &with(claims("ed", now), &json!({"exp": now - 60, "iat": now - 100}))),
            Some("has expired"),
        ),
        ("not yet valid", changed(&json!({"nbf": now + 60})), Some("not valid yet")),
        ("issued in the future", changed(&json!({"iat": now + 60})), Some("not valid yet")),
        ("for two days", changed(&json!({"exp": now + 2 * 86_400})), Some("longer than 24 hours")),
        (
            "for two days, without iat",
            changed(&json!({"iat": null, "exp": now + 2 * 86_400})),
            Some("longer than 24 hours"),
        ),
        (
            "without iat, of another issuer",
            ed.honest(None, &with(claims("ed", now), &json!({"iat": null}))),
            Some("the claim `iat` is missing"),
        ),
        ("for ever", changed(&json!({"exp": i64::MAX})), Some("longer than 24 hours")),
        // Form.
        ("oversized, with a good signature", changed(&json!({"x": "x".repeat(4096)})), Some("at most 4096")),
        ("two parts", format!("{}.{payload}", parts[0]), not_here),
        ("four parts", format!("{good}.{signature}"), not_here),
        (
            "a changed claim",
            format!("{}.{}.{signature}", parts[0], header(&with(ours(), &json!({"role": "admin"})))),
            Some("wrong signature"),
        ),
        ("a changed signature", format!("{}.{payload}.{other}{}", parts[0], &signature[1..]), Some("wrong signature")),
        ("rubbish", "rubbish".to_owned(), not_here),
        ("dots", "..".to_owned(), not_here),
    ]
}

#[tokio::test]
async fn each_token_of_the_table_is_taken_or_refused_at_every_way_in() {
    let (server, issuers) = Server::trusting();
    for (what, token, refused) in table(&issuers, server.now()) {
        let status = if refused.is_some() { "401" } else { "101" };
        let bearer = format!("authorization: Bearer {token}\r\n");
        let protocol = format!("sec-websocket-protocol: vitals.v1.json, bearer.{token}\r\n");
        assert_eq!(server.upgrade("", &bearer).await, status, "{what}, as a header");
        assert_eq!(server.upgrade("", &protocol).await, status, "{what}, as a subprotocol");
        // The header decides, whatever else comes.
        assert_eq!(server.upgrade("?ticket=none&token=none", &bearer).await, status, "{what}, with more");

        let mut dashboard = server.dashboard(&[]).await.unwrap();
        dashboard.next_of("welcome").await;
        dashboard.say(&json!({"type": "authenticate", "token": token})).await;
        let answer = dashboard.next().await;
        let Some(reason) = refused else {
            assert_eq!((&answer["type"], &answer["data"]["user_id"]), (&json!("authenticated"), &json!(7)), "{what}");
            continue;
        };
        assert_eq!(answer["type"], "auth_error", "{what}");
        let said = answer["data"]["message"].as_str().unwrap();
        assert!(said.contains(reason), "{what}: {said}");
        assert!(token.len() < 12 || !answer.to_string().contains(&token), "{what}: it is echoed");
        assert_eq!(dashboard.next_of("closing").await["data"]["reason"], "invalid_token", "{what}");
        assert_eq!(dashboard.read().await, Came::Closed(4001), "{what}");

        let request = format!("POST /api/v1/ws-ticket HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n{bearer}\r\n");
        let answer = server.http(&request).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("www-authenticate: Bearer"), "{what}: {answer}");
    }
}

#[test]
fn a_key_set_that_signs_or_is_weak_is_refused_as_a_whole() {
    let (ed, ec, secret) = (Signer::ed25519(), Signer::p256(), Signer::Hmac(SECRET.to_vec()));
    let changed = |mut key: Json, member: &str, value: Json| {
        key[member] = value;
        key
    };
    let weak = json!({"kty": "RSA", "kid": "w", "n": base64_url(&[0xff; 128]), "e": "AQAB"});
    for (what, keys, expected) in [
        ("good", vec![ed.jwk("a"), ec.jwk("b"), Signer::rsa().jwk("c")], Ok(3)),
        ("with keys for something else", vec![ed.jwk("a"), changed(ec.jwk("b"), "use", json!("enc"))], Ok(1)),
        ("with a key of an unknown kind", vec![ed.jwk("a"), json!({"kty": "AKP", "kid": "b"})], Ok(1)),
        ("with a key that may not check", vec![ed.jwk("a"), changed(ed.jwk("b"), "key_ops", json!(["sign"]))], Ok(1)),
        ("with RS512", vec![ed.jwk("a"), changed(Signer::rsa().jwk("b"), "alg", json!("RS512"))], Ok(1)),
        ("symmetric", vec![secret.jwk("a")], Err("symmetric")),
        ("symmetric among others", vec![ed.jwk("a"), secret.jwk("b")], Err("symmetric")),
        ("private", vec![changed(ed.jwk("a"), "d", json!("AA"))], Err("private key")),
        ("weak", vec![weak], Err("1024 bits")),
        ("two of one name", vec![ed.jwk("a"), ec.jwk("a")], Err("two keys of one name")),
        ("cut off", vec![changed(ed.jwk("a"), "x", json!("AAAA"))], Err("no public key")),
        ("empty", vec![], Err("no key that checks")),
        ("too many", (0..65).map(|number| ed.jwk(&number.to_string())).collect(), Err("more than 64")),
    ] {
        match (read_set(&key_set(&keys)), expected) {
            (Ok(read), Ok(count)) => assert_eq!(read.len(), count, "{what}"),
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{what}: {error}"),
            (read, _) => panic!("{what}: {read:?}"),
        }
    }
}

#[test]
fn a_pem_file_gives_the_one_algorithm_of_its_key_or_says_what_it_is_instead() {
    for (text, expected) in [
        (include_str!("../../vectors/keys/ed25519.pem"), Ok("EdDSA")),
        (include_str!("../../vectors/keys/prime256v1.pem"), Ok("ES256")),
        (include_str!("../../vectors/keys/rsa2048.pem"), Ok("RS256")),
        (include_str!("../../vectors/keys/rsa1024.pem"), Err("1024 bits")),
        (include_str!("../../vectors/keys/secp384r1.pem"), Err("neither an Ed25519")),
        (include_str!("../../vectors/keys/rsa2048-private.pem"), Err("private key")),
        ("", Err("no public key")),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", Err("no public key")),
    ] {
        match (PublicKey::from_pem(text, None), expected) {
            (Ok(key), Ok(algorithm)) => assert_eq!(key.material.algorithm(), algorithm),
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            (read, _) => panic!("{text}: {read:?}"),
        }
    }
}

/// What each role may on each kind of channel: `s` sub, `h` hst, `p` pub, `a` ack, `c` cmd.
/// Columns: viewer, nurse, clinician, admin, service; then the same with a token that is narrowed to patient `{0}`.
/// `{0}` is that patient, `{1}` another one.
const MATRIX: &[(&str, [&str; 5], [&str; 5])] = &[
    ("patient/{0}/spo2", ["sh", "shpa", "shpac", "shpac", "sh"], ["sh", "shpa", "shpac", "shpac", "sh"]),
    ("patient/{1}/spo2", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("alerts/{0}", ["sh", "shpa", "shpac", "shpac", "sh"], ["sh", "shpa", "shpac", "shpac", "sh"]),
    ("alerts/{1}", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("waveform/{0}/ecg", ["sh", "shpa", "shpac", "shpac", "sh"], ["sh", "shpa", "shpac", "shpac", "sh"]),
    ("waveform/{1}/ecg", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("device/monitor/status", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("devices", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("ward/a/patient/{1}/spo2", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("notifications/7", ["sh", "shpa", "shpac", "shpac", "sh"], ["s", "s", "s", "s", "s"]),
    ("notifications/8", ["h", "hpa", "hpac", "hpac", "h"], ["", "", "", "", ""]),
    ("chat/c-1", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
    ("system", ["sh", "shpa", "shpac", "shpac", "sh"], ["sh", "shpa", "shpac", "shpac", "sh"]),
    ("audit", ["sh", "shpa", "shpac", "shpac", "sh"], ["", "", "", "", ""]),
];

const ROLES: [UserRole; 5] =
    [UserRole::Viewer, UserRole::Nurse, UserRole::Clinician, UserRole::Admin, UserRole::Service];

#[tokio::test]
async fn each_role_may_on_each_channel_what_the_table_says() {
    let server = Server::start();
    let all = patients(&server);
    for (channel, whole, narrowed) in MATRIX {
        let channel = channel.replace("{0}", &all[0]).replace("{1}", &all[1]);
        for (is_narrowed, cells) in [(false, whole), (true, narrowed)] {
            for (role, cell) in ROLES.iter().zip(cells) {
                let mut claims = server.claims(*role);
                claims.caps = is_narrowed.then(|| vec![Capability::of_patient(&all[0].parse().unwrap(), *role)]);
                let what = format!("{role} {channel} narrowed: {is_narrowed}");
                // What every request goes by: the rights of the checked token.
                let rights = server.site.gate.check(&server.token(&claims), server.clock.now().wall).unwrap();
                for (operation, letter) in Operation::ALL.iter().zip(["s", "h", "p", "a", "c"]) {
                    // One's own messages for people are nobody else's, whatever the token says.
                    if letter != "s" || !channel.starts_with("notifications/") {
                        let allowed = rights.scope(*operation).allows_channel(&channel);
                        assert_eq!(allowed, cell.contains(letter), "{what}: {operation}");
                    }
                }
                // And what a subscribe says.
                let mut dashboard = server.signed_in(&claims).await;
                dashboard.say(&json!({"type": "subscribe", "channels": [channel]})).await;
                let answer = dashboard.next().await;
                if cell.contains('s') {
                    assert_eq!(answer["type"], "subscribed", "{what}: {answer}");
                } else {
                    assert_eq!(answer["data"]["code"], "permission_denied", "{what}: {answer}");
                }
            }
        }
    }
}

/// One thing of each kind that can be asked for, and which of [`ROLES`] may (`+`), with a whole token and with one that
/// is narrowed to the other patient.
const ACTIONS: &[(&str, &str, &str, &str, &str)] = &[
    // method, path, body, whole token, narrowed to the other patient
    (
        "POST",
        "/api/v1/notifications",
        r#"{"kind":"medication_reminder","users":["7"],"title":"a","message":"b"}"#,
        "-+++-",
        "-----",
    ),
    ("POST", "/api/v1/patients/{0}/observations", r#"{"consciousness":"A"}"#, "-+++-", "-----"),
    (
        "POST",
        "/api/v1/commands",
        r#"{"name":"alert.acknowledge","alert_id":"{alert}","expected_seq":0}"#,
        "-+++-",
        "-----",
    ),
    (
        "PUT",
        "/api/v1/patients/{0}/limits/spo2_low",
        r#"{"below":86,"clear":{"at_least":87},"delay":"20s","reason":"r","expires":"{later}"}"#,
        "--++-",
        "-----",
    ),
    ("POST", "/api/v1/commands", r#"{"name":"device.command","source_id":"none","command":"y"}"#, "--++-", "-----"),
    ("GET", "/api/v1/patients/{0}/limits", "", "+++++", "-----"),
    ("POST", "/api/v1/tokens/revoke", r#"{"jti":"nobody's"}"#, "---+-", "-----"),
];

#[tokio::test]
async fn each_role_may_do_what_the_table_says_and_nobody_anything_to_a_patient_of_others() {
    let server = Server::start();
    let all = patients(&server);
    let mut watching = server.signed_in(&server.claims(UserRole::Viewer)).await;
    watching.say(&json!({"type": "subscribe", "channels": ["alerts/+"]})).await;
    watching.next_of("snapshot").await;
    server.reading(&all[0], Metric::Spo2, 70).await;
    let alert = watching.next_of("alert").await["data"]["alert_id"].as_str().unwrap().to_owned();
    let later = vitalbridge::clock::Wall(server.clock.now().wall.0 + 3_600_000).to_string();
    for (method, path, body, whole, narrowed) in ACTIONS {
        let path = path.replace("{0}", &all[0]);
        let body = body.replace("{alert}", &alert).replace("{later}", &later);
        for (is_narrowed, cells) in [(false, whole), (true, narrowed)] {
            for (role, cell) in ROLES.iter().zip(cells.chars()) {
                let mut claims = server.claims(*role);
                claims.sub = format!("{role}-{is_narrowed}");
                claims.caps = is_narrowed.then(|| vec![Capability::of_patient(&all[1].parse().unwrap(), *role)]);
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\n\
                     authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
                    server.token(&claims),
                    body.len()
                );
                let answer = server.http(&request).await;
                // What is allowed may be refused for another reason: such an alert or source there is not.
                let allowed = !answer.starts_with("HTTP/1.1 403");
                assert!(!answer.starts_with("HTTP/1.1 401") && !answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
                assert_eq!(allowed, cell == '+', "{role} {method} {path} narrowed: {is_narrowed}: {answer}");
            }
        }
    }
}
