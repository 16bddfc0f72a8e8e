//! Keys of an issuer behind an address: fetched on a schedule and for a key that is not known, kept for a start without
//! network.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT, HOST};
use axum::http::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::clock::{Clock, Mono};
use crate::server::codes::{hex, write_private};
use crate::server::keys::{PublicKey, read_set};
use crate::server::rate::{Bucket, REFETCHES};

/// Keys are fetched again after this time, unless the configuration says otherwise.
pub const DEFAULT_REFRESH: Duration = Duration::from_hours(1);

/// The first pause after a fetch that failed, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));

/// Name look-up, connection, TLS and answer together.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);

/// A request whose token names an unknown key waits at most so long for the keys to be fetched.
const ASK_DEADLINE: Duration = Duration::from_secs(3);

/// Largest key set, in bytes.
pub const MAX_SET_BYTES: usize = 64 * 1024;

/// Where an issuer's keys are, and how it proves to be the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
    /// Certificates that are trusted instead of the system's.
    roots: Option<Vec<CertificateDer<'static>>>,
    /// Keys are fetched again after this time.
    pub refresh: Duration,
}

/// Why a text is no address of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// No such address.
    #[error("it is not an address such as https://login.example/jwks.json")]
    Form,
    /// In clear over a network, anybody on the way could be the issuer.
    #[error(
        "http is for this machine alone (127.0.0.1, ::1, localhost): anybody on the way could exchange the keys; use https"
    )]
    Clear,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// It is none, or in clear to another machine.
    pub fn parse(text: &str, roots: Option<Vec<CertificateDer<'static>>>) -> Result<Self, BadAddress> {
        let uri: Uri = text.parse().map_err(|_| BadAddress::Form)?;
        let authority = uri.authority().ok_or(BadAddress::Form)?;
        if authority.as_str().contains('@') || text.contains('#') || authority.host().is_empty() {
            return Err(BadAddress::Form);
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host(&uri)) => {}
            Some("http") => return Err(BadAddress::Clear),
            _ => return Err(BadAddress::Form),
        }
        Ok(Self { uri, roots, refresh: DEFAULT_REFRESH })
    }

    fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// The file in the state directory that keeps what came from here.
    fn cache(&self, state: &Path) -> PathBuf {
        let name = digest::digest(&digest::SHA256, self.uri.to_string().as_bytes());
        let short = name.as_ref().get(..8).unwrap_or(&[]);
        state.join(format!("jwks-{}.json", hex(short)))
    }
}

/// Certificates of a PEM text.
///
/// # Errors
/// It has none, or a broken one.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("it has no certificate".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}

/// The host without the brackets of IPv6.
fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or("");
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why keys did not come.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}{why}", why = cause(.0))]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error("the answer has more than {MAX_SET_BYTES} bytes, or broke off")]
    Body,
    #[error("no answer within {FETCH_DEADLINE:?}")]
    Late,
    #[error("{0}")]
    Other(String),
}

/// Why, which hyper does not say itself.
fn cause(error: &hyper::Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"))
}

/// The keys of one address, as they were fetched last.
#[derive(Debug)]
pub struct LiveKeys {
    address: Address,
    cache: PathBuf,
    keys: watch::Sender<Arc<[PublicKey]>>,
    /// Fetches that have begun.
    begun: AtomicU64,
    /// The last of them that has ended, well or not.
    rounds: watch::Sender<u64>,
    /// Somebody has a token of an unknown key.
    asked: Notify,
    /// How often that may begin a fetch.
    asking: Mutex<Bucket>,
}

impl LiveKeys {
    /// The keys that were kept from an earlier run, or none yet.
    pub fn new(address: Address, state: &Path) -> Self {
        let cache = address.cache(state);
        let kept = match std::fs::read_to_string(&cache) {
            Ok(text) => read_set(&text).unwrap_or_else(|error| {
                warn!(file = %cache.display(), %error, "kept keys cannot be read and are fetched again");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        Self {
            address,
            cache,
            keys: watch::Sender::new(kept.into()),
            begun: AtomicU64::new(0),
            rounds: watch::Sender::new(0),
            asked: Notify::new(),
            asking: Mutex::default(),
        }
    }

    /// The keys as they are now; none before the first ones have come.
    pub fn current(&self) -> Arc<[PublicKey]> {
        Arc::clone(&self.keys.borrow())
    }

    /// Has the keys fetched, unless that was asked for too often, and waits for it a moment.
    pub(super) async fn ask(&self, now: Mono) {
        let mut rounds = self.rounds.subscribe();
        // One that is under way may have had its answer before the key was there.
        let begun = self.begun.load(Ordering::Relaxed);
        // The first one of a run is awaited and not asked for again.
        let is_first = *rounds.borrow_and_update() == 0 && self.current().is_empty();
        let before = if is_first { 0 } else { begun };
        let is_allowed =
            is_first || self.asking.lock().unwrap_or_else(PoisonError::into_inner).take(REFETCHES, now).is_ok();
        if !is_allowed {
            return;
        }
        if !is_first {
            self.asked.notify_one();
        }
        // Too late is as good as not at all: the token is refused, and may be taken the next time.
        let _ = tokio::time::timeout(ASK_DEADLINE, rounds.wait_for(|round| *round > before)).await;
    }

    /// Fetches again and again until told to stop. `seed`: of the jitter, so that many bridges do not come at once.
    pub async fn run(self: Arc<Self>, clock: Clock, seed: u64, stop: CancellationToken) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, seed);
        let mut is_failing = false;
        loop {
            let round = self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            let fetched = tokio::select! {
                biased;
                // The end does not wait for a network.
                () = stop.cancelled() => return,
                fetched = self.fetch() => fetched,
            };
            let pause = match fetched {
                Ok(count) => {
                    if is_failing {
                        info!(address = %self.address.uri, keys = count, "the keys of an issuer came again");
                    }
                    is_failing = false;
                    backoff = Backoff::new(RETRY.0, RETRY.1, random.u64(..));
                    // A tenth earlier or later.
                    self.address.refresh.mul_f64(0.9 + 0.2 * random.f64())
                }
                Err(error) => {
                    if !is_failing {
                        warn!(
                            address = %self.address.uri, %error, known = self.current().len(),
                            "the keys of an issuer cannot be fetched; those that are known stay"
                        );
                    }
                    is_failing = true;
                    backoff.next_delay()
                }
            };
            self.rounds.send_replace(round);
            let next = clock.now().mono + pause;
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // A token named a key that is not known.
                () = self.asked.notified() => {}
                // The schedule.
                () = tokio::time::sleep(next.since(clock.now().mono)) => {}
            }
        }
    }

