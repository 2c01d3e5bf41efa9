//! Advances past offsets that hold no record: transaction markers.
//!
//! A committed transaction ends with a marker, which takes an offset but is no record (KIP-98). At
//! the end of a partition the committed offset would stay below it, and tools would show a lag of
//! one for ever. Aborted records and compacted ranges are passed in the same way.
//!
//! # Example
//!
//! A transaction wrote the offsets 0 and 1, and its marker has offset 2. The end of the partition
//! is 3, while the last record is 1: without this, 2 would be committed and the lag would stay 1.

use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::settings::StopWhen;
use crate::consumer::shared::Shared;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the client's positions are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Advances past transaction markers. Used by the poll thread.
pub(crate) struct TransactionMarkers {
    shared: Arc<Shared>,
    /// When the positions were checked last.
    checked_at: Instant,
}

impl TransactionMarkers {
    /// The first check is due after the interval.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            checked_at: Instant::now(),
        }
    }

    /// Advances to the client's positions at an interval. All records below them were taken, on
    /// this thread, and are tracked.
    pub(crate) fn advance(&mut self, consumer: &BaseConsumer<RebalanceContext>) {
        // A run to the end receives the ends as events, and the position is one past them.
        let has_end_events = self.shared.settings.stop_when == StopWhen::UntilEnd;
        if has_end_events || self.checked_at.elapsed() < CHECK_INTERVAL {
            return;
        }
        self.checked_at = Instant::now();
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
            // The client counts an error in place of a record as a record.
            let is_sure = assigned.is_taken() && !assigned.is_gated && !assigned.has_erred;
            let known = assigned.next.max(assigned.committed);
            if is_sure && known.is_none_or(|known| position > known) {
                // Before the first record it is unknown whether the log still has the committed
                // offset.
                assigned.next = assigned.next.map(|_| position);
                let epoch = assigned.partition.epoch;
                self.shared.tracker().advance(epoch, position);
            }
        }
    }
}
