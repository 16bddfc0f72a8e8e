//! Frames as clients write them (RFC 6455, 5.2), byte by byte, for tests that need also those that no library writes.

/// A frame's header that claims a length in its shortest form, with a masking key.
pub(crate) fn header(first: u8, length: u64, key: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        126..65_536 => {
            bytes.push(0x80 | 0x7E);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7F);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes
}

/// A frame, masked.
pub(crate) fn frame(first: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = header(first, u64::try_from(payload.len()).unwrap(), key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}
