//! The numbers of the running daemon, asked for as a program would: over HTTP, with a token of a minute.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::clock::Clock;
use crate::config::Config;
use crate::daemon;
use crate::host;
use crate::secret::Secret;
use crate::server::auth::Role;
use crate::server::jwt::Claims;
use crate::server::tls::{CERTIFICATE_FILE, Identity};
use crate::uplink::access::TlsFiles;

/// The daemon answers within this time.
const ANSWER: Duration = Duration::from_secs(5);

/// The token holds so long, in seconds.
const LIFE_S: i64 = 60;

/// Largest answer, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The text of `/metrics`.
///
/// # Errors
/// In words: why there is none.
pub(super) async fn of(config: &Config) -> Result<String, String> {
    let token = token(config)?;
    match tokio::time::timeout(ANSWER, ask(config, &token)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("the daemon did not answer within {} s", ANSWER.as_secs())),
    }
}

fn token(config: &Config) -> Result<Secret, String> {
    let key = daemon::token_key(config).map_err(|error| format!("{error:#}"))?;
    if !key.issues() {
        return Err("this bridge issues no tokens of its own".to_owned());
    }
    let now = Clock::System.now().wall.as_secs();
    let (iat, exp) = (Some(now), now.saturating_add(LIFE_S));
    let sub = "support-bundle".to_owned();
    let claims = Claims { sub, role: Role::Service, caps: None, jti: None, iat, nbf: None, exp };
    key.issue(&claims).map_err(|error| error.to_string())
}

async fn ask(config: &Config, token: &Secret) -> Result<String, String> {
    let address = host::reachable(config.server.listen);
    let words = |error: std::io::Error| format!("the daemon cannot be asked at {address}: {error}");
    let stream = TcpStream::connect(address).await.map_err(words)?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        token.expose()
    );
    let Some(tls) = &config.server.tls else { return exchange(stream, &request).await.map_err(words) };
    let certificate = match &tls.identity {
        Identity::Files { certificate, .. } => certificate.clone(),
        Identity::SelfSigned { .. } => config.state_dir.join(CERTIFICATE_FILE),
    };
    // The daemon's own certificate and no other.
    let files = TlsFiles { authorities: Some(certificate), ..TlsFiles::default() };
    let settings = files.load().map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(settings).connect(name, stream).await.map_err(words)?;
    exchange(stream, &request).await.map_err(words)
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = stream.take(MAX_BYTES).read_to_end(&mut bytes).await;
    // An end of TLS without its farewell comes after the answer.
    if bytes.is_empty() {
        read?;
    }
    let answer = String::from_utf8_lossy(&bytes);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.starts_with("HTTP/1.1 200") { Ok(body.to_owned()) } else { Err(std::io::Error::other(status.to_owned())) }
}
