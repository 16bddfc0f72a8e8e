//! Where the broker is and how it is reached: transport, version, certificates and password, as the configuration says it.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::token::{self, TokenMaker};
use crate::clock::Wall;
use crate::named::named_enum;
use crate::secret::Secret;

/// Largest certificate, key or password file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Longest path of a WebSocket, in bytes.
const MAX_PATH_BYTES: usize = 256;

/// The path that brokers listen on for a WebSocket if nothing else is said.
const DEFAULT_PATH: &str = "/mqtt";

named_enum! {
    /// What carries MQTT.
    Transport {
        /// TCP, in clear.
        Tcp = "mqtt",
        /// TLS over TCP.
        Tls = "mqtts",
        /// A WebSocket, in clear.
        WebSocket = "ws",
        /// A WebSocket in TLS.
        WebSocketTls = "wss",
    }
}

impl Transport {
    /// True if nobody between the bridge and the broker can read along.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::WebSocketTls)
    }

    /// True if MQTT goes in the frames of a WebSocket.
    pub const fn is_web_socket(self) -> bool {
        matches!(self, Self::WebSocket | Self::WebSocketTls)
    }

    /// Registered with IANA for MQTT (1883, 8883); of HTTP for a WebSocket.
    const fn default_port(self) -> u16 {
        match self {
            Self::Tcp => 1883,
            Self::Tls => 8883,
            Self::WebSocket => 80,
            Self::WebSocketTls => 443,
        }
    }
}

/// Where the broker is: `mqtt://`, `mqtts://`, `ws://` or `wss://`, a host, perhaps a port, and a path for the last two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerAddress {
    /// What carries MQTT there.
    pub transport: Transport,
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The path of a WebSocket with its `/`; empty for the others.
    pub path: String,
}

/// Why a text is not the address of a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the address of a broker: write mqtts://host or mqtts://host:port (TLS), wss://host/path (WebSocket with \
     TLS), or in clear mqtt://host or ws://host/path; user and password do not belong here"
)]
pub struct BadBroker(pub String);

impl FromStr for BrokerAddress {
    type Err = BadBroker;

    fn from_str(text: &str) -> Result<Self, BadBroker> {
        // The text may hold a password by mistake, which must not reach a log: only its part after `@` is shown.
        let bad = || BadBroker(text.rsplit('@').next().unwrap_or_default().chars().take(64).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let transport = Transport::from_name(scheme).ok_or_else(bad)?;
        let (authority, path) = match rest.find('/') {
            Some(at) if transport.is_web_socket() => rest.split_at(at),
            Some(_) => return Err(bad()),
            None if transport.is_web_socket() => (rest, DEFAULT_PATH),
            None => (rest, ""),
        };
        let is_in_path = |b: u8| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\' | b'@');
        if path.len() > MAX_PATH_BYTES || !path.bytes().all(is_in_path) {
            return Err(bad());
        }
        let end_of_host = authority.rfind(']').map_or(0, |at| at.saturating_add(1));
        let (host, port) = match authority.get(end_of_host..).and_then(|tail| tail.rfind(':')) {
            Some(at) => {
                let (host, port) = authority.split_at(end_of_host.saturating_add(at));
                (host, port.trim_start_matches(':').parse().map_err(|_| bad())?)
            }
            None => (authority, transport.default_port()),
        };
        let bracketed = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let valid = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            }
        };
        if !valid || port == 0 {
            return Err(bad());
        }
        Ok(Self { transport, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}{}", self.transport, self.host, self.port, self.path)
    }
}

named_enum! {
    /// Which MQTT is spoken.
    Version {
        /// 5, and 3.1.1 with a broker that refuses 5.
        Auto = "auto",
        /// MQTT 5.0.
        V5 = "5",
        /// MQTT 3.1.1.
        V311 = "3.1.1",
    }
}

/// Whom TLS trusts, and who we are. There is no way to trust everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// The authorities that may have signed the broker's certificate, PEM; `None`: those of the system.
    pub authorities: Option<PathBuf>,
    /// Our certificate and its key, PEM, for a broker that asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the broker's certificate, if it is not the host of its address.
    pub server_name: Option<String>,
}

named_enum! {
    /// The member of the configuration that a problem with TLS is about.
    TlsPart {
        /// The authorities.
        Authorities = "ca_file",
        /// Our certificate.
        Certificate = "certificate",
        /// Its key.
        Key = "key",
        /// The broker's name.
        ServerName = "server_name",
    }
}

