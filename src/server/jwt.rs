//! JSON Web Tokens: signing and checking, by primitives of ring so that the unmaintained `rsa` crate stays out.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Header, Validation};
use ring::{hmac, signature as asymmetric};
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
use crate::secret::Secret;
use crate::server::auth::{Capability, Role};
use crate::server::keys::{Material, PublicKey, Trusted};

/// Shortest HMAC secret: the output size of SHA-256 (RFC 7518, 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// Longest life of a token.
pub const MAX_TOKEN_SECONDS: i64 = 24 * 3600;

/// How far the clocks of issuer and bridge may differ.
pub const LEEWAY_SECONDS: i64 = 5;

/// What a token's key can be: HS256 for our own, and three that only check. The key decides the algorithm, never the
/// token.
static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

struct Hs256(hmac::Key);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider asks for this signature")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if *algorithm != Algorithm::HS256 || key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))))
}

/// A key that checks and cannot sign.
struct Public {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for Public {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let whole = |rule: &'static dyn asymmetric::VerificationAlgorithm| {
            let bytes = self.key.try_get_as_bytes().map_err(|_| ring::error::Unspecified)?;
            asymmetric::UnparsedPublicKey::new(rule, bytes).verify(message, signature)
        };
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::EdDSA, _) => whole(&asymmetric::ED25519),
            (Algorithm::ES256, _) => whole(&asymmetric::ECDSA_P256_SHA256_FIXED),
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                asymmetric::RsaPublicKeyComponents { n, e }.verify(
                    &asymmetric::RSA_PKCS1_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Public {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider asks for this signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    match (*algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => {
            Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?))))
        }
        (Algorithm::EdDSA, AlgorithmFamily::Ed)
        | (Algorithm::ES256, AlgorithmFamily::Ec)
        | (Algorithm::RS256, AlgorithmFamily::Rsa) => Ok(Box::new(Public { algorithm: *algorithm, key: key.clone() })),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// The algorithm of a key: there is one for each kind.
const fn algorithm_of(material: &Material) -> Algorithm {
    match material {
        Material::Ed25519(_) => Algorithm::EdDSA,
        Material::P256(_) => Algorithm::ES256,
        Material::Rsa { .. } => Algorithm::RS256,
    }
}

fn decoding_key(material: &Material) -> DecodingKey {
    match material {
        Material::Ed25519(bytes) => DecodingKey::from_ed_der(bytes),
        Material::P256(bytes) => DecodingKey::from_ec_der(bytes),
        Material::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
    }
}

/// The key of the members `x` of a JSON Web Key (RFC 8037, 2), if they can be read.
pub(super) fn ed25519_of(x: &str) -> Option<Material> {
    let key = DecodingKey::from_ed_components(x).ok()?;
    Material::ed25519(key.try_get_as_bytes().ok()?)
}

/// The key of the members `x` and `y` (RFC 7518, 6.2.1).
pub(super) fn p256_of(x: &str, y: &str) -> Option<Material> {
    let key = DecodingKey::from_ec_components(x, y).ok()?;
    Material::p256(key.try_get_as_bytes().ok()?)
}

/// The key of the members `n` and `e` (RFC 7518, 6.3.1): as they are, also if they are too small.
pub(super) fn rsa_of(n: &str, e: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    match DecodingKey::from_rsa_components(n, e).ok()?.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Some((n.clone(), e.clone())),
        DecodingKeyKind::SecretOrDer(_) => None,
    }
}

/// What a token says. Times are seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// What the user is.
    pub role: Role,
    /// What narrows the role; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<Vec<Capability>>,
    /// The token's own name, for revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Not to be used before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Not to be used after.
    pub exp: i64,
}

#[derive(Serialize)]
struct Issued<'a> {
    iss: &'a str,
    aud: &'a str,
    #[serde(flatten)]
    claims: &'a Claims,
}

/// Why a token is refused. The reason goes to the log and to `auth_error`; the token goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// Not a token, a wrong signature, another algorithm, issuer or audience, or a claim is missing.
    #[error("the token is not valid here: {0}")]
    Invalid(String),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It lives longer than [`MAX_TOKEN_SECONDS`].
    #[error("the token lives longer than 24 hours")]
    TooLong,
    /// It, or everything of its user, was revoked.
    #[error("the token was revoked")]
    Revoked,
}

