//! Checksums of frames and of the commands that are sent.

use serde::Deserialize;

use super::hex::nibble;

/// How the sum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ChecksumKind {
    /// No checksum (only for what is sent).
    #[serde(rename = "none")]
    None,
    /// Sum of the bytes, modulo 256.
    #[serde(rename = "sum8")]
    Sum8,
    /// Ones' complement of the sum.
    #[serde(rename = "sum8-inverted")]
    Sum8Inverted,
    /// Two's complement of the sum: with it, all bytes add up to 0.
    #[serde(rename = "sum8-negated")]
    Sum8Negated,
    /// Sum of the bytes, modulo 128.
    #[serde(rename = "sum7")]
    Sum7,
    /// Exclusive or of the bytes.
    #[serde(rename = "xor8")]
    Xor8,
    /// CRC-8/SMBUS: polynomial 0x07, start 0.
    #[serde(rename = "crc8")]
    Crc8,
    /// CRC-8/MAXIM: polynomial 0x8C reflected, start 0.
    #[serde(rename = "crc8-maxim")]
    Crc8Maxim,
    /// Sum of the bytes, modulo 65536.
    #[serde(rename = "sum16")]
    Sum16,
    /// CRC-16/X-25: polynomial 0x8408 reflected, start 0xFFFF, inverted.
    #[serde(rename = "crc16-x25")]
    Crc16X25,
    /// CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF.
    #[serde(rename = "crc16-ccitt")]
    Crc16Ccitt,
    /// CRC-16/XMODEM: polynomial 0x1021, start 0.
    #[serde(rename = "crc16-xmodem")]
    Crc16Xmodem,
    /// CRC-16/MODBUS: polynomial 0xA001 reflected, start 0xFFFF.
    #[serde(rename = "crc16-modbus")]
    Crc16Modbus,
}

/// Order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endian {
    /// Least significant byte first.
    #[default]
    Little,
    /// Most significant byte first.
    Big,
}

/// How the sum is written into the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As bytes.
    #[default]
    Raw,
    /// As hexadecimal digits, either case.
    Hex,
}

/// A checksum and its place. Negative places count from the end of the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub kind: ChecksumKind,
    /// First byte it covers.
    pub from: i32,
    /// First byte it no longer covers.
    pub to: i32,
    /// Where it is written.
    pub at: i32,
    /// Byte order of 16-bit sums.
    pub endian: Endian,
    /// Bytes or digits.
    pub encoding: Encoding,
    /// Frames shorter than this carry no checksum.
    pub absent_below: usize,
}

impl ChecksumKind {
    /// Bytes of the sum.
    pub const fn width(self) -> usize {
        match self {
            Self::None => 0,
            Self::Sum8
            | Self::Sum8Inverted
            | Self::Sum8Negated
            | Self::Sum7
            | Self::Xor8
            | Self::Crc8
            | Self::Crc8Maxim => 1,
            Self::Sum16 | Self::Crc16X25 | Self::Crc16Ccitt | Self::Crc16Xmodem | Self::Crc16Modbus => 2,
        }
    }

    /// The sum over `bytes`.
    pub fn compute(self, bytes: &[u8]) -> u16 {
        match self {
            Self::None => 0,
            Self::Sum8 => u16::from(sum8(bytes)),
            Self::Sum8Inverted => u16::from(!sum8(bytes)),
            Self::Sum8Negated => u16::from(sum8(bytes).wrapping_neg()),
            Self::Sum7 => u16::from(sum8(bytes) & 0x7F),
            Self::Crc8 => u16::from(crc8(bytes)),
            Self::Crc8Maxim => u16::from(crc8_maxim(bytes)),
            Self::Xor8 => u16::from(bytes.iter().fold(0, |sum, byte| sum ^ byte)),
            Self::Sum16 => bytes.iter().fold(0, |sum: u16, byte| sum.wrapping_add(u16::from(*byte))),
            Self::Crc16X25 => !crc_reflected(bytes, 0x8408),
            Self::Crc16Ccitt => crc_forward(bytes, 0xFFFF),
            Self::Crc16Xmodem => crc_forward(bytes, 0),
            Self::Crc16Modbus => crc_reflected(bytes, 0xA001),
        }
    }
}

fn sum8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |start, byte| {
        (0..8).fold(start ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { (crc << 1) ^ 0x07 })
    })
}

fn crc8_maxim(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |start, byte| {
        (0..8).fold(start ^ byte, |crc: u8, _| if crc & 1 == 1 { (crc >> 1) ^ 0x8C } else { crc >> 1 })
    })
}

fn crc_reflected(bytes: &[u8], polynomial: u16) -> u16 {
    bytes.iter().fold(0xFFFF, |start, byte| {
        (0..8).fold(start ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ polynomial } else { crc >> 1 })
    })
}

