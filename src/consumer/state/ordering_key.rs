//! Computes the key that orders a record with others of its partition.
//!
//! The same function decides the lane, the parked set of the retry topic and the key of a held dead
//! letter, so that a record waits behind the same records in all three. The hash that chooses the
//! worker follows the same rules ([`worker_partitioner`](super::worker_partitioner)).

use crate::consumer::settings::{ConsumerSettings, KeylessOrdering, RecordOrdering};

/// The ordering key of records without a key, if they are ordered. A record whose key has these
/// bytes merely waits with them.
const KEYLESS: &[u8] = b"\0evenkeel: records without a key\0";

/// The ordering key of a record. None for a record that is ordered with no other.
pub(crate) fn ordering_key<'a>(
    settings: &ConsumerSettings,
    key: Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    match (settings.ordering, key) {
        (RecordOrdering::Unordered, _) => None,
        (RecordOrdering::Key, Some(key)) => Some(key),
        (RecordOrdering::Key, None) if settings.keyless_ordering != KeylessOrdering::Partition => {
            None
        }
        // An empty key is a key.
        (RecordOrdering::Key, None) => Some(KEYLESS),
        (RecordOrdering::Partition, _) => Some(b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyless_records_and_empty_keys_are_independent() {
        let mut settings = ConsumerSettings::new("g", ["t"]);
        assert_eq!(ordering_key(&settings, None), None);
        settings.keyless_ordering = KeylessOrdering::Partition;
        let keyless = ordering_key(&settings, None);
        assert!(keyless.is_some() && keyless != ordering_key(&settings, Some(b"")));
        settings.ordering = RecordOrdering::Partition;
        assert_eq!(
            ordering_key(&settings, None),
            ordering_key(&settings, Some(b"k"))
        );
    }
}
