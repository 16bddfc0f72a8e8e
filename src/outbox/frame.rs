//! A message as it stands on the wire of a WebSocket: framed once, shared by everybody who gets it (RFC 6455, 5.2).

use std::ops::Deref;

use bytes::Bytes;

/// FIN, and the opcode of a text message.
const TEXT: u8 = 0x81;

/// FIN, and the opcode of a binary message.
const BINARY: u8 = 0x82;

/// FIN, and the opcode of a close.
const CLOSE: u8 = 0x88;

/// FIN, and the opcode of a ping, without a payload.
const PING: &[u8] = &[0x89, 0];

/// The longest payload whose length stands in seven bits.
const SHORT: usize = 125;

/// One whole frame of a server. Servers do not mask, so its bytes are the same for every client. It derefs to the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    payload_at: usize,
}

impl Frame {
    /// A text message.
    pub fn text(text: &str) -> Self {
        Self::new(TEXT, text.as_bytes())
    }

    /// A binary message.
    pub fn binary(payload: &[u8]) -> Self {
        Self::new(BINARY, payload)
    }

    /// A ping.
    pub const fn ping() -> Self {
        Self { bytes: Bytes::from_static(PING), payload_at: PING.len() }
    }

    /// The end of a connection, for a reason of at most 123 bytes.
    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    fn new(first: u8, payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(payload.len().saturating_add(10));
        bytes.push(first);
        // RFC 6455, 5.2: the shortest of the three forms of the length.
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short), _) if payload.len() <= SHORT => bytes.push(short),
            (_, Ok(medium)) => {
                bytes.push(126);
                bytes.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                bytes.push(127);
                // usize has at most 64 bits everywhere.
                bytes.extend_from_slice(&u64::try_from(payload.len()).unwrap_or(u64::MAX).to_be_bytes());
            }
        }
        let payload_at = bytes.len();
        bytes.extend_from_slice(payload);
        Self { bytes: bytes.into(), payload_at }
    }

    /// The payload alone, which shares the frame's bytes.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(self.payload_at..)
    }

    /// Header and payload, as they are written.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.payload_at..).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_has_the_shortest_of_its_three_forms() {
        for (length, header) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xFF, 0xFF]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let text = "x".repeat(length);
            let frame = Frame::text(&text);
            assert_eq!(&frame[..], text.as_bytes(), "{length}");
            let bytes = frame.into_bytes();
            assert_eq!(bytes.strip_suffix(text.as_bytes()), Some(header), "{length}");
        }
        assert_eq!(&Frame::binary(&[7]).into_bytes()[..], [0x82, 1, 7]);
        assert_eq!(&Frame::close(1002, "no").into_bytes()[..], [0x88, 4, 0x03, 0xEA, b'n', b'o']);
        assert_eq!(&Frame::ping().into_bytes()[..], [0x89, 0]);
    }
}
