//! What an assignment does: forwards the partitions' queues, registers them, and sets where they
//! start.

use crate::consumer::commit::{COMMITTED_WITHIN, CommitRequest, OwnedPartition, owned_of};
use crate::consumer::poll::rebalance::{RebalanceContext, telemetry};
use crate::consumer::retry_reader::reader;
use crate::consumer::state::assignments::Assignments;
use crate::consumer::state::retry_partition::RetryPartition;
use crate::kafka::native::{Committed, begin_at, committed, forward};
use crate::recovery::retry_topic;
use rdkafka::consumer::BaseConsumer;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an assignment retries the lookup of committed offsets while a coordinator loads or
/// moves. After that, records settled above them are redelivered.
///
/// A coordinator that moves to another broker loads its offsets first, which takes seconds in large
/// clusters. Without the commits' metadata, settled records are handled again.
const COMMITTED_OFFSETS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait between two lookups.
const COMMITTED_OFFSETS_RETRY_INTERVAL: Duration = Duration::from_millis(200);

impl RebalanceContext {
    /// Takes over partitions: gated, under new epochs, from their committed offsets. Blocks for the
    /// lookup of these offsets. If it fails, the client looks them up itself, and records settled
    /// above them are handled again.
    ///
    /// What is assigned to a member that is leaving is left alone: the client gives it up, unread,
    /// when it leaves.
    pub(super) fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        if self.closing.load(Ordering::Relaxed) {
            return;
        }
        let shared = &self.shared;
        let targets = self.targets();
        let mut assignments = self.assignments();
        assignments.joined = true;
        assignments.awaited = false;
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let retry = self.retry_partition(&mut assignments, topic);
            // Gated: its waiting keys must be known before its first record is handled.
            if let Some(targets) = targets
                && let Err(error) = forward(consumer, topic, partition, targets.gated)
            {
                // Its records would arrive on the consumer's queue, which no thread reads.
                telemetry::queue_not_forwarded(&shared.group, topic, partition, &error);
            }
            let received = telemetry::received_counter(&shared.group, topic);
            assignments.insert(topic, partition, received, retry);
        }
        if list.count() > 0 {
            self.set_start_positions(consumer, list, &mut assignments);
        }
        let owned = |element: &TopicPartitionListElem<'_>| {
            let assigned = assignments.get(element.topic(), element.partition())?;
            Some(owned_of(assigned))
        };
        let elements = list.elements();
        let owned = elements.iter().filter_map(owned).flatten().collect();
        self.register(owned);
        telemetry::partitions_assigned(&shared.group, list);
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
    pub(crate) fn register(&self, owned: Vec<OwnedPartition>) {
        let retry_partitions = owned
            .iter()
            .filter_map(|owned| owned.parked_of.clone())
            .collect();
        // Both threads end after this one.
        let _ = self.commit_requests.send(CommitRequest::Assigned(owned));
        let _ = self
            .reader_requests
            .send(reader::ReaderRequest::Assigned(retry_partitions));
        self.shared.retry_topics.wake_reader();
    }

    /// Reads the committed offsets and the settled offsets above them.
    ///
    /// For a partition without a committed offset, the configured reset decides, as without this
    /// library. The position is set explicitly with its leader epoch, so that the client verifies
    /// it.
    fn set_start_positions(
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
                assigned.restore_progress(
                    &self.shared,
                    &Committed::default(),
                    ids.get(topic).copied(),
                );
                continue;
            };
            let found = found.swap_remove(at);
            assigned.restore_progress(&self.shared, &found, ids.get(topic).copied());
            let start = match found.offset {
                Some(offset) => Some(Offset::Offset(offset)),
                None if found.error.is_none() => self.reset,
                None => None,
            };
            if let Some(start) = start
                && let Err(error) = begin_at(list, topic, partition, start, found.leader_epoch)
            {
                telemetry::start_left_to_client(&self.shared.group, topic, partition, &error);
            }
        }
    }

    /// The committed offsets of these partitions. Empty after retries have failed.
    fn committed(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Vec<Committed> {
        let until = Instant::now() + COMMITTED_OFFSETS_TIMEOUT;
        loop {
            let error = match committed(consumer, list, COMMITTED_WITHIN) {
                Ok(found) => return found,
                Err(error) => error,
            };
            if Instant::now() >= until {
                telemetry::committed_offsets_unknown(&self.shared.group, &error);
                return Vec::new();
            }
            std::thread::sleep(COMMITTED_OFFSETS_RETRY_INTERVAL);
        }
    }
}
