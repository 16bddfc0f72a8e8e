//! Finds the reason with which a broker ends a connection, in the bytes that come from it.
//!
//! The client library takes a DISCONNECT that ends after its reason code for a broken stream. MQTT 5.0 3.14.2.2.1 allows it,
//! and Mosquitto sends it: without this nobody would be told of two bridges with one client id, and a row that is too large
//! would end each connection anew.

use super::{Cause, End};
use crate::uplink::plan::EndKind;

/// The first byte of a DISCONNECT (MQTT 5.0 3.14.1).
const DISCONNECT: u8 = 0xE0;

/// The bits of the last byte of a length of four (MQTT 5.0 1.5.5).
const LAST_SHIFT: u32 = 21;

/// Where in the packets the stream has come to.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    /// Before a packet.
    #[default]
    Begin,
    /// In the length of a packet that begins with `first`.
    Length { first: u8, value: u32, shift: u32 },
    /// In its body, of which `left` bytes are to come.
    Body { first: u8, left: u32, is_begin: bool },
}

/// Follows the packets of a stream.
#[derive(Debug, Default)]
pub(super) struct Packets(Place);

impl Packets {
    /// Takes the next bytes of the stream, and gives the reason code of a DISCONNECT among them.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Option<u8> {
        let (mut rest, mut code) = (bytes, None);
        while let Some((byte, after)) = rest.split_first() {
            (self.0, rest) = match self.0 {
                Place::Begin => (Place::Length { first: *byte, value: 0, shift: 0 }, after),
                Place::Length { first, value, shift } => {
                    let value = value | (u32::from(*byte & 0x7F) << shift);
                    let next = if *byte & 0x80 != 0 && shift < LAST_SHIFT {
                        Place::Length { first, value, shift: shift.saturating_add(7) }
                    } else if value == 0 {
                        Place::Begin
                    } else {
                        Place::Body { first, left: value, is_begin: true }
                    };
                    (next, after)
                }
                Place::Body { first, left, is_begin } => {
                    if first == DISCONNECT && is_begin {
                        code = Some(*byte);
                    }
                    let here = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(left);
                    let next = match left.saturating_sub(here) {
                        0 => Place::Begin,
                        left => Place::Body { first, left, is_begin: false },
                    };
                    (next, rest.get(usize::try_from(here).unwrap_or(usize::MAX)..).unwrap_or(&[]))
                }
            };
        }
        code
    }
}

/// What the reason code of a DISCONNECT (MQTT 5.0 3.14.2.1) means for the next connection.
pub(super) fn end_of(code: u8) -> End {
    let kind = match code {
        0x8E => EndKind::TakenOver,
        0x87 | 0x90 | 0x95 | 0x99 => EndKind::RowRefused,
        _ => EndKind::Lost,
    };
    let name = match code {
        0x81 => " (malformed packet)",
        0x82 => " (protocol error)",
        0x87 => " (not authorised)",
        0x89 => " (server busy)",
        0x8B => " (server shutting down)",
        0x8D => " (keep-alive timeout)",
        0x8E => " (session taken over)",
        0x90 => " (topic name invalid)",
        0x93 => " (receive maximum exceeded)",
        0x95 => " (packet too large)",
        0x96 => " (message rate too high)",
        0x97 => " (quota exceeded)",
        0x98 => " (administrative action)",
        0x99 => " (payload format invalid)",
        0x9C | 0x9D => " (another server is to be used: set mqtt.broker)",
        _ => "",
    };
    End::new(Cause::Kind(kind), format!("the broker has ended the connection: 0x{code:02x}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_parting_is_found_wherever_the_stream_is_cut() {
        // CONNACK with properties, PUBACK of two bytes and of four, PINGRESP, a PUBLISH of 200 bytes with 0xE0 in it.
        let mut before = vec![0x20, 3, 0, 0, 0, 0x40, 2, 0, 1, 0x40, 4, 0, 2, 0x87, 0, 0xD0, 0, 0x30, 0xC8, 1];
        before.extend([0xE0; 200]);
        for (parting, expected) in [
            (vec![0xE0, 1, 0x8E], Some(0x8E)),
            (vec![0xE0, 2, 0x95, 0], Some(0x95)),
            (vec![0xE0, 0], None),
            (vec![], None),
        ] {
            let stream = [before.clone(), parting].concat();
            for length in [1, 2, 3, 7, stream.len()] {
                let mut packets = Packets::default();
                let found = stream.chunks(length).filter_map(|chunk| packets.follow(chunk)).last();
                assert_eq!(found, expected, "in pieces of {length}");
            }
        }
    }

    #[test]
    fn a_takeover_and_a_row_too_large_are_told_apart_from_other_ends() {
        for (code, kind) in [
            (0x8E, EndKind::TakenOver),
            (0x95, EndKind::RowRefused),
            (0x87, EndKind::RowRefused),
            (0x90, EndKind::RowRefused),
            (0x99, EndKind::RowRefused),
            (0x8B, EndKind::Lost),
            (0xA2, EndKind::Lost),
        ] {
            let end = end_of(code);
            assert_eq!(end.cause, Cause::Kind(kind));
            assert!(end.reason.contains(&format!("0x{code:02x}")), "{}", end.reason);
        }
    }
}
