//! Percent-encoding of a text that becomes a part of a URI.

use std::fmt::Write;

/// Percent-encodes everything but the unreserved characters of RFC 3986: letters, digits and
/// `-._~`. The result is one segment of a path, or one value of a query.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    encoded
}
