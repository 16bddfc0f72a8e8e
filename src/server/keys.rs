//! Public keys that check tokens of other issuers: from PEM files and from JSON Web Key Sets. Pure.
//!
//! A kind of key has one algorithm: Ed25519 checks `EdDSA`, P-256 `ES256`, RSA `RS256`. What could sign has no place here:
//! a symmetric or private key refuses the whole file.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::server::jwks::LiveKeys;
use crate::server::jwt;

/// Most keys of one issuer.
pub const MAX_KEYS: usize = 64;

/// Shortest and longest modulus of an RSA key, in bits: what ring checks with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Length of an Ed25519 key in bytes (RFC 8032, 5.1.5).
const ED25519_BYTES: usize = 32;

/// Length of an uncompressed point of P-256 in bytes (SEC 1, 2.3.3).
const P256_BYTES: usize = 65;

/// The numbers of a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// Checks `EdDSA`.
    Ed25519(Vec<u8>),
    /// Checks `ES256`: an uncompressed point.
    P256(Vec<u8>),
    /// Checks `RS256`: modulus and exponent without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm())
    }
}

impl Material {
    pub(super) fn ed25519(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == ED25519_BYTES).then(|| Self::Ed25519(bytes.to_vec()))
    }

    pub(super) fn p256(bytes: &[u8]) -> Option<Self> {
        // 4: uncompressed (SEC 1, 2.3.3).
        (bytes.len() == P256_BYTES && bytes.first() == Some(&4)).then(|| Self::P256(bytes.to_vec()))
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, BadKey> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let unused = n.first().map_or(0, |first| usize::try_from(first.leading_zeros()).unwrap_or(0));
        let bits = (n.len() * 8).saturating_sub(unused);
        if !RSA_BITS.contains(&bits) {
            return Err(BadKey::RsaBits(bits));
        }
        if e.is_empty() {
            return Err(BadKey::Unreadable);
        }
        Ok(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    /// The only algorithm that this key checks.
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::P256(_) => "ES256",
            Self::Rsa { .. } => "RS256",
        }
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or(&[])
}

/// A key that checks and cannot sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name in the header of tokens; only ever compared. A key without one takes only tokens that name none.
    pub kid: Option<String>,
    /// Its numbers, and with them its algorithm.
    pub material: Material,
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// No key at all.
    #[error("it is no public key: it begins with `-----BEGIN PUBLIC KEY-----`")]
    Unreadable,
    /// What signs must not lie here.
    #[error("it is a private key: whoever has it makes tokens. Name its public half (openssl pkey -pubout)")]
    Private,
    /// A certificate.
    #[error("it is a certificate: name its public key (openssl x509 -pubkey -noout)")]
    Certificate,
    /// Another kind.
    #[error("it is neither an Ed25519, a P-256 nor an RSA key")]
    Kind,
    /// An RSA key of another size.
    #[error("its RSA key has {0} bits, and needs 2048 to 8192")]
    RsaBits(usize),
    /// No JSON Web Key Set.
    #[error("it is no JSON Web Key Set: {0}")]
    NoSet(String),
    /// A key that signs and checks.
    #[error("it has a symmetric key (`oct`): whoever can read it could make tokens, so none of its keys are taken")]
    Symmetric,
    /// Two keys of one name.
    #[error("it has two keys of one name")]
    Twice,
    /// More than [`MAX_KEYS`].
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// None that could be used.
    #[error("it has no key that checks EdDSA, ES256 or RS256")]
    None,
}

impl PublicKey {
    /// Reads a PEM text with one `PUBLIC KEY` (RFC 7468, 13).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(text: &str, kid: Option<String>) -> Result<Self, BadKey> {
        for (label, bad) in [("PRIVATE KEY-----", BadKey::Private), ("CERTIFICATE-----", BadKey::Certificate)] {
            if text.contains(label) {
                return Err(bad);
            }
        }
        let info = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|_| BadKey::Unreadable)?;
        Ok(Self { kid, material: from_info(&info)? })
    }
}

