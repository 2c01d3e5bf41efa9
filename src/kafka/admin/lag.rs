//! How far a group is: committed offsets, ends of partitions, age of the oldest record that is not settled.
//!
//! Owns the arithmetic. Reads as nobody: the client that asks for the group's offsets never joins it.

use super::PartitionLag;
use super::connection::{Connection, LastError};
use super::topics::watermarks;
use crate::kafka::error::failed;
use crate::kafka::queue::{Committed, committed};
use crate::kafka::reader::{Reader, Span};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// At most this share of a request's time goes into ages: the numbers are worth more than they.
const AGE_SHARE: u32 = 2;

/// The lag of each partition, sorted by topic and number.
pub(super) fn of_group(
    connection: &Connection,
    group: &str,
    topics: &[String],
) -> Result<Vec<PartitionLag>, KafkaError> {
    let client = group_client(connection, group)?;
    let mut offsets = committed_offsets(connection, &client, topics)?;
    if topics.is_empty() {
        keep_committed_topics(&mut offsets);
    }
    let mut lags = Vec::with_capacity(offsets.len());
    for partition in offsets {
        let (low, high) = watermarks(connection, &partition.topic, partition.partition)?;
        lags.push(lag_of(partition, low, high));
    }
    lags.sort_unstable_by(|one, other| {
        (&one.topic, one.partition).cmp(&(&other.topic, other.partition))
    });
    let until = Instant::now() + connection.left("reading ages")? / AGE_SHARE;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    add_ages(connection.config(), &mut lags, until, now_ms)?;
    Ok(lags)
}

/// A client that may ask for the group's offsets.
fn group_client(
    connection: &Connection,
    group: &str,
) -> Result<BaseConsumer<LastError>, KafkaError> {
    let mut config = connection.config().consumer(group)?;
    // A static member's id is not for guests.
    config.remove("group.instance.id");
    config
        .create_with_context(LastError::default())
        .map_err(|error| failed("creating a client", error))
}

fn committed_offsets(
    connection: &Connection,
    client: &BaseConsumer<LastError>,
    topics: &[String],
) -> Result<Vec<Committed>, KafkaError> {
    let metadata = connection.metadata(None)?;
    let partitions: BTreeMap<&str, Vec<i32>> = metadata
        .topics()
        .iter()
        .filter(|found| !found.partitions().is_empty())
        .filter(|found| {
            if topics.is_empty() {
                !found.name().starts_with("__")
            } else {
                topics.iter().any(|topic| topic == found.name())
            }
        })
        .map(|found| {
            let partitions = found.partitions().iter().map(|partition| partition.id());
            (found.name(), partitions.collect())
        })
        .collect();
    if let Some(unknown) = topics
        .iter()
        .find(|topic| !partitions.contains_key(topic.as_str()))
    {
        let topic = unknown.clone();
        return Err(KafkaError::UnknownTopic { topic });
    }
    let mut list = TopicPartitionList::new();
    for (topic, partitions) in partitions {
        for partition in partitions {
            list.add_partition(topic, partition);
        }
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let what = "asking for committed offsets";
    committed(client, &list, connection.left(what)?)
        .map_err(|error| connection.unanswered(what, error))
}

/// Drops the topics that the group has nothing to do with.
fn keep_committed_topics(offsets: &mut Vec<Committed>) {
    let topics: BTreeSet<String> = offsets
        .iter()
        .filter(|partition| partition.offset.is_some())
        .map(|partition| partition.topic.clone())
        .collect();
    offsets.retain(|partition| topics.contains(&partition.topic));
}

fn lag_of(partition: Committed, low: i64, high: i64) -> PartitionLag {
    // What retention took away before it was read is no work any more, and offsets beyond the end, as a topic that was
    // deleted and created again leaves them, are no negative work.
    let next = partition.offset.unwrap_or(low).max(low);
    PartitionLag {
        topic: partition.topic,
        partition: partition.partition,
        committed: partition.offset,
        low,
        high,
        lag: (high - next).max(0),
        age_ms: None,
        unreadable: None,
    }
}

/// Reads the first record of each partition that has a lag and notes its age.
///
/// A partition whose end is reached without a record (only transaction markers, or compacted) has no age; neither has one that
/// does not answer by `until`. One whose first record cannot be read says why.
fn add_ages(
    config: &KafkaConfig,
    lags: &mut [PartitionLag],
    until: Instant,
    now_ms: i64,
) -> Result<(), KafkaError> {
    let mut open = BTreeMap::new();
    let mut spans = Vec::new();
    for (index, lag) in lags.iter().enumerate().filter(|(_, lag)| lag.lag > 0) {
        open.insert((lag.topic.clone(), lag.partition), index);
        spans.push(Span {
            topic: lag.topic.as_str().into(),
            partition: lag.partition,
            start: lag.committed.unwrap_or(lag.low).max(lag.low),
            end: Some(lag.high),
        });
    }
    if open.is_empty() {
        return Ok(());
    }
    let within = until.saturating_duration_since(Instant::now());
    let left = || until.saturating_duration_since(Instant::now());
    let mut reader = Reader::over(&of_few_records(config)?, spans, left())?;
    while !open.is_empty() && !reader.at_end() {
        if left() < Duration::from_millis(1) {
            tracing::debug!(partitions = open.len(), "no age within the time");
            // Monitoring is not to take what nobody knows for young.
            open.retain(|(topic, partition), _| !reader.has_ended(topic, *partition));
            for index in open.into_values() {
                let lag = &mut lags[index];
                let next = lag.committed.unwrap_or(lag.low).max(lag.low);
                lag.unreadable = Some(format!(
                    "{}/{} could not be read at offset {next} within {within:.1?}",
                    lag.topic, lag.partition
                ));
            }
            break;
        }
        match reader.next(left()) {
            Ok(Some(record)) => {
                if let Some(index) = open.remove(&(record.topic.to_string(), record.partition)) {
                    let age = record.timestamp_ms.map(|then| now_ms - then);
                    lags[index].age_ms = age.map(|age| age.max(0));
                }
                reader.leave(&record.topic, record.partition);
            }
            Err(KafkaError::UnreadableBatch(batch)) => {
                if let Some(index) = open.remove(&(batch.topic.clone(), batch.partition)) {
                    lags[index].unreadable = Some(batch.to_string());
                }
            }
            Err(error @ KafkaError::Refused { .. }) => return Err(error),
            // The client connects again by itself.
            Err(_) | Ok(None) => {}
        }
    }
    Ok(())
}

/// The settings of a client that reads little: one record of each partition.
fn of_few_records(config: &KafkaConfig) -> Result<KafkaConfig, KafkaError> {
    let mut few = config.clone();
    for property in [
        "queued.min.messages=1",
        "fetch.message.max.bytes=16384",
        "fetch.wait.max.ms=50",
    ] {
        few.set(property)?;
    }
    Ok(few)
}