/// Why TLS cannot be spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsProblem {
    /// What it is about.
    pub part: TlsPart,
    message: String,
}

impl TlsProblem {
    fn new(part: TlsPart, message: impl Into<String>) -> Self {
        Self { part, message: message.into() }
    }
}

impl TlsFiles {
    /// The name that the broker's certificate must have.
    ///
    /// # Errors
    /// It is no name.
    pub fn name(&self, broker: &BrokerAddress) -> Result<ServerName<'static>, TlsProblem> {
        let name = self.server_name.as_deref().unwrap_or(&broker.host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(bare.to_owned()).map_err(|_| {
            let advice = "it is the name or address in the broker's certificate: set mqtt.tls.server_name";
            TlsProblem::new(TlsPart::ServerName, format!("`{name}` cannot stand in a certificate; {advice}"))
        })
    }

    /// Reads the files. They are read for each connection, so that a renewed certificate needs no restart.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsProblem> {
        let roots = match &self.authorities {
            Some(file) => roots_of(file)?,
            None => roots_of_the_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsProblem::new(TlsPart::Key, "the key is not that of the certificate")
            }
            other => TlsProblem::new(TlsPart::Certificate, format!("the certificate cannot be used: {other}")),
        };
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(wrong)?.with_root_certificates(roots);
        let config = match &self.identity {
            Some((certificate, key)) => {
                let chain = certificates(certificate, TlsPart::Certificate)?;
                builder.with_client_auth_cert(chain, private_key(key)?).map_err(wrong)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(file, TlsPart::Authorities)? {
        roots
            .add(authority)
            .map_err(|error| TlsProblem::new(TlsPart::Authorities, format!("{}: {error}", file.display())))?;
    }
    Ok(roots)
}

fn roots_of_the_system() -> Result<RootCertStore, TlsProblem> {
    let mut roots = RootCertStore::empty();
    let _counts = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let advice = "this system has no root certificates: install ca-certificates, or name mqtt.tls.ca_file";
        return Err(TlsProblem::new(TlsPart::Authorities, advice));
    }
    Ok(roots)
}

fn certificates(file: &Path, part: TlsPart) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let bytes = read(file).map_err(|message| TlsProblem::new(part, message))?;
    match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => {
            Err(TlsProblem::new(part, format!("{} has no certificate in PEM", file.display())))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(TlsProblem::new(part, format!("{} is no PEM: {error}", file.display()))),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    let bytes = read(file).map_err(|message| TlsProblem::new(TlsPart::Key, message))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let message = format!("{} has no private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted)", file.display());
        TlsProblem::new(TlsPart::Key, message)
    })
}

/// A file as it is now.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(format!("{} is longer than {MAX_FILE_BYTES} bytes", file.display()));
    }
    Ok(bytes)
}

/// Where the password comes from. It is asked for at each connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// A file, without its last line break: a password, or a token that another program renews.
    File(PathBuf),
    /// Tokens that the bridge signs itself.
    Made(TokenMaker),
}

/// A password for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The password.
    pub secret: Secret,
    /// Since when it holds, as far as it says so.
    pub begins: Option<Wall>,
    /// Until when it holds, as far as it says so.
    pub ends: Option<Wall>,
}

impl Password {
    /// The password at this moment.
    ///
    /// # Errors
    /// In words: a file cannot be read, or a key cannot sign.
    pub fn get(&self, now: Wall) -> Result<Credential, String> {
        match self {
            Self::File(file) => {
                let bytes = read(file).map_err(|error| error.replacen("read ", "read the password file ", 1))?;
                let text =
                    String::from_utf8(bytes).map_err(|_| format!("the password file {} is no text", file.display()))?;
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() {
                    return Err(format!("the password file {} is empty", file.display()));
                }
                let (begins, ends) = token::life_of(text);
                Ok(Credential { secret: Secret::new(text), begins, ends })
            }
            Self::Made(maker) => maker.make(now),
        }
    }
}

/// How the broker is reached beside its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Which MQTT is spoken.
    pub version: Version,
    /// For `mqtts` and `wss`.
    pub tls: TlsFiles,
    /// For the broker.
    pub password: Option<Password>,
    /// Where systemd-timesyncd says whether the clock has been set, if it does.
    pub timesync: Option<PathBuf>,
}

