//! A bare fan-out: tokio-tungstenite with 4 KiB buffers, one write a message and client, and nothing else.
//!
//! bare ADDRESS RHYTHM

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use vitalbridge_peers::{Rhythm, message};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listener = TcpListener::bind(arguments.next().context("an address")?).await?;
    let rhythm = Rhythm::read(&arguments.next().context("a rhythm")?)?;
    let (sender, _) = broadcast::channel(4096);
    tokio::spawn(publish(rhythm, sender.clone()));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, sender.subscribe()));
    }
}

async fn publish(rhythm: Rhythm, sender: broadcast::Sender<Utf8Bytes>) {
    let (pause, burst) = rhythm.step();
    let mut moments = tokio::time::interval(pause.max(Duration::from_micros(100)));
    let mut seq = 0;
    loop {
        moments.tick().await;
        for _ in 0..burst {
            seq += 1;
            // Nobody may listen yet.
            let _ = sender.send(message(seq).into());
        }
    }
}

async fn serve(stream: TcpStream, mut messages: broadcast::Receiver<Utf8Bytes>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    let mut socket = accept_async_with_config(stream, Some(config)).await?;
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Ok(text) => socket.send(Message::Text(text)).await?,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            heard = socket.next() => match heard {
                Some(Ok(_)) => {}
                _ => return Ok(()),
            },
        }
    }
}
