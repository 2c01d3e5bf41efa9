//! A delivery's identity as 32 bytes, for stores that need short keys of one length.
//!
//! Ids and sources are arbitrary text of any length; a digest has a fixed length and nothing to
//! quote.
//!
//! A stored digest is compared for as long as rows are kept, and by all releases that share a
//! store. Therefore it may never have another value for the same key; a test pins it.

use crate::inbox::InboxKey;
use sha2::{Digest, Sha256};

/// SHA-256 of the parts, each preceded by its length, so that no two lists of parts produce the
/// same text.
pub(crate) fn digest(key: &InboxKey) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in [&key.group, &key.handler, &key.source, &key.id] {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part.as_bytes());
    }
    sha.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key(parts: [&str; 4]) -> InboxKey {
        let [group, handler, source, id] = parts;
        InboxKey::new(group, handler, source, id)
    }

    #[test]
    fn deliveries_that_differ_in_any_part_differ_in_their_digest() {
        let long = "x".repeat(100_000);
        let keys = [
            ["g", "h", "s", "i"],
            ["gh", "", "s", "i"],
            ["g", "hs", "", "i"],
            ["", "g", "h", "si"],
            ["g", "h", "s", "i\0"],
            ["g", "h", "s", ""],
            ["g", "h", "s", &long],
            ["", "", "", ""],
        ];
        let digests: HashSet<[u8; 32]> = keys.iter().map(|parts| digest(&key(*parts))).collect();
        assert_eq!(digests.len(), keys.len());
    }

    /// If a later release computed another digest, it would forget every stored delivery.
    #[test]
    fn the_digest_of_a_delivery_never_changes() {
        let digest = digest(&key(["payments", "authorize", "/shop/orders", "1"]));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "369fc99c9cd7dfb95773f0ce5eca4552dcef36a07f28a632a8157f62f7791b1f"
        );
    }
}
