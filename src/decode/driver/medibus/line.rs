//! The slow half of a MEDIBUS line: commands and responses, of which a command may stand inside a response.

use super::super::tally::Tally;

/// 9028258, p. 39.
pub(super) const SOH: u8 = 0x01;
pub(super) const ETX: u8 = 0x03;
pub(super) const CR: u8 = 0x0D;
const DC1: u8 = 0x11;
const DC3: u8 = 0x13;
pub(super) const NAK: u8 = 0x15;
const CAN: u8 = 0x18;
pub(super) const ESC: u8 = 0x1B;

/// p. 10: a response has at most 3845 bytes.
const MAX_RESPONSE: usize = 3845;
/// p. 7: an argument has at most 251 bytes, with ESC, code, sum and CR around it.
const MAX_COMMAND: usize = 256;

/// What the device has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It asks or orders something.
    Command { code: u8 },
    /// It asked something that cannot be understood.
    CorruptCommand,
    /// It answers.
    Response { code: u8, data: Vec<u8> },
    /// DC1: nothing may be sent to it. (Not what DC1 means to XON/XOFF.)
    Suspend,
    /// DC3: it can be sent to again.
    Resume,
}

/// What has been read of the messages that are not yet over.
#[derive(Debug, Default)]
pub(super) struct Line {
    response: Option<Vec<u8>>,
    command: Option<Vec<u8>>,
}

impl Line {
    /// Takes one byte below 80H.
    pub(super) fn take(&mut self, byte: u8, tally: &mut Tally) -> Option<Said> {
        match byte {
            DC1 => return Some(Said::Suspend),
            DC3 => return Some(Said::Resume),
            // Whatever was being sent is not completed.
            CAN => self.give_up(tally),
            SOH => {
                self.give_up(tally);
                self.response = Some(vec![SOH]);
            }
            ESC => {
                tally.skip(self.command.take().map_or(0, |command| command.len()));
                self.command = Some(vec![ESC]);
            }
            CR => return self.end(tally),
            _ => self.keep(byte, tally),
        }
        None
    }

    /// Forgets what is not over.
    pub(super) fn give_up(&mut self, tally: &mut Tally) {
        for unfinished in [self.command.take(), self.response.take()] {
            tally.skip(unfinished.map_or(0, |bytes| bytes.len()));
        }
    }

    fn keep(&mut self, byte: u8, tally: &mut Tally) {
        let (message, most) = match (&mut self.command, &mut self.response) {
            (command @ Some(_), _) => (command, MAX_COMMAND),
            (None, response) => (response, MAX_RESPONSE),
        };
        match message {
            Some(bytes) if bytes.len() < most => bytes.push(byte),
            Some(bytes) => {
                tally.skip(bytes.len() + 1);
                *message = None;
            }
            None => tally.skip(1),
        }
    }

    /// CR ends the command, or else the response.
    fn end(&mut self, tally: &mut Tally) -> Option<Said> {
        if let Some(command) = self.command.take() {
            return Some(if let Some((code, _)) = content(&command) {
                tally.good();
                Said::Command { code }
            } else {
                tally.damaged(command.len() + 1);
                Said::CorruptCommand
            });
        }
        let Some(response) = self.response.take() else {
            tally.skip(1);
            return None;
        };
        if let Some((code, data)) = content(&response) {
            tally.good();
            return Some(Said::Response { code, data: data.to_vec() });
        }
        tally.damaged(response.len() + 1);
        None
    }
}

/// Code and data of a message without its CR, if its sum is right.
fn content(message: &[u8]) -> Option<(u8, &[u8])> {
    let (covered, sum) = message.split_at_checked(message.len().checked_sub(2)?)?;
    if sum != checksum(covered) {
        return None;
    }
    let (code, data) = covered.get(1..)?.split_first()?;
    Some((*code, data))
}

/// p. 7: the sum of all bytes from ESC or SOH on, as two capital hexadecimal digits.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'A' + value - 10 };
    [digit(sum >> 4), digit(sum & 0x0F)]
}

/// A whole message: `start` is ESC for a command and SOH for a response.
pub(super) fn message(start: u8, code: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![start, code];
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&checksum(&bytes));
    bytes.push(CR);
    bytes
}
