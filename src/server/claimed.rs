//! Whom a refused token names. It proves nothing, and is all that is known of who was refused.

use serde_json::Value as Json;

use super::jwt::MAX_TOKEN_BYTES;

/// Longest name that is taken from outside into the audit trail, in characters.
pub(super) const MAX_NAME: usize = 64;

/// The `sub` of a token that is not valid here, with nothing else of it; `None` where it has none.
pub(super) fn subject(token: &str) -> Option<String> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let payload = token.split('.').nth(1)?;
    let claims: Json = serde_json::from_slice(&base64_url(payload)?).ok()?;
    Some(name(claims.get("sub")?.as_str()?, MAX_NAME)).filter(|name| !name.is_empty())
}

/// A text from outside as one short line.
pub(super) fn name(text: &str, most: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect::<String>().trim().to_owned()
}

/// RFC 4648, 5, without padding.
fn base64_url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xFFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_not_valid_still_names_somebody() {
        // {"sub":"lena-7?>"} and {"sub":"a\u0000\nb"}, {"sub":7}, [].
        for (payload, expected) in [
            ("eyJzdWIiOiJsZW5hLTc_PiJ9", Some("lena-7?>")),
            ("eyJzdWIiOiJhXHUwMDAwXG5iIn0", Some("ab")),
            ("eyJzdWIiOjd9", None),
            ("W10", None),
            ("e", None),
            ("=", None),
            ("", None),
        ] {
            assert_eq!(subject(&format!("x.{payload}.y")).as_deref(), expected, "{payload}");
        }
        for rubbish in ["", ".", "a.b", &format!("a.{}.c", "e".repeat(MAX_TOKEN_BYTES))] {
            assert_eq!(subject(rubbish), None, "{rubbish:.20}");
        }
    }

    #[test]
    fn a_name_from_outside_is_one_short_line() {
        assert_eq!(name(" Mozilla/5.0\r\n[x]\u{1b}[31m ", 40), "Mozilla/5.0[x][31m");
        assert_eq!(name(&"\u{e4}".repeat(500), 64).chars().count(), 64);
    }
}
