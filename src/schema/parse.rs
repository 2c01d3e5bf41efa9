//! Parses JSON.

use serde::de::DeserializeOwned;

/// Parses JSON. It is checked as UTF-8 as a whole, which is much faster than string by string. For
/// other bytes the parser reports the fault.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    }
}