/// Why a secret cannot sign tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeakSecret {
    /// Too short to be safe.
    #[error(
        "the token secret has {found} bytes, needs at least {MIN_SECRET_BYTES}: delete the file to have a new one made"
    )]
    Short {
        /// Its length in bytes.
        found: usize,
    },
    /// Everybody may know a public key, and whoever knows the secret makes tokens.
    #[error(
        "the token secret is a key or certificate and no secret: whoever has it could make tokens. Name a public key \
         as `public_key_file` of an [[auth.trust]], and delete the file to have a secret made"
    )]
    IsAKey,
}

/// Signs and checks tokens with a secret of the bridge's own, and checks those of issuers that it trusts.
#[derive(Clone)]
pub struct TokenKey {
    own: Option<(EncodingKey, DecodingKey)>,
    issuer: String,
    audience: String,
    trusted: Vec<Trusted>,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("trusted", &self.trusted)
            .finish_non_exhaustive()
    }
}

/// A token that was checked.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// Another clock than ours has set its times.
    pub is_foreign: bool,
}

/// What an unchecked token says of the key that it wants to be checked with: only ever compared.
struct Wish {
    algorithm: Algorithm,
    kid: Option<String>,
    issuer: String,
}

#[derive(Deserialize)]
struct Issuer {
    iss: Option<String>,
}

impl Wish {
    fn of(token: &str) -> Result<Self, TokenRefused> {
        let unreadable = |error: Error| TokenRefused::Invalid(reason(&error));
        let header = jsonwebtoken::decode_header(token).map_err(unreadable)?;
        // RFC 7515, 4.1.11: who does not understand what is critical refuses it; we understand no extension.
        if header.crit.is_some() {
            return Err(TokenRefused::Invalid("it asks for an extension".to_owned()));
        }
        let Issuer { iss } = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(unreadable)?;
        let issuer = iss.ok_or_else(|| TokenRefused::Invalid("the claim `iss` is missing".to_owned()))?;
        Ok(Self { algorithm: header.alg, kid: header.kid, issuer })
    }

    /// True for a key of this name. A token that names none is tried with each key of its algorithm.
    fn names(&self, key: &PublicKey) -> bool {
        self.kid.is_none() || self.kid == key.kid
    }
}

