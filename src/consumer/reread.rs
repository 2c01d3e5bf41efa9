//! Partitions that the client cannot read now are read again, and at the right place.
//!
//! Runs on the poll thread. The client takes an error in a record's place for a record where that is taken in a batch: its position
//! would be behind a record that nobody has seen, and it goes on there after a rebalance. So its position is set back after each
//! error, which has it try again at once; that is done once a second for each partition, and sooner where a rebalance came.

use super::rebalance::Member;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a partition is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Partitions that cannot be read, until they were not for a while.
#[derive(Default)]
pub(crate) struct Rereading {
    partitions: HashMap<(String, i32), Failed>,
    rebalances: u64,
}

struct Failed {
    /// Where the error came, where nothing else is known.
    offset: i64,
    tried_at: Instant,
    /// Whether its position is yet to be set back.
    is_due: bool,
}

impl Rereading {
    /// An error came in the place of a record.
    pub(crate) fn failed(
        &mut self,
        consumer: &BaseConsumer<Member>,
        topic: &str,
        partition: i32,
        offset: i64,
    ) {
        let now = Instant::now();
        let failed = self
            .partitions
            .entry((topic.to_owned(), partition))
            .or_insert(Failed {
                offset,
                tried_at: now - AGAIN_AFTER,
                is_due: true,
            });
        (failed.offset, failed.is_due) = (offset, true);
        self.mind(consumer);
    }

    /// Sets positions back whose time has come.
    pub(crate) fn mind(&mut self, consumer: &BaseConsumer<Member>) {
        if self.partitions.is_empty() {
            return;
        }
        let rebalances = consumer.context().rebalances();
        let has_rebalanced = std::mem::replace(&mut self.rebalances, rebalances) != rebalances;
        let now = Instant::now();
        for ((topic, partition), failed) in &mut self.partitions {
            let is_time = now.duration_since(failed.tried_at) >= AGAIN_AFTER;
            if failed.is_due && (is_time || has_rebalanced) {
                (failed.tried_at, failed.is_due) = (now, false);
                set_back(consumer, topic, *partition, failed.offset);
            }
        }
        let is_kept =
            |failed: &Failed| failed.is_due || failed.tried_at.elapsed() < 2 * AGAIN_AFTER;
        self.partitions.retain(|_, failed| is_kept(failed));
    }
}

/// Has the client go on where it stood.
fn set_back(consumer: &BaseConsumer<Member>, topic: &str, partition: i32, offset: i64) {
    let stand = match consumer.context().assignments().get(topic, partition) {
        Some(assigned) if assigned.held.is_none() => assigned.next.or(assigned.committed),
        Some(_) | None => return,
    };
    let stand = stand.unwrap_or(offset);
    if stand < 0 {
        return;
    }
    // Without a wait: what is asked of the client is done in order.
    let sought = consumer.seek(topic, partition, Offset::Offset(stand), Duration::ZERO);
    if let Err(error) = sought {
        tracing::debug!(topic, partition, %error, "the client keeps its own position");
    }
}
