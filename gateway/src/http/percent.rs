//! Percent-encoding of a text that becomes a part of a URI, and its decoding.

use std::fmt::Write;

/// Percent-encodes everything but the unreserved characters of RFC 3986: letters, digits and
/// `-._~`. The result is one segment of a path, or one value of a query.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    push_percent_encoded(&mut encoded, text);
    encoded
}

/// Appends a text as [`percent_encoded`] encodes it.
pub(crate) fn push_percent_encoded(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            write!(into, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
}

/// Decodes `%41` to `A`. A `%` that no two hexadecimal digits follow stays as it is.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    decoded
}

/// Whether a query is UTF-8 once it is decoded. Readers of forms replace what is not, and would
/// look for a text that nobody sent.
pub(crate) fn is_utf8_query(query: Option<&str>) -> bool {
    query.is_none_or(|query| std::str::from_utf8(&percent_decoded(query.as_bytes())).is_ok())
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_other_texts_kept() {
        for (text, expected) in [
            ("", ""),
            ("a%41%c3%A9", "aA\u{e9}"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%%41", "%A"),
            ("%zz%2", "%zz%2"),
            ("%2541", "%41"),
        ] {
            assert_eq!(
                percent_decoded(text.as_bytes()),
                expected.as_bytes(),
                "{text}"
            );
        }
    }
}
