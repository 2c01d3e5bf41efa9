//! Finds out where newly assigned retry partitions begin and end, and starts to read them.
//!
//! Topic by topic: one that does not answer keeps its own partitions waiting, and no others.

use super::super::metadata::{self, SettledAbove, Tag};
use super::super::partition::Partition;
use super::super::prepare;
use super::follow::{ANSWER_WITHIN, Follower, is_unknown, open};
use crate::kafka::queue::{Committed, committed, forward};
use crate::recovery::parking::Parking;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError as ClientError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before what was not answered is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before the retry topics are looked at again for partitions that they lack.
const GROW_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The component under which retry partitions that cannot be read show in the health.
const COMPONENT: &str = "retry_partitions";

/// What the brokers say about some retry partitions.
struct Answers {
    committed: Vec<Committed>,
    beginnings: TopicPartitionList,
    ends: TopicPartitionList,
}

impl Follower {
    /// Asks about those that are not known yet, and reads those that were answered for.
    pub(super) fn look_up(&mut self) {
        if self.unknown.is_empty() || Instant::now() < self.look_up_at {
            return;
        }
        let mut topics: HashMap<Arc<str>, Vec<Arc<Partition>>> = HashMap::new();
        for partition in std::mem::take(&mut self.unknown) {
            if let Some(retry) = &partition.retry {
                let of_topic = topics.entry(Arc::clone(&retry.topic)).or_default();
                of_topic.push(partition);
            }
        }
        let mut refusals = Vec::new();
        // Asked about topics together, the client answers for none of them when it may not look at one.
        for partitions in topics.into_values() {
            let answers = self.ask(&partitions);
            for partition in partitions {
                let answers = answers.as_ref().map_err(ClientError::clone);
                if let Err(error) = answers.and_then(|answers| self.begin(&partition, answers)) {
                    self.unknown.push(partition);
                    refusals.push(error);
                }
            }
        }
        self.look_up_at = Instant::now() + AGAIN_AFTER;
        let state = match refusals.first() {
            None => Ok(()),
            Some(error) => Err(format!(
                "{} retry partitions cannot be read, and their partitions wait for that: {error}",
                self.unknown.len()
            )),
        };
        self.engine.health.set_ready(COMPONENT, state);
        if let Some(error) = refusals.first() {
            tracing::warn!(group = self.engine.group, partitions = self.unknown.len(), %error, "retry partitions cannot be looked up; their partitions wait for that");
        }
        let mut codes = refusals.iter().filter_map(ClientError::rdkafka_error_code);
        if codes.any(is_unknown) {
            self.grow();
        }
    }

    fn ask(&self, partitions: &[Arc<Partition>]) -> KafkaResult<Answers> {
        let mut places = [TopicPartitionList::new(), TopicPartitionList::new()];
        for partition in partitions {
            if let Some(retry) = &partition.retry {
                for (list, offset) in places.iter_mut().zip([Offset::Beginning, Offset::End]) {
                    list.add_partition_offset(&retry.topic, partition.partition, offset)?;
                }
            }
        }
        let [beginnings, ends] = places;
        Ok(Answers {
            committed: committed(&self.consumer, &ends, ANSWER_WITHIN)?,
            beginnings: self.consumer.offsets_for_times(beginnings, ANSWER_WITHIN)?,
            ends: self.consumer.offsets_for_times(ends, ANSWER_WITHIN)?,
        })
    }

    fn begin(&mut self, partition: &Arc<Partition>, answers: &Answers) -> KafkaResult<()> {
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
        let (low, end) = (offset_in(&answers.beginnings)?, offset_in(&answers.ends)?);
        let found = answers
            .committed
            .iter()
            .find(|found| found.topic == *retry.topic && found.partition == number);
        if let Some(error) = found.and_then(|found| found.error) {
            return Err(ClientError::OffsetFetch(error));
        }
        // Beyond the end: the topic was made anew.
        let committed = found
            .and_then(|found| found.offset)
            .filter(|offset| *offset <= end);
        let settled_above = match (committed, found) {
            (Some(offset), Some(found)) => {
                let tag = Tag {
                    group: &self.engine.group,
                    topic: &retry.topic,
                    partition: number,
                };
                metadata::decode(tag, offset, &found.metadata)
            }
            _ => SettledAbove::default(),
        };
        let wait_max = self.engine.settings.retry.park_delay_max();
        let wait_max_ms = i64::try_from(wait_max.as_millis()).unwrap_or(i64::MAX);
        let start = committed.unwrap_or(low).max(low);
        let is_committed = committed.is_some();
        let state = Parking::new(start, end, settled_above.runs(), wait_max_ms, is_committed);
        retry.change(|set| *set = state);
        forward(&self.consumer, &retry.topic, number, self.queue.target())?;
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(&retry.topic, number, Offset::Offset(start))?;
        self.consumer.incremental_assign(&assigned)?;
        open(&self.engine, retry);
        let partitions = self.followed.entry(Arc::clone(&retry.topic)).or_default();
        partitions.insert(number, Arc::clone(partition));
        Ok(())
    }

    /// The source has partitions that the retry topic lacks, or somebody deleted it: it is made whole.
    fn grow(&mut self) {
        let is_early = |grown_at: Instant| grown_at.elapsed() < GROW_AGAIN_AFTER;
        if self.grown_at.is_some_and(is_early) {
            return;
        }
        self.grown_at = Some(Instant::now());
        let growing = prepare::grow(&self.kafka, &self.engine.settings);
        match self.runtime.block_on(growing) {
            Ok(topics) => self.engine.parking.add_topics(topics),
            Err(error) => {
                tracing::warn!(group = self.engine.group, %error, "retry topics cannot be created or given more partitions");
            }
        }
    }
}
