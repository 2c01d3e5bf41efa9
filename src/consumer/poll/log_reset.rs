//! Handles log resets: logs that were truncated, or whose topic was deleted and created again.
//!
//! Runs on the poll thread. After a log reset the same offsets belong to other records, so that
//! nothing known about them is valid. The partition's epoch ends, and its running handlers are
//! drained. The group's position is set to where the log restarts and committed, and the partition
//! continues from there under a new epoch. Records are redelivered rather than lost.
//!
//! # How a reset is noticed
//!
//! | evidence | by |
//! |---|---|
//! | an id in the commit metadata that is not the topic's | the assignment ([`Assigned::restore_progress`]) |
//! | another id of a topic in use | the committing thread, every 5 s |
//! | an offset below one that was received | intake |
//! | a later leader epoch than the committed one | intake; the brokers verify it (KIP-320) |
//! | the client's own offset reset below the committed offset | intake |
//!
//! # Steps, one per turn of the poll thread
//!
//! 1. Forget: nothing more is committed under the old epoch.
//! 2. Pause: the partition is paused, its running handlers are drained.
//! 3. Reset: the new position is committed, even below the old one.
//! 4. Resume: the partition is read from there under a new epoch.
//!
//! A step that fails is repeated. Other partitions continue meanwhile.
//!
//! # Example
//!
//! The group has handled a partition up to 120 and committed 120 under leader epoch 4. Its leader
//! is lost, and a replica that ends at 100 becomes the leader with epoch 5: an unclean election.
//! Producers append, and the log reaches 150. The first record that the client would return is 120,
//! of epoch 5. It is not taken: the brokers are asked for the end of epoch 4, which is 100, so that
//! the client reads on from below 120. Intake sees a record below the committed offset, and the
//! position follows it: the records that replaced the lost ones are handled.

use crate::consumer::commit::{COMMIT_WITHIN, CommitRequest, PositionReset, TopicPartition};
use crate::consumer::poll::rebalance::RebalanceContext;
use crate::consumer::poll::telemetry;
use crate::consumer::shared::Shared;
use crate::consumer::state::assignments::{Assigned, LogReset, PauseState, PositionLoss};
use crate::consumer::state::commit_metadata::{self, Log, SettledAbove, Tag};
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::partition::Partition;
use crate::kafka::native::{Committed, TopicId, topic_ids};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// How long the lookup of topic ids may take. Without them a recreated topic is not recognised.
const TOPIC_IDS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the lookup of a log's first offset may take.
const FIRST_OFFSET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a failed reset is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long to wait before a partition that its topic no longer has is looked up again.
const ABSENT_RECHECK_INTERVAL: Duration = Duration::from_secs(10);

impl Assigned {
    /// Takes over the group's progress: the committed offset and the settled offsets above it,
    /// unless they belong to an earlier topic of that name.
    ///
    /// Called once per epoch, before the first record. If nothing is known, the partition starts
    /// where the client starts it, and records that were settled above are handled again.
    pub(crate) fn restore_progress(
        &mut self,
        shared: &Shared,
        found: &Committed,
        id: Option<TopicId>,
    ) {
        let Partition {
            topic,
            partition,
            epoch,
            ..
        } = &*self.partition;
        let mut log = Log {
            topic_id: id,
            leader_epoch: None,
        };
        self.committed = found.offset;
        if let Some(offset) = found.offset {
            let tag = Tag {
                group: &shared.group,
                topic,
                partition: *partition,
            };
            let decoded = commit_metadata::decode(tag, offset, &found.metadata);
            if decoded.topic_id.zip(id).is_some_and(|(was, is)| was != is) {
                self.fall_back = Some(LogReset::ToTheBeginning);
                shared.position_lost(
                    (topic, *partition),
                    PositionLoss::Recreated,
                    Some(offset),
                    None,
                );
            } else {
                log.leader_epoch = found.leader_epoch.max(decoded.settled_above.leader_epoch());
                self.committed_under = log.leader_epoch;
                self.settled_above = decoded.settled_above;
            }
        }
        let mut tracker = shared.tracker();
        tracker.assign(*epoch, self.settled_above.runs());
        tracker.reads(*epoch, log);
    }