/// The key of a `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
fn from_info(info: &[u8]) -> Result<Material, BadKey> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const INTEGER: u8 = 0x02;
    // The whole AlgorithmIdentifier of id-Ed25519 (RFC 8410, 3), id-ecPublicKey with secp256r1 (RFC 5480, 2.1.1) and
    // rsaEncryption (RFC 3279, 2.3.1).
    const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    const P256: &[u8] = &[
        0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
        0x07,
    ];
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let all = only(info, SEQUENCE).ok_or(BadKey::Unreadable)?;
    let (algorithm, rest) = item(all, SEQUENCE).ok_or(BadKey::Unreadable)?;
    // The first byte of a bit string says how many bits of its last one are unused.
    let key = only(rest, BIT_STRING).and_then(|bits| bits.strip_prefix(&[0])).ok_or(BadKey::Unreadable)?;
    match algorithm {
        ED25519 => Material::ed25519(key).ok_or(BadKey::Unreadable),
        P256 => Material::p256(key).ok_or(BadKey::Unreadable),
        RSA => {
            let numbers = only(key, SEQUENCE).ok_or(BadKey::Unreadable)?;
            let (n, rest) = item(numbers, INTEGER).ok_or(BadKey::Unreadable)?;
            let e = only(rest, INTEGER).ok_or(BadKey::Unreadable)?;
            Material::rsa(n, e)
        }
        _ => Err(BadKey::Kind),
    }
}

/// The content of a DER item with this tag (X.690, 8.1), and what follows it.
fn item(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        // No key needs more than two bytes of length.
        long @ 0x81..=0x82 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

/// [`item`], with nothing behind it.
fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    item(bytes, tag).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// What is read of a JSON Web Key (RFC 7517, 4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    /// What signs: only looked for.
    d: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    /// The key, `None` for one that is for something else than `EdDSA`, `ES256` and `RS256`.
    fn read(self) -> Result<Option<PublicKey>, BadKey> {
        if self.kty == "oct" {
            return Err(BadKey::Symmetric);
        }
        if self.d.is_some() {
            return Err(BadKey::Private);
        }
        let checks = self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|one| one == "verify"));
        if self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") || !checks {
            return Ok(None);
        }
        let text = |member: Option<String>| member.ok_or(BadKey::Unreadable);
        let material = match (self.kty.as_str(), self.crv.as_deref(), self.alg.as_deref()) {
            ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => jwt::ed25519_of(&text(self.x)?),
            ("EC", Some("P-256"), None | Some("ES256")) => jwt::p256_of(&text(self.x)?, &text(self.y)?),
            ("RSA", _, None | Some("RS256")) => {
                let (n, e) = jwt::rsa_of(&text(self.n)?, &text(self.e)?).ok_or(BadKey::Unreadable)?;
                Some(Material::rsa(&n, &e)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(PublicKey { kid: self.kid, material: material.ok_or(BadKey::Unreadable)? }))
    }
}

/// Reads a JSON Web Key Set (RFC 7517, 5). Keys for something else are left out.
///
/// # Errors
/// It is none, has a key that signs, a weak or unreadable one, two of one name, or none that could be used.
pub fn read_set(text: &str) -> Result<Vec<PublicKey>, BadKey> {
    let Set { keys } = serde_json::from_str(text).map_err(|error| BadKey::NoSet(error.to_string()))?;
    if keys.len() > MAX_KEYS {
        return Err(BadKey::TooMany);
    }
    let mut read: Vec<PublicKey> = Vec::new();
    for key in keys {
        let Some(key) = key.read()? else { continue };
        if read.iter().any(|known| known.kid == key.kid) {
            return Err(BadKey::Twice);
        }
        read.push(key);
    }
    if read.is_empty() { Err(BadKey::None) } else { Ok(read) }
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone)]
pub enum Keys {
    /// In the configuration's files.
    Fixed(Arc<[PublicKey]>),
    /// Behind an address that is asked again and again.
    Live(Arc<LiveKeys>),
}

impl Keys {
    /// The keys as they are now.
    pub fn current(&self) -> Arc<[PublicKey]> {
        match self {
            Self::Fixed(keys) => Arc::clone(keys),
            Self::Live(live) => live.current(),
        }
    }
}

/// Somebody whose tokens are taken beside our own.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// What checks them.
    pub keys: Keys,
}
