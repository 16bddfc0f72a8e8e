//! The echo that Autobahn's fuzzing client is pointed at; docs/conformance.md says how: `websocket_echo ADDRESS`

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

#[path = "../tests/it/server/echo.rs"]
mod echo;

/// Longest request.
const MAX_REQUEST: usize = 8192;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("an address, such as 127.0.0.1:9001")?;
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        #[expect(clippy::disallowed_methods, reason = "not the daemon: nobody waits for these at its end")]
        drop(tokio::spawn(serve(stream)));
    }
}

/// The opening handshake of a client that makes no mistakes: its own tests are against the real router.
async fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(request.len() < MAX_REQUEST, "the request is too long");
        request.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(request)?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    };
    let key = request.lines().find_map(header).context("no key")?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    echo::echo(stream).await;
    Ok(())
}
