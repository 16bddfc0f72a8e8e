//! TLS: certificates of the installer, or a self-signed one that is made at the first start; and those of clients.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use tracing::{info, warn};

use crate::clock::Wall;
use crate::host;
use crate::server::codes::write_private;

/// The self-signed certificate and its key in the state directory.
pub const CERTIFICATE_FILE: &str = "tls-certificate.pem";
const KEY_FILE: &str = "tls-key.pem";

/// A self-signed certificate holds for about ten years.
const LIFE: Duration = Duration::from_hours(3653 * 24);

/// It is renewed at the first start (or reload) so long before its end.
const RENEW_BEFORE: Duration = Duration::from_hours(90 * 24);

/// A certificate of the installer is said to end so long before it does.
const WARN_BEFORE: Duration = Duration::from_hours(30 * 24);

/// 2026-01-01. A machine without a clock of its own begins earlier, and its certificate must not have ended once it knows
/// the time.
const NOT_EARLIER: Wall = Wall(1_767_225_600_000);

/// Largest certificate or key file that is read, in bytes.
const MAX_PEM_BYTES: usize = 1024 * 1024;

/// What the configuration says about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Who we are.
    pub identity: Identity,
    /// Who may connect; `None`: everybody, and the token says who it is.
    pub clients: Option<Clients>,
}

/// The server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// From files, PEM.
    Files {
        /// The certificate, and those between it and its authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made at the first start, for this machine's names and addresses and these names.
    SelfSigned {
        /// Names under which the server may be addressed.
        names: Vec<String>,
    },
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// The authorities that sign them, PEM.
    pub authorities: PathBuf,
    /// Without one nobody gets further than the handshake.
    pub required: bool,
}

/// The member of the configuration that a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The authorities of clients.
    Authorities,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    /// Of which member.
    pub part: Part,
    message: String,
}

impl TlsError {
    fn new(part: Part, message: impl Into<String>) -> Self {
        Self { part, message: message.into() }
    }
}

/// The SHA-256 of a certificate, as browsers show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = digest::digest(&digest::SHA256, certificate);
        let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self(bytes.join(":"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A certificate with its key.
struct Identified {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What is in force.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// For connections.
    pub server: Arc<rustls::ServerConfig>,
    /// For people, who compare it.
    pub fingerprint: Fingerprint,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unix(at: Wall) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)))
}

