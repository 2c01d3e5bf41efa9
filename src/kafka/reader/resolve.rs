//! Resolves a reading such as "the last ten of this topic" to offsets.
//!
//! Owns the requests before a reading starts: partitions, first and last offsets.
//!
//! The client is a consumer without `isolation.level`, whose default is `read_committed`. So the
//! brokers return the last stable offset as the end of a partition, beyond which no fetch of a
//! consumer goes. A setting of `read_uncommitted` changes only what is fetched, up to this end.
//! The leader answers, and it refuses while it does not know the end that its predecessor had
//! (KIP-207).
//!
//! An offset outside of a partition's log would make the client fall back to `auto.offset.reset`,
//! and thus read everything. So every resolved offset is clamped to the available ones.

use super::{Reading, Span, Start};
use crate::kafka::error::connection_fault::LastFault;
use crate::kafka::error::{explained, failed};
use crate::kafka::native::logged_in;
use crate::kafka::{KafkaConfig, KafkaError, is_topic_name};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A partition and its available offsets. `high` is the last stable offset.
struct AvailableOffsets {
    topic: Arc<str>,
    partition: i32,
    low: i64,
    high: i64,
}

/// The spans that a reading covers now, sorted by topic and partition. Blocks. `timeout` bounds
/// each request.
pub(in crate::kafka) fn resolve(
    config: &KafkaConfig,
    reading: &Reading,
    timeout: Duration,
) -> Result<Vec<Span>, KafkaError> {
    let client_config = config.client()?;
    let made = logged_in(&client_config, LastFault::default());
    let (client, _login) = made.map_err(|error| failed("creating a client", error))?;
    let mut bounds = Vec::new();
    // A topic or partition that is named twice is read once.
    let topics: BTreeSet<&String> = reading.topics.iter().collect();
    let wanted: BTreeSet<i32> = reading.partitions.iter().copied().collect();
    for topic in topics {
        let topic: Arc<str> = topic.as_str().into();
        for partition in partitions(config, &client, &topic, &wanted, timeout)? {
            let (low, high) = client
                .fetch_watermarks(&topic, partition, timeout)
                .map_err(|e| failed(&format!("requesting the offsets of {topic}"), e))?;
            bounds.push(AvailableOffsets {
                topic: Arc::clone(&topic),
                partition,
                low,
                high,
            });
        }
    }
    let starts = offsets(&client, &bounds, reading.start, timeout)?;
    let ends = match reading.end {
        Some(end) => offsets(&client, &bounds, end, timeout)?
            .into_iter()
            .map(Some)
            .collect(),
        None => vec![None; bounds.len()],
    };
    Ok(bounds
        .into_iter()
        .zip(starts.into_iter().zip(ends))
        .map(|(at, (start, end))| Span {
            topic: at.topic,
            partition: at.partition,
            start,
            end,
        })
        .collect())
}

/// The requested partitions of a topic, sorted, or all of them.
fn partitions(
    config: &KafkaConfig,
    client: &BaseConsumer<LastFault>,
    topic: &str,
    wanted: &BTreeSet<i32>,
    timeout: Duration,
) -> Result<BTreeSet<i32>, KafkaError> {
    let unknown = || KafkaError::UnknownTopic {
        topic: topic.to_owned(),
    };
    // The bindings panic on an impossible name.
    if !is_topic_name(topic) {
        return Err(unknown());
    }
    let what = "requesting the topics";
    let metadata = client
        .fetch_metadata(Some(topic), timeout)
        .map_err(|error| explained(client, &config.brokers, what, timeout, error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.ok_or_else(unknown)?;
    match found.error() {
        None => {}
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Err(unknown()),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
            return Err(KafkaError::hidden_topic(topic));
        }
        Some(error) => return Err(failed(what, ClientError::MetadataFetch(error.into()))),
    }
    let existing: BTreeSet<i32> = found.partitions().iter().map(|p| p.id()).collect();
    match wanted.difference(&existing).next() {
        Some(missing) => Err(KafkaError::UnknownPartition {
            topic: topic.to_owned(),
            partition: *missing,
            existing: existing.len(),
        }),
        None if wanted.is_empty() => Ok(existing),
        None => Ok(wanted.clone()),
    }
}

/// The offset of `at` in each partition.
fn offsets(
    client: &BaseConsumer<LastFault>,
    bounds: &[AvailableOffsets],
    at: Start,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
    if let Start::Time(ms) = at {
        return offsets_at(client, bounds, ms, timeout);
    }
    Ok(bounds.iter().map(|bounds| bounds.offset(at)).collect())
}

/// The first offset at or after a time in each partition, by one request. The end of a partition
/// whose records are all older.
fn offsets_at(
    client: &BaseConsumer<LastFault>,
    bounds: &[AvailableOffsets],
    ms: i64,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
    let asked = |e| failed("requesting the offsets of a time", e);
    let mut times = TopicPartitionList::with_capacity(bounds.len());
    for at in bounds {
        times
            .add_partition_offset(&at.topic, at.partition, Offset::Offset(ms))
            .map_err(asked)?;
    }
    let found = client.offsets_for_times(times, timeout).map_err(asked)?;
    bounds
        .iter()
        .map(|at| {
            let element = found.find_partition(&at.topic, at.partition);
            if let Some(element) = &element {
                element.error().map_err(asked)?;
            }
            Ok(match element.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset,
                // No record is that recent.
                _ => at.high,
            })
        })
        .collect()
}

impl AvailableOffsets {
    /// The offset of `at`, within the available ones. A time is resolved by [`offsets_at`].
    fn offset(&self, at: Start) -> i64 {
        match at {
            Start::Beginning => self.low,
            Start::End | Start::Time(_) => self.high,
            Start::Offset(offset) => offset.clamp(self.low, self.high),
            Start::Last(records) => self.high.saturating_sub(records).clamp(self.low, self.high),
        }
    }
}
