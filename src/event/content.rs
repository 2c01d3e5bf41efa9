//! Digests of the content of a record or an event, in 16 bytes.
//!
//! Defines content: a redelivery, a copy in a retry topic and a mirrored record keep it. Headers do
//! not count, as every hop adds to them.

use sha2::{Digest, Sha256};
use std::fmt;

/// A digest of content: the first 16 bytes of a SHA-256 over its parts, each preceded by its
/// length.
///
/// Equal digests mean equal contents, unless someone spent the work of 2^64 digests on a collision.
/// An inbox stores the digest beside the identity, so that two different events of the same id are
/// noticed. Digests never change between versions of this library, as they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentDigest([u8; 16]);

impl ContentDigest {
    /// The length of a digest in bytes.
    pub const BYTES: usize = 16;

    /// The digest of an event: of its type and its payload's bytes.
    ///
    /// ```
    /// use evenkeel::event::ContentDigest;
    ///
    /// let digest = ContentDigest::of_event("shop.paid.v1", br#"{"cents":100}"#);
    /// assert_ne!(digest, ContentDigest::of_event("shop.paid.v1", br#"{"cents":101}"#));
    /// ```
    pub fn of_event(ty: &str, data: &[u8]) -> Self {
        Self::of([Some(ty.as_bytes()), Some(data)])
    }

    /// The digest of a record that is no event: of its timestamp in milliseconds, key and value.
    pub fn of_record(timestamp_ms: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let time = timestamp_ms.map(i64::to_be_bytes);
        Self::of([time.as_ref().map(|time| &time[..]), key, value])
    }

    /// Restores a digest that was stored as [`ContentDigest::as_bytes`]. None if the length is
    /// wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    fn of<const N: usize>(parts: [Option<&[u8]>; N]) -> Self {
        let mut sha = Sha256::new();
        for part in parts {
            // No part has this length, so that an absent key differs from an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            sha.update(length.to_be_bytes());
            sha.update(part.unwrap_or_default());
        }
        let mut digest = [0; Self::BYTES];
        digest.copy_from_slice(&sha.finalize()[..Self::BYTES]);
        Self(digest)
    }
}

/// Formats the digest as 32 hexadecimal digits.
impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of a record that is no event, as source and id: its position and its content. Thus
/// a recreated topic, or one of the same name on another cluster, has other records than the first
/// at the same offsets.
///
/// The inbox stores raw and fallback handlers' deliveries under this identity. `content` is
/// [`ContentDigest::of_record`].
///
/// ```
/// use evenkeel::event::{ContentDigest, raw_identity};
///
/// let content = ContentDigest::of_record(None, None, Some(b"not an event"));
/// let (source, id) = raw_identity("orders", 3, 7, content);
/// assert_eq!(source, "orders/3");
/// assert_eq!(id, format!("7#{content}"));
/// ```
pub fn raw_identity(
    topic: &str,
    partition: i32,
    offset: i64,
    content: ContentDigest,
) -> (String, String) {
    (
        format!("{topic}/{partition}"),
        format!("{offset}#{content}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn contents_differ_in_every_part() {
        let records = [
            (Some(1), Some("k"), Some("v")),
            (Some(2), Some("k"), Some("v")),
            (None, Some("k"), Some("v")),
            (Some(1), None, Some("v")),
            (Some(1), Some(""), Some("v")),
            (Some(1), Some("kv"), Some("")),
            (Some(1), Some("k"), None),
            (Some(1), Some("k"), Some("")),
        ];
        let digests = records.map(|(time, key, value)| {
            let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
            ContentDigest::of_record(time, bytes(key), bytes(value)).to_string()
        });
        assert_eq!(BTreeSet::from(digests).len(), records.len());
    }

    /// Stored digests and ids are compared with those of later releases.
    #[test]
    fn a_digest_never_changes() {
        let record = ContentDigest::of_record(Some(1_700_000_000_000), Some(b"k"), Some(b"v"));
        assert_eq!(record.to_string(), "0ad5e2c490db322a495cedc62e63b798");
        let event = ContentDigest::of_event("test.happened.v1", b"{}");
        assert_eq!(event.to_string(), "5636e41cff280999fd4fd6f58658a6a6");
        let bytes = ContentDigest::from_bytes(event.as_bytes());
        assert_eq!(bytes, Some(event));
        assert_eq!(ContentDigest::from_bytes(b"short"), None);
        let identity = raw_identity("orders", 3, 7, record);
        assert_eq!(identity.0, "orders/3");
        assert_eq!(identity.1, format!("7#{record}"));
    }
}
