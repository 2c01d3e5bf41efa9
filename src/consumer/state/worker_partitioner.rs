//! Chooses the worker of a record, and computes the hash that finds its lane there.

use crate::consumer::settings::{ConsumerSettings, KeylessOrdering, RecordOrdering};
use foldhash::fast::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Hashes keys for one run. Clones return the same hashes.
#[derive(Clone)]
pub(crate) struct WorkerPartitioner {
    hasher: RandomState,
    ordering: RecordOrdering,
    keyless: KeylessOrdering,
    workers: u64,
}

impl WorkerPartitioner {
    pub(crate) fn new(settings: &ConsumerSettings) -> Self {
        Self {
            hasher: RandomState::default(),
            ordering: settings.ordering,
            keyless: settings.keyless_ordering,
            workers: settings.workers() as u64,
        }
    }

    /// The seed of a topic's key hashes: the same key in two topics has two lanes.
    pub(crate) fn seed(&self, topic: &str) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// The hash of a record. `turn` spreads records that are ordered with no other.
    pub(crate) fn hash(&self, seed: u64, partition: i32, key: Option<&[u8]>, turn: u64) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match (self.ordering, key) {
            (RecordOrdering::Key, Some(key)) => {
                hasher.write_u64(seed);
                hasher.write(key);
            }
            (RecordOrdering::Partition, _) => hasher.write_u64(seed.wrapping_add(partition as u64)),
            (RecordOrdering::Key, None) if self.keyless == KeylessOrdering::Partition => {
                hasher.write_u64(seed.wrapping_add(partition as u64));
            }
            (RecordOrdering::Key | RecordOrdering::Unordered, _) => hasher.write_u64(turn),
        }
        hasher.finish()
    }

    /// The worker that owns the lanes of this hash.
    pub(crate) fn worker(&self, hash: u64) -> usize {
        (((hash >> 32) * self.workers) >> 32) as usize
    }
}
