//! Starts to read newly assigned retry partitions: from the committed offset, with the offsets
//! settled above it.
//!
//! The parked set starts from the group's own commit of the retry partition, exactly like a source
//! partition. If that commit belongs to another log (recreated, truncated), the whole log is read:
//! records are handled again rather than lost. If Kafka deleted unsettled entries, the parked set
//! keeps their number and the health reports it.

use crate::consumer::retry_reader::reader::RetryReader;
use crate::consumer::retry_reader::reader::entries::open_if_complete;
use crate::consumer::retry_reader::reader::lookup::{LookupAnswer, LookupResult, PartitionOffsets};
use crate::consumer::retry_reader::reader::read_errors::ReadError;
use crate::consumer::retry_reader::telemetry;
use crate::consumer::shared::retry_topics::{DeletionBounds, DispatchRequest};
use crate::consumer::state::assignments::PositionLoss;
use crate::consumer::state::commit_metadata::{self, Decoded, Log, Tag};
use crate::consumer::state::partition::Partition;
use crate::consumer::state::retry_partition::{APPEARED, RetryPartition, WITHOUT};
use crate::kafka::native::{Committed, TopicId, forward, set_leader_epoch};
use crate::recovery::parking::ParkedSet;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

/// How long to wait before a failed lookup is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a missing retry topic is looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// Partitions whose lookup failed, by topic and error: those of one answer are one line of the log.
type FailedLookups = BTreeMap<(Arc<str>, ReadError), Vec<i32>>;

