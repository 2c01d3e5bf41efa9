//! Passes what stands on the log and is no record: the markers of transactions.
//!
//! Runs on the poll thread. The client gives none of them out, but its position goes past them as they come. Without this the
//! marker behind the last record would be a lag of 1 for ever.

use super::engine::Engine;
use super::rebalance::Member;
use super::settings::Bound;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the client's positions are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The way past markers.
pub(crate) struct Markers {
    engine: Arc<Engine>,
    looked_at: Instant,
}

impl Markers {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            looked_at: Instant::now(),
        }
    }

    /// Notes from time to time how far the client is. Everything below its position was taken, on this thread, and is in the
    /// books.
    pub(crate) fn pass(&mut self, consumer: &BaseConsumer<Member>) {
        // A run to the end is told the ends, and the position goes one past those.
        let is_told = self.engine.settings.bound == Bound::UntilEnd;
        if is_told || self.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked_at = Instant::now();
        let Ok(positions) = consumer.position() else {
            return;
        };
        let mut assignments = consumer.context().assignments();
        for element in positions.elements() {
            let Offset::Offset(position) = element.offset() else {
                continue;
            };
            let Some(assigned) = assignments.get(element.topic(), element.partition()) else {
                continue;
            };
            // An error in a record's place counts as a record in the client's position.
            let is_sure = assigned.is_taken() && !assigned.is_gated && !assigned.has_erred;
            let stand = assigned.next.max(assigned.committed);
            if is_sure && stand.is_none_or(|stand| position > stand) {
                // Before the first record it is yet to be seen whether the log still has what was committed.
                assigned.next = assigned.next.map(|_| position);
                let epoch = assigned.partition.epoch;
                self.engine.ledger().advance(epoch, position);
            }
        }
    }
}
