//! The end of a run on the poll thread: fence, drain, commit.
//!
//! The order of [`PollThread::shut_down`] is that of a revoke of everything; the client is polled
//! meanwhile, because the group's coordinator expects it. The end is reported before the client is
//! closed, which may take as long as the brokers do not answer.

use crate::consumer::commit::COMMIT_WITHIN;
use crate::consumer::poll::{EVENTS_INTERVAL, PollThread, RetryThreads, telemetry};
use crate::consumer::report::ConsumerError;
use crate::consumer::retry_reader::reader;
use crate::consumer::shared::run_end::{Deadlines, left_until};
use crate::consumer::state::assignments::Drain;
use crate::consumer::state::offset_tracker::Epoch;
use rdkafka::consumer::Consumer;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

impl PollThread {
    /// Drains running handlers and commits settled offsets. Returns whether both were done in time.
    ///
    /// After an error of the run the settled offsets are committed too, unless the client failed or
    /// a position is in doubt: then they may belong to other records.
    pub(super) fn shut_down(
        &mut self,
        failure: Option<&ConsumerError>,
        retry_threads: RetryThreads,
    ) -> bool {
        let shared = Arc::clone(&self.shared);
        let deadlines: Deadlines = shared.end.begin();
        // The threads end by themselves after the last sender is dropped.
        let _ = retry_threads.requests.send(reader::ReaderRequest::Close);
        shared.retry_topics.wake_reader();
        shared.readiness.stop();
        self.reconciler.stop();
        let member = self.client.consumer.context();
        let epochs = member.fence_all();
        let mut drain = member.fence(&epochs);
        let drained = self.drain(&mut drain, deadlines.handlers);
        let may_commit = match failure {
            Some(ConsumerError::Fatal(_)) => shared.may_commit_after_failure(),
            Some(_) | None => true,
        };
        let committed = !may_commit || self.commit_last(&epochs, deadlines.commit);
        if !drained {
            telemetry::stopped_with_running_handlers(&shared.group, shared.in_flight());
        }
        let left = left_until(deadlines.commit).max(EVENTS_INTERVAL);
        if retry_threads.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            // The thread waits, with a client of its own, for brokers that do not answer. The stop
            // does not depend on it.
            tracing::debug!(
                group = shared.group,
                "stopped before the reader of the retry topics was done"
            );
        }
        let is_lost = self.client.consumer.context().is_lost_at_end();
        // Offsets that did not fit into the last commits are handled again.
        drained && committed && !is_lost && !shared.is_cut()
    }

    /// Commits the settled offsets of these epochs. Retries until the deadline: the group refuses
    /// commits during a rebalance, which happens whenever several members stop together.
    ///
    /// Serves the client's events between two tries, as the rebalance continues only with this
    /// member.
    fn commit_last(&mut self, epochs: &[Epoch], deadline: Instant) -> bool {
        loop {
            let within = left_until(deadline).min(COMMIT_WITHIN);
            if self.client.consumer.context().commit(epochs, within) {
                return true;
            }
            std::thread::sleep(EVENTS_INTERVAL);
            // The rebalance continues only while this member takes part in it.
            if Instant::now() >= deadline || self.serve_events().is_err() {
                return false;
            }
        }
    }

    /// Waits for running handlers while it serves events: this member stays in the group until the
    /// end.
    ///
    /// The drain of a stop differs from that of a revoke: it does not block, because the partitions
    /// stay assigned and the group expects this member's polls until it leaves.
    fn drain(&mut self, drain: &mut Drain, deadline: Instant) -> bool {
        loop {
            if drain.wait(EVENTS_INTERVAL) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            if let Err(error) = self.serve_events() {
                telemetry::drain_failed(&self.shared.group, &error);
                return false;
            }
        }
    }
}
