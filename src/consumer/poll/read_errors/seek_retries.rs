//! Seeks partitions with read errors back to their next offset.
//!
//! After some errors librdkafka continues behind the record that it could not deliver. A seek to
//! the next offset that intake expects repeats the read, once a second: either the error is gone,
//! or it is reported again and the health shows it.

use crate::consumer::poll::rebalance::RebalanceContext;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a partition is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Partitions with read errors. An entry is removed after a time without errors.
#[derive(Default)]
pub(crate) struct SeekRetries {
    partitions: HashMap<(String, i32), FailedRead>,
    rebalances: u64,
}

/// A partition with a read error.
struct FailedRead {
    /// The offset of the error, used if no other offset is known.
    offset: i64,
    /// When it was sought back last.
    tried_at: Instant,
    /// Whether the seek is still to be done.
    is_due: bool,
}

impl SeekRetries {
    /// Notes that an error arrived in place of a record.
    pub(crate) fn schedule(
        &mut self,
        consumer: &BaseConsumer<RebalanceContext>,
        topic: &str,
        partition: i32,
        offset: i64,
    ) {
        let now = Instant::now();
        let failed = self
            .partitions
            .entry((topic.to_owned(), partition))
            .or_insert(FailedRead {
                offset,
                tried_at: now - RETRY_INTERVAL,
                is_due: true,
            });
        (failed.offset, failed.is_due) = (offset, true);
        self.seek_due(consumer);
    }

    /// Seeks the partitions that are due.
    pub(crate) fn seek_due(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        if self.partitions.is_empty() {
            return;
        }
        let rebalances = consumer.context().rebalances();
        let has_rebalanced = std::mem::replace(&mut self.rebalances, rebalances) != rebalances;
        let now = Instant::now();
        for ((topic, partition), failed) in &mut self.partitions {
            let is_time = now.duration_since(failed.tried_at) >= RETRY_INTERVAL;
            if failed.is_due && (is_time || has_rebalanced) {
                (failed.tried_at, failed.is_due) = (now, false);
                seek_to_next(consumer, topic, *partition, failed.offset);
            }
        }
        let is_kept =
            |failed: &FailedRead| failed.is_due || failed.tried_at.elapsed() < 2 * RETRY_INTERVAL;
        self.partitions.retain(|_, failed| is_kept(failed));
    }
}

/// Seeks the client to the partition's next offset.
fn seek_to_next(
    consumer: &BaseConsumer<RebalanceContext>,
    topic: &str,
    partition: i32,
    offset: i64,
) {
    let next = match consumer.context().assignments().get(topic, partition) {
        Some(assigned) if assigned.held.is_none() => assigned.next.or(assigned.committed),
        Some(_) | None => return,
    };
    let next = next.unwrap_or(offset);
    if next < 0 {
        return;
    }
    // Does not block: the client executes requests in order.
    let sought = consumer.seek(topic, partition, Offset::Offset(next), Duration::ZERO);
    if let Err(error) = sought {
        tracing::debug!(topic, partition, %error, "the client keeps its own position");
    }
}
