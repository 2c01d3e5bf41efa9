//! The service's own function from key to partition.
//!
//! The property `partitioner` selects one of the client's own hashes; a function of the service
//! replaces them.

use rdkafka::producer::Partitioner;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A function from topic, key and the topic's number of partitions to a partition, from 0.
///
/// The client calls it for each record with a key and without a fixed partition, on the caller's
/// thread or its own, several at a time. It must be fast, must not block, and must return the same
/// partition for the same arguments, also after a restart. See
/// [`PublisherSettings::with_partitioner`](crate::publisher::PublisherSettings::with_partitioner).
pub type PartitionOf = dyn Fn(&str, &[u8], u32) -> u32 + Send + Sync;

/// The service's own partitioner, if it has one.
#[derive(Clone, Default)]
pub(in crate::publisher) struct OwnPartitioner(Option<Arc<PartitionOf>>);

impl OwnPartitioner {
    pub(in crate::publisher) fn new(own: Option<Arc<PartitionOf>>) -> Self {
        Self(own)
    }

    pub(in crate::publisher) fn get(&self) -> Option<&Self> {
        self.0.as_ref().map(|_| self)
    }
}

impl Partitioner for OwnPartitioner {
    /// Called for records with a key, on the caller's thread or the client's. An unusable result
    /// refuses the record: no other partition would keep the order of its key.
    fn partition(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        count: i32,
        _: impl Fn(i32) -> bool,
    ) -> i32 {
        // The client refuses the number after the last partition at once. For librdkafka's "none"
        // the record would wait until it times out.
        let refused = count;
        let (Some(own), Some(key), Ok(partitions)) = (&self.0, key, u32::try_from(count)) else {
            return refused;
        };
        // A panic must not unwind into the client.
        match catch_unwind(AssertUnwindSafe(|| own(topic, key, partitions))) {
            Ok(partition) if partition < partitions => partition as i32,
            Ok(partition) => {
                tracing::error!(
                    topic,
                    partition,
                    partitions,
                    "the service's partitioner returned a partition that does not exist; the \
                     record is refused"
                );
                refused
            }
            Err(_) => {
                tracing::error!(
                    topic,
                    "the service's partitioner panicked; the record is refused"
                );
                refused
            }
        }
    }
}