impl Default for Access {
    fn default() -> Self {
        Self { version: Version::Auto, tls: TlsFiles::default(), password: None, timesync: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_address_is_a_transport_a_host_and_perhaps_a_port_and_a_path() {
        use Transport::{Tcp, Tls, WebSocket, WebSocketTls};
        for (text, transport, host, port, path) in [
            ("mqtt://broker.example.org", Tcp, "broker.example.org", 1883, ""),
            ("mqtt://10.0.0.7:2883", Tcp, "10.0.0.7", 2883, ""),
            ("mqtt://[::1]", Tcp, "[::1]", 1883, ""),
            ("mqtts://[fd00::7]:18830", Tls, "[fd00::7]", 18830, ""),
            (
                "mqtts://a1b2-ats.iot.eu-central-1.amazonaws.com",
                Tls,
                "a1b2-ats.iot.eu-central-1.amazonaws.com",
                8883,
                "",
            ),
            ("ws://b", WebSocket, "b", 80, "/mqtt"),
            ("wss://b:8084/", WebSocketTls, "b", 8084, "/"),
            ("wss://b/a/mqtt?x=1", WebSocketTls, "b", 443, "/a/mqtt?x=1"),
        ] {
            let (host, path) = (host.to_owned(), path.to_owned());
            let expected = BrokerAddress { transport, host, port, path };
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "broker",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://a:0",
            "mqtt://a:x",
            "mqtt://a:65536",
            "tcp://a",
            "https://a",
            "mqtt://a/b",
            "mqtts://a/",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[x]",
            "mqtt://a b",
            "ws://a/b c",
            "ws:///x",
            "wss://a/#x",
            "ws://a/\u{e4}",
        ] {
            assert!(bad.parse::<BrokerAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_address_does_not_show_a_password() {
        for text in ["mqtt://me:hunter2@broker", "wss://me:hunter2@broker/mqtt", "mqtts://me:hunter2@"] {
            let error = text.parse::<BrokerAddress>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_is_read_anew_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let password = Password::File(file.clone());
        assert!(password.get(Wall(0)).unwrap_err().contains("cannot read"));
        for text in ["hunter2", "hunter3"] {
            std::fs::write(&file, format!("{text}\r\n")).unwrap();
            let credential = password.get(Wall(0)).unwrap();
            assert_eq!((credential.secret.expose(), credential.ends), (text, None));
            assert!(!format!("{credential:?} {password:?}").contains(text));
        }
        std::fs::write(&file, "\n").unwrap();
        assert!(password.get(Wall(0)).unwrap_err().contains("is empty"));
        std::fs::write(&file, [0xFF]).unwrap();
        assert!(password.get(Wall(0)).unwrap_err().contains("is no text"));
    }

    #[test]
    fn each_file_of_tls_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let pair = || rcgen::generate_simple_self_signed(["b1".to_owned()]).unwrap();
        let (one, other) = (pair(), pair());
        std::fs::write(path("one.pem"), one.cert.pem()).unwrap();
        std::fs::write(path("one.key"), one.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("other.key"), other.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("empty"), "").unwrap();
        let load = |ca: &str, identity: Option<(&str, &str)>| {
            let identity = identity.map(|(certificate, key)| (path(certificate), path(key)));
            TlsFiles { authorities: Some(path(ca)), identity, server_name: None }.load()
        };
        assert!(load("one.pem", Some(("one.pem", "one.key"))).is_ok());
        for (ca, identity, part, words) in [
            ("none", None, TlsPart::Authorities, "cannot read"),
            ("empty", None, TlsPart::Authorities, "has no certificate in PEM"),
            ("one.pem", Some(("one.pem", "empty")), TlsPart::Key, "no private key in PEM"),
            ("one.pem", Some(("empty", "one.key")), TlsPart::Certificate, "has no certificate"),
            ("one.pem", Some(("one.pem", "other.key")), TlsPart::Key, "not that of the certificate"),
        ] {
            let problem = load(ca, identity).unwrap_err();
            assert!(problem.part == part && problem.to_string().contains(words), "{problem:?}");
        }
        let broker: BrokerAddress = "mqtts://[::1]".parse().unwrap();
        assert!(TlsFiles::default().name(&broker).is_ok(), "an address in brackets");
        let bad = TlsFiles { server_name: Some("a b".to_owned()), ..TlsFiles::default() };
        assert_eq!(bad.name(&broker).unwrap_err().part, TlsPart::ServerName);
    }
}