    /// Discards the settled offsets: a record of a later leader shows that they belong to other
    /// records.
    pub(crate) fn discard_settled(&mut self, shared: &Shared, offset: i64) {
        let partition = &self.partition;
        let place = (&*partition.topic, partition.partition);
        let end = self.settled_above.runs().last().map(|run| run.end);
        shared.position_lost(place, PositionLoss::Truncated, end, Some(offset));
        self.settled_above = SettledAbove::default();
        shared.tracker().forget_above(partition.epoch);
    }
}

/// Whether the error means that the partition does not exist. The client reports that without a
/// wait.
fn is_unknown_partition(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopic)
    )
}

impl RebalanceContext {
    /// Looks up the current ids of these partitions' topics.
    ///
    /// Brokers before 2.8 report none.
    pub(crate) fn topic_ids(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> HashMap<String, TopicId> {
        let elements = list.elements();
        let topics: BTreeSet<&str> = elements.iter().map(|element| element.topic()).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let ids = topic_ids(consumer.client(), &topics, TOPIC_IDS_TIMEOUT);
        let known = ids.iter().map(|(topic, id)| (topic, *id));
        self.shared.control.set_topic_ids(known);
        ids
    }

    /// Advances the reset of partitions with a log reset by one step. Returns whether any is
    /// unfinished.
    pub(crate) fn advance_log_resets(&self, consumer: &BaseConsumer<Self>) -> bool {
        let recreated = self.shared.take_recreated();
        let (mut running, mut drained) = (Vec::new(), Vec::new());
        let mut epochs: Vec<Epoch> = Vec::new();
        let mut has_any = false;
        for assigned in self.assignments().all() {
            let partition = &assigned.partition;
            if recreated.contains(&partition.epoch) {
                assigned.fall_back = Some(LogReset::ToTheBeginning);
                let place = (&*partition.topic, partition.partition);
                let from = assigned.next.or(assigned.committed);
                self.shared
                    .position_lost(place, PositionLoss::Recreated, from, None);
            }
            if !assigned.must_be_reread() || assigned.is_absent() {
                continue;
            }
            has_any = true;
            let place: TopicPartition = (Arc::clone(&partition.topic), partition.partition);
            match assigned.held {
                Some(PauseState::Drained { .. }) => drained.push(place),
                Some(PauseState::Draining { .. }) => {}
                None => {
                    let epoch = assigned.fall_back.map(|_| partition.epoch);
                    epochs.extend(epoch);
                    running.push(place);
                }
            }
        }
        if !running.is_empty() {
            // Offsets settled before the reset must not be committed for the new records.
            let _ = self.commit_requests.send(CommitRequest::Forget(epochs));
            self.pause(consumer, &running);
        }
        if has_any {
            self.advance_pauses();
        }
        let is_paused = |place: &TopicPartition| self.shared.control.is_paused(&place.0, place.1);
        drained.retain(|place| !is_paused(place));
        if !drained.is_empty() && self.is_reset_due() {
            self.resume(consumer, &drained);
        }
        has_any
    }

    /// Whether failed resets are due to be tried again. If so, the time of the next try is set.
    fn is_reset_due(&self) -> bool {
        let mut assignments = self.assignments();
        let now = Instant::now();
        let is_time = assignments.reread_at.is_none_or(|at| at <= now);
        if is_time {
            assignments.reread_at = Some(now + RETRY_INTERVAL);
        }
        is_time
    }

    /// Commits where partitions with a log reset continue. Returns the partitions that may be
    /// resumed now. The others are tried again later. A recreated topic may have fewer partitions,
    /// so that each is looked up on its own.
    ///
    /// The lookups are done here, on the poll thread, with deadlines. A broker that does not answer
    /// ends the round after one deadline, so that other partitions wait at most that long.
    pub(crate) fn commit_reset_positions(
        &self,
        consumer: &BaseConsumer<Self>,
        mut places: Vec<TopicPartition>,
    ) -> Vec<TopicPartition> {
        let mut list = TopicPartitionList::new();
        let mut resets = Vec::new();
        for (topic, partition) in &places {
            let fall_back = self
                .assignments()
                .get(topic, *partition)
                .and_then(|assigned| assigned.fall_back);
            if let Some(fall_back) = fall_back {
                list.add_partition(topic, *partition);
                resets.push((Arc::clone(topic), *partition, fall_back));
            }
        }
        if resets.is_empty() {
            return places;
        }
        let ids = self.topic_ids(consumer, &list);
        let mut positions = Vec::with_capacity(resets.len());
        let mut counts: HashMap<Arc<str>, Option<usize>> = HashMap::new();
        let mut answers = true;
        for (topic, partition, fall_back) in resets {
            let place = (Arc::clone(&topic), partition);
            let (offset, leader_epoch) = match fall_back {
                LogReset::To {
                    offset,
                    leader_epoch,
                } => (offset, leader_epoch),
                LogReset::ToTheBeginning => {
                    // The first request without an answer ends the round: this thread serves all
                    // partitions.
                    let beginning = answers.then(|| {
                        consumer.fetch_watermarks(&topic, partition, FIRST_OFFSET_TIMEOUT)
                    });
                    match beginning {
                        Some(Ok((beginning, _))) => (beginning, None),
                        failed => {
                            if let Some(Err(error)) = failed {
                                answers = is_unknown_partition(&error);
                                let count = counts.entry(Arc::clone(&topic));
                                let count = answers.then(|| {
                                    *count.or_insert_with(|| partition_count(consumer, &topic))
                                });
                                match count.flatten() {
                                    Some(count) if partition as usize >= count => {
                                        self.mark_absent(&topic, partition, count);
                                    }
                                    _ => self.report_unknown_beginning(&topic, partition, &error),
                                }
                            }
                            places.retain(|other| *other != place);
                            continue;
                        }
                    }
                }
            };
            let topic_id = ids.get(&*topic).copied();
            positions.push(PositionReset {
                topic,
                partition,
                offset,
                log: Log {
                    topic_id,
                    leader_epoch,
                },
            });
        }
        if positions.is_empty() {
            return places;
        }
        let (answer, answered) = mpsc::channel();
        let sent = self
            .commit_requests
            .send(CommitRequest::CommitReset(positions, answer));
        match sent.is_ok() && answered.recv_timeout(COMMIT_WITHIN).unwrap_or(false) {
            true => places,
            false => Vec::new(),
        }
    }

    /// Reports that the first offset of the log is unknown.
    fn report_unknown_beginning(&self, topic: &str, partition: i32, error: &KafkaError) {
        let is_new = self
            .shared
            .readiness
            .cannot_read_now(topic, partition, &error.to_string());
        if is_new {
            telemetry::beginning_unknown(&self.shared.group, topic, partition, error);
        }
    }

    /// Excludes a partition that its topic no longer has from all waits. The group may keep it
    /// assigned as long as its members stay: librdkafka's cooperative assignor assigns unknown
    /// partitions to their previous owner.
    ///
    /// Such a partition blocks neither a bounded run nor the resets of others.
    fn mark_absent(&self, topic: &str, partition: i32, partitions: usize) {
        let mut assignments = self.assignments();
        let Some(assigned) = assignments.get(topic, partition) else {
            return;
        };
        let is_new = assigned
            .absent_until
            .replace(Instant::now() + ABSENT_RECHECK_INTERVAL)
            .is_none();
        self.shared.readiness.can_read(&assigned.partition);
        if is_new {
            telemetry::partition_absent(&self.shared.group, topic, partition, partitions);
        }
    }
}

/// The number of a topic's partitions. None if the topic does not exist or the brokers do not
/// answer.
fn partition_count(consumer: &BaseConsumer<RebalanceContext>, topic: &str) -> Option<usize> {
    let metadata = consumer
        .fetch_metadata(Some(topic), FIRST_OFFSET_TIMEOUT)
        .ok()?;
    let topic = metadata.topics().first()?;
    let count = topic.partitions().len();
    (topic.error().is_none() && count > 0).then_some(count)
}
