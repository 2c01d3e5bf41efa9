//! Which worker a record goes to, and the hash that finds its lane there.

use super::settings::{ConsumerSettings, Keyless, Ordering};
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// A run's hashing of keys. Copies of it hash alike.
#[derive(Clone)]
pub(crate) struct Routing {
    hasher: RandomState,
    ordering: Ordering,
    keyless: Keyless,
    workers: u64,
}

impl Routing {
    pub(crate) fn new(settings: &ConsumerSettings) -> Self {
        Self {
            hasher: RandomState::default(),
            ordering: settings.ordering,
            keyless: settings.keyless,
            workers: settings.workers() as u64,
        }
    }

    /// What is mixed into key hashes, so that one key of two topics makes two lanes.
    pub(crate) fn seed(&self, topic: &str) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// The hash of a record. `turn` spreads those that are ordered with no other.
    pub(crate) fn hash(&self, seed: u64, partition: i32, key: Option<&[u8]>, turn: u64) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match (self.ordering, key) {
            (Ordering::Key, Some(key)) => {
                hasher.write_u64(seed);
                hasher.write(key);
            }
            (Ordering::Partition, _) => hasher.write_u64(seed.wrapping_add(partition as u64)),
            (Ordering::Key, None) if self.keyless == Keyless::Partition => {
                hasher.write_u64(seed.wrapping_add(partition as u64));
            }
            (Ordering::Key | Ordering::Unordered, _) => hasher.write_u64(turn),
        }
        hasher.finish()
    }

    /// The worker that owns the lanes of this hash.
    pub(crate) fn worker(&self, hash: u64) -> usize {
        (((hash >> 32) * self.workers) >> 32) as usize
    }
}