impl TokenKey {
    /// Tokens of the bridge's own alone.
    ///
    /// # Errors
    /// The secret is too short to be safe, or no secret.
    pub fn new(secret: &Secret, issuer: &str, audience: &str) -> Result<Self, WeakSecret> {
        let text = secret.expose();
        if ["-----BEGIN", "ssh-", "ecdsa-sha2-", "{"].iter().any(|start| text.trim_start().starts_with(start)) {
            return Err(WeakSecret::IsAKey);
        }
        let bytes = text.as_bytes();
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(WeakSecret::Short { found: bytes.len() });
        }
        let own = Some((EncodingKey::from_secret(bytes), DecodingKey::from_secret(bytes)));
        Ok(Self { own, ..Self::without_own(issuer, audience) })
    }

    /// No tokens of the bridge's own: it can issue none, and takes those of [`TokenKey::trusting`] only.
    pub fn without_own(issuer: &str, audience: &str) -> Self {
        // A second installation finds the first one's identical provider in place.
        let _ = PROVIDER.install_default();
        Self { own: None, issuer: issuer.to_owned(), audience: audience.to_owned(), trusted: Vec::new() }
    }

    /// Takes tokens of these too.
    #[must_use]
    pub fn trusting(self, trusted: Vec<Trusted>) -> Self {
        Self { trusted, ..self }
    }

    /// Whose tokens are taken beside our own.
    pub fn trusted(&self) -> &[Trusted] {
        &self.trusted
    }

    /// Makes a token.
    ///
    /// # Errors
    /// The claims cannot be serialised or signed, or this bridge issues none.
    pub fn issue(&self, claims: &Claims) -> Result<Secret, Error> {
        let Some((encoding, _)) = &self.own else { return Err(ErrorKind::InvalidKeyFormat.into()) };
        let issued = Issued { iss: &self.issuer, aud: &self.audience, claims };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &issued, encoding).map(Secret::new)
    }

    /// True if this bridge issues tokens.
    pub const fn issues(&self) -> bool {
        self.own.is_some()
    }

    /// Checks a token: signature, algorithm, issuer, audience, required claims, times. Not whether it was revoked: that
    /// is [`crate::server::socket::Gate::check`].
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn verify(&self, token: &str, now: Wall) -> Result<Claims, TokenRefused> {
        self.verify_whose(token, now).map(|verified| verified.claims)
    }

    /// [`TokenKey::verify`], with whose clock the token goes by.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn verify_whose(&self, token: &str, now: Wall) -> Result<Verified, TokenRefused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefused::Invalid(format!("it has {} bytes, at most {MAX_TOKEN_BYTES}", token.len())));
        }
        let wish = Wish::of(token)?;
        let (mut is_known, mut has_key, mut refused) = (false, false, None);
        if let Some((_, key)) = self.own.as_ref().filter(|_| wish.issuer == self.issuer) {
            is_known = true;
            // Our own tokens name no key.
            if wish.kid.is_none() {
                has_key = true;
                if wish.algorithm == Algorithm::HS256 {
                    match check_with(token, Algorithm::HS256, key, (&self.issuer, &self.audience), now) {
                        Ok(claims) => return Ok(Verified { claims, is_foreign: false }),
                        Err(error) => refused = Some(error),
                    }
                }
            }
        }
        for trusted in self.trusted.iter().filter(|trusted| trusted.issuer == wish.issuer) {
            is_known = true;
            for key in trusted.keys.current().iter().filter(|key| wish.names(key)) {
                has_key = true;
                if wish.algorithm != algorithm_of(&key.material) {
                    continue;
                }
                let decoding = decoding_key(&key.material);
                match check_with(token, wish.algorithm, &decoding, (&wish.issuer, &trusted.audience), now) {
                    // A revocation is forgotten after the longest life, which nothing bounds from an unknown moment on.
                    Ok(Claims { iat: None, .. }) => {
                        refused = Some(TokenRefused::Invalid("the claim `iat` is missing".to_owned()));
                    }
                    Ok(claims) => return Ok(Verified { claims, is_foreign: true }),
                    Err(error) => refused = Some(error),
                }
            }
        }
        Err(refused.unwrap_or_else(|| {
            TokenRefused::Invalid(match (is_known, has_key) {
                (false, _) => "another issuer".to_owned(),
                (true, false) => "its issuer has no key of this name".to_owned(),
                (true, true) => "another algorithm".to_owned(),
            })
        }))
    }

    /// The issuers whose keys come by network and are not known yet by the name that this unchecked token gives.
    pub(super) fn unknown_to<'a>(&'a self, token: &str) -> Vec<&'a Trusted> {
        if token.len() > MAX_TOKEN_BYTES {
            return Vec::new();
        }
        let Ok(wish) = Wish::of(token) else { return Vec::new() };
        let of_issuer = self.trusted.iter().filter(|trusted| trusted.issuer == wish.issuer);
        let unknown = |trusted: &&Trusted| !trusted.keys.current().iter().any(|key| wish.names(key));
        of_issuer.filter(unknown).collect()
    }
}

/// Checks a token with a key, which has one algorithm.
fn check_with(
    token: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
    (issuer, audience): (&str, &str),
    now: Wall,
) -> Result<Claims, TokenRefused> {
    // jsonwebtoken reads the system clock and by default takes 60 s past exp and any nbf: times are checked below.
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
        .map_err(|error| TokenRefused::Invalid(reason(&error)))?
        .claims;
    check_times(&claims, now.as_secs())?;
    Ok(claims)
}

fn check_times(claims: &Claims, now: i64) -> Result<(), TokenRefused> {
    if claims.exp < now.saturating_sub(LEEWAY_SECONDS) {
        return Err(TokenRefused::Expired);
    }
    let soon = now.saturating_add(LEEWAY_SECONDS);
    if claims.nbf.is_some_and(|nbf| nbf > soon) || claims.iat.is_some_and(|iat| iat > soon) {
        return Err(TokenRefused::NotYet);
    }
    let life = claims.exp.saturating_sub(claims.iat.unwrap_or(now));
    if life > MAX_TOKEN_SECONDS + LEEWAY_SECONDS {
        return Err(TokenRefused::TooLong);
    }
    Ok(())
}

