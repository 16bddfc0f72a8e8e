//! JSON Web Tokens: signing and checking, with HMAC from ring so that the unmaintained `rsa` crate stays out.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::clock::Wall;
use crate::secret::Secret;
use crate::server::auth::{Capability, Role};

/// Shortest HMAC secret: the output size of SHA-256 (RFC 7518, 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// Longest life of a token.
pub const MAX_TOKEN_SECONDS: i64 = 24 * 3600;

/// How far the clocks of issuer and bridge may differ.
const LEEWAY_SECONDS: i64 = 5;

/// HS256 only: the key decides the algorithm, never the token.
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider asks for this signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if *algorithm != Algorithm::HS256 || key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?))))
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
}

/// Why a secret cannot sign tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token secret has {found} bytes, needs at least {MIN_SECRET_BYTES}: delete the file to have a new one made"
)]
pub struct WeakSecret {
    /// Its length in bytes.
    pub found: usize,
}

/// Signs and checks tokens with one secret, for one issuer and audience.
#[derive(Clone)]
pub struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    issuer: String,
    audience: String,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl TokenKey {
    /// # Errors
    /// The secret is too short to be safe.
    pub fn new(secret: &Secret, issuer: &str, audience: &str) -> Result<Self, WeakSecret> {
        // A second installation finds the first one's identical provider in place.
        let _ = PROVIDER.install_default();
        let bytes = secret.expose().as_bytes();
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(WeakSecret { found: bytes.len() });
        }
        Ok(Self {
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        })
    }

    /// Makes a token.
    ///
    /// # Errors
    /// The claims cannot be serialised or signed.
    pub fn issue(&self, claims: &Claims) -> Result<Secret, Error> {
        let issued = Issued { iss: &self.issuer, aud: &self.audience, claims };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &issued, &self.encoding).map(Secret::new)
    }

    /// Checks a token: signature, algorithm, issuer, audience, required claims, times.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn verify(&self, token: &str, now: Wall) -> Result<Claims, TokenRefused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefused::Invalid(format!("it has {} bytes, at most {MAX_TOKEN_BYTES}", token.len())));
        }
        // jsonwebtoken reads the system clock and by default takes 60 s past exp and any nbf: times are checked below.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| TokenRefused::Invalid(reason(&error)))?
            .claims;
        check_times(&claims, now.as_secs())?;
        Ok(claims)
    }
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
        assert_eq!(TokenKey::new(&Secret::new("short"), "i", "a").unwrap_err(), WeakSecret { found: 5 });
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
