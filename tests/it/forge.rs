//! Tokens as other issuers and attackers make them: any header, any claims, any key.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{hmac, rand};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value as Json, json};

/// What signs a token.
pub(crate) enum Signer {
    /// `HS256` with these bytes.
    Hmac(Vec<u8>),
    /// `EdDSA`.
    Ed25519(Ed25519KeyPair),
    /// `ES256`.
    P256(EcdsaKeyPair),
    /// `RS256`.
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub(crate) fn p256() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap())
    }

    /// The one of tests/vectors/keys: ring makes no RSA keys. It signs nothing outside these tests.
    pub(crate) fn rsa() -> Self {
        let pem = include_bytes!("../vectors/keys/rsa2048-private.pem");
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
        Self::Rsa(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap())
    }

    /// The algorithm that this key is for.
    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Hmac(_) => "HS256",
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Hmac(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Self::P256(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random: &dyn rand::SecureRandom = &SystemRandom::new();
                key.sign(&RSA_PKCS1_SHA256, random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// The public half as a PEM text.
    pub(crate) fn pem(&self) -> String {
        // SubjectPublicKeyInfo up to the key's bytes (RFC 8410, 4; RFC 5480, 2).
        let mut info: Vec<u8> = match self {
            Self::Ed25519(_) => vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00],
            Self::P256(_) => vec![
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
                0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
            ],
            Self::Rsa(_) => return include_str!("../vectors/keys/rsa2048.pem").to_owned(),
            Self::Hmac(_) => panic!("a secret has no public half"),
        };
        info.extend_from_slice(self.public());
        let text = base64(&info, b'+', b'/');
        let padding = "=".repeat((4 - text.len() % 4) % 4);
        format!("-----BEGIN PUBLIC KEY-----\n{text}{padding}\n-----END PUBLIC KEY-----\n")
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.public_key().as_ref(),
            Self::P256(key) => key.public_key().as_ref(),
            Self::Rsa(key) => key.public().as_ref(),
            Self::Hmac(_) => &[],
        }
    }

    /// The public half (of a secret: the secret) as a JSON Web Key.
    pub(crate) fn jwk(&self, kid: &str) -> Json {
        match self {
            Self::Hmac(secret) => json!({"kty": "oct", "kid": kid, "k": base64_url(secret)}),
            Self::Ed25519(_) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "use": "sig", "x": base64_url(self.public())})
            }
            Self::P256(_) => {
                let (x, y) = self.public()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": base64_url(x), "y": base64_url(y)})
            }
            Self::Rsa(key) => {
                let parts: ring::signature::RsaPublicKeyComponents<Vec<u8>> = key.public().into();
                json!({"kty": "RSA", "alg": "RS256", "kid": kid, "n": base64_url(&parts.n), "e": base64_url(&parts.e)})
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn token(&self, header: &Json, claims: &Json) -> String {
        let message =
            format!("{}.{}", base64_url(header.to_string().as_bytes()), base64_url(claims.to_string().as_bytes()));
        let signature = base64_url(&self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token with the header that belongs to this key.
    pub(crate) fn honest(&self, kid: Option<&str>, claims: &Json) -> String {
        let mut header = json!({"typ": "JWT", "alg": self.algorithm()});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        self.token(&header, claims)
    }
}

/// A key set of these keys.
pub(crate) fn key_set(keys: &[Json]) -> String {
    json!({"keys": keys}).to_string()
}

pub(crate) fn base64_url(bytes: &[u8]) -> String {
    base64(bytes, b'-', b'_')
}

/// Base64 without padding (RFC 4648, 4 and 5).
fn base64(bytes: &[u8], place_62: u8, place_63: u8) -> String {
    let mut digits: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    digits.extend([place_62, place_63]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
        for place in 0..=chunk.len() {
            text.push(char::from(digits[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()]));
        }
    }
    text
}
