//! Chooses the worker of a record, and computes the hash that finds its lane there.
//!
//! The upper half of the hash selects the worker and the whole of it finds the lane, so that the
//! lanes of one worker spread over its table. The hash is seeded per run: a producer cannot aim
//! keys at one worker. It is not the hash that the producer's partitioner uses, which would put all
//! keys of one partition into few workers.

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
    /// A partitioner with a random seed, for the workers of these settings.
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
    ///
    /// A keyless record under [`KeylessOrdering::Unordered`] and every record under
    /// [`RecordOrdering::Unordered`] are spread by `turn`; they have a lane of their own each.
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
    ///
    /// Multiplication and shift instead of a division (Lemire, 2016). Always below the number of
    /// workers.
    pub(crate) fn worker(&self, hash: u64) -> usize {
        (((hash >> 32) * self.workers) >> 32) as usize
    }
}
