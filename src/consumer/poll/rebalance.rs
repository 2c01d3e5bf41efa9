//! The client's callbacks for rebalances.
//!
//! They run on the poll thread, inside the client's poll. On assign, a partition's queue is
//! forwarded before the assignment takes effect. On revoke, no further record starts, running ones
//! are drained up to a deadline, settled offsets are committed, and only then is the partition
//! released.
//!
//! The same for both protocols: cooperative (KIP-429) and broker-assigned (KIP-848) rebalances
//! revoke only the partitions that move, eager ones all. A *lost* assignment (the session expired,
//! a fenced member) is revoked without a drain and a commit: another member may already own the
//! partitions.
//!
//! # A revoke in time
//!
//! With `r` for
//! [`ConsumerSettings::revoke_timeout`](crate::consumer::ConsumerSettings::revoke_timeout):
//!
//! 1. 0: the partitions are removed from the assignments and fenced. Waiting records are dropped by
//!    their workers, and retries end.
//! 2. up to `r`: running handlers finish. Other partitions' handlers run on; no record is taken.
//! 3. up to `r`: the settled offsets are committed, again and again while the coordinator refuses.
//! 4. The epochs end: in the committing thread, the retry reader and the offset tracker.
//! 5. The client is told to give the partitions up, after this callback has returned.
//!
//! Results of handlers that are still running then belong to no epoch and are ignored.

use crate::consumer::commit::{
    COMMIT_WITHIN, COMMITTED_WITHIN, CommitRequest, OwnedPartition, PositionQuery, owned_of,
};
use crate::consumer::retry_reader::reader;
use crate::consumer::shared::Shared;
use crate::consumer::shared::mailbox::Message;
use crate::consumer::state::assignments::{Assigned, Assignments, Drain};
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::epochs_of;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::connection_fault::LastFault;
use crate::kafka::native::{Committed, ForwardTarget, begin_at, committed, forward, unforward};
use crate::kafka::{error_log, log};
use crate::recovery::retry_topic;
use crate::telemetry::Metric;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long an assignment retries the lookup of committed offsets while a coordinator loads or
/// moves. After that, records settled above them are redelivered.
///
/// A coordinator that moves to another broker loads its offsets first, which takes seconds in large
/// clusters. Without the metadata, records would be repeated that a little patience saves.
const COMMITTED_TRIES: Duration = Duration::from_secs(15);
/// How long to wait between two lookups.
const COMMITTED_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long to wait before a refused commit is tried again.
///
/// A revoke has seconds, and a refusal by a moving coordinator passes in milliseconds.
const COMMIT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The queues that partitions are forwarded to.
#[derive(Clone, Copy)]
pub(crate) struct Targets {
    /// For partitions whose records may be handled.
    pub(crate) open: ForwardTarget,
    /// For gated partitions.
    pub(crate) gated: ForwardTarget,
}

/// The client's context. It tracks this member's assignments.
pub(crate) struct RebalanceContext {
    pub(crate) shared: Arc<Shared>,
    /// Requests to the committing thread.
    pub(crate) orders: mpsc::Sender<CommitRequest>,
    /// Requests to the retry reader.
    pub(crate) followed: mpsc::Sender<reader::ReaderRequest>,
    /// See [`RebalanceContext::assignments`].
    assignments: Mutex<Assignments>,
    /// The open query for positions of partitions that are to be resumed.
    asked: Mutex<Option<PositionQuery>>,
    /// Where partitions are forwarded. None outside of the run.
    targets: Mutex<Option<Targets>>,
    /// Set after the last commit, when only the client is left to be closed.
    closing: AtomicBool,
    /// Whether the group took partitions away while a stop drained and committed them.
    lost_at_end: AtomicBool,
    /// Errors that the client reported since the last call of `take_complaints`.
    complaints: Mutex<Vec<KafkaError>>,
    /// The number of assignments and revokes.
    rebalances: AtomicU64,
    /// Where a partition without a committed offset starts. None if that is an error.
    reset: Option<Offset>,
    /// Why the last connection failed.
    pub(crate) fault: LastFault,
}

