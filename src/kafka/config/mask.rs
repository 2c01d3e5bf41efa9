//! Which settings are secrets, and how a value is printed.
//!
//! Owns the patterns. The client library hides five names of its own and prints the rest, private keys in PEM included,
//! so its `Debug` is never used.

use std::borrow::Cow;

/// What is printed in a secret's place.
const MASK: &str = "***";

/// Parts of a property's name that say that its value is a secret, or may hold one.
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

/// Whether a property's value must never be printed.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// The value as it may be printed.
pub(super) fn masked<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if is_secret(name) {
        Cow::Borrowed(MASK)
    } else {
        mask_userinfo(value)
    }
}

/// The text with the user information of every URL in it masked: `http://user:word@host` becomes `http://***@host`.
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
