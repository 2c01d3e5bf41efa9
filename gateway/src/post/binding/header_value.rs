//! The value of a `ce-*` header.

use crate::http::percent_decoded;
use std::borrow::Cow;

/// The attribute in a header's value: quotes are removed, then percent-encoding, once.
///
/// A `%` that no two hexadecimal digits follow is kept: several SDKs send values unencoded. Bytes
/// above ASCII are read as UTF-8, for the same reason.
///
/// # Errors
/// Why the value cannot be read: an open quote, or bytes that are not UTF-8.
pub(super) fn decode(value: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let unquoted = match value.trim_ascii() {
        [b'"', rest @ ..] => Cow::Owned(unquote(rest)?),
        value => Cow::Borrowed(value),
    };
    let decoded = match unquoted.contains(&b'%') {
        true => Cow::Owned(percent_decoded(&unquoted)),
        false => unquoted,
    };
    let text = match decoded {
        Cow::Borrowed(text) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Cow::Owned(text) => String::from_utf8(text).ok().map(Cow::Owned),
    };
    text.ok_or("is not UTF-8")
}

/// The content of a quoted string, from after its first quote.
fn unquote(rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut content = Vec::with_capacity(rest.len());
    let mut bytes = rest.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' if bytes.len() == 0 => return Ok(content),
            b'"' => return Err("has text after its closing quote"),
            b'\\' => content.push(bytes.next().ok_or("ends with a backslash")?),
            byte => content.push(byte),
        }
    }
    Err("has no closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_by_the_binding() {
        for (value, expected) in [
            ("plain/value:1#2", Some("plain/value:1#2")),
            // The binding's own example.
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            ("euro%20%e2%82%ac", Some("euro €")),
            ("%61%62", Some("ab")),
            ("%2541", Some("%41")),
            ("\"a \\\"b\\\\ %20c\"", Some("a \"b\\  c")),
            ("\"\"", Some("")),
            ("", Some("")),
            ("  a  ", Some("a")),
            // As SDKs send it that do not encode.
            ("100%", Some("100%")),
            ("100% sure", Some("100% sure")),
            ("%zz%2", Some("%zz%2")),
            ("a b", Some("a b")),
            ("é", Some("é")),
            // An overlong encoding of a space.
            ("%C0%A0", None),
            ("%FF", None),
            ("\"open", None),
            ("\"a\" b", None),
            ("\"a\\", None),
        ] {
            assert_eq!(
                decode(value.as_bytes()).ok().as_deref(),
                expected,
                "{value}"
            );
        }
        decode(b"caf\xE9").expect_err("ISO 8859-1");
    }
}