    /// Fetches once; gives the number of keys.
    async fn fetch(&self) -> Result<usize, FetchError> {
        let bytes = tokio::time::timeout(FETCH_DEADLINE, get(&self.address)).await.map_err(|_| FetchError::Late)??;
        let text = String::from_utf8(bytes).map_err(|_| FetchError::Other("the answer is no text".to_owned()))?;
        let keys: Arc<[PublicKey]> = read_set(&text).map_err(|error| FetchError::Other(error.to_string()))?.into();
        let count = keys.len();
        if self.keys.send_if_modified(|known| {
            let is_new = *known != keys;
            *known = keys;
            is_new
        }) {
            info!(address = %self.address.uri, keys = count, "an issuer has other keys");
        }
        self.keep(text).await;
        Ok(count)
    }

    /// Keeps what came for a start without network.
    async fn keep(&self, text: String) {
        let cache = self.cache.clone();
        let kept = tokio::task::spawn_blocking(move || {
            // A card wears by writing: only what has changed is written.
            if std::fs::read_to_string(&cache).is_ok_and(|known| known == text) {
                return Ok(());
            }
            write_private(&cache, &text)
        });
        if let Ok(Err(error)) = kept.await {
            warn!(file = %self.cache.display(), %error, "the keys of an issuer cannot be kept for a start without network");
        }
    }
}

async fn get(address: &Address) -> Result<Vec<u8>, FetchError> {
    let host = host(&address.uri);
    let port = address.uri.port_u16().unwrap_or(if address.is_tls() { 443 } else { 80 });
    let found = tokio::net::lookup_host((host, port)).await?;
    // In clear only to this machine, whatever its names are told to mean.
    let allowed: Vec<_> = found.filter(|to| address.is_tls() || to.ip().is_loopback()).collect();
    let stream = TcpStream::connect(allowed.as_slice()).await?;
    if !address.is_tls() {
        return exchange(address, stream).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| FetchError::Other(error.to_string()))?;
    let stream = TlsConnector::from(Arc::new(tls(address)?)).connect(name, stream).await?;
    exchange(address, stream).await
}

fn tls(address: &Address) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    if let Some(certificates) = &address.roots {
        for certificate in certificates {
            roots.add(certificate.clone())?;
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        let _ = roots.add_parsable_certificates(found.certs);
    }
    if roots.is_empty() {
        let advice = "this system has no root certificates: install ca-certificates, or name `jwks_ca_file`";
        return Err(FetchError::Other(advice.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// One request; a redirect is no answer, because it would lead past what the configuration says.
async fn exchange<S>(address: &Address, stream: S) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await?;
    let path = address.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = address.uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .body(Body::empty())
        .map_err(|error| FetchError::Other(error.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_SET_BYTES).await;
        body.map(|bytes| bytes.to_vec()).map_err(|_| FetchError::Body)
    };
    tokio::pin!(answer, connection);
    let ended = tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // It has read all that there is, or broke: many hang up behind the answer without a goodbye.
        ended = &mut connection => ended,
    };
    answer.await.map_err(|error| ended.err().map_or(error, FetchError::Http))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_or_on_this_machine() {
        for good in [
            "https://login.example/jwks",
            "https://10.0.0.1:8443/k?a=b",
            "http://127.0.0.1:9/j",
            "http://[::1]/j",
            "http://localhost/j",
        ] {
            assert!(Address::parse(good, None).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://login.example/jwks", BadAddress::Clear),
            ("http://127.0.0.1.example/jwks", BadAddress::Clear),
            ("http://192.168.1.2/jwks", BadAddress::Clear),
            ("https://user:pass@login.example/jwks", BadAddress::Form),
            ("ftp://login.example/jwks", BadAddress::Form),
            ("login.example", BadAddress::Form),
            ("/jwks", BadAddress::Form),
            ("", BadAddress::Form),
        ] {
            assert_eq!(Address::parse(bad, None), Err(why), "{bad}");
        }
    }
}
