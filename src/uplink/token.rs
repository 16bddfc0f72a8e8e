//! Tokens as passwords: those that the bridge signs itself (RFC 7519), and how long one from elsewhere holds.

use std::path::PathBuf;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, rand};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value as Json, json};

use super::access::{self, Credential};
use crate::clock::Wall;
use crate::named::named_enum;
use crate::secret::Secret;

/// Shortest secret of HS256, in bytes: the output size of SHA-256 (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Longest token from elsewhere whose life is looked for, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

named_enum! {
    /// How a token is signed (RFC 7518, 3.1).
    Algorithm {
        /// ECDSA with P-256 and SHA-256.
        Es256 = "ES256",
        /// RSA PKCS #1 v1.5 with SHA-256.
        Rs256 = "RS256",
        /// HMAC with SHA-256.
        Hs256 = "HS256",
    }
}

/// Makes tokens for the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMaker {
    /// A private key in PEM, or the secret of HS256. It is read for each token.
    pub key_file: PathBuf,
    /// How it signs.
    pub algorithm: Algorithm,
    /// `aud`: the project or service that the token is for.
    pub audience: Option<String>,
    /// `sub`: who we are.
    pub subject: Option<String>,
    /// From `iat` to `exp`.
    pub life: Duration,
}

impl TokenMaker {
    /// A token that holds from now.
    pub(super) fn make(&self, now: Wall) -> Result<Credential, String> {
        let from = now.as_secs();
        let until = from.saturating_add(i64::try_from(self.life.as_secs()).unwrap_or(i64::MAX));
        let mut claims = Map::new();
        claims.insert("iat".to_owned(), json!(from));
        claims.insert("exp".to_owned(), json!(until));
        for (name, value) in [("aud", &self.audience), ("sub", &self.subject)] {
            if let Some(value) = value {
                claims.insert(name.to_owned(), json!(value));
            }
        }
        let header = json!({"alg": self.algorithm.name(), "typ": "JWT"});
        let message = format!(
            "{}.{}",
            encoded(header.to_string().as_bytes()),
            encoded(Json::from(claims).to_string().as_bytes())
        );
        let signature = self.sign(message.as_bytes()).map_err(|reason| format!("{reason} (mqtt.jwt.key_file)"))?;
        let secret = Secret::new(format!("{message}.{}", encoded(&signature)));
        let wall = |seconds: i64| Wall(seconds.saturating_mul(1000));
        Ok(Credential { secret, begins: Some(wall(from)), ends: Some(wall(until)) })
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let bytes = access::read(&self.key_file)?;
        let file = self.key_file.display();
        if self.algorithm == Algorithm::Hs256 {
            let secret = bytes.trim_ascii_end();
            if secret.len() < MIN_SECRET_BYTES {
                return Err(format!("the secret in {file} has {} bytes, needs {MIN_SECRET_BYTES}", secret.len()));
            }
            return Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec());
        }
        let key = PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| format!("{file} has no private key in PEM that is not encrypted"))?;
        let random = SystemRandom::new();
        let failed = |_| format!("the key in {file} cannot sign");
        match (self.algorithm, &key) {
            (Algorithm::Rs256, PrivateKeyDer::Pkcs8(_) | PrivateKeyDer::Pkcs1(_)) => {
                let pair = match &key {
                    PrivateKeyDer::Pkcs8(pkcs8) => RsaKeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()),
                    other => RsaKeyPair::from_der(other.secret_der()),
                };
                let pair = pair.map_err(|reason| format!("{file} has no RSA key of 2048 to 4096 bits: {reason}"))?;
                let mut signature = vec![0; pair.public().modulus_len()];
                let random: &dyn rand::SecureRandom = &random;
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            (Algorithm::Es256, PrivateKeyDer::Pkcs8(pkcs8)) => {
                let der = pkcs8.secret_pkcs8_der();
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
                    .map_err(|reason| format!("{file} has no P-256 key: {reason}"))?;
                Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec())
            }
            _ => Err(format!(
                "{file} has its key in a form that is not read: write it as PKCS#8 with `openssl pkcs8 -topk8 -nocrypt -in {file}`"
            )),
        }
    }
}

/// Since when and until when a password holds, as far as it is a token that says so: a JWT (`iat` or `nbf`, and `exp`), or
/// a shared access signature (`se`). Nothing about it is checked; that is the broker's part.
pub(super) fn life_of(password: &str) -> (Option<Wall>, Option<Wall>) {
    let wall = |seconds: i64| Wall(seconds.saturating_mul(1000));
    if password.len() > MAX_TOKEN_BYTES {
        return (None, None);
    }
    if let Some(signature) = password.strip_prefix("SharedAccessSignature ") {
        let end = signature.split('&').find_map(|part| part.strip_prefix("se=")).and_then(|text| text.parse().ok());
        return (None, end.map(wall));
    }
    let mut parts = password.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return (None, None);
    };
    let claims: Option<Json> = decoded(payload).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let time = |name: &str| claims.as_ref().and_then(|claims| claims.get(name)).and_then(Json::as_i64).map(wall);
    (time("nbf").or_else(|| time("iat")), time("exp"))
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648, 5, without padding.
fn encoded(bytes: &[u8]) -> String {
    let letter =
        |six: u32| usize::try_from(six & 63).ok().and_then(|at| LETTERS.get(at)).copied().map_or('A', char::from);
    let mut text = String::with_capacity(bytes.len().saturating_mul(4).div_ceil(3));
    for group in bytes.chunks(3) {
        let bits =
            [16, 8, 0].into_iter().zip(group).fold(0_u32, |bits, (shift, byte)| bits | u32::from(*byte) << shift);
        text.extend([18, 12, 6, 0].into_iter().take(group.len().saturating_add(1)).map(|shift| letter(bits >> shift)));
    }
    text
}

