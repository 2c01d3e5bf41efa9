//! What a revoke does: it fences the partitions, drains running handlers, commits and ends the
//! epochs.
//!
//! # A revoke in time
//!
//! With `r` for
//! [`ConsumerSettings::revoke_timeout`](crate::consumer::ConsumerSettings::revoke_timeout):
//!
//! 1. At 0: the partitions are removed from the assignments and fenced. Waiting records are dropped
//!    by their workers, and retries end.
//! 2. Until `r`: running handlers finish. Other partitions' handlers run on; no record is taken.
//! 3. Until `r`: the settled offsets are committed; a commit that the coordinator refuses is
//!    repeated.
//! 4. The epochs end: in the committing thread, the retry reader and the offset tracker.
//! 5. The client gives the partitions up after this callback has returned.
//!
//! Results of handlers that are still running then belong to no epoch and are ignored.

use crate::consumer::commit::{COMMIT_WITHIN, CommitRequest};
use crate::consumer::poll::rebalance::{RebalanceContext, telemetry};
use crate::consumer::retry_reader::reader;
use crate::consumer::state::assignments::Assigned;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::epochs_of;
use crate::kafka::native::unforward;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long to wait before a refused commit is tried again.
///
/// A revoke has seconds, and a refusal by a moving coordinator passes in milliseconds.
const COMMIT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl RebalanceContext {
    /// Gives partitions up. Blocks for at most the revoke timeout, plus one commit. When it
    /// returns, no record of them runs or is committed, or the deadline has passed.
    pub(super) fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        // Asked before the unassignment, which resets it.
        let lost = consumer.assignment_lost();
        let removed: Vec<Assigned> = {
            let mut assignments = self.assignments();
            assignments.awaited = true;
            list.elements()
                .iter()
                .filter_map(|element| assignments.remove(element.topic(), element.partition()))
                .collect()
        };
        // The partitions of a deleted topic are revoked in the same way, but not all partitions.
        if lost && self.assignments().all().next().is_none() {
            let reason = "the group took the partitions of this member away; it joins again";
            self.shared.readiness.report_expelled(reason);
        }
        let epochs: Vec<Epoch> = removed
            .iter()
            .flat_map(|assigned| epochs_of(&assigned.partition))
            .collect();
        removed
            .iter()
            .for_each(|assigned| assigned.partition.fence());
        let began = Instant::now();
        let is_closing = self.closing.load(Ordering::Relaxed);
        if lost && !is_closing && self.shared.end.has_begun() {
            self.lost_at_end.store(true, Ordering::Relaxed);
            telemetry::lost_before_last_commit(&self.shared.group);
        }
        if lost || is_closing {
            self.fence(&epochs);
        } else if !epochs.is_empty() {
            let within = self.shared.settings.revoke_timeout;
            let drained = self.fence(&epochs).wait(within);
            let committed = self.commit_before_revoke(&epochs, began + within);
            if !drained || !committed {
                telemetry::revoke_timed_out(&self.shared.group, drained, committed);
            }
        }
        // The committing thread may have ended if only the client is left to be closed.
        let _ = self
            .commit_requests
            .send(CommitRequest::Forget(epochs.clone()));
        let _ = self
            .reader_requests
            .send(reader::ReaderRequest::Revoked(epochs.clone()));
        self.shared.retry_topics.wake_reader();
        {
            let mut tracker = self.shared.tracker();
            epochs.iter().for_each(|epoch| tracker.revoke(*epoch));
        }
        self.forget_pauses(consumer, &removed);
        for assigned in &removed {
            self.shared.readiness.can_read(&assigned.partition);
            // An unknown partition has no queue.
            let _ = unforward(
                consumer,
                &assigned.partition.topic,
                assigned.partition.partition,
            );
        }
        telemetry::partitions_revoked(&self.shared.group, list, lost, began.elapsed());
    }

    /// [`RebalanceContext::commit`] before a revoke. A refused commit is tried again until
    /// `deadline`: the coordinator may be loading or moving.
    fn commit_before_revoke(&self, epochs: &[Epoch], deadline: Instant) -> bool {
        loop {
            if self.commit(epochs, COMMIT_WITHIN) {
                return true;
            }
            if Instant::now() + COMMIT_RETRY_INTERVAL >= deadline {
                return false;
            }
            std::thread::sleep(COMMIT_RETRY_INTERVAL);
        }
    }
}
