//! Reads the fields of a payload one after the other, least significant byte first, and says which field is cut.

use super::GattError;
use crate::decode::ieee11073;
use crate::vitals::{Absent, Decimal};

/// A place in a payload.
#[derive(Debug, Clone)]
pub(in crate::decode) struct Reader<'p> {
    what: &'static str,
    payload: &'p [u8],
    at: usize,
}

impl<'p> Reader<'p> {
    /// At the first byte; `what` names the packet in errors.
    pub(in crate::decode) const fn new(what: &'static str, payload: &'p [u8]) -> Self {
        Self { what, payload, at: 0 }
    }

    /// The next bytes, which are `field`.
    pub(in crate::decode) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], GattError> {
        let found = self.payload.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let bytes = *found.ok_or(GattError::Short {
            what: self.what,
            field,
            at: self.at,
            has: self.payload.len(),
            needs: self.at.saturating_add(N),
        })?;
        self.at += N;
        Ok(bytes)
    }

    pub(in crate::decode) fn u8(&mut self, field: &'static str) -> Result<u8, GattError> {
        self.array(field).map(|[byte]| byte)
    }

    pub(in crate::decode) fn u16(&mut self, field: &'static str) -> Result<u16, GattError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(in crate::decode) fn i16(&mut self, field: &'static str) -> Result<i16, GattError> {
        self.array(field).map(i16::from_le_bytes)
    }

    pub(in crate::decode) fn u24(&mut self, field: &'static str) -> Result<u32, GattError> {
        self.array(field).map(|[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]))
    }

    /// An IEEE 11073 SFLOAT.
    pub(in crate::decode) fn sfloat(&mut self, field: &'static str) -> Result<Result<Decimal, Absent>, GattError> {
        self.u16(field).map(ieee11073::sfloat)
    }

    /// An IEEE 11073 SFLOAT of a device that writes it most significant byte first.
    pub(in crate::decode) fn sfloat_big_endian(
        &mut self,
        field: &'static str,
    ) -> Result<Result<Decimal, Absent>, GattError> {
        self.u16(field).map(|bytes| ieee11073::sfloat(bytes.swap_bytes()))
    }

    /// An IEEE 11073 FLOAT.
    pub(in crate::decode) fn float(&mut self, field: &'static str) -> Result<Result<Decimal, Absent>, GattError> {
        self.array(field).map(u32::from_le_bytes).map(ieee11073::float)
    }

    /// A field that is there only if `is_there`.
    pub(in crate::decode) fn when<T>(
        &mut self,
        is_there: bool,
        read: impl FnOnce(&mut Self) -> Result<T, GattError>,
    ) -> Result<Option<T>, GattError> {
        if is_there { read(self).map(Some) } else { Ok(None) }
    }

    /// The place of the next byte.
    pub(in crate::decode) const fn at(&self) -> usize {
        self.at
    }

    /// Bytes that have not been read.
    pub(in crate::decode) const fn left(&self) -> usize {
        self.payload.len().saturating_sub(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_field_and_its_place() {
        let mut reader = Reader::new("test", &[1, 2, 3]);
        assert_eq!(reader.u16("first").unwrap(), 0x0201);
        assert_eq!((reader.at(), reader.left()), (2, 1));
        let error = reader.u24("second").unwrap_err();
        assert_eq!(error.to_string(), "test packet has 3 bytes, needs 5: second at byte 2 is cut");
        assert_eq!(reader.when(false, |reader| reader.u24("third")), Ok(None));
        assert_eq!(reader.u8("last"), Ok(3));
        assert_eq!(reader.left(), 0);
    }
}
