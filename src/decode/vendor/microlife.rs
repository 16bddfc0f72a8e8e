//! Microlife BP3GY1-2N (service FFF0): frames `4D dir len len payload sum`, as its owners have found out. What the
//! payloads mean is known for the commands only, so that a frame gives no vital.

use super::{check_sum8, expect};
use crate::decode::gatt::report::hex_digits;
use crate::decode::gatt::{GattError, Reader, Report};

const WHAT: &str = "Microlife";

/// A frame with a right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'f> {
    /// 0xFF to the cuff, 0x3A from it.
    pub direction: u8,
    /// What is inside.
    pub payload: &'f [u8],
    /// Bytes after the frame.
    pub trailing_bytes: usize,
}

/// Reads one frame.
pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, GattError> {
    let mut reader = Reader::new(WHAT, bytes);
    expect(WHAT, "first byte", 0x4D, reader.u8("first byte")?)?;
    let direction = reader.u8("direction")?;
    // The length counts payload and checksum, most significant byte first.
    let length = usize::from(reader.u16("length")?.swap_bytes());
    let begin = reader.at();
    let end = begin.saturating_add(length);
    let short =
        GattError::Short { what: WHAT, field: "payload", at: begin, has: bytes.len(), needs: end.max(begin + 1) };
    let [payload @ .., sum] = bytes.get(begin..end).ok_or(short)? else { return Err(short) };
    let covered = bytes.get(..end.saturating_sub(1)).unwrap_or(&[]);
    check_sum8(WHAT, covered, *sum)?;
    Ok(Frame { direction, payload, trailing_bytes: bytes.len().saturating_sub(end) })
}

pub(super) fn report(bytes: &[u8]) -> Result<Report, GattError> {
    let frame = parse(bytes)?;
    let mut report = Report { trailing_bytes: frame.trailing_bytes, ..Report::default() };
    report.detail("from_cuff", frame.direction == 0x3A);
    report.detail("payload", hex_digits(frame.payload));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_by_its_sum() {
        let ack = [0x4D, 0x3A, 0x00, 0x02, 0x81, 0x0A];
        assert_eq!(parse(&ack), Ok(Frame { direction: 0x3A, payload: &[0x81], trailing_bytes: 0 }));
        for at in 0..ack.len() {
            let mut bad = ack;
            bad[at] ^= 0x10;
            assert!(parse(&bad).is_err(), "byte {at}");
        }
        assert!(parse(&[0x4D, 0xFF, 0, 0]).is_err());
    }
}