impl RebalanceContext {
    /// The context of a client that is about to be created. `reset` is its `auto.offset.reset`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        orders: mpsc::Sender<CommitRequest>,
        followed: mpsc::Sender<reader::ReaderRequest>,
        reset: Option<&str>,
    ) -> Self {
        Self {
            reset: match reset {
                Some("smallest" | "earliest" | "beginning") => Some(Offset::Beginning),
                Some("largest" | "latest" | "end") => Some(Offset::End),
                _ => None,
            },
            shared,
            orders,
            followed,
            assignments: Mutex::default(),
            asked: Mutex::default(),
            targets: Mutex::default(),
            closing: AtomicBool::new(false),
            lost_at_end: AtomicBool::new(false),
            complaints: Mutex::default(),
            rebalances: AtomicU64::new(0),
            fault: LastFault::default(),
        }
    }

    /// Sets the queues that partitions are forwarded to. None before and after the run.
    pub(crate) fn set_targets(&self, targets: Option<Targets>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// The queues that partitions are forwarded to.
    pub(crate) fn targets(&self) -> Option<Targets> {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a revoke neither drains nor commits: both were done.
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
    pub(crate) fn asked(&self) -> MutexGuard<'_, Option<PositionQuery>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of assignments and revokes.
    pub(crate) fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Relaxed)
    }

    /// Takes the errors that the client reported outside of its poll.
    pub(crate) fn take_complaints(&self) -> Vec<KafkaError> {
        std::mem::take(
            &mut *self
                .complaints
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
        let asked = self
            .orders
            .send(CommitRequest::Commit(epochs.to_vec(), answer));
        asked.is_ok() && answered.recv_timeout(within).unwrap_or(false)
    }

    /// [`RebalanceContext::commit`] before a revoke. A refused commit is tried again until
    /// `deadline`: the coordinator may be loading or moving.
    fn commit_before_revoke(&self, epochs: &[Epoch], deadline: Instant) -> bool {
        loop {
            if self.commit(epochs, COMMIT_WITHIN) {
                return true;
            }
            if Instant::now() + COMMIT_AGAIN_AFTER >= deadline {
                return false;
            }
            std::thread::sleep(COMMIT_AGAIN_AFTER);
        }
    }

    /// Takes over partitions: gated, from the committed offset, under new epochs. Blocks for the
    /// lookup of committed offsets. If that fails, the client looks them up itself, and only the
    /// knowledge of records settled above them is missing.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let shared = &self.shared;
        let targets = self.targets();
        let mut assignments = self.assignments();
        assignments.joined = true;
        assignments.awaited = false;
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let retry = self.retry_partition(&mut assignments, topic);
            // Its waiting keys must be known before its first record is handled.
            if let Some(targets) = targets
                && let Err(error) = forward(consumer, topic, partition, targets.gated)
            {
                // Its records would arrive on the consumer's queue, which no thread reads.
                tracing::error!(
                    group = shared.group,
                    topic,
                    partition,
                    %error,
                    "the partition's queue cannot be forwarded"
                );
            }
            let received = metrics::counter!(
                Metric::Received.name(),
                "group" => shared.group.clone(),
                "topic" => topic.to_owned()
            );
            assignments.insert(topic, partition, received, retry);
        }
        if list.count() > 0 {
            self.resume(consumer, list, &mut assignments);
        }
        let owned = |element: &TopicPartitionListElem<'_>| {
            let assigned = assignments.get(element.topic(), element.partition())?;
            Some(owned_of(assigned))
        };
        let elements = list.elements();
        let owned = elements.iter().filter_map(owned).flatten().collect();
        self.own(owned);
        tracing::info!(group = shared.group, partitions = %names(list), "partitions assigned");
        shared.readiness.assigned();
    }

    /// The retry partition of a partition that is being assigned. The reader finds out whether it
    /// exists.
    pub(crate) fn retry_partition(
        &self,
        assignments: &mut Assignments,
        topic: &str,
    ) -> RetryPartition {
        let name = retry_topic(&self.shared.group, topic);
        RetryPartition::new(name.into(), assignments.next_epoch())
    }

    /// Registers partitions for commits, and their retry partitions for reading.
    ///
    /// Both threads learn of a partition before its first record can arrive: the queue of a gated
    /// partition is not read before this call.
    pub(crate) fn own(&self, owned: Vec<OwnedPartition>) {
        let followed = owned
            .iter()
            .filter_map(|owned| owned.parked_of.clone())
            .collect();
        // Both threads end after this one.
        let _ = self.orders.send(CommitRequest::Assigned(owned));
        let _ = self
            .followed
            .send(reader::ReaderRequest::Assigned(followed));
        self.shared.retry_topics.wake_reader();
    }

    /// Reads the committed offsets and the settled offsets above them.
    ///
    /// For a partition without a committed offset, the configured reset decides, as without this
    /// library. The position is set explicitly with its leader epoch, so that the client verifies
    /// it.
    fn resume(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
        assignments: &mut Assignments,
    ) {
        let ids = self.topic_ids(consumer, list);
        let mut found = self.committed(consumer, list);
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Some(assigned) = assignments.get(topic, partition) else {
                continue;
            };
            let at = found
                .iter()
                .position(|found| found.topic == topic && found.partition == partition);
            let Some(at) = at else {
                assigned.stand(&self.shared, &Committed::default(), ids.get(topic).copied());
                continue;
            };
            let found = found.swap_remove(at);
            assigned.stand(&self.shared, &found, ids.get(topic).copied());
            let begins = match found.offset {
                Some(offset) => Some(Offset::Offset(offset)),
                None if found.error.is_none() => self.reset,
                None => None,
            };
            if let Some(begins) = begins
                && let Err(error) = begin_at(list, topic, partition, begins, found.leader_epoch)
            {
                tracing::debug!(
                    group = self.shared.group,
                    topic,
                    partition,
                    %error,
                    "the client looks up the offset itself"
                );
            }
        }
    }

    /// The committed offsets of these partitions. Empty after retries have failed.
    fn committed(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Vec<Committed> {
        let until = Instant::now() + COMMITTED_TRIES;
        loop {
            let error = match committed(consumer, list, COMMITTED_WITHIN) {
                Ok(found) => return found,
                Err(error) => error,
            };
            if Instant::now() >= until || self.closing.load(Ordering::Relaxed) {
                tracing::warn!(
                    group = self.shared.group,
                    %error,
                    "the committed offsets cannot be read; records settled above them are handled again"
                );
                return Vec::new();
            }
            std::thread::sleep(COMMITTED_AGAIN_AFTER);
        }
    }

    /// Gives partitions up. Blocks for at most the revoke timeout, plus one commit. When it
    /// returns, no record of them runs or is committed, or the deadline has passed.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
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
            self.shared.readiness.expelled(reason);
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
            tracing::warn!(
                group = self.shared.group,
                "the group took the partitions away before the stop committed all settled offsets; some records will be redelivered"
            );
        }
        if lost || is_closing {
            self.fence(&epochs);
        } else if !epochs.is_empty() {
            let within = self.shared.settings.revoke_timeout;
            let drained = self.fence(&epochs).wait(within);
            let committed = self.commit_before_revoke(&epochs, began + within);
            if !drained || !committed {
                tracing::warn!(
                    group = self.shared.group,
                    drained,
                    committed,
                    "revoke timed out: some records will be redelivered"
                );
            }
        }
        // The committing thread may have ended if only the client is left to be closed.
        let _ = self.orders.send(CommitRequest::Forget(epochs.clone()));
        let _ = self
            .followed
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
        tracing::info!(
            group = self.shared.group,
            partitions = %names(list),
            lost,
            took_ms = began.elapsed().as_millis() as u64,
            "partitions revoked"
        );
    }

    /// Counts a rebalance.
    fn count(&self, kind: &'static str) {
        metrics::counter!(
            Metric::Rebalances.name(),
            "group" => self.shared.group.clone(),
            "kind" => kind
        )
        .increment(1);
    }
}

/// The partitions for a log line.
fn names(list: &TopicPartitionList) -> String {
    let names: Vec<String> = list
        .elements()
        .iter()
        .map(|element| format!("{}/{}", element.topic(), element.partition()))
        .collect();
    names.join(" ")
}

impl ClientContext for RebalanceContext {
    /// Forwards the client's log, and remembers what it says about the last failed connection.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
        self.fault.note_line(level, facility, message);
    }

    /// Called by the client on any of its threads. The poll thread takes the complaint.
    fn error(&self, error: KafkaError, reason: &str) {
        self.fault.note_error(&error, reason);
        error_log::report_client_error(&error, reason);
        self.complaints
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
                self.count("assigned");
                self.assign(consumer, list);
            }
            Rebalance::Revoke(list) => {
                self.count(if consumer.assignment_lost() {
                    "lost"
                } else {
                    "revoked"
                });
                self.revoke(consumer, list);
            }
            Rebalance::Error(error) => {
                tracing::error!(group = self.shared.group, %error, "the rebalance failed")
            }
        }
    }
}