impl RetryReader {
    /// Sends lookups of unknown retry partitions, and starts to read those that were answered.
    ///
    /// Called on every turn. The lookups themselves run elsewhere.
    pub(crate) fn process_lookups(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            self.take_answer(answer);
        }
        for (kind, topic, partitions) in self.unread.due() {
            self.lookups.start(topic, partitions, kind);
        }
    }

    /// Applies the answer of a lookup to each of its partitions that is still assigned.
    fn take_answer(&mut self, answer: LookupAnswer) {
        let mut failed = FailedLookups::default();
        for partition in answer.partitions {
            // It may have been revoked meanwhile.
            if !self.unread.answered(&partition) {
                continue;
            }
            let Some(retry) = &partition.retry else {
                continue;
            };
            match &answer.result {
                LookupResult::Found(offsets) => {
                    if let Err(error) = self.start_reading(&partition, offsets) {
                        self.look_up_later(&partition, retry, error.into(), &mut failed);
                    }
                }
                LookupResult::Appeared => {
                    telemetry::topic_appeared(self.logged(retry, partition.partition));
                    retry.set_gate(APPEARED);
                    self.shared.retry_topics.appeared.store(true, Release);
                }
                LookupResult::Failed(error) if !retry.is_open() => {
                    self.look_up_later(&partition, retry, error.clone(), &mut failed);
                }
                LookupResult::Absent | LookupResult::Failed(_) => {
                    self.open_without(&partition, retry)
                }
            }
        }
        for ((topic, error), partitions) in failed {
            telemetry::lookup_failed(&self.shared.group, &topic, &partitions, &error);
        }
    }

    /// Repeats the lookup later. The source partition stays gated: it is not known which of its
    /// keys wait.
    fn look_up_later(
        &mut self,
        partition: &Arc<Partition>,
        retry: &RetryPartition,
        error: ReadError,
        failed: &mut FailedLookups,
    ) {
        let number = partition.partition;
        if !self.read_errors.has(&retry.topic, number) {
            let of_topic = failed.entry((Arc::clone(&retry.topic), error.clone()));
            of_topic.or_default().push(number);
        }
        self.read_errors.add(&retry.topic, number, error);
        let at = Instant::now() + AGAIN_AFTER;
        self.unread.to_look_up.push((at, Arc::clone(partition)));
    }

    /// Opens the partition without a retry topic: no record can be parked or wait.
    ///
    /// The topic is looked up every five seconds. When it appears, the partition is gated and opened
    /// again, so that its records cannot overtake records that another member parked there.
    fn open_without(&mut self, partition: &Arc<Partition>, retry: &RetryPartition) {
        let at = Instant::now() + LOOKUP_INTERVAL;
        self.unread.without_topic.push((at, Arc::clone(partition)));
        if retry.is_open() {
            return;
        }
        telemetry::topic_absent(self.logged(retry, partition.partition));
        self.read_errors.remove(&retry.topic, partition.partition);
        retry.set_gate(WITHOUT);
        self.shared.intake.wake();
    }

    /// Starts reading a partition from these offsets. After an error of the client the lookup is
    /// repeated.
    ///
    /// The parked set and the log are set before the partition is assigned to the client, so that
    /// no entry arrives before them.
    fn start_reading(
        &mut self,
        partition: &Arc<Partition>,
        offsets: &PartitionOffsets,
    ) -> KafkaResult<()> {
        let Some(retry) = &partition.retry else {
            return Ok(());
        };
        let number = partition.partition;
        let offset_in = |list: &TopicPartitionList| -> KafkaResult<i64> {
            let found = list.find_partition(&retry.topic, number);
            let found = found.ok_or(ClientError::Canceled)?;
            found.error()?;
            Ok(found.offset().to_raw().unwrap_or(0).max(0))
        };
        let (low, end) = (offset_in(&offsets.beginnings)?, offset_in(&offsets.ends)?);
        let found = offsets
            .committed
            .iter()
            .find(|found| found.topic == *retry.topic && found.partition == number);
        if let Some(error) = found.and_then(|found| found.error) {
            return Err(ClientError::OffsetFetch(error));
        }
        let nothing = Committed::default();
        let found = found.unwrap_or(&nothing);
        let (committed, decoded) =
            self.usable_commit(partition, retry, found, offsets.topic_id, end);
        let wait_max = self.shared.settings.retry.park_delay_max();
        let wait_max_ms = i64::try_from(wait_max.as_millis()).unwrap_or(i64::MAX);
        let start = committed.unwrap_or(low).max(low);
        let is_committed = committed.is_some();
        let (settled, leader_epoch) = (
            decoded.settled_above.runs(),
            decoded.settled_above.leader_epoch(),
        );
        let mut state = ParkedSet::new(start, end, settled, wait_max_ms, is_committed);
        state.settled_in_epoch(leader_epoch);
        if let Some(committed) = committed {
            state.log_begins_at(low, committed);
        }
        if let Some(first) = state.first_lost() {
            telemetry::entries_lost(self.logged(retry, number), state.lost(), first);
        }
        retry.change(|set| *set = state);
        self.shared.report_loss(partition);
        let leader_epoch = committed.and(found.leader_epoch).max(leader_epoch);
        retry.set_log(Log {
            topic_id: offsets.topic_id,
            leader_epoch,
        });
        forward(&self.consumer, &retry.topic, number, self.queue.target())?;
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(&retry.topic, number, Offset::Offset(start))?;
        if committed == Some(start) {
            set_leader_epoch(&assigned, &retry.topic, number, leader_epoch)?;
        }
        self.consumer.incremental_assign(&assigned)?;
        let bounds = DeletionBounds::new(low, start);
        self.shared
            .retry_topics
            .bounds()
            .begin(&retry.topic, number, bounds);
        self.read_errors.remove(&retry.topic, number);
        open_if_complete(&self.shared, retry);
        let partitions = self.assigned.entry(Arc::clone(&retry.topic)).or_default();
        partitions.insert(number, Arc::clone(partition));
        let begun = DispatchRequest::Begun(Arc::clone(partition));
        self.shared.retry_topics.send_to_dispatcher(begun);
        Ok(())
    }

    /// The committed offset of a retry partition, with the offsets settled above it. The default if
    /// they belong to another log.
    ///
    /// Evidence of another log is another id of the topic, an offset beyond the end, or an earlier
    /// report that the position was lost.
    fn usable_commit(
        &self,
        partition: &Partition,
        retry: &RetryPartition,
        found: &Committed,
        id: Option<TopicId>,
        end: i64,
    ) -> (Option<i64>, Decoded) {
        let Some(offset) = found.offset else {
            return Default::default();
        };
        let tag = Tag {
            group: &self.shared.group,
            topic: &retry.topic,
            partition: partition.partition,
        };
        let decoded = commit_metadata::decode(tag, offset, &found.metadata);
        let lost = match decoded.topic_id.zip(id) {
            Some((was, is)) if was != is => PositionLoss::Recreated,
            _ if offset > end || retry.is_position_lost() => PositionLoss::Truncated,
            _ => return (Some(offset), decoded),
        };
        let place = (&*retry.topic, partition.partition);
        self.shared.position_lost(place, lost, Some(offset), None);
        Default::default()
    }
}
