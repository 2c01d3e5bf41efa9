//! Detects secrets among the settings, and masks their values.
//!
//! Owns the patterns. The client library hides five names of its own and prints the rest, including
//! private keys in PEM, so its `Debug` is never used.
//!
//! A name is matched by its parts and not by a list, so that a secret property of a later
//! librdkafka is masked too. The price is that a harmless value such as `ssl.key.location` is
//! masked as well.

use std::borrow::Cow;

/// Printed in place of a secret.
const MASK: &str = "***";

/// Parts of a property's name which show that its value is, or may contain, a secret.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passphrase",
    "secret",
    "pem",
    "token",
    "key.",
    "jaas",
    "credential",
    "oauthbearer.config",
];

/// Whether the value of a property must never be printed. Errs on the side of secrecy: an unknown
/// name with one of the parts counts as a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// The value in its printable form.
pub(super) fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret(name) {
        Cow::Borrowed(MASK)
    } else {
        mask_userinfo(value)
    }
}

/// The text with the user information in every URL masked: `http://user:word@host` becomes
/// `http://***@host`.
pub(crate) fn mask_userinfo(text: &str) -> Cow<'_, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme_end) = rest.find("://").map(|at| at + 3) {
        masked.push_str(&rest[..scheme_end]);
        rest = &rest[scheme_end..];
        let authority_end = rest
            .find(|c: char| matches!(c, '/' | '?' | '#' | ',') || c.is_whitespace())
            .unwrap_or(rest.len());
        if let Some(at) = rest[..authority_end].rfind('@') {
            masked.push_str(MASK);
            rest = &rest[at..];
        }
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}
