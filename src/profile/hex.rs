//! Bytes written as hexadecimal digits.

/// Why a text is not a row of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// A character that is no digit.
    #[error("`{0}` is not a hexadecimal digit")]
    NotADigit(char),
    /// A byte with one digit.
    #[error("there are {0} hexadecimal digits, which is not a whole number of bytes")]
    OddLength(usize),
}

/// The value of one digit.
pub(super) const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Reads digits in pairs; white space, `:`, `-` and `,` between them mean nothing.
pub fn bytes(text: &str) -> Result<Vec<u8>, HexError> {
    let mut digits = Vec::with_capacity(text.len());
    for character in text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '-' | ',')) {
        let digit = u8::try_from(character).ok().and_then(nibble).ok_or(HexError::NotADigit(character))?;
        digits.push(digit);
    }
    if digits.len() % 2 == 1 {
        return Err(HexError::OddLength(digits.len()));
    }
    Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte: u8, digit| (byte << 4) | digit)).collect())
}

/// Bytes as spaced upper-case digits, for messages.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_and_without_separators() {
        assert_eq!(bytes("55 AA 04"), Ok(vec![0x55, 0xAA, 4]));
        assert_eq!(bytes("55aa:04"), Ok(vec![0x55, 0xAA, 4]));
        assert_eq!(bytes(""), Ok(vec![]));
        assert_eq!(bytes("5"), Err(HexError::OddLength(1)));
        assert_eq!(bytes("5G"), Err(HexError::NotADigit('G')));
        assert_eq!(text(&[0, 0xFF]), "00 FF");
    }
}