fn later(at: Wall, span: Duration) -> Wall {
    Wall(at.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

/// Loads what the configuration names, and makes a self-signed certificate where there is none, or one that ends soon or
/// lacks a name.
///
/// # Errors
/// The first file that cannot be used; or the state directory cannot be written.
pub fn load(config: &TlsConfig, state_dir: &Path, now: Wall) -> Result<Loaded, TlsError> {
    let identified = match &config.identity {
        Identity::Files { certificate, key } => from_files(certificate, key)?,
        Identity::SelfSigned { names } => self_signed(state_dir, names, now)?,
    };
    let leaf = identified.chain.first().ok_or_else(|| TlsError::new(Part::Certificate, "there is no certificate"))?;
    let fingerprint = Fingerprint::of(leaf);
    let server = server_config(identified, config.clients.as_ref())?;
    Ok(Loaded { server: Arc::new(server), fingerprint })
}

/// Everything that is wrong with the files, and what is right and yet worth saying.
pub fn check(config: &TlsConfig, now: Wall) -> (Vec<TlsError>, Vec<TlsError>) {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    if let Identity::Files { certificate, key } = &config.identity {
        match (certificates(certificate, Part::Certificate), private_key(key)) {
            (Ok(chain), Ok(key)) => {
                if let Some(leaf) = chain.first() {
                    if ends_by(leaf, now) {
                        let message = format!("the certificate in {} does not hold now", certificate.display());
                        warnings.push(TlsError::new(Part::Certificate, message));
                    } else if ends_by(leaf, later(now, WARN_BEFORE)) {
                        let message = format!("the certificate in {} ends within 30 days", certificate.display());
                        warnings.push(TlsError::new(Part::Certificate, message));
                    }
                }
                problems.extend(server_config(Identified { chain, key }, None).err());
            }
            (chain, key) => problems.extend(chain.err().into_iter().chain(key.err())),
        }
    }
    if let Some(clients) = &config.clients {
        problems.extend(client_verifier(clients).err());
    }
    (problems, warnings)
}

/// The fingerprint of the certificate in force, as far as it is there.
///
/// # Errors
/// The file is there and cannot be read.
pub fn fingerprint(config: &TlsConfig, state_dir: &Path) -> Result<Option<Fingerprint>, TlsError> {
    let path = match &config.identity {
        Identity::Files { certificate, .. } => certificate.clone(),
        Identity::SelfSigned { .. } => {
            let path = state_dir.join(CERTIFICATE_FILE);
            if !path.exists() {
                return Ok(None);
            }
            path
        }
    };
    Ok(certificates(&path, Part::Certificate)?.first().map(Fingerprint::of))
}

fn read(path: &Path, part: Part) -> Result<Vec<u8>, TlsError> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|error| TlsError::new(part, format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() > MAX_PEM_BYTES {
        return Err(TlsError::new(part, format!("{} is longer than {MAX_PEM_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

fn certificates(path: &Path, part: Part) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, part)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(chain) if chain.is_empty() => {
            Err(TlsError::new(part, format!("{} has no certificate in PEM", path.display())))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(TlsError::new(part, format!("{} is no PEM: {error}", path.display()))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path, Part::Key)?).map_err(|_| {
        let message = format!("{} has no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)", path.display());
        TlsError::new(Part::Key, message)
    })
}

fn from_files(certificate: &Path, key: &Path) -> Result<Identified, TlsError> {
    Ok(Identified { chain: certificates(certificate, Part::Certificate)?, key: private_key(key)? })
}

fn client_verifier(clients: &Clients) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let wrong = |reason: &dyn fmt::Display| {
        TlsError::new(Part::Authorities, format!("{}: {reason}", clients.authorities.display()))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&clients.authorities, Part::Authorities)? {
        roots.add(authority).map_err(|error| wrong(&error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| wrong(&error))
}

fn server_config(identified: Identified, clients: Option<&Clients>) -> Result<rustls::ServerConfig, TlsError> {
    let wrong = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::new(Part::Key, "the key is not that of the certificate"),
        rustls::Error::InvalidCertificate(reason) => {
            TlsError::new(Part::Certificate, format!("the certificate cannot be used: {reason:?}"))
        }
        other => TlsError::new(Part::Key, format!("the key cannot be used: {other}")),
    };
    let builder =
        rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(wrong)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(client_verifier(clients)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(identified.chain, identified.key).map_err(wrong)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What somebody who trusts this very certificate says to it under a name at a time.
fn judge(certificate: &CertificateDer<'static>, name: &ServerName<'_>, at: Wall) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_server_cert(certificate, &[], name, &[], unix(at)).map(|_| ())
}

/// True if a certificate does not hold (any more) at a time.
pub fn ends_by(certificate: &CertificateDer<'static>, at: Wall) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let Ok(any) = ServerName::try_from("localhost") else { return false };
    matches!(
        judge(certificate, &any, at),
        Err(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        ))
    )
}

/// The self-signed certificate of the state directory.
fn self_signed(state_dir: &Path, names: &[String], now: Wall) -> Result<Identified, TlsError> {
    let (certificate, key) = (state_dir.join(CERTIFICATE_FILE), state_dir.join(KEY_FILE));
    if certificate.exists() || key.exists() {
        match from_files(&certificate, &key) {
            Ok(identified) => match reason_to_renew(&identified, names, now) {
                None => return Ok(identified),
                Some(reason) => warn!(%reason, "a new self-signed certificate is made; its fingerprint is another one"),
            },
            Err(error) => warn!(%error, "the self-signed certificate cannot be read; a new one is made"),
        }
    }
    let failed = |error: &dyn fmt::Display| {
        TlsError::new(Part::Certificate, format!("cannot make a self-signed certificate: {error}"))
    };
    let made = make(names, now).map_err(|error| failed(&error))?;
    // The key first: a certificate without its key would be taken for one that is broken.
    write_private(&key, &made.1).map_err(|error| failed(&format!("{}: {error}", key.display())))?;
    write_private(&certificate, &made.0).map_err(|error| failed(&format!("{}: {error}", certificate.display())))?;
    info!(path = %certificate.display(), "made a self-signed certificate");
    from_files(&certificate, &key)
}

/// Addresses of the machine come and go and are no reason: a new fingerprint would have to be trusted by everybody again.
fn reason_to_renew(identified: &Identified, names: &[String], now: Wall) -> Option<String> {
    let certificate = identified.chain.first()?;
    if ends_by(certificate, now) || ends_by(certificate, later(now, RENEW_BEFORE)) {
        return Some("the certificate ends soon, or holds only later".to_owned());
    }
    let lasting = names.iter().cloned().chain(host::name());
    let mut lacking = lasting.filter(|name| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| judge(certificate, &name, later(now, RENEW_BEFORE)).is_err())
    });
    lacking.next().map(|name| format!("the certificate does not hold for {name}"))
}

/// A certificate and its key in PEM.
fn make(names: &[String], now: Wall) -> Result<(String, String), rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let own = host::name().into_iter().flat_map(|name| [format!("{name}.local"), name]);
    let addresses =
        host::addresses().into_iter().chain([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    let mut all: Vec<String> = names.iter().cloned().chain(own).chain(["localhost".to_owned()]).collect();
    all.extend(addresses.map(|address| address.to_string()));
    // What is no name of DNS cannot stand in a certificate, and nobody can ask for it.
    all.retain(|name| ServerName::try_from(name.as_str()).is_ok());
    all.sort();
    all.dedup();
    let mut params = rcgen::CertificateParams::new(all)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "vitalbridge");
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // A clock that was not set yet must not make a certificate that begins in the future of others.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = params.not_before + since_2024(later(now.max(NOT_EARLIER), LIFE));
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// The time from 2024-01-01 on.
fn since_2024(at: Wall) -> Duration {
    const BEGIN: i64 = 1_704_067_200_000;
    Duration::from_millis(u64::try_from(at.0.saturating_sub(BEGIN)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_790_000_000_000);

    fn names() -> TlsConfig {
        TlsConfig { identity: Identity::SelfSigned { names: vec!["bridge.ward.example".into()] }, clients: None }
    }

    fn leaf(dir: &Path) -> CertificateDer<'static> {
        certificates(&dir.join(CERTIFICATE_FILE), Part::Certificate).unwrap().remove(0)
    }

    #[test]
    fn the_self_signed_certificate_holds_for_the_names_and_addresses_for_ten_years() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let made = load(&names(), dir.path(), NOW).unwrap();
        let leaf = leaf(dir.path());
        let mut expected = vec!["localhost".to_owned(), "127.0.0.1".into(), "::1".into(), "bridge.ward.example".into()];
        expected.extend(host::name());
        expected.extend(host::addresses().iter().map(ToString::to_string));
        for name in &expected {
            let name = ServerName::try_from(name.as_str()).unwrap();
            judge(&leaf, &name, NOW).unwrap();
            judge(&leaf, &name, later(NOW, Duration::from_hours(3650 * 24))).unwrap();
        }
        judge(&leaf, &ServerName::try_from("other.example").unwrap(), NOW).unwrap_err();
        assert!(ends_by(&leaf, later(NOW, LIFE + Duration::from_mins(1))));
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fingerprint(&names(), dir.path()).unwrap(), Some(made.fingerprint.clone()));
        let text = made.fingerprint.to_string();
        assert_eq!((text.len(), text.split(':').count()), (95, 32), "{text}");
    }

    #[test]
    fn it_is_kept_until_it_ends_soon_or_lacks_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(&names(), dir.path(), NOW).unwrap().fingerprint;
        assert_eq!(load(&names(), dir.path(), NOW).unwrap().fingerprint, first);
        let year = Duration::from_hours(365 * 24);
        assert_eq!(load(&names(), dir.path(), later(NOW, year * 9)).unwrap().fingerprint, first);
        let renewed = load(&names(), dir.path(), later(NOW, year * 10)).unwrap().fingerprint;
        assert_ne!(renewed, first);
        let mut other = names();
        other.identity = Identity::SelfSigned { names: vec!["other.example".into()] };
        assert_ne!(load(&other, dir.path(), later(NOW, year * 10)).unwrap().fingerprint, renewed);
        std::fs::write(dir.path().join(KEY_FILE), "half a key").unwrap();
        assert!(load(&other, dir.path(), NOW).is_ok(), "a broken pair is made anew");
    }

    #[test]
    fn a_clock_that_was_not_set_makes_a_certificate_that_still_holds_once_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let made = load(&names(), dir.path(), Wall(0)).unwrap().fingerprint;
        assert!(!ends_by(&leaf(dir.path()), NOW));
        assert_eq!(load(&names(), dir.path(), NOW).unwrap().fingerprint, made);
    }

    #[test]
    fn every_file_that_cannot_be_used_is_said_with_its_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        load(&names(), dir.path(), NOW).unwrap();
        let other = tempfile::tempdir().unwrap();
        load(&names(), other.path(), NOW).unwrap();
        let (certificate, key) = (path(CERTIFICATE_FILE), path(KEY_FILE));
        let (foreign, absent, empty) = (other.path().join(KEY_FILE), path("absent.pem"), path("empty.pem"));
        std::fs::write(&empty, "nothing").unwrap();
        let found = |certificate: &Path, key: &Path, authorities: Option<&Path>| {
            let clients = authorities.map(|path| Clients { authorities: path.to_owned(), required: true });
            let identity = Identity::Files { certificate: certificate.to_owned(), key: key.to_owned() };
            let (problems, _) = check(&TlsConfig { identity, clients }, NOW);
            problems.into_iter().map(|problem| (problem.part, problem.message)).collect::<Vec<_>>()
        };
        assert_eq!(found(&certificate, &key, Some(&certificate)), []);
        assert_eq!(
            found(&certificate, &foreign, None),
            [(Part::Key, "the key is not that of the certificate".to_owned())]
        );
        let parts = |found: Vec<(Part, String)>| found.into_iter().map(|(part, _)| part).collect::<Vec<_>>();
        assert_eq!(parts(found(&absent, &empty, Some(&empty))), [Part::Certificate, Part::Key, Part::Authorities]);
        assert_eq!(parts(found(&empty, &certificate, Some(&key))), [Part::Certificate, Part::Key, Part::Authorities]);
    }

    #[test]
    fn a_certificate_that_ends_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        load(&names(), dir.path(), NOW).unwrap();
        let identity =
            Identity::Files { certificate: dir.path().join(CERTIFICATE_FILE), key: dir.path().join(KEY_FILE) };
        let config = TlsConfig { identity, clients: None };
        let warnings = |at: Wall| check(&config, at).1.into_iter().map(|one| one.message).collect::<Vec<_>>();
        assert_eq!(warnings(NOW), Vec::<String>::new());
        assert!(warnings(Wall(later(NOW, LIFE).0 - 86_400_000))[0].ends_with("ends within 30 days"));
        assert!(warnings(later(NOW, LIFE + Duration::from_hours(24)))[0].ends_with("does not hold now"));
    }
}