/// The error without anything of the token in it.
fn reason(error: &Error) -> String {
    match error.kind() {
        ErrorKind::InvalidSignature => "wrong signature".to_owned(),
        ErrorKind::InvalidIssuer => "another issuer".to_owned(),
        ErrorKind::InvalidAudience => "another audience".to_owned(),
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "another algorithm".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the claim `{claim}` is missing"),
        ErrorKind::Json(error) => {
            let text = error.to_string();
            let missing =
                ["sub", "exp", "role"].iter().find(|claim| text.starts_with(&format!("missing field `{claim}`")));
            missing.map_or_else(|| "it cannot be read".to_owned(), |claim| format!("the claim `{claim}` is missing"))
        }
        _ => "it cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000);

    fn key(secret: &str, issuer: &str, audience: &str) -> TokenKey {
        TokenKey::new(&Secret::new(secret), issuer, audience).unwrap()
    }

    fn ours() -> TokenKey {
        key(&"k".repeat(32), "vitalbridge", "vitalbridge")
    }

    fn claims() -> Claims {
        let now = NOW.as_secs();
        let caps = None;
        Claims { sub: "7".into(), role: Role::Nurse, caps, jti: None, iat: Some(now), nbf: None, exp: now + 3600 }
    }

    #[test]
    fn a_token_of_ours_is_taken() {
        let token = ours().issue(&claims()).unwrap();
        let read = ours().verify(token.expose(), NOW).unwrap();
        assert_eq!((read.sub.as_str(), read.role), ("7", Role::Nurse));
    }

    #[test]
    fn times_are_checked_against_our_own_clock() {
        let now = NOW.as_secs();
        let with = |change: fn(&mut Claims, i64)| -> Result<(), TokenRefused> {
            let mut claims = claims();
            change(&mut claims, now);
            ours().verify(ours().issue(&claims).unwrap().expose(), NOW).map(|_| ())
        };
        assert_eq!(with(|c, now| c.exp = now - 4), Ok(()));
        assert_eq!(with(|c, now| c.exp = now - 6), Err(TokenRefused::Expired));
        assert_eq!(with(|c, now| c.nbf = Some(now + 6)), Err(TokenRefused::NotYet));
        assert_eq!(with(|c, now| c.iat = Some(now + 60)), Err(TokenRefused::NotYet));
        assert_eq!(with(|c, now| c.exp = now + 25 * 3600), Err(TokenRefused::TooLong));
        assert_eq!(with(|c, _| c.exp = i64::MAX), Err(TokenRefused::TooLong));
        assert_eq!(with(|c, _| c.exp = 1), Err(TokenRefused::Expired));
        assert!(with(|c, _| c.exp = i64::MIN).is_err());
    }

    #[test]
    fn foreign_and_forged_tokens_are_refused() {
        let foreign =
            |key: TokenKey| ours().verify(key.issue(&claims()).unwrap().expose(), NOW).unwrap_err().to_string();
        assert!(foreign(key(&"x".repeat(32), "vitalbridge", "vitalbridge")).contains("wrong signature"));
        assert!(foreign(key(&"k".repeat(32), "else", "vitalbridge")).contains("another issuer"));
        assert!(foreign(key(&"k".repeat(32), "vitalbridge", "else")).contains("another audience"));

        let token = ours().issue(&claims()).unwrap();
        let (_, rest) = token.expose().split_once('.').unwrap();
        let (payload, _) = rest.split_once('.').unwrap();
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512"}"#, r#"{"alg":"RS256"}"#] {
            let header = base64_url(header.as_bytes());
            for forged in [format!("{header}.{payload}."), format!("{header}.{rest}")] {
                assert!(ours().verify(&forged, NOW).is_err(), "{forged}");
            }
        }
        for rubbish in ["", ".", "..", "a.b.c", &"x".repeat(5000)] {
            assert!(ours().verify(rubbish, NOW).is_err());
        }
    }

    #[test]
    fn a_short_secret_is_refused_and_a_key_does_not_show_it() {
        assert_eq!(TokenKey::new(&Secret::new("short"), "i", "a").unwrap_err(), WeakSecret::Short { found: 5 });
        assert!(!format!("{:?}", ours()).contains("kkkk"));
    }

    fn base64_url(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0)));
            for place in 0..=chunk.len() {
                let six = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap();
                text.push(char::from(DIGITS[six]));
            }
        }
        text
    }
}
