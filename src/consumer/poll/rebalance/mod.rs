//! The client's callbacks for rebalances.
//!
//! They run on the poll thread, inside the client's poll. On assign, a partition's queue is
//! forwarded before the assignment takes effect. On revoke, no further record starts, running ones
//! are drained up to a deadline, settled offsets are committed, and only then is the partition
//! released.
//!
//! Cooperative (KIP-429) and broker-assigned (KIP-848) rebalances revoke only the partitions that
//! move; eager ones revoke all. The steps are the same. A *lost* assignment (the session expired, a
//! fenced member) is revoked without a drain and a commit: another member may already own the
//! partitions.
//!
//! - `assignment`: what an assignment does
//! - `revoke`: what a revoke does
//! - `surplus_member`: members without partitions under KIP-848
//! - `telemetry`: what rebalances log and count

mod assignment;
mod revoke;
pub(super) mod surplus_member;
mod telemetry;

use crate::consumer::commit::{CommitRequest, PositionQuery};
use crate::consumer::retry_reader::reader;
use crate::consumer::shared::Shared;
use crate::consumer::shared::mailbox::Message;
use crate::consumer::state::assignments::{Assignments, Drain};
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::epochs_of;
use crate::kafka::connection_fault::LastFault;
use crate::kafka::native::ForwardTarget;
use crate::kafka::{error_log, log};
use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The queues that partitions are forwarded to.
#[derive(Clone, Copy)]
pub(crate) struct ForwardTargets {
    /// For partitions whose records may be handled.
    pub(crate) open: ForwardTarget,
    /// For gated partitions.
    pub(crate) gated: ForwardTarget,
}

/// The client's context. It tracks this member's assignments.
pub(crate) struct RebalanceContext {
    pub(crate) shared: Arc<Shared>,
    /// Requests to the committing thread.
    pub(crate) commit_requests: mpsc::Sender<CommitRequest>,
    /// Requests to the retry reader.
    pub(crate) reader_requests: mpsc::Sender<reader::ReaderRequest>,
    /// See [`RebalanceContext::assignments`].
    assignments: Mutex<Assignments>,
    /// The open query for positions of partitions that are to be resumed.
    position_query: Mutex<Option<PositionQuery>>,
    /// Where partitions are forwarded. None outside of the run.
    targets: Mutex<Option<ForwardTargets>>,
    /// Set after the last commit, when only the client is left to be closed.
    closing: AtomicBool,
    /// Whether the group took partitions away while a stop drained and committed them.
    lost_at_end: AtomicBool,
    /// Errors that the client reported since the last call of `take_client_errors`.
    client_errors: Mutex<Vec<KafkaError>>,
    /// The number of assignments and revokes.
    rebalances: AtomicU64,
    /// Where a partition without a committed offset starts. None if that is an error.
    reset: Option<Offset>,
    /// Why the last connection failed.
    pub(crate) last_fault: LastFault,
}

impl RebalanceContext {
    /// The context of a client that is about to be created. `reset` is its `auto.offset.reset`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        commit_requests: mpsc::Sender<CommitRequest>,
        reader_requests: mpsc::Sender<reader::ReaderRequest>,
        reset: Option<&str>,
    ) -> Self {
        Self {
            reset: match reset {
                Some("smallest" | "earliest" | "beginning") => Some(Offset::Beginning),
                Some("largest" | "latest" | "end") => Some(Offset::End),
                _ => None,
            },
            shared,
            commit_requests,
            reader_requests,
            assignments: Mutex::default(),
            position_query: Mutex::default(),
            targets: Mutex::default(),
            closing: AtomicBool::new(false),
            lost_at_end: AtomicBool::new(false),
            client_errors: Mutex::default(),
            rebalances: AtomicU64::new(0),
            last_fault: LastFault::default(),
        }
    }

    /// Sets the queues that partitions are forwarded to. None before and after the run.
    pub(crate) fn set_targets(&self, targets: Option<ForwardTargets>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// The queues that partitions are forwarded to.
    pub(crate) fn targets(&self) -> Option<ForwardTargets> {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a revoke neither drains nor commits: both were done. What is assigned is left
    /// unread.
    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether partitions were revoked at the end of the run before their settled offsets were
    /// committed.
    pub(crate) fn is_lost_at_end(&self) -> bool {
        self.lost_at_end.load(Ordering::Relaxed)
    }

    /// The assignments. Only the poll thread locks them.
    pub(crate) fn assignments(&self) -> MutexGuard<'_, Assignments> {
        self.assignments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The open query for positions. Only the poll thread locks it.
    pub(crate) fn position_query(&self) -> MutexGuard<'_, Option<PositionQuery>> {
        self.position_query
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of assignments and revokes.
    pub(crate) fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Relaxed)
    }

    /// Takes the errors that the client reported outside of its poll.
    pub(crate) fn take_client_errors(&self) -> Vec<KafkaError> {
        std::mem::take(
            &mut *self
                .client_errors
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Fences every assigned partition for a stop: no further record starts.
    pub(crate) fn fence_all(&self) -> Vec<Epoch> {
        let mut epochs = Vec::new();
        for assigned in self.assignments().all() {
            assigned.partition.fence();
            epochs.extend(epochs_of(&assigned.partition));
        }
        epochs
    }

    /// Has the workers drop the waiting records of these epochs. Each worker answers when none of
    /// their records runs.
    pub(crate) fn fence(&self, epochs: &[Epoch]) -> Drain {
        let (answer, answers) = mpsc::channel();
        for worker in &self.shared.workers {
            worker.send(Message::Fence(epochs.to_vec(), answer.clone()));
        }
        Drain {
            answers,
            open: self.shared.workers.len(),
        }
    }

    /// Commits the settled offsets of these epochs. Blocks for at most `within`. Returns false on
    /// failure or timeout.
    ///
    /// A timeout is a failure although the commit may still succeed: the caller cannot know.
    pub(crate) fn commit(&self, epochs: &[Epoch], within: Duration) -> bool {
        let (answer, answered) = mpsc::channel();
        let sent = self
            .commit_requests
            .send(CommitRequest::Commit(epochs.to_vec(), answer));
        sent.is_ok() && answered.recv_timeout(within).unwrap_or(false)
    }
}

impl ClientContext for RebalanceContext {
    /// Forwards the client's log, and records the cause of the last failed connection from it.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
        self.last_fault.note_line(level, facility, message);
    }

    /// Called by the client on any of its threads. The poll thread takes the complaint.
    fn error(&self, error: KafkaError, reason: &str) {
        self.last_fault.note_error(&error, reason);
        error_log::report_client_error(&error, reason);
        self.client_errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(error);
    }
}

impl ConsumerContext for RebalanceContext {
    /// Called by the client inside of a poll, on the poll thread, before the change takes effect.
    ///
    /// librdkafka calls it for the eager and the cooperative protocol alike; the binding assigns
    /// and unassigns after it, incrementally or not.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                telemetry::rebalanced(&self.shared.group, "assigned");
                self.assign(consumer, list);
            }
            Rebalance::Revoke(list) => {
                let kind = if consumer.assignment_lost() {
                    "lost"
                } else {
                    "revoked"
                };
                telemetry::rebalanced(&self.shared.group, kind);
                self.revoke(consumer, list);
            }
            Rebalance::Error(error) => {
                telemetry::rebalance_failed(&self.shared.group, &error);
            }
        }
    }
}