/// RFC 4648, 5, without padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes() {
        let six = LETTERS.iter().position(|known| *known == letter)?;
        bits = (bits << 6 | u32::try_from(six).ok()?) & 0xFFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    const NOW: Wall = Wall(1_795_000_000_500);

    fn maker(key_file: &Path, algorithm: Algorithm) -> TokenMaker {
        let (audience, subject) = (Some("project-1".to_owned()), Some("b1".to_owned()));
        TokenMaker { key_file: key_file.to_owned(), algorithm, audience, subject, life: Duration::from_hours(1) }
    }

    /// Header, claims, the signed bytes and the signature.
    fn taken_apart(credential: &Credential) -> (Json, Json, Vec<u8>, Vec<u8>) {
        let text = credential.secret.expose();
        let (message, signature) = text.rsplit_once('.').unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let json = |part: &str| serde_json::from_slice(&decoded(part).unwrap()).unwrap();
        (json(header), json(claims), message.as_bytes().to_vec(), decoded(signature).unwrap())
    }

    #[test]
    fn a_token_of_each_algorithm_is_what_its_key_has_signed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let pair = rcgen::KeyPair::generate().unwrap();
        let rsa = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/keys/rsa2048-private.pem");
        let rsa = std::fs::read_to_string(rsa).unwrap();
        let secret = "a secret of more than thirty-two bytes";
        for (algorithm, key) in [
            (Algorithm::Es256, pair.serialize_pem()),
            (Algorithm::Rs256, rsa.clone()),
            (Algorithm::Hs256, format!("{secret}\n")),
        ] {
            std::fs::write(&file, key).unwrap();
            let credential = maker(&file, algorithm).make(NOW).unwrap();
            let (header, claims, message, signature) = taken_apart(&credential);
            assert_eq!(header, json!({"alg": algorithm.name(), "typ": "JWT"}));
            assert_eq!(claims, json!({"iat": 1_795_000_000, "exp": 1_795_003_600, "aud": "project-1", "sub": "b1"}));
            let life = (Some(Wall(1_795_000_000_000)), Some(Wall(1_795_003_600_000)));
            assert_eq!((credential.begins, credential.ends), life);
            assert_eq!(life_of(credential.secret.expose()), life, "as anybody reads it");
            let verified = match algorithm {
                Algorithm::Es256 => {
                    let der = rcgen::PublicKeyData::der_bytes(&pair);
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).verify(&message, &signature).is_ok()
                }
                Algorithm::Rs256 => {
                    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(rsa.as_bytes()).unwrap() else {
                        panic!()
                    };
                    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
                    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref().to_vec());
                    key.verify(&message, &signature).is_ok()
                }
                Algorithm::Hs256 => {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                    hmac::verify(&key, &message, &signature).is_ok()
                }
            };
            assert!(verified, "{algorithm}");
            assert!(!format!("{credential:?}").contains(credential.secret.expose()));
        }
    }

    #[test]
    fn a_key_that_cannot_sign_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (algorithm, key, words) in [
            (Algorithm::Hs256, "short".to_owned(), "has 5 bytes, needs 32"),
            (Algorithm::Es256, "nothing".to_owned(), "no private key in PEM"),
            (Algorithm::Rs256, pem.clone(), "no RSA key"),
            (Algorithm::Es256, pem.replace("PRIVATE", "EC PRIVATE"), "openssl pkcs8 -topk8"),
        ] {
            std::fs::write(&file, key).unwrap();
            let reason = maker(&file, algorithm).make(NOW).unwrap_err();
            assert!(reason.contains(words) && reason.contains("mqtt.jwt.key_file"), "{reason}");
        }
    }

    #[test]
    fn the_life_of_a_password_is_known_if_it_is_a_token_that_says_so() {
        let jwt = |claims: &str| format!("{}.{}.x", encoded(b"{}"), encoded(claims.as_bytes()));
        for (password, begins, ends) in [
            (jwt(r#"{"exp":7,"iat":3}"#), Some(Wall(3000)), Some(Wall(7000))),
            (jwt(r#"{"exp":7,"iat":3,"nbf":4}"#), Some(Wall(4000)), Some(Wall(7000))),
            (jwt("{}"), None, None),
            (jwt("[]"), None, None),
            (
                "SharedAccessSignature sr=h%2Fdevices%2Fb1&sig=x%3D&se=1700000000".to_owned(),
                None,
                Some(Wall(1_700_000_000_000)),
            ),
            ("a.b.c.d".to_owned(), None, None),
            ("a.!.c".to_owned(), None, None),
            ("hunter2".to_owned(), None, None),
        ] {
            assert_eq!(life_of(&password), (begins, ends), "{password}");
        }
    }

    #[test]
    fn base64_of_any_length_comes_back() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (&[0xFB, 0xFF][..], "-_8")]
        {
            assert_eq!((encoded(bytes).as_str(), decoded(text).as_deref()), (text, Some(bytes)));
        }
    }
}