fn crc_forward(bytes: &[u8], start: u16) -> u16 {
    bytes.iter().fold(start, |start, byte| {
        (0..8).fold(
            start ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

/// The index that `place` means in a frame of `length` bytes.
#[inline]
pub(super) fn place(place: i32, length: usize) -> Option<usize> {
    match usize::try_from(place) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(place.unsigned_abs()).ok()?),
    }
}

impl Checksum {
    /// Bytes that the sum takes in the frame.
    pub const fn width(&self) -> usize {
        match self.encoding {
            Encoding::Raw => self.kind.width(),
            Encoding::Hex => self.kind.width() * 2,
        }
    }

    /// The sum that `frame` should have and the one it has; `None` if the frame is too short for it.
    pub fn computed_and_found(&self, frame: &[u8]) -> Option<(u16, u16)> {
        let from = place(self.from, frame.len())?;
        let to = place(self.to, frame.len())?;
        let at = place(self.at, frame.len())?;
        let covered = frame.get(from..to)?;
        let written = frame.get(at..at.checked_add(self.width())?)?;
        let found = match (self.encoding, self.endian) {
            (Encoding::Raw, Endian::Big) => written.iter().fold(0, |sum: u16, byte| (sum << 8) | u16::from(*byte)),
            (Encoding::Raw, Endian::Little) => {
                written.iter().rev().fold(0, |sum: u16, byte| (sum << 8) | u16::from(*byte))
            }
            (Encoding::Hex, _) => {
                written.iter().try_fold(0, |sum: u16, digit| Some((sum << 4) | u16::from(nibble(*digit)?)))?
            }
        };
        Some((self.kind.compute(covered), found))
    }

    /// Writes the right sum into `frame`; false if the frame is too short for it.
    pub fn write(&self, frame: &mut [u8]) -> bool {
        self.kind == ChecksumKind::None || frame.len() < self.absent_below || self.write_sum(frame).is_some()
    }

    fn write_sum(&self, frame: &mut [u8]) -> Option<()> {
        let covered = frame.get(place(self.from, frame.len())?..place(self.to, frame.len())?)?;
        let sum = self.kind.compute(covered);
        let written = match (self.encoding, self.kind.width(), self.endian) {
            (Encoding::Hex, width, _) => format!("{sum:0digits$X}", digits = width * 2).into_bytes(),
            (Encoding::Raw, 1, _) => sum.to_le_bytes().into_iter().take(1).collect(),
            (Encoding::Raw, _, Endian::Little) => sum.to_le_bytes().to_vec(),
            (Encoding::Raw, _, Endian::Big) => sum.to_be_bytes().to_vec(),
        };
        let at = place(self.at, frame.len())?;
        frame.get_mut(at..at.checked_add(written.len())?)?.copy_from_slice(&written);
        Some(())
    }

    /// The most frequent case by itself: one byte.
    fn holds_byte(&self, frame: &[u8]) -> Option<bool> {
        let covered = frame.get(place(self.from, frame.len())?..place(self.to, frame.len())?)?;
        let written = *frame.get(place(self.at, frame.len())?)?;
        Some(match self.kind {
            ChecksumKind::Xor8 => covered.iter().fold(0, |sum, byte| sum ^ byte) == written,
            ChecksumKind::Sum8Inverted => !sum8(covered) == written,
            ChecksumKind::Sum7 => sum8(covered) & 0x7F == written,
            ChecksumKind::Crc8 => crc8(covered) == written,
            ChecksumKind::Crc8Maxim => crc8_maxim(covered) == written,
            ChecksumKind::Sum8Negated => sum8(covered).wrapping_neg() == written,
            _ => sum8(covered) == written,
        })
    }

    /// True if the frame carries its right sum.
    #[inline]
    pub fn holds(&self, frame: &[u8]) -> bool {
        if self.encoding == Encoding::Raw && self.kind.width() == 1 && self.absent_below == 0 {
            return self.holds_byte(frame).unwrap_or(false);
        }
        self.kind == ChecksumKind::None
            || frame.len() < self.absent_below
            || self.computed_and_found(frame).is_some_and(|(computed, found)| computed == found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_gives_its_published_check_value() {
        for (kind, check) in [
            (ChecksumKind::Sum8, 0xDD),
            (ChecksumKind::Sum8Inverted, 0x22),
            (ChecksumKind::Sum8Negated, 0x23),
            (ChecksumKind::Sum7, 0x5D),
            (ChecksumKind::Xor8, 0x31),
            (ChecksumKind::Crc8, 0xF4),
            (ChecksumKind::Crc8Maxim, 0xA1),
            (ChecksumKind::Sum16, 0x01DD),
            (ChecksumKind::Crc16X25, 0x906E),
            (ChecksumKind::Crc16Ccitt, 0x29B1),
            (ChecksumKind::Crc16Xmodem, 0x31C3),
            (ChecksumKind::Crc16Modbus, 0x4B37),
        ] {
            assert_eq!(kind.compute(b"123456789"), check, "{kind:?}");
        }
    }

    #[test]
    fn a_sum_is_found_as_bytes_and_as_digits() {
        let digits = Checksum {
            kind: ChecksumKind::Sum8,
            from: 1,
            to: -3,
            at: -3,
            endian: Endian::Little,
            encoding: Encoding::Hex,
            absent_below: 0,
        };
        assert!(digits.holds(b"\x0201;;D7\x03"));
        assert!(digits.holds(b"\x0201;;d7\x03"));
        assert!(!digits.holds(b"\x0201;;D8\x03"));
        assert!(!digits.holds(b"\x02"));
        let mut frame = *b"\x0201;;00\x03";
        assert!(digits.write(&mut frame));
        assert_eq!(&frame, b"\x0201;;D7\x03");
        let little = Checksum {
            kind: ChecksumKind::Crc16X25,
            from: 0,
            to: -2,
            at: -2,
            endian: Endian::Little,
            encoding: Encoding::Raw,
            absent_below: 0,
        };
        assert!(little.holds(&[0x3A, 0x71, 0x9B, 0x26]));
        assert!(!Checksum { endian: Endian::Big, ..little.clone() }.holds(&[0x3A, 0x71, 0x9B, 0x26]));
        for endian in [Endian::Big, Endian::Little] {
            let (sum, mut frame) = (Checksum { endian, ..little.clone() }, [0x3A, 0x71, 0, 0]);
            assert!(sum.write(&mut frame) && sum.holds(&frame), "{endian:?}");
            assert!(!sum.write(&mut [0]));
        }
    }
}
