//! An echo over the stream of production with its limits raised, for the tests of conformance: ours and Autobahn's.

use std::future::poll_fn;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;
use vitalbridge::outbox::Frame;
use vitalbridge::server::strict::{FrameBounds, Strict};
use vitalbridge::server::writing::{answer_close, refuse, websocket};

/// Largest message that is echoed.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Sends back every message.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let bounds = FrameBounds { bytes: MAX_MESSAGE, fragments: usize::MAX };
    let mut socket = websocket(stream, Strict::new(bounds), MAX_MESSAGE).await;
    loop {
        let frame = match socket.next().await {
            Some(Ok(Message::Text(text))) => Frame::text(&text),
            Some(Ok(Message::Binary(bytes))) => Frame::binary(&bytes),
            Some(Ok(Message::Close(_))) => return answer_close(&mut socket).await,
            Some(Ok(_)) => continue,
            Some(Err(_)) => {
                if let Some(violation) = socket.get_ref().violation() {
                    // The client may have gone.
                    let _ = refuse(&mut socket, violation).await;
                }
                return;
            }
            None => return,
        };
        let writing = socket.get_mut();
        writing.push(frame);
        if poll_fn(|cx| writing.poll_drain(cx)).await.is_err() {
            return;
        }
    }
}
